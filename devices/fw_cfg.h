/*
 * The firmware configuration interface, by which programs that run without firmware learn how much
 * memory and how many processors there are.
 */
#ifndef GUISE_DEVICES_FW_CFG_H
#define GUISE_DEVICES_FW_CFG_H

#include "devices/bus.h"

struct fw_cfg;

struct fw_cfg_config {
	struct bus *io;
	u64 memory_size; /* bytes */
	u16 cpu_count;
};

/** Returns 0 and *out, or a negative errno with @err. */
int fw_cfg_create(struct fw_cfg **out, const struct fw_cfg_config *config, struct error *err);

/** NULL is fine. */
void fw_cfg_destroy(struct fw_cfg *fw_cfg);

#endif
