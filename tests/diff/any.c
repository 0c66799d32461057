/* Random bytes, as far as they are an instruction that may be run here. */
#include <Zydis/Zydis.h>
#include <string.h>

#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"
#include "tests/diff/generate.h"

/* Memory operands that are no register's: an offset in DS, or relative to RIP. */
static u32 put_absolute(struct gen *g, u8 *p, u32 reg, u32 addrsize, u64 rip)
{
	u64 offset = data_offset(g, 20);
	u32 n = 0;
	if (addrsize == 2) {
		p[n++] = (u8)(reg << 3 | 6);
		memcpy(p + n, &offset, 2);
		return n + 2;
	}
	if (g->plan->kind == KIND_64 && one_in(g->r, 2)) {
		p[n++] = (u8)(reg << 3 | 5);
		offset -= rip + 8;
	} else if (g->plan->kind == KIND_64) {
		p[n++] = (u8)(reg << 3 | 4);
		p[n++] = 0x25;
	} else {
		p[n++] = (u8)(reg << 3 | 5);
	}
	memcpy(p + n, &offset, 4);
	return n + 4;
}

/* Mostly what leaves an aligned base aligned: most of SSE would fault else. */
static u8 displacement(struct random *r)
{
	return (u8)(below(r, 256) & (one_in(r, 4) ? ~0u : ~15u));
}

/* SDM 2A table 2-1 */
static u32 put_modrm16(struct gen *g, u8 *p, u32 reg)
{
	bool wide = one_in(g->r, 4);
	static const u8 rm[] = {0, 1, 2, 3, 6, 7};
	p[0] = (u8)((wide ? 0x80 : 0x40) | reg << 3 | rm[below(g->r, sizeof(rm))]);
	p[1] = displacement(g->r);
	p[2] = p[1] & 0x80 ? 0xff : 0;
	return wide ? 3 : 2;
}

/* ModRM, SIB and displacement for a random register or memory operand. */
static u32 put_modrm(struct gen *g, u8 *p, u8 *rex, u32 addrsize, u64 rip)
{
	const struct plan *plan = g->plan;
	struct random *r = g->r;
	u32 reg = below(r, 8);
	if (one_in(r, 2)) {
		p[0] = (u8)(0xc0 | reg << 3 | below(r, 8));
		return 1;
	}
	if (one_in(r, 16))
		return put_absolute(g, p, reg, addrsize, rip);
	if (addrsize == 2)
		return put_modrm16(g, p, reg);
	int base = plan->base[below(r, 2)];
	bool sib = one_in(r, 2) || (base & 7) == 4;
	bool indexed = sib && one_in(r, 2);
	*rex = (u8)((*rex & ~3u) | (base >> 3));
	if (indexed)
		*rex |= (u8)((plan->index >> 3) << 1);
	u32 n = 0;
	bool wide = one_in(r, 4);
	p[n++] = (u8)((wide ? 0x80 : 0x40) | reg << 3 | (sib ? 4 : base & 7));
	if (sib)
		p[n++] =
		    (u8)(below(r, 4) << 6 | (indexed ? (plan->index & 7) : 4) << 3 | (base & 7));
	p[n++] = displacement(r);
	if (wide) {
		u8 sign = p[n - 1] & 0x80 ? 0xff : 0;
		p[n++] = sign;
		p[n++] = sign;
		p[n++] = sign;
	}
	return n;
}

static u32 address_size(const struct plan *plan, bool prefixed)
{
	if (plan->size == 8)
		return prefixed ? 4 : 8;
	return prefixed ? 6 - plan->size : plan->size;
}

/* What random opcodes would find too seldom: prefix, map, opcode. */
static const u8 favourites[][3] = {
    {0, 1, 0xc7},    {0, 1, 0xc0},    {0, 1, 0xc1},    {0, 1, 0xb0},	{0, 1, 0xb1},
    {0, 1, 0xa3},    {0, 1, 0xab},    {0, 1, 0xb3},    {0, 1, 0xbb},	{0, 1, 0xba},
    {0xf0, 1, 0xc7}, {0xf0, 1, 0xc1}, {0xf0, 1, 0xb1}, {0xf0, 1, 0xab}, {0xf0, 1, 0xba},
    {0, 2, 0xf0},    {0, 2, 0xf1},    {0xf2, 2, 0xf0}, {0xf2, 2, 0xf1}, {0x66, 2, 0xf6},
    {0xf3, 2, 0xf6}, {0xf3, 1, 0xb8}, {0xf3, 1, 0xbc}, {0xf3, 1, 0xbd}, {0, 1, 0xbc},
    {0, 1, 0xbd},    {0, 0, 0xf6},    {0, 0, 0xf7},    {0, 0, 0x9e},	{0, 0, 0x9f},
    {0, 0, 0xd7},    {0, 0, 0xfc},    {0, 0, 0xfd},    {0, 1, 0xa4},	{0, 1, 0xad},
    {0, 0, 0xd3},    {0, 0, 0x86},    {0, 0, 0x87},    {0xf0, 0, 0x87}, {0xf0, 0, 0x01},
};

static void make_legacy(struct gen *g, u8 p[40], u64 rip)
{
	static const u8 prefixes[] = {0x66, 0xf2, 0xf3, 0x66, 0x67, 0xf0, 0x26, 0x65};
	struct random *r = g->r;
	bool has_rex = g->plan->kind == KIND_64;
	u8 rex = has_rex && one_in(r, 2) ? (u8)(0x40 | below(r, 16)) : 0, modrm[8], n = 0;
	u32 pick = below(r, 10), map = pick >= 8 ? pick - 6 : pick >= 5;
	u8 opcode = (u8)random_next(r), prefix = one_in(r, 3) ? prefixes[below(r, 8)] : 0;
	/* A flat segment has nothing at 16-bit addresses: that ends a sequence. */
	bool wild_address = g->plan->kind == KIND_32 && !one_in(r, 16);
	if (one_in(r, 4)) {
		const u8 *favourite = favourites[below(r, ARRAY_SIZE(favourites))];
		prefix = favourite[0];
		map = favourite[1];
		opcode = favourite[2];
	}
	if (one_in(r, 6))
		p[n++] = one_in(r, 2) || wild_address ? 0x66 : 0x67;
	if (prefix == 0x67 && wild_address)
		prefix = 0;
	if (prefix)
		p[n++] = prefix;
	u32 addrsize = address_size(g->plan, memchr(p, 0x67, n));
	u8 wanted = rex;
	u32 modrm_size = put_modrm(g, modrm, &wanted, addrsize, rip);
	if (has_rex && ((wanted & 15) || rex))
		p[n++] = 0x40 | wanted;
	if (map >= 1)
		p[n++] = 0x0f;
	if (map >= 2)
		p[n++] = map == 2 ? 0x38 : 0x3a;
	p[n++] = opcode;
	memcpy(p + n, modrm, modrm_size);
	put_random(r, p + n + modrm_size, 8);
}

static void make_vex(struct gen *g, u8 p[40], u64 rip)
{
	bool has_rex = g->plan->kind == KIND_64;
	u8 modrm[8], rex = has_rex ? (u8)below(g->r, 8) : 0;
	u32 modrm_size = put_modrm(g, modrm, &rex, g->plan->size, rip);
	p[0] = 0xc4;
	p[1] = (u8)((~rex & 7) << 5 | (1 + below(g->r, 3)));
	if (!has_rex && one_in(g->r, 2)) /* R and X tell VEX from LES; B is ignored */
		p[1] &= 0xdf;
	p[2] = (u8)random_next(g->r);
	p[3] = (u8)random_next(g->r);
	memcpy(p + 4, modrm, modrm_size);
	put_random(g->r, p + 4 + modrm_size, 8);
}

/* SDM 2A 2.7.1 */
static void make_evex(struct gen *g, u8 p[40], u64 rip)
{
	static const u8 maps[] = {1, 1, 2, 2, 2, 3, 5, 6};
	struct random *r = g->r;
	bool has_rex = g->plan->kind == KIND_64;
	u8 modrm[8], rex = has_rex ? (u8)below(r, 8) : 0;
	u32 modrm_size = put_modrm(g, modrm, &rex, g->plan->size, rip);
	bool sib = g->plan->kind != KIND_16 && (modrm[0] & 7) == 4;
	if (modrm[0] >> 6 == 1) { /* the displacement counts operands: stay near */
		s8 *disp = (s8 *)&modrm[sib ? 2 : 1];
		*disp = (s8)(*disp / (1 << below(r, 5)));
	}
	p[0] = 0x62;
	p[1] = (u8)((~rex & 7) << 5 | maps[below(r, sizeof(maps))]);
	p[2] = (u8)(random_next(r) | 4 | (one_in(r, 2) ? 0x78 : 0));
	p[3] = (u8)random_next(r);
	if (!has_rex || one_in(r, 2))
		p[1] |= 0x10;
	if (!has_rex || one_in(r, 2))
		p[3] |= 8;
	if (!has_rex && one_in(r, 8)) /* B, R' and V' are ignored */
		p[1] &= (u8) ~(below(r, 4) << 4);
	if (one_in(r, 3))
		p[3] &= 0x6f;
	p[4] = (u8)random_next(r);
	memcpy(p + 5, modrm, modrm_size);
	put_random(r, p + 5 + modrm_size, 8);
}

static bool op_is_fine(u16 op)
{
	switch (op) {
	case OP_ID_bit_string:
	case OP_ID_maskmov:
	case OP_ID_gather:
	case OP_ID_movdir64b:
	case OP_ID_xlat:
	case OP_ID_aaa:
	case OP_ID_aas:
	case OP_ID_daa:
	case OP_ID_das:
	case OP_ID_aam:
	case OP_ID_aad:
	case OP_ID_salc:
	case OP_ID_bound:
	case OP_ID_arpl:
	case OP_ID_into:
	case OP_ID_cache_line:
	case OP_ID_push_seg:
	case OP_ID_mov_from_seg:
	case OP_ID_pushf:
		return true;
	default:
		return false;
	}
}

static bool class_is_fine(const struct decoded *d)
{
	switch (d->class) {
	case CLASS_NATIVE:
	case CLASS_NOP:
	case CLASS_LEA:
	case CLASS_PUSH:
	case CLASS_POP:
	case CLASS_DF:
		return true;
	case CLASS_OP:
		return op_is_fine(d->insn.op);
	default:
		return false;
	}
}

static int enclosing(ZydisRegister reg)
{
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
	return wide >= ZYDIS_REGISTER_RAX && wide <= ZYDIS_REGISTER_R15
		   ? (int)wide - (int)ZYDIS_REGISTER_RAX
		   : -1;
}

static bool is_kept(const struct gen *g, int gpr)
{
	const struct plan *plan = g->plan;
	return gpr == plan->base[0] || gpr == plan->base[1] || gpr == plan->index ||
	       (g->keep & BIT(gpr));
}

/* Does an operand of the instruction that ends at @rip lie where both sides have the same? */
static bool memory_is_fine(const struct gen *g, const ZydisDecodedOperand *op, bool stack, u64 rip)
{
	const struct plan *plan = g->plan;
	bool hidden = op->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
	int base = enclosing(op->mem.base);
	u64 offset = (u64)op->mem.disp.value;
	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return true;
	/* 64-bit FS is libc's. */
	if (plan->kind == KIND_64 &&
	    (op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS))
		return false;
	if (hidden && stack && base == 4)
		return true;
	if (op->mem.base == ZYDIS_REGISTER_RIP)
		offset += rip;
	else if (op->mem.base != ZYDIS_REGISTER_NONE)
		return base >= 0 && is_kept(g, base) && base != plan->index &&
		       !(g->keep & BIT(base));
	if (op->mem.index != ZYDIS_REGISTER_NONE)
		return false;
	offset += plan->data_base;
	return offset >= DATA_BASE - 64 && offset < DATA_BASE + DATA_SIZE + 64;
}

/* Deterministic, unprivileged, touches only what it may. */
static bool is_acceptable(const struct gen *g, const ZydisDecodedInstruction *zi,
			  const ZydisDecodedOperand *ops, u64 rip)
{
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_RDSSPD:
	case ZYDIS_MNEMONIC_RDSSPQ:
	case ZYDIS_MNEMONIC_FNSAVE:
		return false;
	default:
		break;
	}
	bool stack =
	    zi->meta.category == ZYDIS_CATEGORY_PUSH || zi->meta.category == ZYDIS_CATEGORY_POP;
	if (zi->meta.isa_ext == ZYDIS_ISA_EXT_INVPCID || zi->meta.isa_ext == ZYDIS_ISA_EXT_SMAP)
		return false;
	for (int n = 0; n < zi->operand_count; n++) {
		const ZydisDecodedOperand *op = &ops[n];
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    !memory_is_fine(g, op, stack, rip + zi->length))
			return false;
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		int gpr = enclosing(op->reg.value);
		bool hidden = op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
		if (gpr < 0 || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		if (is_kept(g, gpr) || (gpr == 4 && !(stack && hidden)))
			return false;
	}
	return true;
}

static u32 acceptable_length(const struct gen *g, const u8 *bytes, u64 rip)
{
	static const ZydisMachineMode modes[] = {
	    ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
	static const ZydisStackWidth widths[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
						 ZYDIS_STACK_WIDTH_64};
	ZydisDecoder decoder;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct decoded d;
	u32 mode = g->plan->mode;
	ZydisDecoderInit(&decoder, modes[mode & 3], widths[mode & 3]);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, 15, &zi, ops)))
		return 0;
	if (decode(NULL, bytes, 15, rip, mode, &d) || !class_is_fine(&d) ||
	    (d.avx512 && !(xstate.offered & XCR0_AVX512)))
		return 0;
	return is_acceptable(g, &zi, ops, rip) ? zi.length : 0;
}

u32 make_any(struct gen *g, u8 *out, u64 rip)
{
	for (;;) {
		u8 bytes[40] = {0};
		if (!one_in(g->r, 3))
			make_legacy(g, bytes, rip);
		else if ((xstate.offered & XCR0_AVX512) && one_in(g->r, 2))
			make_evex(g, bytes, rip);
		else
			make_vex(g, bytes, rip);
		u32 length = acceptable_length(g, bytes, rip);
		if (length) {
			memcpy(out, bytes, length);
			return length;
		}
	}
}

void put_any(struct gen *g)
{
	u8 bytes[15];
	u32 length = make_any(g, bytes, here(g));
	for (u32 n = 0; n < length; n++)
		put8(g, bytes[n]);
}
