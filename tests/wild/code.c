/* Random code: bytes, plausible instructions, string instructions, system instructions. */
#include <string.h>

#include "tests/wild/wild.h"

struct writer {
	u8 *p;
	struct random *r;
};

static void put(struct writer *w, u8 byte)
{
	*w->p++ = byte;
}

static void put_random(struct writer *w, u32 bytes)
{
	random_fill(w->r, w->p, bytes);
	w->p += bytes;
}

/* A displacement or immediate of 4 bytes that means something more often than chance has it. */
static void put_edge(struct writer *w, u32 bytes)
{
	u64 value = random_edge(w->r);
	memcpy(w->p, &value, bytes);
	w->p += bytes;
}

/* Prefixes, a few of them. */
static void put_prefixes(struct writer *w)
{
	static const u8 prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e,
				      0x36, 0x3e, 0x26, 0x64, 0x65};
	for (u32 n = random_below(w->r, 8); n > 5; n--)
		put(w, prefixes[random_below(w->r, ARRAY_SIZE(prefixes))]);
	if (one_in(w->r, 3))
		put(w, (u8)(0x40 | random_below(w->r, 16)));
}

/* ModRM with SIB and displacement as 32- and 64-bit addressing have them. */
static void put_modrm(struct writer *w, int reg)
{
	u8 modrm = (u8)random_next(w->r);
	if (reg >= 0)
		modrm = (u8)((modrm & 0xc7) | reg << 3);
	put(w, modrm);
	u8 mod = modrm >> 6, rm = modrm & 7;
	if (mod == 3)
		return;
	u8 sib = (u8)random_next(w->r);
	if (rm == 4)
		put(w, sib);
	if (mod == 1)
		put_random(w, 1);
	if (mod == 2 || (mod == 0 && (rm == 5 || (rm == 4 && (sib & 7) == 5))))
		put_edge(w, 4);
}

/* MOV of an edge into a register, so that what follows has something to bite. */
static void put_load(struct writer *w)
{
	u8 reg = (u8)random_below(w->r, 8);
	if (one_in(w->r, 4)) {
		put(w, 0x48);
		put(w, 0xb8 | reg);
		put_edge(w, 8);
		return;
	}
	put(w, 0xb8 | reg);
	put_edge(w, 4);
}

static void put_vex(struct writer *w)
{
	if (one_in(w->r, 2)) {
		put(w, 0xc5);
		put_random(w, 1);
	} else {
		put(w, 0xc4);
		put(w, (u8)(random_below(w->r, 8) << 5 | (1 + random_below(w->r, 3))));
		put_random(w, 1);
	}
	put_random(w, 1);
	put_modrm(w, -1);
	if (one_in(w->r, 3))
		put_random(w, 1);
}

/* The one-byte opcodes by what follows them: m ModRM, 1 byte, 4 dword, 5 ModRM and byte, 8 ModRM
 * and dword. */
static const char opcode_tail[256] = {
    [0x00 ... 0x03] = 'm', [0x04] = '1',	  [0x05] = '4',		 [0x08 ... 0x0b] = 'm',
    [0x0c] = '1',	   [0x0d] = '4',	  [0x10 ... 0x13] = 'm', [0x18 ... 0x1b] = 'm',
    [0x20 ... 0x23] = 'm', [0x28 ... 0x2b] = 'm', [0x30 ... 0x33] = 'm', [0x38 ... 0x3b] = 'm',
    [0x62 ... 0x63] = 'm', [0x68] = '4',	  [0x69] = '8',		 [0x6a] = '1',
    [0x6b] = '5',	   [0x70 ... 0x7f] = '1', [0x80] = '5',		 [0x81] = '8',
    [0x83] = '5',	   [0x84 ... 0x8f] = 'm', [0xa8] = '1',		 [0xa9] = '4',
    [0xb0 ... 0xb7] = '1', [0xb8 ... 0xbf] = '4', [0xc0 ... 0xc1] = '5', [0xc6] = '5',
    [0xc7] = '8',	   [0xd0 ... 0xd3] = 'm', [0xd8 ... 0xdf] = 'm', [0xe0 ... 0xe3] = '1',
    [0xe4 ... 0xe7] = '1', [0xeb] = '1',	  [0xf6 ... 0xf7] = 'm', [0xfe ... 0xff] = 'm',
};

static void put_near_jump(struct writer *w)
{
	s32 distance = (s32)random_below(w->r, CODE_SIZE) - CODE_SIZE / 2;
	put(w, one_in(w->r, 2) ? 0xe8 : 0xe9);
	memcpy(w->p, &distance, 4);
	w->p += 4;
}

u32 code_instruction(struct random *r, u8 *out)
{
	struct writer w = {out, r};
	u32 kind = random_below(r, 16);
	if (kind == 0) {
		put_load(&w);
	} else if (kind == 1) {
		put_near_jump(&w);
	} else if (kind < 4) {
		put_vex(&w);
	} else if (kind < 8) {
		put_prefixes(&w);
		put(&w, 0x0f);
		u8 opcode = (u8)random_next(r);
		put(&w, opcode);
		if (opcode == 0x38 || opcode == 0x3a)
			put_random(&w, 1);
		put_modrm(&w, -1);
		if (one_in(r, 4))
			put_random(&w, 1);
	} else {
		put_prefixes(&w);
		u8 opcode = (u8)random_next(r);
		char tail = opcode_tail[opcode];
		put(&w, opcode);
		if (tail == 'm' || tail == '5' || tail == '8')
			put_modrm(&w, -1);
		if (tail == '1' || tail == '5')
			put_random(&w, 1);
		if (tail == '4' || tail == '8')
			put_edge(&w, 4);
	}
	return (u32)(w.p - out);
}

u32 code_string(struct random *r, u8 *out)
{
	static const u8 opcodes[] = {0x6c, 0x6d, 0x6e, 0x6f, 0xa4, 0xa5, 0xa6,
				     0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
	static const u8 pointers[] = {1, 6, 7, 6, 7, 2}; /* CX SI DI, DX for ports */
	struct writer w = {out, r};
	switch (random_below(r, 4)) {
	case 0:
		put(&w, 0xb8 | pointers[random_below(r, ARRAY_SIZE(pointers))]);
		put_edge(&w, 4);
		break;
	case 1:
		put(&w, one_in(r, 2) ? 0xfc : 0xfd);
		break;
	default:
		put(&w, one_in(r, 4) ? 0xf2 : 0xf3);
		put_prefixes(&w);
		put(&w, opcodes[random_below(r, ARRAY_SIZE(opcodes))]);
	}
	return (u32)(w.p - out);
}

/* MOV ECX, a number of an MSR that exists more often than not */
static void put_msr(struct writer *w)
{
	static const u32 msrs[] = {
	    0x10,	0x1b,	    0x3a,	0x3b,	    0x48,	0x8b,	    0x174,
	    0x175,	0x176,	    0x179,	0x17a,	    0x1a0,	0x1d9,	    0x200,
	    0x201,	0x20f,	    0x250,	0x277,	    0x2ff,	0x400,	    0x401,
	    0x6e0,	0x802,	    0x808,	0x80b,	    0x80d,	0x80f,	    0x828,
	    0x830,	0x832,	    0x838,	0x83e,	    0x83f,	0xc0000080, 0xc0000081,
	    0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103,
	    0x4b564d00, 0x4b564d01, 0x11,	0x12,	    0x480,	0x830,
	};
	u32 index = msrs[random_below(w->r, ARRAY_SIZE(msrs))];
	if (one_in(w->r, 8))
		index = (u32)random_next(w->r);
	put(w, 0xb9);
	memcpy(w->p, &index, 4);
	w->p += 4;
	if (one_in(w->r, 2)) {
		put(w, 0x31); /* xor edx, edx */
		put(w, 0xd2);
	}
	put(w, 0x0f);
	put(w, one_in(w->r, 3) ? 0x32 : 0x30);
}

static void put_far(struct writer *w)
{
	static const u8 selectors[] = {SEL_CODE64, SEL_CODE32, SEL_DATA,     SEL_CODE16, SEL_USER32,
				       SEL_USERD,  SEL_USER64, SEL_TSS,	     SEL_TSS2,	 SEL_LDT,
				       SEL_GATE,   SEL_CALL,   SEL_CALL | 3, 0};
	u8 selector = selectors[random_below(w->r, ARRAY_SIZE(selectors))];
	switch (random_below(w->r, 6)) {
	case 0:
	case 1:
		put(w, one_in(w->r, 2) ? 0x9a : 0xea);
		put_edge(w, 4);
		break;
	case 2: /* push selector, push offset, RETF or IRET */
		put(w, 0x9c);
		put(w, 0x6a);
		put(w, selector);
		put(w, 0x68);
		put_edge(w, 4);
		if (one_in(w->r, 2))
			put(w, 0x48);
		put(w, one_in(w->r, 2) ? 0xcf : 0xcb);
		return;
	case 3: /* MOV Sreg */
		put(w, 0xb8);
		put(w, selector);
		put(w, 0);
		put(w, 0);
		put(w, 0);
		put(w, 0x8e);
		put(w, (u8)(0xc0 | random_below(w->r, 8) << 3));
		return;
	case 4: /* LTR, LLDT, VERR, VERW, STR, SLDT of AX */
		put(w, 0xb8);
		put(w, selector);
		put(w, 0);
		put(w, 0);
		put(w, 0);
		put(w, 0x0f);
		put(w, 0x00);
		put(w, (u8)(0xc0 | random_below(w->r, 8) << 3));
		return;
	default:
		put(w, 0xff);
		put_modrm(w, one_in(w->r, 2) ? 3 : 5);
		return;
	}
	put(w, selector);
	put(w, 0);
}

u32 code_system(struct random *r, u8 *out)
{
	/* Without operands; after 0F */
	static const u8 plain[] = {0xcf, 0xfa, 0xfb, 0xf4, 0x9c, 0x9d, 0xcc, 0xce, 0xf1,
				   0xcb, 0xc3, 0x06, 0x07, 0x1f, 0x17, 0x60, 0x61, 0xc9,
				   0x9b, 0xec, 0xed, 0xee, 0xef, 0xfc, 0xfd};
	static const u8 escaped[] = {0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x30, 0x31, 0x32, 0x33,
				     0x34, 0x35, 0x77, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa};
	/* After 0F, with ModRM */
	static const u8 operand[] = {0x00, 0x01, 0x01, 0x02, 0x03, 0x18, 0xae, 0xae, 0xc7,
				     0xb2, 0xb4, 0xb5, 0x20, 0x21, 0x22, 0x22, 0x23};
	struct writer w = {out, r};
	switch (random_below(r, 10)) {
	case 0:
		put_load(&w);
		break;
	case 1:
		put_msr(&w);
		break;
	case 2:
	case 3:
		put_far(&w);
		break;
	case 4:
		put(&w, 0xcd);
		put_random(&w, 1);
		break;
	case 5:
		put_prefixes(&w);
		put(&w, plain[random_below(r, ARRAY_SIZE(plain))]);
		break;
	case 6:
		put_prefixes(&w);
		put(&w, 0x0f);
		put(&w, escaped[random_below(r, ARRAY_SIZE(escaped))]);
		break;
	case 7: /* two-byte forms of 0F 01 and 0F C7 with a register operand */
		put(&w, 0x0f);
		put(&w, one_in(r, 3) ? 0xc7 : 0x01);
		put(&w, (u8)(0xc0 | random_below(r, 64)));
		break;
	default:
		put_prefixes(&w);
		put(&w, 0x0f);
		put(&w, operand[random_below(r, ARRAY_SIZE(operand))]);
		put_modrm(&w, -1);
	}
	return (u32)(w.p - out);
}

static u32 code_mixture(struct random *r, u8 *out)
{
	u32 kind = random_below(r, 8);
	return kind == 0  ? code_string(r, out)
	       : kind < 3 ? code_system(r, out)
			  : code_instruction(r, out);
}

void code_fill(struct random *r, u8 *out, u32 bytes, u32 (*make)(struct random *, u8 *))
{
	u8 one[32];
	for (u32 at = 0; at < bytes;) {
		u32 length = make(r, one);
		if (length > bytes - at)
			length = bytes - at;
		memcpy(out + at, one, length);
		at += length;
	}
}

void code_random(struct wild *w)
{
	static u32 (*const makers[])(struct random *, u8 *) = {
	    NULL, code_instruction, code_string, code_system, code_mixture, code_mixture};
	static const char *const names[] = {"random bytes",
					    "random instructions",
					    "random string instructions",
					    "random system instructions",
					    "random mixture",
					    "random mixture"};
	u32 kind = random_below(&w->random, ARRAY_SIZE(makers));
	w->name = names[kind];
	if (kind == 0)
		random_fill(&w->random, w->ram, CODE_SIZE);
	else /* not all of it is reached: a part repeated does as well */
		code_fill(&w->random, w->ram, 0x10000, makers[kind]);
	if (kind)
		for (u32 at = 0x10000; at < CODE_SIZE; at += 0x10000)
			memcpy(w->ram + at, w->ram, 0x10000);
}
