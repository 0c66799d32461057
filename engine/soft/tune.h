/*
 * What makes the soft engine fast, each thing with a name, so that it can be switched off alone
 * (--tune NAME=off): to find which one is at fault, and to measure what it gives. Nothing here
 * changes what a guest can see but its speed, unless its row says so. A VM's tuning is fixed before
 * its first vCPU exists.
 */
#ifndef GUISE_SOFT_TUNE_H
#define GUISE_SOFT_TUNE_H

#include "base/types.h"

struct error;

/* name, what it does */
#define SOFT_TUNINGS(X)                                                                            \
	X(inline_ops,                                                                              \
	  "short system instructions (CLI, STI, SWAPGS, STAC, RDTSC...) without a call")           \
	X(strings, "short REP MOVS and REP STOS without C")                                        \
	X(syscalls, "SYSCALL and SYSRET without the dispatcher")                                   \
	X(exits,                                                                                   \
	  "what a thread knows kept between exits, no system call, timer or clock for each")       \
	X(halts, "a halted vCPU waits awake for a timer that is due very soon")                    \
	X(groups, "one address check for several accesses by the same registers")                  \
	X(constants, "addresses known to the translator looked up without computing their slot")   \
	X(loops, "address checks moved out of loops of one block")                                 \
	X(kept, "flags that an instruction may leave alone are not taken for read by it")          \
	X(forms, "instructions decoded by comparing with earlier ones of the same form")           \
	X(traces, "blocks that go on behind branches")                                             \
	X(avx512, "AVX-512, if the host has it; off, guests are not told of it")                   \
	X(xsaveopt, "the world switch saves what the guest has changed alone")                     \
	X(halves, "accesses across the end of a page by two look-ups")                             \
	X(crossings, "blocks across the end of a page found through the jump cache")               \
	X(flushes, "only TLB entries in use touched by a flush, and fewer flushes")                \
	X(walks, "page walks that set nothing and meet no fault done apart")                       \
	X(writers, "where a page is entered for writing known, for when it gets code")             \
	X(ways, "four slots of the jump caches for each address, not one")                         \
	X(contexts, "TLBs and jump caches kept for each PCID")                                     \
	X(operations, "TLBs and jump caches of a nested guest kept between VM exit and entry")     \
	X(shadow, "memory of programs that keep running found by the host's MMU")                  \
	X(far, "direct jumps between the pages of such programs linked")                           \
	X(patience,                                                                                \
	  "programs have to run for some time for that; off, for the tests, they need not")

struct soft_tuning {
#define X(name, what) bool name;
	SOFT_TUNINGS(X)
#undef X
};

/* The environment variable whose value is applied to every new VM as tuning_parse() takes it. For
 * tests, which reach engines in other ways than the command line. */
#define SOFT_TUNING_VARIABLE "GUISE_TUNE"

/* A line a row, for people. */
extern const char tuning_help[];

/** Everything on. */
void tuning_default(struct soft_tuning *tuning);

/** Applies "NAME=on|off[,...]"; "all" is every name. Returns 0, or -EINVAL with @err: then @tuning
 * is partly changed. */
int tuning_parse(struct soft_tuning *tuning, const char *text, struct error *err);

#endif
