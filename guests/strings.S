/*
 * String instructions: forms, directions, page crossings, and faults in the middle, after which RCX, RSI and
 * RDI say exactly how far it got (SDM vol. 2, REP).
 */
#include "lib.h"
GUEST(strings)

/* TEST_VA: three pages of scratch, the fourth is missing, the fifth is read-only, then one more. */
#define BUFFER (TEST_VA)
#define MISSING (TEST_VA + 0x3000)
#define READONLY (TEST_VA + 0x4000)
#define AFTER (TEST_VA + 0x5000)

guest_main:
	mov	rax, offset scratch + (PTE_P | PTE_W)
	mov	[test_pt], rax
	add	rax, 0x1000
	mov	[test_pt + 8], rax
	add	rax, 0x1000
	mov	[test_pt + 16], rax
	add	rax, 0x1000 - PTE_W
	mov	[test_pt + 32], rax
	add	rax, 0x1000 + PTE_W
	mov	[test_pt + 40], rax
	call	forms
	call	backwards
	call	across_pages
	call	scans
	call	overlap
	call	fault_in_source
	call	fault_in_destination
	call	fault_at_first
	call	fault_backwards
	call	fault_compare
	call	sizes
	call	restart
	ret

forms:
	cld
	mov	rdi, BUFFER
	mov	rax, 0x1122334455667788
	mov	ecx, 4
	rep stosq
	expect(rcx, 0)
	expect(rdi, BUFFER + 32)
	expect([BUFFER + 24], rax)
	mov	rsi, BUFFER
	lodsb
	expect(rax, 0x1122334455667788)
	lodsw
	expect(rax, 0x1122334455666677)
	lodsd
	expect(rax, 0x22334455)
	lodsq
	expect(rax, 0x2233445566778811)
	expect(rsi, BUFFER + 15)
	mov	ecx, 3
	mov	rsi, BUFFER
	rep lodsd		/* the last one stays */
	expect(rax, 0x55667788)
	expect(rsi, BUFFER + 12)
	/* count 0 does nothing, not even touch memory */
	xor	ecx, ecx
	mov	rdi, MISSING
	rep stosb
	expect(rdi, MISSING)
	mov	rsi, MISSING
	rep movsb
	expect(rsi, MISSING)
	stc
	repe cmpsb
	expect_flags(F_CF, F_CF)
	/* flags are those before for MOVS and STOS */
	mov	rdi, BUFFER
	mov	ecx, 2
	stc
	rep stosb
	expect_flags(F_CF, F_CF)
	ret

backwards:
	std
	mov	rax, 0x0102030405060708
	mov	rdi, BUFFER + 0x1000 + 16
	mov	ecx, 5
	rep stosq
	expect(rdi, BUFFER + 0x1000 - 24)
	expect([BUFFER + 0x1000 - 16], rax)
	mov	rsi, BUFFER + 0x1000 + 23
	mov	rdi, BUFFER + 0x2000 + 7
	mov	ecx, 40
	rep movsb
	cld
	expect(rsi, BUFFER + 0x1000 - 17)
	expect(rdi, BUFFER + 0x2000 - 33)
	expect([BUFFER + 0x2000 - 32], rax)
	expect([BUFFER + 0x2000], rax)
	ret

across_pages:
	mov	rdi, BUFFER
	mov	ecx, 0x3000 / 8
	xor	eax, eax
1:	mov	[rdi], rax
	add	rax, 0x0101
	add	rdi, 8
	loop	1b
	/* three pages, misaligned to each other */
	mov	rsi, BUFFER + 5
	mov	rdi, BUFFER + 0x1003
	mov	ecx, 0xff0
	rep movsb
	expect(rsi, BUFFER + 5 + 0xff0)
	expect(rdi, BUFFER + 0x1003 + 0xff0)
	mov	rax, [BUFFER + 5 + 0xfe0]
	expect([BUFFER + 0x1003 + 0xfe0], rax)
	/* an element that lies across two pages */
	mov	rax, 0xfedcba9876543210
	mov	rdi, BUFFER + 0x1000 - 3
	stosq
	expect([BUFFER + 0x1000 - 3], rax)
	mov	rsi, BUFFER + 0x1000 - 3
	mov	rdi, BUFFER + 0x2000 - 5
	movsq
	expect([BUFFER + 0x2000 - 5], rax)
	ret

scans:
	mov	rdi, BUFFER
	mov	ecx, 0x2000
	mov	al, 'x'
	rep stosb
	mov	byte ptr [BUFFER + 0x1234], 'y'
	mov	rdi, BUFFER
	mov	ecx, 0x2000
	mov	al, 'y'
	repne scasb
	expect_flags(F_ZF, F_ZF)
	expect(rdi, BUFFER + 0x1235)
	expect(rcx, 0x2000 - 0x1235)
	mov	rdi, BUFFER
	mov	ecx, 0x1000
	repne scasb
	expect_flags(F_ZF | F_CF, 0)
	expect(rcx, 0)
	mov	rsi, BUFFER
	mov	rdi, BUFFER + 0x1000
	mov	ecx, 0x1000
	repe cmpsb
	expect_flags(F_ZF | F_CF, F_CF)
	expect(rcx, 0x1000 - 0x235)
	expect(rsi, BUFFER + 0x235)
	mov	eax, 'y'
	mov	rdi, BUFFER + 0x1234
	mov	ecx, 5
	repe scasb
	expect(rcx, 3)
	expect_flags(F_ZF, 0)
	ret

/* The destination one element ahead of the source: a fill, whatever the implementation. */
overlap:
	mov	dword ptr [BUFFER], 0x64636261
	mov	rsi, BUFFER
	mov	rdi, BUFFER + 1
	mov	ecx, 31
	rep movsb
	mov	rax, 0x6161616161616161
	expect([BUFFER], rax)
	expect([BUFFER + 24], rax)
	mov	qword ptr [BUFFER], 1
	mov	rsi, BUFFER
	mov	rdi, BUFFER + 8
	mov	ecx, 1000
	rep movsq
	expect([BUFFER + 8000], 1)
	std
	mov	qword ptr [BUFFER + 64], 2
	mov	rsi, BUFFER + 64
	mov	rdi, BUFFER + 56
	mov	ecx, 8
	rep movsq
	cld
	expect([BUFFER], 2)
	ret

fault_in_source:
	mov	qword ptr [MISSING - 8], 0x77
	mov	rsi, MISSING - 24
	mov	rdi, BUFFER
	mov	ecx, 10
	expect_fault(PF, 0, rep movsq)
	expect(rcx, 7)
	expect(rsi, MISSING)
	expect(rdi, BUFFER + 24)
	mov	rax, [fault_cr2]
	expect(rax, MISSING)
	expect([BUFFER + 16], 0x77)
	mov	rsi, MISSING - 100
	mov	ecx, 4096
	expect_fault(PF, 0, rep lodsb)
	expect(rcx, 4096 - 100)
	expect(rsi, MISSING)
	ret

fault_in_destination:
	mov	rdi, MISSING - 24
	mov	rsi, BUFFER
	mov	ecx, 10
	expect_fault(PF, PF_W, rep movsq)
	expect(rcx, 7)
	expect(rsi, BUFFER + 24)
	expect(rdi, MISSING)
	mov	rdi, MISSING - 0x1800
	mov	ecx, 0x4000
	mov	al, 0x5a
	expect_fault(PF, PF_W, rep stosb)
	expect(rcx, 0x4000 - 0x1800)
	expect(rdi, MISSING)
	mov	rax, 0x5a5a5a5a5a5a5a5a
	expect([MISSING - 8], rax)
	mov	rax, [fault_cr2]
	expect(rax, MISSING)
	mov	rdi, READONLY
	mov	ecx, 3
	expect_fault(PF, PF_P | PF_W, rep stosd)
	expect(rcx, 3)
	expect(rdi, READONLY)
	ret

fault_at_first:
	mov	rsi, MISSING
	mov	rdi, READONLY
	mov	ecx, 5
	expect_fault(PF, 0, rep movsb)	/* the source is read first */
	expect(rcx, 5)
	expect(rsi, MISSING)
	expect(rdi, READONLY)
	expect_fault(PF, 0, movsb)
	expect(rsi, MISSING)
	mov	rdi, MISSING + 16
	expect_fault(PF, PF_W, stosd)
	expect(rdi, MISSING + 16)
	mov	rax, [fault_cr2]
	expect(rax, MISSING + 16)
	ret

fault_backwards:
	std
	mov	rsi, READONLY + 8
	mov	rdi, AFTER + 8
	mov	ecx, 8
	expect_fault(PF, 0, rep movsq)
	expect(rcx, 6)
	expect(rsi, READONLY - 8)
	expect(rdi, AFTER - 8)
	std
	mov	rdi, AFTER + 4
	mov	ecx, 8
	expect_fault(PF, PF_P | PF_W, rep stosd)
	expect(rcx, 6)
	expect(rdi, AFTER - 4)
	mov	rax, [fault_flags]
	and	eax, F_DF
	expect(rax, F_DF)
	cld
	ret

fault_compare:
	mov	rdi, MISSING - 0x100
	mov	ecx, 0x1000
	xor	eax, eax
1:	mov	byte ptr [rdi], 1
	inc	rdi
	cmp	rdi, MISSING
	jne	1b
	mov	rdi, MISSING - 0x100
	mov	al, 2
	/* flags are not those of the comparisons made, but those before (SDM vol. 2, REP) */
	cmp	al, al
	expect_fault(PF, 0, repne scasb)
	expect(rcx, 0xf00)
	expect(rdi, MISSING)
	mov	rax, [fault_flags]
	and	eax, F_ZF
	expect(rax, F_ZF)
	mov	rsi, MISSING - 0x10
	mov	rdi, MISSING - 0x100
	mov	ecx, 0x100
	expect_fault(PF, 0, repe cmpsb)
	expect(rcx, 0xf0)
	expect(rsi, MISSING)
	expect(rdi, MISSING - 0xf0)
	ret

/* 32-bit addresses: ECX, ESI and EDI count, and their upper halves are cleared when written. */
sizes:
	mov	rcx, 0x700000002
	mov	rsi, BUFFER
	bts	rsi, 40
	mov	rdi, BUFFER + 0x100
	bts	rdi, 41
	mov	qword ptr [BUFFER], 0x1234
	rep movs dword ptr [edi], dword ptr [esi]
	expect(rcx, 0)
	expect(rsi, BUFFER + 8)
	expect(rdi, BUFFER + 0x108)
	expect([BUFFER + 0x100], 0x1234)
	/* segment overrides reach the source only */
	write_msr MSR_FS_BASE, 0x100
	mov	rsi, BUFFER
	mov	rdi, BUFFER + 0x200
	movs	qword ptr [rdi], qword ptr fs:[rsi]
	expect([BUFFER + 0x200], 0x1234)
	write_msr MSR_FS_BASE, 0
	ret

/* A handler that maps the page and returns: the instruction goes on where it was. */
restart:
	set_gate PF, map_missing
	mov	rdi, MISSING - 0x20
	mov	ecx, 0x40
	mov	eax, 0x33
	rep stosb
	expect(rcx, 0)
	expect(rdi, MISSING + 0x20)
	mov	rax, 0x3333333333333333
	expect([MISSING + 0x18], rax)
	expect([MISSING - 8], rax)
	reset_gate PF
	mov	qword ptr [test_pt + 24], 0
	invlpg	[MISSING]
	ret

map_missing:
	push	rax
	mov	rax, offset scratch + 0x5000 + (PTE_P | PTE_W)
	mov	[test_pt + 24], rax
	pop	rax
	add	rsp, 8
	iretq
