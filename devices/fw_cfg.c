/*
 * QEMU Firmware Configuration (fw_cfg) Device, QEMU's docs/specs/fw_cfg.rst: the traditional
 * interface only, without files and DMA.
 *
 *     510   16-bit write: selects an item and goes to its start
 *     511   8-bit read: its next byte; 0 behind its end and for items that are not there
 */
#include "devices/fw_cfg.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"

#define PORT_SELECTOR 0x510
#define PORTS	      2
#define DATA_OFFSET   1

enum fw_cfg_key {
	KEY_SIGNATURE = 0x00,
	KEY_ID = 0x01,
	KEY_RAM_SIZE = 0x03,
	KEY_NB_CPUS = 0x05,
	KEY_MAX_CPUS = 0x0f,
};

#define SIGNATURE      0x554d4551 /* "QEMU": what tells this interface from nothing */
#define ID_TRADITIONAL BIT(0)

struct fw_cfg {
	u64 memory_size;
	u16 cpu_count;
	pthread_mutex_t lock; /* guards the two below */
	u16 selected;
	u32 offset;
};

/* All items are little-endian numbers of 8 bytes at most; what lies behind them reads as 0 too. */
static u64 item(const struct fw_cfg *f, u16 key)
{
	switch (key) {
	case KEY_SIGNATURE:
		return SIGNATURE;
	case KEY_ID:
		return ID_TRADITIONAL;
	case KEY_RAM_SIZE:
		return f->memory_size;
	case KEY_NB_CPUS:
	case KEY_MAX_CPUS:
		return f->cpu_count;
	default:
		return 0;
	}
}

static u64 fw_cfg_read(void *opaque, u64 offset, u32 size)
{
	struct fw_cfg *f = opaque;
	if (offset != DATA_OFFSET || size != 1)
		return UINT64_MAX;
	u64 byte = 0;
	pthread_mutex_lock(&f->lock);
	if (f->offset < sizeof(u64))
		byte = item(f, f->selected) >> (f->offset++ * 8) & 0xff;
	pthread_mutex_unlock(&f->lock);
	return byte;
}

static void fw_cfg_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct fw_cfg *f = opaque;
	if (size != 2)
		return;
	pthread_mutex_lock(&f->lock);
	f->selected = (u16)value;
	f->offset = 0;
	pthread_mutex_unlock(&f->lock);
}

static const struct bus_ops fw_cfg_ops = {
    .name = "firmware configuration",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2,
    .read = fw_cfg_read,
    .write = fw_cfg_write,
};

int fw_cfg_create(struct fw_cfg **out, const struct fw_cfg_config *config, struct error *err)
{
	struct fw_cfg *f = calloc(1, sizeof(*f));
	if (!f)
		return error_set(err, ENOMEM, "no memory for the firmware configuration");
	f->memory_size = config->memory_size;
	f->cpu_count = config->cpu_count;
	pthread_mutex_init(&f->lock, NULL);
	int ret = bus_add(config->io, PORT_SELECTOR, PORTS, &fw_cfg_ops, f, err);
	if (ret < 0) {
		fw_cfg_destroy(f);
		return ret;
	}
	*out = f;
	return 0;
}

void fw_cfg_destroy(struct fw_cfg *f)
{
	if (!f)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}
