/* The stack and near control transfer: PUSH, POP, PUSHA, POPA, ENTER, LEAVE, CALL, RET, JMP. */
#include "engine/soft/ops/operand.h"

/* ---- push and pop ---- */

void op_push(struct soft_vcpu *v, const struct insn *i)
{
	u64 value;

	if (i->opcode == 0x68 || i->opcode == 0x6a)
		value = i->imm;
	else if (i->opcode == 0xff)
		value = rm_read(v, i, i->opsize);
	else
		value = reg_read(v, i, i->rm, i->opsize);
	push(v, i, i->opsize, value);
}

/* Of a doubleword processors of today write 16 bits (SDM 2B PUSH). */
void op_push_seg(struct soft_vcpu *v, const struct insn *i)
{
	u64 sp = stack_below(i, stack_pointer(v, i), i->opsize);
	u16 selector = v->seg[i->opcode >> 3 & 7].selector;

	mem_write(v, SEG_SS, sp, i->opsize == 4 ? 2 : i->opsize, selector);
	stack_adjust(v, i, -(s64)i->opsize);
}

void op_pop(struct soft_vcpu *v, const struct insn *i)
{
	u64 value = stack_peek(v, i, 0, i->opsize);

	if (i->opcode != 0x8f || !i->is_mem) {
		/* POP RSP: what was popped wins over the increment (SDM 2B POP). */
		stack_adjust(v, i, i->opsize);
		reg_write(v, i, i->rm, i->opsize, value);
		return;
	}

	/* An address based on RSP sees it incremented; a fault sees it as it was (SDM 2B POP). */
	u64 before = v->regs[RSP];

	stack_adjust(v, i, i->opsize);
	u64 ea = insn_ea(v, i);
	u64 after = v->regs[RSP];

	v->regs[RSP] = before;
	mem_write(v, (enum x86_seg)i->seg, ea, i->opsize, value);
	v->regs[RSP] = after;
}

/* A fault leaves in memory what was pushed before it. */
void op_pusha(struct soft_vcpu *v, const struct insn *i)
{
	u64 sp = stack_pointer(v, i);

	for (u32 k = 0; k < 8; k++)
		mem_write(v, SEG_SS, stack_below(i, sp, (k + 1) * i->opsize), i->opsize,
			  v->regs[k]);
	stack_adjust(v, i, -8 * (s64)i->opsize);
}

void op_popa(struct soft_vcpu *v, const struct insn *i)
{
	u64 value[8];

	for (u32 k = 0; k < 8; k++)
		value[k] = stack_peek(v, i, k * i->opsize, i->opsize);
	stack_adjust(v, i, 8 * (s64)i->opsize);
	for (u32 k = 0; k < 8; k++)
		if (7 - k != RSP)
			v->regs[7 - k] = merge(v->regs[7 - k], value[k], i->opsize);
}

/* ---- frames ---- */

#define ENTER_LEVELS_MAX 31

/* SDM 2A ENTER, step by step: what is copied may be what was pushed just before, and a fault leaves
 * what was pushed in memory. rSP and rBP change at the end. */
void op_enter(struct soft_vcpu *v, const struct insn *i)
{
	u32 size = i->opsize;
	u32 level = i->imm2 & ENTER_LEVELS_MAX;
	u64 sp = stack_pointer(v, i);
	u64 bp = v->regs[RBP];
	u64 frame = stack_below(i, sp, size);
	u32 pushes = level ? level + 1 : 1;
	u64 end = stack_below(i, sp, (u64)pushes * size + (u16)i->imm);

	mem_write(v, SEG_SS, frame, size, bp);
	for (u32 k = 1; k < level; k++) {
		u64 outer = mem_read(v, SEG_SS, stack_below(i, bp, (u64)k * size), size);
		mem_write(v, SEG_SS, stack_below(i, sp, (u64)(k + 1) * size), size, outer);
	}
	if (level)
		mem_write(v, SEG_SS, stack_below(i, sp, (u64)pushes * size), size, frame);
	/* A write at the final stack pointer must be possible, though none is made. */
	stack_probe(v, end, size);

	v->regs[RBP] = merge(bp, frame, size);
	v->regs[RSP] = merge(v->regs[RSP], end, i->stacksize);
}

void op_leave(struct soft_vcpu *v, const struct insn *i)
{
	u64 frame = v->regs[RBP] & size_mask(i->stacksize);
	u64 value = mem_read(v, SEG_SS, frame, i->opsize);

	v->regs[RSP] = merge(v->regs[RSP], frame + i->opsize, i->stacksize);
	reg_write(v, i, RBP, i->opsize, value);
}

/* ---- near control transfer ---- */

/** @target cut to the operand size, after the checks of SDM 2A JMP: canonical, or inside CS. */
static u64 check_target(struct soft_vcpu *v, const struct insn *i, u64 target)
{
	target &= size_mask(i->opsize);
	if (mode_is_64bit(v) ? !is_canonical(target) : target > v->seg[SEG_CS].limit)
		raise_gp(v, 0);
	return target;
}

/** Target of a near CALL or JMP: relative, unless it is the FF group's register or memory. */
static u64 near_target(struct soft_vcpu *v, const struct insn *i)
{
	u64 target = i->opcode == 0xff ? rm_read(v, i, i->opsize) : v->next_rip + i->imm;

	return check_target(v, i, target);
}

void op_call_near(struct soft_vcpu *v, const struct insn *i)
{
	u64 target = near_target(v, i);

	push(v, i, i->opsize, v->next_rip);
	v->rip = target;
}

void op_ret_near(struct soft_vcpu *v, const struct insn *i)
{
	u64 target = check_target(v, i, stack_peek(v, i, 0, i->opsize));

	stack_adjust(v, i, i->opsize + (s64)(u16)i->imm);
	v->rip = target;
}

void op_jmp_near(struct soft_vcpu *v, const struct insn *i)
{
	v->rip = near_target(v, i);
}
