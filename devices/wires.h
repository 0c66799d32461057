/*
 * Wires: what a device pulls on without knowing what is at the other end.
 */
#ifndef GUISE_DEVICES_WIRES_H
#define GUISE_DEVICES_WIRES_H

#include "base/types.h"

/** An interrupt line. A wire with set == NULL leads nowhere. */
struct irq_wire {
	void (*set)(void *opaque, u32 line, int level); /* any thread */
	void *opaque;
	u32 line;
};

static inline void irq_wire_set(const struct irq_wire *wire, int level)
{
	if (wire->set)
		wire->set(wire->opaque, wire->line, level);
}

/** What a guest can ask of the machine's power. */
enum power_event {
	POWER_OFF,   /* ACPI S5 */
	POWER_RESET, /* keyboard controller, port 92, CF9 */
	POWER_EXIT,  /* the debug-exit port, with a code */
};

/** The way from a device to the machine's power. Any vCPU's thread; returns at once. */
struct power_wire {
	void (*request)(void *opaque, enum power_event event, u32 code);
	void *opaque;
};

static inline void power_wire_request(const struct power_wire *wire, enum power_event event,
				      u32 code)
{
	wire->request(wire->opaque, event, code);
}

#endif
