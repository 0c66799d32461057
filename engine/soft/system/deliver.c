/*
 * Delivery of events through the IDT or the real-mode vector table: SDM 2A "INT n/INTO/INT3/INT1"
 * (its pseudocode covers all events), SDM 3A 6.12 (protected mode), 6.14 (64-bit mode), 20.1.4
 * (real mode), 20.3 (virtual-8086).
 */
#include "debug/trace.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/state.h"
#include "engine/soft/vmx/vmx.h"

/* Error code naming the gate, SDM 3A 6.13 */
static u32 gate_error(u8 vector)
{
	return vector * 8u | ERROR_IDT;
}

static bool is_software(const struct event *ev)
{
	return ev->kind == EVENT_SOFT_INT || ev->kind == EVENT_SOFT_TRAP;
}

/* A gate's target, read and checked, nothing changed yet. */
struct target {
	struct descriptor gate;
	struct descriptor desc;
	struct segment cs;
	u64 rip;
	u32 cpl;
	bool trap; /* IF stays */
};

/* ---- real mode, and virtual-8086 mode by redirection ---- */

/*
 * Pushes FLAGS, CS, IP as words and goes to the handler of the 8086 vector table (SDM 3A 20.1.4).
 * @pushed: image of FLAGS; @cleared: flags to clear.
 */
static void deliver_8086(struct soft_vcpu *v, const struct event *ev, u32 entry, u64 pushed,
			 u64 cleared)
{
	struct stack s;
	u64 frame[3] = {pushed & 0xffff, v->seg[SEG_CS].selector, ev->rip & 0xffff};

	check_code_offset(v, &v->seg[SEG_CS], entry & 0xffff);
	stack_current(v, &s);
	stack_push(v, &s, frame, ARRAY_SIZE(frame), 2);

	stack_commit(v, &s);
	vcpu_set_rflags(v, vcpu_rflags(v) & ~cleared);
	load_segment_real(v, SEG_CS, (u16)(entry >> 16));
	v->rip = entry & 0xffff;
}

static void deliver_real(struct soft_vcpu *v, const struct event *ev)
{
	/* SDM 2A INT n, REAL-ADDRESS-MODE: the vector's 4 bytes lie within IDTR's limit. */
	if (ev->vector * 4u + 3 > v->idt.limit)
		raise_gp(v, 0);
	u32 entry = (u32)sys_read(v, (u32)(v->idt.base + ev->vector * 4u), 4);
	deliver_8086(v, ev, entry, ev->flags, RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
}

/* Bit of the interrupt redirection bitmap, the 32 bytes below the I/O bitmap (SDM 3A 20.3.3). */
static bool redirection_bit(struct soft_vcpu *v, u8 vector)
{
	if (v->tr.access & SEG_UNUSABLE || v->tr.limit < 103)
		raise_gp(v, 0);
	u32 offset = (u32)sys_read(v, (u32)(v->tr.base + 102), 2) - 32 + vector / 8;
	if (offset > v->tr.limit) /* also when the base is below 32 */
		raise_gp(v, 0);
	return sys_read(v, (u32)(v->tr.base + offset), 1) >> vector % 8 & 1;
}

/* INT n in virtual-8086 mode, SDM 3A table 20-2. true: done; false: goes through the IDT. */
static bool deliver_v86_redirected(struct soft_vcpu *v, const struct event *ev)
{
	bool vme = v->cr4 & CR4_VME;
	u32 entry = 0;
	u64 pushed = ev->flags;
	u64 cleared = RFLAGS_TF | RFLAGS_RF;

	if (!vme || redirection_bit(v, ev->vector)) {
		if (iopl(v) < 3)
			raise_gp(v, 0);
		return false;
	}
	if (iopl(v) == 3) {
		cleared |= RFLAGS_IF;
	} else {
		/* The program sees its virtual interrupt flag, and believes it has IOPL 3. */
		pushed =
		    (pushed & ~RFLAGS_IF) | RFLAGS_IOPL | (pushed & RFLAGS_VIF ? RFLAGS_IF : 0);
		cleared |= RFLAGS_VIF;
	}
	mem_read_linear(v, ev->vector * 4u, &entry, 4, MMU_USER, false);
	deliver_8086(v, ev, entry, pushed, cleared);
	return true;
}

/* ---- gates ---- */

static void read_gate(struct soft_vcpu *v, const struct event *ev, struct descriptor *gate)
{
	u32 size = is_long(v) ? 16 : 8;
	u32 error = gate_error(ev->vector);
	u32 allowed = is_long(v) ? BIT(SYS_INT) | BIT(SYS_TRAP)
				 : BIT(SYS_TASK_GATE) | BIT(SYS_INT16) | BIT(SYS_TRAP16) |
				       BIT(SYS_INT) | BIT(SYS_TRAP);

	if (ev->vector * size + size - 1 > v->idt.limit)
		raise_gp(v, error);
	gate->linear = v->idt.base + ev->vector * size;
	if (!is_long(v))
		gate->linear = (u32)gate->linear;
	gate->raw = sys_read(v, gate->linear, 8);
	gate->high = is_long(v) ? sys_read(v, gate->linear + 8, 8) : 0;

	if (desc_is_segment(gate) || !(allowed >> desc_type(gate) & 1))
		raise_gp(v, error);
	/* SDM 3A 6.12.1.1: software may only use gates of its own or an outer level. */
	if (is_software(ev) && desc_dpl(gate) < v->cpl)
		raise_gp(v, error);
	if (!desc_present(gate))
		raise_error(v, EXC_NP, error);
}

/* SDM 2A INT n, TRAP-OR-INTERRUPT-GATE */
static void read_target(struct soft_vcpu *v, struct target *t)
{
	u16 selector = gate_selector(&t->gate);
	u32 error = SELECTOR_ERROR(selector);

	desc_read_code(v, selector, &t->desc);
	if (desc_dpl(&t->desc) > v->cpl)
		raise_gp(v, error);
	/* SDM 3A 6.14.1: handlers are 64-bit code. */
	if (is_long(v) && !(desc_access(&t->desc) & SEG_L))
		raise_gp(v, error);
	if (!desc_present(&t->desc))
		raise_error(v, EXC_NP, error);

	t->cpl = desc_is_conforming(&t->desc) ? v->cpl : desc_dpl(&t->desc);
	/* SDM 3A 20.3.1: out of virtual-8086 mode the way leads to level 0 only. */
	if (is_v86(v) && t->cpl != 0)
		raise_gp(v, error);

	segment_fill(&t->cs, (u16)((selector & ~3u) | t->cpl), &t->desc);
	t->cs.access |= SEG_TYPE_ACCESSED;
	t->rip = gate_offset(&t->gate);
	t->trap = desc_type(&t->gate) & 1;
}

/* All memory is written: the registers follow. SDM 3A 6.12.1.3: flags that change. */
static void enter_handler(struct soft_vcpu *v, const struct target *t, const struct stack *s)
{
	u64 cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;

	if (!t->trap)
		cleared |= RFLAGS_IF;
	stack_commit(v, s);
	v->seg[SEG_CS] = t->cs;
	v->cpl = (u8)t->cpl;
	v->rflags_sys &= ~cleared;
	v->rip = t->rip;
	vcpu_segment_changed(v);
}

/* SDM 3A 6.14.2 to 6.14.5: the frame always has SS:RSP, on a stack aligned to 16. */
static void deliver_long(struct soft_vcpu *v, const struct event *ev, struct target *t)
{
	u32 ist = t->gate.raw >> 32 & 7;
	struct stack s;

	if (ist || t->cpl < v->cpl) {
		stack_long(v, t->cpl, stack_pointer_from_tss64(v, t->cpl, ist), &s);
		if (!is_canonical(s.sp))
			raise_error(v, EXC_SS, 0);
	} else {
		stack_long(v, t->cpl, v->regs[RSP], &s);
	}
	if (t->cpl == v->cpl) /* SS changes with the privilege level only */
		s.ss = v->seg[SEG_SS];
	if (!is_canonical(t->rip))
		raise_gp(v, 0);

	const u64 frame[6] = {v->seg[SEG_SS].selector, v->regs[RSP], ev->flags,
			      v->seg[SEG_CS].selector, ev->rip,	     ev->error};

	s.sp &= ~0xfull;
	desc_set_accessed(v, &t->desc);
	stack_push(v, &s, frame, ev->has_error ? 6 : 5, 8);
	enter_handler(v, t, &s);
}

/* SDM 2A INT n, INTER- and INTRA-PRIVILEGE, FROM-VIRTUAL-8086-MODE, outside IA-32e mode. */
static void deliver_legacy(struct soft_vcpu *v, const struct event *ev, struct target *t)
{
	static const u8 saved_by_v86[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
	u32 size = desc_type(&t->gate) & 8 ? 4 : 2;
	u64 frame[10];
	u32 n = 0;
	struct stack s;

	if (is_v86(v)) {
		for (u32 k = 0; k < ARRAY_SIZE(saved_by_v86); k++)
			frame[n++] = v->seg[saved_by_v86[k]].selector;
	}
	if (t->cpl < v->cpl) {
		stack_from_tss(v, t->cpl, &s);
		frame[n++] = v->seg[SEG_SS].selector;
		frame[n++] = v->regs[RSP];
	} else {
		stack_current(v, &s);
	}
	frame[n++] = ev->flags;
	frame[n++] = v->seg[SEG_CS].selector;
	frame[n++] = ev->rip;
	if (ev->has_error)
		frame[n++] = ev->error;

	check_code_offset(v, &t->cs, t->rip);
	desc_set_accessed(v, &t->desc);
	stack_push(v, &s, frame, n, size);

	if (is_v86(v)) {
		for (u32 k = 0; k < ARRAY_SIZE(saved_by_v86); k++)
			segment_fill_null(&v->seg[saved_by_v86[k]], 0, 0);
	}
	enter_handler(v, t, &s);
}

static void deliver_protected(struct soft_vcpu *v, const struct event *ev)
{
	struct target t;

	read_gate(v, ev, &t.gate);
	if (desc_type(&t.gate) == SYS_TASK_GATE) {
		/* What other gates push goes to the old task's TSS. */
		v->next_rip = ev->rip;
		v->rflags_sys |= ev->flags & RFLAGS_RF;
		task_switch(v, gate_selector(&t.gate), TASK_GATE, ev->has_error, ev->error);
		return;
	}
	read_target(v, &t);
	if (is_long(v))
		deliver_long(v, ev, &t);
	else
		deliver_legacy(v, ev, &t);
}

/* SDM 3B 17.2.4, 17.4.1: the #DB handler starts with DR7.GD, and DEBUGCTL's LBR and BTF, clear. */
static void debug_handler_entered(struct soft_vcpu *v)
{
	v->dr7 &= ~DR7_GD;
	v->msr.debugctl &= ~3ull;
	vcpu_update_mode(v);
}

static void count(struct soft_vcpu *v, const struct event *ev)
{
	if (ev->kind == EVENT_INTERRUPT || ev->kind == EVENT_NMI) {
		v->stats.interrupts++;
		trace_gp(irq, 2, "vcpu %u: vector %#x delivered, to rip %#llx", v->base.id,
			 ev->vector, (unsigned long long)v->rip);
		return;
	}
	v->stats.exceptions++;
	if (ev->vector == EXC_PF && ev->kind == EVENT_EXCEPTION)
		v->stats.page_faults++;
	trace_gp(exception, 2, "vcpu %u: vector %#x error %#x at rip %#llx cr2 %#llx, to rip %#llx",
		 v->base.id, ev->vector, ev->error, (unsigned long long)ev->rip,
		 (unsigned long long)v->cr2, (unsigned long long)v->rip);
}

/* As VMX describes events: SDM 3C 25.9.3. */
static u32 vectoring_info(const struct event *ev)
{
	static const u8 types[] = {
	    [EVENT_EXCEPTION] = INFO_HARDWARE_EXCEPTION,
	    [EVENT_INTERRUPT] = INFO_INTERRUPT,
	    [EVENT_NMI] = INFO_NMI,
	    [EVENT_SOFT_INT] = INFO_SOFTWARE_INTERRUPT,
	    [EVENT_SOFT_TRAP] = INFO_SOFTWARE_EXCEPTION,
	};
	u32 type = ev->privileged ? INFO_PRIVILEGED_EXCEPTION : types[ev->kind];

	return INFO_VALID | type << 8 | ev->vector | (ev->has_error ? INFO_ERROR : 0);
}

void event_deliver(struct soft_vcpu *v, const struct event *ev)
{
	struct pending_events *e = &v->events;

	e->delivering = ev->vector;
	e->delivering_soft = is_software(ev);
	e->delivering_interrupt = ev->kind == EVENT_INTERRUPT || ev->kind == EVENT_NMI;
	e->delivering_user = ev->user;
	e->in_delivery = true;
	if (vmx_nonroot(v))
		vmx_delivery_begins(v, vectoring_info(ev), ev->error, ev->length);
	v->int_shadow = 0;
	if (v->mp_state == KVM_MP_STATE_HALTED)
		v->mp_state = KVM_MP_STATE_RUNNABLE;

	if (!is_protected(v))
		deliver_real(v, ev);
	else if (!is_v86(v) || ev->kind != EVENT_SOFT_INT || !deliver_v86_redirected(v, ev))
		deliver_protected(v, ev);

	e->in_delivery = false;
	v->step_tf = 0; /* TF fell: no single-step trap behind INT n (SDM 3B 17.3.1.4) */
	debug_step_done(v);
	if (ev->vector == EXC_DB && ev->kind == EVENT_EXCEPTION)
		debug_handler_entered(v);
	if (vmx_nonroot(v))
		vmx_delivery_ends(v);
	count(v, ev);
}
