/*
 * The checks of VM entry, SDM 3C 27.2 and 27.3, in the manual's order. Pure functions of what
 * struct entry_facts holds: no vCPU, no memory. Inside.
 */
#ifndef GUISE_SOFT_VMX_CHECK_H
#define GUISE_SOFT_VMX_CHECK_H

#include "engine/soft/vmx/controls.h"
#include "engine/soft/vmx/fields.h"

/* What VM entry looks at besides the VMCS. */
struct entry_facts {
	const struct vmcs *vmcs;
	u64 reserved_pa;  /* bits from MAXPHYADDR to 51 */
	u64 allowed_cpu2; /* IA32_VMX_PROCBASED_CTLS2 */
	u64 cr4_fixed1;	  /* IA32_VMX_CR4_FIXED1 */
	u64 efer_known;	  /* bits of IA32_EFER that exist */
	u64 debugctl_known;
	bool long_mode;	   /* IA32_EFER.LMA of the hypervisor */
	u8 virtual_tpr;	   /* byte 80H of the virtual-APIC page */
	u64 current;	   /* the current VMCS' region, gpa */
	u32 link_revision; /* first word of the VMCS at the link pointer */
	u64 pdpte[4];	   /* of the guest: from its fields with EPT, else from memory */
};

/* The check that failed. */
struct entry_failure {
	enum vmx_field field;
	const char *what;
	u64 qualification; /* of a late failure, SDM 3C 27.8 */
};

/* Each: true: all is well; false: @failure says what is not. */
bool vmx_check_controls(const struct entry_facts *e, struct entry_failure *failure);
bool vmx_check_host(const struct entry_facts *e, struct entry_failure *failure);
bool vmx_check_guest(const struct entry_facts *e, struct entry_failure *failure);
/** The part of vmx_check_guest() about segment registers (27.3.1.2). */
bool vmx_check_guest_segments(const struct entry_facts *e, struct entry_failure *failure);

/** EPT pointer as VM entry checks it, SDM 3C 27.2.1.1. */
bool vmx_eptp_valid(u64 reserved_pa, u64 eptp);

/* ---- for the checks' own files ---- */

static inline u64 entry_get(const struct entry_facts *e, u32 field)
{
	return e->vmcs->value[field];
}

static inline bool entry_fail(struct entry_failure *failure, u32 field, const char *what)
{
	*failure = (struct entry_failure){.field = (enum vmx_field)field, .what = what};
	return false;
}

/** Fails with @what about @field unless @condition holds. */
#define ENTRY_CHECK(condition, field, what)                                                        \
	do {                                                                                       \
		if (unlikely(!(condition)))                                                        \
			return entry_fail(failure, (field), (what));                               \
	} while (0)

static inline u64 entry_cpu2(const struct entry_facts *e)
{
	return entry_get(e, VMX_PROCESSOR_CONTROLS) & CPU_SECONDARY
		   ? entry_get(e, VMX_SECONDARY_CONTROLS)
		   : 0;
}

static inline bool entry_unrestricted(const struct entry_facts *e)
{
	return entry_cpu2(e) & CPU2_UNRESTRICTED_GUEST;
}

static inline bool entry_address_valid(const struct entry_facts *e, u64 gpa, u64 alignment)
{
	return !(gpa & (alignment - 1)) && !(gpa & (e->reserved_pa | 0xfff0000000000000));
}

/** UC, WC, WT, WP, WB, UC- in all eight entries. */
bool entry_pat_valid(u64 pat);

#endif
