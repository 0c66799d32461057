/*
 * KVM's register structures over the soft vCPU: Documentation/virt/kvm/api.rst, the calls named on
 * each function. Outside: the guest's vector state is in v->fpu.
 */
#include <errno.h>
#include <string.h>

#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/state.h"
#include "engine/soft/system/xstate.h"

static struct soft_vcpu *soft(struct engine_vcpu *vcpu)
{
	return container_of(vcpu, struct soft_vcpu, base);
}

/* Real mode 0, virtual-8086 mode 3, else the DPL of SS (SDM 3C 24.4.1, as VMX has it). */
static void update_cpl(struct soft_vcpu *v)
{
	if (!(v->cr0 & CR0_PE))
		v->cpl = 0;
	else if (v->rflags_sys & RFLAGS_VM)
		v->cpl = 3;
	else
		v->cpl = SEG_DPL(v->seg[SEG_SS].access);
}

/* ---- KVM_GET_REGS, KVM_SET_REGS ---- */

/* kvm_regs names them in another order than the encoding. */
/* clang-format off */
#define GENERAL_REGS(X)                                                                            \
	X(rax, RAX)                                                                                \
	X(rcx, RCX)                                                                                \
	X(rdx, RDX) X(rbx, RBX) X(rsp, RSP) X(rbp, RBP) X(rsi, RSI) X(rdi, RDI) X(r8, R8)          \
	    X(r9, R9) X(r10, R10) X(r11, R11) X(r12, R12) X(r13, R13) X(r14, R14) X(r15, R15)
/* clang-format on */

int soft_get_regs(struct engine_vcpu *vcpu, struct kvm_regs *regs)
{
	struct soft_vcpu *v = soft(vcpu);

#define X(member, number) regs->member = v->regs[number];
	GENERAL_REGS(X)
#undef X
	regs->rip = v->rip;
	regs->rflags = vcpu_rflags(v);
	return 0;
}

int soft_set_regs(struct engine_vcpu *vcpu, const struct kvm_regs *regs)
{
	struct soft_vcpu *v = soft(vcpu);

#define X(member, number) v->regs[number] = regs->member;
	GENERAL_REGS(X)
#undef X
	v->rip = regs->rip;
	vcpu_set_rflags(v, regs->rflags);
	update_cpl(v);
	vcpu_segment_changed(v);
	vcpu_update_mode(v);
	vcpu_irq_window(v);
	return 0;
}

/* ---- KVM_GET_SREGS, KVM_SET_SREGS ---- */

static struct kvm_segment get_segment(const struct segment *s)
{
	bool unusable = s->access & SEG_UNUSABLE;

	return (struct kvm_segment){
	    .base = s->base,
	    .limit = s->limit,
	    .selector = s->selector,
	    .type = SEG_TYPE(s->access),
	    .s = !!(s->access & SEG_S),
	    .dpl = SEG_DPL(s->access),
	    .present = (s->access & SEG_P) && !unusable,
	    .avl = !!(s->access & SEG_AVL),
	    .l = !!(s->access & SEG_L),
	    .db = !!(s->access & SEG_DB),
	    .g = !!(s->access & SEG_G),
	    .unusable = unusable,
	};
}

static struct segment set_segment(const struct kvm_segment *s)
{
	u32 access = (s->type & 0xf) | (s->dpl & 3) << 5;

	if (s->s)
		access |= SEG_S;
	if (s->present)
		access |= SEG_P;
	if (s->avl)
		access |= SEG_AVL;
	if (s->l)
		access |= SEG_L;
	if (s->db)
		access |= SEG_DB;
	if (s->g)
		access |= SEG_G;
	if (s->unusable || !s->present)
		access |= SEG_UNUSABLE;
	return (struct segment){
	    .base = s->base, .limit = s->limit, .access = access, .selector = s->selector};
}

int soft_get_sregs(struct engine_vcpu *vcpu, struct kvm_sregs *sregs)
{
	struct soft_vcpu *v = soft(vcpu);
	const struct pending_events *ev = &v->events;

	memset(sregs, 0, sizeof(*sregs));
	sregs->es = get_segment(&v->seg[SEG_ES]);
	sregs->cs = get_segment(&v->seg[SEG_CS]);
	sregs->ss = get_segment(&v->seg[SEG_SS]);
	sregs->ds = get_segment(&v->seg[SEG_DS]);
	sregs->fs = get_segment(&v->seg[SEG_FS]);
	sregs->gs = get_segment(&v->seg[SEG_GS]);
	sregs->tr = get_segment(&v->tr);
	sregs->ldt = get_segment(&v->ldtr);
	sregs->gdt.base = v->gdt.base;
	sregs->gdt.limit = v->gdt.limit;
	sregs->idt.base = v->idt.base;
	sregs->idt.limit = v->idt.limit;
	sregs->cr0 = v->cr0;
	/* KVM writes CR2 when it queues a #PF, not when it delivers it. */
	bool page_fault = ev->exception && ev->exception_vector == EXC_PF;
	sregs->cr2 = page_fault ? ev->exception_cr2 : v->cr2;
	sregs->cr3 = v->cr3;
	sregs->cr4 = v->cr4;
	sregs->cr8 = v->lapic ? lapic_get_tpr(v) : v->cr8;
	sregs->efer = v->msr.efer;
	sregs->apic_base = v->msr.apic_base;
	if (ev->user_interrupt)
		sregs->interrupt_bitmap[ev->user_vector / 64] |= BIT(ev->user_vector % 64);
	return 0;
}

#define CR4_HANDLED                                                                                \
	(CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |  \
	 CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE |         \
	 CR4_SMEP | CR4_SMAP)
#define EFER_HANDLED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

/* States no sequence of instructions reaches (SDM 3A 2.5, 9.8.5; 3C 26.3.1.1). */
static bool possible(const struct soft_vcpu *v, const struct kvm_sregs *s)
{
	u64 cr4_handled = CR4_HANDLED | (v->vm->vmx ? CR4_VMXE : 0);

	if (s->cr0 >> 32 || s->cr4 & ~cr4_handled || s->efer & ~EFER_HANDLED || s->cr8 > 15)
		return false;
	if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
		return false;
	if ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD))
		return false;
	if ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)) {
		if (!(s->cr4 & CR4_PAE) || !(s->efer & EFER_LMA))
			return false;
		if (s->cr3 & (v->reserved_pa | 0xfff0000000000000))
			return false;
		if (s->cs.l && s->cs.db)
			return false;
	} else {
		if ((s->efer & EFER_LMA) || (s->cr4 & CR4_PCIDE))
			return false;
		/* CS.L may be set: legacy modes load it and ignore it (SDM 3A 3.4.5, 9.8.5). */
	}
	return is_canonical(s->gdt.base) && is_canonical(s->idt.base) && is_canonical(s->fs.base) &&
	       is_canonical(s->gs.base) && is_canonical(s->tr.base) && is_canonical(s->ldt.base);
}

static void set_segments(struct soft_vcpu *v, const struct kvm_sregs *s)
{
	v->seg[SEG_ES] = set_segment(&s->es);
	v->seg[SEG_CS] = set_segment(&s->cs);
	v->seg[SEG_SS] = set_segment(&s->ss);
	v->seg[SEG_DS] = set_segment(&s->ds);
	v->seg[SEG_FS] = set_segment(&s->fs);
	v->seg[SEG_GS] = set_segment(&s->gs);
	v->tr = set_segment(&s->tr);
	v->ldtr = set_segment(&s->ldt);
	v->gdt = (struct descriptor_table){.base = s->gdt.base, .limit = s->gdt.limit};
	v->idt = (struct descriptor_table){.base = s->idt.base, .limit = s->idt.limit};
}

static void set_user_interrupt(struct soft_vcpu *v, const struct kvm_sregs *s)
{
	v->events.user_interrupt = false;
	for (u32 vector = 0; vector < KVM_NR_INTERRUPTS; vector++) {
		if (!(s->interrupt_bitmap[vector / 64] & BIT(vector % 64)))
			continue;
		v->events.user_interrupt = true;
		v->events.user_vector = (u8)vector;
		vcpu_attention(v, ATTENTION_IRQ);
		break;
	}
}

int soft_set_sregs(struct engine_vcpu *vcpu, const struct kvm_sregs *sregs)
{
	struct soft_vcpu *v = soft(vcpu);

	if (!possible(v, sregs))
		return -EINVAL;
	if (sregs->apic_base != v->msr.apic_base && msr_write(v, 0x1b, sregs->apic_base, true))
		return -EINVAL;

	set_segments(v, sregs);
	v->cr0 = sregs->cr0 | CR0_ET;
	v->cr2 = sregs->cr2;
	if (v->events.exception && v->events.exception_vector == EXC_PF)
		v->events.exception_cr2 = sregs->cr2;
	v->cr3 = sregs->cr3;
	v->cr4 = sregs->cr4;
	v->msr.efer = sregs->efer;
	v->cr8 = sregs->cr8;
	if (v->lapic)
		lapic_set_tpr(v, sregs->cr8);
	set_user_interrupt(v, sregs);

	/* Bad PDPTEs are not the caller's error, as in KVM: the guest's memory may be filled in
	 * later. */
	if ((v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->msr.efer & EFER_LMA))
		mmu_load_pdptrs(v, v->cr3);
	update_cpl(v);
	tlb_flush(v, false);
	vcpu_segment_changed(v);
	vcpu_update_mode(v);
	vcpu_irq_window(v);
	return 0;
}

/* ---- KVM_GET_FPU, KVM_SET_FPU, KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS, KVM_SET_XCRS ---- */

static u64 in_use(const struct soft_vcpu *v)
{
	u64 bits;

	memcpy(&bits, v->fpu + XSAVE_BV, sizeof(bits));
	return bits & v->layout.offered;
}

/*
 * The guest's state as a standard-format image: components that XSTATE_BV calls unused are spelled
 * out, and no host address is in it.
 */
static void export_image(struct soft_vcpu *v, u8 image[XSAVE_AREA_SIZE])
{
	const u16 fcw = 0x37f;
	u64 used = in_use(v), host_rip;
	u32 mxcsr;

	memcpy(image, v->fpu, XSAVE_AREA_SIZE);
	memset(image + FX_END, 0, XSAVE_BV - FX_END);
	memset(image + XSAVE_BV, 0, XSAVE_HEADER_SIZE);
	memcpy(image + XSAVE_BV, &used, sizeof(used));
	memset(image + FX_FOP, 0, FX_MXCSR - FX_FOP);
	if (used & XCR0_X87) {
		memcpy(&host_rip, v->fpu + FX_FIP, sizeof(host_rip));
		u64 rip = guest_rip_of_host(v, host_rip);
		memcpy(image + FX_FIP, &rip, sizeof(rip));
	} else {
		memset(image, 0, FX_FOP);
		memcpy(image + FX_FCW, &fcw, sizeof(fcw));
		memset(image + FX_ST, 0, FX_XMM - FX_ST);
	}
	memcpy(&mxcsr, image + FX_MXCSR, sizeof(mxcsr));
	if (!(used & (XCR0_SSE | XCR0_AVX)) && !mxcsr)
		mxcsr = 0x1f80;
	memcpy(image + FX_MXCSR, &mxcsr, sizeof(mxcsr));
	if (!(used & XCR0_SSE))
		memset(image + FX_XMM, 0, FX_END - FX_XMM);
	for_each_section(n, v->layout.offered & ~used)
	{
		memset(image + xstate_section_offset(&v->layout, 0, n), 0, xstate_section_size(n));
	}
}

/* Bits of MXCSR that loading may set (SDM 1 11.6.6). */
static u32 mxcsr_mask(void)
{
	_Alignas(16) u8 area[XSAVE_LEGACY_SIZE] = {0};
	u32 mask;

	__asm__ volatile("fxsave64 %0" : "=m"(area));
	memcpy(&mask, area + FX_MXCSR_MASK, sizeof(mask));
	return mask ? mask : 0xffbf;
}

int soft_get_fpu(struct engine_vcpu *vcpu, struct kvm_fpu *fpu)
{
	u8 image[XSAVE_AREA_SIZE];

	export_image(soft(vcpu), image);
	memset(fpu, 0, sizeof(*fpu));
	memcpy(fpu->fpr, image + FX_ST, sizeof(fpu->fpr));
	memcpy(&fpu->fcw, image + FX_FCW, sizeof(fpu->fcw));
	memcpy(&fpu->fsw, image + FX_FSW, sizeof(fpu->fsw));
	fpu->ftwx = image[FX_FTW];
	memcpy(&fpu->last_opcode, image + FX_FOP, sizeof(fpu->last_opcode));
	memcpy(&fpu->last_ip, image + FX_FIP, sizeof(fpu->last_ip));
	memcpy(&fpu->last_dp, image + FX_FDP, sizeof(fpu->last_dp));
	memcpy(fpu->xmm, image + FX_XMM, sizeof(fpu->xmm));
	memcpy(&fpu->mxcsr, image + FX_MXCSR, sizeof(fpu->mxcsr));
	return 0;
}

int soft_set_fpu(struct engine_vcpu *vcpu, const struct kvm_fpu *fpu)
{
	struct soft_vcpu *v = soft(vcpu);
	u64 used = in_use(v) | XCR0_X87 | XCR0_SSE;

	if (fpu->mxcsr & ~mxcsr_mask())
		return -EINVAL;
	memcpy(v->fpu + FX_ST, fpu->fpr, sizeof(fpu->fpr));
	memcpy(v->fpu + FX_FCW, &fpu->fcw, sizeof(fpu->fcw));
	memcpy(v->fpu + FX_FSW, &fpu->fsw, sizeof(fpu->fsw));
	v->fpu[FX_FTW] = fpu->ftwx;
	v->fpu[FX_FTW + 1] = 0;
	memcpy(v->fpu + FX_FOP, &fpu->last_opcode, sizeof(fpu->last_opcode));
	memcpy(v->fpu + FX_FIP, &fpu->last_ip, sizeof(fpu->last_ip));
	memcpy(v->fpu + FX_FDP, &fpu->last_dp, sizeof(fpu->last_dp));
	memcpy(v->fpu + FX_XMM, fpu->xmm, sizeof(fpu->xmm));
	memcpy(v->fpu + FX_MXCSR, &fpu->mxcsr, sizeof(fpu->mxcsr));
	memcpy(v->fpu + XSAVE_BV, &used, sizeof(used));
	return 0;
}

int soft_get_xsave(struct engine_vcpu *vcpu, struct kvm_xsave *xsave)
{
	memset(xsave, 0, sizeof(*xsave));
	export_image(soft(vcpu), (u8 *)xsave->region);
	return 0;
}

/* api.rst KVM_SET_XSAVE: the standard format, with XSTATE_BV within what the host supports. */
int soft_set_xsave(struct engine_vcpu *vcpu, const struct kvm_xsave *xsave)
{
	struct soft_vcpu *v = soft(vcpu);
	const u8 *image = (const u8 *)xsave->region;
	u64 used, layout;
	u32 mxcsr;

	memcpy(&used, image + XSAVE_BV, sizeof(used));
	memcpy(&layout, image + XSAVE_COMP_BV, sizeof(layout));
	memcpy(&mxcsr, image + FX_MXCSR, sizeof(mxcsr));
	if ((used & ~v->layout.offered) || layout || (mxcsr & ~mxcsr_mask()))
		return -EINVAL;
	memset(v->fpu, 0, sizeof(v->fpu));
	memcpy(v->fpu, image, FX_END);
	memcpy(v->fpu + XSAVE_BV, &used, sizeof(used));
	for_each_section(n, v->layout.offered)
	{
		u32 at = xstate_section_offset(&v->layout, 0, n);
		memcpy(v->fpu + at, image + at, xstate_section_size(n));
	}
	return 0;
}

int soft_get_xcrs(struct engine_vcpu *vcpu, struct kvm_xcrs *xcrs)
{
	memset(xcrs, 0, sizeof(*xcrs));
	xcrs->nr_xcrs = 1;
	xcrs->xcrs[0].value = soft(vcpu)->xcr0;
	return 0;
}

int soft_set_xcrs(struct engine_vcpu *vcpu, const struct kvm_xcrs *xcrs)
{
	if (xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags)
		return -EINVAL;
	for (u32 n = 0; n < xcrs->nr_xcrs; n++)
		if (xcrs->xcrs[n].xcr == 0 && !set_xcr0(soft(vcpu), xcrs->xcrs[n].value))
			return -EINVAL;
	return 0;
}

/* ---- KVM_GET_MSRS, KVM_SET_MSRS, KVM_SET_CPUID2 ---- */

int soft_get_msrs(struct engine_vcpu *vcpu, struct kvm_msrs *msrs)
{
	u32 n;

	for (n = 0; n < msrs->nmsrs; n++) {
		u64 value;
		if (msr_read(soft(vcpu), msrs->entries[n].index, &value, true))
			break;
		msrs->entries[n].data = value;
	}
	return (int)n;
}

int soft_set_msrs(struct engine_vcpu *vcpu, const struct kvm_msrs *msrs)
{
	u32 n;

	for (n = 0; n < msrs->nmsrs; n++)
		if (msr_write(soft(vcpu), msrs->entries[n].index, msrs->entries[n].data, true))
			break;
	return (int)n;
}

int soft_set_cpuid(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
	struct soft_vcpu *v = soft(vcpu);
	u32 leaf[4];

	if (cpuid->nent > CPUID_MAX)
		return -E2BIG;
	memcpy(v->cpuid, cpuid->entries, cpuid->nent * sizeof(v->cpuid[0]));
	v->cpuid_count = cpuid->nent;

	/* MAXPHYADDR; 36 where leaf 80000008H is missing (SDM 3A 4.1.4). */
	cpuid_query(v, 0x80000000, 0, leaf);
	u32 bits = 36;
	if (leaf[CPUID_EAX] >= 0x80000008) {
		cpuid_query(v, 0x80000008, 0, leaf);
		bits = leaf[CPUID_EAX] & 0xff;
	}
	if (bits < 32 || bits > 52)
		bits = 36;
	/* Who is told of kvmclock (cpuid.rst: leaf 40000001H, EAX bits 0 and 3) may turn it on. */
	cpuid_query(v, 0x40000001, 0, leaf);
	if (!v->tsc_khz && (leaf[CPUID_EAX] & (BIT(0) | BIT(3))))
		v->tsc_khz = clock_tsc_khz();
	v->reserved_pa = (BIT(52) - 1) & ~(BIT(bits) - 1);
	tlb_forget(v);
	vcpu_update_mode(v);
	return 0;
}

/* ---- KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS ---- */

/* Our int_shadow and KVM's flags number the two shadows the other way round. */
static u8 shadow_to_kvm(u8 shadow)
{
	return (shadow & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
	       (shadow & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0);
}

static u8 shadow_from_kvm(u8 shadow)
{
	return (shadow & KVM_X86_SHADOW_INT_STI ? 1 : 0) |
	       (shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : 0);
}

int soft_get_events(struct engine_vcpu *vcpu, struct kvm_vcpu_events *events)
{
	struct soft_vcpu *v = soft(vcpu);
	const struct pending_events *ev = &v->events;

	memset(events, 0, sizeof(*events));
	if (ev->soft_interrupt) {
		events->interrupt.injected = 1;
		events->interrupt.soft = 1;
		events->interrupt.nr = ev->exception_vector;
	} else if (ev->exception) {
		events->exception.injected = 1;
		events->exception.nr = ev->exception_vector;
		events->exception.has_error_code = ev->exception_has_error;
		events->exception.error_code = ev->exception_error;
	}
	if (ev->user_interrupt && !events->interrupt.injected) {
		events->interrupt.injected = 1;
		events->interrupt.nr = ev->user_vector;
	}
	events->interrupt.shadow = shadow_to_kvm(v->int_shadow);
	events->nmi.pending = (u8)atomic_load(&ev->nmi);
	events->nmi.masked = ev->nmi_masked;
	events->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	return 0;
}

int soft_set_events(struct engine_vcpu *vcpu, const struct kvm_vcpu_events *events)
{
	struct soft_vcpu *v = soft(vcpu);
	struct pending_events *ev = &v->events;

	/* api.rst: an exception's number is below 32, and is not that of NMI. */
	bool exception = events->exception.injected || events->exception.pending;
	if (exception && (events->exception.nr > 31 || events->exception.nr == EXC_NMI))
		return -EINVAL;

	ev->exception = exception;
	ev->soft_interrupt = false;
	if (exception) {
		ev->exception_vector = events->exception.nr;
		ev->exception_has_error = events->exception.has_error_code;
		ev->exception_error = events->exception.error_code;
		ev->exception_cr2 = v->cr2;
	}
	ev->user_interrupt = events->interrupt.injected && !events->interrupt.soft;
	ev->user_vector = events->interrupt.nr;
	if (events->interrupt.injected && events->interrupt.soft && !exception) {
		ev->soft_interrupt = true;
		ev->soft_trap = false;
		ev->exception_vector = events->interrupt.nr;
		ev->exception_has_error = false;
		/* The call gives no length. INT3 and INTO are one byte long, INT n two. */
		ev->soft_length =
		    ev->exception_vector == EXC_BP || ev->exception_vector == EXC_OF ? 1 : 2;
	}
	if (events->flags & KVM_VCPUEVENT_VALID_SHADOW)
		v->int_shadow = shadow_from_kvm(events->interrupt.shadow);
	u32 nmi = events->nmi.injected;
	if (events->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		nmi += events->nmi.pending;
	else
		nmi += atomic_load(&ev->nmi);
	atomic_store(&ev->nmi, nmi < 2 ? nmi : 2);
	ev->nmi_masked = events->nmi.masked && !events->nmi.injected;
	if (events->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		ev->triple_fault = events->triple_fault.pending;
	vcpu_attention(v, ATTENTION_IRQ);
	return 0;
}

/* ---- KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_TRANSLATE ----
 */

int soft_get_debugregs(struct engine_vcpu *vcpu, struct kvm_debugregs *dregs)
{
	struct soft_vcpu *v = soft(vcpu);

	memset(dregs, 0, sizeof(*dregs));
	for (u32 n = 0; n < 4; n++)
		dregs->db[n] = v->dr[n];
	dregs->dr6 = v->dr6;
	dregs->dr7 = v->dr7;
	return 0;
}

int soft_set_debugregs(struct engine_vcpu *vcpu, const struct kvm_debugregs *dregs)
{
	struct soft_vcpu *v = soft(vcpu);

	if (dregs->flags || dregs->dr6 >> 32 || dregs->dr7 >> 32)
		return -EINVAL;
	set_dr(v, 7, dregs->dr7);
	set_dr(v, 6, dregs->dr6);
	for (u32 n = 0; n < 4; n++)
		set_dr(v, n, dregs->db[n]);
	return 0;
}

int soft_get_mp_state(struct engine_vcpu *vcpu, struct kvm_mp_state *state)
{
	state->mp_state = soft(vcpu)->mp_state;
	return 0;
}

int soft_set_mp_state(struct engine_vcpu *vcpu, const struct kvm_mp_state *state)
{
	struct soft_vcpu *v = soft(vcpu);

	switch (state->mp_state) {
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		/* Waiting for a start-up IPI is the LAPIC's: without one there is none to come. */
		if (!v->lapic)
			return -EINVAL;
		break;
	case KVM_MP_STATE_RUNNABLE:
	case KVM_MP_STATE_HALTED:
		break;
	default:
		return -EINVAL;
	}
	v->mp_state = state->mp_state;
	vcpu_attention(v, ATTENTION_IRQ);
	return 0;
}

int soft_translate(struct engine_vcpu *vcpu, struct kvm_translation *tr)
{
	struct soft_vcpu *v = soft(vcpu);
	struct walk w = {.linear = tr->linear_address};
	bool mapped = mmu_walk(v, &w, ACCESS_READ, MMU_KERNEL_AC, false) == 0;

	tr->valid = mapped;
	tr->physical_address = mapped ? w.gpa : ~0ull;
	tr->writeable = mapped && w.writable;
	tr->usermode = mapped && w.user;
	return 0;
}
