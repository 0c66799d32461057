/*
 * The jump caches: where translated code goes on, by linear address. An entry is as good as the
 * translations of the pages its block lies in, so what forgets those comes here too. Inside.
 */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/translate/mode.h"

static void make_empty(struct mmu *m, enum mmu_index index, u32 slot)
{
	m->jump[index][slot].rip = jump_empty(slot);
}

void jump_cache_enter(struct soft_vcpu *v, enum mmu_index index, u32 slot, struct jump_entry entry)
{
	struct mmu *m = v->mmu;

	if (!m->jump[index][slot].code)
		m->jump_log[index][m->jump_logged[index]++] = (u16)slot;
	m->jump[index][slot] = entry;
}

static void drop(struct mmu *m, enum mmu_index index, u64 linear)
{
	u32 slot = jump_slot(linear);

	for (u32 k = 0; k < JUMP_WAYS; k++)
		if (m->jump[index][slot ^ k].rip == linear)
			make_empty(m, index, slot ^ k);
}

/** Where the entry may go that had @slot: a free slot beside it, or each in turn. */
static u32 other_slot(struct soft_vcpu *v, enum mmu_index index, u32 slot)
{
	for (u32 k = 1; k < JUMP_WAYS; k++)
		if (v->mmu->jump[index][slot ^ k].rip == jump_empty(slot))
			return slot ^ k;
	v->jump_turn = (v->jump_turn + 1) % (JUMP_WAYS - 1);
	return slot ^ (v->jump_turn + 1);
}

void jump_cache_put(struct soft_vcpu *v, enum mmu_index index, u64 linear, const u8 *code)
{
	u32 slot = jump_slot(linear);
	struct jump_entry before = v->mmu->jump[index][slot];

	drop(v->mmu, index, linear);
	jump_cache_enter(v, index, slot, (struct jump_entry){.rip = linear, .code = (u64)code});
	if (v->vm->tune.ways && before.rip != linear && before.rip != jump_empty(slot))
		jump_cache_enter(v, index, other_slot(v, index, slot), before);
}

const struct jump_entry *jump_cache_find(const struct soft_vcpu *v, enum mmu_index index,
					 u64 linear)
{
	const struct jump_entry *jump = v->mmu->jump[index];
	u32 slot = jump_slot(linear);

	for (u32 k = 0; k < JUMP_WAYS; k++)
		if (jump[slot ^ k].rip == linear)
			return &jump[slot ^ k];
	return NULL;
}

void jump_cache_drop(struct soft_vcpu *v, u32 mode, u64 linear)
{
	struct mmu *m = &v->mmus[MODE_SET(mode)];
	enum mmu_index index = (enum mmu_index)MODE_MMU(mode);

	drop(m, index, linear);
	if (index == MMU_USER || m == &v->mmus[MMU_NONROOT])
		m->jump_epoch++;
}

/** Of both operations: whose they are is not known. */
static void cut_links(struct soft_vcpu *v, enum mmu_index index)
{
	if (index == MMU_USER)
		shadow_links_cut(v, blocks_cut_far(v));
}

static void clear(struct soft_vcpu *v, struct mmu *m, enum mmu_index index)
{
	cut_links(v, index);
	for (u32 k = 0; k < m->jump_logged[index]; k++) {
		u32 slot = m->jump_log[index][k];

		make_empty(m, index, slot);
		m->jump[index][slot].code = 0;
	}
	for (u32 slot = 0; slot < JUMP_WAYS; slot++) /* of a new vCPU, which is all zeroes */
		make_empty(m, index, slot);
	m->jump_logged[index] = 0;
	m->jump_nonglobal[index] = 0;
	filter_clear(&m->code_pages[index]);
}

void jump_cache_clear(struct soft_vcpu *v, enum mmu_index index)
{
	clear(v, v->mmu, index);
}

void jump_caches_forget(struct soft_vcpu *v)
{
	for (struct mmu *m = v->mmus; m < v->mmus + MMU_SETS; m++) {
		for (enum mmu_index index = 0; index < MMU_COUNT; index++)
			clear(v, m, index);
		m->jump_epoch++;
	}
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
	struct mmu *m = v->mmu;

	cut_links(v, index);
	for (u32 k = 0; k < m->jump_logged[index]; k++) {
		u32 slot = m->jump_log[index][k];

		if (may_touch(m->jump[index][slot].rip, base, size))
			make_empty(m, index, slot);
	}
}
