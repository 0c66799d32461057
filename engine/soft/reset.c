/* The state after RESET and INIT: SDM 3A 9.1.1, table 9-1. Inside. */
#include "base/gp.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/msr.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/vmx/vmx.h"

#define APIC_BASE_RESET 0xfee00800ull
#define APIC_BASE_BSP	BIT(8)

static void reset_segments(struct soft_vcpu *v)
{
	for (u32 n = 0; n < 6; n++)
		v->seg[n] = (struct segment){.limit = 0xffff, .access = 0x93};
	v->seg[SEG_CS] = (struct segment){
	    .selector = 0xf000, .base = 0xffff0000, .limit = 0xffff, .access = 0x9b};
	v->ldtr = (struct segment){.limit = 0xffff, .access = 0x82};
	v->tr = (struct segment){.limit = 0xffff, .access = 0x8b};
	v->gdt = v->idt = (struct descriptor_table){.limit = 0xffff};
	v->cpl = 0;
}

static void reset_general(struct soft_vcpu *v)
{
	u32 leaf[4];

	for (u32 n = 0; n < 16; n++)
		v->regs[n] = 0;
	/* EDX: the processor's signature; family 6 until the monitor has set CPUID. */
	cpuid_query(v, 1, 0, leaf);
	v->regs[RDX] = v->cpuid_count ? leaf[CPUID_EAX] : 0x600;
	v->rip = 0xfff0;
	vcpu_set_rflags(v, 2);
}

static void reset_control(struct soft_vcpu *v, bool init)
{
	/* INIT keeps CD and NW; RESET sets both. */
	u64 cache = init ? v->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;

	v->cr0 = cache | CR0_ET;
	v->cr2 = v->cr3 = v->cr4 = v->cr8 = 0;
	for (u32 n = 0; n < 4; n++)
		v->dr[n] = v->pdptr[n] = 0;
	v->dr6 = DR6_FIXED1;
	v->dr7 = DR7_FIXED1;
	v->msr.efer = 0;
}

/* What INIT leaves as it is: x87 and vectors, XCR0, MSRs, the TSC. */
static void reset_kept_by_init(struct soft_vcpu *v)
{
	const struct soft_vcpu *first = v->vm ? v->vm->vcpus[0] : NULL;
	const u16 fcw = 0x37f;
	const u32 mxcsr = 0x1f80;

	gp_fill(v->fpu, 0, sizeof(v->fpu));
	gp_copy(v->fpu + FX_FCW, &fcw, sizeof(fcw));
	gp_copy(v->fpu + FX_MXCSR, &mxcsr, sizeof(mxcsr));
	v->xcr0 = XCR0_X87;
	msr_reset(v);
	v->msr.apic_base = APIC_BASE_RESET | (v->base.id == 0 ? APIC_BASE_BSP : 0);
	/* One reset line for all processors: their TSCs start together. */
	if (first && first != v)
		v->tsc_offset = first->tsc_offset;
	else
		v->tsc_offset -= (s64)guest_tsc(v);
}

static void reset_events(struct soft_vcpu *v)
{
	gp_fill(&v->events, 0, sizeof(v->events));
	v->int_shadow = 0;
	v->io_logged = v->io_cursor = 0;
}

/* Out of VMX operation. INIT comes here from outside of it alone (SDM 3C 24.8). */
static void reset_vmx(struct soft_vcpu *v)
{
	v->vmx = (struct vmx){.current = VMCS_NONE};
	vmx_set_irq_word(v);
	if (v->mmu != &v->mmus[MMU_NONROOT])
		return;
	shadow_pause(v);
	v->mmu = &v->mmus[MMU_ROOT];
	shadow_resume(v);
}

void vcpu_reset(struct soft_vcpu *v, bool init)
{
	if (!init)
		reset_kept_by_init(v);
	reset_control(v, init);
	reset_segments(v);
	reset_general(v);
	reset_events(v);
	reset_vmx(v);
	if (v->lapic)
		lapic_reset(v->lapic, init);
	/* SDM 3A 8.4.2: the bootstrap processor runs from the reset vector, others wait for a SIPI.
	 */
	if (v->msr.apic_base & APIC_BASE_BSP)
		v->mp_state = KVM_MP_STATE_RUNNABLE;
	else
		v->mp_state = init ? KVM_MP_STATE_INIT_RECEIVED : KVM_MP_STATE_UNINITIALIZED;

	tlb_forget(v);
	vcpu_segment_changed(v);
	vcpu_update_mode(v);
}
