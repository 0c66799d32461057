/*
 * ACPI fixed hardware: power management event and control blocks and the timer. The FADT that boot/
 * writes tells guests these addresses.
 */
#ifndef GUISE_DEVICES_ACPI_PM_H
#define GUISE_DEVICES_ACPI_PM_H

#include "devices/bus.h"
#include "devices/wires.h"

#define ACPI_PM1A_EVENT_PORT   0x600 /* 4 bytes: status, enable */
#define ACPI_PM1A_CONTROL_PORT 0x604 /* 2 bytes */
#define ACPI_PM_TIMER_PORT     0x608 /* 4 bytes, 32 bits wide (FADT flag TMR_VAL_EXT) */
#define ACPI_SCI_IRQ	       9
#define ACPI_S5_SLEEP_TYPE     5 /* SLP_TYP of \_S5 in the DSDT */

struct acpi_pm;
struct loop;

/** Returns 0 and *out, or a negative errno with @err. */
int acpi_pm_create(struct acpi_pm **out, struct bus *io, struct loop *loop, struct irq_wire sci,
		   struct power_wire power, struct error *err);

/** NULL is fine. On the loop's thread, or while it does not run. */
void acpi_pm_destroy(struct acpi_pm *pm);

#endif
