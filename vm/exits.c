/* What the monitor does about each reason for which an engine returns. */
#include <string.h>

#include "debug/dump.h"
#include "debug/trace.h"
#include "engine/vmx_text.h"
#include "gdb/gdb.h"
#include "vm/machine.h"

/* Each returns whether the vCPU may run on. */
typedef bool exit_handler(struct vcpu *vcpu, struct kvm_run *run);

static bool exit_io(struct vcpu *vcpu, struct kvm_run *run)
{
	const struct bus *io = &vcpu->vm->io;
	u8 *data = (u8 *)run + run->io.data_offset;
	u32 size = run->io.size;

	for (u32 i = 0; i < run->io.count; i++, data += size) {
		u64 value = 0;
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, size);
			bus_write(io, run->io.port, value, size);
		} else {
			value = bus_read(io, run->io.port, size);
			memcpy(data, &value, size);
		}
	}
	return true;
}

static bool exit_mmio(struct vcpu *vcpu, struct kvm_run *run)
{
	const struct bus *mmio = &vcpu->vm->mmio;
	u64 value = 0;

	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, run->mmio.len);
		bus_write(mmio, run->mmio.phys_addr, value, run->mmio.len);
	} else {
		value = bus_read(mmio, run->mmio.phys_addr, run->mmio.len);
		memcpy(run->mmio.data, &value, run->mmio.len);
	}
	return true;
}

static bool exit_hlt(struct vcpu *vcpu, struct kvm_run *run)
{
	if (vcpu->vm->config.boot.flat)
		vm_end(vcpu->vm, VM_HALTED, vcpu, "the guest halted");
	else
		vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu,
		       "the guest halted with interrupts off, and nothing will wake it");
	return false;
}

static bool exit_shutdown(struct vcpu *vcpu, struct kvm_run *run)
{
	struct engine_vmx vmx;

	if (vcpu->vm->engine->vcpu_get_vmx(vcpu->cpu, &vmx) == 0 && vmx.abort) {
		const char *text = vmx_abort_text(vmx.abort);
		vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu, "VMX abort %u: %s", vmx.abort,
		       text ? text : "of an unknown kind");
		return false;
	}
	vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu,
	       "triple fault: an exception while delivering a double fault");
	return false;
}

static bool exit_system_event(struct vcpu *vcpu, struct kvm_run *run)
{
	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vm_end(vcpu->vm, VM_POWERED_OFF, vcpu, "the guest powered off");
		return false;
	case KVM_SYSTEM_EVENT_RESET:
		vm_end(vcpu->vm, VM_RESET, vcpu, "the guest asked for a reset");
		return false;
	default:
		vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu, "the guest reported a crash (event %u)",
		       run->system_event.type);
		return false;
	}
}

static bool exit_fail_entry(struct vcpu *vcpu, struct kvm_run *run)
{
	vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu,
	       "the processor refuses to enter the guest in this state (hardware reason %#llx)",
	       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	return false;
}

static bool exit_internal_error(struct vcpu *vcpu, struct kvm_run *run)
{
	static const char *const suberrors[] = {
	    [KVM_INTERNAL_ERROR_EMULATION] = "an instruction that it cannot emulate",
	    [KVM_INTERNAL_ERROR_SIMUL_EX] = "simultaneous exceptions",
	    [KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit while delivering an event",
	    [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an unexpected hardware exit",
	};
	u32 suberror = run->internal.suberror;
	const char *what = suberror < ARRAY_SIZE(suberrors) ? suberrors[suberror] : NULL;

	vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu, "the engine gave up on the guest: %s (suberror %u)",
	       what ? what : "internal error", suberror);
	return false;
}

static bool exit_nothing_to_do(struct vcpu *vcpu, struct kvm_run *run)
{
	return true;
}

static bool exit_unhandled(struct vcpu *vcpu, struct kvm_run *run)
{
	vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu, "exit %s (%u), which nothing here handles",
	       dump_exit_name(run->exit_reason), run->exit_reason);
	return false;
}

static bool exit_debug(struct vcpu *vcpu, struct kvm_run *run)
{
	if (!vcpu->vm->config.gdb)
		return exit_unhandled(vcpu, run);
	return gdb_debug_exit(vcpu->vm->config.gdb, vcpu->id);
}

static exit_handler *const handlers[] = {
    [KVM_EXIT_IO] = exit_io,
    [KVM_EXIT_MMIO] = exit_mmio,
    [KVM_EXIT_HLT] = exit_hlt,
    [KVM_EXIT_SHUTDOWN] = exit_shutdown,
    [KVM_EXIT_SYSTEM_EVENT] = exit_system_event,
    [KVM_EXIT_FAIL_ENTRY] = exit_fail_entry,
    [KVM_EXIT_INTERNAL_ERROR] = exit_internal_error,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = exit_nothing_to_do,
    [KVM_EXIT_INTR] = exit_nothing_to_do,
    [KVM_EXIT_DEBUG] = exit_debug,
};

bool vm_handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->cpu->run;
	u32 reason = run->exit_reason;

	trace(exit, 2, "vCPU %u: %s", vcpu->id, dump_exit_name(reason));
	exit_handler *handler = reason < ARRAY_SIZE(handlers) ? handlers[reason] : NULL;
	return (handler ? handler : exit_unhandled)(vcpu, run);
}
