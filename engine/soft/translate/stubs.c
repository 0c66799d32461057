/*
 * The world switch, emitted once at the start of each code cache. Register conventions: emit.h.
 *
 * A kick may arrive by signal at any instruction. The handler (signals.c) sets v->attention first;
 * if it interrupted a stub between a look at v->attention and the guest's next instruction, it
 * moves RIP back to that look ([check_begin, check_end)), or to `dispatch`. So everything in those
 * windows can be done twice.
 */
#include "engine/soft/translate/stubs.h"

#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/emit.h"

/* Byte order of the callee-saved registers of the System V ABI */
static const u8 callee_saved[] = {RBX, RBP, 12, 13, 14, 15};

static void e_push(struct emitter *e, int reg)
{
	e_rex(e, W32, 0, 0, reg);
	e8(e, 0x50 | (reg & 7));
}

static void e_pop(struct emitter *e, int reg)
{
	e_rex(e, W32, 0, 0, reg);
	e8(e, 0x58 | (reg & 7));
}

static void e_pop_gs(struct emitter *e, s32 disp)
{
	e_gs(e, W32, 0x8f, 0, disp);
}

static void e_ret(struct emitter *e)
{
	e8(e, 0xc3);
}

static void e_call_c(struct emitter *e, const void *function)
{
	e_mov_imm(e, RAX, (u64)function);
	e8(e, 0xff);
	e8(e, 0xd0);
}

static void save_guest(struct emitter *e)
{
	for (int g = RAX; g <= R15; g++)
		if (host_reg(g) != REG_NONE)
			e_store_gs(e, W64, host_reg(g), GS_REG(g));
}

static void load_guest(struct emitter *e)
{
	for (int g = RAX; g <= R15; g++)
		if (host_reg(g) != REG_NONE)
			e_load_gs(e, W64, host_reg(g), GS_REG(g));
}

static bool is_callee_saved(int host)
{
	for (u32 n = 0; n < sizeof(callee_saved); n++)
		if (callee_saved[n] == host)
			return true;
	return false;
}

/* As load_guest(), behind C that changes no guest register: those that it preserves are still
 * there. */
static void load_clobbered(struct emitter *e)
{
	for (int g = RAX; g <= R15; g++)
		if (host_reg(g) != REG_NONE && !is_callee_saved(host_reg(g)))
			e_load_gs(e, W64, host_reg(g), GS_REG(g));
}

/* cmp dword gs:[attention], 0; jne */
static u8 *e_check_attention(struct emitter *e)
{
	e8(e, 0x65);
	e8(e, 0x83);
	e8(e, 0x3c);
	e8(e, 0x25);
	e32(e, (u32)GS(attention));
	e8(e, 0);
	return e_jcc(e, CC_NE);
}

/* Which of its state the guest may use, and how it is saved. */
struct saving {
	u32 mask;
	int extension; /* of 0F AE */
};

/* XSAVE or XRSTOR of v->fpu; rdi = v. Destroys rax, rdx. */
static void e_xstate(struct emitter *e, u32 mask, int extension)
{
	e_mov_imm(e, RAX, mask);
	e_rr(e, W32, 0x33, RDX, RDX);
	e_mem(e, W64, 0x0fae, extension, RDI, REG_NONE, 1, GS(fpu));
}

#define XSAVE	 4
#define XRSTOR	 5
#define XSAVEOPT 6 /* leaves out what the guest has not used, or not changed since XRSTOR */

static void e_self(struct emitter *e)
{
	e_load_gs(e, W64, RDI, GS(self));
}

/* The host's own expectations of the FPU behind XSAVE: x87 empty, MXCSR default, no dirty upper
 * halves. rdi = v. */
static void e_host_fpu(struct emitter *e)
{
	e_mem(e, W32, 0xf6, 0, RDI, REG_NONE, 1, GS(fpu) + XSAVE_BV);
	e8(e, XCR0_X87); /* test byte [], 1: x87 was in use */
	u8 *unused = e_jcc(e, CC_E);
	e8(e, 0xdb);
	e8(e, 0xe3); /* fninit */
	e_patch(e, unused, e->p);
	e_mem(e, W32, 0x8b, RAX, RDI, REG_NONE, 1, GS(fpu) + FX_MXCSR);
	e_gs(e, W32, 0x3b, RAX, GS(host_mxcsr));
	u8 *same = e_jcc(e, CC_E);
	e8(e, 0x65);
	e8(e, 0x0f);
	e8(e, 0xae);
	e8(e, 0x14);
	e8(e, 0x25);
	e32(e, (u32)GS(host_mxcsr)); /* ldmxcsr gs:[] */
	e_patch(e, same, e->p);
	e8(e, 0xc5);
	e8(e, 0xf8);
	e8(e, 0x77); /* vzeroupper */
}

static const u8 *here(const struct emitter *e)
{
	return e->p + e->to_rx;
}

static void emit_enter(struct emitter *e, struct stubs *s, struct saving saving)
{
	s->enter = here(e);
	for (u32 n = 0; n < sizeof(callee_saved); n++)
		e_push(e, callee_saved[n]);
	/* The stack pointer of translated code: its low bits are a shift count (mmu/shadow.h). What
	 * it was lies above it. */
	e_mov(e, W64, S0, RSP);
	e_alu_imm(e, W64, ALU_AND, RSP, -64);
	e_alu_imm(e, W64, ALU_SUB, RSP, 64 - SHADOW_SHIFT);
	e_mem(e, W64, 0x89, S0, RSP, REG_NONE, 1, 8);
	e_store_gs(e, W64, RSP, GS(host_rsp));
	e_xstate(e, saving.mask, XRSTOR);
}

static void emit_dispatch(struct emitter *e, struct stubs *s, struct saving saving)
{
	s->dispatch = here(e);
	const u8 *dispatch = e->p;
	e_load_gs(e, W64, RSP, GS(host_rsp));
	e_self(e);
	e_call_c(e, (void *)soft_dispatch);
	s->dispatch_ready = here(e);
	e_alu_imm(e, W64, ALU_CMP, RAX, DISPATCH_TRANSLATE);
	u8 *translate = e_jcc(e, CC_E);
	u8 *leave = e_jcc(e, 2 /* below */);
	/* What came while C was choosing, behind its own look */
	e_load_gs(e, W32, RCX, GS(heeded));
	e_gs(e, W32, 0x85, RCX, GS(attention)); /* test gs:[attention], ecx */
	e_patch(e, e_jcc(e, CC_NE), dispatch);
	e_mov(e, W64, S1, RAX);
	u8 *attention = e_check_attention(e);
	u8 *go_on = e->p;
	load_guest(e);
	e_rex(e, W32, 0, 0, S1);
	e8(e, 0xff);
	e8(e, 0xc0 | 4 << 3 | (S1 & 7)); /* jmp r15 */
	s->dispatch_end = here(e);

	/* A signal that interrupted soft_dispatch() behind its own look at v->attention. A block
	 * that is left after one instruction anyway may run with attention set (next_mode()). */
	e_patch(e, attention, e->p);
	e_gs(e, W32, 0x0fb7, RAX, GS(running));
	e_rr(e, W32, 0x85, RAX, RAX); /* test eax, eax */
	e_patch(e, e_jcc(e, CC_E), dispatch);
	e_jmp_to(e, go_on);

	/* Translation is full C: the guest's vector state is put aside. */
	e_patch(e, translate, e->p);
	e_self(e);
	e_xstate(e, saving.mask, saving.extension);
	e_host_fpu(e);
	e_self(e);
	e_call_c(e, (void *)soft_translate_pending);
	e_self(e);
	e_xstate(e, saving.mask, XRSTOR);
	e_jmp_to(e, dispatch);

	s->leave = here(e);
	e_patch(e, leave, e->p);
	e_load_gs(e, W64, RSP, GS(host_rsp));
	e_self(e);
	e_xstate(e, saving.mask, saving.extension);
	e_host_fpu(e);
	e_mem(e, W64, 0x8b, RSP, RSP, REG_NONE, 1, 8);
	for (u32 n = sizeof(callee_saved); n-- > 0;)
		e_pop(e, callee_saved[n]);
	e_ret(e);
}

/* An entry of jump cache @index of @set beside the target's own slot, or on to @indirect. */
static void emit_second(struct emitter *e, struct stubs *s, u32 set, u32 index, const u8 *indirect)
{
	u32 check = CHECK_SECOND + set * MMU_COUNT + index;
	s32 table = GS_JUMP(set, index);
	u8 *found[JUMP_WAYS];
	s->second[set][index] = here(e);
	e_pop_gs(e, GS(tmp[3]));
	s->check_begin[check] = here(e);
	u8 *attention = e_check_attention(e);
	e_jump_slot(e, false);
	for (u32 k = 1; k < JUMP_WAYS; k++) {
		e_alu_imm(e, W32, ALU_XOR, S1, (s32)((k ^ (k - 1)) * sizeof(struct jump_entry)));
		e_gs_base(e, W64, 0x3b, S0, S1, table);
		found[k] = e_jcc(e, CC_E);
	}
	e_patch(e, attention, e->p);
	e_jmp_to(e, indirect);
	for (u32 k = 1; k < JUMP_WAYS; k++)
		e_patch(e, found[k], e->p);
	e_gs_base(e, W32, 0xff, 4, S1, table + 8); /* jmp gs:[r15 + code] */
	s->check_end[check] = here(e);
}

static void emit_exits(struct emitter *e, struct stubs *s, const u8 *arena)
{
	const u8 *dispatch = s->dispatch - e->to_rx;

	s->exit = here(e);
	save_guest(e);
	e_save_flags(e);
	const u8 *exit = e->p;
	e_mov_imm(e, S0, (u64)arena);
	e_lea(e, W64, S1, S1, S0, 1, 0);
	e_store_gs(e, W64, S1, GS(pending_link));
	e_mem(e, W64, 0x8b, S0, S1, REG_NONE, 1, (s32)offsetof(struct block_exit, target));
	e_store_gs(e, W64, S0, GS(rip));
	e_jmp_to(e, dispatch);

	s->exit_parked = here(e);
	save_guest(e);
	e_jmp_to(e, exit);

	s->plain_parked = here(e);
	save_guest(e);
	e_jmp_to(e, dispatch);

	s->plain_exit = here(e);
	save_guest(e);
	e_save_flags(e);
	e_jmp_to(e, dispatch);

	s->indirect = here(e);
	e_pop_gs(e, GS(tmp[3]));
	const u8 *indirect = e->p;
	e_store_gs(e, W64, S0, GS(rip));
	e_load_gs(e, W64, S0, GS(tmp[3]));
	e_store_gs(e, W64, S0, GS(branch_pc));
	save_guest(e);
	e_jmp_to(e, dispatch);

	for (u32 set = 0; set < MMU_SETS; set++)
		for (u32 index = 0; index < MMU_COUNT; index++)
			emit_second(e, s, set, index, indirect);
}

static void emit_op_stubs(struct emitter *e, struct stubs *s)
{
	const u8 *dispatch = s->dispatch - e->to_rx;

	s->op = here(e);
	save_guest(e);
	e_self(e);
	e_mov(e, W64, RSI, S1);
	e_alu_imm(e, W64, ALU_SUB, RSP, 8);
	e_call_c(e, (void *)soft_op);
	e_alu_imm(e, W64, ALU_ADD, RSP, 8);
	s->check_begin[CHECK_OP] = here(e);
	u8 *attention = e_check_attention(e);
	load_guest(e);
	e_ret(e);
	s->check_end[CHECK_OP] = here(e);
	e_patch(e, attention, e->p);
	e_load_gs(e, W64, RAX, GS(next_rip)); /* the instruction is complete: leave behind it */
	e_store_gs(e, W64, RAX, GS(rip));
	e_jmp_to(e, dispatch);

	s->op_end = here(e);
	save_guest(e);
	e_self(e);
	e_mov(e, W64, RSI, S1);
	e_call_c(e, (void *)soft_op);
	e_jmp_to(e, dispatch);
}

/* Called by cold code with an address in r14 and its description in r15: r14 = what @function says,
 * an hva or NULL. @check: its number in check_begin[]. */
static void emit_address_stub(struct emitter *e, struct stubs *s, const void *function, u32 check)
{
	save_guest(e);
	e_self(e);
	e_mov(e, W64, RSI, S0);
	e_mov(e, W32, RDX, S1);
	e_mov(e, W64, RCX, RSP); /* where the return address is */
	e_alu_imm(e, W64, ALU_SUB, RSP, 8);
	e_call_c(e, function);
	e_alu_imm(e, W64, ALU_ADD, RSP, 8);
	e_store_gs(e, W64, RAX, GS(tmp[3]));
	s->check_begin[check] = here(e);
	u8 *attention = e_check_attention(e);
	const u8 *go_on = e->p;
	load_clobbered(e);
	e_load_gs(e, W64, S0, GS(tmp[3]));
	e_ret(e);
	s->check_end[check] = here(e);
	e_patch(e, attention, e->p);
	e_self(e);
	e_mem(e, W64, 0x8b, RSI, RSP, REG_NONE, 1, 0);
	e_alu_imm(e, W64, ALU_SUB, RSP, 8);
	e_call_c(e, (void *)soft_miss_attention);
	e_alu_imm(e, W64, ALU_ADD, RSP, 8);
	e_jmp_to(e, go_on);
}

static void emit_memory_stubs(struct emitter *e, struct stubs *s)
{
	const u8 *dispatch = s->dispatch - e->to_rx;

	s->miss = here(e);
	emit_address_stub(e, s, (void *)soft_miss, CHECK_MISS);
	s->group = here(e);
	emit_address_stub(e, s, (void *)soft_group, CHECK_GROUP);

	s->commit = here(e);
	save_guest(e);
	e_self(e);
	e_alu_imm(e, W64, ALU_SUB, RSP, 8);
	e_call_c(e, (void *)soft_commit);
	e_alu_imm(e, W64, ALU_ADD, RSP, 8);
	s->check_begin[CHECK_COMMIT] = here(e);
	u8 *attention = e_check_attention(e);
	const u8 *go_on = e->p;
	load_clobbered(e);
	e_ret(e);
	s->check_end[CHECK_COMMIT] = here(e);
	e_patch(e, attention, e->p);
	e_self(e);
	e_mem(e, W64, 0x8b, RSI, RSP, REG_NONE, 1, 0);
	e_alu_imm(e, W64, ALU_SUB, RSP, 8);
	e_call_c(e, (void *)soft_commit_leave);
	e_alu_imm(e, W64, ALU_ADD, RSP, 8);
	e_rr(e, W32, 0x84, RAX, RAX); /* test al, al */
	e_patch(e, e_jcc(e, CC_NE), dispatch);
	e_jmp_to(e, go_on);
}

void stubs_emit(struct soft_vcpu *v)
{
	struct block_cache *cache = v->cache;
	struct emitter e = {
	    .p = cache->rw, .limit = cache->rw + cache->size, .to_rx = cache->rx - cache->rw};
	struct saving saving = {.mask = (u32)v->layout.offered, .extension = XSAVE};
	if (v->layout.xsaveopt && v->vm->tune.xsaveopt)
		saving.extension = XSAVEOPT;
	emit_enter(&e, &cache->stubs, saving);
	emit_dispatch(&e, &cache->stubs, saving);
	emit_exits(&e, &cache->stubs, cache->arena);
	emit_op_stubs(&e, &cache->stubs);
	emit_memory_stubs(&e, &cache->stubs);
	syscall_stubs_emit(&e, &cache->stubs);
	string_stubs_emit(&e, &cache->stubs);
	cache->stubs_end = align_up((u64)(e.p - cache->rw), 64);
	cache->used = cache->stubs_end;
}
