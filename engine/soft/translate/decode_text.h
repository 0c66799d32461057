/* Instructions as Intel-syntax text, for traces. Outside. */
#ifndef GUISE_SOFT_DECODE_TEXT_H
#define GUISE_SOFT_DECODE_TEXT_H

#include "base/types.h"

/** The guest instruction at @bytes, as at @rip in @mode (mode.h). */
void decode_text(const u8 *bytes, u32 length, u64 rip, u32 mode, char *out, u32 size);

/* What to call addresses in host code. Each writes a name, or returns false. */
struct text_names {
	bool (*code)(const void *of, u64 address, char *out, u32 size);
	bool (*state)(u64 offset, char *out, u32 size); /* gs:[offset] */
	const void *of;
};

/** One instruction of the host code at @bytes, which runs at @address. Returns its length, or 0 if
 * it is none. */
u32 decode_text_host(const u8 *bytes, u32 available, u64 address, const struct text_names *names,
		     char *out, u32 size);

#endif
