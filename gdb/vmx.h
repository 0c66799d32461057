/* A hypervisor in the guest, as the debugger shows it. */
#ifndef GUISE_GDB_VMX_H
#define GUISE_GDB_VMX_H

#include <stdio.h>

#include "base/types.h"

struct gdb;

/** What vCPU @cpu's guest-physical addresses are translated by once more; 0: they are the
 * machine's. */
u64 vmx_eptp(struct gdb *gdb, u32 cpu);

/** Whether vCPU @cpu runs a hypervisor's guest. */
bool vmx_in_guest(struct gdb *gdb, u32 cpu);

/** A line if the current thread's vCPU is in VMX operation. */
void vmx_print_operation(struct gdb *gdb, FILE *out);

/** The current VMCS of the current thread's vCPU, or one @group of it; false: there is no such
 * group. */
bool vmx_print(struct gdb *gdb, FILE *out, const char *group);

#endif
