/* Raising exceptions, the rules for faults on the way to a handler, and what is due between
 * instructions. */
#include "engine/soft/system/exception.h"

#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/descriptor.h"
#include "engine/soft/vmx/vmx.h"

/* SDM 3A table 6-4 */
enum exception_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum exception_class class_of(u8 vector)
{
	switch (vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP:
		return CONTRIBUTORY;
	case EXC_PF:
		return PAGE_FAULT;
	case EXC_DF:
		return DOUBLE_FAULT;
	default:
		return BENIGN;
	}
}

/* What the event whose delivery just failed and the new exception make: SDM 3A table 6-5. */
enum nested_result { NESTED_SERIAL, NESTED_DOUBLE_FAULT, NESTED_SHUTDOWN };

static enum nested_result nested_result(enum exception_class first, enum exception_class second)
{
	static const u8 table[4][4] = {
	    [CONTRIBUTORY] = {[CONTRIBUTORY] = NESTED_DOUBLE_FAULT},
	    [PAGE_FAULT] =
		{[CONTRIBUTORY] = NESTED_DOUBLE_FAULT, [PAGE_FAULT] = NESTED_DOUBLE_FAULT},
	    [DOUBLE_FAULT] = {[CONTRIBUTORY] = NESTED_SHUTDOWN, [PAGE_FAULT] = NESTED_SHUTDOWN},
	};

	return table[first][second];
}

static enum exception_class class_in_delivery(const struct pending_events *e)
{
	/* Interrupts are benign whatever their vector (SDM 3A table 6-4). */
	return e->delivering_soft || e->delivering_interrupt ? BENIGN : class_of(e->delivering);
}

/* SDM 3A 6.13: EXT tells that an event external to the program was being delivered. Not in #PF's
 * code, and #AC's and #DF's are always 0. */
static bool error_has_ext(u8 vector)
{
	return vector == EXC_TS || vector == EXC_NP || vector == EXC_SS || vector == EXC_GP;
}

static _Noreturn void record(struct soft_vcpu *v, u8 vector, bool has_error, u32 error, u64 cr2)
{
	struct pending_events *e = &v->events;
	enum nested_result result = NESTED_SERIAL;
	bool nested = e->in_delivery;

	if (nested) {
		/* If taken: its failing is an exception of its own. */
		if (e->delivering_user)
			e->user_interrupt = false;
		/* SDM 3C 26.2: an exception that leaves makes no double fault before it does. */
		if (!vmx_nonroot(v) || !vmx_wants_exception(v, vector, error))
			result = nested_result(class_in_delivery(e), class_of(vector));
		if (vmx_nonroot(v))
			vmx_note_nested(v, result == NESTED_DOUBLE_FAULT);
		if (!e->delivering_soft && error_has_ext(vector))
			error |= ERROR_EXT;
		e->in_delivery = false;
	} else if (v->int_shadow != 2) {
		/* Data breakpoints met by an instruction that is abandoned will be met again. What
		 * MOV SS has put off stays (SDM 3A 6.8.3). */
		e->debug = 0;
		v->debug.hit = 0;
	}
	if (!nested)
		v->vmx.vectoring_info = 0;
	e->exception = true;
	e->exception_vector = vector;
	e->exception_has_error = has_error;
	e->exception_error = error;
	e->exception_cr2 = cr2;
	e->soft_interrupt = false;

	if (result != NESTED_SERIAL && vector == EXC_PF)
		v->cr2 = cr2; /* the second page fault has happened, though only #DF is delivered */
	if (result == NESTED_DOUBLE_FAULT) {
		e->exception_vector = EXC_DF;
		e->exception_has_error = true;
		e->exception_error = 0;
	} else if (result == NESTED_SHUTDOWN) {
		e->exception = false;
		e->triple_fault = true;
	}
	vcpu_resume(v);
}

void raise(struct soft_vcpu *v, u8 vector)
{
	record(v, vector, false, 0, 0);
}

void raise_error(struct soft_vcpu *v, u8 vector, u32 error)
{
	record(v, vector, true, error, 0);
}

void raise_pf(struct soft_vcpu *v, u64 linear, u32 error)
{
	tlb_faulted(v, linear);
	record(v, EXC_PF, true, error, linear);
}

/*
 * RF in the pushed flags, SDM 3B 17.3.1.1: 1 for faults, so that an instruction breakpoint does not
 * hit again on return; but 0 for the breakpoint itself, whose handler decides. #DB as a recorded
 * exception is either that or general detect.
 */
static u64 fault_flags(const struct soft_vcpu *v, u8 vector)
{
	u64 flags = vcpu_rflags(v);

	switch (vector) {
	case EXC_BP: /* traps, when the monitor injects them */
	case EXC_OF:
		return flags;
	case EXC_DB:
		return (v->dr6 & (DR6_BD | 0xf)) == DR6_BD ? flags | RFLAGS_RF : flags & ~RFLAGS_RF;
	default:
		return flags | RFLAGS_RF;
	}
}

static void deliver_recorded(struct soft_vcpu *v)
{
	struct pending_events *e = &v->events;
	struct event ev = {
	    .kind = EVENT_EXCEPTION,
	    .vector = e->exception_vector,
	    .has_error = e->exception_has_error,
	    .error = e->exception_error,
	    .rip = v->rip,
	    .flags = fault_flags(v, e->exception_vector),
	};

	if (ev.vector == EXC_PF)
		v->cr2 = e->exception_cr2;
	event_deliver(v, &ev);
	e->exception = false;
}

/* INT n or INT3 restored by the monitor (KVM_SET_VCPU_EVENTS), or handed back by its debugger:
 * still to be delivered, v->rip at its start. */
static void deliver_restored_soft(struct soft_vcpu *v)
{
	struct pending_events *e = &v->events;
	struct event ev = {
	    .kind = e->soft_trap ? EVENT_SOFT_TRAP : EVENT_SOFT_INT,
	    .vector = e->exception_vector,
	    .rip = v->rip + e->soft_length,
	    .flags = vcpu_rflags(v),
	};

	event_deliver(v, &ev);
	e->soft_interrupt = false;
	e->exception = false;
}

static void deliver_debug_trap(struct soft_vcpu *v)
{
	struct event ev = {
	    .kind = EVENT_EXCEPTION,
	    .vector = EXC_DB,
	    .rip = v->rip,
	    .flags = vcpu_rflags(v),
	};

	if (vmx_nonroot(v))
		vmx_on_debug_trap(v, v->events.debug);
	/* SDM 3B 17.2.3: B0-B3 may be cleared, the rest of DR6 is sticky. */
	v->dr6 = (v->dr6 & ~0xfull) | v->events.debug | DR6_FIXED1;
	v->events.debug = 0;
	event_deliver(v, &ev);
}

static void deliver_nmi(struct soft_vcpu *v)
{
	struct event ev = {
	    .kind = EVENT_NMI,
	    .vector = EXC_NMI,
	    .rip = v->rip,
	    .flags = vcpu_rflags(v),
	};

	if (vmx_nonroot(v))
		vmx_on_nmi(v);
	/* SDM 3A 6.7.1: further NMIs wait for IRET, also if delivery faults. */
	atomic_fetch_sub(&v->events.nmi, 1);
	v->events.nmi_masked = true;
	event_deliver(v, &ev);
}

static void deliver_virtual_interrupt(struct soft_vcpu *v)
{
	struct event ev = {
	    .kind = EVENT_INTERRUPT,
	    .vector = vmx_take_virtual_interrupt(v),
	    .rip = v->rip,
	    .flags = vcpu_rflags(v),
	};

	event_deliver(v, &ev);
}

static void deliver_interrupt(struct soft_vcpu *v)
{
	struct pending_events *e = &v->events;

	/* SDM 3C 30.2.2: before external interrupts. */
	if (vmx_virtual_interrupt_waits(v)) {
		deliver_virtual_interrupt(v);
		return;
	}
	if (vmx_nonroot(v) && !vmx_on_interrupt(v))
		return;
	if (!e->user_interrupt) {
		int vector = irqchip_acknowledge(v);
		if (vector < 0)
			return;
		e->user_vector = (u8)vector;
		e->user_interrupt = true;
	}
	struct event ev = {
	    .kind = EVENT_INTERRUPT,
	    .vector = e->user_vector,
	    .rip = v->rip,
	    .flags = vcpu_rflags(v),
	    .user = true,
	};

	event_deliver(v, &ev);
	e->user_interrupt = false;
}

static bool has_debug_trap(const struct soft_vcpu *v)
{
	/* SDM 3A 6.8.3: after MOV SS and POP SS debug traps wait for the next instruction. */
	return v->events.debug && v->int_shadow != 2;
}

static bool nmi_waits(const struct soft_vcpu *v)
{
	return atomic_load_explicit(&v->events.nmi, memory_order_relaxed) &&
	       (!v->events.nmi_masked || vmx_nmis_leave(v)) && v->int_shadow != 2 &&
	       !vmx_blocks_nmis(v);
}

static bool interrupt_waits(const struct soft_vcpu *v)
{
	if (vmx_virtual_interrupt_waits(v))
		return true;
	if (!(v->rflags_sys & RFLAGS_IF) && !vmx_interrupts_leave(v))
		return false;
	if (v->int_shadow || vmx_blocks_interrupts(v))
		return false;
	return v->events.user_interrupt || (v->vm->irqchip && irqchip_pending(v));
}

static bool held_back(const struct soft_vcpu *v)
{
	return v->debug.control & KVM_GUESTDBG_BLOCKIRQ;
}

static bool has_nmi(const struct soft_vcpu *v)
{
	return nmi_waits(v) && !held_back(v);
}

static bool has_interrupt(const struct soft_vcpu *v)
{
	return interrupt_waits(v) && !held_back(v);
}

bool events_pending(const struct soft_vcpu *v)
{
	return v->events.exception || v->events.soft_interrupt || has_debug_trap(v) || has_nmi(v) ||
	       has_interrupt(v) || (vmx_nonroot(v) && vmx_pending(v));
}

bool events_held_back(const struct soft_vcpu *v)
{
	return held_back(v) && (nmi_waits(v) || interrupt_waits(v));
}

/*
 * SDM 3A 6.9, table 6-2. Exceptions and interrupts stay pending until their handler is entered:
 * tables or stacks in MMIO make delivery leave for good (reads_for_delivery() in run.c).
 */
void events_deliver(struct soft_vcpu *v)
{
	struct pending_events *e = &v->events;

	e->in_delivery = false;
	if (e->triple_fault)
		return;
	if (vmx_nonroot(v) && vmx_inject(v))
		return;
	if (e->soft_interrupt) {
		deliver_restored_soft(v);
		return;
	}
	if (e->exception) {
		deliver_recorded(v);
		return;
	}
	if (vmx_nonroot(v))
		vmx_before_debug(v);
	if (has_debug_trap(v)) {
		deliver_debug_trap(v);
		return;
	}
	if (vmx_nonroot(v))
		vmx_before_nmi(v);
	if (has_nmi(v)) {
		deliver_nmi(v);
		return;
	}
	if (vmx_nonroot(v))
		vmx_before_interrupt(v);
	if (has_interrupt(v))
		deliver_interrupt(v);
}
