/* What the files of ops/ share: truncation to operand, address and stack sizes. Inside. */
#ifndef GUISE_SOFT_OPS_OPERAND_H
#define GUISE_SOFT_OPS_OPERAND_H

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/translate/insn.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"

/** All ones in the low @size bytes, 1 to 8. */
static inline u64 size_mask(u32 size)
{
	return ~0ull >> (64 - 8 * size);
}

/** @base with its low @size bytes replaced, by the rules of register writes: 4 bytes clear the
 * rest. */
static inline u64 merge(u64 base, u64 value, u32 size)
{
	if (size >= 4)
		return value & size_mask(size);
	return (base & ~size_mask(size)) | (value & size_mask(size));
}

static inline bool mode_is_64bit(const struct soft_vcpu *v)
{
	return (v->mode & 3) == MODE_CODE64;
}

/** ModRM.reg as an opcode extension. */
static inline u32 modrm_extension(const struct insn *i)
{
	return (i->modrm >> 3) & 7;
}

/** Offset of the top of the stack, by the stack's address size. */
static inline u64 stack_pointer(const struct soft_vcpu *v, const struct insn *i)
{
	return v->regs[RSP] & size_mask(i->stacksize);
}

/** Bytes or words below @sp, with the stack size's wrap. */
static inline u64 stack_below(const struct insn *i, u64 sp, u64 bytes)
{
	return (sp - bytes) & size_mask(i->stacksize);
}

/** Checks that a push of @size bytes at @offset would not fault. */
void stack_probe(struct soft_vcpu *v, u64 offset, u32 size);

/** A flag that the instruction wants in RFLAGS' arithmetic bits. */
static inline void set_arith_flag(struct soft_vcpu *v, u64 flag, bool on)
{
	u64 flags = vcpu_rflags(v);

	vcpu_set_arith(v, on ? flags | flag : flags & ~flag);
}

#endif
