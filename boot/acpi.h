/*
 * ACPI tables: what an operating system must be told of this machine: processors, interrupt
 * controllers, how to switch it off, and the devices that cannot be found by looking.
 */
#ifndef GUISE_BOOT_ACPI_H
#define GUISE_BOOT_ACPI_H

#include "base/types.h"

struct error;
struct guest_memory;

/**
 * Writes the tables for @cpu_count processors into [BOOT_ACPI, BOOT_HIGH_MEM).
 * Returns 0 with the root pointer's address in *@rsdp, or -E2BIG if there are too many processors
 * for the room.
 */
int acpi_build(const struct guest_memory *memory, u32 cpu_count, u64 *rsdp, struct error *err);

#endif
