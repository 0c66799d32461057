# A thin layer over Meson and Ninja; "make help" lists what there is.
BUILD  ?= build
PREFIX ?= /usr/local
QUICK  ?=
FLAGS  ?=

.NOTPARALLEL:
.PHONY: all run test bench bench-hypervisor install clean help setup test-setup bench-setup build guest

all: setup build

help:
	@echo 'make                          install what is missing, build $(BUILD)/guise'
	@echo 'make run                      ... and boot Linux to a shell (without a terminal: to a self-check)'
	@echo 'make test [QUICK=1]           ... and run the tests (QUICK=1: under a minute)'
	@echo 'make bench [QUICK=1] [QEMU=]  ... and measure against this machine and QEMU (QUICK=1: two minutes)'
	@echo 'make bench-hypervisor         ... and measure exits to hypervisor/, beside KVM, in a guest of soft'
	@echo 'make install [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make clean                    remove $(BUILD) (downloads stay in ~/.cache/guise)'
	@echo 'BUILD=DIR takes another build directory, FLAGS= gives options to guise run or the benchmark.'

setup:
	@tools/setup.sh build

test-setup:
	@tools/setup.sh test

bench-setup:
	@tools/setup.sh bench

build: | setup
	@[ -f $(BUILD)/build.ninja ] || meson setup $(BUILD)
	@ninja -C $(BUILD) $(NINJAFLAGS)

guest: | setup
	@tools/guest-files.sh $(BUILD)

run: build guest
	@tools/run.sh $(BUILD) $(FLAGS)

test: test-setup build
	@tools/guest-files.sh $(BUILD) test
	@tests/run $(BUILD) $(if $(filter-out 0,$(QUICK)),--quick)

bench: bench-setup build guest
	@bench/bench.py $(BUILD) $(if $(filter-out 0,$(QUICK)),--quick) $(FLAGS)

bench-hypervisor: test-setup build
	@tools/guest-files.sh $(BUILD) test
	@meson test -C $(BUILD) --no-rebuild --benchmark --verbose exits

install: build
	@meson configure $(BUILD) -Dprefix=$(abspath $(PREFIX))
	@DESTDIR=$(if $(DESTDIR),$(abspath $(DESTDIR))) meson install -C $(BUILD)

clean:
	rm -rf $(BUILD)
