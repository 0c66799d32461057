/*
 * Who sits where in guest memory while it is being filled: areas that are taken, room that is free,
 * and the memory map (e820) that the guest is told.
 */
#ifndef GUISE_BOOT_LAYOUT_H
#define GUISE_BOOT_LAYOUT_H

#include "base/types.h"

struct error;
struct guest_memory;

#define BOOT_BDA      0x400ull	 /* BIOS data area, 256 bytes */
#define BOOT_LOW_END  0x9fc00ull /* EBDA, the end of what a PC calls conventional memory */
#define BOOT_VGA      0xa0000ull
#define BOOT_ACPI     0xe0000ull /* where the guest looks for the RSDP (ACPI 6.5, 5.2.5.1) */
#define BOOT_HIGH_MEM 0x100000ull
#define BOOT_4G	      (1ull << 32)

#define BOOT_AREAS_MAX 96

struct boot_area {
	u64 start, end; /* [start, end), guest-physical */
	const char *what;
};

struct boot_layout {
	const struct guest_memory *memory;
	bool firmware; /* whether BDA, EBDA and ACPI area were set aside */
	u32 count;
	struct boot_area areas[BOOT_AREAS_MAX];
};

/* Address range types of ACPI 6.5, table 15.7. */
enum boot_e820_type { BOOT_E820_RAM = 1, BOOT_E820_RESERVED = 2 };

/** One line of the memory map, in the layout that Linux, PVH and Multiboot share. */
struct boot_e820 {
	u64 addr, size;
	u32 type;
};

#define BOOT_E820_MAX 8

/** Starts an empty layout over @memory; with @firmware, BDA, EBDA and ACPI area are taken. */
void boot_layout_init(struct boot_layout *layout, const struct guest_memory *memory, bool firmware);

/**
 * Takes [@start, @start + @size) for @what and gives its host address in *@host (which may be
 * NULL). Returns 0, -ENOMEM if it is not all RAM (the text says how much memory is needed) or
 * -ENOEXEC if it meets another area.
 */
int boot_claim(struct boot_layout *layout, u64 start, u64 size, const char *what, void **host,
	       struct error *err);

/**
 * Finds free RAM of @size bytes inside [@min, @max), aligned to @align (a power of two): the
 * lowest, or with @highest the highest. Returns false if there is none.
 */
bool boot_find(const struct boot_layout *layout, u64 size, u64 align, u64 min, u64 max,
	       bool highest, u64 *gpa);

/**
 * Finds the lowest room below 640 KiB, or failing that below 4 GiB, and takes it for @what.
 * Returns 0 with *@gpa and *@host, or -ENOMEM.
 */
int boot_place(struct boot_layout *layout, u64 size, u64 align, const char *what, u64 *gpa,
	       void **host, struct error *err);

/** Writes the memory map, ascending. Returns the number of entries, at most BOOT_E820_MAX. */
u32 boot_e820(const struct boot_layout *layout, struct boot_e820 entries[BOOT_E820_MAX]);

/** The least memory size, in MiB, whose RAM holds everything below @end. */
u64 boot_memory_for(u64 end);

#endif
