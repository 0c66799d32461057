// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * VMX operation: every processor enters it (VMXON) when the module is loaded or the processor comes
 * up, and leaves it (VMXOFF) when it goes down, sleeps, reboots, or the module is unloaded.
 *
 * Source: SDM 3C 23.6 to 23.8, 31.5.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/syscore_ops.h>
#include <asm/cpufeature.h>
#include <asm/perf_event.h>
#include <asm/tlbflush.h>

#include "guise.h"
#include "vmcs.h"

/* The VMXON region of each processor: the processor's own scratch memory while it is in VMX
 * operation. */
static DEFINE_PER_CPU(struct vmcs *, vmxon_region);
static DEFINE_PER_CPU(bool, enabled);
static enum cpuhp_state hotplug_state;

bool cpu_enabled(void)
{
	return __this_cpu_read(enabled);
}

static int vmxon(phys_addr_t pa)
{
	/* VMXON faults where firmware has locked VMX out, though CPUID shows it. */
	/* the formatter would tear %l[] apart: */
	/* clang-format off */
	asm volatile goto("1: vmxon %[pa]\n\t" _ASM_EXTABLE(1b, %l[fault])
			  "jbe %l[refused]"
			  :
			  : [pa] "m"(pa)
			  : "cc", "memory"
			  : fault, refused);
	/* clang-format on */
	return 0;
refused:
	pr_err("guise: VMXON refused on processor %d\n", smp_processor_id());
	return -EIO;
fault:
	pr_err("guise: VMXON faults on processor %d: firmware has locked VMX\n",
	       smp_processor_id());
	return -EIO;
}

/* On the processor itself, interrupts off or thread bound to it. */
static int enable_here(void)
{
	int ret;

	if (__this_cpu_read(enabled))
		return 0;
	/* Whoever has set CR4.VMXE is another hypervisor, or will be. */
	if (cr4_read_shadow() & X86_CR4_VMXE) {
		pr_err("guise: another hypervisor uses VMX on this machine; unload it (rmmod "
		       "kvm_intel)\n");
		return -EBUSY;
	}
	intel_pt_handle_vmx(1);
	cr4_set_bits(X86_CR4_VMXE);
	ret = vmxon(__pa(__this_cpu_read(vmxon_region)));
	if (ret) {
		cr4_clear_bits(X86_CR4_VMXE);
		intel_pt_handle_vmx(0);
		return ret;
	}
	/* Neither VMXON nor VMXOFF forgets what was cached of EPTs (SDM 3C 28.3.3.3): of a
	 * hypervisor's before this one, or of guests whose memory was given back while this
	 * processor was away. */
	invept_all();
	__this_cpu_write(enabled, true);
	return 0;
}

static void disable_here(void)
{
	if (!__this_cpu_read(enabled))
		return;
	/* What stays in the processor's cache of VMCSs would be written to memory later. */
	vmcs_clear_all_here();
	asm volatile("vmxoff" ::: "cc", "memory");
	cr4_clear_bits(X86_CR4_VMXE);
	intel_pt_handle_vmx(0);
	__this_cpu_write(enabled, false);
}

static int processor_up(unsigned int cpu)
{
	unsigned long flags;
	int ret;

	local_irq_save(flags);
	ret = enable_here();
	local_irq_restore(flags);
	return ret;
}

static int processor_down(unsigned int cpu)
{
	unsigned long flags;

	local_irq_save(flags);
	disable_here();
	local_irq_restore(flags);
	return 0;
}

static void disable_ipi(void *unused)
{
	disable_here();
}

/* A processor in VMX operation does not take INIT (SDM 3C 23.8), firmware's way to reset it. */
static int on_reboot(struct notifier_block *block, unsigned long event, void *data)
{
	on_each_cpu(disable_ipi, NULL, 1);
	return NOTIFY_OK;
}

static struct notifier_block reboot_block = {.notifier_call = on_reboot};

/* Sleep: the other processors have been unplugged, this one is left. */
static int on_suspend(void)
{
	disable_here();
	return 0;
}

static void on_resume(void)
{
	enable_here();
}

static struct syscore_ops sleep_operations = {.suspend = on_suspend, .resume = on_resume};

static void free_regions(void)
{
	int cpu;

	for_each_possible_cpu (cpu) {
		free_page((unsigned long)per_cpu(vmxon_region, cpu));
		per_cpu(vmxon_region, cpu) = NULL;
	}
}

int cpu_enable_all(void)
{
	int cpu, ret;

	for_each_possible_cpu (cpu) {
		struct vmcs *region = vmcs_alloc(cpu_to_node(cpu));

		if (!region) {
			free_regions();
			return -ENOMEM;
		}
		per_cpu(vmxon_region, cpu) = region;
		vmcs_cpu_init(cpu);
	}
	/* Calls processor_up() on every processor, now and whenever one comes; undoes it on
	 * failure. */
	ret = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "guise:online", processor_up, processor_down);
	if (ret < 0) {
		free_regions();
		return ret;
	}
	hotplug_state = ret;
	preempt_notifier_inc();
	register_reboot_notifier(&reboot_block);
	register_syscore_ops(&sleep_operations);
	return 0;
}

void cpu_disable_all(void)
{
	unregister_syscore_ops(&sleep_operations);
	unregister_reboot_notifier(&reboot_block);
	preempt_notifier_dec();
	cpuhp_remove_state(hotplug_state);
	free_regions();
}
