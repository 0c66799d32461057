/* Memory operands: effective address, TLB look-up, and the way out when it misses. */
#include "engine/soft/translate/translator.h"

#include "base/types.h"
#include "engine/soft/mmu/shadow.h"

static bool is_64(const struct translator *t)
{
	return (t->mode & 3) == MODE_CODE64;
}

/* Guest register as an address component: its host register, or loaded into @scratch. */
static int address_reg(struct translator *t, int guest, int scratch)
{
	if (guest == REG_NONE)
		return REG_NONE;
	if (host_reg(guest) != REG_NONE)
		return host_reg(guest);
	e_load_gs(&t->e, W64, scratch, GS_REG(guest));
	return scratch;
}

static void emit_constant_address(struct translator *t, const struct place *i, s64 extra,
				  s32 base_gs)
{
	u64 address = (u64)(i->disp + extra);
	if (i->addrsize == 2) /* SDM 1 3.3.7: effective addresses wrap at the address size */
		address = (u16)address;
	else if (i->addrsize == 4)
		address = (u32)address;
	if (!base_gs) {
		e_mov_imm(&t->e, S0, address);
	} else if ((s64)address == (s32)address) {
		e_load_gs(&t->e, W64, S0, base_gs);
		if (address)
			e_lea(&t->e, W64, S0, S0, REG_NONE, 1, (s32)address);
	} else {
		e_mov_imm(&t->e, S0, address);
		e_load_gs(&t->e, W64, S1, base_gs);
		e_lea(&t->e, W64, S0, S0, S1, 1, 0);
	}
}

void emit_ea(struct translator *t, const struct place *i, s64 extra)
{
	struct emitter *e = &t->e;
	s32 base_gs = 0;
	r14_changes(t);
	s1_changes(t);
	if (is_64(t) && i->seg == SEG_FS)
		base_gs = GS(seg_base_fs);
	else if (is_64(t) && i->seg == SEG_GS)
		base_gs = GS(seg_base_gs);

	if (i->base == REG_NONE && i->index == REG_NONE) {
		emit_constant_address(t, i, extra, base_gs);
		return;
	}
	int base = address_reg(t, i->base, S0);
	int index = address_reg(t, i->index, S1);
	s32 disp = (s32)(i->disp + extra);
	if (i->addrsize == 8 && base_gs && index == REG_NONE) {
		e_load_gs(e, W64, S1, base_gs);
		e_lea(e, W64, S0, base, S1, 1, disp);
		return;
	}
	bool plain = index == REG_NONE && disp == 0 && i->addrsize >= 4;
	if (plain && (base != S0 || i->addrsize == 4))
		e_mov(e, i->addrsize == 8, S0, base);
	else if (!plain)
		e_lea(e, i->addrsize == 8, S0, base, index, i->scale, disp);
	if (i->addrsize == 2)
		e_rr(e, W32, 0x0fb7, S0, S0); /* movzx r14d, r14w */
	if (base_gs) {
		e_load_gs(e, W64, S1, base_gs);
		e_lea(e, W64, S0, S0, S1, 1, 0);
	}
}

void map_here(struct translator *t, u32 insn, bool parked)
{
	if (t->map_count == ARRAY_SIZE(t->map))
		return;
	u64 start = (u64)(t->v->cache->rw + t->block->code);
	u64 guest = t->insns[insn].rip - t->insns[0].rip;
	t->map[t->map_count++] = (struct insn_map){
	    .host = (u16)((u64)t->e.p - start),
	    .guest = (u16)guest & 0x7fff,
	    .flags_parked = parked,
	};
}

/*
 * TLB look-up of the linear address in r14 (struct tlb in vcpu.h): r14 becomes the hva, r15 is
 * destroyed. The jump taken on a miss is left to the caller; r15 then is the slot's offset and r14
 * the address XOR the tag.
 */
static u8 *emit_tlb_lookup(struct translator *t, u32 size, s32 table)
{
	struct emitter *e = &t->e;
	if (t->v->cache->has_rorx) {
		e_rorx(e, S1, S0, 12 - 4);
	} else {
		e_mov(e, W64, S1, S0);
		e_rex(e, W64, 0, 0, S1);
		e8(e, 0xc1);
		e8(e, 0xc0 | 5 << 3 | (S1 & 7));
		e8(e, 12 - 4); /* shr r15, 8 */
	}
	e_rex(e, W32, 0, 0, S1);
	e8(e, 0x81);
	e8(e, 0xc0 | ALU_AND << 3 | (S1 & 7));
	e32(e, (TLB_SIZE - 1) << 4);		/* and r15d, slots * 16 */
	e_gs_base(e, W64, 0x33, S0, S1, table); /* xor r14, gs:[r15 + tag] */
	e_alu_imm(e, W64, ALU_CMP, S0, (s32)(PAGE_SIZE - size));
	u8 *site = e_jcc(e, CC_A);
	e_gs_base(e, W64, 0x03, S0, S1, table + 8); /* add r14, gs:[r15 + host] */
	return site;
}

static s32 tlb_table(const struct translator *t, bool write)
{
	s32 table = GS_MMU(MODE_SET(t->mode), tlb) + (s32)sizeof(struct tlb) * (s32)t->index;
	return table + (write ? (s32)offsetof(struct tlb, write) : (s32)offsetof(struct tlb, read));
}

static u32 describe(const struct translator *t, const struct decoded *d, const struct place *p,
		    bool segmented)
{
	bool call = p->write && (d->class == CLASS_CALL || d->class == CLASS_CALL_IND);
	/* An x87 store that meets an unmasked exception stores nothing: what is in the bounce
	 * buffer then goes back. */
	bool reads = p->read || (p->write && d->fpu);
	return p->size | (reads ? ACCESS_READS : 0) | (p->write ? ACCESS_WRITES : 0) |
	       (p->seg == SEG_SS ? ACCESS_STACK : 0) | (segmented ? ACCESS_SEGMENTED : 0) |
	       (t->mode & MODE_ALIGN ? ACCESS_ALIGN : 0) | (call ? ACCESS_CALL : 0) |
	       (d->mem_aligned ? ACCESS_ALIGNED : 0) | d->mem_mask |
	       (u32)t->index << ACCESS_INDEX_SHIFT | (u32)p->seg << ACCESS_SEG_SHIFT;
}

/* CS is never writable and may be unreadable (SDM 3A 3.4.5.1), so it counts as not flat. */
static bool is_segmented(const struct translator *t, u8 seg)
{
	return !(t->mode & MODE_FLAT) || (!is_64(t) && seg == SEG_CS) ||
	       (!is_64(t) && seg >= SEG_FS && (t->mode & MODE_FS_BASE));
}

static struct cold_access *new_cold(struct translator *t, const struct decoded *d,
				    body_function *body)
{
	struct cold_access *cold = &t->cold[t->cold_count++];
	*cold = (struct cold_access){.body = body,
				     .d = d,
				     .insn = t->current,
				     .mode = t->mode,
				     .acquire = t->body_acquire,
				     .host_after = t->body_host_after};
	return cold;
}

static void emit_body(struct translator *t, const struct decoded *d, s32 disp, body_function *body)
{
	if (t->body_acquire) {
		spare_changes(t);
		e_restore_flags(&t->e, t->spare);
		map_here(t, t->current, false); /* a look-up before may have faulted */
	}
	t->disp = disp;
	body(t, d);
	t->disp = 0;
}

void emit_access_r14(struct translator *t, const struct decoded *d, const struct place *p,
		     body_function *body)
{
	struct emitter *e = &t->e;
	bool segmented = is_segmented(t, p->seg);
	s32 table = tlb_table(t, p->write);
	r14_changes(t);
	struct cold_access *cold = new_cold(t, d, body);
	cold->description = describe(t, d, p, segmented);
	if (segmented || (t->mode & MODE_ALIGN)) {
		cold->site = e_jmp(e);
	} else {
		cold->site = emit_tlb_lookup(t, p->size, table);
		cold->tag = table;
	}
	cold->back = e->p;
	emit_body(t, d, 0, body);
	cold->after = e->p;
}

/* ---- through the shadow table (mmu/shadow.h) ---- */

bool is_shadowed(const struct translator *t, const struct decoded *d)
{
	if (!(t->mode & MODE_SHADOW))
		return false;
	if (d->class != CLASS_NATIVE)
		return true;
	/* An instruction that needs another register's place could not be undone when it faults. */
	int in_memory = REG_NONE;
	for (int n = 0; n < d->gpr_count; n++) {
		int guest = d->gpr[n].guest;
		if (d->gpr[n].high ||
		    (host_reg(guest) == REG_NONE && in_memory != REG_NONE && in_memory != guest))
			return false;
		if (host_reg(guest) == REG_NONE)
			in_memory = guest;
	}
	return true;
}

/* Whether the body takes a register besides those that find its operand. */
static bool needs_spare(const struct translator *t, const struct decoded *d)
{
	if (t->body_acquire || d->evex)
		return true;
	if (d->class != CLASS_NATIVE)
		return d->class != CLASS_RET && d->class != CLASS_JMP_IND;
	for (int n = 0; n < d->gpr_count; n++)
		if (host_reg(d->gpr[n].guest) == REG_NONE)
			return true;
	return false;
}

/* r15 = what to add to the address in host register @address. */
static void emit_shadow_lookup(struct translator *t, int address)
{
	e_shrx_rsp(&t->e, S1, address);
	e8(&t->e, 0x65);
	e_mem(&t->e, W64, 0x8b, S1, REG_NONE, S1, 8, GS_SHADOW_TABLE); /* mov r15, gs:[] */
}

/* The same for a known one. */
static void emit_shadow_constant(struct translator *t, u64 address)
{
	e_load_gs(&t->e, W64, S1, GS_SHADOW_TABLE + (s32)(address >> SHADOW_SHIFT) * 8);
}

/* Whether emit_ea() leaves r15 alone. */
static bool ea_spares_s1(const struct place *p)
{
	return p->seg < SEG_FS && (p->index == REG_NONE || host_reg(p->index) != REG_NONE);
}

#define DIRECT_MAX (1 << 20) /* displacements are mostly less, or the address of an array */

/* [base + disp] as it is, if the body can do with that: the base register or REG_NONE. */
static int direct_base(const struct translator *t, const struct decoded *d, const struct place *p)
{
	if (p->base == REG_NONE || p->index != REG_NONE || p->seg >= SEG_FS || p->addrsize != 8 ||
	    p->disp > DIRECT_MAX || p->disp < -DIRECT_MAX || d->evex)
		return REG_NONE;
	return host_reg(p->base);
}

static void emit_shadow_access(struct translator *t, const struct decoded *d, const struct place *p,
			       body_function *body)
{
	struct emitter *e = &t->e;
	int base = direct_base(t, d, p);
	bool known = t->s1_group == p->group && p->group != GROUP_NONE && ea_spares_s1(p);
	bool constant = p->base == REG_NONE && p->index == REG_NONE && p->seg < SEG_FS &&
			p->addrsize == 8 && (u64)p->disp >> SHADOW_SHIFT < SHADOW_WINDOWS;
	u8 s1_group = t->s1_group;
	/* Addresses of programs that are linked to lie low fit into the instruction. */
	bool low = constant && p->disp == (s32)p->disp;
	s32 disp = 0;
	if (low) {
		base = S1;
	} else if (base == REG_NONE) {
		emit_ea(t, p, 0);
		base = S0;
	}
	if (base != S0) {
		disp = (s32)p->disp;
		t->spare = S0;
	}
	t->s1_group = s1_group;
	if (!known) {
		if (constant)
			emit_shadow_constant(t, (u64)p->disp);
		else
			emit_shadow_lookup(t, base);
		t->s1_group = p->group;
	}
	t->mem_base = base;
	t->mem_index = low ? REG_NONE : S1;
	t->mem_scale = 1;
	if (base == S0 && needs_spare(t, d)) {
		e_lea(e, W64, S0, S0, S1, 1, 0);
		t->mem_index = REG_NONE;
		s1_changes(t);
	}
	emit_body(t, d, disp, body);
	t->mem_base = S0;
	t->mem_index = REG_NONE;
	t->spare = S1;
}

void emit_group_lookup(struct translator *t, const struct decoded *d, const struct group *g,
		       const struct place *where, s64 extra)
{
	u32 length = (u32)(g->high - g->low);
	s32 table = tlb_table(t, g->write);
	emit_ea(t, where, extra);
	if (g->shadow) {
		emit_shadow_lookup(t, S0);
		e_lea(&t->e, W64, S0, S0, S1, 1, 0);
		return;
	}
	struct cold_access *cold = new_cold(t, d, NULL);
	cold->group = true;
	cold->description =
	    length | (g->write ? GROUP_WRITES : 0) | (u32)t->index << GROUP_INDEX_SHIFT;
	cold->site = emit_tlb_lookup(t, length, table);
	cold->tag = table;
	cold->back = t->e.p;
}

static bool is_constant(const struct translator *t, const struct place *p)
{
	u64 in_page = (u64)p->disp & ~PAGE_MASK;
	return t->v->vm->tune.constants && p->base == REG_NONE && p->index == REG_NONE &&
	       p->addrsize == (is_64(t) ? 8 : 4) && !(is_64(t) && p->seg >= SEG_FS) &&
	       !is_segmented(t, p->seg) && !(t->mode & MODE_ALIGN) &&
	       in_page + p->size <= PAGE_SIZE;
}

/* An address that is known: so is its slot of the TLB, and whether it crosses a page. */
static void emit_constant_access(struct translator *t, const struct decoded *d,
				 const struct place *p, body_function *body)
{
	struct emitter *e = &t->e;
	u64 address = is_64(t) ? (u64)p->disp : (u32)p->disp;
	s32 slot = tlb_table(t, p->write) +
		   (s32)((address / PAGE_SIZE & (TLB_SIZE - 1)) * sizeof(struct tlb_entry));
	r14_changes(t);
	struct cold_access *cold = new_cold(t, d, body);
	cold->description = describe(t, d, p, false);
	cold->constant = address;
	e_mov_imm(e, S0, address & PAGE_MASK);
	e_gs(e, W64, 0x3b, S0, slot); /* cmp r14, gs:[tag] */
	cold->site = e_jcc(e, CC_NE);
	e_load_gs(e, W64, S0, slot + 8);
	cold->back = e->p;
	emit_body(t, d, (s32)(address & ~PAGE_MASK), body);
	cold->after = e->p;
}

/* r14 is where the group would be were its varying register 0: adds that register, in the
 * instruction itself if it has room for it. */
static void emit_varying(struct translator *t, const struct decoded *d, const struct group *g)
{
	int reg = host_reg(g->varies);
	bool high = false;
	for (int n = 0; n < d->gpr_count; n++)
		high |= d->gpr[n].high;
	if (reg != REG_NONE && d->class == CLASS_NATIVE && !high && !d->evex) {
		t->mem_index = reg;
		t->mem_scale = g->scale;
		return;
	}
	if (reg == REG_NONE) {
		reg = S1;
		e_load_gs(&t->e, W64, reg, GS_REG(g->varies));
	}
	e_lea(&t->e, W64, S0, S0, reg, g->scale, 0);
	r14_changes(t);
}

void emit_access(struct translator *t, const struct decoded *d, u32 k, body_function *body)
{
	const struct place *p = &t->places[t->current][k];
	bool hoisted = p->group != GROUP_NONE && t->groups[p->group].hoisted;
	if (is_shadowed(t, d) && !hoisted) {
		emit_shadow_access(t, d, p, body);
		return;
	}
	s1_changes(t);
	if (p->group == GROUP_NONE && is_constant(t, p)) {
		emit_constant_access(t, d, p, body);
		return;
	}
	if (p->group == GROUP_NONE) {
		emit_ea(t, p, 0);
		emit_access_r14(t, d, p, body);
		return;
	}
	const struct group *g = &t->groups[p->group];
	if (p->group == t->kept[0] || p->group == t->kept[1]) {
		t->mem_base = p->group == t->kept[0] ? S0 : S1;
	} else if (p->first) {
		emit_group_lookup(t, d, g, p, g->low);
		e_store_gs(&t->e, W64, S0, GS(group) + 8 * g->slot);
	} else if (t->r14_group != p->group) {
		e_load_gs(&t->e, W64, S0, GS(group) + 8 * g->slot);
	}
	if (t->mem_base == S0)
		t->r14_group = p->group;
	if (g->varies != REG_NONE)
		emit_varying(t, d, g);
	emit_body(t, d, p->in_group, body);
	t->mem_index = REG_NONE;
	t->mem_base = S0;
}

/* Whether the instruction raises #MF for an exception that an earlier one left pending (SDM 1 8.6):
 * not FNSTCW, FNSTSW. */
static bool checks_x87(const struct decoded *d)
{
	u8 extension = d->insn.modrm >> 3 & 7;
	bool store = (d->insn.opcode == 0xd9 || d->insn.opcode == 0xdd) && extension == 7;
	return d->class == CLASS_NATIVE && (d->mmx || (d->fpu && !store));
}

/* The instruction on the bounce buffer, and that to guest memory. */
static void emit_commit(struct translator *t, struct cold_access *cold)
{
	struct emitter *e = &t->e;
	const struct stubs *stubs = &t->v->cache->stubs;
	if (cold->acquire)
		e_restore_flags(e, S1);
	map_here(t, cold->insn, !cold->host_after);
	cold->body(t, cold->d);
	if (cold->host_after)
		e_park_flags(e, S1);
	e_call_to(e, stubs->commit - e->to_rx);
	if (cold->host_after)
		e_restore_flags(e, S1);
	e_jmp_to(e, cold->after);
}

static void emit_one_cold(struct translator *t, struct cold_access *cold)
{
	struct emitter *e = &t->e;
	const struct stubs *stubs = &t->v->cache->stubs;

	e_patch(e, cold->site, e->p);
	map_here(t, cold->insn, true);
	if (checks_x87(cold->d))
		e8(e, 0x9b); /* fwait: #MF comes before what the memory operand may raise */
	if (cold->tag)
		e_gs_base(e, W64, 0x33, S0, S1, cold->tag);
	else if (cold->constant)
		e_mov_imm(e, S0, cold->constant);
	e_mov_imm(e, S1, cold->description);
	e_call_to(e, stubs->miss - e->to_rx);
	/* soft_miss() returns behind this jump when the access goes to the bounce buffer and has to
	 * be committed. */
	u8 *plain = e_jmp(e);
	if (cold->description & ACCESS_WRITES)
		emit_commit(t, cold);
	if (cold->constant & ~PAGE_MASK) {
		e_patch(e, plain, e->p);
		map_here(t, cold->insn, true);
		e_lea(e, W64, S0, S0, REG_NONE, 1, -(s32)(cold->constant & ~PAGE_MASK));
		e_jmp_to(e, cold->back);
	} else {
		e_patch(e, plain, cold->back);
	}
}
/*
 * What a group's check did not find. C looks whether all of it can be had at once; if not, since it
 * crosses a page, is no plain RAM, or would fault somewhere, the rest of the block runs with every
 * access checked by itself: in a MODE_PLAIN block that begins with this instruction.
 */
static void emit_cold_group(struct translator *t, struct cold_access *cold)
{
	struct emitter *e = &t->e;
	u32 start = (u32)(e->p - t->v->cache->rw);
	e_patch(e, cold->site, e->p);
	map_here(t, cold->insn, true);
	e_gs_base(e, W64, 0x33, S0, S1, cold->tag);
	e_mov_imm(e, S1, cold->description);
	e_call_to(e, t->v->cache->stubs.group - e->to_rx);
	e_rr(e, W64, 0x85, S0, S0); /* test r14, r14 */
	e_patch(e, e_jcc(e, CC_NE), cold->back);
	t->side[t->side_count++] = (struct side_exit){
	    .site = e_jmp(e),
	    .target = cold->d->rip,
	    .insn = cold->insn,
	    .mode = cold->mode,
	    .parked = true,
	    .cold = start,
	    .plain = true,
	};
}

void emit_cold(struct translator *t)
{
	for (u32 n = 0; n < t->cold_count; n++) {
		if (t->cold[n].group)
			emit_cold_group(t, &t->cold[n]);
		else
			emit_one_cold(t, &t->cold[n]);
	}
}
