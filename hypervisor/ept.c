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
/* Of the bits that the processor ignores. */
#define EPT_NEVER_WRITTEN BIT_ULL(52)
/* Write-back, whatever the guest's PAT says: RAM is coherent, and no device does DMA behind the
 * caches' back. */
#define EPT_LEAF ((u64)VMX_EPTP_MT_WB << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT)

/* With a log of written pages a page may be written only once it is in the log. */
static u64 rights(const struct memory_slot *slot, u64 wanted)
{
	bool writable =
	    !(slot->flags & KVM_MEM_READONLY) && (!slot->dirty || (wanted & VMX_EPT_WRITABLE_MASK));

	return writable ? EPT_RWX : EPT_RWX & ~VMX_EPT_WRITABLE_MASK;
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

/* Pins @count pages from @hva on; @write: 0 or FOLL_WRITE. 0, or an error and nothing pinned. */
static int pin(struct vm *vm, unsigned long hva, struct page **pages, int count, unsigned int write)
{
	int ret = account_locked_vm(vm->mm, count, true);

	if (ret)
		return ret;
	vm->pinned += count;
	ret = pin_user_pages_fast(hva, count, write | FOLL_LONGTERM, pages);
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
					 !(entry & EPT_NEVER_WRITTEN));
	vm->pinned -= count;
	account_locked_vm(vm->mm, count, false);
}

/*
 * Maps the 2 MiB around @gpa in one leaf if the owner's memory there is so: 2 MiB of one slot,
 * aligned alike in both address spaces, in one piece of physical memory. The pin keeps it in one
 * piece. 0: mapped; 1: it is not so.
 */
static int map_large(struct vm *vm, const struct memory_slot *slot, u64 gpa, u64 wanted)
{
	u64 bytes = level_bytes(2), start = gpa & ~(bytes - 1), right = rights(slot, wanted);
	unsigned long hva = slot->hva + (start - slot->gpa);
	struct page **pages;
	u64 *entry;
	int ret = 1;

	if (!vmcs_controls.ept_large || slot->dirty || start < slot->gpa ||
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
	if (pin(vm, hva, pages, 1, FOLL_WRITE))
		goto out;
	if (!PageCompound(pages[0])) {
		unpin(vm, page_to_phys(pages[0]), 1);
		goto out;
	}
	unpin(vm, page_to_phys(pages[0]), 1);
	if (pin(vm, hva, pages, ENTRIES, FOLL_WRITE))
		goto out;
	for (int i = 1; i < ENTRIES; i++) {
		if (page_to_pfn(pages[i]) != page_to_pfn(pages[0]) + i)
			goto not_one_piece;
	}
	if (page_to_phys(pages[0]) & (bytes - 1))
		goto not_one_piece;
	if (vmcs_controls.ept_large_nx)
		right &= ~VMX_EPT_EXECUTABLE_MASK;
	WRITE_ONCE(*entry, page_to_phys(pages[0]) | right | EPT_LEAF | EPT_LARGE);
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

static int map_small(struct vm *vm, const struct memory_slot *slot, u64 gpa, u64 wanted)
{
	unsigned long hva = slot->hva + ((gpa & PAGE_MASK) - slot->gpa);
	struct page *page;
	u64 *entry = make_entry(vm, gpa, 1), flags = 0;
	int ret;

	if (!entry)
		return -ENOMEM;
	/* For writing even if the guest only reads: the owner's page may still be the kernel's page
	 * of zeroes, or a file's that is copied by the first write. What the owner itself may not
	 * write is not. */
	ret = pin(vm, hva, &page, 1, FOLL_WRITE);
	if (ret == -EFAULT && (slot->flags & KVM_MEM_READONLY)) {
		ret = pin(vm, hva, &page, 1, 0);
		flags = EPT_NEVER_WRITTEN;
	}
	if (ret)
		return ret;
	WRITE_ONCE(*entry, page_to_phys(page) | rights(slot, wanted) | EPT_LEAF | flags);
	return 0;
}

/* 512 small mappings instead of a large one, each with its own page's pin. */
static int split(u64 *entry)
{
	u64 *table = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);

	if (!table)
		return -ENOMEM;
	for (u64 i = 0; i < ENTRIES; i++)
		table[i] = (*entry & ~EPT_LARGE) + i * PAGE_SIZE;
	smp_wmb();
	WRITE_ONCE(*entry, __pa(table) | EPT_RWX);
	return 0;
}

/* The leaf that maps @gpa, at whatever level; NULL: it is not mapped. */
static u64 *find_leaf(struct vm *vm, u64 gpa, int *level)
{
	u64 *entry = slot_in(vm->ept_root, gpa, LEVELS);

	for (*level = LEVELS; *entry & EPT_RWX; --*level) {
		if (is_leaf(*entry, *level))
			return entry;
		entry = slot_in(table_of(*entry), gpa, *level - 1);
	}
	return NULL;
}

/* What is mapped already, but not for this access: the first write since the log was read, or a
 * fetch from a mapping that must not be large. The violation itself has made the processor forget
 * the old entry (SDM 3C 28.3.3.1). */
static int add_rights(const struct memory_slot *slot, u64 *leaf, int level, u64 wanted)
{
	u64 now = rights(slot, wanted);

	if (level > 1 && vmcs_controls.ept_large_nx && (wanted & VMX_EPT_EXECUTABLE_MASK)) {
		int ret = split(leaf);

		if (ret)
			return ret;
		for (int i = 0; i < ENTRIES; i++)
			table_of(*leaf)[i] |= VMX_EPT_EXECUTABLE_MASK;
		return 0;
	}
	WRITE_ONCE(*leaf, *leaf | (wanted & now));
	return 0;
}

int ept_map(struct vm *vm, const struct memory_slot *slot, u64 gpa, u64 wanted)
{
	int ret, level;
	u64 *leaf;

	/* From not present to present, or to more rights, nothing needs flushing: processors do not
	 * cache what is not there (SDM 3C 28.3.3.3). */
	if (mutex_lock_killable(&vm->ept_lock))
		return -EINTR;
	leaf = find_leaf(vm, gpa, &level);
	if (!leaf) {
		ret = map_large(vm, slot, gpa, wanted);
		if (ret == 1)
			ret = map_small(vm, slot, gpa, wanted);
	} else if ((*leaf & wanted) != wanted) {
		ret = add_rights(slot, leaf, level, wanted);
	} else {
		ret = 0; /* another vCPU was faster */
	}
	if (!ret && (wanted & VMX_EPT_WRITABLE_MASK))
		dirty_mark(slot, gpa);
	mutex_unlock(&vm->ept_lock);
	return ret;
}

static void flush_ipi(void *argument)
{
	const struct vm *vm = argument;

	invept_context(vm->eptp);
}

/* The IPI itself brings vCPUs out of their guests, so none uses an old translation afterwards. */
void ept_flush(struct vm *vm)
{
	on_each_cpu(flush_ipi, vm, 1);
}

/* For each entry that is not empty in the part of a table that [@from, @to) touches. */
#define for_each_entry(i, gpa, table, level, table_gpa, from, to)                                  \
	for (i = (from) > (table_gpa) ? ((from) - (table_gpa)) / level_bytes(level) : 0;           \
	     i < ENTRIES && (gpa = (table_gpa) + i * level_bytes(level)) < (to); i++)              \
		if ((table)[i])

/*
 * Unmapping goes in two rounds, as pages and tables may be given back only when no processor can
 * reach them any more. The first takes the rights away, from whole tables where it can; then all
 * processors drop what they have cached; the second gives back what the first left behind, which is
 * known by an address without rights.
 */
static void take_rights(u64 *table, int level, u64 table_gpa, u64 from, u64 to)
{
	u64 gpa, i;

	for_each_entry (i, gpa, table, level, table_gpa, from, to) {
		bool whole = gpa >= from && gpa + level_bytes(level) <= to;

		if (whole || is_leaf(table[i], level))
			WRITE_ONCE(table[i], table[i] & ~(u64)EPT_RWX);
		else
			take_rights(table_of(table[i]), level - 1, gpa, from, to);
		cond_resched();
	}
}

static void give_back(struct vm *vm, u64 *entry, int level)
{
	if (is_leaf(*entry, level)) {
		unpin(vm, *entry, level);
	} else {
		u64 *table = table_of(*entry);

		for (int i = 0; i < ENTRIES; i++)
			if (table[i])
				give_back(vm, &table[i], level - 1);
		free_page((unsigned long)table);
		cond_resched();
	}
	*entry = 0;
}

static void give_range_back(struct vm *vm, u64 *table, int level, u64 table_gpa, u64 from, u64 to)
{
	u64 gpa, i;

	for_each_entry (i, gpa, table, level, table_gpa, from, to) {
		if (!(table[i] & EPT_RWX))
			give_back(vm, &table[i], level);
		else if (!is_leaf(table[i], level))
			give_range_back(vm, table_of(table[i]), level - 1, gpa, from, to);
	}
}

void ept_unmap(struct vm *vm, u64 gpa, u64 bytes)
{
	mutex_lock(&vm->ept_lock);
	take_rights(vm->ept_root, LEVELS, 0, gpa, gpa + bytes);
	ept_flush(vm);
	give_range_back(vm, vm->ept_root, LEVELS, 0, gpa, gpa + bytes);
	mutex_unlock(&vm->ept_lock);
}

void ept_destroy(struct vm *vm)
{
	ept_unmap(vm, 0, 1ull << 48);
	free_page((unsigned long)vm->ept_root);
}

static int protect_range(u64 *table, int level, u64 table_gpa, u64 from, u64 to)
{
	int ret = 0;
	u64 gpa, i;

	for_each_entry (i, gpa, table, level, table_gpa, from, to) {
		if (is_leaf(table[i], level)) {
			WRITE_ONCE(table[i], table[i] & ~(u64)VMX_EPT_WRITABLE_MASK);
			if (level > 1)
				ret = split(&table[i]);
		} else {
			ret = protect_range(table_of(table[i]), level - 1, gpa, from, to);
		}
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}

int ept_protect(struct vm *vm, u64 gpa, u64 bytes)
{
	int ret;

	mutex_lock(&vm->ept_lock);
	ret = protect_range(vm->ept_root, LEVELS, 0, gpa, gpa + bytes);
	mutex_unlock(&vm->ept_lock);
	return ret;
}
