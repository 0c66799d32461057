/* A VM with interrupt chips and no processor, for tests: time stands still unless told to go. */
#ifndef GUISE_TESTS_FAKE_IRQCHIP_H
#define GUISE_TESTS_FAKE_IRQCHIP_H

#include "engine/soft/irqchip/internal.h"

/* cmocka wants these first */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#define LAPIC_PAGE 0xfee00000ull
#define MSR_X2APIC 0x800

extern u64 fake_now;	 /* ns; clock_now() */
extern bool fake_x2apic; /* CPUID.1:ECX[21] */

/** The fake's TSC: 2 cycles a ns. */
#define FAKE_TSC(ns) (2 * (ns))

/** A VM with @vcpus vCPUs and a PIT. */
struct soft_vm *fake_vm(u32 vcpus);
void fake_vm_free(struct soft_vm *vm);

void out8(struct soft_vm *vm, u16 port, u8 value);
u8 in8(struct soft_vm *vm, u16 port);
void mmio_write32(struct soft_vcpu *v, u64 gpa, u32 value);
u32 mmio_read32(struct soft_vcpu *v, u64 gpa);
u32 apic_read(struct soft_vcpu *v, enum lapic_reg reg);
void apic_write(struct soft_vcpu *v, enum lapic_reg reg, u32 value);
void ioapic_entry(struct soft_vm *vm, u32 pin, u64 entry);
u64 ioapic_entry_read(struct soft_vm *vm, u32 pin);

/** SVR on, TPR 0. */
void apic_enable(struct soft_vcpu *v);
/** Attention bits raised since the last call. */
u32 poked(struct soft_vcpu *v);
/** The PIC as a BIOS leaves it: vectors 8 and 0x70, everything open, edge. */
void pic_init(struct soft_vm *vm, u8 icw4);

#endif
