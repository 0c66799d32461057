/* TSC frequency, guest TSC, kvmclock: against the host's own clocks. */
#include <stdlib.h>

#include "tests/unit/fake_irqchip.h"
#include "engine/soft/mmu/mmu.h"

#define RAM_SIZE (4 * PAGE_SIZE)

static u8 ram[RAM_SIZE];
static u32 writes;
static u32 version_seen_odd;

u8 *phys_ram(struct soft_vm *vm, u64 gpa)
{
	return gpa < RAM_SIZE ? ram + gpa : NULL;
}

void phys_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size)
{
	assert_true(gpa + size <= RAM_SIZE);
	gp_copy(buf, ram + gpa, size);
}

void phys_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	assert_true(gpa + size <= RAM_SIZE && (gpa & ~PAGE_MASK) + size <= PAGE_SIZE);
	gp_copy(ram + gpa, buf, size);
	if (!writes++)
		version_seen_odd = ram[gpa] & 1;
}

struct pvclock {
	u32 version, pad0;
	u64 tsc, system_time;
	u32 mul;
	s8 shift;
	u8 flags, pad[2];
};

static struct soft_vcpu *new_vcpu(struct soft_vm *vm)
{
	struct soft_vcpu *v = aligned_alloc(64, align_up(sizeof(*v), 64));

	gp_fill(v, 0, sizeof(*v));
	v->vm = vm;
	v->tsc_khz = clock_tsc_khz();
	return v;
}

/* As a guest computes it: msr.rst */
static u64 pvclock_read(const struct pvclock *p, u64 tsc)
{
	u64 delta = tsc - p->tsc;

	delta = p->shift < 0 ? delta >> -p->shift : delta << p->shift;
	return p->system_time + (u64)((unsigned __int128)delta * p->mul >> 32);
}

static void test_frequency(void **state)
{
	bool agrees = false;

	assert_int_equal(clock_tsc_khz(), clock_tsc_khz());
	/* A measurement in which the thread was put aside between two readings says nothing. */
	for (int attempt = 0; attempt < 50 && !agrees; attempt++) {
		u64 ns = clock_now(), tsc = __builtin_ia32_rdtsc(), khz;

		while (clock_now() - ns < 20000000)
			;
		khz = (__builtin_ia32_rdtsc() - tsc) * 1000000 / (clock_now() - ns);
		agrees = clock_tsc_khz() > khz - khz / 200 && clock_tsc_khz() < khz + khz / 200;
	}
	assert_true(agrees);
}

static void test_guest_tsc(void **state)
{
	struct soft_vcpu *v = new_vcpu(NULL);
	u64 now, due;

	v->tsc_offset = -__builtin_ia32_rdtsc();
	assert_true(guest_tsc(v) < (u64)v->tsc_khz * 10000);
	now = clock_now();
	due = guest_tsc_to_ns(v, guest_tsc(v) + (u64)v->tsc_khz * 1000); /* 1 s */
	/* The thread may be put aside between any two readings: half a second is no such pause. */
	assert_in_range(due, now + 500000000, clock_now() + 1001000000);
	now = clock_now();
	assert_in_range(guest_tsc_to_ns(v, 0), now, now + 1000000000);
	assert_true(guest_tsc_to_ns(v, UINT64_MAX) > clock_now() + (1ull << 60));
	v->tsc_khz = 1000;
	assert_int_equal(guest_tsc_to_ns(v, UINT64_MAX), UINT64_MAX);
	v->tsc_khz = 0;
	assert_int_equal(guest_tsc_to_ns(v, UINT64_MAX), UINT64_MAX);
	free(v);
}

static void test_kvmclock(void **state)
{
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	struct soft_vcpu *v = new_vcpu(vm);
	/* plain, and across pages */
	static const u64 places[] = {0x100, 0xff0, 0x1ffc};

	vm->clock_offset = -(s64)clock_now();
	v->tsc_offset = -(s64)__builtin_ia32_rdtsc();
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const struct pvclock *p = (const void *)(ram + places[i]);
		u64 before, guest;

		writes = 0;
		v->msr.kvm_system_time = places[i] | 1;
		kvmclock_update(v);
		assert_true(writes >= 3 && version_seen_odd);
		assert_int_equal(p->version & 1, 0);
		assert_int_not_equal(p->version, 0);
		assert_int_equal(p->flags, 1);
		before = clock_now() + vm->clock_offset;
		guest = pvclock_read(p, guest_tsc(v));
		assert_in_range(guest + 100000000, before,
				clock_now() + vm->clock_offset + 200000000);
		assert_true(p->mul >= 1u << 31);
	}
	/* disabled, or no RAM there: nothing is written */
	writes = 0;
	v->msr.kvm_system_time = 0x100;
	kvmclock_update(v);
	v->msr.kvm_system_time = (RAM_SIZE - 16) | 1;
	kvmclock_update(v);
	v->msr.kvm_system_time = ~0ull;
	kvmclock_update(v);
	assert_int_equal(writes, 0);
	free(v);
	free(vm);
}

static void test_two_vcpus_agree(void **state)
{
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	struct soft_vcpu *a = new_vcpu(vm), *b = new_vcpu(vm);
	const struct pvclock *p = (const void *)ram, *q = (const void *)(ram + 64);

	b->tsc_offset = 1000000;
	a->msr.kvm_system_time = 1;
	b->msr.kvm_system_time = 64 | 1;
	kvmclock_update(a);
	for (u64 start = clock_now(); clock_now() - start < 1000000;)
		;
	kvmclock_update(b);
	assert_int_equal(pvclock_read(p, 1ull << 60), pvclock_read(q, (1ull << 60) + 1000000));
	free(a);
	free(b);
	free(vm);
}

static void test_scales(void **state)
{
	static const u32 khz[] = {1000,	   999999,  1000000, 1000001, 1999999,
				  2000000, 2000001, 2593906, 4000000, 5800000};
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	struct soft_vcpu *v = new_vcpu(vm);
	const struct pvclock *p = (const void *)ram;

	v->msr.kvm_system_time = 1;
	for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
		u64 hour;

		v->tsc_khz = khz[i];
		kvmclock_update(v);
		hour = pvclock_read(p, p->tsc + khz[i] * 3600000ull) - p->system_time;
		assert_in_range(hour, 3600000000000ull - 2000, 3600000000000ull);
	}
	free(v);
	free(vm);
}

static void test_wall_clock(void **state)
{
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	struct soft_vcpu *v = new_vcpu(vm);
	const u32 *wall = (const u32 *)(ram + 0x200);

	vm->clock_offset = -(s64)clock_now();
	v->msr.kvm_wall_clock = 0x200;
	/* Not time(): that one is behind by up to a tick. */
	struct timespec before, after;
	clock_gettime(CLOCK_REALTIME, &before);
	kvmclock_update_wall(v);
	clock_gettime(CLOCK_REALTIME, &after);
	assert_int_equal(wall[0] & 1, 0);
	assert_in_range(wall[1], before.tv_sec - 1, after.tv_sec);
	assert_true(wall[2] < 1000000000);
	free(v);
	free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_frequency), cmocka_unit_test(test_guest_tsc),
	    cmocka_unit_test(test_kvmclock),  cmocka_unit_test(test_two_vcpus_agree),
	    cmocka_unit_test(test_scales),    cmocka_unit_test(test_wall_clock),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
