/* Strings, compare and exchange, tables, GS: what needs its registers prepared. */
#include "tests/diff/generate.h"

static void put_direction(struct gen *g, bool down)
{
	put8(g, down ? 0xfd : 0xfc);
}

/*
 * MOVS, CMPS, STOS, LODS, SCAS with and without REP, both ways, over page boundaries, into the
 * unmapped pages and past segment limits.
 */
void put_string(struct gen *g)
{
	static const u8 opcodes[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae};
	static const u8 repeats[] = {0, 0xf3, 0xf3, 0xf2};
	struct random *r = g->r;
	const struct plan *plan = g->plan;
	bool down = one_in(r, 2);
	u64 junk =
	    plan->size == 8 && one_in(r, 4) ? 0x100000000ull : 0; /* beyond a 32-bit address size */
	u64 count = one_in(r, 12)  ? 0x2000 + below(r, 0x3000)
		    : one_in(r, 3) ? below(r, 0x400)
				   : below(r, 20);
	put_mov(g, 1, count | junk);
	put_mov(g, 6, data_offset(g, 6) | junk);
	put_mov(g, 7,
		(data_offset(g, 6) + plan->data_base - plan->extra_base) |
		    (one_in(r, 2) ? junk : 0));
	if (one_in(r, 4)) {
		put_direction(g, false); /* something to compare as equal */
		put8(g, 0xf3);
		put8(g, 0xaa);
		put_mov(g, 1, count);
	}
	put_direction(g, down);
	if (junk || one_in(r, 8))
		put8(g, 0x67);
	u8 repeat = repeats[below(r, sizeof(repeats))];
	if (repeat)
		put8(g, repeat);
	if (plan->kind != KIND_64 && one_in(r, 6))
		put8(g, one_in(r, 2) ? 0x26 : 0x36); /* ES, SS: for the source */
	u32 bytes = 1u << below(r, plan->kind == KIND_64 ? 4 : 3);
	if (bytes > 1)
		put_size(g, bytes);
	put8(g, opcodes[below(r, sizeof(opcodes))] | (bytes > 1));
	if (!one_in(r, 8))
		put_direction(g, false);
	put_purpose(g);
}

/* CMPXCHG8B and CMPXCHG16B that find what they expect. */
void put_compare_exchange(struct gen *g)
{
	struct random *r = g->r;
	const struct plan *plan = g->plan;
	bool wide = plan->kind == KIND_64 && one_in(r, 2);
	u64 offset = data_offset(g, 30);
	if (!one_in(r, 6))
		offset = ((offset + plan->data_base) & ~15ull) - plan->data_base;
	put_mov(g, 6, offset);
	for (u32 n = 0; n < 2; n++) { /* mov eax, [rsi]; mov edx, [rsi + 4 or 8] */
		if (plan->kind == KIND_16)
			put(g, 0x6766, 2);
		else if (wide)
			put8(g, 0x48);
		put8(g, 0x8b);
		put8(g, n ? 0x56 : 0x46);
		put8(g, n ? (wide ? 8 : 4) : 0);
	}
	if (one_in(r, 2))
		put8(g, 0xf0);
	if (plan->kind == KIND_16)
		put8(g, 0x67);
	else if (wide)
		put8(g, 0x48);
	put8(g, 0x0f);
	put8(g, 0xc7);
	put8(g, 0x0e); /* [rsi] */
	put_purpose(g);
}

/* XLAT; MOV between the accumulator and an absolute offset. */
void put_table(struct gen *g)
{
	const struct plan *plan = g->plan;
	if (one_in(g->r, 2)) {
		put_mov(g, 3, data_offset(g, 20));
		put8(g, 0xd7);
		put_purpose(g);
		return;
	}
	bool kept = plan->base[0] == 0 || plan->base[1] == 0 || plan->index == 0 || (g->keep & 1);
	put8(g, 0xa0 | below(g->r, 2) | (kept || one_in(g->r, 2) ? 2 : 0));
	put(g, data_offset(g, 20), plan->size);
}

/* 64-bit: memory behind GS, its base read and written. */
void put_gs(struct gen *g)
{
	struct random *r = g->r;
	const struct plan *plan = g->plan;
	int reg = spare_register(g);
	switch (below(r, 4)) {
	case 0: /* rdgsbase */
		put(g, 0xae0f48f3, 4);
		put8(g, 0xc8 | (u32)reg);
		return;
	case 1: /* wrgsbase; now and then not canonical */
		put_mov(g, reg, one_in(r, 10) ? 1ull << 47 : DATA_BASE + 0x1000 + below(r, 0x2000));
		put(g, 0xae0f48f3, 4);
		put8(g, 0xd8 | (u32)reg);
		return;
	default: /* add or mov, both ways, gs:[disp32] or gs:[index + disp8] */
		put8(g, 0x65);
		u32 rex = below(r, 2) << 3;
		static const u8 opcodes[] = {0x01, 0x03, 0x89, 0x8b, 0x11, 0x13};
		u32 opcode = opcodes[below(r, sizeof(opcodes))];
		if (one_in(r, 2)) {
			put8(g, 0x40 | rex);
			put8(g, opcode);
			put8(g, (u32)reg << 3 | 4);
			put8(g, 0x25);
			put(g, (u64)(s64)(s32)(below(r, 0x1000) - 0x800), 4);
		} else {
			put8(g, 0x40 | rex | (u32)plan->index >> 3);
			put8(g, opcode);
			put8(g,
			     0x40 | (u32)reg << 3 | ((plan->index & 7) == 4 ? 4 : plan->index & 7));
			if ((plan->index & 7) == 4)
				put8(g, 0x24);
			put8(g, below(r, 256));
		}
	}
}
