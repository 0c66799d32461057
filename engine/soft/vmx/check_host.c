/* Checks on the host-state area: SDM 3C 27.2.2 to 27.2.4. */
#include "engine/soft/vmx/capabilities.h"
#include "engine/soft/vmx/check.h"

#define SELECTOR_RPL_TI 7u

bool entry_pat_valid(u64 pat)
{
	for (u32 n = 0; n < 8; n++, pat >>= 8) {
		u64 type = pat & 0xff;
		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

static bool host_64(const struct entry_facts *e)
{
	return entry_get(e, VMX_EXIT_CONTROLS) & EXIT_HOST_64;
}

/* 27.2.2 */
static bool check_registers(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 exit = entry_get(e, VMX_EXIT_CONTROLS), efer = entry_get(e, VMX_HOST_EFER);
	u64 cr0 = entry_get(e, VMX_HOST_CR0), cr4 = entry_get(e, VMX_HOST_CR4);
	u64 wanted = host_64(e) ? EFER_LMA | EFER_LME : 0;

	ENTRY_CHECK((cr0 & CR0_FIXED0) == CR0_FIXED0 && !(cr0 >> 32), VMX_HOST_CR0,
		    "bits not supported in VMX operation");
	ENTRY_CHECK((cr4 & CR4_VMXE) && !(cr4 & ~e->cr4_fixed1), VMX_HOST_CR4,
		    "bits not supported in VMX operation");
	ENTRY_CHECK(entry_address_valid(e, entry_get(e, VMX_HOST_CR3), 1), VMX_HOST_CR3,
		    "beyond the physical-address width");
	ENTRY_CHECK(is_canonical(entry_get(e, VMX_HOST_SYSENTER_ESP)), VMX_HOST_SYSENTER_ESP,
		    "not canonical");
	ENTRY_CHECK(is_canonical(entry_get(e, VMX_HOST_SYSENTER_EIP)), VMX_HOST_SYSENTER_EIP,
		    "not canonical");
	ENTRY_CHECK(!(exit & EXIT_LOAD_PAT) || entry_pat_valid(entry_get(e, VMX_HOST_PAT)),
		    VMX_HOST_PAT, "no memory type");
	if (exit & EXIT_LOAD_EFER) {
		ENTRY_CHECK(!(efer & ~e->efer_known), VMX_HOST_EFER, "reserved bits are not 0");
		ENTRY_CHECK((efer & (EFER_LMA | EFER_LME)) == wanted, VMX_HOST_EFER,
			    "LMA and LME are not as \"host address-space size\"");
	}
	return true;
}

/* 27.2.3 */
static bool check_segments(const struct entry_facts *e, struct entry_failure *failure)
{
	static const enum vmx_field bases[] = {VMX_HOST_FS_BASE, VMX_HOST_GS_BASE,
					       VMX_HOST_GDTR_BASE, VMX_HOST_IDTR_BASE,
					       VMX_HOST_TR_BASE};

	for (u32 n = VMX_HOST_ES_SELECTOR; n <= VMX_HOST_TR_SELECTOR; n++)
		ENTRY_CHECK(!(entry_get(e, n) & SELECTOR_RPL_TI), n, "RPL or TI is not 0");
	ENTRY_CHECK(entry_get(e, VMX_HOST_CS_SELECTOR), VMX_HOST_CS_SELECTOR, "null");
	ENTRY_CHECK(entry_get(e, VMX_HOST_TR_SELECTOR), VMX_HOST_TR_SELECTOR, "null");
	ENTRY_CHECK(host_64(e) || entry_get(e, VMX_HOST_SS_SELECTOR), VMX_HOST_SS_SELECTOR,
		    "null for a 32-bit host");
	for (u32 n = 0; n < ARRAY_SIZE(bases); n++)
		ENTRY_CHECK(is_canonical(entry_get(e, bases[n])), bases[n], "not canonical");
	return true;
}

/* 27.2.4 */
static bool check_address_space(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 cr4 = entry_get(e, VMX_HOST_CR4), rip = entry_get(e, VMX_HOST_RIP);
	bool ia32e = entry_get(e, VMX_ENTRY_CONTROLS) & ENTRY_IA32E;

	ENTRY_CHECK(host_64(e) == e->long_mode, VMX_EXIT_CONTROLS,
		    "\"host address-space size\" is not as the mode of VM entry");
	ENTRY_CHECK(host_64(e) || !ia32e, VMX_ENTRY_CONTROLS,
		    "\"IA-32e mode guest\" of a 32-bit host");
	if (host_64(e)) {
		ENTRY_CHECK(cr4 & CR4_PAE, VMX_HOST_CR4, "a 64-bit host without PAE");
		ENTRY_CHECK(is_canonical(rip), VMX_HOST_RIP, "not canonical");
	} else {
		ENTRY_CHECK(!(cr4 & CR4_PCIDE), VMX_HOST_CR4, "PCIDE of a 32-bit host");
		ENTRY_CHECK(!(rip >> 32), VMX_HOST_RIP, "beyond 4 GiB of a 32-bit host");
	}
	return true;
}

bool vmx_check_host(const struct entry_facts *e, struct entry_failure *failure)
{
	return check_registers(e, failure) && check_segments(e, failure) &&
	       check_address_space(e, failure);
}
