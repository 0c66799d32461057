/*
 * vcpu_set_guest_debug(), on every engine: what it reports, and that the guest does not notice.
 * Tiny real-mode guests.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine_bench.h"

#define DATA	0x3000
#define HANDLER 0x5000
#define PORT	0xf1
#define SECONDS 60

#define ENABLE	 KVM_GUESTDBG_ENABLE
#define STEP	 (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP)
#define SOFT_BP	 (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP)
#define HARD_BP	 (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP)
#define EXC_DB	 1
#define EXC_BP	 3
#define DR6_BS	 BIT(14)
#define INT3	 0xcc
#define FLAGS_TF BIT(8)

/* DR7: breakpoint 0 */
#define ON_EXEC	      0x1u
#define ON_WRITE_WORD (0x1u | 1u << 16 | 1u << 18)
#define ON_USE_WORD   (0x1u | 3u << 16 | 1u << 18)

static const struct engine *engine;

static int setup_alarm(void **state)
{
	alarm(SECONDS);
	return setup(state);
}

static int setup_irqchip_alarm(void **state)
{
	alarm(SECONDS);
	return setup_irqchip(state);
}

static int teardown_alarm(void **state)
{
	alarm(0);
	return teardown(state);
}

static void put_handler(struct bench *b, u8 vector, const u8 *code, const u8 *end)
{
	memcpy(b->ram + HANDLER, code, (size_t)(end - code));
	memcpy(b->ram + vector * 4, &(u16[]){HANDLER, 0}, 4);
}

static int debug(struct bench *b, u32 control, u64 address, u64 dr7)
{
	struct kvm_guest_debug debug = {
	    .control = control, .arch.debugreg[0] = address, .arch.debugreg[7] = dr7};
	return engine->vcpu_set_guest_debug(b->vcpu, &debug);
}

/* The next stop of the debugger; @dr6: the bits of B0 to B3 and BS. */
static void stop_at(struct bench *b, u32 exception, u64 pc, u64 dr6)
{
	run_to(b, KVM_EXIT_DEBUG);
	const struct kvm_debug_exit_arch *arch = &b->vcpu->run->debug.arch;
	assert_int_equal(arch->exception, exception);
	assert_int_equal(arch->pc, pc);
	assert_int_equal(get_regs(b).rip, pc);
	if (exception == EXC_DB)
		assert_int_equal(arch->dr6 & (DR6_BS | 0xf), dr6);
}

static void step_to(struct bench *b, u64 pc)
{
	stop_at(b, EXC_DB, pc, DR6_BS);
}

/* Runs to HLT; what the debugger is told meanwhile is the guest's own, and handed back. */
static void run_and_hand_back(struct bench *b, u32 control, u64 address, u64 dr7)
{
	for (int n = 0; n < 10; n++) {
		assert_int_equal(engine->vcpu_run(b->vcpu), 0);
		if (b->vcpu->run->exit_reason == KVM_EXIT_HLT)
			return;
		assert_int_equal(b->vcpu->run->exit_reason, KVM_EXIT_DEBUG);
		const struct kvm_debug_exit_arch *arch = &b->vcpu->run->debug.arch;
		u32 inject = KVM_GUESTDBG_INJECT_BP;
		if (arch->exception == EXC_DB) {
			struct kvm_debugregs dregs;
			inject = KVM_GUESTDBG_INJECT_DB;
			assert_int_equal(engine->vcpu_get_debugregs(b->vcpu, &dregs), 0);
			dregs.dr6 = arch->dr6;
			assert_int_equal(engine->vcpu_set_debugregs(b->vcpu, &dregs), 0);
		}
		assert_int_equal(debug(b, control | inject, address, dr7), 0);
	}
	fail_msg("no HLT, RIP %#llx", get_regs(b).rip);
}

/* QEMU's own SVM, which tests/linux/kvm.sh runs this on, intercepts no #BP of INT3 and loads no
 * debug registers: a KVM there knows no breakpoints. */
static bool no_breakpoints(void)
{
	char name[13] = {0};
	u32 eax, regs[3];

	__cpuid(0x40000000, eax, regs[0], regs[1], regs[2]);
	memcpy(name, regs, sizeof(regs));
	return engine == &engine_kvm && !strcmp(name, "TCGTCGTCGTCG");
}

/* KVM does; Guise's own hypervisor has the monitor trap flag. */
static bool steps_by_tf(void)
{
	return engine == &engine_kvm && (!bench_device() || strcmp(bench_device(), "/dev/guise"));
}

/* ---- software breakpoints ---- */

GUEST(guest_int3, "mov ax, 1; int3; mov bx, 2; hlt"); /* INT3 at 3 */

static void test_software_breakpoint(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_int3);
	assert_int_equal(debug(b, SOFT_BP, 0, 0), 0);
	stop_at(b, EXC_BP, CODE + 3, 0);
	assert_int_equal(get_regs(b).rax, 1);
	stop_at(b, EXC_BP, CODE + 3, 0); /* nothing has been done: it is met again */
	b->ram[CODE + 3] = 0x90;
	engine->vm_memory_written(b->vm, CODE + 3, 1);
	run_to(b, KVM_EXIT_HLT);
	assert_int_equal(get_regs(b).rbx, 2);
}

/* Code that has run already gets a breakpoint. */
GUEST(guest_loop, "1: inc ax; inc bx; out 0xf1, al; jmp 1b");

static void test_breakpoint_in_known_code(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_loop);
	assert_int_equal(debug(b, SOFT_BP, 0, 0), 0);
	for (int n = 0; n < 5; n++)
		run_to(b, KVM_EXIT_IO);
	b->ram[CODE + 1] = INT3;
	engine->vm_memory_written(b->vm, CODE + 1, 1);
	stop_at(b, EXC_BP, CODE + 1, 0);
	assert_int_equal(get_regs(b).rax, 6);
	assert_int_equal(get_regs(b).rbx, 5);
}

GUEST(handler_note, "pop cx; push cx; mov dx, 0x77; iret");

static void test_guests_own_int3(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_int3);
	put_handler(b, EXC_BP, handler_note, handler_note_end);
	assert_int_equal(debug(b, SOFT_BP, 0, 0), 0);
	run_and_hand_back(b, SOFT_BP, 0, 0);
	assert_int_equal(get_regs(b).rcx, CODE + 4); /* a trap: behind the instruction */
	assert_int_equal(get_regs(b).rdx, 0x77);
	assert_int_equal(get_regs(b).rbx, 2);
}

/* ---- single step ---- */

GUEST(guest_steps, "mov ax, 1;"	    /* 0 */
		   "call 1f;"	    /* 3 */
		   "in al, 0x60;"   /* 6: the monitor answers in the middle of it */
		   "out 0x60, al;"  /* 8 */
		   "pushf; pop bx;" /* 10, 11 */
		   "hlt;"	    /* 12 */
		   "1: ret");	    /* 13 */

static void test_single_step(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_steps);
	assert_int_equal(debug(b, STEP, 0, 0), 0);
	step_to(b, CODE + 3);
	step_to(b, CODE + 13);
	step_to(b, CODE + 6);
	run_to(b, KVM_EXIT_IO);
	((u8 *)b->vcpu->run)[b->vcpu->run->io.data_offset] = 0x5a;
	step_to(b, CODE + 8);
	assert_int_equal(get_regs(b).rax, 0x5a);
	run_to(b, KVM_EXIT_IO);
	step_to(b, CODE + 10);
	step_to(b, CODE + 11);
	assert_false(get_regs(b).rflags & FLAGS_TF);
	assert_int_equal(debug(b, 0, 0, 0), 0);
	run_to(b, KVM_EXIT_HLT);
	/* PUSHF shows TF. */
	if (!steps_by_tf())
		assert_false(get_regs(b).rbx & FLAGS_TF);
}

GUEST(guest_fault, "mov cl, 0; ud2; mov bx, 2; hlt"); /* #UD at 2 */
GUEST(handler_skip, "mov bp, sp; add word ptr [bp], 2; iret");

/* An instruction that faults: the next one is the handler's first. */
static void test_step_into_fault(void **state)
{
	struct bench *b = *state;

	if (steps_by_tf())
		skip(); /* delivery clears it */
	LOAD(b, guest_fault);
	put_handler(b, 6, handler_skip, handler_skip_end);
	assert_int_equal(debug(b, STEP, 0, 0), 0);
	step_to(b, CODE + 2);
	step_to(b, HANDLER);
	step_to(b, HANDLER + 2);
	step_to(b, HANDLER + 6);
	step_to(b, CODE + 4);
	step_to(b, CODE + 7);
}

GUEST(guest_line, "nop; nop; inc bx; inc bx; hlt");
GUEST(handler_eoi, "mov dx, 0x55; iret");

/* Steps through @code with interrupts held back; the handler of NMIs says so in DX. */
static void step_alone(struct bench *b, const u8 *code, const u8 *end)
{
	if (!(engine->vm_check_extension(b->vm, KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ))
		skip();
	load(b, code, end);
	put_handler(b, 2, handler_eoi, handler_eoi_end);
	assert_int_equal(debug(b, STEP | KVM_GUESTDBG_BLOCKIRQ, 0, 0), 0);
}

static void test_step_holds_interrupts_back(void **state)
{
	struct bench *b = *state;

	step_alone(b, guest_line, guest_line_end);
	step_to(b, CODE + 1);
	step_to(b, CODE + 2);
	assert_int_equal(engine->vcpu_nmi(b->vcpu), 0);
	step_to(b, CODE + 3);
	step_to(b, CODE + 4);
	assert_int_equal(get_regs(b).rdx, 0);
	assert_int_equal(debug(b, 0, 0, 0), 0);
	run_to(b, KVM_EXIT_HLT);
	assert_int_equal(get_regs(b).rdx, 0x55);
}

GUEST(guest_halt, "nop; hlt; inc bx; inc bx; out 0xf1, al; cli; hlt");

/* HLT is done when the vCPU halts; the next step is the instruction behind, once something wakes
 * it, also if that is held back. */
static void test_step_over_halt(void **state)
{
	struct bench *b = *state;

	step_alone(b, guest_halt, guest_halt_end);
	step_to(b, CODE + 1);
	step_to(b, CODE + 2);
	assert_int_equal(engine->vcpu_nmi(b->vcpu), 0);
	step_to(b, CODE + 3);
	assert_int_equal(get_regs(b).rdx, 0);
	assert_int_equal(debug(b, 0, 0, 0), 0);
	run_to(b, KVM_EXIT_IO);
	assert_int_equal(get_regs(b).rdx, 0x55);
	assert_int_equal(get_regs(b).rbx, 2);
}

/* ---- hardware breakpoints ---- */

/* BP on the INC at 4, in the middle of what would be one block */
GUEST(guest_count, "mov cx, 3; 1: inc ax; inc bx; nop; loop 1b; hlt");

static void test_execution_breakpoint(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_count);
	for (u32 n = 0; n < 3; n++) {
		assert_int_equal(debug(b, HARD_BP, CODE + 4, ON_EXEC), 0);
		stop_at(b, EXC_DB, CODE + 4, 1);
		assert_int_equal(get_regs(b).rax, n + 1);
		assert_int_equal(get_regs(b).rbx, n);
		assert_int_equal(debug(b, STEP, 0, 0), 0);
		step_to(b, CODE + 5);
	}
	assert_int_equal(debug(b, HARD_BP, CODE + 4, ON_EXEC), 0);
	run_to(b, KVM_EXIT_HLT);

	/* Elsewhere now, and nowhere. */
	LOAD(b, guest_count);
	assert_int_equal(debug(b, HARD_BP, CODE + 5, ON_EXEC), 0);
	stop_at(b, EXC_DB, CODE + 5, 1);
	assert_int_equal(debug(b, 0, 0, 0), 0);
	run_to(b, KVM_EXIT_HLT);
	assert_int_equal(get_regs(b).rbx, 3);
}

GUEST(guest_shadow, "sti; nop; inc bx; hlt");

/* On an instruction that is translated alone: STI comes before it. */
static void test_breakpoint_in_shadow(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_shadow);
	assert_int_equal(debug(b, HARD_BP, CODE + 1, ON_EXEC), 0);
	stop_at(b, EXC_DB, CODE + 1, 1);
	assert_int_equal(debug(b, STEP, 0, 0), 0);
	step_to(b, CODE + 2);
	assert_int_equal(debug(b, HARD_BP, CODE + 1, ON_EXEC), 0);
	run_to(b, KVM_EXIT_HLT);
	assert_int_equal(get_regs(b).rbx, 1);
}

GUEST(guest_data, "mov di, 0x3000;"			  /* 0 */
		  "mov ax, [di];"			  /* 3 */
		  "mov word ptr [di + 2], 1;"		  /* 5: the word behind */
		  "mov word ptr [di], 2;"		  /* 10 */
		  "mov byte ptr [di + 1], 3;"		  /* 14 */
		  "mov cx, 4; cld; sub di, 2; rep stosb;" /* 18, 21, 22, 25 */
		  "hlt");				  /* 27 */

static void test_write_watchpoint(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_data);
	assert_int_equal(debug(b, HARD_BP, DATA, ON_WRITE_WORD), 0);
	stop_at(b, EXC_DB, CODE + 14, 1);
	assert_int_equal(b->ram[DATA], 2);
	stop_at(b, EXC_DB, CODE + 18, 1);
	/* The third and the fourth element: behind the iteration, or behind the instruction. */
	run_to(b, KVM_EXIT_DEBUG);
	assert_true(b->vcpu->run->debug.arch.dr6 & 1);
	assert_int_equal(b->ram[DATA], get_regs(b).rax & 0xff);
	assert_int_equal(debug(b, 0, 0, 0), 0);
	run_to(b, KVM_EXIT_HLT);
	assert_int_equal(get_regs(b).rcx, 0);
}

GUEST(guest_store, "1: mov [0x3000], ax; inc ax; out 0xf1, al; jmp 1b");

/* The page is known to the TLB already. */
static void test_watchpoint_on_used_memory(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_store);
	for (int n = 0; n < 5; n++)
		run_to(b, KVM_EXIT_IO);
	assert_int_equal(debug(b, HARD_BP, DATA, ON_WRITE_WORD), 0);
	stop_at(b, EXC_DB, CODE + 3, 1);
	assert_int_equal(b->ram[DATA], 5);
}

static void test_access_watchpoint(void **state)
{
	struct bench *b = *state;

	if (no_breakpoints())
		skip();
	LOAD(b, guest_data);
	assert_int_equal(debug(b, HARD_BP, DATA, ON_USE_WORD), 0);
	stop_at(b, EXC_DB, CODE + 5, 1);
	stop_at(b, EXC_DB, CODE + 14, 1);
	/* It goes away while translations that know of it exist. */
	assert_int_equal(debug(b, ENABLE, 0, 0), 0);
	run_to(b, KVM_EXIT_HLT);
}

/* ---- the guest's own ---- */

GUEST(guest_own_tf, "pushf; pop ax; or ax, 0x100; push ax; popf; nop; and ax, 0xfeff; push ax;"
		    "popf; hlt");
GUEST(handler_count, "inc si; mov ebx, dr6; iret");

static void test_guests_own_trap_flag(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_own_tf);
	put_handler(b, EXC_DB, handler_count, handler_count_end);
	run_and_hand_back(b, 0, 0, 0);
	u64 traps = get_regs(b).rsi;
	assert_true(traps >= 3);

	LOAD(b, guest_own_tf);
	assert_int_equal(debug(b, HARD_BP, 0x9000, ON_EXEC), 0);
	run_and_hand_back(b, HARD_BP, 0x9000, ON_EXEC);
	assert_int_equal(get_regs(b).rsi, traps);
	assert_true(get_regs(b).rbx & DR6_BS);
}

GUEST(guest_own_dr, "mov eax, 0x1000 + 1f - guest_own_dr; mov dr0, eax; mov eax, 1; mov dr7, eax;"
		    "xor eax, eax; 1: nop; mov ecx, dr0; mov ebx, dr7; hlt");
GUEST(handler_resume, "inc si; mov bp, sp; mov edx, dr6; pop cx; pop bx; pop ax; or eax, 0x10000;"
		      "push eax; push 0; push bx; push 0; push cx; iretd");

/* The guest uses DR0 and DR7, the debugger the same ones. */
static void test_guests_own_registers(void **state)
{
	struct bench *b = *state;
	struct kvm_debugregs dregs;

	LOAD(b, guest_own_dr);
	put_handler(b, EXC_DB, handler_resume, handler_resume_end);
	assert_int_equal(debug(b, HARD_BP, DATA, ON_WRITE_WORD), 0);
	run_and_hand_back(b, HARD_BP, DATA, ON_WRITE_WORD);
	u64 at = get_regs(b).rcx;
	assert_in_range(at, CODE, CODE + 0x40);
	assert_int_equal(get_regs(b).rbx & 0xffff00ff, 1);
	assert_int_equal(engine->vcpu_get_debugregs(b->vcpu, &dregs), 0);
	assert_int_equal(dregs.db[0], at);
	assert_int_equal(dregs.dr7 & 0xffff00ff, 1);
	/* On KVM the guest's own rest meanwhile. */
	if (engine == &engine_soft) {
		assert_int_equal(get_regs(b).rsi, 1);
		assert_int_equal(get_regs(b).rdx & 0xf, 1);
	}
}

static void test_refused(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_int3);
	if (engine == &engine_soft) /* KVM does not look */
		assert_int_equal(debug(b, ENABLE | 0x80000000, 0, 0), -EINVAL);
	assert_int_equal(debug(b, ENABLE | KVM_GUESTDBG_INJECT_BP, 0, 0), 0);
	assert_int_equal(debug(b, ENABLE | KVM_GUESTDBG_INJECT_DB, 0, 0), -EBUSY);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup_alarm, teardown_alarm)

/* With an argument, that engine only; with another, on that device. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_software_breakpoint),
	    TEST(test_breakpoint_in_known_code),
	    TEST(test_guests_own_int3),
	    TEST(test_single_step),
	    TEST(test_step_into_fault),
	    TEST(test_step_holds_interrupts_back),
	    TEST(test_execution_breakpoint),
	    TEST(test_breakpoint_in_shadow),
	    cmocka_unit_test_setup_teardown(test_step_over_halt, setup_irqchip_alarm,
					    teardown_alarm),
	    TEST(test_write_watchpoint),
	    TEST(test_watchpoint_on_used_memory),
	    TEST(test_access_watchpoint),
	    TEST(test_guests_own_trap_flag),
	    TEST(test_guests_own_registers),
	    TEST(test_refused),
	};
	int failed = 0, ran = 0;

	for (const struct engine *const *e = engines; *e; e++) {
		struct engine_probe probe = {.usable = false};

		if (argc > 1 && strcmp(argv[1], (*e)->name))
			continue;
		bench_use(*e, argc > 2 ? argv[2] : NULL);
		(*e)->probe(bench_device(), &probe);
		printf("engine %s: %s\n", (*e)->name, probe.reason);
		fflush(stdout);
		if (!probe.usable)
			continue;
		if (probe.emulated) {
			printf("skipped: an emulator knows no breakpoints in kernel-mode code\n");
			continue;
		}
		engine = *e;
		failed += cmocka_run_group_tests_name((*e)->name, tests, NULL, NULL);
		ran++;
	}
	return failed ? 1 : ran ? 0 : 77;
}
