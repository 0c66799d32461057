/*
 * Translations that must be forgotten though nothing obvious says so.
 */
#include "lib.h"
GUEST(stale)

#define PAGE(n) (scratch + (n) * 0x1000)

guest_main:
	call	undefined_patched
	call	undefined_patched_across_pages
	call	remap_after_mode_change
	call	jump_while_remapped
	call	code_segment_with_base
	ret

/* An encoding that was undefined becomes an instruction by a change of its second byte. */
undefined_patched:
	mov	rbx, offset PAGE(0)
	mov	dword ptr [rbx], 0xc3040f	/* 0f 04: undefined */
	arm	1f
	call	rbx
1:	disarm
	expect([fault_vector], UD)
	expect([fault_ip], rbx)
	mov	byte ptr [rbx + 1], 0x31	/* RDTSC */
	call	rbx
	ret

undefined_patched_across_pages:
	mov	rbx, offset PAGE(1) + 0xfff
	mov	byte ptr [rbx], 0x0f
	mov	word ptr [rbx + 1], 0xc304
	arm	1f
	call	rbx
1:	disarm
	expect([fault_vector], UD)
	expect([fault_ip], rbx)
	mov	byte ptr [rbx + 1], 0x31
	call	rbx
	ret

/*
 * The page of the first code that runs in a new mode (CR0.TS) is remapped, with INVLPG.
 */
remap_after_mode_change:
	mov	r12d, 5
1:	mov	dword ptr [PAGE(3)], 0xc333b0	/* mov al, 0x33; ret */
	mov	dword ptr [PAGE(4)], 0xc344b0
	mov	rax, offset PAGE(3) + (PTE_P | PTE_W)
	mov	[test_pt], rax
	mov	rbx, TEST_VA
	invlpg	[rbx]
	xor	eax, eax
	lea	rdx, [2f]
	push	rdx
	mov	rcx, cr0
	xor	rcx, 8
	push	rbx		/* straight from the change of mode to the page: through RET, which no block follows */
	mov	cr0, rcx
	ret
2:	expect(rax, 0x33)
	mov	rax, offset PAGE(4) + (PTE_P | PTE_W)
	mov	[test_pt], rax
	invlpg	[rbx]
	xor	eax, eax
	call	rbx
	expect(rax, 0x44)
	dec	r12d
	jnz	1b
	clts
	ret

/*
 * Code that remaps its own page without a flush, and jumps: it may land in either page, but with the old mapping back
 * (and flushed) it must land in the old one. The page 256 pages on only helps to forget the translation.
 */
.macro put_remapper page, value
	mov	rax, 0x0374c985078948	/* mov [rdi], rax; test ecx, ecx; jz 1f */
	mov	[PAGE(\page)], rax
	mov	dword ptr [PAGE(\page) + 7], 0xb0c311b0	/* mov al, 0x11; ret; 1: mov al, value; ret */
	mov	byte ptr [PAGE(\page) + 11], \value
	mov	byte ptr [PAGE(\page) + 12], 0xc3
.endm

jump_while_remapped:
	put_remapper 3, 0x33
	put_remapper 4, 0x44
	mov	byte ptr [PAGE(5) + 16], 0xc3
	mov	rax, offset PAGE(5) + (PTE_P | PTE_W)
	mov	[test_pt + 256 * 8], rax
	mov	rax, offset PAGE(3) + (PTE_P | PTE_W)
	mov	[test_pt], rax
	mov	rbx, TEST_VA
	mov	rdx, TEST_VA + 0x100010
	invlpg	[rbx]
	invlpg	[rdx]
	mov	edi, offset PAGE(6)
	mov	ecx, 1
	call	rbx
	movzx	eax, al
	expect(rax, 0x11)
	call	rdx
	mov	edi, offset test_pt
	mov	rax, offset PAGE(4) + (PTE_P | PTE_W)
	xor	ecx, ecx
	call	rbx
	mov	rax, offset PAGE(3) + (PTE_P | PTE_W)
	mov	[test_pt], rax
	invlpg	[rbx]
	mov	edi, offset PAGE(6)
	call	rbx
	movzx	eax, al
	expect(rax, 0x33)
	ret

/* In 64-bit mode a code segment has no base, whatever its descriptor says (SDM vol. 3A 3.2.4). */
code_segment_with_base:
	mov	rax, [gdt + KCODE64]
	mov	[gdt + GDT_FREE], rax
	mov	word ptr [gdt + GDT_FREE + 2], 0x4321
	push	GDT_FREE
	lea	rax, [1f]
	push	rax
	retfq
1:	mov	ecx, 3
2:	call	3f
	dec	ecx
	jnz	2b
	push	KCODE64
	lea	rax, [4f]
	push	rax
	retfq
3:	lea	rax, [rip]
5:	mov	rdx, offset 5b
	expect(rax, rdx)
	ret
4:	ret
