/*
 * The translation mode: everything besides the code bytes and its address that decides what a
 * block's translation looks like. Packed into vcpu->mode; part of a block's key.
 */
#ifndef GUISE_SOFT_MODE_H
#define GUISE_SOFT_MODE_H

#include "base/types.h"

#define MODE_CODE_SIZE(m) (2u << ((m)&3)) /* bytes: 2 real/16-bit, 4, 8 */
#define MODE_CODE16	  0u
#define MODE_CODE32	  1u
#define MODE_CODE64	  2u
#define MODE_STACK32	  BIT(2) /* SS.B; always clear in 64-bit mode */
#define MODE_FLAT	  BIT(3) /* CS DS ES SS: base 0, limit 4 GiB, usable, writable; or 64-bit mode */
#define MODE_MMU(m)	  (((m) >> 4) & 3) /* enum mmu_index */
#define MODE_MMU_SHIFT	  4
#define MODE_STEP	  BIT(6)  /* TF or a breakpoint: one instruction a block, look after each */
#define MODE_ALIGN	  BIT(7)  /* alignment checks: CR0.AM, EFLAGS.AC, CPL 3 */
#define MODE_PE		  BIT(8)  /* protected mode and not virtual-8086 */
#define MODE_NO_FPU	  BIT(9)  /* x87 and MMX raise #NM (CR0.EM or TS) */
#define MODE_NO_SSE	  BIT(10) /* SSE raises #UD (CR0.EM, or not CR4.OSFXSR) */
#define MODE_NO_AVX	  BIT(11) /* AVX raises #UD (not CR4.OSXSAVE, or XCR0) */
#define MODE_TS		  BIT(12) /* CR0.TS: SSE and AVX raise #NM, WAIT too with MP */
#define MODE_MP		  BIT(13) /* CR0.MP */
#define MODE_ONE	  BIT(14) /* this block only: a single instruction, not chained (shadow, replay) */
#define MODE_FS_BASE	  BIT(15) /* outside 64-bit mode: FS or GS is not flat */
#define MODE_EM		  BIT(16) /* CR0.EM: MMX raises #UD */
#define MODE_PLAIN	  BIT(17) /* this block only: every access checked by itself (groups.c) */
#define MODE_RING0	  BIT(18) /* CPL 0 */
#define MODE_NO_AVX512	  BIT(19) /* EVEX and opmasks raise #UD (as AVX, or XCR0[7:5]) */
#define MODE_SHADOW	  BIT(20) /* memory is found through the shadow table (mmu/shadow.h) */
#define MODE_SET(m)	  (((m) >> 21) & 1) /* enum mmu_set */
#define MODE_NONROOT	  BIT(21)	    /* VMX non-root operation */

#endif
