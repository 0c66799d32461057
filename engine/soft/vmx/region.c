/*
 * VMCS regions (SDM 3C 25.2): our own layout, which guests reach through instructions only.
 *
 *   0   revision identifier, bit 31: shadow VMCS      the hypervisor's
 *   4   VMX-abort indicator
 *   8   launch state: 1 launched
 *   16  fields, 8 bytes each, in the order of fields.h
 */
#include "engine/soft/vmx/region.h"

#include "base/gp.h"
#include "engine/soft/mmu/mmu.h"

#define REGION_ABORT	4
#define REGION_LAUNCHED 8
#define REGION_FIELDS	16

_Static_assert(REGION_FIELDS + sizeof(struct vmcs) <= PAGE_SIZE, "a VMCS fits into its region");

void vmx_phys_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size)
{
	const u8 *host = phys_ram(v->vm, gpa);

	if (host)
		gp_copy(buf, host, size);
	else
		gp_fill(buf, 0xff, size);
}

void vmx_phys_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	const struct memslot *slot = phys_slot(v->vm, gpa);

	if (slot && !(slot->flags & KVM_MEM_READONLY))
		phys_write(v, gpa, buf, size);
}

u32 vmx_region_revision(struct soft_vcpu *v, u64 gpa)
{
	u32 revision;

	vmx_phys_read(v, gpa, &revision, sizeof(revision));
	return revision;
}

void vmx_region_abort(struct soft_vcpu *v, u64 gpa, u32 reason)
{
	vmx_phys_write(v, gpa + REGION_ABORT, &reason, sizeof(reason));
}

static void write_launched(struct soft_vcpu *v, u64 gpa, bool launched)
{
	u32 state = launched;

	vmx_phys_write(v, gpa + REGION_LAUNCHED, &state, sizeof(state));
}

static void write_back(struct soft_vcpu *v)
{
	u64 gpa = v->vmx.current;

	if (gpa == VMCS_NONE)
		return;
	write_launched(v, gpa, v->vmx.launched);
	vmx_phys_write(v, gpa + REGION_FIELDS, &v->vmx.vmcs, sizeof(v->vmx.vmcs));
}

void vmx_region_switch(struct soft_vcpu *v, u64 gpa)
{
	u32 state;

	if (gpa == v->vmx.current)
		return;
	write_back(v);
	v->vmx.current = gpa;
	if (gpa == VMCS_NONE)
		return;
	vmx_phys_read(v, gpa + REGION_LAUNCHED, &state, sizeof(state));
	v->vmx.launched = state == 1;
	v->vmx.shadow = vmx_region_revision(v, gpa) & VMCS_SHADOW;
	vmx_phys_read(v, gpa + REGION_FIELDS, &v->vmx.vmcs, sizeof(v->vmx.vmcs));
	for (u32 n = 0; n < VMX_FIELD_COUNT; n++)
		v->vmx.vmcs.value[n] &= vmx_field_mask(n);
}

void vmx_region_clear(struct soft_vcpu *v, u64 gpa)
{
	if (gpa == v->vmx.current)
		vmx_region_switch(v, VMCS_NONE);
	write_launched(v, gpa, false);
}

u64 vmx_region_read_field(struct soft_vcpu *v, u64 gpa, u32 n)
{
	u64 value;

	vmx_phys_read(v, gpa + REGION_FIELDS + n * 8, &value, sizeof(value));
	return value & vmx_field_mask(n);
}

void vmx_region_write_field(struct soft_vcpu *v, u64 gpa, u32 n, u64 value)
{
	vmx_phys_write(v, gpa + REGION_FIELDS + n * 8, &value, sizeof(value));
}
