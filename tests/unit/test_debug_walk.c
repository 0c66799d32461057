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
	    T(dump_of_nonsense),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
