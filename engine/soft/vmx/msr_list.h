/* The MSR areas of VM entry and VM exit: SDM 3C 25.7.2, 27.4, 28.4, 28.6. Inside. */
#ifndef GUISE_SOFT_VMX_MSR_LIST_H
#define GUISE_SOFT_VMX_MSR_LIST_H

#include "engine/soft/vmx/vmx.h"

/** Loads @count MSRs from the area at @gpa. Returns 0, or the number of the entry that failed, the
 * first being 1. */
u32 vmx_load_msrs(struct soft_vcpu *v, u64 gpa, u32 count);
/** Stores the MSRs that the area names into it; the same. */
u32 vmx_store_msrs(struct soft_vcpu *v, u64 gpa, u32 count);

#endif
