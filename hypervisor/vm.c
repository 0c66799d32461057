// SPDX-License-Identifier: MIT OR GPL-2.0
/* A VM: memory slots and the vCPUs' list. Its life ends with the last file descriptor, its own or a
 * vCPU's. */
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "guise.h"

/* Guest-physical addresses have at most as many bits as four levels of EPT walk. */
#define GPA_LIMIT (1ull << 48)

/* As KVM: so that page counts fit into 31 bits. */
#define SLOT_BYTES_MAX ((u64)INT_MAX << PAGE_SHIFT)

struct vm *vm_create(void)
{
	struct vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);

	if (!vm)
		return ERR_PTR(-ENOMEM);
	refcount_set(&vm->refs, 1);
	mutex_init(&vm->lock);
	init_rwsem(&vm->memory_lock);
	mutex_init(&vm->ept_lock);
	if (ept_create(vm)) {
		kfree(vm);
		return ERR_PTR(-ENOMEM);
	}
	/* Only the structure is held, for comparison and accounting; the address space may die
	 * first. */
	vm->mm = current->mm;
	mmgrab(vm->mm);
	vm->clock_offset = -(s64)clock_now();
	return vm;
}

void vm_get(struct vm *vm)
{
	refcount_inc(&vm->refs);
}

void vm_put(struct vm *vm)
{
	if (!refcount_dec_and_test(&vm->refs))
		return;
	chips_destroy(vm);
	kfree(vm->messages);
	ept_destroy(vm);
	for (u32 i = 0; i < vm->slot_count; i++)
		dirty_stop(&vm->slots[i]);
	mmdrop(vm->mm);
	kvfree(vm);
}

struct memory_slot *vm_find_slot(struct vm *vm, u32 id)
{
	for (u32 i = 0; i < vm->slot_count; i++)
		if (vm->slots[i].id == id)
			return &vm->slots[i];
	return NULL;
}

static bool overlaps(const struct vm *vm, const struct memory_slot *wanted)
{
	for (u32 i = 0; i < vm->slot_count; i++) {
		const struct memory_slot *s = &vm->slots[i];

		if (s->id != wanted->id && wanted->gpa < s->gpa + s->bytes &&
		    s->gpa < wanted->gpa + wanted->bytes)
			return true;
	}
	return false;
}

/* Begins or ends the log of written pages as the slot's flags say. */
static int update_log(struct vm *vm, struct memory_slot *slot)
{
	int ret = 0;

	if (!(slot->flags & KVM_MEM_LOG_DIRTY_PAGES))
		dirty_stop(slot);
	else if (!slot->dirty)
		ret = dirty_start(vm, slot);
	if (ret)
		slot->flags &= ~KVM_MEM_LOG_DIRTY_PAGES;
	return ret;
}

static int change_slot(struct vm *vm, struct memory_slot *slot, const struct memory_slot *wanted)
{
	/* What is mapped stays so if nothing but the log's flag changes. */
	if (slot->gpa != wanted->gpa || (slot->flags ^ wanted->flags) & KVM_MEM_READONLY) {
		ept_unmap(vm, slot->gpa, slot->bytes);
		dirty_stop(slot);
	}
	slot->gpa = wanted->gpa;
	slot->flags = wanted->flags;
	return update_log(vm, slot);
}

static int set_slot(struct vm *vm, const struct memory_slot *wanted)
{
	struct memory_slot *old = vm_find_slot(vm, wanted->id);
	int ret;

	if (!wanted->bytes) {
		if (!old)
			return -EINVAL;
		ept_unmap(vm, old->gpa, old->bytes);
		dirty_stop(old);
		*old = vm->slots[--vm->slot_count];
		return 0;
	}
	if (overlaps(vm, wanted))
		return -EEXIST;
	if (old) {
		/* api.rst 4.35: a slot may be moved, its size and memory may not change. */
		if (old->bytes != wanted->bytes || old->hva != wanted->hva)
			return -EINVAL;
		return change_slot(vm, old, wanted);
	}
	if (vm->slot_count == GUISE_SLOTS)
		return -ENOSPC;
	vm->slots[vm->slot_count] = *wanted;
	ret = update_log(vm, &vm->slots[vm->slot_count]);
	if (!ret)
		vm->slot_count++;
	return ret;
}

int vm_set_memory(struct vm *vm, const struct kvm_userspace_memory_region *region)
{
	struct memory_slot wanted = {
	    .id = region->slot,
	    .flags = region->flags,
	    .gpa = region->guest_phys_addr,
	    .bytes = region->memory_size,
	    .hva = region->userspace_addr,
	};
	int ret;

	if (region->flags & ~(KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES))
		return -EINVAL;
	if (wanted.id >= GUISE_SLOTS)
		return -EINVAL;
	if ((wanted.gpa | wanted.bytes | wanted.hva) & ~PAGE_MASK)
		return -EINVAL;
	if (wanted.bytes > SLOT_BYTES_MAX || wanted.gpa >= GPA_LIMIT ||
	    wanted.bytes > GPA_LIMIT - wanted.gpa)
		return -EINVAL;
	if (wanted.bytes && !access_ok((void __user *)wanted.hva, wanted.bytes))
		return -EINVAL;

	if (down_write_killable(&vm->memory_lock))
		return -EINTR;
	ret = set_slot(vm, &wanted);
	up_write(&vm->memory_lock);
	return ret;
}
