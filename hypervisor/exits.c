// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Exits: why the guest was left, and what then. A function a reason.
 *
 * Each returns 1: enter again, 0: the owner's turn (vcpu->run says why), or an error of the host.
 *
 * Source: SDM 3C 27.2, appendix C.
 */
#include <linux/kernel.h>
#include <linux/nospec.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

/* Hypercalls as KVM has them: "unknown" (Documentation/virt/kvm/x86/hypercalls.rst, KVM_ENOSYS). */
#define HYPERCALL_UNKNOWN (-1000ul)

typedef int exit_handler(struct vcpu *v);

int exit_internal_error(struct vcpu *v, u32 suberror, u64 detail)
{
	v->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	v->run->internal.suberror = suberror;
	v->run->internal.ndata = 2;
	v->run->internal.data[0] = v->exit_reason;
	v->run->internal.data[1] = detail;
	return 0;
}

static int exit_nothing(struct vcpu *v)
{
	return 1;
}

/* SDM 3C 27.2.3: an IRET that faulted on its way has unblocked NMIs; it will be executed again. The
 * bit is the same in an exception's interruption information and in an EPT violation's
 * qualification. */
static void restore_nmi_blocking(struct vcpu *v, u64 bits)
{
	if ((bits & INTR_INFO_UNBLOCK_NMI) && !v->events.current_event.valid)
		field_put(v, FIELD_BLOCKING, field_get(v, FIELD_BLOCKING) | GUEST_INTR_STATE_NMI);
}

/* #AC is the guest's own, #DB and #BP are as debug.c says; NMI and #MC went to the host already
 * (vcpu.c). */
static int exit_exception(struct vcpu *v)
{
	u32 info = vmcs_read(VM_EXIT_INTR_INFO);
	u8 vector = info & INTR_INFO_VECTOR_MASK;

	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_NMI_INTR || vector == X86_TRAP_MC)
		return 1;
	restore_nmi_blocking(v, info);
	if (vector == X86_TRAP_DB)
		return debug_trap(v, info);
	if (vector == X86_TRAP_BP)
		return debug_breakpoint(v);
	if (info & INTR_INFO_DELIVER_CODE_MASK)
		raise_error(v, vector, vmcs_read(VM_EXIT_INTR_ERROR_CODE));
	else
		raise(v, vector);
	return 1;
}

static int exit_triple_fault(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return 0;
}

/* Windows are closed, or an event taken, before the next entry (events.c). */
static int exit_interrupt_window(struct vcpu *v)
{
	if (!READ_ONCE(v->run->request_interrupt_window) || v->events.irq >= 0 || v->chip.lapic)
		return 1;
	v->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
	return 0;
}

static int exit_hlt(struct vcpu *v)
{
	vcpu_skip(v);
	if (v->chip.lapic) {
		v->mp_state = KVM_MP_STATE_HALTED;
		return 1;
	}
	/* Something waits already: HLT is over at once. */
	if (events_wake(v))
		return 1;
	v->run->exit_reason = KVM_EXIT_HLT;
	return 0;
}

/* Caches are coherent, and the guest's memory is other programs' as well: the host decides when to
 * flush. */
static int exit_skip(struct vcpu *v)
{
	vcpu_skip(v);
	return 1;
}

static int exit_general_protection(struct vcpu *v)
{
	raise_error(v, X86_TRAP_GP, 0);
	return 1;
}

static int exit_undefined(struct vcpu *v)
{
	raise(v, X86_TRAP_UD);
	return 1;
}

static int exit_vmcall(struct vcpu *v)
{
	v->registers.r[RAX] = vcpu_64bit_code(v) ? HYPERCALL_UNKNOWN : (u32)HYPERCALL_UNKNOWN;
	vcpu_skip(v);
	return 1;
}

static int exit_ept_violation(struct vcpu *v)
{
	u64 gpa = vmcs_read(GUEST_PHYSICAL_ADDRESS);
	u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	const struct memory_slot *slot;
	int ret;

	restore_nmi_blocking(v, qualification);
	down_read(&v->vm->memory_lock);
	slot = memory_find(v->vm, gpa);
	if (slot && (memory_writable(v->vm, gpa) || !(qualification & EPT_VIOLATION_ACC_WRITE))) {
		/* Its access bits are where the EPT has its rights (SDM 3C table 27-7). */
		ret = ept_map(v->vm, slot, gpa, qualification & VMX_EPT_RWX_MASK);
		if (!ret)
			ret = 1;
	} else if (v->events.current_event.valid) {
		/* The guest's IDT, stack or TSS lies in a device's memory. */
		ret = exit_internal_error(v, KVM_INTERNAL_ERROR_DELIVERY_EV, gpa);
	} else if ((qualification & EPT_VIOLATION_GVA_IS_VALID) &&
		   !(qualification & EPT_VIOLATION_GVA_TRANSLATED)) {
		/* Its page tables do. What the instruction does is not what is wanted there. */
		ret = exit_internal_error(v, KVM_INTERNAL_ERROR_EMULATION, gpa);
	} else {
		ret = mmio_access(v, gpa);
	}
	up_read(&v->vm->memory_lock);
	return ret;
}

static int exit_entry_failed(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	v->run->fail_entry.hardware_entry_failure_reason = v->exit_reason;
	v->run->fail_entry.cpu = raw_smp_processor_id();
	return 0;
}

static int exit_unknown(struct vcpu *v)
{
	return exit_internal_error(v, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
				   vmcs_read(EXIT_QUALIFICATION));
}

static exit_handler *const handlers[] = {
    [EXIT_REASON_EXCEPTION_NMI] = exit_exception,
    [EXIT_REASON_EXTERNAL_INTERRUPT] = exit_nothing,
    [EXIT_REASON_TRIPLE_FAULT] = exit_triple_fault,
    [EXIT_REASON_INTERRUPT_WINDOW] = exit_interrupt_window,
    [EXIT_REASON_NMI_WINDOW] = exit_nothing,
    [EXIT_REASON_TASK_SWITCH] = exit_task_switch,
    [EXIT_REASON_CPUID] = exit_cpuid,
    [EXIT_REASON_HLT] = exit_hlt,
    [EXIT_REASON_INVD] = exit_skip,
    [EXIT_REASON_WBINVD] = exit_skip,
    [EXIT_REASON_RDPMC] = exit_general_protection,
    [EXIT_REASON_VMCALL] = exit_vmcall,
    /* The guest has no VMX, no MONITOR: CPUID says so. */
    [EXIT_REASON_VMCLEAR] = exit_undefined,
    [EXIT_REASON_VMLAUNCH] = exit_undefined,
    [EXIT_REASON_VMPTRLD] = exit_undefined,
    [EXIT_REASON_VMPTRST] = exit_undefined,
    [EXIT_REASON_VMREAD] = exit_undefined,
    [EXIT_REASON_VMRESUME] = exit_undefined,
    [EXIT_REASON_VMWRITE] = exit_undefined,
    [EXIT_REASON_VMOFF] = exit_undefined,
    [EXIT_REASON_VMON] = exit_undefined,
    [EXIT_REASON_INVEPT] = exit_undefined,
    [EXIT_REASON_INVVPID] = exit_undefined,
    [EXIT_REASON_MWAIT_INSTRUCTION] = exit_undefined,
    [EXIT_REASON_MONITOR_TRAP_FLAG] = exit_monitor_trap,
    [EXIT_REASON_MONITOR_INSTRUCTION] = exit_undefined,
    [EXIT_REASON_CR_ACCESS] = exit_cr,
    [EXIT_REASON_DR_ACCESS] = exit_dr,
    [EXIT_REASON_IO_INSTRUCTION] = exit_io,
    [EXIT_REASON_MSR_READ] = exit_rdmsr,
    [EXIT_REASON_MSR_WRITE] = exit_wrmsr,
    [EXIT_REASON_EPT_VIOLATION] = exit_ept_violation,
    [EXIT_REASON_PREEMPTION_TIMER] = exit_nothing,
    [EXIT_REASON_XSETBV] = exit_xsetbv,
};

int exit_handle(struct vcpu *v)
{
	u32 reason = (u16)v->exit_reason;

	if (v->exit_reason & VMX_EXIT_REASONS_FAILED_VMENTRY)
		return exit_entry_failed(v);
	if (reason >= ARRAY_SIZE(handlers))
		return exit_unknown(v);
	reason = array_index_nospec(reason, ARRAY_SIZE(handlers));
	return handlers[reason] ? handlers[reason](v) : exit_unknown(v);
}
