/* The VMX capability MSRs: SDM 3D appendix A. */
#include "engine/soft/vmx/capabilities.h"

#include "engine/soft/system/features.h"

/* IA32_VMX_BASIC: region of 4 KiB, write-back, INS and OUTS information, TRUE MSRs. */
#define BASIC_SIZE	(4096ull << 32)
#define BASIC_WB	(6ull << 50)
#define BASIC_INS_OUTS	BIT(54)
#define BASIC_TRUE_MSRS BIT(55)

/* IA32_VMX_MISC: EFER.LMA stored at exits, activity states HLT, shutdown, wait-for-SIPI; CR3
 * targets; MSR lists of 512; VMWRITE to every field; injection with instruction length 0. */
#define MISC_STORES_LMA	 BIT(5)
#define MISC_ACTIVITIES	 (7ull << 6)
#define MISC_CR3_TARGETS ((u64)CR3_TARGETS_MAX << 16)
#define MISC_VMWRITE_ALL BIT(29)
#define MISC_LENGTH_0	 BIT(30)

static u64 vmx_allowed_cpu2(struct soft_vcpu *v)
{
	u64 may = CPU2_MAY;

	if (!feature(v, FEATURE_RDTSCP) && !feature(v, FEATURE_RDPID))
		may &= ~CPU2_RDTSCP;
	if (!feature(v, FEATURE_INVPCID))
		may &= ~CPU2_INVPCID;
	if (!feature(v, FEATURE_RDRAND))
		may &= ~CPU2_RDRAND;
	if (!feature(v, FEATURE_RDSEED))
		may &= ~CPU2_RDSEED;
	return may << 32;
}

static u64 controls(u32 must, u64 may)
{
	return must | may << 32;
}

bool vmx_cr0_allowed(const struct soft_vcpu *v, u64 value)
{
	u64 fixed = CR0_FIXED0;

	if (v->vmx.nonroot && vmx_cpu2(v, CPU2_UNRESTRICTED_GUEST))
		fixed &= ~(CR0_PE | CR0_PG);
	return (value & fixed) == fixed;
}

bool vmx_cr4_allowed(const struct soft_vcpu *v, u64 value)
{
	return (value & CR4_VMXE) && !(value & ~v->vmx.cr4_known);
}

void vmx_learn(struct soft_vcpu *v)
{
	v->vmx.allowed_cpu2 = vmx_allowed_cpu2(v);
	v->vmx.cr4_known = cr4_known(v);
	v->vmx.efer_known = efer_known(v);
}

static u64 ept_vpid(void)
{
	u64 vpid = VPID_CAP_INVVPID | VPID_CAP_ADDRESS | VPID_CAP_SINGLE | VPID_CAP_ALL |
		   VPID_CAP_SINGLE_GLOBALS;
	u64 ept = EPT_CAP_EXECUTE_ONLY | EPT_CAP_WALK_4 | EPT_CAP_UC | EPT_CAP_WB | EPT_CAP_2M |
		  EPT_CAP_1G | EPT_CAP_INVEPT | EPT_CAP_AD | EPT_CAP_ADVANCED_INFO |
		  EPT_CAP_INVEPT_SINGLE | EPT_CAP_INVEPT_ALL;

	return vpid | (CPU2_MAY & CPU2_EPT ? ept : 0);
}

bool vmx_capability(struct soft_vcpu *v, u32 index, u64 *value)
{
	switch (index) {
	case 0x480: /* BASIC */
		*value = VMCS_REVISION | BASIC_SIZE | BASIC_WB | BASIC_INS_OUTS | BASIC_TRUE_MSRS;
		return true;
	case 0x481: /* PINBASED_CTLS */
	case 0x48d:
		*value = controls(PIN_MUST, PIN_MAY);
		return true;
	case 0x482: /* PROCBASED_CTLS */
		*value = controls(CPU_MUST_OLD, CPU_MAY);
		return true;
	case 0x483: /* EXIT_CTLS */
		*value = controls(EXIT_MUST_OLD, EXIT_MAY);
		return true;
	case 0x484: /* ENTRY_CTLS */
		*value = controls(ENTRY_MUST_OLD, ENTRY_MAY);
		return true;
	case 0x485: /* MISC */
		*value = TIMER_SHIFT | MISC_STORES_LMA | MISC_ACTIVITIES | MISC_CR3_TARGETS |
			 MISC_VMWRITE_ALL | MISC_LENGTH_0;
		return true;
	case 0x486: /* CR0_FIXED0: bits that are 1 in VMX operation */
		*value = CR0_FIXED0;
		return true;
	case 0x487: /* CR0_FIXED1: bits that may be 1 */
		*value = 0xffffffff;
		return true;
	case 0x488: /* CR4_FIXED0 */
		*value = CR4_VMXE;
		return true;
	case 0x489: /* CR4_FIXED1 */
		*value = cr4_known(v);
		return true;
	case 0x48a: /* VMCS_ENUM */
		*value = vmx_field_highest_index() << 1;
		return true;
	case 0x48b: /* PROCBASED_CTLS2 */
		*value = vmx_allowed_cpu2(v);
		return true;
	case 0x48c: /* EPT_VPID_CAP */
		*value = ept_vpid();
		return true;
	case 0x48e: /* TRUE_PROCBASED_CTLS */
		*value = controls(CPU_MUST, CPU_MAY);
		return true;
	case 0x48f: /* TRUE_EXIT_CTLS */
		*value = controls(EXIT_MUST, EXIT_MAY);
		return true;
	case 0x490: /* TRUE_ENTRY_CTLS */
		*value = controls(ENTRY_MUST, ENTRY_MAY);
		return true;
	case 0x491: /* VMFUNC: exists with that control (SDM 3D A.11) */
		*value = FUNCTIONS_MAY;
		return CPU2_MAY & CPU2_VM_FUNCTIONS;
	default:
		return false;
	}
}
