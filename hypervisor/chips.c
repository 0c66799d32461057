// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Interrupt chips: LAPIC, IOAPIC, two PICs, PIT. They are engine/soft/irqchip's, the monitor's own;
 * here is what ties them to this hypervisor: a timer of the host for theirs, kicks, INIT and SIPI,
 * and the ioctls' view.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <asm/tsc.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

static struct vcpu *vcpu_of(const struct soft_vcpu *chip)
{
	return container_of(chip, struct vcpu, chip);
}

void vcpu_poke(struct soft_vcpu *chip, u32 attention)
{
	struct vcpu *v = vcpu_of(chip);

	vcpu_request(v, attention & ATTENTION_TIMER ? REQUEST_TIMERS : REQUEST_EVENTS);
	vcpu_kick(v);
}

bool cpuid_has(const struct soft_vcpu *chip, u32 function, u32 index, u32 reg, u32 bit)
{
	struct vcpu *v = vcpu_of(chip);
	const struct kvm_cpuid_entry2 *e = cpuid_find(v, function, index);

	/* Before CPUID was set everything is there. */
	if (!v->cpuid_count)
		return true;
	return e && ((&e->eax)[reg] & BIT(bit));
}

u64 clock_now(void)
{
	return ktime_get_ns();
}

u64 guest_tsc(const struct soft_vcpu *chip)
{
	return rdtsc() + vcpu_of(chip)->tsc_offset;
}

u64 guest_tsc_to_ns(const struct soft_vcpu *chip, u64 tsc)
{
	u64 now = guest_tsc(chip), far = 3600ull * NSEC_PER_SEC;

	if (tsc <= now)
		return clock_now();
	/* More than an hour away is looked at again in an hour. */
	if (tsc - now > far / 1000000 * tsc_khz)
		return clock_now() + far;
	return clock_now() + mul_u64_u64_div_u64(tsc - now, 1000000, tsc_khz);
}

static enum hrtimer_restart on_timer(struct hrtimer *timer)
{
	struct vcpu *v = container_of(timer, struct vcpu, timer);

	vcpu_request(v, REQUEST_TIMERS);
	vcpu_kick(v);
	return HRTIMER_NORESTART;
}

int chips_create_vcpu(struct vcpu *v)
{
	hrtimer_init(&v->timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	v->timer.function = on_timer;
	v->chip.base.id = v->id;
	v->chip.vm = &v->vm->chips;
	v->chip.reserved_pa = ~0ull << boot_cpu_data.x86_phys_bits;
	if (!v->vm->chips.irqchip)
		return 0;
	v->chip.lapic = lapic_create(&v->chip);
	return v->chip.lapic ? 0 : -ENOMEM;
}

void chips_destroy_vcpu(struct vcpu *v)
{
	lapic_destroy(v->chip.lapic);
	if (v->timer.function)
		hrtimer_cancel(&v->timer);
}

/* The timers of the chips up to now, and the host's for the next of them. */
void chips_run_timers(struct vcpu *v)
{
	u64 next = irqchip_run_timers(&v->chip);

	if (next == U64_MAX)
		hrtimer_cancel(&v->timer);
	else
		hrtimer_start(&v->timer, ns_to_ktime(next), HRTIMER_MODE_ABS);
}

/* SDM 3A 10.4.7, 8.4: INIT puts the processor where RESET does, with an application processor
 * waiting for a SIPI, which starts it at the page that the vector names. The vCPU is loaded. */
static void take_init(struct vcpu *v)
{
	vcpu_reset(v, true);
	lapic_reset(v->chip.lapic, true);
	if (!(v->chip.msr.apic_base & MSR_IA32_APICBASE_BSP))
		v->mp_state = KVM_MP_STATE_INIT_RECEIVED;
}

static void take_sipi(struct vcpu *v, u8 vector)
{
	struct kvm_segment cs;

	if (v->mp_state != KVM_MP_STATE_INIT_RECEIVED)
		return;
	state_get_segment(SEGMENT_CS, &cs);
	cs.selector = vector << 8;
	cs.base = vector << 12;
	state_set_segment(SEGMENT_CS, &cs);
	field_put(v, FIELD_RIP, 0);
	v->mp_state = KVM_MP_STATE_RUNNABLE;
}

void chips_take_events(struct vcpu *v)
{
	int vector;

	if (lapic_take_init(&v->chip))
		take_init(v);
	vector = lapic_take_sipi(&v->chip);
	if (vector >= 0)
		take_sipi(v, vector);
}

int chips_create(struct vm *vm)
{
	struct irqchip *chip;

	if (vm->chips.irqchip)
		return -EEXIST;
	/* vCPUs get their LAPICs when they are made. */
	for (int i = 0; i < GUISE_VCPUS; i++)
		if (vm->vcpus[i])
			return -EINVAL;
	chip = irqchip_create(&vm->chips);
	if (!chip)
		return -ENOMEM;
	smp_store_release(&vm->chips.irqchip, chip);
	return 0;
}

void chips_destroy(struct vm *vm)
{
	irqchip_destroy(vm->chips.irqchip);
}

/* A counter that was never loaded has 0 there; KVM's then has the largest count, and owners divide
 * by it. */
int chips_get_pit(struct vm *vm, struct kvm_pit_state2 *state)
{
	int ret = pit_get(&vm->chips, state);

	for (int i = 0; i < ARRAY_SIZE(state->channels) && !ret; i++)
		if (!state->channels[i].count)
			state->channels[i].count = 0x10000;
	return ret;
}

int chips_create_pit(struct vm *vm, const struct kvm_pit_config *config)
{
	if (!vm->chips.irqchip)
		return -ENOENT;
	return pit_create(vm->chips.irqchip);
}
