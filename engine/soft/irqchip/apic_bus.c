/*
 * The APIC bus: who is addressed by a message, and what each delivery mode does to a local APIC.
 *
 * Source: SDM 3A 10.6 (interprocessor interrupts), 10.11 (MSI), 10.12.9 (ICR in x2APIC mode).
 */
#include <errno.h>

#include "engine/soft/irqchip/internal.h"

#define BROADCAST_8  0xffu
#define BROADCAST_32 0xffffffffu

#define DFR_FLAT    0xf
#define DFR_CLUSTER 0x0

/* ICR, SDM 3A figure 10-12 */
#define ICR_LOGICAL	 BIT(11)
#define ICR_ASSERT	 BIT(14)
#define ICR_LEVEL	 BIT(15)
#define ICR_SHORTHAND(i) (((i) >> 18) & 3)

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

/* SDM 3A 10.6.2.2; x2APIC: 10.12.10 */
static bool match_logical(const struct lapic *lapic, u32 dest)
{
	u32 ldr = lapic->regs[LAPIC_LDR];

	if (lapic_x2apic(lapic))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	if (dest > 0xff)
		return false;
	switch (lapic->regs[LAPIC_DFR] >> 28) {
	case DFR_FLAT:
		return (ldr >> 24) & dest;
	case DFR_CLUSTER:
		return ldr >> 28 == dest >> 4 && ((ldr >> 24) & dest & 0xf);
	default:
		return false;
	}
}

static bool match(const struct lapic *lapic, const struct apic_message *msg)
{
	u32 id = lapic->regs[LAPIC_ID];

	if (!lapic_enabled(lapic))
		return false;
	if (msg->dest == (msg->wide ? BROADCAST_32 : BROADCAST_8))
		return true;
	if (msg->logical)
		return match_logical(lapic, msg->dest);
	return msg->dest == (lapic_x2apic(lapic) ? id : id >> 24);
}

/* At most one NMI is taken and one more held; while one is handled only that (SDM 3A 6.7.1). */
static void deliver_nmi(struct soft_vcpu *v)
{
	u32 pending = atomic_load(&v->events.nmi);
	u32 limit = v->events.nmi_masked ? 1 : 2;

	while (pending < limit &&
	       !atomic_compare_exchange_weak(&v->events.nmi, &pending, pending + 1))
		;
	vcpu_poke(v, ATTENTION_IRQ);
}

static bool deliver_vector(struct lapic *lapic, u8 vector, bool level)
{
	u32 bit = BIT(vector & 31);

	if (!lapic_software_enabled(lapic))
		return false;
	/* SDM 3A 10.5.2: vectors 0 to 15 are illegal */
	if (vector < 16) {
		lapic_error(lapic, ESR_RECEIVE_VECTOR);
		return false;
	}
	lapic->regs[LAPIC_IRR + vector / 32] |= bit;
	if (level)
		lapic->regs[LAPIC_TMR + vector / 32] |= bit;
	else
		lapic->regs[LAPIC_TMR + vector / 32] &= ~bit;
	lapic_update(lapic);
	return true;
}

bool lapic_deliver(struct lapic *lapic, enum delivery_mode mode, u8 vector, bool level)
{
	switch (mode) {
	case DELIVER_FIXED:
	case DELIVER_LOWEST:
		return deliver_vector(lapic, vector, level);
	case DELIVER_NMI:
		deliver_nmi(lapic->v);
		return true;
	case DELIVER_INIT:
		atomic_store(&lapic->sipi, -1);
		atomic_store(&lapic->init, true);
		vcpu_poke(lapic->v, ATTENTION_IRQ);
		return true;
	case DELIVER_SIPI:
		atomic_store(&lapic->sipi, vector);
		vcpu_poke(lapic->v, ATTENTION_IRQ);
		return true;
	case DELIVER_EXTINT:
		lapic->extint = true;
		lapic_update(lapic);
		return true;
	case DELIVER_SMI: /* there is no system management mode */
		return true;
	}
	return false;
}

/* SDM 3A 10.6.2.4: the one whose PPR is lowest; among equals, in turn. */
static u32 send_lowest(struct irqchip *chip, const struct apic_message *msg)
{
	struct lapic *best = NULL;
	u32 start = chip->round_robin, best_index = 0;

	for (u32 i = 0; i < chip->lapic_count; i++) {
		u32 index = (start + i) % chip->lapic_count;
		struct lapic *lapic = chip->lapics[index];

		if (!match(lapic, msg) || !lapic_software_enabled(lapic))
			continue;
		if (!best || lapic->regs[LAPIC_PPR] < best->regs[LAPIC_PPR]) {
			best = lapic;
			best_index = index;
		}
	}
	if (!best)
		return 0;
	chip->round_robin = best_index + 1;
	return lapic_deliver(best, msg->mode, msg->vector, msg->level);
}

u32 apic_send(struct irqchip *chip, const struct apic_message *msg)
{
	u32 accepted = 0;

	if (msg->mode == DELIVER_LOWEST)
		return send_lowest(chip, msg);
	for (u32 i = 0; i < chip->lapic_count; i++)
		if (match(chip->lapics[i], msg))
			accepted +=
			    lapic_deliver(chip->lapics[i], msg->mode, msg->vector, msg->level);
	return accepted;
}

/* SDM 3A table 10-3: with "self" and "all including self" only fixed interrupts are valid; NMI is
 * harmless. */
static bool shorthand_valid(enum shorthand shorthand, enum delivery_mode mode)
{
	if (shorthand == TO_DEST || shorthand == TO_OTHERS)
		return true;
	return mode == DELIVER_FIXED || mode == DELIVER_LOWEST || mode == DELIVER_NMI;
}

static void send_shorthand(struct lapic *from, enum shorthand shorthand, enum delivery_mode mode,
			   u8 vector)
{
	struct irqchip *chip = from->chip;

	for (u32 i = 0; i < chip->lapic_count; i++) {
		struct lapic *lapic = chip->lapics[i];

		if (lapic == from ? shorthand == TO_OTHERS : shorthand == TO_SELF)
			continue;
		if (lapic_enabled(lapic))
			lapic_deliver(lapic, mode, vector, false);
	}
}

void lapic_send_icr(struct lapic *lapic)
{
	u32 icr = lapic->regs[LAPIC_ICR], high = lapic->regs[LAPIC_ICR2];
	enum shorthand shorthand = ICR_SHORTHAND(icr);
	struct apic_message msg = {
	    .wide = lapic_x2apic(lapic),
	    .dest = lapic_x2apic(lapic) ? high : high >> 24,
	    .logical = !!(icr & ICR_LOGICAL),
	    .vector = (u8)icr,
	    .mode = LVT_MODE(icr),
	};

	/* INIT level de-assert: without effect since the Pentium 4 (SDM 3A 10.6.1, delivery mode
	 * 101). 011 and 111 are reserved. */
	if (msg.mode == DELIVER_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT))
		return;
	if (msg.mode == DELIVER_EXTINT || msg.mode == 3)
		return;
	if ((msg.mode == DELIVER_FIXED || msg.mode == DELIVER_LOWEST) && msg.vector < 16) {
		lapic_error(lapic, ESR_SEND_VECTOR);
		return;
	}
	if (!shorthand_valid(shorthand, msg.mode))
		return;
	if (shorthand == TO_DEST)
		apic_send(lapic->chip, &msg);
	else
		send_shorthand(lapic, shorthand, msg.mode, msg.vector);
}

/* What LINT0 does when the PIC raises INTR. As ExtINT the level itself counts: lapic_update(). */
static void lint0_rises(struct lapic *lapic)
{
	if (lapic_enabled(lapic) && LVT_MODE(lapic->regs[LAPIC_LVT_LINT0]) != DELIVER_EXTINT)
		lapic_local(lapic, LAPIC_LVT_LINT0);
}

void apic_pic_output(struct irqchip *chip, bool level)
{
	for (u32 i = 0; i < chip->lapic_count; i++) {
		if (level)
			lint0_rises(chip->lapics[i]);
		else
			chip->lapics[i]->extint = false;
		lapic_update(chip->lapics[i]);
	}
	ioapic_set_line(chip, 0, level);
}

/* SDM 3A 10.11.1, 10.11.2: MSI address 0xfee, destination 19:12, redirection hint 3, logical 2;
 * data as LVT. */
int irqchip_msi(struct soft_vm *vm, const struct kvm_msi *msi)
{
	struct irqchip *chip = vm->irqchip;
	struct apic_message msg = {
	    .dest = (msi->address_lo >> 12) & 0xff,
	    .logical = !!(msi->address_lo & BIT(2)),
	    .vector = (u8)msi->data,
	    .mode = LVT_MODE(msi->data),
	};
	u32 accepted;

	if (!chip)
		return -ENXIO;
	if (msi->address_lo >> 20 != 0xfee || msi->address_hi)
		return -EINVAL;
	if (msg.mode == DELIVER_SIPI) /* reserved in MSIs */
		return 0;
	if ((msi->address_lo & BIT(3)) && msg.mode == DELIVER_FIXED)
		msg.mode = DELIVER_LOWEST;
	/* Level-triggered messages would want an EOI from the sender: none listens, so all are
	 * edges */
	gp_lock(&chip->lock);
	accepted = apic_send(chip, &msg);
	gp_unlock(&chip->lock);
	return accepted;
}
