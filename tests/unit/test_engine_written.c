/*
 * Code that others than the vCPU write, on every engine: the monitor between two runs, another
 * thread during one, the guest itself through another memory slot that shows the same memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine.h"

#define RAM_BYTES 0x10000
#define CODE	  0x1000
#define FUNCTION  0x2000 /* mov al, imm8; ret */
#define VALUE	  0x2001 /* its imm8 */
#define ALIAS	  0x20000
#define STACK	  0x8000
#define ROUNDS	  500
#define SECONDS	  60 /* after which a value that does not come is lost */

struct bench {
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	u8 *ram;
};

static const struct engine *engine;

/* A 16-bit guest, named by the symbols NAME and NAME_end. */
#define GUEST(name, code)                                                                          \
	extern const u8 name[], name##_end[];                                                      \
	__asm__(".pushsection .rodata\n.code16\n.intel_syntax noprefix\n" #name ":\n" code         \
		"\n" #name "_end:\n.att_syntax\n.code64\n.popsection")

static void map_slot(struct bench *b, u32 slot, u64 gpa, u64 size, u8 *host)
{
	struct kvm_userspace_memory_region region = {
	    .slot = slot,
	    .guest_phys_addr = gpa,
	    .memory_size = size,
	    .userspace_addr = (uintptr_t)host,
	};
	assert_int_equal(engine->vm_set_memory(b->vm, &region), 0);
}

static int setup(void **state)
{
	static struct bench b;
	struct error err = {0};
	b.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b.ram, MAP_FAILED);
	assert_int_equal(engine->vm_create(NULL, &b.vm, &err), 0);
	map_slot(&b, 0, 0, RAM_BYTES, b.ram);
	map_slot(&b, 1, ALIAS, 0x1000, b.ram + FUNCTION);
	assert_int_equal(engine->vcpu_create(b.vm, 0, &b.vcpu, &err), 0);
	memcpy(b.ram + FUNCTION, (u8[]){0xb0, 0, 0xc3}, 3);
	*state = &b;
	alarm(SECONDS);
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;
	alarm(0);
	engine->vcpu_destroy(b->vcpu);
	engine->vm_destroy(b->vm);
	munmap(b->ram, RAM_BYTES);
	return 0;
}

/* Puts @code at CODE and the processor at its start in real mode, all segments 0, BX 0. */
static void load(struct bench *b, const u8 *code, const u8 *end)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rflags = 2};
	memcpy(b->ram + CODE, code, end - code);
	assert_int_equal(engine->vcpu_get_sregs(b->vcpu, &sregs), 0);
	struct kvm_segment *segments[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.ss};
	for (size_t n = 0; n < ARRAY_SIZE(segments); n++) {
		segments[n]->base = 0;
		segments[n]->selector = 0;
	}
	assert_int_equal(engine->vcpu_set_sregs(b->vcpu, &sregs), 0);
	assert_int_equal(engine->vcpu_set_regs(b->vcpu, &regs), 0);
}

#define LOAD(b, name) load(b, name, name##_end)

/* The byte that the guest writes to port 80 next. */
static u8 next_out(struct bench *b)
{
	struct kvm_run *run = b->vcpu->run;
	assert_int_equal(engine->vcpu_run(b->vcpu), 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_IO);
	return ((u8 *)run)[run->io.data_offset];
}

GUEST(guest_calls, "mov si, 0x2000; 1: call si; out 0x80, al; jmp 1b");

static void test_between_runs(void **state)
{
	struct bench *b = *state;
	LOAD(b, guest_calls);
	assert_int_equal(next_out(b), 0);
	for (u32 n = 1; n < ROUNDS; n++) {
		b->ram[VALUE] = (u8)n;
		engine->vm_memory_written(b->vm, VALUE, 1);
		assert_int_equal(next_out(b), (u8)n);
	}
	/* All there is, and what is not; many times before anyone looks */
	b->ram[VALUE] = 77;
	for (u32 n = 0; n < 100; n++)
		engine->vm_memory_written(b->vm, 0, 0x30000);
	assert_int_equal(next_out(b), 77);
	/* By the other slot's address */
	b->ram[VALUE] = 78;
	engine->vm_memory_written(b->vm, ALIAS + (VALUE - FUNCTION), 1);
	assert_int_equal(next_out(b), 78);
}

GUEST(guest_waits,
      "mov si, 0x2000; 1: call si; cmp al, bl; je 1b; mov bl, al; out 0x80, al; jmp 1b");

struct writer {
	struct bench *b;
	_Atomic u32 seen;
};

static void *write_code(void *opaque)
{
	struct writer *w = opaque;
	for (u32 n = 1; n < ROUNDS; n++) {
		/* Both orders of this and of the guest's translating are wanted. */
		for (volatile u32 pause = 0; pause < (n * 7919) % 3000; pause++)
			;
		__atomic_store_n(&w->b->ram[VALUE], (u8)n, __ATOMIC_SEQ_CST);
		engine->vm_memory_written(w->b->vm, VALUE, 1);
		while (atomic_load(&w->seen) < n)
			;
	}
	return NULL;
}

static void test_during_a_run(void **state)
{
	struct bench *b = *state;
	struct writer w = {.b = b};
	pthread_t thread;
	LOAD(b, guest_waits);
	assert_int_equal(pthread_create(&thread, NULL, write_code, &w), 0);
	for (u32 n = 1; n < ROUNDS; n++) {
		assert_int_equal(next_out(b), (u8)n);
		atomic_store(&w.seen, n);
	}
	pthread_join(thread, NULL);
}

GUEST(guest_writes_alias, "mov ax, 0x2000; mov es, ax; mov si, ax;"
			  "1: inc bx; mov es:[1], bl; call si; out 0x80, al; jmp 1b");
GUEST(guest_calls_alias, "1: inc bx; mov byte ptr [0x2001], bl; .byte 0x9a, 0, 0, 0, 0x20;"
			 "out 0x80, al; jmp 1b");

static void test_through_another_slot(void **state)
{
	struct bench *b = *state;
	LOAD(b, guest_writes_alias);
	for (u32 n = 1; n < ROUNDS; n++)
		assert_int_equal(next_out(b), (u8)n);
	b->ram[FUNCTION + 2] = 0xcb; /* far return */
	engine->vm_memory_written(b->vm, FUNCTION + 2, 1);
	LOAD(b, guest_calls_alias);
	engine->vm_memory_written(b->vm, CODE, 0x100);
	for (u32 n = 1; n < ROUNDS; n++)
		assert_int_equal(next_out(b), (u8)n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_between_runs, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_during_a_run, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_through_another_slot, setup, teardown),
	};
	int failed = 0, ran = 0;
	for (const struct engine *const *e = engines; *e; e++) {
		struct engine_probe probe;
		engine = *e;
		engine->probe(NULL, &probe);
		if (!probe.usable)
			continue;
		failed += cmocka_run_group_tests_name(engine->name, tests, NULL, NULL);
		ran++;
	}
	return failed ? 1 : ran ? 0 : 77;
}
