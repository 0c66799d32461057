/*
 * The PCI host bridge: bus 0, its functions, and the two ports through which processors reach their
 * configuration space (PCI Local Bus Specification 3.0, section 3.2.2.3.2, "mechanism #1").
 */
#ifndef GUISE_DEVICES_PCI_HOST_H
#define GUISE_DEVICES_PCI_HOST_H

#include "devices/bus.h"

struct pci_host;
struct system_control;

#define PCI_CONFIG_BYTES 256
#define PCI_DEVICES	 32 /* of a bus */
#define PCI_FUNCTIONS	 8  /* of a device */

/**
 * A function's configuration space, little-endian, filled in by whoever puts it on the bus; its
 * owner may change it later inside written() only.
 */
struct pci_function {
	const char *name;
	u8 config[PCI_CONFIG_BYTES];
	u8 writable[PCI_CONFIG_BYTES]; /* the bits that a guest's writes change */
	/**
	 * Bits of @size bytes from @offset on may have changed; NULL if nobody needs to know. Any
	 * vCPU's thread, one at a time for all of the bus; must not call pci_host_*.
	 */
	void (*written)(void *opaque, u8 offset, u32 size);
	void *opaque;
};

/** Stores a value that is wider than a byte in @function's configuration space. */
void pci_set_word(struct pci_function *function, u8 offset, u16 value);

/**
 * Creates the bus with the host bridge at 00:00.0. Byte accesses to CF9, which lies within the
 * address port, go to @control's reset register. Returns 0 and *out, or a negative errno with @err.
 */
int pci_host_create(struct pci_host **out, struct bus *io, struct system_control *control,
		    struct error *err);

/** NULL is fine. Functions belong to their owners. */
void pci_host_destroy(struct pci_host *host);

/**
 * Puts @function at 00:@device.@number; it must live as long as @host. Function 0 of a device comes
 * first, as without it nobody looks for the others. Returns 0; -EINVAL for a place that does not
 * exist or has no function 0 yet, -EEXIST if it is taken, with @err. Not while a vCPU runs.
 */
int pci_host_add(struct pci_host *host, u32 device, u32 number, struct pci_function *function,
		 struct error *err);

#endif
