/* Translation of one block. Outside. */
#ifndef GUISE_SOFT_TRANSLATE_H
#define GUISE_SOFT_TRANSLATE_H

#include "engine/soft/translate/block.h"

/* Where the guest's bytes are. */
struct code_source {
	u64 rip; /* CS-relative */
	u64 linear;
	u64 gpa;
	const u8 *page; /* host address of the page */
	u64 next_gpa;	/* second page; next_page NULL: not fetched */
	const u8 *next_page;
};

/**
 * Translates and enters the block at @source. NULL with *error: -EFBIG, the first instruction goes
 * on in the next page, which has to be fetched. Older blocks make room, see block.h.
 */
struct block *translate(struct soft_vcpu *v, const struct code_source *source, u32 mode,
			int *error);

#endif
