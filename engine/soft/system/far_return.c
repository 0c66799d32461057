/* Far returns, the part common to RET and IRET: SDM 2B RET, 2A IRET, 3A 5.8.6. */
#include "engine/soft/system/far.h"

#include "engine/soft/system/state.h"

void far_return_check_code(struct soft_vcpu *v, struct far_return *r)
{
	u16 selector = r->cs_selector;
	u32 rpl = SELECTOR_RPL(selector);
	u32 error = SELECTOR_ERROR(selector);

	desc_read_code(v, selector, &r->code);
	u32 dpl = desc_dpl(&r->code);
	if (rpl < v->cpl || (desc_is_conforming(&r->code) ? dpl > rpl : dpl != rpl))
		raise_gp(v, error);
	if (!desc_present(&r->code))
		raise_error(v, EXC_NP, error);
	segment_fill(&r->cs, selector, &r->code);
	r->cs.access |= SEG_TYPE_ACCESSED;
}

void far_return_check_stack(struct soft_vcpu *v, struct far_return *r)
{
	u16 selector = r->ss_selector;
	u32 cpl = SELECTOR_RPL(r->cs_selector);
	u32 error = SELECTOR_ERROR(selector);

	if (selector_is_null(selector)) {
		/* Allowed for 64-bit code of levels 0 to 2, with RPL = CPL. */
		if (!segment_is_code64(v, &r->cs) || cpl == 3 || SELECTOR_RPL(selector) != cpl)
			raise_gp(v, 0);
		r->stack = (struct descriptor){.raw = (u64)SEG_TYPE_ACCESSED << 40};
		segment_fill_null(&r->ss, selector, cpl);
		return;
	}
	if (!desc_read(v, selector, &r->stack) || SELECTOR_RPL(selector) != cpl ||
	    desc_dpl(&r->stack) != cpl || !desc_is_writable_data(&r->stack))
		raise_gp(v, error);
	if (!desc_present(&r->stack))
		raise_error(v, EXC_SS, error);
	segment_fill(&r->ss, selector, &r->stack);
	r->ss.access |= SEG_TYPE_ACCESSED;
}

/* The new stack pointer: all of RSP for 64-bit code, else what SS.B makes of it (SDM 2A IRET). */
static void load_stack_pointer(struct soft_vcpu *v, const struct far_return *r, u64 rsp)
{
	if (segment_is_code64(v, &r->cs))
		v->regs[RSP] = rsp;
	else if (r->ss.access & SEG_DB)
		v->regs[RSP] = (u32)rsp;
	else
		v->regs[RSP] = (v->regs[RSP] & ~0xffffull) | (rsp & 0xffff);
}

void far_return_commit(struct soft_vcpu *v, struct far_return *r, bool outer, u32 rsp_delta)
{
	u32 cpl = SELECTOR_RPL(r->cs_selector);

	desc_set_accessed(v, &r->code);
	if (outer) {
		desc_set_accessed(v, &r->stack);
		load_stack_pointer(v, r, r->rsp + rsp_delta);
		v->seg[SEG_SS] = r->ss;
		if (cpl > v->cpl)
			segments_drop_privileged(v, cpl);
	}
	v->seg[SEG_CS] = r->cs;
	v->cpl = (u8)cpl;
	v->rip = r->rip;
	vcpu_segment_changed(v);
}
