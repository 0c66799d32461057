/* The VM: memory slots, interrupt chips, clock. A function an ioctl. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

int kvm_vm_create(const char *device, struct engine_vm **out, struct error *err)
{
	int ret;
	struct kvm_vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_errno(err, ENOMEM, "KVM VM");
	vm->base.engine = &engine_kvm;

	ret = kvm_kick_setup();
	if (ret) {
		error_errno(err, -ret, "signal handler for vCPU kicks");
		goto fail_open;
	}
	vm->system_fd = ret = kvm_open(device, err);
	if (ret < 0)
		goto fail_open;
	do
		ret = kvm_ioctl_value(vm->system_fd, KVM_CREATE_VM, 0);
	while (ret == -EINTR);
	vm->fd = ret;
	if (ret < 0) {
		error_errno(err, -ret, "KVM_CREATE_VM");
		goto fail_create;
	}
	vm->run_bytes = ret = kvm_ioctl_value(vm->system_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (ret < (int)sizeof(struct kvm_run)) {
		ret = error_set(err, EIO, "KVM_GET_VCPU_MMAP_SIZE returned %d", ret);
		goto fail;
	}

	/* Before any vCPU. AMD and PVM do not need them and may not know them. */
	u64 identity_map = KVM_IDENTITY_MAP_GPA;
	if (kvm_vm_check_extension(&vm->base, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) {
		ret = kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
		if (ret) {
			error_errno(err, -ret, "KVM_SET_IDENTITY_MAP_ADDR");
			goto fail;
		}
	}
	if (kvm_vm_check_extension(&vm->base, KVM_CAP_SET_TSS_ADDR) > 0) {
		ret = kvm_ioctl_value(vm->fd, KVM_SET_TSS_ADDR, KVM_TSS_GPA);
		if (ret) {
			error_errno(err, -ret, "KVM_SET_TSS_ADDR");
			goto fail;
		}
	}
	*out = &vm->base;
	return 0;

fail:
	close(vm->fd);
fail_create:
	close(vm->system_fd);
fail_open:
	free(vm);
	return ret;
}

int kvm_vm_set_option(struct engine_vm *vm, const char *name, const char *value, struct error *err)
{
	if (!strcmp(name, "cpu")) {
		if (!strcmp(value, "host"))
			return 0;
		return error_set(err, EINVAL, "the kvm engine has no processor '%s'; known: host",
				 value);
	}
	if (!strcmp(name, "stats"))
		return 0;
	return error_set(err, EINVAL, "the kvm engine has no option '%s'; the soft engine may",
			 name);
}

void kvm_vm_destroy(struct engine_vm *base)
{
	struct kvm_vm *vm = to_kvm_vm(base);

	close(vm->fd);
	close(vm->system_fd);
	free(vm);
}

int kvm_vm_check_extension(struct engine_vm *vm, int capability)
{
	int ret = kvm_ioctl_value(to_kvm_vm(vm)->fd, KVM_CHECK_EXTENSION, capability);
	return ret < 0 ? 0 : ret;
}

int kvm_vm_set_memory(struct engine_vm *vm, const struct kvm_userspace_memory_region *region)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_SET_USER_MEMORY_REGION, (void *)region);
}

int kvm_vm_memory_file(struct engine_vm *vm, u32 slot, int fd, u64 offset)
{
	return 0; /* the processor finds it where it is */
}

void kvm_vm_memory_written(struct engine_vm *vm, u64 gpa, u64 size)
{
	/* The processor sees to it. */
}

int kvm_vm_create_irqchip(struct engine_vm *base)
{
	struct kvm_vm *vm = to_kvm_vm(base);

	int ret = kvm_ioctl_value(vm->fd, KVM_CREATE_IRQCHIP, 0);
	if (!ret)
		vm->irqchip = true;
	return ret;
}

int kvm_vm_create_pit(struct engine_vm *vm, const struct kvm_pit_config *config)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_CREATE_PIT2, (void *)config);
}

int kvm_vm_irq_line(struct engine_vm *vm, u32 gsi, int level)
{
	struct kvm_irq_level line = {.irq = gsi, .level = level};

	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_IRQ_LINE, &line);
}

int kvm_vm_signal_msi(struct engine_vm *vm, const struct kvm_msi *msi)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_SIGNAL_MSI, (void *)msi);
}

int kvm_vm_get_irqchip(struct engine_vm *vm, struct kvm_irqchip *chip)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_GET_IRQCHIP, chip);
}

int kvm_vm_set_irqchip(struct engine_vm *vm, const struct kvm_irqchip *chip)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_SET_IRQCHIP, (void *)chip);
}

int kvm_vm_get_pit(struct engine_vm *vm, struct kvm_pit_state2 *pit)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_GET_PIT2, pit);
}

int kvm_vm_set_pit(struct engine_vm *vm, const struct kvm_pit_state2 *pit)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_SET_PIT2, (void *)pit);
}

int kvm_vm_get_clock(struct engine_vm *vm, struct kvm_clock_data *clock)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_GET_CLOCK, clock);
}

int kvm_vm_set_clock(struct engine_vm *vm, const struct kvm_clock_data *clock)
{
	return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_SET_CLOCK, (void *)clock);
}

int kvm_vm_get_supported_cpuid(struct engine_vm *base, struct kvm_cpuid2 *cpuid)
{
	struct kvm_vm *vm = to_kvm_vm(base);

	int ret = kvm_ioctl(vm->system_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (ret)
		return ret;
	/*
	 * KVM never reports TSC-deadline (leaf 1, ECX bit 24), since it works with the in-kernel
	 * LAPIC only (api.rst 4.46); here that is known.
	 */
	if (vm->irqchip && kvm_vm_check_extension(base, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
		for (u32 i = 0; i < cpuid->nent; i++)
			if (cpuid->entries[i].function == 1)
				cpuid->entries[i].ecx |= BIT(24);
	return 0;
}
