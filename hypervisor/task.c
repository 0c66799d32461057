// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Task switches. VMX non-root operation has none: JMP, CALL, IRET and interrupts through task gates
 * exit once the processor has found the new TSS's descriptor good (SDM 3C 25.4.2), and the rest is
 * done here.
 *
 * Up to the commit point everything is read, checked and probed for writing, and faults are the old
 * task's; behind it they are the new one's, whose segment registers are loaded one by one.
 *
 * Source: SDM 3A 7.3 (the steps), table 7-1 (checks), figures 7-2 and 7-10 (TSSs).
 */
#include <linux/kernel.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"

/* SDM 3C table 27-2, bits 31:30 of the qualification. */
enum source { FROM_CALL, FROM_IRET, FROM_JMP, FROM_GATE };

/* What the functions here return besides 0 and errors of the host. */
#define RAISED	1 /* a fault */
#define MISSING 2 /* the selector names nothing in its table */

#define DR7_LOCAL 0x155ull /* L0 to L3, LE */
#define DR6_BT	  BIT(15)

#define TYPE_TSS16 1 /* available */
#define TYPE_TSS32 9
#define TYPE_BUSY  2
#define TYPE_LDT   2

struct tss16 {
	u16 link, stacks[6], ip, flags, r[8], selector[4], ldt;
};
static_assert(sizeof(struct tss16) == 44);

struct tss32 {
	u32 link, stacks[6], cr3, ip, flags, r[8], selector[6], ldt;
	u16 trap, io_map;
};
static_assert(sizeof(struct tss32) == 104);

union tss {
	struct tss16 t16;
	struct tss32 t32;
};

/* A task of either kind. */
struct task {
	u32 cr3, ip, flags, r[8];
	u16 selector[6], ldt;
	bool trap;
};

struct descriptor {
	u64 raw;
	u64 linear; /* where it is */
};

struct task_switch {
	struct vcpu *v;
	enum source source;
	u16 selector;	       /* of the new TSS */
	struct descriptor new; /* the new TSS's */
	struct descriptor old; /* the old one's, for JMP and IRET */
	union tss new_tss, old_tss;
	bool new_is_32, old_is_32;
	u64 old_base;
	bool external; /* the event at a gate is not the program's own doing */
	bool has_error;
	u32 error;
};

/* ---- the guest's tables ---- */

static u32 desc_type(const struct descriptor *d)
{
	return d->raw >> 40 & 0xf;
}

static bool desc_is_segment(const struct descriptor *d)
{
	return d->raw >> 44 & 1;
}

static u32 desc_dpl(const struct descriptor *d)
{
	return d->raw >> 45 & 3;
}

static bool desc_present(const struct descriptor *d)
{
	return d->raw >> 47 & 1;
}

static u32 desc_base(const struct descriptor *d)
{
	return (d->raw >> 16 & 0xffffff) | (d->raw >> 56) << 24;
}

static u32 desc_limit(const struct descriptor *d)
{
	u32 limit = (d->raw & 0xffff) | (d->raw >> 32 & 0xf0000);

	return d->raw >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

#define TYPE_CODE	BIT(3)
#define TYPE_CONFORMING BIT(2) /* of code */
#define TYPE_WRITABLE	BIT(1) /* of data; of code: readable */

static bool desc_is_code(const struct descriptor *d)
{
	return desc_is_segment(d) && (desc_type(d) & TYPE_CODE);
}

static bool desc_is_conforming(const struct descriptor *d)
{
	return desc_is_code(d) && (desc_type(d) & TYPE_CONFORMING);
}

static bool selector_is_null(u16 selector)
{
	return !(selector & ~3);
}

static int fault(struct task_switch *s, u8 vector, u16 selector)
{
	raise_error(s->v, vector, (selector & ~3u) | s->external);
	return RAISED;
}

static int page_result(struct vcpu *v, int ret, const struct walk_fault *fault)
{
	if (ret != -EFAULT)
		return ret;
	raise_page_fault(v, fault);
	return RAISED;
}

static int read(struct vcpu *v, u64 linear, void *data, u32 bytes)
{
	struct walk_fault fault;

	return page_result(v, linear_read(v, linear, data, bytes, 0, &fault), &fault);
}

static int write(struct vcpu *v, u64 linear, const void *data, u32 bytes)
{
	struct walk_fault fault;

	return page_result(v, linear_write(v, linear, data, bytes, 0, &fault), &fault);
}

/* Whether @bytes, less than a page, may be written: nothing fails once writing has begun. */
static int probe(struct vcpu *v, u64 linear, u32 bytes)
{
	struct walk_fault fault;
	u64 gpa;
	int ret = walk(v, linear, ACCESS_WRITE, &gpa, &fault);

	if (!ret)
		ret = walk(v, linear + bytes - 1, ACCESS_WRITE, &gpa, &fault);
	return page_result(v, ret, &fault);
}

static int desc_read(struct vcpu *v, u16 selector, struct descriptor *d)
{
	bool local = selector & 4;
	u32 limit = vmcs_read(local ? GUEST_LDTR_LIMIT : GUEST_GDTR_LIMIT);

	if (local && (vmcs_read(GUEST_LDTR_AR_BYTES) & VMX_AR_UNUSABLE_MASK))
		return MISSING;
	if ((selector | 7u) > limit)
		return MISSING;
	d->linear = (u32)(vmcs_read(local ? GUEST_LDTR_BASE : GUEST_GDTR_BASE) + (selector & ~7u));
	return read(v, d->linear, &d->raw, sizeof(d->raw));
}

static int desc_write_type(struct vcpu *v, const struct descriptor *d)
{
	u8 byte = d->raw >> 40;

	return write(v, d->linear + 5, &byte, sizeof(byte));
}

static int desc_mark_busy(struct vcpu *v, struct descriptor *d, bool busy)
{
	u64 bit = (u64)TYPE_BUSY << 40;

	d->raw = busy ? d->raw | bit : d->raw & ~bit;
	return desc_write_type(v, d);
}

static void load(enum segment segment, u16 selector, const struct descriptor *d)
{
	struct kvm_segment s = {
	    .base = desc_base(d),
	    .limit = desc_limit(d),
	    .selector = selector,
	    .type = desc_type(d),
	    .present = desc_present(d),
	    .dpl = desc_dpl(d),
	    .db = d->raw >> 54 & 1,
	    .s = desc_is_segment(d),
	    .g = d->raw >> 55 & 1,
	    .avl = d->raw >> 52 & 1,
	};

	state_set_segment(segment, &s);
}

/* ---- before the commit point ---- */

/* Steps 1 to 4; what the processor has found good may have changed meanwhile. */
static int find_new_task(struct task_switch *s)
{
	u32 wanted = s->source == FROM_IRET ? TYPE_BUSY : 0;
	u8 bad = s->source == FROM_IRET ? X86_TRAP_TS : X86_TRAP_GP;
	int ret = s->selector & 4 ? MISSING : desc_read(s->v, s->selector, &s->new);

	if (ret && ret != MISSING)
		return ret;
	if (ret || desc_is_segment(&s->new) || (desc_type(&s->new) & 7) != (TYPE_TSS16 | wanted))
		return fault(s, bad, s->selector);
	if (!desc_present(&s->new))
		return fault(s, X86_TRAP_NP, s->selector);
	s->new_is_32 = desc_type(&s->new) & 8;
	if (desc_limit(&s->new) < (s->new_is_32 ? sizeof(struct tss32) : sizeof(struct tss16)) - 1)
		return fault(s, X86_TRAP_TS, s->selector);
	return read(s->v, desc_base(&s->new), &s->new_tss,
		    s->new_is_32 ? sizeof(struct tss32) : sizeof(struct tss16));
}

/* Step 5: what will be written. */
static int probe_tasks(struct task_switch *s)
{
	struct vcpu *v = s->v;
	u16 old = vmcs_read(GUEST_TR_SELECTOR);
	u32 bytes;
	int ret;

	s->old_is_32 = vmcs_read(GUEST_TR_AR_BYTES) & 8;
	s->old_base = vmcs_read(GUEST_TR_BASE);
	bytes = s->old_is_32 ? sizeof(struct tss32) : sizeof(struct tss16);
	if (vmcs_read(GUEST_TR_LIMIT) < bytes - 1)
		return fault(s, X86_TRAP_TS, old);
	ret = probe(v, s->old_base, bytes);
	if (!ret)
		ret = read(v, s->old_base, &s->old_tss, bytes);
	if (!ret && (s->source == FROM_CALL || s->source == FROM_GATE))
		ret = probe(v, desc_base(&s->new), sizeof(u16));
	if (!ret && s->source != FROM_IRET)
		ret = probe(v, s->new.linear, sizeof(u64));
	if (ret || s->source == FROM_CALL || s->source == FROM_GATE)
		return ret;
	ret = desc_read(v, old, &s->old);
	if (ret == MISSING)
		return fault(s, X86_TRAP_TS, old);
	return ret ? ret : probe(v, s->old.linear, sizeof(u64));
}

/* ---- the commit ---- */

/* Steps 7 and 8: the outgoing task's registers; its CR3 and LDT are never written. */
static int save_old_task(struct task_switch *s, u64 next_rip)
{
	struct vcpu *v = s->v;
	struct tss16 *t16 = &s->old_tss.t16;
	struct tss32 *t32 = &s->old_tss.t32;
	u32 flags = field_get(v, FIELD_RFLAGS);
	int i;

	if (s->source == FROM_IRET)
		flags &= ~X86_EFLAGS_NT;
	if (s->old_is_32) {
		t32->ip = next_rip;
		t32->flags = flags;
		for (i = 0; i < 8; i++)
			t32->r[i] = vcpu_get_register(v, i);
		for (i = SEGMENT_ES; i <= SEGMENT_GS; i++)
			t32->selector[i] = state_segment_selector(i);
		return write(v, s->old_base + offsetof(struct tss32, ip), &t32->ip,
			     offsetof(struct tss32, ldt) - offsetof(struct tss32, ip));
	}
	t16->ip = next_rip;
	t16->flags = flags;
	for (i = 0; i < 8; i++)
		t16->r[i] = vcpu_get_register(v, i);
	for (i = SEGMENT_ES; i <= SEGMENT_DS; i++)
		t16->selector[i] = state_segment_selector(i);
	return write(v, s->old_base + offsetof(struct tss16, ip), &t16->ip,
		     offsetof(struct tss16, ldt) - offsetof(struct tss16, ip));
}

/* Steps 6 to 11. */
static int commit(struct task_switch *s, u64 next_rip)
{
	struct vcpu *v = s->v;
	bool nested = s->source == FROM_CALL || s->source == FROM_GATE;
	u16 old = vmcs_read(GUEST_TR_SELECTOR);
	int ret = nested ? 0 : desc_mark_busy(v, &s->old, false);

	if (!ret)
		ret = save_old_task(s, next_rip);
	if (!ret && nested)
		ret = write(v, desc_base(&s->new), &old, sizeof(old));
	if (!ret && s->source != FROM_IRET)
		ret = desc_mark_busy(v, &s->new, true);
	if (ret)
		return ret;
	load(SEGMENT_TR, s->selector, &s->new);
	control_put_cr0(v, control_get_cr0(v) | X86_CR0_TS);
	debug_put_dr7(v, v->dr7 & ~DR7_LOCAL); /* SDM 3B 17.2.4 */
	return 0;
}

/* ---- behind it ---- */

static void unpack(const struct task_switch *s, struct task *t)
{
	const struct tss16 *t16 = &s->new_tss.t16;
	const struct tss32 *t32 = &s->new_tss.t32;

	memset(t, 0, sizeof(*t));
	t->ip = s->new_is_32 ? t32->ip : t16->ip;
	t->flags = s->new_is_32 ? t32->flags : t16->flags;
	for (int i = 0; i < 8; i++)
		t->r[i] = s->new_is_32 ? t32->r[i] : t16->r[i];
	for (int i = SEGMENT_ES; i <= (s->new_is_32 ? SEGMENT_GS : SEGMENT_DS); i++)
		t->selector[i] = s->new_is_32 ? t32->selector[i] : t16->selector[i];
	t->ldt = s->new_is_32 ? t32->ldt : t16->ldt;
	t->cr3 = t32->cr3;
	t->trap = s->new_is_32 && (t32->trap & 1);
}

/* SDM 3A 20.2: a segment of a task in virtual-8086 mode, which has no descriptor. */
static void load_v86(enum segment segment, u16 selector)
{
	state_set_segment(segment, &(struct kvm_segment){.base = selector << 4,
							 .limit = 0xffff,
							 .selector = selector,
							 .type = 3,
							 .s = 1,
							 .dpl = 3,
							 .present = 1});
}

/* Step 12. Until they are checked segment registers have their selectors and nothing behind them;
 * CS, which cannot be so, goes on with the old task's code at the new one's privilege. In
 * virtual-8086 mode there is nothing to check, and an entry would take no others. */
static void load_registers(struct task_switch *s, const struct task *t)
{
	struct vcpu *v = s->v;
	u32 flags = t->flags;
	u32 cpl = t->selector[SEGMENT_CS] & 3;

	if (s->source == FROM_CALL || s->source == FROM_GATE)
		flags |= X86_EFLAGS_NT;
	field_put(v, FIELD_RIP, t->ip);
	state_put_rflags(v, flags);
	for (int i = 0; i < 8; i++)
		vcpu_set_register(v, i, t->r[i]);
	for (int i = SEGMENT_ES; i <= SEGMENT_GS; i++) {
		struct kvm_segment segment = {.unusable = 1, .dpl = cpl};

		if (flags & X86_EFLAGS_VM) {
			load_v86(i, t->selector[i]);
			continue;
		}
		if (i == SEGMENT_CS) {
			state_get_segment(i, &segment);
			segment.type = 11;
			segment.dpl = cpl;
			segment.s = 1;
		}
		segment.selector = t->selector[i];
		state_set_segment(i, &segment);
	}
	state_set_segment(SEGMENT_LDTR, &(struct kvm_segment){.selector = t->ldt, .unusable = 1});
}

static int load_address_space(struct task_switch *s, const struct task *t)
{
	struct vcpu *v = s->v;

	if (!s->new_is_32 || !(control_get_cr0(v) & X86_CR0_PG))
		return 0;
	vmcs_write(GUEST_CR3, t->cr3);
	vcpu_request(v, REQUEST_FLUSH_TLB);
	return control_load_pdptrs(v) ? 0 : fault(s, X86_TRAP_GP, 0);
}

/* A selector's descriptor; where table 7-1 has no other fault for it, #TS. */
static int find(struct task_switch *s, u16 selector, struct descriptor *d)
{
	int ret = desc_read(s->v, selector, d);

	return ret == MISSING ? fault(s, X86_TRAP_TS, selector) : ret;
}

static int load_ldt(struct task_switch *s, u16 selector)
{
	struct descriptor d;
	int ret;

	if (selector_is_null(selector))
		return 0;
	if (selector & 4)
		return fault(s, X86_TRAP_TS, selector);
	ret = find(s, selector, &d);
	if (ret)
		return ret;
	if (desc_is_segment(&d) || desc_type(&d) != TYPE_LDT || !desc_present(&d))
		return fault(s, X86_TRAP_TS, selector);
	load(SEGMENT_LDTR, selector, &d);
	return 0;
}

static bool acceptable(enum segment segment, u16 selector, const struct descriptor *d, u32 cpl)
{
	u32 rpl = selector & 3, dpl = desc_dpl(d);

	if (segment == SEGMENT_CS)
		return desc_is_code(d) && (desc_is_conforming(d) ? dpl <= cpl : dpl == cpl);
	if (segment == SEGMENT_SS)
		return desc_is_segment(d) && !desc_is_code(d) && (desc_type(d) & TYPE_WRITABLE) &&
		       dpl == cpl && rpl == cpl;
	if (!desc_is_segment(d) || (desc_is_code(d) && !(desc_type(d) & TYPE_WRITABLE)))
		return false;
	return desc_is_conforming(d) || (cpl <= dpl && rpl <= dpl);
}

static int load_segment(struct task_switch *s, enum segment segment, u16 selector, u32 cpl)
{
	bool required = segment == SEGMENT_CS || segment == SEGMENT_SS;
	struct descriptor d;
	int ret;

	if (selector_is_null(selector))
		return required ? fault(s, X86_TRAP_TS, selector) : 0;
	ret = find(s, selector, &d);
	if (ret)
		return ret;
	if (!acceptable(segment, selector, &d, cpl))
		return fault(s, X86_TRAP_TS, selector);
	if (!desc_present(&d))
		return fault(s, segment == SEGMENT_SS ? X86_TRAP_SS : X86_TRAP_NP, selector);
	if (!(desc_type(&d) & 1)) {
		d.raw |= 1ull << 40; /* accessed */
		ret = desc_write_type(s->v, &d);
		if (ret)
			return ret;
	}
	load(segment, selector, &d);
	return 0;
}

/* Step 13. */
static int load_segments(struct task_switch *s, const struct task *t)
{
	static const enum segment order[] = {SEGMENT_CS, SEGMENT_SS, SEGMENT_ES,
					     SEGMENT_DS, SEGMENT_FS, SEGMENT_GS};
	int ret = load_ldt(s, t->ldt);

	if (t->flags & X86_EFLAGS_VM)
		return ret;
	for (int i = 0; i < ARRAY_SIZE(order) && !ret; i++)
		ret = load_segment(s, order[i], t->selector[order[i]], t->selector[SEGMENT_CS] & 3);
	return ret;
}

/* The error code of an exception goes onto the new task's stack. */
static int push_error(struct task_switch *s)
{
	struct vcpu *v = s->v;
	u32 size = s->new_is_32 ? 4 : 2;
	u64 mask = vmcs_read(GUEST_SS_AR_BYTES) & VMX_AR_DB_MASK ? 0xffffffff : 0xffff;
	u64 rsp = vcpu_get_register(v, RSP), top = (rsp - size) & mask;
	int ret = write(v, (u32)(vmcs_read(GUEST_SS_BASE) + top), &s->error, size);

	if (!ret)
		vcpu_set_register(v, RSP, (rsp & ~mask) | top);
	return ret;
}

/* What was being delivered through the gate: its error code, whose doing it was, whether NMIs are
 * blocked now. True: it is an instruction's, behind which the old task goes on. */
static bool take_event(struct task_switch *s)
{
	struct vcpu *v = s->v;
	u32 type = (u32)v->events.current_event.type << 8;

	if (s->source != FROM_GATE || !v->events.current_event.valid)
		return true;
	s->has_error = v->events.current_event.has_error;
	s->error = v->events.current_event.error;
	s->external = type == INTR_TYPE_EXT_INTR || type == INTR_TYPE_NMI_INTR ||
		      type == INTR_TYPE_HARD_EXCEPTION || type == INTR_TYPE_PRIV_SW_EXCEPTION;
	return type != INTR_TYPE_EXT_INTR && type != INTR_TYPE_NMI_INTR &&
	       type != INTR_TYPE_HARD_EXCEPTION;
}

/* The event has been delivered; an IRET unblocks NMIs, an NMI's delivery blocks them. */
static void event_is_over(struct task_switch *s)
{
	struct vcpu *v = s->v;
	u64 blocked =
	    field_get(v, FIELD_BLOCKING) & ~(u64)(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS);

	if (s->source == FROM_IRET)
		blocked &= ~(u64)GUEST_INTR_STATE_NMI;
	if (s->source == FROM_GATE && v->events.current_event.valid &&
	    v->events.current_event.type == INTR_TYPE_NMI_INTR >> 8)
		blocked |= GUEST_INTR_STATE_NMI;
	v->events.current_event.valid = false;
	field_put(v, FIELD_BLOCKING, blocked);
}

static int task_switch(struct task_switch *s)
{
	struct vcpu *v = s->v;
	u64 next_rip = field_get(v, FIELD_RIP);
	struct task new;
	int ret;

	if (take_event(s))
		next_rip += vmcs_read(VM_EXIT_INSTRUCTION_LEN);
	ret = find_new_task(s);
	if (!ret)
		ret = probe_tasks(s);
	if (!ret)
		ret = commit(s, next_rip);
	if (ret)
		return ret;

	event_is_over(s);
	unpack(s, &new);
	load_registers(s, &new);
	ret = load_address_space(s, &new);
	if (!ret)
		ret = load_segments(s, &new);
	if (!ret && s->has_error)
		ret = push_error(s);
	if (ret)
		return ret;
	debug_note_step(v);
	if (new.ip > vmcs_read(GUEST_CS_LIMIT))
		return fault(s, X86_TRAP_GP, 0);
	if (new.trap)
		debug_raise(v, DR6_BT); /* SDM 3B 17.3.1.5 */
	return 0;
}

int exit_task_switch(struct vcpu *v)
{
	u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	struct task_switch s = {
	    .v = v,
	    .selector = qualification,
	    .source = qualification >> 30 & 3,
	};
	int ret;

	down_read(&v->vm->memory_lock);
	ret = task_switch(&s);
	up_read(&v->vm->memory_lock);
	/* A TSS, a descriptor or a stack in a device's memory, or memory that the owner has taken
	 * away. */
	if (ret < 0)
		return exit_internal_error(v, KVM_INTERNAL_ERROR_EMULATION, qualification);
	return 1;
}
