/*
 * Sensitive instructions that are short enough to be done in the block itself: those that kernels
 * execute at every system call, interrupt and lock. Each does what its C function does (op_*() in
 * system/ and ops/); what it leaves out, a test here sends to that function. 64-bit code only.
 *
 * STAC and CLAC change the TLB that the rest of the block uses, so t->mode and t->index change in
 * the middle; a block that has done so leaves by the jump cache of its new index (flow.c).
 */
#include "engine/soft/translate/inline_ops.h"

#include "engine/soft/system/features.h"

/* ---- the C function, out of line ---- */

/* A jcc out of the block to the instruction's C function; flags are parked. It comes back behind
 * the instruction. */
static void go_slow(struct translator *t, int cc)
{
	t->slow_op[t->slow_count++] =
	    (struct slow_op){.site = e_jcc(&t->e, cc), .insn = t->current, .back = NULL};
}

/* Where the slow ways of the current instruction come back. */
static void slow_back(struct translator *t)
{
	for (u32 n = 0; n < t->slow_count; n++)
		if (t->slow_op[n].insn == t->current)
			t->slow_op[n].back = t->e.p;
}

void emit_slow_ops(struct translator *t)
{
	bool parked = t->parked;
	for (u32 n = 0; n < t->slow_count; n++) {
		const struct slow_op *slow = &t->slow_op[n];
		e_patch(&t->e, slow->site, t->e.p);
		map_here(t, slow->insn, true);
		t->parked = true;
		emit_op(t, &t->insns[slow->insn]);
		if (!(op_properties[t->insns[slow->insn].insn.op] & OP_ENDS))
			e_jmp_to(&t->e, slow->back);
	}
	t->parked = parked;
}

/* ---- small pieces ---- */

/* Before code that destroys flags: parks those that somebody still reads. */
static void park_live(struct translator *t)
{
	if (t->live && !t->parked)
		flags_to_memory(t, S0);
}

/* op dword gs:[disp], imm32 of group 1 */
static void e_alu_gs_imm(struct emitter *e, int n, s32 disp, u32 imm)
{
	e_gs(e, W32, 0x81, n, disp);
	e32(e, imm);
}

/* test byte gs:[disp], bit */
static void e_test_gs_byte(struct emitter *e, s32 disp, u8 bits)
{
	e_gs(e, W32, 0xf6, 0, disp);
	e8(e, bits);
}

/* mov dword gs:[disp], imm32 */
static void e_store_gs32(struct emitter *e, s32 disp, u32 imm)
{
	e_gs(e, W32, 0xc7, 0, disp);
	e32(e, imm);
}

/* Scratch register into guest @g: 2 bytes keep the rest, 4 clear it. */
static void e_put_guest(struct emitter *e, u32 size, int g, int scratch)
{
	if (host_reg(g) != REG_NONE) {
		if (size == 2)
			e8(e, 0x66);
		e_mov(e, size == 8, host_reg(g), scratch);
		return;
	}
	if (size == 4)
		e_mov(e, W32, scratch, scratch);
	if (size == 2) {
		e8(e, 0x66);
		e_store_gs(e, W32, scratch, GS_REG(g));
	} else {
		e_store_gs(e, W64, scratch, GS_REG(g));
	}
}

/* ---- interrupt flag ---- */

static bool inline_cli(struct translator *t, const struct decoded *d)
{
	park_live(t);
	e_alu_gs_imm(&t->e, ALU_AND, GS(rflags_sys), ~(u32)RFLAGS_IF);
	return true;
}

/*
 * With nothing waiting for IF the shadow is free: the next instruction stands in this block, and
 * nothing comes in before it. Whatever comes to wait meanwhile raises attention.
 */
static bool inline_sti(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	if (t->current + 1 == t->count)
		return false;
	flags_to_memory(t, S0);
	e_test_gs_byte(e, GS(rflags_sys) + 1, RFLAGS_IF >> 8);
	u8 *already = e_jcc(e, CC_NE);
	e_load_gs(e, W64, S0, GS(irq_word));
	e_mem(e, W32, 0x83, ALU_CMP, S0, REG_NONE, 1, 0);
	e8(e, 0);
	go_slow(t, CC_NE);
	e_gs(e, W32, 0x80, ALU_CMP, GS(events.user_interrupt));
	e8(e, 0);
	go_slow(t, CC_NE);
	e_alu_gs_imm(e, ALU_OR, GS(rflags_sys), RFLAGS_IF);
	e_patch(e, already, e->p);
	slow_back(t);
	return true;
}

/* ---- RFLAGS to the stack ---- */

static void pushf_body(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	e_load_gs(e, W64, S1, GS(tmp[0]));
	e_mem(e, W64, 0x89, S1, S0, REG_NONE, 1, t->disp);
	e_lea(e, W64, HOST_RSP, HOST_RSP, REG_NONE, 1, -8);
}

static bool inline_pushf(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	if (d->insn.opsize != 8)
		return false;
	flags_to_memory(t, S0);
	t->body_host_after = false;
	e_gs(e, W32, 0x0fb6, S0, GS(arith) + 1); /* as SAHF takes them: bits 7 to 0 of RFLAGS */
	e_gs(e, W32, 0x0fb6, S1, GS(arith));
	e_shift(e, W32, SHIFT_LEFT, S1, 11);
	e_rr(e, W32, 0x0b, S0, S1);
	e_gs(e, W32, 0x0b, S0, GS(rflags_sys));
	e_alu_imm(e, W32, ALU_AND, S0, ~(s32)(RFLAGS_RF | RFLAGS_VM));
	e_store_gs(e, W64, S0, GS(tmp[0]));
	const struct place where = stack_place(t, RSP, -8, 8, true);
	emit_ea(t, &where, 0);
	emit_access_r14(t, d, &where, pushf_body);
	return true;
}

/* ---- STAC, CLAC ---- */

static bool changes_ac(const struct decoded *d)
{
	return d->class == CLASS_OP && (d->insn.op == OP_ID_stac || d->insn.op == OP_ID_clac);
}

static bool can_change_ac(const struct translator *t, const struct decoded *d)
{
	return changes_ac(d) && !d->insn.lock && (t->mode & 3) == MODE_CODE64 &&
	       (t->mode & MODE_RING0) && !(t->mode & (MODE_ONE | MODE_STEP)) &&
	       t->v->vm->tune.inline_ops;
}

static bool inline_ac(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	bool set = d->insn.op == OP_ID_stac;
	enum mmu_index index = set ? MMU_KERNEL_AC : MMU_KERNEL;
	if (!can_change_ac(t, d))
		return false;
	flags_to_memory(t, S0);
	/* Only MMU_KERNEL tells that CR4.SMAP is set. */
	if (t->index != MMU_KERNEL) {
		e_test_gs_byte(e, GS(cr4) + 2, CR4_SMAP >> 16);
		go_slow(t, CC_E);
	}
	e_alu_gs_imm(e, set ? ALU_OR : ALU_AND, GS(rflags_sys),
		     set ? (u32)RFLAGS_AC : ~(u32)RFLAGS_AC);
	if (t->index != index) {
		t->mode = (t->mode & ~(3u << MODE_MMU_SHIFT)) | (u32)index << MODE_MMU_SHIFT;
		t->index = index;
		e_store_gs32(e, GS(mode), t->mode & ~(u32)MODE_PLAIN);
		e_store_gs32(e, GS(mmu_index), (u32)index);
	}
	slow_back(t);
	return true;
}

/* ---- REP MOVS, REP STOS: stubs of their own ---- */

static bool is_short_string(const struct translator *t, const struct decoded *d)
{
	const struct insn *i = &d->insn;
	bool wanted = d->class == CLASS_OP && (i->op == OP_ID_movs || i->op == OP_ID_stos);
	bool based = i->op == OP_ID_movs && (i->seg == SEG_FS || i->seg == SEG_GS);
	return wanted && i->rep && !i->lock && i->addrsize == 8 && !based &&
	       (t->mode & 3) == MODE_CODE64 && !(t->mode & (MODE_ONE | MODE_STEP | MODE_ALIGN)) &&
	       t->v->vm->tune.strings;
}

static bool inline_string(struct translator *t, const struct decoded *d)
{
	const struct stubs *stubs = &t->v->cache->stubs;
	u32 shift = (u32)__builtin_ctz(d->insn.opsize);
	if (!is_short_string(t, d))
		return false;
	bool movs = d->insn.op == OP_ID_movs;
	const u8 *stub = (movs ? stubs->movs : stubs->stos)[MODE_SET(t->mode)][t->index][shift];
	if (t->mode & MODE_SHADOW)
		stub = movs ? stubs->shadow_movs[shift] : stubs->shadow_stos[shift];
	emit_op_by(t, d, stub, true);
	return true;
}

bool inline_op_goes_on(const struct translator *t, const struct decoded *d)
{
	return can_change_ac(t, d) || is_short_string(t, d);
}

/* ---- segment bases and selectors ---- */

static bool inline_swapgs(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	e_load_gs(e, W64, S0, GS(seg_base_gs));
	e_load_gs(e, W64, S1, GS(msr.kernel_gs_base));
	e_store_gs(e, W64, S0, GS(msr.kernel_gs_base));
	e_store_gs(e, W64, S1, GS(seg_base_gs));
	e_store_gs(e, W64, S1, GS(seg[SEG_GS].base));
	return true;
}

static void need_fsgsbase(struct translator *t)
{
	flags_to_memory(t, S0);
	e_test_gs_byte(&t->e, GS(cr4) + 2, CR4_FSGSBASE >> 16);
	go_slow(t, CC_E);
}

static bool inline_read_base(struct translator *t, const struct decoded *d)
{
	need_fsgsbase(t);
	e_load_gs(&t->e, W64, S0, d->insn.op == OP_ID_rdfsbase ? GS(seg_base_fs) : GS(seg_base_gs));
	e_put_guest(&t->e, d->insn.opsize, d->insn.rm, S0);
	slow_back(t);
	return true;
}

static bool inline_write_base(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	bool fs = d->insn.op == OP_ID_wrfsbase;
	need_fsgsbase(t);
	e_get_guest(e, d->insn.opsize == 8, S0, d->insn.rm);
	if (d->insn.opsize == 8) { /* canonical? */
		e_mov(e, W64, S1, S0);
		e_shift(e, W64, SHIFT_LEFT, S1, 16);
		e_shift(e, W64, SHIFT_ARITH, S1, 16);
		e_rr(e, W64, 0x3b, S1, S0);
		go_slow(t, CC_NE);
	}
	e_store_gs(e, W64, S0, fs ? GS(seg_base_fs) : GS(seg_base_gs));
	e_store_gs(e, W64, S0, fs ? GS(seg[SEG_FS].base) : GS(seg[SEG_GS].base));
	slow_back(t);
	return true;
}

static bool inline_mov_from_seg(struct translator *t, const struct decoded *d)
{
	u8 seg = d->insn.reg & 7;
	if (d->insn.is_mem || seg > SEG_GS)
		return false;
	e_gs(&t->e, W32, 0x0fb7, S0,
	     GS(seg) + (s32)sizeof(struct segment) * seg +
		 (s32)offsetof(struct segment, selector)); /* movzx */
	e_put_guest(&t->e, d->insn.opsize, d->insn.rm, S0);
	return true;
}

/* ---- control registers ---- */

static bool inline_mov_from_cr(struct translator *t, const struct decoded *d)
{
	static const s32 where[] = {[0] = GS(cr0), [2] = GS(cr2), [3] = GS(cr3), [4] = GS(cr4)};
	u8 n = d->insn.reg;
	if (n >= ARRAY_SIZE(where) || !where[n] || d->insn.lock)
		return false;
	e_load_gs(&t->e, W64, S0, where[n]);
	e_put_guest(&t->e, 8, d->insn.rm, S0);
	return true;
}

/* ---- time ---- */

static bool inline_rdtsc(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	bool p = d->insn.op == OP_ID_rdtscp;
	if (p && !feature(t->v, FEATURE_RDTSCP))
		return false;
	if (!(t->mode & MODE_RING0)) {
		flags_to_memory(t, S0);
		e_test_gs_byte(e, GS(cr4), CR4_TSD);
		go_slow(t, CC_NE);
	}
	park_live(t);
	if (p) { /* SDM 2B RDTSCP: behind all earlier instructions */
		e8(e, 0x0f);
		e8(e, 0xae);
		e8(e, 0xe8); /* lfence */
	}
	e8(e, 0x0f);
	e8(e, 0x31); /* rdtsc */
	e_shift(e, W64, SHIFT_LEFT, RDX, 32);
	e_rr(e, W64, 0x0b, RAX, RDX);
	e_gs(e, W64, 0x03, RAX, GS(tsc_offset)); /* add */
	e_mov(e, W64, RDX, RAX);
	e_shift(e, W64, SHIFT_RIGHT, RDX, 32);
	e_mov(e, W32, RAX, RAX);
	if (p)
		e_load_gs(e, W32, RCX, GS(msr.tsc_aux));
	slow_back(t);
	return true;
}

/* ---- bit strings ---- */

/* The instruction as it is, on a base moved back by what the look-up has added for the offset. */
static void bit_string_body(struct translator *t, const struct decoded *d)
{
	const struct insn *i = &d->insn;
	struct emitter *e = &t->e;
	int bit = host_reg(i->reg);
	e_load_gs(e, W64, S1, GS(tmp[0]));
	e_lea(e, W64, S0, S0, S1, 1, 0);
	if (bit == REG_NONE) {
		e_load_gs(e, W64, S1, GS_REG(i->reg));
		bit = S1;
	}
	if (i->lock)
		e8(e, 0xf0);
	e_mem(e, i->opsize == 8, 0x0f00 | i->opcode, bit, S0, REG_NONE, 1, 0);
}

static bool inline_bit_string(struct translator *t, const struct decoded *d)
{
	const struct insn *i = &d->insn;
	struct emitter *e = &t->e;
	bool test = i->opcode == 0xa3, wide = i->opsize == 8;
	if (i->addrsize != 8 || i->opsize < 4)
		return false;
	const struct place where = operand_place(d, i->opsize, true, !test);
	flags_to_memory(t, S0);
	emit_ea(t, &where, 0);
	/* SDM 2A BT: the register is a signed offset in bits. */
	e_get_guest(e, W64, S1, i->reg);
	if (!wide)
		e_rr(e, W64, 0x63, S1, S1); /* movsxd */
	e_shift(e, W64, SHIFT_ARITH, S1, wide ? 6 : 5);
	e_shift(e, W64, SHIFT_LEFT, S1, wide ? 3 : 2);
	e_lea(e, W64, S0, S0, S1, 1, 0);
	e_rex(e, W64, 0, 0, S1);
	e8(e, 0xf7);
	e8(e, 0xc0 | 3 << 3 | (S1 & 7)); /* neg */
	e_store_gs(e, W64, S1, GS(tmp[0]));
	t->body_acquire = true;
	t->body_host_after = true;
	emit_access_r14(t, d, &where, bit_string_body);
	t->body_acquire = false;
	t->parked = false;
	return true;
}

/* ---- system calls: stubs of their own ---- */

static bool inline_syscall(struct translator *t, const struct decoded *d)
{
	const struct stubs *stubs = &t->v->cache->stubs;
	bool ret = d->insn.op == OP_ID_sysret;
	if (!t->v->vm->tune.syscalls || (t->mode & (MODE_ONE | MODE_STEP)))
		return false;
	if (ret && (!(t->mode & MODE_RING0) || d->insn.opsize != 8))
		return false;
	e_store_gs_imm(&t->e, GS(next_rip), d->next_rip, S0);
	emit_op_by(t, d, (ret ? stubs->sysret : stubs->syscall)[MODE_SET(t->mode)], false);
	return true;
}

/* ---- which ---- */

/* What VMX controls of non-root operation are about (SDM 3C 26.1.3, 26.3). */
static bool may_leave(u32 op)
{
	return op == OP_ID_mov_from_cr || op == OP_ID_rdtsc || op == OP_ID_rdtscp;
}

bool emit_inline_op(struct translator *t, const struct decoded *d)
{
	bool ring0 = t->mode & MODE_RING0;
	if ((t->mode & 3) != MODE_CODE64)
		return false;
	r14_changes(t);
	if (d->insn.op == OP_ID_syscall || d->insn.op == OP_ID_sysret)
		return inline_syscall(t, d);
	if (d->insn.op == OP_ID_movs || d->insn.op == OP_ID_stos)
		return inline_string(t, d);
	if (!t->v->vm->tune.inline_ops)
		return false;
	if ((t->mode & MODE_NONROOT) && may_leave(d->insn.op))
		return false;
	switch (d->insn.op) {
	case OP_ID_cli:
		return ring0 && inline_cli(t, d);
	case OP_ID_sti:
		return ring0 && inline_sti(t, d);
	case OP_ID_swapgs:
		return ring0 && inline_swapgs(t, d);
	case OP_ID_stac:
	case OP_ID_clac:
		return inline_ac(t, d);
	case OP_ID_mov_from_cr:
		return ring0 && inline_mov_from_cr(t, d);
	case OP_ID_pushf:
		return inline_pushf(t, d);
	case OP_ID_rdfsbase:
	case OP_ID_rdgsbase:
		return inline_read_base(t, d);
	case OP_ID_wrfsbase:
	case OP_ID_wrgsbase:
		return inline_write_base(t, d);
	case OP_ID_mov_from_seg:
		return inline_mov_from_seg(t, d);
	case OP_ID_rdtsc:
	case OP_ID_rdtscp:
		return inline_rdtsc(t, d);
	case OP_ID_bit_string:
		return inline_bit_string(t, d);
	default:
		return false;
	}
}
