/*
 * Ports for tests and early code: exit (F4), text (F1, E9), POST code (80).
 */
#ifndef GUISE_DEVICES_DEBUG_PORTS_H
#define GUISE_DEVICES_DEBUG_PORTS_H

#include "devices/bus.h"
#include "devices/wires.h"

struct debug_ports;

/**
 * Creates the ports on @io. Text goes byte by byte to @put (which may wait); a write to the exit
 * port requests POWER_EXIT with the value written. Returns 0 and *out, or a negative errno with
 * @err.
 */
int debug_ports_create(struct debug_ports **out, struct bus *io, struct power_wire power,
		       void (*put)(void *opaque, u8 byte), void *put_opaque, struct error *err);

/** NULL is fine. */
void debug_ports_destroy(struct debug_ports *ports);

#endif
