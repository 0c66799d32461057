/*
 * Stores to code that are not the vCPU's own: by the monitor, or by devices that write memory
 * themselves. They may come from any thread at any time, while blocks belong to the vCPU's thread:
 * so the ranges wait in v->written, and the dispatcher throws away what was made of them.
 *
 * A translation that is being made meanwhile is safe too: its page is marked before its bytes are
 * read, here the bytes are written before the mark is looked at.
 */
#include "engine/soft/translate/written.h"

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/block.h"

static u64 page_end(u64 gpa, u64 end)
{
	u64 next = (gpa & PAGE_MASK) + PAGE_SIZE;
	return next < end ? next : end;
}

static bool has_code(struct soft_vm *vm, u64 gpa)
{
	const struct memslot *slot = phys_slot(vm, gpa);
	return slot && atomic_load((_Atomic u8 *)&slot->page_flags[(gpa - slot->gpa) >> 12]) &
			   PAGE_HAS_CODE;
}

static void queue_range(struct soft_vcpu *v, u64 gpa, u64 size)
{
	struct written *w = &v->written;
	gp_lock(&w->lock);
	if (w->count < ARRAY_SIZE(w->range))
		w->range[w->count++] = (struct written_range){gpa, size};
	else
		w->all = true;
	gp_unlock(&w->lock);
	vcpu_poke(v, ATTENTION_WRITTEN);
}

void code_memory_written(struct soft_vm *vm, u64 gpa, u64 size)
{
	u64 end = gpa + size;
	atomic_thread_fence(memory_order_seq_cst);
	for (u64 at = gpa, next; at < end; at = next) {
		next = page_end(at, end);
		if (!has_code(vm, at))
			continue;
		for (u32 n = 0; n < VCPUS_MAX; n++)
			if (vm->vcpus[n])
				queue_range(vm->vcpus[n], at, next - at);
	}
}

void code_take_written(struct soft_vcpu *v)
{
	struct written *w = &v->written;
	atomic_fetch_and(&v->attention, ~(u32)ATTENTION_WRITTEN);
	for (;;) {
		gp_lock(&w->lock);
		bool all = w->all, more = w->count;
		struct written_range range = {0};
		if (more)
			range = w->range[--w->count];
		w->all = false;
		gp_unlock(&w->lock);
		if (all)
			blocks_invalidate_all(v);
		else if (more)
			blocks_invalidate(v, range.gpa, (u32)range.size);
		else
			return;
	}
}

void code_mark_page(struct soft_vcpu *v, u64 gpa)
{
	struct soft_vm *vm = v->vm;
	struct memslot *own = phys_slot(vm, gpa);
	if (!own)
		return;
	u8 *host = own->host + ((gpa & PAGE_MASK) - own->gpa);
	bool marked = false;
	for (u32 n = 0; n < vm->slot_count; n++) {
		struct memslot *slot = &vm->slots[n];
		if (host < slot->host || host >= slot->host + slot->size)
			continue;
		_Atomic u8 *flags = (_Atomic u8 *)&slot->page_flags[(host - slot->host) >> 12];
		if (!(atomic_load(flags) & PAGE_HAS_CODE)) {
			atomic_fetch_or(flags, PAGE_HAS_CODE);
			marked = true;
		}
	}
	if (marked)
		tlb_protect_host(v, host);
}
