/* Sensitive instructions done in the block itself. Private to translate/. */
#ifndef GUISE_SOFT_INLINE_OPS_H
#define GUISE_SOFT_INLINE_OPS_H

#include "engine/soft/translate/translator.h"

/** Emits @d, of CLASS_OP, without its C function. false: nothing emitted, it has to be called. */
bool emit_inline_op(struct translator *t, const struct decoded *d);

/** Whether the block goes on behind @d although its C function would end it. */
bool inline_op_goes_on(const struct translator *t, const struct decoded *d);

/** The calls of C functions that inline ops turned out to need; behind the block. */
void emit_slow_ops(struct translator *t);

#endif
