/*
 * VMX: a guest is itself a hypervisor (SDM 3C chapters 24 to 31). What the rest of the engine sees
 * of it. All inside.
 *
 * In VMX non-root operation an instruction or event that the hypervisor has asked for leads to
 * vmx_exit(): the guest's guest is saved to the VMCS, the hypervisor's state is loaded, and the
 * vCPU goes on there through the dispatcher. So an intercept is like a fault: it stands behind the
 * checks that come before it (SDM 3C 26.1.1) and before everything that the instruction changes.
 */
#ifndef GUISE_SOFT_VMX_VMX_H
#define GUISE_SOFT_VMX_VMX_H

#include "engine/soft/translate/insn.h"
#include "engine/soft/vcpu.h"

static inline bool vmx_nonroot(const struct soft_vcpu *v)
{
	return unlikely(v->vmx.nonroot);
}

static inline u64 vmx_get(const struct soft_vcpu *v, enum vmx_field field)
{
	return v->vmx.vmcs.value[field];
}

static inline void vmx_set(struct soft_vcpu *v, enum vmx_field field, u64 value)
{
	v->vmx.vmcs.value[field] = value;
}

static inline bool vmx_pin(const struct soft_vcpu *v, u32 control)
{
	return vmx_get(v, VMX_PIN_CONTROLS) & control;
}

static inline bool vmx_cpu(const struct soft_vcpu *v, u32 control)
{
	return vmx_get(v, VMX_PROCESSOR_CONTROLS) & control;
}

static inline bool vmx_cpu2(const struct soft_vcpu *v, u32 control)
{
	return vmx_cpu(v, CPU_SECONDARY) && (vmx_get(v, VMX_SECONDARY_CONTROLS) & control);
}

/* ---- capabilities (capabilities.c) ---- */

/** IA32_VMX_BASIC to IA32_VMX_VMFUNC, 480H to 491H. false: there is no such MSR. */
bool vmx_capability(struct soft_vcpu *v, u32 index, u64 *value);

/** Whether CR0 or CR4 may have this value in VMX operation, as it is now (SDM 3C 24.8). */
bool vmx_cr0_allowed(const struct soft_vcpu *v, u64 value);
bool vmx_cr4_allowed(const struct soft_vcpu *v, u64 value);

/* ---- VM exits (exit.c) ---- */

/* What a VM exit tells; what it leaves out is 0. */
struct vmx_exit {
	u32 reason; /* enum vmx_reason */
	u64 qualification;
	u32 length;		 /* of the instruction, bytes */
	u32 information;	 /* VM-exit instruction information */
	u32 interruption, error; /* VM-exit interruption information */
	u64 linear, physical;	 /* addresses, where the reason has them */
	bool resume_flag;	 /* RF is saved set: an event, or a fault-like memory access */
	bool keeps_debug;	 /* what is left of pending debug exceptions is saved */
	bool vectoring; /* IDT-vectoring information is v->vmx.vectoring_*. During delivery it is
			 * that event's, whatever this says. */
};

/** Out of VMX non-root operation. v->rip is the RIP to be saved, or v->fault_pc tells. */
_Noreturn void vmx_exit(struct soft_vcpu *v, const struct vmx_exit *x);

/** The same for instruction @i, with @qualification and no more. */
_Noreturn void vmx_exit_insn(struct soft_vcpu *v, const struct insn *i, u32 reason,
			     u64 qualification);

/** VM entry failed behind the checks of the hypervisor's state: reason 33 or 34. */
_Noreturn void vmx_entry_failed(struct soft_vcpu *v, u32 reason, u64 qualification);

/* ---- ways to the virtual APIC (apic_access.c) ---- */

/** Whether @gpa, of this VM's memory, lies in the page whose accesses are the hypervisor's: it is
 * never entered into a TLB. */
static inline bool vmx_is_apic_page(const struct soft_vcpu *v, u64 gpa)
{
	return ((gpa & PAGE_MASK) | 1) == v->vmx.apic_page;
}

/** An access to it (enum access), of @size bytes: leaves, or it is one that the next two do. */
void vmx_on_apic_access(struct soft_vcpu *v, u64 linear, u64 gpa, u32 size, u32 access);
void vmx_apic_page_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size);
void vmx_apic_page_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size);
/** The exit for one that instructions make by no linear address of theirs, but in walks. */
_Noreturn void vmx_apic_access_physical(struct soft_vcpu *v);
/** VM entry: which page it is from now on. The TLBs of non-root operation are in use. */
void vmx_apic_page_enter(struct soft_vcpu *v);
/** CR8 with the TPR shadow; false: there is none. */
bool vmx_read_cr8(struct soft_vcpu *v, u64 *value);
bool vmx_write_cr8(struct soft_vcpu *v, u64 value);
/** Whether RDMSR or WRMSR of @index that does not leave is one of the next two. */
bool vmx_virtualizes_msr(const struct soft_vcpu *v, u32 index, bool write);
u64 vmx_read_apic_msr(struct soft_vcpu *v, u32 index);
/** true: refused, #GP(0). */
bool vmx_write_apic_msr(struct soft_vcpu *v, u32 index, u64 value);

/* ---- virtual interrupts (apic.c) ---- */

/** 30.2.1. Atomic as irq_word is, but for this thread only: no order, which costs at every exit. */
static inline void vmx_set_virtual_interrupt(struct soft_vcpu *v, bool recognized)
{
	atomic_store_explicit(&v->vmx.virtual_interrupt, recognized, memory_order_relaxed);
}

/** Whether one is recognized and nothing holds it back (SDM 3C 30.2.2). */
static inline bool vmx_virtual_interrupt_waits(const struct soft_vcpu *v)
{
	return v->vmx.nonroot && v->vmx.virtual_interrupt && (v->rflags_sys & RFLAGS_IF) &&
	       !v->int_shadow && v->vmx.activity <= ACTIVITY_HLT;
}
/** Takes it: the vector to be delivered. */
u8 vmx_take_virtual_interrupt(struct soft_vcpu *v);

/* ---- instructions that may have to leave (intercept.c). Each is called behind the checks that
 * come first; it returns if the instruction is to be done. ---- */

void vmx_on_cpuid(struct soft_vcpu *v, const struct insn *i);
void vmx_on_hlt(struct soft_vcpu *v, const struct insn *i);
void vmx_on_invlpg(struct soft_vcpu *v, const struct insn *i, u64 linear);
void vmx_on_invpcid(struct soft_vcpu *v, const struct insn *i);
void vmx_on_wbinvd(struct soft_vcpu *v, const struct insn *i);
void vmx_on_rdpmc(struct soft_vcpu *v, const struct insn *i);
void vmx_on_rdtsc(struct soft_vcpu *v, const struct insn *i);
void vmx_on_xsetbv(struct soft_vcpu *v, const struct insn *i);
void vmx_on_mov_dr(struct soft_vcpu *v, const struct insn *i, bool from);
void vmx_on_msr(struct soft_vcpu *v, const struct insn *i, u32 index, bool write);
void vmx_on_table(struct soft_vcpu *v, const struct insn *i, u32 identity);
void vmx_on_system_segment(struct soft_vcpu *v, const struct insn *i, u32 identity);
void vmx_on_port(struct soft_vcpu *v, const struct insn *i, u16 port, u32 size, bool in);
void vmx_on_port_string(struct soft_vcpu *v, const struct insn *i, u16 port, u32 size, bool in,
			u64 linear);
/** @source as in the exit qualification: 0 CALL, 1 IRET, 2 JMP, 3 task gate in the IDT. */
void vmx_on_task_switch(struct soft_vcpu *v, u16 selector, u32 source);
/** VMCALL in VMX operation. */
void vmx_vmcall(struct soft_vcpu *v, const struct insn *i);

/* Instructions that exist in VMX non-root operation only if a control says so; else #UD. */
static inline bool vmx_allows_rdtscp(const struct soft_vcpu *v)
{
	return !v->vmx.nonroot || vmx_cpu2(v, CPU2_RDTSCP);
}

static inline bool vmx_allows_invpcid(const struct soft_vcpu *v)
{
	return !v->vmx.nonroot || vmx_cpu2(v, CPU2_INVPCID);
}

/** TSC as RDTSC and RDMSR tell it in non-root operation (SDM 3C 26.3, 25.6.5). */
u64 vmx_tsc(const struct soft_vcpu *v);

/* ---- control registers (intercept_cr.c) ---- */

/** MOV to CR0, CR3, CR4, CR8 and LMSW, CLTS. Leaves, or gives the value to load. */
u64 vmx_on_write_cr(struct soft_vcpu *v, const struct insn *i, u64 value);
u64 vmx_on_lmsw(struct soft_vcpu *v, const struct insn *i, u64 value);
/** CLTS: leaves, or says whether CR0.TS is to be cleared. */
bool vmx_on_clts(struct soft_vcpu *v, const struct insn *i);
/** MOV from CR3 or CR8. */
void vmx_on_read_cr(struct soft_vcpu *v, const struct insn *i, u32 cr);
/** CR0 and CR4 as instructions read them: bits that the hypervisor owns come from its shadows. */
static inline u64 vmx_read_cr0(const struct soft_vcpu *v)
{
	u64 mask = v->vmx.nonroot ? vmx_get(v, VMX_CR0_MASK) : 0;

	return (v->cr0 & ~mask) | (vmx_get(v, VMX_CR0_SHADOW) & mask);
}

static inline u64 vmx_read_cr4(const struct soft_vcpu *v)
{
	u64 mask = v->vmx.nonroot ? vmx_get(v, VMX_CR4_MASK) : 0;

	return (v->cr4 & ~mask) | (vmx_get(v, VMX_CR4_SHADOW) & mask);
}

/* ---- events (events.c) ---- */

/** Whether an exception with @error leaves (SDM 3C 26.2). */
bool vmx_wants_exception(const struct soft_vcpu *v, u8 vector, u32 error);
/** The recorded exception of v->events leaves if it is wanted. */
void vmx_on_exception(struct soft_vcpu *v);
/** A debug trap with DR6 bits @bits is due: leaves if it is wanted. */
void vmx_on_debug_trap(struct soft_vcpu *v, u64 bits);
/** INT3, INTO (@type INFO_SOFTWARE_EXCEPTION), INT1: leaves if it is wanted. */
void vmx_on_software_exception(struct soft_vcpu *v, u32 type, u8 vector, u32 length);
/** An exception was met while another event was delivered: remembers that one. */
void vmx_note_nested(struct soft_vcpu *v, bool double_fault);

/* What is due between two instructions, in the order of SDM 3C 26.2, 27.7; each may leave. */

/** Before debug traps: what writes to the virtual APIC cause, TPR below threshold, the monitor trap
 * flag. */
void vmx_before_debug(struct soft_vcpu *v);
/** Behind them, before NMIs: the preemption timer, the NMI window. */
void vmx_before_nmi(struct soft_vcpu *v);
/** An NMI is due. */
void vmx_on_nmi(struct soft_vcpu *v);
/** Before external interrupts: the interrupt window. */
void vmx_before_interrupt(struct soft_vcpu *v);
/** An external interrupt is due: whether it is to be delivered. What it notifies of is taken. */
bool vmx_on_interrupt(struct soft_vcpu *v);
/** Whether any of these but NMIs and interrupts is due now. */
bool vmx_pending(const struct soft_vcpu *v);
/** An instruction of a block that was to be looked behind has completed. */
void vmx_stepped(struct soft_vcpu *v);
/** With a LAPIC: INIT and SIPI leave from non-root operation, and INIT waits in root operation:
 * whether the vCPU may look at them. */
bool vmx_takes_startup(struct soft_vcpu *v);

/** The event that event_deliver() begins with, in the form of the VMCS' fields. @length: of a
 * software interrupt's instruction. */
void vmx_delivery_begins(struct soft_vcpu *v, u32 info, u32 error, u32 length);
void vmx_delivery_ends(struct soft_vcpu *v);

/** The word that STI and the system-call stubs ask whether an interrupt may wait. */
void vmx_set_irq_word(struct soft_vcpu *v);
/** Whether external interrupts and NMIs wait for nothing but their shadow: RFLAGS.IF and NMI
 * blocking do not hold them back. */
static inline bool vmx_interrupts_leave(const struct soft_vcpu *v)
{
	return v->vmx.nonroot && vmx_pin(v, PIN_EXTERNAL_INTERRUPT);
}

static inline bool vmx_nmis_leave(const struct soft_vcpu *v)
{
	return v->vmx.nonroot && vmx_pin(v, PIN_VIRTUAL_NMIS);
}

/** The activity state holds such events back. */
static inline bool vmx_blocks_interrupts(const struct soft_vcpu *v)
{
	return v->vmx.nonroot &&
	       (v->vmx.activity == ACTIVITY_WAIT_FOR_SIPI ||
		(v->vmx.activity == ACTIVITY_SHUTDOWN && !vmx_interrupts_leave(v)));
}

static inline bool vmx_blocks_nmis(const struct soft_vcpu *v)
{
	return v->vmx.nonroot && v->vmx.activity == ACTIVITY_WAIT_FOR_SIPI;
}
/** When the preemption timer is due, CLOCK_MONOTONIC ns; UINT64_MAX: not. */
u64 vmx_timer_deadline(const struct soft_vcpu *v);
/** The injected event, to be delivered first; false: there is none. */
bool vmx_inject(struct soft_vcpu *v);
_Noreturn void vmx_triple_fault(struct soft_vcpu *v);

/* ---- VM entry (entry.c) ---- */

/** VMLAUNCH and VMRESUME behind their first checks. Returns the number of the error (VMfailValid)
 * or does not return. */
u32 vmx_enter(struct soft_vcpu *v, bool launch);

/* ---- trace and statistics (trace.c) ---- */

/** The guest's guest is about to run, its state is loaded. */
void vmx_saw_entry(struct soft_vcpu *v, bool launch);
/** It has been left, the information fields say why; its registers are still there. */
void vmx_saw_exit(struct soft_vcpu *v, u32 reason);
/** VM entry fails: @what is wrong with @field. */
void vmx_saw_failure(struct soft_vcpu *v, const char *part, enum vmx_field field, const char *what);
/** And does so as a VM exit. */
void vmx_saw_late_failure(struct soft_vcpu *v, u32 reason);
/** A VMX instruction has failed, its error is in the VMCS. */
void vmx_saw_error(struct soft_vcpu *v);

#endif
