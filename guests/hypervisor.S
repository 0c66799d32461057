/*
 * A hypervisor, as small as one can be and still do what they all do. It is made to be read, and to be stepped through
 * with gdb: docs/vmx.md walks along it. "SDM" is Intel's Software Developer's Manual, volume 3C.
 *
 * It switches VMX on, describes a virtual processor in a VMCS and its memory in extended page tables, and runs a guest
 * of a few instructions. The guest asks CPUID, touches memory that is not there yet, says "Hello,world" through a port,
 * makes a call and halts. Each of these leaves the guest; the hypervisor does what the guest wanted, and enters again.
 *
 * guest_main runs in 64-bit mode at CPL 0, interrupts off, memory mapped one to one (lib.S); so does the guest. The
 * hypervisor checks at the end that everything was as it should be.
 */
#include "lib.h"
#include "vmx.h"
GUEST(hypervisor)

#define GUEST_PORT 0xf1
#define HYPERVISOR_LEAF 0x40000000	/* CPUID leaves from here on are the hypervisors' */
#define SIGNATURE 0x796e6974		/* "tiny" */

/* EPT entries: 2:0 may read, write, execute; a page's also 5:3, memory type 6, write-back (SDM 29.3.2). */
#define EPT_TABLE 0x07
#define EPT_PAGE 0x37
/* EPT pointer: 2:0 the tables' own memory type, write-back; 5:3 levels less one (SDM table 25-9). */
#define EPTP_FLAGS 0x1e

/* The guest's memory, a page each; addresses are guest-physical. */
#define PAGE_CODE 0x0000
#define PAGE_LATE 0x1000		/* not there at first */
#define PAGE_PML4 0x2000		/* the guest's own page tables: one to one, by a page of 1 GiB */
#define PAGE_PDPT 0x3000

	.text
guest_main:
	cpuid_bit 1, 0, ecx, 5			/* CPUID.1:ECX.VMX */
	jnz	1f
	mov	rsi, offset text_no_vmx
	call	print
	ret

1:	call	enter_vmx_operation
	call	make_vmcs
	call	make_ept
	call	run_guest
	vmxoff

	/* Twelve characters, and one of each of the others. */
	expect([exits_io], 12)
	expect([exits_cpuid], 1)
	expect([exits_ept], 1)
	expect([exits_vmcall], 1)
	expect([exits_other], 0)
	mov	eax, [called_with]
	expect(rax, SIGNATURE)
	ret

/* ---- VMX operation ---- */

/* SDM 24.7: CR4.VMXE, the firmware's consent, and a page that is the processor's own from then on. */
enter_vmx_operation:
	mov	rax, cr4
	or	rax, CR4_VMXE
	mov	cr4, rax
	read_msr MSR_FEATURE_CONTROL		/* bit 0 locked, bit 2 VMXON allowed */
	test	al, 1
	jnz	1f
	write_msr MSR_FEATURE_CONTROL, 5
1:	read_msr MSR_VMX_BASIC			/* its low half: which layout of a VMCS this processor has, */
	mov	[vmxon_region], eax		/* which both kinds of region begin with */
	mov	[vmcs], eax
	vmxon	[vmxon_pointer]
	ret

/* ---- the VMCS: what the processor is to know about the guest, and about us ---- */

make_vmcs:
	vmclear	[vmcs_pointer]			/* not active on any processor, never launched */
	vmptrld	[vmcs_pointer]			/* the current one, which VMREAD, VMWRITE and VMLAUNCH are about */

	/* VM-execution controls: what leaves. Some bits have to be 1, and the capability MSRs say which; ours on top of
	 * them: HLT and all ports leave, and guest-physical addresses go by EPT. CPUID and VMCALL always leave. */
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, 0
	put_controls CPU_CONTROLS, MSR_VMX_TRUE_CPU, (CPU_HLT | CPU_IO | CPU_SECONDARY)
	put_controls CPU2_CONTROLS, MSR_VMX_CPU2, CPU2_EPT
	/* VM-exit and VM-entry controls: this hypervisor is 64-bit code, and so is its guest. */
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64
	put_controls ENTRY_CONTROLS, MSR_VMX_TRUE_ENTRY, ENTRY_IA32E

	/* Host state, loaded at each exit: our control registers as they are; RSP is written by enter_guest. */
	mov	rcx, cr0
	put_register HOST_CR0, rcx
	mov	rcx, cr3
	put_register HOST_CR3, rcx
	mov	rcx, cr4
	put_register HOST_CR4, rcx

	/* The rest is known beforehand. */
	mov	rsi, offset fields
1:	mov	rax, [rsi]
	cmp	rax, -1
	je	2f
	vmwrite	rax, [rsi + 8]
	jbe	3f				/* CF or ZF: there is no such field */
	add	rsi, 16
	jmp	1b
3:	fail()
2:	ret

	.macro field number, value
	.quad	\number, \value
	.endm
	.data
	.p2align 3
fields:
	/* host state: where an exit goes on, and segments; bases of CS, SS, DS and ES are 0 */
	field	HOST_RIP, guest_left
	field	HOST_CS_SELECTOR, KCODE64
	.irp segment, HOST_ES_SELECTOR, HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR
	field	\segment, KDATA
	.endr
	field	HOST_TR_SELECTOR, TSS_SEL
	field	HOST_TR_BASE, tss
	field	HOST_GDTR_BASE, gdt
	field	HOST_IDTR_BASE, idt
	field	HOST_FS_BASE, 0
	field	HOST_GS_BASE, 0
	field	HOST_SYSENTER_CS, 0
	field	HOST_SYSENTER_ESP, 0
	field	HOST_SYSENTER_EIP, 0

	/* guest state, loaded at each entry and saved at each exit. CR0.PG, NE and PE and CR4.VMXE have to be 1 in VMX
	 * operation (SDM 24.8), so a guest starts with paging on; "unrestricted guest" would free it of that. */
	field	GUEST_CR0, 0x80000031		/* PG, NE, ET, PE */
	field	GUEST_CR3, PAGE_PML4
	field	GUEST_CR4, (CR4_VMXE | 0x20)	/* PAE */
	field	GUEST_RIP, PAGE_CODE
	field	GUEST_RSP, 0			/* it needs no stack */
	field	GUEST_RFLAGS, 2
	field	GUEST_DR7, 0x400
	/* ES, CS, SS, DS, FS, GS: fields of one kind are two numbers apart. The parts of a segment register that
	 * programs never see are fields like others (SDM table 25-2). */
	.set	n, 0
	.rept	6
	field	(GUEST_ES_SELECTOR + n), 0
	field	(GUEST_ES_BASE + n), 0
	field	(GUEST_ES_LIMIT + n), 0xffffffff
	.set	n, n + 2
	.endr
	.irp n, 0, 4, 6, 8, 10
	field	(GUEST_ES_ACCESS + \n), 0xc093	/* present, data, writable, accessed, limit in pages */
	.endr
	field	GUEST_CS_ACCESS, 0xa09b		/* present, code, readable, accessed, 64-bit */
	field	GUEST_LDTR_SELECTOR, 0
	field	GUEST_LDTR_BASE, 0
	field	GUEST_LDTR_LIMIT, 0
	field	GUEST_LDTR_ACCESS, 0x10000	/* unusable */
	field	GUEST_TR_SELECTOR, 0
	field	GUEST_TR_BASE, 0
	field	GUEST_TR_LIMIT, 0x67
	field	GUEST_TR_ACCESS, 0x8b		/* a busy TSS: it has to have one */
	field	GUEST_GDTR_BASE, 0
	field	GUEST_GDTR_LIMIT, 0
	field	GUEST_IDTR_BASE, 0
	field	GUEST_IDTR_LIMIT, 0
	field	GUEST_INTERRUPTIBILITY, 0
	field	GUEST_ACTIVITY, 0
	field	GUEST_PENDING_DEBUG, 0
	field	GUEST_DEBUGCTL, 0
	field	GUEST_SYSENTER_CS, 0
	field	GUEST_SYSENTER_ESP, 0
	field	GUEST_SYSENTER_EIP, 0
	field	VMCS_LINK_POINTER, -1

	/* controls that are no bits */
	field	EXCEPTION_BITMAP, 0		/* exceptions are the guest's own */
	field	PAGE_FAULT_MASK, 0
	field	PAGE_FAULT_MATCH, 0
	field	CR0_MASK, 0			/* CR0 and CR4 too */
	field	CR4_MASK, 0
	field	CR3_TARGET_COUNT, 0
	field	EXIT_MSR_STORE_COUNT, 0
	field	EXIT_MSR_LOAD_COUNT, 0
	field	ENTRY_MSR_LOAD_COUNT, 0
	field	ENTRY_INTR_INFO, 0		/* nothing to inject */
	field	EPT_POINTER, ept_pml4 + EPTP_FLAGS
	.quad	-1

/* ---- extended page tables: what the guest has for memory ---- */

	/* Four entries, one in each level, lead guest-physical page 0 to guest_code; two more are for the guest's page
	 * tables. All else is not present. (Of 8 bytes for each page of 4096: page N's entry is at N * 4096 / 512.) */
	.text
make_ept:
	mov	qword ptr [ept_pml4], offset ept_pdpt + EPT_TABLE
	mov	qword ptr [ept_pdpt], offset ept_pd + EPT_TABLE
	mov	qword ptr [ept_pd], offset ept_pt + EPT_TABLE
	mov	qword ptr [ept_pt + PAGE_CODE / 512], offset guest_code + EPT_PAGE
	mov	qword ptr [ept_pt + PAGE_PML4 / 512], offset guest_pml4 + EPT_PAGE
	mov	qword ptr [ept_pt + PAGE_PDPT / 512], offset guest_pdpt + EPT_PAGE
	mov	qword ptr [guest_pml4], PAGE_PDPT + (PTE_P | PTE_W)
	mov	qword ptr [guest_pdpt], PTE_P | PTE_W | PTE_PS
	ret

/* ---- a virtual processor's life: enter, leave, do what it wanted, enter again ---- */

run_guest:
	call	enter_guest
	jc	3f
	mov	rax, EXIT_REASON
	vmread	rcx, rax
	mov	rax, EXIT_QUALIFICATION		/* what more there is to know, for each reason in its own format */
	vmread	rdx, rax
	/* Find the reason in the table, call its handler. CF: the guest is done. */
	mov	rsi, offset handlers
1:	cmp	[rsi], rcx
	je	2f
	add	rsi, 16
	cmp	rsi, offset handlers_end
	jb	1b
	inc	qword ptr [exits_other]
	ret
2:	call	[rsi + 8]
	jnc	run_guest
	ret
3:	mov	rax, VM_INSTRUCTION_ERROR	/* refused: the number says why (SDM 31.4) */
	vmread	rcx, rax
	expect(rcx, 0)
	ret

	.data
	.p2align 3
handlers:
	.quad	R_IO, on_io
	.quad	R_CPUID, on_cpuid
	.quad	R_EPT_VIOLATION, on_ept_violation
	.quad	R_VMCALL, on_vmcall
	.quad	R_HLT, on_hlt
handlers_end:

/*
 * The world switch. The processor changes RIP, RSP, RFLAGS, segments and control registers; general registers are left
 * as they are, for us to change: this guest uses none but these. Comes back behind the guest's next exit; CF: the
 * processor has refused to enter.
 */
	.text
enter_guest:
	mov	rax, HOST_RSP			/* an exit will find this stack, with our return address on it */
	vmwrite	rax, rsp
	cmp	byte ptr [launched], 0		/* the MOVs leave the flag alone */
	mov	rax, [guest_rax]
	mov	rbx, [guest_rbx]
	mov	rcx, [guest_rcx]
	mov	rdx, [guest_rdx]
	mov	rsi, [guest_rsi]
	jne	1f
	vmlaunch				/* the first time */
	stc					/* Here only if it failed: */
	ret
1:	vmresume				/* and from then on */
	stc
	ret

guest_left:					/* HOST_RIP: every exit comes here */
	mov	[guest_rax], rax
	mov	[guest_rbx], rbx
	mov	[guest_rcx], rcx
	mov	[guest_rdx], rdx
	mov	[guest_rsi], rsi
	mov	byte ptr [launched], 1
	clc
	ret

/* ---- exits: RDX has the qualification; CF on return: the guest is done ---- */

/* The instruction has been done for the guest: behind it. */
skip_instruction:
	mov	rax, EXIT_LENGTH
	vmread	rcx, rax
	mov	rax, GUEST_RIP
	vmread	rbx, rax
	add	rbx, rcx
	vmwrite	rax, rbx
	clc
	ret

/* Qualification: 31:16 the port, 3 IN, 2:0 bytes less one (SDM table 28-5). One port is there, a printer. */
on_io:
	inc	qword ptr [exits_io]
	shr	rdx, 16
	cmp	edx, GUEST_PORT
	jne	skip_instruction
	mov	al, [guest_rax]
	out	GUEST_PORT, al			/* ours leads to the terminal */
	jmp	skip_instruction

/* The processor's answer, but without VMX; and who we are. */
on_cpuid:
	inc	qword ptr [exits_cpuid]
	mov	eax, [guest_rax]
	mov	ecx, [guest_rcx]
	cmp	eax, HYPERVISOR_LEAF
	mov	ebx, SIGNATURE
	je	2f
	cmp	eax, 1
	cpuid					/* leaves flags alone */
	jne	2f
	and	ecx, ~(1 << 5)
2:	mov	[guest_rax], rax
	mov	[guest_rbx], rbx
	mov	[guest_rcx], rcx
	mov	[guest_rdx], rdx
	jmp	skip_instruction

/* An address that EPT does not lead anywhere. One page is memory that the guest gets when it first touches it, as
 * programs get theirs from an operating system: its instruction is executed again, and finds it. */
on_ept_violation:
	inc	qword ptr [exits_ept]
	mov	rax, GUEST_PHYSICAL_ADDRESS
	vmread	rbx, rax
	and	rbx, -0x1000
	cmp	rbx, PAGE_LATE
	jne	on_hlt
	mov	qword ptr [ept_pt + PAGE_LATE / 512], offset guest_late + EPT_PAGE
	clc					/* What was not present needs no INVEPT (SDM 29.4.2). */
	ret

/* The guest asks for something: in a hypervisor that offers services a number and parameters, here one parameter. */
on_vmcall:
	inc	qword ptr [exits_vmcall]
	mov	eax, [guest_rbx]
	mov	[called_with], eax
	jmp	skip_instruction

on_hlt:
	stc
	ret

/* ---- the guest, which finds itself at address 0 ---- */

	.section .rodata
	.balign	4096
guest_code:
	mov	eax, HYPERVISOR_LEAF
	cpuid					/* exit: CPUID */
	mov	ds:[PAGE_LATE], ebx		/* exit: EPT violation; the second time it writes */
	mov	esi, offset hello - guest_code + PAGE_CODE
1:	lodsb	al, [rsi]
	out	GUEST_PORT, al			/* exit: I/O instruction */
	cmp	al, '\n'
	jne	1b
	mov	ebx, ds:[PAGE_LATE]		/* no exit: the page is there */
	vmcall					/* exit: VMCALL */
	hlt					/* exit: HLT */
hello:	.ascii	"Hello,world\n"
	.balign	4096
text_no_vmx:	.asciz	"no VMX\n"

	.data
	.p2align 3
vmxon_pointer:	.quad	vmxon_region
vmcs_pointer:	.quad	vmcs

	.bss
	.balign 4096
vmxon_region:	.skip	4096
vmcs:		.skip	4096
ept_pml4:	.skip	4096
ept_pdpt:	.skip	4096
ept_pd:		.skip	4096
ept_pt:		.skip	4096
guest_late:	.skip	4096
guest_pml4:	.skip	4096
guest_pdpt:	.skip	4096
guest_rax:	.skip	8
guest_rbx:	.skip	8
guest_rcx:	.skip	8
guest_rdx:	.skip	8
guest_rsi:	.skip	8
exits_io:	.skip	8
exits_cpuid:	.skip	8
exits_ept:	.skip	8
exits_vmcall:	.skip	8
exits_other:	.skip	8
called_with:	.skip	4
launched:	.skip	1
