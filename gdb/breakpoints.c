/*
 * Breakpoints and watchpoints.
 *
 * Software breakpoints are INT3 in guest memory, as with KVM everywhere: the guest may read them
 * there. They are put and taken away by guest-physical address, so that it does not matter which
 * page tables are in force when they go. The others are in debug registers that only the engine and
 * the processor see.
 */
#include <errno.h>
#include <string.h>

#include "gdb/internal.h"
#include "memory/memory.h"

#define INT3 0xcc

/* ---- software ---- */

static void put(struct gdb *gdb, u64 gpa, u8 byte)
{
	const struct gdb_machine *m = &gdb->machine;

	if (guest_memory_write(m->memory, gpa, &byte, 1) == 0)
		m->engine->vm_memory_written(m->engine_vm, gpa, 1);
}

static struct software_place *place_of(struct gdb *gdb, u64 address)
{
	return &gdb->places[(address ^ address >> 12) % SOFTWARE_PLACES];
}

/*
 * gdb takes its breakpoints away at each stop and puts them back when it goes on, maybe with other
 * page tables in force, those of a hypervisor's guest for instance. Where the address is not mapped
 * now, the breakpoint goes where it was.
 */
static bool find_place(struct gdb *gdb, u64 address, u64 *gpa)
{
	struct software_place *place = place_of(gdb, address);

	if (memory_find(gdb, gdb->cpu, gdb->physical, address, gpa)) {
		*place = (struct software_place){.known = true, .address = address, .gpa = *gpa};
		return true;
	}
	*gpa = place->gpa;
	return place->known && place->address == address && !gdb->physical;
}

static int insert_software(struct gdb *gdb, u64 address)
{
	struct software_breakpoint new = {.address = address};

	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].address == address)
			return 0;
	if (gdb->software_count == SOFTWARE_MAX)
		return -ENOSPC;
	if (!find_place(gdb, address, &new.gpa) ||
	    guest_memory_read(gdb->machine.memory, new.gpa, &new.original, 1) < 0)
		return -EFAULT;
	/* The same place under another address: the INT3 there is ours. */
	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].gpa == new.gpa)
			new.original = gdb->software[n].original;
	gdb->software[gdb->software_count++] = new;
	put(gdb, new.gpa, INT3);
	return 0;
}

static void remove_software(struct gdb *gdb, u32 index)
{
	struct software_breakpoint gone = gdb->software[index];
	u8 now;

	gdb->software[index] = gdb->software[--gdb->software_count];
	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].gpa == gone.gpa)
			return;
	/* The guest may have put something else there. */
	if (guest_memory_read(gdb->machine.memory, gone.gpa, &now, 1) == 0 && now == INT3)
		put(gdb, gone.gpa, gone.original);
}

void breakpoints_hide(const struct gdb *gdb, u64 gpa, u8 *bytes, u64 length)
{
	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].gpa - gpa < length)
			bytes[gdb->software[n].gpa - gpa] = gdb->software[n].original;
}

void breakpoints_keep(struct gdb *gdb, u64 gpa, u8 *bytes, u64 length)
{
	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].gpa - gpa < length)
			gdb->software[n].original = bytes[gdb->software[n].gpa - gpa];
	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].gpa - gpa < length)
			bytes[gdb->software[n].gpa - gpa] = INT3;
}

bool breakpoint_is_ours(struct gdb *gdb, u32 cpu, u64 pc)
{
	u64 gpa;

	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].address == pc)
			return true;
	/* Put there under another address, or under a physical one. */
	if (!gdb->software_count || !memory_find(gdb, cpu, false, pc, &gpa))
		return false;
	for (u32 n = 0; n < gdb->software_count; n++)
		if (gdb->software[n].gpa == gpa)
			return true;
	return false;
}

/* ---- hardware ---- */

/** Bytes that one register can watch from @address on, of @length: a power of two, aligned. */
static u32 watchable(u64 address, u64 length)
{
	u32 bytes = 8;

	while (bytes > length || (address & (bytes - 1)))
		bytes /= 2;
	return bytes;
}

static u32 find_hardware(const struct gdb *gdb, u32 from, char type, u64 address, u64 length)
{
	u32 n;

	for (n = from; n < HARDWARE_MAX; n++) {
		const struct hardware_breakpoint *h = &gdb->hardware[n];
		if (h->length == length && (!length || (h->type == type && h->address == address)))
			break;
	}
	return n;
}

static void remove_hardware(struct gdb *gdb, char type, u64 address, u64 length)
{
	u32 n;

	while ((n = find_hardware(gdb, 0, type, address, length)) < HARDWARE_MAX)
		gdb->hardware[n].length = 0;
}

static int insert_hardware(struct gdb *gdb, char type, u64 address, u64 length)
{
	if (find_hardware(gdb, 0, type, address, length) < HARDWARE_MAX)
		return 0;
	for (u64 done = 0, piece; done < length; done += piece) {
		piece = type == '1' ? length : watchable(address + done, length - done);
		u32 n = find_hardware(gdb, 0, type, 0, 0);
		if (n == HARDWARE_MAX) {
			remove_hardware(gdb, type, address, length);
			return -ENOSPC;
		}
		gdb->hardware[n] = (struct hardware_breakpoint){
		    .address = address,
		    .length = length,
		    .watched = address + done,
		    .bytes = (u32)piece,
		    .type = type,
		};
	}
	return 0;
}

/** R/Wn and LENn of DR7 (SDM 3B 17.2.4). */
static u64 dr7_of(const struct hardware_breakpoint *h)
{
	static const u8 lengths[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};

	if (h->type == '1') /* instructions: LEN is 0 */
		return 0;
	return (h->type == '2' ? 1 : 3) | (u64)lengths[h->bytes] << 2;
}

u32 breakpoints_debug(const struct gdb *gdb, struct kvm_guest_debug *debug)
{
	u32 flags = gdb->software_count ? KVM_GUESTDBG_USE_SW_BP : 0;

	for (u32 n = 0; n < HARDWARE_MAX; n++) {
		const struct hardware_breakpoint *h = &gdb->hardware[n];
		if (!h->length)
			continue;
		flags |= KVM_GUESTDBG_USE_HW_BP;
		debug->arch.debugreg[n] = h->watched;
		debug->arch.debugreg[7] |= 2ull << (2 * n) | dr7_of(h) << (16 + 4 * n);
	}
	if (flags & KVM_GUESTDBG_USE_HW_BP)
		debug->arch.debugreg[7] |= BIT(9) | BIT(10); /* GE, and a bit that is always 1 */
	return flags;
}

/* ---- all ---- */

int breakpoint_insert(struct gdb *gdb, char type, u64 address, u64 length)
{
	switch (type) {
	case '0':
		return insert_software(gdb, address);
	case '1':
		return insert_hardware(gdb, type, address, 1);
	case '2':
	case '4': /* '3', reads only, is not among the processor's; gdb makes do with '4' */
		if (length == 0 || length > 8 * HARDWARE_MAX)
			return -EINVAL;
		return insert_hardware(gdb, type, address, length);
	default:
		return -ENOTSUP;
	}
}

int breakpoint_remove(struct gdb *gdb, char type, u64 address, u64 length)
{
	switch (type) {
	case '0':
		for (u32 n = 0; n < gdb->software_count; n++) {
			if (gdb->software[n].address == address) {
				remove_software(gdb, n);
				break;
			}
		}
		return 0;
	case '1':
		remove_hardware(gdb, type, address, 1);
		return 0;
	case '2':
	case '4':
		if (length)
			remove_hardware(gdb, type, address, length);
		return 0;
	default:
		return -ENOTSUP;
	}
}

void breakpoints_remove_all(struct gdb *gdb)
{
	while (gdb->software_count)
		remove_software(gdb, gdb->software_count - 1);
	memset(gdb->places, 0, sizeof(gdb->places));
	memset(gdb->hardware, 0, sizeof(gdb->hardware));
}

void breakpoints_forget(struct gdb *gdb)
{
	gdb->software_count = 0;
	memset(gdb->places, 0, sizeof(gdb->places));
	memset(gdb->hardware, 0, sizeof(gdb->hardware));
}
