/*
 * Loops of one block: address checks that hold for many turns, made once.
 *
 * A group (groups.c) whose address stays the same from turn to turn, or moves by a constant with
 * one register, is looked up at the loop's head for the first turn. How many more turns stay in
 * that page follows from the step; the least of all groups says at which value of a register the
 * loop has to come back to its head (v->loop_limit). Until then the jump back leads behind the
 * checks. It is an exit like any other, so a kick or an invalidation unlinks it.
 *
 * v->group[] then holds the hva less the varying register, which the instruction adds itself.
 */
#include "engine/soft/translate/translator.h"

/* op r15d by an immediate of group 1 */
static void alu(struct translator *t, int n, s32 imm)
{
	e_alu_imm(&t->e, W32, n, S1, imm);
}

static void shift_s1(struct emitter *e, int w, int n, u32 count)
{
	if (!count)
		return;
	e_rex(e, w, 0, 0, S1);
	e8(e, 0xc1);
	e8(e, 0xc0 | n << 3 | (S1 & 7));
	e8(e, count);
}

#define SHL 4
#define SHR 5

/* The least n with @value <= 1 << n */
static u32 log2_up(u64 value)
{
	u32 n = 0;
	while (1ull << n < value)
		n++;
	return n;
}

/* r15 = turns behind this one that stay in the page of r14, or fewer. */
static void emit_turns_in_page(struct translator *t, const struct group *g)
{
	s64 bytes = g->step * g->scale;
	e_mov(&t->e, W32, S1, S0);
	alu(t, ALU_AND, (s32)~PAGE_MASK);
	if (bytes > 0) {
		e_rex(&t->e, W32, 0, 0, S1);
		e8(&t->e, 0xf7);
		e8(&t->e, 0xc0 | 3 << 3 | (S1 & 7)); /* neg r15d */
		alu(t, ALU_ADD, (s32)PAGE_SIZE - (g->high - g->low));
	}
	shift_s1(&t->e, W32, SHR, log2_up((u64)(bytes > 0 ? bytes : -bytes)));
}

/* v->loop_limit = the less of it and r15. */
static void emit_least(struct translator *t, bool is_first)
{
	if (!is_first) {
		e_gs(&t->e, W64, 0x3b, S1, GS(loop_limit));   /* cmp */
		e_gs(&t->e, W64, 0x0f47, S1, GS(loop_limit)); /* cmova */
	}
	e_store_gs(&t->e, W64, S1, GS(loop_limit));
}

/* r14 -= the varying register as the instructions will add it. */
static void emit_less_varying(struct translator *t, const struct group *g)
{
	if (g->scale == 1 && host_reg(g->varies) != REG_NONE) {
		e_rr(&t->e, W64, 0x2b, S0, host_reg(g->varies)); /* sub */
		return;
	}
	e_get_guest(&t->e, W64, S1, g->varies);
	shift_s1(&t->e, W64, SHL, log2_up(g->scale));
	e_rr(&t->e, W64, 0x2b, S0, S1);
}

/* From turns to a value of @g's register: the one at the end of the last turn that needs no check.
 */
static void emit_limit(struct translator *t, const struct group *g)
{
	struct emitter *e = &t->e;
	u32 shift = g->step > 0 ? log2_up((u64)g->step) : 0;
	e_load_gs(e, W64, S1, GS(loop_limit));
	e_lea(e, W64, S1, S1, REG_NONE, 1, 1);
	if (g->step > 0 && 1ll << shift == g->step) {
		shift_s1(e, W64, SHL, shift);
	} else {
		e_rr(e, W64, 0x69, S1, S1); /* imul */
		e32(e, (u32)g->step);
	}
	if (host_reg(g->varies) != REG_NONE) {
		e_lea(e, W64, S1, S1, host_reg(g->varies), 1, 0);
	} else {
		e_get_guest(e, W64, S0, g->varies);
		e_lea(e, W64, S1, S1, S0, 1, 0);
	}
	e_store_gs(e, W64, S1, GS(loop_limit));
}

/* Whether @d leaves both scratch registers alone if its operand's base is in one of them. */
static bool spares_scratch(const struct decoded *d)
{
	if (d->class == CLASS_NOP || d->class == CLASS_JCC)
		return true;
	if (d->class != CLASS_NATIVE || d->evex)
		return false;
	for (int n = 0; n < d->gpr_count; n++)
		if (d->gpr[n].high || host_reg(d->gpr[n].guest) == REG_NONE)
			return false;
	return true;
}

/* One or two groups and nothing else that needs r14 and r15: they stay there for all turns. */
static void keep_groups(struct translator *t)
{
	if (t->group_count > ARRAY_SIZE(t->kept))
		return;
	for (u32 n = 0; n < t->group_count; n++) {
		const struct group *g = &t->groups[n];
		if (!g->hoisted || (g->varies != REG_NONE && host_reg(g->varies) == REG_NONE))
			return;
	}
	for (u32 n = 0; n < t->count; n++) {
		const struct place *p = &t->places[n][0];
		if (!spares_scratch(&t->insns[n]) || looks_up(t, n) ||
		    (t->insns[n].mem && (p->group == GROUP_NONE || !t->groups[p->group].hoisted)))
			return;
	}
	for (u32 n = 0; n < t->group_count; n++) {
		e_load_gs(&t->e, W64, n ? S1 : S0, GS(group) + 8 * t->groups[n].slot);
		t->kept[n] = (u8)n;
	}
}

/* The group whose register tells how far the loop has come; NULL: nothing varies. */
static const struct group *leader(const struct translator *t)
{
	for (u32 n = 0; n < t->group_count; n++)
		if (t->groups[n].hoisted && t->groups[n].varies != REG_NONE)
			return &t->groups[n];
	return NULL;
}

#define BODY_ALIGNMENT 64 /* a cache line of the host */

/* NOPs up to the loop's body; long ones (SDM 2B NOP). */
static void emit_alignment(struct translator *t)
{
	static const u8 nop[9][9] = {
	    {0x90},
	    {0x66, 0x90},
	    {0x0f, 0x1f, 0x00},
	    {0x0f, 0x1f, 0x40},
	    {0x0f, 0x1f, 0x44},
	    {0x66, 0x0f, 0x1f, 0x44},
	    {0x0f, 0x1f, 0x80},
	    {0x0f, 0x1f, 0x84},
	    {0x66, 0x0f, 0x1f, 0x84},
	};
	u64 at = (u64)(t->e.p - t->v->cache->rw), rest = align_up(at, BODY_ALIGNMENT) - at;
	while (rest) {
		u64 n = rest < sizeof(nop[0]) ? rest : sizeof(nop[0]);
		for (u64 k = 0; k < n; k++)
			e8(&t->e, nop[n - 1][k]);
		rest -= n;
	}
}

void emit_loop_head(struct translator *t)
{
	const struct group *first = leader(t);
	/* A window's end is noticed by itself. */
	bool shadow = t->mode & MODE_SHADOW;
	t->current = 0;
	for (u32 n = 0; n < t->group_count; n++) {
		const struct group *g = &t->groups[n];
		if (!g->hoisted)
			continue;
		emit_group_lookup(t, &t->insns[0], g, &g->where, 0);
		if (g->varies != REG_NONE && !shadow) {
			emit_turns_in_page(t, g);
			emit_least(t, g == first);
		}
		if (g->varies != REG_NONE)
			emit_less_varying(t, g);
		e_store_gs(&t->e, W64, S0, GS(group) + 8 * g->slot);
	}
	if (first && !shadow)
		emit_limit(t, first);
	r14_changes(t);
	s1_changes(t);
	keep_groups(t);
	emit_alignment(t);
	t->block->loop_body = (u16)(t->e.p - (t->v->cache->rw + t->block->code));
}

void emit_loop_turn(struct translator *t)
{
	struct emitter *e = &t->e;
	const struct group *first = leader(t);
	u64 head = t->insns[0].rip;
	if (!first) {
		add_side_exit(t, e_jmp(e), head, t->current, false)->inner = true;
		return;
	}
	int reg = host_reg(first->varies);
	if (reg == REG_NONE) {
		reg = S1;
		e_load_gs(e, W64, reg, GS_REG(first->varies));
	}
	e_gs(e, W64, 0x3b, reg, GS(loop_limit)); /* cmp */
	add_side_exit(t, e_jcc(e, CC_NE), head, t->current, false)->inner = true;
	add_side_exit(t, e_jmp(e), head, t->current, false);
}
