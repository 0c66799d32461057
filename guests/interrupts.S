/*
 * When interrupts are taken: STI's shadow, POPF, IRET, CR8 and priorities, HLT; gates; NMI and what blocks it
 * (SDM vol. 3A 6.8, 10.8). Interrupts are the LAPIC's own, sent to itself.
 */
#include "lib.h"
GUEST(interrupts)

#define ICR_SELF 0x40000
#define VECTOR	 0x40
#define HIGHER	 0x51

/* Makes @vector pending while IF is 0. */
.macro pend vector
	lapic_write 0x300, (ICR_SELF|\vector)
.endm

/* Time enough for an interrupt sent with IF = 1 (or an NMI) to arrive: nothing promises the very next boundary. */
.macro settle
	push	rcx
	mov	ecx, 1000
9:	loop	9b
	pop	rcx
.endm

/* Interrupts so far: the counter's low half, since the last forget. */
.macro forget
	mov	qword ptr [irq_total], 0
	mov	qword ptr [irq_ip], 0
	mov	qword ptr [irq_vector], 0
.endm

.macro taken_once_at label, line
	check_equal "[irq_total]", 1, \line
	check_equal "[irq_ip]", "offset \label", \line
.endm

guest_main:
	lapic_write 0xf0, 0x1ff		/* enable, spurious vector 0xff */
	call	pending
	call	sti_shadow
	call	popf_and_iret
	call	priorities
	call	halting
	call	gates
	call	user_mode
	call	in_loops
	call	nmi
	call	nmi_blocking
	ret

pending:
	forget
	pend	VECTOR
	lapic_read 0x220		/* IRR, vectors 0x40-0x5f */
	expect(rax, 1)
	nop
	expect([irq_total], 0)
	sti
	nop
1:	cli
	taken_once_at 1b, __LINE__
	expect([irq_vector], VECTOR)
	mov	rax, [irq_flags]
	and	eax, F_IF
	expect(rax, F_IF)
	lapic_read 0x220
	expect(rax, 0)
	lapic_read 0x120		/* ISR: the handler wrote EOI */
	expect(rax, 0)
	ret

/* STI with IF = 0 before: the next instruction runs first, whatever it is. */
sti_shadow:
	forget
	pend	VECTOR
	sti
	cli				/* so there is no window at all */
	nop
	expect([irq_total], 0)
	sti
	inc	eax
1:	inc	eax
	cli
	taken_once_at 1b, __LINE__
	/* a jump in the shadow */
	forget
	pend	VECTOR
	sti
	jmp	2f
	fail()
2:	nop
	cli
	taken_once_at 2b, __LINE__
	/* a fault in the shadow goes first; IF is 0 in its handler */
	forget
	pend	VECTOR
	arm	3f
	sti
	ud2
3:	disarm
	expect([fault_vector], UD)
	expect([irq_total], 0)
	mov	rax, [fault_flags]
	and	eax, F_IF
	expect(rax, F_IF)
	sti
	nop
4:	cli
	taken_once_at 4b, __LINE__
	ret

/* These have no shadow: the interrupt comes before the next instruction. */
popf_and_iret:
	forget
	pend	VECTOR
	push	F_IF | 2
	popf
1:	nop
	cli
	taken_once_at 1b, __LINE__
	forget
	pend	VECTOR
	mov	rax, rsp
	push	KDATA
	push	rax
	push	F_IF | 2
	push	KCS
	push	offset 2f
	iretq
	fail()
2:	nop
	cli
	taken_once_at 2b, __LINE__
	/* sent while IF is 1 */
	forget
	sti
	nop
	pend	VECTOR
	settle
	cli
	expect([irq_total], 1)
	ret

priorities:
	forget
	mov	dword ptr [order], 0
	set_gate VECTOR, log_vector
	set_gate HIGHER, log_higher
	pend	VECTOR
	pend	HIGHER
	pend	VECTOR			/* a second time: pending is pending */
	sti
	nop
	nop
	nop
	cli
	mov	eax, [order]
	expect(rax, HIGHER << 8 | VECTOR)
	/* the task priority holds back what is not above it */
	mov	eax, 4
	mov	cr8, rax
	lapic_read 0x80
	expect(rax, 0x40)
	mov	dword ptr [order], 0
	pend	VECTOR
	sti
	nop
	nop
	mov	eax, [order]
	expect(rax, 0)
	pend	HIGHER
	settle
	cli
	mov	eax, [order]
	expect(rax, HIGHER)
	sti
	nop
	xor	eax, eax
	mov	cr8, rax
	nop
	nop
	cli
	mov	eax, [order]
	expect(rax, HIGHER << 8 | VECTOR)
	/* no EOI: the same class waits, a higher one nests */
	mov	dword ptr [order], 0
	set_gate VECTOR, log_without_eoi
	pend	VECTOR
	sti
	nop
	nop
	pend	VECTOR
	settle
	cli
	mov	eax, [order]
	expect(rax, VECTOR)
	sti
	pend	HIGHER
	settle
	cli
	mov	eax, [order]
	expect(rax, VECTOR << 8 | HIGHER)
	set_gate VECTOR, log_vector
	lapic_write 0xb0, 0
	sti
	nop
	nop
	cli
	mov	eax, [order]
	expect(rax, VECTOR << 16 | HIGHER << 8 | VECTOR)
	reset_gate VECTOR
	reset_gate HIGHER
	ret

.macro log vector
	shl	dword ptr [order], 8
	or	dword ptr [order], \vector
.endm

log_vector:
	log	VECTOR
	lapic_write 0xb0, 0
	iretq
log_higher:
	log	HIGHER
	lapic_write 0xb0, 0
	iretq
log_without_eoi:
	log	VECTOR
	iretq

/* HLT ends by an interrupt that was pending before (STI; HLT), which returns behind it. */
halting:
	forget
	pend	VECTOR
	sti
	hlt
1:	nop
	cli
	taken_once_at 1b, __LINE__
	/* an interrupt taken before HLT wakes nothing; the LAPIC timer does, a little later */
	forget
	lapic_write 0x3e0, 3		/* divide by 16 */
	lapic_write 0x320, VECTOR
	lapic_write 0x380, 10000
	sti
	hlt
2:	nop
	cli
	taken_once_at 2b, __LINE__
	ret

gates:
	/* an interrupt gate clears IF, a trap gate does not; both clear TF, NT, RF, and INT n needs no IF */
	sti
	set_gate 0x60, note_flags
	int	0x60
	mov	rax, [noted_flags]
	and	eax, F_IF
	expect(rax, 0)
	mov	byte ptr [idt + 0x60 * 16 + 5], 0x8f
	int	0x60
	mov	rax, [noted_flags]
	and	eax, F_IF
	expect(rax, F_IF)
	cli
	int	0x60
	mov	rax, [noted_flags]
	and	eax, F_IF
	expect(rax, 0)
	push	F_DF | F_AC | F_CF | 2
	popf
	int	0x60
	pushf
	pop	rbx
	push	2
	popf
	mov	rax, [noted_flags]
	expect(rax, F_DF | F_AC | F_CF | 2)
	expect(rbx, F_DF | F_AC | F_CF | 2)
	reset_gate 0x60
	ret

note_flags:
	pushf
	pop	qword ptr [noted_flags]
	iretq

/* From CPL 3: the stack switches, and IRET goes back. */
user_mode:
	forget
	pend	VECTOR
	mov	qword ptr [user_flags], F_IF | 2
	user_ok(nop; nop; pushf; pop rax)
	mov	qword ptr [user_flags], 2
	expect([irq_total], 1)
	mov	rcx, offset 7b
	expect([irq_ip], rcx)
	expect(rax, F_IF | 2)
	ret

/* Loops of every kind come out for an interrupt, and go on where they were. */
in_loops:
	forget
	lapic_write 0x320, VECTOR
	lapic_write 0x380, 20000
	sti
1:	cmp	qword ptr [irq_total], 0	/* a loop of one block */
	je	1b
	cli
	forget
	lapic_write 0x380, 20000
	sti
2:	call	3f				/* calls and returns */
	cmp	qword ptr [irq_total], 0
	je	2b
	cli
	forget
	lapic_write 0x380, 20000
	sti
4:	mov	rsi, offset scratch		/* string instructions */
	lea	rdi, [rsi + 1]
	mov	ecx, 0x8000
	rep movsb
	expect(rcx, 0)
	cmp	qword ptr [irq_total], 0
	je	4b
	cli
	forget
	lapic_write 0x380, 20000
	mov	qword ptr [user_flags], F_IF | 2
	arm	6f
	enter_user spin				/* CPL 3; nothing but an interrupt ends it */
6:	disarm
	expect([fault_vector], USER_RETURN)
	mov	qword ptr [user_flags], 2
	forget
	set_gate VECTOR, leave_spin
	lapic_write 0x380, 20000
	sti
5:	jmp	5b				/* an instruction that jumps to itself */
after_spin:
	cli
	expect([irq_total], 0)
	reset_gate VECTOR
	ret
3:	ret

leave_spin:
	mov	qword ptr [rsp], offset after_spin
	push	rax
	lapic_write 0xb0, 0
	pop	rax
	iretq

	.pushsection .user, "awx"
spin:	xor	eax, eax
1:	inc	rax
	cmp	rax, 0x7000000
	jb	1b
	int3
	.popsection

.macro send_nmi
	lapic_write 0x310, 0		/* to APIC id 0, itself */
	lapic_write 0x300, 0x4400
.endm

/* NMI does not ask IF; the gate clears IF, IRET brings it back. */
nmi:
	forget
	mov	dword ptr [irq_counts + NMI * 4], 0
	send_nmi
	settle
	mov	eax, [irq_counts + NMI * 4]
	expect(rax, 1)
	expect([irq_vector], NMI)
	expect_flags(F_IF, 0)
	/* at CPL 3 */
	set_gate NMI, nmi_once
	mov	qword ptr [user_flags], 2
	mov	qword ptr [nmis], 0
	user_ok(nop)
	send_nmi
	settle
	expect([nmis], 1)
	ret

nmi_once:
	inc	qword ptr [nmis]
	iretq

/* Between an NMI and the next IRET, at most one more waits. */
nmi_blocking:
	set_gate NMI, nmi_that_sends
	mov	qword ptr [nmis], 0
	mov	qword ptr [nested], 0
	send_nmi
	settle
	expect([nmis], 2)
	expect([nested], 0)
	/* an IRET inside the handler ends the blocking there and then */
	set_gate NMI, nmi_that_irets
	mov	qword ptr [nmis], 0
	mov	qword ptr [nested], 0
	send_nmi
	settle
	expect([nmis], 2)
	expect([nested], 1)
	reset_gate NMI
	ret

nmi_that_sends:
	push	rdx
	inc	qword ptr [nmis]
	cmp	qword ptr [nmis], 1
	jne	1f
	send_nmi
	send_nmi
	settle
	cmp	qword ptr [nmis], 1
	je	1f
	inc	qword ptr [nested]
1:	pop	rdx
	iretq

nmi_that_irets:
	push	rax
	inc	qword ptr [nmis]
	cmp	qword ptr [nmis], 1
	jne	2f
	send_nmi
	settle
	mov	rax, rsp
	push	KDATA
	push	rax
	push	2
	push	KCS
	push	offset 1f
	iretq
1:	nop
	nop
	cmp	qword ptr [nmis], 2
	jne	2f
	inc	qword ptr [nested]
	/* the second one is over: block again is not needed to return */
2:	pop	rax
	iretq

	.bss
	.balign	8
order:	.skip	8
noted_flags: .skip 8
nmis:	.skip	8
nested:	.skip	8
