/*
 * What the TLBs keep of PCIDs that are not the current one (SDM 3A 4.10.1), and of VPIDs that are
 * not the current one (3C 29.4).
 *
 * Translated code looks only at mmu.tlb, .jump and .itlb. On a switch of PCIDs the entries there
 * that are not of global pages are put away with the PCID they belong to and the incoming PCID's,
 * if it has any, are put back: far cheaper than walking the tables for each again. Entries of .itlb
 * stay where they are, told apart by their epoch. While put away, entries
 * - of pages that got code in the meantime must not come back for writing: compared by
 *   v->protect_epoch, looked at one by one if it has changed;
 * - of .jump that lead to blocks which are gone must not come back: all are dropped if .jump_epoch
 *   has changed.
 * Everything else that makes entries invalid (tlb_flush()) drops what was put away.
 *
 * On a switch of VPIDs global pages and the supervisor's jumps are put away too, in a context of
 * their own, which stands for the VPID: without it nothing of that VPID is put back.
 */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"

static struct mmu_context *context_find(struct soft_vcpu *v, u64 pcid, bool globals)
{
	struct mmu *m = v->mmu;

	for (struct mmu_context *c = m->contexts; c < m->contexts + m->context_count; c++)
		if (c->left && c->vpid == m->vpid && c->globals == globals &&
		    (globals || (c->cr3 & CR3_PCID) == pcid))
			return c;
	return NULL;
}

/** A free one, or the one that was left the longest ago. */
static struct mmu_context *context_take(struct soft_vcpu *v)
{
	struct mmu *m = v->mmu;
	struct mmu_context *oldest = &m->contexts[0];

	for (struct mmu_context *c = oldest; c < m->contexts + m->context_count; c++)
		if (c->left < oldest->left)
			oldest = c;
	if ((!m->context_count || oldest->left) && m->context_count < CONTEXTS_MAX)
		oldest = &m->contexts[m->context_count++];
	return oldest;
}

void contexts_drop(struct mmu *m, u16 vpid)
{
	for (struct mmu_context *c = m->contexts; c < m->contexts + m->context_count; c++)
		if (c->vpid == vpid)
			c->left = 0;
}

/* The latest entries are the first to be put away. */
static void save_entries(struct soft_vcpu *v, struct mmu_context *c)
{
	const struct mmu *m = v->mmu;
	const u16 *log = c->globals ? m->tlb_global_log : m->tlb_log;
	u8 state = c->globals ? TLB_STATE_GLOBAL : 0;
	u32 n = 0;

	for (u32 k = c->globals ? m->tlb_global_logged : m->tlb_logged;
	     k-- > 0 && n < CONTEXT_ENTRIES_MAX;) {
		u32 number = log[k];
		const struct tlb_entry *entry = &all_entries(v)[number];

		if ((m->tlb_state[number] & TLB_STATE_GLOBAL) != state ||
		    entry->tag == empty_tag(number % TLB_SIZE))
			continue;
		c->number[n] = (u16)number;
		c->entry[n++] = *entry;
	}
	c->entries = n;
}

static void save_jumps(const struct mmu *m, struct mmu_context *c, enum mmu_index index)
{
	u32 n = c->jumps;

	for (u32 k = m->jump_logged[index]; k-- > 0 && n < CONTEXT_JUMPS_MAX;) {
		u32 slot = m->jump_log[index][k];
		const struct jump_entry *entry = &m->jump[index][slot];

		if (entry->rip == jump_empty(slot))
			continue;
		c->jump_slot[n] = (u16)slot;
		c->jump[n++] = *entry;
	}
	c->jumps = n;
	if (index != MMU_KERNEL_AC)
		c->jumps_plain = n;
	c->jump_mode[index] = m->jump_mode[index];
	c->jump_nonglobal[index] = m->jump_nonglobal[index];
	filter_copy(&c->code_pages[index], &m->code_pages[index]);
}

static void context_save(struct soft_vcpu *v, u64 cr3, bool globals)
{
	struct mmu_context *c = context_take(v);
	struct mmu *m = v->mmu;

	c->globals = globals;
	c->vpid = m->vpid;
	c->eptp = m->eptp;
	c->mbec = m->mbec;
	c->controls = m->left;
	c->cr3 = cr3;
	c->left = ++m->context_clock;
	c->protect_epoch = v->protect_epoch;
	c->jump_epoch = m->jump_epoch;
	c->itlb_epoch = globals ? m->itlb_global_epoch : m->itlb_epoch;
	filter_copy(&c->large_2m, &m->large_2m[globals]);
	filter_copy(&c->large_1g, &m->large_1g[globals]);
	save_entries(v, c);
	c->jumps = 0;
	if (globals) {
		save_jumps(m, c, MMU_KERNEL);
		save_jumps(m, c, MMU_KERNEL_AC);
	} else {
		save_jumps(m, c, MMU_USER);
	}
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
		entry_log(v->mmu, number, c->globals);
	}
}

static void restore_jumps(struct soft_vcpu *v, const struct mmu_context *c)
{
	struct mmu *m = v->mmu;
	u32 first = c->globals ? MMU_KERNEL : MMU_USER,
	    last = c->globals ? MMU_KERNEL_AC : MMU_USER;

	for (u32 index = first; index <= last; index++) {
		m->jump_mode[index] = c->jump_mode[index];
		m->jump_nonglobal[index] = c->jump_nonglobal[index];
		filter_copy(&m->code_pages[index], &c->code_pages[index]);
	}
	for (u32 k = c->jumps; k-- > 0;) {
		u32 index = k < c->jumps_plain ? first : (u32)MMU_KERNEL_AC;

		jump_cache_enter(v, (enum mmu_index)index, c->jump_slot[k], c->jump[k]);
	}
}

static void context_restore(struct soft_vcpu *v, const struct mmu_context *c)
{
	struct mmu *m = v->mmu;

	if (c->globals)
		m->itlb_global_epoch = c->itlb_epoch;
	else
		m->itlb_epoch = c->itlb_epoch;
	filter_copy(&m->large_2m[c->globals], &c->large_2m);
	filter_copy(&m->large_1g[c->globals], &c->large_1g);
	restore_entries(v, c);
	if (c->jump_epoch == m->jump_epoch)
		restore_jumps(v, c);
}

void context_switch(struct soft_vcpu *v, u64 cr3, bool keep)
{
	struct mmu_context *c = context_find(v, cr3 & CR3_PCID, false);

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
			c->left = ++v->mmu->context_clock;
		context_save(v, v->cr3, false);
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

static u64 current_pcid(const struct soft_vcpu *v)
{
	return v->cr4 & CR4_PCIDE ? v->cr3 & CR3_PCID : 0;
}

void context_flush(struct soft_vcpu *v, u64 pcid)
{
	struct mmu_context *c = context_find(v, pcid, false);

	shadow_flush_pcid(v, pcid);
	if (c)
		c->left = 0;
	if (pcid == current_pcid(v))
		tlb_flush_context(v, true);
}

void contexts_put_away(struct soft_vcpu *v)
{
	struct mmu *m = v->mmu;

	context_save(v, m->left.cr3, false);
	context_save(v, m->left.cr3, true);
}

bool contexts_take_back(struct soft_vcpu *v)
{
	struct mmu *m = v->mmu;
	struct mmu_context *globals = context_find(v, 0, true);

	if (!globals || globals->eptp != m->eptp || globals->mbec != m->mbec) {
		contexts_drop(m, m->vpid);
		return false;
	}

	struct mmu_context *c = context_find(v, globals->cr3 & CR3_PCID, false);

	m->left = globals->controls;
	if (c) {
		context_restore(v, c);
		c->left = 0;
	}
	context_restore(v, globals);
	globals->left = 0;
	return true;
}
