/* Operands of decoded instructions: registers, ModRM memory, the stack. */
#include "engine/soft/ops/operand.h"

u64 insn_ea(const struct soft_vcpu *v, const struct insn *i)
{
	u64 ea = (u64)i->disp;

	if (!i->rip_relative) {
		if (i->base != REG_NONE)
			ea += v->regs[(u8)i->base & 15];
		if (i->index != REG_NONE)
			ea += v->regs[(u8)i->index & 15] * i->scale;
	}
	return ea & size_mask(i->addrsize);
}

/** AH, CH, DH, BH: byte registers 4 to 7 without REX. SDM 2A 2.2.1.2, table 3-1. */
static bool is_high_byte(const struct insn *i, u8 reg, u32 size)
{
	return size == 1 && !i->rex && reg >= 4 && reg < 8;
}

u64 reg_read(const struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size)
{
	if (is_high_byte(i, reg, size))
		return (v->regs[reg & 3] >> 8) & 0xff;
	return v->regs[reg & 15] & size_mask(size);
}

void reg_write(struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size, u64 value)
{
	if (is_high_byte(i, reg, size)) {
		u64 *whole = &v->regs[reg & 3];

		*whole = (*whole & ~0xff00ull) | (value & 0xff) << 8;
		return;
	}
	v->regs[reg & 15] = merge(v->regs[reg & 15], value, size);
}

u64 rm_read(struct soft_vcpu *v, const struct insn *i, u32 size)
{
	if (i->is_mem)
		return mem_read(v, (enum x86_seg)i->seg, insn_ea(v, i), size);
	return reg_read(v, i, i->rm, size);
}

void rm_write(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value)
{
	if (i->is_mem)
		mem_write(v, (enum x86_seg)i->seg, insn_ea(v, i), size, value);
	else
		reg_write(v, i, i->rm, size, value);
}

void stack_adjust(struct soft_vcpu *v, const struct insn *i, s64 delta)
{
	v->regs[RSP] = merge(v->regs[RSP], v->regs[RSP] + (u64)delta, i->stacksize);
}

u64 stack_peek(struct soft_vcpu *v, const struct insn *i, u64 offset, u32 size)
{
	return mem_read(v, SEG_SS, (v->regs[RSP] + offset) & size_mask(i->stacksize), size);
}

void push(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value)
{
	mem_write(v, SEG_SS, stack_below(i, stack_pointer(v, i), size), size, value);
	stack_adjust(v, i, -(s64)size);
}

u64 pop(struct soft_vcpu *v, const struct insn *i, u32 size)
{
	u64 value = stack_peek(v, i, 0, size);

	stack_adjust(v, i, size);
	return value;
}

void stack_probe(struct soft_vcpu *v, u64 offset, u32 size)
{
	u64 linear = seg_linear(v, SEG_SS, offset, size, ACCESS_WRITE);

	mem_probe_write(v, linear, size, v->mmu_index, true);
}
