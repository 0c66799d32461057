/* Shadow spaces: what is mapped where. Who gets one is shadow_policy.c's. See shadow.h. */
#include <linux/mman.h>
#include <stddef.h>

#include "debug/trace.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow_internal.h"
#include "engine/soft/system/exception.h"

/* Outside of every window, and so far from canonical that no constant makes up for it. */
#define NOWHERE BIT(62)

/* ---- the host's address space ---- */

static bool failed(long result)
{
	return (u64)result > -4096ull;
}

static u64 reserve(u64 size, int prot)
{
	long p = gp_syscall(SYS_mmap, 0, (long)size, prot,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return failed(p) ? 0 : (u64)p;
}

/** Nothing there any more; false: the host refuses, all is as it was. */
static bool unmap(u64 host, u64 size)
{
	return !failed(gp_syscall(SYS_mmap, (long)host, (long)size, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
}

static u64 *shadow_table(struct soft_vcpu *v)
{
	return (u64 *)((u8 *)v + GS_SHADOW_TABLE);
}

static void release(u64 host, u64 size)
{
	if (host)
		gp_syscall(SYS_munmap, (long)host, (long)size, 0, 0, 0, 0);
}

#define WINDOWS_SIZE (GUARD + SLOTS * SLOT_SPAN)
#define RECORDS_SIZE (SLOTS * RECORDS * sizeof(u64))

struct shadow *shadow_get(struct soft_vcpu *v)
{
	u64 *table = shadow_table(v);

	if (v->shadow || v->shadow_refused)
		return v->shadow;

	u64 s = reserve(sizeof(struct shadow), PROT_READ | PROT_WRITE);
	u64 windows = reserve(WINDOWS_SIZE, PROT_NONE);
	u64 records = reserve(RECORDS_SIZE, PROT_READ | PROT_WRITE);
	long readable = gp_syscall(SYS_mprotect, (long)table, SHADOW_WINDOWS * sizeof(*table),
				   PROT_READ | PROT_WRITE, 0, 0, 0);

	/* A host with limits on address space goes without. */
	if (!s || !windows || !records || failed(readable)) {
		release(s, sizeof(struct shadow));
		release(windows, WINDOWS_SIZE);
		release(records, RECORDS_SIZE);
		v->shadow_refused = true;
		return NULL;
	}
	for (u32 n = 0; n < SHADOW_WINDOWS; n++)
		table[n] = NOWHERE;
	v->shadow = (struct shadow *)s;
	v->shadow->reserved = windows;
	v->shadow->base = windows + GUARD;
	v->shadow->records = (u64 *)records;
	return v->shadow;
}

void shadow_destroy(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	if (!s)
		return;
	release(s->reserved, WINDOWS_SIZE);
	release((u64)s->records, RECORDS_SIZE);
	release((u64)s, sizeof(*s));
	v->shadow = NULL;
}

/* ---- windows ---- */

static u64 slot_base(const struct shadow *s, u32 slot)
{
	return s->base + slot * SLOT_SPAN;
}

/** The window of @linear in @space; false: it has none. */
static bool window_of(const struct space *space, u64 linear, u32 *slot)
{
	u64 n = linear >> SHADOW_SHIFT;

	if (n >= SHADOW_WINDOWS || !space->window[n])
		return false;
	*slot = space->window[n] - 1u;
	return true;
}

static u64 *record_of(struct shadow *s, u32 slot, u64 linear)
{
	return &s->records[slot * RECORDS + (linear & (WINDOW_SIZE - 1)) / PAGE_SIZE];
}

static u64 host_of(const struct shadow *s, u32 slot, u64 linear)
{
	return slot_base(s, slot) + (linear & (WINDOW_SIZE - 1));
}

/** Whether @host lies in a window of @space, and which address that is. */
static bool linear_of_host(const struct shadow *s, const struct space *space, u64 host, u64 *linear)
{
	u64 slot = (host - s->base) / SLOT_SPAN, offset = (host - s->base) % SLOT_SPAN;

	if (host < s->base || slot >= SLOTS || offset >= WINDOW_SIZE ||
	    s->slot_owner[slot] != space)
		return false;
	*linear = (u64)s->slot_window[slot] << SHADOW_SHIFT | offset;
	return true;
}

static void load_table(struct soft_vcpu *v, struct space *space)
{
	struct shadow *s = v->shadow;
	u64 *table = shadow_table(v);

	for (u32 slot = 0; slot < SLOTS; slot++)
		if (s->slot_owner[slot])
			table[s->slot_window[slot]] = NOWHERE;
	for (u32 slot = 0; slot < SLOTS; slot++)
		if (s->slot_owner[slot] == space)
			table[s->slot_window[slot]] =
			    slot_base(s, slot) - ((u64)s->slot_window[slot] << SHADOW_SHIFT);
	s->loaded = space;
}

static bool add_window(struct shadow *s, struct space *space, u32 window)
{
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (s->slot_owner[slot])
			continue;
		if (s->slot_used[slot] && !unmap(slot_base(s, slot), WINDOW_SIZE))
			continue;
		s->slot_used[slot] = false;
		s->slot_owner[slot] = space;
		s->slot_window[slot] = (u16)window;
		space->window[window] = (u16)(slot + 1);
		return true;
	}
	return false;
}

/* What one entry of the second level maps, and how many of them make a window. */
#define PDPTE_SHIFT  30
#define WINDOW_PDPTE BIT(SHADOW_SHIFT - PDPTE_SHIFT)

/** Gives @space the windows that the second-level table @pdpt uses, the first of them @window. */
static bool add_windows_of(struct shadow *s, struct space *space, const u64 *pdpt, u32 window)
{
	bool added = false;

	for (u32 n = 0; n < 512; n++) {
		u32 here = window + n / WINDOW_PDPTE;
		u64 entry = __atomic_load_n(&pdpt[n], __ATOMIC_RELAXED);
		if ((entry & PTE_P) && !space->window[here])
			added |= add_window(s, space, here);
	}
	return added;
}

bool shadow_add_windows(struct soft_vcpu *v, struct space *space)
{
	const u64 *top = (const u64 *)phys_ram(v->vm, v->cr3 & PTE_ADDRESS);
	bool added = false;

	for (u32 n = 0; top && n < 256; n++) {
		u64 entry = __atomic_load_n(&top[n], __ATOMIC_RELAXED);
		const u64 *pdpt = (const u64 *)phys_ram(v->vm, entry & PTE_ADDRESS);
		if ((entry & PTE_P) && pdpt)
			added |= add_windows_of(v->shadow, space, pdpt, n * (512 / WINDOW_PDPTE));
	}
	return added;
}

/* ---- pages ---- */

/* A record: guest-physical page, and */
#define MAPPED	 BIT(0)
#define WRITABLE BIT(1)

/** Remembers where INVLPG takes more than a small page away. */
static void note_large(struct space *space, const struct walk *w)
{
	if (w->page_size == BIT(30))
		filter_add(&space->large_1g, w->linear, 30);
	else if (w->page_size != PAGE_SIZE)
		filter_add(&space->large_2m, w->linear, 21);
}

/** What the page of walk @w would be recorded as; 0: it cannot be mapped. */
static u64 record_for(struct soft_vcpu *v, struct space *space, const struct walk *w,
		      struct memslot **slot)
{
	*slot = phys_slot(v->vm, w->gpa);
	if (!*slot || (*slot)->fd < 0)
		return 0;
	note_large(space, w);
	bool writable = w->writable && w->dirty && phys_plain_write(*slot, w->gpa);
	return (w->gpa & PAGE_MASK) | MAPPED | (writable ? WRITABLE : 0);
}

/** The same for what a page walk finds that sets nothing; 0 also where it would have to. */
static u64 peek(struct soft_vcpu *v, struct space *space, u64 linear, struct memslot **slot)
{
	struct walk w = {.linear = linear};

	return mmu_peek(v, &w, ACCESS_READ, MMU_USER) ? record_for(v, space, &w, slot) : 0;
}

/** Remembers that @host, in a window, may be written, for shadow_protect(). */
static void note_view(struct memslot *slot, u64 gpa, u64 host)
{
	u64 *view = &slot->views[(gpa - slot->gpa) / PAGE_SIZE];

	*view = *view && *view != host ? VIEWS_MANY : host;
}

static void set_record(struct shadow *s, struct space *space, struct memslot *slot, u32 window,
		       u64 linear, u64 record)
{
	u64 *r = record_of(s, window, linear);

	if (!*r)
		space->log[space->logged++] = linear & PAGE_MASK;
	*r = record;
	if (record & WRITABLE)
		note_view(slot, record & PAGE_MASK, host_of(s, window, linear) & PAGE_MASK);
}

#define RUN_MAX 16 /* neighbouring pages that are entered with the one that is needed */

/** Whether the page of @linear is not mapped, and would be as @record, from @slot. */
static bool continues(struct soft_vcpu *v, struct space *space, u32 window, u64 linear, u64 record,
		      const struct memslot *slot)
{
	struct memslot *found;

	return !*record_of(v->shadow, window, linear) && peek(v, space, linear, &found) == record &&
	       found == slot;
}

/** How many pages from @linear on, all like @record, lie behind each other in @slot. */
static u32 run_length(struct soft_vcpu *v, struct space *space, u32 window, u64 linear, u64 record,
		      const struct memslot *slot, u32 max)
{
	u32 n = 1;

	while (n < max &&
	       continues(v, space, window, linear + n * PAGE_SIZE, record + n * PAGE_SIZE, slot))
		n++;
	return n;
}

/* A mapping may part another one. */
static void add_mappings(struct shadow *s, struct space *space, u32 n)
{
	space->mappings += n;
	s->mappings += n;
}

/** Whether one more mapping can be had. The other spaces are of programs that wait, or are gone:
 * they give theirs. */
static bool has_room(struct soft_vcpu *v, const struct space *space)
{
	struct shadow *s = v->shadow;

	for (u32 n = 0; n < SPACES && s->mappings >= MAPPINGS_MAX; n++)
		if (&s->space[n] != space && s->space[n].mappings)
			shadow_drop(v, &s->space[n]);
	return s->mappings < MAPPINGS_MAX;
}

/** Maps @pages pages from @linear on. */
static bool map_run(struct soft_vcpu *v, struct space *space, u32 window, u64 linear, u64 record,
		    struct memslot *slot, u32 pages)
{
	struct shadow *s = v->shadow;
	u64 host = host_of(s, window, linear), offset = (record & PAGE_MASK) - slot->gpa;
	int prot = PROT_READ | (record & WRITABLE ? PROT_WRITE : 0);
	int flags = MAP_SHARED | MAP_FIXED | (pages <= RUN_MAX ? MAP_POPULATE : 0);

	if (!has_room(v, space) || space->logged + pages > LOG_MAX ||
	    failed(gp_syscall(SYS_mmap, (long)host, (long)(pages * PAGE_SIZE), prot, flags,
			      slot->fd, (long)(slot->fd_offset + offset)))) {
		shadow_give_up(v, space);
		return false;
	}
	v->stats.shadow_maps++;
	add_mappings(s, space, 2);
	for (u32 n = 0; n < pages; n++)
		set_record(s, space, slot, window, linear + n * PAGE_SIZE, record + n * PAGE_SIZE);
	return true;
}

/** Maps the page of @linear, and what lies beside it in a large page or by chance. */
static bool map_page(struct soft_vcpu *v, struct space *space, u32 window, const struct walk *w,
		     u64 record, struct memslot *slot)
{
	u64 first = w->linear & PAGE_MASK;
	u64 end = (first & ~(WINDOW_SIZE - 1)) + WINDOW_SIZE;
	u32 max = RUN_MAX;

	if (w->page_size > PAGE_SIZE) {
		u64 start = first & ~(LARGE_RUN - 1);
		while (first > start &&
		       continues(v, space, window, first - PAGE_SIZE, record - PAGE_SIZE, slot)) {
			first -= PAGE_SIZE;
			record -= PAGE_SIZE;
		}
		end = start + LARGE_RUN;
		max = LARGE_RUN / PAGE_SIZE;
	}
	if (max > (end - first) / PAGE_SIZE)
		max = (u32)((end - first) / PAGE_SIZE);
	u32 pages = run_length(v, space, window, first, record, slot, max);
	return map_run(v, space, window, first, record, slot, pages);
}

/**
 * What may be done in @size bytes from @linear on. false: the host refuses to part its mappings any
 * further, or the file to be written, and @space has been given up: nobody may go on using what is
 * not allowed any more.
 */
static bool set_access(struct soft_vcpu *v, struct space *space, u32 window, u64 linear, u64 size,
		       int prot)
{
	u64 host = host_of(v->shadow, window, linear);

	if (v->shadow->mappings <= MAPPINGS_MAX &&
	    !failed(gp_syscall(SYS_mprotect, (long)host, (long)size, prot, 0, 0, 0)))
		return true;
	shadow_give_up(v, space);
	return false;
}

/** Takes away @size bytes from @linear on, whose records are cleared already. */
static void hide(struct soft_vcpu *v, struct space *space, u32 window, u64 linear, u64 size)
{
	/* Cheaper than giving the mapping up, and as good. */
	set_access(v, space, window, linear, size, PROT_NONE);
}

static bool allow(struct soft_vcpu *v, struct space *space, u32 window, u64 linear, u64 record)
{
	add_mappings(v->shadow, space, 2);
	return set_access(v, space, window, linear & PAGE_MASK, PAGE_SIZE,
			  PROT_READ | (record & WRITABLE ? PROT_WRITE : 0));
}

void shadow_drop(struct soft_vcpu *v, struct space *space)
{
	struct shadow *s = v->shadow;

	if (s->loaded == space) {
		shadow_compare_code(v);
		shadow_unload(v);
	}
	shadow_forget_code(v, space);
	for (u32 k = 0; k < space->logged; k++) {
		u32 window;
		if (window_of(space, space->log[k], &window))
			*record_of(s, window, space->log[k]) = 0;
	}
	for (u32 slot = 0; slot < SLOTS; slot++) {
		if (s->slot_owner[slot] != space)
			continue;
		s->slot_used[slot] = !unmap(slot_base(s, slot), WINDOW_SIZE);
		s->slot_owner[slot] = NULL;
	}
	for (u32 n = 0; n < SHADOW_WINDOWS; n++)
		space->window[n] = 0;
	s->mappings -= space->mappings;
	space->mappings = 0;
	space->logged = 0;
	space->pending_count = 0;
	filter_clear(&space->large_2m);
	filter_clear(&space->large_1g);
}

void shadow_unload(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	shadow_off(v);
	if (s->loaded) {
		load_table(v, NULL);
		s->loaded = NULL;
	}
}

/** Page @entry, or a region, has to be looked at before user code goes on. */
static void pend(struct soft_vcpu *v, struct space *space, u64 entry)
{
	u32 n = space->pending_count;

	if (n && space->pending[n - 1] == entry)
		n--;
	if (n < PENDING_MAX) {
		space->pending[n] = entry;
		space->pending_count = n + 1;
	} else {
		space->stale = true;
	}
	shadow_off(v);
}

/* ---- faults ---- */

static enum shadow_result alone(struct soft_vcpu *v)
{
	v->alone = true;
	v->stats.shadow_alone++;
	if (v->shadow && v->shadow->loaded)
		shadow_charge_alone(v, v->shadow->loaded);
	return SHADOW_ALONE;
}

static enum shadow_result page_fault(struct soft_vcpu *v, struct space *space, u64 linear,
				     u32 error)
{
	v->events.exception = true;
	v->events.exception_vector = EXC_PF;
	v->events.exception_has_error = true;
	v->events.exception_error = error;
	v->events.exception_cr2 = linear;
	tlb_faulted(v, linear);
	/* The guest is likely to enter the page: map it on the way back. */
	pend(v, space, linear & PAGE_MASK);
	shadow_charge_fault(v, space, 0);
	return SHADOW_PAGE_FAULT;
}

enum shadow_result shadow_fault(struct soft_vcpu *v, u64 host, bool write)
{
	struct shadow *s = v->shadow;
	struct space *space = s ? s->loaded : NULL;
	struct walk w;
	struct memslot *slot;
	u32 window;

	if (!space || !linear_of_host(s, space, host, &w.linear) ||
	    !window_of(space, w.linear, &window))
		return alone(v);
	u64 begin = __builtin_ia32_rdtsc();
	if (mmu_walk(v, &w, write ? ACCESS_WRITE : ACCESS_READ, MMU_USER, true))
		return page_fault(v, space, w.linear, w.error);
	u64 record = record_for(v, space, &w, &slot), known = *record_of(s, window, w.linear);
	/* What is mapped as it should be and faults all the same is no memory: a file too short. */
	if (!record || (write && !(record & WRITABLE)) || known == record)
		return alone(v);
	if (((known ^ record) & (PAGE_MASK | MAPPED)) == 0) {
		if (!allow(v, space, window, w.linear, record))
			return alone(v);
		set_record(s, space, slot, window, w.linear, record);
	} else if (!map_page(v, space, window, &w, record, slot)) {
		return alone(v);
	}
	shadow_charge_fault(v, space, __builtin_ia32_rdtsc() - begin);
	return SHADOW_MAPPED;
}

enum shadow_result shadow_fault_unknown(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	/* A table that was not there when the space was made? */
	if (s && s->loaded && shadow_add_windows(v, s->loaded))
		load_table(v, s->loaded);
	return alone(v);
}

/* ---- up to date again ---- */

/** What is mapped of the page of @linear becomes what the tables say. Returns its new record; 0
 * also if @space had to be given up. */
static u64 update_page(struct soft_vcpu *v, struct space *space, u32 window, u64 linear)
{
	struct shadow *s = v->shadow;
	struct memslot *slot;
	u64 *r = record_of(s, window, linear), old = *r, record = peek(v, space, linear, &slot);

	if (record == old)
		return record;
	if (old && ((old ^ record) & PAGE_MASK))
		shadow_charge_gone(v, space, 1);
	if (old && record && ((old ^ record) & PAGE_MASK) == 0) {
		if (!allow(v, space, window, linear, record))
			return 0;
		set_record(s, space, slot, window, linear, record);
	} else if (record) {
		if (!map_run(v, space, window, linear, record, slot, 1))
			return 0;
	} else {
		*r = 0;
	}
	return record;
}

/** Compares all of @space with the tables. */
static void revalidate(struct soft_vcpu *v, struct space *space)
{
	u32 kept = 0, gone_window = 0;
	u64 gone = 0, gone_end = 0;

	filter_clear(&space->large_2m); /* those that are left are found again */
	filter_clear(&space->large_1g);
	for (u32 k = 0; k < space->logged; k++) {
		u64 linear = space->log[k];
		u32 window;
		if (!window_of(space, linear, &window))
			continue;
		if (!*record_of(v->shadow, window, linear))
			continue; /* listed twice, or gone before */
		if (update_page(v, space, window, linear)) {
			space->log[kept++] = linear;
			continue;
		}
		if (gone_end != linear || window != gone_window) {
			if (gone_end)
				hide(v, space, gone_window, gone, gone_end - gone);
			gone = linear;
			gone_window = window;
		}
		gone_end = linear + PAGE_SIZE;
	}
	if (gone_end && space->on)
		hide(v, space, gone_window, gone, gone_end - gone);
	if (!space->on)
		return;
	space->logged = kept;
	v->stats.shadow_checks++;
}

static void update_mapped(struct soft_vcpu *v, struct space *space, u64 linear)
{
	u32 window;

	if (!window_of(space, linear, &window))
		return;
	u64 old = *record_of(v->shadow, window, linear);
	if (!update_page(v, space, window, linear) && old && space->on)
		hide(v, space, window, linear, PAGE_SIZE);
}

static void update_region(struct soft_vcpu *v, struct space *space, u64 region)
{
	u32 window;

	for (u64 n = 0; n < LARGE_RUN; n += PAGE_SIZE)
		if (window_of(space, region + n, &window) &&
		    *record_of(v->shadow, window, region + n))
			update_mapped(v, space, region + n);
}

static void update_pending(struct soft_vcpu *v, struct space *space)
{
	for (u32 n = 0; n < space->pending_count; n++) {
		u64 entry = space->pending[n];
		if (entry & REGION)
			update_region(v, space, entry & PAGE_MASK);
		else
			update_mapped(v, space, entry);
		if (!space->on)
			return;
	}
	space->pending_count = 0;
}

static void bring_up(struct soft_vcpu *v)
{
	v->shadow_check = false;
	if (!(v->cr0 & CR0_PG) || !(v->msr.efer & EFER_LMA) || shadow_paused(v))
		return;
	if (!v->vm->tune.patience)
		shadow_at_once(v);

	struct space *space = shadow_space(v, v->cr3);

	v->shadow_check = false;
	if (!space || !space->on)
		return;
	u64 begin = __builtin_ia32_rdtsc();
	bool whole = space->stale;
	if (whole)
		revalidate(v, space);
	else
		update_pending(v, space);
	space->stale = false;
	if (!space->on)
		return;
	if (whole)
		shadow_charge(space, __builtin_ia32_rdtsc() - begin);
	space->pending_count = 0;
	if (v->shadow->loaded != space)
		load_table(v, space);
	v->shadow_on = true;
	vcpu_update_mode(v);
}

void shadow_enter(struct soft_vcpu *v)
{
	bring_up(v);
	shadow_compare_code(v);
}

/* ---- what makes translations invalid ---- */

void shadow_off(struct soft_vcpu *v)
{
	v->shadow_check = true;
	if (!v->shadow_on)
		return;
	v->shadow_on = false;
	vcpu_update_mode(v);
}

void shadow_flush(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	if (!s || shadow_paused(v))
		return;
	for (u32 n = 0; n < SPACES; n++)
		s->space[n].stale = true;
	shadow_off(v);
}

void shadow_flush_pcid(struct soft_vcpu *v, u64 pcid)
{
	struct shadow *s = v->shadow;

	if (!s || shadow_paused(v))
		return;
	/* Without CR4.PCIDE the bits say other things, and all is of PCID 0 (SDM 3A table 4-12). */
	if (!(v->cr4 & CR4_PCIDE)) {
		shadow_flush(v);
		return;
	}
	for (u32 n = 0; n < SPACES; n++)
		if ((s->space[n].cr3 & CR3_PCID) == pcid)
			s->space[n].stale = true;
	shadow_off(v);
}

static void flush_page(struct soft_vcpu *v, struct space *space, u64 linear)
{
	u32 window;

	if (!window_of(space, linear, &window))
		return;
	/* INVLPG takes away all of a large page (SDM 3A 4.10.4.1). */
	if (filter_has(&space->large_1g, linear, 30)) {
		space->stale = true;
		shadow_off(v);
	} else if (filter_has(&space->large_2m, linear, 21)) {
		pend(v, space, (linear & ~(LARGE_RUN - 1)) | REGION);
	} else if (*record_of(v->shadow, window, linear)) {
		pend(v, space, linear & PAGE_MASK);
	}
}

void shadow_flush_page(struct soft_vcpu *v, u64 linear)
{
	/* Global pages go from all PCIDs (SDM 3A 4.10.4.1), and one PCID may have several spaces.
	 */
	if (!v->shadow || shadow_paused(v))
		return;
	for (u32 n = 0; n < SPACES; n++)
		flush_page(v, &v->shadow->space[n], linear);
}

void shadow_faulted(struct soft_vcpu *v, u64 linear)
{
	struct space *space = shadow_space(v, v->cr3);
	u32 window;

	if (space && !shadow_paused(v) && window_of(space, linear, &window) &&
	    *record_of(v->shadow, window, linear))
		pend(v, space, linear & PAGE_MASK);
}

void shadow_pause(struct soft_vcpu *v)
{
	shadow_off(v);
	v->shadow_check = false;
}

void shadow_resume(struct soft_vcpu *v)
{
	v->shadow_check = true;
}

void shadow_switch(struct soft_vcpu *v, u64 cr3, bool keep)
{
	if (shadow_paused(v))
		return;
	if (!v->shadow) {
		v->shadow_check = !v->vm->tune.patience;
		return;
	}
	if (!keep)
		shadow_flush_pcid(v, cr3 & CR3_PCID);
	shadow_off(v);
}

/** The view at @host of @gpa, if it still is one, may only be read. */
static void protect_view(struct soft_vcpu *v, u64 host, u64 gpa)
{
	struct shadow *s = v->shadow;
	u64 slot = (host - s->base) / SLOT_SPAN, offset = (host - s->base) % SLOT_SPAN;

	if (host < s->base || slot >= SLOTS || !s->slot_owner[slot])
		return;
	u64 *r = record_of(s, (u32)slot, offset);
	if (*r != (gpa | MAPPED | WRITABLE))
		return;
	*r &= ~WRITABLE;
	allow(v, s->slot_owner[slot], (u32)slot, offset, *r);
}

static void protect_page(struct soft_vcpu *v, struct memslot *slot, u64 page)
{
	struct shadow *s = v->shadow;
	u64 view = slot->views[page], gpa = slot->gpa + page * PAGE_SIZE;

	slot->views[page] = 0;
	if (view && view != VIEWS_MANY)
		protect_view(v, view, gpa);
	if (view != VIEWS_MANY)
		return;
	for (u32 n = 0; n < SPACES; n++) {
		struct space *space = &s->space[n];
		for (u32 k = 0; k < space->logged; k++) {
			u32 window;
			if (window_of(space, space->log[k], &window))
				protect_view(v, host_of(s, window, space->log[k]), gpa);
		}
	}
}

void shadow_protect(struct soft_vcpu *v, const u8 *host)
{
	for (u32 n = 0; v->shadow && n < v->vm->slot_count; n++) {
		struct memslot *slot = &v->vm->slots[n];
		u64 offset = (u64)(host - slot->host);
		if (offset < slot->size && slot->views)
			protect_page(v, slot, offset / PAGE_SIZE);
	}
}

void shadow_forget(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	if (!s)
		return;
	for (u32 n = 0; n < SPACES; n++)
		shadow_drop(v, &s->space[n]);
	shadow_flush(v);
}
