/*
 * VMX for people: the lines of --trace vmx, and what a debugger is told. Outside: the trace's are
 * called by way of trace_call_gp().
 */
#include "engine/soft/vmx/show.h"

#include <errno.h>
#include <stdio.h>

#include "debug/trace.h"
#include "engine/vmx_text.h"

#define LINE_MAX 256

typedef unsigned long long ull; /* what %llx wants */

static struct vmx_exit_facts facts(const struct soft_vcpu *v)
{
	return (struct vmx_exit_facts){
	    .reason = (u32)vmx_get(v, VMX_EXIT_REASON),
	    .qualification = vmx_get(v, VMX_EXIT_QUALIFICATION),
	    .interruption = (u32)vmx_get(v, VMX_EXIT_INTERRUPTION_INFO),
	    .error = (u32)vmx_get(v, VMX_EXIT_INTERRUPTION_ERROR),
	    .physical = vmx_get(v, VMX_GUEST_PHYSICAL_ADDRESS),
	    .linear = vmx_get(v, VMX_GUEST_LINEAR_ADDRESS),
	    .rax = v->regs[RAX],
	    .rcx = v->regs[RCX],
	    .rdx = v->regs[RDX],
	};
}

void vmx_show_entry(void *vcpu)
{
	const struct soft_vcpu *v = vcpu;
	char event[LINE_MAX];

	vmx_event_text(event, sizeof(event), v->vmx.inject_info, v->vmx.inject_error);
	trace_line(TRACE_vmx, "vcpu %u: enter, rip %#llx%s%s%s", v->base.id, (ull)v->rip,
		   v->vmx.launched_now ? " (launch)" : "", *event ? ", injects " : "", event);
	trace(vmx, 2, "vcpu %u:   rsp %#llx rflags %#llx cr0 %#llx cr3 %#llx cr4 %#llx efer %#llx",
	      v->base.id, (ull)v->regs[RSP], (ull)vcpu_rflags(v), (ull)v->cr0, (ull)v->cr3,
	      (ull)v->cr4, (ull)v->msr.efer);
}

void vmx_show_exit(void *vcpu)
{
	const struct soft_vcpu *v = vcpu;
	struct vmx_exit_facts x = facts(v);
	char text[LINE_MAX], vectoring[LINE_MAX];

	vmx_exit_text(text, sizeof(text), &x);
	vmx_event_text(vectoring, sizeof(vectoring), (u32)vmx_get(v, VMX_IDT_VECTORING_INFO),
		       (u32)vmx_get(v, VMX_IDT_VECTORING_ERROR));
	trace_line(TRACE_vmx, "vcpu %u: exit, rip %#llx: %s%s%s", v->base.id, (ull)v->rip, text,
		   *vectoring ? ", while delivering " : "", vectoring);
	trace(vmx, 2,
	      "vcpu %u:   qualification %#llx length %llu information %#llx interruption %#llx "
	      "error %#llx vectoring %#llx error %#llx gpa %#llx linear %#llx",
	      v->base.id, (ull)x.qualification, (ull)vmx_get(v, VMX_EXIT_INSTRUCTION_LENGTH),
	      (ull)vmx_get(v, VMX_EXIT_INSTRUCTION_INFO), (ull)x.interruption, (ull)x.error,
	      (ull)vmx_get(v, VMX_IDT_VECTORING_INFO), (ull)vmx_get(v, VMX_IDT_VECTORING_ERROR),
	      (ull)x.physical, (ull)x.linear);
}

static void failure_text(const struct soft_vcpu *v, char *text, size_t size)
{
	const struct vmx_failure *f = &v->vmx.failure;

	snprintf(text, size, "%s: %s = %#llx: %s", f->part, vmx_fields[f->field].name,
		 (ull)f->value, f->what);
}

/* At level 3 the whole VMCS. */
void vmx_show_failure(void *vcpu)
{
	const struct soft_vcpu *v = vcpu;
	char text[LINE_MAX];

	failure_text(v, text, sizeof(text));
	trace_line(TRACE_vmx, "vcpu %u: VM entry fails at rip %#llx: %s", v->base.id, (ull)v->rip,
		   text);
	if (!trace_on(vmx, 3))
		return;
	for (u32 n = 0; n < VMX_FIELD_COUNT; n++) {
		u64 value = v->vmx.vmcs.value[n];
		vmx_field_text(text, sizeof(text), vmx_fields[n].encoding, value);
		trace_line(TRACE_vmx, "vcpu %u:   %s (%#x) = %#llx%s%s", v->base.id,
			   vmx_fields[n].name, vmx_fields[n].encoding, (ull)value,
			   *text ? "  " : "", text);
	}
}

void vmx_show_error(void *vcpu)
{
	const struct soft_vcpu *v = vcpu;
	u32 error = (u32)vmx_get(v, VMX_INSTRUCTION_ERROR);
	const char *text = vmx_error_text(error);

	trace_line(TRACE_vmx, "vcpu %u: VMfail %u at rip %#llx: %s", v->base.id, error, (ull)v->rip,
		   text ? text : "?");
}

int soft_get_vmx(struct engine_vcpu *vcpu, struct engine_vmx *out)
{
	const struct soft_vcpu *v = container_of(vcpu, struct soft_vcpu, base);

	_Static_assert(VMX_FIELD_COUNT <= ENGINE_VMCS_FIELDS_MAX, "all fields can be told");
	if (!v->vm->vmx)
		return -EOPNOTSUPP;
	*out = (struct engine_vmx){
	    .on = v->vmx.on,
	    .nonroot = v->vmx.nonroot,
	    .launched = v->vmx.launched,
	    .abort = v->vmx.abort,
	    .vmcs = v->vmx.on ? v->vmx.current : ENGINE_VMCS_NONE,
	    .eptp = vmx_nonroot(v) && vmx_cpu2(v, CPU2_EPT) ? vmx_get(v, VMX_EPT_POINTER) : 0,
	};
	if (v->vmx.failure.what)
		failure_text(v, out->failure, sizeof(out->failure));
	out->entries_since = v->stats.vmx_entries - v->vmx.failure.entries;
	if (out->vmcs == ENGINE_VMCS_NONE)
		return 0;
	out->field_count = VMX_FIELD_COUNT;
	for (u32 n = 0; n < VMX_FIELD_COUNT; n++)
		out->fields[n] = (struct engine_vmcs_field){.name = vmx_fields[n].name,
							    .encoding = vmx_fields[n].encoding,
							    .value = v->vmx.vmcs.value[n]};
	return 0;
}
