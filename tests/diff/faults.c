/* Exceptions: floating point ones unmasked, and instructions that user code may not run. */
#include "tests/diff/generate.h"

/* c7 /0 to memory at the first base, then an instruction of two or three bytes and ModRM /@reg with
 * the same. */
static void put_at_base(struct gen *g, u32 opcode, u32 opcode_bytes, u32 reg)
{
	int base = g->plan->base[0];
	if (g->plan->kind == KIND_16)
		put8(g, 0x67);
	if (base >= 8)
		put8(g, 0x41);
	put(g, opcode, opcode_bytes);
	put8(g, 0x40 | reg << 3 | (u32)(base & 7));
	if ((base & 7) == 4)
		put8(g, 0x24);
	put8(g, 0);
}

/* MXCSR or the x87 control word with some exceptions unmasked, then arithmetic that may raise them.
 */
void put_unmasked(struct gen *g)
{
	struct random *r = g->r;
	bool x87 = one_in(r, 2);
	u32 value =
	    x87 ? 0x340 | below(r, 64) | below(r, 4) << 10
		: below(r, 64) << 7 | below(r, 4) << 13 | below(r, 2) << 15 | below(r, 2) << 6;
	if (g->plan->kind == KIND_16)
		put8(g, 0x66);
	put_at_base(g, 0xc7, 1, 0);
	put(g, value, 4);
	if (x87)
		put_at_base(g, 0xd9, 1, 5); /* fldcw */
	else
		put_at_base(g, 0xae0f, 2, 2); /* ldmxcsr */
	for (u32 n = 1 + below(r, 4); n; n--) {
		if (x87) {
			put8(g, 0xd8 | (u32)(one_in(r, 2) ? 0 : 4));
			put8(g, 0xc0 | below(r, 64));
		} else {
			static const u8 opcodes[] = {0x51, 0x58, 0x59, 0x5a, 0x5c,
						     0x5d, 0x5e, 0x5f, 0xc2, 0x2e};
			static const u8 prefixes[] = {0, 0x66, 0xf2, 0xf3};
			u32 opcode = opcodes[below(r, sizeof(opcodes))];
			u8 prefix = opcode == 0x2e ? 0x66 : prefixes[below(r, 4)];
			if (prefix)
				put8(g, prefix);
			put8(g, 0x0f);
			put8(g, opcode);
			put8(g, 0xc0 | below(r, 64));
			if (opcode == 0xc2)
				put8(g, below(r, 8));
		}
	}
	if (x87 && one_in(r, 2))
		put8(g, 0x9b); /* fwait */
	else if (x87 && one_in(r, 4))
		put_at_base(g, 0xdd, 1, 4); /* frstor */
	if (one_in(r, 2))
		put_any(g);
}

/* One in four; most would end every sequence. */
void put_forbidden(struct gen *g)
{
	static const struct {
		u8 length, bytes[5];
	} forbidden[] = {
	    {1, {0xf4}},	     /* hlt */
	    {1, {0xfa}},	     /* cli */
	    {1, {0xfb}},	     /* sti */
	    {2, {0xe4, 0x80}},	     /* in al, 0x80 */
	    {1, {0xee}},	     /* out dx, al */
	    {1, {0x6c}},	     /* insb */
	    {1, {0x6e}},	     /* outsb */
	    {2, {0x0f, 0x06}},	     /* clts */
	    {2, {0x0f, 0x08}},	     /* invd */
	    {2, {0x0f, 0x09}},	     /* wbinvd */
	    {2, {0x0f, 0x30}},	     /* wrmsr */
	    {2, {0x0f, 0x32}},	     /* rdmsr */
	    {3, {0x0f, 0x20, 0xc0}}, /* mov eax, cr0 */
	    {3, {0x0f, 0x22, 0xc0}}, /* mov cr0, eax */
	    {3, {0x0f, 0x23, 0xc0}}, /* mov dr0, eax */
	    {3, {0x0f, 0x00, 0xd0}}, /* lldt ax */
	    {3, {0x0f, 0x00, 0xd8}}, /* ltr ax */
	    {3, {0x0f, 0x01, 0xf0}}, /* lmsw ax */
	    {3, {0x0f, 0x01, 0xf8}}, /* swapgs */
	    {2, {0xcd, 0x00}},	     /* int 0 */
	    {2, {0xcd, 0x03}},	     /* int 3 */
	    {2, {0xcd, 0x04}},	     /* int 4 */
	    {2, {0xcd, 0x0d}},	     /* int 13 */
	    {2, {0x0f, 0x0b}},	     /* ud2 */
	    {3, {0x0f, 0xff, 0xc0}}, /* ud0 */
	    {3, {0x0f, 0xb9, 0xc0}}, /* ud1 */
	    {3, {0xf0, 0x01, 0xc0}}, /* lock add eax, eax */
	    {2, {0xc7, 0xc8}},	     /* c7 /1 */
	    {2, {0xfe, 0xd0}},	     /* fe /2 */
	    {2, {0x8e, 0xc8}},	     /* mov cs, ax */
	    {1, {0xce}},	     /* into */
	    {2, {0xf6, 0xf4}},	     /* div ah */
	    {2, {0xd4, 0x00}},	     /* aam 0 */
	};
	if (!one_in(g->r, 4))
		return;
	u32 n = below(g->r, ARRAY_SIZE(forbidden));
	for (u32 k = 0; k < forbidden[n].length; k++)
		put8(g, forbidden[n].bytes[k]);
}
