/* CPUID: what is offered on this host, and what depends on the vCPU's state. */
#include "tests/unit/state_fixture.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/soft/system/xstate.h"

static int setup(void **state)
{
	*state = vcpu_new();
	return 0;
}

static int teardown(void **state)
{
	vcpu_free(*state);
	return 0;
}

static bool told(struct soft_vcpu *v, u32 leaf, u32 subleaf, enum cpuid_reg reg, u32 bit)
{
	u32 r[4];

	cpuid_query(v, leaf, subleaf, r);
	return r[reg] >> bit & 1;
}

static void test_features_ours_are_there(void **state)
{
	struct soft_vcpu *v = *state;

	for (u32 n = 0; n < FEATURE_COUNT; n++)
		if (cpu_features[n].source == FEATURE_OURS && !feature(v, n))
			fail_msg("%s is not offered", cpu_features[n].name);
}

static void test_features_never_exceed_the_host(void **state)
{
	struct soft_vcpu *v = *state;

	for (u32 n = 0; n < FEATURE_COUNT; n++) {
		const struct cpu_feature_row *f = &cpu_features[n];
		u32 r[4] = {0};
		if (f->source != FEATURE_HOST && f->source != FEATURE_YMM &&
		    f->source != FEATURE_ZMM)
			continue;
		__get_cpuid_count(f->leaf, f->subleaf, &r[0], &r[1], &r[2], &r[3]);
		if (feature(v, n) && !(r[f->reg] >> f->bit & 1))
			fail_msg("%s is offered, and the host lacks it", f->name);
	}
}

static void test_hidden(void **state)
{
	static const struct {
		const char *name;
		u32 leaf, subleaf;
		enum cpuid_reg reg;
		u32 bit;
	} hidden[] = {
	    {.name = "MONITOR", .leaf = 1, .reg = CPUID_ECX, .bit = 3},
	    {.name = "VMX", .leaf = 1, .reg = CPUID_ECX, .bit = 5},
	    {.name = "HLE", .leaf = 7, .reg = CPUID_EBX, .bit = 4},
	    {.name = "RTM", .leaf = 7, .reg = CPUID_EBX, .bit = 11},
	    {.name = "MPX", .leaf = 7, .reg = CPUID_EBX, .bit = 14},
	    {.name = "AVX512PF", .leaf = 7, .reg = CPUID_EBX, .bit = 26},
	    {.name = "PT", .leaf = 7, .reg = CPUID_EBX, .bit = 25},
	    {.name = "PKU", .leaf = 7, .reg = CPUID_ECX, .bit = 3},
	    {.name = "WAITPKG", .leaf = 7, .reg = CPUID_ECX, .bit = 5},
	    {.name = "CET_SS", .leaf = 7, .reg = CPUID_ECX, .bit = 7},
	    {.name = "LA57", .leaf = 7, .reg = CPUID_ECX, .bit = 16},
	    {.name = "KL", .leaf = 7, .reg = CPUID_ECX, .bit = 23},
	    {.name = "ENQCMD", .leaf = 7, .reg = CPUID_ECX, .bit = 29},
	    {.name = "UINTR", .leaf = 7, .reg = CPUID_EDX, .bit = 5},
	    {.name = "VP2INTERSECT", .leaf = 7, .reg = CPUID_EDX, .bit = 8},
	    {.name = "AMX_TILE", .leaf = 7, .reg = CPUID_EDX, .bit = 24},
	    {.name = "XSAVES", .leaf = 0xd, .subleaf = 1, .reg = CPUID_EAX, .bit = 3},
	    {.name = "PKRU state", .leaf = 0xd, .reg = CPUID_EAX, .bit = 9},
	    {.name = "SVM", .leaf = 0x80000001, .reg = CPUID_ECX, .bit = 2},
	    {.name = "XOP", .leaf = 0x80000001, .reg = CPUID_ECX, .bit = 11},
	    {.name = "3DNow!", .leaf = 0x80000001, .reg = CPUID_EDX, .bit = 31},
	};
	struct soft_vcpu *v = *state;
	u32 r[4];

	for (u32 n = 0; n < ARRAY_SIZE(hidden); n++)
		if (told(v, hidden[n].leaf, hidden[n].subleaf, hidden[n].reg, hidden[n].bit))
			fail_msg("%s is offered", hidden[n].name);
	cpuid_query(v, 0xa, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0); /* no performance monitoring */
}

static void test_room(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 3 * sizeof(cpuid->entries[0]));

	cpuid->nent = 3;
	assert_int_equal(cpuid_supported(cpuid, 0, &v->layout, false), -E2BIG);
	free(cpuid);
}

static void test_osxsave_and_apic_follow_the_state(void **state)
{
	struct soft_vcpu *v = *state;

	assert_false(told(v, 1, 0, CPUID_ECX, 27));
	v->cr4 |= CR4_OSXSAVE;
	assert_true(told(v, 1, 0, CPUID_ECX, 27));
	assert_true(told(v, 1, 0, CPUID_EDX, 9));
	v->msr.apic_base &= ~BIT(11);
	assert_false(told(v, 1, 0, CPUID_EDX, 9));
}

static void test_xsave_size_follows_xcr0(void **state)
{
	struct soft_vcpu *v = *state;
	u32 r[4];

	cpuid_query(v, 0xd, 0, r);
	assert_int_equal(r[CPUID_EBX], 576);
	if (!feature(v, FEATURE_AVX))
		skip();
	assert_int_equal(r[CPUID_EAX] & 7, 7);
	assert_true(r[CPUID_ECX] >= 832);
	assert_true(set_xcr0(v, 7));
	cpuid_query(v, 0xd, 0, r);
	assert_int_equal(r[CPUID_EBX], 832);
	cpuid_query(v, 0xd, 2, r);
	assert_int_equal(r[CPUID_EAX], 256);
	assert_int_equal(r[CPUID_EBX], 576);
}

/* Leaf 0DH with AVX-512: what the host says, as XSAVE is the host's. */
static void test_xsave_of_avx512(void **state)
{
	struct soft_vcpu *v = *state;
	u32 r[4], host[4];

	if (!feature(v, FEATURE_AVX512F))
		skip();
	cpuid_query(v, 0xd, 0, r);
	assert_int_equal(r[CPUID_EAX], 0xe7);
	u32 all = r[CPUID_ECX];
	assert_true(set_xcr0(v, 0xe7));
	cpuid_query(v, 0xd, 0, r);
	assert_int_equal(r[CPUID_EBX], all);
	for (u32 n = 5; n < 8; n++) {
		cpuid_query(v, 0xd, n, r);
		__cpuid_count(0xd, n, host[0], host[1], host[2], host[3]);
		assert_int_equal(r[CPUID_EAX], host[CPUID_EAX]);
		assert_int_equal(r[CPUID_EBX], host[CPUID_EBX]);
		assert_true(r[CPUID_EAX] + r[CPUID_EBX] <= all);
	}
	cpuid_query(v, 0xd, 1, r);
	if (feature(v, FEATURE_XSAVEC))
		assert_int_equal(r[CPUID_EBX], 576 + 256 + 64 + 512 + 1024);
}

/* Switched off, nothing of it is told, and XCR0 refuses it. */
static void test_avx512_off(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));

	cpuid->nent = CPUID_MAX;
	xstate_probe(&v->layout, false);
	assert_int_equal(cpuid_supported(cpuid, 0, &v->layout, false), 0);
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
	for (u32 n = 0; n < FEATURE_COUNT; n++)
		if (cpu_features[n].source == FEATURE_ZMM && feature(v, n))
			fail_msg("%s is offered", cpu_features[n].name);
	assert_false(set_xcr0(v, 0xe7));
	free(cpuid);
}

static void test_topology(void **state)
{
	struct soft_vcpu *v = *state;
	u32 r[4];

	v->base.id = 3;
	atomic_store(&v->vm->vcpu_count, 6);
	cpuid_query(v, 1, 0, r);
	assert_int_equal(r[CPUID_EBX] >> 24, 3);
	assert_int_equal(r[CPUID_EBX] >> 16 & 0xff, 6);
	assert_true(r[CPUID_EDX] >> 28 & 1);
	cpuid_query(v, 0xb, 0, r);
	assert_int_equal(r[CPUID_EAX], 0);
	assert_int_equal(r[CPUID_EBX], 1);
	assert_int_equal(r[CPUID_ECX], 0x100);
	assert_int_equal(r[CPUID_EDX], 3);
	cpuid_query(v, 0xb, 1, r);
	assert_int_equal(r[CPUID_EAX], 3); /* 6 ids need 3 bits */
	assert_int_equal(r[CPUID_EBX], 6);
	assert_int_equal(r[CPUID_ECX], 0x201);
	cpuid_query(v, 0xb, 2, r);
	assert_int_equal(r[CPUID_EAX] | r[CPUID_EBX], 0);
	assert_int_equal(r[CPUID_ECX], 2);
	assert_int_equal(r[CPUID_EDX], 3);
}

static void test_out_of_range(void **state)
{
	struct soft_vcpu *v = *state;
	u32 r[4], highest[4];

	cpuid_query(v, 0, 0, r);
	cpuid_query(v, r[CPUID_EAX], 0, highest);
	v->cpuid[0].ebx = signature_INTEL_ebx;
	cpuid_query(v, 0x77, 0, r);
	assert_memory_equal(r, highest, sizeof(r));
	v->cpuid[0].ebx = signature_AMD_ebx;
	cpuid_query(v, 0x77, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

/* Leaf 15H as Linux calculates with it, in 32 bits; the crystal is the LAPIC timer's 1 GHz. */
static void expect_frequency(const u32 *r, u32 khz)
{
	u32 crystal_khz = r[CPUID_ECX] / 1000, product;

	assert_in_range(crystal_khz, 999000, 1001000);
	assert_false(__builtin_mul_overflow(crystal_khz, r[CPUID_EBX], &product));
	assert_in_range(product / r[CPUID_EAX], khz - khz / 1000000 - 1, khz + khz / 1000000);
}

static void test_tsc_frequencies(void **state)
{
	struct soft_vcpu *v = *state;
	static const u32 rows[] = {1000000, 2300000, 3700000, 2593907, 2299998, 1999999, 3400001,
				   800003,  2100500, 2900499, 4292999, 4293000, 5123456, 6000000};
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	u32 r[4];

	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		cpuid->nent = CPUID_MAX;
		assert_int_equal(cpuid_supported(cpuid, rows[n], &v->layout, false), 0);
		assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
		cpuid_query(v, 0x15, 0, r);
		expect_frequency(r, rows[n]);
	}
	free(cpuid);
}

static void test_kvm_leaves_and_clock(void **state)
{
	struct soft_vcpu *v = *state;
	u32 r[4];

	cpuid_query(v, 0x40000000, 0, r);
	assert_int_equal(r[CPUID_EAX], 0x40000001);
	assert_memory_equal(&r[CPUID_EBX], "KVMKVMKVM\0\0\0", 12);
	cpuid_query(v, 0x40000001, 0, r);
	assert_int_equal(r[CPUID_EAX], 1u << 1 | 1u << 3 | 1u << 24);
	cpuid_query(v, 0x15, 0, r);
	expect_frequency(r, clock_tsc_khz());
	cpuid_query(v, 0x16, 0, r);
	assert_int_equal(r[CPUID_EAX], clock_tsc_khz() / 1000);
}

/* A machine that has no timer does not wait for the host's clock: it is told nothing of it. */
static void test_no_clock(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	u32 r[4];

	cpuid->nent = CPUID_MAX;
	assert_int_equal(cpuid_supported(cpuid, 0, &v->layout, false), 0);
	v->tsc_khz = 0;
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
	assert_int_equal(v->tsc_khz, 0);
	cpuid_query(v, 0x40000001, 0, r);
	assert_int_equal(r[CPUID_EAX], 1u << 1);
	cpuid_query(v, 0x15, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);

	cpuid->nent = CPUID_MAX;
	assert_int_equal(cpuid_supported(cpuid, clock_tsc_khz(), &v->layout, false), 0);
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
	assert_int_equal(v->tsc_khz, clock_tsc_khz());
	free(cpuid);
}

static void test_address_width(void **state)
{
	struct soft_vcpu *v = *state;
	u32 r[4];

	cpuid_query(v, 0x80000008, 0, r);
	u32 bits = r[CPUID_EAX] & 0xff;
	assert_in_range(bits, 36, 46);
	assert_int_equal(r[CPUID_EAX] >> 8 & 0xff, 48);
	assert_int_equal(v->reserved_pa, (BIT(52) - 1) & ~(BIT(bits) - 1));
}

static void test_instruction(void **state)
{
	struct soft_vcpu *v = *state;

	v->regs[RAX] = 0xffffffff40000000;
	v->regs[RBX] = v->regs[RDX] = ~0ull;
	v->regs[RCX] = 0xffffffff00000000;
	assert_int_equal(run_op(v, op_cpuid, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->regs[RAX], 0x40000001);
	assert_int_equal(v->regs[RBX], 0x4b4d564b);
	assert_int_equal(v->regs[RDX], 0x4d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_features_ours_are_there),
	    TEST(test_features_never_exceed_the_host),
	    TEST(test_hidden),
	    TEST(test_room),
	    TEST(test_osxsave_and_apic_follow_the_state),
	    TEST(test_xsave_size_follows_xcr0),
	    TEST(test_xsave_of_avx512),
	    TEST(test_avx512_off),
	    TEST(test_topology),
	    TEST(test_out_of_range),
	    TEST(test_tsc_frequencies),
	    TEST(test_kvm_leaves_and_clock),
	    TEST(test_no_clock),
	    TEST(test_address_width),
	    TEST(test_instruction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
