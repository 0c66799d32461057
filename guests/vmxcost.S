/*
 * What a round trip from a guest's guest to its hypervisor costs: a loop over an instruction that leaves, and the same
 * loop in the hypervisor itself, where it does not. Prints lines of hexadecimal numbers for the benchmark:
 *
 *   tsc HZ
 *   cost NAME CYCLES-WITH-VMX CYCLES-WITHOUT      of ROUNDS rounds, the fastest of BATCHES
 *
 * The hypervisor does what each has to: reads the reason, advances RIP, resumes.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxcost)

#define ROUNDS 1000
#define BATCHES 20

#define EPT_RWX 7
#define EPT_WB 0x30
#define EPT_LARGE 0x80
#define MISSING 0x3000000	/* 2 MiB that the guest's guest does not have */

	/* R12D counts; what else an exit changes is RAX, RBX and RDX. */
	.macro loops label, code:vararg
\label:	mov	r12d, ROUNDS
1:	\code
	dec	r12d
	jnz	1b
	hlt
plain_\label:
	mov	r12d, ROUNDS
1:	\code
	dec	r12d
	jnz	1b
	ret
	.endm

	/* @length: of the instruction that leaves, bytes. */
	.macro measure label, length, reason
	mov	qword ptr [l2_rip], offset \label
	mov	qword ptr [length], \length
	mov	qword ptr [reason], \reason
	mov	rbp, offset enter
	call	fastest
	mov	r14, r15
	mov	rbp, offset plain_\label
	call	fastest
	mov	rsi, offset text_\label
	call	print
	mov	rax, r14
	call	print_hex
	mov	al, ' '
	out	0xe9, al
	mov	rax, r15
	call	print_hex
	call	newline
	.endm

	.text
guest_main:
	need_vmx
	mov	eax, 0x15
	cpuid
	mov	esi, eax
	mov	eax, ebx
	imul	rax, rcx
	xor	edx, edx
	test	esi, esi
	jz	2f
	div	rsi
2:	mov	rdi, rax
	mov	rsi, offset text_tsc
	call	print
	mov	rax, rdi
	call	print_hex
	call	newline

	mov	qword ptr [ept4], offset ept3 + EPT_RWX
	mov	qword ptr [ept3], offset ept2 + EPT_RWX
	mov	eax, EPT_RWX | EPT_LARGE | EPT_WB
	mov	rdi, offset ept2
	mov	ecx, 512
3:	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x200000
	loop	3b
	mov	qword ptr [ept2 + (MISSING >> 21) * 8], 0
	call	vmx_begin
	put	EPT_POINTER, (offset ept4 + 0x1e)
	put	VPID, 1
	put	HOST_RIP, "offset leave"
	controls(CPU_HLT | CPU_IO | CPU_SECONDARY, CPU2_EPT | CPU2_VPID)

	measure	vmcall, 3, R_VMCALL
	measure	cpuid, 2, R_CPUID
	measure	port, 2, R_IO
	mov	edi, MISSING
	measure	violation, 2, R_EPT_VIOLATION
	ret

loops	vmcall, vmcall
loops	cpuid, cpuid
loops	port, out 0x80, al
loops	violation, mov eax, [rdi]

/* R15: cycles of the fastest batch of the routine at RBP. Clobbers RAX to RDX, R12, R13. */
fastest:
	mov	r15, -1
	mov	r13d, BATCHES
1:	lfence
	rdtsc
	shl	rdx, 32
	or	rax, rdx
	push	rax
	call	rbp
	lfence
	rdtsc
	shl	rdx, 32
	or	rax, rdx
	pop	rdx
	sub	rax, rdx
	cmp	rax, r15
	cmovb	r15, rax
	dec	r13d
	jnz	1b
	ret

/* One batch in non-root operation. */
enter:	put	GUEST_RIP, [l2_rip]
	put	HOST_RSP, rsp
	mov	qword ptr [exits], 0
	cmp	byte ptr [launched], 0
	jne	1f
	mov	byte ptr [launched], 1
	vmlaunch
	jmp	2f
1:	vmresume
2:	fail()
	ret
leave:	mov	eax, EXIT_REASON
	vmread	rdx, rax
	cmp	rdx, [reason]
	jne	1f
	inc	qword ptr [exits]
	mov	eax, GUEST_RIP
	vmread	rdx, rax
	add	rdx, [length]
	vmwrite	rax, rdx
	vmresume
1:	expect(rdx, R_HLT)
	expect([exits], ROUNDS)
	expect(r12, 0)
	ret
#include "vmx.inc"
	.section .rodata
text_tsc: .asciz "tsc "
text_vmcall: .asciz "cost VMCALL "
text_cpuid: .asciz "cost CPUID "
text_port: .asciz "cost port-write "
text_violation: .asciz "cost EPT-violation "
	.bss
	.balign 4096
ept4:	.skip 4096
ept3:	.skip 4096
ept2:	.skip 4096
exits:	.skip 8
length:	.skip 8
reason:	.skip 8
