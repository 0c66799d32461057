/* The software TLBs: what is entered, what each flush drops, and accesses through them. */
#include "tests/unit/soft_fixture.h"

#include <string.h>

#include "base/gp.h"

#define LINEAR 0x7f0000123000ull
#define PAGE   0x555000ull

static bool has(u64 linear, bool write, enum mmu_index index)
{
	return tlb_lookup(fixture->v, linear, 1, write, index);
}

static void *fill(u64 linear, u32 size, enum access access, enum mmu_index index)
{
	return tlb_fill(fixture->v, linear, size, access, index, false);
}

/* No address hits an empty slot, whatever its low bits: the flush leaves tags of other slots. */
static void test_empty(void **state)
{
	static const u64 high[] = {0, 0x400000, 0x7fffffc00000, 0xffff800000000000,
				   0xffffffffffc00000};

	for (u32 k = 0; k < ARRAY_SIZE(high); k++)
		for (u64 slot = 0; slot < TLB_SIZE; slot++)
			for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
				assert_false(has(high[k] | slot << 12, false, index));
				assert_false(has(high[k] | slot << 12 | 0xfff, true, index));
			}
	for (u32 slot = 0; slot < JUMP_CACHE_SIZE; slot++) {
		u32 home = jump_slot(fixture->v->mmu->jump[0][slot].rip);

		assert_int_not_equal(home / JUMP_WAYS, slot / JUMP_WAYS);
	}
}

static void test_fill(void **state)
{
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U);
	assert_ptr_equal(fill(LINEAR + 8, 8, ACCESS_READ, MMU_USER), fixture->ram + PAGE + 8);
	assert_true(has(LINEAR, false, MMU_USER));
	assert_ptr_equal(tlb_lookup(fixture->v, LINEAR + 0xff8, 8, false, MMU_USER),
			 fixture->ram + PAGE + 0xff8);
	assert_null(tlb_lookup(fixture->v, LINEAR + 0xff9, 8, false, MMU_USER));
	/* Clean: a write must come through the walk, which sets D. */
	assert_false(has(LINEAR, true, MMU_USER));
	assert_false(has(LINEAR, false, MMU_KERNEL));
	assert_int_equal(*fixture_pte(LINEAR) & (A | D), A);
	assert_ptr_equal(fill(LINEAR, 1, ACCESS_WRITE, MMU_USER), fixture->ram + PAGE);
	assert_true(has(LINEAR, true, MMU_USER));
	assert_int_equal(*fixture_pte(LINEAR) & (A | D), A | D);
	/* Dirty already: reads enter both. */
	tlb_flush(fixture->v, false);
	fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	assert_true(has(LINEAR, true, MMU_USER));
}

static void test_read_only_page(void **state)
{
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | U | D);
	fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	assert_false(has(LINEAR, true, MMU_USER));
	ASSERT_RAISES(EXC_PF, PF_P | PF_W | PF_U, fill(LINEAR + 5, 1, ACCESS_WRITE, MMU_USER));
	assert_int_equal(fixture->cr2, LINEAR + 5);
	/* Without WP the kernel may. */
	fixture->v->cr0 &= ~CR0_WP;
	assert_non_null(fill(LINEAR, 1, ACCESS_WRITE, MMU_KERNEL_AC));
}

static void test_not_plain(void **state)
{
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U | D);
	/* crosses the page */
	assert_null(fill(LINEAR + 0xffd, 4, ACCESS_READ, MMU_USER));
	/* code: readable, not writable in place */
	fixture->vm.slots[0].page_flags[PAGE / PAGE_SIZE] = PAGE_HAS_CODE;
	assert_non_null(fill(LINEAR, 4, ACCESS_READ, MMU_USER));
	assert_false(has(LINEAR, true, MMU_USER));
	assert_null(fill(LINEAR, 4, ACCESS_WRITE, MMU_USER));
	assert_false(has(LINEAR, true, MMU_USER));
	fixture->vm.slots[0].page_flags[PAGE / PAGE_SIZE] = 0;
	/* dirty log */
	u64 dirty[RAM_SIZE / PAGE_SIZE / 64] = {0};
	fixture->vm.slots[0].dirty = dirty;
	assert_null(fill(LINEAR, 4, ACCESS_WRITE, MMU_USER));
	fixture->vm.slots[0].dirty = NULL;
	assert_non_null(fill(LINEAR, 4, ACCESS_WRITE, MMU_USER));
	/* read-only slot, no slot */
	fixture_map(LINEAR + 0x1000, ROM_BASE, P | W | U | D);
	fixture_map(LINEAR + 0x2000, NO_RAM, P | W | U | D);
	assert_ptr_equal(fill(LINEAR + 0x1000, 4, ACCESS_READ, MMU_USER), fixture->rom);
	assert_null(fill(LINEAR + 0x1000, 4, ACCESS_WRITE, MMU_USER));
	assert_null(fill(LINEAR + 0x2000, 4, ACCESS_READ, MMU_USER));
	assert_false(has(LINEAR + 0x2000, false, MMU_USER));
}

static void test_canonical(void **state)
{
	fixture_paging();
	ASSERT_RAISES(EXC_GP, 0, fill(0x800000000000, 1, ACCESS_READ, MMU_KERNEL));
	ASSERT_RAISES(EXC_SS, 0,
		      tlb_fill(fixture->v, 0xffff7fffffffffff, 1, ACCESS_WRITE, MMU_KERNEL, true));
	/* the second half of an access */
	u64 value;
	fixture_map(0x7ffffffff000, PAGE, P | W | U);
	ASSERT_RAISES(EXC_GP, 0,
		      mem_read_linear(fixture->v, 0x7ffffffffffc, &value, 8, MMU_USER, false));
}

static void test_flush_global(void **state)
{
	u64 global = 0xffffffff81000000;

	fixture_paging();
	fixture->v->cr4 |= CR4_PGE;
	fixture_map(LINEAR, PAGE, P | W | U | D);
	fixture_map(global, PAGE + 0x1000, P | W | G | D);
	for (int round = 0; round < 3; round++) {
		fill(LINEAR, 1, ACCESS_READ, MMU_USER);
		fill(global, 1, ACCESS_READ, MMU_KERNEL);
		tlb_flush(fixture->v, true);
		assert_false(has(LINEAR, false, MMU_USER) || has(LINEAR, true, MMU_USER));
		assert_true(has(global, false, MMU_KERNEL) && has(global, true, MMU_KERNEL));
	}
	tlb_flush(fixture->v, false);
	assert_false(has(global, false, MMU_KERNEL) || has(global, true, MMU_KERNEL));
}

/* A slot that changes between global and not keeps the right fate and is logged once. */
static void test_flush_changing_slot(void **state)
{
	u64 other = LINEAR + TLB_SIZE * PAGE_SIZE; /* same slot */

	fixture_paging();
	fixture->v->cr4 |= CR4_PGE;
	fixture_map(LINEAR, PAGE, P | W | U | D);
	fixture_map(other, PAGE, P | W | U | D | G);
	for (u32 round = 0; round < 100; round++) {
		fill(LINEAR, 1, ACCESS_READ, MMU_USER);
		fill(other, 1, ACCESS_READ, MMU_USER);
		assert_int_equal(fixture->v->mmu->tlb_logged, 2);
	}
	tlb_flush(fixture->v, true);
	assert_true(has(other, false, MMU_USER));
	fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	tlb_flush(fixture->v, true);
	assert_false(has(LINEAR, false, MMU_USER));
	assert_false(has(other, false, MMU_USER));
}

static void test_flush_page(void **state)
{
	fixture_paging();
	fixture->v->cr4 |= CR4_PGE;
	fixture_map(LINEAR, PAGE, P | W | U | D | G);
	fixture_map(LINEAR + 0x1000, PAGE, P | W | U | D);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
		fill(LINEAR, 1, ACCESS_READ, index);
		fill(LINEAR + 0x1000, 1, ACCESS_READ, index);
	}
	tlb_flush_page(fixture->v, LINEAR + 0x123);
	for (enum mmu_index index = 0; index < MMU_COUNT; index++) {
		assert_false(has(LINEAR, false, index) || has(LINEAR, true, index));
		assert_true(has(LINEAR + 0x1000, false, index) &&
			    has(LINEAR + 0x1000, true, index));
	}
}

/* INVLPG of any address in a large page drops what was entered for its other addresses. */
static void test_flush_large(void **state)
{
	static const struct {
		u64 size, filled, flushed;
	} cases[] = {
	    {BIT(21), 0x40000000, 0x401ff000},
	    {BIT(21), 0x401ff000, 0x40000000},
	    {BIT(30), 0x40000000, 0x7ffff000},
	    {BIT(30), 0x40fff000, 0x40000000},
	};

	fixture_paging();
	fixture_pte(0x40000000); /* makes the PDPT, then its PD */
	for (u32 k = 0; k < ARRAY_SIZE(cases); k++)
		for (u64 global = 0; global < 2; global++) {
			u64 *pdpte = (u64 *)(fixture->ram + 0x101000);
			u64 *pde = (u64 *)(fixture->ram + 0x102000);

			fixture->v->cr4 |= CR4_PGE;
			if (cases[k].size == BIT(21))
				pde[0] = P | W | U | PS | D | (global ? G : 0);
			else
				pdpte[1] = P | W | U | PS | D | (global ? G : 0);
			tlb_flush(fixture->v, false);
			assert_non_null(fill(cases[k].filled, 1, ACCESS_READ, MMU_USER));
			assert_true(has(cases[k].filled, true, MMU_USER));
			tlb_flush_page(fixture->v, cases[k].flushed);
			assert_false(has(cases[k].filled, false, MMU_USER) ||
				     has(cases[k].filled, true, MMU_USER));
		}
}

static void test_protect_host(void **state)
{
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U | D);
	fixture_map(LINEAR + 0x5000, PAGE, P | W | U | D);
	fixture_map(LINEAR + 0x6000, PAGE + 0x1000, P | W | U | D);
	fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	fill(LINEAR + 0x5000, 1, ACCESS_READ, MMU_KERNEL);
	fill(LINEAR + 0x6000, 1, ACCESS_READ, MMU_USER);
	tlb_protect_host(fixture->v, fixture->ram + PAGE);
	assert_false(has(LINEAR, true, MMU_USER));
	assert_false(has(LINEAR + 0x5000, true, MMU_KERNEL));
	assert_true(has(LINEAR, false, MMU_USER) && has(LINEAR + 0x5000, false, MMU_KERNEL));
	assert_true(has(LINEAR + 0x6000, true, MMU_USER));
}

static void test_watchpoint(void **state)
{
	u64 value;

	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U | D);
	fixture->v->dr[0] = LINEAR + 0x100;
	fixture->v->dr7 = DR7_FIXED1 | 1 | 3 << 16; /* L0, reads and writes, one byte */
	assert_null(fill(LINEAR, 4, ACCESS_READ, MMU_USER));
	mem_read_linear(fixture->v, LINEAR + 0xfc, &value, 4, MMU_USER, false);
	assert_int_equal(fixture->v->events.debug, 0);
	mem_read_linear(fixture->v, LINEAR + 0xfe, &value, 4, MMU_USER, false);
	assert_int_equal(fixture->v->events.debug, 1);
	/* execution breakpoints leave data alone */
	fixture->v->dr7 = DR7_FIXED1 | 1;
	assert_non_null(fill(LINEAR, 4, ACCESS_READ, MMU_USER));
}

static void test_fetch(void **state)
{
	u64 gpa;

	fixture_paging();
	fixture->v->cr4 |= CR4_PGE;
	fixture_map(LINEAR, PAGE, P | U);
	fixture_map(LINEAR + 0x1000, NO_RAM, P | U);
	fixture_map(LINEAR + 0x2000, PAGE, P | U | NX);
	fixture_map(LINEAR + 0x3000, PAGE, P | U | G);
	fixture->v->mmu_index = MMU_USER;
	assert_ptr_equal(mmu_fetch(fixture->v, LINEAR + 0x123, &gpa), fixture->ram + PAGE + 0x123);
	assert_int_equal(gpa, PAGE + 0x123);
	assert_false(mmu_fetch_global(fixture->v, LINEAR));
	assert_null(mmu_fetch(fixture->v, LINEAR + 0x1004, &gpa));
	assert_int_equal(gpa, NO_RAM + 4);
	ASSERT_RAISES(EXC_PF, PF_P | PF_U | PF_I, mmu_fetch(fixture->v, LINEAR + 0x2000, &gpa));
	ASSERT_RAISES(EXC_GP, 0, mmu_fetch(fixture->v, BIT(47), &gpa));
	mmu_fetch(fixture->v, LINEAR + 0x3000, &gpa);
	assert_true(mmu_fetch_global(fixture->v, LINEAR + 0x3000));
	/* Entries answer until they are flushed. */
	*fixture_pte(LINEAR) = 0;
	*fixture_pte(LINEAR + 0x3000) = 0;
	assert_non_null(mmu_fetch(fixture->v, LINEAR, &gpa));
	tlb_flush(fixture->v, true);
	ASSERT_RAISES(EXC_PF, PF_U | PF_I, mmu_fetch(fixture->v, LINEAR, &gpa));
	assert_non_null(mmu_fetch(fixture->v, LINEAR + 0x3000, &gpa));
	tlb_flush_page(fixture->v, LINEAR + 0x3fff);
	ASSERT_RAISES(EXC_PF, PF_U | PF_I, mmu_fetch(fixture->v, LINEAR + 0x3000, &gpa));
}

static bool jumps(u64 linear, enum mmu_index index)
{
	const struct jump_entry *entry = jump_cache_find(fixture->v, index, linear);

	return entry && entry->code;
}

static void test_jump_cache(void **state)
{
	static const u8 code[JUMP_WAYS];
	struct soft_vcpu *v = fixture->v;
	u64 gpa, last = LINEAR | 0xff3; /* may cross into the next page */

	fixture_paging();
	fixture_map(LINEAR, PAGE, P | U);
	fixture_map(LINEAR + 0x1000, PAGE, P | U);
	v->mmu_index = MMU_USER;
	jump_cache_put(v, MMU_USER, LINEAR | 5, code);
	jump_cache_put(v, MMU_KERNEL, LINEAR | 5, code);
	tlb_flush(v, true);
	assert_false(jumps(LINEAR | 5, MMU_USER));
	assert_true(jumps(LINEAR | 5, MMU_KERNEL));
	v->mmu->jump_nonglobal[MMU_KERNEL] = 1;
	tlb_flush(v, true);
	assert_false(jumps(LINEAR | 5, MMU_KERNEL));
	assert_int_equal(v->mmu->jump_nonglobal[MMU_KERNEL], 0);
	/* INVLPG drops what may lie in the page, and only that. */
	mmu_fetch(v, LINEAR, &gpa);
	mmu_fetch(v, LINEAR + 0x1000, &gpa);
	jump_cache_put(v, MMU_USER, LINEAR | 5, code);
	jump_cache_put(v, MMU_USER, last, code);
	tlb_flush_page(v, LINEAR + 0x2000);
	assert_true(jumps(LINEAR | 5, MMU_USER) && jumps(last, MMU_USER));
	tlb_flush_page(v, LINEAR + 0x1000);
	assert_true(jumps(LINEAR | 5, MMU_USER));
	assert_false(jumps(last, MMU_USER));
	tlb_flush_page(v, LINEAR);
	assert_false(jumps(LINEAR | 5, MMU_USER));
	/* As many of the same slot as there are ways are all found, and the latest one of more. */
	u64 same[JUMP_WAYS + 1] = {LINEAR | 0x40};

	for (u32 k = 1; k <= JUMP_WAYS; k++)
		for (same[k] = same[k - 1] + 1; jump_slot(same[k]) != jump_slot(same[0]);)
			same[k]++;
	for (u32 round = 0; round < 3; round++) {
		for (u32 k = 0; k < JUMP_WAYS; k++)
			jump_cache_put(v, MMU_USER, same[k], code + k);
		for (u32 k = 0; k < JUMP_WAYS; k++)
			assert_int_equal(jump_cache_find(v, MMU_USER, same[k])->code,
					 (u64)(code + k));
	}
	jump_cache_put(v, MMU_USER, same[JUMP_WAYS], code);
	assert_true(jumps(same[JUMP_WAYS], MMU_USER));
	u32 found = 0;

	for (u32 k = 0; k <= JUMP_WAYS; k++)
		found += jumps(same[k], MMU_USER);
	assert_int_equal(found, JUMP_WAYS);
	jump_cache_drop(v, MMU_USER, same[JUMP_WAYS]);
	assert_false(jumps(same[JUMP_WAYS], MMU_USER));
	jump_cache_put(v, MMU_USER, same[1], code);
	jump_cache_clear(v, MMU_USER);
	assert_false(jumps(same[1], MMU_USER));
	/* What is dropped is logged once. */
	for (u32 round = 0; round < 2 * JUMP_CACHE_SIZE; round++) {
		jump_cache_put(v, MMU_USER, LINEAR | 5, code);
		jump_cache_drop(v, MMU_USER, LINEAR | 7);
		assert_true(jumps(LINEAR | 5, MMU_USER));
		jump_cache_drop(v, MMU_USER, LINEAR | 5);
		assert_false(jumps(LINEAR | 5, MMU_USER));
	}
}

/* ---- PCIDs ---- */

static void switch_to(u64 pcid, bool keep)
{
	struct soft_vcpu *v = fixture->v;
	u64 cr3 = (v->cr3 & ~CR3_PCID) | pcid;

	context_switch(v, cr3, keep);
	v->cr3 = cr3;
}

static void pcid_setup(void)
{
	fixture_paging();
	fixture->v->cr4 |= CR4_PGE | CR4_PCIDE;
	fixture_map(LINEAR, PAGE, P | W | U | D);
	fixture_map(LINEAR + 0x1000, PAGE + 0x1000, P | W | U | D | G);
}

static void test_contexts(void **state)
{
	static const u8 code[1];
	struct soft_vcpu *v = fixture->v;
	u64 gpa;

	pcid_setup();
	v->mmu_index = MMU_USER;
	fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	fill(LINEAR + 0x1000, 1, ACCESS_READ, MMU_USER);
	mmu_fetch(v, LINEAR, &gpa);
	jump_cache_put(v, MMU_USER, LINEAR, code);
	for (u64 pcid = 1; pcid < CONTEXTS_MAX; pcid++) {
		switch_to(pcid, true);
		assert_false(has(LINEAR, false, MMU_USER) || has(LINEAR, true, MMU_USER));
		assert_false(jumps(LINEAR, MMU_USER));
		assert_true(has(LINEAR + 0x1000, true, MMU_USER));
	}
	*fixture_pte(LINEAR) = 0;
	switch_to(0, true);
	assert_ptr_equal(tlb_lookup(v, LINEAR, 8, true, MMU_USER), fixture->ram + PAGE);
	assert_true(has(LINEAR, false, MMU_USER) && jumps(LINEAR, MMU_USER));
	assert_non_null(mmu_fetch(v, LINEAR, &gpa));
	/* It is known where its code is. */
	tlb_flush_page(v, LINEAR);
	assert_false(has(LINEAR, true, MMU_USER) || jumps(LINEAR, MMU_USER));
	ASSERT_RAISES(EXC_PF, PF_U | PF_I, mmu_fetch(v, LINEAR, &gpa));
	/* without bit 63 */
	fixture_map(LINEAR, PAGE, P | W | U | D);
	fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	switch_to(1, true);
	switch_to(0, false);
	assert_false(has(LINEAR, false, MMU_USER));
}

/* Each thing that makes entries of PCID 0 invalid while PCID 1 is the current one. */
static void flush_all(struct soft_vcpu *v)
{
	tlb_flush(v, false);
}

static void flush_all_but_global(struct soft_vcpu *v)
{
	tlb_flush(v, true);
}

static void flush_pcid(struct soft_vcpu *v)
{
	context_flush(v, 0);
}

static void forget_blocks(struct soft_vcpu *v)
{
	jump_caches_forget(v);
}

static void drop_block(struct soft_vcpu *v)
{
	jump_cache_drop(v, MMU_USER, LINEAR);
}

static void protect(struct soft_vcpu *v)
{
	fixture->vm.slots[0].page_flags[PAGE / PAGE_SIZE] = PAGE_HAS_CODE;
	tlb_protect_host(v, fixture->ram + PAGE);
}

static void protect_other(struct soft_vcpu *v)
{
	tlb_protect_host(v, fixture->ram + PAGE + 0x1000);
}

static void protect_for_a_while(struct soft_vcpu *v)
{
	protect(v);
	fixture->vm.slots[0].page_flags[PAGE / PAGE_SIZE] = 0;
}

static void test_invalid_while_away(void **state)
{
	static const struct {
		void (*event)(struct soft_vcpu *v);
		bool reads, writes, jumps;
	} cases[] = {
	    {flush_all, false, false, false},  {flush_all_but_global, false, false, false},
	    {flush_pcid, false, false, false}, {forget_blocks, true, true, false},
	    {drop_block, true, true, false},   {protect, true, false, true},
	    {protect_other, true, true, true}, {protect_for_a_while, true, true, true},
	};
	static const u8 code[1];
	struct soft_vcpu *v = fixture->v;

	pcid_setup();
	for (u32 k = 0; k < ARRAY_SIZE(cases); k++) {
		switch_to(0, false);
		fixture->vm.slots[0].page_flags[PAGE / PAGE_SIZE] = 0;
		fill(LINEAR, 1, ACCESS_READ, MMU_USER);
		jump_cache_put(v, MMU_USER, LINEAR, code);
		switch_to(1, true);
		cases[k].event(v);
		switch_to(0, true);
		assert_int_equal(has(LINEAR, false, MMU_USER), cases[k].reads);
		assert_int_equal(has(LINEAR, true, MMU_USER), cases[k].writes);
		assert_int_equal(jumps(LINEAR, MMU_USER), cases[k].jumps);
		/* Code that appears now finds the entry that has come back. */
		protect(v);
		assert_false(has(LINEAR, true, MMU_USER));
	}
}

static void test_large_while_away(void **state)
{
	u64 *table = (u64 *)(fixture->ram + 0x100000);

	pcid_setup();
	fixture_pte(0x40000000); /* makes the tables */
	table = (u64 *)(fixture->ram + (table[0] & 0xffffff000));
	table = (u64 *)(fixture->ram + (table[1] & 0xffffff000));
	table[0] = P | W | U | PS | D;
	fill(0x40012000, 1, ACCESS_READ, MMU_USER);
	switch_to(1, true);
	switch_to(0, true);
	assert_true(has(0x40012000, true, MMU_USER));
	tlb_flush_page(fixture->v, 0x401ff000);
	assert_false(has(0x40012000, false, MMU_USER) || has(0x40012000, true, MMU_USER));
}

/* More spaces than are kept: the ones left the longest ago are forgotten. */
static void test_context_turnover(void **state)
{
	pcid_setup();
	for (u64 pcid = 0; pcid < 2 * CONTEXTS_MAX; pcid++) {
		switch_to(pcid, true);
		fill(LINEAR, 1, ACCESS_READ, MMU_USER);
	}
	for (u64 pcid = 2 * CONTEXTS_MAX - 1; pcid-- > CONTEXTS_MAX;) {
		switch_to(pcid, true);
		assert_true(has(LINEAR, true, MMU_USER));
	}
	for (u64 pcid = 0; pcid < CONTEXTS_MAX - 1; pcid++) {
		switch_to(pcid, true);
		assert_false(has(LINEAR, false, MMU_USER));
	}
}

static void test_wp(void **state)
{
	struct soft_vcpu *v = fixture->v;

	pcid_setup();
	fixture_map(LINEAR, PAGE, P | U | D);
	v->cr0 &= ~CR0_WP;
	fill(LINEAR, 1, ACCESS_WRITE, MMU_KERNEL_AC);
	fill(LINEAR + 0x1000, 1, ACCESS_WRITE, MMU_USER);
	assert_true(has(LINEAR, true, MMU_KERNEL_AC));
	switch_to(1, true);
	switch_to(0, true);
	assert_true(has(LINEAR, true, MMU_KERNEL_AC));
	for (int round = 0; round < 2; round++) { /* here, and while away */
		if (round)
			switch_to(1, true);
		v->cr0 |= CR0_WP;
		tlb_flush_wp(v);
		if (round)
			switch_to(0, true);
		assert_false(has(LINEAR, true, MMU_KERNEL_AC));
		assert_true(has(LINEAR + 0x1000, true, MMU_USER));
		v->cr0 &= ~CR0_WP;
		fill(LINEAR, 1, ACCESS_WRITE, MMU_KERNEL_AC);
	}
}

/* Both pages are checked before the first byte moves. */
static void test_cross_page(void **state)
{
	u64 value = 0x1122334455667788;

	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U);
	fixture_map(LINEAR + 0x1000, PAGE + 0x8000, P | U);
	*(u64 *)(fixture->ram + PAGE + 0xff8) = 0;
	ASSERT_RAISES(EXC_PF, PF_P | PF_W | PF_U,
		      mem_write_linear(fixture->v, LINEAR + 0xffd, &value, 8, MMU_USER, false));
	assert_int_equal(fixture->cr2, LINEAR + 0x1000);
	assert_int_equal(*(u64 *)(fixture->ram + PAGE + 0xff8), 0);
	fixture_map(LINEAR + 0x1000, PAGE + 0x8000, P | U | W);
	ASSERT_ENDS(mem_write_linear(fixture->v, LINEAR + 0xffd, &value, 8, MMU_USER, false));
	assert_memory_equal(fixture->ram + PAGE + 0xffd, "\x88\x77\x66", 3);
	assert_memory_equal(fixture->ram + PAGE + 0x8000, "\x55\x44\x33\x22\x11", 5);
	value = 0;
	ASSERT_ENDS(mem_read_linear(fixture->v, LINEAR + 0xffd, &value, 8, MMU_USER, false));
	assert_int_equal(value, 0x1122334455667788);
	/* 32-bit addresses wrap. */
	fixture_protected(MODE_CODE32);
	fixture->v->cr0 = CR0_PE;
	tlb_flush(fixture->v, false);
	*(u32 *)fixture->ram = 0xaabbccdd;
	value = 0;
	fixture->vm.slots[2] =
	    (struct memslot){.gpa = 0xfffff000, .size = PAGE_SIZE, .host = fixture->rom};
	fixture->vm.slot_count = 3;
	*(u16 *)(fixture->rom + 0xffe) = 0x1122;
	ASSERT_ENDS(mem_read_linear(fixture->v, 0xfffffffe, &value, 4, MMU_KERNEL, false));
	assert_int_equal(value, 0xccdd1122);
}

static void test_write_to_code(void **state)
{
	u32 value = 0xc3c3c3c3;

	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U);
	fixture->vm.slots[0].page_flags[PAGE / PAGE_SIZE] = PAGE_HAS_CODE;
	ASSERT_ENDS(mem_write_linear(fixture->v, LINEAR + 0x10, &value, 4, MMU_USER, false));
	assert_int_equal(fixture->invalidations, 1);
	assert_int_equal(fixture->invalidated_gpa, PAGE + 0x10);
	assert_int_equal(fixture->invalidated_size, 4);
	assert_int_equal(*(u32 *)(fixture->ram + PAGE + 0x10), value);
}

struct segment_case {
	const char *name;
	u32 mode;
	u32 access, limit;
	u64 offset;
	u32 size;
	enum access kind;
	bool allowed;
};

#define DATA   (SEG_P | SEG_S | 1)
#define WRITE_ SEG_TYPE_WRITE
#define DOWN   SEG_TYPE_EXPAND_DOWN
#define CODE   (SEG_P | SEG_S | SEG_TYPE_CODE | 1)
#define PM32   (MODE_CODE32 | MODE_PE)
#define REAL   MODE_CODE16

/* clang-format off */
/* One case a line. */
static const struct segment_case segment_cases[] = {
	{"last byte at the limit", PM32, DATA | WRITE_, 0xfff, 0xffc, 4, ACCESS_WRITE, true},
	{"last byte beyond", PM32, DATA | WRITE_, 0xfff, 0xffd, 4, ACCESS_READ, false},
	{"wraps", PM32, DATA | WRITE_, 0xfff, 0xffffffff, 4, ACCESS_READ, false},
	{"read-only", PM32, DATA, 0xfff, 0, 4, ACCESS_WRITE, false},
	{"read-only read", PM32, DATA, 0xfff, 0, 4, ACCESS_READ, true},
	{"execute-only", PM32, CODE, 0xfff, 0, 4, ACCESS_READ, false},
	{"readable code", PM32, CODE | WRITE_, 0xfff, 0, 4, ACCESS_READ, true},
	{"code is never written", PM32, CODE | WRITE_, 0xfff, 0, 4, ACCESS_WRITE, false},
	{"conforming code is not expand-down", PM32, CODE | WRITE_ | DOWN, 0xfff, 0, 4, ACCESS_READ, true},
	{"null", PM32, SEG_UNUSABLE, 0xffffffff, 0, 4, ACCESS_READ, false},
	{"expand-down below", PM32, DATA | WRITE_ | DOWN | SEG_DB, 0xfff, 0xfff, 1, ACCESS_READ, false},
	{"expand-down first", PM32, DATA | WRITE_ | DOWN | SEG_DB, 0xfff, 0x1000, 1, ACCESS_READ, true},
	{"expand-down last", PM32, DATA | WRITE_ | DOWN | SEG_DB, 0xfff, 0xfffffffc, 4, ACCESS_READ, true},
	{"expand-down wraps", PM32, DATA | WRITE_ | DOWN | SEG_DB, 0xfff, 0xfffffffd, 4, ACCESS_READ, false},
	{"expand-down 16 last", PM32, DATA | WRITE_ | DOWN, 0xfff, 0xfffe, 2, ACCESS_READ, true},
	{"expand-down 16 beyond", PM32, DATA | WRITE_ | DOWN, 0xfff, 0xffff, 2, ACCESS_READ, false},
	{"real mode at 64K", REAL, DATA | WRITE_, 0xffff, 0xfffe, 2, ACCESS_READ, true},
	{"real mode across 64K", REAL, DATA | WRITE_, 0xffff, 0xffff, 2, ACCESS_READ, false},
	{"real mode has no types", REAL, CODE, 0xffff, 0, 2, ACCESS_WRITE, true},
	{"unreal mode", REAL, DATA | WRITE_, 0xffffffff, 0x100000, 4, ACCESS_READ, true},
	{"64-bit mode has no limits", MODE_CODE64 | MODE_FLAT | MODE_PE, SEG_UNUSABLE, 0, 0x100000000, 4, ACCESS_WRITE, true},
	{"64-bit mode, not canonical", MODE_CODE64 | MODE_FLAT | MODE_PE, 0, 0, BIT(47) - 2, 4, ACCESS_WRITE, false},
};
/* clang-format on */

static void run_segment_case(const struct segment_case *c, enum x86_seg seg)
{
	struct soft_vcpu *v = fixture->v;
	volatile u64 linear = 0;

	v->mode = c->mode;
	v->seg[seg] = (struct segment){.access = c->access, .limit = c->limit};
	if (RUN(linear = seg_linear(v, seg, c->offset, c->size, c->kind)) == ENDED) {
		if (!c->allowed)
			fail_msg("%s: allowed", c->name);
		assert_int_equal(linear, c->offset);
		return;
	}
	if (c->allowed)
		fail_msg("%s: raised", c->name);
	assert_int_equal(fixture->vector, seg == SEG_SS ? EXC_SS : EXC_GP);
	assert_int_equal(fixture->error, 0);
}

static void test_segments(void **state)
{
	for (u32 k = 0; k < ARRAY_SIZE(segment_cases); k++) {
		run_segment_case(&segment_cases[k], SEG_DS);
		run_segment_case(&segment_cases[k], SEG_SS);
	}
}

static void test_segment_base(void **state)
{
	struct soft_vcpu *v = fixture->v;

	for (int seg = 0; seg < 6; seg++)
		v->seg[seg].base = 0xfffff000;
	assert_int_equal(seg_linear(v, SEG_DS, 0x2000, 1, ACCESS_READ), 0x2000);
	assert_int_equal(seg_linear(v, SEG_FS, 0x2000, 1, ACCESS_READ), 0x100001000);
	fixture_protected(MODE_CODE32);
	assert_int_equal(seg_linear(v, SEG_DS, 0x2000, 1, ACCESS_READ), 0x1000);
	assert_int_equal(seg_linear(v, SEG_FS, 0x2000, 1, ACCESS_READ), 0x1000);
}

static void test_alignment(void **state)
{
	struct soft_vcpu *v = fixture->v;

	v->mode |= MODE_ALIGN;
	ASSERT_ENDS(mem_read(v, SEG_DS, 0x1004, 4));
	ASSERT_RAISES(EXC_AC, 0, mem_read(v, SEG_DS, 0x1002, 4));
	ASSERT_RAISES(EXC_AC, 0, mem_write(v, SEG_DS, 0x1001, 2, 0));
	ASSERT_ENDS(mem_write(v, SEG_DS, 0x1001, 1, 0));
}

/* Implicit supervisor accesses ignore AC and CPL: SMAP always applies. */
static void test_sys(void **state)
{
	struct soft_vcpu *v = fixture->v;

	fixture_paging();
	v->cr4 |= CR4_SMAP;
	fixture_map(LINEAR, PAGE, P | W | U);
	fixture_map(LINEAR + 0x1000, PAGE, P | W);
	v->mmu_index = MMU_USER;
	ASSERT_RAISES(EXC_PF, PF_P, sys_read(v, LINEAR, 8));
	ASSERT_ENDS(sys_write(v, LINEAR + 0x1008, 4, 0x12345678));
	assert_int_equal(sys_read(v, LINEAR + 0x1008, 2), 0x5678);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_empty),
	    T(test_fill),
	    T(test_read_only_page),
	    T(test_not_plain),
	    T(test_canonical),
	    T(test_flush_global),
	    T(test_flush_changing_slot),
	    T(test_flush_page),
	    T(test_flush_large),
	    T(test_protect_host),
	    T(test_watchpoint),
	    T(test_fetch),
	    T(test_jump_cache),
	    T(test_contexts),
	    T(test_invalid_while_away),
	    T(test_large_while_away),
	    T(test_context_turnover),
	    T(test_wp),
	    T(test_cross_page),
	    T(test_write_to_code),
	    T(test_segments),
	    T(test_segment_base),
	    T(test_alignment),
	    T(test_sys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
