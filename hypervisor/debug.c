// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Debug registers, and the owner's debugger.
 *
 * The guest's own registers are in struct vcpu: every MOV to or from one exits, and so does every
 * #DB. DR7, and DR0 to DR3 while a breakpoint is enabled, are loaded with each entry: the guest's,
 * or while the debugger has hardware breakpoints, its own. The guest's rest meanwhile, as they do
 * with KVM.
 *
 * Single steps are the processor's monitor trap flag (SDM 3C 25.5.2): an exit behind each
 * instruction, or at the first one of a handler, which the guest cannot see. An instruction that
 * exits and is carried out in here is not executed as far as that flag is concerned, so
 * vcpu_skip_bytes() notes the step.
 *
 * Source: SDM 3B 17.2, 17.3; SDM 3C tables 27-1 and 27-4.
 */
#include <linux/hw_breakpoint.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"

#define DR7_ENABLED    0xffull	     /* L0 to G3 */
#define DR7_BREAKPOINT 0xffff00ffull /* what of DR7 describes breakpoints */
#define DR7_GD	       BIT_ULL(13)
#define DR6_BD	       BIT(13)
#define DR6_BT	       BIT(15)
/* Of the pending debug exceptions (SDM 3C table 24-4): one of the breakpoints hit is enabled. */
#define PENDING_BREAKPOINT BIT(12)
/* DR6: bits 15:13 and 3:0; DR7: bits 31:16, 13, 11 (RTM, reserved as 0 without TSX), 9:0. */
#define DR6_WRITABLE 0xe00full
#define DR7_WRITABLE 0xffff23ffull

static bool debugger_has_registers(const struct vcpu *v)
{
	return v->debug.control & KVM_GUESTDBG_USE_HW_BP;
}

/* What the processor gets from the next entry on. */
static void update(struct vcpu *v)
{
	bool debugger = debugger_has_registers(v);
	u64 dr7 = debugger ? v->debug.dr7 : v->dr7;

	vmcs_write(GUEST_DR7, dr7);
	v->debug.active = dr7 & DR7_ENABLED ? (debugger ? v->debug.dr : v->dr) : NULL;
}

void debug_put_dr7(struct vcpu *v, u64 dr7)
{
	v->dr7 = (dr7 & DR7_WRITABLE) | DR7_FIXED_1;
	update(v);
}

void debug_put_dr6(struct vcpu *v, u64 dr6)
{
	v->dr6 = (dr6 & DR6_WRITABLE) | DR6_RESERVED;
}

void debug_before_entry(struct vcpu *v)
{
	const unsigned long *dr = v->debug.active;

	if (!dr)
		return;
	/* The host's breakpoints must not be at the guest's addresses up to the entry: one on the
	 * stack of #DB itself, say. debug_after_exit() brings them back. */
	if (hw_breakpoint_active())
		set_debugreg(0, 7);
	set_debugreg(dr[0], 0);
	set_debugreg(dr[1], 1);
	set_debugreg(dr[2], 2);
	set_debugreg(dr[3], 3);
}

void debug_after_exit(struct vcpu *v)
{
	if (hw_breakpoint_active())
		hw_breakpoint_restore();
}

/* Ports exit before the processor looks whether one has a breakpoint. SDM 3B 17.2.4: with CR4.DE,
 * R/W 2; a trap, that is, pending for the next entry. */
void debug_port_used(struct vcpu *v, u16 port, u32 bytes)
{
	u64 dr7 = debugger_has_registers(v) ? v->debug.dr7 : v->dr7, pending = 0;
	const unsigned long *dr = v->debug.active;

	if (!dr || !(control_get_cr4(v) & X86_CR4_DE))
		return;
	for (int n = 0; n < 4; n++) {
		u32 kind = dr7 >> (16 + 4 * n) & 3, mask = dr7 >> (18 + 4 * n) & 3;
		u64 from = dr[n] & ~(u64)mask;

		if ((dr7 >> (2 * n) & 3) && kind == 2 && from < port + bytes && port <= from + mask)
			pending |= BIT(n) | PENDING_BREAKPOINT;
	}
	field_put(v, FIELD_PENDING_DEBUG, field_get(v, FIELD_PENDING_DEBUG) | pending);
}

/* ---- MOV DR ---- */

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
		debug_put_dr6(v, value);
	else
		debug_put_dr7(v, value);
	vcpu_skip(v);
	return 1;
}

static int mov_from_dr(struct vcpu *v, int number, int reg)
{
	vcpu_set_register(v, reg, number < 4 ? v->dr[number] : number == 6 ? v->dr6 : v->dr7);
	vcpu_skip(v);
	return 1;
}

int exit_dr(struct vcpu *v)
{
	u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	int number = qualification & 7, reg = (qualification >> 8) & 0xf;
	u64 value = vcpu_get_register(v, reg);

	/* The exit comes before all checks: the privilege's (SDM 2B, MOV), ... */
	if (vcpu_cpl(v)) {
		raise_error(v, X86_TRAP_GP, 0);
		return 1;
	}
	/* ... DR4 and DR5, #UD with CR4.DE and else the other names of DR6 and DR7 (SDM 3B 17.2.2)
	 * ... */
	if (number == 4 || number == 5) {
		if (control_get_cr4(v) & X86_CR4_DE) {
			raise(v, X86_TRAP_UD);
			return 1;
		}
		number += 2;
	}
	/* ... and general detect, a fault before the access (SDM 3B 17.2.4). */
	if (v->dr7 & DR7_GD) {
		v->dr6 |= DR6_BD;
		debug_put_dr7(v, v->dr7 & ~DR7_GD);
		raise(v, X86_TRAP_DB);
		return 1;
	}
	if (qualification & BIT(4))
		return mov_from_dr(v, number, reg);
	return mov_to_dr(v, number, vcpu_64bit_code(v) ? value : (u32)value);
}

/* ---- stops ---- */

static int stop(struct vcpu *v, u8 exception, u64 dr6)
{
	v->run->exit_reason = KVM_EXIT_DEBUG;
	v->run->debug.arch = (struct kvm_debug_exit_arch){
	    .exception = exception,
	    .pc = vcpu_linear_rip(v),
	    .dr6 = dr6 | DR6_RESERVED,
	    .dr7 = debugger_has_registers(v) ? v->debug.dr7 : v->dr7,
	};
	return 0;
}

void debug_note_step(struct vcpu *v)
{
	if (v->debug.control & KVM_GUESTDBG_SINGLESTEP)
		v->debug.stepped = true;
}

bool debug_stop_after_step(struct vcpu *v)
{
	if (!v->debug.stepped)
		return false;
	v->debug.stepped = false;
	stop(v, X86_TRAP_DB, DR_STEP);
	return true;
}

int exit_monitor_trap(struct vcpu *v)
{
	debug_note_step(v);
	return 1;
}

int debug_trap(struct vcpu *v, u32 info)
{
	u64 hit = vmcs_read(EXIT_QUALIFICATION) & (DR_TRAP_BITS | DR_STEP | DR6_BD | DR6_BT);

	/* INT1: a trap that leaves DR6 alone, but for the breakpoints that a MOV SS before it has
	 * put off. */
	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_PRIV_SW_EXCEPTION) {
		hit = (hit | field_get(v, FIELD_PENDING_DEBUG)) & DR_TRAP_BITS;
		if (hit && !debugger_has_registers(v)) {
			field_put(v, FIELD_PENDING_DEBUG, 0);
			v->dr6 = (v->dr6 & ~(unsigned long)DR_TRAP_BITS) | hit;
		}
		raise_software(v, INTR_TYPE_PRIV_SW_EXCEPTION, X86_TRAP_DB,
			       vmcs_read(VM_EXIT_INSTRUCTION_LEN));
		return 1;
	}
	if ((hit & DR_TRAP_BITS) && debugger_has_registers(v)) {
		/* A step of the guest's own that came with it waits. */
		if (hit & DR_STEP)
			field_put(v, FIELD_PENDING_DEBUG,
				  field_get(v, FIELD_PENDING_DEBUG) | DR_STEP);
		return stop(v, X86_TRAP_DB, hit & DR_TRAP_BITS);
	}
	debug_raise(v, hit);
	return 1;
}

void debug_raise(struct vcpu *v, u64 hit)
{
	/* An exit has set neither DR6 nor DR7.GD, the delivery does that (SDM 3C 27.1), and no
	 * delivery by injection does (26.6.1.1). */
	v->dr6 = (v->dr6 & ~(unsigned long)DR_TRAP_BITS) | hit | DR6_RESERVED;
	if (v->dr7 & DR7_GD)
		debug_put_dr7(v, v->dr7 & ~DR7_GD);
	vmcs_write(GUEST_IA32_DEBUGCTL, 0); /* BTF is for one trap (SDM 3B 17.4.3) */
	raise(v, X86_TRAP_DB);
}

int debug_breakpoint(struct vcpu *v)
{
	u32 length = vmcs_read(VM_EXIT_INSTRUCTION_LEN);

	if (v->debug.control & KVM_GUESTDBG_USE_SW_BP) {
		v->debug.int3_length = length; /* prefixes count, should it be the guest's */
		return stop(v, X86_TRAP_BP, 0);
	}
	raise_software(v, INTR_TYPE_SOFT_EXCEPTION, X86_TRAP_BP, length);
	return 1;
}

/* ---- the owner's side ---- */

void debug_init(struct vcpu *v)
{
	memset(&v->debug, 0, sizeof(v->debug));
	v->debug.int3_length = 1;
}

u32 debug_flags(void)
{
	u32 step = vmcs_controls.step ? KVM_GUESTDBG_SINGLESTEP : 0;

	return KVM_GUESTDBG_ENABLE | step | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP |
	       KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_BLOCKIRQ;
}

int debug_set(struct vcpu *v, const struct kvm_guest_debug *in)
{
	u32 control = in->control & KVM_GUESTDBG_ENABLE ? in->control : 0;
	u32 bitmap = EXCEPTIONS_ALWAYS;

	if (in->control & ~debug_flags())
		return -EINVAL;
	if (in->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (events_exception_waits(v))
			return -EBUSY;
		if (in->control & KVM_GUESTDBG_INJECT_DB)
			raise(v, X86_TRAP_DB);
		else
			raise_software(v, INTR_TYPE_SOFT_EXCEPTION, X86_TRAP_BP,
				       v->debug.int3_length);
	}

	v->debug.control = control & ~(KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP);
	v->debug.stepped &= !!(control & KVM_GUESTDBG_SINGLESTEP);
	memcpy(v->debug.dr, in->arch.debugreg, sizeof(v->debug.dr));
	v->debug.dr7 = (in->arch.debugreg[7] & DR7_BREAKPOINT) | DR7_FIXED_1;
	update(v);
	if (control & KVM_GUESTDBG_USE_SW_BP)
		bitmap |= BIT(X86_TRAP_BP);
	vmcs_write(EXCEPTION_BITMAP, bitmap);
	vcpu_set_controls(v, CPU_BASED_MONITOR_TRAP_FLAG,
			  control & KVM_GUESTDBG_SINGLESTEP ? CPU_BASED_MONITOR_TRAP_FLAG : 0);
	return 0;
}
