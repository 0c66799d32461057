/* The APIC-access page and the TPR that instructions reach through it: SDM 3C 30.4. Inside. */
#include "engine/soft/mmu/ept.h"
#include "engine/soft/vmx/region.h"

#define TPR_OFFSET 0x80u

/* Exit qualification, table 28-6: 11:0 offset, 15:12 type of access. */
enum { APIC_READ, APIC_WRITE, APIC_FETCH, APIC_DELIVERY };

static const u8 types[] = {
    [ACCESS_READ] = APIC_READ, [ACCESS_WRITE] = APIC_WRITE, [ACCESS_EXEC] = APIC_FETCH};

u64 vmx_on_apic_access(struct soft_vcpu *v, u64 linear, u64 gpa, u32 access)
{
	u64 offset = gpa & (PAGE_SIZE - 1);
	bool delivery = v->events.in_delivery;

	/* 30.4.2, 30.4.3: with a TPR shadow the TPR is that of the virtual-APIC page. */
	if (vmx_cpu(v, CPU_TPR_SHADOW) && (offset & ~3ull) == TPR_OFFSET && access != ACCESS_EXEC &&
	    !delivery) {
		if (access == ACCESS_WRITE) {
			v->vmx.tpr_written = true;
			vcpu_attention(v, ATTENTION_IRQ);
		}
		return vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + offset;
	}
	vmx_exit(
	    v, &(struct vmx_exit){
		   .reason = REASON_APIC_ACCESS,
		   .qualification = offset | (u64)(delivery ? APIC_DELIVERY : types[access]) << 12,
		   .linear = linear,
		   .resume_flag = !delivery,
	       });
}

void vmx_apic_page_enter(struct soft_vcpu *v)
{
	u64 page = 0;

	if (vmx_cpu2(v, CPU2_APIC_ACCESSES))
		page = vmx_get(v, VMX_APIC_ACCESS_ADDRESS) | 1;
	v->vmx.apic_page = page;
	if (likely(page == v->vmx.apic_page_before))
		return;
	v->vmx.apic_page_before = page;
	mmu_invvpid_all(v);
	tlb_flush(v, false);
}
