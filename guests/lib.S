/* What every tiny guest links: see lib.h. Assembled twice, for 32- and 64-bit guests. */
#include "lib.h"

#define MB_MAGIC 0x1badb002
#define TSS_LIMIT 0x67

	.section .multiboot, "a"
	.long	MB_MAGIC, 0, -MB_MAGIC

/* ---- entry: 32-bit protected mode, flat, paging off (Multiboot 0.6.96, 3.2) ---- */

	.text
	.code32
	.globl	start
start:
	cli
	cld
	mov	esp, offset stack_top
	lgdt	[gdt_pointer]
	jmp	KCODE32:1f
1:	mov	eax, KDATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	lldt	ax

	/* what is assembled for low memory */
	mov	esi, offset low_image
	mov	edi, offset low_start
	mov	ecx, offset low_end
	sub	ecx, edi
	rep movsb

	/* native FPU errors, SSE */
	mov	eax, cr0
	and	eax, ~0x6000000c	/* CD, NW, EM, TS */
	or	eax, 0x22	/* MP, NE */
	mov	cr0, eax
	mov	eax, cr4
	or	eax, 0x600	/* OSFXSR, OSXMMEXCPT */
	mov	cr4, eax
	fninit

#if BITS == 64
	call	build_tables
	mov	eax, cr4
	or	eax, 0x20	/* PAE */
	mov	cr4, eax
	mov	eax, offset pml4
	mov	cr3, eax
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, 0x901	/* SCE, LME, NXE */
	wrmsr
	mov	eax, cr0
	or	eax, 0x80010000	/* PG, WP */
	mov	cr0, eax
	jmp	KCODE64:long_mode

	/* pt0, pt1: 0-4 MiB in small pages; pd0, pd3: large ones */
build_tables:
	mov	eax, PTE_P | PTE_W
	mov	edi, offset pt0
1:	mov	edx, eax
	cmp	eax, offset user_start
	jb	2f
	cmp	eax, offset user_end
	jae	2f
	or	edx, PTE_U
2:	mov	[edi], edx
	add	edi, 8
	add	eax, 0x1000
	cmp	eax, 0x400000
	jb	1b

	mov	dword ptr [pd0], offset pt0 + (PTE_P | PTE_W | PTE_U)
	mov	dword ptr [pd0 + 8], offset pt1 + (PTE_P | PTE_W | PTE_U)
	mov	eax, 0x400000 | PTE_P | PTE_W | PTE_PS
	mov	edi, offset pd0 + 16
	mov	ecx, 510
	call	3f
	mov	eax, 0xc0000000 | PTE_P | PTE_W | PTE_PS | PTE_PCD
	mov	edi, offset pd3
	mov	ecx, 512
	call	3f
	mov	dword ptr [test_pd], offset test_pt + (PTE_P | PTE_W | PTE_U)
	mov	dword ptr [pdpt], offset pd0 + (PTE_P | PTE_W | PTE_U)
	mov	dword ptr [pdpt + 8], offset test_pd + (PTE_P | PTE_W | PTE_U)
	mov	dword ptr [pdpt + 24], offset pd3 + (PTE_P | PTE_W | PTE_U)
	mov	dword ptr [pml4], offset pdpt + (PTE_P | PTE_W | PTE_U)
	ret
3:	mov	[edi], eax
	add	edi, 8
	add	eax, 0x200000
	loop	3b
	ret

	.code64
long_mode:
	mov	rsp, offset stack_top
	mov	eax, KDATA
	mov	ss, eax
#endif

	/* the IDT: 256 interrupt gates, CPL 3 may use INT3 and INTO */
	mov	DI, offset idt
	mov	BX, offset stubs
	mov	ecx, 256
1:	mov	[DI], bx
	mov	word ptr [DI + 2], KCS
	mov	word ptr [DI + 4], 0x8e00
	mov	eax, ebx
	shr	eax, 16
	mov	[DI + 6], ax
	add	BX, 16
	add	DI, 2 * W
	loop	1b
	mov	byte ptr [idt + BP_VECTOR * 2 * W + 5], 0xee
	mov	byte ptr [idt + OF * 2 * W + 5], 0xee
	lidt	[idt_pointer]

	/* the TSS: stack of CPL 0, no I/O permissions */
	mov	AX, offset tss
	mov	[gdt + TSS_SEL + 2], ax
	mov	edx, eax
	shr	edx, 16
	mov	[gdt + TSS_SEL + 4], dl
	mov	[gdt + TSS_SEL + 7], dh
	mov	byte ptr [gdt + TSS_SEL + 5], 0x89
	mov	word ptr [gdt + TSS_SEL], TSS_LIMIT
	mov	WORD [tss + 4], offset trap_stack_top
#if BITS == 32
	mov	dword ptr [tss + 8], KDATA
#endif
	mov	word ptr [tss + 102], TSS_LIMIT + 1
	mov	eax, TSS_SEL
	ltr	ax

	pic_init
	call	guest_main
	cli
	mov	SI, offset guest_name
	cmp	WORD [failed], 0
	jne	finish_failed
	push	SI
	mov	SI, offset text_ok
	call	print
	pop	SI
	call	print
	mov	al, ' '
	out	0xe9, al
	mov	AX, [checks]
	call	print_hex
	call	newline
	xor	eax, eax
	jmp	leave_guest
finish_failed:
	mov	eax, 1
leave_guest:
	out	0xf4, al
1:	cli
	hlt
	jmp	1b

/* ---- checks ---- */

/* Compares check_got with check_want. Keeps all registers. */
	.globl	check
check:
	push	AX
	inc	WORD [checks]
	mov	AX, [check_got]
	cmp	AX, [check_want]
	je	1f
	inc	WORD [failed]
	push	SI
	cld
	call	print_place
	mov	SI, offset text_got
	call	print
	mov	AX, [check_got]
	call	print_hex
	mov	SI, offset text_expected
	call	print
	mov	AX, [check_want]
	call	print_hex
	call	newline
	pop	SI
1:	pop	AX
	ret

/* "FAIL name.S:line" of the current check. Clobbers AX, SI. */
print_place:
	mov	SI, offset text_fail
	call	print
	mov	SI, offset guest_name
	call	print
	mov	SI, offset text_line
	call	print
	mov	eax, [check_line]
	/* fall through */

/* EAX in decimal. Keeps registers. */
print_decimal:
	push	AX
	push	CX
	push	DX
	xor	edx, edx
	mov	ecx, 10
	div	ecx
	test	eax, eax
	jz	1f
	call	print_decimal
1:	lea	eax, [edx + '0']
	out	0xe9, al
	pop	DX
	pop	CX
	pop	AX
	ret

/* The string at SI. Clobbers AL, SI. */
	.globl	print
1:	out	0xe9, al
print:
	lodsb
	test	al, al
	jnz	1b
	ret

/* AX in hexadecimal. Keeps registers. */
	.globl	print_hex
print_hex:
	push	AX
	push	CX
	push	DX
	mov	DX, AX
	mov	ecx, 2 * W
1:	rol	DX, 4
	mov	al, dl
	and	al, 15
	add	al, '0'
	cmp	al, '9'
	jbe	2f
	add	al, 'a' - '0' - 10
2:	out	0xe9, al
	loop	1b
	pop	DX
	pop	CX
	pop	AX
	ret

	.globl	newline
newline:
	mov	al, '\n'
	out	0xe9, al
	ret

/* ---- exceptions and interrupts ---- */

/* A stub a vector: makes the frames alike, [vector, error, IP, CS, flags, SP, SS]. */
	.p2align 4
	.globl	stubs
stubs:
	.set	vector, 0
	.rept	256
	.p2align 4
	.if	(vector > 31) || (((0x60227d00 >> (vector & 31)) & 1) == 0)
	push	0
	.endif
	push	vector
	jmp	recorder
	.set	vector, vector + 1
	.endr

recorder:
	push	AX
#if BITS == 32
	mov	eax, KDATA
	mov	ds, eax
	mov	[fault_es], es
	mov	es, eax
#endif
	mov	AX, [SP + W]
	cmp	AX, NMI
	je	count_interrupt
	cmp	AX, 32
	jae	count_interrupt
	mov	[fault_vector], AX
	mov	AX, [SP + 2 * W]
	mov	[fault_error], AX
	mov	AX, [SP + 3 * W]
	mov	[fault_ip], AX
	mov	AX, [SP + 4 * W]
	mov	[fault_cs], AX
	mov	AX, [SP + 5 * W]
	mov	[fault_flags], AX
	mov	AX, [SP + 6 * W]
	mov	[fault_old_sp], AX
	mov	AX, [SP + 7 * W]
	mov	[fault_old_ss], AX
	lea	AX, [SP + 3 * W]
	mov	[fault_frame], AX
	mov	AX, cr2
	mov	[fault_cr2], AX
	cmp	WORD [fault_resume], 0
	je	unexpected
	inc	WORD [fault_count]

	/* to fault_resume at CPL 0 with the flags that arithmetic made */
#if BITS == 64
	mov	eax, KDATA
	mov	ss, eax
#else
	mov	es, [fault_es]
#endif
	pop	AX
	mov	SP, [fault_sp]
	push	WORD [fault_flags]
	and	WORD [SP], F_ARITH
	or	WORD [SP], 2
	popf
	jmp	WORD [fault_resume]

unexpected:
	cld
	mov	SI, offset text_fail
	call	print
	mov	SI, offset guest_name
	call	print
	mov	SI, offset text_unexpected
	call	print
	mov	AX, [fault_vector]
	call	print_hex
	mov	SI, offset text_error
	call	print
	mov	AX, [fault_error]
	call	print_hex
	mov	SI, offset text_ip
	call	print
	mov	AX, [fault_ip]
	call	print_hex
	mov	SI, offset text_cr2
	call	print
	mov	AX, [fault_cr2]
	call	print_hex
	mov	SI, offset text_after
	call	print
	mov	eax, [check_line]
	call	print_decimal
	call	newline
	mov	eax, 2
	jmp	leave_guest

/* NMI and vectors from 32 on: count, note where they came, tell the chip, go back. */
count_interrupt:
	mov	[irq_vector], AX
	inc	dword ptr [irq_counts + AX * 4]
	inc	WORD [irq_total]
	mov	AX, [SP + 3 * W]
	mov	[irq_ip], AX
	mov	AX, [SP + 5 * W]
	mov	[irq_flags], AX
	mov	AX, [irq_vector]
	cmp	AX, NMI
	je	2f
	cmp	AX, 0x30
	jae	1f
	mov	al, 0x20
	cmp	byte ptr [irq_vector], 0x28
	jb	3f
	out	0xa0, al
3:	out	0x20, al
	jmp	2f
1:	lapic_write 0xb0, 0
2:
#if BITS == 32
	mov	es, [fault_es]
#endif
	pop	AX
	add	SP, 2 * W
	IRET

/* ---- data ---- */

	.section .rodata
text_ok:	.asciz "ok "
text_fail:	.asciz "FAIL "
text_line:	.asciz ".S:"
text_got:	.asciz " got "
text_expected:	.asciz " expected "
text_unexpected: .asciz ".S: unexpected vector "
text_error:	.asciz " error "
text_ip:	.asciz " ip "
text_cr2:	.asciz " cr2 "
text_after:	.asciz " after line "

	.data
	.p2align 4
	.globl	gdt, gdt_pointer, idt_pointer
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* KCODE64 */
	.quad	0x00cf93000000ffff	/* KDATA */
	.quad	0x00cf9b000000ffff	/* KCODE32 */
	.quad	0x00cffb000000ffff	/* UCODE32 */
	.quad	0x00cff3000000ffff	/* UDATA */
	.quad	0x00affb000000ffff	/* UCODE64 */
	.quad	0x00009b000000ffff	/* KCODE16 */
	.quad	0x000093000000ffff	/* KDATA16 */
	.quad	0, 0			/* TSS_SEL */
	.fill	GDT_ENTRIES - 11, 8, 0
gdt_pointer:
	.short	GDT_ENTRIES * 8 - 1
	.quad	gdt
idt_pointer:
	.short	256 * 2 * W - 1
	.quad	idt

	.globl	user_flags
	.p2align 3
user_flags:
	.quad	2

	.macro variable name, bytes=8, align=8
	.balign	\align
	.globl	\name
\name:	.skip	\bytes
	.endm

	.bss
	variable checks
	variable failed
	variable check_got
	variable check_want
	variable check_line
	variable fault_resume
	variable fault_sp
	variable fault_vector
	variable fault_error
	variable fault_ip
	variable fault_cs
	variable fault_flags
	variable fault_old_sp
	variable fault_old_ss
	variable fault_frame
	variable fault_es
	variable fault_cr2
	variable fault_count
	variable irq_vector
	variable irq_total
	variable irq_ip
	variable irq_flags
	variable irq_counts, 1024

	variable tss, 0x68+0x2000, 16

	variable idt, 4096, 4096
	variable stack, 16384, 4096
	.globl	stack_top
stack_top:
	variable trap_stack, 16384, 4096
	.globl	trap_stack_top
trap_stack_top:
#if BITS == 64
	variable pml4, 4096, 4096
	variable pdpt, 4096, 4096
	variable pd0, 4096, 4096
	variable pd3, 4096, 4096
	variable pt0, 4096, 4096
	variable pt1, 4096, 4096
	variable test_pd, 4096, 4096
	variable test_pt, 4096, 4096
#endif
	variable scratch, 16*4096, 4096	/* the guest's, page by page */

	.section .user, "awx"
	.p2align 4
	.skip	4096
	.globl	user_stack_top
user_stack_top:
