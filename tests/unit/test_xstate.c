/* Extended state: the live registers of the host against the images the guest reads and writes. */
#include "tests/unit/state_fixture.h"

#include <string.h>

#include "engine/soft/system/xstate.h"

#define AREA 0x1000

static u32 components; /* all that the host has and the engine handles */

static int setup(void **state)
{
	struct soft_vcpu *v = vcpu_new();

	if (!feature(v, FEATURE_AVX))
		skip();
	enter_long_mode(v);
	assert_true(set_xcr0(v, 7));
	components = (u32)v->layout.offered;
	*state = v;
	return 0;
}

static int teardown(void **state)
{
	vcpu_free(*state);
	return 0;
}

/* The host's whole live state, to be put back when a test has used the registers as the guest's. */
struct host_state {
	_Alignas(64) u8 area[XSAVE_AREA_SIZE];
};

static void save_host(struct host_state *h)
{
	memset(h->area + XSAVE_BV, 0, XSAVE_HEADER_SIZE);
	__asm__ volatile("xsave64 %0" : "+m"(h->area) : "a"(components), "d"(0));
}

static void load_host(const struct host_state *h)
{
	__asm__ volatile("xrstor64 %0" : : "m"(h->area), "a"(components), "d"(0));
}

/* A state in which every component is in use, and each register tells which it is. */
static void make_guest(struct host_state *h)
{
	memset(h, 0, sizeof(*h));
	*(u16 *)(h->area + FX_FCW) = 0x27f;
	h->area[FX_FTW] = 0xff;
	*(u64 *)(h->area + FX_FIP) = 0x7f0000001000;
	*(u64 *)(h->area + FX_FDP) = 0x7f0000002000;
	*(u32 *)(h->area + FX_MXCSR) = 0x1fa0;
	for (u32 n = 0; n < 8; n++) {
		h->area[FX_ST + n * 16] = (u8)n;
		h->area[FX_ST + n * 16 + 7] = 0x80;
		h->area[FX_ST + n * 16 + 9] = 0x40;
	}
	for (u32 n = 0; n < 16; n++) {
		memset(h->area + FX_XMM + n * 16, 0x10 + (int)n, 16);
		memset(h->area + XSAVE_AVX_OFFSET + n * 16, 0x50 + (int)n, 16);
	}
	*(u64 *)(h->area + XSAVE_BV) = 7;
}

/*
 * Runs @op with @guest live. The live state afterwards goes to @guest. Between the two loads only
 * general registers may be used, which is what the op promises too; the vector raised is returned.
 */
static int run_live(struct soft_vcpu *v, op_function *op, struct insn i, struct host_state *guest)
{
	struct host_state host;

	save_host(&host);
	load_host(guest);
	int vector = run_op(v, op, i);
	save_host(guest);
	load_host(&host);
	return vector;
}

#define XSAVE64                                                                                    \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xae, .modrm = 4 << 3, .opsize = 8, .is_mem = true, .disp = AREA         \
	}
#define XSAVEOPT64                                                                                 \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xae, .modrm = 6 << 3, .opsize = 8, .is_mem = true, .disp = AREA         \
	}
#define XSAVEC64                                                                                   \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xc7, .modrm = 4 << 3, .opsize = 8, .is_mem = true, .disp = AREA         \
	}
#define XRSTOR64                                                                                   \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xae, .modrm = 5 << 3, .opsize = 8, .is_mem = true, .disp = AREA         \
	}
#define FXSAVE64                                                                                   \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xae, .modrm = 0 << 3, .opsize = 8, .is_mem = true, .disp = AREA         \
	}
#define FXRSTOR64                                                                                  \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xae, .modrm = 1 << 3, .opsize = 8, .is_mem = true, .disp = AREA         \
	}
#define FNSAVE                                                                                     \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xdd, .modrm = 6 << 3, .opsize = 4, .is_mem = true, .disp = AREA         \
	}
#define FNSTENV                                                                                    \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xd9, .modrm = 6 << 3, .opsize = 4, .is_mem = true, .disp = AREA         \
	}
#define FRSTOR                                                                                     \
	(struct insn)                                                                              \
	{                                                                                          \
		.opcode = 0xdd, .modrm = 4 << 3, .opsize = 4, .is_mem = true, .disp = AREA         \
	}

static u8 *area(void)
{
	return world.memory + AREA;
}

static void mask(struct soft_vcpu *v, u64 components)
{
	v->regs[RAX] = components;
	v->regs[RDX] = 0;
}

static void test_xsave(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, before;

	make_guest(&guest);
	before = guest;
	memset(area(), 0xee, XSAVE_AREA_SIZE);
	*(u64 *)(area() + XSAVE_BV) = 0x3;
	mask(v, 7);
	assert_int_equal(run_live(v, op_xsave, XSAVE64, &guest), NO_FAULT);
	assert_memory_equal(area() + FX_XMM, before.area + FX_XMM, 256);
	assert_memory_equal(area() + FX_ST, before.area + FX_ST, 128);
	assert_memory_equal(area() + XSAVE_AVX_OFFSET, before.area + XSAVE_AVX_OFFSET, 256);
	assert_int_equal(*(u64 *)(area() + XSAVE_BV), 7);
	assert_int_equal(*(u32 *)(area() + FX_MXCSR), 0x1fa0);
	/* No host address: the RIP by the hook, no data pointer. Nothing beyond the architecture's
	 * bytes. */
	assert_int_equal(*(u64 *)(area() + FX_FIP), 0x1234567890);
	assert_int_equal(*(u64 *)(area() + FX_FDP), 0);
	assert_int_equal(area()[464], 0xee);
	assert_int_equal(area()[XSAVE_COMP_BV], 0xee);
	/* The live state is as it was. */
	assert_memory_equal(guest.area, before.area, FX_FIP);
	assert_memory_equal(guest.area + FX_ST, before.area + FX_ST, FX_END - FX_ST);
	assert_memory_equal(guest.area + XSAVE_AVX_OFFSET, before.area + XSAVE_AVX_OFFSET, 256);
}

static void test_xsave_mask(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest;

	make_guest(&guest);
	memset(area(), 0xee, XSAVE_AREA_SIZE);
	*(u64 *)(area() + XSAVE_BV) = 0x1;
	mask(v, 4);
	assert_int_equal(run_live(v, op_xsave, XSAVE64, &guest), NO_FAULT);
	assert_int_equal(*(u64 *)(area() + XSAVE_BV), 5);
	assert_int_equal(area()[FX_FCW], 0xee);
	assert_int_equal(area()[FX_XMM], 0xee);
	assert_int_equal(area()[XSAVE_AVX_OFFSET], 0x50);
	assert_int_equal(*(u32 *)(area() + FX_MXCSR), 0x1fa0); /* AVX carries MXCSR too */
}

static void test_unused_components(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest;

	make_guest(&guest);
	*(u64 *)(guest.area + XSAVE_BV) = 2; /* x87 and AVX initial */
	memset(area(), 0xee, XSAVE_AREA_SIZE);
	memset(area() + XSAVE_BV, 0, 64);
	mask(v, 7);
	assert_int_equal(run_live(v, op_xsave, XSAVEOPT64, &guest), NO_FAULT);
	assert_false(*(u64 *)(area() + XSAVE_BV) & 5);
	assert_int_equal(area()[FX_FCW], 0xee);
	assert_int_equal(area()[XSAVE_AVX_OFFSET], 0xee);
	assert_int_equal(area()[FX_XMM], 0x10);
	assert_int_equal(run_live(v, op_xsave, XSAVE64, &guest), NO_FAULT);
	assert_int_equal(*(u16 *)(area() + FX_FCW), 0x37f); /* XSAVE spells them out */
	assert_int_equal(area()[XSAVE_AVX_OFFSET], 0);
}

static void test_xsavec(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, before;

	if (!feature(v, FEATURE_XSAVEC))
		skip();
	make_guest(&guest);
	before = guest;
	memset(area(), 0, XSAVE_AREA_SIZE);
	mask(v, 6);
	assert_int_equal(run_live(v, op_xsave, XSAVEC64, &guest), NO_FAULT);
	assert_int_equal(*(u64 *)(area() + XSAVE_BV), 6);
	assert_int_equal(*(u64 *)(area() + XSAVE_COMP_BV), BIT(63) | 6);
	/* And back: x87, outside XCOMP_BV, takes its initial state. */
	memset(guest.area + FX_XMM, 0, 256);
	mask(v, 7);
	assert_int_equal(run_live(v, op_xrstor, XRSTOR64, &guest), NO_FAULT);
	assert_memory_equal(guest.area + FX_XMM, before.area + FX_XMM, 256);
	assert_memory_equal(guest.area + XSAVE_AVX_OFFSET, before.area + XSAVE_AVX_OFFSET, 256);
	assert_int_equal(*(u16 *)(guest.area + FX_FCW), 0x37f);
}

/* ---- AVX-512, held against the host's own instructions ---- */

/* make_guest(), with every byte of the extended region telling where it is. */
static void make_guest_avx512(const struct soft_vcpu *v, struct host_state *h)
{
	make_guest(h);
	for_each_section(n, v->layout.offered)
	{
		for (u32 k = 0; k < xstate_section_size(n); k++)
			h->area[xstate_section_offset(&v->layout, 0, n) + k] = (u8)(n * 31 + k);
	}
	*(u64 *)(h->area + XSAVE_BV) = v->layout.offered;
}

static bool avx512_setup(struct soft_vcpu *v)
{
	return (v->layout.offered & XCR0_AVX512) && set_xcr0(v, v->layout.offered);
}

/* What XSAVE (@compact: XSAVEC) of the host writes over @image for the state @h. */
static void host_xsave(const struct host_state *h, u64 rfbm, bool compact, struct host_state *image)
{
	struct host_state host;

	save_host(&host);
	load_host(h);
	if (compact)
		__asm__ volatile("xsavec64 %0" : "+m"(image->area) : "a"((u32)rfbm), "d"(0));
	else
		__asm__ volatile("xsave64 %0" : "+m"(image->area) : "a"((u32)rfbm), "d"(0));
	load_host(&host);
}

/* The host's XRSTOR of @image on top of @h. */
static void host_xrstor_onto(struct host_state *h, u64 rfbm, const struct host_state *image)
{
	struct host_state host;

	save_host(&host);
	load_host(h);
	__asm__ volatile("xrstor64 %0" : : "m"(image->area), "a"((u32)rfbm), "d"(0));
	save_host(h);
	load_host(&host);
}

static void forget_pointers(u8 *image)
{
	memset(image + FX_FOP, 0, FX_MXCSR - FX_FOP);
	memset(image + FX_MXCSR_MASK, 0, 4);
}

static const u64 avx512_masks[] = {0xe7, 0xe4, 0xe0, 0xe3, 0x80, 0x60, 0x47, 0xa2, 0x27};

static void test_avx512_saved(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, given, image;

	if (!avx512_setup(v))
		skip();
	for (u32 n = 0; n < ARRAY_SIZE(avx512_masks) * 4; n++) {
		u64 rfbm = avx512_masks[n / 4];
		bool compact = n & 1;
		make_guest_avx512(v, &given);
		if (n & 2) /* some in their initial state */
			*(u64 *)(given.area + XSAVE_BV) &= 0x43;
		memset(image.area, 0xee, sizeof(image.area));
		memset(image.area + XSAVE_BV, 0, XSAVE_HEADER_SIZE);
		memcpy(area(), image.area, XSAVE_AREA_SIZE);
		host_xsave(&given, rfbm, compact, &image);
		guest = given;
		mask(v, rfbm);
		assert_int_equal(run_live(v, op_xsave, compact ? XSAVEC64 : XSAVE64, &guest),
				 NO_FAULT);
		forget_pointers(image.area);
		forget_pointers(area());
		assert_memory_equal(area(), image.area, XSAVE_AREA_SIZE);
	}
}

static void test_avx512_restored(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, given, wanted, image;

	if (!avx512_setup(v))
		skip();
	for (u32 n = 0; n < ARRAY_SIZE(avx512_masks) * 2; n++) {
		u64 saved = avx512_masks[n / 2];
		make_guest_avx512(v, &given);
		memset(&image, 0, sizeof(image));
		host_xsave(&given, saved, n & 1, &image);
		for (u32 k = 0; k < ARRAY_SIZE(avx512_masks); k++) {
			memset(given.area + FX_XMM, 0x3c, FX_END - FX_XMM);
			memset(given.area + XSAVE_AVX_OFFSET, 0xc3,
			       XSAVE_AREA_SIZE - XSAVE_AVX_OFFSET);
			*(u64 *)(given.area + XSAVE_BV) = v->layout.offered;
			guest = wanted = given;
			host_xrstor_onto(&wanted, avx512_masks[k], &image);
			memcpy(area(), image.area, XSAVE_AREA_SIZE);
			mask(v, avx512_masks[k]);
			assert_int_equal(run_live(v, op_xrstor, XRSTOR64, &guest), NO_FAULT);
			forget_pointers(guest.area);
			forget_pointers(wanted.area);
			assert_memory_equal(guest.area, wanted.area, XSAVE_AREA_SIZE);
		}
	}
}

/* Outside 64-bit mode: the first eight registers alone (SDM 1 13.5.4 to 13.5.6). */
static void test_avx512_outside_64bit(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, before;

	if (!avx512_setup(v))
		skip();
	u32 hi256 = xstate_section_offset(&v->layout, 0, 6);
	u32 hi16 = xstate_section_offset(&v->layout, 0, 7);
	make_guest_avx512(v, &guest);
	before = guest;
	memset(area(), 0xee, XSAVE_AREA_SIZE);
	memset(area() + XSAVE_BV, 0, XSAVE_HEADER_SIZE);
	v->seg[SEG_CS].access = 0xc09b;
	mask(v, 0xe7);
	struct insn i = XSAVE64;
	i.addrsize = 4;
	assert_int_equal(run_live(v, op_xsave, i, &guest), NO_FAULT);
	assert_int_equal(*(u64 *)(area() + XSAVE_BV), 0x67);
	assert_memory_equal(area() + hi256, before.area + hi256, 256);
	assert_int_equal(area()[hi256 + 256], 0xee);
	assert_int_equal(area()[hi16], 0xee);
	/* Compacted, and loaded: what is behind stays in the registers. */
	for (u32 compact = 0; compact < 2; compact++) {
		struct host_state image;
		memset(&image, 0, sizeof(image));
		make_guest_avx512(v, &guest);
		memset(guest.area + hi256, 0x11, 512);
		memset(guest.area + hi16, 0x22, 1024);
		host_xsave(&guest, 0xe7, compact, &image);
		memcpy(area(), image.area, XSAVE_AREA_SIZE);
		guest = before;
		i = XRSTOR64;
		i.addrsize = 4;
		mask(v, 0xe7);
		assert_int_equal(run_live(v, op_xrstor, i, &guest), NO_FAULT);
		assert_int_equal(guest.area[hi256], 0x11);
		assert_int_equal(guest.area[hi256 + 255], 0x11);
		assert_memory_equal(guest.area + hi256 + 256, before.area + hi256 + 256, 256);
		assert_memory_equal(guest.area + hi16, before.area + hi16, 1024);
	}
}

/* SDM 1 13.10: to XSAVEC, an MXCSR other than 1F80H makes SSE used. */
static void test_xsavec_mxcsr(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest;

	if (!feature(v, FEATURE_XSAVEC))
		skip();
	make_guest(&guest);
	*(u64 *)(guest.area + XSAVE_BV) = 0;
	mask(v, 7);
	assert_int_equal(run_live(v, op_xsave, XSAVEC64, &guest), NO_FAULT);
	assert_int_equal(*(u64 *)(area() + XSAVE_BV), 2);
	assert_int_equal(*(u32 *)(area() + FX_MXCSR), 0x1fa0);
}

static void test_xrstor(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, wanted;

	make_guest(&wanted);
	memset(&guest, 0, sizeof(guest));
	*(u32 *)(guest.area + FX_MXCSR) = 0x1f80;
	memcpy(area(), wanted.area, XSAVE_AREA_SIZE);
	mask(v, 7);
	assert_int_equal(run_live(v, op_xrstor, XRSTOR64, &guest), NO_FAULT);
	assert_memory_equal(guest.area + FX_ST, wanted.area + FX_ST, FX_END - FX_ST);
	assert_memory_equal(guest.area + XSAVE_AVX_OFFSET, wanted.area + XSAVE_AVX_OFFSET, 256);
	assert_int_equal(*(u32 *)(guest.area + FX_MXCSR), 0x1fa0);
	/* XSTATE_BV clear: the initial state. */
	*(u64 *)(area() + XSAVE_BV) = 1;
	mask(v, 6);
	assert_int_equal(run_live(v, op_xrstor, XRSTOR64, &guest), NO_FAULT);
	assert_int_equal(guest.area[FX_XMM], 0);
	assert_int_equal(guest.area[FX_ST + 16], 1);
}

static void test_xrstor_checks(void **state)
{
	static const struct {
		const char *name;
		u32 offset;
		u64 value;
	} bad[] = {
	    {.name = "XSTATE_BV beyond XCR0", .offset = XSAVE_BV, .value = 0x20},
	    {.name = "XCOMP_BV in standard form", .offset = XSAVE_COMP_BV, .value = 1},
	    {.name = "header bytes 23:16", .offset = XSAVE_BV + 16, .value = 1},
	    {.name = "XCOMP_BV beyond XCR0", .offset = XSAVE_COMP_BV, .value = BIT(63) | 0x27},
	    {.name = "XSTATE_BV beyond XCOMP_BV", .offset = XSAVE_COMP_BV, .value = BIT(63) | 3},
	    {.name = "MXCSR", .offset = FX_MXCSR, .value = BIT(31)},
	};
	struct soft_vcpu *v = *state;
	struct host_state guest, before, image;

	make_guest(&guest);
	before = guest;
	make_guest(&image);
	mask(v, 7);
	for (u32 n = 0; n < ARRAY_SIZE(bad); n++) {
		memcpy(area(), image.area, XSAVE_AREA_SIZE);
		memcpy(area() + bad[n].offset, &bad[n].value, 8);
		memset(area() + FX_XMM, 0x99, 16);
		if (run_live(v, op_xrstor, XRSTOR64, &guest) != EXC_GP)
			fail_msg("%s is let through", bad[n].name);
		assert_memory_equal(guest.area + FX_XMM, before.area + FX_XMM, 256);
	}
}

static void test_common_checks(void **state)
{
	struct soft_vcpu *v = *state;
	struct insn i = XSAVE64;

	mask(v, 7);
	i.disp = AREA + 32;
	assert_int_equal(run_op(v, op_xsave, i), EXC_GP);
	i.disp = AREA;
	v->cr0 |= CR0_TS;
	assert_int_equal(run_op(v, op_xsave, i), EXC_NM);
	assert_int_equal(run_op(v, op_fxsave, FXSAVE64), EXC_NM);
	assert_int_equal(run_op(v, op_fsave, FNSAVE), EXC_NM);
	v->cr4 &= ~CR4_OSXSAVE;
	assert_int_equal(run_op(v, op_xsave, i), EXC_UD);
	assert_int_equal(run_op(v, op_xrstor, XRSTOR64), EXC_UD);
	v->cr4 |= CR4_OSXSAVE;
	v->cr0 &= ~CR0_TS;
	i.modrm = 5 << 3; /* XSAVES */
	i.opcode = 0xc7;
	assert_int_equal(run_op(v, op_xsave, i), EXC_UD);
	i = FXSAVE64;
	i.disp = AREA + 8;
	assert_int_equal(run_op(v, op_fxsave, i), EXC_GP);
	v->cr0 |= CR0_EM;
	assert_int_equal(run_op(v, op_fxrstor, FXRSTOR64), EXC_NM);
}

static void test_fx(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, before;

	make_guest(&guest);
	before = guest;
	memset(area(), 0xee, XSAVE_AREA_SIZE);
	assert_int_equal(run_live(v, op_fxsave, FXSAVE64, &guest), NO_FAULT);
	assert_memory_equal(area() + FX_XMM, before.area + FX_XMM, 256);
	assert_int_equal(*(u64 *)(area() + FX_FDP), 0);
	assert_int_equal(area()[FX_END], 0xee);
	memset(guest.area + FX_XMM, 0, 256);
	memset(guest.area + FX_ST, 0, 128);
	assert_int_equal(run_live(v, op_fxrstor, FXRSTOR64, &guest), NO_FAULT);
	assert_memory_equal(guest.area + FX_ST, before.area + FX_ST, FX_END - FX_ST);
	/* The upper halves are none of its business. */
	assert_memory_equal(guest.area + XSAVE_AVX_OFFSET, before.area + XSAVE_AVX_OFFSET, 256);
	*(u32 *)(area() + FX_MXCSR) = BIT(20);
	assert_int_equal(run_live(v, op_fxrstor, FXRSTOR64, &guest), EXC_GP);
}

/* Outside 64-bit mode XMM8 and above do not exist, and must survive. */
static void test_upper_registers_survive(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, before;

	make_guest(&guest);
	before = guest;
	v->seg[SEG_CS].access = 0xc09b;
	memset(area(), 0, XSAVE_AREA_SIZE);
	*(u32 *)(area() + FX_MXCSR) = 0x1f80;
	mask(v, 7);
	struct insn i = XRSTOR64;
	i.opsize = 4;
	assert_int_equal(run_live(v, op_xrstor, i, &guest), NO_FAULT);
	assert_int_equal(guest.area[FX_XMM + 127], 0);
	assert_memory_equal(guest.area + FX_XMM + 128, before.area + FX_XMM + 128, 128);
	assert_int_equal(guest.area[XSAVE_AVX_OFFSET + 127], 0);
	assert_memory_equal(guest.area + XSAVE_AVX_OFFSET + 128,
			    before.area + XSAVE_AVX_OFFSET + 128, 128);
	i = FXRSTOR64;
	i.opsize = 4;
	assert_int_equal(run_live(v, op_fxrstor, i, &guest), NO_FAULT);
	assert_memory_equal(guest.area + FX_XMM + 128, before.area + FX_XMM + 128, 128);
	memset(area() + FX_XMM, 0xee, 256);
	i = FXSAVE64;
	i.opsize = 4;
	assert_int_equal(run_live(v, op_fxsave, i, &guest), NO_FAULT);
	assert_int_equal(area()[FX_XMM + 127], 0);
	assert_int_equal(area()[FX_XMM + 128], 0xee);
}

/* What the instructions themselves store and load, but for the pointers. */
static void test_fnsave_like_the_processor(void **state)
{
	static const u8 sizes[] = {2, 4};
	struct soft_vcpu *v = *state;

	for (u32 n = 0; n < ARRAY_SIZE(sizes); n++) {
		struct host_state guest, before, host;
		u8 native[108] = {0};
		u32 env = sizes[n] == 2 ? 14 : 28;
		struct insn i = FNSAVE;

		i.opsize = sizes[n];
		make_guest(&guest);
		guest.area[FX_FTW] = 0x3f;
		guest.area[FX_FSW + 1] = 0x10; /* TOP 2 */
		memset(guest.area + FX_ST + 16, 0, 10);
		before = guest;
		save_host(&host);
		load_host(&guest);
		if (sizes[n] == 2)
			__asm__ volatile("data16 fnsave %0" : "=m"(native));
		else
			__asm__ volatile("fnsave %0" : "=m"(native));
		load_host(&host);
		memset(native + (sizes[n] == 2 ? 6 : 12), 0, sizes[n] == 2 ? 8 : 16);
		u32 rip = 0x34567890;
		memcpy(native + (sizes[n] == 2 ? 6 : 12), &rip, sizes[n]);

		memset(area(), 0, 512);
		assert_int_equal(run_live(v, op_fsave, i, &guest), NO_FAULT);
		assert_memory_equal(area(), native, 6);
		assert_memory_equal(area() + env - sizes[n] * 4, native + env - sizes[n] * 4,
				    sizes[n]);
		assert_memory_equal(area() + env, native + env, 80);
		assert_false(*(u64 *)(guest.area + XSAVE_BV) & 1 &&
			     *(u16 *)(guest.area + FX_FCW) != 0x37f); /* initialized */

		i = FRSTOR;
		i.opsize = sizes[n];
		assert_int_equal(run_live(v, op_frstor, i, &guest), NO_FAULT);
		assert_memory_equal(guest.area, before.area, FX_FOP);
		assert_memory_equal(guest.area + FX_ST, before.area + FX_ST, 128);
	}
}

static void test_fnsave_changes_nothing_on_a_fault(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest, before;
	struct insn i = FNSAVE;

	make_guest(&guest);
	*(u16 *)(guest.area + FX_FCW) = 0x27e; /* one exception unmasked */
	before = guest;
	i.disp = MEMORY_SIZE - 16;
	assert_int_equal(run_live(v, op_fsave, i, &guest), EXC_PF);
	assert_memory_equal(guest.area, before.area, FX_FOP);
	assert_memory_equal(guest.area + FX_ST, before.area + FX_ST, 128);
	i = FNSTENV;
	assert_int_equal(run_live(v, op_fsave, i, &guest), NO_FAULT);
	assert_int_equal(*(u16 *)(guest.area + FX_FCW), 0x27f); /* masked */
	assert_int_equal(*(u16 *)area(), 0x27e);
}

static void test_pending_exception(void **state)
{
	struct soft_vcpu *v = *state;
	struct host_state guest;

	make_guest(&guest);
	*(u16 *)(guest.area + FX_FCW) = 0x27b; /* divide by zero unmasked */
	*(u16 *)(guest.area + FX_FSW) = 0x8084;
	memset(area(), 0, 512);
	assert_int_equal(run_live(v, op_fsave, FNSTENV, &guest), NO_FAULT);
	make_guest(&guest);
	*(u16 *)(guest.area + FX_FCW) = 0x27b;
	*(u16 *)(guest.area + FX_FSW) = 0x8084;
	assert_int_equal(run_live(v, op_frstor, FRSTOR, &guest), EXC_MF);
	/* FXRSTOR does not wait. */
	*(u32 *)(area() + FX_MXCSR) = 0x1f80;
	*(u16 *)(area() + FX_FCW) = 0x37f;
	assert_int_equal(run_live(v, op_fxrstor, FXRSTOR64, &guest), NO_FAULT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_xsave),
	    TEST(test_xsave_mask),
	    TEST(test_unused_components),
	    TEST(test_xsavec),
	    TEST(test_xsavec_mxcsr),
	    TEST(test_xrstor),
	    TEST(test_avx512_saved),
	    TEST(test_avx512_restored),
	    TEST(test_avx512_outside_64bit),
	    TEST(test_xrstor_checks),
	    TEST(test_common_checks),
	    TEST(test_fx),
	    TEST(test_upper_registers_survive),
	    TEST(test_fnsave_like_the_processor),
	    TEST(test_fnsave_changes_nothing_on_a_fault),
	    TEST(test_pending_exception),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
