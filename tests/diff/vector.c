/* AVX-512 where random bytes would seldom get: masked operands at the ends of pages and of the
 * data, gathers and scatters whose indices lead into the data. */
#include <string.h>

#include "tests/diff/generate.h"

/* Where an operand of up to 64 bytes has the end of the data, or of a page, in it; offset in DS. */
static u64 edge(struct gen *g)
{
	static const u64 edges[] = {DATA_BASE, DATA_BASE + 0x1000, DATA_BASE + DATA_SIZE,
				    DATA_BASE + DATA_SIZE};
	u64 at = edges[below(g->r, ARRAY_SIZE(edges))] - below(g->r, 72);
	if (one_in(g->r, 4))
		at &= ~63ull;
	return at - g->plan->data_base;
}

/* EVEX of a map and opcode (SDM 2A 2.7.1), with the first base as memory operand. */
struct evex {
	u32 map, pp, w, length; /* length: 0 to 2 */
	u32 reg, vvvv, mask;
	bool zeroing, broadcast;
	u32 opcode;
};

static void put_evex(struct gen *g, const struct evex *e)
{
	int base = g->plan->base[0];
	if (g->plan->kind == KIND_16)
		put8(g, 0x67);
	put8(g, 0x62);
	put8(g, (e->reg & 8 ? 0 : 0x80) | 0x40 | (base & 8 ? 0 : 0x20) | (e->reg & 16 ? 0 : 0x10) |
		    e->map);
	put8(g, e->w << 7 | (~e->vvvv & 15) << 3 | 4 | e->pp);
	put8(g, (u32)e->zeroing << 7 | e->length << 5 | (u32)e->broadcast << 4 |
		    (e->vvvv & 16 ? 0 : 8) | e->mask);
	put8(g, e->opcode);
}

static void put_base(struct gen *g, u32 reg)
{
	int base = g->plan->base[0];
	put8(g, 0x40 | (reg & 7) << 3 | (u32)(base & 7));
	if ((base & 7) == 4)
		put8(g, 0x24);
	put8(g, 0);
}

static u32 vector_register(struct gen *g)
{
	return below(g->r, g->plan->kind == KIND_64 ? 32 : 8);
}

/* Masked moves, arithmetic with broadcast, conversions, compression and expansion at an edge. */
void put_masked(struct gen *g)
{
	static const struct {
		u8 map, pp, opcode;
		bool load, broadcast, wide; /* load: zeroing is possible; wide: W is free */
	} forms[] = {
	    {1, 2, 0x6f, true, false, true},  /* vmovdqu32/64 */
	    {1, 2, 0x7f, false, false, true}, /* the same, store */
	    {1, 3, 0x6f, true, false, true},  /* vmovdqu8/16 */
	    {1, 3, 0x7f, false, false, true},
	    {1, 1, 0x6f, true, false, true}, /* vmovdqa32/64 */
	    {1, 1, 0x7f, false, false, true},
	    {2, 1, 0x63, false, false, true},  /* vpcompressb/w */
	    {2, 1, 0x62, true, false, true},   /* vpexpandb/w */
	    {2, 1, 0x8a, false, false, true},  /* vcompressps/pd */
	    {2, 1, 0x88, true, false, true},   /* vexpandps/pd */
	    {2, 1, 0x8b, false, false, true},  /* vpcompressd/q */
	    {1, 1, 0xfe, true, true, false},   /* vpaddd */
	    {1, 0, 0x58, true, true, false},   /* vaddps */
	    {2, 2, 0x31, false, false, false}, /* vpmovdb */
	    {2, 2, 0x25, false, false, false}, /* vpmovsxdq's inverse: vpmovsqd */
	    {2, 1, 0x30, true, false, false},  /* vpmovzxbw */
	    {2, 1, 0x18, true, false, false},  /* vbroadcastss */
	    {2, 1, 0x5a, true, false, true},   /* vbroadcasti32x4/64x2 */
	    {2, 1, 0x8d, true, false, true},   /* vpermb/w: reads all of it */
	    {1, 2, 0x10, true, false, false},  /* vmovss */
	    {1, 2, 0x11, false, false, false},
	    {3, 1, 0x39, false, false, true}, /* vextracti32x4/64x2: checks all of it */
	};
	u32 n = below(g->r, ARRAY_SIZE(forms));
	struct evex e = {.map = forms[n].map,
			 .pp = forms[n].pp,
			 .opcode = forms[n].opcode,
			 .w = forms[n].wide ? below(g->r, 2) : 0,
			 .length = below(g->r, 3),
			 .reg = vector_register(g),
			 .mask = below(g->r, 8)};
	if (!(xstate.offered & XCR0_AVX512))
		return;
	e.zeroing = forms[n].load && e.mask && one_in(g->r, 2);
	if (e.opcode == 0x5a || e.map == 3)
		e.length = 2; /* what a CS limit might cut off must be defined */
	e.broadcast = forms[n].broadcast && one_in(g->r, 2);
	put_mov(g, g->plan->base[0], edge(g));
	put_evex(g, &e);
	put_base(g, e.reg);
	if (e.map == 3)
		put8(g, below(g->r, 2));
	put_purpose(g);
}

/* VPMOVZXBD or VPMOVZXBQ for the indices, then a gather or scatter; some of them at an edge. */
void put_gather(struct gen *g)
{
	const struct plan *plan = g->plan;
	u32 index_wide = below(g->r, 2), index = vector_register(g), length = below(g->r, 3);
	struct evex indices = {
	    .map = 2, .pp = 1, .opcode = 0x31 + index_wide, .length = 2, .reg = index};
	struct evex move = {.map = 2,
			    .pp = 1,
			    .opcode =
				(one_in(g->r, 2) ? 0x90 : 0xa0) | below(g->r, 2) << 1 | index_wide,
			    .w = below(g->r, 2),
			    .length = length,
			    .reg = vector_register(g),
			    .vvvv = index & 16,
			    .mask = 1 + below(g->r, 7)};
	if (!(xstate.offered & XCR0_AVX512) || move.reg == index)
		return; /* one register for both is undefined: see above */
	put_evex(g, &indices);
	put_base(g, indices.reg);
	put_mov(g, plan->base[0], one_in(g->r, 4) ? data_offset(g, 40) : edge(g));
	put_evex(g, &move);
	if (index & 8) /* X */
		g->out[g->used - 4] &= (u8)~0x40;
	put8(g, 0x44 | (move.reg & 7) << 3);
	put8(g, below(g->r, 4) << 6 | (index & 7) << 3 | (u32)(plan->base[0] & 7));
	put8(g, below(g->r, 4));
	put_purpose(g);
}
