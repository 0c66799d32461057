/* VM-exit instruction information: SDM 3C 28.2.5, tables 28-8 to 28-14. Inside. */
#ifndef GUISE_SOFT_VMX_INFORMATION_H
#define GUISE_SOFT_VMX_INFORMATION_H

#include "engine/soft/vmx/vmx.h"

/** The memory operand: scaling, address size, segment, index, base. @i has one. */
u32 vmx_information_memory(const struct insn *i);
/** The ModRM operand: the same, or bit 10 and the register. */
u32 vmx_information_operand(const struct insn *i);
/** Exit qualification of instructions with a memory operand: its displacement, with RIP added where
 * it is relative to that. */
u64 vmx_operand_displacement(const struct soft_vcpu *v, const struct insn *i);

/** Leaves with the description of the ModRM operand, and register operand @reg in bits 31:28. */
_Noreturn void vmx_exit_operand(struct soft_vcpu *v, const struct insn *i, u32 reason, u32 reg);

#endif
