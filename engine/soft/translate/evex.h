/* The decoder's part for EVEX instructions. Private to decode.c: Zydis' numbers stay there. */
#ifndef GUISE_SOFT_EVEX_H
#define GUISE_SOFT_EVEX_H

#include <Zydis/Zydis.h>

#include "engine/soft/translate/decode.h"

/** Whether the instruction is of an extension that the engine lets a guest use. Outside. */
bool evex_known(const ZydisDecodedInstruction *zi);

/** The fields of the prefix (SDM 2A 2.7.1), into @d and its insn. @d's bytes are there. Outside. */
void evex_take_prefix(struct decoded *d, const ZydisDecodedInstruction *zi, u32 mode);

/**
 * Which elements of the memory operand a masked instruction touches, as bits of an access's
 * description (masked.h); 0: all of them, whatever the mask. Outside.
 */
u32 evex_masked_access(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *memory);

#endif
