/* A host timer per vCPU thread: it kicks the thread when the next timer of the interrupt chips is
 * due. Inside. */
#ifndef GUISE_SOFT_TIMER_H
#define GUISE_SOFT_TIMER_H

#include "engine/soft/vcpu.h"

/** Arms for @deadline (CLOCK_MONOTONIC nanoseconds; UINT64_MAX: disarms). vCPU's thread only. */
void timer_arm(struct soft_vcpu *v, u64 deadline);

/** Runs the interrupt chips' timers. When the next of those, or VMX' preemption timer, is due:
 * CLOCK_MONOTONIC nanoseconds; UINT64_MAX: none runs. */
u64 timer_next(struct soft_vcpu *v);
/** timer_arm() for timer_next(). */
void timer_arm_next(struct soft_vcpu *v);

/** Frees the timer. Any thread while the vCPU is not running. */
void timer_release(struct soft_vcpu *v);

#endif
