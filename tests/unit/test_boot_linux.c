/* bzImages in every packing, whole, cut short and damaged; the zero page; the initrd. */
#include <asm/bootparam.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "boot_images.h"

#define HEADER_FIELD(field) (0x1f1 + offsetof(struct setup_header, field))

static struct bytes make(enum packing packing)
{
	struct bytes kernel = make_vmlinux(0);
	struct bytes image = make_bzimage(packing, &kernel);
	bytes_free(&kernel);
	return image;
}

static struct boot_params *zero_page(struct loaded *l)
{
	return guest(l, l->state.regs.rsi, sizeof(struct boot_params));
}

static void assert_kernel_in_place(struct loaded *l)
{
	const u8 *text = guest(l, KERNEL_AT, KERNEL_TEXT);
	for (u64 i = 0; i < KERNEL_TEXT; i++)
		if (text[i] != kernel_text(i))
			fail_msg("text differs at %#llx", (unsigned long long)i);
	const u8 *data = guest(l, KERNEL_AT + MIB, 2 * KERNEL_DATA);
	for (u64 i = 0; i < 2 * KERNEL_DATA; i++)
		if (data[i] != (i < KERNEL_DATA ? 0xda : 0))
			fail_msg("data differs at %#llx", (unsigned long long)i);
}

/** Follows the tables from CR3: where linear @address is. */
static u64 walk(struct loaded *l, u64 address)
{
	u64 table = l->state.sregs.cr3;
	for (int level = 3; level >= 0; level--) {
		u64 *entries = guest(l, table, 4096);
		u64 entry = entries[address >> (12 + 9 * level) & 511];
		assert_int_equal(entry & 1, 1);
		if (level == 0 || entry & 0x80) {
			u64 mask = (1ull << (12 + 9 * level)) - 1;
			return (entry & 0xffffffffff000 & ~mask) | (address & mask);
		}
		table = entry & 0xffffffffff000;
	}
	return 0;
}

/** What the 64-bit boot protocol asks of processor and tables (boot.rst). */
static void assert_long_mode(struct loaded *l)
{
	const struct kvm_sregs *s = &l->state.sregs;
	assert_int_equal(s->cr0 & 0x80000001, 0x80000001);
	assert_int_equal(s->cr4 & 0x20, 0x20);
	assert_int_equal(s->efer & 0x500, 0x500);
	assert_int_equal(s->cs.selector, 0x10);
	assert_int_equal(s->cs.l, 1);
	assert_int_equal(s->cs.db, 0);
	assert_int_equal(s->ds.selector, 0x18);
	assert_int_equal(s->ss.selector, 0x18);
	assert_int_equal(s->es.selector, 0x18);
	assert_int_equal(l->state.regs.rflags, 2);
	u64 *gdt = guest(l, s->gdt.base, s->gdt.limit + 1);
	assert_int_equal(gdt[2], 0x00af9b000000ffff);
	assert_int_equal(gdt[3], 0x00cf93000000ffff);
	static const u64 probes[] = {0, 0x1000, 0xfffff, KERNEL_AT, 0x12345678, 0xffffffff};
	for (size_t i = 0; i < ARRAY_SIZE(probes); i++)
		assert_int_equal(walk(l, probes[i]), probes[i]);
}

static void test_every_packing(void **state)
{
	for (enum packing packing = 0; packing < PACKINGS; packing++) {
		struct bytes image = make(packing);
		struct loaded l = load_image(&image, (struct boot_image_request){0}, 64 * MIB);
		if (l.ret)
			fail_msg("packing %d: %s", packing, l.err.text);
		assert_int_equal(l.state.regs.rip, KERNEL_ENTRY);
		assert_kernel_in_place(&l);
		assert_long_mode(&l);
		unload(&l);
		bytes_free(&image);
	}
}

/* LZ4's legacy frame is cut into blocks of 8 MiB. */
static void test_lz4_blocks(void **state)
{
	struct bytes kernel = make_vmlinux(0);
	const u64 big = 17 * MIB;
	bytes_put(&kernel, big, "end", 3);
	struct bytes image = make_bzimage(PACK_LZ4, &kernel);
	struct loaded l = load_image(&image, (struct boot_image_request){0}, 64 * MIB);
	assert_int_equal(l.ret, 0);
	assert_kernel_in_place(&l);
	unload(&l);
	bytes_free(&image);
	bytes_free(&kernel);
}

static void test_unknown_packing_is_left_to_the_guest(void **state)
{
	struct bytes image = make(PACK_UNKNOWN);
	struct loaded l = load_image(&image, (struct boot_image_request){0}, 64 * MIB);
	assert_int_equal(l.ret, 0);
	assert_int_equal(l.state.regs.rip, KERNEL_AT + 0x200);
	assert_string_equal(guest(&l, KERNEL_AT + 0x200, 8), "entry64");
	assert_memory_equal(guest(&l, KERNEL_AT, image.size - BZ_CODE), image.at + BZ_CODE,
			    image.size - BZ_CODE);
	assert_long_mode(&l);
	unload(&l);
	bytes_free(&image);
}

static void test_zero_page(void **state)
{
	struct bytes image = make(PACK_GZIP);
	struct boot_image_request request = {.cmdline = "console=ttyS0 quiet", .cpu_count = 2};
	struct loaded l = load_image(&image, request, 64 * MIB);
	assert_int_equal(l.ret, 0);
	struct boot_params *p = zero_page(&l);
	assert_int_equal(l.state.regs.rsi % 4096, 0);
	assert_int_equal(p->hdr.type_of_loader, 0xff);
	assert_int_equal(p->hdr.loadflags & KASLR_FLAG, 0);
	assert_int_equal(p->sentinel, 0);
	assert_memory_equal(guest(&l, p->acpi_rsdp_addr, 8), "RSD PTR ", 8);
	assert_string_equal(guest(&l, p->hdr.cmd_line_ptr, 20), "console=ttyS0 quiet");
	assert_int_equal(p->hdr.ramdisk_size, 0);
	assert_int_equal(p->hdr.ramdisk_image, 0);
	/* The header is the file's up to where its jump points, and not a byte of what follows. */
	assert_int_equal(p->hdr.version, 0x20f);
	assert_int_equal(p->hdr.kernel_info_offset, 0);
	/* BIOS data area: EBDA, KiB of low memory. */
	assert_int_equal(*(u16 *)guest(&l, 0x40e, 2), 0x9fc0);
	assert_int_equal(*(u16 *)guest(&l, 0x413, 2), 639);
	unload(&l);
	bytes_free(&image);
}

static void test_memory_map(void **state)
{
	struct bytes image = make(PACK_GZIP);
	/* 5 GiB are mapped, not touched. */
	struct loaded l = load_image(&image, (struct boot_image_request){0}, 5ull << 30);
	assert_int_equal(l.ret, 0);
	struct boot_params *p = zero_page(&l);
	static const struct boot_e820_entry expected[] = {
	    {0, 0x9fc00, 1},
	    {0x9fc00, 0x400, 2},
	    {0xe0000, 0x20000, 2},
	    {MIB, (3ull << 30) - MIB, 1},
	    {4ull << 30, 2ull << 30, 1},
	};
	assert_int_equal(p->e820_entries, ARRAY_SIZE(expected));
	assert_memory_equal(p->e820_table, expected, sizeof(expected));
	unload(&l);
	bytes_free(&image);
}

static void test_initrd(void **state)
{
	struct bytes image = make(PACK_GZIP), content = {0};
	bytes_put(&content, 0, "first", 5);
	bytes_put(&content, 3 * MIB + 1, "last", 4);
	struct test_file file = file_of(content.at, content.size);
	struct boot_image_request request = {.initrd_path = file.path};
	struct loaded l = load_image(&image, request, 64 * MIB);
	assert_int_equal(l.ret, 0);
	struct boot_params *p = zero_page(&l);
	assert_int_equal(p->hdr.ramdisk_size, content.size);
	assert_int_equal(p->hdr.ramdisk_image % 4096, 0);
	assert_int_equal(p->hdr.ramdisk_image, align_down(64 * MIB - content.size, 4096));
	assert_memory_equal(guest(&l, p->hdr.ramdisk_image, content.size), content.at,
			    content.size);
	unload(&l);

	/* Below what the kernel can reach. */
	bytes_put32(&image, HEADER_FIELD(initrd_addr_max), 40 * MIB - 1);
	l = load_image(&image, request, 64 * MIB);
	assert_int_equal(l.ret, 0);
	assert_int_equal(zero_page(&l)->hdr.ramdisk_image,
			 align_down(40 * MIB - content.size, 4096));
	unload(&l);
	file_close(&file);
	bytes_free(&content);
	bytes_free(&image);
}

/* A kernel that takes it anywhere gets it above 4 GiB when there is no room below. */
static void test_initrd_above_4g(void **state)
{
	struct bytes image = make(PACK_GZIP);
	struct test_file file = file_of("initrd", 6);
	struct boot_image_request request = {.initrd_path = file.path};
	bytes_put(&image, HEADER_FIELD(xloadflags),
		  &(u16){XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G}, 2);
	struct loaded l = load_image(&image, request, 4ull << 30);
	assert_int_equal(l.ret, 0);
	struct boot_params *p = zero_page(&l);
	u64 gpa = p->hdr.ramdisk_image | (u64)p->ext_ramdisk_image << 32;
	assert_int_equal(gpa, (5ull << 30) - 4096);
	assert_memory_equal(guest(&l, gpa, 6), "initrd", 6);
	unload(&l);
	file_close(&file);
	bytes_free(&image);
}

static void expect_error(const struct bytes *image, struct boot_image_request request,
			 u64 memory_size, int ret, const char *says)
{
	struct loaded l = load_image(image, request, memory_size);
	if (l.ret != ret || !strstr(l.err.text, says) || strchr(l.err.text, '\n'))
		fail_msg("expected %d and \"%s\", got %d: %s", ret, says, l.ret, l.err.text);
	unload(&l);
}

static void test_initrd_that_does_not_fit(void **state)
{
	struct bytes image = make(PACK_GZIP);
	u8 *zeroes = calloc(1, 60 * MIB);
	struct test_file file = file_of(zeroes, 60 * MIB), empty = file_of("", 0);
	struct boot_image_request request = {.initrd_path = file.path};
	/* 16 MiB, the kernel's 4, the initrd's 60. */
	expect_error(&image, request, 64 * MIB, -ENOMEM, "needs 80 MiB");
	struct loaded l = load_image(&image, request, 80 * MIB);
	assert_int_equal(l.ret, 0);
	unload(&l);
	bytes_put32(&image, HEADER_FIELD(initrd_addr_max), 50 * MIB - 1);
	expect_error(&image, request, 256 * MIB, -ENOMEM, "does not fit below 0x3200000");

	request.initrd_path = empty.path;
	expect_error(&image, request, 64 * MIB, -ENOEXEC, "is empty");
	request.initrd_path = "/nonexistent/initrd";
	expect_error(&image, request, 64 * MIB, -ENOENT, "/nonexistent/initrd");
	request.initrd_path = "/";
	expect_error(&image, request, 64 * MIB, -EISDIR, "is a directory");
	file_close(&file);
	file_close(&empty);
	free(zeroes);
	bytes_free(&image);
}

static void test_memory_too_small(void **state)
{
	struct bytes image = make(PACK_GZIP);
	expect_error(&image, (struct boot_image_request){0}, 8 * MIB, -ENOMEM, "20 MiB at least");
	struct loaded l = load_image(&image, (struct boot_image_request){0}, 20 * MIB);
	assert_int_equal(l.ret, 0);
	unload(&l);
	bytes_free(&image);
}

static void test_long_command_line(void **state)
{
	struct bytes image = make(PACK_GZIP);
	char line[2049];
	memset(line, 'x', sizeof(line));
	line[2048] = 0;
	struct boot_image_request request = {.cmdline = line};
	expect_error(&image, request, 64 * MIB, -E2BIG,
		     "2048 characters long; this kernel takes 2047");
	line[2047] = 0;
	struct loaded l = load_image(&image, request, 64 * MIB);
	assert_int_equal(l.ret, 0);
	assert_string_equal(guest(&l, zero_page(&l)->hdr.cmd_line_ptr, 2048), line);
	unload(&l);
	bytes_free(&image);
}

static void test_header_checks(void **state)
{
	const struct boot_image_request none = {0};
	const struct {
		size_t offset;
		u32 value;
		u32 size;
		int ret;
		const char *says;
	} rows[] = {
	    {HEADER_FIELD(version), 0x20b, 2, -ENOEXEC, "boot protocol 2.11"},
	    {HEADER_FIELD(xloadflags), 0, 2, -ENOEXEC, "64-bit entry point"},
	    {HEADER_FIELD(loadflags), 0, 1, -ENOEXEC, "64-bit entry point"},
	    {HEADER_FIELD(syssize), 0, 4, -EBADMSG, "truncated"},
	    {HEADER_FIELD(syssize), UINT32_MAX, 4, -EBADMSG, "truncated"},
	    {HEADER_FIELD(setup_sects), 0xff, 1, -EBADMSG, "truncated"},
	    {HEADER_FIELD(payload_offset), UINT32_MAX, 4, -EBADMSG, "payload is not inside"},
	    {HEADER_FIELD(payload_length), UINT32_MAX, 4, -EBADMSG, "payload is not inside"},
	    {HEADER_FIELD(init_size), UINT32_MAX, 4, -ENOEXEC, "no memory"},
	    {HEADER_FIELD(init_size), 200 * MIB, 4, -ENOMEM, "216 MiB"},
	    {HEADER_FIELD(init_size), MIB / 2, 4, -EBADMSG, "segment outside"},
	    {HEADER_FIELD(pref_address), 0, 4, -ENOEXEC, "overlaps"},
	    {HEADER_FIELD(pref_address) + 4, 0xffffffff, 4, -ENOEXEC, "no memory"},
	    {0x1fe, 0, 2, -ENOEXEC, "is no kernel"},
	    {0x202, 0, 4, -ENOEXEC, "is no kernel"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bytes image = make(PACK_GZIP);
		bytes_put(&image, rows[i].offset, &rows[i].value, rows[i].size);
		expect_error(&image, none, 64 * MIB, rows[i].ret, rows[i].says);
		bytes_free(&image);
	}
}

/* Cut anywhere, it is an error, never a start. */
static void test_truncation(void **state)
{
	struct bytes image = make(PACK_GZIP);
	const size_t whole = image.size;
	static const size_t sizes[] = {1,
				       2,
				       0x1f1,
				       0x1fe,
				       0x202,
				       0x206,
				       0x230,
				       0x25c,
				       0x26b,
				       0x26c,
				       0x3ff,
				       0x1000,
				       BZ_CODE - 1,
				       BZ_CODE,
				       BZ_CODE + 0x1ff,
				       BZ_CODE + 0x200,
				       BZ_CODE + 0x2ff,
				       BZ_CODE + 0x300,
				       BZ_CODE + 0x301};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		image.size = sizes[i];
		struct loaded l = load_image(&image, (struct boot_image_request){0}, 64 * MIB);
		assert_true(l.ret == -EBADMSG || l.ret == -ENOEXEC);
		assert_non_null(
		    strstr(l.err.text, sizes[i] < 0x26c ? "is no kernel" : "truncated"));
		unload(&l);
	}
	for (size_t size = whole - 17; size > BZ_CODE; size -= 997) {
		image.size = size;
		expect_error(&image, (struct boot_image_request){0}, 64 * MIB, -EBADMSG,
			     "truncated");
	}
	image.size = whole;
	bytes_free(&image);
}

static void test_damaged_payload(void **state)
{
	for (enum packing packing = 0; packing < PACKINGS; packing++) {
		struct bytes image = make(packing);
		u32 length;
		memcpy(&length, image.at + HEADER_FIELD(payload_length), sizeof(length));
		u8 *payload = image.at + BZ_CODE + BZ_PAYLOAD_OFFSET;
		const struct boot_image_request none = {0};

		/* The size at its end says something else: longer, then shorter. */
		u32 size;
		memcpy(&size, payload + length - 4, sizeof(size));
		bytes_put32(&image, BZ_CODE + BZ_PAYLOAD_OFFSET + length - 4, size + 1);
		expect_error(&image, none, 64 * MIB, -EBADMSG, "payload is damaged");
		bytes_put32(&image, BZ_CODE + BZ_PAYLOAD_OFFSET + length - 4, size - 1);
		expect_error(&image, none, 64 * MIB, -EBADMSG, "payload is damaged");
		bytes_put32(&image, BZ_CODE + BZ_PAYLOAD_OFFSET + length - 4, size);

		/* A stretch in the middle is overwritten. */
		memset(payload + length / 2, 0xff, 64);
		expect_error(&image, none, 64 * MIB, -EBADMSG, "payload");
		bytes_free(&image);

		/* Its second half is missing, its size in place. */
		image = make(packing);
		payload = image.at + BZ_CODE + BZ_PAYLOAD_OFFSET;
		memcpy(payload + length / 2, payload + length - 4, 4);
		bytes_put32(&image, HEADER_FIELD(payload_length), length / 2 + 4);
		expect_error(&image, none, 64 * MIB, -EBADMSG, "payload is damaged");
		bytes_free(&image);
	}
}

/** The checksum as Linux's build has it, over all but the last 4 bytes, which become it. */
static void add_checksum(struct bytes *image)
{
	bytes_put32(image, image->size - 4, (u32)~crc32_z(0, image->at, image->size - 4));
}

/* LZ4 and LZMA have no checksum: a changed literal is found by that of the image. */
static void test_checksum(void **state)
{
	const struct boot_image_request none = {0};
	const u8 signature[100] = {0x30, 0x82};
	struct bytes image = make(PACK_LZ4);
	bytes_put(&image, HEADER_FIELD(kernel_version), &(u16){0x200}, 2);
	bytes_put(&image, 0x400, "6.15.3-test", 12);
	/* Signing for Secure Boot changes two fields of the PE header after the build. */
	bytes_put(&image, 0, "MZ", 2);
	bytes_put32(&image, 0x3c, 0x40);
	bytes_put(&image, 0x40, "PE\0", 4);
	bytes_put(&image, 0x40 + 24, &(u16){0x20b}, 2);
	bytes_put(&image, image.size, "0123456789abcde", 16);
	u32 paragraphs = (u32)(image.size - BZ_CODE) / 16;
	bytes_put32(&image, HEADER_FIELD(syssize), paragraphs);
	add_checksum(&image);
	bytes_put32(&image, 0x40 + 24 + 64, 0x12345678);
	bytes_put32(&image, 0x40 + 24 + 144, (u32)image.size);
	bytes_put32(&image, 0x40 + 24 + 148, 100);
	bytes_put(&image, image.size, signature, sizeof(signature));
	struct loaded l = load_image(&image, none, 64 * MIB);
	if (l.ret)
		fail_msg("%s", l.err.text);
	unload(&l);

	image.at[BZ_CODE + 0x210] ^= 1; /* code of the decompressor: the payload is intact */
	expect_error(&image, none, 64 * MIB, -EBADMSG, "checksum is wrong");
	bytes_put(&image, 0x400, "6.16.0-test", 12); /* has none */
	l = load_image(&image, none, 64 * MIB);
	assert_int_equal(l.ret, 0);
	unload(&l);
	bytes_free(&image);
}

static void test_payload_that_is_no_kernel(void **state)
{
	struct bytes text = {0};
	const struct boot_image_request none = {0};
	bytes_put(&text, 0, "just a text", 11);
	struct bytes image = make_bzimage(PACK_GZIP, &text);
	expect_error(&image, none, 64 * MIB, -EBADMSG, "too short");
	bytes_free(&image);
	bytes_put(&text, 200000, "!", 1);
	image = make_bzimage(PACK_GZIP, &text);
	expect_error(&image, none, 64 * MIB, -ENOEXEC, "no ELF");
	bytes_free(&image);
	bytes_free(&text);
}

static void test_files_that_are_no_kernel(void **state)
{
	const struct {
		const char *path;
		int ret;
		const char *says;
	} rows[] = {
	    {"/nonexistent", -ENOENT, "No such file"},
	    {"/", -EISDIR, "directory"},
	    {"/dev/null", -EINVAL, "not a regular file"},
	    {"/etc/passwd", -ENOEXEC, "is no kernel"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct guest_memory memory;
		struct boot_state start = {0};
		struct error err;
		struct boot_image_request request = {.kernel_path = rows[i].path, .cpu_count = 1};
		assert_int_equal(guest_memory_create(&memory, 32 * MIB, NULL), 0);
		assert_int_equal(boot_load(&request, &memory, &start, &err), rows[i].ret);
		assert_non_null(strstr(err.text, rows[i].says));
		assert_non_null(strstr(err.text, rows[i].path));
		guest_memory_destroy(&memory);
	}
	struct bytes empty = {.at = (u8 *)"", .size = 0};
	expect_error(&empty, (struct boot_image_request){0}, 32 * MIB, -ENOEXEC, "is empty");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_packing),
	    cmocka_unit_test(test_lz4_blocks),
	    cmocka_unit_test(test_unknown_packing_is_left_to_the_guest),
	    cmocka_unit_test(test_zero_page),
	    cmocka_unit_test(test_memory_map),
	    cmocka_unit_test(test_initrd),
	    cmocka_unit_test(test_initrd_above_4g),
	    cmocka_unit_test(test_initrd_that_does_not_fit),
	    cmocka_unit_test(test_memory_too_small),
	    cmocka_unit_test(test_long_command_line),
	    cmocka_unit_test(test_header_checks),
	    cmocka_unit_test(test_truncation),
	    cmocka_unit_test(test_checksum),
	    cmocka_unit_test(test_damaged_payload),
	    cmocka_unit_test(test_payload_that_is_no_kernel),
	    cmocka_unit_test(test_files_that_are_no_kernel),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
