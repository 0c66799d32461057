/* Moving many bytes without paying a page fault for each 4 KiB of them. */
#ifndef GUISE_BOOT_BULK_H
#define GUISE_BOOT_BULK_H

#include "base/types.h"

/** @size bytes of working memory in huge pages where the host has them, or NULL. */
void *bulk_alloc(size_t size);
void bulk_free(void *at, size_t size); /* @at may be NULL */

/** Tells the host that all of [@at, @at + @size) is about to be written. Only a hint. */
void bulk_prefault(void *at, size_t size);

/**
 * Copies into memory that holds zeroes: pages of @from that are zero are left out, and cost no
 * memory.
 */
void bulk_copy(u8 *to, const u8 *from, size_t size);

#endif
