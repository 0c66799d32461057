/*
 * The classic demonstration of KVM's interface, with nothing of Guise's around it: a real-mode
 * guest of a few bytes adds two numbers, prints the sum through a port and halts. A hypervisor with
 * KVM's interface runs it by its own device.
 *
 * Usage: demo DEVICE
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define CODE_ADDRESS 0x1000
#define PORT	     0x3f8

static const unsigned char code[] = {
    0xba, 0xf8, 0x03, /* mov $0x3f8, %dx */
    0x00, 0xd8,	      /* add %bl, %al */
    0x04, '0',	      /* add $'0', %al */
    0xee,	      /* out %al, (%dx) */
    0xb0, '\n',	      /* mov $'\n', %al */
    0xee,	      /* out %al, (%dx) */
    0xf4,	      /* hlt */
};

static int must(int ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(1, "usage: demo DEVICE");
	int kvm = must(open(argv[1], O_RDWR | O_CLOEXEC), argv[1]);
	if (must(ioctl(kvm, KVM_GET_API_VERSION, 0), "KVM_GET_API_VERSION") != 12)
		errx(1, "not API version 12");
	int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");

	void *memory =
	    mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	memcpy(memory, code, sizeof(code));
	struct kvm_userspace_memory_region region = {
	    .guest_phys_addr = CODE_ADDRESS,
	    .memory_size = 0x1000,
	    .userspace_addr = (unsigned long)memory,
	};
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	int bytes = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "mmap vCPU");

	struct kvm_sregs sregs;
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	struct kvm_regs regs = {.rip = CODE_ADDRESS, .rax = 2, .rbx = 2, .rflags = 2};
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

	for (;;) {
		must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		switch (run->exit_reason) {
		case KVM_EXIT_HLT:
			puts("halted");
			return 0;
		case KVM_EXIT_IO:
			if (run->io.direction != KVM_EXIT_IO_OUT || run->io.size != 1 ||
			    run->io.port != PORT || run->io.count != 1)
				errx(1, "another port access than the one expected");
			putchar(*((char *)run + run->io.data_offset));
			break;
		case KVM_EXIT_FAIL_ENTRY:
			errx(1, "entry failed, hardware reason %#llx",
			     run->fail_entry.hardware_entry_failure_reason);
		case KVM_EXIT_INTERNAL_ERROR:
			errx(1, "internal error %u", run->internal.suberror);
		default:
			errx(1, "exit reason %u", run->exit_reason);
		}
	}
}
