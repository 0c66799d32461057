/*
 * Memory operands under an opmask (SDM 2A 2.7.5, memory fault suppression): elements that the mask
 * leaves out are neither checked nor touched. Where the whole operand is plain RAM that the TLB
 * has, the instruction sees to that itself; else these functions do, element by element.
 */
#ifndef GUISE_SOFT_MASKED_H
#define GUISE_SOFT_MASKED_H

#include "engine/soft/vcpu.h"

/* Bits of an access's description that translator.h leaves free */
#define ACCESS_MASK(d)	     ((d) >> 20 & 7) /* opmask register, not 0; 0: no mask */
#define ACCESS_MASK_SHIFT    20
#define ACCESS_ELEMENT(d)    (1u << ((d) >> 23 & 3)) /* bytes */
#define ACCESS_ELEMENT_SHIFT 23
#define ACCESS_REPEAT(d)     ((d) >> 25 & 7) /* log2: mask bits over elements in memory */
#define ACCESS_REPEAT_SHIFT  25
#define ACCESS_PACKED	     BIT(28) /* as many elements as the mask has bits, from the first on */
#define ACCESS_FAULTS_WHOLE  BIT(29) /* a store that checks all of its operand */

/** soft_miss() for such an access. Inside. */
void *masked_miss(struct soft_vcpu *v, u64 address, u32 description, u64 *return_address);
/** soft_commit() for such an access. Inside. */
void masked_commit(struct soft_vcpu *v);

#endif
