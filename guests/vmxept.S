/*
 * EPT and what needs it (SDM vol. 3C 26.5.5, 30.3, 30.4): violations, misconfigurations, EPTP switching; real mode and
 * task switches of an unrestricted guest; the APIC-access page; VMCS shadowing.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxept)

#define EPT_RWX 7
#define EPT_LARGE 0x80
#define EPT_WB 0x30
#define EPT_ACCESSED 0x100
#define EPT_DIRTY 0x200
#define EPT_EXEC_USER 0x400
#define EPTP_WB_4 0x1e
#define EPTP_AD 0x40

/* A page of guest-physical memory that the tests map as they like: the last one of the first 2 MiB. */
#define PAGE 0x1ff000

	/* Without bits 11:9, which not all processors have. Clobbers RAX. */
#define expect_violation(want) mov rax, [x_qualification]; and eax, 0x1ff; expect(rax, want)

	.text
guest_main:
	need_vmx
	call	vmx_begin

	/* identity, but for the tests' page: 0-2 MiB in small pages, up to 1 GiB and 3-4 GiB in large ones */
	mov	qword ptr [ept4], offset ept3 + EPT_RWX
	mov	qword ptr [ept3], offset ept2 + EPT_RWX
	mov	rax, 0xc0000000 | EPT_RWX | EPT_LARGE
	mov	[ept3 + 24], rax
	mov	qword ptr [ept2], offset ept1 + EPT_RWX
	mov	eax, 0x200000 | EPT_RWX | EPT_LARGE | EPT_WB
	mov	rdi, offset ept2 + 8
	mov	ecx, 511
2:	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x200000
	loop	2b
	mov	eax, EPT_RWX | EPT_WB
	mov	rdi, offset ept1
	mov	ecx, 511
3:	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x1000
	loop	3b
	put	EPT_POINTER, (offset ept4 + EPTP_WB_4)
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID)
	put	VPID, 1

	/* ---- violations ---- */
	mov	rsi, PAGE
	l2(mov rcx, [rsi + 0x18])
	expect([x_reason], R_EPT_VIOLATION)
	expect_violation(0x181)	/* read; nothing allowed; linear address, its translation */
	expect([x_physical], PAGE + 0x18)
	expect([x_linear], PAGE + 0x18)
	expect_rip(7b)
	l2(mov [rsi], rcx)
	expect_violation(0x182)
	l2(call rsi)
	expect_violation(0x184)
	expect([x_rip], PAGE)
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + 5	/* R, X */
	call	invalidate
	mov	qword ptr [PAGE + 8], 0x77
	l2(mov rcx, [rsi + 8]; 6: mov [rsi], rcx)
	expect([x_reason], R_EPT_VIOLATION)
	expect_violation(0x1aa)
	expect(rcx, 0x77)
	expect_rip(6b)
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + 7
	call	invalidate
	runs(mov dword ptr [rsi], 0x11; mov rcx, [rsi])
	expect(rcx, 0x11)

	/* through the guest's own tables: the page-table walk's access */
	mov	rbp, cr3
	mov	rcx, [pml4]
	mov	[PAGE], rcx
	put	GUEST_CR3, PAGE
	runs(nop)
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], 0
	call	invalidate
	l2(nop)
	expect([x_reason], R_EPT_VIOLATION)
	mov	rax, [x_qualification]
	and	eax, 0x180
	expect(rax, 0x80)		/* not the final translation */
	mov	rax, [x_physical]
	and	rax, ~0xfff
	expect(rax, PAGE)
	put_register GUEST_CR3, rbp

	/* while an event is delivered */
	put	GUEST_IDTR_BASE, PAGE
	l2(int 0x50)
	expect([x_reason], R_EPT_VIOLATION)
	mov	eax, 0x80000450
	expect([x_vectoring], rax)
	expect([x_length], 2)
	expect([x_physical], PAGE + 0x500)
	put	GUEST_IDTR_BASE, "offset idt"

	/* ---- misconfigurations ---- */
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + 2	/* W without R */
	call	invalidate
	l2(mov rcx, [rsi])
	expect([x_reason], R_EPT_MISCONFIG)
	expect([x_qualification], 0)
	expect([x_physical], PAGE)
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + 7 + 0x10	/* memory type 2 */
	call	invalidate
	l2(mov rcx, [rsi])
	expect([x_reason], R_EPT_MISCONFIG)
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + 7 + EPT_WB
	call	invalidate
	runs(mov rcx, [rsi])

	/* ---- execution by mode ---- */
	.irp	table, ept4, ept3, ept2
	or	qword ptr [\table], EPT_EXEC_USER
	.endr
	mov	dword ptr [PAGE], 0x00c1010f	/* VMCALL */
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID | CPU2_MBEC)
	mov	rsi, PAGE
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + 1 + EPT_EXEC_USER + EPT_WB
	call	invalidate
	l2(jmp rsi)			/* a supervisor's page */
	expect([x_reason], R_EPT_VIOLATION)
	expect_violation(0x1cc)
	or	qword ptr [pt0 + (PAGE >> 12) * 8], PTE_U	/* a user's */
	call	invalidate
	l2(jmp rsi)
	expect([x_reason], R_VMCALL)
	mov	qword ptr [ept1 + (PAGE >> 12) * 8], PAGE + EPT_RWX + EPT_WB
	call	invalidate
	l2(jmp rsi)
	expect([x_reason], R_EPT_VIOLATION)
	expect_violation(0x1bc)
	and	qword ptr [pt0 + (PAGE >> 12) * 8], ~PTE_U
	call	invalidate
	l2(jmp rsi)
	expect([x_reason], R_VMCALL)
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID)

	/* ---- page-modification logging ---- */
	put	EPT_POINTER, (offset ept4 + EPTP_WB_4 + EPTP_AD)
	mov	rsi, PAGE
	runs(mov [rsi], ecx)		/* the flags of all that the guest's guest needs are set */
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID | CPU2_PML)
	put	PML_ADDRESS, "offset pml_log"
	put	PML_INDEX, 511
	call	clean
	runs(mov ecx, [rsi])		/* reading is not logged */
	expect_field(PML_INDEX, 511)
	runs(mov [rsi + 0x18], ecx; mov [rsi + 8], ecx)
	expect_field(PML_INDEX, 510)
	expect([pml_log + 511 * 8], PAGE)
	expect([pml_log + 510 * 8], 0)
	put	PML_INDEX, 0
	call	clean
	runs(mov [rsi], ecx)
	expect([pml_log], PAGE)
	expect_field(PML_INDEX, 0xffff)
	runs(mov [rsi], ecx)		/* it is dirty already */
	call	clean
	mov	qword ptr [PAGE], 0x3333
	l2(nop; 6: mov dword ptr [rsi], 0x4444)
	expect([x_reason], R_PML_FULL)
	expect([x_qualification], 0)
	expect_rip(6b)
	expect([PAGE], 0x3333)
	mov	rax, [ept1 + (PAGE >> 12) * 8]
	and	eax, EPT_ACCESSED | EPT_DIRTY
	expect(rax, EPT_ACCESSED)
	and	qword ptr [ept1 + (PAGE >> 12) * 8], ~EPT_ACCESSED
	call	invalidate
	l2(mov ecx, [rsi])		/* nor can the accessed flag be set */
	expect([x_reason], R_PML_FULL)
	expect_rip(7b)
	or	qword ptr [pt0 + (PAGE >> 12) * 8], PTE_U	/* the same for a program */
	or	qword ptr [ept1 + (PAGE >> 12) * 8], EPT_ACCESSED
	put	GUEST_CS_SELECTOR, UCODE64
	put	GUEST_CS_ACCESS, 0xa0fb
	put	GUEST_SS_SELECTOR, UDATA
	put	GUEST_SS_ACCESS, 0xc0f3
	put	PML_INDEX, 0xffff
	mov	qword ptr [l2_rip], offset user_store
	call	clean
	call	run
	expect([x_reason], R_PML_FULL)
	mov	ecx, 4
	put	PML_INDEX, 3
1:	call	clean				/* each time anew */
	call	run
	expect([x_reason], R_VMCALL)
	dec	ecx
	jnz	1b
	expect_field(PML_INDEX, 0xffff)
	call	run				/* dirty since the last time */
	expect([x_reason], R_VMCALL)
	call	clean
	call	run
	expect([x_reason], R_PML_FULL)
	put	GUEST_CS_SELECTOR, KCODE64
	put	GUEST_CS_ACCESS, 0xa09b
	put	GUEST_SS_SELECTOR, KDATA
	put	GUEST_SS_ACCESS, 0xc093
	and	qword ptr [pt0 + (PAGE >> 12) * 8], ~PTE_U

	put	EPT_POINTER, (offset ept4 + EPTP_WB_4)	/* no flags, no log */
	runs(mov [rsi], ecx)
	controls(CPU_SECONDARY, CPU2_PML)
	put	VPID, 0
	l2(nop)
	mov eax, 0x80000007; expect([x_reason], rax)	/* refused without EPT */
	put	VPID, 1

	/* ---- EPTP switching ---- */
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID | CPU2_VMFUNC)
	put	VM_FUNCTION_CONTROLS, 1
	put	EPTP_LIST_ADDRESS, "offset eptp_list"
	mov	qword ptr [eptp_list], offset ept4 + EPTP_WB_4
	mov	qword ptr [eptp_list + 8], offset ept4b + EPTP_WB_4
	mov	rax, offset ept3b + EPT_RWX	/* another view: the page is scratch */
	mov	[ept4b], rax
	mov	rax, offset ept2b + EPT_RWX
	mov	[ept3b], rax
	mov	rax, offset ept1b + EPT_RWX
	mov	[ept2b], rax
	mov	rsi, offset ept1
	mov	rdi, offset ept1b
	mov	ecx, 512
	rep movsq
	mov	rax, offset scratch + EPT_RWX
	mov	[ept1b + (PAGE >> 12) * 8], rax
	mov	qword ptr [scratch], 0x2222
	mov	qword ptr [PAGE], 0x1111
	mov	rsi, PAGE
	runs(mov rdx, [rsi]; xor eax, eax; mov ecx, 1; vmfunc; mov r8, [rsi]; xor ecx, ecx; vmfunc; mov r9, [rsi])
	expect(rdx, 0x1111)
	expect(r8, 0x2222)
	expect(r9, 0x1111)
	mov	eax, 0
	mov	ecx, 2			/* no EPTP there */
	expect_exit(R_VMFUNC, 0, 3, 0, vmfunc)
	mov	ecx, 512
	expect_exit(R_VMFUNC, 0, 3, 0, vmfunc)
	mov	eax, 1			/* another function */
	expect_exit(R_VMFUNC, 0, 3, 0, vmfunc)
	put	VM_FUNCTION_CONTROLS, 0
	put	EPT_POINTER, (offset ept4 + EPTP_WB_4)

	/* ---- APIC-access page ---- */
	controls(CPU_SECONDARY | CPU_TPR_SHADOW, CPU2_EPT | CPU2_VPID | CPU2_APIC_ACCESS)
	put	APIC_ACCESS_ADDRESS, PAGE
	put	VIRTUAL_APIC_ADDRESS, "offset scratch"
	put	TPR_THRESHOLD, 0
	mov	dword ptr [scratch + 0x80], 0x50
	mov	rsi, PAGE
	l2(mov ecx, [rsi + 0x20])
	expect([x_reason], R_APIC_ACCESS)
	expect([x_qualification], 0x20)
	expect_rip(7b)
	l2(mov [rsi + 0x300], ecx)
	expect([x_reason], R_APIC_ACCESS)
	expect([x_qualification], 0x1300)
	l2(jmp rsi)
	expect([x_reason], R_APIC_ACCESS)
	expect([x_qualification], 0x2000)
	runs(mov ecx, [rsi + 0x80]; mov dword ptr [rsi + 0x80], 0x60)
	expect(rcx, 0x50)
	mov	ecx, [scratch + 0x80]
	expect(rcx, 0x60)
	put	TPR_THRESHOLD, 4
	l2(mov dword ptr [rsi + 0x80], 0x30; 6: nop)
	expect([x_reason], R_TPR)
	expect_rip(6b)
	l2(nop)				/* VM entry finds it below */
	expect([x_reason], R_TPR)
	expect_rip(7b)
	put	TPR_THRESHOLD, 0
	mov	rcx, cr3
	put_register APIC_ACCESS_ADDRESS, rcx
	.rept	2			/* the second time it is known to be there */
	l2(nop)				/* a page walk comes to it */
	expect([x_reason], R_APIC_ACCESS)
	expect([x_qualification], 0xf000)
	expect_rip(7b)
	.endr
	put	APIC_ACCESS_ADDRESS, PAGE
	runs(mov ecx, [rsi + 0x80])

	/* ---- VMCS shadowing ---- */
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID | CPU2_SHADOWING)
	mov	eax, [vmcs]
	bts	eax, 31
	mov	[shadow], eax
	put	VMCS_LINK_POINTER, "offset shadow"
	put	VMREAD_BITMAP, "offset vmread_bitmap"
	put	VMWRITE_BITMAP, "offset vmwrite_bitmap"
	or	byte ptr [vmwrite_bitmap + GUEST_RSP / 8], 1 << (GUEST_RSP & 7)
	mov	eax, GUEST_RIP
	mov	ebx, 0x4321
	runs(vmwrite rax, rbx; vmread rcx, rax)
	expect(rcx, 0x4321)
	mov	eax, GUEST_RSP
	expect_exit(R_VMWRITE, 0, 3, 0x00000418, vmwrite rax, rbx)
	mov	eax, 0x6fff & ~1		/* no such field */
	put	VM_INSTRUCTION_ERROR, 0
	mov	eax, 0x6fff & ~1
	runs(vmread rcx, rax; setz dl)
	movzx	edx, dl
	expect(rdx, 1)
	expect_field(VM_INSTRUCTION_ERROR, 12)	/* in the VMCS that is current, not in the shadow VMCS */
	vmclear	[shadow_pointer]
	vmptrld	[shadow_pointer]
	mov	eax, GUEST_RIP
	vmread	rcx, rax
	expect(rcx, 0x4321)
	vmlaunch			/* a shadow VMCS cannot be entered */
	expect_flags(F_ARITH, F_CF)
	vmptrld	[vmcs_pointer]
	put	VMCS_LINK_POINTER, -1

	/* ---- an unrestricted guest in real mode ---- */
	controls(CPU_SECONDARY | CPU_HLT, CPU2_EPT | CPU2_VPID | CPU2_UNRESTRICTED)
	put_controls ENTRY_CONTROLS, MSR_VMX_TRUE_ENTRY, 0
	mov	rcx, cr0
	and	ecx, 0x7ffffffe
	put_register GUEST_CR0, rcx
	.set	n, 0
	.rept	6
	put	(GUEST_ES_SELECTOR + n), 0
	put	(GUEST_ES_LIMIT + n), 0xffff
	put	(GUEST_ES_ACCESS + n), 0x93
	.set	n, n + 2
	.endr
	put	GUEST_CS_ACCESS, 0x9b
	put	GUEST_CS_SELECTOR, 0x800
	put	0x6808, 0x8000
	mov	qword ptr [l2_rsp], 0x7000
	mov	dword ptr [l2_rip], offset real_mode - 0x8000
	mov	dword ptr [0x60 * 4], offset real_handler
	put	GUEST_IDTR_BASE, 0
	put	GUEST_IDTR_LIMIT, 0x3ff
	mov	ecx, 0
	call	run
	expect([x_reason], R_HLT)
	expect(rcx, 0x1234)
	mov	rax, GUEST_CR0
	vmread	rbx, rax
	and	ebx, 1
	expect(rbx, 0)

	/* ---- a task switch, from protected mode without paging ---- */
	mov	rcx, cr0
	and	ecx, 0x7fffffff
	put_register GUEST_CR0, rcx
	.set	n, 0
	.rept	6
	put	(GUEST_ES_SELECTOR + n), KDATA
	put	(GUEST_ES_LIMIT + n), 0xffffffff
	put	(GUEST_ES_ACCESS + n), 0xc093
	.set	n, n + 2
	.endr
	put	GUEST_CS_SELECTOR, KCODE32
	put	GUEST_CS_ACCESS, 0xc09b
	put	0x6808, 0
	mov	rax, 0x0000890000000067		/* an available TSS at 0 */
	mov	[gdt + GDT_FREE], rax
	mov	qword ptr [l2_rsp], offset l2_stack_top
	mov	qword ptr [l2_rip], offset task_jump
	call	run
	expect([x_reason], R_TASK_SWITCH)
	mov	eax, 0x80000000 | GDT_FREE	/* JMP */
	expect([x_qualification], rax)
	expect([x_length], 7)
	mov	qword ptr [l2_rip], offset task_call
	call	run
	expect([x_qualification], GDT_FREE)
	mov	qword ptr [gdt + GDT_FREE], 0
	mov	qword ptr [l2_rsp], offset l2_stack_top
	ret

/* What the TLBs have of the EPT. Clobbers RAX. */
invalidate:
	mov	eax, 2
	invept	rax, [zeroes]
	ret

/* The tests' page has been read, not written. Clobbers RAX. */
clean:	and	qword ptr [ept1 + (PAGE >> 12) * 8], ~EPT_DIRTY
	jmp	invalidate

	.code32
task_jump:
	jmp	GDT_FREE:0
task_call:
	call	GDT_FREE:0
	.code64
#include "vmx.inc"
	.section .user, "awx"
user_store:
	mov	dword ptr [rsi], 0x4444
	vmcall
	.section .low, "awx"
	.code16
real_mode:
	mov	cx, 1
	int	0x60
	hlt
real_handler:
	mov	cx, 0x1234
	iret
	.code64
	.section .rodata
	.p2align 3
zeroes:	.quad 0, 0
shadow_pointer: .quad shadow
	.bss
	.balign 4096
ept4:	.skip 4096
ept3:	.skip 4096
ept2:	.skip 4096
ept1:	.skip 4096
ept4b:	.skip 4096
ept3b:	.skip 4096
ept2b:	.skip 4096
ept1b:	.skip 4096
eptp_list: .skip 4096
shadow:	.skip 4096
vmread_bitmap: .skip 4096
vmwrite_bitmap: .skip 4096
pml_log: .skip 4096
