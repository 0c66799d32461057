// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A decoder for instructions with a memory operand, as far as drivers use them on device memory:
 * what an EPT violation tells is an address, not what was to be done there.
 *
 * Source: SDM 2A 2.1, 2.2, appendix A.
 */
#include <linux/kernel.h>

#include "guise.h"
#include "vmcs.h"

#define REX_W BIT(3)
#define REX_X BIT(1)
#define REX_B BIT(0)

#define VMX_AR_DB VMX_AR_DB_MASK

static int fetch(struct vcpu *v, struct instruction *in)
{
	u64 linear = vcpu_linear_rip(v);
	u32 access = ACCESS_FETCH | ACCESS_QUIET | (vcpu_cpl(v) == 3 ? ACCESS_USER : 0);
	u32 first = min_t(u32, sizeof(in->bytes), PAGE_SIZE - offset_in_page(linear));
	struct walk_fault fault;
	int ret = linear_read(v, linear, in->bytes, first, access, &fault);

	if (ret == -EFAULT) {
		raise_page_fault(v, &fault);
		return 1;
	}
	if (ret)
		return -EINVAL;
	in->fetched = first;
	/* The next page counts only if the instruction reaches it. */
	if (first < sizeof(in->bytes) && !linear_read(v, linear + first, in->bytes + first,
						      sizeof(in->bytes) - first, access, &fault))
		in->fetched = sizeof(in->bytes);
	return 0;
}

/* The next @count bytes as a number; what is not there is 0, and found out at the end. */
static u64 take(struct instruction *in, u32 count)
{
	u64 value = 0;

	for (u32 i = 0; i < count; i++, in->pos++)
		if (in->pos < in->fetched)
			value |= (u64)in->bytes[in->pos] << (8 * i);
	return value;
}

static s64 take_signed(struct instruction *in, u32 count)
{
	u32 shift = 64 - 8 * count;

	return (s64)(take(in, count) << shift) >> shift;
}

static void prefixes(struct instruction *in, bool code64, bool code32)
{
	bool operand_override = false, address_override = false;

	in->segment = -1;
	for (;; in->pos++) {
		u8 byte = in->pos < in->fetched ? in->bytes[in->pos] : 0;

		if (byte == 0x66)
			operand_override = true;
		else if (byte == 0x67)
			address_override = true;
		else if (byte == 0xf2)
			in->repne = true;
		else if (byte == 0xf3)
			in->rep = true;
		else if (byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e)
			in->segment = (byte >> 3) & 3; /* ES, CS, SS, DS in this order */
		else if (byte == 0x64 || byte == 0x65)
			in->segment = byte - 0x60; /* FS, GS */
		else if (byte != 0xf0)
			break;
	}
	/* REX counts only right before the opcode (SDM 2A 2.2.1). */
	if (code64 && in->pos < in->fetched && (in->bytes[in->pos] & 0xf0) == 0x40)
		in->rex = in->bytes[in->pos++];
	if (code64) {
		in->operand_bytes = in->rex & REX_W ? 8 : operand_override ? 2 : 4;
		in->address_bytes = address_override ? 4 : 8;
	} else {
		in->operand_bytes = code32 != operand_override ? 4 : 2;
		in->address_bytes = code32 != address_override ? 4 : 2;
	}
}

/* SDM 2A table 2-1. */
static void address_16(struct vcpu *v, struct instruction *in)
{
	const unsigned long *r = v->registers.r;
	static const s8 base[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
	static const s8 index[8] = {RSI, RDI, RSI, RDI, -1, -1, -1, -1};
	u32 mod = in->modrm >> 6, rm = in->modrm & 7;
	u16 address;

	if (mod == 0 && rm == 6) {
		address = take(in, 2);
	} else {
		address = r[base[rm]] + (index[rm] >= 0 ? r[index[rm]] : 0);
		if (base[rm] == RBP)
			in->address_segment = SEGMENT_SS;
		if (mod)
			address += take_signed(in, mod);
	}
	in->address = address;
}

/* SDM 2A tables 2-2 and 2-3; in 64-bit mode the RIP-relative form needs to know where the
 * instruction ends. */
static bool address_32(struct vcpu *v, struct instruction *in, bool code64)
{
	u32 mod = in->modrm >> 6, rm = in->modrm & 7;
	bool relative = false;
	u64 address = 0;

	if (rm == 4) {
		u8 sib = take(in, 1);
		u32 base = (sib & 7) | (in->rex & REX_B ? 8 : 0);
		u32 index = ((sib >> 3) & 7) | (in->rex & REX_X ? 8 : 0);

		if (index != 4)
			address += vcpu_get_register(v, index) << (sib >> 6);
		if ((sib & 7) == 5 && mod == 0) {
			address += take_signed(in, 4);
		} else {
			address += vcpu_get_register(v, base);
			if (base == RSP || base == RBP)
				in->address_segment = SEGMENT_SS;
		}
	} else if (rm == 5 && mod == 0) {
		address = take_signed(in, 4);
		relative = code64;
	} else {
		address = vcpu_get_register(v, rm | (in->rex & REX_B ? 8 : 0));
		if (rm == RBP && !(in->rex & REX_B))
			in->address_segment = SEGMENT_SS;
	}
	if (mod == 1)
		address += take_signed(in, 1);
	else if (mod == 2)
		address += take_signed(in, 4);
	in->address = address;
	return relative;
}

/* Bytes of the immediate operand; only opcodes that mmio.c knows matter. */
static u32 immediate_bytes(const struct instruction *in)
{
	u32 full = min_t(u32, in->operand_bytes, 4), reg = (in->modrm >> 3) & 7;

	if (in->two_byte)
		return in->opcode == 0xba ? 1 : 0;
	switch (in->opcode) {
	case 0x80:
	case 0x82:
	case 0x83:
	case 0xc6:
		return 1;
	case 0x81:
	case 0xc7:
		return full;
	case 0xf6:
		return reg < 2 ? 1 : 0;
	case 0xf7:
		return reg < 2 ? full : 0;
	default:
		return 0;
	}
}

static bool takes_modrm(const struct instruction *in)
{
	if (in->two_byte)
		return true;
	switch (in->opcode) {
	case 0xa0 ... 0xa5: /* MOV with an offset, MOVS */
	case 0xaa ... 0xad: /* STOS, LODS */
		return false;
	default:
		return true;
	}
}

int decode_here(struct vcpu *v, struct instruction *in)
{
	bool code64 = vcpu_64bit_code(v);
	bool relative = false;
	int ret;

	memset(in, 0, sizeof(*in));
	ret = fetch(v, in);
	if (ret)
		return ret;
	prefixes(in, code64, vmcs_read(GUEST_CS_AR_BYTES) & VMX_AR_DB);
	in->address_segment = SEGMENT_DS;
	in->opcode = take(in, 1);
	if (in->opcode == 0x0f) {
		in->two_byte = true;
		in->opcode = take(in, 1);
	}
	if (takes_modrm(in)) {
		in->has_modrm = true;
		in->modrm = take(in, 1);
		if (in->modrm >> 6 == 3)
			return -EINVAL; /* no memory operand */
		if (in->address_bytes == 2)
			address_16(v, in);
		else
			relative = address_32(v, in, code64);
	} else if (in->opcode >= 0xa0 && in->opcode <= 0xa3) {
		in->address = take(in, in->address_bytes);
	}
	if (in->segment >= 0)
		in->address_segment = in->segment;
	in->immediate = immediate_bytes(in) ? take_signed(in, immediate_bytes(in)) : 0;
	if (relative)
		in->address += field_get(v, FIELD_RIP) + in->pos;
	if (in->address_bytes == 4)
		in->address = (u32)in->address;
	if (in->pos > in->fetched)
		return -EINVAL;
	in->length = in->pos;
	return 0;
}
