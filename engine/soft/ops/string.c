/*
 * MOVS, STOS, LODS, CMPS, SCAS. SDM 2B, and REP in SDM 2B 4.3.
 *
 * Repeated forms work in runs: as many elements as lie in the pages of source and destination. What
 * is not plain RAM goes element by element. Between runs the registers are exact, so a fault, an
 * interrupt or an exit finds the instruction at the element where it stands.
 */
#include "base/gp.h"
#include "engine/soft/ops/string.h"

/* One side of a string instruction: where its next element is. */
struct side {
	u64 linear;
	u8 *host; /* NULL: not plain, element by element */
};

static bool backward(const struct soft_vcpu *v)
{
	return v->rflags_sys & RFLAGS_DF;
}

/** Whether a page that @run elements from @linear on go to has become plain RAM, as nothing of it
 * is translated code any more: pages are filled whole when they get another use. */
static bool overwrites_code(struct soft_vcpu *v, u64 linear, u32 size, u64 run)
{
	u64 rest = PAGE_SIZE - (linear & (PAGE_SIZE - 1));
	u64 bytes = run < rest / size ? run * size : rest;

	return run > 1 && size <= rest && !backward(v) &&
	       mem_overwrites_code(v, linear, (u32)bytes, v->mmu_index);
}

/** Checks the next element and finds its memory; lowers *run to the elements that go on from it in
 * its page. */
static struct side side_begin(struct soft_vcpu *v, const struct insn *i, enum x86_seg seg,
			      enum x86_reg reg, enum access access, u64 *run)
{
	u32 size = i->opsize;
	u64 offset = string_offset(v, i, reg);
	bool write = access == ACCESS_WRITE, stack = seg == SEG_SS;
	struct side s = {.linear = seg_linear(v, seg, offset, size, access)};
	u64 in_page = s.linear & (PAGE_SIZE - 1);

	s.host = tlb_lookup(v, s.linear, size, write, v->mmu_index);
	if (!s.host)
		s.host = tlb_fill(v, s.linear, size, access, v->mmu_index, stack);
	if (!s.host && write && overwrites_code(v, s.linear, size, *run))
		s.host = tlb_fill(v, s.linear, size, access, v->mmu_index, stack);
	if (!s.host) {
		*run = 1;
		return s;
	}

	u64 room = backward(v) ? in_page / size + 1 : (PAGE_SIZE - in_page) / size;

	/* rSI and rDI wrap at the address size. */
	if (i->addrsize < 8) {
		u64 until_wrap =
		    backward(v) ? offset / size + 1 : (size_mask(i->addrsize) + 1 - offset) / size;
		if (room > until_wrap)
			room = until_wrap ? until_wrap : 1;
	}
	if (*run > room)
		*run = room;
	if (*run > 1) {
		u64 distance = (*run - 1) * size;

		/* Inside the segment at both ends means inside all the way. */
		if (!seg_check(v, seg, backward(v) ? offset - distance : offset + distance, size,
			       access))
			*run = 1;
	}
	return s;
}

/** How many elements may be done at once before the instruction must be looked at from outside. */
static u64 run_begin(const struct soft_vcpu *v, const struct insn *i)
{
	/* With TF set a trap follows each iteration: SDM 3A 6.8.3, 3B 17.3.1.4. */
	if (!i->rep || (v->mode & MODE_STEP))
		return 1;
	return string_offset(v, i, RCX);
}

/**
 * Whether the instruction must be left between iterations: something waits, a debugger looks, or
 * the I/O log answered this iteration and is good for no other.
 */
static bool must_leave(const struct soft_vcpu *v, const struct insn *i)
{
	return !i->rep || v->attention || v->io_cursor || (v->mode & MODE_STEP);
}

static u64 read_element(struct soft_vcpu *v, const struct side *s, u32 size, bool stack)
{
	u64 value = 0;

	mem_read_linear(v, s->linear, &value, size, v->mmu_index, stack);
	return value;
}

/* ---- host loops; pointers are to the first element in the direction of DF ---- */

#define REP_MOVS(suffix)                                                                           \
	(back ? ({                                                                                 \
		__asm__ volatile("std; rep movs" suffix "; cld"                                    \
				 : "+D"(dst), "+S"(src), "+c"(count)                               \
				 :                                                                 \
				 : "memory", "cc");                                                \
	})                                                                                         \
	      : ({                                                                                 \
			__asm__ volatile("rep movs" suffix                                         \
					 : "+D"(dst), "+S"(src), "+c"(count)                       \
					 :                                                         \
					 : "memory");                                              \
		}))

/** Element after element, so that overlapping regions come out as the guest's processor would have
 * them. */
static void move_elements(u8 *dst, const u8 *src, u64 count, u32 size, bool back)
{
	switch (size) {
	case 1:
		REP_MOVS("b");
		break;
	case 2:
		REP_MOVS("w");
		break;
	case 4:
		REP_MOVS("l");
		break;
	default:
		REP_MOVS("q");
		break;
	}
}

static void move_run(u8 *dst, const u8 *src, u64 count, u32 size, bool back)
{
	u64 bytes = count * size, before = back ? bytes - size : 0;
	u8 *dst_low = dst - before;
	const u8 *src_low = src - before;

	if (count == 1 || (u64)(dst_low - src_low) < bytes || (u64)(src_low - dst_low) < bytes)
		move_elements(dst, src, count, size, back);
	else
		gp_copy(dst_low, src_low, bytes);
}

static void fill_run(u8 *low, u64 value, u64 count, u32 size)
{
	switch (size) {
	case 1:
		__asm__ volatile("rep stosb" : "+D"(low), "+c"(count) : "a"(value) : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw" : "+D"(low), "+c"(count) : "a"(value) : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl" : "+D"(low), "+c"(count) : "a"(value) : "memory");
		break;
	default:
		__asm__ volatile("rep stosq" : "+D"(low), "+c"(count) : "a"(value) : "memory");
		break;
	}
}

static inline u64 load(const u8 *p, u32 size)
{
	switch (size) {
	case 1:
		return *p;
	case 2:
		return *(const u16 *)p;
	case 4:
		return *(const u32 *)p;
	default:
		return *(const u64 *)p;
	}
}

/* ---- MOVS, STOS, LODS ---- */

static u64 movs_run(struct soft_vcpu *v, const struct insn *i)
{
	enum x86_seg seg = (enum x86_seg)i->seg;
	u64 run = run_begin(v, i);
	struct side src = side_begin(v, i, seg, RSI, ACCESS_READ, &run);
	/* Faults of the source come before those of the destination. */
	u64 value = src.host ? 0 : read_element(v, &src, i->opsize, seg == SEG_SS);
	struct side dst = side_begin(v, i, SEG_ES, RDI, ACCESS_WRITE, &run);

	if (likely(src.host && dst.host)) {
		move_run(dst.host, src.host, run, i->opsize, backward(v));
		return run;
	}
	if (src.host)
		value = load(src.host, i->opsize);
	mem_write_linear(v, dst.linear, &value, i->opsize, v->mmu_index, false);
	return 1;
}

static u64 stos_run(struct soft_vcpu *v, const struct insn *i)
{
	u64 run = run_begin(v, i);
	struct side dst = side_begin(v, i, SEG_ES, RDI, ACCESS_WRITE, &run);
	u32 size = i->opsize;

	if (likely(dst.host)) {
		fill_run(dst.host - (backward(v) ? (run - 1) * size : 0), v->regs[RAX], run, size);
		return run;
	}
	mem_write_linear(v, dst.linear, &v->regs[RAX], size, v->mmu_index, false);
	return 1;
}

static u64 lods_run(struct soft_vcpu *v, const struct insn *i)
{
	enum x86_seg seg = (enum x86_seg)i->seg;
	u64 run = run_begin(v, i);
	struct side src = side_begin(v, i, seg, RSI, ACCESS_READ, &run);
	u32 size = i->opsize;
	u64 value;

	if (likely(src.host)) {
		u64 distance = (run - 1) * size;

		/* Only the last element is seen afterwards. */
		value = load(backward(v) ? src.host - distance : src.host + distance, size);
	} else {
		run = 1;
		value = read_element(v, &src, size, seg == SEG_SS);
	}
	v->regs[RAX] = merge(v->regs[RAX], value, size);
	return run;
}

static void repeat(struct soft_vcpu *v, const struct insn *i,
		   u64 (*do_run)(struct soft_vcpu *v, const struct insn *i), u32 which)
{
	string_begin(v, i, which & STRING_DESTINATION ? which : 0);
	while (!string_is_done(v, i)) {
		string_advance(v, i, do_run(v, i), i->opsize, which);
		if (must_leave(v, i))
			break;
	}
	string_next(v, i);
}

void op_movs(struct soft_vcpu *v, const struct insn *i)
{
	repeat(v, i, movs_run, STRING_SOURCE | STRING_DESTINATION);
}

void op_stos(struct soft_vcpu *v, const struct insn *i)
{
	repeat(v, i, stos_run, STRING_DESTINATION);
}

void op_lods(struct soft_vcpu *v, const struct insn *i)
{
	repeat(v, i, lods_run, STRING_SOURCE);
}

/* ---- CMPS, SCAS ---- */

/* The elements compared last. */
struct compared {
	u64 a, b;
};

/** The flags of a - b, in the form of soft_vcpu.arith. */
static u16 compare_flags(struct compared c, u32 size)
{
	u16 arith;

	switch (size) {
	case 1:
		__asm__("cmpb %b2, %b1; lahf; seto %%al"
			: "=&a"(arith)
			: "q"(c.a), "q"(c.b)
			: "cc");
		break;
	case 2:
		__asm__("cmpw %w2, %w1; lahf; seto %%al"
			: "=&a"(arith)
			: "r"(c.a), "r"(c.b)
			: "cc");
		break;
	case 4:
		__asm__("cmpl %k2, %k1; lahf; seto %%al"
			: "=&a"(arith)
			: "r"(c.a), "r"(c.b)
			: "cc");
		break;
	default:
		__asm__("cmpq %q2, %q1; lahf; seto %%al"
			: "=&a"(arith)
			: "r"(c.a), "r"(c.b)
			: "cc");
		break;
	}
	return arith;
}

/** Whether a repeat prefix ends here: F3 goes on while equal, F2 while not. */
static bool ends_repeat(const struct insn *i, struct compared c)
{
	return i->rep == 0xf3 ? c.a != c.b : c.a == c.b;
}

/** Compares up to @run elements, each pointer moving by its step, until the prefix ends. Returns
 * how many. */
__attribute__((always_inline)) static inline u64 compare_run(const struct insn *i, const u8 *a,
							     s64 step_a, const u8 *b, s64 step_b,
							     u64 run, u32 size,
							     struct compared *last)
{
	for (u64 done = 1;; done++) {
		last->a = load(a, size);
		last->b = load(b, size);
		if (done == run || ends_repeat(i, *last))
			return done;
		a += step_a;
		b += step_b;
	}
}

static u64 compare_elements(const struct insn *i, const u8 *a, s64 step_a, const u8 *b, s64 step_b,
			    u64 run, struct compared *last)
{
	switch (i->opsize) {
	case 1:
		return compare_run(i, a, step_a, b, step_b, run, 1, last);
	case 2:
		return compare_run(i, a, step_a, b, step_b, run, 2, last);
	case 4:
		return compare_run(i, a, step_a, b, step_b, run, 4, last);
	default:
		return compare_run(i, a, step_a, b, step_b, run, 8, last);
	}
}

static s64 step(const struct soft_vcpu *v, const struct insn *i)
{
	return backward(v) ? -(s64)i->opsize : i->opsize;
}

static u64 cmps_run(struct soft_vcpu *v, const struct insn *i, struct compared *last)
{
	enum x86_seg seg = (enum x86_seg)i->seg;
	u64 run = run_begin(v, i);
	/* Faults of the second operand come first, as processors do it. */
	struct side b = side_begin(v, i, SEG_ES, RDI, ACCESS_READ, &run);

	last->b = b.host ? load(b.host, i->opsize) : read_element(v, &b, i->opsize, false);

	struct side a = side_begin(v, i, seg, RSI, ACCESS_READ, &run);

	if (likely(a.host && b.host))
		return compare_elements(i, a.host, step(v, i), b.host, step(v, i), run, last);
	last->a = a.host ? load(a.host, i->opsize) : read_element(v, &a, i->opsize, seg == SEG_SS);
	return 1;
}

static u64 scas_run(struct soft_vcpu *v, const struct insn *i, struct compared *last)
{
	u64 run = run_begin(v, i);
	struct side b = side_begin(v, i, SEG_ES, RDI, ACCESS_READ, &run);
	u64 a = v->regs[RAX] & size_mask(i->opsize);

	if (likely(b.host))
		return compare_elements(i, (const u8 *)&a, 0, b.host, step(v, i), run, last);
	last->a = a;
	last->b = read_element(v, &b, i->opsize, false);
	return 1;
}

/** Flags are set once, at the end: a fault leaves them as they were before the instruction (SDM 2B
 * REP). */
static void repeat_compare(struct soft_vcpu *v, const struct insn *i,
			   u64 (*do_run)(struct soft_vcpu *v, const struct insn *i,
					 struct compared *last),
			   u32 which)
{
	struct compared last = {0};
	bool ended = false;

	string_begin(v, i, 0);
	if (string_is_done(v, i)) {
		v->rip = v->next_rip;
		return;
	}
	do {
		string_advance(v, i, do_run(v, i, &last), i->opsize, which);
		ended = !i->rep || string_is_done(v, i) || ends_repeat(i, last);
	} while (!ended && !must_leave(v, i));
	v->arith = compare_flags(last, i->opsize);
	if (ended)
		v->rip = v->next_rip;
	else
		string_pause(v);
}

void op_cmps(struct soft_vcpu *v, const struct insn *i)
{
	repeat_compare(v, i, cmps_run, STRING_SOURCE | STRING_DESTINATION);
}

void op_scas(struct soft_vcpu *v, const struct insn *i)
{
	repeat_compare(v, i, scas_run, STRING_DESTINATION);
}
