/* Masked moves and gathers: against the host's own instructions, and with faults in the middle. */
#include "tests/unit/soft_fixture.h"

#include <string.h>

#define LINEAR 0x7f0000123000ull
#define PAGE   0x300000ull

/* The guest's YMM registers before and after run_op(). */
static u8 regs[16][32];

/** Runs an op with regs[] live, and takes them back, however it ends. */
static void run_op(op_function *op, const struct insn *i)
{
	struct soft_vcpu *v = fixture->v;
	register void *r12 __asm__("r12") = regs;

	fixture->vectors = regs;
	/* The stack below is the callee's: past the red zone, aligned. */
	__asm__ volatile(
	    "mov %%rsp, %%rbx; sub $256, %%rsp; and $-64, %%rsp;" YMM_ALL(
		YMM_LOAD, "%%r12") "call *%%rax;" YMM_ALL(YMM_STORE, "%%r12") "mov %%rbx, %%rsp"
	    : "+a"(op), "+D"(v), "+S"(i), "+r"(r12)
	    :
	    : "memory", "cc", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2",
	      "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
	      "xmm13", "xmm14", "xmm15");
	fixture->vectors = NULL;
}

static u64 random_state = 88172645463325252;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void randomize(void *p, size_t bytes)
{
	for (size_t k = 0; k < bytes; k++)
		((u8 *)p)[k] = (u8)random_u64();
}

/** An instruction on ymm1 (reg), ymm2 (vvvv), ymm3 (rm, index) and [rbx]. */
static struct insn vector_insn(u8 map, u8 opcode, bool w, u8 opsize)
{
	return (struct insn){.map = map,
			     .opcode = opcode,
			     .w = w,
			     .opsize = opsize,
			     .addrsize = 8,
			     .seg = SEG_DS,
			     .reg = 1,
			     .vvvv = 2,
			     .rm = 3,
			     .vex = true,
			     .is_mem = true,
			     .base = RBX,
			     .index = REG_NONE,
			     .scale = 1};
}

/* The host's own instruction on the same registers and memory. Gathers use indexes in ymm3 and a
 * scale of 4. */
#define HOST(name, text)                                                                           \
	static void host_##name(u8(*r)[32], u8 *memory)                                            \
	{                                                                                          \
		__asm__ volatile("vmovdqu 32(%0), %%ymm1; vmovdqu 64(%0), %%ymm2;"                 \
				 "vmovdqu 96(%0), %%ymm3;" text "; vmovdqu %%ymm1, 32(%0);"        \
				 "vmovdqu %%ymm2, 64(%0)"                                          \
				 :                                                                 \
				 : "r"(r), "D"(memory)                                             \
				 : "memory", "xmm1", "xmm2", "xmm3");                              \
	}

HOST(maskmovdqu, "maskmovdqu %%xmm3, %%xmm1")
HOST(vmaskmovps_load, "vmaskmovps (%1), %%xmm2, %%xmm1")
HOST(vmaskmovps_load_256, "vmaskmovps (%1), %%ymm2, %%ymm1")
HOST(vmaskmovpd_load, "vmaskmovpd (%1), %%xmm2, %%xmm1")
HOST(vmaskmovpd_load_256, "vmaskmovpd (%1), %%ymm2, %%ymm1")
HOST(vpmaskmovd_load_256, "vpmaskmovd (%1), %%ymm2, %%ymm1")
HOST(vpmaskmovq_load, "vpmaskmovq (%1), %%xmm2, %%xmm1")
HOST(vmaskmovps_store_256, "vmaskmovps %%ymm1, %%ymm2, (%1)")
HOST(vmaskmovpd_store, "vmaskmovpd %%xmm1, %%xmm2, (%1)")
HOST(vpmaskmovd_store, "vpmaskmovd %%xmm1, %%xmm2, (%1)")
HOST(vpmaskmovq_store_256, "vpmaskmovq %%ymm1, %%ymm2, (%1)")
HOST(vgatherdps, "vgatherdps %%xmm2, (%1,%%xmm3,4), %%xmm1")
HOST(vgatherdps_256, "vgatherdps %%ymm2, (%1,%%ymm3,4), %%ymm1")
HOST(vgatherdpd, "vgatherdpd %%xmm2, (%1,%%xmm3,4), %%xmm1")
HOST(vgatherdpd_256, "vgatherdpd %%ymm2, (%1,%%xmm3,4), %%ymm1")
HOST(vgatherqps, "vgatherqps %%xmm2, (%1,%%xmm3,4), %%xmm1")
HOST(vgatherqps_256, "vgatherqps %%xmm2, (%1,%%ymm3,4), %%xmm1")
HOST(vgatherqpd, "vgatherqpd %%xmm2, (%1,%%xmm3,4), %%xmm1")
HOST(vgatherqpd_256, "vgatherqpd %%ymm2, (%1,%%ymm3,4), %%ymm1")
HOST(vpgatherdd_256, "vpgatherdd %%ymm2, (%1,%%ymm3,4), %%ymm1")
HOST(vpgatherqq_256, "vpgatherqq %%ymm2, (%1,%%ymm3,4), %%ymm1")

struct native_case {
	const char *name;
	u8 map, opcode;
	bool w;
	u8 opsize;
	u8 index_size; /* gathers; else 0 */
	void (*host)(u8 (*r)[32], u8 *memory);
};

/* clang-format off */
/* One case a line. */
static const struct native_case native_cases[] = {
	{"maskmovdqu", 1, 0xf7, false, 16, 0, host_maskmovdqu},
	{"vmaskmovps load", 2, 0x2c, false, 16, 0, host_vmaskmovps_load},
	{"vmaskmovps load 256", 2, 0x2c, false, 32, 0, host_vmaskmovps_load_256},
	{"vmaskmovpd load", 2, 0x2d, false, 16, 0, host_vmaskmovpd_load},
	{"vmaskmovpd load 256", 2, 0x2d, false, 32, 0, host_vmaskmovpd_load_256},
	{"vpmaskmovd load 256", 2, 0x8c, false, 32, 0, host_vpmaskmovd_load_256},
	{"vpmaskmovq load", 2, 0x8c, true, 16, 0, host_vpmaskmovq_load},
	{"vmaskmovps store 256", 2, 0x2e, false, 32, 0, host_vmaskmovps_store_256},
	{"vmaskmovpd store", 2, 0x2f, false, 16, 0, host_vmaskmovpd_store},
	{"vpmaskmovd store", 2, 0x8e, false, 16, 0, host_vpmaskmovd_store},
	{"vpmaskmovq store 256", 2, 0x8e, true, 32, 0, host_vpmaskmovq_store_256},
	{"vgatherdps", 2, 0x92, false, 16, 4, host_vgatherdps},
	{"vgatherdps 256", 2, 0x92, false, 32, 4, host_vgatherdps_256},
	{"vgatherdpd", 2, 0x92, true, 16, 4, host_vgatherdpd},
	{"vgatherdpd 256", 2, 0x92, true, 32, 4, host_vgatherdpd_256},
	{"vgatherqps", 2, 0x93, false, 16, 8, host_vgatherqps},
	{"vgatherqps 256", 2, 0x93, false, 32, 8, host_vgatherqps_256},
	{"vgatherqpd", 2, 0x93, true, 16, 8, host_vgatherqpd},
	{"vgatherqpd 256", 2, 0x93, true, 32, 8, host_vgatherqpd_256},
	{"vpgatherdd 256", 2, 0x90, false, 32, 4, host_vpgatherdd_256},
	{"vpgatherqq 256", 2, 0x91, true, 32, 8, host_vpgatherqq_256},
};
/* clang-format on */

#define WINDOW 0x2000 /* bytes that the cases may touch, around the base in their middle */

static void run_native_case(const struct native_case *c)
{
	static u8 expected[16][32], window[WINDOW];
	struct soft_vcpu *v = fixture->v;
	struct insn i = vector_insn(c->map, c->opcode, c->w, c->opsize);
	u64 base = LINEAR + WINDOW / 2 - random_u64() % 40;

	randomize(regs, sizeof(regs));
	if (c->index_size) {
		i.index = 3;
		i.scale = 4;
		for (u32 k = 0; k < 32 / c->index_size; k++) {
			s64 index = (s64)(random_u64() % 1000) - 500;
			memcpy(&regs[3][k * c->index_size], &index, c->index_size);
		}
	}
	i.vex = c->map != 1;
	randomize(fixture->ram + PAGE, WINDOW);
	memcpy(expected, regs, sizeof(regs));
	memcpy(window, fixture->ram + PAGE, WINDOW);
	c->host(expected, window + (base - LINEAR));

	v->regs[RBX] = v->regs[RDI] = base;
	run_op(c->map == 1 || !c->index_size ? op_maskmov : op_gather, &i);
	for (u32 k = 0; k < 16; k++)
		if (memcmp(regs[k], expected[k], 32))
			fail_msg("%s: ymm%u differs", c->name, k);
	if (memcmp(fixture->ram + PAGE, window, WINDOW))
		fail_msg("%s: memory differs", c->name);
}

static void test_native(void **state)
{
	if (!__builtin_cpu_supports("avx2"))
		skip();
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U);
	fixture_map(LINEAR + 0x1000, PAGE + 0x1000, P | W | U);
	for (u32 round = 0; round < 200; round++)
		for (u32 k = 0; k < ARRAY_SIZE(native_cases); k++)
			run_native_case(&native_cases[k]);
}

static void test_maskmovq(void **state)
{
	struct insn i = vector_insn(1, 0xf7, false, 8);
	u64 data = 0x1122334455667788, mask = 0x80007f80ff008000;

	i.vex = false;
	fixture->v->regs[RDI] = 0x2003;
	__asm__ volatile("movq %0, %%mm1; movq %1, %%mm3" : : "r"(data), "r"(mask));
	ASSERT_ENDS(op_maskmov(fixture->v, &i));
	__asm__ volatile("emms");
	u64 want = 0;
	for (u32 k = 0; k < 8; k++)
		if (mask >> (8 * k) & 0x80)
			want |= data & 0xffull << (8 * k);
	assert_int_equal(*(u64 *)(fixture->ram + 0x2003), want);
}

/* Elements that are not selected may lie anywhere; those that are must all be writable before one
 * is written. */
static void test_mask_faults(void **state)
{
	struct insn store = vector_insn(2, 0x2e, false, 32), load = vector_insn(2, 0x2c, false, 32);
	u32 *mask = (u32 *)regs[2], *data = (u32 *)regs[1];

	if (!__builtin_cpu_supports("avx2"))
		skip();
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U);
	memset(fixture->ram + PAGE, 0, PAGE_SIZE);
	fixture->v->regs[RBX] = LINEAR + 0x1000 - 16; /* the upper four elements are not mapped */
	for (u32 k = 0; k < 8; k++) {
		mask[k] = k < 4 ? BIT(31) : 0x7fffffff;
		data[k] = 0x1000 + k;
	}
	ASSERT_ENDS(run_op(op_maskmov, &store));
	assert_int_equal(*(u32 *)(fixture->ram + PAGE + 0xff0), 0x1000);
	memset(data, 0xff, 32);
	ASSERT_ENDS(run_op(op_maskmov, &load));
	assert_int_equal(data[3], 0x1003);
	assert_int_equal(data[4], 0);
	mask[5] = BIT(31);
	data[0] = 0x7777;
	ASSERT_RAISES(EXC_PF, PF_W, run_op(op_maskmov, &store));
	assert_int_equal(fixture->cr2, LINEAR + 0x1004);
	assert_int_equal(*(u32 *)(fixture->ram + PAGE + 0xff0), 0x1000);
	ASSERT_RAISES(EXC_PF, 0, run_op(op_maskmov, &load));
	assert_int_equal(data[0], 0x7777); /* nothing loaded */
	memset(mask, 0, 32);
	fixture->v->regs[RBX] = BIT(47);
	ASSERT_ENDS(run_op(op_maskmov, &store));
}

/* A gather that faults has completed the elements before: SDM 2C VGATHERDPS. */
static void test_gather_progress(void **state)
{
	struct insn i = vector_insn(2, 0x90, false, 32);
	u32 *dst = (u32 *)regs[1], *mask = (u32 *)regs[2], *index = (u32 *)regs[3];

	if (!__builtin_cpu_supports("avx2"))
		skip();
	fixture_paging();
	fixture_map(LINEAR, PAGE, P | W | U);
	i.index = 3;
	i.scale = 4;
	fixture->v->regs[RBX] = LINEAR;
	for (u32 k = 0; k < 8; k++) {
		dst[k] = 0xeeee0000 + k;
		mask[k] = k == 1 ? 0 : BIT(31);
		index[k] = k == 5 ? 0x400 : k; /* element 5 is in the next page */
		((u32 *)(fixture->ram + PAGE))[k] = 0x100 + k;
	}
	ASSERT_RAISES(EXC_PF, 0, run_op(op_gather, &i));
	assert_int_equal(fixture->cr2, LINEAR + 0x1000);
	for (u32 k = 0; k < 8; k++) {
		assert_int_equal(dst[k], k < 5 && k != 1 ? 0x100 + k : 0xeeee0000 + k);
		assert_int_equal(mask[k], k < 5 ? 0 : 0xffffffff);
	}
	fixture_map(LINEAR + 0x1000, PAGE + 0x1000, P);
	*(u32 *)(fixture->ram + PAGE + 0x1000) = 0x55;
	((u32 *)(fixture->ram + PAGE))[0] = 0; /* not read again */
	ASSERT_ENDS(run_op(op_gather, &i));
	assert_int_equal(dst[0], 0x100);
	assert_int_equal(dst[5], 0x55);
	assert_int_equal(dst[7], 0x107);
	for (u32 k = 0; k < 8; k++)
		assert_int_equal(mask[k], 0);
}

/* Elements from a device are read once each, however often the instruction starts again. */
static void test_gather_mmio(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = vector_insn(2, 0x90, false, 16);
	u32 *dst = (u32 *)regs[1], *mask = (u32 *)regs[2], *index = (u32 *)regs[3];
	static u32 exits;

	if (!__builtin_cpu_supports("avx2"))
		skip();
	i.index = 3;
	v->regs[RBX] = NO_RAM;
	for (u32 k = 0; k < 4; k++) {
		mask[k] = BIT(31);
		index[k] = 0; /* one register of a device, read four times */
	}
	for (exits = 0; RUN(run_op(op_gather, &i)) == EXITED; exits++) {
		assert_in_range(exits, 0, 3);
		v->base.run->mmio.data[0] = (u8)(0x10 + exits);
		io_complete_read(v);
		v->io_cursor = 0;
	}
	assert_int_equal(exits, 4);
	for (u32 k = 0; k < 4; k++)
		assert_int_equal(dst[k], 0x10 + k);
}

static void test_gather_same_register(void **state)
{
	struct insn i = vector_insn(2, 0x90, false, 16);

	i.index = 1;
	ASSERT_RAISES(EXC_UD, 0, op_gather(fixture->v, &i));
	i.index = 2;
	ASSERT_RAISES(EXC_UD, 0, op_gather(fixture->v, &i));
	i.index = 3;
	i.vvvv = 1;
	ASSERT_RAISES(EXC_UD, 0, op_gather(fixture->v, &i));
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_native),	     T(test_maskmovq),	  T(test_mask_faults),
	    T(test_gather_progress), T(test_gather_mmio), T(test_gather_same_register),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
