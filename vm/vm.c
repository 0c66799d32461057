#include "vm/vm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/error.h"
#include "debug/dump.h"
#include "debug/trace.h"
#include "gdb/gdb.h"
#include "host/loop.h"
#include "host/output.h"
#include "vm/machine.h"

static int map_memory(struct vm *vm, struct error *err)
{
	u32 slot = 0;
	guest_memory_for_each(&vm->memory, range)
	{
		struct kvm_userspace_memory_region region = {
		    .slot = slot++,
		    .guest_phys_addr = range->gpa,
		    .memory_size = range->size,
		    .userspace_addr = (uintptr_t)range->host,
		};
		int ret = vm->engine->vm_set_memory(vm->engine_vm, &region);
		if (ret < 0)
			return error_errno(err, -ret, "the %s engine does not take guest memory",
					   vm->engine->name);
		ret = vm->engine->vm_memory_file(vm->engine_vm, region.slot, vm->memory.fd,
						 (u64)(range->host - vm->memory.base));
		if (ret < 0)
			return error_errno(err, -ret, "the %s engine does not take guest memory",
					   vm->engine->name);
	}
	return 0;
}

/**
 * The vectors that firmware leaves the PICs with: Multiboot 0.6.96, 3.2, promises "the normal
 * BIOS/DOS values". No line is masked, as no firmware serves any.
 */
static int program_pics(struct vm *vm)
{
	static const struct {
		u32 id;
		u8 vector;
	} pics[] = {{KVM_IRQCHIP_PIC_MASTER, 0x08}, {KVM_IRQCHIP_PIC_SLAVE, 0x70}};

	for (u32 n = 0; n < ARRAY_SIZE(pics); n++) {
		struct kvm_irqchip chip = {.chip_id = pics[n].id};
		int ret = vm->engine->vm_get_irqchip(vm->engine_vm, &chip);
		if (ret < 0)
			return ret;
		chip.chip.pic.irq_base = pics[n].vector;
		ret = vm->engine->vm_set_irqchip(vm->engine_vm, &chip);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/**
 * LAPICs, IOAPIC, PICs and PIT. A flat image gets none: it is alone on a bare processor, so that
 * its HLT is the end of the run on every engine.
 */
static int create_interrupt_chips(struct vm *vm, struct error *err)
{
	if (vm->config.boot.flat)
		return 0;
	int ret = vm->engine->vm_create_irqchip(vm->engine_vm);
	if (ret < 0)
		return error_errno(err, -ret, "the %s engine has no interrupt chips",
				   vm->engine->name);
	ret = program_pics(vm);
	if (ret < 0)
		return error_errno(err, -ret, "the %s engine does not let its PICs be set up",
				   vm->engine->name);
	/* The flag: port 61, which gates and shows the PIT's channel 2, comes with it. */
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	ret = vm->engine->vm_create_pit(vm->engine_vm, &pit);
	if (ret < 0)
		return error_errno(err, -ret, "the %s engine has no timer chip (PIT)",
				   vm->engine->name);
	return 0;
}

static int check_cpu_count(struct vm *vm, struct error *err)
{
	u32 most = (u32)vm->engine->vm_check_extension(vm->engine_vm, KVM_CAP_MAX_VCPUS);
	if (most == 0) /* api.rst, KVM_CREATE_VCPU: then KVM_CAP_NR_VCPUS says, and else it is 4 */
		most = (u32)vm->engine->vm_check_extension(vm->engine_vm, KVM_CAP_NR_VCPUS);
	if (most == 0)
		most = 4;
	if (most > VM_CPUS_MAX)
		most = VM_CPUS_MAX;
	if (vm->cpu_count < 1 || vm->cpu_count > most)
		return error_set(err, EINVAL, "%u CPUs: the %s engine has 1 to %u for a machine",
				 vm->cpu_count, vm->engine->name, most);
	return 0;
}

static void stop_vcpus(struct vm *vm)
{
	output_allow_waiting(vm->config.console, false);
	if (vm->config.serial_out)
		output_allow_waiting(vm->config.serial_out, false);
	for (u32 i = 0; i < vm->cpu_count; i++)
		vcpu_stop(&vm->vcpus[i]);
	free(vm->vcpus);
	output_allow_waiting(vm->config.console, true);
	if (vm->config.serial_out)
		output_allow_waiting(vm->config.serial_out, true);
}

static int start_vcpus(struct vm *vm, struct error *err)
{
	vm->vcpus = calloc(vm->cpu_count, sizeof(*vm->vcpus));
	if (!vm->vcpus)
		return error_set(err, ENOMEM, "no memory for %u vCPUs", vm->cpu_count);
	for (u32 i = 0; i < vm->cpu_count; i++) {
		int ret = vcpu_start(&vm->vcpus[i], vm, i, err);
		if (ret == 0)
			ret = vcpu_wait_paused(&vm->vcpus[i], err);
		if (ret < 0) {
			stop_vcpus(vm);
			return ret;
		}
	}
	return 0;
}

/** Loads the image and points vCPU 0 at it. */
static int load_image(struct vm *vm, struct error *err)
{
	struct engine_vcpu *cpu = vm->vcpus[0].cpu;
	struct boot_state state;

	int ret = vm->engine->vcpu_get_regs(cpu, &state.regs);
	if (ret == 0)
		ret = vm->engine->vcpu_get_sregs(cpu, &state.sregs);
	if (ret < 0)
		return error_errno(err, -ret, "cannot read the registers of vCPU 0");

	ret = boot_load(&vm->config.boot, &vm->memory, &state, err);
	if (ret < 0)
		return ret;

	ret = vm->engine->vcpu_set_sregs(cpu, &state.sregs);
	if (ret == 0)
		ret = vm->engine->vcpu_set_regs(cpu, &state.regs);
	if (ret < 0)
		return error_errno(err, -ret, "vCPU 0 does not take the state to start in");
	return 0;
}

static int set_engine_options(struct vm *vm, struct error *err)
{
	for (u32 i = 0; i < vm->config.engine_option_count; i++) {
		const struct vm_engine_option *option = &vm->config.engine_options[i];
		int ret =
		    vm->engine->vm_set_option(vm->engine_vm, option->name, option->value, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int vm_create(struct vm **out, const struct vm_config *config, struct error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(err, ENOMEM, "no memory for a machine");
	vm->config = *config;
	vm->engine = config->engine;
	vm->cpu_count = config->boot.cpu_count;
	vm->io.name = "I/O port";
	vm->mmio.name = "MMIO";
	pthread_mutex_init(&vm->end_lock, NULL);

	int ret = guest_memory_create(&vm->memory, config->memory_size, err);
	if (ret < 0)
		goto free_vm;
	ret = vm->engine->vm_create(config->engine_device, &vm->engine_vm, err);
	if (ret < 0)
		goto destroy_memory;
	ret = set_engine_options(vm, err);
	if (ret < 0)
		goto destroy_engine_vm;
	ret = check_cpu_count(vm, err);
	if (ret < 0)
		goto destroy_engine_vm;
	ret = map_memory(vm, err);
	if (ret < 0)
		goto destroy_engine_vm;
	ret = create_interrupt_chips(vm, err);
	if (ret < 0)
		goto destroy_engine_vm;
	ret = vm_fit_devices(vm, err);
	if (ret < 0)
		goto destroy_engine_vm;
	ret = start_vcpus(vm, err);
	if (ret < 0)
		goto remove_devices;
	ret = load_image(vm, err);
	if (ret < 0)
		goto stop_vcpus;
	ret = vm_watch_start(vm, err);
	if (ret < 0)
		goto stop_vcpus;
	ret = vm_debugger_attach(vm, err);
	if (ret < 0)
		goto stop_watch;
	*out = vm;
	return 0;

stop_watch:
	vm_watch_stop(vm);
stop_vcpus:
	stop_vcpus(vm);
remove_devices:
	vm_remove_devices(vm);
destroy_engine_vm:
	vm->engine->vm_destroy(vm->engine_vm);
destroy_memory:
	guest_memory_destroy(&vm->memory);
free_vm:
	pthread_mutex_destroy(&vm->end_lock);
	free(vm);
	return ret;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	if (vm->config.gdb)
		gdb_detach(vm->config.gdb);
	vm_watch_stop(vm);
	stop_vcpus(vm);
	vm_remove_devices(vm);
	vm->engine->vm_destroy(vm->engine_vm);
	guest_memory_destroy(&vm->memory);
	pthread_mutex_destroy(&vm->end_lock);
	free(vm);
}

void vm_end(struct vm *vm, enum vm_end end, struct vcpu *culprit, const char *fmt, ...)
{
	pthread_mutex_lock(&vm->end_lock);
	if (!atomic_load(&vm->ended)) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(vm->result.text, sizeof(vm->result.text), fmt, ap);
		va_end(ap);
		vm->result.end = end;
		vm->culprit = culprit;
		atomic_store(&vm->ended, true);
		trace(exit, 1, "the run ends: %s", vm->result.text);
	}
	pthread_mutex_unlock(&vm->end_lock);
	loop_stop(vm->config.loop);
}

void vm_interrupt(struct vm *vm)
{
	atomic_store(&vm->interrupted, true);
	vm_end(vm, VM_INTERRUPTED, NULL, "interrupted");
}

void vm_fail(struct vm *vm, const char *text)
{
	vm_end(vm, VM_HOST_FAILED, NULL, "%s", text);
}

void vm_run(struct vm *vm, struct vm_result *result)
{
	if (!vm->config.gdb || gdb_lets_start(vm->config.gdb))
		for (u32 i = 0; i < vm->cpu_count; i++)
			vcpu_request(&vm->vcpus[i], VCPU_RUN);

	while (!atomic_load(&vm->ended))
		loop_run(vm->config.loop);

	/* A vCPU may be waiting for a reader that has gone to sleep. */
	output_allow_waiting(vm->config.console, false);
	if (vm->config.serial_out)
		output_allow_waiting(vm->config.serial_out, false);
	for (u32 i = 0; i < vm->cpu_count; i++)
		vcpu_request(&vm->vcpus[i], VCPU_PAUSE);
	for (u32 i = 0; i < vm->cpu_count; i++)
		vcpu_wait_paused(&vm->vcpus[i], NULL);
	output_allow_waiting(vm->config.console, true);
	if (vm->config.serial_out)
		output_allow_waiting(vm->config.serial_out, true);

	vm_debugger_examine(vm);
	*result = vm->result;
}

/* What a dump says of a hypervisor in the guest. */
static void dump_vmx(struct dump *dump, const struct engine_vmx *vmx, char *text, size_t size)
{
	int n = 0;

	dump->eptp = vmx->eptp;
	if (!vmx->on)
		return;
	n = snprintf(text, size, "  VMX %s operation\n", vmx->nonroot ? "non-root" : "root");
	if (*vmx->failure)
		snprintf(text + n, size - (size_t)n,
			 "  a VM entry failed: %s (%llu succeeded since)\n", vmx->failure,
			 (unsigned long long)vmx->entries_since);
	dump->vmx = text;
}

void vm_dump(struct vm *vm, FILE *out)
{
	struct vcpu *vcpu = vm->culprit ? vm->culprit : &vm->vcpus[0];
	struct dump dump = {
	    .what = vm->result.text,
	    .vcpu = vcpu->id,
	    .exit_reason = vcpu->cpu->run->exit_reason,
	    .memory = &vm->memory,
	};
	struct engine_vmx vmx;
	char vmx_text[320];
	if (vm->engine->vcpu_get_regs(vcpu->cpu, &dump.regs) < 0 ||
	    vm->engine->vcpu_get_sregs(vcpu->cpu, &dump.sregs) < 0) {
		fprintf(out, "vCPU %u: its registers cannot be read\n", vcpu->id);
		return;
	}
	if (vm->engine->vcpu_get_vmx(vcpu->cpu, &vmx) == 0)
		dump_vmx(&dump, &vmx, vmx_text, sizeof(vmx_text));
	dump_print(out, &dump);
}

void vm_add_stats(struct vm *vm, struct engine_stats *stats)
{
	for (u32 i = 0; i < vm->cpu_count; i++)
		vm->engine->vcpu_stats(vm->vcpus[i].cpu, stats);
}
