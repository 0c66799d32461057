/* Checks on the guest-state area but for segment registers: SDM 3C 27.3.1. */
#include "engine/soft/vmx/capabilities.h"
#include "engine/soft/vmx/check.h"

#define RFLAGS_FIXED1	1u /* number of the bit that is always 1 */
#define RFLAGS_RESERVED (~0x3fffffull | BIT(15) | BIT(5) | BIT(3))

#define DEBUGCTL_BTF BIT(1)

#define PDPTE_PRESENT  1u
#define PDPTE_RESERVED (0xfff0000000000000ull | 0x1e6)

/* Exit qualifications of failed entries, SDM 3C 27.8 */
enum { FAILURE_PDPTE = 2, FAILURE_NMI = 3, FAILURE_LINK = 4 };

static bool ia32e(const struct entry_facts *e)
{
	return entry_get(e, VMX_ENTRY_CONTROLS) & ENTRY_IA32E;
}

/* The event to be injected is of @type. */
static bool injects(const struct entry_facts *e, enum info_type type)
{
	u64 info = entry_get(e, VMX_ENTRY_INTERRUPTION_INFO);

	return (info & INFO_VALID) && INFO_TYPE(info) == type;
}

/* 27.3.1.1 */
static bool check_control_registers(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 cr0 = entry_get(e, VMX_GUEST_CR0), cr4 = entry_get(e, VMX_GUEST_CR4);
	u64 fixed = CR0_FIXED0;

	if (entry_unrestricted(e))
		fixed &= ~(CR0_PE | CR0_PG);
	ENTRY_CHECK((cr0 & fixed) == fixed && !(cr0 >> 32), VMX_GUEST_CR0,
		    "bits not supported in VMX operation");
	ENTRY_CHECK(!(cr0 & CR0_PG) || (cr0 & CR0_PE), VMX_GUEST_CR0, "PG without PE");
	ENTRY_CHECK((cr4 & CR4_VMXE) && !(cr4 & ~e->cr4_fixed1), VMX_GUEST_CR4,
		    "bits not supported in VMX operation");
	if (entry_get(e, VMX_ENTRY_CONTROLS) & ENTRY_LOAD_DEBUG)
		ENTRY_CHECK(!(entry_get(e, VMX_GUEST_DEBUGCTL) & ~e->debugctl_known),
			    VMX_GUEST_DEBUGCTL, "reserved bits are not 0");
	if (ia32e(e)) {
		ENTRY_CHECK(cr0 & CR0_PG, VMX_GUEST_CR0, "IA-32e mode without paging");
		ENTRY_CHECK(cr4 & CR4_PAE, VMX_GUEST_CR4, "IA-32e mode without PAE");
	} else {
		ENTRY_CHECK(!(cr4 & CR4_PCIDE), VMX_GUEST_CR4, "PCIDE outside IA-32e mode");
	}
	ENTRY_CHECK(entry_address_valid(e, entry_get(e, VMX_GUEST_CR3), 1), VMX_GUEST_CR3,
		    "beyond the physical-address width");
	return true;
}

static bool check_msrs(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 controls = entry_get(e, VMX_ENTRY_CONTROLS), efer = entry_get(e, VMX_GUEST_EFER);
	bool lma = efer & EFER_LMA, lme = efer & EFER_LME;

	if (controls & ENTRY_LOAD_DEBUG)
		ENTRY_CHECK(!(entry_get(e, VMX_GUEST_DR7) >> 32), VMX_GUEST_DR7,
			    "bits 63:32 are not 0");
	ENTRY_CHECK(is_canonical(entry_get(e, VMX_GUEST_SYSENTER_ESP)), VMX_GUEST_SYSENTER_ESP,
		    "not canonical");
	ENTRY_CHECK(is_canonical(entry_get(e, VMX_GUEST_SYSENTER_EIP)), VMX_GUEST_SYSENTER_EIP,
		    "not canonical");
	ENTRY_CHECK(!(controls & ENTRY_LOAD_PAT) || entry_pat_valid(entry_get(e, VMX_GUEST_PAT)),
		    VMX_GUEST_PAT, "no memory type");
	if (controls & ENTRY_LOAD_EFER) {
		ENTRY_CHECK(!(efer & ~e->efer_known), VMX_GUEST_EFER, "reserved bits are not 0");
		ENTRY_CHECK(lma == ia32e(e), VMX_GUEST_EFER, "LMA is not as \"IA-32e mode guest\"");
		ENTRY_CHECK(!(entry_get(e, VMX_GUEST_CR0) & CR0_PG) || lma == lme, VMX_GUEST_EFER,
			    "LMA is not LME with paging");
	}
	return true;
}

/* 27.3.1.3 */
static bool check_tables(const struct entry_facts *e, struct entry_failure *failure)
{
	ENTRY_CHECK(is_canonical(entry_get(e, VMX_GUEST_GDTR_BASE)), VMX_GUEST_GDTR_BASE,
		    "not canonical");
	ENTRY_CHECK(is_canonical(entry_get(e, VMX_GUEST_IDTR_BASE)), VMX_GUEST_IDTR_BASE,
		    "not canonical");
	ENTRY_CHECK(!(entry_get(e, VMX_GUEST_GDTR_LIMIT) >> 16), VMX_GUEST_GDTR_LIMIT,
		    "bits 31:16 are not 0");
	ENTRY_CHECK(!(entry_get(e, VMX_GUEST_IDTR_LIMIT) >> 16), VMX_GUEST_IDTR_LIMIT,
		    "bits 31:16 are not 0");
	return true;
}

/* 27.3.1.4 */
static bool check_rip_rflags(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 rip = entry_get(e, VMX_GUEST_RIP), rflags = entry_get(e, VMX_GUEST_RFLAGS);
	bool code64 = ia32e(e) && (entry_get(e, VMX_GUEST_CS_ACCESS) & SEG_L);

	ENTRY_CHECK(code64 ? is_canonical(rip) : !(rip >> 32), VMX_GUEST_RIP,
		    "not canonical, or beyond 4 GiB outside 64-bit mode");
	ENTRY_CHECK(!(rflags & RFLAGS_RESERVED) && (rflags >> RFLAGS_FIXED1 & 1), VMX_GUEST_RFLAGS,
		    "reserved bits");
	ENTRY_CHECK(!(rflags & RFLAGS_VM) || (!ia32e(e) && (entry_get(e, VMX_GUEST_CR0) & CR0_PE)),
		    VMX_GUEST_RFLAGS, "VM in IA-32e or real mode");
	ENTRY_CHECK((rflags & RFLAGS_IF) || !injects(e, INFO_INTERRUPT), VMX_GUEST_RFLAGS,
		    "IF is 0 where an external interrupt is injected");
	return true;
}

/* Events that may be injected in an activity state other than active. */
static bool activity_allows_event(const struct entry_facts *e, u64 activity)
{
	u64 info = entry_get(e, VMX_ENTRY_INTERRUPTION_INFO);
	u64 type = INFO_TYPE(info), vector = INFO_VECTOR(info);
	bool machine_check = type == INFO_HARDWARE_EXCEPTION && vector == EXC_MC;

	if (!(info & INFO_VALID))
		return true;
	switch (activity) {
	case ACTIVITY_ACTIVE:
		return true;
	case ACTIVITY_HLT:
		return type == INFO_INTERRUPT || type == INFO_NMI || machine_check ||
		       (type == INFO_HARDWARE_EXCEPTION && vector == EXC_DB) || type == INFO_OTHER;
	case ACTIVITY_SHUTDOWN:
		return type == INFO_NMI || machine_check;
	default:
		return false;
	}
}

/* 27.3.1.5 */
static bool check_activity(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 activity = entry_get(e, VMX_GUEST_ACTIVITY);
	u64 blocked = entry_get(e, VMX_GUEST_INTERRUPTIBILITY);

	ENTRY_CHECK(activity <= ACTIVITY_WAIT_FOR_SIPI, VMX_GUEST_ACTIVITY, "unknown");
	ENTRY_CHECK(activity != ACTIVITY_HLT || !SEG_DPL(entry_get(e, VMX_GUEST_SS_ACCESS)),
		    VMX_GUEST_ACTIVITY, "HLT above privilege level 0");
	ENTRY_CHECK(activity == ACTIVITY_ACTIVE || !(blocked & (BLOCKED_STI | BLOCKED_MOV_SS)),
		    VMX_GUEST_ACTIVITY, "not active behind STI or MOV SS");
	ENTRY_CHECK(activity_allows_event(e, activity), VMX_GUEST_ACTIVITY,
		    "an event is injected that it does not allow");
	return true;
}

static bool check_interruptibility(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 blocked = entry_get(e, VMX_GUEST_INTERRUPTIBILITY);
	u64 rflags = entry_get(e, VMX_GUEST_RFLAGS);
	u32 at = VMX_GUEST_INTERRUPTIBILITY;

	ENTRY_CHECK(!(blocked >> 4), at, "reserved bits are not 0");
	ENTRY_CHECK(!(blocked & BLOCKED_STI) || !(blocked & BLOCKED_MOV_SS), at,
		    "STI and MOV SS at once");
	ENTRY_CHECK((rflags & RFLAGS_IF) || !(blocked & BLOCKED_STI), at, "STI with IF 0");
	ENTRY_CHECK(!injects(e, INFO_INTERRUPT) || !(blocked & (BLOCKED_STI | BLOCKED_MOV_SS)), at,
		    "an external interrupt is injected behind STI or MOV SS");
	ENTRY_CHECK(!injects(e, INFO_NMI) || !(blocked & BLOCKED_MOV_SS), at,
		    "an NMI is injected behind MOV SS");
	ENTRY_CHECK(!(blocked & BLOCKED_SMI), at, "SMIs are blocked outside SMM");
	if (injects(e, INFO_NMI) && (blocked & BLOCKED_STI)) {
		entry_fail(failure, at, "an NMI is injected behind STI");
		failure->qualification = FAILURE_NMI;
		return false;
	}
	ENTRY_CHECK(!(entry_get(e, VMX_PIN_CONTROLS) & PIN_VIRTUAL_NMIS) || !injects(e, INFO_NMI) ||
			!(blocked & BLOCKED_NMI),
		    at, "a virtual NMI is injected while they are blocked");
	return true;
}

static bool check_pending_debug(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 pending = entry_get(e, VMX_GUEST_PENDING_DEBUG);
	u64 blocked = entry_get(e, VMX_GUEST_INTERRUPTIBILITY);
	bool shadow = (blocked & (BLOCKED_STI | BLOCKED_MOV_SS)) ||
		      entry_get(e, VMX_GUEST_ACTIVITY) == ACTIVITY_HLT;
	bool steps = (entry_get(e, VMX_GUEST_RFLAGS) & RFLAGS_TF) &&
		     !(entry_get(e, VMX_GUEST_DEBUGCTL) & DEBUGCTL_BTF);

	ENTRY_CHECK(!(pending & PENDING_RESERVED), VMX_GUEST_PENDING_DEBUG,
		    "reserved bits are not 0");
	ENTRY_CHECK(!shadow || !!(pending & PENDING_BS) == steps, VMX_GUEST_PENDING_DEBUG,
		    "BS is not as TF and BTF");
	return true;
}

static bool check_link(const struct entry_facts *e, struct entry_failure *failure)
{
	u64 link = entry_get(e, VMX_VMCS_LINK_POINTER);
	u32 wanted = VMCS_REVISION | (entry_cpu2(e) & CPU2_VMCS_SHADOWING ? VMCS_SHADOW : 0);

	if (link == ~0ull || (entry_address_valid(e, link, PAGE_SIZE) &&
			      e->link_revision == wanted && link != e->current))
		return true;
	entry_fail(failure, VMX_VMCS_LINK_POINTER,
		   "no aligned address of another VMCS of the right kind");
	failure->qualification = FAILURE_LINK;
	return false;
}

/* 27.3.1.6 */
static bool check_pdptes(const struct entry_facts *e, struct entry_failure *failure)
{
	bool pae = (entry_get(e, VMX_GUEST_CR0) & CR0_PG) &&
		   (entry_get(e, VMX_GUEST_CR4) & CR4_PAE) && !ia32e(e);

	for (u32 n = 0; pae && n < 4; n++) {
		if (!(e->pdpte[n] & PDPTE_PRESENT) ||
		    !(e->pdpte[n] & (PDPTE_RESERVED | e->reserved_pa)))
			continue;
		entry_fail(failure, VMX_GUEST_PDPTE0 + n, "reserved bits are not 0");
		failure->qualification = FAILURE_PDPTE;
		return false;
	}
	return true;
}

bool vmx_check_guest(const struct entry_facts *e, struct entry_failure *failure)
{
	return check_control_registers(e, failure) && check_msrs(e, failure) &&
	       vmx_check_guest_segments(e, failure) && check_tables(e, failure) &&
	       check_rip_rflags(e, failure) && check_activity(e, failure) &&
	       check_interruptibility(e, failure) && check_pending_debug(e, failure) &&
	       check_link(e, failure) && check_pdptes(e, failure);
}
