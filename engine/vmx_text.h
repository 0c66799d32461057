/*
 * VMX's numbers in words, for traces, dumps and debuggers: exit reasons with what their
 * qualification says, errors of VMX instructions, and what the bits of a field are called. It knows
 * all that the manual has, whatever an engine offers. Any thread; outside.
 */
#ifndef GUISE_ENGINE_VMX_TEXT_H
#define GUISE_ENGINE_VMX_TEXT_H

#include <stddef.h>

#include "base/types.h"

/* What a VM exit left behind: the information fields of SDM 3C 25.9, and registers of the guest
 * that say what the instruction was about. */
struct vmx_exit_facts {
	u32 reason;
	u64 qualification;
	u32 interruption, error; /* VM-exit interruption information and error code */
	u64 physical, linear;	 /* guest-physical and guest-linear address */
	u64 rax, rcx, rdx;
};

/** "I/O instruction: out 0xf1, al 0x48". Writes at most @size bytes, the last a 0. */
void vmx_exit_text(char *text, size_t size, const struct vmx_exit_facts *x);

/** The same for an event in the format of SDM 3C 25.9.2: "#PF, error 0x2", "external interrupt
 * 0x20"; empty: not valid. */
void vmx_event_text(char *text, size_t size, u32 info, u32 error);

/** What a VM-instruction error number means (SDM 3C 31.4), or NULL. */
const char *vmx_error_text(u32 error);

/** Why there was a VMX abort (SDM 3C 28.7), or NULL. */
const char *vmx_abort_text(u32 reason);

/** What @value of the VMCS field @encoding says: names of its bits, an exit reason, an event. Empty
 * if it is a mere number. */
void vmx_field_text(char *text, size_t size, u32 encoding, u64 value);

#endif
