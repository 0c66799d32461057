/* The decimal instructions, and XLAT. */
#include "tests/unit/soft_fixture.h"

struct decimal_case {
	const char *name;
	op_function *op;
	u64 imm;
	u64 expected;
};

/*
 * For every AX, with every CF and AF before: AX and all six flags after, folded into one number.
 * Expected is what an Intel processor gives in 32-bit mode, undefined flags included.
 */
static const struct decimal_case cases[] = {
    {"aaa", op_aaa, 0, 0xc26a9739f9680000},  {"aas", op_aas, 0, 0x9175616971980000},
    {"daa", op_daa, 0, 0x1c60abab099b8000},  {"das", op_das, 0, 0xac2e543b20248000},
    {"aam", op_aam, 10, 0x65917f877ebd0000}, {"aad", op_aad, 10, 0xd8675df7a3e00000},
};

static u64 fold_all(const struct decimal_case *c)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = {.imm = c->imm, .opsize = 1};
	u64 sum = 0;

	for (u64 ax = 0; ax < 65536; ax++)
		for (u64 flags = 0; flags < 4; flags++) {
			v->regs[RAX] = ax;
			vcpu_set_arith(v,
				       (flags & 1 ? RFLAGS_CF : 0) | (flags & 2 ? RFLAGS_AF : 0));
			c->op(v, &i);
			sum = sum * 31 + v->regs[RAX] + ((vcpu_rflags(v) & RFLAGS_ARITH) << 16);
		}
	return sum;
}

static void test_decimal(void **state)
{
	for (u32 k = 0; k < ARRAY_SIZE(cases); k++)
		if (fold_all(&cases[k]) != cases[k].expected)
			fail_msg("%s: differs from the processor", cases[k].name);
}

static void test_upper_register(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = {.imm = 10};

	v->regs[RAX] = 0x1122334455660203;
	op_aad(v, &i);
	assert_int_equal(v->regs[RAX], 0x1122334455660017);
	op_aam(v, &i);
	assert_int_equal(v->regs[RAX], 0x1122334455660203);
}

static void test_aam_by_zero(void **state)
{
	struct insn i = {.imm = 0};

	ASSERT_RAISES(EXC_DE, 0, op_aam(fixture->v, &i));
}

static void test_salc(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = {0};

	v->regs[RAX] = 0x1234;
	vcpu_set_arith(v, RFLAGS_CF | RFLAGS_ZF);
	op_salc(v, &i);
	assert_int_equal(v->regs[RAX], 0x12ff);
	assert_int_equal(vcpu_rflags(v) & RFLAGS_ARITH, RFLAGS_CF | RFLAGS_ZF);
	vcpu_set_arith(v, 0);
	op_salc(v, &i);
	assert_int_equal(v->regs[RAX], 0x1200);
}

static void test_xlat(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = {.addrsize = 8, .seg = SEG_FS, .opsize = 1};

	v->seg[SEG_FS].base = 0x1000;
	fixture->ram[0x1000 + 0x210] = 0x5a;
	v->regs[RBX] = 0x200;
	v->regs[RAX] = 0xff10;
	op_xlat(v, &i);
	assert_int_equal(v->regs[RAX], 0xff5a);
	/* 32-bit addresses wrap. */
	fixture->ram[0x1000 + 4] = 0x77;
	i.addrsize = 4;
	v->regs[RBX] = 0x1fffffff4;
	v->regs[RAX] = 0x10;
	op_xlat(v, &i);
	assert_int_equal(v->regs[RAX], 0x77);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_decimal), T(test_upper_register), T(test_aam_by_zero),
	    T(test_salc),    T(test_xlat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
