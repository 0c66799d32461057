/* What the VMX capability MSRs say (SDM 3D appendix A), in the form that checks want. Inside. */
#ifndef GUISE_SOFT_VMX_CAPABILITIES_H
#define GUISE_SOFT_VMX_CAPABILITIES_H

#include "engine/soft/vmx/vmx.h"

#define VMCS_REVISION 0x47530001u /* bit 31 clear */
#define VMCS_SHADOW   BIT(31)	  /* in a region's revision: a shadow VMCS */

#define TIMER_SHIFT 5u /* the preemption timer counts once in 2^5 TSC ticks */

#define CR0_FIXED0 (CR0_PE | CR0_NE | CR0_PG)

/* CR0 bits that VM entries and exits leave alone: SDM 3C 27.3.2.1, 28.5.1. */
#define CR0_RESERVED 0x1ffaffc0ull /* 28:19, 17, 15:6 */
#define CR0_KEPT     (CR0_ET | CR0_NW | CR0_CD | CR0_RESERVED)

/* IA32_VMX_EPT_VPID_CAP, SDM 3D A.10 */
#define EPT_CAP_EXECUTE_ONLY	BIT(0)
#define EPT_CAP_WALK_4		BIT(6)
#define EPT_CAP_UC		BIT(8)
#define EPT_CAP_WB		BIT(14)
#define EPT_CAP_2M		BIT(16)
#define EPT_CAP_1G		BIT(17)
#define EPT_CAP_INVEPT		BIT(20)
#define EPT_CAP_AD		BIT(21)
#define EPT_CAP_ADVANCED_INFO	BIT(22) /* 11:9 of a violation's qualification */
#define EPT_CAP_INVEPT_SINGLE	BIT(25)
#define EPT_CAP_INVEPT_ALL	BIT(26)
#define VPID_CAP_INVVPID	BIT(32)
#define VPID_CAP_ADDRESS	BIT(40)
#define VPID_CAP_SINGLE		BIT(41)
#define VPID_CAP_ALL		BIT(42)
#define VPID_CAP_SINGLE_GLOBALS BIT(43)

/** Before VMXON: finds out what depends on CPUID. */
void vmx_learn(struct soft_vcpu *v);

/** Whether @gpa is aligned to 4 KiB and within MAXPHYADDR. */
static inline bool vmx_page_valid(u64 reserved_pa, u64 gpa)
{
	return !(gpa & (0xfff | reserved_pa | 0xfff0000000000000));
}

#endif
