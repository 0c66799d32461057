#include "devices/bus.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "debug/trace.h"

/** Index of the first region that ends above @addr. */
static u32 first_above(const struct bus *bus, u64 addr)
{
	u32 low = 0, high = bus->count;
	while (low < high) {
		u32 middle = (low + high) / 2;
		const struct bus_region *r = &bus->regions[middle];
		if (r->start + (r->length - 1) < addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int bus_add(struct bus *bus, u64 start, u64 length, const struct bus_ops *ops, void *opaque,
	    struct error *err)
{
	if (!length || start + (length - 1) < start)
		return error_set(err, EINVAL, "%s: empty or wrapping %s range at %#llx", ops->name,
				 bus->name, (unsigned long long)start);
	if (bus->count == BUS_REGIONS_MAX)
		return error_set(err, ENOSPC, "%s: no room on the %s bus", ops->name, bus->name);

	u32 at = first_above(bus, start);
	if (at < bus->count && bus->regions[at].start <= start + (length - 1))
		return error_set(err, EEXIST, "%s: %s range at %#llx overlaps %s", ops->name,
				 bus->name, (unsigned long long)start, bus->regions[at].ops->name);

	memmove(&bus->regions[at + 1], &bus->regions[at],
		(bus->count - at) * sizeof(bus->regions[0]));
	bus->regions[at] = (struct bus_region){
	    .start = start,
	    .length = length,
	    .ops = ops,
	    .opaque = opaque,
	};
	bus->count++;
	return 0;
}

/** The region that takes this access whole, or NULL. */
static const struct bus_region *find(const struct bus *bus, u64 addr, u32 size)
{
	u32 at = first_above(bus, addr);
	if (at == bus->count)
		return NULL;
	const struct bus_region *r = &bus->regions[at];
	if (addr < r->start || r->length - (addr - r->start) < size)
		return NULL;
	bool power_of_two = !(size & (size - 1));
	return power_of_two && (r->ops->sizes & size) ? r : NULL;
}

/** The largest power of two below @size: where an access is split. */
static u32 split_point(u32 size)
{
	u32 half = 1;
	while (half * 2 < size)
		half *= 2;
	return half;
}

static u64 ones(u32 size)
{
	return size >= 8 ? UINT64_MAX : BIT(size * 8) - 1;
}

static u64 do_read(const struct bus *bus, u64 addr, u32 size)
{
	const struct bus_region *r = find(bus, addr, size);
	if (r)
		return r->ops->read(r->opaque, addr - r->start, size) & ones(size);
	if (size == 1)
		return 0xff;
	u32 half = split_point(size);
	u64 low = do_read(bus, addr, half); /* devices see ascending addresses */
	return low | do_read(bus, addr + half, size - half) << (half * 8);
}

static void do_write(const struct bus *bus, u64 addr, u64 value, u32 size)
{
	const struct bus_region *r = find(bus, addr, size);
	if (r) {
		r->ops->write(r->opaque, addr - r->start, value & ones(size), size);
		return;
	}
	if (size == 1)
		return;
	u32 half = split_point(size);
	do_write(bus, addr, value, half);
	do_write(bus, addr + half, value >> (half * 8), size - half);
}

u64 bus_read(const struct bus *bus, u64 addr, u32 size)
{
	u64 value = size >= 1 && size <= 8 ? do_read(bus, addr, size) : UINT64_MAX;
	trace(io, 2, "%s read  %#llx/%u -> %#llx", bus->name, (unsigned long long)addr, size,
	      (unsigned long long)value);
	return value;
}

void bus_write(const struct bus *bus, u64 addr, u64 value, u32 size)
{
	trace(io, 2, "%s write %#llx/%u <- %#llx", bus->name, (unsigned long long)addr, size,
	      (unsigned long long)value);
	if (size >= 1 && size <= 8)
		do_write(bus, addr, value, size);
}
