/*
 * Memory that translated code or the translator goes through all the time, in large pages of the
 * host where it gives them: fewer of its TLB's entries are needed for it. Outside.
 */
#ifndef GUISE_SOFT_PAGES_H
#define GUISE_SOFT_PAGES_H

#include "base/types.h"

#define LARGE_PAGE_SIZE (2ull << 20)

/** @size bytes of zeroed memory, at a multiple of LARGE_PAGE_SIZE; NULL: none left. Memory is taken
 * as it is touched, from @large_from to @large_to (multiples of it, or @size) in pieces of
 * LARGE_PAGE_SIZE: each takes a fifth of a millisecond to clear, which a guest that runs for a few
 * should not wait for. */
void *pages_map(u64 size, u64 large_from, u64 large_to);
/** The same, followed from the next page on by @tail bytes of address space that nothing is in. */
void *pages_map_before(u64 tail, u64 size, u64 large_from, u64 large_to);
void pages_unmap(void *p, u64 size);
void pages_unmap_before(u64 tail, void *p, u64 size);

#endif
