/*
 * What the guests about programs and their pages share: memory, windows of 4 GiB, page faults at CPL 3.
 */
#ifndef GUISE_GUESTS_SHADOW_H
#define GUISE_GUESTS_SHADOW_H

#include "lib.h"

/* Memory that nobody else uses; the kernel has it at the same address. */
#define FRAME(n) (0x1000000 + (n) * 0x1000)
#define LARGE(n) (0x1000000 + (n) * 0x200000)
#define VA(index) (TEST_VA + (index) * 0x1000)
#define PTE(index) (test_pt + (index) * 8)
#define URW (PTE_P | PTE_W | PTE_U)

/* Windows of 4 GiB that show the same as TEST_VA: everywhere in the second one, at the start of the third, at the end
 * of the user half. */
#define WINDOW1 0x100000000
#define WINDOW2 0x200000000
#define TOP	0x7fffffe00000
#define NEAR_2	(WINDOW2 - 0x200000)

/* Page @index of the test's 2 MiB shows a frame, without a flush. */
.macro map index, frame, flags=URW
	mov	qword ptr [PTE(\index)], FRAME(\frame) + (\flags)
.endm

.macro unmap index
	mov	qword ptr [PTE(\index)], 0
	invlpg	[VA(\index)]
.endm

/* At CPL 3: @form faults while page 5 is absent, with error code and CR2, changing nothing; works when it is there. */
#define needs_page(error, cr2, ...) NEEDS_PAGE_(error, cr2, __VA_ARGS__)
#define NEEDS_PAGE_(error, cr2, ...)                                                               \
	unmap 5;                                                                                   \
	faults_at(error, cr2, __VA_ARGS__);                                                           \
	map 5, 5;                                                                                  \
	user_ok(__VA_ARGS__)
#define faults_at(error, cr2, ...) FAULTS_AT_(error, cr2, __VA_ARGS__)
#define FAULTS_AT_(error, cr2, ...)                                                                    \
	mov qword ptr [fault_cr2], 0;                                                              \
	expect_user_fault(PF, error, __VA_ARGS__);                                                \
	check_equal "[fault_cr2]", #cr2, __LINE__;                                                 \
	check_equal "[fault_old_sp]", "offset user_stack_top", __LINE__

#define ABSENT_READ  PF_U
#define ABSENT_WRITE (PF_U | PF_W)

/* Handler of page faults, pager: the page shows the frame of its number, [paged_in] counts. */
.macro define_pager
pager:
	push	rax
	push	rcx
	mov	rax, cr2
	invlpg	[rax]
	shr	rax, 12
	and	eax, 511
	mov	rcx, rax
	shl	rcx, 12
	add	rcx, FRAME(0) + URW
	mov	[PTE(rax)], rcx
	inc	dword ptr [paged_in]
	pop	rcx
	pop	rax
	add	rsp, 8
	iretq
	.lcomm	paged_in, 8
.endm

/* No page is there, and [paged_in] 0. Clobbers RAX, RCX, RDI. */
.macro all_absent
	mov	rdi, offset test_pt
	mov	ecx, 512
	xor	eax, eax
	rep stosq
	mov	[paged_in], eax
	mov	rax, cr3
	mov	cr3, rax
.endm

/* Where a string instruction starts, and stands. */
#define from(di, si, cx)                                                                           \
	mov	rdi, di;                                                                           \
	mov	rsi, si;                                                                           \
	mov	rcx, cx
#define stands(di, si, cx)                                                                         \
	expect(rdi, di);                                                                           \
	expect(rsi, si);                                                                           \
	expect(rcx, cx)

/* Windows, and memory all zeroes. Clobbers RAX, RCX, RDI. */
.macro begin
	mov	rax, offset test_pt + URW
	mov	[test_pd + 511 * 8], rax
	mov	rax, offset test_pd + URW
	mov	[pdpt + 4 * 8], rax
	mov	[pdpt + 7 * 8], rax
	mov	[pdpt + 8 * 8], rax
	mov	[pdpt + 511 * 8], rax
	mov	rax, offset pdpt + URW
	mov	[pml4 + 255 * 8], rax
	mov	rdi, FRAME(0)
	xor	eax, eax
	mov	ecx, 0x800000 / 8
	rep stosq
.endm

#endif
