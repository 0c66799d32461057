/*
 * What a flush does to the code of a program with a shadow space. Its entries of the jump cache and
 * the links between its pages are many and dear to make again, and the tables nearly always say
 * what they said before: so the pages that code was fetched from are remembered, and compared with
 * the tables before the program goes on. What an empty TLB would fetch is what is kept.
 */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow_internal.h"
#include "engine/soft/translate/mode.h"

/* Room for some more after the last one that counts */
#define CODE_PAGES_MAX (CODE_SLOTS * 3 / 4)

static struct code_page *find(struct space *space, u64 linear)
{
	u64 page = linear / PAGE_SIZE;
	u32 n = (u32)(page ^ page >> 13);

	for (;; n++) {
		struct code_page *p = &space->code[n % CODE_SLOTS];
		if (!p->used || p->linear == (linear & PAGE_MASK))
			return p;
	}
}

void shadow_forget_code(struct soft_vcpu *v, struct space *space)
{
	struct mmu *m = &v->mmus[space->set];

	if (space->code_count)
		gp_fill(space->code, 0, sizeof(space->code));
	space->code_count = 0;
	m->jump_epoch++; /* what is put away of it is not covered any more */
	if (m->code_stale)
		WITH_SET(v, space->set, shadow_abandon_code(v));
}

void shadow_abandon_code(struct soft_vcpu *v)
{
	if (!v->mmu->code_stale)
		return;
	v->mmu->code_stale = false;
	jump_cache_clear(v, MMU_USER);
}

void shadow_note_code(struct soft_vcpu *v, u64 linear, u64 gpa)
{
	if (!v->shadow_on)
		return;

	struct space *space = v->shadow->loaded;
	struct code_page *p = find(space, linear);

	gpa &= PAGE_MASK;
	if (likely(p->used)) {
		/* Seen in two places without a flush between: either may be what is kept. */
		if (p->gpa != gpa)
			p->gpa = ~0ull;
		return;
	}
	if (space->code_count == CODE_PAGES_MAX)
		return;
	*p = (struct code_page){.linear = linear & PAGE_MASK, .gpa = gpa, .used = true};
	space->code_count++;
}

/** The space whose code the jump cache of user code holds, if all of its pages are known. */
static struct space *covered(const struct soft_vcpu *v)
{
	struct space *space = v->shadow ? v->shadow->loaded : NULL;

	if (!space || !v->vm->tune.far || !shadow_is_current(v, space) ||
	    space->code_count == CODE_PAGES_MAX || !(v->mmu->jump_mode[MMU_USER] & MODE_SHADOW))
		return NULL;
	return space;
}

static void compare_later(struct soft_vcpu *v)
{
	v->mmu->code_stale = true;
	shadow_off(v);
}

bool shadow_keeps_code(struct soft_vcpu *v)
{
	if (!covered(v))
		return false;
	compare_later(v);
	return true;
}

bool shadow_keeps_code_page(struct soft_vcpu *v, u64 linear)
{
	struct space *space = covered(v);

	if (!space)
		return false;
	if (find(space, linear)->used)
		compare_later(v);
	return true;
}

static bool as_before(struct soft_vcpu *v, const struct space *space)
{
	for (u32 n = 0; n < CODE_SLOTS; n++) {
		const struct code_page *p = &space->code[n];
		struct walk w = {.linear = p->linear};
		if (p->used && (!mmu_peek(v, &w, ACCESS_EXEC, MMU_USER) || w.gpa != p->gpa))
			return false;
	}
	return true;
}

void shadow_compare_code(struct soft_vcpu *v)
{
	struct space *space = v->mmu->code_stale ? covered(v) : NULL;

	if (!v->mmu->code_stale)
		return;
	v->mmu->code_stale = false;
	if (space && as_before(v, space))
		return;
	jump_cache_clear(v, MMU_USER);
	if (space)
		shadow_forget_code(v, space);
}
