/*
 * The state of a soft vCPU and of its VM.
 *
 * Everything in this directory that runs while guest vector registers are live in the host's
 * ("inside the guest": all of system/, mmu/, ops/, irqchip/, and the dispatcher) is compiled with
 * -mgeneral-regs-only and must not call libc functions that could touch vector registers (no
 * memcpy, memset, memcmp, printf, malloc, pthread). Use base/gp.h. What is "outside" (API calls
 * from the monitor, translation) runs with the guest's FPU state saved in vcpu->fpu.
 *
 * Helpers called from translated code find all guest general registers in v->regs[], v->rip at the
 * start of the current instruction, and may change any of it; translated code reloads them. A
 * helper that finds a fault calls raise*() (system/exception.h), which never returns: so check
 * first, then act; an instruction must be restartable until its last check has passed.
 */
#ifndef GUISE_SOFT_VCPU_H
#define GUISE_SOFT_VCPU_H

#include <stdatomic.h>

#include "base/gp.h"
#include "base/types.h"
#include "engine/engine.h"
#include "engine/soft/translate/perf_map.h"
#include "engine/soft/tune.h"
#include "engine/soft/vmx/state.h"
#include "engine/soft/x86.h"

struct block_cache;
struct irqchip;
struct lapic;
struct shadow;
struct soft_vm;

/* Segment register with its hidden part. @access: bits as in the VMCS (SDM 3C 24.4.1): 3:0 type, 4
 * S, 6:5 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G, 16 unusable. @limit in bytes, expanded by G. */
struct segment {
	u64 base;
	u32 limit;
	u32 access;
	u16 selector;
};

struct descriptor_table {
	u64 base;
	u16 limit;
};

/*
 * Software TLB. One set of tables per way of translating (enum mmu_index); direct mapped.
 * Looked up by translated code:  offset = linear ^ tag;  hit if offset <= PAGE_SIZE - access size;
 * hva = offset + host. A slot that holds nothing has a tag whose index bits are another slot's.
 * A write entry exists only if the page is RAM, writable, dirty in the guest's tables, holds no
 * translated code, is not dirty-logged and has no watchpoint.
 */
#define TLB_BITS 13
#define TLB_SIZE (1u << TLB_BITS)

struct tlb_entry {
	u64 tag;  /* linear page address */
	u64 host; /* hva of the page */
};

/* The ways of translating an address; a block is translated for one of them. */
enum mmu_index {
	MMU_USER,      /* CPL 3 */
	MMU_KERNEL,    /* CPL 0-2, SMAP forbids user pages (CR4.SMAP and not EFLAGS.AC) */
	MMU_KERNEL_AC, /* CPL 0-2, user pages allowed */
	MMU_COUNT
};

struct tlb {
	struct tlb_entry read[TLB_SIZE];
	struct tlb_entry write[TLB_SIZE];
};

/* All entries of all tables, in the order of struct mmu's tlb[] seen as one array. */
#define TLB_ENTRIES (MMU_COUNT * 2 * TLB_SIZE)

/* mmu.tlb_state[] */
#define TLB_STATE_GLOBAL	1 /* the entry is of a global page */
#define TLB_STATE_LOGGED	2 /* the entry's number is in tlb_log[] */
#define TLB_STATE_GLOBAL_LOGGED 4 /* the entry's number is in tlb_global_log[] */

/* A set of pages, hashed to one bit each; may say yes for pages that are not in it. */
#define PAGE_FILTER_BITS 4096

struct page_filter {
	bool used; /* a bit is set */
	u64 word[PAGE_FILTER_BITS / 64];
};

/* Groups of accesses in a block, at most */
#define GROUP_SLOTS 24

/* SDM 2A 2.3.11: longer instructions fault. */
#define INSN_BYTES_MAX 15

/* Where to go on for a linear address: filled by the dispatcher, looked up by translated code. */
#define JUMP_CACHE_BITS 16
#define JUMP_CACHE_SIZE (1u << JUMP_CACHE_BITS)

struct jump_entry {
	u64 rip;  /* linear; of another slot when empty */
	u64 code; /* host code; 0: nothing was entered since the cache was emptied */
};

/** The slot of @linear. Calls lead to addresses that are multiples of 16, so the offset in the page
 * alone would leave most slots unused; it is what takes the fewest instructions to compute. */
static inline u32 jump_slot(u64 linear)
{
	return ((u32)((linear >> 8) + linear * 8) >> 4) & (JUMP_CACHE_SIZE - 1);
}

/* The entry of an address that is not in its own slot may be in another of the same JUMP_WAYS: a
 * cache line, which the stubs look through (stubs.second). */
#define JUMP_WAYS 4

/** An address that does not belong to the JUMP_WAYS slots around @slot. */
static inline u64 jump_empty(u32 slot)
{
	return slot < JUMP_WAYS ? 8 * JUMP_WAYS : 0;
}

/* Code addresses: the page's translation for instruction fetch. */
#define ITLB_SIZE 256

struct itlb_entry {
	u64 tag;    /* linear page | 1 valid */
	u64 gpa;    /* guest-physical page */
	u8 *host;   /* hva of the page, NULL if not RAM */
	u64 epoch;  /* valid while this is mmu.itlb_epoch, or mmu.itlb_global_epoch if global */
	u32 global; /* survives a CR3 write */
};

/* What translations depend on, besides tables. */
struct mmu_controls {
	u64 cr0, cr3, cr4, efer;
	u64 dr[4], dr7;
	u64 pdptr[4];
};

/*
 * What a PCID that is not the current one had in the TLBs and jump caches from pages that are not
 * global (SDM 3A 4.10.1): mmu/context.c. Linux turns over six PCIDs.
 */
#define CONTEXTS_MAX	    16
#define CONTEXT_ENTRIES_MAX 2048
#define CONTEXT_JUMPS_MAX   1024

struct mmu_context {
	u64 eptp; /* what its pages were translated by besides */
	u16 vpid;
	bool mbec;
	bool globals;		      /* of global pages, for a VPID as a whole */
	struct mmu_controls controls; /* of a VPID when it was left */
	u64 cr3;		      /* when it was left */
	u64 left;		      /* mmu.context_clock then; 0: nothing is kept here */
	u64 protect_epoch;	      /* v->protect_epoch then */
	u64 jump_epoch;		      /* mmu.jump_epoch then */
	u64 itlb_epoch;		      /* of its entries in mmu.itlb[] */
	u32 entries, jumps;
	u32 jumps_plain; /* as many as come before those of MMU_KERNEL_AC */
	u32 jump_mode[MMU_COUNT], jump_nonglobal[MMU_COUNT];
	struct page_filter large_2m, large_1g, code_pages[MMU_COUNT];
	u16 number[CONTEXT_ENTRIES_MAX]; /* of entry[] in mmu.tlb seen as one array */
	struct tlb_entry entry[CONTEXT_ENTRIES_MAX];
	u16 jump_slot[CONTEXT_JUMPS_MAX]; /* of jump[] in mmu.jump[MMU_USER], or a supervisor's */
	struct jump_entry jump[CONTEXT_JUMPS_MAX];
};

/* A guest-physical page of a nested guest, by EPT. */
#define EPT_CACHE_SIZE 1024

struct ept_entry {
	u64 gpa;      /* page */
	u64 physical; /* page | EPT_READ to EPT_EXEC_USER of all entries | EPT_DIRTY: ept_walk.dirty
		       */
	u8 *host;     /* hva of the page, NULL if not RAM */
	u64 epoch;    /* valid while this is mmu.ept_epoch */
};

enum ept_fault_kind {
	EPT_VIOLATION,
	EPT_MISCONFIGURATION,
	EPT_LOG_FULL,	 /* of modified pages */
	EPT_APIC_ACCESS, /* a walk came to the APIC-access page */
};

/* Why a nested guest's access to a guest-physical address was refused (SDM 3C 28.2.1). */
struct ept_fault {
	enum ept_fault_kind kind;
	u64 gpa;
	u64 linear;	   /* valid if bit 7 of: */
	u64 qualification; /* as in table 28-7, without NMI unblocking; 0 for the other kinds */
};

/*
 * All that is known of translations. VMX root and non-root operation (SDM 3C 23.3) have one each,
 * so that VM entries and exits leave everything where it is; a block uses those of its mode.
 */
enum mmu_set { MMU_ROOT, MMU_NONROOT, MMU_SETS };

struct mmu {
	/* Reached by translated code through GS */
	struct tlb tlb[MMU_COUNT];
	struct jump_entry jump[MMU_COUNT][JUMP_CACHE_SIZE];
	u32 jump_mode[MMU_COUNT]; /* mode that the jump cache's blocks have */

	bool used; /* anything may be in here */

	/* mmu/ept.c, mmu/nested.c */
	u64 eptp; /* what guest-physical addresses are translated by; 0: they are this VM's */
	u16 vpid;
	bool mbec;     /* mode-based execute control for EPT */
	bool logs;     /* page-modification logging */
	u64 ept_epoch; /* of the valid ones of: */
	struct ept_entry ept[EPT_CACHE_SIZE];
	struct mmu_controls left; /* by mmu_leave() */

	/* mmu/tlb.c */
	struct itlb_entry itlb[MMU_COUNT][ITLB_SIZE];
	u64 itlb_epoch, itlb_global_epoch;
	u64 itlb_epochs; /* how many values itlb_epoch has had */
	u8 tlb_state[TLB_ENTRIES];
	u16 tlb_log[TLB_ENTRIES]; /* entries filled from pages that are not global since the last
				     flush */
	u16 tlb_global_log[TLB_ENTRIES]; /* entries filled from global pages since the last flush
					    that spared none */
	u32 tlb_logged, tlb_global_logged;
	bool wp_ignored; /* supervisor write entries were made that CR0.WP would forbid */
	struct page_filter large_2m[2], large_1g[2]; /* regions of large-page fills; [1]: global */

	/* mmu/jump.c */
	u16 jump_log[MMU_COUNT][JUMP_CACHE_SIZE]; /* slots of jump[] with .code */
	u32 jump_logged[MMU_COUNT];
	struct page_filter code_pages[MMU_COUNT]; /* pages fetched from since jump[] was cleared */
	u32 jump_nonglobal[MMU_COUNT];		  /* entries of jump[] whose page is not global: the
						     dispatcher's */
	bool code_stale; /* shadow_compare_code() is due before user code goes on */

	/* mmu/context.c */
	u64 context_clock;
	u64 jump_epoch;	   /* counts what may make jumps that were put away invalid */
	u32 context_count; /* of contexts[], in use or once used */
	struct mmu_context contexts[CONTEXTS_MAX];
};

/* A host address in translated code and the guest's RIP there, while the code cache's .oldest and
 * the number of its resets are these. */
#define FAULT_SITES 64

struct fault_site {
	u64 pc, rip, oldest, resets;
};

/* Why translated code must come out; bits of vcpu->attention. */
#define ATTENTION_KICK	  BIT(0) /* vcpu_kick(): leave to the monitor */
#define ATTENTION_IRQ	  BIT(1) /* an interrupt, NMI, INIT or SIPI may have become deliverable */
#define ATTENTION_QUEUE	  BIT(2) /* a port or MMIO write waits in v->io_queue: leave now */
#define ATTENTION_TIMER	  BIT(3) /* a timer of the interrupt chips is due */
#define ATTENTION_WRITTEN BIT(4) /* v->written has something */

/* A port or MMIO access that the monitor must see. Reads are replayed: see mmu/io.h. */
struct io_access {
	u64 addr; /* port or gpa */
	u8 data[8];
	u8 size;
	bool port;
	bool write;
};

#define IO_LOG_SIZE   80
#define IO_QUEUE_SIZE 640

/* Events that wait for an instruction boundary. */
struct pending_events {
	bool exception; /* exception to deliver (from set_events, or raised) */
	u8 exception_vector;
	bool exception_has_error;
	u32 exception_error;
	u64 exception_cr2;   /* for #PF */
	bool soft_interrupt; /* INT n, INT3, INTO, INT1: delivered with the software rules */
	u8 soft_length;	     /* instruction length in bytes */
	bool soft_trap;	     /* it is INT3, not INT n */
	bool nmi_masked;     /* between an NMI and IRET */
	_Atomic u32 nmi;     /* pending NMIs, at most 2 (SDM 3A 6.7.1) */
	bool triple_fault;
	bool user_interrupt; /* KVM_INTERRUPT */
	u8 user_vector;
	bool in_delivery;	   /* an event is being delivered: a fault now is a nested one */
	u8 delivering;		   /* its vector */
	bool delivering_soft;	   /* it is INT n, INT3, INTO: benign for table 6-5, no EXT */
	bool delivering_interrupt; /* it is an external interrupt or NMI: benign for table 6-5 */
	bool delivering_user;	   /* it is .user_interrupt */
	bool
	    debug_fault; /* .debug is a breakpoint fault before the instruction: RF is pushed set */
	u64 debug;	 /* DR6 bits of a trap-class #DB due at the next boundary; 0: none */
};

/* The monitor's debugger (KVM_SET_GUEST_DEBUG), beside what the guest debugs by itself. */
struct guest_debug {
	u32 control;	/* KVM_GUESTDBG_*; 0: nobody debugs */
	bool stepping;	/* every instruction is looked at: single step, or data breakpoints */
	bool step_due;	/* one has been done, or an event delivered: report it */
	u8 int3_length; /* of the INT3 that was reported last, bytes */
	u64 dr[4], dr7; /* its breakpoints; dr7 0: none */
	u64 hit;	/* DR6 bits of those that were met: report them */
	u64 cached[4];	/* addresses of execution at which translated code stops, */
	u32 cached_set; /* and which of them are in use */
};

#define MC_BANKS 10 /* machine-check banks */

struct soft_msrs {
	u64 efer, star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux, pat;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 apic_base, misc_enable, debugctl, tsc_adjust, feature_control;
	u64 mtrr_def_type, mtrr_fixed[11], mtrr_var[16];
	u64 mcg_status, mcg_cap, mcg_ctl, bios_sign_id;
	u64 mc_bank[MC_BANKS][4]; /* CTL STATUS ADDR MISC */
	u64 kvm_wall_clock, kvm_system_time;
	u64 spec_ctrl;
};

#define CPUID_MAX 100

/* Bytes of pages with code that others have written, see translate/written.h; each range lies in
 * one page. */
struct written_range {
	u64 gpa, size;
};

struct written {
	struct gp_lock lock;
	u32 count;
	struct written_range range[16];
	bool all; /* there were more */
};

/* Components of XSAVE's extended region have numbers below this (SDM 1 13.1). */
#define XSTATE_COUNT 8

/* Bytes of an area that holds all of them, in either format. */
#define XSAVE_AREA_SIZE 2688u

/* Where the host's processor puts them: it is the one that executes XSAVE. */
struct xstate_layout {
	u64 offered;		  /* XCR0 bits that the guest may set */
	u16 offset[XSTATE_COUNT]; /* in the standard format, bytes */
	bool xsaveopt;		  /* the host has it */
	u32 mxcsr_mask;		  /* the host's; 0: not asked for yet */
};

struct soft_vcpu {
	/* ---- reached by translated code and the stubs through GS; offsets matter, see translate/
	 * ---- */
	u64 regs[16];	/* in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15 */
	u64 rip;	/* CS-relative; set before every helper call */
	u64 next_rip;	/* address after the current instruction, set before every op call */
	u64 tmp[4];	/* spill slots inside one instruction */
	u64 loop_limit; /* where a loop's register must not get without new checks: loops.c */
	u64 group[GROUP_SLOTS]; /* hva of what a check covers, inside one block: groups.c */
	u64 host_rsp;		/* host stack while inside the guest */
	u64 pending_link;	/* exit site that wants to be chained, or 0; the dispatcher's */
	u16 arith; /* guest arithmetic flags when parked: AH = SF ZF AF PF CF by LAHF, AL = OF */
	_Alignas(2) u8
	    int_shadow; /* STI or MOV SS shadow covers the next instruction (1 STI, 2 MOV SS) */
	u8 replay; /* the current instruction is executed again after a read the monitor answered */
	u8 stepped;  /* an instruction of a MODE_STEP block has completed */
	u8 step_tf;  /* TF was set when it began */
	u16 running; /* MODE_ONE, MODE_STEP of the block that runs */
	u32 host_mxcsr;
	struct soft_vcpu *self;
	u64 branch_pc; /* host address behind the near branch that led to v->rip; 0: none */
	u64 fault_pc;  /* host address inside the instruction that called C without setting rip; 0:
			  rip is right */
	_Atomic u32 attention;
	u32 heeded; /* attention bits that send the dispatcher's stub back: all but those that wait
		     * for a lone instruction's end */
	u64 rflags_sys;	 /* RFLAGS without OF SF ZF AF PF CF; bit 1 set; includes DF */
	u64 seg_base_fs; /* copies of seg[].base, kept by vcpu_segment_changed() */
	u64 seg_base_gs;
	const _Atomic u32 *irq_word; /* not 0: an interrupt may wait for RFLAGS.IF */
	u32 mode_kernel64; /* modes of 64-bit code at CPL 0 and 3, AC and TF clear, DR7 empty: by
			    * vcpu_update_mode() */
	u32 mode_user64;
	_Alignas(
	    8) u32 io_logged; /* entries in io_log, see mmu/io.h; cleared together with io_cursor */
	u32 io_cursor;
	_Alignas(64) u8
	    bounce[128]; /* stands in for memory that is not plain RAM, at the address's offset */

	struct mmu mmus[MMU_SETS];

	/* ---- C only ---- */
	struct engine_vcpu base;
	struct soft_vm *vm;
	struct mmu *mmu; /* of mmus[], the one in use */
	struct ept_fault ept_fault;

	u32 mode; /* translation mode, see translate/mode.h; kept by vcpu_update_mode() */
	u8 cpl;
	u8 keep_rf; /* IRET or a task switch loaded RF, or REP goes on: it holds for one more
		       instruction */
	enum mmu_index mmu_index;

	struct segment seg[6]; /* by encoding: ES CS SS DS FS GS */
	struct segment ldtr, tr;
	struct descriptor_table gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8;
	u64 xcr0;
	struct xstate_layout layout; /* of extended state, and what of it the guest may enable */
	u64 dr[4], dr6, dr7;
	struct guest_debug debug;
	u64 pdptr[4]; /* PAE: loaded with CR3 (SDM 3A 4.4.1) */
	struct soft_msrs msr;
	s64 tsc_offset; /* guest TSC = host TSC + tsc_offset */
	u32 tsc_khz;

	struct kvm_cpuid_entry2 cpuid[CPUID_MAX];
	u32 cpuid_count;
	u64 reserved_pa; /* bits from MAXPHYADDR to 51 */

	struct pending_events events;
	struct vmx vmx;
	struct lapic *lapic; /* NULL without irqchip */
	u32 mp_state;	     /* KVM_MP_STATE_* */

	u32 jump_turn;	   /* which of JUMP_WAYS slots of a jump cache is given up next */
	u64 protect_epoch; /* counts what may make write entries of the TLBs invalid */

	/* mmu/shadow.c */
	struct shadow *shadow; /* NULL: not needed so far */
	u64 shadow_span;       /* bytes of address space behind this structure */
	bool shadow_on;	       /* user code finds its memory through the shadow table */
	bool shadow_check;     /* shadow_enter() is due before user code goes on */
	bool shadow_refused;   /* the host has no room for it */
	bool alone;	       /* the next instruction runs by itself and without it */

	/* MMIO and port reads already answered for the instruction being replayed; writes on their
	 * way */
	struct io_access io_log[IO_LOG_SIZE];
	struct io_access io_queue[IO_QUEUE_SIZE];
	u32 io_head, io_tail;

	struct block_cache *cache; /* translated code; private to this vCPU */
	struct written written;
	struct fault_site fault_sites[FAULT_SITES];
	u64 commit_linear; /* where the bounce buffer goes, see soft_miss() */
	u32 commit_description;
	u64 commit_elements; /* of an access under an opmask: those that it writes, bit by bit */
	struct {
		u64 rip, linear, gpa, next_gpa;
		const u8 *page, *next_page;
		u32 mode;
		bool need_next;
	} source;		   /* of the block that the dispatcher wants translated */
	u8 leave;		   /* enum leave_reason */
	bool window_wanted;	   /* run->request_interrupt_window, without irqchip */
	bool read_pending;	   /* base.run holds a read that the monitor answers */
	u64 timer_deadline;	   /* CLOCK_MONOTONIC ns the host timer is armed for; 0: not */
	struct engine_stats stats; /* but for the times: */
	struct {
		u64 guest, translate, halted, monitor; /* host TSC, as are: */
		u64 left_at;			       /* when vcpu_run() last returned */
		u64 born;
		u64 born_ns; /* CLOCK_MONOTONIC */
		struct vmx_ticks vmx;
	} ticks;

	u64 signal_mask;      /* of that thread, outside signal handlers */
	_Atomic int thread;   /* tid of the thread that was in vcpu_run() last, or 0 */
	bool fsgsbase;	      /* the host's kernel lets programs use WRGSBASE */
	u64 host_gs;	      /* that thread's GS base otherwise */
	u32 timers_fired;     /* soft_timers_fired when last looked at */
	int timer_thread;     /* tid that the timer signals; 0: no timer yet */
	int timer;	      /* kernel timer id */
	_Atomic u32 wake;     /* futex: bumped when a halted vCPU must look again */
	_Atomic u32 sleeping; /* it waits on the futex */

	/* Guest x87 and vector state while outside, XSAVE standard format */
	_Alignas(64) u8 fpu[XSAVE_AREA_SIZE];
	_Alignas(64) u8 xstate[2][XSAVE_AREA_SIZE]; /* scratch of system/xstate.c */
	_Alignas(64) u8 vec[16][64]; /* scratch of ops that need the vector registers */
};

struct memslot {
	u64 gpa, size; /* bytes */
	u8 *host;
	u32 id, flags;
	u8 *page_flags; /* a byte per page: PAGE_HAS_CODE */
	u16 *writers;	/* a word per page: where in the TLB it may be entered for writing, see
			   mmu/tlb.c. One vCPU only; NULL: not known */
	int fd;		/* the memory is a shared mapping of this file, or -1 */
	u64 fd_offset;	/* from there on, bytes */
	u64 *views;	/* a word per page with fd: where a shadow space has it, see mmu/shadow.c */
	u64 *dirty;	/* bitmap when KVM_MEM_LOG_DIRTY_PAGES */
};

#define PAGE_HAS_CODE 1

#define MEMSLOTS_MAX 64
#define VCPUS_MAX    64

struct soft_vm {
	struct engine_vm base;
	struct memslot slots[MEMSLOTS_MAX]; /* used ones first, sorted by gpa; the others zero */
	u32 slot_count;
	bool slots_share;	 /* some host memory is in two slots */
	struct irqchip *irqchip; /* NULL: none */
	struct soft_vcpu *vcpus[VCPUS_MAX];
	_Atomic u32 vcpu_count;
	struct soft_tuning tune;
	bool vmx;	/* vCPUs may be told of VMX: "cpu" of vm_set_option() */
	bool timed;	/* times of VMX operation are taken: "stats" of vm_set_option() */
	u64 code_cache; /* bytes of translated code for each vCPU */
	enum perf_format perf;
	s64 clock_offset; /* kvmclock = CLOCK_MONOTONIC + clock_offset, ns */
};

/* ---- flags ---- */

#define RFLAGS_ARITH (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

static inline u64 vcpu_rflags(const struct soft_vcpu *v)
{
	return v->rflags_sys | ((v->arith >> 8) & 0xd5) | ((v->arith & 1) ? RFLAGS_OF : 0);
}

static inline void vcpu_set_arith(struct soft_vcpu *v, u64 rflags)
{
	v->arith = (u16)((rflags & 0xd5) << 8 | 2u << 8 | ((rflags & RFLAGS_OF) ? 1 : 0));
}

/** Sets all of RFLAGS. The caller has decided which bits may change, and calls vcpu_update_mode()
 * if VM, TF or AC did, and vcpu_irq_window() if IF became 1. */
static inline void vcpu_set_rflags(struct soft_vcpu *v, u64 rflags)
{
	vcpu_set_arith(v, rflags);
	v->rflags_sys = (rflags & ~(u64)RFLAGS_ARITH & 0x3f7fd5) | 2;
}

/** Asks translated code to come out at the next block boundary. vCPU's own thread, or any. */
static inline void vcpu_attention(struct soft_vcpu *v, u32 bits)
{
	atomic_fetch_or(&v->attention, bits);
}

/** Whether the monitor could inject an external interrupt now (KVM_INTERRUPT). */
static inline bool vcpu_window_open(const struct soft_vcpu *v)
{
	return (v->rflags_sys & RFLAGS_IF) && !v->int_shadow && !v->events.user_interrupt;
}

/* Why translated code was left for good */
enum leave_reason {
	LEAVE_NONE,
	LEAVE_EXIT,  /* base.run says */
	LEAVE_READ,  /* base.run says, and its answer is awaited */
	LEAVE_QUEUE, /* io_queue has writes */
	LEAVE_KICK,
	LEAVE_HALT, /* mp_state is not runnable */
	LEAVE_SHUTDOWN,
	LEAVE_WINDOW,  /* the monitor may inject an interrupt */
	LEAVE_NO_CODE, /* RIP is not in RAM */
	LEAVE_DEBUG,   /* the monitor's debugger wants to see v->debug.step_due or .hit */
};

/** The vCPU whose vcpu_run() this thread is in, or NULL. */
extern __thread struct soft_vcpu *soft_current;

/** How many timers have fired on this thread, of whichever vCPU. */
extern __thread u32 soft_timers_fired;

/* ---- implemented in engine/soft/vcpu.c ---- */

/** Recomputes v->mode, v->cpl's consequences and v->mmu_index after a change of CS, SS, DS, ES, FS
 * or GS attributes, CPL, CR0, CR4, EFER, XCR0, DR7 or RFLAGS.VM/TF/AC. Cheap. Inside. */
void vcpu_update_mode(struct soft_vcpu *v);

/** After RFLAGS.IF became 1 (or CR8/TPR fell): raises ATTENTION_IRQ if something now is
 * deliverable. */
void vcpu_irq_window(struct soft_vcpu *v);

/** Makes @v notice its attention bits: from any thread (irqchip, kick, timers). Async-signal-safe.
 */
void vcpu_poke(struct soft_vcpu *v, u32 attention_bits);

/** Leaves translated code for good at the current state and returns from vcpu_run() with
 * base.run filled in by the caller. Inside. */
_Noreturn void vcpu_exit(struct soft_vcpu *v);

/** Abandons the current instruction and goes on at v->rip through the dispatcher, where v->events
 * are looked at. Inside. */
_Noreturn void vcpu_resume(struct soft_vcpu *v);

/** A helper that was called in the middle of an instruction: finds v->rip by v->fault_pc. Inside.
 */
void vcpu_settle(struct soft_vcpu *v);
/** Bytes of the instruction whose access has called; before vcpu_settle(). */
u32 vcpu_instruction_length(struct soft_vcpu *v);

/** Resets to the state after RESET or INIT (SDM 3A table 9-1; engine/soft/reset.c). RESET: outside
 * only, since it writes v->fpu; v->base.id and v->vm are set. INIT: inside too. */
void vcpu_reset(struct soft_vcpu *v, bool init);

#endif
