/* Checks on VM-execution, VM-exit and VM-entry controls: SDM 3C 27.2.1. */
#include "engine/soft/vmx/check.h"

/* Exceptions that push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC. */
#define VECTORS_WITH_ERROR 0x00027d00u

#define BITMAP_BYTES		4096u
#define POSTED_DESCRIPTOR_BYTES 64u

bool vmx_eptp_valid(u64 reserved_pa, u64 eptp)
{
	u64 type = eptp & 7, levels = eptp >> 3 & 7;

	/* Memory type UC or WB, four levels, bit 6 accessed and dirty flags. */
	return (type == 0 || type == 6) && levels == 3 && !(eptp & 0xf80) &&
	       !(eptp & (reserved_pa | 0xfff0000000000000));
}

static bool allowed(u64 value, u64 must, u64 may)
{
	return (value & must) == must && !(value & ~may);
}

static bool page(const struct entry_facts *e, u32 field)
{
	return entry_address_valid(e, entry_get(e, field), BITMAP_BYTES);
}

/* 27.2.1.1, the TPR shadow */
static bool check_tpr(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 threshold = entry_get(e, VMX_TPR_THRESHOLD);

	if (!(entry_get(e, VMX_PROCESSOR_CONTROLS) & CPU_TPR_SHADOW))
		return true;
	ENTRY_CHECK(page(e, VMX_VIRTUAL_APIC_ADDRESS), VMX_VIRTUAL_APIC_ADDRESS,
		    "not aligned to 4 KiB, or beyond the physical-address width");
	if (entry_cpu2(e) & CPU2_VIRTUAL_INTERRUPTS)
		return true;
	ENTRY_CHECK(!(threshold >> 4), VMX_TPR_THRESHOLD, "bits 31:4 are not 0");
	ENTRY_CHECK((entry_cpu2(e) & CPU2_APIC_ACCESSES) || threshold <= e->virtual_tpr >> 4,
		    VMX_TPR_THRESHOLD, "above the TPR of the virtual-APIC page");
	return true;
}

/* 27.2.1.1, process posted interrupts */
static bool check_posted_interrupts(const struct entry_facts *e, struct entry_failure *failure)
{
	if (!(entry_get(e, VMX_PIN_CONTROLS) & PIN_POSTED_INTERRUPTS))
		return true;
	ENTRY_CHECK(entry_cpu2(e) & CPU2_VIRTUAL_INTERRUPTS, VMX_PIN_CONTROLS,
		    "posted interrupts without virtual-interrupt delivery");
	ENTRY_CHECK(entry_get(e, VMX_EXIT_CONTROLS) & EXIT_ACKNOWLEDGE_INTERRUPT, VMX_EXIT_CONTROLS,
		    "posted interrupts, but interrupts are not acknowledged on exit");
	ENTRY_CHECK(!(entry_get(e, VMX_POSTED_INTERRUPT_VECTOR) >> 8), VMX_POSTED_INTERRUPT_VECTOR,
		    "above 255");
	ENTRY_CHECK(entry_address_valid(e, entry_get(e, VMX_POSTED_INTERRUPT_DESCRIPTOR),
					POSTED_DESCRIPTOR_BYTES),
		    VMX_POSTED_INTERRUPT_DESCRIPTOR,
		    "not aligned to 64 bytes, or beyond the physical-address width");
	return true;
}

/* 27.2.1.1, APIC virtualization but for the TPR shadow */
static bool check_apic(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 cpu2 = entry_cpu2(e);
	u64 shadowed = CPU2_X2APIC_MODE | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS;

	ENTRY_CHECK(!(cpu2 & CPU2_APIC_ACCESSES) || page(e, VMX_APIC_ACCESS_ADDRESS),
		    VMX_APIC_ACCESS_ADDRESS,
		    "not aligned to 4 KiB, or beyond the physical-address width");
	ENTRY_CHECK((entry_get(e, VMX_PROCESSOR_CONTROLS) & CPU_TPR_SHADOW) || !(cpu2 & shadowed),
		    VMX_SECONDARY_CONTROLS, "APIC virtualization without a TPR shadow");
	ENTRY_CHECK(!(cpu2 & CPU2_X2APIC_MODE) || !(cpu2 & CPU2_APIC_ACCESSES),
		    VMX_SECONDARY_CONTROLS, "APIC accesses and x2APIC mode both virtualized");
	ENTRY_CHECK(!(cpu2 & CPU2_VIRTUAL_INTERRUPTS) ||
			(entry_get(e, VMX_PIN_CONTROLS) & PIN_EXTERNAL_INTERRUPT),
		    VMX_PIN_CONTROLS,
		    "virtual-interrupt delivery without external-interrupt exiting");
	return check_posted_interrupts(e, failure);
}

/* 27.2.1.1, secondary controls and what belongs to them */
static bool check_secondary(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 cpu2 = entry_cpu2(e);

	ENTRY_CHECK(!(cpu2 & CPU2_VPID) || entry_get(e, VMX_VPID), VMX_VPID,
		    "0 with VPIDs enabled");
	ENTRY_CHECK(!(cpu2 & CPU2_EPT) ||
			vmx_eptp_valid(e->reserved_pa, entry_get(e, VMX_EPT_POINTER)),
		    VMX_EPT_POINTER, "memory type, walk length or reserved bits");
	if (cpu2 & CPU2_PML) {
		ENTRY_CHECK(cpu2 & CPU2_EPT, VMX_SECONDARY_CONTROLS,
			    "page-modification logging without EPT");
		ENTRY_CHECK(page(e, VMX_PML_ADDRESS), VMX_PML_ADDRESS,
			    "not aligned to 4 KiB, or beyond the physical-address width");
	}
	ENTRY_CHECK(!(cpu2 & CPU2_MODE_BASED_EPT) || (cpu2 & CPU2_EPT), VMX_SECONDARY_CONTROLS,
		    "mode-based execute control without EPT");
	ENTRY_CHECK(!(cpu2 & CPU2_UNRESTRICTED_GUEST) || (cpu2 & CPU2_EPT), VMX_SECONDARY_CONTROLS,
		    "unrestricted guest without EPT");
	if (cpu2 & CPU2_VM_FUNCTIONS) {
		u64 functions = entry_get(e, VMX_VM_FUNCTION_CONTROLS);
		ENTRY_CHECK(!(functions & ~FUNCTIONS_MAY), VMX_VM_FUNCTION_CONTROLS,
			    "reserved bits are not 0");
		if (functions & FUNCTION_EPTP_SWITCHING) {
			ENTRY_CHECK(cpu2 & CPU2_EPT, VMX_VM_FUNCTION_CONTROLS,
				    "EPTP switching without EPT");
			ENTRY_CHECK(page(e, VMX_EPTP_LIST_ADDRESS), VMX_EPTP_LIST_ADDRESS,
				    "not aligned to 4 KiB, or beyond the physical-address width");
		}
	}
	if (cpu2 & CPU2_VMCS_SHADOWING) {
		ENTRY_CHECK(page(e, VMX_VMREAD_BITMAP), VMX_VMREAD_BITMAP,
			    "not aligned to 4 KiB, or beyond the physical-address width");
		ENTRY_CHECK(page(e, VMX_VMWRITE_BITMAP), VMX_VMWRITE_BITMAP,
			    "not aligned to 4 KiB, or beyond the physical-address width");
	}
	return true;
}

/* 27.2.1.1 */
static bool check_execution(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 pin = entry_get(e, VMX_PIN_CONTROLS), cpu = entry_get(e, VMX_PROCESSOR_CONTROLS);

	ENTRY_CHECK(allowed(pin, PIN_MUST, PIN_MAY), VMX_PIN_CONTROLS,
		    "bits not allowed by IA32_VMX_TRUE_PINBASED_CTLS");
	ENTRY_CHECK(allowed(cpu, CPU_MUST, CPU_MAY), VMX_PROCESSOR_CONTROLS,
		    "bits not allowed by IA32_VMX_TRUE_PROCBASED_CTLS");
	ENTRY_CHECK(allowed(entry_cpu2(e), (u32)e->allowed_cpu2, e->allowed_cpu2 >> 32),
		    VMX_SECONDARY_CONTROLS, "bits not allowed by IA32_VMX_PROCBASED_CTLS2");
	ENTRY_CHECK(entry_get(e, VMX_CR3_TARGET_COUNT) <= CR3_TARGETS_MAX, VMX_CR3_TARGET_COUNT,
		    "more than 4");
	if (cpu & CPU_IO_BITMAPS) {
		ENTRY_CHECK(page(e, VMX_IO_BITMAP_A), VMX_IO_BITMAP_A,
			    "not aligned to 4 KiB, or beyond the physical-address width");
		ENTRY_CHECK(page(e, VMX_IO_BITMAP_B), VMX_IO_BITMAP_B,
			    "not aligned to 4 KiB, or beyond the physical-address width");
	}
	ENTRY_CHECK(!(cpu & CPU_MSR_BITMAPS) || page(e, VMX_MSR_BITMAP), VMX_MSR_BITMAP,
		    "not aligned to 4 KiB, or beyond the physical-address width");
	if (!check_tpr(e, failure))
		return false;
	ENTRY_CHECK((pin & PIN_NMI) || !(pin & PIN_VIRTUAL_NMIS), VMX_PIN_CONTROLS,
		    "virtual NMIs without NMI exiting");
	ENTRY_CHECK((pin & PIN_VIRTUAL_NMIS) || !(cpu & CPU_NMI_WINDOW), VMX_PROCESSOR_CONTROLS,
		    "NMI-window exiting without virtual NMIs");
	return check_apic(e, failure) && check_secondary(e, failure);
}

/* An area of MSRs: 16 bytes each. */
static bool msr_area(const struct entry_facts *e, u32 address, u32 count)
{
	u64 first = entry_get(e, address), bytes = entry_get(e, count) * 16;

	return !bytes ||
	       (entry_address_valid(e, first, 16) && entry_address_valid(e, first + bytes - 1, 1));
}

/* 27.2.1.2 */
static bool check_exit(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 exit = entry_get(e, VMX_EXIT_CONTROLS);

	ENTRY_CHECK(allowed(exit, EXIT_MUST, EXIT_MAY), VMX_EXIT_CONTROLS,
		    "bits not allowed by IA32_VMX_TRUE_EXIT_CTLS");
	ENTRY_CHECK((entry_get(e, VMX_PIN_CONTROLS) & PIN_PREEMPTION_TIMER) ||
			!(exit & EXIT_SAVE_TIMER),
		    VMX_EXIT_CONTROLS, "the preemption timer is to be saved, but not active");
	ENTRY_CHECK(msr_area(e, VMX_EXIT_MSR_STORE_ADDRESS, VMX_EXIT_MSR_STORE_COUNT),
		    VMX_EXIT_MSR_STORE_ADDRESS, "not aligned to 16 bytes, or beyond the width");
	ENTRY_CHECK(msr_area(e, VMX_EXIT_MSR_LOAD_ADDRESS, VMX_EXIT_MSR_LOAD_COUNT),
		    VMX_EXIT_MSR_LOAD_ADDRESS, "not aligned to 16 bytes, or beyond the width");
	return true;
}

/* 27.2.1.3, the event to be injected */
static bool check_injection(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 info = entry_get(e, VMX_ENTRY_INTERRUPTION_INFO);
	u64 type = INFO_TYPE(info), vector = INFO_VECTOR(info);
	u32 at = VMX_ENTRY_INTERRUPTION_INFO;
	bool protected = !entry_unrestricted(e) || (entry_get(e, VMX_GUEST_CR0) & BIT(0));
	bool pushes = type == INFO_HARDWARE_EXCEPTION && protected && vector < 32 &&
		      (VECTORS_WITH_ERROR >> vector & 1);

	if (!(info & INFO_VALID))
		return true;
	ENTRY_CHECK(type != 1, at, "reserved type 1");
	ENTRY_CHECK(type != INFO_NMI || vector == 2, at, "an NMI's vector is 2");
	ENTRY_CHECK(type != INFO_HARDWARE_EXCEPTION || vector < 32, at,
		    "an exception's vector is below 32");
	ENTRY_CHECK(type != INFO_OTHER || vector == 0, at, "type 7 with a vector");
	ENTRY_CHECK(!!(info & INFO_ERROR) == pushes, at,
		    "error code where there is none, or none where there is one");
	ENTRY_CHECK(!(info & INFO_RESERVED), at, "reserved bits are not 0");
	ENTRY_CHECK(!(info & INFO_ERROR) || !(entry_get(e, VMX_ENTRY_EXCEPTION_ERROR) >> 16),
		    VMX_ENTRY_EXCEPTION_ERROR, "bits 31:16 are not 0");
	bool software = type >= INFO_SOFTWARE_INTERRUPT && type <= INFO_SOFTWARE_EXCEPTION;
	ENTRY_CHECK(!software || entry_get(e, VMX_ENTRY_INSTRUCTION_LENGTH) <= 15,
		    VMX_ENTRY_INSTRUCTION_LENGTH, "above 15");
	return true;
}

/* 27.2.1.3 */
static bool check_entry(const struct entry_facts *e, struct entry_failure *failure)
{
	ENTRY_CHECK(allowed(entry_get(e, VMX_ENTRY_CONTROLS), ENTRY_MUST, ENTRY_MAY),
		    VMX_ENTRY_CONTROLS, "bits not allowed by IA32_VMX_TRUE_ENTRY_CTLS");
	if (!check_injection(e, failure))
		return false;
	ENTRY_CHECK(msr_area(e, VMX_ENTRY_MSR_LOAD_ADDRESS, VMX_ENTRY_MSR_LOAD_COUNT),
		    VMX_ENTRY_MSR_LOAD_ADDRESS, "not aligned to 16 bytes, or beyond the width");
	return true;
}

bool vmx_check_controls(const struct entry_facts *e, struct entry_failure *failure)
{
	return check_execution(e, failure) && check_exit(e, failure) && check_entry(e, failure);
}
