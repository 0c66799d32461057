/* Random user-mode instructions and states. */
#include <Zydis/Zydis.h>
#include <string.h>

#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"
#include "tests/diff/diff.h"

u64 random_next(struct random *r)
{
	/* xorshift64*; never zero */
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1dull;
}

static u32 below(struct random *r, u32 n)
{
	return (u32)(random_next(r) >> 33) % n;
}

static bool one_in(struct random *r, u32 n)
{
	return below(r, n) == 0;
}

/* Registers with a purpose in a sequence: bases point into the data, the index is small. None is written. */
struct roles {
	int base[2], index;
};

/* The roles follow from the address, so that state and code agree on them. */
static struct roles choose_roles(u64 rip)
{
	static const u8 usable[] = {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	u64 h = (rip >> 4) * 0x9e3779b97f4a7c15ull;
	struct roles roles;
	roles.base[0] = usable[(h >> 20) % 15];
	roles.base[1] = usable[(h >> 30) % 15];
	roles.index = usable[(h >> 40) % 15];
	while (roles.index == roles.base[0] || roles.index == roles.base[1])
		roles.index = (roles.index + 1) % 16 == 4 ? 5 : (roles.index + 1) % 16;
	return roles;
}

static bool is_role(const struct roles *roles, int gpr)
{
	return gpr == roles->base[0] || gpr == roles->base[1] || gpr == roles->index;
}

/* ModRM, SIB and displacement for a random register or memory operand. */
static u32 put_modrm(struct random *r, u8 *p, u8 *rex, const struct roles *roles)
{
	u32 reg = below(r, 8);
	if (one_in(r, 2)) {
		p[0] = (u8)(0xc0 | reg << 3 | below(r, 8));
		return 1;
	}
	int base = roles->base[below(r, 2)];
	bool sib = one_in(r, 2) || (base & 7) == 4;
	bool indexed = sib && one_in(r, 2);
	*rex = (u8)((*rex & ~3u) | (base >> 3));
	if (indexed)
		*rex |= (u8)((roles->index >> 3) << 1);
	u32 n = 0;
	bool wide = one_in(r, 4);
	p[n++] = (u8)((wide ? 0x80 : 0x40) | reg << 3 | (sib ? 4 : base & 7));
	if (sib)
		p[n++] = (u8)(below(r, 4) << 6 | (indexed ? (roles->index & 7) : 4) << 3 | (base & 7));
	p[n++] = (u8)below(r, 256);
	if (wide) {
		u8 sign = p[n - 1] & 0x80 ? 0xff : 0;
		p[n++] = sign;
		p[n++] = sign;
		p[n++] = sign;
	}
	return n;
}

static void put_random(struct random *r, u8 *p, u32 n)
{
	for (u32 k = 0; k < n; k++)
		p[k] = (u8)random_next(r);
}

static void make_legacy(struct random *r, u8 p[32], const struct roles *roles)
{
	static const u8 prefix[] = {0x66, 0xf2, 0xf3, 0x66, 0x67, 0xf0};
	u32 n = 0;
	u8 rex = one_in(r, 2) ? (u8)(0x40 | below(r, 16)) : 0;
	if (one_in(r, 3))
		p[n++] = prefix[below(r, sizeof(prefix))];
	u32 map = below(r, 10);
	u8 modrm[8], wanted = rex;
	u32 modrm_size = put_modrm(r, modrm, &wanted, roles);
	rex = (wanted & 15) || rex ? 0x40 | wanted : 0;
	if (rex)
		p[n++] = rex;
	if (map >= 5)
		p[n++] = 0x0f;
	if (map == 8)
		p[n++] = 0x38;
	else if (map == 9)
		p[n++] = 0x3a;
	p[n++] = (u8)random_next(r);
	memcpy(p + n, modrm, modrm_size);
	put_random(r, p + n + modrm_size, 8);
}

static void make_vex(struct random *r, u8 p[32], const struct roles *roles)
{
	u8 modrm[8], rex = (u8)below(r, 8);
	u32 modrm_size = put_modrm(r, modrm, &rex, roles);
	p[0] = 0xc4;
	p[1] = (u8)((~rex & 7) << 5 | (1 + below(r, 3)));
	p[2] = (u8)random_next(r);
	p[3] = (u8)random_next(r);
	memcpy(p + 4, modrm, modrm_size);
	put_random(r, p + 4 + modrm_size, 8);
}

static bool op_is_fine(u16 op)
{
	return op == OP_ID_bit_string || op == OP_ID_maskmov || op == OP_ID_gather;
}

static bool class_is_fine(const struct decoded *d)
{
	switch (d->class) {
	case CLASS_NATIVE:
	case CLASS_NOP:
	case CLASS_LEA:
	case CLASS_PUSH:
	case CLASS_POP:
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
	return wide >= ZYDIS_REGISTER_RAX && wide <= ZYDIS_REGISTER_R15 ? (int)wide - (int)ZYDIS_REGISTER_RAX : -1;
}

/* Deterministic, unprivileged, touches only what it may. */
static bool is_acceptable(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops,
			  const struct roles *roles)
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
	bool stack = zi->mnemonic == ZYDIS_MNEMONIC_PUSH || zi->mnemonic == ZYDIS_MNEMONIC_POP;
	if (zi->meta.isa_ext == ZYDIS_ISA_EXT_INVPCID || zi->meta.isa_ext == ZYDIS_ISA_EXT_SMAP)
		return false;
	for (int n = 0; n < zi->operand_count; n++) {
		const ZydisDecodedOperand *op = &ops[n];
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			int base = enclosing(op->mem.base);
			bool hidden = op->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
			if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
				continue;
			if (op->mem.segment != ZYDIS_REGISTER_DS && op->mem.segment != ZYDIS_REGISTER_SS)
				return false;
			if (hidden && stack && base == 4)
				continue;
			if (base < 0 || !is_role(roles, base) || base == roles->index)
				return false;
		} else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			int gpr = enclosing(op->reg.value);
			bool hidden = op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
			if (gpr < 0 || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
				continue;
			if (is_role(roles, gpr) || (gpr == 4 && !(stack && hidden)))
				return false;
		}
	}
	return true;
}

static u32 acceptable_length(const u8 *bytes, u64 rip, const struct roles *roles)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct decoded d;
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, 15, &zi, ops)))
		return 0;
	if (decode(bytes, 15, rip, MODE_CODE64 | MODE_FLAT, &d) || !class_is_fine(&d))
		return 0;
	return is_acceptable(&zi, ops, roles) ? zi.length : 0;
}

static u32 make_one(struct random *r, u8 *out, u64 rip, const struct roles *roles)
{
	for (;;) {
		u8 bytes[32] = {0};
		if (one_in(r, 3))
			make_vex(r, bytes, roles);
		else
			make_legacy(r, bytes, roles);
		u32 length = acceptable_length(bytes, rip, roles);
		if (length) {
			memcpy(out, bytes, length);
			return length;
		}
	}
}

u32 generate(struct random *r, u8 *out, u32 room, u32 count, u64 rip)
{
	struct roles roles = choose_roles(rip);
	u32 used = 0;
	for (u32 n = 0; n < count && used + 40 < room; n++) {
		u32 branch = used;
		bool skip = one_in(r, 8);
		if (skip) {
			out[used++] = one_in(r, 12) ? 0xe3 : (u8)(0x70 | below(r, 16)); /* jrcxz, jcc */
			out[used++] = 0;
		}
		u32 length = make_one(r, out + used, rip + used, &roles);
		if (skip)
			out[branch + 1] = (u8)length;
		used += length;
	}
	out[used++] = 0xcc;
	return used;
}

static u64 interesting(struct random *r)
{
	static const u64 corners[] = {0, 1, ~0ull, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fffffff, 0x80000000,
				      0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 63, 64, 31, 32};
	u32 kind = below(r, 3);
	if (kind == 0)
		return corners[below(r, ARRAY_SIZE(corners))];
	return kind == 1 ? random_next(r) : random_next(r) & 0xff;
}

static void random_vectors(struct random *r, struct state *s)
{
	/* Intel SDM 1 13.4: legacy region, header at 512, AVX state at 576. */
	memset(s->xsave, 0, sizeof(s->xsave));
	*(u16 *)(s->xsave + 0) = 0x37f;
	*(u32 *)(s->xsave + 24) = 0x1f80;
	if (one_in(r, 2)) {
		for (u32 n = 0; n < 8; n++) { /* doubles and floats that are numbers, mostly */
			*(double *)(s->xsave + 160 + 16 * n) = (double)(s64)interesting(r);
			*(float *)(s->xsave + 168 + 16 * n) = (float)(s32)interesting(r);
		}
	} else {
		put_random(r, s->xsave + 160, 256);
	}
	put_random(r, s->xsave + 576, 256);
	for (u32 n = 0; n < 8; n++) /* x87: valid, empty or special by chance */
		put_random(r, s->xsave + 32 + 16 * n, 10);
	s->xsave[4] = (u8)random_next(r); /* abridged tag word */
	*(u64 *)(s->xsave + 512) = 7;
}

void generate_state(struct random *r, struct state *s)
{
	struct roles roles = choose_roles(s->rip);
	for (u32 n = 0; n < 16; n++)
		s->regs[n] = interesting(r);
	for (u32 n = 0; n < 2; n++) {
		u32 where = below(r, 40);
		u64 offset = where == 0 ? DATA_SIZE - below(r, 300) :
			     where < 8 ? 0x2000 - 160 + below(r, 64) : 0x1400 + below(r, 0x1800);
		if (!one_in(r, 3))
			offset &= ~31ull;
		s->regs[roles.base[n]] = DATA_BASE + offset;
	}
	s->regs[roles.index] = below(r, 32) * (one_in(r, 2) ? 1 : 4);
	s->regs[4] = STACK_TOP - 8 * below(r, 64) + (one_in(r, 8) ? below(r, 8) : 0);
	s->rflags = 0x202 | (random_next(r) & 0x8d5);
	random_vectors(r, s);
	put_random(r, s->data, DATA_SIZE);
	for (u32 n = 0; n < DATA_SIZE / 8; n += 3)
		((u64 *)s->data)[n] = interesting(r);
}
