/* Loading and reading segment registers: MOV, POP, PUSH, Lxx (SDM 2A, 2B; 3A 3.4, 5.4 to 5.6). */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/far.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"

void vcpu_segment_changed(struct soft_vcpu *v)
{
	v->seg_base_fs = v->seg[SEG_FS].base;
	v->seg_base_gs = v->seg[SEG_GS].base;
	vcpu_update_mode(v);
}

/*
 * SDM 3A 20.1.1, 20.2.1. Real mode leaves limit, D and G as they are: programs that set a 4 GiB
 * limit in protected mode and come back count on it.
 */
void load_segment_real(struct soft_vcpu *v, enum x86_seg seg, u16 selector)
{
	struct segment *s = &v->seg[seg];
	u32 data = SEG_P | SEG_S | SEG_TYPE_WRITE | SEG_TYPE_ACCESSED;

	s->selector = selector;
	s->base = (u64)selector << 4;
	if (is_v86(v)) {
		s->limit = 0xffff;
		s->access = data | 3 << 5;
	} else {
		if (s->access & SEG_UNUSABLE)
			s->limit = 0xffff;
		s->access = (s->access & (SEG_AVL | SEG_DB | SEG_G)) | data;
	}
	vcpu_segment_changed(v);
}

/* SDM 2B MOV, "SS is loaded" */
static void check_stack_segment(struct soft_vcpu *v, u16 selector, struct descriptor *d)
{
	u32 error = SELECTOR_ERROR(selector);

	if (!desc_read(v, selector, d))
		raise_gp(v, error);
	if (SELECTOR_RPL(selector) != v->cpl || desc_dpl(d) != v->cpl || !desc_is_writable_data(d))
		raise_gp(v, error);
	if (!desc_present(d))
		raise_error(v, EXC_SS, error);
}

/* SDM 2B MOV, "DS, ES, FS, or GS is loaded" */
static void check_data_segment(struct soft_vcpu *v, u16 selector, struct descriptor *d)
{
	u32 error = SELECTOR_ERROR(selector);

	if (!desc_read(v, selector, d) || !desc_is_readable(d))
		raise_gp(v, error);
	if (!desc_is_conforming(d) &&
	    (SELECTOR_RPL(selector) > desc_dpl(d) || v->cpl > desc_dpl(d)))
		raise_gp(v, error);
	if (!desc_present(d))
		raise_error(v, EXC_NP, error);
}

void load_segment(struct soft_vcpu *v, enum x86_seg seg, u16 selector)
{
	struct descriptor d;

	if (!has_descriptors(v)) {
		load_segment_real(v, seg, selector);
		return;
	}
	if (selector_is_null(selector)) {
		/* A null SS is for 64-bit code of levels 0 to 2 alone, with RPL = CPL. */
		if (seg == SEG_SS &&
		    (!is_code64(v) || v->cpl == 3 || SELECTOR_RPL(selector) != v->cpl))
			raise_gp(v, 0);
		segment_fill_null(&v->seg[seg], selector, seg == SEG_SS ? v->cpl : 0);
	} else {
		if (seg == SEG_SS)
			check_stack_segment(v, selector, &d);
		else
			check_data_segment(v, selector, &d);
		desc_set_accessed(v, &d);
		segment_fill(&v->seg[seg], selector, &d);
	}
	vcpu_segment_changed(v);
}

/* MOV from Sreg and SLDT, STR: memory gets a word; a register of 4 or 8 bytes is zero-extended. */
static void store_selector(struct soft_vcpu *v, const struct insn *i, u16 selector)
{
	rm_write(v, i, i->is_mem ? 2 : i->opsize, selector);
}

void op_mov_from_seg(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2B MOV: six registers; REX.R is ignored. */
	if ((i->reg & 7) > SEG_GS)
		raise_ud(v);
	store_selector(v, i, v->seg[i->reg & 7].selector);
}

void op_mov_to_seg(struct soft_vcpu *v, const struct insn *i)
{
	u8 seg = i->reg & 7;

	if (seg == SEG_CS || seg > SEG_GS)
		raise_ud(v);
	load_segment(v, seg, (u16)rm_read(v, i, 2));
	v->rip = v->next_rip;
}

/* SDM 3A 6.8.3: nothing may come between loading SS and loading the stack pointer. */
static void begin_ss_shadow(struct soft_vcpu *v)
{
	v->int_shadow = 2;
	v->rip = v->next_rip;
}

void op_mov_to_ss(struct soft_vcpu *v, const struct insn *i)
{
	load_segment(v, SEG_SS, (u16)rm_read(v, i, 2));
	begin_ss_shadow(v);
}

/* PUSH and POP name their segment in bits 5:3 of the opcode, one-byte and 0F forms alike. */
static u8 opcode_segment(const struct insn *i)
{
	return i->opcode >> 3 & 7;
}

void op_pop_seg(struct soft_vcpu *v, const struct insn *i)
{
	load_segment(v, opcode_segment(i), (u16)stack_peek(v, i, 0, 2));
	stack_adjust(v, i, i->opsize);
	v->rip = v->next_rip;
}

void op_pop_ss(struct soft_vcpu *v, const struct insn *i)
{
	load_segment(v, SEG_SS, (u16)stack_peek(v, i, 0, 2));
	stack_adjust(v, i, i->opsize);
	begin_ss_shadow(v);
}

void op_load_far(struct soft_vcpu *v, const struct insn *i)
{
	u64 offset, address;
	u16 selector;

	if (!i->is_mem)
		raise_ud(v);
	address = insn_ea(v, i);
	offset = mem_read(v, i->seg, address, i->opsize);
	selector = (u16)mem_read(v, i->seg, ea_plus(i, address, i->opsize), 2);
	load_segment(v, i->vvvv, selector);
	reg_write(v, i, i->reg, i->opsize, offset);
	v->rip = v->next_rip;
}

/* ---- looking at descriptors: LAR, LSL, VERR, VERW, ARPL ---- */

/* These five exist where selectors name descriptors (SDM 2A: #UD in real and virtual-8086 mode). */
static void need_descriptors(struct soft_vcpu *v)
{
	if (!has_descriptors(v))
		raise_ud(v);
}

static void set_zf(struct soft_vcpu *v, bool zf)
{
	u64 flags = vcpu_rflags(v);

	vcpu_set_arith(v, zf ? flags | RFLAGS_ZF : flags & ~RFLAGS_ZF);
}

/*
 * Reads the descriptor of @selector if CPL and RPL may see it and, for a system descriptor, its
 * type is in @types.
 */
static bool desc_visible(struct soft_vcpu *v, u16 selector, u32 types, struct descriptor *d)
{
	if (selector_is_null(selector) || !desc_read(v, selector, d))
		return false;
	if (!desc_is_segment(d) && !(types >> desc_type(d) & 1))
		return false;
	return desc_is_conforming(d) ||
	       (v->cpl <= desc_dpl(d) && SELECTOR_RPL(selector) <= desc_dpl(d));
}

void op_lar(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2A LAR, table 3-55 */
	u32 types = is_long(v)
			? BIT(SYS_LDT) | BIT(SYS_TSS) | BIT(SYS_TSS_BUSY) | BIT(SYS_CALL)
			: BIT(SYS_TSS16) | BIT(SYS_LDT) | BIT(SYS_TSS16_BUSY) | BIT(SYS_CALL16) |
			      BIT(SYS_TASK_GATE) | BIT(SYS_TSS) | BIT(SYS_TSS_BUSY) | BIT(SYS_CALL);
	struct descriptor d;

	need_descriptors(v);
	bool visible = desc_visible(v, (u16)rm_read(v, i, 2), types, &d);
	if (visible)
		reg_write(v, i, i->reg, i->opsize, d.raw >> 32 & 0xffff00);
	set_zf(v, visible);
}

void op_lsl(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2A LSL, table 3-56 */
	u32 types = is_long(v) ? BIT(SYS_LDT) | BIT(SYS_TSS) | BIT(SYS_TSS_BUSY)
			       : BIT(SYS_TSS16) | BIT(SYS_LDT) | BIT(SYS_TSS16_BUSY) |
				     BIT(SYS_TSS) | BIT(SYS_TSS_BUSY);
	struct descriptor d;

	need_descriptors(v);
	bool visible = desc_visible(v, (u16)rm_read(v, i, 2), types, &d);
	if (visible)
		reg_write(v, i, i->reg, i->opsize, desc_limit(&d));
	set_zf(v, visible);
}

void op_verr(struct soft_vcpu *v, const struct insn *i)
{
	struct descriptor d;

	need_descriptors(v);
	set_zf(v, desc_visible(v, (u16)rm_read(v, i, 2), 0, &d) && desc_is_readable(&d));
}

void op_verw(struct soft_vcpu *v, const struct insn *i)
{
	struct descriptor d;

	need_descriptors(v);
	set_zf(v, desc_visible(v, (u16)rm_read(v, i, 2), 0, &d) && desc_is_writable_data(&d));
}

void op_arpl(struct soft_vcpu *v, const struct insn *i)
{
	need_descriptors(v);
	u64 selector = rm_read(v, i, 2);
	u64 rpl = SELECTOR_RPL(v->regs[i->reg]);
	bool raised = SELECTOR_RPL(selector) < rpl;
	if (raised)
		rm_write(v, i, 2, (selector & ~3ull) | rpl);
	set_zf(v, raised);
}
