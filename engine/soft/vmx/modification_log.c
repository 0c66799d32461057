/* Page-modification logging: SDM 3C 29.3.6. Inside. */
#include "engine/soft/mmu/ept.h"
#include "engine/soft/vmx/region.h"

#define LOG_ENTRIES 512u

/* The index counts down, from 0 to FFFFH. */
bool vmx_log_full(const struct soft_vcpu *v)
{
	return vmx_get(v, VMX_PML_INDEX) >= LOG_ENTRIES;
}

void vmx_log_page(struct soft_vcpu *v, u64 gpa)
{
	u64 index = vmx_get(v, VMX_PML_INDEX), page = gpa & PAGE_MASK;

	vmx_phys_write(v, vmx_get(v, VMX_PML_ADDRESS) + index * sizeof(page), &page, sizeof(page));
	vmx_set(v, VMX_PML_INDEX, (u16)(index - 1));
}
