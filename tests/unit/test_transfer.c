/* IRET, system flags, SYSCALL, segments, far transfers, tasks: rights, error codes, frames. */
#include "tests/unit/flow_machine.h"

/* ---- IRET ---- */

static void push_frame64(u64 rip, u64 cs, u64 flags, u64 rsp, u64 ss)
{
	u64 sp = cpu()->regs[RSP];

	poke(sp, 8, rip);
	poke(sp + 8, 8, cs);
	poke(sp + 16, 8, flags);
	poke(sp + 24, 8, rsp);
	poke(sp + 32, 8, ss);
}

static void iretq_to_user(void **state)
{
	struct insn i = {0};

	machine_long(0);
	cpu()->rflags_sys &= ~RFLAGS_IF;
	cpu()->seg[SEG_FS].base = 0x1234;
	push_frame64(0x7fffffff0000, CODE64U,
		     RFLAGS_IF | RFLAGS_AC | RFLAGS_VM | RFLAGS_ZF | 0x8028 | 2, 0x7ffffffe0008,
		     DATA3);
	assert_true(run_op(op_iret, &i));
	assert_int_equal(cpu()->rip, 0x7fffffff0000);
	assert_int_equal(cpu()->regs[RSP], 0x7ffffffe0008);
	assert_int_equal(cpu()->cpl, 3);
	expect_selectors(CODE64U, DATA3);
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_IF | RFLAGS_AC | RFLAGS_ZF | 2);
	assert_int_equal(machine->irq_windows, 1);
	assert_int_equal(cpu()->mmu_index, MMU_USER);
	/* DS held a level 0 segment: dropped. */
	assert_true(cpu()->seg[SEG_DS].access & SEG_UNUSABLE);
	assert_int_equal(cpu()->seg[SEG_DS].selector, 0);
	assert_true(cpu()->seg[SEG_FS].access & SEG_UNUSABLE);
	assert_int_equal(cpu()->seg_base_fs, 0x1234);
}

static void iretq_refusals(void **state)
{
	static const struct {
		u64 rip, cs, ss;
		u8 vector;
		u32 error;
	} rows[] = {
	    {CODE, 0, DATA3, EXC_GP, 0},
	    {CODE, CODE64U, 0, EXC_GP, 0},	   /* null SS at level 3 */
	    {CODE, CODE64U, DATA0, EXC_GP, DATA0}, /* RPL */
	    {CODE, CODE64U, DATA_RO | 3, EXC_GP, DATA_RO},
	    {CODE, CODE3, 3, EXC_GP, 0},	       /* null SS for compatibility mode */
	    {CODE, CODE64 | 3, DATA3, EXC_GP, CODE64}, /* DPL != RPL */
	    {CODE, DATA3, DATA3, EXC_GP, DATA3 & ~3},
	    {CODE, ABSENT, DATA0, EXC_NP, ABSENT},
	    {CODE, 0x1ff8, DATA0, EXC_GP, 0x1ff8},
	    {1ull << 47, CODE64U, DATA3, EXC_GP, 0},
	    {1ull << 32, CODE3, DATA3, EXC_GP, 0}, /* beyond the limit */
	};
	struct insn i = {0};

	machine_long(0);
	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		cpu()->events.exception = false;
		push_frame64(rows[n].rip, rows[n].cs, 2, STACK, rows[n].ss);
		assert_false(run_op(op_iret, &i));
		assert_raised(rows[n].vector, rows[n].error);
		assert_int_equal(cpu()->regs[RSP], STACK);
		assert_int_equal(cpu()->rip, CODE);
		assert_int_equal(cpu()->cpl, 0);
	}
	/* A null SS is right for 64-bit code of level 0. */
	cpu()->events.exception = false;
	push_frame64(CODE, CODE64, 2, STACK, 0);
	assert_true(run_op(op_iret, &i));
}

static void iret_to_compat_16bit_stack(void **state)
{
	struct insn i = {0};

	machine_long(0);
	set_descriptor(DATA16, 0, 0xffff, SEG_P | SEG_S | 3 | 3 << 5);
	cpu()->regs[RSP] = 0x12340 + STACK;
	u64 sp = cpu()->regs[RSP];
	push_frame64(CODE, CODE3, 2, 0x8888, DATA16 | 3);
	assert_true(run_op(op_iret, &i));
	/* Only SP is loaded: the kernel's upper half shows, as on the processor. */
	assert_int_equal(cpu()->regs[RSP], (sp & ~0xffffull) | 0x8888);
}

static void iret_user_keeps_if_and_iopl(void **state)
{
	struct insn i = {0};

	machine_protected(3);
	poke(STACK, 4, CODE + 0x10);
	poke(STACK + 4, 4, CODE3);
	poke(STACK + 8, 4, RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_CF | 2);
	assert_true(run_op(op_iret, &i));
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_IF | RFLAGS_CF | 2);
	assert_int_equal(cpu()->regs[RSP], STACK + 12);
	assert_int_equal(cpu()->rip, CODE + 0x10);
}

/* ---- flags ---- */

static void popf_rights(void **state)
{
	/* privilege level, IOPL before, which of IF and IOPL 0 to 3 may change */
	static const struct {
		u32 cpl, iopl;
		bool flag_if, flag_iopl;
	} rows[] = {{0, 0, true, true}, {3, 0, false, false}, {3, 3, true, false}};
	struct insn i = {0};

	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		machine_protected(rows[n].cpl);
		u64 old = RFLAGS_IF | (u64)rows[n].iopl << 12 | 2;
		vcpu_set_rflags(cpu(), old | RFLAGS_RF);
		u64 image = (~old & (RFLAGS_IOPL | RFLAGS_IF)) | RFLAGS_VM | RFLAGS_VIF |
			    RFLAGS_VIP | RFLAGS_AC | RFLAGS_ID | RFLAGS_TF | RFLAGS_OF | RFLAGS_RF |
			    2;
		u64 expect = old | RFLAGS_AC | RFLAGS_ID | RFLAGS_TF | RFLAGS_OF;
		if (rows[n].flag_if)
			expect &= ~RFLAGS_IF;
		if (rows[n].flag_iopl)
			expect |= RFLAGS_IOPL;
		poke(STACK, 4, image);
		assert_true(run_op(op_popf, &i));
		assert_int_equal(vcpu_rflags(cpu()), expect);
		assert_int_equal(cpu()->regs[RSP], STACK + 4);
	}
}

static void popf_16_bit_leaves_upper_half(void **state)
{
	struct insn i = {.opsize = 2};

	machine_protected(0);
	vcpu_set_rflags(cpu(), RFLAGS_AC | RFLAGS_ID | 2);
	poke(STACK, 2, RFLAGS_IF | 2);
	assert_true(run_op(op_popf, &i));
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_AC | RFLAGS_ID | RFLAGS_IF | 2);
	assert_int_equal(machine->irq_windows, 1);
}

static void vme_flags(void **state)
{
	struct insn word = {.opsize = 2}, dword = {.opsize = 4};

	machine_v86(0);
	assert_false(run_op(op_pushf, &word));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	assert_false(run_op(op_cli, &word));
	cpu()->events.exception = false;

	cpu()->cr4 |= CR4_VME;
	assert_true(run_op(op_sti, &word));
	assert_true(cpu()->rflags_sys & RFLAGS_VIF);
	assert_int_equal(cpu()->int_shadow, 0);
	assert_true(run_op(op_pushf, &word));
	assert_int_equal(peek(0x70020 + 0x7ffe, 2), RFLAGS_IF | RFLAGS_IOPL | 2);
	assert_false(run_op(op_pushf, &dword));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	assert_true(run_op(op_cli, &word));
	assert_false(cpu()->rflags_sys & RFLAGS_VIF);
	assert_true(run_op(op_popf, &word));
	assert_true(cpu()->rflags_sys & RFLAGS_VIF);
	assert_int_equal(iopl(cpu()), 0);
	/* A pending virtual interrupt and IF, or TF, go to the monitor. */
	cpu()->rflags_sys |= RFLAGS_VIP;
	assert_false(run_op(op_sti, &word));
	cpu()->events.exception = false;
	cpu()->regs[RSP] -= 2;
	assert_false(run_op(op_popf, &word));
	cpu()->events.exception = false;
	poke(0x70020 + 0x7ffe, 2, RFLAGS_TF);
	assert_false(run_op(op_popf, &word));
}

static void cli_sti_hlt(void **state)
{
	struct insn i = {0};

	machine_long(0);
	assert_true(run_op(op_sti, &i));
	assert_int_equal(cpu()->int_shadow, 0); /* IF was 1 */
	assert_true(run_op(op_cli, &i));
	assert_false(cpu()->rflags_sys & RFLAGS_IF);
	assert_true(run_op(op_sti, &i));
	assert_int_equal(cpu()->int_shadow, 1);
	assert_int_equal(machine->irq_windows, 1);
	assert_true(run_op(op_hlt, &i));
	assert_int_equal(cpu()->mp_state, KVM_MP_STATE_HALTED);
	assert_int_equal(cpu()->rip, CODE + 2);

	machine_long(3);
	assert_false(run_op(op_cli, &i));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	assert_false(run_op(op_sti, &i));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	assert_false(run_op(op_hlt, &i));
	assert_raised(EXC_GP, 0);
	cpu()->cr4 |= CR4_PVI;
	assert_true(run_op(op_sti, &i));
	assert_true(cpu()->rflags_sys & RFLAGS_VIF);
}

/* ---- SYSCALL ---- */

static void syscall_and_back(void **state)
{
	struct insn i = {0}, ret32 = {.opsize = 4};

	machine_long(3);
	cpu()->msr.star = (u64)CODE0 << 32 | (u64)0x23 << 48;
	cpu()->msr.lstar = 0xffffffff81000000;
	cpu()->msr.sfmask = RFLAGS_IF | RFLAGS_TF | RFLAGS_CF;
	vcpu_set_rflags(cpu(), RFLAGS_IF | RFLAGS_CF | RFLAGS_ZF | 2);
	assert_true(run_op(op_syscall, &i));
	assert_int_equal(cpu()->rip, 0xffffffff81000000);
	assert_int_equal(cpu()->regs[RCX], CODE + 2);
	assert_int_equal(cpu()->regs[R11], RFLAGS_IF | RFLAGS_CF | RFLAGS_ZF | 2);
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_ZF | 2);
	expect_selectors(CODE0, DATA0);
	assert_int_equal(cpu()->cpl, 0);
	assert_true(is_code64(cpu()));

	/* To a non-canonical address: #GP at level 0, nothing changed. */
	cpu()->regs[RCX] = 1ull << 47;
	assert_false(run_op(op_sysret, &i));
	assert_raised(EXC_GP, 0);
	assert_int_equal(cpu()->cpl, 0);
	cpu()->events.exception = false;

	cpu()->regs[RCX] = CODE;
	cpu()->regs[R11] |= RFLAGS_RF | RFLAGS_VM;
	assert_true(run_op(op_sysret, &i));
	assert_int_equal(cpu()->rip, CODE);
	expect_selectors(0x33, 0x2b);
	assert_int_equal(cpu()->cpl, 3);
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_IF | RFLAGS_CF | RFLAGS_ZF | 2);
	assert_int_equal(machine->irq_windows, 1);

	assert_true(run_op(op_syscall, &i));
	assert_true(run_op(op_sysret, &ret32));
	expect_selectors(0x23, 0x2b);
	assert_false(is_code64(cpu()));
	assert_false(run_op(op_syscall, &i)); /* Intel: not in compatibility mode */
	assert_int_equal(cpu()->events.exception_vector, EXC_UD);
}

static void sysenter_and_back(void **state)
{
	struct insn i = {0};

	machine_protected(3);
	assert_false(run_op(op_sysenter, &i));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	cpu()->msr.sysenter_cs = CODE0;
	cpu()->msr.sysenter_esp = STACK0;
	cpu()->msr.sysenter_eip = HANDLER;
	assert_false(run_op(op_sysexit, &i)); /* level 3 */
	cpu()->events.exception = false;
	assert_true(run_op(op_sysenter, &i));
	expect_selectors(CODE0, DATA0);
	assert_int_equal(cpu()->regs[RSP], STACK0);
	assert_false(cpu()->rflags_sys & RFLAGS_IF);
	cpu()->regs[RCX] = STACK;
	cpu()->regs[RDX] = CODE;
	assert_true(run_op(op_sysexit, &i));
	expect_selectors((CODE0 + 16) | 3, (CODE0 + 24) | 3);
	assert_int_equal(cpu()->regs[RSP], STACK);
	assert_int_equal(cpu()->cpl, 3);
}

/* ---- segments and tables ---- */

static void segment_loads(void **state)
{
	static const struct {
		u16 selector;
		u8 vector;
		u32 error;
	} ds[] = {
	    {DATA0, EXC_GP, DATA0},				    /* DPL 0 at level 3 */
	    {0x1ff8, EXC_GP, 0x1ff8},	{LDT | 4, EXC_GP, LDT | 4}, /* no LDT */
	    {SEL_TSS, EXC_GP, SEL_TSS}, {ABSENT, EXC_NP, ABSENT},
	};
	struct insn i = {.reg = SEG_DS, .rm = RAX};

	machine_protected(3);
	set_descriptor(ABSENT, 0, 0xfffff, SEG_S | 3 | 3 << 5);
	for (u32 n = 0; n < ARRAY_SIZE(ds); n++) {
		cpu()->events.exception = false;
		cpu()->regs[RAX] = ds[n].selector;
		assert_false(run_op(op_mov_to_seg, &i));
		assert_raised(ds[n].vector, ds[n].error);
		assert_int_equal(cpu()->seg[SEG_DS].selector, DATA3);
	}
	cpu()->regs[RAX] = CONFORM; /* readable conforming code, any level */
	assert_true(run_op(op_mov_to_seg, &i));
	cpu()->regs[RAX] = 3;
	assert_true(run_op(op_mov_to_seg, &i));
	assert_true(cpu()->seg[SEG_DS].access & SEG_UNUSABLE);
	/* The accessed bit appears in memory. */
	set_descriptor(DATA3, 0x1000, 0xf, SEG_P | SEG_S | 2 | 3 << 5);
	i.reg = SEG_FS;
	cpu()->regs[RAX] = DATA3;
	assert_true(run_op(op_mov_to_seg, &i));
	assert_int_equal(peek(GDT + (DATA3 & ~7) + 5, 1), SEG_P | SEG_S | 3 | 3 << 5);
	assert_int_equal(cpu()->seg_base_fs, 0x1000);
	assert_int_equal(cpu()->seg[SEG_FS].limit, 0xf);

	/* SS: null, another level, read-only, absent. */
	static const u16 bad_ss[] = {0, DATA0, DATA_RO | 3, CODE3};
	for (u32 n = 0; n < ARRAY_SIZE(bad_ss); n++) {
		cpu()->events.exception = false;
		cpu()->regs[RAX] = bad_ss[n];
		assert_false(run_op(op_mov_to_ss, &i));
		assert_raised(EXC_GP, bad_ss[n] & ~3);
	}
	cpu()->events.exception = false;
	cpu()->regs[RAX] = ABSENT | 3;
	assert_false(run_op(op_mov_to_ss, &i));
	assert_raised(EXC_SS, ABSENT);
	cpu()->events.exception = false;
	cpu()->regs[RAX] = DATA3;
	assert_true(run_op(op_mov_to_ss, &i));
	assert_int_equal(cpu()->int_shadow, 2);
}

static void unreal_limits_survive(void **state)
{
	machine_protected(0);
	cpu()->cr0 = 0;
	load_segment(cpu(), SEG_DS, 0x1234);
	assert_int_equal(cpu()->seg[SEG_DS].base, 0x12340);
	assert_int_equal(cpu()->seg[SEG_DS].limit, 0xffffffff);
	segment_fill_null(&cpu()->seg[SEG_ES], 0, 0);
	load_segment(cpu(), SEG_ES, 0x10);
	assert_int_equal(cpu()->seg[SEG_ES].limit, 0xffff);
	assert_false(cpu()->seg[SEG_ES].access & SEG_UNUSABLE);
}

static void ltr_lldt(void **state)
{
	struct insn i = {.rm = RAX};

	machine_long(0);
	set_descriptor(SEL_TSS2, 0x12345678, 0x67, SEG_P | SYS_TSS);
	poke(GDT + SEL_TSS2 + 8, 8, 0xffff8000);
	cpu()->regs[RAX] = SEL_TSS;
	assert_false(run_op(op_ltr, &i)); /* busy */
	assert_raised(EXC_GP, SEL_TSS);
	cpu()->events.exception = false;
	cpu()->regs[RAX] = SEL_TSS2;
	assert_true(run_op(op_ltr, &i));
	assert_int_equal(cpu()->tr.base, 0xffff800012345678);
	assert_int_equal(cpu()->tr.access, SEG_P | SYS_TSS_BUSY);
	assert_int_equal(peek(GDT + SEL_TSS2 + 5, 1), SEG_P | SYS_TSS_BUSY);
	cpu()->regs[RAX] = 0;
	assert_false(run_op(op_ltr, &i));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;

	set_descriptor(SEL_LDT, LDT, 0xff, SEG_P | SYS_LDT);
	cpu()->regs[RAX] = SEL_LDT;
	assert_true(run_op(op_lldt, &i));
	assert_int_equal(cpu()->ldtr.limit, 0xff);
	cpu()->regs[RAX] = SEL_LDT | 4;
	assert_false(run_op(op_lldt, &i));
	assert_raised(EXC_GP, SEL_LDT | 4);
	cpu()->events.exception = false;
	cpu()->regs[RAX] = 0;
	assert_true(run_op(op_lldt, &i));
	assert_true(cpu()->ldtr.access & SEG_UNUSABLE);
	/* Sixteen bytes must fit. */
	cpu()->gdt.limit = SEL_LDT + 14;
	cpu()->regs[RAX] = SEL_LDT;
	assert_false(run_op(op_lldt, &i));
	assert_raised(EXC_GP, SEL_LDT);
}

static void lgdt_sgdt(void **state)
{
	struct insn i = {.is_mem = true, .disp = DATA};

	machine_long(0);
	poke(DATA, 2, 0x1234);
	poke(DATA + 2, 8, 0xffff800000001000);
	assert_true(run_op(op_lgdt, &i));
	assert_int_equal(cpu()->gdt.base, 0xffff800000001000);
	assert_int_equal(cpu()->gdt.limit, 0x1234);
	poke(DATA + 2, 8, 0x0000800000001000);
	assert_false(run_op(op_lidt, &i));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	i.disp = DATA + 0x100;
	assert_true(run_op(op_sgdt, &i));
	assert_int_equal(peek(DATA + 0x102, 8), 0xffff800000001000);

	machine_long(3);
	assert_false(run_op(op_lgdt, &i));
	assert_raised(EXC_GP, 0);
	cpu()->events.exception = false;
	assert_true(run_op(op_sidt, &i));
	cpu()->cr4 |= CR4_UMIP;
	assert_false(run_op(op_sidt, &i));
	assert_raised(EXC_GP, 0);

	machine_real();
	cpu()->events.exception = false;
	i = (struct insn){.is_mem = true, .disp = 0};
	poke(0x10000, 8, 0xaabbccddeeff0011);
	assert_true(run_op(op_lidt, &i));
	assert_int_equal(cpu()->idt.base, 0xddeeff); /* 24 bits */
}

static void looking_at_descriptors(void **state)
{
	struct insn i = {.reg = RCX, .rm = RAX};

	machine_protected(3);
	static const struct {
		op_function *op;
		u16 selector;
		bool zf;
		u64 result;
	} rows[] = {
	    {op_lar, DATA3, true, 0xcff300},   {op_lar, DATA0, false, 0},
	    {op_lar, CONFORM, true, 0xcf9f00}, {op_lar, 3, false, 0},
	    {op_lar, 0x1ff8, false, 0},	       {op_lsl, DATA3, true, 0xffffffff},
	    {op_lsl, SEL_TSS, false, 0}, /* DPL 0 */
	    {op_verr, CODE3, true, 0},	       {op_verr, DATA0, false, 0},
	    {op_verw, DATA3, true, 0},	       {op_verw, DATA_RO | 3, false, 0},
	    {op_verw, CODE3, false, 0},
	};
	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		cpu()->regs[RAX] = rows[n].selector;
		cpu()->regs[RCX] = 0;
		assert_true(run_op(rows[n].op, &i));
		assert_int_equal(!!(vcpu_rflags(cpu()) & RFLAGS_ZF), rows[n].zf);
		assert_int_equal(cpu()->regs[RCX], rows[n].result);
	}
	cpu()->regs[RAX] = 0x10;
	cpu()->regs[RCX] = 3;
	assert_true(run_op(op_arpl, &i));
	assert_int_equal(cpu()->regs[RAX], 0x13);
	assert_true(vcpu_rflags(cpu()) & RFLAGS_ZF);
	assert_true(run_op(op_arpl, &i));
	assert_false(vcpu_rflags(cpu()) & RFLAGS_ZF);
	machine_real();
	assert_false(run_op(op_lar, &i));
	assert_int_equal(cpu()->events.exception_vector, EXC_UD);
}

/* ---- far transfers ---- */

static void far_jump_rules(void **state)
{
	static const struct {
		u16 selector;
		u8 vector;
		u32 error;
	} rows[] = {
	    {0, EXC_GP, 0},
	    {CODE3, EXC_GP, CODE3 & ~3}, /* DPL != CPL */
	    {CODE0 | 3, EXC_GP, CODE0},	 /* RPL > CPL */
	    {DATA0, EXC_GP, DATA0},
	    {ABSENT, EXC_NP, ABSENT},
	    {SEL_TSS, EXC_GP, SEL_TSS}, /* busy */
	};
	struct insn i = {.imm = HANDLER};

	machine_protected(0);
	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		cpu()->events.exception = false;
		i.imm2 = rows[n].selector;
		assert_false(run_op(op_jmp_far, &i));
		assert_raised(rows[n].vector, rows[n].error);
	}
	cpu()->events.exception = false;
	i.imm2 = CONFORM;
	assert_true(run_op(op_jmp_far, &i));
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(cpu()->seg[SEG_CS].selector, CONFORM);
	i.imm2 = CODE0;
	assert_true(run_op(op_call_far, &i));
	assert_int_equal(cpu()->regs[RSP], STACK - 8);
	assert_int_equal(peek(STACK - 8, 4), HANDLER + 2);
	assert_int_equal(peek(STACK - 4, 4), CONFORM);
	struct insn ret = {.imm = 4};
	assert_true(run_op(op_ret_far, &ret));
	assert_int_equal(cpu()->rip, HANDLER + 2);
	assert_int_equal(cpu()->seg[SEG_CS].selector, CONFORM);
	assert_int_equal(cpu()->regs[RSP], STACK + 4);
}

static void far_jump_real(void **state)
{
	struct insn i = {.imm = 0x1234, .imm2 = 0x3000};

	machine_real();
	assert_true(run_op(op_call_far, &i));
	assert_int_equal(cpu()->rip, 0x1234);
	assert_int_equal(cpu()->seg[SEG_CS].base, 0x30000);
	assert_int_equal(peek(0x17ffc, 2), 0x102);
	assert_int_equal(peek(0x17ffe, 2), 0x1000);
	struct insn ret = {0};
	assert_true(run_op(op_ret_far, &ret));
	assert_int_equal(cpu()->rip, 0x102);
	assert_int_equal(cpu()->regs[RSP], 0x8000);
	i.imm = 0x12345;
	i.opsize = 4;
	assert_false(run_op(op_jmp_far, &i));
	assert_raised(EXC_GP, 0);
}

static void call_gate_with_parameters(void **state)
{
	struct insn i = {.imm2 = GATE | 3};

	machine_protected(3);
	poke(GDT + GATE, 8,
	     HANDLER | (u64)CODE0 << 16 | 2ull << 32 | (u64)(SEG_P | 3 << 5 | SYS_CALL) << 40);
	poke(STACK, 4, 0x11111111);
	poke(STACK + 4, 4, 0x22222222);
	assert_true(run_op(op_call_far, &i));
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(cpu()->cpl, 0);
	expect_selectors(CODE0, DATA0);
	static const u32 frame[] = {CODE + 2, CODE3, 0x11111111, 0x22222222, STACK, DATA3};
	assert_int_equal(cpu()->regs[RSP], STACK0 - sizeof(frame));
	for (u32 n = 0; n < ARRAY_SIZE(frame); n++)
		assert_int_equal(peek(STACK0 - sizeof(frame) + n * 4, 4), frame[n]);

	/* RET 8 releases the parameters on both stacks. */
	struct insn ret = {.imm = 8};
	load_segment(cpu(), SEG_ES, DATA0);
	assert_true(run_op(op_ret_far, &ret));
	assert_int_equal(cpu()->rip, CODE + 2);
	assert_int_equal(cpu()->regs[RSP], STACK + 8);
	expect_selectors(CODE3, DATA3);
	assert_int_equal(cpu()->cpl, 3);
	assert_true(cpu()->seg[SEG_ES].access & SEG_UNUSABLE);
	assert_int_equal(cpu()->seg[SEG_DS].selector, DATA3);

	/* A gate of level 0 is out of reach. */
	poke(GDT + GATE + 5, 1, SEG_P | SYS_CALL);
	assert_false(run_op(op_call_far, &i));
	assert_raised(EXC_GP, GATE);
}

static void call_gate_64(void **state)
{
	struct insn i = {.is_mem = true, .disp = DATA, .opsize = 8};

	machine_long(3);
	poke(GDT + GATE, 8,
	     (HANDLER & 0xffff) | (u64)CODE64 << 16 | (u64)(SEG_P | 3 << 5 | SYS_CALL) << 40);
	poke(GDT + GATE + 8, 8, 0xffff8000);
	poke(DATA + 8, 2, GATE);
	assert_true(run_op(op_call_far, &i));
	assert_int_equal(cpu()->rip, 0xffff800000000000 | HANDLER);
	expect_selectors(CODE64, 0);
	assert_int_equal(cpu()->regs[RSP], STACK0 - 32);
	assert_int_equal(peek(STACK0 - 32, 8), CODE + 2);
	assert_int_equal(peek(STACK0 - 24, 8), CODE64U);
	assert_int_equal(peek(STACK0 - 16, 8), STACK);
	assert_int_equal(peek(STACK0 - 8, 8), DATA3);
}

/* ---- tasks ---- */

static void build_task2(void)
{
	static const u16 selectors[] = {DATA3, CODE3, DATA3, DATA3, 0, DATA3};

	set_descriptor(SEL_TSS2, TSS2, 0x67, SEG_P | SYS_TSS);
	poke(TSS2 + 32, 4, HANDLER);
	poke(TSS2 + 36, 4, RFLAGS_ZF | 2);
	for (u32 n = 0; n < 8; n++)
		poke(TSS2 + 40 + n * 4, 4, 0x100 + n);
	poke(TSS2 + 40 + RSP * 4, 4, STACK_IST);
	for (u32 n = 0; n < ARRAY_SIZE(selectors); n++)
		poke(TSS2 + 72 + n * 4, 4, selectors[n]);
}

static void task_call_and_return(void **state)
{
	struct insn i = {.imm2 = SEL_TSS2};

	machine_protected(0);
	build_task2();
	cpu()->regs[RBX] = 0xb;
	cpu()->dr7 |= 0x55;
	assert_true(run_op(op_call_far, &i));
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(cpu()->cpl, 3);
	expect_selectors(CODE3, DATA3);
	assert_int_equal(cpu()->regs[RDI], 0x107);
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_ZF | RFLAGS_NT | 2);
	assert_int_equal(cpu()->tr.selector, SEL_TSS2);
	assert_true(cpu()->cr0 & CR0_TS);
	assert_false(cpu()->dr7 & 0x55);
	assert_int_equal(peek(TSS2, 2), SEL_TSS);
	assert_int_equal(peek(TSS + 32, 4), CODE + 2);
	assert_int_equal(peek(TSS + 40 + RBX * 4, 4), 0xb);
	assert_int_equal(peek(GDT + SEL_TSS + 5, 1), SEG_P | SYS_TSS_BUSY);
	assert_int_equal(peek(GDT + SEL_TSS2 + 5, 1), SEG_P | SYS_TSS_BUSY);

	struct insn ret = {0};
	assert_true(run_op(op_iret, &ret));
	assert_int_equal(cpu()->rip, CODE + 2);
	assert_int_equal(cpu()->cpl, 0);
	assert_int_equal(cpu()->regs[RBX], 0xb);
	expect_selectors(CODE0, DATA0);
	assert_int_equal(peek(GDT + SEL_TSS2 + 5, 1), SEG_P | SYS_TSS);
	assert_false(peek(TSS2 + 36, 4) & RFLAGS_NT);
	assert_int_equal(cpu()->tr.selector, SEL_TSS);
}

static void task_gate_for_double_fault(void **state)
{
	machine_protected(0);
	build_task2();
	poke(TSS2 + 76, 4, CODE0);
	poke(TSS2 + 80, 4, DATA0);
	set_gate(EXC_DF, SYS_TASK_GATE, 0, SEL_TSS2, 0, 0);
	set_gate(EXC_GP, SYS_INT, 0, DATA0, 0, 0); /* no code segment */
	fault(EXC_GP, 0);
	settle();
	assert_false(cpu()->events.triple_fault);
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(cpu()->regs[RSP], STACK_IST - 4);
	assert_int_equal(peek(STACK_IST - 4, 4), 0);
	assert_int_equal(peek(TSS + 32, 4), CODE); /* the faulting instruction */
	assert_true(peek(TSS + 36, 4) & RFLAGS_RF);
	assert_int_equal(peek(TSS2, 2), SEL_TSS);
}

static void task_refusals(void **state)
{
	struct insn i = {.imm2 = SEL_TSS2};

	machine_protected(0);
	build_task2();
	set_descriptor(SEL_TSS2, TSS2, 0x66, SEG_P | SYS_TSS);
	assert_false(run_op(op_jmp_far, &i));
	assert_raised(EXC_TS, SEL_TSS2);
	assert_int_equal(cpu()->tr.selector, SEL_TSS);
	/* A bad segment in the new task is the new task's fault. */
	cpu()->events.exception = false;
	build_task2();
	poke(TSS2 + 72 + SEG_DS * 4, 4, ABSENT | 3);
	set_descriptor(ABSENT, 0, 0xfffff, SEG_S | 3 | 3 << 5);
	assert_false(run_op(op_jmp_far, &i));
	assert_raised(EXC_NP, ABSENT);
	assert_int_equal(cpu()->tr.selector, SEL_TSS2);
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(peek(GDT + SEL_TSS + 5, 1), SEG_P | SYS_TSS);
	/* NT with a link to a TSS that is not busy. */
	machine_protected(0);
	cpu()->events.exception = false;
	set_descriptor(SEL_TSS2, TSS2, 0x67, SEG_P | SYS_TSS);
	poke(TSS, 2, SEL_TSS2);
	cpu()->rflags_sys |= RFLAGS_NT;
	struct insn ret = {0};
	assert_false(run_op(op_iret, &ret));
	assert_raised(EXC_TS, SEL_TSS2);
	machine_long(0);
	cpu()->events.exception = false;
	cpu()->rflags_sys |= RFLAGS_NT;
	assert_false(run_op(op_iret, &ret));
	assert_raised(EXC_GP, 0);
}

static void task_16_bit(void **state)
{
	struct insn i = {.imm2 = SEL_TSS2};
	static const u16 selectors[] = {DATA0, CODE0, DATA0, DATA0};

	machine_protected(0);
	cpu()->cr3 = 0x7000;
	set_descriptor(SEL_TSS2, TSS2, 0x2b, SEG_P | SYS_TSS16);
	poke(TSS2 + 14, 2, HANDLER);
	poke(TSS2 + 16, 2, RFLAGS_ZF | 2);
	for (u32 n = 0; n < 8; n++)
		poke(TSS2 + 18 + n * 2, 2, 0x100 + n);
	for (u32 n = 0; n < ARRAY_SIZE(selectors); n++)
		poke(TSS2 + 34 + n * 2, 2, selectors[n]);
	assert_true(run_op(op_jmp_far, &i));
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_ZF | 2);
	assert_int_equal(cpu()->regs[RSI], 0x106);
	assert_int_equal(cpu()->cr3, 0x7000);
	assert_true(cpu()->seg[SEG_FS].access & SEG_UNUSABLE);
	assert_int_equal(peek(GDT + SEL_TSS2 + 5, 1), SEG_P | SYS_TSS16_BUSY);
	assert_int_equal(peek(GDT + SEL_TSS + 5, 1), SEG_P | SYS_TSS);
	/* And back: the first task's TSS is 32-bit. */
	i.imm2 = SEL_TSS;
	assert_true(run_op(op_jmp_far, &i));
	assert_int_equal(cpu()->rip, CODE + 2);
	assert_int_equal(peek(TSS2 + 14, 2), HANDLER + 2);
}

static void iret_unblocks_nmi_even_if_it_faults(void **state)
{
	struct insn i = {0};

	machine_long(0);
	cpu()->events.nmi_masked = true;
	push_frame64(CODE, 0, 2, STACK, 0);
	assert_false(run_op(op_iret, &i));
	assert_false(cpu()->events.nmi_masked);
}

static void rf_lives_only_where_breakpoints_do(void **state)
{
	struct insn i = {0};

	machine_long(0);
	push_frame64(CODE, CODE64, RFLAGS_RF | 2, STACK, DATA0);
	assert_true(run_op(op_iret, &i));
	assert_false(cpu()->rflags_sys & RFLAGS_RF);
	cpu()->dr7 |= 1;
	push_frame64(CODE, CODE64, RFLAGS_RF | 2, STACK, DATA0);
	assert_true(run_op(op_iret, &i));
	assert_true(cpu()->rflags_sys & RFLAGS_RF);
	assert_true(cpu()->keep_rf); /* not to fall with IRET itself */
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    T(iretq_to_user),
	    T(iretq_refusals),
	    T(iret_to_compat_16bit_stack),
	    T(iret_user_keeps_if_and_iopl),
	    T(popf_rights),
	    T(popf_16_bit_leaves_upper_half),
	    T(vme_flags),
	    T(cli_sti_hlt),
	    T(syscall_and_back),
	    T(sysenter_and_back),
	    T(segment_loads),
	    T(unreal_limits_survive),
	    T(ltr_lldt),
	    T(lgdt_sgdt),
	    T(looking_at_descriptors),
	    T(far_jump_rules),
	    T(far_jump_real),
	    T(call_gate_with_parameters),
	    T(call_gate_64),
	    T(task_call_and_return),
	    T(task_gate_for_double_fault),
	    T(task_refusals),
	    T(task_16_bit),
	    T(iret_unblocks_nmi_even_if_it_faults),
	    T(rf_lives_only_where_breakpoints_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
