/*
 * Descriptors, selectors and stacks as control transfers see them: SDM 3A 3.4, 3.5, 5.8, 7.2.
 * Private to system/. Everything inside.
 *
 * A transfer first reads and checks all it needs into local structures, then writes memory, then
 * commits registers. The functions here do the first two; none changes a register.
 */
#ifndef GUISE_SOFT_DESCRIPTOR_H
#define GUISE_SOFT_DESCRIPTOR_H

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/exception.h"

/* Error codes that name a selector, SDM 3A 6.13. EXT is added by raise_error(). */
#define ERROR_EXT	  1u
#define ERROR_IDT	  2u
#define SELECTOR_RPL(s)	  ((s)&3)
#define SELECTOR_TI	  4u
#define SELECTOR_ERROR(s) ((u32)(s)&0xfffc)

/* Types of system descriptors, SDM 3A table 3-2 */
enum system_type {
	SYS_TSS16 = 1,
	SYS_LDT = 2,
	SYS_TSS16_BUSY = 3,
	SYS_CALL16 = 4,
	SYS_TASK_GATE = 5,
	SYS_INT16 = 6,
	SYS_TRAP16 = 7,
	SYS_TSS = 9,
	SYS_TSS_BUSY = 11,
	SYS_CALL = 12,
	SYS_INT = 14,
	SYS_TRAP = 15
};
#define SYS_TSS_BUSY_BIT 2u

/* A descriptor in memory. */
struct descriptor {
	u64 raw;
	u64 high;   /* second half, of a 16-byte one */
	u64 linear; /* its address */
};

/** Attributes in the form of struct segment.access. */
static inline u32 desc_access(const struct descriptor *d)
{
	return (u32)(d->raw >> 40) & 0xf0ff;
}

static inline u32 desc_dpl(const struct descriptor *d)
{
	return (u32)(d->raw >> 45) & 3;
}

static inline bool desc_present(const struct descriptor *d)
{
	return d->raw >> 47 & 1;
}

/** S: a code or data segment. */
static inline bool desc_is_segment(const struct descriptor *d)
{
	return d->raw >> 44 & 1;
}

/** Type field; meaning depends on desc_is_segment(). */
static inline u32 desc_type(const struct descriptor *d)
{
	return (u32)(d->raw >> 40) & 0xf;
}

static inline bool desc_is_code(const struct descriptor *d)
{
	return desc_is_segment(d) && desc_type(d) & SEG_TYPE_CODE;
}

static inline bool desc_is_conforming(const struct descriptor *d)
{
	return desc_is_code(d) && desc_type(d) & SEG_TYPE_EXPAND_DOWN;
}

static inline bool desc_is_writable_data(const struct descriptor *d)
{
	return desc_is_segment(d) &&
	       (desc_type(d) & (SEG_TYPE_CODE | SEG_TYPE_WRITE)) == SEG_TYPE_WRITE;
}

static inline bool desc_is_readable(const struct descriptor *d)
{
	return desc_is_segment(d) &&
	       (!(desc_type(d) & SEG_TYPE_CODE) || desc_type(d) & SEG_TYPE_WRITE);
}

/** Base, 32 bits; with the upper half of a 16-byte descriptor when d->high was read. */
static inline u64 desc_base(const struct descriptor *d)
{
	return (d->raw >> 16 & 0xffffff) | (d->raw >> 56) << 24 | (d->high & 0xffffffff) << 32;
}

/** Limit in bytes, expanded by G. */
static inline u32 desc_limit(const struct descriptor *d)
{
	u32 limit = (u32)(d->raw & 0xffff) | (u32)(d->raw >> 32 & 0xf0000);
	return d->raw >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

/* Gates, SDM 3A figures 5-8, 6-2, 6-8 */
static inline u16 gate_selector(const struct descriptor *d)
{
	return (u16)(d->raw >> 16);
}

/** Entry point as far as the gate's type has bits for it; d->high counts for 16-byte gates. */
static inline u64 gate_offset(const struct descriptor *d)
{
	u64 offset = d->raw & 0xffff;
	if (desc_type(d) & 8)
		offset |= (d->raw >> 48) << 16 | (d->high & 0xffffffff) << 32;
	return offset;
}

/* ---- where the processor is ---- */

static inline bool is_protected(const struct soft_vcpu *v)
{
	return v->cr0 & CR0_PE;
}

static inline bool is_v86(const struct soft_vcpu *v)
{
	return v->rflags_sys & RFLAGS_VM;
}

/** Protected mode and not virtual-8086: selectors name descriptors. */
static inline bool has_descriptors(const struct soft_vcpu *v)
{
	return is_protected(v) && !is_v86(v);
}

/** IA-32e mode: 64-bit or compatibility. */
static inline bool is_long(const struct soft_vcpu *v)
{
	return v->msr.efer & EFER_LMA;
}

static inline bool is_code64(const struct soft_vcpu *v)
{
	return is_long(v) && v->seg[SEG_CS].access & SEG_L;
}

static inline u32 iopl(const struct soft_vcpu *v)
{
	return (u32)(v->rflags_sys >> 12) & 3;
}

/**
 * How stack and data of privilege level @cpl are reached. SMAP is lifted by EFLAGS.AC for explicit
 * accesses (SDM 3A 4.6.1).
 */
static inline enum mmu_index mmu_index_of(const struct soft_vcpu *v, u32 cpl)
{
	if (cpl == 3)
		return MMU_USER;
	return v->cr4 & CR4_SMAP && !(v->rflags_sys & RFLAGS_AC) ? MMU_KERNEL : MMU_KERNEL_AC;
}

/* ---- descriptor tables (descriptor.c) ---- */

static inline bool selector_is_null(u16 selector)
{
	return !(selector & 0xfffc);
}

/**
 * Reads the descriptor of @selector (not null). false: beyond its table's limit, or no LDT. May
 * raise #PF.
 */
bool desc_read(struct soft_vcpu *v, u16 selector, struct descriptor *d);

/** As desc_read() for LDT, TSS and call gates: 16 bytes in IA-32e mode. */
bool desc_read_system(struct soft_vcpu *v, u16 selector, struct descriptor *d);

/** Sets the accessed bit in memory and in @d unless it is set (SDM 3A 3.4.5.1). */
void desc_set_accessed(struct soft_vcpu *v, struct descriptor *d);

/** The segment register's contents after loading @selector with @d. */
void segment_fill(struct segment *s, u16 selector, const struct descriptor *d);

/** A null selector in a data segment register; for SS of CPL @dpl. */
void segment_fill_null(struct segment *s, u16 selector, u32 dpl);

/**
 * Reads and checks the descriptor of a code segment that a far transfer or gate names: null #GP(0),
 * beyond limit or not code #GP(sel). In IA-32e mode L and D together: #GP(sel) (SDM 3A 5.2.1).
 */
void desc_read_code(struct soft_vcpu *v, u16 selector, struct descriptor *d);

/** #GP(0) if @rip is beyond the limit of code segment @cs, or not canonical for 64-bit code. */
void check_code_offset(struct soft_vcpu *v, const struct segment *cs, u64 rip);

/** Whether @cs, in the mode that @v is in, holds 64-bit code. */
static inline bool segment_is_code64(const struct soft_vcpu *v, const struct segment *cs)
{
	return is_long(v) && cs->access & SEG_L;
}

/**
 * Return to an outer privilege level @cpl: data segments that it may not use become null (SDM 2A
 * IRET, RET; 3A 5.8.6). Changes v->seg[]; the caller calls vcpu_segment_changed().
 */
void segments_drop_privileged(struct soft_vcpu *v, u32 cpl);

/* ---- stacks that a transfer builds (descriptor.c) ---- */

struct stack {
	struct segment ss;
	u64 sp;
	u64 mask; /* bits of sp that take part: 16, 32 or 64 */
	enum mmu_index index;
	u32 error; /* of the #SS that an overflow raises */
};

/** The stack in use. */
void stack_current(const struct soft_vcpu *v, struct stack *s);

/**
 * Stack of inner privilege level @cpl outside IA-32e mode: SS and ESP from the TSS, checked (SDM 2A
 * INT, INTER-PRIVILEGE-LEVEL; CALL). Sets the accessed bit of its descriptor.
 */
void stack_from_tss(struct soft_vcpu *v, u32 cpl, struct stack *s);

/**
 * Stack pointer in the 64-bit TSS: @ist 1 to 7, or 0 for RSP of level @cpl (SDM 3A 7.7). Raises
 * #TS(TR).
 */
u64 stack_pointer_from_tss64(struct soft_vcpu *v, u32 cpl, u32 ist);

/** Stack of inner privilege level @cpl in IA-32e mode: SS null with RPL @cpl, @sp as given. */
void stack_long(const struct soft_vcpu *v, u32 cpl, u64 sp, struct stack *s);

/**
 * Pushes @count values of @size bytes, values[0] first: checks the limits for all, then writes. May
 * raise #SS(s->error), #PF. s->sp moves.
 */
void stack_push(struct soft_vcpu *v, struct stack *s, const u64 *values, u32 count, u32 size);

/** Value of @size bytes at s->sp + @offset. */
u64 stack_read(struct soft_vcpu *v, const struct stack *s, u64 offset, u32 size);

/** Makes @s the stack in use: SS and the stack pointer. The caller sets CPL. */
void stack_commit(struct soft_vcpu *v, const struct stack *s);

/** Adds @delta to a stack pointer under its mask. */
static inline u64 stack_add(const struct stack *s, s64 delta)
{
	return (s->sp & ~s->mask) | ((s->sp + (u64)delta) & s->mask);
}

/* ---- events (deliver.c) ---- */

enum event_kind {
	EVENT_EXCEPTION, /* faults, traps, INT1 */
	EVENT_INTERRUPT, /* external */
	EVENT_NMI,
	EVENT_SOFT_INT, /* INT n: DPL of the gate counts; in virtual-8086 mode IOPL, redirection */
	EVENT_SOFT_TRAP /* INT3, INTO: DPL of the gate counts */
};

struct event {
	enum event_kind kind;
	u8 vector;
	bool has_error;
	u32 error;
	u64 rip;	 /* to be pushed */
	u64 flags;	 /* to be pushed */
	u8 length;	 /* of the instruction that made it, bytes; for VMX */
	bool privileged; /* INT1 made it */
	bool user;	 /* it is v->events.user_interrupt */
};

/**
 * Delivers @ev through the IDT in whatever mode the vCPU is in; v->rip becomes the handler's.
 * A fault on the way is recorded as nested (v->events.in_delivery) and abandons it.
 */
void event_deliver(struct soft_vcpu *v, const struct event *ev);

#endif
