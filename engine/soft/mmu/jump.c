/*
 * The jump caches: where translated code goes on, by linear address. An entry is as good as the
 * translations of the pages its block lies in, so what forgets those comes here too. Inside.
 */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"

static void make_empty(struct soft_vcpu *v, enum mmu_index index, u32 slot)
{
	v->jump[index][slot].rip = jump_empty(slot);
}

void jump_cache_enter(struct soft_vcpu *v, enum mmu_index index, u32 slot, struct jump_entry entry)
{
	if (!v->jump[index][slot].code)
		v->jump_log[index][v->jump_logged[index]++] = (u16)slot;
	v->jump[index][slot] = entry;
}

static void drop(struct soft_vcpu *v, enum mmu_index index, u64 linear)
{
	u32 slot = jump_slot(linear);

	for (u32 k = 0; k < JUMP_WAYS; k++)
		if (v->jump[index][slot ^ k].rip == linear)
			make_empty(v, index, slot ^ k);
}

/** Where the entry may go that had @slot: a free slot beside it, or each in turn. */
static u32 other_slot(struct soft_vcpu *v, enum mmu_index index, u32 slot)
{
	for (u32 k = 1; k < JUMP_WAYS; k++)
		if (v->jump[index][slot ^ k].rip == jump_empty(slot))
			return slot ^ k;
	v->jump_turn = (v->jump_turn + 1) % (JUMP_WAYS - 1);
	return slot ^ (v->jump_turn + 1);
}

void jump_cache_put(struct soft_vcpu *v, enum mmu_index index, u64 linear, const u8 *code)
{
	u32 slot = jump_slot(linear);
	struct jump_entry before = v->jump[index][slot];

	drop(v, index, linear);
	jump_cache_enter(v, index, slot, (struct jump_entry){.rip = linear, .code = (u64)code});
	if (v->vm->tune.ways && before.rip != linear && before.rip != jump_empty(slot))
		jump_cache_enter(v, index, other_slot(v, index, slot), before);
}

const struct jump_entry *jump_cache_find(const struct soft_vcpu *v, enum mmu_index index,
					 u64 linear)
{
	const struct jump_entry *jump = v->jump[index];
	u32 slot = jump_slot(linear);

	for (u32 k = 0; k < JUMP_WAYS; k++)
		if (jump[slot ^ k].rip == linear)
			return &jump[slot ^ k];
	return NULL;
}

void jump_cache_drop(struct soft_vcpu *v, enum mmu_index index, u64 linear)
{
	drop(v, index, linear);
	if (index == MMU_USER)
		v->jump_epoch++;
}

void jump_caches_forget(struct soft_vcpu *v)
{
	for (enum mmu_index index = 0; index < MMU_COUNT; index++)
		jump_cache_clear(v, index);
	v->jump_epoch++;
}

static void cut_links(struct soft_vcpu *v, enum mmu_index index)
{
	if (index == MMU_USER)
		shadow_links_cut(v, blocks_cut_far(v));
}

void jump_cache_clear(struct soft_vcpu *v, enum mmu_index index)
{
	cut_links(v, index);
	for (u32 k = 0; k < v->jump_logged[index]; k++) {
		u32 slot = v->jump_log[index][k];

		make_empty(v, index, slot);
		v->jump[index][slot].code = 0;
	}
	for (u32 slot = 0; slot < JUMP_WAYS; slot++) /* of a new vCPU, which is all zeroes */
		make_empty(v, index, slot);
	v->jump_logged[index] = 0;
	v->jump_nonglobal[index] = 0;
	filter_clear(&v->code_pages[index]);
}

/** Whether a block that begins at @linear may have bytes in @size bytes from @base on: it may begin
 * before them. */
static bool may_touch(u64 linear, u64 base, u64 size)
{
	u64 before = INSN_BYTES_MAX - 1;

	/* 32-bit addresses wrap. */
	return linear - (base - before) < size + before ||
	       (!base && linear - (BIT(32) - before) < before);
}

void jump_cache_flush(struct soft_vcpu *v, enum mmu_index index, u64 base, u64 size)
{
	cut_links(v, index);
	for (u32 k = 0; k < v->jump_logged[index]; k++) {
		u32 slot = v->jump_log[index][k];

		if (may_touch(v->jump[index][slot].rip, base, size))
			make_empty(v, index, slot);
	}
}
