/* What --trace vmx and --stats show. Inside; the words are in show.c. */
#include "debug/trace.h"
#include "engine/soft/vmx/capabilities.h"
#include "engine/soft/vmx/show.h"

/* ---- counts, and times with vm->timed ---- */

/* Host TSC since the last VM entry or exit. */
static u64 lap(struct soft_vcpu *v)
{
	u64 now = __builtin_ia32_rdtsc();
	u64 ticks = v->ticks.vmx.since ? now - v->ticks.vmx.since : 0;

	v->ticks.vmx.since = now;
	return ticks;
}

/* The hypervisor has had the vCPU since it left for the last reason. */
static void end_root(struct soft_vcpu *v)
{
	if (unlikely(v->vm->timed))
		v->ticks.vmx.root[v->ticks.vmx.reason] += lap(v);
}

static void count_reason(struct soft_vcpu *v, u32 reason)
{
	v->ticks.vmx.reason = reason;
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

/* ---- what entry.c and exit.c tell ---- */

void vmx_saw_entry(struct soft_vcpu *v, bool launch)
{
	v->stats.vmx_entries++;
	end_root(v);
	if (trace_on(vmx, 1)) {
		v->vmx.launched_now = launch;
		trace_call_gp(vmx_show_entry, v);
	}
}

void vmx_saw_exit(struct soft_vcpu *v, u32 reason)
{
	if (unlikely(v->vm->timed))
		v->ticks.vmx.nonroot += lap(v);
	count_reason(v, reason);
	if (trace_on(vmx, 1))
		trace_call_gp(vmx_show_exit, v);
}

void vmx_saw_late_failure(struct soft_vcpu *v, u32 reason)
{
	end_root(v);
	count_reason(v, reason);
	if (trace_on(vmx, 1))
		trace_call_gp(vmx_show_exit, v);
}

void vmx_saw_failure(struct soft_vcpu *v, const char *part, enum vmx_field field, const char *what)
{
	v->stats.vmx_failures++;
	v->vmx.failure = (struct vmx_failure){.part = part,
					      .what = what,
					      .field = field,
					      .value = vmx_get(v, field),
					      .entries = v->stats.vmx_entries};
	if (trace_on(vmx, 1))
		trace_call_gp(vmx_show_failure, v);
}

void vmx_saw_error(struct soft_vcpu *v)
{
	if (trace_on(vmx, 1))
		trace_call_gp(vmx_show_error, v);
}
