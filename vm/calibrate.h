/*
 * How fast an engine really is, and which one `auto` takes.
 *
 * That /dev/kvm exists says little: on some hosts (PVM, nested without hardware help) kernel-mode
 * guest code is emulated at about a million instructions a second, and a stock kernel never comes
 * up.
 */
#ifndef GUISE_VM_CALIBRATE_H
#define GUISE_VM_CALIBRATE_H

#include "base/types.h"

struct engine;
struct error;

/**
 * Whether @kernel_mips, an engine's speed in kernel mode, is that of an emulation: slow by itself
 * and against what this host's processor does. (A host that is emulated as a whole is slow at
 * everything.)
 */
bool calibrate_is_slow(double kernel_mips);

/** Budget that is enough to tell slow from fast; more makes the number better. */
#define CALIBRATE_BUDGET_QUICK_NS 1000000ull
#define CALIBRATE_BUDGET_CHECK_NS 20000000ull

enum calibrate_mode {
	CALIBRATE_KERNEL, /* CPL 0 */
	CALIBRATE_USER,	  /* CPL 3 */
};

/**
 * Runs a loop of ordinary instructions in long mode on a small VM of its own, for about @budget_ns
 * and up to 25 times as long where the host is too slow to measure anything in that time, whatever
 * the engine does. Returns 0 and millions of instructions a second (more than 0) in *mips, or a
 * negative errno with @err.
 */
int calibrate(const struct engine *engine, enum calibrate_mode mode, u64 budget_ns, double *mips,
	      struct error *err);

/**
 * The engine that `auto` stands for here: the first of engines[] that is usable and not slow in
 * kernel mode; if all are slow, the first that is usable. @why gets a line that says so (size
 * bytes). Returns NULL with @err if no engine is usable.
 */
const struct engine *calibrate_choose(char *why, size_t size, struct error *err);

#endif
