/*
 * Exceptions and interrupts: raising them and delivering them through the IDT.
 * SDM vol. 3A chapter 6; real mode: 20.1.4; virtual-8086: 20.3.
 *
 * raise*() is called while an instruction is executed, with v->rip at its start. It records the
 * exception in v->events and abandons the instruction (vcpu_resume()); the dispatcher then calls
 * events_deliver().
 */
#ifndef GUISE_SOFT_EXCEPTION_H
#define GUISE_SOFT_EXCEPTION_H

#include "engine/soft/vcpu.h"

/** Exception without error code. Inside, never returns. (To the linker not libc's raise(), which
 * others call.) */
_Noreturn void raise(struct soft_vcpu *v, u8 vector) __asm__("guise_raise");

/** Exception with error code. Inside, never returns. */
_Noreturn void raise_error(struct soft_vcpu *v, u8 vector, u32 error);

/** #PF: @linear goes to CR2 at delivery, @error as SDM 3A 4.7. Inside, never returns. */
_Noreturn void raise_pf(struct soft_vcpu *v, u64 linear, u32 error);

static inline _Noreturn void raise_gp(struct soft_vcpu *v, u32 error)
{
	raise_error(v, EXC_GP, error);
}

static inline _Noreturn void raise_ud(struct soft_vcpu *v)
{
	raise(v, EXC_UD);
}

/**
 * Delivers what is pending at an instruction boundary, by the priorities of SDM 3A 6.9 (recorded
 * exception, trap #DB, NMI, external interrupt if IF and no shadow). At most one event. Faults
 * during delivery become double faults by table 6-5, then a triple fault (v->events.triple_fault).
 * Called by the dispatcher. Inside; returns even when delivery itself faults (a fault during
 * delivery unwinds by vcpu_resume() with the nested exception recorded: delivery keeps
 * v->delivering to tell).
 */
void events_deliver(struct soft_vcpu *v);

/** Whether events_deliver() would do something now. */
bool events_pending(const struct soft_vcpu *v);

/** Whether an interrupt or NMI would be delivered now but for the monitor's debugger
 * (KVM_GUESTDBG_BLOCKIRQ): it still ends HLT. */
bool events_held_back(const struct soft_vcpu *v);

#endif
