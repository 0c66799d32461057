/*
 * Differential test of the soft engine: the same random user-mode instructions on the host's processor and through
 * the translator, at the same addresses, with the same state before; everything compared after.
 */
#ifndef GUISE_TESTS_DIFF_H
#define GUISE_TESTS_DIFF_H

#include "base/types.h"

/* Where things lie, natively and in the guest's linear addresses. */
#define CODE_BASE 0x10000000ull
#define CODE_SIZE 0x01000000ull
#define DATA_BASE 0x20000000ull /* between two unmapped pages */
#define DATA_SIZE 0x4000ull
#define STACK_TOP (DATA_BASE + 0x1000)

/* State at the start, and at the trap that ends a run. */
struct state {
	u64 regs[16]; /* encoding order */
	u64 rip;
	u64 rflags;
	u64 vector;   /* exception that ended the run; 3: the INT3 behind the sequence */
	u64 cr2;      /* address, if the vector is 14 */
	_Alignas(64) u8 xsave[1088]; /* standard format: x87, SSE, AVX */
	u8 data[DATA_SIZE];
};

/* ---- native.c ---- */
int native_init(void);
/** Copies @in's data to DATA_BASE, runs the code at in->rip, fills @out. */
void native_run(const struct state *in, struct state *out);

/* ---- guest.c ---- */
int guest_init(void);
void guest_run(const struct state *in, struct state *out);
/** The guest's copy of the code region. */
u8 *guest_code(void);
/** After the code region has been filled anew from its start. */
int guest_forget_code(void);

/* ---- generate.c ---- */
struct random {
	u64 s;
};

u64 random_next(struct random *r);
/** Writes a sequence of @count instructions for address @rip to @out (at most @room bytes); returns bytes. */
u32 generate(struct random *r, u8 *out, u32 room, u32 count, u64 rip);
void generate_state(struct random *r, struct state *s);

#endif
