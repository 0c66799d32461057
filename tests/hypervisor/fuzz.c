/*
 * Random ioctls against a device with KVM's interface: in any order, with structures that are
 * random, nearly right or right, unreadable addresses, on VMs and vCPUs that come and go. Whatever
 * they return, the kernel has to outlive them; who started this program looks at the kernel's log
 * afterwards.
 *
 * Usage: fuzz DEVICE [COUNT [SEED]]
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define VMS	   2
#define VCPUS	   3
#define RAM_BYTES  (4ul << 20)
#define ARG_BYTES  8192
#define RUN_MAX_US 1000 /* a guest is left to itself for no longer */

struct vm {
	int fd;
	int vcpus[VCPUS];
	struct kvm_run *runs[VCPUS];
};

static struct {
	int device;
	struct vm vms[VMS];
	uint8_t *ram;
	uint8_t *arg; /* what ioctls are given; a page that does not exist follows */
	long run_bytes;
	uint64_t state;
	long good;
} f;

/* xorshift64* (Marsaglia, Vigna) */
static uint64_t next(void)
{
	f.state ^= f.state >> 12;
	f.state ^= f.state << 25;
	f.state ^= f.state >> 27;
	return f.state * 0x2545f4914f6cdd1dull;
}

static uint32_t below(uint32_t limit)
{
	return next() % limit;
}

/* Values at which checks change their minds. */
static uint64_t interesting(void)
{
	static const uint64_t values[] = {
	    0,
	    1,
	    2,
	    0x7f,
	    0xff,
	    0x1000,
	    0xfff,
	    0x7fffffff,
	    0x80000000,
	    0xffffffff,
	    0x100000000,
	    0x7fffffffffffffff,
	    ~0ull,
	    0x8000000000000000,
	    0x800000000000,
	    0x7ffffffff000,
	    0xffff800000000000,
	    0xfee00000,
	    0x80000011,
	    0xc0000080,
	    0x500,
	};
	switch (below(3)) {
	case 0:
		return values[below(sizeof(values) / sizeof(values[0]))];
	case 1:
		return 1ull << below(64);
	default:
		return next();
	}
}

static void randomize(size_t bytes)
{
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t value = below(2) ? interesting() : 0;
		memcpy(f.arg + i, &value, 8);
	}
}

static int on(int fd, unsigned long request, unsigned long arg)
{
	int ret = ioctl(fd, request, arg);
	f.good += ret >= 0;
	return ret;
}

/* One more change to a structure that is right: most checks are past only then. */
static void disturb(size_t bytes)
{
	if (below(3) == 0)
		return;
	for (uint32_t i = 1 + below(3); i; i--) {
		uint64_t value = interesting();
		memcpy(f.arg + below(bytes / 4) * 4 % (bytes - 7), &value, below(2) ? 4 : 8);
	}
}

static unsigned long argument(void)
{
	switch (below(16)) {
	case 0:
		return 0;
	case 1:
		return (unsigned long)f.arg + ARG_BYTES - below(64); /* its end is not there */
	case 2:
		return interesting();
	default:
		return (unsigned long)f.arg;
	}
}

static void set_memory(struct vm *vm)
{
	struct kvm_userspace_memory_region *r = (void *)f.arg;

	*r = (struct kvm_userspace_memory_region){
	    .slot = below(6),
	    .flags = below(4) ? 0 : below(8),
	    .guest_phys_addr = below(4) ? (uint64_t)below(0x800) << 12 : interesting(),
	    .memory_size = below(4) ? (uint64_t)below(0x400) << 12 : 0,
	    .userspace_addr = (uintptr_t)f.ram + ((uint64_t)below(0x100) << 12),
	};
	if (below(8) == 0)
		disturb(sizeof(*r));
	on(vm->fd, KVM_SET_USER_MEMORY_REGION, argument());
}

static const struct {
	unsigned long get, set;
	size_t bytes;
} states[] = {
    {KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs)},
    {KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs)},
    {KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs)},
    {KVM_GET_FPU, KVM_SET_FPU, sizeof(struct kvm_fpu)},
    {KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave)},
    {KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs)},
    {KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state)},
    {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events)},
    {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs)},
    {KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state)},
};

static void vcpu_state(int fd)
{
	uint32_t i = below(sizeof(states) / sizeof(states[0]));

	on(fd, states[i].get, argument());
	if (below(6) == 0)
		randomize(states[i].bytes);
	else
		disturb(states[i].bytes);
	on(fd, states[i].set, argument());
}

/* A state in which the guest gets somewhere: real mode at a random place in memory. */
static void start_guest(int fd)
{
	struct kvm_sregs *sregs = (void *)f.arg;
	struct kvm_regs regs = {.rip = below(0x1000), .rflags = 2, .rsp = 0x8000, .rcx = below(16)};

	if (on(fd, KVM_GET_SREGS, (unsigned long)sregs) < 0)
		return;
	sregs->cs.base = sregs->cs.selector = 0;
	if (below(2))
		disturb(sizeof(*sregs));
	on(fd, KVM_SET_SREGS, (unsigned long)sregs);
	on(fd, KVM_SET_REGS, (unsigned long)&regs);
}

static void run_guest(struct vm *vm, int i)
{
	static const uint16_t pieces[] = {0xa20f, 0x220f, 0x200f, 0x300f, 0x320f, 0x6ef3, 0x6cf3,
					  0xeeee, 0xf4f4, 0xa4f3, 0x010f, 0xc00f, 0x23f0, 0x0b0f};
	/* Again and again: the first alarm may come before KVM_RUN does. */
	struct itimerval alarms = {{0, RUN_MAX_US}, {0, RUN_MAX_US}}, none = {{0, 0}, {0, 0}};

	for (uint32_t n = below(64); n; n--) {
		uint32_t at = below(0x2000);
		uint16_t piece =
		    below(2) ? pieces[below(sizeof(pieces) / sizeof(pieces[0]))] : (uint16_t)next();
		memcpy(f.ram + at, &piece, 2);
	}
	if (vm->runs[i]) {
		vm->runs[i]->immediate_exit = below(8) == 0;
		vm->runs[i]->request_interrupt_window = below(4) == 0;
		vm->runs[i]->cr8 = below(4) ? 0 : next();
	}
	setitimer(ITIMER_REAL, &alarms, NULL);
	on(vm->vcpus[i], KVM_RUN, below(64) ? 0 : 1);
	setitimer(ITIMER_REAL, &none, NULL);
}

static void msrs(int fd)
{
	struct kvm_msrs *m = (void *)f.arg;
	static const uint32_t bases[] = {0x10,	0x1b,  0x3a,  0x174, 0x1a0, 0x1d9,	0x200,
					 0x250, 0x277, 0x2ff, 0x6e0, 0x800, 0xc0000080, 0xc0000100};

	m->nmsrs = below(8) ? below(8) : (uint32_t)interesting();
	for (uint32_t i = 0; i < 8; i++) {
		m->entries[i].index = bases[below(sizeof(bases) / sizeof(bases[0]))] + below(8);
		m->entries[i].data = interesting();
	}
	on(fd, below(2) ? KVM_SET_MSRS : KVM_GET_MSRS, argument());
}

static void cpuid(int fd)
{
	struct kvm_cpuid2 *c = (void *)f.arg;

	c->nent = below(4) ? 128 : (uint32_t)interesting();
	on(f.device, KVM_GET_SUPPORTED_CPUID, argument());
	if (below(2))
		disturb(2048);
	on(fd, KVM_SET_CPUID2, argument());
}

static void vcpu_other(int fd)
{
	static const unsigned long requests[] = {KVM_INTERRUPT,
						 KVM_NMI,
						 KVM_TRANSLATE,
						 KVM_SET_SIGNAL_MASK,
						 KVM_SET_GUEST_DEBUG,
						 KVM_TPR_ACCESS_REPORTING,
						 KVM_SMI};
	randomize(64);
	if (below(2))
		*(uint32_t *)f.arg = below(300);
	unsigned long request = requests[below(sizeof(requests) / sizeof(requests[0]))];
	/* A mask that blocks the alarm would leave a guest to itself for ever. */
	bool mask = request == KVM_SET_SIGNAL_MASK;
	if (mask)
		memset(f.arg + 4, 0, 8);
	on(fd, request, mask && below(8) ? (unsigned long)f.arg : mask ? 0 : argument());
}

static void vm_other(struct vm *vm)
{
	static const unsigned long requests[] = {
	    KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2, KVM_IRQ_LINE,	     KVM_SIGNAL_MSI,
	    KVM_GET_IRQCHIP,	KVM_SET_IRQCHIP, KVM_GET_PIT2,	     KVM_SET_PIT2,
	    KVM_GET_CLOCK,	KVM_SET_CLOCK,	 KVM_CHECK_EXTENSION};

	if (below(2))
		randomize(1024);
	if (below(2))
		*(uint32_t *)f.arg = below(26);
	on(vm->fd, requests[below(sizeof(requests) / sizeof(requests[0]))], argument());
}

static void any_number(int fd)
{
	unsigned long request = 0xae00 | (next() & 0xc0ff00ff);

	/* Nothing would end that run. */
	if (request != KVM_RUN)
		on(fd, request, argument());
}

static void close_vm(struct vm *vm)
{
	for (int i = 0; i < VCPUS; i++) {
		if (vm->runs[i])
			munmap(vm->runs[i], f.run_bytes);
		if (vm->vcpus[i] >= 0)
			close(vm->vcpus[i]);
		vm->vcpus[i] = -1;
		vm->runs[i] = NULL;
	}
	if (vm->fd >= 0)
		close(vm->fd);
	vm->fd = -1;
}

static void open_vcpu(struct vm *vm, int i)
{
	vm->vcpus[i] = on(vm->fd, KVM_CREATE_VCPU, below(8) ? (unsigned)i : interesting());
	if (vm->vcpus[i] < 0)
		return;
	void *run = mmap(NULL, f.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpus[i], 0);
	vm->runs[i] = run == MAP_FAILED ? NULL : run;
}

static void step(void)
{
	struct vm *vm = &f.vms[below(VMS)];
	int i = below(VCPUS);

	if (vm->fd < 0) {
		vm->fd = on(f.device, KVM_CREATE_VM, below(16) ? 0 : interesting());
		if (vm->fd >= 0 && below(2))
			on(vm->fd, KVM_CREATE_IRQCHIP, 0);
		return;
	}
	if (vm->vcpus[i] < 0) {
		open_vcpu(vm, i);
		return;
	}
	switch (below(24)) {
	case 0 ... 2:
		set_memory(vm);
		break;
	case 3 ... 8:
		vcpu_state(vm->vcpus[i]);
		break;
	case 9 ... 11:
		start_guest(vm->vcpus[i]);
		break;
	case 12 ... 14:
		run_guest(vm, i);
		break;
	case 15 ... 16:
		msrs(vm->vcpus[i]);
		break;
	case 17:
		cpuid(vm->vcpus[i]);
		break;
	case 18 ... 19:
		vcpu_other(vm->vcpus[i]);
		break;
	case 20 ... 21:
		vm_other(vm);
		break;
	case 22:
		any_number(below(2) ? vm->fd : vm->vcpus[i]);
		break;
	case 23:
		if (below(20) == 0)
			close_vm(vm);
		break;
	}
}

static void on_alarm(int signal)
{
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(1, "usage: fuzz DEVICE [COUNT [SEED]]");
	long count = argc > 2 ? atol(argv[2]) : 100000;
	f.state = argc > 3 ? strtoull(argv[3], NULL, 0) : 0x9e3779b97f4a7c15ull;
	printf("seed %#llx\n", (unsigned long long)f.state);

	struct sigaction action = {.sa_handler = on_alarm};
	sigaction(SIGALRM, &action, NULL);
	f.device = open(argv[1], O_RDWR | O_CLOEXEC);
	if (f.device < 0)
		err(1, "%s", argv[1]);
	f.run_bytes = ioctl(f.device, KVM_GET_VCPU_MMAP_SIZE, 0);
	f.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	f.arg = mmap(NULL, ARG_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (f.run_bytes < (long)sizeof(struct kvm_run) || f.ram == MAP_FAILED ||
	    f.arg == MAP_FAILED)
		err(1, "setting up");
	mprotect(f.arg + ARG_BYTES, 4096, PROT_NONE);
	for (int i = 0; i < VMS; i++) {
		f.vms[i].fd = -1;
		for (int j = 0; j < VCPUS; j++)
			f.vms[i].vcpus[j] = -1;
	}

	for (long i = 0; i < count; i++)
		step();
	for (int i = 0; i < VMS; i++)
		close_vm(&f.vms[i]);
	printf("%ld steps, %ld ioctls succeeded\n", count, f.good);
	/* If next to none did, nothing was tested. */
	return f.good > count / 20 ? 0 : 1;
}
