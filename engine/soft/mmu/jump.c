/*
 * The jump caches: where translated code goes on, by linear address. An entry is as good as the
 * translations of the pages its block lies in, so what forgets those comes here too. Inside.
 */
#include "engine/soft/mmu/internal.h"

static void make_empty(struct soft_vcpu *v, enum mmu_index index, u32 slot)
{
	v->jump[index][slot].rip = jump_empty(slot);
}

static void put(struct soft_vcpu *v, enum mmu_index index, u32 slot, struct jump_entry entry)
{
	if (!v->jump[index][slot].code)
		v->jump_log[index][v->jump_logged[index]++] = (u16)slot;
	v->jump[index][slot] = entry;
}

void jump_cache_put(struct soft_vcpu *v, enum mmu_index index, u64 linear, const u8 *code)
{
	u32 slot = jump_slot(linear);
	const struct jump_entry *entry = &v->jump[index][slot];

	/* Who is there goes next door: both slots are good for it. */
	if (v->vm->tune.ways && entry->rip != linear && entry->rip != jump_empty(slot))
		put(v, index, jump_second(slot), *entry);
	put(v, index, slot, (struct jump_entry){.rip = linear, .code = (u64)code});
}

const struct jump_entry *jump_cache_find(const struct soft_vcpu *v, enum mmu_index index,
					 u64 linear)
{
	u32 slot = jump_slot(linear);

	if (v->jump[index][slot].rip != linear)
		slot = jump_second(slot);
	return v->jump[index][slot].rip == linear ? &v->jump[index][slot] : NULL;
}

void jump_cache_drop(struct soft_vcpu *v, enum mmu_index index, u64 linear)
{
	u32 slot = jump_slot(linear);

	if (v->jump[index][slot].rip == linear)
		make_empty(v, index, slot);
	if (v->jump[index][jump_second(slot)].rip == linear)
		make_empty(v, index, jump_second(slot));
	if (index == MMU_USER)
		v->jump_epoch++;
}

void jump_caches_forget(struct soft_vcpu *v)
{
	for (enum mmu_index index = 0; index < MMU_COUNT; index++)
		jump_cache_clear(v, index);
	v->jump_epoch++;
}

void jump_cache_clear(struct soft_vcpu *v, enum mmu_index index)
{
	for (u32 k = 0; k < v->jump_logged[index]; k++) {
		u32 slot = v->jump_log[index][k];

		make_empty(v, index, slot);
		v->jump[index][slot].code = 0;
	}
	make_empty(v, index, 0); /* of a new vCPU, which is all zeroes */
	make_empty(v, index, 1);
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
	for (u32 k = 0; k < v->jump_logged[index]; k++) {
		u32 slot = v->jump_log[index][k];

		if (may_touch(v->jump[index][slot].rip, base, size))
			make_empty(v, index, slot);
	}
}
