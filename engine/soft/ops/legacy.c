/* XLAT, and the decimal instructions that only 16- and 32-bit code has. */
#include "engine/soft/ops/operand.h"

static u8 get_al(const struct soft_vcpu *v)
{
	return (u8)v->regs[RAX];
}

static u8 get_ah(const struct soft_vcpu *v)
{
	return (u8)(v->regs[RAX] >> 8);
}

static void set_al(struct soft_vcpu *v, u8 value)
{
	v->regs[RAX] = merge(v->regs[RAX], value, 1);
}

static void set_ax(struct soft_vcpu *v, u8 ah, u8 al)
{
	v->regs[RAX] = merge(v->regs[RAX], (u64)ah << 8 | al, 2);
}

/** SF, ZF and PF of a byte. */
static u64 result_flags(u8 value)
{
	u64 flags = value & 0x80 ? RFLAGS_SF : 0;

	if (!value)
		flags |= RFLAGS_ZF;
	if (!(__builtin_popcount(value) & 1))
		flags |= RFLAGS_PF;
	return flags;
}

void op_xlat(struct soft_vcpu *v, const struct insn *i)
{
	u64 offset = (v->regs[RBX] + get_al(v)) & size_mask(i->addrsize);

	set_al(v, (u8)mem_read(v, (enum x86_seg)i->seg, offset, 1));
}

/* AAA and AAS, SDM 2A. OF, SF, ZF and PF are undefined: processors clear OF and let the others
 * follow AL. */
static void ascii_adjust(struct soft_vcpu *v, s32 sign)
{
	u64 flags = vcpu_rflags(v);
	u16 ax = (u16)v->regs[RAX];
	bool adjust = (ax & 0xf) > 9 || (flags & RFLAGS_AF);

	if (adjust)
		ax = (u16)(ax + sign * 0x106);
	set_ax(v, (u8)(ax >> 8), ax & 0xf);
	vcpu_set_arith(v, result_flags(ax & 0xf) | (adjust ? RFLAGS_AF | RFLAGS_CF : 0));
}

void op_aaa(struct soft_vcpu *v, const struct insn *i)
{
	ascii_adjust(v, 1);
}

void op_aas(struct soft_vcpu *v, const struct insn *i)
{
	ascii_adjust(v, -1);
}

/* SDM 2A DAA. OF is undefined: processors clear it. */
void op_daa(struct soft_vcpu *v, const struct insn *i)
{
	u64 old = vcpu_rflags(v), flags = 0;
	u8 old_al = get_al(v), al = old_al;

	if ((al & 0xf) > 9 || (old & RFLAGS_AF)) {
		al += 6;
		flags |= RFLAGS_AF;
	}
	if (old_al > 0x99 || (old & RFLAGS_CF)) {
		al += 0x60;
		flags |= RFLAGS_CF;
	}
	set_al(v, al);
	vcpu_set_arith(v, flags | result_flags(al));
}

/* SDM 2A DAS: unlike DAA, a borrow of the low digit alone sets CF too. */
void op_das(struct soft_vcpu *v, const struct insn *i)
{
	u64 old = vcpu_rflags(v), flags = 0;
	u8 old_al = get_al(v), al = old_al;

	if ((al & 0xf) > 9 || (old & RFLAGS_AF)) {
		flags |= RFLAGS_AF;
		if (al < 6 || (old & RFLAGS_CF))
			flags |= RFLAGS_CF;
		al -= 6;
	}
	if (old_al > 0x99 || (old & RFLAGS_CF)) {
		al -= 0x60;
		flags |= RFLAGS_CF;
	}
	set_al(v, al);
	vcpu_set_arith(v, flags | result_flags(al));
}

void op_aam(struct soft_vcpu *v, const struct insn *i)
{
	u8 base = (u8)i->imm, al = get_al(v);

	if (!base)
		raise(v, EXC_DE);
	set_ax(v, al / base, al % base);
	vcpu_set_arith(v, result_flags(al % base));
}

void op_aad(struct soft_vcpu *v, const struct insn *i)
{
	u8 old = get_al(v), tens = (u8)(get_ah(v) * (u8)i->imm), al = (u8)(old + tens);
	u64 flags = result_flags(al);

	/* OF, AF and CF are undefined: processors leave those of the addition. */
	if (al < old)
		flags |= RFLAGS_CF;
	if ((al & 0xf) < (old & 0xf))
		flags |= RFLAGS_AF;
	if ((al ^ old) & (al ^ tens) & 0x80)
		flags |= RFLAGS_OF;
	set_ax(v, 0, al);
	vcpu_set_arith(v, flags);
}

/* AL = CF ? FFH : 0; not in Intel's manual, in AMD's as reserved, and in every processor. */
void op_salc(struct soft_vcpu *v, const struct insn *i)
{
	set_al(v, vcpu_rflags(v) & RFLAGS_CF ? 0xff : 0);
}
