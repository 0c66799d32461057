/*
 * Events and VMX (SDM vol. 3C chapters 26 to 28): exceptions, interrupts and windows that leave, events that VM entry
 * injects, entries that fail late, activity and interruptibility, timer and trap flag.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxevents)

#define VECTOR 0x40
#define INFO_VALID 0x80000000

	.macro pin bits
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, \bits
	.endm

	/* An interrupt or NMI for this processor, by its LAPIC. */
	.macro send_interrupt
	lapic_write 0x310, 0
	lapic_write 0x300, VECTOR
	.endm
	.macro nmi_to_itself		/* RDI: the LAPIC */
	mov	dword ptr [rdi + 0x310], 0
	mov	dword ptr [rdi + 0x300], 0x400
	.endm


	.text
guest_main:
	need_vmx
	call	vmx_begin
	lapic_write 0xf0, 0x1ff

	/* ---- exceptions: bitmap, error codes, page faults by mask and match ---- */
	put	EXCEPTION_BITMAP, ((1 << UD) | (1 << BP_VECTOR) | (1 << GP) | (1 << DB) | (1 << DE))
	l2(ud2)
	expect([x_reason], R_EXCEPTION)
	mov	eax, INFO_VALID | 0x306
	expect([x_interruption], rax)
	expect_rip(7b)
	l2(int3)
	expect([x_reason], R_EXCEPTION)
	mov	eax, INFO_VALID | 0x603
	expect([x_interruption], rax)
	expect([x_length], 1)
	expect_rip(7b)
	l2(.byte 0xf1)			/* INT1 */
	mov	eax, INFO_VALID | 0x501
	expect([x_interruption], rax)
	expect([x_length], 1)
	xor	ecx, ecx
	l2(div ecx)			/* a fault of the host's processor */
	mov	eax, INFO_VALID | 0x300
	expect([x_interruption], rax)
	expect_rip(7b)
	mov	ecx, 0x28 | 0x200	/* beyond the GDT */
	l2(mov ds, ecx)
	mov	eax, INFO_VALID | 0xb0d
	expect([x_interruption], rax)
	expect([x_error], 0x228)
	mov	rax, GUEST_RFLAGS
	vmread	rbx, rax
	and	ebx, F_RF
	expect(rbx, F_RF)
	mov	qword ptr [l2_rflags], F_TF | 2
	l2(nop; 6: nop)			/* single step */
	mov	eax, INFO_VALID | 0x301
	expect([x_interruption], rax)
	expect([x_qualification], 0x4000)
	expect_rip(6b)
	mov	rax, dr6
	and	eax, 0x4000
	expect(rax, 0)
	mov	qword ptr [l2_rflags], 2

	mov	rsi, TEST_VA		/* not mapped */
	put	EXCEPTION_BITMAP, (1 << PF)
	l2(mov rcx, [rsi + 8])
	mov	eax, INFO_VALID | 0xb0e
	expect([x_interruption], rax)
	expect([x_qualification], TEST_VA + 8)
	expect([x_error], 0)
	l2(mov [rsi], rcx)
	expect([x_error], PF_W)
	put	PAGE_FAULT_MASK, PF_W	/* those of reads only */
	put	PAGE_FAULT_MATCH, 0
	l2(mov rcx, [rsi])
	expect([x_reason], R_EXCEPTION)
	put	EXCEPTION_BITMAP, 0	/* now those of writes only */
	l2(mov [rsi], rcx)
	expect([x_reason], R_EXCEPTION)
	expect([x_error], PF_W)
	put	PAGE_FAULT_MASK, 0

	/* ---- exceptions while another is delivered ---- */
	put	GUEST_IDTR_LIMIT, 0	/* there is no gate */
	put	EXCEPTION_BITMAP, (1 << GP)
	l2(ud2)
	expect([x_reason], R_EXCEPTION)
	mov	eax, INFO_VALID | 0xb0d
	expect([x_interruption], rax)
	expect([x_error], (UD * 8 + 3))
	mov	eax, INFO_VALID | 0x306
	expect([x_vectoring], rax)
	l2(int 0x50)
	mov	eax, INFO_VALID | 0x450
	expect([x_vectoring], rax)
	expect([x_length], 2)
	expect([x_error], (0x50 * 8 + 2))
	expect_rip(7b)
	put	EXCEPTION_BITMAP, (1 << DF)
	mov	ecx, 0x228
	l2(mov ds, ecx)			/* #GP, then #GP: #DF */
	mov	eax, INFO_VALID | 0xb08
	expect([x_interruption], rax)
	expect([x_error], 0)
	expect([x_vectoring], 0)
	put	EXCEPTION_BITMAP, 0
	l2(ud2)
	expect([x_reason], R_TRIPLE_FAULT)
	expect([x_vectoring], 0)
	put	GUEST_IDTR_LIMIT, 0xfff

	/* ---- external interrupts ---- */
	pin	PIN_INTERRUPT
	send_interrupt
	l2(nop)				/* IF is 0 */
	expect([x_reason], R_INTERRUPT)
	expect([x_interruption], 0)
	expect([x_length], 0)
	expect_rip(7b)
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64 | EXIT_ACK
	l2(nop)				/* it still waits; taken now */
	mov	eax, INFO_VALID | VECTOR
	expect([x_interruption], rax)
	lapic_write 0xb0, 0
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64
	runs(nop)
	pin	0
	mov	qword ptr [irq_total], 0
	send_interrupt
	runs(nop)			/* waits for IF */
	expect(qword ptr [irq_total], 0)
	runs(sti; nop; nop; cli)	/* the guest's guest takes it */
	expect(qword ptr [irq_total], 1)
	expect(qword ptr [irq_vector], VECTOR)

	/* ---- interrupt window ---- */
	controls(CPU_INT_WINDOW, 0)
	l2(cli; sti; nop; 6: nop)	/* behind STI's shadow */
	expect([x_reason], R_INT_WINDOW)
	expect_rip(6b)
	mov	qword ptr [l2_rflags], F_IF | 2
	l2(nop)
	expect([x_reason], R_INT_WINDOW)
	expect_rip(7b)
	put	GUEST_INTERRUPTIBILITY, 2	/* MOV SS */
	l2(nop; 6: nop)
	expect([x_reason], R_INT_WINDOW)
	expect_rip(6b)
	mov	qword ptr [l2_rflags], 2
	l2(push F_IF | 2; popf; 6: nop)
	expect([x_reason], R_INT_WINDOW)
	expect_rip(6b)
	controls(0, 0)

	/* ---- NMIs, virtual NMIs, their window ---- */
	pin	PIN_NMI
	mov	edi, LAPIC
	l2(nmi_to_itself; nop)
	expect([x_reason], R_EXCEPTION)
	mov	eax, INFO_VALID | 0x202
	expect([x_interruption], rax)
	call	unblock_nmis
	pin	PIN_NMI | PIN_VIRTUAL_NMI
	controls(CPU_NMI_WINDOW, 0)
	l2(nop)
	expect([x_reason], R_NMI_WINDOW)
	expect_rip(7b)
	put	GUEST_INTERRUPTIBILITY, 8	/* blocked */
	l2(nop; mov rcx, rsp; push KDATA; push rcx; pushf; push KCODE64; push offset 6f; iretq; 6: nop)
	expect([x_reason], R_NMI_WINDOW)
	expect_rip(6b)
	put	GUEST_INTERRUPTIBILITY, 8
	l2(nmi_to_itself; nop)		/* what is blocked is virtual */
	expect([x_reason], R_EXCEPTION)
	mov	rax, GUEST_INTERRUPTIBILITY
	vmread	rbx, rax
	expect(rbx, 8)
	call	unblock_nmis
	pin	PIN_NMI | PIN_VIRTUAL_NMI
	controls(0, 0)
	put	GUEST_INTERRUPTIBILITY, 8
	put	EXCEPTION_BITMAP, (1 << GP)
	l2(push 0; push 2; push 0x228; push 0; iretq)	/* faults, having unblocked */
	mov	eax, INFO_VALID | 0x1b0d
	expect([x_interruption], rax)
	put	EXCEPTION_BITMAP, 0
	put	GUEST_INTERRUPTIBILITY, 0
	pin	0

	/* ---- shadows as exits tell of them ---- */
	controls(CPU_HLT, 0)
	l2(sti; 6: hlt)
	expect([x_reason], R_HLT)
	expect_rip(6b)
	mov	rax, GUEST_INTERRUPTIBILITY
	vmread	rbx, rax
	expect(rbx, 1)
	put	GUEST_INTERRUPTIBILITY, 0
	l2(cli; sti; mov ecx, edx; 6: hlt)	/* over behind one that does not leave */
	expect([x_reason], R_HLT)
	expect_rip(6b)
	mov	rax, GUEST_INTERRUPTIBILITY
	vmread	rbx, rax
	expect(rbx, 0)
	put	EXCEPTION_BITMAP, (1 << UD)
	l2(cli; sti; 6: ud2)
	expect([x_reason], R_EXCEPTION)
	expect_rip(6b)
	mov	rax, GUEST_INTERRUPTIBILITY
	vmread	rbx, rax
	expect(rbx, 1)
	put	GUEST_INTERRUPTIBILITY, 0
	put	EXCEPTION_BITMAP, 0
	l2(mov ecx, ss; mov ss, ecx; 6: hlt)
	expect_rip(6b)
	mov	rax, GUEST_INTERRUPTIBILITY
	vmread	rbx, rax
	expect(rbx, 2)
	put	GUEST_INTERRUPTIBILITY, 0
	controls(0, 0)

	/* ---- injection ---- */
	mov	qword ptr [irq_total], 0
	mov	qword ptr [l2_rflags], F_IF | 2
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x55)
	runs(nop)
	expect(qword ptr [irq_total], 1)
	expect(qword ptr [irq_vector], 0x55)
	expect(qword ptr [irq_ip], offset 7b)
	mov	rax, ENTRY_INTR_INFO	/* valid no longer */
	vmread	rbx, rax
	expect(rbx, 0x55)
	mov	qword ptr [l2_rflags], 2
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x202)
	runs(nop)
	expect(qword ptr [irq_vector], NMI)
	mov	rax, GUEST_INTERRUPTIBILITY	/* the handler's IRET has unblocked */
	vmread	rbx, rax
	expect(rbx, 0)
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x450)	/* INT 50H, of 2 bytes */
	put	ENTRY_LENGTH, 2
	runs(int 0x66; nop)
	expect(qword ptr [irq_vector], 0x50)
	expect(qword ptr [irq_ip], offset 7b + 2)
	put	ENTRY_INTR_INFO, (INFO_VALID | 0xb0d)
	put	ENTRY_ERROR, 0x1234
	.macro injected_fault		/* comes back in non-root operation */
	mov	qword ptr [fault_vector], NONE
	mov	qword ptr [fault_resume], offset l2_resumed
	mov	qword ptr [fault_sp], offset l2_stack_top
	.endm
	injected_fault
	runs(nop)
	disarm
	expect(qword ptr [fault_vector], GP)
	expect(qword ptr [fault_error], 0x1234)
	expect(qword ptr [fault_ip], offset 7b)
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x603)	/* INT3 */
	put	ENTRY_LENGTH, 1
	injected_fault
	runs(int3; nop)
	disarm
	expect(qword ptr [fault_vector], BP_VECTOR)
	expect(qword ptr [fault_ip], offset 7b + 1)
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x306)	/* the bitmap is not asked for what is injected */
	put	EXCEPTION_BITMAP, (1 << UD)
	injected_fault
	runs(nop)
	disarm
	expect(qword ptr [fault_vector], UD)
	put	EXCEPTION_BITMAP, (1 << GP)		/* ... but for what its delivery meets */
	put	GUEST_IDTR_LIMIT, 0
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x306)
	l2(nop)
	expect([x_reason], R_EXCEPTION)
	mov	eax, INFO_VALID | 0x306
	expect([x_vectoring], rax)
	expect_rip(7b)
	put	EXCEPTION_BITMAP, 0
	put	GUEST_IDTR_LIMIT, 0xfff

	/* ---- pending debug exceptions ---- */
	put	EXCEPTION_BITMAP, (1 << DB)
	put	GUEST_PENDING_DEBUG, 0x4000
	mov	qword ptr [l2_rflags], F_TF | 2
	l2(nop)
	expect([x_reason], R_EXCEPTION)
	expect([x_qualification], 0x4000)
	expect_rip(7b)
	put	GUEST_PENDING_DEBUG, 0
	mov	qword ptr [l2_rflags], 2
	put	EXCEPTION_BITMAP, 0

	/* ---- monitor trap flag ---- */
	controls(CPU_MTF, 0)
	l2(nop; 6: nop)
	expect([x_reason], R_MTF)
	expect_rip(6b)
	expect([x_length], 0)
	l2(jmp 6f; nop; 6: nop)
	expect_rip(6b)
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x55)	/* behind the delivery */
	mov	qword ptr [l2_rflags], F_IF | 2
	l2(nop)
	expect([x_reason], R_MTF)
	expect([x_rip], offset stubs + 0x55 * 16)
	mov	qword ptr [l2_rflags], 2
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x700)	/* before the first instruction */
	l2(nop)
	expect([x_reason], R_MTF)
	expect_rip(7b)
	controls(0, 0)

	/* ---- preemption timer ---- */
	pin	PIN_TIMER
	put	PREEMPTION_TIMER, 0
	l2(nop)
	expect([x_reason], R_TIMER)
	expect_rip(7b)
	put	PREEMPTION_TIMER, 100000
	l2(1: jmp 1b)			/* translated code, chained to itself */
	expect([x_reason], R_TIMER)
	put	PREEMPTION_TIMER, 100000
	put	GUEST_ACTIVITY, 1
	l2(nop)				/* out of HLT */
	expect([x_reason], R_TIMER)
	mov	rax, GUEST_ACTIVITY
	vmread	rbx, rax
	expect(rbx, 1)
	put	GUEST_ACTIVITY, 0
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64 | EXIT_SAVE_TIMER
	put	PREEMPTION_TIMER, 0x7fffffff
	runs(nop)
	mov	rax, PREEMPTION_TIMER
	vmread	rbx, rax
	cmp	rbx, 0x7fffffff
	setb	al
	cmp	rbx, 0x70000000
	seta	ah
	movzx	eax, ax
	expect(rax, 0x101)
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64
	pin	0

	/* ---- HLT as the guest's guest does it ---- */
	pin	PIN_INTERRUPT
	send_interrupt
	put	GUEST_ACTIVITY, 1
	l2(nop)
	expect([x_reason], R_INTERRUPT)
	mov	rax, GUEST_ACTIVITY
	vmread	rbx, rax
	expect(rbx, 1)
	sti				/* taken here */
	nop
	cli
	put	GUEST_ACTIVITY, 0
	pin	0

	/* ---- entries that fail late ---- */
	put	GUEST_RFLAGS, 0		/* run() writes it again */
	mov	qword ptr [l2_rflags], 0
	l2(nop)
	mov	eax, 0x80000000 | R_BAD_GUEST
	expect([x_reason], rax)
	expect([x_qualification], 0)
	mov	qword ptr [l2_rflags], 2
	put	VMCS_LINK_POINTER, 0
	l2(nop)
	mov	eax, 0x80000000 | R_BAD_GUEST
	expect([x_reason], rax)
	expect([x_qualification], 4)
	put	VMCS_LINK_POINTER, -1
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x202)
	put	GUEST_INTERRUPTIBILITY, 1
	mov	qword ptr [l2_rflags], F_IF | 2
	l2(nop)
	mov	eax, 0x80000000 | R_BAD_GUEST
	expect([x_reason], rax)
	expect([x_qualification], 3)
	mov	qword ptr [l2_rflags], 2
	put	GUEST_INTERRUPTIBILITY, 0
	put	ENTRY_INTR_INFO, 0
	mov	dword ptr [msrs], MSR_STAR
	mov	dword ptr [msrs + 16], MSR_FS_BASE	/* may not be in a list */
	put	ENTRY_MSR_LOAD_ADDRESS, "offset msrs"
	put	ENTRY_MSR_LOAD_COUNT, 2
	l2(nop)
	mov	eax, 0x80000000 | R_BAD_MSR
	expect([x_reason], rax)
	expect([x_qualification], 2)

	/* ---- MSR areas ---- */
	read_msr MSR_STAR
	mov	[old_star], rax
	mov	dword ptr [msrs], MSR_STAR
	mov	rax, 0x1122334455667788
	mov	[msrs + 8], rax
	put	ENTRY_MSR_LOAD_COUNT, 1
	mov	dword ptr [stored], MSR_STAR
	put	EXIT_MSR_STORE_ADDRESS, "offset stored"
	put	EXIT_MSR_STORE_COUNT, 1
	mov	dword ptr [host_msrs], MSR_STAR
	mov	rax, [old_star]
	mov	[host_msrs + 8], rax
	put	EXIT_MSR_LOAD_ADDRESS, "offset host_msrs"
	put	EXIT_MSR_LOAD_COUNT, 1
	runs(nop)
	mov	rax, [stored + 8]
	expect(rax, [msrs + 8])
	read_msr MSR_STAR
	expect(rax, [old_star])
	put	ENTRY_MSR_LOAD_COUNT, 0
	put	EXIT_MSR_STORE_COUNT, 0
	put	EXIT_MSR_LOAD_COUNT, 0

	/* ---- the host's state behind an exit ---- */
	mov	rax, dr7
	expect(rax, 0x400)
	sgdt	[stored]
	movzx	eax, word ptr [stored]
	expect(rax, 0xffff)
	pushf
	pop	rax
	and	eax, F_IF | F_TF | F_DF
	expect(rax, 0)
	lgdt	[gdt_pointer]
	lidt	[idt_pointer]

	/* ---- CPL 3: VMCALL leaves too ---- */
	put	GUEST_CS_SELECTOR, UCODE64
	put	GUEST_CS_ACCESS, 0xa0fb
	put	GUEST_SS_SELECTOR, UDATA
	put	GUEST_SS_ACCESS, 0xc0f3
	mov	qword ptr [l2_rip], offset user_vmcall
	call	run
	expect([x_reason], R_VMCALL)
	mov	rax, GUEST_SS_ACCESS
	vmread	rbx, rax
	expect(rbx, 0xc0f3)
	ret

l2_resumed:
	vmcall
	hlt

/* An NMI exit has blocked NMIs: IRET unblocks. Clobbers RAX. */
unblock_nmis:
	pop	qword ptr [return_address]
	mov	rax, rsp
	push	KDATA
	push	rax
	pushf
	push	KCODE64
	push	[return_address]
	iretq
#include "vmx.inc"
	.section .user, "awx"
user_vmcall:
	vmcall
	.bss
	.balign 16
msrs:	.skip 32
stored:	.skip 32
host_msrs: .skip 16
old_star: .skip 8
return_address: .skip 8
