/*
 * A vCPU with 1 MiB of flat memory and nothing else: what the flow of control (exceptions, gates,
 * far transfers) is tested on. Paging is a single page that faults.
 */
#ifndef GUISE_TESTS_FLOW_MACHINE_H
#define GUISE_TESTS_FLOW_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/soft/system/descriptor.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"

#define RAM_SIZE  0x100000u
#define GDT	  0x1000u
#define IDT	  0x2000u
#define TSS	  0x4000u
#define TSS2	  0x5000u
#define LDT	  0x6000u
#define CODE	  0x8000u  /* where the guest is */
#define HANDLER	  0xa000u  /* where gates lead */
#define STACK0	  0x10000u /* RSP0 of the TSS */
#define STACK	  0x20000u /* the stack in use */
#define STACK_IST 0x30000u
#define DATA	  0x40000u /* memory operands */

/* Selectors of the GDT */
#define CODE0	 0x08
#define DATA0	 0x10
#define CODE64	 0x18
#define CODE3	 0x23
#define DATA3	 0x2b
#define CODE64U	 0x33
#define CONFORM	 0x38
#define ABSENT	 0x40
#define SEL_TSS	 0x48 /* 16 bytes */
#define SEL_TSS2 0x58 /* 16 bytes */
#define GATE	 0x68 /* 16 bytes */
#define SEL_LDT	 0x78 /* 16 bytes */
#define DATA_RO	 0x88
#define DATA16	 0x90
#define TASKGATE 0x98

struct machine {
	struct soft_vm vm;
	struct soft_vcpu *v;
	u8 ram[RAM_SIZE];
	jmp_buf back;
	u64 fault_page;		   /* linear page that raises #PF; ~0: none */
	u64 exit_page;		   /* linear page that leaves to the monitor; ~0: none */
	enum mmu_index last_index; /* of the last write */
	u32 irq_windows;
	int external; /* vector that the interrupt chips hold, or -1 */
};

/** The machine of the running test. */
extern struct machine *machine;

int machine_setup(void **state);
int machine_teardown(void **state);

/* Modes. All start at CODE with RSP = STACK, IF set, GDT, IDT and TSS in place. @cpl 0 or 3. */
void machine_long(u32 cpl);
void machine_protected(u32 cpl);
void machine_real(void);
void machine_v86(u32 io_privilege);

void poke(u64 linear, u32 size, u64 value);
u64 peek(u64 linear, u32 size);

/** A gate of @type (enum system_type) to @selector:@offset in the IDT of the current mode. */
void set_gate(u8 vector, u32 type, u32 dpl, u16 selector, u64 offset, u32 ist);
/** A code, data or system descriptor in the GDT; @access as in struct segment, limit in its own
 * units. */
void set_descriptor(u16 selector, u64 base, u32 limit, u32 access);

/** Calls @op with an instruction of @length 2; what it raises lands in v->events. true: it
 * returned. */
bool run_op(op_function *op, struct insn *i);
/** events_deliver(). true: it returned. */
bool run_events(void);

/** As the dispatcher does: delivers until nothing is pending or the vCPU shuts down. */
void settle(void);

static inline struct soft_vcpu *cpu(void)
{
	return machine->v;
}

/** raise_error() from outside of delivery, as an instruction would. */
void fault(u8 vector, u32 error);
/** INT n. */
void int_n(u8 vector);
void expect_selectors(u16 cs, u16 ss);

#define assert_raised(vector, error)                                                               \
	do {                                                                                       \
		assert_true(machine->v->events.exception);                                         \
		assert_int_equal(machine->v->events.exception_vector, (vector));                   \
		assert_true(machine->v->events.exception_has_error);                               \
		assert_int_equal(machine->v->events.exception_error, (error));                     \
	} while (0)

#endif
