/* VMX for people: see show.c. */
#ifndef GUISE_SOFT_VMX_SHOW_H
#define GUISE_SOFT_VMX_SHOW_H

#include "engine/soft/vmx/vmx.h"

/* Lines of trace about a struct soft_vcpu, by trace_call_gp(): it is about to run its guest's
 * guest; it has left it; its last VM entry has failed (v->vmx.failure); so has an instruction. */
void vmx_show_entry(void *vcpu);
void vmx_show_exit(void *vcpu);
void vmx_show_failure(void *vcpu);
void vmx_show_error(void *vcpu);

/** vcpu_get_vmx() of the contract. */
int soft_get_vmx(struct engine_vcpu *vcpu, struct engine_vmx *out);

#endif
