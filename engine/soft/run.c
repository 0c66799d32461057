/* vcpu_run(): the life of a soft vCPU between the monitor and the guest. Outside. */
#include "engine/soft/run.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/gp.h"
#include "debug/trace.h"
#include "engine/soft/guest_debug.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/io.h"
#include "engine/soft/signals.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/system/state.h"
#include "engine/soft/thread.h"
#include "engine/soft/timer.h"
#include "engine/soft/translate/stubs.h"
#include "engine/soft/translate/translate.h"

/* Time by the TSC, which costs no call: for statistics, see run_stats(). */
static u64 ticks(void)
{
	return __builtin_ia32_rdtsc();
}

/* ---- translation, asked for by the dispatcher ---- */

void soft_translate_pending(struct soft_vcpu *v)
{
	struct code_source source = {
	    .rip = v->source.rip,
	    .linear = v->source.linear,
	    .gpa = v->source.gpa,
	    .page = v->source.page,
	    .next_gpa = v->source.next_gpa,
	    .next_page = v->source.next_page,
	};
	u64 begin = ticks();
	int error = 0;
	translate(v, &source, v->source.mode, &error);
	if (error == -EFBIG)
		v->source.need_next = true;
	v->ticks.translate += ticks() - begin;
}

/* ---- halted vCPUs ---- */

/* Could anything ever wake this vCPU? Another one could, by an IPI; a device only through IF or
 * NMI. */
static bool halted_for_good(const struct soft_vcpu *v)
{
	if ((v->rflags_sys & RFLAGS_IF) || irqchip_makes_nmi(v) || v->vmx.nonroot)
		return false;
	const struct soft_vm *vm = v->vm;
	for (u32 n = 0; n < VCPUS_MAX; n++) {
		const struct soft_vcpu *other = vm->vcpus[n];
		if (other && other != v &&
		    (other->mp_state == KVM_MP_STATE_RUNNABLE ||
		     (other->mp_state == KVM_MP_STATE_HALTED && (other->rflags_sys & RFLAGS_IF))))
			return false;
	}
	return true;
}

/* What a thread may need to go to sleep and come back, ns: not worth it for less. */
#define SLEEP_NS 50000

/* A timer that is due so soon is waited for awake. */
static void wait_for_timer(const struct soft_vcpu *v, u64 deadline)
{
	if (!v->vm->tune.halts)
		return;
	for (u64 now = clock_now(); now < deadline && deadline - now < SLEEP_NS;
	     now = clock_now()) {
		if (atomic_load(&v->attention) || v->base.run->immediate_exit)
			break;
		__builtin_ia32_pause();
	}
}

static void sleep_until(struct soft_vcpu *v, u64 deadline)
{
	u64 begin = ticks();
	wait_for_timer(v, deadline);
	struct timespec at = {.tv_sec = (long)(deadline / 1000000000),
			      .tv_nsec = (long)(deadline % 1000000000)};
	u32 seen = atomic_load(&v->wake);
	atomic_store(&v->sleeping, 1);
	if (!atomic_load(&v->attention) && !v->base.run->immediate_exit && clock_now() < deadline)
		syscall(SYS_futex, &v->wake, FUTEX_WAIT_BITSET_PRIVATE, seen,
			deadline == UINT64_MAX ? NULL : &at, NULL, FUTEX_BITSET_MATCH_ANY);
	atomic_store(&v->sleeping, 0);
	v->ticks.halted += ticks() - begin;
}

/*
 * Waits while mp_state is not runnable. 0: look again inside; -EINTR or -EAGAIN: return that; 1:
 * return to the monitor with KVM_EXIT_HLT.
 */
static int wait_runnable(struct soft_vcpu *v)
{
	bool halted = v->mp_state == KVM_MP_STATE_HALTED;
	if (halted && !v->vm->irqchip) {
		v->mp_state = KVM_MP_STATE_RUNNABLE; /* the monitor decides when to go on */
		v->base.run->exit_reason = KVM_EXIT_HLT;
		return 1;
	}
	for (;;) {
		u64 deadline = timer_next(v);
		if (atomic_load(&v->attention) & ~(u32)ATTENTION_KICK)
			return 0; /* the dispatcher decides what it means */
		if (v->base.run->immediate_exit)
			return halted ? -EINTR : -EAGAIN;
		atomic_fetch_and(&v->attention, ~(u32)ATTENTION_KICK);
		if (events_pending(v) || events_held_back(v))
			return 0;
		if (halted && halted_for_good(v)) {
			v->base.run->exit_reason = KVM_EXIT_HLT;
			return 1;
		}
		sleep_until(v, deadline);
		atomic_fetch_or(&v->attention, deadline <= clock_now() ? ATTENTION_TIMER : 0);
	}
}

/* ---- exits ---- */

static void fill_exit(struct soft_vcpu *v)
{
	struct kvm_run *run = v->base.run;
	run->if_flag = (v->rflags_sys & RFLAGS_IF) != 0;
	run->cr8 = v->lapic ? lapic_get_tpr(v) : v->cr8;
	run->apic_base = v->msr.apic_base;
	run->ready_for_interrupt_injection = !v->vm->irqchip && vcpu_window_open(v);
}

static int internal_error(struct soft_vcpu *v, u32 suberror)
{
	struct kvm_run *run = v->base.run;
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = suberror;
	run->internal.ndata = 0;
	return 0;
}

/*
 * An event's delivery cannot be replayed as an instruction can: the event would be taken again and
 * read its tables again, for ever and deaf to kicks. Tables and stacks in MMIO end the guest then,
 * as in KVM (KVM_INTERNAL_ERROR_DELIVERY_EV, api.rst 5). INT n in the guest's code is an
 * instruction.
 */
static bool reads_for_delivery(struct soft_vcpu *v)
{
	struct pending_events *ev = &v->events;
	bool delivering = ev->in_delivery && (!ev->delivering_soft || ev->soft_interrupt);
	ev->in_delivery = false;
	return delivering;
}

/* Turns the reason for which translated code was left into a result of vcpu_run(); -EBUSY: go in
 * again. */
static int handle_leave(struct soft_vcpu *v)
{
	struct kvm_run *run = v->base.run;
	int r;
	switch ((enum leave_reason)v->leave) {
	case LEAVE_EXIT:
		return 0;
	case LEAVE_READ:
		if (reads_for_delivery(v))
			return internal_error(v, KVM_INTERNAL_ERROR_DELIVERY_EV);
		v->read_pending = true;
		return 0;
	case LEAVE_QUEUE:
		return io_queue_next(v) ? 0 : -EBUSY;
	case LEAVE_KICK:
		v->stats.exit_intr++;
		run->exit_reason = KVM_EXIT_INTR;
		return -EINTR;
	case LEAVE_HALT:
		v->stats.exit_hlt++;
		r = wait_runnable(v);
		return r == 0 ? -EBUSY : r == 1 ? 0 : r;
	case LEAVE_SHUTDOWN:
		run->exit_reason = KVM_EXIT_SHUTDOWN;
		return 0;
	case LEAVE_WINDOW:
		run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
		return 0;
	case LEAVE_DEBUG:
		guest_debug_exit(v);
		return 0;
	case LEAVE_NO_CODE:
		return internal_error(v, KVM_INTERNAL_ERROR_EMULATION);
	default:
		return internal_error(v, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
	}
}

/*
 * The host's timer stays armed while the monitor is at work, and who sets a timer of the chips
 * raises attention: on the way in there is something to do only for a thread that has no timer yet,
 * or has seen one fire, perhaps while it was outside or in another vCPU.
 */
static void look_at_timers(struct soft_vcpu *v)
{
	if (!v->vm->irqchip)
		return;
	if (likely(v->timer_thread == atomic_load_explicit(&v->thread, memory_order_relaxed) &&
		   v->timers_fired == soft_timers_fired && v->vm->tune.exits))
		return;
	v->timers_fired = soft_timers_fired;
	timer_arm_next(v);
}

static int run_guest(struct soft_vcpu *v)
{
	void (*enter)(struct soft_vcpu *) = (void *)(uintptr_t)v->cache->stubs.enter;
	int r;
	do {
		v->leave = LEAVE_NONE;
		look_at_timers(v);
		enter(v);
		r = handle_leave(v);
	} while (r == -EBUSY);
	return r;
}

static void count_exit(struct soft_vcpu *v, int result)
{
	if (result < 0)
		return;
	v->stats.exits_full++;
	switch (v->base.run->exit_reason) {
	case KVM_EXIT_IO:
		v->stats.exit_io++;
		break;
	case KVM_EXIT_MMIO:
		v->stats.exit_mmio++;
		break;
	case KVM_EXIT_HLT:
		break;
	default:
		v->stats.exit_other++;
	}
}

int soft_vcpu_run(struct engine_vcpu *vcpu)
{
	struct soft_vcpu *v = container_of(vcpu, struct soft_vcpu, base);
	struct kvm_run *run = vcpu->run;

	if (v->read_pending) {
		io_complete_read(v);
		v->io_cursor = 0;
		v->read_pending = false;
		v->replay = 1;
	}
	if (io_queue_next(v)) { /* the rest of a store in several pieces */
		fill_exit(v);
		count_exit(v, 0);
		return 0;
	}
	if (run->immediate_exit) {
		if (!v->replay)
			return -EINTR;
		vcpu_attention(v, ATTENTION_KICK);
	}
	v->window_wanted = run->request_interrupt_window && !v->vm->irqchip;
	if (v->window_wanted)
		vcpu_attention(v, ATTENTION_IRQ);
	u64 begin = ticks();
	if (v->ticks.left_at)
		v->ticks.monitor += begin - v->ticks.left_at;
	u64 halted = v->ticks.halted;
	thread_enter(v);
	int r = run_guest(v);
	thread_leave(v);
	v->ticks.left_at = ticks();
	v->ticks.guest += v->ticks.left_at - begin - (v->ticks.halted - halted);
	fill_exit(v);
	count_exit(v, r);
	return r;
}

void soft_vcpu_kick(struct engine_vcpu *vcpu)
{
	struct soft_vcpu *v = container_of(vcpu, struct soft_vcpu, base);
	vcpu->run->immediate_exit = 1;
	vcpu_poke(v, ATTENTION_KICK);
	/* From a signal handler on the vCPU's own thread, which may have interrupted translated
	 * code. */
	if (soft_current == v)
		signals_kick_again();
}

void run_begin_stats(struct soft_vcpu *v)
{
	v->ticks.born = ticks();
	v->ticks.born_ns = clock_now();
}

void run_stats(const struct soft_vcpu *v, struct engine_stats *stats)
{
	/* The TSC's rate is what it was over the life of the vCPU. */
	double life = (double)(ticks() - v->ticks.born);
	double ns = life > 0 ? (double)(clock_now() - v->ticks.born_ns) / life : 0;
	*stats = v->stats;
	stats->ns_guest = (u64)((double)v->ticks.guest * ns);
	stats->ns_translate = (u64)((double)v->ticks.translate * ns);
	stats->ns_halted = (u64)((double)v->ticks.halted * ns);
	stats->ns_monitor = (u64)((double)v->ticks.monitor * ns);
	stats->vmx_ns_nonroot = (u64)((double)v->ticks.vmx.nonroot * ns);
#define REASON(X, name, number, text)                                                              \
	stats->vmx_ns_##name = (u64)((double)v->ticks.vmx.root[number] * ns);
	VMX_REASONS(REASON, )
#undef REASON
}
