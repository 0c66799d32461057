/*
 * REP MOVS and REP STOS on short runs, without C: all in one page of plain RAM on each side, which
 * the TLB has, and forward. The host's own string instruction does the work, on host addresses.
 * What is longer or not so goes to op_movs() and op_stos() (ops/string.c).
 *
 * The block calls these stubs and goes on behind: they are leaves, that neither look at attention
 * nor leave for anywhere else than the instruction's C function. A kick that finds one makes the
 * calling block come out (signals.c).
 *
 * In MODE_SHADOW there is nothing to look up, and the run may be as long as it likes.
 *
 * r15 = struct insn, v->rip at the instruction, flags parked; r14 is scratch.
 */
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/translate/emit.h"
#include "engine/soft/translate/stubs.h"

#define SAVED_INSN GS(tmp[0])
#define SAVED_HVA  GS(tmp[1])
#define SAVED_RDI  GS(tmp[2])

/* Ways out of a stub to the C function. */
struct slow {
	u8 *site[8];
	u32 count;
};

static void go_slow(struct emitter *e, struct slow *slow, int cc)
{
	slow->site[slow->count++] = e_jcc(e, cc);
}

static s32 table_of(u32 set, u32 index, bool write)
{
	s32 table = GS_MMU(set, tlb) + (s32)(sizeof(struct tlb) * index);
	return table + (write ? (s32)offsetof(struct tlb, write) : (s32)offsetof(struct tlb, read));
}

/* r14 = hva of linear address @reg, all RCX elements of @size bytes behind it in the same page of
 * the TLB @table; destroys r15. */
static void e_look_up(struct emitter *e, struct slow *slow, int reg, u32 size, s32 table)
{
	e_mov(e, W64, S0, reg);
	e_shift(e, W64, SHIFT_RIGHT, S0, 12 - 4);
	e_alu_imm(e, W32, ALU_AND, S0, (TLB_SIZE - 1) << 4);
	e_mov(e, W64, S1, reg);
	e_gs_base(e, W64, 0x33, S1, S0, table); /* xor r15, gs:[r14 + tag] */
	e_alu_imm(e, W64, ALU_CMP, S1, PAGE_SIZE - 1);
	go_slow(e, slow, CC_A);
	e_gs_base(e, W64, 0x8b, S0, S0, table + 8); /* mov r14, gs:[r14 + host] */
	e_lea(e, W64, S0, S0, S1, 1, 0);
	e_lea(e, W64, S1, S1, RCX, (int)size, 0);
	e_alu_imm(e, W64, ALU_CMP, S1, PAGE_SIZE);
	go_slow(e, slow, CC_A);
}

static void e_rep(struct emitter *e, u8 opcode, u32 size)
{
	if (size == 2)
		e8(e, 0x66);
	e8(e, 0xf3);
	if (size == 8)
		e8(e, 0x48);
	e8(e, size == 1 ? opcode : opcode + 1u);
}

static void e_begin(struct emitter *e, struct slow *slow, u32 size, u32 bytes_max, u8 **nothing)
{
	e_store_gs(e, W64, S1, SAVED_INSN);
	e_gs(e, W32, 0xf6, 0, GS(rflags_sys) + 1);
	e8(e, RFLAGS_DF >> 8); /* test byte [], DF */
	go_slow(e, slow, CC_NE);
	e_alu_imm(e, W64, ALU_CMP, RCX, (s32)(bytes_max / size));
	go_slow(e, slow, CC_A);
	e_rr(e, W64, 0x85, RCX, RCX);
	*nothing = e_jcc(e, CC_E);
}

static void emit_stos(struct emitter *e, struct slow *slow, u32 size, u32 set, u32 index)
{
	u8 *nothing;
	e_begin(e, slow, size, PAGE_SIZE, &nothing);
	e_look_up(e, slow, RDI, size, table_of(set, index, true));
	e_lea(e, W64, S1, RDI, RCX, (int)size, 0);
	e_mov(e, W64, RDI, S0);
	e_rep(e, 0xaa, size);
	e_mov(e, W64, RDI, S1);
	e_patch(e, nothing, e->p);
	e8(e, 0xc3);
}

static void emit_movs(struct emitter *e, struct slow *slow, u32 size, u32 set, u32 index)
{
	u8 *nothing;
	e_begin(e, slow, size, PAGE_SIZE, &nothing);
	e_look_up(e, slow, RSI, size, table_of(set, index, false));
	e_store_gs(e, W64, S0, SAVED_HVA);
	e_look_up(e, slow, RDI, size, table_of(set, index, true));
	e_lea(e, W64, S1, RDI, RCX, (int)size, 0);
	e_store_gs(e, W64, S1, SAVED_RDI);
	e_lea(e, W64, S1, RSI, RCX, (int)size, 0);
	e_mov(e, W64, RDI, S0);
	e_load_gs(e, W64, RSI, SAVED_HVA);
	e_rep(e, 0xa4, size);
	e_mov(e, W64, RSI, S1);
	e_load_gs(e, W64, RDI, SAVED_RDI);
	e_patch(e, nothing, e->p);
	e8(e, 0xc3);
}

/* ---- through the shadow table (mmu/shadow.h) ---- */

/* Bytes that are not interrupted; the C function looks at attention in between. */
#define SHADOW_BYTES_MAX (64 << 20)

/* @delta = what to add to the address in @reg. */
static void e_shadow_delta(struct emitter *e, int delta, int reg)
{
	e_mov(e, W64, delta, reg);
	e_shift(e, W64, SHIFT_RIGHT, delta, SHADOW_SHIFT); /* RSP is another one in a stub */
	e8(e, 0x65);
	e_mem(e, W64, 0x8b, delta, REG_NONE, delta, 8, GS_SHADOW_TABLE);
}

/* What faults here takes r14 and r15 away again: signals.c. @movs: otherwise STOS. */
static const u8 *emit_shadow(struct emitter *e, struct slow *slow, u32 size, bool movs)
{
	u8 *nothing;
	e_begin(e, slow, size, SHADOW_BYTES_MAX, &nothing);
	if (movs)
		e_shadow_delta(e, S0, RSI);
	e_shadow_delta(e, S1, RDI);
	if (movs)
		e_rr(e, W64, 0x03, RSI, S0);
	e_rr(e, W64, 0x03, RDI, S1);
	const u8 *rep = e->p + e->to_rx;
	e_rep(e, movs ? 0xa4 : 0xaa, size);
	if (movs)
		e_rr(e, W64, 0x2b, RSI, S0);
	e_rr(e, W64, 0x2b, RDI, S1);
	e_patch(e, nothing, e->p);
	e8(e, 0xc3);
	return rep;
}

void string_stubs_emit(struct emitter *e, struct stubs *s)
{
	struct slow slow[(MMU_SETS * MMU_COUNT + 1) * 4 * 2];
	u32 count = 0;
	s->leaves_begin = e->p + e->to_rx;
	for (u32 n = 0; n < MMU_SETS * MMU_COUNT * 4; n++) {
		u32 set = n / 4 / MMU_COUNT, index = n / 4 % MMU_COUNT, shift = n % 4;
		slow[count].count = 0;
		s->movs[set][index][shift] = e->p + e->to_rx;
		emit_movs(e, &slow[count++], 1u << shift, set, index);
		slow[count].count = 0;
		s->stos[set][index][shift] = e->p + e->to_rx;
		emit_stos(e, &slow[count++], 1u << shift, set, index);
	}
	for (u32 shift = 0; shift < 4; shift++) {
		slow[count].count = 0;
		s->shadow_movs[shift] = e->p + e->to_rx;
		s->shadow_rep_movs[shift] = emit_shadow(e, &slow[count++], 1u << shift, true);
		slow[count].count = 0;
		s->shadow_stos[shift] = e->p + e->to_rx;
		s->shadow_rep_stos[shift] = emit_shadow(e, &slow[count++], 1u << shift, false);
	}
	s->leaves_end = e->p + e->to_rx;
	for (u32 n = 0; n < count; n++)
		for (u32 k = 0; k < slow[n].count; k++)
			e_patch(e, slow[n].site[k], e->p);
	e_load_gs(e, W64, S1, SAVED_INSN);
	e_alu_imm(e, W64, ALU_ADD, RSP, 8); /* the block will not be returned to */
	e_jmp_to(e, s->op_end - e->to_rx);
}
