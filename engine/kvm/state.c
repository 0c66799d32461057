/* A vCPU's state, read and written: one ioctl each. */
#include "engine/kvm/kvm.h"

#define X(name, type, get, set)                                                                    \
	int kvm_vcpu_get_##name(struct engine_vcpu *vcpu, type *state)                             \
	{                                                                                          \
		return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, get, state);                               \
	}                                                                                          \
                                                                                                   \
	int kvm_vcpu_set_##name(struct engine_vcpu *vcpu, const type *state)                       \
	{                                                                                          \
		return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, set, (void *)state);                       \
	}
KVM_VCPU_STATES(X)
#undef X

int kvm_vcpu_set_cpuid(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
	return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_SET_CPUID2, (void *)cpuid);
}

int kvm_vcpu_set_guest_debug(struct engine_vcpu *vcpu, const struct kvm_guest_debug *debug)
{
	return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_SET_GUEST_DEBUG, (void *)debug);
}
