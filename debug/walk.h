/* A page walk that only looks, for diagnostics: no permission is checked, nothing is written. */
#ifndef GUISE_DEBUG_WALK_H
#define GUISE_DEBUG_WALK_H

#include <linux/kvm.h>

#include "base/types.h"

struct guest_memory;

#define WALK_LEVELS_MAX 5
#define EPT_LEVELS	4

struct walk_step {
	const char *table; /* "PML4", "PD" ... */
	u64 entry_gpa;
	u64 physical; /* where that is in the machine's memory: without EPT, the same */
	u64 entry;
	bool readable; /* the entry lies in RAM; if not, entry is 0 */
};

/* Extended page tables: guest-physical addresses of a guest's guest to those of the machine. */
struct walk_ept {
	u64 gpa;
	u32 count;
	struct walk_step steps[EPT_LEVELS];
	bool mapped;
	u64 physical; /* if mapped */
	u64 page_size;
};

struct walk {
	bool paging; /* off: gpa is the linear address */
	u32 count;
	struct walk_step steps[WALK_LEVELS_MAX];
	bool translated; /* by the guest's tables: gpa is known */
	bool mapped;	 /* and by the EPT: physical is known */
	u64 gpa;
	u64 page_size;	     /* of the guest's tables */
	u64 physical;	     /* without EPT: gpa */
	struct walk_ept ept; /* with EPT: of gpa, or of the entry that could not be read */
};

/**
 * Follows @linear through the tables that @sregs describes (SDM vol. 3A chapter 5), and with an EPT
 * pointer in @eptp all guest-physical addresses through its tables; 0: there is no EPT.
 */
void walk_linear(const struct guest_memory *memory, const struct kvm_sregs *sregs, u64 eptp,
		 u64 linear, struct walk *out);

/** Follows @gpa through the tables of @eptp (SDM vol. 3C 29.3.2). */
void walk_ept(const struct guest_memory *memory, u64 eptp, u64 gpa, struct walk_ept *out);

#endif
