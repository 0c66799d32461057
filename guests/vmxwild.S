/*
 * VM entries with fields at random: whatever is in a VMCS, the hypervisor gets control back. Its guest can reach nothing
 * but a page of its own, and leaves by the preemption timer at the latest. Fields that would change the hypervisor itself
 * (host state, MSR areas, exit controls) stay as they are.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxwild)

#define ROUNDS 30000
#define EPT_RX 5
#define EPT_RWX 7
#define EPT_WB 0x30
#define TIMER 2000

	.text
guest_main:
	need_vmx
	call	vmx_begin

	/* the guest's guest: VMCALL, then INT3s */
	mov	rdi, offset own_page
	mov	al, 0xcc
	mov	ecx, 4096
	rep stosb
	mov	dword ptr [own_page], 0xccc1010f
	mov	rsi, offset pml4	/* once by hand, so that the tables are accessed */
	mov	qword ptr [l2_rip], offset own_page
	call	run
	expect([x_reason], R_VMCALL)

	/* what it may reach, by its tables */
	mov	qword ptr [ept4], offset ept3 + EPT_RWX
	mov	qword ptr [ept3], offset ept2 + EPT_RWX
	mov	qword ptr [ept2], offset ept1 + EPT_RWX
	.irp	table, pml4, pdpt, pd0, pt0, pt1
	mov	eax, offset \table
	mov	edx, eax
	shr	edx, 12
	or	eax, EPT_RX + EPT_WB
	mov	[ept1 + rdx * 8], rax
	.endr
	mov	eax, offset own_page
	mov	edx, eax
	shr	edx, 12
	or	eax, EPT_RWX + EPT_WB
	mov	[ept1 + rdx * 8], rax

	mov	qword ptr [rounds], ROUNDS
	mov	rax, 0x9e3779b97f4a7c15
	mov	[seed], rax
round:
	/* a good state again */
	call	vmx_defaults
	put	HOST_RIP, "offset l2_exit"
	put	EPT_POINTER, (offset ept4 + 0x1e)
	put	VPID, 1
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, PIN_TIMER | PIN_INTERRUPT
	put_controls CPU_CONTROLS, MSR_VMX_TRUE_CPU, (CPU_HLT | CPU_IO | CPU_TPR_SHADOW | CPU_SECONDARY)
	put	VIRTUAL_APIC_ADDRESS, "offset own_page"
	put	APIC_ACCESS_ADDRESS, "offset own_page"
	read_msr MSR_VMX_CPU2
	shr	rax, 32
	mov	ebx, eax		/* what there is of these, or not */
	call	random
	and	ebx, eax
	and	ebx, CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS | CPU2_MBEC | CPU2_PML
	bt	eax, 20
	sbb	ecx, ecx
	and	ecx, CPU2_APIC_ACCESS	/* every access leaves then */
	or	ebx, ecx
	or	ebx, CPU2_EPT | CPU2_VPID | CPU2_UNRESTRICTED
	mov	eax, CPU2_CONTROLS
	vmwrite	rax, rbx
	put	PREEMPTION_TIMER, TIMER
	mov	qword ptr [l2_rip], offset own_page
	mov	qword ptr [l2_rsp], offset own_page + 4096
	mov	qword ptr [l2_rflags], 2

	/* up to 16 fields become something else */
	call	random
	and	eax, 15
	lea	r12d, [eax + 1]
change:	call	random
	and	eax, 0x6c3e			/* width, type, an index up to 31 */
	mov	r13d, eax
	mov	ecx, eax
	and	ecx, 0xc00
	cmp	ecx, 0xc00			/* host state */
	je	next
	.irp field, EXIT_MSR_STORE_ADDRESS, EXIT_MSR_LOAD_ADDRESS, ENTRY_MSR_LOAD_ADDRESS, EXIT_CONTROLS, EXIT_MSR_STORE_COUNT, EXIT_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_COUNT, PIN_CONTROLS, PREEMPTION_TIMER, EPT_POINTER, CPU2_CONTROLS, GUEST_CR3, VIRTUAL_APIC_ADDRESS
	cmp	r13d, \field
	je	next
	.endr
	vmread	rbx, r13
	jna	next				/* there is no such field */
	call	random
	mov	ecx, eax
	mov	rdx, rax
	shr	rdx, 32
	and	edx, 7
	cmp	edx, 4
	ja	2f
	btc	rbx, rcx			/* a bit flips */
	jmp	3f
2:	je	2f
	mov	rbx, rax			/* anything */
	jmp	3f
2:	movzx	ebx, al				/* something small */
3:	cmp	r13d, GUEST_ACTIVITY
	jne	2f
	cmp	ebx, 3				/* nobody sends it a SIPI */
	je	next
2:	cmp	r13d, CPU_CONTROLS		/* EPT stays */
	jne	2f
	bts	rbx, 31
2:	cmp	r13d, GUEST_RIP
	jne	2f
	mov	[l2_rip], rbx
2:	cmp	r13d, GUEST_RSP
	jne	2f
	mov	[l2_rsp], rbx
2:	cmp	r13d, GUEST_RFLAGS
	jne	2f
	mov	[l2_rflags], rbx
2:	vmwrite	r13, rbx
next:	dec	r12d
	jnz	change

	call	run
	mov	rax, [x_reason]
	bt	rax, 31
	jc	2f
	inc	qword ptr [entered]
2:	lidt	[idt_pointer]
	dec	qword ptr [rounds]
	jnz	round

	/* many were refused and many were not */
	mov	rax, [entered]
	cmp	rax, ROUNDS / 8
	setae	cl
	cmp	rax, ROUNDS - ROUNDS / 8
	setbe	ch
	movzx	ecx, cx
	expect(rcx, 0x101)

	/* a region that was scribbled on says nothing that is not checked */
	mov	r12d, 500
2:	vmclear	[vmcs_pointer]
	mov	rdi, offset vmcs + 4
	mov	ecx, 4092 / 4
3:	call	random
	stosd
	loop	3b
	vmptrld	[vmcs_pointer]
	vmlaunch
	mov	rax, VM_INSTRUCTION_ERROR
	vmread	rbx, rax
	vmresume
	vmread	rcx, rax
	add	ebx, ecx
	cmp	ebx, 7 + 5		/* controls; not launched: VMLAUNCH, VMRESUME in one order or the other */
	je	4f
	cmp	ebx, 4 + 7
	je	4f
	fail()
4:	dec	r12d
	jnz	2b
	ret

/* RAX: 64 bits of a xorshift. Clobbers RDX. */
random:
	mov	rax, [seed]
	mov	rdx, rax
	shl	rdx, 13
	xor	rax, rdx
	mov	rdx, rax
	shr	rdx, 7
	xor	rax, rdx
	mov	rdx, rax
	shl	rdx, 17
	xor	rax, rdx
	mov	[seed], rax
	ret
#include "vmx.inc"
	.bss
	.balign 4096
ept4:	.skip 4096
ept3:	.skip 4096
ept2:	.skip 4096
ept1:	.skip 4096
own_page: .skip 4096
rounds:	.skip 8
seed:	.skip 8
entered: .skip 8
