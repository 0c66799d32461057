/*
 * Guest instruction bytes to what the translator needs. Zydis stays behind decode.c.
 */
#ifndef GUISE_SOFT_DECODE_H
#define GUISE_SOFT_DECODE_H

#include "engine/soft/translate/insn.h"

/* How an instruction is translated */
enum insn_class {
	CLASS_NATIVE, /* the same instruction, registers renamed, memory operand replaced */
	CLASS_OP,     /* call of op_functions[insn.op] */
	CLASS_NOP,    /* hints: nothing */
	CLASS_LEA,
	CLASS_PUSH, /* register, immediate or memory */
	CLASS_POP,
	CLASS_LEAVE,
	CLASS_JMP, /* direct */
	CLASS_JCC,
	CLASS_LOOP, /* LOOP, LOOPE, LOOPNE, JCXZ */
	CLASS_CALL, /* direct */
	CLASS_JMP_IND,
	CLASS_CALL_IND,
	CLASS_RET,
	CLASS_DF, /* CLD, STD */
};

/* Where a general register is named in the encoding */
enum reg_field { FIELD_REG, FIELD_RM, FIELD_VVVV, FIELD_OPCODE };

struct reg_operand {
	u8 guest;     /* 0-15; with @high 0-3 for AH CH DH BH */
	u8 size;      /* bytes */
	u8 field : 2; /* enum reg_field */
	bool high : 1;
	bool read : 1, write : 1;
};

struct decoded {
	struct insn insn;
	u64 rip, next_rip; /* CS-relative */
	u64 target;	   /* direct branches: destination, CS-relative */
	u8 bytes[15];
	u8 class;	   /* enum insn_class */
	u16 flags_read;	   /* arithmetic flags, RFLAGS bits */
	u16 flags_written; /* certainly overwritten */
	u16 flags_kept;	   /* overwritten, or left as they were */

	/* the native form */
	u16 gpr_used;	 /* guest registers named or implied, for choosing spills */
	u16 gpr_written; /* those of them that may change */
	struct reg_operand gpr[4];
	u8 gpr_count;
	u8 need_rep;	      /* mandatory or meaningful F2/F3, else 0 */
	u8 tail_offset, tail; /* immediate bytes that follow the operand bytes */
	u8 vex_pp;	      /* of EVEX too */
	u8 evex_tail;	      /* the prefix's last byte, without V' */
	u8 cond;	      /* condition of JCC */
	bool vex : 1, vex_l : 1, evex : 1;
	bool wide : 1; /* REX.W, VEX.W or EVEX.W */
	bool need_66 : 1, need_lock : 1;
	bool has_modrm : 1;

	/* memory operand */
	bool mem : 1, mem_read : 1, mem_write : 1;
	bool mem_aligned : 1; /* #GP(0) unless aligned to its size, before any page fault */
	u16 mem_size;	      /* bytes */
	u32 mem_mask; /* under an opmask: bits of the access's description (masked.h); else 0 */

	bool fpu : 1, mmx : 1, sse : 1, avx : 1; /* which unit, for #NM and #UD by mode */
	bool avx512 : 1;			 /* EVEX, and VEX with opmasks */
	bool is_wait : 1;			 /* WAIT/FWAIT */
	bool goes_on : 1; /* done in the block although its C function would end it */
};

struct decode_cache;

/**
 * Decodes the instruction at @bytes (@available bytes, at most 15) as at CS-relative @rip in @mode
 * (mode.h). @cache remembers instructions by their encoding; NULL: none. Returns 0; -EFBIG if the
 * instruction goes past @available; -EINVAL if it is undefined: then @out is op `ud` with length 0.
 * Outside.
 */
int decode(struct decode_cache *cache, const u8 *bytes, u32 available, u64 rip, u32 mode,
	   struct decoded *out);

/** Address space for a cache, taken as it is used; NULL: none left. */
struct decode_cache *decode_cache_create(void);
void decode_cache_destroy(struct decode_cache *cache);

#endif
