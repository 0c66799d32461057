/* Memory operands: effective address, TLB look-up, and the way out when it misses. */
#include "engine/soft/translate/translator.h"

#include "base/types.h"

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

static void emit_constant_address(struct translator *t, const struct insn *i, s32 extra,
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

void emit_ea(struct translator *t, const struct decoded *d, s32 extra)
{
	const struct insn *i = &d->insn;
	struct emitter *e = &t->e;
	s32 base_gs = 0;
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
	if (index == REG_NONE && disp == 0 && i->addrsize >= 4)
		e_mov(e, i->addrsize == 8, S0, base);
	else
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
	u64 guest = 0;
	for (u32 n = 0; n < insn; n++)
		guest += t->insns[n].insn.length;
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
	e_mov(e, W64, S1, S0);
	e_rex(e, W64, 0, 0, S1);
	e8(e, 0xc1);
	e8(e, 0xc0 | 5 << 3 | (S1 & 7));
	e8(e, 12 - 4); /* shr r15, 8 */
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
	s32 table = GS(tlb) + (s32)sizeof(struct tlb) * (s32)t->index;
	return table + (write ? (s32)offsetof(struct tlb, write) : (s32)offsetof(struct tlb, read));
}

void emit_access(struct translator *t, const struct decoded *d, u32 size, bool read, bool write,
		 u8 seg, body_function *body)
{
	struct emitter *e = &t->e;
	bool stack = seg == SEG_SS;
	bool align = t->mode & MODE_ALIGN;
	bool call = write && (d->class == CLASS_CALL || d->class == CLASS_CALL_IND);
	/* CS is never writable and may be unreadable (SDM 3A 3.4.5.1), so it counts as not flat. */
	bool segmented = !(t->mode & MODE_FLAT) || (!is_64(t) && seg == SEG_CS) ||
			 (!is_64(t) && seg >= SEG_FS && (t->mode & MODE_FS_BASE));
	u32 description = size | (read ? ACCESS_READS : 0) | (write ? ACCESS_WRITES : 0) |
			  (stack ? ACCESS_STACK : 0) | (segmented ? ACCESS_SEGMENTED : 0) |
			  (align ? ACCESS_ALIGN : 0) | (call ? ACCESS_CALL : 0) |
			  (d->mem_aligned ? ACCESS_ALIGNED : 0) | d->mem_mask |
			  (u32)t->index << ACCESS_INDEX_SHIFT | (u32)seg << ACCESS_SEG_SHIFT;
	s32 table = tlb_table(t, write);
	struct cold_access *cold = &t->cold[t->cold_count++];

	*cold = (struct cold_access){.description = description,
				     .body = body,
				     .d = d,
				     .insn = t->current,
				     .acquire = t->body_acquire,
				     .host_after = t->body_host_after};
	if (segmented || align) {
		cold->site = e_jmp(e);
	} else {
		cold->site = emit_tlb_lookup(t, size, table);
		cold->tag = table;
	}
	cold->back = e->p;
	if (t->body_acquire)
		e_restore_flags(e, S1);
	body(t, d);
	cold->after = e->p;
}

/* Whether the instruction raises #MF for an exception that an earlier one left pending (SDM 1 8.6):
 * not FNSTCW, FNSTSW. */
static bool checks_x87(const struct decoded *d)
{
	u8 extension = d->insn.modrm >> 3 & 7;
	bool store = (d->insn.opcode == 0xd9 || d->insn.opcode == 0xdd) && extension == 7;
	return d->class == CLASS_NATIVE && (d->mmx || (d->fpu && !store));
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
	e_mov_imm(e, S1, cold->description);
	e_call_to(e, stubs->miss - e->to_rx);
	/* soft_miss() returns behind this jump when the access goes to the bounce buffer and has to
	 * be committed. */
	e_jmp_to(e, cold->back);
	if (!(cold->description & ACCESS_WRITES))
		return;
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

void emit_cold(struct translator *t)
{
	for (u32 n = 0; n < t->cold_count; n++)
		emit_one_cold(t, &t->cold[n]);
}
