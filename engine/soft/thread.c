#include "engine/soft/thread.h"

#include <asm/prctl.h>
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif

/* What system calls told, once a thread. */
static __thread struct {
	int tid; /* 0: not asked yet */
	u64 signal_mask;
} known;

static void forget_after_fork(void)
{
	known.tid = 0;
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, forget_after_fork);
}

static void ask(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, watch_forks);
	known.tid = (int)syscall(SYS_gettid);
	syscall(SYS_rt_sigprocmask, 0, NULL, &known.signal_mask, sizeof(known.signal_mask));
}

/* ---- GS base: user space does not need it on x86-64 Linux ---- */

static bool has_fsgsbase(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

static u64 read_gs(bool fast)
{
	u64 base = 0;
	if (fast)
		__asm__ volatile("rdgsbase %0" : "=r"(base));
	else
		syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
	return base;
}

static void write_gs(bool fast, u64 base)
{
	if (fast)
		__asm__ volatile("wrgsbase %0" : : "r"(base));
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

void thread_enter(struct soft_vcpu *v)
{
	if (unlikely(!known.tid || !v->vm->tune.exits)) {
		ask();
		v->fsgsbase = has_fsgsbase();
	}
	v->signal_mask = known.signal_mask;
	soft_current = v;
	/* Before the look at attention that comes now: see vcpu_poke(). */
	if (atomic_load_explicit(&v->thread, memory_order_relaxed) != known.tid)
		atomic_store(&v->thread, known.tid);
	u64 before = read_gs(v->fsgsbase);
	if (before != (u64)v) {
		v->host_gs = before;
		write_gs(v->fsgsbase, (u64)v);
	}
}

void thread_leave(struct soft_vcpu *v)
{
	/* A base of 0 is one that nobody uses: it can be left at ours until the next time. */
	if (v->host_gs || !v->vm->tune.exits)
		write_gs(v->fsgsbase, v->host_gs);
	/* The number stays: a kick meanwhile sends a signal for nothing, which is rare, while an
	 * ordered store would cost at every exit. */
	if (!v->vm->tune.exits)
		atomic_store(&v->thread, 0);
	soft_current = NULL;
}

void thread_forget(const struct soft_vcpu *v)
{
	bool fast = has_fsgsbase();
	if (read_gs(fast) == (u64)v)
		write_gs(fast, v->host_gs);
}
