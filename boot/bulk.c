#include "boot/bulk.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE  4096ull
#define SMALL (16 * PAGE) /* below this a system call costs more than it saves */

void *bulk_alloc(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return NULL;
	madvise(at, size, MADV_HUGEPAGE);
	return at;
}

void bulk_free(void *at, size_t size)
{
	if (at)
		munmap(at, size);
}

void bulk_prefault(void *at, size_t size)
{
	uintptr_t start = align_down((uintptr_t)at, PAGE);
	if (size >= SMALL)
		madvise((void *)start, (uintptr_t)at + size - start, MADV_POPULATE_WRITE);
}

static bool is_zero(const u8 *at, size_t size)
{
	/* Equal to itself one byte on, and the first is zero. */
	return at[0] == 0 && !memcmp(at, at + 1, size - 1);
}

/** Bytes from @to to the end of its page, at most @size. */
static size_t in_page(const u8 *to, size_t size)
{
	size_t rest = PAGE - ((uintptr_t)to & (PAGE - 1));
	return rest < size ? rest : size;
}

void bulk_copy(u8 *to, const u8 *from, size_t size)
{
	while (size) {
		size_t run = 0;
		while (run < size && !is_zero(from + run, in_page(to + run, size - run)))
			run += in_page(to + run, size - run);
		if (run) {
			bulk_prefault(to, run);
			memcpy(to, from, run);
		} else {
			run = in_page(to, size);
		}
		to += run;
		from += run;
		size -= run;
	}
}
