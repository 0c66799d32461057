/* Long mode at its plainest: arithmetic and its flags, addressing, the stack, jumps, a little floating point. */
#include "lib.h"
GUEST(basic)
guest_main:
	call	arithmetic
	call	shifts
	call	multiplication
	call	bits
	call	moves
	call	atomics
	call	addressing
	call	the_stack
	call	jumps
	call	loops
	call	floating_point
	ret

/* SDM vol. 1 3.4.3.1 */
arithmetic:
	mov	eax, 0x7fffffff
	add	eax, 1
	expect_flags(F_ARITH, F_OF | F_SF | F_AF | F_PF)
	expect(rax, 0x80000000)
	sub	eax, 0x80000000
	expect_flags(F_ARITH, F_ZF | F_PF)
	sub	eax, 1
	expect_flags(F_ARITH, F_CF | F_SF | F_AF | F_PF)
	expect(rax, 0xffffffff)	/* 32-bit results clear the upper half */
	add	al, 1		/* 8- and 16-bit ones leave the rest alone */
	expect_flags(F_ARITH, F_CF | F_ZF | F_AF | F_PF)
	expect(rax, 0xffffff00)
	add	ax, 0x100
	expect_flags(F_ARITH, F_CF | F_ZF | F_PF)
	expect(rax, 0xffff0000)
	stc
	inc	eax		/* INC and DEC leave CF */
	expect_flags(F_ARITH, F_CF | F_SF)
	stc
	adc	rax, -1
	expect_flags(F_ARITH, F_CF | F_AF)
	expect(rax, 0xffff0001)
	sbb	rax, 0xffff0001 - 0x100000000
	expect(rax, 0xffffffff)
	mov	rbx, 0x8000000000000000
	neg	rbx
	expect_flags(F_CF | F_OF | F_SF | F_ZF, F_CF | F_OF | F_SF)
	xor	ecx, ecx
	expect_flags(F_CF | F_OF | F_SF | F_ZF | F_PF, F_ZF | F_PF)
	not	rcx
	expect_flags(F_CF | F_OF | F_SF | F_ZF | F_PF, F_ZF | F_PF)
	expect(rcx, -1)
	mov	eax, 0x1234
	mov	ah, al		/* high byte registers */
	expect(rax, 0x3434)
	cmp	ah, 0x35
	expect_flags(F_CF | F_ZF, F_CF)
	lahf
	expect(rax, 0x9734)
	mov	ah, 0xd5
	sahf
	expect_flags(F_CF | F_PF | F_AF | F_ZF | F_SF, F_CF | F_PF | F_AF | F_ZF | F_SF)
	cmc
	expect_flags(F_CF, 0)
	ret

shifts:
	mov	eax, 0x80000001
	rol	eax, 1
	expect_flags(F_CF, F_CF)
	expect(rax, 3)
	stc
	rcr	eax, 1
	expect_flags(F_CF, F_CF)
	expect(rax, 0x80000001)
	mov	cl, 33		/* counts are taken modulo 32 */
	shl	eax, cl
	expect_flags(F_CF | F_OF, F_CF | F_OF)
	expect(rax, 2)
	mov	cl, 65
	shl	rax, cl
	expect(rax, 4)
	stc
	mov	cl, 32
	shr	eax, cl		/* count 0: no flag changes */
	expect_flags(F_CF, F_CF)
	mov	rax, -16
	sar	rax, 3
	expect(rax, -2)
	mov	rax, 0x1122334455667788
	mov	rbx, 0x99aabbccddeeff00
	shld	rax, rbx, 12
	expect(rax, 0x233445566778899a)
	shrd	eax, ebx, 8
	expect(rax, 0x677889)
	ret

multiplication:
	mov	rax, -1
	mov	rcx, 3
	mul	rcx
	expect_flags(F_CF | F_OF, F_CF | F_OF)
	expect(rax, -3)
	expect(rdx, 2)
	imul	rax, rcx, -5
	expect_flags(F_CF | F_OF, 0)
	expect(rax, -15)
	mov	rcx, 3
	add	rcx, 1
	cqo
	idiv	rcx
	expect(rax, -3)
	expect(rdx, -3)
	mov	edx, 1
	xor	eax, eax
	mov	ecx, 2
	div	ecx
	expect(rax, 0x80000000)
	expect(rdx, 0)
	mov	ax, 0x0107
	mov	cl, 2
	div	cl
	expect(rax, 0x80000183)
	mov	eax, 0x80
	cbw
	expect(rax, 0xff80)
	cwde
	cdqe
	expect(rax, -128)
	ret

bits:
	mov	rax, 0x00f0000000000000
	bsf	rcx, rax
	expect(rcx, 52)
	bsr	rcx, rax
	expect(rcx, 55)
	xor	eax, eax
	bsf	ecx, eax
	expect_flags(F_ZF, F_ZF)
	mov	rax, 1
	bts	rax, 63
	expect_flags(F_CF, 0)
	btr	rax, 0
	expect_flags(F_CF, F_CF)
	mov	rbx, 0x8000000000000000
	expect(rax, rbx)
	/* a bit offset in a register reaches beyond the operand, both ways (SDM vol. 2, BT) */
	mov	qword ptr [scratch + 64], 0
	mov	rcx, 512 + 5
	bts	qword ptr [scratch], rcx
	expect([scratch + 64], 0x20)
	mov	rcx, -64 + 7
	btc	qword ptr [scratch + 72], rcx
	expect([scratch + 64], 0xa0)
	mov	eax, 0x12345678
	bswap	eax
	expect(rax, 0x78563412)
	ret

moves:
	mov	byte ptr [scratch], 0x80
	movsx	eax, byte ptr [scratch]
	expect(rax, 0xffffff80)
	movsx	rax, byte ptr [scratch]
	expect(rax, -128)
	movzx	eax, byte ptr [scratch]
	expect(rax, 0x80)
	mov	dword ptr [scratch], 0x80000000
	movsxd	rax, dword ptr [scratch]
	expect(rax, 0x80000000 - 0x100000000)
	mov	rax, -1
	mov	ecx, 7
	cmp	ecx, 7
	cmovne	eax, ecx	/* not taken: the upper half is cleared all the same */
	expect(rax, 0xffffffff)
	cmove	rax, rcx
	expect(rax, 7)
	sete	al
	setne	ah
	expect(rax, 1)
	mov	rbx, 2
	xchg	rax, rbx
	expect(rax, 2)
	expect(rbx, 1)
	mov	rax, 0x1122334455667788
	movabs	[scratch], rax
	movabs	al, [scratch + 7]
	expect(rax, 0x1122334455667711)
	ret

atomics:
	mov	qword ptr [scratch], 10
	mov	eax, 5
	lock xadd [scratch], rax
	expect(rax, 10)
	expect([scratch], 15)
	mov	eax, 14
	mov	ecx, 99
	lock cmpxchg [scratch], rcx
	expect_flags(F_ZF | F_CF, F_CF)
	expect(rax, 15)
	lock cmpxchg [scratch], rcx
	expect_flags(F_ZF, F_ZF)
	expect([scratch], 99)
	mov	qword ptr [scratch], 1
	mov	eax, 1
	xor	edx, edx
	mov	ebx, 5
	mov	ecx, 6
	lock cmpxchg8b [scratch]
	expect_flags(F_ZF, F_ZF)
	mov	rsi, 0x600000005
	expect([scratch], rsi)
	lock cmpxchg8b [scratch]
	expect_flags(F_ZF, 0)
	expect(rax, 5)
	expect(rdx, 6)
	lock inc qword ptr [scratch]
	lock or qword ptr [scratch], 0x10
	mov	rsi, 0x600000016
	expect([scratch], rsi)
	mov	qword ptr [scratch + 8], 7
	mov	rax, rsi
	mov	edx, 7
	lock cmpxchg16b [scratch]
	expect_flags(F_ZF, F_ZF)
	expect([scratch], 5)
	expect([scratch + 8], 6)
	lock cmpxchg16b [scratch]
	expect_flags(F_ZF, 0)
	expect(rax, 5)
	expect(rdx, 6)
	ret

addressing:
	mov	rax, 0x0123456789abcdef
	mov	[scratch + 0x100], rax
	mov	rbx, offset scratch
	mov	rcx, 0x20
	mov	rdx, [rbx + rcx * 8]
	expect(rdx, rax)
	mov	rdx, [scratch + rip + 0x100]
	expect(rdx, rax)
	lea	rbp, [rbx + 0x200]
	mov	rdx, [rbp - 0x100]
	expect(rdx, rax)
	mov	r12, rbx
	mov	r13, rbx
	mov	rdx, [r12 + 0x100]
	expect(rdx, rax)
	mov	rdx, [r13 + rcx * 8]
	expect(rdx, rax)
	/* a 32-bit address wraps at 4 GiB */
	lea	r8, [rbx + 0x7fffff00]
	mov	r9d, 0x80000200
	mov	rdx, [r8d + r9d]
	expect(rdx, rax)
	lea	edx, [r8d + r9d]
	lea	rsi, [rbx + 0x100]
	expect(rdx, rsi)
	/* FS and GS have a base, the other segments none */
	write_msr MSR_FS_BASE, 0x100
	write_msr MSR_GS_BASE, "offset scratch - 0x1000"
	mov	rdx, fs:[rbx]
	expect(rdx, 0x0123456789abcdef)
	mov	rdx, gs:[0x1100]
	expect(rdx, 0x0123456789abcdef)
	/* across a page */
	mov	rax, 0x1122334455667788
	mov	[scratch + 0xffd], rax
	mov	edx, [scratch + 0x1000]
	expect(rdx, 0x22334455)
	mov	rdx, [scratch + 0xffd]
	expect(rdx, rax)
	ret

the_stack:
	mov	rbp, rsp
	push	-2
	pop	rax
	expect(rax, -2)
	push	rsp		/* the value before */
	pop	rax
	expect(rax, rbp)
	push	0x55
	push	rax
	pop	qword ptr [rsp]	/* the address is computed after RSP moved */
	pop	rcx
	expect(rcx, rbp)
	mov	rax, rsp
	push	rbp
	pop	rsp		/* no increment on top */
	mov	rax, rsp
	expect(rax, rbp)
	pushw	0x1234
	popw	ax
	mov	rcx, rsp
	expect(rcx, rbp)
	enter	0x20, 0
	mov	rax, rbp
	sub	rax, rsp
	expect(rax, 0x20)
	leave
	mov	rcx, rsp
	expect(rcx, rbp)
	push	1
	push	2
	call	1f
	mov	rcx, rsp
	expect(rcx, rbp)
	ret
1:	ret	16

jumps:
	/* every condition, both ways: bit n of ebx is condition n on the flags in each row */
	mov	rsi, offset condition_rows
1:	mov	ah, [rsi]
	mov	al, [rsi + 1]
	add	al, 127		/* OF */
	sahf
	mov	ebx, 0
	.irp	condition, g, le, ge, l, np, p, ns, s, a, be, ne, e, ae, b, no, o
	j\condition 2f
	lea	ebx, [rbx + rbx]
	jmp	3f
2:	lea	ebx, [rbx + rbx + 1]
3:
	.endr
	movzx	ecx, word ptr [rsi + 2]
	expect(rbx, rcx)
	add	rsi, 4
	cmp	rsi, offset condition_rows_end
	jne	1b

	/* indirect */
	mov	rax, offset 4f
	jmp	rax
	fail()
4:	mov	qword ptr [scratch], offset 5f
	jmp	[scratch]
	fail()
5:	mov	qword ptr [scratch], offset 6f
	xor	eax, eax
	call	[scratch]
	expect(rax, 1)
	mov	ecx, 0
	jrcxz	7f
	fail()
6:	inc	eax
	ret
7:	mov	rcx, 0x100000000
	jecxz	8f
	fail()
8:	ret

loops:
	/* a hot loop, and recursion deeper than a return predictor */
	xor	eax, eax
	mov	ecx, 100000
1:	add	rax, rcx
	dec	rcx
	jnz	1b
	expect(rax, 5000050000)
	mov	ecx, 10
2:	inc	eax
	loop	2b
	expect(rcx, 0)
	mov	edi, 200
	call	depth
	expect(rax, 20100)
	/* Fibonacci with two calls each */
	mov	edi, 15
	call	fibonacci
	expect(rax, 610)
	ret

depth:	test	edi, edi
	jnz	1f
	xor	eax, eax
	ret
1:	push	rdi
	dec	edi
	call	depth
	pop	rdi
	add	rax, rdi
	ret

fibonacci:
	mov	eax, edi
	cmp	edi, 2
	jb	1f
	push	rdi
	dec	edi
	call	fibonacci
	pop	rdi
	push	rax
	sub	edi, 2
	call	fibonacci
	pop	rcx
	add	rax, rcx
1:	ret

floating_point:
	fninit
	fld1
	fadd	st, st
	fsqrt
	fmul	st, st
	fistp	qword ptr [scratch]
	expect([scratch], 2)
	mov	eax, 9
	cvtsi2sd xmm0, eax
	sqrtsd	xmm1, xmm0
	cvttsd2si rax, xmm1
	expect(rax, 3)
	mov	rax, 0x0102030405060708
	movq	xmm2, rax
	paddb	xmm2, xmm2
	movq	[scratch], xmm2
	expect([scratch], 0x020406080a0c0e10)
	/* vector registers survive what the engine does between */
	movq	xmm15, rax
	mov	eax, 0
	cpuid
	expect_fault(UD, 0, ud2)
	movq	rax, xmm15
	expect(rax, 0x0102030405060708)
	comisd	xmm0, xmm1
	expect_flags(F_ZF | F_PF | F_CF, 0)
	ret

	.section .rodata
	/* flags for SAHF, 1 to set OF; conditions o no b ae e ne be a s ns p np l ge le g as bits 0 to 15 */
condition_rows:
	.byte	0x00, 0
	.short	0xaaaa
	.byte	0x01, 0
	.short	0xaa66
	.byte	0x40, 0
	.short	0x6a5a
	.byte	0x80, 0
	.short	0x59aa
	.byte	0x04, 0
	.short	0xa6aa
	.byte	0x00, 1
	.short	0x5aa9
	.byte	0x80, 1
	.short	0xa9a9
condition_rows_end:
