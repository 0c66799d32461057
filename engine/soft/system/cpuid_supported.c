/* What a guest can be told on this host: the host's CPUID through the list of features. Outside. */
#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "engine/soft/system/features.h"
#include "engine/soft/system/xstate.h"

#define BASIC_MAX		 0x16u
#define KVM_MAX			 0x40000001u
#define KVM_CLOCK_FEATURES	 (BIT(3) | BIT(24)) /* kvmclock, and that it is stable */
#define EXTENDED_MAX		 0x80000021u
#define SIGNATURE_HYGON_EBX	 0x6f677948u /* "Hygo" */
#define SIGNATURE_SKYLAKE_SERVER 0x50654u    /* family 6, model 55H */
#define PA_BITS_MAX		 46u /* as wide as real processors that software of today was tested on */

/* Leaf 15H: the core crystal runs at about 1 GHz, the LAPIC timer's frequency (1 ns a tick, as
 * KVM's). */
#define CRYSTAL_HZ 1000000000u

struct host {
	u32 max_basic, max_extended;
	bool amd;      /* AMD or Hygon, and told so */
	bool intel;    /* Intel */
	bool vmx;      /* asked for */
	bool ymm, zmm; /* AVX state, AVX-512 state are offered */
	const struct xstate_layout *layout;
};

static void host_leaf(const struct host *h, u32 leaf, u32 subleaf, u32 out[4])
{
	u32 max = leaf & 0x80000000 ? h->max_extended : h->max_basic;

	memset(out, 0, 4 * sizeof(u32));
	if (leaf <= max)
		__cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
}

static struct host host_probe(const struct xstate_layout *layout, bool vmx)
{
	struct host h = {.layout = layout,
			 .vmx = vmx,
			 .ymm = layout->offered & XCR0_AVX,
			 .zmm = layout->offered & XCR0_AVX512,
			 .max_basic = __get_cpuid_max(0, NULL),
			 .max_extended = __get_cpuid_max(0x80000000, NULL)};
	u32 r[4];

	host_leaf(&h, 0, 0, r);
	h.intel = r[CPUID_EBX] == signature_INTEL_ebx;
	h.amd = !vmx && (r[CPUID_EBX] == signature_AMD_ebx || r[CPUID_EBX] == SIGNATURE_HYGON_EBX);
	return h;
}

/* The feature bits of one register of one leaf. */
static u32 feature_bits(const struct host *h, u32 leaf, u32 subleaf, u32 reg, u32 host_value)
{
	u32 bits = 0;

	for (u32 n = 0; n < FEATURE_COUNT; n++) {
		const struct cpu_feature_row *f = &cpu_features[n];
		u32 bit = 1u << f->bit;
		bool there = false;
		if (f->leaf != leaf || f->subleaf != subleaf || f->reg != reg)
			continue;
		switch ((enum feature_source)f->source) {
		case FEATURE_HOST:
			there = host_value & bit;
			break;
		case FEATURE_YMM:
			there = (host_value & bit) && h->ymm;
			break;
		case FEATURE_ZMM:
			there = (host_value & bit) && h->zmm;
			break;
		case FEATURE_OURS:
			there = true;
			break;
		case FEATURE_AMD:
			there = h->amd;
			break;
		case FEATURE_ASKED:
			there = h->vmx;
			break;
		}
		if (there)
			bits |= bit;
	}
	return bits;
}

struct out {
	struct kvm_cpuid2 *cpuid;
	u32 room;
	bool full;
};

static void add(struct out *o, u32 leaf, u32 subleaf, bool indexed, const u32 r[4])
{
	if (o->cpuid->nent == o->room) {
		o->full = true;
		return;
	}
	o->cpuid->entries[o->cpuid->nent++] = (struct kvm_cpuid_entry2){
	    .function = leaf,
	    .index = subleaf,
	    .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	    .eax = r[CPUID_EAX],
	    .ebx = r[CPUID_EBX],
	    .ecx = r[CPUID_ECX],
	    .edx = r[CPUID_EDX],
	};
}

/* Replaces every register that has feature bits by the offered ones; @keep: registers taken as they
 * are. */
static void filter(const struct host *h, u32 leaf, u32 subleaf, u32 r[4], u32 keep)
{
	for (u32 reg = 0; reg < 4; reg++)
		if (!(keep & (1u << reg)))
			r[reg] = feature_bits(h, leaf, subleaf, reg, r[reg]);
}

#define KEEP(reg) (1u << CPUID_##reg)

static void add_features(struct out *o, const struct host *h, u32 leaf, u32 subleaf, bool indexed,
			 u32 keep)
{
	u32 r[4];

	host_leaf(h, leaf, subleaf, r);
	filter(h, leaf, subleaf, r, keep);
	add(o, leaf, subleaf, indexed, r);
}

/*
 * Leaf 4: the host's caches. Who shares them is the monitor's to say (bits 25:14 and 31:26 of EAX):
 * one processor until it does.
 */
static void add_caches(struct out *o, const struct host *h)
{
	for (u32 n = 0; n < 8; n++) {
		u32 r[4];
		host_leaf(h, 4, n, r);
		r[CPUID_EAX] &= 0x3fff;
		add(o, 4, n, true, r);
		if (!(r[CPUID_EAX] & 0x1f))
			break;
	}
}

/* Leaf 0DH; what is enabled now is cpuid_query()'s. */
static void add_xstate(struct out *o, const struct host *h)
{
	u32 size = xstate_area_size(h->layout, h->layout->offered, false);

	add(o, 0xd, 0, true,
	    (u32[4]){
		[CPUID_EAX] = (u32)h->layout->offered, [CPUID_EBX] = size, [CPUID_ECX] = size});
	add_features(o, h, 0xd, 1, true, 0);
	for_each_section(n, h->layout->offered)
	{
		add(o, 0xd, n, true,
		    (u32[4]){[CPUID_EAX] = xstate_section_size(n),
			     [CPUID_EBX] = xstate_section_offset(h->layout, 0, n)});
	}
}

/* VMX is Intel's: with it another maker's processor is told of as one of Intel's, so that systems
 * look for VMX at all. */
static bool is_disguised(const struct host *h)
{
	return h->vmx && !h->intel;
}

/*
 * TSC = crystal * EBX / EAX; ECX crystal in Hz (SDM 2A CPUID, leaf 15H). Linux takes the crystal's
 * frequency for the LAPIC timer's, and multiplies its kHz by EBX in 32 bits, which is enough for
 * what processors say (native_calibrate_tsc()). So the ratio is one of small numbers, whole MHz to
 * 1 GHz, and what is left over goes to the crystal: the TSC's frequency comes out within a
 * millionth, that of the LAPIC timer, by which no guest tells the time, within a thousandth.
 */
static void add_tsc(struct out *o, u32 khz)
{
	u32 eax = (u64)khz * 1000 < UINT32_MAX - CRYSTAL_HZ / 1000 ? 1000 : 500;
	u64 crystal_khz = CRYSTAL_HZ / 1000, product = (u64)khz * eax;
	u32 ebx = (u32)((product + crystal_khz / 2) / crystal_khz);

	if (ebx)
		crystal_khz = (product + ebx / 2) / ebx;

	u32 r[4] = {[CPUID_EAX] = eax, [CPUID_EBX] = ebx, [CPUID_ECX] = (u32)crystal_khz * 1000};

	add(o, 0x15, 0, false, r);
}

static void add_basic(struct out *o, const struct host *h, u32 khz)
{
	u32 r[4];

	host_leaf(h, 0, 0, r);
	r[CPUID_EAX] = BASIC_MAX;
	if (is_disguised(h))
		memcpy(&r[CPUID_EBX], "GenuntelineI", 12); /* EBX, ECX, EDX */
	add(o, 0, 0, false, r);

	/* Family, model, stepping: the host's. EBX: CLFLUSH line size, the host's; the rest is
	 * cpuid_query()'s. */
	host_leaf(h, 1, 0, r);
	filter(h, 1, 0, r, KEEP(EAX) | KEEP(EBX));
	r[CPUID_EBX] &= 0xff00;
	if (is_disguised(h))
		r[CPUID_EAX] = SIGNATURE_SKYLAKE_SERVER;
	add(o, 1, 0, false, r);

	if (!h->amd) {
		host_leaf(h, 2, 0, r);
		add(o, 2, 0, false, r);
		add_caches(o, h);
	}
	add_features(o, h, 6, 0, false, 0);
	host_leaf(h, 7, 0, r);
	filter(h, 7, 0, r, 0);
	r[CPUID_EAX] = 2; /* highest subleaf */
	add(o, 7, 0, true, r);
	add_features(o, h, 7, 1, true, 0);
	add_features(o, h, 7, 2, true, 0);

	/* Leaf 0BH: level types 1 (thread) and 2 (core); the numbers are filled in by
	 * cpuid_query(). */
	for (u32 level = 0; level < 2; level++)
		add(o, 0xb, level, true, (u32[4]){[CPUID_ECX] = (level + 1) << 8 | level});

	host_leaf(h, 1, 0, r);
	if (feature_bits(h, 1, 0, CPUID_ECX, r[CPUID_ECX]) & bit_XSAVE)
		add_xstate(o, h);

	if (!khz)
		return;
	add_tsc(o, khz);
	add(o, 0x16, 0, false,
	    (u32[4]){[CPUID_EAX] = khz / 1000, [CPUID_EBX] = khz / 1000, [CPUID_ECX] = 100});
}

static void add_hypervisor(struct out *o, const struct host *h, u32 khz)
{
	u32 r[4] = {KVM_MAX};

	memcpy(&r[CPUID_EBX], "KVMKVMKVM\0\0\0", 12);
	add(o, 0x40000000, 0, false, r);
	memset(r, 0, sizeof(r));
	filter(h, KVM_MAX, 0, r, 0);
	if (!khz)
		r[CPUID_EAX] &= ~KVM_CLOCK_FEATURES;
	add(o, KVM_MAX, 0, false, r);
}

static u32 pa_bits(const struct host *h)
{
	u32 r[4];

	host_leaf(h, 0x80000008, 0, r);
	u32 bits = r[CPUID_EAX] & 0xff;
	if (bits < 36)
		bits = 36;
	return bits < PA_BITS_MAX ? bits : PA_BITS_MAX;
}

static void add_extended(struct out *o, const struct host *h)
{
	u32 r[4];

	host_leaf(h, 0x80000000, 0, r);
	r[CPUID_EAX] = h->amd ? EXTENDED_MAX : 0x80000008;
	add(o, 0x80000000, 0, false, r);

	host_leaf(h, 0x80000001, 0, r);
	filter(h, 0x80000001, 0, r, h->amd ? KEEP(EAX) | KEEP(EBX) : KEEP(EAX));
	if (h->amd) {
		/* APM 3 E.4.2: the bits of leaf 1's EDX are repeated here. */
		u32 one[4];
		host_leaf(h, 1, 0, one);
		r[CPUID_EDX] |= feature_bits(h, 1, 0, CPUID_EDX, one[CPUID_EDX]) & 0x0183f3ff;
	}
	add(o, 0x80000001, 0, false, r);

	for (u32 leaf = 0x80000002; leaf <= 0x80000006; leaf++) {
		host_leaf(h, leaf, 0, r); /* brand string, caches */
		add(o, leaf, 0, false, r);
	}
	add_features(o, h, 0x80000007, 0, false, 0);

	host_leaf(h, 0x80000008, 0, r);
	filter(h, 0x80000008, 0, r, 0);
	r[CPUID_EAX] = 48 << 8 | pa_bits(h); /* no LA57 */
	add(o, 0x80000008, 0, false, r);

	if (h->amd)
		add_features(o, h, 0x80000021, 0, false, 0);
}

int cpuid_supported(struct kvm_cpuid2 *cpuid, u32 tsc_khz, const struct xstate_layout *layout,
		    bool vmx)
{
	struct host h = host_probe(layout, vmx);
	struct out o = {.cpuid = cpuid, .room = cpuid->nent};

	cpuid->nent = 0;
	add_basic(&o, &h, tsc_khz);
	add_hypervisor(&o, &h, tsc_khz);
	add_extended(&o, &h);
	return o.full ? -E2BIG : 0;
}
