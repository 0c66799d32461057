/* The checks that begin most system instructions. Inside. */
#ifndef GUISE_SOFT_PRIV_H
#define GUISE_SOFT_PRIV_H

#include "engine/soft/system/exception.h"
#include "engine/soft/translate/insn.h"
#include "engine/soft/translate/mode.h"

/** #GP(0) unless CPL is 0. In virtual-8086 mode CPL is 3 (SDM 3A 5.9). */
static inline void require_cpl0(struct soft_vcpu *v)
{
	if (v->cpl != 0)
		raise_gp(v, 0);
}

/** Whether the vCPU is in the 64-bit sub-mode of IA-32e mode (EFER.LMA and CS.L). */
static inline bool in_64bit(const struct soft_vcpu *v)
{
	return (v->msr.efer & EFER_LMA) && (v->seg[SEG_CS].access & SEG_L);
}

/** ModRM.reg as an opcode extension. */
static inline u32 modrm_reg(const struct insn *i)
{
	return (i->modrm >> 3) & 7;
}

/** EDX:EAX as one number. */
static inline u64 edx_eax(const struct soft_vcpu *v)
{
	return (u64)(u32)v->regs[RDX] << 32 | (u32)v->regs[RAX];
}

static inline void set_edx_eax(struct soft_vcpu *v, u64 value)
{
	v->regs[RAX] = (u32)value;
	v->regs[RDX] = value >> 32;
}

#endif
