/*
 * The I/O APIC: 24 pins, each with an entry that turns it into a message on the APIC bus.
 *
 * Source: Intel 82093AA datasheet (order 290566), section 3.
 */
#include "engine/soft/irqchip/internal.h"

#define IOREGSEL 0x00
#define IOWIN	 0x10

#define REG_ID	     0x00
#define REG_VERSION  0x01
#define REG_ARB	     0x02
#define REG_REDIRECT 0x10

#define IOAPIC_VERSION ((IOAPIC_PINS - 1) << 16 | 0x11)
#define IOAPIC_ID_MASK 0x0f000000u

/* Redirection entry, 82093AA 3.2.4 */
#define RTE_VECTOR(e)  ((u8)(e))
#define RTE_MODE(e)    (((e) >> 8) & 7)
#define RTE_LOGICAL    BIT(11)
#define RTE_STATUS     BIT(12)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL      BIT(15)
#define RTE_MASKED     BIT(16)
#define RTE_DEST(e)    ((u8)((e) >> 56))
#define RTE_READ_ONLY  (RTE_STATUS | RTE_REMOTE_IRR)
#define RTE_WRITABLE   (0xff0000000001ffffull & ~RTE_READ_ONLY)

static bool pin_level_triggered(u64 entry)
{
	/* Only fixed and lowest-priority interrupts are ended by an EOI; the others count as edges
	 * (82093AA 3.2.4, delivery mode) */
	return (entry & RTE_LEVEL) &&
	       (RTE_MODE(entry) == DELIVER_FIXED || RTE_MODE(entry) == DELIVER_LOWEST);
}

static void ioapic_service(struct irqchip *chip, u32 pin)
{
	u64 entry = chip->ioapic.redirtbl[pin].bits;
	struct apic_message msg = {
	    .dest = RTE_DEST(entry),
	    .logical = !!(entry & RTE_LOGICAL),
	    .level = pin_level_triggered(entry),
	    .vector = RTE_VECTOR(entry),
	    .mode = RTE_MODE(entry),
	};

	/* 82093AA 3.2.4, interrupt mask: edges on a masked pin are neither delivered nor held */
	if ((entry & RTE_MASKED) || msg.mode == DELIVER_SIPI)
		return;
	if (msg.level && (entry & RTE_REMOTE_IRR))
		return;
	if (apic_send(chip, &msg) && msg.level)
		chip->ioapic.redirtbl[pin].bits |= RTE_REMOTE_IRR;
}

void ioapic_set_line(struct irqchip *chip, u32 pin, bool level)
{
	bool before;

	if (pin >= IOAPIC_PINS)
		return;
	before = chip->ioapic.irr & BIT(pin);
	if (level)
		chip->ioapic.irr |= BIT(pin);
	else
		chip->ioapic.irr &= ~BIT(pin);
	if (level && (!before || pin_level_triggered(chip->ioapic.redirtbl[pin].bits)))
		ioapic_service(chip, pin);
}

void ioapic_eoi(struct irqchip *chip, u8 vector)
{
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 entry = chip->ioapic.redirtbl[pin].bits;

		if (RTE_VECTOR(entry) != vector || !(entry & RTE_REMOTE_IRR))
			continue;
		chip->ioapic.redirtbl[pin].bits &= ~RTE_REMOTE_IRR;
		if (chip->ioapic.irr & BIT(pin))
			ioapic_service(chip, pin);
	}
}

bool ioapic_edge_taken(struct irqchip *chip, u32 pin)
{
	u64 entry = chip->ioapic.redirtbl[pin].bits;

	if (entry & RTE_MASKED)
		return true;
	for (u32 i = 0; i < chip->lapic_count; i++)
		if (lapic_has_vector(chip->lapics[i], LAPIC_IRR, RTE_VECTOR(entry)))
			return false;
	return true;
}

bool ioapic_makes_nmi(const struct irqchip *chip)
{
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 entry = chip->ioapic.redirtbl[pin].bits;

		if (!(entry & RTE_MASKED) && RTE_MODE(entry) == DELIVER_NMI)
			return true;
	}
	return false;
}

static void ioapic_write_entry(struct irqchip *chip, u32 index, u32 value)
{
	u32 pin = index >> 1;
	__u64 *entry;
	u64 next;

	if (pin >= IOAPIC_PINS)
		return;
	entry = &chip->ioapic.redirtbl[pin].bits;
	if (index & 1)
		next = (*entry & 0xffffffffull) | (u64)value << 32;
	else
		next = (*entry & ~0xffffffffull) | value;
	*entry = (next & RTE_WRITABLE) | (*entry & RTE_READ_ONLY);
	/* Remote IRR means nothing on an edge pin, and software clears a stuck one by making it so
	 * (82093AA 3.2.4, remote IRR) */
	if (!pin_level_triggered(*entry))
		*entry &= ~RTE_REMOTE_IRR;
	else if (chip->ioapic.irr & BIT(pin))
		ioapic_service(chip, pin);
}

static u32 ioapic_read_register(struct irqchip *chip, u32 index)
{
	u32 pin = (index - REG_REDIRECT) >> 1;

	switch (index) {
	case REG_ID:
	case REG_ARB:
		return (chip->ioapic.id << 24) & IOAPIC_ID_MASK;
	case REG_VERSION:
		return IOAPIC_VERSION;
	}
	if (index < REG_REDIRECT || pin >= IOAPIC_PINS)
		return 0;
	return chip->ioapic.redirtbl[pin].bits >> (index & 1 ? 32 : 0);
}

u32 ioapic_read(struct irqchip *chip, u32 offset)
{
	switch (offset) {
	case IOREGSEL:
		return chip->ioapic.ioregsel;
	case IOWIN:
		return ioapic_read_register(chip, chip->ioapic.ioregsel);
	default:
		return 0;
	}
}

void ioapic_write(struct irqchip *chip, u32 offset, u32 value)
{
	u32 index = chip->ioapic.ioregsel;

	if (offset == IOREGSEL)
		chip->ioapic.ioregsel = value & 0xff;
	else if (offset == IOWIN && index == REG_ID)
		chip->ioapic.id = (value & IOAPIC_ID_MASK) >> 24;
	else if (offset == IOWIN && index >= REG_REDIRECT)
		ioapic_write_entry(chip, index - REG_REDIRECT, value);
}

void ioapic_reset(struct irqchip *chip)
{
	gp_fill(&chip->ioapic, 0, sizeof(chip->ioapic));
	chip->ioapic.base_address = IOAPIC_BASE;
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++)
		chip->ioapic.redirtbl[pin].bits = RTE_MASKED;
}

void ioapic_get(struct irqchip *chip, struct kvm_ioapic_state *state)
{
	*state = chip->ioapic;
}

void ioapic_set(struct irqchip *chip, const struct kvm_ioapic_state *state)
{
	chip->ioapic = *state;
	chip->ioapic.base_address = IOAPIC_BASE;
	chip->ioapic.ioregsel &= 0xff;
	chip->ioapic.irr &= BIT(IOAPIC_PINS) - 1;
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
		__u64 *entry = &chip->ioapic.redirtbl[pin].bits;

		*entry &= RTE_WRITABLE | RTE_REMOTE_IRR;
		if ((chip->ioapic.irr & BIT(pin)) && pin_level_triggered(*entry))
			ioapic_service(chip, pin);
	}
}
