/*
 * Run-time tracing by subsystem, `--trace SUBSYSTEM[=LEVEL]`.
 *
 * Level 1: rare events (mode changes, device set-up). Level 2: every event of the subsystem.
 * Level 3: every event with its data. The mask is process-wide on purpose: it is a property of the
 * program's diagnostics, not of a VM. Lines go to stderr.
 */
#ifndef GUISE_DEBUG_TRACE_H
#define GUISE_DEBUG_TRACE_H

#include "base/types.h"

struct error;

/* name, what it shows */
#define TRACE_SUBSYSTEMS(X)                                                                        \
	X(exit, "exits from the engine to the monitor")                                            \
	X(irq, "interrupt lines, vectors accepted and delivered")                                  \
	X(exception, "exceptions delivered to the guest")                                          \
	X(mode, "processor mode changes, control registers")                                       \
	X(msr, "MSR reads and writes")                                                             \
	X(cpuid, "CPUID leaves asked for")                                                         \
	X(translate, "blocks translated and thrown away")                                          \
	X(mmu, "TLB misses and flushes")                                                           \
	X(io, "port I/O and MMIO reaching devices")                                                \
	X(vmx, "VM entries and exits of a hypervisor in the guest")                                \
	X(boot, "how the kernel was loaded")

enum trace_subsystem {
#define X(name, what) TRACE_##name,
	TRACE_SUBSYSTEMS(X)
#undef X
	    TRACE_COUNT
};

extern u8 trace_level[TRACE_COUNT];

/** Whether lines of @level are wanted; cheap enough for any path but translated code. */
#define trace_on(sub, level) unlikely(trace_level[TRACE_##sub] >= (level))

/** One line of trace, without newline. The caller asked trace_on() first. Any thread. */
void trace_line(enum trace_subsystem sub, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define trace(sub, level, ...)                                                                     \
	do {                                                                                       \
		if (trace_on(sub, level))                                                          \
			trace_line(TRACE_##sub, __VA_ARGS__);                                      \
	} while (0)

/** trace_line() for code that runs while guest vector registers are live: saves and restores them.
 */
void trace_line_gp(enum trace_subsystem sub, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/** The same for more than a line: calls @write(@opaque), which is ordinary code. */
void trace_call_gp(void (*write)(void *opaque), void *opaque);

#define trace_gp(sub, level, ...)                                                                  \
	do {                                                                                       \
		if (trace_on(sub, level))                                                          \
			trace_line_gp(TRACE_##sub, __VA_ARGS__);                                   \
	} while (0)

/**
 * Sets levels from "SUB[=LEVEL],..." ("all" names every subsystem; default level 1).
 * Returns 0, or -EINVAL with @err naming the word that was not understood and the known ones.
 */
int trace_configure(const char *spec, struct error *err);

#endif
