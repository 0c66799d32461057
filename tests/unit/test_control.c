/* Control and debug registers, TLB maintenance, hypercalls, reset. */
#include "tests/unit/state_fixture.h"

#include "engine/soft/system/debug.h"

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

static int write_cr(struct soft_vcpu *v, u8 cr, u64 value)
{
	v->regs[RBX] = value;
	return run_op(v, op_mov_to_cr, (struct insn){.reg = cr, .rm = RBX, .opsize = 8});
}

static int read_cr(struct soft_vcpu *v, u8 cr, u64 *value)
{
	int vector = run_op(v, op_mov_from_cr, (struct insn){.reg = cr, .rm = RDI, .opsize = 8});
	*value = v->regs[RDI];
	return vector;
}

static void test_reset(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(v->cr0, 0x60000010);
	assert_int_equal(v->rip, 0xfff0);
	assert_int_equal(v->seg[SEG_CS].base, 0xffff0000);
	assert_int_equal(vcpu_rflags(v), 2);
	assert_int_equal(v->dr6, 0xffff0ff0);
	assert_int_equal(v->dr7, 0x400);
	assert_int_equal(v->msr.pat, 0x0007040600070406);
	assert_int_equal(v->msr.apic_base, 0xfee00900);
	assert_int_equal(v->xcr0, 1);
	assert_int_equal(v->regs[RDX], v->cpuid[1].eax);
	assert_int_equal(v->mp_state, KVM_MP_STATE_RUNNABLE);
	assert_int_equal(v->fpu[0] | v->fpu[1] << 8, 0x37f);
}

static void test_init_keeps(void **state)
{
	struct soft_vcpu *v = *state;

	enter_long_mode(v);
	v->cr0 |= CR0_CD;
	v->msr.pat = 6;
	v->msr.lstar = 0x1000;
	v->xcr0 = 3;
	v->fpu[0] = 0x11;
	vcpu_reset(v, true);
	assert_int_equal(v->cr0, CR0_ET | CR0_CD);
	assert_int_equal(v->msr.efer, 0);
	assert_int_equal(v->cr4, 0);
	assert_int_equal(v->msr.pat, 6);
	assert_int_equal(v->msr.lstar, 0x1000);
	assert_int_equal(v->xcr0, 3);
	assert_int_equal(v->fpu[0], 0x11);
	v->msr.apic_base &= ~BIT(8);
	vcpu_reset(v, true);
	assert_int_equal(v->mp_state, KVM_MP_STATE_INIT_RECEIVED);
}

static void test_cr_existence_and_privilege(void **state)
{
	struct soft_vcpu *v = *state;
	u64 value;

	for (u8 cr = 0; cr < 16; cr++) {
		bool exists = cr == 0 || cr == 2 || cr == 3 || cr == 4 || cr == 8;
		assert_int_equal(read_cr(v, cr, &value), exists ? NO_FAULT : EXC_UD);
		v->cpl = 3;
		assert_int_equal(read_cr(v, cr, &value), exists ? EXC_GP : EXC_UD);
		assert_int_equal(write_cr(v, cr, 0), exists ? EXC_GP : EXC_UD);
		v->cpl = 0;
	}
}

static void test_cr0_checks(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(write_cr(v, 0, CR0_PG), EXC_GP);	   /* PG without PE */
	assert_int_equal(write_cr(v, 0, CR0_PE | CR0_NW), EXC_GP); /* NW without CD */
	assert_int_equal(write_cr(v, 0, CR0_PE | BIT(32)),
			 NO_FAULT); /* 32 bits outside 64-bit mode */
	assert_int_equal(v->cr0, CR0_PE | CR0_ET);
	assert_int_equal(v->rip, v->next_rip);
	assert_false(set_cr0(v, CR0_PE | BIT(32)));
	assert_true(set_cr0(v, 0x60000000 | BIT(7) | CR0_PE)); /* reserved bit 7 is dropped */
	assert_int_equal(v->cr0, 0x60000000 | CR0_PE | CR0_ET);
}

static void test_paging_forms(void **state)
{
	struct soft_vcpu *v = *state;

	assert_true(set_cr4(v, CR4_PAE));
	world.pdptrs_valid = false;
	assert_false(set_cr0(v, CR0_PE | CR0_PG)); /* reserved bits in a PDPTE */
	assert_false(v->cr0 & CR0_PG);
	world.pdptrs_valid = true;
	world.pdptrs_refused = true; /* what EPT refuses leaves, with nothing changed */
	assert_int_equal(write_cr(v, 0, CR0_PE | CR0_PG), EPT_RAISED);
	assert_false(v->cr0 & CR0_PG);
	world.pdptrs_refused = false;
	u32 flushes = world.flushes_all;
	assert_true(set_cr0(v, CR0_PE | CR0_PG));
	assert_int_equal(world.flushes_all, flushes + 1);
	u32 loads = world.pdptr_loads;
	assert_true(set_cr3(v, 0x5000));
	assert_int_equal(world.pdptr_loads, loads + 1);
	assert_true(set_cr4(v, CR4_PAE | CR4_PGE));
	assert_int_equal(world.pdptr_loads, loads + 2);
	assert_true(set_cr4(v, CR4_PAE | CR4_PGE | CR4_OSFXSR));
	assert_int_equal(world.pdptr_loads, loads + 2);
}

static void test_entering_ia32e(void **state)
{
	struct soft_vcpu *v = *state;

	assert_true(set_efer(v, EFER_LME));
	assert_true(set_cr0(v, CR0_PE));
	assert_false(set_cr0(v, CR0_PE | CR0_PG)); /* without PAE */
	assert_true(set_cr4(v, CR4_PAE));
	v->seg[SEG_CS].access |= SEG_L;
	assert_false(set_cr0(v, CR0_PE | CR0_PG)); /* CS.L */
	v->seg[SEG_CS].access &= ~SEG_L;
	v->tr.access = 0x83;
	assert_false(set_cr0(v, CR0_PE | CR0_PG)); /* 16-bit TSS */
	v->tr.access = 0x8b;
	assert_true(set_cr0(v, CR0_PE | CR0_PG));
	assert_int_equal(v->msr.efer, EFER_LME | EFER_LMA);
	assert_int_equal(world.pdptr_loads, 0);
	assert_false(set_cr4(v, 0));	   /* PAE stays */
	assert_false(set_efer(v, 0));	   /* LME stays */
	assert_false(set_cr3(v, BIT(51))); /* beyond MAXPHYADDR */
	assert_false(set_cr3(v, BIT(63))); /* means nothing without PCIDE */
	assert_true(set_cr0(v, CR0_PE));   /* from compatibility mode */
	assert_int_equal(v->msr.efer, EFER_LME);
}

static void test_leaving_from_64bit_mode(void **state)
{
	struct soft_vcpu *v = *state;

	enter_long_mode(v);
	assert_int_equal(write_cr(v, 0, CR0_PE), EXC_GP);
	assert_int_equal(write_cr(v, 0, v->cr0 | BIT(32)), EXC_GP);
}

static void test_pcid(void **state)
{
	struct soft_vcpu *v = *state;

	assert_false(set_cr4(v, CR4_PCIDE)); /* only in IA-32e mode */
	enter_long_mode(v);
	assert_true(set_cr3(v, 0x5001));
	assert_false(set_cr4(v, v->cr4 | CR4_PCIDE)); /* CR3[11:0] is not 0 */
	assert_true(set_cr3(v, 0x5000));
	assert_true(set_cr4(v, v->cr4 | CR4_PCIDE));
	assert_true(set_cr3(v, 0x5003 | CR3_NOFLUSH));
	assert_int_equal(v->cr3, 0x5003);
	assert_int_equal(world.switches, 1);
	assert_true(world.switch_kept);
	assert_true(set_cr3(v, 0x5003));
	assert_int_equal(world.switches, 2);
	assert_false(world.switch_kept);
	v->seg[SEG_CS].access &= ~SEG_L;
	assert_false(set_cr0(v, CR0_PE)); /* PG with PCIDE */
	u32 flushes = world.flushes_all;
	assert_true(set_cr4(v, v->cr4 & ~CR4_PCIDE));
	assert_int_equal(world.flushes_all, flushes + 1);
}

static void test_cr4_reserved(void **state)
{
	struct soft_vcpu *v = *state;

	assert_false(set_cr4(v, CR4_LA57));
	assert_false(set_cr4(v, CR4_VMXE));
	assert_false(set_cr4(v, CR4_PKE));
	assert_false(set_cr4(v, BIT(31)));
	assert_true(set_cr4(v, CR4_SMEP | CR4_SMAP | CR4_UMIP | CR4_FSGSBASE | CR4_PCE));
	for (u32 n = 0; n < v->cpuid_count; n++)
		if (v->cpuid[n].function == 7)
			v->cpuid[n].ebx = 0;
	assert_false(set_cr4(v, CR4_SMEP));
}

static void test_cr8(void **state)
{
	struct soft_vcpu *v = *state;
	u64 value;

	enter_long_mode(v);
	assert_int_equal(write_cr(v, 8, 16), EXC_GP);
	assert_int_equal(write_cr(v, 8, 9), NO_FAULT);
	assert_int_equal(read_cr(v, 8, &value), NO_FAULT);
	assert_int_equal(value, 9);
	v->lapic = (struct lapic *)&world;
	assert_int_equal(write_cr(v, 8, 5), NO_FAULT);
	assert_int_equal(world.tpr, 5);
}

static void test_xcr0(void **state)
{
	struct soft_vcpu *v = *state;

	enter_long_mode(v);
	v->regs[RCX] = v->regs[RDX] = 0;
	v->regs[RAX] = 2;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP); /* without x87 */
	v->regs[RAX] = 5;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP); /* AVX without SSE */
	v->regs[RAX] = 0x67;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP); /* a part of AVX-512 */
	v->regs[RAX] = 0xe3;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP); /* it without AVX */
	v->regs[RAX] = 0x207;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP); /* PKRU */
	v->regs[RAX] = 3;
	v->regs[RCX] = 1;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP);
	v->regs[RCX] = 0;
	v->cpl = 3;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), EXC_GP);
	v->cpl = 0;
	assert_int_equal(run_op(v, op_xsetbv, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->xcr0, 3);
	v->cpl = 3;
	assert_int_equal(run_op(v, op_xgetbv, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->regs[RAX], 3);
	v->cr4 &= ~CR4_OSXSAVE;
	assert_int_equal(run_op(v, op_xgetbv, (struct insn){0}), EXC_UD);
}

static void test_machine_status_word(void **state)
{
	struct soft_vcpu *v = *state;
	struct insn i = {.rm = RSI, .opsize = 4};

	v->regs[RSI] = 0xffff;
	assert_int_equal(run_op(v, op_lmsw, i), NO_FAULT);
	assert_int_equal(v->cr0, 0x60000010 | 0xf);
	v->regs[RSI] = 0;
	assert_int_equal(run_op(v, op_lmsw, i), NO_FAULT);
	assert_int_equal(v->cr0, 0x60000010 | CR0_PE); /* PE stays */
	assert_int_equal(run_op(v, op_smsw, i), NO_FAULT);
	assert_int_equal(v->regs[RSI], v->cr0);
	v->cpl = 3;
	assert_int_equal(run_op(v, op_smsw, i), NO_FAULT);
	v->cr4 |= CR4_UMIP;
	assert_int_equal(run_op(v, op_smsw, i), EXC_GP);
	assert_int_equal(run_op(v, op_lmsw, i), EXC_GP);
	assert_int_equal(run_op(v, op_clts, i), EXC_GP);
	v->cpl = 0;
	v->cr0 |= CR0_TS;
	assert_int_equal(run_op(v, op_clts, i), NO_FAULT);
	assert_false(v->cr0 & CR0_TS);
}

static int write_dr(struct soft_vcpu *v, u8 dr, u64 value)
{
	v->regs[RBX] = value;
	return run_op(v, op_mov_to_dr, (struct insn){.reg = dr, .rm = RBX, .opsize = 8});
}

static void test_debug_registers(void **state)
{
	struct soft_vcpu *v = *state;

	enter_long_mode(v);
	assert_int_equal(write_dr(v, 6, BIT(32)), EXC_GP);
	assert_int_equal(write_dr(v, 7, BIT(63)), EXC_GP);
	assert_int_equal(write_dr(v, 8, 0), EXC_UD);
	assert_int_equal(write_dr(v, 6, 0xffffffff), NO_FAULT);
	assert_int_equal(v->dr6, 0xffffeffful & ~0x1000ul);
	assert_int_equal(write_dr(v, 5, 0x5), NO_FAULT); /* alias of DR7 */
	assert_int_equal(v->dr7, 0x405);
	v->cr4 |= CR4_DE;
	assert_int_equal(write_dr(v, 5, 0), EXC_UD);
	assert_int_equal(write_dr(v, 7, DR7_GD), NO_FAULT);
	v->dr6 = DR6_FIXED1;
	assert_int_equal(write_dr(v, 0, 0x1000), EXC_DB);
	assert_true(v->dr6 & DR6_BD);
	v->cpl = 3;
	assert_int_equal(write_dr(v, 0, 0x1000), EXC_GP); /* before general detect */
}

static void test_breakpoints(void **state)
{
	struct soft_vcpu *v = *state;

	assert_true(set_dr(v, 0, 0x1000));
	assert_true(set_dr(v, 1, 0x2004));
	assert_true(set_dr(v, 2, 0x3000));
	assert_true(set_dr(v, 3, 0x60));
	/* 0: execute; 1: write, 4 bytes; 2: access, 8 bytes; 3: I/O, 2 ports */
	assert_true(set_dr(v, 7, 0x55 | 0xd0000 << 4 | 0xb0000ull << 8 | 0x60000000));
	assert_true(debug_armed(v));
	assert_int_equal(debug_breakpoints_hit(v, 0x1000), 1);
	assert_int_equal(debug_breakpoints_hit(v, 0x1001), 0);
	assert_int_equal(debug_data_hit(v, 0x2007, 1, true), 2);
	assert_int_equal(debug_data_hit(v, 0x2007, 1, false), 0);
	assert_int_equal(debug_data_hit(v, 0x2008, 8, true), 0);
	assert_int_equal(debug_data_hit(v, 0x2000, 8, true), 2);
	assert_int_equal(debug_data_hit(v, 0x2ffc, 8, false), 4);
	assert_int_equal(debug_data_hit(v, 0x1000, 8, true), 0);
	assert_int_equal(debug_port_hit(v, 0x61, 1), 0); /* CR4.DE is clear */
	v->cr4 |= CR4_DE;
	assert_int_equal(debug_port_hit(v, 0x61, 1), 8);
	assert_int_equal(debug_port_hit(v, 0x62, 1), 0);
	assert_true(debug_page_watched(v, 0x2fff));
	assert_false(debug_page_watched(v, 0x1000));
	assert_true(world.flushes_all > 1);
}

static int invpcid(struct soft_vcpu *v, u64 type, u64 pcid, u64 linear)
{
	v->regs[RBX] = type;
	*(u64 *)world.memory = pcid;
	*(u64 *)(world.memory + 8) = linear;
	return run_op(v, op_invpcid, (struct insn){.reg = RBX, .is_mem = true, .seg = SEG_DS});
}

static void test_invalidation(void **state)
{
	struct soft_vcpu *v = *state;
	struct insn i = {.is_mem = true, .seg = SEG_DS, .disp = 0x12345};

	enter_long_mode(v);
	assert_int_equal(run_op(v, op_invlpg, i), NO_FAULT);
	assert_int_equal(world.flushed_page, 0x12345);
	i.disp = (s64)0x0000900000000000;
	assert_int_equal(run_op(v, op_invlpg, i), NO_FAULT); /* not canonical: nothing */
	assert_int_equal(world.page_flushes, 1);

	assert_int_equal(invpcid(v, 4, 0, 0), EXC_GP);
	assert_int_equal(invpcid(v, 0, 0x1000, 0), EXC_GP);
	assert_int_equal(invpcid(v, 0, 5, 0), EXC_GP); /* PCIDE is clear */
	assert_int_equal(invpcid(v, 0, 0, 0x900000000000), EXC_GP);
	assert_int_equal(invpcid(v, 0, 0, 0x7000), NO_FAULT);
	assert_int_equal(world.flushed_page, 0x7000);
	v->cr4 |= CR4_PCIDE;
	assert_int_equal(invpcid(v, 0, 5, 0x8000), NO_FAULT); /* another's: all of it */
	assert_int_equal(world.flushed_page, 0x7000);
	assert_int_equal(world.flushed_pcid, 5);
	assert_int_equal(invpcid(v, 1, 6, 0), NO_FAULT);
	assert_int_equal(world.flushed_pcid, 6);
	u32 all = world.flushes_all;
	assert_int_equal(invpcid(v, 3, 0, 0), NO_FAULT);
	assert_int_equal(world.flushes_all, all);
	assert_int_equal(invpcid(v, 2, 0, 0), NO_FAULT);
	assert_int_equal(world.flushes_all, all + 1);
	v->cpl = 3;
	assert_int_equal(invpcid(v, 2, 0, 0), EXC_GP);
	assert_int_equal(run_op(v, op_invlpg, i), EXC_GP);
	assert_int_equal(run_op(v, op_wbinvd, i), EXC_GP);
}

static void test_ac(void **state)
{
	struct soft_vcpu *v = *state;

	assert_int_equal(run_op(v, op_stac, (struct insn){0}), NO_FAULT);
	assert_true(vcpu_rflags(v) & RFLAGS_AC);
	assert_int_equal(run_op(v, op_clac, (struct insn){0}), NO_FAULT);
	assert_false(vcpu_rflags(v) & RFLAGS_AC);
	v->cpl = 1;
	assert_int_equal(run_op(v, op_stac, (struct insn){0}), EXC_UD);
}

static void test_hypercall(void **state)
{
	struct soft_vcpu *v = *state;

	enter_long_mode(v);
	v->regs[RAX] = 99;
	assert_int_equal(run_op(v, op_hypercall, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->regs[RAX], (u64)-1000);
	v->cpl = 3;
	assert_int_equal(run_op(v, op_hypercall, (struct insn){0}), NO_FAULT);
	assert_int_equal(v->regs[RAX], (u64)-1);
	for (u32 n = 0; n < v->cpuid_count; n++)
		if (v->cpuid[n].function == 0x40000000)
			v->cpuid[n].ebx = 0;
	assert_int_equal(run_op(v, op_hypercall, (struct insn){0}), EXC_UD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_reset),
	    TEST(test_init_keeps),
	    TEST(test_cr_existence_and_privilege),
	    TEST(test_cr0_checks),
	    TEST(test_paging_forms),
	    TEST(test_entering_ia32e),
	    TEST(test_leaving_from_64bit_mode),
	    TEST(test_pcid),
	    TEST(test_cr4_reserved),
	    TEST(test_cr8),
	    TEST(test_xcr0),
	    TEST(test_machine_status_word),
	    TEST(test_debug_registers),
	    TEST(test_breakpoints),
	    TEST(test_invalidation),
	    TEST(test_ac),
	    TEST(test_hypercall),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
