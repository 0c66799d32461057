/*
 * Virtual-8086 mode: addresses, what IOPL guards, I/O permissions, interrupts out of it (SDM vol. 3B
 * chapter 20). Its code lives in low memory.
 */
#include "lib.h"
GUEST(v86)

/* What low memory is used for, beside the code of .low at 0x8000. */
#define STACK	 0x7000
#define DATA_SEG 0x900 /* linear 0x9000 */
#define IVT	 0

/* Enters virtual-8086 mode at @entry (an offset in segment 0) with SS:SP 0:STACK. See arm. */
.macro enter_v86 entry, flags
	push	0x44		/* GS */
	push	0x33		/* FS */
	push	DATA_SEG	/* DS */
	push	0x22		/* ES */
	push	0		/* SS */
	push	STACK
	push	(\flags | F_VM | 2)
	push	0		/* CS */
	push	offset \entry
	iretd
.endm

/* Back from an exception: the data segments became null. Clobbers nothing. */
.macro leave_v86
	push	eax
	mov	eax, KDATA
	mov	es, eax
	pop	eax
	disarm
.endm

/* Runs instructions in virtual-8086 mode with @flags; they end by INT3 or by what goes wrong. */
#define v86(flags, ...)                                                                            \
	arm 9f;                                                                                    \
	enter_v86 7f, flags;                                                                       \
	.pushsection .low, "awx"; .code16; 7: __VA_ARGS__; int3; .code32; .popsection;             \
	9: leave_v86

#define v86_ok(flags, ...)                                                                         \
	v86(flags, __VA_ARGS__);                                                                   \
	check_equal "[fault_vector]", "BP_VECTOR_NUMBER", __LINE__

#define v86_fault(flags, vector, error, ...) V86_FAULT_(flags, vector, error, __VA_ARGS__)
#define V86_FAULT_(flags, vector, error, ...)                                                      \
	v86(flags, __VA_ARGS__);                                                                   \
	check_equal "[fault_vector]", #vector, __LINE__;                                           \
	check_equal "[fault_error]", #error, __LINE__;                                             \
	check_equal "[fault_ip]", "offset 7b", __LINE__

guest_main:
	call	the_frame
	call	addresses
	call	limits
	call	iopl_0
	call	iopl_3
	call	interrupts_out
	call	not_there
	call	ports
	ret

/* The stack of CPL 0 receives the data segments too; the registers are null afterwards. */
the_frame:
	mov	byte ptr [seen_ds], 1
	set_gate BP_VECTOR, look, 3
	v86(F_CF, nop)
	reset_gate BP_VECTOR
	mov	byte ptr [idt + BP_VECTOR * 8 + 5], 0xee
	expect([seen_ds], 0)
	expect([seen_fs], 0)
	expect([fault_cs], 0)
	expect([fault_flags], F_VM | F_CF | 2)
	expect([fault_old_sp], STACK)
	expect([fault_old_ss], 0)
	expect([seen_frame + 20], 0x22)
	expect([seen_frame + 24], DATA_SEG)
	expect([seen_frame + 28], 0x33)
	expect([seen_frame + 32], 0x44)
	ret

look:
	push	eax
	mov	eax, ds
	push	KDATA
	pop	ds
	mov	[seen_ds], eax
	mov	eax, fs
	mov	[seen_fs], eax
	push	esi
	push	edi
	push	ecx
	push	KDATA
	pop	es
	lea	esi, [esp + 16]
	mov	edi, offset seen_frame
	mov	ecx, 9
	rep movsd
	pop	ecx
	pop	edi
	pop	esi
	pop	eax
	jmp	stubs + BP_VECTOR * 16

addresses:
	mov	dword ptr [0x9010], 0x11223344
	mov	dword ptr [0x230], 0x55
	v86_ok(0, mov ax, [0x10]; mov bx, es:[0x10]; mov cx, ds; mov dx, ss; push cs; pop si; mov di, sp)
	movzx	eax, ax
	expect(eax, 0x3344)
	movzx	ebx, bx
	expect(ebx, 0x55)
	movzx	ecx, cx
	expect(ecx, DATA_SEG)
	movzx	edx, dx
	expect(edx, 0)
	movzx	esi, si
	expect(esi, 0)
	/* any value makes a segment: base = 16 times the selector */
	v86_ok(0, mov ax, 0x901; mov ds, ax; mov eax, [0]; push 0x900; pop fs; mov bx, fs:[0x12])
	expect(eax, 0x11223344)
	movzx	ebx, bx
	expect(ebx, 0x1122)
	/* far transfers, strings, 32-bit operands and addresses */
	v86_ok(0, call 0x800:(far_one - 0x8000); mov esi, 0x10; mov edi, 0x20; push ds; pop es; movsd; mov ecx, [esi])
	expect(eax, 0x77)
	expect(ebx, 0x800)
	mov	eax, [0x9020]
	expect(eax, 0x11223344)
	ret

	.pushsection .low, "awx"
	.code16
far_one:
	mov	eax, 0x77
	xor	ebx, ebx
	mov	bx, cs
	retf
	.code32
	.popsection

limits:
	v86_fault(0, GP, 0, mov ax, [0xffff])
	v86_fault(0, GP, 0, mov dword ptr ds:[0xfffe], eax)
	mov	esi, 0x10000
	v86_fault(0, GP, 0, mov al, [esi])
	mov	ebp, 0x10000
	v86_fault(0, SS_VECTOR, 0, mov al, [ebp])
	v86_ok(0, mov al, [0xffff])
	mov	ebx, 0xffff
	v86_fault(0, GP, 0, mov ax, [bx])
	v86_fault(0, GP, 0, mov eax, [bx - 2])
	v86_ok(0, mov al, [bx]; mov al, [bx + 1])	/* 16-bit addresses wrap before they are checked */
	/* the address wraps only where the A20 gate would: FFFF:0010 is 1 MiB */
	mov	eax, [0x100000]
	mov	ecx, eax
	v86_ok(0, mov ax, 0xffff; mov ds, ax; mov eax, [0x10])
	expect(eax, ecx)
	ret

/* IOPL < 3: CLI, STI, PUSHF, POPF, INT n, IRET are #GP; INT3 and INTO are not. */
iopl_0:
	v86_fault(0, GP, 0, cli)
	v86_fault(0, GP, 0, sti)
	v86_fault(0, GP, 0, pushf)
	v86_fault(0, GP, 0, popf)
	v86_fault(0, GP, 0, pushfd)
	v86_fault(0, GP, 0, int 0x60)
	v86_fault(0, GP, 0, iret)
	v86_fault(0x2000, GP, 0, cli)
	v86_fault(0x2000, GP, 0, pushf)
	v86_fault(0, GP, 0, hlt)
	mov	eax, 0x7fffffff
	v86(0, inc eax; into)
	expect([fault_vector], OF)
	/* LOCK, segment loads, LEA of a register: faults as anywhere */
	v86_fault(0, UD, 0, ud2)
	xor	ecx, ecx
	v86_fault(0, DE, 0, div ecx)
	ret

/* IOPL 3: IF is theirs; IOPL and VM are not. */
iopl_3:
	v86_ok(F_IOPL, sti; nop; pushfd; pop eax; cli; pushfd; pop ecx)
	and	eax, ~F_ARITH
	expect(eax, F_IOPL | F_IF | 2)
	and	ecx, ~F_ARITH
	expect(ecx, F_IOPL | 2)
	v86_ok(F_IOPL, push 0; popf; pushfd; pop eax; push F_DF | F_CF; popf; pushf; pop cx; cld)
	expect(eax, F_IOPL | 2)			/* VM reads as 0 */
	movzx	ecx, cx
	expect(ecx, F_IOPL | F_DF | F_CF | 2)
	/* IRET stays in virtual-8086 mode */
	v86_ok(F_IOPL, push F_CF; push 0x800; push offset 5f - 0x8000; iret; nop; 5: setc al; mov bx, cs)
	movzx	eax, al
	expect(eax, 1)
	movzx	ebx, bx
	expect(ebx, 0x800)
	v86_fault(F_IOPL, GP, 0, hlt)
	/* INT n goes through the IDT: the gate's DPL must be 3, and it must lead to CPL 0 */
	v86_fault(F_IOPL, GP, 0x60 * 8 + 2, int 0x60)
	set_gate 0x60, (stubs+BP_VECTOR*16), 3
	v86(F_IOPL, int 0x60; 5: nop)
	expect([fault_vector], BP_VECTOR)
	mov	eax, offset 5b
	expect([fault_ip], eax)
	reset_gate 0x60
	ret

/* An interrupt comes out of the mode and IRET goes back into it. */
interrupts_out:
	set_gate 0x60, straight_back, 3
	v86_ok(F_IOPL, mov cx, 1; int 0x60; mov bx, ds; mov dx, fs; inc cx)
	movzx	ecx, cx
	expect(ecx, 2)
	movzx	ebx, bx
	expect(ebx, DATA_SEG)
	movzx	edx, dx
	expect(edx, 0x33)
	reset_gate 0x60
	ret

straight_back:
	iretd

/* Instructions that this mode has not. */
not_there:
	v86_fault(F_IOPL, UD, 0, lar ax, cx)
	v86_fault(F_IOPL, UD, 0, lsl ax, cx)
	v86_fault(F_IOPL, UD, 0, verr cx)
	v86_fault(F_IOPL, UD, 0, arpl cx, ax)
	v86_fault(F_IOPL, UD, 0, str ax)
	v86_fault(F_IOPL, UD, 0, sldt ax)
	v86_fault(F_IOPL, UD, 0, lldt ax)
	v86_fault(F_IOPL, GP, 0, mov eax, cr0)
	v86_fault(F_IOPL, GP, 0, mov dr0, eax)
	v86_fault(F_IOPL, GP, 0, lgdt [0])
	v86_fault(F_IOPL, GP, 0, clts)
	v86_fault(F_IOPL, GP, 0, lmsw ax)
	v86_fault(F_IOPL, GP, 0, rdmsr)
	v86_ok(F_IOPL, smsw ax)
	and	eax, 1
	expect(eax, 1)
	ret

/* The I/O permission bitmap counts whatever IOPL is. */
ports:
	mov	edx, 0x80
	v86_fault(F_IOPL, GP, 0, in al, dx)
	v86_fault(F_IOPL, GP, 0, out 0x80, al)
	mov	edi, offset tss + 0x68
	mov	ecx, 0x2000
	mov	al, 0xff
	rep stosb
	and	byte ptr [tss + 0x68 + 0x10], ~1
	mov	word ptr [tss + 102], 0x68
	mov	word ptr [gdt + TSS_SEL], 0x68 + 0x2000
	mov	byte ptr [gdt + TSS_SEL + 5], 0x89
	mov	eax, TSS_SEL
	ltr	ax
	v86_ok(0, in al, dx; out 0x80, al)
	v86_fault(0, GP, 0, in ax, dx)
	ret

	.bss
	.balign	8
seen_ds: .skip	4
seen_fs: .skip	4
seen_frame: .skip 36
