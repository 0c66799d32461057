/*
 * Paging outside IA-32e mode: 32-bit paging with 4 KiB and 4 MiB pages, PSE-36, PAE with 4 KiB and 2 MiB pages,
 * NX, the PDPTE registers, and what switching between them must forget (SDM vol. 3A 4.3, 4.4, 4.6 to 4.8,
 * 4.10.4). Begins and ends in protected mode without paging.
 */
#include "lib.h"
GUEST(paging32)

#define CR0_PG	 0x80000000
#define CR0_WP	 0x10000
#define CR4_PSE	 0x10
#define CR4_PAE	 0x20
#define CR4_PGE	 0x80
#define CR4_SMEP 0x100000
#define CR4_SMAP 0x200000
#define EFER_NXE 0x800
#define EFER_LME 0x100

#define RWU (PTE_P | PTE_W | PTE_U)
#define RW  (PTE_P | PTE_W)

/* Guest-physical: two 4 MiB pages that nothing else uses */
#define BIG_A 0x1000000
#define BIG_B 0x1400000

/* The 4 MiB from TEST_VA on go through test_pt; the 4 MiB behind it are a large page's. */
#define LARGE_VA (TEST_VA + 0x400000)

/* One case of rights(), in ebp: the page's P, W, U as in a PTE (bits 0-2), then: */
#define CASE_NX	   0x008
#define CASE_WP	   0x010
#define CASE_SMEP  0x020
#define CASE_SMAP  0x040
#define CASE_AC	   0x080
#define CASE_USER  0x100
#define CASE_WRITE 0x200
#define CASE_FETCH 0x400
#define CASES	   0x800

guest_main:
	call	features
	call	two_level_on
	mov	dword ptr [usable_nx], 0
	mov	dword ptr [leaf], offset narrow_pt
	mov	dword ptr [leaf_base], offset scratch
	mov	dword ptr [leaf_va], TEST_VA
	call	rights
	mov	dword ptr [leaf], offset narrow_pd + (LARGE_VA >> 22) * 4
	mov	dword ptr [leaf_base], BIG_A + PTE_PS
	mov	dword ptr [leaf_va], LARGE_VA + 0x3ff123
	call	rights
	mov	dword ptr [narrow_pd + (LARGE_VA >> 22) * 4], 0
	call	narrow_directory
	call	narrow_large
	call	pse_36
	call	narrow_global
	mov	edi, offset narrow_pt
	mov	dword ptr [entry_bytes], 4
	call	wrap
	call	paging_off

	call	pae_on
	call	no_execute_off
	mov	eax, [has_nx]
	mov	[usable_nx], eax
	mov	dword ptr [leaf], offset wide_pt
	mov	dword ptr [leaf_base], offset scratch
	mov	dword ptr [leaf_va], TEST_VA
	call	rights
	mov	dword ptr [leaf], offset wide_pd1 + 16
	mov	dword ptr [leaf_base], BIG_A + PTE_PS
	mov	dword ptr [leaf_va], LARGE_VA + 0x1ff123
	call	rights
	mov	dword ptr [wide_pd1 + 16], 0
	mov	dword ptr [wide_pd1 + 20], 0
	call	wide_directory
	call	wide_reserved
	call	pdpte_registers
	call	pdpte_reserved
	mov	edi, offset wide_pt
	mov	dword ptr [entry_bytes], 8
	call	wrap
	call	paging_off

	call	pae_toggled
	call	round_and_round
	call	wrap_in_compatibility_mode
	ret

/* has_nx, and in has_smxp CASE_SMEP and CASE_SMAP as the processor has them */
features:
	cpuid_bit 7, 0, ebx, 7
	jz	1f
	or	dword ptr [has_smxp], CASE_SMEP
1:	test	ebx, 1 << 20
	jz	2f
	or	dword ptr [has_smxp], CASE_SMAP
2:	cpuid_bit 0x80000001, 0, edx, 20
	jz	3f
	mov	dword ptr [has_nx], CASE_NX
3:	ret

/* ---- the tables ---- */

/* @table, entries of @bytes: 4 MiB from 0 on by small pages; .user alone belongs to CPL 3 */
.macro fill_low table, bytes
	mov	edi, offset \table
	mov	eax, RW
1:	mov	edx, eax
	cmp	eax, offset user_start
	jb	2f
	cmp	eax, offset user_end
	jae	2f
	or	edx, PTE_U
2:	mov	[edi], edx
	add	edi, \bytes
	add	eax, 0x1000
	cmp	eax, 0x400000
	jb	1b
.endm

/* 0-4 MiB small; BIG_A, BIG_B large; TEST_VA and the last 4 MiB by test tables */
two_level_on:
	fill_low narrow_low, 4
	mov	dword ptr [narrow_pd], offset narrow_low + RWU
	mov	dword ptr [narrow_pd + (BIG_A >> 22) * 4], BIG_A + RW + PTE_PS
	mov	dword ptr [narrow_pd + (BIG_B >> 22) * 4], BIG_B + RW + PTE_PS
	mov	dword ptr [narrow_pd + (TEST_VA >> 22) * 4], offset narrow_pt + RWU
	mov	dword ptr [narrow_pd + 1023 * 4], offset narrow_pt + RWU
	mov	eax, cr4
	and	eax, ~CR4_PAE
	or	eax, CR4_PSE
	mov	cr4, eax
	mov	eax, offset narrow_pd
	mov	cr3, eax
paging_on:
	mov	eax, cr0
	or	eax, CR0_PG | CR0_WP
	mov	cr0, eax
	ret

/* The same map in PAE's tables, but for 2 MiB pages at LARGE_VA */
pae_on:
	fill_low wide_low, 8
	mov	dword ptr [wide_pd0], offset wide_low + RWU
	mov	dword ptr [wide_pd0 + 8], offset wide_low + 0x1000 + RWU
	.irp	at, BIG_A, BIG_A + 0x200000, BIG_B, BIG_B + 0x200000
	mov	dword ptr [wide_pd0 + ((\at) >> 21) * 8], (\at) + RW + PTE_PS
	.endr
	mov	dword ptr [wide_pd1], offset wide_pt + RWU
	mov	dword ptr [wide_pd3 + 511 * 8], offset wide_pt + RWU
	mov	dword ptr [wide_pdpt], offset wide_pd0 + PTE_P
	mov	dword ptr [wide_pdpt + 8], offset wide_pd1 + PTE_P
	mov	dword ptr [wide_pdpt + 24], offset wide_pd3 + PTE_P
	call	set_nxe
	mov	eax, cr4
	and	eax, ~CR4_PSE		/* PAE has large pages without it */
	or	eax, CR4_PAE
	mov	cr4, eax
	mov	eax, offset wide_pdpt
	mov	cr3, eax
	jmp	paging_on

paging_off:
	mov	eax, cr0
	and	eax, ~CR0_PG
	mov	cr0, eax
	ret

set_nxe:
	cmp	dword ptr [has_nx], 0
	je	1f
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, EFER_NXE
	wrmsr
1:	ret

clear_nxe:
	mov	ecx, MSR_EFER
	rdmsr
	and	eax, ~EFER_NXE
	wrmsr
	ret

.macro flush
	mov	eax, cr3
	mov	cr3, eax
.endm

/* ---- rights ---- */

/* Every combination of page, mode and access for the page at leaf_va, whose last entry is [leaf], against 4.6. */
rights:
	mov	byte ptr [scratch], 0xc3	/* RET, for fetches */
	mov	byte ptr [BIG_A + 0x3ff123], 0xc3
	mov	byte ptr [BIG_A + 0x1ff123], 0xc3
	xor	ebp, ebp
rights_case:
	mov	eax, [has_smxp]
	or	eax, [usable_nx]
	not	eax
	and	eax, CASE_SMEP | CASE_SMAP | CASE_NX
	test	eax, ebp
	jnz	next_case
	mov	eax, ebp
	and	eax, CASE_WRITE | CASE_FETCH
	cmp	eax, CASE_WRITE | CASE_FETCH
	je	next_case

	/* the page */
	mov	edi, [leaf]
	mov	eax, ebp
	and	eax, 7
	or	eax, [leaf_base]
	mov	[edi], eax
	mov	[entry_before], eax
	cmp	dword ptr [usable_nx], 0
	je	2f
	mov	eax, ebp
	and	eax, CASE_NX
	shl	eax, 28
	mov	[edi + 4], eax
2:	mov	ebx, [leaf_va]
	invlpg	[ebx]

	/* the controls */
	mov	eax, cr0
	and	eax, ~CR0_WP
	test	ebp, CASE_WP
	jz	3f
	or	eax, CR0_WP
3:	mov	cr0, eax
	mov	eax, cr4
	and	eax, ~(CR4_SMEP | CR4_SMAP)
	test	ebp, CASE_SMEP
	jz	4f
	or	eax, CR4_SMEP
4:	test	ebp, CASE_SMAP
	jz	5f
	or	eax, CR4_SMAP
5:	mov	cr4, eax

	call	expected_error
	mov	[expected], eax
	test	ebp, CASE_USER
	jnz	user_access

	pushf
	mov	ecx, ebp
	and	ecx, CASE_AC
	shl	ecx, 18 - 7
	or	[esp], ecx
	arm	7f
	popf
	test	ebp, CASE_WRITE
	jnz	6f
	test	ebp, CASE_FETCH
	jnz	5f
	mov	al, [ebx]
	jmp	7f
5:	call	ebx
	jmp	7f
6:	mov	byte ptr [ebx], 0xc3
7:	disarm
	mov	esp, [fault_sp]
	mov	dword ptr [esp], 2
	popf
	jmp	judge

user_access:
	test	ebp, CASE_WRITE
	jnz	2f
	test	ebp, CASE_FETCH
	jnz	1f
	user(mov al, [ebx])
	jmp	3f
1:	user(call ebx)
	jmp	3f
2:	user(mov byte ptr [ebx], 0xc3)
3:	cmp	dword ptr [fault_vector], USER_RETURN
	jne	judge
	mov	dword ptr [fault_vector], NONE

/* Got: the error code, or NONE; with the case above, so that a failure can be told. */
judge:
	mov	eax, [fault_error]
	cmp	dword ptr [fault_vector], PF
	je	1f
	mov	eax, [fault_vector]
1:	mov	ecx, ebp
	shl	ecx, 16
	or	eax, ecx
	or	ecx, [expected]
	expect(eax, ecx)
	mov	edi, [leaf]
	mov	eax, [edi]
	mov	edx, [entry_before]
	cmp	dword ptr [expected], NONE
	je	2f
	/* a fault sets no dirty bit, and a page that is not present stays as it is */
	test	ebp, PTE_P
	jz	3f
	and	eax, ~PTE_A
3:	expect(eax, edx)
	mov	eax, [fault_cr2]
	expect(eax, ebx)
	jmp	next_case
2:	or	edx, PTE_A
	test	ebp, CASE_WRITE
	jz	4f
	or	edx, PTE_D
4:	expect(eax, edx)

next_case:
	inc	ebp
	cmp	ebp, CASES
	jne	rights_case
	mov	eax, cr0
	or	eax, CR0_WP
	mov	cr0, eax
	mov	eax, cr4
	and	eax, ~(CR4_SMEP | CR4_SMAP)
	mov	cr4, eax
	/* leave no NX behind in the tables */
	cmp	dword ptr [usable_nx], 0
	je	1f
	mov	edi, [leaf]
	mov	dword ptr [edi + 4], 0
	flush
1:	ret

/* EAX: the error code that the case of ebp must raise, or NONE. */
expected_error:
	xor	eax, eax
	test	ebp, CASE_USER
	jz	1f
	or	eax, PF_U
1:	test	ebp, CASE_WRITE
	jz	2f
	or	eax, PF_W
2:	test	ebp, CASE_FETCH
	jz	3f
	/* I/D: with SMEP, or with PAE and NXE (4.7) */
	cmp	dword ptr [usable_nx], 0
	jne	1f
	test	ebp, CASE_SMEP
	jz	3f
1:	or	eax, PF_I
3:	test	ebp, PTE_P
	jz	9f
	or	eax, PF_P
	test	ebp, CASE_USER
	jz	4f
	test	ebp, PTE_U
	jz	9f
	jmp	6f
4:	test	ebp, PTE_U		/* supervisor and a user page */
	jz	6f
	test	ebp, CASE_FETCH
	jz	5f
	test	ebp, CASE_SMEP
	jnz	9f
	jmp	6f
5:	test	ebp, CASE_SMAP
	jz	6f
	test	ebp, CASE_AC
	jz	9f
6:	test	ebp, CASE_FETCH
	jz	7f
	test	ebp, CASE_NX
	jnz	9f
	jmp	8f
7:	test	ebp, CASE_WRITE
	jz	8f
	test	ebp, PTE_W
	jnz	8f
	test	ebp, CASE_USER
	jnz	9f
	test	ebp, CASE_WP
	jnz	9f
8:	mov	eax, NONE
9:	ret

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

/* ---- the last byte and the first ---- */

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
	mov	dword ptr [long_pml4], offset long_pdpt + RWU
	mov	dword ptr [long_pdpt], offset wide_pd0 + RWU
	mov	dword ptr [long_pdpt + 8], offset long_pd1 + RWU
	mov	dword ptr [long_pdpt + 24], offset wide_pd3 + RWU
	mov	dword ptr [long_pd1], offset long_pt + RWU
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

/* From no paging with CR4.PAE set to compatibility mode, and back to none without */
compatibility_on:
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, EFER_LME
	wrmsr
	mov	eax, offset long_pml4
	mov	cr3, eax
	jmp	paging_on

compatibility_off:
	call	paging_off
	mov	ecx, MSR_EFER
	rdmsr
	and	eax, ~EFER_LME
	wrmsr
	mov	eax, cr4
	and	eax, ~CR4_PAE
	mov	cr4, eax
	ret

/* The address behind 0xffffffff is 0 there too, although the tables go on. Gates are 64-bit ones: only #GP has one. */
wrap_in_compatibility_mode:
	call	pae_on
	call	paging_off
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

/* AH: what TEST_VA + 0x1000 shows; AL: what the code there says. The same bytes in 32- and 64-bit mode. */
look:
	mov	ebx, TEST_VA + 0x1000
	lea	ecx, [ebx + 16]
	call	CX
	mov	ah, [ebx]
	ret

	.bss
	.balign	4096
narrow_pd: .skip 4096
narrow_low: .skip 4096
narrow_pt: .skip 4096
wide_low: .skip 8192
wide_pd0: .skip 4096
wide_pd1: .skip 4096
wide_pd2: .skip 4096
wide_pd2b: .skip 4096
wide_pd3: .skip 4096
wide_pt: .skip 4096
both_top: .skip 4096
both_pd: .skip 4096
long_pml4: .skip 4096
long_pdpt: .skip 4096
long_pd1: .skip 4096
long_pt: .skip 4096
wide_pdpt: .skip 128
wide_pdpt_b: .skip 32
leaf:	.skip 4
leaf_base: .skip 4
leaf_va: .skip 4
entry_before: .skip 4
entry_bytes: .skip 4
expected: .skip 4
has_nx:	.skip 4
has_smxp: .skip 4
usable_nx: .skip 4
saved_esp: .skip 4
	.balign	8
idt_64:	.skip	(GP + 1) * 16

	.data
idt_64_pointer:
	.short	(GP + 1) * 16 - 1
	.quad	idt_64
