/*
 * System control port A (92) and the reset control register (CF9).
 * Intel 82371SB (PIIX3) datasheet, sections 2.5.2 (port 92) and 2.5.8 (reset control).
 */
#include "devices/system_control.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"

#define PORT_92	      0x92
#define PORT92_RESET  0x01 /* 0 to 1: processor reset */
#define PORT92_A20    0x02
#define CF9_SYSTEM    0x02
#define CF9_RESET     0x04 /* 0 to 1: reset of the kind that bit 1 says */
#define CF9_FULL      0x08
#define CF9_KEPT_BITS (CF9_SYSTEM | CF9_FULL)

struct system_control {
	struct power_wire power;
	_Atomic u8 port92;
	_Atomic u8 reset_control;
};

static u64 port92_read(void *opaque, u64 offset, u32 size)
{
	struct system_control *c = opaque;
	return c->port92;
}

static void port92_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct system_control *c = opaque;
	/* A20 is always open here; the bit is kept for guests that read back what they wrote. */
	c->port92 = (u8)value & PORT92_A20;
	if (value & PORT92_RESET)
		power_wire_request(&c->power, POWER_RESET, 0);
}

u8 system_control_read_reset(struct system_control *c)
{
	return c->reset_control;
}

void system_control_write_reset(struct system_control *c, u8 value)
{
	c->reset_control = value & CF9_KEPT_BITS;
	if (value & CF9_RESET)
		power_wire_request(&c->power, POWER_RESET, 0);
}

static const struct bus_ops port92_ops = {
    .name = "system control A",
    .sizes = BUS_SIZE_1,
    .read = port92_read,
    .write = port92_write,
};

int system_control_create(struct system_control **out, struct bus *io, struct power_wire power,
			  struct error *err)
{
	struct system_control *c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, ENOMEM, "no memory for the system control ports");
	c->power = power;
	c->port92 = PORT92_A20;
	int ret = bus_add(io, PORT_92, 1, &port92_ops, c, err);
	if (ret < 0) {
		free(c);
		return ret;
	}
	*out = c;
	return 0;
}

void system_control_destroy(struct system_control *c)
{
	free(c);
}
