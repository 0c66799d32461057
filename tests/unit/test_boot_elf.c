/* ELF images: 64-bit Linux and PVH; headers that lie. */
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "boot/elf_image.h"
#include "boot_images.h"

#define PHDR(n) (sizeof(Elf64_Ehdr) + (n) * sizeof(Elf64_Phdr))

static const struct boot_image_request none;

static void test_linux_entry(void **state)
{
	struct bytes image = make_vmlinux(0);
	struct loaded l =
	    load_image(&image, (struct boot_image_request){.cmdline = "ro"}, 64 * MIB);
	assert_int_equal(l.ret, 0);
	assert_int_equal(l.state.regs.rip, KERNEL_ENTRY);
	assert_int_equal(l.state.sregs.cs.l, 1);
	const u8 *text = guest(&l, KERNEL_AT, KERNEL_TEXT);
	assert_int_equal(text[0], kernel_text(0));
	assert_int_equal(text[KERNEL_TEXT - 1], kernel_text(KERNEL_TEXT - 1));
	assert_int_equal(*(u8 *)guest(&l, KERNEL_AT + MIB, 1), 0xda);
	struct boot_params *p = guest(&l, l.state.regs.rsi, sizeof(*p));
	assert_int_equal(p->hdr.boot_flag, 0xaa55);
	assert_int_equal(p->hdr.header, 0x53726448);
	assert_string_equal(guest(&l, p->hdr.cmd_line_ptr, 3), "ro");
	assert_int_equal(p->e820_entries, 4);
	unload(&l);
	bytes_free(&image);
}

/* A linker that leaves the entry a virtual address is understood, too. */
static void test_virtual_entry(void **state)
{
	struct bytes image = make_vmlinux(0);
	bytes_put(&image, offsetof(Elf64_Ehdr, e_entry),
		  &(u64){0xffffffff80000000ull + KERNEL_ENTRY}, 8);
	struct loaded l = load_image(&image, none, 64 * MIB);
	assert_int_equal(l.ret, 0);
	assert_int_equal(l.state.regs.rip, KERNEL_ENTRY);
	unload(&l);
	bytes_free(&image);
}

static void test_pvh(void **state)
{
	struct bytes image = make_vmlinux(KERNEL_AT + 0x123);
	struct test_file initrd = file_of("initrd!", 7);
	struct boot_image_request request = {.cmdline = "quiet", .initrd_path = initrd.path};
	struct loaded l = load_image(&image, request, 64 * MIB);
	assert_int_equal(l.ret, 0);
	const struct kvm_sregs *s = &l.state.sregs;
	assert_int_equal(l.state.regs.rip, KERNEL_AT + 0x123);
	assert_int_equal(s->cr0, 0x11);
	assert_int_equal(s->cr4, 0);
	assert_int_equal(s->efer, 0);
	assert_int_equal(s->cs.db, 1);
	assert_int_equal(s->cs.l, 0);
	assert_int_equal(s->cs.limit, 0xffffffff);
	assert_int_equal(s->tr.limit, 0x67);

	/* hvm_start_info: 32-bit words, then 64-bit ones. */
	u64 gpa = l.state.regs.rbx;
	const u32 *w = guest(&l, gpa, 56);
	const u64 *q = guest(&l, gpa, 56);
	assert_int_equal(w[0], 0x336ec578);
	assert_int_equal(w[1], 1);
	assert_int_equal(w[3], 1);
	const u64 *module = guest(&l, q[2], 32);
	assert_int_equal(module[1], 7);
	assert_memory_equal(guest(&l, module[0], 7), "initrd!", 7);
	assert_string_equal(guest(&l, q[3], 6), "quiet");
	assert_memory_equal(guest(&l, q[4], 8), "RSD PTR ", 8);
	assert_int_equal(w[12], 4);
	const u64 *map = guest(&l, q[5], 4 * 24);
	assert_int_equal(map[0], 0);
	assert_int_equal(map[1], 0x9fc00);
	assert_int_equal(map[2], 1);
	assert_int_equal(map[9], MIB);
	assert_int_equal(map[10], 63 * MIB);
	assert_int_equal(map[11], 1);
	unload(&l);
	file_close(&initrd);
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
	const u64 huge = UINT64_MAX - 100;
	const struct {
		size_t offset;
		u64 value;
		u32 size;
		int ret;
		const char *says;
	} rows[] = {
	    {EI_CLASS, 7, 1, -ENOEXEC, "no x86 kind"},
	    {EI_DATA, ELFDATA2MSB, 1, -ENOEXEC, "no x86 kind"},
	    {offsetof(Elf64_Ehdr, e_machine), EM_AARCH64, 2, -ENOEXEC, "another machine"},
	    {offsetof(Elf64_Ehdr, e_type), ET_REL, 2, -ENOEXEC, "not an executable"},
	    {offsetof(Elf64_Ehdr, e_phnum), 0, 2, -ENOEXEC, "no ELF program headers"},
	    {offsetof(Elf64_Ehdr, e_phnum), 0xffff, 2, -EBADMSG, "truncated"},
	    {offsetof(Elf64_Ehdr, e_phentsize), 1, 2, -ENOEXEC, "no ELF program headers"},
	    {offsetof(Elf64_Ehdr, e_phoff), huge, 8, -EBADMSG, "truncated"},
	    {offsetof(Elf64_Ehdr, e_phoff), 65535, 8, -EBADMSG, "truncated"},
	    {offsetof(Elf64_Ehdr, e_entry), 0x1234, 8, -ENOEXEC, "entry point outside"},
	    {PHDR(0) + offsetof(Elf64_Phdr, p_offset), huge, 8, -EBADMSG, "truncated"},
	    {PHDR(0) + offsetof(Elf64_Phdr, p_filesz), huge, 8, -EBADMSG, "truncated"},
	    {PHDR(0) + offsetof(Elf64_Phdr, p_filesz), KERNEL_TEXT + 1, 8, -EBADMSG, "impossible"},
	    {PHDR(0) + offsetof(Elf64_Phdr, p_memsz), huge, 8, -EBADMSG, "impossible"},
	    {PHDR(0) + offsetof(Elf64_Phdr, p_memsz), 2 * MIB, 8, -ENOEXEC, "overlaps"},
	    {PHDR(0) + offsetof(Elf64_Phdr, p_memsz), 300 * MIB, 8, -ENOMEM, "316 MiB"},
	    {PHDR(1) + offsetof(Elf64_Phdr, p_paddr), 0xb8000, 8, -ENOEXEC, "firmware"},
	    {PHDR(1) + offsetof(Elf64_Phdr, p_paddr), 0xfee00000, 8, -ENOEXEC, "no memory"},
	    {PHDR(1) + offsetof(Elf64_Phdr, p_paddr), huge - MIB, 8, -ENOEXEC, "no memory"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bytes image = make_vmlinux(0);
		bytes_put(&image, rows[i].offset, &rows[i].value, rows[i].size);
		expect_error(&image, rows[i].ret, rows[i].says);
		bytes_free(&image);
	}
}

static void test_truncation(void **state)
{
	struct bytes image = make_vmlinux(KERNEL_ENTRY);
	const size_t whole = image.size;
	static const size_t sizes[] = {4, 15, 16, 63, 64, 119, 120, 231, 232, 4095, 4096, 4097};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		image.size = sizes[i];
		expect_error(&image, sizes[i] < EI_NIDENT ? -ENOEXEC : -EBADMSG,
			     sizes[i] < EI_NIDENT ? "is no kernel" : "truncated");
	}
	for (size_t size = whole - 1; size > 4096; size -= 1009) {
		image.size = size;
		expect_error(&image, -EBADMSG, "truncated");
	}
	image.size = whole;
	bytes_free(&image);
}

static void test_pvh_entry_outside(void **state)
{
	struct bytes image = make_vmlinux(KERNEL_AT + MIB + KERNEL_DATA); /* in the bss */
	expect_error(&image, -ENOEXEC, "entry point outside");
	bytes_free(&image);
	image = make_vmlinux((1ull << 32) | KERNEL_AT);
	expect_error(&image, -ENOEXEC, "entry point outside");
	bytes_free(&image);
}

static void test_elf32_without_a_way_in(void **state)
{
	struct bytes image = make_multiboot_elf(3);
	bytes_put32(&image, 0x1000, 0); /* no Multiboot header any more */
	expect_error(&image, -ENOEXEC, "no way to start it");
	bytes_free(&image);
}

/* Notes whose sizes reach past the end, at every length of the segment. */
static void test_note_walk(void **state)
{
	u8 notes[36] = {4, 0, 0,   0,	4,   0, 0,    0,    18,	  0,
			0, 0, 'X', 'e', 'n', 0, 0x78, 0x56, 0x34, 0x12};
	u64 value = 0;
	for (size_t size = 0; size < 20; size++)
		assert_false(elf_note(notes, size, 4, "Xen", 18, &value));
	assert_true(elf_note(notes, 20, 4, "Xen", 18, &value));
	assert_int_equal(value, 0x12345678);
	assert_false(elf_note(notes, 20, 4, "Xen", 17, &value));
	assert_false(elf_note(notes, 20, 4, "Xem", 18, &value));
	memset(notes, 0xff, 12);
	assert_false(elf_note(notes, sizeof(notes), 4, "Xen", 18, &value));
	assert_false(elf_note(notes, sizeof(notes), 8, "Xen", 18, &value));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_linux_entry),
	    cmocka_unit_test(test_virtual_entry),
	    cmocka_unit_test(test_pvh),
	    cmocka_unit_test(test_headers_that_lie),
	    cmocka_unit_test(test_truncation),
	    cmocka_unit_test(test_elf32_without_a_way_in),
	    cmocka_unit_test(test_pvh_entry_outside),
	    cmocka_unit_test(test_note_walk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
