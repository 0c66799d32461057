/*
 * SYSCALL and SYSRET without C and without the dispatcher, between 64-bit programs and their
 * kernel: op_syscall() and op_sysret() (system/syscall.c) for the case that nothing special is
 * about. They end like a jump through the jump cache. Flags are parked all the way; r14 and r15 are
 * scratch.
 */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/translate/emit.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/stubs.h"

#define FLAT_LIMIT 0xffffffffull
#define FLAT_CODE                                                                                  \
	(SEG_S | SEG_P | SEG_G | SEG_TYPE_CODE | SEG_TYPE_WRITE | SEG_TYPE_ACCESSED | SEG_L)
#define FLAT_DATA (SEG_S | SEG_P | SEG_G | SEG_TYPE_WRITE | SEG_TYPE_ACCESSED | SEG_DB)

/* What of RFLAGS SYSRET takes from R11 (SDM 2B SYSRET), without the arithmetic flags. */
#define SYSRET_FLAGS (0x3c7fd7u & ~(u32)RFLAGS_ARITH)

/* Flags with which the mode would be another than mode_kernel64 or mode_user64. */
#define MODE_FLAGS ((u32)(RFLAGS_TF | RFLAGS_AC))

_Static_assert(offsetof(struct segment, access) == offsetof(struct segment, limit) + 4,
	       "limit and access are written as one");

static void e_not(struct emitter *e, int w, int reg)
{
	e_rex(e, w, 0, 0, reg);
	e8(e, 0xf7);
	e8(e, 0xc0 | 2 << 3 | (reg & 7));
}

static void e_test_imm(struct emitter *e, int reg, u32 imm)
{
	e_rex(e, W32, 0, 0, reg);
	e8(e, 0xf7);
	e8(e, 0xc0 | (reg & 7));
	e32(e, imm);
}

static void e_store8(struct emitter *e, int reg, s32 disp)
{
	e8(e, 0x65);
	e8(e, 0x40 | (reg >> 3) << 2); /* REX: no high byte */
	e8(e, 0x88);
	e8(e, 0x04 | (reg & 7) << 3);
	e8(e, 0x25);
	e32(e, (u32)disp);
}

static void e_store16(struct emitter *e, int reg, s32 disp)
{
	e8(e, 0x66);
	e_store_gs(e, W32, reg, disp);
}

/* cmp or test byte gs:[disp], imm: opcode 80 /7 or F6 /0 */
static void e_byte_imm(struct emitter *e, u32 opcode, int n, s32 disp, u8 imm)
{
	e_gs(e, W32, opcode, n, disp);
	e8(e, imm);
}

/* IA32_EFER.SCE; jumps if it is clear. */
static u8 *e_need_sce(struct emitter *e)
{
	e_byte_imm(e, 0xf6, 0, GS(msr.efer), EFER_SCE);
	return e_jcc(e, CC_E);
}

/* v->arith from an image of RFLAGS in @reg; destroys it. */
static void e_set_arith(struct emitter *e, int reg, int scratch)
{
	e_mov(e, W32, scratch, reg);
	e_alu_imm(e, W32, ALU_AND, scratch, 0xd5);
	e_alu_imm(e, W32, ALU_OR, scratch, 2);
	e_store8(e, scratch, GS(arith) + 1);
	e_shift(e, W32, SHIFT_RIGHT, reg, 11);
	e_alu_imm(e, W32, ALU_AND, reg, 1);
	e_store8(e, reg, GS(arith));
}

/* Hidden parts of CS and SS for privilege level @cpl (load_flat() in system/syscall.c). */
static void e_flat_segments(struct emitter *e, u32 cpl)
{
	e_store_gs_imm(e, GS(seg[SEG_CS].base), 0, S0);
	e_store_gs_imm(e, GS(seg[SEG_SS].base), 0, S0);
	e_mov_imm(e, S0, FLAT_LIMIT | (u64)(FLAT_CODE | cpl << 5) << 32);
	e_store_gs(e, W64, S0, GS(seg[SEG_CS].limit));
	e_mov_imm(e, S0, FLAT_LIMIT | (u64)(FLAT_DATA | cpl << 5) << 32);
	e_store_gs(e, W64, S0, GS(seg[SEG_SS].limit));
	e_byte_imm(e, 0xc6, 0, GS(cpl), (u8)cpl);
}

/* v->mode and v->mmu_index from @mode_field. */
static void e_set_mode(struct emitter *e, s32 mode_field)
{
	e_load_gs(e, W32, S0, mode_field);
	e_store_gs(e, W32, S0, GS(mode));
	e_shift(e, W32, SHIFT_RIGHT, S0, MODE_MMU_SHIFT);
	e_alu_imm(e, W32, ALU_AND, S0, 3);
	e_store_gs(e, W32, S0, GS(mmu_index));
}

/* The jump to v->rip if its block is in the jump cache of @set and @index; r14 = v->rip. Returns
 * with the misses' jumps in @miss. */
static void e_jump(struct emitter *e, u32 set, enum mmu_index index, u8 *miss[2])
{
	s32 table = GS_JUMP(set, index);
	e_load_gs(e, W32, S1, GS(mode));
	e_gs(e, W32, 0x3b, S1, GS_MMU(set, jump_mode) + 4 * (s32)index);
	miss[0] = e_jcc(e, CC_NE);
	u8 *found[JUMP_WAYS];
	e_jump_slot(e, false);
	for (u32 k = 0; k < JUMP_WAYS; k++) {
		if (k > 0)
			e_alu_imm(e, W32, ALU_XOR, S1,
				  (s32)((k ^ (k - 1)) * sizeof(struct jump_entry)));
		e_gs_base(e, W64, 0x3b, S0, S1, table);
		found[k] = e_jcc(e, CC_E);
	}
	miss[1] = e_jmp(e);
	for (u32 k = 0; k < JUMP_WAYS; k++)
		e_patch(e, found[k], e->p);
	e_gs_base(e, W32, 0xff, 4, S1, table + 8); /* jmp gs:[r15 + code] */
}

static const u8 *here(const struct emitter *e)
{
	return e->p + e->to_rx;
}

/* Everything is done: the look at attention, and on to v->rip. Window @n. */
static void e_go_on(struct emitter *e, struct stubs *s, u32 n, u32 set, bool kernel)
{
	u8 *out[6];
	u32 outs = 0;
	s->check_begin[n] = here(e);
	e_gs(e, W32, 0x83, ALU_CMP, GS(attention));
	e8(e, 0);
	out[outs++] = e_jcc(e, CC_NE);
	e_load_gs(e, W64, S0, GS(rip));
	if (kernel) {
		e_byte_imm(e, 0x80, ALU_CMP, GS(mmu_index), MMU_KERNEL);
		u8 *ac = e_jcc(e, CC_NE);
		e_jump(e, set, MMU_KERNEL, &out[outs]);
		outs += 2;
		e_patch(e, ac, e->p);
		e_jump(e, set, MMU_KERNEL_AC, &out[outs]);
	} else {
		e_jump(e, set, MMU_USER, &out[outs]);
	}
	outs += 2;
	s->check_end[n] = here(e);
	for (u32 k = 0; k < outs; k++)
		e_patch(e, out[k], e->p);
	e_jmp_to(e, s->plain_parked - e->to_rx);
}

/* v->rip at the SYSCALL, v->next_rip behind it, r15 = struct insn. */
static void emit_syscall(struct emitter *e, struct stubs *s, u32 set)
{
	s->syscall[set] = here(e);
	u8 *no_sce = e_need_sce(e);
	e_load_gs(e, W64, S0, GS(msr.sfmask));
	e_not(e, W32, S0);
	e_gs(e, W32, 0x23, S0, GS(rflags_sys)); /* and: the new system flags */
	e_test_imm(e, S0, MODE_FLAGS);
	u8 *other_mode = e_jcc(e, CC_NE);

	/* RCX = RIP, R11 = RFLAGS without RF */
	e_gs(e, W32, 0x0fb6, S1, GS(arith) + 1);
	e_gs(e, W32, 0x0fb6, RCX, GS(arith));
	e_shift(e, W32, SHIFT_LEFT, RCX, 11);
	e_rr(e, W32, 0x0b, S1, RCX);
	e_gs(e, W32, 0x0b, S1, GS(rflags_sys));
	e_alu_imm(e, W32, ALU_AND, S1, ~(s32)RFLAGS_RF);
	e_store_gs(e, W64, S1, GS_REG(R11));
	e_alu_imm(e, W32, ALU_AND, S0, ~(s32)RFLAGS_RF);
	e_alu_imm(e, W32, ALU_OR, S0, 2);
	e_store_gs(e, W64, S0, GS(rflags_sys));
	e_load_gs(e, W32, S0, GS(msr.sfmask));
	e_not(e, W32, S0);
	e_rr(e, W32, 0x23, S0, S1);
	e_set_arith(e, S0, S1);
	e_load_gs(e, W64, RCX, GS(next_rip));

	/* SDM 2B SYSCALL: CS and SS from STAR[47:32], RPL 0 */
	e_load_gs(e, W32, S0, GS(msr.star) + 4);
	e_alu_imm(e, W32, ALU_AND, S0, 0xfffc);
	e_store16(e, S0, GS(seg[SEG_CS].selector));
	e_alu_imm(e, W32, ALU_ADD, S0, 8);
	e_store16(e, S0, GS(seg[SEG_SS].selector));
	e_flat_segments(e, 0);
	e_set_mode(e, GS(mode_kernel64));
	e_load_gs(e, W64, S0, GS(msr.lstar));
	e_store_gs(e, W64, S0, GS(rip));
	e_go_on(e, s, CHECK_SYSCALL + set, set, true);

	e_patch(e, no_sce, e->p);
	e_patch(e, other_mode, e->p);
	e_jmp_to(e, s->op_end - e->to_rx);
}

/* The same for SYSRET of 64-bit operand size at CPL 0. */
static void emit_sysret(struct emitter *e, struct stubs *s, u32 set)
{
	u8 *slow[5];
	s->sysret[set] = here(e);
	slow[0] = e_need_sce(e);
	e_mov(e, W64, S0, RCX);
	e_shift(e, W64, SHIFT_LEFT, S0, 16);
	e_shift(e, W64, SHIFT_ARITH, S0, 16);
	e_rr(e, W64, 0x3b, S0, RCX);
	slow[1] = e_jcc(e, CC_NE);
	e_load_gs(e, W32, S0, GS_REG(R11));
	e_test_imm(e, S0, MODE_FLAGS);
	slow[2] = e_jcc(e, CC_NE);
	/* What IF may have held back goes through C. */
	e_load_gs(e, W64, S0, GS(irq_word));
	e_mem(e, W32, 0x83, ALU_CMP, S0, REG_NONE, 1, 0);
	e8(e, 0);
	slow[3] = e_jcc(e, CC_NE);
	e_byte_imm(e, 0x80, ALU_CMP, GS(events.user_interrupt), 0);
	slow[4] = e_jcc(e, CC_NE);

	e_store_gs(e, W64, RCX, GS(rip));
	e_load_gs(e, W32, S0, GS_REG(R11));
	e_alu_imm(e, W32, ALU_AND, S0, (s32)SYSRET_FLAGS);
	e_alu_imm(e, W32, ALU_OR, S0, 2);
	e_store_gs(e, W64, S0, GS(rflags_sys));
	e_load_gs(e, W32, S0, GS_REG(R11));
	e_set_arith(e, S0, S1);

	/* SDM 2B SYSRET: CS = STAR[63:48] + 16, SS = STAR[63:48] + 8, both with RPL 3 */
	e_gs(e, W32, 0x0fb7, S0, GS(msr.star) + 6);
	e_alu_imm(e, W32, ALU_ADD, S0, 16);
	e_alu_imm(e, W32, ALU_OR, S0, 3);
	e_store16(e, S0, GS(seg[SEG_CS].selector));
	e_gs(e, W32, 0x0fb7, S0, GS(msr.star) + 6);
	e_alu_imm(e, W32, ALU_ADD, S0, 8);
	e_alu_imm(e, W32, ALU_OR, S0, 3);
	e_store16(e, S0, GS(seg[SEG_SS].selector));
	e_flat_segments(e, 3);
	e_set_mode(e, GS(mode_user64));
	e_go_on(e, s, CHECK_SYSRET + set, set, false);

	for (u32 n = 0; n < ARRAY_SIZE(slow); n++)
		e_patch(e, slow[n], e->p);
	e_jmp_to(e, s->op_end - e->to_rx);
}

void syscall_stubs_emit(struct emitter *e, struct stubs *s)
{
	for (u32 set = 0; set < MMU_SETS; set++)
		emit_syscall(e, s, set);
	for (u32 set = 0; set < MMU_SETS; set++)
		emit_sysret(e, s, set);
}
