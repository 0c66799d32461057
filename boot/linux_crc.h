/* The checksum that Linux's build puts at the end of a bzImage. */
#ifndef GUISE_BOOT_LINUX_CRC_H
#define GUISE_BOOT_LINUX_CRC_H

#include "base/types.h"

/**
 * Whether @image, a bzImage from its first byte to its last that syssize counts, is surely not as
 * it was built: a checksum belongs there and is wrong. False where nothing is known, as kernels
 * since 6.16 have none. What a signature for Secure Boot changed in @image is undone for it.
 */
bool linux_crc_is_wrong(u8 *image, size_t size);

#endif
