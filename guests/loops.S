/*
 * Loops of one block that run through memory: what the soft engine checks once for all turns must fault, mark pages and
 * be interrupted as if each were checked.
 */
#include "loops.inc"
GUEST(loops)

#define CODE_PAGE (scratch + 9 * 0x1000)
#define TIMER 0x40

guest_main:
	call	strides
	call	arrays
	call	stack_loops
	call	code32
	call	load_faults
	call	store_faults
	call	marks
	call	store_behind_branch
	call	own_code
	call	code_between
	call	interrupted
	call	single_step
	call	watched
	ret

/* A sum of registers and pages in RAX. */
digest:
	push	rsi
	push	rcx
	imul	rax, rax, 31
	.irp reg, rbx, rdx, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
	add	rax, \reg
	imul	rax, rax, 31
	.endr
	add	rax, rsi
	imul	rax, rax, 31
	add	rax, rcx
	mov	rsi, offset scratch
	mov	ecx, PAGES * 512
1:	imul	rax, rax, 31
	xor	rax, [rsi]
	add	rsi, 8
	loop	1b
	pop	rcx
	pop	rsi
	ret

set_registers:
	.irp reg, rax, rdx, rbp, r8, r9, r10, r11, r12, r13, r14
	mov	\reg, 0
	.endr
	mov	rsi, PAGE(4) - 24
	mov	rdi, PAGE(5) - 40
	mov	r15, PAGE(6) - 16
	ret

/*
 * The same @count turns with RBX from @start by @step, once as a loop of one block, once with a call in each turn,
 * which makes it many blocks. The rest is the turn's; RSI, RDI, R15 point to pages 4, 5, 6, others are 0.
 */
#define turns(start, step, count, ...) TURNS_(start, step, count, __VA_ARGS__)
#define TURNS_(start, step, count, ...)                                                            \
	call fill;                                                                                 \
	call set_registers;                                                                        \
	mov rbx, start;                                                                            \
	mov ecx, count;                                                                            \
	1: __VA_ARGS__;                                                                            \
	add rbx, step;                                                                             \
	dec ecx;                                                                                   \
	jnz 1b;                                                                                    \
	call digest;                                                                               \
	mov [first_digest], rax;                                                                   \
	call fill;                                                                                 \
	call set_registers;                                                                        \
	mov rbx, start;                                                                            \
	mov ecx, count;                                                                            \
	jmp 4f;                                                                                    \
	3: __VA_ARGS__;                                                                            \
	add rbx, step;                                                                             \
	ret;                                                                                       \
	4: call 3b;                                                                                \
	dec ecx;                                                                                   \
	jnz 4b;                                                                                    \
	call digest;                                                                               \
	expect(rax, [first_digest])

strides:
	call	map_pages
	turns(PAGE(0) + 0xf00, 1, 3000, add al, [rbx]; xor rdx, rax)
	turns(PAGE(1) + 5, 2, 4000, movzx edx, word ptr [rbx]; add rax, rdx)
	turns(PAGE(1) + 5, 3, 3000, add rax, [rbx])
	turns(PAGE(1) - 3, 4, 2000, add [rbx], rcx)
	turns(PAGE(1), 8, 1024, add rax, [rbx]; mov [rbx], rax)
	turns(PAGE(1) + 4, 8, 1024, add rax, [rbx]; mov [rbx], rax)
	turns(PAGE(0) + 0xff4, 12, 600, mov edx, [rbx + 4]; add [rbx], edx)
	turns(PAGE(0) + 8, 16, 500, movups xmm0, [rbx]; movups [rbx + 0x1000], xmm0)
	turns(PAGE(0) + 0xfff, 24, 300, mov rdx, [rbx]; mov [rbx + 16], dl; add rax, [rbx + 8])
	turns(PAGE(1), 1024, 20, add rax, [rbx + 1020])
	turns(PAGE(1), 1040, 12, add rax, [rbx]; mov [rbx + 8], rax)
	turns(PAGE(3), -1, 5000, add al, [rbx]; ror rax, 8)
	turns(PAGE(3) + 4, -4, 2000, add eax, [rbx])
	turns(PAGE(3) + 4, -8, 1500, add [rbx], rax; add rax, [rbx - 8])
	turns(PAGE(3), -24, 400, movups xmm0, [rbx - 12]; movups [rbx], xmm0)
	turns(PAGE(4), -1024, 14, add rax, [rbx - 4]; mov [rbx], eax)
	turns(PAGE(2), 0, 50, inc qword ptr [rbx]; add rax, [rbx])
	turns(PAGE(2) - 4, 0, 50, inc qword ptr [rbx]; add rax, [rbx])
	ret

/* Several arrays, registers of all sorts, bumps in the middle. */
arrays:
	turns(PAGE(1) - 64, 8, 500, mov rdx, [rbx]; mov [rsi], rdx; add rsi, 8)
	turns(PAGE(1) - 64, 1, 600, movzx edx, byte ptr [rbx]; add [rsi], dx; mov [rdi], rdx; add rsi, 2; add rdi, 8)
	turns(PAGE(1) - 64, 8, 500, mov rdx, [rbx]; mov [rsi], rdx; sub rsi, 8; add [rdi], edx; sub rdi, 4)
	turns(PAGE(1), 0, 700, mov rdx, [rsi + r8 * 8]; add [rdi + r8 * 4], edx; inc r8)
	turns(PAGE(1), 0, 700, mov rdx, [rbx + r14 * 8]; mov [r15 + r14 * 2], dx; inc r14)
	turns(PAGE(1), 0, 700, mov r13, [rbx + r14]; mov [r15], r13; add r15, 8; sub r14, 1)
	turns(PAGE(1), 8, 700, mov r15, rbx; add rax, [r15]; mov [r15 + 8], rax)
	turns(PAGE(1), 4, 700, add rax, [rbx]; add rbx, 4; add rdx, [rbx + 4]; mov [rbx - 8], edx)
	turns(PAGE(1), -4, 700, add rax, [rbx]; add rbx, 12; add rdx, [rbx + 4]; mov [rbx - 8], edx; sub rbx, 4)
	turns(PAGE(1), 8, 700, lea r12, [rbx + 16]; mov rdx, [r12]; mov [r12 - 24], rdx; add rax, [rbx])
	turns(PAGE(1), 8, 700, inc dword ptr [rsi + 20]; add rax, [rbx]; mov [rsi + 12], rax; add rax, [rsi])
	turns(PAGE(1), 8, 700, mov rdx, [rbx]; test dl, 3; jnz 2f; add [rbx + 8], rdx; 2: add rax, [rbx])
	turns(PAGE(1), 8, 700, mov ah, [rbx + 1]; add [rbx], ah; xchg [rbx], rdx; xadd [rbx], r13)
	turns(PAGE(1), 8, 300, fild qword ptr [rbx]; fistp qword ptr [rsi]; add rsi, 8)
	turns(PAGE(1), 8, 300, mov rbx, [rsp - 8]; mov rbx, PAGE(2); add rax, [rbx])
	ret

/* Loops of PUSH and POP, by user code: the frames of faults go elsewhere. */
stack_loops:
	call	map_pages
	set_gate PF, map_missing
	mov	qword ptr [PTE(2)], 0
	flush
	mov	dword ptr [seen_count], 0
	mov	rdx, PAGE(4) - 8
	user_ok(mov rsp, rdx; mov ecx, 1500; 1: push rcx; dec rcx; jnz 1b)
	expect([seen_count], 1)
	mov	rax, PAGE(3) - 8
	expect(SEEN_CR2, rax)
	expect(SEEN_SP, offset PAGE(3))
	expect(SEEN_ERROR, PF_W | PF_U)
	mov	eax, 1500 - (0x1000 - 8) / 8
	expect(SEEN_RCX, rax)
	mov	rbx, PAGE(4) - 16
	mov	ecx, 1500
1:	mov	rax, [rbx]
	cmp	rax, rcx
	jne	2f
	sub	rbx, 8
	loop	1b
2:	expect(rcx, 0)
	/* and back: their sum */
	mov	qword ptr [PTE(2)], 0
	flush
	mov	rdx, PAGE(4) - 8 - 1500 * 8
	user_ok(mov rsp, rdx; mov ecx, 1500; xor eax, eax; 1: pop rbx; add rax, rbx; dec rcx; jnz 1b)
	expect([seen_count], 2)
	mov	rcx, PAGE(2)
	expect(SEEN_CR2, rcx)
	expect(SEEN_ERROR, PF_U)
	expect(SEEN_SP, rcx)
	mov	ecx, 1500 * 1501 / 2
	expect(rax, rcx)
	reset_gate PF
	ret

/* 32-bit code, once as one block and once as many. */
code32:
	call	map_pages
	call	fill
	call	set_registers
	call	run32
	call	digest
	mov	[first_digest], rax
	call	fill
	call	set_registers
	mov	ebp, 1
	call	run32
	dec	ebp
	call	digest
	expect(rax, [first_digest])
	ret
run32:
	push	KCODE32
	push	offset 1f
	retfq
	.code32
1:	mov	ebx, KDATA
	mov	ds, ebx
	mov	es, ebx
	mov	ebx, PAGE(1) - 30
	mov	ecx, 1200
	test	ebp, ebp
	jnz	5f
2:	add	eax, [ebx]
	mov	[esi], ax
	add	ebx, 4
	add	esi, 2
	dec	ecx
	jnz	2b
	jmp	6f
5:	call	4f
	dec	ecx
	jnz	5b
	jmp	6f
4:	add	eax, [ebx]
	mov	[esi], ax
	add	ebx, 4
	add	esi, 2
	ret
6:	jmp	KCODE64:1f
	.code64
1:	ret

/* The third page is missing when the loop gets there; the element before straddles into it or not. */
load_faults:
	set_gate PF, map_missing
	xor	ebp, ebp
1:	call	map_pages
	call	fill
	mov	qword ptr [PTE(2)], 0
	flush
	mov	dword ptr [seen_count], 0
	xor	eax, eax
	mov	rsi, PAGE(4)
	lea	rbx, [rbp + PAGE(0) + 0x100]
	mov	ecx, 1500
2:	mov	[rsi], eax
3:	add	rax, [rbx]
	mov	r13, rax
	add	rsi, 4
	add	rbx, 8
	dec	ecx
	jnz	2b
	expect([seen_count], 1)
	expect(SEEN_IP, offset 3b)
	mov	rdx, PAGE(2)
	expect(SEEN_CR2, rdx)
	expect(SEEN_ERROR, 0)
	/* of 8-byte steps from 0x100 on, the first that reaches into the page */
	mov	rdx, PAGE(2) + 7
	sub	rdx, 7
	test	ebp, ebp
	jz	4f
	lea	rdx, [rbp + PAGE(2) - 8]
4:	expect(SEEN_RBX, rdx)
	sub	rdx, PAGE(0) + 0x100
	sub	rdx, rbp
	shr	rdx, 3		/* turns before */
	lea	r8, [rdx * 4 + PAGE(4)]
	expect(SEEN_RSI, r8)
	mov	r8d, 1500
	sub	r8, rdx
	expect(SEEN_RCX, r8)
	mov	r8, SEEN_RAX
	expect(SEEN_R13, r8)
	movsxd	r8, r8d
	movsxd	r9, dword ptr [PAGE(4) + rdx * 4]
	expect(r9, r8)		/* that turn's store was done */
	/* the sum again, otherwise */
	lea	rbx, [rbp + PAGE(0) + 0x100]
	mov	ecx, 1500
	xor	edx, edx
5:	call	6f
	loop	5b
	expect(rdx, rax)
	add	ebp, 3
	cmp	ebp, 6
	jb	1b
	reset_gate PF
	ret
6:	add	rdx, [rbx]
	add	rbx, 8
	ret

store_faults:
	set_gate PF, map_missing
	call	map_pages
	call	fill
	mov	qword ptr [PTE(5)], 0
	mov	dword ptr [seen_count], 0
	flush
	mov	rbx, PAGE(1)
	mov	r13, PAGE(5) - 0x84
	mov	ecx, 400
1:	mov	rdx, [rbx]
2:	mov	[r13], rdx
	mov	rax, rdx
	lea	rbx, [rbx + 8]
	sub	r13, -8
	sub	ecx, 1
	jnz	1b
	expect([seen_count], 1)
	expect(SEEN_IP, offset 2b)
	expect(SEEN_ERROR, PF_W)
	mov	rax, PAGE(5)
	expect(SEEN_CR2, rax)
	mov	rax, PAGE(5) - 4
	expect(SEEN_R13, rax)
	mov	rbx, PAGE(1) + 0x80
	expect(SEEN_RBX, rbx)
	mov	rax, [rbx]
	expect(SEEN_RDX, rax)
	mov	rax, [rbx - 8]
	expect(SEEN_RAX, rax)
	mov	ecx, 400
3:	mov	rax, [PAGE(1) + rcx * 8 - 8]
	mov	rdx, [PAGE(5) - 0x84 + rcx * 8 - 8]
	cmp	rax, rdx
	jne	4f
	loop	3b
4:	expect(rcx, 0)
	/* a read-only page, and nobody to make it better */
	reset_gate PF
	call	map_pages
	and	qword ptr [PTE(5)], ~PTE_W
	flush
	mov	rbx, PAGE(1)
	mov	rsi, PAGE(5) - 16
	mov	ecx, 50
	arm	6f
5:	mov	rdx, [rbx]
2:	add	[rsi], rdx
	add	rbx, 8
	add	rsi, 8
	dec	ecx
	jnz	5b
6:	disarm
	expect([fault_vector], PF)
	expect([fault_error], PF_W | PF_P)
	expect([fault_ip], offset 2b)
	expect(rcx, 48)
	mov	rax, PAGE(5)
	expect(rsi, rax)
	ret

/* Which pages are accessed, which dirty. */
marks:
	call	map_pages
	mov	rbx, PAGE(0) + 0x800
	mov	rsi, PAGE(4) + 0x800
	mov	ecx, 0x800 / 8 + 10
1:	mov	rax, [rbx]
	mov	[rsi], rax
	add	rbx, 8
	add	rsi, 8
	dec	ecx
	jnz	1b
	expect_pte(0, PTE_A | PTE_D, PTE_A)
	expect_pte(1, PTE_A | PTE_D, PTE_A)
	expect_pte(2, PTE_A | PTE_D, 0)
	expect_pte(4, PTE_A | PTE_D, PTE_A | PTE_D)
	expect_pte(5, PTE_A | PTE_D, PTE_A | PTE_D)
	expect_pte(6, PTE_A | PTE_D, 0)
	/* again, marks taken back */
	and	byte ptr [PTE(4)], ~(PTE_A | PTE_D)
	and	byte ptr [PTE(5)], ~(PTE_A | PTE_D)
	flush
	mov	rbx, PAGE(0) + 0x800
	mov	rsi, PAGE(4) + 0x800
	mov	ecx, 0x800 / 8
1:	mov	rax, [rbx]
	mov	[rsi], rax
	add	rbx, 8
	add	rsi, 8
	dec	ecx
	jnz	1b
	expect_pte(4, PTE_A | PTE_D, PTE_A | PTE_D)
	expect_pte(5, PTE_A | PTE_D, 0)
	/* a load that faults before the store of its turn */
	mov	qword ptr [PTE(1)], 0
	and	byte ptr [PTE(5)], ~(PTE_A | PTE_D)
	flush
	mov	rbx, PAGE(1)
	mov	rsi, PAGE(5)
	mov	ecx, 50
	arm	3f
1:	mov	rdx, [rsi]
2:	mov	rax, [rbx]
	mov	[rsi], rax
	add	rbx, 8
	add	rsi, 8
	dec	ecx
	jnz	1b
3:	disarm
	expect([fault_vector], PF)
	expect([fault_ip], offset 2b)
	expect_pte(5, PTE_D, 0)
	expect(rcx, 50)
	/* without a loop */
	arm	3f
	mov	rdx, [rsi]
2:	mov	rax, [rbx]
	mov	[rsi + 8], rax
	mov	[rsi], rax
3:	disarm
	expect([fault_vector], PF)
	expect_pte(5, PTE_D, 0)
	ret

/* A store behind a branch that is hardly ever not taken, to pages that are read-only but where it is. */
store_behind_branch:
	call	map_pages
	mov	rdi, offset scratch
	mov	ecx, 4 * 4096
	xor	eax, eax
	cld
	rep stosb
	mov	byte ptr [scratch + 0x2010], 7
	and	byte ptr [PTE(0)], ~PTE_W
	and	byte ptr [PTE(3)], ~PTE_W
	flush
	mov	rbx, PAGE(0)
	mov	ecx, 4 * 4096
1:	cmp	byte ptr [rbx], 7
	jne	2f
	mov	byte ptr [rbx], 8
2:	inc	rbx
	dec	ecx
	jnz	1b
	expect_pte(0, PTE_D, 0)
	expect_pte(1, PTE_D, 0)
	expect_pte(2, PTE_D, PTE_D)
	expect_pte(3, PTE_D, 0)
	movzx	eax, byte ptr [scratch + 0x2010]
	expect(rax, 8)
	ret

/*
 * A loop whose destination becomes the page it runs in, and the operand of its own addition:
 *	mov [rdi], dl; add rdi, 16; add eax, 1; dec ecx; jnz; ret
 */
own_code:
	call	map_pages
	mov	rax, offset CODE_PAGE - 0x1000 + (PTE_P | PTE_W)
	mov	[PTE(8)], rax
	mov	rax, offset CODE_PAGE + (PTE_P | PTE_W)
	mov	[PTE(9)], rax
	flush
	mov	rdi, offset CODE_PAGE + 0x108
	call	6f
	mov	rdi, offset PAGE(9) + 0x108
	call	6f
	mov	rdi, offset PAGE(9) + 0x108
	call	6f
	ret
6:	mov	rbx, offset CODE_PAGE + 0x100
	mov	rax, 0xc08310c783481788
	mov	[rbx], rax
	mov	rax, 0xc3f375c9ff01
	mov	[rbx + 8], rax
	mov	ebp, 3
1:	mov	byte ptr [rbx + 8], 1
	mov	rsi, rdi
	sub	rdi, 40 * 16		/* from the page before */
	mov	dl, 5
	xor	eax, eax
	mov	ecx, 60
	call	rbx
	expect(rax, 40 + 20 * 5)
	expect(rcx, 0)
	mov	rdi, rsi
	dec	ebp
	jnz	1b
	ret

/* A page that is filled, run, filled again. */
code_between:
	call	map_pages
	mov	rbp, 0x9090c300000001b8		/* mov eax, 1; ret */
	mov	r12d, 1
1:	mov	rbx, PAGE(1) + 0x800
	mov	ecx, 512
2:	mov	[rbx], rbp
	add	rbx, 8
	dec	ecx
	jnz	2b
	call	PAGE(2) - 0x100
	expect(rax, r12)
	call	PAGE(2) + 0x100
	expect(rax, r12)
	add	rbp, 0x100
	inc	r12d
	cmp	r12d, 20
	jne	1b
	ret

/* Timer interrupts: a loop that waits for what a handler does ends; one that sums does not mind. */
interrupted:
	call	map_pages
	call	fill
	pic_init
	lapic_write 0xf0, 0x1ff
	lapic_write 0x3e0, 3		/* by 16 */
	lapic_write 0x320, 0x20000 | TIMER
	lapic_write 0x380, 20000
	set_gate TIMER, on_timer
	xor	eax, eax
	mov	rbx, PAGE(1)
	mov	ecx, 600
1:	call	6f
	loop	1b
	mov	rbp, rax
	mov	qword ptr [ticks], 0
	mov	r12d, 0
	sti
2:	xor	eax, eax
	mov	rbx, PAGE(1)
	mov	ecx, 600
3:	add	rax, [rbx]
	add	rbx, 8
	dec	ecx
	jnz	3b
	cmp	rax, rbp
	je	4f
	cli
	expect(rax, rbp)
	ret
4:	cmp	qword ptr [ticks], 20
	jb	2b
	/* waiting for a number to change, for itself and by a new mapping of its page */
	mov	qword ptr [scratch], 0
	mov	qword ptr [scratch + 0x1000], 1
	mov	qword ptr [scratch + 0x7000], 1
	mov	rbx, offset ticks
	mov	rdx, [rbx]
5:	cmp	[rbx], rdx
	je	5b
	mov	rbx, PAGE(0)
	mov	byte ptr [remap], 1
5:	cmp	qword ptr [rbx], 0
	je	5b
	mov	byte ptr [remap], 0
	cli
	lapic_write 0x320, 0x10000
	lapic_write 0x380, 0
	expect([rbx], 1)
	call	map_pages
	ret
6:	add	rax, [rbx]
	add	rbx, 8
	ret
on_timer:
	push	rax
	inc	qword ptr [ticks]
	cmp	byte ptr [remap], 0
	je	1f
	mov	rax, offset scratch + 0x7000 + (PTE_P | PTE_W)
	mov	[PTE(0)], rax
	mov	rax, PAGE(0)
	invlpg	[rax]
1:	lapic_write 0xb0, 0
	pop	rax
	iretq

/* Each instruction of a loop is one step. */
single_step:
	call	map_pages
	call	fill
	set_gate DB, count_step
	mov	qword ptr [steps], 0
	xor	eax, eax
	mov	rbx, PAGE(1) - 80
	mov	ecx, 30
	pushf
	or	dword ptr [rsp], F_TF
	popf
1:	add	rax, [rbx]
	add	rbx, 8
	dec	ecx
	jnz	1b
	pushf
	and	dword ptr [rsp], ~F_TF
	popf
	expect([steps], 30 * 4 + 3)
	mov	rdx, rax
	xor	eax, eax
	mov	rbx, PAGE(1) - 80
	mov	ecx, 30
2:	add	rax, [rbx]
	add	rbx, 8
	dec	ecx
	jnz	2b
	expect(rax, rdx)
	reset_gate DB
	ret
count_step:
	inc	qword ptr [steps]
	iretq

/* A breakpoint on an element in the middle. */
watched:
	set_gate DB, note_watch
	mov	qword ptr [steps], 0
	call	6f			/* translated already */
	expect([steps], 0)
	mov	rax, PAGE(1) + 0x20
	mov	dr0, rax
	mov	rax, 0x90401		/* DR0, 8 bytes, writes */
	mov	dr7, rax
	call	6f
	xor	eax, eax
	mov	dr7, rax
	expect([steps], 1)
	mov	rax, PAGE(1) + 0x20
	expect(SEEN_RBX, rax)
	expect(SEEN_RCX, 100 - 20)
	expect(SEEN_IP, offset 2f)
	reset_gate DB
	ret
6:	mov	rbx, PAGE(1) - 0x80
	mov	ecx, 100
1:	mov	[rbx], rcx
2:	add	rbx, 8
	dec	ecx
	jnz	1b
	ret
note_watch:
	push	rax
	inc	qword ptr [steps]
	mov	SEEN_RBX, rbx
	mov	SEEN_RCX, rcx
	mov	rax, [rsp + 8]
	mov	SEEN_IP, rax
	mov	rax, 0xffff0ff0
	mov	dr6, rax
	pop	rax
	iretq

	.bss
first_digest: .skip 8
ticks:	.skip	8
steps:	.skip	8
remap:	.skip	8
