/*
 * What firmware would have done to a processor before a kernel sees it: its identity and place
 * among the others in CPUID, the LAPIC's local pins, memory types.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "vm/machine.h"

#define CPUID_ENTRIES_MAX 256

#define CPUID_1_EDX_HTT	       BIT(28)
#define CPUID_1_ECX_HYPERVISOR BIT(31)

#define CPUID_BRAND_FIRST 0x80000002
#define CPUID_BRAND_LAST  0x80000004

/* Topology levels of leaf B (SDM vol. 2A, CPUID, "Extended Topology Enumeration"). */
#define TOPOLOGY_THREAD 1u
#define TOPOLOGY_CORE	2u

/* Local vector table entries (SDM vol. 3A 11.5.1) as the MP specification's virtual wire mode has
 * them. */
#define LAPIC_LINT0	 0x350
#define LAPIC_LINT1	 0x360
#define LVT_MASKED	 0x10000
#define LVT_DELIVERY_EXT 0x700
#define LVT_DELIVERY_NMI 0x400

#define MSR_MTRR_DEF_TYPE 0x2ff
#define MSR_MISC_ENABLE	  0x1a0
#define FAST_STRINGS	  1	/* set after reset (SDM vol. 4 2.1); KVM leaves it to the monitor */
#define MTRR_ENABLED_WB	  0x806 /* E, default type write-back (SDM vol. 3A 12.11.2.1) */

/** Bits needed for ids 0 to @count - 1. */
static u32 id_bits(u32 count)
{
	u32 bits = 0;
	while ((1u << bits) < count)
		bits++;
	return bits;
}

/** Gives every vCPU a core of its own in one package, whatever the host's topology is. */
static void set_topology(struct kvm_cpuid_entry2 *e, u32 id, u32 count)
{
	switch (e->function) {
	case 0x1:
		e->ebx = (e->ebx & 0x0000ffff) | id << 24 | count << 16;
		e->ecx |= CPUID_1_ECX_HYPERVISOR;
		e->edx = count > 1 ? e->edx | CPUID_1_EDX_HTT : e->edx & ~(u32)CPUID_1_EDX_HTT;
		break;
	case 0x4: /* caches: none shared; cores in the package in bits 31 to 26 */
		if (e->eax & 0x1f)
			e->eax = (e->eax & 0x00003fff) | (count - 1) << 26;
		break;
	case 0xb:
	case 0x1f:
		e->edx = id;
		if (e->index == 0) {
			e->eax = 0;
			e->ebx = 1;
			e->ecx = e->index | TOPOLOGY_THREAD << 8;
		} else if (e->index == 1) {
			e->eax = id_bits(count);
			e->ebx = count;
			e->ecx = e->index | TOPOLOGY_CORE << 8;
		} else {
			e->eax = 0;
			e->ebx = 0;
			e->ecx = e->index;
		}
		break;
	case 0x80000008: /* AMD: threads in the package - 1, width of their ids (APM vol. 3 E.4.7)
			  */
		e->ecx = id_bits(count) << 12 | (count - 1);
		break;
	case 0x8000001e: /* AMD: extended APIC id, one thread a core, one node */
		e->eax = id;
		e->ebx = id;
		e->ecx = 0;
		break;
	default:
		break;
	}
}

/** The processor's name, which KVM leaves empty in what it offers: the host's. */
static void set_brand(struct kvm_cpuid_entry2 *e)
{
	if (e->function >= CPUID_BRAND_FIRST && e->function <= CPUID_BRAND_LAST &&
	    !(e->eax | e->ebx | e->ecx | e->edx))
		__get_cpuid(e->function, &e->eax, &e->ebx, &e->ecx, &e->edx);
}

static int set_cpuid(struct vm *vm, struct engine_vcpu *cpu, struct error *err)
{
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return error_set(err, ENOMEM, "no memory for the CPUID table");
	cpuid->nent = CPUID_ENTRIES_MAX;
	int ret = vm->engine->vm_get_supported_cpuid(vm->engine_vm, cpuid);
	if (ret == 0) {
		for (u32 i = 0; i < cpuid->nent; i++) {
			set_topology(&cpuid->entries[i], cpu->id, vm->cpu_count);
			set_brand(&cpuid->entries[i]);
		}
		ret = vm->engine->vcpu_set_cpuid(cpu, cpuid);
	}
	free(cpuid);
	if (ret < 0)
		return error_errno(err, -ret, "vCPU %u does not take its CPUID table", cpu->id);
	return 0;
}

static void set_lapic_register(struct kvm_lapic_state *lapic, u32 reg, u32 value)
{
	for (u32 i = 0; i < sizeof(value); i++)
		lapic->regs[reg + i] = (char)(value >> (i * 8));
}

static int set_lapic(struct vm *vm, struct engine_vcpu *cpu, struct error *err)
{
	struct kvm_lapic_state lapic;
	int ret = vm->engine->vcpu_get_lapic(cpu, &lapic);
	if (ret == 0) {
		u32 lint0 = LVT_DELIVERY_EXT | (cpu->id ? LVT_MASKED : 0);
		set_lapic_register(&lapic, LAPIC_LINT0, lint0);
		set_lapic_register(&lapic, LAPIC_LINT1, LVT_DELIVERY_NMI);
		ret = vm->engine->vcpu_set_lapic(cpu, &lapic);
	}
	if (ret < 0)
		return error_errno(err, -ret, "vCPU %u does not take its LAPIC state", cpu->id);
	return 0;
}

static int set_msrs(struct vm *vm, struct engine_vcpu *cpu, struct error *err)
{
	union {
		struct kvm_msrs list;
		u8 room[sizeof(struct kvm_msrs) + 2 * sizeof(struct kvm_msr_entry)];
	} msrs = {.list.nmsrs = 2};
	msrs.list.entries[0] = (struct kvm_msr_entry){
	    .index = MSR_MTRR_DEF_TYPE,
	    .data = MTRR_ENABLED_WB,
	};
	msrs.list.entries[1] = (struct kvm_msr_entry){
	    .index = MSR_MISC_ENABLE,
	    .data = FAST_STRINGS,
	};
	int ret = vm->engine->vcpu_set_msrs(cpu, &msrs.list);
	if (ret != 2)
		return error_errno(err, ret < 0 ? -ret : EINVAL, "vCPU %u does not take its %s",
				   cpu->id,
				   ret == 1 ? "fast strings (MISC_ENABLE)" : "memory types (MTRR)");
	return 0;
}

int vm_setup_cpu(struct vm *vm, struct engine_vcpu *cpu, struct error *err)
{
	int ret = set_cpuid(vm, cpu, err);
	if (ret == 0 && !vm->config.boot.flat)
		ret = set_lapic(vm, cpu, err);
	if (ret == 0 && !vm->config.boot.flat)
		ret = set_msrs(vm, cpu, err);
	return ret;
}
