/* VM entry: checks, the guest's state, MSRs, the event to inject. SDM 3C chapter 27. */
#include "debug/trace.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/features.h"
#include "engine/soft/timer.h"
#include "engine/soft/vmx/apic.h"
#include "engine/soft/vmx/capabilities.h"
#include "engine/soft/vmx/check.h"
#include "engine/soft/vmx/msr_list.h"

/* DR7 bits 12, 14 and 15 are loaded as 0, bit 10 as 1 (27.3.2.1). */
#define DR7_LOADED 0xffff2fffull

/* A host timer is not set anew for so much less, ns. */
#define TIMER_SLACK_NS 5000

/* ---- what the checks want to know ---- */

static bool guest_has_pae(const struct soft_vcpu *v)
{
	return (vmx_get(v, VMX_GUEST_CR0) & CR0_PG) && (vmx_get(v, VMX_GUEST_CR4) & CR4_PAE) &&
	       !(vmx_get(v, VMX_ENTRY_CONTROLS) & ENTRY_IA32E);
}

static u64 debugctl_known(void)
{
	return BIT(0) | BIT(1); /* LBR, BTF */
}

static void read_pdptes(struct soft_vcpu *v, u64 pdpte[4])
{
	u64 table = vmx_get(v, VMX_GUEST_CR3) & 0xffffffe0;

	for (u32 n = 0; n < 4; n++) {
		if (vmx_cpu2(v, CPU2_EPT))
			pdpte[n] = vmx_get(v, VMX_GUEST_PDPTE0 + n);
		else
			vmx_phys_read(v, table + n * 8, &pdpte[n], 8);
	}
}

static void gather(struct soft_vcpu *v, struct entry_facts *e)
{
	u64 link = vmx_get(v, VMX_VMCS_LINK_POINTER);

	e->vmcs = &v->vmx.vmcs;
	e->current = v->vmx.current;
	e->reserved_pa = v->reserved_pa;
	e->allowed_cpu2 = v->vmx.allowed_cpu2;
	e->cr4_fixed1 = v->vmx.cr4_known;
	e->efer_known = v->vmx.efer_known;
	e->debugctl_known = debugctl_known();
	e->long_mode = v->msr.efer & EFER_LMA;
	e->virtual_tpr = 0;
	if (vmx_cpu(v, CPU_TPR_SHADOW))
		vmx_phys_read(v, (vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) & PAGE_MASK) + VIRTUAL_TPR,
			      &e->virtual_tpr, 1);
	e->link_revision = link == VMCS_NONE ? 0 : vmx_region_revision(v, link & PAGE_MASK);
	if (guest_has_pae(v))
		read_pdptes(v, e->pdpte);
}

/* ---- loading the guest's state, 27.3.2 ---- */

static void load_segment_fields(const struct soft_vcpu *v, u32 n, struct segment *s)
{
	*s = (struct segment){
	    .selector = (u16)vmx_get(v, VMX_GUEST_ES_SELECTOR + n),
	    .base = vmx_get(v, VMX_GUEST_ES_BASE + n),
	    .limit = (u32)vmx_get(v, VMX_GUEST_ES_LIMIT + n),
	    .access = (u32)vmx_get(v, VMX_GUEST_ES_ACCESS + n) & (0xf0ff | SEG_UNUSABLE),
	};
}

static void load_segments(struct soft_vcpu *v)
{
	for (u32 n = 0; n < 6; n++)
		load_segment_fields(v, n, &v->seg[n]);
	load_segment_fields(v, 6, &v->ldtr);
	load_segment_fields(v, 7, &v->tr);
	v->gdt = (struct descriptor_table){.base = vmx_get(v, VMX_GUEST_GDTR_BASE),
					   .limit = (u16)vmx_get(v, VMX_GUEST_GDTR_LIMIT)};
	v->idt = (struct descriptor_table){.base = vmx_get(v, VMX_GUEST_IDTR_BASE),
					   .limit = (u16)vmx_get(v, VMX_GUEST_IDTR_LIMIT)};
	v->cpl = (u8)SEG_DPL(v->seg[SEG_SS].access);
}

static void load_efer(struct soft_vcpu *v, u64 entry)
{
	u64 ia32e = EFER_LMA | EFER_LME;

	if (entry & ENTRY_LOAD_EFER) {
		v->msr.efer = vmx_get(v, VMX_GUEST_EFER);
		return;
	}
	/* 27.3.2.1: LMA is the control; LME too, with paging. */
	if (!(vmx_get(v, VMX_GUEST_CR0) & CR0_PG))
		ia32e = EFER_LMA;
	v->msr.efer = (v->msr.efer & ~ia32e) | (entry & ENTRY_IA32E ? ia32e : 0);
}

static void load_registers(struct soft_vcpu *v)
{
	u64 entry = vmx_get(v, VMX_ENTRY_CONTROLS);

	v->cr0 = (vmx_get(v, VMX_GUEST_CR0) & ~CR0_KEPT) | (v->cr0 & CR0_KEPT);
	v->cr3 = vmx_get(v, VMX_GUEST_CR3);
	v->cr4 = vmx_get(v, VMX_GUEST_CR4);
	if (entry & ENTRY_LOAD_DEBUG) {
		v->dr7 = (vmx_get(v, VMX_GUEST_DR7) & DR7_LOADED) | DR7_FIXED1;
		v->msr.debugctl = vmx_get(v, VMX_GUEST_DEBUGCTL);
	}
	v->msr.sysenter_cs = vmx_get(v, VMX_GUEST_SYSENTER_CS);
	v->msr.sysenter_esp = vmx_get(v, VMX_GUEST_SYSENTER_ESP);
	v->msr.sysenter_eip = vmx_get(v, VMX_GUEST_SYSENTER_EIP);
	if (entry & ENTRY_LOAD_PAT)
		v->msr.pat = vmx_get(v, VMX_GUEST_PAT);
	load_efer(v, entry);
	v->rip = vmx_get(v, VMX_GUEST_RIP);
	v->regs[RSP] = vmx_get(v, VMX_GUEST_RSP);
	vcpu_set_rflags(v, vmx_get(v, VMX_GUEST_RFLAGS));
	v->keep_rf = (v->rflags_sys & RFLAGS_RF) != 0;
}

/* 27.7.7 */
static bool tpr_below(const struct soft_vcpu *v, const struct entry_facts *e)
{
	return vmx_cpu(v, CPU_TPR_SHADOW) && vmx_cpu2(v, CPU2_APIC_ACCESSES) &&
	       !vmx_cpu2(v, CPU2_VIRTUAL_INTERRUPTS) && v->vmx.activity <= ACTIVITY_HLT &&
	       e->virtual_tpr >> 4 < vmx_get(v, VMX_TPR_THRESHOLD);
}

/* 27.6, 27.7: what holds events back, and what is pending. */
static void load_events(struct soft_vcpu *v, const struct entry_facts *e)
{
	u64 blocked = vmx_get(v, VMX_GUEST_INTERRUPTIBILITY);
	u64 pending = vmx_get(v, VMX_GUEST_PENDING_DEBUG);
	u64 info = vmx_get(v, VMX_ENTRY_INTERRUPTION_INFO);
	bool debug = pending & (PENDING_ENABLED_BREAKPOINT | PENDING_BS);

	v->int_shadow = blocked & BLOCKED_MOV_SS ? 2 : blocked & BLOCKED_STI ? 1 : 0;
	v->events.nmi_masked = blocked & BLOCKED_NMI;
	v->events.debug = debug ? pending & (0xf | DR6_BS) : 0;
	v->events.debug_fault = false;
	v->vmx.activity = (u32)vmx_get(v, VMX_GUEST_ACTIVITY);
	v->mp_state =
	    v->vmx.activity == ACTIVITY_ACTIVE ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_HALTED;
	v->vmx.inject_info = info & INFO_VALID ? (u32)info : 0;
	v->vmx.inject_error = (u32)vmx_get(v, VMX_ENTRY_EXCEPTION_ERROR);
	v->vmx.inject_length = (u32)vmx_get(v, VMX_ENTRY_INSTRUCTION_LENGTH);
	v->vmx.trap_pending = false;
	v->vmx.tpr_below = tpr_below(v, e);
	v->vmx.apic_written = 0;
	v->vmx.vectoring_info = 0;
	v->vmx.pause_last = 0;
	/* An event that is injected ends shadows, and what debug exceptions were pending (27.6.1,
	 * 27.7.3). */
	if (v->vmx.inject_info && INFO_TYPE(info) != INFO_OTHER) {
		v->int_shadow = 0;
		v->events.debug = 0;
	}
	vmx_virtual_interrupts_enter(v);
}

/* The host's timer for the preemption timer, unless it fires before anyway: a system call. */
static void start_timer(struct soft_vcpu *v)
{
	if (!vmx_pin(v, PIN_PREEMPTION_TIMER))
		return;
	v->vmx.timer_end = guest_tsc(v) + (vmx_get(v, VMX_PREEMPTION_TIMER) << TIMER_SHIFT);
	u64 deadline = vmx_timer_deadline(v);
	if (!v->timer_deadline || deadline + TIMER_SLACK_NS < v->timer_deadline)
		timer_arm(v, deadline);
}

static _Noreturn void enter_guest(struct soft_vcpu *v, bool launch, const struct entry_facts *e)
{
	const struct nested_paging by = {
	    .eptp = vmx_cpu2(v, CPU2_EPT) ? vmx_get(v, VMX_EPT_POINTER) : 0,
	    .vpid = vmx_cpu2(v, CPU2_VPID) ? (u16)vmx_get(v, VMX_VPID) : 0,
	    .mbec = vmx_cpu2(v, CPU2_MODE_BASED_EPT),
	    .logs = vmx_cpu2(v, CPU2_PML),
	};

	mmu_leave(v);
	v->vmx.nonroot = true;
	load_registers(v);
	load_segments(v);
	if (guest_has_pae(v))
		for (u32 n = 0; n < 4; n++)
			v->pdptr[n] = e->pdpte[n];
	mmu_enter_nonroot(v, &by);
	vmx_apic_page_enter(v);
	vcpu_segment_changed(v);
	u32 failed = vmx_load_msrs(v, vmx_get(v, VMX_ENTRY_MSR_LOAD_ADDRESS),
				   (u32)vmx_get(v, VMX_ENTRY_MSR_LOAD_COUNT));
	if (failed) {
		vmx_saw_failure(v, "MSR area", VMX_ENTRY_MSR_LOAD_ADDRESS,
				"an entry cannot be loaded");
		vmx_entry_failed(v, REASON_ENTRY_MSR_LOADING, failed);
	}
	if (launch)
		v->vmx.launched = true;
	load_events(v, e);
	vmx_set_irq_word(v);
	start_timer(v);
	vmx_saw_entry(v, launch);
	debug_step_done(v);
	vcpu_attention(v, ATTENTION_IRQ);
	vcpu_resume(v);
}

u32 vmx_enter(struct soft_vcpu *v, bool launch)
{
	struct entry_failure failure;
	struct entry_facts e;

	gather(v, &e);
	if (!vmx_check_controls(&e, &failure)) {
		vmx_saw_failure(v, "controls", failure.field, failure.what);
		return ERROR_ENTRY_CONTROLS;
	}
	if (!vmx_check_host(&e, &failure)) {
		vmx_saw_failure(v, "host state", failure.field, failure.what);
		return ERROR_ENTRY_HOST_STATE;
	}
	if (!vmx_check_guest(&e, &failure)) {
		vmx_saw_failure(v, "guest state", failure.field, failure.what);
		vmx_entry_failed(v, REASON_ENTRY_GUEST_STATE, failure.qualification);
	}
	enter_guest(v, launch, &e);
}
