/*
 * The timer of the local APIC: SDM 3A 10.5.4. Its clock runs at 1 GHz, as KVM's does.
 */
#include "engine/soft/irqchip/internal.h"

/* SDM 3A 10.5.4, divide configuration: bits 3, 1, 0; 111 divides by 1 */
static u32 divide_shift(u32 tdcr)
{
	return (((tdcr & 3) | (tdcr >> 1 & 4)) + 1) & 7;
}

static enum lapic_timer_mode timer_mode(const struct lapic *lapic)
{
	return LVT_TIMER_MODE(lapic->regs[LAPIC_LVT_TIMER]);
}

static u64 timer_period(const struct lapic *lapic)
{
	u64 ns = (u64)lapic->regs[LAPIC_TIMER_INITIAL]
		 << divide_shift(lapic->regs[LAPIC_TIMER_DIVIDE]);

	if (timer_mode(lapic) == TIMER_PERIODIC && ns < TIMER_MIN_PERIOD)
		ns = TIMER_MIN_PERIOD;
	return ns;
}

void lapic_timer_stop(struct lapic *lapic)
{
	lapic->timer_due = NO_DEADLINE;
	lapic->tsc_deadline = 0;
}

void lapic_timer_set_initial(struct lapic *lapic, u32 count)
{
	/* SDM 3A 10.5.4.1: ignored in TSC-deadline mode */
	if (timer_mode(lapic) == TIMER_TSC_DEADLINE)
		return;
	lapic->regs[LAPIC_TIMER_INITIAL] = count;
	lapic->timer_due = count ? clock_now() + timer_period(lapic) : NO_DEADLINE;
	vcpu_poke(lapic->v, ATTENTION_TIMER);
}

void lapic_timer_resume(struct lapic *lapic, u32 current)
{
	u32 shift = divide_shift(lapic->regs[LAPIC_TIMER_DIVIDE]);

	lapic_timer_stop(lapic);
	/* A periodic timer never rests at 0 */
	if (!current && timer_mode(lapic) == TIMER_PERIODIC)
		current = lapic->regs[LAPIC_TIMER_INITIAL];
	if (timer_mode(lapic) != TIMER_TSC_DEADLINE && lapic->regs[LAPIC_TIMER_INITIAL] && current)
		lapic->timer_due = clock_now() + ((u64)current << shift);
	vcpu_poke(lapic->v, ATTENTION_TIMER);
}

u32 lapic_timer_count(struct lapic *lapic, u64 now)
{
	u64 left, initial = lapic->regs[LAPIC_TIMER_INITIAL];

	if (timer_mode(lapic) == TIMER_TSC_DEADLINE || lapic->timer_due == NO_DEADLINE || !initial)
		return 0;
	if (now < lapic->timer_due)
		left = lapic->timer_due - now;
	else if (timer_mode(lapic) == TIMER_PERIODIC)
		left = timer_period(lapic) - (now - lapic->timer_due) % timer_period(lapic);
	else
		return 0;
	left >>= divide_shift(lapic->regs[LAPIC_TIMER_DIVIDE]);
	return left < initial ? left : initial;
}

void lapic_timer_set_divide(struct lapic *lapic, u32 value)
{
	u32 left = lapic_timer_count(lapic, clock_now());

	lapic->regs[LAPIC_TIMER_DIVIDE] = value & 0xb;
	if (lapic->timer_due == NO_DEADLINE || !left)
		return;
	/* The count goes on from where it is, at the new pace */
	lapic->timer_due = clock_now() + ((u64)left << divide_shift(value));
	vcpu_poke(lapic->v, ATTENTION_TIMER);
}

void lapic_timer_set_lvt(struct lapic *lapic, u32 value)
{
	bool was_deadline = timer_mode(lapic) == TIMER_TSC_DEADLINE;

	lapic->regs[LAPIC_LVT_TIMER] = value;
	/* SDM 3A 10.5.4.1: a change to or from TSC-deadline mode disarms the timer */
	if (was_deadline == (timer_mode(lapic) == TIMER_TSC_DEADLINE))
		return;
	lapic_timer_stop(lapic);
	lapic->regs[LAPIC_TIMER_INITIAL] = 0;
	vcpu_poke(lapic->v, ATTENTION_TIMER);
}

void lapic_timer_set_deadline(struct lapic *lapic, u64 tsc)
{
	/* SDM 3A 10.5.4.1: ignored in the other modes */
	if (timer_mode(lapic) != TIMER_TSC_DEADLINE)
		return;
	lapic->tsc_deadline = tsc;
	vcpu_poke(lapic->v, ATTENTION_TIMER);
}

static u64 run_deadline(struct lapic *lapic, u64 now)
{
	u64 due;

	if (!lapic->tsc_deadline)
		return NO_DEADLINE;
	/* By the TSC itself: a conversion that was a little off must not bring the interrupt early
	 */
	if (guest_tsc(lapic->v) >= lapic->tsc_deadline) {
		lapic->tsc_deadline = 0;
		lapic_local(lapic, LAPIC_LVT_TIMER);
		return NO_DEADLINE;
	}
	due = guest_tsc_to_ns(lapic->v, lapic->tsc_deadline);
	return due > now ? due : now + 1;
}

u64 lapic_timer_run(struct lapic *lapic, u64 now)
{
	u64 period;

	if (timer_mode(lapic) == TIMER_TSC_DEADLINE)
		return run_deadline(lapic, now);
	if (now < lapic->timer_due)
		return lapic->timer_due;
	period = timer_period(lapic);
	if (timer_mode(lapic) == TIMER_PERIODIC) /* periods slept through give one interrupt */
		lapic->timer_due += ((now - lapic->timer_due) / period + 1) * period;
	else
		lapic->timer_due = NO_DEADLINE;
	lapic_local(lapic, LAPIC_LVT_TIMER);
	return lapic->timer_due;
}
