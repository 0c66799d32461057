/* The monitor's debugger: KVM_SET_GUEST_DEBUG and its exits (engine.h says what is promised).
 * Outside. */
#ifndef GUISE_SOFT_GUEST_DEBUG_H
#define GUISE_SOFT_GUEST_DEBUG_H

#include "engine/soft/vcpu.h"

/* Flags that soft_set_guest_debug() takes, the value of KVM_CAP_SET_GUEST_DEBUG2. */
#define GUEST_DEBUG_FLAGS                                                                          \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |                  \
	 KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP |                \
	 KVM_GUESTDBG_BLOCKIRQ)

int soft_set_guest_debug(struct engine_vcpu *vcpu, const struct kvm_guest_debug *debug);

/** Fills run with KVM_EXIT_DEBUG for what is due in v->debug, which is then no longer due. */
void guest_debug_exit(struct soft_vcpu *v);

#endif
