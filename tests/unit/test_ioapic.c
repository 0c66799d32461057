/* The IOAPIC: registers, edge and level, remote IRR, delivery modes and destinations, MSI. */
#include "tests/unit/fake_irqchip.h"

#define MASKED	BIT(16)
#define LEVEL	BIT(15)
#define REMOTE	BIT(14)
#define LOGICAL BIT(11)
#define LOWEST	(1ull << 8)
#define NMI	(4ull << 8)
#define INIT	(5ull << 8)
#define EXTINT	(7ull << 8)
#define DEST(d) ((u64)(d) << 56)

#define VCPUS 4

struct rig {
	struct soft_vm *vm;
	struct soft_vcpu **v;
};

static int setup(void **state)
{
	static struct rig rig;

	rig.vm = fake_vm(VCPUS);
	rig.v = rig.vm->vcpus;
	out8(rig.vm, 0x21, 0xff); /* INT of the PIC is pin 0 */
	out8(rig.vm, 0xa1, 0xff);
	for (u32 i = 0; i < VCPUS; i++) {
		apic_enable(rig.v[i]);
		apic_write(rig.v[i], LAPIC_LVT_LINT0, MASKED);
		apic_write(rig.v[i], LAPIC_LDR, 1u << (24 + i));
	}
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_vm_free(rig->vm);
	return 0;
}

/* Bit set of the vCPUs that have an interrupt; acknowledges them and checks the vector. */
static u32 receivers(struct rig *rig, u8 vector)
{
	u32 set = 0;

	for (u32 i = 0; i < VCPUS; i++) {
		if (!irqchip_pending(rig->v[i]))
			continue;
		assert_int_equal(irqchip_acknowledge(rig->v[i]), vector);
		set |= 1u << i;
	}
	return set;
}

static void test_registers(void **state)
{
	struct rig *rig = *state;
	struct soft_vcpu *v = rig->v[0];

	mmio_write32(v, IOAPIC_BASE, 1);
	assert_int_equal(mmio_read32(v, IOAPIC_BASE), 1);
	assert_int_equal(mmio_read32(v, IOAPIC_BASE + 0x10), 0x170011);
	mmio_write32(v, IOAPIC_BASE + 0x10, 0);
	assert_int_equal(mmio_read32(v, IOAPIC_BASE + 0x10), 0x170011);
	mmio_write32(v, IOAPIC_BASE, 0);
	mmio_write32(v, IOAPIC_BASE + 0x10, 0xffffffff);
	assert_int_equal(mmio_read32(v, IOAPIC_BASE + 0x10), 0x0f000000);
	assert_int_equal(ioapic_entry_read(rig->vm, 23), MASKED);
	ioapic_entry(rig->vm, 23, UINT64_MAX);
	assert_int_equal(ioapic_entry_read(rig->vm, 23), 0xff0000000001afff);
	/* beyond the last pin */
	mmio_write32(v, IOAPIC_BASE, 0x40);
	mmio_write32(v, IOAPIC_BASE + 0x10, 0xffffffff);
	assert_int_equal(mmio_read32(v, IOAPIC_BASE + 0x10), 0);
	mmio_write32(v, IOAPIC_BASE, 0xff);
	mmio_write32(v, IOAPIC_BASE + 0x10, 0xffffffff);
	assert_int_equal(mmio_read32(v, IOAPIC_BASE + 0xff0), 0);
}

static void test_edge(void **state)
{
	struct rig *rig = *state;

	ioapic_entry(rig->vm, 4, 0x34 | DEST(1));
	irqchip_line(rig->vm, 4, 1);
	assert_int_equal(receivers(rig, 0x34), 2);
	irqchip_line(rig->vm, 4, 1);
	assert_int_equal(receivers(rig, 0x34), 0);
	apic_write(rig->v[1], LAPIC_EOI, 0);
	assert_int_equal(receivers(rig, 0x34), 0);
	irqchip_line(rig->vm, 4, 0);
	/* an edge on a masked pin is gone */
	ioapic_entry(rig->vm, 4, 0x34 | DEST(1) | MASKED);
	irqchip_line(rig->vm, 4, 1);
	ioapic_entry(rig->vm, 4, 0x34 | DEST(1));
	assert_int_equal(receivers(rig, 0x34), 0);
}

static void test_timer_pin(void **state)
{
	struct rig *rig = *state;

	ioapic_entry(rig->vm, 2, 0x30);
	ioapic_entry(rig->vm, 0, 0x31);
	irqchip_line(rig->vm, 0, 1);
	assert_int_equal(receivers(rig, 0x30), 1);
	apic_write(rig->v[0], LAPIC_EOI, 0);
	irqchip_line(rig->vm, 2, 1);
	assert_int_equal(receivers(rig, 0), 0);
}

static void test_level(void **state)
{
	struct rig *rig = *state;

	ioapic_entry(rig->vm, 10, 0x50 | LEVEL);
	irqchip_line(rig->vm, 10, 1);
	assert_int_equal(receivers(rig, 0x50), 1);
	assert_true(ioapic_entry_read(rig->vm, 10) & REMOTE);
	assert_int_equal(apic_read(rig->v[0], LAPIC_TMR + 2), 0x10000);
	irqchip_line(rig->vm, 10, 1);
	assert_int_equal(receivers(rig, 0x50), 0);
	/* EOI with the line still high: again */
	apic_write(rig->v[0], LAPIC_EOI, 0);
	assert_int_equal(receivers(rig, 0x50), 1);
	/* nothing more goes out before the EOI, so that nothing is left when the line has fallen */
	irqchip_line(rig->vm, 10, 1);
	irqchip_line(rig->vm, 10, 0);
	apic_write(rig->v[0], LAPIC_EOI, 0);
	assert_false(ioapic_entry_read(rig->vm, 10) & REMOTE);
	assert_int_equal(receivers(rig, 0x50), 0);
	/* software cannot set remote IRR; masked levels come when unmasked */
	ioapic_entry(rig->vm, 10, 0x50 | LEVEL | REMOTE | MASKED);
	assert_false(ioapic_entry_read(rig->vm, 10) & REMOTE);
	irqchip_line(rig->vm, 10, 1);
	assert_int_equal(receivers(rig, 0x50), 0);
	ioapic_entry(rig->vm, 10, 0x50 | LEVEL);
	assert_int_equal(receivers(rig, 0x50), 1);
	/* to edge and back clears a stuck remote IRR */
	irqchip_line(rig->vm, 10, 0);
	ioapic_entry(rig->vm, 10, 0x50 | MASKED);
	ioapic_entry(rig->vm, 10, 0x50 | LEVEL);
	assert_false(ioapic_entry_read(rig->vm, 10) & REMOTE);
}

static void test_level_not_accepted(void **state)
{
	struct rig *rig = *state;

	ioapic_entry(rig->vm, 10, 0x50 | LEVEL | DEST(9)); /* nobody */
	irqchip_line(rig->vm, 10, 1);
	assert_false(ioapic_entry_read(rig->vm, 10) & REMOTE);
	ioapic_entry(rig->vm, 10, 0x50 | LEVEL | DEST(3));
	assert_int_equal(receivers(rig, 0x50), 8);
}

static void test_destinations(void **state)
{
	struct rig *rig = *state;

	ioapic_entry(rig->vm, 5, 0x60 | LOGICAL | DEST(0x0a));
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(receivers(rig, 0x60), 0x0a);
	irqchip_line(rig->vm, 5, 0);
	ioapic_entry(rig->vm, 5, 0x70 | DEST(0xff));
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(receivers(rig, 0x70), 0x0f);
	irqchip_line(rig->vm, 5, 0);
	/* clusters: two of two */
	for (u32 i = 0; i < VCPUS; i++) {
		apic_write(rig->v[i], LAPIC_DFR, 0);
		apic_write(rig->v[i], LAPIC_LDR, (i / 2) << 28 | (1u << i % 2) << 24);
	}
	ioapic_entry(rig->vm, 5, 0x80 | LOGICAL | DEST(0x13));
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(receivers(rig, 0x80), 0x0c);
	irqchip_line(rig->vm, 5, 0);
	ioapic_entry(rig->vm, 5, 0x90 | LOGICAL | DEST(0x02));
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(receivers(rig, 0x90), 0x02);
}

static void test_lowest_priority(void **state)
{
	struct rig *rig = *state;
	u32 seen = 0;

	ioapic_entry(rig->vm, 5, 0x60 | LOWEST | LOGICAL | DEST(0x0f));
	apic_write(rig->v[0], LAPIC_TPR, 0x20);
	apic_write(rig->v[1], LAPIC_TPR, 0x20);
	apic_write(rig->v[3], LAPIC_TPR, 0x20);
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(receivers(rig, 0x60), 4);
	apic_write(rig->v[2], LAPIC_EOI, 0);
	/* equals take turns */
	apic_write(rig->v[2], LAPIC_TPR, 0x20);
	for (u32 i = 0; i < VCPUS; i++) {
		u32 who;

		irqchip_line(rig->vm, 5, 0);
		irqchip_line(rig->vm, 5, 1);
		who = receivers(rig, 0x60);
		assert_int_equal(__builtin_popcount(who), 1);
		apic_write(rig->v[__builtin_ctz(who)], LAPIC_EOI, 0);
		seen |= who;
	}
	assert_int_equal(seen, 0x0f);
	/* a software-disabled one does not take part */
	apic_write(rig->v[2], LAPIC_TPR, 0);
	apic_write(rig->v[2], LAPIC_SVR, 0xff);
	irqchip_line(rig->vm, 5, 0);
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(__builtin_popcount(receivers(rig, 0x60)), 1);
	assert_false(irqchip_pending(rig->v[2]));
}

static void test_nmi_and_init(void **state)
{
	struct rig *rig = *state;

	ioapic_entry(rig->vm, 5, NMI | DEST(2));
	for (int i = 0; i < 5; i++) {
		irqchip_line(rig->vm, 5, 1);
		irqchip_line(rig->vm, 5, 0);
	}
	assert_int_equal(rig->v[2]->events.nmi, 2);
	assert_int_equal(rig->v[1]->events.nmi, 0);
	ioapic_entry(rig->vm, 5, INIT | DEST(3));
	irqchip_line(rig->vm, 5, 1);
	assert_true(lapic_take_init(rig->v[3]));
	assert_false(lapic_take_init(rig->v[3]));
	assert_false(lapic_take_init(rig->v[2]));
	/* SIPI and reserved modes do nothing */
	for (u64 mode = 0; mode < 8; mode++) {
		if (mode != 3 && mode != 6 && mode != 2)
			continue;
		irqchip_line(rig->vm, 5, 0);
		ioapic_entry(rig->vm, 5, 0x55 | mode << 8 | DEST(1) | LEVEL);
		irqchip_line(rig->vm, 5, 1);
		assert_int_equal(receivers(rig, 0), 0);
		assert_int_equal(lapic_take_sipi(rig->v[1]), -1);
	}
}

static void test_extint(void **state)
{
	struct rig *rig = *state;

	pic_init(rig->vm, 0x01);
	ioapic_entry(rig->vm, 0, EXTINT | DEST(2));
	irqchip_line(rig->vm, 4, 1);
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(receivers(rig, 12), 4);
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(receivers(rig, 13), 4);
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(receivers(rig, 0), 0);
	/* a request that is withdrawn takes its message with it */
	irqchip_line(rig->vm, 5, 0);
	irqchip_line(rig->vm, 5, 1);
	out8(rig->vm, 0x21, 0xff);
	ioapic_entry(rig->vm, 0, EXTINT | DEST(2) | MASKED);
	out8(rig->vm, 0x21, 0);
	assert_int_equal(receivers(rig, 0), 0);
}

static void test_pit_through_pin2(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x21, 0xff);
	ioapic_entry(rig->vm, 2, 0x30);
	out8(rig->vm, 0x43, 0x34);
	out8(rig->vm, 0x40, 0);
	out8(rig->vm, 0x40, 0x10);
	assert_int_equal(receivers(rig, 0x30), 0);
	fake_now = irqchip_run_timers(rig->v[0]);
	assert_int_equal(irqchip_run_timers(rig->v[1]), UINT64_MAX);
	assert_int_equal(receivers(rig, 0x30), 0);
	irqchip_run_timers(rig->v[0]);
	assert_int_equal(receivers(rig, 0x30), 1);
}

static void test_msi(void **state)
{
	struct rig *rig = *state;
	struct kvm_msi msi = {.address_lo = 0xfee01000, .data = 0x41};

	assert_int_equal(irqchip_msi(rig->vm, &msi), 1);
	assert_int_equal(receivers(rig, 0x41), 2);
	msi.address_lo = 0xfee0c004; /* logical */
	msi.data = 0x42;
	assert_int_equal(irqchip_msi(rig->vm, &msi), 2);
	assert_int_equal(irqchip_acknowledge(rig->v[1]),
			 -1); /* 0x41 in service, and not addressed */
	assert_int_equal(receivers(rig, 0x42), 0x0c);
	msi.address_lo =
	    0xfee0100c; /* logical, redirection hint: vCPU 0 is the only one at bit 0 */
	msi.data = 0x53;
	assert_int_equal(irqchip_msi(rig->vm, &msi), 1);
	assert_int_equal(receivers(rig, 0x53), 1);
	msi.address_lo = 0xfee09000; /* nobody */
	assert_int_equal(irqchip_msi(rig->vm, &msi), 0);
	msi.address_lo = 0xfed01000;
	assert_true(irqchip_msi(rig->vm, &msi) < 0);
}

static void test_state(void **state)
{
	struct rig *rig = *state;
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	ioapic_entry(rig->vm, 10, 0x50 | LEVEL | MASKED);
	irqchip_line(rig->vm, 10, 1);
	assert_int_equal(irqchip_get(rig->vm, &chip), 0);
	assert_int_equal(chip.chip.ioapic.redirtbl[10].bits, 0x50 | LEVEL | MASKED);
	assert_int_equal(chip.chip.ioapic.irr, 1u << 10);
	assert_int_equal(chip.chip.ioapic.base_address, IOAPIC_BASE);
	chip.chip.ioapic.redirtbl[10].fields.mask = 0;
	chip.chip.ioapic.ioregsel = 0xffffffff;
	chip.chip.ioapic.irr = 0xffffffff;
	assert_int_equal(irqchip_set(rig->vm, &chip), 0);
	assert_int_equal(receivers(rig, 0x50), 1);
	mmio_read32(rig->v[0], IOAPIC_BASE + 0x10);
	mmio_write32(rig->v[0], IOAPIC_BASE + 0x10, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_registers),
	    TEST(test_edge),
	    TEST(test_timer_pin),
	    TEST(test_level),
	    TEST(test_level_not_accepted),
	    TEST(test_destinations),
	    TEST(test_lowest_priority),
	    TEST(test_nmi_and_init),
	    TEST(test_extint),
	    TEST(test_pit_through_pin2),
	    TEST(test_msi),
	    TEST(test_state),
	};

	return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
