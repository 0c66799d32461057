/*
 * Straight lines of accesses by the same registers: what the soft engine checks once for many must fault as if each were
 * checked.
 */
#include "loops.inc"
GUEST(fields)

guest_main:
	call	fields_across_pages
	call	fields_of_devices
	call	second_member
	call	stack_border
	call	access_rights
	call	far_displacement
	ret

/* Fields of an object whose second page is missing, or read-only. Twice forty times: checks that fail are given up. */
fields_across_pages:
	call	map_pages
	mov	r12d, 40
1:	mov	qword ptr [PTE(2)], 0
	mov	qword ptr [scratch + 0x1ff8], 0
	flush
	mov	rbx, PAGE(2) - 16
	mov	edx, 0x77
	lea	rcx, [r12 + 5]
	arm	3f
	mov	rax, [rbx]
	mov	[rbx + 8], rcx
2:	mov	rdx, [rbx + 16]
	mov	[rbx], rdx
3:	disarm
	mov	rbp, [fault_vector]
	cmp	rbp, PF
	jne	4f
	mov	rbp, [fault_ip]
	cmp	rbp, offset 2b
	jne	4f
	cmp	[rbx + 8], rcx
	jne	4f
	cmp	edx, 0x77
	jne	4f
	dec	r12d
	jnz	1b
4:	expect([fault_vector], PF)
	expect([fault_ip], offset 2b)
	expect([fault_error], 0)
	mov	rax, PAGE(2)
	expect([fault_cr2], rax)
	expect(rdx, 0x77)
	expect([rbx + 8], rcx)
	expect(r12, 0)
	/* read-only: the load does no harm */
	mov	r12d, 40
1:	call	map_pages
	and	byte ptr [PTE(2)], ~PTE_W
	mov	rax, 0x1122334455667788
	mov	[scratch + 0x2000], rax
	flush
	mov	rbx, PAGE(2) - 8
	arm	3f
	mov	[rbx], r12
	mov	rdx, [rbx + 8]
2:	mov	[rbx + 16], rdx
	mov	[rbx], rdx
3:	disarm
	expect([fault_vector], PF)
	expect([fault_ip], offset 2b)
	expect([fault_error], PF_P | PF_W)
	expect([rbx], r12)
	mov	rax, [scratch + 0x2000]
	expect(rdx, rax)
	dec	r12d
	jnz	1b
	/* one that lies across the end, among others */
	call	map_pages
	call	fill
	mov	rbx, PAGE(2) - 20
	mov	rax, [rbx]
	add	rax, [rbx + 8]
	add	rax, [rbx + 16]
	add	[rbx + 17], rax
	mov	rdx, [rbx + 17]
	call	fill
	mov	rsi, offset scratch + 0x2000 - 20
	xor	ecx, ecx
	mov	rcx, [rsi]
	add	rcx, [rsi + 8]
	add	rcx, [rsi + 16]
	add	[rsi + 17], rcx
	expect(rax, rcx)
	mov	rcx, [rsi + 17]
	expect(rdx, rcx)
	ret

/* The second page is the LAPIC's; then both accesses are. */
fields_of_devices:
	call	map_pages
	mov	rax, LAPIC + (PTE_P | PTE_W | PTE_PCD)
	mov	[PTE(2)], rax
	flush
	lapic_read 0x30
	mov	ebp, eax
	mov	r12d, 40
1:	mov	rbx, PAGE(2) - 8
	mov	[rbx], r12
	mov	edx, [rbx + 8 + 0x30]
	mov	rax, [rbx]
	expect(rdx, rbp)
	expect(rax, r12)
	dec	r12d
	jnz	1b
	mov	r12d, 40
1:	mov	rbx, PAGE(2)
	mov	dword ptr [rbx + 0x80], r12d	/* TPR */
	mov	edx, [rbx + 0x30]
	mov	eax, [rbx + 0x80]
	expect(rdx, rbp)
	expect(rax, r12)
	dec	r12d
	jnz	1b
	mov	dword ptr [rbx + 0x80], 0
	call	map_pages
	ret

/* In one page, the second one faults for another reason. */
second_member:
	call	map_pages
	mov	rbx, PAGE(1) + 0x100
	mov	ecx, 0x55
	arm	3f
	mov	[rbx], rcx
2:	movaps	xmm0, [rbx + 8]
	mov	[rbx], rbx
3:	disarm
	expect([fault_vector], GP)
	expect([fault_error], 0)
	expect([fault_ip], offset 2b)
	expect([rbx], rcx)
	/* with something done in C in between */
	mov	qword ptr [rbx], 0
	mov	rax, [rbx]
	arm	3f
	mov	qword ptr [rbx], 1
	mov	qword ptr [rbx + 8], 1
	mov	qword ptr [PTE(1)], 0
	invlpg	[rbx]
2:	mov	qword ptr [rbx], 2
	mov	qword ptr [rbx + 8], 2
3:	disarm
	expect([fault_vector], PF)
	expect([fault_ip], offset 2b)
	expect([fault_error], PF_W)
	call	map_pages
	expect([rbx], 1)
	ret

/* PUSH, CALL, RET and POP where the next page of the stack is missing. */
stack_border:
	set_gate PF, map_missing
	mov	r12d, 40
1:	call	map_pages
	mov	qword ptr [PTE(1)], 0
	mov	qword ptr [seen_count], 0
	flush
	mov	rdx, PAGE(2) + 8
	user(mov rsp, rdx; push 1; 5: push 2; call 4f; pop rbx; pop rcx; int3; 4: push 3; pop rax; ret)
	expect([fault_vector], USER_RETURN)
	expect(rbx, 2)
	expect(rcx, 1)
	expect([seen_count], 1)
	mov	rax, PAGE(2)
	expect(SEEN_SP, rax)
	sub	rax, 8
	expect(SEEN_CR2, rax)
	expect(SEEN_ERROR, PF_W | PF_U)
	/* the return address is what falls into the missing page */
	call	map_pages
	mov	qword ptr [PTE(1)], 0
	flush
	mov	rdx, PAGE(2) + 16
	user(mov rsp, rdx; push 1; push 2; call 4f; pop rbx; pop rcx; int3; 4: push 3; pop rax; ret)
	expect([fault_vector], USER_RETURN)
	expect(rbx, 2)
	expect(rcx, 1)
	expect([seen_count], 2)
	mov	rax, PAGE(2)
	expect(SEEN_SP, rax)
	dec	r12d
	jnz	1b
	reset_gate PF
	ret

/* User pages under SMAP: only between STAC and CLAC. */
access_rights:
	call	map_pages
	cpuid_bit 7, 0, ebx, 20
	jz	6f
	mov	rax, cr4
	or	rax, 1 << 21
	mov	cr4, rax
	and	byte ptr [PTE(1)], ~PTE_U
	flush
	mov	r12d, 40
1:	mov	rbx, PAGE(1) + 0x10
	mov	rsi, PAGE(2) + 0x10
	mov	ecx, 0x66
	arm	3f
	mov	[rbx], r12
	stac
	mov	[rsi], r12
	mov	rax, [rsi]
	mov	[rsi + 8], rax
	mov	rdx, [rbx]
	clac
	mov	[rbx + 8], rdx
2:	mov	rcx, [rsi]
	mov	rcx, [rsi + 8]
3:	disarm
	expect([fault_vector], PF)
	expect([fault_ip], offset 2b)
	expect([fault_error], PF_P)
	expect(rcx, 0x66)
	expect([scratch + 0x2018], r12)
	expect([scratch + 0x1018], r12)
	dec	r12d
	jnz	1b
	mov	rax, cr4
	btr	rax, 21
	mov	cr4, rax
6:	ret

/* Displacements at their lowest: 4 GiB above, another page lies. */
far_displacement:
	call	map_pages
	call	fill
	mov	rax, offset far_pd + (PTE_P | PTE_W)
	mov	[pdpt + 5 * 8], rax
	mov	rax, offset far_pt + (PTE_P | PTE_W)
	mov	[far_pd], rax
	mov	rax, offset scratch + 10 * 0x1000 + (PTE_P | PTE_W | PTE_A | PTE_D)
	mov	[far_pt], rax
	flush
	mov	rbx, TEST_VA + 0x80000100
	mov	rax, [rbx - 0x7ffffffc]
	sub	rbx, 16
	mov	rdx, [rbx - 0x80000000]
	mov	ecx, 3
	mov	[rbx - 0x7ffffff8], rcx
	expect(rax, [scratch + 0x104])
	expect(rdx, [scratch + 0xf0])
	expect([scratch + 0xf8], 3)
	mov	qword ptr [pdpt + 5 * 8], 0
	flush
	ret

	.bss
	.balign	4096
far_pd:	.skip	4096
far_pt:	.skip	4096
