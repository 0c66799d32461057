// SPDX-License-Identifier: MIT OR GPL-2.0
/* Loading and unloading. Every open file of the module's holds it, so it cannot be unloaded while
 * in use. */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <asm/cpufeature.h>

#include "guise.h"

/*
 * The host's timer interrupt ends a guest's turn, so nothing more is needed. Bochs 2.7 however does
 * not deliver interrupts while host and guest have IF off at the entry; there this bounds a turn.
 */
static unsigned int slice_us;
module_param(slice_us, uint, 0444);
MODULE_PARM_DESC(
    slice_us, "microseconds after which a guest is left at the latest; 0: when something happens");

static struct miscdevice device = {
    .minor = MISC_DYNAMIC_MINOR,
    .name = "guise",
    .fops = &system_operations,
    .mode = 0600,
};

static int __init guise_init(void)
{
	int ret;

	if (!boot_cpu_has(X86_FEATURE_VMX)) {
		pr_err("guise: this processor has no VMX, or firmware has locked it\n");
		return -ENODEV;
	}
	ret = vmcs_setup_controls(slice_us);
	if (ret)
		return ret;
	ret = msr_setup();
	if (ret)
		return ret;
	host_setup();
	ret = cpu_enable_all();
	if (ret)
		goto fail_enable;
	ret = misc_register(&device);
	if (ret)
		goto fail_register;
	return 0;

fail_register:
	cpu_disable_all();
fail_enable:
	msr_cleanup();
	return ret;
}

static void __exit guise_exit(void)
{
	misc_deregister(&device);
	cpu_disable_all();
	msr_cleanup();
}

module_init(guise_init);
module_exit(guise_exit);

MODULE_DESCRIPTION("Guise's hypervisor: a small VMX hypervisor with KVM's interface");
MODULE_LICENSE("Dual MIT/GPL");
