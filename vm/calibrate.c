#include "vm/calibrate.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/error.h"
#include "engine/engine.h"
#include "host/loop.h"

/* The calibration VM's memory. The tables map 2 MiB; only what is listed here is RAM. */
#define RAM_BYTES 0x10000ull
#define CODE_GPA  0x1000ull
#define PML4_GPA  0x2000ull
#define PDPT_GPA  0x3000ull
#define PD_GPA	  0x4000ull
#define DATA_GPA  0x8000ull
#define DONE_PORT 0xf4

#define PTE_PRESENT 0x01
#define PTE_WRITE   0x02
#define PTE_USER    0x04
#define PTE_LARGE   0x80

#define CR0_PE	 BIT(0)
#define CR0_MP	 BIT(1)
#define CR0_ET	 BIT(4)
#define CR0_NE	 BIT(5)
#define CR0_WP	 BIT(16)
#define CR0_PG	 BIT(31)
#define CR4_PAE	 BIT(5)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)

#define RFLAGS_FIXED  0x2
#define RFLAGS_IOPL_3 0x3000 /* lets CPL 3 say through a port that it is done */

#define FIRST_ROUNDS	  20000ull
#define ENOUGH_ROUNDS	  2000ull     /* fewer measure the way in and out, not the loop */
#define PATIENCE	  25	      /* budgets that a slow host may take for that */
#define WARM_UP_ROUNDS	  20ull	      /* page faults, translation */
#define WARM_UP_NS	  50000000ull /* at most */
#define CPUID_ENTRIES_MAX 256

/* Below both, an engine counts as slow. */
#define SLOW_MIPS	 50.0
#define SLOW_NATIVE_PART 0.05

/*
 * The loop: RCX rounds of LOOP_INSNS instructions: arithmetic, a store, a load, a branch not taken
 * and one taken, then a port write. Position-independent; RBX points at data.
 */
#define LOOP_INSNS 10
__asm__(".macro calibrate_loop\n"
	"1:	add %rcx, %rax\n"
	"	xor %rax, %rdx\n"
	"	mov %rdx, (%rbx)\n"
	"	lea 1(%rdx), %rdi\n"
	"	mov 8(%rbx), %rsi\n"
	"	rol $3, %rax\n"
	"	test %rcx, %rcx\n"
	"	jz 2f\n"
	"	dec %rcx\n"
	"	jnz 1b\n"
	"2:\n"
	".endm\n");

/* For the guest: says through a port that it is done. */
extern const u8 calibrate_code[], calibrate_code_end[];
__asm__(".pushsection .rodata\n"
	"calibrate_code:\n"
	"	calibrate_loop\n"
	"	out %al, $0xf4\n"
	"3:	jmp 3b\n"
	"calibrate_code_end:\n"
	".popsection\n");

/* For the host: a function. */
void calibrate_native(u64 rounds, u64 *data);
__asm__(".pushsection .text\n"
	".type calibrate_native, @function\n"
	"calibrate_native:\n"
	"	push %rbx\n"
	"	mov %rdi, %rcx\n"
	"	mov %rsi, %rbx\n"
	"	calibrate_loop\n"
	"	pop %rbx\n"
	"	ret\n"
	".size calibrate_native, . - calibrate_native\n"
	".popsection\n");

/** What ends a run that takes too long: a thread that kicks the vCPU when the time is over. */
struct alarm_clock {
	struct engine_vcpu *cpu;
	u64 when; /* CLOCK_MONOTONIC, ns */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cancel;
	bool cancelled;
};

struct rig {
	const struct engine *engine;
	struct engine_vm *vm;
	struct engine_vcpu *cpu;
	u8 *ram;
};

static void *alarm_thread(void *opaque)
{
	struct alarm_clock *alarm = opaque;
	struct timespec when = {
	    .tv_sec = (time_t)(alarm->when / 1000000000),
	    .tv_nsec = (long)(alarm->when % 1000000000),
	};

	pthread_mutex_lock(&alarm->lock);
	int ret = 0;
	while (!alarm->cancelled && ret == 0)
		ret = pthread_cond_timedwait(&alarm->cancel, &alarm->lock, &when);
	if (!alarm->cancelled)
		alarm->cpu->engine->vcpu_kick(alarm->cpu);
	pthread_mutex_unlock(&alarm->lock);
	return NULL;
}

static int alarm_set(struct alarm_clock *alarm, struct engine_vcpu *cpu, u64 when)
{
	*alarm = (struct alarm_clock){.cpu = cpu, .when = when};
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&alarm->cancel, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&alarm->lock, NULL);
	return -pthread_create(&alarm->thread, NULL, alarm_thread, alarm);
}

static void alarm_cancel(struct alarm_clock *alarm)
{
	pthread_mutex_lock(&alarm->lock);
	alarm->cancelled = true;
	pthread_cond_signal(&alarm->cancel);
	pthread_mutex_unlock(&alarm->lock);
	pthread_join(alarm->thread, NULL);
	pthread_cond_destroy(&alarm->cancel);
	pthread_mutex_destroy(&alarm->lock);
}

static void put_entry(u8 *ram, u64 gpa, u64 entry)
{
	memcpy(ram + gpa, &entry, sizeof(entry));
}

static void fill_ram(u8 *ram)
{
	memcpy(ram + CODE_GPA, calibrate_code, (size_t)(calibrate_code_end - calibrate_code));
	put_entry(ram, PML4_GPA, PDPT_GPA | PTE_PRESENT | PTE_WRITE | PTE_USER);
	put_entry(ram, PDPT_GPA, PD_GPA | PTE_PRESENT | PTE_WRITE | PTE_USER);
	put_entry(ram, PD_GPA, PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_LARGE);
}

static int set_cpuid(struct rig *rig)
{
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = CPUID_ENTRIES_MAX;
	int ret = rig->engine->vm_get_supported_cpuid(rig->vm, cpuid);
	if (ret == 0)
		ret = rig->engine->vcpu_set_cpuid(rig->cpu, cpuid);
	free(cpuid);
	return ret;
}

/** Long mode at the privilege of @mode, as the tables in fill_ram() have it. */
static int set_mode(struct rig *rig, enum calibrate_mode mode)
{
	struct kvm_sregs sregs;
	int ret = rig->engine->vcpu_get_sregs(rig->cpu, &sregs);
	if (ret < 0)
		return ret;

	u8 dpl = mode == CALIBRATE_USER ? 3 : 0;
	struct kvm_segment data = {
	    .limit = 0xffffffff,
	    .selector = 0x10 | dpl,
	    .type = 3, /* read/write, accessed */
	    .present = 1,
	    .dpl = dpl,
	    .db = 1,
	    .s = 1,
	    .g = 1,
	};
	struct kvm_segment code = data;
	code.selector = 0x08 | dpl;
	code.type = 11; /* execute/read, accessed */
	code.db = 0;
	code.l = 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = PML4_GPA;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	return rig->engine->vcpu_set_sregs(rig->cpu, &sregs);
}

static int set_start(struct rig *rig, enum calibrate_mode mode, u64 rounds)
{
	struct kvm_regs regs = {
	    .rip = CODE_GPA,
	    .rcx = rounds,
	    .rbx = DATA_GPA,
	    .rflags = RFLAGS_FIXED | (mode == CALIBRATE_USER ? RFLAGS_IOPL_3 : 0),
	};
	return rig->engine->vcpu_set_regs(rig->cpu, &regs);
}

/** Runs until the loop is done or the time is over. Returns rounds done, or a negative errno. */
static s64 run_rounds(struct rig *rig, u64 rounds, struct error *err)
{
	int ret = rig->engine->vcpu_run(rig->cpu);
	if (ret < 0 && ret != -EINTR)
		return error_errno(err, -ret, "the calibration loop does not run");

	const struct kvm_run *run = rig->cpu->run;
	if (ret == 0 && (run->exit_reason != KVM_EXIT_IO || run->io.port != DONE_PORT))
		return error_set(err, EIO, "the calibration loop ended with exit %u",
				 run->exit_reason);
	if (ret == 0)
		return (s64)rounds;

	struct kvm_regs regs;
	ret = rig->engine->vcpu_get_regs(rig->cpu, &regs);
	if (ret < 0)
		return error_errno(err, -ret, "the calibration loop's registers cannot be read");
	return (s64)(rounds - (regs.rcx < rounds ? regs.rcx : rounds));
}

/** What this thread has had of the processor, in ns: on a busy host, waiting is not slowness. */
static u64 cpu_time(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

/** One run of @rounds, at most until @deadline. *spent gets its processor time. As run_rounds(). */
static s64 timed_run(struct rig *rig, enum calibrate_mode mode, u64 rounds, u64 deadline,
		     u64 *spent, struct error *err)
{
	int ret = set_start(rig, mode, rounds);
	if (ret < 0)
		return error_errno(err, -ret, "the calibration loop cannot be set up");
	rig->cpu->run->immediate_exit = 0;

	struct alarm_clock alarm;
	ret = alarm_set(&alarm, rig->cpu, deadline);
	if (ret < 0)
		return error_errno(err, -ret, "cannot start the calibration's timer");
	u64 begin = cpu_time();
	s64 done = run_rounds(rig, rounds, err);
	*spent = cpu_time() - begin;
	alarm_cancel(&alarm);
	return done;
}

static double to_mips(s64 rounds, u64 ns)
{
	return (double)rounds * LOOP_INSNS * 1000.0 / (double)(ns + 1);
}

static int measure(struct rig *rig, enum calibrate_mode mode, u64 budget_ns, double *mips,
		   struct error *err)
{
	u64 spent;
	s64 done = timed_run(rig, mode, WARM_UP_ROUNDS, loop_now() + WARM_UP_NS, &spent, err);
	if (done < 0)
		return (int)done;

	/*
	 * Longer and longer runs, until one fills a good part of the time or the rest of it; then
	 * again while all of them together are too short to tell anything.
	 */
	u64 begin = loop_now(), deadline = begin + budget_ns;
	u64 all_done = 0, all_spent = 0;
	double best = 0;
	for (u64 rounds = FIRST_ROUNDS;;) {
		done = timed_run(rig, mode, rounds, deadline, &spent, err);
		if (done < 0)
			return (int)done;
		all_done += (u64)done;
		all_spent += spent;
		/* The best: what a busy host takes away makes the others too low. */
		if ((u64)done >= ENOUGH_ROUNDS && to_mips(done, spent) > best)
			best = to_mips(done, spent);
		u64 now = loop_now();
		if ((u64)done == rounds && now < deadline && spent <= budget_ns / 8) {
			rounds *= 4;
			continue;
		}
		if (all_done >= ENOUGH_ROUNDS || now >= begin + PATIENCE * budget_ns)
			break;
		deadline = now + budget_ns;
	}
	if (!all_done)
		return error_set(err, ETIMEDOUT, "the calibration loop does not get anywhere");
	*mips = best > 0 ? best : to_mips((s64)all_done, all_spent);
	return 0;
}

bool calibrate_is_slow(double kernel_mips)
{
	if (kernel_mips >= SLOW_MIPS)
		return false;
	u64 data[2] = {0};
	calibrate_native(WARM_UP_ROUNDS, data);
	u64 begin = cpu_time();
	calibrate_native(FIRST_ROUNDS, data);
	return kernel_mips < to_mips(FIRST_ROUNDS, cpu_time() - begin) * SLOW_NATIVE_PART;
}

int calibrate(const struct engine *engine, enum calibrate_mode mode, u64 budget_ns, double *mips,
	      struct error *err)
{
	struct rig rig = {.engine = engine};
	int ret;

	rig.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (rig.ram == MAP_FAILED)
		return error_errno(err, errno, "no memory for the calibration");
	fill_ram(rig.ram);

	ret = engine->vm_create(NULL, &rig.vm, err);
	if (ret < 0)
		goto unmap;
	struct kvm_userspace_memory_region region = {
	    .memory_size = RAM_BYTES,
	    .userspace_addr = (uintptr_t)rig.ram,
	};
	ret = engine->vm_set_memory(rig.vm, &region);
	if (ret < 0) {
		error_errno(err, -ret, "the calibration's memory is refused");
		goto destroy_vm;
	}
	ret = engine->vcpu_create(rig.vm, 0, &rig.cpu, err);
	if (ret < 0)
		goto destroy_vm;
	ret = set_cpuid(&rig);
	if (ret == 0)
		ret = set_mode(&rig, mode);
	if (ret < 0)
		error_errno(err, -ret, "the calibration's processor state is refused");
	else
		ret = measure(&rig, mode, budget_ns, mips, err);

	engine->vcpu_destroy(rig.cpu);
destroy_vm:
	engine->vm_destroy(rig.vm);
unmap:
	munmap(rig.ram, RAM_BYTES);
	return ret;
}

/** Adds "text; " to the reasons collected so far. */
static void add_reason(char *reasons, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void add_reason(char *reasons, size_t size, const char *fmt, ...)
{
	size_t used = strlen(reasons);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(reasons + used, size - used, fmt, ap);
	va_end(ap);
	used = strlen(reasons);
	snprintf(reasons + used, size - used, "; ");
}

static bool any_usable(const struct engine *const *list)
{
	struct engine_probe probe = {.usable = false};
	for (; *list && !probe.usable; list++)
		(*list)->probe(NULL, &probe);
	return probe.usable;
}

const struct engine *calibrate_choose(char *why, size_t size, struct error *err)
{
	const struct engine *slow = NULL;
	char reasons[400] = "";

	for (const struct engine *const *e = engines; *e; e++) {
		const char *name = (*e)->name;
		struct engine_probe probe = {.usable = false};
		struct error error;
		double mips;
		bool last = !e[1];

		(*e)->probe(NULL, &probe);
		if (!probe.usable) {
			add_reason(reasons, sizeof(reasons), "%s: %s", name, probe.reason);
			continue;
		}
		if (last) { /* whatever its speed, there is nothing better to be had */
			snprintf(why, size, "%s%s is left", reasons, name);
			return *e;
		}
		if (probe.emulated && any_usable(e + 1)) {
			add_reason(reasons, sizeof(reasons), "%s emulates kernel code", name);
			continue;
		}
		if (calibrate(*e, CALIBRATE_KERNEL, CALIBRATE_BUDGET_QUICK_NS, &mips, &error) < 0) {
			add_reason(reasons, sizeof(reasons), "%s: %s", name, error.text);
			continue;
		}
		if (!calibrate_is_slow(mips)) {
			snprintf(why, size, "%s%s runs kernel code at %.0f MIPS", reasons, name,
				 mips);
			return *e;
		}
		slow = slow ? slow : *e;
		add_reason(reasons, sizeof(reasons), "%s runs kernel code at only %.1f MIPS", name,
			   mips);
	}
	if (!slow) {
		error_set(err, ENODEV, "no engine is usable here: %s'guise check' says more",
			  reasons);
		return NULL;
	}
	snprintf(why, size, "%sno other engine is usable", reasons);
	return slow;
}
