/*
 * Keyboard controller 8042. IBM PC/AT Technical Reference (1984), "Keyboard Controller", and the
 * PS/2 additions for an auxiliary device (IBM PS/2 Hardware Interface Technical Reference, 1990).
 *
 * No keyboard and no mouse: a byte sent to either comes back as FE (resend) with the time-out bit,
 * at once, so that drivers give up without waiting.
 */
#include "devices/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM	   0x04 /* self-test passed */
#define STATUS_COMMAND	   0x08 /* the last write went to port 64 */
#define STATUS_UNLOCKED	   0x10
#define STATUS_AUX_DATA	   0x20
#define STATUS_TIMEOUT	   0x40

#define CONFIG_KBD_IRQ	    0x01
#define CONFIG_SYSTEM	    0x04
#define CONFIG_KBD_DISABLED 0x10
#define CONFIG_AUX_DISABLED 0x20

#define OUTPUT_PORT_RESET 0x01 /* low: processor reset */
#define OUTPUT_PORT_A20	  0x02

enum {
	CMD_READ_CONFIG = 0x20,
	CMD_WRITE_CONFIG = 0x60,
	CMD_AUX_DISABLE = 0xa7,
	CMD_AUX_ENABLE = 0xa8,
	CMD_AUX_TEST = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_KBD_TEST = 0xab,
	CMD_KBD_DISABLE = 0xad,
	CMD_KBD_ENABLE = 0xae,
	CMD_READ_INPUT_PORT = 0xc0,
	CMD_READ_OUTPUT_PORT = 0xd0,
	CMD_WRITE_OUTPUT_PORT = 0xd1,
	CMD_WRITE_KBD_BUFFER = 0xd2,
	CMD_WRITE_AUX_BUFFER = 0xd3,
	CMD_WRITE_AUX = 0xd4,
	CMD_PULSE_FIRST = 0xf0, /* F0 to FF: bits 0 to 3 say which output lines stay high */
};

#define SELF_TEST_PASSED 0x55
#define INTERFACE_GOOD	 0x00
#define AUX_DATA_STUCK	 0x02 /* interface test: data line stuck low, so no device there */
#define DEVICE_RESEND	 0xfe

struct i8042 {
	struct irq_wire irq;
	struct power_wire power;

	pthread_mutex_t lock; /* guards all below */
	int irq_level;
	u8 status, config, output_port;
	u8 data;    /* the output buffer */
	u8 command; /* the command that waits for its byte at port 60, or 0 */
};

static void update_irq(struct i8042 *kbc)
{
	bool keyboard_data =
	    (kbc->status & (STATUS_OUTPUT_FULL | STATUS_AUX_DATA)) == STATUS_OUTPUT_FULL;
	int level = keyboard_data && (kbc->config & CONFIG_KBD_IRQ);
	if (level != kbc->irq_level) {
		kbc->irq_level = level;
		irq_wire_set(&kbc->irq, level);
	}
}

/** Puts @value where port 60 reads it; @flags of the status tell whose it is. */
static void answer(struct i8042 *kbc, u8 value, u8 flags)
{
	kbc->data = value;
	kbc->status &= ~(STATUS_AUX_DATA | STATUS_TIMEOUT);
	kbc->status |= STATUS_OUTPUT_FULL | flags;
}

static u64 data_read(void *opaque, u64 offset, u32 size)
{
	struct i8042 *kbc = opaque;
	pthread_mutex_lock(&kbc->lock);
	u8 value = kbc->data;
	kbc->status &= ~(STATUS_OUTPUT_FULL | STATUS_AUX_DATA | STATUS_TIMEOUT);
	update_irq(kbc);
	pthread_mutex_unlock(&kbc->lock);
	return value;
}

static u64 status_read(void *opaque, u64 offset, u32 size)
{
	struct i8042 *kbc = opaque;
	pthread_mutex_lock(&kbc->lock);
	u8 value = kbc->status;
	pthread_mutex_unlock(&kbc->lock);
	return value;
}

static void data_write(void *opaque, u64 offset, u64 wide, u32 size)
{
	struct i8042 *kbc = opaque;
	u8 value = (u8)wide;
	bool reset = false;

	pthread_mutex_lock(&kbc->lock);
	kbc->status &= ~STATUS_COMMAND;
	switch (kbc->command) {
	case CMD_WRITE_CONFIG:
		kbc->config = value;
		break;
	case CMD_WRITE_OUTPUT_PORT:
		kbc->output_port = value;
		reset = !(value & OUTPUT_PORT_RESET);
		break;
	case CMD_WRITE_KBD_BUFFER:
		answer(kbc, value, 0);
		break;
	case CMD_WRITE_AUX_BUFFER:
		/* Not marked as the auxiliary device's: this controller has no such port, and a
		 * driver that sees so does not wait for its interrupt. */
		answer(kbc, value, 0);
		break;
	case CMD_WRITE_AUX:
		answer(kbc, DEVICE_RESEND, STATUS_AUX_DATA | STATUS_TIMEOUT);
		break;
	default:
		answer(kbc, DEVICE_RESEND, STATUS_TIMEOUT);
		break;
	}
	kbc->command = 0;
	update_irq(kbc);
	pthread_mutex_unlock(&kbc->lock);

	if (reset)
		power_wire_request(&kbc->power, POWER_RESET, 0);
}

/** Carries out a command that needs no further byte; keeps one that does. */
static void do_command(struct i8042 *kbc, u8 command)
{
	switch (command) {
	case CMD_READ_CONFIG:
		answer(kbc, kbc->config, 0);
		break;
	case CMD_WRITE_CONFIG:
	case CMD_WRITE_OUTPUT_PORT:
	case CMD_WRITE_KBD_BUFFER:
	case CMD_WRITE_AUX_BUFFER:
	case CMD_WRITE_AUX:
		kbc->command = command;
		break;
	case CMD_AUX_DISABLE:
		kbc->config |= CONFIG_AUX_DISABLED;
		break;
	case CMD_AUX_ENABLE:
		kbc->config &= ~CONFIG_AUX_DISABLED;
		break;
	case CMD_AUX_TEST:
		answer(kbc, AUX_DATA_STUCK, 0);
		break;
	case CMD_SELF_TEST:
		kbc->status |= STATUS_SYSTEM;
		answer(kbc, SELF_TEST_PASSED, 0);
		break;
	case CMD_KBD_TEST:
		answer(kbc, INTERFACE_GOOD, 0);
		break;
	case CMD_KBD_DISABLE:
		kbc->config |= CONFIG_KBD_DISABLED;
		break;
	case CMD_KBD_ENABLE:
		kbc->config &= ~CONFIG_KBD_DISABLED;
		break;
	case CMD_READ_INPUT_PORT:
		answer(kbc, 0x80, 0); /* bit 7: keyboard not locked */
		break;
	case CMD_READ_OUTPUT_PORT:
		answer(kbc, kbc->output_port, 0);
		break;
	default: /* unknown: the controller ignores it */
		break;
	}
}

static void command_write(void *opaque, u64 offset, u64 wide, u32 size)
{
	struct i8042 *kbc = opaque;
	u8 command = (u8)wide;
	bool reset = command >= CMD_PULSE_FIRST && !(command & OUTPUT_PORT_RESET);

	pthread_mutex_lock(&kbc->lock);
	kbc->status |= STATUS_COMMAND;
	kbc->command = 0;
	do_command(kbc, command);
	update_irq(kbc);
	pthread_mutex_unlock(&kbc->lock);

	if (reset)
		power_wire_request(&kbc->power, POWER_RESET, 0);
}

/** As a PC's firmware leaves it: tested, keyboard clock off, no interrupts, A20 open. */
static void reset_state(struct i8042 *kbc)
{
	kbc->status = STATUS_SYSTEM | STATUS_UNLOCKED;
	kbc->config = CONFIG_SYSTEM | CONFIG_AUX_DISABLED;
	kbc->output_port = OUTPUT_PORT_RESET | OUTPUT_PORT_A20;
}

static const struct bus_ops data_ops = {
    .name = "i8042 data",
    .sizes = BUS_SIZE_1,
    .read = data_read,
    .write = data_write,
};

static const struct bus_ops command_ops = {
    .name = "i8042 command",
    .sizes = BUS_SIZE_1,
    .read = status_read,
    .write = command_write,
};

int i8042_create(struct i8042 **out, struct bus *io, struct irq_wire irq, struct power_wire power,
		 struct error *err)
{
	struct i8042 *kbc = calloc(1, sizeof(*kbc));
	if (!kbc)
		return error_set(err, ENOMEM, "no memory for the keyboard controller");
	kbc->irq = irq;
	kbc->power = power;
	reset_state(kbc);
	int ret = bus_add(io, PORT_DATA, 1, &data_ops, kbc, err);
	if (ret == 0)
		ret = bus_add(io, PORT_COMMAND, 1, &command_ops, kbc, err);
	if (ret < 0) {
		free(kbc);
		return ret;
	}
	pthread_mutex_init(&kbc->lock, NULL);
	*out = kbc;
	return 0;
}

void i8042_destroy(struct i8042 *kbc)
{
	if (!kbc)
		return;
	pthread_mutex_destroy(&kbc->lock);
	free(kbc);
}
