// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Debug registers. The VMCS switches DR7; the others are loaded only while the guest has a
 * breakpoint enabled, and every MOV to or from one exits.
 *
 * Source: SDM 3B 17.2; SDM 3C table 27-4.
 */
#include <linux/hw_breakpoint.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"

#define DR7_ENABLED 0xffull /* L0 to G3 */
#define DR7_GD	    BIT_ULL(13)
#define DR6_BD	    BIT(13)
/* DR6: bits 15:13 and 3:0; DR7: bits 31:16, 13, 11 (RTM, reserved as 0 without TSX), 9:0. */
#define DR6_WRITABLE 0xe00full
#define DR7_WRITABLE 0xffff23ffull

void debug_before_entry(struct vcpu *v)
{
	if (!(vmcs_read(GUEST_DR7) & DR7_ENABLED))
		return;
	set_debugreg(v->dr[0], 0);
	set_debugreg(v->dr[1], 1);
	set_debugreg(v->dr[2], 2);
	set_debugreg(v->dr[3], 3);
	set_debugreg(v->dr6, 6);
}

void debug_after_exit(struct vcpu *v)
{
	if (vmcs_read(GUEST_DR7) & DR7_ENABLED)
		set_debugreg(DR6_RESERVED, 6);
	if (hw_breakpoint_active())
		hw_breakpoint_restore();
}

static int mov_to_dr(struct vcpu *v, int number, u64 value)
{
	/* SDM 3B 17.2.6: DR6 and DR7 have 32 bits. */
	if (number >= 6 && value >> 32) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	if (number < 4)
		v->dr[number] = value;
	else if (number == 6)
		v->dr6 = (value & DR6_WRITABLE) | DR6_RESERVED;
	else
		vmcs_write(GUEST_DR7, (value & DR7_WRITABLE) | DR7_FIXED_1);
	vcpu_skip(v);
	return 1;
}

static int mov_from_dr(struct vcpu *v, int number, int reg)
{
	vcpu_set_register(v, reg,
			  number < 4	? v->dr[number]
			  : number == 6 ? v->dr6
					: vmcs_read(GUEST_DR7));
	vcpu_skip(v);
	return 1;
}

int exit_dr(struct vcpu *v)
{
	u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	int number = qualification & 7, reg = (qualification >> 8) & 0xf;
	u64 value = vcpu_get_register(v, reg);

	/* The exit comes before all other checks but the privilege's... */
	if (vcpu_cpl()) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	/* ... DR4 and DR5 are #UD with CR4.DE and else the other names of DR6 and DR7 (SDM
	 * 3B 17.2.2) ... */
	if (number == 4 || number == 5) {
		if (control_get_cr4() & X86_CR4_DE) {
			raise(v, X86_TRAP_UD);
			return 1;
		}
		number += 2;
	}
	/* ... and general detect is a fault before the access (SDM 3B 17.2.4). */
	if (vmcs_read(GUEST_DR7) & DR7_GD) {
		v->dr6 |= DR6_BD;
		vmcs_write(GUEST_DR7, vmcs_read(GUEST_DR7) & ~DR7_GD);
		raise(v, X86_TRAP_DB);
		return 1;
	}
	if (qualification & BIT(4))
		return mov_from_dr(v, number, reg);
	return mov_to_dr(v, number, vcpu_64bit_code() ? value : (u32)value);
}
