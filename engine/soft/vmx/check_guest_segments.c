/* Checks on guest segment registers: SDM 3C 27.3.1.2. */
#include "engine/soft/vmx/check.h"

#include "engine/soft/x86.h"

#define SELECTOR_TI_BIT BIT(2)
#define RPL(selector)	((selector)&3)

/* 11:8, and all behind "unusable" */
#define ACCESS_RESERVED 0xfffe0f00u

#define TYPE_ACCESSED_DATA_RW 3u
#define TYPE_DATA_RW_DOWN     7u
#define TYPE_CODE_CONFORMING  4u
#define TYPE_LDT	      2u
#define TYPE_TSS16_BUSY	      3u
#define TYPE_TSS_BUSY	      11u
#define V86_ACCESS	      0xf3u
#define V86_LIMIT	      0xffffu
#define LDTR		      6u
#define TR		      7u

static u64 selector(const struct entry_facts *e, u32 seg)
{
	return entry_get(e, VMX_GUEST_ES_SELECTOR + seg);
}

static u64 base(const struct entry_facts *e, u32 seg)
{
	return entry_get(e, VMX_GUEST_ES_BASE + seg);
}

static u64 limit(const struct entry_facts *e, u32 seg)
{
	return entry_get(e, VMX_GUEST_ES_LIMIT + seg);
}

static u64 access_of(const struct entry_facts *e, u32 seg)
{
	return entry_get(e, VMX_GUEST_ES_ACCESS + seg);
}

static bool usable(const struct entry_facts *e, u32 seg)
{
	return !(access_of(e, seg) & SEG_UNUSABLE);
}

static bool is_v86(const struct entry_facts *e)
{
	return entry_get(e, VMX_GUEST_RFLAGS) & RFLAGS_VM;
}

static bool check_selectors(const struct entry_facts *e, struct entry_failure *failure)
{
	ENTRY_CHECK(!(selector(e, TR) & SELECTOR_TI_BIT), VMX_GUEST_TR_SELECTOR, "TI is 1");
	ENTRY_CHECK(!usable(e, LDTR) || !(selector(e, LDTR) & SELECTOR_TI_BIT),
		    VMX_GUEST_LDTR_SELECTOR, "TI is 1");
	if (!is_v86(e) && !entry_unrestricted(e))
		ENTRY_CHECK(RPL(selector(e, SEG_SS)) == RPL(selector(e, SEG_CS)),
			    VMX_GUEST_SS_SELECTOR, "RPL is not CS'");
	return true;
}

static bool check_bases(const struct entry_facts *e, struct entry_failure *failure)
{
	static const u8 canonical[] = {TR, SEG_FS, SEG_GS};
	static const u8 narrow[] = {SEG_SS, SEG_DS, SEG_ES};

	if (is_v86(e))
		for (u32 n = 0; n < LDTR; n++)
			ENTRY_CHECK(base(e, n) == selector(e, n) << 4, VMX_GUEST_ES_BASE + n,
				    "not the selector times 16 in virtual-8086 mode");
	for (u32 n = 0; n < ARRAY_SIZE(canonical); n++)
		ENTRY_CHECK(is_canonical(base(e, canonical[n])), VMX_GUEST_ES_BASE + canonical[n],
			    "not canonical");
	ENTRY_CHECK(!usable(e, LDTR) || is_canonical(base(e, LDTR)), VMX_GUEST_LDTR_BASE,
		    "not canonical");
	ENTRY_CHECK(!(base(e, SEG_CS) >> 32), VMX_GUEST_CS_BASE, "bits 63:32 are not 0");
	for (u32 n = 0; n < ARRAY_SIZE(narrow); n++)
		ENTRY_CHECK(!usable(e, narrow[n]) || !(base(e, narrow[n]) >> 32),
			    VMX_GUEST_ES_BASE + narrow[n], "bits 63:32 are not 0");
	return true;
}

/* G = 0 if a low bit of the limit is 0, G = 1 if a high bit is 1. */
static bool granularity_fits(const struct entry_facts *e, u32 seg)
{
	u64 l = limit(e, seg);
	bool g = access_of(e, seg) & SEG_G;

	return !((l & 0xfff) != 0xfff && g) && !(l >> 20 && !g);
}

static bool check_code(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 access = access_of(e, SEG_CS);
	u64 type = SEG_TYPE(access), dpl = SEG_DPL(access);
	u64 ss_dpl = SEG_DPL(access_of(e, SEG_SS));
	bool code = type & SEG_TYPE_CODE && type & SEG_TYPE_ACCESSED;
	bool data = type == TYPE_ACCESSED_DATA_RW && entry_unrestricted(e);

	ENTRY_CHECK(code || data, VMX_GUEST_CS_ACCESS, "type is not accessed code");
	ENTRY_CHECK(access & SEG_S, VMX_GUEST_CS_ACCESS, "S is 0");
	if (data)
		ENTRY_CHECK(dpl == 0, VMX_GUEST_CS_ACCESS, "DPL of a data segment is not 0");
	else if (type & TYPE_CODE_CONFORMING)
		ENTRY_CHECK(dpl <= ss_dpl, VMX_GUEST_CS_ACCESS, "conforming, DPL above SS'");
	else
		ENTRY_CHECK(dpl == ss_dpl, VMX_GUEST_CS_ACCESS, "DPL is not SS'");
	ENTRY_CHECK(access & SEG_P, VMX_GUEST_CS_ACCESS, "P is 0");
	ENTRY_CHECK(!(access & (ACCESS_RESERVED | SEG_UNUSABLE)), VMX_GUEST_CS_ACCESS,
		    "reserved bits are not 0, or unusable");
	ENTRY_CHECK(!(entry_get(e, VMX_ENTRY_CONTROLS) & ENTRY_IA32E) || !(access & SEG_L) ||
			!(access & SEG_DB),
		    VMX_GUEST_CS_ACCESS, "L and D/B are both 1");
	ENTRY_CHECK(granularity_fits(e, SEG_CS), VMX_GUEST_CS_ACCESS, "G does not fit the limit");
	return true;
}

static bool check_stack(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 access = access_of(e, SEG_SS);
	u64 type = SEG_TYPE(access), dpl = SEG_DPL(access);
	bool zero = SEG_TYPE(access_of(e, SEG_CS)) == TYPE_ACCESSED_DATA_RW ||
		    !(entry_get(e, VMX_GUEST_CR0) & CR0_PE);

	ENTRY_CHECK(!usable(e, SEG_SS) || type == TYPE_ACCESSED_DATA_RW ||
			type == TYPE_DATA_RW_DOWN,
		    VMX_GUEST_SS_ACCESS, "type is not accessed writable data");
	ENTRY_CHECK(!usable(e, SEG_SS) || (access & SEG_S), VMX_GUEST_SS_ACCESS, "S is 0");
	ENTRY_CHECK(entry_unrestricted(e) || dpl == RPL(selector(e, SEG_SS)), VMX_GUEST_SS_ACCESS,
		    "DPL is not RPL");
	ENTRY_CHECK(!zero || dpl == 0, VMX_GUEST_SS_ACCESS,
		    "DPL is not 0 in real mode or beside a data segment in CS");
	if (!usable(e, SEG_SS))
		return true;
	ENTRY_CHECK(access & SEG_P, VMX_GUEST_SS_ACCESS, "P is 0");
	ENTRY_CHECK(!(access & ACCESS_RESERVED), VMX_GUEST_SS_ACCESS, "reserved bits are not 0");
	ENTRY_CHECK(granularity_fits(e, SEG_SS), VMX_GUEST_SS_ACCESS, "G does not fit the limit");
	return true;
}

static bool check_data(const struct entry_facts *e, u32 seg, struct entry_failure *failure)
{
	u64 access = access_of(e, seg);
	u64 type = SEG_TYPE(access);
	u32 at = VMX_GUEST_ES_ACCESS + seg;

	if (!usable(e, seg))
		return true;
	ENTRY_CHECK(type & SEG_TYPE_ACCESSED, at, "type is not accessed");
	ENTRY_CHECK(!(type & SEG_TYPE_CODE) || (type & SEG_TYPE_WRITE), at,
		    "type is execute-only code");
	ENTRY_CHECK(access & SEG_S, at, "S is 0");
	ENTRY_CHECK(entry_unrestricted(e) || type > 11 || SEG_DPL(access) >= RPL(selector(e, seg)),
		    at, "DPL is below RPL");
	ENTRY_CHECK(access & SEG_P, at, "P is 0");
	ENTRY_CHECK(!(access & ACCESS_RESERVED), at, "reserved bits are not 0");
	ENTRY_CHECK(granularity_fits(e, seg), at, "G does not fit the limit");
	return true;
}

static bool check_v86(const struct entry_facts *e, struct entry_failure *failure)
{
	for (u32 n = 0; n < LDTR; n++)
		ENTRY_CHECK(limit(e, n) == V86_LIMIT, VMX_GUEST_ES_LIMIT + n,
			    "not FFFFH in virtual-8086 mode");
	for (u32 n = 0; n < LDTR; n++)
		ENTRY_CHECK(access_of(e, n) == V86_ACCESS, VMX_GUEST_ES_ACCESS + n,
			    "not F3H in virtual-8086 mode");
	return true;
}

static bool check_task(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 access = access_of(e, TR), type = SEG_TYPE(access);
	bool ia32e = entry_get(e, VMX_ENTRY_CONTROLS) & ENTRY_IA32E;

	ENTRY_CHECK(type == TYPE_TSS_BUSY || (type == TYPE_TSS16_BUSY && !ia32e),
		    VMX_GUEST_TR_ACCESS, "type is no busy TSS");
	ENTRY_CHECK(!(access & SEG_S), VMX_GUEST_TR_ACCESS, "S is 1");
	ENTRY_CHECK(access & SEG_P, VMX_GUEST_TR_ACCESS, "P is 0");
	ENTRY_CHECK(!(access & (ACCESS_RESERVED | SEG_UNUSABLE)), VMX_GUEST_TR_ACCESS,
		    "reserved bits are not 0, or unusable");
	ENTRY_CHECK(granularity_fits(e, TR), VMX_GUEST_TR_ACCESS, "G does not fit the limit");
	return true;
}

static bool check_ldtr(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 access = access_of(e, LDTR);

	if (!usable(e, LDTR))
		return true;
	ENTRY_CHECK(SEG_TYPE(access) == TYPE_LDT, VMX_GUEST_LDTR_ACCESS, "type is no LDT");
	ENTRY_CHECK(!(access & SEG_S), VMX_GUEST_LDTR_ACCESS, "S is 1");
	ENTRY_CHECK(access & SEG_P, VMX_GUEST_LDTR_ACCESS, "P is 0");
	ENTRY_CHECK(!(access & ACCESS_RESERVED), VMX_GUEST_LDTR_ACCESS, "reserved bits are not 0");
	ENTRY_CHECK(granularity_fits(e, LDTR), VMX_GUEST_LDTR_ACCESS, "G does not fit the limit");
	return true;
}

bool vmx_check_guest_segments(const struct entry_facts *e, struct entry_failure *failure)
{
	static const u8 data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};

	if (!check_selectors(e, failure) || !check_bases(e, failure))
		return false;
	if (is_v86(e)) {
		if (!check_v86(e, failure))
			return false;
	} else {
		if (!check_code(e, failure) || !check_stack(e, failure))
			return false;
		for (u32 n = 0; n < ARRAY_SIZE(data); n++)
			if (!check_data(e, data[n], failure))
				return false;
	}
	return check_task(e, failure) && check_ldtr(e, failure);
}
