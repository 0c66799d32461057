/*
 * A machine: guest memory, buses, devices and vCPUs around an engine.
 *
 * Built by vm_create() from top to bottom, run once by vm_run(), and thrown away: a guest's reset
 * is a new machine from the same configuration. The thread that creates a machine runs it and
 * destroys it; its event loop runs on that thread, every vCPU on one of its own.
 */
#ifndef GUISE_VM_VM_H
#define GUISE_VM_VM_H

#include <stdio.h>

#include "boot/boot.h"
#include "engine/engine.h"

struct error;
struct gdb;
struct input;
struct loop;
struct output;
struct vm;

struct vm_engine_option {
	const char *name, *value;
};

/** What a machine is made of. Everything it points to stays valid while the machine exists. */
struct vm_config {
	const struct engine *engine;
	const char *engine_device; /* for engine->vm_create(), NULL: its usual one */
	u64 memory_size;	   /* bytes, see guest_memory_create() */
	struct boot_image_request boot;
	struct loop *loop;
	struct output *console;	   /* text from the debug ports */
	struct output *serial_out; /* NULL: the machine has no serial port */
	struct input *serial_in;   /* NULL: nothing ever arrives at the serial port */
	const struct vm_engine_option *engine_options; /* for engine->vm_set_option(), in order */
	u32 engine_option_count;
	struct gdb *gdb;  /* NULL: nobody debugs */
	bool test_device; /* with devices/test_device.h and devices/fw_cfg.h */
};

/** How a run ended. */
enum vm_end {
	VM_POWERED_OFF,	 /* ACPI S5 */
	VM_EXITED,	 /* debug-exit port, with success */
	VM_EXITED_BADLY, /* debug-exit port, with another code */
	VM_HALTED,	 /* a flat image halted: that is how those end */
	VM_RESET,	 /* the guest asked for a reset */
	VM_INTERRUPTED,	 /* vm_interrupt() */
	VM_GUEST_FAILED, /* vm_dump() has more */
	VM_HOST_FAILED,
};

struct vm_result {
	enum vm_end end;
	char text[256]; /* for failures: one line that says what happened */
};

/**
 * Builds a machine and loads its image; no guest code runs yet.
 * Returns 0 and *out, or a negative errno with @err.
 */
int vm_create(struct vm **out, const struct vm_config *config, struct error *err);

/** Stops and frees everything. NULL is fine. */
void vm_destroy(struct vm *vm);

/** Runs the machine until it ends; every vCPU is paused when this returns. Once for a machine. */
void vm_run(struct vm *vm, struct vm_result *result);

/**
 * Ends the run from outside, as VM_INTERRUPTED, or as VM_HOST_FAILED with @text. The first reason
 * to end is the one that counts. Any thread.
 */
void vm_interrupt(struct vm *vm);
void vm_fail(struct vm *vm, const char *text);

/** After vm_run(): the state of the vCPU that ended it, for people to read. */
void vm_dump(struct vm *vm, FILE *out);

/** After vm_run(): adds every vCPU's counters to @stats. */
void vm_add_stats(struct vm *vm, struct engine_stats *stats);

#endif
