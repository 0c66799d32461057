/*
 * Time as guests see it: TSC with offset, and kvmclock (Documentation/virt/kvm/x86/msr.rst).
 * Inside.
 */
#include "base/gp.h"
#include "engine/soft/irqchip/internal.h"
#include "engine/soft/mmu/mmu.h"

#define NS_PER_S   1000000000ull
#define KHZ_PER_NS 1000000ull /* cycles = ns * kHz / this */

#define PVCLOCK_ENABLED	   BIT(0)
#define PVCLOCK_TSC_STABLE BIT(0) /* flags: all vCPUs read the same clock */

/* msr.rst, MSR_KVM_SYSTEM_TIME_NEW */
struct pvclock_time {
	u32 version; /* odd while an update is under way */
	u32 pad0;
	u64 tsc_timestamp;
	u64 system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags;
	u8 pad[2];
};

/* msr.rst, MSR_KVM_WALL_CLOCK_NEW */
struct pvclock_wall {
	u32 version;
	u32 sec;
	u32 nsec;
};

_Static_assert(sizeof(struct pvclock_time) == 32 && sizeof(struct pvclock_wall) == 12,
	       "the guest's layout");

static u64 read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (u64)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static u64 host_tsc(void)
{
	return __builtin_ia32_rdtsc();
}

u64 clock_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

/* The TSC goes on between two readings of it; the pair from the tightest of some tries is kept. */
static void read_pair(u64 *ns, u64 *tsc)
{
	u64 best = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		u64 before = host_tsc(), now = clock_now(), after = host_tsc();

		if (after - before >= best)
			continue;
		best = after - before;
		*ns = now;
		*tsc = before + best / 2;
	}
}

void clock_reference(u64 *ns, u64 *tsc)
{
	/* A property of the host, not of a VM: any pair on the line would do, but all must use one
	 */
	static struct {
		struct gp_lock lock;
		bool taken;
		u64 ns, tsc;
	} reference;

	gp_lock(&reference.lock);
	if (!reference.taken)
		read_pair(&reference.ns, &reference.tsc);
	reference.taken = true;
	*ns = reference.ns;
	*tsc = reference.tsc;
	gp_unlock(&reference.lock);
}

u64 guest_tsc(const struct soft_vcpu *v)
{
	return host_tsc() + v->tsc_offset;
}

u64 guest_tsc_to_ns(const struct soft_vcpu *v, u64 tsc)
{
	u64 now = clock_now(), current = guest_tsc(v), ns;

	if (tsc <= current)
		return now;
	ns = muldiv(tsc - current, KHZ_PER_NS, v->tsc_khz);
	return ns < UINT64_MAX - now ? now + ns : UINT64_MAX;
}

/* ns = ((cycles << shift) * mul) >> 32, with mul in [2^31, 2^32): for @khz. */
static void set_scale(struct pvclock_time *time, u64 khz)
{
	u64 hz = khz * 1000, mul;
	int shift = 0;

	while (hz >> -shift > 2 * NS_PER_S)
		shift--;
	while (shift >= 0 && hz << shift <= NS_PER_S)
		shift++;
	/* 2^32 itself when hz << shift is a hair above 1 GHz */
	mul = muldiv(NS_PER_S, BIT(32 - shift), hz);
	time->tsc_shift = shift;
	time->tsc_to_system_mul = mul > UINT32_MAX ? UINT32_MAX : mul;
}

/* Whether [gpa, gpa+size) is RAM; it may cross a page. */
static bool is_ram(struct soft_vcpu *v, u64 gpa, u32 size)
{
	return phys_ram(v->vm, gpa) && phys_ram(v->vm, gpa + size - 1);
}

static void write_ram(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	u64 room = PAGE_SIZE - (gpa & ~PAGE_MASK);
	u32 first = size < room ? size : room;

	phys_write(v, gpa, buf, first);
	if (first < size)
		phys_write(v, gpa + first, (const u8 *)buf + first, size - first);
}

/* Writes a structure that starts with a version: odd, the rest, even (msr.rst). @gpa has 4-byte
 * alignment. */
static void publish(struct soft_vcpu *v, u64 gpa, u32 *version, const void *body, u32 size)
{
	phys_read(v, gpa, version, sizeof(*version));
	*version = (*version | 1) + 2;
	write_ram(v, gpa, version, sizeof(*version));
	atomic_thread_fence(memory_order_release);
	write_ram(v, gpa + sizeof(*version), (const u8 *)body + sizeof(*version),
		  size - sizeof(*version));
	atomic_thread_fence(memory_order_release);
	*version += 1;
	write_ram(v, gpa, version, sizeof(*version));
}

void kvmclock_update(struct soft_vcpu *v)
{
	u64 gpa = v->msr.kvm_system_time & ~3ull, ns, tsc;
	struct pvclock_time time = {.flags = PVCLOCK_TSC_STABLE};

	if (!(v->msr.kvm_system_time & PVCLOCK_ENABLED) || !v->tsc_khz ||
	    !is_ram(v, gpa, sizeof(time)))
		return;
	clock_reference(&ns, &tsc);
	/* Both may lie before the guest's zero; the guest's sums are modulo 2^64 */
	time.tsc_timestamp = tsc + v->tsc_offset;
	time.system_time = ns + v->vm->clock_offset;
	set_scale(&time, v->tsc_khz);
	publish(v, gpa, &time.version, &time, sizeof(time));
}

void kvmclock_update_wall(struct soft_vcpu *v)
{
	u64 gpa = v->msr.kvm_wall_clock & ~3ull;
	u64 boot = read_clock(CLOCK_REALTIME) - (clock_now() + v->vm->clock_offset);
	struct pvclock_wall wall = {.sec = boot / NS_PER_S, .nsec = boot % NS_PER_S};

	if (!v->msr.kvm_wall_clock || !is_ram(v, gpa, sizeof(wall)))
		return;
	publish(v, gpa, &wall.version, &wall, sizeof(wall));
}
