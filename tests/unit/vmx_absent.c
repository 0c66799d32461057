/*
 * For tests of files that ask VMX what it wants to know (engine/soft/vmx/vmx.h), of vCPUs that are
 * never in VMX operation: nothing here is ever called.
 */
#include <stdlib.h>

#define NEVER(name)                                                                                \
	void name(void);                                                                           \
	void name(void)                                                                            \
	{                                                                                          \
		abort();                                                                           \
	}

NEVER(vmx_apic_page_read)
NEVER(vmx_apic_page_write)
NEVER(vmx_before_debug)
NEVER(vmx_before_interrupt)
NEVER(vmx_before_nmi)
NEVER(vmx_capability)
NEVER(vmx_cr0_allowed)
NEVER(vmx_cr4_allowed)
NEVER(vmx_delivery_begins)
NEVER(vmx_delivery_ends)
NEVER(vmx_inject)
NEVER(vmx_note_nested)
NEVER(vmx_on_apic_access)
NEVER(vmx_on_clts)
NEVER(vmx_on_cpuid)
NEVER(vmx_on_debug_trap)
NEVER(vmx_on_hlt)
NEVER(vmx_on_interrupt)
NEVER(vmx_on_invlpg)
NEVER(vmx_on_invpcid)
NEVER(vmx_on_lmsw)
NEVER(vmx_on_mov_dr)
NEVER(vmx_on_msr)
NEVER(vmx_on_nmi)
NEVER(vmx_on_port)
NEVER(vmx_on_port_string)
NEVER(vmx_on_rdpmc)
NEVER(vmx_on_rdtsc)
NEVER(vmx_on_read_cr)
NEVER(vmx_on_software_exception)
NEVER(vmx_on_system_segment)
NEVER(vmx_on_table)
NEVER(vmx_on_task_switch)
NEVER(vmx_on_wbinvd)
NEVER(vmx_on_write_cr)
NEVER(vmx_on_xsetbv)
NEVER(vmx_pending)
NEVER(vmx_read_apic_msr)
NEVER(vmx_read_cr8)
NEVER(vmx_take_virtual_interrupt)
NEVER(vmx_tsc)
NEVER(vmx_virtualizes_msr)
NEVER(vmx_vmcall)
NEVER(vmx_wants_exception)
NEVER(vmx_write_apic_msr)
NEVER(vmx_write_cr8)
