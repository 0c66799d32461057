/*
 * What the ways out of a guest cost a hypervisor with KVM's interface: those that it handles in the
 * kernel, those that it hands to its owner, and the first touch of memory. Nothing of Guise's is
 * around it, so that one hypervisor's numbers can be laid beside another's.
 *
 * Prints a line for each: NAME NANOSECONDS, the fastest of BATCHES, since what else the machine
 * does only adds to it.
 *
 * Usage: exits DEVICE
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define BATCHES	     60
#define CODE_ADDRESS 0x1000
#define CODE_BYTES   0x1000
#define STACK	     0x4000
#define LOW_BYTES    0x10000
#define TOUCHED	     0x10000000 /* guest-physical, of the memory that is touched */
#define TOUCHED_SIZE (8u << 20)
#define DONE_PORT    0x10
#define PORT	     0x20
#define LARGE	     (2u << 20)

/*
 * The guest: protected mode, flat, no paging. Each piece does its thing ESI times and says so at
 * DONE_PORT.
 */
#define LOOP(name, body)                                                                           \
	"	.globl	guest_" name "\n"                                                          \
	"guest_" name ":\n" body "	dec	%esi\n"                                                     \
	"	jnz	guest_" name "\n"                                                          \
	"	out	%al, $0x10\n"

asm("	.pushsection .rodata\n"
    "	.code32\n"
    "	.balign	8\n"
    "guest_code:\n" LOOP("vmcall", "	mov	$1000, %eax\n"
				   "	vmcall\n") LOOP("cpuid", "	xor	%eax, %eax\n"
								 "	cpuid\n")
	LOOP("rdmsr", "	mov	$0x1a0, %ecx\n"			       /* IA32_MISC_ENABLE */
		      "	rdmsr\n") LOOP("out", "	out	%al, $0x20\n") /* PORT */
    LOOP("in", "	in	$0x20, %al\n")			       /* PORT */
    LOOP("mmio_write", "	mov	%eax, 0xd0000000\n")	       /* no slot is there */
    LOOP("mmio_read", "	mov	0xd0000000, %eax\n")
	LOOP("apic", "	mov	%edi, 0xfee00080\n") /* task priority */
    LOOP("touch", "	mov	%eax, (%edi)\n"	     /* a page */
		  "	add	%ebx, %edi\n")	     /* the next one */

    /* An interrupt to itself, HLT, which it ends, and its end; by x2APIC's MSRs. */
    LOOP("hlt", "	cli\n"
		"	mov	$0x83f, %ecx\n" /* self IPI */
		"	mov	$0x40, %eax\n"
		"	xor	%edx, %edx\n"
		"	wrmsr\n"
		"	sti\n"
		"	hlt\n")
    /* The way there: x2APIC mode, APIC on. */
    "	.globl	guest_x2apic\n"
    "guest_x2apic:\n"
    "	mov	$0x1b, %ecx\n"
    "	rdmsr\n"
    "	or	$0xc00, %eax\n"
    "	wrmsr\n"
    "	mov	$0x80f, %ecx\n"
    "	mov	$0x1ff, %eax\n"
    "	xor	%edx, %edx\n"
    "	wrmsr\n"
    "	out	%al, $0x10\n"
    "guest_handler:\n"
    "	mov	$0x80b, %ecx\n" /* EOI */
    "	xor	%eax, %eax\n"
    "	xor	%edx, %edx\n"
    "	wrmsr\n"
    "	iret\n"

    "	.balign	8\n"
    "	.globl	guest_gdt, guest_gate, guest_end\n"
    "guest_gdt:\n"
    "	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
    "guest_gate:\n"
    "	.word	guest_handler - guest_code + 0x1000, 8, 0x8e00, 0\n"
    "guest_end:\n"
    "	.code64\n"
    "	.popsection\n");

extern const uint8_t guest_code[], guest_vmcall[], guest_cpuid[], guest_rdmsr[], guest_out[],
    guest_in[], guest_mmio_write[], guest_mmio_read[], guest_apic[], guest_touch[], guest_hlt[],
    guest_x2apic[], guest_gdt[], guest_gate[], guest_end[];

static int must(int ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

static void *map(size_t bytes, int fd, int flags)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (memory == MAP_FAILED)
		err(1, "mmap");
	return memory;
}

struct guest {
	int vm, vcpu;
	struct kvm_run *run;
	uint8_t *touched; /* aligned to LARGE */
};

static uint32_t address(const uint8_t *piece)
{
	return CODE_ADDRESS + (uint32_t)(piece - guest_code);
}

static void set_slot(struct guest *g, uint32_t slot, uint32_t gpa, void *memory, size_t bytes)
{
	struct kvm_userspace_memory_region region = {
	    .slot = slot,
	    .guest_phys_addr = gpa,
	    .memory_size = bytes,
	    .userspace_addr = (uintptr_t)memory,
	};

	must(ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

/* Flat segments; the descriptor tables that interrupts need. */
static void set_mode(struct guest *g, uint8_t *low)
{
	struct kvm_segment code = {
	    .limit = ~0u, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
	struct kvm_segment data = {
	    .limit = ~0u, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	struct kvm_sregs sregs;

	must(ioctl(g->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt.base = address(guest_gdt);
	sregs.gdt.limit = guest_gate - guest_gdt - 1;
	sregs.idt.base = 0;
	sregs.idt.limit = 0x7ff;
	sregs.cr0 |= 1;
	must(ioctl(g->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	memcpy(low + 0x40 * 8, guest_gate, 8);
}

static void open_guest(struct guest *g, const char *device, bool chips)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = {.head.nent = 256};
	int kvm = must(open(device, O_RDWR | O_CLOEXEC), device);
	uint8_t *low = map(LOW_BYTES, -1, MAP_SHARED | MAP_ANONYMOUS);
	uint8_t *touched = map(TOUCHED_SIZE + LARGE, -1, MAP_PRIVATE | MAP_ANONYMOUS);

	g->vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	if (chips)
		must(ioctl(g->vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	memcpy(low + CODE_ADDRESS, guest_code, guest_end - guest_code);
	set_slot(g, 0, 0, low, LOW_BYTES);
	g->touched = (uint8_t *)(((uintptr_t)touched + LARGE - 1) & ~(uintptr_t)(LARGE - 1));

	g->vcpu = must(ioctl(g->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	g->run = map(must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"), g->vcpu,
		     MAP_SHARED);
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(g->vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
	set_mode(g, low);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* Runs a piece to its end; nanoseconds. */
static double run(struct guest *g, const uint8_t *piece, uint32_t times, uint32_t stride)
{
	struct kvm_regs regs = {.rip = address(piece),
				.rsp = STACK,
				.rflags = 2,
				.rsi = times,
				.rdi = stride ? TOUCHED : 0,
				.rbx = stride};

	must(ioctl(g->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	double start = now();
	for (;;) {
		must(ioctl(g->vcpu, KVM_RUN, 0), "KVM_RUN");
		switch (g->run->exit_reason) {
		case KVM_EXIT_IO:
			if (g->run->io.port == DONE_PORT)
				return now() - start;
			break;
		case KVM_EXIT_MMIO:
			break;
		default:
			errx(1, "exit reason %u", g->run->exit_reason);
		}
	}
}

static double least(double a, double b)
{
	return a < b ? a : b;
}

static void measure(struct guest *g, const char *name, const uint8_t *piece, uint32_t times)
{
	double best = run(g, piece, times, 0);

	for (int i = 1; i < BATCHES; i++)
		best = least(best, run(g, piece, times, 0));
	printf("%s %.0f\n", name, best / times);
}

/* The owner's memory is there; what is measured is the way into the hypervisor's tables. */
static void measure_touch(struct guest *g, const char *name, uint32_t page)
{
	uint32_t pages = TOUCHED_SIZE / page;
	double best = 1e18;

	madvise(g->touched, TOUCHED_SIZE, MADV_DONTNEED);
	madvise(g->touched, TOUCHED_SIZE, page == LARGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(g->touched, 1, TOUCHED_SIZE);
	for (int i = 0; i < BATCHES; i++) {
		set_slot(g, 1, TOUCHED, g->touched, TOUCHED_SIZE);
		best = least(best, run(g, guest_touch, pages, page));
		set_slot(g, 1, TOUCHED, g->touched, 0);
	}
	printf("%s %.0f\n", name, best / pages);
}

int main(int argc, char **argv)
{
	struct guest plain, chips;

	if (argc != 2)
		errx(1, "usage: exits DEVICE");
	open_guest(&plain, argv[1], false);
	measure(&plain, "vmcall", guest_vmcall, 300);
	measure(&plain, "cpuid", guest_cpuid, 300);
	measure(&plain, "rdmsr", guest_rdmsr, 300);
	measure(&plain, "out", guest_out, 200);
	measure(&plain, "in", guest_in, 200);
	measure(&plain, "mmio-write", guest_mmio_write, 200);
	measure(&plain, "mmio-read", guest_mmio_read, 200);
	measure_touch(&plain, "touch-4k", 4096);
	measure_touch(&plain, "touch-2m", LARGE);

	open_guest(&chips, argv[1], true);
	measure(&chips, "apic", guest_apic, 200);
	run(&chips, guest_x2apic, 1, 0);
	measure(&chips, "hlt", guest_hlt, 200);
	return 0;
}
