#include "engine/soft/vmx/msr_list.h"

#include "engine/soft/system/state.h"
#include "engine/soft/vmx/region.h"

#define MSR_FS_BASE	    0xc0000100u
#define MSR_GS_BASE	    0xc0000101u
#define MSR_SMM_MONITOR_CTL 0x9bu
#define MSR_SMBASE	    0x9eu
#define MSR_X2APIC_FIRST    0x800u
#define MSR_X2APIC_LAST	    0x8ffu
#define APIC_BASE_X2APIC    BIT(10)

/* 16 bytes, aligned: never across a page. */
struct msr_entry {
	u32 index, reserved;
	u64 value;
};

static bool is_x2apic(const struct soft_vcpu *v, u32 index)
{
	return index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST &&
	       (v->msr.apic_base & APIC_BASE_X2APIC);
}

/* SDM 3C 27.4, 28.6: what no area may load. */
static bool may_load(const struct soft_vcpu *v, const struct msr_entry *m)
{
	return !m->reserved && m->index != MSR_FS_BASE && m->index != MSR_GS_BASE &&
	       m->index != MSR_SMM_MONITOR_CTL && m->index != MSR_SMBASE && !is_x2apic(v, m->index);
}

u32 vmx_load_msrs(struct soft_vcpu *v, u64 gpa, u32 count)
{
	struct msr_entry m;

	for (u32 n = 0; n < count; n++, gpa += sizeof(m)) {
		if (n == MSR_LIST_MAX)
			return n + 1;
		vmx_phys_read(v, gpa, &m, sizeof(m));
		if (!may_load(v, &m) || msr_write(v, m.index, m.value, false))
			return n + 1;
	}
	return 0;
}

u32 vmx_store_msrs(struct soft_vcpu *v, u64 gpa, u32 count)
{
	struct msr_entry m;

	for (u32 n = 0; n < count; n++, gpa += sizeof(m)) {
		if (n == MSR_LIST_MAX)
			return n + 1;
		vmx_phys_read(v, gpa, &m, sizeof(m));
		if (m.reserved || m.index == MSR_SMBASE || is_x2apic(v, m.index) ||
		    msr_read(v, m.index, &m.value, false))
			return n + 1;
		vmx_phys_write(v, gpa, &m, sizeof(m));
	}
	return 0;
}
