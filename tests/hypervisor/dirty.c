/*
 * The log of pages that a guest has written, by KVM's interface and nothing else: which pages it
 * names, after writes of the guest and of the kernel for the guest, in small pages and large ones.
 * Also memory that its owner may only read.
 *
 * Usage: dirty DEVICE
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define LARGE  0x200000ul
#define PAGE   0x1000ul
#define SLOT   1
#define BASE   LARGE /* guest-physical, of the slot with the log */
#define BYTES  (4 * LARGE)
#define PAGES  (BYTES / PAGE)
#define CODE   0x1000
#define ROM    0x8000	     /* guest-physical, of a page that its owner may not write */
#define DEVICE 0xd0000000ull /* in no slot */

/* 32-bit code without paging, flat segments: for each page of a list that ends with 0, a byte. */
static const unsigned char write_pages[] = {
    0x8b, 0x03,	      /* 1: mov (%ebx), %eax */
    0x85, 0xc0,	      /*    test %eax, %eax */
    0x74, 0x08,	      /*    jz 2f */
    0xfe, 0x40, 0x07, /*    incb 7(%eax) */
    0x83, 0xc3, 0x04, /*    add $4, %ebx */
    0xeb, 0xf2,	      /*    jmp 1b */
    0xf4,	      /* 2: hlt */
};

/* A page is read, then written for ever, with a port's write behind each. */
static const unsigned char read_and_write[] = {
    0x8a, 0x03,	      /* mov (%ebx), %al */
    0xe6, 0x80,	      /* out %al, $0x80 */
    0xfe, 0x43, 0x07, /* 1: incb 7(%ebx) */
    0xe6, 0x80,	      /* out %al, $0x80 */
    0xeb, 0xf9,	      /* jmp 1b */
};

/* The kernel writes for the guest: what a port answers, across two pages. */
static const unsigned char read_port[] = {
    0xfc,	/* cld */
    0xf3, 0x6c, /* rep insb */
    0xf4,	/* hlt */
};

static int vm, vcpu;
static struct kvm_run *run;
static uint8_t *low, *logged;

static int must(int ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

static void *map(size_t bytes, int protection)
{
	void *p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static int set_slot(uint32_t slot, uint64_t gpa, uint64_t bytes, void *memory, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
	    .slot = slot,
	    .flags = flags,
	    .guest_phys_addr = gpa,
	    .memory_size = bytes,
	    .userspace_addr = (uintptr_t)memory,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static void set_log(bool on)
{
	must(set_slot(SLOT, BASE, BYTES, logged, on ? KVM_MEM_LOG_DIRTY_PAGES : 0), "log");
}

/* Puts the vCPU to the beginning of @code, in flat 32-bit mode. */
static void load(const void *code, size_t bytes, struct kvm_regs *regs)
{
	struct kvm_segment flat = {
	    .limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1, .selector = 16};
	struct kvm_sregs sregs;

	memcpy(low + CODE, code, bytes);
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cr0 |= 1;
	sregs.ds = sregs.es = sregs.ss = flat;
	sregs.cs = flat;
	sregs.cs.type = 11;
	sregs.cs.selector = 8;
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	regs->rip = CODE;
	regs->rflags = 2;
	must(ioctl(vcpu, KVM_SET_REGS, regs), "KVM_SET_REGS");
}

static uint32_t run_on(void)
{
	must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_HLT && run->exit_reason != KVM_EXIT_IO &&
	    run->exit_reason != KVM_EXIT_MMIO)
		errx(1, "exit reason %u", run->exit_reason);
	return run->exit_reason;
}

/* Runs @code to its HLT; ports and devices' memory answer 0x5a. */
static void run_code(const void *code, size_t bytes, struct kvm_regs *regs)
{
	load(code, bytes, regs);
	for (;;) {
		switch (run_on()) {
		case KVM_EXIT_IO:
			memset((char *)run + run->io.data_offset, 0x5a,
			       run->io.count * run->io.size);
			break;
		case KVM_EXIT_MMIO:
			memset(run->mmio.data, 0x5a, run->mmio.len);
			break;
		default:
			return;
		}
	}
}

/* The guest writes to these pages of the logged slot, a list that ends with -1. */
static void guest_writes(const int *pages)
{
	struct kvm_regs regs = {.rbx = CODE + 0x100};
	uint32_t *list = (uint32_t *)(low + CODE + 0x100);

	for (; *pages >= 0; pages++)
		*list++ = (uint32_t)(BASE + (uint64_t)*pages * PAGE);
	*list = 0;
	run_code(write_pages, sizeof(write_pages), &regs);
}

static void read_log(uint64_t *got)
{
	struct kvm_dirty_log log = {.slot = SLOT, .dirty_bitmap = got};

	memset(got, 0xff, PAGES / 8);
	must(ioctl(vm, KVM_GET_DIRTY_LOG, &log), "KVM_GET_DIRTY_LOG");
}

/* The log names these pages and no others. */
static void expect_log(const char *when, const int *pages)
{
	static uint64_t wanted[PAGES / 64], got[PAGES / 64];

	memset(wanted, 0, sizeof(wanted));
	for (; *pages >= 0; pages++)
		wanted[*pages / 64] |= 1ull << (*pages % 64);
	read_log(got);
	for (size_t i = 0; i < PAGES; i++) {
		bool want = wanted[i / 64] >> (i % 64) & 1;

		if ((got[i / 64] >> (i % 64) & 1) != want)
			errx(1, "%s: page %zu is %sin the log", when, i, want ? "not " : "");
	}
}

#define LIST(...) ((const int[]){__VA_ARGS__, -1})
#define NOTHING	  ((const int[]){-1})

static void test_log(void)
{
	static const unsigned char movsd[] = {0xa5, 0xf4}; /* and hlt */
	struct kvm_regs regs = {.rdx = 0x80, .rcx = 8, .rdi = BASE + 41 * PAGE - 4};
	struct kvm_regs from_device = {.rsi = DEVICE, .rdi = BASE + 51 * PAGE - 2};

	logged[5 * PAGE + 7] = 0;
	set_log(true);
	expect_log("at first", NOTHING);
	guest_writes(LIST(3, 5, 600, PAGES - 1));
	expect_log("after writes", LIST(3, 5, 600, PAGES - 1));
	expect_log("once more", NOTHING);
	guest_writes(LIST(5, 5, 6));
	expect_log("after more writes", LIST(5, 6));
	if (logged[5 * PAGE + 7] != 3)
		errx(1, "the guest's writes are not there");
	run_code(read_port, sizeof(read_port), &regs);
	expect_log("after the kernel's writes", LIST(40, 41));
	if (logged[41 * PAGE - 1] != 0x5a || logged[41 * PAGE] != 0x5a)
		errx(1, "the port's answer is not there");
	run_code(movsd, sizeof(movsd), &from_device);
	expect_log("after a move from a device", LIST(50, 51));
	if (logged[51 * PAGE - 1] != 0x5a || logged[51 * PAGE] != 0x5a)
		errx(1, "the device's answer is not there");
}

/* The log is read between two writes by the same translation. */
static void test_between_writes(void)
{
	struct kvm_regs regs = {.rbx = BASE + 9 * PAGE};
	uint64_t log[PAGES / 64];

	set_log(false);
	set_log(true);
	load(read_and_write, sizeof(read_and_write), &regs);
	run_on();
	read_log(log); /* a page that was only read may be in it: KVM maps it for writing */
	for (int n = 0; n < 3; n++) {
		run_on();
		expect_log("between writes", LIST(9));
	}
}

/* What was mapped without a log, perhaps in large pages, gets one; and loses it. */
static void test_begin_and_end(void)
{
	struct kvm_dirty_log log = {.slot = SLOT,
				    .dirty_bitmap = map(PAGE, PROT_READ | PROT_WRITE)};

	must(set_slot(SLOT, 0, 0, NULL, 0), "no slot"); /* what was mapped in small pages goes */
	set_log(false);
	if (!ioctl(vm, KVM_GET_DIRTY_LOG, &log) || errno != ENOENT)
		errx(1, "a slot without a log has one");
	guest_writes(LIST(3, 700, 701));
	set_log(true);
	expect_log("of pages that were mapped", NOTHING);
	guest_writes(LIST(701, 703, 1200));
	expect_log("after writes to them", LIST(701, 703, 1200));
	/* Nothing is lost if the log's end comes between. */
	guest_writes(LIST(701));
	set_log(false);
	guest_writes(LIST(701, 3, 4));
	if (logged[701 * PAGE + 7] != 4)
		errx(1, "writes around the log's end are lost");
	log.slot = 77;
	if (!ioctl(vm, KVM_GET_DIRTY_LOG, &log) || errno != ENOENT)
		errx(1, "a slot that is not there has a log");
}

static void test_read_only_owner(void)
{
	static const unsigned char load[] = {0xa1, 0x10, ROM >> 8 & 0xff, 0, 0, 0xf4};
	struct kvm_regs regs = {.rax = 0};
	uint8_t *rom = map(PAGE, PROT_READ | PROT_WRITE);

	memset(rom, 0x77, PAGE);
	must(mprotect(rom, PAGE, PROT_READ), "mprotect");
	must(set_slot(2, ROM, PAGE, rom, KVM_MEM_READONLY), "read-only slot");
	/* mov ROM + 0x10, %eax; hlt */
	run_code(load, sizeof(load), &regs);
	must(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	if ((uint32_t)regs.rax != 0x77777777)
		errx(1, "memory that its owner may only read reads as %#llx", regs.rax);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(1, "usage: dirty DEVICE");
	int kvm = must(open(argv[1], O_RDWR | O_CLOEXEC), argv[1]);

	vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	low = map(ROM, PROT_READ | PROT_WRITE);
	must(set_slot(0, 0, ROM, low, 0), "low memory");
	logged = map(BYTES + LARGE, PROT_READ | PROT_WRITE);
	logged = (uint8_t *)(((uintptr_t)logged + LARGE - 1) & ~(LARGE - 1));
	madvise(logged, BYTES, MADV_HUGEPAGE);
	memset(logged, 0, BYTES);
	vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	run = mmap(NULL, (size_t)must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "mmap size"),
		   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "mmap vCPU");

	/* The first slot's pages are mapped one by one, the second round's were there before the
	 * log. */
	test_between_writes();
	test_log();
	test_begin_and_end();
	test_log();
	test_read_only_owner();
	puts("ok dirty");
	return 0;
}
