/* What shadow.c, shadow_map.c, shadow_policy.c and shadow_code.c share with each other only. */
#ifndef GUISE_SOFT_MMU_SHADOW_INTERNAL_H
#define GUISE_SOFT_MMU_SHADOW_INTERNAL_H

#include "engine/soft/mmu/shadow.h"

/* Places for windows in the host's address space, each with room behind it, and room before all. */
#define PLACES	      256u
#define WINDOW_SIZE   BIT(SHADOW_SHIFT)
#define GUARD	      (4ull * SHADOW_REACH)
#define PLACE_SPAN    (WINDOW_SIZE + GUARD)
#define RESERVED_SIZE (GUARD + PLACES * PLACE_SPAN)
#define RECORDS	      (WINDOW_SIZE / PAGE_SIZE) /* of a window */

#define SPACES	    8
#define LOG_MAX	    BIT(20) /* pages in a space */
#define PENDING_MAX 64
#define RUN_MAX	    16 /* neighbouring pages that are entered with the one that is needed */
#define LARGE_RUN   BIT(21)
#define REGION	    BIT(0) /* in space.pending: all of LARGE_RUN bytes */

/* Host mappings in all places, counting those of the room between what is mapped; Linux allows a
 * process 65,530 (vm.max_map_count). */
#define MAPPINGS_MAX 60000

/* A record: what a page of a window is mapped to. Guest-physical address, and */
#define MAPPED	 BIT(0)
#define WRITABLE BIT(1)
#define FIRST	 BIT(2) /* page of its memory slot: does not continue what is below */
#define LISTED	 BIT(3) /* in the log of its space, mapped or not */

/* memslot.views: where, in a window, a page may be written: nowhere, an address, or */
#define VIEWS_MANY (~0ull)

#define CODE_SLOTS 16384

/* A page that code was fetched from. */
struct code_page {
	u64 linear, gpa;
	bool used;
};

/* The shadow of one set of page tables; those of a nested guest and its hypervisor's, together. */
struct space {
	u64 cr3;
	u8 set;	  /* whose: v->mmus[] */
	u16 vpid; /* of that, as .eptp */
	u64 eptp;
	u64 used;   /* shadow.clock when a tick last found it running; 0: a free one */
	bool on;    /* promoted */
	bool stale; /* to be compared with the tables */
	u32 ticks;  /* that found it running, while it is not on, */
	u32 wait;   /* of as many as it needs */
	s64 credit; /* host TSC ticks that it may spend on faults */
	u32 logged, pending_count;
	u16 window[SHADOW_WINDOWS]; /* 1 + its place; 0: none */
	u64 pending[PENDING_MAX];   /* pages that may have changed, and regions of LARGE_RUN */
	/* Where large pages were found */
	struct page_filter large_2m, large_1g;
	u32 code_count;
	struct code_page code[CODE_SLOTS]; /* by a hash of .linear */
	u64 log[LOG_MAX];		   /* pages that are mapped, or were */
};

struct shadow {
	u64 reserved, base; /* host addresses: of all, of the first place */
	u64 *records;	    /* for every page of every place */
	struct space *place_owner[PLACES];
	u16 place_window[PLACES];
	u32 place_mappings[PLACES]; /* nobody's may have some, if the host did not let them go */
	u32 mappings;		    /* their sum, of MAPPINGS_MAX at most */
	struct space *loaded;	    /* the table is its */
	u64 clock, last_tick;
	struct space space[SPACES];
};

/** Without a VPID each VM entry and exit would flush all of a nested guest's. */
static inline bool shadow_possible(const struct soft_vcpu *v)
{
	return v->mmu == &v->mmus[MMU_ROOT] || v->mmu->vpid;
}

/** Whether flushes of what is in use concern @space: they do with every EPTP (SDM 3C 29.4.3.1). */
static inline bool shadow_is_of(const struct soft_vcpu *v, const struct space *space)
{
	return &v->mmus[space->set] == v->mmu && space->vpid == v->mmu->vpid;
}

/** Whether @space is that of the tables in use. Never where a hypervisor flushes what its guest has
 * (WITH_SET()): v->cr3 is its own then. */
static inline bool shadow_is_current(const struct soft_vcpu *v, const struct space *space)
{
	return space->cr3 == v->cr3 && space->set == v->vmx.nonroot && shadow_is_of(v, space) &&
	       space->eptp == v->mmu->eptp;
}

/* ---- who gets a space, and what it costs: shadow_policy.c ---- */

/** Gives the program of v->cr3 its space without waiting. */
void shadow_at_once(struct soft_vcpu *v);
/** The space of the tables in use, or NULL. */
struct space *shadow_space(struct soft_vcpu *v);
/** @space is too much for the host: without, for a long time. */
void shadow_give_up(struct soft_vcpu *v, struct space *space);
/** @space has cost @ticks of the host's TSC. */
void shadow_charge(struct space *space, u64 ticks);
/** The same for a fault that is over with a new page mapped: these besides the signal. */
void shadow_charge_fault(struct soft_vcpu *v, struct space *space, u64 ticks);
/** A fault that was in vain. */
void shadow_charge_alone(struct soft_vcpu *v, struct space *space);
/** @pages pages of @space are not what they were. */
void shadow_charge_gone(struct soft_vcpu *v, struct space *space, u32 pages);

/* ---- what is mapped: shadow_map.c ---- */

/** v->shadow, made now if it was not; NULL: the host gives no room. */
struct shadow *shadow_get(struct soft_vcpu *v);
/** Gives @space windows for what its tables, those of v->cr3, use. false: nothing new. */
bool shadow_add_windows(struct soft_vcpu *v, struct space *space);
/** The table becomes that of @space (NULL: of none). */
void shadow_load(struct soft_vcpu *v, struct space *space);
void shadow_unload(struct soft_vcpu *v);
/** The place of the window of @linear in @space; false: it has none. */
bool shadow_place(const struct space *space, u64 linear, u32 *place);
u64 shadow_host(const struct shadow *s, u32 place, u64 linear);
/** Whose window @host lies in (NULL: nobody's), and which address that is. */
struct space *shadow_of_host(const struct shadow *s, u64 host, u32 *place, u64 *linear);
/** The record of the page of @linear, without LISTED. */
u64 shadow_record(const struct shadow *s, u32 place, u64 linear);
/** Whether pages recorded as @a and, behind it, @b make one mapping: neighbours in one file, with
 * the same rights; or nothing, both. */
bool shadow_continues(u64 a, u64 b);
/** Host mappings of @space. */
u32 shadow_mappings(const struct shadow *s, const struct space *space);

/*
 * Changes of what is mapped. false, or space->on falls: the host refuses, and @space has been given
 * up, as nobody may go on using what is not allowed any more.
 */
/** Maps @pages pages of @slot, the first of them recorded as @record, from @linear on. */
bool shadow_map(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 record,
		struct memslot *slot, u32 pages);
/** The page of @linear, mapped already, may be used as @record says. */
bool shadow_allow(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 record,
		  struct memslot *slot);
/** Takes @size bytes from @linear on away. */
void shadow_hide(struct soft_vcpu *v, struct space *space, u32 place, u64 linear, u64 size);
/** Forgets what is listed but not mapped. */
void shadow_compact_log(struct shadow *s, struct space *space);
/** Unmaps all of @space. */
void shadow_drop(struct soft_vcpu *v, struct space *space);

/* ---- the rest ---- */

/** User code does without until shadow_enter(). */
void shadow_off(struct soft_vcpu *v);
/** Nothing is known any more of what @space's code was fetched from. Where the jump cache was to be
 * compared with it, it is emptied. */
void shadow_forget_code(struct soft_vcpu *v, struct space *space);

#endif
