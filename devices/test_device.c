/*
 * Test device. No datasheet: it is laid out as QEMU's pc-testdev, for which such tests are written.
 *
 *     ports E0 to E3        a latch of 32 bits that reads back what was written, in any size
 *     ports E4 to E7        hint that the page at the address written should fault in the host;
 *                           nothing a guest could see would differ, so it is ignored
 *     ports 2000 to 200F    a byte each: level of the ISA interrupt line of that number
 *     FF000000, 64 KiB      memory that is reached through the bus, not as RAM
 *
 * pc-testdev's second window to the latch, at E8, is left out: E9 is the debug console.
 */
#include "devices/test_device.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define PORT_LATCH   0xe0
#define LATCH_BYTES  4
#define PORT_FLUSH   0xe4
#define FLUSH_PORTS  4
#define PORT_LINES   0x2000
#define MEMORY_START 0xff000000ull
#define MEMORY_BYTES 0x10000

#define ALL_SIZES (BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4 | BUS_SIZE_8)

struct test_device {
	struct irq_wire lines[TEST_DEVICE_LINES];
	pthread_mutex_t lock; /* guards all below */
	u8 latch[LATCH_BYTES];
	u8 memory[MEMORY_BYTES];
};

/* The bus keeps offset + size inside the region, which is as long as @bytes. */
static u64 load(struct test_device *d, const u8 *bytes, u64 offset, u32 size)
{
	u64 value = 0;
	pthread_mutex_lock(&d->lock);
	memcpy(&value, bytes + offset, size);
	pthread_mutex_unlock(&d->lock);
	return value;
}

static void store(struct test_device *d, u8 *bytes, u64 offset, u64 value, u32 size)
{
	pthread_mutex_lock(&d->lock);
	memcpy(bytes + offset, &value, size);
	pthread_mutex_unlock(&d->lock);
}

static u64 latch_read(void *opaque, u64 offset, u32 size)
{
	struct test_device *d = opaque;
	return load(d, d->latch, offset, size);
}

static void latch_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct test_device *d = opaque;
	store(d, d->latch, offset, value, size);
}

static u64 memory_read(void *opaque, u64 offset, u32 size)
{
	struct test_device *d = opaque;
	return load(d, d->memory, offset, size);
}

static void memory_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct test_device *d = opaque;
	store(d, d->memory, offset, value, size);
}

static u64 nothing_read(void *opaque, u64 offset, u32 size)
{
	return UINT64_MAX;
}

static void nothing_write(void *opaque, u64 offset, u64 value, u32 size)
{
}

static void line_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct test_device *d = opaque;
	irq_wire_set(&d->lines[offset], value != 0);
}

static const struct bus_ops latch_ops = {
    .name = "test device's latch",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4,
    .read = latch_read,
    .write = latch_write,
};

static const struct bus_ops flush_ops = {
    .name = "test device's page flush",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4,
    .read = nothing_read,
    .write = nothing_write,
};

static const struct bus_ops line_ops = {
    .name = "test device's interrupt lines",
    .sizes = BUS_SIZE_1,
    .read = nothing_read,
    .write = line_write,
};

static const struct bus_ops memory_ops = {
    .name = "test device's memory",
    .sizes = ALL_SIZES,
    .read = memory_read,
    .write = memory_write,
};

int test_device_create(struct test_device **out, const struct test_device_config *config,
		       struct error *err)
{
	struct test_device *d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(err, ENOMEM, "no memory for the test device");
	memcpy(d->lines, config->lines, sizeof(d->lines));
	pthread_mutex_init(&d->lock, NULL);

	int ret = bus_add(config->io, PORT_LATCH, LATCH_BYTES, &latch_ops, d, err);
	if (ret == 0)
		ret = bus_add(config->io, PORT_FLUSH, FLUSH_PORTS, &flush_ops, d, err);
	if (ret == 0)
		ret = bus_add(config->io, PORT_LINES, TEST_DEVICE_LINES, &line_ops, d, err);
	if (ret == 0)
		ret = bus_add(config->mmio, MEMORY_START, MEMORY_BYTES, &memory_ops, d, err);
	if (ret < 0) {
		test_device_destroy(d);
		return ret;
	}
	*out = d;
	return 0;
}

void test_device_destroy(struct test_device *d)
{
	if (!d)
		return;
	pthread_mutex_destroy(&d->lock);
	free(d);
}
