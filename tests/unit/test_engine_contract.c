/*
 * The engine contract, held against every engine that this machine has: the same tests, the same
 * tiny real-mode guests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine.h"

#define RAM_BYTES    0x10000ul
#define CODE	     0x1000ul /* where guests are put and started */
#define STACK	     0x8000ul
#define MMIO	     0xf0000ul /* no memory there */
#define PORT	     0xf1
#define CR0_PG	     BIT(31)
#define EFER_LMA     BIT(10)
#define RFLAGS_ONE   2ull
#define IA32_TSC_AUX 0xc0000103
#define IA32_STAR    0xc0000081
#define SECONDS	     20 /* after which a guest that should have come back counts as lost */

/* The engine under test, between setup() and teardown(). */
struct bench {
	const struct engine *engine;
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	u8 *ram;
};

/* A 16-bit guest, named by the symbols NAME and NAME_end. */
#define GUEST(name, code)                                                                          \
	extern const u8 name[], name##_end[];                                                      \
	__asm__(".pushsection .rodata\n.code16\n.intel_syntax noprefix\n" #name ":\n" code         \
		"\n" #name "_end:\n.att_syntax\n.code64\n.popsection")

/* ---- set-up ---- */

static void must(int ret, const struct error *err)
{
	if (ret)
		fail_msg("%s (%d)", err->text, ret);
}

static void add_ram(struct bench *b)
{
	struct kvm_userspace_memory_region region = {
	    .slot = 0,
	    .guest_phys_addr = 0,
	    .memory_size = RAM_BYTES,
	    .userspace_addr = (uintptr_t)b->ram,
	};
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
}

static const struct engine *engine_under_test;
static const char *device_under_test; /* NULL: the engine's usual one */

static void open_bench(struct bench *b, const struct engine *engine, bool irqchip)
{
	struct error err = {0};

	b->engine = engine;
	must(engine->vm_create(device_under_test, &b->vm, &err), &err);
	if (irqchip)
		assert_int_equal(engine->vm_create_irqchip(b->vm), 0);
	b->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b->ram, MAP_FAILED);
	add_ram(b);
	must(engine->vcpu_create(b->vm, 0, &b->vcpu, &err), &err);
}

static void close_bench(struct bench *b)
{
	b->engine->vcpu_destroy(b->vcpu);
	b->engine->vm_destroy(b->vm);
	munmap(b->ram, RAM_BYTES);
}

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	open_bench(b, engine_under_test, false);
	*state = b;
	return 0;
}

static int setup_irqchip(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	open_bench(b, engine_under_test, true);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	close_bench(*state);
	free(*state);
	return 0;
}

/* Puts @code at CODE and the processor at its start in real mode, all segments 0, IF 0. */
static void load(struct bench *b, const u8 *code, const u8 *end)
{
	memcpy(b->ram + CODE, code, end - code);

	struct kvm_sregs sregs;
	assert_int_equal(b->engine->vcpu_get_sregs(b->vcpu, &sregs), 0);
	struct kvm_segment *segments[] = {&sregs.cs, &sregs.ds, &sregs.es,
					  &sregs.ss, &sregs.fs, &sregs.gs};
	for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
		segments[i]->base = 0;
		segments[i]->selector = 0;
	}
	assert_int_equal(b->engine->vcpu_set_sregs(b->vcpu, &sregs), 0);

	struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rflags = RFLAGS_ONE};
	assert_int_equal(b->engine->vcpu_set_regs(b->vcpu, &regs), 0);
}

#define LOAD(b, name) load(b, name, name##_end)

static void set_vector(struct bench *b, u8 vector, u16 offset)
{
	memcpy(b->ram + vector * 4, &(u16[]){offset, 0}, 4);
}

static struct kvm_regs get_regs(struct bench *b)
{
	struct kvm_regs regs;
	assert_int_equal(b->engine->vcpu_get_regs(b->vcpu, &regs), 0);
	return regs;
}

/* ---- running and looking at exits ---- */

static struct kvm_run *run_to(struct bench *b, u32 reason)
{
	assert_int_equal(b->engine->vcpu_run(b->vcpu), 0);
	if (b->vcpu->run->exit_reason != reason) {
		struct kvm_regs regs = get_regs(b);
		fail_msg("exit reason %u instead of %u, RIP %#llx", b->vcpu->run->exit_reason,
			 reason, regs.rip);
	}
	return b->vcpu->run;
}

static u8 *io_data(struct kvm_run *run)
{
	return (u8 *)run + run->io.data_offset;
}

static void expect_out(struct bench *b, u16 port, u8 size, u32 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_IO);
	u32 seen = 0;

	assert_int_equal(run->io.direction, KVM_EXIT_IO_OUT);
	assert_int_equal(run->io.port, port);
	assert_int_equal(run->io.size, size);
	assert_int_equal(run->io.count, 1);
	memcpy(&seen, io_data(run), size);
	assert_int_equal(seen, value);
}

static void answer_in(struct bench *b, u16 port, u8 size, u32 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_IO);

	assert_int_equal(run->io.direction, KVM_EXIT_IO_IN);
	assert_int_equal(run->io.port, port);
	assert_int_equal(run->io.size, size);
	assert_int_equal(run->io.count, 1);
	memcpy(io_data(run), &value, size);
}

static void expect_mmio_write(struct bench *b, u64 gpa, u32 size, u64 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_MMIO);
	u64 seen = 0;

	assert_true(run->mmio.is_write);
	assert_int_equal(run->mmio.phys_addr, gpa);
	assert_int_equal(run->mmio.len, size);
	memcpy(&seen, run->mmio.data, size);
	assert_int_equal(seen, value);
}

static void answer_mmio(struct bench *b, u64 gpa, u32 size, u64 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_MMIO);

	assert_false(run->mmio.is_write);
	assert_int_equal(run->mmio.phys_addr, gpa);
	assert_int_equal(run->mmio.len, size);
	memcpy(run->mmio.data, &value, size);
}

static void expect_hlt(struct bench *b)
{
	run_to(b, KVM_EXIT_HLT);
}

/* ---- ports ---- */

GUEST(guest_out, "mov dx, 0xf1; mov al, 'A'; out dx, al; mov ax, 0x1234; out dx, ax;"
		 "mov eax, 0xdeadbeef; out dx, eax; out 0x42, al; hlt; mov al, 7; out dx, al; hlt");

static void test_port_out_and_hlt(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_out);
	expect_out(b, PORT, 1, 'A');
	expect_out(b, PORT, 2, 0x1234);
	expect_out(b, PORT, 4, 0xdeadbeef);
	expect_out(b, 0x42, 1, 0xef);
	expect_hlt(b);
	/* the instruction is complete: running again goes on behind it */
	expect_out(b, PORT, 1, 7);
	expect_hlt(b);
	assert_int_equal(get_regs(b).rip, CODE + (guest_out_end - guest_out));
}

GUEST(guest_in, "mov eax, -1; in al, 0x60; out 0x80, eax; mov dx, 0x1f0; in ax, dx; out 0x80, eax;"
		"in eax, dx; out 0x80, eax; hlt");

static void test_port_in(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_in);
	answer_in(b, 0x60, 1, 0x5a);
	expect_out(b, 0x80, 4, 0xffffff5a);
	answer_in(b, 0x1f0, 2, 0xcafe);
	expect_out(b, 0x80, 4, 0xffffcafe);
	answer_in(b, 0x1f0, 4, 0x01234567);
	expect_out(b, 0x80, 4, 0x01234567);
	expect_hlt(b);
}

GUEST(guest_string, "cld; mov dx, 0xf1; mov si, 0x2000; mov cx, 5; rep outsb;"
		    "mov dx, 0x1f0; mov di, 0x3000; mov cx, 4; rep insw; hlt");

/* An engine may report several elements in one exit or one at a time. */
static void test_port_strings(void **state)
{
	struct bench *b = *state;
	char out[16] = "";
	size_t got = 0;
	u16 next = 0x100;

	LOAD(b, guest_string);
	memcpy(b->ram + 0x2000, "hello", 5);
	while (got < 5) {
		struct kvm_run *run = run_to(b, KVM_EXIT_IO);
		assert_int_equal(run->io.direction, KVM_EXIT_IO_OUT);
		assert_int_equal(run->io.size, 1);
		assert_in_range(run->io.count, 1, 5 - got);
		memcpy(out + got, io_data(run), run->io.count);
		got += run->io.count;
	}
	assert_string_equal(out, "hello");
	for (got = 0; got < 4;) {
		struct kvm_run *run = run_to(b, KVM_EXIT_IO);
		assert_int_equal(run->io.direction, KVM_EXIT_IO_IN);
		assert_int_equal(run->io.size, 2);
		assert_in_range(run->io.count, 1, 4 - got);
		for (u32 i = 0; i < run->io.count; i++, got++, next++)
			memcpy(io_data(run) + 2 * i, &next, 2);
	}
	expect_hlt(b);
	assert_memory_equal(b->ram + 0x3000, ((u16[]){0x100, 0x101, 0x102, 0x103}), 8);
	struct kvm_regs regs = get_regs(b);
	assert_int_equal(regs.rsi & 0xffff, 0x2005);
	assert_int_equal(regs.rdi & 0xffff, 0x3008);
	assert_int_equal(regs.rcx & 0xffff, 0);
}

/* ---- MMIO ---- */

GUEST(guest_mmio, "mov ax, 0xf000; mov es, ax; mov eax, es:[0x10]; out 0x80, eax;"
		  "mov byte ptr es:[0x20], 0x77; add word ptr es:[0x30], 3;"
		  "cld; push es; pop ds; xor ax, ax; mov es, ax; mov si, 0x40; mov di, 0x3000;"
		  "mov cx, 3; rep movsb; hlt");

static void test_mmio(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_mmio);
	answer_mmio(b, MMIO + 0x10, 4, 0x89abcdef);
	expect_out(b, 0x80, 4, 0x89abcdef);
	expect_mmio_write(b, MMIO + 0x20, 1, 0x77);
	answer_mmio(b, MMIO + 0x30, 2, 0x1111);
	expect_mmio_write(b, MMIO + 0x30, 2, 0x1114);
	answer_mmio(b, MMIO + 0x40, 1, 'a');
	answer_mmio(b, MMIO + 0x41, 1, 'b');
	answer_mmio(b, MMIO + 0x42, 1, 'c');
	expect_hlt(b);
	assert_memory_equal(b->ram + 0x3000, "abc", 3);
}

/* ---- kicks ---- */

GUEST(guest_spin, "1: inc ebx; jmp 1b");

static void test_immediate_exit(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_spin);
	b->vcpu->run->immediate_exit = 1;
	assert_int_equal(b->engine->vcpu_run(b->vcpu), -EINTR);
	assert_int_equal(get_regs(b).rip, CODE);
	assert_int_equal(get_regs(b).rbx, 0);
}

/* An answered IN is completed before immediate_exit is honoured. */
static void test_completion_before_immediate_exit(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_in);
	answer_in(b, 0x60, 1, 0x5a);
	b->vcpu->run->immediate_exit = 1;
	assert_int_equal(b->engine->vcpu_run(b->vcpu), -EINTR);
	b->vcpu->run->immediate_exit = 0;
	assert_int_equal(get_regs(b).rax & 0xff, 0x5a);
	assert_int_equal(get_regs(b).rip, CODE + 8); /* behind MOV and IN */
	expect_out(b, 0x80, 4, 0xffffff5a);
}

struct runner {
	struct bench *b;
	sem_t go, back;
	int result;
	bool stop;
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;

	for (;;) {
		sem_wait(&r->go);
		if (r->stop)
			return NULL;
		r->result = r->b->engine->vcpu_run(r->b->vcpu);
		r->b->vcpu->run->immediate_exit = 0;
		sem_post(&r->back);
	}
}

static void runner_start(struct runner *r, struct bench *b, pthread_t *thread)
{
	*r = (struct runner){.b = b};
	sem_init(&r->go, 0, 0);
	sem_init(&r->back, 0, 0);
	assert_int_equal(pthread_create(thread, NULL, runner_main, r), 0);
}

static void runner_stop(struct runner *r, pthread_t thread)
{
	r->stop = true;
	sem_post(&r->go);
	pthread_join(thread, NULL);
}

static bool runner_is_back(struct runner *r)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SECONDS;
	while (sem_timedwait(&r->back, &until))
		if (errno != EINTR)
			return false;
	return true;
}

static void test_kick_from_another_thread(void **state)
{
	struct bench *b = *state;
	struct runner r;
	pthread_t thread;
	u64 rbx = 0;

	LOAD(b, guest_spin);
	runner_start(&r, b, &thread);
	for (int i = 0; i < 3; i++) {
		sem_post(&r.go);
		usleep(20000);
		b->engine->vcpu_kick(b->vcpu);
		assert_true(runner_is_back(&r));
		assert_int_equal(r.result, -EINTR);
		struct kvm_regs regs = get_regs(b);
		assert_in_range(regs.rip, CODE, CODE + 4);
		assert_true(regs.rbx > rbx); /* it had been running */
		rbx = regs.rbx;
	}
	runner_stop(&r, thread);
}

/* Kicks at every moment around the entry: none is lost, or the guest spins until the deadline. */
static void test_no_kick_is_lost(void **state)
{
	struct bench *b = *state;
	struct runner r;
	pthread_t thread;

	LOAD(b, guest_spin);
	runner_start(&r, b, &thread);
	for (int i = 0; i < 100; i++) {
		sem_post(&r.go);
		for (volatile int spin = 0; spin < i * 97 % 20000; spin++)
			;
		b->engine->vcpu_kick(b->vcpu);
		assert_true(runner_is_back(&r));
		assert_int_equal(r.result, -EINTR);
	}
	runner_stop(&r, thread);
}

/* ---- state ---- */

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

/* ---- memory slots ---- */

GUEST(guest_slots, "mov ax, 0x2000; mov es, ax; mov al, es:[0]; out 0x80, al;"
		   "mov byte ptr es:[0], 0x99; mov al, es:[0]; out 0x80, al; hlt");

static void test_memory_slots(void **state)
{
	struct bench *b = *state;
	u8 *extra = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {
	    .slot = 1,
	    .guest_phys_addr = 0x20000,
	    .memory_size = 0x2000,
	    .userspace_addr = (uintptr_t)extra,
	};
	struct kvm_userspace_memory_region bad;

	/* refused: misaligned address or size, overlap with slot 0 */
	bad = region;
	bad.guest_phys_addr += 0x800;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &bad), -EINVAL);
	bad = region;
	bad.memory_size = 0x1800;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &bad), -EINVAL);
	bad = region;
	bad.guest_phys_addr = 0xf000;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &bad), -EEXIST);

	/* added: memory */
	extra[0] = 0x11;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
	LOAD(b, guest_slots);
	expect_out(b, 0x80, 1, 0x11);
	expect_out(b, 0x80, 1, 0x99);
	expect_hlt(b);
	assert_int_equal(extra[0], 0x99);

	/* deleted: MMIO */
	region.memory_size = 0;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
	LOAD(b, guest_slots);
	answer_mmio(b, 0x20000, 1, 0x22);
	expect_out(b, 0x80, 1, 0x22);
	expect_mmio_write(b, 0x20000, 1, 0x99);
	answer_mmio(b, 0x20000, 1, 0x33);
	expect_out(b, 0x80, 1, 0x33);
	expect_hlt(b);

	/* read-only: reads are memory, writes are MMIO */
	region.memory_size = 0x2000;
	region.flags = KVM_MEM_READONLY;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
	extra[0] = 0x44;
	LOAD(b, guest_slots);
	expect_out(b, 0x80, 1, 0x44);
	expect_mmio_write(b, 0x20000, 1, 0x99);
	expect_out(b, 0x80, 1, 0x44);
	expect_hlt(b);
	munmap(extra, 0x2000);
}

/* Memory that is a file's; where the engine looks at it, what it is told has to make sense. */
static void test_memory_file(void **state)
{
	struct error err = {0};
	struct bench b = {.engine = engine_under_test};
	bool looks = !strcmp(b.engine->name, "soft");
	int fd = memfd_create("contract", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 2 * RAM_BYTES), 0);
	b.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, RAM_BYTES);
	assert_ptr_not_equal(b.ram, MAP_FAILED);
	must(b.engine->vm_create(device_under_test, &b.vm, &err), &err);
	if (looks)
		assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, 0), -ENOENT);
	add_ram(&b);
	if (looks) {
		assert_int_equal(b.engine->vm_memory_file(b.vm, 1, fd, 0), -ENOENT);
		assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, 0x800), -EINVAL);
	}
	assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, RAM_BYTES), 0);
	/* told anew: the last one counts */
	assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, RAM_BYTES), 0);
	must(b.engine->vcpu_create(b.vm, 0, &b.vcpu, &err), &err);
	LOAD(&b, guest_slots);
	answer_mmio(&b, 0x20000, 1, 0x22);
	expect_out(&b, 0x80, 1, 0x22);
	expect_mmio_write(&b, 0x20000, 1, 0x99);
	answer_mmio(&b, 0x20000, 1, 0x33);
	expect_out(&b, 0x80, 1, 0x33);
	expect_hlt(&b);
	close_bench(&b);
	close(fd);
}

/* ---- events ---- */

/* Vector 0x21 (PIC pin 1 after ICW2 = 0x20) and 2 (NMI) lead to handlers that say so. */
GUEST(guest_irq,
      "jmp start\n"
      ".org guest_irq + 0x10\n" /* handler of IRQ 1: say so, end of interrupt */
      "mov al, 0xaa; out 0x80, al; mov al, 0x20; out 0x20, al; iret\n"
      ".org guest_irq + 0x20\n" /* handler of NMI */
      "mov al, 0xbb; out 0x80, al; iret\n"
      "start: mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al\n"
      "mov al, 1; out 0x21, al; mov al, 0xfd; out 0x21, al\n"
      "mov al, 1; out 0x80, al; sti; nop; mov al, 2; out 0x80, al; cli\n"
      "mov al, 3; out 0x80, al; mov al, 4; out 0x80, al\n"
      /* interrupts only in HLT, however late it comes to be executed */
      "1: sti; hlt; cli; mov al, 5; out 0x80, al; jmp 1b");

static void test_irq_line(void **state)
{
	struct bench *b = *state;
	struct runner r;
	pthread_t thread;

	LOAD(b, guest_irq);
	set_vector(b, 0x21, CODE + 0x10);
	expect_out(b, 0x80, 1, 1);
	expect_out(b, 0x80, 1, 2); /* nothing pending */
	expect_out(b, 0x80, 1, 3);
	assert_true(b->engine->vm_irq_line(b->vm, 1, 1) >= 0);
	expect_out(b, 0x80, 1, 4); /* IF is 0 */
	expect_out(b, 0x80, 1, 0xaa);
	assert_true(b->engine->vm_irq_line(b->vm, 1, 0) >= 0);
	expect_out(b, 0x80, 1, 5); /* HLT was the shadow of STI: the interrupt woke it */

	/* an edge wakes a vCPU that sleeps in HLT on another thread */
	runner_start(&r, b, &thread);
	sem_post(&r.go);
	usleep(20000);
	assert_true(b->engine->vm_irq_line(b->vm, 1, 1) >= 0);
	assert_true(runner_is_back(&r));
	assert_int_equal(r.result, 0);
	assert_int_equal(b->vcpu->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(*io_data(b->vcpu->run), 0xaa);

	/* and a kick wakes it, without an instruction being lost */
	sem_post(&r.go);
	assert_true(runner_is_back(&r));
	assert_int_equal(*io_data(b->vcpu->run), 5);
	sem_post(&r.go);
	usleep(20000);
	b->engine->vcpu_kick(b->vcpu);
	assert_true(runner_is_back(&r));
	assert_int_equal(r.result, -EINTR);
	runner_stop(&r, thread);
}

static void test_nmi(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_irq);
	set_vector(b, 2, CODE + 0x20);
	expect_out(b, 0x80, 1, 1);
	assert_int_equal(b->engine->vcpu_nmi(b->vcpu), 0);
	expect_out(b, 0x80, 1, 0xbb); /* IF is 0: it does not ask */
	expect_out(b, 0x80, 1, 2);
}

GUEST(guest_interrupt, "mov al, 1; out 0x80, al; sti; 1: jmp 1b\n"
		       ".org guest_interrupt + 0x20\n"
		       "mov al, 0xcc; out 0x80, al; cli; hlt");

/* Without interrupt chips: the monitor waits for the window, then queues a vector. */
static void test_interrupt_window(void **state)
{
	struct bench *b = *state;
	struct kvm_run *run = b->vcpu->run;

	LOAD(b, guest_interrupt);
	set_vector(b, 0x33, CODE + 0x20);
	expect_out(b, 0x80, 1, 1);
	run->request_interrupt_window = 1;
	run_to(b, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_true(run->ready_for_interrupt_injection);
	run->request_interrupt_window = 0;
	assert_int_equal(b->engine->vcpu_interrupt(b->vcpu, 0x33), 0);
	expect_out(b, 0x80, 1, 0xcc);
	expect_hlt(b);
}

static void test_interrupt_needs_no_irqchip(void **state)
{
	struct bench *b = *state;

	assert_int_equal(b->engine->vcpu_interrupt(b->vcpu, 0x33), -ENXIO);
}

static void test_lapic_state(void **state)
{
	struct bench *b = *state;
	struct kvm_lapic_state lapic;
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	assert_int_equal(b->engine->vcpu_get_lapic(b->vcpu, &lapic), 0);
	assert_int_equal(*(u32 *)(lapic.regs + 0x20) >> 24, 0);	    /* ID */
	assert_int_equal(*(u32 *)(lapic.regs + 0x30) & 0xf0, 0x10); /* version 1x (SDM 3A 10.4.8) */
	*(u32 *)(lapic.regs + 0x80) = 0x30;			    /* TPR */
	assert_int_equal(b->engine->vcpu_set_lapic(b->vcpu, &lapic), 0);
	assert_int_equal(b->engine->vcpu_get_lapic(b->vcpu, &lapic), 0);
	assert_int_equal(*(u32 *)(lapic.regs + 0x80), 0x30);

	assert_int_equal(b->engine->vm_get_irqchip(b->vm, &chip), 0);
	assert_true(chip.chip.ioapic.redirtbl[5].fields.mask);
	chip.chip.ioapic.redirtbl[5].fields.vector = 0x45;
	assert_int_equal(b->engine->vm_set_irqchip(b->vm, &chip), 0);
	chip.chip.ioapic.redirtbl[5].fields.vector = 0;
	assert_int_equal(b->engine->vm_get_irqchip(b->vm, &chip), 0);
	assert_int_equal(chip.chip.ioapic.redirtbl[5].fields.vector, 0x45);
}

static void test_pit_state(void **state)
{
	struct bench *b = *state;
	struct kvm_pit_config config = {0};
	struct kvm_pit_state2 pit;

	assert_int_equal(b->engine->vm_create_pit(b->vm, &config), 0);
	assert_int_equal(b->engine->vm_get_pit(b->vm, &pit), 0);
	pit.channels[2].count = 0x1234;
	pit.channels[2].mode = 3;
	assert_int_equal(b->engine->vm_set_pit(b->vm, &pit), 0);
	memset(&pit, 0, sizeof(pit));
	assert_int_equal(b->engine->vm_get_pit(b->vm, &pit), 0);
	assert_int_equal(pit.channels[2].count, 0x1234);
	assert_int_equal(pit.channels[2].mode, 3);
}

static void test_clock(void **state)
{
	struct bench *b = *state;
	struct kvm_clock_data clock = {.clock = 5000000000};

	assert_int_equal(b->engine->vm_set_clock(b->vm, &clock), 0);
	assert_int_equal(b->engine->vm_get_clock(b->vm, &clock), 0);
	assert_in_range(clock.clock, 5000000000, 5000000000 + SECONDS * 1000000000ull);
}

GUEST(guest_triple_fault, "lidt cs:[0x1000 + 1f - guest_triple_fault]; mov eax, cr0; or al, 1;"
			  "mov cr0, eax; ud2; 1: .word 0, 0, 0");

/* Protected mode with an IDT of no entries: #UD, #GP, #DF and then nothing. */
static void test_triple_fault(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_triple_fault);
	run_to(b, KVM_EXIT_SHUTDOWN);
}

static void test_two_vms(void **state)
{
	struct bench *b = *state, other = {0};

	open_bench(&other, b->engine, false);
	LOAD(b, guest_out);
	LOAD(&other, guest_in);
	expect_out(b, PORT, 1, 'A');
	answer_in(&other, 0x60, 1, 0x42);
	expect_out(b, PORT, 2, 0x1234);
	expect_out(&other, 0x80, 4, 0xffffff42);
	close_bench(&other);
	expect_out(b, PORT, 4, 0xdeadbeef);
}

static void test_stats(void **state)
{
	struct bench *b = *state;
	struct engine_stats stats = {.exit_io = 100};

	LOAD(b, guest_out);
	for (int i = 0; i < 4; i++)
		run_to(b, KVM_EXIT_IO);
	expect_hlt(b);
	b->engine->vcpu_stats(b->vcpu, &stats);
	assert_int_equal(stats.exit_io, 104); /* added, not set */
	assert_int_equal(stats.exit_hlt, 1);
	assert_int_equal(stats.exits_full, 5);
	assert_true(stats.ns_guest > 0);
}

static void test_vmx_is_told_or_not(void **state)
{
	struct bench *b = *state;
	struct engine_vmx vmx = {.on = true, .eptp = 1, .field_count = 1};
	int ret = b->engine->vcpu_get_vmx(b->vcpu, &vmx);

	if (ret == -EOPNOTSUPP)
		return;
	assert_int_equal(ret, 0);
	assert_false(vmx.on || vmx.nonroot || vmx.eptp || vmx.field_count || *vmx.failure);
	assert_true(vmx.vmcs == ENGINE_VMCS_NONE);
}

#define PLAIN(test)   cmocka_unit_test_setup_teardown(test, setup, teardown)
#define IRQCHIP(test) cmocka_unit_test_setup_teardown(test, setup_irqchip, teardown)

/* Whether the engine under test has interrupt chips: not every driver of KVM's kind does. */
static bool has_irqchip(void)
{
	struct error err = {0};
	struct engine_vm *vm;
	bool has;

	if (engine_under_test->vm_create(device_under_test, &vm, &err))
		return false;
	has = engine_under_test->vm_check_extension(vm, KVM_CAP_IRQCHIP) > 0;
	engine_under_test->vm_destroy(vm);
	return has;
}

/* With an argument, that engine only; with a second one, on that device. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    PLAIN(test_port_out_and_hlt),
	    PLAIN(test_port_in),
	    PLAIN(test_port_strings),
	    PLAIN(test_mmio),
	    PLAIN(test_immediate_exit),
	    PLAIN(test_completion_before_immediate_exit),
	    PLAIN(test_kick_from_another_thread),
	    PLAIN(test_no_kick_is_lost),
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
	    PLAIN(test_memory_slots),
	    cmocka_unit_test(test_memory_file),
	    PLAIN(test_interrupt_window),
	    PLAIN(test_triple_fault),
	    PLAIN(test_two_vms),
	    PLAIN(test_stats),
	    PLAIN(test_vmx_is_told_or_not),
	};
	const struct CMUnitTest irqchip_tests[] = {
	    IRQCHIP(test_irq_line),
	    IRQCHIP(test_nmi),
	    IRQCHIP(test_interrupt_needs_no_irqchip),
	    IRQCHIP(test_lapic_state),
	    IRQCHIP(test_pit_state),
	    IRQCHIP(test_clock),
	};
	int failed = 0, ran = 0;

	for (const struct engine *const *e = engines; *e; e++) {
		struct engine_probe probe;

		if (argc > 1 && strcmp(argv[1], (*e)->name))
			continue;
		device_under_test = argc > 2 ? argv[2] : NULL;
		(*e)->probe(device_under_test, &probe);
		printf("engine %s: %s\n", (*e)->name, probe.reason);
		fflush(stdout);
		if (!probe.usable)
			continue;
		engine_under_test = *e;
		failed += cmocka_run_group_tests_name((*e)->name, tests, NULL, NULL);
		if (has_irqchip())
			failed += cmocka_run_group_tests_name("interrupt chips", irqchip_tests,
							      NULL, NULL);
		ran++;
	}
	return failed ? 1 : ran ? 0 : 77;
}
