/* The serial port: a 16550A at 3F8, IRQ 4 (COM1). */
#ifndef GUISE_DEVICES_SERIAL_H
#define GUISE_DEVICES_SERIAL_H

#include "devices/bus.h"
#include "devices/wires.h"

#define SERIAL_COM1_PORT 0x3f8
#define SERIAL_COM1_IRQ	 4
#define SERIAL_PORTS	 8

struct serial;

/** The far end of the line. Functions are called on vCPU threads and the event loop's. */
struct serial_line {
	void *opaque;
	/** Takes one byte; may wait. No lock of the serial port is held. */
	void (*put)(void *opaque, u8 byte);
	/** Whether put() would take a byte without delay: the transmitter shows "empty" only then.
	 */
	bool (*has_room)(void *opaque);
	/** Gives up to @room bytes that arrived; returns how many. Must not call back. */
	u32 (*take)(void *opaque, u8 *to, u32 room);
};

/**
 * Creates the port and claims its registers at @port of @io.
 * Returns 0 and *out, or a negative errno with @err.
 */
int serial_create(struct serial **out, struct bus *io, u16 port, struct irq_wire irq,
		  struct serial_line line, struct error *err);

/** NULL is fine. Nothing reaches the port any more. */
void serial_destroy(struct serial *serial);

/** Tells the port that line.take() or line.has_room() may answer differently now. Any thread. */
void serial_line_changed(struct serial *serial);

#endif
