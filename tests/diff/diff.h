/*
 * Differential test of the soft engine: the same random user-mode instructions on the host's
 * processor and through the translator, at the same addresses, with the same state before;
 * everything compared after.
 */
#ifndef GUISE_TESTS_DIFF_H
#define GUISE_TESTS_DIFF_H

#include "base/types.h"
#include "engine/soft/system/xstate.h"

/* Where things lie, natively and in the guest's linear addresses. */
#define CODE_BASE 0x10000000ull
#define CODE_SIZE 0x01000000ull
#define DATA_BASE 0x20000000ull /* between two unmapped pages */
#define DATA_SIZE 0x4000ull
#define STACK_TOP (DATA_BASE + 0x1000)

/* Bytes that one sequence may take. */
#define SEQUENCE_ROOM 2048

/* What kind of code a sequence is. */
enum kind {
	KIND_64,
	KIND_32,     /* compatibility mode, flat segments */
	KIND_32_SEG, /* segments with bases and limits, in the LDT */
	KIND_16,     /* 16-bit code segment, the others as above */
	KIND_COUNT
};

/* Selectors as Linux has them; the guest's GDT has the same. */
#define USER_CS32 0x23
#define USER_DS	  0x2b
#define USER_CS64 0x33

#define LDT_SIZE	8
#define LDT_SELECTOR(n) ((u16)((n) << 3 | 7))

/* A code or data segment of privilege level 3. */
struct ldt_entry {
	u32 base, limit; /* limit in bytes, at most 1 MiB */
	bool defined, absent;
	bool code, big;	  /* big: D/B */
	bool expand_down; /* data: expand down; code: conforming */
	bool fixed;	  /* data: read-only; code: execute-only */
};

/** Where extended state lies, and what of it both sides have. */
extern struct xstate_layout xstate;

/* State at the start, and at the trap that ends a run. */
struct state {
	u64 regs[16]; /* encoding order */
	u64 rip;      /* CS-relative */
	u64 rflags;
	u16 seg[6];  /* selectors, enum x86_seg; not FS */
	u64 gs_base; /* 64-bit code only */
	u64 vector;  /* exception that ended the run; 3: the INT3 behind the sequence */
	u64 error;   /* error code, 0 if the exception has none */
	u64 cr2;     /* address, if the vector is 14 */
	_Alignas(64) u8 xsave[XSAVE_AREA_SIZE]; /* standard format: x87, SSE, AVX, AVX-512 */
	u8 data[DATA_SIZE];
};

/* ---- native.c ---- */

/** Maps code and data and finds out which kinds of code run here: @kinds gets a bit for each. 0 or
 * -errno. */
int native_init(u32 *kinds);
/** Copies @in's data to DATA_BASE, runs the code at in->rip with @ldt, fills @out. */
void native_run(const struct state *in, const struct ldt_entry *ldt, struct state *out);

/* ---- guest.c ---- */
int guest_init(void);
void guest_run(const struct state *in, const struct ldt_entry *ldt, struct state *out);
/** The guest's copy of the code region. */
u8 *guest_code(void);
/** After the code region has been filled anew from its start. */
int guest_forget_code(void);

/* ---- compare.c ---- */

/* What a fault need not show exactly. */
struct leeway {
	u64 live;	  /* arithmetic flags that it must show */
	u64 cr2;	  /* bits of the address that must be right */
	bool x87, mxcsr;  /* what may differ */
	bool below_stack; /* a CALL beyond the limit has written its return address, or not */
};

/** For a fault of the instruction at @code, CS-relative @rip. */
struct leeway leeway_at(const u8 *code, u64 rip, u32 mode);
/** Whether @native and @guest are the same as far as they must be; prints the differences unless
 * @silently. */
bool compare(struct state *native, struct state *guest, struct leeway leeway, bool silently);

#endif
