/*
 * Every exception that CPL 0 and 3 can raise in long mode: vector, error code, pushed RIP (SDM vol. 3A 6.15).
 */
#include "lib.h"
GUEST(exceptions)
guest_main:
	call	faults
	call	traps
	call	selectors
	call	floating_point
	call	alignment
	call	double_fault
	call	from_user
	call	frame
	ret

faults:
	xor	edx, edx
	mov	eax, 1
	xor	ecx, ecx
	expect_fault(DE, 0, div ecx)
	expect(rax, 1)
	mov	edx, 5
	mov	ecx, 5
	expect_fault(DE, 0, div ecx)
	mov	eax, 0x80000000
	mov	edx, -1
	mov	ecx, -1
	expect_fault(DE, 0, idiv ecx)
	expect_fault(UD, 0, ud2)
	/* device not available */
	mov	rax, cr0
	or	rax, 8			/* TS */
	mov	cr0, rax
	expect_fault(NM, 0, fnop)
	expect_fault(NM, 0, fisttp qword ptr [scratch])
	expect_fault(NM, 0, movaps xmm0, xmm1)
	clts
	mov	rax, cr0
	or	rax, 4			/* EM: SSE is #UD, x87 #NM */
	mov	cr0, rax
	expect_fault(NM, 0, fnop)
	expect_fault(UD, 0, movaps xmm0, xmm1)
	and	rax, ~4
	mov	cr0, rax
	ret

traps:
	expect_trap(BP_VECTOR, int3)
	expect(qword ptr [fault_error], 0)
	expect_trap(BP_VECTOR, int 3)
	ret

selectors:
	/* beyond the GDT's limit, not present, wrong type, wrong privilege */
	mov	eax, GDT_ENTRIES * 8
	expect_fault(GP, GDT_ENTRIES * 8, mov ds, eax)
	mov	eax, GDT_FREE		/* zero: a system type */
	expect_fault(GP, GDT_FREE, mov ds, eax)
	mov	rax, 0x00cf13000000ffff	/* data, not present */
	mov	[gdt + GDT_FREE], rax
	mov	eax, GDT_FREE
	expect_fault(NP, GDT_FREE, mov ds, eax)
	expect_fault(SS_VECTOR, GDT_FREE, mov ss, eax)
	mov	eax, GDT_FREE + 3
	expect_fault(GP, GDT_FREE, mov ss, eax)	/* RPL is not CPL */
	mov	eax, KCODE64
	expect_fault(GP, KCODE64, mov ss, eax)	/* not writable */
	mov	rax, 0x00cf99000000ffff		/* code, execute only */
	mov	[gdt + GDT_FREE], rax
	mov	eax, GDT_FREE
	expect_fault(GP, GDT_FREE, mov fs, eax)
	mov	eax, 4				/* LDT: there is none */
	expect_fault(GP, 4, mov ds, eax)
	mov	eax, KDATA
	expect_fault(GP, KDATA, ltr ax)
	expect_fault(GP, KDATA, lldt ax)
	mov	eax, TSS_SEL
	expect_fault(GP, TSS_SEL, ltr ax)	/* busy */
	expect_fault(UD, 0, .byte 0x8e; .byte 0xc8) /* MOV CS */
	/* null selectors load, also into SS at CPL 0 */
	xor	eax, eax
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	mov	ecx, ss
	expect(rcx, 0)
	mov	eax, KDATA
	mov	ss, eax
	mov	ds, eax
	mov	es, eax
	mov	qword ptr [gdt + GDT_FREE], 0
	/* far transfers to bad selectors */
	mov	dword ptr [scratch], offset 1f
	mov	word ptr [scratch + 4], KDATA
	expect_fault(GP, KDATA, jmp fword ptr [scratch])
	mov	word ptr [scratch + 4], 0
	expect_fault(GP, 0, jmp fword ptr [scratch])
1:	push	UCODE64 & ~3
	push	offset 1b
	expect_fault(GP, UCODE64 & ~3, retfq)
	add	rsp, 16
	ret

floating_point:
	/* x87: pending, then #MF at the next waiting instruction */
	fninit
	fldz
	fld1
	mov	word ptr [scratch], 0x37b	/* unmask zero divide */
	fldcw	[scratch]
	fdiv	st, st(1)
	fnstsw	ax
	and	eax, 0x8084
	expect(rax, 0x8084)
	expect_fault(MF, 0, fld1)
	expect_fault(MF, 0, fwait)
	fnclex
	fwait
	fninit
	/* SSE */
	mov	dword ptr [scratch], 0x1d80	/* unmask zero divide */
	ldmxcsr	[scratch]
	pxor	xmm0, xmm0
	mov	eax, 1
	cvtsi2ss xmm1, eax
	movaps	xmm2, xmm1
	expect_fault(XM, 0, divss xmm2, xmm0)
	movd	eax, xmm2
	expect(rax, 0x3f800000)		/* unchanged */
	stmxcsr	[scratch]
	mov	eax, [scratch]
	expect(rax, 0x1d84)
	mov	dword ptr [scratch], 0x1f80
	ldmxcsr	[scratch]
	mov	dword ptr [scratch], 0x10000
	expect_fault(GP, 0, ldmxcsr [scratch])
	/* without CR4.OSXMMEXCPT it is #UD */
	mov	rax, cr4
	btr	rax, 10
	mov	cr4, rax
	mov	dword ptr [scratch], 0x1d80
	ldmxcsr	[scratch]
	expect_fault(UD, 0, divss xmm2, xmm0)
	bts	rax, 10
	mov	cr4, rax
	mov	dword ptr [scratch], 0x1f80
	ldmxcsr	[scratch]
	/* aligned vector accesses */
	mov	rbx, offset scratch
	expect_fault(GP, 0, movaps xmm0, [rbx + 8])
	expect_fault(GP, 0, movntdq [rbx + 4], xmm0)
	expect_fault(GP, 0, paddb xmm0, [rbx + 1])
	movups	xmm0, [rbx + 1]
	ret

/* #AC: CPL 3, EFLAGS.AC, CR0.AM (SDM vol. 3A 6.15, interrupt 17) */
alignment:
	mov	rax, cr0
	bts	rax, 18
	mov	cr0, rax
	mov	rbx, offset user_words
	mov	qword ptr [user_flags], 2 | F_AC
	user_ok(mov eax, [rbx + 4]; mov eax, [rbx])
	expect_user_fault(AC, 0, mov eax, [rbx + 1])
	expect_user_fault(AC, 0, mov [rbx + 2], rcx)
	expect_user_fault(AC, 0, inc word ptr [rbx + 3])
	user_ok(mov al, [rbx + 1]; movups xmm0, [rbx + 1])
	mov	qword ptr [user_flags], 2
	user_ok(mov eax, [rbx + 1])
	mov	rax, cr0
	btr	rax, 18
	mov	cr0, rax
	mov	qword ptr [user_flags], 2 | F_AC
	user_ok(mov eax, [rbx + 1])
	mov	qword ptr [user_flags], 2
	pushf
	or	qword ptr [rsp], F_AC
	popf				/* at CPL 0 nothing happens */
	mov	eax, [rbx + 1]
	pushf
	and	qword ptr [rsp], ~F_AC
	popf
	ret

double_fault:
	/* #PF while delivering #PF: the gate's stack is not mapped */
	mov	qword ptr [tss + 36], offset scratch + 0x4000	/* IST 1 */
	mov	qword ptr [tss + 44], TEST_VA + 0x10000		/* IST 2 */
	mov	byte ptr [idt + DF * 16 + 4], 1
	mov	byte ptr [idt + PF * 16 + 4], 2
	mov	rbx, TEST_VA
	arm	1f
	mov	rax, [rbx]
	fail()
1:	disarm
	expect(qword ptr [fault_vector], DF)
	expect(qword ptr [fault_error], 0)
	mov	rax, [fault_cr2]
	mov	rcx, TEST_VA + 0x10000 - 8
	expect(rax, rcx)
	mov	byte ptr [idt + PF * 16 + 4], 0
	/* #GP on top of #NP: both contributory (table 6-5) */
	mov	byte ptr [idt + NP * 16 + 5], 0
	mov	byte ptr [idt + 0x90 * 16 + 5], 0x0e
	arm	2f
	int	0x90
2:	disarm
	expect(qword ptr [fault_vector], DF)
	mov	byte ptr [idt + NP * 16 + 5], 0x8e
	mov	byte ptr [idt + 0x90 * 16 + 5], 0x8e
	mov	byte ptr [idt + DF * 16 + 4], 0
	ret

from_user:
	mov	qword ptr [user_flags], 2
	xor	ecx, ecx
	mov	edx, 0
	mov	eax, 3
	expect_user_fault(DE, 0, div ecx)
	expect_user_fault(UD, 0, ud2)
	expect_user_fault(GP, 0, hlt)
	expect_user_fault(GP, 0, cli)
	expect_user_fault(GP, 0, in al, dx)
	expect_user_fault(GP, 0, mov rax, cr0)
	expect_user_fault(GP, 0, mov cr3, rax)
	expect_user_fault(GP, 0, mov rax, dr0)
	expect_user_fault(GP, 0, lidt [user_words])
	expect_user_fault(GP, 0, lmsw ax)
	expect_user_fault(GP, 0, clts)
	expect_user_fault(GP, 0, invlpg [rbx])
	expect_user_fault(GP, 0, wbinvd)
	expect_user_fault(GP, 0, rdmsr)
	expect_user_fault(GP, 0, wrmsr)
	expect_user_fault(GP, 0, ltr ax)
	expect_user_fault(GP, 0, sysretq)
	expect_user_fault(GP, 0, swapgs)
	/* gates of DPL 0 are not for CPL 3 */
	expect_user_fault(GP, 0x20 * 8 + 2, int 0x20)
	expect_user_fault(GP, PF * 8 + 2, int PF)
	user(int3)
	expect(qword ptr [fault_vector], BP_VECTOR)
	mov	eax, KDATA
	expect_user_fault(GP, KDATA, mov ds, eax)
	ret

/* The frame of a fault at CPL 3: old stack, flags with RF, selectors; the stack comes from the TSS. */
frame:
	mov	qword ptr [user_flags], 2 | F_CF | F_DF
	user(ud2)
	mov	qword ptr [user_flags], 2
	expect([fault_cs], UCODE64)
	expect([fault_old_ss], UDATA)
	mov	rax, offset user_stack_top
	expect([fault_old_sp], rax)
	expect([fault_flags], F_RF | F_DF | F_CF | 2)
	mov	rax, [fault_frame]
	mov	rcx, offset trap_stack_top - 6 * 8	/* one of them the error code's place */
	add	rcx, 8
	expect(rax, rcx)
	/* at CPL 0 the stack is aligned down to 16 bytes first (SDM vol. 3A 6.14.2) */
	mov	r12, rsp
	and	rsp, ~15
	sub	rsp, 7
	expect_fault(UD, 0, ud2)
	mov	rax, [fault_old_sp]
	mov	rcx, [fault_frame]
	sub	rax, rcx
	expect(rax, 5 * 8 + 9)
	mov	rsp, r12
	ret

	.section .user, "awx"
	.p2align 4
user_words:
	.quad	0, 0
