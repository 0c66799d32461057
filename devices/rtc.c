/*
 * Real-time clock. Motorola MC146818A datasheet (1984), which names the sections cited here; CMOS
 * memory layout: IBM PC/AT Technical Reference (1984) and Ralf Brown's list of CMOS registers.
 *
 * No tick runs while nobody asks: registers and flags are worked out from the host's clock when the
 * guest looks, and a timer is armed only for an interrupt that the guest enabled and has
 * acknowledged. The clock counts UTC. Daylight saving (register B bit 0) does not exist here.
 */
#include "devices/rtc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "host/loop.h"
#include "memory/memory.h"

#define PORT_BASE  0x70 /* 70: index, 71: data */
#define PORT_COUNT 2

enum {
	REG_SECONDS = 0x00,
	REG_SECONDS_ALARM = 0x01,
	REG_MINUTES = 0x02,
	REG_MINUTES_ALARM = 0x03,
	REG_HOURS = 0x04,
	REG_HOURS_ALARM = 0x05,
	REG_WEEKDAY = 0x06, /* 1: Sunday */
	REG_DAY = 0x07,
	REG_MONTH = 0x08,
	REG_YEAR = 0x09,
	REG_A = 0x0a,
	REG_B = 0x0b,
	REG_C = 0x0c,
	REG_D = 0x0d,
	REG_EQUIPMENT = 0x14,
	REG_BASE_KB = 0x15,	  /* and 16: KiB below 640K */
	REG_EXTENDED_KB = 0x17,	  /* and 18: KiB above 1M, 63M at most */
	REG_EXTENDED_KB_2 = 0x30, /* and 31: the same */
	REG_CENTURY = 0x32,
	REG_ABOVE_16M = 0x34, /* and 35: units of 64K above 16M, below 4G */
	REG_ABOVE_4G = 0x5b,  /* to 5d: units of 64K above 4G */
	REG_COUNT = 128,
};

#define A_RATE		  0x0f
#define A_DIVIDER	  0x70
#define A_DIVIDER_RESET	  0x60 /* 11x: the divider chain is held */
#define A_DIVIDER_32K	  0x20
#define A_UPDATING	  0x80
#define B_24_HOURS	  0x02
#define B_BINARY	  0x04
#define B_SET		  0x80
#define C_UPDATE	  0x10
#define C_ALARM		  0x20
#define C_PERIODIC	  0x40
#define C_IRQ		  0x80
#define C_SOURCES	  (C_UPDATE | C_ALARM | C_PERIODIC) /* same bits enable them in B */
#define D_VALID		  0x80
#define HOURS_PM	  0x80
#define ALARM_DONT_CARE	  0xc0
#define EQUIPMENT_HAS_FPU 0x02

#define NS_PER_SECOND	    1000000000ll
#define SECONDS_PER_DAY	    86400ll
#define TICKS_PER_SECOND    32768ll
#define UPDATE_WARNING_NS   (244000ll + 1984000ll) /* UIP before an update and during it, table 6 */
#define FRACTION_AT_RELEASE (NS_PER_SECOND / 2) /* "Divider control": first update 500 ms later */

struct rtc {
	struct irq_wire irq;
	u64 (*now)(void *opaque);
	void *now_opaque;
	struct loop_timer *timer;

	pthread_mutex_t lock; /* guards all below */
	int irq_level;
	u8 index;
	u8 regs[REG_COUNT]; /* time registers count only while the clock is frozen */
	s64 offset;	    /* guest's clock minus the host's, ns */
	s64 seen;	    /* guest's clock up to which flags in C are worked out, ns */
	s64 fraction;	    /* of a second, kept while the clock is frozen, ns */
};

static u64 host_clock(void *opaque)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (u64)ts.tv_sec * (u64)NS_PER_SECOND + (u64)ts.tv_nsec;
}

static s64 guest_clock(const struct rtc *rtc)
{
	return (s64)rtc->now(rtc->now_opaque) + rtc->offset;
}

/** Whether time stands still: SET in B, or the divider held in A. */
static bool is_frozen(const struct rtc *rtc)
{
	return (rtc->regs[REG_B] & B_SET) ||
	       (rtc->regs[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static u8 encode(const struct rtc *rtc, int value)
{
	return (u8)(rtc->regs[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *rtc, u8 value)
{
	return rtc->regs[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 0xf);
}

/** 12-hour mode: 12, 1 ... 11 with bit 7 in the afternoon (table 3). */
static u8 encode_hour(const struct rtc *rtc, int hour)
{
	if (rtc->regs[REG_B] & B_24_HOURS)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOURS_PM : 0);
}

static int decode_hour(const struct rtc *rtc, u8 value)
{
	if (rtc->regs[REG_B] & B_24_HOURS)
		return decode(rtc, value);
	return decode(rtc, value & ~HOURS_PM) % 12 + (value & HOURS_PM ? 12 : 0);
}

/** Writes the time @clock (ns) to the registers. */
static void store_time(struct rtc *rtc, s64 clock)
{
	time_t seconds = (time_t)(clock / NS_PER_SECOND);
	struct tm tm;
	gmtime_r(&seconds, &tm);
	int year = tm.tm_year + 1900;
	rtc->regs[REG_SECONDS] = encode(rtc, tm.tm_sec);
	rtc->regs[REG_MINUTES] = encode(rtc, tm.tm_min);
	rtc->regs[REG_HOURS] = encode_hour(rtc, tm.tm_hour);
	rtc->regs[REG_WEEKDAY] = encode(rtc, tm.tm_wday + 1);
	rtc->regs[REG_DAY] = encode(rtc, tm.tm_mday);
	rtc->regs[REG_MONTH] = encode(rtc, tm.tm_mon + 1);
	rtc->regs[REG_YEAR] = encode(rtc, year % 100);
	rtc->regs[REG_CENTURY] = encode(rtc, year / 100 % 100);
}

/** The time in the registers, in ns without fraction; what is no date is carried over into one. */
static s64 load_time(const struct rtc *rtc)
{
	struct tm tm = {
	    .tm_sec = decode(rtc, rtc->regs[REG_SECONDS]),
	    .tm_min = decode(rtc, rtc->regs[REG_MINUTES]),
	    .tm_hour = decode_hour(rtc, rtc->regs[REG_HOURS]),
	    .tm_mday = decode(rtc, rtc->regs[REG_DAY]),
	    .tm_mon = decode(rtc, rtc->regs[REG_MONTH]) - 1,
	    .tm_year =
		decode(rtc, rtc->regs[REG_CENTURY]) * 100 + decode(rtc, rtc->regs[REG_YEAR]) - 1900,
	};
	/* Nanoseconds in 64 bits end in 2262; a century register of nonsense must not overflow. */
	s64 seconds = timegm(&tm);
	s64 latest = INT64_MAX / NS_PER_SECOND / 2;
	if (seconds < 0)
		seconds = 0;
	return (seconds < latest ? seconds : latest) * NS_PER_SECOND;
}

static void freeze(struct rtc *rtc)
{
	s64 clock = guest_clock(rtc);
	rtc->fraction = clock % NS_PER_SECOND;
	store_time(rtc, clock);
}

static void thaw(struct rtc *rtc)
{
	s64 clock = load_time(rtc) + rtc->fraction;
	rtc->offset += clock - guest_clock(rtc);
	rtc->seen = clock;
}

/** Whether the alarm matches the second @second (of guest time). */
static bool alarm_matches(const struct rtc *rtc, s64 second)
{
	s64 of_day = second % SECONDS_PER_DAY;
	u8 hours = rtc->regs[REG_HOURS_ALARM];
	u8 minutes = rtc->regs[REG_MINUTES_ALARM];
	u8 seconds = rtc->regs[REG_SECONDS_ALARM];
	return (hours >= ALARM_DONT_CARE || decode_hour(rtc, hours) == of_day / 3600) &&
	       (minutes >= ALARM_DONT_CARE || decode(rtc, minutes) == of_day / 60 % 60) &&
	       (seconds >= ALARM_DONT_CARE || decode(rtc, seconds) == of_day % 60);
}

static bool alarm_passed(const struct rtc *rtc, s64 from, s64 to)
{
	if (to - from > SECONDS_PER_DAY)
		from = to - SECONDS_PER_DAY;
	for (s64 second = from + 1; second <= to; second++)
		if (alarm_matches(rtc, second))
			return true;
	return false;
}

/** log2 of the periodic interrupt's period in 32768ths of a second, or -1: none (table 5). */
static int period_shift(const struct rtc *rtc)
{
	int rate = rtc->regs[REG_A] & A_RATE;
	if ((rtc->regs[REG_A] & A_DIVIDER) != A_DIVIDER_32K || rate == 0)
		return -1;
	return rate <= 2 ? rate + 6 : rate - 1; /* rates 1 and 2 stand for 8 and 9 */
}

static s64 to_ticks(s64 clock)
{
	return clock / NS_PER_SECOND * TICKS_PER_SECOND +
	       clock % NS_PER_SECOND * TICKS_PER_SECOND / NS_PER_SECOND;
}

/** The first instant, in ns, that lies @ticks into the clock. */
static s64 from_ticks(s64 ticks)
{
	return ticks / TICKS_PER_SECOND * NS_PER_SECOND +
	       (ticks % TICKS_PER_SECOND * NS_PER_SECOND + TICKS_PER_SECOND - 1) / TICKS_PER_SECOND;
}

/** Sets the flags in C for what happened since this was last asked. */
static void catch_up(struct rtc *rtc)
{
	if (is_frozen(rtc))
		return;
	s64 now = guest_clock(rtc);
	s64 second = now / NS_PER_SECOND, seen_second = rtc->seen / NS_PER_SECOND;
	if (second > seen_second) {
		rtc->regs[REG_C] |= C_UPDATE;
		if (alarm_passed(rtc, seen_second, second))
			rtc->regs[REG_C] |= C_ALARM;
	}
	int shift = period_shift(rtc);
	if (shift >= 0 && to_ticks(now) >> shift > to_ticks(rtc->seen) >> shift)
		rtc->regs[REG_C] |= C_PERIODIC;
	rtc->seen = now;
}

/** When the next enabled source can fire, as a distance in ns; 0: none is enabled. */
static u64 next_event(const struct rtc *rtc)
{
	s64 now = rtc->seen;
	s64 next = 0;
	if (rtc->regs[REG_B] & (C_UPDATE | C_ALARM))
		next = (now / NS_PER_SECOND + 1) * NS_PER_SECOND;
	int shift = period_shift(rtc);
	if ((rtc->regs[REG_B] & C_PERIODIC) && shift >= 0) {
		s64 periodic = from_ticks(((to_ticks(now) >> shift) + 1) << shift);
		if (!next || periodic < next)
			next = periodic;
	}
	return next ? (u64)(next - now) : 0;
}

static void update_irq(struct rtc *rtc)
{
	bool pending = rtc->regs[REG_C] & rtc->regs[REG_B] & C_SOURCES;
	rtc->regs[REG_C] = (rtc->regs[REG_C] & C_SOURCES) | (pending ? C_IRQ : 0);
	if (pending != rtc->irq_level) {
		rtc->irq_level = pending;
		irq_wire_set(&rtc->irq, pending);
	}
	/* While an interrupt waits for the guest to read C, nothing new can be seen. */
	u64 distance = pending || is_frozen(rtc) ? 0 : next_event(rtc);
	loop_timer_arm(rtc->timer, distance ? loop_now() + distance : 0);
}

static void timer_expired(void *opaque)
{
	struct rtc *rtc = opaque;
	pthread_mutex_lock(&rtc->lock);
	catch_up(rtc);
	update_irq(rtc);
	pthread_mutex_unlock(&rtc->lock);
}

static bool is_time_register(u8 index)
{
	switch (index) {
	case REG_SECONDS:
	case REG_MINUTES:
	case REG_HOURS:
	case REG_WEEKDAY:
	case REG_DAY:
	case REG_MONTH:
	case REG_YEAR:
	case REG_CENTURY:
		return true;
	default:
		return false;
	}
}

static u8 read_register(struct rtc *rtc, u8 index)
{
	u8 value = rtc->regs[index];
	if (is_time_register(index) && !is_frozen(rtc)) {
		store_time(rtc, guest_clock(rtc));
		return rtc->regs[index];
	}
	if (index == REG_A && !is_frozen(rtc) &&
	    guest_clock(rtc) % NS_PER_SECOND >= NS_PER_SECOND - UPDATE_WARNING_NS)
		return value | A_UPDATING;
	if (index == REG_C) {
		catch_up(rtc);
		update_irq(rtc);
		value = rtc->regs[REG_C];
		rtc->regs[REG_C] = 0;
		update_irq(rtc);
	}
	return value;
}

/** Writes A or B, which may stop time or let it go on. */
static void write_control(struct rtc *rtc, u8 index, u8 value)
{
	catch_up(rtc);
	bool was_frozen = is_frozen(rtc);
	bool divider_was_reset = (rtc->regs[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
	if (!was_frozen)
		freeze(rtc); /* in the format that B has now */

	if (index == REG_A)
		rtc->regs[REG_A] = value & ~A_UPDATING;
	else /* "SET": setting it clears UIE */
		rtc->regs[REG_B] = value & B_SET ? value & ~C_UPDATE : value;

	if (is_frozen(rtc))
		return;
	if (was_frozen) {
		if (divider_was_reset)
			rtc->fraction = FRACTION_AT_RELEASE;
		thaw(rtc);
	} else {
		/* Time went on; a new data format shows when registers are next worked out. */
		rtc->seen = guest_clock(rtc);
	}
}

static void write_register(struct rtc *rtc, u8 index, u8 value)
{
	if (index == REG_A || index == REG_B) {
		write_control(rtc, index, value);
		update_irq(rtc);
	} else if (index == REG_C || index == REG_D) {
		return; /* read-only */
	} else if (is_time_register(index) && !is_frozen(rtc)) {
		catch_up(rtc);
		freeze(rtc);
		rtc->regs[index] = value;
		thaw(rtc);
		update_irq(rtc);
	} else {
		rtc->regs[index] = value;
	}
}

static u64 rtc_read(void *opaque, u64 offset, u32 size)
{
	struct rtc *rtc = opaque;
	if (offset == 0)
		return UINT64_MAX; /* the index is write-only */
	pthread_mutex_lock(&rtc->lock);
	u8 value = read_register(rtc, rtc->index);
	pthread_mutex_unlock(&rtc->lock);
	return value;
}

static void rtc_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct rtc *rtc = opaque;
	pthread_mutex_lock(&rtc->lock);
	if (offset == 0)
		rtc->index =
		    value & (REG_COUNT - 1); /* bit 7 masks NMIs, of which there are none */
	else
		write_register(rtc, rtc->index, (u8)value);
	pthread_mutex_unlock(&rtc->lock);
}

static void store_word(struct rtc *rtc, u32 at, u64 value, u32 bytes)
{
	u64 most = BIT(bytes * 8) - 1;
	if (value > most)
		value = most;
	for (u32 i = 0; i < bytes; i++)
		rtc->regs[at + i] = (u8)(value >> (i * 8));
}

/** Memory sizes, where a PC's firmware writes them for boot loaders and kernels. */
static void store_memory_sizes(struct rtc *rtc, const struct guest_memory *memory)
{
	u64 low = 0, high = 0;
	guest_memory_for_each(memory, range)
	{
		if (range->gpa < GUEST_MEMORY_HOLE_END)
			low += range->size;
		else
			high += range->size;
	}
	u64 above_1m = low > (1 << 20) ? (low - (1 << 20)) >> 10 : 0;
	u64 most_kb = 63 << 10;
	store_word(rtc, REG_BASE_KB, 640, 2);
	store_word(rtc, REG_EXTENDED_KB, above_1m < most_kb ? above_1m : most_kb, 2);
	store_word(rtc, REG_EXTENDED_KB_2, above_1m < most_kb ? above_1m : most_kb, 2);
	store_word(rtc, REG_ABOVE_16M, low > (16 << 20) ? (low - (16 << 20)) >> 16 : 0, 2);
	store_word(rtc, REG_ABOVE_4G, high >> 16, 3);
}

static void reset(struct rtc *rtc)
{
	rtc->regs[REG_A] = A_DIVIDER_32K | 0x06; /* 1024 Hz, as firmware sets it */
	rtc->regs[REG_B] = B_24_HOURS;
	rtc->regs[REG_D] = D_VALID;
	rtc->regs[REG_EQUIPMENT] = EQUIPMENT_HAS_FPU;
	rtc->seen = guest_clock(rtc);
}

static const struct bus_ops rtc_ops = {
    .name = "RTC",
    .sizes = BUS_SIZE_1,
    .read = rtc_read,
    .write = rtc_write,
};

int rtc_create(struct rtc **out, const struct rtc_config *config, struct error *err)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));
	if (!rtc)
		return error_set(err, ENOMEM, "no memory for the real-time clock");
	rtc->irq = config->irq;
	rtc->now = config->now ? config->now : host_clock;
	rtc->now_opaque = config->now_opaque;
	reset(rtc);
	store_memory_sizes(rtc, config->memory);

	int ret = -ENOMEM;
	rtc->timer = loop_timer_create(config->loop, timer_expired, rtc);
	if (!rtc->timer) {
		error_set(err, ENOMEM, "no timer for the real-time clock");
		goto free_rtc;
	}
	ret = bus_add(config->io, PORT_BASE, PORT_COUNT, &rtc_ops, rtc, err);
	if (ret < 0)
		goto free_timer;
	pthread_mutex_init(&rtc->lock, NULL);
	*out = rtc;
	return 0;

free_timer:
	loop_timer_destroy(rtc->timer);
free_rtc:
	free(rtc);
	return ret;
}

void rtc_destroy(struct rtc *rtc)
{
	if (!rtc)
		return;
	loop_timer_destroy(rtc->timer);
	pthread_mutex_destroy(&rtc->lock);
	free(rtc);
}
