/*
 * Loading what a machine starts with: a kernel image, its initrd and command line, and the tables
 * that firmware would have left behind.
 *
 * Images known: Linux bzImage (unpacked on the host where possible, else by its own decompressor),
 * ELF with a PVH note, ELF of a 64-bit Linux, Multiboot 1, and flat images. Everything but a flat
 * image finds a PC's low memory:
 *
 *     00000 ── 00400 ── 00500 ───────────────── 9fc00 ── a0000 ───── e0000 ────── 100000
 *       zeroes   BDA      boot data as it fits     EBDA    nothing     ACPI tables
 *
 * A flat image starts at 0 and finds nothing else, except in protected and long mode the tables
 * that these modes cannot do without, in the last 32 KiB of RAM below 3 GiB (see flat.c).
 */
#ifndef GUISE_BOOT_BOOT_H
#define GUISE_BOOT_BOOT_H

#include <linux/kvm.h>

#include "base/types.h"

struct error;
struct guest_memory;

/** The mode in which a flat image is started. */
enum boot_flat_mode {
	BOOT_FLAT_REAL,	     /* CS:IP 0:0, all segments 0, as after reset otherwise */
	BOOT_FLAT_PROTECTED, /* flat 32-bit segments, EIP 0, paging off */
	BOOT_FLAT_LONG,	     /* 64-bit, first 4 GiB mapped to themselves, RIP 0 */
};

struct boot_image_request {
	const char *kernel_path;
	const char *initrd_path; /* or NULL; Multiboot: its one module */
	const char *cmdline;	 /* or NULL for an empty one */
	bool flat;		 /* kernel_path is a raw image for gpa 0 */
	enum boot_flat_mode flat_mode;
	u32 cpu_count; /* vCPUs the ACPI tables tell of: 1 or more */
};

/**
 * What vCPU 0 starts with. In: the state after reset as the engine gives it; out: what to set.
 */
struct boot_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
};

/**
 * Puts the image of @request into @memory and says in @state how to start it.
 *
 * Precondition: @memory holds zeroes (a fresh mapping, or one whose pages were discarded) and no
 * vCPU runs. Files are hostile: whatever they hold, nothing outside @memory is written.
 * Returns 0 or a negative errno with @err: -ENOEXEC is not an image that can be started here,
 * -EBADMSG a damaged or truncated one, -ENOMEM guest memory too small (the text says how much is
 * needed), -E2BIG a command line too long, else the error of reading the file. After a failure
 * @memory may hold parts of the image. Not thread-safe on one @memory.
 */
int boot_load(const struct boot_image_request *request, struct guest_memory *memory,
	      struct boot_state *state, struct error *err);

#endif
