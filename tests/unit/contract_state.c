/* The engine contract: what a vCPU's state is after reset, and that what is set can be read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "contract_state.h"
#include "engine_bench.h"

#define EFER_LMA  BIT(10)
#define IA32_STAR 0xc0000081

static void test_regs_roundtrip(void **state)
{
	struct bench *b = *state;
	struct kvm_regs in = {
	    .rax = 0x1111111111111111,
	    .rbx = 0x2222222222222222,
	    .rcx = 3,
	    .rdx = 4,
	    .rsi = 5,
	    .rdi = 6,
	    .rsp = 0xffff888000000000,
	    .rbp = 8,
	    .r8 = 9,
	    .r9 = 10,
	    .r10 = 11,
	    .r11 = 12,
	    .r12 = 13,
	    .r13 = 14,
	    .r14 = 15,
	    .r15 = ~0ull,
	    .rip = 0x4567,
	    .rflags = 0xad7, /* OF IF SF ZF AF PF CF, bit 1 */
	};
	struct kvm_regs out;

	assert_int_equal(b->engine->vcpu_set_regs(b->vcpu, &in), 0);
	assert_int_equal(b->engine->vcpu_get_regs(b->vcpu, &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
}

/* SDM vol. 3A table 9-1, column "power up" (and 9.1.4 for CS). */
static void test_state_after_reset(void **state)
{
	struct bench *b = *state;
	struct kvm_regs regs = get_regs(b);
	struct kvm_sregs sregs;

	assert_int_equal(b->engine->vcpu_get_sregs(b->vcpu, &sregs), 0);
	assert_int_equal(regs.rip, 0xfff0);
	assert_int_equal(regs.rflags, 2);
	assert_int_equal(sregs.cs.selector, 0xf000);
	assert_int_equal(sregs.cs.base, 0xffff0000);
	assert_int_equal(sregs.ds.limit, 0xffff);
	assert_int_equal(sregs.cr0, 0x60000010);
	assert_int_equal(sregs.cr4, 0);
	assert_int_equal(sregs.efer, 0);
	assert_int_equal(sregs.idt.limit, 0xffff);
}

/* A flat long-mode state, as a monitor sets it at the 64-bit Linux entry. */
static void test_sregs_roundtrip(void **state)
{
	struct bench *b = *state;
	struct kvm_sregs in, out;
	struct kvm_segment code = {
	    .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
	    .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};

	assert_int_equal(b->engine->vcpu_get_sregs(b->vcpu, &in), 0);
	in.cs = code;
	in.ds = in.es = in.ss = data;
	in.fs = data;
	in.fs.base = 0x123456789000;
	in.gs = data;
	in.gs.base = 0xffff888000001000;
	in.gdt.base = 0x2000;
	in.gdt.limit = 23;
	in.idt.base = 0x3000;
	in.idt.limit = 4095;
	in.cr0 = 0x80050033;
	in.cr2 = 0xfeed000;
	in.cr3 = 0x4000;
	in.cr4 = 0x20;
	in.efer = 0x500;
	assert_int_equal(b->engine->vcpu_set_sregs(b->vcpu, &in), 0);
	assert_int_equal(b->engine->vcpu_get_sregs(b->vcpu, &out), 0);
	assert_memory_equal(&in.cs, &out.cs, sizeof(in.cs));
	assert_memory_equal(&in.ss, &out.ss, sizeof(in.ss));
	assert_int_equal(out.fs.base, in.fs.base);
	assert_int_equal(out.gs.base, in.gs.base);
	assert_int_equal(out.gdt.base, in.gdt.base);
	assert_int_equal(out.gdt.limit, in.gdt.limit);
	assert_int_equal(out.idt.base, in.idt.base);
	assert_int_equal(out.cr0, in.cr0);
	assert_int_equal(out.cr2, in.cr2);
	assert_int_equal(out.cr3, in.cr3);
	assert_int_equal(out.cr4, in.cr4);
	assert_int_equal(out.efer, in.efer);
}

static void test_impossible_sregs_are_refused(void **state)
{
	struct bench *b = *state;
	struct kvm_sregs sregs;

	assert_int_equal(b->engine->vcpu_get_sregs(b->vcpu, &sregs), 0);
	sregs.efer = EFER_LMA; /* LMA without LME and paging */
	assert_int_equal(b->engine->vcpu_set_sregs(b->vcpu, &sregs), -EINVAL);

	assert_int_equal(b->engine->vcpu_get_sregs(b->vcpu, &sregs), 0);
	sregs.cr4 |= BIT(63);
	assert_int_equal(b->engine->vcpu_set_sregs(b->vcpu, &sregs), -EINVAL);
}

static void test_fpu(void **state)
{
	struct bench *b = *state;
	struct kvm_fpu in = {.fcw = 0x27f, .fsw = 0x3800}, out;

	memset(in.fpr[2], 0x5a, 10);
	memset(in.xmm[3], 0xa5, 16);
	assert_int_equal(b->engine->vcpu_set_fpu(b->vcpu, &in), 0);
	assert_int_equal(b->engine->vcpu_get_fpu(b->vcpu, &out), 0);
	assert_int_equal(out.fcw, 0x27f);
	assert_int_equal(out.fsw, 0x3800);
	assert_memory_equal(out.fpr[2], in.fpr[2], 10);
	assert_memory_equal(out.xmm[3], in.xmm[3], 16);
}

/* SDM vol. 1 13.4: FCW at 0, MXCSR at 24, XMM3 at 208, XSTATE_BV at 512. */
static void test_xsave(void **state)
{
	struct bench *b = *state;
	struct kvm_xsave *xsave = calloc(1, sizeof(*xsave));
	u8 *image = (u8 *)xsave->region, xmm[16];
	struct kvm_fpu fpu;

	memset(xmm, 0x3c, sizeof(xmm));
	assert_int_equal(b->engine->vcpu_get_xsave(b->vcpu, xsave), 0);
	*(u16 *)image = 0x27f;
	*(u32 *)(image + 24) = 0x9f80;
	memcpy(image + 208, xmm, 16);
	*(u64 *)(image + 512) = 3;
	assert_int_equal(b->engine->vcpu_set_xsave(b->vcpu, xsave), 0);
	assert_int_equal(b->engine->vcpu_get_fpu(b->vcpu, &fpu), 0);
	assert_int_equal(fpu.fcw, 0x27f);
	assert_memory_equal(fpu.xmm[3], xmm, 16);
	memset(xsave, 0, sizeof(*xsave));
	assert_int_equal(b->engine->vcpu_get_xsave(b->vcpu, xsave), 0);
	assert_int_equal(*(u16 *)image, 0x27f);
	assert_int_equal(*(u32 *)(image + 24), 0x9f80);
	assert_memory_equal(image + 208, xmm, 16);
	free(xsave);
}

static void test_msrs(void **state)
{
	struct bench *b = *state;
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {.head.nmsrs = 2,
		  .entries = {{.index = IA32_STAR, .data = 0x23001000000000},
			      {.index = 0x00abcdef, .data = 1}}};

	/* the second does not exist: one was handled */
	assert_int_equal(b->engine->vcpu_set_msrs(b->vcpu, &msrs.head), 1);
	msrs.entries[0].data = 0;
	assert_int_equal(b->engine->vcpu_get_msrs(b->vcpu, &msrs.head), 1);
	assert_int_equal(msrs.entries[0].data, 0x23001000000000);
}

static void test_debugregs_events_mp_state(void **state)
{
	struct bench *b = *state;
	struct kvm_debugregs dregs = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff0, .dr7 = 0x400};
	struct kvm_debugregs dregs_out;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp = {.mp_state = ~0u};

	assert_int_equal(b->engine->vcpu_set_debugregs(b->vcpu, &dregs), 0);
	assert_int_equal(b->engine->vcpu_get_debugregs(b->vcpu, &dregs_out), 0);
	assert_memory_equal(dregs_out.db, dregs.db, sizeof(dregs.db));
	assert_int_equal(dregs_out.dr7, 0x400);

	assert_int_equal(b->engine->vcpu_get_events(b->vcpu, &events), 0);
	assert_int_equal(events.exception.injected, 0);
	assert_int_equal(events.nmi.masked, 0);
	events.nmi.masked = 1;
	assert_int_equal(b->engine->vcpu_set_events(b->vcpu, &events), 0);
	events.nmi.masked = 0;
	assert_int_equal(b->engine->vcpu_get_events(b->vcpu, &events), 0);
	assert_int_equal(events.nmi.masked, 1);

	assert_int_equal(b->engine->vcpu_get_mp_state(b->vcpu, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
}

static void test_translate(void **state)
{
	struct bench *b = *state;
	struct kvm_translation tr = {.linear_address = 0x2345};

	assert_int_equal(b->engine->vcpu_translate(b->vcpu, &tr), 0);
	assert_true(tr.valid);
	assert_int_equal(tr.physical_address, 0x2345);
}

GUEST(guest_cpuid, "xor eax, eax; cpuid; mov eax, ebx; out 0x80, eax; hlt");

static void test_cpuid(void **state)
{
	struct bench *b = *state;
	enum { ROOM = 256 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ROOM * sizeof(cpuid->entries[0]));

	cpuid->nent = 1;
	assert_int_equal(b->engine->vm_get_supported_cpuid(b->vm, cpuid), -E2BIG);
	cpuid->nent = ROOM;
	assert_int_equal(b->engine->vm_get_supported_cpuid(b->vm, cpuid), 0);
	assert_in_range(cpuid->nent, 2, ROOM);

	u32 vendor = 0;
	for (u32 i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 0)
			vendor = cpuid->entries[i].ebx;
	assert_int_not_equal(vendor, 0);
	assert_int_equal(b->engine->vcpu_set_cpuid(b->vcpu, cpuid), 0);
	LOAD(b, guest_cpuid);
	expect_out(b, 0x80, 4, vendor);
	free(cpuid);
}

int contract_state(void)
{
	const struct CMUnitTest tests[] = {
	    PLAIN(test_regs_roundtrip),
	    PLAIN(test_state_after_reset),
	    PLAIN(test_sregs_roundtrip),
	    PLAIN(test_impossible_sregs_are_refused),
	    PLAIN(test_fpu),
	    PLAIN(test_xsave),
	    PLAIN(test_msrs),
	    PLAIN(test_debugregs_events_mp_state),
	    PLAIN(test_translate),
	    PLAIN(test_cpuid),
	};
	return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
