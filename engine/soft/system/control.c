/*
 * Control registers: what may be written to them, what that changes, and the instructions that do
 * it. SDM 3A 2.5, 4.4.1, 4.10.4, 9.8.5; 2B MOV (control registers), SMSW, LMSW, CLTS.
 */
#include <errno.h>

#include "debug/trace.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)

/* Which feature a bit of CR4 belongs to (SDM 3A 2.5): reserved without it. */
static const struct {
	u64 bits;
	enum cpu_feature feature;
} cr4_rows[] = {
    {.bits = CR4_VME | CR4_PVI, .feature = FEATURE_VME},
    {.bits = CR4_TSD, .feature = FEATURE_TSC},
    {.bits = CR4_DE, .feature = FEATURE_DE},
    {.bits = CR4_PSE, .feature = FEATURE_PSE},
    {.bits = CR4_PAE, .feature = FEATURE_PAE},
    {.bits = CR4_MCE, .feature = FEATURE_MCE},
    {.bits = CR4_PGE, .feature = FEATURE_PGE},
    {.bits = CR4_OSFXSR, .feature = FEATURE_FXSR},
    {.bits = CR4_OSXMMEXCPT, .feature = FEATURE_SSE},
    {.bits = CR4_UMIP, .feature = FEATURE_UMIP},
    {.bits = CR4_VMXE, .feature = FEATURE_VMX},
    {.bits = CR4_FSGSBASE, .feature = FEATURE_FSGSBASE},
    {.bits = CR4_PCIDE, .feature = FEATURE_PCID},
    {.bits = CR4_OSXSAVE, .feature = FEATURE_XSAVE},
    {.bits = CR4_SMEP, .feature = FEATURE_SMEP},
    {.bits = CR4_SMAP, .feature = FEATURE_SMAP},
};

/* PCE has no feature bit of its own. */
u64 cr4_known(struct soft_vcpu *v)
{
	u64 known = CR4_PCE;

	for (u32 n = 0; n < ARRAY_SIZE(cr4_rows); n++)
		if (feature(v, cr4_rows[n].feature))
			known |= cr4_rows[n].bits;
	return known;
}

static bool pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/* SDM 3A 9.8.5: what stands against entering IA-32e mode when paging is turned on with EFER.LME
 * set. */
static bool may_activate_ia32e(const struct soft_vcpu *v)
{
	u32 tss_type = SEG_TYPE(v->tr.access);

	if (!(v->cr4 & CR4_PAE))
		return false;
	if (v->seg[SEG_CS].access & SEG_L)
		return false;
	return tss_type != 1 && tss_type != 3; /* a 16-bit TSS, available or busy */
}

/** false: #GP. What EPT refuses becomes a VM exit here. */
static bool load_pdptrs(struct soft_vcpu *v, u64 cr3)
{
	int r = mmu_load_pdptrs(v, cr3);

	if (unlikely(r == -EFAULT))
		ept_raise(v);
	return !r;
}

bool set_cr0(struct soft_vcpu *v, u64 value)
{
	u64 old = v->cr0;
	u64 efer = v->msr.efer;

	/* SDM 2B MOV CR: bits 63:32; PG without PE; NW without CD. */
	if (value >> 32)
		return false;
	if ((value & CR0_PG) && !(value & CR0_PE))
		return false;
	if ((value & CR0_NW) && !(value & CR0_CD))
		return false;
	/* Other reserved bits stay 0, ET stays 1 (SDM 3A 2.5). */
	value = (value & CR0_KNOWN) | CR0_ET;
	if (v->vmx.on && !vmx_cr0_allowed(v, value)) /* SDM 3C 24.8 */
		return false;

	u64 changed = value ^ old;
	if ((changed & CR0_PG) && (value & CR0_PG) && (efer & EFER_LME)) {
		if (!may_activate_ia32e(v))
			return false;
		efer |= EFER_LMA;
	}
	if ((changed & CR0_PG) && !(value & CR0_PG)) {
		/* SDM 2B MOV CR: not in 64-bit mode, not with CR4.PCIDE. */
		if (in_64bit(v) || (v->cr4 & CR4_PCIDE))
			return false;
		efer &= ~EFER_LMA;
	}
	/* SDM 3A 4.4.1: PAE paging, and CD, NW or PG change. */
	if (pae_paging(value, v->cr4, efer) && (changed & (CR0_CD | CR0_NW | CR0_PG)) &&
	    !load_pdptrs(v, v->cr3))
		return false;

	v->cr0 = value;
	v->msr.efer = efer;
	/* SDM 3A 4.10.4.1 asks for it when PG falls; our TLB also holds unpaged addresses, and what
	 * is allowed without WP. */
	if (changed & CR0_PG)
		tlb_flush(v, false);
	else if (changed & value & CR0_WP)
		tlb_flush_wp(v);
	vcpu_update_mode(v);
	return true;
}

bool set_cr3(struct soft_vcpu *v, u64 value)
{
	u64 reserved = 0;
	bool keep = false;

	if (v->msr.efer & EFER_LMA)
		/* SDM 3A table 4-12; bit 63 means something only with PCIDE. */
		reserved =
		    v->reserved_pa | 0x7ff0000000000000 | (v->cr4 & CR4_PCIDE ? 0 : CR3_NOFLUSH);
	if (value & reserved)
		return false;
	if (v->cr4 & CR4_PCIDE) {
		keep = value & CR3_NOFLUSH;
		value &= ~CR3_NOFLUSH;
	}
	if (pae_paging(v->cr0, v->cr4, v->msr.efer) && !load_pdptrs(v, value))
		return false;

	shadow_switch(v, value, keep);
	if (v->cr4 & CR4_PCIDE)
		context_switch(v, value, keep);
	else
		tlb_flush_context(v, value == v->cr3);
	v->cr3 = value;
	return true;
}

bool set_cr4(struct soft_vcpu *v, u64 value)
{
	u64 old = v->cr4;
	u64 changed = value ^ old;

	if (value & ~cr4_known(v))
		return false;
	if (v->vmx.on && !vmx_cr4_allowed(v, value)) /* SDM 3C 24.8 */
		return false;
	if (v->msr.efer & EFER_LMA) {
		/* SDM 3A 4.1.1: PAE stays while IA-32e mode is active. */
		if (!(value & CR4_PAE))
			return false;
	}
	/* SDM 2B MOV CR: PCIDE only in IA-32e mode, and with PCID 0. */
	if ((changed & CR4_PCIDE) && (value & CR4_PCIDE) &&
	    (!(v->msr.efer & EFER_LMA) || (v->cr3 & CR3_PCID)))
		return false;
	/* SDM 3A 4.4.1: PAE paging, and PAE, PGE, PSE or SMEP change. */
	if (pae_paging(v->cr0, value, v->msr.efer) &&
	    (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && !load_pdptrs(v, v->cr3))
		return false;

	v->cr4 = value;
	/* SDM 3A 4.10.4.1; SMAP too, as our TLB holds its effect. */
	if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		tlb_flush(v, false);
	vcpu_update_mode(v);
	return true;
}

bool set_cr8(struct soft_vcpu *v, u64 value)
{
	if (value > 15)
		return false;
	v->cr8 = value;
	if (v->lapic)
		lapic_set_tpr(v, value);
	vcpu_irq_window(v);
	return true;
}

u64 efer_known(struct soft_vcpu *v)
{
	u64 known = EFER_LMA;

	if (feature(v, FEATURE_SYSCALL))
		known |= EFER_SCE;
	if (feature(v, FEATURE_LM))
		known |= EFER_LME;
	if (feature(v, FEATURE_NX))
		known |= EFER_NXE;
	return known;
}

bool set_efer(struct soft_vcpu *v, u64 value)
{
	u64 old = v->msr.efer;

	if (value & ~efer_known(v))
		return false;
	/* SDM 3A 9.8.5: LME does not change while paging is on. LMA is read-only: writes to it are
	 * dropped. */
	if (((value ^ old) & EFER_LME) && (v->cr0 & CR0_PG))
		return false;

	v->msr.efer = (value & ~EFER_LMA) | (old & EFER_LMA);
	if ((value ^ old) & EFER_NXE)
		tlb_flush(v, false);
	vcpu_update_mode(v);
	return true;
}

bool set_xcr0(struct soft_vcpu *v, u64 value)
{
	u32 leaf[4];

	/* SDM 1 13.3: x87 always; AVX needs SSE; AVX-512's three come together and need AVX;
	 * nothing that leaf 0DH does not list. */
	if (!(value & XCR0_X87))
		return false;
	if ((value & XCR0_AVX) && !(value & XCR0_SSE))
		return false;
	if ((value & XCR0_AVX512) && ((value & XCR0_AVX512) != XCR0_AVX512 || !(value & XCR0_AVX)))
		return false;
	cpuid_query(v, 0xd, 0, leaf);
	if (v->cpuid_count && (value & ~(u64)leaf[CPUID_EAX]))
		return false;
	if (value & ~v->layout.offered)
		return false;

	v->xcr0 = value;
	vcpu_update_mode(v);
	return true;
}

/* ---- instructions ---- */

/* SDM 2B MOV (control registers): CR1, CR5-CR7, CR9-CR15 do not exist; no LOCK. */
static void check_cr_exists(struct soft_vcpu *v, const struct insn *i)
{
	bool exists = i->reg == 0 || i->reg == 2 || i->reg == 3 || i->reg == 4 || i->reg == 8;

	if (!exists || i->lock)
		raise_ud(v);
}

void op_mov_to_cr(struct soft_vcpu *v, const struct insn *i)
{
	bool ok = true;

	check_cr_exists(v, i);
	require_cpl0(v);
	u64 value = in_64bit(v) ? v->regs[i->rm] : (u32)v->regs[i->rm];
	if (vmx_nonroot(v))
		value = vmx_on_write_cr(v, i, value);
	switch (i->reg) {
	case 0:
		ok = set_cr0(v, value);
		break;
	case 2:
		v->cr2 = value;
		break;
	case 3:
		ok = set_cr3(v, value);
		break;
	case 4:
		ok = set_cr4(v, value);
		break;
	case 8:
		ok = (vmx_nonroot(v) && vmx_write_cr8(v, value)) || set_cr8(v, value);
		break;
	}
	/* CR0 and CR4 change modes; CR3 and CR8 are every day's business. */
	if (trace_on(mode, i->reg == 0 || i->reg == 4 ? 1 : 3))
		trace_gp(mode, 1, "vcpu %u: cr%u = %#llx, efer %#llx at rip %#llx%s", v->base.id,
			 i->reg, (unsigned long long)value, (unsigned long long)v->msr.efer,
			 (unsigned long long)v->rip, ok ? "" : ": #GP(0)");
	if (!ok)
		raise_gp(v, 0);
	v->rip = v->next_rip;
}

void op_mov_from_cr(struct soft_vcpu *v, const struct insn *i)
{
	u64 value = 0;

	check_cr_exists(v, i);
	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_read_cr(v, i, i->reg);
	switch (i->reg) {
	case 0:
		value = vmx_read_cr0(v);
		break;
	case 2:
		value = v->cr2;
		break;
	case 3:
		value = v->cr3;
		break;
	case 4:
		value = vmx_read_cr4(v);
		break;
	case 8:
		if (!vmx_nonroot(v) || !vmx_read_cr8(v, &value))
			value = v->lapic ? lapic_get_tpr(v) : v->cr8;
		break;
	}
	v->regs[i->rm] = in_64bit(v) ? value : (u32)value;
}

void op_smsw(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2B SMSW: with UMIP only at CPL 0. */
	if ((v->cr4 & CR4_UMIP) && v->cpl > 0)
		raise_gp(v, 0);
	rm_write(v, i, i->is_mem ? 2 : i->opsize, vmx_read_cr0(v));
}

void op_lmsw(struct soft_vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	/* SDM 2A LMSW: PE MP EM TS; PE can be set, not cleared. */
	u64 source = rm_read(v, i, 2);
	u64 low = vmx_nonroot(v) ? vmx_on_lmsw(v, i, source) : source;
	u64 kept = v->cr0 & ~(CR0_MP | CR0_EM | CR0_TS);
	low &= CR0_PE | CR0_MP | CR0_EM | CR0_TS;
	if (!set_cr0(v, kept | low))
		raise_gp(v, 0);
	v->rip = v->next_rip;
}

void op_clts(struct soft_vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	if (!vmx_nonroot(v) || vmx_on_clts(v, i))
		v->cr0 &= ~CR0_TS;
	vcpu_update_mode(v);
	v->rip = v->next_rip;
}
