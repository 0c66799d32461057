/*
 * ACPI tables: what an operating system must be told of this machine: processors, interrupt
 * controllers, how to switch it off, and the devices that cannot be found by looking.
 */
#ifndef GUISE_BOOT_ACPI_H
#define GUISE_BOOT_ACPI_H

#include "base/types.h"

struct error;
struct guest_memory;

/* Hardware that the tables promise. */
#define ACPI_PM1A_EVENT	  0x600 /* 4 ports: status, enable */
#define ACPI_PM1A_CONTROL 0x604 /* 2 ports */
#define ACPI_PM_TIMER	  0x608 /* 4 ports, 24 bits at 3.579545 MHz */
#define ACPI_SCI	  9	/* GSI, level-triggered, active high */
#define ACPI_SLP_TYP_S5	  5
#define ACPI_RESET_PORT	  0xcf9
#define ACPI_RESET_VALUE  6

/**
 * Writes the tables for @cpu_count processors into [BOOT_ACPI, BOOT_HIGH_MEM).
 * Returns 0 with the root pointer's address in *@rsdp, or -E2BIG if there are too many processors
 * for the room.
 */
int acpi_build(const struct guest_memory *memory, u32 cpu_count, u64 *rsdp, struct error *err);

#endif
