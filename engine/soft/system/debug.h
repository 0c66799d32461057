/* Debug registers: what accesses and fetches are compared with. SDM 3B 17.2. Inside. */
#ifndef GUISE_SOFT_DEBUG_H
#define GUISE_SOFT_DEBUG_H

#include "engine/soft/vcpu.h"

/**
 * The DR6 bits (3:0) of the enabled data breakpoints that an access of @size bytes at @linear
 * touches; 0: none. The caller adds them to v->events.debug. Changes nothing.
 */
u64 debug_data_hit(const struct soft_vcpu *v, u64 linear, u32 size, bool write);

#endif
