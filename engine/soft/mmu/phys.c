/* Guest-physical memory: slots, and accesses that stay within one page. */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/io.h"

struct memslot *phys_slot_search(struct soft_vm *vm, u64 gpa)
{
	u32 low = 0, high = vm->slot_count;

	while (low < high) {
		u32 middle = (low + high) / 2;
		struct memslot *slot = &vm->slots[middle];

		if (gpa < slot->gpa)
			high = middle;
		else if (gpa - slot->gpa >= slot->size)
			low = middle + 1;
		else
			return slot;
	}
	return NULL;
}

struct memslot *phys_slot_of_host(struct soft_vm *vm, u64 host)
{
	for (u32 n = 0; n < vm->slot_count; n++)
		if (host - (u64)vm->slots[n].host < vm->slots[n].size)
			return &vm->slots[n];
	return NULL;
}

u8 *phys_ram(struct soft_vm *vm, u64 gpa)
{
	struct memslot *slot = phys_slot(vm, gpa);

	return slot ? slot->host + (gpa - slot->gpa) : NULL;
}

static bool page_has_code(const struct memslot *slot, u64 gpa)
{
	return slot->page_flags &&
	       __atomic_load_n(&slot->page_flags[(gpa - slot->gpa) / PAGE_SIZE], __ATOMIC_RELAXED) &
		   PAGE_HAS_CODE;
}

bool phys_plain_write(const struct memslot *slot, u64 gpa)
{
	return !(slot->flags & KVM_MEM_READONLY) && !slot->dirty && !page_has_code(slot, gpa);
}

void phys_written(struct soft_vcpu *v, struct memslot *slot, u64 gpa, u32 size)
{
	if (slot->dirty) {
		u64 page = (gpa - slot->gpa) / PAGE_SIZE;
		__atomic_fetch_or(&slot->dirty[page / 64], BIT(page % 64), __ATOMIC_RELAXED);
	}
	if (page_has_code(slot, gpa))
		blocks_invalidate(v, gpa, size);
}

bool phys_drop_code(struct soft_vcpu *v, u64 gpa, u32 size)
{
	struct memslot *slot = phys_slot(v->vm, gpa);

	if (!slot || !page_has_code(slot, gpa))
		return false;
	blocks_invalidate(v, gpa, size);
	return phys_plain_write(slot, gpa);
}

void phys_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size)
{
	u8 *host = phys_ram(v->vm, gpa);

	if (likely(host))
		ram_copy(buf, host, size);
	else
		mmio_read(v, gpa, buf, size);
}

void phys_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	struct memslot *slot = phys_slot(v->vm, gpa);

	/* Writes to read-only slots leave as MMIO: api.rst 4.35, KVM_MEM_READONLY. */
	if (!slot || (slot->flags & KVM_MEM_READONLY)) {
		mmio_write(v, gpa, buf, size);
		return;
	}
	ram_copy(slot->host + (gpa - slot->gpa), buf, size);
	phys_written(v, slot, gpa, size);
}

u64 phys_fetch_and(struct soft_vcpu *v, u64 gpa, u64 mask)
{
	struct memslot *slot = phys_slot(v->vm, gpa);

	if (!slot || (slot->flags & KVM_MEM_READONLY))
		return 0;

	u64 before =
	    __atomic_fetch_and((u64 *)(slot->host + (gpa - slot->gpa)), mask, __ATOMIC_SEQ_CST);

	phys_written(v, slot, gpa, sizeof(before));
	return before;
}
