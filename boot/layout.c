#include "boot/layout.h"

#include <errno.h>

#include "base/error.h"
#include "memory/memory.h"

void boot_layout_init(struct boot_layout *layout, const struct guest_memory *memory, bool firmware)
{
	*layout = (struct boot_layout){.memory = memory, .firmware = firmware};
	if (!firmware)
		return;
	/* Page 0 stays out of use: real-mode vectors, BDA. */
	layout->areas[layout->count++] = (struct boot_area){0, 0x1000, "the BIOS data area"};
	layout->areas[layout->count++] =
	    (struct boot_area){BOOT_LOW_END, BOOT_HIGH_MEM, "the PC's firmware area"};
}

#define PHYSICAL_END BIT(46) /* no machine of this kind has memory beyond */

/** The area that meets [@start, @end), or NULL. */
static const struct boot_area *area_at(const struct boot_layout *layout, u64 start, u64 end)
{
	for (u32 i = 0; i < layout->count; i++)
		if (start < layout->areas[i].end && layout->areas[i].start < end)
			return &layout->areas[i];
	return NULL;
}

u64 boot_memory_for(u64 end)
{
	if (end > GUEST_MEMORY_HOLE_START)
		end -= GUEST_MEMORY_HOLE_END - GUEST_MEMORY_HOLE_START;
	return (end >> 20) + !!(end & ((1ull << 20) - 1));
}

static int not_ram(const struct boot_layout *layout, u64 start, u64 end, const char *what,
		   struct error *err)
{
	bool in_hole = start < GUEST_MEMORY_HOLE_END && end > GUEST_MEMORY_HOLE_START;
	if (in_hole || end < start || end > PHYSICAL_END)
		return error_set(err, ENOEXEC,
				 "%s wants to be at %#llx-%#llx, where a PC has no memory", what,
				 (unsigned long long)start, (unsigned long long)end - 1);
	return error_set(err, ENOMEM,
			 "%s needs memory up to %#llx: give the guest %llu MiB at least (-m); "
			 "it has %llu",
			 what, (unsigned long long)end - 1,
			 (unsigned long long)boot_memory_for(end),
			 (unsigned long long)(layout->memory->size >> 20));
}

int boot_claim(struct boot_layout *layout, u64 start, u64 size, const char *what, void **host,
	       struct error *err)
{
	u64 end = start + size;
	void *at = size ? guest_memory_at(layout->memory, start, size) : NULL;
	if (!at)
		return not_ram(layout, start, end, what, err);
	const struct boot_area *other = area_at(layout, start, end);
	if (other)
		return error_set(err, ENOEXEC, "%s (%#llx-%#llx) overlaps %s (%#llx-%#llx)", what,
				 (unsigned long long)start, (unsigned long long)end - 1,
				 other->what, (unsigned long long)other->start,
				 (unsigned long long)other->end - 1);
	if (layout->count == BOOT_AREAS_MAX)
		return error_set(err, ENOEXEC, "%s: the image has too many parts", what);
	layout->areas[layout->count++] = (struct boot_area){start, end, what};
	if (host)
		*host = at;
	return 0;
}

/** Lowest free room in [@low, @high); each step leaves one area behind, so it ends. */
static bool find_lowest(const struct boot_layout *layout, u64 size, u64 align, u64 low, u64 high,
			u64 *gpa)
{
	for (;;) {
		u64 start = align_up(low, align);
		if (start < low || start > high || high - start < size)
			return false;
		const struct boot_area *area = area_at(layout, start, start + size);
		if (!area) {
			*gpa = start;
			return true;
		}
		low = area->end;
	}
}

static bool find_highest(const struct boot_layout *layout, u64 size, u64 align, u64 low, u64 high,
			 u64 *gpa)
{
	for (;;) {
		if (high < low || high - low < size)
			return false;
		u64 start = align_down(high - size, align);
		if (start < low)
			return false;
		const struct boot_area *area = area_at(layout, start, start + size);
		if (!area) {
			*gpa = start;
			return true;
		}
		high = area->start;
	}
}

bool boot_find(const struct boot_layout *layout, u64 size, u64 align, u64 min, u64 max,
	       bool highest, u64 *gpa)
{
	const struct guest_memory *memory = layout->memory;
	for (u32 i = 0; i < memory->range_count; i++) {
		const struct guest_ram_range *ram =
		    &memory->ranges[highest ? memory->range_count - 1 - i : i];
		u64 low = ram->gpa > min ? ram->gpa : min;
		u64 high = ram->gpa + ram->size < max ? ram->gpa + ram->size : max;
		if (highest ? find_highest(layout, size, align, low, high, gpa)
			    : find_lowest(layout, size, align, low, high, gpa))
			return true;
	}
	return false;
}

int boot_place(struct boot_layout *layout, u64 size, u64 align, const char *what, u64 *gpa,
	       void **host, struct error *err)
{
	if (!boot_find(layout, size, align, 0, BOOT_LOW_END, false, gpa) &&
	    !boot_find(layout, size, align, 0, BOOT_4G, false, gpa))
		return error_set(err, ENOMEM,
				 "no room for %s (%llu bytes): give the guest more memory (-m)",
				 what, (unsigned long long)size);
	return boot_claim(layout, *gpa, size, what, host, err);
}

u32 boot_e820(const struct boot_layout *layout, struct boot_e820 entries[BOOT_E820_MAX])
{
	u32 count = 0;
	guest_memory_for_each(layout->memory, ram)
	{
		u64 start = ram->gpa, end = ram->gpa + ram->size;
		if (layout->firmware && start == 0) {
			entries[count++] = (struct boot_e820){0, BOOT_LOW_END, BOOT_E820_RAM};
			entries[count++] = (struct boot_e820){BOOT_LOW_END, BOOT_VGA - BOOT_LOW_END,
							      BOOT_E820_RESERVED};
			entries[count++] = (struct boot_e820){BOOT_ACPI, BOOT_HIGH_MEM - BOOT_ACPI,
							      BOOT_E820_RESERVED};
			start = BOOT_HIGH_MEM;
		}
		if (start < end)
			entries[count++] = (struct boot_e820){start, end - start, BOOT_E820_RAM};
	}
	return count;
}
