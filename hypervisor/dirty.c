// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The log of pages that a guest has written (KVM_MEM_LOG_DIRTY_PAGES, KVM_GET_DIRTY_LOG), for
 * owners that copy a running guest's memory or redraw a screen.
 *
 * It is kept by write protection: a page may be written only while its bit is set, so the first
 * write to each page since the log was read exits. The dirty bits of EPT would save these exits,
 * but a log would have to be gathered from all tables of the slot however little was written, not
 * every processor has them, and with them every walk of the guest's own tables counts as a write of
 * these (SDM 3C 28.2.4).
 *
 * What the kernel itself writes for the guest goes by memory.c, which marks it.
 */
#include <linux/bitmap.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "guise.h"

static unsigned long pages_of(const struct memory_slot *slot)
{
	return slot->bytes >> PAGE_SHIFT;
}

static size_t log_bytes(const struct memory_slot *slot)
{
	return BITS_TO_LONGS(pages_of(slot)) * sizeof(long);
}

int dirty_start(struct vm *vm, struct memory_slot *slot)
{
	int ret;

	slot->dirty = kvzalloc(log_bytes(slot), GFP_KERNEL_ACCOUNT);
	if (!slot->dirty)
		return -ENOMEM;
	ret = ept_protect(vm, slot->gpa, slot->bytes);
	ept_flush(vm);
	if (ret)
		dirty_stop(slot);
	return ret;
}

/* What is protected yet becomes writable as it is written. */
void dirty_stop(struct memory_slot *slot)
{
	kvfree(slot->dirty);
	slot->dirty = NULL;
}

void dirty_mark(const struct memory_slot *slot, u64 gpa)
{
	unsigned long page = (gpa - slot->gpa) >> PAGE_SHIFT;

	if (slot->dirty && !test_bit(page, slot->dirty))
		set_bit(page, slot->dirty);
}

/* Moves the log to @snapshot and protects what was in it. memory_lock is held for writing. */
static int take_log(struct vm *vm, struct memory_slot *slot, unsigned long *snapshot)
{
	unsigned long from, to;

	memcpy(snapshot, slot->dirty, log_bytes(slot));
	if (bitmap_empty(snapshot, pages_of(slot)))
		return 0;
	bitmap_zero(slot->dirty, pages_of(slot));
	for_each_set_bitrange (from, to, snapshot, pages_of(slot)) {
		int ret =
		    ept_protect(vm, slot->gpa + (from << PAGE_SHIFT), (to - from) << PAGE_SHIFT);

		if (ret)
			return ret;
		cond_resched();
	}
	ept_flush(vm);
	return 0;
}

int dirty_get_log(struct vm *vm, const struct kvm_dirty_log *log)
{
	unsigned long *snapshot = NULL;
	struct memory_slot *slot;
	size_t bytes = 0;
	int ret = -ENOENT;

	if (down_write_killable(&vm->memory_lock))
		return -EINTR;
	slot = vm_find_slot(vm, log->slot);
	if (slot && slot->dirty) {
		bytes = log_bytes(slot);
		snapshot = kvmalloc(bytes, GFP_KERNEL_ACCOUNT);
		ret = snapshot ? take_log(vm, slot, snapshot) : -ENOMEM;
	}
	up_write(&vm->memory_lock);
	if (!ret && copy_to_user(log->dirty_bitmap, snapshot, bytes))
		ret = -EFAULT;
	kvfree(snapshot);
	return ret;
}
