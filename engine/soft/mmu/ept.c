/*
 * Extended page tables: guest-physical addresses of a nested guest to addresses in this VM's
 * memory. SDM 3C 29.3.
 */
#include <errno.h>

#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/vmx/vmx.h"

#define EPT_LEVELS  4
#define EPT_ADDRESS 0x000ffffffffff000ull

/* What four levels translate. */
#define EPT_GPA_BITS 48

#define MEMORY_TYPE(entry) ((entry) >> 3 & 7)

static bool type_reserved(u64 entry)
{
	u32 type = MEMORY_TYPE(entry);

	return type == 2 || type == 3 || type == 7;
}

/** Reserved bits of a present entry, SDM 3C tables 29-1 to 29-6; @size: bytes that it covers. */
static u64 reserved_bits(const struct soft_vcpu *v, u32 level, bool leaf, u64 size)
{
	if (level == 4)
		return v->reserved_pa | 0xf8;
	if (!leaf)
		return v->reserved_pa | 0x78;
	return v->reserved_pa | ((size - 1) & EPT_ADDRESS);
}

/** SDM 3C 29.3.3.1. Execute-only pages are supported. */
static bool misconfigured(const struct soft_vcpu *v, u64 entry, u32 level, bool leaf, u64 size)
{
	if ((entry & (EPT_READ | EPT_WRITE)) == EPT_WRITE)
		return true;
	return (entry & reserved_bits(v, level, leaf, size)) || (leaf && type_reserved(entry));
}

static u64 all_rights(const struct mmu *m)
{
	return EPT_READ | EPT_WRITE | EPT_EXEC | (m->mbec ? EPT_EXEC_USER : 0);
}

struct ept_path {
	struct table_entry entry[EPT_LEVELS];
	u32 count;
	u64 size; /* bytes of the page */
};

/** Goes down to the page of w->gpa. 0, or -EFAULT: not present, or misconfigured. */
static int walk_down(struct soft_vcpu *v, struct ept_walk *w, struct ept_path *p)
{
	u64 rights = all_rights(v->mmu);
	u64 table = v->mmu->eptp;

	w->allowed = rights;
	w->fault = EPT_VIOLATION;
	p->count = 0;
	/* SDM 3C 29.3.2: an address beyond what the levels translate is not present. */
	if (w->gpa >> EPT_GPA_BITS) {
		w->allowed = 0;
		return -EFAULT;
	}
	for (u32 level = EPT_LEVELS;; level--) {
		u32 shift = 12 + 9 * (level - 1);
		struct table_entry *e = &p->entry[p->count++];

		table_entry_read(v, e, (table & EPT_ADDRESS) + (w->gpa >> shift & 511) * 8,
				 sizeof(u64), p->count > 1 ? e[-1].slot : NULL);

		bool leaf = level == 1 || (level < 4 && (e->value & EPT_LARGE));

		w->allowed &= e->value;
		if (!(e->value & rights))
			return -EFAULT;
		if (misconfigured(v, e->value, level, leaf, BIT(shift))) {
			w->fault = EPT_MISCONFIGURATION;
			return -EFAULT;
		}
		if (leaf) {
			p->size = BIT(shift);
			return 0;
		}
		table = e->value;
	}
}

/** Flags to be set in entry @k: accessed in every one, dirty in the last one for a write (SDM 3C
 * 29.3.5). */
static u64 missing_flags(const struct ept_path *p, u32 k, bool write)
{
	bool leaf = k == p->count - 1;

	return (EPT_ACCESSED | (leaf && write ? EPT_DIRTY : 0)) & ~p->entry[k].value;
}

/** SDM 3C 29.3.6: a flag is to be set, and the log of modified pages is full. */
static bool log_is_full(const struct soft_vcpu *v, const struct ept_path *p, bool write)
{
	u64 missing = 0;

	if (likely(!v->mmu->logs))
		return false;
	for (u32 k = 0; k < p->count; k++)
		missing |= missing_flags(p, k, write);
	return missing && vmx_log_full(v);
}

/** false: walk again. */
static bool mark_path(struct soft_vcpu *v, struct ept_path *p, const struct ept_walk *w)
{
	for (u32 k = 0; k < p->count; k++) {
		u64 missing = missing_flags(p, k, w->wanted & EPT_WRITE);

		if (!table_entry_mark(v, &p->entry[k], sizeof(u64), missing))
			return false;
		if (unlikely(v->mmu->logs) && (missing & EPT_DIRTY))
			vmx_log_page(v, w->gpa);
	}
	return true;
}

static void remember(struct soft_vcpu *v, const struct ept_walk *w)
{
	u64 page = w->physical & PAGE_MASK;
	/* Nobody takes a shortcut to that page. */
	bool plain = !vmx_is_apic_page(v, page);

	v->mmu->ept[ept_slot(w->gpa)] = (struct ept_entry){
	    .gpa = w->gpa & PAGE_MASK,
	    .physical = page | w->allowed | (w->dirty ? EPT_DIRTY : 0),
	    .host = likely(plain) ? phys_ram(v->vm, page) : NULL,
	    .epoch = v->mmu->ept_epoch,
	};
}

int ept_walk(struct soft_vcpu *v, struct ept_walk *w)
{
	bool ad = v->mmu->eptp & EPTP_AD, write = w->wanted & EPT_WRITE;

	for (u32 tries = 0; tries < WALK_TRIES; tries++) {
		struct ept_path path;

		if (walk_down(v, w, &path) || (w->wanted & ~w->allowed))
			return -EFAULT;
		if (ad && w->mark) {
			if (log_is_full(v, &path, write)) {
				w->fault = EPT_LOG_FULL;
				return -EFAULT;
			}
			if (!mark_path(v, &path, w))
				continue;
		}

		const struct table_entry *leaf = &path.entry[path.count - 1];
		u64 offset = path.size - 1;

		w->physical = (leaf->value & EPT_ADDRESS & ~offset) | (w->gpa & offset);
		w->dirty = !ad || (leaf->value & EPT_DIRTY);
		if (!ad || w->mark)
			remember(v, w);
		return 0;
	}
	/* As in mmu_walk(): the hypervisor takes it for a violation that is over already. */
	w->allowed = 0;
	return -EFAULT;
}

bool ept_lookup(const struct soft_vcpu *v, struct ept_walk *w)
{
	const struct ept_entry *e = ept_known(v->mmu, w->gpa, w->wanted);

	if (!e)
		return false;
	w->dirty = e->physical & EPT_DIRTY;
	w->physical = (e->physical & PAGE_MASK) | (w->gpa & ~PAGE_MASK);
	w->allowed = e->physical & EPT_RIGHTS;
	return true;
}

void ept_flush(struct soft_vcpu *v)
{
	v->mmus[MMU_NONROOT].ept_epoch++;
}

void ept_note_fault(struct soft_vcpu *v, const struct ept_walk *w, u64 linear, u64 qualification)
{
	struct ept_fault *f = &v->ept_fault;

	f->kind = w->fault;
	f->gpa = w->gpa;
	f->linear = linear;
	f->qualification = 0;
	if (w->fault != EPT_VIOLATION)
		return;
	if (w->allowed & EPT_EXEC_USER)
		qualification |= EPT_QUAL_EXEC_USER;
	if (w->wanted & (EPT_EXEC | EPT_EXEC_USER))
		qualification |= EPT_EXEC;
	f->qualification = qualification | (w->wanted & (EPT_READ | EPT_WRITE)) |
			   (w->allowed & (EPT_READ | EPT_WRITE | EPT_EXEC))
			       << EPT_QUAL_ALLOWED_SHIFT;
}

void ept_note_apic_access(struct soft_vcpu *v, u64 gpa)
{
	v->ept_fault = (struct ept_fault){.kind = EPT_APIC_ACCESS, .gpa = gpa};
}

_Noreturn void ept_raise(struct soft_vcpu *v)
{
	struct mmu *m = v->mmu;
	const struct ept_fault *f = &v->ept_fault;

	m->ept[ept_slot(f->gpa)].epoch = 0;
	if (f->qualification & EPT_QUAL_LINEAR)
		tlb_faulted(v, f->linear);
	vmx_ept_fault(v);
}
