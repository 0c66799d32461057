/*
 * Programs of 64-bit mode whose pages the kernel changes under them: what is flushed is gone, for those that run and
 * those that do not (SDM vol. 3A 4.10); accessed and dirty bits (4.8).
 */
#include "shadow.h"
GUEST(remap)

#define CR4_PCIDE   0x20000
#define CR4_PGE	    0x80

guest_main:
	begin
	call	remapped
	call	by_cr3
	call	while_in_system_call
	call	accessed_and_dirty
	call	copy_on_write
	call	large_pages
	call	huge_pages
	call	programs
	ret

/* ---- pages that change ---- */

.macro expect_user index, value, line
	mov	rbx, VA(\index)
	xor	eax, eax
	user_ok(mov rax, [rbx])
	check_equal rax, \value, \line
.endm

/* Another frame: as soon as it is flushed. */
remapped:
	mov	qword ptr [FRAME(30)], 0x30
	mov	qword ptr [FRAME(31)], 0x31
	mov	r12d, 4
1:	map	5, 30
	invlpg	[VA(5)]
	expect_user 5, 0x30, __LINE__
	user_ok(mov [rbx + 8], rax)
	map	5, 31
	invlpg	[VA(5) + 0xfff]
	expect_user 5, 0x31, __LINE__
	user_ok(mov [rbx + 8], rax)
	expect([FRAME(30) + 8], 0x30)
	expect([FRAME(31) + 8], 0x31)
	/* not flushed: either; then flushed */
	map	5, 30
	user_ok(mov rax, [rbx])
	and	eax, ~1
	expect(rax, 0x30)
	invlpg	[VA(5)]
	expect_user 5, 0x30, __LINE__
	/* by a page fault for the address (4.10.4.1) */
	mov	qword ptr [PTE(5)], 0
	user(mov [rbx + 16], rcx; mov rax, [rbx])
	mov	qword ptr [PTE(5)], 0
	invlpg	[VA(5)]
	faults_at(ABSENT_READ, VA(5), mov rax, [rbx])
	map	5, 31
	expect_user 5, 0x31, __LINE__
	/* there once, at two places */
	map	6, 31
	mov	rcx, VA(6)
	user_ok(mov qword ptr [rcx + 24], 5; add qword ptr [rbx + 24], 2; mov rax, [rcx + 24])
	expect(rax, 7)
	unmap	6
	dec	r12d
	jnz	1b
	ret

/* All pages at once, whatever other bits CR3 has: PWT and PCD are no PCID. */
by_cr3:
	mov	r12d, offset pml4
	mov	r14d, 2
1:	map	5, 30
	map	6, 31
	mov	cr3, r12
	expect_user 5, 0x30, __LINE__
	expect_user 6, 0x31, __LINE__
	map	5, 31
	map	6, 30
	mov	cr3, r12
	expect_user 5, 0x31, __LINE__
	expect_user 6, 0x30, __LINE__
	user_ok(mov [rbx + 32], rbx)
	mov	qword ptr [PTE(6)], 0
	mov	cr3, r12
	faults_at(ABSENT_READ, VA(6), mov rax, [rbx])
	add	r12, 0x18
	dec	r14d
	jnz	1b
	mov	r12d, offset pml4
	mov	cr3, r12
	/* a global page: INVLPG, or CR4.PGE */
	mov	rax, cr4
	or	rax, CR4_PGE
	mov	cr4, rax
	map	5, 30, (URW|PTE_G)
	invlpg	[VA(5)]
	expect_user 5, 0x30, __LINE__
	map	5, 31, (URW|PTE_G)
	invlpg	[VA(5)]
	expect_user 5, 0x31, __LINE__
	map	5, 30
	mov	rax, cr4
	and	rax, ~CR4_PGE
	mov	cr4, rax
	expect_user 5, 0x30, __LINE__
	ret

/* SYSCALL and SYSRET, in loops that go on: RDX says what the kernel does to page 5. */
while_in_system_call:
	mov	ecx, MSR_STAR
	xor	eax, eax
	mov	edx, (UCODE32 << 16) | KCODE64
	wrmsr
	write_msr MSR_LSTAR, "offset system_call"
	write_msr MSR_SFMASK, F_IF
	mov	qword ptr [FRAME(30)], 0
	mov	qword ptr [FRAME(31)], 0
	map	5, 30
	invlpg	[VA(5)]
	mov	rbx, VA(5)
	mov	r8d, 1000
	user_ok(5: mov rdx, [rbx]; add qword ptr [rbx], 1; syscall; add qword ptr [rbx], 1; dec r8d; jnz 5b)
	expect([FRAME(30)], 1000)
	expect([FRAME(31)], 1000)
	/* taken away in the middle of a loop */
	mov	r8d, 100
	arm	9f
	enter_user 4f
	.pushsection .user, "awx"
4:	mov	rax, [rbx]
	cmp	r8d, 50
	jne	5f
	mov	r10d, 1
	syscall
5:	dec	r8d
	jnz	4b
	int3
	.popsection
9:	disarm
	expect([fault_vector], PF)
	mov	rax, offset 4b
	expect([fault_ip], rax)
	expect([fault_cr2], VA(5))
	expect(r8, 49)
	xor	r10d, r10d
	ret

system_call:
	test	r10d, r10d
	jnz	1f
	xor	qword ptr [PTE(5)], FRAME(30) ^ FRAME(31)
	invlpg	[VA(5)]
	sysretq
1:	mov	qword ptr [PTE(5)], 0
	invlpg	[VA(5)]
	sysretq

/* ---- accessed and dirty bits ---- */

.macro expect_bits want, line
	mov	rax, [PTE(5)]
	and	eax, (PTE_A|PTE_D)
	check_equal rax, \want, \line
.endm

accessed_and_dirty:
	mov	r12d, 3
	mov	rbx, VA(5)
1:	map	5, 5
	invlpg	[VA(5)]
	expect_bits 0, __LINE__
	user_ok(mov rax, [rbx])
	expect_bits PTE_A, __LINE__
	user_ok(mov [rbx], rax)
	expect_bits (PTE_A|PTE_D), __LINE__
	/* D cleared: set by the next write, not by reads */
	and	qword ptr [PTE(5)], ~PTE_D
	invlpg	[VA(5)]
	user_ok(mov rax, [rbx])
	expect_bits PTE_A, __LINE__
	user_ok(add byte ptr [rbx + 5], 1)
	expect_bits (PTE_A|PTE_D), __LINE__
	/* A cleared: set by the next access */
	and	qword ptr [PTE(5)], ~PTE_A
	mov	rax, cr3
	mov	cr3, rax
	user_ok(mov rax, [rbx])
	expect_bits (PTE_A|PTE_D), __LINE__
	and	qword ptr [PTE(5)], ~(PTE_A|PTE_D)
	invlpg	[VA(5)]
	user_ok(lock inc dword ptr [rbx])
	expect_bits (PTE_A|PTE_D), __LINE__
	/* neighbours are not touched */
	map	6, 6
	map	4, 4
	invlpg	[VA(4)]
	invlpg	[VA(6)]
	user_ok(mov [rbx + 0xff8], rax)
	mov	rax, [PTE(4)]
	or	rax, [PTE(6)]
	and	eax, (PTE_A|PTE_D)
	expect(rax, 0)
	/* nor by what faults */
	map	5, 5, (PTE_P|PTE_U)
	invlpg	[VA(5)]
	faults_at((PF_P|PF_W|PF_U), VA(5), mov [rbx], rax)
	mov	rax, [PTE(5)]
	and	eax, PTE_D
	expect(rax, 0)
	dec	r12d
	jnz	1b
	ret

/* Two pages share a frame until one is written. */
copy_on_write:
	mov	qword ptr [FRAME(30)], 0x1000
	mov	r12d, 5
	mov	rbx, VA(5)
	mov	rcx, VA(6)
1:	map	5, 30, (PTE_P|PTE_U)
	map	6, 30, (PTE_P|PTE_U)
	invlpg	[VA(5)]
	invlpg	[VA(6)]
	user_ok(mov rax, [rbx]; mov rdx, [rcx])
	faults_at((PF_P|PF_W|PF_U), VA(6), add [rcx], rcx)
	mov	rax, [FRAME(30)]
	mov	[FRAME(31)], rax
	mov	r13, rax
	map	6, 31
	user_ok(add qword ptr [rcx], 1; mov rdx, [rcx]; mov rax, [rbx])
	expect(rax, r13)
	lea	rax, [r13 + 1]
	expect(rdx, rax)
	expect([FRAME(30)], r13)
	map	5, 30
	user_ok(add qword ptr [rbx], 0x10; mov rdx, [rcx])
	lea	rax, [r13 + 0x10]
	expect([FRAME(30)], rax)
	dec	r12d
	jnz	1b
	ret

/* ---- large pages ---- */

#define LARGE_VA (TEST_VA + 0x200000)

.macro large n
	mov	qword ptr [test_pd + 8], LARGE(\n) + URW + PTE_PS
.endm

/* INVLPG of any address in it makes all of a large page go. */
large_pages:
	mov	dword ptr [LARGE(2)], 0x20
	mov	dword ptr [LARGE(2) + 0x5000], 0x25
	mov	dword ptr [LARGE(2) + 0x1ff000], 0x2f
	mov	dword ptr [LARGE(3)], 0x30
	mov	dword ptr [LARGE(3) + 0x5000], 0x35
	mov	dword ptr [LARGE(3) + 0x1ff000], 0x3f
	mov	rbx, LARGE_VA
	mov	r12d, 3
1:	large	2
	invlpg	[LARGE_VA]
	user_ok(mov eax, [rbx + 0x5000]; mov ecx, [rbx]; mov edx, [rbx + 0x1ff000])
	expect(rax, 0x25)
	expect(rcx, 0x20)
	expect(rdx, 0x2f)
	user_ok(mov [rbx + 0x5004], eax)
	expect([LARGE(2) + 0x5000], 0x2500000025)
	large	3
	invlpg	[LARGE_VA + 0x77000]
	user_ok(mov eax, [rbx + 0x5000]; mov ecx, [rbx]; mov edx, [rbx + 0x1ff000])
	expect(rax, 0x35)
	expect(rcx, 0x30)
	expect(rdx, 0x3f)
	/* parted: other pages, some absent, one read-only */
	mov	rdi, offset parts
	mov	ecx, 512
	mov	rax, LARGE(3) + URW
2:	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x1000
	loop	2b
	mov	qword ptr [parts], LARGE(2) + URW
	mov	qword ptr [parts + 5 * 8], LARGE(3) + 0x5000 + (PTE_P|PTE_U)
	mov	qword ptr [parts + 6 * 8], 0
	mov	qword ptr [test_pd + 8], offset parts + URW
	invlpg	[LARGE_VA + 0x1ff000]
	user_ok(mov eax, [rbx + 0x5000]; mov ecx, [rbx]; mov edx, [rbx + 0x1ff000])
	expect(rax, 0x35)
	expect(rcx, 0x20)
	expect(rdx, 0x3f)
	faults_at((PF_P|PF_W|PF_U), (LARGE_VA + 0x5000), mov [rbx + 0x5000], eax)
	faults_at(ABSENT_READ, (LARGE_VA + 0x6000), mov eax, [rbx + 0x6000])
	/* and one again: every small page was known for itself */
	large	3
	mov	rax, cr3
	mov	cr3, rax
	user_ok(mov [rbx + 0x5004], eax; mov ecx, [rbx])
	expect(rcx, 0x30)
	/* dirty bits of all of it */
	and	qword ptr [test_pd + 8], ~PTE_D
	invlpg	[LARGE_VA + 0x3000]
	user_ok(mov eax, [rbx + 0x5000])
	mov	rax, [test_pd + 8]
	and	eax, PTE_D
	expect(rax, 0)
	user_ok(mov [rbx + 0x5004], eax)
	mov	rax, [test_pd + 8]
	and	eax, PTE_D
	expect(rax, PTE_D)
	dec	r12d
	jnz	1b
	mov	qword ptr [test_pd + 8], 0
	invlpg	[LARGE_VA]
	faults_at(ABSENT_READ, LARGE_VA, mov eax, [rbx])
	ret

/* The same with 1 GiB. */
huge_pages:
	mov	eax, 0x80000001
	cpuid
	bt	edx, 26
	jnc	1f
	mov	rax, URW | PTE_PS
	mov	[pdpt + 9 * 8], rax
	mov	rbx, WINDOW2 + 0x40000000 + LARGE(2)
	user_ok(mov eax, [rbx]; mov ecx, [rbx + 0x200000])
	expect(rax, 0x20)
	expect(rcx, 0x30)
	mov	qword ptr [huge_pd + 8 * 8], LARGE(3) + URW + PTE_PS
	mov	qword ptr [huge_pd + 9 * 8], LARGE(2) + URW + PTE_PS
	mov	qword ptr [huge_pd + 10 * 8], LARGE(3) + URW + PTE_PS
	mov	qword ptr [huge_pd + 11 * 8], LARGE(2) + URW + PTE_PS
	mov	rax, offset huge_pd + URW
	mov	[pdpt + 9 * 8], rax
	mov	rcx, WINDOW2 + 0x40000000
	invlpg	[rcx + 0x12345678]
	user_ok(mov eax, [rbx]; mov ecx, [rbx + 0x200000])
	expect(rax, 0x30)
	expect(rcx, 0x20)
	mov	qword ptr [pdpt + 9 * 8], 0
	mov	rax, cr3
	mov	cr3, rax
1:	ret

/* ---- several programs under PCIDs ---- */

#define PROGRAMS 10
#define PROGRAM_BYTES 0x4000 /* PML4, PDPT, page directory, page table */
#define TABLES(k) (tables + (k) * PROGRAM_BYTES)
#define ENTRY(k, index) (TABLES(k) + 0x3000 + (index) * 8)

.macro switch k, keep=1
	mov	rax, offset TABLES(\k) + \k + 1
.if \keep
	bts	rax, 63
.endif
	mov	cr3, rax
.endm

.macro give k, index, frame, flags=URW
	mov	qword ptr [ENTRY(\k, \index)], FRAME(\frame) + (\flags)
.endm

/* Page i of program k shows frame 16 k + i, where quadword 0 is its number. */
build:
	xor	ecx, ecx
	mov	rdi, FRAME(0)
1:	mov	[rdi], rcx
	mov	qword ptr [rdi + 8], 0
	add	rdi, 0x1000
	inc	ecx
	cmp	ecx, 512
	jne	1b
	mov	rdx, offset tables
	mov	rbx, FRAME(0) + URW
2:	mov	rdi, rdx
	mov	rsi, offset pml4
	mov	ecx, 512
	rep movsq
	mov	rsi, offset pdpt
	mov	ecx, 512
	rep movsq
	lea	rax, [rdx + 0x1000 + URW]
	mov	[rdx], rax
	add	rax, 0x1000
	mov	[rdx + 0x1000 + 8], rax
	add	rax, 0x1000
	mov	[rdx + 0x2000], rax
	xor	ecx, ecx
3:	mov	[rdx + 0x3000 + rcx * 8], rbx
	add	rbx, 0x1000
	inc	ecx
	cmp	ecx, 16
	jne	3b
	add	rdx, PROGRAM_BYTES
	cmp	rdx, offset tables + PROGRAMS * PROGRAM_BYTES
	jne	2b
	ret

programs:
	cpuid_bit 1, 0, ecx, 17
	jz	1f
	call	build
	mov	rax, cr4
	or	rax, CR4_PCIDE
	mov	cr4, rax
	call	round_robin
	call	left_alone
	call	same_pcid
	mov	rax, offset pml4
	mov	cr3, rax
	mov	rax, cr4
	and	rax, ~CR4_PCIDE
	mov	cr4, rax
1:	ret

/* More programs than are kept: nobody sees or writes another's pages. */
round_robin:
	mov	r12d, 12
1:	xor	r13d, r13d
	mov	r14, offset tables + 1
2:	mov	rax, r14
	bts	rax, 63
	mov	cr3, rax
	mov	rbx, TEST_VA
	mov	ecx, 16
	xor	eax, eax
	user_ok(5: add rax, [rbx]; inc qword ptr [rbx + 8]; add rbx, 0x1000; dec ecx; jnz 5b)
	mov	rdx, r13
	shl	edx, 8
	add	edx, 120
	expect(rax, rdx)
	add	r14, PROGRAM_BYTES + 1
	inc	r13d
	cmp	r13d, PROGRAMS
	jne	2b
	dec	r12d
	jnz	1b
	mov	rbx, FRAME(0)
	mov	ecx, 16 * PROGRAMS
3:	cmp	qword ptr [rbx + 8], 12
	jne	4f
	add	rbx, 0x1000
	dec	ecx
	jnz	3b
4:	expect(rcx, 0)
	ret

/* What is flushed while another program runs is gone when the first comes back. */
left_alone:
	mov	r12d, 3
1:	give	0, 1, 1
	switch	0, 0
	expect_user 1, 1, __LINE__
	switch	1
	expect_user 1, 17, __LINE__
	give	0, 1, 40
	switch	0, 0
	expect_user 1, 40, __LINE__
	switch	1
	give	0, 1, 41
	switch	0
	invlpg	[VA(1)]
	expect_user 1, 41, __LINE__
	/* INVPCID, all types */
	cpuid_bit 7, 0, ebx, 10
	jz	3f
	xor	r14d, r14d
2:	give	0, 1, 42
	switch	0, 0
	expect_user 1, 42, __LINE__
	switch	1
	give	0, 1, 43
	mov	qword ptr [descriptor], 1
	cmp	r14d, 2
	jb	4f
	mov	qword ptr [descriptor], 0
4:	mov	qword ptr [descriptor + 8], VA(1)
	invpcid	r14, [descriptor]
	switch	0
	expect_user 1, 43, __LINE__
	inc	r14d
	cmp	r14d, 4
	jne	2b
3:	/* INVLPG takes global pages from everybody */
	mov	rax, cr4
	or	rax, CR4_PGE
	mov	cr4, rax
	give	0, 2, 50, (URW|PTE_G)
	give	1, 2, 50, (URW|PTE_G)
	invlpg	[VA(2)]
	switch	1
	invlpg	[VA(2)]
	expect_user 2, 50, __LINE__
	switch	0
	expect_user 2, 50, __LINE__
	give	0, 2, 51, (URW|PTE_G)
	give	1, 2, 51, (URW|PTE_G)
	invlpg	[VA(2)]
	expect_user 2, 51, __LINE__
	switch	1
	expect_user 2, 51, __LINE__
	mov	rax, cr4
	and	rax, ~CR4_PGE
	mov	cr4, rax
	dec	r12d
	jnz	1b
	ret

/* One PCID for two sets of tables: what is flushed is flushed for both. */
same_pcid:
	give	2, 3, 60
	give	3, 3, 61
	mov	rax, offset TABLES(2) + 9
	mov	cr3, rax
	expect_user 3, 60, __LINE__
	mov	rax, offset TABLES(3) + 9
	mov	cr3, rax
	expect_user 3, 61, __LINE__
	give	2, 3, 62
	invlpg	[VA(3)]
	expect_user 3, 61, __LINE__
	mov	rax, offset TABLES(2) + 9
	bts	rax, 63
	mov	cr3, rax
	invlpg	[VA(3)]
	expect_user 3, 62, __LINE__
	give	3, 3, 63
	invlpg	[VA(3)]
	mov	rax, offset TABLES(3) + 9
	bts	rax, 63
	mov	cr3, rax
	user_ok(mov rax, [rbx])
	cmp	eax, 62			/* still the other's, or its own */
	je	1f
	expect(rax, 63)
1:	ret

	.bss
	.balign	4096
tables:	.skip	PROGRAMS * PROGRAM_BYTES
parts:	.skip	4096
huge_pd: .skip	4096
descriptor: .skip 16
