/*
 * A bus: which device answers at which address. One for I/O ports, one for MMIO.
 *
 * Regions are set up before the first vCPU runs and constant afterwards, so that accesses need no
 * lock; a device that has state locks itself, as several vCPUs and the event loop may call it at
 * once.
 */
#ifndef GUISE_DEVICES_BUS_H
#define GUISE_DEVICES_BUS_H

#include "base/types.h"

struct error;

/** Access sizes, to be or-ed in bus_ops.sizes; their value is the size in bytes. */
#define BUS_SIZE_1 1u
#define BUS_SIZE_2 2u
#define BUS_SIZE_4 4u
#define BUS_SIZE_8 8u

/**
 * What a device does on a bus. @offset counts from the start of its region; offset + size lies
 * inside the region, and size is one of @sizes. Any vCPU's thread.
 */
struct bus_ops {
	const char *name;
	u32 sizes; /* BUS_SIZE_* */
	u64 (*read)(void *opaque, u64 offset, u32 size);
	void (*write)(void *opaque, u64 offset, u64 value, u32 size);
};

struct bus_region {
	u64 start;
	u64 length;
	const struct bus_ops *ops;
	void *opaque;
};

#define BUS_REGIONS_MAX 64

struct bus {
	const char *name; /* in messages: "I/O port", "MMIO" */
	u32 count;
	struct bus_region regions[BUS_REGIONS_MAX]; /* ascending, without overlap */
};

/**
 * Claims [@start, @start + @length) for @ops.
 * Returns 0; -EEXIST if any of it is taken, -EINVAL for an empty or wrapping range, -ENOSPC if the
 * bus is full, with @err. Not while a vCPU runs.
 */
int bus_add(struct bus *bus, u64 start, u64 length, const struct bus_ops *ops, void *opaque,
	    struct error *err);

/**
 * An access of @size (1 to 8) bytes. One that no device takes in this size is split in two, as on a
 * PC, where a 16-bit access to an 8-bit device becomes two; bytes that nobody claims read as ones
 * and swallow what is written. Any thread, any values.
 */
u64 bus_read(const struct bus *bus, u64 addr, u32 size);
void bus_write(const struct bus *bus, u64 addr, u64 value, u32 size);

#endif
