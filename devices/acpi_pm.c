/*
 * ACPI fixed hardware. ACPI Specification 6.5, section 4.8.3 (fixed hardware registers).
 *
 * The machine is always in ACPI mode (no SMI command port, SCI_EN reads as 1). The only event is
 * the timer's carry; the only sleeping state is S5, soft off.
 */
#include "devices/acpi_pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"
#include "host/loop.h"

#define PM1_TIMER	  0x0001 /* TMR_STS, TMR_EN (4.8.3.1) */
#define PM1_ENABLE_BITS	  0x0721 /* TMR, GBL, PWRBTN, SLPBTN, RTC */
#define CONTROL_SCI_EN	  0x0001
#define CONTROL_KEPT	  0x1c03 /* SCI_EN, BM_RLD, SLP_TYP; GBL_RLS and SLP_EN read as 0 */
#define CONTROL_SLP_EN	  0x2000
#define CONTROL_SLP_SHIFT 10
#define CONTROL_SLP_MASK  7

#define TIMER_HZ      3579545ull /* 4.8.3.3 */
#define TIMER_CARRY   31	 /* TMR_STS is set whenever this bit changes (32-bit timer) */
#define NS_PER_SECOND 1000000000ull

struct acpi_pm {
	struct irq_wire sci;
	struct power_wire power;
	struct loop_timer *carry;
	u64 epoch; /* loop_now() at tick 0 */

	pthread_mutex_t lock; /* guards all below */
	int irq_level;
	u16 status, enable, control;
	u64 seen_carries; /* carries up to which the status is worked out */
};

static u64 ticks(const struct acpi_pm *pm)
{
	u64 ns = loop_now() - pm->epoch;
	return ns / NS_PER_SECOND * TIMER_HZ + ns % NS_PER_SECOND * TIMER_HZ / NS_PER_SECOND;
}

/** Notices a carry, drives the SCI and arms the timer for the next carry if it is to interrupt. */
static void update_irq(struct acpi_pm *pm)
{
	u64 carries = ticks(pm) >> TIMER_CARRY;
	if (carries != pm->seen_carries) {
		pm->seen_carries = carries;
		pm->status |= PM1_TIMER;
	}
	int level = (pm->status & pm->enable) != 0;
	if (level != pm->irq_level) {
		pm->irq_level = level;
		irq_wire_set(&pm->sci, level);
	}
	u64 when = 0;
	if ((pm->enable & PM1_TIMER) && !level) {
		u64 next = (carries + 1) << TIMER_CARRY;
		when = pm->epoch + next / TIMER_HZ * NS_PER_SECOND +
		       next % TIMER_HZ * NS_PER_SECOND / TIMER_HZ + 1;
	}
	loop_timer_arm(pm->carry, when);
}

static void carry_passed(void *opaque)
{
	struct acpi_pm *pm = opaque;
	pthread_mutex_lock(&pm->lock);
	update_irq(pm);
	pthread_mutex_unlock(&pm->lock);
}

/** The @size bytes at @offset of a register file that reads as @all. */
static u64 part(u64 all, u64 offset, u32 size)
{
	return all >> (offset * 8) & (BIT(size * 8) - 1);
}

/** @all with the @size bytes at @offset replaced by @value. */
static u64 with_part(u64 all, u64 offset, u64 value, u32 size)
{
	u64 mask = (BIT(size * 8) - 1) << (offset * 8);
	return (all & ~mask) | (value << (offset * 8) & mask);
}

static u64 event_read(void *opaque, u64 offset, u32 size)
{
	struct acpi_pm *pm = opaque;
	pthread_mutex_lock(&pm->lock);
	update_irq(pm);
	u64 all = pm->status | (u64)pm->enable << 16;
	pthread_mutex_unlock(&pm->lock);
	return part(all, offset, size);
}

static void event_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct acpi_pm *pm = opaque;
	pthread_mutex_lock(&pm->lock);
	update_irq(pm);
	/* Status bits are cleared by writing ones, and zeroes leave them (4.8.3.1). */
	u64 all = with_part((u64)pm->enable << 16, offset, value, size);
	pm->status &= (u16)~all;
	pm->enable = (u16)(all >> 16) & PM1_ENABLE_BITS;
	update_irq(pm);
	pthread_mutex_unlock(&pm->lock);
}

static u64 control_read(void *opaque, u64 offset, u32 size)
{
	struct acpi_pm *pm = opaque;
	pthread_mutex_lock(&pm->lock);
	u64 all = pm->control;
	pthread_mutex_unlock(&pm->lock);
	return part(all, offset, size);
}

static void control_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct acpi_pm *pm = opaque;
	pthread_mutex_lock(&pm->lock);
	u64 all = with_part(pm->control, offset, value, size);
	pm->control = ((u16)all & CONTROL_KEPT) | CONTROL_SCI_EN;
	pthread_mutex_unlock(&pm->lock);

	u32 sleep_type = (u32)(all >> CONTROL_SLP_SHIFT) & CONTROL_SLP_MASK;
	if ((all & CONTROL_SLP_EN) && sleep_type == ACPI_S5_SLEEP_TYPE)
		power_wire_request(&pm->power, POWER_OFF, 0);
}

static u64 timer_read(void *opaque, u64 offset, u32 size)
{
	const struct acpi_pm *pm = opaque;
	return part((u32)ticks(pm), offset, size);
}

static void timer_write(void *opaque, u64 offset, u64 value, u32 size)
{
	/* read-only (4.8.3.3) */
}

static const struct bus_ops event_ops = {
    .name = "ACPI PM1a event",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4,
    .read = event_read,
    .write = event_write,
};

static const struct bus_ops control_ops = {
    .name = "ACPI PM1a control",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2,
    .read = control_read,
    .write = control_write,
};

static const struct bus_ops timer_ops = {
    .name = "ACPI PM timer",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4,
    .read = timer_read,
    .write = timer_write,
};

int acpi_pm_create(struct acpi_pm **out, struct bus *io, struct loop *loop, struct irq_wire sci,
		   struct power_wire power, struct error *err)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));
	if (!pm)
		return error_set(err, ENOMEM, "no memory for ACPI power management");
	pm->sci = sci;
	pm->power = power;
	pm->epoch = loop_now();
	pm->control = CONTROL_SCI_EN;

	int ret = -ENOMEM;
	pm->carry = loop_timer_create(loop, carry_passed, pm);
	if (!pm->carry) {
		error_set(err, ENOMEM, "no timer for ACPI power management");
		goto free_pm;
	}
	ret = bus_add(io, ACPI_PM1A_EVENT_PORT, 4, &event_ops, pm, err);
	if (ret == 0)
		ret = bus_add(io, ACPI_PM1A_CONTROL_PORT, 2, &control_ops, pm, err);
	if (ret == 0)
		ret = bus_add(io, ACPI_PM_TIMER_PORT, 4, &timer_ops, pm, err);
	if (ret < 0)
		goto free_timer;
	pthread_mutex_init(&pm->lock, NULL);
	*out = pm;
	return 0;

free_timer:
	loop_timer_destroy(pm->carry);
free_pm:
	free(pm);
	return ret;
}

void acpi_pm_destroy(struct acpi_pm *pm)
{
	if (!pm)
		return;
	loop_timer_destroy(pm->carry);
	pthread_mutex_destroy(&pm->lock);
	free(pm);
}
