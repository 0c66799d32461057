#include "engine/soft/timer.h"

#include <signal.h>

#include "base/gp.h"
#include "engine/soft/system/state.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/signals.h"
#include "engine/soft/vmx/vmx.h"

static void timer_bind(struct soft_vcpu *v)
{
	int thread = atomic_load(&v->thread);
	if (v->timer_thread == thread)
		return;
	timer_release(v);
	struct sigevent event;
	gp_fill(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = KICK_SIGNAL;
	event._sigev_un._tid = thread;
	if (!gp_syscall(SYS_timer_create, CLOCK_MONOTONIC, (long)&event, (long)&v->timer, 0, 0, 0))
		v->timer_thread = thread;
}

void timer_arm(struct soft_vcpu *v, u64 deadline)
{
	timer_bind(v);
	if (deadline == UINT64_MAX)
		deadline = 0;
	if (!v->timer_thread)
		return;
	/* One that has passed has fired, perhaps while nobody was there to see it. */
	if (deadline == v->timer_deadline && (!deadline || clock_now() < deadline))
		return;
	struct timespec at = {.tv_sec = (long)(deadline / 1000000000),
			      .tv_nsec = (long)(deadline % 1000000000)};
	struct itimerspec spec = {.it_value = at};
	gp_syscall(SYS_timer_settime, v->timer, TIMER_ABSTIME, (long)&spec, 0, 0, 0);
	v->timer_deadline = deadline;
}

u64 timer_next(struct soft_vcpu *v)
{
	u64 chips = v->vm->irqchip ? irqchip_run_timers(v) : UINT64_MAX;
	u64 vmx = vmx_timer_deadline(v);

	return vmx < chips ? vmx : chips;
}

void timer_arm_next(struct soft_vcpu *v)
{
	u64 next = timer_next(v);

	if (v->vm->irqchip || next != UINT64_MAX)
		timer_arm(v, next);
}

void timer_release(struct soft_vcpu *v)
{
	if (v->timer_thread)
		gp_syscall(SYS_timer_delete, v->timer, 0, 0, 0, 0, 0);
	v->timer_thread = 0;
	v->timer_deadline = 0;
}
