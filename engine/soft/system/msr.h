/* What else is known of the MSRs: names, and their values after RESET. Inside. */
#ifndef GUISE_SOFT_MSR_H
#define GUISE_SOFT_MSR_H

#include "engine/soft/vcpu.h"

/** The register's name, or NULL: no such register. */
const char *msr_name(u32 index);

/** Sets v->msr to its state after RESET (SDM 3A table 9-1), but for IA32_APIC_BASE, the LAPIC's. */
void msr_reset(struct soft_vcpu *v);

/** Whether the table can be searched by bisection; for tests. */
bool msr_table_sorted(void);

#endif
