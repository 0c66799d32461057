/*
 * The bits of VMX controls and the formats of fields: SDM 3C 25.6 to 25.9, appendix A.
 */
#ifndef GUISE_SOFT_VMX_CONTROLS_H
#define GUISE_SOFT_VMX_CONTROLS_H

#include "base/types.h"
#include "engine/vmx_reasons.h"

/* Pin-based, table 25-5 */
#define PIN_EXTERNAL_INTERRUPT BIT(0)
#define PIN_NMI		       BIT(3)
#define PIN_VIRTUAL_NMIS       BIT(5)
#define PIN_PREEMPTION_TIMER   BIT(6)
#define PIN_POSTED_INTERRUPTS  BIT(7)

/* Primary processor-based, table 25-6 */
#define CPU_INTERRUPT_WINDOW BIT(2)
#define CPU_TSC_OFFSETTING   BIT(3)
#define CPU_HLT		     BIT(7)
#define CPU_INVLPG	     BIT(9)
#define CPU_MWAIT	     BIT(10)
#define CPU_RDPMC	     BIT(11)
#define CPU_RDTSC	     BIT(12)
#define CPU_CR3_LOAD	     BIT(15)
#define CPU_CR3_STORE	     BIT(16)
#define CPU_CR8_LOAD	     BIT(19)
#define CPU_CR8_STORE	     BIT(20)
#define CPU_TPR_SHADOW	     BIT(21)
#define CPU_NMI_WINDOW	     BIT(22)
#define CPU_MOV_DR	     BIT(23)
#define CPU_IO		     BIT(24) /* unconditional I/O exiting */
#define CPU_IO_BITMAPS	     BIT(25)
#define CPU_MONITOR_TRAP     BIT(27)
#define CPU_MSR_BITMAPS	     BIT(28)
#define CPU_MONITOR	     BIT(29)
#define CPU_PAUSE	     BIT(30)
#define CPU_SECONDARY	     BIT(31)

/* Secondary processor-based, table 25-7 */
#define CPU2_APIC_ACCESSES	BIT(0)
#define CPU2_EPT		BIT(1)
#define CPU2_DESCRIPTOR_TABLES	BIT(2)
#define CPU2_RDTSCP		BIT(3)
#define CPU2_X2APIC_MODE	BIT(4)
#define CPU2_VPID		BIT(5)
#define CPU2_WBINVD		BIT(6)
#define CPU2_UNRESTRICTED_GUEST BIT(7)
#define CPU2_APIC_REGISTERS	BIT(8)
#define CPU2_VIRTUAL_INTERRUPTS BIT(9) /* virtual-interrupt delivery */
#define CPU2_PAUSE_LOOP		BIT(10)
#define CPU2_RDRAND		BIT(11)
#define CPU2_INVPCID		BIT(12)
#define CPU2_VM_FUNCTIONS	BIT(13)
#define CPU2_VMCS_SHADOWING	BIT(14)
#define CPU2_RDSEED		BIT(16)
#define CPU2_PML		BIT(17) /* page-modification logging */
#define CPU2_MODE_BASED_EPT	BIT(22) /* mode-based execute control for EPT */
#define CPU2_TSC_SCALING	BIT(25)

/* VM-exit controls, table 25-13 */
#define EXIT_SAVE_DEBUG		   BIT(2)
#define EXIT_HOST_64		   BIT(9)
#define EXIT_ACKNOWLEDGE_INTERRUPT BIT(15)
#define EXIT_SAVE_PAT		   BIT(18)
#define EXIT_LOAD_PAT		   BIT(19)
#define EXIT_SAVE_EFER		   BIT(20)
#define EXIT_LOAD_EFER		   BIT(21)
#define EXIT_SAVE_TIMER		   BIT(22)

/* VM-entry controls, table 25-15 */
#define ENTRY_LOAD_DEBUG BIT(2)
#define ENTRY_IA32E	 BIT(9)
#define ENTRY_LOAD_PAT	 BIT(14)
#define ENTRY_LOAD_EFER	 BIT(15)

/* VM functions, table 25-9 */
#define FUNCTION_EPTP_SWITCHING BIT(0)
#define EPTP_LIST_ENTRIES	512u

/* What each set of controls must have, and must have without the TRUE MSRs, and may have: SDM 3D
 * A.3 to A.5. */
#define PIN_MUST 0x00000016u
#define PIN_MAY                                                                                    \
	(PIN_MUST | PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMIS | PIN_PREEMPTION_TIMER |   \
	 PIN_POSTED_INTERRUPTS)
#define CPU_MUST     0x04006172u
#define CPU_MUST_OLD 0x0401e172u
#define CPU_MAY                                                                                    \
	(CPU_MUST_OLD | CPU_INTERRUPT_WINDOW | CPU_TSC_OFFSETTING | CPU_HLT | CPU_INVLPG |         \
	 CPU_MWAIT | CPU_RDPMC | CPU_RDTSC | CPU_CR3_LOAD | CPU_CR3_STORE | CPU_CR8_LOAD |         \
	 CPU_CR8_STORE | CPU_TPR_SHADOW | CPU_NMI_WINDOW | CPU_MOV_DR | CPU_IO | CPU_IO_BITMAPS |  \
	 CPU_MONITOR_TRAP | CPU_MSR_BITMAPS | CPU_MONITOR | CPU_PAUSE | CPU_SECONDARY)
#define CPU2_MAY                                                                                   \
	(CPU2_APIC_ACCESSES | CPU2_X2APIC_MODE | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS |   \
	 CPU2_EPT | CPU2_UNRESTRICTED_GUEST | CPU2_VM_FUNCTIONS | CPU2_DESCRIPTOR_TABLES |         \
	 CPU2_RDTSCP | CPU2_VPID | CPU2_WBINVD | CPU2_PAUSE_LOOP | CPU2_RDRAND | CPU2_INVPCID |    \
	 CPU2_VMCS_SHADOWING | CPU2_RDSEED | CPU2_PML | CPU2_MODE_BASED_EPT | CPU2_TSC_SCALING)
#define EXIT_MUST     0x00036dfbu
#define EXIT_MUST_OLD 0x00036dffu
#define EXIT_MAY                                                                                   \
	(EXIT_MUST_OLD | EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACKNOWLEDGE_INTERRUPT |             \
	 EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER | EXIT_SAVE_TIMER)
#define ENTRY_MUST     0x000011fbu
#define ENTRY_MUST_OLD 0x000011ffu
#define ENTRY_MAY                                                                                  \
	(ENTRY_MUST_OLD | ENTRY_LOAD_DEBUG | ENTRY_IA32E | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER)
#define FUNCTIONS_MAY FUNCTION_EPTP_SWITCHING

/*
 * Interruption information (SDM 3C 25.8.3, 25.9.2, 25.9.3):
 *   31 valid, 12 NMI unblocking due to IRET, 11 error code, 10:8 type, 7:0 vector
 */
#define INFO_VALID	    BIT(31)
#define INFO_NMI_UNBLOCKING BIT(12)
#define INFO_ERROR	    BIT(11)
#define INFO_VECTOR(i)	    ((i)&0xff)
#define INFO_TYPE(i)	    ((i) >> 8 & 7)
#define INFO_RESERVED	    0x7ffff000u /* of what VM entry injects */

enum info_type {
	INFO_INTERRUPT = 0,
	INFO_NMI = 2,
	INFO_HARDWARE_EXCEPTION = 3,
	INFO_SOFTWARE_INTERRUPT = 4,
	INFO_PRIVILEGED_EXCEPTION = 5, /* INT1 */
	INFO_SOFTWARE_EXCEPTION = 6,   /* INT3, INTO */
	INFO_OTHER = 7		       /* vector 0: a pending MTF VM exit */
};

/* Guest interrupt status, 25.4.2: 7:0 RVI, 15:8 SVI */
#define STATUS_RVI(s) ((s)&0xff)
#define STATUS_SVI(s) ((s) >> 8 & 0xff)

/* Interruptibility state, table 25-3 */
#define BLOCKED_STI    BIT(0)
#define BLOCKED_MOV_SS BIT(1)
#define BLOCKED_SMI    BIT(2)
#define BLOCKED_NMI    BIT(3)

enum vmx_activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI };

/* Pending debug exceptions, table 25-4 */
#define PENDING_ENABLED_BREAKPOINT BIT(12)
#define PENDING_BS		   BIT(14)
#define PENDING_RESERVED	   (~(0xfull | PENDING_ENABLED_BREAKPOINT | PENDING_BS))

#define CR3_TARGETS_MAX 4u
#define MSR_LIST_MAX	512u /* entries, IA32_VMX_MISC 27:25 */

enum vmx_reason {
#define REASON(X, name, number, text) REASON_##name = number,
	VMX_REASONS(REASON, )
#undef REASON
	    REASON_COUNT
};

#define REASON_ENTRY_FAILURE BIT(31)

/* Numbers of VM-instruction errors, SDM 3C 31.4 */
enum vmx_error {
	ERROR_VMCALL_IN_ROOT = 1,
	ERROR_VMCLEAR_ADDRESS = 2,
	ERROR_VMCLEAR_VMXON = 3,
	ERROR_VMLAUNCH_NOT_CLEAR = 4,
	ERROR_VMRESUME_NOT_LAUNCHED = 5,
	ERROR_ENTRY_CONTROLS = 7,
	ERROR_ENTRY_HOST_STATE = 8,
	ERROR_VMPTRLD_ADDRESS = 9,
	ERROR_VMPTRLD_VMXON = 10,
	ERROR_VMPTRLD_REVISION = 11,
	ERROR_NO_FIELD = 12,
	ERROR_VMXON_IN_ROOT = 15,
	ERROR_ENTRY_MOV_SS = 26,
	ERROR_INVALID_OPERAND = 28
};

/* Reasons for a VMX abort, SDM 3C 28.7 */
enum vmx_abort { ABORT_SAVE_MSRS = 1, ABORT_HOST_PDPTES = 2, ABORT_LOAD_MSRS = 4 };

#endif
