/*
 * ELF images: with a PVH note (Xen's docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h)
 * started in 32-bit protected mode with EBX pointing to hvm_start_info; without one, a 64-bit
 * Linux (vmlinux), started with RSI pointing to its zero page.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "boot/elf_image.h"
#include "boot/linux_params.h"
#include "debug/trace.h"

#define PVH_NOTE_NAME "Xen"
#define PVH_NOTE_TYPE 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define PVH_MAGIC     0x336ec578u
#define NOTES_MAX     65536u /* bytes of a note segment that are looked at */

struct pvh_start_info {
	u32 magic;
	u32 version; /* 1: with memory map */
	u32 flags;
	u32 module_count;
	u64 modules;
	u64 cmdline;
	u64 rsdp;
	u64 memory_map;
	u32 memory_map_entries;
	u32 reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "layout of hvm_start_info");

struct pvh_module {
	u64 gpa, size, cmdline, reserved;
};

struct pvh_memory {
	u64 addr, size;
	u32 type;
	u32 reserved;
};

/* Everything PVH wants in one piece. */
struct pvh_block {
	struct pvh_start_info info;
	struct pvh_module module;
	struct pvh_memory map[BOOT_E820_MAX];
};

bool elf_recognise(const struct boot_context *boot)
{
	return elf_is(boot->head, boot->head_size);
}

int elf_load_segments(struct boot_context *boot, const struct elf_image *elf, struct error *err)
{
	for (u32 i = 0; i < elf->segment_count; i++) {
		const struct elf_segment *s = &elf->segments[i];
		void *at;
		int ret = boot_claim(&boot->layout, s->gpa, s->size, "the kernel", &at, err);
		if (!ret)
			ret = boot_file_read(&boot->kernel, s->offset, at, s->file_size, err);
		if (ret)
			return ret;
	}
	return 0;
}

/** Looks for the PVH entry point. Returns 1 found, 0 none, or a negative errno. */
static int find_pvh_entry(struct boot_context *boot, const struct elf_image *elf, u64 *entry,
			  struct error *err)
{
	for (u32 i = 0; i < elf->note_count; i++) {
		const struct elf_segment *s = &elf->notes[i];
		u64 size = s->file_size < NOTES_MAX ? s->file_size : NOTES_MAX;
		u8 *notes = malloc(size);
		if (!notes)
			return error_set(err, ENOMEM, "out of memory reading %s",
					 boot->kernel.path);
		int ret = boot_file_read(&boot->kernel, s->offset, notes, size, err);
		if (!ret)
			ret = elf_note(notes, size, s->align, PVH_NOTE_NAME, PVH_NOTE_TYPE, entry);
		free(notes);
		if (ret)
			return ret;
	}
	return 0;
}

static int start_pvh(struct boot_context *boot, u32 entry, struct error *err)
{
	struct pvh_block *block;
	void *at;
	u64 gpa, cmdline, initrd, initrd_size;
	int ret =
	    boot_place(&boot->layout, sizeof(*block), 16, "the PVH start info", &gpa, &at, err);
	if (!ret)
		ret = boot_place_string(boot, boot->cmdline, "the command line", &cmdline, err);
	if (!ret)
		ret = boot_enter_protected(boot, entry, err);
	if (!ret)
		ret = boot_load_initrd(boot, BOOT_HIGH_MEM, BOOT_4G, true, &initrd, &initrd_size,
				       err);
	if (ret)
		return ret;

	struct boot_e820 map[BOOT_E820_MAX];
	u32 entries = boot_e820(&boot->layout, map);
	block = at;
	block->info = (struct pvh_start_info){
	    .magic = PVH_MAGIC,
	    .version = 1,
	    .cmdline = cmdline,
	    .rsdp = boot->rsdp,
	    .memory_map = gpa + offsetof(struct pvh_block, map),
	    .memory_map_entries = entries,
	};
	if (initrd_size) {
		block->info.module_count = 1;
		block->info.modules = gpa + offsetof(struct pvh_block, module);
		block->module = (struct pvh_module){.gpa = initrd, .size = initrd_size};
	}
	for (u32 i = 0; i < entries; i++)
		block->map[i] = (struct pvh_memory){
		    .addr = map[i].addr, .size = map[i].size, .type = map[i].type};
	boot->state->regs.rbx = gpa;
	trace(boot, 1, "PVH image starts at %#x, start info at %#llx", entry,
	      (unsigned long long)gpa);
	return 0;
}

/** A setup header for an image that has none (boot.rst: what a boot loader must fill in). */
static struct setup_header plain_header(void)
{
	return (struct setup_header){.boot_flag = 0xaa55,
				     .header = 0x53726448,
				     .version = 0x20c,
				     .loadflags = LOADED_HIGH,
				     .cmdline_size = 2047,
				     .initrd_addr_max = UINT32_MAX,
				     .xloadflags = XLF_KERNEL_64};
}

int elf_load(struct boot_context *boot, struct error *err)
{
	struct elf_image elf;
	u64 entry;
	int ret = elf_parse(&elf, boot->head, boot->head_size, boot->kernel.size, err);
	if (ret)
		return boot_blame(boot, ret, err);
	int pvh = find_pvh_entry(boot, &elf, &entry, err);
	if (pvh < 0)
		return pvh;
	if (!pvh && !elf.is64)
		return error_set(err, ENOEXEC,
				 "%s is a 32-bit ELF image with neither a PVH note nor a Multiboot "
				 "header: no way to start it is known",
				 boot->kernel.path);
	if (pvh ? entry > UINT32_MAX || !elf_holds(&elf, entry) : !elf_entry(&elf, &entry))
		return error_set(err, ENOEXEC, "%s has an entry point outside of its segments",
				 boot->kernel.path);
	ret = elf_load_segments(boot, &elf, err);
	if (ret)
		return ret;
	if (pvh)
		return start_pvh(boot, (u32)entry, err);
	struct setup_header header = plain_header();
	return linux_start(boot, &header, entry, err);
}
