/* What shadow.c and shadow_policy.c share with each other only. */
#ifndef GUISE_SOFT_MMU_SHADOW_INTERNAL_H
#define GUISE_SOFT_MMU_SHADOW_INTERNAL_H

#include "engine/soft/mmu/shadow.h"

/* Places for windows in the host's address space, each with room behind it, and room before all. */
#define SLOTS	    256u
#define WINDOW_SIZE BIT(SHADOW_SHIFT)
#define GUARD	    (4ull * SHADOW_REACH)
#define SLOT_SPAN   (WINDOW_SIZE + GUARD)
#define RECORDS	    (WINDOW_SIZE / PAGE_SIZE) /* of a window */

#define SPACES	    8
#define LOG_MAX	    BIT(20) /* pages in a space */
#define PENDING_MAX 64
#define LARGE_RUN   BIT(21)
#define REGION	    BIT(0) /* in space.pending: all of LARGE_RUN bytes */

/* Host mappings in all spaces; Linux allows a process 65,530 (vm.max_map_count). */
#define MAPPINGS_MAX 60000

/* memslot.views: where, in a window, a page may be written: nowhere, an address, or */
#define VIEWS_MANY (~0ull)

#define CODE_SLOTS 16384

/* A page that code was fetched from. */
struct code_page {
	u64 linear, gpa;
	bool used;
};

/* The shadow of one set of page tables. */
struct space {
	u64 cr3;
	u64 used;   /* shadow.clock when a tick last found it running; 0: a free one */
	bool on;    /* promoted */
	bool stale; /* to be compared with the tables */
	u32 ticks;  /* that found it running, while it is not on, */
	u32 wait;   /* of as many as it needs */
	s64 credit; /* host TSC ticks that it may spend on faults */
	u32 logged, pending_count;
	u32 mappings;		    /* of MAPPINGS_MAX, at most */
	u16 window[SHADOW_WINDOWS]; /* 1 + its place; 0: none */
	u64 pending[PENDING_MAX];   /* pages that may have changed, and regions of LARGE_RUN */
	/* Where large pages were found */
	struct page_filter large_2m, large_1g;
	u32 code_count;
	struct code_page code[CODE_SLOTS]; /* by a hash of .linear */
	u64 log[LOG_MAX];		   /* pages that are mapped */
};

struct shadow {
	u64 reserved, base; /* host addresses: of all, of the first place */
	u64 *records;	    /* what is mapped, for every page of every place */
	struct space *slot_owner[SLOTS];
	bool slot_used[SLOTS]; /* nobody's, but the host did not let it be unmapped */
	u16 slot_window[SLOTS];
	struct space *loaded; /* the table is its */
	u32 mappings;
	u64 clock, last_tick;
	struct space space[SPACES];
};

/** Spaces are those of VMX root operation. */
static inline bool shadow_paused(const struct soft_vcpu *v)
{
	return v->mmu == &v->mmus[MMU_NONROOT];
}

/** Gives the program of v->cr3 its space without waiting. */
void shadow_at_once(struct soft_vcpu *v);
/** v->shadow, made now if it was not; NULL: the host gives no room. */
struct shadow *shadow_get(struct soft_vcpu *v);
/** The space of @cr3, or NULL. */
struct space *shadow_space(struct soft_vcpu *v, u64 cr3);
/** Gives @space windows for what its tables, those of v->cr3, use. false: nothing new. */
bool shadow_add_windows(struct soft_vcpu *v, struct space *space);
/** Nothing is known any more of what @space's code was fetched from. */
void shadow_forget_code(struct soft_vcpu *v, struct space *space);
/** Unmaps all of @space. */
void shadow_drop(struct soft_vcpu *v, struct space *space);
/** User code does without until shadow_enter(). */
void shadow_off(struct soft_vcpu *v);
void shadow_unload(struct soft_vcpu *v);
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

#endif
