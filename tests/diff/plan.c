/* What a sequence runs in: kind of code, segments, registers with a purpose, and the state at its
 * start. */
#include <string.h>

#include "engine/soft/translate/mode.h"
#include "tests/diff/generate.h"

u64 interesting(struct random *r)
{
	static const u64 corners[] = {0,
				      1,
				      ~0ull,
				      0x7f,
				      0x80,
				      0xff,
				      0x7fff,
				      0x8000,
				      0x7fffffff,
				      0x80000000,
				      0xffffffff,
				      0x7fffffffffffffff,
				      0x8000000000000000,
				      63,
				      64,
				      31,
				      32};
	u32 kind = below(r, 3);
	if (kind == 0)
		return corners[below(r, ARRAY_SIZE(corners))];
	return kind == 1 ? random_next(r) : random_next(r) & 0xff;
}

enum { LDT_CODE = 1, LDT_STACK, LDT_DATA, LDT_EXTRA, LDT_GS, LDT_ABSENT };

/* A data segment over the data region; one in four ends within it or is otherwise narrow. */
static struct ldt_entry data_segment(struct random *r)
{
	struct ldt_entry e = {
	    .defined = true, .base = (u32)DATA_BASE + 16 * below(r, 32), .limit = 0xffff};
	e.big = one_in(r, 2);
	switch (below(r, 8)) {
	case 0:
		e.limit = (u32)(DATA_SIZE - below(r, 0x1800));
		break;
	case 1: /* valid offsets: limit + 1 and up, to 64 KiB or 4 GiB (SDM 3A 5.3) */
		e.expand_down = true;
		e.limit = below(r, 0x1000);
		break;
	case 2:
		e.fixed = true;
		break;
	default:
		break;
	}
	return e;
}

static void choose_segments(struct random *r, struct plan *plan)
{
	struct ldt_entry *ldt = plan->ldt;
	bool code16 = plan->kind == KIND_16;
	u32 at = (u32)plan->at & ~15u;
	ldt[LDT_CODE] =
	    (struct ldt_entry){.defined = true, .code = true, .big = !code16, .limit = 0xffff};
	ldt[LDT_CODE].base = at - (one_in(r, 16) ? 0xff00 : 16 * below(r, 0x800));
	ldt[LDT_CODE].limit = code16 ? 0xffff : 0xfffff;
	if (one_in(r, 10))
		ldt[LDT_CODE].limit = (u32)plan->at - ldt[LDT_CODE].base + 8 + below(r, 200);
	ldt[LDT_CODE].fixed = one_in(r, 4);
	ldt[LDT_STACK] =
	    (struct ldt_entry){.defined = true, .base = (u32)DATA_BASE, .limit = 0xffff};
	ldt[LDT_STACK].big = one_in(r, 4) ? code16 : !code16;
	if (one_in(r, 6))
		ldt[LDT_STACK].limit = 0xdff + below(r, 0x200);
	ldt[LDT_DATA] = data_segment(r);
	ldt[LDT_EXTRA] = data_segment(r);
	ldt[LDT_GS] = data_segment(r);
	ldt[LDT_ABSENT] = data_segment(r);
	ldt[LDT_ABSENT].absent = true;
	plan->seg[SEG_CS] = LDT_SELECTOR(LDT_CODE);
	plan->seg[SEG_SS] = LDT_SELECTOR(LDT_STACK);
	plan->seg[SEG_DS] = LDT_SELECTOR(LDT_DATA);
	plan->seg[SEG_ES] = LDT_SELECTOR(LDT_EXTRA);
	plan->seg[SEG_GS] = LDT_SELECTOR(LDT_GS);
	plan->rip = plan->at - ldt[LDT_CODE].base;
	plan->data_base = ldt[LDT_DATA].base;
	plan->extra_base = ldt[LDT_EXTRA].base;
	plan->stack_size = ldt[LDT_STACK].big ? 4 : 2;
	plan->mode |= ldt[LDT_STACK].big ? MODE_STACK32 : 0;
}

static void choose_mode(struct random *r, struct plan *plan)
{
	plan->rip = plan->at;
	plan->seg[SEG_SS] = USER_DS;
	switch (plan->kind) {
	case KIND_64:
		plan->mode = MODE_CODE64 | MODE_FLAT;
		plan->size = plan->stack_size = 8;
		plan->seg[SEG_CS] = USER_CS64;
		plan->gs_base = DATA_BASE + 0x1000 + below(r, 0x2000);
		break;
	case KIND_32:
		plan->mode = MODE_CODE32 | MODE_STACK32 | MODE_FLAT;
		plan->size = plan->stack_size = 4;
		plan->seg[SEG_CS] = USER_CS32;
		plan->seg[SEG_DS] = plan->seg[SEG_ES] = USER_DS;
		break;
	default:
		plan->mode = plan->kind == KIND_16 ? MODE_CODE16 : MODE_CODE32;
		plan->size = plan->kind == KIND_16 ? 2 : 4;
		choose_segments(r, plan);
		break;
	}
}

static void choose_registers(struct random *r, struct plan *plan)
{
	static const u8 usable[] = {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	u32 count = plan->kind == KIND_64 ? 15 : 7;
	if (plan->kind == KIND_16 || (plan->kind == KIND_32_SEG && one_in(r, 2))) {
		plan->base[0] = 3; /* what 16-bit addresses can be made of (SDM 2A table 2-1) */
		plan->base[1] = 5;
		plan->index = 6 + (int)below(r, 2);
		return;
	}
	plan->base[0] = usable[below(r, count)];
	plan->base[1] = usable[below(r, count)];
	do
		plan->index = usable[below(r, count)];
	while (plan->index == plan->base[0] || plan->index == plan->base[1]);
}

static void choose_addresses(struct random *r, struct plan *plan)
{
	u64 stack_base = plan->ldt[LDT_STACK].base;
	for (u32 n = 0; n < 2; n++) {
		u32 where = below(r, 40);
		u64 offset = where == 0	 ? DATA_SIZE - below(r, 300)
			     : where < 8 ? 0x2000 - 160 + below(r, 64)
					 : 0x1400 + below(r, 0x1800);
		if (!one_in(r, 4))
			offset &= ~31ull;
		plan->purpose[plan->base[n]] = DATA_BASE + offset - plan->data_base;
	}
	plan->purpose[plan->index] = below(r, 8) * (one_in(r, 4) ? 1 : 16);
	u64 stack = STACK_TOP - 8 * below(r, 64) + (one_in(r, 8) ? below(r, 8) : 0);
	if (one_in(r, 40))
		stack = DATA_BASE + below(r, 64); /* pushes run into the page below */
	plan->purpose[4] = stack - stack_base;
}

void plan_make(struct plan *plan, u64 seed, u64 at, u32 kinds, bool strides)
{
	struct random r = {seed * 0x9e3779b97f4a7c15ull | 1};
	memset(plan, 0, sizeof(*plan));
	plan->at = at;
	random_next(&r);
	do
		plan->kind = (enum kind)below(&r, KIND_COUNT);
	while (!(kinds & BIT(plan->kind)));
	choose_mode(&r, plan);
	choose_registers(&r, plan);
	choose_addresses(&r, plan);
	plan->strides = plan->kind <= KIND_32 && (strides || one_in(&r, 16));
}

/* Few, many and no elements, at either end and in between. */
static void random_opmasks(struct random *r, u8 *section)
{
	for (u32 n = 0; n < 8; n++) {
		u64 value = random_next(r), *k = (u64 *)(section + 8 * n);
		u32 bits = 1 + below(r, one_in(r, 2) ? 63 : 15);
		switch (below(r, 8)) {
		case 0:
			value = 0;
			break;
		case 1:
			value = ~0ull;
			break;
		case 2:
			value = BIT(bits);
			break;
		case 3:
			value = BIT(bits) - 1;
			break;
		case 4:
			value = ~0ull << bits;
			break;
		default:
			break;
		}
		*k = value;
	}
}

static void random_vectors(struct random *r, struct state *s)
{
	/* Intel SDM 1 13.4: legacy region, header at 512, AVX state at 576. */
	memset(s->xsave, 0, sizeof(s->xsave));
	*(u16 *)(s->xsave + 0) = 0x37f;
	*(u32 *)(s->xsave + 24) = 0x1f80;
	if (one_in(r, 2)) {
		for (u32 n = 0; n < 8; n++) { /* doubles and floats that are numbers, mostly */
			*(double *)(s->xsave + 160 + 16 * n) = (double)(s64)interesting(r);
			*(float *)(s->xsave + 168 + 16 * n) = (float)(s32)interesting(r);
		}
	} else {
		put_random(r, s->xsave + 160, 256);
	}
	for (u32 n = 2; n < XSTATE_COUNT; n++)
		if (xstate.offered & BIT(n))
			put_random(r, s->xsave + xstate_section_offset(&xstate, 0, n),
				   xstate_section_size(n));
	if (xstate.offered & XCR0_OPMASK)
		random_opmasks(r, s->xsave + xstate_section_offset(&xstate, 0, 5));
	for (u32 n = 0; n < 8; n++) /* x87: valid, empty or special by chance */
		put_random(r, s->xsave + 32 + 16 * n, 10);
	s->xsave[4] = (u8)random_next(r); /* abridged tag word */
	*(u64 *)(s->xsave + 512) = xstate.offered;
}

void generate_state(struct random *r, const struct plan *plan, struct state *s)
{
	for (u32 n = 0; n < 16; n++) {
		bool purpose = n == 4 || (int)n == plan->base[0] || (int)n == plan->base[1] ||
			       (int)n == plan->index;
		u64 value = interesting(r);
		if (plan->kind != KIND_64) /* upper halves are undefined there (SDM 1 3.4.1.1) */
			value = n < 8 ? (u32)value : 0;
		s->regs[n] = purpose ? plan->purpose[n] : value;
	}
	s->rip = plan->rip;
	s->rflags = 0x202 | (random_next(r) & 0x8d5);
	memcpy(s->seg, plan->seg, sizeof(s->seg));
	s->gs_base = plan->gs_base;
	random_vectors(r, s);
	put_random(r, s->data, DATA_SIZE);
	for (u32 n = 0; n < DATA_SIZE / 8; n += 3)
		((u64 *)s->data)[n] = interesting(r);
}
