/* See engine_bench.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine_bench.h"

/* ---- set-up ---- */

void must(int ret, const struct error *err)
{
	if (ret)
		fail_msg("%s (%d)", err->text, ret);
}

void add_ram(struct bench *b)
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
static const char *device_under_test;

void bench_use(const struct engine *engine, const char *device)
{
	engine_under_test = engine;
	device_under_test = device;
}

const struct engine *bench_engine(void)
{
	return engine_under_test;
}

const char *bench_device(void)
{
	return device_under_test;
}

void open_bench(struct bench *b, const struct engine *engine, bool irqchip)
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

void close_bench(struct bench *b)
{
	b->engine->vcpu_destroy(b->vcpu);
	b->engine->vm_destroy(b->vm);
	munmap(b->ram, RAM_BYTES);
}

int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	open_bench(b, engine_under_test, false);
	*state = b;
	return 0;
}

int setup_irqchip(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	open_bench(b, engine_under_test, true);
	*state = b;
	return 0;
}

int teardown(void **state)
{
	close_bench(*state);
	free(*state);
	return 0;
}

void load(struct bench *b, const u8 *code, const u8 *end)
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

void set_vector(struct bench *b, u8 vector, u16 offset)
{
	memcpy(b->ram + vector * 4, &(u16[]){offset, 0}, 4);
}

struct kvm_regs get_regs(struct bench *b)
{
	struct kvm_regs regs;
	assert_int_equal(b->engine->vcpu_get_regs(b->vcpu, &regs), 0);
	return regs;
}

/* ---- running and looking at exits ---- */

struct kvm_run *run_to(struct bench *b, u32 reason)
{
	assert_int_equal(b->engine->vcpu_run(b->vcpu), 0);
	if (b->vcpu->run->exit_reason != reason) {
		struct kvm_regs regs = get_regs(b);
		fail_msg("exit reason %u instead of %u, RIP %#llx", b->vcpu->run->exit_reason,
			 reason, regs.rip);
	}
	return b->vcpu->run;
}

u8 *io_data(struct kvm_run *run)
{
	return (u8 *)run + run->io.data_offset;
}

void expect_out(struct bench *b, u16 port, u8 size, u32 value)
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

void answer_in(struct bench *b, u16 port, u8 size, u32 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_IO);

	assert_int_equal(run->io.direction, KVM_EXIT_IO_IN);
	assert_int_equal(run->io.port, port);
	assert_int_equal(run->io.size, size);
	assert_int_equal(run->io.count, 1);
	memcpy(io_data(run), &value, size);
}

void expect_mmio_write(struct bench *b, u64 gpa, u32 size, u64 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_MMIO);
	u64 seen = 0;

	assert_true(run->mmio.is_write);
	assert_int_equal(run->mmio.phys_addr, gpa);
	assert_int_equal(run->mmio.len, size);
	memcpy(&seen, run->mmio.data, size);
	assert_int_equal(seen, value);
}

void answer_mmio(struct bench *b, u64 gpa, u32 size, u64 value)
{
	struct kvm_run *run = run_to(b, KVM_EXIT_MMIO);

	assert_false(run->mmio.is_write);
	assert_int_equal(run->mmio.phys_addr, gpa);
	assert_int_equal(run->mmio.len, size);
	memcpy(run->mmio.data, &value, size);
}

void expect_hlt(struct bench *b)
{
	run_to(b, KVM_EXIT_HLT);
}
