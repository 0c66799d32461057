/*
 * The same code at several addresses and in several modes, and several codes at the same address: whatever remembers
 * where a jump went must forget it, or tell them apart (SDM vol. 3A 4.10, 8.1.3). Tight alternations, because
 * that is where what was remembered is used.
 */
#include "lib.h"
GUEST(codepages)

#define CR4_PGE	  0x80
#define CR4_PCIDE 0x20000
#define RWU	  (PTE_P | PTE_W | PTE_U)
#define PAGE(n)	  (scratch + (n) * 0x1000)
#define VA(n)	  (TEST_VA + (n) * 0x1000)
#define ROUNDS	  300

/* Page @index of TEST_VA is page @page of scratch in @table. Clobbers RAX. */
.macro map index, page, flags=RWU, table=test_pt
	mov	rax, offset PAGE(\page) + (\flags)
	mov	[\table + \index * 8], rax
.endm

/* The code from @begin to @end at @target */
.macro copy begin, end, target
	mov	rsi, offset \begin
	mov	rdi, offset \target
	mov	ecx, offset \end
	sub	ecx, esi
	rep movsb
.endm

/* MOV EAX, imm32; RET */
.macro put_function at, value
	mov	byte ptr [\at], 0xb8
	mov	dword ptr [\at + 1], \value
	mov	byte ptr [\at + 5], 0xc3
.endm

guest_main:
	call	second_tables
	call	two_addresses
	call	two_modes
	call	through_alias
	call	second_page_remapped
	call	same_page_twice
	call	next_page_remapped
	call	remaps_itself
	call	middle_of_instruction
	call	spaces
	call	spaces_global
	call	spaces_pcid
	call	return_into_other_space
	call	system_calls
	call	user_modes
	ret

/* pml4_b: all as in pml4, but what is at TEST_VA */
second_tables:
	mov	rsi, offset pml4
	mov	rdi, offset pml4_b
	mov	ecx, 512
	rep movsq
	mov	rsi, offset pdpt
	mov	rdi, offset pdpt_b
	mov	ecx, 512
	rep movsq
	mov	qword ptr [pml4_b], offset pdpt_b + RWU
	mov	qword ptr [pdpt_b + 8], offset pd_b + RWU
	mov	qword ptr [pd_b], offset pt_b + RWU
	ret

.macro space_a
	mov	rax, offset pml4
	mov	cr3, rax
.endm

.macro space_b
	mov	rax, offset pml4_b
	mov	cr3, rax
.endm

/* ---- one code, several addresses ---- */

/* Tells where it runs, by RIP-relative address, by the return address of a call, and by jumping about. */
where:	lea	rax, [rip + where]
	call	1f
1:	pop	rcx
	sub	rcx, 1b - where
	jmp	2f
	ud2
2:	ret
where_end:

two_addresses:
	copy	where, where_end, PAGE(0)
	map	0, 0
	map	1, 0
	mov	rbx, VA(0)
	mov	rbp, VA(1)
	mov	r12d, ROUNDS
1:	call	rbx
	expect(rax, rbx)
	expect(rcx, rbx)
	call	rbp
	expect(rax, rbp)
	expect(rcx, rbp)
	mov	rsi, offset PAGE(0)
	call	rsi
	expect(rax, rsi)
	expect(rcx, rsi)
	dec	r12d
	jnz	1b
	ret

/* ---- one code, several modes ---- */

/* What stands between them runs in compatibility mode at CPL 0. */
.macro begin_32
	push	KCODE32
	push	offset 7f
	retfq
	.code32
7:
.endm

.macro end_32
	jmp	KCODE64:7f
	.code64
7:
.endm

/* 48 ff c0 is INC RAX, or DEC EAX; INC EAX. The loop is as tight in both. */
both_ways:
	mov	eax, 100
	mov	ecx, 10
1:	.byte	0x48, 0xff, 0xc0
	dec	ecx
	jnz	1b
	ret
both_ways_end:

two_modes:
	copy	both_ways, both_ways_end, PAGE(1)
	map	2, 1
	mov	r12d, ROUNDS
1:	mov	ebx, VA(2)
	call	rbx
	expect(rax, 110)
	begin_32
	call	ebx
	end_32
	expect(rax, 100)
	begin_32
	mov	ebx, offset PAGE(1)
	call	ebx
	end_32
	expect(rax, 100)
	mov	ebx, offset PAGE(1)
	call	rbx
	expect(rax, 110)
	dec	r12d
	jnz	1b
	/* and changed in one mode by a store in the other */
	mov	r12d, ROUNDS
1:	mov	byte ptr [VA(2) + 1], 110
	mov	ebx, VA(2)
	call	rbx
	expect(rax, 120)
	begin_32
	mov	byte ptr [VA(2) + 1], 50
	call	ebx
	end_32
	expect(rax, 50)
	mov	byte ptr [PAGE(1) + 1], 30
	begin_32
	call	ebx
	end_32
	expect(rax, 30)
	begin_32
	mov	byte ptr [ebx + 1], 20
	end_32
	call	rbx
	expect(rax, 30)
	dec	r12d
	jnz	1b
	ret

/* ---- changed through another address ---- */

/*
 * RBX: the alias to write by. The store is in the code's own page, and in its own straight run. Another linear address
 * than the code's asks for a serializing instruction (SDM vol. 3A 8.1.3): MOV to CR2.
 */
changes_itself:
	mov	[rbx + (1f - changes_itself) + 1], ecx
	mov	cr2, rax
	xor	eax, eax
1:	mov	eax, 0x11111111
	ret
changes_itself_end:

through_alias:
	copy	changes_itself, changes_itself_end, PAGE(2)
	map	3, 2
	map	4, 2
	mov	rsi, VA(3)
	mov	rbx, VA(4)
	mov	ecx, ROUNDS
1:	call	rsi
	expect(rax, rcx)
	xchg	rsi, rbx
	dec	ecx
	jnz	1b
	/* a hot loop, changed after a while by a store that is rare: the alias is mapped late */
	copy	both_ways, both_ways_end, PAGE(2)
	mov	rsi, VA(3)
	mov	r12d, ROUNDS
2:	call	rsi
	expect(rax, 110)
	dec	r12d
	jnz	2b
	map	5, 2
	mov	byte ptr [VA(5) + 1], 1
	call	rsi
	expect(rax, 11)
	/* read through the alias first, so that only its write is new */
	map	6, 2
	mov	al, [VA(6)]
	mov	byte ptr [VA(6) + 1], 2
	call	rsi
	expect(rax, 12)
	mov	byte ptr [VA(6) + 1], 3
	call	rsi
	expect(rax, 13)
	ret

/* ---- code across pages, the second one another each time ---- */

second_page_remapped:
	/* MOV EAX, imm32 with two bytes in each page; then ADD EAX, imm32; RET */
	mov	dword ptr [PAGE(4) - 4], 0x2211b890	/* NOP before */
	mov	dword ptr [PAGE(4)], 0x01054433
	mov	dword ptr [PAGE(4) + 4], 0xc3000000
	mov	dword ptr [PAGE(5)], 0x02056655
	mov	dword ptr [PAGE(5) + 4], 0xc3000000
	map	7, 3
	mov	rbx, VA(8) - 4
	mov	rbp, offset pml4_b
	mov	rdi, cr3
	map	7, 3, RWU, pt_b
	map	8, 5, RWU, pt_b
	mov	r12d, ROUNDS
1:	map	8, 4
	invlpg	[VA(8)]
	call	rbx
	expect(rax, 0x44332212)
	map	8, 5
	mov	cr3, rdi
	call	rbx
	expect(rax, 0x66552213)
	map	8, 4
	mov	cr3, rdi
	call	rbx
	expect(rax, 0x44332212)
	mov	cr3, rbp
	call	rbx
	expect(rax, 0x66552213)
	mov	cr3, rdi
	call	rbx
	expect(rax, 0x44332212)
	/* in compatibility mode as well */
	begin_32
	call	ebx
	end_32
	expect(rax, 0x44332212)
	map	8, 5
	begin_32
	invlpg	[VA(8)]
	call	ebx
	end_32
	expect(rax, 0x66552213)
	dec	r12d
	jnz	1b
	/* without right to execute */
	map	8, 4
	bts	qword ptr [test_pt + 64], 63
	invlpg	[VA(8)]
	arm	2f
	jmp	rbx
2:	disarm
	expect([fault_vector], PF)
	expect([fault_error], PF_P | PF_I)
	lea	rax, [rbx + 1]
	expect([fault_ip], rax)
	mov	rax, [fault_cr2]
	expect(rax, VA(8))
	map	8, 4
	invlpg	[VA(8)]
	call	rbx
	expect(rax, 0x44332212)
	ret

/* An instruction across two addresses of one page: both its ends are code. */
same_page_twice:
	mov	word ptr [PAGE(15) + 0xffd], 0x11b8	/* MOV EAX, imm32; RET */
	mov	byte ptr [PAGE(15) + 0xfff], 0x22
	mov	dword ptr [PAGE(15)], 0xc34433
	map	13, 15
	map	14, 15
	mov	rbx, VA(13) + 0xffd
	mov	r12d, 20
1:	mov	byte ptr [PAGE(15)], 0x33
	call	rbx
	expect(rax, 0x44332211)
	mov	byte ptr [VA(13)], 0x55
	call	rbx
	expect(rax, 0x44552211)
	mov	byte ptr [VA(14) + 0xfff], 0x66
	call	rbx
	expect(rax, 0x44556611)
	mov	byte ptr [VA(14) + 0xfff], 0x22
	dec	r12d
	jnz	1b
	ret

/* Straight code that ends with its page, a branch not taken there, and direct jumps and calls to the next one */
next_page_remapped:
	mov	dword ptr [PAGE(7) - 4], 0x90909090
	mov	dword ptr [PAGE(7) - 8], 0x90027500	/* (...), JNE +2, NOP */
	mov	byte ptr [PAGE(7) - 9], 0x90
	mov	byte ptr [PAGE(7) - 8], 0x90
	mov	byte ptr [PAGE(6) + 0x10], 0xe8		/* CALL next page; INC EAX; RET */
	mov	dword ptr [PAGE(6) + 0x11], 0x1000 - 0x15
	mov	dword ptr [PAGE(6) + 0x15], 0xc3c0ff
	mov	word ptr [PAGE(6) + 0x20], 0x840f	/* JE next page; RET */
	mov	dword ptr [PAGE(6) + 0x22], 0x1000 - 0x26
	mov	byte ptr [PAGE(6) + 0x26], 0xc3
	put_function PAGE(7), 0x700
	put_function PAGE(8), 0x800
	map	9, 6
	mov	rdi, cr3
	mov	r12d, ROUNDS
1:	map	10, 7
	mov	cr3, rdi
	mov	ebx, 0x700
	call	5f
	map	10, 8
	invlpg	[VA(10)]
	mov	ebx, 0x800
	call	5f
	dec	r12d
	jnz	1b
	ret
5:	mov	rsi, VA(10) - 9
	cmp	esi, esi
	call	rsi
	expect(rax, rbx)
	mov	rsi, VA(9) + 0x10
	call	rsi
	lea	rcx, [rbx + 1]
	expect(rax, rcx)
	mov	rsi, VA(9) + 0x20
	xor	eax, eax
	call	rsi
	expect(rax, rbx)
	begin_32
	call	esi
	end_32
	ret

/* INVLPG and MOV CR3 whose next instruction comes from another page than they do */
	.macro invalidates value
	mov	[rdi], rsi
	invlpg	[rip]
	mov	eax, \value
	ret
	.endm
invalidates_1:
	invalidates 1
invalidates_2:
	invalidates 2
	.macro reloads value
	mov	cr3, rsi
	mov	eax, \value
	ret
	.endm
reloads_1:
	reloads 1
reloads_2:
	reloads 2
reloads_end:

remaps_itself:
	copy	invalidates_1, invalidates_2, PAGE(9)
	copy	invalidates_2, reloads_1, PAGE(10)
	map	11, 9
	mov	rbp, rax
	mov	r13, offset PAGE(10) + RWU
	mov	rdi, offset test_pt + 11 * 8
	mov	rbx, VA(11)
	mov	r12d, ROUNDS
1:	mov	rsi, r13
	call	rbx
	expect(rax, 2)
	mov	rsi, rbp
	call	rbx
	expect(rax, 1)
	dec	r12d
	jnz	1b
	copy	reloads_1, reloads_2, PAGE(9)
	copy	reloads_2, reloads_end, PAGE(10)
	invlpg	[rbx]
	map	11, 10, RWU, pt_b
	mov	rbp, cr3
	mov	r12d, ROUNDS
2:	mov	rsi, offset pml4_b
	call	rbx
	expect(rax, 2)
	mov	rsi, rbp
	call	rbx
	expect(rax, 1)
	dec	r12d
	jnz	2b
	ret

/* MOV EAX, imm32 whose imm32 is INC ECX; JMP to RET; and entries at both, in turn */
middle_of_instruction:
	mov	dword ptr [PAGE(11) + 0x7fc], 0xebc1ffb8
	mov	dword ptr [PAGE(11) + 0x800], 0xc3c0ff02
	map	12, 11
	mov	rbx, VA(12) + 0x7fc
	lea	rbp, [rbx + 1]
	mov	r12d, ROUNDS
	xor	ecx, ecx
	xor	r13d, r13d
1:	call	rbx			/* MOV EAX, 0x02ebc1ff; INC EAX; RET */
	expect(rax, 0x02ebc200)
	xor	eax, eax
	call	rbp			/* INC ECX; JMP; RET */
	inc	r13
	expect(rcx, r13)
	dec	r12d
	jnz	1b
	ret

/* ---- one address, several codes ---- */

/* Calls VA(16) in either space in turn. R13D, R14D: what they must say. */
.macro alternate rounds, load_a, load_b
	mov	rbx, VA(16)
	mov	r12d, \rounds
1:	mov	rax, \load_a
	mov	cr3, rax
	call	rbx
	expect(rax, r13)
	mov	rax, \load_b
	mov	cr3, rax
	call	rbx
	expect(rax, r14)
	dec	r12d
	jnz	1b
.endm

/* A loop and a call inside, so that there is something to remember. */
	.macro body value
	mov	ecx, 3
1:	call	2f
	dec	ecx
	jnz	1b
	ret
2:	mov	eax, \value
	ret
	.endm
body_a:	body	0xaaaa
body_b:	nop
	body	0xbbbb
body_end:

spaces:
	copy	body_a, body_b, PAGE(12)
	copy	body_b, body_end, PAGE(13)
	map	16, 12
	map	16, 13, RWU, pt_b
	mov	r13d, 0xaaaa
	mov	r14d, 0xbbbb
	mov	rbp, offset pml4
	mov	r15, offset pml4_b
	alternate ROUNDS, rbp, r15
	mov	cr3, rbp
	/* the same code behind both, then not any more */
	map	16, 12, RWU, pt_b
	mov	r14d, 0xaaaa
	alternate 20, rbp, r15
	map	16, 13, RWU, pt_b
	mov	r14d, 0xbbbb
	alternate 20, rbp, r15
	mov	cr3, rbp
	ret

/* All that both spaces share is global; what differs is not. */
spaces_global:
	mov	rdi, offset pt0
	mov	ecx, 1024
1:	or	qword ptr [rdi], PTE_G
	add	rdi, 8
	loop	1b
	mov	rax, cr4
	or	rax, CR4_PGE
	mov	cr4, rax
	mov	rbp, offset pml4
	mov	r15, offset pml4_b
	mov	cr3, rbp
	mov	r13d, 0xaaaa
	mov	r14d, 0xbbbb
	alternate ROUNDS, rbp, r15
	/* a global page is INVLPG's to forget, from whichever space */
	mov	cr3, rbp
	map	17, 12, RWU+PTE_G
	map	17, 12, RWU+PTE_G, pt_b
	mov	rbx, VA(17)
	call	rbx
	expect(rax, 0xaaaa)
	mov	cr3, r15
	call	rbx
	expect(rax, 0xaaaa)
	map	17, 13, RWU+PTE_G
	map	17, 13, RWU+PTE_G, pt_b
	invlpg	[rbx]
	call	rbx
	expect(rax, 0xbbbb)
	mov	cr3, rbp
	call	rbx
	expect(rax, 0xbbbb)
	/* global becomes not global: then CR3 is enough again */
	map	17, 12
	map	17, 13, RWU, pt_b
	invlpg	[rbx]
	mov	r12d, 20
2:	mov	cr3, rbp
	call	rbx
	expect(rax, 0xaaaa)
	mov	cr3, r15
	call	rbx
	expect(rax, 0xbbbb)
	dec	r12d
	jnz	2b
	mov	cr3, rbp
	mov	rax, cr4
	and	rax, ~CR4_PGE
	mov	cr4, rax
	ret

/* PCIDs 1 and 2, kept across switches; the kernel still global, then nothing global */
spaces_pcid:
	cpuid_bit 1, 0, ecx, 17
	jz	pcid_done
	mov	rax, cr4
	or	rax, CR4_PCIDE | CR4_PGE
	mov	cr4, rax
	mov	r13d, 0xaaaa
	mov	r14d, 0xbbbb
	mov	rbp, offset pml4 + 1
	mov	r15, offset pml4_b + 2
	alternate 20, rbp, r15
	bts	rbp, 63
	bts	r15, 63
	alternate ROUNDS, rbp, r15
	mov	rax, cr4
	and	rax, ~CR4_PGE
	mov	cr4, rax
	alternate ROUNDS, rbp, r15
	/* a change under the other PCID, forgotten by loading it without bit 63 */
	map	16, 14, RWU, pt_b
	put_function PAGE(14), 0xcccc
	mov	r14d, 0xcccc
	btr	r15, 63
	alternate 20, rbp, r15
	bts	r15, 63
	alternate 20, rbp, r15
	/* the same PCID for both tables, never kept */
	mov	rbp, offset pml4 + 3
	mov	r15, offset pml4_b + 3
	alternate 20, rbp, r15
	map	16, 13, RWU, pt_b
	mov	rax, offset pml4
	mov	cr3, rax
	mov	rax, cr4
	and	rax, ~CR4_PCIDE
	mov	cr4, rax
pcid_done:
	ret

/* A call from one space that returns into another: the address is the stack's, the code CR3's. */
	.macro crosses value
	call	rdi
	mov	eax, \value
	ret
	.endm
crosses_a: crosses 0x1a
crosses_b: crosses 0x1b
crosses_end:

return_into_other_space:
	copy	crosses_a, crosses_b, PAGE(12)
	copy	crosses_b, crosses_end, PAGE(13)
	mov	rdi, offset other_space
	mov	rbp, offset pml4
	mov	r15, offset pml4_b
	mov	rbx, VA(16)
	mov	cr3, rbp
	mov	r12d, ROUNDS
1:	call	rbx
	expect(rax, 0x1b)
	call	rbx
	expect(rax, 0x1a)
	dec	r12d
	jnz	1b
	ret
other_space:
	mov	rax, cr3
	xchg	rbp, r15
	mov	cr3, rbp
	ret

/* ---- with CPL 3 ---- */

/* User code of one length at one address in both spaces; each SYSCALL switches the space and comes back behind itself. */
	.macro caller value
1:	add	r14, \value
	syscall
	jmp	1b
	.endm
caller_a: caller 0x100
caller_b: caller 0x10000
caller_end:

system_calls:
	copy	caller_a, caller_b, PAGE(12)
	copy	caller_b, caller_end, PAGE(13)
	write_msr MSR_STAR, 0x0023000800000000	/* SYSRET: UCODE32, UDATA, UCODE64 */
	mov	rax, offset on_syscall
	mov	[entry], rax
	write_msr MSR_LSTAR, [entry]
	write_msr MSR_SFMASK, 0x47700
	mov	rbp, offset pml4
	mov	r15, offset pml4_b
	xor	r14d, r14d
	mov	r12d, 2 * ROUNDS
	mov	[system_rsp], rsp
	mov	ecx, VA(16)
	mov	r11d, 2
	sysretq
on_syscall:
	xchg	rbp, r15
	mov	cr3, rbp
	dec	r12d
	jz	1f
	sysretq
1:	mov	rsp, [system_rsp]
	mov	eax, KDATA
	mov	ss, eax
	mov	rax, offset pml4
	mov	cr3, rax
	expect(r14, ROUNDS * 0x10100)
	ret

/* The same bytes at the same address by turns as 64-bit and compatibility code at CPL 3, and as both at CPL 0 */
user_modes:
	copy	both_ways, both_ways_end, PAGE(12)
	mov	byte ptr [PAGE(12) + (both_ways_end - both_ways) - 1], 0xcc	/* INT3 for RET */
	mov	r12d, ROUNDS
1:	mov	r13d, UCODE64
	call	user_call
	expect(rax, 110)
	mov	r13d, UCODE32
	call	user_call
	expect(rax, 100)
	test	r12d, 7
	jnz	2f
	/* now and then changed from CPL 0 between two calls, and put back */
	mov	byte ptr [PAGE(12) + 1], 90
	mov	r13d, UCODE32
	call	user_call
	expect(rax, 90)
	mov	r13d, UCODE64
	call	user_call
	expect(rax, 100)
	mov	byte ptr [VA(16) + 1], 100
2:	mov	byte ptr [PAGE(12) + (both_ways_end - both_ways) - 1], 0xc3
	mov	ebx, VA(16)
	call	rbx
	expect(rax, 110)
	begin_32
	call	ebx
	end_32
	expect(rax, 100)
	mov	byte ptr [PAGE(12) + (both_ways_end - both_ways) - 1], 0xcc
	dec	r12d
	jnz	1b
	/* only the modes alternate, nothing is written */
	mov	r12d, ROUNDS
3:	mov	r13d, UCODE64
	call	user_call
	expect(rax, 110)
	mov	r13d, UCODE32
	call	user_call
	expect(rax, 100)
	dec	r12d
	jnz	3b
	ret

/* Runs VA(16) at CPL 3 with CS = R13 until its INT3. */
user_call:
	arm	1f
	push	UDATA
	push	offset user_stack_top
	push	2
	push	r13
	push	VA(16)
	iretq
1:	disarm
	expect([fault_vector], USER_RETURN)
	expect([fault_cs], r13)
	ret

	.bss
	.balign	4096
pml4_b:	.skip	4096
pdpt_b:	.skip	4096
pd_b:	.skip	4096
pt_b:	.skip	4096
entry:	.skip	8
system_rsp: .skip 8
