#include "engine/soft/pages.h"

#include "engine/soft/x86.h"

#include <sys/mman.h>

void *pages_map_before(u64 tail, u64 size, u64 large_from, u64 large_to)
{
	u64 used = align_up(align_up(size, PAGE_SIZE) + tail, LARGE_PAGE_SIZE);
	u64 room = used + LARGE_PAGE_SIZE;
	u8 *all = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (all == MAP_FAILED)
		return NULL;
	u8 *p = (u8 *)align_up((u64)all, LARGE_PAGE_SIZE);
	u64 before = (u64)(p - all);
	if (before)
		munmap(all, before);
	if (room - before - used)
		munmap(p + used, room - before - used);
	if (mprotect(p, align_up(size, PAGE_SIZE), PROT_READ | PROT_WRITE)) {
		munmap(p, used);
		return NULL;
	}
	/* A host that has no such pages for us refuses, and that is fine. */
	if (large_to > large_from)
		madvise(p + large_from, align_up(large_to, LARGE_PAGE_SIZE) - large_from,
			MADV_HUGEPAGE);
	return p;
}

void *pages_map(u64 size, u64 large_from, u64 large_to)
{
	return pages_map_before(0, align_up(size, LARGE_PAGE_SIZE), large_from, large_to);
}

void pages_unmap_before(u64 tail, void *p, u64 size)
{
	munmap(p, align_up(align_up(size, PAGE_SIZE) + tail, LARGE_PAGE_SIZE));
}

void pages_unmap(void *p, u64 size)
{
	pages_unmap_before(0, p, size);
}
