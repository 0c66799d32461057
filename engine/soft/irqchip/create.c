/* Life of the interrupt chips. Outside. */
#include <errno.h>
#include <stdlib.h>

#include "engine/soft/irqchip/internal.h"

struct irqchip *irqchip_create(struct soft_vm *vm)
{
	struct irqchip *chip = calloc(1, sizeof(*chip));

	if (!chip)
		return NULL;
	gp_lock_init(&chip->lock);
	chip->vm = vm;
	pic_reset(chip);
	ioapic_reset(chip);
	return chip;
}

void irqchip_destroy(struct irqchip *chip)
{
	free(chip);
}

int pit_create(struct irqchip *chip)
{
	int err = 0;

	gp_lock(&chip->lock);
	if (chip->pit.present) {
		err = -EEXIST;
	} else {
		chip->pit.present = true;
		pit_reset(chip);
	}
	gp_unlock(&chip->lock);
	return err;
}

struct lapic *lapic_create(struct soft_vcpu *v)
{
	struct irqchip *chip = v->vm->irqchip;
	struct lapic *lapic;

	if (!chip)
		return NULL;
	lapic = calloc(1, sizeof(*lapic));
	if (!lapic)
		return NULL;
	lapic->v = v;
	lapic->chip = chip;
	lapic_reset(lapic, false);

	gp_lock(&chip->lock);
	if (chip->lapic_count == ARRAY_SIZE(chip->lapics)) {
		gp_unlock(&chip->lock);
		free(lapic);
		return NULL;
	}
	chip->lapics[chip->lapic_count++] = lapic;
	gp_unlock(&chip->lock);
	return lapic;
}

void lapic_destroy(struct lapic *lapic)
{
	struct irqchip *chip;

	if (!lapic)
		return;
	chip = lapic->chip;
	gp_lock(&chip->lock);
	for (u32 i = 0; i < chip->lapic_count; i++) {
		if (chip->lapics[i] != lapic)
			continue;
		chip->lapics[i] = chip->lapics[--chip->lapic_count];
		break;
	}
	gp_unlock(&chip->lock);
	free(lapic);
}
