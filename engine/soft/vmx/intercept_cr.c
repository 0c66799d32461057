/* Control registers in VMX non-root operation: SDM 3C 26.1.3, 26.3. Inside. */
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/vmx/vmx.h"

/* Exit qualification, table 28-3: 3:0 register, 5:4 what, 6 LMSW from memory, 11:8 general
 * register, 31:16 LMSW's source. */
enum { ACCESS_MOV_TO, ACCESS_MOV_FROM, ACCESS_CLTS, ACCESS_LMSW };

#define LMSW_MEMORY BIT(6)
#define LMSW_BITS   (CR0_PE | CR0_MP | CR0_EM | CR0_TS)

static u64 qualification(u32 cr, u32 access, u32 reg)
{
	return cr | access << 4 | (u64)reg << 8;
}

static _Noreturn void leave(struct soft_vcpu *v, const struct insn *i, u32 access)
{
	vmx_exit_insn(v, i, REASON_CR_ACCESS, qualification(i->reg, access, i->rm));
}

/* Bits that the hypervisor owns, and wants to know of when they differ from what it shows. */
static u64 write_masked(struct soft_vcpu *v, const struct insn *i, u64 value, u64 mask, u64 shadow,
			u64 now)
{
	if ((value ^ shadow) & mask)
		leave(v, i, ACCESS_MOV_TO);
	return (value & ~mask) | (now & mask);
}

static bool is_cr3_target(const struct soft_vcpu *v, u64 value)
{
	for (u32 n = 0; n < vmx_get(v, VMX_CR3_TARGET_COUNT); n++)
		if (vmx_get(v, VMX_CR3_TARGET0 + n) == value)
			return true;
	return false;
}

u64 vmx_on_write_cr(struct soft_vcpu *v, const struct insn *i, u64 value)
{
	switch (i->reg) {
	case 0:
		return write_masked(v, i, value, vmx_get(v, VMX_CR0_MASK),
				    vmx_get(v, VMX_CR0_SHADOW), v->cr0);
	case 3:
		if (vmx_cpu(v, CPU_CR3_LOAD) && !is_cr3_target(v, value))
			leave(v, i, ACCESS_MOV_TO);
		break;
	case 4:
		return write_masked(v, i, value, vmx_get(v, VMX_CR4_MASK),
				    vmx_get(v, VMX_CR4_SHADOW), v->cr4);
	case 8:
		if (vmx_cpu(v, CPU_CR8_LOAD))
			leave(v, i, ACCESS_MOV_TO);
		break;
	}
	return value;
}

void vmx_on_read_cr(struct soft_vcpu *v, const struct insn *i, u32 cr)
{
	if (cr == 3 ? vmx_cpu(v, CPU_CR3_STORE) : cr == 8 && vmx_cpu(v, CPU_CR8_STORE))
		leave(v, i, ACCESS_MOV_FROM);
}

/* LMSW sets PE, but never clears it; so it leaves for PE only to set it. @value: the source's 16
 * bits. Returns those of LMSW_BITS that it may load. */
u64 vmx_on_lmsw(struct soft_vcpu *v, const struct insn *i, u64 value)
{
	u64 mask = vmx_get(v, VMX_CR0_MASK), shadow = vmx_get(v, VMX_CR0_SHADOW);
	u64 differs = (value ^ shadow) & mask & LMSW_BITS;

	if (!(value & CR0_PE))
		differs &= ~CR0_PE;
	if (differs) {
		u64 linear = 0;
		if (i->is_mem)
			linear = seg_linear(v, (enum x86_seg)i->seg, insn_ea(v, i), 2, ACCESS_READ);
		vmx_exit(v, &(struct vmx_exit){
				.reason = REASON_CR_ACCESS,
				.length = i->length,
				.linear = linear,
				.qualification = qualification(0, ACCESS_LMSW, 0) |
						 (i->is_mem ? LMSW_MEMORY : 0) | value << 16,
			    });
	}
	return ((value & ~mask) | (v->cr0 & mask)) & LMSW_BITS;
}

bool vmx_on_clts(struct soft_vcpu *v, const struct insn *i)
{
	bool owned = vmx_get(v, VMX_CR0_MASK) & CR0_TS;

	if (owned && (vmx_get(v, VMX_CR0_SHADOW) & CR0_TS))
		vmx_exit_insn(v, i, REASON_CR_ACCESS, qualification(0, ACCESS_CLTS, 0));
	return !owned;
}
