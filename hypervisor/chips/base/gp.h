/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* For the interrupt chips (engine/soft/irqchip): what base/gp.h gives them in the monitor, as the
 * kernel has it. */
#ifndef GUISE_CHIPS_GP_H
#define GUISE_CHIPS_GP_H

#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>

#define UINT64_MAX U64_MAX
#undef current /* the running thread in the kernel, a count in the chips */

#define atomic_load(object)		    __atomic_load_n(object, __ATOMIC_SEQ_CST)
#define atomic_load_explicit(object, order) __atomic_load_n(object, __ATOMIC_ACQUIRE)
#define atomic_store(object, value)	    __atomic_store_n(object, value, __ATOMIC_SEQ_CST)
#define atomic_exchange(object, value)	    __atomic_exchange_n(object, value, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_weak(object, expected, value)                                      \
	__atomic_compare_exchange_n(object, expected, value, true, __ATOMIC_SEQ_CST,               \
				    __ATOMIC_SEQ_CST)

static inline void gp_copy(void *dst, const void *src, size_t bytes)
{
	memcpy(dst, src, bytes);
}

static inline void gp_fill(void *dst, u8 value, size_t bytes)
{
	memset(dst, value, bytes);
}

/* Timers take it, too, hence interrupts are off. */
struct gp_lock {
	spinlock_t lock;
	unsigned long flags; /* of who holds it */
};

static inline void gp_lock_init(struct gp_lock *lock)
{
	spin_lock_init(&lock->lock);
}

static inline void gp_lock(struct gp_lock *lock)
{
	unsigned long flags;

	spin_lock_irqsave(&lock->lock, flags);
	lock->flags = flags;
}

static inline void gp_unlock(struct gp_lock *lock)
{
	spin_unlock_irqrestore(&lock->lock, lock->flags);
}

#endif
