/*
 * Where exactly interrupts and NMIs that come by themselves are taken: never in the shadow of MOV SS and POP SS, between
 * iterations of string instructions, inside loops of every kind, with the registers of that very instruction
 * (SDM vol. 3A 6.6 to 6.8; vol. 2 REP). The LAPIC timer and the PIT send them, so where is chance; what the
 * frame must look like there is not.
 */
#include "lib.h"
GUEST(windows)

#define VECTOR 0x40
#define IOAPIC 0xfec00000
#define ROUNDS 40
#define TRIES  400
#define HALTS  3000
#define LATCH  0xcf8 /* PCI CONFIG_ADDRESS, which reads as written */

/* Guest-physical memory that nothing else uses: identity-mapped by 2 MiB pages */
#define SOURCE 0x800000
#define TARGET 0x1000000
#define LENGTH 0x400000

/* The timer's next interrupt, some time from now; no two rounds alike. Clobbers EAX. */
.macro start_timer
	mov	eax, [delay]
	imul	eax, eax, 1103515245
	add	eax, 12345
	mov	[delay], eax
	shr	eax, 18
	add	eax, 200
	lapic_write 0x380, eax
.endm

.macro forget
	mov	qword ptr [irq_total], 0
	mov	qword ptr [irq_ip], 0
.endm

guest_main:
	lapic_write 0xf0, 0x1ff
	lapic_write 0x3e0, 3		/* divide by 16 */
	lapic_write 0x320, VECTOR
	call	sti_then_ss
	call	ss_shadow
	call	ss_shadow_nmi
	set_gate VECTOR, look
	call	direct_loop
	call	call_loop
	call	indirect_loop
	call	missing_loop
	call	masked_pairs
	call	strings
	reset_gate VECTOR
	call	user_strings
	call	halted_nmi
	call	startup_ipis
	call	behind_halt
	ret

/* STI; MOV SS with an interrupt pending: its own shadow may add to STI's, and no other instruction goes before. */
sti_then_ss:
	mov	ecx, KDATA
	forget
	lapic_write 0x300, (0x40000|VECTOR)
	sti
	mov	ss, ecx
1:	nop
2:	nop
	cli
	expect([irq_total], 1)
	mov	rax, [irq_ip]
	cmp	rax, offset 1b
	je	3f
	expect(rax, offset 2b)
3:	ret

/* Interrupts never come between MOV SS or POP SS and the next instruction (SDM 3A 6.8.3). */
ss_shadow:
	mov	r12d, ROUNDS
	mov	ebx, KDATA
round_1:
	forget
	start_timer
	sti
	nop				/* STI's shadow is not under test */
1:	mov	ss, ebx
inside_1:
	nop
	mov	ss, ebx
inside_2:
	jmp	2f
2:	cmp	qword ptr [irq_total], 0
	je	1b
	cli
	mov	rax, [irq_ip]
	cmp	rax, offset inside_1
	je	3f
	cmp	rax, offset inside_2
	jne	4f
3:	fail()
4:	dec	r12d
	jnz	round_1
	/* POP SS is 32-bit code's */
	push	KCODE32
	push	offset 5f
	retfq
	.code32
5:	mov	ebp, ROUNDS
6:	mov	dword ptr [irq_total], 0
	mov	eax, [delay]
	imul	eax, eax, 1103515245
	add	eax, 12345
	mov	[delay], eax
	shr	eax, 18
	add	eax, 200
	mov	dword ptr [LAPIC + 0x380], eax
	sti
	nop
1:	push	ebx
	pop	ss
inside_3:
	inc	eax
	cmp	dword ptr [irq_total], 0
	je	1b
	cli
	cmp	dword ptr [irq_ip], offset inside_3
	jne	2f
	inc	dword ptr [wrong]
2:	dec	ebp
	jnz	6b
	jmp	KCODE64:7f
	.code64
7:	mov	eax, [wrong]
	expect(rax, 0)
	ret

/* The PIT's line as NMI (delivery mode 100 in the IOAPIC's entry for pin 2), every 100 microseconds. */
.macro nmi_source mask
	mov	ebx, IOAPIC
	mov	dword ptr [rbx], 0x15
	mov	dword ptr [rbx + 0x10], 0
	mov	dword ptr [rbx], 0x14
	mov	dword ptr [rbx + 0x10], 0x400 | \mask
.endm

.macro pit mode, count
	mov	al, 0x30 | (\mode << 1)
	out	0x43, al
	mov	al, \count & 0xff
	out	0x40, al
	mov	al, \count >> 8
	out	0x40, al
.endm

ss_shadow_nmi:
	nmi_source 0
	pit	2, 120
	mov	r12d, ROUNDS
	mov	ebx, KDATA
1:	forget
2:	mov	ss, ebx
inside_4:
	nop
	mov	ss, ebx
inside_5:
	jmp	3f
3:	cmp	qword ptr [irq_total], 0
	je	2b
	mov	rax, [irq_ip]
	cmp	rax, offset inside_4
	je	4f
	cmp	rax, offset inside_5
	jne	5f
4:	fail()
5:	dec	r12d
	jnz	1b
	nmi_source 0x10000
	pit	0, 1
	ret

/* ---- loops ---- */

/* The handler: notes the registers and where. the loops compare. */
look:
	push	rax
	mov	rax, [rsp + 8]
	mov	[looked_ip], rax
	mov	[looked_cx], rcx
	mov	[looked_si], rsi
	mov	[looked_di], rdi
	mov	[looked_r8], r8
	mov	[looked_r9], r9
	mov	[looked_r10], r10
	mov	rax, [rsp + 24]
	mov	[looked_flags], rax
	inc	qword ptr [irq_total]
	lapic_write 0xb0, 0
	pop	rax
	iretq

/* At label @at: R8 - R9 is @first, R9 - R10 is @second, and nothing else is checked for this round. */
.macro at_label label, first, second
	cmp	rax, offset \label
	jne	9f
	expect(rcx, \first)
	expect(rdx, \second)
	jmp	8f
9:
.endm

/* RAX, RCX, RDX: where the interrupt was, R8 - R9 and R9 - R10 at that moment. */
.macro looked
	mov	rax, [looked_ip]
	mov	rcx, [looked_r8]
	sub	rcx, [looked_r9]
	mov	rdx, [looked_r9]
	sub	rdx, [looked_r10]
.endm

.macro start_round
	xor	r8d, r8d
	xor	r9d, r9d
	xor	r10d, r10d
	forget
	start_timer
	sti
.endm

/* Two blocks that jump to each other, nothing but registers */
direct_loop:
	mov	r12d, ROUNDS
direct_round:
	set_gate VECTOR, look_and_stop
	start_round
direct_0: inc	r8
direct_1: inc	r9
direct_2: jmp	direct_3
direct_3: inc	r10
direct_4: jmp	direct_0
direct_out:
	looked
	at_label direct_0, 0, 0
	at_label direct_1, 1, 0
	at_label direct_2, 0, 1
	at_label direct_3, 0, 1
	at_label direct_4, 0, 0
	fail()
8:	dec	r12d
	jnz	direct_round
	set_gate VECTOR, look
	ret

/* As look, but goes on at direct_out with interrupts off. */
look_and_stop:
	push	rax
	mov	rax, [rsp + 8]
	mov	[looked_ip], rax
	mov	[looked_r8], r8
	mov	[looked_r9], r9
	mov	[looked_r10], r10
	lapic_write 0xb0, 0
	pop	rax
	mov	qword ptr [rsp], offset direct_out
	and	qword ptr [rsp + 16], ~F_IF
	iretq

call_loop:
	mov	r12d, ROUNDS
call_round:
	start_round
call_0:	inc	r8
call_1:	call	call_5
call_2:	inc	r10
call_3:	cmp	qword ptr [irq_total], 0
call_4:	je	call_0
	cli
	jmp	1f
call_5:	inc	r9
call_6:	ret
1:	looked
	at_label call_0, 0, 0
	at_label call_1, 1, 0
	at_label call_2, 0, 1
	at_label call_3, 0, 0
	at_label call_4, 0, 0
	at_label call_5, 1, 0
	at_label call_6, 0, 1
	fail()
8:	dec	r12d
	jnz	call_round
	ret

/* Every jump's target comes from a register or from memory. */
indirect_loop:
	mov	r12d, ROUNDS
indirect_round:
	mov	rsi, offset indirect_2
	mov	qword ptr [target], offset indirect_0
	start_round
indirect_0: inc r8
indirect_1: jmp	rsi
	ud2
indirect_2: inc	r9
indirect_3: inc	r10
indirect_4: cmp	qword ptr [irq_total], 0
indirect_5: jne	indirect_7
indirect_6: jmp	[target]
indirect_7:
	cli
	looked
	at_label indirect_0, 0, 0
	at_label indirect_1, 1, 0
	at_label indirect_2, 1, 0
	at_label indirect_3, 0, 1
	at_label indirect_4, 0, 0
	at_label indirect_5, 0, 0
	at_label indirect_6, 0, 0
	at_label indirect_7, 0, 0
	fail()
8:	dec	r12d
	jnz	indirect_round
	ret

/* More pages than any TLB holds: nearly every access leaves translated code. */
missing_loop:
	mov	r12d, ROUNDS
missing_round:
	mov	rsi, SOURCE
	start_round
missing_0: inc	r8
missing_1: mov	rdi, [rsi]
missing_2: inc	r9
missing_3: mov	[rsi + LENGTH + 64], rdi
missing_4: inc	r10
missing_5: add	rsi, 0x1000
missing_6: cmp	rsi, SOURCE + LENGTH
missing_7: jb	missing_9
missing_8: mov	rsi, SOURCE
missing_9: cmp	qword ptr [irq_total], 0
missing_10: je	missing_0
	cli
	looked
	at_label missing_0, 0, 0
	at_label missing_1, 1, 0
	at_label missing_2, 1, 0
	at_label missing_3, 0, 1
	at_label missing_4, 0, 1
	at_label missing_5, 0, 0
	at_label missing_6, 0, 0
	at_label missing_7, 0, 0
	at_label missing_8, 0, 0
	at_label missing_9, 0, 0
	at_label missing_10, 0, 0
	fail()
8:	dec	r12d
	jnz	missing_round
	ret

/* STI; CLI lets nothing in, ever; POPF; CLI does, and so does STI; NOP; CLI. */
masked_pairs:
	forget
	start_timer
	lapic_read 0x390
	mov	ecx, 100000
1:	sti
	cli
	loop	1b
2:	lapic_read 0x390		/* until the timer has run out, and then some */
	test	eax, eax
	jnz	2b
	mov	ecx, 1000
3:	sti
	cli
	loop	3b
	expect([irq_total], 0)
	lapic_read 0x220		/* it waits in IRR */
	expect(rax, 1)
	push	F_IF | 2
	popf
4:	cli
	expect([irq_total], 1)
	expect([looked_ip], offset 4b)
	ret

/* ---- string instructions ---- */

/*
 * Runs @instruction until an interrupt came in the middle of it, TRIES times at most: RIP is its own, RCX what is left;
 * RSI and RDI have gone as far as RCX says, by @size (negative: downwards) where they move. It ends as if nothing
 * had been. R12: what RCX begins with, R13 and R14: RSI and RDI.
 */
.macro interrupted size, source, target, count, move_si, move_di, instruction:vararg
	mov	r12, \count
	mov	r13, \source
	mov	r14, \target
	mov	r15d, TRIES
6:	mov	rcx, r12
	mov	rsi, r13
	mov	rdi, r14
	forget
	start_timer
	sti
	nop
5:	\instruction
	cli
	expect(rcx, 0)
	imul	rax, r12, \size * \move_si
	add	rax, r13
	expect(rsi, rax)
	imul	rax, r12, \size * \move_di
	add	rax, r14
	expect(rdi, rax)
4:	cmp	qword ptr [irq_total], 0	/* not come yet: the next round would have it */
	jne	3f
	sti
	nop
	cli
	jmp	4b
3:	mov	rax, [looked_ip]
	cmp	rax, offset 5b
	jne	2f
	cmp	[looked_cx], r12
	je	2f				/* before it began */
	mov	rdx, r12
	sub	rdx, [looked_cx]
	imul	rax, rdx, \size * \move_si
	add	rax, r13
	expect([looked_si], rax)
	imul	rax, rdx, \size * \move_di
	add	rax, r14
	expect([looked_di], rax)
	mov	rax, [looked_flags]
	and	eax, F_RF			/* set between iterations (SDM vol. 3B 17.3.1.1) */
	expect(rax, F_RF)
	jmp	1f
2:	dec	r15d
	jnz	6b
	fail()
1:
.endm

strings:
	/* what is compared: all alike */
	mov	rdi, SOURCE
	mov	ecx, LENGTH / 8
	mov	rax, 0x0101010101010101
	rep stosq
	interrupted 1, SOURCE, TARGET, LENGTH, 1, 1, rep movsb
	mov	rax, [TARGET + LENGTH - 8]
	mov	rcx, 0x0101010101010101
	expect(rax, rcx)
	interrupted 8, SOURCE, TARGET, (LENGTH / 8), 1, 1, rep movsq
	interrupted 4, SOURCE, TARGET, (LENGTH / 4), 1, 1, addr32 rep movsd
	std
	interrupted -2, (SOURCE + LENGTH - 2), (TARGET + LENGTH - 2), (LENGTH / 2), 1, 1, rep movsw
	cld
	interrupted 8, SOURCE, TARGET, (LENGTH / 8), 0, 1, rep stosq
	interrupted 1, SOURCE, TARGET, LENGTH, 0, 1, rep stosb
	interrupted 4, SOURCE, TARGET, (LENGTH / 4), 1, 0, rep lodsd
	mov	rsi, SOURCE
	mov	rdi, TARGET
	mov	ecx, LENGTH / 8
	rep movsq
	interrupted 1, SOURCE, TARGET, LENGTH, 1, 1, repe cmpsb
	/* RAX is never what is scanned for: start_timer leaves a small number in it */
	interrupted 8, SOURCE, TARGET, (LENGTH / 8), 0, 1, repne scasq
	ret

/* At CPL 3: what is left when it comes back is the same. */
user_strings:
	mov	rdi, offset test_pt
	xor	ecx, ecx
1:	mov	rax, rcx
	shl	rax, 12
	add	rax, TARGET + (PTE_P|PTE_W|PTE_U)
	mov	[rdi + rcx * 8], rax
	inc	ecx
	cmp	ecx, 512
	jne	1b
	mov	qword ptr [user_flags], F_IF | 2
	mov	r12d, ROUNDS
2:	forget
	start_timer
	mov	rsi, TEST_VA
	mov	rdi, TEST_VA + 0x100000
	mov	ecx, 0x100000
	user_ok(rep movsb)
	expect(rcx, 0)
	expect(rsi, TEST_VA + 0x100000)
	expect(rdi, TEST_VA + 0x200000)
	dec	r12d
	jnz	2b
	mov	qword ptr [user_flags], 2
	ret

/* ---- what wakes HLT, and what does not touch a running processor ---- */

/* An NMI wakes HLT whatever IF says, and returns behind it. */
halted_nmi:
	lapic_write 0x380, 0
	sti
	nop
	nop
	cli
	.irp	flag, sti, cli
	mov	dword ptr [irq_counts + NMI * 4], 0
	forget
	nmi_source 0
	pit	0, 5000
	\flag
1:	hlt
2:	cli
	mov	eax, [irq_counts + NMI * 4]
	expect(rax, 1)
	expect([irq_ip], offset 2b)
	nmi_source 0x10000
	.endr
	/* the PICs' output as NMI: LINT0 */
	mov	dword ptr [irq_counts + NMI * 4], 0
	pic_init 1
	lapic_write 0x350, 0x400
	pit	0, 5000
1:	hlt
2:	lapic_write 0x350, 0x10000
	mov	eax, [irq_counts + NMI * 4]
	expect(rax, 1)
	expect([irq_ip], offset 2b)
	pic_init
	ret

/*
 * SIPI means something only to a processor that waits for it; INIT de-assert only sets arbitration IDs, where it
 * does anything (SDM 3A 8.4, 10.6.1).
 */
startup_ipis:
	mov	r12d, 0x1234
	lapic_write 0x310, 0
	.irp	command, 0x4608, 0x4610, 0x8500
	lapic_write 0x300, \command
	mov	ecx, 1000
1:	loop	1b
	.endr
	expect(r12, 0x1234)
	mov	rax, cr0
	and	eax, 0x80000001
	mov	ecx, 0x80000001
	expect(rax, rcx)
	/* nor does a SIPI end HLT */
	lapic_write 0x300, 0x4608
	forget
	start_timer
	sti
	hlt
1:	cli
	expect([irq_total], 1)
	expect([irq_ip], offset 1b)
	ret

/*
 * An interrupt that comes at the very moment at which the processor halts: what the guest does next is done.
 */
behind_halt:
	lapic_write 0x3e0, 11		/* divide by 1 */
	mov	r12d, HALTS
	mov	edx, LATCH
1:	mov	eax, [delay]
	imul	eax, eax, 1103515245
	add	eax, 12345
	mov	[delay], eax
	shr	eax, 20
	add	eax, 100
	lapic_write 0x380, eax
	sti
	hlt
	cli
	lea	eax, [r12 * 4]
	mov	ecx, eax
	out	dx, eax
	in	eax, dx
	cmp	eax, ecx
	je	2f
	inc	dword ptr [wrong]
2:	dec	r12d
	jnz	1b
	mov	eax, [wrong]
	expect(rax, 0)
	ret

	.data
	.balign	8
delay:	.quad	1

	.bss
	.balign	8
target:	.skip	8
looked_ip: .skip 8
looked_cx: .skip 8
looked_si: .skip 8
looked_di: .skip 8
looked_r8: .skip 8
looked_r9: .skip 8
looked_r10: .skip 8
looked_flags: .skip 8
wrong:	.skip	8
