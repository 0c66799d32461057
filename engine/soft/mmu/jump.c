/*
 * The jump caches: where translated code goes on, by linear address. An entry is as good as the
 * translations of the pages its block lies in, so what forgets those comes here too. Inside.
 */
#include "engine/soft/mmu/internal.h"

static void make_empty(struct soft_vcpu *v, enum mmu_index index, u32 slot)
{
	v->jump[index][slot].rip = jump_empty(slot);
}

void jump_cache_put(struct soft_vcpu *v, enum mmu_index index, u64 linear, const u8 *code)
{
	u32 slot = jump_slot(linear);
	struct jump_entry *entry = &v->jump[index][slot];

	if (!entry->code)
		v->jump_log[index][v->jump_logged[index]++] = (u16)slot;
	entry->rip = linear;
	entry->code = (u64)code;
}

void jump_cache_drop(struct soft_vcpu *v, enum mmu_index index, u64 linear)
{
	u32 slot = jump_slot(linear);

	if (v->jump[index][slot].rip == linear)
		make_empty(v, index, slot);
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
	v->jump_logged[index] = 0;
	v->jump_nonglobal[index] = 0;
	filter_clear(&v->code_pages[index]);
}

void jump_cache_flush_page(struct soft_vcpu *v, enum mmu_index index, u64 page)
{
	/* A block that crosses into the page begins before it. */
	u64 first = page - (INSN_BYTES_MAX - 1);

	if (!filter_has(&v->code_pages[index], page / PAGE_SIZE))
		return;
	for (u32 k = 0; k < v->jump_logged[index]; k++) {
		u32 slot = v->jump_log[index][k];

		if (v->jump[index][slot].rip - first < PAGE_SIZE + INSN_BYTES_MAX - 1)
			make_empty(v, index, slot);
	}
}
