// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Extended page tables: guest-physical to host-physical addresses, four levels, filled in as the
 * guest touches pages.
 *
 * A page is pinned when it is mapped and stays so until its slot goes. The alternative, MMU
 * notifiers, lets the host swap and move guest memory, at the price of a second way into these
 * tables, from the memory management's locks, that races with this one. Pinned memory is accounted
 * as locked (RLIMIT_MEMLOCK). As with devices that do DMA, what the owner maps over a slot's
 * addresses later is not seen by the guest.
 *
 * Every leaf that is present holds a pin on each of its pages, so the tables themselves are the
 * list of what to unpin.
 *
 * Source: SDM 3C 28.2, 28.3.
 */
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <asm/io.h>

#include "guise.h"
#include "vmcs.h"

#define LEVELS	4
#define ENTRIES 512

#define EPT_RWX	    VMX_EPT_RWX_MASK
#define EPT_LARGE   BIT_ULL(7)
#define EPT_ADDRESS GENMASK_ULL(51, 12)
/* Write-back, whatever the guest's PAT says: RAM is coherent, and no device does DMA behind the
 * caches' back. */
#define EPT_LEAF ((u64)VMX_EPTP_MT_WB << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT)

static u64 rights(const struct memory_slot *slot)
{
	return slot->flags & KVM_MEM_READONLY ? EPT_RWX & ~VMX_EPT_WRITABLE_MASK : EPT_RWX;
}

/* Bytes that an entry of a level covers; level 1 has the leaves of 4 KiB. */
static u64 level_bytes(int level)
{
	return 1ull << (12 + 9 * (level - 1));
}

static u64 *table_of(u64 entry)
{
	return __va(entry & EPT_ADDRESS);
}

static u64 *slot_in(u64 *table, u64 gpa, int level)
{
	return &table[(gpa >> (12 + 9 * (level - 1))) & (ENTRIES - 1)];
}

static bool is_leaf(u64 entry, int level)
{
	return level == 1 || (entry & EPT_LARGE);
}

int ept_create(struct vm *vm)
{
	vm->ept_root = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vm->ept_root)
		return -ENOMEM;
	vm->eptp = __pa(vm->ept_root) | VMX_EPTP_MT_WB | VMX_EPTP_PWL_4;
	return 0;
}

/* The entry for @gpa at @level, its table made if missing; NULL: no memory. An entry above that is
 * a leaf already is returned in its place. */
static u64 *make_entry(struct vm *vm, u64 gpa, int level)
{
	u64 *entry = slot_in(vm->ept_root, gpa, LEVELS);

	for (int at = LEVELS; at > level; at--) {
		if (!(*entry & EPT_RWX)) {
			u64 *table = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);

			if (!table)
				return NULL;
			/* Rights are decided at the leaf. */
			smp_wmb();
			WRITE_ONCE(*entry, __pa(table) | EPT_RWX);
		} else if (is_leaf(*entry, at)) {
			return entry;
		}
		entry = slot_in(table_of(*entry), gpa, at - 1);
	}
	return entry;
}

/* Pins @count pages from @hva on. 0, or an error and nothing pinned. */
static int pin(struct vm *vm, unsigned long hva, struct page **pages, int count)
{
	int ret = account_locked_vm(vm->mm, count, true);

	if (ret)
		return ret;
	vm->pinned += count;
	ret = pin_user_pages_fast(hva, count, FOLL_WRITE | FOLL_LONGTERM, pages);
	if (ret == count)
		return 0;
	if (ret > 0)
		unpin_user_pages(pages, ret);
	vm->pinned -= count;
	account_locked_vm(vm->mm, count, false);
	return ret < 0 ? ret : -EFAULT;
}

static void unpin(struct vm *vm, u64 entry, int level)
{
	unsigned long count = level == 1 ? 1 : ENTRIES;

	unpin_user_page_range_dirty_lock(pfn_to_page((entry & EPT_ADDRESS) >> PAGE_SHIFT), count,
					 true);
	vm->pinned -= count;
	account_locked_vm(vm->mm, count, false);
}

/*
 * Maps the 2 MiB around @gpa in one leaf if the owner's memory there is so: 2 MiB of one slot,
 * aligned alike in both address spaces, in one piece of physical memory. The pin keeps it in one
 * piece. 0: mapped; 1: it is not so.
 */
static int map_large(struct vm *vm, const struct memory_slot *slot, u64 gpa)
{
	u64 bytes = level_bytes(2), start = gpa & ~(bytes - 1);
	unsigned long hva = slot->hva + (start - slot->gpa);
	struct page **pages;
	u64 *entry;
	int ret = 1;

	if (!vmcs_controls.ept_large || start < slot->gpa ||
	    start + bytes > slot->gpa + slot->bytes || (hva & (bytes - 1)))
		return 1;
	entry = make_entry(vm, gpa, 2);
	if (!entry)
		return -ENOMEM;
	if (*entry & EPT_RWX)
		return 1; /* some of it is mapped in small pages already */

	pages = kmalloc_array(ENTRIES, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return 1;
	/* One page tells whether it is worth while to ask for all. */
	if (pin(vm, hva, pages, 1))
		goto out;
	if (!PageTransHuge(pages[0]) && !PageHuge(compound_head(pages[0]))) {
		unpin(vm, page_to_phys(pages[0]), 1);
		goto out;
	}
	unpin(vm, page_to_phys(pages[0]), 1);
	if (pin(vm, hva, pages, ENTRIES))
		goto out;
	for (int i = 1; i < ENTRIES; i++) {
		if (page_to_pfn(pages[i]) != page_to_pfn(pages[0]) + i)
			goto not_one_piece;
	}
	if (page_to_phys(pages[0]) & (bytes - 1))
		goto not_one_piece;
	WRITE_ONCE(*entry, page_to_phys(pages[0]) | rights(slot) | EPT_LEAF | EPT_LARGE);
	ret = 0;
	goto out;

not_one_piece:
	unpin_user_pages(pages, ENTRIES);
	vm->pinned -= ENTRIES;
	account_locked_vm(vm->mm, ENTRIES, false);
out:
	kfree(pages);
	return ret;
}

static int map_small(struct vm *vm, const struct memory_slot *slot, u64 gpa)
{
	struct page *page;
	u64 *entry = make_entry(vm, gpa, 1);
	int ret;

	if (!entry)
		return -ENOMEM;
	if (*entry & EPT_RWX)
		return 0; /* another vCPU was faster */
	ret = pin(vm, slot->hva + ((gpa & PAGE_MASK) - slot->gpa), &page, 1);
	if (ret)
		return ret;
	WRITE_ONCE(*entry, page_to_phys(page) | rights(slot) | EPT_LEAF);
	return 0;
}

int ept_map(struct vm *vm, const struct memory_slot *slot, u64 gpa)
{
	int ret;

	/* From not present to present nothing needs flushing: processors do not cache what is not
	 * there (SDM 3C 28.3.3.3). */
	if (mutex_lock_killable(&vm->ept_lock))
		return -EINTR;
	ret = map_large(vm, slot, gpa);
	if (ret == 1)
		ret = map_small(vm, slot, gpa);
	mutex_unlock(&vm->ept_lock);
	return ret;
}

/*
 * Unmapping goes in two rounds, as pages may be given back only when no processor can reach them
 * any more. The first takes the rights away; then all processors drop what they have cached; the
 * second unpins what the first left behind, which is known by an address without rights.
 */
enum unmap_round { UNMAP_RIGHTS, UNMAP_PAGES };

static void unmap_range(struct vm *vm, u64 *table, int level, u64 table_gpa, u64 from, u64 to,
			enum unmap_round round)
{
	u64 bytes = level_bytes(level);

	for (int i = 0; i < ENTRIES; i++) {
		u64 gpa = table_gpa + i * bytes;
		u64 entry = table[i];

		if (!entry || gpa >= to || gpa + bytes <= from)
			continue;
		if (!is_leaf(entry, level))
			unmap_range(vm, table_of(entry), level - 1, gpa, from, to, round);
		else if (round == UNMAP_RIGHTS)
			WRITE_ONCE(table[i], entry & ~EPT_RWX);
		else if (!(entry & EPT_RWX)) {
			unpin(vm, entry, level);
			table[i] = 0;
		}
		cond_resched();
	}
}

/* The IPI itself brings a vCPU out of the guest, so that none uses an old translation afterwards.
 */
static void flush_ipi(void *argument)
{
	const struct vm *vm = argument;

	invept_context(vm->eptp);
}

void ept_unmap(struct vm *vm, u64 gpa, u64 bytes)
{
	mutex_lock(&vm->ept_lock);
	unmap_range(vm, vm->ept_root, LEVELS, 0, gpa, gpa + bytes, UNMAP_RIGHTS);
	on_each_cpu(flush_ipi, vm, 1);
	unmap_range(vm, vm->ept_root, LEVELS, 0, gpa, gpa + bytes, UNMAP_PAGES);
	mutex_unlock(&vm->ept_lock);
}

static void free_tables(u64 *table, int level)
{
	for (int i = 0; level > 1 && i < ENTRIES; i++)
		if (table[i] && !is_leaf(table[i], level))
			free_tables(table_of(table[i]), level - 1);
	free_page((unsigned long)table);
}

void ept_destroy(struct vm *vm)
{
	ept_unmap(vm, 0, 1ull << 48);
	free_tables(vm->ept_root, LEVELS);
}
