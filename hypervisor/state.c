// SPDX-License-Identifier: MIT OR GPL-2.0
/* A vCPU's registers for its owner: KVM's structures to and from the VMCS. The vCPU is loaded. */
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/processor-flags.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

/* The fields of segment registers follow each other (SDM 3D B). */
static unsigned long field(unsigned long of_es, enum segment segment)
{
	return of_es + 2 * segment;
}

void state_get_regs(struct vcpu *v, struct kvm_regs *regs)
{
	const unsigned long *r = v->registers.r;

	*regs = (struct kvm_regs){
	    .rax = r[RAX],
	    .rbx = r[RBX],
	    .rcx = r[RCX],
	    .rdx = r[RDX],
	    .rsi = r[RSI],
	    .rdi = r[RDI],
	    .rsp = field_get(v, FIELD_RSP),
	    .rbp = r[RBP],
	    .r8 = r[8],
	    .r9 = r[9],
	    .r10 = r[10],
	    .r11 = r[11],
	    .r12 = r[12],
	    .r13 = r[13],
	    .r14 = r[14],
	    .r15 = r[15],
	    .rip = field_get(v, FIELD_RIP),
	    .rflags = field_get(v, FIELD_RFLAGS),
	};
}

/* SDM 3A 2.3: bit 1 is 1, bits 3, 5, 15 and all from 22 on are 0. */
#define RFLAGS_RESERVED (~0x3fffffull | BIT(3) | BIT(5) | BIT(15))

void state_put_rflags(struct vcpu *v, u64 rflags)
{
	field_put(v, FIELD_RFLAGS, (rflags & ~RFLAGS_RESERVED) | X86_EFLAGS_FIXED);
}

/* In a shadow of STI or MOV SS an entry wants a single step to be pending if TF is set, and not if
 * it is not (SDM 3C 26.3.1.5). What owners save and restore has no room for that. */
static void agree_on_step(struct vcpu *v)
{
	u64 pending = field_get(v, FIELD_PENDING_DEBUG) & ~(u64)DR_STEP;

	if (!(field_get(v, FIELD_BLOCKING) & (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS)))
		return;
	if ((field_get(v, FIELD_RFLAGS) & X86_EFLAGS_TF) &&
	    !(vmcs_read(GUEST_IA32_DEBUGCTL) & DEBUGCTLMSR_BTF))
		pending |= DR_STEP;
	field_put(v, FIELD_PENDING_DEBUG, pending);
}

void state_set_regs(struct vcpu *v, const struct kvm_regs *regs)
{
	unsigned long *r = v->registers.r;

	r[RAX] = regs->rax;
	r[RBX] = regs->rbx;
	r[RCX] = regs->rcx;
	r[RDX] = regs->rdx;
	r[RSI] = regs->rsi;
	r[RDI] = regs->rdi;
	field_put(v, FIELD_RSP, regs->rsp);
	r[RBP] = regs->rbp;
	r[8] = regs->r8;
	r[9] = regs->r9;
	r[10] = regs->r10;
	r[11] = regs->r11;
	r[12] = regs->r12;
	r[13] = regs->r13;
	r[14] = regs->r14;
	r[15] = regs->r15;
	field_put(v, FIELD_RIP, regs->rip);
	state_put_rflags(v, regs->rflags);
	v->events.exception.valid = false;
	v->debug.stepped = false;
	agree_on_step(v);
}

u64 state_segment_base(enum segment segment)
{
	return vmcs_read(field(GUEST_ES_BASE, segment));
}

u16 state_segment_selector(enum segment segment)
{
	return vmcs_read(field(GUEST_ES_SELECTOR, segment));
}

void state_get_segment(enum segment segment, struct kvm_segment *s)
{
	u32 ar = vmcs_read(field(GUEST_ES_AR_BYTES, segment));

	*s = (struct kvm_segment){
	    .base = vmcs_read(field(GUEST_ES_BASE, segment)),
	    .limit = vmcs_read(field(GUEST_ES_LIMIT, segment)),
	    .selector = vmcs_read(field(GUEST_ES_SELECTOR, segment)),
	    .type = ar & VMX_AR_TYPE_MASK,
	    .s = !!(ar & VMX_AR_S_MASK),
	    .dpl = VMX_AR_DPL(ar),
	    .present = !!(ar & VMX_AR_P_MASK) && !(ar & VMX_AR_UNUSABLE_MASK),
	    .avl = (ar >> 12) & 1,
	    .l = !!(ar & VMX_AR_L_MASK),
	    .db = !!(ar & VMX_AR_DB_MASK),
	    .g = !!(ar & VMX_AR_G_MASK),
	    .unusable = !!(ar & VMX_AR_UNUSABLE_MASK),
	};
}

/*
 * The processor checks at each entry that a segment is as loading it would have left it (SDM
 * 3C 26.3.1.2). Owners do not all know: a descriptor's accessed bit and the busy bit of TR are set
 * for them.
 */
void state_set_segment(enum segment segment, const struct kvm_segment *s)
{
	u32 ar = (s->type & 0xf) | (s->s & 1) << 4 | (s->dpl & 3) << 5 | (s->present & 1) << 7 |
		 (s->avl & 1) << 12 | (s->l & 1) << 13 | (s->db & 1) << 14 | (s->g & 1) << 15;

	if (s->unusable || !s->present)
		ar |= VMX_AR_UNUSABLE_MASK;
	else if (segment == SEGMENT_TR)
		ar |= 2; /* available to busy */
	else if (segment != SEGMENT_LDTR)
		ar |= VMX_AR_TYPE_ACCESSES_MASK;
	/* TR is never unusable (SDM 3C 26.3.1.2). */
	if (segment == SEGMENT_TR && (ar & VMX_AR_UNUSABLE_MASK))
		ar = VMX_AR_TYPE_BUSY_32_TSS | VMX_AR_P_MASK;
	vmcs_write(field(GUEST_ES_BASE, segment), s->base);
	vmcs_write(field(GUEST_ES_LIMIT, segment), s->limit);
	vmcs_write(field(GUEST_ES_SELECTOR, segment), s->selector);
	vmcs_write(field(GUEST_ES_AR_BYTES, segment), ar);
}

void state_get_sregs(struct vcpu *v, struct kvm_sregs *s)
{
	memset(s, 0, sizeof(*s));
	state_get_segment(SEGMENT_CS, &s->cs);
	state_get_segment(SEGMENT_DS, &s->ds);
	state_get_segment(SEGMENT_ES, &s->es);
	state_get_segment(SEGMENT_FS, &s->fs);
	state_get_segment(SEGMENT_GS, &s->gs);
	state_get_segment(SEGMENT_SS, &s->ss);
	state_get_segment(SEGMENT_TR, &s->tr);
	state_get_segment(SEGMENT_LDTR, &s->ldt);
	s->gdt.base = vmcs_read(GUEST_GDTR_BASE);
	s->gdt.limit = vmcs_read(GUEST_GDTR_LIMIT);
	s->idt.base = vmcs_read(GUEST_IDTR_BASE);
	s->idt.limit = vmcs_read(GUEST_IDTR_LIMIT);
	s->cr0 = control_get_cr0(v);
	s->cr2 = v->cr2;
	s->cr3 = vmcs_read(GUEST_CR3);
	s->cr4 = control_get_cr4(v);
	s->cr8 = lapic_get_tpr(&v->chip);
	s->efer = field_get(v, FIELD_EFER);
	s->apic_base = v->chip.msr.apic_base;
	if (v->events.irq >= 0)
		set_bit(v->events.irq, (unsigned long *)s->interrupt_bitmap);
}

static bool sregs_valid(struct vcpu *v, const struct kvm_sregs *s)
{
	bool paging = s->cr0 & X86_CR0_PG, lme = s->efer & EFER_LME, lma = s->efer & EFER_LMA;

	if (!control_cr0_valid(s->cr0) || !control_cr4_valid(v, s->cr4) ||
	    !control_efer_valid(v, s->efer))
		return false;
	/* SDM 3A 2.2.1, 4.1.2: long mode is active if it is enabled and paging is on, and then PAE
	 * is, too. */
	if (lma != (lme && paging) || (lma && !(s->cr4 & X86_CR4_PAE)))
		return false;
	if ((s->cr4 & X86_CR4_PCIDE) && !lma)
		return false;
	return !(lma && s->cs.l && s->cs.db) && !(s->cr8 & ~0xfull) && !(s->cr3 >> 52);
}

int state_set_sregs(struct vcpu *v, const struct kvm_sregs *s)
{
	if (!sregs_valid(v, s))
		return -EINVAL;
	state_set_segment(SEGMENT_CS, &s->cs);
	state_set_segment(SEGMENT_DS, &s->ds);
	state_set_segment(SEGMENT_ES, &s->es);
	state_set_segment(SEGMENT_FS, &s->fs);
	state_set_segment(SEGMENT_GS, &s->gs);
	state_set_segment(SEGMENT_SS, &s->ss);
	state_set_segment(SEGMENT_TR, &s->tr);
	state_set_segment(SEGMENT_LDTR, &s->ldt);
	vmcs_write(GUEST_GDTR_BASE, s->gdt.base);
	vmcs_write(GUEST_GDTR_LIMIT, s->gdt.limit);
	vmcs_write(GUEST_IDTR_BASE, s->idt.base);
	vmcs_write(GUEST_IDTR_LIMIT, s->idt.limit);
	control_put_cr0(v, s->cr0);
	control_put_cr4(v, s->cr4);
	control_put_efer(v, s->efer);
	vmcs_write(GUEST_CR3, s->cr3);
	v->cr2 = s->cr2;
	v->run->cr8 = s->cr8;
	lapic_set_tpr(&v->chip, s->cr8);
	if (v->chip.lapic)
		lapic_restore_base(&v->chip, s->apic_base);
	else
		v->chip.msr.apic_base = s->apic_base;
	v->events.irq = find_first_bit((unsigned long *)s->interrupt_bitmap, 256);
	if (v->events.irq == 256)
		v->events.irq = -1;
	vcpu_request(v, REQUEST_FLUSH_TLB);
	vcpu_request(v, REQUEST_PDPTRS);
	return 0;
}

/* The legacy area, bytes 0 to 511 of XSAVE's (SDM 1 table 10-2), as the kernel hands it out. */
struct legacy_area {
	u16 fcw, fsw;
	u8 ftw, reserved;
	u16 fop;
	u64 fip, fdp;
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];
	u8 xmm[16][16];
	u8 unused[96];
	u64 features; /* XSTATE_BV */
};

int state_get_fpu(struct vcpu *v, struct kvm_fpu *fpu)
{
	struct legacy_area *legacy = kzalloc(sizeof(struct kvm_xsave), GFP_KERNEL);

	if (!legacy)
		return -ENOMEM;
	fpu_copy_guest_fpstate_to_uabi(&v->fpu, legacy, sizeof(struct kvm_xsave),
				       control_supported_xcr0(), 0);
	memset(fpu, 0, sizeof(*fpu));
	memcpy(fpu->fpr, legacy->st, sizeof(fpu->fpr));
	memcpy(fpu->xmm, legacy->xmm, sizeof(fpu->xmm));
	fpu->fcw = legacy->fcw;
	fpu->fsw = legacy->fsw;
	fpu->ftwx = legacy->ftw;
	fpu->last_opcode = legacy->fop;
	fpu->last_ip = legacy->fip;
	fpu->last_dp = legacy->fdp;
	fpu->mxcsr = legacy->mxcsr;
	kfree(legacy);
	return 0;
}

int state_set_fpu(struct vcpu *v, const struct kvm_fpu *fpu)
{
	struct legacy_area *legacy = kzalloc(sizeof(struct kvm_xsave), GFP_KERNEL);
	int ret;

	if (!legacy)
		return -ENOMEM;
	fpu_copy_guest_fpstate_to_uabi(&v->fpu, legacy, sizeof(struct kvm_xsave),
				       control_supported_xcr0(), 0);
	memcpy(legacy->st, fpu->fpr, sizeof(fpu->fpr));
	memcpy(legacy->xmm, fpu->xmm, sizeof(fpu->xmm));
	legacy->fcw = fpu->fcw;
	legacy->fsw = fpu->fsw;
	legacy->ftw = fpu->ftwx;
	legacy->fop = fpu->last_opcode;
	legacy->fip = fpu->last_ip;
	legacy->fdp = fpu->last_dp;
	legacy->mxcsr = fpu->mxcsr;
	legacy->features |= XFEATURE_MASK_FPSSE;
	ret = fpu_copy_uabi_to_guest_fpstate(&v->fpu, legacy, control_supported_xcr0(), NULL);
	kfree(legacy);
	return ret;
}

void state_get_events(struct vcpu *v, struct kvm_vcpu_events *out)
{
	const struct events *e = &v->events;
	u32 blocked = field_get(v, FIELD_BLOCKING);
	u8 type = e->current_event.type;

	memset(out, 0, sizeof(*out));
	if (e->exception.valid) {
		out->exception.injected = 1;
		out->exception.nr = e->exception.vector;
		out->exception.has_error_code = e->exception.has_error;
		out->exception.error_code = e->exception.error;
	} else if (e->current_event.valid && (type == INTR_TYPE_HARD_EXCEPTION >> 8 ||
					      type == INTR_TYPE_SOFT_EXCEPTION >> 8)) {
		out->exception.injected = 1;
		out->exception.nr = e->current_event.vector;
		out->exception.has_error_code = e->current_event.has_error;
		out->exception.error_code = e->current_event.error;
	}
	if (e->current_event.valid &&
	    (type == INTR_TYPE_EXT_INTR >> 8 || type == INTR_TYPE_SOFT_INTR >> 8)) {
		out->interrupt.injected = 1;
		out->interrupt.nr = e->current_event.vector;
		out->interrupt.soft = type == INTR_TYPE_SOFT_INTR >> 8;
	}
	out->nmi.injected = e->current_event.valid && type == INTR_TYPE_NMI_INTR >> 8;
	out->nmi.pending = !!v->chip.events.nmi;
	out->nmi.masked = !!(blocked & GUEST_INTR_STATE_NMI);
	if (blocked & GUEST_INTR_STATE_STI)
		out->interrupt.shadow |= KVM_X86_SHADOW_INT_STI;
	if (blocked & GUEST_INTR_STATE_MOV_SS)
		out->interrupt.shadow |= KVM_X86_SHADOW_INT_MOV_SS;
	out->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
}

/* Vectors that no exception has are refused here; with an error code that does not go with its
 * vector the entry fails (SDM 3C 26.2.1.3). */
int state_set_events(struct vcpu *v, const struct kvm_vcpu_events *in)
{
	struct events *e = &v->events;
	u32 blocked = field_get(v, FIELD_BLOCKING);

	if (in->flags & ~(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
			  KVM_VCPUEVENT_VALID_SIPI_VECTOR))
		return -EINVAL;
	if (in->exception.injected && (in->exception.nr > 31 || in->exception.nr == 2))
		return -EINVAL;
	e->exception.valid = in->exception.injected;
	e->exception.type = INTR_TYPE_HARD_EXCEPTION >> 8;
	e->exception.length = 0;
	e->exception.vector = in->exception.nr;
	e->exception.has_error = in->exception.has_error_code && (control_get_cr0(v) & X86_CR0_PE);
	e->exception.error = in->exception.error_code & 0xffff;
	e->current_event.valid = in->interrupt.injected || in->nmi.injected;
	e->current_event.has_error = false;
	e->current_event.length = 0;
	if (in->nmi.injected) {
		e->current_event.type = INTR_TYPE_NMI_INTR >> 8;
		e->current_event.vector = 2;
	} else if (in->interrupt.injected) {
		e->current_event.type = INTR_TYPE_EXT_INTR >> 8;
		e->current_event.vector = in->interrupt.nr;
	}
	if (in->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		v->chip.events.nmi = !!in->nmi.pending;
	blocked &= ~GUEST_INTR_STATE_NMI;
	if (in->nmi.masked)
		blocked |= GUEST_INTR_STATE_NMI;
	if (in->flags & KVM_VCPUEVENT_VALID_SHADOW) {
		blocked &= ~(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS);
		if (in->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
			blocked |= GUEST_INTR_STATE_MOV_SS;
		else if (in->interrupt.shadow & KVM_X86_SHADOW_INT_STI)
			blocked |= GUEST_INTR_STATE_STI;
	}
	field_put(v, FIELD_BLOCKING, blocked);
	agree_on_step(v);
	return 0;
}

void state_get_debugregs(struct vcpu *v, struct kvm_debugregs *regs)
{
	memset(regs, 0, sizeof(*regs));
	memcpy(regs->db, v->dr, sizeof(regs->db));
	regs->dr6 = v->dr6;
	regs->dr7 = v->dr7;
}

int state_set_debugregs(struct vcpu *v, const struct kvm_debugregs *regs)
{
	if (regs->flags || regs->dr6 >> 32 || regs->dr7 >> 32)
		return -EINVAL;
	memcpy(v->dr, regs->db, sizeof(regs->db));
	debug_put_dr6(v, regs->dr6);
	debug_put_dr7(v, regs->dr7);
	return 0;
}
