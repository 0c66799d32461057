/* The compressed payload of a bzImage, unpacked on the host piece by piece. */
#ifndef GUISE_BOOT_UNPACK_H
#define GUISE_BOOT_UNPACK_H

#include "base/types.h"

struct error;
struct unpack_format;

/**
 * Takes the next @size unpacked bytes. Returns 0 to go on, or a negative errno with @err.
 */
typedef int (*unpack_sink)(void *opaque, const u8 *data, size_t size, struct error *err);

/** The format that @data begins with, or NULL if none of those known here. */
const struct unpack_format *unpack_identify(const u8 *data, size_t size);

/** Whether the format has a checksum of its own, so that unpack() finds every kind of damage. */
bool unpack_is_checked(const struct unpack_format *format);

/** "gzip", "xz" ... */
const char *unpack_name(const struct unpack_format *format);

/**
 * Unpacks a payload as Linux builds it: the compressed stream, whose end holds the unpacked size
 * as 32-bit little-endian number (part of the stream for gzip, added by the kernel's build for the
 * others). Memory in use is bounded by the format's window (128 MiB for zstd at most).
 * Returns 0, -EBADMSG with @err for damaged data or a wrong size, -ENOMEM, or the sink's error.
 */
int unpack(const struct unpack_format *format, const u8 *data, size_t size, unpack_sink sink,
	   void *opaque, struct error *err);

#endif
