/*
 * The virtual-APIC page: what its two files and VM entry share. SDM 3C chapter 30. Inside.
 *
 * apic_access.c has the ways to the page: CR8, the APIC-access page, MSRs of the x2APIC. A write is
 * done at once; what follows from it, vmx_emulate_apic_write() in apic.c, comes behind the
 * instruction, before everything else that is due there (30.4.3.2).
 */
#ifndef GUISE_SOFT_VMX_APIC_H
#define GUISE_SOFT_VMX_APIC_H

#include "engine/soft/vmx/region.h"

/* Registers in the page, 30.1.1 */
enum virtual_apic {
	VIRTUAL_TPR = 0x080,
	VIRTUAL_PPR = 0x0a0,
	VIRTUAL_EOI = 0x0b0,
	VIRTUAL_ISR = 0x100, /* eight words, 16 bytes apart */
	VIRTUAL_IRR = 0x200,
	VIRTUAL_ICR_LOW = 0x300,
	VIRTUAL_ICR_HIGH = 0x310,
	VIRTUAL_SELF_IPI = 0x3f0, /* by WRMSR only */
};

/** The 32 bits at @offset of the page. */
static inline u32 virtual_apic_get(struct soft_vcpu *v, u32 offset)
{
	u32 value;

	vmx_phys_read(v, vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + offset, &value, sizeof(value));
	return value;
}

static inline void virtual_apic_set(struct soft_vcpu *v, u32 offset, u32 value)
{
	vmx_phys_write(v, vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + offset, &value, sizeof(value));
}

/* v->vmx.apic_written: 11:0 offset, 19:12 bytes, 31 there was one */
#define APIC_WRITTEN(offset, size) ((u32)BIT(31) | (size) << 12 | (offset))
#define APIC_WRITTEN_OFFSET(w)	   ((w)&0xfff)

/** @size bytes at @offset were written: APIC-write emulation is due behind this instruction. */
static inline void virtual_apic_written(struct soft_vcpu *v, u32 offset, u32 size)
{
	v->vmx.apic_written = APIC_WRITTEN(offset, size);
	vcpu_attention(v, ATTENTION_IRQ);
}

/** APIC-write emulation of what was written: may leave. */
void vmx_emulate_apic_write(struct soft_vcpu *v);

/** VM entry with virtual-interrupt delivery: PPR virtualization, and whether an interrupt waits. */
void vmx_virtual_interrupts_enter(struct soft_vcpu *v);

/** Posted-interrupt processing, behind the acknowledgement (30.6, steps 3 to 7). */
void vmx_process_posted_interrupts(struct soft_vcpu *v);

#endif
