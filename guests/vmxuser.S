/*
 * A program of a nested guest: its memory by the guest's tables and EPT together, and what is flushed by INVEPT and
 * INVVPID (SDM vol. 3C 29.3, 29.4). On the soft engine such programs may have a shadow space.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxuser)

#define EPT_RWX 7
#define EPT_LARGE 0x80
#define EPT_WB 0x30
#define EPTP_WB_4 0x1e
#define EPTP_A (offset ept4 + EPTP_WB_4)
#define EPTP_B (offset ept4b + EPTP_WB_4)

#define INFO_VALID 0x80000000
#define INVEPT_ONE 1
#define INVVPID_ADDRESS 0
#define INVVPID_ONE 1
#define INVVPID_ALL 2

/* Runs the instructions as a program of the guest's guest, until something leaves: at the end INT3. */
#define l2_user(...)                                                                               \
	.pushsection .user, "awx"; 7: __VA_ARGS__; int3; .popsection;                              \
	mov	qword ptr [l2_rip], offset 7b;                                                     \
	call	run
#define runs_user(...)                                                                             \
	l2_user(__VA_ARGS__);                                                                      \
	mov	eax, INFO_VALID | 0x603;                                                           \
	expect([x_interruption], rax)

	/* Page @n of scratch is where the program finds page @n of TEST_VA, as the guest's tables say. */
	.macro page_table n, to
	mov	qword ptr [test_pt + \n * 8], offset scratch + \to * 0x1000 + (PTE_P + PTE_W + PTE_U)
	.endm
	/* EPT @tables have page @to there for page @n of scratch, with @rights. */
	.macro ept_map tables, n, to, rights=EPT_RWX + EPT_WB
	mov	rax, offset scratch + \n * 0x1000
	shr	rax, 12
	mov	rbx, offset scratch + \to * 0x1000 + \rights
	mov	[\tables + rax * 8], rbx
	.endm
	.macro ept_unmap tables, n
	mov	rax, offset scratch + \n * 0x1000
	shr	rax, 12
	mov	qword ptr [\tables + rax * 8], 0
	.endm
	.macro flush_ept eptp
	mov	rax, \eptp
	mov	[descriptor], rax
	mov	eax, INVEPT_ONE
	invept	rax, [descriptor]
	.endm
	.macro flush_vpid type, vpid, linear=0
	mov	qword ptr [descriptor], \vpid
	mov	rax, \linear
	mov	[descriptor + 8], rax
	mov	eax, \type
	invvpid	rax, [descriptor]
	.endm
	.macro view eptp, vpid
	put	EPT_POINTER, \eptp
	put	VPID, \vpid
	.endm

	/* Number @n, and what is read of page @n. */
	.macro reads n, value
	mov	rsi, TEST_VA + \n * 0x1000
	runs_user(mov rcx, [rsi])
	expect(rcx, \value)
	.endm
	.macro violates n, qualification, gpa
	expect([x_reason], R_EPT_VIOLATION)
	mov	rax, [x_qualification]
	and	eax, 0x1ff
	expect(rax, \qualification)
	expect([x_linear], TEST_VA + \n * 0x1000)
	expect([x_physical], \gpa)
	.endm

	/* Identity, the first 2 MiB by small pages. */
	.macro make_ept four, three, two, one
	mov	qword ptr [\four], offset \three + EPT_RWX
	mov	qword ptr [\three], offset \two + EPT_RWX
	mov	qword ptr [\two], offset \one + EPT_RWX
	mov	eax, EPT_RWX + EPT_WB
	mov	rdi, offset \one
	mov	ecx, 512
	call	fill
	.endm

	.text
fill:
	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x1000
	loop	fill
	ret

guest_main:
	need_vmx
	call	vmx_begin
	make_ept ept4, ept3, ept2, ept1
	make_ept ept4b, ept3b, ept2b, ept1b
	/* page n of scratch begins with 0x100 + n, and is page n of the program */
	mov	rdi, offset scratch
	mov	rsi, offset test_pt
	mov	eax, 0x100
	mov	ecx, 16
2:	mov	[rdi], rax
	lea	rbx, [rdi + (PTE_P + PTE_W + PTE_U)]
	mov	[rsi], rbx
	add	rdi, 0x1000
	add	rsi, 8
	inc	eax
	loop	2b
	ept_map	ept1b, 1, 9
	put	GUEST_CS_SELECTOR, UCODE64
	put	GUEST_CS_ACCESS, 0xa0fb
	put	GUEST_SS_SELECTOR, UDATA
	put	GUEST_SS_ACCESS, 0xc0f3
	mov	qword ptr [l2_rsp], offset user_stack_top
	put	EXCEPTION_BITMAP, (1 << 3)
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID)
	view	EPTP_A, 1

	mov	r15d, 3		/* what is known by the second time must not be used */
again:
	reads	0, 0x100
	reads	1, 0x101
	runs_user(mov qword ptr [rsi + 8], 0x55; mov rdx, [rsi + 8]; mov rdi, rsi; mov ecx, 16; rep stosb)
	expect(rdx, 0x55)
	mov	qword ptr [scratch + 0x1000], 0x101

	/* ---- EPT: gone, back, for reading only, another page ---- */
	ept_unmap ept1, 1
	flush_ept EPTP_A
	l2_user(mov rcx, [rsi])
	violates 1, 0x181, "offset scratch + 0x1000"
	reads	2, 0x102
	mov	rsi, TEST_VA + 0x1000
	l2_user(mov [rsi], rcx)
	violates 1, 0x182, "offset scratch + 0x1000"
	ept_map	ept1, 1, 1, 5			/* what was not there may come without a flush */
	reads	1, 0x101
	l2_user(mov [rsi], rcx)
	violates 1, 0x1aa, "offset scratch + 0x1000"
	ept_map ept1, 1, 1
	runs_user(mov [rsi], rcx)
	ept_map ept1, 1, 3
	flush_ept EPTP_A
	reads	1, 0x103
	ept_map ept1, 1, 1
	flush_ept EPTP_A
	reads	1, 0x101

	/* ---- the guest's tables ---- */
	page_table 2, 4
	flush_vpid INVVPID_ADDRESS, 1, TEST_VA + 0x2000
	reads	2, 0x104
	page_table 2, 5
	flush_vpid INVVPID_ONE, 1
	reads	2, 0x105
	page_table 2, 6
	flush_vpid INVVPID_ALL, 0
	reads	2, 0x106
	mov	qword ptr [test_pt + 2 * 8], 0
	flush_vpid INVVPID_ONE, 1
	put	EXCEPTION_BITMAP, (1 << 3 | 1 << PF)
	l2_user(mov rcx, [rsi])
	mov	eax, INFO_VALID | 0xb0e
	expect([x_interruption], rax)
	expect([x_error], PF_U)
	expect([x_qualification], TEST_VA + 0x2000)
	put	EXCEPTION_BITMAP, (1 << 3)
	page_table 2, 2
	reads	2, 0x102

	/* ---- another VPID with other tables of EPT, and flushes of the one that is not in use ---- */
	view	EPTP_B, 2
	reads	1, 0x109
	reads	2, 0x102
	ept_map ept1, 1, 3
	flush_ept EPTP_A
	reads	1, 0x109
	view	EPTP_A, 1
	reads	1, 0x103
	view	EPTP_B, 2
	ept_map ept1, 1, 1
	flush_ept EPTP_A
	page_table 2, 7
	flush_vpid INVVPID_ONE, 1
	flush_vpid INVVPID_ADDRESS, 2, TEST_VA + 0x2000
	reads	2, 0x107
	view	EPTP_A, 1
	reads	1, 0x101
	reads	2, 0x107
	page_table 2, 2
	flush_vpid INVVPID_ALL, 0

	/* ---- EPTP switching by the program itself, and back (SDM 3C 26.5.5.3) ---- */
	mov	rax, EPTP_A
	mov	[eptp_list], rax
	mov	rax, EPTP_B
	mov	[eptp_list + 8], rax
	put	EPTP_LIST_ADDRESS, "offset eptp_list"
	put	VM_FUNCTION_CONTROLS, 1
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID | CPU2_VMFUNC)
	reads	1, 0x101
	runs_user(mov r8, [rsi]; xor eax, eax; mov ecx, 1; vmfunc; mov r9, [rsi]; xor ecx, ecx; vmfunc; mov r10, [rsi])
	expect(r8, 0x101)
	expect(r9, 0x109)
	expect(r10, 0x101)
	controls(CPU_SECONDARY, CPU2_EPT | CPU2_VPID)

	/* ---- another CR3 ---- */
	reads	2, 0x102
	mov	rbp, cr3
	mov	rax, [pml4]
	mov	[other_pml4], rax
	mov	qword ptr [other_pml4], offset other_pdpt + (PTE_P + PTE_W + PTE_U)
	mov	rax, [pdpt]
	mov	[other_pdpt], rax
	mov	qword ptr [other_pdpt + 8], offset other_pd + (PTE_P + PTE_W + PTE_U)
	mov	qword ptr [other_pd], offset other_pt + (PTE_P + PTE_W + PTE_U)
	mov	qword ptr [other_pt + 2 * 8], offset scratch + 0x8000 + (PTE_P + PTE_W + PTE_U)
	put	GUEST_CR3, "offset other_pml4"
	reads	2, 0x108
	put_register GUEST_CR3, rbp
	reads	2, 0x102
	dec	r15d
	jnz	again
	ret

#include "vmx.inc"
	.bss
	.balign 4096
	.irp name, ept4, ept3, ept2, ept1, ept4b, ept3b, ept2b, ept1b, other_pml4, other_pdpt, other_pd, other_pt, eptp_list
\name:	.skip 4096
	.endr
descriptor: .skip 16
