/*
 * kicks [--count N]: a thread kicks a guest that loops in every way there is, at random moments;
 * each kick has to bring vcpu_run() back with -EINTR. N kicks a loop.
 */
#include <errno.h>
#include <getopt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/wild/wild.h"

#define PATIENCE_NS 20000000000ull
#define SYSRET_GPA  0x3010
#define CODE_FOR(user, wants_smap, handler, ...)                                                   \
	{.code = {__VA_ARGS__}, .bytes = sizeof((u8[]){__VA_ARGS__})}, wants_smap, handler, user
#define CODE_WITH(wants_smap, handler, ...) CODE_FOR(false, wants_smap, handler, __VA_ARGS__)
#define CODE(...)			    CODE_FOR(false, false, 0, __VA_ARGS__)
#define PROGRAM(...)			    CODE_FOR(true, false, 0, __VA_ARGS__)

/* 64-bit code at 0; RDI = data, R8 = MMIO, RCX as the loop wants it */
static const struct loop {
	const char *name;
	bool irqchip;
	struct {
		u8 code[64];
		u32 bytes;
	} text;
	bool smap;
	u64 lstar;
	bool user; /* at CPL 3: with a shadow space, if programs get theirs at once */
} loops[] = {
    {"a jump to itself", false, CODE(0xeb, 0xfe)},
    {"two blocks and flags", false,
     CODE(0xff, 0xc0, 0x75, 0x02, 0x90, 0x90, 0xff, 0xcb, 0xeb, 0xf6)},
    {"blocks in two pages", false, CODE(0xe9, 0xfb, 0x2f, 0x00, 0x00)}, /* 0x3000 jumps back */
    /* lea rax, [rip-7]; jmp rax */
    {"an indirect jump", false, CODE(0x48, 0x8d, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xe0)},
    /* jmp 0x12; 0x12: lea rax, [0x801a]; jmp rax; there the same back, in the same slot of the jump
     * cache */
    {"jumps that share a slot", false,
     CODE(0xeb, 0x10, [0x12] = 0x48, 0x8d, 0x05, 0x01, 0x80, 0x00, 0x00, 0xff, 0xe0)},
    /* call 1f; jmp 0; 1: ret */
    {"calls and returns", false, CODE(0xe8, 0x02, 0x00, 0x00, 0x00, 0xeb, 0xf9, 0xc3)},
    /* mov ecx, 0x40000; rep stosb; sub rdi, 0x40000; jmp */
    {"REP STOS", false,
     CODE(0xb9, 0x00, 0x00, 0x04, 0x00, 0xf3, 0xaa, 0x48, 0x81, 0xef, 0x00, 0x00, 0x04, 0x00, 0xeb,
	  0xf0)},
    /* mov ecx, 0x40000; mov al, 0x77; repne scasb; sub rdi, 0x40000; jmp */
    /* mov ecx, 64; rep stosb; sub rdi, 64; mov ecx, 8; lea rsi, [rdi+64]; rep movsq; sub rdi, 64;
     * jmp */
    {"short REP STOS and MOVS", false,
     CODE(0xb9, 0x40, 0x00, 0x00, 0x00, 0xf3, 0xaa, 0x48, 0x83, 0xef, 0x40, 0xb9, 0x08, 0x00, 0x00,
	  0x00, 0x48, 0x8d, 0x77, 0x40, 0xf3, 0x48, 0xa5, 0x48, 0x83, 0xef, 0x40, 0xeb, 0xe3)},
    /* cli; sti; pushf; pop rax; rdtsc; mov rax, cr2; bts [rdi], ecx; sti; nop; jmp */
    {"short system instructions", true,
     CODE(0xfa, 0xfb, 0x9c, 0x58, 0x0f, 0x31, 0x0f, 0x20, 0xd0, 0x0f, 0xab, 0x0f, 0xfb, 0x90, 0xeb,
	  0xf0)},
    /* stac; mov [rdi], eax; clac; jmp */
    {"STAC and CLAC", false,
     CODE_WITH(true, 0, 0x0f, 0x01, 0xcb, 0x89, 0x07, 0x0f, 0x01, 0xca, 0xeb, 0xf6)},
    {"SYSCALL after SYSCALL", false, CODE(0x0f, 0x05)},
    /* syscall; jmp; its handler is a SYSRET */
    {"SYSCALL and SYSRET", true, CODE_WITH(false, SYSRET_GPA, 0x0f, 0x05, 0xeb, 0xfc)},
    {"REP SCAS over memory", false,
     CODE(0xb9, 0x00, 0x00, 0x04, 0x00, 0xb0, 0x77, 0xf2, 0xae, 0x48, 0x81, 0xef, 0x00, 0x00, 0x04,
	  0x00, 0xeb, 0xee)},
    {"MMIO reads", false, CODE(0x41, 0x8b, 0x00, 0xeb, 0xfb)},	/* mov eax, [r8]; jmp */
    {"MMIO writes", false, CODE(0x41, 0x89, 0x00, 0xeb, 0xfb)}, /* mov [r8], eax; jmp */
    {"MMIO reads and writes", false,
     CODE(0x41, 0x83, 0x00, 0x01, 0xeb, 0xfa)}, /* add [r8], 1; jmp */
    {"REP STOS to MMIO", false,
     CODE(0x4c, 0x89, 0xc7, 0xb9, 0x00, 0x08, 0x00, 0x00, 0xf3, 0xaa, 0xeb, 0xf4)},
    {"port reads and writes", false, CODE(0xec, 0xee, 0xeb, 0xfc)},
    {"CPUID", false, CODE(0x31, 0xc0, 0x0f, 0xa2, 0xeb, 0xfa)},
    {"exceptions", false, CODE(0x0f, 0x0b)},
    {"TLB misses", false, /* mov cr3, cr3; mov eax, [rdi]; jmp */
     CODE(0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x8b, 0x07, 0xeb, 0xf6)},
    {"code that is rewritten", false, /* inc byte [rip+1]; mov al, imm8; jmp */
     CODE(0xfe, 0x05, 0x01, 0x00, 0x00, 0x00, 0xb0, 0x00, 0xeb, 0xf6)},
    {"single steps", false, CODE(0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d, 0x90, 0xeb, 0xf6)},
    /* inc [rdi]; mov rax, [rdi+8]; test rsp, rsp; jnz: checks made once, for ever */
    {"one block without checks", false,
     CODE(0x48, 0xff, 0x07, 0x48, 0x8b, 0x47, 0x08, 0x48, 0x85, 0xe4, 0x75, 0xf4)},
    /* the same across the end of a page: never without */
    {"one block with checks that fail", false,
     CODE(0x48, 0xff, 0x87, 0xf8, 0x0f, 0x00, 0x00, 0x48, 0x8b, 0x87, 0x00, 0x10, 0x00, 0x00, 0x48,
	  0x85, 0xe4, 0x75, 0xed)},
    /* mov ecx, 0x1000; 1: mov rax, [rdi+rcx*8-8]; mov [rdi+rcx*8+0x10000], rax; dec rcx; jnz 1b;
       jmp */
    {"a copy page by page", false,
     CODE(0xb9, 0x00, 0x10, 0x00, 0x00, 0x48, 0x8b, 0x44, 0xcf, 0xf8, 0x48, 0x89, 0x84, 0xcf, 0x00,
	  0x00, 0x01, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xee, 0xeb, 0xe7)},
    /* mov rax, [rdi+0xff8]; mov [rdi+0x1000], rax; mov rcx, [rdi+0xff0]; jmp */
    {"fields of two pages", false,
     CODE(0x48, 0x8b, 0x87, 0xf8, 0x0f, 0x00, 0x00, 0x48, 0x89, 0x87, 0x00, 0x10, 0x00, 0x00, 0x48,
	  0x8b, 0x8f, 0xf0, 0x0f, 0x00, 0x00, 0xeb, 0xe9)},
    /* push rax; push rcx; pop rcx; pop rax; jmp */
    {"pushes and pops", false, CODE(0x50, 0x51, 0x59, 0x58, 0xeb, 0xfa)},
    {"a program's jump to itself", false, PROGRAM(0xeb, 0xfe)},
    {"a program in two pages", false, PROGRAM(0xe9, 0xfb, 0x2f, 0x00, 0x00)},
    {"a program's one block", false,
     PROGRAM(0x48, 0xff, 0x07, 0x48, 0x8b, 0x47, 0x08, 0x48, 0x85, 0xe4, 0x75, 0xf4)},
    {"a program's copy page by page", false,
     PROGRAM(0xb9, 0x00, 0x10, 0x00, 0x00, 0x48, 0x8b, 0x44, 0xcf, 0xf8, 0x48, 0x89, 0x84, 0xcf,
	     0x00, 0x00, 0x01, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xee, 0xeb, 0xe7)},
    {"a program's calls and returns", false,
     PROGRAM(0xe8, 0x02, 0x00, 0x00, 0x00, 0xeb, 0xf9, 0xc3)},
    {"a program's MMIO reads and writes", false, PROGRAM(0x41, 0x83, 0x00, 0x01, 0xeb, 0xfa)},
    {"a program that is rewritten", false,
     PROGRAM(0xfe, 0x05, 0x01, 0x00, 0x00, 0x00, 0xb0, 0x00, 0xeb, 0xf6)},
    {"HLT with a timer", true, /* LAPIC timer, periodic, vector 0x40, at r9: sti; hlt; jmp */
     CODE(0x41, 0xc7, 0x81, 0x20, 0x03, 0x00, 0x00, 0x40, 0x00, 0x02, 0x00, 0x41, 0xc7, 0x81, 0x80,
	  0x03, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0xfb, 0xf4, 0xeb, 0xfc)},
    {"HLT without a timer", true, CODE(0xfb, 0xf4, 0xeb, 0xfc)},
    {"a timer's interrupts", true, /* as above, spinning */
     CODE(0x41, 0xc7, 0x81, 0x20, 0x03, 0x00, 0x00, 0x40, 0x00, 0x02, 0x00, 0x41, 0xc7, 0x81, 0x80,
	  0x03, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0xfb, 0xeb, 0xfe)},
};

/* LAPIC: EOI, then return; with single steps and exceptions no EOI hurts */
static const u8 handler[] = {0x41, 0xc7, 0x81, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xcf};
static const u8 iret[] = {0x48, 0xcf};

struct kicker {
	struct wild *w;
	const char *name;
	u32 count;
	_Atomic u32 kicked, returned;
	_Atomic bool done;
};

static u64 now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static void spin(u64 ns)
{
	for (u64 end = now() + ns; now() < end;)
		;
}

static void *kick(void *argument)
{
	struct kicker *k = argument;
	struct random r = {k->count};
	for (u32 n = 1; n <= k->count; n++) {
		spin(random_below(&r, one_in(&r, 16) ? 50000 : 5000));
		atomic_store(&k->kicked, n);
		k->w->engine->vcpu_kick(k->w->vcpu);
		for (u64 end = now() + PATIENCE_NS; atomic_load(&k->returned) < n;) {
			struct timespec little = {.tv_nsec = 1000};
			if (now() > end)
				wild_fail(k->w, "kick %u of %s is lost", n, k->name);
			nanosleep(&little, NULL);
		}
	}
	atomic_store(&k->done, true);
	k->w->engine->vcpu_kick(k->w->vcpu);
	return NULL;
}

static void prepare(struct wild *w, const struct loop *l)
{
	do /* the machine is one by chance: take one that fits */
		wild_create(w, 1, ++w->number, MODE_LONG);
	while ((w->irqchip != l->irqchip || w->layout > 1) && (wild_end(w), true));
	w->name = l->name;
	memcpy(w->ram, l->text.code, l->text.bytes);
	memcpy(w->ram + 0x801a, "\x48\x8d\x05\xf1\x7f\xff\xff\xff\xe0", 9);
	memcpy(w->ram + 0x3000, "\xe9\xfb\xcf\xff\xff", 5);
	memcpy(w->ram + SYSRET_GPA, "\x48\x0f\x07", 3);
	if (l->irqchip)
		memcpy(w->ram + HANDLER_GPA, handler, sizeof(handler));
	else
		memcpy(w->ram + HANDLER_GPA, iret, sizeof(iret));
	for (u32 n = 0; n < 256; n++) {
		u64 *gate = (u64 *)(w->ram + IDT_GPA + 16 * n);
		*gate = (HANDLER_GPA & 0xffff) | (u64)SEL_CODE64 << 16 | 0x8eull << 40 |
			(u64)(HANDLER_GPA >> 16) << 48;
	}
	w->regs = (struct kvm_regs){.rsp = STACK_TOP,
				    .rdi = 0x110000,
				    .r8 = 0xc8000000,
				    .r9 = 0xfee00000,
				    .rdx = 0x300,
				    .rflags = 2};
	u64 *gdt = (u64 *)(w->ram + GDT_GPA);
	struct kvm_segment code = {.limit = 0xffffffff,
				   .selector = SEL_CODE64,
				   .type = 11,
				   .present = 1,
				   .s = 1,
				   .l = 1,
				   .g = 1};
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = SEL_DATA,
				   .type = 3,
				   .present = 1,
				   .s = 1,
				   .db = 1,
				   .g = 1};
	gdt[1] = 0x00af9b000000ffff;
	if (l->user) {
		code.selector = SEL_USER64;
		data.selector = SEL_USERD;
		code.dpl = data.dpl = 3;
	}
	w->sregs.cs = code;
	w->sregs.ss = w->sregs.ds = w->sregs.es = data;
	if (w->irqchip) { /* software-enabled LAPIC */
		struct kvm_lapic_state lapic;
		w->engine->vcpu_get_lapic(w->vcpu, &lapic);
		lapic.regs[0xf1] |= 1;
		w->engine->vcpu_set_lapic(w->vcpu, &lapic);
	}
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[3];
	} msrs = {.head.nmsrs = 3,
		  .entries = {{.index = 0xc0000081, .data = (u64)SEL_CODE64 << 32 | 0x10ull << 48},
			      {.index = 0xc0000082, .data = l->lstar},
			      {.index = 0xc0000084, .data = 0x47700}}};
	w->sregs.efer |= 1; /* SCE */
	w->sregs.cr4 |= l->smap ? 1u << 21 : 0;
	if (w->engine->vcpu_set_msrs(w->vcpu, &msrs.head) != 3 ||
	    w->engine->vcpu_set_sregs(w->vcpu, &w->sregs) < 0 ||
	    w->engine->vcpu_set_regs(w->vcpu, &w->regs) < 0)
		wild_fail(w, "the start's state is refused");
}

static void run_loop(struct wild *w, const struct loop *l, u32 count)
{
	struct kicker k = {.w = w, .name = l->name, .count = count};
	pthread_t thread;
	prepare(w, l);
	if (pthread_create(&thread, NULL, kick, &k))
		wild_fail(w, "no thread");
	while (!atomic_load(&k.done)) {
		int r = w->engine->vcpu_run(w->vcpu);
		if (r == -EINTR) {
			u32 kicked = atomic_load(&k.kicked);
			w->vcpu->run->immediate_exit = 0;
			atomic_store(&k.returned, kicked);
		} else if (r != 0) {
			wild_fail(w, "vcpu_run() says %d", r);
		} else if (w->vcpu->run->exit_reason != KVM_EXIT_MMIO &&
			   w->vcpu->run->exit_reason != KVM_EXIT_IO) {
			wild_fail(w, "exit reason %u", w->vcpu->run->exit_reason);
		}
	}
	pthread_join(thread, NULL);
	wild_end(w);
}

/* An interrupt that comes while the monitor answers a read is due right behind the reading
 * instruction. */
static void interrupt_during_read(struct wild *w)
{
	/* sti; nop; mov eax, [r8]; out dx, al; jmp .; its handler halts */
	static const struct loop l = {"an interrupt during a read", false,
				      CODE(0xfb, 0x90, 0x41, 0x8b, 0x00, 0xee, 0xeb, 0xfe)};
	prepare(w, &l);
	w->ram[HANDLER_GPA] = 0xf4;
	struct kvm_run *run = w->vcpu->run;
	if (w->engine->vcpu_run(w->vcpu) || run->exit_reason != KVM_EXIT_MMIO)
		wild_fail(w, "no read, but exit %u", run->exit_reason);
	if (w->engine->vcpu_interrupt(w->vcpu, 0x40) < 0)
		wild_fail(w, "the interrupt is refused");
	if (w->engine->vcpu_run(w->vcpu) || run->exit_reason != KVM_EXIT_HLT)
		wild_fail(w, "the handler did not run");
	wild_end(w);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"count", 1, 0, 'n'}, {0}};
	static struct wild w;
	u32 count = 1000;
	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		if (c != 'n')
			return 2;
		count = (u32)strtoul(optarg, NULL, 0);
	}
	struct engine_probe probe;
	engine_by_name("soft")->probe(NULL, &probe);
	if (!probe.usable) {
		printf("skipped: %s\n", probe.reason);
		return 77;
	}
	if (wild_init(&w) < 0)
		return 1;
	printf("1..%zu\n", ARRAY_SIZE(loops) + 1);
	for (u32 n = 0; n < ARRAY_SIZE(loops); n++) {
		run_loop(&w, &loops[n], count);
		printf("ok %u - %u kicks out of %s\n", n + 1, count, loops[n].name);
		fflush(stdout);
	}
	interrupt_during_read(&w);
	printf("ok %zu - an interrupt during a read\n", ARRAY_SIZE(loops) + 1);
	wild_destroy(&w);
	return 0;
}
