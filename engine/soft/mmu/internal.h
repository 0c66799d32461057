/* What the files of mmu/ share with each other only. */
#ifndef GUISE_SOFT_MMU_INTERNAL_H
#define GUISE_SOFT_MMU_INTERNAL_H

#include "base/gp.h"
#include "engine/soft/mmu/mmu.h"

/* Bits of paging-structure entries: SDM 3A tables 4-4 to 4-19. */
#define PTE_P	    BIT(0)
#define PTE_W	    BIT(1)
#define PTE_U	    BIT(2)
#define PTE_A	    BIT(5)
#define PTE_D	    BIT(6)
#define PTE_PS	    BIT(7) /* PAT in the last level */
#define PTE_G	    BIT(8)
#define PTE_NX	    BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ull

/* At any address: a guest's need not be aligned. */
typedef u16 __attribute__((aligned(1))) any_u16;
typedef u32 __attribute__((aligned(1))) any_u32;
typedef u64 __attribute__((aligned(1))) any_u64;

/**
 * Copies between RAM and a buffer. Sizes 1, 2, 4 and 8 are one access each, so that other
 * processors see them as the guest's one access (SDM 3A 8.1.1).
 */
static inline void ram_copy(void *dst, const void *src, u32 size)
{
	switch (size) {
	case 1:
		*(volatile u8 *)dst = *(const volatile u8 *)src;
		break;
	case 2:
		*(volatile any_u16 *)dst = *(const volatile any_u16 *)src;
		break;
	case 4:
		*(volatile any_u32 *)dst = *(const volatile any_u32 *)src;
		break;
	case 8:
		*(volatile any_u64 *)dst = *(const volatile any_u64 *)src;
		break;
	default:
		gp_copy(dst, src, size);
	}
}

/* ---- entries of paging structures (walk.c) ---- */

/* How often a walk starts again because another processor changed an entry under it. */
#define WALK_TRIES 64

/* One entry that a walk went through. */
struct table_entry {
	u64 value;
	u64 gpa;	      /* in this VM's memory */
	u64 guest;	      /* the same as the nested guest knows it, with EPT */
	struct memslot *slot; /* NULL: not in RAM, read as all ones */
};

/** Reads the entry of @size bytes (4, 8) at @gpa, which may be in @slot (NULL: not known). What is
 * no RAM reads as all ones. */
void table_entry_read(struct soft_vcpu *v, struct table_entry *e, u64 gpa, u32 size,
		      struct memslot *slot);
/** Sets @bits in an entry, unless it is no longer what the walk saw (false). */
bool table_entry_mark(struct soft_vcpu *v, struct table_entry *e, u32 size, u64 bits);

/* ---- TLB entries ---- */

/** All entries of all tables. Number of one: (index * 2 + write) * TLB_SIZE + slot. */
static inline struct tlb_entry *all_entries(struct soft_vcpu *v)
{
	return &v->mmu->tlb[0].read[0];
}

/** Whether entry @number allows writes. */
static inline bool entry_writes(u32 number)
{
	return number / TLB_SIZE % 2;
}

/** A tag that no address of the slot matches: its index bits are another slot's. All but the first
 * are as a new vCPU's memory is. */
static inline u64 empty_tag(u32 slot)
{
	return slot == 0 ? ~0ull : 0;
}

/*
 * memslot.writers: a bit for each group of neighbouring TLB slots that may hold a write entry for
 * the page, in any MMU index.
 */
#define WRITER_GROUPS	  16
#define WRITER_GROUPS_ALL (BIT(WRITER_GROUPS) - 1)

static inline void note_writer(struct memslot *slot, u64 gpa, u32 tlb_slot)
{
	if (slot->writers)
		slot->writers[(gpa - slot->gpa) / PAGE_SIZE] |=
		    (u16)BIT(tlb_slot / (TLB_SIZE / WRITER_GROUPS));
}

/** Slot whose memory is at @host, or NULL. */
struct memslot *phys_slot_of_host(struct soft_vm *vm, u64 host);

/** Notes entry @number, just made, in the log that flushes look through. */
static inline void entry_log(struct mmu *m, u32 number, bool global)
{
	u8 state = m->tlb_state[number];

	if (global) {
		if (!(state & TLB_STATE_GLOBAL_LOGGED))
			m->tlb_global_log[m->tlb_global_logged++] = (u16)number;
		state |= TLB_STATE_GLOBAL | TLB_STATE_GLOBAL_LOGGED;
	} else {
		if (!(state & TLB_STATE_LOGGED))
			m->tlb_log[m->tlb_logged++] = (u16)number;
		state = (state & TLB_STATE_GLOBAL_LOGGED) | TLB_STATE_LOGGED;
	}
	m->tlb_state[number] = state;
}

/** Runs @statement with the tables of @set in place of those in use. */
#define WITH_SET(v, set, statement)                                                                \
	do {                                                                                       \
		struct mmu *in_use_ = (v)->mmu;                                                    \
		(v)->mmu = &(v)->mmus[set];                                                        \
		statement;                                                                         \
		(v)->mmu = in_use_;                                                                \
	} while (0)

/** Empties all that is in use, global or not; what was put away stays. */
void tlb_flush_live(struct soft_vcpu *v);

/** Forgets what contexts of @vpid other than the current one have. */
void contexts_drop(struct mmu *m, u16 vpid);
/** Puts away what the current VPID has, as it was when mmu_leave() was called. */
void contexts_put_away(struct soft_vcpu *v);
/** Puts back what v->mmu->vpid had with this EPTP, into empty tables; with it v->mmu->left. false:
 * it has nothing. */
bool contexts_take_back(struct soft_vcpu *v);

/* ---- page filters ---- */

/* The bit of @linear's page of 2^@shift bytes. Halves of the address space have their own: what a
 * kernel has is not to be taken for a program's. */
static inline u32 filter_bit(u64 linear, u32 shift)
{
	u64 number = linear >> shift;
	u32 half = linear >> 63 ? PAGE_FILTER_BITS / 2 : 0;

	return half | ((number ^ number >> 10) & (PAGE_FILTER_BITS / 2 - 1));
}

static inline void filter_add(struct page_filter *f, u64 linear, u32 shift)
{
	u32 bit = filter_bit(linear, shift);

	f->used = true;
	f->word[bit / 64] |= BIT(bit % 64);
}

static inline bool filter_has(const struct page_filter *f, u64 linear, u32 shift)
{
	u32 bit = filter_bit(linear, shift);

	return f->word[bit / 64] & BIT(bit % 64);
}

static inline void filter_clear(struct page_filter *f)
{
	if (!f->used)
		return;
	f->used = false;
	for (u32 k = 0; k < ARRAY_SIZE(f->word); k++)
		f->word[k] = 0;
}

static inline void filter_copy(struct page_filter *to, const struct page_filter *from)
{
	if (from->used)
		*to = *from;
	else
		filter_clear(to);
}

/** Puts @entry into @slot, which is good for it. The cache is not poked. */
void jump_cache_enter(struct soft_vcpu *v, enum mmu_index index, u32 slot, struct jump_entry entry);
/** Drops what the jump cache of @index has of @size bytes from @base on, whole pages. */
void jump_cache_flush(struct soft_vcpu *v, enum mmu_index index, u64 base, u64 size);

/** Bookkeeping after the bytes [gpa, gpa+size) of one page of @slot were written: dirty log,
 * translated code. */
void phys_written(struct soft_vcpu *v, struct memslot *slot, u64 gpa, u32 size);

/** Whether a page of @slot may be written without phys_written(): no code in it, no log, not
 * read-only. */
bool phys_plain_write(const struct memslot *slot, u64 gpa);

/** Throws away the blocks made of the bytes [gpa, gpa+size) of one page. Whether that makes it one
 * that may be written without phys_written(). */
bool phys_drop_code(struct soft_vcpu *v, u64 gpa, u32 size);

/** tlb_fill() for the part in one page of an access of @size bytes; gives its guest-physical
 * address also when it is not plain. */
void *tlb_fill_page(struct soft_vcpu *v, u64 linear, u32 size, enum access access,
		    enum mmu_index index, bool stack, u64 *gpa);

/** Raises #GP(0), or #SS(0) when @stack, unless @linear is canonical. */
void check_canonical(struct soft_vcpu *v, u64 linear, bool stack);

#endif
