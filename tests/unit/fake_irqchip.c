/* What the interrupt chips need from the rest of the engine. */
#include <stdlib.h>

#include "tests/unit/fake_irqchip.h"

u64 fake_now;
bool fake_x2apic;

u64 clock_now(void)
{
	return fake_now;
}

u64 guest_tsc(const struct soft_vcpu *v)
{
	return FAKE_TSC(fake_now) + v->tsc_offset;
}

u64 guest_tsc_to_ns(const struct soft_vcpu *v, u64 tsc)
{
	u64 now = guest_tsc(v);

	return tsc <= now ? fake_now : fake_now + (tsc - now) / 2;
}

bool cpuid_has(struct soft_vcpu *v, u32 leaf, u32 subleaf, int reg, int bit)
{
	return leaf == 1 && reg == 2 && (bit == 24 || (bit == 21 && fake_x2apic));
}

void vcpu_poke(struct soft_vcpu *v, u32 attention_bits)
{
	vcpu_attention(v, attention_bits);
}

struct soft_vm *fake_vm(u32 vcpus)
{
	struct soft_vm *vm = calloc(1, sizeof(*vm));

	fake_now = 1000000000;
	fake_x2apic = true;
	vm->irqchip = irqchip_create(vm);
	assert_int_equal(pit_create(vm->irqchip), 0);
	for (u32 i = 0; i < vcpus; i++) {
		struct soft_vcpu *v = aligned_alloc(64, align_up(sizeof(*v), 64));

		gp_fill(v, 0, sizeof(*v));
		v->vm = vm;
		v->base.id = i;
		v->lapic = lapic_create(v);
		assert_non_null(v->lapic);
		vm->vcpus[i] = v;
		vm->vcpu_count++;
		poked(v);
	}
	return vm;
}

void fake_vm_free(struct soft_vm *vm)
{
	for (u32 i = 0; i < vm->vcpu_count; i++) {
		lapic_destroy(vm->vcpus[i]->lapic);
		free(vm->vcpus[i]);
	}
	irqchip_destroy(vm->irqchip);
	free(vm);
}

void out8(struct soft_vm *vm, u16 port, u8 value)
{
	u32 wide = value;

	assert_true(irqchip_port(vm->vcpus[0], port, 1, &wide, true));
}

u8 in8(struct soft_vm *vm, u16 port)
{
	u32 value = 0xdeadbeef;

	assert_true(irqchip_port(vm->vcpus[0], port, 1, &value, false));
	assert_true(value <= 0xff);
	return value;
}

void mmio_write32(struct soft_vcpu *v, u64 gpa, u32 value)
{
	u64 wide = value;

	assert_true(irqchip_mmio(v, gpa, 4, &wide, true));
}

u32 mmio_read32(struct soft_vcpu *v, u64 gpa)
{
	u64 value = UINT64_MAX;

	assert_true(irqchip_mmio(v, gpa, 4, &value, false));
	assert_true(value <= UINT32_MAX);
	return value;
}

u32 apic_read(struct soft_vcpu *v, enum lapic_reg reg)
{
	return mmio_read32(v, LAPIC_PAGE + reg * 16);
}

void apic_write(struct soft_vcpu *v, enum lapic_reg reg, u32 value)
{
	mmio_write32(v, LAPIC_PAGE + reg * 16, value);
}

void ioapic_entry(struct soft_vm *vm, u32 pin, u64 entry)
{
	struct soft_vcpu *v = vm->vcpus[0];

	mmio_write32(v, IOAPIC_BASE, 0x11 + 2 * pin);
	mmio_write32(v, IOAPIC_BASE + 0x10, entry >> 32);
	mmio_write32(v, IOAPIC_BASE, 0x10 + 2 * pin);
	mmio_write32(v, IOAPIC_BASE + 0x10, (u32)entry);
}

u64 ioapic_entry_read(struct soft_vm *vm, u32 pin)
{
	struct soft_vcpu *v = vm->vcpus[0];
	u64 entry;

	mmio_write32(v, IOAPIC_BASE, 0x11 + 2 * pin);
	entry = (u64)mmio_read32(v, IOAPIC_BASE + 0x10) << 32;
	mmio_write32(v, IOAPIC_BASE, 0x10 + 2 * pin);
	return entry | mmio_read32(v, IOAPIC_BASE + 0x10);
}

void apic_enable(struct soft_vcpu *v)
{
	apic_write(v, LAPIC_SVR, 0x1ff);
	apic_write(v, LAPIC_TPR, 0);
	poked(v);
}

u32 poked(struct soft_vcpu *v)
{
	return atomic_exchange(&v->attention, 0);
}

void pic_init(struct soft_vm *vm, u8 icw4)
{
	static const u8 bases[2] = {0x08, 0x70};

	for (u32 i = 0; i < 2; i++) {
		u16 port = i ? 0xa0 : 0x20;

		out8(vm, port, 0x11);
		out8(vm, port + 1, bases[i]);
		out8(vm, port + 1, i ? 2 : 4);
		out8(vm, port + 1, icw4);
		out8(vm, port + 1, 0);
	}
}
