/*
 * Multiboot Specification 0.6.96. The kernel says what it wants in a header in its first 8 KiB and
 * is started in 32-bit protected mode with EBX pointing to what the loader has to say.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "boot/elf_image.h"
#include "boot/loader.h"
#include "debug/trace.h"
#include "memory/memory.h"

#define HEADER_MAGIC  0x1badb002u
#define LOADER_MAGIC  0x2badb002u
#define HEADER_WITHIN 8192u /* section 3.1: the header is entirely inside these */

/* Flags of the header: bits 0-15 are demands. Modules are always page-aligned here, and memory is
 * always described. */
#define WANT_PAGE_ALIGN BIT(0)
#define WANT_MEMORY	BIT(1)
#define WANT_KNOWN	(WANT_PAGE_ALIGN | WANT_MEMORY)
#define WANT_MASK	0xffffu
#define HAS_ADDRESSES	BIT(16)

/* Flags of the information structure. */
#define INFO_MEMORY	 BIT(0)
#define INFO_CMDLINE	 BIT(2)
#define INFO_MODULES	 BIT(3)
#define INFO_MEMORY_MAP	 BIT(6)
#define INFO_LOADER_NAME BIT(9)

struct multiboot_header {
	u32 magic, flags, checksum;
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct multiboot_info {
	u32 flags;
	u32 mem_lower, mem_upper; /* KiB */
	u32 boot_device;
	u32 cmdline;
	u32 mods_count, mods_addr;
	u32 syms[4];
	u32 mmap_length, mmap_addr;
	u32 drives_length, drives_addr;
	u32 config_table;
	u32 boot_loader_name;
	u32 apm_table;
	u32 vbe[4];
};

struct multiboot_module {
	u32 start, end, string, reserved;
};

struct multiboot_mmap {
	u32 size; /* of the rest */
	u64 addr, length;
	u32 type;
} __attribute__((packed));

/* Everything but strings in one piece. */
struct multiboot_block {
	struct multiboot_info info;
	struct multiboot_module module;
	struct multiboot_mmap mmap[BOOT_E820_MAX];
};

/** Finds the header; *@offset is its place in the file. */
static bool find_header(const struct boot_context *boot, struct multiboot_header *h, u32 *offset)
{
	const u32 required = offsetof(struct multiboot_header, header_addr);
	u32 end = boot->head_size < HEADER_WITHIN ? boot->head_size : HEADER_WITHIN;
	for (u32 at = 0; at + required <= end; at += 4) {
		*h = (struct multiboot_header){0};
		memcpy(h, boot->head + at, required);
		if (h->magic != HEADER_MAGIC || h->magic + h->flags + h->checksum != 0)
			continue;
		if (h->flags & HAS_ADDRESSES) {
			if (end - at < sizeof(*h))
				continue;
			memcpy(h, boot->head + at, sizeof(*h));
		}
		*offset = at;
		return true;
	}
	return false;
}

bool multiboot_recognise(const struct boot_context *boot)
{
	struct multiboot_header h;
	u32 offset;
	if (!find_header(boot, &h, &offset))
		return false;
	struct elf_image elf;
	return (h.flags & HAS_ADDRESSES) ||
	       (!elf_parse(&elf, boot->head, boot->head_size, UINT64_MAX, NULL) && !elf.is64);
}

/** The "a.out kludge": one stretch of the file, by the addresses in the header (section 3.1.3). */
static int load_by_addresses(struct boot_context *boot, const struct multiboot_header *h,
			     u32 offset, u64 *entry, struct error *err)
{
	const char *path = boot->kernel.path;
	u64 before = (u64)h->header_addr - h->load_addr; /* bytes loaded ahead of the header */
	if (h->header_addr < h->load_addr || before > offset)
		return error_set(err, EBADMSG,
				 "%s has load addresses that contradict its header's place", path);
	u64 from = offset - before;
	u64 size = boot->kernel.size - from;
	if (h->load_end_addr) {
		if (h->load_end_addr <= h->load_addr)
			return error_set(err, EBADMSG, "%s ends before it begins", path);
		size = h->load_end_addr - h->load_addr;
	}
	u64 memory_size = size;
	if (h->bss_end_addr) {
		if (h->bss_end_addr < h->load_addr + size)
			return error_set(err, EBADMSG, "%s has a bss that ends inside its data",
					 path);
		memory_size = h->bss_end_addr - h->load_addr;
	}
	if (h->entry_addr < h->load_addr || h->entry_addr - h->load_addr >= size)
		return error_set(err, ENOEXEC, "%s has an entry point outside of what is loaded",
				 path);
	void *at;
	int ret = boot_claim(&boot->layout, h->load_addr, memory_size, "the kernel", &at, err);
	if (!ret)
		ret = boot_file_read(&boot->kernel, from, at, size, err);
	*entry = h->entry_addr;
	return ret;
}

static int load_elf(struct boot_context *boot, u64 *entry, struct error *err)
{
	struct elf_image elf;
	int ret = elf_parse(&elf, boot->head, boot->head_size, boot->kernel.size, err);
	if (ret)
		return boot_blame(boot, ret, err);
	if (!elf_entry(&elf, entry) || *entry > UINT32_MAX)
		return error_set(err, ENOEXEC, "%s has an entry point outside of its segments",
				 boot->kernel.path);
	return elf_load_segments(boot, &elf, err);
}

/** Both strings as GRUB passes them: the file's path, a space, the arguments. */
static int place_command(struct boot_context *boot, const char *path, const char *arguments,
			 u64 *gpa, struct error *err)
{
	char *text;
	if (asprintf(&text, "%s%s%s", path, *arguments ? " " : "", arguments) < 0)
		return error_set(err, ENOMEM, "out of memory");
	int ret = boot_place_string(boot, text, "the command line", gpa, err);
	free(text);
	return ret;
}

static void describe_memory(const struct boot_layout *layout, struct multiboot_block *block,
			    u64 gpa)
{
	struct boot_e820 map[BOOT_E820_MAX];
	u32 entries = boot_e820(layout, map);
	for (u32 i = 0; i < entries; i++)
		block->mmap[i] =
		    (struct multiboot_mmap){.size = sizeof(block->mmap[i]) - sizeof(u32),
					    .addr = map[i].addr,
					    .length = map[i].size,
					    .type = map[i].type};
	block->info.mmap_length = entries * sizeof(block->mmap[0]);
	block->info.mmap_addr = (u32)(gpa + offsetof(struct multiboot_block, mmap));
	block->info.mem_lower = BOOT_LOW_END >> 10;
	block->info.mem_upper = (u32)((layout->memory->ranges[0].size - BOOT_HIGH_MEM) >> 10);
	block->info.flags |= INFO_MEMORY | INFO_MEMORY_MAP;
}

static int start(struct boot_context *boot, u32 entry, struct error *err)
{
	struct multiboot_block *block;
	void *at;
	u64 gpa, command, loader, module_command = 0, initrd, initrd_size;
	int ret = boot_place(&boot->layout, sizeof(*block), 16, "the Multiboot information", &gpa,
			     &at, err);
	if (!ret)
		ret = place_command(boot, boot->kernel.path, boot->cmdline, &command, err);
	if (!ret)
		ret = boot_place_string(boot, "Guise", "the loader's name", &loader, err);
	if (!ret && boot->request->initrd_path)
		ret = place_command(boot, boot->request->initrd_path, "", &module_command, err);
	if (!ret)
		ret = boot_enter_protected(boot, entry, err);
	if (!ret)
		ret = boot_load_initrd(boot, BOOT_HIGH_MEM, BOOT_4G, false, &initrd, &initrd_size,
				       err);
	if (ret)
		return ret;

	block = at;
	block->info =
	    (struct multiboot_info){.flags = INFO_CMDLINE | INFO_MODULES | INFO_LOADER_NAME,
				    .cmdline = (u32)command,
				    .boot_loader_name = (u32)loader};
	if (initrd_size) {
		block->info.mods_count = 1;
		block->info.mods_addr = (u32)(gpa + offsetof(struct multiboot_block, module));
		block->module = (struct multiboot_module){.start = (u32)initrd,
							  .end = (u32)(initrd + initrd_size),
							  .string = (u32)module_command};
	}
	describe_memory(&boot->layout, block, gpa);
	boot->state->regs.rax = LOADER_MAGIC;
	boot->state->regs.rbx = gpa;
	trace(boot, 1, "Multiboot image starts at %#x, information at %#llx", entry,
	      (unsigned long long)gpa);
	return 0;
}

int multiboot_load(struct boot_context *boot, struct error *err)
{
	struct multiboot_header h;
	u32 offset;
	u64 entry;
	if (!find_header(boot, &h, &offset))
		return error_set(err, ENOEXEC, "%s has no Multiboot header", boot->kernel.path);
	if (h.flags & WANT_MASK & ~WANT_KNOWN)
		return error_set(err, ENOEXEC,
				 "%s demands Multiboot features (%#x) that are not offered here",
				 boot->kernel.path, (u32)(h.flags & WANT_MASK & ~WANT_KNOWN));
	int ret = h.flags & HAS_ADDRESSES ? load_by_addresses(boot, &h, offset, &entry, err)
					  : load_elf(boot, &entry, err);
	return ret ? ret : start(boot, (u32)entry, err);
}
