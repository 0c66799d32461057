/*
 * No kick is ever lost: a guest that spins in one translated block comes back at a kick, wherever
 * the thread is when it arrives. A tracer steps vcpu_run() by single host instructions and kicks
 * after the first, after the second, and so on, until the guest has been spinning for a while.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/soft/signals.h"
#include "engine/soft/translate/block.h"
#include "engine/soft/vcpu.h"

#define RAM_BYTES (256 << 10)
#define CODE	  0x1000ul
#define SECONDS	  10 /* after which a kick counts as lost */
#define STEPS_MAX 5000

#define PML4 0x2000ul
#define PDPT 0x3000ul
#define PD   0x4000ul
#define DATA 0x8000ul

/* Two 16-bit blocks whose jumps the dispatcher has to link first: jmp 1f; nop; 1: inc ax; jmp 1b */
static const u8 two_blocks[] = {0xeb, 0x01, 0x90, 0x40, 0xeb, 0xfd};

/* 64-bit code at CPL 0, in a stub that leaves looking to the block, and in one that looks by
 * itself: mov ecx, 2; rep stosb; sub rdi, 2; jmp; and a syscall that leads to itself */
static const u8 short_string[] = {0xb9, 0x02, 0x00, 0x00, 0x00, 0xf3, 0xaa,
				  0x48, 0x83, 0xef, 0x02, 0xeb, 0xf3};
static const u8 system_call[] = {0x0f, 0x05};

/* A check for two accesses that fails, since they are in two pages; a loop whose checks hold for
 * two turns: mov rdx, [rdi+0xff8]; mov [rdi+0x1000], rdx; mov ebx, 0x4800; mov ecx, 3;
 * 1: mov rax, [rbx]; add [rdi], rax; add rbx, 0x400; dec ecx; jnz 1b; jmp */
static const u8 checked_loop[] = {0x48, 0x8b, 0x97, 0xf8, 0x0f, 0x00, 0x00, 0x48, 0x89, 0x97, 0x00,
				  0x10, 0x00, 0x00, 0xbb, 0x00, 0x48, 0x00, 0x00, 0xb9, 0x03, 0x00,
				  0x00, 0x00, 0x48, 0x8b, 0x03, 0x48, 0x01, 0x07, 0x48, 0x81, 0xc3,
				  0x00, 0x04, 0x00, 0x00, 0xff, 0xc9, 0x75, 0xef, 0xeb, 0xd5};

/* lea rax, [other]; jmp rax, twice, each leads to the other: at 0x1000 and 0x20fc1, which have the
 * same slot of the jump cache. */
#define OTHER 0x1ffc1 /* from the first one on */
static const u8 one_slot[OTHER + 9] = {0x48, 0x8d, 0x05, 0xba,		 0xff, 0x01,
				       0x00, 0xff, 0xe0, [OTHER] = 0x48, 0x8d, 0x05,
				       0x38, 0x00, 0xfe, 0xff,		 0xff, 0xe0};

/* lea rax, [1f]; jmp rax; 1: jmp 1b: found in the jump cache, and never asked for again. */
static const u8 way_in[] = {0x48, 0x8d, 0x05, 0x02, 0x00, 0x00, 0x00, 0xff, 0xe0, 0xeb, 0xfe};

/* @steps: after so many in all, or so many @spinning in blocks, everything has been seen. @warm:
 * first run for so many, so that the blocks know their ways. */
static const struct guest {
	const u8 *code;
	u32 bytes;
	bool wide;
	u32 steps, spinning, warm;
} guests[] = {{two_blocks, sizeof(two_blocks), false, STEPS_MAX, 40, 0},
	      {short_string, sizeof(short_string), true, 500, 40, 0},
	      {system_call, sizeof(system_call), true, 500, 40, 0},
	      {checked_loop, sizeof(checked_loop), true, STEPS_MAX, 250, 0},
	      {one_slot, sizeof(one_slot), true, 600, 60, 0},
	      {way_in, sizeof(way_in), true, 600, 60, 20000}};

static void enter_long_mode(struct engine_vcpu *vcpu, u8 *ram)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {.head.nmsrs = 2,
		  .entries = {{.index = 0xc0000081, .data = 8ull << 32},
			      {.index = 0xc0000082, .data = CODE}}};
	struct kvm_sregs sregs;
	vcpu->engine->vcpu_get_sregs(vcpu, &sregs);
	*(u64 *)(ram + PML4) = PDPT | 3;
	*(u64 *)(ram + PDPT) = PD | 3;
	*(u64 *)(ram + PD) = 0x83; /* 2 MiB */
	struct kvm_segment data = {
	    .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	sregs.ss = sregs.ds = sregs.es = data;
	data.type = 11;
	data.db = 0;
	data.l = 1;
	data.selector = 8;
	sregs.cs = data;
	sregs.cr0 = 0x80010033;
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;
	sregs.efer = 0x501; /* LMA LME SCE */
	assert_int_equal(vcpu->engine->vcpu_set_msrs(vcpu, &msrs.head), 2);
	assert_int_equal(vcpu->engine->vcpu_set_sregs(vcpu, &sregs), 0);
}

static struct soft_vcpu *make_guest(const struct guest *guest)
{
	const struct engine *engine = engine_by_name("soft");
	struct error err = {""};
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	struct kvm_sregs sregs;

	u8 *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(ram != MAP_FAILED);
	assert_int_equal(engine->vm_create(NULL, &vm, &err), 0);
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (u64)ram};
	assert_int_equal(engine->vm_set_memory(vm, &region), 0);
	assert_int_equal(engine->vcpu_create(vm, 0, &vcpu, &err), 0);
	memcpy(ram + CODE, guest->code, guest->bytes);
	if (guest->wide) {
		enter_long_mode(vcpu, ram);
		return container_of(vcpu, struct soft_vcpu, base);
	}
	engine->vcpu_get_sregs(vcpu, &sregs);
	sregs.cs.base = sregs.cs.selector = 0;
	assert_int_equal(engine->vcpu_set_sregs(vcpu, &sregs), 0);
	return container_of(vcpu, struct soft_vcpu, base);
}

/* The traced process: a vcpu_run() between any two SIGSTOPs. */
static _Noreturn void run_for_ever(struct soft_vcpu *v)
{
	struct kvm_regs regs = {.rip = CODE, .rdi = DATA, .rflags = 2};
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(77);
	for (;;) {
		v->base.run->immediate_exit = 0;
		v->base.engine->vcpu_set_regs(&v->base, &regs);
		raise(SIGSTOP);
		if (v->base.engine->vcpu_run(&v->base) != -EINTR)
			_exit(1);
	}
}

static void poke_byte(pid_t child, void *at, u8 value)
{
	u64 word = (u64)ptrace(PTRACE_PEEKDATA, child, at, NULL);
	word = (word & ~0xffull) | value;
	assert_int_equal(ptrace(PTRACE_POKEDATA, child, at, word), 0);
}

/* What vcpu_kick() does from another thread. */
static void kick(pid_t child, struct soft_vcpu *v)
{
	u64 attention = (u64)ptrace(PTRACE_PEEKDATA, child, &v->attention, NULL);
	poke_byte(child, &v->base.run->immediate_exit, 1);
	poke_byte(child, &v->attention, (u8)(attention | ATTENTION_KICK));
	assert_int_equal(ptrace(PTRACE_CONT, child, NULL, KICK_SIGNAL), 0);
}

static u64 rip_of(pid_t child)
{
	return (u64)ptrace(PTRACE_PEEKUSER, child, 16 * sizeof(u64), NULL);
}

/* Steps the child @count instructions on from its SIGSTOP; how many of the last ones were in
 * blocks. */
static u32 step(pid_t child, const struct soft_vcpu *v, u32 count)
{
	u64 blocks = (u64)v->cache->rx + v->cache->stubs_end;
	u32 spinning = 0;
	int status;

	for (u32 n = 0; n < count; n++) {
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
		u64 rip = rip_of(child);
		spinning =
		    rip >= blocks && rip < (u64)v->cache->rx + v->cache->size ? spinning + 1 : 0;
	}
	return spinning;
}

static void wait_for_stop(pid_t child, u32 count)
{
	int status;
	alarm(SECONDS);
	assert_int_equal(waitpid(child, &status, 0), child);
	alarm(0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		fail_msg("kicked after %u instructions: status %#x", count, (u32)status);
}

static pid_t traced;
static u32 kicked_after;

static void lost(int signal)
{
	static const char text[] = "a kick was lost\n";
	kill(traced, SIGKILL);
	_exit(write(2, text, sizeof(text) - 1) < 0 ? 2 : 1);
}

static void kick_everywhere(const struct guest *guest)
{
	struct engine_probe probe;
	engine_by_name("soft")->probe(NULL, &probe);
	if (!probe.usable)
		skip();
	struct soft_vcpu *v = make_guest(guest);
	signal(SIGALRM, lost);
	traced = fork();
	assert_true(traced >= 0);
	if (traced == 0)
		run_for_ever(v);
	wait_for_stop(traced, 0);
	if (guest->warm) {
		step(traced, v, guest->warm);
		kick(traced, v);
		wait_for_stop(traced, guest->warm);
	}
	for (u32 count = 200; count < guest->steps; count++) {
		kicked_after = count;
		u32 spinning = step(traced, v, count);
		kick(traced, v);
		wait_for_stop(traced, count);
		if (spinning > guest->spinning)
			break;
	}
	assert_true(kicked_after < STEPS_MAX - 1);
	kill(traced, SIGKILL);
	waitpid(traced, NULL, 0);
}

static void no_kick_is_lost(void **state)
{
	kick_everywhere(&guests[0]);
}

static void no_kick_is_lost_in_stubs(void **state)
{
	kick_everywhere(&guests[1]);
	kick_everywhere(&guests[2]);
	assert_int_equal(jump_slot(CODE), jump_slot(CODE + OTHER));
	kick_everywhere(&guests[4]);
	kick_everywhere(&guests[5]);
}

static void no_kick_is_lost_in_loops(void **state)
{
	if (getenv("GUISE_QUICK")) /* half a million steps */
		skip();
	kick_everywhere(&guests[3]);
}

/* ---- from signal handlers of others, on the vCPU's own thread ---- */

static struct soft_vcpu *spinning;
static u32 handled;

static void kick_from_handler(int signal)
{
	handled++;
	spinning->base.engine->vcpu_kick(&spinning->base);
}

static void kicked_by_itself(void **state)
{
	struct itimerval soon = {.it_value.tv_usec = 2000}, never = {{0, 0}, {0, 0}};
	struct kvm_regs regs = {.rip = CODE, .rflags = 2};
	struct engine_probe probe;
	engine_by_name("soft")->probe(NULL, &probe);
	if (!probe.usable)
		skip();
	spinning = make_guest(&guests[0]);
	signal(SIGVTALRM, kick_from_handler);
	signal(SIGALRM, SIG_DFL);
	alarm(SECONDS);
	for (u32 n = 0; n < 50; n++) {
		spinning->base.run->immediate_exit = 0;
		spinning->base.engine->vcpu_set_regs(&spinning->base, &regs);
		setitimer(ITIMER_VIRTUAL, &soon, NULL);
		assert_int_equal(spinning->base.engine->vcpu_run(&spinning->base), -EINTR);
	}
	alarm(0);
	setitimer(ITIMER_VIRTUAL, &never, NULL);
	assert_int_equal(handled, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(no_kick_is_lost), cmocka_unit_test(no_kick_is_lost_in_stubs),
	    cmocka_unit_test(no_kick_is_lost_in_loops), cmocka_unit_test(kicked_by_itself)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
