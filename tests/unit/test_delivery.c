/* Events: the frame of each form of delivery, error codes, table 6-5, priorities; faults change
 * nothing. */
#include "tests/unit/flow_machine.h"

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
	cpu()->step_tf = 1;
	set_gate(0x80, SYS_TRAP, 3, CODE64, 0xffffffff80001234, 0);
	vcpu_set_rflags(cpu(), RFLAGS_IF | RFLAGS_TF | RFLAGS_NT | RFLAGS_CF | 2);
	int_n(0x80);
	assert_false(cpu()->events.exception);
	assert_int_equal(cpu()->rip, 0xffffffff80001234);
	assert_int_equal(cpu()->step_tf, 0); /* no single-step trap in the handler */
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
	cpu()->events.nmi = 2;
	assert_false(events_pending(cpu())); /* masked until IRET, */
	struct insn i = {0};
	assert_true(run_op(op_iret, &i));
	assert_int_equal(cpu()->rip, CODE);
	assert_int_equal(cpu()->regs[RSP], STACK);
	assert_true(events_pending(cpu()));
	assert_int_equal(cpu()->events.nmi, 1); /* and one is latched */
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
	assert_int_equal(cpu()->cr2, STACK0 - 8); /* SS goes first */
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

static void interrupt_whose_gate_is_bad_is_lost(void **state)
{
	machine_long(0);
	set_gate(EXC_NP, SYS_INT, 0, CODE64, HANDLER, 0);
	set_gate(0x40, SYS_INT, 0, CODE64, HANDLER, 0);
	poke(IDT + 0x40 * 16 + 5, 1, SYS_INT);
	machine->external = 0x40;
	assert_false(run_events());
	assert_raised(EXC_NP, 0x40 * 8 + 3);
	assert_true(run_events());
	assert_int_equal(peek(cpu()->regs[RSP], 8), 0x40 * 8 + 3);
	cpu()->rflags_sys |= RFLAGS_IF;
	assert_false(events_pending(cpu()));
}

/* What KVM_INTERRUPT has asked for waits on while an NMI's delivery fails. */
static void interrupt_outlives_bad_nmi(void **state)
{
	machine_long(0);
	set_gate(EXC_NP, SYS_INT, 0, CODE64, HANDLER, 0);
	set_gate(0x40, SYS_INT, 0, CODE64, HANDLER, 0);
	set_gate(EXC_NMI, SYS_INT, 0, CODE64, HANDLER, 0);
	poke(IDT + EXC_NMI * 16 + 5, 1, SYS_INT); /* not present */
	cpu()->events.user_interrupt = true;
	cpu()->events.user_vector = 0x40;
	cpu()->events.nmi = 1;
	assert_false(run_events());
	assert_raised(EXC_NP, EXC_NMI * 8 + 3);
	assert_true(run_events());
	assert_true(cpu()->events.user_interrupt);
	cpu()->rflags_sys |= RFLAGS_IF;
	assert_true(run_events());
	assert_false(cpu()->events.user_interrupt);
	assert_int_equal(cpu()->stats.interrupts, 1);
}

static void delivery_starts_again_after_mmio(void **state)
{
	/* Leaves to the monitor in the middle; nothing may be lost. */
	machine_long(3);
	set_gate(EXC_GP, SYS_INT, 0, CODE64, HANDLER, 0);
	set_gate(0x40, SYS_INT, 0, CODE64, HANDLER, 0);
	machine->exit_page = STACK0 - PAGE_SIZE;
	fault(EXC_GP, 8);
	assert_false(run_events());
	machine->exit_page = ~0ull;
	assert_true(run_events());
	assert_int_equal(peek(STACK0 - 48, 8), 8);
	assert_false(events_pending(cpu()));

	machine_long(3);
	machine->external = 0x40;
	machine->exit_page = STACK0 - PAGE_SIZE;
	assert_false(run_events());
	assert_int_equal(machine->external, -1);
	machine->exit_page = ~0ull;
	assert_true(events_pending(cpu()));
	assert_true(run_events());
	assert_int_equal(cpu()->rip, HANDLER);
	assert_false(cpu()->events.user_interrupt);
	assert_int_equal(cpu()->stats.interrupts, 1);
}

static void int1_is_hardware(void **state)
{
	struct insn i = {0};

	machine_long(3);
	/* No DPL check; a fault on the way is external. */
	set_gate(EXC_DB, SYS_INT, 0, CODE64, HANDLER, 0);
	cpu()->dr7 |= DR7_GD;
	assert_true(run_op(op_int1, &i));
	assert_int_equal(cpu()->rip, HANDLER);
	assert_int_equal(peek(STACK0 - 40, 8), CODE + 2);
	assert_false(cpu()->dr7 & DR7_GD);
	machine_long(3);
	set_gate(EXC_DB, SYS_INT, 0, DATA0, HANDLER, 0);
	assert_false(run_op(op_int1, &i));
	assert_raised(EXC_GP, DATA0 | ERROR_EXT);
	/* INT3 checks the DPL, and its faults are not. */
	cpu()->events.exception = false;
	set_gate(EXC_BP, SYS_INT, 0, CODE64, HANDLER, 0);
	assert_false(run_op(op_int3, &i));
	assert_raised(EXC_GP, EXC_BP * 8 + 2);
	cpu()->events.exception = false;
	set_gate(EXC_BP, SYS_INT, 3, CODE64, HANDLER, 0);
	assert_true(run_op(op_int3, &i));
	assert_int_equal(peek(STACK0 - 40, 8), CODE + 2);
}

static void halted_vcpu_wakes(void **state)
{
	struct insn i = {0};

	machine_long(0);
	set_gate(0x40, SYS_INT, 0, CODE64, HANDLER, 0);
	assert_true(run_op(op_hlt, &i));
	machine->external = 0x40;
	assert_true(run_events());
	assert_int_equal(cpu()->mp_state, KVM_MP_STATE_RUNNABLE);
	assert_int_equal(peek(cpu()->regs[RSP], 8), CODE + 2);
}

static void breakpoints_of_an_abandoned_instruction(void **state)
{
	machine_long(0);
	cpu()->events.debug = 1;
	fault(EXC_GP, 0);
	assert_int_equal(cpu()->events.debug, 0);
	/* What MOV SS has put off survives the fault of the next instruction. */
	cpu()->events.debug = 1;
	cpu()->int_shadow = 2;
	fault(EXC_GP, 0);
	assert_int_equal(cpu()->events.debug, 1);
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
	    T(interrupt_whose_gate_is_bad_is_lost),
	    T(interrupt_outlives_bad_nmi),
	    T(delivery_starts_again_after_mmio),
	    T(int1_is_hardware),
	    T(halted_vcpu_wakes),
	    T(breakpoints_of_an_abandoned_instruction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
