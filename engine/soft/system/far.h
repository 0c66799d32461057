/* Pieces shared by far returns and far jumps: IRET, RET, JMP, CALL. Private to system/. Inside. */
#ifndef GUISE_SOFT_FAR_H
#define GUISE_SOFT_FAR_H

#include "engine/soft/system/descriptor.h"
#include "engine/soft/translate/insn.h"

/** Offset of what lies @delta bytes behind @ea, in the instruction's address size. */
static inline u64 ea_plus(const struct insn *i, u64 ea, u32 delta)
{
	u64 sum = ea + delta;

	return i->addrsize == 8 ? sum : i->addrsize == 4 ? (u32)sum : (u16)sum;
}

/* What a return found on the stack, and what it was found to mean. */
struct far_return {
	u64 rip;
	u16 cs_selector;
	u64 rsp;	 /* outer only */
	u16 ss_selector; /* outer only */
	struct descriptor code;
	struct descriptor stack;
	struct segment cs;
	struct segment ss;
};

/**
 * Checks r->cs_selector as the target of RET or IRET (SDM 2B RET, 2A IRET) and fills r->cs; an
 * outer level is SELECTOR_RPL(r->cs_selector) > CPL.
 */
void far_return_check_code(struct soft_vcpu *v, struct far_return *r);

/** Checks r->ss_selector as the stack of the level returned to, and fills r->ss. After check_code.
 */
void far_return_check_stack(struct soft_vcpu *v, struct far_return *r);

/** Loads CS:RIP, and for @outer SS, CPL and the data segments; @rsp_delta is added to r->rsp.
 * Writes accessed bits first. */
void far_return_commit(struct soft_vcpu *v, struct far_return *r, bool outer, u32 rsp_delta);

#endif
