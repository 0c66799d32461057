/*
 * Near branches with an operand size of 16 bits in flat 32-bit code: they move two bytes and clear the upper half of EIP
 * (SDM vol. 2A CALL, JMP; 2B RET).
 */
#include "lib.h"
GUEST(near16)

#define LANDING 0x7000	/* reached by 16-bit targets */

guest_main:
	/* there: pop what is left there, and back to EBP */
	mov	word ptr [LANDING], 0xe5ff	/* jmp ebp */
	mov	ebx, offset target

	mov	ebp, offset 1f
	mov	eax, 0x12340000 + LANDING
	.byte	0x66, 0xff, 0xe0		/* jmp ax */
	ud2
1:	mov	ebp, offset 1f
	mov	dword ptr [ebx], 0x56780000 + LANDING
	.byte	0x66, 0xff, 0x23		/* jmp word ptr [ebx] */
	ud2
1:	mov	ebp, offset 1f
	push	0x55555555
	mov	esi, esp
	.byte	0x66, 0x68, 0x00, 0x70		/* push word LANDING */
	.byte	0x66, 0xc3			/* ret, 16 bits */
	ud2
1:	mov	edx, esp
	expect(edx, esi)
	mov	ebp, offset 1f
	.byte	0x66, 0x68, 0x00, 0x70
	.byte	0x66, 0xc2, 0x04, 0x00		/* ret 4, 16 bits */
	ud2
1:	add	esi, 4
	mov	edx, esp
	expect(edx, esi)
	mov	ebp, offset 1f
	mov	eax, 0x12340000 + LANDING
	.byte	0x66, 0xff, 0xd0		/* call ax */
	ud2
1:	sub	esi, 2
	mov	edx, esp
	expect(edx, esi)
	lea	esp, [esp + 2]
	mov	ebp, offset 1f
	mov	dword ptr [ebx], 0x56780000 + LANDING
	.byte	0x66, 0xff, 0x13		/* call word ptr [ebx] */
	ud2
1:	lea	esp, [esp + 2]
	add	esi, 2
	mov	edx, esp
	expect(edx, esi)
	ret

	.data
	.p2align 3
target:	.quad	0
