/* The engine `kvm`: the contract's functions over /dev/kvm. */
#include "engine/kvm/kvm.h"

const struct engine engine_kvm = {.name = "kvm",
				  .probe = kvm_probe,

				  .vm_create = kvm_vm_create,
				  .vm_set_option = kvm_vm_set_option,
				  .vm_destroy = kvm_vm_destroy,
				  .vm_check_extension = kvm_vm_check_extension,
				  .vm_set_memory = kvm_vm_set_memory,
				  .vm_memory_file = kvm_vm_memory_file,
				  .vm_memory_written = kvm_vm_memory_written,
				  .vm_create_irqchip = kvm_vm_create_irqchip,
				  .vm_create_pit = kvm_vm_create_pit,
				  .vm_irq_line = kvm_vm_irq_line,
				  .vm_signal_msi = kvm_vm_signal_msi,
				  .vm_get_irqchip = kvm_vm_get_irqchip,
				  .vm_set_irqchip = kvm_vm_set_irqchip,
				  .vm_get_pit = kvm_vm_get_pit,
				  .vm_set_pit = kvm_vm_set_pit,
				  .vm_get_clock = kvm_vm_get_clock,
				  .vm_set_clock = kvm_vm_set_clock,
				  .vm_get_supported_cpuid = kvm_vm_get_supported_cpuid,

				  .vcpu_create = kvm_vcpu_create,
				  .vcpu_destroy = kvm_vcpu_destroy,
				  .vcpu_run = kvm_vcpu_run,
				  .vcpu_kick = kvm_vcpu_kick,
				  .vcpu_set_cpuid = kvm_vcpu_set_cpuid,
				  .vcpu_set_guest_debug = kvm_vcpu_set_guest_debug,
				  .vcpu_interrupt = kvm_vcpu_interrupt,
				  .vcpu_nmi = kvm_vcpu_nmi,
				  .vcpu_translate = kvm_vcpu_translate,
				  .vcpu_get_vmx = kvm_vcpu_get_vmx,
				  .vcpu_stats = kvm_vcpu_stats,

#define X(name, type, get, set)                                                                    \
	.vcpu_get_##name = kvm_vcpu_get_##name, .vcpu_set_##name = kvm_vcpu_set_##name,
				  KVM_VCPU_STATES(X)
#undef X
};
