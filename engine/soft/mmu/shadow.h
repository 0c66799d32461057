/*
 * Shadow spaces: user pages of a guest's program mapped into the host's address space, so that
 * the host's MMU translates what the software TLB else would. Shadow paging, by mmap: Wang et al.,
 * HSPT (VEE 2015).
 *
 * A linear address belongs to one of SHADOW_WINDOWS windows, by its upper bits. v's shadow table
 * (GS_SHADOW_TABLE) says for each what to add to reach it in the host; blocks of MODE_SHADOW, user
 * code in 64-bit mode, add that and access memory without any check:
 *
 *     shrx r15, address, rsp        the upper bits: rsp mod 64 is SHADOW_SHIFT in translated code
 *     mov  r15, gs:[table + r15 * 8]
 *     op   [address + r15]
 *
 * What is not mapped, or not for writing, faults in the host: signals.c asks shadow_fault(). A
 * window is followed by room that is never mapped, so that small constants may be added to an
 * address; windows that are none lead to addresses that are not canonical; indexes that no user
 * address has lie where nothing can be read.
 *
 * It takes some 7 microseconds to enter a page here and 0.1 to enter it into the TLB, so programs
 * get their space only when they have run for some time, and lose it when they keep faulting.
 *
 * A space is kept for each of some CR3, those of nested guests with a VPID too: what it maps is
 * then what the guest's tables and EPT say together. As a TLB it may hold translations that the
 * tables no longer say until they are flushed (SDM 3A 4.10.2); flushes are noted and done before
 * the next user instruction, by comparing what is mapped with the tables. All functions inside
 * unless stated.
 */
#ifndef GUISE_SOFT_MMU_SHADOW_H
#define GUISE_SOFT_MMU_SHADOW_H

#include "engine/soft/vcpu.h"

#define SHADOW_SHIFT   32 /* log2 of a window's bytes */
#define SHADOW_WINDOWS BIT(47 - SHADOW_SHIFT)

/* Constants that may be added to a looked-up address without leaving the room around windows. */
#define SHADOW_REACH (1ll << 30)

/* The table lies behind the vCPU, an entry for every index that 64 bits give; what is behind those
 * of user addresses is never readable. */
#define GS_SHADOW_TABLE	  ((s32)align_up(sizeof(struct soft_vcpu), PAGE_SIZE))
#define SHADOW_TABLE_SPAN (8ull << (64 - SHADOW_SHIFT))

/** Gives everything back. Outside. */
void shadow_destroy(struct soft_vcpu *v);

/** A timer or an interrupt has come while 64-bit user code ran: the program may get a space, or
 * lose it. */
void shadow_tick(struct soft_vcpu *v);
/** To be called before user code runs on if v->shadow_check: brings the space of v->cr3 up to date.
 * Changes v->mode. */
void shadow_enter(struct soft_vcpu *v);

enum shadow_result {
	SHADOW_MAPPED,	   /* the access can be made again */
	SHADOW_PAGE_FAULT, /* the guest's: v->events has it */
	SHADOW_ALONE,	   /* the instruction has to be executed without a space: v->alone is set */
};

/** A block of MODE_SHADOW has faulted, at host address @host. Async-signal-safe on the vCPU's own
 * thread while it runs translated code. */
enum shadow_result shadow_fault(struct soft_vcpu *v, u64 host, bool write);
/** The same for a fault that tells no address. */
enum shadow_result shadow_fault_unknown(struct soft_vcpu *v);

/** User code was fetched from the page of @linear, at @gpa. */
void shadow_note_code(struct soft_vcpu *v, u64 linear, u64 gpa);
/** A flush of the current context, or of the page of @linear: whether the jump cache of user code
 * can stay as it is until shadow_compare_code(), which is before user code goes on. */
bool shadow_keeps_code(struct soft_vcpu *v);
bool shadow_keeps_code_page(struct soft_vcpu *v, u64 linear);
/** Empties it now unless the tables still say what they said before the flush. */
void shadow_compare_code(struct soft_vcpu *v);

/** v->cr3 is about to be another; @keep: what is known of its PCID stays valid. */
void shadow_switch(struct soft_vcpu *v, u64 cr3, bool keep);
/** TLB flushes: of everything, of a PCID, of the page of @linear as INVLPG does it. */
void shadow_flush(struct soft_vcpu *v);
void shadow_flush_pcid(struct soft_vcpu *v, u64 pcid);
void shadow_flush_page(struct soft_vcpu *v, u64 linear);
/** A page fault for @linear, which makes processors forget its page. */
void shadow_faulted(struct soft_vcpu *v, u64 linear);
/** The page of RAM at @host may no longer be written unasked: it has got code, or is watched or
 * logged. */
void shadow_protect(struct soft_vcpu *v, const u8 *host);
/** VM entry and exit: before control registers change; vcpu_update_mode() follows. */
void shadow_pause(struct soft_vcpu *v);
/** ..., and with those of the other operation loaded. */
void shadow_resume(struct soft_vcpu *v);
/** INVEPT and INVVPID: drops what nested guests have with @vpid (0: any) and EPT tables at @ep4ta
 * (0: any). */
void shadow_invalidate(struct soft_vcpu *v, u16 vpid, u64 ep4ta);
/** The tables in use are about to be put away, with another CR3 loaded already: the jump cache is
 * not going to be compared. */
void shadow_abandon_code(struct soft_vcpu *v);
/** @n links between blocks that the current program may have to make again were cut. */
void shadow_links_cut(struct soft_vcpu *v, u32 n);
/** Takes everything out of the host's address space: memory slots change. Outside too. */
void shadow_forget(struct soft_vcpu *v);

#endif
