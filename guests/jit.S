/*
 * A guest that makes code as fast as it runs it, as just-in-time compilers do: 8192 functions, one a KiB, each
 * called as soon as it is written; then all of them once more with other constants, in the same places; then
 * the old ones, in another order and as one chain of jumps. Run with a small cache for translated code
 * (--code-cache) this is code whose translations are thrown away and made again, by the guest's stores and to
 * make room.
 */
#include "lib.h"
GUEST(jit)

#define FUNCTIONS 8192
#define FIRST	  0x1000000
#define STRIDE	  1024
#define LAST	  (FIRST + (FUNCTIONS - 1) * STRIDE)

/* Offsets in a function */
#define SEED  (seed - template + 1)
#define ENTRY (entry - template)
#define MIX   (mix - template + 2)
#define ADDED (added - template + 1)
#define AFTER (after - template)
#define NEXT  (onward - template + 1)

guest_main:
	mov	dword ptr [salt], 0x9e3779b1
	call	make_and_call
	mov	dword ptr [salt], 0x85ebca6b
	call	make_and_call
	call	call_old_ones
	call	chain
	ret

/* What the template does to eax from its entry on, with the constants in registers */
.macro function_body
	lea	eax, [rax + rax * 2 + 1]
	mov	ecx, 3
1:	xor	eax, r9d
	rol	eax, 5
	dec	ecx
	jnz	1b
	test	eax, eax
	js	2f
	add	eax, r10d
2:
.endm

template:
seed:	mov	eax, 0x11111111
entry:	lea	eax, [rax + rax * 2 + 1]
	mov	ecx, 3
1:
mix:	.byte	0x81, 0xf0	/* xor eax, imm32 */
	.long	0x22222222
	rol	eax, 5
	dec	ecx
	jnz	1b
	test	eax, eax
	js	after
added:	.byte	0x05		/* add eax, imm32 */
	.long	0x33333333
after:
onward:	.byte	0xe9		/* jmp rel32: to the RET first */
	.long	0
	ret
template_end:

/* r8d, r9d, r10d = constants of function ebx */
constants:
	imul	r8d, ebx, 0x01000193
	xor	r8d, [salt]
	imul	r9d, r8d, 0x27d4eb2f
	add	r9d, ebx
	lea	r10d, [r8 + r9 * 2 + 12345]
	ret

/* Function ebx at rdx */
write_function:
	call	constants
	mov	rsi, offset template
	mov	rdi, rdx
	mov	ecx, template_end - template
	rep movsb
	mov	[rdx + SEED], r8d
	mov	[rdx + MIX], r9d
	mov	[rdx + ADDED], r10d
	ret

/* r11d = what function ebx returns */
reference:
	call	constants
	mov	eax, r8d
	function_body
	mov	r11d, eax
	ret

make_and_call:
	mov	edx, FIRST
	xor	ebx, ebx
3:	call	write_function
	call	reference
	call	rdx
	expect(rax, r11)
	add	edx, STRIDE
	inc	ebx
	cmp	ebx, FUNCTIONS
	jb	3b
	ret

/* Backwards, each seventh: their translations are gone, or not. */
call_old_ones:
	mov	edx, LAST
	mov	ebx, FUNCTIONS - 1
3:	call	reference
	call	rdx
	expect(rax, r11)
	sub	edx, 7 * STRIDE
	sub	ebx, 7
	jns	3b
	ret

/* Each function jumps into the next one. Twice: the second time all jumps have been taken before. */
chain:
	mov	edx, FIRST
3:	mov	dword ptr [rdx + NEXT], STRIDE + ENTRY - AFTER - 5
	add	edx, STRIDE
	cmp	edx, LAST
	jb	3b
	call	reference_chain
	mov	edx, FIRST
	mov	r12d, 2
3:	call	rdx
	expect(rax, r11)
	dec	r12d
	jnz	3b
	/* Cut in the middle */
	mov	dword ptr [FIRST + 4096 * STRIDE + NEXT], 0
	mov	dword ptr [chain_end], 4096
	call	reference_chain
	call	rdx
	expect(rax, r11)
	ret

/* r11d = what the chain returns: functions 0 to chain_end */
reference_chain:
	xor	ebx, ebx
	call	constants
	mov	eax, r8d
4:	call	constants
	function_body
	inc	ebx
	cmp	ebx, [chain_end]
	jbe	4b
	mov	r11d, eax
	ret

	.data
salt:	.long	0
chain_end: .long FUNCTIONS - 1
