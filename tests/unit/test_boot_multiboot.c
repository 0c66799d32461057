/* Multiboot 1: ELF and by addresses, what the kernel is told, headers that lie. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "boot_images.h"

static const struct boot_image_request none;

/* Words of the information structure (specification 0.6.96, section 3.3). */
enum {
	FLAGS = 0,
	MEM_LOWER = 1,
	MEM_UPPER = 2,
	CMDLINE = 4,
	MODS_COUNT = 5,
	MODS_ADDR = 6,
	MMAP_LENGTH = 11,
	MMAP_ADDR = 12,
	LOADER_NAME = 16
};

static const u32 *info(struct loaded *l)
{
	return guest(l, l->state.regs.rbx, 88);
}

static void assert_started(struct loaded *l, u32 entry)
{
	const struct kvm_sregs *s = &l->state.sregs;
	if (l->ret)
		fail_msg("%s", l->err.text);
	assert_int_equal(l->state.regs.rip, entry);
	assert_int_equal(l->state.regs.rax, 0x2badb002);
	assert_int_equal(l->state.regs.rflags, 2);
	assert_int_equal(s->cr0 & 0x80000001, 1);
	assert_int_equal(s->cs.db, 1);
	assert_int_equal(s->cs.base, 0);
	assert_int_equal(s->cs.limit, 0xffffffff);
	assert_int_equal(s->ds.limit, 0xffffffff);
	assert_int_equal(s->ss.base, 0);
}

static void test_elf(void **state)
{
	struct bytes image = make_multiboot_elf(3);
	struct loaded l =
	    load_image(&image, (struct boot_image_request){.cmdline = "a b"}, 64 * MIB);
	assert_started(&l, MIB + 12);
	assert_int_equal(*(u32 *)guest(&l, MIB, 4), 0x1badb002);
	assert_int_equal(*(u32 *)guest(&l, MIB + 0x1fc, 4), 0xabcdef01);
	const u32 *w = info(&l);
	assert_int_equal(w[FLAGS] & 0x24d, 0x24d);
	assert_int_equal(w[MEM_LOWER], 639);
	assert_int_equal(w[MEM_UPPER], 63 * 1024);
	assert_int_equal(w[MODS_COUNT], 0);
	assert_string_equal(guest(&l, w[LOADER_NAME], 6), "Guise");
	/* Its first word is the image's path. */
	const char *line = guest(&l, w[CMDLINE], 64);
	const char *space = strchr(line, ' ');
	assert_non_null(space);
	assert_memory_equal(line, "/proc/self/fd/", 14);
	assert_string_equal(space + 1, "a b");
	unload(&l);
	bytes_free(&image);
}

static void test_memory_map(void **state)
{
	struct bytes image = make_multiboot_elf(3);
	struct loaded l = load_image(&image, none, 4ull << 30);
	assert_started(&l, MIB + 12);
	static const struct {
		u32 size;
		u64 addr, length;
		u32 type;
	} __attribute__((packed)) expected[] = {
	    {20, 0, 0x9fc00, 1},	  {20, 0x9fc00, 0x400, 2},
	    {20, 0xe0000, 0x20000, 2},	  {20, MIB, (3ull << 30) - MIB, 1},
	    {20, 4ull << 30, 1 << 30, 1},
	};
	const u32 *w = info(&l);
	assert_int_equal(w[MMAP_LENGTH], sizeof(expected));
	assert_memory_equal(guest(&l, w[MMAP_ADDR], sizeof(expected)), expected, sizeof(expected));
	assert_int_equal(w[MEM_UPPER], (3u << 20) - 1024);
	unload(&l);
	bytes_free(&image);
}

static void test_module(void **state)
{
	struct bytes image = make_multiboot_elf(3);
	struct test_file module = file_of("NR_CPUS=1\n", 10);
	struct loaded l =
	    load_image(&image, (struct boot_image_request){.initrd_path = module.path}, 64 * MIB);
	assert_started(&l, MIB + 12);
	const u32 *w = info(&l);
	assert_int_equal(w[MODS_COUNT], 1);
	const u32 *m = guest(&l, w[MODS_ADDR], 16);
	assert_int_equal(m[0] % 4096, 0);
	assert_true(m[0] >= MIB + 0x3000); /* behind the kernel's bss */
	assert_int_equal(m[1] - m[0], 10);
	assert_memory_equal(guest(&l, m[0], 10), "NR_CPUS=1\n", 10);
	assert_string_equal(guest(&l, m[2], 32), module.path);
	unload(&l);
	file_close(&module);
	bytes_free(&image);
}

static void test_addresses(void **state)
{
	struct bytes image = make_multiboot_raw();
	struct loaded l = load_image(&image, none, 64 * MIB);
	assert_started(&l, 2 * MIB + 0x80);
	assert_int_equal(*(u32 *)guest(&l, 2 * MIB, 4), 0x11223344);
	assert_int_equal(*(u32 *)guest(&l, 2 * MIB + 0x40, 4), 0x1badb002);
	assert_int_equal(*(u32 *)guest(&l, 2 * MIB + 0xffc, 4), 0x55667788);
	assert_int_equal(*(u32 *)guest(&l, 2 * MIB + 0x1000, 4), 0);
	unload(&l);
	bytes_free(&image);
}

/* An image in low memory is not written over by what the loader has to say. */
static void test_low_image(void **state)
{
	struct bytes image = make_multiboot_raw();
	const u32 at = 0x1000;
	const u32 addresses[5] = {at + 0x40, at, at + 0x1000, 0x90000, at + 0x80};
	bytes_put(&image, 0x140 + 12, addresses, sizeof(addresses));
	struct loaded l = load_image(&image, none, 64 * MIB);
	assert_started(&l, at + 0x80);
	assert_int_equal(*(u32 *)guest(&l, at, 4), 0x11223344);
	const u32 *w = info(&l);
	assert_true(l.state.regs.rbx >= 0x90000);
	assert_true(w[CMDLINE] >= 0x90000);
	assert_true(l.state.sregs.gdt.base >= 0x90000);
	unload(&l);
	bytes_free(&image);
}

static void expect_error(const struct bytes *image, int ret, const char *says)
{
	struct loaded l = load_image(image, none, 64 * MIB);
	if (l.ret != ret || !strstr(l.err.text, says) || strchr(l.err.text, '\n'))
		fail_msg("expected %d and \"%s\", got %d: %s", ret, says, l.ret, l.err.text);
	unload(&l);
}

static void test_headers_that_lie(void **state)
{
	const u32 at = 2 * MIB;
	const struct {
		u32 word;
		u32 value;
		int ret;
		const char *says;
	} rows[] = {
	    {3, at - 4, -EBADMSG, "contradict"},      /* header before the image */
	    {3, at + 0x1000, -EBADMSG, "contradict"}, /* further in than in the file */
	    {5, at, -EBADMSG, "ends before"},
	    {5, at + 0x1041, -EBADMSG, "truncated"}, /* a byte more than the file has */
	    {6, at + 0xfff, -EBADMSG, "inside its data"},
	    {6, UINT32_MAX, -ENOEXEC, "no memory"},
	    {7, at - 1, -ENOEXEC, "entry point outside"},
	    {7, at + 0x1000, -ENOEXEC, "entry point outside"},
	    {6, 100 * MIB, -ENOMEM, "100 MiB"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bytes image = make_multiboot_raw();
		image.size = 0x1140;
		bytes_put32(&image, 0x140 + 4 * rows[i].word, rows[i].value);
		expect_error(&image, rows[i].ret, rows[i].says);
		bytes_free(&image);
	}
}

static void test_demands(void **state)
{
	struct bytes image = make_multiboot_elf(4); /* a video mode */
	expect_error(&image, -ENOEXEC, "demands Multiboot features (0x4)");
	bytes_free(&image);
	image = make_multiboot_elf(0xfff8);
	expect_error(&image, -ENOEXEC, "(0xfff8)");
	bytes_free(&image);
}

/* The header must lie whole within the first 8 KiB, at a multiple of 4, and add up to 0. */
static void test_header_search(void **state)
{
	const u32 header[3] = {0x1badb002, 3, 0u - 0x1badb002 - 3};
	static const struct {
		u32 offset;
		bool found;
	} rows[] = {{0x1004, true}, {8180, true}, {8184, false}, {0x1002, false}};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bytes image = make_multiboot_elf(3);
		bytes_put32(&image, 0x1000, 0);
		bytes_put(&image, rows[i].offset, header, sizeof(header));
		bytes_put32(&image, 9000, 0);
		struct loaded l = load_image(&image, none, 64 * MIB);
		assert_int_equal(l.ret, rows[i].found ? 0 : -ENOEXEC);
		unload(&l);
		bytes_free(&image);
	}
	struct bytes image = make_multiboot_elf(3);
	bytes_put32(&image, 0x1008, 0);
	expect_error(&image, -ENOEXEC, "no way to start it");
	bytes_free(&image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_elf),	      cmocka_unit_test(test_memory_map),
	    cmocka_unit_test(test_module),    cmocka_unit_test(test_addresses),
	    cmocka_unit_test(test_low_image), cmocka_unit_test(test_headers_that_lie),
	    cmocka_unit_test(test_demands),   cmocka_unit_test(test_header_search),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
