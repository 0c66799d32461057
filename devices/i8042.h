/*
 * The keyboard controller (i8042) with nothing plugged in: self-tests pass, devices do not answer,
 * and the reset line works. Ports 60 and 64, IRQ 1.
 */
#ifndef GUISE_DEVICES_I8042_H
#define GUISE_DEVICES_I8042_H

#include "devices/bus.h"
#include "devices/wires.h"

#define I8042_IRQ 1

struct i8042;

/** Returns 0 and *out, or a negative errno with @err. */
int i8042_create(struct i8042 **out, struct bus *io, struct irq_wire irq, struct power_wire power,
		 struct error *err);

/** NULL is fine. */
void i8042_destroy(struct i8042 *kbc);

#endif
