/*
 * A soft vCPU without a translator: RAM, page tables, and what the rest of the engine would have
 * done. raise*(), vcpu_exit() and vcpu_resume() come back to RUN(), which says how its expression
 * ended.
 */
#ifndef GUISE_TESTS_SOFT_FIXTURE_H
#define GUISE_TESTS_SOFT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/soft/mmu/io.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"

#define RAM_SIZE (16ull << 20) /* at guest-physical 0 */
#define ROM_BASE 0x40000000ull /* one read-only page */
#define NO_RAM	 0x80000000ull /* nothing is here */

/* Bits of page-table entries. */
#define P  0x01ull
#define W  0x02ull
#define U  0x04ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define G  0x100ull
#define NX BIT(63)

enum ending { ENDED, RAISED, EXITED, RESUMED, EPT_FAULT };

struct fixture {
	struct soft_vm vm;
	struct soft_vcpu *v;
	u8 *ram, *rom;
	jmp_buf back;
	/* what the last RUN() ended with */
	u8 vector;
	bool has_error;
	u32 error;
	u64 cr2;
	/* not NULL: where the vector registers go when an instruction raises or exits */
	u8 (*vectors)[32];
	/* what blocks_invalidate() was told last */
	u64 invalidated_gpa;
	u32 invalidated_size, invalidations;
};

/** The fixture of the running test; tests run one at a time. */
extern struct fixture *fixture;

/** cmocka set-up and tear-down: a vCPU in 64-bit mode at CPL 0 without paging, all TLBs empty. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/** Runs statements; how they ended. */
#define RUN(...)                                                                                   \
	({                                                                                         \
		int ending_ = setjmp(fixture->back);                                               \
		if (ending_ == 0) {                                                                \
			__VA_ARGS__;                                                               \
		}                                                                                  \
		(enum ending) ending_;                                                             \
	})

/* Assembly that moves the 16 YMM registers to or from memory at register @at. */
#define YMM_STORE(n, at) "vmovdqu %%ymm" #n ", 32*" #n "(" at ");"
#define YMM_LOAD(n, at)	 "vmovdqu 32*" #n "(" at "), %%ymm" #n ";"
/* clang-format off */
#define YMM_ALL(X, at)                                                                             \
	X(0, at)                                                                                   \
	X(1, at) X(2, at) X(3, at) X(4, at) X(5, at) X(6, at) X(7, at) X(8, at) X(9, at) X(10, at) \
	    X(11, at) X(12, at) X(13, at) X(14, at) X(15, at)
/* clang-format on */

/** Checks that statements raise @vector with @code (#PF: CR2 is in fixture->cr2). */
#define ASSERT_RAISES(vec, code, ...)                                                              \
	do {                                                                                       \
		fixture->vector = 0xff;                                                            \
		assert_int_equal(RUN(__VA_ARGS__), RAISED);                                        \
		assert_int_equal(fixture->vector, (vec));                                          \
		assert_int_equal(fixture->error, (code));                                          \
	} while (0)

#define ASSERT_ENDS(...) assert_int_equal(RUN(__VA_ARGS__), ENDED)

/**
 * Turns on 4-level paging with tables from 0x100000 on: maps nothing yet. MAP adds 4 KiB pages.
 */
void fixture_paging(void);
/** Maps @linear to @gpa with @flags in the leaf (upper levels allow all). Flushes nothing. */
void fixture_map(u64 linear, u64 gpa, u64 flags);
/** The leaf entry of a page mapped by fixture_map(). */
u64 *fixture_pte(u64 linear);

/** Legacy protected mode, flat 32-bit segments, no paging; @code: MODE_CODE16 or MODE_CODE32. */
void fixture_protected(u32 code);

#endif
