/*
 * Code that others than the vCPU write, on every engine: the monitor between two runs, another
 * thread during one, the guest itself through another memory slot that shows the same memory.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine_bench.h"

#define FUNCTION 0x2000 /* mov al, imm8; ret */
#define VALUE	 0x2001 /* its imm8 */
#define ALIAS	 0x20000
#define ROUNDS	 500
#define SECONDS	 60 /* after which a value that does not come is lost */

static const struct engine *engine;

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

static int setup_function(void **state)
{
	alarm(SECONDS);
	setup(state);
	struct bench *b = *state;
	map_slot(b, 1, ALIAS, 0x1000, b->ram + FUNCTION);
	memcpy(b->ram + FUNCTION, (u8[]){0xb0, 0, 0xc3}, 3);
	return 0;
}

static int teardown_function(void **state)
{
	alarm(0);
	return teardown(state);
}

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
	    cmocka_unit_test_setup_teardown(test_between_runs, setup_function, teardown_function),
	    cmocka_unit_test_setup_teardown(test_during_a_run, setup_function, teardown_function),
	    cmocka_unit_test_setup_teardown(test_through_another_slot, setup_function,
					    teardown_function),
	};
	int failed = 0, ran = 0;
	for (const struct engine *const *e = engines; *e; e++) {
		struct engine_probe probe;
		engine = *e;
		bench_use(engine, NULL);
		engine->probe(NULL, &probe);
		if (!probe.usable)
			continue;
		failed += cmocka_run_group_tests_name(engine->name, tests, NULL, NULL);
		ran++;
	}
	return failed ? 1 : ran ? 0 : 77;
}
