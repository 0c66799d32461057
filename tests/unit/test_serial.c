/* The 16550A, as drivers see it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "devices/serial.h"

#define PORT SERIAL_COM1_PORT

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR, THR = RBR, FCR = IIR, DLL = RBR, DLM = IER };

struct rig {
	struct bus io;
	struct serial *serial;
	int irq;
	bool room;
	char sent[64];
	u32 sent_count;
	const char *arriving;
};

static void set_irq(void *opaque, u32 line, int level)
{
	struct rig *rig = opaque;
	assert_int_equal(line, SERIAL_COM1_IRQ);
	assert_int_not_equal(rig->irq, level); /* a wire is set when it changes, only then */
	rig->irq = level;
}

static void line_put(void *opaque, u8 byte)
{
	struct rig *rig = opaque;
	assert_true(rig->sent_count < sizeof(rig->sent) - 1);
	rig->sent[rig->sent_count++] = (char)byte;
}

static bool line_has_room(void *opaque)
{
	struct rig *rig = opaque;
	return rig->room;
}

static u32 line_take(void *opaque, u8 *to, u32 room)
{
	struct rig *rig = opaque;
	u32 count = 0;
	while (count < room && *rig->arriving)
		to[count++] = (u8)*rig->arriving++;
	return count;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	rig->io.name = "test";
	rig->room = true;
	rig->arriving = "";
	struct irq_wire irq = {set_irq, rig, SERIAL_COM1_IRQ};
	struct serial_line line = {rig, line_put, line_has_room, line_take};
	assert_int_equal(serial_create(&rig->serial, &rig->io, PORT, irq, line, &err), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	serial_destroy(rig->serial);
	free(rig);
	return 0;
}

static u8 in(struct rig *rig, u32 reg)
{
	return (u8)bus_read(&rig->io, PORT + reg, 1);
}

static void out(struct rig *rig, u32 reg, u8 value)
{
	bus_write(&rig->io, PORT + reg, value, 1);
}

/** What Linux' 8250 driver does to find out what is there (its autoconfig, in this order). */
static void found_as_16550a(void **state)
{
	struct rig *rig = *state;

	out(rig, IER, 0);
	assert_int_equal(in(rig, IER), 0);
	out(rig, IER, 0x0f);
	assert_int_equal(in(rig, IER), 0x0f);
	out(rig, IER, 0xff); /* a 16750 or XScale would keep more */
	assert_int_equal(in(rig, IER), 0x0f);
	out(rig, IER, 0);

	out(rig, MCR, 0x10 | 0x0a); /* loop, OUT2, RTS */
	assert_int_equal(in(rig, MSR) & 0xf0, 0x90);
	out(rig, MCR, 0);

	out(rig, LCR, 0xbf); /* where a 16650 has EFR */
	out(rig, IIR, 0);
	out(rig, LCR, 0);
	assert_int_equal(in(rig, IIR) >> 6, 0);
	out(rig, FCR, 1);
	assert_int_equal(in(rig, IIR) >> 6, 3);

	out(rig, SCR, 0x5a);
	assert_int_equal(in(rig, SCR), 0x5a);
	out(rig, LCR, 0x80);
	out(rig, DLL, 0x34);
	out(rig, DLM, 0x12);
	assert_int_equal(in(rig, DLL), 0x34);
	assert_int_equal(in(rig, DLM), 0x12);
	out(rig, LCR, 3);
	assert_int_equal(in(rig, IER), 0);
	assert_int_equal(rig->irq, 0);
}

static void transmits_with_interrupts(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(in(rig, LSR), 0x60);
	out(rig, IER, 2); /* the register is empty: that interrupts at once */
	assert_int_equal(rig->irq, 1);
	assert_int_equal(in(rig, IIR), 0x02); /* and saying so clears it */
	assert_int_equal(rig->irq, 0);
	assert_int_equal(in(rig, IIR), 0x01);
	out(rig, THR, 'a');
	assert_int_equal(rig->irq, 1);
	out(rig, IER, 0);
	assert_int_equal(rig->irq, 0);
	assert_string_equal(rig->sent, "a");
}

static void holds_the_guest_back(void **state)
{
	struct rig *rig = *state;
	out(rig, IER, 2);
	assert_int_equal(in(rig, IIR), 0x02);
	rig->room = false;
	out(rig, THR, 'a');
	assert_int_equal(rig->irq, 0);
	assert_int_equal(in(rig, LSR) & 0x60, 0);
	out(rig, THR, 'b'); /* a guest that does not look loses nothing either */
	assert_string_equal(rig->sent, "ab");
	rig->room = true;
	serial_line_changed(rig->serial);
	assert_int_equal(rig->irq, 1);
	assert_int_equal(in(rig, LSR) & 0x60, 0x60);
	assert_int_equal(in(rig, IIR), 0x02);
}

static void receives_with_interrupts(void **state)
{
	struct rig *rig = *state;
	out(rig, FCR, 0x81); /* FIFO on, trigger at 8 */
	out(rig, IER, 1);
	rig->arriving = "0123456789abcdefXYZ";
	serial_line_changed(rig->serial);
	assert_int_equal(rig->irq, 1);
	assert_int_equal(in(rig, IIR), 0xc4);
	assert_string_equal(rig->arriving, "XYZ"); /* no room in the FIFO yet */
	char got[20] = "";
	for (u32 i = 0; in(rig, LSR) & 1; i++) {
		assert_true(i < sizeof(got) - 1);
		got[i] = (char)in(rig, RBR);
		if (i == 14) /* 4 left: below the trigger, so a time-out is what interrupts */
			assert_int_equal(in(rig, IIR), 0xcc);
	}
	assert_string_equal(got, "0123456789abcdefXYZ");
	assert_int_equal(rig->irq, 0);
	assert_int_equal(in(rig, LSR) & 2, 0); /* nothing overran */
}

static void bytes_wait_for_a_listener(void **state)
{
	struct rig *rig = *state;
	rig->arriving = "hi";
	serial_line_changed(rig->serial);
	/* A driver that starts clears and reads everything "for luck". */
	out(rig, FCR, 0x07);
	in(rig, LSR);
	in(rig, RBR);
	in(rig, IIR);
	in(rig, MSR);
	assert_string_equal(rig->arriving, "hi");
	out(rig, IER, 1);
	assert_int_equal(rig->irq, 1);
	assert_int_equal(in(rig, RBR), 'h');
	assert_int_equal(in(rig, RBR), 'i');
}

static void polling_is_listening(void **state)
{
	struct rig *rig = *state;
	rig->arriving = "q";
	u32 polls = 0;
	while (!(in(rig, LSR) & 1) && polls < 100)
		polls++;
	assert_true(polls < 100);
	assert_int_equal(in(rig, RBR), 'q');
	assert_int_equal(in(rig, LSR) & 1, 0);
}

static void loops_back(void **state)
{
	struct rig *rig = *state;
	out(rig, FCR, 0x07);
	out(rig, MCR, 0x10);
	for (u32 i = 0; i < 17; i++)
		out(rig, THR, (u8)('A' + i));
	assert_int_equal(rig->sent_count, 0);
	assert_int_equal(in(rig, LSR), 0x63); /* data, overrun, transmitter empty */
	assert_int_equal(in(rig, LSR), 0x61); /* reading clears the error */
	for (u32 i = 0; i < 16; i++)
		assert_int_equal(in(rig, RBR), 'A' + i);
	assert_int_equal(in(rig, LSR), 0x60);
}

static void overrun_interrupts_first(void **state)
{
	struct rig *rig = *state;
	out(rig, MCR, 0x10);
	out(rig, IER, 0x07);
	out(rig, THR, 'x');
	out(rig, THR, 'y'); /* no FIFO: the second replaces the first */
	assert_int_equal(in(rig, IIR), 0x06);
	in(rig, LSR);
	assert_int_equal(in(rig, IIR), 0x04);
	assert_int_equal(in(rig, RBR), 'y');
	assert_int_equal(in(rig, IIR), 0x02);
	assert_int_equal(in(rig, IIR), 0x01);
}

static void modem_changes_interrupt(void **state)
{
	struct rig *rig = *state;
	in(rig, MSR);
	out(rig, IER, 8);
	out(rig, MCR, 0x1f); /* CTS, DSR, DCD were high already, and RI rising is no change */
	assert_int_equal(rig->irq, 0);
	assert_int_equal(in(rig, MSR), 0xf0);
	out(rig, MCR, 0x1b); /* the trailing edge of RI is one */
	assert_int_equal(rig->irq, 1);
	assert_int_equal(in(rig, IIR), 0x00);
	assert_int_equal(in(rig, MSR), 0xb4);
	assert_int_equal(rig->irq, 0);
	assert_int_equal(in(rig, MSR), 0xb0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(found_as_16550a),
	    T(transmits_with_interrupts),
	    T(holds_the_guest_back),
	    T(receives_with_interrupts),
	    T(bytes_wait_for_a_listener),
	    T(polling_is_listening),
	    T(loops_back),
	    T(overrun_interrupts_first),
	    T(modem_changes_interrupt),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
