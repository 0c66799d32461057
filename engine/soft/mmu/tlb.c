/*
 * The software TLBs, data and code.
 *
 * Flushes must be cheap: logs list the entries in use, those of pages that are not global apart.
 * The code TLB is emptied by giving it another epoch.
 */
#include "debug/trace.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/vmx/vmx.h"

static u32 tlb_slot(u64 linear)
{
	return (linear / PAGE_SIZE) & (TLB_SIZE - 1);
}

/** Number of an entry in all_entries(). */
static u32 entry_number(enum mmu_index index, bool write, u32 slot)
{
	return (index * 2u + write) * TLB_SIZE + slot;
}

/* ---- flushing ---- */

static void empty_first_slots(struct soft_vcpu *v)
{
	for (u32 table = 0; table < MMU_COUNT * 2; table++)
		all_entries(v)[table * TLB_SIZE].tag = empty_tag(0);
}

static void flush_all_entries(struct soft_vcpu *v)
{
	gp_fill(v->mmu->tlb, 0, sizeof(v->mmu->tlb));
	empty_first_slots(v);
	gp_fill(v->mmu->tlb_state, 0, sizeof(v->mmu->tlb_state));
	v->mmu->tlb_logged = 0;
	v->mmu->tlb_global_logged = 0;
}

static void flush_logged_entries(struct soft_vcpu *v)
{
	struct tlb_entry *entries = all_entries(v);
	struct mmu *m = v->mmu;

	for (u32 k = 0; k < m->tlb_logged; k++) {
		u32 number = m->tlb_log[k];

		if (!(m->tlb_state[number] & TLB_STATE_GLOBAL))
			entries[number].tag = empty_tag(number % TLB_SIZE);
		m->tlb_state[number] &= (u8)~TLB_STATE_LOGGED;
	}
	m->tlb_logged = 0;
}

static void flush_global_entries(struct soft_vcpu *v)
{
	struct tlb_entry *entries = all_entries(v);
	struct mmu *m = v->mmu;

	for (u32 k = 0; k < m->tlb_global_logged; k++) {
		u32 number = m->tlb_global_log[k];

		if (m->tlb_state[number] & TLB_STATE_GLOBAL)
			entries[number].tag = empty_tag(number % TLB_SIZE);
		m->tlb_state[number] &= TLB_STATE_LOGGED;
	}
	m->tlb_global_logged = 0;
}

void tlb_flush_context(struct soft_vcpu *v, bool same)
{
	v->stats.tlb_flushes++;
	trace_gp(mmu, 1, "vcpu %u: flush of the current PCID at rip %#llx", v->base.id,
		 (unsigned long long)v->rip);
	v->mmu->itlb_epoch = ++v->mmu->itlb_epochs;
	filter_clear(&v->mmu->large_2m[false]);
	filter_clear(&v->mmu->large_1g[false]);
	flush_logged_entries(v);
	if (!same || !shadow_keeps_code(v))
		jump_cache_clear(v, MMU_USER);
	for (enum mmu_index index = MMU_KERNEL; index < MMU_COUNT; index++)
		if (v->mmu->jump_nonglobal[index])
			jump_cache_clear(v, index);
}

void tlb_flush_live(struct soft_vcpu *v)
{
	tlb_flush_context(v, false);
	flush_global_entries(v);
	v->mmu->itlb_global_epoch = ++v->mmu->itlb_epochs;
	filter_clear(&v->mmu->large_2m[true]);
	filter_clear(&v->mmu->large_1g[true]);
	for (enum mmu_index index = MMU_KERNEL; index < MMU_COUNT; index++)
		jump_cache_clear(v, index);
}

void tlb_flush(struct soft_vcpu *v, bool keep_global)
{
	contexts_drop(v->mmu, v->mmu->vpid);
	shadow_flush(v);
	if (keep_global) {
		tlb_flush_context(v, false);
		return;
	}
	tlb_flush_live(v);
	v->mmu->wp_ignored = false;
	if (!v->vm->tune.flushes)
		flush_all_entries(v);
}

void tlb_init(struct soft_vcpu *v)
{
	for (u32 set = MMU_SETS; set-- > 0;) { /* MMU_ROOT comes last, and stays */
		v->mmu = &v->mmus[set];
		empty_first_slots(v);
		tlb_flush(v, false);
	}
	v->mmu->used = true;
}

void tlb_forget(struct soft_vcpu *v)
{
	struct mmu *current = v->mmu;

	for (u32 set = 0; set < MMU_SETS; set++) {
		v->mmu = &v->mmus[set];
		if (!v->mmu->used)
			continue;
		tlb_flush(v, false);
		v->mmu->ept_epoch++;
		for (u32 n = 0; n < v->mmu->context_count; n++)
			v->mmu->contexts[n].left = 0;
	}
	v->mmu = current;
	shadow_invalidate(v, 0, 0);
}

void tlb_flush_wp(struct soft_vcpu *v)
{
	if (!v->vm->tune.flushes) {
		tlb_flush(v, false);
		return;
	}
	if (!v->mmu->wp_ignored)
		return;
	v->mmu->wp_ignored = false;
	contexts_drop(v->mmu, v->mmu->vpid);
	for (enum mmu_index index = MMU_KERNEL; index < MMU_COUNT; index++)
		for (u32 slot = 0; slot < TLB_SIZE; slot++)
			v->mmu->tlb[index].write[slot].tag = empty_tag(slot);
}

/** Of the entries that @log lists, drops those of @size bytes from @base on. */
static void flush_logged_region(struct soft_vcpu *v, const u16 *log, u32 logged, u64 base, u64 size)
{
	struct tlb_entry *entries = all_entries(v);

	for (u32 k = 0; k < logged; k++)
		if (entries[log[k]].tag - base < size)
			entries[log[k]].tag = empty_tag(log[k] % TLB_SIZE);
}

/** All that is known of @size bytes from @base on, global or not. */
static void flush_region(struct soft_vcpu *v, u64 base, u64 size)
{
	flush_logged_region(v, v->mmu->tlb_log, v->mmu->tlb_logged, base, size);
	flush_logged_region(v, v->mmu->tlb_global_log, v->mmu->tlb_global_logged, base, size);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
		for (u32 k = 0; k < ITLB_SIZE; k++)
			if (v->mmu->itlb[index][k].tag - base < size)
				v->mmu->itlb[index][k].tag = 0;
		jump_cache_flush(v, index, base, size);
	}
}

/** INVLPG where @linear may lie in a large page. It was entered 4 KiB at a time. */
static void flush_large(struct soft_vcpu *v, u64 linear, bool in_1g)
{
	/* The large pages of 32-bit paging have 4 MiB. */
	u64 size = in_1g ? BIT(30) : BIT(22);

	if (v->vm->tune.flushes)
		flush_region(v, linear & ~(size - 1), size);
	else
		tlb_flush_live(v);
}

static void empty_page(struct soft_vcpu *v, u64 page)
{
	u32 slot = tlb_slot(page);

	for (u32 table = 0; table < MMU_COUNT * 2; table++) {
		struct tlb_entry *entry = &all_entries(v)[table * TLB_SIZE + slot];

		if (entry->tag == page)
			entry->tag = empty_tag(slot);
	}
}

void tlb_flush_page(struct soft_vcpu *v, u64 linear)
{
	u64 page = linear & PAGE_MASK;
	bool in_1g = false, in_2m = false;

	shadow_flush_page(v, linear);

	for (u32 global = 0; global < 2; global++) {
		in_2m |= filter_has(&v->mmu->large_2m[global], linear, 21);
		in_1g |= filter_has(&v->mmu->large_1g[global], linear, 30);
	}
	if (unlikely(in_2m || in_1g)) {
		flush_large(v, linear, in_1g);
		return;
	}

	empty_page(v, page);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
		struct itlb_entry *entry = &v->mmu->itlb[index][(linear / PAGE_SIZE) % ITLB_SIZE];

		if (entry->tag == (page | 1))
			entry->tag = 0;
		if (filter_has(&v->mmu->code_pages[index], linear, 12) &&
		    !(index == MMU_USER && shadow_keeps_code_page(v, linear)))
			jump_cache_flush(v, index, page, PAGE_SIZE);
	}
}

void tlb_faulted(struct soft_vcpu *v, u64 linear)
{
	shadow_faulted(v, linear);
	empty_page(v, linear & PAGE_MASK);
}

/** Drops write entries for the page at @host from 1 / WRITER_GROUPS of the tables. */
static void protect_group(struct mmu *m, u64 host, u32 group)
{
	for (enum mmu_index index = 0; index < MMU_COUNT; index++)
		for (u32 k = 0; k < TLB_SIZE / WRITER_GROUPS; k++) {
			u32 slot = group * (TLB_SIZE / WRITER_GROUPS) + k;
			struct tlb_entry *entry = &m->tlb[index].write[slot];

			if (entry->host == host)
				entry->tag = empty_tag(slot);
		}
}

/** The groups of TLB slots that may have write entries for the page at @host; they are forgotten.
 */
static u32 take_writers(struct soft_vm *vm, const u8 *host)
{
	u32 groups = 0;

	for (u32 n = 0; n < vm->slot_count; n++) {
		struct memslot *slot = &vm->slots[n];
		u64 offset = (u64)(host - slot->host);

		if (offset >= slot->size)
			continue;
		if (!slot->writers)
			return WRITER_GROUPS_ALL;
		groups |= slot->writers[offset / PAGE_SIZE];
		slot->writers[offset / PAGE_SIZE] = 0;
	}
	return groups;
}

void tlb_protect_host(struct soft_vcpu *v, const u8 *host)
{
	u32 groups = WRITER_GROUPS_ALL;

	v->protect_epoch++;
	shadow_protect(v, host);
	if (v->vm->tune.writers && v->vm->vcpu_count <= 1)
		groups = take_writers(v->vm, host);
	for (; groups; groups &= groups - 1)
		for (struct mmu *m = v->mmus; m < v->mmus + MMU_SETS; m++)
			if (m->used)
				protect_group(m, (u64)host, (u32)__builtin_ctz(groups));
}

/* ---- filling ---- */

void check_canonical(struct soft_vcpu *v, u64 linear, bool stack)
{
	/* SDM 1 3.3.7.1. Addresses of 32 bits always pass. */
	if (unlikely(!is_canonical(linear)))
		raise_error(v, stack ? EXC_SS : EXC_GP, 0);
}

/** Remembers that the region of @linear has entries that stand for a large page. */
static void note_large(struct soft_vcpu *v, const struct walk *w)
{
	if (w->page_size == BIT(30)) {
		filter_add(&v->mmu->large_1g[w->global], w->linear, 30);
	} else {
		filter_add(&v->mmu->large_2m[w->global], w->linear, 21);
		if (w->page_size == BIT(22))
			filter_add(&v->mmu->large_2m[w->global], w->linear ^ BIT(21), 21);
	}
}

static void enter(struct soft_vcpu *v, const struct walk *w, u8 *host, bool write,
		  enum mmu_index index)
{
	u32 slot = tlb_slot(w->linear);
	u32 number = entry_number(index, write, slot);
	struct tlb_entry *entry = &all_entries(v)[number];

	entry->tag = w->linear & PAGE_MASK;
	entry->host = (u64)host;
	entry_log(v->mmu, number, w->global);
}

/* Enters the page of a walk, for writing too if nothing stands against it. The hva of its address;
 * NULL: an access, a write if @write, cannot simply be made. */
static void *enter_walked(struct soft_vcpu *v, const struct walk *w, bool write,
			  enum mmu_index index)
{
	struct memslot *slot = phys_slot(v->vm, w->gpa);
	u64 in_page = w->linear & (PAGE_SIZE - 1);

	if (unlikely(!slot || (debug_armed(v) && debug_page_watched(v, w->linear))))
		return NULL;

	u8 *host = slot->host + (w->gpa - in_page - slot->gpa);
	bool may_write = w->writable || (index != MMU_USER && !(v->cr0 & CR0_WP));
	bool enter_write = w->dirty && may_write && phys_plain_write(slot, w->gpa);

	if (unlikely(w->page_size != PAGE_SIZE))
		note_large(v, w);
	enter(v, w, host, false, index);
	if (enter_write) {
		enter(v, w, host, true, index);
		v->mmu->wp_ignored |= !w->writable;
		note_writer(slot, w->gpa, tlb_slot(w->linear));
	}
	return write && !enter_write ? NULL : host + in_page;
}

/** What a walk for an access failed with. */
static _Noreturn void raise_walk(struct soft_vcpu *v, const struct walk *w)
{
	if (unlikely(w->ept))
		ept_raise(v);
	raise_pf(v, w->linear, w->error);
}

void *tlb_fill_page(struct soft_vcpu *v, u64 linear, u32 size, enum access access,
		    enum mmu_index index, bool stack, u64 *gpa)
{
	struct walk w; /* all of it is mmu_walk()'s to fill in: this is the hot path */
	bool write = access == ACCESS_WRITE;

	v->stats.tlb_misses++;
	trace_gp(mmu, 2, "vcpu %u: miss %#llx %s", v->base.id, (unsigned long long)linear,
		 access == ACCESS_WRITE ? "write" : "read");
	check_canonical(v, linear, stack);
	w.linear = linear;
	if (unlikely(mmu_walk(v, &w, access, index, true)))
		raise_walk(v, &w);
	*gpa = w.gpa;
	if (unlikely(vmx_is_apic_page(v, w.gpa))) {
		vmx_on_apic_access(v, linear, w.gpa, size, access);
		return NULL;
	}
	return enter_walked(v, &w, write, index);
}

void *tlb_try(struct soft_vcpu *v, u64 linear, u32 size, bool write, enum mmu_index index)
{
	struct walk w;

	if ((linear & (PAGE_SIZE - 1)) + size > PAGE_SIZE || !is_canonical(linear))
		return NULL;
	v->stats.tlb_misses++;
	w.linear = linear;
	if (mmu_walk(v, &w, ACCESS_READ, index, true) || vmx_is_apic_page(v, w.gpa))
		return NULL;
	return enter_walked(v, &w, write, index);
}

void *tlb_fill(struct soft_vcpu *v, u64 linear, u32 size, enum access access, enum mmu_index index,
	       bool stack)
{
	u64 gpa;

	if (unlikely((linear & (PAGE_SIZE - 1)) + size > PAGE_SIZE))
		return NULL;
	return tlb_fill_page(v, linear, size, access, index, stack, &gpa);
}

/* ---- instruction fetch ---- */

/** EFLAGS.AC is nothing to fetches: both kernel indexes share their entries. */
static enum mmu_index fetch_index(const struct soft_vcpu *v)
{
	return v->mmu_index == MMU_USER ? MMU_USER : MMU_KERNEL;
}

static bool itlb_valid(const struct soft_vcpu *v, const struct itlb_entry *entry, u64 linear)
{
	return entry->tag == ((linear & PAGE_MASK) | 1) &&
	       entry->epoch == (entry->global ? v->mmu->itlb_global_epoch : v->mmu->itlb_epoch);
}

const u8 *mmu_fetch(struct soft_vcpu *v, u64 linear, u64 *gpa)
{
	enum mmu_index index = fetch_index(v);
	struct itlb_entry *entry = &v->mmu->itlb[index][(linear / PAGE_SIZE) % ITLB_SIZE];
	u64 in_page = linear & (PAGE_SIZE - 1);

	if (unlikely(!itlb_valid(v, entry, linear))) {
		struct walk w = {.linear = linear};

		check_canonical(v, linear, false);
		if (mmu_walk(v, &w, ACCESS_EXEC, index, true))
			raise_walk(v, &w);
		if (unlikely(vmx_is_apic_page(v, w.gpa)))
			vmx_on_apic_access(v, linear, w.gpa, 1, ACCESS_EXEC);
		if (w.page_size != PAGE_SIZE)
			note_large(v, &w);
		entry->tag = (linear & PAGE_MASK) | 1;
		entry->gpa = w.gpa - in_page;
		entry->host = phys_ram(v->vm, entry->gpa);
		entry->global = w.global;
		entry->epoch = w.global ? v->mmu->itlb_global_epoch : v->mmu->itlb_epoch;
	}
	/* The caller is about to enter the page into the jump cache of its own index. */
	filter_add(&v->mmu->code_pages[v->mmu_index], linear, 12);
	if (v->mmu_index == MMU_USER)
		shadow_note_code(v, linear, entry->gpa);
	*gpa = entry->gpa | in_page;
	return entry->host ? entry->host + in_page : NULL;
}

bool mmu_fetch_global(const struct soft_vcpu *v, u64 linear)
{
	const struct itlb_entry *entry =
	    &v->mmu->itlb[fetch_index(v)][(linear / PAGE_SIZE) % ITLB_SIZE];

	return itlb_valid(v, entry, linear) && entry->global;
}
