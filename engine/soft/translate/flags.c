/* The guest's arithmetic flags: which are live where, and where they are (translator.h). */
#include "engine/soft/translate/translator.h"

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

/* Behind a branch and behind the block's end every flag counts as live. To look further was tried:
 * docs/performance.md. */
u16 find_live_flags(struct translator *t)
{
	u16 live = RFLAGS_ARITH;
	for (u32 n = t->count; n-- > 0;) {
		const struct decoded *d = &t->insns[n];
		if (d->class == CLASS_JCC)
			live = RFLAGS_ARITH;
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
