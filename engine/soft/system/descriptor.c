/* Reading and checking descriptors, and the stacks that control transfers build. */
#include "engine/soft/system/descriptor.h"

#include "engine/soft/system/state.h"

/* SDM 3A 3.5.1: a selector names 8 bytes at index * 8 of the GDT or, with TI, the LDT. */
static bool desc_address(struct soft_vcpu *v, u16 selector, u32 size, u64 *linear)
{
	u64 base = v->gdt.base;
	u32 limit = v->gdt.limit;

	if (selector & SELECTOR_TI) {
		if (v->ldtr.access & SEG_UNUSABLE)
			return false;
		base = v->ldtr.base;
		limit = v->ldtr.limit;
	}
	if ((u32)(selector & 0xfff8) + size - 1 > limit)
		return false;
	*linear = base + (selector & 0xfff8);
	if (!is_long(v))
		*linear = (u32)*linear;
	return true;
}

bool desc_read(struct soft_vcpu *v, u16 selector, struct descriptor *d)
{
	if (!desc_address(v, selector, 8, &d->linear))
		return false;
	d->raw = sys_read(v, d->linear, 8);
	d->high = 0;
	return true;
}

bool desc_read_system(struct soft_vcpu *v, u16 selector, struct descriptor *d)
{
	if (!is_long(v))
		return desc_read(v, selector, d);
	if (!desc_address(v, selector, 16, &d->linear))
		return false;
	d->raw = sys_read(v, d->linear, 8);
	d->high = sys_read(v, d->linear + 8, 8);
	return true;
}

void desc_set_accessed(struct soft_vcpu *v, struct descriptor *d)
{
	if (desc_type(d) & SEG_TYPE_ACCESSED)
		return;
	d->raw |= (u64)SEG_TYPE_ACCESSED << 40;
	sys_write(v, d->linear + 5, 1, d->raw >> 40 & 0xff);
}

void segment_fill(struct segment *s, u16 selector, const struct descriptor *d)
{
	s->selector = selector;
	s->base = desc_base(d);
	s->limit = desc_limit(d);
	s->access = desc_access(d);
}

void segment_fill_null(struct segment *s, u16 selector, u32 dpl)
{
	s->selector = selector;
	s->base = 0;
	s->limit = 0;
	s->access = SEG_UNUSABLE | dpl << 5;
}

void desc_read_code(struct soft_vcpu *v, u16 selector, struct descriptor *d)
{
	if (selector_is_null(selector))
		raise_gp(v, 0);
	if (!desc_read(v, selector, d) || !desc_is_code(d))
		raise_gp(v, SELECTOR_ERROR(selector));
	u32 access = desc_access(d);
	if (is_long(v) && access & SEG_L && access & SEG_DB)
		raise_gp(v, SELECTOR_ERROR(selector));
}

void check_code_offset(struct soft_vcpu *v, const struct segment *cs, u64 rip)
{
	bool ok = segment_is_code64(v, cs) ? is_canonical(rip) : rip <= cs->limit;
	if (!ok)
		raise_gp(v, 0);
}

void segments_drop_privileged(struct soft_vcpu *v, u32 cpl)
{
	static const u8 data_segments[] = {SEG_ES, SEG_FS, SEG_GS, SEG_DS};

	for (u32 n = 0; n < ARRAY_SIZE(data_segments); n++) {
		struct segment *s = &v->seg[data_segments[n]];
		u32 conforming = SEG_TYPE_CODE | SEG_TYPE_EXPAND_DOWN;
		if (s->access & SEG_UNUSABLE || (SEG_TYPE(s->access) & conforming) == conforming)
			continue;
		/* The base stays: in 64-bit mode FS and GS go on working. */
		if (cpl > SEG_DPL(s->access)) {
			s->selector = 0;
			s->access |= SEG_UNUSABLE;
		}
	}
}

void stack_current(const struct soft_vcpu *v, struct stack *s)
{
	s->ss = v->seg[SEG_SS];
	s->sp = v->regs[RSP];
	s->mask = is_code64(v) ? ~0ull : s->ss.access & SEG_DB ? 0xffffffff : 0xffff;
	s->index = mmu_index_of(v, v->cpl);
	s->error = 0;
}

void stack_from_tss(struct soft_vcpu *v, u32 cpl, struct stack *s)
{
	struct descriptor d;
	bool tss32 = SEG_TYPE(v->tr.access) & 8;
	u32 offset = tss32 ? cpl * 8 + 4 : cpl * 4 + 2;
	u32 size = tss32 ? 4 : 2;

	/* SDM 3A 7.2.1 and 7.6: ESPn at 4 + 8n, SPn at 2 + 4n, the selector behind it. */
	if (v->tr.access & SEG_UNUSABLE || offset + size + 1 > v->tr.limit)
		raise_error(v, EXC_TS, SELECTOR_ERROR(v->tr.selector));
	u64 sp = sys_read(v, (u32)(v->tr.base + offset), size);
	u16 selector = (u16)sys_read(v, (u32)(v->tr.base + offset + size), 2);

	/* SDM 2A INT n: null #TS(EXT); limit, RPL, DPL, type #TS(SS); not present #SS(SS). */
	if (selector_is_null(selector))
		raise_error(v, EXC_TS, 0);
	if (!desc_read(v, selector, &d) || SELECTOR_RPL(selector) != cpl || desc_dpl(&d) != cpl ||
	    !desc_is_writable_data(&d))
		raise_error(v, EXC_TS, SELECTOR_ERROR(selector));
	if (!desc_present(&d))
		raise_error(v, EXC_SS, SELECTOR_ERROR(selector));

	desc_set_accessed(v, &d);
	segment_fill(&s->ss, selector, &d);
	s->sp = sp;
	s->mask = s->ss.access & SEG_DB ? 0xffffffff : 0xffff;
	s->index = mmu_index_of(v, cpl);
	s->error = SELECTOR_ERROR(selector);
}

u64 stack_pointer_from_tss64(struct soft_vcpu *v, u32 cpl, u32 ist)
{
	u32 offset = ist ? ist * 8 + 28 : cpl * 8 + 4;

	if (v->tr.access & SEG_UNUSABLE || offset + 7 > v->tr.limit)
		raise_error(v, EXC_TS, SELECTOR_ERROR(v->tr.selector));
	return sys_read(v, v->tr.base + offset, 8);
}

void stack_long(const struct soft_vcpu *v, u32 cpl, u64 sp, struct stack *s)
{
	segment_fill_null(&s->ss, (u16)cpl, cpl);
	s->sp = sp;
	s->mask = ~0ull;
	s->index = mmu_index_of(v, cpl);
	s->error = 0;
}

/* SDM 3A 5.3: expand-down segments hold what is above the limit, up to 64 KiB or 4 GiB by B. */
static bool stack_holds(const struct stack *s, u64 sp, u32 size)
{
	u64 last = sp + size - 1;

	if (s->mask == ~0ull)
		return true;
	if ((SEG_TYPE(s->ss.access) & (SEG_TYPE_CODE | SEG_TYPE_EXPAND_DOWN)) ==
	    SEG_TYPE_EXPAND_DOWN)
		return sp > s->ss.limit && last <= (s->ss.access & SEG_DB ? 0xffffffff : 0xffff);
	return last <= s->ss.limit;
}

static u64 stack_linear(const struct stack *s, u64 sp)
{
	return s->mask == ~0ull ? sp : (u32)(s->ss.base + (sp & s->mask));
}

void stack_push(struct soft_vcpu *v, struct stack *s, const u64 *values, u32 count, u32 size)
{
	struct stack probe = *s;

	for (u32 n = 0; n < count; n++) {
		probe.sp = stack_add(&probe, -(s64)size);
		if (!stack_holds(&probe, probe.sp & probe.mask, size))
			raise_error(v, EXC_SS, s->error);
	}
	for (u32 n = 0; n < count; n++) {
		s->sp = stack_add(s, -(s64)size);
		mem_write_linear(v, stack_linear(s, s->sp), &values[n], size, s->index, true);
	}
}

u64 stack_read(struct soft_vcpu *v, const struct stack *s, u64 offset, u32 size)
{
	u64 value = 0;
	u64 sp = stack_add(s, (s64)offset);

	if (s->ss.access & SEG_UNUSABLE && s->mask != ~0ull)
		raise_error(v, EXC_SS, 0);
	if (!stack_holds(s, sp & s->mask, size))
		raise_error(v, EXC_SS, s->error);
	mem_read_linear(v, stack_linear(s, sp), &value, size, s->index, true);
	return value;
}

void stack_commit(struct soft_vcpu *v, const struct stack *s)
{
	v->seg[SEG_SS] = s->ss;
	v->regs[RSP] = s->sp;
}
