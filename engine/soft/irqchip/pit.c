/*
 * The 8254 programmable interval timer, and port 0x61 of the PC around its channel 2.
 *
 * Nothing ticks: counters and outputs are computed from the time since the count was loaded.
 * Departures: a count takes effect at once, not on the next CLK; in mode 3 a new count waits for
 * the end of the period, not of the half period; in modes 1 and 5 it also changes the pulse under
 * way.
 *
 * Source: Intel 8254 datasheet (order 231164).
 */
#include <errno.h>

#include "engine/soft/irqchip/internal.h"

#define PORT_CONTROL 0x43
#define PORT_SYSTEM  0x61

#define NS_PER_S 1000000000ull

#define SYSTEM_GATE    BIT(0)
#define SYSTEM_SPEAKER BIT(1)
#define SYSTEM_REFRESH BIT(4)
#define SYSTEM_OUT     BIT(5)
#define REFRESH_NS     15085 /* the refresh request toggles bit 4 at this interval */

/* How the bytes of a count are transferred; WORD1: the low byte has passed. As KVM numbers them. */
enum { RW_LSB = 1, RW_MSB = 2, RW_WORD0 = 3, RW_WORD1 = 4 };

/* Ticks given back after a stall of the host; more than that are lost */
#define MISSED_MAX 64
#define MIN_TICKS  (TIMER_MIN_PERIOD * PIT_HZ / NS_PER_S + 1)

static u64 to_ticks(u64 ns)
{
	return muldiv(ns, PIT_HZ, NS_PER_S);
}

/* Rounded up, so that to_ticks() of the result is not below @ticks. */
static u64 to_ns(u64 ticks)
{
	return muldiv(ticks, NS_PER_S, PIT_HZ) + 1;
}

static bool periodic(const struct pit_channel *ch)
{
	return ch->s.mode == 2 || ch->s.mode == 3;
}

/* Modes 1 and 5: the gate starts the counter and does not stop it (231164 table "Gate Pin
 * Operations"). */
static bool triggered_by_gate(const struct pit_channel *ch)
{
	return ch->s.mode == 1 || ch->s.mode == 5;
}

/* CLK pulses counted since the count was loaded or triggered. */
static u64 elapsed(const struct pit_channel *ch, u64 now)
{
	u64 start = ch->s.count_load_time;

	if (triggered_by_gate(ch) && !ch->triggered)
		return 0;
	if (!ch->s.gate && !triggered_by_gate(ch))
		return ch->frozen;
	return now > start ? to_ticks(now - start) : 0;
}

static bool channel_out(const struct pit_channel *ch, u64 now)
{
	u64 count = ch->s.count, d = elapsed(ch, now);

	if (!count) /* after the control word: 231164 "Mode Definitions" */
		return ch->s.mode != 0;
	switch (ch->s.mode) {
	case 0:
		return d >= count;
	case 1:
		return !ch->triggered || d >= count;
	case 2:
		return !ch->s.gate || d % count != count - 1;
	case 3:
		return !ch->s.gate || d % count < (count + 1) / 2;
	default: /* 4, 5: a strobe of one CLK */
		return d != count;
	}
}

static u16 to_bcd(u32 n)
{
	return n % 10 | n / 10 % 10 << 4 | n / 100 % 10 << 8 | n / 1000 % 10 << 12;
}

static u32 from_bcd(u32 raw)
{
	return (raw & 15) + (raw >> 4 & 15) * 10 + (raw >> 8 & 15) * 100 + (raw >> 12 & 15) * 1000;
}

static u16 channel_counter(const struct pit_channel *ch, u64 now)
{
	u64 count = ch->s.count, d = elapsed(ch, now), phase, high, value;
	u64 wrap = ch->s.bcd ? 10000 : 0x10000;

	if (!count)
		return 0;
	switch (ch->s.mode) {
	case 2:
		value = count - d % count;
		break;
	case 3: /* by two, from the even part of the count, once for each half (231164 "Mode 3") */
		high = (count + 1) / 2;
		phase = d % count;
		value = (count & ~1ull) - 2 * (phase < high ? phase : phase - high);
		break;
	default:
		value = (count + wrap - d % wrap) % wrap;
		break;
	}
	return ch->s.bcd ? to_bcd(value % wrap) : (u16)value;
}

/* Lets the count that waits for the end of the period take over. Channel 0: only pit_run() calls
 * this. */
static void channel_settle(struct pit_channel *ch, u64 now)
{
	if (!ch->next_count || now < ch->next_load)
		return;
	ch->s.count = ch->next_count;
	ch->s.count_load_time = ch->next_load;
	ch->next_count = 0;
}

static void settle(struct irqchip *chip, u32 index, u64 now)
{
	if (index)
		channel_settle(&chip->pit.channel[index], now);
	else
		pit_run(chip, now);
}

static void set_gate(struct pit_channel *ch, bool gate, u64 now)
{
	if (gate == !!ch->s.gate)
		return;
	if (!gate) {
		ch->frozen = elapsed(ch, now);
	} else if (triggered_by_gate(ch)) {
		ch->triggered = true;
		ch->s.count_load_time = now;
	} else if (periodic(ch)) { /* starts again from the count */
		if (ch->next_count)
			ch->s.count = ch->next_count;
		ch->next_count = 0;
		ch->s.count_load_time = now;
	} else {
		ch->s.count_load_time = now - muldiv(ch->frozen, NS_PER_S, PIT_HZ);
	}
	ch->s.gate = gate;
}

/* ---- interrupts: the rising edges of channel 0's OUT ---- */

/* CLKs between two interrupts that are signalled: short periods are thinned out. */
static u64 stride(const struct pit_channel *ch)
{
	u64 count = ch->s.count;

	return count * ((MIN_TICKS + count - 1) / count);
}

/* CLKs from load to the first edge, in the modes that have but one. */
static u64 single_edge(const struct pit_channel *ch)
{
	return ch->s.count + (ch->s.mode >= 4);
}

static bool edges_come(const struct irqchip *chip)
{
	const struct pit_channel *ch = &chip->pit.channel[0];

	if (!chip->pit.present || !ch->s.count || triggered_by_gate(ch) ||
	    (chip->pit.flags & KVM_PIT_FLAGS_HPET_LEGACY))
		return false;
	return periodic(ch) || !chip->pit.fired;
}

static u64 edges_until(const struct pit_channel *ch, u64 now)
{
	u64 d = elapsed(ch, now);

	return periodic(ch) ? d / stride(ch) : d >= single_edge(ch);
}

static u64 next_edge(const struct irqchip *chip)
{
	const struct pit_channel *ch = &chip->pit.channel[0];
	u64 ticks = periodic(ch) ? (chip->pit.fired + 1) * stride(ch) : single_edge(ch);

	return ch->s.count_load_time + to_ns(ticks);
}

/* Whether a tick now would be seen, not merged with the one before. No way open: nobody wants it.
 */
static bool tick_taken(struct irqchip *chip)
{
	const struct kvm_pic_state *pic = &chip->pic[0];
	bool pic_open = !(pic->imr & 1), ioapic_open = !chip->ioapic.redirtbl[2].fields.mask;

	if (!pic_open && !ioapic_open)
		return true;
	return (pic_open && !(pic->irr & 1)) || (ioapic_open && ioapic_edge_taken(chip, 2));
}

static void tick(struct irqchip *chip, u64 now)
{
	chip->pit.last_tick = now;
	pic_set_line(chip, 0, true);
	ioapic_set_line(chip, 2, true);
	pic_set_line(chip, 0, false);
	ioapic_set_line(chip, 2, false);
}

static void miss(struct pit *pit, u64 ticks)
{
	pit->missed = ticks < MISSED_MAX - pit->missed ? pit->missed + ticks : MISSED_MAX;
}

static void run_edges(struct irqchip *chip, u64 now)
{
	struct pit *pit = &chip->pit;
	struct pit_channel *ch = &pit->channel[0];
	u64 edges, due;

	if (!edges_come(chip))
		return;
	edges = edges_until(ch, now);
	if (edges <= pit->fired)
		return;
	due = edges - pit->fired;
	pit->fired = edges;
	if (periodic(ch))
		miss(pit, due - 1 + !tick_taken(chip));
	tick(chip, now);
}

/* Gives missed ticks back at twice the pace. Returns when to do so again. */
static u64 run_missed(struct irqchip *chip, u64 now)
{
	struct pit *pit = &chip->pit;
	u64 gap, due;

	if (!pit->missed || !edges_come(chip) || !tick_taken(chip))
		return NO_DEADLINE;
	gap = to_ns(stride(&pit->channel[0])) / 2;
	if (gap < TIMER_MIN_PERIOD)
		gap = TIMER_MIN_PERIOD;
	due = pit->last_tick + gap;
	if (now < due)
		return due;
	pit->missed--;
	tick(chip, now);
	return pit->missed ? now + gap : NO_DEADLINE;
}

u64 pit_run(struct irqchip *chip, u64 now)
{
	struct pit *pit = &chip->pit;
	struct pit_channel *ch = &pit->channel[0];
	u64 again, next;

	if (ch->next_count && now >= ch->next_load) {
		run_edges(chip, ch->next_load);
		channel_settle(ch, now);
		pit->fired = 0;
	}
	run_edges(chip, now);
	again = run_missed(chip, now);
	if (!edges_come(chip))
		return NO_DEADLINE;
	next = next_edge(chip);
	return again < next ? again : next;
}

/* ---- registers ---- */

/* The deadline of channel 0 changed: the vCPU that runs it must ask again. */
static void rearm(struct irqchip *chip)
{
	struct pit *pit = &chip->pit;

	pit->fired = 0;
	pit->missed = 0;
	for (u32 i = 0; i < chip->lapic_count; i++)
		if (chip->lapics[i]->v->base.id == 0)
			vcpu_poke(chip->lapics[i]->v, ATTENTION_TIMER);
}

static void load_count(struct irqchip *chip, u32 index, u32 raw)
{
	struct pit_channel *ch = &chip->pit.channel[index];
	u32 count = ch->s.bcd ? from_bcd(raw) : raw;
	u64 now = clock_now();

	if (!count)
		count = ch->s.bcd ? 10000 : 0x10000;
	if (periodic(ch) && ch->s.count && ch->s.gate) {
		u64 periods = elapsed(ch, now) / ch->s.count + 1;

		ch->next_count = count;
		ch->next_load = ch->s.count_load_time + to_ns(periods * ch->s.count);
		return;
	}
	ch->s.count = count;
	if (!ch->triggered)
		ch->s.count_load_time = now;
	ch->frozen = 0;
	if (!index)
		rearm(chip);
}

static void write_channel(struct irqchip *chip, u32 index, u8 value)
{
	struct pit_channel *ch = &chip->pit.channel[index];

	settle(chip, index, clock_now());
	switch (ch->s.write_state) {
	case RW_LSB:
		load_count(chip, index, value);
		break;
	case RW_MSB:
		load_count(chip, index, value << 8);
		break;
	case RW_WORD0:
		ch->s.write_latch = value;
		ch->s.write_state = RW_WORD1;
		if (ch->s.mode == 0) /* the first byte stops the counter, OUT goes low */
			ch->s.count = 0;
		break;
	case RW_WORD1:
		ch->s.write_state = RW_WORD0;
		load_count(chip, index, ch->s.write_latch | value << 8);
		break;
	}
}

static void latch_count(struct pit_channel *ch, u64 now)
{
	if (ch->s.count_latched) /* the first one holds until read */
		return;
	ch->s.latched_count = channel_counter(ch, now);
	ch->s.count_latched = ch->s.rw_mode;
}

static void latch_status(struct pit_channel *ch, u64 now)
{
	bool null_count = !ch->s.count || ch->next_count;

	if (ch->s.status_latched)
		return;
	ch->s.status = channel_out(ch, now) << 7 | null_count << 6 | ch->s.rw_mode << 4 |
		       ch->s.mode << 1 | ch->s.bcd;
	ch->s.status_latched = 1;
}

/* 231164 figure "Read-Back Command Format" */
static void read_back(struct irqchip *chip, u8 value, u64 now)
{
	for (u32 i = 0; i < PIT_CHANNELS; i++) {
		if (!(value & BIT(i + 1)))
			continue;
		settle(chip, i, now);
		if (!(value & BIT(5)))
			latch_count(&chip->pit.channel[i], now);
		if (!(value & BIT(4)))
			latch_status(&chip->pit.channel[i], now);
	}
}

/* 231164 figure "Control Word Format" */
static void write_control(struct irqchip *chip, u8 value)
{
	u32 index = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;
	u64 now = clock_now();
	struct pit_channel *ch;

	if (index == PIT_CHANNELS) {
		read_back(chip, value, now);
		return;
	}
	settle(chip, index, now);
	ch = &chip->pit.channel[index];
	if (!access) {
		latch_count(ch, now);
		return;
	}
	ch->s.rw_mode = ch->s.read_state = ch->s.write_state = access;
	ch->s.mode = mode > 5 ? mode - 4 : mode;
	ch->s.bcd = value & 1;
	ch->s.count = 0;
	ch->s.count_latched = 0;
	ch->next_count = 0;
	ch->triggered = false;
	if (!index)
		rearm(chip);
}

static u8 read_channel(struct irqchip *chip, u32 index)
{
	struct pit_channel *ch = &chip->pit.channel[index];
	u64 now = clock_now();
	u16 counter;

	if (ch->s.status_latched) {
		ch->s.status_latched = 0;
		return ch->s.status;
	}
	if (ch->s.count_latched) {
		switch (ch->s.count_latched) {
		case RW_WORD0:
			ch->s.count_latched = RW_WORD1;
			return ch->s.latched_count & 0xff;
		case RW_LSB:
			ch->s.count_latched = 0;
			return ch->s.latched_count & 0xff;
		default:
			ch->s.count_latched = 0;
			return ch->s.latched_count >> 8;
		}
	}
	settle(chip, index, now);
	counter = channel_counter(ch, now);
	switch (ch->s.read_state) {
	case RW_WORD0:
		ch->s.read_state = RW_WORD1;
		return counter & 0xff;
	case RW_WORD1:
		ch->s.read_state = RW_WORD0;
		return counter >> 8;
	case RW_MSB:
		return counter >> 8;
	default:
		return counter & 0xff;
	}
}

bool pit_owns(const struct irqchip *chip, u16 port)
{
	return chip->pit.present && ((port & ~3u) == 0x40 || port == PORT_SYSTEM);
}

u8 pit_read(struct irqchip *chip, u16 port)
{
	struct pit *pit = &chip->pit;
	struct pit_channel *ch = &pit->channel[2];
	u64 now;

	if (port == PORT_CONTROL) /* write-only */
		return 0xff;
	if (port != PORT_SYSTEM)
		return read_channel(chip, port & 3);
	now = clock_now();
	channel_settle(ch, now);
	return (ch->s.gate ? SYSTEM_GATE : 0) | (pit->speaker ? SYSTEM_SPEAKER : 0) |
	       (now / REFRESH_NS & 1 ? SYSTEM_REFRESH : 0) |
	       (channel_out(ch, now) ? SYSTEM_OUT : 0);
}

void pit_write(struct irqchip *chip, u16 port, u8 value)
{
	u64 now;

	if (port == PORT_CONTROL) {
		write_control(chip, value);
	} else if (port != PORT_SYSTEM) {
		write_channel(chip, port & 3, value);
	} else {
		now = clock_now();
		channel_settle(&chip->pit.channel[2], now);
		chip->pit.speaker = !!(value & SYSTEM_SPEAKER);
		set_gate(&chip->pit.channel[2], value & SYSTEM_GATE, now);
	}
}

void pit_reset(struct irqchip *chip)
{
	bool present = chip->pit.present;

	gp_fill(&chip->pit, 0, sizeof(chip->pit));
	chip->pit.present = present;
	for (u32 i = 0; i < PIT_CHANNELS; i++) {
		struct kvm_pit_channel_state *s = &chip->pit.channel[i].s;

		s->mode = 3;
		s->rw_mode = s->read_state = s->write_state = RW_WORD0;
		s->gate = i != 2;
	}
}

int pit_get(struct soft_vm *vm, struct kvm_pit_state2 *state)
{
	struct irqchip *chip = vm->irqchip;
	u64 now;

	if (!chip || !chip->pit.present)
		return -ENXIO;
	gp_fill(state, 0, sizeof(*state));
	gp_lock(&chip->lock);
	now = clock_now();
	for (u32 i = 0; i < PIT_CHANNELS; i++) {
		settle(chip, i, now);
		state->channels[i] = chip->pit.channel[i].s;
	}
	state->flags = chip->pit.flags | (chip->pit.speaker ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0);
	gp_unlock(&chip->lock);
	return 0;
}

/* Keeps only what the counters can be in, whatever the caller says. */
static void sanitize(struct kvm_pit_channel_state *s, u64 now)
{
	if (s->count > 0x10000)
		s->count = 0x10000;
	if (s->mode > 5)
		s->mode = 3;
	if (s->rw_mode < RW_LSB || s->rw_mode > RW_WORD0)
		s->rw_mode = RW_WORD0;
	if (s->read_state < RW_LSB || s->read_state > RW_WORD1)
		s->read_state = s->rw_mode;
	if (s->write_state < RW_LSB || s->write_state > RW_WORD1)
		s->write_state = s->rw_mode;
	if (s->count_latched > RW_WORD1)
		s->count_latched = 0;
	s->bcd = !!s->bcd;
	s->gate = !!s->gate;
	s->count_load_time = now;
}

int pit_set(struct soft_vm *vm, const struct kvm_pit_state2 *state)
{
	struct irqchip *chip = vm->irqchip;
	u64 now;

	if (!chip || !chip->pit.present)
		return -ENXIO;
	if (state->flags & ~(KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON))
		return -EINVAL;
	gp_lock(&chip->lock);
	now = clock_now();
	pit_reset(chip);
	for (u32 i = 0; i < PIT_CHANNELS; i++) {
		chip->pit.channel[i].s = state->channels[i];
		sanitize(&chip->pit.channel[i].s, now);
		if (i != 2) /* gates 0 and 1 are wired high */
			chip->pit.channel[i].s.gate = 1;
	}
	chip->pit.flags = state->flags & KVM_PIT_FLAGS_HPET_LEGACY;
	chip->pit.speaker = !!(state->flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	rearm(chip);
	gp_unlock(&chip->lock);
	return 0;
}
