/* How instructions reach the virtual-APIC page: CR8 (SDM 3C 30.3), the APIC-access page (30.4),
 * MSRs of the x2APIC (30.5). Inside. */
#include "engine/soft/mmu/ept.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/vmx/apic.h"

/* ---- CR8, 30.3 ---- */

bool vmx_read_cr8(struct soft_vcpu *v, u64 *value)
{
	if (!vmx_cpu(v, CPU_TPR_SHADOW))
		return false;
	*value = virtual_apic_get(v, VIRTUAL_TPR) >> 4 & 0xf;
	return true;
}

bool vmx_write_cr8(struct soft_vcpu *v, u64 value)
{
	if (!vmx_cpu(v, CPU_TPR_SHADOW))
		return false;
	if (value > 15)
		raise_gp(v, 0);
	virtual_apic_set(v, VIRTUAL_TPR, (u32)value << 4);
	/* Every day's business of some kernels, mostly of no consequence: 30.1.2. */
	if (vmx_cpu2(v, CPU2_VIRTUAL_INTERRUPTS) || value < vmx_get(v, VMX_TPR_THRESHOLD))
		virtual_apic_written(v, VIRTUAL_TPR, 1);
	return true;
}

/* ---- the APIC-access page, 30.4 ---- */

/* A bit for each register, by offset / 16. */
#define REGISTER(offset)       BIT((offset) >> 4)
#define REGISTERS(first, last) (2 * REGISTER(last) - REGISTER(first))

/* 30.4.2: with APIC-register virtualization */
#define READABLE                                                                                   \
	(REGISTERS(0x020, 0x030) | REGISTER(0x080) | REGISTER(0x0b0) | REGISTERS(0x0d0, 0x280) |   \
	 REGISTERS(0x300, 0x380) | REGISTER(0x3e0))

/* 30.4.3.1 */
#define WRITABLE                                                                                   \
	(REGISTER(0x020) | REGISTER(0x080) | REGISTER(0x0b0) | REGISTERS(0x0d0, 0x0f0) |           \
	 REGISTER(0x280) | REGISTERS(0x300, 0x380) | REGISTER(0x3e0))

/* Exit qualification, table 28-6: 11:0 offset, 15:12 type of access. */
enum {
	APIC_READ,
	APIC_WRITE,
	APIC_FETCH,
	APIC_DELIVERY,
	APIC_PHYSICAL_DELIVERY = 10,
	APIC_PHYSICAL = 15
};

static const u8 types[] = {
    [ACCESS_READ] = APIC_READ, [ACCESS_WRITE] = APIC_WRITE, [ACCESS_EXEC] = APIC_FETCH};

static bool is_virtualized(const struct soft_vcpu *v, u32 offset, u32 size, u32 access)
{
	u64 allowed = REGISTER(VIRTUAL_TPR);

	if (!vmx_cpu(v, CPU_TPR_SHADOW) || access == ACCESS_EXEC)
		return false;
	/* In the low four bytes of a register */
	if (offset % 16 + size > 4 || offset >= 0x400)
		return false;
	/* One instruction writes one register, and reads none behind that. */
	if (v->vmx.apic_written &&
	    (access == ACCESS_READ || v->vmx.apic_written != APIC_WRITTEN(offset, size)))
		return false;
	if (vmx_cpu2(v, CPU2_APIC_REGISTERS)) {
		allowed = access == ACCESS_WRITE ? WRITABLE : READABLE;
	} else {
		if (vmx_cpu2(v, CPU2_VIRTUAL_INTERRUPTS))
			allowed |= REGISTER(VIRTUAL_EOI) | REGISTER(VIRTUAL_ICR_LOW);
		if (offset % 16)
			return false;
	}
	return allowed & REGISTER(offset);
}

void vmx_on_apic_access(struct soft_vcpu *v, u64 linear, u64 gpa, u32 size, u32 access)
{
	u32 offset = gpa & (PAGE_SIZE - 1);
	bool delivery = v->events.in_delivery;

	if (is_virtualized(v, offset, size, access))
		return;
	vmx_exit(
	    v, &(struct vmx_exit){
		   .reason = REASON_APIC_ACCESS,
		   .length = access == ACCESS_EXEC || delivery ? 0 : vcpu_instruction_length(v),
		   .qualification = offset | (u64)(delivery ? APIC_DELIVERY : types[access]) << 12,
		   .linear = linear,
		   .resume_flag = !delivery,
	       });
}

/* 30.4.6.1: never virtualized, and no offset. */
void vmx_apic_access_physical(struct soft_vcpu *v)
{
	bool delivery = v->events.in_delivery;

	vmx_exit(
	    v, &(struct vmx_exit){
		   .reason = REASON_APIC_ACCESS,
		   .qualification = (u64)(delivery ? APIC_PHYSICAL_DELIVERY : APIC_PHYSICAL) << 12,
		   .resume_flag = !delivery,
	       });
}

void vmx_apic_page_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size)
{
	u64 offset = gpa & (PAGE_SIZE - 1);

	vmx_phys_read(v, vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + offset, buf, size);
}

void vmx_apic_page_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	u32 offset = gpa & (PAGE_SIZE - 1);

	vmx_phys_write(v, vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + offset, buf, size);
	virtual_apic_written(v, offset, size);
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
	ept_flush(v);
	tlb_flush(v, false);
}

/* ---- MSRs of the x2APIC, 30.5 ---- */

#define MSR_X2APIC	    0x800u
#define MSR_X2APIC_COUNT    0x100u
#define MSR_REGISTER(index) (((index)&0xff) << 4) /* its offset in the page */

bool vmx_virtualizes_msr(const struct soft_vcpu *v, u32 index, bool write)
{
	if (index - MSR_X2APIC >= MSR_X2APIC_COUNT || !vmx_cpu2(v, CPU2_X2APIC_MODE))
		return false;
	switch (MSR_REGISTER(index)) {
	case VIRTUAL_TPR:
		return true;
	case VIRTUAL_EOI:
	case VIRTUAL_SELF_IPI:
		return vmx_cpu2(v, write ? CPU2_VIRTUAL_INTERRUPTS : CPU2_APIC_REGISTERS);
	default:
		return !write && vmx_cpu2(v, CPU2_APIC_REGISTERS);
	}
}

u64 vmx_read_apic_msr(struct soft_vcpu *v, u32 index)
{
	u64 value;

	vmx_phys_read(v, vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + MSR_REGISTER(index), &value,
		      sizeof(value));
	return value;
}

bool vmx_write_apic_msr(struct soft_vcpu *v, u32 index, u64 value)
{
	u32 offset = MSR_REGISTER(index);

	if (value & (offset == VIRTUAL_EOI ? ~0ull : ~0xffull))
		return true;
	vmx_phys_write(v, vmx_get(v, VMX_VIRTUAL_APIC_ADDRESS) + offset, &value, sizeof(value));
	virtual_apic_written(v, offset, sizeof(u32));
	return false;
}
