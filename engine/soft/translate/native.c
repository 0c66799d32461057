/* The guest's instruction encoded anew: registers renamed, memory operand at [r14]. SDM vol. 2A
 * chapter 2. */
#include "engine/soft/translate/translator.h"

struct renaming {
	int reg[4];   /* host register of each d->gpr[] */
	int mem_base; /* host register holding the hva */
	struct {
		int host;  /* scratch or spilled register standing in for .guest */
		int guest; /* REG_NONE: the spill is for mem_base */
		bool write;
	} stand_in[5];
	int stand_ins;
	struct {
		int host;
		s32 slot;
	} spill[4];
	int spills;
};

/* Bit per host register that holds a guest register which the instruction uses. */
static u32 hosts_used(const struct decoded *d)
{
	u32 used = 0;
	for (int g = RAX; g <= R15; g++)
		if ((d->gpr_used & 1u << g) && host_reg(g) != REG_NONE)
			used |= 1u << host_reg(g);
	return used;
}

/* A host register that the instruction does not use, its value saved in v->tmp. @legacy: one of the
 * first eight, encodable without REX. */
static int spill(struct translator *t, const struct decoded *d, struct renaming *r, bool legacy)
{
	static const u8 order[] = {RDI, RSI, RBP, RBX, RDX, 8, 9, 10, 11, 12};
	u32 used = hosts_used(d);
	for (int k = 0; k < r->spills; k++)
		used |= 1u << r->spill[k].host;
	for (u32 n = 0; n < ARRAY_SIZE(order); n++) {
		int host = order[n];
		if ((used & 1u << host) || (legacy && host > 7))
			continue;
		s32 slot = GS(tmp) + 8 * r->spills;
		e_store_gs(&t->e, W64, host, slot);
		r->spill[r->spills].host = host;
		r->spill[r->spills++].slot = slot;
		return host;
	}
	return RDI; /* not reached: no instruction names ten registers */
}

/* Whether the old value matters: it is read, here or by another operand, or only partly
 * overwritten. */
static bool wants_value(const struct decoded *d, const struct reg_operand *op)
{
	for (int n = 0; n < d->gpr_count; n++)
		if (d->gpr[n].guest == op->guest && (d->gpr[n].read || d->gpr[n].size < 4))
			return true;
	return false;
}

static int stand_in_for(struct translator *t, const struct decoded *d, struct renaming *r,
			const struct reg_operand *op, int host)
{
	if (wants_value(d, op))
		e_get_guest(&t->e, W64, host, op->guest);
	r->stand_in[r->stand_ins].host = host;
	r->stand_in[r->stand_ins].guest = op->guest;
	r->stand_in[r->stand_ins++].write = op->write;
	return host;
}

static int find_stand_in(struct renaming *r, const struct reg_operand *op)
{
	for (int n = 0; n < r->stand_ins; n++) {
		if (r->stand_in[n].guest == op->guest) {
			r->stand_in[n].write |= op->write;
			return r->stand_in[n].host;
		}
	}
	return REG_NONE;
}

/*
 * AH, CH, DH, BH exist only without REX, so then nothing else may need REX: memory base and guest
 * RSP move to low registers. The other registers of such an instruction are low ones already.
 */
static void rename_for_high_bytes(struct translator *t, const struct decoded *d, struct renaming *r)
{
	for (int n = 0; n < d->gpr_count; n++) {
		const struct reg_operand *op = &d->gpr[n];
		if (op->high) {
			r->reg[n] = op->guest + 4;
		} else if (op->guest == RSP) {
			int host = find_stand_in(r, op);
			if (host == REG_NONE)
				host = stand_in_for(t, d, r, op, spill(t, d, r, true));
			r->reg[n] = host;
		} else {
			r->reg[n] = op->guest;
		}
	}
	if (d->mem) {
		r->mem_base = spill(t, d, r, true);
		e_mov(&t->e, W64, r->mem_base, S0);
	}
}

static void rename_registers(struct translator *t, const struct decoded *d, struct renaming *r)
{
	bool s0_free = !d->mem || t->spare == S0, s1_free = !d->mem || t->spare == S1;
	bool s0_first = t->mode & MODE_SHADOW; /* r15 may be wanted again */
	for (int n = 0; n < d->gpr_count; n++) {
		const struct reg_operand *op = &d->gpr[n];
		int host = host_reg(op->guest);
		if (host == REG_NONE)
			host = find_stand_in(r, op);
		if (host == REG_NONE) {
			if (s1_free && !(s0_free && s0_first)) {
				host = S1;
				s1_free = false;
				s1_changes(t);
			} else if (s0_free) {
				host = S0;
				s0_free = false;
				r14_changes(t);
			} else {
				host = spill(t, d, r, false);
			}
			stand_in_for(t, d, r, op, host);
		}
		r->reg[n] = host;
	}
}

static void write_back(struct translator *t, const struct renaming *r)
{
	for (int n = 0; n < r->stand_ins; n++) {
		if (!r->stand_in[n].write)
			continue;
		int guest = r->stand_in[n].guest;
		if (host_reg(guest) == REG_NONE)
			e_store_gs(&t->e, W64, r->stand_in[n].host, GS_REG(guest));
		else
			e_mov(&t->e, W64, host_reg(guest), r->stand_in[n].host);
	}
	for (int n = 0; n < r->spills; n++)
		e_load_gs(&t->e, W64, r->spill[n].host, r->spill[n].slot);
}

/* Host numbers for the fields of the encoding */
struct fields {
	int reg, rm, vvvv, opcode_reg;
	bool rm_is_mem;
	int index, scale; /* of the memory operand, besides rm; or REG_NONE */
	s32 disp;
};

static struct fields choose_fields(const struct translator *t, const struct decoded *d,
				   const struct renaming *r)
{
	/* Fields that name no general register (vectors, opcode extensions) stay as they are. */
	struct fields f = {.reg = d->insn.reg,
			   .rm = d->insn.rm,
			   .vvvv = d->insn.vvvv,
			   .opcode_reg = d->insn.rm,
			   .rm_is_mem = d->mem,
			   .index = t->mem_index,
			   .scale = t->mem_scale,
			   .disp = t->disp};
	for (int n = 0; n < d->gpr_count; n++) {
		switch (d->gpr[n].field) {
		case FIELD_REG:
			f.reg = r->reg[n];
			break;
		case FIELD_RM:
			f.rm = r->reg[n];
			break;
		case FIELD_VVVV:
			f.vvvv = r->reg[n];
			break;
		case FIELD_OPCODE:
			f.opcode_reg = r->reg[n];
			break;
		}
	}
	if (d->mem)
		f.rm = r->mem_base;
	return f;
}

static void emit_modrm(struct emitter *e, const struct fields *f)
{
	if (!f->rm_is_mem)
		e8(e, 0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
	else if (f->index != REG_NONE)
		e_modrm_index(e, f->reg, f->rm, f->index, f->scale, f->disp);
	else
		e_modrm_base(e, f->reg, f->rm, f->disp);
}

/* REX.X and its like */
static bool high_index(const struct fields *f)
{
	return f->rm_is_mem && f->index != REG_NONE && (f->index & 8);
}

static void emit_tail(struct emitter *e, const struct decoded *d)
{
	if (!d->tail)
		return;
	struct head h = {0};
	for (int n = 0; n < d->tail; n++)
		h8(&h, d->bytes[d->tail_offset + n]);
	e_head(e, h);
}

static void emit_vex(struct emitter *e, const struct decoded *d, const struct fields *f)
{
	e8(e, 0xc4);
	e8(e, (f->reg & 8 ? 0 : 0x80) | (high_index(f) ? 0 : 0x40) | (f->rm & 8 ? 0 : 0x20) |
		  d->insn.map);
	e8(e, (d->wide ? 0x80 : 0) | (~f->vvvv & 15) << 3 | (d->vex_l ? 4 : 0) | d->vex_pp);
	e8(e, d->insn.opcode);
	if (d->has_modrm)
		emit_modrm(e, f);
	emit_tail(e, d);
}

/* SDM 2A 2.7.1. A displacement of 8 bits would count operands, not bytes (2.7.5): always 32. */
static void emit_evex(struct emitter *e, const struct decoded *d, const struct fields *f)
{
	u32 x = f->rm_is_mem ? 0 : f->rm & 16;
	e8(e, 0x62);
	e8(e, (f->reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (f->rm & 8 ? 0 : 0x20) |
		  (f->reg & 16 ? 0 : 0x10) | d->insn.map);
	e8(e, (d->wide ? 0x80 : 0) | (~f->vvvv & 15) << 3 | 4 | d->vex_pp);
	e8(e, d->evex_tail | (f->vvvv & 16 ? 0 : 8));
	e8(e, d->insn.opcode);
	if (f->rm_is_mem && f->disp) {
		e8(e, 0x80 | (f->reg & 7) << 3 | (f->rm & 7));
		e32(e, (u32)f->disp);
	} else {
		emit_modrm(e, f);
	}
	emit_tail(e, d);
}

/* Whether byte register operands 4-7 mean SPL..DIL here, which takes a REX prefix. */
static bool needs_rex_for_bytes(const struct decoded *d, const struct renaming *r)
{
	for (int n = 0; n < d->gpr_count; n++)
		if (d->gpr[n].size == 1 && !d->gpr[n].high && r->reg[n] >= 4)
			return true;
	return false;
}

static void emit_legacy(struct emitter *e, const struct decoded *d, const struct fields *f,
			bool rex)
{
	u8 opcode = d->insn.opcode;
	bool low_opcode_reg = false;
	int b = f->rm, modrm_reg = f->reg;
	bool modrm = d->has_modrm;
	struct fields fields = *f;

	for (int n = 0; n < d->gpr_count; n++)
		low_opcode_reg |= d->gpr[n].field == FIELD_OPCODE;
	if (d->insn.map == 0 && opcode >= 0x40 && opcode <= 0x4f) {
		/* INC and DEC r outside 64-bit mode: FF /0, FF /1 */
		fields.reg = modrm_reg = opcode < 0x48 ? 0 : 1;
		fields.rm = b = f->opcode_reg;
		opcode = 0xff;
		modrm = true;
		low_opcode_reg = false;
	} else if (d->insn.map == 0 && opcode >= 0xa0 && opcode <= 0xa3) {
		/* MOV moffs: 8A, 8B, 88, 89 with AL or rAX */
		static const u8 general[] = {0x8a, 0x8b, 0x88, 0x89};
		opcode = general[opcode & 3];
		fields.reg = modrm_reg = RAX;
		modrm = true;
	} else if (d->insn.map == 0 && opcode == 0x82) {
		opcode = 0x80; /* its alias outside 64-bit mode */
	}
	if (low_opcode_reg) {
		opcode = (opcode & 0xf8) | (f->opcode_reg & 7);
		b = f->opcode_reg;
	}
	struct head h = {0};
	if (d->need_lock)
		h8(&h, 0xf0);
	if (d->need_66)
		h8(&h, 0x66);
	if (d->need_rep)
		h8(&h, d->need_rep);
	u32 prefix = 0x40 | (d->wide ? 8 : 0);
	if (modrm && (modrm_reg & 8))
		prefix |= 4;
	if ((modrm || low_opcode_reg) && (b & 8))
		prefix |= 1;
	if (high_index(f))
		prefix |= 2;
	if (prefix != 0x40 || rex)
		h8(&h, prefix);
	if (d->insn.map)
		h8(&h, 0x0f);
	if (d->insn.map > 1)
		h8(&h, d->insn.map == 2 ? 0x38 : 0x3a);
	h8(&h, opcode);
	e_head(e, h);
	if (modrm)
		emit_modrm(e, &fields);
	emit_tail(e, d);
}

/* VZEROALL and VZEROUPPER outside 64-bit mode concern the first eight registers (SDM 2C VZEROALL):
 * VPXOR x, x, x; VMOVAPS x, x. */
static void emit_zero_vectors(struct emitter *e, bool all)
{
	for (u32 n = 0; n < 8; n++) {
		e8(e, 0xc5);
		e8(e, all ? 0x81 | (~n & 15) << 3 : 0xf8);
		e8(e, all ? 0xef : 0x28);
		e8(e, 0xc0 | n << 3 | n);
	}
}

static void native_body(struct translator *t, const struct decoded *d)
{
	struct renaming r = {.mem_base = t->mem_base};
	bool high = false;
	for (int n = 0; n < d->gpr_count; n++)
		high |= d->gpr[n].high;
	if (high)
		rename_for_high_bytes(t, d, &r);
	else
		rename_registers(t, d, &r);
	struct fields f = choose_fields(t, d, &r);
	if (d->vex && d->insn.map == 1 && d->insn.opcode == 0x77 && (t->mode & 3) != MODE_CODE64)
		emit_zero_vectors(&t->e, d->vex_l);
	else if (d->vex)
		emit_vex(&t->e, d, &f);
	else if (d->evex)
		emit_evex(&t->e, d, &f);
	else
		emit_legacy(&t->e, d, &f, needs_rex_for_bytes(d, &r));
	write_back(t, &r);
}

void emit_native(struct translator *t, const struct decoded *d)
{
	if (!d->mem) {
		if (t->body_acquire)
			flags_to_host(t, S0);
		native_body(t, d);
		return;
	}
	emit_access(t, d, 0, native_body);
}
