/*
 * The processor features a guest can be told of: one list feeds the enum, CPUID's filter
 * (cpuid_supported.c) and every check of the form "#UD if CPUID says no".
 *
 * A feature that is not in this list does not exist for guests: AMX, MPX, PKU, CET, HLE/RTM,
 * MONITOR/MWAIT, VMX/SVM, LA57, WAITPKG, ENQCMD, PTWRITE, Key Locker, UINTR, XSAVES, AVX-512 of the
 * Xeon Phi and VP2INTERSECT, performance monitoring, thermal and power management, DCA, LWP, XOP,
 * FMA4, TBM and 3DNow! are left out on purpose.
 *
 *   X(name, leaf, subleaf, register, bit, whose)
 * whose
 *   HOST  guest code runs the host's instructions: offered if the host has it
 *   YMM   as HOST, and the host's system enabled AVX state (XCR0[2:1])
 *   ZMM   as HOST, and AVX-512 as a whole is offered (xstate_probe())
 *   OURS  done by the engine in software: always there
 *   ASKED OURS, told only where the monitor asked for it (vm_set_option("cpu"))
 *   AMD   OURS, told only where the vendor is AMD or Hygon (the bit means something else or nothing
 * on Intel) SDM 2A CPUID, APM 3 appendix E, Documentation/virt/kvm/x86/cpuid.rst.
 */
#ifndef GUISE_SOFT_FEATURES_H
#define GUISE_SOFT_FEATURES_H

#include "engine/soft/system/state.h"

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

enum feature_source {
	FEATURE_HOST,
	FEATURE_YMM,
	FEATURE_ZMM,
	FEATURE_OURS,
	FEATURE_AMD,
	FEATURE_ASKED
};

/* clang-format off */
#define CPU_FEATURES(X)                                \
	X(FPU,            0x00000001, 0, EDX,  0, HOST) \
	X(VME,            0x00000001, 0, EDX,  1, OURS) \
	X(DE,             0x00000001, 0, EDX,  2, OURS) \
	X(PSE,            0x00000001, 0, EDX,  3, OURS) \
	X(TSC,            0x00000001, 0, EDX,  4, OURS) \
	X(MSR,            0x00000001, 0, EDX,  5, OURS) \
	X(PAE,            0x00000001, 0, EDX,  6, OURS) \
	X(MCE,            0x00000001, 0, EDX,  7, OURS) \
	X(CX8,            0x00000001, 0, EDX,  8, HOST) \
	X(APIC,           0x00000001, 0, EDX,  9, OURS) \
	X(SEP,            0x00000001, 0, EDX, 11, OURS) \
	X(MTRR,           0x00000001, 0, EDX, 12, OURS) \
	X(PGE,            0x00000001, 0, EDX, 13, OURS) \
	X(MCA,            0x00000001, 0, EDX, 14, OURS) \
	X(CMOV,           0x00000001, 0, EDX, 15, HOST) \
	X(PAT,            0x00000001, 0, EDX, 16, OURS) \
	X(PSE36,          0x00000001, 0, EDX, 17, OURS) \
	X(CLFSH,          0x00000001, 0, EDX, 19, HOST) \
	X(MMX,            0x00000001, 0, EDX, 23, HOST) \
	X(FXSR,           0x00000001, 0, EDX, 24, HOST) \
	X(SSE,            0x00000001, 0, EDX, 25, HOST) \
	X(SSE2,           0x00000001, 0, EDX, 26, HOST) \
	X(SELFSNOOP,      0x00000001, 0, EDX, 27, HOST) \
	X(SSE3,           0x00000001, 0, ECX,  0, HOST) \
	X(PCLMULQDQ,      0x00000001, 0, ECX,  1, HOST) \
	X(VMX,            0x00000001, 0, ECX,  5, ASKED) \
	X(SSSE3,          0x00000001, 0, ECX,  9, HOST) \
	X(FMA,            0x00000001, 0, ECX, 12, YMM)  \
	X(CX16,           0x00000001, 0, ECX, 13, HOST) \
	X(PCID,           0x00000001, 0, ECX, 17, OURS) \
	X(SSE4_1,         0x00000001, 0, ECX, 19, HOST) \
	X(SSE4_2,         0x00000001, 0, ECX, 20, HOST) \
	X(X2APIC,         0x00000001, 0, ECX, 21, OURS) \
	X(MOVBE,          0x00000001, 0, ECX, 22, HOST) \
	X(POPCNT,         0x00000001, 0, ECX, 23, HOST) \
	X(TSC_DEADLINE,   0x00000001, 0, ECX, 24, OURS) \
	X(AES,            0x00000001, 0, ECX, 25, HOST) \
	X(XSAVE,          0x00000001, 0, ECX, 26, HOST) \
	X(AVX,            0x00000001, 0, ECX, 28, YMM)  \
	X(F16C,           0x00000001, 0, ECX, 29, YMM)  \
	X(RDRAND,         0x00000001, 0, ECX, 30, HOST) \
	X(HYPERVISOR,     0x00000001, 0, ECX, 31, OURS) \
	X(ARAT,           0x00000006, 0, EAX,  2, OURS) \
	X(FSGSBASE,       0x00000007, 0, EBX,  0, OURS) \
	X(TSC_ADJUST,     0x00000007, 0, EBX,  1, OURS) \
	X(BMI1,           0x00000007, 0, EBX,  3, HOST) \
	X(AVX2,           0x00000007, 0, EBX,  5, YMM)  \
	X(FDP_EXCPTN,     0x00000007, 0, EBX,  6, OURS) \
	X(SMEP,           0x00000007, 0, EBX,  7, OURS) \
	X(BMI2,           0x00000007, 0, EBX,  8, HOST) \
	X(ERMS,           0x00000007, 0, EBX,  9, HOST) \
	X(INVPCID,        0x00000007, 0, EBX, 10, OURS) \
	X(NO_FPU_CS_DS,   0x00000007, 0, EBX, 13, OURS) \
	X(AVX512F,        0x00000007, 0, EBX, 16, ZMM)  \
	X(AVX512DQ,       0x00000007, 0, EBX, 17, ZMM)  \
	X(RDSEED,         0x00000007, 0, EBX, 18, HOST) \
	X(ADX,            0x00000007, 0, EBX, 19, HOST) \
	X(SMAP,           0x00000007, 0, EBX, 20, OURS) \
	X(AVX512_IFMA,    0x00000007, 0, EBX, 21, ZMM)  \
	X(CLFLUSHOPT,     0x00000007, 0, EBX, 23, HOST) \
	X(CLWB,           0x00000007, 0, EBX, 24, HOST) \
	X(AVX512CD,       0x00000007, 0, EBX, 28, ZMM)  \
	X(SHA,            0x00000007, 0, EBX, 29, HOST) \
	X(AVX512BW,       0x00000007, 0, EBX, 30, ZMM)  \
	X(AVX512VL,       0x00000007, 0, EBX, 31, ZMM)  \
	X(AVX512_VBMI,    0x00000007, 0, ECX,  1, ZMM)  \
	X(UMIP,           0x00000007, 0, ECX,  2, OURS) \
	X(AVX512_VBMI2,   0x00000007, 0, ECX,  6, ZMM)  \
	X(GFNI,           0x00000007, 0, ECX,  8, HOST) \
	X(VAES,           0x00000007, 0, ECX,  9, YMM)  \
	X(VPCLMULQDQ,     0x00000007, 0, ECX, 10, YMM)  \
	X(AVX512_VNNI,    0x00000007, 0, ECX, 11, ZMM)  \
	X(AVX512_BITALG,  0x00000007, 0, ECX, 12, ZMM)  \
	X(AVX512_VPOPCNT, 0x00000007, 0, ECX, 14, ZMM)  \
	X(RDPID,          0x00000007, 0, ECX, 22, OURS) \
	X(CLDEMOTE,       0x00000007, 0, ECX, 25, HOST) \
	X(MOVDIRI,        0x00000007, 0, ECX, 27, HOST) \
	X(MOVDIR64B,      0x00000007, 0, ECX, 28, HOST) \
	X(FSRM,           0x00000007, 0, EDX,  4, HOST) \
	X(SERIALIZE,      0x00000007, 0, EDX, 14, HOST) \
	X(AVX512_FP16,    0x00000007, 0, EDX, 23, ZMM)  \
	X(SPEC_CTRL,      0x00000007, 0, EDX, 26, OURS) \
	X(ARCH_CAPS,      0x00000007, 0, EDX, 29, OURS) \
	X(AVX_VNNI,       0x00000007, 1, EAX,  4, YMM)  \
	X(AVX512_BF16,    0x00000007, 1, EAX,  5, ZMM)  \
	X(BHI_CTRL,       0x00000007, 2, EDX,  4, OURS) \
	X(XSAVEOPT,       0x0000000d, 1, EAX,  0, HOST) \
	X(XSAVEC,         0x0000000d, 1, EAX,  1, HOST) \
	X(XGETBV1,        0x0000000d, 1, EAX,  2, HOST) \
	X(KVM_NOP_IO,     0x40000001, 0, EAX,  1, OURS) \
	X(KVM_CLOCK2,     0x40000001, 0, EAX,  3, OURS) \
	X(KVM_STABLE,     0x40000001, 0, EAX, 24, OURS) \
	X(LAHF_LM,        0x80000001, 0, ECX,  0, HOST) \
	X(LZCNT,          0x80000001, 0, ECX,  5, HOST) \
	X(PREFETCHW,      0x80000001, 0, ECX,  8, HOST) \
	X(SYSCALL,        0x80000001, 0, EDX, 11, OURS) \
	X(NX,             0x80000001, 0, EDX, 20, OURS) \
	X(PAGE1GB,        0x80000001, 0, EDX, 26, OURS) \
	X(RDTSCP,         0x80000001, 0, EDX, 27, OURS) \
	X(LM,             0x80000001, 0, EDX, 29, OURS) \
	X(INVARIANT_TSC,  0x80000007, 0, EDX,  8, HOST) \
	X(IBPB_AMD,       0x80000008, 0, EBX, 12, AMD)  \
	X(SSB_NO_AMD,     0x80000008, 0, EBX, 26, AMD)  \
	X(BTC_NO_AMD,     0x80000008, 0, EBX, 29, AMD)  \
	X(LFENCE_SERIAL,  0x80000021, 0, EAX,  2, HOST) \
	X(SRSO_NO_AMD,    0x80000021, 0, EAX, 29, AMD)
/* clang-format on */

enum cpu_feature {
#define X(name, leaf, subleaf, reg, bit, whose) FEATURE_##name,
	CPU_FEATURES(X)
#undef X
	    FEATURE_COUNT
};

struct cpu_feature_row {
	const char *name;
	u32 leaf;
	u8 subleaf;
	u8 reg; /* enum cpuid_reg */
	u8 bit;
	u8 source; /* enum feature_source */
};

extern const struct cpu_feature_row cpu_features[FEATURE_COUNT];

/**
 * Whether the guest was told of @feature. A vCPU whose CPUID nobody set has all but those that have
 * to be asked for: flat images run without. Inside.
 */
static inline bool feature(struct soft_vcpu *v, enum cpu_feature feature)
{
	const struct cpu_feature_row *row = &cpu_features[feature];
	if (!v->cpuid_count)
		return row->source != FEATURE_ASKED;
	return cpuid_has(v, row->leaf, row->subleaf, row->reg, row->bit);
}

/* Layout of the XSAVE area, standard and compacted form alike (SDM 1 13.4); what comes behind is
 * xstate.h's. */
#define XSAVE_LEGACY_SIZE 512u
#define XSAVE_HEADER_SIZE 64u
#define XSAVE_AVX_OFFSET  576u
#define XSAVE_AVX_SIZE	  256u

#endif
