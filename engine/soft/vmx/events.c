/* Exceptions, interrupts and windows in VMX non-root operation: SDM 3C 26.2, 26.5, 27.6, 27.7. */
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/state.h"
#include "engine/soft/vmx/apic.h"

#define INT_SHADOW_MOV_SS 2

/* ---- exceptions ---- */

bool vmx_wants_exception(const struct soft_vcpu *v, u8 vector, u32 error)
{
	bool bit = vmx_get(v, VMX_EXCEPTION_BITMAP) >> vector & 1;

	/* 25.6.3: for page faults the bit's meaning depends on a match of the error code. */
	if (vector == EXC_PF) {
		u64 mask = vmx_get(v, VMX_PAGE_FAULT_MASK);
		return bit == ((error & mask) == vmx_get(v, VMX_PAGE_FAULT_MATCH));
	}
	return bit;
}

static u32 exception_info(u32 type, u8 vector, bool has_error)
{
	return INFO_VALID | type << 8 | vector | (has_error ? INFO_ERROR : 0);
}

void vmx_on_exception(struct soft_vcpu *v)
{
	const struct pending_events *e = &v->events;
	u8 vector = e->exception_vector;
	bool trap = vector == EXC_BP || vector == EXC_OF; /* from the monitor */

	if (e->soft_interrupt || !vmx_wants_exception(v, vector, e->exception_error))
		return;
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_EXCEPTION_OR_NMI,
			.qualification = vector == EXC_PF   ? e->exception_cr2
					 : vector == EXC_DB ? DR6_BD
							    : 0,
			.interruption =
			    exception_info(trap ? INFO_SOFTWARE_EXCEPTION : INFO_HARDWARE_EXCEPTION,
					   vector, e->exception_has_error),
			.error = e->exception_has_error ? e->exception_error : 0,
			.resume_flag = !trap,
			.vectoring = true,
		    });
}

/* Debug exceptions: DR6 is not changed, the qualification has its bits (28.2.1). */
void vmx_on_debug_trap(struct soft_vcpu *v, u64 bits)
{
	if (!vmx_wants_exception(v, EXC_DB, 0))
		return;
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_EXCEPTION_OR_NMI,
			.qualification = bits & (0xf | DR6_BD | DR6_BS),
			.interruption = exception_info(INFO_HARDWARE_EXCEPTION, EXC_DB, false),
		    });
}

void vmx_on_software_exception(struct soft_vcpu *v, u32 type, u8 vector, u32 length)
{
	if (!vmx_wants_exception(v, vector, 0))
		return;
	/* What MOV SS has put off comes with INT1. */
	u64 bits = vector == EXC_DB ? v->events.debug & (0xf | DR6_BS) : 0;
	v->events.debug &= ~bits;
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_EXCEPTION_OR_NMI,
			.length = length,
			.qualification = bits,
			.interruption = exception_info(type, vector, false),
		    });
}

/* ---- delivery ---- */

void vmx_delivery_begins(struct soft_vcpu *v, u32 info, u32 error, u32 length)
{
	v->vmx.delivery_info = info;
	v->vmx.delivery_error = error;
	v->vmx.delivery_length = length;
	v->vmx.activity = ACTIVITY_ACTIVE;
}

void vmx_delivery_ends(struct soft_vcpu *v)
{
	v->vmx.nmi_unblocked = false;
	v->vmx.vectoring_info = 0; /* what comes now comes by itself */
	/* 26.5.2: an MTF VM exit is due behind the delivery of an event. */
	if (vmx_cpu(v, CPU_MONITOR_TRAP)) {
		v->vmx.trap_pending = true;
		vcpu_attention(v, ATTENTION_IRQ);
	}
}

void vmx_note_nested(struct soft_vcpu *v, bool double_fault)
{
	/* 28.2.4: no vectoring information with a double fault. */
	v->vmx.vectoring_info = double_fault ? 0 : v->vmx.delivery_info;
	v->vmx.vectoring_error = v->vmx.delivery_error;
	v->vmx.vectoring_length = v->vmx.delivery_length;
}

/* 27.6: the event of VM entry. */
bool vmx_inject(struct soft_vcpu *v)
{
	u32 info = v->vmx.inject_info, type = INFO_TYPE(info);
	struct event ev = {
	    .kind = EVENT_EXCEPTION,
	    .vector = (u8)INFO_VECTOR(info),
	    .has_error = info & INFO_ERROR,
	    .error = v->vmx.inject_error,
	    .rip = v->rip,
	    .flags = vcpu_rflags(v),
	};

	if (!(info & INFO_VALID))
		return false;
	v->vmx.inject_info = 0; /* if it fails, what then comes is delivered */
	switch (type) {
	case INFO_INTERRUPT:
		ev.kind = EVENT_INTERRUPT;
		break;
	case INFO_NMI:
		ev.kind = EVENT_NMI;
		v->events.nmi_masked = true;
		break;
	case INFO_SOFTWARE_INTERRUPT:
	case INFO_SOFTWARE_EXCEPTION:
		ev.kind = type == INFO_SOFTWARE_INTERRUPT ? EVENT_SOFT_INT : EVENT_SOFT_TRAP;
		/* fall through */
	case INFO_PRIVILEGED_EXCEPTION:
		ev.length = (u8)v->vmx.inject_length;
		ev.privileged = type == INFO_PRIVILEGED_EXCEPTION;
		ev.rip = v->rip + ev.length;
		if (!is_code64(v))
			ev.rip = (u32)ev.rip;
		break;
	case INFO_OTHER:
		v->vmx.trap_pending = true;
		return true;
	default:
		break;
	}
	event_deliver(v, &ev);
	return true;
}

void vmx_triple_fault(struct soft_vcpu *v)
{
	vmx_exit(v, &(struct vmx_exit){.reason = REASON_TRIPLE_FAULT, .resume_flag = true});
}

/* Without interrupt chips the monitor's requests have to be looked at too. */
void vmx_set_irq_word(struct soft_vcpu *v)
{
	static const _Atomic u32 may_wait = 1;

	if (!v->lapic || (v->vmx.nonroot && vmx_cpu(v, CPU_INTERRUPT_WINDOW)))
		v->irq_word = &may_wait;
	else if (v->vmx.nonroot && vmx_cpu2(v, CPU2_VIRTUAL_INTERRUPTS))
		v->irq_word = &v->vmx.virtual_interrupt; /* others do not wait for RFLAGS.IF */
	else
		v->irq_word = irqchip_pending_word(v);
}

/* ---- between two instructions ---- */

static bool interrupt_window_open(const struct soft_vcpu *v)
{
	return vmx_cpu(v, CPU_INTERRUPT_WINDOW) && (v->rflags_sys & RFLAGS_IF) && !v->int_shadow &&
	       v->vmx.activity <= ACTIVITY_HLT;
}

static bool nmi_window_open(const struct soft_vcpu *v)
{
	return vmx_cpu(v, CPU_NMI_WINDOW) && !v->events.nmi_masked &&
	       v->int_shadow != INT_SHADOW_MOV_SS && v->vmx.activity <= ACTIVITY_SHUTDOWN;
}

static bool timer_expired(const struct soft_vcpu *v)
{
	return vmx_pin(v, PIN_PREEMPTION_TIMER) && guest_tsc(v) >= v->vmx.timer_end &&
	       v->vmx.activity != ACTIVITY_WAIT_FOR_SIPI;
}

u64 vmx_timer_deadline(const struct soft_vcpu *v)
{
	if (!v->vmx.nonroot || !vmx_pin(v, PIN_PREEMPTION_TIMER))
		return UINT64_MAX;
	return guest_tsc_to_ns(v, v->vmx.timer_end);
}

static _Noreturn void leave_between(struct soft_vcpu *v, u32 reason, bool keeps_debug)
{
	vmx_exit(v, &(struct vmx_exit){.reason = reason, .keeps_debug = keeps_debug});
}

bool vmx_pending(const struct soft_vcpu *v)
{
	return v->vmx.inject_info || v->vmx.trap_pending || v->vmx.tpr_below ||
	       v->vmx.apic_written || timer_expired(v) || nmi_window_open(v) ||
	       interrupt_window_open(v);
}

void vmx_before_debug(struct soft_vcpu *v)
{
	if (unlikely(v->vmx.apic_written))
		vmx_emulate_apic_write(v);
	if (v->vmx.tpr_below)
		leave_between(v, REASON_TPR_BELOW_THRESHOLD, true);
	if (v->vmx.trap_pending)
		leave_between(v, REASON_MONITOR_TRAP, true);
}

void vmx_before_nmi(struct soft_vcpu *v)
{
	if (timer_expired(v))
		leave_between(v, REASON_PREEMPTION_TIMER, false);
	if (nmi_window_open(v))
		leave_between(v, REASON_NMI_WINDOW, false);
}

void vmx_on_nmi(struct soft_vcpu *v)
{
	if (!vmx_pin(v, PIN_NMI))
		return;
	atomic_fetch_sub(&v->events.nmi, 1);
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_EXCEPTION_OR_NMI,
			.interruption = INFO_VALID | INFO_NMI << 8 | EXC_NMI,
		    });
}

void vmx_before_interrupt(struct soft_vcpu *v)
{
	if (interrupt_window_open(v))
		leave_between(v, REASON_INTERRUPT_WINDOW, false);
}

/* Without acknowledgement the interrupt stays where it is (25.7.1). */
bool vmx_on_interrupt(struct soft_vcpu *v)
{
	struct pending_events *e = &v->events;
	u32 interruption = 0;

	if (!vmx_pin(v, PIN_EXTERNAL_INTERRUPT))
		return true;
	if (vmx_get(v, VMX_EXIT_CONTROLS) & EXIT_ACKNOWLEDGE_INTERRUPT) {
		int vector = e->user_interrupt ? e->user_vector : irqchip_acknowledge(v);
		if (vector < 0)
			return false;
		e->user_interrupt = false;
		if (vmx_pin(v, PIN_POSTED_INTERRUPTS) &&
		    (u32)vector == vmx_get(v, VMX_POSTED_INTERRUPT_VECTOR)) {
			vmx_process_posted_interrupts(v);
			return false;
		}
		interruption = INFO_VALID | INFO_INTERRUPT << 8 | (u8)vector;
	}
	vmx_exit(v, &(struct vmx_exit){.reason = REASON_EXTERNAL_INTERRUPT,
				       .interruption = interruption});
}

void vmx_stepped(struct soft_vcpu *v)
{
	if (vmx_cpu(v, CPU_MONITOR_TRAP))
		v->vmx.trap_pending = true;
}

/* 24.8, 26.2: INIT waits in root operation, and a SIPI is lost but where one is waited for. */
bool vmx_takes_startup(struct soft_vcpu *v)
{
	if (!v->vmx.on)
		return true;
	int vector = lapic_take_sipi(v);
	if (!v->vmx.nonroot)
		return false;
	/* 30.4.3.2: APIC-write emulation comes first. */
	if (unlikely(v->vmx.apic_written)) {
		vcpu_attention(v, ATTENTION_IRQ);
		return false;
	}
	if (v->vmx.activity != ACTIVITY_WAIT_FOR_SIPI) {
		if (lapic_take_init(v))
			leave_between(v, REASON_INIT, true);
		return false;
	}
	if (vector >= 0)
		vmx_exit(v,
			 &(struct vmx_exit){.reason = REASON_SIPI, .qualification = (u64)vector});
	return false;
}
