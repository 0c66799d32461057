// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The guest's own page tables, walked where the hypervisor needs a guest-linear address:
 * instruction bytes and strings. The processor walks them for everything else.
 *
 * Source: SDM 3A 4.
 */
#include <linux/kernel.h>

#include "guise.h"
#include "vmcs.h"

#define PTE_PRESENT  BIT_ULL(0)
#define PTE_WRITE    BIT_ULL(1)
#define PTE_USER     BIT_ULL(2)
#define PTE_ACCESSED BIT_ULL(5)
#define PTE_DIRTY    BIT_ULL(6)
#define PTE_LARGE    BIT_ULL(7)
#define PTE_NX	     BIT_ULL(63)
#define PTE_ADDRESS  GENMASK_ULL(51, 12)

#define FAULT_PRESENT BIT(0)
#define FAULT_FETCH   BIT(4)

/* How a paging mode's tables look. */
struct paging {
	int levels;
	u32 entry_bytes;
	u32 index_bits;
	bool wide;
	u64 large_bits; /* 1 << level: entries of that level may map a page */
};

static const struct paging paging_32 = {2, 4, 10, false, BIT(2)};
static const struct paging paging_pae = {3, 8, 9, true, BIT(2)};
static const struct paging paging_4level = {4, 8, 9, true, BIT(2) | BIT(3)};

static int fault_at(struct vcpu *v, struct walk_fault *fault, u64 linear, u32 access, bool present,
		    bool nx)
{
	fault->linear = linear;
	fault->error_code = access & (ACCESS_WRITE | ACCESS_USER);
	if (present)
		fault->error_code |= FAULT_PRESENT;
	/* SDM 3A 4.7: bit 4 is used if NX or SMEP is. */
	if ((access & ACCESS_FETCH) && (nx || (control_get_cr4(v) & X86_CR4_SMEP)))
		fault->error_code |= FAULT_FETCH;
	return -EFAULT;
}

/* SDM 3A 4.6.1: whether rights collected on the way, @rights, allow @access. */
static bool allowed(struct vcpu *v, u64 rights, u32 access, u64 cr0, u64 cr4)
{
	bool user_page = rights & PTE_USER;

	if (access & ACCESS_USER) {
		if (!user_page)
			return false;
	} else if (user_page && (access & ACCESS_FETCH)) {
		if (cr4 & X86_CR4_SMEP)
			return false;
	} else if (user_page && (cr4 & X86_CR4_SMAP) && !(access & ACCESS_QUIET)) {
		if (!(field_get(v, FIELD_RFLAGS) & X86_EFLAGS_AC))
			return false;
	}
	if ((access & ACCESS_WRITE) && !(rights & PTE_WRITE) &&
	    ((access & ACCESS_USER) || (cr0 & X86_CR0_WP)))
		return false;
	return !((access & ACCESS_FETCH) && (rights & PTE_NX));
}

static int read_entry(struct vm *vm, u64 gpa, const struct paging *p, u64 *entry)
{
	*entry = 0;
	return memory_read(vm, gpa, entry, p->entry_bytes);
}

static int walk_once(struct vcpu *v, u64 linear, u32 access, u64 *gpa, struct walk_fault *fault)
{
	u64 cr0 = control_get_cr0(v), cr4 = control_get_cr4(v), cr3 = vmcs_read(GUEST_CR3);
	bool nx = field_get(v, FIELD_EFER) & EFER_NX;
	const struct paging *p = &paging_32;
	u64 rights = PTE_WRITE | PTE_USER, table, entry, at;
	int ret, level;

	if (!(cr0 & X86_CR0_PG)) {
		*gpa = (u32)linear;
		return 0;
	}
	table = cr3 & GENMASK_ULL(31, 12);
	if (vcpu_long_mode(v)) {
		p = &paging_4level;
		table = cr3 & PTE_ADDRESS;
	} else if (cr4 & X86_CR4_PAE) {
		p = &paging_pae;
		table = cr3 & GENMASK_ULL(31, 5);
	}
	if (!vcpu_long_mode(v))
		linear = (u32)linear;

	for (level = p->levels;; level--) {
		u32 shift = 12 + p->index_bits * (level - 1);
		bool large, leaf;
		u64 marked;

		at = table + ((linear >> shift) & ((1u << p->index_bits) - 1)) * p->entry_bytes;
		ret = read_entry(v->vm, at, p, &entry);
		if (ret)
			return ret == -EFAULT ? -EIO : ret;
		if (!(entry & PTE_PRESENT))
			return fault_at(v, fault, linear, access, false, nx);
		/* The four page-directory pointers of PAE have no rights (SDM 3A table 4-8). */
		if (p == &paging_pae && level == 3) {
			table = entry & PTE_ADDRESS;
			continue;
		}
		rights = (rights & entry & (PTE_WRITE | PTE_USER)) |
			 ((rights | (nx ? entry : 0)) & PTE_NX);
		large = level > 1 && (entry & PTE_LARGE) && (p->large_bits & BIT(level)) &&
			(p != &paging_32 || (cr4 & X86_CR4_PSE));
		leaf = large || level == 1;
		if (leaf && !allowed(v, rights, access, cr0, cr4))
			return fault_at(v, fault, linear, access, true, nx);
		marked = entry | PTE_ACCESSED | (leaf && (access & ACCESS_WRITE) ? PTE_DIRTY : 0);
		if (marked != entry && !(access & ACCESS_QUIET)) {
			ret = memory_exchange(v->vm, at, entry, marked, p->wide);
			if (ret)
				return ret == -EFAULT ? -EIO : ret;
		}
		if (leaf) {
			u64 mask = (1ull << shift) - 1;
			u64 base = entry & (p->wide ? PTE_ADDRESS : GENMASK_ULL(31, 12));

			/* PSE-36: address bits 39:32 are in bits 20:13 (SDM 3A table 4-4). */
			if (large && p == &paging_32)
				base = (entry & GENMASK_ULL(31, 22)) | ((entry >> 13) & 0xff) << 32;
			*gpa = (base & ~mask) | (linear & mask);
			return 0;
		}
		table = entry & (p->wide ? PTE_ADDRESS : GENMASK_ULL(31, 12));
	}
}

int walk(struct vcpu *v, u64 linear, u32 access, u64 *gpa, struct walk_fault *fault)
{
	int ret;

	/* Another vCPU may change an entry between reading and marking, but not for ever. */
	for (int tries = 0; tries < 16; tries++) {
		ret = walk_once(v, linear, access, gpa, fault);
		if (ret != -EAGAIN)
			break;
	}
	return ret;
}

/* An access, a page at a time. */
static int linear_access(struct vcpu *v, u64 linear, void *data, u32 bytes, u32 access, bool write,
			 struct walk_fault *fault)
{
	while (bytes) {
		u32 piece = min_t(u32, bytes, PAGE_SIZE - offset_in_page(linear));
		u64 gpa;
		int ret = walk(v, linear, access, &gpa, fault);

		if (ret)
			return ret;
		if (!memory_find(v->vm, gpa))
			return -ENXIO;
		ret = write ? memory_write(v->vm, gpa, data, piece)
			    : memory_read(v->vm, gpa, data, piece);
		if (ret)
			return -EIO;
		linear += piece;
		data += piece;
		bytes -= piece;
	}
	return 0;
}

int linear_read(struct vcpu *v, u64 linear, void *data, u32 bytes, u32 access,
		struct walk_fault *fault)
{
	return linear_access(v, linear, data, bytes, access, false, fault);
}

int linear_write(struct vcpu *v, u64 linear, const void *data, u32 bytes, u32 access,
		 struct walk_fault *fault)
{
	return linear_access(v, linear, (void *)data, bytes, access | ACCESS_WRITE, true, fault);
}
