/*
 * Instructions done by a C function called from translated code: the sensitive ones (those of the
 * privileged architecture, and those that break Popek and Goldberg's theorem) and the rare ones.
 *
 * One list feeds the enum, the table of functions and the table of properties.
 *   OP(name, properties)   implemented as  void op_<name>(struct soft_vcpu *v, const struct insn
 * *i) Properties OP_ENDS   control leaves the block: the op sets v->rip (v->next_rip, or a target).
 * Without it translated code goes on with the next instruction and v->rip is not looked at.
 *   OP_SHADOW the next instruction is in an interrupt shadow (STI, MOV SS, POP SS): the op sets
 *             v->int_shadow, the translator ends the block after one more instruction.
 *   OP_EXIT   counts as a light exit: on KVM the processor would leave the guest for it.
 */
#ifndef GUISE_SOFT_OPS_H
#define GUISE_SOFT_OPS_H

#include "engine/soft/translate/insn.h"

#define OP_ENDS	  1
#define OP_SHADOW 2
#define OP_EXIT	  4

/* system/: interrupts, segments, far control transfer */
#define SYSTEM_FLOW_OPS(OP)                                                                        \
	OP(cli, 0)                                                                                 \
	OP(sti, OP_SHADOW)                                                                         \
	OP(pushf, 0)                                                                               \
	OP(popf, OP_ENDS)                                                                          \
	OP(iret, OP_ENDS)                                                                          \
	OP(int_n, OP_ENDS)                                                                         \
	OP(int3, OP_ENDS)                                                                          \
	OP(int1, OP_ENDS)                                                                          \
	OP(into, OP_ENDS)                                                                          \
	OP(hlt, OP_ENDS | OP_EXIT)                                                                 \
	OP(lgdt, 0)                                                                                \
	OP(lidt, 0)                                                                                \
	OP(sgdt, 0)                                                                                \
	OP(sidt, 0)                                                                                \
	OP(lldt, 0)                                                                                \
	OP(sldt, 0)                                                                                \
	OP(ltr, 0)                                                                                 \
	OP(str, 0)                                                                                 \
	OP(lar, 0)                                                                                 \
	OP(lsl, 0)                                                                                 \
	OP(verr, 0)                                                                                \
	OP(verw, 0)                                                                                \
	OP(mov_to_seg, OP_ENDS) /* not SS */                                                       \
	OP(mov_to_ss, OP_ENDS | OP_SHADOW)                                                         \
	OP(mov_from_seg, 0)                                                                        \
	OP(push_seg, 0)                                                                            \
	OP(pop_seg, OP_ENDS)                                                                       \
	OP(pop_ss, OP_ENDS | OP_SHADOW)                                                            \
	OP(load_far, OP_ENDS) /* LDS LES LSS LFS LGS; segment in i->vvvv as enum x86_seg */        \
	OP(jmp_far, OP_ENDS)                                                                       \
	OP(call_far, OP_ENDS)                                                                      \
	OP(ret_far, OP_ENDS)                                                                       \
	OP(syscall, OP_ENDS)                                                                       \
	OP(sysret, OP_ENDS)                                                                        \
	OP(sysenter, OP_ENDS)                                                                      \
	OP(sysexit, OP_ENDS)                                                                       \
	OP(arpl, 0)                                                                                \
	OP(bound, 0)

/* system/: control registers, MSRs, identification, extended state */
#define SYSTEM_STATE_OPS(OP)                                                                       \
	OP(mov_to_cr, OP_ENDS | OP_EXIT)                                                           \
	OP(mov_from_cr, 0)                                                                         \
	OP(mov_to_dr, OP_ENDS)                                                                     \
	OP(mov_from_dr, 0)                                                                         \
	OP(smsw, 0)                                                                                \
	OP(lmsw, OP_ENDS)                                                                          \
	OP(clts, OP_ENDS)                                                                          \
	OP(clac, OP_ENDS)                                                                          \
	OP(stac, OP_ENDS)                                                                          \
	OP(swapgs, 0)                                                                              \
	OP(rdfsbase, 0)                                                                            \
	OP(rdgsbase, 0)                                                                            \
	OP(wrfsbase, 0)                                                                            \
	OP(wrgsbase, 0)                                                                            \
	OP(cpuid, OP_EXIT)                                                                         \
	OP(rdtsc, 0)                                                                               \
	OP(rdtscp, 0)                                                                              \
	OP(rdpmc, 0)                                                                               \
	OP(rdpid, 0)                                                                               \
	OP(rdmsr, OP_EXIT)                                                                         \
	OP(wrmsr, OP_ENDS | OP_EXIT)                                                               \
	OP(xgetbv, 0)                                                                              \
	OP(xsetbv, OP_ENDS | OP_EXIT)                                                              \
	OP(xsave, 0) /* XSAVE XSAVEOPT XSAVEC, told apart by opcode */                             \
	OP(xrstor, 0)                                                                              \
	OP(fxsave, 0)                                                                              \
	OP(fxrstor, 0)                                                                             \
	OP(fsave, 0)  /* FNSAVE, FNSTENV */                                                        \
	OP(frstor, 0) /* FRSTOR, FLDENV */                                                         \
	OP(invlpg, OP_ENDS)                                                                        \
	OP(invpcid, OP_ENDS | OP_EXIT)                                                             \
	OP(wbinvd, 0) /* and INVD */                                                               \
	OP(movdir64b, 0)                                                                           \
	OP(hypercall, OP_ENDS) /* VMCALL, VMMCALL */                                               \
	OP(vmxon, 0)                                                                               \
	OP(vmxoff, OP_ENDS)                                                                        \
	OP(vmclear, 0)                                                                             \
	OP(vmptrld, 0)                                                                             \
	OP(vmptrst, 0)                                                                             \
	OP(vmread, 0)                                                                              \
	OP(vmwrite, 0)                                                                             \
	OP(vmlaunch, OP_ENDS | OP_EXIT)                                                            \
	OP(vmresume, OP_ENDS | OP_EXIT)                                                            \
	OP(invept, OP_ENDS)                                                                        \
	OP(invvpid, OP_ENDS)                                                                       \
	OP(vmfunc, OP_ENDS)                                                                        \
	OP(sti_lone, OP_ENDS | OP_SHADOW) /* these four in VMX non-root operation only */          \
	OP(pause, 0)                                                                               \
	OP(rdrand, 0)                                                                              \
	OP(rdseed, 0)                                                                              \
	OP(gp, 0) /* raises #GP(0) */                                                              \
	OP(ud, 0) /* raises #UD */                                                                 \
	OP(nm, 0) /* raises #NM */                                                                 \
	OP(monitor_break,                                                                          \
	   OP_ENDS) /* stands for an instruction where the monitor's debugger stops */

/* ops/: strings, ports, stack, and what only 16- and 32-bit code has */
#define GENERAL_OPS(OP)                                                                            \
	OP(in, 0)                                                                                  \
	OP(out, 0)                                                                                 \
	OP(ins, OP_ENDS)                                                                           \
	OP(outs, OP_ENDS)                                                                          \
	OP(movs, OP_ENDS) /* string ops set v->rip: to themselves while they have more to do */    \
	OP(stos, OP_ENDS)                                                                          \
	OP(lods, OP_ENDS)                                                                          \
	OP(cmps, OP_ENDS)                                                                          \
	OP(scas, OP_ENDS)                                                                          \
	OP(push, 0) /* register (i->rm), immediate, or ModRM operand, by opcode */                 \
	OP(pop, 0)                                                                                 \
	OP(pusha, 0)                                                                               \
	OP(popa, 0)                                                                                \
	OP(enter, 0)                                                                               \
	OP(leave, 0)                                                                               \
	OP(call_near, OP_ENDS) /* E8 rel (imm = displacement) or FF /2 */                          \
	OP(ret_near, OP_ENDS)  /* imm: bytes to release */                                         \
	OP(jmp_near, OP_ENDS)  /* FF /4, or E9/EB (imm = displacement) */                          \
	OP(xlat, 0)                                                                                \
	OP(aaa, 0)                                                                                 \
	OP(aas, 0)                                                                                 \
	OP(daa, 0)                                                                                 \
	OP(das, 0)                                                                                 \
	OP(aam, 0)                                                                                 \
	OP(aad, 0)                                                                                 \
	OP(salc, 0)                                                                                \
	OP(bit_string, 0) /* BT BTS BTR BTC with a register bit offset into memory */              \
	OP(maskmov, 0)	  /* MASKMOVQ MASKMOVDQU VMASKMOVxx VPMASKMOVx */                          \
	OP(gather, 0)	  /* VGATHERxx VPGATHERxx, VEX */                                          \
	OP(gather_k, 0)	  /* the same with opmask, EVEX */                                         \
	OP(scatter, 0)	  /* VSCATTERxx VPSCATTERxx */                                             \
	OP(cache_line, 0) /* CLFLUSH CLFLUSHOPT CLWB: checks the address, then nothing */

#define ALL_OPS(OP) SYSTEM_FLOW_OPS(OP) SYSTEM_STATE_OPS(OP) GENERAL_OPS(OP)

enum op_id {
	OP_ID_none,
#define OP(name, properties) OP_ID_##name,
	ALL_OPS(OP)
#undef OP
	    OP_ID_COUNT
};

typedef void op_function(struct soft_vcpu *v, const struct insn *i);

#define OP(name, properties) op_function op_##name;
ALL_OPS(OP)
#undef OP

extern op_function *const op_functions[OP_ID_COUNT];
extern const u8 op_properties[OP_ID_COUNT];

#endif
