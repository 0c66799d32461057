// SPDX-License-Identifier: MIT OR GPL-2.0
/* Guest-physical memory, read and written by the kernel at the owner's addresses: it may fault,
 * sleep and fail. */
#include <linux/uaccess.h>

#include "guise.h"

const struct memory_slot *memory_find(struct vm *vm, u64 gpa)
{
	for (u32 i = 0; i < vm->slot_count; i++)
		if (gpa - vm->slots[i].gpa < vm->slots[i].bytes)
			return &vm->slots[i];
	return NULL;
}

bool memory_writable(struct vm *vm, u64 gpa)
{
	const struct memory_slot *slot = memory_find(vm, gpa);

	return slot && !(slot->flags & KVM_MEM_READONLY);
}

/* The owner's address of @bytes at @gpa, which are in one page; NULL: they are in no slot, or may
 * not be written. */
static void __user *user_address(struct vm *vm, u64 gpa, u32 bytes, bool write)
{
	const struct memory_slot *slot = memory_find(vm, gpa);

	if (!slot || slot->bytes - (gpa - slot->gpa) < bytes)
		return NULL;
	if (write && (slot->flags & KVM_MEM_READONLY))
		return NULL;
	if (write)
		dirty_mark(slot, gpa);
	return (void __user *)(slot->hva + (gpa - slot->gpa));
}

int memory_read(struct vm *vm, u64 gpa, void *data, u32 bytes)
{
	void __user *from = user_address(vm, gpa, bytes, false);

	return from && !copy_from_user(data, from, bytes) ? 0 : -EFAULT;
}

int memory_write(struct vm *vm, u64 gpa, const void *data, u32 bytes)
{
	void __user *to = user_address(vm, gpa, bytes, true);

	return to && !copy_to_user(to, data, bytes) ? 0 : -EFAULT;
}

int memory_exchange(struct vm *vm, u64 gpa, u64 old, u64 new, bool wide)
{
	void __user *at = user_address(vm, gpa, wide ? 8 : 4, true);
	u64 expected = old;
	u32 expected32 = old;
	bool done = false;

	if (!at || !user_access_begin(at, wide ? 8 : 4))
		return -EFAULT;
	if (wide)
		done = unsafe_try_cmpxchg_user((u64 __user *)at, &expected, new, fault);
	else
		done = unsafe_try_cmpxchg_user((u32 __user *)at, &expected32, (u32) new, fault);
	user_access_end();
	return done ? 0 : -EAGAIN;

fault:
	user_access_end();
	return -EFAULT;
}
