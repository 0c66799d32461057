/*
 * The interrupt chips of a VM: two 8259A, an IOAPIC with 24 pins, an 8254 PIT, a local APIC per
 * vCPU. Everything may be called inside (general registers only) and from any thread; one gp_lock
 * per VM (struct irqchip) guards it, taken by these functions. When a vCPU gets something to look
 * at they call vcpu_poke(v, ATTENTION_IRQ).
 *
 * Sources: SDM 3A chapter 10 (APIC), Intel 82093AA datasheet, 8259A datasheet, 8254 datasheet.
 */
#ifndef GUISE_SOFT_IRQCHIP_H
#define GUISE_SOFT_IRQCHIP_H

#include "engine/soft/vcpu.h"

struct irqchip;
struct lapic;

/* ---- life; outside ---- */
struct irqchip *irqchip_create(struct soft_vm *vm);
void irqchip_destroy(struct irqchip *chip);
int pit_create(struct irqchip *chip);
struct lapic *lapic_create(struct soft_vcpu *v);
void lapic_destroy(struct lapic *lapic);
/** RESET and INIT (SDM 3A 10.4.7). Writes msr.apic_base at RESET, keeps it at INIT. lapic_create()
 * resets. Pokes the vCPU. */
void lapic_reset(struct lapic *lapic, bool init);

/* ---- from the monitor ---- */
int irqchip_line(struct soft_vm *vm, u32 gsi, int level);
int irqchip_msi(struct soft_vm *vm, const struct kvm_msi *msi);
int irqchip_get(struct soft_vm *vm, struct kvm_irqchip *chip);
int irqchip_set(struct soft_vm *vm, const struct kvm_irqchip *chip);
int pit_get(struct soft_vm *vm, struct kvm_pit_state2 *pit);
int pit_set(struct soft_vm *vm, const struct kvm_pit_state2 *pit);
int lapic_get(struct soft_vcpu *v, struct kvm_lapic_state *state);
int lapic_set(struct soft_vcpu *v, const struct kvm_lapic_state *state);
/** A rising edge on the NMI wire: reaches @v as LVT LINT1 says. @v has a LAPIC. Any thread. */
void lapic_nmi_line(struct soft_vcpu *v);

/* ---- from the guest ---- */
/** Whether @port belongs to PIC, ELCR or PIT; then does the access. Sizes above 1 byte are split.
 */
bool irqchip_port(struct soft_vcpu *v, u16 port, u32 size, u32 *value, bool write);
/** Whether @gpa lies in the LAPIC page (of this vCPU, xAPIC mode) or IOAPIC; then does the access.
 */
bool irqchip_mmio(struct soft_vcpu *v, u64 gpa, u32 size, u64 *value, bool write);
/** x2APIC MSRs 0x800-0x8ff and IA32_TSC_DEADLINE; false: #GP(0). */
bool lapic_msr(struct soft_vcpu *v, u32 index, u64 *value, bool write);
/** IA32_APIC_BASE write; false: #GP(0) (illegal mode transition, SDM 3A 10.12.5). */
bool lapic_set_base(struct soft_vcpu *v, u64 value);
/** The same for the API (KVM_SET_SREGS): any transition is allowed, and the value was checked. */
void lapic_restore_base(struct soft_vcpu *v, u64 value);
u64 lapic_get_tpr(struct soft_vcpu *v); /* as CR8: bits 3:0 */
void lapic_set_tpr(struct soft_vcpu *v, u64 cr8);

/* ---- to the vCPU ---- */
/** Whether an external interrupt (LAPIC above PPR, or PIC through LVT0 ExtINT / virtual wire)
 * waits. Lock-free. */
bool irqchip_pending(const struct soft_vcpu *v);
/** The word that irqchip_pending() looks at, for translated code: not 0 while one waits. @v
 * has a LAPIC. */
const _Atomic u32 *irqchip_pending_word(const struct soft_vcpu *v);
/** Acknowledges it: the vector, or -1. */
int irqchip_acknowledge(struct soft_vcpu *v);
/** EOI, as if @v wrote that register of its LAPIC in the mode that it is in (SDM 3A 10.8.5). @v has
 * a LAPIC. */
void lapic_eoi(struct soft_vcpu *v);
/** Whether a wire of the chips is set up to make NMIs: a pin of the IOAPIC, or LINT0 of @v. Any
 * thread. */
bool irqchip_makes_nmi(const struct soft_vcpu *v);
/** Takes a pending INIT; true once per INIT. */
bool lapic_take_init(struct soft_vcpu *v);
/** Takes a pending SIPI: its vector, or -1. */
int lapic_take_sipi(struct soft_vcpu *v);

/* ---- time ---- */
/**
 * Runs the timers of this vCPU (LAPIC; on vCPU 0 also the PIT) up to now. Returns when to call
 * again: CLOCK_MONOTONIC ns, or UINT64_MAX: no timer runs. Called when a vCPU is entered, halts, is
 * poked with ATTENTION_TIMER, and after a timer register was written (the chips raise
 * ATTENTION_TIMER themselves then).
 */
u64 irqchip_run_timers(struct soft_vcpu *v);

#endif
