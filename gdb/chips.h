/* The interrupt chips' state, for people. */
#ifndef GUISE_GDB_CHIPS_H
#define GUISE_GDB_CHIPS_H

#include <linux/kvm.h>
#include <stdio.h>

void chip_print_lapic(FILE *out, const struct kvm_lapic_state *lapic);
void chip_print_ioapic(FILE *out, const struct kvm_irqchip *chip);
void chip_print_pic(FILE *out, const struct kvm_irqchip *chip);
void chip_print_pit(FILE *out, const struct kvm_pit_state2 *pit);

#endif
