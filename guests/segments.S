/*
 * Segmentation in 32-bit protected mode: limits, types, loads, far transfers, call gates, and the
 * instructions that ask about descriptors (SDM vol. 3A chapters 3 and 5).
 */
#include "lib.h"
GUEST(segments)

#define SEL_A (GDT_FREE)
#define SEL_B (GDT_FREE + 8)
#define GATE  (GDT_FREE + 16)

/* Access bytes: present, DPL 0 */
#define DATA_RO	     0x90
#define DATA_RW	     0x92
#define DATA_DOWN    0x96
#define CODE_X	     0x98
#define CODE_RX	     0x9a
#define CODE_CONFORM 0x9e
#define SIZE_32	     4
#define PAGES	     8

/* A descriptor: @flags is G, D/B, L, AVL. Clobbers EAX. */
.macro segment selector, base, limit, access, flags
	mov	eax, \base
	mov	[gdt + \selector + 2], ax
	shr	eax, 16
	mov	[gdt + \selector + 4], al
	mov	[gdt + \selector + 7], ah
	mov	eax, \limit
	mov	[gdt + \selector], ax
	shr	eax, 16
	or	al, (\flags) << 4
	mov	[gdt + \selector + 6], al
	mov	byte ptr [gdt + \selector + 5], \access
.endm

/* Clobbers EAX. */
.macro load register, selector
	mov	eax, \selector
	mov	\register, eax
.endm

guest_main:
	call	expand_up
	call	expand_down
	call	page_granular
	call	types
	call	null
	call	stack_segment
	call	small_stack
	call	strings_and_limits
	call	far_transfers
	call	code_limit
	call	call_gate_same
	call	call_gate_inner
	call	conforming
	call	questions
	call	checks_of_old
	ret

expand_up:
	segment SEL_A, "offset scratch", 0xff, DATA_RW, SIZE_32
	load	es, SEL_A
	mov	dword ptr [scratch + 0xfc], 0x12345678
	mov	eax, es:[0xfc]
	expect(eax, 0x12345678)
	movzx	eax, byte ptr es:[0xff]
	expect(eax, 0x12)
	mov	byte ptr es:[0xff], 0x55
	movzx	eax, byte ptr [scratch + 0xff]
	expect(eax, 0x55)
	expect_fault(GP, 0, mov eax, es:[0xfd])
	expect_fault(GP, 0, mov al, es:[0x100])
	expect_fault(GP, 0, mov es:[0xfe], eax)
	expect_fault(GP, 0, mov al, es:[-1])
	expect_fault(GP, 0, mov eax, es:[-2])
	expect_fault(GP, 0, inc word ptr es:[0xff])
	expect_fault(GP, 0, movups xmm0, es:[0xf8])
	/* the descriptor is marked accessed */
	movzx	eax, byte ptr [gdt + SEL_A + 5]
	expect(eax, DATA_RW + 1)
	/* a changed descriptor counts from the next load on */
	mov	word ptr [gdt + SEL_A], 0x1ff
	expect_fault(GP, 0, mov al, es:[0x100])
	load	es, SEL_A
	mov	al, es:[0x100]
	load	es, KDATA
	ret

expand_down:
	segment SEL_A, "offset scratch", 0xff, DATA_DOWN, 0
	load	es, SEL_A
	mov	dword ptr es:[0x100], 1
	expect_fault(GP, 0, mov al, es:[0xff])
	expect_fault(GP, 0, mov eax, es:[0xfd])
	expect_fault(GP, 0, mov al, es:[0x10000])	/* B = 0: up to 0xffff */
	segment SEL_A, "offset scratch", 0xff, DATA_DOWN, SIZE_32
	load	es, SEL_A
	mov	eax, es:[0x10000]
	expect_fault(GP, 0, mov al, es:[0xff])
	expect_fault(GP, 0, mov eax, es:[-2])		/* beyond 0xffffffff */
	load	es, KDATA
	ret

page_granular:
	segment SEL_A, "offset scratch", 0, DATA_RW, (SIZE_32|PAGES)
	load	es, SEL_A
	mov	eax, es:[0xffc]
	expect_fault(GP, 0, mov eax, es:[0xffd])
	/* base and offset add modulo 4 GiB */
	mov	dword ptr [scratch], 0x600d
	segment SEL_A, "offset scratch + 0x1000", 0xfffff, DATA_RW, (SIZE_32|PAGES)
	load	es, SEL_A
	mov	eax, es:[-0x1000]
	expect(eax, 0x600d)
	load	es, KDATA
	ret

types:
	segment SEL_A, "offset scratch", 0xfff, DATA_RO, SIZE_32
	load	es, SEL_A
	mov	eax, es:[0]
	expect_fault(GP, 0, mov es:[0], eax)
	expect_fault(GP, 0, or dword ptr es:[0], 0)
	mov	eax, SEL_A
	expect_fault(GP, SEL_A, mov ss, eax)
	segment SEL_A, "offset scratch", 0xfff, CODE_RX, SIZE_32
	load	es, SEL_A
	mov	eax, es:[0]
	expect_fault(GP, 0, mov es:[0], eax)
	load	es, KDATA
	segment SEL_A, "offset scratch", 0xfff, CODE_X, SIZE_32
	mov	eax, SEL_A
	expect_fault(GP, SEL_A, mov es, eax)
	mov	eax, cs:[scratch]		/* our own code segment is readable, never writable */
	expect_fault(GP, 0, mov cs:[scratch], eax)
	/* DPL, RPL */
	segment SEL_A, 0, 0xfffff, DATA_RW, (SIZE_32|PAGES)
	mov	eax, SEL_A + 3
	expect_fault(GP, SEL_A, mov es, eax)	/* RPL 3 > DPL 0 */
	mov	ecx, SEL_A
	expect_user_fault(GP, SEL_A, mov es, ecx)
	load	es, KDATA
	ret

null:
	xor	eax, eax
	mov	es, eax
	expect_fault(GP, 0, mov eax, es:[0])
	mov	eax, 3
	mov	es, eax				/* null whatever the RPL */
	expect_fault(GP, 0, mov es:[scratch], eax)
	load	es, KDATA
	xor	eax, eax
	expect_fault(GP, 0, mov ss, eax)
	ret

/* A stack of its own base; faults through it are #SS. */
stack_segment:
	segment SEL_A, "offset scratch", 0xfff, DATA_RW, SIZE_32
	mov	ebx, esp
	load	ss, SEL_A
	mov	esp, 0x1000
	push	0x1234
	mov	ebp, esp
	mov	ecx, [ebp]
	mov	edx, [ebp + 4 - 4]
	mov	eax, KDATA
	mov	ss, eax
	mov	esp, ebx
	expect(ecx, 0x1234)
	expect(ebp, 0xffc)
	mov	eax, [scratch + 0xffc]
	expect(eax, 0x1234)
	load	ss, SEL_A
	mov	esp, 0x800
	mov	ebp, 0x1000
	arm	1f
	mov	eax, [ebp - 3]
1:	mov	eax, KDATA
	mov	ss, eax
	mov	esp, ebx
	disarm
	expect([fault_vector], SS_VECTOR)
	expect([fault_error], 0)
	ret

/* B = 0: SP wraps at 64 KiB and the upper half of ESP stays. */
small_stack:
	segment SEL_A, "offset scratch", 0xffff, DATA_RW, 0
	mov	ebx, esp
	load	ss, SEL_A
	mov	esp, 0x12340002
	pushw	0x55aa
	mov	ecx, esp
	pushw	0x66bb
	mov	edx, esp
	popw	ax
	mov	esi, esp
	push	KDATA
	pop	ss
	mov	esp, ebx
	expect(ecx, 0x12340000)
	expect(edx, 0x1234fffe)
	expect(esi, 0x12340000)
	movzx	eax, word ptr [scratch]
	expect(eax, 0x55aa)
	ret

strings_and_limits:
	segment SEL_A, "offset scratch", 0xff, DATA_RW, SIZE_32
	load	es, SEL_A
	mov	edi, 0xf0
	mov	ecx, 0x20
	mov	al, 0
	expect_fault(GP, 0, rep stosb)
	expect(ecx, 0x10)
	expect(edi, 0x100)
	mov	edi, 0xf8
	mov	esi, offset scratch + 0x400
	mov	ecx, 5
	expect_fault(GP, 0, rep movsd)
	expect(ecx, 3)
	expect(edi, 0x100)
	expect(esi, offset scratch + 0x408)
	std
	mov	edi, 4
	mov	ecx, 9
	expect_fault(GP, 0, rep stosd)
	expect(ecx, 7)
	expect(edi, -4)
	cld
	/* 16-bit addresses */
	load	es, KDATA
	segment SEL_A, "offset scratch", 0x1ffff, DATA_RW, SIZE_32
	load	es, SEL_A
	mov	edi, 0x1234fffe
	mov	ecx, 0x10004
	mov	al, 0x77
	addr16 rep stosb
	expect(edi, 0x12340002)
	expect(ecx, 0x10000)
	load	es, KDATA
	movzx	eax, byte ptr [scratch + 1]
	expect(eax, 0x77)
	/* a displacement alone is no negative number, alone or with a register */
	segment SEL_A, "offset scratch - 0x9000", 0x1ffff, DATA_RW, SIZE_32
	load	es, SEL_A
	mov	dword ptr [scratch + 0x10], 0x12345678
	xor	ebx, ebx
	.byte	0x26, 0x67, 0x8b, 0x1e, 0x10, 0x90	/* mov ebx, es:[0x9010] */
	expect(ebx, 0x12345678)
	mov	ebx, 0xffff0008
	.byte	0x26, 0x67, 0x8b, 0x87, 0x08, 0x90	/* mov eax, es:[bx + 0x9008] */
	expect(eax, 0x12345678)
	load	es, KDATA
	ret

far_transfers:
	segment SEL_A, 0, 0xfffff, CODE_RX, (SIZE_32|PAGES)
	mov	ebx, esp
	jmp	SEL_A:1f
1:	mov	eax, cs
	expect(eax, SEL_A)
	jmp	KCS:2f
2:	call	SEL_A:far_function
	mov	eax, cs
	expect(eax, KCS)
	expect(ecx, SEL_A)
	expect(edx, KCS)
	push	1
	push	2
	mov	dword ptr [scratch], offset far_function_8
	mov	word ptr [scratch + 4], SEL_A
	call	fword ptr [scratch]
	mov	eax, esp
	expect(eax, ebx)
	/* refused */
	expect_fault(GP, KDATA, jmp KDATA:2b)
	expect_fault(GP, 0, jmp 0:2b)
	segment SEL_A, 0, 0xfffff, (CODE_RX&0x7f), (SIZE_32|PAGES)
	expect_fault(NP, SEL_A, jmp SEL_A:2b)
	expect_fault(NP, SEL_A, call SEL_A:2b)
	mov	eax, esp
	expect(eax, ebx)
	segment SEL_A, 0, 0xff, CODE_RX, SIZE_32
	expect_fault(GP, 0, jmp SEL_A:0x100)
	/* LES, LSS, push and pop of segment registers */
	mov	dword ptr [scratch], 0xabcd
	mov	word ptr [scratch + 4], UDATA
	les	ecx, [scratch]
	expect(ecx, 0xabcd)
	mov	eax, es
	expect(eax, UDATA)
	mov	word ptr [scratch + 4], (GDT_ENTRIES * 8)
	expect_fault(GP, GDT_ENTRIES * 8, lds ecx, [scratch])
	mov	eax, ds
	expect(eax, KDATA)
	push	KDATA
	pop	es
	mov	eax, esp
	expect(eax, ebx)
	ret

far_function:
	mov	ecx, cs
	mov	edx, [esp + 4]
	retf
far_function_8:
	retf	8

/* Running off the end of a code segment: #GP at the instruction that does not fit. */
code_limit:
	segment SEL_A, "offset short_code", (short_code_end-short_code), CODE_RX, SIZE_32
	arm	1f
	jmp	SEL_A:0
1:	disarm
	expect(dword ptr [fault_vector], GP)
	expect(dword ptr [fault_error], 0)
	expect(dword ptr [fault_ip], 2)
	expect(dword ptr [fault_cs], SEL_A)
	ret

short_code:
	nop
	nop
	mov	eax, 0x12345678		/* its last byte is beyond the limit */
	.set	short_code_end, . - 2

.macro gate offset, selector, dpl, parameters
	mov	eax, \offset
	mov	[gdt + GATE], ax
	mov	word ptr [gdt + GATE + 2], \selector
	mov	byte ptr [gdt + GATE + 4], \parameters
	mov	byte ptr [gdt + GATE + 5], 0x8c | (\dpl << 5)
	shr	eax, 16
	mov	[gdt + GATE + 6], ax
.endm

call_gate_same:
	gate	"offset far_function", KCS, 0, 0
	mov	ebx, esp
	call	GATE:0x12345678		/* the offset is the gate's */
	expect(ecx, KCS)
	expect(edx, KCS)
	mov	eax, esp
	expect(eax, ebx)
	gate	"offset 1f", KCS, 0, 0
	jmp	GATE:0
	fail()
1:	expect_user_fault(GP, GATE, call GATE:0)	/* DPL 0 */
	gate	"offset far_function", 0, 0, 0
	expect_fault(GP, 0, call GATE:0)
	gate	"offset far_function", KDATA, 0, 0
	expect_fault(GP, KDATA, call GATE:0)
	mov	byte ptr [gdt + GATE + 5], 0x0c
	expect_fault(NP, GATE, call GATE:0)
	ret

/* From CPL 3: the stack of the TSS, two parameters copied, RETF 8 takes them off both. */
call_gate_inner:
	gate	"offset inner", KCS, 3, 2
	user_ok(push 0x1111; push 0x2222; call (GATE + 3):0; mov esi, esp; mov edi, cs)
	mov	eax, offset user_stack_top
	expect(esi, eax)
	expect(edi, UCODE32)
	expect([gate_cs], KCS)
	expect([gate_ss], KDATA)
	mov	eax, offset trap_stack_top - 24
	expect([gate_esp], eax)
	mov	eax, offset user_stack_top - 8
	expect([gate_frame + 16], eax)
	expect([gate_frame + 20], UDATA)
	expect([gate_frame + 8], 0x2222)
	expect([gate_frame + 12], 0x1111)
	expect([gate_frame + 4], UCODE32)
	ret

inner:
	push	ds
	push	KDATA
	pop	ds
	push	KDATA
	pop	es
	mov	eax, cs
	mov	[gate_cs], eax
	mov	eax, ss
	mov	[gate_ss], eax
	lea	eax, [esp + 4]
	mov	[gate_esp], eax
	mov	esi, eax
	mov	edi, offset gate_frame
	mov	ecx, 6
	rep movsd
	pop	ds
	retf	8

/* Conforming code runs at the caller's level. */
conforming:
	segment SEL_A, 0, 0xfffff, CODE_CONFORM, (SIZE_32|PAGES)
	user_ok(call SEL_A:far_function; mov edi, cs)
	expect(ecx, SEL_A + 3)
	expect(edi, UCODE32)
	ret

questions:
	segment SEL_A, 0x12345678, 0xabcde, DATA_RW, (SIZE_32|PAGES)
	mov	ecx, SEL_A
	lar	eax, ecx
	expect_flags(F_ZF, F_ZF)
	and	eax, 0xf0ff00
	expect(eax, 0xc09200)
	lsl	eax, ecx
	expect_flags(F_ZF, F_ZF)
	expect(eax, 0xabcdefff)
	verr	cx
	expect_flags(F_ZF, F_ZF)
	verw	cx
	expect_flags(F_ZF, F_ZF)
	mov	ecx, KCS
	verw	cx
	expect_flags(F_ZF, 0)
	verr	cx
	expect_flags(F_ZF, F_ZF)
	xor	ecx, ecx
	mov	eax, 0x77
	lar	eax, ecx
	expect_flags(F_ZF, 0)
	expect(eax, 0x77)			/* untouched */
	lsl	eax, ecx
	expect_flags(F_ZF, 0)
	mov	ecx, GDT_ENTRIES * 8
	lar	eax, ecx
	expect_flags(F_ZF, 0)
	/* system types: a TSS has a limit, a gate only rights */
	mov	ecx, TSS_SEL
	lsl	eax, ecx
	expect_flags(F_ZF, F_ZF)
	expect(eax, 0x67)
	mov	ecx, GATE
	lsl	eax, ecx
	expect_flags(F_ZF, 0)
	verr	cx
	expect_flags(F_ZF, 0)
	lar	eax, ecx
	expect_flags(F_ZF, F_ZF)
	/* at CPL 3 nothing of DPL 0 can be seen */
	mov	ecx, KDATA
	user_ok(lar eax, ecx; setz dl)
	movzx	edx, dl
	expect(edx, 0)
	mov	ecx, UDATA
	user_ok(lar eax, ecx; setz dl)
	movzx	edx, dl
	expect(edx, 1)
	/* ARPL */
	mov	eax, 0x10
	mov	ecx, 3
	arpl	ax, cx
	expect_flags(F_ZF, F_ZF)
	expect(eax, 0x13)
	arpl	ax, cx
	expect_flags(F_ZF, 0)
	/* the registers themselves */
	str	ax
	movzx	eax, ax
	expect(eax, TSS_SEL)
	sldt	ax
	movzx	eax, ax
	expect(eax, 0)
	sgdt	[scratch]
	movzx	eax, word ptr [scratch]
	expect(eax, GDT_ENTRIES * 8 - 1)
	mov	eax, [scratch + 2]
	mov	ecx, offset gdt
	expect(eax, ecx)
	/* an LDT */
	mov	dword ptr [ldt], 0x0000ffff
	mov	dword ptr [ldt + 4], 0x00cf9300
	segment SEL_B, "offset ldt", 7, 0x82, 0
	mov	eax, SEL_B
	lldt	ax
	mov	eax, 4
	mov	es, eax
	mov	ecx, es:[ldt]
	expect(ecx, 0xffff)
	mov	eax, 12
	expect_fault(GP, 12, mov es, eax)
	load	es, KDATA
	xor	eax, eax
	lldt	ax
	mov	eax, 4
	expect_fault(GP, 4, mov es, eax)
	ret

/* Instructions that 64-bit mode has not. */
checks_of_old:
	mov	dword ptr [scratch], -5
	mov	dword ptr [scratch + 4], 5
	mov	eax, 5
	bound	eax, [scratch]
	mov	eax, 6
	expect_fault(BR, 0, bound eax, [scratch])
	mov	eax, -6
	expect_fault(BR, 0, bound eax, [scratch])
	xor	eax, eax
	into
	mov	eax, 0x7fffffff
	inc	eax
	expect_trap(OF, into)
	mov	eax, 0x1234
	expect_fault(DE, 0, .byte 0xd4; .byte 0)	/* AAM 0 */
	mov	eax, 99
	aam
	expect(eax, 0x909)
	aad
	expect(eax, 99)
	mov	al, 0x19
	add	al, 0x28
	daa
	movzx	eax, al
	expect(eax, 0x47)
	mov	eax, 0x0f
	aaa
	expect(eax, 0x105)
	stc
	.byte	0xd6		/* SALC */
	movzx	eax, al
	expect(eax, 0xff)
	mov	eax, 1
	mov	ecx, 2
	mov	edx, 3
	mov	ebx, 4
	mov	ebp, 5
	mov	esi, 6
	mov	edi, 7
	pusha
	mov	eax, [esp + 12]
	lea	ecx, [esp + 32]
	expect(eax, ecx)			/* ESP as before */
	xor	edi, edi
	xor	ebx, ebx
	popa
	expect(ebx, 4)
	expect(edi, 7)
	expect(eax, 1)
	ret

	.bss
	.balign	8
gate_cs: .skip	4
gate_ss: .skip	4
gate_esp: .skip	4
gate_frame: .skip 24
ldt:	.skip	8
