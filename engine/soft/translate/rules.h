/* What the decoder does with each mnemonic. Private to decode.c: Zydis' numbers stay there. */
#ifndef GUISE_SOFT_RULES_H
#define GUISE_SOFT_RULES_H

#include <Zydis/Zydis.h>

#include "base/types.h"

struct rule {
	u8 class; /* enum insn_class */
	u16 op;	  /* enum op_id, for CLASS_OP */
};

/* What becomes of a mnemonic that is not simply executed. Everything that is neither here nor of an
 * allowed instruction-set extension is undefined for the guest. */
extern const struct rule decode_rules[ZYDIS_MNEMONIC_MAX_VALUE + 1];

/* Instruction-set extensions whose instructions the host may execute for the guest, or that have
 * rules. */
extern const bool decode_allowed[ZYDIS_ISA_EXT_MAX_VALUE + 1];

#endif
