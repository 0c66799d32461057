/* VMCS regions and other structures of VMX in guest-physical memory. Inside. */
#ifndef GUISE_SOFT_VMX_REGION_H
#define GUISE_SOFT_VMX_REGION_H

#include "engine/soft/vmx/capabilities.h"

/**
 * Reads or writes @size bytes of RAM at @gpa, which do not cross a page. What is no RAM reads as
 * all ones and is not written: VMX structures there never reach the monitor.
 */
void vmx_phys_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size);
void vmx_phys_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size);

/** The first word of a region: revision identifier, and VMCS_SHADOW. */
u32 vmx_region_revision(struct soft_vcpu *v, u64 gpa);
/** Writes the VMX-abort indicator. */
void vmx_region_abort(struct soft_vcpu *v, u64 gpa, u32 reason);

/** Makes the VMCS at @gpa the current one, writing the one that was to its region first. VMCS_NONE:
 * none is. */
void vmx_region_switch(struct soft_vcpu *v, u64 gpa);
/** VMCLEAR: launch state "clear"; the current VMCS, if this is it, goes to its region. */
void vmx_region_clear(struct soft_vcpu *v, u64 gpa);

/** A field of a VMCS that is not the current one, a shadow VMCS. */
u64 vmx_region_read_field(struct soft_vcpu *v, u64 gpa, u32 n);
void vmx_region_write_field(struct soft_vcpu *v, u64 gpa, u32 n, u64 value);

#endif
