/* SYSCALL and SYSRET, SYSENTER and SYSEXIT, SWAPGS, FS and GS bases (SDM vol. 2). */
#include "lib.h"
GUEST(syscall)

#define MSR_SYSENTER_CS	 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176

guest_main:
	mov	ecx, MSR_STAR
	xor	eax, eax
	mov	edx, (UCODE32 << 16) | KCODE64
	wrmsr
	write_msr MSR_LSTAR, "offset entry"
	call	round_trip
	call	flags_masked
	call	to_compatibility_mode
	call	from_kernel
	call	disabled
	call	sysenter
	call	swap
	call	bases
	ret

/* Records and returns; r8 says how: 0 SYSRETQ, 1 SYSRETD, 2 SYSEXIT (64-bit). */
entry:
	mov	[at_entry + 0], rcx
	mov	[at_entry + 8], r11
	mov	[at_entry + 16], rsp
	mov	rsp, offset entry_stack_top
	pushf
	pop	[at_entry + 24]
	mov	eax, cs
	mov	[at_entry + 32], rax
	mov	eax, ss
	mov	[at_entry + 40], rax
	mov	rsp, [at_entry + 16]
	cmp	r8, 1
	je	1f
	ja	2f
	sysretq
1:	sysretd
2:	sysexitq

round_trip:
	write_msr MSR_SFMASK, 0
	mov	qword ptr [user_flags], F_CF | F_AC | 2
	xor	r8d, r8d
	user_ok(syscall; 5: pushf; pop r9; mov r10d, cs; mov r13d, ss)
	mov	rax, offset 5b
	expect([at_entry + 0], rax)
	expect(rcx, rax)
	expect([at_entry + 8], F_CF | F_AC | 2)
	mov	rax, offset user_stack_top
	expect([at_entry + 16], rax)
	expect([at_entry + 24], F_CF | F_AC | 2)
	expect([at_entry + 32], KCODE64)
	expect([at_entry + 40], KDATA)
	expect(r9, F_CF | F_AC | 2)
	expect(r10, UCODE64)
	expect(r13, UDATA)
	/* flags come back from R11: IF and IOPL too, RF and VM not */
	mov	qword ptr [user_flags], 2
	ret

flags_masked:
	write_msr MSR_SFMASK, (F_IF|F_DF|F_CF|F_TF)
	mov	qword ptr [user_flags], F_CF | F_DF | F_ZF | 2
	user_ok(syscall; pushf; pop r9; cld)
	expect([at_entry + 24], F_ZF | 2)
	expect([at_entry + 8], F_CF | F_DF | F_ZF | 2)
	expect(r9, F_CF | F_DF | F_ZF | 2)
	mov	qword ptr [user_flags], 2
	/* SYSRET with other flags, straight from here */
	arm	1f
	mov	rcx, offset returned
	mov	r11d, F_OF | F_IOPL | F_RF | F_VM
	mov	rsp, offset user_stack_top
	sysretq
1:	disarm
	expect([fault_vector], USER_RETURN)
	expect([fault_cs], UCODE64)
	expect([fault_old_ss], UDATA)
	expect(r9, F_OF | F_IOPL | 2)
	ret

	.pushsection .user, "awx"
returned:
	pushf
	pop	r9
	int3
	.code32
returned_32:
	mov	eax, 1
	dec	eax
	int3
	.code64
	.popsection

to_compatibility_mode:
	arm	1f
	mov	rcx, offset returned_32
	bts	rcx, 32			/* only ECX counts */
	mov	r11d, 2
	mov	rsp, offset user_stack_top
	sysretd
1:	disarm
	expect([fault_vector], USER_RETURN)
	expect([fault_cs], UCODE32)
	expect([fault_old_ss], UDATA)
	expect(rax, 0)
	ret

/* At CPL 0 SYSCALL works like anywhere. */
from_kernel:
	write_msr MSR_LSTAR, "offset 1f"
	mov	r12, rsp
	push	F_CF | 2
	popf
	syscall
2:	fail()
1:	mov	rax, offset 2b
	expect(rcx, rax)
	expect(r11, F_CF | 2)
	mov	rax, rsp
	expect(rax, r12)
	write_msr MSR_LSTAR, "offset entry"
	ret

disabled:
	read_msr MSR_EFER
	btr	eax, 0
	xor	edx, edx
	wrmsr
	expect_user_fault(UD, 0, syscall)
	expect_fault(UD, 0, syscall)
	expect_fault(UD, 0, sysretq)
	read_msr MSR_EFER
	bts	eax, 0
	xor	edx, edx
	wrmsr
	ret

/* Intel's processors have it in long mode, AMD's do not. */
sysenter:
	xor	eax, eax
	cpuid
	cmp	ebx, 0x756e6547		/* "Genu" */
	jne	no_sysenter
	write_msr MSR_SYSENTER_CS, 0
	expect_user_fault(GP, 0, sysenter)
	write_msr MSR_SYSENTER_CS, KCODE64
	write_msr MSR_SYSENTER_ESP, "offset entry_stack_top"
	write_msr MSR_SYSENTER_EIP, "offset entry"
	mov	r8d, 2
	mov	qword ptr [user_flags], F_CF | F_IF | 2
	user_ok(mov rcx, rsp; lea rdx, [rip + 5f]; sysenter; 5: mov r10d, cs; mov r13d, ss; mov r9, rsp)
	mov	rax, offset entry_stack_top
	expect([at_entry + 16], rax)
	expect([at_entry + 24], F_CF | 2)	/* IF is cleared, nothing else */
	expect([at_entry + 32], KCODE64)
	expect([at_entry + 40], KDATA)
	expect(r10, KCODE64 + 32 + 3)
	expect(r13, KCODE64 + 40 + 3)
	mov	rax, offset user_stack_top
	expect(r9, rax)
	mov	qword ptr [user_flags], 2
no_sysenter:
	ret

swap:
	mov	qword ptr [scratch + 0x10], 0x1111
	mov	qword ptr [scratch + 0x1010], 0x2222
	write_msr MSR_GS_BASE, "offset scratch"
	write_msr MSR_KERNEL_GS_BASE, "offset scratch + 0x1000"
	mov	rax, gs:[0x10]
	expect(rax, 0x1111)
	swapgs
	mov	rax, gs:[0x10]
	expect(rax, 0x2222)
	read_msr MSR_GS_BASE
	mov	rbx, offset scratch + 0x1000
	expect(rax, rbx)
	read_msr MSR_KERNEL_GS_BASE
	mov	rbx, offset scratch
	expect(rax, rbx)
	swapgs
	mov	rax, gs:[0x10]
	expect(rax, 0x1111)
	ret

bases:
	/* loading a selector loads its 32-bit base; a full base comes by MSR or WRFSBASE */
	mov	eax, KDATA
	mov	fs, eax
	read_msr MSR_FS_BASE
	expect(rax, 0)
	mov	rbx, 0xffff800000000000
	mov	rax, rbx
	mov	rdx, rbx
	shr	rdx, 32
	mov	ecx, MSR_FS_BASE
	wrmsr
	read_msr MSR_FS_BASE
	expect(rax, rbx)
	lea	rsi, [scratch]
	sub	rsi, rbx
	mov	rax, fs:[rsi + 0x10]
	expect(rax, 0x1111)
	cpuid_bit 7, 0, ebx, 0
	jz	no_fsgsbase
	expect_fault(UD, 0, rdfsbase rax)	/* CR4.FSGSBASE is 0 */
	mov	rax, cr4
	bts	rax, 16
	mov	cr4, rax
	rdfsbase rax
	mov	rbx, 0xffff800000000000
	expect(rax, rbx)
	mov	rbx, offset scratch + 0x1000
	wrfsbase rbx
	mov	rax, fs:[0x10]
	expect(rax, 0x2222)
	mov	eax, -1
	wrgsbase eax			/* the 32-bit form clears the upper half */
	rdgsbase rax
	expect(rax, 0xffffffff)
	mov	rbx, 0x0000800000000000
	expect_fault(GP, 0, wrgsbase rbx)
	mov	rbx, offset scratch + 0x1000
	xor	eax, eax
	mov	fs, eax			/* or IRET to CPL 3 would, and the base with it */
	wrfsbase rbx
	user_ok(rdfsbase rax)
	mov	rbx, offset scratch + 0x1000
	expect(rax, rbx)
	mov	rax, cr4
	btr	rax, 16
	mov	cr4, rax
no_fsgsbase:
	ret

	.bss
	.balign	16
at_entry: .skip	64
	.skip	1024
entry_stack_top:
