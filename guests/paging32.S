/*
 * Paging outside IA-32e mode: 32-bit paging with 4 KiB and 4 MiB pages, PSE-36, PAE with 4 KiB and 2 MiB pages,
 * NX, the PDPTE registers, and what switching between them must forget (SDM vol. 3A 4.3, 4.4, 4.6 to 4.8,
 * 4.10.4). Begins and ends in protected mode without paging.
 */
#include "paging32.inc"
GUEST(paging32)

guest_main:
	call	features
	call	two_level_on
	call	narrow_directory
	call	narrow_large
	call	pse_36
	call	narrow_global
	call	paging_off

	call	pae_on
	call	no_execute_off
	call	wide_directory
	call	wide_reserved
	call	pdpte_registers
	call	pdpte_reserved
	call	paging_off

	call	pae_toggled
	call	round_and_round
	ret

/* ---- 32-bit paging ---- */

#define NARROW_TEST (narrow_pd + (TEST_VA >> 22) * 4)
#define NARROW_LARGE (narrow_pd + (LARGE_VA >> 22) * 4)

/* Rights are those of both levels together. Accessed is set in both, dirty in the last one only. */
narrow_directory:
	mov	ebx, TEST_VA + 0x1008
	mov	dword ptr [narrow_pt + 4], offset scratch + 0x1000 + RWU
	mov	dword ptr [NARROW_TEST], offset narrow_pt + RWU
	flush
	mov	dword ptr [ebx], 0x1234
	expect([scratch + 0x1008], 0x1234)
	mov	eax, [NARROW_TEST]
	and	eax, PTE_A | PTE_D
	expect(eax, PTE_A)
	mov	eax, [narrow_pt + 4]
	and	eax, PTE_A | PTE_D
	expect(eax, PTE_A | PTE_D)
	and	dword ptr [NARROW_TEST], ~PTE_W
	invlpg	[ebx]
	expect_fault(PF, PF_P | PF_W, mov [ebx], eax)
	expect_user_fault(PF, PF_P | PF_W | PF_U, mov [ebx], eax)
	user_ok(mov eax, [ebx])
	expect(eax, 0x1234)
	mov	dword ptr [NARROW_TEST], offset narrow_pt + RW
	invlpg	[ebx]
	mov	[ebx], eax
	expect_user_fault(PF, PF_P | PF_U, mov eax, [ebx])
	mov	dword ptr [NARROW_TEST], -2
	invlpg	[ebx]
	expect_fault(PF, PF_W, mov [ebx], eax)
	mov	eax, [NARROW_TEST]
	expect(eax, -2)			/* software's, if not present */
	mov	dword ptr [NARROW_TEST], offset narrow_pt + RWU
	mov	eax, [ebx]		/* what was not present is never cached */
	/* no bit of a PTE is reserved: PAT, G and the ignored ones */
	mov	dword ptr [narrow_pt + 4], offset scratch + 0x2000 + RWU + 0xf80
	mov	dword ptr [scratch + 0x2008], 0x2222
	invlpg	[ebx]
	expect([ebx], 0x2222)
	mov	dword ptr [narrow_pt + 4], 0
	invlpg	[ebx]
	ret

/* 4 MiB pages exist with CR4.PSE; without it, PS is ignored. A change of PSE forgets all. */
narrow_large:
	mov	dword ptr [BIG_A], 0x11
	mov	dword ptr [BIG_A + 0x3ffffc], 0x22
	mov	dword ptr [BIG_B], 0x33
	mov	ebx, LARGE_VA
	mov	dword ptr [NARROW_LARGE], BIG_A + PTE_PS + PTE_P
	expect([ebx], 0x11)
	expect([ebx + 0x3ffffc], 0x22)
	mov	eax, [NARROW_LARGE]
	expect(eax, BIG_A + PTE_PS + PTE_P + PTE_A)
	expect_fault(PF, PF_P | PF_W, mov [ebx + 0x3ff000], eax)
	expect_user_fault(PF, PF_P | PF_U, mov eax, [ebx])
	mov	dword ptr [NARROW_LARGE], BIG_A + PTE_PS + RWU
	invlpg	[ebx + 0x3ff000]	/* any address of the page will do, for all of it */
	user_ok(mov dword ptr [ebx + 0x200000], 0x44)
	expect([BIG_A + 0x200000], 0x44)
	mov	eax, [NARROW_LARGE]
	expect(eax, BIG_A + PTE_PS + RWU + PTE_A + PTE_D)
	/* both halves have been used; one INVLPG drops them */
	mov	eax, [ebx]
	mov	dword ptr [NARROW_LARGE], BIG_B + PTE_PS + RWU
	invlpg	[ebx + 0x200000]
	expect([ebx], 0x33)
	/* bit 21 is reserved */
	mov	dword ptr [NARROW_LARGE], BIG_A + 0x200000 + PTE_PS + RWU
	invlpg	[ebx]
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [ebx])
	expect_fault(PF, PF_P | PF_RSVD | PF_W, mov [ebx], eax)
	expect_user_fault(PF, PF_P | PF_RSVD | PF_U, mov eax, [ebx])
	mov	dword ptr [NARROW_LARGE], BIG_A + 0x200000 + PTE_PS
	expect_fault(PF, 0, mov eax, [ebx])
	/* a table where the page was: PS becomes nothing when PSE does. This code is in small pages. */
	mov	dword ptr [NARROW_LARGE], offset narrow_pt + PTE_PS + RWU
	mov	dword ptr [narrow_pt], offset scratch + 0x3000 + RWU
	mov	dword ptr [scratch + 0x3000], 0x55
	mov	eax, cr4
	and	eax, ~CR4_PSE
	mov	cr4, eax
	expect([ebx], 0x55)
	mov	dword ptr [NARROW_LARGE], BIG_A + PTE_PS + RWU
	mov	eax, cr4
	or	eax, CR4_PSE
	mov	cr4, eax
	expect([ebx], 0x11)
	mov	dword ptr [NARROW_LARGE], 0
	mov	dword ptr [narrow_pt], 0
	flush
	ret

/* Bits 20:13 of a large PDE are address bits 39:32: what is up there is not what is down here. */
pse_36:
	cpuid_bit 1, 0, edx, 17
	jz	2f
	mov	eax, 0x80000008
	cpuid
	cmp	al, 33
	jb	2f
	mov	ebx, LARGE_VA + 0x10
	mov	dword ptr [BIG_A + 0x10], 0x13572468
	mov	dword ptr [NARROW_LARGE], BIG_A + PTE_PS + RWU + 0x2000
	invlpg	[ebx]
	mov	eax, [ebx]
	cmp	eax, 0x13572468
	jne	1f
	fail()
1:	mov	dword ptr [ebx], 0
	expect([BIG_A + 0x10], 0x13572468)
	mov	dword ptr [NARROW_LARGE], 0
	invlpg	[ebx]
2:	ret

/* Global pages: INVLPG and a change of PGE forget them, a CR3 write may not. */
narrow_global:
	mov	eax, cr4
	or	eax, CR4_PGE
	mov	cr4, eax
	mov	dword ptr [scratch + 0x4000], 4
	mov	dword ptr [scratch + 0x5000], 5
	mov	ebx, TEST_VA + 0x4000
	mov	dword ptr [narrow_pt + 16], offset scratch + 0x4000 + RW + PTE_G
	expect([ebx], 4)
	mov	dword ptr [narrow_pt + 16], offset scratch + 0x5000 + RW + PTE_G
	invlpg	[ebx]
	expect([ebx], 5)
	mov	dword ptr [NARROW_LARGE], BIG_A + PTE_PS + RW + PTE_G
	expect([LARGE_VA], 0x11)
	mov	dword ptr [narrow_pt + 16], offset scratch + 0x4000 + RW + PTE_G
	mov	dword ptr [NARROW_LARGE], BIG_B + PTE_PS + RW + PTE_G
	mov	eax, cr4
	and	eax, ~CR4_PGE
	mov	cr4, eax
	expect([ebx], 4)
	expect([LARGE_VA], 0x33)
	/* G without PGE is nothing: CR3 forgets */
	mov	dword ptr [narrow_pt + 16], offset scratch + 0x5000 + RW + PTE_G
	mov	dword ptr [NARROW_LARGE], BIG_A + PTE_PS + RW + PTE_G
	flush
	expect([ebx], 5)
	expect([LARGE_VA], 0x11)
	mov	dword ptr [narrow_pt + 16], offset scratch + 0x4000 + RW + PTE_G
	mov	eax, cr4
	or	eax, CR4_PGE
	mov	cr4, eax
	expect([ebx], 4)
	mov	eax, cr4
	and	eax, ~CR4_PGE
	mov	cr4, eax
	mov	dword ptr [narrow_pt + 16], 0
	mov	dword ptr [NARROW_LARGE], 0
	flush
	ret

/* ---- PAE ---- */

/* With NXE clear, bit 63 is reserved, and fetches report no I/D. */
no_execute_off:
	call	clear_nxe
	mov	ebx, TEST_VA + 0x1000
	mov	dword ptr [wide_pt + 8], offset scratch + 0x1000 + RWU
	mov	dword ptr [wide_pt + 12], 0x80000000
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [ebx])
	expect_user_fault(PF, PF_P | PF_RSVD | PF_U | PF_W, mov [ebx], eax)
	mov	dword ptr [wide_pt + 8], 0
	arm	1f
	call	ebx
1:	disarm
	expect([fault_vector], PF)
	expect([fault_error], 0)
	mov	dword ptr [wide_pt + 12], 0
	jmp	set_nxe

wide_directory:
	mov	ebx, TEST_VA + 0x1008
	mov	dword ptr [wide_pt + 8], offset scratch + 0x1000 + RWU
	mov	dword ptr [wide_pd1], offset wide_pt + RWU
	flush
	mov	dword ptr [ebx], 0x1234
	expect([scratch + 0x1008], 0x1234)
	mov	eax, [wide_pd1]
	and	eax, PTE_A | PTE_D
	expect(eax, PTE_A)
	mov	eax, [wide_pt + 8]
	and	eax, PTE_A | PTE_D
	expect(eax, PTE_A | PTE_D)
	expect([wide_pdpt + 8], offset wide_pd1 + PTE_P)	/* has no accessed bit */
	mov	dword ptr [wide_pd1], offset wide_pt + PTE_P + PTE_U
	invlpg	[ebx]
	expect_fault(PF, PF_P | PF_W, mov [ebx], eax)
	mov	dword ptr [wide_pd1], offset wide_pt + RW
	invlpg	[ebx]
	expect_user_fault(PF, PF_P | PF_U, mov eax, [ebx])
	mov	byte ptr [scratch + 0x1008], 0xc3
	call	ebx
	cmp	dword ptr [has_nx], 0
	je	2f
	mov	dword ptr [wide_pd1 + 4], 0x80000000
	invlpg	[ebx]
	mov	al, [ebx]
	arm	1f
	call	ebx
1:	disarm
	expect([fault_vector], PF)
	expect([fault_error], PF_P | PF_I)
	expect([fault_ip], ebx)
	mov	dword ptr [wide_pd1 + 4], 0
2:	mov	dword ptr [wide_pd1], offset wide_pt + RWU
	/* a missing PDPTE */
	mov	esi, 0x80000000
	expect_fault(PF, PF_W, mov [esi], eax)
	expect([fault_cr2], 0x80000000)
	/* large and small side by side; bits 21 to 12 of the offset are the page's */
	mov	dword ptr [wide_pd1 + 16], BIG_A + PTE_PS + RWU
	mov	dword ptr [wide_pd1 + 24], BIG_A + 0x200000 + PTE_PS + RWU
	flush
	mov	dword ptr [BIG_A + 0x1ffffc], 0x11111111
	mov	dword ptr [BIG_A + 0x200000], 0x22222222
	mov	ebx, LARGE_VA + 0x200000
	expect([ebx - 2], 0x22221111)
	mov	dword ptr [wide_pd1 + 24], BIG_B + PTE_PS + RWU
	invlpg	[ebx + 0x1ff000]
	mov	dword ptr [BIG_B], 0x33333333
	expect([ebx - 2], 0x33331111)
	mov	dword ptr [wide_pd1 + 16], 0
	mov	dword ptr [wide_pd1 + 24], 0
	flush
	ret

/* Bits beyond MAXPHYADDR and 62:52 of present entries, low address bits of large ones (tables 4-9 to 4-11) */
wide_reserved:
	mov	ebx, TEST_VA + 0x1000
	mov	dword ptr [wide_pt + 8], offset scratch + 0x1000 + RWU
	.irp	high, 0x00100000, 0x40000000
	mov	dword ptr [wide_pt + 12], \high
	invlpg	[ebx]
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [ebx])
	expect_user_fault(PF, PF_P | PF_RSVD | PF_U | PF_W, mov [ebx], eax)
	mov	dword ptr [wide_pt + 12], 0
	mov	dword ptr [wide_pd1 + 4], \high
	invlpg	[ebx]
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [ebx])
	mov	dword ptr [wide_pd1 + 4], 0
	.endr
	mov	dword ptr [wide_pt + 12], 0x7fffffff
	mov	dword ptr [wide_pt + 8], -2
	invlpg	[ebx]
	expect_fault(PF, 0, mov eax, [ebx])
	mov	dword ptr [wide_pt + 12], 0
	mov	dword ptr [wide_pt + 8], 0
	.irp	low, 0x2000, 0x100000
	mov	dword ptr [wide_pd1 + 16], BIG_A + \low + PTE_PS + RWU
	invlpg	[LARGE_VA]
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [LARGE_VA])
	.endr
	mov	dword ptr [wide_pd1 + 16], BIG_A + 0x1000 + PTE_PS + RWU	/* PAT */
	invlpg	[LARGE_VA]
	mov	eax, [LARGE_VA]
	mov	dword ptr [wide_pd1 + 16], 0
	invlpg	[LARGE_VA]
	ret

/* PDPTEs are registers: what memory holds counts from the next load on (4.4.1). */
pdpte_registers:
	mov	dword ptr [wide_pd2], BIG_A + PTE_PS + RW
	mov	dword ptr [wide_pd2b], BIG_B + PTE_PS + RW
	mov	dword ptr [BIG_A], 0x11
	mov	dword ptr [BIG_B], 0x33
	mov	ebx, 0x80000000
	mov	dword ptr [wide_pdpt + 16], offset wide_pd2 + PTE_P
	flush
	expect([ebx], 0x11)
	mov	dword ptr [wide_pdpt + 16], offset wide_pd2b + PTE_P
	flush
	expect([ebx], 0x33)
	/* loaded by MOV to CR4 that changes PGE or PSE as well, and by CR0.CD */
	mov	dword ptr [wide_pdpt + 16], offset wide_pd2 + PTE_P
	mov	eax, cr4
	xor	eax, CR4_PGE
	mov	cr4, eax
	expect([ebx], 0x11)
	mov	dword ptr [wide_pdpt + 16], offset wide_pd2b + PTE_P
	mov	eax, cr4
	xor	eax, CR4_PSE
	mov	cr4, eax
	expect([ebx], 0x33)
	mov	eax, cr4
	xor	eax, CR4_PSE | CR4_PGE
	mov	cr4, eax
	/* INVLPG loads nothing */
	mov	dword ptr [wide_pdpt + 16], 0
	invlpg	[ebx]
	expect([ebx], 0x33)
	flush
	expect_fault(PF, 0, mov eax, [ebx])
	/* a table that is 32-byte, not page-aligned */
	mov	dword ptr [wide_pdpt + 64], offset wide_pd0 + PTE_P
	mov	dword ptr [wide_pdpt + 80], offset wide_pd2 + PTE_P
	mov	eax, offset wide_pdpt + 64
	mov	cr3, eax
	expect([ebx], 0x11)
	mov	eax, cr3
	expect(eax, offset wide_pdpt + 64)
	mov	eax, offset wide_pdpt
	mov	cr3, eax
	ret

/* A load of PDPTEs that are present and have reserved bits set is #GP, and changes nothing (4.4.1). */
pdpte_reserved:
	mov	dword ptr [wide_pdpt + 16], offset wide_pd2 + PTE_P
	flush
	mov	ebx, 0x80000000
	mov	esi, offset wide_pdpt
	mov	edi, offset wide_pdpt_b
	mov	ecx, 8
	rep movsd
	mov	ecx, offset wide_pdpt_b
	.irp	low, 2, 4, 0x20, 0x40, 0x80, 0x100
	mov	dword ptr [wide_pdpt_b + 16], offset wide_pd2b + PTE_P + \low
	expect_fault(GP, 0, mov cr3, ecx)
	.endr
	mov	dword ptr [wide_pdpt_b + 16], offset wide_pd2b + PTE_P
	.irp	high, 0x00100000, 0x40000000, 0x80000000
	mov	dword ptr [wide_pdpt_b + 20], \high
	expect_fault(GP, 0, mov cr3, ecx)
	.endr
	mov	eax, cr3
	expect(eax, offset wide_pdpt)
	expect([ebx], 0x11)
	/* not present: anything goes; PWT, PCD and bits 11:9 are no reason */
	mov	dword ptr [wide_pdpt_b + 16], -2
	mov	dword ptr [wide_pdpt_b + 20], -1
	mov	cr3, ecx
	expect_fault(PF, 0, mov eax, [ebx])
	mov	dword ptr [wide_pdpt_b + 16], offset wide_pd2b + PTE_P + PTE_PWT + PTE_PCD + 0xe00
	mov	dword ptr [wide_pdpt_b + 20], 0
	mov	cr3, ecx
	expect([ebx], 0x33)
	/* by CR4 */
	or	dword ptr [wide_pdpt_b + 16], PTE_W
	mov	eax, cr4
	xor	eax, CR4_PGE
	expect_fault(GP, 0, mov cr4, eax)
	mov	ecx, cr4
	xor	eax, ecx
	expect(eax, CR4_PGE)
	expect([ebx], 0x33)
	mov	eax, cr4
	xor	eax, 4			/* TSD: loads nothing */
	mov	cr4, eax
	xor	eax, 4
	mov	cr4, eax
	expect([ebx], 0x33)
	mov	eax, offset wide_pdpt
	mov	cr3, eax
	/* by CR0.PG */
	call	paging_off
	or	dword ptr [wide_pdpt + 16], PTE_W
	mov	eax, cr0
	or	eax, CR0_PG
	expect_fault(GP, 0, mov cr0, eax)
	mov	ecx, cr0
	xor	eax, ecx
	expect(eax, CR0_PG)
	mov	dword ptr [wide_pdpt + 16], 0
	jmp	paging_on

/* ---- from one to the other ---- */

/*
 * CR4.PAE falls while paging is on: the table at CR3 is a PDPT first, then a page directory. toggle is at the same
 * address in both; 0xa000 is not. PDPTE 0 is PDE 0, so PAE's page directory is 32-bit paging's page table.
 */
pae_toggled:
	mov	dword ptr [both_top], offset both_pd + PTE_P
	mov	dword ptr [both_pd], RW + PTE_PS
	mov	dword ptr [both_pd + 4 * 8], 0x8000 + RW	/* VA 0x8000 by 32-bit paging */
	mov	dword ptr [both_pd + 5 * 8], offset scratch + 0xa000 + RW
	mov	dword ptr [0xa000], 0x11
	mov	dword ptr [scratch + 0xa000], 0x22
	mov	ecx, 10
1:	mov	dword ptr [both_top], offset both_pd + PTE_P	/* accessed is reserved in a PDPTE */
	mov	eax, cr4
	or	eax, CR4_PAE
	mov	cr4, eax
	mov	eax, offset both_top
	mov	cr3, eax
	xor	ebx, ebx
	xor	esi, esi
	mov	eax, offset toggle
	jmp	eax
toggled:
	expect(ebx, 0x11)
	expect(esi, 0x22)
	loop	1b
	ret

	.pushsection .low, "awx"
	.p2align 4
toggle:	mov	eax, cr0
	or	eax, CR0_PG
	mov	cr0, eax
	mov	ebx, [0xa000]
	mov	eax, cr4
	and	eax, ~CR4_PAE
	mov	cr4, eax
	mov	esi, [0xa000]
	mov	eax, cr0
	and	eax, ~CR0_PG
	mov	cr0, eax
	mov	eax, offset toggled
	jmp	eax
	.popsection

/* 32-bit paging, PAE, long mode, none: the same code each time, and the same address with other things behind. */
round_and_round:
	mov	dword ptr [narrow_pt + 4], offset scratch + 0x1000 + RW
	mov	dword ptr [wide_pt + 8], offset scratch + 0x2000 + RW
	mov	dword ptr [long_pt + 8], offset scratch + 0x3000 + RW
	call	long_tables
	mov	dword ptr [scratch + 0x1000], 1
	mov	dword ptr [scratch + 0x2000], 2
	mov	dword ptr [scratch + 0x3000], 3
	/* MOV EAX, imm32; RET in each */
	.irp	n, 1, 2, 3
	mov	byte ptr [scratch + \n * 0x1000 + 16], 0xb8
	mov	dword ptr [scratch + \n * 0x1000 + 17], \n
	mov	byte ptr [scratch + \n * 0x1000 + 21], 0xc3
	.endr
	mov	ebp, 20
1:	call	two_level_on
	call	look
	expect(eax, 0x0101)
	call	paging_off
	call	pae_on
	call	look
	expect(eax, 0x0202)
	call	paging_off
	call	compatibility_on
	call	look
	mov	esi, eax
	jmp	KCODE64:2f
	.code64
2:	call	look
	mov	edi, eax
	push	KCODE32
	push	offset 3f
	retfq
	.code32
3:	call	compatibility_off
	expect(esi, 0x0303)
	expect(edi, 0x0303)
	dec	ebp
	jnz	1b
	ret

/* AH: what TEST_VA + 0x1000 shows; AL: what the code there says. The same bytes in 32- and 64-bit mode. */
look:
	mov	ebx, TEST_VA + 0x1000
	lea	ecx, [ebx + 16]
	call	CX
	mov	ah, [ebx]
	ret

	.bss
	.balign	4096
both_top: .skip 4096
both_pd: .skip 4096
