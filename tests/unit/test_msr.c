/* MSRs: which exist, what may be written, what a write does; the instructions next to them. */
#include "tests/unit/state_fixture.h"

#include <errno.h>

#include "engine/soft/system/msr.h"

#define NONCANONICAL 0xaaaaaaaaaaaaaaaaull
#define ADDRESS	     0xffffaaaabbbbc000ull

static int setup(void **state)
{
	*state = vcpu_new();
	enter_long_mode(*state);
	return 0;
}

static int teardown(void **state)
{
	vcpu_free(*state);
	return 0;
}

static void test_table_sorted(void **state)
{
	assert_true(msr_table_sorted());
	assert_string_equal(msr_name(0xc0000080), "EFER");
	assert_string_equal(msr_name(0x20f), "MTRR_PHYS");
	assert_null(msr_name(0x210));
	assert_null(msr_name(0));
	assert_null(msr_name(~0u));
}

/* Values that must come back as they were written. */
static void test_kept(void **state)
{
	static const struct {
		u32 index;
		u64 value;
	} kept[] = {
	    {.index = 0x174, .value = 0x1234},
	    {.index = 0x175, .value = ADDRESS},
	    {.index = 0x176, .value = ADDRESS},
	    {.index = 0x1a0, .value = 0x400c51889},
	    {.index = 0x277, .value = 0x0706050401000706},
	    {.index = 0xc0000081, .value = 0x0023001000000000},
	    {.index = 0xc0000082, .value = ADDRESS},
	    {.index = 0xc0000083, .value = ADDRESS},
	    {.index = 0xc0000084, .value = 0x47700},
	    {.index = 0xc0000100, .value = ADDRESS},
	    {.index = 0xc0000101, .value = ADDRESS},
	    {.index = 0xc0000102, .value = ADDRESS},
	    {.index = 0xc0000103, .value = 0x1005},
	    {.index = 0x200, .value = 0x80000006},
	    {.index = 0x20f, .value = 0xf80000800},
	    {.index = 0x250, .value = 0x0606060606060606},
	    {.index = 0x259, .value = 0x0506040100060606},
	    {.index = 0x26f, .value = 0x0505050505050505},
	    {.index = 0x2ff, .value = 0xc06},
	    {.index = 0x48, .value = 1},
	    {.index = 0x17b, .value = ~0ull},
	    {.index = 0x400, .value = ~0ull},
	    {.index = 0x427, .value = 0x1234},
	    {.index = 0x808, .value = 0x20},
	    {.index = 0x6e0, .value = 123456789},
	    {.index = 0x4b564d01, .value = 0x1001},
	};
	struct soft_vcpu *v = *state;
	u64 value;

	for (u32 n = 0; n < ARRAY_SIZE(kept); n++) {
		if (guest_wrmsr(v, kept[n].index, kept[n].value) != NO_FAULT)
			fail_msg("WRMSR %#x faults", kept[n].index);
		if (guest_rdmsr(v, kept[n].index, &value) != NO_FAULT || value != kept[n].value)
			fail_msg("RDMSR %#x: %#lx", kept[n].index, (unsigned long)value);
	}
}

static void test_refused(void **state)
{
	static const struct {
		u32 index;
		u64 value;
	} refused[] = {
	    {.index = 0}, /* no such register */
	    {.index = 0xc0000104},
	    {.index = 0x10a}, /* read-only */
	    {.index = 0xfe},
	    {.index = 0x48, .value = 8}, /* reserved bits */
	    {.index = 0x49, .value = 2},
	    {.index = 0x1d9, .value = BIT(40)},
	    {.index = 0x174, .value = BIT(32)},
	    {.index = 0xc0000084, .value = BIT(32)},
	    {.index = 0xc0000103, .value = BIT(32)},
	    {.index = 0x175, .value = NONCANONICAL},
	    {.index = 0x176, .value = NONCANONICAL},
	    {.index = 0xc0000082, .value = NONCANONICAL},
	    {.index = 0xc0000083, .value = NONCANONICAL},
	    {.index = 0xc0000100, .value = NONCANONICAL},
	    {.index = 0xc0000101, .value = NONCANONICAL},
	    {.index = 0xc0000102, .value = NONCANONICAL},
	    {.index = 0x277, .value = 2}, /* memory type */
	    {.index = 0x277, .value = 8ull << 56},
	    {.index = 0x250, .value = 7},
	    {.index = 0x200, .value = 3},
	    {.index = 0x200, .value = 0x106},
	    {.index = 0x201, .value = 0x400},
	    {.index = 0x201, .value = BIT(51)},
	    {.index = 0x2ff, .value = 0x1006},
	    {.index = 0x400, .value = 5}, /* machine check */
	    {.index = 0x401, .value = 1},
	    {.index = 0x400 + 4 * MC_BANKS, .value = 0},
	    {.index = 0x17a, .value = 8},
	    {.index = 0xc0000080, .value = BIT(1)},   /* EFER */
	    {.index = 0xc0000080, .value = EFER_SCE}, /* LME with paging on */
	    {.index = 0x1b, .value = 0xfee00a00},     /* APIC_BASE bit 9 */
	    {.index = 0x809, .value = 0},
	};
	struct soft_vcpu *v = *state;

	for (u32 n = 0; n < ARRAY_SIZE(refused); n++)
		if (guest_wrmsr(v, refused[n].index, refused[n].value) != EXC_GP || world.error)
			fail_msg("WRMSR %#x, %#lx is let through", refused[n].index,
				 (unsigned long)refused[n].value);
}

static void test_privilege(void **state)
{
	struct soft_vcpu *v = *state;
	u64 value;

	v->cpl = 3;
	assert_int_equal(guest_rdmsr(v, 0xc0000080, &value), EXC_GP);
	assert_int_equal(guest_wrmsr(v, 0xc0000103, 1), EXC_GP);
	assert_int_equal(run_op(v, op_swapgs, (struct insn){0}), EXC_GP);
	assert_int_equal(run_op(v, op_rdpmc, (struct insn){0}), EXC_GP);
}

static void test_told_by_cpuid(void **state)
{
	struct soft_vcpu *v = *state;
	u64 value;

	v->lapic = (struct lapic *)&world;
	for (u32 n = 0; n < v->cpuid_count; n++)
		if (v->cpuid[n].function == 7 || v->cpuid[n].function == 0x40000001)
			v->cpuid[n].eax = v->cpuid[n].ebx = v->cpuid[n].edx = 0;
	assert_int_equal(guest_rdmsr(v, 0x10a, &value), EXC_GP);
	assert_int_equal(guest_wrmsr(v, 0x48, 0), EXC_GP);
	assert_int_equal(guest_wrmsr(v, 0x3b, 0), EXC_GP);
	assert_int_equal(guest_wrmsr(v, 0x4b564d01, 0), EXC_GP);
	assert_int_equal(msr_read(v, 0x10a, &value, true), 0); /* the monitor may */
}

static void test_result_halves(void **state)
{
	struct soft_vcpu *v = *state;

	v->msr.lstar = ADDRESS;
	v->regs[RCX] = 0xffffffffc0000082; /* the upper half of RCX is not looked at */
	assert_int_equal(run_op(v, op_rdmsr, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->regs[RAX], (u32)ADDRESS);
	assert_int_equal(v->regs[RDX], ADDRESS >> 32);
	assert_int_equal(guest_wrmsr(v, 0xc0000082, 0), NO_FAULT);
	assert_int_equal(v->rip, v->next_rip);
}

static void test_tsc_and_adjust(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(guest_tsc(v), 0); /* RESET */
	world.tsc += 500;
	assert_int_equal(guest_wrmsr(v, 0x10, 10500), NO_FAULT);
	assert_int_equal(guest_tsc(v), 10500);
	assert_int_equal(v->msr.tsc_adjust, 10000);
	assert_int_equal(guest_wrmsr(v, 0x3b, 0), NO_FAULT);
	assert_int_equal(guest_tsc(v), 500);
	assert_true(atomic_load(&v->attention) & ATTENTION_TIMER);
	/* The monitor's writes leave the pair alone. */
	assert_int_equal(msr_write(v, 0x10, 77, true), 0);
	assert_int_equal(guest_tsc(v), 77);
	assert_int_equal(v->msr.tsc_adjust, 0);
}

static void test_tsc_in_step(void **state)
{
	struct soft_vcpu *first = *state;
	struct soft_vcpu *second = *state;

	/* A second vCPU of the same VM, set by the monitor some ticks later. */
	second = vcpu_new();
	second->vm->vcpus[0] = first;
	first->vm = second->vm;
	assert_int_equal(msr_write(first, 0x10, 0, true), 0);
	world.tsc += 12345;
	assert_int_equal(msr_write(second, 0x10, 0, true), 0);
	assert_int_equal(guest_tsc(second), guest_tsc(first));
	/* Far apart is meant. */
	assert_int_equal(msr_write(second, 0x10, BIT(50), true), 0);
	assert_int_equal(guest_tsc(second), BIT(50));
	vcpu_free(second);
}

static void test_efer_lma_is_read_only(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(guest_wrmsr(v, 0xc0000080, EFER_LME | EFER_SCE | EFER_NXE), NO_FAULT);
	assert_int_equal(v->msr.efer, EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE);
	assert_true(world.flushes_all > 0); /* NXE changed */
}

static void test_bases(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(guest_wrmsr(v, 0xc0000100, 0x1000), NO_FAULT);
	assert_int_equal(guest_wrmsr(v, 0xc0000101, 0x2000), NO_FAULT);
	assert_int_equal(guest_wrmsr(v, 0xc0000102, 0x3000), NO_FAULT);
	assert_int_equal(v->seg_base_fs, 0x1000);
	assert_int_equal(v->seg_base_gs, 0x2000);
	assert_int_equal(run_op(v, op_swapgs, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->seg_base_gs, 0x3000);
	assert_int_equal(v->seg[SEG_GS].base, 0x3000);
	assert_int_equal(v->msr.kernel_gs_base, 0x2000);

	struct insn i = {.rm = RDX, .opsize = 8};
	assert_int_equal(run_op(v, op_rdgsbase, i), EXC_UD); /* CR4.FSGSBASE is clear */
	v->cr4 |= CR4_FSGSBASE;
	assert_int_equal(run_op(v, op_rdgsbase, i), NO_FAULT);
	assert_int_equal(v->regs[RDX], 0x3000);
	v->regs[RDX] = NONCANONICAL;
	assert_int_equal(run_op(v, op_wrfsbase, i), EXC_GP);
	i.opsize = 4;
	assert_int_equal(run_op(v, op_wrfsbase, i), NO_FAULT);
	assert_int_equal(v->seg_base_fs, (u32)NONCANONICAL);
	v->seg[SEG_CS].access = 0xc09b;
	assert_int_equal(run_op(v, op_swapgs, (struct insn){0}), EXC_UD);
	assert_int_equal(run_op(v, op_wrfsbase, i), EXC_UD);
}

static void test_rdtsc(void **state)
{
	struct soft_vcpu *v = *state;

	world.tsc += 0x500000007;
	v->msr.tsc_aux = 42;
	assert_int_equal(run_op(v, op_rdtscp, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->regs[RAX], 7);
	assert_int_equal(v->regs[RDX], 5);
	assert_int_equal(v->regs[RCX], 42);
	assert_int_equal(run_op(v, op_rdpid, (struct insn){.rm = RSI}), NO_FAULT);
	assert_int_equal(v->regs[RSI], 42);
	v->cr4 |= CR4_TSD;
	assert_int_equal(run_op(v, op_rdtsc, (struct insn){0}), NO_FAULT);
	v->cpl = 3;
	assert_int_equal(run_op(v, op_rdtsc, (struct insn){0}), EXC_GP);
	assert_int_equal(run_op(v, op_rdtscp, (struct insn){0}), EXC_GP);
	v->cr4 &= ~CR4_TSD;
	assert_int_equal(run_op(v, op_rdtsc, (struct insn){0}), NO_FAULT);
}

static void test_kvmclock(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(guest_wrmsr(v, 0x4b564d01, 0x2001), NO_FAULT);
	assert_int_equal(world.clock_updates, 1);
	assert_int_equal(guest_wrmsr(v, 0x4b564d01, 0), NO_FAULT);
	assert_int_equal(world.clock_updates, 1);
	assert_int_equal(guest_wrmsr(v, 0x4b564d00, 0x3000), NO_FAULT);
	assert_int_equal(world.clock_updates, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int setup_lapic(void **state)
{
	setup(state);
	((struct soft_vcpu *)*state)->lapic = (struct lapic *)&world;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_table_sorted),
	    cmocka_unit_test_setup_teardown(test_kept, setup_lapic, teardown),
	    cmocka_unit_test_setup_teardown(test_refused, setup_lapic, teardown),
	    TEST(test_privilege),
	    TEST(test_told_by_cpuid),
	    TEST(test_result_halves),
	    TEST(test_tsc_and_adjust),
	    TEST(test_tsc_in_step),
	    TEST(test_efer_lma_is_read_only),
	    TEST(test_bases),
	    TEST(test_rdtsc),
	    TEST(test_kvmclock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
