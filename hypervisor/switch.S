/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The world switch.
 *
 * What the processor switches by itself is in the VMCS: RIP, RSP, RFLAGS, control registers, segments,
 * descriptor tables, some MSRs. It leaves the other general registers alone, so they are switched here.
 * Vector registers, CR2 and the other MSRs are host.c's.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>
#include "switch.h"

#undef RAX
#undef RBX
#undef RCX
#undef RDX
#undef RSP
#undef RBP
#undef RSI
#undef RDI

/* What the processor's buffers hold of the host's is not for the guest (MDS and its kin): the kernel's VERW, whose
 * name depends on its version. It changes ZF only. */
#if defined(VM_CLEAR_CPU_BUFFERS)
#define CLEAR_BUFFERS VM_CLEAR_CPU_BUFFERS
#elif defined(CLEAR_CPU_BUFFERS)
#define CLEAR_BUFFERS CLEAR_CPU_BUFFERS
#else
#define CLEAR_BUFFERS
#endif

#define GUEST(number) ((number) * 8)(%rdi)

	.text

/*
 * int world_switch(struct guest_registers *guest, bool launched)
 *
 * Enters the guest of the current VMCS and returns behind its next exit. Interrupts are off.
 * Returns 0 after an exit, 1 if the processor refused the instruction (SDM 3C 30.2, VMfail).
 */
SYM_FUNC_START(world_switch)
	push	%rbp
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%rbx
	push	%rdi				/* found again at the exit, when all registers are the guest's */

	/* The stack is where it was at the last entry, nearly always: VMWRITE costs more than to look. */
	cmp	%rsp, SWITCH_HOST_RSP(%rdi)
	je	1f
	mov	$SWITCH_FIELD_HOST_RSP, %eax
.Lvmwrite:
	vmwrite	%rsp, %rax
	jbe	.Lfail				/* CF or ZF */
	mov	%rsp, SWITCH_HOST_RSP(%rdi)
1:
	cmp	$1, %sil			/* CF: not launched yet; all below leave CF alone */
	mov	GUEST(0), %rax
	mov	GUEST(1), %rcx
	mov	GUEST(2), %rdx
	mov	GUEST(3), %rbx
	mov	GUEST(5), %rbp
	mov	GUEST(6), %rsi
	mov	GUEST(8), %r8
	mov	GUEST(9), %r9
	mov	GUEST(10), %r10
	mov	GUEST(11), %r11
	mov	GUEST(12), %r12
	mov	GUEST(13), %r13
	mov	GUEST(14), %r14
	mov	GUEST(15), %r15
	mov	GUEST(7), %rdi			/* last: it was the pointer */
	UNWIND_HINT_SAVE
	CLEAR_BUFFERS
	jc	.Lvmlaunch
.Lvmresume:
	vmresume
	jmp	.Lfail
.Lvmlaunch:
	vmlaunch
	jmp	.Lfail

	/* Outside VMX operation (vmcs.h: VMX_INSTRUCTION). */
	_ASM_EXTABLE(.Lvmwrite, .Lfail)
	_ASM_EXTABLE(.Lvmresume, .Lfail)
	_ASM_EXTABLE(.Lvmlaunch, .Lfail)

	/* The VMCS field HOST_RIP points here. */
SYM_INNER_LABEL(world_switch_exit, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR			/* no branch comes here */
	UNWIND_HINT_RESTORE
	push	%rdi
	mov	8(%rsp), %rdi
	mov	%rax, GUEST(0)
	mov	%rcx, GUEST(1)
	mov	%rdx, GUEST(2)
	mov	%rbx, GUEST(3)
	mov	%rbp, GUEST(5)
	mov	%rsi, GUEST(6)
	pop	GUEST(7)
	mov	%r8, GUEST(8)
	mov	%r9, GUEST(9)
	mov	%r10, GUEST(10)
	mov	%r11, GUEST(11)
	mov	%r12, GUEST(12)
	mov	%r13, GUEST(13)
	mov	%r14, GUEST(14)
	mov	%r15, GUEST(15)

	/* No value that a guest has chosen stays in a register for the host to speculate with, no return address of
	 * its own in the return stack, none of its branches in the history: before the first RET. The callee-saved
	 * registers come back by the POPs. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	xor	%ebx, %ebx
	xor	%ebp, %ebp
	xor	%r12d, %r12d
	xor	%r13d, %r13d
	xor	%r14d, %r14d
	xor	%r15d, %r15d
	call	host_restrict_speculation
#ifdef X86_FEATURE_CLEAR_BHB_LOOP_ON_VMEXIT
	CLEAR_BRANCH_HISTORY_VMEXIT
#endif
	xor	%eax, %eax

.Lleave:
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d
	add	$8, %rsp
	pop	%rbx
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	pop	%rbp
	RET

.Lfail:
	mov	$1, %eax
	jmp	.Lleave
SYM_FUNC_END(world_switch)
