/*
 * Programs of 64-bit mode that meet pages which are not there, or not for them: exact page faults, whatever the
 * instruction (SDM vol. 3A 4.7), and loops over pages that come as they are needed.
 */
#include "shadow.h"
GUEST(shadow)

#define CR4_OSXSAVE 0x40000

guest_main:
	begin
	call	vectors_on
	call	faults
	call	vector_faults
	call	stack_faults
	call	protection
	call	nowhere
	call	strings_nowhere
	call	crossing
	call	paged_loops
	call	late_window
	call	many_windows
	ret

vectors_on:
	cpuid_bit 1, 0, ecx, 28			/* AVX */
	jz	1f
	mov	rax, cr4
	or	rax, CR4_OSXSAVE
	mov	cr4, rax
	xor	ecx, ecx
	xor	edx, edx
	mov	eax, 7
	xsetbv
	mov	byte ptr [has_avx], 1
1:	ret

/* ---- pages that are not there ---- */

faults:
	map	4, 4
	mov	rbx, VA(5)
	mov	r15, VA(5) - 0x40
	mov	rsi, 0x40
	mov	qword ptr [FRAME(5)], 0x1234567
	xor	eax, eax
	needs_page(ABSENT_READ, VA(5), mov rax, [rbx])
	expect(rax, 0x1234567)
	needs_page(ABSENT_READ, VA(5) + 3, movzx eax, byte ptr [rbx + 3])
	expect(rax, 1)
	needs_page(ABSENT_READ, VA(5), mov r14, [r15 + rsi])
	expect(r14, 0x1234567)
	needs_page(ABSENT_READ, VA(5), mov r15, [r15 + rsi])
	expect(r15, 0x1234567)
	mov	r15, VA(5) - 0x40
	needs_page(ABSENT_WRITE, VA(5) + 8, mov [rbx + 8], r15)
	mov	rax, VA(5) - 0x40
	expect([FRAME(5) + 8], rax)
	needs_page(ABSENT_WRITE, VA(5) + 16, mov [r15 + rsi + 16], r14)
	expect([FRAME(5) + 16], 0x1234567)
	needs_page(ABSENT_WRITE, VA(5) + 24, mov qword ptr [rbx + 24], 0x55)
	expect([FRAME(5) + 24], 0x55)
	/* an absolute address, and one from RIP on */
	needs_page(ABSENT_READ, VA(5), mov eax, [VA(5)])
	expect(rax, 0x1234567)
	/* reads and writes at once count as writes; flags and registers are as before */
	mov	qword ptr [FRAME(5) + 32], 7
	mov	qword ptr [user_flags], F_CF | F_ZF | 2
	needs_page(ABSENT_WRITE, VA(5) + 32, adc qword ptr [rbx + 32], 1)
	expect([FRAME(5) + 32], 9)
	mov	qword ptr [FRAME(5) + 32], 7
	unmap	5
	expect_user_fault(PF, ABSENT_WRITE, adc [rbx + 32], r15)
	mov	rax, [fault_flags]
	and	eax, F_ARITH
	expect(rax, F_CF | F_ZF)
	mov	qword ptr [user_flags], 2
	mov	rax, 11
	needs_page(ABSENT_WRITE, VA(5) + 32, xchg [rbx + 32], rax)
	expect(rax, 7)
	expect([FRAME(5) + 32], 11)
	mov	eax, 11
	mov	ecx, 12
	needs_page(ABSENT_WRITE, VA(5) + 32, lock cmpxchg [rbx + 32], rcx)
	expect([FRAME(5) + 32], 12)
	mov	eax, 3
	needs_page(ABSENT_WRITE, VA(5) + 32, lock xadd [rbx + 32], rax)
	expect(rax, 12)
	expect([FRAME(5) + 32], 15)
	mov	ecx, 63
	needs_page(ABSENT_WRITE, VA(5) + 40, bts qword ptr [rbx + 40], 3)
	needs_page(ABSENT_WRITE, VA(5) + 40, bts [rbx + 40], rcx)
	mov	rax, 0x8000000000000008
	expect([FRAME(5) + 40], rax)
	needs_page(ABSENT_READ, VA(5) + 40, bt qword ptr [rbx + 40], 3)
	/* registers that have no REX: AH to BH */
	mov	eax, 0x4400
	mov	ecx, 0x3300
	needs_page(ABSENT_WRITE, VA(5) + 48, mov [rbx + 48], ah)
	needs_page(ABSENT_WRITE, VA(5) + 48, add [rbx + 48], ch)
	expect([FRAME(5) + 48], 0x77)
	needs_page(ABSENT_READ, VA(5) + 48, mov ah, [rbx + 48])
	expect(rax, 0x7700)
	/* 16 bytes */
	mov	qword ptr [FRAME(5) + 64], 1
	mov	qword ptr [FRAME(5) + 72], 2
	mov	rbp, rbx
	mov	eax, 1
	mov	edx, 2
	mov	ebx, 3
	mov	ecx, 4
	needs_page(ABSENT_WRITE, VA(5) + 64, lock cmpxchg16b [rbp + 64])
	expect([FRAME(5) + 64], 3)
	expect([FRAME(5) + 72], 4)
	expect_user_fault(GP, 0, cmpxchg16b [rbp + 72])
	mov	rbx, rbp
	/* FS, GS and 32-bit addresses */
	write_msr MSR_FS_BASE, VA(4)
	needs_page(ABSENT_READ, VA(5) + 64, mov rax, fs:[0x1040])
	expect(rax, 3)
	mov	rsi, -0x1000
	write_msr MSR_GS_BASE, VA(6)
	needs_page(ABSENT_WRITE, VA(5) + 64, inc qword ptr gs:[rsi + 0x40])
	expect([FRAME(5) + 64], 4)
	mov	rsi, 0xf00000000 + VA(5)
	needs_page(ABSENT_READ, VA(5) + 64, mov rax, [esi + 0x40])
	expect(rax, 4)
	mov	esi, 0xfffff000
	needs_page(ABSENT_READ, VA(5) + 64, mov rax, [esi + TEST_VA + 0x6040])
	expect(rax, 4)
	/* string instructions, one turn and many */
	mov	rdi, rbx
	mov	rsi, VA(4)
	needs_page(ABSENT_WRITE, VA(5), movsq)
	lea	rdi, [rbx - 16]
	mov	ecx, 4
	unmap	5
	mov	eax, 0x99
	expect_user_fault(PF, ABSENT_WRITE, rep stosq)
	expect([fault_cr2], VA(5))
	expect(rcx, 2)
	expect(rdi, VA(5))
	map	5, 5
	user_ok(rep stosq)
	expect([FRAME(5) + 8], 0x99)
	/* branches through memory */
	mov	qword ptr [FRAME(5)], offset came
	needs_page(ABSENT_READ, VA(5), jmp [rbx])
	expect(rax, 0x77)
	xor	eax, eax
	needs_page(ABSENT_READ, VA(5), call [rbx])
	expect(rax, 0x77)
	ret

	.pushsection .user, "awx"
came:	mov	eax, 0x77
	int3
	.popsection

vector_faults:
	map	4, 4
	mov	rbx, VA(5)
	mov	r15, VA(5)
	mov	qword ptr [FRAME(5)], 0x77
	mov	qword ptr [FRAME(5) + 8], 0x88
	needs_page(ABSENT_READ, VA(5), movaps xmm0, [rbx])
	user_ok(movhlps xmm1, xmm0; movq rax, xmm1)
	expect(rax, 0x88)
	needs_page(ABSENT_WRITE, VA(5) + 16, movaps [r15 + 16], xmm0)
	expect([FRAME(5) + 24], 0x88)
	needs_page(ABSENT_WRITE, VA(5) + 33, movups [rbx + 33], xmm0)
	/* misaligned: before the page fault, page or no page */
	unmap	5
	expect_user_fault(GP, 0, movaps xmm0, [rbx + 8])
	expect_user_fault(GP, 0, movaps [r15 + 1], xmm0)
	map	5, 5
	expect_user_fault(GP, 0, paddq xmm0, [rbx + 8])
	expect_user_fault(GP, 0, movntps [rbx + 8], xmm0)
	needs_page(ABSENT_READ, VA(5), fild qword ptr [rbx])
	needs_page(ABSENT_WRITE, VA(5) + 64, fistp qword ptr [rbx + 64])
	expect([FRAME(5) + 64], 0x77)
	cmp	byte ptr [has_avx], 0
	je	1f
	needs_page(ABSENT_READ, VA(5), vmovdqu ymm2, [rbx])
	needs_page(ABSENT_WRITE, VA(5) + 128, vmovdqa [r15 + 128], ymm2)
	expect([FRAME(5) + 136], 0x88)
	expect_user_fault(GP, 0, vmovdqa ymm2, [rbx + 16])
	/* what the mask leaves out does not fault */
	mov	rsi, VA(4) + 0xff0
	user_ok(vpcmpeqd xmm3, xmm3, xmm3)	/* ymm3: the lower half */
	unmap	5
	user_ok(vmaskmovps ymm4, ymm3, [rsi])
	user_ok(vmaskmovps [rsi], ymm3, ymm4)
	user_ok(vinsertf128 ymm3, ymm3, xmm3, 1)
	faults_at(ABSENT_READ, VA(5), vmaskmovps ymm4, ymm3, [rsi])
	map	5, 5
1:	ret

/* By RSP and RBP, and with two memory operands. */
stack_faults:
	map	4, 4
	map	6, 6
	unmap	5
	mov	rbx, VA(6)
	mov	r9, 0x1111
	user(mov rsp, rbx; 5: push r9)
	call	6f
	user(mov rsp, rbx; 5: push 0x22)
	call	6f
	user(mov rsp, rbx; 5: call came)
	call	6f
	user(mov rsp, rbx; 5: push [rip])
	call	6f
	user(mov rsp, rbx; 5: call rbx)
	call	6f
	user(mov rsp, rbx; 5: mov [rsp - 8], r9)
	call	6f
	map	5, 5
	user_ok(mov rsp, rbx; push r9; push 0x22; pop r10; pop r11)
	expect(r10, 0x22)
	expect(r11, 0x1111)
	expect([FRAME(5) + 0xff8], 0x1111)
	unmap	5
	mov	rbx, VA(5)
	mov	rbp, VA(5)
	user(mov rsp, rbx; 5: pop r9)
	call	4f
	user(mov rsp, rbx; 5: ret)
	call	4f
	user(mov rsp, rbx; 5: pop [VA(4)])
	call	4f
	user(mov rsp, rbx; 5: mov r9, [rsp])
	call	4f
	expect(r9, 0x1111)
	needs_page(ABSENT_READ, VA(5), mov rax, [rbp])
	needs_page(ABSENT_READ, VA(5), leave)
	/* POP to memory: read, but not popped, when the target faults */
	unmap	5
	user(push 0x66; 5: pop [rbx])
	expect([fault_vector], PF)
	expect([fault_error], ABSENT_WRITE)
	expect([fault_cr2], VA(5))
	mov	rax, offset 5b
	expect([fault_ip], rax)
	mov	rax, offset user_stack_top - 8
	expect([fault_old_sp], rax)
	map	5, 5
	user_ok(push 0x66; pop [rbx])
	expect([FRAME(5)], 0x66)
	unmap	5
	faults_at(ABSENT_READ, VA(5), push [rbx])
	faults_at(ABSENT_READ, VA(5), call [rbx])
	map	5, 5
	ret

	/* The instruction at 5b has not pushed, or popped. */
6:	expect([fault_cr2], VA(5) + 0xff8)
	expect([fault_error], ABSENT_WRITE)
	expect([fault_vector], PF)
	expect([fault_old_sp], rbx)
	ret
4:	expect([fault_cr2], VA(5))
	expect([fault_error], ABSENT_READ)
	expect([fault_vector], PF)
	expect([fault_old_sp], rbx)
	ret

/* ---- pages that are not for that ---- */

protection:
	mov	rbx, VA(5)
	map	5, 5, (PTE_P|PTE_U)
	mov	qword ptr [FRAME(5)], 0x31
	invlpg	[VA(5)]
	user_ok(mov rax, [rbx])
	expect(rax, 0x31)
	faults_at((PF_P|PF_W|PF_U), VA(5), mov [rbx], rax)
	faults_at((PF_P|PF_W|PF_U), VA(5), add qword ptr [rbx], 1)
	faults_at((PF_P|PF_W|PF_U), VA(5) + 0xff9, mov [rbx + 0xff9], al)
	expect([FRAME(5)], 0x31)
	/* allowed now: nothing has to be flushed */
	map	5, 5
	user_ok(add qword ptr [rbx], 1)
	expect([FRAME(5)], 0x32)
	/* and taken away again */
	map	5, 5, (PTE_P|PTE_U|PTE_A|PTE_D)
	invlpg	[VA(5)]
	faults_at((PF_P|PF_W|PF_U), VA(5), mov [rbx], rax)
	user_ok(mov rax, [rbx])
	expect(rax, 0x32)
	/* the kernel's alone, which goes on using it */
	map	5, 5, (PTE_P|PTE_W|PTE_A|PTE_D)
	invlpg	[VA(5)]
	inc	qword ptr [VA(5)]
	faults_at((PF_P|PF_U), VA(5), mov rax, [rbx])
	faults_at((PF_P|PF_W|PF_U), VA(5), mov [rbx], rax)
	mov	rcx, offset checks
	faults_at((PF_P|PF_U), offset checks, mov rax, [rcx])
	faults_at((PF_P|PF_U), offset checks, mov rax, [checks])
	/* reserved bits */
	mov	rax, FRAME(5) + URW
	bts	rax, 51
	mov	[PTE(5)], rax
	invlpg	[VA(5)]
	faults_at((PF_P|PF_U|PF_RSVD), VA(5), mov rax, [rbx])
	map	5, 5
	invlpg	[VA(5)]
	user_ok(mov rax, [rbx])
	expect(rax, 0x33)
	/* an upper level */
	and	qword ptr [test_pd], ~PTE_W
	invlpg	[VA(5)]
	faults_at((PF_P|PF_W|PF_U), VA(5), mov [rbx], rax)
	and	qword ptr [test_pd], ~PTE_U
	invlpg	[VA(5)]
	faults_at((PF_P|PF_U), VA(5), mov rax, [rbx])
	or	qword ptr [test_pd], URW
	invlpg	[VA(5)]
	user_ok(mov [rbx], rax)
	ret

/* Addresses that no program has. */
nowhere:
	mov	rbx, 0x800000000000
	expect_user_fault(GP, 0, mov rax, [rbx])
	expect_user_fault(GP, 0, mov [rbx], rax)
	expect_user_fault(GP, 0, mov rax, [rbx + 0x7fffffff])
	expect_user_fault(GP, 0, movups xmm0, [rbx - 1])
	mov	rbp, rbx
	mov	r13, rbx
	expect_user_fault(SS_VECTOR, 0, mov rax, [rbp])
	expect_user_fault(SS_VECTOR, 0, mov [rbp + 16], rax)
	expect_user_fault(GP, 0, mov rax, [r13])
	mov	rbx, 0x800000000010
	user(mov rsp, rbx; 5: push rax)
	expect([fault_vector], SS_VECTOR)
	mov	rax, offset 5b
	expect([fault_ip], rax)
	expect([fault_old_sp], rbx)
	user(mov rsp, rbx; pop rax)
	expect([fault_vector], SS_VECTOR)
	user(mov rsp, rbx; mov rax, [rsp + 8])
	expect([fault_vector], SS_VECTOR)
	mov	rbx, 0xffff7fffffffffff
	expect_user_fault(GP, 0, mov al, [rbx])
	expect_user_fault(GP, 0, mov [rbx], al)
	mov	rbx, 0x4000000000000000
	expect_user_fault(GP, 0, mov al, [rbx])
	mov	rbx, 0x4000000000000000 + VA(5)
	expect_user_fault(GP, 0, mov al, [rbx])
	mov	rbx, 0xc000000000000000 + VA(5)
	expect_user_fault(GP, 0, mov [rbx], al)
	write_msr MSR_FS_BASE, 0x7fffffffffff
	expect_user_fault(GP, 0, mov eax, fs:[1])
	mov	rbx, 0xffff800000000000
	faults_at(ABSENT_READ, 0xffff800000000000, mov rax, [rbx])
	faults_at(ABSENT_WRITE, 0xffff800000000000, mov [rbx], rax)
	mov	rbx, -8
	faults_at(ABSENT_READ, 0xfffffffffffffff8, mov rax, [rbx])
	faults_at(ABSENT_READ, 0xfffffffffffffffc, mov rax, [rbx + 4])
	/* the base is far away, the address is not; and the other way round */
	map	5, 5
	mov	qword ptr [FRAME(5)], 0x32
	mov	rbx, VA(5) - 0xffffffff80000000
	user_ok(mov rax, [rbx - 0x80000000])
	expect(rax, 0x32)
	mov	rbx, -0x10000
	mov	rcx, VA(5) + 0x10000
	user_ok(add qword ptr [rbx + rcx], 1)
	expect([FRAME(5)], 0x33)
	mov	rbx, -0x8000
	user_ok(add rbx, 0x8000; mov al, [user_stack_top - 1]; mov rcx, rbx)
	expect(rcx, 0)
	ret

/* The same for strings, at once and on the way. */
strings_nowhere:
	map	2, 2
	from(0x800000000000, 7, 5)
	expect_user_fault(GP, 0, rep stosq)
	stands(0x800000000000, 7, 5)
	from(VA(2), 0x800000000000, 5)
	expect_user_fault(GP, 0, rep movsb)
	stands(VA(2), 0x800000000000, 5)
	from(0xffff800000000000, 7, 5)
	faults_at(ABSENT_WRITE, 0xffff800000000000, rep stosd)
	stands(0xffff800000000000, 7, 5)
	map	511, 20
	invlpg	[VA(511)]
	from(TOP + 0x1ff000, 7, 10000)
	expect_user_fault(GP, 0, rep stosq)
	stands(0x800000000000, 7, 10000 - 512)
	expect([FRAME(20) + 0xff8], rax)
	from(TOP + 0x1ff004, 7, 10000)
	expect_user_fault(GP, 0, rep stosq)
	stands(0x7ffffffffffc, 7, 10000 - 511)
	from(VA(2), TOP + 0x1ff000, 10000)
	expect_user_fault(GP, 0, rep movsb)
	stands(VA(3), 0x800000000000, 10000 - 4096)
	ret

/* Across the end of a page, of 4 GiB, of all there is. */
crossing:
	mov	rbx, VA(4) + 0xffc
	map	4, 4
	mov	dword ptr [FRAME(4) + 0xff8], 0
	mov	dword ptr [FRAME(4) + 0xffc], 0x11111111
	mov	dword ptr [FRAME(5)], 0x22222222
	needs_page(ABSENT_READ, VA(5), mov rax, [rbx])
	mov	rcx, 0x2222222211111111
	expect(rax, rcx)
	needs_page(ABSENT_WRITE, VA(5), add qword ptr [rbx], 1)
	expect([FRAME(4) + 0xffc], 0x2222222211111112)
	unmap	5
	faults_at(ABSENT_WRITE, VA(5), mov [rbx], rcx)
	expect([FRAME(4) + 0xff8], 0x1111111200000000)
	mov	rbx, VA(5) + 0xffc
	map	6, 6
	needs_page(ABSENT_READ, VA(5) + 0xffc, mov rax, [rbx])
	unmap	6
	map	5, 5, (PTE_P|PTE_U)
	faults_at((PF_P|PF_W|PF_U), VA(5) + 0xffc, mov [rbx], eax)
	/* 4 GiB */
	map	511, 20
	map	0, 21
	mov	rbx, WINDOW2
	mov	rcx, WINDOW2 - 4
	mov	dword ptr [FRAME(20) + 0xffc], 0x33333333
	mov	dword ptr [FRAME(21)], 0x44444444
	user_ok(mov rax, [rbx - 4])
	mov	rdx, 0x4444444433333333
	expect(rax, rdx)
	user_ok(mov rax, [rcx])
	expect(rax, rdx)
	user_ok(mov eax, [rbx - 4]; mov edx, [rcx + 4])
	expect(rax, 0x33333333)
	expect(rdx, 0x44444444)
	user_ok(add qword ptr [rcx], 1; mov [rbx + 8], ecx; mov [rcx - 8], ebx)
	expect([FRAME(21) + 8], 0xfffffffc)
	unmap	0
	invlpg	[rbx]
	faults_at(ABSENT_READ, WINDOW2, mov rax, [rcx])
	faults_at(ABSENT_READ, WINDOW2, mov eax, [rcx + 4])
	map	0, 21
	unmap	511
	invlpg	[rcx]
	faults_at(ABSENT_READ, (WINDOW2 - 4), mov eax, [rbx - 4])
	/* the last page of programs: behind it no address is canonical */
	map	511, 20
	mov	rbx, TOP + 0x1ff000
	user_ok(mov rax, [rbx + 0xff8])
	expect_user_fault(GP, 0, mov rax, [rbx + 0xff9])
	expect_user_fault(GP, 0, mov [rbx + 0xffc], rax)
	expect_user_fault(GP, 0, movups xmm0, [rbx + 0xff1])
	user_ok(inc byte ptr [rbx + 0xfff])
	expect([FRAME(20) + 0xff8], 0x3433333400000000)
	/* the first page of all, and below it */
	mov	rbx, 4
	faults_at((PF_P|PF_U), 4, mov eax, [rbx])
	faults_at(ABSENT_READ, 0xfffffffffffffffc, mov rax, [rbx - 8])
	ret

/* ---- loops over pages that come as they are needed ---- */

	define_pager

/* Each quadword from @index's first on is its number plus @plus. */
.macro expect_counted index, quads, plus, line
	mov	rsi, FRAME(\index)
	mov	ecx, \quads
	xor	edx, edx
8:	mov	rax, rdx
	add	rax, \plus
	cmp	rax, [rsi]
	jne	9f
	add	rsi, 8
	inc	edx
	loop	8b
9:	check_equal rcx, 0, \line
.endm

paged_loops:
	set_gate PF, pager
	/* upwards */
	all_absent
	mov	rbx, VA(64)
	xor	ecx, ecx
	user_ok(5: mov [rbx + rcx * 8], rcx; inc rcx; cmp rcx, 8 * 512; jne 5b)
	expect([paged_in], 8)
	expect_counted 64, (8*512), 0, __LINE__
	/* downwards, read, changed and written */
	all_absent
	mov	rbx, VA(71) + 0xff8
	mov	ecx, 8 * 512
	user_ok(5: add qword ptr [rbx], 3; sub rbx, 8; dec rcx; jnz 5b)
	expect([paged_in], 8)
	expect_counted 64, (8*512), 3, __LINE__
	mov	rax, VA(63) + 0xff8
	expect(rbx, rax)
	/* from one place to another, with unequal steps and an odd start */
	all_absent
	mov	rsi, VA(64)
	mov	rdi, VA(80) + 4
	mov	ecx, 8 * 512
	user_ok(5: mov rax, [rsi]; mov [rdi], rax; add rsi, 8; add rdi, 12; dec ecx; jnz 5b)
	expect([paged_in], 8 + 12)
	expect([FRAME(80) + 4 + 12 * 1000], 1003)
	expect([FRAME(80) + 4 + 12 * 341], 344)
	/* all in one register that lives in memory */
	all_absent
	mov	r15, VA(64)
	xor	r14d, r14d
	mov	ecx, 4 * 512
	user_ok(5: add r14, [r15]; add r15, 8; dec ecx; jnz 5b)
	expect([paged_in], 4)
	expect(r14, 2047 * 1024 + 3 * 2048)
	/* pushes over pages, and pops */
	all_absent
	mov	rbx, VA(72)
	mov	ecx, 4 * 512
	user_ok(mov rdx, rsp; mov rsp, rbx; 5: push rcx; dec ecx; jnz 5b; mov rsp, rdx)
	expect([paged_in], 4)
	all_absent
	mov	rbx, VA(68)
	xor	eax, eax
	user_ok(mov rdx, rsp; mov rsp, rbx; 5: pop rcx; add rax, rcx; cmp rsp, VA(72); jne 5b; mov rsp, rdx)
	expect([paged_in], 4)
	expect(rax, 2049 * 1024)
	/* over the end of 4 GiB */
	all_absent
	mov	rdi, FRAME(0)
	mov	ecx, 512 * 512
	rep stosq
	mov	rbx, WINDOW2 - 0x4000
	xor	ecx, ecx
	user_ok(5: mov [rbx + rcx * 8], rcx; inc rcx; cmp rcx, 8 * 512; jne 5b)
	expect([paged_in], 8)
	expect_counted 508, (4*512), 0, __LINE__
	expect_counted 0, (4*512), 2048, __LINE__
	mov	rbx, WINDOW2 + 0x3ff8
	mov	rax, cr3
	mov	cr3, rax
	mov	ecx, 8 * 512
	user_ok(5: inc qword ptr [rbx]; sub rbx, 8; dec ecx; jnz 5b)
	expect_counted 508, (4*512), 1, __LINE__
	expect_counted 0, (4*512), 2049, __LINE__
	/* a step that does not divide pages */
	mov	rbx, WINDOW2 - 0x4000
	mov	ecx, 100
	xor	eax, eax
	user_ok(5: add rax, [rbx]; add rbx, 328; dec ecx; jnz 5b)
	expect(rax, 99 * 50 * 41 + 100)
	/* two bases, apart by less and by more than 4 GiB, in one turn */
	mov	rbx, TEST_VA
	mov	rsi, WINDOW1
	mov	rdi, TOP
	mov	ecx, 512
	user_ok(5: inc qword ptr [rbx]; inc qword ptr [rsi]; inc qword ptr [rdi]; add rbx, 8; add rsi, 8; add rdi, 8; dec ecx; jnz 5b)
	expect_counted 0, (512), 2052, __LINE__
	reset_gate PF
	ret

/* 4 GiB that were never used before. */
late_window:
	map	5, 5
	mov	qword ptr [FRAME(5)], 0x41
	mov	rbx, 0x300005000
	faults_at(ABSENT_READ, 0x300005000, mov rax, [rbx])
	mov	rax, offset test_pd + URW
	mov	[pdpt + 12 * 8], rax
	user_ok(mov rax, [rbx]; inc qword ptr [rbx])
	expect(rax, 0x41)
	expect([FRAME(5)], 0x42)
	mov	qword ptr [pdpt + 12 * 8], 0
	mov	rax, cr3
	mov	cr3, rax
	faults_at(ABSENT_READ, 0x300005000, mov rax, [rbx])
	mov	rbx, 0x10000005000
	faults_at(ABSENT_WRITE, 0x10000005000, mov [rbx], rax)
	mov	rax, [pml4]
	mov	[pml4 + 16], rax
	bts	rbx, 32
	user_ok(inc qword ptr [rbx])
	expect([FRAME(5)], 0x43)
	mov	qword ptr [pml4 + 16], 0
	mov	rax, cr3
	mov	cr3, rax
	faults_at(ABSENT_WRITE, 0x10100005000, mov [rbx], rax)
	ret

/* Every half tebibyte of programs shows the first one. */
many_windows:
	mov	rax, [pml4]
	mov	rdi, offset pml4
	mov	ecx, 256
	rep stosq
	mov	qword ptr [FRAME(5)], 0
	mov	r12d, 2
1:	mov	rbx, WINDOW1 + 0x5000
	mov	rsi, VA(5)
	mov	rdx, 0x8000000000
	mov	ecx, 256
	user_ok(5: inc qword ptr [rbx]; inc dword ptr [rsi]; add rbx, rdx; add rsi, rdx; dec ecx; jnz 5b)
	mov	rbx, WINDOW2 + 0x5000
	mov	ecx, 256
	user_ok(5: add qword ptr [rbx], 2; add rbx, rdx; dec ecx; jnz 5b)
	dec	r12d
	jnz	1b
	expect([FRAME(5)], 2 * 4 * 256)
	mov	rdi, offset pml4 + 8
	mov	ecx, 254
	xor	eax, eax
	rep stosq
	mov	rax, cr3
	mov	cr3, rax
	mov	rbx, WINDOW1 + 0x8000005000
	faults_at(ABSENT_READ, (WINDOW1 + 0x8000005000), mov rax, [rbx])
	mov	rbx, WINDOW1 + 0x5000
	user_ok(mov rax, [rbx])
	expect(rax, 2 * 4 * 256)
	ret

	.bss
has_avx: .skip	8
