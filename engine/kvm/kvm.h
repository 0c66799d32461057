/*
 * The kvm engine's own structures. Private to this directory.
 *
 * Vocabulary: Documentation/virt/kvm/api.rst of the Linux kernel.
 */
#ifndef GUISE_ENGINE_KVM_KVM_H
#define GUISE_ENGINE_KVM_KVM_H

#include <stdatomic.h>

#include "engine/engine.h"

/*
 * Guest-physical pages that VMX without unrestricted guest takes for itself: one page of identity
 * mapping (api.rst 4.41, KVM_SET_IDENTITY_MAP_ADDR) and three of TSS (api.rst 4.40,
 * KVM_SET_TSS_ADDR). Below 4 GiB, away from RAM, the APICs (0xfec00000, 0xfee00000) and a 256 KiB
 * firmware at the top.
 */
#define KVM_IDENTITY_MAP_GPA 0xfffbc000ull
#define KVM_TSS_GPA	     0xfffbd000ull

struct kvm_vm {
	struct engine_vm base;
	int system_fd; /* /dev/kvm */
	int fd;
	u32 run_bytes; /* size of the mapping of struct kvm_run */
	bool irqchip;
};

struct kvm_vcpu {
	struct engine_vcpu base;
	int fd;
	_Atomic int thread; /* tid of the thread inside vcpu_run(), or 0 */
	int unblocked;	    /* tid of the thread whose signal mask lets the kick through, or 0 */
	u64 left_ns;	    /* when vcpu_run() last returned, CLOCK_MONOTONIC; 0: never ran */
	struct engine_stats stats;
};

static inline struct kvm_vm *to_kvm_vm(struct engine_vm *vm)
{
	return container_of(vm, struct kvm_vm, base);
}

static inline struct kvm_vcpu *to_kvm_vcpu(struct engine_vcpu *vcpu)
{
	return container_of(vcpu, struct kvm_vcpu, base);
}

/** ioctl(2), with failure as a negative errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

/** As kvm_ioctl(), for requests whose argument is a number. */
int kvm_ioctl_value(int fd, unsigned long request, unsigned long value);

/* device.c */

/** See struct engine. */
void kvm_probe(const char *device, struct engine_probe *out);

/**
 * Opens @device, or /dev/kvm if it is NULL, and checks that it can do what this engine needs.
 * Returns the descriptor, or a negative errno with @err.
 */
int kvm_open(const char *device, struct error *err);

/* kick.c */

/** Installs the handler of the kick signal, once a process. Returns 0 or a negative errno. */
int kvm_kick_setup(void);

/** Lets the kick signal through to the calling thread. */
void kvm_kick_unblock(void);

void kvm_vcpu_kick(struct engine_vcpu *vcpu);

/* vm.c */

int kvm_vm_create(const char *device, struct engine_vm **out, struct error *err);
int kvm_vm_set_option(struct engine_vm *vm, const char *name, const char *value, struct error *err);
void kvm_vm_destroy(struct engine_vm *vm);
int kvm_vm_check_extension(struct engine_vm *vm, int capability);
int kvm_vm_set_memory(struct engine_vm *vm, const struct kvm_userspace_memory_region *region);
int kvm_vm_memory_file(struct engine_vm *vm, u32 slot, int fd, u64 offset);
void kvm_vm_memory_written(struct engine_vm *vm, u64 gpa, u64 size);
int kvm_vm_create_irqchip(struct engine_vm *vm);
int kvm_vm_create_pit(struct engine_vm *vm, const struct kvm_pit_config *config);
int kvm_vm_irq_line(struct engine_vm *vm, u32 gsi, int level);
int kvm_vm_signal_msi(struct engine_vm *vm, const struct kvm_msi *msi);
int kvm_vm_get_irqchip(struct engine_vm *vm, struct kvm_irqchip *chip);
int kvm_vm_set_irqchip(struct engine_vm *vm, const struct kvm_irqchip *chip);
int kvm_vm_get_pit(struct engine_vm *vm, struct kvm_pit_state2 *pit);
int kvm_vm_set_pit(struct engine_vm *vm, const struct kvm_pit_state2 *pit);
int kvm_vm_get_clock(struct engine_vm *vm, struct kvm_clock_data *clock);
int kvm_vm_set_clock(struct engine_vm *vm, const struct kvm_clock_data *clock);
int kvm_vm_get_supported_cpuid(struct engine_vm *vm, struct kvm_cpuid2 *cpuid);

/* vcpu.c */

int kvm_vcpu_create(struct engine_vm *vm, u32 id, struct engine_vcpu **out, struct error *err);
void kvm_vcpu_destroy(struct engine_vcpu *vcpu);
int kvm_vcpu_run(struct engine_vcpu *vcpu);
int kvm_vcpu_interrupt(struct engine_vcpu *vcpu, u32 vector);
int kvm_vcpu_nmi(struct engine_vcpu *vcpu);
int kvm_vcpu_translate(struct engine_vcpu *vcpu, struct kvm_translation *tr);
int kvm_vcpu_get_vmx(struct engine_vcpu *vcpu, struct engine_vmx *vmx);
void kvm_vcpu_stats(struct engine_vcpu *vcpu, struct engine_stats *stats);

/*
 * state.c: the parts of a vCPU's state that are read and written by one ioctl each.
 * name in the contract, structure, ioctl to read, ioctl to write
 */
#define KVM_VCPU_STATES(X)                                                                         \
	X(regs, struct kvm_regs, KVM_GET_REGS, KVM_SET_REGS)                                       \
	X(sregs, struct kvm_sregs, KVM_GET_SREGS, KVM_SET_SREGS)                                   \
	X(fpu, struct kvm_fpu, KVM_GET_FPU, KVM_SET_FPU)                                           \
	X(xsave, struct kvm_xsave, KVM_GET_XSAVE, KVM_SET_XSAVE)                                   \
	X(xcrs, struct kvm_xcrs, KVM_GET_XCRS, KVM_SET_XCRS)                                       \
	X(msrs, struct kvm_msrs, KVM_GET_MSRS, KVM_SET_MSRS)                                       \
	X(lapic, struct kvm_lapic_state, KVM_GET_LAPIC, KVM_SET_LAPIC)                             \
	X(events, struct kvm_vcpu_events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS)                \
	X(debugregs, struct kvm_debugregs, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS)                   \
	X(mp_state, struct kvm_mp_state, KVM_GET_MP_STATE, KVM_SET_MP_STATE)

#define X(name, type, get, set)                                                                    \
	int kvm_vcpu_get_##name(struct engine_vcpu *vcpu, type *state);                            \
	int kvm_vcpu_set_##name(struct engine_vcpu *vcpu, const type *state);
KVM_VCPU_STATES(X)
#undef X

int kvm_vcpu_set_cpuid(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid);
int kvm_vcpu_set_guest_debug(struct engine_vcpu *vcpu, const struct kvm_guest_debug *debug);

#endif
