/* ENTER and LEAVE, PUSHA and POPA, PUSHF and POPF, segment registers. */
#include "tests/diff/generate.h"

/* ENTER with any nesting, something, LEAVE. */
void put_frame(struct gen *g)
{
	u32 keep = g->keep;
	if (one_in(g->r, 3))
		put_mov(g, 5, g->plan->purpose[4] + 8);
	if (one_in(g->r, 6) && g->plan->kind != KIND_64)
		put8(g, 0x66);
	put8(g, 0xc8);
	put(g, below(g->r, 64), 2);
	put8(g, one_in(g->r, 3) ? below(g->r, 256) : below(g->r, 3));
	g->keep |= BIT(5);
	if (g->plan->base[0] != 5 && g->plan->base[1] != 5)
		put_any(g);
	g->keep = keep;
	put8(g, 0xc9);
	put_purpose(g);
}

void put_all_registers(struct gen *g)
{
	bool prefixed = one_in(g->r, 4);
	if (prefixed)
		put8(g, 0x66);
	put8(g, 0x60);
	if (one_in(g->r, 2))
		put_any(g);
	if (prefixed)
		put8(g, 0x66);
	if (!one_in(g->r, 4))
		put8(g, 0x61);
	else
		put8(g, 0x90);
	put_purpose(g);
}

/* PUSHF and POPF: what user code may not change must stay (SDM 2B, POPF). TF and AC would raise #DB
 * and #AC. */
void put_flags(struct gen *g)
{
	struct random *r = g->r;
	const struct plan *plan = g->plan;
	bool prefixed = one_in(r, 4);
	switch (below(r, 4)) {
	case 0:
		if (prefixed)
			put8(g, 0x66);
		put8(g, 0x9c);
		return;
	case 1:
		put8(g, one_in(r, 2) ? 0xfc : 0xfd);
		return;
	default:
		put8(g, 0x68); /* push imm32, imm16 */
		u32 flags = (u32)random_next(r) & ~0x40100u & (one_in(r, 2) ? 0xfff : ~0u);
		put(g, flags, plan->size == 2 ? 2 : 4);
		put8(g, 0x9d);
	}
}

static void put_mov_from_ax(struct gen *g, u16 selector, u32 segment)
{
	put8(g, 0xb8);
	put(g, selector, g->plan->size);
	put8(g, 0x8e);
	put8(g, 0xc0 | segment << 3);
}

/* Loads of segment registers, and instructions that look at selectors. */
void put_segment(struct gen *g)
{
	static const u8 loaded[] = {SEG_DS, SEG_ES, SEG_GS};
	struct random *r = g->r;
	const struct plan *plan = g->plan;
	u32 which = loaded[below(r, 3)];
	bool local = plan->kind != KIND_32;
	static const u16 global[] = {USER_CS32, USER_DS, USER_CS64, 0};
	u16 selector =
	    local && !one_in(r, 6) ? LDT_SELECTOR(below(r, LDT_SIZE)) : global[below(r, 4)];
	switch (below(r, 4)) {
	case 0: /* and back again */
		put_mov_from_ax(g, selector, which);
		put_purpose(g);
		if (one_in(r, 2))
			put_any(g);
		put_mov_from_ax(g, plan->seg[which], which);
		put_purpose(g);
		return;
	case 1: /* push; pop */
		put8(g, which == SEG_DS ? 0x1e : 0x06);
		put8(g, which == SEG_DS ? 0x1f : 0x07);
		return;
	case 2: /* SS with any expected size, then another instruction in its shadow */
		put_mov_from_ax(g, one_in(r, 6) ? selector : plan->seg[SEG_SS], SEG_SS);
		put_purpose(g);
		return;
	default: /* lar, lsl edx, eax; verr, verw ax */
		put8(g, 0xb8);
		put(g, selector, plan->size);
		put8(g, 0x0f);
		if (one_in(r, 2)) {
			put8(g, 2 + below(r, 2));
			put8(g, 0xd0);
		} else {
			put8(g, 0);
			put8(g, one_in(r, 2) ? 0xe0 : 0xe8);
		}
		put_purpose(g);
	}
}
