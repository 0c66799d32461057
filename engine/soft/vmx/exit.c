/* VM exits: recording why, saving the guest, loading the host. SDM 3C chapter 28, and 27.8. */
#include "debug/trace.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/system/state.h"
#include "engine/soft/vmx/capabilities.h"
#include "engine/soft/vmx/msr_list.h"
#include "engine/soft/vmx/region.h"

#define INT_SHADOW_STI	  1
#define INT_SHADOW_MOV_SS 2

/* Segments as VM exits load them (28.5.2), in the form of struct segment. */
#define HOST_CODE      0x9bu
#define HOST_DATA      (0x93u | SEG_DB | SEG_G)
#define HOST_TSS       0x8bu
#define HOST_TSS_LIMIT 0x67u

/* ---- VM-exit information fields, 28.2 ---- */

static void record_vectoring(struct soft_vcpu *v, const struct vmx_exit *x)
{
	u32 info = 0, error = 0;

	if (v->events.in_delivery) {
		info = v->vmx.delivery_info;
		error = v->vmx.delivery_error;
	} else if (x->vectoring) {
		info = v->vmx.vectoring_info;
		error = v->vmx.vectoring_error;
	}
	vmx_set(v, VMX_IDT_VECTORING_INFO, info);
	vmx_set(v, VMX_IDT_VECTORING_ERROR, error);
}

/* 28.2.5: of the instruction, or of the software interrupt that was delivered. */
static u32 instruction_length(const struct soft_vcpu *v, const struct vmx_exit *x)
{
	if (v->events.in_delivery)
		return v->vmx.delivery_length;
	return x->vectoring && v->vmx.vectoring_info ? v->vmx.vectoring_length : x->length;
}

static void record(struct soft_vcpu *v, const struct vmx_exit *x)
{
	u32 interruption = x->interruption;
	bool unblocked = v->vmx.nmi_unblocked && !v->events.in_delivery;

	/* 28.2.2, 28.2.3: not for double faults */
	if (unblocked && (interruption & INFO_VALID) && INFO_VECTOR(interruption) != EXC_DF)
		interruption |= INFO_NMI_UNBLOCKING;
	vmx_set(v, VMX_EXIT_REASON, x->reason);
	vmx_set(v, VMX_EXIT_QUALIFICATION, x->qualification);
	vmx_set(v, VMX_GUEST_LINEAR_ADDRESS, x->linear);
	vmx_set(v, VMX_GUEST_PHYSICAL_ADDRESS, x->physical);
	vmx_set(v, VMX_EXIT_INTERRUPTION_INFO, interruption);
	vmx_set(v, VMX_EXIT_INTERRUPTION_ERROR, x->error);
	vmx_set(v, VMX_EXIT_INSTRUCTION_LENGTH, instruction_length(v, x));
	vmx_set(v, VMX_EXIT_INSTRUCTION_INFO, x->information);
	record_vectoring(v, x);
	/* 25.8.3 */
	vmx_set(v, VMX_ENTRY_INTERRUPTION_INFO,
		vmx_get(v, VMX_ENTRY_INTERRUPTION_INFO) & ~INFO_VALID);
}

/* ---- the guest-state area, 28.3 ---- */

static void save_segment(struct soft_vcpu *v, u32 n, const struct segment *s)
{
	vmx_set(v, VMX_GUEST_ES_SELECTOR + n, s->selector);
	vmx_set(v, VMX_GUEST_ES_BASE + n, s->base);
	vmx_set(v, VMX_GUEST_ES_LIMIT + n, s->limit);
	vmx_set(v, VMX_GUEST_ES_ACCESS + n, s->access);
}

static void save_segments(struct soft_vcpu *v)
{
	for (u32 n = 0; n < 6; n++)
		save_segment(v, n, &v->seg[n]);
	save_segment(v, 6, &v->ldtr);
	save_segment(v, 7, &v->tr);
	/* 28.3.2: DPL of SS is CPL, whatever else SS is. */
	vmx_set(v, VMX_GUEST_SS_ACCESS,
		(vmx_get(v, VMX_GUEST_SS_ACCESS) & ~(3ull << 5)) | (u64)v->cpl << 5);
	vmx_set(v, VMX_GUEST_GDTR_BASE, v->gdt.base);
	vmx_set(v, VMX_GUEST_GDTR_LIMIT, v->gdt.limit);
	vmx_set(v, VMX_GUEST_IDTR_BASE, v->idt.base);
	vmx_set(v, VMX_GUEST_IDTR_LIMIT, v->idt.limit);
}

/* 28.3.1 */
static void save_registers(struct soft_vcpu *v)
{
	u64 exit = vmx_get(v, VMX_EXIT_CONTROLS);
	u64 entry = vmx_get(v, VMX_ENTRY_CONTROLS) & ~ENTRY_IA32E;

	vmx_set(v, VMX_GUEST_CR0, v->cr0);
	vmx_set(v, VMX_GUEST_CR3, v->cr3);
	vmx_set(v, VMX_GUEST_CR4, v->cr4);
	if (exit & EXIT_SAVE_DEBUG) {
		vmx_set(v, VMX_GUEST_DR7, v->dr7);
		vmx_set(v, VMX_GUEST_DEBUGCTL, v->msr.debugctl);
	}
	vmx_set(v, VMX_GUEST_SYSENTER_CS, v->msr.sysenter_cs);
	vmx_set(v, VMX_GUEST_SYSENTER_ESP, v->msr.sysenter_esp);
	vmx_set(v, VMX_GUEST_SYSENTER_EIP, v->msr.sysenter_eip);
	if (exit & EXIT_SAVE_PAT)
		vmx_set(v, VMX_GUEST_PAT, v->msr.pat);
	if (exit & EXIT_SAVE_EFER)
		vmx_set(v, VMX_GUEST_EFER, v->msr.efer);
	vmx_set(v, VMX_ENTRY_CONTROLS, entry | (v->msr.efer & EFER_LMA ? ENTRY_IA32E : 0));
	if (vmx_cpu2(v, CPU2_EPT))
		for (u32 n = 0; n < 4; n++)
			vmx_set(v, VMX_GUEST_PDPTE0 + n, v->pdptr[n]);
}

/* 28.3.3 */
static void save_rip_rflags(struct soft_vcpu *v, const struct vmx_exit *x)
{
	u64 rflags = vcpu_rflags(v);

	vmx_set(v, VMX_GUEST_RIP, v->rip);
	vmx_set(v, VMX_GUEST_RSP, v->regs[RSP]);
	vmx_set(v, VMX_GUEST_RFLAGS, x->resume_flag ? rflags | RFLAGS_RF : rflags);
}

/* 28.3.4: behind MOV SS, and where the exit comes before debug traps, those are still pending. */
static u64 pending_debug(const struct soft_vcpu *v, const struct vmx_exit *x)
{
	u64 bits = v->events.debug;

	if (!bits || !(x->keeps_debug || v->int_shadow == INT_SHADOW_MOV_SS))
		return 0;
	return (bits & (0xf | DR6_BS)) | (bits & 0xf ? PENDING_ENABLED_BREAKPOINT : 0);
}

static u64 timer_left(const struct soft_vcpu *v)
{
	u64 now = guest_tsc(v);

	return v->vmx.timer_end <= now ? 0 : (v->vmx.timer_end - now) >> TIMER_SHIFT;
}

static void save_other(struct soft_vcpu *v, const struct vmx_exit *x)
{
	u64 blocked = 0;

	if (v->int_shadow == INT_SHADOW_STI)
		blocked |= BLOCKED_STI;
	if (v->int_shadow == INT_SHADOW_MOV_SS)
		blocked |= BLOCKED_MOV_SS;
	if (v->events.nmi_masked)
		blocked |= BLOCKED_NMI;
	vmx_set(v, VMX_GUEST_INTERRUPTIBILITY, blocked);
	vmx_set(v, VMX_GUEST_ACTIVITY, v->vmx.activity);
	vmx_set(v, VMX_GUEST_PENDING_DEBUG, pending_debug(v, x));
	if ((vmx_get(v, VMX_EXIT_CONTROLS) & EXIT_SAVE_TIMER) && vmx_pin(v, PIN_PREEMPTION_TIMER))
		vmx_set(v, VMX_PREEMPTION_TIMER, timer_left(v));
}

/* ---- the host's state, 28.5 ---- */

static void load_host_segments(struct soft_vcpu *v, bool long_mode)
{
	for (u32 n = 0; n < 6; n++) {
		u16 selector = (u16)vmx_get(v, VMX_HOST_ES_SELECTOR + n);
		u32 access = selector ? HOST_DATA : HOST_DATA | SEG_UNUSABLE;

		v->seg[n] =
		    (struct segment){.selector = selector, .limit = 0xffffffff, .access = access};
	}
	v->seg[SEG_CS].access = HOST_CODE | SEG_G | (long_mode ? SEG_L : SEG_DB);
	v->seg[SEG_FS].base = vmx_get(v, VMX_HOST_FS_BASE);
	v->seg[SEG_GS].base = vmx_get(v, VMX_HOST_GS_BASE);
	v->ldtr = (struct segment){.access = SEG_UNUSABLE};
	v->tr = (struct segment){
	    .selector = (u16)vmx_get(v, VMX_HOST_TR_SELECTOR),
	    .base = vmx_get(v, VMX_HOST_TR_BASE),
	    .limit = HOST_TSS_LIMIT,
	    .access = HOST_TSS,
	};
	v->gdt = (struct descriptor_table){.base = vmx_get(v, VMX_HOST_GDTR_BASE), .limit = 0xffff};
	v->idt = (struct descriptor_table){.base = vmx_get(v, VMX_HOST_IDTR_BASE), .limit = 0xffff};
	v->cpl = 0;
}

static void load_host_msrs(struct soft_vcpu *v, bool long_mode)
{
	u64 exit = vmx_get(v, VMX_EXIT_CONTROLS);
	u64 ia32e = long_mode ? EFER_LMA | EFER_LME : 0;

	v->msr.debugctl = 0;
	v->msr.sysenter_cs = vmx_get(v, VMX_HOST_SYSENTER_CS);
	v->msr.sysenter_esp = vmx_get(v, VMX_HOST_SYSENTER_ESP);
	v->msr.sysenter_eip = vmx_get(v, VMX_HOST_SYSENTER_EIP);
	if (exit & EXIT_LOAD_PAT)
		v->msr.pat = vmx_get(v, VMX_HOST_PAT);
	if (exit & EXIT_LOAD_EFER)
		v->msr.efer = vmx_get(v, VMX_HOST_EFER);
	v->msr.efer = (v->msr.efer & ~(EFER_LMA | EFER_LME)) | ia32e;
}

/* Anything of the guest's that must not reach the host's first instruction. */
static void forget_guest_events(struct soft_vcpu *v)
{
	struct pending_events *e = &v->events;

	/* It was taken; information of the exit tells of it. */
	if (e->in_delivery && e->delivering_user)
		e->user_interrupt = false;
	e->exception = e->soft_interrupt = e->triple_fault = e->in_delivery = false;
	e->debug = 0;
	e->debug_fault = false;
	v->int_shadow = 0;
	v->replay = 0;
	v->io_logged = v->io_cursor = 0;
	v->stepped = 0;
	v->step_tf = 0;
	v->keep_rf = 0;
	v->branch_pc = 0;
	v->mp_state = KVM_MP_STATE_RUNNABLE;
	v->vmx.activity = ACTIVITY_ACTIVE;
	v->vmx.inject_info = 0;
	v->vmx.trap_pending = v->vmx.tpr_below = false;
	v->vmx.apic_written = 0;
	vmx_set_virtual_interrupt(v, false);
	v->vmx.vectoring_info = 0;
	v->vmx.nmi_unblocked = false;
}

/* A VMX abort is a shutdown (28.7). */
static _Noreturn void abort_vmx(struct soft_vcpu *v, u32 reason)
{
	trace_gp(vmx, 1, "vcpu %u: VMX abort %u", v->base.id, reason);
	v->vmx.abort = reason;
	vmx_region_abort(v, v->vmx.current, reason);
	v->events.triple_fault = true;
	vcpu_resume(v);
}

static bool host_has_pae(const struct soft_vcpu *v, bool long_mode)
{
	return !long_mode && (v->cr4 & CR4_PAE);
}

static _Noreturn void load_host(struct soft_vcpu *v)
{
	bool long_mode = vmx_get(v, VMX_EXIT_CONTROLS) & EXIT_HOST_64;

	mmu_leave(v);
	v->vmx.nonroot = false;
	v->vmx.apic_page = 0;
	v->cr0 = (vmx_get(v, VMX_HOST_CR0) & ~CR0_KEPT) | (v->cr0 & CR0_KEPT);
	v->cr3 = vmx_get(v, VMX_HOST_CR3);
	v->cr4 = vmx_get(v, VMX_HOST_CR4);
	v->dr7 = DR7_FIXED1;
	load_host_msrs(v, long_mode);
	load_host_segments(v, long_mode);
	vcpu_set_rflags(v, 2);
	v->rip = vmx_get(v, VMX_HOST_RIP);
	v->regs[RSP] = vmx_get(v, VMX_HOST_RSP);
	forget_guest_events(v);
	debug_step_done(v);
	vmx_set_irq_word(v);
	mmu_enter_root(v);
	vcpu_segment_changed(v);
	if (host_has_pae(v, long_mode)) {
		tlb_flush_context(v, false);
		if (mmu_load_pdptrs(v, v->cr3))
			abort_vmx(v, ABORT_HOST_PDPTES);
	}
	if (vmx_load_msrs(v, vmx_get(v, VMX_EXIT_MSR_LOAD_ADDRESS),
			  (u32)vmx_get(v, VMX_EXIT_MSR_LOAD_COUNT)))
		abort_vmx(v, ABORT_LOAD_MSRS);
	vcpu_attention(v, ATTENTION_IRQ);
	vcpu_resume(v);
}

void vmx_exit(struct soft_vcpu *v, const struct vmx_exit *x)
{
	bool nmi = (x->interruption & INFO_VALID) && INFO_TYPE(x->interruption) == INFO_NMI;

	vcpu_settle(v);
	record(v, x);
	save_registers(v);
	save_segments(v);
	save_rip_rflags(v, x);
	save_other(v, x);
	vmx_saw_exit(v, x->reason);
	if (vmx_store_msrs(v, vmx_get(v, VMX_EXIT_MSR_STORE_ADDRESS),
			   (u32)vmx_get(v, VMX_EXIT_MSR_STORE_COUNT))) {
		mmu_leave(v);
		v->vmx.nonroot = false;
		v->vmx.apic_page = 0;
		mmu_enter_root(v);
		vcpu_update_mode(v);
		forget_guest_events(v);
		abort_vmx(v, ABORT_SAVE_MSRS);
	}
	/* 28.5.5: NMIs are blocked behind one; a virtual blocking ends. */
	v->events.nmi_masked = nmi || (v->events.nmi_masked && !vmx_pin(v, PIN_VIRTUAL_NMIS));
	load_host(v);
}

void vmx_exit_insn(struct soft_vcpu *v, const struct insn *i, u32 reason, u64 qualification)
{
	vmx_exit(v, &(struct vmx_exit){
			.reason = reason, .length = i->length, .qualification = qualification});
}

/* 27.8: of the information fields only these two; no guest state is saved. */
void vmx_entry_failed(struct soft_vcpu *v, u32 reason, u64 qualification)
{
	vmx_set(v, VMX_EXIT_REASON, reason | REASON_ENTRY_FAILURE);
	vmx_set(v, VMX_EXIT_QUALIFICATION, qualification);
	vmx_saw_late_failure(v, reason);
	load_host(v);
}

static const u32 ept_reasons[] = {
    [EPT_VIOLATION] = REASON_EPT_VIOLATION,
    [EPT_MISCONFIGURATION] = REASON_EPT_MISCONFIGURATION,
    [EPT_LOG_FULL] = REASON_PML_FULL,
};

/* The exit that follows an EPT violation, a misconfiguration or a full log, 28.2.1. */
void vmx_ept_fault(struct soft_vcpu *v)
{
	const struct ept_fault *f = &v->ept_fault;
	u64 unblocking = v->vmx.nmi_unblocked && !v->events.in_delivery ? INFO_NMI_UNBLOCKING : 0;

	if (f->kind == EPT_APIC_ACCESS)
		vmx_apic_access_physical(v);
	vmx_exit(v, &(struct vmx_exit){
			.reason = ept_reasons[f->kind],
			.qualification =
			    f->kind == EPT_MISCONFIGURATION ? 0 : f->qualification | unblocking,
			.linear = f->qualification & EPT_QUAL_LINEAR ? f->linear : 0,
			.physical = f->gpa,
			.resume_flag = !v->events.in_delivery,
		    });
}
