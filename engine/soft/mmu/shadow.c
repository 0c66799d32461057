/*
 * Shadow spaces: faults, and what guest page tables say after a flush. How it is mapped is
 * shadow_map.c's, who gets a space shadow_policy.c's. See shadow.h.
 */
#include <stddef.h>

#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow_internal.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/vmx/vmx.h"

/* ---- what should be mapped ---- */

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
	if (!*slot || (*slot)->fd < 0 || vmx_is_apic_page(v, w->gpa))
		return 0;
	note_large(space, w);
	u64 page = w->gpa & PAGE_MASK;
	bool writable = w->writable && w->dirty && phys_plain_write(*slot, w->gpa);
	return page | MAPPED | (writable ? WRITABLE : 0) | (page == (*slot)->gpa ? FIRST : 0);
}

/** The same for what a page walk finds that sets nothing; 0 also where it would have to. */
static u64 peek(struct soft_vcpu *v, struct space *space, u64 linear, struct memslot **slot)
{
	struct walk w = {.linear = linear};

	return mmu_peek(v, &w, ACCESS_READ, MMU_USER) ? record_for(v, space, &w, slot) : 0;
}

/** The same, 0 also for what is mapped. */
static u64 peek_new(struct soft_vcpu *v, struct space *space, u32 place, u64 linear)
{
	struct memslot *slot;

	return shadow_record(v->shadow, place, linear) ? 0 : peek(v, space, linear, &slot);
}

/** How many pages from @linear on, the first recorded as @record, would make one mapping. */
static u32 run_length(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 record,
		      u32 max)
{
	u32 n = 1;

	for (; n < max; n++) {
		u64 next = peek_new(v, space, place, linear + n * PAGE_SIZE);
		if (!shadow_continues(record, next))
			break;
		record = next;
	}
	return n;
}

/** Maps the page of @linear, and what lies beside it in a large page or by chance. */
static bool map_page(struct soft_vcpu *v, struct space *space, u32 place, const struct walk *w,
		     u64 record, struct memslot *slot)
{
	u64 first = w->linear & PAGE_MASK;
	u64 end = (first & ~(WINDOW_SIZE - 1)) + WINDOW_SIZE;
	u32 max = RUN_MAX;

	if (w->page_size > PAGE_SIZE) {
		u64 start = first & ~(LARGE_RUN - 1);
		while (first > start) {
			u64 below = peek_new(v, space, place, first - PAGE_SIZE);
			if (!shadow_continues(below, record))
				break;
			first -= PAGE_SIZE;
			record = below;
		}
		end = start + LARGE_RUN;
		max = LARGE_RUN / PAGE_SIZE;
	}
	if (max > (end - first) / PAGE_SIZE)
		max = (u32)((end - first) / PAGE_SIZE);
	u32 pages = run_length(v, space, place, first, record, max);
	return shadow_map(v, space, place, first, record, slot, pages);
}

/** @space is not what the tables say until shadow_enter(). */
static void must_look(struct soft_vcpu *v, const struct space *space)
{
	if (v->shadow->loaded == space)
		shadow_off(v);
}

static void make_stale(struct soft_vcpu *v, struct space *space)
{
	space->stale = true;
	must_look(v, space);
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
	must_look(v, space);
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
	u32 place;

	if (!space || shadow_of_host(s, host, &place, &w.linear) != space)
		return alone(v);
	u64 begin = __builtin_ia32_rdtsc();
	if (mmu_walk(v, &w, write ? ACCESS_WRITE : ACCESS_READ, MMU_USER, true))
		return w.ept ? alone(v) : page_fault(v, space, w.linear, w.error);
	u64 record = record_for(v, space, &w, &slot), known = shadow_record(s, place, w.linear);
	/* What is mapped as it should be and faults all the same is no memory: a file too short. */
	if (!record || (write && !(record & WRITABLE)) || known == record)
		return alone(v);
	if (((known ^ record) & (PAGE_MASK | MAPPED)) == 0) {
		if (!shadow_allow(v, space, place, w.linear, record, slot))
			return alone(v);
	} else if (!map_page(v, space, place, &w, record, slot)) {
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
		shadow_load(v, s->loaded);
	return alone(v);
}

/* ---- up to date again ---- */

/** What is mapped of the page of @linear becomes what the tables say, but that a page which is gone
 * is left to the caller. Returns its new record; 0 also if @space had to be given up. */
static u64 update_page(struct soft_vcpu *v, struct space *space, u32 place, u64 linear)
{
	struct memslot *slot;
	u64 old = shadow_record(v->shadow, place, linear), record = peek(v, space, linear, &slot);
	bool same_page = old && record && ((old ^ record) & PAGE_MASK) == 0;

	if (record == old)
		return record;
	if (old && !same_page)
		shadow_charge_gone(v, space, 1);
	if (!record)
		return 0;
	bool done = same_page ? shadow_allow(v, space, place, linear, record, slot)
			      : shadow_map(v, space, place, linear, record, slot, 1);
	return done ? record : 0;
}

/* Neighbours that are to be taken away together. */
struct gone {
	u64 first, end;
	u32 place;
};

static void hide_gone(struct soft_vcpu *v, struct space *space, const struct gone *gone)
{
	if (gone->end && space->on)
		shadow_hide(v, space, gone->place, gone->first, gone->end - gone->first);
}

/** Compares all of @space with the tables. */
static void revalidate(struct soft_vcpu *v, struct space *space)
{
	struct gone gone = {0};
	bool compact = false;

	filter_clear(&space->large_2m); /* those that are left are found again */
	filter_clear(&space->large_1g);
	for (u32 k = 0; k < space->logged; k++) {
		u64 linear = space->log[k];
		u32 place;
		if (!shadow_place(space, linear, &place))
			continue;
		if (!shadow_record(v->shadow, place, linear)) {
			compact = true;
			continue;
		}
		if (update_page(v, space, place, linear))
			continue;
		compact = true;
		if (gone.end != linear || gone.place != place) {
			hide_gone(v, space, &gone);
			gone = (struct gone){.first = linear, .place = place};
		}
		gone.end = linear + PAGE_SIZE;
	}
	hide_gone(v, space, &gone);
	if (!space->on)
		return;
	if (compact)
		shadow_compact_log(v->shadow, space);
	v->stats.shadow_checks++;
}

static void update_mapped(struct soft_vcpu *v, struct space *space, u64 linear)
{
	u32 place;

	if (!shadow_place(space, linear, &place))
		return;
	u64 old = shadow_record(v->shadow, place, linear);
	if (!update_page(v, space, place, linear) && old && space->on)
		shadow_hide(v, space, place, linear, PAGE_SIZE);
}

static void update_region(struct soft_vcpu *v, struct space *space, u64 region)
{
	u32 place;

	for (u64 n = 0; n < LARGE_RUN; n += PAGE_SIZE)
		if (shadow_place(space, region + n, &place) &&
		    shadow_record(v->shadow, place, region + n))
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
	if (!(v->cr0 & CR0_PG) || !(v->msr.efer & EFER_LMA) || !shadow_possible(v))
		return;
	if (!v->vm->tune.patience)
		shadow_at_once(v);

	struct space *space = shadow_space(v);

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
		shadow_load(v, space);
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

	for (u32 n = 0; s && n < SPACES; n++)
		if (shadow_is_of(v, &s->space[n]))
			make_stale(v, &s->space[n]);
}

void shadow_invalidate(struct soft_vcpu *v, u16 vpid, u64 ep4ta)
{
	struct shadow *s = v->shadow;

	for (u32 n = 0; s && n < SPACES; n++) {
		struct space *space = &s->space[n];
		if (space->set == MMU_NONROOT && (!vpid || space->vpid == vpid) &&
		    (!ep4ta || (space->eptp & PTE_ADDRESS) == ep4ta))
			make_stale(v, space);
	}
}

void shadow_flush_pcid(struct soft_vcpu *v, u64 pcid)
{
	struct shadow *s = v->shadow;

	/* Without CR4.PCIDE the bits say other things, and all is of PCID 0 (SDM 3A table 4-12). */
	if (!(v->cr4 & CR4_PCIDE)) {
		shadow_flush(v);
		return;
	}
	for (u32 n = 0; s && n < SPACES; n++)
		if (shadow_is_of(v, &s->space[n]) && (s->space[n].cr3 & CR3_PCID) == pcid)
			make_stale(v, &s->space[n]);
}

static void flush_page(struct soft_vcpu *v, struct space *space, u64 linear)
{
	u32 place;

	if (!shadow_place(space, linear, &place))
		return;
	/* INVLPG takes away all of a large page (SDM 3A 4.10.4.1). */
	if (filter_has(&space->large_1g, linear, 30)) {
		make_stale(v, space);
	} else if (filter_has(&space->large_2m, linear, 21)) {
		pend(v, space, (linear & ~(LARGE_RUN - 1)) | REGION);
	} else if (shadow_record(v->shadow, place, linear)) {
		pend(v, space, linear & PAGE_MASK);
	}
}

void shadow_flush_page(struct soft_vcpu *v, u64 linear)
{
	/* Global pages go from all PCIDs (SDM 3A 4.10.4.1), and one PCID may have several spaces.
	 */
	for (u32 n = 0; v->shadow && n < SPACES; n++)
		if (shadow_is_of(v, &v->shadow->space[n]))
			flush_page(v, &v->shadow->space[n], linear);
}

void shadow_faulted(struct soft_vcpu *v, u64 linear)
{
	struct space *space = shadow_space(v);
	u32 place;

	if (space && shadow_place(space, linear, &place) && shadow_record(v->shadow, place, linear))
		pend(v, space, linear & PAGE_MASK);
}

void shadow_pause(struct soft_vcpu *v)
{
	v->shadow_on = false;
	v->shadow_check = false;
}

void shadow_resume(struct soft_vcpu *v)
{
	v->shadow_check = true;
}

void shadow_switch(struct soft_vcpu *v, u64 cr3, bool keep)
{
	if (!v->shadow) {
		v->shadow_check = !v->vm->tune.patience;
		return;
	}
	if (!keep)
		shadow_flush_pcid(v, cr3 & CR3_PCID);
	shadow_off(v);
}

/** The view at @host of the page of @slot at @gpa, if it still is one, may only be read. */
static void protect_view(struct soft_vcpu *v, u64 host, struct memslot *slot, u64 gpa)
{
	u64 linear;
	u32 place;
	struct space *space = shadow_of_host(v->shadow, host, &place, &linear);

	if (!space)
		return;
	u64 record = shadow_record(v->shadow, place, linear);
	if ((record & ~FIRST) == (gpa | MAPPED | WRITABLE))
		shadow_allow(v, space, place, linear, record & ~WRITABLE, slot);
}

static void protect_page(struct soft_vcpu *v, struct memslot *slot, u64 page)
{
	struct shadow *s = v->shadow;
	u64 view = slot->views[page], gpa = slot->gpa + page * PAGE_SIZE;

	slot->views[page] = 0;
	if (view && view != VIEWS_MANY)
		protect_view(v, view, slot, gpa);
	if (view != VIEWS_MANY)
		return;
	for (u32 n = 0; n < SPACES; n++) {
		struct space *space = &s->space[n];
		for (u32 k = 0; k < space->logged; k++) {
			u32 place;
			if (shadow_place(space, space->log[k], &place))
				protect_view(v, shadow_host(s, place, space->log[k]), slot, gpa);
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
	shadow_off(v);
}
