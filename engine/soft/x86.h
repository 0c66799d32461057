/* Names of architectural bits and numbers: SDM vol. 1 chapter 3, vol. 3A chapters 2 to 6. */
#ifndef GUISE_SOFT_X86_H
#define GUISE_SOFT_X86_H

#include "base/types.h"

enum x86_reg {
	RAX,
	RCX,
	RDX,
	RBX,
	RSP,
	RBP,
	RSI,
	RDI,
	R8,
	R9,
	R10,
	R11,
	R12,
	R13,
	R14,
	R15,
	REG_NONE = -1
};

enum x86_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))

/* RFLAGS, SDM 1 3.4.3 */
#define RFLAGS_CF   BIT(0)
#define RFLAGS_PF   BIT(2)
#define RFLAGS_AF   BIT(4)
#define RFLAGS_ZF   BIT(6)
#define RFLAGS_SF   BIT(7)
#define RFLAGS_TF   BIT(8)
#define RFLAGS_IF   BIT(9)
#define RFLAGS_DF   BIT(10)
#define RFLAGS_OF   BIT(11)
#define RFLAGS_IOPL (3ull << 12)
#define RFLAGS_NT   BIT(14)
#define RFLAGS_RF   BIT(16)
#define RFLAGS_VM   BIT(17)
#define RFLAGS_AC   BIT(18)
#define RFLAGS_VIF  BIT(19)
#define RFLAGS_VIP  BIT(20)
#define RFLAGS_ID   BIT(21)

/* CR0, SDM 3A 2.5 */
#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR3_PCID    0xfffull
#define CR3_NOFLUSH BIT(63)

/* CR4 */
#define CR4_VME	       BIT(0)
#define CR4_PVI	       BIT(1)
#define CR4_TSD	       BIT(2)
#define CR4_DE	       BIT(3)
#define CR4_PSE	       BIT(4)
#define CR4_PAE	       BIT(5)
#define CR4_MCE	       BIT(6)
#define CR4_PGE	       BIT(7)
#define CR4_PCE	       BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_VMXE       BIT(13)
#define CR4_SMXE       BIT(14)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE	       BIT(22)

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

#define XCR0_X87       BIT(0)
#define XCR0_SSE       BIT(1)
#define XCR0_AVX       BIT(2)
#define XCR0_OPMASK    BIT(5)
#define XCR0_ZMM_HI256 BIT(6) /* upper halves of ZMM0 to ZMM15 */
#define XCR0_HI16_ZMM  BIT(7) /* ZMM16 to ZMM31 */
#define XCR0_AVX512    (XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM)

/* Exception vectors, SDM 3A table 6-1 */
enum x86_exception {
	EXC_DE = 0,
	EXC_DB = 1,
	EXC_NMI = 2,
	EXC_BP = 3,
	EXC_OF = 4,
	EXC_BR = 5,
	EXC_UD = 6,
	EXC_NM = 7,
	EXC_DF = 8,
	EXC_TS = 10,
	EXC_NP = 11,
	EXC_SS = 12,
	EXC_GP = 13,
	EXC_PF = 14,
	EXC_MF = 16,
	EXC_AC = 17,
	EXC_MC = 18,
	EXC_XM = 19
};

/* Page-fault error code, SDM 3A 4.7 */
#define PF_P	BIT(0)
#define PF_W	BIT(1)
#define PF_U	BIT(2)
#define PF_RSVD BIT(3)
#define PF_I	BIT(4)

/* struct segment.access */
#define SEG_TYPE(a)	     ((a)&0xf)
#define SEG_TYPE_ACCESSED    1u
#define SEG_TYPE_WRITE	     2u /* data: writable; code: readable */
#define SEG_TYPE_EXPAND_DOWN 4u /* data: expand-down; code: conforming */
#define SEG_TYPE_CODE	     8u
#define SEG_S		     BIT(4)
#define SEG_DPL(a)	     (((a) >> 5) & 3)
#define SEG_P		     BIT(7)
#define SEG_AVL		     BIT(12)
#define SEG_L		     BIT(13)
#define SEG_DB		     BIT(14)
#define SEG_G		     BIT(15)
#define SEG_UNUSABLE	     BIT(16)

/* DR6, DR7: SDM 3B 17.2 */
#define DR6_BS	   BIT(14)
#define DR6_BT	   BIT(15)
#define DR6_BD	   BIT(13)
#define DR6_FIXED1 0xffff0ff0ull
#define DR7_GD	   BIT(13)
#define DR7_FIXED1 0x400ull

static inline bool is_canonical(u64 linear)
{
	return (u64)((s64)(linear << 16) >> 16) == linear;
}

#endif
