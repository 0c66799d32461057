/* See engine.h for what these promise. */
#ifndef GUISE_SOFT_RUN_H
#define GUISE_SOFT_RUN_H

#include "engine/soft/vcpu.h"

int soft_vcpu_run(struct engine_vcpu *vcpu);
void soft_vcpu_kick(struct engine_vcpu *vcpu);

/** @v is new: its time begins. */
void run_begin_stats(struct soft_vcpu *v);
/** v->stats with the times filled in. */
void run_stats(const struct soft_vcpu *v, struct engine_stats *stats);

#endif
