// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Model-specific registers: where each one lives, and what may be written to it. The bitmap lets
 * the guest at those that are its own entirely; all others exit, and what is in no table here does
 * not exist (#GP).
 *
 * Source: SDM 4 chapter 2; SDM 3C 24.6.9 (bitmaps).
 */
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <asm/msr.h>
#include <asm/mtrr.h>
#include <asm/trapnr.h>
#include <uapi/asm/kvm_para.h>
#include <asm/tsc.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

/* What a value must be for the processor to take it: what it refuses would fault in the host or
 * fail the entry. */
enum rule {
	RULE_ANY,
	RULE_CANONICAL,
	RULE_32_BITS,
	RULE_PAT,
	RULE_DEBUGCTL,
	RULE_READ_ONLY, /* for the guest; the owner may write what reads back */
	RULE_IGNORED,	/* writes are dropped */
	RULE_OWNER,	/* not there for the guest */
};

enum place {
	IN_VMCS,     /* where: field */
	IN_VCPU,     /* where: offset */
	IN_LAZY,     /* where: enum lazy_msr */
	IN_CONSTANT, /* where: value */
	IN_EFER,
	IN_TSC,
	IN_APIC_BASE,
};

struct msr_row {
	u32 index;
	enum place place;
	u64 where;
	enum rule rule;
};

#define VCPU(member) IN_VCPU, offsetof(struct vcpu, member)

/* MTRRcap: 8 variable ranges, fixed ranges, write combining (SDM 3A 11.11.1). */
#define MTRR_CAPABILITIES 0x508

static const struct msr_row rows[] = {
    {MSR_IA32_SYSENTER_CS, IN_VMCS, GUEST_SYSENTER_CS, RULE_32_BITS},
    {MSR_IA32_SYSENTER_ESP, IN_VMCS, GUEST_SYSENTER_ESP, RULE_CANONICAL},
    {MSR_IA32_SYSENTER_EIP, IN_VMCS, GUEST_SYSENTER_EIP, RULE_CANONICAL},
    {MSR_FS_BASE, IN_VMCS, GUEST_FS_BASE, RULE_CANONICAL},
    {MSR_GS_BASE, IN_VMCS, GUEST_GS_BASE, RULE_CANONICAL},
    {MSR_IA32_CR_PAT, IN_VMCS, GUEST_IA32_PAT, RULE_PAT},
    {MSR_IA32_DEBUGCTLMSR, IN_VMCS, GUEST_IA32_DEBUGCTL, RULE_DEBUGCTL},
    {MSR_KERNEL_GS_BASE, IN_LAZY, LAZY_KERNEL_GS_BASE, RULE_CANONICAL},
    {MSR_STAR, IN_LAZY, LAZY_STAR, RULE_ANY},
    {MSR_LSTAR, IN_LAZY, LAZY_LSTAR, RULE_CANONICAL},
    {MSR_CSTAR, IN_LAZY, LAZY_CSTAR, RULE_CANONICAL},
    {MSR_SYSCALL_MASK, IN_LAZY, LAZY_SYSCALL_MASK, RULE_32_BITS},
    {MSR_TSC_AUX, IN_LAZY, LAZY_TSC_AUX, RULE_32_BITS},
    {MSR_EFER, IN_EFER, 0, RULE_ANY},
    {MSR_IA32_TSC, IN_TSC, 0, RULE_ANY},
    {MSR_IA32_APICBASE, IN_APIC_BASE, 0, RULE_ANY},
    {MSR_IA32_MISC_ENABLE, VCPU(misc_enable), RULE_IGNORED},
    {MSR_IA32_FEAT_CTL, VCPU(feature_control), RULE_READ_ONLY},
    {MSR_MTRRdefType, VCPU(mtrr_default), RULE_32_BITS},
    {MSR_MTRRfix64K_00000, VCPU(mtrr_fixed[0]), RULE_ANY},
    {MSR_MTRRfix16K_80000, VCPU(mtrr_fixed[1]), RULE_ANY},
    {MSR_MTRRfix16K_A0000, VCPU(mtrr_fixed[2]), RULE_ANY},
    {MSR_MTRRfix4K_C0000, VCPU(mtrr_fixed[3]), RULE_ANY},
    {MSR_MTRRfix4K_C8000, VCPU(mtrr_fixed[4]), RULE_ANY},
    {MSR_MTRRfix4K_D0000, VCPU(mtrr_fixed[5]), RULE_ANY},
    {MSR_MTRRfix4K_D8000, VCPU(mtrr_fixed[6]), RULE_ANY},
    {MSR_MTRRfix4K_E0000, VCPU(mtrr_fixed[7]), RULE_ANY},
    {MSR_MTRRfix4K_E8000, VCPU(mtrr_fixed[8]), RULE_ANY},
    {MSR_MTRRfix4K_F0000, VCPU(mtrr_fixed[9]), RULE_ANY},
    {MSR_MTRRfix4K_F8000, VCPU(mtrr_fixed[10]), RULE_ANY},
    {MSR_MTRRcap, IN_CONSTANT, MTRR_CAPABILITIES, RULE_READ_ONLY},
    {MSR_IA32_PLATFORM_ID, IN_CONSTANT, 0, RULE_READ_ONLY},
    /* KVM's clock is not here; QEMU up to 7.2 wants to write that it is off. */
    {MSR_KVM_WALL_CLOCK, IN_CONSTANT, 0, RULE_OWNER},
    {MSR_KVM_SYSTEM_TIME, IN_CONSTANT, 0, RULE_OWNER},
    /* The microcode's revision, 1; written with 0 before it is read (SDM 3A 9.11.7). */
    {MSR_IA32_UCODE_REV, IN_CONSTANT, 1ull << 32, RULE_IGNORED},
};

/* What an owner that saves a guest asks for: all that can differ from guest to guest. The bases of
 * FS and GS and the APIC's are in KVM_GET_SREGS. */
u32 msr_list(u32 *indices)
{
	u32 count = 0;

	for (int i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct msr_row *row = &rows[i];

		if (row->place != IN_CONSTANT && row->place != IN_APIC_BASE &&
		    row->index != MSR_FS_BASE && row->index != MSR_GS_BASE)
			indices[count++] = row->index;
	}
	for (int i = 0; i < 2 * MTRR_VARIABLE; i++)
		indices[count++] = MTRRphysBase_MSR(0) + i;
	return count;
}
static_assert(ARRAY_SIZE(rows) + 2 * MTRR_VARIABLE <= MSR_LIST_MAX);

static unsigned long bitmap;

/* SDM 3C 24.6.9: 1 KiB each for reads of low and of high MSRs, then for writes; a 0 bit lets the
 * guest through. */
static void pass_through(u32 index)
{
	u8 *bits = (u8 *)bitmap;

	if (index >= 0xc0000000) {
		bits += 1024;
		index -= 0xc0000000;
	}
	bits[index / 8] &= ~BIT(index % 8);
	bits[2048 + index / 8] &= ~BIT(index % 8);
}

int msr_setup(void)
{
	bitmap = __get_free_page(GFP_KERNEL);
	if (!bitmap)
		return -ENOMEM;
	memset((void *)bitmap, 0xff, PAGE_SIZE);
	pass_through(MSR_FS_BASE);
	pass_through(MSR_GS_BASE);
	pass_through(MSR_KERNEL_GS_BASE);
	pass_through(MSR_IA32_SYSENTER_CS);
	pass_through(MSR_IA32_SYSENTER_ESP);
	pass_through(MSR_IA32_SYSENTER_EIP);
	return 0;
}

void msr_cleanup(void)
{
	free_page(bitmap);
}

phys_addr_t msr_bitmap(void)
{
	return __pa(bitmap);
}

void msr_reset(struct vcpu *v)
{
	for (int i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].place == IN_VMCS)
			vmcs_write(rows[i].where, 0);
	vmcs_write(GUEST_IA32_PAT, 0x0007040600070406ull); /* SDM 3A 11.12.4 */
	memset(v->lazy, 0, sizeof(v->lazy));
	mc_reset(v);
	v->chip.msr.apic_base =
	    APIC_DEFAULT_PHYS_BASE | MSR_IA32_APICBASE_ENABLE | (v->id ? 0 : MSR_IA32_APICBASE_BSP);
	v->misc_enable = MSR_IA32_MISC_ENABLE_FAST_STRING | MSR_IA32_MISC_ENABLE_BTS_UNAVAIL |
			 MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL;
	v->feature_control = FEAT_CTL_LOCKED;
}

static bool pat_valid(u64 value)
{
	/* SDM 3A table 11-10: types 0, 1, 4 to 7 in each byte. */
	for (int i = 0; i < 8; i++) {
		u8 type = value >> (8 * i);

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

static bool canonical(u64 address)
{
	return (s64)(address << 16) >> 16 == (s64)address;
}

static bool obeys(enum rule rule, u64 value)
{
	switch (rule) {
	case RULE_CANONICAL:
		return canonical(value);
	case RULE_32_BITS:
		return !(value >> 32);
	case RULE_PAT:
		return pat_valid(value);
	case RULE_DEBUGCTL: /* no records of branches, but single steps by branches */
		return !(value & ~(u64)DEBUGCTLMSR_BTF);
	default:
		return true;
	}
}

static u64 *variable_mtrr(struct vcpu *v, u32 index)
{
	u32 i = index - MTRRphysBase_MSR(0);

	return i < ARRAY_SIZE(v->mtrr_variable) ? &v->mtrr_variable[i] : NULL;
}

static const struct msr_row *find(u32 index)
{
	for (int i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].index == index)
			return &rows[i];
	return NULL;
}

/* While the vCPU has the processor the register itself is the guest's; the guest changes
 * KERNEL_GS_BASE by SWAPGS. */
static u64 get_lazy(struct vcpu *v, enum lazy_msr which)
{
	preempt_disable();
	if (v->host.loaded && which == LAZY_KERNEL_GS_BASE)
		rdmsrl(lazy_msrs[which], v->lazy[which]);
	preempt_enable();
	return v->lazy[which];
}

static void set_lazy(struct vcpu *v, enum lazy_msr which, u64 value)
{
	preempt_disable();
	v->lazy[which] = value;
	if (v->host.loaded && (which != LAZY_TSC_AUX || boot_cpu_has(X86_FEATURE_RDTSCP)))
		wrmsrl(lazy_msrs[which], value);
	preempt_enable();
}

/* Those of the LAPIC: x2APIC's, and its timer's deadline. */
static bool is_lapic(const struct vcpu *v, u32 index)
{
	return v->chip.lapic && ((index >= APIC_BASE_MSR && index <= APIC_BASE_MSR + 0xff) ||
				 index == MSR_IA32_TSC_DEADLINE);
}

static int set_apic_base(struct vcpu *v, u64 value, bool from_guest)
{
	if (!v->chip.lapic && !from_guest)
		v->chip.msr.apic_base = value;
	else if (!v->chip.lapic)
		return -EINVAL;
	else if (from_guest)
		return lapic_set_base(&v->chip, value) ? 0 : -EINVAL;
	else
		lapic_restore_base(&v->chip, value);
	return 0;
}

int msr_get(struct vcpu *v, u32 index, u64 *value, bool from_guest)
{
	const struct msr_row *row = find(index);
	const u64 *mtrr = variable_mtrr(v, index);

	if (is_lapic(v, index))
		return lapic_msr(&v->chip, index, value, false) ? 0 : -EINVAL;
	if (mtrr) {
		*value = *mtrr;
		return 0;
	}
	if (mc_has_msr(v, index))
		return mc_get_msr(v, index, value);
	if (!row || (from_guest && row->rule == RULE_OWNER))
		return -EINVAL;
	switch (row->place) {
	case IN_VMCS:
		*value = vmcs_read(row->where);
		break;
	case IN_VCPU:
		*value = *(u64 *)((u8 *)v + row->where);
		break;
	case IN_LAZY:
		*value = get_lazy(v, row->where);
		break;
	case IN_CONSTANT:
		*value = row->where;
		break;
	case IN_EFER:
		*value = field_get(v, FIELD_EFER);
		break;
	case IN_TSC:
		*value = rdtsc() + v->tsc_offset;
		break;
	case IN_APIC_BASE:
		*value = v->chip.msr.apic_base;
		break;
	}
	return 0;
}

/* SDM 3A 2.2.1: LMA is read-only, LME may not change while paging is on. */
static int set_efer(struct vcpu *v, u64 value, bool from_guest)
{
	u64 old = field_get(v, FIELD_EFER);

	if (!control_efer_valid(v, value))
		return -EINVAL;
	if (from_guest) {
		if (((value ^ old) & EFER_LME) && (control_get_cr0(v) & X86_CR0_PG))
			return -EINVAL;
		value = (value & ~(u64)EFER_LMA) | (old & EFER_LMA);
	}
	control_put_efer(v, value);
	vcpu_request(v, REQUEST_FLUSH_TLB);
	return 0;
}

int msr_set(struct vcpu *v, u32 index, u64 value, bool from_guest)
{
	const struct msr_row *row = find(index);
	u64 *mtrr = variable_mtrr(v, index);

	if (is_lapic(v, index))
		return lapic_msr(&v->chip, index, &value, true) ? 0 : -EINVAL;
	if (mtrr) {
		*mtrr = value;
		return 0;
	}
	if (mc_has_msr(v, index))
		return mc_set_msr(v, index, value, from_guest);
	if (!row || !obeys(row->rule, value))
		return -EINVAL;
	if ((row->rule == RULE_READ_ONLY && (from_guest || row->place == IN_CONSTANT)) ||
	    row->rule == RULE_OWNER)
		return !from_guest && value == row->where ? 0 : -EINVAL;
	if (row->rule == RULE_IGNORED && from_guest)
		return 0;
	switch (row->place) {
	case IN_VMCS:
		vmcs_write(row->where, value);
		break;
	case IN_VCPU:
		*(u64 *)((u8 *)v + row->where) = value;
		break;
	case IN_LAZY:
		set_lazy(v, row->where, value);
		break;
	case IN_CONSTANT:
		break;
	case IN_EFER:
		return set_efer(v, value, from_guest);
	case IN_TSC:
		v->tsc_offset = value - rdtsc();
		vmcs_write(TSC_OFFSET, v->tsc_offset);
		break;
	case IN_APIC_BASE:
		return set_apic_base(v, value, from_guest);
	}
	return 0;
}

int exit_rdmsr(struct vcpu *v)
{
	u64 value;

	if (msr_get(v, v->registers.r[RCX], &value, true)) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	v->registers.r[RAX] = (u32)value;
	v->registers.r[RDX] = value >> 32;
	vcpu_skip(v);
	return 1;
}

int exit_wrmsr(struct vcpu *v)
{
	u64 value = (u32)v->registers.r[RAX] | v->registers.r[RDX] << 32;

	if (msr_set(v, v->registers.r[RCX], value, true)) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	vcpu_skip(v);
	return 1;
}
