/*
 * The local APIC: registers by MMIO and by MSR, priorities, acceptance and EOI, modes.
 *
 * Departures: LINT0 of the bootstrap processor is ExtINT and open after reset, also while the APIC
 * is software-disabled: the state in which firmware leaves it, and there may be none (KVM does the
 * same).
 *
 * Source: SDM 3A chapter 10.
 */
#include <errno.h>

#include "engine/soft/irqchip/internal.h"

/* Version 14H, 6 LVT entries, no suppression of EOI broadcasts (SDM 3A 10.4.8) */
#define VERSION 0x00050014u

#define LVT_LAST	LAPIC_LVT_ERROR
#define LVT0_AFTER_BIOS (DELIVER_EXTINT << 8)

#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC	 0x800

/* SDM 3A table 10-6: what each register lets software do, and the bits that are not reserved. */
struct register_rule {
	bool read, write;
	bool x2apic_hidden; /* xAPIC only */
	bool xapic_hidden;  /* x2APIC only */
	u32 writable;
};

#define RO	 .read = true
#define WO(bits) .write = true, .writable = (bits)
#define RW(bits) .read = true, .write = true, .writable = (bits)

/* A row a register: */
/* clang-format off */
static const struct register_rule registers[LAPIC_REGS] = {
	[LAPIC_ID]            = { RW(0xff000000) },
	[LAPIC_VERSION]       = { RO },
	[LAPIC_TPR]           = { RW(0xff) },
	[LAPIC_APR]           = { RO, .x2apic_hidden = true },
	[LAPIC_PPR]           = { RO },
	[LAPIC_EOI]           = { WO(0) },
	[LAPIC_RRD]           = { RO, .x2apic_hidden = true },
	[LAPIC_LDR]           = { RW(0xff000000) },
	[LAPIC_DFR]           = { RW(0xf0000000), .x2apic_hidden = true },
	[LAPIC_SVR]           = { RW(0x3ff) },
	[LAPIC_ISR ... LAPIC_ISR + 7] = { RO },
	[LAPIC_TMR ... LAPIC_TMR + 7] = { RO },
	[LAPIC_IRR ... LAPIC_IRR + 7] = { RO },
	[LAPIC_ESR]           = { RW(0) },
	[LAPIC_ICR]           = { RW(0xccfff) },
	[LAPIC_ICR2]          = { RW(0xff000000), .x2apic_hidden = true },
	[LAPIC_LVT_TIMER]     = { RW(0x700ff) },
	[LAPIC_LVT_THERMAL]   = { RW(0x107ff) },
	[LAPIC_LVT_PERF]      = { RW(0x107ff) },
	[LAPIC_LVT_LINT0]     = { RW(0x1a7ff) },
	[LAPIC_LVT_LINT1]     = { RW(0x1a7ff) },
	[LAPIC_LVT_ERROR]     = { RW(0x100ff) },
	[LAPIC_TIMER_INITIAL] = { RW(0xffffffff) },
	[LAPIC_TIMER_CURRENT] = { RO },
	[LAPIC_TIMER_DIVIDE]  = { RW(0xb) },
	[LAPIC_SELF_IPI]      = { WO(0xff), .xapic_hidden = true },
};
/* clang-format on */

#undef RO
#undef WO
#undef RW

/* ICR in x2APIC mode: reserved are 31:20, 17:16, 13; bit 12, delivery status, is gone and ignored
 * (SDM 3A 10.12.9) */
#define ICR_READ_ONLY	    BIT(12)
#define ICR_X2APIC_WRITABLE (0xffffffff00000000ull | 0xcdfffull)

/* ---- state ---- */

bool lapic_enabled(const struct lapic *lapic)
{
	return lapic->v->msr.apic_base & APIC_BASE_EN;
}

bool lapic_x2apic(const struct lapic *lapic)
{
	u64 both = APIC_BASE_EN | APIC_BASE_EXTD;

	return (lapic->v->msr.apic_base & both) == both;
}

bool lapic_software_enabled(const struct lapic *lapic)
{
	return lapic_enabled(lapic) && (lapic->regs[LAPIC_SVR] & SVR_ENABLE);
}

bool lapic_has_vector(const struct lapic *lapic, enum lapic_reg bank, u8 vector)
{
	return lapic->regs[bank + vector / 32] & BIT(vector & 31);
}

/* The highest vector of a 256-bit register, or -1. */
static int highest(const struct lapic *lapic, enum lapic_reg bank)
{
	for (int i = 7; i >= 0; i--) {
		u32 word = lapic->regs[bank + i];

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

/* SDM 3A 10.8.3.1 */
static u8 processor_priority(const struct lapic *lapic)
{
	u8 tpr = lapic->regs[LAPIC_TPR];
	int in_service = highest(lapic, LAPIC_ISR);
	u8 isrv = in_service < 0 ? 0 : in_service;

	return tpr >> 4 >= isrv >> 4 ? tpr : isrv & 0xf0;
}

/* Whether INTR of the PIC reaches the processor: through LINT0, by a message, or past a disabled
 * APIC (SDM 3A 10.4.3), which on a PC means the bootstrap processor. */
static bool accepts_pic(const struct lapic *lapic)
{
	u32 lvt0 = lapic->regs[LAPIC_LVT_LINT0];

	if (!lapic_enabled(lapic))
		return lapic->v->base.id == 0;
	if (lapic->extint)
		return true;
	return !(lvt0 & LVT_MASKED) && LVT_MODE(lvt0) == DELIVER_EXTINT;
}

void lapic_update(struct lapic *lapic)
{
	u32 ready = 0, before = atomic_load(&lapic->ready);
	int vector = highest(lapic, LAPIC_IRR);

	lapic->regs[LAPIC_PPR] = processor_priority(lapic);
	if (lapic_enabled(lapic) && vector >> 4 > (int)(lapic->regs[LAPIC_PPR] >> 4))
		ready = vector;
	if (lapic->chip->pic_output && accepts_pic(lapic))
		ready |= READY_EXTINT;
	if (ready == before)
		return;
	atomic_store(&lapic->ready, ready);
	if (ready)
		vcpu_poke(lapic->v, ATTENTION_IRQ);
}

/* ---- local sources ---- */

void lapic_local(struct lapic *lapic, enum lapic_reg reg)
{
	u32 lvt = lapic->regs[reg];
	enum delivery_mode mode = LVT_MODE(lvt);

	if (reg == LAPIC_LVT_TIMER || reg == LAPIC_LVT_ERROR)
		mode = DELIVER_FIXED;
	/* SDM 3A 10.5.1, delivery mode: fixed, SMI, NMI, INIT, ExtINT; the rest reserved */
	if ((lvt & LVT_MASKED) || mode == DELIVER_LOWEST || mode == DELIVER_SIPI)
		return;
	lapic_deliver(lapic, mode, LVT_VECTOR(lvt), false);
}

bool lapic_lint0_is_nmi(const struct lapic *lapic)
{
	u32 lvt = lapic->regs[LAPIC_LVT_LINT0];

	return !(lvt & LVT_MASKED) && LVT_MODE(lvt) == DELIVER_NMI;
}

void lapic_error(struct lapic *lapic, u32 bit)
{
	bool again = lapic->errors & bit;

	lapic->errors |= bit;
	/* Once only: an error entry with an illegal vector would be its own cause for ever */
	if (!again)
		lapic_local(lapic, LAPIC_LVT_ERROR);
}

void lapic_nmi_line(struct soft_vcpu *v)
{
	struct lapic *lapic = v->lapic;

	gp_lock(&lapic->chip->lock);
	if (lapic_enabled(lapic))
		lapic_local(lapic, LAPIC_LVT_LINT1);
	else /* LINT1 is the NMI pin then (SDM 3A 10.4.3) */
		lapic_deliver(lapic, DELIVER_NMI, 0, false);
	gp_unlock(&lapic->chip->lock);
}

/* ---- registers ---- */

/* SDM 3A 10.8.5 */
static void write_eoi(struct lapic *lapic)
{
	int vector = highest(lapic, LAPIC_ISR);

	if (vector < 0)
		return;
	lapic->regs[LAPIC_ISR + vector / 32] &= ~BIT(vector & 31);
	lapic_update(lapic);
	if (lapic_has_vector(lapic, LAPIC_TMR, vector))
		ioapic_eoi(lapic->chip, vector);
}

void lapic_eoi(struct soft_vcpu *v)
{
	gp_lock(&v->lapic->chip->lock);
	write_eoi(v->lapic);
	gp_unlock(&v->lapic->chip->lock);
}

/* SDM 3A 10.4.7.2: while software-disabled the mask bits of all LVT entries are set */
static void write_svr(struct lapic *lapic, u32 value)
{
	lapic->regs[LAPIC_SVR] = value;
	if (value & SVR_ENABLE)
		return;
	for (u32 reg = LAPIC_LVT_TIMER; reg <= LVT_LAST; reg++)
		lapic->regs[reg] |= LVT_MASKED;
}

static u32 lvt_value(const struct lapic *lapic, u32 value)
{
	return lapic->regs[LAPIC_SVR] & SVR_ENABLE ? value : value | LVT_MASKED;
}

/* @value has no bits outside registers[].writable. */
void lapic_write(struct lapic *lapic, enum lapic_reg reg, u32 value)
{
	switch (reg) {
	case LAPIC_EOI:
		write_eoi(lapic);
		return;
	case LAPIC_SVR:
		write_svr(lapic, value);
		break;
	case LAPIC_DFR: /* SDM 3A figure 10-14: the rest reads as ones */
		lapic->regs[reg] = value | 0x0fffffff;
		break;
	case LAPIC_ESR: /* SDM 3A 10.5.3: shows what was found since the last write */
		lapic->regs[reg] = lapic->errors;
		lapic->errors = 0;
		break;
	case LAPIC_ICR:
		lapic->regs[reg] = value;
		lapic_send_icr(lapic);
		return;
	case LAPIC_SELF_IPI:
		lapic->regs[LAPIC_ICR] = value | 1u << 18; /* SDM 3A 10.12.11 */
		lapic_send_icr(lapic);
		return;
	case LAPIC_LVT_TIMER:
		lapic_timer_set_lvt(lapic, lvt_value(lapic, value));
		break;
	case LAPIC_LVT_THERMAL ... LVT_LAST:
		lapic->regs[reg] = lvt_value(lapic, value);
		break;
	case LAPIC_TIMER_INITIAL:
		lapic_timer_set_initial(lapic, value);
		break;
	case LAPIC_TIMER_DIVIDE:
		lapic_timer_set_divide(lapic, value);
		break;
	default:
		lapic->regs[reg] = value;
		break;
	}
	lapic_update(lapic);
}

u32 lapic_read(struct lapic *lapic, enum lapic_reg reg)
{
	if (reg == LAPIC_TIMER_CURRENT)
		return lapic_timer_count(lapic, clock_now());
	return lapic->regs[reg];
}

/* xAPIC: registers are 32 bits wide at multiples of 16 (SDM 3A 10.4.1); other writes are undefined
 * and ignored here, other reads give the bytes asked for. */
static u64 mmio_read_register(struct lapic *lapic, u32 offset, u32 size)
{
	u32 reg = offset >> 4, shift = (offset & 3) * 8;
	u64 value;

	if (reg >= LAPIC_REGS || !registers[reg].read) {
		if (reg >= LAPIC_REGS || !registers[reg].write || registers[reg].xapic_hidden)
			lapic_error(lapic, ESR_REGISTER);
		return 0;
	}
	if (offset & 0xc)
		return 0;
	value = (u64)lapic_read(lapic, reg) >> shift;
	return size < 4 ? value & (BIT(size * 8) - 1) : value;
}

static void mmio_write_register(struct lapic *lapic, u32 offset, u32 size, u32 value)
{
	u32 reg = offset >> 4;

	if (size != 4 || (offset & 15))
		return;
	if (reg >= LAPIC_REGS || registers[reg].xapic_hidden ||
	    !(registers[reg].read || registers[reg].write))
		lapic_error(lapic, ESR_REGISTER);
	else if (registers[reg].write)
		lapic_write(lapic, reg, value & registers[reg].writable);
}

bool lapic_mmio(struct soft_vcpu *v, u64 gpa, u32 size, u64 *value, bool write)
{
	struct lapic *lapic = v->lapic;
	u64 base = v->msr.apic_base;

	if (!lapic || (gpa & PAGE_MASK) != (base & APIC_BASE_ADDR) || !lapic_enabled(lapic) ||
	    lapic_x2apic(lapic))
		return false;
	gp_lock(&lapic->chip->lock);
	if (write)
		mmio_write_register(lapic, gpa & ~PAGE_MASK, size, *value);
	else
		*value = mmio_read_register(lapic, gpa & ~PAGE_MASK, size);
	gp_unlock(&lapic->chip->lock);
	return true;
}

/* Delivery status, and Remote IRR of LINT0 and LINT1: ignored when written (SDM 3A 10.5.1). */
static u32 read_only_bits(u32 reg)
{
	if (reg == LAPIC_LVT_LINT0 || reg == LAPIC_LVT_LINT1)
		return BIT(12) | BIT(14);
	return reg >= LAPIC_LVT_TIMER && reg <= LAPIC_LVT_ERROR ? BIT(12) : 0;
}

/* SDM 3A 10.12.1.2, 10.12.1.3: reserved registers, bits and directions raise #GP(0) */
static bool x2apic_msr(struct lapic *lapic, u32 reg, u64 *value, bool write)
{
	if (!lapic_x2apic(lapic) || reg >= LAPIC_REGS || registers[reg].x2apic_hidden)
		return false;
	if (!write) {
		if (!registers[reg].read)
			return false;
		*value = lapic_read(lapic, reg);
		if (reg == LAPIC_ICR)
			*value |= (u64)lapic->regs[LAPIC_ICR2] << 32;
		return true;
	}
	/* The id is fixed and the logical id derived from it in x2APIC mode (10.12.10) */
	if (!registers[reg].write || reg == LAPIC_ID || reg == LAPIC_LDR)
		return false;
	if (reg == LAPIC_ICR) {
		if (*value & ~ICR_X2APIC_WRITABLE)
			return false;
		lapic->regs[LAPIC_ICR2] = *value >> 32;
		lapic_write(lapic, reg, (u32)(*value & ~ICR_READ_ONLY));
		return true;
	}
	if (*value & ~(u64)(registers[reg].writable | read_only_bits(reg)))
		return false;
	lapic_write(lapic, reg, (u32)(*value & registers[reg].writable));
	return true;
}

static bool deadline_msr(struct lapic *lapic, u64 *value, bool write)
{
	if (!cpuid_has(lapic->v, 1, 0, 2, 24))
		return false;
	if (write)
		lapic_timer_set_deadline(lapic, *value);
	else
		*value = lapic->tsc_deadline;
	return true;
}

bool lapic_msr(struct soft_vcpu *v, u32 index, u64 *value, bool write)
{
	struct lapic *lapic = v->lapic;
	bool known = false;

	if (!lapic)
		return false;
	gp_lock(&lapic->chip->lock);
	if (index == MSR_TSC_DEADLINE)
		known = deadline_msr(lapic, value, write);
	else if (index >= MSR_X2APIC && index < MSR_X2APIC + 0x100)
		known = x2apic_msr(lapic, index - MSR_X2APIC, value, write);
	gp_unlock(&lapic->chip->lock);
	return known;
}

/* ---- reset and modes ---- */

static void set_x2apic_id(struct lapic *lapic)
{
	u32 id = lapic->v->base.id;

	lapic->regs[LAPIC_ID] = id;
	lapic->regs[LAPIC_LDR] = (id >> 4) << 16 | 1u << (id & 15); /* SDM 3A 10.12.10.2 */
}

/* SDM 3A 10.4.7.1, 10.4.7.3: everything but the id */
static void reset_registers(struct lapic *lapic)
{
	u32 id = lapic->regs[LAPIC_ID];

	gp_fill(lapic->regs, 0, sizeof(lapic->regs));
	lapic->regs[LAPIC_ID] = id;
	lapic->regs[LAPIC_VERSION] = VERSION;
	lapic->regs[LAPIC_DFR] = 0xffffffff;
	lapic->regs[LAPIC_SVR] = 0xff;
	for (u32 reg = LAPIC_LVT_TIMER; reg <= LVT_LAST; reg++)
		lapic->regs[reg] = LVT_MASKED;
	if (lapic->v->base.id == 0)
		lapic->regs[LAPIC_LVT_LINT0] = LVT0_AFTER_BIOS;
	lapic->errors = 0;
	lapic->extint = false;
	lapic_timer_stop(lapic);
}

void lapic_reset(struct lapic *lapic, bool init)
{
	u32 id = lapic->v->base.id;

	gp_lock(&lapic->chip->lock);
	if (!init) {
		lapic->v->msr.apic_base = APIC_BASE_RESET | APIC_BASE_EN | (id ? 0 : APIC_BASE_BSP);
		lapic->regs[LAPIC_ID] = id << 24;
		atomic_store(&lapic->init, false);
		atomic_store(&lapic->sipi, -1);
	}
	reset_registers(lapic);
	if (lapic_x2apic(lapic)) /* INIT keeps the mode (SDM 3A 10.12.5.1) */
		set_x2apic_id(lapic);
	lapic_update(lapic);
	vcpu_poke(lapic->v, ATTENTION_TIMER);
	gp_unlock(&lapic->chip->lock);
}

/* Takes the chip through what leaving the mode of @before and entering that of @value does to it.
 */
static void change_base(struct lapic *lapic, u64 value)
{
	bool was_enabled = lapic_enabled(lapic), was_x2apic = lapic_x2apic(lapic);

	lapic->v->msr.apic_base = value;
	/* SDM 3A 10.4.3: cleared EN loses the state, as a power-up does */
	if (was_enabled && !lapic_enabled(lapic))
		reset_registers(lapic);
	if (lapic_x2apic(lapic) && !was_x2apic) {
		lapic->regs[LAPIC_ICR2] = 0;
		set_x2apic_id(lapic);
	} else if (was_x2apic && !lapic_x2apic(lapic)) {
		lapic->regs[LAPIC_ID] = lapic->v->base.id << 24;
		lapic->regs[LAPIC_LDR] = 0;
	}
	lapic_update(lapic);
	vcpu_poke(lapic->v, ATTENTION_TIMER);
}

bool lapic_set_base(struct soft_vcpu *v, u64 value)
{
	u64 mode = APIC_BASE_EN | APIC_BASE_EXTD, before = v->msr.apic_base;
	bool x2apic = cpuid_has(v, 1, 0, 2, 21);

	if ((value & ~(APIC_BASE_ADDR | APIC_BASE_BSP | mode)) || (value & v->reserved_pa))
		return false;
	/* SDM 3A 10.12.5: disabled -> xAPIC -> x2APIC -> disabled, and xAPIC -> disabled */
	if ((value & APIC_BASE_EXTD) &&
	    (!x2apic || !(value & APIC_BASE_EN) || !(before & APIC_BASE_EN)))
		return false;
	if ((before & mode) == mode && (value & mode) == APIC_BASE_EN)
		return false;
	lapic_restore_base(v, value);
	return true;
}

void lapic_restore_base(struct soft_vcpu *v, u64 value)
{
	struct lapic *lapic = v->lapic;

	if (!lapic) {
		v->msr.apic_base = value;
		return;
	}
	gp_lock(&lapic->chip->lock);
	if (value != v->msr.apic_base)
		change_base(lapic, value);
	gp_unlock(&lapic->chip->lock);
}

/* ---- TPR as CR8: SDM 3A 10.8.6 ---- */

u64 lapic_get_tpr(struct soft_vcpu *v)
{
	return v->lapic ? v->lapic->regs[LAPIC_TPR] >> 4 : v->cr8;
}

void lapic_set_tpr(struct soft_vcpu *v, u64 cr8)
{
	struct lapic *lapic = v->lapic;

	v->cr8 = cr8 & 15;
	if (!lapic)
		return;
	gp_lock(&lapic->chip->lock);
	lapic_write(lapic, LAPIC_TPR, (cr8 & 15) << 4);
	gp_unlock(&lapic->chip->lock);
}

/* ---- to the vCPU ---- */

bool irqchip_pending(const struct soft_vcpu *v)
{
	return v->lapic && atomic_load_explicit(&v->lapic->ready, memory_order_acquire);
}

const _Atomic u32 *irqchip_pending_word(const struct soft_vcpu *v)
{
	return &v->lapic->ready;
}

int irqchip_acknowledge(struct soft_vcpu *v)
{
	struct lapic *lapic = v->lapic;
	int vector = -1;
	u32 ready;

	if (!lapic)
		return -1;
	gp_lock(&lapic->chip->lock);
	ready = atomic_load(&lapic->ready);
	if (ready & READY_EXTINT) {
		lapic->extint = false;
		vector = pic_acknowledge(lapic->chip);
	} else if (READY_VECTOR(ready)) { /* SDM 3A 10.8.4 */
		vector = READY_VECTOR(ready);
		lapic->regs[LAPIC_IRR + vector / 32] &= ~BIT(vector & 31);
		lapic->regs[LAPIC_ISR + vector / 32] |= BIT(vector & 31);
	}
	lapic_update(lapic);
	gp_unlock(&lapic->chip->lock);
	return vector;
}

bool lapic_take_init(struct soft_vcpu *v)
{
	return v->lapic && atomic_load(&v->lapic->init) && atomic_exchange(&v->lapic->init, false);
}

int lapic_take_sipi(struct soft_vcpu *v)
{
	if (!v->lapic || atomic_load(&v->lapic->sipi) < 0)
		return -1;
	return atomic_exchange(&v->lapic->sipi, -1);
}

/* ---- KVM_GET_LAPIC, KVM_SET_LAPIC: the page as MMIO shows it; the id in bits 31:24 in both modes
 * ---- */

static void put32(struct kvm_lapic_state *state, u32 reg, u32 value)
{
	gp_copy(&state->regs[reg * 16], &value, sizeof(value));
}

static u32 get32(const struct kvm_lapic_state *state, u32 reg)
{
	u32 value;

	gp_copy(&value, &state->regs[reg * 16], sizeof(value));
	return value;
}

int lapic_get(struct soft_vcpu *v, struct kvm_lapic_state *state)
{
	struct lapic *lapic = v->lapic;

	if (!lapic)
		return -ENXIO;
	gp_lock(&lapic->chip->lock);
	gp_fill(state, 0, sizeof(*state));
	for (u32 reg = 0; reg < LAPIC_REGS; reg++)
		if (registers[reg].read)
			put32(state, reg, lapic_read(lapic, reg));
	if (lapic_x2apic(lapic))
		put32(state, LAPIC_ID, lapic->regs[LAPIC_ID] << 24);
	put32(state, LAPIC_ICR2, lapic->regs[LAPIC_ICR2]);
	gp_unlock(&lapic->chip->lock);
	return 0;
}

int lapic_set(struct soft_vcpu *v, const struct kvm_lapic_state *state)
{
	struct lapic *lapic = v->lapic;

	if (!lapic)
		return -ENXIO;
	gp_lock(&lapic->chip->lock);
	for (u32 reg = 0; reg < LAPIC_REGS; reg++)
		if (registers[reg].write)
			lapic->regs[reg] = get32(state, reg) & registers[reg].writable;
	for (u32 i = 0; i < 8; i++) {
		u32 legal = i ? 0xffffffff : 0xffff0000; /* no vectors below 16 */

		lapic->regs[LAPIC_ISR + i] = get32(state, LAPIC_ISR + i) & legal;
		lapic->regs[LAPIC_TMR + i] = get32(state, LAPIC_TMR + i) & legal;
		lapic->regs[LAPIC_IRR + i] = get32(state, LAPIC_IRR + i) & legal;
	}
	lapic->regs[LAPIC_DFR] |= 0x0fffffff;
	lapic->regs[LAPIC_ESR] = get32(state, LAPIC_ESR);
	if (lapic_x2apic(lapic)) {
		set_x2apic_id(lapic);
		lapic->regs[LAPIC_ICR2] = get32(state, LAPIC_ICR2);
	}
	lapic_timer_resume(lapic, get32(state, LAPIC_TIMER_CURRENT));
	lapic_update(lapic);
	gp_unlock(&lapic->chip->lock);
	return 0;
}
