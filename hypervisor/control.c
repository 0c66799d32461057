// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Control registers, EFER and XCR0.
 *
 * A guest/host mask splits CR0 and CR4 (SDM 3C 24.6.6): bits that are the guest's it reads and
 * writes without an exit; of the host's bits it reads a shadow, and a write that would change one
 * exits. With an unrestricted guest and EPT the guest may have nearly all of them, paging included:
 * the processor follows into and out of long mode by itself, and notes it in the entry controls
 * (SDM 3C 27.3.4).
 */
#include <linux/kernel.h>
#include <asm/fpu/xcr.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

#define CR0_GUEST                                                                                  \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG)
#define CR0_KNOWN (CR0_GUEST | X86_CR0_ET | X86_CR0_NE | X86_CR0_NW | X86_CR0_CD)

/* MCE stays the host's, and on: a machine check with MCE off would shut the machine down. So does
 * OSXSAVE: as long as it is off the guest cannot tell what XCR0 is, and the host's may stay
 * (host.c). */
#define CR4_GUEST                                                                                  \
	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE |        \
	 X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP |          \
	 X86_CR4_FSGSBASE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP)
#define CR4_KNOWN (CR4_GUEST | X86_CR4_MCE | X86_CR4_OSXSAVE)
/* Bits that 32-bit KVM-era processors without CPUID features have anyway. */
#define CR4_ALWAYS                                                                                 \
	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE |        \
	 X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)

#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX)

#define XCR0_AVX512 (XFEATURE_MASK_OPMASK | XFEATURE_MASK_ZMM_Hi256 | XFEATURE_MASK_Hi16_ZMM)
#define XCR0_KNOWN  (XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM | XCR0_AVX512)

static u64 cr4_guest(const struct vcpu *v)
{
	return CR4_GUEST & v->cr4_allowed;
}

/* After CPUID was set: which bits exist for this guest. */
void control_update_masks(struct vcpu *v)
{
	static const struct {
		u64 bit;
		u32 function, word;
		u32 feature;
	} optional[] = {
	    {X86_CR4_UMIP, 7, 2, BIT(2)},   {X86_CR4_FSGSBASE, 7, 1, BIT(0)},
	    {X86_CR4_SMEP, 7, 1, BIT(7)},   {X86_CR4_SMAP, 7, 1, BIT(20)},
	    {X86_CR4_PCIDE, 1, 2, BIT(17)}, {X86_CR4_OSXSAVE, 1, 2, BIT(26)},
	};
	u64 allowed = CR4_ALWAYS, cr4 = control_get_cr4(v), host;

	for (int i = 0; i < ARRAY_SIZE(optional); i++) {
		const struct kvm_cpuid_entry2 *e = cpuid_find(v, optional[i].function, 0);
		u32 word = !e ? 0 : optional[i].word == 1 ? e->ebx : e->ecx;

		if (word & optional[i].feature)
			allowed |= optional[i].bit;
	}
	rdmsrl(MSR_IA32_VMX_CR4_FIXED1, host);
	/* A kernel that leaves XSAVE alone ("noxsave") has no XCR0 to switch. */
	if (!boot_cpu_has(X86_FEATURE_XSAVE))
		host &= ~(u64)X86_CR4_OSXSAVE;
	v->cr4_allowed = allowed & host;
	vmcs_write(CR0_GUEST_HOST_MASK, ~(u64)CR0_GUEST);
	vmcs_write(CR4_GUEST_HOST_MASK, ~cr4_guest(v));
	/* The split has moved: both halves anew. */
	control_put_cr4(v, cr4);
}

u64 control_get_cr0(struct vcpu *v)
{
	return (field_get(v, FIELD_CR0) & CR0_GUEST) | (v->cr0_shadow & ~(u64)CR0_GUEST);
}

u64 control_get_cr4(struct vcpu *v)
{
	return (field_get(v, FIELD_CR4) & cr4_guest(v)) | (v->cr4_shadow & ~cr4_guest(v));
}

/* NE has to be 1 in VMX operation, CD and NW 0 to be fast: caching is the EPT's business here. */
void control_put_cr0(struct vcpu *v, u64 cr0)
{
	v->cr0_shadow = cr0;
	vmcs_write(CR0_READ_SHADOW, cr0);
	field_put(v, FIELD_CR0, (cr0 & CR0_GUEST) | X86_CR0_NE | X86_CR0_ET);
}

void control_put_cr4(struct vcpu *v, u64 cr4)
{
	v->cr4_shadow = cr4;
	vmcs_write(CR4_READ_SHADOW, cr4);
	field_put(v, FIELD_CR4, cr4 | X86_CR4_VMXE | X86_CR4_MCE);
}

/* The entry control says which mode the guest is in; LMA has to agree (SDM 3C 26.3.1.1). */
void control_put_efer(struct vcpu *v, u64 efer)
{
	field_put(v, FIELD_EFER, efer);
	if (efer & EFER_LMA)
		vmcs_set_bits(VM_ENTRY_CONTROLS, VM_ENTRY_IA32E_MODE);
	else
		vmcs_clear_bits(VM_ENTRY_CONTROLS, VM_ENTRY_IA32E_MODE);
}

/* SDM 3A 2.5: reserved bits, PG without PE, NW without CD. */
bool control_cr0_valid(u64 cr0)
{
	if (cr0 & ~(u64)CR0_KNOWN)
		return false;
	if ((cr0 & X86_CR0_PG) && !(cr0 & X86_CR0_PE))
		return false;
	return !(cr0 & X86_CR0_NW) || (cr0 & X86_CR0_CD);
}

bool control_cr4_valid(struct vcpu *v, u64 cr4)
{
	return !(cr4 & ~(v->cr4_allowed & CR4_KNOWN));
}

bool control_efer_valid(struct vcpu *v, u64 efer)
{
	return !(efer & ~(u64)EFER_KNOWN);
}

u64 control_supported_xcr0(void)
{
	return boot_cpu_has(X86_FEATURE_XSAVE) ? xgetbv(XCR_XFEATURE_ENABLED_MASK) & XCR0_KNOWN
					       : XFEATURE_MASK_FP;
}

/* SDM 1 13.3: x87 always, AVX needs SSE, AVX-512 all of its parts and AVX. Others would fault in
 * the host. */
bool control_xcr0_valid(u64 xcr0)
{
	if ((xcr0 & ~control_supported_xcr0()) || !(xcr0 & XFEATURE_MASK_FP))
		return false;
	if ((xcr0 & XFEATURE_MASK_YMM) && !(xcr0 & XFEATURE_MASK_SSE))
		return false;
	return !(xcr0 & XCR0_AVX512) ||
	       ((xcr0 & XCR0_AVX512) == XCR0_AVX512 && (xcr0 & XFEATURE_MASK_YMM));
}

/* The four page-directory-pointer entries at @cr3; false: one is present and has a reserved bit
 * (SDM 3A 4.4.1). */
static bool read_pdptrs(struct vcpu *v, u64 cr3, u64 *entries)
{
	const u64 reserved = v->chip.reserved_pa | GENMASK_ULL(8, 5) | GENMASK_ULL(2, 1);

	/* Not in memory: no entry is present, and the guest faults when it uses one. */
	if (memory_read(v->vm, cr3 & GENMASK_ULL(31, 5), entries, 4 * sizeof(*entries)))
		memset(entries, 0, 4 * sizeof(*entries));
	for (int i = 0; i < 4; i++)
		if ((entries[i] & 1) && (entries[i] & reserved))
			return false;
	return true;
}

static bool pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & EFER_LMA);
}

static void write_pdptrs(const u64 *entries)
{
	for (int i = 0; i < 4; i++)
		vmcs_write(GUEST_PDPTR0 + 2 * i, entries[i]);
}

bool control_load_pdptrs(struct vcpu *v)
{
	u64 entries[4];

	if (!pae_paging(control_get_cr0(v), control_get_cr4(v), field_get(v, FIELD_EFER)))
		return true;
	if (!read_pdptrs(v, vmcs_read(GUEST_CR3), entries))
		return false;
	write_pdptrs(entries);
	return true;
}

/*
 * The guest's MOV to CR0 and CR4 exits only if it changes a bit of the host's, but then all of its
 * checks are to be made here (SDM 2B, MOV to control registers; SDM 3A 2.5, 4.1.2, 4.10.1).
 */
static bool put_paging(struct vcpu *v, u64 cr0, u64 cr4, u64 efer)
{
	bool pae = pae_paging(cr0, cr4, efer), valid = true;
	u64 entries[4];

	if (pae) {
		down_read(&v->vm->memory_lock);
		valid = read_pdptrs(v, vmcs_read(GUEST_CR3), entries);
		up_read(&v->vm->memory_lock);
	}
	if (!valid)
		return false;
	if (efer != field_get(v, FIELD_EFER))
		control_put_efer(v, efer);
	control_put_cr0(v, cr0);
	control_put_cr4(v, cr4);
	if (pae)
		write_pdptrs(entries);
	vcpu_request(v, REQUEST_FLUSH_TLB);
	vcpu_skip(v);
	return true;
}

static int mov_to_cr0(struct vcpu *v, u64 value)
{
	u64 old = control_get_cr0(v), cr4 = control_get_cr4(v), efer = field_get(v, FIELD_EFER);

	/* Reserved bits of the lower half are ignored. */
	if (value >> 32 || !control_cr0_valid(value & CR0_KNOWN))
		goto fault;
	value = (value & CR0_KNOWN) | X86_CR0_ET;
	if ((value ^ old) & X86_CR0_PG) {
		/* The way into long mode and out of it, which the processor takes by itself unless
		 * a bit of the host's changes in the same MOV. */
		if ((value & X86_CR0_PG) && (efer & EFER_LME)) {
			if (!(cr4 & X86_CR4_PAE) || (vmcs_read(GUEST_CS_AR_BYTES) & VMX_AR_L_MASK))
				goto fault;
			efer |= EFER_LMA;
		} else {
			if (vcpu_64bit_code(v) || (cr4 & X86_CR4_PCIDE))
				goto fault;
			efer &= ~(u64)EFER_LMA;
		}
	}
	if (put_paging(v, value, cr4, efer))
		return 1;

fault:
	raise_error(v, X86_TRAP_GP, 0);
	return 1;
}

static int mov_to_cr4(struct vcpu *v, u64 value)
{
	u64 old = control_get_cr4(v), cr0 = control_get_cr0(v), efer = field_get(v, FIELD_EFER);
	bool sets_pcide = value & ~old & X86_CR4_PCIDE;

	/* PAE may not be cleared in long mode; PCIDE not be set outside, or with a PCID in CR3. */
	if (!control_cr4_valid(v, value) || (vcpu_long_mode(v) && !(value & X86_CR4_PAE)) ||
	    (sets_pcide && (!vcpu_long_mode(v) || (vmcs_read(GUEST_CR3) & 0xfff))) ||
	    !put_paging(v, cr0, value, efer))
		raise_error(v, X86_TRAP_GP, 0);
	return 1;
}

static int mov_to_cr8(struct vcpu *v, u64 value)
{
	if (value & ~0xfull) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	vcpu_skip(v);
	if (v->chip.lapic) {
		lapic_set_tpr(&v->chip, value);
		return 1;
	}
	/* Without an APIC here the priority is the owner's; it is told of what may let an interrupt
	 * in. */
	if (value < v->chip.cr8) {
		v->chip.cr8 = value;
		v->run->exit_reason = KVM_EXIT_SET_TPR;
		return 0;
	}
	v->chip.cr8 = value;
	return 1;
}

int exit_cr(struct vcpu *v)
{
	/* SDM 3C table 27-3 */
	u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	int cr = qualification & 0xf, number = (qualification >> 8) & 0xf;
	u64 value = vcpu_get_register(v, number);

	if (!vcpu_64bit_code(v))
		value = (u32)value;
	switch ((qualification >> 4) & 3) {
	case 0: /* MOV to CR */
		if (cr == 0)
			return mov_to_cr0(v, value);
		if (cr == 4)
			return mov_to_cr4(v, value);
		if (cr == 8)
			return mov_to_cr8(v, value);
		break;
	case 1: /* MOV from CR */
		if (cr != 8)
			break;
		vcpu_set_register(v, number, lapic_get_tpr(&v->chip));
		vcpu_skip(v);
		return 1;
	case 3: /* LMSW: bits 3:0, and PE is not cleared by it */
		value = (control_get_cr0(v) & ~0xeull) | ((qualification >> 16) & 0xf);
		return mov_to_cr0(v, value);
	}
	return exit_internal_error(v, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, qualification);
}

int exit_xsetbv(struct vcpu *v)
{
	u64 value = (u32)v->registers.r[RAX] | v->registers.r[RDX] << 32;

	if ((u32)v->registers.r[RCX] != 0 || vcpu_cpl(v) != 0 || !control_xcr0_valid(value)) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	v->xcr0 = value;
	vcpu_skip(v);
	return 1;
}
