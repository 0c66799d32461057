/* Exceptions, delivery, IRET, far transfers, task switches: frames, error codes, and that faults
 * change nothing. */
#include "tests/unit/test_flow_machine.h"

static struct soft_vcpu *cpu(void)
{
	return machine->v;
}

static void expect_selectors(u16 cs, u16 ss)
{
	assert_int_equal(cpu()->seg[SEG_CS].selector, cs);
	assert_int_equal(cpu()->seg[SEG_SS].selector, ss);
}

/* Raises from outside of delivery, as an instruction would. */
static void fault(u8 vector, u32 error)
{
	if (!setjmp(machine->back))
		raise_error(cpu(), vector, error);
}

static void int_n(u8 vector)
{
	struct insn i = {.imm = vector};

	run_op(op_int_n, &i);
}

/* ---- long mode ---- */

static void long_same_level_pushes_ss_and_aligns(void **state)
{
	machine_long(0);
	set_gate(EXC_GP, SYS_INT, 0, CODE64, HANDLER, 0);
	cpu()->regs[RSP] = STACK - 4;
	fault(EXC_GP, 0x50);
	assert_true(run_events());
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(cpu()->regs[RSP], STACK - 16 - 48);
	u64 sp = cpu()->regs[RSP];
	assert_int_equal(peek(sp, 8), 0x50);
	assert_int_equal(peek(sp + 8, 8), CODE);
	assert_int_equal(peek(sp + 16, 8), CODE64);
	assert_int_equal(peek(sp + 24, 8), RFLAGS_IF | RFLAGS_RF | 2);
	assert_int_equal(peek(sp + 32, 8), STACK - 4);
	assert_int_equal(peek(sp + 40, 8), DATA0);
	expect_selectors(CODE64, DATA0);
	assert_false(cpu()->rflags_sys & RFLAGS_IF);
	assert_int_equal(cpu()->stats.exceptions, 1);
}

static void long_user_to_kernel(void **state)
{
	machine_long(3);
	set_gate(0x80, SYS_TRAP, 3, CODE64, 0xffffffff80001234, 0);
	vcpu_set_rflags(cpu(), RFLAGS_IF | RFLAGS_TF | RFLAGS_NT | RFLAGS_CF | 2);
	int_n(0x80);
	assert_false(cpu()->events.exception);
	assert_int_equal(cpu()->rip, 0xffffffff80001234);
	assert_int_equal(cpu()->cpl, 0);
	expect_selectors(CODE64, 0); /* SS null, RPL = new CPL */
	assert_true(cpu()->seg[SEG_SS].access & SEG_UNUSABLE);
	assert_int_equal(cpu()->regs[RSP], STACK0 - 40);
	assert_int_equal(peek(STACK0 - 40, 8), CODE + 2); /* after INT n */
	assert_int_equal(peek(STACK0 - 32, 8), CODE64U);
	assert_int_equal(peek(STACK0 - 24, 8), RFLAGS_IF | RFLAGS_TF | RFLAGS_NT | RFLAGS_CF | 2);
	assert_int_equal(peek(STACK0 - 16, 8), STACK);
	assert_int_equal(peek(STACK0 - 8, 8), DATA3);
	/* A trap gate keeps IF; TF and NT fall, arithmetic flags stay. */
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_IF | RFLAGS_CF | 2);
	assert_int_equal(machine->last_index, MMU_KERNEL_AC);
}

static void long_ist(void **state)
{
	machine_long(0);
	set_gate(EXC_NMI, SYS_INT, 0, CODE64, HANDLER, 1);
	cpu()->events.nmi = 1;
	assert_true(run_events());
	assert_int_equal(cpu()->regs[RSP], STACK_IST - 40);
	expect_selectors(CODE64, DATA0);
	assert_true(cpu()->events.nmi_masked);
	assert_int_equal(cpu()->events.nmi, 0);
	assert_int_equal(cpu()->stats.interrupts, 1);
	cpu()->events.nmi = 1;
	assert_false(events_pending(cpu())); /* masked until IRET */
	struct insn i = {0};
	assert_true(run_op(op_iret, &i));
	assert_int_equal(cpu()->rip, CODE);
	assert_int_equal(cpu()->regs[RSP], STACK);
	assert_true(events_pending(cpu()));
	assert_true(cpu()->attention & ATTENTION_IRQ);
}

static void long_pushes_follow_smap(void **state)
{
	machine_long(3);
	set_gate(EXC_UD, SYS_INT, 0, CODE64, HANDLER, 0);
	cpu()->cr4 |= CR4_SMAP;
	fault(EXC_UD, 0);
	assert_true(run_events());
	assert_int_equal(machine->last_index, MMU_KERNEL);
}

static void gate_faults(void **state)
{
	machine_long(3);
	/* INT n through a gate of level 0: no EXT, RIP stays. */
	set_gate(0x80, SYS_INT, 0, CODE64, HANDLER, 0);
	int_n(0x80);
	assert_raised(EXC_GP, 0x80 * 8 + 2);
	assert_int_equal(cpu()->rip, CODE);

	/* An external interrupt may use that gate; not present is #NP with EXT. */
	cpu()->events.exception = false;
	poke(IDT + 0x80 * 16 + 5, 1, SYS_INT);
	machine->external = 0x80;
	assert_false(run_events());
	assert_raised(EXC_NP, 0x80 * 8 + 3);

	/* Beyond the limit. */
	cpu()->events.exception = false;
	cpu()->idt.limit = 0x80 * 16 + 14;
	int_n(0x80);
	assert_raised(EXC_GP, 0x80 * 8 + 2);

	/* Target: null, not 64-bit, not present, less privileged. */
	static const struct {
		u16 selector;
		u8 vector;
		u32 error;
	} targets[] = {
	    {0, EXC_GP, 0},
	    {CODE0, EXC_GP, CODE0},
	    {DATA0, EXC_GP, DATA0},
	    {0xfff8, EXC_GP, 0xfff8},
	};
	cpu()->idt.limit = 0xfff;
	for (u32 n = 0; n < ARRAY_SIZE(targets); n++) {
		cpu()->events.exception = false;
		set_gate(0x81, SYS_INT, 3, targets[n].selector, HANDLER, 0);
		int_n(0x81);
		assert_raised(targets[n].vector, targets[n].error);
	}
	/* 16- and 32-bit gate types do not exist here; reserved in IA-32e mode. */
	cpu()->events.exception = false;
	set_gate(0x81, SYS_TASK_GATE, 3, CODE64, HANDLER, 0);
	int_n(0x81);
	assert_raised(EXC_GP, 0x81 * 8 + 2);
	/* A handler at a non-canonical address. */
	cpu()->events.exception = false;
	set_gate(0x81, SYS_INT, 3, CODE64, 1ull << 47, 0);
	int_n(0x81);
	assert_raised(EXC_GP, 0);
	/* TSS too short for RSP0. */
	cpu()->events.exception = false;
	set_gate(0x81, SYS_INT, 3, CODE64, HANDLER, 0);
	cpu()->tr.limit = 10;
	int_n(0x81);
	assert_raised(EXC_TS, SEL_TSS);
	assert_int_equal(cpu()->cpl, 3);
	expect_selectors(CODE64U, DATA3);
}

static void fault_in_push_changes_nothing(void **state)
{
	machine_long(3);
	set_gate(EXC_UD, SYS_INT, 0, CODE64, HANDLER, 0);
	machine->fault_page = STACK0 - PAGE_SIZE;
	u64 flags = vcpu_rflags(cpu());
	fault(EXC_UD, 0);
	assert_false(run_events());
	/* #UD is benign: the page fault is delivered instead. */
	assert_raised(EXC_PF, PF_W);
	assert_int_equal(cpu()->cpl, 3);
	assert_int_equal(cpu()->rip, CODE);
	assert_int_equal(cpu()->regs[RSP], STACK);
	assert_int_equal(vcpu_rflags(cpu()), flags);
	expect_selectors(CODE64U, DATA3);
	/* Its own delivery faults too: double fault, then shutdown. */
	assert_false(run_events());
	assert_raised(EXC_DF, 0);
	assert_int_equal(cpu()->cr2, STACK0 - 48);
	assert_false(cpu()->events.triple_fault);
	assert_false(run_events());
	assert_true(cpu()->events.triple_fault);
	assert_false(cpu()->events.exception);
}

/* ---- legacy protected mode ---- */

static void legacy_inter_privilege(void **state)
{
	machine_protected(3);
	set_gate(EXC_GP, SYS_INT, 0, CODE0, HANDLER, 0);
	fault(EXC_GP, 0x18);
	assert_true(run_events());
	assert_int_equal(cpu()->rip, HANDLER);
	expect_selectors(CODE0, DATA0);
	assert_int_equal(cpu()->cpl, 0);
	assert_int_equal(cpu()->regs[RSP], STACK0 - 24);
	assert_int_equal(peek(STACK0 - 24, 4), 0x18);
	assert_int_equal(peek(STACK0 - 20, 4), CODE);
	assert_int_equal(peek(STACK0 - 16, 4), CODE3);
	assert_int_equal(peek(STACK0 - 12, 4), RFLAGS_IF | RFLAGS_RF | 2);
	assert_int_equal(peek(STACK0 - 8, 4), STACK);
	assert_int_equal(peek(STACK0 - 4, 4), DATA3);
}

static void legacy_16bit_gate(void **state)
{
	machine_protected(0);
	set_gate(0x20, SYS_TRAP16, 0, CODE0, HANDLER, 0);
	machine->external = 0x20;
	assert_true(run_events());
	assert_int_equal(cpu()->regs[RSP], STACK - 6);
	assert_int_equal(peek(STACK - 6, 2), CODE & 0xffff);
	assert_int_equal(peek(STACK - 4, 2), CODE0);
	assert_int_equal(peek(STACK - 2, 2), RFLAGS_IF | 2);
}

static void legacy_bad_inner_stack(void **state)
{
	static const struct {
		u16 ss;
		u8 vector;
		u32 error;
	} stacks[] = {
	    {0, EXC_TS, 0},		 /* null */
	    {DATA3, EXC_TS, DATA3 & ~3}, /* RPL, DPL */
	    {CODE0, EXC_TS, CODE0},	 /* not data */
	    {0x7f8, EXC_TS, 0x7f8},	 /* beyond the limit */
	    {ABSENT, EXC_SS, ABSENT},
	};

	machine_protected(3);
	set_descriptor(ABSENT, 0, 0xfffff, SEG_S | 3 | SEG_G | SEG_DB);
	set_gate(0x30, SYS_INT, 3, CODE0, HANDLER, 0);
	for (u32 n = 0; n < ARRAY_SIZE(stacks); n++) {
		cpu()->events.exception = false;
		poke(TSS + 8, 4, stacks[n].ss);
		int_n(0x30);
		assert_raised(stacks[n].vector, stacks[n].error);
		assert_int_equal(cpu()->cpl, 3);
	}
	/* The same on the way to an exception's handler: EXT. */
	set_gate(EXC_UD, SYS_INT, 0, CODE0, HANDLER, 0);
	cpu()->events.exception = false;
	fault(EXC_UD, 0);
	assert_false(run_events());
	assert_raised(EXC_SS, ABSENT | ERROR_EXT);
}

static void legacy_stack_limit(void **state)
{
	machine_protected(3);
	set_gate(0x30, SYS_INT, 3, CODE0, HANDLER, 0);
	set_descriptor(DATA16, 0, 0x1f, SEG_P | SEG_S | 3 | SEG_DB);
	poke(TSS + 4, 4, 0x24);
	poke(TSS + 8, 4, DATA16);
	int_n(0x30);
	assert_raised(EXC_SS, DATA16);
	cpu()->events.exception = false;
	poke(TSS + 4, 4, 0x20);
	int_n(0x30);
	assert_false(cpu()->events.exception);
	assert_int_equal(cpu()->regs[RSP], 0x20 - 20);
}

/* ---- real and virtual-8086 mode ---- */

static void real_mode(void **state)
{
	machine_real();
	poke(0x21 * 4, 4, 0x2000 << 16 | 0x345);
	cpu()->rflags_sys |= RFLAGS_AC;
	int_n(0x21);
	assert_int_equal(cpu()->rip, 0x345);
	assert_int_equal(cpu()->seg[SEG_CS].selector, 0x2000);
	assert_int_equal(cpu()->seg[SEG_CS].base, 0x20000);
	assert_int_equal(cpu()->regs[RSP], 0x7ffa);
	assert_int_equal(peek(0x17ffa, 2), 0x102);
	assert_int_equal(peek(0x17ffc, 2), 0x1000);
	assert_int_equal(peek(0x17ffe, 2), RFLAGS_IF | 2);
	assert_int_equal(vcpu_rflags(cpu()), 2); /* IF and AC are gone */
	struct insn i = {0};
	assert_true(run_op(op_iret, &i));
	assert_int_equal(cpu()->rip, 0x102);
	assert_int_equal(cpu()->regs[RSP], 0x8000);
	assert_int_equal(vcpu_rflags(cpu()), RFLAGS_IF | 2);
}

static void real_mode_table_too_short(void **state)
{
	machine_real();
	cpu()->idt.limit = 0x20 * 4 + 2;
	int_n(0x20);
	assert_raised(EXC_GP, 0);
	cpu()->idt.limit = 7 * 4; /* neither #GP nor #DF fit */
	settle();
	assert_true(cpu()->events.triple_fault);
}

static void v86_to_monitor(void **state)
{
	machine_v86(0);
	set_gate(EXC_GP, SYS_INT, 0, CODE0, HANDLER, 0);
	int_n(0x21); /* IOPL 0, no VME */
	assert_raised(EXC_GP, 0);
	assert_true(run_events());
	expect_selectors(CODE0, DATA0);
	assert_int_equal(cpu()->regs[RSP], STACK0 - 40);
	static const u32 frame[] = {0,	    0x100,  0x7001, RFLAGS_IF | RFLAGS_VM | RFLAGS_RF | 2,
				    0x8000, 0x7002, 0x7000, 0x7003,
				    0x7004, 0x7005};
	for (u32 n = 0; n < ARRAY_SIZE(frame); n++)
		assert_int_equal(peek(STACK0 - 40 + n * 4, 4), frame[n]);
	assert_int_equal(cpu()->seg[SEG_DS].selector, 0);
	assert_true(cpu()->seg[SEG_GS].access & SEG_UNUSABLE);
	assert_false(is_v86(cpu()));

	/* And back. */
	cpu()->regs[RSP] += 4;
	struct insn i = {0};
	assert_true(run_op(op_iret, &i));
	assert_true(is_v86(cpu()));
	assert_int_equal(cpu()->cpl, 3);
	assert_int_equal(cpu()->rip, 0x100);
	assert_int_equal(cpu()->regs[RSP], 0x8000);
	for (u32 n = 0; n < 6; n++) {
		assert_int_equal(cpu()->seg[n].selector, 0x7000 + n);
		assert_int_equal(cpu()->seg[n].base, 0x70000 + n * 16);
		assert_int_equal(cpu()->seg[n].limit, 0xffff);
	}
}

static void v86_redirection(void **state)
{
	machine_v86(0);
	cpu()->cr4 |= CR4_VME;
	cpu()->rflags_sys |= RFLAGS_VIF;
	poke(TSS + 102, 2, 0x88); /* I/O bitmap; redirection bitmap at 0x68 */
	poke(0x21 * 4, 4, 0x2000 << 16 | 0x345);
	int_n(0x21);
	assert_false(cpu()->events.exception);
	assert_int_equal(cpu()->rip, 0x345);
	assert_int_equal(cpu()->seg[SEG_CS].selector, 0x2000);
	assert_true(is_v86(cpu()));
	/* The image shows IOPL 3 and VIF as IF; the real IF stays. */
	assert_int_equal(peek(0x70020 + 0x7ffe, 2), RFLAGS_IF | RFLAGS_IOPL | 2);
	assert_true(cpu()->rflags_sys & RFLAGS_IF);
	assert_false(cpu()->rflags_sys & RFLAGS_VIF);

	struct insn i = {0};
	assert_true(run_op(op_iret, &i));
	assert_int_equal(cpu()->seg[SEG_CS].selector, 0x7001);
	assert_true(cpu()->rflags_sys & RFLAGS_VIF);
	assert_int_equal(iopl(cpu()), 0);

	/* Bit set: to the protected-mode handler, which needs IOPL 3. */
	poke(TSS + 0x68 + 0x21 / 8, 1, 1 << (0x21 & 7));
	int_n(0x21);
	assert_raised(EXC_GP, 0);
}

static void v86_handler_must_be_level_0(void **state)
{
	machine_v86(3);
	set_gate(0x21, SYS_INT, 3, CONFORM, HANDLER, 0);
	int_n(0x21);
	assert_raised(EXC_GP, CONFORM);
}

/* ---- nested faults ---- */

static void double_fault_table(void **state)
{
	enum { SERIAL, DOUBLE, SHUTDOWN };
	enum { HARD, SOFT, EXTERNAL };
	static const struct {
		u8 first, kind, second, result;
	} rows[] = {
	    {EXC_DB, HARD, EXC_GP, SERIAL},	{EXC_UD, HARD, EXC_PF, SERIAL},
	    {EXC_AC, HARD, EXC_GP, SERIAL},	{EXC_DE, HARD, EXC_GP, DOUBLE},
	    {EXC_DE, HARD, EXC_PF, SERIAL},	{EXC_TS, HARD, EXC_NP, DOUBLE},
	    {EXC_NP, HARD, EXC_SS, DOUBLE},	{EXC_SS, HARD, EXC_TS, DOUBLE},
	    {EXC_GP, HARD, EXC_GP, DOUBLE},	{EXC_GP, HARD, EXC_PF, SERIAL},
	    {EXC_GP, HARD, EXC_AC, SERIAL},	{EXC_PF, HARD, EXC_GP, DOUBLE},
	    {EXC_PF, HARD, EXC_PF, DOUBLE},	{EXC_PF, HARD, EXC_AC, SERIAL},
	    {EXC_DF, HARD, EXC_GP, SHUTDOWN},	{EXC_DF, HARD, EXC_PF, SHUTDOWN},
	    {EXC_GP, SOFT, EXC_GP, SERIAL},	{EXC_DF, SOFT, EXC_GP, SERIAL},
	    {EXC_PF, EXTERNAL, EXC_GP, SERIAL}, {EXC_NMI, EXTERNAL, EXC_PF, SERIAL},
	};

	machine_long(0);
	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		struct pending_events *e = &cpu()->events;
		*e = (struct pending_events){
		    .in_delivery = true,
		    .delivering = rows[n].first,
		    .delivering_soft = rows[n].kind == SOFT,
		    .delivering_interrupt = rows[n].kind == EXTERNAL,
		};
		fault(rows[n].second, 0x100);
		assert_false(e->in_delivery);
		assert_int_equal(e->triple_fault, rows[n].result == SHUTDOWN);
		assert_int_equal(e->exception, rows[n].result != SHUTDOWN);
		if (rows[n].result == DOUBLE) {
			assert_int_equal(e->exception_vector, EXC_DF);
			assert_int_equal(e->exception_error, 0);
		} else if (rows[n].result == SERIAL) {
			bool ext = rows[n].second != EXC_PF && rows[n].second != EXC_AC &&
				   rows[n].kind != SOFT;
			assert_int_equal(e->exception_vector, rows[n].second);
			assert_int_equal(e->exception_error, 0x100 | ext);
		}
	}
}

static void page_fault_sets_cr2_at_delivery(void **state)
{
	machine_long(0);
	set_gate(EXC_PF, SYS_INT, 0, CODE64, HANDLER, 0);
	if (!setjmp(machine->back))
		raise_pf(cpu(), 0xdeadb000, PF_W | PF_U);
	assert_int_equal(cpu()->cr2, 0);
	assert_true(run_events());
	assert_int_equal(cpu()->cr2, 0xdeadb000);
	assert_int_equal(peek(cpu()->regs[RSP], 8), PF_W | PF_U);
	assert_int_equal(cpu()->stats.page_faults, 1);
}

static void priorities(void **state)
{
	machine_long(0);
	for (int n = 0; n < 64; n++)
		set_gate((u8)n, SYS_TRAP, 0, CODE64, HANDLER + (u64)n * 16, 0);
	machine->external = 0x20;
	cpu()->events.nmi = 1;
	cpu()->events.debug = DR6_BS;
	cpu()->dr7 |= DR7_GD;
	cpu()->int_shadow = 2;
	assert_false(events_pending(cpu())); /* MOV SS holds all three back */
	cpu()->int_shadow = 1;
	assert_true(run_events());
	assert_int_equal(cpu()->rip, HANDLER + EXC_DB * 16);
	assert_true(cpu()->dr6 & DR6_BS);
	assert_false(cpu()->dr7 & DR7_GD);
	assert_false(peek(cpu()->regs[RSP] + 16, 8) & RFLAGS_RF);
	assert_true(run_events());
	assert_int_equal(cpu()->rip, HANDLER + EXC_NMI * 16);
	cpu()->int_shadow = 1;
	assert_false(events_pending(cpu()));
	cpu()->int_shadow = 0;
	cpu()->rflags_sys &= ~RFLAGS_IF;
	assert_false(events_pending(cpu()));
	cpu()->rflags_sys |= RFLAGS_IF;
	assert_true(run_events());
	assert_int_equal(cpu()->rip, HANDLER + 0x20 * 16);
	assert_int_equal(machine->external, -1);
	assert_false(events_pending(cpu()));
}

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

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    T(long_same_level_pushes_ss_and_aligns),
	    T(long_user_to_kernel),
	    T(long_ist),
	    T(long_pushes_follow_smap),
	    T(gate_faults),
	    T(fault_in_push_changes_nothing),
	    T(legacy_inter_privilege),
	    T(legacy_16bit_gate),
	    T(legacy_bad_inner_stack),
	    T(legacy_stack_limit),
	    T(real_mode),
	    T(real_mode_table_too_short),
	    T(v86_to_monitor),
	    T(v86_redirection),
	    T(v86_handler_must_be_level_0),
	    T(double_fault_table),
	    T(page_fault_sets_cr2_at_delivery),
	    T(priorities),
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
