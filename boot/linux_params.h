/* What every Linux entry point wants: the zero page, command line, initrd, 64-bit mode. */
#ifndef GUISE_BOOT_LINUX_PARAMS_H
#define GUISE_BOOT_LINUX_PARAMS_H

#include <asm/bootparam.h>

#include "boot/loader.h"

/**
 * Starts a Linux whose image is in place, at its 64-bit entry point @entry: places boot_params
 * with @header, the command line, the initrd, and sets the processor's state.
 */
int linux_start(struct boot_context *boot, const struct setup_header *header, u64 entry,
		struct error *err);

#endif
