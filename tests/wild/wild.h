/*
 * Guests that run wild on the soft engine: whatever a guest does, the monitor's process lives on, a
 * kick brings vcpu_run() back, and no byte outside the guest's memory changes.
 */
#ifndef GUISE_TESTS_WILD_H
#define GUISE_TESTS_WILD_H

#include <pthread.h>

#include "base/types.h"
#include "engine/engine.h"

#define RAM_SIZE 0x200000u

/* Where a guest's structures lie by default */
#define CODE_SIZE   0x40000u
#define GDT_GPA	    0x40000u
#define IDT_GPA	    0x41000u
#define TSS_GPA	    0x42000u
#define TSS2_GPA    0x43000u
#define HANDLER_GPA 0x44000u /* an IRET per mode */
#define STACK_TOP   0x80000u
#define PML4_GPA    0x100000u
#define PDPT_GPA    0x101000u
#define PD_GPA	    0x102000u /* first GiB, 2 MiB pages, used by PML4 and PAE alike */
#define PAE_GPA	    0x103000u
#define PD32_GPA    0x104000u
#define PT_GPA	    0x105000u /* 4 KiB pages of the first 2 MiB */

/* Selectors of the default GDT */
#define SEL_CODE64 0x08
#define SEL_CODE32 0x10
#define SEL_DATA   0x18
#define SEL_CODE16 0x20
#define SEL_USER32 0x2b
#define SEL_USERD  0x33
#define SEL_USER64 0x3b
#define SEL_TSS	   0x40 /* 16 bytes */
#define SEL_TSS2   0x50
#define SEL_LDT	   0x60 /* 16 bytes */
#define SEL_GATE   0x70 /* task gate to TSS2 */
#define SEL_CALL   0x78 /* call gate, 16 bytes */
#define GDT_LIMIT  0x87

enum wild_mode { MODE_REAL, MODE_PROTECTED, MODE_PAGED, MODE_PAE, MODE_LONG, MODE_V86, WILD_MODES };

struct random {
	u64 s;
};

/* The thread that brings a guest back. */
struct watchdog {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct engine_vcpu *vcpu; /* NULL: nothing to watch */
	u64 deadline;		  /* CLOCK_MONOTONIC ns */
	bool stop;
};

struct wild {
	struct random random;
	u64 seed; /* of this guest */
	u32 number;
	const char *name; /* what the guest is about */
	const struct engine *engine;
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	u8 *area; /* canary, guard, RAM, guard, canary */
	u8 *ram;
	int fd; /* whose memory that is */
	bool irqchip;
	enum wild_mode mode;
	u32 layout;
	struct kvm_regs regs; /* for the start; the scenario changes them */
	struct kvm_sregs sregs;
	struct watchdog watchdog;
	u64 exits, kicks; /* totals over all guests */
};

/* ---- machine.c ---- */
u64 random_next(struct random *r);
/** 0 to @bound - 1 */
u32 random_below(struct random *r, u32 bound);
static inline bool one_in(struct random *r, u32 n)
{
	return random_below(r, n) == 0;
}
void random_fill(struct random *r, void *p, size_t bytes);
/** An address or number that tends to lie where something ends or begins. */
u64 random_edge(struct random *r);

int wild_init(struct wild *w);
void wild_destroy(struct wild *w);
/** A new VM for guest @number: memory, maybe interrupt chips, vCPU, w->regs and w->sregs for @mode.
 */
void wild_create(struct wild *w, u64 seed, u32 number, enum wild_mode mode);
/** Sets w->regs and w->sregs, which the engine must take, and runs until the guest ends or is
 * kicked. */
void wild_start(struct wild *w);
/** Runs at the vCPU's state, whatever it is. */
void wild_run(struct wild *w);
/** Looks at what must not have changed and frees the VM. */
void wild_end(struct wild *w);
/** Says why guest @w failed and ends the program. */
_Noreturn void wild_fail(const struct wild *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- code.c: what guests are made of ---- */
/** Fills the code area: random bytes or random instructions of a random family. */
void code_random(struct wild *w);
/** One instruction that looks valid; returns its bytes (at most 24). */
u32 code_instruction(struct random *r, u8 *out);
u32 code_system(struct random *r, u8 *out);
u32 code_string(struct random *r, u8 *out);
/** @bytes of instructions made by @make at @out. */
void code_fill(struct random *r, u8 *out, u32 bytes, u32 (*make)(struct random *, u8 *));

/* ---- structures.c, state.c ---- */
struct scenario {
	const char *name;
	void (*setup)(struct wild *w); /* after wild_create(); changes RAM, w->regs, w->sregs */
};

extern const struct scenario structure_scenarios[];
extern const u32 structure_scenario_count;

/** Random values through every function that sets state, a run between. */
void state_guest(struct wild *w);
/** Some calls that a monitor makes between two runs, with random values. */
void state_disturb(struct wild *w);

#endif
