/* The system flags: CLI, STI, PUSHF, POPF (SDM 2A, 2B; 3A 20.3 for virtual-8086 mode); and HLT. */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

/* What CLI and STI may touch: SDM 2A CLI, table 3-7; 2B STI, table 4-19. */
enum if_right { IF_REAL, IF_VIRTUAL, IF_NONE };

static enum if_right if_right(const struct soft_vcpu *v)
{
	if (!is_protected(v))
		return IF_REAL;
	if (is_v86(v)) {
		if (iopl(v) == 3)
			return IF_REAL;
		return v->cr4 & CR4_VME ? IF_VIRTUAL : IF_NONE;
	}
	if (v->cpl <= iopl(v))
		return IF_REAL;
	return v->cpl == 3 && v->cr4 & CR4_PVI ? IF_VIRTUAL : IF_NONE;
}

void op_cli(struct soft_vcpu *v, const struct insn *i)
{
	switch (if_right(v)) {
	case IF_REAL:
		v->rflags_sys &= ~RFLAGS_IF;
		break;
	case IF_VIRTUAL:
		v->rflags_sys &= ~RFLAGS_VIF;
		break;
	case IF_NONE:
		raise_gp(v, 0);
	}
}

void op_sti(struct soft_vcpu *v, const struct insn *i)
{
	switch (if_right(v)) {
	case IF_REAL:
		/* SDM 2B STI: interrupts stay off for one instruction if they were off. */
		if (v->rflags_sys & RFLAGS_IF)
			return;
		v->rflags_sys |= RFLAGS_IF;
		vcpu_irq_window(v); /* before the shadow, which would hide what waits */
		v->int_shadow = 1;
		break;
	case IF_VIRTUAL:
		if (v->rflags_sys & RFLAGS_VIP)
			raise_gp(v, 0);
		v->rflags_sys |= RFLAGS_VIF;
		break;
	case IF_NONE:
		raise_gp(v, 0);
	}
}

/* STI as the last instruction of its block, so that v->int_shadow tells of its shadow. */
void op_sti_lone(struct soft_vcpu *v, const struct insn *i)
{
	op_sti(v, i);
	v->rip = v->next_rip;
}

void op_pushf(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2B PUSHF: VM and RF read as 0. */
	u64 image = vcpu_rflags(v) & ~(RFLAGS_VM | RFLAGS_RF);

	if (is_v86(v) && iopl(v) < 3) {
		if (!(v->cr4 & CR4_VME) || i->opsize != 2)
			raise_gp(v, 0);
		image = (image & ~RFLAGS_IF) | RFLAGS_IOPL;
		if (image & RFLAGS_VIF)
			image |= RFLAGS_IF;
	}
	push(v, i, i->opsize, image);
}

/* Bits that POPF may change, SDM 2B POPF, table 4-15. */
static u64 popf_mask(const struct soft_vcpu *v)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;

	if (!is_protected(v) || v->cpl == 0)
		return mask | RFLAGS_IF | RFLAGS_IOPL;
	return v->cpl <= iopl(v) ? mask | RFLAGS_IF : mask;
}

void op_popf(struct soft_vcpu *v, const struct insn *i)
{
	u64 old = vcpu_rflags(v);
	u64 mask = popf_mask(v);
	u64 image = stack_peek(v, i, 0, i->opsize);

	if (is_v86(v) && iopl(v) < 3) {
		/* With VME the 16-bit form works on VIF (SDM 3A 20.3.4). */
		if (!(v->cr4 & CR4_VME) || i->opsize != 2)
			raise_gp(v, 0);
		if ((old & RFLAGS_VIP && image & RFLAGS_IF) || image & RFLAGS_TF)
			raise_gp(v, 0);
		if (image & RFLAGS_IF)
			image |= RFLAGS_VIF;
		mask = (mask & 0xffff) | RFLAGS_VIF;
	} else if (i->opsize == 2) {
		mask &= 0xffff;
	}

	stack_adjust(v, i, i->opsize);
	vcpu_set_rflags(v, ((old & ~mask) | (image & mask)) & ~RFLAGS_RF);
	v->rip = v->next_rip;
	if ((old ^ v->rflags_sys) & (RFLAGS_TF | RFLAGS_AC))
		vcpu_update_mode(v);
	if (~old & v->rflags_sys & RFLAGS_IF)
		vcpu_irq_window(v);
}

void op_hlt(struct soft_vcpu *v, const struct insn *i)
{
	if (v->cpl != 0)
		raise_gp(v, 0);
	if (vmx_nonroot(v)) {
		vmx_on_hlt(v, i);
		v->vmx.activity = ACTIVITY_HLT;
	}
	v->mp_state = KVM_MP_STATE_HALTED;
	v->rip = v->next_rip;
	vcpu_attention(v, ATTENTION_IRQ);
}
