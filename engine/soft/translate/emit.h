/*
 * Host code, byte by byte (SDM vol. 2 chapter 2). State of the vCPU is addressed as gs:[offset].
 *
 * Register conventions of translated code
 *   host rax rcx rdx rbx rbp rsi rdi r8 r12   guest registers of the same name
 *   host r9 r10 r11                           guest r13 r14 r15
 *   host r13                                  guest RSP
 *   host r14 r15                              scratch, valid inside one guest instruction
 *   host rsp                                  the vCPU thread's own stack
 *   guest r9 r10 r11                          in v->regs[]: compilers use them least
 *   host flags                                guest's arithmetic flags, or parked in v->arith
 * (translate.h)
 */
#ifndef GUISE_SOFT_EMIT_H
#define GUISE_SOFT_EMIT_H

#include "engine/soft/vcpu.h"

#define HOST_RSP 13 /* where guest RSP lives */
#define S0	 14
#define S1	 15

#define GS(field) ((s32)offsetof(struct soft_vcpu, field))

/* A field of the struct mmu of @set; its jump cache of @index. */
#define GS_MMU(set, field)                                                                         \
	(GS(mmus) + (s32)((set) * sizeof(struct mmu) + offsetof(struct mmu, field)))
#define GS_JUMP(set, index)                                                                        \
	(GS_MMU(set, jump) + (s32)((index) * sizeof(((struct mmu *)0)->jump[0])))
#define GS_REG(g) (GS(regs) + 8 * (s32)(g))

/** Host register of guest @g, or REG_NONE if it lives in memory. */
static inline int host_reg(int g)
{
	static const s8 host[16] = {
	    [RAX] = RAX,      [RCX] = RCX,     [RDX] = RDX,	 [RBX] = RBX,
	    [RSP] = HOST_RSP, [RBP] = RBP,     [RSI] = RSI,	 [RDI] = RDI,
	    [R8] = R8,	      [R9] = REG_NONE, [R10] = REG_NONE, [R11] = REG_NONE,
	    [R12] = R12,      [R13] = R9,      [R14] = R10,	 [R15] = R11};
	return host[g];
}

struct emitter {
	u8 *p;	   /* next byte, in the writable mapping */
	u8 *limit; /* stop before here; `full` is set instead of writing past it */
	s64 to_rx; /* executable mapping minus writable mapping, bytes */
	bool full;
};

static inline void e8(struct emitter *e, u32 byte)
{
	if (likely(e->p < e->limit))
		*e->p++ = (u8)byte;
	else
		e->full = true;
}

static inline void e16(struct emitter *e, u32 v)
{
	e8(e, v);
	e8(e, v >> 8);
}

static inline void e32(struct emitter *e, u32 v)
{
	if (likely(e->p + 4 <= e->limit)) {
		__builtin_memcpy(e->p, &v, 4);
		e->p += 4;
	} else {
		e->full = true;
	}
}

static inline void e64(struct emitter *e, u64 v)
{
	e32(e, (u32)v);
	e32(e, (u32)(v >> 32));
}

/* Operand width of the helpers below */
#define W32 0
#define W64 1

/* The first bytes of an instruction, at most 8, on their way: put together in a register. */
struct head {
	u64 bytes;
	u32 count;
};

static inline void h8(struct head *h, u32 byte)
{
	h->bytes |= (u64)(byte & 0xff) << 8 * h->count++;
}

static inline void h_rex(struct head *h, int w, int reg, int index, int base)
{
	int rex = 0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
	if (rex != 0x40)
		h8(h, (u32)rex);
}

/** @opcode below 0x100, or 0x0fXX. */
static inline void h_opcode(struct head *h, u32 opcode)
{
	if (opcode > 0xff)
		h8(h, opcode >> 8);
	h8(h, opcode);
}

static inline void e_head(struct emitter *e, struct head h)
{
	if (likely(e->p + sizeof(h.bytes) <= e->limit)) {
		__builtin_memcpy(e->p, &h.bytes, sizeof(h.bytes));
		e->p += h.count;
	} else {
		e->full = true;
	}
}

static inline void e_rex(struct emitter *e, int w, int reg, int index, int base)
{
	struct head h = {0};
	h_rex(&h, w, reg, index, base);
	e_head(e, h);
}

/** op reg, rm (both registers); @opcode below 0x100, or 0x0fXX. */
static inline void e_rr(struct emitter *e, int w, u32 opcode, int reg, int rm)
{
	struct head h = {0};
	h_rex(&h, w, reg, 0, rm);
	h_opcode(&h, opcode);
	h8(&h, 0xc0 | (reg & 7) << 3 | (rm & 7));
	e_head(e, h);
}

/** op reg, gs:[disp] */
static inline void e_gs(struct emitter *e, int w, u32 opcode, int reg, s32 disp)
{
	struct head h = {0};
	h8(&h, 0x65);
	h_rex(&h, w, reg, 0, 0);
	h_opcode(&h, opcode);
	h8(&h, 0x04 | (reg & 7) << 3);
	h8(&h, 0x25);
	e_head(e, h);
	e32(e, (u32)disp);
}

/** op reg, gs:[base + disp32]; @base is not rsp or r12. */
static inline void e_gs_base(struct emitter *e, int w, u32 opcode, int reg, int base, s32 disp)
{
	struct head h = {0};
	h8(&h, 0x65);
	h_rex(&h, w, reg, 0, base);
	h8(&h, opcode);
	h8(&h, 0x80 | (reg & 7) << 3 | (base & 7));
	e_head(e, h);
	e32(e, (u32)disp);
}

/** ModRM byte and what follows for reg, [base + disp]; @base is not rsp or r12. */
static inline void e_modrm_base(struct emitter *e, int reg, int base, s32 disp)
{
	struct head h = {0};
	int mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (s8)disp ? 0x40 : 0x80;
	h8(&h, mod | (reg & 7) << 3 | (base & 7));
	if (mod == 0x40)
		h8(&h, (u8)disp);
	e_head(e, h);
	if (mod == 0x80)
		e32(e, (u32)disp);
}

/** The same for [base + index * scale + disp]; index is not rsp. */
static inline void e_modrm_index(struct emitter *e, int reg, int base, int index, int scale,
				 s32 disp)
{
	int mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (s8)disp ? 0x40 : 0x80;
	int ss = scale == 8 ? 0xc0 : scale == 4 ? 0x80 : scale == 2 ? 0x40 : 0;
	struct head h = {0};
	h8(&h, mod | (reg & 7) << 3 | 4);
	h8(&h, ss | (index & 7) << 3 | (base & 7));
	if (mod == 0x40)
		h8(&h, (u8)disp);
	e_head(e, h);
	if (mod == 0x80)
		e32(e, (u32)disp);
}

/** op reg, [base + index * scale + disp]; base and index may be REG_NONE; index is not rsp. */
static inline void e_mem(struct emitter *e, int w, u32 opcode, int reg, int base, int index,
			 int scale, s32 disp)
{
	struct head h = {0};
	h_rex(&h, w, reg, index == REG_NONE ? 0 : index, base == REG_NONE ? 0 : base);
	h_opcode(&h, opcode);
	int r = (reg & 7) << 3;
	int ss = scale == 8 ? 0xc0 : scale == 4 ? 0x80 : scale == 2 ? 0x40 : 0;
	int mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (s8)disp ? 0x40 : 0x80;
	if (base == REG_NONE) {
		h8(&h, 0x04 | r);
		h8(&h, ss | (index == REG_NONE ? 4 : index & 7) << 3 | 5);
		mod = 0x80; /* what it means is another; the displacement is as long */
	} else if (index != REG_NONE || (base & 7) == 4) {
		h8(&h, mod | r | 4);
		h8(&h, ss | (index == REG_NONE ? 4 : index & 7) << 3 | (base & 7));
	} else {
		h8(&h, mod | r | (base & 7));
	}
	if (mod == 0x40)
		h8(&h, (u8)disp);
	e_head(e, h);
	if (mod == 0x80)
		e32(e, (u32)disp);
}

static inline void e_mov(struct emitter *e, int w, int dst, int src)
{
	e_rr(e, w, 0x8b, dst, src);
}

/** rorx @dst, @src, @count: 64 bits, flags stay; BMI2. Both registers are r8 to r15. */
static inline void e_rorx(struct emitter *e, int dst, int src, u8 count)
{
	struct head h = {0};
	h8(&h, 0xc4);
	h8(&h, 0x43); /* R and B set, map 0F3A */
	h8(&h, 0xfb); /* W1, F2 */
	h8(&h, 0xf0);
	h8(&h, 0xc0 | (dst & 7) << 3 | (src & 7));
	h8(&h, count);
	e_head(e, h);
}

/** shrx @dst, @src, rsp: 64 bits, flags stay; BMI2. */
static inline void e_shrx_rsp(struct emitter *e, int dst, int src)
{
	e8(e, 0xc4);
	e8(e, (dst & 8 ? 0 : 0x80) | 0x40 | (src & 8 ? 0 : 0x20) | 2); /* map 0F38 */
	e8(e, 0x80 | (~RSP & 15) << 3 | 3);			       /* W1, F2 */
	e8(e, 0xf7);
	e8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
}

static inline void e_load_gs(struct emitter *e, int w, int dst, s32 disp)
{
	e_gs(e, w, 0x8b, dst, disp);
}

static inline void e_store_gs(struct emitter *e, int w, int src, s32 disp)
{
	e_gs(e, w, 0x89, src, disp);
}

/** mov reg, imm by the shortest form; leaves flags alone. */
static inline void e_mov_imm(struct emitter *e, int reg, u64 imm)
{
	struct head h = {0};
	bool unsigned32 = imm == (u32)imm, signed32 = (s64)imm == (s32)imm;
	h_rex(&h, unsigned32 ? W32 : W64, 0, 0, reg);
	if (signed32 && !unsigned32) {
		h8(&h, 0xc7);
		h8(&h, 0xc0 | (reg & 7));
	} else {
		h8(&h, 0xb8 | (reg & 7));
	}
	e_head(e, h);
	e32(e, (u32)imm);
	if (!unsigned32 && !signed32)
		e32(e, (u32)(imm >> 32));
}

/** mov qword gs:[disp], imm; may use scratch @tmp for wide constants. */
static inline void e_store_gs_imm(struct emitter *e, s32 disp, u64 imm, int tmp)
{
	if ((s64)imm == (s32)imm) {
		e_gs(e, W64, 0xc7, 0, disp);
		e32(e, (u32)imm);
	} else {
		e_mov_imm(e, tmp, imm);
		e_store_gs(e, W64, tmp, disp);
	}
}

static inline void e_lea(struct emitter *e, int w, int dst, int base, int index, int scale,
			 s32 disp)
{
	e_mem(e, w, 0x8d, dst, base, index, scale, disp);
}

/** Group-1 ALU operation /n with a 32-bit immediate (8-bit form where it fits). */
static inline void e_alu_imm(struct emitter *e, int w, int n, int reg, s32 imm)
{
	struct head h = {0};
	h_rex(&h, w, 0, 0, reg);
	h8(&h, imm == (s8)imm ? 0x83 : 0x81);
	h8(&h, 0xc0 | n << 3 | (reg & 7));
	if (imm == (s8)imm)
		h8(&h, (u8)imm);
	e_head(e, h);
	if (imm != (s8)imm)
		e32(e, (u32)imm);
}

#define ALU_ADD 0
#define ALU_OR	1
#define ALU_AND 4
#define ALU_SUB 5
#define ALU_XOR 6
#define ALU_CMP 7

/** Shift by a constant; @n is the group-2 operation. */
static inline void e_shift(struct emitter *e, int w, int n, int reg, u8 count)
{
	struct head h = {0};
	h_rex(&h, w, 0, 0, reg);
	h8(&h, 0xc1);
	h8(&h, 0xc0 | n << 3 | (reg & 7));
	h8(&h, count);
	e_head(e, h);
}

#define SHIFT_LEFT  4
#define SHIFT_RIGHT 5
#define SHIFT_ARITH 7

/* Conditions of jcc */
#define CC_E  4
#define CC_NE 5
#define CC_A  7

/** jcc/jmp/call with a 32-bit displacement to be filled in; returns where it is. */
static inline u8 *e_jcc(struct emitter *e, int cc)
{
	e_head(e, (struct head){.bytes = 0x800f | (u64)cc << 8, .count = 6});
	return e->p - 4;
}

static inline u8 *e_jmp(struct emitter *e)
{
	e_head(e, (struct head){.bytes = 0xe9, .count = 5});
	return e->p - 4;
}

/** Lets the displacement at @site lead to @target (both in the writable mapping). */
static inline void e_patch(struct emitter *e, u8 *site, const u8 *target)
{
	if (e->full)
		return;
	s32 rel = (s32)(target - (site + 4));
	__builtin_memcpy(site, &rel, 4);
}

static inline void e_jmp_to(struct emitter *e, const u8 *target)
{
	u8 *site = e_jmp(e);
	e_patch(e, site, target);
}

static inline void e_call_to(struct emitter *e, const u8 *target)
{
	e_head(e, (struct head){.bytes = 0xe8, .count = 5});
	e_patch(e, e->p - 4, target);
}

/** r15 = jump_slot(r14) * sizeof(struct jump_entry); destroys the flags. @has_rorx: BMI2. */
static inline void e_jump_slot(struct emitter *e, bool has_rorx)
{
	_Static_assert(sizeof(struct jump_entry) == 16, "");
	if (has_rorx) {
		e_rorx(e, S1, S0, 8);
	} else {
		e_mov(e, W64, S1, S0);
		e_shift(e, W64, SHIFT_RIGHT, S1, 8);
	}
	e_lea(e, W32, S1, S1, S0, 8, 0);
	e_alu_imm(e, W32, ALU_AND, S1, (JUMP_CACHE_SIZE - 1) * 16);
}

/** Host flags to v->arith; keeps the flags, destroys AX. */
static inline void e_save_flags(struct emitter *e)
{
	static const u8 lahf_seto[] = {0x9f, 0x0f, 0x90, 0xc0}; /* lahf; seto al */
	static const u8 mov_ax[] = {0x65, 0x66, 0x89, 0x04, 0x25};
	u32 both;
	struct head h = {.count = sizeof(mov_ax)};
	__builtin_memcpy(&both, lahf_seto, sizeof(both));
	__builtin_memcpy(&h.bytes, mov_ax, sizeof(mov_ax));
	e32(e, both);
	e_head(e, h);
	e32(e, (u32)GS(arith)); /* mov gs:[arith], ax */
}

/** Host flags from v->arith; destroys RAX. */
static inline void e_load_flags(struct emitter *e)
{
	e_gs(e, W32, 0x0fb7, RAX, GS(arith)); /* movzx eax, word */
	e8(e, 0x04);
	e8(e, 0x7f); /* add al, 127: OF = old AL & 1 */
	e8(e, 0x9e); /* sahf */
}

/** Parks the host's arithmetic flags in v->arith; uses scratch @tmp, keeps the flags. */
static inline void e_park_flags(struct emitter *e, int tmp)
{
	e_mov(e, W64, tmp, RAX);
	e_save_flags(e);
	e_mov(e, W64, RAX, tmp);
}

/** The reverse: host flags from v->arith; uses scratch @tmp. */
static inline void e_restore_flags(struct emitter *e, int tmp)
{
	e_mov(e, W64, tmp, RAX);
	e_load_flags(e);
	e_mov(e, W64, RAX, tmp);
}

#endif
