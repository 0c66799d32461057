/* What --trace vmx and --stats show. Inside. */
#include "debug/trace.h"
#include "engine/soft/vmx/capabilities.h"

static const char *const texts[] = {
#define REASON(X, name, number, text) [number] = text,
    VMX_REASONS(REASON, )
#undef REASON
};

const char *vmx_reason_text(u32 reason)
{
	return reason < ARRAY_SIZE(texts) ? texts[reason] : NULL;
}

void vmx_count_exit(struct soft_vcpu *v, u32 reason)
{
	v->stats.vmx_exits++;
	switch (reason) {
#define REASON(X, name, number, text)                                                              \
	case number:                                                                               \
		v->stats.vmx_##name++;                                                             \
		break;
		VMX_REASONS(REASON, )
#undef REASON
	}
}

void vmx_trace_entry(struct soft_vcpu *v)
{
	trace_gp(vmx, 2, "vcpu %u: enter, rip %#llx rsp %#llx rflags %#llx cr0 %#llx cr3 %#llx%s",
		 v->base.id, (unsigned long long)v->rip, (unsigned long long)v->regs[RSP],
		 (unsigned long long)vcpu_rflags(v), (unsigned long long)v->cr0,
		 (unsigned long long)v->cr3, v->vmx.launched ? "" : " (launch)");
	if (v->vmx.inject_info)
		trace_gp(vmx, 2, "vcpu %u: injects type %u vector %#x error %#x", v->base.id,
			 INFO_TYPE(v->vmx.inject_info), INFO_VECTOR(v->vmx.inject_info),
			 v->vmx.inject_error);
}

void vmx_trace_exit(struct soft_vcpu *v)
{
	const char *text = vmx_reason_text((u16)vmx_get(v, VMX_EXIT_REASON));

	trace_gp(vmx, 1, "vcpu %u: exit %s, rip %#llx qualification %#llx length %llu", v->base.id,
		 text ? text : "?", (unsigned long long)v->rip,
		 (unsigned long long)vmx_get(v, VMX_EXIT_QUALIFICATION),
		 (unsigned long long)vmx_get(v, VMX_EXIT_INSTRUCTION_LENGTH));
	trace_gp(vmx, 2,
		 "vcpu %u: information %#llx interruption %#llx error %#llx vectoring %#llx error "
		 "%#llx gpa %#llx linear %#llx",
		 v->base.id, (unsigned long long)vmx_get(v, VMX_EXIT_INSTRUCTION_INFO),
		 (unsigned long long)vmx_get(v, VMX_EXIT_INTERRUPTION_INFO),
		 (unsigned long long)vmx_get(v, VMX_EXIT_INTERRUPTION_ERROR),
		 (unsigned long long)vmx_get(v, VMX_IDT_VECTORING_INFO),
		 (unsigned long long)vmx_get(v, VMX_IDT_VECTORING_ERROR),
		 (unsigned long long)vmx_get(v, VMX_GUEST_PHYSICAL_ADDRESS),
		 (unsigned long long)vmx_get(v, VMX_GUEST_LINEAR_ADDRESS));
}

/* At level 3 the whole VMCS. */
void vmx_trace_failure(struct soft_vcpu *v, const char *part, enum vmx_field field,
		       const char *what)
{
	v->stats.vmx_failures++;
	trace_gp(vmx, 1, "vcpu %u: VM entry fails at rip %#llx: %s, %s = %#llx: %s", v->base.id,
		 (unsigned long long)v->rip, part, vmx_fields[field].name,
		 (unsigned long long)vmx_get(v, field), what);
	if (!trace_on(vmx, 3))
		return;
	for (u32 n = 0; n < VMX_FIELD_COUNT; n++)
		trace_gp(vmx, 3, "vcpu %u:   %s (%#x) = %#llx", v->base.id, vmx_fields[n].name,
			 vmx_fields[n].encoding, (unsigned long long)v->vmx.vmcs.value[n]);
}
