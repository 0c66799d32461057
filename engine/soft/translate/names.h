/* Names for what host code refers to. Outside. */
#ifndef GUISE_SOFT_NAMES_H
#define GUISE_SOFT_NAMES_H

#include "engine/soft/translate/block.h"

/** The stub that @rx is in, and how far; NULL: none. */
const char *stub_name(const struct block_cache *cache, const u8 *rx, u32 *offset);

/** What is @offset bytes into struct soft_vcpu, as far as translated code uses it. */
bool state_name(u64 offset, char *out, u32 size);

#endif
