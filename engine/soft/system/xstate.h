/* x87, SSE and AVX state: what xstate.c shares. Inside unless stated. */
#ifndef GUISE_SOFT_XSTATE_H
#define GUISE_SOFT_XSTATE_H

#include "engine/soft/vcpu.h"

/* Offsets in the legacy region of FXSAVE and XSAVE (SDM 1 table 10-2). */
#define FX_FCW	      0
#define FX_FSW	      2
#define FX_FTW	      4
#define FX_FOP	      6
#define FX_FIP	      8
#define FX_FDP	      16
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define FX_ST	      32
#define FX_XMM	      160
#define FX_END	      416
#define XSAVE_BV      512 /* header: XSTATE_BV, XCOMP_BV */
#define XSAVE_COMP_BV 520

/**
 * What the guest may be told of @host, the instruction pointer in the host's x87 state: the guest's
 * RIP if it is an address of translated code; any other value was loaded by the guest itself, and
 * is returned as it is. 0: not known. Implemented with the code cache. Inside, and outside.
 */
u64 guest_rip_of_host(struct soft_vcpu *v, u64 host);

#endif
