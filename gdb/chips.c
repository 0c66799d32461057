#include "gdb/chips.h"

#include <string.h>

#include "base/types.h"

/* SDM 3A figure 10-8, 10.5.1, 10.6.1: delivery modes */
static const char *const modes[8] = {"fixed", "lowest", "SMI",	    "reserved",
				     "NMI",   "INIT",	"start-up", "ExtINT"};

/* ---- LAPIC: SDM 3A table 10-1 ---- */

static u32 lapic_register(const struct kvm_lapic_state *lapic, u32 offset)
{
	u32 value;

	memcpy(&value, lapic->regs + offset, sizeof(value));
	return value;
}

/** The vectors whose bit is set in the 256 bits at @offset. */
static void print_vectors(FILE *out, const struct kvm_lapic_state *lapic, const char *name,
			  u32 offset)
{
	bool any = false;

	fprintf(out, "  %s", name);
	for (u32 n = 0; n < 256; n++) {
		if (!(lapic_register(lapic, offset + n / 32 * 16) >> n % 32 & 1))
			continue;
		fprintf(out, " %02x", n);
		any = true;
	}
	fprintf(out, any ? "\n" : " none\n");
}

void chip_print_lapic(FILE *out, const struct kvm_lapic_state *lapic)
{
	static const struct {
		const char *name;
		u32 offset;
	} entries[] = {
	    {"timer", 0x320}, {"thermal", 0x330}, {"perf", 0x340},
	    {"lint0", 0x350}, {"lint1", 0x360},	  {"error", 0x370},
	};
	static const char *const timer_modes[4] = {"one-shot", "periodic", "TSC deadline",
						   "reserved"};

	fprintf(out,
		"  id %08x  version %08x  spurious %08x  task priority %02x  "
		"processor priority %02x\n",
		lapic_register(lapic, 0x20), lapic_register(lapic, 0x30),
		lapic_register(lapic, 0xf0), lapic_register(lapic, 0x80),
		lapic_register(lapic, 0xa0));
	fprintf(out, "  logical %08x  format %08x  command %08x%08x  errors %02x\n",
		lapic_register(lapic, 0xd0), lapic_register(lapic, 0xe0),
		lapic_register(lapic, 0x310), lapic_register(lapic, 0x300),
		lapic_register(lapic, 0x280));
	for (u32 n = 0; n < ARRAY_SIZE(entries); n++) {
		u32 lvt = lapic_register(lapic, entries[n].offset);
		fprintf(out, "  %-7s %08x  vector %02x %s%s%s\n", entries[n].name, lvt, lvt & 0xff,
			n == 0 ? timer_modes[lvt >> 17 & 3] : modes[lvt >> 8 & 7],
			lvt & BIT(12) ? " pending" : "", lvt & BIT(16) ? " masked" : "");
	}
	fprintf(out, "  timer   initial %08x  current %08x  divide %x\n",
		lapic_register(lapic, 0x380), lapic_register(lapic, 0x390),
		lapic_register(lapic, 0x3e0));
	print_vectors(out, lapic, "in service:", 0x100);
	print_vectors(out, lapic, "requested: ", 0x200);
	print_vectors(out, lapic, "level:     ", 0x180);
}

/* ---- IOAPIC: 82093AA data sheet, 3.2 ---- */

void chip_print_ioapic(FILE *out, const struct kvm_irqchip *chip)
{
	const struct kvm_ioapic_state *ioapic = &chip->chip.ioapic;

	fprintf(out, "  at %llx  id %u  select %02x  lines %06x\n",
		(unsigned long long)ioapic->base_address, ioapic->id, ioapic->ioregsel,
		ioapic->irr);
	for (u32 pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++) {
		u64 e = ioapic->redirtbl[pin].bits;
		fprintf(out, "  pin %2u  %016llx  vector %02x %s to %s %02x, %s, active %s%s%s\n",
			pin, (unsigned long long)e, (u32)e & 0xff, modes[e >> 8 & 7],
			e & BIT(11) ? "logical" : "physical", (u32)(e >> 56),
			e & BIT(15) ? "level" : "edge", e & BIT(13) ? "low" : "high",
			e & BIT(14) ? ", waits for EOI" : "", e & BIT(16) ? ", masked" : "");
	}
}

/* ---- PICs and PIT: 8259A, 8254 data sheets ---- */

void chip_print_pic(FILE *out, const struct kvm_irqchip *chip)
{
	const struct kvm_pic_state *pic = &chip->chip.pic;

	fprintf(out,
		"  %s  vectors from %02x  requested %02x  in service %02x  masked %02x  "
		"level %02x%s\n",
		chip->chip_id == KVM_IRQCHIP_PIC_MASTER ? "master" : "slave ", pic->irq_base,
		pic->irr, pic->isr, pic->imr, pic->elcr, pic->auto_eoi ? "  automatic EOI" : "");
}

void chip_print_pit(FILE *out, const struct kvm_pit_state2 *pit)
{
	for (u32 n = 0; n < ARRAY_SIZE(pit->channels); n++) {
		const struct kvm_pit_channel_state *c = &pit->channels[n];
		fprintf(out, "  channel %u  mode %u  count %u  gate %u%s\n", n, c->mode, c->count,
			c->gate, c->bcd ? "  BCD" : "");
	}
}
