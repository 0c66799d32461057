/* Numbers of VMX that the vmx guests use: VMCS fields (SDM vol. 3D appendix B), controls, exit reasons. */
#ifndef GUISE_GUESTS_VMX_H
#define GUISE_GUESTS_VMX_H

#define CR4_VMXE 0x2000

#define MSR_FEATURE_CONTROL 0x3a
#define MSR_VMX_BASIC 0x480
#define MSR_VMX_PIN 0x481
#define MSR_VMX_CPU 0x482
#define MSR_VMX_EXIT 0x483
#define MSR_VMX_ENTRY 0x484
#define MSR_VMX_CR0_FIXED0 0x486
#define MSR_VMX_CR4_FIXED0 0x488
#define MSR_VMX_CR4_FIXED1 0x489
#define MSR_VMX_CPU2 0x48b
#define MSR_VMX_TRUE_PIN 0x48d
#define MSR_VMX_TRUE_CPU 0x48e
#define MSR_VMX_TRUE_EXIT 0x48f
#define MSR_VMX_TRUE_ENTRY 0x490

/* Fields */
#define VPID 0x0000
#define POSTED_INTERRUPT_VECTOR 0x0002
#define GUEST_ES_SELECTOR 0x0800
#define GUEST_CS_SELECTOR 0x0802
#define GUEST_SS_SELECTOR 0x0804
#define GUEST_DS_SELECTOR 0x0806
#define GUEST_FS_SELECTOR 0x0808
#define GUEST_GS_SELECTOR 0x080a
#define GUEST_LDTR_SELECTOR 0x080c
#define GUEST_TR_SELECTOR 0x080e
#define GUEST_INTERRUPT_STATUS 0x0810
#define PML_INDEX 0x0812
#define HOST_ES_SELECTOR 0x0c00
#define HOST_CS_SELECTOR 0x0c02
#define HOST_SS_SELECTOR 0x0c04
#define HOST_DS_SELECTOR 0x0c06
#define HOST_FS_SELECTOR 0x0c08
#define HOST_GS_SELECTOR 0x0c0a
#define HOST_TR_SELECTOR 0x0c0c
#define IO_BITMAP_A 0x2000
#define IO_BITMAP_B 0x2002
#define MSR_BITMAP 0x2004
#define EXIT_MSR_STORE_ADDRESS 0x2006
#define EXIT_MSR_LOAD_ADDRESS 0x2008
#define ENTRY_MSR_LOAD_ADDRESS 0x200a
#define PML_ADDRESS 0x200e
#define TSC_OFFSET 0x2010
#define VIRTUAL_APIC_ADDRESS 0x2012
#define APIC_ACCESS_ADDRESS 0x2014
#define POSTED_INTERRUPT_DESCRIPTOR 0x2016
#define VM_FUNCTION_CONTROLS 0x2018
#define EPT_POINTER 0x201a
#define EOI_EXIT_BITMAP0 0x201c
#define EOI_EXIT_BITMAP1 0x201e
#define EOI_EXIT_BITMAP2 0x2020
#define EOI_EXIT_BITMAP3 0x2022
#define EPTP_LIST_ADDRESS 0x2024
#define VMREAD_BITMAP 0x2026
#define VMWRITE_BITMAP 0x2028
#define TSC_MULTIPLIER 0x2032
#define GUEST_PHYSICAL_ADDRESS 0x2400
#define VMCS_LINK_POINTER 0x2800
#define GUEST_DEBUGCTL 0x2802
#define GUEST_PAT 0x2804
#define GUEST_EFER 0x2806
#define HOST_PAT 0x2c00
#define HOST_EFER 0x2c02
#define PIN_CONTROLS 0x4000
#define CPU_CONTROLS 0x4002
#define EXCEPTION_BITMAP 0x4004
#define PAGE_FAULT_MASK 0x4006
#define PAGE_FAULT_MATCH 0x4008
#define CR3_TARGET_COUNT 0x400a
#define EXIT_CONTROLS 0x400c
#define EXIT_MSR_STORE_COUNT 0x400e
#define EXIT_MSR_LOAD_COUNT 0x4010
#define ENTRY_CONTROLS 0x4012
#define ENTRY_MSR_LOAD_COUNT 0x4014
#define ENTRY_INTR_INFO 0x4016
#define ENTRY_ERROR 0x4018
#define ENTRY_LENGTH 0x401a
#define TPR_THRESHOLD 0x401c
#define CPU2_CONTROLS 0x401e
#define PLE_GAP 0x4020
#define PLE_WINDOW 0x4022
#define VM_INSTRUCTION_ERROR 0x4400
#define EXIT_REASON 0x4402
#define EXIT_INTR_INFO 0x4404
#define EXIT_INTR_ERROR 0x4406
#define IDT_VECTORING_INFO 0x4408
#define IDT_VECTORING_ERROR 0x440a
#define EXIT_LENGTH 0x440c
#define EXIT_INFORMATION 0x440e
#define GUEST_ES_LIMIT 0x4800
#define GUEST_LDTR_LIMIT 0x480c
#define GUEST_TR_LIMIT 0x480e
#define GUEST_GDTR_LIMIT 0x4810
#define GUEST_IDTR_LIMIT 0x4812
#define GUEST_ES_ACCESS 0x4814
#define GUEST_CS_ACCESS 0x4816
#define GUEST_SS_ACCESS 0x4818
#define GUEST_LDTR_ACCESS 0x4820
#define GUEST_TR_ACCESS 0x4822
#define GUEST_INTERRUPTIBILITY 0x4824
#define GUEST_ACTIVITY 0x4826
#define GUEST_SYSENTER_CS 0x482a
#define PREEMPTION_TIMER 0x482e
#define HOST_SYSENTER_CS 0x4c00
#define CR0_MASK 0x6000
#define CR4_MASK 0x6002
#define CR0_SHADOW 0x6004
#define CR4_SHADOW 0x6006
#define CR3_TARGET0 0x6008
#define EXIT_QUALIFICATION 0x6400
#define GUEST_LINEAR_ADDRESS 0x640a
#define GUEST_CR0 0x6800
#define GUEST_CR3 0x6802
#define GUEST_CR4 0x6804
#define GUEST_ES_BASE 0x6806
#define GUEST_LDTR_BASE 0x6812
#define GUEST_TR_BASE 0x6814
#define GUEST_GDTR_BASE 0x6816
#define GUEST_IDTR_BASE 0x6818
#define GUEST_DR7 0x681a
#define GUEST_RSP 0x681c
#define GUEST_RIP 0x681e
#define GUEST_RFLAGS 0x6820
#define GUEST_PENDING_DEBUG 0x6822
#define GUEST_SYSENTER_ESP 0x6824
#define GUEST_SYSENTER_EIP 0x6826
#define HOST_CR0 0x6c00
#define HOST_CR3 0x6c02
#define HOST_CR4 0x6c04
#define HOST_FS_BASE 0x6c06
#define HOST_GS_BASE 0x6c08
#define HOST_TR_BASE 0x6c0a
#define HOST_GDTR_BASE 0x6c0c
#define HOST_IDTR_BASE 0x6c0e
#define HOST_SYSENTER_ESP 0x6c10
#define HOST_SYSENTER_EIP 0x6c12
#define HOST_RSP 0x6c14
#define HOST_RIP 0x6c16

/* Controls */
#define PIN_INTERRUPT 0x1
#define PIN_NMI 0x8
#define PIN_VIRTUAL_NMI 0x20
#define PIN_TIMER 0x40
#define PIN_POSTED 0x80
#define CPU_INT_WINDOW 0x4
#define CPU_TSC_OFFSETTING 0x8
#define CPU_HLT 0x80
#define CPU_INVLPG 0x200
#define CPU_RDPMC 0x800
#define CPU_RDTSC 0x1000
#define CPU_CR3_LOAD 0x8000
#define CPU_CR3_STORE 0x10000
#define CPU_CR8_LOAD 0x80000
#define CPU_CR8_STORE 0x100000
#define CPU_TPR_SHADOW 0x200000
#define CPU_NMI_WINDOW 0x400000
#define CPU_MOV_DR 0x800000
#define CPU_IO 0x1000000
#define CPU_IO_BITMAPS 0x2000000
#define CPU_MTF 0x8000000
#define CPU_MSR_BITMAPS 0x10000000
#define CPU_PAUSE 0x40000000
#define CPU_SECONDARY 0x80000000
#define CPU2_APIC_ACCESS 0x1
#define CPU2_EPT 0x2
#define CPU2_TABLES 0x4
#define CPU2_RDTSCP 0x8
#define CPU2_X2APIC 0x10
#define CPU2_VPID 0x20
#define CPU2_WBINVD 0x40
#define CPU2_UNRESTRICTED 0x80
#define CPU2_APIC_REGISTERS 0x100
#define CPU2_VIRTUAL_INTERRUPTS 0x200
#define CPU2_PAUSE_LOOP 0x400
#define CPU2_RDRAND 0x800
#define CPU2_INVPCID 0x1000
#define CPU2_VMFUNC 0x2000
#define CPU2_SHADOWING 0x4000
#define CPU2_RDSEED 0x10000
#define CPU2_PML 0x20000
#define CPU2_MBEC 0x400000
#define CPU2_TSC_SCALING 0x2000000
#define EXIT_SAVE_DEBUG 0x4
#define EXIT_HOST_64 0x200
#define EXIT_ACK 0x8000
#define EXIT_SAVE_PAT 0x40000
#define EXIT_LOAD_PAT 0x80000
#define EXIT_SAVE_EFER 0x100000
#define EXIT_LOAD_EFER 0x200000
#define EXIT_SAVE_TIMER 0x400000
#define ENTRY_LOAD_DEBUG 0x4
#define ENTRY_IA32E 0x200
#define ENTRY_LOAD_PAT 0x4000
#define ENTRY_LOAD_EFER 0x8000

/* A guest's guest in the mode of the guest itself, and back */
#if BITS == 64
#define OWN_EXIT EXIT_HOST_64
#define OWN_ENTRY ENTRY_IA32E
#define OWN_CODE 0xa09b
#else
#define OWN_EXIT 0
#define OWN_ENTRY 0
#define OWN_CODE 0xc09b
#endif

/* Basic exit reasons */
#define R_EXCEPTION 0
#define R_INTERRUPT 1
#define R_TRIPLE_FAULT 2
#define R_INIT 3
#define R_INT_WINDOW 7
#define R_NMI_WINDOW 8
#define R_TASK_SWITCH 9
#define R_CPUID 10
#define R_HLT 12
#define R_INVD 13
#define R_INVLPG 14
#define R_RDPMC 15
#define R_RDTSC 16
#define R_VMCALL 18
#define R_VMCLEAR 19
#define R_VMLAUNCH 20
#define R_VMPTRLD 21
#define R_VMPTRST 22
#define R_VMREAD 23
#define R_VMRESUME 24
#define R_VMWRITE 25
#define R_VMXOFF 26
#define R_VMXON 27
#define R_CR 28
#define R_DR 29
#define R_IO 30
#define R_RDMSR 31
#define R_WRMSR 32
#define R_BAD_GUEST 33
#define R_BAD_MSR 34
#define R_MTF 37
#define R_PAUSE 40
#define R_TPR 43
#define R_APIC_ACCESS 44
#define R_VIRTUALIZED_EOI 45
#define R_GDTR_IDTR 46
#define R_LDTR_TR 47
#define R_EPT_VIOLATION 48
#define R_EPT_MISCONFIG 49
#define R_INVEPT 50
#define R_RDTSCP 51
#define R_TIMER 52
#define R_INVVPID 53
#define R_WBINVD 54
#define R_XSETBV 55
#define R_APIC_WRITE 56
#define R_RDRAND 57
#define R_INVPCID 58
#define R_VMFUNC 59
#define R_RDSEED 61
#define R_PML_FULL 62

/* ---- a hypervisor's words; its routines are in vmx.inc ---- */

	.macro put field, value
	mov	AX, \field
	mov	BX, \value
	vmwrite	AX, BX
	.endm

	/* put for values of registers other than rax, rbx, and memory: clobbers the same. */
	.macro put_register field, register
	mov	BX, \register
	mov	AX, \field
	vmwrite	AX, BX
	.endm

	/* Minimum of a set of controls with bits added: the low half of the TRUE MSR. */
	.macro put_controls field, msr, bits
	read_msr \msr
	mov	ebx, eax
	or	ebx, \bits
	mov	AX, \field
	vmwrite	AX, BX
	.endm

/* Runs the instructions in non-root operation. */
#define l2(...)                                                                                    \
	.pushsection .text, 1; 7: __VA_ARGS__; vmcall; hlt; .popsection;                           \
	mov	WORD [l2_rip], offset 7b;                                                          \
	call	run

/* The first instruction leaves. */
#define expect_exit(reason, qualification, length, information, ...)                               \
	EXPECT_EXIT_(reason, qualification, length, information, __VA_ARGS__)
#define EXPECT_EXIT_(reason, qualification, length, information, ...)                              \
	l2(__VA_ARGS__);                                                                           \
	check_equal "[x_reason]", #reason, __LINE__;                                               \
	check_equal "[x_qualification]", #qualification, __LINE__;                                 \
	check_equal "[x_length]", #length, __LINE__;                                               \
	check_equal "[x_information]", #information, __LINE__;                                     \
	check_equal "[x_rip]", "offset 7b", __LINE__

/* Without VMX, CPUID.1:ECX[5], the guest says so and is done. */
	.macro	need_vmx
	cpuid_bit 1, 0, ecx, 5
	jnz	.Lvmx\@
	mov	SI, offset .Lno_vmx\@
	call	print
	ret
	.pushsection .data
.Lno_vmx\@: .asciz "no VMX\n"
	.popsection
.Lvmx\@:
	.endm

/* The guest's guest came out at @label. */
	.macro	came_out_at label, line
	check_equal "[x_rip]", "offset \label", \line
	.endm
#define expect_rip(label) came_out_at label, __LINE__

/* Nothing leaves before the VMCALL behind. */
#define runs(...)                                                                                  \
	l2(__VA_ARGS__);                                                                           \
	check_equal "[x_reason]", "R_VMCALL_NUMBER", __LINE__
	.set	R_VMCALL_NUMBER, R_VMCALL

/* Clobbers RAX and RBX. */
#define expect_field(field, want)                                                                  \
	mov	AX, field;                                                                         \
	vmread	BX, AX;                                                                            \
	expect(BX, want)

/* Which controls are on, beyond those that must be. Clobbers RAX to RDX. */
#define controls(cpu, cpu2)                                                                        \
	put_controls CPU_CONTROLS, MSR_VMX_TRUE_CPU, (cpu);                                        \
	put	CPU2_CONTROLS, (cpu2)

#endif
