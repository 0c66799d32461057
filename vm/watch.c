/*
 * The watch: a guest whose processors all sit in HLT with interrupts off will never run again, and
 * says nothing. Engines with their own interrupt chips sleep through it (KVM does), so every second
 * each vCPU that had no exit is brought out and looked at.
 *
 * One look at each is not enough: between two looks, one vCPU may wake another with an NMI and halt
 * itself. So all must have been found dead at this tick and at the one before.
 */
#include <errno.h>

#include "base/error.h"
#include "host/loop.h"
#include "vm/machine.h"

#define WATCH_NS 1000000000ull

#define RFLAGS_IF 0x200

static void tick(void *opaque)
{
	struct vm *vm = opaque;

	vm->watch_tick++;
	for (u32 i = 0; i < vm->cpu_count; i++) {
		struct vcpu *vcpu = &vm->vcpus[i];
		unsigned exits = atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
		bool silent = exits == vcpu->exits_at_watch;
		vcpu->exits_at_watch = exits;
		if (!silent)
			continue;
		atomic_store(&vcpu->watch_tick, vm->watch_tick);
		vcpu_bring_to_seam(vcpu);
	}
	loop_timer_arm(vm->watch_timer, loop_now() + WATCH_NS);
}

int vm_watch_start(struct vm *vm, struct error *err)
{
	/* Without interrupt chips every HLT comes to the monitor at once. */
	if (vm->config.boot.flat)
		return 0;
	vm->watch_timer = loop_timer_create(vm->config.loop, tick, vm);
	if (!vm->watch_timer)
		return error_set(err, ENOMEM, "no timer for the watch over halted vCPUs");
	loop_timer_arm(vm->watch_timer, loop_now() + WATCH_NS);
	return 0;
}

void vm_watch_stop(struct vm *vm)
{
	loop_timer_destroy(vm->watch_timer);
	vm->watch_timer = NULL;
}

/** Whether nothing that this machine has can make the vCPU run again by itself. */
static bool is_dead(struct vcpu *vcpu)
{
	const struct engine *engine = vcpu->vm->engine;
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_vcpu_events events;

	if (engine->vcpu_get_mp_state(vcpu->cpu, &mp) < 0)
		return false;
	if (mp.mp_state == KVM_MP_STATE_UNINITIALIZED || mp.mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return true; /* waits for another vCPU's SIPI */
	if (mp.mp_state != KVM_MP_STATE_HALTED || engine->vcpu_get_regs(vcpu->cpu, &regs) < 0 ||
	    (regs.rflags & RFLAGS_IF))
		return false;
	return engine->vcpu_get_events(vcpu->cpu, &events) < 0 || !events.nmi.pending;
}

static bool all_dead(const struct vm *vm, u32 now)
{
	for (u32 i = 0; i < vm->cpu_count; i++) {
		const struct vcpu *vcpu = &vm->vcpus[i];
		u32 since = atomic_load(&vcpu->dead_since);
		if (!since || since >= now || atomic_load(&vcpu->dead_at) != now)
			return false;
	}
	return true;
}

void vm_watch_look(struct vcpu *vcpu)
{
	u32 now = atomic_exchange(&vcpu->watch_tick, 0);
	if (!now)
		return;
	if (!is_dead(vcpu)) {
		atomic_store(&vcpu->dead_since, 0);
		return;
	}
	/* A tick in between that did not look found it alive: it had exits. */
	u32 dead_at = atomic_load(&vcpu->dead_at);
	if (!atomic_load(&vcpu->dead_since) || dead_at + 1 != now)
		atomic_store(&vcpu->dead_since, now);
	atomic_store(&vcpu->dead_at, now);
	if (all_dead(vcpu->vm, now))
		vm_end(vcpu->vm, VM_GUEST_FAILED, vcpu,
		       "the guest halted with interrupts off, and nothing will wake it");
}
