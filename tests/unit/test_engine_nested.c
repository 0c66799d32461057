/*
 * Translated code in VMX root and in non-root operation, turn and turn about: the same linear and
 * guest-physical addresses, registers and program, but what lies behind EPT is other memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/soft/mmu/ept.h"

#define RAM_BYTES  0x200000ull
#define NESTED	   0x100000ull /* where EPT has guest-physical 0 */
#define EPT_TABLES 0x40000ull
#define TABLES	   0x1000ull  /* PML4, PDPT, PD, PT */
#define PAGES	   0x10000ull /* what the PT maps */
#define CODE	   0x400000ull
#define DATA	   0x1000 /* behind CODE: a counter, strings */
#define FUNCTION   0x2000 /* mov al, imm8; ret */
#define HANDLER	   0x3000 /* of SYSCALL: mov al, 0x77; jmp rcx */
#define ROUNDS	   300
#define SECONDS	   60 /* for a guest that hangs */

struct machine {
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	u8 *ram;
	struct kvm_regs other; /* of the operation that does not run */
};

extern const u8 program[], program_end[];

/* Loads and stores, strings, indirect calls, code that changes, a system call; OUT tells. */
__asm__(".pushsection .rodata\n.intel_syntax noprefix\n"
	"program:\n"
	"mov rbp, 0x401000\n"
	"1: mov rax, [rbp]\n"
	"inc qword ptr [rbp]\n"
	"out 0x80, al\n"
	"lea rdi, [rbp + 0x100]\n"
	"mov ecx, 64\n"
	"cld\n"
	"rep stosb\n"
	"lea rsi, [rbp + 0x100]\n"
	"lea rdi, [rbp + 0x200]\n"
	"mov ecx, 64\n"
	"rep movsb\n"
	"mov al, [rbp + 0x23f]\n"
	"out 0x80, al\n"
	"mov rbx, 0x402000\n"
	"call rbx\n"
	"out 0x80, al\n"
	"inc byte ptr [rbx + 1]\n"
	"call rbx\n"
	"out 0x80, al\n"
	"syscall\n"
	"out 0x80, al\n"
	"jmp 1b\n"
	"program_end:\n"
	".att_syntax\n.popsection");

static struct soft_vcpu *soft(const struct machine *m)
{
	return container_of(m->vcpu, struct soft_vcpu, base);
}

/* Tables and program at @at, as seen from there at 0; the counter and the function begin with
 * @start. */
static void fill(u8 *at, u8 start)
{
	u64 *table = (u64 *)(at + TABLES);

	for (u32 level = 0; level < 3; level++)
		table[level * 512 + (level == 2 ? 2 : 0)] =
		    (TABLES + (level + 1) * PAGE_SIZE) | 0x63;
	for (u64 k = 0; k < 8; k++)
		table[3 * 512 + k] = (PAGES + k * PAGE_SIZE) | 0x63;
	at += PAGES;
	memcpy(at, program, (size_t)(program_end - program));
	at[DATA] = start;
	memcpy(at + FUNCTION, (u8[]){0xb0, start, 0xc3}, 3);
	memcpy(at + HANDLER, (u8[]){0xb0, 0x77, 0xff, 0xe1}, 4);
}

static void fill_ept(u8 *ram)
{
	u64 *table = (u64 *)(ram + EPT_TABLES);

	for (u32 level = 0; level < 3; level++)
		table[level * 512] = (EPT_TABLES + (level + 1) * PAGE_SIZE) | 7;
	for (u64 k = 0; k < 256; k++)
		table[3 * 512 + k] = (NESTED + k * PAGE_SIZE) | 6 << 3 | 7;
}

static void set_registers(struct machine *m)
{
	struct kvm_sregs s;
	struct kvm_regs regs = {.rip = CODE, .rsp = CODE + 0x8000, .rflags = 2};
	struct soft_vcpu *v = soft(m);

	assert_int_equal(engine_soft.vcpu_get_sregs(m->vcpu, &s), 0);
	s.cr0 = CR0_PG | CR0_PE | CR0_WP;
	s.cr3 = TABLES;
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME | EFER_LMA | EFER_SCE;
	s.cs = (struct kvm_segment){
	    .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	s.ss = (struct kvm_segment){
	    .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	assert_int_equal(engine_soft.vcpu_set_sregs(m->vcpu, &s), 0);
	assert_int_equal(engine_soft.vcpu_set_regs(m->vcpu, &regs), 0);
	v->msr.star = 8ull << 32;
	v->msr.lstar = CODE + HANDLER;
	m->other = regs;
}

static int setup(void **state)
{
	static struct machine m;
	struct error err = {0};

	m.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(m.ram, MAP_FAILED);
	fill(m.ram, 0);
	fill(m.ram + NESTED, 100);
	fill_ept(m.ram);
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (u64)m.ram};
	assert_int_equal(engine_soft.vm_create(NULL, &m.vm, &err), 0);
	assert_int_equal(engine_soft.vm_set_memory(m.vm, &region), 0);
	assert_int_equal(engine_soft.vcpu_create(m.vm, 0, &m.vcpu, &err), 0);
	set_registers(&m);
	*state = &m;
	alarm(SECONDS);
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;

	alarm(0);
	engine_soft.vcpu_destroy(m->vcpu);
	engine_soft.vm_destroy(m->vm);
	munmap(m->ram, RAM_BYTES);
	return 0;
}

/* What vmx/ does, as far as memory goes. */
static void change_over(struct machine *m, bool nonroot, u16 vpid)
{
	struct nested_paging by = {.eptp = EPT_TABLES | 3 << 3 | 6, .vpid = vpid};
	struct kvm_regs regs;
	struct soft_vcpu *v = soft(m);

	assert_int_equal(engine_soft.vcpu_get_regs(m->vcpu, &regs), 0);
	mmu_leave(v);
	if (nonroot)
		mmu_enter_nonroot(v, &by);
	else
		mmu_enter_root(v);
	vcpu_update_mode(v);
	assert_int_equal(engine_soft.vcpu_set_regs(m->vcpu, &m->other), 0);
	m->other = regs;
}

/* OUT number @n of the program whose memory began with @start. */
static u8 expected(u32 n, u8 start)
{
	u8 turn = (u8)(start + n / 5);

	switch (n % 5) {
	case 2:
		return turn;
	case 3:
		return turn + 1;
	case 4:
		return 0x77;
	default:
		return turn;
	}
}

static void expect_out(struct machine *m, u32 n, u8 start)
{
	struct kvm_run *run = m->vcpu->run;

	assert_int_equal(engine_soft.vcpu_run(m->vcpu), 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_IO);
	if (((u8 *)run)[run->io.data_offset] != expected(n, start))
		fail_msg("OUT %u from %u: %u, not %u", n, start, ((u8 *)run)[run->io.data_offset],
			 expected(n, start));
}

static void run_both(struct machine *m, u16 vpid, u32 outs)
{
	for (u32 n = 0; n < ROUNDS; n += outs) {
		for (u32 k = 0; k < outs; k++)
			expect_out(m, n + k, 0);
		change_over(m, true, vpid);
		for (u32 k = 0; k < outs; k++)
			expect_out(m, n + k, 100);
		change_over(m, false, vpid);
	}
}

static void test_with_vpid(void **state)
{
	run_both(*state, 1, 1);
}

static void test_without_vpid(void **state)
{
	run_both(*state, 0, 3);
}

/* Nothing is looked up anew but what the programs' own stores to their code demand. */
static void test_stays(void **state)
{
	struct machine *m = *state;
	struct soft_vcpu *v = soft(m);

	run_both(m, 1, 5);
	u64 misses = v->stats.tlb_misses, flushes = v->stats.tlb_flushes;
	for (u32 k = 0; k < 100; k++) {
		change_over(m, true, 1);
		change_over(m, false, 1);
	}
	for (u32 n = 0; n < 2; n++)
		expect_out(m, n + ROUNDS, 0);
	assert_int_equal(v->stats.tlb_misses, misses);
	assert_int_equal(v->stats.tlb_flushes, flushes);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_with_vpid),
	    T(test_without_vpid),
	    T(test_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
