/*
 * A hostile guest and a careless caller: random accesses to every register, random states, time
 * running. Nothing may crash or hang, and what the run loop relies on must hold throughout.
 */
#include <stdlib.h>

#include "tests/unit/fake_irqchip.h"

#define VCPUS	   3
#define OPERATIONS 300000

static u64 seed;

static u64 random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static u32 below(u32 n)
{
	return (random64() >> 16) % n;
}

/* Small numbers, single bits and noise, so that the interesting values come often. */
static u64 random_value(void)
{
	switch (below(4)) {
	case 0:
		return below(256);
	case 1:
		return BIT(below(64));
	case 2:
		return (u32)random64();
	default:
		return random64();
	}
}

static void touch_port(struct soft_vcpu *v)
{
	static const u16 ports[] = {0x20, 0x21, 0xa0, 0xa1,  0x40, 0x41,
				    0x42, 0x43, 0x61, 0x4d0, 0x4d1};
	u32 value = (u32)random_value(), size = 1u << below(3);

	assert_true(irqchip_port(v, ports[below(ARRAY_SIZE(ports))], size, &value, below(2)));
}

static void touch_mmio(struct soft_vcpu *v)
{
	u64 value = random_value(), base = below(2) ? IOAPIC_BASE : LAPIC_PAGE;
	u32 offset = below(4) ? below(0x50) * 0x10 : below(0x1000);

	irqchip_mmio(v, base + offset, 1u << below(4), &value, below(2));
}

static void touch_msr(struct soft_vcpu *v)
{
	u64 value = random_value();

	switch (below(8)) {
	case 0:
		value = guest_tsc(v) + below(1000000);
		lapic_msr(v, 0x6e0, &value, below(2));
		break;
	case 1:
		lapic_set_base(v, 0xfee00000 | below(2) << 8 | below(4) << 10);
		break;
	case 2:
		lapic_set_base(v, value);
		break;
	case 3:
		lapic_set_tpr(v, value & 15);
		break;
	default:
		lapic_msr(v, 0x800 + below(0x100), &value, below(2));
		break;
	}
}

static void set_random_state(struct soft_vm *vm, struct soft_vcpu *v)
{
	union {
		struct kvm_lapic_state lapic;
		struct kvm_irqchip chip;
		struct kvm_pit_state2 pit;
		u64 words[256];
	} state;

	for (size_t i = 0; i < ARRAY_SIZE(state.words); i++)
		state.words[i] = random64() & random64();
	switch (below(4)) {
	case 0:
		lapic_set(v, &state.lapic);
		break;
	case 1:
		state.pit.flags &= 3;
		pit_set(vm, &state.pit);
		break;
	case 2:
		lapic_reset(v->lapic, below(2));
		break;
	default:
		state.chip.chip_id = below(4);
		irqchip_set(vm, &state.chip);
		break;
	}
}

static void signal_something(struct soft_vm *vm)
{
	struct kvm_msi msi = {.address_lo = 0xfee00000 | below(0x100000), .data = random_value()};

	if (below(2))
		irqchip_msi(vm, &msi);
	else
		irqchip_line(vm, below(26), below(2));
}

/* What a vCPU does at an instruction boundary, with interrupts on. */
static void run_vcpu(struct soft_vcpu *v)
{
	u64 next = irqchip_run_timers(v);
	bool pending = irqchip_pending(v);
	int vector;

	assert_true(next > fake_now);
	assert_true(atomic_load(&v->events.nmi) <= 2);
	lapic_take_init(v);
	assert_in_range(lapic_take_sipi(v) + 1, 0, 256);
	vector = irqchip_acknowledge(v);
	assert_true(pending == (vector >= 0));
	assert_true(vector <= 255);
	if (below(16) == 0)
		atomic_store(&v->events.nmi, 0);
	if (next - fake_now < 1000000 && below(2))
		fake_now = next;
	else
		fake_now += below(100000);
}

static void test_wild(void **state)
{
	struct soft_vm *vm = fake_vm(VCPUS);

	seed = 88172645463325252ull;
	for (u32 i = 0; i < OPERATIONS; i++) {
		struct soft_vcpu *v = vm->vcpus[below(VCPUS)];

		switch (below(16)) {
		case 0 ... 4:
			touch_port(v);
			break;
		case 5 ... 9:
			touch_mmio(v);
			break;
		case 10:
		case 11:
			touch_msr(v);
			break;
		case 12:
		case 13:
			signal_something(vm);
			break;
		case 14:
			if (below(64) == 0)
				set_random_state(vm, v);
			break;
		default:
			run_vcpu(v);
			break;
		}
	}
	fake_vm_free(vm);
}

/* With nobody touching them, the timers of any state wake a vCPU at a bounded rate. */
static void test_wake_rate(void **state)
{
	struct soft_vm *vm = fake_vm(1);
	struct soft_vcpu *v = vm->vcpus[0];

	seed = 362436069;
	for (u32 round = 0; round < 300; round++) {
		u64 end;
		u32 wakes = 0;

		for (u32 i = 0; i < 50; i++) {
			touch_port(v);
			touch_mmio(v);
			touch_msr(v);
		}
		set_random_state(vm, v);
		for (end = fake_now + 1000000; fake_now < end; wakes++) {
			u64 next = irqchip_run_timers(v);

			assert_true(next > fake_now);
			fake_now = next < end ? next : end;
			irqchip_acknowledge(v);
		}
		assert_true(wakes <=
			    160); /* 1 ms; LAPIC and PIT at 20 us each, and some single shots */
	}
	fake_vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_wild),
	    cmocka_unit_test(test_wake_rate),
	};

	return cmocka_run_group_tests_name("irqchip_wild", tests, NULL, NULL);
}
