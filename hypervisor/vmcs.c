// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Virtual-machine control structures: the controls that this hypervisor wants, and on which
 * processor each VMCS is.
 *
 * Source: SDM 3C 24, appendix A.
 */
#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <asm/msr.h>
#include <asm/tlbflush.h>
#include <asm/tsc.h>

#include "guise.h"
#include "vmcs.h"

struct vmcs_controls vmcs_controls __ro_after_init;

/* The VMCSs that are active on a processor, and the one that VMREAD and VMWRITE there mean. */
static DEFINE_PER_CPU(struct list_head, active);
static DEFINE_PER_CPU(struct vmcs_place *, current_place);

/*
 * SDM 3C A.3 to A.5: a capability MSR's low half has the bits that must be 1, its high half those
 * that may be. Returns the controls, or 0 with a message if one of @needed may not be 1.
 */
static u32 __init choose(const char *name, u32 msr, u32 needed, u32 wanted)
{
	u32 must, may;

	rdmsr(msr, must, may);
	if (needed & ~may) {
		pr_err("guise: this processor lacks VMX %s controls %#x\n", name, needed & ~may);
		return 0;
	}
	return ((needed | wanted) & may) | must;
}

#define PRIMARY_NEEDED                                                                             \
	(CPU_BASED_HLT_EXITING | CPU_BASED_MWAIT_EXITING | CPU_BASED_MONITOR_EXITING |             \
	 CPU_BASED_RDPMC_EXITING | CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING |      \
	 CPU_BASED_MOV_DR_EXITING | CPU_BASED_UNCOND_IO_EXITING | CPU_BASED_USE_MSR_BITMAPS |      \
	 CPU_BASED_USE_TSC_OFFSETTING | CPU_BASED_INTR_WINDOW_EXITING |                            \
	 CPU_BASED_NMI_WINDOW_EXITING | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS)

/* With EPT these are not needed; a processor that does not let them be 0 is too old for EPT. */
#define PRIMARY_UNWANTED                                                                           \
	(CPU_BASED_CR3_LOAD_EXITING | CPU_BASED_CR3_STORE_EXITING | CPU_BASED_INVLPG_EXITING)

static int __init setup_ept(void)
{
	u64 capabilities;

	rdmsrl(MSR_IA32_VMX_EPT_VPID_CAP, capabilities);
	if (!(capabilities & VMX_EPT_PAGE_WALK_4_BIT) || !(capabilities & VMX_EPTP_WB_BIT) ||
	    !(capabilities & VMX_EPT_INVEPT_BIT) || !(capabilities & VMX_EPT_EXTENT_CONTEXT_BIT) ||
	    !(capabilities & VMX_EPT_EXTENT_GLOBAL_BIT)) {
		pr_err("guise: this processor's EPT lacks 4 levels, write-back tables or INVEPT\n");
		return -EOPNOTSUPP;
	}
	vmcs_controls.ept_large = capabilities & VMX_EPT_2MB_PAGE_BIT;
	/* A fetch by a large mapping and by a small one of the same address stops some processors
	 * dead with a machine check (Documentation/admin-guide/hw-vuln/multihit.rst). */
	vmcs_controls.ept_large_nx =
	    boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT) && !cpu_mitigations_off();
	capabilities >>= 32;
	vmcs_controls.vpid = (vmcs_controls.secondary & SECONDARY_EXEC_ENABLE_VPID) &&
			     (capabilities & VMX_VPID_INVVPID_BIT) &&
			     (capabilities & VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT);
	if (!vmcs_controls.vpid)
		vmcs_controls.secondary &= ~SECONDARY_EXEC_ENABLE_VPID;
	return 0;
}

/* The preemption timer counts TSC ticks, shifted (SDM 3C 25.5.1, A.6). */
static void __init setup_preemption_timer(unsigned int slice_us)
{
	u64 misc, may;

	rdmsrl(MSR_IA32_VMX_TRUE_PINBASED_CTLS, may);
	if (!slice_us || !((may >> 32) & PIN_BASED_VMX_PREEMPTION_TIMER))
		return;
	rdmsrl(MSR_IA32_VMX_MISC, misc);
	vmcs_controls.preemption_timer =
	    clamp_t(u64, ((u64)slice_us * tsc_khz / 1000) >> (misc & 0x1f), 1, U32_MAX);
	vmcs_controls.pin |= PIN_BASED_VMX_PREEMPTION_TIMER;
}

int __init vmcs_setup_controls(unsigned int slice_us)
{
	struct vmcs_controls *c = &vmcs_controls;
	u64 basic, secondary;

	rdmsrl(MSR_IA32_VMX_BASIC, basic);
	c->revision = (u32)basic & 0x7fffffff;
	if (((basic >> 32) & 0x1fff) > PAGE_SIZE || !(basic & VMX_BASIC_TRUE_CTLS)) {
		pr_err("guise: this processor's VMX is too old\n");
		return -EOPNOTSUPP;
	}

	c->primary = choose("primary", MSR_IA32_VMX_TRUE_PROCBASED_CTLS, PRIMARY_NEEDED,
			    CPU_BASED_MONITOR_TRAP_FLAG);
	if (!c->primary)
		return -EOPNOTSUPP;
	c->step = c->primary & CPU_BASED_MONITOR_TRAP_FLAG;
	/* Windows are opened when something waits for them, single steps are a debugger's. */
	c->primary &= ~(CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_NMI_WINDOW_EXITING |
			CPU_BASED_MONITOR_TRAP_FLAG);
	if (c->primary & PRIMARY_UNWANTED) {
		pr_err("guise: this processor cannot leave CR3 and INVLPG to the guest\n");
		return -EOPNOTSUPP;
	}

	rdmsrl(MSR_IA32_VMX_PROCBASED_CTLS2, secondary);
	if (!((secondary >> 32) & SECONDARY_EXEC_UNRESTRICTED_GUEST)) {
		pr_err("guise: this processor lacks \"unrestricted guest\" (Intel Westmere and "
		       "later have it): "
		       "real mode cannot run\n");
		return -EOPNOTSUPP;
	}
	c->secondary = choose("secondary", MSR_IA32_VMX_PROCBASED_CTLS2,
			      SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_UNRESTRICTED_GUEST,
			      SECONDARY_EXEC_ENABLE_VPID | SECONDARY_EXEC_ENABLE_RDTSCP |
				  SECONDARY_EXEC_ENABLE_INVPCID | SECONDARY_EXEC_WBINVD_EXITING);
	c->pin =
	    choose("pin-based", MSR_IA32_VMX_TRUE_PINBASED_CTLS,
		   PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS, 0);
	c->exit =
	    choose("exit", MSR_IA32_VMX_TRUE_EXIT_CTLS,
		   VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_SAVE_IA32_EFER | VM_EXIT_LOAD_IA32_EFER |
		       VM_EXIT_SAVE_IA32_PAT | VM_EXIT_LOAD_IA32_PAT | VM_EXIT_SAVE_DEBUG_CONTROLS,
		   0);
	c->entry = choose(
	    "entry", MSR_IA32_VMX_TRUE_ENTRY_CTLS,
	    VM_ENTRY_LOAD_IA32_EFER | VM_ENTRY_LOAD_IA32_PAT | VM_ENTRY_LOAD_DEBUG_CONTROLS, 0);
	if (!c->secondary || !c->pin || !c->exit || !c->entry)
		return -EOPNOTSUPP;
	setup_preemption_timer(slice_us);
	return setup_ept();
}

void vmcs_failed(const char *instruction, u64 operand)
{
	/* Outside VMX operation the instruction was not executed, and the flags say nothing. */
	WARN_ONCE(cr4_read_shadow() & X86_CR4_VMXE, "guise: %s of %#llx failed\n", instruction,
		  operand);
}

void vmcs_cpu_init(int cpu)
{
	INIT_LIST_HEAD(&per_cpu(active, cpu));
	per_cpu(current_place, cpu) = NULL;
}

struct vmcs *vmcs_alloc(int node)
{
	struct page *page = alloc_pages_node(node, GFP_KERNEL_ACCOUNT | __GFP_ZERO, 0);
	struct vmcs *vmcs = page ? page_address(page) : NULL;

	if (vmcs)
		vmcs->revision = vmcs_controls.revision;
	return vmcs;
}

/* Interrupts are off: the list is changed by IPIs, too. */
static void clear_here(void *argument)
{
	struct vmcs_place *place = argument;

	if (place->cpu != raw_smp_processor_id())
		return; /* it went while the IPI came */
	vmcs_clear(__pa(place->vmcs));
	if (__this_cpu_read(current_place) == place)
		__this_cpu_write(current_place, NULL);
	list_del(&place->active_on);
	place->launched = false;
	/* Whoever sees cpu == -1 may put it into another processor's list. */
	smp_store_release(&place->cpu, -1);
}

/* The data of a VMCS is in the processor where it is active, and only VMCLEAR there writes it to
 * memory. */
static void clear_anywhere(struct vmcs_place *place)
{
	int cpu = smp_load_acquire(&place->cpu);

	if (cpu >= 0)
		smp_call_function_single(cpu, clear_here, place, 1);
}

void vmcs_clear_all_here(void)
{
	struct vmcs_place *place, *next;

	list_for_each_entry_safe (place, next, this_cpu_ptr(&active), active_on)
		clear_here(place);
}

int vmcs_place_init(struct vmcs_place *place)
{
	place->vmcs = vmcs_alloc(numa_node_id());
	if (!place->vmcs)
		return -ENOMEM;
	place->cpu = -1;
	return 0;
}

void vmcs_place_free(struct vmcs_place *place)
{
	if (!place->vmcs)
		return;
	clear_anywhere(place);
	free_page((unsigned long)place->vmcs);
	place->vmcs = NULL;
}

bool vmcs_load(struct vmcs_place *place)
{
	int cpu = raw_smp_processor_id();
	bool moved = READ_ONCE(place->cpu) != cpu;
	unsigned long flags;

	/* A thread comes by a processor that is being unplugged, or the machine is rebooted: it has
	 * no VMCS until it goes on elsewhere. */
	if (!cpu_enabled())
		return false;
	if (moved) {
		clear_anywhere(place);
		local_irq_save(flags);
		/* A fresh region has to be cleared once before it is loaded (SDM 3C 24.11.3). */
		vmcs_clear(__pa(place->vmcs));
		list_add(&place->active_on, this_cpu_ptr(&active));
		place->launched = false;
		WRITE_ONCE(place->cpu, cpu);
		local_irq_restore(flags);
	}
	if (__this_cpu_read(current_place) != place) {
		vmcs_point_to(__pa(place->vmcs));
		__this_cpu_write(current_place, place);
		host_other_guest();
	}
	return moved;
}
