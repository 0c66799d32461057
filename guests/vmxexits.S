/*
 * VM exits of instructions (SDM vol. 3C chapters 26 and 28): reason, qualification, length and information of each, and
 * that it does not leave without its control.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxexits)
	.text
guest_main:
	need_vmx
	call	vmx_begin

	/* ---- always ---- */
	expect_exit(R_VMCALL, 0, 3, 0, vmcall)
	expect_exit(R_CPUID, 0, 2, 0, cpuid)
	expect_exit(R_INVD, 0, 2, 0, invd)
	mov	rax, cr4
	or	eax, 1 << 18		/* OSXSAVE */
	put_register GUEST_CR4, rax
	expect_exit(R_XSETBV, 0, 3, 0, xsetbv)
	mov	rax, cr4
	put_register GUEST_CR4, rax

	/* ---- on a control ---- */
	controls(CPU_HLT | CPU_RDPMC | CPU_RDTSC | CPU_PAUSE | CPU_INVLPG | CPU_SECONDARY, CPU2_WBINVD | CPU2_RDTSCP | CPU2_RDRAND | CPU2_RDSEED | CPU2_INVPCID)
	expect_exit(R_HLT, 0, 1, 0, hlt)
	expect_exit(R_RDPMC, 0, 2, 0, rdpmc)
	expect_exit(R_RDTSC, 0, 2, 0, rdtsc)
	expect_exit(R_RDTSCP, 0, 3, 0, rdtscp)
	expect_exit(R_PAUSE, 0, 2, 0, pause)
	expect_exit(R_WBINVD, 0, 2, 0, wbinvd)
	mov	rsi, 0x12345000
	expect_exit(R_INVLPG, 0x12345008, 4, 0, invlpg [rsi + 8])
	/* 31:28 type register, 26:23 base, 22 no index, 17:15 DS, 9:7 64-bit */
	expect_exit(R_INVPCID, 0x10, 7, 0x93418100, invpcid r9, [rsi + 0x10])
	expect_exit(R_RDRAND, 0, 4, 0x1068, rdrand r13)
	expect_exit(R_RDRAND, 0, 4, 0x0018, rdrand bx)
	expect_exit(R_RDSEED, 0, 3, 0x0838, rdseed edi)

	/* and not without it */
	controls(CPU_SECONDARY, CPU2_RDTSCP | CPU2_INVPCID)
	mov	qword ptr [descriptor], 0
	mov	qword ptr [descriptor + 8], 0
	xor	r9d, r9d
	runs(rdtsc; mov esi, eax; rdtscp; pause; wbinvd; invlpg [rsi]; rdrand rcx; rdseed rcx; invpcid r9, [descriptor])
	controls(CPU_SECONDARY, 0)
	put	EXCEPTION_BITMAP, (1 << UD)
	l2(rdtscp)			/* does not exist without its control, nor does */
	expect([x_reason], R_EXCEPTION)
	l2(invpcid r9, [descriptor])
	expect([x_reason], R_EXCEPTION)
	mov	eax, 0x80000306
	expect([x_interruption], rax)
	put	EXCEPTION_BITMAP, 0

	/* ---- control registers ---- */
	controls(CPU_CR3_LOAD | CPU_CR3_STORE | CPU_CR8_LOAD | CPU_CR8_STORE, 0)
	mov	rbp, cr3
	expect_exit(R_CR, 0x503, 3, 0, mov cr3, rbp)
	expect_exit(R_CR, 0xe13, 4, 0, mov r14, cr3)
	expect_exit(R_CR, 0xa08, 4, 0, mov cr8, r10)
	expect_exit(R_CR, 0x118, 4, 0, mov rcx, cr8)
	put	CR3_TARGET_COUNT, 2
	put	(CR3_TARGET0 + 2), rbp
	runs(mov cr3, rbp)
	put	CR3_TARGET_COUNT, 1
	expect_exit(R_CR, 0x503, 3, 0, mov cr3, rbp)
	put	CR3_TARGET_COUNT, 0
	controls(0, 0)
	runs(mov cr3, rbp; mov rcx, cr3; mov rcx, cr8; mov cr8, rcx)
	put	CR0_MASK, 0x8		/* TS is the hypervisor's, which shows 1 */
	put	CR0_SHADOW, 0x8
	expect_exit(R_CR, 0x20, 2, 0, clts)
	mov	rcx, cr0
	expect_exit(R_CR, 0x100, 3, 0, mov cr0, rcx)
	or	ecx, 8
	runs(mov cr0, rcx; mov rdx, cr0; smsw rsi)	/* as shown: TS stays as it is */
	mov	rdi, rdx
	and	edi, 8
	expect(rdi, 8)
	and	esi, 8
	expect(rsi, 8)
	mov	rax, GUEST_CR0
	vmread	rdi, rax
	and	edi, 8
	expect(rdi, 0)
	mov	ecx, 0x3		/* LMSW: PE MP, and TS 0 */
	expect_exit(R_CR, 0x30030, 3, 0, lmsw cx)
	mov	word ptr [word_value], 0x13
	expect_exit(R_CR, 0x130070, 8, 0, lmsw [word_value])
	expect([x_linear], offset word_value)
	mov	ecx, 0xb
	runs(lmsw cx)
	put	CR0_SHADOW, 0
	runs(clts)
	put	CR0_MASK, 0
	put	CR4_MASK, 0x2004		/* VMXE hidden, TSD */
	put	CR4_SHADOW, 0
	mov	rcx, cr4
	and	ecx, 0xffffdfff
	runs(mov cr4, rcx; mov rdx, cr4)
	expect(rdx, rcx)
	or	ecx, 4
	expect_exit(R_CR, 0x104, 3, 0, mov cr4, rcx)
	put	CR4_MASK, 0

	/* ---- debug registers ---- */
	controls(CPU_MOV_DR, 0)
	expect_exit(R_DR, 0x0c07, 4, 0, mov dr7, r12)
	expect_exit(R_DR, 0x0512, 3, 0, mov rbp, dr2)
	controls(0, 0)
	runs(mov rbp, dr7)
	expect(rbp, 0x400)

	/* ---- ports ---- */
	controls(CPU_IO, 0)
	mov	edx, 0x1234
	expect_exit(R_IO, 0x12340008, 1, 0, in al, dx)
	expect_exit(R_IO, 0x12340001, 2, 0, out dx, ax)
	expect_exit(R_IO, 0x1234000b, 1, 0, in eax, dx)
	expect_exit(R_IO, 0x800048, 2, 0, in al, 0x80)
	expect_exit(R_IO, 0x800043, 2, 0, out 0x80, eax)
	mov	rdi, offset scratch
	mov	rsi, offset scratch + 16
	mov	ecx, 2
	expect_exit(R_IO, 0x12340018, 1, 0x100, insb)
	expect([x_linear], offset scratch)
	expect_exit(R_IO, 0x12340033, 2, 0x18100, rep outsd)
	expect([x_linear], offset scratch + 16)
	expect_exit(R_IO, 0x12340011, 4, 0x20080, .byte 0x64; .byte 0x67; outsw) /* FS, 32-bit */
	xor	ecx, ecx
	runs(rep insb)
	controls(CPU_IO | CPU_IO_BITMAPS, 0)	/* the bitmaps rule */
	put	IO_BITMAP_A, "offset bitmap"
	put	IO_BITMAP_B, "offset bitmap + 4096"
	mov	byte ptr [bitmap + 0x80 / 8], 0x02	/* 81H */
	mov	byte ptr [bitmap + 4096], 0x01		/* 8000H */
	runs(in al, 0x80)
	expect_exit(R_IO, 0x810048, 2, 0, in al, 0x81)
	expect_exit(R_IO, 0x800049, 3, 0, in ax, 0x80)
	mov	edx, 0x8000
	expect_exit(R_IO, 0x80000008, 1, 0, in al, dx)
	mov	edx, 0x7fff
	expect_exit(R_IO, 0x7fff0009, 2, 0, in ax, dx)
	mov	edx, 0xffff
	expect_exit(R_IO, 0xffff0009, 2, 0, in ax, dx)

	/* ---- MSRs ---- */
	controls(0, 0)
	mov	ecx, MSR_LSTAR
	expect_exit(R_RDMSR, 0, 2, 0, rdmsr)
	expect_exit(R_WRMSR, 0, 2, 0, wrmsr)
	controls(CPU_MSR_BITMAPS, 0)
	put	MSR_BITMAP, "offset msr_bitmap"
	mov	ecx, MSR_LSTAR
	runs(rdmsr; wrmsr)
	or	byte ptr [msr_bitmap + 1024 + 0x82 / 8], 1 << 2
	expect_exit(R_RDMSR, 0, 2, 0, rdmsr)
	runs(wrmsr)
	or	byte ptr [msr_bitmap + 2048 + 0x174 / 8], 1 << 4
	mov	ecx, 0x174
	runs(rdmsr)
	expect_exit(R_WRMSR, 0, 2, 0, wrmsr)
	mov	ecx, 0x2000		/* in no bitmap */
	expect_exit(R_RDMSR, 0, 2, 0, rdmsr)
	mov	ecx, 0xc0002000
	expect_exit(R_WRMSR, 0, 2, 0, wrmsr)
	controls(0, 0)

	/* ---- descriptor tables ---- */
	controls(CPU_SECONDARY, CPU2_TABLES)
	mov	rbx, offset scratch
	mov	ecx, 4
	expect_exit(R_GDTR_IDTR, 0x20, 4, 0x01c18100, sgdt [rbx + 0x20])
	expect_exit(R_GDTR_IDTR, 0x20, 5, 0x11858103, sidt [rbx + rcx * 8 + 0x20])
	expect_exit(R_GDTR_IDTR, 0, 3, 0x21c18100, lgdt [rbx])
	expect_exit(R_GDTR_IDTR, 0, 4, 0x31c20100, lidt fs:[rbx])
	expect_exit(R_LDTR_TR, 0, 3, 0x408, sldt ecx)
	expect_exit(R_LDTR_TR, 0, 3, 0x10000418, str ebx)
	expect_exit(R_LDTR_TR, 0, 3, 0x20000408, lldt cx)
	expect_exit(R_LDTR_TR, 0x10, 4, 0x31c18100, ltr [rbx + 0x10])
	controls(0, 0)
	runs(sgdt [scratch]; sidt [scratch]; str ecx; sldt ecx; lldt cx)

	/* ---- VMX ---- */
	mov	rbx, offset scratch
	expect_exit(R_VMCLEAR, 0x18, 5, 0x01c18100, vmclear [rbx + 0x18])
	expect_exit(R_VMCLEAR, offset scratch, 8, 0x08418100, vmclear [rip + scratch])
	expect_exit(R_VMPTRLD, 0, 4, 0x01848102 | 0x10000, vmptrld [rbx + rcx * 4])
	expect_exit(R_VMPTRST, 0, 3, 0x01c18100, vmptrst [rbx])
	expect_exit(R_VMXON, 0, 4, 0x01c18100, vmxon [rbx])
	expect_exit(R_VMREAD, 0, 3, 0x60000410, vmread rdx, rsi)
	expect_exit(R_VMREAD, 0x7f, 4, 0x61c18100, vmread [rbx + 0x7f], rsi)
	expect_exit(R_VMWRITE, 8, 4, 0x61c18100, vmwrite rsi, [rbx + 8])
	expect_exit(R_VMLAUNCH, 0, 3, 0, vmlaunch)
	expect_exit(R_VMRESUME, 0, 3, 0, vmresume)
	expect_exit(R_VMXOFF, 0, 3, 0, vmxoff)
	expect_exit(R_INVEPT, 0, 5, 0x61c18100, invept rsi, [rbx])
	expect_exit(R_INVVPID, 0, 5, 0x61c18100, invvpid rsi, [rbx])
	put	EXCEPTION_BITMAP, (1 << UD)
	l2(vmfunc)
	expect([x_reason], R_EXCEPTION)
	put	EXCEPTION_BITMAP, 0

	/* ---- TSC: offset, scaling; TPR shadow ---- */
	controls(CPU_TSC_OFFSETTING, 0)
	put	TSC_OFFSET, 0x1000000000000000
	put	(TSC_OFFSET), 0x1000000000000000
	runs(rdtsc; shr edx, 28; mov r9d, edx; mov ecx, 0x10)
	expect(r9, 1)
	controls(CPU_TSC_OFFSETTING | CPU_SECONDARY, CPU2_TSC_SCALING)
	put	TSC_MULTIPLIER, 0	/* stands still */
	runs(rdtsc; mov r9d, eax; mov r10d, edx)
	expect(r9, 0)
	expect(r10, 0x10000000)
	put	TSC_OFFSET, 0
	controls(CPU_TPR_SHADOW, 0)
	put	VIRTUAL_APIC_ADDRESS, "offset bitmap"
	put	TPR_THRESHOLD, 0
	mov	dword ptr [bitmap + 0x80], 0x70
	runs(mov rcx, cr8; mov rdx, 9; mov cr8, rdx)
	expect(rcx, 7)
	mov	ecx, [bitmap + 0x80]
	expect(rcx, 0x90)
	put	TPR_THRESHOLD, 5
	mov	edx, 4
	l2(mov cr8, rdx; 6: nop)
	expect([x_reason], R_TPR)
	expect([x_rip], offset 6b)	/* behind it */
	l2(nop)
	mov eax, 0x80000007; expect([x_reason], rax)	/* refused: the TPR is below */

	ret
#include "vmx.inc"

	.data
descriptor:	.quad 0, 0
word_value:	.quad 0
	.bss
	.balign 4096
bitmap:	.skip 8192
msr_bitmap: .skip 4096
