/* Branches: over something, back in bounded loops, through registers and memory, calls and returns.
 */
#include "tests/diff/generate.h"

int spare_register(struct gen *g)
{
	for (;;) {
		int reg = (int)below(g->r, 8);
		if (reg != 4 && reg != g->plan->base[0] && reg != g->plan->base[1] &&
		    reg != g->plan->index && !(g->keep & BIT(reg)))
			return reg;
	}
}

/* The displacement byte at @at becomes that of a jump to @target. */
static void fix8(struct gen *g, u32 at, u32 target)
{
	g->out[at] = (u8)(target - (at + 1));
}

static void put_body(struct gen *g, u32 most)
{
	for (u32 n = 1 + below(g->r, most); n; n--)
		put_any(g);
}

/* Jcc or JRCXZ over an instruction or two. */
void put_skip(struct gen *g)
{
	if (one_in(g->r, 8))
		put8(g, one_in(g->r, 2) ? 0x67 : 0x3e); /* JECXZ for JRCXZ; a hint */
	put8(g, one_in(g->r, 12) ? 0xe3 : 0x70 | below(g->r, 16));
	u32 at = g->used;
	put8(g, 0);
	put_body(g, 2);
	fix8(g, at, g->used);
}

/* LOOP, LOOPE, LOOPNE count in (E/R)CX; DEC and JNZ in any register, by short and near jumps. */
void put_loop(struct gen *g)
{
	u32 keep = g->keep;
	bool counted = one_in(g->r, 2);
	int reg = counted ? 1 : spare_register(g);
	put_mov(g, reg, 1 + below(g->r, 5));
	g->keep |= BIT(reg);
	u32 top = g->used;
	put_body(g, 3);
	if (counted) {
		put8(g, 0xe0 + below(g->r, 3));
		put8(g, top - (g->used + 1));
	} else {
		put8(g, 0xff); /* dec: in 16-bit code the lower half, enough */
		put8(g, 0xc8 | (u32)reg);
		put8(g, 0x0f);
		put8(g, one_in(g->r, 2) ? 0x85 : 0x8f); /* jnz, jg */
		u32 bytes = g->plan->size == 2 ? 2 : 4;
		put(g, (u64)top - (g->used + bytes), bytes);
	}
	g->keep = keep;
	put_purpose(g);
}

static void put_junk(struct gen *g)
{
	for (u32 n = below(g->r, 6); n; n--)
		put8(g, (u32)random_next(g->r));
}

/* JMP over junk: direct, or to an address in a register, in memory or on the stack. */
void put_jump(struct gen *g)
{
	u32 form = below(g->r, 6), at;
	int reg = spare_register(g);
	switch (form) {
	case 0:
		put8(g, 0xeb);
		at = g->used;
		put8(g, 0);
		put_junk(g);
		fix8(g, at, g->used);
		return;
	case 1: /* there and back */
		put8(g, 0xeb);
		at = g->used;
		put8(g, 0);
		u32 back = g->used;
		put_any(g);
		put8(g, 0xeb);
		u32 out = g->used;
		put8(g, 0);
		fix8(g, at, g->used);
		put8(g, 0x70 | below(g->r, 16));
		put8(g, back - (g->used + 1));
		fix8(g, out, g->used);
		return;
	case 2:
		if (g->plan->kind == KIND_64 || !one_in(g->r, 8))
			break;
		put_size(g, 6 - g->plan->size); /* the offset becomes 16 or 32 bits wide */
		put8(g, 0xe9);
		put(g, 0, 6 - g->plan->size);
		return;
	default:
		break;
	}
	/* mov reg, target; then jmp reg, or push reg; ret, or jmp [rsp] */
	u32 junk = below(g->r, 6), mov = g->used;
	put_mov(g, reg, 0x11111111);
	u32 value = g->used - 4;
	if (g->plan->kind != KIND_64 && one_in(g->r, 16))
		put8(g, 0x66); /* a target of the other size */
	if (form < 4) {
		put8(g, 0xff);
		put8(g, 0xe0 | (u32)reg);
	} else if (form == 4 || g->plan->kind == KIND_16) {
		put8(g, 0x50 | (u32)reg);
		put8(g, 0xc3);
	} else {
		put8(g, 0x50 | (u32)reg);
		put(g, 0x2424ff, 3); /* jmp [rsp] */
	}
	for (; junk; junk--)
		put8(g, (u32)random_next(g->r));
	u64 target = here(g);
	for (u32 n = 0; n < 4 && mov < value; n++)
		g->out[value + n] = (u8)(target >> (8 * n));
}

/* CALL of a subroutine that ends in RET or RET n; direct or through a register. */
void put_call(struct gen *g)
{
	u32 near = g->plan->size == 2 ? 2 : 4, keep = g->keep;
	bool releases = one_in(g->r, 2);
	u32 words = below(g->r, 3);
	put8(g, 0xeb);
	u32 at = g->used;
	put8(g, 0);
	u32 top = g->used;
	u64 address = here(g);
	g->keep |= BIT(4); /* a pushed register would be returned to, perhaps for ever */
	put_body(g, 2);
	g->keep = keep;
	put8(g, releases ? 0xc2 : 0xc3);
	if (releases)
		put(g, words * g->plan->size, 2);
	fix8(g, at, g->used);
	for (u32 n = 0; releases && n < words; n++) {
		put8(g, 0x6a); /* push imm8 */
		put8(g, below(g->r, 256));
	}
	if (one_in(g->r, 2)) {
		put8(g, 0xe8);
		put(g, (u64)top - (g->used + near), near);
	} else {
		int reg = spare_register(g);
		put_mov(g, reg, address);
		put8(g, 0xff);
		put8(g, 0xd0 | (u32)reg);
	}
}
