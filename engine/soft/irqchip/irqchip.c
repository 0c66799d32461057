/* The chips together: wires from the monitor, ports and MMIO from the guest, timers. */
#include <errno.h>

#include "engine/soft/irqchip/internal.h"

#define ISA_IRQS  16
#define TIMER_PIN 2 /* of the IOAPIC, for ISA IRQ 0; the MADT of a PC says so by an override */

int irqchip_line(struct soft_vm *vm, u32 gsi, int level)
{
	struct irqchip *chip = vm->irqchip;

	if (!chip)
		return -ENXIO;
	if (gsi >= IOAPIC_PINS)
		return -EINVAL;
	gp_lock(&chip->lock);
	if (gsi < ISA_IRQS)
		pic_set_line(chip, gsi, level);
	if (gsi == 0)
		ioapic_set_line(chip, TIMER_PIN, level);
	else if (gsi != PIC_CASCADE) /* GSI 2 is no wire: it joins the PICs */
		ioapic_set_line(chip, gsi, level);
	gp_unlock(&chip->lock);
	return 0;
}

static bool owns_port(const struct irqchip *chip, u16 port)
{
	return pic_owns(port) || pit_owns(chip, port);
}

static u8 read_port(struct irqchip *chip, u16 port)
{
	if (pic_owns(port))
		return pic_read(chip, port);
	return pit_owns(chip, port) ? pit_read(chip, port) : 0xff;
}

static void write_port(struct irqchip *chip, u16 port, u8 value)
{
	if (pic_owns(port))
		pic_write(chip, port, value);
	else if (pit_owns(chip, port))
		pit_write(chip, port, value);
}

bool irqchip_port(struct soft_vcpu *v, u16 port, u32 size, u32 *value, bool write)
{
	struct irqchip *chip = v->vm->irqchip;
	u32 result = 0;

	if (!chip || !owns_port(chip, port))
		return false;
	gp_lock(&chip->lock);
	for (u32 i = 0; i < size && i < sizeof(*value); i++) {
		if (write)
			write_port(chip, port + i, *value >> 8 * i);
		else
			result |= (u32)read_port(chip, port + i) << 8 * i;
	}
	gp_unlock(&chip->lock);
	if (!write)
		*value = result;
	return true;
}

/* Registers of the IOAPIC are 32 bits wide at multiples of 16 (82093AA 3.1). */
static void ioapic_access(struct irqchip *chip, u32 offset, u32 size, u64 *value, bool write)
{
	u64 mask = size < 4 ? BIT(size * 8) - 1 : 0xffffffff;

	gp_lock(&chip->lock);
	if (write)
		ioapic_write(chip, offset, *value & mask);
	else
		*value = ioapic_read(chip, offset) & mask;
	gp_unlock(&chip->lock);
}

bool irqchip_mmio(struct soft_vcpu *v, u64 gpa, u32 size, u64 *value, bool write)
{
	struct irqchip *chip = v->vm->irqchip;

	if (!chip)
		return false;
	if (lapic_mmio(v, gpa, size, value, write))
		return true;
	if (gpa - IOAPIC_BASE >= IOAPIC_SIZE)
		return false;
	ioapic_access(chip, gpa - IOAPIC_BASE, size, value, write);
	return true;
}

int irqchip_get(struct soft_vm *vm, struct kvm_irqchip *state)
{
	struct irqchip *chip = vm->irqchip;

	if (!chip)
		return -ENXIO;
	if (state->chip_id >= KVM_NR_IRQCHIPS)
		return -EINVAL;
	gp_lock(&chip->lock);
	if (state->chip_id == KVM_IRQCHIP_IOAPIC)
		ioapic_get(chip, &state->chip.ioapic);
	else
		pic_get(chip, state->chip_id, &state->chip.pic);
	gp_unlock(&chip->lock);
	return 0;
}

int irqchip_set(struct soft_vm *vm, const struct kvm_irqchip *state)
{
	struct irqchip *chip = vm->irqchip;

	if (!chip)
		return -ENXIO;
	if (state->chip_id >= KVM_NR_IRQCHIPS)
		return -EINVAL;
	gp_lock(&chip->lock);
	if (state->chip_id == KVM_IRQCHIP_IOAPIC)
		ioapic_set(chip, &state->chip.ioapic);
	else
		pic_set(chip, state->chip_id, &state->chip.pic);
	gp_unlock(&chip->lock);
	return 0;
}

bool irqchip_makes_nmi(const struct soft_vcpu *v)
{
	struct irqchip *chip = v->vm->irqchip;

	if (!chip || !v->lapic)
		return false;
	gp_lock(&chip->lock);
	bool found = ioapic_makes_nmi(chip) || lapic_lint0_is_nmi(v->lapic);
	gp_unlock(&chip->lock);
	return found;
}

u64 irqchip_run_timers(struct soft_vcpu *v)
{
	struct lapic *lapic = v->lapic;
	u64 next, pit, now;

	if (!lapic)
		return NO_DEADLINE;
	gp_lock(&lapic->chip->lock);
	now = clock_now();
	next = lapic_timer_run(lapic, now);
	if (v->base.id == 0) {
		pit = pit_run(lapic->chip, now);
		next = pit < next ? pit : next;
	}
	gp_unlock(&lapic->chip->lock);
	return next;
}
