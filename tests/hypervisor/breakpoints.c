/*
 * Breakpoints of the host's while a guest's are in the debug registers. This program has one in
 * DR0, so DR7 is on; the guest's debugger has the address of the world switch in its own DR0. The
 * kernel must not stop there.
 *
 * Usage: breakpoints DEVICE
 */
#include <err.h>
#include <fcntl.h>
#include <linux/hw_breakpoint.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE	4096
#define ENABLE0 2 /* DR7.G0: an instruction at DR0 */

static long must(long ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

/* Where the kernel has @symbol. */
static uint64_t address_of(const char *symbol)
{
	FILE *symbols = fopen("/proc/kallsyms", "r");
	unsigned long long address;
	char name[256];

	if (!symbols)
		err(1, "/proc/kallsyms");
	while (fscanf(symbols, "%llx %*c %255s%*[^\n]", &address, name) == 2)
		if (!strcmp(name, symbol) && address) {
			fclose(symbols);
			return address;
		}
	errx(1, "no %s in /proc/kallsyms", symbol);
}

/* A guest whose first instruction is HLT, with a debugger. */
static void run_guest(const char *device, uint64_t breakpoint)
{
	struct kvm_guest_debug debug = {
	    .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
	    .arch.debugreg = {breakpoint, [7] = ENABLE0},
	};
	struct kvm_userspace_memory_region region = {.memory_size = PAGE};
	struct kvm_regs regs = {.rip = 0x100, .rflags = 2};
	struct kvm_sregs sregs;
	int kvm = must(open(device, O_RDWR | O_CLOEXEC), device);
	int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	uint8_t *memory =
	    mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_run *run = mmap(NULL, must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "mmap size"),
				   PROT_READ, MAP_SHARED, vcpu, 0);

	if (memory == MAP_FAILED || run == MAP_FAILED)
		err(1, "mmap");
	memset(memory, 0xf4, PAGE);
	region.userspace_addr = (uintptr_t)memory;
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	must(ioctl(vcpu, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
	must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_HLT)
		errx(1, "exit reason %u", run->exit_reason);
}

__attribute__((noinline)) static void host_breakpoint(void)
{
	__asm__ volatile("");
}

/* How often this program, in the kernel too, has come by @address; counted from the first call on.
 */
static uint64_t hits_of(void (*address)(void))
{
	static int counter = -1;
	struct perf_event_attr breakpoint = {
	    .type = PERF_TYPE_BREAKPOINT,
	    .size = sizeof(breakpoint),
	    .bp_type = HW_BREAKPOINT_X,
	    .bp_addr = (uintptr_t)address,
	    .bp_len = sizeof(long),
	};
	uint64_t hits;

	if (counter < 0)
		counter =
		    must(syscall(SYS_perf_event_open, &breakpoint, 0, -1, -1, PERF_FLAG_FD_CLOEXEC),
			 "a breakpoint");
	if (read(counter, &hits, sizeof(hits)) != sizeof(hits))
		err(1, "the breakpoint's count");
	return hits;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(1, "usage: breakpoints DEVICE");
	uint64_t world_switch = address_of("world_switch");

	if (hits_of(host_breakpoint))
		errx(1, "a breakpoint nobody has come by");
	run_guest(argv[1], world_switch);
	if (hits_of(host_breakpoint))
		errx(1, "the kernel has stopped at the guest's breakpoint");
	host_breakpoint();
	if (hits_of(host_breakpoint) != 1)
		errx(1, "the host's own breakpoint is gone");
	puts("ok breakpoints");
	return 0;
}
