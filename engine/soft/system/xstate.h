/* x87, SSE and AVX state: what xstate.c shares. Inside unless stated. */
#ifndef GUISE_SOFT_XSTATE_H
#define GUISE_SOFT_XSTATE_H

#include "engine/soft/system/features.h"

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

/* ---- xstate_layout.c: inside, and outside ---- */

/**
 * What extended state guests can have on this host. AVX-512 is offered as a whole, F with CD, BW,
 * DQ and VL, if the host has that and @avx512.
 */
void xstate_probe(struct xstate_layout *out, bool avx512);

/** Bytes of the section of component @n (2 and up); in either format. */
u32 xstate_section_size(u32 n);
/** Of them, those that hold registers that exist outside 64-bit mode (SDM 1 13.5). */
u32 xstate_section_legacy_size(u32 n);
/** Where the section is in an area; @compacted: the components of a compacted one, 0: standard. */
u32 xstate_section_offset(const struct xstate_layout *layout, u64 compacted, u32 n);
/** Bytes of an area for the components of @mask. */
u32 xstate_area_size(const struct xstate_layout *layout, u64 mask, bool compacted);

/** for (each component of the extended region that @mask has) */
#define for_each_section(n, mask)                                                                  \
	for (u32 n = 2; n < XSTATE_COUNT; n++)                                                     \
		if ((mask)&BIT(n))

/**
 * What the guest may be told of @host, the instruction pointer in the host's x87 state: the guest's
 * RIP if it is an address of translated code; any other value was loaded by the guest itself, and
 * is returned as it is. 0: not known. Implemented with the code cache. Inside, and outside.
 */
u64 guest_rip_of_host(struct soft_vcpu *v, u64 host);

#endif
