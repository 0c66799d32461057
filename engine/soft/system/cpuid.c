/*
 * CPUID as the guest sees it: the table the monitor set, with the bits that depend on the vCPU's
 * present state put in when asked. SDM 2A CPUID; APM 3 appendix E.
 */
#include "debug/trace.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

const struct cpu_feature_row cpu_features[FEATURE_COUNT] = {
#define X(n, l, s, r, b, w)                                                                        \
	[FEATURE_##n] = {.name = #n,                                                               \
			 .leaf = l,                                                                \
			 .subleaf = s,                                                             \
			 .reg = CPUID_##r,                                                         \
			 .bit = b,                                                                 \
			 .source = FEATURE_##w},
    CPU_FEATURES(X)
#undef X
};

#define VENDOR_INTEL_EBX 0x756e6547u /* "Genu" */

static struct kvm_cpuid_entry2 *find_entry(struct soft_vcpu *v, u32 leaf, u32 subleaf)
{
	for (u32 n = 0; n < v->cpuid_count; n++) {
		struct kvm_cpuid_entry2 *e = &v->cpuid[n];
		if (e->function == leaf &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf))
			return e;
	}
	return NULL;
}

bool cpuid_has(struct soft_vcpu *v, u32 leaf, u32 subleaf, int reg, int bit)
{
	const struct kvm_cpuid_entry2 *e = find_entry(v, leaf, subleaf);
	if (!e)
		return false;
	const u32 regs[4] = {e->eax, e->ebx, e->ecx, e->edx};
	return regs[reg] & (1u << bit);
}

static u32 bits_for(u32 count)
{
	return count <= 1 ? 0 : 32 - (u32)__builtin_clz(count - 1);
}

/*
 * Topology that the monitor left open (0 logical processors): one thread a core, one package. SDM
 * 2A CPUID leaf 0BH.
 */
static void fill_topology(struct soft_vcpu *v, u32 subleaf, u32 out[4])
{
	u32 count = v->vm ? atomic_load(&v->vm->vcpu_count) : 1;

	if (!out[CPUID_EBX] && ((out[CPUID_ECX] >> 8) & 0xff)) {
		if (subleaf == 0) {
			out[CPUID_EAX] = 0;
			out[CPUID_EBX] = 1;
		} else {
			out[CPUID_EAX] = bits_for(count);
			out[CPUID_EBX] = count;
		}
	}
	out[CPUID_ECX] = (out[CPUID_ECX] & ~0xffu) | (subleaf & 0xff);
	out[CPUID_EDX] = v->base.id;
}

static void fill_leaf_1(struct soft_vcpu *v, u32 out[4])
{
	u32 count = v->vm ? atomic_load(&v->vm->vcpu_count) : 1;

	out[CPUID_EBX] = (out[CPUID_EBX] & 0x00ffffff) | v->base.id << 24;
	if (!(out[CPUID_EBX] & 0x00ff0000)) {
		out[CPUID_EBX] |= (count ? count : 1) << 16;
		if (count > 1)
			out[CPUID_EDX] |= 1u << 28; /* HTT: the field above is valid */
	}
	out[CPUID_ECX] &= ~(1u << 27);
	if (v->cr4 & CR4_OSXSAVE)
		out[CPUID_ECX] |= 1u << 27;
	/* SDM 3A 10.4.3: with the APIC globally disabled the bit reads 0. */
	if (!(v->msr.apic_base & BIT(11)))
		out[CPUID_EDX] &= ~(1u << 9);
}

void cpuid_query(struct soft_vcpu *v, u32 leaf, u32 subleaf, u32 out[4])
{
	const struct kvm_cpuid_entry2 *e = find_entry(v, leaf, subleaf);

	out[0] = out[1] = out[2] = out[3] = 0;
	if (!e) {
		const struct kvm_cpuid_entry2 *first = find_entry(v, 0, 0);
		bool known = first && leaf <= first->eax;
		/* A basic leaf above the highest, and an extended one above its highest, answers as
		 * the highest basic leaf (SDM 2A CPUID; Intel alone: AMD answers zeros, APM 3
		 * appendix E). */
		u32 class = leaf & 0xf0000000;
		const struct kvm_cpuid_entry2 *ext = find_entry(v, 0x80000000, 0);
		if (class == 0x80000000 && ext)
			known = leaf <= ext->eax;
		if (known || !first || first->ebx != VENDOR_INTEL_EBX || class == 0x40000000) {
			if (known && (leaf == 0xb || leaf == 0x1f)) {
				/* Past the last level: only the APIC id and the subleaf are told.
				 */
				out[CPUID_ECX] = subleaf & 0xff;
				out[CPUID_EDX] = v->base.id;
			}
			return;
		}
		leaf = first->eax;
		e = find_entry(v, leaf, subleaf);
		if (!e)
			return;
	}

	out[CPUID_EAX] = e->eax;
	out[CPUID_EBX] = e->ebx;
	out[CPUID_ECX] = e->ecx;
	out[CPUID_EDX] = e->edx;

	switch (leaf) {
	case 1:
		fill_leaf_1(v, out);
		break;
	case 0xb:
	case 0x1f:
		fill_topology(v, subleaf, out);
		break;
	case 0xd:
		/* EBX: size for what is enabled now (subleaf 1: compacted, no supervisor state
		 * here). */
		if (subleaf == 0)
			out[CPUID_EBX] = xstate_area_size(&v->layout, v->xcr0, false);
		else if (subleaf == 1)
			out[CPUID_EBX] =
			    out[CPUID_EAX] & 2 ? xstate_area_size(&v->layout, v->xcr0, true) : 0;
		break;
	}
}

void op_cpuid(struct soft_vcpu *v, const struct insn *i)
{
	u32 out[4];

	if (vmx_nonroot(v))
		vmx_on_cpuid(v, i);
	cpuid_query(v, (u32)v->regs[RAX], (u32)v->regs[RCX], out);
	trace_gp(cpuid, 1, "vcpu %u: %#x.%u: eax %#x ebx %#x ecx %#x edx %#x", v->base.id,
		 (u32)v->regs[RAX], (u32)v->regs[RCX], out[0], out[1], out[2], out[3]);
	v->regs[RAX] = out[CPUID_EAX];
	v->regs[RBX] = out[CPUID_EBX];
	v->regs[RCX] = out[CPUID_ECX];
	v->regs[RDX] = out[CPUID_EDX];
}
