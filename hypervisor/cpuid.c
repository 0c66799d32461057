// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * CPUID: what this hypervisor can offer (KVM_GET_SUPPORTED_CPUID), and what the owner has told the
 * guest.
 *
 * A feature is offered if the host has it and its state is switched. What a guest must not see
 * needs no line here.
 *
 * Source: SDM 2A, CPUID.
 */
#include <linux/kernel.h>
#include <asm/processor.h>
#include <asm/tsc.h>

#include "guise.h"
#include "vmcs.h"

#define OSXSAVE BIT(27) /* leaf 1, ECX */

/* Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND */
#define LEAF_1_ECX                                                                                 \
	(BIT(0) | BIT(1) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | BIT(25) |    \
	 BIT(30))
#define LEAF_1_XSAVE  BIT(26)
#define LEAF_1_AVX    (BIT(12) | BIT(28) | BIT(29)) /* FMA, AVX, F16C */
#define LEAF_1_PCID   BIT(17)
#define LEAF_1_X2APIC BIT(21)
/* EDX: FPU to CX8, APIC, SEP to PSE36, CLFLUSH, MMX, FXSR, SSE, SSE2 */
#define LEAF_1_EDX (0x1ff | BIT(9) | 0x3f800 | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26))
/* Leaf 7 EBX: FSGSBASE, BMI1, SMEP, BMI2, ERMS, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA */
#define LEAF_7_EBX                                                                                 \
	(BIT(0) | BIT(3) | BIT(7) | BIT(8) | BIT(9) | BIT(18) | BIT(19) | BIT(20) | BIT(23) |      \
	 BIT(24) | BIT(29))
#define LEAF_7_AVX2    BIT(5)
#define LEAF_7_INVPCID BIT(10)
/* AVX-512: F, DQ, IFMA, CD, BW, VL; ECX: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
#define LEAF_7_EBX_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define LEAF_7_ECX_AVX512 (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
/* ECX: UMIP, GFNI; VAES, VPCLMULQDQ; EDX: fast short REP MOV */
#define LEAF_7_ECX     (BIT(2) | BIT(8))
#define LEAF_7_ECX_AVX (BIT(9) | BIT(10))
#define LEAF_7_EDX     BIT(4)
/* Leaf D, 1: XSAVEOPT, XSAVEC, XGETBV with ECX 1; not XSAVES */
#define LEAF_D_1 7u
/* Extended leaf 1 ECX: LAHF, LZCNT, PREFETCHW; EDX: SYSCALL, NX, 1 GiB pages, RDTSCP, long mode */
#define LEAF_X1_ECX    (BIT(0) | BIT(5) | BIT(8))
#define LEAF_X1_EDX    (BIT(11) | BIT(20) | BIT(26) | BIT(29))
#define LEAF_X1_RDTSCP BIT(27)
#define LEAF_X7_EDX    BIT(8) /* invariant TSC */

/* The APIC's timer and the "crystal" of leaf 15H run at 1 GHz. */
#define CRYSTAL_HZ 1000000000u

/* A table that is being filled; entries behind its room are counted only. */
struct table {
	struct kvm_cpuid_entry2 *entries;
	u32 room, count;
};

static struct kvm_cpuid_entry2 *add(struct table *t, u32 function, u32 index, u32 flags)
{
	static struct kvm_cpuid_entry2 nowhere;
	struct kvm_cpuid_entry2 *e = t->count < t->room ? &t->entries[t->count] : &nowhere;

	t->count++;
	memset(e, 0, sizeof(*e));
	e->function = function;
	e->index = index;
	e->flags = flags;
	cpuid_count(function, index, &e->eax, &e->ebx, &e->ecx, &e->edx);
	return e;
}

/* The TSC's frequency as a fraction of the crystal's. Linux multiplies the crystal's kHz by the
 * numerator in 32 bits, so that has to be small; of all that are, the nearest. */
static void tsc_ratio(u32 *numerator, u32 *denominator)
{
	const u32 crystal_khz = CRYSTAL_HZ / 1000;
	u64 best = U64_MAX;

	for (u32 d = 1;; d++) {
		u64 n = DIV_ROUND_CLOSEST_ULL((u64)tsc_khz * d, crystal_khz);
		u64 error = abs((s64)(n * crystal_khz) - (s64)((u64)tsc_khz * d)) * 4096 / d;

		if (n > U32_MAX / crystal_khz)
			break;
		if (n && error < best) {
			best = error;
			*numerator = n;
			*denominator = d;
		}
	}
}

static void add_basic(struct table *t)
{
	bool rdtscp = vmcs_controls.secondary & SECONDARY_EXEC_ENABLE_RDTSCP;
	bool invpcid = vmcs_controls.secondary & SECONDARY_EXEC_ENABLE_INVPCID;
	/* What the kernel does not switch is not offered, whatever the processor has. */
	bool xsave = boot_cpu_has(X86_FEATURE_XSAVE);
	bool avx = control_supported_xcr0() & XFEATURE_MASK_YMM;
	bool avx512 = control_supported_xcr0() & XFEATURE_MASK_OPMASK;
	u32 last = cpuid_eax(0);
	struct kvm_cpuid_entry2 *e;

	add(t, 0, 0, 0)->eax = last < 0x16 ? 0x16 : min(last, 0x16u);
	e = add(t, 1, 0, 0);
	e->ebx &= 0x0000ff00; /* the size of cache lines; the rest is who asks */
	/* The chips' own. Their TSC deadline has a capability instead (api.rst 4.46): an owner that
	 * has its own APIC has none. */
	e->ecx |= LEAF_1_X2APIC;
	e->ecx &= LEAF_1_X2APIC | LEAF_1_ECX | (xsave ? LEAF_1_XSAVE : 0) | (avx ? LEAF_1_AVX : 0) |
		  (vmcs_controls.vpid ? LEAF_1_PCID : 0);
	e->edx &= LEAF_1_EDX;
	add(t, 2, 0, 0);
	if (last >= 4) {
		for (u32 i = 0; i < 8; i++) {
			e = add(t, 4, i, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
			e->eax &= 0x3ff; /* shared with nobody */
			if (!(e->eax & 0x1f))
				break;
		}
	}
	if (last >= 7) {
		e = add(t, 7, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
		e->eax = 0;
		e->ebx &= LEAF_7_EBX | (avx ? LEAF_7_AVX2 : 0) | (avx512 ? LEAF_7_EBX_AVX512 : 0) |
			  (invpcid && vmcs_controls.vpid ? LEAF_7_INVPCID : 0);
		e->ecx &=
		    LEAF_7_ECX | (avx ? LEAF_7_ECX_AVX : 0) | (avx512 ? LEAF_7_ECX_AVX512 : 0);
		e->edx &= LEAF_7_EDX;
	}
	/* Topology: the owner's, who knows how many there are. */
	for (u32 i = 0; i < 2; i++) {
		e = add(t, 0xb, i, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
		e->eax = e->ebx = e->edx = 0;
		e->ecx = i | (i + 1) << 8;
	}
	/* Frequencies: crystal * EBX / EAX is the TSC's. */
	e = add(t, 0x15, 0, 0);
	tsc_ratio(&e->ebx, &e->eax);
	e->ecx = CRYSTAL_HZ;
	e->edx = 0;
	e = add(t, 0x16, 0, 0);
	e->eax = e->ebx = tsc_khz / 1000;
	e->ecx = 100;
	e->edx = 0;

	e = add(t, 0x80000000, 0, 0);
	e->eax = 0x80000008;
	e = add(t, 0x80000001, 0, 0);
	e->ecx &= LEAF_X1_ECX;
	e->edx &= LEAF_X1_EDX | (rdtscp ? LEAF_X1_RDTSCP : 0);
	for (u32 i = 2; i <= 6; i++)
		add(t, 0x80000000 + i, 0, 0);
	e = add(t, 0x80000007, 0, 0);
	e->eax = e->ebx = e->ecx = 0;
	e->edx &= LEAF_X7_EDX;
	e = add(t, 0x80000008, 0, 0);
	e->eax = min(e->eax & 0xff, 48u) | 48 << 8; /* what EPT's four levels reach */
	e->ebx = e->ecx = e->edx = 0;
}

static void add_xsave(struct table *t)
{
	u64 xcr0 = control_supported_xcr0();
	struct kvm_cpuid_entry2 *e;

	if (!boot_cpu_has(X86_FEATURE_XSAVE))
		return;
	e = add(t, 0xd, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	e->eax = (u32)xcr0;
	e->edx = xcr0 >> 32;
	e = add(t, 0xd, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	e->eax &= LEAF_D_1;
	e->ebx = e->ecx = e->edx = 0;
	for (u32 i = 2; i < 64; i++)
		if (xcr0 & BIT_ULL(i))
			add(t, 0xd, i, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
}

int cpuid_supported(struct kvm_cpuid_entry2 *entries, u32 room, u32 *count)
{
	struct table t = {.entries = entries, .room = room};

	add_basic(&t);
	add_xsave(&t);
	*count = t.count;
	return t.count > room ? -E2BIG : 0;
}

const struct kvm_cpuid_entry2 *cpuid_find(struct vcpu *v, u32 function, u32 index)
{
	for (u32 i = 0; i < v->cpuid_count; i++) {
		const struct kvm_cpuid_entry2 *e = &v->cpuid[i];

		if (e->function == function &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
			return e;
	}
	return NULL;
}

void cpuid_changed(struct vcpu *v)
{
	control_update_masks(v);
}

/* Bytes of an XSAVE area in the standard format, for the features in @xcr0 (SDM 1 13.4.3). */
static u32 xsave_bytes(u64 xcr0)
{
	u32 bytes = 512 + 64, eax, ebx, ecx, edx;

	for (u32 i = 2; i < 64; i++) {
		if (!(xcr0 & BIT_ULL(i)))
			continue;
		cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx);
		bytes = max(bytes, ebx + eax);
	}
	return bytes;
}

/* In the compacted format (SDM 1 13.4.3). */
static u32 xsavec_bytes(u64 xcr0)
{
	u32 bytes = 512 + 64, eax, ebx, ecx, edx;

	for (u32 i = 2; i < 64; i++) {
		if (!(xcr0 & BIT_ULL(i)))
			continue;
		cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx);
		if (ecx & BIT(1))
			bytes = ALIGN(bytes, 64);
		bytes += eax;
	}
	return bytes;
}

int exit_cpuid(struct vcpu *v)
{
	unsigned long *r = v->registers.r;
	u32 function = r[RAX], index = r[RCX];
	const struct kvm_cpuid_entry2 *e = cpuid_find(v, function, index);
	u32 ebx = e ? e->ebx : 0, ecx = e ? e->ecx : 0;

	/* What follows the guest's own state. */
	if (e && function == 1) {
		ecx &= ~OSXSAVE;
		if (v->cr4_shadow & X86_CR4_OSXSAVE)
			ecx |= OSXSAVE;
	}
	if (e && function == 0xd && index < 2)
		ebx = index ? xsavec_bytes(v->xcr0) : xsave_bytes(v->xcr0);
	r[RAX] = e ? e->eax : 0;
	r[RBX] = ebx;
	r[RCX] = ecx;
	r[RDX] = e ? e->edx : 0;
	vcpu_skip(v);
	return 1;
}
