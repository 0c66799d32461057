#include "engine/soft/translate/block.h"

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/mode.h"

static struct block **bucket_of(struct block_cache *cache, u64 linear, u64 gpa, u32 mode)
{
	u64 h = gpa ^ linear * 0x9e3779b97f4a7c15ull ^ (u64)mode << 40;
	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9ull;
	return &cache->hash[(u32)(h >> 32) & cache->hash_mask];
}

static struct page_chain *page_chain(struct block_cache *cache, u64 gpa)
{
	return &cache->pages[(gpa >> 12) & (PAGE_HASH_SIZE - 1)];
}

struct block *block_find(struct soft_vcpu *v, u64 linear, u64 gpa, u32 mode)
{
	struct block *b = *bucket_of(v->cache, linear, gpa, mode);
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

/* Which of its links @b has in @chain. */
static u32 page_link(struct block_cache *cache, const struct block *b,
		     const struct page_chain *chain)
{
	return page_chain(cache, b->gpa) == chain ? 0 : 1;
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
	return touches;
}

#define LINE_SHIFT 4 /* of page_chain.lines */

/* Bytes @first to @last of one page; only their places in it count. */
static void mark_lines(struct page_chain *chain, u64 first, u64 last)
{
	u32 to = (u32)(last & ~PAGE_MASK) >> LINE_SHIFT;
	for (u32 n = (u32)(first & ~PAGE_MASK) >> LINE_SHIFT; n <= to; n++)
		chain->lines[n / 64] |= BIT(n % 64);
}

static bool has_lines(const struct page_chain *chain, u64 first, u64 last)
{
	u32 to = (u32)(last & ~PAGE_MASK) >> LINE_SHIFT;
	for (u32 n = (u32)(first & ~PAGE_MASK) >> LINE_SHIFT; n <= to; n++)
		if (chain->lines[n / 64] & BIT(n % 64))
			return true;
	return false;
}

/* Marks what @b depends on, in whichever page. */
static void add_lines(struct page_chain *chain, const struct block *b)
{
	u64 first, last;
	for (u32 part = 0; part < 2; part++)
		if (block_part(b, part, &first, &last))
			mark_lines(chain, first, last);
}

static void renew_lines(struct block_cache *cache, struct page_chain *chain)
{
	for (u32 n = 0; n < ARRAY_SIZE(chain->lines); n++)
		chain->lines[n] = 0;
	for (const struct block *b = chain->first; b; b = b->page_next[page_link(cache, b, chain)])
		add_lines(chain, b);
	chain->stale = false;
}

static void page_insert(struct block_cache *cache, struct block *b, u64 gpa)
{
	struct page_chain *chain = page_chain(cache, gpa);
	u32 n = page_link(cache, b, chain);
	b->page_prev[n] = NULL;
	b->page_next[n] = chain->first;
	if (chain->first)
		chain->first->page_prev[page_link(cache, chain->first, chain)] = b;
	chain->first = b;
	add_lines(chain, b);
}

static void page_remove(struct block_cache *cache, struct block *b, u64 gpa)
{
	struct page_chain *chain = page_chain(cache, gpa);
	u32 n = page_link(cache, b, chain);
	chain->stale = true;
	struct block *next = b->page_next[n], *prev = b->page_prev[n];
	if (next)
		next->page_prev[page_link(cache, next, chain)] = prev;
	if (prev)
		prev->page_next[page_link(cache, prev, chain)] = next;
	else
		chain->first = next;
}

/* Whether @b is in two page chains. Were both its pages in one, it would be its own successor: who
 * walks a chain looks at both pages, so one membership is enough then. */
static bool in_two_chains(struct block_cache *cache, const struct block *b)
{
	return b->gpa2 != ~0ull && page_chain(cache, b->gpa2) != page_chain(cache, b->gpa);
}

void block_insert(struct soft_vcpu *v, struct block *b)
{
	struct block_cache *cache = v->cache;
	struct block **bucket = bucket_of(cache, b->linear, b->gpa, b->mode);
	b->hash_next = *bucket;
	*bucket = b;
	page_insert(cache, b, b->gpa);
	if (in_two_chains(cache, b))
		page_insert(cache, b, b->gpa2);
	cache->by_age[(cache->oldest + cache->count++) & cache->age_mask] = b;
	b->valid = true;
}

static void patch(struct block_cache *cache, const struct block_exit *exit, u32 to)
{
	s32 rel = (s32)(to - (exit->site + 4));
	__builtin_memcpy(cache->rw + exit->site, &rel, 4);
}

/* Where @exit leads that is linked. */
static u32 linked_code(const struct block_exit *exit)
{
	const struct block *target = exit->linked;
	if (exit->inner && target == exit->from)
		return target->code + target->loop_body;
	return target->code + (exit->parked ? target->entry_parked : target->entry_host);
}

static void add_far(struct block_cache *cache, struct block_exit *exit)
{
	exit->next_far = cache->far;
	exit->prev_far = &cache->far;
	if (cache->far)
		cache->far->prev_far = &exit->next_far;
	cache->far = exit;
}

static void remove_far(struct block_exit *exit)
{
	if (!exit->prev_far)
		return;
	*exit->prev_far = exit->next_far;
	if (exit->next_far)
		exit->next_far->prev_far = exit->prev_far;
	exit->prev_far = NULL;
}

void block_link(struct soft_vcpu *v, struct block_exit *exit, struct block *target)
{
	if (!exit->linked) {
		if ((exit->from->linear ^ target->linear) & PAGE_MASK)
			add_far(v->cache, exit);
		exit->linked = target;
		exit->next_incoming = target->incoming;
		exit->prev_incoming = &target->incoming;
		if (target->incoming)
			target->incoming->prev_incoming = &exit->next_incoming;
		target->incoming = exit;
	}
	if (exit->linked == target)
		patch(v->cache, exit, linked_code(exit));
}

static void unlink_outgoing(struct block_cache *cache, struct block_exit *exit)
{
	if (!exit->linked)
		return;
	*exit->prev_incoming = exit->next_incoming;
	if (exit->next_incoming)
		exit->next_incoming->prev_incoming = exit->prev_incoming;
	exit->linked = NULL;
	remove_far(exit);
	patch(cache, exit, exit->stub);
}

static void unlink_incoming(struct block_cache *cache, struct block *b)
{
	struct block_exit *exit = b->incoming;
	while (exit) {
		struct block_exit *next = exit->next_incoming;
		patch(cache, exit, exit->stub);
		exit->linked = NULL;
		remove_far(exit);
		exit->next_incoming = NULL;
		exit = next;
	}
	b->incoming = NULL;
}

u32 blocks_cut_far(struct soft_vcpu *v)
{
	u32 n = 0;
	for (; v->cache->far; n++)
		unlink_outgoing(v->cache, v->cache->far);
	return n;
}

static void remove_block(struct soft_vcpu *v, struct block *b)
{
	struct block_cache *cache = v->cache;
	struct block **p = bucket_of(cache, b->linear, b->gpa, b->mode);
	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	page_remove(cache, b, b->gpa);
	if (in_two_chains(cache, b))
		page_remove(cache, b, b->gpa2);
	unlink_incoming(cache, b);
	for (u32 n = 0; n < b->exit_count; n++)
		unlink_outgoing(cache, &b->exits[n]);
	b->valid = false;

	jump_cache_drop(v, b->mode, b->linear);
}

/* No block is of the page at @gpa. There may be some of the same memory at another address. */
static void unmark_page(struct soft_vcpu *v, u64 gpa)
{
	struct memslot *slot = phys_slot(v->vm, gpa);
	if (slot && !v->vm->slots_share)
		atomic_fetch_and((_Atomic u8 *)&slot->page_flags[(gpa - slot->gpa) >> 12],
				 (u8)~PAGE_HAS_CODE);
}

static void throw_away(struct soft_vcpu *v, struct block *b)
{
	remove_block(v, b);
	v->stats.blocks_invalidated++;
	/* It may be the one that is running. */
	v->pending_link = 0;
	vcpu_attention(v, ATTENTION_IRQ);
}

static void invalidate_at(struct soft_vcpu *v, u64 gpa, u32 size)
{
	struct block_cache *cache = v->cache;
	struct page_chain *chain = page_chain(cache, gpa);
	bool left = false;
	if (!has_lines(chain, gpa, gpa + size - 1)) {
		if (!chain->first)
			unmark_page(v, gpa);
		return;
	}
	for (struct block *b = chain->first, *next; b; b = next) {
		next = b->page_next[page_link(cache, b, chain)];
		bool near;
		if (block_touches(b, gpa, size, &near)) {
			throw_away(v, b);
		} else {
			left |= near;
		}
	}
	if (chain->stale)
		renew_lines(cache, chain);
	if (!left)
		unmark_page(v, gpa);
}

void blocks_invalidate(struct soft_vcpu *v, u64 gpa, u32 size)
{
	struct soft_vm *vm = v->vm;
	invalidate_at(v, gpa, size);
	if (likely(!vm->slots_share))
		return;
	u8 *host = phys_ram(vm, gpa);
	for (u32 n = 0; n < vm->slot_count; n++) {
		struct memslot *slot = &vm->slots[n];
		if (host >= slot->host && host < slot->host + slot->size)
			invalidate_at(v, slot->gpa + (u64)(host - slot->host), size);
	}
}

void blocks_invalidate_all(struct soft_vcpu *v)
{
	struct block_cache *cache = v->cache;
	for (u32 n = 0; n < cache->count; n++) {
		struct block *b = cache->by_age[(cache->oldest + n) & cache->age_mask];
		if (b->valid)
			throw_away(v, b);
	}
}

static void unmark_page_without_code(struct soft_vcpu *v, u64 gpa)
{
	struct block_cache *cache = v->cache;
	const struct page_chain *chain = page_chain(cache, gpa);
	bool near = false;
	for (struct block *b = chain->first; b && !near;
	     b = b->page_next[page_link(cache, b, chain)])
		block_touches(b, gpa, 1, &near);
	if (!near)
		unmark_page(v, gpa);
}

void block_evict_oldest(struct soft_vcpu *v)
{
	struct block_cache *cache = v->cache;
	struct block *b = block_oldest(cache);
	const struct block_exit *pending = (const struct block_exit *)v->pending_link;
	if (pending && pending->from == b)
		v->pending_link = 0;
	if (b->valid) {
		remove_block(v, b);
		unmark_page_without_code(v, b->gpa);
		if (b->gpa2 != ~0ull)
			unmark_page_without_code(v, b->gpa2);
		v->stats.blocks_evicted++;
	}
	cache->oldest++;
	cache->count--;
}

/* Orders places in the ring of code by the age of what lies there. */
static u64 age_order(const struct block_cache *cache, u64 code)
{
	return code >= block_oldest(cache)->code ? code : code + cache->size;
}

static const struct block *block_of_age(const struct block_cache *cache, u32 n)
{
	return cache->by_age[(cache->oldest + n) & cache->age_mask];
}

/*
 * Narrows [*low, *high) around the block at @wanted: blocks are of much the same size, so it is
 * near where a rule of three puts it, and each look at a block far away costs a cache miss.
 */
static void narrow(const struct block_cache *cache, u64 wanted, u32 *low, u32 *high)
{
	const struct block *newest = block_of_age(cache, cache->count - 1);
	u64 first = block_oldest(cache)->code;
	u64 last = age_order(cache, newest->code) + newest->code_size;
	if (wanted < first || wanted >= last)
		return;
	u32 guess = (u32)((wanted - first) * cache->count / (last - first));
	bool above = age_order(cache, block_of_age(cache, guess)->code) <= wanted;
	for (u32 step = 16; *high - *low > step; step *= 4) {
		if (above) {
			*low = guess;
			if (*high - guess <= step)
				return;
			guess += step;
			if (age_order(cache, block_of_age(cache, guess)->code) > wanted) {
				*high = guess;
				return;
			}
		} else {
			*high = guess;
			if (guess - *low <= step)
				return;
			guess -= step;
			if (age_order(cache, block_of_age(cache, guess)->code) <= wanted) {
				*low = guess;
				return;
			}
		}
	}
}

struct block *block_of_host(struct soft_vcpu *v, const void *pc)
{
	struct block_cache *cache = v->cache;
	u64 offset = (u64)((const u8 *)pc - cache->rx);
	if ((const u8 *)pc < cache->rx || offset >= cache->size || !cache->count)
		return NULL;
	u64 wanted = age_order(cache, offset);
	u32 low = 0, high = cache->count;
	narrow(cache, wanted, &low, &high);
	while (high - low > 1) {
		u32 mid = (low + high) / 2;
		if (age_order(cache, block_of_age(cache, mid)->code) <= wanted)
			low = mid;
		else
			high = mid;
	}
	struct block *b = cache->by_age[(cache->oldest + low) & cache->age_mask];
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

u32 block_insn_length(const struct soft_vcpu *v, const struct block *b, const void *pc)
{
	u32 guest = block_insn(v, b, pc)->guest, next = b->length;
	for (u32 n = 0; n < b->map_count; n++)
		if (b->map[n].guest > guest && b->map[n].guest < next)
			next = b->map[n].guest;
	return next - guest;
}

s64 block_branch_undo(struct soft_vcpu *v, const void *pc)
{
	const struct block *b = block_of_host(v, (const u8 *)pc - 1);
	for (u32 n = 0; b && n < b->way_count; n++)
		if (v->cache->rx + b->code + b->ways[n].back == pc)
			return b->ways[n].undo;
	return 0;
}

#define CHECK_FAILURES_MAX 8
#define JMP_REL32	   0xe9

void block_check_failed(struct soft_vcpu *v, const void *pc)
{
	struct block_cache *cache = v->cache;
	struct block *b = block_of_host(v, pc);
	u32 at = (u32)((const u8 *)pc - cache->rx);
	for (u32 n = 0; b && n < b->exit_count; n++) {
		struct block_exit *exit = &b->exits[n];
		if (!exit->plain || at < exit->cold || at > exit->site)
			continue;
		if (++exit->failures == CHECK_FAILURES_MAX) {
			s32 rel = (s32)(exit->site - 1 - (exit->cold + 5));
			cache->rw[exit->cold] = JMP_REL32;
			__builtin_memcpy(cache->rw + exit->cold + 1, &rel, 4);
		}
		return;
	}
}

/* A look-up compares, then JNE leads to where nothing was found; then comes the jump through the
 * entry. NOP and JMP in its stead take the same bytes, and have the same displacement. */
static const u8 jne_rel32[] = {0x0f, 0x85}, nop_jmp_rel32[] = {0x90, 0xe9};
#define JNE_SIZE 6

const void *block_poke(struct soft_vcpu *v, const void *pc)
{
	struct block_cache *cache = v->cache;
	struct block *b = block_of_host(v, pc);
	const u8 *go_on = pc;
	if (!b)
		return pc;
	for (u32 n = 0; n < b->exit_count; n++)
		patch(cache, &b->exits[n], b->exits[n].stub);
	for (u32 n = 0; n < b->way_count; n++) {
		u32 at = b->code + b->ways[n].branch;
		if (!b->ways[n].branch)
			continue;
		__builtin_memcpy(cache->rw + at, nop_jmp_rel32, sizeof(nop_jmp_rel32));
		if (pc == cache->rx + at + JNE_SIZE)
			go_on = cache->rx + at;
	}
	cache->poked = b;
	return go_on;
}

void block_unpoke(struct soft_vcpu *v)
{
	struct block_cache *cache = v->cache;
	struct block *b = cache->poked;
	for (u32 n = 0; n < b->exit_count; n++)
		if (b->exits[n].linked)
			patch(cache, &b->exits[n], linked_code(&b->exits[n]));
	for (u32 n = 0; n < b->way_count; n++)
		if (b->ways[n].branch)
			__builtin_memcpy(cache->rw + b->code + b->ways[n].branch, jne_rel32,
					 sizeof(jne_rel32));
	cache->poked = NULL;
}

u64 guest_rip_of_host(struct soft_vcpu *v, u64 host)
{
	const struct block *b = block_of_host(v, (const void *)host);
	if (!b) /* of a block that is gone; or the guest loaded the value itself */
		return host - (u64)v->cache->rx < v->cache->size ? 0 : host;
	return b->linear + block_insn(v, b, (const void *)host)->guest - b->cs_base;
}
