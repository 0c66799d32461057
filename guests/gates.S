/* INT n and exceptions through gates that do not work: error codes with IDT and EXT (SDM vol. 3A 6.13). */
#include "lib.h"
GUEST(gates)
guest_main:
	/* INT n to a vector whose gate the IDT lacks: error code = vector * 8 + IDT */
	mov	rax, [idt + 0x90 * 16]
	mov	byte ptr [idt + 0x90 * 16 + 5], 0	/* not a gate */
	expect_fault(GP, 0x90 * 8 + 2, int 0x90)
	mov	byte ptr [idt + 0x90 * 16 + 5], 0x0e	/* not present */
	expect_fault(NP, 0x90 * 8 + 2, int 0x90)
	mov	[idt + 0x90 * 16], rax
	mov	byte ptr [idt + 0x90 * 16 + 5], 0x8e
	/* beyond the limit */
	lidt	[short_idt]
	expect_fault(GP, 0x90 * 8 + 2, int 0x90)
	lidt	[idt_pointer]
	/* with EXT: an exception whose own gate is missing */
	mov	byte ptr [idt + UD * 16 + 5], 0x0e
	expect_fault(NP, UD * 8 + 2 + 1, ud2)
	mov	byte ptr [idt + UD * 16 + 5], 0x8e
	/* a gate to a selector that is no code segment */
	mov	word ptr [idt + 0x90 * 16 + 2], KDATA
	expect_fault(GP, KDATA, int 0x90)
	mov	word ptr [idt + 0x90 * 16 + 2], 0
	expect_fault(GP, 0, int 0x90)
	mov	word ptr [idt + 0x90 * 16 + 2], KCODE32
	expect_fault(GP, KCODE32, int 0x90)
	mov	word ptr [idt + 0x90 * 16 + 2], KCS
	ret

	.data
short_idt:
	.short	0x90 * 16 - 1
	.quad	idt
