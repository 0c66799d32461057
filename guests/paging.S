/*
 * Four-level paging: who may do what, page-fault error codes, accessed and dirty bits, large pages,
 * reserved bits (SDM vol. 3A 4.5 to 4.8).
 */
#include "lib.h"
GUEST(paging)

#define CR0_WP	 0x10000
#define CR4_SMEP 0x100000
#define CR4_SMAP 0x200000
#define PAGE	 TEST_VA

/* One case of rights(), in r15: the page's P, W, U as in a PTE (bits 0-2), then: */
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
	call	rights
	call	read_modify_write
	call	upper_levels
	call	reserved_bits
	call	no_execute_off
	call	large_pages
	call	crossing
	call	write_protected_tables
	ret

/* r14: CASE_SMEP and CASE_SMAP as the processor has them (CPUID.7:EBX, bits 7 and 20) */
features:
	xor	r14d, r14d
	cpuid_bit 7, 0, ebx, 7
	jz	1f
	or	r14d, CASE_SMEP
1:	test	ebx, 1 << 20
	jz	2f
	or	r14d, CASE_SMAP
2:	ret

/* Every combination of page, mode and access against the rules of 4.6. */
rights:
	mov	byte ptr [scratch], 0xc3	/* RET, for fetches */
	xor	r15d, r15d
rights_case:
	mov	eax, r15d
	and	eax, CASE_SMEP | CASE_SMAP
	mov	ecx, r14d
	not	ecx
	test	eax, ecx
	jnz	next_case
	mov	eax, r15d
	and	eax, CASE_WRITE | CASE_FETCH
	cmp	eax, CASE_WRITE | CASE_FETCH
	je	next_case

	/* the page */
	mov	rax, offset scratch
	mov	ecx, r15d
	and	ecx, 7
	or	rax, rcx
	test	r15d, CASE_NX
	jz	2f
	bts	rax, 63
2:	mov	[test_pt], rax
	mov	r12, rax
	mov	rbx, PAGE
	invlpg	[rbx]

	/* the controls */
	mov	rax, cr0
	and	rax, ~CR0_WP
	test	r15d, CASE_WP
	jz	3f
	or	rax, CR0_WP
3:	mov	cr0, rax
	mov	rax, cr4
	and	rax, ~(CR4_SMEP | CR4_SMAP)
	test	r15d, CASE_SMEP
	jz	4f
	or	rax, CR4_SMEP
4:	test	r15d, CASE_SMAP
	jz	5f
	or	rax, CR4_SMAP
5:	mov	cr4, rax

	call	expected_error
	mov	r13d, eax
	test	r15d, CASE_USER
	jnz	user_access

	pushf
	mov	ecx, r15d
	and	ecx, CASE_AC
	shl	ecx, 18 - 7
	or	[rsp], rcx
	arm	7f
	popf
	test	r15d, CASE_WRITE
	jnz	6f
	test	r15d, CASE_FETCH
	jnz	5f
	mov	al, [rbx]
	jmp	7f
5:	call	rbx
	jmp	7f
6:	mov	byte ptr [rbx], 0xc3
7:	disarm
	mov	rsp, [fault_sp]
	mov	qword ptr [rsp], 2
	popf
	jmp	judge

user_access:
	test	r15d, CASE_WRITE
	jnz	2f
	test	r15d, CASE_FETCH
	jnz	1f
	user(mov al, [rbx])
	jmp	3f
1:	user(call rbx)
	jmp	3f
2:	user(mov byte ptr [rbx], 0xc3)
3:	cmp	qword ptr [fault_vector], USER_RETURN
	jne	judge
	mov	qword ptr [fault_vector], NONE

/* Got: the error code, or NONE; with the case above, so that a failure can be told. */
judge:
	mov	eax, [fault_error]
	cmp	qword ptr [fault_vector], PF
	je	1f
	mov	eax, [fault_vector]
1:	mov	rcx, r15
	shl	rcx, 32
	or	rax, rcx
	or	rcx, r13
	expect(rax, rcx)
	mov	rax, [test_pt]
	cmp	r13d, NONE
	je	2f
	/* a fault sets no dirty bit, and a page that is not present stays as it is */
	mov	rdx, ~(PTE_A)
	test	r15d, PTE_P
	jnz	3f
	mov	rdx, -1
3:	and	rax, rdx
	expect(rax, r12)
	mov	rax, [fault_cr2]
	expect(rax, rbx)
	jmp	next_case
2:	or	r12, PTE_A
	test	r15d, CASE_WRITE
	jz	4f
	or	r12, PTE_D
4:	expect(rax, r12)

next_case:
	inc	r15d
	cmp	r15d, CASES
	jne	rights_case
	mov	rax, cr0
	or	rax, CR0_WP
	mov	cr0, rax
	mov	rax, cr4
	and	rax, ~(CR4_SMEP | CR4_SMAP)
	mov	cr4, rax
	ret

/* EAX: the error code that the case of r15 must raise, or NONE. */
expected_error:
	xor	eax, eax
	test	r15d, CASE_USER
	jz	1f
	or	eax, PF_U
1:	test	r15d, CASE_WRITE
	jz	2f
	or	eax, PF_W
2:	test	r15d, CASE_FETCH
	jz	3f
	or	eax, PF_I		/* EFER.NXE is 1 */
3:	test	r15d, PTE_P
	jz	9f
	or	eax, PF_P
	test	r15d, CASE_USER
	jz	4f
	test	r15d, PTE_U
	jz	9f
	jmp	6f
4:	test	r15d, PTE_U		/* supervisor and a user page */
	jz	6f
	test	r15d, CASE_FETCH
	jz	5f
	test	r15d, CASE_SMEP
	jnz	9f
	jmp	6f
5:	test	r15d, CASE_SMAP
	jz	6f
	test	r15d, CASE_AC
	jz	9f
6:	test	r15d, CASE_FETCH
	jz	7f
	test	r15d, CASE_NX
	jnz	9f
	jmp	8f
7:	test	r15d, CASE_WRITE
	jz	8f
	test	r15d, PTE_W
	jnz	8f
	test	r15d, CASE_USER
	jnz	9f
	test	r15d, CASE_WP
	jnz	9f
8:	mov	eax, NONE
9:	ret

.macro map index, page, flags
	mov	rax, offset scratch + \page * 0x1000
	or	rax, \flags
	mov	[test_pt + \index * 8], rax
	invlpg	[TEST_VA + \index * 0x1000]
.endm

.macro expect_dirty index, want, line
	mov	rax, [test_pt + \index * 8]
	and	eax, PTE_D
	check_equal rax, \want, \line
.endm

/* Read-modify-write instructions ask for write permission, and write even when they change nothing. */
read_modify_write:
	mov	qword ptr [scratch + 0x1000], 5
	map	1, 1, PTE_P
	mov	rbx, PAGE + 0x1000
	mov	eax, 6
	mov	ecx, 7
	expect_fault(PF, PF_P | PF_W, add qword ptr [rbx], 0)
	expect_fault(PF, PF_P | PF_W, lock cmpxchg [rbx], rcx)
	expect(rax, 6)
	expect_fault(PF, PF_P | PF_W, cmpxchg [rbx], rcx)
	expect_fault(PF, PF_P | PF_W, xchg [rbx], rcx)
	expect_fault(PF, PF_P | PF_W, lock xadd [rbx], rcx)
	expect_fault(PF, PF_P | PF_W, shl qword ptr [rbx], cl)
	expect_fault(PF, PF_P | PF_W, bts qword ptr [rbx], 1)
	expect_fault(PF, PF_P | PF_W, pop qword ptr [rbx])
	cmp	al, al
	expect_fault(PF, PF_P | PF_W, setne [rbx])
	mov	rax, [fault_cr2]
	expect(rax, rbx)
	map	1, 1, (PTE_P|PTE_W)
	mov	eax, [rbx]
	expect_dirty 1, 0, __LINE__
	cmp	qword ptr [rbx], 5
	expect_dirty 1, 0, __LINE__
	bt	qword ptr [rbx], 1
	expect_dirty 1, 0, __LINE__
	mov	eax, 6
	cmpxchg	[rbx], rcx		/* unequal: writes back what it read */
	expect(rax, 5)
	expect_dirty 1, PTE_D, __LINE__
	map	1, 1, (PTE_P|PTE_W)
	add	qword ptr [rbx], 0
	expect_dirty 1, PTE_D, __LINE__
	map	1, 1, (PTE_P|PTE_W)
	push	qword ptr [rbx]
	expect_dirty 1, 0, __LINE__
	pop	qword ptr [rbx]
	expect_dirty 1, PTE_D, __LINE__
	/* dirty is set by the first write although the translation was used for reading before */
	map	1, 1, (PTE_P|PTE_W)
	mov	eax, [rbx]
	mov	eax, [rbx]
	mov	[rbx], eax
	expect_dirty 1, PTE_D, __LINE__
	/* and set again after software cleared it and flushed */
	map	1, 1, (PTE_P|PTE_W)
	mov	[rbx], eax
	expect_dirty 1, PTE_D, __LINE__
	ret

/* Rights are those of all levels together; accessed bits appear at each. */
upper_levels:
	mov	rbx, PAGE + 0x2000
	map	2, 2, (PTE_P|PTE_W|PTE_U)
	and	qword ptr [test_pd], ~PTE_A
	and	qword ptr [pdpt + 8], ~PTE_A
	mov	rax, cr3
	mov	cr3, rax
	mov	eax, [rbx]
	mov	rax, [test_pd]
	and	eax, PTE_A
	expect(rax, PTE_A)
	mov	rax, [pdpt + 8]
	and	eax, PTE_A
	expect(rax, PTE_A)

	and	qword ptr [test_pd], ~PTE_W
	invlpg	[rbx]
	expect_fault(PF, PF_P | PF_W, mov [rbx], eax)
	expect_user_fault(PF, PF_P | PF_W | PF_U, mov [rbx], eax)
	or	qword ptr [test_pd], PTE_W
	and	qword ptr [pdpt + 8], ~PTE_U
	mov	rax, cr3
	mov	cr3, rax
	mov	[rbx], eax
	expect_user_fault(PF, PF_P | PF_U, mov eax, [rbx])
	or	qword ptr [pdpt + 8], PTE_U
	bts	qword ptr [pdpt + 8], 63
	mov	rax, cr3
	mov	cr3, rax
	mov	eax, [rbx]
	arm	1f
	call	rbx
1:	disarm
	expect(qword ptr [fault_vector], PF)
	expect(qword ptr [fault_error], PF_P | PF_I)
	btr	qword ptr [pdpt + 8], 63
	and	qword ptr [test_pd], ~PTE_P
	mov	rax, cr3
	mov	cr3, rax
	expect_fault(PF, 0, mov eax, [rbx])
	or	qword ptr [test_pd], PTE_P
	mov	eax, [rbx]		/* what was not present is never cached: no flush needed */
	/* tables nowhere in the map: PML4 entry 1 */
	mov	rsi, 0x8000000000
	expect_fault(PF, PF_W, mov [rsi], eax)
	mov	rax, [fault_cr2]
	expect(rax, rsi)
	ret

/* P and RSVD (4.7): bits beyond MAXPHYADDR, PS in a PML4E, low bits of a large page's address */
reserved_bits:
	mov	eax, 0x80000008
	cpuid
	movzx	eax, al
	cmp	al, 52
	jae	1f
	mov	rbx, PAGE + 0x3000
	map	3, 3, (PTE_P|PTE_W|PTE_U)
	bts	qword ptr [test_pt + 24], 51
	invlpg	[rbx]
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [rbx])
	expect_fault(PF, PF_P | PF_RSVD | PF_W, mov [rbx], eax)
	expect_user_fault(PF, PF_P | PF_RSVD | PF_U, mov eax, [rbx])
	btr	qword ptr [test_pt + 24], 51
	bts	qword ptr [pdpt + 8], 51
	mov	rax, cr3
	mov	cr3, rax
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [rbx])
	btr	qword ptr [pdpt + 8], 51
	/* not present: the other bits are software's */
	mov	qword ptr [test_pt + 24], -2
	invlpg	[rbx]
	expect_fault(PF, 0, mov eax, [rbx])
1:	mov	rax, offset pdpt + (PTE_P | PTE_W | PTE_PS)
	mov	[pml4 + 8], rax
	mov	rsi, 0x8000000000
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [rsi])
	mov	qword ptr [pml4 + 8], 0
	mov	rax, 0x402000 | PTE_P | PTE_W | PTE_PS	/* bit 13 */
	mov	[test_pd + 8], rax
	mov	rbx, TEST_VA + 0x200000
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [rbx])
	mov	qword ptr [test_pd + 8], 0
	ret

/* With EFER.NXE clear, bit 63 is reserved and fetches report no I/D. */
no_execute_off:
	mov	rbx, PAGE + 0x4000
	map	4, 4, (PTE_P|PTE_W|PTE_U)
	bts	qword ptr [test_pt + 32], 63
	invlpg	[rbx]
	mov	eax, [rbx]
	read_msr MSR_EFER
	btr	eax, 11
	xor	edx, edx
	wrmsr
	mov	rax, cr3
	mov	cr3, rax
	expect_fault(PF, PF_P | PF_RSVD, mov eax, [rbx])
	btr	qword ptr [test_pt + 32], 0
	arm	1f
	call	rbx
1:	disarm
	expect(qword ptr [fault_vector], PF)
	expect(qword ptr [fault_error], 0)
	read_msr MSR_EFER
	bts	eax, 11
	xor	edx, edx
	wrmsr
	mov	rax, cr3
	mov	cr3, rax
	ret

large_pages:
	mov	qword ptr [0x400000], 0x11
	mov	qword ptr [0x5ffff8], 0x22
	mov	qword ptr [0x600000], 0x33
	mov	qword ptr [test_pd + 8], 0x400000 | PTE_P | PTE_PS
	mov	rbx, TEST_VA + 0x200000
	expect([rbx], 0x11)
	expect([rbx + 0x1ffff8], 0x22)
	mov	rax, [test_pd + 8]
	and	eax, PTE_A | PTE_D
	expect(rax, PTE_A)
	expect_fault(PF, PF_P | PF_W, mov [rbx + 0x1000], eax)
	mov	qword ptr [test_pd + 8], 0x400000 | PTE_P | PTE_W | PTE_PS
	invlpg	[rbx + 0x7000]		/* any address of the page will do */
	mov	byte ptr [rbx], 0x44
	expect([0x400000], 0x44)
	mov	rax, [test_pd + 8]
	and	eax, PTE_A | PTE_D
	expect(rax, PTE_A | PTE_D)
	expect_user_fault(PF, PF_P | PF_U, mov eax, [rbx])
	mov	qword ptr [test_pd + 8], 0x600000 | PTE_P | PTE_W | PTE_U | PTE_PS
	invlpg	[rbx + 0x1ff000]
	expect([rbx], 0x33)
	user_ok(mov eax, [rbx])
	expect(rax, 0x33)
	/* large and small page side by side */
	mov	qword ptr [test_pd + 16], offset test_pt + (PTE_P|PTE_W|PTE_U)
	map	0, 0, (PTE_P|PTE_W)
	mov	rax, 0x1122334455667788
	mov	[rbx + 0x1ffffc], rax
	mov	eax, [scratch]
	expect(rax, 0x11223344)
	/* 1 GiB, if the processor has them */
	cpuid_bit 0x80000001, 0, edx, 26
	jz	1f
	mov	qword ptr [pdpt + 16], PTE_P | PTE_W | PTE_PS
	mov	rsi, 0x80600000
	expect([rsi], 0x33)
	mov	qword ptr [pdpt + 16], 0
	invlpg	[rsi]
	expect_fault(PF, 0, mov eax, [rsi])
1:	ret

/* An access across two pages; CR2 is the byte that failed. */
crossing:
	map	5, 5, (PTE_P|PTE_W|PTE_U)
	mov	qword ptr [test_pt + 48], 0
	invlpg	[PAGE + 0x6000]
	mov	rbx, PAGE + 0x6000
	expect_fault(PF, 0, mov rax, [rbx - 4])
	mov	rax, [fault_cr2]
	expect(rax, rbx)
	expect_user_fault(PF, PF_U, movups xmm0, [rbx - 15])
	map	6, 6, PTE_P
	expect_fault(PF, PF_P | PF_W, lock add qword ptr [rbx - 4], 1)
	mov	rax, [fault_cr2]
	expect(rax, rbx)
	expect_user_fault(PF, PF_P | PF_U, mov rax, [rbx - 1])
	map	7, 7, PTE_P
	/* the first page fails: CR2 is the address itself */
	mov	rbx, PAGE + 0x8000
	expect_fault(PF, PF_P | PF_W, mov [rbx - 2], eax)
	mov	rax, [fault_cr2]
	lea	rcx, [rbx - 2]
	expect(rax, rcx)
	ret

/* CR0.WP: supervisor writes through read-only entries, dirty bits included. */
write_protected_tables:
	map	8, 8, PTE_P
	mov	rbx, PAGE + 0x8000
	mov	rax, cr0
	and	rax, ~CR0_WP
	mov	cr0, rax
	mov	dword ptr [rbx], 1
	mov	rax, [test_pt + 64]
	and	eax, PTE_D
	expect(rax, PTE_D)
	mov	rax, cr0
	or	rax, CR0_WP
	mov	cr0, rax
	expect_fault(PF, PF_P | PF_W, mov [rbx], eax)	/* at once, no flush */
	ret
