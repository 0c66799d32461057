/* IRET in 64-bit mode: same and outer privilege, compatibility mode, operand sizes, what it refuses (SDM vol. 2, IRET). */
#include "lib.h"
GUEST(iret)

.macro frame ip, cs, flags, sp, ss
	push	\ss
	push	\sp
	push	\flags
	push	\cs
	push	\ip
.endm

guest_main:
	call	same_level
	call	small_operands
	call	outer_level
	call	to_compatibility_mode
	call	refused
	call	from_user
	ret

/* In 64-bit mode SS:RSP is always popped. */
same_level:
	mov	r12, rsp
	mov	rbx, offset scratch + 0x808
	frame "offset 1f", KCS, (F_CF|F_DF|2), rbx, KDATA
	iretq
1:	expect_flags(F_ARITH | F_DF, F_CF | F_DF)
	mov	rax, rsp
	mov	rsp, r12
	cld
	expect(rax, rbx)
	/* a null SS is fine at CPL 0 */
	frame "offset 2f", KCS, 2, r12, 0
	iretq
2:	mov	eax, ss
	expect(rax, 0)
	mov	eax, KDATA
	mov	ss, eax
	/* all that IRET may set at CPL 0 */
	frame "offset 3f", KCS, (F_ARITH|F_DF|F_IOPL|F_AC|F_ID|2), r12, KDATA
	iretq
3:	pushf
	pop	rax
	push	2
	popf
	expect(rax, F_ARITH | F_DF | F_IOPL | F_AC | F_ID | 2)
	ret

small_operands:
	mov	r12, rsp
	sub	rsp, 20
	mov	dword ptr [rsp], offset 1f
	mov	dword ptr [rsp + 4], KCS
	mov	dword ptr [rsp + 8], F_CF | 2
	mov	eax, offset scratch + 0x800
	mov	[rsp + 12], eax
	mov	dword ptr [rsp + 16], KDATA
	iretd
1:	expect_flags(F_CF, F_CF)
	mov	rax, rsp
	mov	rsp, r12
	mov	rbx, offset scratch + 0x800
	expect(rax, rbx)
	ret

/* Data segments that CPL 3 may not use become null. */
outer_level:
	mov	eax, KDATA
	mov	ds, eax
	mov	fs, eax
	mov	eax, UDATA
	mov	es, eax
	mov	gs, eax
	user_ok(mov eax, ds; mov ecx, es; mov edx, fs; mov ebx, gs)
	expect(rax, 0)
	expect(rcx, UDATA)
	expect(rdx, 0)
	expect(rbx, UDATA)
	expect([fault_cs], UCODE64)
	expect([fault_old_ss], UDATA)
	mov	rax, offset user_stack_top
	expect([fault_old_sp], rax)
	ret

to_compatibility_mode:
	mov	r12, 0x1234567800000001
	arm	1f
	frame "offset user_32", UCODE32, (F_CF|2), "offset user_stack_top", UDATA
	iretq
1:	disarm
	expect([fault_vector], USER_RETURN)
	expect([fault_cs], UCODE32)
	mov	rcx, offset user_stack_top - 4
	expect([fault_old_sp], rcx)
	expect(rax, 0xfffffffe)
	mov	rcx, offset user_32_end
	expect([fault_ip], rcx)
	/* registers that 32-bit code cannot name are kept */
	mov	rax, 0x1234567800000001
	expect(r12, rax)
	/* a fault there: the frame is a 64-bit one all the same */
	arm	2f
	frame "offset user_32_fault", UCODE32, 2, "offset user_stack_top", UDATA
	iretq
2:	disarm
	expect([fault_vector], GP)
	mov	rcx, offset user_32_fault
	expect([fault_ip], rcx)
	expect([fault_cs], UCODE32)
	ret

	.pushsection .user, "awx"
	.code32
user_32:
	mov	eax, 0
	dec	eax		/* 0x48: a REX prefix in 64-bit mode */
	push	eax
	adc	dword ptr [esp], -2
	pop	eax
	push	eax
	int3
user_32_end:
user_32_fault:
	cli
	.code64
	.popsection

.macro refuse vector, error
	mov	r13, rsp
	expect_fault(\vector, \error, iretq)
	mov	rax, rsp
	expect(rax, r13)	/* nothing was popped */
	add	rsp, 40
.endm

refused:
	mov	r12, rsp
	frame "offset not_refused", 0, 2, r12, KDATA
	refuse	GP, 0
	frame "offset not_refused", KDATA, 2, r12, KDATA
	refuse	GP, KDATA
	frame "offset not_refused", (GDT_ENTRIES*8), 2, r12, KDATA
	refuse	GP, (GDT_ENTRIES*8)
	frame "offset not_refused", (UCODE64&~3), 2, r12, KDATA	/* DPL 3, RPL 0 */
	refuse	GP, (UCODE64&~3)
	mov	rax, 0x00af1b000000ffff		/* 64-bit code, not present */
	mov	[gdt + GDT_FREE], rax
	frame "offset not_refused", GDT_FREE, 2, r12, KDATA
	refuse	NP, GDT_FREE
	mov	rax, 0x00ef9b000000ffff		/* L and D both */
	mov	[gdt + GDT_FREE], rax
	frame "offset not_refused", GDT_FREE, 2, r12, KDATA
	refuse	GP, GDT_FREE
	mov	qword ptr [gdt + GDT_FREE], 0
	mov	rbx, 0x0000800000000000
	frame rbx, KCS, 2, r12, KDATA
	refuse	GP, 0
	frame "offset not_refused", UCODE64, 2, r12, 0		/* null SS for CPL 3 */
	refuse	GP, 0
	frame "offset not_refused", UCODE64, 2, r12, KDATA
	refuse	GP, KDATA
	frame "offset not_refused", UCODE64, 2, r12, (UDATA&~3)	/* RPL is not the new CPL */
	refuse	GP, (UDATA&~3)
	mov	rax, 0x00cf73000000ffff		/* data, DPL 3, not present */
	mov	[gdt + GDT_FREE], rax
	frame "offset not_refused", UCODE64, 2, r12, (GDT_FREE+3)
	refuse	SS_VECTOR, GDT_FREE
	mov	qword ptr [gdt + GDT_FREE], 0
	/* nested task has no meaning in long mode */
	frame "offset not_refused", KCS, 2, r12, KDATA
	push	F_NT | 2
	popf
	refuse	GP, 0
	push	2
	popf
	/* a stack that is not there */
	mov	qword ptr [tss + 36], offset scratch + 0x4000	/* IST 1 */
	mov	byte ptr [idt + PF * 16 + 4], 1
	mov	r13, rsp
	arm	1f
	mov	rsp, TEST_VA
	iretq
1:	disarm
	mov	byte ptr [idt + PF * 16 + 4], 0
	expect([fault_vector], PF)
	expect([fault_error], 0)
	ret

/* Where a frame leads that should not have been taken. */
not_refused:
	mov	rsp, [fault_sp]
	jmp	[fault_resume]

from_user:
	/* to more privilege, and to itself */
	user(mov rsi, rsp; frame "offset not_refused", KCS, 2, rsi, UDATA; iretq)
	expect([fault_vector], GP)
	expect([fault_error], KCS)
	user_ok(mov rsi, rsp; lea rdi, [rip + 5f]; frame rdi, UCODE64, 3, rsi, UDATA; iretq; 5: setc al)
	movzx	eax, al
	expect(rax, 1)
	ret
