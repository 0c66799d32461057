/*
 * Two cascaded 8259A interrupt controllers, with the edge/level control registers of the PC
 * chipsets.
 *
 * Source: Intel 8259A datasheet (order 231468); ELCR: Intel 82371AB (PIIX4) datasheet 4.2.5.
 */
#include "engine/soft/irqchip/internal.h"

#define PORT_MASTER 0x20
#define PORT_SLAVE  0xa0
#define PORT_ELCR   0x4d0

#define ICW1_SELECT BIT(4)
#define ICW1_IC4    BIT(0)
#define ICW4_AEOI   BIT(1)
#define ICW4_SFNM   BIT(4)
#define OCW3_SELECT BIT(3)
#define OCW3_RR	    BIT(1)
#define OCW3_RIS    BIT(0)
#define OCW3_POLL   BIT(2)
#define OCW3_ESMM   BIT(6)
#define OCW3_SMM    BIT(5)

#define SPURIOUS 7

/* Inputs whose sense can be set: not the timer, keyboard, cascade, RTC and FPU (PIIX4 4.2.5) */
static const u8 elcr_mask[2] = {0xf8, 0xde};

enum init_state { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

/* The highest-priority input of @inputs, or -1. priority_add is the input that has the highest
 * priority. */
static int pic_highest(const struct kvm_pic_state *pic, u8 inputs)
{
	for (int i = 0; i < 8; i++) {
		int irq = (i + pic->priority_add) & 7;

		if (inputs & BIT(irq))
			return irq;
	}
	return -1;
}

static int pic_rank(const struct kvm_pic_state *pic, int irq)
{
	return irq < 0 ? 8 : (irq - pic->priority_add) & 7;
}

/* The input that the chip asks to have serviced, or -1. */
static int pic_request(const struct kvm_pic_state *pic, bool master)
{
	int irq = pic_highest(pic, pic->irr & ~pic->imr);
	u8 in_service = pic->isr;

	/* Special mask mode: a masked level in service holds nothing back (231468, "Special Mask
	 * Mode") */
	if (pic->special_mask)
		in_service &= ~pic->imr;
	/* Special fully nested mode: further requests of the slave get through ("The Special Fully
	 * Nested Mode") */
	if (master && pic->special_fully_nested_mode)
		in_service &= ~BIT(PIC_CASCADE);
	return pic_rank(pic, irq) < pic_rank(pic, pic_highest(pic, in_service)) ? irq : -1;
}

static void pic_update(struct irqchip *chip)
{
	struct kvm_pic_state *master = &chip->pic[0];
	bool output;

	if (pic_request(&chip->pic[1], false) >= 0)
		master->irr |= BIT(PIC_CASCADE);
	else
		master->irr &= ~BIT(PIC_CASCADE);

	output = pic_request(master, true) >= 0;
	if (output != chip->pic_output) {
		chip->pic_output = output;
		apic_pic_output(chip, output);
	}
}

/* INT falls during INTA and rises again for the next request: an edge for whoever waits for one. */
static void pic_update_after_inta(struct irqchip *chip)
{
	if (chip->pic_output) {
		chip->pic_output = false;
		apic_pic_output(chip, false);
	}
	pic_update(chip);
}

void pic_set_line(struct irqchip *chip, u32 irq, bool level)
{
	struct kvm_pic_state *pic = &chip->pic[irq >> 3 & 1];
	u8 bit = BIT(irq & 7);

	if (irq >= 16 || irq == PIC_CASCADE)
		return;
	if (pic->elcr & bit)
		pic->irr = level ? pic->irr | bit : pic->irr & ~bit;
	else if (level && !(pic->last_irr & bit))
		/* Latched, so that a pulse is not lost before it is acknowledged */
		pic->irr |= bit;
	pic->last_irr = level ? pic->last_irr | bit : pic->last_irr & ~bit;
	pic_update(chip);
}

/* INTA for input @irq of one chip. */
static void pic_accept(struct kvm_pic_state *pic, int irq)
{
	if (!pic->auto_eoi)
		pic->isr |= BIT(irq);
	else if (pic->rotate_on_auto_eoi)
		pic->priority_add = (irq + 1) & 7;
	if (!(pic->elcr & BIT(irq)))
		pic->irr &= ~BIT(irq);
}

u8 pic_acknowledge(struct irqchip *chip)
{
	struct kvm_pic_state *master = &chip->pic[0], *slave = &chip->pic[1];
	int irq = pic_request(master, true);
	u8 vector;

	if (irq < 0) {
		vector = master->irq_base + SPURIOUS;
	} else if (irq == PIC_CASCADE) {
		/* The cascade input follows the slave's INT, so there is a request */
		int second = pic_request(slave, false);

		pic_accept(master, irq);
		pic_accept(slave, second);
		vector = slave->irq_base + second;
	} else {
		pic_accept(master, irq);
		vector = master->irq_base + irq;
	}
	pic_update_after_inta(chip);
	return vector;
}

static void pic_icw1(struct kvm_pic_state *pic, u8 value)
{
	/* 231468 "Initialization Command Words 1 and 2": edge sense cleared (an input that is
	 * already high counts for nothing), IMR cleared, IR7 lowest, special mask off, status read
	 * = IRR */
	pic->irr &= pic->elcr;
	pic->imr = 0;
	pic->isr = 0;
	pic->priority_add = 0;
	pic->special_mask = 0;
	pic->read_reg_select = 0;
	pic->poll = 0;
	pic->init_state = INIT_ICW2;
	pic->init4 = !!(value & ICW1_IC4);
	if (!pic->init4) {
		pic->auto_eoi = 0;
		pic->special_fully_nested_mode = 0;
	}
	pic->rotate_on_auto_eoi = 0;
}

/* 231468 figure 8, OCW2: R, SL, EOI and the level */
static void pic_ocw2(struct kvm_pic_state *pic, u8 value)
{
	int irq = value & 7;
	u8 in_service = pic->isr;

	switch (value >> 5) {
	case 0: /* rotate in automatic EOI mode: clear */
	case 4: /* ... set */
		pic->rotate_on_auto_eoi = value >> 7;
		break;
	case 1: /* non-specific EOI */
	case 5: /* rotate on non-specific EOI */
		/* A masked level is not ended in special mask mode ("End of Interrupt") */
		if (pic->special_mask)
			in_service &= ~pic->imr;
		irq = pic_highest(pic, in_service);
		if (irq < 0)
			break;
		pic->isr &= ~BIT(irq);
		if (value >> 7)
			pic->priority_add = (irq + 1) & 7;
		break;
	case 3: /* specific EOI */
		pic->isr &= ~BIT(irq);
		break;
	case 6: /* set priority */
		pic->priority_add = (irq + 1) & 7;
		break;
	case 7: /* rotate on specific EOI */
		pic->isr &= ~BIT(irq);
		pic->priority_add = (irq + 1) & 7;
		break;
	}
}

static void pic_ocw3(struct kvm_pic_state *pic, u8 value)
{
	if (value & OCW3_POLL)
		pic->poll = 1;
	if (value & OCW3_RR)
		pic->read_reg_select = value & OCW3_RIS;
	if (value & OCW3_ESMM)
		pic->special_mask = !!(value & OCW3_SMM);
}

static void pic_data(struct kvm_pic_state *pic, u8 value)
{
	switch (pic->init_state) {
	case INIT_DONE:
		pic->imr = value;
		break;
	case INIT_ICW2:
		pic->irq_base = value & 0xf8;
		pic->init_state = INIT_ICW3;
		break;
	case INIT_ICW3: /* the cascade is wired as in a PC whatever it says */
		pic->init_state = pic->init4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW4:
		pic->special_fully_nested_mode = !!(value & ICW4_SFNM);
		pic->auto_eoi = !!(value & ICW4_AEOI);
		pic->init_state = INIT_DONE;
		break;
	}
}

static void pic_write_elcr(struct kvm_pic_state *pic, u8 value)
{
	value &= pic->elcr_mask;
	/* What becomes level-sensed shows its line; what becomes edge-sensed waits for an edge */
	pic->irr = (pic->irr & ~(value | pic->elcr)) | (value & pic->last_irr);
	pic->elcr = value;
}

bool pic_owns(u16 port)
{
	u16 pair = port & ~1u;

	return pair == PORT_MASTER || pair == PORT_SLAVE || pair == PORT_ELCR;
}

void pic_write(struct irqchip *chip, u16 port, u8 value)
{
	struct kvm_pic_state *pic;

	if ((port & ~1u) == PORT_ELCR) {
		pic_write_elcr(&chip->pic[port & 1], value);
		pic_update(chip);
		return;
	}
	pic = &chip->pic[(port & ~1u) == PORT_SLAVE];
	if (port & 1)
		pic_data(pic, value);
	else if (value & ICW1_SELECT)
		pic_icw1(pic, value);
	else if (value & OCW3_SELECT)
		pic_ocw3(pic, value);
	else
		pic_ocw2(pic, value);
	pic_update(chip);
}

/* The read after a poll command is the INTA: bit 7 whether there was a request, 2:0 which. */
static u8 pic_poll(struct irqchip *chip, struct kvm_pic_state *pic)
{
	int irq = pic_request(pic, pic == &chip->pic[0]);

	pic->poll = 0;
	if (irq < 0)
		return 0;
	pic_accept(pic, irq);
	pic_update_after_inta(chip);
	return 0x80 | irq;
}

u8 pic_read(struct irqchip *chip, u16 port)
{
	struct kvm_pic_state *pic;

	if ((port & ~1u) == PORT_ELCR)
		return chip->pic[port & 1].elcr;
	pic = &chip->pic[(port & ~1u) == PORT_SLAVE];
	if (pic->poll)
		return pic_poll(chip, pic);
	if (port & 1)
		return pic->imr;
	return pic->read_reg_select ? pic->isr : pic->irr;
}

void pic_reset(struct irqchip *chip)
{
	for (int i = 0; i < 2; i++) {
		gp_fill(&chip->pic[i], 0, sizeof(chip->pic[i]));
		chip->pic[i].elcr_mask = elcr_mask[i];
	}
	pic_update(chip);
}

void pic_get(struct irqchip *chip, u32 which, struct kvm_pic_state *state)
{
	*state = chip->pic[which];
}

void pic_set(struct irqchip *chip, u32 which, const struct kvm_pic_state *state)
{
	struct kvm_pic_state *pic = &chip->pic[which];

	*pic = *state;
	pic->priority_add &= 7;
	pic->irq_base &= 0xf8;
	pic->init_state &= 3;
	pic->elcr_mask = elcr_mask[which];
	pic->elcr &= elcr_mask[which];
	pic_update(chip);
}
