/*
 * A server for gdb's remote protocol ("GDB Remote Serial Protocol", the manual of gdb, appendix E),
 * in front of one machine.
 *
 *     gdb ──socket──► struct gdb ──engine.h──► registers, memory, KVM_SET_GUEST_DEBUG
 *                       │   ▲
 *         pause, resume ▼   │ gdb_debug_exit(), gdb_poke()
 *                     the machine's vCPU threads
 *
 * It lives on the thread of its event loop, and touches a machine only while all its vCPUs rest: so
 * guest and debugger need no locks against each other. It outlives a guest's resets.
 */
#ifndef GUISE_GDB_GDB_H
#define GUISE_GDB_GDB_H

#include "base/types.h"
#include "engine/engine.h"

struct error;
struct gdb;
struct guest_memory;
struct loop;

/** What the debugger is told that the processor is: it decides how gdb disassembles. */
enum gdb_arch {
	GDB_ARCH_AUTO, /* as the machine says */
	GDB_ARCH_X86_64,
	GDB_ARCH_I386,
	GDB_ARCH_I8086,
};

struct gdb_config {
	char address[256]; /* "tcp:[HOST:]PORT" or "unix:PATH" */
	bool wait; /* a machine waits at its first instruction until a debugger lets it go */
	enum gdb_arch arch;
};

/** How a machine moves. All on the loop's thread. */
struct gdb_machine_ops {
	/** Asks all vCPUs to rest; gdb_poke() follows for each that has come to it. */
	void (*pause)(void *opaque);
	bool (*at_rest)(void *opaque);
	/** Lets the vCPUs go whose bit in @cpus is set. All rest. */
	void (*resume)(void *opaque, u64 cpus);
	/** Ends the machine's run. */
	void (*kill)(void *opaque);
};

#define GDB_CPUS_MAX 64

struct gdb_machine {
	const struct engine *engine;
	struct engine_vm *engine_vm;
	const struct guest_memory *memory;
	struct engine_vcpu *cpus[GDB_CPUS_MAX];
	u32 cpu_count;
	enum gdb_arch arch; /* for GDB_ARCH_AUTO */
	const struct gdb_machine_ops *ops;
	void *opaque;
};

/**
 * Reads "ADDRESS[,nowait][,arch=x86-64|i386|i8086]". Returns 0, or -EINVAL with @err.
 */
int gdb_config_parse(struct gdb_config *config, const char *text, struct error *err);

/**
 * Listens where @config says; a TCP port without a host is on the loopback interface only.
 * Returns 0 and *out, or a negative errno with @err.
 */
int gdb_open(struct gdb **out, struct loop *loop, const struct gdb_config *config,
	     struct error *err);

/** Ends the connection. No machine is attached. NULL is fine. */
void gdb_close(struct gdb *gdb);

/** Where it listens, for people: "tcp:127.0.0.1:1234". */
const char *gdb_address(const struct gdb *gdb);

/** A new machine, all vCPUs at rest. A debugger that is connected already finds it stopped. 0, or a
 * negative errno with @err. */
int gdb_attach(struct gdb *gdb, const struct gdb_machine *machine, struct error *err);

/** Whether the machine is to start by itself; if not, its resume() comes later. */
bool gdb_lets_start(struct gdb *gdb);

/**
 * The attached machine has failed in vCPU @cpu, all are at rest: @text says how. Returns whether a
 * debugger is there to look at it, and will until gdb_is_looking() is false; the loop is stopped
 * then.
 */
bool gdb_failed(struct gdb *gdb, u32 cpu, const char *text);
bool gdb_is_looking(const struct gdb *gdb);

/** The machine goes away, all vCPUs at rest. */
void gdb_detach(struct gdb *gdb);

/** No other machine will follow; @status is the program's exit status, for the debugger. */
void gdb_end(struct gdb *gdb, int status);

/**
 * KVM_EXIT_DEBUG of vCPU @cpu, on its thread. Returns whether it runs on: the reason was the
 * guest's own and has been handed back. If not it has to come to rest.
 */
bool gdb_debug_exit(struct gdb *gdb, u32 cpu);

/** A vCPU has come to rest. Any thread. */
void gdb_poke(struct gdb *gdb);

#endif
