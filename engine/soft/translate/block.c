#include "engine/soft/translate/block.h"

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/mode.h"

static u32 hash_of(u64 linear, u64 gpa, u32 mode)
{
	u64 h = gpa ^ linear * 0x9e3779b97f4a7c15ull ^ (u64)mode << 40;
	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9ull;
	return (u32)(h >> 40) & (BLOCK_HASH_SIZE - 1);
}

static struct block **page_chain(struct block_cache *cache, u64 gpa)
{
	return &cache->pages[(gpa >> 12) & (PAGE_HASH_SIZE - 1)];
}

struct block *block_find(struct soft_vcpu *v, u64 linear, u64 gpa, u32 mode)
{
	struct block *b = v->cache->hash[hash_of(linear, gpa, mode)];
	for (; b; b = b->hash_next) {
		if (b->linear != linear || b->gpa != gpa || b->mode != mode)
			continue;
		if (b->cs_base != code_base(v, mode))
			continue;
		if (!(mode & MODE_FLAT) && b->cs_limit != v->seg[SEG_CS].limit)
			continue;
		return b;
	}
	return NULL;
}

static void page_insert(struct soft_vcpu *v, struct block *b, int n, u64 gpa)
{
	struct block **chain = page_chain(v->cache, gpa);
	b->page_next[n] = *chain;
	*chain = b;
}

void block_insert(struct soft_vcpu *v, struct block *b)
{
	struct block_cache *cache = v->cache;
	struct block **bucket = &cache->hash[hash_of(b->linear, b->gpa, b->mode)];
	b->hash_next = *bucket;
	*bucket = b;
	page_insert(v, b, 0, b->gpa);
	/* A second page in the same chain would make b its own successor: the walk in
	 * blocks_invalidate() looks at both pages, so one membership is enough then. */
	if (b->gpa2 != ~0ull && page_chain(cache, b->gpa2) != page_chain(cache, b->gpa))
		page_insert(v, b, 1, b->gpa2);
	cache->by_code[cache->count++] = b;
	b->valid = true;
}

static void patch(struct block_cache *cache, const struct block_exit *exit, u32 to)
{
	s32 rel = (s32)(to - (exit->site + 4));
	__builtin_memcpy(cache->rw + exit->site, &rel, 4);
}

void block_link(struct soft_vcpu *v, struct block_exit *exit, struct block *target)
{
	if (!exit->linked) {
		exit->linked = target;
		exit->next_incoming = target->incoming;
		target->incoming = exit;
	}
	if (exit->linked == target)
		patch(v->cache, exit,
		      target->code + (exit->parked ? target->entry_parked : target->entry_host));
}

static void unlink_outgoing(struct block_exit *exit)
{
	if (!exit->linked)
		return;
	struct block_exit **p = &exit->linked->incoming;
	while (*p && *p != exit)
		p = &(*p)->next_incoming;
	if (*p)
		*p = exit->next_incoming;
	exit->linked = NULL;
}

static void unlink_incoming(struct block_cache *cache, struct block *b)
{
	struct block_exit *exit = b->incoming;
	while (exit) {
		struct block_exit *next = exit->next_incoming;
		patch(cache, exit, exit->stub);
		exit->linked = NULL;
		exit->next_incoming = NULL;
		exit = next;
	}
	b->incoming = NULL;
}

static void remove_from_page(struct block_cache *cache, struct block *b, u64 gpa)
{
	struct block **p = page_chain(cache, gpa);
	while (*p) {
		struct block *x = *p;
		int n = page_chain(cache, x->gpa) == page_chain(cache, gpa) ? 0 : 1;
		if (x == b) {
			*p = x->page_next[n];
			return;
		}
		p = &x->page_next[n];
	}
}

static void remove_block(struct soft_vcpu *v, struct block *b)
{
	struct block_cache *cache = v->cache;
	struct block **p = &cache->hash[hash_of(b->linear, b->gpa, b->mode)];
	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	remove_from_page(cache, b, b->gpa);
	if (b->gpa2 != ~0ull && page_chain(cache, b->gpa2) != page_chain(cache, b->gpa))
		remove_from_page(cache, b, b->gpa2);
	unlink_incoming(cache, b);
	for (u32 n = 0; n < b->exit_count; n++)
		unlink_outgoing(&b->exits[n]);
	b->valid = false;

	jump_cache_drop(v, MODE_MMU(b->mode), b->linear);
	v->pending_link = 0;
	v->stats.blocks_invalidated++;
}

/* Bytes of @b in its first page, or its second: [*first, *last]. Both may be the same page, mapped
 * twice. */
static bool block_part(const struct block *b, bool second, u64 *first, u64 *last)
{
	u64 end = b->gpa + b->length - 1;
	u64 page_end = b->gpa | ~PAGE_MASK;
	if (second) {
		*first = b->gpa2;
		*last = b->gpa2 + (end & ~PAGE_MASK);
		return b->gpa2 != ~0ull;
	}
	*first = b->gpa;
	*last = end < page_end ? end : page_end;
	return true;
}

/* Whether @b depends on bytes in [@gpa, @gpa + @size); *@near: in that page. */
static bool block_touches(const struct block *b, u64 gpa, u32 size, bool *near)
{
	bool touches = false;
	*near = false;
	for (u32 part = 0; part < 2; part++) {
		u64 first, last;
		if (!block_part(b, part, &first, &last) || (first ^ gpa) & PAGE_MASK)
			continue;
		*near = true;
		touches |= first < gpa + size && last >= gpa;
	}
	for (u32 n = 0; n < b->look_count && ((b->gpa ^ gpa) & PAGE_MASK) == 0; n++) {
		u64 page = gpa & PAGE_MASK;
		touches |= page + b->look[n].first < gpa + size && page + b->look[n].last >= gpa;
	}
	return touches;
}

void blocks_invalidate(struct soft_vcpu *v, u64 gpa, u32 size)
{
	struct block_cache *cache = v->cache;
	struct block **chain = page_chain(cache, gpa);
	bool left = false;
	for (struct block *b = *chain, *next; b; b = next) {
		next = b->page_next[page_chain(cache, b->gpa) == chain ? 0 : 1];
		bool near;
		if (block_touches(b, gpa, size, &near)) {
			remove_block(v, b);
			/* It may be the one that is running. */
			vcpu_attention(v, ATTENTION_IRQ);
		} else {
			left |= near;
		}
	}
	if (!left) {
		struct memslot *slot = phys_slot(v->vm, gpa);
		if (slot)
			slot->page_flags[(gpa - slot->gpa) >> 12] &= (u8)~PAGE_HAS_CODE;
	}
}

struct block *block_of_host(struct soft_vcpu *v, const void *pc)
{
	struct block_cache *cache = v->cache;
	u64 offset = (u64)((const u8 *)pc - cache->rx);
	if ((const u8 *)pc < cache->rx || offset >= cache->used || !cache->count)
		return NULL;
	u32 low = 0, high = cache->count;
	while (high - low > 1) {
		u32 mid = (low + high) / 2;
		if (cache->by_code[mid]->code <= offset)
			low = mid;
		else
			high = mid;
	}
	struct block *b = cache->by_code[low];
	return offset >= b->code && offset < b->code + b->code_size ? b : NULL;
}

const struct insn_map *block_insn(const struct soft_vcpu *v, const struct block *b, const void *pc)
{
	u64 offset = (u64)((const u8 *)pc - (v->cache->rx + b->code));
	u32 low = 0, high = b->map_count;
	while (high - low > 1) {
		u32 mid = (low + high) / 2;
		if (b->map[mid].host <= offset)
			low = mid;
		else
			high = mid;
	}
	return &b->map[low];
}

/* Translated code of @index will come out when it looks for its way on. */
static void jump_cache_poke(struct soft_vcpu *v, enum mmu_index index)
{
	for (u32 n = 0; n < v->jump_logged[index]; n++)
		v->jump[index][v->jump_log[index][n]].code = (u64)v->cache->stubs.kicked;
}

void block_poke(struct soft_vcpu *v, const void *pc)
{
	const struct stubs *stubs = &v->cache->stubs;
	struct block *b = block_of_host(v, pc);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++)
		if ((const u8 *)pc >= stubs->second[index] &&
		    (const u8 *)pc < stubs->second_end[index])
			jump_cache_poke(v, index);
	if (!b)
		return;
	for (u32 n = 0; n < b->exit_count; n++)
		patch(v->cache, &b->exits[n], b->exits[n].stub);
	/* STAC and CLAC may let it leave by the other kernel index. */
	bool user = MODE_MMU(b->mode) == MMU_USER;
	u32 first = user ? MMU_USER : MMU_KERNEL, last = user ? MMU_USER : MMU_KERNEL_AC;
	for (u32 index = first; index <= last; index++)
		jump_cache_poke(v, (enum mmu_index)index);
}

u64 guest_rip_of_host(struct soft_vcpu *v, u64 host)
{
	const struct block *b = block_of_host(v, (const void *)host);
	if (!b) /* of a block that is gone; or the guest loaded the value itself */
		return host - (u64)v->cache->rx < v->cache->size ? 0 : host;
	return b->linear + block_insn(v, b, (const void *)host)->guest - b->cs_base;
}
