/* A vCPU around which everything but system state is a stand-in: flat memory, no TLB, faults that
 * jump back. */
#ifndef GUISE_TESTS_STATE_FIXTURE_H
#define GUISE_TESTS_STATE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/soft/system/features.h"
#include "engine/soft/translate/ops.h"

#define MEMORY_SIZE 0x10000u
#define NO_FAULT    (-1)
#define EPT_RAISED  0x100 /* ept_raise() was called */

struct world {
	u8 memory[MEMORY_SIZE];
	u32 flushes, flushes_all, page_flushes, wp_flushes, switches, pcid_flushes;
	u64 flushed_page, flushed_pcid;
	bool switch_kept;
	bool pdptrs_valid, pdptrs_refused; /* refused: by EPT */
	u32 pdptr_loads;
	u64 tsc;	 /* host TSC */
	u32 error;	 /* error code of the last fault */
	u64 lapic_value; /* of the one register that lapic_msr() has */
	u64 tpr;
	u32 clock_updates;
};

extern struct world world;

/** A vCPU after RESET, in @world; supported CPUID set. Free with vcpu_free(). */
struct soft_vcpu *vcpu_new(void);
void vcpu_free(struct soft_vcpu *v);

/** Puts the vCPU into 64-bit mode at CPL 0, paging on. */
void enter_long_mode(struct soft_vcpu *v);

/** Runs @op on @i; the vector it raised, or NO_FAULT. */
int run_op(struct soft_vcpu *v, op_function *op, struct insn i);

/** Writes or reads an MSR by instruction; the vector raised, or NO_FAULT. */
int guest_wrmsr(struct soft_vcpu *v, u32 index, u64 value);
int guest_rdmsr(struct soft_vcpu *v, u32 index, u64 *value);

#endif
