/*
 * Rights of pages outside IA-32e mode: every combination of page, mode and access, by 32-bit paging and by PAE, small
 * pages and large ones (SDM vol. 3A 4.6, 4.7).
 */
#include "paging32.inc"
GUEST(rights32)

/* One case of rights(), in ebp: the page's P, W, U as in a PTE (bits 0-2), then: */
#define CASE_WP	   0x010
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
	call	paging_off

	call	pae_on
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
	jmp	paging_off

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

	.bss
leaf:	.skip 4
leaf_base: .skip 4
leaf_va: .skip 4
entry_before: .skip 4
expected: .skip 4
usable_nx: .skip 4
