/*
 * Accesses that begin in one page and end in one that is missing: nothing is written, no port is touched.
 */
#include "lib.h"
GUEST(straddle)

#define MISSING (TEST_VA + 0x1000)

guest_main:
	mov	rax, offset scratch + (PTE_P | PTE_W)
	mov	[test_pt], rax
	call	store
	call	string_store
	call	ports
	ret

store:
	mov	rbx, MISSING
	mov	dword ptr [rbx - 4], 0x1234
	mov	rax, -1
	expect_fault(PF, PF_W, mov [rbx - 4], rax)
	mov	eax, [rbx - 4]
	expect(rax, 0x1234)
	lea	rsp, [rsp - 8]
	fild	qword ptr [one]
	expect_fault(PF, PF_W, fistp qword ptr [rbx - 4])
	mov	eax, [rbx - 4]
	expect(rax, 0x1234)
	fistp	qword ptr [rsp]		/* still on the x87's stack */
	pop	rax
	expect(rax, 1)
	movups	xmm0, [one]
	expect_fault(PF, PF_W, movups [rbx - 4], xmm0)
	mov	eax, [rbx - 4]
	expect(rax, 0x1234)
	ret

/* The element that straddles into the missing page is not written at all. */
string_store:
	mov	qword ptr [MISSING - 8], 0
	mov	rdi, MISSING - 12
	mov	ecx, 4
	mov	rax, -1
	expect_fault(PF, PF_W, rep stosq)
	expect(rcx, 3)
	expect(rdi, MISSING - 4)
	mov	eax, [MISSING - 4]
	expect(rax, 0)
	mov	rax, [fault_cr2]
	expect(rax, MISSING)
	ret

/* INS checks its destination before the port is read. */
ports:
	mov	dx, 0x80
	mov	rdi, MISSING - 4
	mov	ecx, 3
	expect_fault(PF, PF_W, rep insd)
	expect(rcx, 2)
	expect(rdi, MISSING)
	mov	rsi, MISSING - 2
	mov	ecx, 3
	expect_fault(PF, 0, rep outsb)
	expect(rcx, 1)
	expect(rsi, MISSING)
	ret

	.section .rodata
	.p2align 4
one:	.quad	1, 0
