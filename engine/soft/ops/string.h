/* What string and string I/O instructions share. Inside. */
#ifndef GUISE_SOFT_OPS_STRING_H
#define GUISE_SOFT_OPS_STRING_H

#include "engine/soft/ops/operand.h"

#define STRING_SOURCE	   1 /* rSI */
#define STRING_DESTINATION 2 /* rDI */

/** rSI, rDI or rCX by address size. */
static inline u64 string_offset(const struct soft_vcpu *v, const struct insn *i, enum x86_reg reg)
{
	return v->regs[reg] & size_mask(i->addrsize);
}

/** Whether a repeat prefix has nothing left to repeat. */
static inline bool string_is_done(const struct soft_vcpu *v, const struct insn *i)
{
	return i->rep && !string_offset(v, i, RCX);
}

/**
 * With a repeat prefix and 32-bit addresses processors zero-extend rCX, and the pointers named in
 * @which, before the first element and even if there is none: MOVS and STOS both pointers they
 * have, the others none.
 */
static inline void string_begin(struct soft_vcpu *v, const struct insn *i, u32 which)
{
	if (!i->rep || i->addrsize != 4)
		return;
	v->regs[RCX] = (u32)v->regs[RCX];
	if (which & STRING_SOURCE)
		v->regs[RSI] = (u32)v->regs[RSI];
	if (which & STRING_DESTINATION)
		v->regs[RDI] = (u32)v->regs[RDI];
}

/** Moves the pointers named in @which by @count elements of @size bytes, and counts them in rCX. */
static inline void string_advance(struct soft_vcpu *v, const struct insn *i, u64 count, u32 size,
				  u32 which)
{
	u64 delta = v->rflags_sys & RFLAGS_DF ? 0 - count * size : count * size;

	if (which & STRING_SOURCE)
		v->regs[RSI] = merge(v->regs[RSI], v->regs[RSI] + delta, i->addrsize);
	if (which & STRING_DESTINATION)
		v->regs[RDI] = merge(v->regs[RDI], v->regs[RDI] + delta, i->addrsize);
	if (i->rep)
		v->regs[RCX] = merge(v->regs[RCX], v->regs[RCX] - count, i->addrsize);
}

/**
 * A string instruction is left with more to do: v->rip stays. What comes in between pushes RF set,
 * and breakpoints on the instruction do not hit again (SDM 3B 17.3.1.1).
 */
static inline void string_pause(struct soft_vcpu *v)
{
	v->rflags_sys |= RFLAGS_RF;
	v->keep_rf = 1;
}

/** Sets v->rip after a part of a string instruction: to itself (where it is) while more is to do.
 */
static inline void string_next(struct soft_vcpu *v, const struct insn *i)
{
	if (!i->rep || string_is_done(v, i))
		v->rip = v->next_rip;
	else
		string_pause(v);
}

#endif
