/*
 * AVX-512 where the system has a say: XCR0 and CR0.TS, memory fault suppression across pages and on
 * read-only ones, gathers that go on behind a fault (SDM vol. 1 13.3, vol. 2A 2.7).
 */
#include "lib.h"
GUEST(avx512)

#define AREA	scratch
#define PAGE	TEST_VA
#define NEXT	(TEST_VA + 0x1000)	/* not present */

guest_main:
	cpuid_bit 1, 0, ecx, 26			/* XSAVE */
	jz	1f
	cpuid_bit 7, 0, ebx, 16			/* AVX512F */
	jz	1f
	test	ebx, 1 << 30			/* BW */
	jz	1f
	mov	rax, cr4
	bts	rax, 18				/* OSXSAVE */
	mov	cr4, rax
	call	enabling
	call	lazy
	call	saved
	call	map_pages
	call	loads
	call	stores
	call	read_only
	call	gathers
	call	scatters
1:	ret

.macro set_xcr0 value
	xor	ecx, ecx
	xor	edx, edx
	mov	eax, \value
	xsetbv
.endm

.macro set_mask k, value
	mov	eax, \value
	kmovd	\k, eax
.endm

enabling:
	set_xcr0 7
	expect_fault(UD, 0, vpxord zmm0, zmm0, zmm0)
	expect_fault(UD, 0, vmovdqu32 xmm0, [AREA])
	expect_fault(UD, 0, kmovw eax, k1)
	expect_user_fault(UD, 0, vpxord zmm16, zmm16, zmm16)
	xor	ecx, ecx
	xor	edx, edx
	mov	eax, 0x67
	expect_fault(GP, 0, xsetbv)		/* all three or none */
	mov	eax, 0xe3
	expect_fault(GP, 0, xsetbv)		/* not without AVX */
	set_xcr0 0xe7
	vpxord	zmm0, zmm0, zmm0
	mov	eax, 0xd
	xor	ecx, ecx
	cpuid
	expect(rbx, rcx)			/* everything is enabled */
	ret

/* CR0.TS: #NM until CLTS. */
lazy:
	mov	rax, cr0
	or	rax, 8
	mov	cr0, rax
	expect_fault(NM, 0, vpxord zmm0, zmm0, zmm0)
	expect_fault(NM, 0, kmovw eax, k1)
	expect_fault(NM, 0, vmovdqu32 [AREA], zmm31)
	clts
	ret

/* Opmasks, upper halves, upper registers come back. */
saved:
	mov	rdi, offset AREA
	xor	eax, eax
	mov	ecx, 4096 / 8
	rep stosq
	mov	eax, 0x5a5a1234
	vpbroadcastd zmm2, eax
	vpbroadcastd zmm29, eax
	kmovd	k5, eax
	mov	eax, 0xe7
	xor	edx, edx
	xsave64	[AREA]
	vzeroall
	vpxord	zmm29, zmm29, zmm29
	kxorq	k5, k5, k5
	mov	eax, 0xe7
	xrstor64 [AREA]
	kmovd	eax, k5
	expect(rax, 0x5a5a1234)
	vpcmpeqd k1, zmm2, zmm29
	kmovd	eax, k1
	expect(rax, 0xffff)
	vextracti32x4 xmm1, zmm29, 3
	vmovd	eax, xmm1
	expect(rax, 0x5a5a1234)
	mov	dword ptr [AREA + 512], 7	/* XSTATE_BV: those of AVX-512 initial */
	mov	eax, 0xe7
	xrstor64 [AREA]
	kmovd	eax, k5
	expect(rax, 0)
	vextracti32x4 xmm1, zmm29, 3
	vmovd	eax, xmm1
	expect(rax, 0)
	ret

map_pages:
	mov	rax, offset scratch
	or	rax, PTE_P | PTE_W
	mov	[test_pt], rax
	mov	qword ptr [test_pt + 8], 0
	mov	rbx, PAGE
	invlpg	[rbx]
	mov	rbx, NEXT
	invlpg	[rbx]
	mov	rcx, 1024
2:	mov	[PAGE + rcx * 4 - 4], ecx	/* 1, 2, 3, ... */
	loop	2b
	ret

/* The last four elements of the page and twelve of the next. */
loads:
	mov	rbx, NEXT - 16
	set_mask k1, 0xf
	vmovdqu32 zmm1{k1}{z}, [rbx]
	vmovd	eax, xmm1
	expect(rax, 1021)
	vpextrd	eax, xmm1, 3
	expect(rax, 1024)
	set_mask k2, 0x10
	expect_fault(PF, 0, vmovdqu32 zmm1{k2}, [rbx])
	mov	rax, cr2
	and	rax, -4096
	mov	rcx, NEXT
	expect(rax, rcx)
	kxorq	k3, k3, k3
	vmovdqu32 zmm1{k3}, [rbx]		/* nothing is touched */
	vmovdqu32 zmm1{k3}, [rbx + 16]
	vpaddd	zmm2{k3}, zmm1, [rbx + 16]{1to16}
	set_mask k4, 0x10000			/* beyond the elements */
	vmovdqu32 zmm1{k4}, [rbx + 16]
	vpexpandd zmm3{k1}{z}, [rbx]		/* as many as the mask has bits */
	set_mask k2, 0x7800
	vpexpandd zmm3{k2}{z}, [rbx]
	set_mask k2, 0x7801
	expect_fault(PF, 0, vpexpandd zmm3{k2}{z}, [rbx])
	expect_fault(PF, 0, vpermd zmm3{k3}, zmm1, [rbx])	/* no suppression */
	ret

stores:
	mov	rbx, NEXT - 16
	mov	eax, 0x77
	vpbroadcastd zmm1, eax
	set_mask k1, 0xa
	vmovdqu32 [rbx]{k1}, zmm1
	mov	eax, [rbx]
	expect(rax, 1021)
	mov	eax, [rbx + 4]
	expect(rax, 0x77)
	mov	eax, [rbx + 8]
	expect(rax, 1023)
	mov	eax, [rbx + 12]
	expect(rax, 0x77)
	set_mask k2, 0x8000
	expect_fault(PF, PF_W, vmovdqu32 [rbx]{k2}, zmm1)
	set_mask k2, 0xc003
	vpcompressd [rbx]{k2}, zmm1
	mov	eax, [rbx + 8]
	expect(rax, 0x77)
	kxorq	k3, k3, k3
	vmovdqu8 [rbx + 16]{k3}, zmm1
	vpmovdb	[rbx + 16]{k3}, zmm1
	expect_fault(PF, PF_W, vextracti32x4 [rbx + 16]{k3}, zmm1, 1)	/* no suppression */
	ret

/* A store that stores nothing is no write; one element is. */
read_only:
	mov	rax, cr0
	or	rax, 0x10000			/* WP */
	mov	cr0, rax
	mov	rax, offset scratch
	or	rax, PTE_P
	mov	[test_pt], rax
	mov	rbx, PAGE
	invlpg	[rbx]
	kxorq	k3, k3, k3
	set_mask k1, 0x4000
	vmovdqu32 [rbx]{k3}, zmm1
	expect_fault(PF, PF_P | PF_W, vmovdqu32 [rbx]{k1}, zmm1)
	or	qword ptr [test_pt], PTE_W
	invlpg	[rbx]
	vmovdqu32 [rbx]{k3}, zmm1
	mov	rax, [test_pt]
	and	eax, PTE_D
	expect(rax, 0)
	vmovdqu32 [rbx]{k1}, zmm1
	mov	rax, [test_pt]
	and	eax, PTE_D
	expect(rax, PTE_D)
	ret

/* The element that faults and those behind it stay in the mask. */
gathers:
	mov	rbx, NEXT - 8 * 4
	vmovdqu32 zmm5, [numbers]
	vpxord	zmm6, zmm6, zmm6
	mov	dword ptr [rbx], 0x1234
	set_mask k1, 0xffff
	expect_fault(PF, 0, vpgatherdd zmm6{k1}, [rbx + zmm5 * 4])
	kmovd	eax, k1
	expect(rax, 0xff00)
	vmovd	eax, xmm6
	expect(rax, 0x1234)
	mov	rax, offset scratch + 0x1000
	or	rax, PTE_P | PTE_W
	mov	[test_pt + 8], rax
	mov	dword ptr [scratch + 0x1000 + 7 * 4], 0x4321
	vpgatherdd zmm6{k1}, [rbx + zmm5 * 4]
	kmovd	eax, k1
	expect(rax, 0)
	vextracti32x4 xmm1, zmm6, 3
	vpextrd	eax, xmm1, 3
	expect(rax, 0x4321)
	vmovd	eax, xmm6
	expect(rax, 0x1234)
	mov	qword ptr [test_pt + 8], 0
	mov	rbx, NEXT
	invlpg	[rbx]
	ret

scatters:
	mov	rbx, NEXT - 8 * 4
	mov	eax, 0x99
	vpbroadcastd zmm6, eax
	set_mask k1, 0xfffe
	expect_fault(PF, PF_W, vpscatterdd [rbx + zmm5 * 4]{k1}, zmm6)
	kmovd	eax, k1
	expect(rax, 0xff00)
	mov	eax, [rbx]
	expect(rax, 0x1234)
	mov	eax, [rbx + 28]
	expect(rax, 0x99)
	/* to the same place: the last one stays */
	vpxord	zmm7, zmm7, zmm7
	set_mask k1, 0xffff
	vpscatterdd [rbx + zmm7 * 4]{k1}, zmm5
	mov	eax, [rbx]
	expect(rax, 15)
	ret

	.section .rodata
	.balign	64
numbers:
	.long	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
