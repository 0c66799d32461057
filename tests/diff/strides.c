/* Memory by constant strides and by the same registers: loops of one block whose pointers run over
 * page ends and into unmapped pages, and straight lines of many accesses. */
#include "tests/diff/generate.h"

#define FAR_OFFSET 0x80000000ull /* in a pointer, with displacements as far below it */

/* One loop, or one straight line. */
struct stride {
	int pointer[2], index, counter, copy; /* registers, all different */
	u32 used;			      /* these, bit by number */
	bool indexed, copied, stores;
	bool far; /* pointer[0] */
};

struct address {
	int base, index; /* index: -1 if none */
	u32 scale;	 /* logarithm */
	s32 disp;
};

/* What accesses memory: prefix, opcode map (0: none, 1: 0F), opcode; the ModRM register field. */
struct form {
	u8 prefix, map, opcode;
	s8 field; /* or VALUE, VECTOR */
	u8 immediate;
	u8 kind; /* bits below */
};

#define VALUE	-1
#define VECTOR	-2
#define SIZED	1 /* takes 66 and REX.W */
#define BYTE	2
#define STORES	4
#define RAX_TOO 8
#define ALIGNED 16

static const struct form forms[] = {
    {0, 0, 0x8b, VALUE, 0, SIZED},
    {0, 0, 0x8b, VALUE, 0, SIZED},
    {0, 0, 0x89, VALUE, 0, SIZED | STORES},
    {0, 0, 0x89, VALUE, 0, SIZED | STORES},
    {0, 0, 0x03, VALUE, 0, SIZED},
    {0, 0, 0x01, VALUE, 0, SIZED | STORES},
    {0, 0, 0x13, VALUE, 0, SIZED},
    {0, 0, 0x3b, VALUE, 0, SIZED},
    {0, 0, 0x31, VALUE, 0, SIZED | STORES},
    {0, 0, 0x85, VALUE, 0, SIZED},
    {0, 0, 0x87, VALUE, 0, SIZED | STORES},
    {0, 0, 0x8a, VALUE, 0, BYTE},
    {0, 0, 0x88, VALUE, 0, BYTE | STORES},
    {0, 0, 0x02, VALUE, 0, BYTE},
    {0, 0, 0x38, VALUE, 0, BYTE},
    {0, 1, 0xb6, VALUE, 0, SIZED},
    {0, 1, 0xbf, VALUE, 0, SIZED},
    {0, 1, 0xaf, VALUE, 0, SIZED},
    {0, 1, 0x42, VALUE, 0, SIZED},
    {0, 1, 0xc1, VALUE, 0, SIZED | STORES},
    {0, 1, 0xb1, VALUE, 0, SIZED | STORES | RAX_TOO},
    {0, 0, 0xff, 0, 0, SIZED | STORES},
    {0, 0, 0xff, 6, 0, 0},
    {0, 0, 0x8f, 0, 0, STORES},
    {0, 0, 0xc7, 0, 4, STORES},
    {0, 0, 0x83, 7, 1, SIZED},
    {0, 0, 0x83, 0, 1, SIZED | STORES},
    {0, 0, 0xc1, 4, 1, SIZED | STORES},
    {0, 1, 0x10, VECTOR, 0, 0},
    {0, 1, 0x11, VECTOR, 0, STORES},
    {0, 1, 0x28, VECTOR, 0, ALIGNED},
    {0, 1, 0x29, VECTOR, 0, STORES | ALIGNED},
    {0xf3, 1, 0x6f, VECTOR, 0, 0},
    {0xf3, 1, 0x7f, VECTOR, 0, STORES},
    {0xf2, 1, 0x58, VECTOR, 0, 0},
    {0xf3, 1, 0x11, VECTOR, 0, STORES},
    {0, 0, 0xdd, 0, 0, 0},
    {0, 0, 0xdd, 3, 0, STORES},
};

static bool wide_code(const struct gen *g)
{
	return g->plan->kind == KIND_64;
}

static int unused_register(struct gen *g, struct stride *s)
{
	for (;;) {
		int reg = (int)below(g->r, wide_code(g) ? 16 : 8);
		if (reg == 4 || (s->used & BIT(reg)))
			continue;
		s->used |= (u32)BIT(reg);
		return reg;
	}
}

/* One that is no pointer, no counter. */
static u32 value_register(struct gen *g, const struct stride *s)
{
	for (;;) {
		u32 reg = below(g->r, wide_code(g) ? 16 : 8);
		if (reg != 4 && !(s->used & BIT(reg)))
			return reg;
	}
}

static void put_operand(struct gen *g, u32 reg, const struct address *a)
{
	bool sib = a->index >= 0 || (a->base & 7) == 4;
	u32 mod = a->disp == 0 && (a->base & 7) != 5 ? 0 : a->disp == (s8)a->disp ? 0x40 : 0x80;
	put8(g, mod | (reg & 7) << 3 | (sib ? 4 : (u32)a->base & 7));
	if (sib)
		put8(g, a->scale << 6 | (a->index >= 0 ? (u32)a->index & 7 : 4) << 3 |
			    ((u32)a->base & 7));
	if (mod)
		put(g, (u64)(s64)a->disp, mod == 0x40 ? 1 : 4);
}

static u32 rex_of(u32 reg, const struct address *a)
{
	u32 index = a->index >= 0 ? (u32)a->index : 0;
	return (reg & 8) >> 1 | (index & 8) >> 2 | ((u32)a->base & 8) >> 3;
}

static struct address choose_address(struct gen *g, const struct stride *s)
{
	struct random *r = g->r;
	u32 n = below(r, 2);
	struct address a = {.base = s->pointer[n], .index = -1};
	s32 disp = (s32)below(r, 48) - 16;
	if (one_in(r, 3))
		disp &= ~15;
	if (one_in(r, 100))
		disp += one_in(r, 2) ? 0x1000 : -0x1000;
	if (s->copied && one_in(r, 4)) {
		a.base = s->copy;
		n = 0;
	}
	if (one_in(r, 10)) {
		a.base = 4;
		n = 1;
	}
	if (n == 0 && s->far)
		disp = (disp < 0 ? -disp : disp) - (s32)0x7fffffff - 1;
	if (s->indexed && a.base != 4 && one_in(r, 2)) {
		a.index = s->index;
		a.scale = below(r, 4);
	}
	a.disp = disp;
	return a;
}

/* VMOVDQU with YMM or, unmasked, ZMM. */
static void put_long_vector(struct gen *g, const struct stride *s)
{
	struct address a = choose_address(g, s);
	u32 reg = below(g->r, wide_code(g) ? 16 : 8), rex = rex_of(reg, &a);
	bool store = s->stores && one_in(g->r, 2);
	if ((xstate.offered & XCR0_AVX512) && one_in(g->r, 2)) {
		put8(g, 0x62);
		put8(g, (~rex & 7) << 5 | 0x11);
		put8(g, 0xfe);
		put8(g, 0x48);
		put8(g, store ? 0x7f : 0x6f);
		if (a.disp == (s8)a.disp) /* would count operands */
			a.disp += 0x100;
	} else {
		put8(g, 0xc4);
		put8(g, (~rex & 7) << 5 | 1);
		put8(g, 0x7e);
		put8(g, store ? 0x7f : 0x6f);
	}
	put_operand(g, reg, &a);
}

static void put_access(struct gen *g, const struct stride *s)
{
	struct random *r = g->r;
	const struct form *f;
	if (one_in(r, 16)) {
		put_long_vector(g, s);
		return;
	}
	do
		f = &forms[below(r, ARRAY_SIZE(forms))];
	while (((f->kind & STORES) && !s->stores) || ((f->kind & RAX_TOO) && (s->used & 1)) ||
	       ((f->kind & ALIGNED) && !one_in(r, 12)));
	struct address a = choose_address(g, s);
	u32 reg = f->field == VALUE ? value_register(g, s) : (u32)f->field, rex;
	if (f->field == VECTOR)
		reg = below(r, wide_code(g) ? 16 : 8);
	rex = rex_of(reg, &a);
	if (f->prefix)
		put8(g, f->prefix);
	else if ((f->kind & SIZED) && one_in(r, 6))
		put8(g, 0x66);
	if (wide_code(g) && (f->kind & SIZED) && one_in(r, 2))
		rex |= 8;
	/* Without REX 4 to 7 are AH to BH. */
	bool high = (f->kind & BYTE) && !rex && reg >= 4 && reg < 8;
	bool spoils = high && (s->used & BIT(reg - 4));
	if (high && wide_code(g) && (spoils || one_in(r, 2)))
		put8(g, 0x40);
	else if (rex)
		put8(g, 0x40 | rex);
	if (f->map)
		put8(g, 0x0f);
	put8(g, f->opcode | (spoils && !wide_code(g)));
	put_operand(g, reg, &a);
	put(g, below(r, 256), f->immediate);
}

static void put_wide(struct gen *g, int reg, int rm)
{
	if (wide_code(g))
		put8(g, 0x48 | ((u32)reg & 8) >> 1 | ((u32)rm & 8) >> 3);
}

/* @reg += @step in any of the ways that compilers know. */
static void put_bump(struct gen *g, int reg, s32 step)
{
	u32 way = below(g->r, 3);
	if (way == 0) { /* lea reg, [reg + step] */
		struct address a = {.base = reg, .index = -1, .disp = step};
		put_wide(g, reg, reg);
		put8(g, 0x8d);
		put_operand(g, (u32)reg, &a);
		return;
	}
	put_wide(g, 0, reg);
	if ((step == 1 || step == -1) && way == 1) {
		put8(g, 0xff);
		put8(g, (step == 1 ? 0xc0 : 0xc8) | ((u32)reg & 7));
		return;
	}
	bool subtract = one_in(g->r, 2);
	s32 imm = subtract ? -step : step;
	bool narrow = imm == (s8)imm && !one_in(g->r, 8);
	put8(g, narrow ? 0x83 : 0x81);
	put8(g, (subtract ? 0xe8 : 0xc0) | ((u32)reg & 7));
	put(g, (u64)(s64)imm, narrow ? 1 : 4);
}

static void put_copy(struct gen *g, struct stride *s)
{
	bool load = one_in(g->r, 2);
	int reg = load ? s->copy : s->pointer[0], rm = load ? s->pointer[0] : s->copy;
	put_wide(g, reg, rm);
	put8(g, load ? 0x8b : 0x89);
	put8(g, 0xc0 | ((u32)reg & 7) << 3 | ((u32)rm & 7));
	s->copied = true;
}

/* Accesses and what comes between them; a branch may lead over some, or out, where @out gets the
 * places of its displacements. */
static u32 put_accesses(struct gen *g, struct stride *s, u32 count, u32 *out, u32 room)
{
	struct random *r = g->r;
	u32 n_out = 0, skip = 0;
	for (u32 n = 0; n < count; n++) {
		u32 what = below(r, 24);
		if (what == 0 && !skip && n + 1 < count) {
			put8(g, 0x70 | below(r, 16));
			skip = g->used;
			put8(g, 0);
			continue;
		}
		if (what == 1 && n_out < room && !skip) {
			put8(g, 0x0f);
			put8(g, 0x80 | below(r, 16));
			out[n_out++] = g->used;
			put(g, 0, 4);
		} else if (what == 2) { /* done in C: pushf */
			put8(g, 0x9c);
		} else if (what == 3) {
			put8(g, 0x50 | below(r, 8));
		} else if (what == 4) {
			u32 reg = value_register(g, s);
			if (reg >= 8)
				put8(g, 0x41);
			put8(g, 0x58 | (reg & 7));
		} else if (what == 5) {
			put_copy(g, s);
		} else if (what == 6) { /* there and back */
			s32 step = (s32)below(r, 40) - 20;
			put_bump(g, s->pointer[1], step);
			put_access(g, s);
			put_bump(g, s->pointer[1], -step);
		} else {
			put_access(g, s);
		}
		if (skip && one_in(r, 2)) {
			g->out[skip] = (u8)(g->used - (skip + 1));
			skip = 0;
		}
	}
	if (skip && skip < g->room)
		g->out[skip] = (u8)(g->used - (skip + 1));
	return n_out;
}

static void fix32(struct gen *g, u32 at, u32 target)
{
	u32 rel = target - (at + 4);
	for (u32 n = 0; n < 4 && at + n < g->room; n++)
		g->out[at + n] = (u8)(rel >> 8 * n);
}

/* Where a pointer begins: the end of some page is met on the way, mostly, and the end of all of
 * them now and then. */
static u64 choose_start(struct gen *g, s32 step, u32 turns)
{
	struct random *r = g->r;
	u32 span = (step < 0 ? (u32)-step : (u32)step) * turns, margin = 0x100;
	u64 end = DATA_BASE + 0x1000 * (one_in(r, 12) ? below(r, 5) : 1 + below(r, 3));
	u64 start = end - (u64)((s64)step * below(r, turns)) + below(r, 24) - 12;
	u64 low = step < 0 ? start - span : start;
	bool inside = low >= DATA_BASE + margin && low + span < DATA_BASE + DATA_SIZE - margin;
	if (!inside && span + 2 * margin < DATA_SIZE && !one_in(r, 12)) {
		start = DATA_BASE + margin + below(r, (u32)DATA_SIZE - 2 * margin - span);
		start += step < 0 ? span : 0;
	}
	return one_in(r, 2) ? start & ~15ull : start;
}

static void choose_registers(struct gen *g, struct stride *s)
{
	struct random *r = g->r;
	*s = (struct stride){.stores = !one_in(r, 4), .indexed = one_in(r, 3)};
	s->pointer[0] = unused_register(g, s);
	s->pointer[1] = unused_register(g, s);
	s->counter = unused_register(g, s);
	s->index = wide_code(g) ? unused_register(g, s) : s->counter;
	s->copy = wide_code(g) ? unused_register(g, s) : s->pointer[0];
	s->far = wide_code(g) && one_in(r, 16);
}

static void restore(struct gen *g)
{
	put_purpose(g);
	put_mov(g, 4, g->plan->purpose[4]);
}

/* A loop that ends when a counter is 0 or a pointer is there. */
void put_strides(struct gen *g)
{
	static const s32 steps[] = {1, 2, 3, 4, 8, 8, 12, 16, 32, 64, 100, 1024, 1040, 0};
	struct random *r = g->r;
	struct stride s;
	u32 out[3];
	choose_registers(g, &s);
	s32 step = steps[below(r, ARRAY_SIZE(steps))], other = one_in(r, 3) ? 0 : step;
	if (one_in(r, 3))
		step = -step;
	if (one_in(r, 6))
		other = steps[below(r, ARRAY_SIZE(steps))];
	u32 size = step < 0 ? (u32)-step : (u32)step, far = s.far ? FAR_OFFSET : 0;
	u32 turns = 2 + below(r, one_in(r, 3) && size ? 6000 / size + 2 : 12);
	u64 start = choose_start(g, step, turns);
	bool counted = !step || one_in(r, 2), split = one_in(r, 3);
	put_mov(g, s.pointer[0], start + far);
	put_mov(g, s.pointer[1], choose_start(g, other, turns));
	put_mov(g, s.counter, counted ? turns : (u64)((s64)start + (s64)step * turns) + far);
	if (s.index != s.counter)
		put_mov(g, s.index, below(r, 8));
	else
		s.indexed &= counted && turns < 64;
	u32 top = g->used;
	u32 outs = put_accesses(g, &s, 1 + below(r, 4), out, 2);
	if (split)
		put_bump(g, s.pointer[0], step / 2);
	if (other)
		put_bump(g, s.pointer[1], other);
	outs += put_accesses(g, &s, below(r, 5), out + outs, 3 - outs);
	if (s.index != s.counter && one_in(r, 2))
		put_bump(g, s.index, step);
	put_bump(g, s.pointer[0], split ? step - step / 2 : step);
	if (counted) { /* dec counter */
		put_wide(g, 0, s.counter);
		put8(g, 0xff);
		put8(g, 0xc8 | ((u32)s.counter & 7));
	} else { /* cmp pointer, counter */
		put_wide(g, s.counter, s.pointer[0]);
		put8(g, 0x39);
		put8(g, 0xc0 | ((u32)s.counter & 7) << 3 | ((u32)s.pointer[0] & 7));
	}
	put8(g, 0x0f);
	put8(g, 0x85);
	put(g, (u64)top - (g->used + 4), 4);
	for (u32 n = 0; n < outs; n++)
		fix32(g, out[n], g->used);
	restore(g);
}

/* Many accesses by the same registers, near a page end, mostly. */
void put_fields(struct gen *g)
{
	struct stride s;
	u32 out[2];
	choose_registers(g, &s);
	put_mov(g, s.pointer[0], choose_start(g, 0, 1) + (s.far ? FAR_OFFSET : 0));
	put_mov(g, s.pointer[1], choose_start(g, 0, 1));
	put_mov(g, s.index, below(g->r, 8));
	if (one_in(g->r, 4))
		put_mov(g, 4, choose_start(g, 0, 1));
	u32 outs = 0;
	for (u32 n = 1 + below(g->r, 3); n; n--) {
		outs += put_accesses(g, &s, 1 + below(g->r, 7), out + outs, 2 - outs);
		put_bump(g, s.pointer[below(g->r, 2)], (s32)below(g->r, 64) - 32);
	}
	for (u32 n = 0; n < outs; n++)
		fix32(g, out[n], g->used);
	restore(g);
}
