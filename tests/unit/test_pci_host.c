/* PCI configuration through ports CF8 and CFC: what a guest finds, and what it may not reach. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/error.h"
#include "devices/pci_host.h"
#include "devices/system_control.h"

struct rig {
	struct bus io;
	struct system_control *control;
	struct pci_host *host;
	int resets;
	struct pci_function function;
	u32 written; /* offset and size of the last write, size in the low byte */
};

static void requested(void *opaque, enum power_event event, u32 code)
{
	struct rig *rig = opaque;
	rig->resets++;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	struct power_wire power = {requested, rig};
	rig->io.name = "test";
	assert_int_equal(system_control_create(&rig->control, &rig->io, power, &err), 0);
	assert_int_equal(pci_host_create(&rig->host, &rig->io, rig->control, &err), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	pci_host_destroy(rig->host);
	system_control_destroy(rig->control);
	free(rig);
	return 0;
}

static void out(struct rig *rig, u16 port, u32 value, u32 size)
{
	bus_write(&rig->io, port, value, size);
}

static u32 in(struct rig *rig, u16 port, u32 size)
{
	return (u32)bus_read(&rig->io, port, size);
}

static u32 config(struct rig *rig, u32 bus, u32 device, u32 function, u32 reg)
{
	out(rig, 0xcf8, 0x80000000u | bus << 16 | device << 11 | function << 8 | reg, 4);
	return in(rig, 0xcfc, 4);
}

static void bridge_alone(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(config(rig, 0, 0, 0, 0x00), 0x12378086);
	assert_int_equal(config(rig, 0, 0, 0, 0x04), 0x02000006);
	assert_int_equal(config(rig, 0, 0, 0, 0x08), 0x06000002);
	assert_int_equal(config(rig, 0, 0, 0, 0x0c), 0);
	assert_int_equal(config(rig, 0, 0, 0, 0xfc), 0);
	for (u32 place = 1; place < 256; place++)
		assert_int_equal(config(rig, 0, place >> 3, place & 7, 0), 0xffffffff);
	for (u32 bus = 1; bus < 256; bus++)
		assert_int_equal(config(rig, bus, 0, 0, 0), 0xffffffff);
}

static void address_register(void **state)
{
	struct rig *rig = *state;
	out(rig, 0xcf8, 0xffffffff, 4);
	assert_int_equal(in(rig, 0xcf8, 4), 0x80fffffc); /* reserved bits read as zero */
	out(rig, 0xcf8, 0x80000000, 4);
	/* Parts of it are other devices' ports: nothing there, or the reset register. */
	out(rig, 0xcfb, 0x01, 1);
	out(rig, 0xcf8, 0x0404, 2);
	out(rig, 0xcfa, 0xffff, 2);
	assert_int_equal(in(rig, 0xcf8, 4), 0x80000000);
	assert_int_equal(in(rig, 0xcf8, 1), 0xff);
	assert_int_equal(rig->resets, 1); /* by the word at CF8, whose second byte is CF9 */
	out(rig, 0xcf9, 0x02, 1);
	assert_int_equal(in(rig, 0xcf9, 1), 0x02);
	assert_int_equal(in(rig, 0xcf8, 4), 0x80000000);
	assert_int_equal(rig->resets, 1);
}

static void disabled(void **state)
{
	struct rig *rig = *state;
	out(rig, 0xcf8, 0x00000000, 4);
	assert_int_equal(in(rig, 0xcfc, 4), 0xffffffff);
	assert_int_equal(in(rig, 0xcfc, 1), 0xff);
}

static void parts_of_the_data(void **state)
{
	struct rig *rig = *state;
	config(rig, 0, 0, 0, 0);
	assert_int_equal(in(rig, 0xcfc, 1), 0x86);
	assert_int_equal(in(rig, 0xcfd, 1), 0x80);
	assert_int_equal(in(rig, 0xcfe, 2), 0x1237);
	assert_int_equal(in(rig, 0xcfd, 2), 0x3780);
	assert_int_equal(in(rig, 0xcff, 1), 0x12);
	/* the last register: an access past the port's end must stay inside the space */
	config(rig, 0, 0, 0, 0xfc);
	assert_int_equal(in(rig, 0xcff, 4) & 0xff, 0);
	out(rig, 0xcff, 0xffffffff, 4);
}

static void bridge_is_constant(void **state)
{
	struct rig *rig = *state;
	for (u32 reg = 0; reg < 256; reg += 4) {
		u32 before = config(rig, 0, 0, 0, reg);
		out(rig, 0xcfc, ~before, 4);
		assert_int_equal(in(rig, 0xcfc, 4), before);
	}
}

static void note(void *opaque, u8 offset, u32 size)
{
	struct rig *rig = opaque;
	rig->written = (u32)offset << 8 | size;
}

static void functions(void **state)
{
	struct rig *rig = *state;
	struct error err;
	rig->function = (struct pci_function){.name = "thing", .written = note, .opaque = rig};
	pci_set_word(&rig->function, 0, 0x1234);
	rig->function.writable[0x3c] = 0xf0;
	rig->function.writable[0xff] = 0xff;

	assert_int_equal(pci_host_add(rig->host, 32, 0, &rig->function, &err), -EINVAL);
	assert_int_equal(pci_host_add(rig->host, 1, 8, &rig->function, &err), -EINVAL);
	assert_int_equal(pci_host_add(rig->host, 1, 1, &rig->function, &err), -EINVAL);
	assert_int_equal(pci_host_add(rig->host, 0, 0, &rig->function, &err), -EEXIST);
	assert_int_equal(config(rig, 0, 0, 0, 0x0c), 0);
	assert_int_equal(pci_host_add(rig->host, 0, 3, &rig->function, &err), 0);
	assert_int_equal(config(rig, 0, 0, 0, 0x0c), 0x00800000);

	assert_int_equal(config(rig, 0, 0, 3, 0), 0x00001234);
	config(rig, 0, 0, 3, 0x3c);
	out(rig, 0xcfc, 0xffffffff, 4);
	assert_int_equal(in(rig, 0xcfc, 4), 0x000000f0);
	assert_int_equal(rig->written, 0x3c04);
	config(rig, 0, 0, 3, 0xfc);
	out(rig, 0xcff, 0x5a, 1);
	assert_int_equal(in(rig, 0xcfc, 4), 0x5a000000);
	assert_int_equal(rig->written, 0xff01);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(bridge_alone),	  T(address_register),	 T(disabled),
	    T(parts_of_the_data), T(bridge_is_constant), T(functions),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
