/*
 * Guest memory: one host mapping, seen by the guest as the RAM of a PC.
 *
 *     gpa 0 ─────────── 3 GiB ────── 4 GiB ───────────────►
 *         │ low RAM      │ hole:      │ the rest of RAM
 *         │              │ devices,   │
 *         │              │ LAPIC, ... │
 *
 * The hole leaves room for IOAPIC (FEC00000), LAPIC (FEE00000) and devices, as on a PC. Everything
 * that follows a guest's address to host memory goes through guest_memory_at(): the one checked
 * door.
 */
#ifndef GUISE_MEMORY_MEMORY_H
#define GUISE_MEMORY_MEMORY_H

#include "base/types.h"

struct error;

#define GUEST_MEMORY_HOLE_START (3ull << 30)
#define GUEST_MEMORY_HOLE_END	(4ull << 30)
#define GUEST_MEMORY_MIN	(1ull << 20) /* the real-mode megabyte is all there */
#define GUEST_PAGE_SIZE		4096ull

/** A stretch of RAM: guest-physical [gpa, gpa + size) is host memory [host, host + size). */
struct guest_ram_range {
	u64 gpa;
	u64 size;
	u8 *host;
};

/** The RAM of one VM. Constant after guest_memory_create(); reading it needs no lock. */
struct guest_memory {
	u8 *base; /* the whole mapping */
	u64 size; /* bytes of RAM in all */
	int fd;	  /* the memfd behind it, "guise-guest" */
	u32 range_count;
	struct guest_ram_range ranges[2]; /* ascending by gpa, page-aligned */
};

/** Goes through the RAM ranges in ascending order, for e820 and memory slots. */
#define guest_memory_for_each(mem, range)                                                          \
	for (const struct guest_ram_range *range = (mem)->ranges;                                  \
	     range < (mem)->ranges + (mem)->range_count; range++)

/** Bytes of RAM that the host has: the most that guest_memory_create() gives. */
u64 guest_memory_host_bytes(void);

/**
 * Maps @size bytes of zeroed RAM (a multiple of the page size, GUEST_MEMORY_MIN at least, not more
 * than the host has). Pages are taken from the host when they are first touched.
 * Returns 0, -EINVAL for a bad size or -ENOMEM, with @err.
 */
int guest_memory_create(struct guest_memory *mem, u64 size, struct error *err);

/** Unmaps. Harmless on a structure that is all zero. */
void guest_memory_destroy(struct guest_memory *mem);

/**
 * Host address of guest-physical [@gpa, @gpa + @length), or NULL unless all of it lies inside one
 * range of RAM. A length of 0 is inside wherever its gpa is. Any values are allowed; any thread.
 * The guest may change what is there at any moment: read a value once, then check the copy.
 */
void *guest_memory_at(const struct guest_memory *mem, u64 gpa, u64 length);

/** Copies @length bytes out of or into guest RAM. 0, or -EFAULT with nothing copied. Any thread.
 * What is written once there are vCPUs, this way or another, has to be told to the engine
 * (vm_memory_written). */
int guest_memory_read(const struct guest_memory *mem, u64 gpa, void *to, u64 length);
int guest_memory_write(const struct guest_memory *mem, u64 gpa, const void *from, u64 length);

#endif
