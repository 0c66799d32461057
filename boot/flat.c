/*
 * Flat images: the file as it is at gpa 0, started at its first byte.
 *
 * Real mode needs nothing else: memory is the image and zeroes, SP is 0 (the first push goes to
 * 0:fffe). Protected and long mode need a GDT and page tables; they are in the last 32 KiB of the
 * RAM below 3 GiB, and the stack pointer is at their beginning:
 *
 *     end - 32 KiB   the stack grows down from here; a page with the GDT
 *     end - 28 KiB   a free page
 *     end - 24 KiB   PML4, PDPT, four page directories (long mode)
 */
#include "boot/cpu_state.h"
#include "boot/loader.h"
#include "memory/memory.h"

#define TABLES_SIZE (32ull << 10)

int flat_load(struct boot_context *boot, struct error *err)
{
	enum boot_flat_mode mode = boot->request->flat_mode;
	const struct guest_ram_range *ram = &boot->layout.memory->ranges[0];
	u64 tables = ram->gpa + ram->size - TABLES_SIZE;
	u64 paging = ram->gpa + ram->size - BOOT_PAGING_SIZE;
	void *image, *gdt, *pages;
	int ret = 0;

	if (mode != BOOT_FLAT_REAL)
		ret = boot_claim(&boot->layout, tables, GUEST_PAGE_SIZE, "the GDT", &gdt, err);
	if (!ret && mode != BOOT_FLAT_REAL)
		ret = boot_claim(&boot->layout, paging, BOOT_PAGING_SIZE, "the page tables", &pages,
				 err);
	if (!ret)
		ret =
		    boot_claim(&boot->layout, 0, boot->kernel.size, boot->kernel.path, &image, err);
	if (!ret)
		ret = boot_file_read(&boot->kernel, 0, image, boot->kernel.size, err);
	if (ret)
		return ret;

	switch (mode) {
	case BOOT_FLAT_REAL:
		boot_state_real(boot->state);
		break;
	case BOOT_FLAT_PROTECTED:
		boot_write_gdt(gdt, false);
		boot_state_protected(boot->state, tables, 0);
		boot->state->regs.rsp = tables;
		break;
	case BOOT_FLAT_LONG:
		boot_write_gdt(gdt, true);
		boot_write_paging(pages, paging);
		boot_state_long(boot->state, tables, paging, 0);
		boot->state->regs.rsp = tables;
		break;
	}
	return 0;
}
