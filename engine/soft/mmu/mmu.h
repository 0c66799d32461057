/*
 * Linear memory: paging, the TLB, and every access to guest memory made by C.
 * SDM vol. 3A chapter 4. All functions inside (general registers only) unless stated.
 *
 * "linear" addresses are 64 bits; outside 64-bit mode callers have truncated them to 32.
 * Sizes are bytes. Faults are raised (never return): #PF with the exact error code; non-canonical
 * addresses raise #GP(0), or #SS(0) when @stack.
 */
#ifndef GUISE_SOFT_MMU_H
#define GUISE_SOFT_MMU_H

#include "engine/soft/vcpu.h"

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

/* ---- page walk (mmu/walk.c) ---- */

struct walk {
	u64 linear;
	u64 gpa;       /* result: guest-physical address of @linear */
	u64 page_size; /* bytes: 4 KiB, 2 MiB, 4 MiB, 1 GiB */
	bool user;     /* U/S of every level */
	bool writable; /* R/W of every level */
	bool global;
	bool nx;
	bool dirty; /* D of the leaf, after this walk; with EPT: and that lets it be written */
	u32 error;  /* on failure: #PF error code, unless */
	bool ept;   /* v->ept_fault says why */
};

/**
 * Translates w->linear for @access under the rules of @index (U/S, SMAP), with CR0.WP, SMEP, NXE,
 * reserved bits.
 * @set_ad: set accessed, and for writes dirty, bits (atomically). Returns 0, or -EFAULT with
 * w->error or w->ept. Does not raise. Handles no paging, 2-level (PSE, PSE-36), PAE, 4-level, each
 * through EPT if v->mmu->eptp is not 0.
 */
int mmu_walk(struct soft_vcpu *v, struct walk *w, enum access access, enum mmu_index index,
	     bool set_ad);

/** What @access, no write, at w->linear would find in the tables of 4-level paging, with nothing to
 * set and nothing to fault; else false. */
bool mmu_peek(struct soft_vcpu *v, struct walk *w, enum access access, enum mmu_index index);

/** Reloads the PAE page-directory pointers from CR3. Returns 0; -EINVAL: a reserved bit is set,
 * #GP; -EFAULT: ept_raise(). Those are the caller's. */
int mmu_load_pdptrs(struct soft_vcpu *v, u64 cr3);

/* ---- TLB (mmu/tlb.c) ---- */

/**
 * The plain RAM of @size bytes at @linear if the TLB of @index has its page (for writing if
 * @write), else NULL. What translated code does inline.
 */
static inline void *tlb_lookup(const struct soft_vcpu *v, u64 linear, u32 size, bool write,
			       enum mmu_index index)
{
	const struct tlb *tlb = &v->mmu->tlb[index];
	u64 slot = (linear / PAGE_SIZE) & (TLB_SIZE - 1);
	const struct tlb_entry *entry = write ? &tlb->write[slot] : &tlb->read[slot];
	u64 offset = linear ^ entry->tag;

	return offset <= PAGE_SIZE - size ? (void *)(entry->host + offset) : NULL;
}

/** Makes the tables of a new vCPU, all zeroes, empty ones, and those of VMX root operation the ones
 * in use. */
void tlb_init(struct soft_vcpu *v);
/** Empties every TLB and all jump caches of this vCPU: memory itself has changed. */
void tlb_forget(struct soft_vcpu *v);
/** Empties the TLBs and jump caches in use, for all PCIDs. @keep_global: entries of global pages
 * stay. */
void tlb_flush(struct soft_vcpu *v, bool keep_global);
/** Drops the entries of the current PCID that are not of global pages. @same: its tables stay the
 * current ones. */
void tlb_flush_context(struct soft_vcpu *v, bool same);
/** CR0.WP has become 1: drops write entries that it forbids. */
void tlb_flush_wp(struct soft_vcpu *v);
/** INVLPG: drops the page of @linear (all of a large page), global or not. */
void tlb_flush_page(struct soft_vcpu *v, u64 linear);
/** A page fault or EPT violation for @linear: what was known of its page is forgotten (SDM 3A
 * 4.10.4.1, 3C 29.4.3.1). */
void tlb_faulted(struct soft_vcpu *v, u64 linear);
/** Drops write entries whose host page is @host (it now holds code, or is watched or logged). */
void tlb_protect_host(struct soft_vcpu *v, const u8 *host);

/**
 * The address where an access to plain RAM of @size bytes at @linear can be made, with its page
 * entered into the TLB of @index. Raises what the access would raise. NULL: allowed, but not plain
 * (MMIO, crosses a page, page with code, watched): use mem_*_linear(). Called on every TLB miss:
 * keep it fast.
 */
void *tlb_fill(struct soft_vcpu *v, u64 linear, u32 size, enum access access, enum mmu_index index,
	       bool stack);

/**
 * As tlb_fill() for what is not certain to be accessed: raises nothing and sets no D bit. NULL also
 * where that would have been necessary.
 */
void *tlb_try(struct soft_vcpu *v, u64 linear, u32 size, bool write, enum mmu_index index);

/**
 * Instruction fetch: physical page of @linear, through v->mmu->itlb. Returns the hva of the byte
 * and its *gpa, or NULL when the page is not RAM (*gpa valid). Raises #PF (I bit when NX or SMEP
 * says so) or #GP(0).
 */
const u8 *mmu_fetch(struct soft_vcpu *v, u64 linear, u64 *gpa);
/** Whether the page of @linear, which mmu_fetch() has just seen, is global. */
bool mmu_fetch_global(const struct soft_vcpu *v, u64 linear);

/* ---- PCIDs (mmu/context.c) ---- */

/** To the tables and the PCID of @cr3, from those of v->cr3, which the caller changes. @keep: the
 * new PCID's entries stay valid (bit 63 of MOV to CR3). Only with CR4.PCIDE. */
void context_switch(struct soft_vcpu *v, u64 cr3, bool keep);
/** Drops the entries of @pcid that are not of global pages. */
void context_flush(struct soft_vcpu *v, u64 pcid);

/* ---- jump caches (mmu/jump.c) ---- */

/** Enters @code as the way on for @linear. The pages that it depends on have been fetched from by
 * mmu_fetch() since the cache was emptied. */
void jump_cache_put(struct soft_vcpu *v, enum mmu_index index, u64 linear, const u8 *code);
/** The entry of @linear, or NULL. */
const struct jump_entry *jump_cache_find(const struct soft_vcpu *v, enum mmu_index index,
					 u64 linear);
/** Drops the entry of @linear for blocks of @mode (translate/mode.h). */
void jump_cache_drop(struct soft_vcpu *v, u32 mode, u64 linear);
/** All blocks are gone: empties all jump caches, those of other PCIDs and operations too. */
void jump_caches_forget(struct soft_vcpu *v);
/** Empties the jump cache of @index and v->mmu->jump_nonglobal[@index]. */
void jump_cache_clear(struct soft_vcpu *v, enum mmu_index index);

/* ---- guest-physical memory (mmu/phys.c) ---- */

/** phys_slot() in general. */
struct memslot *phys_slot_search(struct soft_vm *vm, u64 gpa);

/** Slot holding @gpa, or NULL (MMIO). Any thread while no slot changes. */
static inline struct memslot *phys_slot(struct soft_vm *vm, u64 gpa)
{
	/* Nearly all RAM of most machines. */
	if (likely(gpa - vm->slots[0].gpa < vm->slots[0].size))
		return &vm->slots[0];
	return phys_slot_search(vm, gpa);
}
/** hva of @gpa if the bytes up to the end of its page are RAM; else NULL. */
u8 *phys_ram(struct soft_vm *vm, u64 gpa);
/**
 * Reads or writes within one page: RAM, the interrupt chips' MMIO, or the monitor's MMIO (io.h: may
 * leave through vcpu_exit()). Writes to pages with code throw the overlapping blocks away
 * (blocks_invalidate()).
 */
void phys_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size);
void phys_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size);
/** Atomically ANDs @mask to the aligned quadword at @gpa, in RAM that may be written. Returns what
 * it was; 0: there is no such RAM. */
u64 phys_fetch_and(struct soft_vcpu *v, u64 gpa, u64 mask);

/* ---- accesses by C (mmu/access.c) ---- */

/** Any size up to a page, any alignment. Writes check both pages before the first byte is written.
 */
void mem_read_linear(struct soft_vcpu *v, u64 linear, void *buf, u32 size, enum mmu_index index,
		     bool stack);
void mem_write_linear(struct soft_vcpu *v, u64 linear, const void *buf, u32 size,
		      enum mmu_index index, bool stack);
/** @size bytes of one page are about to be overwritten bit by bit, the first of them at @linear,
 * where a write is allowed but no plain RAM was found: if that is because code was translated from
 * the page, what these bytes have of it is thrown away at once. Whether the page is plain now. */
bool mem_overwrites_code(struct soft_vcpu *v, u64 linear, u32 size, enum mmu_index index);
/** Raises what a write of @size bytes would raise; sets A and D; writes nothing. */
void mem_probe_write(struct soft_vcpu *v, u64 linear, u32 size, enum mmu_index index, bool stack);

/**
 * Linear address of @offset in segment @seg, after the checks of SDM 3A 5.3 to 5.5 (limit, type,
 * null selector, canonical; #SS for SS, else #GP), for an access of @size bytes. 64-bit mode: base
 * of FS and GS only.
 */
u64 seg_linear(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size, enum access access);

/** The checks of seg_linear() without raising: false where it would raise. */
bool seg_check(const struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size,
	       enum access access);

/** By segment:offset, at the current privilege. Values zero-extended; @size 1, 2, 4, 8. */
u64 mem_read(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size);
void mem_write(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size, u64 value);
void mem_read_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, void *buf, u32 size);
void mem_write_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, const void *buf, u32 size);

/** Implicit supervisor accesses (descriptor tables, TSS): linear, U/S clear, SMAP applies, AC does
 * not help. */
u64 sys_read(struct soft_vcpu *v, u64 linear, u32 size);
void sys_write(struct soft_vcpu *v, u64 linear, u32 size, u64 value);

/* ---- provided by translate/ ---- */

/**
 * Bytes [gpa, gpa+size) of a page with PAGE_HAS_CODE were or are being written: throws away this
 * vCPU's blocks made of them, at this or another address. Clears the page's flag when no block is
 * left.
 */
void blocks_invalidate(struct soft_vcpu *v, u64 gpa, u32 size);

/** Cuts the links between user blocks of different pages, which entries of the jump cache have
 * been. Returns how many. */
u32 blocks_cut_far(struct soft_vcpu *v);

#endif
