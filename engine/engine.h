/*
 * The engine contract: what the monitor asks of a processor.
 *
 * An engine is a KVM: the vocabulary is <linux/kvm.h>, and where this file is silent,
 * Documentation/virt/kvm/api.rst of the Linux kernel decides. Two engines exist: `kvm` (over
 * /dev/kvm) and `soft` (the software processor). The monitor never asks which one runs.
 *
 * Conventions
 *  - Results: 0 or a non-negative value on success, a negative errno on failure. Functions whose
 *    failure a person should hear about take a struct error.
 *  - Addresses: gpa = guest-physical, bytes. hva = host-virtual pointer.
 *  - Threads: functions on a VM may be called by any thread unless stated. Functions on a vCPU are
 *    called by the thread that runs it, or while it is not running, except vcpu_kick().
 *  - The interrupt chips (LAPIC, IOAPIC, PIC, PIT) live in the engine.
 */
#ifndef GUISE_ENGINE_ENGINE_H
#define GUISE_ENGINE_ENGINE_H

#include <linux/kvm.h>

#include "base/types.h"
#include "engine/vmx_reasons.h"

struct error;
struct engine;

/** A virtual machine. Engines embed it as the first member of their own structure. */
struct engine_vm {
	const struct engine *engine;
};

/** A virtual processor. Engines embed it as the first member of their own structure. */
struct engine_vcpu {
	const struct engine *engine;
	struct engine_vm *vm;
	u32 id;		     /* APIC id; 0 is the bootstrap processor */
	struct kvm_run *run; /* exit record; valid between vcpu_run() calls, owned by the engine */
};

#define ENGINE_VMCS_FIELDS_MAX 256
#define ENGINE_VMCS_NONE       (~0ull)

struct engine_vmcs_field {
	const char *name; /* the engine's, for ever */
	u32 encoding;	  /* SDM 3D appendix B: width, group, index */
	u64 value;
};

/** A hypervisor in the guest, to be looked at: see vcpu_get_vmx(). */
struct engine_vmx {
	bool on;       /* VMX operation, between VMXON and VMXOFF */
	bool nonroot;  /* its guest runs: registers are that guest's, and the VMCS' guest state is
			* what it was at the last VM entry */
	bool launched; /* launch state of the current VMCS */
	u64 vmcs;      /* gpa of the current VMCS' region, or ENGINE_VMCS_NONE */
	u64 eptp; /* the EPT pointer by which registers' addresses are translated once more; 0: none
		   */
	u32 field_count; /* 0 without a current VMCS */
	struct engine_vmcs_field fields[ENGINE_VMCS_FIELDS_MAX];
	char failure[192]; /* the last VM entry that failed: check, field, value; empty: none has */
	u64 entries_since; /* how many have succeeded since then */
	u32 abort;	   /* the VMX abort (SDM 3C 28.7) that the vCPU shut down for; 0: none */
};

/** Why an engine can or cannot be used here. */
struct engine_probe {
	bool usable;
	bool emulated;	  /* usable, but kernel-mode code is surely emulated: not worth measuring */
	char reason[256]; /* one line: version and features if usable, else what is missing and the
			     mend */
};

/* Of a hypervisor in the guest, by reason: exits, and nanoseconds from each to the next entry. They
 * have a table of their own. */
#define VMX_COUNTER(X, name, number, text) X(vmx_##name, NULL)
#define VMX_TIME(X, name, number, text)	   X(vmx_ns_##name, NULL)

/*
 * Counters, shown by --stats. One list feeds the structure, the table and its order.
 * name, what it counts; NULL: not shown by itself
 */
#define ENGINE_COUNTERS(X)                                                                         \
	X(exits_full, "exits to the monitor")                                                      \
	X(exits_light, "exits handled inside the engine")                                          \
	X(exit_io, "port I/O exits")                                                               \
	X(exit_mmio, "MMIO exits")                                                                 \
	X(exit_hlt, "HLT")                                                                         \
	X(exit_intr, "exits by kick or signal")                                                    \
	X(exit_other, "other exits")                                                               \
	X(interrupts, "interrupts delivered")                                                      \
	X(exceptions, "exceptions delivered")                                                      \
	X(page_faults, "page faults delivered")                                                    \
	X(blocks_translated, "blocks translated")                                                  \
	X(insns_translated, "guest instructions translated")                                       \
	X(code_bytes, "bytes of host code emitted")                                                \
	X(blocks_invalidated, "blocks thrown away (writes to code)")                               \
	X(blocks_evicted, "blocks thrown away (to make room)")                                     \
	X(cache_flushes, "code cache flushes")                                                     \
	X(dispatches, "times the dispatcher chose a block")                                        \
	X(dispatches_direct, "of these, for direct jumps between blocks not yet linked")           \
	X(dispatches_indirect, "of these, for jumps that missed the jump cache")                   \
	X(tlb_misses, "TLB misses")                                                                \
	X(tlb_flushes, "TLB flushes")                                                              \
	X(shadow_maps, "mappings made in shadow spaces")                                           \
	X(shadow_alone, "instructions that could not use theirs")                                  \
	X(shadow_checks, "times that one was compared with the page tables")                       \
	X(shadow_lost, "times that a program lost its own")                                        \
	X(vmx_entries, "VM entries of a hypervisor in the guest")                                  \
	X(vmx_failures, "VM entries that failed")                                                  \
	X(vmx_exits, "VM exits to it")                                                             \
	VMX_REASONS(VMX_COUNTER, X)                                                                \
	X(vmx_ns_nonroot, "nanoseconds in its guests")                                             \
	VMX_REASONS(VMX_TIME, X)                                                                   \
	X(ns_guest, "nanoseconds running guest code")                                              \
	X(ns_translate, "nanoseconds translating")                                                 \
	X(ns_halted, "nanoseconds halted")                                                         \
	X(ns_monitor, "nanoseconds outside the engine")

struct engine_stats {
#define X(name, what) u64 name;
	ENGINE_COUNTERS(X)
#undef X
};

struct engine {
	const char *name; /* as given to --engine */

	/* What "tune" of vm_set_option() takes, a line each, for --help; NULL: nothing. */
	const char *tune_help;

	/**
	 * Finds out whether the engine works here. Cheap (microseconds), no side effects.
	 * @device: as for vm_create().
	 */
	void (*probe)(const char *device, struct engine_probe *out);

	/**
	 * Creates an empty VM: no memory, no interrupt chips, no vCPUs. @device: the file of a
	 * driver with KVM's interface, which stays valid, or NULL for /dev/kvm (soft has none).
	 * Returns 0 and *out, or a negative errno with @err (-ENOENT/-EACCES: no engine here).
	 * kvm: includes KVM_SET_TSS_ADDR and the identity map, as VMX without unrestricted guest
	 * needs them (api.rst 4.40, 4.41).
	 */
	int (*vm_create)(const char *device, struct engine_vm **out, struct error *err);

	/**
	 * Sets something that is the engine's own, by name, before the first vCPU:
	 *   soft  "tune": NAME=on|off[,...] (engine/soft/tune.h); "code-cache": bytes, a decimal
	 *         number, for the translated code of each vCPU; "perf": "map" or "jitdump", names
	 *         of that code for Linux's perf (engine/soft/translate/perf_map.h); "cpu": "host",
	 *         or "host,+vmx" with Intel's VMX for hypervisors in the guest
	 *   kvm   "cpu": "host"
	 *   both  "stats": "on", counters that cost time are wanted too
	 * Returns 0, or -EINVAL with @err: a name or value that this engine does not know.
	 */
	int (*vm_set_option)(struct engine_vm *vm, const char *name, const char *value,
			     struct error *err);

	/** Frees the VM. Every vCPU was destroyed before. Guest memory stays the caller's. */
	void (*vm_destroy)(struct engine_vm *vm);

	/**
	 * KVM_CHECK_EXTENSION. Returns the capability's value; 0: absent.
	 */
	int (*vm_check_extension)(struct engine_vm *vm, int capability);

	/**
	 * KVM_SET_USER_MEMORY_REGION (api.rst 4.35): adds, moves or (size 0) deletes a slot. Flags:
	 * KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES. The memory at userspace_addr stays valid while
	 * the slot exists. Precondition: no vCPU is running. -EINVAL: unaligned; -EEXIST: overlap.
	 */
	int (*vm_set_memory)(struct engine_vm *vm,
			     const struct kvm_userspace_memory_region *region);

	/**
	 * The memory of @slot is a shared mapping of @fd from @offset (bytes, whole pages) on, and
	 * stays so while the slot exists: the engine may map it in other places too. Makes programs
	 * in the guest faster on soft; kvm: nothing to do. Precondition: no vCPU exists. -ENOENT:
	 * no such slot; -EINVAL: @offset.
	 */
	int (*vm_memory_file)(struct engine_vm *vm, u32 slot, int fd, u64 offset);

	/**
	 * Bytes [@gpa, @gpa + @size) of the slots' memory have been written by other than vCPUs
	 * (the monitor, a device) since the first vCPU was created: if they are code, the vCPUs run
	 * the new one from now on, those in vcpu_run() from soon on. To be called after the
	 * writing, before the guest is told of it. Any thread, while no slot changes. kvm: nothing
	 * to do.
	 */
	void (*vm_memory_written)(struct engine_vm *vm, u64 gpa, u64 size);

	/** KVM_CREATE_IRQCHIP: LAPICs, IOAPIC (24 pins), two PICs. Before the first vCPU. */
	int (*vm_create_irqchip)(struct engine_vm *vm);

	/** KVM_CREATE_PIT2. After vm_create_irqchip(). */
	int (*vm_create_pit)(struct engine_vm *vm, const struct kvm_pit_config *config);

	/**
	 * KVM_IRQ_LINE: sets the level (0 or 1) of a GSI. GSI 0-15 reach PIC and IOAPIC, 16-23 the
	 * IOAPIC alone; ISA IRQ 0 is IOAPIC pin 2. Any thread, never blocks for long.
	 */
	int (*vm_irq_line)(struct engine_vm *vm, u32 gsi, int level);

	/** KVM_SIGNAL_MSI. Returns >0 delivered, 0 blocked by the guest, or a negative errno. */
	int (*vm_signal_msi)(struct engine_vm *vm, const struct kvm_msi *msi);

	/** KVM_GET_IRQCHIP / KVM_SET_IRQCHIP, by chip->chip_id. */
	int (*vm_get_irqchip)(struct engine_vm *vm, struct kvm_irqchip *chip);
	int (*vm_set_irqchip)(struct engine_vm *vm, const struct kvm_irqchip *chip);

	/** KVM_GET_PIT2 / KVM_SET_PIT2. */
	int (*vm_get_pit)(struct engine_vm *vm, struct kvm_pit_state2 *pit);
	int (*vm_set_pit)(struct engine_vm *vm, const struct kvm_pit_state2 *pit);

	/** KVM_GET_CLOCK: guest's kvmclock in nanoseconds. */
	int (*vm_get_clock)(struct engine_vm *vm, struct kvm_clock_data *clock);
	int (*vm_set_clock)(struct engine_vm *vm, const struct kvm_clock_data *clock);

	/**
	 * KVM_GET_SUPPORTED_CPUID: what a guest may be told. @cpuid->nent is the room, and on
	 * success the number of entries. -E2BIG: too little room.
	 */
	int (*vm_get_supported_cpuid)(struct engine_vm *vm, struct kvm_cpuid2 *cpuid);

	/**
	 * Creates vCPU @id in the architectural state after reset (SDM vol. 3A 9.1.1), runnable if
	 * id is 0, else waiting for INIT-SIPI. Returns 0 and *out. Call on the thread that will run
	 * it, and whose signal mask stays as it is from the first vcpu_run() on.
	 */
	int (*vcpu_create)(struct engine_vm *vm, u32 id, struct engine_vcpu **out,
			   struct error *err);
	void (*vcpu_destroy)(struct engine_vcpu *vcpu);

	/**
	 * KVM_RUN. Enters the guest; returns when the monitor must act.
	 *   0        vcpu->run->exit_reason says why: KVM_EXIT_IO, KVM_EXIT_MMIO (data to be filled
	 * in for reads before the next call completes the instruction), KVM_EXIT_SHUTDOWN (triple
	 * fault), KVM_EXIT_HLT (only without irqchip, or when the guest halts with nothing that
	 * could ever wake it: soft reports this, KVM sleeps), KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY,
	 * KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_SYSTEM_EVENT -EINTR   a kick,
	 * or run->immediate_exit was set; guest state is consistent; call again -EAGAIN  the vCPU
	 * waits for a SIPI and was kicked other    host-side failure; the vCPU cannot go on A
	 * pending MMIO or IO completion is carried out before immediate_exit is honoured, as in
	 * KVM.
	 */
	int (*vcpu_run)(struct engine_vcpu *vcpu);

	/**
	 * Makes a vcpu_run() in progress on another thread, or else the next one, return -EINTR
	 * soon. Sets run->immediate_exit, which the monitor clears before it runs the vCPU again.
	 * Never lost. Any thread, async-signal-safe.
	 */
	void (*vcpu_kick)(struct engine_vcpu *vcpu);

	int (*vcpu_get_regs)(struct engine_vcpu *vcpu, struct kvm_regs *regs);
	int (*vcpu_set_regs)(struct engine_vcpu *vcpu, const struct kvm_regs *regs);
	int (*vcpu_get_sregs)(struct engine_vcpu *vcpu, struct kvm_sregs *sregs);
	/** -EINVAL for states the processor cannot be in (reserved CR bits, LMA without LME ...).
	 */
	int (*vcpu_set_sregs)(struct engine_vcpu *vcpu, const struct kvm_sregs *sregs);
	int (*vcpu_get_fpu)(struct engine_vcpu *vcpu, struct kvm_fpu *fpu);
	int (*vcpu_set_fpu)(struct engine_vcpu *vcpu, const struct kvm_fpu *fpu);
	int (*vcpu_get_xsave)(struct engine_vcpu *vcpu, struct kvm_xsave *xsave);
	int (*vcpu_set_xsave)(struct engine_vcpu *vcpu, const struct kvm_xsave *xsave);
	int (*vcpu_get_xcrs)(struct engine_vcpu *vcpu, struct kvm_xcrs *xcrs);
	int (*vcpu_set_xcrs)(struct engine_vcpu *vcpu, const struct kvm_xcrs *xcrs);
	/** Return the number of MSRs handled from the start of the list, as KVM does. */
	int (*vcpu_get_msrs)(struct engine_vcpu *vcpu, struct kvm_msrs *msrs);
	int (*vcpu_set_msrs)(struct engine_vcpu *vcpu, const struct kvm_msrs *msrs);
	int (*vcpu_set_cpuid)(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid);
	int (*vcpu_get_lapic)(struct engine_vcpu *vcpu, struct kvm_lapic_state *lapic);
	int (*vcpu_set_lapic)(struct engine_vcpu *vcpu, const struct kvm_lapic_state *lapic);
	int (*vcpu_get_events)(struct engine_vcpu *vcpu, struct kvm_vcpu_events *events);
	int (*vcpu_set_events)(struct engine_vcpu *vcpu, const struct kvm_vcpu_events *events);
	int (*vcpu_get_debugregs)(struct engine_vcpu *vcpu, struct kvm_debugregs *dregs);
	int (*vcpu_set_debugregs)(struct engine_vcpu *vcpu, const struct kvm_debugregs *dregs);
	/**
	 * KVM_SET_GUEST_DEBUG (api.rst 4.87), for the monitor's debugger. While KVM_GUESTDBG_ENABLE
	 * is set vcpu_run() returns KVM_EXIT_DEBUG, with run->debug.arch.pc the linear RIP:
	 *   SINGLESTEP  behind each instruction, or behind the delivery of an event: exception 1,
	 *               dr6.BS; with BLOCKIRQ no interrupt comes in between
	 *   USE_SW_BP   at each INT3, before it does anything: exception 3
	 *   USE_HW_BP   at the breakpoints of debugreg[0..3] and [7]: exception 1, dr6.B0 to B3;
	 * RIP at the instruction for those on execution, behind it for those on data Exits may also
	 * be for #DB and #BP of the guest's own (KVM reports every #DB while it steps or watches):
	 * who finds no reason of its own hands them back with INJECT_DB (and DR6 set before) or
	 * INJECT_BP, which act once. On kvm the guest's own breakpoints rest while USE_HW_BP is on;
	 * on soft both are in force, and nothing of the debugger's shows in the guest's registers.
	 * KVM_CAP_SET_GUEST_DEBUG2 tells the flags. -EINVAL: others (KVM may let them pass);
	 * -EBUSY: an exception waits already, none can be injected.
	 */
	int (*vcpu_set_guest_debug)(struct engine_vcpu *vcpu, const struct kvm_guest_debug *debug);
	int (*vcpu_get_mp_state)(struct engine_vcpu *vcpu, struct kvm_mp_state *state);
	int (*vcpu_set_mp_state)(struct engine_vcpu *vcpu, const struct kvm_mp_state *state);

	/** KVM_INTERRUPT: queues an external vector (0-255); without irqchip only (-ENXIO else). */
	int (*vcpu_interrupt)(struct engine_vcpu *vcpu, u32 vector);
	/** KVM_NMI: any thread. */
	int (*vcpu_nmi)(struct engine_vcpu *vcpu);
	/** KVM_TRANSLATE: linear to gpa by the vCPU's current tables; sets tr->valid. */
	int (*vcpu_translate)(struct engine_vcpu *vcpu, struct kvm_translation *tr);

	/**
	 * VMX as a hypervisor in the guest uses it, for debuggers and dumps: it changes nothing.
	 * -EOPNOTSUPP: the engine cannot tell (kvm; soft without "cpu" host,+vmx).
	 */
	int (*vcpu_get_vmx)(struct engine_vcpu *vcpu, struct engine_vmx *vmx);

	/** Adds this vCPU's counters to @stats. */
	void (*vcpu_stats)(struct engine_vcpu *vcpu, struct engine_stats *stats);
};

extern const struct engine engine_kvm;
extern const struct engine engine_soft;

/** The engines, in the order in which `auto` prefers them where both are equally good; NULL ends.
 */
extern const struct engine *const engines[];

/** The engine called @name, or NULL. */
const struct engine *engine_by_name(const char *name);

#endif
