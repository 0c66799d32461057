/*
 * What the TLBs keep of PCIDs that are not the current one (SDM 3A 4.10.1).
 *
 * Translated code looks only at v->tlb, v->jump and v->itlb. On a switch the entries there that are
 * not of global pages are put away with the PCID they belong to and the incoming PCID's, if it has
 * any, are put back: far cheaper than walking the tables for each again. Entries of v->itlb stay
 * where they are, told apart by their epoch. While put away, entries
 * - of pages that got code in the meantime must not come back for writing: compared by
 *   v->protect_epoch, looked at one by one if it has changed;
 * - of v->jump that lead to blocks which are gone must not come back: all are dropped if
 *   v->jump_epoch has changed.
 * Everything else that makes entries invalid (tlb_flush()) drops what was put away.
 */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"

static struct mmu_context *context_find(struct soft_vcpu *v, u64 pcid)
{
	for (u32 n = 0; n < CONTEXTS_MAX; n++)
		if (v->contexts[n].left && (v->contexts[n].cr3 & CR3_PCID) == pcid)
			return &v->contexts[n];
	return NULL;
}

/** A free one, or the one that was left the longest ago. */
static struct mmu_context *context_take(struct soft_vcpu *v)
{
	struct mmu_context *oldest = &v->contexts[0];

	for (u32 n = 1; n < CONTEXTS_MAX; n++)
		if (v->contexts[n].left < oldest->left)
			oldest = &v->contexts[n];
	return oldest;
}

void contexts_drop(struct soft_vcpu *v)
{
	for (u32 n = 0; n < CONTEXTS_MAX; n++)
		v->contexts[n].left = 0;
}

/* The latest entries are the first to be put away. */
static void save_entries(struct soft_vcpu *v, struct mmu_context *c)
{
	u32 n = 0;

	for (u32 k = v->tlb_logged; k-- > 0 && n < CONTEXT_ENTRIES_MAX;) {
		u32 number = v->tlb_log[k];
		const struct tlb_entry *entry = &all_entries(v)[number];

		if ((v->tlb_state[number] & TLB_STATE_GLOBAL) ||
		    entry->tag == empty_tag(number % TLB_SIZE))
			continue;
		c->number[n] = (u16)number;
		c->entry[n++] = *entry;
	}
	c->entries = n;
}

static void save_jumps(struct soft_vcpu *v, struct mmu_context *c)
{
	u32 n = 0;

	for (u32 k = v->jump_logged[MMU_USER]; k-- > 0 && n < CONTEXT_JUMPS_MAX;) {
		u32 slot = v->jump_log[MMU_USER][k];
		const struct jump_entry *entry = &v->jump[MMU_USER][slot];

		if (entry->rip == jump_empty(slot))
			continue;
		c->jump_slot[n] = (u16)slot;
		c->jump[n++] = *entry;
	}
	c->jumps = n;
}

static void context_save(struct soft_vcpu *v, struct mmu_context *c)
{
	c->cr3 = v->cr3;
	c->left = ++v->context_clock;
	c->protect_epoch = v->protect_epoch;
	c->jump_epoch = v->jump_epoch;
	c->itlb_epoch = v->itlb_epoch;
	c->jump_mode = v->jump_mode[MMU_USER];
	filter_copy(&c->large_2m, &v->large_2m[false]);
	filter_copy(&c->large_1g, &v->large_1g[false]);
	filter_copy(&c->code_pages, &v->code_pages[MMU_USER]);
	save_entries(v, c);
	save_jumps(v, c);
}

/** Whether the page of write entry @number may be written in place, as when the entry was made. */
static bool still_plain(struct soft_vcpu *v, u32 number, u64 host)
{
	struct memslot *slot = phys_slot_of_host(v->vm, host);

	if (!slot)
		return false;

	u64 gpa = slot->gpa + (host - (u64)slot->host);

	/* What tlb_protect_host() knew of the entry it has forgotten. */
	note_writer(slot, gpa, number % TLB_SIZE);
	return phys_plain_write(slot, gpa);
}

static void restore_entries(struct soft_vcpu *v, const struct mmu_context *c)
{
	bool same = c->protect_epoch == v->protect_epoch;

	for (u32 k = c->entries; k-- > 0;) {
		u32 number = c->number[k];

		if (unlikely(!same && entry_writes(number) &&
			     !still_plain(v, number, c->entry[k].host)))
			continue;
		all_entries(v)[number] = c->entry[k];
		v->tlb_state[number] =
		    (v->tlb_state[number] & TLB_STATE_GLOBAL_LOGGED) | TLB_STATE_LOGGED;
		v->tlb_log[v->tlb_logged++] = (u16)number;
	}
}

static void context_restore(struct soft_vcpu *v, const struct mmu_context *c)
{
	v->itlb_epoch = c->itlb_epoch;
	filter_copy(&v->large_2m[false], &c->large_2m);
	filter_copy(&v->large_1g[false], &c->large_1g);
	restore_entries(v, c);
	if (c->jump_epoch != v->jump_epoch)
		return;
	v->jump_mode[MMU_USER] = c->jump_mode;
	filter_copy(&v->code_pages[MMU_USER], &c->code_pages);
	for (u32 k = c->jumps; k-- > 0;)
		jump_cache_enter(v, MMU_USER, c->jump_slot[k], c->jump[k]);
}

void context_switch(struct soft_vcpu *v, u64 cr3, bool keep)
{
	struct mmu_context *c = context_find(v, cr3 & CR3_PCID);

	if (keep && cr3 == v->cr3)
		return;
	if (!v->vm->tune.contexts) {
		tlb_flush_context(v, cr3 == v->cr3);
		return;
	}
	if (cr3 != v->cr3)
		shadow_compare_code(v);
	if ((v->cr3 ^ cr3) & CR3_PCID) {
		/* The incoming one's room is not to be taken. */
		if (c)
			c->left = ++v->context_clock;
		context_save(v, context_take(v));
	}
	tlb_flush_context(v, cr3 == v->cr3);
	if (!c)
		return;
	/* The same PCID for other tables, without a flush: nothing that is kept would be wrong
	 * (SDM 3A 4.10.4.1), but nothing would be right either. */
	if (keep && c->cr3 == cr3)
		context_restore(v, c);
	c->left = 0;
}

void context_flush(struct soft_vcpu *v, u64 pcid)
{
	u64 current = v->cr4 & CR4_PCIDE ? v->cr3 & CR3_PCID : 0;
	struct mmu_context *c = context_find(v, pcid);

	shadow_flush_pcid(v, pcid);
	if (c)
		c->left = 0;
	if (pcid == current)
		tlb_flush_context(v, true);
}
