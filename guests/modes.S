/*
 * From mode to mode and back: 32-bit protected, 16-bit protected, real, unreal, long with its 64-bit and
 * compatibility code at CPL 0 and 3 (SDM vol. 3A 9.8, 9.9). Begins and ends in 32-bit protected mode.
 */
#include "lib.h"
GUEST(modes)

#define DATA16_SMALL (GDT_FREE)	     /* 16-bit data, base 0x10000 */
#define CODE16_BASED (GDT_FREE + 8)  /* 16-bit code, base 0x8000 */

	/* what is checked later is written here by code of every mode */
	.macro note slot
	mov	[notes + \slot * 4], eax
	.endm

guest_main:
	mov	dword ptr [gdt + DATA16_SMALL], 0x0000ffff
	mov	dword ptr [gdt + DATA16_SMALL + 4], 0x00009301
	mov	dword ptr [gdt + CODE16_BASED], 0x8000ffff
	mov	dword ptr [gdt + CODE16_BASED + 4], 0x00009b00
	call	protected_16
	call	real_mode
	call	real_mode_interrupts
	call	unreal
	call	build_tables
	call	long_mode
	call	long_mode_again
	call	long_refused
	ret

/* 16-bit code in protected mode: operand and address size, the stack pointer, prefixes. */
protected_16:
	mov	ebx, esp
	mov	eax, 0x12345678
	mov	esi, 0x1ffff
	mov	byte ptr [0xffff], 0x5a
	jmp	CODE16_BASED:(code_16 - 0x8000)

	.pushsection .low, "awx"
	.code16
code_16:
	mov	ax, 0x1111		/* 3 bytes: leaves the upper half */
	mov	ecx, 0x22222222		/* with prefix: 32 bits */
	mov	dl, [si]		/* 16-bit address: 0xffff */
	push	ax			/* still a 32-bit stack: ESP, 2 bytes */
	mov	edi, esp
	pop	ax
	mov	bp, sp
	call	1f
after_call:
	jmp	2f
1:	mov	bp, [esp]		/* a 16-bit return address in the segment */
	ret
2:	movzx	ebp, bp
	data32 jmp KCS:back_32
	.code32
	.popsection

back_32:
	expect(eax, 0x12341111)
	expect(ecx, 0x22222222)
	movzx	edx, dl
	expect(edx, 0x5a)
	lea	eax, [ebx - 2]
	expect(edi, eax)
	mov	eax, offset after_call - 0x8000
	expect(ebp, eax)
	mov	eax, esp
	expect(eax, ebx)
	mov	eax, cs
	expect(eax, KCS)
	ret

/* Leaves protected mode through 16-bit segments, as 9.9.2 wants it, for real_entry; comes back at @resume. */
.macro to_real entry, resume
	mov	[saved_esp], esp
	mov	dword ptr [resume_at], offset \resume
	mov	edx, offset \entry
	jmp	KCODE16:leave_protected
.endm

	.pushsection .low, "awx"
	.code16
leave_protected:
	mov	ax, KDATA16
	mov	ds, ax
	mov	es, ax
	mov	fs, ax
	mov	gs, ax
	mov	ss, ax
	mov	eax, cr0
	and	al, 0xfe
	mov	cr0, eax
	jmp	0:1f
1:	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	mov	fs, ax
	mov	gs, ax
	mov	ss, ax
	mov	esp, 0x7000
	lidt	[real_idt]
	jmp	dx

/* The way back: protected mode, flat. */
enter_protected:
	cli
	cld
	xor	ax, ax
	mov	ds, ax
	data32 lgdt [gdt_copy]
	data32 lidt [idt_copy]
	mov	eax, cr0
	or	al, 1
	mov	cr0, eax
	data32 jmp KCS:arrived
real_idt:
	.short	0x3ff
	.long	0
	.p2align 3
gdt_copy:
	.short	GDT_ENTRIES * 8 - 1
	.long	gdt
idt_copy:
	.short	256 * 8 - 1
	.long	idt
	.code32
	.popsection

arrived:
	mov	eax, KDATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	mov	esp, [saved_esp]
	jmp	[resume_at]

real_mode:
	mov	dword ptr [0x9000], 0xcafe1234
	to_real	real_code, 1f
1:	mov	eax, [0xa000]
	expect(eax, 0x1234)		/* by DS = 0x900 */
	mov	eax, [0xa004]
	and	eax, 1
	expect(eax, 0)			/* CR0.PE as SMSW showed it */
	mov	eax, [0xa008]
	expect(eax, 0x0800)		/* CS after a far jump */
	mov	eax, [0xa00c]
	expect(eax, 0x33)
	mov	eax, [0xa010]
	expect(eax, 0xfffe)		/* SP wrapped */
	mov	eax, [0xa014]
	expect(eax, 0x10002)
	mov	eax, cr0
	and	eax, 0x80000001
	expect(eax, 1)
	ret

	.pushsection .low, "awx"
	.code16
real_code:
	mov	ax, 0x900
	mov	ds, ax
	movzx	eax, word ptr [0]
	mov	es:[0xa000], eax
	smsw	eax
	mov	es:[0xa004], eax
	jmp	0x800:(1f - 0x8000)
1:	xor	eax, eax
	mov	ax, cs
	mov	es:[0xa008], eax
	call	0:2f
	mov	es:[0xa00c], eax
	/* the stack wraps at 64 KiB */
	mov	bx, sp
	xor	sp, sp
	push	ax
	movzx	eax, sp
	mov	sp, bx
	mov	es:[0xa010], eax
	/* LOOP counts CX, with prefix ECX */
	mov	ecx, 0x10003
	loop	3f
3:	mov	es:[0xa014], ecx
	jmp	0:enter_protected
2:	mov	eax, 0x33
	retf
	.code32
	.popsection

/* INT through the vector table; #DE, #UD and #GP with no error code; the frame is three words. */
real_mode_interrupts:
	mov	edi, 0
	mov	ecx, 256
1:	mov	word ptr [edi], offset real_default
	mov	word ptr [edi + 2], 0
	add	edi, 4
	loop	1b
	mov	word ptr [0x60 * 4], offset real_handler - 0x8000
	mov	word ptr [0x60 * 4 + 2], 0x800
	mov	ebx, 0
	to_real	real_interrupts, 2f
2:	mov	eax, [0xa000]
	expect(eax, 0x600d)
	movzx	eax, word ptr [0xa004]
	mov	ecx, offset after_int
	expect(eax, ecx)
	movzx	eax, word ptr [0xa006]
	expect(eax, 0)
	movzx	eax, word ptr [0xa008]
	and	eax, F_CF | F_IF
	expect(eax, F_CF | F_IF)	/* flags before */
	movzx	eax, word ptr [0xa00a]
	and	eax, F_CF | F_IF
	expect(eax, F_CF)		/* in the handler IF is 0 */
	movzx	eax, word ptr [0xa00c]
	expect(eax, 6)			/* three words */
	mov	eax, [0xa010]
	mov	ecx, offset real_ud
	expect(eax, ecx)
	mov	eax, [0xa014]
	mov	ecx, offset real_de
	expect(eax, ecx)
	mov	eax, [0xa018]
	mov	ecx, offset real_gp
	expect(eax, ecx)
	mov	eax, [0xa01c]
	mov	ecx, offset real_bp
	expect(eax, ecx)
	mov	eax, [0xa020]
	expect(eax, 0x7000)		/* the stack is level again */
	ret

	.pushsection .low, "awx"
	.code16
real_interrupts:
	stc
	sti
	int	0x60
after_int:
	cli
	mov	[0xa000], ax
	mov	word ptr [0xa002], 0
	mov	di, 0xa010		/* where real_default notes IPs */
real_ud:
	ud2				/* 2 bytes each, so that real_default can step over */
	xor	cx, cx
	mov	ax, 1
	xor	dx, dx
real_de:
	div	cx
	mov	si, 0xffff
real_gp:
	mov	ax, [si]
	int3
real_bp:
	movzx	eax, sp
	mov	[0xa020], eax
	jmp	0:enter_protected

real_handler:
	mov	bp, sp
	mov	ax, [bp]
	mov	[0xa004], ax
	mov	ax, [bp + 2]
	mov	[0xa006], ax
	mov	ax, [bp + 4]
	mov	[0xa008], ax
	pushf
	pop	ax
	mov	[0xa00a], ax
	mov	ax, 0x7000
	sub	ax, bp
	mov	[0xa00c], ax
	mov	ax, 0x600d
	iret

/* Notes the pushed IP as 32 bits; steps over the two bytes of what faulted, and over nothing behind INT3. */
real_default:
	push	bp
	push	ax
	mov	bp, sp
	mov	ax, [bp + 4]
	mov	[di], ax
	mov	word ptr [di + 2], 0
	add	di, 4
	cmp	ax, offset real_bp
	je	1f
	add	word ptr [bp + 4], 2
1:	pop	ax
	pop	bp
	iret
	.code32
	.popsection

/* Segments loaded in protected mode keep their limits in real mode ("unreal"). */
unreal:
	mov	dword ptr [scratch + 0x123], 0x88776655
	mov	[saved_esp], esp
	mov	dword ptr [resume_at], offset 1f
	mov	esi, offset scratch + 0x123
	jmp	KCODE16:leave_unreal
1:	expect(ebx, 0x88776655)
	ret

	.pushsection .low, "awx"
	.code16
leave_unreal:
	mov	eax, cr0
	and	al, 0xfe
	mov	cr0, eax
	jmp	0:1f
1:	mov	ebx, [esi]		/* DS: still flat */
	jmp	0:enter_protected
	.code32
	.popsection

/* An identity map of 1 GiB by 2 MiB pages, CPL 3 included. */
build_tables:
	mov	edi, offset scratch
	mov	ecx, 3 * 1024
	xor	eax, eax
	rep stosd
	mov	dword ptr [scratch], offset scratch + 0x1000 + 7
	mov	dword ptr [scratch + 0x1000], offset scratch + 0x2000 + 7
	mov	edi, offset scratch + 0x2000
	mov	eax, 0x87
	mov	ecx, 512
1:	mov	[edi], eax
	add	eax, 0x200000
	add	edi, 8
	loop	1b
	ret

.macro enter_long target
	mov	eax, cr4
	or	eax, 0x20
	mov	cr4, eax
	mov	eax, offset scratch
	mov	cr3, eax
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, 0x100
	wrmsr
	rdmsr
	note	0			/* LME without LMA */
	mov	eax, cr0
	or	eax, 0x80000000
	mov	cr0, eax
	mov	ecx, MSR_EFER
	rdmsr
	note	1			/* LMA: compatibility mode from here */
	jmp	KCODE64:\target
.endm

/* From compatibility mode at CPL 0 to 32-bit protected mode. Clobbers EAX, ECX, EDX. */
.macro leave_long
	mov	eax, cr0
	btr	eax, 31
	mov	cr0, eax
	mov	ecx, MSR_EFER
	rdmsr
	note	2			/* LMA is gone */
	btr	eax, 8
	wrmsr
	mov	eax, cr4
	and	eax, ~0x20
	mov	cr4, eax
.endm

long_mode:
	mov	[saved_esp], esp
	enter_long in_64
	.code64
in_64:
	mov	rax, 0x1122334455667788
	mov	r15, rax
	shr	rax, 32
	note	3
	lea	rsp, [rip + notes + 256]
	push	r15
	pop	rbx
	/* compatibility mode at CPL 0, by far return */
	push	KCODE32
	lea	rax, [rip + in_compatibility]
	push	rax
	retfq
	.code32
in_compatibility:
	mov	eax, 0
	dec	eax			/* REX.W in 64-bit mode */
	note	4
	mov	esp, offset notes + 256
	mov	eax, cs
	note	5
	jmp	KCODE64:again_64
	.code64
again_64:
	mov	rax, r15		/* survived compatibility mode */
	note	6
	jmp	[rip + to_compatibility]
	.p2align 3
to_compatibility:
	.quad	1f
1:	push	KCODE32
	push	offset out_of_long
	retfq
	.code32
out_of_long:
	leave_long
	mov	esp, [saved_esp]
	mov	eax, [notes]
	and	eax, 0x500
	expect(eax, 0x100)
	mov	eax, [notes + 4]
	and	eax, 0x500
	expect(eax, 0x500)
	mov	eax, [notes + 8]
	and	eax, 0x500
	expect(eax, 0x100)
	expect([notes + 12], 0x11223344)
	expect([notes + 16], -1)
	expect([notes + 20], KCODE32)
	expect([notes + 24], 0x55667788)
	ret

/* Round and round: what was translated for one mode may not run in another. */
long_mode_again:
	mov	ebp, 20
1:	mov	[saved_esp], esp
	enter_long 2f
	.code64
2:	call	same_bytes
	note	7
	push	KCODE32
	push	offset 3f
	retfq
	.code32
3:	call	same_bytes
	mov	ebx, eax
	leave_long
	mov	esp, [saved_esp]
	call	same_bytes
	expect(eax, 9)
	expect(ebx, 9)
	expect([notes + 28], 10)
	dec	ebp
	jnz	1b
	ret

/* 0x48 is DEC EAX, or REX.W for the NOP behind it: 9, or 10 in 64-bit mode. */
same_bytes:
	mov	eax, 10
	.byte	0x48
	nop
	ret

long_refused:
	/* long mode without PAE */
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, 0x100
	wrmsr
	mov	eax, cr0
	or	eax, 0x80000000
	expect_fault(GP, 0, mov cr0, eax)
	/* LME may not change while paging is on */
	rdmsr
	btr	eax, 8
	wrmsr
	mov	eax, cr4
	or	eax, 0x20
	mov	cr4, eax
	mov	eax, cr4
	and	eax, ~0x20
	mov	cr4, eax
	ret

	.bss
	.balign	8
notes:	.skip	256
saved_esp: .skip 4
resume_at: .skip 4
