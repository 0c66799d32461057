/* A page walk that only looks, for diagnostics: no permission is checked, nothing is written. */
#ifndef GUISE_DEBUG_WALK_H
#define GUISE_DEBUG_WALK_H

#include <linux/kvm.h>

#include "base/types.h"

struct guest_memory;

#define WALK_LEVELS_MAX 5

struct walk_step {
	const char *table; /* "PML4", "PD" ... */
	u64 entry_gpa;
	u64 entry;
	bool readable; /* the entry lies in RAM; if not, entry is 0 */
};

struct walk {
	bool paging; /* off: gpa is the linear address */
	u32 count;
	struct walk_step steps[WALK_LEVELS_MAX];
	bool mapped;
	u64 gpa; /* if mapped */
	u64 page_size;
};

/** Follows @linear through the tables that @sregs describes (SDM vol. 3A chapter 5). */
void walk_linear(const struct guest_memory *memory, const struct kvm_sregs *sregs, u64 linear,
		 struct walk *out);

#endif
