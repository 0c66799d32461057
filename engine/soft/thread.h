/*
 * The thread that a vCPU runs on: its number and signal mask, asked for once, and its GS base,
 * through which translated code reaches the vCPU. Outside.
 */
#ifndef GUISE_SOFT_THREAD_H
#define GUISE_SOFT_THREAD_H

#include "engine/soft/vcpu.h"

/** The calling thread runs @v from now on: kicks reach it, soft_current and GS are @v's. */
void thread_enter(struct soft_vcpu *v);

/** It no longer does. */
void thread_leave(struct soft_vcpu *v);

/** @v is going to be freed. */
void thread_forget(const struct soft_vcpu *v);

#endif
