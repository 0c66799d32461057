// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The host's state that VMX does not switch, or that changes while a vCPU is loaded.
 *
 * Cheap things are deferred. What the kernel needs at once is in the VMCS's host-state area and
 * loaded at each exit (SDM 3C 27.5). What only user mode needs (lazy_msrs[], data segment
 * selectors) changes hands when the thread gets and loses the processor. Vector registers change
 * hands once a KVM_RUN, by the kernel's own means.
 */
#include <asm/cpu_entry_area.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xcr.h>
#include <asm/fsgsbase.h>
#include <asm/mmu_context.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>
#include <asm/tlbflush.h>

#include "guise.h"
#include "vmcs.h"

const u32 lazy_msrs[LAZY_COUNT] = {
    [LAZY_KERNEL_GS_BASE] = MSR_KERNEL_GS_BASE,
    [LAZY_STAR] = MSR_STAR,
    [LAZY_LSTAR] = MSR_LSTAR,
    [LAZY_CSTAR] = MSR_CSTAR,
    [LAZY_SYSCALL_MASK] = MSR_SYSCALL_MASK,
    [LAZY_TSC_AUX] = MSR_TSC_AUX,
};

/*
 * Speculation (Documentation/admin-guide/hw-vuln): what the kernel has chosen for its own exits to
 * user mode holds for guests, too. Here are flushes of the L1 cache and of predictions between
 * vCPUs; switch.S has what must be next to the entry and the exit.
 */
static DEFINE_STATIC_KEY_FALSE(flush_l1d);

void host_setup(void)
{
	if (boot_cpu_has_bug(X86_BUG_L1TF) && boot_cpu_has(X86_FEATURE_FLUSH_L1D) &&
	    l1tf_mitigation != L1TF_MITIGATION_OFF)
		static_branch_enable(&flush_l1d);
}

/* One guest must not train the predictions of another's. */
void host_other_guest(void)
{
	indirect_branch_prediction_barrier();
}

/* Called by the world switch before its first RET. A processor whose IBRS is switched at each entry
 * to the kernel has to be told that this is one. */
void host_restrict_speculation(void)
{
	if (cpu_feature_enabled(X86_FEATURE_KERNEL_IBRS))
		native_wrmsrl(MSR_IA32_SPEC_CTRL, spec_ctrl_current());
	barrier_nospec();
}

/* What is the same on every processor and at all times. */
void host_init_vmcs(void)
{
	struct desc_ptr idt;
	u64 value;

	vmcs_write(HOST_CR0, read_cr0() & ~X86_CR0_TS);
	vmcs_write(HOST_RIP, (unsigned long)world_switch_exit);
	store_idt(&idt);
	vmcs_write(HOST_IDTR_BASE, idt.address);
	/* RPL and TI have to be 0 (SDM 3C 26.2.3); host_from_guest() restores user mode's. */
	vmcs_write(HOST_CS_SELECTOR, __KERNEL_CS);
	vmcs_write(HOST_SS_SELECTOR, __KERNEL_DS);
	vmcs_write(HOST_DS_SELECTOR, 0);
	vmcs_write(HOST_ES_SELECTOR, 0);
	vmcs_write(HOST_FS_SELECTOR, 0);
	vmcs_write(HOST_GS_SELECTOR, 0);
	vmcs_write(HOST_TR_SELECTOR, GDT_ENTRY_TSS * 8);
	rdmsrl(MSR_IA32_SYSENTER_CS, value);
	vmcs_write(HOST_IA32_SYSENTER_CS, (u32)value);
	rdmsrl(MSR_IA32_SYSENTER_EIP, value);
	vmcs_write(HOST_IA32_SYSENTER_EIP, value);
	rdmsrl(MSR_EFER, value);
	vmcs_write(HOST_IA32_EFER, value);
	rdmsrl(MSR_IA32_CR_PAT, value);
	vmcs_write(HOST_IA32_PAT, value);
}

/* A processor without RDTSCP has no TSC_AUX. */
static bool has_lazy(enum lazy_msr which)
{
	return which != LAZY_TSC_AUX || boot_cpu_has(X86_FEATURE_RDTSCP);
}

/* What each processor has of its own. Preemption is off; the lazy MSRs are the host's. */
void host_moved(struct vcpu *v)
{
	int cpu = raw_smp_processor_id();
	u64 value;

	vmcs_write(HOST_TR_BASE, (unsigned long)&get_cpu_entry_area(cpu)->tss.x86_tss);
	vmcs_write(HOST_GDTR_BASE, (unsigned long)get_cpu_gdt_ro(cpu));
	rdmsrl(MSR_IA32_SYSENTER_ESP, value);
	vmcs_write(HOST_IA32_SYSENTER_ESP, value);
	rdmsrl(MSR_GS_BASE, value);
	vmcs_write(HOST_GS_BASE, value);
	/* The kernel sets these once a processor, but for the user's GS base. */
	for (int i = 0; i < LAZY_COUNT; i++)
		if (i != LAZY_KERNEL_GS_BASE && has_lazy(i))
			rdmsrl(lazy_msrs[i], v->host.msr[i]);
}

/* The vCPU gets this processor. Preemption is off. */
void host_to_guest(struct vcpu *v)
{
	struct host_state *host = &v->host;

	savesegment(ds, host->ds);
	savesegment(es, host->es);
	savesegment(fs, host->fs);
	savesegment(gs, host->gs);
	store_ldt(host->ldt);
	rdmsrl(MSR_FS_BASE, host->fs_base);
	vmcs_write(HOST_FS_BASE, host->fs_base);
	rdmsrl(MSR_KERNEL_GS_BASE, host->msr[LAZY_KERNEL_GS_BASE]);
	for (int i = 0; i < LAZY_COUNT; i++)
		if (has_lazy(i) && host->msr[i] != v->lazy[i])
			wrmsrl(lazy_msrs[i], v->lazy[i]);
	host->xcr0 = boot_cpu_has(X86_FEATURE_XSAVE) ? xgetbv(XCR_XFEATURE_ENABLED_MASK) : 0;
	host->debugctl = get_debugctlmsr();
	host->loaded = true;
}

/* It loses it: the thread sleeps, is preempted, or returns to user mode. Preemption is off. */
void host_from_guest(struct vcpu *v)
{
	struct host_state *host = &v->host;

	if (!host->loaded)
		return;
	/* The guest writes KERNEL_GS_BASE without an exit, by SWAPGS. */
	rdmsrl(MSR_KERNEL_GS_BASE, v->lazy[LAZY_KERNEL_GS_BASE]);
	for (int i = 0; i < LAZY_COUNT; i++)
		if (i != LAZY_KERNEL_GS_BASE && has_lazy(i) && host->msr[i] != v->lazy[i])
			wrmsrl(lazy_msrs[i], host->msr[i]);
	/* Exits leave LDTR without a table, and segment registers null (SDM 3C 27.5.2). 64-bit
	 * programs have that anyway. */
	if (host->ldt)
		asm volatile("lldt %0" : : "m"(host->ldt));
	if (host->ds | host->es) {
		loadsegment(ds, host->ds);
		loadsegment(es, host->es);
	}
	if (host->fs)
		loadsegment(fs, host->fs);
	if (host->gs)
		load_gs_index(host->gs);
	/* Loading a selector changes the base, too: bases come last. */
	wrmsrl(MSR_FS_BASE, host->fs_base);
	wrmsrl(MSR_KERNEL_GS_BASE, host->msr[LAZY_KERNEL_GS_BASE]);
	/* They leave TR with a limit without I/O bitmap, and GDTR with one of 64 KiB, by which user
	 * mode could look behind the table. */
	invalidate_tss_limit();
	load_fixmap_gdt(raw_smp_processor_id());
	host->loaded = false;
}

/* A register that is written only if it changed, as writing it costs more than to look. */
static void update_field(unsigned long field, unsigned long *written, unsigned long value)
{
	if (*written == value)
		return;
	vmcs_write(field, value);
	*written = value;
}

/* XSETBV is slow, so it waits until the guest has switched XCR0 on. No exit is handled between the
 * two calls. */
static bool switches_xcr0(const struct vcpu *v)
{
	return (v->cr4_shadow & X86_CR4_OSXSAVE) && v->xcr0 != v->host.xcr0;
}

/* Right before an entry; interrupts are off. */
void host_before_entry(struct vcpu *v)
{
	struct host_state *host = &v->host;

	/* A softirq may have used the vector registers since the last exit. */
	if (test_thread_flag(TIF_NEED_FPU_LOAD))
		switch_fpu_return();
	/* CR3 changes with the address space's PCID, CR4 with perf and others. */
	update_field(HOST_CR3, &host->cr3, __get_current_cr3_fast());
	update_field(HOST_CR4, &host->cr4, cr4_read_shadow());
	if (switches_xcr0(v))
		xsetbv(XCR_XFEATURE_ENABLED_MASK, v->xcr0);
	if (v->cr2 != native_read_cr2())
		native_write_cr2(v->cr2);
	debug_before_entry(v);
	/* L1 terminal fault: nothing of the host's is left in the L1 cache where a guest's
	 * speculation could find it. */
	if (static_branch_unlikely(&flush_l1d))
		wrmsrl(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
}

/* Right after an exit; interrupts are off. */
void host_after_exit(struct vcpu *v)
{
	struct host_state *host = &v->host;

	v->cr2 = native_read_cr2();
	/* Exits clear it (SDM 3C 27.5.1). */
	if (host->debugctl)
		update_debugctlmsr(host->debugctl);
	debug_after_exit(v);
	if (switches_xcr0(v))
		xsetbv(XCR_XFEATURE_ENABLED_MASK, host->xcr0);
}
