/* Near branches, and the stack instructions that move no segment. */
#include "engine/soft/translate/translator.h"

static bool single(const struct translator *t)
{
	return t->mode & (MODE_ONE | MODE_STEP);
}

/* What a block that holds a single instruction leaves behind (see dispatch.c). */
static void emit_single_end(struct translator *t)
{
	struct emitter *e = &t->e;
	if (t->mode & MODE_ONE) {
		e8(e, 0x65);
		e8(e, 0x66);
		e8(e, 0xc7);
		e8(e, 0x04);
		e8(e, 0x25);
		e32(e, (u32)GS(int_shadow));
		e16(e, 0); /* mov word gs:[int_shadow], 0: and v->replay */
		e_store_gs_imm(e, GS(io_logged), 0, S0); /* and io_cursor */
	}
	if (t->mode & MODE_STEP) {
		e8(e, 0x65);
		e8(e, 0xc6);
		e8(e, 0x04);
		e8(e, 0x25);
		e32(e, (u32)GS(stepped));
		e8(e, 1);
	}
}

static u32 push_size(const struct decoded *d)
{
	return d->insn.opsize;
}

u32 stack_size(const struct translator *t, const struct decoded *d)
{
	bool branch = d->class >= CLASS_JMP;
	return branch && (t->mode & 3) == MODE_CODE64 ? 8 : d->insn.opsize;
}

/* What to add to RSP if the target of branch @d turns out to be non-canonical. */
static s32 undo_of(const struct decoded *d)
{
	if (d->class == CLASS_RET)
		return -(s32)(push_size(d) + (u16)d->insn.imm);
	if (d->class == CLASS_CALL || d->class == CLASS_CALL_IND)
		return (s32)push_size(d);
	return 0;
}

/* The jump at @site is taken with the target in r14, flags parked: not in the jump cache. */
static void add_miss(struct translator *t, u8 *site, u32 insn, const u8 *stub, bool compared)
{
	u32 n = t->miss_count++;
	t->miss[n].compared = compared;
	t->miss[n].site = site;
	t->miss[n].stub = stub;
	t->miss[n].insn = insn;
}

/* Out of line. Whoever needs to know finds the branch by the call's return address. */
static void emit_misses(struct translator *t)
{
	struct emitter *e = &t->e;
	struct block *b = t->block;
	const u8 *start = t->v->cache->rw + b->code;
	b->ways = cache_alloc(t->v->cache, t->miss_count * sizeof(*b->ways));
	if (!b->ways) {
		t->no_memory = true;
		return;
	}
	for (u32 n = 0; n < t->miss_count; n++) {
		struct cached_way *way = &b->ways[b->way_count++];
		if (t->miss[n].compared) /* the displacement stands behind two bytes of JNE */
			way->branch = (u16)(t->miss[n].site - 2 - start);
		way->undo = undo_of(&t->insns[t->miss[n].insn]);
		e_patch(e, t->miss[n].site, e->p);
		map_here(t, t->miss[n].insn, true);
		e_call_to(e, t->miss[n].stub - e->to_rx);
		way->back = (u16)(e->p - start);
	}
}

/* r14 = target, flags parked: through the jump cache. @known: its constant target, or ~0. Where the
 * block has changed its mode, that cache may hold blocks of another one. */
static void emit_jump_cache(struct translator *t, u64 known, u32 insn)
{
	struct emitter *e = &t->e;
	const struct stubs *stubs = &t->v->cache->stubs;
	u32 set = MODE_SET(t->mode);
	s32 table = GS_JUMP(set, t->index);
	if (t->mode != t->block->mode) {
		e_gs(e, W32, 0x81, ALU_CMP, GS_MMU(set, jump_mode) + 4 * (s32)t->index);
		e32(e, t->mode & ~(u32)MODE_PLAIN);
		add_miss(t, e_jcc(e, CC_NE), insn, stubs->indirect, false);
	}
	if (known != ~0ull) {
		table += (s32)(jump_slot(known) * sizeof(struct jump_entry));
		e_gs(e, W64, 0x3b, S0, table); /* cmp r14, gs:[rip] */
	} else {
		e_jump_slot(e, t->v->cache->has_rorx);
		e_gs_base(e, W64, 0x3b, S0, S1, table);
	}
	add_miss(t, e_jcc(e, CC_NE), insn,
		 t->v->vm->tune.ways ? stubs->second[set][t->index] : stubs->indirect, true);
	if (known != ~0ull)
		e_gs(e, W32, 0xff, 4, table + 8); /* jmp gs:[code] */
	else
		e_gs_base(e, W32, 0xff, 4, S1, table + 8); /* jmp gs:[r15 + code] */
}

/* Goes on at the address in the low @size bytes of r14, CS-relative. */
static void emit_goto_r14(struct translator *t, u32 size)
{
	struct emitter *e = &t->e;
	if (size == 2)
		e_rr(e, W32, 0x0fb7, S0, S0); /* movzx r14d, r14w */
	flags_to_memory(t, S1);
	if (single(t) || !(t->mode & MODE_FLAT)) {
		e_store_gs(e, W64, S0, GS(tmp[3]));
		emit_single_end(t);
		e_load_gs(e, W64, S0, GS(tmp[3]));
		add_miss(t, e_jmp(e), t->count - 1, t->v->cache->stubs.indirect, false);
		return;
	}
	emit_jump_cache(t, ~0ull, t->count - 1);
}

static bool chainable(const struct translator *t, u64 target)
{
	u64 linear = target + t->block->cs_base;
	/* What may be an instruction that crosses into the next page is found through the jump
	 * cache, as blocks of two pages are not linked. */
	if (t->v->vm->tune.crossings && (t->mode & MODE_FLAT) &&
	    (linear & ~PAGE_MASK) > PAGE_SIZE - INSN_BYTES_MAX)
		return false;
	if (single(t) || t->mode != t->block->mode || t->block->gpa2 != ~0ull)
		return false;
	return (linear & PAGE_MASK) == t->page ||
	       ((t->mode & MODE_SHADOW) && t->v->vm->tune.far && is_canonical(linear));
}

struct side_exit *add_side_exit(struct translator *t, u8 *site, u64 target, u32 insn,
				bool cs_checked)
{
	struct side_exit *side = &t->side[t->side_count++];
	*side = (struct side_exit){
	    .site = site,
	    .target = target,
	    .insn = insn,
	    .mode = t->mode,
	    .parked = t->parked,
	    .cs_checked = cs_checked,
	};
	return side;
}

/* Leaves for another page, from here on. */
static void emit_goto_far(struct translator *t, u64 target, u32 insn)
{
	struct emitter *e = &t->e;
	if (single(t) || !(t->mode & MODE_FLAT)) {
		flags_to_host(t, S0);
		emit_single_end(t);
		e_store_gs_imm(e, GS(rip), target, S0);
		e_jmp_to(e, t->v->cache->stubs.plain_exit - e->to_rx);
		return;
	}
	flags_to_memory(t, S0);
	r14_changes(t);
	e_mov_imm(e, S0, target);
	emit_jump_cache(t, target, insn);
}

void emit_goto(struct translator *t, u64 target)
{
	if (chainable(t, target))
		add_side_exit(t, e_jmp(&t->e), target, t->count - 1, false);
	else
		emit_goto_far(t, target, t->count - 1);
}

/* A branch beyond the limit of CS faults itself (SDM 2A JMP, Jcc, LOOP): it has counted nothing. */
static void emit_limit_fault(struct translator *t, const struct decoded *d)
{
	struct decoded fault = *d;
	if (d->class == CLASS_LOOP && d->insn.opcode != 0xe3) {
		if (d->insn.addrsize == 2)
			e8(&t->e, 0x66);
		e_lea(&t->e, W32, RCX, RCX, REG_NONE, 1, 1);
	}
	fault.class = CLASS_OP;
	fault.insn.op = OP_ID_gp;
	emit_op(t, &fault);
}

static bool beyond_limit(const struct translator *t, u64 target)
{
	bool limited = (t->mode & 3) != MODE_CODE64 && !(t->mode & MODE_FLAT);
	return limited && target > t->v->seg[SEG_CS].limit;
}

/* Unlinked, the jump leads to the exit's stub. */
static void emit_exit_stub(struct translator *t, const struct side_exit *side)
{
	struct emitter *e = &t->e;
	const struct stubs *stubs = &t->v->cache->stubs;
	struct block_exit *exit = &t->block->exits[t->block->exit_count++];
	exit->from = t->block;
	exit->target = side->target;
	exit->parked = side->parked;
	exit->plain = side->plain;
	exit->inner = side->inner;
	exit->cold = side->cold;
	exit->site = (u32)(side->site - t->v->cache->rw);
	exit->stub = (u32)(e->p - t->v->cache->rw);
	r14_changes(t);
	e_mov_imm(e, S1, (u64)((u8 *)exit - t->v->cache->arena));
	e_jmp_to(e, (side->parked ? stubs->exit_parked : stubs->exit) - e->to_rx);
}

void emit_exit_stubs(struct translator *t)
{
	t->block->exits = cache_alloc(t->v->cache, t->side_count * sizeof(*t->block->exits));
	if (!t->block->exits) {
		t->no_memory = true;
		return;
	}
	for (u32 n = 0; n < t->side_count; n++) {
		const struct side_exit *side = &t->side[n];
		e_patch(&t->e, side->site, t->e.p);
		t->current = side->insn;
		t->live = t->live_after[side->insn];
		t->parked = side->parked;
		t->mode = side->mode;
		t->index = (enum mmu_index)MODE_MMU(side->mode);
		if (side->cs_checked && beyond_limit(t, side->target))
			emit_limit_fault(t, &t->insns[side->insn]);
		else if (side->plain || chainable(t, side->target))
			emit_exit_stub(t, side);
		else
			emit_goto_far(t, side->target, side->insn);
	}
	emit_misses(t);
}

/* The jump at @taken leads to the target, what comes next is behind the branch. */
static void emit_two_ways(struct translator *t, const struct decoded *d, u8 *taken)
{
	add_side_exit(t, taken, d->target, t->current, true);
	if (t->current + 1 == t->count)
		emit_goto(t, d->next_rip);
}

static void emit_jcc(struct translator *t, const struct decoded *d)
{
	flags_to_host(t, S0);
	if (t->looping && t->current + 1 == t->count && (t->mode & MODE_SHADOW)) {
		add_side_exit(t, e_jcc(&t->e, d->cond), d->target, t->current, true)->inner = true;
		emit_goto(t, d->next_rip);
		return;
	}
	if (t->looping && t->current + 1 == t->count) {
		u8 *out = e_jcc(&t->e, d->cond ^ 1);
		add_side_exit(t, out, d->next_rip, t->current, false);
		emit_loop_turn(t);
		return;
	}
	emit_two_ways(t, d, e_jcc(&t->e, d->cond));
}

static u8 *e_jrcxz(struct emitter *e, u8 addrsize)
{
	if (addrsize == 4)
		e8(e, 0x67);
	e8(e, 0xe3);
	e8(e, 0);
	return e->p - 1;
}

static void e_patch8(struct emitter *e, u8 *site)
{
	if (!e->full)
		*site = (u8)(e->p - (site + 1));
}

/* LOOPNE E0, LOOPE E1, LOOP E2, JCXZ E3; none changes flags. */
static void emit_loop(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	u8 opcode = d->insn.opcode, size = d->insn.addrsize;
	bool jcxz = opcode == 0xe3;
	flags_to_host(t, S0);
	if (!jcxz) {
		if (size == 2)
			e8(e, 0x66);
		e_lea(e, size == 8, RCX, RCX, REG_NONE, 1, -1);
	}
	if (size == 2) { /* there is no JCXZ in 64-bit mode */
		e_mov(e, W64, S0, RCX);
		e_rr(e, W32, 0x0fb7, RCX, RCX);
	}
	u8 *zero = e_jrcxz(e, size == 4 ? 4 : 8);
	if (size == 2)
		e_mov(e, W64, RCX, S0);
	u8 *nonzero = NULL, *flag = NULL;
	if (jcxz) {
		nonzero = e_jmp(e);
	} else {
		if (opcode != 0xe2)
			flag = e_jcc(e, opcode == 0xe1 ? CC_NE : CC_E);
		nonzero = e_jmp(e);
	}
	e_patch8(e, zero);
	if (size == 2)
		e_mov(e, W64, RCX, S0);
	if (jcxz) {
		u8 *taken = e_jmp(e);
		e_patch(e, nonzero, e->p);
		emit_two_ways(t, d, taken);
	} else {
		if (flag)
			e_patch(e, flag, e->p);
		emit_two_ways(t, d, nonzero);
	}
}

/* Pushes what is in r15 or an immediate; the address is in r14 as hva. */
static void stack_move(struct translator *t, s32 delta)
{
	e_lea(&t->e, (t->mode & 3) == MODE_CODE64, HOST_RSP, HOST_RSP, REG_NONE, 1, delta);
}

/* op reg, the memory operand */
static void e_operand(struct translator *t, int w, u32 opcode, int reg)
{
	e_mem(&t->e, w, opcode, reg, t->mem_base, t->mem_index, t->mem_scale, t->disp);
}

static void e_store_size(struct translator *t, u32 size, int reg)
{
	if (size == 2)
		e8(&t->e, 0x66);
	e_operand(t, size == 8, 0x89, reg);
}

static void e_load_size(struct translator *t, u32 size, int reg)
{
	if (size == 2)
		e8(&t->e, 0x66);
	e_operand(t, size == 8, 0x8b, reg);
}

/* The register that a body may use. */
static int take_spare(struct translator *t)
{
	spare_changes(t);
	return t->spare;
}

static void store_immediate(struct translator *t, u32 size, u64 value)
{
	struct emitter *e = &t->e;
	if (size == 8 && (s64)value != (s32)value) {
		e_mov_imm(e, take_spare(t), value);
		e_store_size(t, 8, t->spare);
		return;
	}
	if (size == 2)
		e8(e, 0x66);
	e_operand(t, size == 8, 0xc7, 0);
	if (size == 2)
		e16(e, (u32)value);
	else
		e32(e, (u32)value);
}

static void push_body(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	u32 size = push_size(d);
	if (d->mem) {
		e_load_gs(e, W64, take_spare(t), GS(tmp[0]));
		e_store_size(t, size, t->spare);
	} else if (d->gpr_count) {
		int host = host_reg(d->gpr[0].guest);
		if (host == REG_NONE) {
			host = take_spare(t);
			e_load_gs(e, W64, host, GS_REG(d->gpr[0].guest));
		}
		e_store_size(t, size, host);
	} else {
		store_immediate(t, size, d->insn.imm);
	}
	stack_move(t, -(s32)size);
}

/* The value of a memory operand goes through v->tmp[0], so that r14 and r15 are free for the stack.
 */
static void load_to_tmp(struct translator *t, const struct decoded *d)
{
	e_load_size(t, push_size(d), take_spare(t));
	e_store_gs(&t->e, W64, t->spare, GS(tmp[0]));
}

void emit_push(struct translator *t, const struct decoded *d)
{
	if (d->mem)
		emit_access(t, d, 0, load_to_tmp);
	emit_access(t, d, d->mem, push_body);
}

static void pop_register(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	u32 size = push_size(d);
	int guest = d->gpr[0].guest, host = host_reg(guest);
	if (guest == RSP) {
		if (size == 2)
			stack_move(t, 2);
		e_load_size(t, size, HOST_RSP);
		return;
	}
	if (host == REG_NONE) {
		if (size == 2)
			e_load_gs(e, W64, take_spare(t), GS_REG(guest));
		e_load_size(t, size, take_spare(t));
		e_store_gs(e, W64, t->spare, GS_REG(guest));
	} else {
		e_load_size(t, size, host);
	}
	stack_move(t, (s32)size);
}

static void pop_memory(struct translator *t, const struct decoded *d)
{
	e_load_gs(&t->e, W64, take_spare(t), GS(tmp[0]));
	e_store_size(t, push_size(d), t->spare);
	stack_move(t, (s32)push_size(d));
}

void emit_pop(struct translator *t, const struct decoded *d)
{
	emit_access(t, d, 0, d->mem ? load_to_tmp : pop_register);
	if (d->mem)
		emit_access(t, d, 1, pop_memory);
}

static void leave_body(struct translator *t, const struct decoded *d)
{
	bool w = (t->mode & 3) == MODE_CODE64;
	/* Nothing has changed yet if the load faults. */
	int value = take_spare(t);
	if (push_size(d) == 2)
		e_mov(&t->e, W64, value, RBP);
	e_load_size(t, push_size(d), value);
	e_lea(&t->e, w, HOST_RSP, RBP, REG_NONE, 1, (s32)push_size(d));
	e_mov(&t->e, W64, RBP, value);
}

void emit_leave(struct translator *t, const struct decoded *d)
{
	emit_access(t, d, 0, leave_body);
}

/* Guest register @guest or REG_NONE, in the host's or loaded into @scratch. */
static int lea_register(struct translator *t, int guest, int scratch)
{
	if (guest == REG_NONE || host_reg(guest) != REG_NONE)
		return guest == REG_NONE ? REG_NONE : host_reg(guest);
	if (scratch == S0)
		r14_changes(t);
	else
		s1_changes(t);
	e_load_gs(&t->e, W64, scratch, GS_REG(guest));
	return scratch;
}

void emit_lea(struct translator *t, const struct decoded *d)
{
	const struct insn *i = &d->insn;
	struct emitter *e = &t->e;
	bool sizes_agree = i->opsize >= 4 && (i->addrsize == 8 || i->addrsize == i->opsize);
	if ((i->base != REG_NONE || i->index != REG_NONE) && sizes_agree &&
	    host_reg(i->reg) != REG_NONE) {
		int base = lea_register(t, i->base, S0);
		int index = lea_register(t, i->index, S1);
		e_lea(e, i->opsize == 8, host_reg(i->reg), base, index, i->scale, (s32)i->disp);
		return;
	}
	/* LEA knows no segment. */
	const struct place where = {.base = i->base,
				    .index = i->index,
				    .scale = i->scale,
				    .seg = SEG_DS,
				    .addrsize = i->addrsize,
				    .disp = i->disp};
	emit_ea(t, &where, 0);
	int guest = i->reg, host = host_reg(guest);
	if (i->opsize == 2) {
		if (host == REG_NONE) {
			e8(e, 0x65);
			e8(e, 0x66);
			e_rex(e, W32, S0, 0, 0);
			e8(e, 0x89);
			e8(e, 0x04 | (S0 & 7) << 3);
			e8(e, 0x25);
			e32(e, (u32)GS_REG(guest)); /* mov gs:[], r14w */
		} else {
			e8(e, 0x66);
			e_mov(e, W32, host, S0);
		}
		return;
	}
	if (host == REG_NONE) {
		if (i->opsize == 4)
			e_mov(e, W32, S0, S0);
		e_store_gs(e, W64, S0, GS_REG(guest));
	} else {
		e_mov(e, i->opsize == 8, host, S0);
	}
}

static void call_body(struct translator *t, const struct decoded *d)
{
	u32 size = push_size(d);
	store_immediate(t, size, d->next_rip);
	stack_move(t, -(s32)size);
}

/* A branch by 16 bits outside 64-bit mode clears the upper half of EIP (SDM 2A CALL, JMP; 2B RET).
 */
static void e_cut_target(struct emitter *e, u32 size, int reg)
{
	if (size == 2)
		e_rr(e, W32, 0x0fb7, reg, reg); /* movzx */
}

static void target_to_tmp(struct translator *t, const struct decoded *d)
{
	e_load_size(t, push_size(d), take_spare(t));
	e_cut_target(&t->e, push_size(d), t->spare);
	e_store_gs(&t->e, W64, t->spare, GS(tmp[0]));
}

/* Target of an indirect branch to v->tmp[0], truncated to the operand size. */
static void emit_target_to_tmp(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	if (d->mem) {
		emit_access(t, d, 0, target_to_tmp);
		return;
	}
	s1_changes(t);
	e_get_guest(e, push_size(d) == 8, S1, d->gpr[0].guest);
	e_cut_target(e, push_size(d), S1);
	e_store_gs(e, W64, S1, GS(tmp[0]));
}

static void ret_body(struct translator *t, const struct decoded *d)
{
	e_load_size(t, push_size(d), S0);
	e_cut_target(&t->e, push_size(d), S0);
	stack_move(t, (s32)(push_size(d) + (u16)d->insn.imm));
}

static void jmp_body(struct translator *t, const struct decoded *d)
{
	e_load_size(t, push_size(d), S0);
	e_cut_target(&t->e, push_size(d), S0);
}

static void emit_jmp_indirect(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	r14_changes(t);
	if (d->mem) {
		emit_access(t, d, 0, jmp_body);
	} else {
		e_get_guest(e, push_size(d) == 8, S0, d->gpr[0].guest);
		e_cut_target(e, push_size(d), S0);
	}
	emit_goto_r14(t, push_size(d));
}

void emit_flow(struct translator *t, const struct decoded *d)
{
	/* Not a copy: bodies are emitted again for the cold path. */
	struct decoded *kept = &t->insns[t->current];
	kept->insn.opsize = (u8)stack_size(t, d);
	switch (d->class) {
	case CLASS_JMP:
		if (beyond_limit(t, d->target))
			emit_limit_fault(t, d);
		else
			emit_goto(t, d->target);
		break;
	case CLASS_JCC:
		emit_jcc(t, d);
		break;
	case CLASS_LOOP:
		emit_loop(t, d);
		break;
	case CLASS_CALL:
		emit_access(t, kept, 0, call_body);
		emit_goto(t, d->target);
		break;
	case CLASS_CALL_IND:
		emit_target_to_tmp(t, kept);
		emit_access(t, kept, d->mem, call_body);
		e_load_gs(&t->e, W64, S0, GS(tmp[0]));
		emit_goto_r14(t, push_size(kept));
		break;
	case CLASS_JMP_IND:
		emit_jmp_indirect(t, kept);
		break;
	case CLASS_RET:
		emit_access(t, kept, 0, ret_body);
		emit_goto_r14(t, push_size(kept));
		break;
	default:
		break;
	}
}
