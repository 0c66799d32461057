/*
 * A decoded guest instruction as the C ops see it. Made by the translator from Zydis' result; kept
 * with the block, so it is small. Zydis itself stays behind translate/decode.c.
 */
#ifndef GUISE_SOFT_INSN_H
#define GUISE_SOFT_INSN_H

#include "engine/soft/vcpu.h"

struct insn {
	u16 op;	      /* enum op_id */
	u8 length;    /* bytes */
	u8 opsize;    /* operand size in bytes: 1 (byte forms), 2, 4, 8; vectors: 16, 32, 64 */
	u8 addrsize;  /* 2, 4, 8 */
	u8 stacksize; /* 2, 4, 8: how stack pointer arithmetic is done (SS.B, 64-bit mode) */
	u8 seg;	      /* enum x86_seg of the memory operand, override applied */
	u8 map;	      /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A; EVEX: 5, 6 too */
	u8 opcode;
	u8 modrm; /* raw byte, if any */
	u8 reg;	  /* ModRM.reg with REX.R / VEX.R / EVEX.R, R' */
	u8 rm; /* ModRM.rm with REX.B if a register; for opcodes with a register in their low bits:
		  that */
	u8 vvvv;  /* VEX.vvvv, EVEX.vvvv with V', uninverted */
	u8 mask;  /* EVEX.aaa */
	bool rex; /* a REX prefix was there (byte registers 4-7 are SPL..DIL) */
	bool vex;
	bool w;		   /* REX.W or VEX.W */
	bool is_mem;	   /* ModRM.rm is memory */
	bool rip_relative; /* disp already holds the final linear offset */
	bool lock;
	u8 rep;		/* 0, 0xf2 or 0xf3 */
	s8 base, index; /* enum x86_reg or REG_NONE; index may be a vector register (VSIB) */
	u8 scale;	/* 1, 2, 4, 8 */
	s64 disp;
	u64 imm;  /* sign-extended to the operand size where the instruction says so */
	u16 imm2; /* far pointer selector, ENTER nesting level */
};

/** Effective address (offset in insn->seg) of the memory operand, truncated to the address size. */
u64 insn_ea(const struct soft_vcpu *v, const struct insn *i);

/** General register @reg by operand size, with AH..BH for size 1 without REX (SDM 1 3.4.1). */
u64 reg_read(const struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size);
/** Writes: 4-byte writes clear the upper half, 1- and 2-byte writes keep the rest. */
void reg_write(struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size, u64 value);
/** ModRM.rm operand, register or memory. */
u64 rm_read(struct soft_vcpu *v, const struct insn *i, u32 size);
void rm_write(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value);

/* Stack, in SS with the instruction's stack size. push() checks and writes, then moves the pointer.
 */
void push(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value);
/** pop() reads and moves the pointer; restore RSP yourself if a later check can fail, or use
 * stack_peek. */
u64 pop(struct soft_vcpu *v, const struct insn *i, u32 size);
/** Reads @size bytes at stack pointer + @offset without moving it. */
u64 stack_peek(struct soft_vcpu *v, const struct insn *i, u64 offset, u32 size);
/** Adds @delta to the stack pointer with the stack size's wrap. */
void stack_adjust(struct soft_vcpu *v, const struct insn *i, s64 delta);

#endif
