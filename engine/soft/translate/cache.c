/* Memory of the translator: code cache and metadata. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "debug/trace.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/pages.h"
#include "engine/soft/translate/listing.h"
#include "engine/soft/translate/perf_map.h"
#include "engine/soft/translate/stubs.h"
#include "engine/soft/translate/translator.h"

/* In proportion to the code: bytes of code for each byte of metadata, and for each entry of the two
 * tables of blocks. Pages are taken as they are touched. */
#define CODE_PER_METADATA 1
#define CODE_PER_AGE	  64
#define CODE_PER_BUCKET	  256

#define POPULATE_STEP (64ull << 10)

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

/* Bytes of a table of blocks. */
static u64 table_size(u32 mask)
{
	return ((u64)mask + 1) * sizeof(struct block *);
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
		pages_unmap(cache->arena, cache->arena_size);
	if (cache->by_age)
		munmap(cache->by_age, table_size(cache->age_mask));
	if (cache->hash)
		munmap(cache->hash, table_size(cache->hash_mask));
	if (cache->pages)
		munmap(cache->pages, PAGE_HASH_SIZE * sizeof(*cache->pages));
	if (cache->translator)
		munmap(cache->translator, sizeof(*cache->translator));
	decode_cache_destroy(cache->decoded);
	perf_map_close(cache->perf);
	free(cache);
}

/* One less than the power of two that is not below @count. */
static u32 mask_for(u64 count)
{
	u64 size = 1;
	while (size < count)
		size *= 2;
	return (u32)(size - 1);
}

int cache_create(struct soft_vcpu *v, u64 code_size, struct error *err)
{
	struct block_cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return error_set(err, ENOMEM, "no memory for the block cache");
	int r = map_code(cache, code_size, err);
	if (r < 0)
		goto fail;
	cache->arena_size = code_size / CODE_PER_METADATA;
	cache->arena = pages_map(cache->arena_size, LARGE_PAGE_SIZE, cache->arena_size);
	cache->age_mask = mask_for(code_size / CODE_PER_AGE);
	cache->by_age = reserve(table_size(cache->age_mask));
	cache->hash_mask = mask_for(code_size / CODE_PER_BUCKET);
	cache->hash = reserve(table_size(cache->hash_mask));
	cache->pages = reserve(PAGE_HASH_SIZE * sizeof(*cache->pages));
	cache->translator = reserve(sizeof(*cache->translator));
	cache->decoded = v->vm->tune.forms ? decode_cache_create() : NULL;
	if (!cache->arena || !cache->by_age || !cache->hash || !cache->pages ||
	    !cache->translator || (v->vm->tune.forms && !cache->decoded)) {
		r = error_set(err, ENOMEM, "no address space for the translator");
		goto fail;
	}
	if (v->vm->perf != PERF_NONE) {
		r = perf_map_open(&cache->perf, v->vm->perf, err);
		if (r < 0)
			goto fail;
	}
	cache->has_rorx = __builtin_cpu_supports("bmi2");
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
	jump_caches_forget(v);
	for (; cache->count; cache->count--, cache->oldest++)
		v->stats.blocks_evicted += block_oldest(cache)->valid;
	for (u32 n = 0; n < v->vm->slot_count; n++) {
		struct memslot *slot = &v->vm->slots[n];
		memset(slot->page_flags, 0, slot->size >> 12);
	}
	memset(cache->hash, 0, table_size(cache->hash_mask));
	memset(cache->pages, 0, PAGE_HASH_SIZE * sizeof(*cache->pages));
	cache->arena_used = 0;
	cache->poked = NULL;
	cache->oldest = 0;
	cache->count = 0;
	cache->used = cache->stubs_end;
	v->pending_link = 0;
	v->stats.cache_flushes++;
}

/*
 * Evicts what lies in the next @need bytes of a ring of @size bytes that begins at @start, and goes
 * on at @used; at() is where a block lies in it. Returns where those bytes are.
 */
static u64 make_room_in(struct soft_vcpu *v, u64 start, u64 size, u64 used, u64 need,
			u64 (*at)(const struct block_cache *, const struct block *))
{
	struct block_cache *cache = v->cache;
	if (used + need > size) {
		/* Around: what lies behind is oldest. */
		while (cache->count && at(cache, block_oldest(cache)) >= used)
			block_evict_oldest(v);
		used = start;
	}
	while (cache->count && at(cache, block_oldest(cache)) >= used &&
	       at(cache, block_oldest(cache)) < used + need)
		block_evict_oldest(v);
	return used;
}

static u64 at_in_code(const struct block_cache *cache, const struct block *b)
{
	return b->code;
}

static u64 at_in_arena(const struct block_cache *cache, const struct block *b)
{
	return (u64)((const u8 *)b - cache->arena);
}

/* Asks for the memory of what comes next a piece at a time, which costs less than a fault a page.
 * Old kernels (before 5.14) refuse, and fault. */
static void populate(u8 *base, u64 size, u64 *populated, u64 end, int how)
{
	if (end <= *populated || *populated == size)
		return;
	u64 next = align_up(end, POPULATE_STEP);
	if (next > size)
		next = size;
	madvise(base + *populated, next - *populated, how);
	*populated = next;
}

void cache_make_room(struct soft_vcpu *v, u64 code, u64 metadata)
{
	struct block_cache *cache = v->cache;
	cache->used = make_room_in(v, cache->stubs_end, cache->size, cache->used, code, at_in_code);
	cache->arena_used =
	    make_room_in(v, 0, cache->arena_size, align_up(cache->arena_used, BLOCK_ALIGNMENT),
			 metadata, at_in_arena);
	cache->arena_limit = cache->arena_used + metadata;
	if (cache->used + code > cache->populated) {
		u64 rx_populated = cache->populated;
		populate(cache->rw, cache->size, &cache->populated, cache->used + code,
			 MADV_POPULATE_WRITE);
		populate(cache->rx, cache->size, &rx_populated, cache->used + code,
			 MADV_POPULATE_READ);
	}
	populate(cache->arena, cache->arena_size, &cache->arena_populated, cache->arena_limit,
		 MADV_POPULATE_WRITE);
	if (cache->count > cache->age_mask)
		block_evict_oldest(v);
}

void *cache_alloc(struct block_cache *cache, u64 size)
{
	size = align_up(size, 8);
	if (cache->arena_used + size > cache->arena_limit)
		return NULL;
	void *p = cache->arena + cache->arena_used;
	cache->arena_used += size;
	return memset(p, 0, size);
}
