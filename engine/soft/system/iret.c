/* IRET, IRETD, IRETQ: SDM 2A IRET, the pseudocode's parts by name. */
#include "engine/soft/system/far.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

#define FLAGS_USER  (RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define DR7_ENABLES 0xffull

/*
 * Takes the bits @mask of @image into RFLAGS. RF holds off instruction breakpoints for one
 * instruction; with none enabled it is dropped at once, so that nobody has to clear it after every
 * instruction.
 */
static void load_flags(struct soft_vcpu *v, u64 image, u64 mask)
{
	u64 old = vcpu_rflags(v);

	if (!(v->dr7 & DR7_ENABLES))
		image &= ~RFLAGS_RF;
	vcpu_set_rflags(v, (old & ~mask) | (image & mask));
	v->keep_rf = (v->rflags_sys & RFLAGS_RF) != 0;
	if (~old & v->rflags_sys & RFLAGS_IF)
		vcpu_irq_window(v);
}

/*
 * SDM 3A 6.7.1: IRET ends the blocking of NMIs, even if it faults (3C 26.3). Of those that came
 * meanwhile one was latched.
 */
static void unblock_nmi(struct soft_vcpu *v)
{
	u32 pending = atomic_load_explicit(&v->events.nmi, memory_order_relaxed);

	if (vmx_nonroot(v)) {
		/* SDM 3C 26.3: not where NMIs leave and are not virtual. */
		if (vmx_pin(v, PIN_NMI) && !vmx_pin(v, PIN_VIRTUAL_NMIS))
			return;
		v->vmx.nmi_unblocked = v->events.nmi_masked;
		if (vmx_cpu(v, CPU_NMI_WINDOW))
			vcpu_attention(v, ATTENTION_IRQ);
	}

	while (v->events.nmi_masked && pending > 1 &&
	       !atomic_compare_exchange_weak(&v->events.nmi, &pending, 1))
		;
	v->events.nmi_masked = false;
	if (pending)
		vcpu_attention(v, ATTENTION_IRQ);
}

/* REAL-ADDRESS-MODE, and RETURN-FROM-VIRTUAL-8086-MODE with IOPL 3 */
static void iret_8086(struct soft_vcpu *v, const struct insn *i, u64 mask)
{
	u32 size = i->opsize;
	u64 rip = stack_peek(v, i, 0, size);
	u16 selector = (u16)stack_peek(v, i, size, 2);
	u64 image = stack_peek(v, i, 2 * size, size);

	if (rip > v->seg[SEG_CS].limit)
		raise_gp(v, 0);
	if (size == 2)
		mask &= 0xffff;
	stack_adjust(v, i, 3 * size);
	load_flags(v, image, mask);
	v->rip = rip;
	load_segment_real(v, SEG_CS, selector);
}

/* SDM 3A 20.3.4: with VME and IOPL below 3, IF of the image is VIF. 16-bit form only. */
static void iret_vme(struct soft_vcpu *v, const struct insn *i)
{
	u64 rip = stack_peek(v, i, 0, 2);
	u16 selector = (u16)stack_peek(v, i, 2, 2);
	u64 image = stack_peek(v, i, 4, 2);

	if ((v->rflags_sys & RFLAGS_VIP && image & RFLAGS_IF) || image & RFLAGS_TF)
		raise_gp(v, 0);
	if (rip > v->seg[SEG_CS].limit)
		raise_gp(v, 0);
	if (image & RFLAGS_IF)
		image |= RFLAGS_VIF;
	stack_adjust(v, i, 6);
	load_flags(v, image, FLAGS_USER | RFLAGS_VIF);
	v->rip = rip;
	load_segment_real(v, SEG_CS, selector);
}

static void iret_v86(struct soft_vcpu *v, const struct insn *i)
{
	if (iopl(v) == 3) {
		unblock_nmi(v);
		iret_8086(v, i, FLAGS_USER | RFLAGS_IF | RFLAGS_RF | RFLAGS_AC | RFLAGS_ID);
	} else if (v->cr4 & CR4_VME && i->opsize == 2) {
		unblock_nmi(v);
		iret_vme(v, i);
	} else {
		raise_gp(v, 0);
	}
}

/* RETURN-TO-VIRTUAL-8086-MODE: EIP CS EFLAGS ESP SS ES DS FS GS, 36 bytes. */
static void iret_to_v86(struct soft_vcpu *v, const struct insn *i, u64 image)
{
	static const u8 order[] = {SEG_CS, SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	static const u8 offset[] = {4, 16, 20, 24, 28, 32};
	u16 selectors[ARRAY_SIZE(order)];
	u64 rip = stack_peek(v, i, 0, 4);
	u64 rsp = stack_peek(v, i, 12, 4);

	for (u32 n = 0; n < ARRAY_SIZE(order); n++)
		selectors[n] = (u16)stack_peek(v, i, offset[n], 2);
	if (rip > 0xffff)
		raise_gp(v, 0);

	v->regs[RSP] = rsp;
	v->cpl = 3;
	load_flags(v, image,
		   FLAGS_USER | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_RF | RFLAGS_VM | RFLAGS_AC |
		       RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID);
	v->rip = rip;
	for (u32 n = 0; n < ARRAY_SIZE(order); n++)
		load_segment_real(v, order[n], selectors[n]);
}

/* Which flags a protected-mode IRET may change: by operand size, and by CPL against IOPL. */
static u64 protected_mask(const struct soft_vcpu *v, const struct insn *i)
{
	u64 mask = FLAGS_USER;

	if (v->cpl <= iopl(v))
		mask |= RFLAGS_IF;
	if (v->cpl == 0)
		mask |= RFLAGS_IOPL;
	if (i->opsize != 2) {
		mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
		if (v->cpl == 0)
			mask |= RFLAGS_VIF | RFLAGS_VIP;
	}
	return mask;
}

/* PROTECTED-MODE-RETURN, and the return of 64-bit mode, which always pops SS:RSP. */
static void iret_protected(struct soft_vcpu *v, const struct insn *i)
{
	u32 size = i->opsize;
	bool code64 = is_code64(v);
	struct far_return r;
	u64 image;

	if (code64 && size == 8) {
		u64 frame[5];
		mem_read_buf(v, SEG_SS, v->regs[RSP], frame, sizeof(frame));
		r.rip = frame[0];
		r.cs_selector = (u16)frame[1];
		image = frame[2];
		r.rsp = frame[3];
		r.ss_selector = (u16)frame[4];
	} else {
		r.rip = stack_peek(v, i, 0, size);
		r.cs_selector = (u16)stack_peek(v, i, size, size);
		image = stack_peek(v, i, 2 * size, size);
	}
	if (image & RFLAGS_VM && size == 4 && v->cpl == 0 && !is_long(v)) {
		iret_to_v86(v, i, image);
		return;
	}

	far_return_check_code(v, &r);
	bool outer = SELECTOR_RPL(r.cs_selector) > v->cpl || code64;
	if (outer) {
		if (!(code64 && size == 8)) {
			r.rsp = stack_peek(v, i, 3 * size, size);
			r.ss_selector = (u16)stack_peek(v, i, 4 * size, size);
		}
		far_return_check_stack(v, &r);
	}
	check_code_offset(v, &r.cs, r.rip);

	u64 mask = protected_mask(v, i);
	far_return_commit(v, &r, outer, 0);
	if (!outer)
		stack_adjust(v, i, 3 * size);
	u64 old = v->rflags_sys;
	load_flags(v, image, mask);
	if ((old ^ v->rflags_sys) & (RFLAGS_TF | RFLAGS_AC))
		vcpu_update_mode(v);
}

/* TASK-RETURN: NT says that the TSS links back to another task (SDM 3A 7.4). */
static void iret_task(struct soft_vcpu *v)
{
	if (is_long(v))
		raise_gp(v, 0);
	if (v->tr.access & SEG_UNUSABLE || v->tr.limit < 1)
		raise_error(v, EXC_TS, SELECTOR_ERROR(v->tr.selector));
	u16 link = (u16)sys_read(v, (u32)v->tr.base, 2);
	unblock_nmi(v);
	task_switch(v, link, TASK_IRET, false, 0);
}

void op_iret(struct soft_vcpu *v, const struct insn *i)
{
	if (!is_protected(v)) {
		/* REAL-ADDRESS-MODE: all but VM, VIF, VIP. */
		unblock_nmi(v);
		iret_8086(v, i,
			  FLAGS_USER | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_RF | RFLAGS_AC | RFLAGS_ID);
	} else if (is_v86(v)) {
		iret_v86(v, i);
	} else if (v->rflags_sys & RFLAGS_NT) {
		iret_task(v);
	} else {
		unblock_nmi(v);
		iret_protected(v, i);
	}
	v->vmx.nmi_unblocked = false;
}
