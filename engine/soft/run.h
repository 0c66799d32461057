/* See engine.h for what these promise. */
#ifndef GUISE_SOFT_RUN_H
#define GUISE_SOFT_RUN_H

#include "engine/soft/vcpu.h"

int soft_vcpu_run(struct engine_vcpu *vcpu);
void soft_vcpu_kick(struct engine_vcpu *vcpu);

#endif
