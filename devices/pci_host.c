/*
 * PCI Local Bus Specification 3.0: sections 3.2.2.3.2 (mechanism #1) and 6.1, 6.2 (configuration
 * space). The bridge has the identity of Intel's 82441FX (datasheet 290549), the one that guests
 * know from most other virtual machines; of its registers there are the standard header's only.
 */
#include "devices/pci_host.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"
#include "devices/system_control.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT    0xcfc
#define PORTS	     4
#define RESET_OFFSET 1 /* CF9 */

/*
 * The address register:
 *     31      30..24   23..16  15..11   10..8      7..2      1..0
 *     enable  0        bus     device   function   register  0
 */
#define ADDRESS_ENABLE	      BIT(31)
#define ADDRESS_KEPT	      0x80fffffcu
#define ADDRESS_BUS(a)	      ((a) >> 16 & 0xff)
#define ADDRESS_PLACE(a)      ((a) >> 8 & 0xff) /* device and function */
#define ADDRESS_OFFSET(a)     ((a)&0xfc)
#define PLACE(device, number) ((device)*PCI_FUNCTIONS + (number))

/* The header (figure 6-1). */
#define CONFIG_VENDOR	   0x00
#define CONFIG_DEVICE	   0x02
#define CONFIG_COMMAND	   0x04
#define CONFIG_STATUS	   0x06
#define CONFIG_REVISION	   0x08
#define CONFIG_CLASS	   0x0a /* sub-class, base class */
#define CONFIG_HEADER_TYPE 0x0e

#define BRIDGE_VENDOR	     0x8086
#define BRIDGE_DEVICE	     0x1237
#define BRIDGE_REVISION	     0x02
#define BRIDGE_CLASS	     0x0600 /* bridge, host */
#define COMMAND_MEMORY	     BIT(1)
#define COMMAND_MASTER	     BIT(2)
#define STATUS_DEVSEL_MEDIUM BIT(9)
#define HEADER_MULTIFUNCTION 0x80

struct pci_host {
	struct system_control *control;
	struct pci_function bridge;
	struct pci_function *functions[PCI_DEVICES * PCI_FUNCTIONS]; /* by place */

	pthread_mutex_t lock; /* guards address and all configuration spaces */
	u32 address;
};

static u64 address_read(void *opaque, u64 offset, u32 size)
{
	struct pci_host *host = opaque;
	if (size == 1)
		return offset == RESET_OFFSET ? system_control_read_reset(host->control) : 0xff;
	pthread_mutex_lock(&host->lock);
	u32 address = host->address;
	pthread_mutex_unlock(&host->lock);
	return address;
}

static void address_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct pci_host *host = opaque;
	/* Only whole double words are the bridge's; all else is an I/O cycle to other devices. */
	if (size == 1) {
		if (offset == RESET_OFFSET)
			system_control_write_reset(host->control, (u8)value);
		return;
	}
	pthread_mutex_lock(&host->lock);
	host->address = (u32)value & ADDRESS_KEPT;
	pthread_mutex_unlock(&host->lock);
}

/** The function that the address register points at, or NULL. */
static struct pci_function *selected(const struct pci_host *host)
{
	if (!(host->address & ADDRESS_ENABLE) || ADDRESS_BUS(host->address) != 0)
		return NULL;
	return host->functions[ADDRESS_PLACE(host->address)];
}

static u64 data_read(void *opaque, u64 offset, u32 size)
{
	struct pci_host *host = opaque;
	u64 value = UINT64_MAX; /* where nobody answers (section 6.1) */

	pthread_mutex_lock(&host->lock);
	const struct pci_function *function = selected(host);
	if (function) {
		const u8 *at = function->config + ADDRESS_OFFSET(host->address) + offset;
		value = 0;
		for (u32 i = 0; i < size; i++)
			value |= (u64)at[i] << (8 * i);
	}
	pthread_mutex_unlock(&host->lock);
	return value;
}

static void data_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct pci_host *host = opaque;

	pthread_mutex_lock(&host->lock);
	struct pci_function *function = selected(host);
	if (function) {
		u8 first = (u8)(ADDRESS_OFFSET(host->address) + offset);
		for (u32 i = 0; i < size; i++) {
			u8 *at = &function->config[first + i];
			u8 mask = function->writable[first + i];
			*at = (u8)((*at & ~mask) | ((u8)(value >> (8 * i)) & mask));
		}
		if (function->written)
			function->written(function->opaque, first, size);
	}
	pthread_mutex_unlock(&host->lock);
}

static const struct bus_ops address_ops = {
    .name = "PCI configuration address",
    .sizes = BUS_SIZE_1 | BUS_SIZE_4,
    .read = address_read,
    .write = address_write,
};

static const struct bus_ops data_ops = {
    .name = "PCI configuration data",
    .sizes = BUS_SIZE_1 | BUS_SIZE_2 | BUS_SIZE_4,
    .read = data_read,
    .write = data_write,
};

void pci_set_word(struct pci_function *function, u8 offset, u16 value)
{
	function->config[offset] = (u8)value;
	function->config[(u8)(offset + 1)] = (u8)(value >> 8);
}

static void fill_bridge(struct pci_function *bridge)
{
	bridge->name = "PCI host bridge";
	pci_set_word(bridge, CONFIG_VENDOR, BRIDGE_VENDOR);
	pci_set_word(bridge, CONFIG_DEVICE, BRIDGE_DEVICE);
	pci_set_word(bridge, CONFIG_COMMAND, COMMAND_MEMORY | COMMAND_MASTER);
	pci_set_word(bridge, CONFIG_STATUS, STATUS_DEVSEL_MEDIUM);
	bridge->config[CONFIG_REVISION] = BRIDGE_REVISION;
	pci_set_word(bridge, CONFIG_CLASS, BRIDGE_CLASS);
}

int pci_host_add(struct pci_host *host, u32 device, u32 number, struct pci_function *function,
		 struct error *err)
{
	if (device >= PCI_DEVICES || number >= PCI_FUNCTIONS)
		return error_set(err, EINVAL, "%s: there is no PCI place 00:%02x.%u",
				 function->name, device, number);
	struct pci_function **place = &host->functions[PLACE(device, number)];
	struct pci_function *first = host->functions[PLACE(device, 0)];
	if (*place)
		return error_set(err, EEXIST, "%s: PCI place 00:%02x.%u has %s", function->name,
				 device, number, (*place)->name);
	if (number && !first)
		return error_set(err, EINVAL, "%s: PCI device 00:%02x has no function 0 yet",
				 function->name, device);
	/* Section 6.2.1: without this bit only function 0 is looked for. */
	if (number)
		first->config[CONFIG_HEADER_TYPE] |= HEADER_MULTIFUNCTION;
	*place = function;
	return 0;
}

int pci_host_create(struct pci_host **out, struct bus *io, struct system_control *control,
		    struct error *err)
{
	struct pci_host *host = calloc(1, sizeof(*host));
	if (!host)
		return error_set(err, ENOMEM, "no memory for the PCI host bridge");
	host->control = control;
	fill_bridge(&host->bridge);
	int ret = pci_host_add(host, 0, 0, &host->bridge, err);
	if (ret == 0)
		ret = bus_add(io, ADDRESS_PORT, PORTS, &address_ops, host, err);
	if (ret == 0)
		ret = bus_add(io, DATA_PORT, PORTS, &data_ops, host, err);
	if (ret < 0) {
		free(host);
		return ret;
	}
	pthread_mutex_init(&host->lock, NULL);
	*out = host;
	return 0;
}

void pci_host_destroy(struct pci_host *host)
{
	if (!host)
		return;
	pthread_mutex_destroy(&host->lock);
	free(host);
}
