#include "boot/boot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "boot/acpi.h"
#include "boot/cpu_state.h"
#include "boot/loader.h"
#include "debug/trace.h"
#include "memory/memory.h"

struct loader {
	const char *kind;
	bool (*recognise)(const struct boot_context *boot);
	int (*load)(struct boot_context *boot, struct error *err);
};

/* Multiboot before ELF: a Multiboot kernel is usually an ELF file too. */
static const struct loader loaders[] = {
    {"Linux bzImage", linux_recognise, linux_load},
    {"Multiboot 1", multiboot_recognise, multiboot_load},
    {"ELF", elf_recognise, elf_load},
};

int boot_place_string(struct boot_context *boot, const char *text, const char *what, u64 *gpa,
		      struct error *err)
{
	void *at;
	u64 size = strlen(text) + 1;
	int ret = boot_place(&boot->layout, size, 16, what, gpa, &at, err);
	if (!ret)
		memcpy(at, text, size);
	return ret;
}

int boot_blame(const struct boot_context *boot, int ret, struct error *err)
{
	struct error why = *err;
	return error_set(err, -ret, "%s: %s", boot->kernel.path, why.text);
}

static int place_gdt(struct boot_context *boot, bool long_mode, u64 *gpa, struct error *err)
{
	void *at;
	int ret = boot_place(&boot->layout, BOOT_GDT_SIZE, 16, "the GDT", gpa, &at, err);
	if (!ret)
		boot_write_gdt(at, long_mode);
	return ret;
}

int boot_enter_protected(struct boot_context *boot, u32 entry, struct error *err)
{
	u64 gdt;
	int ret = place_gdt(boot, false, &gdt, err);
	if (!ret)
		boot_state_protected(boot->state, gdt, entry);
	return ret;
}

int boot_enter_long(struct boot_context *boot, u64 entry, struct error *err)
{
	u64 gdt, cr3;
	void *at;
	int ret = place_gdt(boot, true, &gdt, err);
	if (!ret)
		ret = boot_place(&boot->layout, BOOT_PAGING_SIZE, 4096, "the page tables", &cr3,
				 &at, err);
	if (ret)
		return ret;
	boot_write_paging(at, cr3);
	boot_state_long(boot->state, gdt, cr3, entry);
	return 0;
}

/** Where the areas taken below @limit end: what an initrd would have to come after. */
static u64 taken_end(const struct boot_layout *layout, u64 limit)
{
	u64 end = 0;
	for (u32 i = 0; i < layout->count; i++)
		if (layout->areas[i].end <= limit && layout->areas[i].end > end)
			end = layout->areas[i].end;
	return end;
}

static int initrd_does_not_fit(struct boot_context *boot, u64 size, u64 min, u64 max,
			       struct error *err)
{
	const char *path = boot->request->initrd_path;
	u64 low_max = max < GUEST_MEMORY_HOLE_START ? max : GUEST_MEMORY_HOLE_START;
	u64 start = taken_end(&boot->layout, low_max);
	if (start < min)
		start = min;
	u64 end = align_up(start, GUEST_PAGE_SIZE) + align_up(size, GUEST_PAGE_SIZE);
	if (end > low_max && max > BOOT_4G) /* has to go above the hole */
		end = BOOT_4G + align_up(size, GUEST_PAGE_SIZE);
	if (end > max || size > max)
		return error_set(
		    err, ENOMEM,
		    "initrd %s (%llu MiB) does not fit below %#llx, as this kernel wants it", path,
		    (unsigned long long)((size + 0xfffff) >> 20), (unsigned long long)max);
	return error_set(
	    err, ENOMEM,
	    "initrd %s (%llu KiB) does not fit: with this kernel the guest needs %llu MiB "
	    "at least (-m); it has %llu",
	    path, (unsigned long long)((size + 1023) >> 10),
	    (unsigned long long)boot_memory_for(end),
	    (unsigned long long)(boot->layout.memory->size >> 20));
}

int boot_load_initrd(struct boot_context *boot, u64 min, u64 max, bool highest, u64 *gpa, u64 *size,
		     struct error *err)
{
	*gpa = *size = 0;
	if (!boot->request->initrd_path)
		return 0;
	struct boot_file file;
	int ret = boot_file_open(&file, boot->request->initrd_path, "initrd", err);
	if (ret)
		return ret;
	void *at;
	if (!boot_find(&boot->layout, file.size, GUEST_PAGE_SIZE, min, max, highest, gpa))
		ret = initrd_does_not_fit(boot, file.size, min, max, err);
	else
		ret = boot_claim(&boot->layout, *gpa, file.size, "the initrd", &at, err);
	if (!ret)
		ret = boot_file_read(&file, 0, at, file.size, err);
	if (!ret) {
		*size = file.size;
		trace(boot, 1, "initrd: %llu bytes at %#llx", (unsigned long long)*size,
		      (unsigned long long)*gpa);
	}
	boot_file_close(&file);
	return ret;
}

/** The two words of the BIOS data area that operating systems still look at. */
static void write_bda(const struct guest_memory *memory)
{
	u16 ebda_segment = BOOT_LOW_END >> 4, low_kib = BOOT_LOW_END >> 10;
	guest_memory_write(memory, BOOT_BDA + 0x0e, &ebda_segment, sizeof(ebda_segment));
	guest_memory_write(memory, BOOT_BDA + 0x13, &low_kib, sizeof(low_kib));
	guest_memory_write(memory, BOOT_LOW_END, &(u8){1}, 1); /* EBDA: its size in KiB */
}

static int load_image(struct boot_context *boot, struct error *err)
{
	if (boot->request->flat)
		return flat_load(boot, err);

	const struct loader *loader = loaders;
	while (loader < loaders + ARRAY_SIZE(loaders) && !loader->recognise(boot))
		loader++;
	if (loader == loaders + ARRAY_SIZE(loaders))
		return error_set(err, ENOEXEC,
				 "%s is no kernel: neither a bzImage nor an ELF or Multiboot image "
				 "(a raw image starts with --flat)",
				 boot->kernel.path);
	write_bda(boot->layout.memory);
	int ret = acpi_build(boot->layout.memory, boot->request->cpu_count, &boot->rsdp, err);
	if (ret)
		return ret;
	trace(boot, 1, "%s: %s", boot->kernel.path, loader->kind);
	return loader->load(boot, err);
}

int boot_load(const struct boot_image_request *request, struct guest_memory *memory,
	      struct boot_state *state, struct error *err)
{
	struct error unread;
	if (!err)
		err = &unread;
	struct boot_context boot = {
	    .request = request,
	    .cmdline = request->cmdline ? request->cmdline : "",
	    .state = state,
	};
	int ret = boot_file_open(&boot.kernel, request->kernel_path, "kernel", err);
	if (ret)
		return ret;
	boot_layout_init(&boot.layout, memory, !request->flat);

	boot.head_size = boot.kernel.size < BOOT_HEAD_SIZE ? (u32)boot.kernel.size : BOOT_HEAD_SIZE;
	u8 *head = malloc(boot.head_size);
	if (!head) {
		ret = error_set(err, ENOMEM, "out of memory reading %s", request->kernel_path);
		goto out;
	}
	ret = boot_file_read(&boot.kernel, 0, head, boot.head_size, err);
	if (ret)
		goto out;
	boot.head = head;
	ret = load_image(&boot, err);
out:
	free(head);
	boot_file_close(&boot.kernel);
	return ret;
}
