/* Translations over VM entries and exits: what stays, what each invalidation drops. SDM 3C 29.4. */
#include "tests/unit/ept_fixture.h"

#include <string.h>

#define EPTP2	    (EPTP + 0x20000) /* other tables */
#define ROOT_LINEAR 0x7f0000123000ull
#define ROOT_PAGE   0x666000ull
#define GLOBAL	    (LINEAR + PAGE_SIZE)
#define OTHER	    (LINEAR + 2 * PAGE_SIZE)
#define CODE64	    (MODE_CODE64 | MODE_FLAT | MODE_PE)

static const u8 code[1];

/* The registers of the operation that does not run. */
static struct {
	u64 cr0, cr3, cr4, efer, dr7;
} other;

static void swap_registers(void)
{
	struct soft_vcpu *v = fixture->v;
	typeof(other) mine = {v->cr0, v->cr3, v->cr4, v->msr.efer, v->dr7};

	v->cr0 = other.cr0;
	v->cr3 = other.cr3;
	v->cr4 = other.cr4;
	v->msr.efer = other.efer;
	v->dr7 = other.dr7;
	other = mine;
}

static void enter_with(u64 eptp, u16 vpid)
{
	struct nested_paging by = {.eptp = eptp, .vpid = vpid};

	mmu_leave(fixture->v);
	swap_registers();
	mmu_enter_nonroot(fixture->v, &by);
}

static void enter(u16 vpid)
{
	enter_with(EPTP, vpid);
}

static void leave(void)
{
	mmu_leave(fixture->v);
	swap_registers();
	mmu_enter_root(fixture->v);
}

static bool has(u64 linear, bool write)
{
	return tlb_lookup(fixture->v, linear, 1, write, MMU_USER);
}

static void fill(u64 linear)
{
	assert_non_null(tlb_fill(fixture->v, linear, 1, ACCESS_READ, MMU_USER, false));
}

static bool jumps(u64 linear, enum mmu_index index)
{
	const struct jump_entry *entry = jump_cache_find(fixture->v, index, linear);

	return entry && entry->code;
}

/* In non-root operation: one page, one global page, jumps of a program and of a kernel. */
static void fill_all(void)
{
	struct soft_vcpu *v = fixture->v;
	u64 gpa;

	fill(LINEAR);
	fill(GLOBAL);
	v->mmu_index = MMU_USER;
	mmu_fetch(v, LINEAR, &gpa);
	jump_cache_put(v, MMU_USER, LINEAR, code);
	for (v->mmu_index = MMU_KERNEL; v->mmu_index < MMU_COUNT; v->mmu_index++) {
		mmu_fetch(v, GLOBAL, &gpa);
		jump_cache_put(v, v->mmu_index, GLOBAL, code);
	}
}

#define READS	       1u
#define WRITES	       2u
#define GLOBALS	       4u
#define GLOBAL_WRITES  8u
#define USER_JUMPS     16u
#define KERNEL_JUMPS   32u
#define FETCHES	       64u
#define GLOBAL_FETCHES 128u
#define ALL	       255u
#define ALL_GLOBALS    (GLOBALS | GLOBAL_WRITES | GLOBAL_FETCHES | KERNEL_JUMPS)

/* What is still known of what fill_all() made. */
static u32 known(void)
{
	struct soft_vcpu *v = fixture->v;
	u64 *pml4e = (u64 *)(fixture->ram + PHYS(v->cr3 & PAGE_MASK)) + (LINEAR >> 39);
	u64 gpa, saved = *pml4e;
	bool fetches, global_fetches;

	*pml4e = 0; /* nothing is walked for */
	v->mmu_index = MMU_USER;
	fetches = RUN(mmu_fetch(v, LINEAR, &gpa)) == ENDED;
	v->mmu_index = MMU_KERNEL;
	global_fetches = RUN(mmu_fetch(v, GLOBAL, &gpa)) == ENDED;
	*pml4e = saved;
	return (has(LINEAR, false) ? READS : 0) | (has(LINEAR, true) ? WRITES : 0) |
	       (has(GLOBAL, false) ? GLOBALS : 0) | (has(GLOBAL, true) ? GLOBAL_WRITES : 0) |
	       (jumps(LINEAR, MMU_USER) ? USER_JUMPS : 0) |
	       (jumps(GLOBAL, MMU_KERNEL) && jumps(GLOBAL, MMU_KERNEL_AC) ? KERNEL_JUMPS : 0) |
	       (fetches ? FETCHES : 0) | (global_fetches ? GLOBAL_FETCHES : 0);
}

/* In root operation, with tables of its own. */
static int setup(void **state)
{
	ept_fixture_setup(state);
	struct soft_vcpu *v = fixture->v;

	v->cr4 |= CR4_PGE;
	*guest_entry(LINEAR, 1) = PAGE | P | W | U | D;
	*guest_entry(GLOBAL, 1) = 0x8000 | P | W | U | D | G;
	*guest_entry(OTHER, 1) = 0x9000 | P | W | U | D;
	memcpy(fixture->ram + EPT_TABLES + 0x20000, fixture->ram + EPT_TABLES, 0x20000);
	ept_fixture_leave();
	other = (typeof(other)){v->cr0, v->cr3, v->cr4, v->msr.efer, v->dr7};
	fixture_paging();
	fixture_map(ROOT_LINEAR, ROOT_PAGE, P | W | U | D);
	mmu_invvpid_all(v);
	mmu_invept(v, true, 0);
	tlb_flush(v, false);
	return 0;
}

/* ---- what stays ---- */

static void test_nothing_moves(void **state)
{
	struct soft_vcpu *v = fixture->v;

	fill(ROOT_LINEAR);
	jump_cache_put(v, MMU_USER, ROOT_LINEAR, code);
	enter(1);
	assert_false(has(ROOT_LINEAR, false) || jumps(ROOT_LINEAR, MMU_USER));
	fill_all();
	u64 misses = v->stats.tlb_misses, flushes = v->stats.tlb_flushes;
	for (int round = 0; round < 10; round++) {
		leave();
		assert_ptr_equal(tlb_lookup(v, ROOT_LINEAR, 8, true, MMU_USER),
				 fixture->ram + ROOT_PAGE);
		assert_true(jumps(ROOT_LINEAR, MMU_USER));
		assert_false(has(LINEAR, false) || jumps(LINEAR, MMU_USER));
		enter(1);
		assert_int_equal(known(), ALL);
		assert_ptr_equal(tlb_lookup(v, LINEAR, 8, true, MMU_USER),
				 fixture->ram + PAGE_PHYS);
	}
	assert_int_equal(v->stats.tlb_misses, misses);
	assert_int_equal(v->stats.tlb_flushes, flushes);
}

/* Without EPT addresses are this VM's own; VPIDs do the same. */
static void test_without_ept(void **state)
{
	struct soft_vcpu *v = fixture->v;

	other.cr3 = v->cr3;
	fixture_map(LINEAR, PAGE_PHYS, P | W | U | D);
	enter_with(0, 1);
	fill(LINEAR);
	leave();
	mmu_invept(v, true, 0); /* of linear mappings INVEPT knows nothing */
	enter_with(0, 1);
	assert_ptr_equal(tlb_lookup(v, LINEAR, 8, true, MMU_USER), fixture->ram + PAGE_PHYS);
	leave();
	mmu_invvpid(v, 1, false);
	enter_with(0, 1);
	assert_false(has(LINEAR, false));
}

/* 29.4.3.1: without VPIDs entry and exit drop all that VPID 0 has. */
static void test_without_vpids(void **state)
{
	fill(ROOT_LINEAR);
	enter(1);
	fill_all();
	leave();
	enter(0);
	assert_int_equal(known(), 0);
	fill_all();
	leave();
	assert_false(has(ROOT_LINEAR, false));
	fill(ROOT_LINEAR);
	enter(0);
	assert_int_equal(known(), 0);
	leave();
	assert_false(has(ROOT_LINEAR, false));
	enter(1); /* has its own, but for fetches, whose place has been taken */
	assert_int_equal(known(), ALL & ~(FETCHES | GLOBAL_FETCHES));
}

/* ---- each invalidation ---- */

static void nothing(struct soft_vcpu *v)
{
}

static void invvpid_1(struct soft_vcpu *v)
{
	mmu_invvpid(v, 1, false);
}

static void invvpid_2(struct soft_vcpu *v)
{
	mmu_invvpid(v, 2, false);
}

static void invvpid_1_but_globals(struct soft_vcpu *v)
{
	mmu_invvpid(v, 1, true);
}

static void invvpid_all(struct soft_vcpu *v)
{
	mmu_invvpid_all(v);
}

static void invvpid_page(struct soft_vcpu *v)
{
	mmu_invvpid_address(v, 1, LINEAR + 0x123);
}

static void invvpid_global_page(struct soft_vcpu *v)
{
	mmu_invvpid_address(v, 1, GLOBAL);
}

static void invept_all(struct soft_vcpu *v)
{
	mmu_invept(v, true, 0);
}

static void invept_this(struct soft_vcpu *v)
{
	mmu_invept(v, false, EPTP);
}

static void invept_other(struct soft_vcpu *v)
{
	mmu_invept(v, false, EPTP2);
}

static void flush_of_root(struct soft_vcpu *v)
{
	tlb_flush(v, false);
}

static void forget_memory(struct soft_vcpu *v)
{
	tlb_forget(v);
}

static void forget_blocks(struct soft_vcpu *v)
{
	jump_caches_forget(v);
}

static void drop_block(struct soft_vcpu *v)
{
	jump_cache_drop(v, CODE64 | MODE_NONROOT | MMU_USER << MODE_MMU_SHIFT, LINEAR);
}

static void drop_kernel_block(struct soft_vcpu *v)
{
	jump_cache_drop(v, CODE64 | MODE_NONROOT | MMU_KERNEL << MODE_MMU_SHIFT, GLOBAL);
}

static void drop_block_of_root(struct soft_vcpu *v)
{
	jump_cache_drop(v, CODE64 | MMU_USER << MODE_MMU_SHIFT, LINEAR);
}

static void protect(struct soft_vcpu *v)
{
	fixture->vm.slots[0].page_flags[PAGE_PHYS / PAGE_SIZE] = PAGE_HAS_CODE;
	tlb_protect_host(v, fixture->ram + PAGE_PHYS);
}

static void protect_global(struct soft_vcpu *v)
{
	fixture->vm.slots[0].page_flags[PHYS(0x8000) / PAGE_SIZE] = PAGE_HAS_CODE;
	tlb_protect_host(v, fixture->ram + PHYS(0x8000));
}

static void shape(struct soft_vcpu *v)
{
	other.cr4 ^= CR4_SMEP;
}

static void no_execute(struct soft_vcpu *v)
{
	other.efer ^= EFER_NXE;
}

static void write_protect(struct soft_vcpu *v)
{
	other.cr0 ^= CR0_WP;
}

static void other_flags(struct soft_vcpu *v)
{
	other.cr0 ^= CR0_TS;
	other.cr4 ^= CR4_DE;
	other.efer ^= EFER_SCE;
}

static void other_tables(struct soft_vcpu *v)
{
	memcpy(fixture->ram + PHYS(0xf000), fixture->ram + PHYS(G1), PAGE_SIZE);
	other.cr3 = 0xf000;
}

static void watch(struct soft_vcpu *v)
{
	other.dr7 = DR7_FIXED1 | 1 | 3 << 16;
}

static const struct {
	const char *name;
	void (*event)(struct soft_vcpu *v);
	u32 here; /* what is known behind it, where VPID 1 was the last to run, */
	u32 away; /* and where VPID 2 has run since */
} cases[] = {
    {"nothing", nothing, ALL, ALL},
    {"INVVPID", invvpid_1, 0, 0},
    {"INVVPID, another", invvpid_2, ALL, ALL},
    {"INVVPID, globals stay", invvpid_1_but_globals, ALL_GLOBALS, 0},
    {"INVVPID, all", invvpid_all, 0, 0},
    {"INVVPID, a page", invvpid_page, ALL_GLOBALS, 0},
    {"INVVPID, the global page", invvpid_global_page, READS | WRITES | USER_JUMPS | FETCHES, 0},
    {"INVEPT, all", invept_all, 0, 0},
    {"INVEPT", invept_this, 0, 0},
    {"INVEPT, another", invept_other, ALL, ALL},
    {"flush by root", flush_of_root, ALL, ALL},
    {"memory slots", forget_memory, 0, 0},
    {"all blocks gone", forget_blocks, ALL & ~(USER_JUMPS | KERNEL_JUMPS),
     ALL & ~(USER_JUMPS | KERNEL_JUMPS)},
    {"a block gone", drop_block, ALL & ~USER_JUMPS, ALL & ~(USER_JUMPS | KERNEL_JUMPS)},
    {"a kernel's block gone", drop_kernel_block, ALL & ~KERNEL_JUMPS,
     ALL & ~(USER_JUMPS | KERNEL_JUMPS)},
    {"a block of root gone", drop_block_of_root, ALL, ALL},
    {"a page got code", protect, ALL & ~WRITES, ALL & ~WRITES},
    {"the global page got code", protect_global, ALL & ~GLOBAL_WRITES, ALL & ~GLOBAL_WRITES},
    {"CR4", shape, 0, 0},
    {"EFER", no_execute, 0, 0},
    {"CR0", write_protect, 0, 0},
    {"flags that mean nothing", other_flags, ALL, ALL},
    {"CR3", other_tables, ALL_GLOBALS, ALL_GLOBALS},
    {"breakpoints", watch, 0, 0},
};

static void test_invalidations(void **state)
{
	for (u32 k = 0; k < ARRAY_SIZE(cases); k++)
		for (int away = 0; away < 2; away++) {
			typeof(other) before;
			u32 want = away ? cases[k].away : cases[k].here;

			fixture_teardown(state);
			setup(state);
			enter(1);
			fill_all();
			leave();
			before = other;
			if (away) {
				enter(2);
				if (known())
					fail_msg("VPID 2 knows %#x", known());
				fill(OTHER);
				leave();
			}
			cases[k].event(fixture->v);
			enter(1);
			if (known() != want)
				fail_msg("%s, %s: %#x is known, not %#x", cases[k].name,
					 away ? "away" : "here", known(), want);
			assert_false(has(OTHER, false));
			other = before;
		}
}

/* What comes back can be invalidated like what has always been there. */
static void test_back(void **state)
{
	struct soft_vcpu *v = fixture->v;

	enter(1);
	fill_all();
	leave();
	enter(2);
	leave();
	enter(1);
	assert_int_equal(known(), ALL);
	tlb_flush(v, true);
	assert_int_equal(known(), ALL_GLOBALS);
	leave();
	enter(2);
	leave();
	enter(1);
	assert_int_equal(known(), ALL_GLOBALS);
	tlb_flush(v, false);
	assert_int_equal(known(), 0);
}

/* Epochs are given out once: no VPID's fetches are good for another, whatever was flushed. */
static void test_global_fetches(void **state)
{
	struct soft_vcpu *v = fixture->v;
	u64 gpa;

	enter(1);
	mmu_fetch(v, GLOBAL, &gpa);
	leave();
	*guest_entry(GLOBAL, 1) = 0x9000 | P | U | G;
	for (u32 flushes = 0; flushes < 4; flushes++) {
		enter(2);
		mmu_fetch(v, GLOBAL, &gpa);
		assert_int_equal(gpa, PHYS(0x9000));
		leave();
		*guest_entry(GLOBAL, 1) = 0x8000 | P | U | G;
		enter(1);
		for (u32 k = 0; k < flushes; k++)
			tlb_flush(v, false);
		mmu_fetch(v, GLOBAL, &gpa);
		assert_int_equal(gpa, PHYS(0x8000));
		leave();
		*guest_entry(GLOBAL, 1) = 0x9000 | P | U | G;
	}
}

/* Each VPID has been left with control registers of its own. */
static void test_controls_apart(void **state)
{
	enter(1);
	fill_all();
	leave();
	other.cr4 |= CR4_PSE;
	enter(2);
	fill_all();
	leave();
	other.cr4 &= ~CR4_PSE;
	enter(1);
	assert_int_equal(known(), ALL & ~(FETCHES | GLOBAL_FETCHES));
	leave();
	enter(2);
	assert_int_equal(known(), 0);
}

/* Jumps of a kernel between pages that are not global go with its tables. */
static void test_kernel_jumps(void **state)
{
	struct soft_vcpu *v = fixture->v;

	for (int same = 0; same < 2; same++) {
		enter(1);
		fill_all();
		v->mmu->jump_nonglobal[MMU_KERNEL] = 1;
		leave();
		enter(2);
		leave();
		if (!same)
			other_tables(v);
		enter(1);
		assert_int_equal(jumps(GLOBAL, MMU_KERNEL), same);
		assert_int_equal(v->mmu->jump_nonglobal[MMU_KERNEL], same);
		leave();
		other.cr3 = G1;
		mmu_invvpid_all(v);
	}
}

/* PCIDs of a nested guest, over exits that change them. */
static void test_pcids(void **state)
{
	struct soft_vcpu *v = fixture->v;

	other.cr4 |= CR4_PCIDE;
	enter(1);
	fill_all();
	leave();
	other.cr3 |= 3;
	enter(1);
	assert_int_equal(known(), ALL_GLOBALS);
	fill(OTHER);
	leave();
	other.cr3 &= ~CR3_PCID;
	enter(1);
	assert_int_equal(known(), ALL);
	assert_false(has(OTHER, false));
	leave();
	mmu_invvpid_address(v, 1, OTHER); /* of every PCID */
	other.cr3 |= 3;
	enter(1);
	assert_false(has(OTHER, false));
}

/* Without CR4.PCIDE there is one PCID, whatever CR3's low bits are. */
static void test_no_pcids(void **state)
{
	struct soft_vcpu *v = fixture->v;

	enter(1);
	fill_all();
	leave();
	other.cr3 |= 8; /* PWT */
	enter(1);
	tlb_flush_context(v, true);
	leave();
	other.cr3 &= ~8ull;
	enter(1);
	assert_int_equal(known(), ALL_GLOBALS);
}

/* PCIDs of root are root's: the same numbers in VPIDs are others. */
static void test_pcids_apart(void **state)
{
	struct soft_vcpu *v = fixture->v;

	v->cr4 |= CR4_PCIDE;
	other.cr4 |= CR4_PCIDE;
	fill(ROOT_LINEAR);
	context_switch(v, v->cr3 | 1, true);
	v->cr3 |= 1;
	enter(1);
	context_flush(v, 0);
	context_switch(v, v->cr3 | 1, true);
	v->cr3 |= 1;
	context_flush(v, 0);
	tlb_flush(v, false);
	leave();
	context_switch(v, v->cr3 & ~1ull, true);
	v->cr3 &= ~1ull;
	assert_true(has(ROOT_LINEAR, true));
}

static void test_pdptrs(void **state)
{
	struct soft_vcpu *v = fixture->v;

	*(u64 *)(fixture->ram + PHYS(0xa000)) = 0xb000 | 7;
	*(u64 *)(fixture->ram + PHYS(0xb000) + 8) = 0xc000 | 7 | D;
	v->pdptr[0] = 0xa000 | P;
	other.efer = 0;
	other.cr4 = CR4_PAE;
	enter(1);
	fill(0x1000);
	leave();
	enter(1);
	assert_true(has(0x1000, true));
	leave();
	v->pdptr[0] = 0xd000 | P;
	enter(1);
	assert_false(has(0x1000, false));
}

/* A VPID keeps nothing of another EPTP, neither when that changes between entries nor without an
 * exit. */
static void test_eptp_changes(void **state)
{
	struct soft_vcpu *v = fixture->v;

	for (int switched = 0; switched < 2; switched++)
		for (int away = 0; away < 2; away++) {
			enter(1);
			fill_all();
			if (switched) {
				mmu_switch_eptp(v, EPTP);
				assert_int_equal(known(), ALL);
				mmu_switch_eptp(v, EPTP2);
			} else {
				leave();
				if (away) {
					enter(2);
					leave();
				}
				enter_with(EPTP2, 1);
			}
			assert_int_equal(known(), 0);
			leave();
			enter(1);
			assert_int_equal(known(), 0);
			leave();
		}
}

/* More VPIDs than there is room for. */
static void test_turnover(void **state)
{
	enter(1);
	fill_all();
	leave();
	for (u16 vpid = 2; vpid < 2 + CONTEXTS_MAX; vpid++) {
		enter(vpid);
		assert_int_equal(known(), 0);
		fill(OTHER);
		leave();
	}
	enter(1);
	assert_int_equal(known(), 0);
	leave();
	enter(2 + CONTEXTS_MAX - 1);
	assert_true(has(OTHER, true));
}

static void test_untuned(void **state)
{
	fixture->vm.tune.operations = false;
	fill(ROOT_LINEAR);
	enter(1);
	fill_all();
	leave();
	assert_false(has(ROOT_LINEAR, false));
	enter(1);
	assert_int_equal(known(), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_nothing_moves), T(test_without_ept),	 T(test_without_vpids),
	    T(test_invalidations), T(test_back),	 T(test_global_fetches),
	    T(test_kernel_jumps),  T(test_pcids),	 T(test_pcids_apart),
	    T(test_pdptrs),	   T(test_eptp_changes), T(test_turnover),
	    T(test_untuned),	   T(test_no_pcids),	 T(test_controls_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
