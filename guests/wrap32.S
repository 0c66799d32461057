/*
 * The last byte below 4 GiB and the first of all are neighbours (SDM vol. 3A 3.3.1): by 32-bit paging, PAE and in
 * compatibility mode.
 */
#include "paging32.inc"
GUEST(wrap32)

guest_main:
	call	features
	call	two_level_on
	mov	edi, offset narrow_pt
	mov	dword ptr [entry_bytes], 4
	call	wrap
	call	paging_off
	call	pae_on
	mov	edi, offset wide_pt
	mov	dword ptr [entry_bytes], 8
	call	wrap
	call	paging_off
	jmp	wrap_in_compatibility_mode

#define SEL_HIGH (GDT_FREE) /* base 0x80000000, 4 GiB: linear addresses wrap, offsets do not */

/*
 * Accesses that begin below 4 GiB and end above 0 (SDM vol. 3A 3.3.1: linear addresses are modulo 2^32). EDI: the
 * table of the last pages, entries of entry_bytes; page 0 is in the low table of the same mode.
 */
wrap:
	call	wrap_accesses
	call	wrap_faults
	call	wrap_code
	mov	dword ptr [edi + ebp], 0
	mov	dword ptr [edx], RW
	flush
	xor	eax, eax
	mov	fs, eax
	ret

/* No faults here. Leaves FS, EBX, EDX and EBP to those that follow. */
wrap_accesses:
	mov	dword ptr [gdt + SEL_HIGH], 0x0000ffff
	mov	dword ptr [gdt + SEL_HIGH + 4], 0x80cf9300
	mov	eax, SEL_HIGH
	mov	fs, eax
	mov	edx, offset narrow_low
	mov	ebp, 1023 * 4
	cmp	dword ptr [entry_bytes], 4
	je	1f
	mov	edx, offset wide_low
	mov	ebp, 511 * 8
1:	mov	dword ptr [edi + ebp], offset scratch + 0x6000 + RW
	mov	dword ptr [edx], offset scratch + 0x7000 + RW
	flush
	mov	dword ptr [scratch + 0x6ffc], 0x44332211
	mov	dword ptr [scratch + 0x7000], 0x88776655
	mov	ebx, 0x7ffffffe		/* linear 0xfffffffe */
	expect(fs:[ebx], 0x66554433)
	mov	dword ptr fs:[ebx], 0xddccbbaa
	expect([scratch + 0x6ffc], 0xbbaa2211)
	expect([scratch + 0x7000], 0x8877ddcc)
	lock add dword ptr fs:[ebx], 0x11111111
	expect([scratch + 0x6ffc], 0xccbb2211)
	expect([scratch + 0x7000], 0x8877eedd)
	movups	xmm0, fs:[ebx - 10]
	movups	fs:[ebx - 10], xmm0
	push	dword ptr fs:[ebx]
	pop	eax
	expect(eax, 0xeeddccbb)
	/* bytes, words: a string runs over the edge */
	push	edi
	mov	esi, 0x7ffffffc
	mov	edi, offset scratch + 0x8000
	mov	ecx, 8
	rep movsb byte ptr es:[edi], byte ptr fs:[esi]
	pop	edi
	expect(esi, 0x80000004)
	expect([scratch + 0x8000], 0xccbb2211)
	expect([scratch + 0x8004], 0x8877eedd)
	ret

	/* page 0 is the second page: missing, then read-only */
wrap_faults:
	mov	dword ptr [edx], 0
	invlpg	[0]
	expect_fault(PF, PF_W, mov fs:[ebx], eax)
	expect([fault_cr2], 0)
	expect([scratch + 0x6ffc], 0xccbb2211)
	expect_fault(PF, 0, mov eax, fs:[ebx])
	mov	dword ptr [edx], offset scratch + 0x7000 + PTE_P
	mov	eax, fs:[ebx]
	expect_fault(PF, PF_P | PF_W, add fs:[ebx], eax)
	expect([fault_cr2], 0)
	/* the page below 4 GiB is the first */
	mov	dword ptr [edi + ebp], 0
	invlpg	[0xfffff000]
	expect_fault(PF, 0, mov eax, fs:[ebx])
	expect([fault_cr2], 0xfffffffe)
	mov	dword ptr [edi + ebp], offset scratch + 0x6000 + RW
	/* a stack that starts at 0 */
	mov	[saved_esp], esp
	xor	esp, esp
	push	0x12121212
	mov	eax, esp
	mov	esp, [saved_esp]
	expect(eax, -4)
	expect([scratch + 0x6ffc], 0x12121212)
	mov	dword ptr [edx], offset scratch + 0x7000 + RW
	invlpg	[0]
	ret

wrap_code:
	/* code that jumps over the edge: PUSH imm8; POP EAX; JMP 0 */
	mov	dword ptr [scratch + 0x6ffa], 0xeb585a6a
	mov	word ptr [scratch + 0x6ffd], 0x01eb
	mov	byte ptr [scratch + 0x7000], 0xc3
	mov	eax, 0xfffffffa
	call	eax
	expect(eax, 0x5a)
	/* another page 0, under code that jumps there directly */
	mov	dword ptr [edx], offset scratch + 0x9000 + RW
	invlpg	[0]
	mov	dword ptr [scratch + 0x9000], 0xc301c083	/* ADD EAX, 1; RET */
	mov	eax, 0xfffffffa
	call	eax
	expect(eax, 0x5b)
	/* MOV EAX, imm32; RET across the edge: done, or #GP as beyond the limit (5.3 leaves it open) */
	mov	byte ptr [scratch + 0x6ffd], 0xb8
	mov	word ptr [scratch + 0x6ffe], 0x2211
	mov	dword ptr [scratch + 0x7000], 0xc34433
	mov	dword ptr [scratch + 0x9000], 0xc36655
	mov	ecx, 10
1:	mov	dword ptr [edx], offset scratch + 0x7000 + RW
	mov	ebx, 0x44332211
	call	over_the_edge
	mov	dword ptr [edx], offset scratch + 0x9000 + RW
	mov	ebx, 0x66552211
	call	over_the_edge
	loop	1b
	ret

over_the_edge:
	invlpg	[0]
	arm	1f
	mov	eax, 0xfffffffd
	call	eax
1:	disarm
	cmp	dword ptr [fault_vector], GP
	je	2f
	expect([fault_vector], NONE)
	expect(eax, ebx)
2:	ret

/* The address behind 0xffffffff is 0 there too, although the tables go on. Gates are 64-bit ones: only #GP has one. */
wrap_in_compatibility_mode:
	call	pae_on
	call	paging_off
	call	long_tables
	call	compatibility_on
	mov	eax, offset skip_to_edge_done
	mov	[idt_64 + GP * 16], ax
	mov	dword ptr [idt_64 + GP * 16 + 2], KCODE64
	shr	eax, 16
	mov	word ptr [idt_64 + GP * 16 + 5], 0x8e
	mov	[idt_64 + GP * 16 + 6], ax
	lidt	[idt_64_pointer]
	mov	edi, offset wide_pt
	mov	dword ptr [entry_bytes], 8
	call	wrap_accesses
	mov	dword ptr [edx], offset scratch + 0x7000 + RW
	invlpg	[0]
	call	wrap_code
	lidt	[idt_pointer]
	xor	eax, eax
	mov	fs, eax
	jmp	compatibility_off

	/* #GP of the instruction that lies across: as expect_fault() would have it */
	.code64
skip_to_edge_done:
	mov	dword ptr [fault_vector], GP
	mov	eax, [fault_resume]
	mov	[rsp + 8], rax
	mov	eax, [fault_sp]
	mov	[rsp + 32], rax
	add	rsp, 8
	iretq
	.code32

	.bss
entry_bytes: .skip 4
saved_esp: .skip 4
	.balign	8
idt_64:	.skip	(GP + 1) * 16

	.data
idt_64_pointer:
	.short	(GP + 1) * 16 - 1
	.quad	idt_64
