/*
 * Hardware task switch, SDM 3A chapter 7. Before the commit point everything is read, checked and
 * probed, and faults belong to the old task; behind it they belong to the new one (7.3, steps 1 to
 * 11 and 12 to 13).
 */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/state.h"
#include "engine/soft/vmx/vmx.h"

#define DR7_LOCAL 0x155ull /* L0-L3, LE */

/* Where a TSS keeps what: SDM 3A figures 7-2 and 7-10. */
struct tss_layout {
	u32 size; /* of a field, bytes */
	u32 min_limit;
	u32 ip, flags, regs; /* regs: eight of @size bytes, in encoding order */
	u32 segs;	     /* in encoding order, @size bytes apart */
	u32 seg_count;
	u32 ldt;
};

static const struct tss_layout layout16 = {
    .size = 2,
    .min_limit = 43,
    .ip = 14,
    .flags = 16,
    .regs = 18,
    .segs = 34,
    .seg_count = 4,
    .ldt = 42,
};
static const struct tss_layout layout32 = {
    .size = 4,
    .min_limit = 103,
    .ip = 32,
    .flags = 36,
    .regs = 40,
    .segs = 72,
    .seg_count = 6,
    .ldt = 96,
};

#define TSS32_CR3  28
#define TSS32_TRAP 100

/* What a TSS holds of a task. */
struct task_state {
	u64 cr3, rip, flags, regs[8];
	u16 selector[6];
	u16 ldt;
	bool trap;
};

static const struct tss_layout *layout_of(u32 type)
{
	return type & 8 ? &layout32 : &layout16;
}

/* The exception for a selector that names no usable TSS: IRET blames the old TSS' link. */
static u8 bad_tss(enum task_source source)
{
	return source == TASK_IRET ? EXC_TS : EXC_GP;
}

/* SDM 3A 7.3 steps 1 to 4, table 7-1 rows 1 to 4 */
static void read_new_tss(struct soft_vcpu *v, u16 selector, enum task_source source,
			 struct descriptor *d)
{
	u32 error = SELECTOR_ERROR(selector);
	u32 types = source == TASK_IRET ? BIT(SYS_TSS16_BUSY) | BIT(SYS_TSS_BUSY)
					: BIT(SYS_TSS16) | BIT(SYS_TSS);

	if (selector & SELECTOR_TI || !desc_read(v, selector, d) || desc_is_segment(d) ||
	    !(types >> desc_type(d) & 1))
		raise_error(v, bad_tss(source), error);
	if (!desc_present(d))
		raise_error(v, EXC_NP, error);
	if (desc_limit(d) < layout_of(desc_type(d))->min_limit)
		raise_error(v, EXC_TS, error);
}

static u32 field(u64 base, u32 offset)
{
	return (u32)(base + offset);
}

static void read_state(struct soft_vcpu *v, u64 base, const struct tss_layout *l,
		       struct task_state *t)
{
	u32 size = l->size;

	t->rip = sys_read(v, field(base, l->ip), size);
	t->flags = sys_read(v, field(base, l->flags), size);
	for (u32 n = 0; n < 8; n++)
		t->regs[n] = sys_read(v, field(base, l->regs + n * size), size);
	for (u32 n = 0; n < 6; n++)
		t->selector[n] =
		    n < l->seg_count ? (u16)sys_read(v, field(base, l->segs + n * size), 2) : 0;
	t->ldt = (u16)sys_read(v, field(base, l->ldt), 2);
	t->cr3 = size == 4 ? sys_read(v, field(base, TSS32_CR3), 4) : v->cr3;
	t->trap = size == 4 && sys_read(v, field(base, TSS32_TRAP), 2) & 1;
}

/* Step 5: the pages of the old TSS that will be written. */
static void probe_old_tss(struct soft_vcpu *v, const struct tss_layout *l)
{
	u32 end = l->segs + l->seg_count * l->size;

	if (v->tr.access & SEG_UNUSABLE || v->tr.limit < l->min_limit)
		raise_error(v, EXC_TS, SELECTOR_ERROR(v->tr.selector));
	mem_probe_write(v, field(v->tr.base, l->ip), end - l->ip, MMU_KERNEL, false);
}

/* Steps 7 and 8 */
static void save_state(struct soft_vcpu *v, const struct tss_layout *l, enum task_source source)
{
	u64 base = v->tr.base;
	u32 size = l->size;
	u64 flags = vcpu_rflags(v);

	if (source == TASK_IRET)
		flags &= ~RFLAGS_NT;
	sys_write(v, field(base, l->ip), size, v->next_rip);
	sys_write(v, field(base, l->flags), size, flags);
	for (u32 n = 0; n < 8; n++)
		sys_write(v, field(base, l->regs + n * size), size, v->regs[n]);
	for (u32 n = 0; n < l->seg_count; n++)
		sys_write(v, field(base, l->segs + n * size), 2, v->seg[n].selector);
}

static void write_busy(struct soft_vcpu *v, struct descriptor *d, bool busy)
{
	u64 bit = (u64)SYS_TSS_BUSY_BIT << 40;

	d->raw = busy ? d->raw | bit : d->raw & ~bit;
	sys_write(v, d->linear + 5, 1, d->raw >> 40 & 0xff);
}

/* Steps 6 to 11: memory of both tasks, TR, CR0.TS. */
static void leave_old_task(struct soft_vcpu *v, u16 selector, struct descriptor *new_tss,
			   const struct tss_layout *old, enum task_source source)
{
	struct descriptor old_tss;

	if ((source == TASK_JMP || source == TASK_IRET) && !selector_is_null(v->tr.selector) &&
	    desc_read(v, v->tr.selector, &old_tss))
		write_busy(v, &old_tss, false);
	save_state(v, old, source);
	if (source == TASK_CALL || source == TASK_GATE)
		sys_write(v, field(desc_base(new_tss), 0), 2, v->tr.selector);
	if (source != TASK_IRET)
		write_busy(v, new_tss, true);
	segment_fill(&v->tr, selector, new_tss);
	v->cr0 |= CR0_TS;
	v->dr7 &= ~DR7_LOCAL; /* SDM 3B 17.2.4 */
}

/* Step 12: registers; segment registers get their selectors and stay unusable until checked. */
static void load_state(struct soft_vcpu *v, const struct task_state *t, enum task_source source)
{
	u64 flags = t->flags;

	if (source == TASK_CALL || source == TASK_GATE)
		flags |= RFLAGS_NT;
	v->rip = t->rip;
	for (u32 n = 0; n < 8; n++)
		v->regs[n] = t->regs[n];
	vcpu_set_rflags(v, flags);
	v->keep_rf = (v->rflags_sys & RFLAGS_RF) != 0;
	v->cpl = flags & RFLAGS_VM ? 3 : SELECTOR_RPL(t->selector[SEG_CS]);
	for (u32 n = 0; n < 6; n++)
		segment_fill_null(&v->seg[n], t->selector[n], n == SEG_SS ? v->cpl : 0);
	segment_fill_null(&v->ldtr, t->ldt, 0);
	vcpu_segment_changed(v);
}

/* Step 13, table 7-1 rows 5 to 16: errors are #TS where a plain load says #GP. */
static void load_ldt(struct soft_vcpu *v, u16 selector)
{
	struct descriptor d;

	if (selector_is_null(selector))
		return;
	if (selector & SELECTOR_TI || !desc_read(v, selector, &d) || desc_is_segment(&d) ||
	    desc_type(&d) != SYS_LDT || !desc_present(&d))
		raise_error(v, EXC_TS, SELECTOR_ERROR(selector));
	segment_fill(&v->ldtr, selector, &d);
}

static void load_checked(struct soft_vcpu *v, enum x86_seg seg, u16 selector, struct descriptor *d)
{
	desc_set_accessed(v, d);
	segment_fill(&v->seg[seg], selector, d);
}

static void load_cs(struct soft_vcpu *v, u16 selector)
{
	u32 error = SELECTOR_ERROR(selector);
	struct descriptor d;

	if (selector_is_null(selector) || !desc_read(v, selector, &d) || !desc_is_code(&d))
		raise_error(v, EXC_TS, error);
	if (desc_is_conforming(&d) ? desc_dpl(&d) > v->cpl : desc_dpl(&d) != v->cpl)
		raise_error(v, EXC_TS, error);
	if (!desc_present(&d))
		raise_error(v, EXC_NP, error);
	load_checked(v, SEG_CS, selector, &d);
}

static void load_ss(struct soft_vcpu *v, u16 selector)
{
	u32 error = SELECTOR_ERROR(selector);
	struct descriptor d;

	if (selector_is_null(selector) || !desc_read(v, selector, &d) ||
	    !desc_is_writable_data(&d) || desc_dpl(&d) != v->cpl ||
	    SELECTOR_RPL(selector) != v->cpl)
		raise_error(v, EXC_TS, error);
	if (!desc_present(&d))
		raise_error(v, EXC_SS, error);
	load_checked(v, SEG_SS, selector, &d);
}

static void load_data(struct soft_vcpu *v, enum x86_seg seg, u16 selector)
{
	u32 error = SELECTOR_ERROR(selector);
	struct descriptor d;

	if (selector_is_null(selector))
		return;
	if (!desc_read(v, selector, &d) || !desc_is_readable(&d))
		raise_error(v, EXC_TS, error);
	if (!desc_is_conforming(&d) &&
	    (v->cpl > desc_dpl(&d) || SELECTOR_RPL(selector) > desc_dpl(&d)))
		raise_error(v, EXC_TS, error);
	if (!desc_present(&d))
		raise_error(v, EXC_NP, error);
	load_checked(v, seg, selector, &d);
}

static void load_segments(struct soft_vcpu *v, const struct task_state *t)
{
	load_ldt(v, t->ldt);
	if (is_v86(v)) {
		for (u32 n = 0; n < 6; n++)
			load_segment_real(v, n, t->selector[n]);
		return;
	}
	load_cs(v, t->selector[SEG_CS]);
	load_ss(v, t->selector[SEG_SS]);
	load_data(v, SEG_ES, t->selector[SEG_ES]);
	load_data(v, SEG_DS, t->selector[SEG_DS]);
	load_data(v, SEG_FS, t->selector[SEG_FS]);
	load_data(v, SEG_GS, t->selector[SEG_GS]);
	vcpu_segment_changed(v);
}

void task_switch(struct soft_vcpu *v, u16 selector, enum task_source source, bool has_error,
		 u32 error)
{
	struct descriptor new_tss;
	struct task_state t;
	const struct tss_layout *old = layout_of(SEG_TYPE(v->tr.access));

	read_new_tss(v, selector, source, &new_tss);
	if (vmx_nonroot(v)) {
		/* SDM 3C table 28-2 */
		static const u8 number[] = {
		    [TASK_CALL] = 0, [TASK_IRET] = 1, [TASK_JMP] = 2, [TASK_GATE] = 3};
		vmx_on_task_switch(v, selector, number[source]);
	}
	const struct tss_layout *l = layout_of(desc_type(&new_tss));
	probe_old_tss(v, old);
	if (source == TASK_CALL || source == TASK_GATE)
		mem_probe_write(v, field(desc_base(&new_tss), 0), 2, MMU_KERNEL, false);
	read_state(v, desc_base(&new_tss), l, &t);

	leave_old_task(v, selector, &new_tss, old, source);
	load_state(v, &t, source);
	if (l->size == 4 && v->cr0 & CR0_PG && !set_cr3(v, t.cr3))
		raise_gp(v, 0);
	load_segments(v, &t);
	if (t.trap)
		v->events.debug |= DR6_BT; /* SDM 3B 17.3.1.5 */

	check_code_offset(v, &v->seg[SEG_CS], v->rip);
	if (has_error) {
		struct stack s;
		u64 value = error;
		stack_current(v, &s);
		stack_push(v, &s, &value, 1, l->size);
		stack_commit(v, &s);
	}
	if (v->rflags_sys & RFLAGS_IF)
		vcpu_irq_window(v);
}
