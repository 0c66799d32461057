/*
 * Who gets a shadow space: programs that keep running, and whose pages stay. A space has a credit,
 * which grows with the time that its program runs. A fault that maps a page costs it a part of what
 * it takes, as memory that grows does so once; a page that goes again costs all that its next
 * mapping will. Who has spent more loses the space, and has to wait longer for the next.
 */
#include "debug/trace.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow_internal.h"

#define TICKS_WANTED 3	  /* times that a program has to be found running */
#define TICKS_MAX    512  /* ..., at most */
#define TICK_US	     1000 /* as often as ticks count */
#define CREDIT_US    8000 /* for the pages that a program uses when it gets its space */
#define SHARE	     8	  /* of the time, one part may be spent */
#define GROWTH	     8	  /* of a page's first mapping, one part is charged */
#define PAGE_US	     8	  /* what it takes to map a page */
#define LINK_NS	     300  /* what it takes to link two blocks again */
#define SIGNAL_US    4	  /* a fault's cost besides what is measured */

static u64 us(const struct soft_vcpu *v, u64 n)
{
	return n * (v->tsc_khz ? v->tsc_khz : 1000000) / 1000;
}

struct space *shadow_space(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;

	for (u32 n = 0; s && n < SPACES; n++)
		if (s->space[n].used && shadow_is_current(v, &s->space[n]))
			return &s->space[n];
	return NULL;
}

/** A free one, or the one that ran the longest ago; rather one that is not on. */
static struct space *take(struct soft_vcpu *v)
{
	struct shadow *s = v->shadow;
	struct space *best = &s->space[0];

	for (u32 n = 1; n < SPACES; n++) {
		struct space *other = &s->space[n];
		if (other->on != best->on ? best->on : other->used < best->used)
			best = other;
	}
	shadow_drop(v, best);
	best->cr3 = v->cr3;
	best->set = (u8)(v->mmu - v->mmus);
	best->vpid = v->mmu->vpid;
	best->eptp = v->mmu->eptp;
	best->on = false;
	best->ticks = 0;
	best->wait = TICKS_WANTED;
	best->credit = (s64)us(v, CREDIT_US);
	return best;
}

static void promote(struct soft_vcpu *v, struct space *space)
{
	trace_gp(mmu, 1, "vcpu %u: the program of CR3 %#llx gets a shadow space", v->base.id,
		 (unsigned long long)space->cr3);
	space->on = true;
	space->stale = true;
	shadow_add_windows(v, space);
	v->shadow_check = true;
}

static void demote(struct soft_vcpu *v, struct space *space)
{
	trace_gp(mmu, 1, "vcpu %u: the program of CR3 %#llx loses its space: %u pages, %u mappings",
		 v->base.id, (unsigned long long)space->cr3, space->logged,
		 shadow_mappings(v->shadow, space));
	space->on = false;
	space->ticks = 0;
	space->wait = space->wait * 4 < TICKS_MAX ? space->wait * 4 : TICKS_MAX;
	space->credit = (s64)us(v, CREDIT_US / 8);
	shadow_drop(v, space);
	shadow_off(v);
	v->stats.shadow_lost++;
}

void shadow_give_up(struct soft_vcpu *v, struct space *space)
{
	demote(v, space);
	space->wait = TICKS_MAX;
}

void shadow_charge(struct space *space, u64 ticks)
{
	space->credit -= (s64)ticks;
}

void shadow_charge_fault(struct soft_vcpu *v, struct space *space, u64 ticks)
{
	shadow_charge(space, (ticks + us(v, SIGNAL_US)) / GROWTH);
}

void shadow_charge_alone(struct soft_vcpu *v, struct space *space)
{
	shadow_charge(space, us(v, SIGNAL_US));
}

void shadow_charge_gone(struct soft_vcpu *v, struct space *space, u32 pages)
{
	shadow_charge(space, pages * us(v, PAGE_US));
}

void shadow_links_cut(struct soft_vcpu *v, u32 n)
{
	if (n && v->shadow && v->shadow->loaded)
		shadow_charge(v->shadow->loaded, n * us(v, LINK_NS) / 1000);
}

void shadow_at_once(struct soft_vcpu *v)
{
	if (!v->vm->tune.shadow || v->vm->vcpu_count > 1 || !shadow_get(v))
		return;
	struct space *space = shadow_space(v);
	if (!space)
		space = take(v);
	space->used = ++v->shadow->clock;
	if (!space->on)
		promote(v, space);
}

void shadow_tick(struct soft_vcpu *v)
{
	bool wanted = v->vm->tune.shadow && shadow_possible(v);
	struct shadow *s = wanted ? shadow_get(v) : NULL;
	u64 now = __builtin_ia32_rdtsc();

	if (!s || v->vm->vcpu_count > 1)
		return;
	u64 passed = now - s->last_tick;
	if (passed < us(v, TICK_US))
		return;
	s->last_tick = now;

	struct space *space = shadow_space(v);
	if (!space)
		space = take(v);
	bool ran = space->used == s->clock; /* also at the tick before */
	space->used = ++s->clock;
	if (!space->on) {
		if (++space->ticks >= space->wait)
			promote(v, space);
		return;
	}
	if (ran)
		space->credit += (s64)(passed / SHARE);
	if (space->credit > (s64)us(v, CREDIT_US))
		space->credit = (s64)us(v, CREDIT_US);
	if (space->credit < 0 && v->vm->tune.patience)
		demote(v, space);
}
