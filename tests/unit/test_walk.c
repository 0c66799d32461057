/* The page walk: what tables and rights give, the error codes, the accessed and dirty bits. SDM
 * 3A 4.3 to 4.8. */
#include "tests/unit/soft_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum paging { OFF, NARROW, PAE, LONG };

/* Where the tables of every case lie. */
#define T1   0x1000ull
#define T2   0x2000ull
#define T3   0x3000ull
#define T4   0x4000ull
#define PAGE 0x555000ull /* where pages lie */

#define ALL (P | W | U)

struct walk_case {
	const char *name;
	enum paging paging;
	u64 cr0, cr4, efer; /* added to what the paging needs */
	u64 entry[4];	    /* from the top; PAE: the first is a PDPTE register */
	u64 linear;
	enum access access;
	enum mmu_index index;
	u64 gpa;   /* expected on success */
	u32 error; /* expected on failure; 0: success */
	u64 size;  /* 0: 4 KiB */
};

#define FAILS_NP 0x10000 /* error code 0 that is a failure all the same */

#define NXE    EFER_NXE
#define WP     CR0_WP
#define USER   MMU_USER
#define KERN   MMU_KERNEL
#define KERNAC MMU_KERNEL_AC
#define RD     ACCESS_READ
#define WR     ACCESS_WRITE
#define EX     ACCESS_EXEC

#define LINEAR	 0x123456789abcull
#define LINEAR32 0x89abcdefull

/* clang-format off */
/* One case a line. */
static const struct walk_case cases[] = {
	{"no paging", OFF, 0, 0, 0, {0}, LINEAR32, WR, USER, LINEAR32, 0, 0},
	{"long: read", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, RD, USER, PAGE | 0xabc, 0, 0},
	{"long: write", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, WR, USER, PAGE | 0xabc, 0, 0},
	{"long: PAT bit of a PTE", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL | PS}, LINEAR, RD, USER, PAGE | 0xabc, 0, 0},
	{"long: 62:52 ignored", LONG, 0, 0, 0, {T2 | ALL | BIT(62), T3 | ALL | BIT(52), T4 | ALL | BIT(55), PAGE | ALL | BIT(60)}, LINEAR, RD, USER, PAGE | 0xabc, 0, 0},
	{"long: 2M", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, 0x800000 | ALL | PS}, LINEAR, WR, USER, 0x989abc, 0, BIT(21)},
	{"long: 2M PAT", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, 0x800000 | ALL | PS | BIT(12)}, LINEAR, RD, USER, 0x989abc, 0, BIT(21)},
	{"long: 2M reserved 13", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, 0x800000 | ALL | PS | BIT(13)}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"long: 2M reserved 20", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, 0x900000 | ALL | PS}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"long: 1G", LONG, 0, 0, 0, {T2 | ALL, 0x40000000 | ALL | PS}, LINEAR, RD, USER, 0x56789abc, 0, BIT(30)},
	{"long: 1G PAT", LONG, 0, 0, 0, {T2 | ALL, 0x40000000 | ALL | PS | BIT(12)}, LINEAR, RD, USER, 0x56789abc, 0, BIT(30)},
	{"long: 1G reserved 13", LONG, 0, 0, 0, {T2 | ALL, 0x40000000 | ALL | PS | BIT(13)}, LINEAR, RD, USER, 0, PF_P | PF_RSVD | PF_U, 0},
	{"long: 1G reserved 29", LONG, 0, 0, 0, {T2 | ALL, 0x60000000 | ALL | PS}, LINEAR, WR, USER, 0, PF_P | PF_RSVD | PF_U | PF_W, 0},
	{"long: PS in PML4E", LONG, 0, 0, 0, {T2 | ALL | PS, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"long: address above MAXPHYADDR", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL | BIT(40)}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"long: table above MAXPHYADDR", LONG, 0, 0, 0, {T2 | ALL | BIT(51)}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"long: NX without NXE", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL | NX, T4 | ALL, PAGE | ALL}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"long: NX without NXE, fetch has no I", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL | NX}, LINEAR, EX, USER, 0, PF_P | PF_RSVD | PF_U, 0},
	{"long: reserved counts only if present", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, (PAGE | ALL | NX) & ~P}, LINEAR, RD, USER, 0, PF_U, 0},
	{"long: NX read", LONG, 0, 0, NXE, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL | NX}, LINEAR, RD, USER, PAGE | 0xabc, 0, 0},
	{"long: NX fetch, user", LONG, 0, 0, NXE, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL | NX}, LINEAR, EX, USER, 0, PF_P | PF_U | PF_I, 0},
	{"long: NX of a table, kernel", LONG, 0, 0, NXE, {T2 | ALL | NX, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, EX, KERN, 0, PF_P | PF_I, 0},
	{"long: fetch not present", LONG, 0, 0, NXE, {T2 | ALL, 0}, LINEAR, EX, USER, 0, PF_U | PF_I, 0},
	{"long: fetch not present without NXE", LONG, 0, 0, 0, {T2 | ALL, 0}, LINEAR, EX, USER, 0, PF_U, 0},
	{"long: fetch not present, SMEP", LONG, 0, CR4_SMEP, 0, {T2 | ALL, 0}, LINEAR, EX, KERN, 0, PF_I, 0},
	{"long: PML4E not present", LONG, 0, 0, 0, {0}, LINEAR, RD, KERN, 0, FAILS_NP, 0},
	{"long: PDE not present, write", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, 0}, LINEAR, WR, KERN, 0, PF_W, 0},
	{"long: PTE not present, user write", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | W | U}, LINEAR, WR, USER, 0, PF_W | PF_U, 0},
	{"long: user on a supervisor page", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | P | W}, LINEAR, RD, USER, 0, PF_P | PF_U, 0},
	{"long: user below a supervisor table", LONG, 0, 0, 0, {T2 | P | W, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, RD, USER, 0, PF_P | PF_U, 0},
	{"long: user write to a read-only page", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | P | U}, LINEAR, WR, USER, 0, PF_P | PF_U | PF_W, 0},
	{"long: user write below a read-only table", LONG, 0, 0, 0, {T2 | ALL, T3 | P | U, T4 | ALL, PAGE | ALL}, LINEAR, WR, USER, 0, PF_P | PF_U | PF_W, 0},
	{"long: kernel write to a read-only page", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | P}, LINEAR, WR, KERN, PAGE | 0xabc, 0, 0},
	{"long: the same with WP", LONG, WP, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | P}, LINEAR, WR, KERN, 0, PF_P | PF_W, 0},
	{"long: kernel fetches a user page", LONG, 0, 0, NXE, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, EX, KERN, PAGE | 0xabc, 0, 0},
	{"long: SMEP", LONG, 0, CR4_SMEP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, EX, KERN, 0, PF_P | PF_I, 0},
	{"long: SMEP, AC does not help", LONG, 0, CR4_SMEP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, EX, KERNAC, 0, PF_P | PF_I, 0},
	{"long: SMEP, supervisor page", LONG, 0, CR4_SMEP, 0, {T2 | ALL, T3 | P, T4 | ALL, PAGE | ALL}, LINEAR, EX, KERN, PAGE | 0xabc, 0, 0},
	{"long: SMEP, user fetch", LONG, 0, CR4_SMEP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, EX, USER, PAGE | 0xabc, 0, 0},
	{"long: SMAP read", LONG, 0, CR4_SMAP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, RD, KERN, 0, PF_P, 0},
	{"long: SMAP write", LONG, 0, CR4_SMAP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, WR, KERN, 0, PF_P | PF_W, 0},
	{"long: SMAP with AC", LONG, 0, CR4_SMAP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, WR, KERNAC, PAGE | 0xabc, 0, 0},
	{"long: SMAP, fetch", LONG, 0, CR4_SMAP, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, EX, KERN, PAGE | 0xabc, 0, 0},
	{"long: no SMAP", LONG, 0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, RD, KERN, PAGE | 0xabc, 0, 0},
	{"long: table where no memory is", LONG, 0, 0, NXE, {T2 | ALL, NO_RAM | ALL}, LINEAR, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"pae: read", PAE, 0, 0, 0, {T2 | P, T3 | ALL, PAGE | ALL}, LINEAR32, RD, USER, PAGE | 0xdef, 0, 0},
	{"pae: PDPTE not present", PAE, 0, 0, 0, {T2, T3 | ALL, PAGE | ALL}, LINEAR32, WR, USER, 0, PF_U | PF_W, 0},
	{"pae: 2M", PAE, 0, 0, 0, {T2 | P, 0x800000 | ALL | PS}, LINEAR32, WR, USER, 0x8bcdef, 0, BIT(21)},
	{"pae: 2M reserved 20", PAE, 0, 0, 0, {T2 | P, 0x900000 | ALL | PS}, LINEAR32, WR, KERN, 0, PF_P | PF_RSVD | PF_W, 0},
	{"pae: 62:52 reserved", PAE, 0, 0, NXE, {T2 | P, T3 | ALL, PAGE | ALL | BIT(52)}, LINEAR32, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"pae: 62 reserved in a PDE", PAE, 0, 0, NXE, {T2 | P, T3 | ALL | BIT(62), PAGE | ALL}, LINEAR32, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"pae: NX without NXE", PAE, 0, 0, 0, {T2 | P, T3 | ALL | NX, PAGE | ALL}, LINEAR32, RD, KERN, 0, PF_P | PF_RSVD, 0},
	{"pae: NX fetch", PAE, 0, 0, NXE, {T2 | P, T3 | ALL | NX, PAGE | ALL}, LINEAR32, EX, KERN, 0, PF_P | PF_I, 0},
	{"pae: WP", PAE, WP, 0, 0, {T2 | P, T3 | P, PAGE | ALL}, LINEAR32, WR, KERN, 0, PF_P | PF_W, 0},
	{"32: read", NARROW, 0, 0, 0, {T2 | ALL, PAGE | ALL}, LINEAR32, RD, USER, PAGE | 0xdef, 0, 0},
	{"32: write, WP", NARROW, WP, 0, 0, {T2 | ALL, PAGE | P | U}, LINEAR32, WR, KERN, 0, PF_P | PF_W, 0},
	{"32: PDE not present", NARROW, 0, 0, 0, {0, PAGE | ALL}, LINEAR32, RD, KERN, 0, FAILS_NP, 0},
	{"32: PTE not present", NARROW, 0, 0, 0, {T2 | ALL, PAGE}, LINEAR32, RD, USER, 0, PF_U, 0},
	{"32: fetch has no I", NARROW, 0, 0, NXE, {T2 | ALL, PAGE}, LINEAR32, EX, USER, 0, PF_U, 0},
	{"32: SMEP", NARROW, 0, CR4_SMEP, 0, {T2 | ALL, PAGE | ALL}, LINEAR32, EX, KERN, 0, PF_P | PF_I, 0},
	{"32: user on a supervisor table", NARROW, 0, 0, 0, {T2 | P | W, PAGE | ALL}, LINEAR32, RD, USER, 0, PF_P | PF_U, 0},
	{"32: PS without PSE", NARROW, 0, 0, 0, {T2 | ALL | PS, PAGE | ALL}, LINEAR32, RD, USER, PAGE | 0xdef, 0, 0},
	{"32: 4M", NARROW, 0, CR4_PSE, 0, {0x800000 | ALL | PS}, LINEAR32, WR, USER, 0xabcdef, 0, BIT(22)},
	{"32: PSE-36", NARROW, 0, CR4_PSE, 0, {0x800000 | ALL | PS | 0xff << 13}, LINEAR32, WR, USER, 0xff00abcdef, 0, BIT(22)},
	{"32: PSE reserved 21", NARROW, 0, CR4_PSE, 0, {0xa00000 | ALL | PS}, LINEAR32, WR, USER, 0, PF_P | PF_RSVD | PF_W | PF_U, 0},
	{"32: tables where no memory is", NARROW, 0, CR4_PSE, 0, {NO_RAM | ALL}, LINEAR32, WR, USER, 0xfffffdef, 0, 0},
};
/* clang-format on */

static u32 level_count(const struct walk_case *c)
{
	return c->paging == LONG ? 4 : c->paging == PAE ? 3 : c->paging == NARROW ? 2 : 0;
}

/* Address of the entry of @level (0: top) for the case's address; PAE's top level is a register. */
static void *entry_at(const struct walk_case *c, u32 level)
{
	static const u64 tables[] = {T1, T2, T3, T4};
	u32 below = level_count(c) - 1 - level;

	if (c->paging == NARROW)
		return fixture->ram + tables[level] + ((c->linear >> (12 + 10 * below)) & 1023) * 4;
	/* PAE's PD is in T2, its PT in T3 */
	return fixture->ram + tables[level] + ((c->linear >> (12 + 9 * below)) & 511) * 8;
}

static u64 entry_get(const struct walk_case *c, u32 level)
{
	if (c->paging == PAE && level == 0)
		return fixture->v->pdptr[c->linear >> 30];
	return c->paging == NARROW ? *(u32 *)entry_at(c, level) : *(u64 *)entry_at(c, level);
}

static void build(const struct walk_case *c)
{
	struct soft_vcpu *v = fixture->v;

	memset(fixture->ram, 0, 0x10000);
	v->cr0 = CR0_PE | c->cr0 | (c->paging == OFF ? 0 : CR0_PG);
	v->cr4 = c->cr4 | (c->paging >= PAE ? CR4_PAE : 0);
	v->msr.efer = c->efer | (c->paging == LONG ? EFER_LMA | EFER_LME : 0);
	v->cr3 = T1;
	memset(v->pdptr, 0, sizeof(v->pdptr));
	for (u32 level = 0; level < level_count(c); level++) {
		if (c->paging == PAE && level == 0)
			v->pdptr[c->linear >> 30] = c->entry[0];
		else if (c->paging == NARROW)
			*(u32 *)entry_at(c, level) = (u32)c->entry[level];
		else
			*(u64 *)entry_at(c, level) = c->entry[level];
	}
}

/* The leaf's level: the last entry of the case that is not 0. */
static u32 leaf_level(const struct walk_case *c)
{
	u32 level = level_count(c) - 1;

	while (level > 0 && !c->entry[level])
		level--;
	return level;
}

static void check_marks(const struct walk_case *c, bool marked)
{
	u32 first = c->paging == PAE ? 1 : 0;

	for (u32 level = first; c->paging != OFF && level < level_count(c); level++) {
		u64 want = c->entry[level];

		if (marked && want) {
			want |= A;
			if (level == leaf_level(c) && c->access == ACCESS_WRITE &&
			    !(c->paging == NARROW && level == 0 && !(want & PS)))
				want |= D;
		}
		if (entry_get(c, level) != want)
			fail_msg("%s: entry of level %u is %#lx, not %#lx", c->name, level,
				 entry_get(c, level), want);
	}
}

static void run_case(const struct walk_case *c, bool set_ad)
{
	struct walk w = {.linear = c->linear};

	build(c);
	int ret = mmu_walk(fixture->v, &w, c->access, c->index, set_ad);

	if (c->error) {
		if (ret != -EFAULT)
			fail_msg("%s: result %d, not -EFAULT", c->name, ret);
		if (w.error != (c->error & ~FAILS_NP))
			fail_msg("%s: error code %#x, not %#x", c->name, w.error, c->error);
		check_marks(c, false);
		return;
	}
	if (ret)
		fail_msg("%s: result %d, error code %#x", c->name, ret, w.error);
	if (w.gpa != c->gpa)
		fail_msg("%s: gpa %#lx, not %#lx", c->name, w.gpa, c->gpa);
	if (w.page_size != (c->size ? c->size : PAGE_SIZE))
		fail_msg("%s: page size %#lx", c->name, w.page_size);
	check_marks(c, set_ad);
	if (set_ad && c->access == ACCESS_WRITE && !w.dirty)
		fail_msg("%s: written, but not dirty", c->name);
}

static void test_cases(void **state)
{
	for (u32 k = 0; k < ARRAY_SIZE(cases); k++) {
		run_case(&cases[k], false);
		run_case(&cases[k], true);
	}
}

static void test_global(void **state)
{
	struct walk_case c = {
	    "global", LONG, 0,	  CR4_PGE,	0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL | G},
	    LINEAR,   RD,   KERN, PAGE | 0xabc, 0, 0};
	struct walk w = {.linear = LINEAR};

	build(&c);
	assert_int_equal(mmu_walk(fixture->v, &w, RD, KERN, true), 0);
	assert_true(w.global);
	fixture->v->cr4 &= ~CR4_PGE;
	assert_int_equal(mmu_walk(fixture->v, &w, RD, KERN, true), 0);
	assert_false(w.global);
	/* G of a table means nothing. */
	c.cr4 = CR4_PGE;
	c.entry[3] &= ~G;
	c.entry[2] |= G;
	build(&c);
	assert_int_equal(mmu_walk(fixture->v, &w, RD, KERN, true), 0);
	assert_false(w.global);
}

/* Marking an entry in a page that is dirty-logged or holds code is a write like any other. */
static void test_marks_are_writes(void **state)
{
	const struct walk_case c = {
	    "marks", LONG,
	    0,	     0,
	    0,	     {T2 | ALL | A, T3 | ALL | A, T4 | ALL | A, PAGE | ALL | A},
	    LINEAR,  WR,
	    KERN,    PAGE | 0xabc,
	    0,	     0};
	struct walk w = {.linear = LINEAR};
	u64 dirty[RAM_SIZE / PAGE_SIZE / 64] = {0};

	build(&c);
	fixture->vm.slots[0].dirty = dirty;
	fixture->vm.slots[0].page_flags[T4 / PAGE_SIZE] = PAGE_HAS_CODE;
	assert_int_equal(mmu_walk(fixture->v, &w, WR, KERN, true), 0);
	assert_int_equal(dirty[0], BIT(T4 / PAGE_SIZE));
	assert_int_equal(fixture->invalidations, 1);
	assert_int_equal(fixture->invalidated_gpa, (u8 *)entry_at(&c, 3) - fixture->ram);
	/* Already marked: no write. */
	dirty[0] = 0;
	assert_int_equal(mmu_walk(fixture->v, &w, WR, KERN, true), 0);
	assert_int_equal(dirty[0], 0);
	assert_int_equal(fixture->invalidations, 1);
}

/* A table in read-only memory works; its entries stay as they are. */
static void test_read_only_table(void **state)
{
	const struct walk_case c = {
	    "rom", LONG,	 0, 0, 0, {T2 | ALL, T3 | ALL, ROM_BASE | ALL, 0}, LINEAR, WR,
	    KERN,  PAGE | 0xabc, 0, 0};
	struct walk w = {.linear = LINEAR};
	u64 *pte = (u64 *)fixture->rom + ((LINEAR >> 12) & 511);

	build(&c);
	*pte = PAGE | ALL;
	assert_int_equal(mmu_walk(fixture->v, &w, WR, KERN, true), 0);
	assert_int_equal(w.gpa, PAGE | 0xabc);
	assert_int_equal(*pte, PAGE | ALL);
	assert_false(w.dirty);
}

/* Another processor counts in the entry's ignored bits all the time: neither its changes nor ours
 * are lost. */
#define COUNTS	   1500000u
#define COUNT_MASK (1023ull << 52)

static _Atomic bool counting;

static void *count(void *pte)
{
	for (u32 k = 0; k < COUNTS; k++) {
		u64 seen = __atomic_load_n((u64 *)pte, __ATOMIC_SEQ_CST), next;

		do {
			next = (seen & ~COUNT_MASK) | ((seen + BIT(52)) & COUNT_MASK);
		} while (!__atomic_compare_exchange_n((u64 *)pte, &seen, next, false,
						      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	}
	counting = false;
	return NULL;
}

static void test_marks_are_atomic(void **state)
{
	const struct walk_case c = {
	    "atomic", LONG,	    0, 0, 0, {T2 | ALL, T3 | ALL, T4 | ALL, PAGE | ALL}, LINEAR, WR,
	    KERN,     PAGE | 0xabc, 0, 0};
	struct walk w = {.linear = LINEAR};
	pthread_t other;

	build(&c);
	u64 *pte = entry_at(&c, 3);
	counting = true;
	assert_int_equal(pthread_create(&other, NULL, count, pte), 0);
	while (counting) {
		__atomic_fetch_and(pte, ~(A | D), __ATOMIC_SEQ_CST);
		if (mmu_walk(fixture->v, &w, WR, KERN, true))
			assert_int_equal(w.error, PF_W); /* gave up: as if not present */
		else
			assert_int_equal(__atomic_load_n(pte, __ATOMIC_SEQ_CST) & (A | D), A | D);
	}
	pthread_join(other, NULL);
	assert_int_equal((*pte & COUNT_MASK) >> 52, COUNTS & 1023);
}

static void test_pdptrs(void **state)
{
	struct soft_vcpu *v = fixture->v;
	u64 *pdpt = (u64 *)(fixture->ram + 0x5020);

	for (u32 k = 0; k < 4; k++)
		pdpt[k] = (u64)(k + 1) << 12 | P;
	assert_int_equal(mmu_load_pdptrs(v, 0x5020), 0);
	assert_int_equal(v->pdptr[3], 0x4000 | P);

	static const u64 reserved[] = {BIT(1), BIT(2),	BIT(5),	 BIT(6), BIT(7),
				       BIT(8), BIT(40), BIT(52), BIT(63)};

	for (u32 k = 0; k < ARRAY_SIZE(reserved); k++) {
		pdpt[2] = 0x9000 | P | reserved[k];
		assert_int_equal(mmu_load_pdptrs(v, 0x5020), -EINVAL);
		assert_int_equal(v->pdptr[2], 0x3000 | P); /* nothing was loaded */
		pdpt[2] &= ~P;
		assert_int_equal(mmu_load_pdptrs(v, 0x5020), 0); /* not present: not looked at */
		pdpt[2] = 0x3000 | P;
		assert_int_equal(mmu_load_pdptrs(v, 0x5020), 0);
	}
	assert_int_equal(mmu_load_pdptrs(v, NO_RAM), -EINVAL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_cases),	     T(test_global),	       T(test_marks_are_writes),
	    T(test_read_only_table), T(test_marks_are_atomic), T(test_pdptrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
