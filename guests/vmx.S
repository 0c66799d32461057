/*
 * VMX root operation (SDM vol. 3C chapters 24, 31; 3D appendix A): capability MSRs, the instructions, their faults and the
 * numbers of their errors.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmx)

/* CF, ZF say how the instruction went (31.2). */
#define succeeds(...)                                                                              \
	stc; __VA_ARGS__; expect_flags(F_ARITH, 0)
#define fails_invalid(...)                                                                         \
	__VA_ARGS__; expect_flags(F_ARITH, F_CF)
#define fails_valid(error, ...) FAILS_VALID_(error, __VA_ARGS__)
#define FAILS_VALID_(error, ...)                                                                   \
	__VA_ARGS__;                                                                               \
	check_flags F_ARITH, F_ZF, __LINE__;                                                       \
	mov rax, VM_INSTRUCTION_ERROR;                                                             \
	vmread rbx, rax;                                                                           \
	check_equal rbx, error, __LINE__

	.text
guest_main:
	need_vmx
	/* ---- before VMXON ---- */
	expect_fault(UD, 0, vmxon [region_pointer])	/* CR4.VMXE */
	expect_fault(UD, 0, vmxoff)
	expect_fault(UD, 0, vmclear [region_pointer])
	expect_fault(UD, 0, vmread rax, rbx)
	expect_fault(UD, 0, vmlaunch)
	expect_fault(UD, 0, invept rax, [region_pointer])
	expect_fault(UD, 0, invvpid rax, [region_pointer])
	mov	rax, cr4
	or	rax, CR4_VMXE
	mov	cr4, rax
	expect_fault(GP, 0, vmxon [region_pointer])	/* IA32_FEATURE_CONTROL */
	mov	ecx, MSR_FEATURE_CONTROL
	xor	edx, edx
	mov	eax, 8
	expect_fault(GP, 0, wrmsr)
	mov	eax, 5
	wrmsr
	expect_fault(GP, 0, wrmsr)			/* locked */
	read_msr MSR_FEATURE_CONTROL
	expect(rax, 5)

	/* ---- capabilities ---- */
	read_msr MSR_VMX_BASIC
	mov	rbx, rax
	shr	rbx, 31
	and	rbx, 1
	expect(rbx, 0)
	mov	[region], eax
	mov	[vmcs], eax
	mov	[vmcs2], eax
	mov	rbx, rax
	shr	rbx, 32
	and	rbx, 0x1fff
	expect(rbx, 0x1000)
	shr	rax, 48
	and	rax, 0xfd
	expect(rax, 0xd8)	/* 64-bit addresses, WB, INS/OUTS information, TRUE MSRs */
	read_msr MSR_VMX_CR0_FIXED0
	expect(rax, 0x80000021)
	read_msr MSR_VMX_CR4_FIXED0
	expect(rax, CR4_VMXE)
	read_msr MSR_VMX_CR4_FIXED1
	and	rax, CR4_VMXE
	expect(rax, CR4_VMXE)
	mov	ecx, MSR_VMX_BASIC
	expect_fault(GP, 0, wrmsr)
	mov	ecx, 0x492
	expect_fault(GP, 0, rdmsr)

	/* ---- VMXON ---- */
	mov	rax, cr0
	and	rax, ~0x20		/* NE */
	mov	cr0, rax
	expect_fault(GP, 0, vmxon [region_pointer])
	or	rax, 0x20
	mov	cr0, rax
	fails_invalid(vmxon [unaligned_pointer])
	fails_invalid(vmxon [wide_pointer])
	inc	dword ptr [region]
	fails_invalid(vmxon [region_pointer])
	dec	dword ptr [region]
	expect_user_fault(GP, 0, vmxon [region_pointer])
	succeeds(vmxon [region_pointer])
	fails_invalid(vmxon [region_pointer])	/* no current VMCS to hold the error */
	expect_fault(UD, 0, .byte 0xf3; .byte 0x0f; .byte 0xc7; .byte 0xf0) /* a register */
	mov	rax, cr4
	and	rax, ~CR4_VMXE
	expect_fault(GP, 0, mov cr4, rax)
	mov	rax, cr0
	and	rax, ~0x20
	expect_fault(GP, 0, mov cr0, rax)

	/* ---- without a current VMCS ---- */
	succeeds(vmptrst [stored])
	expect(qword ptr [stored], -1)
	mov	rax, GUEST_RIP
	fails_invalid(vmread rbx, rax)
	fails_invalid(vmwrite rax, rbx)
	fails_invalid(vmlaunch)
	fails_invalid(vmresume)
	fails_invalid(vmcall)
	fails_invalid(vmptrld [unaligned_pointer])

	/* ---- VMCLEAR, VMPTRLD, VMPTRST ---- */
	succeeds(vmclear [vmcs_pointer])
	succeeds(vmptrld [vmcs_pointer])
	succeeds(vmptrst [stored])
	mov	rax, [stored]
	expect(rax, offset vmcs)
	fails_valid(9, vmptrld [unaligned_pointer])
	fails_valid(9, vmptrld [wide_pointer])
	fails_valid(10, vmptrld [region_pointer])
	inc	dword ptr [vmcs2]
	fails_valid(11, vmptrld [vmcs2_pointer])
	dec	dword ptr [vmcs2]
	fails_valid(2, vmclear [unaligned_pointer])
	fails_valid(3, vmclear [region_pointer])
	fails_valid(15, vmxon [region_pointer])
	fails_valid(1, vmcall)
	fails_valid(5, vmresume)
	expect_user_fault(GP, 0, vmclear [vmcs_pointer])
	expect_user_fault(GP, 0, vmptrst [stored])
	expect_user_fault(GP, 0, vmread rax, rbx)
	expect_user_fault(GP, 0, vmlaunch)
	expect_user_fault(GP, 0, vmcall)
	expect_user_fault(GP, 0, vmxoff)

	/* ---- VMREAD, VMWRITE ---- */
	mov	rax, GUEST_RIP
	mov	rbx, 0x123456789abcdef0
	succeeds(vmwrite rax, rbx)
	mov	rdx, 0
	succeeds(vmread rdx, rax)
	expect(rdx, rbx)
	succeeds(vmread [stored], rax)
	expect([stored], rbx)
	mov	rax, GUEST_ES_SELECTOR
	succeeds(vmwrite rax, rbx)
	succeeds(vmread rdx, rax)
	expect(rdx, 0xdef0)
	mov	rax, GUEST_ES_LIMIT
	succeeds(vmwrite rax, rbx)
	succeeds(vmread rdx, rax)
	mov	rcx, 0x9abcdef0
	expect(rdx, rcx)
	mov	rax, TSC_OFFSET
	succeeds(vmwrite rax, rbx)
	inc	rax			/* its upper half */
	succeeds(vmread rdx, rax)
	expect(rdx, 0x12345678)
	mov	rdx, 0x55
	succeeds(vmwrite rax, rdx)
	dec	rax
	succeeds(vmread rdx, rax)
	mov	rcx, 0x559abcdef0
	expect(rdx, rcx)
	mov	rax, GUEST_RIP + 1	/* has no upper half */
	fails_valid(12, vmread rbx, rax)
	mov	rax, 0x6fff
	fails_valid(12, vmread rbx, rax)
	mov	rax, 0x6fff
	fails_valid(12, vmwrite rax, rbx)
	mov	rax, 0x10000681e
	fails_valid(12, vmread rbx, rax)
	mov	rax, EXIT_REASON	/* read-only, but IA32_VMX_MISC bit 29 */
	mov	rbx, 7
	succeeds(vmwrite rax, rbx)
	mov	rdx, 0xffffffff00000000	/* nothing is there */
	mov	rax, GUEST_RIP
	arm	2f
	vmread	[rdx], rax
2:	disarm
	expect(qword ptr [fault_vector], PF)

	/* ---- what a VMCS keeps while another is current ---- */
	mov	rax, GUEST_RSP
	mov	rbx, 0x1111
	vmwrite	rax, rbx
	succeeds(vmclear [vmcs2_pointer])
	succeeds(vmptrld [vmcs2_pointer])
	mov	rbx, 0x2222
	vmwrite	rax, rbx
	succeeds(vmptrld [vmcs_pointer])
	vmread	rdx, rax
	expect(rdx, 0x1111)
	succeeds(vmptrld [vmcs2_pointer])
	vmread	rdx, rax
	expect(rdx, 0x2222)
	succeeds(vmclear [vmcs2_pointer])
	vmptrst	[stored]
	expect(qword ptr [stored], -1)

	/* ---- INVEPT, INVVPID ---- */
	succeeds(vmptrld [vmcs_pointer])
	mov	eax, 3
	fails_valid(28, invept rax, [descriptor])
	mov	eax, 1
	mov	qword ptr [descriptor], 0	/* no EPTP */
	fails_valid(28, invept rax, [descriptor])
	mov	eax, 1
	mov	qword ptr [descriptor], 0x101e
	succeeds(invept rax, [descriptor])
	mov	eax, 2
	succeeds(invept rax, [descriptor])
	mov	qword ptr [descriptor], 0
	mov	eax, 0
	fails_valid(28, invvpid rax, [descriptor])	/* VPID 0 */
	mov	eax, 1
	fails_valid(28, invvpid rax, [descriptor])
	mov	eax, 2
	succeeds(invvpid rax, [descriptor])
	mov	eax, 4
	fails_valid(28, invvpid rax, [descriptor])
	mov	qword ptr [descriptor], 5
	mov	eax, 0
	succeeds(invvpid rax, [descriptor])
	mov	eax, 1
	succeeds(invvpid rax, [descriptor])
	mov	eax, 3
	succeeds(invvpid rax, [descriptor])
	mov	rbx, 0x8000000000000000
	mov	[descriptor + 8], rbx			/* not canonical */
	mov	eax, 0
	fails_valid(28, invvpid rax, [descriptor])
	mov	qword ptr [descriptor], 0x10000
	mov	eax, 1
	fails_valid(28, invvpid rax, [descriptor])
	expect_user_fault(GP, 0, invept rax, [descriptor])

	/* ---- VM entry refused: controls, host state; STI and MOV SS ---- */
	fails_valid(7, vmlaunch)
	call	vmx_defaults
	mov	rax, HOST_CR0
	mov	rbx, 0
	vmwrite	rax, rbx
	fails_valid(8, vmlaunch)
	mov	ax, ss
	mov	ss, ax
	vmlaunch
	expect_flags(F_ARITH, F_ZF)
	mov	rax, VM_INSTRUCTION_ERROR
	vmread	rbx, rax
	expect(rbx, 26)
	expect_fault(UD, 0, vmfunc)

	/* ---- VMXOFF ---- */
	succeeds(vmxoff)
	expect_fault(UD, 0, vmxoff)
	mov	rax, cr4
	and	rax, ~CR4_VMXE
	mov	cr4, rax
	ret

#include "vmx.inc"

	.data
	.p2align 3
vmcs2_pointer:	.quad vmcs2
unaligned_pointer: .quad vmcs + 8
wide_pointer:	.quad 1 << 52
stored:		.quad 0
descriptor:	.quad 0, 0
	.bss
	.balign 4096
vmcs2:	.skip 4096
