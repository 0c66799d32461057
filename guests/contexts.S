/*
 * Several address spaces under PCIDs, switched with bit 63 of CR3 (SDM vol. 3A 4.10): what one leaves behind in TLBs
 * is never another's, and what is invalidated while it is away is gone when it comes back.
 */
#include "lib.h"
GUEST(contexts)

#define CR0_WP	  0x10000
#define CR4_PGE	  0x80
#define CR4_PCIDE 0x20000

#define SPACES 10
#define SPACE_BYTES 0x4000 /* PML4, PDPT, page directory, page table */
#define SPACE(k) (spaces + (k) * SPACE_BYTES)
#define PTE(k, index) (SPACE(k) + 0x3000 + (index) * 8)
#define PDE(k, index) (SPACE(k) + 0x2000 + (index) * 8)
#define PAGE(n) (scratch + (n) * 0x1000)
#define VA(index) (TEST_VA + (index) * 0x1000)

/* To space @k, PCID k + 1. Clobbers RAX. */
.macro switch k, keep=1
	mov	rax, offset SPACE(\k) + \k + 1
.if \keep
	bts	rax, 63
.endif
	mov	cr3, rax
.endm

/* Page @index of space @k shows page @page of scratch, without a flush. Clobbers RAX. */
.macro map k, index, page, flags=(PTE_P|PTE_W)
	mov	rax, offset PAGE(\page) + \flags
	mov	[PTE(\k, \index)], rax
.endm

.macro expect_page index, page, line
	mov	eax, [VA(\index)]
	check_equal rax, \page, \line
.endm

/* mov eax, value; ret, or int3 for CPL 3. */
.macro put_function at, value, end=0xc3
	mov	byte ptr [\at], 0xb8
	mov	dword ptr [\at + 1], \value
	mov	byte ptr [\at + 5], \end
.endm

guest_main:
	cpuid_bit 1, 0, ecx, 17
	jz	1f
	xor	ecx, ecx
	mov	rdi, offset scratch
2:	mov	[rdi], rcx
	add	rdi, 0x1000
	inc	ecx
	cmp	ecx, 16
	jne	2b
	call	build
	mov	rax, cr4
	or	rax, CR4_PCIDE
	mov	cr4, rax
	call	round_robin
	call	by_cr3
	call	by_cr4
	call	by_wp
	call	by_invpcid
	call	large_pages
	call	code_while_away
	call	kernel_jumps
	call	user_jumps
	mov	rax, offset pml4
	mov	cr3, rax
	mov	rax, cr4
	and	rax, ~CR4_PCIDE
	mov	cr4, rax
1:	ret

/* Page i of space k shows page (k + i) % 16. */
build:
	xor	ebx, ebx
	mov	rdx, offset spaces
1:	mov	rsi, offset pml4
	mov	rdi, rdx
	mov	ecx, 512
	rep movsq
	mov	rsi, offset pdpt
	mov	ecx, 512
	rep movsq
	lea	rax, [rdx + 0x1000 + (PTE_P | PTE_W | PTE_U)]
	mov	[rdx], rax
	add	rax, 0x1000
	mov	[rdx + 0x1000 + 8], rax
	add	rax, 0x1000
	mov	[rdx + 0x2000], rax
	xor	ecx, ecx
2:	lea	eax, [rbx + rcx]
	and	eax, 15
	shl	eax, 12
	add	rax, offset scratch + (PTE_P | PTE_W)
	mov	[rdx + 0x3000 + rcx * 8], rax
	inc	ecx
	cmp	ecx, 16
	jne	2b
	add	rdx, SPACE_BYTES
	inc	ebx
	cmp	ebx, SPACES
	jne	1b
	ret

/* More spaces than any table of them need hold: nobody sees or writes another's pages. */
round_robin:
	mov	r12d, 40
1:	xor	r13d, r13d
	mov	r14, offset spaces + 1
2:	mov	rax, r14
	bts	rax, 63
	mov	cr3, rax
	xor	ecx, ecx
	mov	rbx, TEST_VA
3:	lea	edx, [r13 + rcx]
	and	edx, 15
	mov	eax, [rbx]
	cmp	eax, edx
	je	4f
	expect(rax, rdx)
4:	mov	[rbx + 0x100], r12d
	shl	edx, 12
	add	rdx, offset scratch
	mov	eax, [rdx + 0x100]
	cmp	eax, r12d
	je	5f
	expect(rax, r12)
5:	mov	dword ptr [rdx + 0x100], 0
	add	rbx, 0x1000
	inc	ecx
	cmp	ecx, 16
	jne	3b
	add	r14, SPACE_BYTES + 1
	inc	r13d
	cmp	r13d, SPACES
	jne	2b
	dec	r12d
	jnz	1b
	expect(r12, 0)
	ret

/* Coming back without bit 63 forgets; what the other space has stays its own. */
by_cr3:
	switch	0
	expect_page 0, 0, __LINE__
	switch	1
	expect_page 0, 1, __LINE__
	map	0, 0, 9
	switch	0, 0
	expect_page 0, 9, __LINE__
	switch	1
	expect_page 0, 1, __LINE__
	/* INVLPG here, after a change that was made there */
	map	0, 0, 10
	switch	0
	invlpg	[VA(0)]
	expect_page 0, 10, __LINE__
	/* while away: from not present to present needs nothing */
	switch	0
	mov	qword ptr [PTE(0, 20)], 0
	invlpg	[VA(20)]
	expect_fault(PF, 0, mov eax, [VA(20)])
	switch	1
	map	0, 20, 3
	switch	0
	expect_page 20, 3, __LINE__
	map	0, 0, 0
	invlpg	[VA(0)]
	ret

/* A change of PGE forgets all PCIDs. A global page is everybody's, and INVLPG drops it for everybody. */
by_cr4:
	switch	0
	expect_page 1, 1, __LINE__
	switch	1
	map	0, 1, 8
	mov	rax, cr4
	xor	rax, CR4_PGE
	mov	cr4, rax
	switch	0
	expect_page 1, 8, __LINE__
	mov	rax, cr4
	or	rax, CR4_PGE
	mov	cr4, rax
	map	0, 2, 4, (PTE_P|PTE_W|PTE_G)
	map	1, 2, 4, (PTE_P|PTE_W|PTE_G)
	invlpg	[VA(2)]
	expect_page 2, 4, __LINE__
	switch	1
	expect_page 2, 4, __LINE__
	map	0, 2, 5, (PTE_P|PTE_W|PTE_G)
	map	1, 2, 5, (PTE_P|PTE_W|PTE_G)
	invlpg	[VA(2)]
	expect_page 2, 5, __LINE__
	switch	0
	expect_page 2, 5, __LINE__
	mov	rax, cr4
	and	rax, ~CR4_PGE
	mov	cr4, rax
	map	0, 1, 1
	map	0, 2, 2
	map	1, 2, 3
	switch	0, 0
	switch	1, 0
	ret

/* What was written without WP is not writable with it, though it was away in between. */
by_wp:
	mov	r12d, 3
1:	switch	0
	map	0, 3, 3, PTE_P
	invlpg	[VA(3)]
	mov	rax, cr0
	and	rax, ~CR0_WP
	mov	cr0, rax
	mov	rbx, VA(3)
	mov	dword ptr [rbx + 8], 0x77
	switch	1
	mov	eax, [VA(3)]
	mov	rax, cr0
	or	rax, CR0_WP
	mov	cr0, rax
	switch	0
	expect_fault(PF, PF_P | PF_W, mov dword ptr [rbx + 8], 0x78)
	mov	eax, [PAGE(3) + 8]
	expect(rax, 0x77)
	dec	r12d
	jnz	1b
	map	0, 3, 3
	invlpg	[VA(3)]
	ret

/* All types, executed in space 1 for what space 0 has. */
by_invpcid:
	cpuid_bit 7, 0, ebx, 10
	jz	2f
	mov	qword ptr [descriptor + 8], VA(4)
	xor	r12d, r12d
1:	mov	qword ptr [descriptor], 1
	cmp	r12d, 2
	jb	3f
	mov	qword ptr [descriptor], 0
3:	map	0, 4, 4
	switch	0, 0
	expect_page 4, 4, __LINE__
	expect_page 5, 5, __LINE__
	switch	1, 0
	expect_page 4, 5, __LINE__
	map	0, 4, 12
	invpcid	r12, [descriptor]
	expect_page 4, 5, __LINE__
	switch	0
	expect_page 4, 12, __LINE__
	expect_page 5, 5, __LINE__
	inc	r12d
	cmp	r12d, 4
	jne	1b
	/* for its own PCID: the other's stays right */
	map	0, 4, 4
	mov	qword ptr [descriptor], 1
	mov	eax, 1
	invpcid	rax, [descriptor]
	expect_page 4, 4, __LINE__
	switch	1
	expect_page 4, 5, __LINE__
2:	ret

/* A large page seen in 4 KiB pieces goes as a whole. */
large_pages:
	cpuid_bit 7, 0, ebx, 10
	jz	1f
	/* 2 MiB behind TEST_VA show the first 2 MiB of memory, then the second. */
	mov	qword ptr [PDE(0, 1)], PTE_P | PTE_W | PTE_PS
	switch	0, 0
	mov	rbx, TEST_VA + 0x200000
	mov	rcx, offset PAGE(0)
	and	ecx, 0x1fffff
	add	rbx, rcx
	mov	rdx, offset PAGE(0)
	and	rdx, -0x200000
	or	rdx, PTE_P | PTE_W | PTE_PS
	mov	[PDE(0, 1)], rdx
	invlpg	[TEST_VA + 0x3ff000]
	mov	eax, [rbx]
	expect(rax, 0)
	mov	dword ptr [rbx], 0x1234
	mov	eax, [PAGE(0)]
	expect(rax, 0x1234)
	mov	dword ptr [PAGE(0)], 0
	switch	1
	mov	qword ptr [PDE(0, 1)], 0
	mov	qword ptr [descriptor], 1
	mov	qword ptr [descriptor + 8], TEST_VA + 0x201000
	xor	eax, eax
	invpcid	rax, [descriptor]
	switch	0
	expect_fault(PF, 0, mov eax, [rbx])
	mov	[PDE(0, 1)], rdx
	mov	eax, [rbx]
	expect(rax, 0)
	mov	qword ptr [PDE(0, 1)], 0
	invlpg	[TEST_VA + 0x3ff000]
	expect_fault(PF, 0, mov eax, [rbx])
1:	ret

/* A page is written in one space, runs in another, is written again in the first. */
code_while_away:
	mov	r12d, 8
1:	switch	0
	mov	rbx, VA(6)
	put_function rbx, 0x11
	mov	byte ptr [rbx + 0x800], 0
	switch	1
	mov	rcx, offset PAGE(6)
	call	rcx
	expect(rax, 0x11)
	switch	0
	mov	dword ptr [rbx + 1], r12d
	call	rcx
	expect(rax, r12)
	call	rbx
	expect(rax, r12)
	/* written, while away, where it stands */
	switch	1
	mov	dword ptr [PAGE(6) + 1], 0x33
	switch	0
	call	rbx
	expect(rax, 0x33)
	dec	r12d
	jnz	1b
	/* the code goes, plain stores come back, code comes again */
	mov	r12d, 8
2:	switch	0
	put_function rbx, 0x44
	call	rbx
	switch	1
	mov	rax, 0
	mov	[PAGE(6)], rax
	switch	0
	mov	dword ptr [rbx + 0x20], 1
	switch	1
	put_function rcx, 0x55
	call	rcx
	expect(rax, 0x55)
	switch	0
	mov	dword ptr [rbx + 1], r12d
	call	rcx
	expect(rax, r12)
	dec	r12d
	jnz	2b
	mov	dword ptr [PAGE(6)], 6
	ret

/* Code at one address, another page in each space; calls from a page that all share. */
kernel_jumps:
	put_function PAGE(7), 0x70
	put_function PAGE(8), 0x71
	mov	r12d, 10
	mov	rbx, VA(7)
1:	switch	0
	call	rbx
	expect(rax, 0x70)
	switch	1
	call	rbx
	expect(rax, 0x71)
	dec	r12d
	jnz	1b
	/* patched and remapped while away */
	mov	dword ptr [PAGE(7) + 1], 0x72
	switch	0
	call	rbx
	expect(rax, 0x72)
	switch	1
	map	0, 7, 8
	switch	0, 0
	call	rbx
	expect(rax, 0x71)
	map	0, 7, 7
	invlpg	[rbx]
	call	rbx
	expect(rax, 0x72)
	/* an instruction across the end of a page: its second half changes while away */
	mov	byte ptr [PAGE(9) + 0xffd], 0xb8
	mov	word ptr [PAGE(9) + 0xffe], 0x2211
	mov	dword ptr [PAGE(10)], 0xc34433
	mov	dword ptr [PAGE(11)], 0xc36655
	map	0, 9, 9
	map	0, 10, 10
	switch	0, 0
	mov	r12d, 5
	mov	rbx, VA(9) + 0xffd
2:	call	rbx
	expect(rax, 0x44332211)
	switch	1
	map	0, 10, 11
	switch	0
	invlpg	[VA(10)]
	call	rbx
	expect(rax, 0x66552211)
	map	0, 10, 10
	switch	0, 0
	dec	r12d
	jnz	2b
	mov	dword ptr [PAGE(7)], 7
	mov	dword ptr [PAGE(8)], 8
	mov	dword ptr [PAGE(10)], 10
	mov	dword ptr [PAGE(11)], 11
	ret

/* The same for programs, each with a jump of its own between two pages. */
user_jumps:
	put_function PAGE(12), 0x1c, 0xe9
	mov	dword ptr [PAGE(12) + 6], 0xff6	/* JMP to the next page */
	put_function PAGE(13), 0x1d, 0xe9
	mov	dword ptr [PAGE(13) + 6], 0xff6
	mov	byte ptr [PAGE(14)], 0xcc
	mov	byte ptr [PAGE(15)], 0xcc
	map	0, 12, 12, (PTE_P|PTE_U)
	map	0, 13, 14, (PTE_P|PTE_U)
	map	1, 12, 13, (PTE_P|PTE_U)
	map	1, 13, 15, (PTE_P|PTE_U)
	switch	0, 0
	switch	1, 0
	mov	r12d, 10
1:	switch	0
	call	run_user
	expect(rcx, 0x1c)
	switch	1
	call	run_user
	expect(rcx, 0x1d)
	dec	r12d
	jnz	1b
	/* another program in space 0, patched while it is away */
	mov	dword ptr [PAGE(12) + 1], 0x2c
	switch	0
	call	run_user
	expect(rcx, 0x2c)
	/* the page that it jumps to is gone */
	switch	1
	mov	qword ptr [PTE(0, 13)], 0
	switch	0, 0
	arm	2f
	enter_user VA(12)
2:	disarm
	expect([fault_vector], PF)
	mov	rax, [fault_error]
	and	eax, ~PF_I	/* where there is NX */
	expect(rax, PF_U)
	mov	rax, VA(13)
	expect([fault_ip], rax)
	switch	1
	call	run_user
	expect(rcx, 0x1d)
	mov	dword ptr [PAGE(12)], 12
	mov	dword ptr [PAGE(13)], 13
	mov	dword ptr [PAGE(14)], 14
	mov	dword ptr [PAGE(15)], 15
	ret

/* RCX = EAX of the program at VA(12) when it ends. */
run_user:
	xor	eax, eax
	arm	1f
	enter_user VA(12)
1:	mov	ecx, eax
	disarm
	expect([fault_vector], USER_RETURN)
	ret

	.bss
	.balign	4096
spaces:	.skip	SPACES * SPACE_BYTES
descriptor: .skip 16
