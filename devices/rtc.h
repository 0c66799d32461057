/* The real-time clock and its CMOS memory: an MC146818 at ports 70 and 71, IRQ 8. */
#ifndef GUISE_DEVICES_RTC_H
#define GUISE_DEVICES_RTC_H

#include "devices/bus.h"
#include "devices/wires.h"

#define RTC_IRQ 8

struct guest_memory;
struct loop;
struct rtc;

struct rtc_config {
	struct bus *io;
	struct loop *loop;
	struct irq_wire irq;
	const struct guest_memory *memory; /* its sizes go to where firmware leaves them */
	/** UTC in nanoseconds since 1970; NULL: the host's clock. */
	u64 (*now)(void *opaque);
	void *now_opaque;
};

/** Returns 0 and *out, or a negative errno with @err. */
int rtc_create(struct rtc **out, const struct rtc_config *config, struct error *err);

/** NULL is fine. On the loop's thread, or while it does not run. */
void rtc_destroy(struct rtc *rtc);

#endif
