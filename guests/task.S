/* Hardware task switches: JMP, CALL, IRET, task gates, and what goes wrong (SDM vol. 3A chapter 7); 32-bit TSSs, and a
 * 16-bit one. */
#include "lib.h"
GUEST(task)

#define TSS_B	  (GDT_FREE)
#define TASK_GATE (GDT_FREE + 8)
#define TSS_C	  (GDT_FREE + 16) /* 16 bits; its code and stack, which have to lie below 64 KiB of something */
#define CODE_C	  (GDT_FREE + 24)
#define STACK_C	  (GDT_FREE + 32)

/* Offsets in a 32-bit TSS (figure 7-2) */
#define TSS_LINK   0
#define TSS_ESP0   4
#define TSS_SS0	   8
#define TSS_CR3	   28
#define TSS_EIP	   32
#define TSS_EFLAGS 36
#define TSS_EAX	   40
#define TSS_EBX	   52
#define TSS_ESP	   56
#define TSS_ES	   72
#define TSS_CS	   76
#define TSS_SS	   80
#define TSS_DS	   84
#define TSS_FS	   88
#define TSS_GS	   92
#define TSS_LDT	   96
#define TSS_TRAP   100
#define TSS_IOMAP  102
/* in a 16-bit one (figure 7-10) */
#define TSS16_IP    14
#define TSS16_FLAGS 16
#define TSS16_BX    24
#define TSS16_SP    26
#define TSS16_SI    30
#define TSS16_ES    34
#define TSS16_CS    36
#define TSS16_SS    38
#define TSS16_DS    40

guest_main:
	call	prepare
	call	by_jump
	call	by_call
	call	by_gate
	call	by_interrupt
	call	fault_with_error
	call	refused
	call	bad_new_task
	call	bad_v86_task
	call	trap_bit
	call	by_16_bits
	ret

/* Task B: entry point in EBX of the caller, interrupts off. Clobbers EAX, ECX, EDI. */
prepare:
	mov	edi, offset tss_b
	mov	ecx, 26
	xor	eax, eax
	rep stosd
	mov	dword ptr [tss_b + TSS_ESP], offset stack_b_top
	mov	dword ptr [tss_b + TSS_EFLAGS], 2
	mov	dword ptr [tss_b + TSS_CS], KCS
	mov	dword ptr [tss_b + TSS_SS], KDATA
	mov	dword ptr [tss_b + TSS_DS], KDATA
	mov	dword ptr [tss_b + TSS_ES], KDATA
	mov	word ptr [tss_b + TSS_IOMAP], 0x68
	mov	eax, offset tss_b
	mov	word ptr [gdt + TSS_B], 0x67
	mov	[gdt + TSS_B + 2], ax
	shr	eax, 16
	mov	[gdt + TSS_B + 4], al
	mov	byte ptr [gdt + TSS_B + 5], 0x89
	mov	byte ptr [gdt + TSS_B + 6], 0
	mov	[gdt + TSS_B + 7], ah
	mov	dword ptr [gdt + TASK_GATE], TSS_B << 16
	mov	dword ptr [gdt + TASK_GATE + 4], 0x8500
	ret

.macro expect_type selector, want, line
	movzx	eax, byte ptr [gdt + \selector + 5]
	check_equal eax, \want, \line
.endm

/* There and back: the state of each task is where it was. */
by_jump:
	call	prepare
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	dword ptr [tss_b + TSS_EBX], 0xbbbb
	mov	dword ptr [tss_b + TSS_EFLAGS], F_CF | F_DF | 2
	mov	ebx, 0xaaaa
	mov	esi, esp
	jmp	TSS_B:0x1234		/* the offset means nothing */
2:	/* back in the first task */
	expect(ebx, 0xaaaa)
	mov	eax, esp
	expect(eax, esi)
	expect([seen_ebx], 0xbbbb)
	mov	eax, offset stack_b_top
	expect([seen_esp], eax)
	mov	eax, [seen_flags]
	and	eax, F_CF | F_DF | F_NT
	expect(eax, F_CF | F_DF)		/* JMP nests nothing */
	expect([seen_tr], TSS_B)
	/* the outgoing state was saved: EIP of the instruction after the jump back, EBX as left */
	mov	eax, [tss_b + TSS_EBX]
	expect(eax, 0xb0b0)
	expect_type TSS_SEL, 0x8b, __LINE__
	expect_type TSS_B, 0x89, __LINE__
	str	ax
	movzx	eax, ax
	expect(eax, TSS_SEL)
	/* each switch sets CR0.TS */
	mov	eax, cr0
	and	eax, 8
	expect(eax, 8)
	clts
	ret
1:	mov	[seen_ebx], ebx
	mov	[seen_esp], esp
	pushf
	pop	dword ptr [seen_flags]
	str	ax
	movzx	eax, ax
	mov	[seen_tr], eax
	movzx	eax, byte ptr [gdt + TSS_SEL + 5]
	mov	[seen_type], eax
	cld
	mov	ebx, 0xb0b0
	jmp	TSS_SEL:0

/* CALL nests: NT, the link, both busy; IRET with NT goes back. */
by_call:
	call	prepare
	expect([seen_type], 0x89)		/* of the first task while the second ran by JMP */
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	ebx, 0xaaaa
	stc
	call	TSS_B:0
	expect_flags(F_CF | F_NT, F_CF)
	expect(ebx, 0xaaaa)
	expect_type TSS_SEL, 0x8b, __LINE__
	expect_type TSS_B, 0x89, __LINE__
	movzx	eax, word ptr [tss_b + TSS_LINK]
	expect(eax, TSS_SEL)
	mov	eax, [seen_flags]
	and	eax, F_NT
	expect(eax, F_NT)
	expect([seen_type], 0x8b)
	mov	eax, [tss_b + TSS_EFLAGS]	/* IRET clears NT in what it saves */
	and	eax, F_NT
	expect(eax, 0)
	/* again: B goes on behind its IRET */
	call	TSS_B:0
	expect([seen_ebx], 0x222)
	clts
	ret
1:	pushf
	pop	dword ptr [seen_flags]
	movzx	eax, byte ptr [gdt + TSS_SEL + 5]
	mov	[seen_type], eax
	iretd
	mov	dword ptr [seen_ebx], 0x222
	iretd

by_gate:
	call	prepare
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	dword ptr [seen_ebx], 0
	call	TASK_GATE:0
	expect([seen_ebx], 0x333)
	/* at CPL 3 the gate's DPL decides, not the TSS's */
	expect_user_fault(GP, TASK_GATE, call TASK_GATE:0)
	expect_user_fault(GP, TSS_B, call TSS_B:0)
	mov	byte ptr [gdt + TASK_GATE + 5], 0xe5
	mov	dword ptr [seen_ebx], 0
	user_ok(call (TASK_GATE + 3):0; mov ecx, cs)
	expect([seen_ebx], 0x333)
	expect(ecx, UCODE32)
	clts
	ret
1:	mov	dword ptr [seen_ebx], 0x333
	iretd
	jmp	1b

/* A task gate in the IDT. */
by_interrupt:
	call	prepare
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	dword ptr [seen_ebx], 0
	mov	dword ptr [idt + 0x60 * 8], TSS_B << 16
	mov	dword ptr [idt + 0x60 * 8 + 4], 0x8500
	sti
	int	0x60
	expect_flags(F_IF, F_IF)
	cli
	expect([seen_ebx], 0x444)
	mov	eax, [seen_flags]
	and	eax, F_IF | F_NT
	expect(eax, F_NT)			/* IF is the new task's */
	reset_gate 0x60
	clts
	ret
1:	mov	dword ptr [seen_ebx], 0x444
	pushf
	pop	dword ptr [seen_flags]
	iretd
	jmp	1b

/* An exception with error code by a task gate: the code is on the new task's stack. */
fault_with_error:
	call	prepare
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	dword ptr [idt + GP * 8], TSS_B << 16
	mov	dword ptr [idt + GP * 8 + 4], 0x8500
	mov	eax, GDT_ENTRIES * 8
2:	mov	fs, eax
3:	expect([seen_ebx], GDT_ENTRIES * 8)
	mov	eax, offset 2b
	expect([seen_flags], eax)		/* EIP saved is the faulting instruction's */
	reset_gate GP
	xor	eax, eax
	mov	fs, eax
	clts
	ret
1:	pop	dword ptr [seen_ebx]
	mov	eax, [tss + TSS_EIP]
	mov	[seen_flags], eax
	mov	dword ptr [tss + TSS_EIP], offset 3b
	iretd

refused:
	call	prepare
	/* busy, too short, not present */
	expect_fault(GP, TSS_SEL, jmp TSS_SEL:0)
	expect_fault(GP, TSS_SEL, call TSS_SEL:0)
	mov	byte ptr [gdt + TSS_B + 5], 0x8b
	expect_fault(GP, TSS_B, jmp TSS_B:0)
	mov	byte ptr [gdt + TSS_B + 5], 0x09
	expect_fault(NP, TSS_B, call TSS_B:0)
	mov	byte ptr [gdt + TSS_B + 5], 0x89
	mov	word ptr [gdt + TSS_B], 0x66
	expect_fault(TS, TSS_B, jmp TSS_B:0)
	expect_type TSS_B, 0x89, __LINE__
	mov	word ptr [gdt + TSS_B], 0x67
	/* gates to what is no TSS */
	mov	word ptr [gdt + TASK_GATE + 2], KDATA
	expect_fault(GP, KDATA, jmp TASK_GATE:0)
	mov	word ptr [gdt + TASK_GATE + 2], 0
	expect_fault(GP, 0, jmp TASK_GATE:0)
	mov	byte ptr [gdt + TASK_GATE + 5], 0x05
	expect_fault(NP, TASK_GATE, jmp TASK_GATE:0)
	/* IRET with NT to a task that is not busy */
	mov	word ptr [tss + TSS_LINK], TSS_B
	push	F_NT | 2
	popf
	expect_fault(TS, TSS_B, iretd)
	push	2
	popf
	mov	word ptr [tss + TSS_LINK], 0
	ret

/* A fault after the switch is the new task's: #TS with the selector that would not load. */
bad_new_task:
	call	prepare
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	dword ptr [tss_b + TSS_DS], GDT_ENTRIES * 8
	arm	1f
	mov	ebx, esp
	mov	esi, esp
	mov	[seen_esp], esp
	call	TSS_B:0
1:	disarm
	expect([fault_vector], TS)
	expect([fault_error], GDT_ENTRIES * 8)
	str	ax
	movzx	eax, ax
	expect(eax, TSS_B)
	/* home again */
	clts
	mov	dword ptr [tss + TSS_EIP], offset 2f
	jmp	1f
1:	pushf
	or	dword ptr [esp], F_NT
	popf
	iretd
2:	str	ax
	movzx	eax, ax
	expect(eax, TSS_SEL)
	expect(esi, ebx)
	mov	eax, esp
	expect(eax, [seen_esp])
	clts
	ret

/* The same in virtual-8086 mode, whose segments need no descriptors; the LDT does. */
bad_v86_task:
	call	prepare
	mov	dword ptr [tss_b + TSS_ESP0], offset stack_b_top
	mov	dword ptr [tss_b + TSS_SS0], KDATA
	mov	dword ptr [tss_b + TSS_EFLAGS], F_VM | 2
	mov	dword ptr [tss_b + TSS_CS], 0x1234
	mov	dword ptr [tss_b + TSS_LDT], GDT_ENTRIES * 8
	set_gate TS, note_bad_task
	jmp	TSS_B:0
	reset_gate TS
	expect([seen_ebx], GDT_ENTRIES * 8)
	expect([seen_esp], 0x1234)
	mov	eax, [seen_flags]
	and	eax, F_VM
	expect(eax, F_VM)
	clts
	ret

/* The T bit of a TSS: #DB before the new task's first instruction, DR6.BT. */
trap_bit:
	call	prepare
	mov	eax, 0xffff0ff0
	mov	dr6, eax
	mov	dword ptr [tss_b + TSS_EIP], offset 1f
	mov	word ptr [tss_b + TSS_TRAP], 1
	set_gate DB, note_trap
	mov	dword ptr [seen_ebx], 0
	call	TSS_B:0
	reset_gate DB
	expect([seen_ebx], 0x8000)
	mov	eax, offset 1f
	expect([seen_esp], eax)
	clts
	ret
1:	iretd

/* A descriptor: @type is bytes 5 and 6. Clobbers EAX. */
.macro describe selector, base, limit, type
	mov	eax, offset \base
	mov	word ptr [gdt + \selector], \limit
	mov	[gdt + \selector + 2], ax
	shr	eax, 16
	mov	[gdt + \selector + 4], al
	mov	word ptr [gdt + \selector + 5], \type
	mov	[gdt + \selector + 7], ah
.endm

/* Into a task of 16 bits and out of it; twice, the second time it goes on where it was. */
by_16_bits:
	mov	edi, offset tss_c
	mov	ecx, 11
	xor	eax, eax
	rep stosd
	describe TSS_C, tss_c, 43, 0x0081
	describe CODE_C, code_c, 0xfff, 0x409b
	describe STACK_C, stack_c, 0xff, 0x4093
	mov	word ptr [tss_c + TSS16_SP], 0x100
	mov	word ptr [tss_c + TSS16_FLAGS], F_CF | 2
	mov	word ptr [tss_c + TSS16_BX], 0xcccc
	mov	word ptr [tss_c + TSS16_SI], 0x5151
	mov	word ptr [tss_c + TSS16_CS], CODE_C
	mov	word ptr [tss_c + TSS16_SS], STACK_C
	mov	word ptr [tss_c + TSS16_DS], KDATA
	mov	word ptr [tss_c + TSS16_ES], KDATA
	mov	ebx, 0xaaaabbbb
	mov	esi, esp
	call	TSS_C:0
	expect(ebx, 0xaaaabbbb)
	mov	eax, esp
	expect(eax, esi)
	expect([seen_ebx], 0x5151cccc)
	expect([seen_esp], 0x100)
	mov	eax, [seen_flags]
	and	eax, F_CF | F_NT
	expect(eax, F_CF | F_NT)
	movzx	eax, word ptr [tss_c]
	expect(eax, TSS_SEL)
	movzx	eax, word ptr [tss_c + TSS16_BX]
	expect(eax, 0x7777)
	movzx	eax, word ptr [tss_c + TSS16_IP]
	mov	ecx, offset 2f
	sub	ecx, offset code_c
	expect(eax, ecx)
	movzx	eax, word ptr [tss_c + TSS16_FLAGS]
	and	eax, F_NT
	expect(eax, 0)
	expect_type TSS_C, 0x81, __LINE__
	call	TSS_C:0
	expect([seen_ebx], 0x7777)
	/* one byte less is too short for it */
	mov	word ptr [gdt + TSS_C], 42
	expect_fault(TS, TSS_C, jmp TSS_C:0)
	clts
	ret
code_c:
	mov	[seen_ebx], bx
	mov	[seen_ebx + 2], si
	movzx	eax, sp
	mov	[seen_esp], eax
	pushf
	pop	dword ptr [seen_flags]
	mov	ebx, 0x7777
	iretd
2:	movzx	ebx, bx
	mov	[seen_ebx], ebx
	iretd

note_bad_task:
	mov	eax, KDATA
	mov	ds, eax
	pop	dword ptr [seen_ebx]
	mov	eax, [esp + 4]
	mov	[seen_esp], eax
	mov	eax, [esp + 8]
	mov	[seen_flags], eax
	jmp	TSS_SEL:0

note_trap:
	push	eax
	mov	eax, dr6
	and	eax, 0xe00f
	mov	[seen_ebx], eax
	mov	eax, [esp + 4]
	mov	[seen_esp], eax
	pop	eax
	iretd

	.bss
	.balign	16
tss_b:	.skip	0x68
tss_c:	.skip	44
seen_ebx: .skip	4
seen_esp: .skip	4
seen_flags: .skip 4
seen_tr: .skip	4
seen_type: .skip 4
	.skip	4096
stack_b_top:
stack_c: .skip	0x104
