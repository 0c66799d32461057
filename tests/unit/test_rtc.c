/* The real-time clock, on a host clock that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "devices/rtc.h"
#include "host/loop.h"
#include "memory/memory.h"

#define SECOND 1000000000ull
/* 2024-02-29 23:59:58 UTC, a Thursday */
#define START (1709251198ull * SECOND)

struct rig {
	struct bus io;
	struct loop *loop;
	struct rtc *rtc;
	struct guest_memory memory;
	u64 now;
	int irq;
};

static void set_irq(void *opaque, u32 line, int level)
{
	struct rig *rig = opaque;
	rig->irq = level;
	if (level) /* ends loop_run() in the tests that wait for it */
		loop_stop(rig->loop);
}

static u64 now(void *opaque)
{
	struct rig *rig = opaque;
	return rig->now;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	rig->io.name = "test";
	rig->now = START;
	assert_int_equal(loop_create(&rig->loop, &err), 0);
	assert_int_equal(guest_memory_create(&rig->memory, 256ull << 20, &err), 0);
	struct rtc_config config = {
	    .io = &rig->io,
	    .loop = rig->loop,
	    .irq = {set_irq, rig, RTC_IRQ},
	    .memory = &rig->memory,
	    .now = now,
	    .now_opaque = rig,
	};
	assert_int_equal(rtc_create(&rig->rtc, &config, &err), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	rtc_destroy(rig->rtc);
	guest_memory_destroy(&rig->memory);
	loop_destroy(rig->loop);
	free(rig);
	return 0;
}

static u8 get(struct rig *rig, u8 reg)
{
	bus_write(&rig->io, 0x70, reg, 1);
	return (u8)bus_read(&rig->io, 0x71, 1);
}

static void set(struct rig *rig, u8 reg, u8 value)
{
	bus_write(&rig->io, 0x70, reg, 1);
	bus_write(&rig->io, 0x71, value, 1);
}

static void expect_time(struct rig *rig, u8 hour, u8 min, u8 sec)
{
	assert_int_equal(get(rig, 4), hour);
	assert_int_equal(get(rig, 2), min);
	assert_int_equal(get(rig, 0), sec);
}

static void tells_the_time(void **state)
{
	struct rig *rig = *state;
	expect_time(rig, 0x23, 0x59, 0x58);
	assert_int_equal(get(rig, 6), 5);
	assert_int_equal(get(rig, 7), 0x29);
	assert_int_equal(get(rig, 8), 0x02);
	assert_int_equal(get(rig, 9), 0x24);
	assert_int_equal(get(rig, 0x32), 0x20);
	assert_int_equal(get(rig, 0x0d), 0x80);
	rig->now += 2 * SECOND;
	expect_time(rig, 0, 0, 0);
	assert_int_equal(get(rig, 7), 0x01);
	assert_int_equal(get(rig, 8), 0x03);
}

static void other_formats(void **state)
{
	struct rig *rig = *state;
	set(rig, 0x0b, 0x06); /* binary, 24 hours */
	expect_time(rig, 23, 59, 58);
	set(rig, 0x0b, 0x00); /* BCD, 12 hours */
	expect_time(rig, 0x91, 0x59, 0x58);
	rig->now += 2 * SECOND;
	expect_time(rig, 0x12, 0, 0); /* midnight is 12 in the morning */
	rig->now += 12 * 3600 * SECOND;
	expect_time(rig, 0x92, 0, 0);
}

static void set_as_linux_does(void **state)
{
	struct rig *rig = *state;
	set(rig, 0x0b, 0x82);
	set(rig, 0x0a, 0x66); /* divider reset */
	set(rig, 9, 0x30);
	set(rig, 8, 0x12);
	set(rig, 7, 0x31);
	set(rig, 4, 0x11);
	set(rig, 2, 0x22);
	set(rig, 0, 0x33);
	rig->now += 100 * SECOND; /* no time passes meanwhile */
	set(rig, 0x0b, 0x02);
	set(rig, 0x0a, 0x26);
	expect_time(rig, 0x11, 0x22, 0x33);
	rig->now += SECOND / 2 - 1;
	expect_time(rig, 0x11, 0x22, 0x33);
	rig->now += 1; /* the first update comes half a second after the release */
	expect_time(rig, 0x11, 0x22, 0x34);
	assert_int_equal(get(rig, 9), 0x30);
}

static void nonsense_dates(void **state)
{
	struct rig *rig = *state;
	for (u32 value = 0; value < 256; value += 51) {
		set(rig, 0x0b, 0x82);
		for (u8 reg = 0; reg < 10; reg++)
			set(rig, reg, (u8)value);
		set(rig, 0x32, (u8)value);
		set(rig, 0x0b, value & 4 ? 0x06 : 0x02);
		rig->now += SECOND;
		assert_true(get(rig, 8) >= 1 && get(rig, 8) <= 0x12);
		assert_true(get(rig, 7) >= 1 && get(rig, 7) <= 0x31);
	}
}

static void update_in_progress(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(get(rig, 0x0a) & 0x80, 0);
	rig->now += SECOND - 100000;
	assert_int_equal(get(rig, 0x0a) & 0x80, 0x80);
	set(rig, 0x0b, 0x82); /* SET stops updates */
	assert_int_equal(get(rig, 0x0a) & 0x80, 0);
}

static void flags_without_interrupts(void **state)
{
	struct rig *rig = *state;
	set(rig, 5, 0x00);
	set(rig, 3, 0xff);
	set(rig, 1, 0x01);
	get(rig, 0x0c);
	assert_int_equal(get(rig, 0x0c), 0);
	rig->now += SECOND;
	assert_int_equal(get(rig, 0x0c), 0x50); /* update and periodic */
	assert_int_equal(get(rig, 0x0c), 0);
	rig->now += 2 * SECOND; /* to 00:00:01 */
	assert_int_equal(get(rig, 0x0c), 0x70);
	assert_int_equal(rig->irq, 0);
	rig->now += SECOND / 1024 + 1;
	assert_int_equal(get(rig, 0x0c), 0x40);
}

static void pending_interrupt_holds_the_line(void **state)
{
	struct rig *rig = *state;
	set(rig, 0x0b, 0x12);
	rig->now += SECOND;
	/* The timer runs on the host's monotonic clock, the test's clock has moved already. */
	loop_run(rig->loop);
	assert_int_equal(rig->irq, 1);
	assert_int_equal(get(rig, 0x0c) & 0x90, 0x90);
	assert_int_equal(rig->irq, 0);
}

static void periodic_interrupt_comes(void **state)
{
	struct rig *rig = *state;
	set(rig, 0x0a, 0x2d); /* 8 Hz */
	set(rig, 0x0b, 0x42);
	rig->now += SECOND / 8;
	loop_run(rig->loop);
	assert_int_equal(rig->irq, 1);
	assert_int_equal(get(rig, 0x0c) & 0xc0, 0xc0);
}

static void memory_sizes(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(get(rig, 0x15) | get(rig, 0x16) << 8, 640);
	assert_int_equal(get(rig, 0x17) | get(rig, 0x18) << 8, 63 * 1024);
	assert_int_equal(get(rig, 0x34) | get(rig, 0x35) << 8, 240 * 16);
	assert_int_equal(get(rig, 0x5b) | get(rig, 0x5c) << 8 | get(rig, 0x5d) << 16, 0);
	set(rig, 0x0f, 0xa5);			/* the rest is memory */
	assert_int_equal(get(rig, 0x8f), 0xa5); /* bit 7 of the index is the NMI mask */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(tells_the_time),
	    T(other_formats),
	    T(set_as_linux_does),
	    T(nonsense_dates),
	    T(update_in_progress),
	    T(flags_without_interrupts),
	    T(pending_interrupt_holds_the_line),
	    T(periodic_interrupt_comes),
	    T(memory_sizes),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
