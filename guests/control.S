/* Control registers and MSRs: what may not be written, and what reads back (SDM vol. 3A 2.5, 4.1.1). */
#include "lib.h"
GUEST(control)
guest_main:
	mov	rax, cr0
	bts	rax, 40
	expect_fault(GP, 0, mov cr0, rax)
	mov	rax, cr0
	btr	rax, 0		/* PG without PE */
	expect_fault(GP, 0, mov cr0, rax)
	mov	rax, cr0
	btr	rax, 30
	bts	rax, 29		/* NW without CD */
	expect_fault(GP, 0, mov cr0, rax)
	mov	rax, cr4
	btr	rax, 5		/* PAE may not go in long mode */
	expect_fault(GP, 0, mov cr4, rax)
	mov	rax, cr4
	bts	rax, 31
	expect_fault(GP, 0, mov cr4, rax)
	mov	rax, 0x10
	expect_fault(GP, 0, mov cr8, rax)
	expect_fault(UD, 0, .byte 0x0f; .byte 0x22; .byte 0xc8) /* MOV CR1 */
	mov	ecx, 0x4badf00d
	expect_fault(GP, 0, rdmsr)
	expect_fault(GP, 0, wrmsr)
	mov	ecx, MSR_EFER
	mov	eax, 0x80000500
	xor	edx, edx
	expect_fault(GP, 0, wrmsr)
	mov	ecx, MSR_LSTAR
	mov	edx, 0x8000		/* not canonical */
	expect_fault(GP, 0, wrmsr)
	ret
