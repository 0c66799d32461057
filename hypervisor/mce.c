// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Machine checks for guests (KVM_CAP_MCE): banks of registers that the owner sets up, and events
 * that it reports there. A vCPU has no banks until then. Machine checks of the host's own are the
 * host's (vcpu.c).
 *
 * Source: SDM 3B 15.3 (registers), 15.10 (#MC); api.rst 4.105 to 4.107.
 */
#include <linux/kernel.h>
#include <linux/nospec.h>
#include <linux/string.h>
#include <asm/mce.h>

#include "guise.h"
#include "vmcs.h"

#define BANKS(cap) ((cap)&MCG_BANKCNT_MASK)

enum bank_register { BANK_CTL, BANK_STATUS, BANK_ADDR, BANK_MISC };

void mc_reset(struct vcpu *v)
{
	v->mce.status = 0;
	for (u32 i = 0; i < BANKS(v->mce.cap); i++)
		v->mce.banks[i][BANK_CTL] = ~0ull;
}

int mc_setup(struct vcpu *v, u64 cap)
{
	if (BANKS(cap) > MCE_BANKS || !BANKS(cap) || (cap & ~MCE_CAPABILITIES & ~MCG_BANKCNT_MASK))
		return -EINVAL;
	memset(&v->mce, 0, sizeof(v->mce));
	v->mce.cap = cap;
	v->mce.control = cap & MCG_CTL_P ? ~0ull : 0;
	mc_reset(v);
	return 0;
}

/* A register of a bank, or NULL. */
static u64 *bank_register(struct vcpu *v, u32 index, enum bank_register *which)
{
	u32 n = index - MSR_IA32_MC0_CTL;

	if (n >= BANKS(v->mce.cap) * 4)
		return NULL;
	n = array_index_nospec(n, MCE_BANKS * 4);
	*which = n % 4;
	return &v->mce.banks[n / 4][n % 4];
}

bool mc_has_msr(const struct vcpu *v, u32 index)
{
	return (index >= MSR_IA32_MCG_CAP && index <= MSR_IA32_MCG_CTL) ||
	       index - MSR_IA32_MC0_CTL < BANKS(v->mce.cap) * 4;
}

int mc_get_msr(struct vcpu *v, u32 index, u64 *value)
{
	enum bank_register which;

	switch (index) {
	case MSR_IA32_MCG_CAP:
		*value = v->mce.cap;
		return 0;
	case MSR_IA32_MCG_STATUS:
		*value = v->mce.status;
		return 0;
	case MSR_IA32_MCG_CTL:
		*value = v->mce.control;
		return v->mce.cap & MCG_CTL_P ? 0 : -EINVAL;
	}
	*value = *bank_register(v, index, &which);
	return 0;
}

/* SDM 3B 15.3: what a program may write. An owner that restores a guest writes what was there. */
int mc_set_msr(struct vcpu *v, u32 index, u64 value, bool from_guest)
{
	enum bank_register which;
	u64 *bank;

	switch (index) {
	case MSR_IA32_MCG_CAP:
		return !from_guest && value == v->mce.cap ? 0 : -EINVAL;
	case MSR_IA32_MCG_STATUS:
		if (from_guest && value)
			return -EINVAL;
		v->mce.status = value;
		return 0;
	case MSR_IA32_MCG_CTL:
		if (!(v->mce.cap & MCG_CTL_P) || (value && ~value))
			return -EINVAL;
		v->mce.control = value;
		return 0;
	}
	bank = bank_register(v, index, &which);
	if (from_guest &&
	    ((which == BANK_CTL && value && ~value) || (which == BANK_STATUS && value)))
		return -EINVAL;
	*bank = value;
	return 0;
}

int mc_report(struct vcpu *v, const struct kvm_x86_mce *in)
{
	bool fatal = in->status & MCI_STATUS_UC;
	u64 *bank;

	if (in->bank >= BANKS(v->mce.cap) || !(in->status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = v->mce.banks[array_index_nospec(in->bank, MCE_BANKS)];
	/* Switched off there or altogether: nobody is told of what cannot be mended
	 * (15.3.1.4, 15.3.2.1). */
	if (fatal && (((v->mce.cap & MCG_CTL_P) && !v->mce.control) || !bank[BANK_CTL]))
		return 0;
	if (fatal && ((v->mce.status & MCG_STATUS_MCIP) || !(control_get_cr4(v) & X86_CR4_MCE))) {
		events_shut_down(v);
		return 0;
	}
	/* What waits in the bank yet stays if this is not worse (15.3.2.2.1). */
	if ((bank[BANK_STATUS] & MCI_STATUS_VAL) &&
	    (!fatal || (bank[BANK_STATUS] & MCI_STATUS_UC))) {
		bank[BANK_STATUS] |= MCI_STATUS_OVER;
	} else {
		bank[BANK_STATUS] = in->status;
		bank[BANK_ADDR] = in->addr;
		bank[BANK_MISC] = in->misc;
	}
	if (fatal) {
		v->mce.status = in->mcg_status;
		raise(v, X86_TRAP_MC);
	}
	return 0;
}
