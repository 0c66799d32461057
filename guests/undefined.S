/* Encodings that are no instructions in 64-bit mode, or none as things stand (SDM vol. 2). */
#include "lib.h"
GUEST(undefined)
guest_main:
	expect_fault(UD, 0, .byte 0x06)		/* PUSH ES */
	expect_fault(UD, 0, .byte 0xf0; nop)	/* LOCK NOP */
	expect_fault(UD, 0, .byte 0x0f; .byte 0x0b)
	expect_fault(UD, 0, .byte 0x8d; .byte 0xc0) /* LEA of a register */
	expect_fault(UD, 0, .byte 0xd4; .byte 0x0a) /* AAM */
	/* CR4.OSXSAVE is 0 (SDM vol. 2, XGETBV) */
	xor	ecx, ecx
	expect_fault(UD, 0, xgetbv)
	/* more than 15 bytes (SDM vol. 2A 2.3.11) */
	expect_fault(GP, 0, .byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90)
	ret
