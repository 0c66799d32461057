/* The page walk: linear to guest-physical by the guest's tables. SDM 3A 4.3 to 4.7. */
#include <errno.h>

#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/vmx/vmx.h"

/* PAE outside IA-32e mode reserves 62:52 too, SDM 3A table 4-10. */
#define PAE_RESERVED 0x7ff0000000000000ull

/* PDPTE registers: 2:1, 8:5 and everything above MAXPHYADDR, SDM 3A table 4-8. */
#define PDPTE_RESERVED (0xfff0000000000000ull | 0x1e6)

#define LEVELS_MAX 4

struct path {
	struct table_entry entry[LEVELS_MAX];
	u32 count; /* the last one is the leaf */
	u32 entry_size;
	u64 linear;
	bool mark; /* accessed and dirty flags are set */
	bool ept;  /* EPT refuses an access: v->ept_fault */
};

void table_entry_read(struct soft_vcpu *v, struct table_entry *e, u64 gpa, u32 size,
		      struct memslot *slot)
{
	if (!slot || gpa - slot->gpa >= slot->size)
		slot = phys_slot(v->vm, gpa);
	e->gpa = gpa;
	e->slot = slot;
	if (unlikely(!slot)) {
		e->value = size == 8 ? ~0ull : 0xffffffff;
	} else {
		const u8 *host = slot->host + (gpa - slot->gpa);

		e->value = size == 8 ? __atomic_load_n((const u64 *)host, __ATOMIC_RELAXED)
				     : __atomic_load_n((const u32 *)host, __ATOMIC_RELAXED);
	}
}

/** Which right of EPT the final access needs. */
static u64 ept_wanted(const struct soft_vcpu *v, const struct walk *w, enum access access)
{
	if (access == ACCESS_WRITE)
		return EPT_WRITE;
	if (access == ACCESS_READ)
		return EPT_READ;
	return v->mmu->mbec && w->user ? EPT_EXEC_USER : EPT_EXEC;
}

/** *@gpa of an entry of the guest's, to be accessed as @wanted says, through EPT; false: p->ept. */
static bool through_ept(struct soft_vcpu *v, struct path *p, u64 *gpa, u64 wanted)
{
	struct ept_walk e = {.gpa = *gpa, .wanted = wanted, .mark = p->mark};

	if (!ept_lookup(v, &e) && ept_walk(v, &e)) {
		ept_note_fault(v, &e, p->linear, EPT_QUAL_LINEAR);
		p->ept = true;
		return false;
	}
	if (unlikely(vmx_is_apic_page(v, e.physical))) {
		ept_note_apic_access(v, *gpa);
		p->ept = true;
		return false;
	}
	*gpa = e.physical;
	return true;
}

/** Takes the entry at @gpa into @p. 0, not present, if EPT refuses it. */
static u64 path_add(struct soft_vcpu *v, struct path *p, u64 gpa)
{
	struct table_entry *e = &p->entry[p->count++];

	e->guest = gpa;
	if (unlikely(v->mmu->eptp)) {
		/* With accessed and dirty flags for EPT every access to a guest's entry counts as a
		 * write (SDM 3C 29.3.3.2, 29.3.5). */
		bool write = (v->mmu->eptp & EPTP_AD) && p->mark;

		if (!through_ept(v, p, &gpa, EPT_READ | (write ? EPT_WRITE : 0)))
			return 0;
	}
	table_entry_read(v, e, gpa, p->entry_size, p->count > 1 ? e[-1].slot : NULL);
	return e->value;
}

bool table_entry_mark(struct soft_vcpu *v, struct table_entry *e, u32 size, u64 bits)
{
	u64 wanted = e->value | bits;

	/* Entries in read-only memory stay as they are: there is nobody to tell. */
	if (wanted == e->value || !e->slot || (e->slot->flags & KVM_MEM_READONLY))
		return true;

	u8 *host = e->slot->host + (e->gpa - e->slot->gpa);
	bool same;

	if (size == 8) {
		u64 seen = e->value;
		same = __atomic_compare_exchange_n((u64 *)host, &seen, wanted, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		u32 seen = (u32)e->value;
		same = __atomic_compare_exchange_n((u32 *)host, &seen, (u32)wanted, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (!same)
		return false;
	e->value = wanted;
	phys_written(v, e->slot, e->gpa, size);
	return true;
}

/** Accessed in every entry, dirty in the leaf of a write. SDM 3A 4.8. false: walk again, or p->ept.
 */
static bool path_mark(struct soft_vcpu *v, struct path *p, bool write)
{
	for (u32 k = 0; k < p->count; k++) {
		struct table_entry *e = &p->entry[k];
		u64 bits = PTE_A | (k == p->count - 1 && write ? PTE_D : 0);
		u64 gpa = e->guest;

		/* SDM 3C 29.3.3.2: the update is a write; and, as processors tell, a read too. */
		if (unlikely(v->mmu->eptp) && (bits & ~e->value) &&
		    !through_ept(v, p, &gpa, EPT_READ | EPT_WRITE))
			return false;
		if (!table_entry_mark(v, e, p->entry_size, bits))
			return false;
	}
	return true;
}

static void take_rights(struct walk *w, u64 entry)
{
	w->user &= !!(entry & PTE_U);
	w->writable &= !!(entry & PTE_W);
}

static void take_leaf(struct walk *w, u64 base, u64 size, u64 entry)
{
	w->page_size = size;
	w->gpa = base | (w->linear & (size - 1));
	w->global = entry & PTE_G;
	w->dirty = entry & PTE_D;
}

/**
 * Tables of 64-bit entries from @level down (4: PML4; 2: page directory of PAE) at @table. SDM
 * 3A 4.4.2, 4.5. Returns 0, or -EFAULT with P and RSVD in w->error.
 */
static int walk_wide(struct soft_vcpu *v, struct walk *w, struct path *p, u64 table, u32 level)
{
	u64 always_reserved = v->reserved_pa;

	if (!(v->msr.efer & EFER_NXE))
		always_reserved |= PTE_NX;
	if (!(v->msr.efer & EFER_LMA))
		always_reserved |= PAE_RESERVED;

	for (;; level--) {
		u32 shift = 12 + 9 * (level - 1);
		u64 index = (w->linear >> shift) & 511;
		u64 entry = path_add(v, p, (table & PTE_ADDRESS) + index * 8);
		u64 size = BIT(shift);
		u64 reserved = always_reserved;
		bool leaf = level == 1 || (level < 4 && (entry & PTE_PS));

		if (!(entry & PTE_P))
			return -EFAULT;
		if (level == 4)
			reserved |= PTE_PS;
		else if (leaf && level > 1)
			reserved |= (size - 1) & ~0x1fffull; /* bit 12 is PAT */
		if (unlikely(entry & reserved)) {
			w->error |= PF_P | PF_RSVD;
			return -EFAULT;
		}
		take_rights(w, entry);
		w->nx |= !!(entry & PTE_NX);
		if (leaf) {
			take_leaf(w, entry & PTE_ADDRESS & ~(size - 1), size, entry);
			return 0;
		}
		table = entry;
	}
}

/** 32-bit paging with 4 KiB and 4 MiB pages. SDM 3A 4.3. */
static int walk_narrow(struct soft_vcpu *v, struct walk *w, struct path *p)
{
	u64 entry = path_add(v, p, (v->cr3 & 0xfffff000) + ((w->linear >> 22) & 1023) * 4);

	if (!(entry & PTE_P))
		return -EFAULT;
	if ((entry & PTE_PS) && (v->cr4 & CR4_PSE)) {
		/* PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved. SDM 3A table 4-4.
		 */
		u64 base = (entry & 0xffc00000) | ((entry >> 13) & 0xff) << 32;

		if ((entry & BIT(21)) || (base & v->reserved_pa)) {
			w->error |= PF_P | PF_RSVD;
			return -EFAULT;
		}
		take_rights(w, entry);
		take_leaf(w, base, BIT(22), entry);
		return 0;
	}
	take_rights(w, entry);

	entry = path_add(v, p, (entry & 0xfffff000) + ((w->linear >> 12) & 1023) * 4);
	if (!(entry & PTE_P))
		return -EFAULT;
	take_rights(w, entry);
	take_leaf(w, entry & 0xfffff000, PAGE_SIZE, entry);
	return 0;
}

static int walk_tables(struct soft_vcpu *v, struct walk *w, struct path *p)
{
	if (v->msr.efer & EFER_LMA) {
		p->entry_size = 8;
		return walk_wide(v, w, p, v->cr3, 4);
	}
	if (v->cr4 & CR4_PAE) {
		u64 pdpte = v->pdptr[(w->linear >> 30) & 3];

		p->entry_size = 8;
		return pdpte & PTE_P ? walk_wide(v, w, p, pdpte, 2) : -EFAULT;
	}
	p->entry_size = 4;
	return walk_narrow(v, w, p);
}

/** Access rights, SDM 3A 4.6.1. */
static bool permitted(const struct soft_vcpu *v, const struct walk *w, enum access access,
		      enum mmu_index index)
{
	if (index == MMU_USER) {
		if (!w->user)
			return false;
		if (access == ACCESS_WRITE)
			return w->writable;
		return access != ACCESS_EXEC || !w->nx;
	}
	if (access == ACCESS_EXEC)
		return !w->nx && !(w->user && (v->cr4 & CR4_SMEP));
	if (w->user && index == MMU_KERNEL && (v->cr4 & CR4_SMAP))
		return false;
	return access != ACCESS_WRITE || w->writable || !(v->cr0 & CR0_WP);
}

/** The bits of the error code that tell of the access, not of the tables. SDM 3A 4.7. */
static u32 access_error(const struct soft_vcpu *v, enum access access, enum mmu_index index)
{
	u32 error = index == MMU_USER ? PF_U : 0;
	bool nx = (v->cr4 & CR4_PAE) && (v->msr.efer & EFER_NXE);

	if (access == ACCESS_WRITE)
		error |= PF_W;
	if (access == ACCESS_EXEC && (nx || (v->cr4 & CR4_SMEP)))
		error |= PF_I;
	return error;
}

/** Entry @n of the table at @gpa; 0, not present, if that is not RAM, or, @nested, not known. */
static inline __attribute__((always_inline)) u64 wide_entry(struct soft_vcpu *v, u64 gpa, u64 n,
							    bool nested)
{
	if (nested) {
		u64 ad = v->mmu->eptp & EPTP_AD;
		const struct ept_entry *e = ept_known(v->mmu, gpa, EPT_READ | (ad ? EPT_WRITE : 0));

		if (!e || !e->host)
			return 0;
		return __atomic_load_n((const u64 *)e->host + n, __ATOMIC_RELAXED);
	}

	const struct memslot *slot = phys_slot(v->vm, gpa);

	if (unlikely(!slot))
		return 0;
	return __atomic_load_n((const u64 *)(slot->host + (gpa - slot->gpa)) + n, __ATOMIC_RELAXED);
}

/** w->gpa by what is known of EPT; false: not enough. */
static bool final_lookup(const struct soft_vcpu *v, struct walk *w, enum access access)
{
	struct ept_walk e = {.gpa = w->gpa, .wanted = ept_wanted(v, w, access)};

	if (!ept_lookup(v, &e))
		return false;
	w->gpa = e.physical;
	w->dirty = w->dirty && e.dirty && (e.allowed & EPT_WRITE);
	return true;
}

/**
 * 4-level paging where nothing has to be set in the tables and nothing faults: what nearly all
 * walks are. @nested: and all of it is known to EPT. false: unknown, ask walk_tables().
 */
static inline __attribute__((always_inline)) bool walk_fast(struct soft_vcpu *v, struct walk *w,
							    enum access access,
							    enum mmu_index index, bool nested)
{
	const u64 wanted = PTE_P | PTE_A;
	u64 reserved = v->reserved_pa | (v->msr.efer & EFER_NXE ? 0 : PTE_NX);
	u64 linear = w->linear;
	u64 all, any, entry;
	u64 size = BIT(30);

	entry = wide_entry(v, v->cr3 & PTE_ADDRESS, linear >> 39 & 511, nested);
	all = any = entry;
	if (entry & PTE_PS)
		return false;
	if (!(entry & PTE_P))
		return false;
	entry = wide_entry(v, entry & PTE_ADDRESS, linear >> 30 & 511, nested);
	all &= entry;
	any |= entry;
	if (!(entry & PTE_PS)) {
		size = BIT(21);
		if (!(entry & PTE_P))
			return false;
		entry = wide_entry(v, entry & PTE_ADDRESS, linear >> 21 & 511, nested);
		all &= entry;
		any |= entry;
		if (!(entry & PTE_PS)) {
			size = PAGE_SIZE;
			if (!(entry & PTE_P))
				return false;
			entry = wide_entry(v, entry & PTE_ADDRESS, linear >> 12 & 511, nested);
			all &= entry;
			any |= entry;
		}
	}
	if ((all & wanted) != wanted || (any & reserved))
		return false;
	if (size != PAGE_SIZE && (entry & (size - 1) & ~0x1fffull)) /* bit 12 is PAT */
		return false;
	if (access == ACCESS_WRITE && !(entry & PTE_D))
		return false;
	w->user = all & PTE_U;
	w->writable = all & PTE_W;
	w->nx = any & PTE_NX;
	take_leaf(w, entry & PTE_ADDRESS & ~(size - 1), size, entry);
	w->global = w->global && (v->cr4 & CR4_PGE);
	return permitted(v, w, access, index) && (!nested || final_lookup(v, w, access));
}

/** The ends of a walk by the guest's tables: w->gpa through EPT, if there is one. */
static int final_walk(struct soft_vcpu *v, struct walk *w, enum access access, bool mark)
{
	struct ept_walk e = {.gpa = w->gpa, .mark = mark};

	if (likely(!v->mmu->eptp))
		return 0;
	e.wanted = ept_wanted(v, w, access);
	if (ept_walk(v, &e)) {
		w->ept = true;
		ept_note_fault(v, &e, w->linear,
			       EPT_QUAL_LINEAR | EPT_QUAL_FINAL | (w->user ? EPT_QUAL_USER : 0) |
				   (w->writable ? EPT_QUAL_WRITABLE : 0) |
				   (w->nx ? EPT_QUAL_NX : 0));
		return -EFAULT;
	}
	w->gpa = e.physical;
	w->dirty = w->dirty && e.dirty && (e.allowed & EPT_WRITE);
	return 0;
}

static bool try_fast(struct soft_vcpu *v, struct walk *w, enum access access, enum mmu_index index)
{
	if (unlikely(v->mmu->eptp))
		return walk_fast(v, w, access, index, true);
	return walk_fast(v, w, access, index, false);
}

bool mmu_peek(struct soft_vcpu *v, struct walk *w, enum access access, enum mmu_index index)
{
	return (v->cr0 & CR0_PG) && (v->msr.efer & EFER_LMA) && try_fast(v, w, access, index);
}

int mmu_walk(struct soft_vcpu *v, struct walk *w, enum access access, enum mmu_index index,
	     bool set_ad)
{
	if (likely(v->vm->tune.walks && (v->cr0 & CR0_PG) && (v->msr.efer & EFER_LMA)) &&
	    try_fast(v, w, access, index)) {
		w->error = 0;
		return 0;
	}
	w->ept = false;
	w->user = w->writable = true;
	w->nx = w->global = false;
	if (!(v->cr0 & CR0_PG)) {
		w->gpa = w->linear;
		w->page_size = PAGE_SIZE;
		w->dirty = true;
		w->error = 0;
		return final_walk(v, w, access, set_ad);
	}

	for (u32 tries = 0; tries < WALK_TRIES; tries++) {
		struct path path;

		path.count = 0;
		path.linear = w->linear;
		path.mark = set_ad;
		path.ept = false;
		w->user = w->writable = true;
		w->nx = false;
		w->error = access_error(v, access, index);
		if (walk_tables(v, w, &path)) {
			w->ept = path.ept;
			return -EFAULT;
		}
		w->global = w->global && (v->cr4 & CR4_PGE);
		if (!permitted(v, w, access, index)) {
			w->error |= PF_P;
			return -EFAULT;
		}
		if (!set_ad)
			return final_walk(v, w, access, false);
		if (likely(path_mark(v, &path, access == ACCESS_WRITE))) {
			w->dirty = path.entry[path.count - 1].value & PTE_D;
			return final_walk(v, w, access, true);
		}
		if (path.ept) {
			w->ept = true;
			return -EFAULT;
		}
	}
	/* Another processor keeps rewriting the entries. As if it had been seen not present for a
	 * moment: a fault that the guest takes for spurious, rather than a walk without end. */
	w->error = access_error(v, access, index);
	return -EFAULT;
}

int mmu_load_pdptrs(struct soft_vcpu *v, u64 cr3)
{
	u64 pdptr[4], table = cr3 & 0xffffffe0;

	if (v->mmu->eptp) {
		/* Reads, whatever EPTP says of accessed and dirty flags; there is no linear address
		 * (SDM 3C 29.3.3.2, table 28-7). */
		struct ept_walk e = {.gpa = table, .wanted = EPT_READ, .mark = true};

		if (ept_walk(v, &e)) {
			ept_note_fault(v, &e, 0, 0);
			return -EFAULT;
		}
		if (unlikely(vmx_is_apic_page(v, e.physical))) {
			ept_note_apic_access(v, table);
			return -EFAULT;
		}
		table = e.physical;
	}
	for (u32 k = 0; k < 4; k++) {
		const u8 *host = phys_ram(v->vm, table + k * 8);

		pdptr[k] = host ? __atomic_load_n((const u64 *)host, __ATOMIC_RELAXED) : ~0ull;
		if ((pdptr[k] & PTE_P) && (pdptr[k] & (v->reserved_pa | PDPTE_RESERVED)))
			return -EINVAL;
	}
	for (u32 k = 0; k < 4; k++)
		v->pdptr[k] = pdptr[k];
	return 0;
}
