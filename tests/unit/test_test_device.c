/* The devices for test programs: the test device and the firmware configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/error.h"
#include "devices/fw_cfg.h"
#include "devices/test_device.h"

#define MEMORY 0xff000000ull

struct rig {
	struct bus io, mmio;
	struct test_device *device;
	struct fw_cfg *fw_cfg;
	int level[TEST_DEVICE_LINES];
	int changes;
};

static void set_irq(void *opaque, u32 line, int level)
{
	struct rig *rig = opaque;
	rig->level[line] = level;
	rig->changes++;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	rig->io.name = "port";
	rig->mmio.name = "MMIO";
	struct test_device_config config = {.io = &rig->io, .mmio = &rig->mmio};
	for (u32 n = 0; n < TEST_DEVICE_LINES; n++)
		config.lines[n] = (struct irq_wire){set_irq, rig, n};
	struct fw_cfg_config fw_cfg = {&rig->io, 0x123456789aull, 3};
	assert_int_equal(test_device_create(&rig->device, &config, &err), 0);
	assert_int_equal(fw_cfg_create(&rig->fw_cfg, &fw_cfg, &err), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	fw_cfg_destroy(rig->fw_cfg);
	test_device_destroy(rig->device);
	free(rig);
	return 0;
}

static void latch_keeps_bytes_in_place(void **state)
{
	struct rig *rig = *state;
	bus_write(&rig->io, 0xe0, 0x44332211, 4);
	assert_int_equal(bus_read(&rig->io, 0xe0, 4), 0x44332211);
	bus_write(&rig->io, 0xe0, 0xaa, 1);
	bus_write(&rig->io, 0xe2, 0xccdd, 2);
	assert_int_equal(bus_read(&rig->io, 0xe0, 4), 0xccdd22aa);
	assert_int_equal(bus_read(&rig->io, 0xe1, 2), 0xdd22);
	bus_write(&rig->io, 0xe4, 0x1000, 4); /* the page flush is next to it */
	assert_int_equal(bus_read(&rig->io, 0xe0, 4), 0xccdd22aa);
}

static void ports_pull_lines(void **state)
{
	struct rig *rig = *state;
	bus_write(&rig->io, 0x200f, 1, 1);
	bus_write(&rig->io, 0x2003, 0x80, 1);
	assert_int_equal(rig->level[15], 1);
	assert_int_equal(rig->level[3], 1);
	bus_write(&rig->io, 0x2003, 0, 1);
	assert_int_equal(rig->level[3], 0);
	assert_int_equal(rig->level[15], 1);
	assert_int_equal(rig->changes, 3);
	bus_write(&rig->io, 0x2010, 1, 1);
	assert_int_equal(rig->changes, 3);
	bus_write(&rig->io, 0x2004, 0x00010001, 4); /* bytes: lines 4 to 7 */
	assert_int_equal(rig->level[4], 1);
	assert_int_equal(rig->level[5], 0);
	assert_int_equal(rig->level[6], 1);
}

static void memory_remembers(void **state)
{
	struct rig *rig = *state;
	bus_write(&rig->mmio, MEMORY + 0xfff8, 0x8877665544332211, 8);
	assert_true(bus_read(&rig->mmio, MEMORY + 0xfff8, 8) == 0x8877665544332211);
	assert_int_equal(bus_read(&rig->mmio, MEMORY + 0xfffd, 2), 0x7766);
	assert_int_equal(bus_read(&rig->mmio, MEMORY + 0xffff, 2), 0xff88); /* over the end */
	assert_int_equal(bus_read(&rig->mmio, MEMORY, 8), 0);
}

static u64 fw_cfg_item(struct rig *rig, u16 key, u32 bytes)
{
	u64 value = 0;
	bus_write(&rig->io, 0x510, key, 2);
	for (u32 n = 0; n < bytes; n++)
		value |= bus_read(&rig->io, 0x511, 1) << (n * 8);
	return value;
}

static void fw_cfg_tells(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(fw_cfg_item(rig, 0x00, 4), 'Q' | 'E' << 8 | 'M' << 16 | 'U' << 24);
	assert_int_equal(fw_cfg_item(rig, 0x01, 4), 1);
	assert_int_equal(fw_cfg_item(rig, 0x03, 8), 0x123456789a);
	assert_int_equal(bus_read(&rig->io, 0x511, 1), 0); /* behind the end */
	assert_int_equal(fw_cfg_item(rig, 0x05, 2), 3);
	assert_int_equal(fw_cfg_item(rig, 0x0f, 2), 3);
	assert_int_equal(fw_cfg_item(rig, 0x11, 8), 0);
	assert_int_equal(fw_cfg_item(rig, 0xffff, 8), 0);
	assert_int_equal(fw_cfg_item(rig, 0x03, 2), 0x789a); /* selecting starts anew */
	bus_write(&rig->io, 0x510, 0x05, 1);		     /* no selection by bytes */
	assert_int_equal(bus_read(&rig->io, 0x511, 1), 0x56);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(latch_keeps_bytes_in_place),
	    TEST(ports_pull_lines),
	    TEST(memory_remembers),
	    TEST(fw_cfg_tells),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
