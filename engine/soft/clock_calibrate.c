/* The frequency of the host's TSC. Outside. */
#include <cpuid.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/soft/irqchip/internal.h"

#define LEAF_TSC      0x15
#define MEASURE_NS    2000000
#define MEASURE_TRIES 16

/*
 * The kernel publishes its own conversion, ns = cycles * time_mult >> time_shift, in the page of
 * any perf event (perf_event_open(2), cap_user_time). The best source: calibrated for long, and
 * true in a VM.
 */
static u32 khz_from_kernel(void)
{
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_SOFTWARE,
	    .size = sizeof(attr),
	    .config = PERF_COUNT_SW_DUMMY,
	    .exclude_kernel = 1,
	    .exclude_hv = 1,
	    .disabled = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	struct perf_event_mmap_page *page;
	u64 khz = 0;

	if (fd < 0)
		return 0;
	page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
	if (page != MAP_FAILED) {
		if (page->cap_user_time && page->time_mult && page->time_shift < 44)
			khz = ((1000000ull << page->time_shift) + page->time_mult / 2) /
			      page->time_mult;
		munmap(page, sysconf(_SC_PAGESIZE));
	}
	close(fd);
	return khz <= UINT32_MAX ? khz : 0;
}

/* SDM 2A CPUID, leaf 15H: EBX/EAX is the ratio of TSC to crystal clock, ECX the crystal's Hz. Leaf
 * 16H, where the crystal is not told, is a rounded nominal value: worse than measuring. */
static u32 khz_from_cpuid(void)
{
	u32 denominator, numerator, crystal, edx;

	if (!__get_cpuid(LEAF_TSC, &denominator, &numerator, &crystal, &edx) || !denominator)
		return 0;
	return (u64)crystal * numerator / denominator / 1000;
}

/* TSC and nanoseconds at one moment. */
struct moment {
	u64 tsc, ns;
};

/** The best of some tries: the one that took the shortest, as nobody came in between. */
static struct moment moment_now(void)
{
	struct moment best = {0};
	u64 shortest = ~0ull;

	for (u32 n = 0; n < MEASURE_TRIES; n++) {
		u64 before = __builtin_ia32_rdtsc(), ns = clock_now();
		u64 took = __builtin_ia32_rdtsc() - before;
		if (took < shortest) {
			shortest = took;
			best = (struct moment){.tsc = before + took / 2, .ns = ns};
		}
	}
	return best;
}

static u32 khz_measured(void)
{
	struct moment start = moment_now(), end;

	while (clock_now() - start.ns < MEASURE_NS)
		;
	end = moment_now();
	return muldiv(end.tsc - start.tsc, 1000000, end.ns - start.ns);
}

static u32 host_khz;

static void calibrate(void)
{
	host_khz = khz_from_kernel();
	if (!host_khz)
		host_khz = khz_from_cpuid();
	if (!host_khz)
		host_khz = khz_measured();
}

u32 clock_tsc_khz(void)
{
	/* A property of the host, found once for the process */
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, calibrate);
	return host_khz;
}
