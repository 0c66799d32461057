/* Showing translated code to people: traces, and names for perf. Outside. */
#ifndef GUISE_SOFT_LISTING_H
#define GUISE_SOFT_LISTING_H

#include "engine/soft/translate/translator.h"

/** The block that @t has just made, to the trace (level 1: a line, 2: guest code, 3: guest and host
 * code side by side). */
void listing_trace_block(const struct translator *t);

/** The same block, or all stubs, to cache->perf. */
void listing_name_block(const struct translator *t);
void listing_name_stubs(const struct block_cache *cache);

#endif
