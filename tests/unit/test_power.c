/* Every way a guest has to end or restart a machine, and the ports around them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "devices/acpi_pm.h"
#include "devices/debug_ports.h"
#include "devices/i8042.h"
#include "devices/pci_host.h"
#include "devices/system_control.h"
#include "host/loop.h"

struct rig {
	struct bus io;
	struct loop *loop;
	struct acpi_pm *pm;
	struct debug_ports *debug;
	struct i8042 *kbc;
	struct system_control *control;
	struct pci_host *pci;
	int events;
	enum power_event event;
	u32 code;
	int irq[16];
	char text[16];
};

static void set_irq(void *opaque, u32 line, int level)
{
	struct rig *rig = opaque;
	rig->irq[line] = level;
}

static void requested(void *opaque, enum power_event event, u32 code)
{
	struct rig *rig = opaque;
	rig->events++;
	rig->event = event;
	rig->code = code;
}

static void put(void *opaque, u8 byte)
{
	struct rig *rig = opaque;
	rig->text[strlen(rig->text)] = (char)byte;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	struct power_wire power = {requested, rig};
	struct irq_wire sci = {set_irq, rig, ACPI_SCI_IRQ}, kbd = {set_irq, rig, I8042_IRQ};
	rig->io.name = "test";
	assert_int_equal(loop_create(&rig->loop, &err), 0);
	assert_int_equal(acpi_pm_create(&rig->pm, &rig->io, rig->loop, sci, power, &err), 0);
	assert_int_equal(debug_ports_create(&rig->debug, &rig->io, power, put, rig, &err), 0);
	assert_int_equal(i8042_create(&rig->kbc, &rig->io, kbd, power, &err), 0);
	assert_int_equal(system_control_create(&rig->control, &rig->io, power, &err), 0);
	assert_int_equal(pci_host_create(&rig->pci, &rig->io, rig->control, &err), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	pci_host_destroy(rig->pci);
	system_control_destroy(rig->control);
	i8042_destroy(rig->kbc);
	debug_ports_destroy(rig->debug);
	acpi_pm_destroy(rig->pm);
	loop_destroy(rig->loop);
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

static void expect(struct rig *rig, enum power_event event, u32 code)
{
	assert_int_equal(rig->events, 1);
	assert_int_equal(rig->event, event);
	assert_int_equal(rig->code, code);
	rig->events = 0;
}

static void powers_off(void **state)
{
	struct rig *rig = *state;
	out(rig, 0x604, 5 << 10, 2); /* the type alone does nothing */
	out(rig, 0x604, 1 << 13 | 1 << 10, 2);
	assert_int_equal(rig->events, 0);
	out(rig, 0x604, 1 << 13 | 5 << 10, 2);
	expect(rig, POWER_OFF, 0);
	out(rig, 0x604, 5 << 10, 2);
	out(rig, 0x605, 0x20 | 5 << 2, 1); /* as bytes */
	expect(rig, POWER_OFF, 0);
	assert_int_equal(in(rig, 0x604, 2) & 0x2001, 0x0001); /* SCI_EN stays, SLP_EN reads 0 */
}

static void resets(void **state)
{
	struct rig *rig = *state;
	out(rig, 0x64, 0xfe, 1);
	expect(rig, POWER_RESET, 0);
	out(rig, 0x64, 0xd1, 1);
	out(rig, 0x60, 0xfe, 1);
	expect(rig, POWER_RESET, 0);
	out(rig, 0x92, 0x01, 1);
	expect(rig, POWER_RESET, 0);
	out(rig, 0xcf9, 0x02, 1);
	assert_int_equal(rig->events, 0);
	out(rig, 0xcf9, 0x06, 1);
	expect(rig, POWER_RESET, 0);
}

static void no_reset_by_accident(void **state)
{
	struct rig *rig = *state;
	out(rig, 0xcf8, 0x80000600, 4); /* a PCI probe, whose second byte would be a reset */
	out(rig, 0xcfb, 0x06, 1);
	out(rig, 0xcf8, 0x06, 1);
	out(rig, 0x64, 0xff, 1); /* pulses no line */
	out(rig, 0x64, 0xd1, 1);
	out(rig, 0x60, 0xdf, 1); /* A20 on */
	out(rig, 0x92, 0x02, 1);
	assert_int_equal(in(rig, 0x92, 1), 0x02);
	assert_int_equal(rig->events, 0);
}

static void debug_exit(void **state)
{
	struct rig *rig = *state;
	out(rig, 0xf4, 0, 1);
	expect(rig, POWER_EXIT, 0);
	out(rig, 0xf4, 0x12345678, 4);
	expect(rig, POWER_EXIT, 0x12345678);
	out(rig, 0xf5, 1, 1);
	assert_int_equal(rig->events, 0);
}

static void debug_text(void **state)
{
	struct rig *rig = *state;
	out(rig, 0xe9, 'a', 1);
	out(rig, 0xf1, 'b', 1);
	assert_string_equal(rig->text, "ab");
	assert_int_equal(in(rig, 0xe9, 1), 0xe9);
	out(rig, 0x80, 0x42, 1);
	assert_int_equal(in(rig, 0x80, 1), 0x42);
}

/** What Linux' i8042 driver asks of a controller before it looks for devices. */
static void keyboard_controller_passes(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(in(rig, 0x64, 1) & 1, 0);
	out(rig, 0x64, 0xaa, 1);
	assert_int_equal(in(rig, 0x64, 1) & 1, 1);
	assert_int_equal(in(rig, 0x60, 1), 0x55);
	assert_int_equal(in(rig, 0x64, 1) & 1, 0);
	out(rig, 0x64, 0x60, 1);
	out(rig, 0x60, 0x65, 1);
	out(rig, 0x64, 0x20, 1);
	assert_int_equal(in(rig, 0x60, 1), 0x65);
	out(rig, 0x64, 0xd3, 1);
	out(rig, 0x60, 0x5a, 1);
	assert_int_equal(in(rig, 0x64, 1) & 0x21, 0x01); /* not from an auxiliary port */
	assert_int_equal(in(rig, 0x60, 1), 0x5a);
	out(rig, 0x64, 0xa9, 1);
	assert_int_not_equal(in(rig, 0x60, 1), 0);
}

static void no_keyboard_answers_at_once(void **state)
{
	struct rig *rig = *state;
	out(rig, 0x64, 0x60, 1);
	out(rig, 0x60, 0x05, 1); /* keyboard interrupt on */
	out(rig, 0x60, 0xff, 1); /* reset, to the keyboard */
	assert_int_equal(rig->irq[I8042_IRQ], 1);
	assert_int_equal(in(rig, 0x64, 1) & 0x61, 0x41);
	assert_int_equal(in(rig, 0x60, 1), 0xfe);
	assert_int_equal(rig->irq[I8042_IRQ], 0);
	out(rig, 0x64, 0xd4, 1);
	out(rig, 0x60, 0xff, 1);
	assert_int_equal(rig->irq[I8042_IRQ], 0);
	assert_int_equal(in(rig, 0x64, 1) & 0x61, 0x61);
}

static void pm_timer_runs(void **state)
{
	struct rig *rig = *state;
	u64 begin = loop_now();
	u32 first = in(rig, 0x608, 4);
	while (loop_now() - begin < 5000000)
		;
	u32 ticks = in(rig, 0x608, 4) - first;
	u64 ns = loop_now() - begin;
	/* 279.4 ns a tick; the second look at the clock came later than the second read */
	assert_true(ticks >= 5000000 / 280);
	assert_true(ticks <= ns / 279 + 1);
}

static void pm_events(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(in(rig, 0x600, 4), 0);
	out(rig, 0x602, 0x0121, 2);
	assert_int_equal(in(rig, 0x602, 2), 0x0121);
	assert_int_equal(in(rig, 0x603, 1), 0x01);
	out(rig, 0x600, 0xffff, 2);
	assert_int_equal(in(rig, 0x600, 4), 0x01210000);
	assert_int_equal(rig->irq[ACPI_SCI_IRQ], 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(powers_off),
	    T(resets),
	    T(no_reset_by_accident),
	    T(debug_exit),
	    T(debug_text),
	    T(keyboard_controller_passes),
	    T(no_keyboard_answers_at_once),
	    T(pm_timer_runs),
	    T(pm_events),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
