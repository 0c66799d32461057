/*
 * The dump of a dying vCPU, for people: why it left, registers, segments, control registers, code,
 * stack, and how the page tables lead to RIP.
 */
#ifndef GUISE_DEBUG_DUMP_H
#define GUISE_DEBUG_DUMP_H

#include <linux/kvm.h>
#include <stdio.h>

#include "base/types.h"

struct guest_memory;

struct dump {
	const char *what; /* one line: what went wrong */
	u32 vcpu;
	u32 exit_reason; /* KVM_EXIT_* */
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	const struct guest_memory *memory;
	u64 eptp;	 /* as walk_linear() wants it */
	const char *vmx; /* lines about a hypervisor in the guest, each with its newline, or NULL */
};

/** Prints @dump. Whatever the registers and page tables hold, only guest RAM is read. */
void dump_print(FILE *out, const struct dump *dump);

/** Parts of it: general registers, segments, control registers; the page walk of @linear. */
void dump_registers(FILE *out, const struct dump *dump);
void dump_walk(FILE *out, const struct dump *dump, u64 linear);

/** "HLT" for KVM_EXIT_HLT and so on; "UNKNOWN" for numbers that have no name. */
const char *dump_exit_name(u32 exit_reason);

#endif
