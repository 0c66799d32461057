/* Stands in for vmx/ until it exists: nobody enters VMX non-root operation, and whoever would is
 * stopped. */
#include "engine/soft/mmu/ept.h"

_Noreturn void vmx_ept_fault(struct soft_vcpu *v)
{
	v->base.run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	v->base.run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	v->base.run->internal.ndata = 0;
	vcpu_exit(v);
}
