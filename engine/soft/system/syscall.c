/* SYSCALL, SYSRET, SYSENTER, SYSEXIT as Intel processors do them: SDM 2B. */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"

/* Fixed flat segments: base 0, limit 4 GiB, accessed, present. */
static void load_flat(struct soft_vcpu *v, u16 cs_selector, u16 ss_selector, u32 cpl, bool code64)
{
	u32 common = SEG_S | SEG_P | SEG_G | cpl << 5;

	v->seg[SEG_CS] = (struct segment){
	    .limit = 0xffffffff,
	    .access = common | SEG_TYPE_CODE | SEG_TYPE_WRITE | SEG_TYPE_ACCESSED |
		      (code64 ? SEG_L : SEG_DB),
	    .selector = cs_selector,
	};
	v->seg[SEG_SS] = (struct segment){
	    .limit = 0xffffffff,
	    .access = common | SEG_TYPE_WRITE | SEG_TYPE_ACCESSED | SEG_DB,
	    .selector = ss_selector,
	};
	v->cpl = (u8)cpl;
}

/* Both only in 64-bit mode (AMD has them in compatibility mode too), with EFER.SCE. */
static void need_syscall(struct soft_vcpu *v)
{
	if (!is_code64(v) || !(v->msr.efer & EFER_SCE))
		raise_ud(v);
}

void op_syscall(struct soft_vcpu *v, const struct insn *i)
{
	u16 selector = (u16)(v->msr.star >> 32) & 0xfffc;
	u64 flags = vcpu_rflags(v) & ~RFLAGS_RF;

	need_syscall(v);
	v->regs[RCX] = v->next_rip;
	v->regs[R11] = flags;
	v->rip = v->msr.lstar;
	vcpu_set_rflags(v, flags & ~v->msr.sfmask);
	if (!(v->rflags_sys & RFLAGS_TF))
		v->step_tf = 0; /* TF is looked at behind SYSCALL: kernels mask it */
	load_flat(v, selector, (u16)(selector + 8), 0, true);
	vcpu_update_mode(v);
}

void op_sysret(struct soft_vcpu *v, const struct insn *i)
{
	bool code64 = i->opsize == 8;
	u16 base = (u16)(v->msr.star >> 48);
	u16 selector = (code64 ? base + 16 : base) | 3;
	u64 old = v->rflags_sys;

	need_syscall(v);
	if (v->cpl != 0)
		raise_gp(v, 0);
	/* Checked while still at CPL 0 with the user's stack: what kernels must avoid. */
	if (code64 && !is_canonical(v->regs[RCX]))
		raise_gp(v, 0);
	v->rip = code64 ? v->regs[RCX] : (u32)v->regs[RCX];
	vcpu_set_rflags(v, (v->regs[R11] & 0x3c7fd7) | 2);
	load_flat(v, selector, (u16)(base + 8) | 3, 3, code64);
	vcpu_update_mode(v);
	if (~old & v->rflags_sys & RFLAGS_IF)
		vcpu_irq_window(v);
}

void op_sysenter(struct soft_vcpu *v, const struct insn *i)
{
	u16 selector = (u16)v->msr.sysenter_cs & 0xfffc;
	bool code64 = is_long(v);

	if (!is_protected(v) || !selector)
		raise_gp(v, 0);
	v->rflags_sys &= ~(RFLAGS_VM | RFLAGS_IF);
	v->regs[RSP] = code64 ? v->msr.sysenter_esp : (u32)v->msr.sysenter_esp;
	v->rip = code64 ? v->msr.sysenter_eip : (u32)v->msr.sysenter_eip;
	load_flat(v, selector, (u16)(selector + 8), 0, code64);
	vcpu_update_mode(v);
}

void op_sysexit(struct soft_vcpu *v, const struct insn *i)
{
	u16 base = (u16)v->msr.sysenter_cs & 0xfffc;
	bool code64 = i->opsize == 8;
	u16 selector = (u16)(base + (code64 ? 32 : 16)) | 3;

	if (!is_protected(v) || !base || v->cpl != 0)
		raise_gp(v, 0);
	if (code64 && (!is_canonical(v->regs[RCX]) || !is_canonical(v->regs[RDX])))
		raise_gp(v, 0);
	v->regs[RSP] = code64 ? v->regs[RCX] : (u32)v->regs[RCX];
	v->rip = code64 ? v->regs[RDX] : (u32)v->regs[RDX];
	load_flat(v, selector, (u16)(selector + 8), 3, code64);
	vcpu_update_mode(v);
}
