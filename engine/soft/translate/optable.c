/* The tables made of the list in ops.h. */
#include "engine/soft/translate/ops.h"

op_function *const op_functions[OP_ID_COUNT] = {
#define OP(name, properties) [OP_ID_##name] = op_##name,
    ALL_OPS(OP)
#undef OP
};

const u8 op_properties[OP_ID_COUNT] = {
#define OP(name, properties) [OP_ID_##name] = properties,
    ALL_OPS(OP)
#undef OP
};
