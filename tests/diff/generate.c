/* Sequences: parts of several sorts, one after another. */
#include "tests/diff/generate.h"

#include <string.h>

void put_size(struct gen *g, u32 bytes)
{
	u32 usual = g->plan->kind == KIND_16 ? 2 : 4;
	if (bytes == 8)
		put8(g, 0x48);
	else if (bytes != usual)
		put8(g, 0x66);
}

void put_mov(struct gen *g, int reg, u64 value)
{
	u32 bytes = g->plan->size == 8 && value >> 32 ? 8 : 4;
	if (reg >= 8)
		put8(g, bytes == 8 ? 0x49 : 0x41);
	else if (bytes == 8 || g->plan->kind == KIND_16)
		put_size(g, bytes);
	put8(g, 0xb8 | (u32)(reg & 7));
	put(g, value, bytes);
}

void put_purpose(struct gen *g)
{
	const int regs[] = {g->plan->base[0], g->plan->base[1], g->plan->index};
	for (u32 n = 0; n < ARRAY_SIZE(regs); n++)
		put_mov(g, regs[n], g->plan->purpose[regs[n]]);
}

u64 data_offset(struct gen *g, u32 wild)
{
	u64 offset = 0x1000 + below(g->r, (u32)DATA_SIZE - 0x1100);
	if (one_in(g->r, wild))
		offset = one_in(g->r, 2) ? DATA_SIZE - below(g->r, 40) : below(g->r, 24) - 8ull;
	return DATA_BASE + offset - g->plan->data_base;
}

/* The parts, and how many of a hundred are of a sort. */
static const struct part {
	void (*put)(struct gen *g);
	u8 weight[KIND_COUNT]; /* 64, 32, 32 with segments, 16 */
} parts[] = {
    {put_any, {63, 53, 53, 53}},
    {put_masked, {3, 3, 3, 3}},
    {put_gather, {2, 2, 2, 2}},
    {put_skip, {8, 8, 8, 8}},
    {put_loop, {3, 3, 3, 3}},
    {put_jump, {3, 3, 3, 3}},
    {put_call, {3, 3, 3, 3}},
    {put_string, {4, 5, 7, 7}},
    {put_compare_exchange, {2, 2, 2, 2}},
    {put_table, {1, 2, 2, 2}},
    {put_gs, {3, 0, 0, 0}},
    {put_frame, {1, 2, 3, 3}},
    {put_all_registers, {0, 3, 3, 3}},
    {put_flags, {2, 2, 2, 2}},
    {put_segment, {0, 2, 4, 4}},
    {put_unmasked, {1, 1, 1, 1}},
    {put_forbidden, {1, 1, 1, 1}},
    {put_self_modification, {2, 2, 0, 0}},
    {put_strides, {2, 2, 0, 0}},
    {put_fields, {2, 2, 0, 0}},
};

static const struct part *choose_part(struct gen *g)
{
	static const struct part strides = {put_strides, {0}}, fields = {put_fields, {0}};
	u32 total = 0, n = 0;
	if (g->plan->strides && !one_in(g->r, 4))
		return one_in(g->r, 2) ? &strides : &fields;
	for (u32 k = 0; k < ARRAY_SIZE(parts); k++)
		total += parts[k].weight[g->plan->kind];
	for (u32 pick = below(g->r, total); pick >= parts[n].weight[g->plan->kind]; n++)
		pick -= parts[n].weight[g->plan->kind];
	return &parts[n];
}

u32 generate(struct random *r, const struct plan *plan, u8 *out, u32 room, u32 count)
{
	struct gen g = {.r = r, .plan = plan, .out = out, .room = room};
	if (plan->stack_size == 2) /* IRET to a 16-bit stack loads only SP (SDM 2A, IRET) */
		put_mov(&g, 4, plan->purpose[4]);
	for (u32 n = 0; n < count && g.used + 400 < room; n++)
		choose_part(&g)->put(&g);
	put8(&g, 0xcc);
	return g.used;
}
