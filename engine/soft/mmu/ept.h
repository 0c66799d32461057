/*
 * The memory side of VMX: extended page tables, and what VM entries, VM exits, INVEPT and INVVPID
 * mean to translations. SDM 3C 29.3, 29.4. All functions inside unless stated.
 *
 * In non-root operation with EPT every guest-physical address, those of the guest's own paging
 * structures too, is translated by the tables that EPTP points to. The TLBs hold linear addresses
 * translated by both, so that a hit costs what it always costs. What mmu.h calls guest-physical is
 * what comes out: an address of this VM's memory.
 *
 * TLBs and jump caches exist twice (struct mmu): VM entry and VM exit change over from the ones to
 * the others and leave everything where it is. What belongs to another VPID or EPTP than the one in
 * use is put away, as what belongs to another PCID is (context.c).
 */
#ifndef GUISE_SOFT_EPT_H
#define GUISE_SOFT_EPT_H

#include "engine/soft/mmu/mmu.h"

/* EPT paging-structure entries: SDM 3C tables 29-1 to 29-6. */
#define EPT_READ      BIT(0)
#define EPT_WRITE     BIT(1)
#define EPT_EXEC      BIT(2)
#define EPT_LARGE     BIT(7)
#define EPT_ACCESSED  BIT(8)
#define EPT_DIRTY     BIT(9)
#define EPT_EXEC_USER BIT(10)
#define EPT_RIGHTS    (EPT_READ | EPT_WRITE | EPT_EXEC | EPT_EXEC_USER)

/* EPTP, table 25-9 */
#define EPTP_AD BIT(6)

/* Exit qualification of an EPT violation, table 28-7: 2:0 the access, as EPT_READ, EPT_WRITE,
 * EPT_EXEC; 5:3 and 6 what the entries allow. */
#define EPT_QUAL_ALLOWED_SHIFT 3
#define EPT_QUAL_EXEC_USER     BIT(6) /* with mode-based execute control only */
#define EPT_QUAL_LINEAR	       BIT(7) /* there is a linear address */
#define EPT_QUAL_FINAL	       BIT(8) /* to its translation, not to a paging-structure entry */
#define EPT_QUAL_USER	       BIT(9) /* 11:9 exist if IA32_VMX_EPT_VPID_CAP[22] says so */
#define EPT_QUAL_WRITABLE      BIT(10)
#define EPT_QUAL_NX	       BIT(11)

/* What non-root operation translates by. */
struct nested_paging {
	u64 eptp;  /* valid, see vmx_eptp_valid(); 0: no EPT */
	u16 vpid;  /* 0: VPIDs are not enabled */
	bool mbec; /* mode-based execute control for EPT */
	bool logs; /* page-modification logging */
};

/* ---- VM entry and VM exit (mmu/nested.c) ---- */

/**
 * Before the control registers, EFER and DR7 of one operation are replaced by those of the other:
 * notes what the translations have been made under.
 */
void mmu_leave(struct soft_vcpu *v);

/**
 * VM entry: behind the loading of the guest's CR0, CR3, CR4, EFER, DR7 and PDPTEs, before
 * vcpu_update_mode(). Without VPIDs it flushes what the manual asks for (29.4.3.1).
 */
void mmu_enter_nonroot(struct soft_vcpu *v, const struct nested_paging *by);

/** VM exit: the same for the host's. */
void mmu_enter_root(struct soft_vcpu *v);

/** EPTP switching in non-root operation (25.5.6.3). Keeps nothing of the current VPID, though it
 * might. */
void mmu_switch_eptp(struct soft_vcpu *v, u64 eptp);

/* ---- INVEPT and INVVPID (mmu/nested.c; 29.4.3.1); in VMX root operation ---- */

/** Drops what was translated through @eptp. @all: through any. */
void mmu_invept(struct soft_vcpu *v, bool all, u64 eptp);
/** Drops what @vpid has for @linear, of any PCID. */
void mmu_invvpid_address(struct soft_vcpu *v, u16 vpid, u64 linear);
/** Drops all that @vpid has. @keep_global: but for global pages. */
void mmu_invvpid(struct soft_vcpu *v, u16 vpid, bool keep_global);
/** Drops all that VPIDs other than 0 have. */
void mmu_invvpid_all(struct soft_vcpu *v);

/* ---- translation (mmu/ept.c) ---- */

struct ept_walk {
	u64 gpa;      /* guest-physical address */
	u64 wanted;   /* EPT_READ, EPT_WRITE, EPT_EXEC, EPT_EXEC_USER: all of them */
	bool mark;    /* set accessed, and for EPT_WRITE dirty, flags if EPTP has them enabled */
	u64 physical; /* result: address in this VM's memory */
	u64 allowed;  /* EPT_READ ... EPT_EXEC_USER of all entries */
	bool dirty;   /* the page may be written without a look at the entry */
	enum ept_fault_kind fault; /* on failure */
};

/** Translates w->gpa. Returns 0, or -EFAULT with .allowed and .fault. Raises nothing. */
int ept_walk(struct soft_vcpu *v, struct ept_walk *w);

static inline u32 ept_slot(u64 gpa)
{
	return gpa / PAGE_SIZE % EPT_CACHE_SIZE;
}

/** What is known of @gpa's page, if it allows all of @wanted with nothing to mark; else NULL. */
static inline const struct ept_entry *ept_known(const struct mmu *m, u64 gpa, u64 wanted)
{
	const struct ept_entry *e = &m->ept[ept_slot(gpa)];

	if (wanted & EPT_WRITE)
		wanted |= EPT_DIRTY;
	if (e->gpa != (gpa & PAGE_MASK) || e->epoch != m->ept_epoch || (wanted & ~e->physical))
		return NULL;
	return e;
}

/** As ept_walk() where that is already known: false: it is not. */
bool ept_lookup(const struct soft_vcpu *v, struct ept_walk *w);

/** Forgets what was translated through any EPTP. */
void ept_flush(struct soft_vcpu *v);

/** Fills v->ept_fault for a walk that failed. @linear: of the access; @qualification: the bits
 * above 6 of a violation's. */
void ept_note_fault(struct soft_vcpu *v, const struct ept_walk *w, u64 linear, u64 qualification);

/** The same for an access to the guest-physical address @gpa, in the course of a walk, that has
 * come to the APIC-access page (SDM 3C 30.4.6.1). */
void ept_note_apic_access(struct soft_vcpu *v, u64 gpa);

/**
 * An access has failed as v->ept_fault says: drops what must not be used for the next try
 * (29.4.3.1: a violation invalidates the address's translations), then vmx_ept_fault().
 */
_Noreturn void ept_raise(struct soft_vcpu *v);

/* ---- provided by vmx/ ---- */

/** VM exit for v->ept_fault, with v->rip or v->fault_pc at the instruction. */
_Noreturn void vmx_ept_fault(struct soft_vcpu *v);

/** Whether the page-modification log has no room (SDM 3C 29.3.6). */
bool vmx_log_full(const struct soft_vcpu *v);
/** Enters the page of @gpa, whose dirty flag for EPT has just been set. The log is not full. */
void vmx_log_page(struct soft_vcpu *v, u64 gpa);

#endif
