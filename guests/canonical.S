/* Addresses that are not canonical: #GP, or #SS through the stack segment (SDM vol. 1 3.3.7.1). */
#include "lib.h"
GUEST(canonical)
guest_main:
	mov	rbx, 0x0000800000000000
	expect_fault(GP, 0, mov rax, [rbx])
	expect_fault(GP, 0, jmp rbx)
	push	rbx
	mov	r12, rsp
	expect_fault(GP, 0, ret)
	expect([fault_old_sp], r12)	/* nothing of the branch has been done */
	expect_fault(GP, 0, ret 0x1230)
	expect([fault_old_sp], r12)
	expect_fault(GP, 0, call rbx)
	expect([fault_old_sp], r12)
	pop	rbx
	mov	rax, rsp
	mov	rbp, rbx
	mov	qword ptr [scratch], 0x77
	expect_fault(SS_VECTOR, 0, mov rax, [rbp])
	expect_fault(SS_VECTOR, 0, mov [rbp + 8], rax)
	mov	r12, rsp
	mov	qword ptr [fault_vector], NONE
	mov	qword ptr [fault_resume], offset 1f
	mov	[fault_sp], rsp
	mov	byte ptr [idt + SS_VECTOR * 16 + 4], 1	/* on IST 1: there is no stack */
	mov	qword ptr [tss + 36], offset scratch + 0x4000
	lea	rsp, [rbx + 0x100]
	push	rax
	fail()
1:	mov	byte ptr [idt + SS_VECTOR * 16 + 4], 0
	disarm
	expect(qword ptr [fault_vector], SS_VECTOR)
	expect(qword ptr [fault_error], 0)
	lea	rax, [rbx + 0x100]
	expect([fault_old_sp], rax)
	mov	rax, [fault_frame]
	mov	rcx, offset scratch + 0x4000 - 5 * 8
	expect(rax, rcx)
	ret
