/*
 * Random ioctls against a device with KVM's interface: in any order, with structures that are
 * random, nearly right or right, unreadable addresses, on VMs and vCPUs that come and go, from
 * several threads at once. Guest memory is of every kind there is and changes under the guest;
 * descriptors and mappings are given back in any order; processes are forked, and killed with
 * guests running. Whatever they return, the kernel has to outlive them; who started this program
 * looks at the kernel's log and at what is still in use afterwards.
 *
 * Usage: fuzz DEVICE [COUNT [SEED [THREADS]]]
 * COUNT ioctls or some more are made. With one thread what happens follows from the seed, but for
 * when guests are interrupted.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VMS	    3
#define VCPUS	    3
#define THREADS_MAX 16
#define RAM_BYTES   (4ul << 20)
#define ARG_BYTES   8192
#define RUN_MAX_NS  1000000 /* a guest is left to itself for no longer */

/* Descriptors and mappings belong to whoever takes them out of here, by an exchange. */
struct vm {
	atomic_int fd;
	atomic_int vcpus[VCPUS];
	_Atomic(struct kvm_run *) runs[VCPUS];
};

/* What a slot's memory may be; all have RAM_BYTES. */
enum memory_kind {
	MEMORY_SHARED, /* guests' code is put here */
	MEMORY_PRIVATE,
	MEMORY_LARGE_PAGES,
	MEMORY_FILE, /* its end comes and goes */
	MEMORY_HUGETLB,
	MEMORY_READ_ONLY,
	MEMORY_PROGRAM, /* a file that cannot be written */
	MEMORY_NONE,	/* addresses without memory */
	MEMORY_KINDS
};

static struct {
	int device;
	int file;
	struct vm vms[VMS];
	uint8_t *memory[MEMORY_KINDS];
	long run_bytes;
	long count;
	atomic_long made, good;
} shared;

/* A thread's own. */
static __thread struct {
	uint8_t *arg; /* what ioctls are given; a page that does not exist follows */
	uint64_t state;
	timer_t alarm;
	sigjmp_buf step; /* where to go on if memory is gone */
	bool forked;
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

	atomic_fetch_add(&shared.made, 1);
	atomic_fetch_add(&shared.good, ret >= 0);
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

/* ---- guest memory ---- */

static uint8_t *map_memory(enum memory_kind kind, void *at)
{
	int anonymous = MAP_PRIVATE | MAP_ANONYMOUS, fixed = at ? MAP_FIXED : 0;
	int rw = PROT_READ | PROT_WRITE, fd = -1;
	void *memory = MAP_FAILED;

	switch (kind) {
	case MEMORY_SHARED:
		memory = mmap(at, RAM_BYTES, rw, MAP_SHARED | MAP_ANONYMOUS | fixed, -1, 0);
		break;
	case MEMORY_PRIVATE:
	case MEMORY_LARGE_PAGES:
		memory = mmap(at, RAM_BYTES, rw, anonymous | fixed, -1, 0);
		madvise(memory, RAM_BYTES,
			kind == MEMORY_PRIVATE ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
		break;
	case MEMORY_FILE:
		memory = mmap(at, RAM_BYTES, rw, MAP_SHARED | fixed, shared.file, 0);
		break;
	case MEMORY_HUGETLB:
		memory = mmap(at, RAM_BYTES, rw, anonymous | MAP_HUGETLB | fixed, -1, 0);
		break;
	case MEMORY_READ_ONLY:
		memory = mmap(at, RAM_BYTES, PROT_READ, anonymous | fixed, -1, 0);
		break;
	case MEMORY_PROGRAM:
		fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		memory = mmap(at, RAM_BYTES, PROT_READ, MAP_SHARED | fixed, fd, 0);
		close(fd);
		break;
	case MEMORY_NONE:
	case MEMORY_KINDS:
		break;
	}
	/* No large pages set aside, for instance. */
	if (memory == MAP_FAILED)
		memory = mmap(at, RAM_BYTES, PROT_NONE, anonymous | fixed, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

/* Memory changes under the guests that have it. */
static void change_memory(void)
{
	static const int rights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
	enum memory_kind kind = below(MEMORY_KINDS);
	uint8_t *memory = shared.memory[kind];
	uint64_t from = (uint64_t)below(RAM_BYTES >> 12) << 12;
	uint64_t bytes = (uint64_t)(1 + below((RAM_BYTES - from) >> 12)) << 12;

	switch (below(6)) {
	case 0:
		mprotect(memory + from, bytes, rights[below(3)]);
		break;
	case 1:
		madvise(memory + from, bytes, below(2) ? MADV_DONTNEED : MADV_REMOVE);
		break;
	case 2:
		munmap(memory + from, bytes);
		break;
	case 3:
		if (ftruncate(shared.file, below(2) ? (off_t)from : (off_t)RAM_BYTES))
			err(1, "ftruncate");
		break;
	default:
		map_memory(kind, memory);
	}
}

static void set_memory(struct vm *vm)
{
	struct kvm_userspace_memory_region *r = (void *)f.arg;
	uint8_t *memory = shared.memory[below(2) ? MEMORY_SHARED : below(MEMORY_KINDS)];
	uint32_t large = below(2) ? 0x200 : 1; /* whether 2 MiB may be one page */

	/* What is shared with the kernel is memory, too. */
	if (below(32) == 0)
		memory = (void *)vm->runs[below(VCPUS)];
	*r = (struct kvm_userspace_memory_region){
	    .slot = below(6),
	    .flags = below(4) ? 0 : below(8),
	    .guest_phys_addr =
		below(4) ? (uint64_t)below(0x800 / large) * large << 12 : interesting(),
	    .memory_size = below(4) ? (uint64_t)(1 + below(0x400 / large)) * large << 12 : 0,
	    .userspace_addr =
		(uintptr_t)memory + ((uint64_t)below(0x100 / large + 1) * large << 12),
	};
	if (below(8) == 0)
		disturb(sizeof(*r));
	on(vm->fd, KVM_SET_USER_MEMORY_REGION, argument());
}

static void dirty_log(struct vm *vm)
{
	struct kvm_dirty_log *log = (void *)f.arg;

	*log = (struct kvm_dirty_log){.slot = below(6), .dirty_bitmap = f.arg + 64};
	if (below(2))
		disturb(sizeof(*log));
	on(vm->fd, below(4) ? KVM_GET_DIRTY_LOG : KVM_CLEAR_DIRTY_LOG, argument());
}

/* ---- a vCPU's state ---- */

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
	struct itimerspec alarms = {{0, RUN_MAX_NS}, {0, RUN_MAX_NS}}, none = {{0, 0}, {0, 0}};
	struct kvm_run *run = vm->runs[i];

	for (uint32_t n = below(64); n; n--) {
		uint32_t at = below(0x2000);
		uint16_t piece =
		    below(2) ? pieces[below(sizeof(pieces) / sizeof(pieces[0]))] : (uint16_t)next();
		memcpy(shared.memory[MEMORY_SHARED] + at, &piece, 2);
	}
	if (run) {
		run->immediate_exit = below(8) == 0;
		run->request_interrupt_window = below(4) == 0;
		run->cr8 = below(4) ? 0 : next();
		/* What the kernel has written there the owner may change. */
		if (below(4) == 0)
			*(uint32_t *)((uint8_t *)run + below(64) * 4) = interesting();
	}
	timer_settime(f.alarm, 0, &alarms, NULL);
	on(vm->vcpus[i], KVM_RUN, below(64) ? 0 : 1);
	timer_settime(f.alarm, 0, &none, NULL);
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
	on(shared.device, KVM_GET_SUPPORTED_CPUID, argument());
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
						 KVM_GET_CPUID2,
						 KVM_SET_VAPIC_ADDR,
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

/* Mostly flags that there are, and any addresses. */
static void guest_debug(int fd)
{
	struct kvm_guest_debug *debug = (void *)f.arg;

	randomize(sizeof(*debug));
	if (below(8))
		debug->control = below(4) | below(32) << 16;
	on(fd, KVM_SET_GUEST_DEBUG, argument());
}

static void machine_check(int fd)
{
	struct kvm_x86_mce *mce = (void *)f.arg;

	*(uint64_t *)f.arg = below(8) ? below(2) << 8 | below(40) : interesting();
	if (below(2))
		on(fd, KVM_X86_SETUP_MCE, argument());
	randomize(sizeof(*mce));
	if (below(8)) {
		mce->status |= 1ull << 63;
		mce->bank = below(40);
	}
	on(fd, KVM_X86_SET_MCE, argument());
}

static void routes(struct vm *vm)
{
	struct kvm_irq_routing *routing = (void *)f.arg;
	uint32_t count = below(8);

	randomize(sizeof(*routing) + count * sizeof(routing->entries[0]));
	if (below(8)) {
		routing->nr = count;
		routing->flags = 0;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct kvm_irq_routing_entry *e = &routing->entries[i];

		if (below(16) == 0)
			continue;
		*e = (struct kvm_irq_routing_entry){.gsi = 24 + below(1000),
						    .type = KVM_IRQ_ROUTING_MSI,
						    .u.msi = {0xfee00000, 0, below(0x10000)}};
	}
	on(vm->fd, KVM_SET_GSI_ROUTING, argument());
}

static void vm_other(struct vm *vm)
{
	static const unsigned long requests[] = {
	    KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2, KVM_IRQ_LINE,	  KVM_IRQ_LINE_STATUS,
	    KVM_SIGNAL_MSI,	KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, KVM_GET_PIT2,
	    KVM_SET_PIT2,	KVM_GET_CLOCK,	 KVM_SET_CLOCK,	  KVM_CHECK_EXTENSION};

	if (below(2))
		randomize(1024);
	if (below(2))
		*(uint32_t *)f.arg = below(2) ? below(26) : below(1030);
	on(vm->fd, requests[below(sizeof(requests) / sizeof(requests[0]))], argument());
}

static void any_number(int fd)
{
	unsigned long request = 0xae00 | (next() & 0xc0ff00ff);

	/* Nothing would end a run without an alarm, or with the alarm's signal blocked. */
	if (request != KVM_RUN && request != KVM_SET_SIGNAL_MASK)
		on(fd, request, argument());
}

/* ---- lives ---- */

/* One thing is given back, whatever else there is of the VM. */
static void give_back(struct vm *vm)
{
	int i = below(VCPUS), fd = -1;
	struct kvm_run *run = NULL;

	switch (below(4)) {
	case 0:
		fd = atomic_exchange(&vm->fd, -1);
		break;
	case 1 ... 2:
		fd = atomic_exchange(&vm->vcpus[i], -1);
		break;
	case 3:
		run = atomic_exchange(&vm->runs[i], NULL);
		break;
	}
	if (fd >= 0)
		close(fd);
	if (run)
		munmap(run, below(2) ? shared.run_bytes : 4096);
}

static void close_vm(struct vm *vm)
{
	int fd = atomic_exchange(&vm->fd, -1);

	if (fd >= 0)
		close(fd);
	for (int i = 0; i < VCPUS; i++) {
		struct kvm_run *run = atomic_exchange(&vm->runs[i], NULL);
		if (run)
			munmap(run, shared.run_bytes);
		fd = atomic_exchange(&vm->vcpus[i], -1);
		if (fd >= 0)
			close(fd);
	}
}

static void map_run(struct vm *vm, int i)
{
	int rights = below(8) ? PROT_READ | PROT_WRITE : (int)below(8);
	long bytes = below(8) ? shared.run_bytes : below(5) * 4096;
	void *run = mmap(NULL, bytes, rights, below(8) ? MAP_SHARED : MAP_PRIVATE, vm->vcpus[i],
			 below(8) ? 0 : below(4) * 4096);

	if (run == MAP_FAILED)
		return;
	if (bytes != shared.run_bytes) {
		munmap(run, bytes);
		return;
	}
	run = atomic_exchange(&vm->runs[i], run);
	if (run)
		munmap(run, shared.run_bytes);
}

static void open_vcpu(struct vm *vm, int i)
{
	int fd = on(vm->fd, KVM_CREATE_VCPU, below(8) ? (unsigned)i : interesting());

	if (fd < 0)
		return;
	fd = atomic_exchange(&vm->vcpus[i], fd);
	if (fd >= 0)
		close(fd);
	map_run(vm, i);
}

static void open_vm(struct vm *vm)
{
	int fd = on(shared.device, KVM_CREATE_VM, below(16) ? 0 : interesting());

	if (fd < 0)
		return;
	if (below(2))
		on(fd, KVM_CREATE_IRQCHIP, 0);
	fd = atomic_exchange(&vm->fd, fd);
	if (fd >= 0)
		close(fd);
}

/* ---- other processes ---- */

static void send_descriptors(int socket, const int fds[2])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = {.header = {CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec word = {"", 1};
	struct msghdr message = {.msg_iov = &word,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.header), fds, 2 * sizeof(int));
	sendmsg(socket, &message, 0);
}

static bool receive_descriptors(int socket, int fds[2])
{
	char byte;
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec word = {&byte, 1};
	struct msghdr message = {.msg_iov = &word,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 ||
	    message.msg_controllen < CMSG_LEN(2 * sizeof(int)))
		return false;
	memcpy(fds, CMSG_DATA(&control.header), 2 * sizeof(int));
	return true;
}

/* A guest that runs for ever, in this process; its descriptors go to the parent. */
static void run_for_ever(int socket)
{
	static const uint8_t loop[] = {0xeb, 0xfe}; /* jmp . */
	struct kvm_userspace_memory_region region = {
	    .memory_size = RAM_BYTES,
	    .userspace_addr = (uintptr_t)map_memory(MEMORY_PRIVATE, NULL)};
	struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
	struct kvm_sregs sregs;
	int fds[2] = {ioctl(shared.device, KVM_CREATE_VM, 0), -1};

	if (!region.userspace_addr || fds[0] < 0)
		return;
	memcpy((void *)(region.userspace_addr + regs.rip), loop, sizeof(loop));
	if (ioctl(fds[0], KVM_SET_USER_MEMORY_REGION, &region))
		return;
	fds[1] = ioctl(fds[0], KVM_CREATE_VCPU, 0);
	if (fds[1] < 0 || ioctl(fds[1], KVM_GET_SREGS, &sregs))
		return;
	sregs.cs.base = sregs.cs.selector = 0;
	ioctl(fds[1], KVM_SET_SREGS, &sregs);
	ioctl(fds[1], KVM_SET_REGS, &regs);
	send_descriptors(socket, fds);
	for (;;)
		ioctl(fds[1], KVM_RUN, 0);
}

/* VMs belong to the process that made them: another gets errors. */
static void use_from_other_process(void)
{
	struct vm *vm = &shared.vms[below(VMS)];
	pid_t pid = fork();

	if (pid == 0) {
		f.forked = true;
		for (int i = 0; i < VCPUS; i++) {
			map_run(vm, i);
			vcpu_state(vm->vcpus[i]);
			run_guest(vm, i);
		}
		set_memory(vm);
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

/* Those of a process that was killed go with their last descriptor. */
static void kill_owner(pid_t owner, int socket)
{
	int fds[2];
	bool received = receive_descriptors(socket, fds), early = below(2);

	usleep(below(2000));
	kill(owner, SIGKILL);
	if (early)
		waitpid(owner, NULL, 0);
	if (received) {
		on(fds[1], KVM_RUN, 0);
		vcpu_state(fds[1]);
		close(fds[0]);
		close(fds[1]);
	}
	if (!early)
		waitpid(owner, NULL, 0);
}

static void use_after_death(void)
{
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		return;
	pid_t pid = fork();
	if (pid == 0) {
		f.forked = true;
		close(sockets[0]);
		run_for_ever(sockets[1]);
		_exit(0);
	}
	close(sockets[1]);
	if (pid > 0)
		kill_owner(pid, sockets[0]);
	close(sockets[0]);
}

/* No part of work(), which a jump comes back to. */
static __attribute__((noinline)) void step(void)
{
	struct vm *vm = &shared.vms[below(VMS)];
	int i = below(VCPUS);

	if (vm->fd < 0 && below(2)) {
		open_vm(vm);
		return;
	}
	if (vm->vcpus[i] < 0 && below(2)) {
		open_vcpu(vm, i);
		return;
	}
	switch (below(28)) {
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
		dirty_log(vm);
		break;
	case 24:
		if (below(4) == 0)
			change_memory();
		break;
	case 25:
		guest_debug(vm->vcpus[i]);
		break;
	case 26:
		if (below(2))
			routes(vm);
		else
			machine_check(vm->vcpus[i]);
		break;
	case 27:
		switch (below(32)) {
		case 0:
			close_vm(vm);
			break;
		case 1 ... 3:
			give_back(vm);
			break;
		case 4:
			map_run(vm, i);
			break;
		case 5:
			if (below(8) == 0)
				use_from_other_process();
			else if (below(8) == 0)
				use_after_death();
			break;
		}
		break;
	}
}

static void on_alarm(int signal)
{
}

/* Memory that another thread has taken away. */
static void on_fault(int signal)
{
	if (f.forked)
		_exit(0);
	siglongjmp(f.step, 1);
}

static void *work(void *seed)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};

	event._sigev_un._tid = gettid();
	f.state = (uintptr_t)seed;
	f.arg = mmap(NULL, ARG_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (f.arg == MAP_FAILED || mprotect(f.arg + ARG_BYTES, 4096, PROT_NONE) ||
	    timer_create(CLOCK_MONOTONIC, &event, &f.alarm))
		err(1, "setting up a thread");
	/* Comes back here, too. */
	sigsetjmp(f.step, 0);
	while (atomic_load(&shared.made) < shared.count)
		step();
	return NULL;
}

static void set_up(const char *device)
{
	/* SA_NODEFER: the handler is not left by its end. */
	struct sigaction alarm = {.sa_handler = on_alarm};
	struct sigaction fault = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

	sigaction(SIGALRM, &alarm, NULL);
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	shared.device = open(device, O_RDWR | O_CLOEXEC);
	if (shared.device < 0)
		err(1, "%s", device);
	shared.run_bytes = ioctl(shared.device, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (shared.run_bytes < (long)sizeof(struct kvm_run))
		errx(1, "%ld bytes shared with a vCPU", shared.run_bytes);
	shared.file = memfd_create("guest", MFD_CLOEXEC);
	if (shared.file < 0 || ftruncate(shared.file, RAM_BYTES))
		err(1, "memory as a file");
	for (int i = 0; i < MEMORY_KINDS; i++) {
		shared.memory[i] = map_memory(i, NULL);
		if (!shared.memory[i])
			err(1, "memory");
	}
	for (int i = 0; i < VMS; i++) {
		shared.vms[i].fd = -1;
		for (int j = 0; j < VCPUS; j++)
			shared.vms[i].vcpus[j] = -1;
	}
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(1, "usage: fuzz DEVICE [COUNT [SEED [THREADS]]]");
	shared.count = argc > 2 ? atol(argv[2]) : 100000;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	long threads = argc > 4 ? atol(argv[4]) : 3;
	if (seed == 0 || threads < 1 || threads > THREADS_MAX)
		errx(1, "the seed is not 0, and there are 1 to %d threads", THREADS_MAX);
	printf("seed %#llx, %ld threads\n", (unsigned long long)seed, threads);
	fflush(stdout);

	set_up(argv[1]);
	pthread_t thread[THREADS_MAX];
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, work,
				   (void *)(seed * 0x9e3779b97f4a7c15ull + i)))
			err(1, "threads");
	for (long i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < VMS; i++)
		close_vm(&shared.vms[i]);
	printf("%ld ioctls, %ld succeeded\n", shared.made, shared.good);
	/* If next to none did, nothing was tested. */
	return shared.good > shared.made / 20 ? 0 : 1;
}
