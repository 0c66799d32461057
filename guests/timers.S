/*
 * PIT through the PICs and the IOAPIC; the LAPIC timer one-shot, periodic and by TSC deadline; the TSC.
 * Nothing here measures how fast, only that time passes and in which order.
 */
#include "lib.h"
GUEST(timers)

#define VECTOR 0x40
#define IOAPIC 0xfec00000
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_TSC 0x10

/* Sleeps in HLT until @vector has come @times times. */
.macro await vector, times
6:	cmp	dword ptr [irq_counts + \vector * 4], \times
	jae	7f
	sti
	hlt			/* in the shadow: no wake-up is lost */
	cli
	jmp	6b
7:
.endm

.macro forget vector
	mov	dword ptr [irq_counts + \vector * 4], 0
.endm

/* Channel 0, mode @mode (as in the control word), @count ticks of 1.193182 MHz. Clobbers AL. */
.macro pit mode, count
	mov	al, 0x30 | (\mode << 1)
	out	0x43, al
	mov	al, \count & 0xff
	out	0x40, al
	mov	al, \count >> 8
	out	0x40, al
.endm

/* Stops channel 0: in mode 0 it waits for a count. Clobbers AL. */
.macro pit_stop
	mov	al, 0x30
	out	0x43, al
.endm

/* Channel 0's counter into EAX, latched. */
.macro pit_read
	mov	al, 0
	out	0x43, al
	in	al, 0x40
	movzx	ecx, al
	in	al, 0x40
	movzx	eax, al
	shl	eax, 8
	or	eax, ecx
.endm

guest_main:
	call	tsc
	call	pit_periodic
	call	pit_one_shot
	call	pit_counts
	call	speaker
	lapic_write 0xf0, 0x1ff
	call	lapic_one_shot
	call	lapic_periodic
	call	lapic_deadline
	call	pit_by_ioapic
	call	mask_and_pend
	ret

tsc:
	rdtsc
	shl	rdx, 32
	lea	rbx, [rax + rdx]
	rdtsc
	shl	rdx, 32
	or	rax, rdx
	cmp	rax, rbx
	jae	1f
	fail()
1:	cpuid_bit 0x80000001, 0, edx, 27
	jz	2f
	write_msr 0xc0000103, 0x77
	rdtscp
	expect(rcx, 0x77)
2:	/* CR4.TSD keeps CPL 3 from it */
	mov	rax, cr4
	or	rax, 4
	mov	cr4, rax
	rdtsc
	expect_user_fault(GP, 0, rdtsc)
	mov	rax, cr4
	and	rax, ~4
	mov	cr4, rax
	user_ok(rdtsc)
	ret

pit_periodic:
	pic_init 1
	forget	0x20
	pit	2, 2000
	await	0x20, 5			/* or more: ticks may come while the guest has no processor */
	/* square wave as well */
	pit	3, 2000
	forget	0x20
	await	0x20, 3
	ret

/* Mode 0: one edge, then silence. */
pit_one_shot:
	pit_stop
	pic_init 1			/* drops what the old mode left behind */
	forget	0x20
	pit	0, 1000
	await	0x20, 1
	mov	ecx, 20000
	sti
1:	in	al, 0x80
	loop	1b
	cli
	mov	eax, [irq_counts + 0x20 * 4]
	expect(rax, 1)
	ret

/* The counter runs down; latched values are stable between the two reads. It goes round in 55 ms, which a busy host
 * can take away: some tries. */
pit_counts:
	pic_init 0
	mov	r12d, 20
3:	pit	0, 0xffff
	pit_read
	mov	ebx, eax
	mov	edx, 1000
1:	in	al, 0x80
	dec	edx
	jnz	1b
	pit_read
	cmp	eax, ebx
	jb	2f
	dec	r12d
	jnz	3b
	fail()
2:	/* read-back: status of channel 0, mode 0, both bytes, binary */
	mov	al, 0xe2
	out	0x43, al
	in	al, 0x40
	and	eax, 0x3f
	expect(rax, 0x30)
	ret

/* Channel 2 with its gate in port 0x61: OUT2 shows in bit 5 when mode 0 has counted down. */
speaker:
	mov	r12d, 20		/* tries: it lasts 55 ms, which a busy host can take away */
3:
	in	al, 0x61
	and	al, 0xfc
	or	al, 1
	out	0x61, al
	mov	al, 0xb0
	out	0x43, al
	mov	al, 0xff
	out	0x42, al
	out	0x42, al
	in	al, 0x61
	test	al, 0x20
	jz	1f
	dec	r12d
	jnz	3b
	fail()
1:	in	al, 0x61
	test	al, 0x20
	jz	1b
	ret

lapic_one_shot:
	forget	VECTOR
	lapic_write 0x3e0, 0xb		/* divide by 1 */
	lapic_write 0x320, VECTOR
	lapic_write 0x380, 1000000
	lapic_read 0x390
	mov	ebx, eax
	mov	ecx, 1000
1:	loop	1b
	lapic_read 0x390
	cmp	eax, ebx
	jbe	2f
	expect(rax, rbx)
2:	await	VECTOR, 1
	lapic_read 0x390
	expect(rax, 0)
	/* stopped by an initial count of 0 */
	forget	VECTOR
	lapic_write 0x380, 50000000
	lapic_write 0x380, 0
	mov	ecx, 100000
	sti
3:	in	al, 0x80
	loop	3b
	cli
	mov	eax, [irq_counts + VECTOR * 4]
	expect(rax, 0)
	ret

lapic_periodic:
	forget	VECTOR
	lapic_write 0x320, (0x20000|VECTOR)
	lapic_write 0x380, 1000000
	await	VECTOR, 5
	lapic_write 0x320, (0x30000|VECTOR)	/* masked */
	forget	VECTOR
	mov	ecx, 20000
	sti
1:	in	al, 0x80
	loop	1b
	cli
	mov	eax, [irq_counts + VECTOR * 4]
	cmp	eax, 1			/* one may have been on its way */
	jbe	2f
	expect(rax, 1)
2:	lapic_write 0x380, 0
	ret

lapic_deadline:
	cpuid_bit 1, 0, ecx, 24
	jz	no_deadline
	forget	VECTOR
	lapic_write 0x320, (0x40000|VECTOR)
	mfence
	rdtsc
	shl	rdx, 32
	or	rax, rdx
	add	rax, 1000000
	mov	r12, rax
	mov	rdx, rax
	shr	rdx, 32
	mov	ecx, MSR_TSC_DEADLINE
	wrmsr
	await	VECTOR, 1
	rdtsc
	shl	rdx, 32
	or	rax, rdx
	cmp	rax, r12
	jae	1f
	expect(rax, r12)
1:	read_msr MSR_TSC_DEADLINE	/* disarmed */
	expect(rax, 0)
	/* a deadline in the past is due at once */
	forget	VECTOR
	write_msr MSR_TSC_DEADLINE, 1
	await	VECTOR, 1
	lapic_write 0x320, 0x10000
no_deadline:
	ret

.macro ioapic index, value
	mov	ebx, IOAPIC
	mov	dword ptr [rbx], \index
	mov	dword ptr [rbx + 0x10], \value
.endm

/* IRQ 0 is pin 2 of the IOAPIC. */
pit_by_ioapic:
	pic_init 0
	mov	ebx, IOAPIC
	mov	dword ptr [rbx], 1	/* version: 24 pins */
	mov	eax, [rbx + 0x10]
	shr	eax, 16
	and	eax, 0xff
	expect(rax, 23)
	ioapic	0x15, 0
	ioapic	0x14, 0x60
	forget	0x60
	pit	2, 2000
	await	0x60, 3
	ioapic	0x14, 0x10060
	ret

/* A masked PIC line stays pending and comes when unmasked; IRR shows it. */
mask_and_pend:
	pit_stop
	pic_init 0
	forget	0x20
	pit	0, 500
1:	mov	al, 0x0a
	out	0x20, al
	in	al, 0x20
	test	al, 1
	jz	1b
	mov	eax, [irq_counts + 0x20 * 4]
	expect(rax, 0)
	mov	al, 0xfe
	out	0x21, al
	await	0x20, 1
	mov	eax, [irq_counts + 0x20 * 4]
	expect(rax, 1)
	mov	al, 0xff
	out	0x21, al
	ret
