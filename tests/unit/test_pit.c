/* The 8254: counting in each mode, latches, channel 2 behind port 0x61, ticks of channel 0. */
#include "tests/unit/fake_irqchip.h"

#define TICKS_TO_NS(t) (((t)*1000000000ull + PIT_HZ - 1) / PIT_HZ)

struct rig {
	struct soft_vm *vm;
	struct soft_vcpu *v;
};

static int setup(void **state)
{
	static struct rig rig;

	rig.vm = fake_vm(1);
	rig.v = rig.vm->vcpus[0];
	pic_init(rig.vm, 0x03); /* AEOI: an acknowledge is enough */
	poked(rig.v);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_vm_free(rig->vm);
	return 0;
}

static void program(struct soft_vm *vm, u32 channel, u32 mode, u16 count)
{
	out8(vm, 0x43, channel << 6 | 0x30 | mode << 1);
	out8(vm, 0x40 + channel, count & 0xff);
	out8(vm, 0x40 + channel, count >> 8);
}

static u16 latched(struct soft_vm *vm, u32 channel)
{
	u16 low;

	out8(vm, 0x43, channel << 6);
	low = in8(vm, 0x40 + channel);
	return low | in8(vm, 0x40 + channel) << 8;
}

static bool out2(struct soft_vm *vm)
{
	return in8(vm, 0x61) & 0x20;
}

/* Ticks of channel 0 seen by @v at time fake_now. */
static u32 take_ticks(struct soft_vcpu *v)
{
	u32 n = 0;

	irqchip_run_timers(v);
	while (irqchip_pending(v)) {
		assert_int_equal(irqchip_acknowledge(v), 8);
		n++;
	}
	return n;
}

/* Goes from deadline to deadline for @ns; the ticks seen, and the number of wake-ups. */
static u32 run_for(struct soft_vcpu *v, u64 ns, u32 *wakes)
{
	u64 end = fake_now + ns;
	u32 n = 0;

	*wakes = 0;
	for (;;) {
		u64 next;

		n += take_ticks(v);
		next = irqchip_run_timers(v);
		if (next > end)
			break;
		assert_true(next > fake_now);
		fake_now = next;
		++*wakes;
	}
	fake_now = end;
	return n;
}

static void test_mode0_channel2(void **state)
{
	struct rig *rig = *state;
	u64 start;

	/* as Linux calibrates: gate on, speaker off, mode 0, wait for OUT */
	out8(rig->vm, 0x61, (in8(rig->vm, 0x61) & ~2) | 1);
	start = fake_now;
	program(rig->vm, 2, 0, 11932);
	assert_false(out2(rig->vm));
	assert_int_equal(latched(rig->vm, 2), 11932);
	fake_now = start + TICKS_TO_NS(1000);
	assert_int_equal(latched(rig->vm, 2), 10932);
	fake_now = start + TICKS_TO_NS(11932) - 1;
	assert_false(out2(rig->vm));
	fake_now = start + TICKS_TO_NS(11932);
	assert_true(out2(rig->vm));
	assert_int_equal(latched(rig->vm, 2), 0);
	fake_now = start + TICKS_TO_NS(11933);
	assert_int_equal(latched(rig->vm, 2), 0xffff); /* goes on below 0 */
	assert_true(out2(rig->vm));
	/* the control word takes OUT down */
	out8(rig->vm, 0x43, 0xb0);
	assert_false(out2(rig->vm));
}

static void test_gate_stops_mode0(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x61, 1);
	program(rig->vm, 2, 0, 1000);
	fake_now += TICKS_TO_NS(400);
	out8(rig->vm, 0x61, 0);
	fake_now += TICKS_TO_NS(5000);
	assert_int_equal(latched(rig->vm, 2), 600);
	assert_false(out2(rig->vm));
	out8(rig->vm, 0x61, 1);
	fake_now += TICKS_TO_NS(599);
	assert_false(out2(rig->vm));
	fake_now += TICKS_TO_NS(2);
	assert_true(out2(rig->vm));
}

static void test_mode2_counter(void **state)
{
	struct rig *rig = *state;
	u64 start = fake_now;

	out8(rig->vm, 0x61, 1);
	program(rig->vm, 2, 2, 100);
	assert_int_equal(latched(rig->vm, 2), 100);
	fake_now = start + TICKS_TO_NS(99);
	assert_int_equal(latched(rig->vm, 2), 1);
	assert_false(out2(rig->vm)); /* low for one CLK, at 1 */
	fake_now = start + TICKS_TO_NS(100);
	assert_int_equal(latched(rig->vm, 2), 100);
	assert_true(out2(rig->vm));
	/* a new count waits for the end of the period */
	fake_now = start + TICKS_TO_NS(150);
	out8(rig->vm, 0x42, 50);
	out8(rig->vm, 0x42, 0);
	out8(rig->vm, 0x43, 0xe8);		    /* read back the status of channel 2 */
	assert_int_equal(in8(rig->vm, 0x42), 0xf4); /* OUT, null count, word, mode 2 */
	assert_int_equal(latched(rig->vm, 2), 50);
	fake_now = start + TICKS_TO_NS(190);
	assert_int_equal(latched(rig->vm, 2), 10);
	fake_now = start + TICKS_TO_NS(210) + 2;
	assert_int_equal(latched(rig->vm, 2), 40);
}

static void test_mode3(void **state)
{
	/* clocks since load, counter, OUT: 231164 "Mode 3", even and odd */
	static const struct {
		u16 count;
		u8 clock;
		u16 counter;
		bool out;
	} rows[] = {
	    {4, 0, 4, true},  {4, 1, 2, true},	{4, 2, 4, false}, {4, 3, 2, false},
	    {4, 4, 4, true},  {5, 0, 4, true},	{5, 1, 2, true},  {5, 2, 0, true},
	    {5, 3, 4, false}, {5, 4, 2, false}, {5, 5, 4, true},
	};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 start = fake_now;

		out8(rig->vm, 0x61, 1);
		program(rig->vm, 2, 3, rows[i].count);
		fake_now = start + TICKS_TO_NS((u64)rows[i].clock);
		assert_int_equal(latched(rig->vm, 2), rows[i].counter);
		assert_int_equal(out2(rig->vm), rows[i].out);
	}
}

static void test_mode1_and_5(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x61, 0);
	program(rig->vm, 2, 1, 100);
	fake_now += TICKS_TO_NS(500);
	assert_true(out2(rig->vm)); /* waits for the gate */
	out8(rig->vm, 0x61, 1);
	assert_false(out2(rig->vm));
	fake_now += TICKS_TO_NS(100);
	assert_true(out2(rig->vm));

	out8(rig->vm, 0x61, 0);
	program(rig->vm, 2, 5, 100);
	out8(rig->vm, 0x61, 1);
	assert_true(out2(rig->vm));
	fake_now += TICKS_TO_NS(100);
	assert_false(out2(rig->vm));
	fake_now += TICKS_TO_NS(2);
	assert_true(out2(rig->vm));
}

static void test_bcd(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x61, 1);
	out8(rig->vm, 0x43, 0xb1); /* mode 0, BCD */
	out8(rig->vm, 0x42, 0x34);
	out8(rig->vm, 0x42, 0x12);
	assert_int_equal(latched(rig->vm, 2), 0x1234);
	fake_now += TICKS_TO_NS(235);
	assert_int_equal(latched(rig->vm, 2), 0x0999);
	/* nibbles that are no digits, and 0 for 10000: counted all the same */
	out8(rig->vm, 0x42, 0xff);
	out8(rig->vm, 0x42, 0xff);
	latched(rig->vm, 2);
	out8(rig->vm, 0x42, 0);
	out8(rig->vm, 0x42, 0);
	fake_now += TICKS_TO_NS(1);
	assert_int_equal(latched(rig->vm, 2), 0x9999);
}

static void test_byte_access(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x61, 1);
	out8(rig->vm, 0x43, 0x90); /* channel 2, low byte only, mode 0 */
	out8(rig->vm, 0x42, 200);
	assert_int_equal(in8(rig->vm, 0x42), 200);
	assert_int_equal(in8(rig->vm, 0x42), 200);
	fake_now += TICKS_TO_NS(50);
	assert_int_equal(in8(rig->vm, 0x42), 150);
	out8(rig->vm, 0x43, 0xa0); /* high byte only */
	out8(rig->vm, 0x42, 2);
	assert_int_equal(in8(rig->vm, 0x42), 2);
	fake_now += TICKS_TO_NS(1);
	assert_int_equal(in8(rig->vm, 0x42), 1);
	/* unlatched words toggle */
	program(rig->vm, 2, 0, 0x1234);
	assert_int_equal(in8(rig->vm, 0x42), 0x34);
	assert_int_equal(in8(rig->vm, 0x42), 0x12);
}

static void test_latch_holds(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x61, 1);
	program(rig->vm, 2, 0, 0x4000);
	out8(rig->vm, 0x43, 0x80);
	fake_now += TICKS_TO_NS(0x100);
	out8(rig->vm, 0x43, 0x80); /* the second latch is ignored */
	assert_int_equal(in8(rig->vm, 0x42), 0x00);
	assert_int_equal(in8(rig->vm, 0x42), 0x40);
	assert_int_equal(latched(rig->vm, 2), 0x3f00);
	/* read-back of both: status first */
	out8(rig->vm, 0x43, 0xc8);
	assert_int_equal(in8(rig->vm, 0x42), 0x30);
	assert_int_equal(in8(rig->vm, 0x42), 0x00);
	assert_int_equal(in8(rig->vm, 0x42), 0x3f);
}

static void test_periodic_ticks(void **state)
{
	struct rig *rig = *state;
	u32 wakes;

	program(rig->vm, 0, 2, 11932);
	assert_true(poked(rig->v) & ATTENTION_TIMER);
	/* 10 s at 99.9985 Hz: no drift */
	assert_int_equal(run_for(rig->v, 10000000000ull, &wakes), PIT_HZ * 10 / 11932);
	assert_int_equal(wakes, PIT_HZ * 10 / 11932);
	program(rig->vm, 0, 3, 0);
	assert_int_equal(run_for(rig->v, 10000000000ull, &wakes), PIT_HZ * 10 / 65536);
}

static void test_one_shot_ticks(void **state)
{
	struct rig *rig = *state;
	u32 wakes;

	program(rig->vm, 0, 0, 1000);
	assert_int_equal(irqchip_run_timers(rig->v), fake_now + 838096);
	assert_int_equal(run_for(rig->v, 10000000000ull, &wakes), 1);
	assert_int_equal(irqchip_run_timers(rig->v), UINT64_MAX);
	/* mode 4, as Linux's clockevent: again without a control word */
	program(rig->vm, 0, 4, 1000);
	assert_int_equal(run_for(rig->v, 10000000000ull, &wakes), 1);
	out8(rig->vm, 0x40, 0);
	out8(rig->vm, 0x40, 1);
	assert_int_equal(run_for(rig->v, TICKS_TO_NS(256ull), &wakes), 0);
	assert_int_equal(run_for(rig->v, TICKS_TO_NS(2ull), &wakes), 1);
	/* a control word alone stops it */
	program(rig->vm, 0, 2, 1000);
	out8(rig->vm, 0x43, 0x34);
	assert_int_equal(irqchip_run_timers(rig->v), UINT64_MAX);
}

static void test_short_period_is_bounded(void **state)
{
	struct rig *rig = *state;
	u32 wakes;

	for (u16 count = 1; count < 30; count++) {
		program(rig->vm, 0, 2, count);
		run_for(rig->v, 1000000, &wakes);
		assert_in_range(wakes, 1, 50);
	}
}

static void test_stall_gives_ticks_back(void **state)
{
	struct rig *rig = *state;
	u32 wakes, n;

	program(rig->vm, 0, 2, 1193); /* 1 kHz */
	assert_int_equal(run_for(rig->v, 10000000, &wakes), 10);
	fake_now += 20000000;
	n = take_ticks(rig->v);
	assert_int_equal(n, 1); /* no flood */
	n += run_for(rig->v, 80000000, &wakes);
	assert_in_range(n, 99, 101); /* all back after a while */
	fake_now += 10000000000ull;
	n = run_for(rig->v, 1000000000, &wakes);
	assert_in_range(n, 1000 + 60, 1000 + 66); /* but not after a long sleep */
}

static void test_new_count_keeps_ticks(void **state)
{
	struct rig *rig = *state;
	u32 wakes;

	program(rig->vm, 0, 2, 1193);
	assert_int_equal(run_for(rig->v, 5500000, &wakes), 5);
	out8(rig->vm, 0x40, 2386 & 0xff);
	out8(rig->vm, 0x40, 2386 >> 8);
	/* the sixth at 6 ms by the old count, then at 8, 10 .. 16 ms */
	assert_int_equal(run_for(rig->v, 10600000, &wakes), 6);
}

static void test_refresh_toggles(void **state)
{
	struct rig *rig = *state;
	u8 first = in8(rig->vm, 0x61) & 0x10;

	fake_now += 15085;
	assert_int_not_equal(in8(rig->vm, 0x61) & 0x10, first);
	out8(rig->vm, 0x61, 0xff);
	assert_int_equal(in8(rig->vm, 0x61) & 0x0f, 3);
}

static void test_state(void **state)
{
	struct rig *rig = *state;
	struct kvm_pit_state2 pit;
	u32 wakes;

	program(rig->vm, 0, 2, 11932);
	assert_int_equal(pit_get(rig->vm, &pit), 0);
	assert_int_equal(pit.channels[0].count, 11932);
	assert_int_equal(pit.channels[0].mode, 2);
	out8(rig->vm, 0x43, 0x30);
	assert_int_equal(pit_set(rig->vm, &pit), 0);
	assert_int_equal(run_for(rig->v, 1000000000, &wakes), 99);
	/* no state makes it hang or divide by zero */
	for (u32 seed = 1; seed < 2000; seed++) {
		u32 r = seed * 2654435761u;

		for (size_t i = 0; i < sizeof(pit.channels); i++) {
			r = r * 1664525 + 1013904223;
			((u8 *)pit.channels)[i] = r >> 24;
		}
		pit.flags = seed & 2;
		assert_int_equal(pit_set(rig->vm, &pit), 0);
		run_for(rig->v, 100000, &wakes);
		assert_true(wakes <= 6);
		for (u32 i = 0; i < 3; i++) {
			latched(rig->vm, i);
			out8(rig->vm, 0x40 + i, r >> i);
		}
		out8(rig->vm, 0x61, seed);
		in8(rig->vm, 0x61);
	}
	pit.flags = 0x100;
	assert_true(pit_set(rig->vm, &pit) < 0);
	assert_true(pit_create(rig->vm->irqchip) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_mode0_channel2),
	    TEST(test_gate_stops_mode0),
	    TEST(test_mode2_counter),
	    TEST(test_mode3),
	    TEST(test_mode1_and_5),
	    TEST(test_bcd),
	    TEST(test_byte_access),
	    TEST(test_latch_holds),
	    TEST(test_periodic_ticks),
	    TEST(test_one_shot_ticks),
	    TEST(test_short_period_is_bounded),
	    TEST(test_stall_gives_ticks_back),
	    TEST(test_new_count_keeps_ticks),
	    TEST(test_refresh_toggles),
	    TEST(test_state),
	};

	return cmocka_run_group_tests_name("pit", tests, NULL, NULL);
}
