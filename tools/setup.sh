#!/bin/sh
# Installs the Debian packages that a build (and with "test" or "bench" the tests or the benchmark) needs and that
# are missing.
# Usage: tools/setup.sh build|test|bench
# What is there already is recognised by what it offers, not by its package, so that a compiler or a meson
# from elsewhere is accepted; a machine that has everything needs neither apt nor root.
set -eu
. "$(dirname "$0")/lib.sh"

# have cmd:NAME | hdr:FILE | file:PATH: is the command in PATH, the header in the system's include directories, the file
# there?
have()
{
	case $1 in
	file:*)
		[ -e "${1#file:}" ]
		;;
	cmd:*)
		command -v "${1#cmd:}" >/dev/null 2>&1
		;;
	hdr:*)
		for dir in /usr/include /usr/include/x86_64-linux-gnu /usr/local/include; do
			[ -e "$dir/${1#hdr:}" ] && return 0
		done
		return 1
		;;
	esac
}

# need PACKAGE PROOF: notes the package when its proof is missing.
missing=''
need()
{
	have "$2" || missing="$missing $1"
}

need gcc cmd:gcc
need libc6-dev hdr:stdio.h
need meson cmd:meson
need ninja-build cmd:ninja
need pkg-config cmd:pkg-config
need python3 cmd:python3
need libzydis-dev hdr:Zydis/Zydis.h
need zlib1g-dev hdr:zlib.h
need liblzma-dev hdr:lzma.h
need libzstd-dev hdr:zstd.h
need liblz4-dev hdr:lz4.h
need libbz2-dev hdr:bzlib.h
need libcmocka-dev hdr:cmocka.h

can_install=yes
if ! command -v apt-get >/dev/null 2>&1; then
	can_install=no why='this is no Debian system: install them its own way'
elif [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
	can_install=no why='installing needs root, and there is no sudo; as root: apt-get update && apt-get install ...'
fi
if [ -n "$missing" ] && [ "$can_install" = no ]; then
	die "missing (by Debian's names):$missing; $why"
fi

# want PACKAGE PROOF WITHOUT: notes the package where it can be installed; otherwise says what happens without it.
want()
{
	have "$2" && return 0
	if [ "$can_install" = yes ]; then
		missing="$missing $1"
	else
		say "missing: $1; $3; $why"
	fi
}

hypervisor='tests of the hypervisor module will be skipped'
case ${1:-build} in
test)
	want qemu-system-x86 cmd:qemu-system-x86_64 'tests that need it will be skipped'
	want gdb cmd:gdb 'tests that need it will be skipped'
	# The hypervisor module: the kernel's compiler and make, a processor with VMX, what starts a kernel there.
	want gcc-12 cmd:gcc-12 "$hypervisor"
	want make cmd:make "$hypervisor"
	want bochs cmd:bochs "$hypervisor"
	want bochsbios file:/usr/share/bochs/BIOS-bochs-latest "$hypervisor"
	want vgabios file:/usr/share/vgabios/vgabios.bin "$hypervisor"
	want grub-common cmd:grub-mkimage "$hypervisor"
	want grub-pc-bin file:/usr/lib/grub/i386-pc/boot.img "$hypervisor"
	;;
bench)
	[ -n "${QEMU:-}" ] || want qemu-system-x86 cmd:qemu-system-x86_64 'nothing to compare with'
	want librsvg2-bin cmd:rsvg-convert 'no plot as PNG'
	;;
esac

[ -n "$missing" ] || exit 0
say "installing$missing"
as_root apt-get -q update
# Word splitting is wanted: one argument a package.
# shellcheck disable=SC2086
as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing
