/*
 * What tiny guests share: a Multiboot entry into the mode that the guest wants, an IDT that records
 * exceptions and counts interrupts, checks with a line number, a way to CPL 3 and back.
 *
 * A guest is GUEST(name), then guest_main, called at CPL 0 in flat 64-bit mode (BITS == 64; identity
 * mapping, tables below) or 32-bit protected mode without paging (BITS == 32), interrupts off, PICs masked.
 * When it returns, the guest prints "ok NAME CHECKS" and exits through port 0xf4 with 0, or with 1 if a
 * check failed. Text goes out through port 0xe9.
 *
 * Local labels 7, 8 and 9 are the macros'; guests use 1 to 6 around them.
 * All macros leave every register and the arithmetic flags alone unless they say otherwise. Operands
 * of expect() must not refer to the stack pointer.
 */
#ifndef GUISE_GUESTS_LIB_H
#define GUISE_GUESTS_LIB_H

	.intel_syntax noprefix

#if BITS == 64
	.code64
#define AX   rax
#define BX   rbx
#define CX   rcx
#define DX   rdx
#define SI   rsi
#define DI   rdi
#define SP   rsp
#define BP   rbp
#define WORD qword ptr
#define W    8
#define IRET iretq
#else
	.code32
#define AX   eax
#define BX   ebx
#define CX   ecx
#define DX   edx
#define SI   esi
#define DI   edi
#define SP   esp
#define BP   ebp
#define WORD dword ptr
#define W    4
#define IRET iretd
#endif

/* Selectors of the GDT in lib.S, in the order that SYSCALL and SYSRET want. Entries from GDT_FREE on are the guest's. */
#define KCODE64	 0x08
#define KDATA	 0x10
#define KCODE32	 0x18
#define UCODE32	 0x23
#define UDATA	 0x2b
#define UCODE64	 0x33
#define KCODE16	 0x38
#define KDATA16	 0x40
#define TSS_SEL	 0x48 /* two entries in 64-bit mode */
#define GDT_FREE 0x58
#define GDT_ENTRIES 64

#if BITS == 64
#define KCS KCODE64
#define UCS UCODE64
#else
#define KCS KCODE32
#define UCS UCODE32
#endif

/* Vectors */
#define DE 0
#define DB 1
#define NMI 2
#define BP_VECTOR 3
#define OF 4
#define BR 5
#define UD 6
#define NM 7
#define DF 8
#define TS 10
#define NP 11
#define SS_VECTOR 12
#define GP 13
#define PF 14
#define MF 16
#define AC 17
#define XM 19
#define USER_RETURN BP_VECTOR /* INT3 at CPL 3: back to the caller of user() */
#define NONE 0xffff	 /* in fault_vector: nothing happened */

/* RFLAGS */
#define F_CF 0x1
#define F_PF 0x4
#define F_AF 0x10
#define F_ZF 0x40
#define F_SF 0x80
#define F_TF 0x100
#define F_IF 0x200
#define F_DF 0x400
#define F_OF 0x800
#define F_IOPL 0x3000
#define F_NT 0x4000
#define F_RF 0x10000
#define F_VM 0x20000
#define F_AC 0x40000
#define F_ID 0x200000
#define F_ARITH (F_CF | F_PF | F_AF | F_ZF | F_SF | F_OF)

/* Page table entries */
#define PTE_P 1
#define PTE_W 2
#define PTE_U 4
#define PTE_PWT 8
#define PTE_PCD 0x10
#define PTE_A 0x20
#define PTE_D 0x40
#define PTE_PS 0x80
#define PTE_G 0x100
#define PTE_NX 0x8000000000000000

/* Page-fault error code */
#define PF_P 1
#define PF_W 2
#define PF_U 4
#define PF_RSVD 8
#define PF_I 0x10

/*
 * 64-bit guests: 0-4 MiB is mapped by 4 KiB pages (supervisor but for .user), 4 MiB-1 GiB and
 * 3-4 GiB by 2 MiB pages. The 2 MiB from TEST_VA on belong to the guest: test_pt[0..511], reached
 * through test_pd[0] and pdpt[1].
 */
#define TEST_VA 0x40000000

#define MSR_APIC_BASE 0x1b
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102

#define LAPIC 0xfee00000

#define GUEST(name)                                                                                \
	.section .rodata; .globl guest_name; guest_name: .asciz #name; .text; .globl guest_main

/* ---- checks ---- */

.macro check_equal got, want, line
	push	AX
	pushf
	mov	AX, \got
	mov	[check_got], AX
	mov	AX, [SP + W]
	mov	AX, \want
	mov	[check_want], AX
	mov	dword ptr [check_line], \line
	call	check
	popf
	pop	AX
.endm

/* Register-sized operands; other sizes are loaded first. */
#define expect(got, want) EXPECT_(got, want)
#define EXPECT_(got, want) check_equal #got, #want, __LINE__

.macro check_flags mask, want, line
	pushf
	push	AX
	mov	AX, [SP + W]
	and	AX, \mask
	mov	[check_got], AX
	mov	WORD [check_want], \want
	mov	dword ptr [check_line], \line
	call	check
	pop	AX
	popf
.endm

/* The flags in @mask are exactly @want. */
#define expect_flags(mask, want) EXPECT_FLAGS_(mask, want)
#define EXPECT_FLAGS_(mask, want) check_flags #mask, #want, __LINE__

/* Getting here is wrong. */
#define fail() check_equal 0, 1, __LINE__

/* ---- exceptions ---- */

/* From here on, the next exception is recorded in fault_* and goes on at @resume with this stack. */
.macro arm resume
	mov	WORD [fault_vector], NONE
	mov	WORD [fault_resume], offset \resume
	mov	[fault_sp], SP
.endm

.macro disarm
	mov	WORD [fault_resume], 0
.endm

/*
 * The instruction faults with vector and error code, and the pushed RIP is its own. Registers are as at the
 * fault.
 */
#define expect_fault(vector, error, ...) EXPECT_FAULT_(vector, error, __VA_ARGS__)
#define EXPECT_FAULT_(vector, error, ...)                                                          \
	arm 9f;                                                                                    \
	7: __VA_ARGS__;                                                                            \
	9: disarm;                                                                                 \
	check_equal "[fault_vector]", #vector, __LINE__;                                           \
	check_equal "[fault_error]", #error, __LINE__;                                             \
	check_equal "[fault_ip]", "offset 7b", __LINE__

/* As expect_fault() for traps: the pushed RIP is the next instruction's. */
#define expect_trap(vector, ...) EXPECT_TRAP_(vector, __VA_ARGS__)
#define EXPECT_TRAP_(vector, ...)                                                                  \
	arm 9f;                                                                                    \
	__VA_ARGS__;                                                                               \
	9: disarm;                                                                                 \
	check_equal "[fault_vector]", #vector, __LINE__;                                           \
	check_equal "[fault_ip]", "offset 9b", __LINE__

/* ---- CPL 3 ---- */

/* Enters CPL 3 at @entry with the flags in user_flags; see arm. */
.macro enter_user entry
#if BITS == 32
	push	UDATA
	pop	ds
	push	UDATA
	pop	es
#endif
	push	UDATA
	push	offset user_stack_top
	push	WORD [user_flags]
	push	UCS
	push	offset \entry
	IRET
.endm

/*
 * Runs the instructions at CPL 3 and comes back with all registers but the stack pointer. fault_vector says
 * how they ended: USER_RETURN, or an exception. fault_flags are the flags at that moment.
 */
#define user(...)                                                                                  \
	arm 9f;                                                                                    \
	enter_user 7f;                                                                             \
	.pushsection .user, "awx"; 7: __VA_ARGS__; int3; .popsection;                   \
	9: disarm

#define user_ok(...)                                                                               \
	user(__VA_ARGS__);                                                                         \
	check_equal "[fault_vector]", "BP_VECTOR_NUMBER", __LINE__

#define expect_user_fault(vector, error, ...) EXPECT_USER_FAULT_(vector, error, __VA_ARGS__)
#define EXPECT_USER_FAULT_(vector, error, ...)                                                     \
	user(__VA_ARGS__);                                                                         \
	check_equal "[fault_vector]", #vector, __LINE__;                                           \
	check_equal "[fault_error]", #error, __LINE__;                                             \
	check_equal "[fault_ip]", "offset 7b", __LINE__

	.set	BP_VECTOR_NUMBER, USER_RETURN

/* ---- descriptors and gates ---- */

/* Points vector at @handler: an interrupt gate of @dpl. */
.macro set_gate vector, handler, dpl=0
	push	AX
	push	DX
	mov	AX, offset \handler
	mov	edx, 0x8e00 | (\dpl << 13)
	mov	[idt + \vector * 2 * W], ax
	mov	word ptr [idt + \vector * 2 * W + 2], KCS
	mov	[idt + \vector * 2 * W + 4], dx
	shr	eax, 16
	mov	[idt + \vector * 2 * W + 6], ax
	pop	DX
	pop	AX
.endm

/* Back to what lib.S does with the vector: record exceptions, count interrupts. */
.macro reset_gate vector
	set_gate \vector, (stubs + \vector * 16)
.endm

/* ---- MSRs and control registers ---- */

/* Clobbers AX, CX, DX. */
.macro write_msr msr, value
	mov	ecx, \msr
	mov	AX, \value
#if BITS == 64
	mov	rdx, rax
	shr	rdx, 32
#else
	xor	edx, edx
#endif
	wrmsr
.endm

/* Reads into AX (all 64 bits in 64-bit mode). Clobbers CX, DX. */
.macro read_msr msr
	mov	ecx, \msr
	rdmsr
#if BITS == 64
	shl	rdx, 32
	or	rax, rdx
#endif
.endm

/* ZF = 0 if CPUID.leaf:subleaf has @bit in @reg. Clobbers EAX to EDX. */
.macro cpuid_bit leaf, subleaf, reg, bit
	mov	eax, \leaf
	mov	ecx, \subleaf
	cpuid
	test	\reg, 1 << \bit
.endm

/* ---- interrupts ---- */

.macro lapic_write reg, value
	push	DX
	mov	edx, LAPIC + \reg
	mov	dword ptr [DX], \value
	pop	DX
.endm

/* Reads into EAX. */
.macro lapic_read reg
	mov	eax, LAPIC + \reg
	mov	eax, [AX]
.endm

/* ICW1-4 as every PC does: vectors 0x20-0x2f, all masked but @unmask. Clobbers AL. */
.macro pic_init unmask=0
	mov	al, 0x11
	out	0x20, al
	out	0xa0, al
	mov	al, 0x20
	out	0x21, al
	mov	al, 0x28
	out	0xa1, al
	mov	al, 4
	out	0x21, al
	mov	al, 2
	out	0xa1, al
	mov	al, 1
	out	0x21, al
	out	0xa1, al
	mov	al, 0xff & ~(\unmask)
	out	0x21, al
	mov	al, 0xff
	out	0xa1, al
.endm

#endif
