/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The interrupt chips of Guise's soft engine (engine/soft/irqchip) serve this hypervisor, too: the
 * same files, compiled for the kernel. This header is what they know of a VM and a vCPU, under the
 * names that they use, and is all that they need: who has which LAPIC, the MSR that places it, NMIs
 * that wait, and the functions below (chips.c).
 */
#ifndef GUISE_CHIPS_VCPU_H
#define GUISE_CHIPS_VCPU_H

#include <linux/kvm.h>
#include <linux/types.h>
#include <asm/page.h>

#define VCPUS_MAX 64

struct irqchip;
struct lapic;

struct soft_vm {
	struct irqchip *irqchip; /* NULL: the VM has none */
};

struct soft_vcpu {
	struct {
		u32 id;
	} base;
	struct soft_vm *vm;
	struct lapic *lapic; /* NULL without interrupt chips */
	struct {
		u64 apic_base;
	} msr;
	struct {
		_Atomic u32 nmi; /* that wait */
		bool nmi_masked; /* one is being handled */
	} events;
	u64 cr8;	 /* without a LAPIC */
	u64 reserved_pa; /* bits of addresses that do not exist */
};

/* Why vcpu_poke() is called: bits. */
#define ATTENTION_IRQ	1u
#define ATTENTION_TIMER 2u

/* The vCPU gets something to look at. Any context. */
void vcpu_poke(struct soft_vcpu *v, u32 attention);

/* Whether CPUID tells of a feature: bit @bit of register @reg (EAX to EDX) of a leaf. */
bool cpuid_has(const struct soft_vcpu *v, u32 function, u32 index, u32 reg, u32 bit);

u64 clock_now(void); /* CLOCK_MONOTONIC, ns */
u64 guest_tsc(const struct soft_vcpu *v);
u64 guest_tsc_to_ns(const struct soft_vcpu *v, u64 tsc);

#endif
