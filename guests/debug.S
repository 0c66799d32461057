/* Single step and debug registers (SDM vol. 3B 17.2, 17.3). */
#include "lib.h"
GUEST(debug)

#define DR6_INIT 0xffff0ff0
#define DR6_BS	 0x4000
#define DR6_BD	 0x2000

/* DR7: breakpoint n local, with R/W (0 exec, 1 write, 2 I/O, 3 access) and LEN (0: 1, 1: 2, 3: 4, 2: 8 bytes) */
#define BREAK(n, rw, len) (0x400 | (1 << ((n) * 2)) | (((rw) | ((len) << 2)) << (16 + (n) * 4)))

.macro clear_dr6
	mov	rax, DR6_INIT
	mov	dr6, rax
.endm

.macro set_dr7 value
	mov	rax, \value
	mov	dr7, rax
.endm

.macro expect_dr6 bits, line
	mov	rax, dr6
	mov	rcx, (DR6_INIT | (\bits))
	check_equal rax, rcx, \line
.endm

guest_main:
	set_gate DB, log_step
	call	single_step
	call	step_branches
	call	step_over_shadow
	call	step_over_shadow_to_event
	call	step_strings
	call	step_events
	call	step_user
	reset_gate DB
	call	registers
	call	execution
	call	data
	call	data_in_strings
	call	execution_of_strings
	call	general_detect
	call	input_output
	call	icebp
	xor	eax, eax
	mov	dr7, rax
	ret

/* Logs the pushed RIP and DR6; the flags it returns to keep TF. */
log_step:
	push	rax
	push	rdx
	mov	rdx, [steps]
	mov	rax, [rsp + 16]
	mov	[step_ips + rdx * 8], rax
	mov	rax, dr6
	mov	[step_dr6], rax
	mov	rax, DR6_INIT
	mov	dr6, rax
	inc	rdx
	and	edx, 63
	mov	[steps], rdx
	pop	rdx
	pop	rax
	iretq

.macro step_on
	mov	qword ptr [steps], 0
	push	F_TF | 2
	popf
.endm

.macro step_off
	push	2
	popf
.endm

/* The pushed RIPs since step_on, one label each; then those of step_off, which are not named. */
.macro expect_steps line, labels:vararg
	.set	nth, 0
	.irp	label, \labels
	check_equal "[step_ips + nth * 8]", "offset \label", \line
	.set	nth, nth + 1
	.endr
	/* PUSH, POPF: the trap after POPF that clears TF does come */
	check_equal "[steps]", "nth + 2", \line
.endm

single_step:
	clear_dr6
	step_on
1:	nop				/* the trap is after the instruction behind POPF */
2:	inc	eax
3:	mov	ebx, [scratch]
4:	lea	rax, [rbx + 8]
5:
	step_off
	expect_steps __LINE__, 2b, 3b, 4b, 5b
	mov	rax, [step_dr6]
	mov	rcx, DR6_INIT | DR6_BS
	expect(rax, rcx)
	/* PUSHF shows TF */
	step_on
	pushf
	pop	rbx
	step_off
	and	ebx, F_TF
	expect(rbx, F_TF)
	ret

step_branches:
	xor	eax, eax
	mov	ecx, 2
	step_on
1:	jmp	3f
2:	nop
3:	jz	4f			/* not taken or taken, one trap each */
4:	call	6f
5:	loop	5b
	jmp	1f
6:	ret
1:	step_off
	expect_steps __LINE__, 3b, 4b, 6b, 5b, 5b, (5b+2), 1b
	ret

/* MOV SS and POP SS hold the trap back for one instruction; STI does not. */
step_over_shadow:
	mov	eax, KDATA
	step_on
1:	nop
2:	mov	ss, eax
3:	nop
4:	nop
5:
	step_off
	expect_steps __LINE__, 2b, 4b, 5b
	step_on
	sti
1:	cli
2:
	step_off
	expect_steps __LINE__, 1b, 2b
	ret

/* INT1 behind MOV SS: the single-step trap is lost, not put off into the handler. */
step_over_shadow_to_event:
	clear_dr6
	mov	eax, KDATA
	step_on
	mov	ss, eax
	.byte	0xf1
1:	nop
2:
	step_off
	expect_steps __LINE__, 1b, 2b
	ret

/* Repeated strings trap after each element. */
step_strings:
	mov	rsi, offset scratch
	lea	rdi, [rsi + 64]
	mov	ecx, 3
	step_on
1:	rep movsb
2:	nop
3:
	step_off
	expect_steps __LINE__, 1b, 1b, 2b, 3b
	xor	ecx, ecx
	step_on
	rep stosb
1:
	step_off
	expect_steps __LINE__, 1b
	ret

/* INT n enters its handler without a trap; IRET back to TF traps after the next instruction. */
step_events:
	set_gate 0x60, just_return
	step_on
	int	0x60
1:	nop
2:
	step_off
	expect_steps __LINE__, 2b
	reset_gate 0x60
	/* a fault: its handler runs without TF, the pushed flags have it */
	arm	3f
	step_on
	ud2
3:	disarm
	expect([fault_vector], UD)
	mov	rax, [fault_flags]
	and	eax, F_TF
	expect(rax, F_TF)
	expect([steps], 0)
	/* CPUID, RDTSC, port I/O: whatever an engine handles apart */
	step_on
	cpuid
1:	rdtsc
2:	in	al, 0x80
3:	mov	rax, cr0
4:	mov	cr0, rax
5:	swapgs
6:	swapgs
	step_off
	mov	rax, offset 1b
	expect([step_ips], rax)
	mov	rax, offset 5b
	expect([step_ips + 32], rax)
	expect([steps], 9)
	ret

just_return:
	iretq

step_user:
	mov	qword ptr [user_flags], F_TF | 2
	mov	qword ptr [steps], 0
	user_ok(nop; 5: inc eax; 6: push 2; popf; nop)
	mov	qword ptr [user_flags], 2
	mov	rax, offset 5b
	expect([step_ips], rax)
	mov	rax, offset 6b
	expect([step_ips + 8], rax)
	expect([steps], 4)
	ret

registers:
	mov	rax, 0x123456789abc
	mov	dr0, rax
	mov	rbx, dr0
	expect(rbx, rax)
	/* bits that are always 1 or 0 */
	xor	eax, eax
	mov	dr6, rax
	mov	rbx, dr6
	and	rbx, ~0x1f000			/* RTM, bus lock: as the processor has them */
	expect(rbx, DR6_INIT & ~0x1f000)
	mov	dr7, rax
	mov	rbx, dr7
	expect(rbx, 0x400)
	bts	rax, 32
	expect_fault(GP, 0, mov dr7, rax)
	expect_fault(GP, 0, mov dr6, rax)
	/* DR4 and DR5 are DR6 and DR7, or with CR4.DE not there */
	clear_dr6
	mov	rbx, dr4
	mov	rcx, DR6_INIT
	expect(rbx, rcx)
	mov	rax, cr4
	or	rax, 8
	mov	cr4, rax
	expect_fault(UD, 0, mov rbx, dr4)
	expect_fault(UD, 0, mov dr5, rbx)
	and	rax, ~8
	mov	cr4, rax
	ret

/* Instruction breakpoints are faults: RIP is the instruction's, RF in the pushed image lets it go. */
execution:
	clear_dr6
	mov	rax, offset 1f
	mov	dr1, rax
	set_dr7 BREAK(1, 0, 0)
	xor	ebx, ebx
	arm	2f
	inc	ebx
1:	inc	ebx
2:	disarm
	expect([fault_vector], DB)
	mov	rax, offset 1b
	expect([fault_ip], rax)
	expect(rbx, 1)
	expect_dr6 0x2, __LINE__
	mov	rax, [fault_flags]
	and	eax, F_RF
	expect(rax, 0)
	/* by IRET with RF, once; the next time round it breaks again */
	set_gate DB, resume_with_rf
	mov	qword ptr [steps], 0
	mov	rax, offset 3f
	mov	dr1, rax
	mov	ecx, 5
3:	inc	ebx
	dec	ecx
	jnz	3b
	expect([steps], 5)
	expect(rbx, 6)
	/* the second page of a loop that was hot before the breakpoint was set */
	set_dr7 0
	mov	qword ptr [steps], 0
	mov	ecx, 1000
	mov	edx, 500
4:	cmp	ecx, edx
	jne	5f
	mov	rax, offset 6f
	mov	dr1, rax
	set_dr7 BREAK(1, 0, 0)
5:	nop
6:	dec	ecx
	jnz	4b
	expect([steps], 500)
	set_dr7 0
	reset_gate DB
	/* switched off it does nothing */
	clear_dr6
	mov	rax, offset 1f
	mov	dr1, rax
	nop
1:	nop
	expect_dr6 0, __LINE__
	ret

resume_with_rf:
	inc	qword ptr [steps]
	or	qword ptr [rsp + 16], F_RF
	iretq

/* Data breakpoints are traps: RIP is behind the access. */
data:
	clear_dr6
	mov	rbx, offset scratch + 0x100
	mov	dr0, rbx
	set_dr7 BREAK(0, 1, 3)		/* writes of 4 bytes */
	mov	eax, [rbx]
	mov	[rbx + 4], eax
	mov	[rbx - 4], eax
	expect_dr6 0, __LINE__
	expect_trap(DB, mov [rbx], eax)
	expect_dr6 1, __LINE__
	clear_dr6
	expect_trap(DB, mov byte ptr [rbx + 3], 1)
	expect_trap(DB, mov [rbx - 4], rbx)	/* overlaps */
	expect_trap(DB, inc dword ptr [rbx])
	expect_trap(DB, lock xadd [rbx], eax)
	expect_trap(DB, movups [rbx - 8], xmm0)
	arm	1f
	lea	rsp, [rbx + 8]
	push	rax
1:	disarm
	expect([fault_vector], DB)
	clear_dr6
	/* reads and writes */
	set_dr7 BREAK(0, 3, 0)
	expect_trap(DB, mov al, [rbx])
	expect_trap(DB, mov [rbx], al)
	expect_trap(DB, cmp qword ptr [rbx - 7], 0)
	mov	al, [rbx + 1]
	/* several at once, all reported; one that is not enabled may be reported as well */
	clear_dr6
	lea	rax, [rbx + 8]
	mov	dr3, rax
	set_dr7 (BREAK(0, 3, 3) | BREAK(3, 3, 2))
	expect_trap(DB, movups xmm0, [rbx])
	mov	rax, dr6
	and	eax, 0xf
	expect(rax, 9)
	clear_dr6
	expect_trap(DB, mov rax, [rbx + 12])
	mov	rax, dr6
	and	eax, 0xf
	expect(rax, 8)
	/* an instruction that faults reports no data breakpoint */
	clear_dr6
	lea	rax, [rbx + 1]
	expect_fault(GP, 0, movaps xmm0, [rbx + 1])
	expect_dr6 0, __LINE__
	/* together with single step */
	set_gate DB, log_step
	clear_dr6
	step_on
	mov	[rbx], al
1:	nop
	step_off
	mov	rax, offset 1b
	expect([step_ips], rax)
	reset_gate DB
	/* at CPL 3 */
	mov	rcx, offset user_data
	mov	dr0, rcx
	set_dr7 BREAK(0, 1, 0)
	clear_dr6
	user(mov byte ptr [rcx], 1; 5: nop)
	expect([fault_vector], DB)
	mov	rax, offset 5b
	expect([fault_ip], rax)
	expect([fault_cs], UCODE64)
	set_dr7 0
	ret

/* Repeated strings stop after the element that hit. */
data_in_strings:
	mov	rbx, offset scratch + 0x205
	mov	dr2, rbx
	set_dr7 BREAK(2, 1, 0)
	clear_dr6
	mov	rdi, offset scratch + 0x200
	mov	ecx, 16
	mov	al, 0
	arm	2f
1:	rep stosb
2:	disarm
	expect([fault_vector], DB)
	mov	rax, offset 1b
	expect([fault_ip], rax)
	expect(rcx, 10)
	mov	rax, rdi
	sub	rax, rbx
	expect(rax, 1)
	expect_dr6 4, __LINE__
	set_dr7 0
	ret

/* A breakpoint on a repeated string hits before it, not before each element; RF is for the whole of it. */
execution_of_strings:
	set_gate DB, count_and_go_on
	mov	rax, offset 2f
	mov	dr0, rax
	set_dr7 BREAK(0, 0, 0)
	mov	rbx, offset scratch
	mov	r12d, 3
1:	mov	qword ptr [steps], 0
	mov	rsi, rbx
	lea	rdi, [rbx + 64]
	mov	ecx, 5
2:	rep movsb
	expect([steps], 1)
	dec	r12d
	jnz	1b
	/* a data breakpoint in the middle pushes RF set, and the one on the instruction is not due again */
	lea	rax, [rbx + 66]
	mov	dr2, rax
	mov	rax, offset 3f
	mov	dr0, rax
	set_dr7 (BREAK(0, 0, 0) | BREAK(2, 1, 0))
	mov	qword ptr [steps], 0
	mov	rsi, rbx
	lea	rdi, [rbx + 64]
	mov	ecx, 5
3:	rep movsb
	expect([steps], 2)
	mov	rax, [step_flags]
	and	eax, F_RF
	expect(rax, F_RF)
	set_dr7 0
	reset_gate DB
	clear_dr6
	ret

/* RF in the frame, as a debugger does to go on */
count_and_go_on:
	inc	qword ptr [steps]
	push	rax
	mov	rax, [rsp + 24]
	mov	[step_flags], rax
	or	qword ptr [rsp + 24], F_RF
	pop	rax
	iretq

/* DR7.GD: any MOV DR faults, once. */
general_detect:
	clear_dr6
	mov	rax, 0x2400
	mov	dr7, rax
	expect_fault(DB, 0, mov rbx, dr0)
	mov	rax, dr7		/* GD was cleared on the way */
	expect(rax, 0x400)
	expect_dr6 DR6_BD, __LINE__
	ret

/* CR4.DE: breakpoints on ports */
input_output:
	mov	rax, cr4
	or	rax, 8
	mov	cr4, rax
	mov	eax, 0x80
	mov	dr0, rax
	clear_dr6
	set_dr7 BREAK(0, 2, 0)
	expect_trap(DB, out 0x80, al)
	expect_dr6 1, __LINE__
	out	0x7f, al
	mov	edx, 0x80
	expect_trap(DB, in al, dx)
	set_dr7 0
	mov	rax, cr4
	and	rax, ~8
	mov	cr4, rax
	ret

/* INT1: a trap that sets nothing in DR6. */
icebp:
	clear_dr6
	expect_trap(DB, .byte 0xf1)
	expect_dr6 0, __LINE__
	/* what MOV SS has put off comes with it, as one exception */
	set_gate DB, log_step
	mov	rbx, offset scratch
	mov	qword ptr [rbx], KDATA
	mov	dr0, rbx
	set_dr7 BREAK(0, 3, 3)
	mov	qword ptr [steps], 0
	mov	ss, [rbx]
	.byte	0xf1
1:	set_dr7 0
	expect([steps], 1)
	mov	rax, offset 1b
	expect([step_ips], rax)
	mov	rax, [step_dr6]
	mov	rcx, DR6_INIT | 1
	expect(rax, rcx)
	reset_gate DB
	ret

	.bss
	.balign	8
steps:	.skip	8
step_dr6: .skip	8
step_flags: .skip 8
step_ips: .skip	64 * 8

	.section .user, "awx"
user_data: .byte 0
