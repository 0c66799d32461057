/* FXSAVE, XSAVE and their kin: round trips, the header, what they refuse (SDM vol. 1 chapter 13). */
#include "lib.h"
GUEST(xsave)

#define AREA  scratch
#define AREA2 (scratch + 0x2000)

guest_main:
	call	fxsave_round_trip
	call	lazy
	cpuid_bit 1, 0, ecx, 26
	jz	no_xsave
	call	switch_on
	call	xcr0
	call	round_trip
	call	initial_state
	call	optimized
	call	refused
	call	at_user
	cpuid_bit 1, 0, ecx, 28
	jz	no_xsave
	call	avx
no_xsave:
	ret

.macro fill_registers
	fninit
	fldpi
	fld1
	mov	rax, 0x1111111122222222
	movq	xmm0, rax
	pshufd	xmm7, xmm0, 0x4e
	movq	xmm15, rax
	mov	dword ptr [word], 0x5f80
	ldmxcsr	[word]
.endm

.macro wipe_registers
	fninit
	pxor	xmm0, xmm0
	pxor	xmm7, xmm7
	pxor	xmm15, xmm15
	mov	dword ptr [word], 0x1f80
	ldmxcsr	[word]
.endm

/* Clobbers RAX, RBX. */
.macro check_registers line
	mov	rbx, 0x1111111122222222
	movq	rax, xmm0
	check_equal rax, rbx, \line
	movhlps	xmm0, xmm7
	movq	rax, xmm0
	check_equal rax, rbx, \line
	movq	rax, xmm15
	check_equal rax, rbx, \line
	stmxcsr	[word]
	mov	eax, [word]
	check_equal rax, 0x5f80, \line
	fistp	qword ptr [word]
	mov	rax, [word]
	check_equal rax, 1, \line
	fistp	qword ptr [word]
	mov	rax, [word]
	check_equal rax, 3, \line
.endm

fxsave_round_trip:
	fill_registers
	fxsave64 [AREA]
	movzx	eax, word ptr [AREA]		/* FCW */
	expect(rax, 0x37f)
	movzx	eax, word ptr [AREA + 2]	/* FSW: TOP is 6 */
	expect(rax, 0x3000)
	movzx	eax, byte ptr [AREA + 4]	/* abridged tag word */
	expect(rax, 0xc0)
	mov	eax, [AREA + 24]
	expect(rax, 0x5f80)
	mov	rax, [AREA + 32]		/* ST(0) = 1 */
	mov	rbx, 0x8000000000000000
	expect(rax, rbx)
	mov	rax, [AREA + 160]
	mov	rbx, 0x1111111122222222
	expect(rax, rbx)
	mov	rax, [AREA + 160 + 15 * 16]
	expect(rax, rbx)
	wipe_registers
	fxrstor64 [AREA]
	check_registers __LINE__
	expect_fault(GP, 0, fxsave64 [AREA + 8])
	expect_fault(GP, 0, fxrstor64 [AREA + 8])
	mov	dword ptr [AREA + 24], 0x10000	/* reserved bit of MXCSR */
	expect_fault(GP, 0, fxrstor64 [AREA])
	ret

/* CR0.TS: any of them is #NM until CLTS. */
lazy:
	mov	rax, cr0
	or	rax, 8
	mov	cr0, rax
	expect_fault(NM, 0, fxsave64 [AREA])
	expect_fault(NM, 0, fxrstor64 [AREA])
	expect_fault(NM, 0, pxor xmm0, xmm0)
	expect_fault(NM, 0, stmxcsr [word])
	expect_user_fault(NM, 0, movaps xmm0, xmm1)
	clts
	pxor	xmm0, xmm0
	ret

switch_on:
	xor	eax, eax
	xor	edx, edx
	expect_fault(UD, 0, xsave [AREA])
	expect_fault(UD, 0, vpxor xmm0, xmm0, xmm0)
	mov	rax, cr4
	bts	rax, 18				/* OSXSAVE */
	mov	cr4, rax
	mov	eax, 1
	cpuid					/* shows in CPUID.1:ECX, bit 27 */
	shr	ecx, 27
	and	ecx, 1
	expect(rcx, 1)
	ret

xcr0:
	xor	ecx, ecx
	xgetbv
	expect(rax, 1)				/* after reset: x87 alone */
	xor	edx, edx
	mov	eax, 2
	expect_fault(GP, 0, xsetbv)		/* without x87 */
	mov	eax, 5
	expect_fault(GP, 0, xsetbv)		/* AVX without SSE */
	mov	eax, 3
	mov	edx, 0x40000000
	expect_fault(GP, 0, xsetbv)
	xor	edx, edx
	mov	ecx, 1
	expect_fault(GP, 0, xsetbv)		/* XCR1 */
	xor	ecx, ecx
	mov	eax, 3
	expect_user_fault(GP, 0, xsetbv)
	xsetbv
	xgetbv
	expect(rax, 3)
	mov	eax, 0xd			/* size for what XCR0 enables: legacy and header */
	xor	ecx, ecx
	cpuid
	expect(rbx, 576)
	ret

.macro clear_area area
	mov	rdi, offset \area
	mov	ecx, 1024
	xor	eax, eax
	rep stosb
.endm

round_trip:
	clear_area AREA
	fill_registers
	mov	eax, -1
	mov	edx, -1
	xsave64	[AREA]
	expect([AREA + 512], 3)			/* XSTATE_BV */
	expect([AREA + 520], 0)
	wipe_registers
	mov	eax, -1
	mov	edx, -1
	xrstor64 [AREA]
	check_registers __LINE__
	/* only what is asked for: x87 is saved, SSE left as it was in memory */
	fill_registers
	clear_area AREA
	mov	eax, 1
	xor	edx, edx
	xsave64	[AREA]
	mov	rax, [AREA + 512]
	expect(rax, 1)
	mov	rax, [AREA + 160]
	expect(rax, 0)
	movzx	eax, byte ptr [AREA + 4]
	expect(rax, 0xc0)
	ret

/* XSTATE_BV 0 restores the initial state; MXCSR comes from memory when SSE is asked for. */
initial_state:
	clear_area AREA
	mov	dword ptr [AREA + 24], 0x1f80
	mov	qword ptr [AREA + 160], -1
	mov	word ptr [AREA], 0x27f
	fill_registers
	mov	eax, 3
	xor	edx, edx
	xrstor64 [AREA]
	movq	rax, xmm0
	expect(rax, 0)
	movq	rax, xmm15
	expect(rax, 0)
	fnstcw	[word]
	movzx	eax, word ptr [word]
	expect(rax, 0x37f)
	fnstsw	ax
	and	eax, 0xffff
	expect(rax, 0)
	stmxcsr	[word]
	mov	eax, [word]
	expect(rax, 0x1f80)
	ret

optimized:
	mov	eax, 0xd
	mov	ecx, 1
	cpuid
	mov	r12d, eax
	test	r12d, 1
	jz	no_xsaveopt
	clear_area AREA
	fill_registers
	mov	eax, 3
	xor	edx, edx
	xsaveopt64 [AREA]
	wipe_registers
	mov	eax, 3
	xor	edx, edx
	xrstor64 [AREA]
	check_registers __LINE__
no_xsaveopt:
	test	r12d, 2
	jz	no_xsavec
	clear_area AREA
	fill_registers
	mov	eax, 3
	xor	edx, edx
	xsavec64 [AREA]
	mov	rax, [AREA + 520]		/* XCOMP_BV: compacted, both */
	mov	rbx, 0x8000000000000003
	expect(rax, rbx)
	wipe_registers
	mov	eax, 3
	xor	edx, edx
	xrstor64 [AREA]
	check_registers __LINE__
no_xsavec:
	ret

refused:
	clear_area AREA
	mov	dword ptr [AREA + 24], 0x1f80
	mov	eax, 3
	xor	edx, edx
	expect_fault(GP, 0, xsave64 [AREA + 16])
	expect_fault(GP, 0, xrstor64 [AREA + 16])
	mov	qword ptr [AREA + 512], 8	/* a component that XCR0 does not have */
	expect_fault(GP, 0, xrstor64 [AREA])
	mov	qword ptr [AREA + 512], 3
	mov	qword ptr [AREA + 528], 1	/* reserved part of the header */
	expect_fault(GP, 0, xrstor64 [AREA])
	mov	qword ptr [AREA + 528], 0
	mov	dword ptr [AREA + 24], 0x10000
	expect_fault(GP, 0, xrstor64 [AREA])
	mov	dword ptr [AREA + 24], 0x1f80
	/* across into a page that is missing: a page fault, and nothing else */
	mov	rax, offset scratch + 0x5000 + (PTE_P | PTE_W)
	mov	[test_pt], rax
	mov	eax, 3
	arm	1f
	xsave64	[TEST_VA + 0x1000 - 512]
1:	disarm
	expect([fault_vector], PF)	/* it reads the header too: W is the processor's choice */
	mov	rax, [fault_cr2]
	and	rax, ~0xfff
	expect(rax, TEST_VA + 0x1000)
	mov	eax, 3
	expect_fault(PF, 0, xrstor64 [TEST_VA + 0x1000 - 512])
	mov	rax, cr0
	or	rax, 8
	mov	cr0, rax
	mov	eax, 3
	expect_fault(NM, 0, xsave64 [AREA])
	expect_fault(NM, 0, xrstor64 [AREA])
	clts
	ret

at_user:
	fill_registers
	mov	rsi, offset user_area
	mov	eax, 3
	xor	edx, edx
	user_ok(xsave64 [rsi]; fninit; pxor xmm0, xmm0; pxor xmm15, xmm15; xrstor64 [rsi])
	check_registers __LINE__
	xor	ecx, ecx
	user_ok(xgetbv)
	expect(rax, 3)
	ret

avx:
	xor	ecx, ecx
	xor	edx, edx
	mov	eax, 7
	xsetbv
	mov	eax, 0xd
	xor	ecx, ecx
	cpuid
	expect(rbx, 832)
	mov	eax, 0xd
	mov	ecx, 2
	cpuid
	expect(rax, 256)
	expect(rbx, 576)
	clear_area AREA
	mov	rax, 0x5555555566666666
	movq	xmm0, rax
	vinsertf128 ymm3, ymm3, xmm0, 1
	mov	eax, 7
	xor	edx, edx
	xsave64	[AREA]
	mov	rax, [AREA + 576 + 3 * 16]
	mov	rbx, 0x5555555566666666
	expect(rax, rbx)
	vzeroall
	mov	eax, 4				/* the upper halves alone */
	xor	edx, edx
	xrstor64 [AREA]
	vextractf128 xmm1, ymm3, 1
	movq	rax, xmm1
	expect(rax, rbx)
	movq	rax, xmm3
	expect(rax, 0)
	/* a legacy SSE instruction keeps the upper half, a VEX one clears it */
	pxor	xmm3, xmm3
	vextractf128 xmm1, ymm3, 1
	movq	rax, xmm1
	expect(rax, rbx)
	vpxor	xmm3, xmm3, xmm3
	vextractf128 xmm1, ymm3, 1
	movq	rax, xmm1
	expect(rax, 0)
	/* XGETBV with ECX = 1 tells what is in use, where there is such a thing */
	mov	eax, 0xd
	mov	ecx, 1
	cpuid
	test	eax, 4
	jz	no_in_use
	vinsertf128 ymm3, ymm3, xmm0, 1
	mov	ecx, 1
	xgetbv
	and	eax, 6
	expect(rax, 6)
no_in_use:
	vzeroall
	ret

	.bss
	.balign	8
word:	.skip	16

	.section .user, "awx"
	.p2align 6
user_area: .skip 1024
