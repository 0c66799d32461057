/*
 * Why a guest that is itself a hypervisor gets control back from its guest: basic exit reasons of
 * VMX, SDM 3D appendix C. Those that the engines can count.
 */
#ifndef GUISE_ENGINE_VMX_REASONS_H
#define GUISE_ENGINE_VMX_REASONS_H

/* R(X, name, number, text); X is handed through. */
/* clang-format off */
#define VMX_REASONS(R, X) \
	R(X, EXCEPTION_OR_NMI, 0, "exception or NMI") \
	R(X, EXTERNAL_INTERRUPT, 1, "external interrupt") \
	R(X, TRIPLE_FAULT, 2, "triple fault") \
	R(X, INIT, 3, "INIT") \
	R(X, SIPI, 4, "SIPI") \
	R(X, INTERRUPT_WINDOW, 7, "interrupt window") \
	R(X, NMI_WINDOW, 8, "NMI window") \
	R(X, TASK_SWITCH, 9, "task switch") \
	R(X, CPUID, 10, "CPUID") \
	R(X, HLT, 12, "HLT") \
	R(X, INVD, 13, "INVD") \
	R(X, INVLPG, 14, "INVLPG") \
	R(X, RDPMC, 15, "RDPMC") \
	R(X, RDTSC, 16, "RDTSC") \
	R(X, VMCALL, 18, "VMCALL") \
	R(X, VMCLEAR, 19, "VMCLEAR") \
	R(X, VMLAUNCH, 20, "VMLAUNCH") \
	R(X, VMPTRLD, 21, "VMPTRLD") \
	R(X, VMPTRST, 22, "VMPTRST") \
	R(X, VMREAD, 23, "VMREAD") \
	R(X, VMRESUME, 24, "VMRESUME") \
	R(X, VMWRITE, 25, "VMWRITE") \
	R(X, VMXOFF, 26, "VMXOFF") \
	R(X, VMXON, 27, "VMXON") \
	R(X, CR_ACCESS, 28, "control-register access") \
	R(X, MOV_DR, 29, "MOV DR") \
	R(X, IO, 30, "I/O instruction") \
	R(X, RDMSR, 31, "RDMSR") \
	R(X, WRMSR, 32, "WRMSR") \
	R(X, ENTRY_GUEST_STATE, 33, "entry failure, invalid guest state") \
	R(X, ENTRY_MSR_LOADING, 34, "entry failure, MSR loading") \
	R(X, MONITOR_TRAP, 37, "monitor trap flag") \
	R(X, PAUSE, 40, "PAUSE") \
	R(X, TPR_BELOW_THRESHOLD, 43, "TPR below threshold") \
	R(X, APIC_ACCESS, 44, "APIC access") \
	R(X, VIRTUALIZED_EOI, 45, "virtualized EOI") \
	R(X, GDTR_IDTR, 46, "access to GDTR or IDTR") \
	R(X, LDTR_TR, 47, "access to LDTR or TR") \
	R(X, EPT_VIOLATION, 48, "EPT violation") \
	R(X, EPT_MISCONFIGURATION, 49, "EPT misconfiguration") \
	R(X, INVEPT, 50, "INVEPT") \
	R(X, RDTSCP, 51, "RDTSCP") \
	R(X, PREEMPTION_TIMER, 52, "preemption timer expired") \
	R(X, INVVPID, 53, "INVVPID") \
	R(X, WBINVD, 54, "WBINVD") \
	R(X, XSETBV, 55, "XSETBV") \
	R(X, APIC_WRITE, 56, "APIC write") \
	R(X, RDRAND, 57, "RDRAND") \
	R(X, INVPCID, 58, "INVPCID") \
	R(X, VMFUNC, 59, "VMFUNC") \
	R(X, RDSEED, 61, "RDSEED") \
	R(X, PML_FULL, 62, "page-modification log full")
/* clang-format on */

#endif
