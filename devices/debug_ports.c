/*
 * Debug ports. No datasheet: E9 is Bochs' and QEMU's debug console (reads back E9, which is how a
 * guest finds it), F1 the test console of kvm-unit-tests and of the classic small KVM demos, F4
 * QEMU's isa-debug-exit, 80 the POST code of the PC/AT.
 */
#include "devices/debug_ports.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"
#include "debug/trace.h"

#define PORT_POST      0x80
#define PORT_CONSOLE   0xe9
#define PORT_TEST_TEXT 0xf1
#define PORT_EXIT      0xf4
#define EXIT_PORTS     4 /* so that 32-bit exit codes come whole */

struct debug_ports {
	struct power_wire power;
	void (*put)(void *opaque, u8 byte);
	void *put_opaque;
	_Atomic u8 post;
};

static u64 post_read(void *opaque, u64 offset, u32 size)
{
	struct debug_ports *ports = opaque;
	return ports->post;
}

static void post_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct debug_ports *ports = opaque;
	ports->post = (u8)value;
	trace(io, 3, "POST code %#04x", (unsigned)value);
}

static u64 console_read(void *opaque, u64 offset, u32 size)
{
	return PORT_CONSOLE;
}

static u64 nothing_read(void *opaque, u64 offset, u32 size)
{
	return UINT64_MAX;
}

static void text_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct debug_ports *ports = opaque;
	ports->put(ports->put_opaque, (u8)value);
}

static void exit_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct debug_ports *ports = opaque;
	if (offset == 0)
		power_wire_request(&ports->power, POWER_EXIT, (u32)value);
}

static const struct bus_ops post_ops = {
    .name = "POST code",
    .sizes = BUS_SIZE_1,
    .read = post_read,
    .write = post_write,
};

static const struct bus_ops console_ops = {
    .name = "debug console",
    .sizes = BUS_SIZE_1,
    .read = console_read,
    .write = text_write,
};

static const struct bus_ops test_text_ops = {
    .name = "test console",
    .sizes = BUS_SIZE_1,
    .read = nothing_read,
    .write = text_write,
};

static const struct bus_ops exit_ops = {
    .name = "debug exit",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4,
    .read = nothing_read,
    .write = exit_write,
};

int debug_ports_create(struct debug_ports **out, struct bus *io, struct power_wire power,
		       void (*put)(void *opaque, u8 byte), void *put_opaque, struct error *err)
{
	struct debug_ports *ports = calloc(1, sizeof(*ports));
	if (!ports)
		return error_set(err, ENOMEM, "no memory for the debug ports");
	ports->power = power;
	ports->put = put;
	ports->put_opaque = put_opaque;

	int ret = bus_add(io, PORT_POST, 1, &post_ops, ports, err);
	if (ret == 0)
		ret = bus_add(io, PORT_CONSOLE, 1, &console_ops, ports, err);
	if (ret == 0)
		ret = bus_add(io, PORT_TEST_TEXT, 1, &test_text_ops, ports, err);
	if (ret == 0)
		ret = bus_add(io, PORT_EXIT, EXIT_PORTS, &exit_ops, ports, err);
	if (ret < 0) {
		free(ports);
		return ret;
	}
	*out = ports;
	return 0;
}

void debug_ports_destroy(struct debug_ports *ports)
{
	free(ports);
}
