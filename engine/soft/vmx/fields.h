/*
 * The fields of a VMCS: SDM 3C 25.4 to 25.9, encodings in appendix B.
 *
 * One list feeds the enum, VMREAD and VMWRITE, dumps and checks. Width and kind are in the encoding
 * (SDM 3C 25.11.2):
 *
 *   14:13  width: 0 16 bits, 1 64 bits, 2 32 bits, 3 natural
 *   11:10  type: 0 control, 1 read-only data, 2 guest state, 3 host state
 *    9:1   index
 *      0   access type: the upper half of a 64-bit field
 *
 * What is not in the list does not exist for guests: VMfail 12.
 */
#ifndef GUISE_SOFT_VMX_FIELDS_H
#define GUISE_SOFT_VMX_FIELDS_H

#include "base/types.h"

/* X(name, encoding); in the order of encodings. Fields of one group that lie next to each other
 * (segments, CR3 targets, PDPTEs, EOI-exit bitmaps) are used as arrays. */
/* clang-format off */
#define VMX_FIELDS(X)                            \
	/* 16 bits: control, guest, host */      \
	X(VPID,                       0x0000)    \
	X(POSTED_INTERRUPT_VECTOR,    0x0002)    \
	X(EPTP_INDEX,                 0x0004)    \
	X(GUEST_ES_SELECTOR,          0x0800)    \
	X(GUEST_CS_SELECTOR,          0x0802)    \
	X(GUEST_SS_SELECTOR,          0x0804)    \
	X(GUEST_DS_SELECTOR,          0x0806)    \
	X(GUEST_FS_SELECTOR,          0x0808)    \
	X(GUEST_GS_SELECTOR,          0x080a)    \
	X(GUEST_LDTR_SELECTOR,        0x080c)    \
	X(GUEST_TR_SELECTOR,          0x080e)    \
	X(GUEST_INTERRUPT_STATUS,     0x0810)    \
	X(PML_INDEX,                  0x0812)    \
	X(HOST_ES_SELECTOR,           0x0c00)    \
	X(HOST_CS_SELECTOR,           0x0c02)    \
	X(HOST_SS_SELECTOR,           0x0c04)    \
	X(HOST_DS_SELECTOR,           0x0c06)    \
	X(HOST_FS_SELECTOR,           0x0c08)    \
	X(HOST_GS_SELECTOR,           0x0c0a)    \
	X(HOST_TR_SELECTOR,           0x0c0c)    \
	/* 64 bits: control, data, guest, host */ \
	X(IO_BITMAP_A,                0x2000)    \
	X(IO_BITMAP_B,                0x2002)    \
	X(MSR_BITMAP,                 0x2004)    \
	X(EXIT_MSR_STORE_ADDRESS,     0x2006)    \
	X(EXIT_MSR_LOAD_ADDRESS,      0x2008)    \
	X(ENTRY_MSR_LOAD_ADDRESS,     0x200a)    \
	X(EXECUTIVE_VMCS,             0x200c)    \
	X(PML_ADDRESS,                0x200e)    \
	X(TSC_OFFSET,                 0x2010)    \
	X(VIRTUAL_APIC_ADDRESS,       0x2012)    \
	X(APIC_ACCESS_ADDRESS,        0x2014)    \
	X(POSTED_INTERRUPT_DESCRIPTOR, 0x2016)   \
	X(VM_FUNCTION_CONTROLS,       0x2018)    \
	X(EPT_POINTER,                0x201a)    \
	X(EOI_EXIT_BITMAP0,           0x201c)    \
	X(EOI_EXIT_BITMAP1,           0x201e)    \
	X(EOI_EXIT_BITMAP2,           0x2020)    \
	X(EOI_EXIT_BITMAP3,           0x2022)    \
	X(EPTP_LIST_ADDRESS,          0x2024)    \
	X(VMREAD_BITMAP,              0x2026)    \
	X(VMWRITE_BITMAP,             0x2028)    \
	X(TSC_MULTIPLIER,             0x2032)    \
	X(GUEST_PHYSICAL_ADDRESS,     0x2400)    \
	X(VMCS_LINK_POINTER,          0x2800)    \
	X(GUEST_DEBUGCTL,             0x2802)    \
	X(GUEST_PAT,                  0x2804)    \
	X(GUEST_EFER,                 0x2806)    \
	X(GUEST_PDPTE0,               0x280a)    \
	X(GUEST_PDPTE1,               0x280c)    \
	X(GUEST_PDPTE2,               0x280e)    \
	X(GUEST_PDPTE3,               0x2810)    \
	X(HOST_PAT,                   0x2c00)    \
	X(HOST_EFER,                  0x2c02)    \
	/* 32 bits: control, data, guest, host */ \
	X(PIN_CONTROLS,               0x4000)    \
	X(PROCESSOR_CONTROLS,         0x4002)    \
	X(EXCEPTION_BITMAP,           0x4004)    \
	X(PAGE_FAULT_MASK,            0x4006)    \
	X(PAGE_FAULT_MATCH,           0x4008)    \
	X(CR3_TARGET_COUNT,           0x400a)    \
	X(EXIT_CONTROLS,              0x400c)    \
	X(EXIT_MSR_STORE_COUNT,       0x400e)    \
	X(EXIT_MSR_LOAD_COUNT,        0x4010)    \
	X(ENTRY_CONTROLS,             0x4012)    \
	X(ENTRY_MSR_LOAD_COUNT,       0x4014)    \
	X(ENTRY_INTERRUPTION_INFO,    0x4016)    \
	X(ENTRY_EXCEPTION_ERROR,      0x4018)    \
	X(ENTRY_INSTRUCTION_LENGTH,   0x401a)    \
	X(TPR_THRESHOLD,              0x401c)    \
	X(SECONDARY_CONTROLS,         0x401e)    \
	X(PLE_GAP,                    0x4020)    \
	X(PLE_WINDOW,                 0x4022)    \
	X(INSTRUCTION_ERROR,          0x4400)    \
	X(EXIT_REASON,                0x4402)    \
	X(EXIT_INTERRUPTION_INFO,     0x4404)    \
	X(EXIT_INTERRUPTION_ERROR,    0x4406)    \
	X(IDT_VECTORING_INFO,         0x4408)    \
	X(IDT_VECTORING_ERROR,        0x440a)    \
	X(EXIT_INSTRUCTION_LENGTH,    0x440c)    \
	X(EXIT_INSTRUCTION_INFO,      0x440e)    \
	X(GUEST_ES_LIMIT,             0x4800)    \
	X(GUEST_CS_LIMIT,             0x4802)    \
	X(GUEST_SS_LIMIT,             0x4804)    \
	X(GUEST_DS_LIMIT,             0x4806)    \
	X(GUEST_FS_LIMIT,             0x4808)    \
	X(GUEST_GS_LIMIT,             0x480a)    \
	X(GUEST_LDTR_LIMIT,           0x480c)    \
	X(GUEST_TR_LIMIT,             0x480e)    \
	X(GUEST_GDTR_LIMIT,           0x4810)    \
	X(GUEST_IDTR_LIMIT,           0x4812)    \
	X(GUEST_ES_ACCESS,            0x4814)    \
	X(GUEST_CS_ACCESS,            0x4816)    \
	X(GUEST_SS_ACCESS,            0x4818)    \
	X(GUEST_DS_ACCESS,            0x481a)    \
	X(GUEST_FS_ACCESS,            0x481c)    \
	X(GUEST_GS_ACCESS,            0x481e)    \
	X(GUEST_LDTR_ACCESS,          0x4820)    \
	X(GUEST_TR_ACCESS,            0x4822)    \
	X(GUEST_INTERRUPTIBILITY,     0x4824)    \
	X(GUEST_ACTIVITY,             0x4826)    \
	X(GUEST_SMBASE,               0x4828)    \
	X(GUEST_SYSENTER_CS,          0x482a)    \
	X(PREEMPTION_TIMER,           0x482e)    \
	X(HOST_SYSENTER_CS,           0x4c00)    \
	/* natural: control, data, guest, host */ \
	X(CR0_MASK,                   0x6000)    \
	X(CR4_MASK,                   0x6002)    \
	X(CR0_SHADOW,                 0x6004)    \
	X(CR4_SHADOW,                 0x6006)    \
	X(CR3_TARGET0,                0x6008)    \
	X(CR3_TARGET1,                0x600a)    \
	X(CR3_TARGET2,                0x600c)    \
	X(CR3_TARGET3,                0x600e)    \
	X(EXIT_QUALIFICATION,         0x6400)    \
	X(IO_RCX,                     0x6402)    \
	X(IO_RSI,                     0x6404)    \
	X(IO_RDI,                     0x6406)    \
	X(IO_RIP,                     0x6408)    \
	X(GUEST_LINEAR_ADDRESS,       0x640a)    \
	X(GUEST_CR0,                  0x6800)    \
	X(GUEST_CR3,                  0x6802)    \
	X(GUEST_CR4,                  0x6804)    \
	X(GUEST_ES_BASE,              0x6806)    \
	X(GUEST_CS_BASE,              0x6808)    \
	X(GUEST_SS_BASE,              0x680a)    \
	X(GUEST_DS_BASE,              0x680c)    \
	X(GUEST_FS_BASE,              0x680e)    \
	X(GUEST_GS_BASE,              0x6810)    \
	X(GUEST_LDTR_BASE,            0x6812)    \
	X(GUEST_TR_BASE,              0x6814)    \
	X(GUEST_GDTR_BASE,            0x6816)    \
	X(GUEST_IDTR_BASE,            0x6818)    \
	X(GUEST_DR7,                  0x681a)    \
	X(GUEST_RSP,                  0x681c)    \
	X(GUEST_RIP,                  0x681e)    \
	X(GUEST_RFLAGS,               0x6820)    \
	X(GUEST_PENDING_DEBUG,        0x6822)    \
	X(GUEST_SYSENTER_ESP,         0x6824)    \
	X(GUEST_SYSENTER_EIP,         0x6826)    \
	X(HOST_CR0,                   0x6c00)    \
	X(HOST_CR3,                   0x6c02)    \
	X(HOST_CR4,                   0x6c04)    \
	X(HOST_FS_BASE,               0x6c06)    \
	X(HOST_GS_BASE,               0x6c08)    \
	X(HOST_TR_BASE,               0x6c0a)    \
	X(HOST_GDTR_BASE,             0x6c0c)    \
	X(HOST_IDTR_BASE,             0x6c0e)    \
	X(HOST_SYSENTER_ESP,          0x6c10)    \
	X(HOST_SYSENTER_EIP,          0x6c12)    \
	X(HOST_RSP,                   0x6c14)    \
	X(HOST_RIP,                   0x6c16)
/* clang-format on */

enum vmx_field {
#define X(name, encoding) VMX_##name,
	VMX_FIELDS(X)
#undef X
	    VMX_FIELD_COUNT
};

enum vmx_width { VMX_WIDTH_16, VMX_WIDTH_64, VMX_WIDTH_32, VMX_WIDTH_NATURAL };
enum vmx_type { VMX_TYPE_CONTROL, VMX_TYPE_DATA, VMX_TYPE_GUEST, VMX_TYPE_HOST };

#define VMX_ENCODING_WIDTH(e) ((e) >> 13 & 3)
#define VMX_ENCODING_TYPE(e)  ((e) >> 10 & 3)
#define VMX_ENCODING_INDEX(e) ((e) >> 1 & 0x1ff)
#define VMX_ENCODING_HIGH     1u

struct vmx_field_row {
	const char *name;
	u16 encoding;
};

extern const struct vmx_field_row vmx_fields[VMX_FIELD_COUNT];

/** A VMCS' values. Each is no wider than its field. */
struct vmcs {
	u64 value[VMX_FIELD_COUNT];
};

/** The field of @encoding (the upper half's too), or -1: there is none. Inside. */
int vmx_field_find(u64 encoding);

/** Bits that a value of field @n can have. */
static inline u64 vmx_field_mask(u32 n)
{
	static const u64 mask[] = {
	    [VMX_WIDTH_16] = 0xffff,
	    [VMX_WIDTH_64] = ~0ull,
	    [VMX_WIDTH_32] = 0xffffffff,
	    [VMX_WIDTH_NATURAL] = ~0ull,
	};
	return mask[VMX_ENCODING_WIDTH(vmx_fields[n].encoding)];
}

/** The highest index of any field, for IA32_VMX_VMCS_ENUM (SDM 3D A.9). */
u32 vmx_field_highest_index(void);

#endif
