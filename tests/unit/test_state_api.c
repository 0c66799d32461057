/* KVM's register structures over the soft vCPU. */
#include "tests/unit/state_fixture.h"

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

static void test_regs(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_regs set = {.rax = 1,
			       .rbx = 2,
			       .rcx = 3,
			       .rdx = 4,
			       .rsi = 5,
			       .rdi = 6,
			       .rsp = 7,
			       .rbp = 8,
			       .r8 = 9,
			       .r15 = 10,
			       .rip = 0x1234,
			       .rflags = 0x8d7 | RFLAGS_IF | 2};
	struct kvm_regs got;

	assert_int_equal(soft_set_regs(&v->base, &set), 0);
	assert_int_equal(v->regs[RBX], 2);
	assert_int_equal(v->regs[RSP], 7);
	assert_int_equal(v->regs[RSI], 5);
	assert_int_equal(v->rflags_sys & RFLAGS_CF, 0); /* the arithmetic flags are parked apart */
	assert_int_equal(soft_get_regs(&v->base, &got), 0);
	assert_memory_equal(&got, &set, sizeof(set));
}

static void test_cpl_follows(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_regs regs = {.rflags = 2};
	struct kvm_sregs sregs;

	soft_get_sregs(&v->base, &sregs);
	sregs.cr0 |= CR0_PE;
	sregs.ss.dpl = 3;
	assert_int_equal(soft_set_sregs(&v->base, &sregs), 0);
	assert_int_equal(v->cpl, 3);
	sregs.ss.dpl = 0;
	assert_int_equal(soft_set_sregs(&v->base, &sregs), 0);
	assert_int_equal(v->cpl, 0);
	regs.rflags |= RFLAGS_VM;
	assert_int_equal(soft_set_regs(&v->base, &regs), 0);
	assert_int_equal(v->cpl, 3);
}

static void long_mode(struct kvm_sregs *s)
{
	s->cr0 = CR0_PE | CR0_PG | CR0_ET;
	s->cr3 = 0x3000;
	s->cr4 = CR4_PAE | CR4_PGE;
	s->efer = EFER_LME | EFER_LMA | EFER_NXE;
	s->cs = (struct kvm_segment){
	    .selector = 8, .limit = ~0u, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	s->fs = (struct kvm_segment){.base = 0x7000, .unusable = 1};
	s->apic_base = 0xfee00d00;
	s->cr8 = 3;
}

static void test_sregs(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_sregs set, got;

	soft_get_sregs(&v->base, &set);
	assert_int_equal(set.cs.base, 0xffff0000);
	assert_int_equal(set.tr.type, 11);
	assert_int_equal(set.ldt.type, 2);
	long_mode(&set);
	set.interrupt_bitmap[1] = BIT(5);
	u32 flushes = world.flushes_all;
	assert_int_equal(soft_set_sregs(&v->base, &set), 0);
	assert_int_equal(v->seg[SEG_CS].access, 0xa09b);
	assert_true(v->seg[SEG_FS].access & SEG_UNUSABLE);
	assert_int_equal(v->seg_base_fs, 0x7000);
	assert_int_equal(v->events.user_vector, 69);
	assert_true(v->events.user_interrupt);
	assert_int_equal(world.flushes_all, flushes + 1);
	assert_int_equal(soft_get_sregs(&v->base, &got), 0);
	assert_memory_equal(&got, &set, sizeof(set));
	assert_int_equal(world.pdptr_loads, 0);
	set.efer = 0;
	set.cs.l = 0;
	assert_int_equal(soft_set_sregs(&v->base, &set), 0);
	assert_int_equal(world.pdptr_loads, 1); /* PAE paging */
}

static void test_impossible_sregs(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_sregs good, before, after, s;

	soft_get_sregs(&v->base, &before);
	good = before;
	long_mode(&good);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		s = good;                                                                          \
		change;                                                                            \
		if (soft_set_sregs(&v->base, &s) != -EINVAL)                                       \
			fail_msg("%s is let through", #change);                                    \
	} while (0)
	REFUSED(s.cr0 &= ~CR0_PE);
	REFUSED(s.cr0 |= BIT(40));
	REFUSED(s.cr0 |= CR0_NW);
	REFUSED(s.cr4 |= CR4_VMXE);
	REFUSED(s.cr4 &= ~CR4_PAE);
	REFUSED(s.efer &= ~EFER_LMA);
	REFUSED(s.efer &= ~EFER_LME);
	REFUSED(s.efer |= BIT(12));
	REFUSED(s.cr3 |= BIT(51));
	REFUSED(s.cr8 = 16);
	REFUSED(s.cs.db = 1);
	REFUSED(s.gdt.base = BIT(60));
	REFUSED(s.apic_base |= 1);
#undef REFUSED
	soft_get_sregs(&v->base, &after);
	assert_memory_equal(&after, &before, sizeof(after));
}

static void test_fpu(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_fpu set, got;
	struct kvm_xsave xsave;

	soft_get_fpu(&v->base, &got);
	assert_int_equal(got.fcw, 0x37f);
	assert_int_equal(got.mxcsr, 0x1f80);
	memset(&set, 0, sizeof(set));
	set.fcw = 0x27f;
	set.fsw = 0x3800;
	set.ftwx = 0x80;
	set.mxcsr = 0x1fa0;
	memset(set.fpr[7], 0x5a, 10);
	memset(set.xmm[15], 0xa5, 16);
	assert_int_equal(soft_set_fpu(&v->base, &set), 0);
	assert_int_equal(soft_get_fpu(&v->base, &got), 0);
	assert_memory_equal(&got, &set, sizeof(set));
	soft_get_xsave(&v->base, &xsave);
	assert_int_equal(xsave.region[XSAVE_BV / 4], 3);
	set.mxcsr = BIT(30);
	assert_int_equal(soft_set_fpu(&v->base, &set), -EINVAL);
}

static void test_xsave(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_xsave set, got;
	u8 *image = (u8 *)set.region;

	memset(&set, 0, sizeof(set));
	*(u16 *)image = 0x37f;
	*(u32 *)(image + FX_MXCSR) = 0x1f80;
	memset(image + XSAVE_AVX_OFFSET, 0x77, XSAVE_AVX_SIZE);
	*(u64 *)(image + XSAVE_BV) = 4;
	assert_int_equal(soft_set_xsave(&v->base, &set), 0);
	/* What is not in use is spelled out, whatever lies in the buffer; host pointers never show.
	 */
	memset(v->fpu + FX_XMM, 0x99, 16);
	*(u64 *)(v->fpu + FX_FDP) = 0x7f1234567000;
	assert_int_equal(soft_get_xsave(&v->base, &got), 0);
	assert_memory_equal(&got, &set, sizeof(set));
	*(u64 *)(v->fpu + XSAVE_BV) = 5;
	*(u64 *)(v->fpu + FX_FIP) = 0x7f1234567000;
	soft_get_xsave(&v->base, &got);
	assert_int_equal(*(u64 *)((u8 *)got.region + FX_FIP), 0x1234567890);
	assert_int_equal(*(u64 *)((u8 *)got.region + FX_FDP), 0);

	*(u64 *)(image + XSAVE_BV) = 0x200;
	assert_int_equal(soft_set_xsave(&v->base, &set), -EINVAL);
	for_each_section(n, v->layout.offered)
	{
		u32 at = xstate_section_offset(&v->layout, 0, n);
		memset(image + at, (int)n, xstate_section_size(n));
	}
	*(u64 *)(image + XSAVE_BV) = v->layout.offered & ~3ull;
	assert_int_equal(soft_set_xsave(&v->base, &set), 0);
	assert_int_equal(soft_get_xsave(&v->base, &got), 0);
	assert_memory_equal(&got, &set, sizeof(set));
	*(u64 *)(image + XSAVE_BV) = 4;
	*(u64 *)(image + XSAVE_COMP_BV) = BIT(63) | 4;
	assert_int_equal(soft_set_xsave(&v->base, &set), -EINVAL);
}

static void test_xcrs(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = 3};

	assert_int_equal(soft_set_xcrs(&v->base, &xcrs), 0);
	memset(&xcrs, 0, sizeof(xcrs));
	soft_get_xcrs(&v->base, &xcrs);
	assert_int_equal(xcrs.nr_xcrs, 1);
	assert_int_equal(xcrs.xcrs[0].value, 3);
	xcrs.xcrs[0].value = 4;
	assert_int_equal(soft_set_xcrs(&v->base, &xcrs), -EINVAL);
	xcrs.nr_xcrs = 1000;
	assert_int_equal(soft_set_xcrs(&v->base, &xcrs), -EINVAL);
}

static void test_msrs_count(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + 3 * sizeof(msrs->entries[0]));

	msrs->nmsrs = 3;
	msrs->entries[0] = (struct kvm_msr_entry){.index = 0xc0000082, .data = 0x1000};
	msrs->entries[1] = (struct kvm_msr_entry){.index = 0x12345};
	msrs->entries[2] = (struct kvm_msr_entry){.index = 0xc0000083, .data = 0x2000};
	assert_int_equal(soft_set_msrs(&v->base, msrs), 1);
	assert_int_equal(v->msr.lstar, 0x1000);
	assert_int_equal(v->msr.cstar, 0);
	msrs->entries[0].data = 0;
	assert_int_equal(soft_get_msrs(&v->base, msrs), 1);
	assert_int_equal(msrs->entries[0].data, 0x1000);
	free(msrs);
}

static void test_cpuid_room(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + sizeof(cpuid->entries[0]) * 2);

	cpuid->nent = CPUID_MAX + 1;
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), -E2BIG);
	cpuid->nent = 2;
	cpuid->entries[0] = (struct kvm_cpuid_entry2){.function = 0x80000000, .eax = 0x80000008};
	cpuid->entries[1] = (struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 0x3028};
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
	assert_int_equal(v->reserved_pa, 0xfff0000000000);
	cpuid->nent = 1;
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
	assert_int_equal(v->reserved_pa, 0xffff000000000); /* 36 bits, when not told */
	free(cpuid);
}

static void test_events(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_vcpu_events ev = {0}, got;

	ev.exception.injected = 1;
	ev.exception.nr = EXC_PF;
	ev.exception.has_error_code = 1;
	ev.exception.error_code = 6;
	ev.nmi.pending = 1;
	ev.nmi.masked = 1;
	ev.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	ev.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	v->cr2 = 0x5000;
	assert_int_equal(soft_set_events(&v->base, &ev), 0);
	assert_int_equal(v->events.exception_cr2, 0x5000);
	assert_int_equal(v->int_shadow, 2);
	assert_int_equal(soft_get_events(&v->base, &got), 0);
	assert_memory_equal(&got, &ev, sizeof(ev));

	memset(&ev, 0, sizeof(ev));
	ev.interrupt.injected = 1;
	ev.interrupt.nr = 0x30;
	assert_int_equal(soft_set_events(&v->base, &ev), 0);
	assert_false(v->events.exception);
	assert_true(v->events.user_interrupt);
	assert_int_equal(v->int_shadow, 2); /* not valid in flags: unchanged */
	soft_get_events(&v->base, &got);
	assert_int_equal(got.interrupt.nr, 0x30);
	ev.interrupt.soft = 1;
	assert_int_equal(soft_set_events(&v->base, &ev), 0);
	assert_true(v->events.soft_interrupt);
	assert_int_equal(v->events.soft_length, 2);

	ev.exception.injected = 1;
	ev.exception.nr = 32;
	assert_int_equal(soft_set_events(&v->base, &ev), -EINVAL);
	ev.exception.nr = EXC_NMI;
	assert_int_equal(soft_set_events(&v->base, &ev), -EINVAL);
}

static void test_debugregs(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_debugregs set = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff1, .dr7 = 0x401}, got;

	assert_int_equal(soft_set_debugregs(&v->base, &set), 0);
	soft_get_debugregs(&v->base, &got);
	assert_memory_equal(&got, &set, sizeof(set));
	set.dr7 |= BIT(32);
	assert_int_equal(soft_set_debugregs(&v->base, &set), -EINVAL);
}

static void test_mp_state(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_HALTED};

	assert_int_equal(soft_set_mp_state(&v->base, &mp), 0);
	mp.mp_state = 99;
	assert_int_equal(soft_set_mp_state(&v->base, &mp), -EINVAL);
	mp.mp_state = KVM_MP_STATE_INIT_RECEIVED; /* no LAPIC, no SIPI */
	assert_int_equal(soft_set_mp_state(&v->base, &mp), -EINVAL);
	soft_get_mp_state(&v->base, &mp);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_HALTED);
}

static void test_translate(void **state)
{
	struct soft_vcpu *v = *state;
	struct kvm_translation tr = {.linear_address = 0x2345};

	assert_int_equal(soft_translate(&v->base, &tr), 0);
	assert_true(tr.valid);
	assert_int_equal(tr.physical_address, 0x2345);
	tr.linear_address = MEMORY_SIZE;
	assert_int_equal(soft_translate(&v->base, &tr), 0);
	assert_false(tr.valid);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_regs),	   TEST(test_cpl_follows),
	    TEST(test_sregs),	   TEST(test_impossible_sregs),
	    TEST(test_fpu),	   TEST(test_xsave),
	    TEST(test_xcrs),	   TEST(test_msrs_count),
	    TEST(test_cpuid_room), TEST(test_events),
	    TEST(test_debugregs),  TEST(test_mp_state),
	    TEST(test_translate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
