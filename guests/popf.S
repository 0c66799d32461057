/*
 * The instructions that look at IOPL and keep quiet: POPF, PUSHF, CLI, STI, IN, OUT, IRET at CPL 0 and 3
 * (Popek and Goldberg's hole; SDM vol. 2, POPF, table 4-16).
 */
#include "lib.h"
GUEST(popf)

#define PUSHABLE (F_ARITH | F_TF | F_IF | F_DF | F_IOPL | F_NT | F_AC | F_ID | 2)

guest_main:
	call	kernel
	call	user_every_iopl
	call	user_16_bits
	call	user_cli_sti
	call	user_ports
	call	io_bitmap
	ret

/* CPL 0: all but VM, VIF, VIP change; RF is cleared, bit 1 stays 1, reserved bits 0. */
kernel:
	push	-1 & ~(F_TF | F_IF)
	popf
	pushf
	pop	rax
	expect(rax, F_ARITH | F_DF | F_IOPL | F_NT | F_AC | F_ID | 2)
	push	0
	popf
	pushf
	pop	rax
	expect(rax, 2)
	/* IF by POPF and by STI, CLI */
	push	F_IF
	popf
	pushf
	pop	rax
	expect(rax, F_IF | 2)
	cli
	expect_flags(F_IF, 0)
	sti
	expect_flags(F_IF, F_IF)
	cli
	/* the 16-bit form leaves the upper bits */
	push	F_AC | F_ID
	popf
	pushw	F_CF | F_DF
	popfw
	pushf
	pop	rax
	expect(rax, F_AC | F_ID | F_CF | F_DF | 2)
	pushfw
	pop	ax
	and	eax, 0xffff
	expect(rax, F_CF | F_DF | 2)
	cld
	push	2
	popf
	/* arithmetic flags through PUSHF exactly as they are, whatever produced them */
	xor	ebx, ebx
1:	push	rbx
	and	dword ptr [rsp], F_ARITH
	popf
	pushf
	pop	rax
	mov	ecx, ebx
	and	ecx, F_ARITH
	or	ecx, 2
	cmp	eax, ecx
	je	2f
	expect(rax, rcx)
2:	add	ebx, 1
	cmp	ebx, 0x1000
	jne	1b
	expect(rbx, 0x1000)
	ret

/*
 * CPL 3 under each IOPL, IF 0 and 1 before: POPF changes IF only if IOPL is 3, IOPL never, and never faults.
 * r12: flags on entry, r13: flags that POPF is given, rax: what PUSHF shows after.
 */
user_every_iopl:
	xor	r14d, r14d		/* IOPL in bits 1:0, IF before bit 2, IF given bit 3 */
1:	mov	r12d, r14d
	and	r12d, 3
	shl	r12d, 12
	or	r12d, 2
	test	r14d, 4
	jz	2f
	or	r12d, F_IF
2:	mov	[user_flags], r12
	mov	r13d, F_ARITH | F_DF | F_NT | F_AC | F_ID
	test	r14d, 8
	jz	3f
	or	r13d, F_IF
3:	mov	ecx, r14d		/* ask for another IOPL as well */
	not	ecx
	and	ecx, 3
	shl	ecx, 12
	or	r13d, ecx
	user_ok(pushf; pop rbx; push r13; popf; pushf; pop rax; push 2; popf)
	expect(rbx, r12)
	/* wanted: as given, IOPL and (unless IOPL was 3) IF as they were */
	mov	rcx, r13
	and	ecx, ~(F_IOPL | F_IF)
	mov	edx, r12d
	and	edx, F_IOPL
	or	ecx, edx
	or	ecx, 2
	mov	esi, r12d
	cmp	edx, F_IOPL
	jne	4f
	mov	esi, r13d
4:	and	esi, F_IF
	or	ecx, esi
	expect(rax, rcx)
	/* IRET at CPL 3 follows the same rule */
	and	r13d, ~F_NT
	and	ecx, ~F_NT
	user_ok(mov rsi, rsp; push UDATA; push rsi; push r13; push UCODE64; lea rdi, [rip + 5f];
		push rdi; iretq; 5: pushf; pop rax; push 2; popf)
	expect(rax, rcx)
	inc	r14d
	cmp	r14d, 16
	jne	1b
	mov	qword ptr [user_flags], 2
	ret

user_16_bits:
	mov	qword ptr [user_flags], F_IF | F_ID | 2
	user_ok(pushw F_CF; popfw; pushf; pop rax)
	expect(rax, F_IF | F_ID | F_CF | 2)
	mov	qword ptr [user_flags], 2
	ret

user_cli_sti:
	mov	qword ptr [user_flags], 2
	expect_user_fault(GP, 0, cli)
	expect_user_fault(GP, 0, sti)
	mov	qword ptr [user_flags], 0x2002		/* IOPL 2 */
	expect_user_fault(GP, 0, cli)
	expect_user_fault(GP, 0, sti)
	mov	qword ptr [user_flags], F_IOPL | 2
	user_ok(sti; nop; pushf; pop rax; cli; pushf; pop rcx)
	expect(rax, F_IOPL | F_IF | 2)
	expect(rcx, F_IOPL | 2)
	expect_user_fault(GP, 0, hlt)
	mov	qword ptr [user_flags], 2
	ret

user_ports:
	mov	edx, 0x80
	mov	rsi, offset user_byte
	mov	rdi, offset user_byte
	expect_user_fault(GP, 0, in al, dx)
	expect_user_fault(GP, 0, out 0x80, al)
	expect_user_fault(GP, 0, outsb)
	expect_user_fault(GP, 0, insb)
	mov	ecx, 0
	user(rep outsb)			/* count 0: processors differ, but nothing else may happen */
	mov	qword ptr [user_flags], F_IOPL | 2
	user_ok(in al, dx; out 0x80, al; outsb)
	mov	qword ptr [user_flags], 2
	ret

/* The I/O permission bitmap of the TSS (SDM vol. 1 19.5.2). */
io_bitmap:
	mov	word ptr [tss + 102], 0x68
	mov	rdi, offset tss + 0x68
	mov	ecx, 0x2000
	mov	al, 0xff
	rep stosb
	/* a limit that takes the bitmap in, and the byte after it */
	mov	word ptr [gdt + TSS_SEL], 0x68 + 0x2000
	mov	byte ptr [gdt + TSS_SEL + 5], 0x89
	mov	eax, TSS_SEL
	ltr	ax
	mov	edx, 0x80
	expect_user_fault(GP, 0, in al, dx)
	and	byte ptr [tss + 0x68 + 0x10], ~1	/* port 0x80 */
	user_ok(in al, dx; out 0x80, al)
	expect_user_fault(GP, 0, in ax, dx)	/* 0x81 is not allowed */
	and	byte ptr [tss + 0x68 + 0x10], ~2
	user_ok(in ax, dx)
	expect_user_fault(GP, 0, out dx, eax)
	mov	edx, 0x87			/* a word across two bytes of the map */
	and	byte ptr [tss + 0x68 + 0x10], 0x7f
	expect_user_fault(GP, 0, in ax, dx)
	and	byte ptr [tss + 0x68 + 0x11], 0xfe
	user_ok(in ax, dx)
	/* the map ends with the segment */
	mov	word ptr [gdt + TSS_SEL], 0x68 + 0x10
	mov	eax, TSS_SEL
	mov	byte ptr [gdt + TSS_SEL + 5], 0x89
	ltr	ax
	mov	edx, 0x80
	expect_user_fault(GP, 0, in al, dx)
	mov	edx, 0x70
	and	byte ptr [tss + 0x68 + 0x0e], 0xfe
	user_ok(in al, dx)
	ret

	.section .user, "awx"
user_byte: .byte 0
