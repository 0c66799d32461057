/* The diagnostic page walk and the dump, on good tables and on nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "debug/dump.h"
#include "debug/walk.h"
#include "memory/memory.h"

#define CR0_PAGING   0x80000001
#define CR4_PSE	     0x10
#define CR4_PAE	     0x20
#define CR4_LA57     0x1000
#define EFER_LONG    0x500
#define MEMORY_BYTES (4ull << 20)

static struct guest_memory memory;

static int setup(void **state)
{
	struct error err;
	return guest_memory_create(&memory, MEMORY_BYTES, &err);
}

static int teardown(void **state)
{
	guest_memory_destroy(&memory);
	return 0;
}

static void put(u64 gpa, u64 entry, u32 bytes)
{
	assert_int_equal(guest_memory_write(&memory, gpa, &entry, bytes), 0);
}

static struct walk walk(u64 cr3, u64 cr4, u64 efer, u64 linear)
{
	struct kvm_sregs sregs = {.cr0 = CR0_PAGING, .cr3 = cr3, .cr4 = cr4, .efer = efer};
	struct walk result;
	walk_linear(&memory, &sregs, 0, linear, &result);
	return result;
}

static void expect(struct walk w, u32 steps, u64 gpa, u64 size)
{
	assert_true(w.mapped);
	assert_int_equal(w.count, steps);
	assert_int_equal(w.gpa, gpa);
	assert_int_equal(w.page_size, size);
}

static void no_paging(void **state)
{
	struct kvm_sregs sregs = {.cr0 = 1};
	struct walk w;
	walk_linear(&memory, &sregs, 0, 0x123456, &w);
	assert_false(w.paging);
	assert_int_equal(w.gpa, 0x123456);
	assert_int_equal(w.physical, 0x123456);
}

static void two_levels(void **state)
{
	put(0x1000 + 1 * 4, 0x2000 | 7, 4);
	put(0x2000 + 2 * 4, 0x5000 | 3, 4);
	put(0x1000 + 2 * 4, 0x00800000 | 0x2000 | 0x83, 4); /* 4 MiB, bit 32 of the address set */
	expect(walk(0x1000, 0, 0, 0x402abc), 2, 0x5abc, 4096);
	expect(walk(0x1000, CR4_PSE, 0, 0x812345), 1, 0x100812345, 4ull << 20);
	assert_false(walk(0x1000, 0, 0, 0x812345).mapped);
}

static void pae(void **state)
{
	put(0x1020 + 3 * 8, 0x2000 | 1, 8);
	put(0x2000 + 1 * 8, 0x3000 | 1, 8);
	put(0x3000 + 5 * 8, 0x7000 | 1, 8);
	put(0x2000 + 2 * 8, 0x200000 | 0x81, 8);
	expect(walk(0x1020, CR4_PAE, 0, 0xc0205678), 3, 0x7678, 4096);
	expect(walk(0x1020, CR4_PAE, 0, 0xc0412345), 2, 0x212345, 2ull << 20);
}

static void four_and_five_levels(void **state)
{
	put(0x1000 + 511 * 8, 0x2000 | 3, 8);
	put(0x2000 + 510 * 8, 0x3000 | 3, 8);
	put(0x2000 + 511 * 8, 0x40000000 | 0x83, 8);
	put(0x3000, 0x4000 | 3, 8);
	put(0x4000 + 8, (1ull << 63) | 0x6000 | 3, 8);
	put(0x8000 + 511 * 8, 0x1000 | 3, 8);
	expect(walk(0x1000, CR4_PAE, EFER_LONG, 0xffffffff80001234), 4, 0x6234, 4096);
	expect(walk(0x1000, CR4_PAE, EFER_LONG, 0xffffffffc0001234), 2, 0x40001234, 1ull << 30);
	expect(walk(0x8000, CR4_PAE | CR4_LA57, EFER_LONG, 0xffffffff80001234), 5, 0x6234, 4096);
}

static void tables_outside_of_memory(void **state)
{
	struct walk w = walk(0x7fffffff000, CR4_PAE, EFER_LONG, 0);
	assert_false(w.mapped);
	assert_int_equal(w.count, 1);
	assert_false(w.steps[0].readable);
}

/* Two dimensions: the guest's tables at guest-physical addresses that EPT moves up by 1 MiB. */
static void extended_page_tables(void **state)
{
	const u64 eptp = 0x100000 | 0x1e, moved = 0x200000;
	struct kvm_sregs sregs = {
	    .cr0 = CR0_PAGING, .cr3 = 0x1000, .cr4 = CR4_PAE, .efer = EFER_LONG};
	struct walk_ept e;
	struct walk w;

	put(0x100000, 0x101000 | 7, 8);
	put(0x101000, 0x102000 | 7, 8);
	put(0x102000, 0x103000 | 7, 8);
	put(0x102008, 0x200000 | 0xb7, 8); /* 2 MiB */
	for (u32 n = 0; n < 6; n++)
		put(0x103000 + n * 8, (moved + n * 4096) | 0x37, 8);
	put(0x103000 + 7 * 8, 0x30, 8); /* a memory type, but no access: not present */
	put(moved + 0x1000, 0x2000 | 3, 8);
	put(moved + 0x2000, 0x3000 | 3, 8);
	put(moved + 0x3000, 0x4000 | 3, 8);
	put(moved + 0x4000, 0x5000 | 3, 8);
	put(moved + 0x4000 + 8, 0x7000 | 3, 8);
	put(moved + 0x3000 + 8, 0x8000 | 3, 8);

	walk_linear(&memory, &sregs, eptp, 0xabc, &w);
	expect(w, 4, 0x5abc, 4096);
	assert_int_equal(w.physical, moved + 0x5abc);
	assert_int_equal(w.steps[3].entry_gpa, 0x4000);
	assert_int_equal(w.steps[3].physical, moved + 0x4000);
	assert_int_equal(w.ept.count, 4);
	assert_int_equal(w.ept.gpa, 0x5abc);

	walk_linear(&memory, &sregs, eptp, 0x1abc, &w); /* a page that EPT does not have */
	assert_true(w.translated);
	assert_false(w.mapped);
	assert_int_equal(w.gpa, 0x7abc);
	assert_int_equal(w.ept.gpa, 0x7abc);

	walk_linear(&memory, &sregs, eptp, 0x200000, &w); /* a table that it does not have */
	assert_false(w.translated);
	assert_int_equal(w.count, 4);
	assert_false(w.steps[3].readable);
	assert_int_equal(w.ept.gpa, 0x8000);

	sregs.cr0 = 1;
	walk_linear(&memory, &sregs, eptp, 0x212345, &w);
	assert_true(w.mapped && !w.paging);
	assert_int_equal(w.physical, 0x212345);
	assert_int_equal(w.ept.page_size, 2ull << 20);

	walk_ept(&memory, 0x7ffffffff000, 0, &e);
	assert_false(e.mapped || e.steps[0].readable);
}

static const char *dumped(const struct kvm_sregs *sregs, u64 linear)
{
	static char text[4096];
	FILE *out = fmemopen(text, sizeof(text), "w");
	struct dump dump = {.sregs = *sregs, .memory = &memory, .eptp = 0x10001e};

	dump_walk(out, &dump, linear);
	fclose(out);
	return text;
}

static void dump_of_ept(void **state)
{
	struct kvm_sregs sregs = {
	    .cr0 = CR0_PAGING, .cr3 = 0x1000, .cr4 = CR4_PAE, .efer = EFER_LONG};

	extended_page_tables(state);
	assert_string_equal(dumped(&sregs, 0xabc),
			    "  page walk of abc:\n"
			    "    PML4 [000000001000 at 000000201000] 0000000000002003  P W\n"
			    "    PDPT [000000002000 at 000000202000] 0000000000003003  P W\n"
			    "    PD   [000000003000 at 000000203000] 0000000000004003  P W\n"
			    "    PT   [000000004000 at 000000204000] 0000000000005003  P W\n"
			    "    guest-physical 5abc\n"
			    "  EPT walk of guest-physical 5abc:\n"
			    "    PML4 [000000100000] 0000000000101007  R W X\n"
			    "    PDPT [000000101000] 0000000000102007  R W X\n"
			    "    PD   [000000102000] 0000000000103007  R W X\n"
			    "    PT   [000000103028] 0000000000205037  R W X\n"
			    "    physical 205abc\n");
	assert_non_null(strstr(dumped(&sregs, 0x200000), "not in RAM\n    not mapped\n"
							 "  EPT walk of guest-physical 8000:\n"));
	assert_non_null(strstr(dumped(&sregs, 0x1abc), "    guest-physical 7abc\n"));
	assert_non_null(strstr(dumped(&sregs, 0x1abc), "  not present\n    not mapped\n"));
	sregs.cr0 = 1;
	assert_non_null(strstr(dumped(&sregs, 5), "paging is off; 5 is at guest-physical 5\n"));
	assert_non_null(strstr(dumped(&sregs, 5), "    physical 200005\n"));
}

static void dump_of_nonsense(void **state)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	u64 self = 0x1000 | 0x7; /* a table that points to itself, at every index */
	for (u32 i = 0; i < 512; i++)
		put(0x1000 + i * 8, self, 8);
	static const u64 rips[] = {0, 0x1000, UINT64_MAX, 0x800000000000, 0xfffffffffffff000};
	for (size_t i = 0; i < ARRAY_SIZE(rips); i++) {
		struct dump dump = {
		    .what = "nonsense",
		    .exit_reason = i ? UINT32_MAX : KVM_EXIT_SHUTDOWN,
		    .regs = {.rip = rips[i], .rsp = rips[i]},
		    .sregs = {.cr0 = CR0_PAGING,
			      .cr3 = 0x1000,
			      .cr4 = CR4_PAE,
			      .efer = EFER_LONG,
			      .cs = {.l = 1}},
		    .memory = &memory,
		};
		dump_print(out, &dump);
		dump.sregs.cs.l = 0; /* and with segments */
		dump.sregs.efer = 0;
		dump.sregs.cr4 = i & 1 ? CR4_PAE : 0;
		dump_print(out, &dump);
	}
	fclose(out);
	assert_non_null(strstr(text, "exit SHUTDOWN"));
	assert_non_null(strstr(text, "exit UNKNOWN"));
	assert_non_null(strstr(text, "<07>")); /* the byte at rip 0x1000 of the table */
	assert_non_null(strstr(text, "PML4 [000000001000]"));
	free(text);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(no_paging),
	    T(two_levels),
	    T(pae),
	    T(four_and_five_levels),
	    T(tables_outside_of_memory),
	    T(extended_page_tables),
	    T(dump_of_ept),
	    T(dump_of_nonsense),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
