/*
 * What holds a guest's guest back and calls it out without an instruction of its own asking (SDM vol. 3C 24.8, 26.1.3,
 * 26.2, 27.7.2): loops of PAUSE, INIT, activity states; and what entry and exit switch if they are told to (27.3.2.1,
 * 28.3.1, 28.5.1). SIPIs and VMX aborts are in tests/unit/test_engine_vmx.c.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxstates)

#define LOOPS 1000

#define MSR_DEBUGCTL 0x1d9
#define MSR_PAT 0x277
#define EFER_SCE 1
#define CR0_RESERVED 0x1ffaffc0

	/* INIT for this processor, by its LAPIC at RDI. */
	.macro init_to_itself
	mov	dword ptr [rdi + 0x310], 0
	mov	dword ptr [rdi + 0x300], 0x4500
	.endm

	.macro entry bits
	put_controls ENTRY_CONTROLS, MSR_VMX_TRUE_ENTRY, ENTRY_IA32E | \bits
	.endm
	.macro exit bits
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64 | \bits
	.endm

	.text
guest_main:
	need_vmx
	call	vmx_begin
	lapic_write 0xf0, 0x1ff
	mov	edi, LAPIC

	/* ---- loops of PAUSE ---- */
	controls(CPU_SECONDARY, CPU2_PAUSE_LOOP)
	put	PLE_GAP, 0xffffffff
	put	PLE_WINDOW, 20000
	l2(6: pause; jmp 6b)
	expect([x_reason], R_PAUSE)
	expect([x_rip], offset 7b)
	expect([x_length], 2)
	expect([x_qualification], 0)
	put	PLE_WINDOW, 0xffffffff		/* not long enough */
	mov	ecx, LOOPS
	runs(6: pause; dec ecx; jnz 6b)
	expect(rcx, 0)
	put	PLE_GAP, 0			/* each is the first of a loop */
	put	PLE_WINDOW, 0
	mov	ecx, LOOPS
	runs(6: pause; dec ecx; jnz 6b)
	expect(rcx, 0)
	put	PLE_GAP, 0xffffffff
	call	user_mode			/* only CPL 0 is watched */
	call	run
	expect([x_reason], R_VMCALL)
	expect(rcx, 0)
	controls(CPU_PAUSE | CPU_SECONDARY, CPU2_PAUSE_LOOP)
	call	user_mode			/* but for PAUSE exiting CPL does not matter */
	call	run
	expect([x_reason], R_PAUSE)
	expect([x_rip], offset user_pause)
	call	vmx_defaults
	put	HOST_RIP, "offset l2_exit"

	/* ---- INIT ---- */
	l2(nop; init_to_itself; 6: nop)
	expect([x_reason], R_INIT)
	expect([x_rip], offset 6b)
	expect([x_qualification], 0)
	expect([x_length], 0)
	expect([x_interruption], 0)
	runs(nop)				/* it is over */
	init_to_itself				/* in root operation it waits */
	mov	ecx, LOOPS
2:	dec	ecx
	jnz	2b
	l2(nop)
	expect([x_reason], R_INIT)
	expect([x_rip], offset 7b)
	put	GUEST_ACTIVITY, 1		/* out of HLT, */
	init_to_itself
	l2(nop)
	expect([x_reason], R_INIT)
	expect_field(GUEST_ACTIVITY, 1)
	put	GUEST_ACTIVITY, 2		/* out of shutdown */
	init_to_itself
	l2(nop)
	expect([x_reason], R_INIT)
	expect_field(GUEST_ACTIVITY, 2)
	put	GUEST_ACTIVITY, 0

	/* ---- shutdown ---- */
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, PIN_TIMER
	put	GUEST_ACTIVITY, 2
	put	PREEMPTION_TIMER, 1000
	l2(nop)
	expect([x_reason], R_TIMER)
	expect([x_rip], offset 7b)
	expect_field(GUEST_ACTIVITY, 2)
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, PIN_INTERRUPT
	lapic_write 0x310, 0
	lapic_write 0x300, 0x40
	l2(nop)
	expect([x_reason], R_INTERRUPT)
	expect_field(GUEST_ACTIVITY, 2)
	sti					/* taken here */
	nop
	cli
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, 0
	put	ENTRY_INTR_INFO, 0x80000040	/* 27.3.1.5: of interrupts only NMIs and machine checks */
	l2(nop)
	mov	eax, 0x80000000 | R_BAD_GUEST
	expect([x_reason], rax)
	put	ENTRY_INTR_INFO, 0
	put	GUEST_ACTIVITY, 4		/* there is no such state */
	l2(nop)
	mov	eax, 0x80000000 | R_BAD_GUEST
	expect([x_reason], rax)
	put	GUEST_ACTIVITY, 0

	/* ---- debug controls ---- */
	controls(CPU_MSR_BITMAPS, 0)
	put	MSR_BITMAP, "offset msr_bitmap"
	put	GUEST_DR7, 0x403
	runs(mov r8, dr7; mov r9d, 0x40c; mov dr7, r9)
	expect(r8, 0x400)			/* not loaded */
	expect_field(GUEST_DR7, 0x403)		/* nor saved */
	mov	r8, dr7
	expect(r8, 0x400)			/* an exit clears it always */
	entry	ENTRY_LOAD_DEBUG
	exit	EXIT_SAVE_DEBUG
	put	GUEST_DEBUGCTL, 2
	mov	ecx, MSR_DEBUGCTL
	runs(mov r8, dr7; mov dr7, r9; rdmsr; mov r10d, eax; xor eax, eax; wrmsr)
	expect(r8, 0x403)
	expect(r10, 2)
	expect_field(GUEST_DR7, 0x40c)
	expect_field(GUEST_DEBUGCTL, 0)

	/* ---- PAT ---- */
	read_msr MSR_PAT
	mov	r12, rax
	put_register HOST_PAT, r12
	mov	r8, 0x0606060606060606
	put_register GUEST_PAT, r8
	entry	0
	exit	0
	mov	ecx, MSR_PAT
	runs(rdmsr; mov r9d, eax)
	mov	eax, r12d
	expect(r9, rax)
	entry	ENTRY_LOAD_PAT
	exit	EXIT_SAVE_PAT | EXIT_LOAD_PAT
	mov	ecx, MSR_PAT
	runs(rdmsr; mov r9d, eax; xor eax, eax; xor edx, edx; wrmsr)
	expect(r9, 0x06060606)
	expect_field(GUEST_PAT, 0)
	read_msr MSR_PAT
	expect(rax, r12)
	put_register GUEST_PAT, r8
	exit	EXIT_LOAD_PAT
	mov	ecx, MSR_PAT
	runs(xor eax, eax; xor edx, edx; wrmsr)
	mov	rax, GUEST_PAT
	vmread	rbx, rax
	expect(rbx, r8)

	/* ---- EFER: here SCE is the guest's guest's alone ---- */
	read_msr MSR_EFER
	and	eax, ~EFER_SCE
	wrmsr
	mov	r12, rax
	put_register HOST_EFER, r12
	mov	r8, r12
	or	r8, EFER_SCE
	put_register GUEST_EFER, r8
	entry	0
	exit	0
	mov	ecx, MSR_EFER
	runs(rdmsr; mov r9d, eax)
	expect(r9, r12)
	entry	ENTRY_LOAD_EFER
	exit	EXIT_SAVE_EFER | EXIT_LOAD_EFER
	mov	ecx, MSR_EFER
	runs(rdmsr; mov r9d, eax)
	expect(r9, r8)
	mov	rax, GUEST_EFER
	vmread	rbx, rax
	expect(rbx, r8)
	read_msr MSR_EFER
	expect(rax, r12)
	exit	0				/* what the guest's guest had stays */
	runs(nop)
	read_msr MSR_EFER
	expect(rax, r8)
	entry	0

	/* ---- CR0: reserved bits of the fields are ignored ---- */
	mov	r12, cr0
	mov	r8, r12
	or	r8, CR0_RESERVED
	put_register GUEST_CR0, r8
	put_register HOST_CR0, r8
	runs(mov r9, cr0)
	mov	r10, cr0
	expect(r9, r12)
	expect(r10, r12)
	put_register HOST_CR0, r12

	/* ---- instructions that do not exist here: #UD, no exit ---- */
	put	EXCEPTION_BITMAP, (1 << UD)
	controls(0x20000400, 0)			/* MONITOR and MWAIT exiting */
	.irp	code, 0x370f, 0xc8010f, 0xc9010f, 0xaa0f, 0xcf010f, 0xc7010f	/* GETSEC, MONITOR, MWAIT, RSM, ENCLS, - */
	l2(.byte \code & 0xff; .byte \code >> 8 & 0xff; .if \code > 0xffff; .byte \code >> 16; .endif)
	expect([x_reason], R_EXCEPTION)
	mov	eax, 0x80000306
	expect([x_interruption], rax)
	.endr
	ret

/* The guest's guest will be at CPL 3, in a loop of PAUSE. Clobbers RAX, RBX. */
user_mode:
	put	GUEST_CS_SELECTOR, UCODE64
	put	GUEST_CS_ACCESS, 0xa0fb
	put	GUEST_SS_SELECTOR, UDATA
	put	GUEST_SS_ACCESS, 0xc0f3
	mov	qword ptr [l2_rip], offset user_pause
	mov	ecx, LOOPS
	ret
#include "vmx.inc"
	.section .user, "awx"
user_pause:
	pause
	dec	ecx
	jnz	user_pause
	vmcall
	.bss
	.balign 4096
msr_bitmap: .skip 4096
