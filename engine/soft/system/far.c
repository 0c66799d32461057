/* Far JMP, CALL and RET: SDM 2A JMP, CALL; 2B RET; 3A 5.8. */
#include "engine/soft/system/far.h"

#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"

enum transfer { TRANSFER_JMP, TRANSFER_CALL };

/* ---- real and virtual-8086 mode ---- */

static void jump_8086(struct soft_vcpu *v, const struct insn *i, enum transfer how, u16 selector,
		      u64 offset)
{
	/* The limit survives the load of CS in both modes. */
	if (offset > v->seg[SEG_CS].limit)
		raise_gp(v, 0);
	if (how == TRANSFER_CALL) {
		struct stack s;
		u64 frame[2] = {v->seg[SEG_CS].selector, v->next_rip};
		stack_current(v, &s);
		stack_push(v, &s, frame, 2, i->opsize);
		stack_commit(v, &s);
	}
	load_segment_real(v, SEG_CS, selector);
	v->rip = offset;
}

/* ---- straight to a code segment ---- */

static void load_code(struct soft_vcpu *v, const struct segment *cs, u32 cpl, u64 rip)
{
	v->seg[SEG_CS] = *cs;
	v->cpl = (u8)cpl;
	v->rip = rip;
	vcpu_segment_changed(v);
}

/* Pushes the return address on the current stack. */
static void push_return(struct soft_vcpu *v, u32 size)
{
	struct stack s;
	u64 frame[2] = {v->seg[SEG_CS].selector, v->next_rip};

	stack_current(v, &s);
	stack_push(v, &s, frame, 2, size);
	v->regs[RSP] = s.sp;
}

/* CONFORMING-CODE-SEGMENT and NONCONFORMING-CODE-SEGMENT of JMP and CALL: the level stays. */
static void jump_code(struct soft_vcpu *v, const struct insn *i, enum transfer how, u16 selector,
		      u64 offset)
{
	u32 error = SELECTOR_ERROR(selector);
	struct descriptor d;
	struct segment cs;

	desc_read_code(v, selector, &d);
	if (desc_is_conforming(&d) ? desc_dpl(&d) > v->cpl
				   : SELECTOR_RPL(selector) > v->cpl || desc_dpl(&d) != v->cpl)
		raise_gp(v, error);
	if (!desc_present(&d))
		raise_error(v, EXC_NP, error);
	segment_fill(&cs, (u16)((selector & ~3u) | v->cpl), &d);
	cs.access |= SEG_TYPE_ACCESSED;
	check_code_offset(v, &cs, offset);
	desc_set_accessed(v, &d);
	if (how == TRANSFER_CALL)
		push_return(v, i->opsize);
	load_code(v, &cs, v->cpl, offset);
}

/* ---- call gates ---- */

/* A gate's target, checked. */
struct gate_target {
	struct descriptor desc;
	struct segment cs;
	u64 rip;
	u32 cpl;
	u32 size;   /* of what CALL pushes: 2, 4, 8 bytes */
	u32 params; /* values to copy to an inner stack */
};

/* CALL-GATE, the checks before the ways part */
static void read_gate_target(struct soft_vcpu *v, const struct descriptor *gate, enum transfer how,
			     struct gate_target *t)
{
	u16 selector = gate_selector(gate);
	u32 error = SELECTOR_ERROR(selector);

	desc_read_code(v, selector, &t->desc);
	/* SDM 3A 5.8.3.1: 64-bit call gates lead to 64-bit code. */
	if (is_long(v) && !(desc_access(&t->desc) & SEG_L))
		raise_gp(v, error);
	u32 dpl = desc_dpl(&t->desc);
	bool conforming = desc_is_conforming(&t->desc);
	if (dpl > v->cpl || (how == TRANSFER_JMP && !conforming && dpl != v->cpl))
		raise_gp(v, error);
	if (!desc_present(&t->desc))
		raise_error(v, EXC_NP, error);

	t->cpl = conforming ? v->cpl : dpl;
	segment_fill(&t->cs, (u16)((selector & ~3u) | t->cpl), &t->desc);
	t->cs.access |= SEG_TYPE_ACCESSED;
	t->rip = gate_offset(gate);
	t->size = is_long(v) ? 8 : desc_type(gate) == SYS_CALL ? 4 : 2;
	t->params = is_long(v) ? 0 : gate->raw >> 32 & 0x1f;
}

/* MORE-PRIVILEGE: old SS:SP, parameters, return address go to the inner level's stack. */
static void call_inner(struct soft_vcpu *v, struct gate_target *t)
{
	struct stack old, s;
	u64 frame[4 + 31];
	u32 n = 0;

	stack_current(v, &old);
	if (is_long(v)) {
		stack_long(v, t->cpl, stack_pointer_from_tss64(v, t->cpl, 0), &s);
		if (!is_canonical(s.sp))
			raise_error(v, EXC_SS, 0);
	} else {
		stack_from_tss(v, t->cpl, &s);
	}
	frame[n++] = v->seg[SEG_SS].selector;
	frame[n++] = v->regs[RSP];
	for (u32 k = t->params; k > 0; k--)
		frame[n++] = stack_read(v, &old, (k - 1) * t->size, t->size);
	frame[n++] = v->seg[SEG_CS].selector;
	frame[n++] = v->next_rip;

	check_code_offset(v, &t->cs, t->rip);
	desc_set_accessed(v, &t->desc);
	stack_push(v, &s, frame, n, t->size);

	stack_commit(v, &s);
	load_code(v, &t->cs, t->cpl, t->rip);
}

static void jump_call_gate(struct soft_vcpu *v, enum transfer how, const struct descriptor *gate)
{
	struct gate_target t;

	read_gate_target(v, gate, how, &t);
	if (t.cpl < v->cpl) {
		call_inner(v, &t);
		return;
	}
	check_code_offset(v, &t.cs, t.rip);
	desc_set_accessed(v, &t.desc);
	if (how == TRANSFER_CALL)
		push_return(v, t.size);
	load_code(v, &t.cs, t.cpl, t.rip);
}

/* ---- tasks ---- */

static void jump_task(struct soft_vcpu *v, enum transfer how, u16 selector)
{
	task_switch(v, selector, how == TRANSFER_CALL ? TASK_CALL : TASK_JMP, false, 0);
}

/* ---- by what the selector names ---- */

static void jump_system(struct soft_vcpu *v, enum transfer how, u16 selector)
{
	u32 error = SELECTOR_ERROR(selector);
	struct descriptor d;

	if (!desc_read_system(v, selector, &d))
		raise_gp(v, error);
	u32 type = desc_type(&d);
	/* SDM 2A JMP: in IA-32e mode only the 64-bit call gate is left. */
	u32 allowed = is_long(v) ? BIT(SYS_CALL)
				 : BIT(SYS_CALL) | BIT(SYS_CALL16) | BIT(SYS_TASK_GATE) |
				       BIT(SYS_TSS16) | BIT(SYS_TSS);
	if (!(allowed >> type & 1))
		raise_gp(v, error);
	if (is_long(v) && d.high >> 40 & 0x1f)
		raise_gp(v, error);
	if (desc_dpl(&d) < v->cpl || desc_dpl(&d) < SELECTOR_RPL(selector))
		raise_gp(v, error);
	if (!desc_present(&d))
		raise_error(v, EXC_NP, error);

	if (type == SYS_CALL || type == SYS_CALL16)
		jump_call_gate(v, how, &d);
	else
		jump_task(v, how, type == SYS_TASK_GATE ? gate_selector(&d) : selector);
}

static void jump(struct soft_vcpu *v, const struct insn *i, enum transfer how)
{
	u64 offset = i->imm;
	u16 selector = i->imm2;
	struct descriptor d;

	if (i->is_mem) {
		u64 address = insn_ea(v, i);
		offset = mem_read(v, i->seg, address, i->opsize);
		selector = (u16)mem_read(v, i->seg, ea_plus(i, address, i->opsize), 2);
	} else if (i->opsize == 2) {
		offset = (u16)offset;
	} else {
		offset = (u32)offset;
	}
	if (!has_descriptors(v)) {
		jump_8086(v, i, how, selector, offset);
		return;
	}
	if (selector_is_null(selector))
		raise_gp(v, 0);
	if (!desc_read(v, selector, &d))
		raise_gp(v, SELECTOR_ERROR(selector));
	if (desc_is_segment(&d))
		jump_code(v, i, how, selector, offset);
	else
		jump_system(v, how, selector);
}

void op_jmp_far(struct soft_vcpu *v, const struct insn *i)
{
	jump(v, i, TRANSFER_JMP);
}

void op_call_far(struct soft_vcpu *v, const struct insn *i)
{
	jump(v, i, TRANSFER_CALL);
}

/* ---- RET ---- */

static void ret_8086(struct soft_vcpu *v, const struct insn *i, u32 release)
{
	u64 rip = stack_peek(v, i, 0, i->opsize);
	u16 selector = (u16)stack_peek(v, i, i->opsize, 2);

	if (rip > v->seg[SEG_CS].limit)
		raise_gp(v, 0);
	stack_adjust(v, i, 2 * i->opsize + release);
	load_segment_real(v, SEG_CS, selector);
	v->rip = rip;
}

void op_ret_far(struct soft_vcpu *v, const struct insn *i)
{
	u32 size = i->opsize;
	u32 release = (u16)i->imm;
	struct far_return r;

	if (!has_descriptors(v)) {
		ret_8086(v, i, release);
		return;
	}
	r.rip = stack_peek(v, i, 0, size);
	r.cs_selector = (u16)stack_peek(v, i, size, size);
	far_return_check_code(v, &r);
	bool outer = SELECTOR_RPL(r.cs_selector) > v->cpl;
	if (outer) {
		/* The parameters lie between, and on the outer stack too. */
		r.rsp = stack_peek(v, i, 2 * size + release, size);
		r.ss_selector = (u16)stack_peek(v, i, 3 * size + release, size);
		far_return_check_stack(v, &r);
	}
	check_code_offset(v, &r.cs, r.rip);
	far_return_commit(v, &r, outer, release);
	if (!outer)
		stack_adjust(v, i, 2 * size + release);
}
