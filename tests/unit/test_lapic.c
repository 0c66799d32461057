/* The local APIC: registers in both modes, priorities, IPIs, errors, timer, mode changes, state. */
#include "tests/unit/fake_irqchip.h"

#define VCPUS 3

#define SELF	(1u << 18)
#define ALL	(2u << 18)
#define OTHERS	(3u << 18)
#define MASKED	(1u << 16)
#define LOGICAL (1u << 11)

#define MSR_TSC_DEADLINE 0x6e0

struct rig {
	struct soft_vm *vm;
	struct soft_vcpu **v;
};

static int setup(void **state)
{
	static struct rig rig;

	rig.vm = fake_vm(VCPUS);
	rig.v = rig.vm->vcpus;
	for (u32 i = 0; i < VCPUS; i++)
		apic_enable(rig.v[i]);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_vm_free(rig->vm);
	return 0;
}

static void ipi(struct soft_vcpu *v, u32 dest, u32 command)
{
	apic_write(v, LAPIC_ICR2, dest << 24);
	apic_write(v, LAPIC_ICR, command);
}

static bool wrmsr(struct soft_vcpu *v, u32 index, u64 value)
{
	return lapic_msr(v, index, &value, true);
}

static bool rdmsr(struct soft_vcpu *v, u32 index, u64 *value)
{
	return lapic_msr(v, index, value, false);
}

static void to_x2apic(struct soft_vcpu *v)
{
	assert_true(lapic_set_base(v, v->msr.apic_base | APIC_BASE_EXTD));
}

static void test_reset(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1];

	assert_int_equal(rig->v[0]->msr.apic_base, 0xfee00900);
	assert_int_equal(v->msr.apic_base, 0xfee00800);
	assert_int_equal(apic_read(v, LAPIC_ID), 1u << 24);
	apic_write(v, LAPIC_TPR, 0x30);
	ipi(rig->v[0], 1, 0x80);
	lapic_reset(v->lapic, true);
	assert_int_equal(apic_read(v, LAPIC_ID), 1u << 24);
	assert_int_equal(apic_read(v, LAPIC_VERSION), 0x50014);
	assert_int_equal(apic_read(v, LAPIC_TPR), 0);
	assert_int_equal(apic_read(v, LAPIC_SVR), 0xff);
	assert_int_equal(apic_read(v, LAPIC_DFR), 0xffffffff);
	assert_int_equal(apic_read(v, LAPIC_IRR + 4), 0);
	for (u32 reg = LAPIC_LVT_TIMER; reg <= LAPIC_LVT_ERROR; reg++)
		assert_int_equal(apic_read(v, reg), MASKED);
	assert_false(irqchip_pending(v));
}

static void test_priorities(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[0];

	ipi(v, 0, 0x45);
	ipi(v, 0, 0x83);
	ipi(v, 0, 0x81);
	assert_true(poked(v) & ATTENTION_IRQ);
	assert_int_equal(apic_read(v, LAPIC_IRR + 4), 0xa);
	assert_int_equal(irqchip_acknowledge(v), 0x83);
	assert_int_equal(apic_read(v, LAPIC_ISR + 4), 0x8);
	assert_int_equal(apic_read(v, LAPIC_PPR), 0x80);
	assert_false(irqchip_pending(v)); /* 0x81 is of the same class */
	ipi(v, 0, 0x90);
	assert_int_equal(irqchip_acknowledge(v), 0x90);
	poked(v);
	apic_write(v, LAPIC_EOI, 0);
	assert_false(irqchip_pending(v));
	apic_write(v, LAPIC_EOI, 0);
	assert_true(poked(v) & ATTENTION_IRQ);
	assert_int_equal(irqchip_acknowledge(v), 0x81);
	apic_write(v, LAPIC_EOI, 0);
	/* TPR holds class 4 back, by CR8 too */
	apic_write(v, LAPIC_TPR, 0x40);
	assert_false(irqchip_pending(v));
	assert_int_equal(lapic_get_tpr(v), 4);
	poked(v);
	lapic_set_tpr(v, 3);
	assert_true(poked(v) & ATTENTION_IRQ);
	assert_int_equal(apic_read(v, LAPIC_TPR), 0x30);
	assert_int_equal(irqchip_acknowledge(v), 0x45);
	assert_int_equal(apic_read(v, LAPIC_PPR), 0x40);
	apic_write(v, LAPIC_TPR, 0x41); /* the same class: TPR, with its low bits */
	assert_int_equal(apic_read(v, LAPIC_PPR), 0x41);
	apic_write(v, LAPIC_TPR, 0x4f);
	assert_int_equal(apic_read(v, LAPIC_PPR), 0x4f);
	apic_write(v, LAPIC_EOI, 0);
	apic_write(v, LAPIC_EOI, 0); /* one too many */
	assert_int_equal(irqchip_acknowledge(v), -1);
}

static u32 receivers(struct rig *rig, u8 vector)
{
	u32 set = 0;

	for (u32 i = 0; i < VCPUS; i++) {
		if (!irqchip_pending(rig->v[i]))
			continue;
		assert_int_equal(irqchip_acknowledge(rig->v[i]), vector);
		apic_write(rig->v[i], LAPIC_EOI, 0);
		set |= 1u << i;
	}
	return set;
}

static void test_ipi_destinations(void **state)
{
	struct rig *rig = *state;

	ipi(rig->v[0], 2, 0x50);
	assert_int_equal(receivers(rig, 0x50), 4);
	ipi(rig->v[1], 0, 0x50 | SELF);
	assert_int_equal(receivers(rig, 0x50), 2);
	ipi(rig->v[1], 0, 0x51 | ALL);
	assert_int_equal(receivers(rig, 0x51), 7);
	ipi(rig->v[1], 0, 0x52 | OTHERS);
	assert_int_equal(receivers(rig, 0x52), 5);
	ipi(rig->v[1], 0xff, 0x53);
	assert_int_equal(receivers(rig, 0x53), 7);
	for (u32 i = 0; i < VCPUS; i++)
		apic_write(rig->v[i], LAPIC_LDR, 0x10000000u << i);
	ipi(rig->v[0], 0x60, 0x54 | LOGICAL);
	assert_int_equal(receivers(rig, 0x54), 6);
	assert_int_equal(apic_read(rig->v[0], LAPIC_ICR), 0x54 | LOGICAL);
	/* a disabled APIC hears nothing */
	assert_true(lapic_set_base(rig->v[2], 0xfee00000));
	ipi(rig->v[0], 0, 0x55 | ALL);
	assert_int_equal(receivers(rig, 0x55), 3);
}

static void test_nmi_init_sipi(void **state)
{
	struct rig *rig = *state;

	for (int i = 0; i < 4; i++)
		ipi(rig->v[0], 1, 0x400);
	assert_int_equal(rig->v[1]->events.nmi, 2);
	assert_true(poked(rig->v[1]) & ATTENTION_IRQ);
	/* INIT, its de-assert, SIPI: as Linux wakes a processor */
	ipi(rig->v[0], 1, 0xc500);
	assert_true(poked(rig->v[1]) & ATTENTION_IRQ);
	assert_true(lapic_take_init(rig->v[1]));
	ipi(rig->v[0], 1, 0x8500);
	assert_false(lapic_take_init(rig->v[1]));
	assert_int_equal(lapic_take_sipi(rig->v[1]), -1);
	ipi(rig->v[0], 1, 0x69a);
	assert_int_equal(lapic_take_sipi(rig->v[1]), 0x9a);
	assert_int_equal(lapic_take_sipi(rig->v[1]), -1);
	/* an INIT wipes an older SIPI */
	ipi(rig->v[0], 1, 0x69b);
	ipi(rig->v[0], 1, 0x4500);
	assert_int_equal(lapic_take_sipi(rig->v[1]), -1);
	assert_true(lapic_take_init(rig->v[1]));
	/* INIT to oneself by shorthand is invalid */
	ipi(rig->v[0], 0, 0x4500 | SELF);
	ipi(rig->v[0], 0, 0x4500 | ALL);
	for (u32 i = 0; i < VCPUS; i++)
		assert_false(lapic_take_init(rig->v[i]));
	assert_false(irqchip_pending(rig->v[1]));
}

static void test_software_disable(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1];

	apic_write(v, LAPIC_LVT_TIMER, 0x40);
	ipi(rig->v[0], 1, 0x50);
	apic_write(v, LAPIC_SVR, 0xff);
	assert_int_equal(apic_read(v, LAPIC_LVT_TIMER), 0x40 | MASKED);
	apic_write(v, LAPIC_LVT_TIMER, 0x41);
	assert_int_equal(apic_read(v, LAPIC_LVT_TIMER), 0x41 | MASKED);
	ipi(rig->v[0], 1, 0x60);
	assert_int_equal(irqchip_acknowledge(v), 0x50); /* held, and still handled */
	assert_int_equal(apic_read(v, LAPIC_IRR + 3), 0);
	ipi(rig->v[0], 1, 0x400);
	assert_int_equal(v->events.nmi, 1);
	apic_write(v, LAPIC_SVR, 0x1ff);
	assert_int_equal(apic_read(v, LAPIC_LVT_TIMER), 0x41 | MASKED);
}

static void test_errors(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[0];

	apic_write(v, LAPIC_LVT_ERROR, 0xfe);
	ipi(v, 0, 0x05);
	assert_int_equal(apic_read(v, LAPIC_ESR), 0); /* not before a write */
	apic_write(v, LAPIC_ESR, 0);
	assert_int_equal(apic_read(v, LAPIC_ESR), 0x20);
	assert_int_equal(irqchip_acknowledge(v), 0xfe);
	apic_write(v, LAPIC_EOI, 0);
	apic_write(v, LAPIC_ESR, 0);
	assert_int_equal(apic_read(v, LAPIC_ESR), 0);
	/* a register that is not there */
	mmio_read32(v, LAPIC_PAGE + 0x040);
	mmio_write32(v, LAPIC_PAGE + 0x3f0, 0x50);
	assert_int_equal(irqchip_acknowledge(v), 0xfe);
	apic_write(v, LAPIC_ESR, 0);
	assert_int_equal(apic_read(v, LAPIC_ESR), 0x80);
	/* an illegal vector in the error entry itself does not go round for ever */
	apic_write(v, LAPIC_EOI, 0);
	apic_write(v, LAPIC_LVT_ERROR, 0x03);
	mmio_read32(v, LAPIC_PAGE + 0x040);
	apic_write(v, LAPIC_ESR, 0);
	assert_int_equal(apic_read(v, LAPIC_ESR), 0xc0);
}

static void test_mmio_shapes(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[0];
	u64 value = 0;

	apic_write(v, LAPIC_SVR, 0x1ab);
	assert_true(irqchip_mmio(v, LAPIC_PAGE + 0xf0, 1, &value, false));
	assert_int_equal(value, 0xab);
	assert_true(irqchip_mmio(v, LAPIC_PAGE + 0xf1, 1, &value, false));
	assert_int_equal(value, 0x01);
	assert_true(irqchip_mmio(v, LAPIC_PAGE + 0xf4, 4, &value, false));
	assert_int_equal(value, 0);
	value = 0xffff;
	assert_true(irqchip_mmio(v, LAPIC_PAGE + 0xf0, 2, &value, true));
	assert_int_equal(apic_read(v, LAPIC_SVR), 0x1ab);
	/* read-only and reserved bits */
	apic_write(v, LAPIC_VERSION, 0);
	assert_int_equal(apic_read(v, LAPIC_VERSION), 0x50014);
	apic_write(v, LAPIC_LVT_TIMER, 0xffffffff);
	assert_int_equal(apic_read(v, LAPIC_LVT_TIMER), 0x700ff);
	for (u32 offset = 0; offset < 0x1000; offset++) {
		value = ~0ull;
		assert_true(irqchip_mmio(v, LAPIC_PAGE + offset, 4, &value, false));
	}
	assert_false(irqchip_mmio(v, LAPIC_PAGE + 0x1000, 4, &value, false));
	assert_false(irqchip_mmio(v, LAPIC_PAGE - 1, 4, &value, false));
	/* moved */
	assert_true(lapic_set_base(v, 0xfe000900));
	assert_false(irqchip_mmio(v, LAPIC_PAGE, 4, &value, false));
	assert_int_equal(mmio_read32(v, 0xfe000030), 0x50014);
}

static void test_base(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[0];
	u64 value;

	assert_false(lapic_set_base(v, 0xfee00901)); /* reserved bits */
	assert_false(lapic_set_base(v, 0xfee00a00 | BIT(9)));
	v->reserved_pa = BIT(46);
	assert_false(lapic_set_base(v, 0xfee00900 | BIT(46)));
	assert_false(lapic_set_base(v, 0xfee00500)); /* EXTD without EN */
	assert_true(lapic_set_base(v, 0xfee00d00));
	assert_false(lapic_set_base(v, 0xfee00900)); /* x2APIC to xAPIC */
	assert_false(irqchip_mmio(v, LAPIC_PAGE, 4, &value, false));
	apic_enable(rig->v[1]);
	assert_true(wrmsr(v, 0x80f, 0x1ff));
	assert_true(lapic_set_base(v, 0xfee00100));
	assert_false(rdmsr(v, 0x803, &value));
	assert_false(irqchip_mmio(v, LAPIC_PAGE, 4, &value, false));
	assert_false(lapic_set_base(v, 0xfee00d00)); /* disabled to x2APIC */
	assert_true(lapic_set_base(v, 0xfee00900));
	assert_int_equal(apic_read(v, LAPIC_SVR), 0xff); /* the state was lost */
	fake_x2apic = false;
	assert_false(lapic_set_base(v, 0xfee00d00));
	lapic_restore_base(v, 0xfee00d00); /* the API may */
	assert_true(rdmsr(v, 0x802, &value));
	lapic_restore_base(v, 0xfee00900);
	assert_int_equal(apic_read(v, LAPIC_ID), 0);
}

static void test_x2apic_registers(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[2];
	u64 value;

	assert_false(rdmsr(v, 0x802, &value)); /* not in this mode yet */
	apic_write(v, LAPIC_TPR, 0x20);
	to_x2apic(v);
	assert_true(rdmsr(v, 0x802, &value));
	assert_int_equal(value, 2);
	assert_true(rdmsr(v, 0x80d, &value));
	assert_int_equal(value, 4);
	assert_true(rdmsr(v, 0x808, &value)); /* kept */
	assert_int_equal(value, 0x20);
	/* reserved registers, directions, bits */
	assert_false(rdmsr(v, 0x80b, &value));
	assert_false(rdmsr(v, 0x83f, &value));
	assert_false(rdmsr(v, 0x809, &value));
	assert_false(rdmsr(v, 0x80e, &value));
	assert_false(rdmsr(v, 0x831, &value));
	assert_false(rdmsr(v, 0x82f, &value));
	assert_false(rdmsr(v, 0x840, &value));
	assert_false(rdmsr(v, 0x8ff, &value));
	assert_false(wrmsr(v, 0x802, 0));
	assert_false(wrmsr(v, 0x803, 0));
	assert_false(wrmsr(v, 0x80d, 0));
	assert_false(wrmsr(v, 0x839, 0));
	assert_false(wrmsr(v, 0x810, 0));
	assert_false(wrmsr(v, 0x80b, 1));
	assert_false(wrmsr(v, 0x828, 1));
	assert_false(wrmsr(v, 0x808, 0x100));
	assert_false(wrmsr(v, 0x80f, 0x10000));
	assert_false(wrmsr(v, 0x808, 1ull << 32));
	assert_false(wrmsr(v, 0x830, 1u << 13));
	assert_false(wrmsr(v, 0x830, 1u << 20));
	assert_false(wrmsr(v, 0x83e, 4));
	assert_true(wrmsr(v, 0x80b, 0));
	assert_true(wrmsr(v, 0x828, 0));
	assert_true(wrmsr(v, 0x808, 0));
	/* INIT keeps the mode */
	lapic_reset(v->lapic, true);
	assert_true(rdmsr(v, 0x802, &value));
	assert_int_equal(value, 2);
	lapic_reset(v->lapic, false);
	assert_false(rdmsr(v, 0x802, &value));
}

static void test_x2apic_ipi(void **state)
{
	struct rig *rig = *state;
	u64 value;

	for (u32 i = 0; i < VCPUS; i++)
		to_x2apic(rig->v[i]);
	assert_true(wrmsr(rig->v[0], 0x830, 2ull << 32 | 0x50));
	assert_int_equal(irqchip_acknowledge(rig->v[2]), 0x50);
	assert_false(irqchip_pending(rig->v[0]));
	assert_true(rdmsr(rig->v[0], 0x830, &value));
	assert_int_equal(value, 2ull << 32 | 0x50);
	assert_true(wrmsr(rig->v[2], 0x80b, 0));
	/* self, broadcast, cluster */
	assert_true(wrmsr(rig->v[1], 0x83f, 0x51));
	assert_int_equal(irqchip_acknowledge(rig->v[1]), 0x51);
	assert_true(wrmsr(rig->v[0], 0x830, 0xffffffffull << 32 | 0x62));
	for (u32 i = 0; i < VCPUS; i++)
		assert_int_equal(irqchip_acknowledge(rig->v[i]), 0x62);
	assert_true(wrmsr(rig->v[0], 0x830, 0x00000006ull << 32 | LOGICAL | 0x73));
	assert_false(irqchip_pending(rig->v[0]));
	assert_int_equal(irqchip_acknowledge(rig->v[1]), 0x73);
	assert_int_equal(irqchip_acknowledge(rig->v[2]), 0x73);
	assert_true(wrmsr(rig->v[0], 0x830, 0x00010001ull << 32 | LOGICAL | 0x84));
	assert_false(irqchip_pending(rig->v[0])); /* another cluster */
	/* 0xff is an id like any other, but a broadcast from the 8-bit bus */
	assert_true(wrmsr(rig->v[0], 0x830, 0xffull << 32 | 0x85));
	assert_false(irqchip_pending(rig->v[1]));
	ioapic_entry(rig->vm, 7, 0x86 | 0xffull << 56);
	irqchip_line(rig->vm, 7, 1);
	assert_int_equal(irqchip_acknowledge(rig->v[1]), 0x86);
}

static void test_timer_one_shot(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1];
	u64 start = fake_now;

	apic_write(v, LAPIC_LVT_TIMER, 0x40);
	apic_write(v, LAPIC_TIMER_DIVIDE, 0x3); /* by 16 */
	poked(v);
	apic_write(v, LAPIC_TIMER_INITIAL, 1000);
	assert_true(poked(v) & ATTENTION_TIMER);
	assert_int_equal(irqchip_run_timers(v), start + 16000);
	fake_now += 8000;
	assert_int_equal(apic_read(v, LAPIC_TIMER_CURRENT), 500);
	/* another divisor: the count goes on */
	apic_write(v, LAPIC_TIMER_DIVIDE, 0xb);
	assert_int_equal(apic_read(v, LAPIC_TIMER_CURRENT), 500);
	assert_int_equal(irqchip_run_timers(v), start + 8500);
	fake_now = start + 8499;
	irqchip_run_timers(v);
	assert_false(irqchip_pending(v));
	fake_now = start + 8500;
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	assert_int_equal(irqchip_acknowledge(v), 0x40);
	assert_int_equal(apic_read(v, LAPIC_TIMER_CURRENT), 0);
	apic_write(v, LAPIC_EOI, 0);
	/* masked: counts, says nothing; 0 stops */
	apic_write(v, LAPIC_LVT_TIMER, 0x40 | MASKED);
	apic_write(v, LAPIC_TIMER_INITIAL, 1000);
	fake_now += 2000;
	irqchip_run_timers(v);
	assert_false(irqchip_pending(v));
	apic_write(v, LAPIC_TIMER_INITIAL, 1000);
	apic_write(v, LAPIC_TIMER_INITIAL, 0);
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
}

static void test_timer_divisors(void **state)
{
	static const struct {
		u8 tdcr;
		u8 divisor;
	} rows[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		apic_write(v, LAPIC_TIMER_DIVIDE, rows[i].tdcr);
		apic_write(v, LAPIC_TIMER_INITIAL, 0xffffffff);
		assert_int_equal(irqchip_run_timers(v), fake_now + 0xffffffffull * rows[i].divisor);
		assert_int_equal(apic_read(v, LAPIC_TIMER_CURRENT), 0xffffffff);
	}
}

static void test_timer_periodic(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1];
	u64 start = fake_now, next;

	apic_write(v, LAPIC_LVT_TIMER, 0x20040);
	apic_write(v, LAPIC_TIMER_DIVIDE, 0xb);
	apic_write(v, LAPIC_TIMER_INITIAL, 100000);
	for (u32 i = 1; i <= 100; i++) {
		next = irqchip_run_timers(v);
		assert_int_equal(next, start + i * 100000);
		fake_now = next + 77; /* late every time: no drift */
		irqchip_run_timers(v);
		assert_int_equal(irqchip_acknowledge(v), 0x40);
		apic_write(v, LAPIC_EOI, 0);
		assert_int_equal(apic_read(v, LAPIC_TIMER_CURRENT), 100000 - 77);
	}
	/* a stall: one tick, in step again */
	fake_now = start + 200 * 100000 + 5;
	assert_int_equal(irqchip_run_timers(v), start + 201 * 100000);
	assert_int_equal(irqchip_acknowledge(v), 0x40);
	apic_write(v, LAPIC_EOI, 0);
	assert_false(irqchip_pending(v));
	/* a period of 1 ns does not flood the host */
	apic_write(v, LAPIC_TIMER_INITIAL, 1);
	assert_true(irqchip_run_timers(v) >= fake_now + 20000);
	assert_int_equal(apic_read(v, LAPIC_TIMER_CURRENT), 1);
	fake_now += 1000000;
	assert_in_range(irqchip_run_timers(v), fake_now + 1, fake_now + 20000);
}

static void test_timer_deadline(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1];
	u64 value;

	v->tsc_offset = -12345;
	assert_true(wrmsr(v, MSR_TSC_DEADLINE, 99)); /* another mode: ignored */
	assert_true(rdmsr(v, MSR_TSC_DEADLINE, &value));
	assert_int_equal(value, 0);
	apic_write(v, LAPIC_LVT_TIMER, 0x40040);
	apic_write(v, LAPIC_TIMER_INITIAL, 5); /* ignored in this one */
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	poked(v);
	assert_true(wrmsr(v, MSR_TSC_DEADLINE, guest_tsc(v) + 2000));
	assert_true(poked(v) & ATTENTION_TIMER);
	assert_int_equal(irqchip_run_timers(v), fake_now + 1000);
	v->tsc_offset -= 2000; /* the guest set its TSC back */
	assert_int_equal(irqchip_run_timers(v), fake_now + 2000);
	fake_now += 1999;
	irqchip_run_timers(v);
	assert_false(irqchip_pending(v));
	fake_now += 1;
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	assert_int_equal(irqchip_acknowledge(v), 0x40);
	assert_true(rdmsr(v, MSR_TSC_DEADLINE, &value));
	assert_int_equal(value, 0);
	apic_write(v, LAPIC_EOI, 0);
	/* a deadline in the past is due now */
	assert_true(wrmsr(v, MSR_TSC_DEADLINE, 1));
	irqchip_run_timers(v);
	assert_int_equal(irqchip_acknowledge(v), 0x40);
	apic_write(v, LAPIC_EOI, 0);
	/* 0 and a change of mode disarm */
	assert_true(wrmsr(v, MSR_TSC_DEADLINE, guest_tsc(v) + 2000));
	assert_true(wrmsr(v, MSR_TSC_DEADLINE, 0));
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	assert_true(wrmsr(v, MSR_TSC_DEADLINE, guest_tsc(v) + 2000));
	apic_write(v, LAPIC_LVT_TIMER, 0x40);
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	apic_write(v, LAPIC_TIMER_INITIAL, 1000);
	apic_write(v, LAPIC_LVT_TIMER, 0x40040);
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	apic_write(v, LAPIC_LVT_TIMER, 0x40);
	assert_int_equal(irqchip_run_timers(v), UINT64_MAX);
	assert_int_equal(apic_read(v, LAPIC_TIMER_INITIAL), 0);
	/* between one-shot and periodic it runs on */
	apic_write(v, LAPIC_TIMER_INITIAL, 100000);
	apic_write(v, LAPIC_LVT_TIMER, 0x20040);
	assert_int_not_equal(irqchip_run_timers(v), UINT64_MAX);
}

static void test_lint1(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[0];

	lapic_nmi_line(v); /* masked */
	assert_int_equal(v->events.nmi, 0);
	apic_write(v, LAPIC_LVT_LINT1, 0x400);
	lapic_nmi_line(v);
	assert_int_equal(v->events.nmi, 1);
	assert_true(poked(v) & ATTENTION_IRQ);
}

static void test_state(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[1], *w = rig->v[2];
	struct kvm_lapic_state page;

	apic_write(v, LAPIC_LVT_TIMER, 0x20040);
	apic_write(v, LAPIC_TIMER_DIVIDE, 0xb);
	apic_write(v, LAPIC_TIMER_INITIAL, 100000);
	ipi(v, 1, 0x50);
	ipi(v, 1, 0x61);
	assert_int_equal(irqchip_acknowledge(v), 0x61);
	fake_now += 25000;
	assert_int_equal(lapic_get(v, &page), 0);
	assert_int_equal(*(u32 *)&page.regs[0xf0], 0x1ff);
	assert_int_equal(*(u32 *)&page.regs[0x390], 75000);
	assert_int_equal(lapic_set(w, &page), 0);
	assert_int_equal(irqchip_run_timers(w), fake_now + 75000);
	assert_false(irqchip_pending(w));
	apic_write(w, LAPIC_EOI, 0);
	assert_int_equal(irqchip_acknowledge(w), 0x50);
	assert_int_equal(apic_read(w, LAPIC_ID), 1u << 24); /* writable in xAPIC mode */
	/* in x2APIC mode the page shows the id where xAPIC has it */
	to_x2apic(v);
	assert_int_equal(lapic_get(v, &page), 0);
	assert_int_equal(*(u32 *)&page.regs[0x20], 1u << 24);
	assert_int_equal(lapic_set(v, &page), 0);
	u64 id;
	assert_true(rdmsr(v, 0x802, &id));
	assert_int_equal(id, 1);
	/* nonsense */
	gp_fill(&page, 0xff, sizeof(page));
	assert_int_equal(lapic_set(w, &page), 0);
	for (int i = 0; i < 600; i++) {
		irqchip_acknowledge(w);
		apic_write(w, LAPIC_EOI, 0);
		fake_now += 100000;
		irqchip_run_timers(w);
	}
	assert_int_equal(apic_read(w, LAPIC_ISR) & 0xffff, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_reset),
	    TEST(test_priorities),
	    TEST(test_ipi_destinations),
	    TEST(test_nmi_init_sipi),
	    TEST(test_software_disable),
	    TEST(test_errors),
	    TEST(test_mmio_shapes),
	    TEST(test_base),
	    TEST(test_x2apic_registers),
	    TEST(test_x2apic_ipi),
	    TEST(test_timer_one_shot),
	    TEST(test_timer_divisors),
	    TEST(test_timer_periodic),
	    TEST(test_timer_deadline),
	    TEST(test_lint1),
	    TEST(test_state),
	};

	return cmocka_run_group_tests_name("lapic", tests, NULL, NULL);
}
