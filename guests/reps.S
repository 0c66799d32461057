/*
 * REP MOVS and STOS of 64-bit programs over pages some of which are not there, or not for them: at a fault RCX, RSI and
 * RDI stand at the element that could not be moved, whole elements before it have been, none behind it (SDM vol. 2B,
 * REP; vol. 3A 6.5).
 */
#include "shadow.h"
GUEST(reps)

#define PROTECTED (PF_P | PF_W | PF_U)
#define HOLE	  0x80000000 /* guest-physical, nobody's */
#define PATTERN	  0x0807060504030201

guest_main:
	begin
	mov	rax, PATTERN
	call	upwards
	call	downwards
	call	between_elements
	call	both_sides
	call	protected
	call	nothing_to_do
	call	four_gib
	call	short_addresses
	call	no_memory
	call	over_code
	call	overlapping
	call	paged
	call	marks
	ret

/* Programs run with DF set, or clear. */
.macro down
	mov	qword ptr [user_flags], F_DF | 2
.endm
.macro up
	cld
	mov	qword ptr [user_flags], 2
.endm

/* Pages @first to @last show the frames of their numbers, those around them nothing. */
.macro only first, last
	push	rax
	push	rcx
	push	rdi
	cld
	mov	rdi, offset test_pt
	mov	ecx, 512
	xor	eax, eax
	rep stosq
	mov	rdi, offset test_pt + \first * 8
	mov	eax, FRAME(\first) + URW
8:	mov	[rdi], rax
	add	rdi, 8
	add	eax, 0x1000
	cmp	eax, FRAME(\last + 1) + URW
	jne	8b
	mov	rax, cr3
	mov	cr3, rax
	pop	rdi
	pop	rcx
	pop	rax
.endm

.macro clear_frames first, last
	push	rax
	push	rcx
	push	rdi
	cld
	xor	eax, eax
	mov	edi, FRAME(\first)
	mov	ecx, (\last + 1 - \first) * 512
	rep stosq
	pop	rdi
	pop	rcx
	pop	rax
.endm

upwards:
	only	2, 4
	from(VA(2) + 8, 0, 10000)
	faults_at(ABSENT_WRITE, VA(5), rep stosq)
	stands(VA(5), 0, 10000 - 3 * 512 + 1)
	expect([FRAME(2)], 0)
	expect([FRAME(2) + 8], rax)
	expect([FRAME(4) + 0xff8], rax)
	expect([FRAME(5)], 0)
	clear_frames 2, 4
	from(VA(2) + 6, 0, 10000)
	faults_at(ABSENT_WRITE, VA(5), rep stosw)
	stands(VA(5), 0, 10000 - 3 * 2048 + 3)
	expect([FRAME(4) + 0xff8], 0x0201020102010201)
	clear_frames 2, 4
	from(VA(2) + 3, 0, 100000)
	faults_at(ABSENT_WRITE, VA(5), rep stosb)
	stands(VA(5), 0, 100000 - 3 * 4096 + 3)
	expect([FRAME(2)], 0x0101010101000000)
	/* a count of all there is */
	from(VA(3) + 4, 0, -1)
	faults_at(ABSENT_WRITE, VA(5), rep stosd)
	stands(VA(5), 0, -1 - 2 * 1024 + 1)
	/* the first element */
	from(VA(5), 7, 3)
	faults_at(ABSENT_WRITE, VA(5), rep stosb)
	stands(VA(5), 7, 3)
	/* what was missing is there, and the instruction goes on; the last element is the page's last one */
	map	5, 5
	from(VA(4), 0, 1024)
	user_ok(rep stosq)
	stands(VA(6), 0, 0)
	expect([FRAME(5) + 0xff8], rax)
	from(VA(4), 0, 1025)
	faults_at(ABSENT_WRITE, VA(6), rep stosq)
	stands(VA(6), 0, 1)
	ret

downwards:
	only	6, 8
	clear_frames 5, 8
	down
	from(VA(8) + 0xff0, 0, 10000)
	faults_at(ABSENT_WRITE, (VA(5) + 0xff8), rep stosq)
	up
	stands(VA(5) + 0xff8, 0, 10000 - 3 * 512 + 1)
	expect([FRAME(8) + 0xff8], 0)
	expect([FRAME(8) + 0xff0], rax)
	expect([FRAME(6)], rax)
	expect([FRAME(5) + 0xff8], 0)
	clear_frames 6, 8
	down
	from(VA(8) + 0xffc, 0, 10000)
	faults_at(ABSENT_WRITE, (VA(5) + 0xffe), rep stosw)
	up
	stands(VA(5) + 0xffe, 0, 10000 - 3 * 2048 + 1)
	clear_frames 6, 8
	down
	from(VA(8) + 2, 0, 10000)
	faults_at(ABSENT_WRITE, (VA(5) + 0xfff), rep stosb)
	up
	stands(VA(5) + 0xfff, 0, 10000 - 2 * 4096 - 3)
	expect([FRAME(8)], 0x010101)
	/* source and destination, the source ends first */
	map	20, 20
	map	21, 21
	map	22, 22
	mov	qword ptr [FRAME(6)], 0x66
	mov	qword ptr [FRAME(8) + 0xff8], 0x88
	down
	from(VA(22) + 0xff8, VA(7) + 0xff8, 10000)
	faults_at(ABSENT_READ, (VA(5) + 0xff8), rep movsq)
	up
	stands(VA(20) + 0xff8, VA(5) + 0xff8, 10000 - 1024)
	expect([FRAME(21)], 0x66)
	/* ... or the destination */
	down
	from(VA(20) + 0xff8, VA(8) + 0xff8, 10000)
	faults_at(ABSENT_WRITE, (VA(19) + 0xff8), rep movsq)
	up
	stands(VA(19) + 0xff8, VA(7) + 0xff8, 10000 - 512)
	expect([FRAME(20) + 0xff8], 0x88)
	ret

/* An element that lies in a page that is there and one that is not: none of it is written. */
between_elements:
	only	6, 8
	clear_frames 4, 9
	from(VA(7) + 4, 0, 5000)
	faults_at(ABSENT_WRITE, VA(9), rep stosq)
	stands(VA(9) - 4, 0, 5000 - 1023)
	expect([FRAME(8) + 0xff8], 0x08070605)
	from(VA(7) + 1, 0, 5000)
	faults_at(ABSENT_WRITE, VA(9), rep stosw)
	stands(VA(9) - 1, 0, 5000 - 4095)
	expect([FRAME(8) + 0xff8], 0x2010201020102)
	clear_frames 4, 9
	down
	from(VA(7) + 4, 0, 5000)
	faults_at(ABSENT_WRITE, (VA(6) - 4), rep stosq)
	up
	stands(VA(6) - 4, 0, 5000 - 513)
	expect([FRAME(6)], 0x0403020100000000)
	/* the same read */
	map	20, 20
	map	21, 21
	map	22, 22
	from(VA(20), VA(7) + 6, 5000)
	faults_at(ABSENT_READ, VA(9), rep movsq)
	stands(VA(20) + 8 * 1023, VA(9) - 2, 5000 - 1023)
	from(VA(20), VA(7) + 3, 5000)
	faults_at(ABSENT_READ, VA(9), rep movsd)
	stands(VA(20) + 4 * 2047, VA(9) - 1, 5000 - 2047)
	ret

/* Unequally far from the page that is missing; the source is read first. */
both_sides:
	only	2, 4
	map	20, 20
	map	21, 21
	map	22, 22
	mov	rdi, FRAME(2)
	xor	ecx, ecx
1:	mov	[rdi + rcx * 8], rcx
	inc	ecx
	cmp	ecx, 3 * 512
	jne	1b
	from(VA(20) + 0x100, VA(2), 10000)
	faults_at(ABSENT_WRITE, VA(23), rep movsq)
	stands(VA(23), VA(5) - 0x100, 10000 - 1536 + 32)
	expect([FRAME(22) + 0xff8], 1535 - 32)
	from(VA(20), VA(2) + 0x100, 10000)
	faults_at(ABSENT_READ, VA(5), rep movsq)
	stands(VA(23) - 0x100, VA(5), 10000 - 1536 + 32)
	expect([FRAME(22) + 0xef8], 1535)
	expect([FRAME(22) + 0xf00], 1535 - 63)
	from(VA(20), VA(2), 10000)
	faults_at(ABSENT_READ, VA(5), rep movsq)
	stands(VA(23), VA(5), 10000 - 1536)
	from(VA(23), VA(4) + 0xff8, 2)
	faults_at(ABSENT_WRITE, VA(23), rep movsq)
	stands(VA(23), VA(4) + 0xff8, 2)
	ret

/* In the middle a page that may only be read, or not at all. */
protected:
	only	2, 6
	clear_frames 2, 6
	map	20, 20
	map	21, 21
	map	22, 22
	map	4, 4, (PTE_P|PTE_U)
	from(VA(2), 7, 10000)
	faults_at(PROTECTED, VA(4), rep stosq)
	stands(VA(4), 7, 10000 - 1024)
	from(VA(3) + 4, 7, 10000)
	faults_at(PROTECTED, VA(4), rep stosq)
	stands(VA(4) - 4, 7, 10000 - 511)
	expect([FRAME(4)], 0)
	from(VA(3), VA(20), 10000)
	faults_at(PROTECTED, VA(4), rep movsq)
	stands(VA(4), VA(21), 10000 - 512)
	mov	qword ptr [FRAME(4) + 0x10], 0x44
	from(VA(20), VA(3), 3 * 512)
	user_ok(rep movsq)
	stands(VA(23), VA(6), 0)
	expect([FRAME(21) + 0x10], 0x44)
	down
	from(VA(6) + 0xff8, 7, 10000)
	faults_at(PROTECTED, (VA(4) + 0xff8), rep stosq)
	up
	stands(VA(4) + 0xff8, 7, 10000 - 1024)
	expect([FRAME(4) + 0xff8], 0)
	expect([FRAME(5)], rax)
	/* the kernel's */
	map	4, 4, (PTE_P|PTE_W)
	invlpg	[VA(4)]
	from(VA(2), 7, 10000)
	faults_at(PROTECTED, VA(4), rep stosq)
	stands(VA(4), 7, 10000 - 1024)
	from(VA(20), VA(3), 10000)
	faults_at((PF_P|PF_U), VA(4), rep movsq)
	stands(VA(21), VA(4), 10000 - 512)
	/* allowed now: nothing has to be flushed */
	map	4, 4
	from(VA(3), 7, 3 * 512)
	user_ok(rep stosq)
	stands(VA(6), 7, 0)
	expect([FRAME(4) + 0x10], rax)
	ret

/* A count of 0 touches nothing, wherever that is. */
nothing_to_do:
	from(0x800000000000, 0x4000000000000000, 0)
	user_ok(rep stosb; rep stosq; rep movsb; rep movsd; rep movsq)
	stands(0x800000000000, 0x4000000000000000, 0)
	from(VA(100), -8, 0)
	user_ok(rep stosw; rep movsw)
	stands(VA(100), -8, 0)
	down
	from(0xffff7fffffffffff, VA(100), 0)
	user_ok(rep stosq; rep movsq)
	up
	stands(0xffff7fffffffffff, VA(100), 0)
	mov	rcx, 0x100000000
	user_ok(rep stos byte ptr [edi], al)
	mov	rcx, 0x100000000
	user_ok(rep movs dword ptr [edi], dword ptr [esi])
	ret

/* From one window of 4 GiB into the next. */
four_gib:
	only	508, 511
	map	0, 0
	map	1, 1
	from(WINDOW2 - 0x3000, 7, 10000)
	faults_at(ABSENT_WRITE, (WINDOW2 + 0x2000), rep stosq)
	stands(WINDOW2 + 0x2000, 7, 10000 - 5 * 512)
	expect([FRAME(511) + 0xff8], rax)
	expect([FRAME(0)], rax)
	expect([FRAME(1) + 0xff8], rax)
	clear_frames 0, 1
	clear_frames 508, 511
	from(WINDOW2 - 12, 7, 3)
	user_ok(rep stosq)
	stands(WINDOW2 + 12, 7, 0)
	expect([FRAME(511) + 0xff8], 0x0403020108070605)
	expect([FRAME(0)], 0x0403020108070605)
	down
	from(WINDOW2 + 0x1ff8, 7, 10000)
	faults_at(ABSENT_WRITE, (WINDOW2 - 0x4008), rep stosq)
	up
	stands(WINDOW2 - 0x4008, 7, 10000 - 6 * 512)
	expect([FRAME(508)], rax)
	map	20, 20
	map	21, 21
	map	22, 22
	map	23, 23
	mov	qword ptr [FRAME(511) + 0xff8], 0x11
	mov	qword ptr [FRAME(0)], 0x22
	from(VA(20), WINDOW2 - 0x2000, 10000)
	faults_at(ABSENT_READ, (WINDOW2 + 0x2000), rep movsq)
	stands(VA(24), WINDOW2 + 0x2000, 10000 - 4 * 512)
	expect([FRAME(21) + 0xff8], 0x11)
	expect([FRAME(22)], 0x22)
	clear_frames 0, 1
	clear_frames 508, 511
	from(WINDOW2 - 0x1000, VA(21), 10000)
	faults_at(ABSENT_READ, VA(24), rep movsq)
	stands(WINDOW2 + 0x2000, VA(24), 10000 - 3 * 512)
	expect([FRAME(511) + 0xff8], 0x11)
	expect([FRAME(0)], 0x22)
	ret

/* ECX, ESI and EDI; upper halves are cleared when they are written. */
short_addresses:
	only	2, 4
	clear_frames 2, 4
	map	20, 20
	map	21, 21
	map	22, 22
	from(VA(2) + 0x50000000000, 7, 10000 + 0x700000000)
	faults_at(ABSENT_WRITE, VA(5), rep stos qword ptr [edi], rax)
	stands(VA(5), 7, 10000 - 3 * 512)
	expect([FRAME(4) + 0xff8], rax)
	from(VA(20) + 0x50000000000, VA(3) + 0x600000000, 10000 + 0x700000000)
	faults_at(ABSENT_READ, VA(5), rep movs dword ptr [edi], dword ptr [esi])
	stands(VA(22), VA(5), 10000 - 2048)
	down
	from(VA(22) + 0x50000000ffe, VA(4) + 0x600000ffe, 10000 + 0x700000000)
	faults_at(ABSENT_READ, (VA(1) + 0xffe), rep movs word ptr [edi], word ptr [esi])
	up
	stands(VA(19) + 0xffe, VA(1) + 0xffe, 10000 - 3 * 2048)
	ret

/* In the middle a page behind which there is no memory. */
no_memory:
	only	2, 6
	clear_frames 2, 6
	clear_frames 20, 22
	map	20, 20
	map	21, 21
	map	22, 22
	mov	ecx, HOLE + URW
	mov	[PTE(4)], rcx
	from(VA(3), 7, 3 * 512)
	user_ok(rep stosq)
	stands(VA(6), 7, 0)
	expect([FRAME(3) + 0xff8], rax)
	expect([FRAME(4)], 0)
	expect([FRAME(5)], rax)
	from(VA(3), 7, 10000)
	faults_at(ABSENT_WRITE, VA(7), rep stosd)
	stands(VA(7), 7, 10000 - 4096)
	user_ok(mov r8, [VA(4)])
	mov	qword ptr [FRAME(5)], 0x55
	from(VA(20), VA(3), 3 * 512)
	user_ok(rep movsq)
	stands(VA(23), VA(6), 0)
	expect([FRAME(21)], r8)
	expect([FRAME(21) + 0xff8], r8)
	expect([FRAME(22)], 0x55)
	mov	qword ptr [FRAME(22)], 0x66
	down
	from(VA(5) + 0xff8, VA(22) + 0xff8, 10000)
	faults_at(ABSENT_READ, (VA(19) + 0xff8), rep movsq)
	up
	stands(VA(2) + 0xff8, VA(19) + 0xff8, 10000 - 3 * 512)
	expect([FRAME(5)], 0x66)
	ret

/* In the middle a page whose code has run. @code returns its number in EAX. */
#define code(n) (0x9090c300000000b8 + ((n) << 8)) /* mov eax, n; ret; nop; nop */
over_code:
	only	5, 7
	map	20, 20
	map	21, 21
	map	22, 22
	mov	rbx, VA(6)
	mov	rax, code(0x77)
	mov	[FRAME(6)], rax
	user_ok(call rbx)
	expect(rax, 0x77)
	mov	rax, code(0x66)
	from(VA(5), 7, 3 * 512)
	user_ok(rep stosq)
	stands(VA(8), 7, 0)
	user_ok(call rbx)
	expect(rax, 0x66)
	mov	rax, code(0x55)
	from(VA(5), 7, 10000)
	faults_at(ABSENT_WRITE, VA(8), rep stosq)
	stands(VA(8), 7, 10000 - 3 * 512)
	user_ok(call rbx)
	expect(rax, 0x55)
	mov	rax, code(0x44)
	from(VA(20), 7, 3 * 512)
	user_ok(rep stosq)
	down
	from(VA(7) + 0xff8, VA(22) + 0xff8, 10000)
	faults_at(ABSENT_READ, (VA(19) + 0xff8), rep movsq)
	up
	stands(VA(4) + 0xff8, VA(19) + 0xff8, 10000 - 3 * 512)
	user_ok(call rbx)
	expect(rax, 0x44)
	mov	rax, PATTERN
	ret

/* The destination one element ahead of the source: a fill, up to the page that is missing. */
overlapping:
	only	2, 4
	clear_frames 2, 4
	mov	[FRAME(2)], rax
	from(VA(2) + 8, VA(2), 10000)
	faults_at(ABSENT_WRITE, VA(5), rep movsq)
	stands(VA(5), VA(5) - 8, 10000 - 1535)
	expect([FRAME(4) + 0xff8], rax)
	clear_frames 2, 4
	mov	byte ptr [FRAME(2)], 0x5a
	from(VA(2) + 1, VA(2), 20000)
	faults_at(ABSENT_WRITE, VA(5), rep movsb)
	stands(VA(5), VA(5) - 1, 20000 - 3 * 4096 + 1)
	expect([FRAME(4) + 0xff8], 0x5a5a5a5a5a5a5a5a)
	/* behind it: what was there goes down by one */
	mov	qword ptr [FRAME(4)], 0x1111
	from(VA(2), VA(2) + 8, 10000)
	faults_at(ABSENT_READ, VA(5), rep movsq)
	stands(VA(5) - 8, VA(5), 10000 - 1535)
	expect([FRAME(3) + 0xff8], 0x1111)
	ret

	define_pager

/* @quads quadwords at @a and @b are the same. */
.macro expect_same a, b, quads, line
	cld
	mov	rsi, \a
	mov	rdi, \b
	mov	ecx, \quads
	repe cmpsq
	setnz	cl
	movzx	ecx, cl
	check_equal rcx, 0, \line
.endm

/* Pages that come as they are needed. */
paged:
	set_gate PF, pager
	mov	rdi, FRAME(128)
	xor	ecx, ecx
1:	mov	[rdi + rcx * 8], rcx
	inc	ecx
	cmp	ecx, 32 * 512
	jne	1b
	all_absent
	from(VA(64), VA(128), 32 * 512)
	user_ok(rep movsq)
	stands(VA(96), VA(160), 0)
	expect([paged_in], 64)
	expect_same (FRAME(64)), (FRAME(128)), (32*512), __LINE__
	all_absent
	from(VA(192) + 3, VA(64) + 5, 31 * 4096)
	user_ok(rep movsb)
	stands(VA(223) + 3, VA(95) + 5, 0)
	expect([paged_in], 64)
	expect_same (FRAME(192)+3), (FRAME(64)+5), (31*512), __LINE__
	all_absent
	down
	from(VA(95) + 0xff8, VA(223) + 0xff8, 32 * 512)
	user_ok(rep movsq)
	up
	stands(VA(63) + 0xff8, VA(191) + 0xff8, 0)
	expect([paged_in], 64)
	expect_same (FRAME(64)), (FRAME(192)), (32*512), __LINE__
	all_absent
	mov	rax, PATTERN
	from(VA(64) + 4, 7, 64 * 512)
	user_ok(rep stosq)
	stands(VA(128) + 4, 7, 0)
	expect([paged_in], 65)
	expect([FRAME(100)], 0x0403020108070605)
	reset_gate PF
	mov	rax, PATTERN
	ret

/* Accessed and dirty, as far as it came and as it was used. */
marks:
	only	2, 8
	mov	qword ptr [PTE(5)], 0
	from(VA(2) + 8, 7, 10000)
	faults_at(ABSENT_WRITE, VA(5), rep stosq)
	stands(VA(5), 7, 10000 - 1535)
	expect([PTE(2)], FRAME(2) + URW + PTE_A + PTE_D)
	expect([PTE(4)], FRAME(4) + URW + PTE_A + PTE_D)
	test	qword ptr [PTE(6)], PTE_D
	setnz	cl
	movzx	ecx, cl
	expect(rcx, 0)
	from(VA(7), VA(6), 512)
	user_ok(rep movsq)
	expect([PTE(6)], FRAME(6) + URW + PTE_A)
	expect([PTE(7)], FRAME(7) + URW + PTE_A + PTE_D)
	ret
