/*
 * What code that runs while guest vector registers are live may use instead of libc:
 * copies by string instructions, raw system calls, a small lock. General registers only.
 */
#ifndef GUISE_BASE_GP_H
#define GUISE_BASE_GP_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/types.h"

static inline void gp_copy(void *dst, const void *src, size_t bytes)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(bytes) : : "memory");
}

static inline void gp_fill(void *dst, u8 value, size_t bytes)
{
	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(bytes) : "a"(value) : "memory");
}

static inline long gp_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/** Futex lock, 0 free, 1 held, 2 held with waiters (Drepper, "Futexes are tricky"). */
struct gp_lock {
	_Atomic u32 word;
};

/** Zeroes are a free lock here; in the kernel, where the interrupt chips run too, not of every
 * configuration. */
static inline void gp_lock_init(struct gp_lock *lock)
{
	atomic_init(&lock->word, 0);
}

static inline void gp_lock(struct gp_lock *lock)
{
	u32 seen = 0;
	if (likely(atomic_compare_exchange_strong(&lock->word, &seen, 1)))
		return;
	while (atomic_exchange(&lock->word, 2) != 0)
		gp_syscall(SYS_futex, (long)&lock->word, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
}

static inline void gp_unlock(struct gp_lock *lock)
{
	if (atomic_exchange(&lock->word, 0) == 2)
		gp_syscall(SYS_futex, (long)&lock->word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

#endif
