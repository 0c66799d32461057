/* Flat images in the three modes, and at the edges of memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "boot_images.h"

static struct loaded load_flat(const struct bytes *image, enum boot_flat_mode mode, u64 memory)
{
	return load_image(image, (struct boot_image_request){.flat = true, .flat_mode = mode},
			  memory);
}

static void assert_all_zero(struct loaded *l, u64 from, u64 to)
{
	const u8 *at = guest(l, from, to - from);
	for (u64 i = 0; i < to - from; i++)
		if (at[i])
			fail_msg("byte %#llx is %#x", (unsigned long long)(from + i), at[i]);
}

static void test_real(void **state)
{
	struct bytes image = {.at = (u8 *)"\xb0\x41\xe6\xf1\xf4", .size = 5};
	struct loaded l = load_flat(&image, BOOT_FLAT_REAL, MIB);
	const struct kvm_sregs *s = &l.state.sregs;
	assert_int_equal(l.ret, 0);
	assert_memory_equal(guest(&l, 0, 5), image.at, 5);
	assert_all_zero(&l, 5, MIB); /* not even ACPI tables */
	assert_int_equal(l.state.regs.rip, 0);
	assert_int_equal(l.state.regs.rsp, 0);
	assert_int_equal(l.state.regs.rflags, 2);
	assert_int_equal(s->cr0 & 1, 0);
	const struct kvm_segment *segments[] = {&s->cs, &s->ds, &s->es, &s->fs, &s->gs, &s->ss};
	for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
		assert_int_equal(segments[i]->base, 0);
		assert_int_equal(segments[i]->selector, 0);
		assert_int_equal(segments[i]->limit, 0xffff);
		assert_int_equal(segments[i]->present, 1);
	}
	unload(&l);
}

static void test_protected(void **state)
{
	struct bytes image = {.at = (u8 *)"\xf4", .size = 1};
	struct loaded l = load_flat(&image, BOOT_FLAT_PROTECTED, 4 * MIB);
	const struct kvm_sregs *s = &l.state.sregs;
	assert_int_equal(l.ret, 0);
	assert_int_equal(s->cr0 & 0x80000001, 1);
	assert_int_equal(s->cs.db, 1);
	assert_int_equal(l.state.regs.rip, 0);
	assert_int_equal(l.state.regs.rsp, 4 * MIB - 32768);
	assert_int_equal(s->gdt.base, 4 * MIB - 32768);
	const u64 *gdt = guest(&l, s->gdt.base, 32);
	assert_int_equal(gdt[2], 0x00cf9b000000ffff);
	assert_int_equal(gdt[3], 0x00cf93000000ffff);
	assert_all_zero(&l, 1, s->gdt.base);
	unload(&l);
}

static void test_long(void **state)
{
	struct bytes image = {.at = (u8 *)"\xf4", .size = 1};
	struct loaded l = load_flat(&image, BOOT_FLAT_LONG, 5ull << 30);
	const struct kvm_sregs *s = &l.state.sregs;
	const u64 top = 3ull << 30;
	assert_int_equal(l.ret, 0);
	assert_int_equal(s->efer, 0x500);
	assert_int_equal(s->cs.l, 1);
	assert_int_equal(s->cr3, top - 24576);
	assert_int_equal(l.state.regs.rsp, top - 32768);
	const u64 *pml4 = guest(&l, s->cr3, 4096);
	const u64 *pdpt = guest(&l, s->cr3 + 4096, 4096);
	const u64 *directories = guest(&l, s->cr3 + 8192, 4 * 4096);
	assert_int_equal(pml4[0], (s->cr3 + 4096) | 0x23);
	assert_int_equal(pml4[1], 0);
	for (u64 i = 0; i < 512; i++)
		assert_int_equal(pdpt[i], i < 4 ? (s->cr3 + 8192 + i * 4096) | 0x23 : 0);
	for (u64 i = 0; i < 4 * 512; i++)
		assert_int_equal(directories[i], i * 2 * MIB | 0xe3);
	unload(&l);
}

/* The whole of memory in real mode; up to the tables in the others; not a byte more. */
static void test_size_limits(void **state)
{
	static const struct {
		enum boot_flat_mode mode;
		u64 size;
		int ret;
	} rows[] = {
	    {BOOT_FLAT_REAL, 2 * MIB, 0},
	    {BOOT_FLAT_REAL, 2 * MIB + 1, -ENOMEM},
	    {BOOT_FLAT_PROTECTED, 2 * MIB - 32768, 0},
	    {BOOT_FLAT_PROTECTED, 2 * MIB - 32767, -ENOEXEC},
	    {BOOT_FLAT_LONG, 2 * MIB - 32768, 0},
	    {BOOT_FLAT_LONG, 2 * MIB - 32767, -ENOEXEC},
	};
	u8 *bytes = malloc(3 * MIB);
	assert_non_null(bytes);
	memset(bytes, 0x90, 3 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bytes image = {.at = bytes, .size = rows[i].size};
		struct loaded l = load_flat(&image, rows[i].mode, 2 * MIB);
		assert_int_equal(l.ret, rows[i].ret);
		if (l.ret == -ENOMEM)
			assert_non_null(strstr(l.err.text, "3 MiB at least"));
		if (!l.ret)
			assert_int_equal(*(u8 *)guest(&l, rows[i].size - 1, 1), 0x90);
		unload(&l);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_real),
	    cmocka_unit_test(test_protected),
	    cmocka_unit_test(test_long),
	    cmocka_unit_test(test_size_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
