/*
 * A device for programs that test a processor and its interrupt chips: ports and memory that
 * remember, interrupt lines that a program pulls itself. Never part of a machine unasked.
 */
#ifndef GUISE_DEVICES_TEST_DEVICE_H
#define GUISE_DEVICES_TEST_DEVICE_H

#include "devices/bus.h"
#include "devices/wires.h"

#define TEST_DEVICE_LINES 16 /* the ISA interrupts */

struct test_device;

struct test_device_config {
	struct bus *io;
	struct bus *mmio;
	struct irq_wire lines[TEST_DEVICE_LINES];
};

/** Returns 0 and *out, or a negative errno with @err. */
int test_device_create(struct test_device **out, const struct test_device_config *config,
		       struct error *err);

/** NULL is fine. */
void test_device_destroy(struct test_device *device);

#endif
