#include "engine/soft/translate/listing.h"

#include <stdio.h>
#include <string.h>

#include "debug/trace.h"
#include "engine/soft/translate/decode_text.h"
#include "engine/soft/translate/names.h"
#include "engine/soft/translate/perf_map.h"

#define TEXT_MAX    96
#define GUEST_WIDTH 44 /* columns of a listing's left side */

/* ---- perf ---- */

void listing_name_block(const struct translator *t)
{
	const struct block_cache *cache = t->v->cache;
	const struct block *b = t->block;
	char name[48];
	snprintf(name, sizeof(name), "guest_%s:%#llx",
		 MODE_MMU(b->mode) == MMU_USER ? "user" : "kernel", (unsigned long long)b->linear);
	perf_map_add(cache->perf, cache->rx + b->code, cache->rw + b->code, b->code_size, name);
}

void listing_name_stubs(const struct block_cache *cache)
{
	const char *name = NULL;
	u32 begin = 0;
	/* A stub ends where another's name begins. */
	for (u32 at = 0; at <= cache->stubs_end; at++) {
		u32 offset;
		const char *next = stub_name(cache, cache->rx + at, &offset);
		if (next == name)
			continue;
		char text[48];
		snprintf(text, sizeof(text), "stub:%s", name);
		if (name)
			perf_map_add(cache->perf, cache->rx + begin, cache->rw + begin, at - begin,
				     text);
		name = next;
		begin = at;
	}
}

/* ---- traces ---- */

/* What an address in host code is called as seen from the block @of. */
static bool name_of_code(const void *of, u64 address, char *out, u32 size)
{
	const struct translator *t = of;
	const struct block_cache *cache = t->v->cache;
	const u8 *rx = (const u8 *)address;
	u64 inside = address - (u64)(cache->rx + t->block->code);
	u32 offset;
	if (inside < t->block->code_size) {
		snprintf(out, size, "+%llu", (unsigned long long)inside);
		return true;
	}
	const char *name = stub_name(cache, rx, &offset);
	if (name)
		snprintf(out, size, offset ? "%s+%u" : "%s", name, offset);
	return name;
}

static void guest_text(const struct translator *t, u32 n, char *out, u32 size)
{
	const struct decoded *d = &t->insns[n];
	char text[TEXT_MAX];
	decode_text(d->bytes, d->insn.length, d->rip, t->mode, text, sizeof(text));
	snprintf(out, size, "%#llx  %s", (unsigned long long)d->rip, text);
}

static const u8 *jump_target(const u8 *site)
{
	s32 rel;
	memcpy(&rel, site, sizeof(rel));
	return site + 4 + rel;
}

/* Number of the instruction that @map's entry is about. */
static u32 insn_of(const struct translator *t, const struct insn_map *map)
{
	for (u32 n = 0; n < t->count; n++)
		if ((u16)(t->insns[n].rip - t->insns[0].rip) == map->guest)
			return n;
	return 0;
}

/* What begins at host code @p (writable mapping): a guest instruction, its cold part, an exit's
 * stub. Nothing: an empty text. */
static void heading(const struct translator *t, const u8 *p, char *out, u32 size)
{
	const struct block *b = t->block;
	u32 offset = (u32)(p - t->v->cache->rw) - b->code;
	out[0] = 0;
	for (u32 n = 0; n < t->cold_count; n++)
		if (jump_target(t->cold[n].site) == p) {
			snprintf(out, size, "  cold part of %#llx",
				 (unsigned long long)t->cold[n].d->rip);
			return;
		}
	for (u32 n = 0; n < b->exit_count; n++)
		if (b->exits[n].stub - b->code == offset) {
			snprintf(out, size, "  exit to %#llx",
				 (unsigned long long)b->exits[n].target);
			return;
		}
	for (u32 n = 0; n < t->miss_count; n++)
		if (jump_target(t->miss[n].site) == p) {
			snprintf(out, size, "  not in the jump cache");
			return;
		}
	for (u32 n = 0; n < t->map_count; n++)
		if (t->map[n].host == offset &&
		    (!n || insn_of(t, &t->map[n]) > insn_of(t, &t->map[n - 1])))
			guest_text(t, insn_of(t, &t->map[n]), out, size);
}

static void side_by_side(const struct translator *t)
{
	const struct block *b = t->block;
	const struct block_cache *cache = t->v->cache;
	const struct text_names names = {name_of_code, state_name, t};
	for (u32 at = 0, length; at < b->code_size; at += length) {
		const u8 *p = cache->rw + b->code + at;
		char left[TEXT_MAX + 24], right[TEXT_MAX];
		length = decode_text_host(p, b->code_size - at, (u64)(cache->rx + b->code + at),
					  &names, right, sizeof(right));
		if (!length)
			break;
		heading(t, p, left, sizeof(left));
		trace_line(TRACE_translate, "  %-*s +%-4u %s", GUEST_WIDTH, left, at, right);
	}
}

void listing_trace_block(const struct translator *t)
{
	const struct block *b = t->block;
	trace_line(TRACE_translate,
		   "block %#llx gpa %#llx mode %#x: %u instructions, %u -> %u bytes",
		   (unsigned long long)b->linear, (unsigned long long)b->gpa, b->mode, t->count,
		   b->length, b->code_size);
	if (trace_on(translate, 3)) {
		side_by_side(t);
		return;
	}
	for (u32 n = 0; trace_on(translate, 2) && n < t->count; n++) {
		char text[TEXT_MAX + 24];
		guest_text(t, n, text, sizeof(text));
		trace_line(TRACE_translate, "  %s", text);
	}
}
