/*
 * What a TLB may keep and what it must forget: INVLPG, CR3, CR0, CR4, global pages, PCID, INVPCID
 * (SDM vol. 3A 4.10). Only what must be forgotten is checked; keeping is allowed, never required.
 */
#include "lib.h"
GUEST(tlb)

#define CR4_PGE	  0x80
#define CR4_PCIDE 0x20000

/* Maps page @index of TEST_VA to page @page of scratch, without a flush. Clobbers RAX. */
.macro map index, page, flags=(PTE_P|PTE_W)
	mov	rax, offset scratch + \page * 0x1000 + \flags
	mov	[test_pt + \index * 8], rax
.endm

/* What page @index shows is the number of the page of scratch behind it. Clobbers RAX. */
.macro expect_page index, page, line
	mov	eax, [TEST_VA + \index * 0x1000]
	check_equal rax, \page, \line
.endm

guest_main:
	xor	ecx, ecx
	mov	rdi, offset scratch
1:	mov	[rdi], rcx
	add	rdi, 0x1000
	inc	ecx
	cmp	ecx, 16
	jne	1b
	call	by_invlpg
	call	by_cr3
	call	permissions
	call	global
	call	many
	call	by_cr0
	call	self_map
	call	pcid
	call	invpcid_types
	ret

by_invlpg:
	map	0, 1
	map	1, 2
	expect_page 0, 1, __LINE__
	expect_page 1, 2, __LINE__
	map	0, 3
	invlpg	[TEST_VA + 0x123]
	expect_page 0, 3, __LINE__
	map	0, 4
	mov	rbx, TEST_VA
	invlpg	[rbx]
	mov	dword ptr [rbx + 8], 0x99	/* for writing as well */
	mov	eax, [scratch + 0x4008]
	expect(rax, 0x99)
	mov	eax, [scratch + 0x3008]
	expect(rax, 0)
	mov	rbx, 0x0000800000000000
	invlpg	[rbx]			/* not canonical: does nothing, and no fault */
	expect_page 0, 4, __LINE__
	ret

by_cr3:
	map	0, 5
	map	1, 6
	mov	rax, cr3
	mov	cr3, rax
	expect_page 0, 5, __LINE__
	expect_page 1, 6, __LINE__
	/* other tables: a second PML4 and what hangs off it */
	mov	rsi, offset pml4
	mov	rdi, offset pml4_b
	mov	ecx, 512
	rep movsq
	mov	rsi, offset pdpt
	mov	rdi, offset pdpt_b
	mov	ecx, 512
	rep movsq
	mov	qword ptr [pml4_b], offset pdpt_b + (PTE_P | PTE_W | PTE_U)
	mov	qword ptr [pdpt_b + 8], offset pd_b + (PTE_P | PTE_W | PTE_U)
	mov	qword ptr [pd_b], offset pt_b + (PTE_P | PTE_W | PTE_U)
	mov	qword ptr [pt_b], offset scratch + 0x7000 + (PTE_P | PTE_W)
	mov	r12d, 50
1:	mov	rax, offset pml4_b
	mov	cr3, rax
	expect_page 0, 7, __LINE__
	expect_fault(PF, 0, mov eax, [TEST_VA + 0x1000])
	mov	rax, offset pml4
	mov	cr3, rax
	expect_page 0, 5, __LINE__
	expect_page 1, 6, __LINE__
	dec	r12d
	jnz	1b
	ret

/* More rights need no flush, or at most cost one spurious fault; fewer rights count after INVLPG. */
permissions:
	map	2, 1
	mov	rbx, TEST_VA + 0x2000
	mov	[rbx + 16], eax
	map	2, 1, PTE_P
	invlpg	[rbx]
	expect_fault(PF, PF_P | PF_W, mov [rbx + 16], eax)
	map	2, 1
	invlpg	[rbx]
	mov	[rbx + 16], eax
	mov	qword ptr [test_pt + 16], 0
	invlpg	[rbx]
	expect_fault(PF, 0, mov eax, [rbx])
	map	2, 2			/* from not present: no flush needed */
	expect_page 2, 2, __LINE__
	ret

global:
	mov	rax, cr4
	or	rax, CR4_PGE
	mov	cr4, rax
	map	3, 1, (PTE_P|PTE_W|PTE_G)
	expect_page 3, 1, __LINE__
	map	3, 2, (PTE_P|PTE_W|PTE_G)
	invlpg	[TEST_VA + 0x3000]	/* global or not */
	expect_page 3, 2, __LINE__
	map	3, 3, (PTE_P|PTE_W|PTE_G)
	mov	rax, cr4		/* a change of PGE forgets all */
	and	rax, ~CR4_PGE
	mov	cr4, rax
	expect_page 3, 3, __LINE__
	map	3, 4, PTE_P|PTE_W|PTE_G
	mov	rax, cr4
	or	rax, CR4_PGE
	mov	cr4, rax
	expect_page 3, 4, __LINE__
	/* not global beside global, same flush */
	map	4, 5
	expect_page 4, 5, __LINE__
	map	4, 6
	mov	rax, cr3
	mov	cr3, rax
	expect_page 4, 6, __LINE__
	expect_page 3, 4, __LINE__
	mov	qword ptr [test_pt + 24], 0
	invlpg	[TEST_VA + 0x3000]
	mov	rax, cr4
	and	rax, ~CR4_PGE
	mov	cr4, rax
	ret

/* More pages than a TLB of any size holds, and pages that share its slots. */
many:
	mov	rdi, offset test_pt
	mov	ecx, 512
	xor	edx, edx
1:	mov	rax, rdx
	and	eax, 15
	shl	eax, 12
	add	rax, offset scratch
	or	rax, PTE_P | PTE_W
	stosq
	inc	edx
	loop	1b
	mov	rax, cr3
	mov	cr3, rax
	mov	r12d, 3
2:	mov	rbx, TEST_VA
	xor	ecx, ecx
3:	mov	eax, [rbx]
	mov	edx, ecx
	and	edx, 15
	cmp	eax, edx
	je	4f
	expect(rax, rdx)
4:	add	rbx, 0x1000
	inc	ecx
	cmp	ecx, 512
	jne	3b
	/* another 2 MiB region with the same low address bits */
	mov	eax, [0x600000]
	mov	eax, [0x800000]
	dec	r12d
	jnz	2b
	expect(r12, 0)
	ret

/* Paging off and on again, from 32-bit code. */
by_cr0:
	map	5, 1
	invlpg	[TEST_VA + 0x5000]
	expect_page 5, 1, __LINE__
	mov	rbx, offset 1f
	push	KCODE32
	push	rbx
	retfq
	.code32
1:	mov	eax, cr0
	btr	eax, 31
	mov	cr0, eax
	mov	eax, offset scratch + 0x2000 + (PTE_P | PTE_W)
	mov	[test_pt + 40], eax
	mov	eax, cr0
	bts	eax, 31
	mov	cr0, eax
	jmp	KCODE64:2f
	.code64
2:	expect_page 5, 2, __LINE__
	ret

/* Page tables seen through themselves: a store to a PTE through the map works like any other. */
self_map:
	mov	rax, offset test_pt + (PTE_P | PTE_W)
	mov	[test_pt + 6 * 8], rax
	invlpg	[TEST_VA + 0x6000]
	mov	rbx, TEST_VA + 0x6000
	mov	rax, offset scratch + 0x9000 + (PTE_P | PTE_W)
	mov	[rbx + 7 * 8], rax
	invlpg	[TEST_VA + 0x7000]
	expect_page 7, 9, __LINE__
	mov	rax, [rbx + 7 * 8]
	and	eax, PTE_A
	expect(rax, PTE_A)
	/* a loop in the tables: PML4 entry 256 is the PML4 */
	mov	rax, offset pml4 + (PTE_P | PTE_W)
	mov	[pml4 + 256 * 8], rax
	mov	rbx, 0xffff804020100000
	mov	rax, [rbx + 256 * 8]
	and	rax, -256
	mov	rcx, offset pml4
	expect(rax, rcx)
	mov	qword ptr [pml4 + 256 * 8], 0
	ret

pcid:
	cpuid_bit 1, 0, ecx, 17
	jz	pcid_done
	mov	rax, cr4
	or	rax, CR4_PCIDE
	mov	cr4, rax
	map	8, 1
	invlpg	[TEST_VA + 0x8000]
	/* PCID 1 and 2 with the same tables; bit 63 asks to keep */
	mov	rax, offset pml4 + 1
	mov	cr3, rax
	expect_page 8, 1, __LINE__
	map	8, 2
	mov	rax, offset pml4 + 2
	mov	cr3, rax
	expect_page 8, 2, __LINE__
	/* back to 1 without bit 63: forgotten */
	mov	rax, offset pml4 + 1
	mov	cr3, rax
	expect_page 8, 2, __LINE__
	mov	rcx, cr3
	mov	rax, offset pml4 + 1
	expect(rcx, rax)		/* bit 63 does not stick */
	bts	rax, 63
	mov	cr3, rax
	mov	rcx, cr3
	mov	rax, offset pml4 + 1
	expect(rcx, rax)
	/* INVLPG in the current PCID */
	map	8, 3
	invlpg	[TEST_VA + 0x8000]
	expect_page 8, 3, __LINE__
	/* different tables under different PCIDs, switched with keep: never mixed up */
	mov	r12d, 50
1:	mov	rax, offset pml4_b + 3
	bts	rax, 63
	mov	cr3, rax
	expect_page 0, 7, __LINE__
	mov	rax, offset pml4 + 1
	bts	rax, 63
	mov	cr3, rax
	expect_page 8, 3, __LINE__
	dec	r12d
	jnz	1b
	/* PCIDE may only be set with PCID 0 (4.10.1) */
	mov	rax, offset pml4
	mov	cr3, rax
	mov	rax, cr4
	and	rax, ~CR4_PCIDE
	mov	cr4, rax
	mov	rax, offset pml4 + 1
	mov	cr3, rax
	mov	rax, cr4
	or	rax, CR4_PCIDE
	expect_fault(GP, 0, mov cr4, rax)
	mov	rax, offset pml4
	mov	cr3, rax
pcid_done:
	ret

invpcid_types:
	cpuid_bit 7, 0, ebx, 10
	jz	invpcid_done
	map	9, 1
	invlpg	[TEST_VA + 0x9000]
	expect_page 9, 1, __LINE__
	map	9, 2
	mov	qword ptr [descriptor], 0
	mov	qword ptr [descriptor + 8], TEST_VA + 0x9000
	xor	eax, eax
	invpcid	rax, [descriptor]
	expect_page 9, 2, __LINE__
	map	9, 3
	mov	eax, 1
	invpcid	rax, [descriptor]
	expect_page 9, 3, __LINE__
	map	9, 4
	mov	eax, 2
	invpcid	rax, [descriptor]
	expect_page 9, 4, __LINE__
	map	9, 5
	mov	eax, 3
	invpcid	rax, [descriptor]
	expect_page 9, 5, __LINE__
	mov	eax, 4
	expect_fault(GP, 0, invpcid rax, [descriptor])
	mov	eax, 0
	mov	qword ptr [descriptor], 0x1000	/* bits 63:12 of the PCID are reserved */
	expect_fault(GP, 0, invpcid rax, [descriptor])
invpcid_done:
	ret

	.bss
	.balign	4096
pml4_b:	.skip	4096
pdpt_b:	.skip	4096
pd_b:	.skip	4096
pt_b:	.skip	4096
descriptor: .skip 16
