/* Code that writes the code ahead of it, or code that has run already; flat segments only. */
#include "tests/diff/generate.h"

#include <string.h>

/* MOV byte [address], value */
static void put_store(struct gen *g, u64 address, u8 value)
{
	put8(g, 0xc6);
	if (g->plan->kind == KIND_64) {
		put8(g, 0x04);
		put8(g, 0x25);
	} else {
		put8(g, 0x05);
	}
	put(g, address, 4);
	put8(g, value);
}

static u32 store_size(const struct gen *g)
{
	return g->plan->kind == KIND_64 ? 8 : 7;
}

/* Another instruction of @length bytes, or NOPs if none is found soon. */
static void make_other(struct gen *g, u8 *other, u32 length)
{
	for (u32 n = 0; n < 50; n++) {
		/* no operand may depend on where it is */
		if (make_any(g, other, 0) == length)
			return;
	}
	memset(other, 0x90, length);
}

static void put_bytes(struct gen *g, const u8 *bytes, u32 length)
{
	for (u32 n = 0; n < length; n++)
		put8(g, bytes[n]);
}

/* Stores, then the place they changed. */
static void put_ahead(struct gen *g, const u8 *old, const u8 *other, u32 length)
{
	u64 place = here(g) + length * store_size(g);
	bool between = one_in(g->r, 2);
	u8 extra[15];
	u32 extra_size = between ? make_any(g, extra, place) : 0;
	/* The stores' own address checks believe in the flags that the old code reads
	 * (docs/quirks.md). */
	u8 killer[2] = {0x01,
			0xc0 | (u8)(9 * spare_register(g))}; /* add r, r: writes all of them */
	place += extra_size + sizeof(killer);
	for (u32 n = 0; n < length; n++)
		put_store(g, place + n, other[n]);
	put_bytes(g, extra, extra_size);
	put_bytes(g, killer, sizeof(killer));
	put_bytes(g, old, length);
}

/* A loop whose first round runs @old and replaces it; it counts in @reg. */
static void put_behind(struct gen *g, int reg, const u8 *old, const u8 *other, u32 length)
{
	put_mov(g, reg, 2 + below(g->r, 2));
	u32 top = g->used;
	u64 place = here(g);
	put_bytes(g, old, length);
	for (u32 n = 0; n < length; n++)
		put_store(g, place + n, other[n]);
	put8(g, 0x83); /* sub reg, 1: writes all flags, as above; jnz */
	put8(g, 0xe8 | (u32)reg);
	put8(g, 1);
	put8(g, 0x75);
	put8(g, top - (g->used + 1));
}

/* REP MOVSB from code to code. */
static void put_copy(struct gen *g, const u8 *old, const u8 *other, u32 length)
{
	put8(g, 0xeb);
	put8(g, length);
	u64 source = here(g);
	put_bytes(g, other, length);
	put_mov(g, 6, source);
	put_mov(g, 1, length);
	u32 start = g->used; /* RSI and RDI may be bases of the code that is copied */
	put_purpose(g);
	u32 purpose_size = g->used - start;
	g->used = start;
	put_mov(g, 7, here(g) + 5 + 1 + 2 + purpose_size);
	put8(g, 0xfc);
	put(g, 0xa4f3, 2);
	put_purpose(g);
	put_bytes(g, old, length);
}

void put_self_modification(struct gen *g)
{
	u8 old[15], other[15];
	u32 length, keep = g->keep;
	int counter = spare_register(g);
	g->keep |= BIT(counter);
	do
		length = make_any(g, old, here(g) + 0x1000);
	while (length > 7);
	make_other(g, other, length);
	switch (below(g->r, 3)) {
	case 0:
		put_ahead(g, old, other, length);
		break;
	case 1:
		put_behind(g, counter, old, other, length);
		break;
	default:
		put_copy(g, old, other, length);
		break;
	}
	g->keep = keep;
}
