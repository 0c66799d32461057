/*
 * Documentation/arch/x86/boot.rst, "The image checksum": from protocol 2.08 on, the CRC-32 over the
 * whole file up to the limit of syssize is 0. Linux 6.16 dropped it together with the program that
 * computed it. Signing (PE format, "Attribute Certificate Table") changes the PE header
 * afterwards: the checksum field and the directory entry of the certificates, both 0 before.
 */
#include "boot/linux_crc.h"

#include <asm/bootparam.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define VERSION_POINTER (offsetof(struct boot_params, hdr.kernel_version))
#define LAST_WITH_CRC	(6 << 16 | 15) /* 6.15 */

#define PE_POINTER	0x3c
#define PE_SIGNATURE	0x00004550u /* "PE", 0, 0 */
#define PE_OPTIONAL	24	    /* optional header, from the signature */
#define PE32_PLUS	0x20b
#define PE_CHECKSUM	(PE_OPTIONAL + 64)
#define PE_CERTIFICATES (PE_OPTIONAL + 144) /* fifth data directory: offset, size */
#define PE_HEADER_SIZE	(PE_CERTIFICATES + 8)

/** Whether the kernel's version string says that it was built with a checksum. */
static bool has_crc(const u8 *image, size_t size)
{
	char version[16] = "";
	u16 pointer;
	unsigned int major, minor;
	memcpy(&pointer, image + VERSION_POINTER, sizeof(pointer));
	size_t at = 0x200 + (size_t)pointer;
	if (!pointer || at + sizeof(version) > size)
		return false;
	memcpy(version, image + at, sizeof(version) - 1);
	return sscanf(version, "%4u.%4u.", &major, &minor) == 2 &&
	       (major << 16 | minor) <= LAST_WITH_CRC;
}

static void undo_signature(u8 *image, size_t size)
{
	u32 at, signature;
	u16 kind;
	memcpy(&at, image + PE_POINTER, sizeof(at));
	if (at > size || size - at < PE_HEADER_SIZE)
		return;
	memcpy(&signature, image + at, sizeof(signature));
	memcpy(&kind, image + at + PE_OPTIONAL, sizeof(kind));
	if (signature != PE_SIGNATURE || kind != PE32_PLUS)
		return;
	memset(image + at + PE_CHECKSUM, 0, 4);
	memset(image + at + PE_CERTIFICATES, 0, 8);
}

bool linux_crc_is_wrong(u8 *image, size_t size)
{
	if (size < sizeof(struct boot_params) || !has_crc(image, size))
		return false;
	undo_signature(image, size);
	/* Linux leaves out the inversion at the end, which zlib does. */
	return crc32_z(0, image, size) != 0xffffffff;
}
