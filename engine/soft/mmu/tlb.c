/*
 * The software TLBs, data and code.
 *
 * Flushes must be cheap: logs list the entries in use, those of pages that are not global apart.
 * The code TLB is emptied by giving it another epoch.
 */
#include "debug/trace.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/exception.h"

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
	gp_fill(v->tlb, 0, sizeof(v->tlb));
	empty_first_slots(v);
	gp_fill(v->tlb_state, 0, sizeof(v->tlb_state));
	v->tlb_logged = 0;
	v->tlb_global_logged = 0;
}

static void flush_logged_entries(struct soft_vcpu *v)
{
	struct tlb_entry *entries = all_entries(v);

	for (u32 k = 0; k < v->tlb_logged; k++) {
		u32 number = v->tlb_log[k];

		if (!(v->tlb_state[number] & TLB_STATE_GLOBAL))
			entries[number].tag = empty_tag(number % TLB_SIZE);
		v->tlb_state[number] &= (u8)~TLB_STATE_LOGGED;
	}
	v->tlb_logged = 0;
}

static void flush_global_entries(struct soft_vcpu *v)
{
	struct tlb_entry *entries = all_entries(v);

	for (u32 k = 0; k < v->tlb_global_logged; k++) {
		u32 number = v->tlb_global_log[k];

		if (v->tlb_state[number] & TLB_STATE_GLOBAL)
			entries[number].tag = empty_tag(number % TLB_SIZE);
		v->tlb_state[number] &= TLB_STATE_LOGGED;
	}
	v->tlb_global_logged = 0;
}

void tlb_flush_context(struct soft_vcpu *v, bool same)
{
	v->stats.tlb_flushes++;
	trace_gp(mmu, 1, "vcpu %u: flush of the current PCID at rip %#llx", v->base.id,
		 (unsigned long long)v->rip);
	v->itlb_epoch = ++v->itlb_epochs;
	filter_clear(&v->large_2m[false]);
	filter_clear(&v->large_1g[false]);
	flush_logged_entries(v);
	if (!same || !shadow_keeps_code(v))
		jump_cache_clear(v, MMU_USER);
	for (enum mmu_index index = MMU_KERNEL; index < MMU_COUNT; index++)
		if (v->jump_nonglobal[index])
			jump_cache_clear(v, index);
}

/** The current context's entries, and global ones. */
static void flush_live(struct soft_vcpu *v)
{
	tlb_flush_context(v, false);
	flush_global_entries(v);
	v->itlb_global_epoch++;
	filter_clear(&v->large_2m[true]);
	filter_clear(&v->large_1g[true]);
	for (enum mmu_index index = MMU_KERNEL; index < MMU_COUNT; index++)
		jump_cache_clear(v, index);
}

void tlb_flush(struct soft_vcpu *v, bool keep_global)
{
	contexts_drop(v);
	shadow_flush(v);
	if (keep_global) {
		tlb_flush_context(v, false);
		return;
	}
	flush_live(v);
	v->wp_ignored = false;
	if (!v->vm->tune.flushes)
		flush_all_entries(v);
}

void tlb_init(struct soft_vcpu *v)
{
	empty_first_slots(v);
	tlb_flush(v, false);
}

void tlb_flush_wp(struct soft_vcpu *v)
{
	if (!v->vm->tune.flushes) {
		tlb_flush(v, false);
		return;
	}
	if (!v->wp_ignored)
		return;
	v->wp_ignored = false;
	contexts_drop(v);
	for (enum mmu_index index = MMU_KERNEL; index < MMU_COUNT; index++)
		for (u32 slot = 0; slot < TLB_SIZE; slot++)
			v->tlb[index].write[slot].tag = empty_tag(slot);
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
	flush_logged_region(v, v->tlb_log, v->tlb_logged, base, size);
	flush_logged_region(v, v->tlb_global_log, v->tlb_global_logged, base, size);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
		for (u32 k = 0; k < ITLB_SIZE; k++)
			if (v->itlb[index][k].tag - base < size)
				v->itlb[index][k].tag = 0;
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
		flush_live(v);
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
		in_2m |= filter_has(&v->large_2m[global], linear, 21);
		in_1g |= filter_has(&v->large_1g[global], linear, 30);
	}
	if (unlikely(in_2m || in_1g)) {
		flush_large(v, linear, in_1g);
		return;
	}

	empty_page(v, page);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
		struct itlb_entry *entry = &v->itlb[index][(linear / PAGE_SIZE) % ITLB_SIZE];

		if (entry->tag == (page | 1))
			entry->tag = 0;
		if (filter_has(&v->code_pages[index], linear, 12) &&
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
static void protect_group(struct soft_vcpu *v, u64 host, u32 group)
{
	for (enum mmu_index index = 0; index < MMU_COUNT; index++)
		for (u32 k = 0; k < TLB_SIZE / WRITER_GROUPS; k++) {
			u32 slot = group * (TLB_SIZE / WRITER_GROUPS) + k;
			struct tlb_entry *entry = &v->tlb[index].write[slot];

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
		protect_group(v, (u64)host, (u32)__builtin_ctz(groups));
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
		filter_add(&v->large_1g[w->global], w->linear, 30);
	} else {
		filter_add(&v->large_2m[w->global], w->linear, 21);
		if (w->page_size == BIT(22))
			filter_add(&v->large_2m[w->global], w->linear ^ BIT(21), 21);
	}
}

static void enter(struct soft_vcpu *v, const struct walk *w, u8 *host, bool write,
		  enum mmu_index index)
{
	u32 slot = tlb_slot(w->linear);
	u32 number = entry_number(index, write, slot);
	struct tlb_entry *entry = &all_entries(v)[number];
	u8 state = v->tlb_state[number];

	entry->tag = w->linear & PAGE_MASK;
	entry->host = (u64)host;
	if (w->global) {
		if (!(state & TLB_STATE_GLOBAL_LOGGED))
			v->tlb_global_log[v->tlb_global_logged++] = (u16)number;
		state |= TLB_STATE_GLOBAL | TLB_STATE_GLOBAL_LOGGED;
	} else {
		if (!(state & TLB_STATE_LOGGED))
			v->tlb_log[v->tlb_logged++] = (u16)number;
		state = (state & TLB_STATE_GLOBAL_LOGGED) | TLB_STATE_LOGGED;
	}
	v->tlb_state[number] = state;
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
		v->wp_ignored |= !w->writable;
		note_writer(slot, w->gpa, tlb_slot(w->linear));
	}
	return write && !enter_write ? NULL : host + in_page;
}

void *tlb_fill_page(struct soft_vcpu *v, u64 linear, enum access access, enum mmu_index index,
		    bool stack, u64 *gpa)
{
	struct walk w; /* all of it is mmu_walk()'s to fill in: this is the hot path */
	bool write = access == ACCESS_WRITE;

	v->stats.tlb_misses++;
	trace_gp(mmu, 2, "vcpu %u: miss %#llx %s", v->base.id, (unsigned long long)linear,
		 access == ACCESS_WRITE ? "write" : "read");
	check_canonical(v, linear, stack);
	w.linear = linear;
	if (unlikely(mmu_walk(v, &w, access, index, true)))
		raise_pf(v, linear, w.error);
	*gpa = w.gpa;
	return enter_walked(v, &w, write, index);
}

void *tlb_try(struct soft_vcpu *v, u64 linear, u32 size, bool write, enum mmu_index index)
{
	struct walk w;

	if ((linear & (PAGE_SIZE - 1)) + size > PAGE_SIZE || !is_canonical(linear))
		return NULL;
	v->stats.tlb_misses++;
	w.linear = linear;
	if (mmu_walk(v, &w, ACCESS_READ, index, true))
		return NULL;
	return enter_walked(v, &w, write, index);
}

void *tlb_fill(struct soft_vcpu *v, u64 linear, u32 size, enum access access, enum mmu_index index,
	       bool stack)
{
	u64 gpa;

	if (unlikely((linear & (PAGE_SIZE - 1)) + size > PAGE_SIZE))
		return NULL;
	return tlb_fill_page(v, linear, access, index, stack, &gpa);
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
	       entry->epoch == (entry->global ? v->itlb_global_epoch : v->itlb_epoch);
}

const u8 *mmu_fetch(struct soft_vcpu *v, u64 linear, u64 *gpa)
{
	enum mmu_index index = fetch_index(v);
	struct itlb_entry *entry = &v->itlb[index][(linear / PAGE_SIZE) % ITLB_SIZE];
	u64 in_page = linear & (PAGE_SIZE - 1);

	if (unlikely(!itlb_valid(v, entry, linear))) {
		struct walk w = {.linear = linear};

		check_canonical(v, linear, false);
		if (mmu_walk(v, &w, ACCESS_EXEC, index, true))
			raise_pf(v, linear, w.error);
		if (w.page_size != PAGE_SIZE)
			note_large(v, &w);
		entry->tag = (linear & PAGE_MASK) | 1;
		entry->gpa = w.gpa - in_page;
		entry->host = phys_ram(v->vm, entry->gpa);
		entry->global = w.global;
		entry->epoch = w.global ? v->itlb_global_epoch : v->itlb_epoch;
	}
	/* The caller is about to enter the page into the jump cache of its own index. */
	filter_add(&v->code_pages[v->mmu_index], linear, 12);
	if (v->mmu_index == MMU_USER)
		shadow_note_code(v, linear, entry->gpa);
	*gpa = entry->gpa | in_page;
	return entry->host ? entry->host + in_page : NULL;
}

bool mmu_fetch_global(const struct soft_vcpu *v, u64 linear)
{
	const struct itlb_entry *entry = &v->itlb[fetch_index(v)][(linear / PAGE_SIZE) % ITLB_SIZE];

	return itlb_valid(v, entry, linear) && entry->global;
}
