/*
 * Self-modifying and cross-modifying code on one processor: a store is seen by the very next instruction
 * fetched after it (SDM vol. 3A 8.1.3 asks for a jump; all processors since the P6 see it without).
 */
#include "lib.h"
GUEST(smc)

#define PAGE(n) (scratch + (n) * 0x1000)

guest_main:
	call	patch_function
	call	patch_ahead
	call	patch_self
	call	patch_loop
	call	patch_by_string
	call	patch_across_pages
	call	through_another_mapping
	call	remap
	call	data_beside_code
	call	from_user
	ret

/* mov eax, imm32; ret */
.macro put_function at, value
	mov	byte ptr [\at], 0xb8
	mov	dword ptr [\at + 1], \value
	mov	byte ptr [\at + 5], 0xc3
.endm

patch_function:
	put_function PAGE(0), 1
	mov	rbx, offset PAGE(0)
	call	rbx
	expect(rax, 1)
	mov	dword ptr [PAGE(0) + 1], 2
	call	rbx
	expect(rax, 2)
	mov	byte ptr [PAGE(0) + 3], 7
	call	rbx
	expect(rax, 0x70002)
	/* the instruction itself becomes another */
	mov	byte ptr [PAGE(0)], 0xb9	/* mov ecx */
	xor	eax, eax
	xor	ecx, ecx
	call	rbx
	expect(rax, 0)
	expect(rcx, 0x70002)
	mov	byte ptr [PAGE(0)], 0xc3
	call	rbx
	ret

/* The next instruction but one, in the same straight run. */
patch_ahead:
	mov	ecx, 3
1:	mov	[2f + 1], ecx
	xor	eax, eax
2:	mov	eax, 0x11111111
	expect(rax, rcx)
	dec	ecx
	jnz	1b
	ret

/* An instruction that overwrites itself, and one that overwrites the next. */
patch_self:
	mov	rdi, offset 1f
	mov	eax, 0x90909090
	mov	ecx, 0
1:	mov	[rdi], eax	/* 89 07 */
	inc	ecx		/* ff c1: these four bytes are NOPs now */
	expect(rcx, 0)
	mov	dword ptr [1b], 0xc1ff0789
	mov	rdi, offset 2f
	mov	al, 0xc9	/* DEC ECX instead of INC ECX */
	mov	ecx, 5
	mov	[rdi + 1], al
2:	inc	ecx
	expect(rcx, 4)
	mov	byte ptr [2b + 1], 0xc1
	ret

/* A hot loop that rewrites its own body each time round. */
patch_loop:
	xor	eax, eax
	mov	ecx, 1000
1:	mov	[2f + 1], ecx
2:	add	eax, 0x11111111
	dec	ecx
	jnz	1b
	expect(rax, 500500)
	ret

patch_by_string:
	put_function PAGE(0), 1
	put_function PAGE(1), 0x55
	mov	rbx, offset PAGE(0)
	call	rbx
	mov	rsi, offset PAGE(1)
	mov	rdi, rbx
	mov	ecx, 6
	rep movsb
	call	rbx
	expect(rax, 0x55)
	/* by PUSH, by XCHG, by a vector store */
	mov	r12, rsp
	lea	rsp, [rbx + 8]
	mov	rcx, [rbx]
	mov	cl, 0xb9
	push	rcx
	mov	rsp, r12
	xor	ecx, ecx
	call	rbx
	expect(rcx, 0x55)
	mov	ecx, 0x66
	xchg	[rbx + 1], ecx
	call	rbx
	expect(rcx, 0x66)
	movups	xmm0, [PAGE(1)]
	movups	[rbx], xmm0
	call	rbx
	expect(rax, 0x55)
	ret

/* An instruction that lies across two pages; either page may be written. */
patch_across_pages:
	put_function (PAGE(3)-2), 0x12345678
	mov	rbx, offset PAGE(3) - 2
	call	rbx
	expect(rax, 0x12345678)
	mov	byte ptr [PAGE(3) + 1], 0x99	/* second page */
	call	rbx
	expect(rax, 0x12995678)
	mov	byte ptr [PAGE(3) - 1], 0x11	/* first page */
	call	rbx
	expect(rax, 0x12995611)
	/* fetched across two virtual pages that are not neighbours in memory */
	mov	rax, offset PAGE(2) + (PTE_P | PTE_W)
	mov	[test_pt], rax
	mov	rax, offset PAGE(5) + (PTE_P | PTE_W)
	mov	[test_pt + 8], rax
	put_function (PAGE(5)-2), 0
	mov	dword ptr [PAGE(5)], 0xc3aabbcc
	mov	rbx, TEST_VA + 0x1000 - 2
	call	rbx
	expect(rax, 0xaabbcc11)
	mov	byte ptr [PAGE(5)], 0xdd
	call	rbx
	expect(rax, 0xaabbdd11)
	/* and with the second page missing: the fault is the second page's, the RIP the first's */
	mov	qword ptr [test_pt + 8], 0
	invlpg	[TEST_VA + 0x1000]
	arm	1f
	jmp	rbx
1:	disarm
	expect([fault_vector], PF)
	expect([fault_error], PF_I)
	expect([fault_ip], rbx)
	mov	rax, [fault_cr2]
	expect(rax, TEST_VA + 0x1000)
	ret

/* Code run at one address and written at another. */
through_another_mapping:
	mov	rax, offset PAGE(6) + (PTE_P | PTE_W)
	mov	[test_pt + 16], rax
	mov	[test_pt + 24], rax
	put_function PAGE(6), 1
	mov	rbx, TEST_VA + 0x2000
	mov	rsi, TEST_VA + 0x3000
	call	rbx
	expect(rax, 1)
	mov	byte ptr [rsi + 1], 2
	call	rbx
	expect(rax, 2)
	call	rsi
	expect(rax, 2)
	mov	byte ptr [PAGE(6) + 1], 3
	call	rsi
	expect(rax, 3)
	call	rbx
	expect(rax, 3)
	ret

/* The same address, other memory behind it. */
remap:
	put_function PAGE(7), 0x70
	put_function PAGE(8), 0x80
	mov	rbx, TEST_VA + 0x4000
	mov	r12d, 20
1:	mov	rax, offset PAGE(7) + (PTE_P | PTE_W)
	mov	[test_pt + 32], rax
	invlpg	[rbx]
	call	rbx
	expect(rax, 0x70)
	mov	rax, offset PAGE(8) + (PTE_P | PTE_W)
	mov	[test_pt + 32], rax
	mov	rax, cr3
	mov	cr3, rax
	call	rbx
	expect(rax, 0x80)
	dec	r12d
	jnz	1b
	/* a direct call into a page that goes away and comes back as another */
	mov	byte ptr [PAGE(9)], 0xe9	/* jmp to PAGE(9) + 0x1000 */
	mov	dword ptr [PAGE(9) + 1], 0x1000 - 5
	mov	rax, offset PAGE(9) + (PTE_P | PTE_W)
	mov	[test_pt + 40], rax
	mov	rax, offset PAGE(7) + (PTE_P | PTE_W)
	mov	[test_pt + 48], rax
	mov	rbx, TEST_VA + 0x5000
	call	rbx
	expect(rax, 0x70)
	mov	rax, offset PAGE(8) + (PTE_P | PTE_W)
	mov	[test_pt + 48], rax
	invlpg	[TEST_VA + 0x6000]
	call	rbx
	expect(rax, 0x80)
	/* no longer executable */
	mov	rax, offset PAGE(8) + (PTE_P | PTE_W)
	bts	rax, 63
	mov	[test_pt + 48], rax
	invlpg	[TEST_VA + 0x6000]
	arm	2f
	call	rbx
2:	disarm
	expect([fault_vector], PF)
	expect([fault_error], PF_I | PF_P)
	mov	rax, [fault_ip]
	expect(rax, TEST_VA + 0x6000)
	ret

/* Data in the same page as hot code: slow perhaps, but right. */
data_beside_code:
	put_function PAGE(10), 0
	mov	rbx, offset PAGE(10)
	mov	ecx, 5000
1:	inc	qword ptr [PAGE(10) + 64]
	call	rbx
	expect(rax, 0)
	dec	ecx
	jnz	1b
	expect([PAGE(10) + 64], 5000)
	ret

from_user:
	mov	rax, offset PAGE(11) + (PTE_P | PTE_W | PTE_U)
	mov	[test_pt + 56], rax
	put_function PAGE(11), 5
	mov	rbx, TEST_VA + 0x7000
	user_ok(call rbx; mov ecx, eax; mov byte ptr [rbx + 1], 6; call rbx)
	expect(rcx, 5)
	expect(rax, 6)
	call	rbx
	expect(rax, 6)
	mov	byte ptr [PAGE(11) + 1], 9
	user_ok(call rbx)
	expect(rax, 9)
	ret
