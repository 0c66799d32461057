/* Memory of the translator: code cache and metadata. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "debug/trace.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/listing.h"
#include "engine/soft/translate/perf_map.h"
#include "engine/soft/translate/stubs.h"
#include "engine/soft/translate/translator.h"

#define ARENA_SIZE (256ull << 20) /* address space; pages are taken as they are touched */

static void *reserve(u64 size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* W^X: one memory, writable in one place, executable in another. Not of a memfd: perf believes
 * names of code (perf_map.h) only in memory that is of no file. */
static int map_code(struct block_cache *cache, u64 size, struct error *err)
{
	cache->size = size;
	cache->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (cache->rw == MAP_FAILED)
		return error_errno(err, errno, "no memory for the code cache");
	/* An old size of 0 makes a second mapping of the same pages (mremap(2)). */
	cache->rx = mremap(cache->rw, 0, size, MREMAP_MAYMOVE);
	if (cache->rx != MAP_FAILED && !mprotect(cache->rx, size, PROT_READ | PROT_EXEC))
		return 0;
	return error_errno(err, errno,
			   "cannot map the code cache; executable shared memory is needed (a "
			   "security policy forbids it?)");
}

void cache_destroy(struct block_cache *cache)
{
	if (!cache)
		return;
	if (cache->rw && cache->rw != MAP_FAILED)
		munmap(cache->rw, cache->size);
	if (cache->rx && cache->rx != MAP_FAILED)
		munmap(cache->rx, cache->size);
	if (cache->arena)
		munmap(cache->arena, cache->arena_size);
	if (cache->by_code)
		munmap(cache->by_code, BLOCKS_MAX * sizeof(*cache->by_code));
	if (cache->hash)
		munmap(cache->hash, BLOCK_HASH_SIZE * sizeof(*cache->hash));
	if (cache->pages)
		munmap(cache->pages, PAGE_HASH_SIZE * sizeof(*cache->pages));
	if (cache->translator)
		munmap(cache->translator, sizeof(*cache->translator));
	decode_cache_destroy(cache->decoded);
	perf_map_close(cache->perf);
	free(cache);
}

int cache_create(struct soft_vcpu *v, u64 code_size, struct error *err)
{
	struct block_cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return error_set(err, ENOMEM, "no memory for the block cache");
	int r = map_code(cache, code_size, err);
	if (r < 0)
		goto fail;
	cache->arena_size = ARENA_SIZE;
	cache->arena = reserve(ARENA_SIZE);
	cache->by_code = reserve(BLOCKS_MAX * sizeof(*cache->by_code));
	cache->hash = reserve(BLOCK_HASH_SIZE * sizeof(*cache->hash));
	cache->pages = reserve(PAGE_HASH_SIZE * sizeof(*cache->pages));
	cache->translator = reserve(sizeof(*cache->translator));
	cache->decoded = v->vm->tune.forms ? decode_cache_create() : NULL;
	if (!cache->arena || !cache->by_code || !cache->hash || !cache->pages ||
	    !cache->translator || (v->vm->tune.forms && !cache->decoded)) {
		r = error_set(err, ENOMEM, "no address space for the translator");
		goto fail;
	}
	if (v->vm->perf != PERF_NONE) {
		r = perf_map_open(&cache->perf, v->vm->perf, err);
		if (r < 0)
			goto fail;
	}
	v->cache = cache;
	stubs_emit(v);
	if (cache->perf)
		listing_name_stubs(cache);
	return 0;
fail:
	cache_destroy(cache);
	return r;
}

void cache_reset(struct soft_vcpu *v)
{
	struct block_cache *cache = v->cache;
	trace(translate, 1, "cache reset: %u blocks, %llu code bytes", cache->count,
	      (unsigned long long)cache->used);
	for (u32 n = 0; n < v->vm->slot_count; n++) {
		struct memslot *slot = &v->vm->slots[n];
		memset(slot->page_flags, 0, slot->size >> 12);
	}
	memset(cache->hash, 0, BLOCK_HASH_SIZE * sizeof(*cache->hash));
	memset(cache->pages, 0, PAGE_HASH_SIZE * sizeof(*cache->pages));
	memset(cache->arena, 0, cache->arena_used);
	cache->arena_used = 0;
	cache->count = 0;
	cache->used = cache->stubs_end;
	v->pending_link = 0;
	jump_caches_forget(v);
	v->stats.cache_flushes++;
}

void *cache_alloc(struct block_cache *cache, u64 size)
{
	size = align_up(size, 8);
	if (cache->arena_used + size > cache->arena_size)
		return NULL;
	void *p = cache->arena + cache->arena_used;
	cache->arena_used += size;
	return p;
}
