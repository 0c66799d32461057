// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Exceptions, interrupts and NMIs into the guest.
 *
 * One event is injected with an entry (SDM 3C 26.6). If an exit comes in the middle of its
 * delivery, an EPT violation on the guest's IDT or stack for instance, the processor tells so in
 * the IDT-vectoring information (SDM 3C 27.2.4), and the same event is injected once more.
 */
#include <linux/kernel.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

#define TYPE(info) ((info)&INTR_INFO_INTR_TYPE_MASK)

void events_init(struct vcpu *v)
{
	/* What an entry that did not take place has left there, too. */
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
	memset(&v->events, 0, sizeof(v->events));
	v->chip.events.nmi = 0;
	v->events.irq = -1;
}

static bool contributory(u8 vector)
{
	switch (vector) {
	case X86_TRAP_DE:
	case X86_TRAP_TS:
	case X86_TRAP_NP:
	case X86_TRAP_SS:
	case X86_TRAP_GP:
		return true;
	default:
		return false;
	}
}

/* SDM 3A table 6-5: whether @second, raised while @first was delivered, becomes a double fault. */
static bool makes_double_fault(u8 first, u8 second)
{
	if (first == X86_TRAP_PF)
		return second == X86_TRAP_PF || contributory(second);
	return contributory(first) && contributory(second);
}

void events_shut_down(struct vcpu *v)
{
	v->events.triple_fault = true;
}

static void raise_exception(struct vcpu *v, u32 type, u8 vector, bool has_error, u32 error)
{
	struct events *e = &v->events;

	if (e->current_event.valid && e->current_event.type == INTR_TYPE_HARD_EXCEPTION >> 8) {
		u8 first = e->current_event.vector;

		/* A third one: events_inject() ends the guest. */
		if (first == X86_TRAP_DF && (contributory(vector) || vector == X86_TRAP_PF)) {
			events_shut_down(v);
			return;
		}
		if (makes_double_fault(first, vector)) {
			e->current_event.valid = false;
			vector = X86_TRAP_DF;
			has_error = true;
			error = 0;
		}
	}
	/* Otherwise the second one is delivered first, and the first is raised anew by its
	 * instruction. Interrupts that were on their way are kept: they come afterwards. */
	if (e->current_event.valid && e->current_event.type != INTR_TYPE_EXT_INTR >> 8 &&
	    e->current_event.type != INTR_TYPE_NMI_INTR >> 8)
		e->current_event.valid = false;
	e->exception.valid = true;
	e->exception.type = type >> 8;
	e->exception.vector = vector;
	e->exception.has_error = has_error;
	e->exception.error = error;
	e->exception.length = 0;
}

void raise(struct vcpu *v, u8 vector)
{
	raise_exception(v, INTR_TYPE_HARD_EXCEPTION, vector, false, 0);
}

void raise_software(struct vcpu *v, u32 type, u8 vector, u32 length)
{
	raise_exception(v, type, vector, false, 0);
	v->events.exception.length = length;
}

bool events_exception_waits(const struct vcpu *v)
{
	return v->events.exception.valid;
}

void raise_error(struct vcpu *v, u8 vector, u32 error)
{
	/* In real mode no error code is pushed (SDM 3A 20.1.4). */
	raise_exception(v, INTR_TYPE_HARD_EXCEPTION, vector, control_get_cr0(v) & X86_CR0_PE,
			error);
}

void raise_page_fault(struct vcpu *v, const struct walk_fault *fault)
{
	v->cr2 = fault->linear;
	raise_error(v, X86_TRAP_PF, fault->error_code);
}

/* What the interruptibility state says (SDM 3C 24.4.2), bits that block external interrupts. */
#define SHADOW (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS)

bool events_can_interrupt(struct vcpu *v)
{
	return (field_get(v, FIELD_RFLAGS) & X86_EFLAGS_IF) &&
	       !(field_get(v, FIELD_BLOCKING) & SHADOW) && v->events.irq < 0 &&
	       !v->events.current_event.valid && !v->events.exception.valid;
}

static void begin(struct vcpu *v, u32 type, u8 vector)
{
	v->events.current_event.valid = true;
	v->events.current_event.type = type >> 8;
	v->events.current_event.vector = vector;
	v->events.current_event.has_error = false;
	v->events.current_event.length = 0;
}

#define WINDOWS (CPU_BASED_NMI_WINDOW_EXITING | CPU_BASED_INTR_WINDOW_EXITING)

static bool interrupt_waits(struct vcpu *v)
{
	return v->events.irq >= 0 || irqchip_pending(&v->chip);
}

/* Whatever waits and may go in becomes the current event; for what may not, the processor is told
 * to exit when it may (SDM 3C 25.2, windows). */
static void choose(struct vcpu *v)
{
	struct events *e = &v->events;
	bool nmi = READ_ONCE(v->chip.events.nmi);
	bool asked = !v->chip.lapic && READ_ONCE(v->run->request_interrupt_window);
	u32 blocked, windows = 0;

	if ((!nmi && !asked && !interrupt_waits(v)) || (v->debug.control & KVM_GUESTDBG_BLOCKIRQ)) {
		vcpu_set_controls(v, WINDOWS, 0);
		return;
	}
	blocked = field_get(v, FIELD_BLOCKING);
	v->chip.events.nmi_masked = blocked & GUEST_INTR_STATE_NMI;
	if (!e->current_event.valid && nmi && !(blocked & (GUEST_INTR_STATE_NMI | SHADOW))) {
		__atomic_fetch_sub(&v->chip.events.nmi, 1, __ATOMIC_SEQ_CST);
		begin(v, INTR_TYPE_NMI_INTR, X86_TRAP_NMI);
	}
	if (!e->current_event.valid && !(blocked & SHADOW) &&
	    (field_get(v, FIELD_RFLAGS) & X86_EFLAGS_IF)) {
		int vector = e->irq;

		e->irq = -1;
		if (vector < 0 && irqchip_pending(&v->chip))
			vector = irqchip_acknowledge(&v->chip);
		if (vector >= 0)
			begin(v, INTR_TYPE_EXT_INTR, vector);
	}
	if (READ_ONCE(v->chip.events.nmi))
		windows |= CPU_BASED_NMI_WINDOW_EXITING;
	if (asked || interrupt_waits(v))
		windows |= CPU_BASED_INTR_WINDOW_EXITING;
	vcpu_set_controls(v, WINDOWS, windows);
}

static int shutdown(struct vcpu *v)
{
	events_init(v);
	v->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return 0;
}

/* The exception that C code has raised becomes the current event. */
static void begin_exception(struct vcpu *v)
{
	struct events *e = &v->events;

	/* An interrupt that was on its way is behind the exception now: it waits for the handler's
	 * IRET. */
	if (e->current_event.valid) {
		if (e->current_event.type == INTR_TYPE_NMI_INTR >> 8)
			v->chip.events.nmi = 1;
		else if (e->irq < 0)
			e->irq = e->current_event.vector;
	}
	begin(v, (u32)e->exception.type << 8, e->exception.vector);
	e->current_event.has_error = e->exception.has_error;
	e->current_event.error = e->exception.error;
	e->current_event.length = e->exception.length;
	e->exception.valid = false;
	/* The shadow of STI or MOV SS ends with it. (With TF set an entry would want to find a
	 * single step pending in a shadow, SDM 3C 26.3.1.5.) */
	field_put(v, FIELD_BLOCKING, field_get(v, FIELD_BLOCKING) & ~(u64)SHADOW);
}

int events_inject(struct vcpu *v)
{
	struct events *e = &v->events;
	u32 info;

	if (e->triple_fault)
		return shutdown(v);
	if (e->exception.valid)
		begin_exception(v);
	choose(v);

	if (!e->current_event.valid) {
		/* The processor clears it at exits; an entry that did not take place leaves it. */
		if (e->armed)
			vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
		e->armed = false;
		return 1;
	}
	info = e->current_event.vector | (u32)e->current_event.type << 8 | INTR_INFO_VALID_MASK;
	if (e->current_event.has_error) {
		info |= INTR_INFO_DELIVER_CODE_MASK;
		vmcs_write(VM_ENTRY_EXCEPTION_ERROR_CODE, e->current_event.error);
	}
	if (e->current_event.length)
		vmcs_write(VM_ENTRY_INSTRUCTION_LEN, e->current_event.length);
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, info);
	e->armed = true;
	return 1;
}

/* Only these can come in the middle of an event's delivery (SDM 3C 27.2.4). */
static bool may_interrupt_delivery(u32 reason)
{
	return reason == EXIT_REASON_EXCEPTION_NMI || reason == EXIT_REASON_TASK_SWITCH ||
	       reason == EXIT_REASON_EPT_VIOLATION || reason == EXIT_REASON_EPT_MISCONFIG;
}

/* SDM 2A, HLT: an NMI or an enabled interrupt ends it, and the trap behind it (SDM 3B 17.3.1.4). */
bool events_wake(struct vcpu *v)
{
	if (v->chip.events.nmi && !(field_get(v, FIELD_BLOCKING) & GUEST_INTR_STATE_NMI))
		return true;
	if (interrupt_waits(v) && (field_get(v, FIELD_RFLAGS) & X86_EFLAGS_IF))
		return true;
	return v->events.exception.valid || v->events.current_event.valid ||
	       field_get(v, FIELD_PENDING_DEBUG);
}

void events_take_back(struct vcpu *v)
{
	struct events *e = &v->events;
	u32 info;

	/* An entry that failed has delivered nothing. */
	if (v->exit_reason & VMX_EXIT_REASONS_FAILED_VMENTRY)
		return;
	e->armed = false;
	info = may_interrupt_delivery(v->exit_reason) ? vmcs_read(IDT_VECTORING_INFO_FIELD) : 0;
	e->current_event.valid = info & INTR_INFO_VALID_MASK;
	if (!e->current_event.valid)
		return;
	e->current_event.type = TYPE(info) >> 8;
	e->current_event.vector = info & INTR_INFO_VECTOR_MASK;
	e->current_event.has_error = info & INTR_INFO_DELIVER_CODE_MASK;
	if (e->current_event.has_error)
		e->current_event.error = vmcs_read(IDT_VECTORING_ERROR_CODE);
	switch (TYPE(info)) {
	case INTR_TYPE_SOFT_INTR:
	case INTR_TYPE_PRIV_SW_EXCEPTION:
	case INTR_TYPE_SOFT_EXCEPTION:
		e->current_event.length = vmcs_read(VM_EXIT_INSTRUCTION_LEN);
		break;
	case INTR_TYPE_NMI_INTR:
		/* Its delivery has begun to block NMIs; injected once more it must not find them
		 * blocked (SDM 3C 26.3.1.5). */
		field_put(v, FIELD_BLOCKING,
			  field_get(v, FIELD_BLOCKING) & ~(u64)GUEST_INTR_STATE_NMI);
		fallthrough;
	default:
		e->current_event.length = 0;
	}
}
