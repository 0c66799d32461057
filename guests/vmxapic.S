/*
 * APIC virtualization and VMX (SDM vol. 3C chapter 30): which accesses to the APIC-access page and to MSRs of the x2APIC
 * the virtual-APIC page answers and what writes cause; virtual interrupts, their EOIs and priorities; posted interrupts.
 * The handlers of lib.S end interrupts by the EOI register at LAPIC: the virtual one where that is the APIC-access page.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmxapic)

#define INFO_VALID 0x80000000
#define LOW 0x51		/* vectors of virtual interrupts */
#define HIGH 0x61
#define NOTIFICATION 0xf2

#define INTERRUPTS (CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS)
/* With an APIC-access page */
#define page_controls(cpu, cpu2) controls((CPU_SECONDARY | CPU_TPR_SHADOW | (cpu)), CPU2_APIC_ACCESS | (cpu2))
#define SELF 0x40000		/* ICR: shorthand */

	.macro pin bits
	put_controls PIN_CONTROLS, MSR_VMX_TRUE_PIN, \bits
	.endm

	/* RVI and SVI; the page's registers are as after a reset, no interrupt has come yet. */
	.macro status rvi, svi=0
	call	clear_apic
	put	GUEST_INTERRUPT_STATUS, (\rvi | \svi << 8)
	.endm

	/* Bits of the page that go with it. */
	.macro requested vector
	or	dword ptr [apic + 0x200 + (\vector) / 32 * 16], 1 << ((\vector) & 31)
	.endm
	.macro in_service vector
	or	dword ptr [apic + 0x100 + (\vector) / 32 * 16], 1 << ((\vector) & 31)
	.endm

#define expect_status(rvi, svi) expect_field(GUEST_INTERRUPT_STATUS, ((svi) << 8 | (rvi)))

	.macro register_is offset, want, line
	mov	eax, [apic + \offset]
	check_equal "rax", "\want", \line
	.endm
#define expect_register(offset, want) EXPECT_REGISTER_(offset, want)
#define EXPECT_REGISTER_(offset, want) register_is #offset, #want, __LINE__

	.macro left reason, qualification, label, line
	check_equal "[x_reason]", "\reason", \line
	check_equal "[x_qualification]", "\qualification", \line
	check_equal "[x_rip]", "offset \label", \line
	.endm
#define expect_left(reason, qualification, label) EXPECT_LEFT_(reason, qualification, label)
#define EXPECT_LEFT_(reason, qualification, label) left #reason, #qualification, #label, __LINE__

	/* @total interrupts came, the last with @vector before the instruction at @label. */
	.macro came total, vector, label, line
	check_equal "qword ptr [irq_total]", "\total", \line
	check_equal "qword ptr [irq_vector]", "\vector", \line
	check_equal "qword ptr [irq_ip]", "offset \label", \line
	.endm
#define expect_interrupts(total, vector, label) EXPECT_INTERRUPTS_(total, vector, label)
#define EXPECT_INTERRUPTS_(total, vector, label) came #total, #vector, #label, __LINE__
#define expect_no_interrupt() expect(qword ptr [irq_total], 0)

#define wrmsr_(index, value) mov ecx, index; mov eax, value; xor edx, edx; wrmsr
#define rdmsr_(index) mov ecx, index; rdmsr

	.macro interrupts_on
	mov	qword ptr [l2_rflags], F_IF | 2
	.endm
	.macro interrupts_off
	mov	qword ptr [l2_rflags], 2
	.endm

	.text
guest_main:
	cpuid_bit 1, 0, ecx, 5
	jnz	1f
2:	mov	rsi, offset text_absent
	call	print
	ret
1:	read_msr MSR_VMX_CPU2
	shr	rax, 32
	and	eax, CPU2_APIC_ACCESS | CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS
	cmp	eax, CPU2_APIC_ACCESS | CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS
	jne	2b
	call	vmx_begin
	lapic_write 0xf0, 0x1ff
	put	APIC_ACCESS_ADDRESS, LAPIC
	put	VIRTUAL_APIC_ADDRESS, "offset apic"
	put	MSR_BITMAP, "offset bitmap"
	.irp	n, 0, 2, 4, 6
	put	(EOI_EXIT_BITMAP0 + \n), 0
	.endr
	mov	esi, LAPIC

	/* ---- the page with a TPR shadow: offset 80H only, in its low bytes ---- */
	page_controls(0, 0)
	status	0
	mov	dword ptr [apic + 0x80], 0x50
	xor	ecx, ecx
	runs(mov cx, [rsi + 0x80]; or byte ptr [rsi + 0x80], 1)
	expect(rcx, 0x50)
	expect_register(0x80, 0x51)
	l2(mov rcx, [rsi + 0x80])
	expect_left(R_APIC_ACCESS, 0x80, 7b)
	expect([x_length], 7)
	l2(mov cl, [rsi + 0x81])
	expect_left(R_APIC_ACCESS, 0x81, 7b)
	l2(mov [rsi + 0x82], ecx)
	expect_left(R_APIC_ACCESS, 0x1082, 7b)
	l2(mov ecx, [rsi + 0xb0])
	expect_left(R_APIC_ACCESS, 0xb0, 7b)
	runs(clflush [rsi + 0x80]; prefetcht0 [rsi + 0xb0])
	l2(clflush [rsi + 0xb0])	/* a read */
	expect_left(R_APIC_ACCESS, 0xb0, 7b)

	/* ---- with virtual-interrupt delivery EOI and ICR too ---- */
	pin	PIN_INTERRUPT
	page_controls(0, CPU2_VIRTUAL_INTERRUPTS)
	mov	dword ptr [apic + 0x300], 0x1234
	runs(mov ecx, [rsi + 0xb0]; mov ecx, [rsi + 0x300])
	expect(rcx, 0x1234)
	l2(mov ecx, [rsi + 0x20])
	expect_left(R_APIC_ACCESS, 0x20, 7b)
	l2(mov [rsi + 0x280], ecx)
	expect_left(R_APIC_ACCESS, 0x1280, 7b)
	pin	0

	/* ---- APIC-register virtualization: reads ---- */
	page_controls(0, CPU2_APIC_REGISTERS)
	mov	dword ptr [apic + 0x20], 0x12345678
	xor	edx, edx
	runs(mov ecx, [rsi + 0x20]; mov dl, [rsi + 0x23])
	expect(rcx, 0x12345678)
	expect(rdx, 0x12)
	.macro readable offset:vararg	/* all of them: the value is the register's offset */
	.irp	n, \offset
	mov	dword ptr [apic + \n], \n
	runs(mov ecx, [rsi + \n])
	expect(rcx, \n)
	.endr
	.endm
	readable 0x30, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x100, 0x170, 0x180, 0x1f0, 0x200, 0x270, 0x280, 0x300, 0x310, 0x320, 0x370
	readable 0x380, 0x3e0
	.macro unreadable offset:vararg
	.irp	n, \offset
	l2(mov ecx, [rsi + \n])
	expect_left(R_APIC_ACCESS, \n, 7b)
	.endr
	.endm
	unreadable 0x00, 0x90, 0xa0, 0xc0, 0x2f0, 0x390, 0x3f0, 0x400, 0x24, 0x88
	l2(jmp rsi)
	expect_left(R_APIC_ACCESS, 0x2000, LAPIC)

	/* ---- writes ---- */
	.macro unwritable offset:vararg
	.irp	n, \offset
	l2(mov [rsi + \n], ecx)
	expect_left(R_APIC_ACCESS, (\n + 0x1000), 7b)
	.endr
	.endm
	unwritable 0x30, 0xa0, 0x100, 0x170, 0x180, 0x200, 0x270, 0x2f0, 0x390, 0x3f0
	.macro told offset:vararg	/* done, and the hypervisor learns of it */
	.irp	n, \offset
	mov	ecx, \n + 1
	l2(mov [rsi + \n], ecx; 6: nop)
	expect_left(R_APIC_WRITE, \n, 6b)
	expect_register(\n, (\n + 1))
	.endr
	.endm
	told	0x20, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x320, 0x370, 0x380, 0x3e0
	l2(mov [rsi + 0x81], cl; 6: nop)	/* no write to the TPR */
	expect_left(R_APIC_WRITE, 0x81, 6b)
	runs(mov dword ptr [rsi + 0x310], 0x12345678)
	expect_register(0x310, 0x12000000)
	mov	ecx, -0xcb
	runs(mov [rsi + 0x80], ecx)
	expect_register(0x80, 0x35)
	put	TPR_THRESHOLD, 3
	l2(mov byte ptr [rsi + 0x80], 0x2f; 6: nop)
	expect_left(R_TPR, 0, 6b)
	put	TPR_THRESHOLD, 0

	/* ---- ... of several kinds of instructions, and what else is due behind them ---- */
	mov	edi, LAPIC + 0x280
	mov	eax, 7
	l2(stosd; 6: nop)
	expect_left(R_APIC_WRITE, 0x280, 6b)
	sub	edi, esi
	expect(rdi, 0x284)
	mov	ecx, 9
	l2(xchg [rsi + 0x280], ecx; 6: nop)
	expect_left(R_APIC_WRITE, 0x280, 6b)
	expect(rcx, 7)
	mov	edi, LAPIC + 0x280	/* the second is another register's */
	mov	ecx, 3
	l2(rep stosb; 6: nop)
	expect_left(R_APIC_WRITE, 0x280, 7b)
	expect(rcx, 2)
	mov	eax, LAPIC + 0x84	/* one instruction, two writes: CS, and then IP below it */
	xchg	rax, [l2_rsp]
	mov	edi, offset far_pointer
	l2(.byte 0x66, 0xff, 0x1f)	/* CALL m16:16 */
	mov	[l2_rsp], rax
	expect_left(R_APIC_ACCESS, 0x1080, 7b)
	expect_register(0x80, KCODE64 << 16 | 0x2f)
	mov	dword ptr [apic + 0x80], 0
	l2(sti; mov [rsi + 0x280], ecx; 6: nop)
	expect_left(R_APIC_WRITE, 0x280, 6b)
	expect_field(GUEST_INTERRUPTIBILITY, 0)
	mov	qword ptr [l2_rflags], F_TF | 2
	put	EXCEPTION_BITMAP, (1 << DB)
	l2(mov [rsi + 0x280], ecx; 6: nop)
	expect_left(R_APIC_WRITE, 0x280, 6b)
	expect_field(GUEST_PENDING_DEBUG, 0x4000)
	put	GUEST_PENDING_DEBUG, 0
	put	EXCEPTION_BITMAP, 0
	interrupts_off
	page_controls(CPU_MTF, CPU2_APIC_REGISTERS)
	l2(mov [rsi + 0x280], ecx; 6: nop)
	expect_left(R_APIC_WRITE, 0x280, 6b)
	l2(mov dword ptr [rsi + 0x310], 0; 6: nop)
	expect_left(R_MTF, 0, 6b)

	/* ---- virtual interrupts: VM entry, what holds them back ---- */
	pin	PIN_INTERRUPT
	page_controls(0, INTERRUPTS)
	status	LOW
	requested LOW
	put	TPR_THRESHOLD, 0xfff	/* of no account */
	runs(nop)			/* IF is 0 */
	expect_no_interrupt()
	expect_status(LOW, 0)
	interrupts_on
	runs(nop)
	expect_interrupts(1, LOW, 7b)
	expect_status(0, 0)
	expect_register(0x120, 0)
	expect_register(0x220, 0)
	expect_register(0xa0, 0)
	put	TPR_THRESHOLD, 0
	interrupts_off
	status	LOW
	runs(sti; nop; 6: nop)		/* STI's shadow */
	expect_interrupts(1, LOW, 6b)
	status	LOW
	runs(push F_IF | 2; popf; 6: nop)
	expect_interrupts(1, LOW, 6b)
	interrupts_on
	status	LOW
	put	GUEST_INTERRUPTIBILITY, 2	/* MOV SS */
	runs(nop; 6: nop)
	expect_interrupts(1, LOW, 6b)
	status	LOW
	put	ENTRY_INTR_INFO, (INFO_VALID | 0x55)
	runs(nop)			/* behind what is injected */
	expect_interrupts(2, LOW, 7b)
	status	LOW
	page_controls(CPU_INT_WINDOW, INTERRUPTS)
	l2(nop)
	expect_left(R_INT_WINDOW, 0, 7b)
	expect_no_interrupt()
	expect_status(LOW, 0)
	page_controls(0, INTERRUPTS)

	/* ---- priorities: TPR and PPR ---- */
	status	LOW
	mov	dword ptr [apic + 0x80], 0x5f
	runs(nop)
	expect_no_interrupt()
	expect_register(0xa0, 0x5f)
	runs(mov dword ptr [rsi + 0x80], 0x4f; 6: nop)
	expect_interrupts(1, LOW, 6b)
	expect_register(0xa0, 0x4f)
	status	LOW
	mov	dword ptr [apic + 0x80], 0x50
	mov	ecx, 4
	runs(mov cr8, rcx; 6: nop)
	expect_interrupts(1, LOW, 6b)
	expect_register(0x80, 0x40)
	status	LOW, HIGH		/* one of a higher class is in service */
	in_service HIGH
	runs(nop)
	expect_no_interrupt()
	expect_register(0xa0, 0x60)
	runs(mov dword ptr [rsi + 0xb0], 0; 6: nop)
	expect_interrupts(1, LOW, 6b)
	expect_status(0, 0)
	expect_register(0x130, 0)
	status	HIGH			/* two: the higher one first, the other behind its EOI */
	requested HIGH
	requested LOW
	runs(nop)
	expect_interrupts(2, LOW, 7b)
	expect_status(0, 0)
	status	HIGH, LOW		/* nested in one of a lower class */
	requested HIGH
	in_service LOW
	runs(nop)
	expect_interrupts(1, HIGH, 7b)
	expect_status(0, LOW)
	expect_register(0xa0, 0x50)
	expect_register(0x120, 1 << (LOW & 31))

	/* ---- EOIs ---- */
	interrupts_off
	put	EOI_EXIT_BITMAP1, (1 << (LOW - 64))
	status	0, LOW
	in_service LOW
	l2(mov [rsi + 0xb0], esi; 6: nop)
	expect_left(R_VIRTUALIZED_EOI, LOW, 6b)
	expect_status(0, 0)
	expect_register(0xb0, 0)
	expect_register(0x120, 0)
	status	0, HIGH
	in_service HIGH
	in_service LOW
	runs(mov [rsi + 0xb0], esi)
	expect_status(0, LOW)
	expect_register(0xa0, 0x50)
	put	EOI_EXIT_BITMAP1, 0
	put	EOI_EXIT_BITMAP3, -1
	status	0, 0xff
	in_service 0xff
	l2(mov [rsi + 0xb0], esi; 6: nop)
	expect_left(R_VIRTUALIZED_EOI, 0xff, 6b)
	put	EOI_EXIT_BITMAP3, 0

	/* ---- self-IPIs ---- */
	interrupts_on
	status	0
	runs(mov dword ptr [rsi + 0x300], SELF | LOW; 6: nop)
	expect_interrupts(1, LOW, 6b)
	status	0
	runs(mov dword ptr [rsi + 0x300], SELF | 0x4800 | LOW; 6: nop)	/* asserted, logical: of no account */
	expect_interrupts(1, LOW, 6b)
	interrupts_off
	status	HIGH
	runs(mov dword ptr [rsi + 0x300], SELF | LOW)
	expect_status(HIGH, 0)
	expect_register(0x220, 1 << (LOW & 31))
	.macro sent value:vararg	/* no self-IPI: the hypervisor's to send */
	.irp	n, \value
	l2(mov dword ptr [rsi + 0x300], \n; 6: nop)
	expect_left(R_APIC_WRITE, 0x300, 6b)
	.endr
	.endm
	sent	LOW, 0x80051, 0xc0051, 0x4000f, 0x40451, 0x41051, 0x48051, 0x42051, 0x50051, 0x140051
	expect_no_interrupt()

	/* ---- HLT ---- */
	interrupts_on
	status	LOW
	put	GUEST_ACTIVITY, 1
	runs(nop)
	expect_interrupts(1, LOW, 7b)
	interrupts_off
	put	GUEST_ACTIVITY, 0
	status	0
	runs(mov dword ptr [rsi + 0x300], SELF | LOW; sti; hlt; 6: nop)
	expect_interrupts(1, LOW, 6b)
	pin	PIN_INTERRUPT | PIN_TIMER
	put	PREEMPTION_TIMER, 100000
	put	GUEST_ACTIVITY, 1
	status	LOW
	l2(nop)				/* without IF it sleeps on */
	expect_left(R_TIMER, 0, 7b)
	expect_field(GUEST_ACTIVITY, 1)
	put	GUEST_ACTIVITY, 0
	pin	PIN_INTERRUPT

	/* ---- among other events; delivery that fails ---- */
	interrupts_on
	status	LOW
	lapic_write 0x310, 0
	lapic_write 0x300, 0x40
	l2(nop)				/* before external interrupts */
	expect_left(R_INTERRUPT, 0, stubs + LOW * 16)
	expect_status(0, LOW)
	sti				/* taken here */
	nop
	cli
	status	LOW
	put	GUEST_IDTR_LIMIT, 0
	put	EXCEPTION_BITMAP, (1 << GP)
	l2(nop)
	expect([x_reason], R_EXCEPTION)
	expect([x_error], LOW * 8 + 3)
	mov	eax, INFO_VALID | LOW
	expect([x_vectoring], rax)
	expect_status(0, LOW)
	put	GUEST_IDTR_LIMIT, 0xfff
	put	EXCEPTION_BITMAP, 0
	interrupts_off

	/* ---- MSRs of the x2APIC, in xAPIC mode ---- */
	put	EXCEPTION_BITMAP, (1 << GP)
	controls((CPU_SECONDARY | CPU_TPR_SHADOW | CPU_MSR_BITMAPS), CPU2_X2APIC | INTERRUPTS)
	status	0
	mov	rax, 0x1122334455667788
	mov	[apic + 0x20], rax
	mov	[apic + 0xff0], rax
	runs(rdmsr_(0x802))
	expect(rax, 0x55667788)
	expect(rdx, 0x11223344)
	runs(rdmsr_(0x8ff))
	expect(rdx, 0x11223344)
	runs(wrmsr_(0x808, 0x35))
	expect_register(0x80, 0x35)
	expect_register(0xa0, 0x35)
	.macro refused index, value, high=0
	l2(mov ecx, \index; mov eax, \value; mov edx, \high; 6: wrmsr)
	expect([x_reason], R_EXCEPTION)
	expect([x_rip], offset 6b)
	.endm
	refused	0x808, 0x100
	refused	0x808, 0, 1
	refused	0x80b, 1
	refused	0x83f, 0x100
	refused	0x830, 0		/* the LAPIC's own, which is in xAPIC mode */
	expect_register(0x80, 0x35)
	status	0, LOW
	in_service LOW
	runs(wrmsr_(0x80b, 0))
	expect_status(0, 0)
	interrupts_on
	status	0
	runs(wrmsr_(0x83f, LOW); 6: nop)
	expect_interrupts(1, LOW, 6b)
	expect_status(0, LOW)		/* the handler's EOI went to the LAPIC */
	interrupts_off
	l2(wrmsr_(0x83f, 0x0f); 6: nop)
	expect_left(R_APIC_WRITE, 0x3f0, 6b)
	expect_register(0x3f0, 0x0f)
	controls((CPU_SECONDARY | CPU_TPR_SHADOW | CPU_MSR_BITMAPS), CPU2_X2APIC)
	mov	dword ptr [apic + 0x80], 0x77
	runs(rdmsr_(0x808))
	expect(rax, 0x77)
	l2(mov ecx, 0x802; 6: rdmsr)	/* not without APIC-register virtualization */
	expect([x_reason], R_EXCEPTION)
	refused	0x80b, 0		/* nor without virtual interrupts */
	put	TPR_THRESHOLD, 7
	l2(wrmsr_(0x808, 0x6f); 6: nop)
	expect_left(R_TPR, 0, 6b)
	put	TPR_THRESHOLD, 0
	put	EXCEPTION_BITMAP, 0

	/* ---- an external interrupt whose delivery leaves is not delivered again ---- */
	pin	0
	page_controls(0, 0)
	interrupts_on
	status	0
	mov	ecx, LAPIC + 0x1000	/* a stack where none can be */
	xchg	rcx, [l2_rsp]
	lapic_write 0x310, 0
	lapic_write 0x300, 0x40
	l2(nop)
	mov	[l2_rsp], rcx
	expect([x_reason], R_APIC_ACCESS)
	mov	rax, [x_qualification]
	shr	eax, 12
	expect(rax, 3)
	mov	eax, INFO_VALID | 0x40
	expect([x_vectoring], rax)
	sti
	nop
	cli
	expect_no_interrupt()
	lapic_write 0xb0, 0
	interrupts_off

	/* ---- posted interrupts ---- */
	pin	PIN_INTERRUPT | PIN_POSTED
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64 | EXIT_ACK
	page_controls(0, INTERRUPTS)
	put	POSTED_INTERRUPT_VECTOR, NOTIFICATION
	put	POSTED_INTERRUPT_DESCRIPTOR, "offset descriptor"
	.macro post vector
	bts	dword ptr [descriptor + (\vector) / 32 * 4], (\vector) & 31
	or	dword ptr [descriptor + 32], 1
	lapic_write 0x310, 0
	lapic_write 0x300, NOTIFICATION
	.endm
	interrupts_on
	status	0
	mov	dword ptr [descriptor + 32], 4	/* software's own */
	post	LOW
	runs(nop)
	expect_interrupts(1, LOW, 7b)
	expect_status(0, 0)
	expect(qword ptr [descriptor + 32], 4)
	expect(qword ptr [descriptor + 8], 0)
	lapic_read 0x170		/* the notification is not in service */
	expect(rax, 0)
	interrupts_off
	status	0			/* taken without IF */
	post	0x2f
	post	LOW
	post	0x9f
	post	0xf5
	runs(nop)
	expect_no_interrupt()
	expect_status(0xf5, 0)
	expect_register(0x210, 1 << (0x2f & 31))
	expect_register(0x220, 1 << (LOW & 31))
	mov	ecx, 1 << (0x9f & 31)
	expect_register(0x240, rcx)
	expect_register(0x270, 1 << (0xf5 & 31))
	expect(qword ptr [descriptor], 0)
	expect(qword ptr [descriptor + 24], 0)
	status	HIGH			/* what is requested already is higher; nothing posted */
	post	LOW
	runs(nop)
	expect_status(HIGH, 0)
	lapic_write 0x300, NOTIFICATION
	runs(nop)
	expect_status(HIGH, 0)
	status	0			/* it arrives in HLT: on it sleeps */
	pin	PIN_INTERRUPT | PIN_POSTED | PIN_TIMER
	put	PREEMPTION_TIMER, 100000
	put	GUEST_ACTIVITY, 1
	post	LOW
1:	l2(nop)
	mov	rax, GUEST_INTERRUPT_STATUS	/* a slow host's timer may come first */
	vmread	rbx, rax
	test	ebx, ebx
	jz	1b
	expect_left(R_TIMER, 0, 7b)
	expect_field(GUEST_ACTIVITY, 1)
	expect_status(LOW, 0)
	pin	PIN_INTERRUPT | PIN_POSTED
	interrupts_on
	status	0			/* ... or wakes up */
	post	LOW
	runs(nop)
	expect_interrupts(1, LOW, 7b)
	put	GUEST_ACTIVITY, 0
	status	0			/* from within, which has the LAPIC itself */
	bts	dword ptr [descriptor + LOW / 32 * 4], LOW & 31
	controls((CPU_SECONDARY | CPU_TPR_SHADOW), INTERRUPTS)
	runs(mov dword ptr [rsi + 0x300], NOTIFICATION; 6: nop)
	expect_interrupts(1, LOW, 6b)
	page_controls(0, INTERRUPTS)
	interrupts_off
	lapic_write 0x300, 0x40		/* another interrupt leaves */
	l2(nop)
	expect_left(R_INTERRUPT, 0, 7b)
	mov	eax, INFO_VALID | 0x40
	expect([x_interruption], rax)
	lapic_write 0xb0, 0

	/* ---- VM entry refuses ---- */
	.macro entry_refused
	l2(nop)
	mov	eax, 0x80000007
	expect([x_reason], rax)
	.endm
	put	POSTED_INTERRUPT_DESCRIPTOR, "offset descriptor + 32"
	entry_refused
	put	POSTED_INTERRUPT_DESCRIPTOR, "offset descriptor"
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64
	entry_refused
	pin	0
	entry_refused
	pin	PIN_INTERRUPT
	runs(nop)
	controls(CPU_SECONDARY, CPU2_APIC_REGISTERS)
	entry_refused
	page_controls(0, CPU2_X2APIC)
	entry_refused

	/* ---- SYSRET lets one come in, at CPL 3 ---- */
	page_controls(0, INTERRUPTS)
	read_msr MSR_EFER
	or	eax, 1			/* SCE */
	mov	ebx, eax
	write_msr MSR_EFER, rbx
	mov	rbx, (UCODE64 - 16) << 48
	write_msr MSR_STAR, rbx
	status	LOW
	l2(mov ecx, offset user_vmcall; mov r11d, F_IF | 2; sysretq)
	expect([x_reason], R_VMCALL)
	expect_interrupts(1, LOW, user_vmcall)
	ret

/* Clobbers nothing. */
clear_apic:
	push	rax
	push	rcx
	push	rdi
	cld
	mov	edi, offset apic
	xor	eax, eax
	mov	ecx, 512
	rep	stosq
	mov	qword ptr [irq_total], 0
	pop	rdi
	pop	rcx
	pop	rax
	ret

#include "vmx.inc"
	.section .user, "awx"
user_vmcall:
	vmcall
	.section .rodata
far_pointer: .word 0, KCODE64
text_absent: .asciz "no VMX, or none with APIC virtualization\n"
	.bss
	.balign 4096
apic:	.skip 4096
bitmap:	.skip 4096
descriptor: .skip 64
