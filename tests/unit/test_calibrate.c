/* The calibration against engines that are slow, dead, or fast: fakes that do rounds at a given
 * pace. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "engine/engine.h"
#include "vm/calibrate.h"

#define BUDGET_NS 200000

/* One vCPU; a run does at most @pace rounds and is then "kicked". */
static struct fake {
	u64 pace;
	u32 runs;
	struct kvm_regs regs;
	struct kvm_run run;
	struct engine_vcpu vcpu;
} fake;

static int vm_create(const char *device, struct engine_vm **out, struct error *err)
{
	*out = NULL;
	return 0;
}

static void vm_destroy(struct engine_vm *vm)
{
}

static int set_memory(struct engine_vm *vm, const struct kvm_userspace_memory_region *region)
{
	return 0;
}

static int get_cpuid(struct engine_vm *vm, struct kvm_cpuid2 *cpuid)
{
	cpuid->nent = 0;
	return 0;
}

static int set_cpuid(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
	return 0;
}

static int get_sregs(struct engine_vcpu *vcpu, struct kvm_sregs *sregs)
{
	memset(sregs, 0, sizeof(*sregs));
	return 0;
}

static int set_sregs(struct engine_vcpu *vcpu, const struct kvm_sregs *sregs)
{
	return 0;
}

static int get_regs(struct engine_vcpu *vcpu, struct kvm_regs *regs)
{
	*regs = fake.regs;
	return 0;
}

static int set_regs(struct engine_vcpu *vcpu, const struct kvm_regs *regs)
{
	fake.regs = *regs;
	return 0;
}

static int run(struct engine_vcpu *vcpu)
{
	fake.runs++;
	if (fake.pace < fake.regs.rcx) {
		fake.regs.rcx -= fake.pace;
		return -EINTR;
	}
	fake.regs.rcx = 0;
	fake.run.exit_reason = KVM_EXIT_IO;
	fake.run.io.port = 0xf4;
	return 0;
}

static void kick(struct engine_vcpu *vcpu)
{
}

static int vcpu_create(struct engine_vm *vm, u32 id, struct engine_vcpu **out, struct error *err);

static void vcpu_destroy(struct engine_vcpu *vcpu)
{
}

static const struct engine engine = {
    .name = "fake",
    .vm_create = vm_create,
    .vm_destroy = vm_destroy,
    .vm_set_memory = set_memory,
    .vm_get_supported_cpuid = get_cpuid,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .vcpu_run = run,
    .vcpu_kick = kick,
    .vcpu_get_regs = get_regs,
    .vcpu_set_regs = set_regs,
    .vcpu_get_sregs = get_sregs,
    .vcpu_set_sregs = set_sregs,
    .vcpu_set_cpuid = set_cpuid,
};

static int vcpu_create(struct engine_vm *vm, u32 id, struct engine_vcpu **out, struct error *err)
{
	fake.vcpu.engine = &engine;
	fake.vcpu.run = &fake.run;
	*out = &fake.vcpu;
	return 0;
}

static int measure(u64 pace, double *mips, struct error *err)
{
	fake = (struct fake){.pace = pace};
	*mips = 0;
	return calibrate(&engine, CALIBRATE_KERNEL, BUDGET_NS, mips, err);
}

static void slow_is_not_nothing(void **state)
{
	struct error err;
	double mips;
	/* 500 rounds a run: one is too few to judge by */
	assert_int_equal(measure(500, &mips, &err), 0);
	assert_true(mips > 0);
	assert_true(fake.runs > 1);
	/* A single round in all that time is still more than 0.0. */
	assert_int_equal(measure(1, &mips, &err), 0);
	assert_true(mips > 0);
}

static void stuck_is_an_error(void **state)
{
	struct error err;
	double mips;
	assert_int_equal(measure(0, &mips, &err), -ETIMEDOUT);
}

static void fast_ends(void **state)
{
	struct error err;
	double mips;
	assert_int_equal(measure(UINT64_MAX, &mips, &err), 0);
	assert_true(mips > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(slow_is_not_nothing),
	    cmocka_unit_test(stuck_is_an_error),
	    cmocka_unit_test(fast_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
