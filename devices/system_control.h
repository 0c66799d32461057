/*
 * A PC's odd ports for A20 and reset: 92 (system control port A) and CF9 (reset control).
 */
#ifndef GUISE_DEVICES_SYSTEM_CONTROL_H
#define GUISE_DEVICES_SYSTEM_CONTROL_H

#include "devices/bus.h"
#include "devices/wires.h"

struct system_control;

/** Returns 0 and *out, or a negative errno with @err. */
int system_control_create(struct system_control **out, struct bus *io, struct power_wire power,
			  struct error *err);

/**
 * The reset register, CF9. It lies within PCI's address port, so the PCI host bridge is what finds
 * these accesses. Any thread.
 */
u8 system_control_read_reset(struct system_control *control);
void system_control_write_reset(struct system_control *control, u8 value);

/** NULL is fine. */
void system_control_destroy(struct system_control *control);

#endif
