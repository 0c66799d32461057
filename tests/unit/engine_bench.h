/* A machine of 64 KiB with one vCPU in real mode, for tests of engines through their contract
 * alone. */
#ifndef GUISE_TESTS_ENGINE_BENCH_H
#define GUISE_TESTS_ENGINE_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "engine/engine.h"

#define RAM_BYTES  0x10000ul
#define CODE	   0x1000ul /* where guests are put and started */
#define STACK	   0x8000ul
#define RFLAGS_ONE 2ull

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

/* What the next machines are made of. NULL as device: the engine's usual one. */
void bench_use(const struct engine *engine, const char *device);
const struct engine *bench_engine(void);
const char *bench_device(void);
/** Fails the test with @err's text if @ret is not 0. */
void must(int ret, const struct error *err);
/** Gives @b's machine b->ram from address 0 on. */
void add_ram(struct bench *b);
void open_bench(struct bench *b, const struct engine *engine, bool irqchip);
void close_bench(struct bench *b);

/* For cmocka: *state is a struct bench. */
int setup(void **state);
int setup_irqchip(void **state);
int teardown(void **state);
#define PLAIN(test)   cmocka_unit_test_setup_teardown(test, setup, teardown)
#define IRQCHIP(test) cmocka_unit_test_setup_teardown(test, setup_irqchip, teardown)

/** Puts @code at CODE and the processor at its start in real mode, all segments 0, IF 0. */
void load(struct bench *b, const u8 *code, const u8 *end);
#define LOAD(b, name) load(b, name, name##_end)
void set_vector(struct bench *b, u8 vector, u16 offset);
struct kvm_regs get_regs(struct bench *b);

/* Running up to the exit that is expected; what a read is answered is done by the next run. */
struct kvm_run *run_to(struct bench *b, u32 reason);
u8 *io_data(struct kvm_run *run);
void expect_out(struct bench *b, u16 port, u8 size, u32 value);
void answer_in(struct bench *b, u16 port, u8 size, u32 value);
void expect_mmio_write(struct bench *b, u64 gpa, u32 size, u64 value);
void answer_mmio(struct bench *b, u64 gpa, u32 size, u64 value);
void expect_hlt(struct bench *b);

#endif
