/*
 * Shadow spaces in the host's address space: places for windows, what is mapped in them, and how
 * many mappings of the host's that comes to. What should be mapped is shadow.c's.
 *
 * The host joins neighbours that are the same file's, one behind the other, with the same rights,
 * and so are pages taken away one with the room around them: what it keeps follows from the records
 * alone, and is counted by where they do not continue each other.
 */
#include <linux/mman.h>

#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow_internal.h"

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

static void release(u64 host, u64 size)
{
	if (host)
		gp_syscall(SYS_munmap, (long)host, (long)size, 0, 0, 0, 0);
}

static u64 *shadow_table(struct soft_vcpu *v)
{
	return (u64 *)((u8 *)v + GS_SHADOW_TABLE);
}

#define RECORDS_SIZE (PLACES * RECORDS * sizeof(u64))

struct shadow *shadow_get(struct soft_vcpu *v)
{
	u64 *table = shadow_table(v);

	if (v->shadow || v->shadow_refused)
		return v->shadow;

	u64 s = reserve(sizeof(struct shadow), PROT_READ | PROT_WRITE);
	u64 windows = reserve(RESERVED_SIZE, PROT_NONE);
	u64 records = reserve(RECORDS_SIZE, PROT_READ | PROT_WRITE);
	long readable = gp_syscall(SYS_mprotect, (long)table, SHADOW_WINDOWS * sizeof(*table),
				   PROT_READ | PROT_WRITE, 0, 0, 0);

	/* A host with limits on address space goes without. */
	if (!s || !windows || !records || failed(readable)) {
		release(s, sizeof(struct shadow));
		release(windows, RESERVED_SIZE);
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
	release(s->reserved, RESERVED_SIZE);
	release((u64)s->records, RECORDS_SIZE);
	release((u64)s, sizeof(*s));
	v->shadow = NULL;
}

/* ---- windows ---- */

static u64 place_base(const struct shadow *s, u32 place)
{
	return s->base + place * PLACE_SPAN;
}

bool shadow_place(const struct space *space, u64 linear, u32 *place)
{
	u64 n = linear >> SHADOW_SHIFT;

	if (n >= SHADOW_WINDOWS || !space->window[n])
		return false;
	*place = space->window[n] - 1u;
	return true;
}

u64 shadow_host(const struct shadow *s, u32 place, u64 linear)
{
	return place_base(s, place) + (linear & (WINDOW_SIZE - 1));
}

struct space *shadow_of_host(const struct shadow *s, u64 host, u32 *place, u64 *linear)
{
	u64 n = (host - s->base) / PLACE_SPAN, offset = (host - s->base) % PLACE_SPAN;

	if (host < s->base || n >= PLACES || offset >= WINDOW_SIZE)
		return NULL;
	*place = (u32)n;
	*linear = (u64)s->place_window[n] << SHADOW_SHIFT | offset;
	return s->place_owner[n];
}

void shadow_load(struct soft_vcpu *v, struct space *space)
{
	struct shadow *s = v->shadow;
	u64 *table = shadow_table(v);

	for (u32 n = 0; n < PLACES; n++)
		if (s->place_owner[n])
			table[s->place_window[n]] = NOWHERE;
	for (u32 n = 0; n < PLACES; n++)
		if (space && s->place_owner[n] == space)
			table[s->place_window[n]] =
			    place_base(s, n) - ((u64)s->place_window[n] << SHADOW_SHIFT);
	s->loaded = space;
}

/** Nothing is mapped in @place any more; false: the host refuses. */
static bool clear_place(struct shadow *s, u32 place)
{
	if (s->place_mappings[place] && !unmap(place_base(s, place), WINDOW_SIZE))
		return false;
	s->mappings -= s->place_mappings[place];
	s->place_mappings[place] = 0;
	return true;
}

static bool add_window(struct shadow *s, struct space *space, u32 window)
{
	for (u32 n = 0; n < PLACES; n++) {
		if (s->place_owner[n] || !clear_place(s, n))
			continue;
		s->place_owner[n] = space;
		s->place_window[n] = (u16)window;
		space->window[window] = (u16)(n + 1);
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

/** The table at @gpa as the guest knows it, or NULL. */
static const u64 *table_at(struct soft_vcpu *v, u64 gpa)
{
	struct ept_walk e = {
	    .gpa = gpa & PTE_ADDRESS, .wanted = EPT_READ, .physical = gpa & PTE_ADDRESS};

	if (v->mmu->eptp && !ept_lookup(v, &e) && ept_walk(v, &e))
		return NULL;
	return (const u64 *)phys_ram(v->vm, e.physical);
}

bool shadow_add_windows(struct soft_vcpu *v, struct space *space)
{
	const u64 *top = table_at(v, v->cr3);
	bool added = false;

	for (u32 n = 0; top && n < 256; n++) {
		u64 entry = __atomic_load_n(&top[n], __ATOMIC_RELAXED);
		const u64 *pdpt = entry & PTE_P ? table_at(v, entry) : NULL;
		if (pdpt)
			added |= add_windows_of(v->shadow, space, pdpt, n * (512 / WINDOW_PDPTE));
	}
	return added;
}

/* ---- records, and the mappings they come to ---- */

static u64 *record_of(const struct shadow *s, u32 place, u64 linear)
{
	return &s->records[place * RECORDS + (linear & (WINDOW_SIZE - 1)) / PAGE_SIZE];
}

u64 shadow_record(const struct shadow *s, u32 place, u64 linear)
{
	return *record_of(s, place, linear) & ~LISTED;
}

bool shadow_continues(u64 a, u64 b)
{
	if (!(a & b & MAPPED))
		return !((a | b) & MAPPED);
	return (a & ~(FIRST | LISTED)) + PAGE_SIZE == (b & ~LISTED); /* never if @b is FIRST */
}

/** Borders of mappings at a page recorded as @record between two others. */
static u32 borders(u64 before, u64 record, u64 after)
{
	return !shadow_continues(before, record) + !shadow_continues(record, after);
}

/** Remembers that @host, in a window, may be written, for shadow_protect(). */
static void note_view(struct memslot *slot, u64 gpa, u64 host)
{
	u64 *view = &slot->views[(gpa - slot->gpa) / PAGE_SIZE];

	*view = *view && *view != host ? VIEWS_MANY : host;
}

/** The page of @linear, listed already or not mapped, is now @record. */
static void set_record(struct shadow *s, u32 place, u64 linear, u64 record)
{
	u64 *r = record_of(s, place, linear), offset = linear & (WINDOW_SIZE - 1);
	u64 before = offset >= PAGE_SIZE ? r[-1] : 0;
	u64 after = offset + PAGE_SIZE < WINDOW_SIZE ? r[1] : 0;
	u32 change = borders(before, record, after) - borders(before, *r, after);

	s->mappings += change;
	s->place_mappings[place] += change;
	*r = record | (*r & LISTED);
}

/** The same for a page that is mapped, from @slot. */
static void set_mapped(struct shadow *s, struct space *space, struct memslot *slot, u32 place,
		       u64 linear, u64 record)
{
	u64 *r = record_of(s, place, linear);

	if (!(*r & LISTED)) {
		space->log[space->logged++] = linear & PAGE_MASK;
		*r |= LISTED;
	}
	set_record(s, place, linear, record);
	if (record & WRITABLE)
		note_view(slot, record & PAGE_MASK, shadow_host(s, place, linear) & PAGE_MASK);
}

void shadow_compact_log(struct shadow *s, struct space *space)
{
	u32 kept = 0;

	for (u32 k = 0; k < space->logged; k++) {
		u64 linear = space->log[k];
		u32 place;
		if (!shadow_place(space, linear, &place))
			continue;
		u64 *r = record_of(s, place, linear);
		if (*r & MAPPED)
			space->log[kept++] = linear;
		else
			*r = 0;
	}
	space->logged = kept;
}

u32 shadow_mappings(const struct shadow *s, const struct space *space)
{
	u32 n = 0;

	for (u32 place = 0; place < PLACES; place++)
		if (s->place_owner[place] == space)
			n += s->place_mappings[place];
	return n;
}

/** Of the spaces that have mappings, are not @space and not the current program's, the one that ran
 * the longest ago, or NULL. */
static struct space *waiting(struct soft_vcpu *v, const struct space *space)
{
	struct space *oldest = NULL;

	for (u32 n = 0; n < SPACES; n++) {
		struct space *other = &v->shadow->space[n];
		if (other != space && !shadow_is_current(v, other) && other->logged &&
		    (!oldest || other->used < oldest->used))
			oldest = other;
	}
	return oldest;
}

/** Whether the host can be asked to change what @space has: that may part a mapping, which makes
 * two more. Programs that wait, or are gone, give theirs. */
static bool may_part(struct soft_vcpu *v, const struct space *space)
{
	struct shadow *s = v->shadow;
	struct space *other;

	while (s->mappings + 2 > MAPPINGS_MAX && (other = waiting(v, space)))
		shadow_drop(v, other);
	return s->mappings + 2 <= MAPPINGS_MAX;
}

/** Whether @pages more pages can be listed. */
static bool may_list(struct shadow *s, struct space *space, u32 pages)
{
	if (space->logged + pages <= LOG_MAX)
		return true;
	shadow_compact_log(s, space);
	/* A log full of pages that are there would be looked through again and again. */
	return space->logged <= LOG_MAX - LOG_MAX / 8;
}

bool shadow_map(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 record,
		struct memslot *slot, u32 pages)
{
	struct shadow *s = v->shadow;
	u64 host = shadow_host(s, place, linear), offset = (record & PAGE_MASK) - slot->gpa;
	int prot = PROT_READ | (record & WRITABLE ? PROT_WRITE : 0);
	int flags = MAP_SHARED | MAP_FIXED | (pages <= RUN_MAX ? MAP_POPULATE : 0);

	if (!may_part(v, space) || !may_list(s, space, pages) ||
	    failed(gp_syscall(SYS_mmap, (long)host, (long)(pages * PAGE_SIZE), prot, flags,
			      slot->fd, (long)(slot->fd_offset + offset)))) {
		shadow_give_up(v, space);
		return false;
	}
	v->stats.shadow_maps++;
	for (u32 n = 0; n < pages; n++)
		set_mapped(s, space, slot, place, linear + n * PAGE_SIZE,
			   (n ? record & ~FIRST : record) + n * PAGE_SIZE);
	return true;
}

bool shadow_allow(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 record,
		  struct memslot *slot)
{
	u64 host = shadow_host(v->shadow, place, linear & PAGE_MASK);
	int prot = PROT_READ | (record & WRITABLE ? PROT_WRITE : 0);

	if (!may_part(v, space) ||
	    failed(gp_syscall(SYS_mprotect, (long)host, PAGE_SIZE, prot, 0, 0, 0))) {
		shadow_give_up(v, space);
		return false;
	}
	set_mapped(v->shadow, space, slot, place, linear, record);
	return true;
}

void shadow_hide(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 size)
{
	if (!may_part(v, space) || !unmap(shadow_host(v->shadow, place, linear), size)) {
		shadow_give_up(v, space);
		return;
	}
	for (u64 n = 0; n < size; n += PAGE_SIZE)
		set_record(v->shadow, place, linear + n, 0);
}

void shadow_drop(struct soft_vcpu *v, struct space *space)
{
	struct shadow *s = v->shadow;

	if (s->loaded == space) {
		if (shadow_is_of(v, space))
			shadow_compare_code(v);
		shadow_unload(v);
	}
	shadow_forget_code(v, space);
	for (u32 k = 0; k < space->logged; k++) {
		u32 place;
		if (shadow_place(space, space->log[k], &place))
			*record_of(s, place, space->log[k]) = 0;
	}
	for (u32 n = 0; n < PLACES; n++) {
		if (s->place_owner[n] != space)
			continue;
		clear_place(s, n);
		s->place_owner[n] = NULL;
	}
	for (u32 n = 0; n < SHADOW_WINDOWS; n++)
		space->window[n] = 0;
	space->logged = 0;
	space->pending_count = 0;
	filter_clear(&space->large_2m);
	filter_clear(&space->large_1g);
}

void shadow_unload(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	shadow_off(v);
	if (s->loaded)
		shadow_load(v, NULL);
}
