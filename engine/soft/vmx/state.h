/*
 * What a vCPU has of VMX: part of struct soft_vcpu.
 *
 * The current VMCS is kept here while it is current, as processors do (SDM 3C 25.1), and is written
 * to its region in guest memory when another becomes current, by VMCLEAR and by VMXOFF. What comes
 * from a region is data: values are cut to their fields' width, and VM entry checks all of them.
 */
#ifndef GUISE_SOFT_VMX_STATE_H
#define GUISE_SOFT_VMX_STATE_H

#include "engine/soft/vmx/controls.h"
#include "engine/soft/vmx/fields.h"

#define VMCS_NONE (~0ull)

/* How a VM entry failed, for people. */
struct vmx_failure {
	const char *part, *what; /* NULL: none has */
	enum vmx_field field;
	u64 value;
	u64 entries; /* that had succeeded by then */
};

struct vmx {
	bool on;       /* VMX operation, between VMXON and VMXOFF */
	bool nonroot;  /* VMX non-root operation: a guest's guest runs */
	bool launched; /* launch state of the current VMCS */
	bool shadow;   /* the current VMCS is a shadow VMCS: not to be entered */
	u64 vmxon;     /* the VMXON region, gpa */
	u64 current;   /* the current VMCS' region, gpa, or VMCS_NONE */
	struct vmcs vmcs;
	/* What CPUID told the guest, found out at VMXON: each question is a search. */
	u64 allowed_cpu2, cr4_known, efer_known;

	/* ---- in non-root operation ---- */

	u32 activity;	   /* enum vmx_activity, other than what mp_state tells */
	bool tpr_below;	   /* VM entry found the virtual TPR below its threshold */
	bool trap_pending; /* an MTF VM exit is due at the next boundary */
	/* What this instruction has written of the virtual APIC, whose emulation is due; 0: none.
	 */
	u32 apic_written;
	_Atomic u32 virtual_interrupt; /* one is recognized (SDM 3C 30.2.1) */

	/* The event to deliver at VM entry, in the form of the fields. INFO_VALID: not yet done. */
	u32 inject_info, inject_error, inject_length;

	/* The event that is being delivered, and the one whose delivery met the exception that is
	 * recorded in v->events: what becomes IDT-vectoring information. */
	u32 delivery_info, delivery_error, delivery_length;
	u32 vectoring_info, vectoring_error, vectoring_length;
	bool nmi_unblocked; /* by the IRET that runs */

	u64 apic_page;	      /* gpa | 1 of the APIC-access page; 0: there is none */
	u64 apic_page_before; /* at the last VM entry: the TLBs do not have it */

	/* Preemption timer: guest TSC of the VMX root at which it is 0. */
	u64 timer_end;

	/* PAUSE-loop exiting: root's TSC of the first PAUSE of the loop and of the last. */
	u64 pause_first, pause_last;

	/* ---- what people want to know ---- */

	bool launched_now; /* the entry that is traced is VMLAUNCH's */
	struct vmx_failure failure;
	u32 abort; /* enum vmx_abort; 0: there was none */
};

/* Host TSC, with "stats" of vm_set_option(): in non-root operation, and in the hypervisor behind an
 * exit for each reason until the next entry. */
struct vmx_ticks {
	u64 since; /* the last entry or exit; 0: there was none */
	u32 reason;
	u64 nonroot, root[REASON_COUNT];
};

#endif
