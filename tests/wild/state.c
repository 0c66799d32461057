/* Random values through every door by which a monitor sets state. */
#include <stdlib.h>
#include <string.h>

#include "tests/wild/wild.h"

/* Bits that a processor may have set, so that more than the first check is reached. */
static u64 some_bits(struct random *r, u64 likely_bits)
{
	u64 value = random_next(r) & likely_bits;
	return one_in(r, 8) ? value ^ BIT(random_below(r, 64)) : value;
}

static void random_segment(struct random *r, struct kvm_segment *s)
{
	if (one_in(r, 3))
		random_fill(r, s, sizeof(*s));
	if (one_in(r, 3))
		s->base = random_edge(r);
	if (one_in(r, 3))
		s->limit = (u32)random_edge(r);
	if (one_in(r, 4))
		s->type = (u8)random_below(r, 16);
	if (one_in(r, 4))
		s->dpl = (u8)random_below(r, 4);
	if (one_in(r, 8))
		s->selector = (u16)random_next(r);
	if (one_in(r, 8))
		s->l = !s->l;
	if (one_in(r, 8))
		s->db = !s->db;
	if (one_in(r, 8))
		s->unusable = !s->unusable;
}

static void random_sregs(struct random *r, struct kvm_sregs *s)
{
	struct kvm_segment *segments[] = {&s->cs, &s->ds, &s->es, &s->fs,
					  &s->gs, &s->ss, &s->tr, &s->ldt};
	if (one_in(r, 8)) {
		random_fill(r, s, sizeof(*s));
		return;
	}
	for (u32 n = 0; n < ARRAY_SIZE(segments); n++)
		if (one_in(r, 3))
			random_segment(r, segments[n]);
	if (one_in(r, 3))
		s->gdt = (struct kvm_dtable){.base = random_edge(r), .limit = (u16)random_next(r)};
	if (one_in(r, 3))
		s->idt = (struct kvm_dtable){.base = random_edge(r), .limit = (u16)random_next(r)};
	if (one_in(r, 3))
		s->cr0 = some_bits(r, 0xe005003f);
	if (one_in(r, 3))
		s->cr3 = random_edge(r);
	if (one_in(r, 3))
		s->cr4 = some_bits(r, 0x3706ff);
	if (one_in(r, 3))
		s->efer = some_bits(r, 0xd01);
	if (one_in(r, 3))
		s->cr8 = some_bits(r, 15);
	if (one_in(r, 3))
		s->apic_base = one_in(r, 2) ? random_edge(r) : 0xfee00000 | some_bits(r, 0xd00);
	if (one_in(r, 3))
		random_fill(r, s->interrupt_bitmap, sizeof(s->interrupt_bitmap));
}

static void set_some_msrs(struct wild *w)
{
	static const u32 known[] = {
	    0x10,	0x1b,	    0x3b,	0x174,	    0x175,	0x176,	    0x1a0,
	    0x1d9,	0x200,	    0x201,	0x277,	    0x2ff,	0x6e0,	    0x802,
	    0x80b,	0x830,	    0x838,	0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084,
	    0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0x4b564d00, 0x4b564d01};
	struct random *r = &w->random;
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[8];
	} msrs = {.head.nmsrs = 1 + random_below(r, 8)};
	for (u32 n = 0; n < msrs.head.nmsrs; n++) {
		msrs.entries[n].index =
		    one_in(r, 4) ? (u32)random_next(r) : known[random_below(r, ARRAY_SIZE(known))];
		msrs.entries[n].data = random_edge(r);
	}
	w->engine->vcpu_set_msrs(w->vcpu, &msrs.head);
	w->engine->vcpu_get_msrs(w->vcpu, &msrs.head);
}

static void set_some_events(struct wild *w)
{
	struct kvm_vcpu_events events;
	w->engine->vcpu_get_events(w->vcpu, &events);
	if (one_in(&w->random, 2)) {
		random_fill(&w->random, &events, sizeof(events));
	} else {
		events.exception.injected = (u8)random_below(&w->random, 2);
		events.exception.nr = (u8)random_below(&w->random, 32);
		events.exception.has_error_code = (u8)random_below(&w->random, 2);
		events.exception.error_code = (u32)random_next(&w->random);
		events.nmi.pending = (u8)random_below(&w->random, 4);
		events.interrupt.injected = (u8)random_below(&w->random, 2);
		events.interrupt.nr = (u8)random_next(&w->random);
		events.interrupt.soft = (u8)random_below(&w->random, 2);
	}
	w->engine->vcpu_set_events(w->vcpu, &events);
}

static void set_some_xstate(struct wild *w)
{
	struct random *r = &w->random;
	struct kvm_xsave xsave;
	struct kvm_fpu fpu;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1};
	switch (random_below(r, 3)) {
	case 0:
		random_fill(r, &xsave, sizeof(xsave));
		if (one_in(r, 2)) {
			memset(&xsave.region[128], 0, 64); /* XSAVE header */
			xsave.region[128] = random_below(r, 8);
		}
		if (one_in(r, 2))
			xsave.region[6] &= 0xffff; /* MXCSR */
		w->engine->vcpu_set_xsave(w->vcpu, &xsave);
		w->engine->vcpu_get_xsave(w->vcpu, &xsave);
		break;
	case 1:
		random_fill(r, &fpu, sizeof(fpu));
		w->engine->vcpu_set_fpu(w->vcpu, &fpu);
		w->engine->vcpu_get_fpu(w->vcpu, &fpu);
		break;
	default:
		xcrs.xcrs[0].value = one_in(r, 2) ? random_next(r) : random_below(r, 8);
		if (one_in(r, 8))
			random_fill(r, &xcrs, sizeof(xcrs));
		w->engine->vcpu_set_xcrs(w->vcpu, &xcrs);
		w->engine->vcpu_get_xcrs(w->vcpu, &xcrs);
	}
}

static void set_some_lapic(struct wild *w)
{
	struct kvm_lapic_state lapic;
	if (w->engine->vcpu_get_lapic(w->vcpu, &lapic) < 0)
		return;
	if (one_in(&w->random, 4))
		random_fill(&w->random, &lapic, sizeof(lapic));
	for (u32 n = random_below(&w->random, 8); n > 0; n--)
		random_fill(&w->random, &lapic.regs[random_below(&w->random, 64) * 16], 4);
	w->engine->vcpu_set_lapic(w->vcpu, &lapic);
}

static void set_some_chip(struct wild *w)
{
	struct random *r = &w->random;
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit;
	memset(&chip, 0, sizeof(chip));
	chip.chip_id = one_in(r, 16) ? (u32)random_next(r) : random_below(r, 3);
	if (w->engine->vm_get_irqchip(w->vm, &chip) == 0) {
		if (one_in(r, 2))
			random_fill(r, &chip.chip, sizeof(chip.chip));
		else
			chip.chip.dummy[random_below(r, 64)] = (char)random_next(r);
		w->engine->vm_set_irqchip(w->vm, &chip);
	}
	if (w->engine->vm_get_pit(w->vm, &pit) == 0) {
		if (one_in(r, 2))
			random_fill(r, &pit, sizeof(pit));
		else
			random_fill(r, &pit.channels[0], 12);
		w->engine->vm_set_pit(w->vm, &pit);
	}
}

static void set_some_cpuid(struct wild *w)
{
	struct random *r = &w->random;
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[100];
	} cpuid = {.head.nent = 100};
	w->engine->vm_get_supported_cpuid(w->vm, &cpuid.head);
	for (u32 n = random_below(r, 8); n > 0 && cpuid.head.nent; n--) {
		struct kvm_cpuid_entry2 *e = &cpuid.entries[random_below(r, cpuid.head.nent)];
		if (one_in(r, 3))
			random_fill(r, e, sizeof(*e));
		else
			e->ecx ^= (u32)BIT(random_below(r, 32));
	}
	w->engine->vcpu_set_cpuid(w->vcpu, &cpuid.head);
}

static void set_some_registers(struct wild *w)
{
	struct kvm_regs regs;
	struct kvm_debugregs debug;
	struct kvm_mp_state mp = {.mp_state = random_below(&w->random, 12)};
	u64 *general = (u64 *)&regs;
	switch (random_below(&w->random, 4)) {
	case 0:
		for (u32 n = 0; n < sizeof(regs) / 8; n++)
			general[n] = random_edge(&w->random);
		w->engine->vcpu_set_regs(w->vcpu, &regs);
		break;
	case 1:
		w->engine->vcpu_get_debugregs(w->vcpu, &debug);
		for (u32 n = 0; n < 4; n++)
			debug.db[n] = random_edge(&w->random);
		debug.dr6 = random_next(&w->random) >> random_below(&w->random, 64);
		debug.dr7 = random_next(&w->random) >> random_below(&w->random, 64);
		w->engine->vcpu_set_debugregs(w->vcpu, &debug);
		break;
	case 2:
		if (one_in(&w->random, 8))
			mp.mp_state = (u32)random_next(&w->random);
		w->engine->vcpu_set_mp_state(w->vcpu, &mp);
		break;
	default:
		w->engine->vcpu_get_regs(w->vcpu, &regs);
		regs.rip = random_edge(&w->random);
		regs.rflags = random_next(&w->random);
		w->engine->vcpu_set_regs(w->vcpu, &regs);
	}
}

static void signal_something(struct wild *w)
{
	struct random *r = &w->random;
	struct kvm_msi msi = {.address_lo = 0xfee00000 | (u32)(random_next(r) & 0xfffff),
			      .data = (u32)random_next(r)};
	struct kvm_translation translation = {.linear_address = random_edge(r)};
	switch (random_below(r, 5)) {
	case 0:
		w->engine->vm_irq_line(w->vm,
				       one_in(r, 8) ? (u32)random_next(r) : random_below(r, 24),
				       (int)random_below(r, 2));
		break;
	case 1:
		if (one_in(r, 4))
			random_fill(r, &msi, sizeof(msi));
		w->engine->vm_signal_msi(w->vm, &msi);
		break;
	case 2:
		w->engine->vcpu_nmi(w->vcpu);
		break;
	case 3:
		w->engine->vcpu_interrupt(w->vcpu, random_below(r, 260));
		break;
	default:
		w->engine->vcpu_translate(w->vcpu, &translation);
	}
}

/* The guest's memory moves while it lives: a slot away and back. */
static void move_memory(struct wild *w)
{
	struct kvm_userspace_memory_region region = {.slot = 9,
						     .guest_phys_addr = 0x40000000,
						     .memory_size = 0x10000,
						     .userspace_addr = (u64)w->ram};
	if (one_in(&w->random, 2))
		region.memory_size = 0;
	if (one_in(&w->random, 8))
		random_fill(&w->random, &region.guest_phys_addr, 8);
	w->engine->vm_set_memory(w->vm, &region);
}

static void (*const setters[])(struct wild *w) = {
    set_some_msrs,  set_some_events,	set_some_xstate,  set_some_lapic, set_some_chip,
    set_some_cpuid, set_some_registers, signal_something, move_memory,
};

void state_disturb(struct wild *w)
{
	setters[random_below(&w->random, ARRAY_SIZE(setters))](w);
}

void state_guest(struct wild *w)
{
	code_random(w);
	w->name = "random state";
	for (u32 round = 0; round < 3; round++) {
		struct kvm_sregs sregs = w->sregs;
		struct kvm_regs regs = w->regs;
		random_sregs(&w->random, &sregs);
		for (u32 n = 0; n < sizeof(regs) / 8; n++)
			if (one_in(&w->random, 4))
				((u64 *)&regs)[n] = random_edge(&w->random);
		w->engine->vcpu_set_sregs(w->vcpu, &sregs);
		w->engine->vcpu_set_regs(w->vcpu, &regs);
		for (u32 n = random_below(&w->random, 6); n > 0; n--)
			state_disturb(w);
		wild_run(w);
	}
}
