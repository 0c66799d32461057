/* Debug registers: SDM 3B 17.2. Inside. Results are bits for DR6 (B0 to B3), 0: none. */
#ifndef GUISE_SOFT_DEBUG_H
#define GUISE_SOFT_DEBUG_H

#include "engine/soft/vcpu.h"

/** Whether any breakpoint is enabled (L or G), of the guest or of the monitor's debugger: for those
 * of the guest and for data breakpoints the vCPU then steps, see MODE_STEP. */
static inline bool debug_armed(const struct soft_vcpu *v)
{
	return (v->dr7 | v->debug.dr7) & 0xff;
}

/** Whether the monitor is to be told of something now, between two instructions. */
static inline bool debug_stop_due(const struct soft_vcpu *v)
{
	return v->debug.step_due || v->debug.hit;
}

/** An instruction is done, an event delivered, VMX non-root operation entered or left: what the
 * monitor's debugger calls a step. */
static inline void debug_step_done(struct soft_vcpu *v)
{
	v->debug.step_due |= (v->debug.control & KVM_GUESTDBG_SINGLESTEP) != 0;
}

/** As debug_breakpoints_hit(), of the monitor's debugger. */
u64 debug_monitor_hit(const struct soft_vcpu *v, u64 linear);

/** The guest's instruction breakpoints at @linear. The caller minds RFLAGS.RF (SDM 3B 17.3.1.1). */
u64 debug_breakpoints_hit(const struct soft_vcpu *v, u64 linear);

/** Notes the data breakpoints that an access to [@linear, @linear + @size) bytes meets. */
void debug_note_access(struct soft_vcpu *v, u64 linear, u32 size, bool write);

/** The guest's data breakpoints that such an access meets. */
u64 debug_data_hit(const struct soft_vcpu *v, u64 linear, u32 size, bool write);

/** I/O breakpoints (CR4.DE set) that an access to @size ports from @port on meets. */
u64 debug_port_hit(const struct soft_vcpu *v, u16 port, u32 size);

/** Whether a data breakpoint lies in the 4 KiB page of @linear: such a page stays out of the TLB.
 */
bool debug_page_watched(const struct soft_vcpu *v, u64 linear);

/**
 * Writes DR0 to DR7 (4 and 5 are not aliases here), with the fixed bits, and drops what the TLB
 * knows about pages with breakpoints. false: reserved upper half of DR6 or DR7 is not zero, #GP(0).
 */
bool set_dr(struct soft_vcpu *v, u32 number, u64 value);

#endif
