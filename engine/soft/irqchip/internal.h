/*
 * What the files of the interrupt chips share. Functions here expect chip->lock to be held by the
 * caller, unless stated; they run inside (general registers only).
 */
#ifndef GUISE_SOFT_IRQCHIP_INTERNAL_H
#define GUISE_SOFT_IRQCHIP_INTERNAL_H

#include "base/gp.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/system/state.h"

#define NO_DEADLINE UINT64_MAX

/* Shortest interval between two interrupts of a periodic timer, ns: a guest may ask for 1 ns, and
 * the host would do nothing else. */
#define TIMER_MIN_PERIOD 20000ull

/* ---- 8259A: state in KVM's own structure, which names every flip-flop of the chip. last_irr holds
 * the levels of the input lines. ---- */
#define PIC_CASCADE 2 /* master input that the slave's INT drives */

/* ---- 8254 ---- */
#define PIT_HZ	     1193182ull
#define PIT_CHANNELS 3

struct pit_channel {
	struct kvm_pit_channel_state
	    s;		/* s.count: as programmed, 0x10000 for 0; BCD kept as binary */
	bool loaded;	/* a count was written since the control word */
	bool triggered; /* modes 1 and 5: the gate has risen since the control word */
	u64 frozen;	/* gate low: CLK pulses counted before it fell */
	u32 next_count; /* modes 2 and 3: takes over at next_load; 0: none */
	u64 next_load;	/* ns */
};

struct pit {
	struct pit_channel channel[PIT_CHANNELS];
	bool present;
	bool speaker;  /* port 0x61 bit 1 */
	u32 flags;     /* KVM_PIT_FLAGS_* as set by pit_set() */
	u64 fired;     /* channel 0: rising edges of OUT signalled since the count was loaded */
	u32 missed;    /* ticks that met one not yet taken; given back later, a bounded number */
	u64 last_tick; /* ns, of the last interrupt */
};

/* ---- IOAPIC: irr holds the levels of the input lines ---- */
#define IOAPIC_PINS KVM_IOAPIC_NUM_PINS
#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_SIZE 0x1000ull

/* ---- LAPIC registers: MMIO offset >> 4, which is also MSR - 0x800 (SDM 3A table 10-1, 10-6) ----
 */
enum lapic_reg {
	LAPIC_ID = 0x02,
	LAPIC_VERSION = 0x03,
	LAPIC_TPR = 0x08,
	LAPIC_APR = 0x09,
	LAPIC_PPR = 0x0a,
	LAPIC_EOI = 0x0b,
	LAPIC_RRD = 0x0c,
	LAPIC_LDR = 0x0d,
	LAPIC_DFR = 0x0e,
	LAPIC_SVR = 0x0f,
	LAPIC_ISR = 0x10,
	LAPIC_TMR = 0x18,
	LAPIC_IRR = 0x20,
	LAPIC_ESR = 0x28,
	LAPIC_ICR = 0x30,
	LAPIC_ICR2 = 0x31,
	LAPIC_LVT_TIMER = 0x32,
	LAPIC_LVT_THERMAL = 0x33,
	LAPIC_LVT_PERF = 0x34,
	LAPIC_LVT_LINT0 = 0x35,
	LAPIC_LVT_LINT1 = 0x36,
	LAPIC_LVT_ERROR = 0x37,
	LAPIC_TIMER_INITIAL = 0x38,
	LAPIC_TIMER_CURRENT = 0x39,
	LAPIC_TIMER_DIVIDE = 0x3e,
	LAPIC_SELF_IPI = 0x3f,
	LAPIC_REGS = 0x40,
};

#define SVR_ENABLE BIT(8)

#define LVT_VECTOR(lvt)	    ((u8)(lvt))
#define LVT_MODE(lvt)	    (((lvt) >> 8) & 7)
#define LVT_MASKED	    BIT(16)
#define LVT_TIMER_MODE(lvt) (((lvt) >> 17) & 3)

enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

/* Delivery modes, SDM 3A 10.5.1, 10.6.1; also of the IOAPIC and of MSIs */
enum delivery_mode {
	DELIVER_FIXED = 0,
	DELIVER_LOWEST = 1,
	DELIVER_SMI = 2,
	DELIVER_NMI = 4,
	DELIVER_INIT = 5,
	DELIVER_SIPI = 6, /* ICR only */
	DELIVER_EXTINT = 7,
};

/* ESR bits, SDM 3A figure 10-9 */
#define ESR_SEND_VECTOR	   BIT(5)
#define ESR_RECEIVE_VECTOR BIT(6)
#define ESR_REGISTER	   BIT(7)

#define APIC_BASE_BSP	BIT(8)
#define APIC_BASE_EXTD	BIT(10)
#define APIC_BASE_EN	BIT(11)
#define APIC_BASE_ADDR	0x000ffffffffff000ull
#define APIC_BASE_RESET 0xfee00000ull

/* lapic.ready: what waits for the processor. Bits 7:0 vector above PPR (0: none), bit 8 ExtINT. */
#define READY_VECTOR(r) ((u8)(r))
#define READY_EXTINT	BIT(8)

struct lapic {
	struct soft_vcpu *v; /* its apic_base MSR is this chip's too */
	struct irqchip *chip;
	u32 regs[LAPIC_REGS];
	u32 errors;	  /* found since the last write to ESR */
	bool extint;	  /* an ExtINT message arrived; the PIC gives the vector */
	u64 timer_due;	  /* one-shot and periodic: CLOCK_MONOTONIC ns, or NO_DEADLINE */
	u64 tsc_deadline; /* guest TSC; 0: disarmed */
	_Atomic u32 ready;
	_Atomic bool init;
	_Atomic int sipi; /* vector; -1: none */
};

struct irqchip {
	struct soft_vm *vm;
	struct gp_lock lock;
	struct kvm_pic_state pic[2];
	bool pic_output; /* INT of the master */
	struct kvm_ioapic_state ioapic;
	struct pit pit;
	struct lapic *lapics[VCPUS_MAX];
	u32 lapic_count;
	u32 round_robin; /* breaks ties of lowest-priority delivery */
};

/** A message on the APIC bus. */
struct apic_message {
	u32 dest;
	bool wide; /* dest has 32 bits (ICR in x2APIC mode), else 8 */
	bool logical;
	bool level; /* level-triggered: EOI goes to the IOAPIC */
	u8 vector;
	enum delivery_mode mode;
};

/* ---- pic.c ---- */
void pic_reset(struct irqchip *chip);
void pic_set_line(struct irqchip *chip, u32 irq, bool level);
/** Runs the two INTA cycles: the vector; with no request that of the master's IRQ 7, the spurious
 * one. */
u8 pic_acknowledge(struct irqchip *chip);
u8 pic_read(struct irqchip *chip, u16 port);
void pic_write(struct irqchip *chip, u16 port, u8 value);
bool pic_owns(u16 port);
void pic_get(struct irqchip *chip, u32 which, struct kvm_pic_state *state);
void pic_set(struct irqchip *chip, u32 which, const struct kvm_pic_state *state);

/* ---- pit.c ---- */
void pit_reset(struct irqchip *chip);
u8 pit_read(struct irqchip *chip, u16 port);
void pit_write(struct irqchip *chip, u16 port, u8 value);
bool pit_owns(const struct irqchip *chip, u16 port);
/** Signals the ticks due by @now; returns when the next one is. */
u64 pit_run(struct irqchip *chip, u64 now);

/* ---- ioapic.c ---- */
void ioapic_reset(struct irqchip *chip);
void ioapic_set_line(struct irqchip *chip, u32 pin, bool level);
void ioapic_eoi(struct irqchip *chip, u8 vector);
u32 ioapic_read(struct irqchip *chip, u32 offset);
void ioapic_write(struct irqchip *chip, u32 offset, u32 value);
void ioapic_get(struct irqchip *chip, struct kvm_ioapic_state *state);
void ioapic_set(struct irqchip *chip, const struct kvm_ioapic_state *state);
/** Whether no interrupt of ISA IRQ 0 waits at the pin or a LAPIC any more: a further tick would be
 * seen. */
bool ioapic_edge_taken(struct irqchip *chip, u32 pin);
/** Whether a pin is set up to send NMIs (82093AA 3.2.4, delivery mode). */
bool ioapic_makes_nmi(const struct irqchip *chip);

/* ---- apic_bus.c ---- */
/** Delivers to every LAPIC that @msg addresses; the number that accepted. */
u32 apic_send(struct irqchip *chip, const struct apic_message *msg);
/** Carries out the command in ICR. */
void lapic_send_icr(struct lapic *lapic);
/** Delivers @mode to this LAPIC alone; whether it accepted. */
bool lapic_deliver(struct lapic *lapic, enum delivery_mode mode, u8 vector, bool level);
/** PIC's INT changed: LINT0 of every LAPIC, and pin 0 of the IOAPIC. */
void apic_pic_output(struct irqchip *chip, bool level);

/* ---- lapic.c ---- */
/** Recomputes PPR and lapic->ready after any change of state, and pokes the vCPU for what is new.
 */
void lapic_update(struct lapic *lapic);
void lapic_error(struct lapic *lapic, u32 bit);
/** An event of a local source: delivered as LVT entry @reg says. */
void lapic_local(struct lapic *lapic, enum lapic_reg reg);
/** Whether what the PIC says arrives as NMI (SDM 3A 10.5.1). */
bool lapic_lint0_is_nmi(const struct lapic *lapic);
bool lapic_x2apic(const struct lapic *lapic);
bool lapic_enabled(const struct lapic *lapic);		/* IA32_APIC_BASE.EN */
bool lapic_software_enabled(const struct lapic *lapic); /* and SVR bit 8 */
bool lapic_has_vector(const struct lapic *lapic, enum lapic_reg bank, u8 vector);
/** As irqchip_mmio(), for the LAPIC's page alone. Takes the lock. */
bool lapic_mmio(struct soft_vcpu *v, u64 gpa, u32 size, u64 *value, bool write);
u32 lapic_read(struct lapic *lapic, enum lapic_reg reg);
void lapic_write(struct lapic *lapic, enum lapic_reg reg, u32 value);

/* ---- lapic_timer.c ---- */
void lapic_timer_stop(struct lapic *lapic);
void lapic_timer_set_initial(struct lapic *lapic, u32 count);
void lapic_timer_set_divide(struct lapic *lapic, u32 value);
void lapic_timer_set_lvt(struct lapic *lapic, u32 value);
void lapic_timer_set_deadline(struct lapic *lapic, u64 tsc);
/** Goes on from @current counts, after lapic_set(). */
void lapic_timer_resume(struct lapic *lapic, u32 current);
u32 lapic_timer_count(struct lapic *lapic, u64 now);
/** Signals the timer if due by @now; returns when it is due next. */
u64 lapic_timer_run(struct lapic *lapic, u64 now);

/** a * b / c with a 128-bit product; UINT64_MAX when it does not fit, or c is 0. */
static inline u64 muldiv(u64 a, u64 b, u64 c)
{
	unsigned __int128 product = (unsigned __int128)a * b;
	u64 high = (u64)(product >> 64), quotient, rest;

	if (high >= c)
		return UINT64_MAX;
	__asm__("divq %4"
		: "=a"(quotient), "=d"(rest)
		: "0"((u64)product), "1"(high), "rm"(c)
		: "cc");
	return quotient;
}

#endif
