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

static void raise_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	struct events *e = &v->events;

	if (e->current_event.valid && e->current_event.type == INTR_TYPE_HARD_EXCEPTION >> 8) {
		u8 first = e->current_event.vector;

		/* A third one: events_inject() ends the guest. */
		if (first == X86_TRAP_DF && (contributory(vector) || vector == X86_TRAP_PF)) {
			e->exception.valid = true;
			e->exception.vector = X86_TRAP_DF;
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
	e->exception.vector = vector;
	e->exception.has_error = has_error;
	e->exception.error = error;
}

void raise(struct vcpu *v, u8 vector)
{
	raise_exception(v, vector, false, 0);
}

void raise_error(struct vcpu *v, u8 vector, u32 error)
{
	/* In real mode no error code is pushed (SDM 3A 20.1.4). */
	raise_exception(v, vector, control_get_cr0() & X86_CR0_PE, error);
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
	return (vmcs_read(GUEST_RFLAGS) & X86_EFLAGS_IF) &&
	       !(vmcs_read(GUEST_INTERRUPTIBILITY_INFO) & SHADOW) && v->events.irq < 0 &&
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

static void window(u32 control, bool open)
{
	u32 now = vmcs_read(CPU_BASED_VM_EXEC_CONTROL);
	u32 wanted = open ? now | control : now & ~control;

	if (wanted != now)
		vmcs_write(CPU_BASED_VM_EXEC_CONTROL, wanted);
}

/* Whatever waits and may go in becomes the current event; for what may not, the processor is told
 * to exit when it may (SDM 3C 25.2, windows). */
static void choose(struct vcpu *v)
{
	struct events *e = &v->events;
	u32 blocked = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);

	v->chip.events.nmi_masked = blocked & GUEST_INTR_STATE_NMI;
	if (!e->current_event.valid && v->chip.events.nmi &&
	    !(blocked & (GUEST_INTR_STATE_NMI | SHADOW))) {
		__atomic_fetch_sub(&v->chip.events.nmi, 1, __ATOMIC_SEQ_CST);
		begin(v, INTR_TYPE_NMI_INTR, X86_TRAP_NMI);
	}
	if (!e->current_event.valid && !(blocked & SHADOW) &&
	    (vmcs_read(GUEST_RFLAGS) & X86_EFLAGS_IF)) {
		int vector = e->irq;

		e->irq = -1;
		if (vector < 0 && irqchip_pending(&v->chip))
			vector = irqchip_acknowledge(&v->chip);
		if (vector >= 0)
			begin(v, INTR_TYPE_EXT_INTR, vector);
	}
	window(CPU_BASED_NMI_WINDOW_EXITING, v->chip.events.nmi);
	window(CPU_BASED_INTR_WINDOW_EXITING, e->irq >= 0 || irqchip_pending(&v->chip) ||
						  READ_ONCE(v->run->request_interrupt_window));
}

static int shutdown(struct vcpu *v)
{
	events_init(v);
	v->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return 0;
}

int events_inject(struct vcpu *v)
{
	struct events *e = &v->events;
	u32 info;

	if (e->exception.valid) {
		bool third = e->current_event.valid && e->exception.vector == X86_TRAP_DF;

		if (third)
			return shutdown(v);
		/* An interrupt that was on its way is behind the exception now: it waits for the
		 * handler's IRET. */
		if (e->current_event.valid) {
			if (e->current_event.type == INTR_TYPE_NMI_INTR >> 8)
				v->chip.events.nmi = 1;
			else if (e->irq < 0)
				e->irq = e->current_event.vector;
		}
		begin(v, INTR_TYPE_HARD_EXCEPTION, e->exception.vector);
		e->current_event.has_error = e->exception.has_error;
		e->current_event.error = e->exception.error;
		e->exception.valid = false;
	}
	choose(v);

	if (!e->current_event.valid) {
		/* The processor clears it at exits; an entry that did not take place leaves it. */
		vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
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
	return 1;
}

void events_take_back(struct vcpu *v)
{
	struct events *e = &v->events;
	u32 info;

	/* An entry that failed has delivered nothing. */
	if (v->exit_reason & VMX_EXIT_REASONS_FAILED_VMENTRY)
		return;
	info = vmcs_read(IDT_VECTORING_INFO_FIELD);
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
		vmcs_clear_bits(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
		fallthrough;
	default:
		e->current_event.length = 0;
	}
}
