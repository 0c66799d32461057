#include "boot/linux_params.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "boot/cpu_state.h"
#include "debug/trace.h"

#define LOADER_UNDEFINED 0xff /* type_of_loader: no number assigned (boot.rst) */

_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(sizeof(struct boot_e820_entry) == sizeof(u64) * 2 + sizeof(u32), "e820 entry");

static int place_cmdline(struct boot_context *boot, struct boot_params *params, struct error *err)
{
	u64 gpa;
	size_t length = strlen(boot->cmdline);
	if (params->hdr.cmdline_size && length > params->hdr.cmdline_size)
		return error_set(
		    err, E2BIG,
		    "the kernel command line is %zu characters long; this kernel takes %u", length,
		    params->hdr.cmdline_size);
	int ret = boot_place_string(boot, boot->cmdline, "the command line", &gpa, err);
	if (ret)
		return ret;
	params->hdr.cmd_line_ptr = (u32)gpa;
	params->ext_cmd_line_ptr = (u32)(gpa >> 32);
	return 0;
}

static int place_initrd(struct boot_context *boot, struct boot_params *params, struct error *err)
{
	u64 max = (u64)params->hdr.initrd_addr_max + 1, gpa, size;
	if (params->hdr.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G)
		max = UINT64_MAX;
	int ret = boot_load_initrd(boot, BOOT_HIGH_MEM, max, true, &gpa, &size, err);
	if (ret)
		return ret;
	params->hdr.ramdisk_image = (u32)gpa;
	params->ext_ramdisk_image = (u32)(gpa >> 32);
	params->hdr.ramdisk_size = (u32)size;
	params->ext_ramdisk_size = (u32)(size >> 32);
	return 0;
}

static void fill_e820(const struct boot_layout *layout, struct boot_params *params)
{
	struct boot_e820 map[BOOT_E820_MAX];
	params->e820_entries = (u8)boot_e820(layout, map);
	for (u32 i = 0; i < params->e820_entries; i++)
		params->e820_table[i] = (struct boot_e820_entry){
		    .addr = map[i].addr, .size = map[i].size, .type = map[i].type};
}

int linux_start(struct boot_context *boot, const struct setup_header *header, u64 entry,
		struct error *err)
{
	struct boot_params *params;
	void *at;
	u64 gpa;
	int ret = boot_place(&boot->layout, sizeof(*params), 4096, "the zero page", &gpa, &at, err);
	if (ret)
		return ret;
	params = at;
	params->hdr = *header;
	params->hdr.type_of_loader = LOADER_UNDEFINED;
	params->hdr.loadflags &= (u8) ~(CAN_USE_HEAP | KASLR_FLAG);
	params->acpi_rsdp_addr = boot->rsdp;
	fill_e820(&boot->layout, params);

	ret = place_cmdline(boot, params, err);
	if (!ret)
		ret = boot_enter_long(boot, entry, err);
	/* Last, when everything else has its place: the message then knows what does not fit. */
	if (!ret)
		ret = place_initrd(boot, params, err);
	if (ret)
		return ret;
	boot->state->regs.rsi = gpa;
	trace(boot, 1, "Linux starts at %#llx, zero page at %#llx, command line: %s",
	      (unsigned long long)entry, (unsigned long long)gpa, boot->cmdline);
	return 0;
}
