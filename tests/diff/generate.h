/* How sequences are made. */
#ifndef GUISE_TESTS_DIFF_GENERATE_H
#define GUISE_TESTS_DIFF_GENERATE_H

#include "tests/diff/diff.h"
#include "tests/diff/random.h"

/*
 * What code and state of one sequence agree on. Three registers have a purpose: two bases point
 * into the data, the index is small. What writes them restores them.
 */
struct plan {
	enum kind kind;
	u32 mode;	/* translate/mode.h */
	u32 size;	/* bytes of an offset in this code: 2, 4, 8 */
	u32 stack_size; /* bytes of the stack pointer that count */
	u64 at;		/* linear address of the code */
	u64 rip;	/* CS-relative */
	struct ldt_entry ldt[LDT_SIZE];
	u16 seg[6];
	u32 data_base;	/* of DS */
	u32 extra_base; /* of ES */
	u64 gs_base;
	int base[2], index;
	u64 purpose[16]; /* values of those three, and RSP */
	bool strides;	 /* mostly what is in strides.c */
};

/* ---- plan.c ---- */

/** The plan of sequence @seed at linear address @at; @kinds: a bit for each kind that is wanted;
 * @strides: loops over memory in all of them, not only in some. */
void plan_make(struct plan *plan, u64 seed, u64 at, u32 kinds, bool strides);
void generate_state(struct random *r, const struct plan *plan, struct state *s);
/** A number of the sort that finds errors. */
u64 interesting(struct random *r);

/* ---- a sequence in the making ---- */

struct gen {
	struct random *r;
	const struct plan *plan;
	u8 *out;
	u32 used, room;
	u32 keep; /* registers that must not be written, bit by number */
};

static inline u64 here(const struct gen *g)
{
	return g->plan->rip + g->used;
}

static inline void put8(struct gen *g, u32 value)
{
	if (g->used < g->room)
		g->out[g->used] = (u8)value;
	g->used++;
}

static inline void put(struct gen *g, u64 value, u32 bytes)
{
	for (; bytes; bytes--, value >>= 8)
		put8(g, (u8)value);
}

/** Operand-size prefix for @bytes-sized operands (2, 4; 8: REX.W in 64-bit code). */
void put_size(struct gen *g, u32 bytes);
/** MOV @reg, @value: all of the register. */
void put_mov(struct gen *g, int reg, u64 value);
/** Writes the registers with a purpose anew. */
void put_purpose(struct gen *g);
/** An offset in DS that is in the data, mostly; one in @wild times near its ends. */
u64 data_offset(struct gen *g, u32 wild);

/** One instruction of any sort that reads and writes what it may. */
void put_any(struct gen *g);
/** The same into a buffer of at least 15 bytes, as at @rip; returns its length. */
u32 make_any(struct gen *g, u8 *out, u64 rip);

/* ---- flow.c ---- */
/** One of the first eight registers that has no purpose and may be written. */
int spare_register(struct gen *g);
void put_skip(struct gen *g);
void put_loop(struct gen *g);
void put_jump(struct gen *g);
void put_call(struct gen *g);

/* ---- data.c ---- */
void put_string(struct gen *g);
void put_compare_exchange(struct gen *g);
void put_table(struct gen *g);
void put_gs(struct gen *g);

/* ---- vector.c ---- */
void put_masked(struct gen *g);
void put_gather(struct gen *g);

/* ---- stack.c ---- */
void put_frame(struct gen *g);
void put_all_registers(struct gen *g);
void put_flags(struct gen *g);
void put_segment(struct gen *g);

/* ---- faults.c ---- */
void put_unmasked(struct gen *g);
void put_forbidden(struct gen *g);

/* ---- selfmod.c ---- */
void put_self_modification(struct gen *g);

/* ---- strides.c ---- */
void put_strides(struct gen *g);
void put_fields(struct gen *g);

/* ---- generate.c ---- */

/** Writes a sequence of @count parts (mostly instructions) for @plan to @out; returns bytes. */
u32 generate(struct random *r, const struct plan *plan, u8 *out, u32 room, u32 count);

#endif
