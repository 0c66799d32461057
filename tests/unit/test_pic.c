/* The 8259A pair: initialization, priorities, EOI forms, modes, cascade, spurious interrupts, ELCR.
 */
#include "tests/unit/fake_irqchip.h"

#define VECTOR_MASTER 0x08
#define VECTOR_SLAVE  0x70

struct rig {
	struct soft_vm *vm;
	struct soft_vcpu *v;
};

static int setup(void **state)
{
	static struct rig rig;

	rig.vm = fake_vm(1);
	rig.v = rig.vm->vcpus[0];
	pic_init(rig.vm, 0x01);
	poked(rig.v);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_vm_free(rig->vm);
	return 0;
}

static void pulse(struct soft_vm *vm, u32 irq)
{
	assert_int_equal(irqchip_line(vm, irq, 1), 0);
	assert_int_equal(irqchip_line(vm, irq, 0), 0);
}

static u8 read_isr(struct soft_vm *vm, u16 port)
{
	out8(vm, port, 0x0b);
	return in8(vm, port);
}

static u8 read_irr(struct soft_vm *vm, u16 port)
{
	out8(vm, port, 0x0a);
	return in8(vm, port);
}

static void test_edge_and_eoi(void **state)
{
	struct rig *rig = *state;

	assert_false(irqchip_pending(rig->v));
	assert_int_equal(irqchip_acknowledge(rig->v), -1);
	assert_int_equal(irqchip_line(rig->vm, 4, 1), 0);
	assert_true(poked(rig->v) & ATTENTION_IRQ);
	assert_true(irqchip_pending(rig->v));
	assert_int_equal(read_irr(rig->vm, 0x20), 0x10);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 4);
	assert_false(irqchip_pending(rig->v));
	assert_int_equal(read_irr(rig->vm, 0x20), 0);
	assert_int_equal(read_isr(rig->vm, 0x20), 0x10);
	/* the line is still high: no new edge */
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(read_isr(rig->vm, 0x20), 0);
	assert_false(irqchip_pending(rig->v));
	assert_int_equal(irqchip_line(rig->vm, 4, 1), 0);
	assert_false(irqchip_pending(rig->v));
	/* a second pulse while in service is held until EOI */
	irqchip_line(rig->vm, 4, 0);
	pulse(rig->vm, 4);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 4);
	pulse(rig->vm, 4);
	assert_false(irqchip_pending(rig->v));
	out8(rig->vm, 0x20, 0x64); /* specific */
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 4);
}

static void test_priority_nesting(void **state)
{
	struct rig *rig = *state;

	pulse(rig->vm, 5);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 5);
	pulse(rig->vm, 6); /* lower: waits */
	assert_false(irqchip_pending(rig->v));
	pulse(rig->vm, 1); /* higher: nests */
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 1);
	out8(rig->vm, 0x20, 0x20); /* ends 1, not 5 */
	assert_int_equal(read_isr(rig->vm, 0x20), 0x20);
	assert_false(irqchip_pending(rig->v));
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 6);
}

static void test_mask(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x21, 0x10);
	assert_int_equal(in8(rig->vm, 0x21), 0x10);
	pulse(rig->vm, 4);
	assert_false(irqchip_pending(rig->v));
	out8(rig->vm, 0x21, 0);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 4);
}

static void test_cascade(void **state)
{
	struct rig *rig = *state;

	pulse(rig->vm, 8);
	pulse(rig->vm, 14);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_SLAVE + 0);
	assert_int_equal(read_isr(rig->vm, 0x20), 0x04);
	assert_int_equal(read_isr(rig->vm, 0xa0), 0x01);
	out8(rig->vm, 0xa0, 0x20);
	assert_false(irqchip_pending(rig->v)); /* the master's level 2 is in service */
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_SLAVE + 6);
	/* GSI 2 is no wire */
	out8(rig->vm, 0xa0, 0x20);
	out8(rig->vm, 0x20, 0x20);
	pulse(rig->vm, 2);
	assert_false(irqchip_pending(rig->v));
}

static void test_special_fully_nested(void **state)
{
	struct rig *rig = *state;

	pulse(rig->vm, 14);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_SLAVE + 6);
	pulse(rig->vm, 8); /* higher on the slave, but level 2 is in service */
	assert_false(irqchip_pending(rig->v));

	pic_init(rig->vm, 0x11);
	pulse(rig->vm, 14);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_SLAVE + 6);
	pulse(rig->vm, 8);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_SLAVE + 0);
}

static void test_auto_eoi(void **state)
{
	struct rig *rig = *state;

	pic_init(rig->vm, 0x03);
	pulse(rig->vm, 3);
	pulse(rig->vm, 5);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 3);
	assert_int_equal(read_isr(rig->vm, 0x20), 0);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 5);
	/* rotating: the one just served becomes lowest */
	out8(rig->vm, 0x20, 0x80);
	pulse(rig->vm, 3);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 3);
	pulse(rig->vm, 3);
	pulse(rig->vm, 4);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 4);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 3);
}

static void test_rotation(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x20, 0xc4); /* 4 lowest: 5 highest */
	pulse(rig->vm, 0);
	pulse(rig->vm, 5);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 5);
	out8(rig->vm, 0x20, 0xa0); /* end it, and make it lowest */
	pulse(rig->vm, 5);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 0);
	out8(rig->vm, 0x20, 0xe0); /* specific, rotate: 0 lowest */
	pulse(rig->vm, 0);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 5);
}

static void test_special_mask(void **state)
{
	struct rig *rig = *state;

	pulse(rig->vm, 1);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 1);
	pulse(rig->vm, 6);
	out8(rig->vm, 0x21, 0x02);
	assert_false(irqchip_pending(rig->v));
	out8(rig->vm, 0x20, 0x68);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 6);
	/* a masked level is not ended by a non-specific EOI */
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(read_isr(rig->vm, 0x20), 0x02);
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(read_isr(rig->vm, 0x20), 0x02);
	out8(rig->vm, 0x20, 0x48);
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(read_isr(rig->vm, 0x20), 0);
}

static void test_poll(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x20, 0x0c);
	assert_int_equal(in8(rig->vm, 0x20), 0);
	pulse(rig->vm, 3);
	out8(rig->vm, 0x20, 0x0c);
	assert_int_equal(in8(rig->vm, 0x20), 0x83);
	assert_false(irqchip_pending(rig->v));
	assert_int_equal(read_isr(rig->vm, 0x20), 0x08);
}

static void test_level(void **state)
{
	struct rig *rig = *state;

	out8(rig->vm, 0x4d0, 0xff);
	assert_int_equal(in8(rig->vm, 0x4d0), 0xf8);
	out8(rig->vm, 0x4d1, 0xff);
	assert_int_equal(in8(rig->vm, 0x4d1), 0xde);
	irqchip_line(rig->vm, 5, 1);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 5);
	out8(rig->vm, 0x20, 0x20);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 5); /* still high */
	irqchip_line(rig->vm, 5, 0);
	out8(rig->vm, 0x20, 0x20);
	assert_false(irqchip_pending(rig->v));
	/* a level that goes away before INTA is not there any more */
	irqchip_line(rig->vm, 11, 1);
	assert_true(irqchip_pending(rig->v));
	irqchip_line(rig->vm, 11, 0);
	assert_false(irqchip_pending(rig->v));
}

static void test_spurious(void **state)
{
	struct rig *rig = *state;

	gp_lock(&rig->vm->irqchip->lock);
	assert_int_equal(pic_acknowledge(rig->vm->irqchip), VECTOR_MASTER + 7);
	gp_unlock(&rig->vm->irqchip->lock);
	assert_int_equal(read_isr(rig->vm, 0x20), 0);
}

static void test_icw1_resets(void **state)
{
	struct rig *rig = *state;

	irqchip_line(rig->vm, 3, 1);
	out8(rig->vm, 0x21, 0xff);
	out8(rig->vm, 0x20, 0x11);
	assert_int_equal(in8(rig->vm, 0x21), 0);
	out8(rig->vm, 0x21, 0x47); /* bits 2:0 do not count */
	out8(rig->vm, 0x21, 0x04);
	out8(rig->vm, 0x21, 0x01);
	assert_false(irqchip_pending(rig->v)); /* the high line is no edge now */
	irqchip_line(rig->vm, 3, 1);
	assert_false(irqchip_pending(rig->v));
	irqchip_line(rig->vm, 3, 0);
	irqchip_line(rig->vm, 3, 1);
	assert_int_equal(irqchip_acknowledge(rig->v), 0x40 + 3);
}

static void test_lint0(void **state)
{
	struct rig *rig = *state;

	pulse(rig->vm, 4);
	assert_true(irqchip_pending(rig->v));
	apic_enable(rig->v);
	apic_write(rig->v, LAPIC_LVT_LINT0, 0x10700); /* masked */
	assert_false(irqchip_pending(rig->v));
	apic_write(rig->v, LAPIC_LVT_LINT0, 0x700);
	assert_true(irqchip_pending(rig->v));
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER + 4);
	/* as NMI: the watchdog of old */
	out8(rig->vm, 0x20, 0x20);
	apic_write(rig->v, LAPIC_LVT_LINT0, 0x400);
	pulse(rig->vm, 4);
	assert_int_equal(rig->v->events.nmi, 1);
	assert_false(irqchip_pending(rig->v));
}

static void test_wide_access(void **state)
{
	struct rig *rig = *state;
	u32 value = 0x5500;

	/* OCW2 0 to 0x20 (nothing), 0x55 to 0x21 */
	assert_true(irqchip_port(rig->v, 0x20, 2, &value, true));
	assert_int_equal(in8(rig->vm, 0x21), 0x55);
	value = 0;
	assert_true(irqchip_port(rig->v, 0x20, 4, &value, false));
	assert_int_equal(value, 0xffff5500);
	assert_false(irqchip_port(rig->v, 0x22, 1, &value, false));
	assert_false(irqchip_port(rig->v, 0x3f8, 1, &value, false));
}

static void test_state(void **state)
{
	struct rig *rig = *state;
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_PIC_MASTER};

	out8(rig->vm, 0x21, 0x5a);
	pulse(rig->vm, 0);
	assert_int_equal(irqchip_get(rig->vm, &chip), 0);
	assert_int_equal(chip.chip.pic.imr, 0x5a);
	assert_int_equal(chip.chip.pic.irr, 1);
	assert_int_equal(chip.chip.pic.irq_base, VECTOR_MASTER);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER);
	assert_int_equal(irqchip_set(rig->vm, &chip), 0);
	assert_int_equal(irqchip_acknowledge(rig->v), VECTOR_MASTER);
	/* nonsense is cut to what the chip can be in */
	gp_fill(&chip.chip, 0xff, sizeof(chip.chip));
	assert_int_equal(irqchip_set(rig->vm, &chip), 0);
	for (int i = 0; i < 1000; i++) {
		out8(rig->vm, 0x20 + i % 2, i * 37);
		irqchip_line(rig->vm, i % 16, i & 1);
		irqchip_acknowledge(rig->v);
	}
	chip.chip_id = 3;
	assert_true(irqchip_set(rig->vm, &chip) < 0);
	assert_true(irqchip_get(rig->vm, &chip) < 0);
	assert_true(irqchip_line(rig->vm, 24, 1) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_edge_and_eoi),
	    TEST(test_priority_nesting),
	    TEST(test_mask),
	    TEST(test_cascade),
	    TEST(test_special_fully_nested),
	    TEST(test_auto_eoi),
	    TEST(test_rotation),
	    TEST(test_special_mask),
	    TEST(test_poll),
	    TEST(test_level),
	    TEST(test_spurious),
	    TEST(test_icw1_resets),
	    TEST(test_lint0),
	    TEST(test_wide_access),
	    TEST(test_state),
	};

	return cmocka_run_group_tests_name("pic", tests, NULL, NULL);
}
