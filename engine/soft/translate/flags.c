/*
 * The guest's arithmetic flags: which are live where, and where they are (translator.h).
 *
 * Liveness looks beyond the end of a block, along direct branches inside the page: most flags are
 * overwritten soon. What it read there becomes part of what the translation depends on, and of what
 * a store invalidates (struct block.look). Other pages are not looked at, since they may be mapped
 * otherwise the next time.
 */
#include "engine/soft/translate/translate.h"
#include "engine/soft/translate/translator.h"

#define LOOK_INSNS_MAX 8

void flags_to_host(struct translator *t, int tmp)
{
	if (t->parked) {
		e_restore_flags(&t->e, tmp);
		if (tmp == S0)
			r14_changes(t);
	}
	t->parked = false;
}

void flags_to_memory(struct translator *t, int tmp)
{
	if (!t->parked) {
		e_park_flags(&t->e, tmp);
		if (tmp == S0)
			r14_changes(t);
	}
	t->parked = true;
}

static u16 live_before(const struct translator *t, const struct decoded *d)
{
	return (u16)((t->live & ~d->flags_written) | d->flags_read);
}

void flags_release(struct translator *t, const struct decoded *d)
{
	if (!t->parked && live_before(t, d))
		flags_to_memory(t, S0);
}

/* ---- beyond the block ---- */

/* What is found out about flags while going through instructions in order. */
struct look {
	u16 live;    /* read before being written */
	u16 unknown; /* neither read nor written so far */
};

/* false: nothing more to be found this way. */
static bool look_at(struct look *look, const struct decoded *d)
{
	if (d->class == CLASS_OP)
		return false;
	look->live |= d->flags_read & look->unknown;
	look->unknown &= (u16) ~(d->flags_written | look->live);
	return look->unknown && (!ends_block(d) || d->class == CLASS_JMP);
}

static const struct decoded *own_insn(const struct translator *t, u64 rip)
{
	for (u32 n = 0; n < t->count; n++)
		if (t->insns[n].rip == rip)
			return &t->insns[n];
	return NULL;
}

static bool note_range(struct block *b, u64 first, u64 last)
{
	if (b->look_count == ARRAY_SIZE(b->look))
		return false;
	b->look[b->look_count++] =
	    (struct code_range){(u16)(first & ~PAGE_MASK), (u16)(last & ~PAGE_MASK)};
	return true;
}

static bool in_page(const struct translator *t, u64 linear)
{
	return (linear & PAGE_MASK) == t->page;
}

/* Decodes the instruction at @linear of the block's page, if all of it lies there. */
static bool peek(const struct translator *t, u64 rip, u64 linear, struct decoded *d)
{
	u32 room = (u32)(PAGE_SIZE - (linear & ~PAGE_MASK));
	return decode(t->v->cache->decoded, t->source->page + (linear & ~PAGE_MASK),
		      room < 15 ? room : 15, rip, t->mode, d) == 0;
}

/* Flags that may be read before they are written from @target on. */
static u16 live_at(struct translator *t, u64 target)
{
	struct look look = {.unknown = RFLAGS_ARITH};
	u64 first = ~0ull, last = 0;

	if (!t->v->vm->tune.liveness || (t->mode & (MODE_ONE | MODE_STEP)))
		return RFLAGS_ARITH;
	for (u32 n = 0; n < LOOK_INSNS_MAX; n++) {
		u64 linear = target + t->block->cs_base;
		struct decoded peeked;
		const struct decoded *d = own_insn(t, target);
		if (!d) {
			if (!in_page(t, linear) || !peek(t, target, linear, &peeked))
				break;
			d = &peeked;
			u64 end = linear + d->insn.length - 1;
			first = linear < first ? linear : first;
			last = end > last ? end : last;
		}
		if (!look_at(&look, d))
			break;
		target = d->class == CLASS_JMP ? d->target : d->next_rip;
	}
	if (first != ~0ull && !note_range(t->block, first, last))
		return RFLAGS_ARITH;
	return look.live | look.unknown;
}

/* ---- in the block ---- */

static u16 live_behind(struct translator *t, const struct decoded *last)
{
	if (!ends_block(last))
		return live_at(t, last->next_rip);
	switch (last->class) {
	case CLASS_JMP:
	case CLASS_CALL:
		return live_at(t, last->target);
	case CLASS_JCC:
	case CLASS_LOOP:
		return live_at(t, last->target) | live_at(t, last->next_rip);
	default:
		return RFLAGS_ARITH;
	}
}

u16 find_live_flags(struct translator *t)
{
	u16 live = live_behind(t, &t->insns[t->count - 1]);
	for (u32 n = t->count; n-- > 0;) {
		const struct decoded *d = &t->insns[n];
		if (d->class == CLASS_JCC && n + 1 < t->count && live != RFLAGS_ARITH)
			live |= live_at(t, d->target);
		t->live_after[n] = live;
		if (d->class == CLASS_OP)
			live = RFLAGS_ARITH;
		else
			live = (u16)((live & ~d->flags_written) | d->flags_read);
	}
	return live;
}

/* Whether what comes first with flags in this block would rather have them parked. */
static bool prefers_parked(const struct translator *t)
{
	for (u32 n = 0; n < t->count; n++) {
		const struct decoded *d = &t->insns[n];
		if (d->class == CLASS_OP)
			return true;
		if (d->flags_read | d->flags_written | d->flags_kept)
			return looks_up(t, n) && !d->flags_read;
		if (looks_up(t, n) || d->class == CLASS_JMP_IND || d->class == CLASS_RET)
			return true;
	}
	return false;
}

void emit_entries(struct translator *t, u16 live_at_start)
{
	struct emitter *e = &t->e;
	struct block *b = t->block;
	const u8 *start = t->v->cache->rw + b->code;

	map_here(t, 0, false);
	if (!live_at_start) {
		t->parked = false;
	} else if (prefers_parked(t)) {
		e_park_flags(e, S0);
		b->entry_parked = (u16)(e->p - start);
		t->parked = true;
	} else {
		e_restore_flags(e, S0);
		b->entry_host = (u16)(e->p - start);
		t->parked = false;
	}
}
