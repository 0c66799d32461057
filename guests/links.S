/*
 * Code of 64-bit programs in pages that the kernel, or the program, changes: jumps between pages lead where the tables
 * say once they were flushed (SDM vol. 3A 4.10), and code that was written runs (8.1.3).
 */
#include "shadow.h"
GUEST(links)

/* Frame @frame: MOV EAX, @value and INT3; or another end, one byte. Kept: all. */
.macro function frame, value, end=0xcc
	mov	byte ptr [FRAME(\frame)], 0xb8
	mov	dword ptr [FRAME(\frame) + 1], \value
	mov	byte ptr [FRAME(\frame) + 5], \end
.endm

/* Frame @frame: a jump to the next page's start. */
.macro jump_on frame
	mov	byte ptr [FRAME(\frame)], 0xe9
	mov	dword ptr [FRAME(\frame) + 1], 0xffb
.endm

/* The program at page @index ends with EAX = @value. */
.macro expect_program index, value, line
	xor	eax, eax
	arm	9f
	enter_user VA(\index)
9:	disarm
	check_equal "[fault_vector]", USER_RETURN, \line
	check_equal rax, \value, \line
.endm

/* ... faults at the start of page 21. */
.macro expect_fetch_fault error, line
	arm	9f
	enter_user VA(20)
9:	disarm
	check_equal "[fault_vector]", PF, \line
	check_equal "[fault_ip]", VA(21), \line
	check_equal "[fault_cr2]", VA(21), \line
	check_equal "[fault_error]", \error, \line
.endm

guest_main:
	begin
	call	direct_jumps
	call	calls
	call	swapped_in_a_loop
	call	forgotten_and_back
	call	self_modifying
	call	written_through_another
	call	crossing_code
	call	fault_forgets
	ret

/* A direct jump to the next page, which shows another frame, or may not be entered. */
direct_jumps:
	jump_on	40
	function 41, 0x41
	function 42, 0x42
	mov	r12d, 4
1:	map	20, 40, (PTE_P|PTE_U)
	map	21, 41, (PTE_P|PTE_U)
	mov	rax, cr3
	mov	cr3, rax
	mov	r13d, 3
2:	expect_program 20, 0x41, __LINE__
	dec	r13d
	jnz	2b
	map	21, 42, (PTE_P|PTE_U)
	invlpg	[VA(21)]
	expect_program 20, 0x42, __LINE__
	expect_program 20, 0x42, __LINE__
	map	21, 41, (PTE_P|PTE_U)
	mov	rax, cr3
	mov	cr3, rax
	expect_program 20, 0x41, __LINE__
	expect_program 20, 0x41, __LINE__
	/* not flushed: either; flushed: the new one */
	map	21, 42, (PTE_P|PTE_U)
	arm	9f
	enter_user VA(20)
9:	disarm
	and	eax, ~3
	expect(rax, 0x40)
	invlpg	[VA(21) + 0xabc]
	expect_program 20, 0x42, __LINE__
	/* nobody's to execute */
	mov	rax, PTE_NX | FRAME(42) | PTE_P | PTE_U
	mov	[PTE(21)], rax
	invlpg	[VA(21)]
	expect_fetch_fault (PF_P|PF_U|PF_I), __LINE__
	map	21, 42, PTE_P
	invlpg	[VA(21)]
	expect_fetch_fault (PF_P|PF_U|PF_I), __LINE__
	unmap	21
	expect_fetch_fault (PF_U|PF_I), __LINE__
	map	21, 42, (PTE_P|PTE_U)
	expect_program 20, 0x42, __LINE__
	expect_program 20, 0x42, __LINE__
	/* the code at the target is another, written by the kernel */
	mov	dword ptr [FRAME(42) + 1], r12d
	expect_program 20, r12, __LINE__
	mov	dword ptr [FRAME(42) + 1], 0x42
	expect_program 20, 0x42, __LINE__
	/* and where the jump comes from */
	function 43, 0x43
	map	20, 43, (PTE_P|PTE_U)
	invlpg	[VA(20)]
	expect_program 20, 0x43, __LINE__
	dec	r12d
	jnz	1b
	ret

/* CALL and RET, Jcc, both ways between two pages; SYSCALL swaps the frame of the second one. */
calls:
	mov	ecx, MSR_STAR
	xor	eax, eax
	mov	edx, (UCODE32 << 16) | KCODE64
	wrmsr
	write_msr MSR_LSTAR, "offset swap"
	write_msr MSR_SFMASK, F_IF
	function 41, 1, 0xc3
	function 42, 0x10000, 0xc3
	map	21, 41, (PTE_P|PTE_U)
	invlpg	[VA(21)]
	mov	rdi, FRAME(44)
	mov	rsi, offset caller
	mov	ecx, offset caller_end - caller
	rep movsb
	map	20, 44, (PTE_P|PTE_U)
	invlpg	[VA(20)]
	xor	r9d, r9d
	mov	r8d, 600
	arm	1f
	enter_user VA(20)
1:	disarm
	expect([fault_vector], USER_RETURN)
	expect(r9, 300 + 300 * 0x10000)
	ret

	/* at VA(20) */
caller:	.byte	0xe8			/* call VA(21) */
	.long	0x1000 - 5
	add	r9, rax
	syscall
	dec	r8d
	jnz	caller
	int3
caller_end:

swap:	xor	qword ptr [PTE(21)], FRAME(41) ^ FRAME(42)
	invlpg	[VA(21)]
	sysretq

/* The page that runs is swapped under itself: page 20 jumps to 21 and 21 back, over a SYSCALL. */
swapped_in_a_loop:
	mov	rdi, FRAME(41)
	mov	rsi, offset turn
	mov	ecx, offset turn_end - turn
	rep movsb
	mov	rdi, FRAME(42)
	mov	rsi, offset turn
	mov	ecx, offset turn_end - turn
	rep movsb
	mov	dword ptr [FRAME(42) + 3], 0x10000
	jump_on	40
	map	20, 40, (PTE_P|PTE_U)
	map	21, 41, (PTE_P|PTE_U)
	mov	rax, cr3
	mov	cr3, rax
	xor	r9d, r9d
	mov	r8d, 600
	arm	1f
	enter_user VA(20)
1:	disarm
	expect([fault_vector], USER_RETURN)
	expect(r9, 300 + 300 * 0x10000)
	ret

	/* at VA(21) */
turn:	.byte	0x49, 0x81, 0xc1	/* add r9, imm32 */
	.long	1
	syscall
	dec	r8d
	.byte	0x0f, 0x85		/* jnz VA(20) */
	.long	-0x1000 - (turn_jump - turn)
turn_jump:
	int3
turn_end:

/*
 * A block that a stale translation led to must not keep a jump to what the tables said then: in frame 45 the program
 * jumps within its page when EDX says so, in frame 46 the same leads elsewhere.
 */
forgotten_and_back:
	mov	rdi, FRAME(45)
	call	2f
	mov	rdi, FRAME(46)
	call	2f
	mov	dword ptr [FRAME(45) + 0x101], 0x45
	mov	dword ptr [FRAME(46) + 0x101], 0x46
	function 47, 0x47
	map	30, 45, (PTE_P|PTE_U)
	map	(30+256), 47, (PTE_P|PTE_U)
	mov	rax, cr3
	mov	cr3, rax
	xor	edx, edx
	expect_program 30, 0, __LINE__
	expect_program 30, 0, __LINE__
	map	30, 46, (PTE_P|PTE_U)
	expect_program (30+256), 0x47, __LINE__
	mov	edx, 1
	arm	1f
	enter_user VA(30)		/* either */
1:	disarm
	and	eax, ~3
	expect(rax, 0x44)
	map	30, 45, (PTE_P|PTE_U)
	invlpg	[VA(30)]
	expect_program 30, 0x45, __LINE__
	map	30, 46, (PTE_P|PTE_U)
	invlpg	[VA(30)]
	expect_program 30, 0x46, __LINE__
	ret

	/* test edx, edx; jnz 0x100; int3; 0x100: mov eax, ...; int3 */
2:	mov	dword ptr [rdi], 0x850fd285
	mov	dword ptr [rdi + 4], 0x100 - 8
	mov	byte ptr [rdi + 8], 0xcc
	mov	byte ptr [rdi + 0x100], 0xb8
	mov	byte ptr [rdi + 0x105], 0xcc
	ret

/* ---- code that is written ---- */

self_modifying:
	map	22, 48
	invlpg	[VA(22)]
	mov	rbx, VA(22)
	function 48, 0, 0xc3
	/* a constant, each turn */
	mov	ecx, 100
	xor	edx, edx
	user_ok(5: mov [rbx + 1], ecx; call rbx; add edx, eax; dec ecx; jnz 5b)
	expect(rdx, 5050)
	/* data beside the code: the code stays */
	mov	qword ptr [FRAME(48) + 0x800], 0
	mov	ecx, 100
	user_ok(5: call rbx; add [rbx + 0x800], rax; inc dword ptr [rbx + 0x808]; dec ecx; jnz 5b)
	expect([FRAME(48) + 0x800], 100)
	expect([FRAME(48) + 0x808], 100)
	/* the next instruction, from inside: mov [rip + 1], cl; mov al, imm8; ret */
	mov	dword ptr [FRAME(48) + 0x100], 0x00010d88
	mov	dword ptr [FRAME(48) + 0x104], 0x00b00000
	mov	byte ptr [FRAME(48) + 0x108], 0xc3
	lea	rsi, [rbx + 0x100]
	mov	ecx, 100
	xor	edx, edx
	xor	eax, eax
	user_ok(5: call rsi; add edx, eax; dec ecx; jnz 5b)
	expect(rdx, 5050)
	/* a loop in the page that counts in it: inc dword ptr [rip + 0x100]; dec ecx; jnz; ret */
	mov	rax, 0xc9ff000000fa05ff
	mov	[FRAME(48) + 0x200], rax
	mov	dword ptr [FRAME(48) + 0x208], 0xc3f675
	mov	dword ptr [FRAME(48) + 0x300], 0
	lea	rsi, [rbx + 0x200]
	mov	ecx, 300
	user_ok(call rsi)
	expect([FRAME(48) + 0x300], 300)
	/* data, code, data, code */
	mov	r12d, 10
1:	mov	ecx, 50
	user_ok(5: mov [rbx + rcx * 8 + 0x400], rcx; dec ecx; jnz 5b)
	user_ok(mov [rbx + 1], r12d; call rbx)
	expect(rax, r12)
	function 48, 0x5555, 0xc3
	user_ok(call rbx)
	expect(rax, 0x5555)
	dec	r12d
	jnz	1b
	expect([FRAME(48) + 0x400 + 50 * 8], 50)
	ret

/* The frame is at several places, all written before it got code. */
written_through_another:
	mov	rbx, VA(22)
	mov	rsi, VA(23)
	mov	rdi, WINDOW2 + 0x18000
	mov	r12d, 5
1:	map	22, 49
	map	23, 49
	map	24, 49
	mov	rax, cr3
	mov	cr3, rax
	mov	qword ptr [FRAME(49) + 8], 0
	user_ok(inc qword ptr [rbx + 8]; inc qword ptr [rsi + 8]; inc qword ptr [rdi + 8])
	expect([FRAME(49) + 8], 3)
	user_ok(mov byte ptr [rbx], 0xb8; mov dword ptr [rsi + 1], 1; mov byte ptr [rdi + 5], 0xc3; call rbx)
	expect(rax, 1)
	user_ok(mov [rdi + 1], r12d; call rbx)
	expect(rax, r12)
	user_ok(mov dword ptr [rsi + 1], 0x77; call rdi; mov edx, eax; mov dword ptr [rbx + 1], 0x78; call rsi)
	expect(rdx, 0x77)
	expect(rax, 0x78)
	mov	ecx, 100
	xor	edx, edx
	user_ok(5: mov [rsi + 1], ecx; call rbx; add edx, eax; dec dword ptr [rdi + 1]; call rbx; add edx, eax; dec ecx; jnz 5b)
	expect(rdx, 5050 + 4950)
	dec	r12d
	jnz	1b
	ret

/* An instruction in two pages, of which the second changes. */
crossing_code:
	map	26, 50
	map	27, 51
	invlpg	[VA(26)]
	invlpg	[VA(27)]
	mov	byte ptr [FRAME(50) + 0xffd], 0xb8
	mov	word ptr [FRAME(50) + 0xffe], 0x2211
	mov	dword ptr [FRAME(51)], 0xc34433
	mov	dword ptr [FRAME(52)], 0xc36655
	mov	rbx, VA(26) + 0xffd
	mov	rcx, VA(27)
	mov	r12d, 4
1:	map	27, 51
	invlpg	[VA(27)]
	user_ok(call rbx; mov edx, eax; call rbx)
	expect(rax, 0x44332211)
	expect(rdx, 0x44332211)
	map	27, 52
	invlpg	[VA(27)]
	user_ok(call rbx)
	expect(rax, 0x66552211)
	user_ok(mov byte ptr [rcx], 0x99; call rbx; mov edx, eax; mov byte ptr [rcx], 0x55; call rbx)
	expect(rdx, 0x66992211)
	expect(rax, 0x66552211)
	dec	r12d
	jnz	1b
	ret

/* A page fault makes the processor forget the page, also where nobody flushes it (SDM 3A 4.10.4.1). */
fault_forgets:
	mov	qword ptr [FRAME(53)], 0x53
	mov	qword ptr [FRAME(54)], 0x54
	mov	rbx, VA(5)
	mov	r12d, 3
1:	map	5, 53
	invlpg	[VA(5)]
	user_ok(mov rcx, [rbx])
	expect(rcx, 0x53)
	/* if this faults; it need not */
	mov	qword ptr [PTE(5)], 0
	user(mov ah, [rbx])
	cmp	qword ptr [fault_vector], PF
	jne	2f
	map	5, 54
	user_ok(mov rcx, [rbx])
	expect(rcx, 0x54)
2:	map	5, 53
	invlpg	[VA(5)]
	user_ok(mov rcx, [rbx])
	map	5, 53, (PTE_P|PTE_U)
	invlpg	[VA(5)]
	user_ok(mov rcx, [rbx])
	map	5, 54, (PTE_P|PTE_U)
	user(mov [rbx], rcx)
	expect([fault_vector], PF)
	user_ok(mov rcx, [rbx])
	expect(rcx, 0x54)
	dec	r12d
	jnz	1b
	ret
