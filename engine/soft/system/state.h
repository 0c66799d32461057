/*
 * System state seen by instructions and by the API alike: control registers, MSRs, CPUID, segments.
 * Inside unless stated. Functions returning bool or int do not raise; the op or the API decides.
 */
#ifndef GUISE_SOFT_STATE_H
#define GUISE_SOFT_STATE_H

#include "engine/soft/vcpu.h"

/* ---- control registers (system/control.c). Each checks, stores, flushes TLBs as SDM 3A 4.10.4
 * says, and calls vcpu_update_mode(). false: #GP(0). ---- */
bool set_cr0(struct soft_vcpu *v, u64 value);
bool set_cr3(struct soft_vcpu *v, u64 value); /* bit 63: keep entries, if CR4.PCIDE */
bool set_cr4(struct soft_vcpu *v, u64 value);
bool set_cr8(struct soft_vcpu *v, u64 value);
bool set_efer(struct soft_vcpu *v, u64 value);
bool set_xcr0(struct soft_vcpu *v, u64 value);
/** The bits that exist for this guest. */
u64 cr4_known(struct soft_vcpu *v);
u64 efer_known(struct soft_vcpu *v);

/* ---- MSRs (system/msr.c). 0, or -EINVAL: unknown MSR or value that raises #GP(0). @host: from the
 * API, which may also write what the guest may not. ---- */
int msr_read(struct soft_vcpu *v, u32 index, u64 *value, bool host);
int msr_write(struct soft_vcpu *v, u32 index, u64 value, bool host);

/* ---- CPUID (system/cpuid.c) ---- */
void cpuid_query(struct soft_vcpu *v, u32 leaf, u32 subleaf, u32 out[4]);
/** Whether the guest was told of a feature: @reg 0-3 = EAX..EDX of @leaf.@subleaf. */
bool cpuid_has(struct soft_vcpu *v, u32 leaf, u32 subleaf, int reg, int bit);
/** Fills @cpuid with what the engine can offer on this host, which has @layout (xstate_probe()).
 * @tsc_khz 0: nothing about the TSC's frequency and no kvmclock. @vmx: VMX too, on a processor of
 * Intel's whatever the host is. Outside. 0 or -E2BIG. */
int cpuid_supported(struct kvm_cpuid2 *cpuid, u32 tsc_khz, const struct xstate_layout *layout,
		    bool vmx);

/* ---- time (engine/soft/clock.c) ---- */
/** Host TSC frequency in kHz: from the kernel's conversion data or CPUID 15H, else measured (2 ms).
 * The first call may take 15 ms (the kernel patches itself for its first perf event). Outside, any
 * thread. */
u32 clock_tsc_khz(void);
/** CLOCK_MONOTONIC in nanoseconds. Any thread, inside too. */
u64 clock_now(void);
/** CLOCK_MONOTONIC ns and host TSC of one instant, the same for the life of the process: the line
 * that every kvmclock of a VM lies on, so that vCPUs agree. Any thread, inside too. */
void clock_reference(u64 *ns, u64 *tsc);
u64 guest_tsc(const struct soft_vcpu *v);
/** Absolute guest TSC to CLOCK_MONOTONIC ns; in the past: now. */
u64 guest_tsc_to_ns(const struct soft_vcpu *v, u64 tsc);
/** Writes the pvclock page for MSR_KVM_SYSTEM_TIME_NEW (Documentation/virt/kvm/x86/msr.rst). */
void kvmclock_update(struct soft_vcpu *v);
/** Writes the wall clock for MSR_KVM_WALL_CLOCK_NEW at msr.kvm_wall_clock. */
void kvmclock_update_wall(struct soft_vcpu *v);

/* ---- segments (system/segment.c) ---- */

/** Loads @seg from @selector with all checks of MOV/POP Sreg (SDM 2B MOV). Raises. Calls
 * vcpu_update_mode(). */
void load_segment(struct soft_vcpu *v, enum x86_seg seg, u16 selector);
/** Real and virtual-8086 mode: base = selector * 16. @v86 also sets limit and attributes. */
void load_segment_real(struct soft_vcpu *v, enum x86_seg seg, u16 selector);
/** Call after seg[], v->cpl were changed directly: updates the copies and the mode. */
void vcpu_segment_changed(struct soft_vcpu *v);

/* ---- task switch (system/task.c), SDM 3A 7.3 ---- */
enum task_source { TASK_CALL, TASK_JMP, TASK_IRET, TASK_GATE };
/** Switches to the task of TSS @selector; sets v->rip. Raises. @has_error: pushes @error on the new
 * stack. */
void task_switch(struct soft_vcpu *v, u16 selector, enum task_source source, bool has_error,
		 u32 error);

/* ---- KVM API state, outside (engine/soft/state_api.c) ---- */
int soft_get_regs(struct engine_vcpu *vcpu, struct kvm_regs *regs);
int soft_set_regs(struct engine_vcpu *vcpu, const struct kvm_regs *regs);
int soft_get_sregs(struct engine_vcpu *vcpu, struct kvm_sregs *sregs);
int soft_set_sregs(struct engine_vcpu *vcpu, const struct kvm_sregs *sregs);
int soft_get_fpu(struct engine_vcpu *vcpu, struct kvm_fpu *fpu);
int soft_set_fpu(struct engine_vcpu *vcpu, const struct kvm_fpu *fpu);
int soft_get_xsave(struct engine_vcpu *vcpu, struct kvm_xsave *xsave);
int soft_set_xsave(struct engine_vcpu *vcpu, const struct kvm_xsave *xsave);
int soft_get_xcrs(struct engine_vcpu *vcpu, struct kvm_xcrs *xcrs);
int soft_set_xcrs(struct engine_vcpu *vcpu, const struct kvm_xcrs *xcrs);
int soft_get_msrs(struct engine_vcpu *vcpu, struct kvm_msrs *msrs);
int soft_set_msrs(struct engine_vcpu *vcpu, const struct kvm_msrs *msrs);
int soft_set_cpuid(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid);
int soft_get_events(struct engine_vcpu *vcpu, struct kvm_vcpu_events *events);
int soft_set_events(struct engine_vcpu *vcpu, const struct kvm_vcpu_events *events);
int soft_get_debugregs(struct engine_vcpu *vcpu, struct kvm_debugregs *dregs);
int soft_set_debugregs(struct engine_vcpu *vcpu, const struct kvm_debugregs *dregs);
int soft_get_mp_state(struct engine_vcpu *vcpu, struct kvm_mp_state *state);
int soft_set_mp_state(struct engine_vcpu *vcpu, const struct kvm_mp_state *state);
int soft_translate(struct engine_vcpu *vcpu, struct kvm_translation *tr);

#endif
