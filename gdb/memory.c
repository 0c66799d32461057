/* Guest memory as a debugger asks for it: RAM only, since reading a device is an act. */
#include <errno.h>
#include <string.h>

#include "debug/walk.h"
#include "gdb/internal.h"
#include "gdb/vmx.h"
#include "memory/memory.h"

#define CR4_LA57 BIT(12)
#define EFER_LMA BIT(10)

/** SDM 1 3.3.7.1: an address that is not canonical leads nowhere. */
static bool is_canonical(const struct kvm_sregs *sregs, u64 linear)
{
	u32 unused = sregs->cr4 & CR4_LA57 ? 64 - 57 : 64 - 48;

	if (!(sregs->efer & EFER_LMA))
		return true;
	return (u64)((s64)(linear << unused) >> unused) == linear;
}

/* How addresses are understood: physical, or linear as a vCPU in the state of .sregs sees them. */
struct space {
	struct gdb *gdb;
	bool physical;
	struct kvm_sregs sregs;
	u64 eptp;
};

static bool open_space(struct space *space, struct gdb *gdb, u32 cpu, bool physical)
{
	space->gdb = gdb;
	space->physical = physical;
	space->eptp = physical ? 0 : vmx_eptp(gdb, cpu);
	return physical ||
	       gdb->machine.engine->vcpu_get_sregs(gdb->machine.cpus[cpu], &space->sregs) == 0;
}

static bool to_physical(const struct space *space, u64 address, u64 *gpa)
{
	struct walk walk;

	*gpa = address;
	if (space->physical)
		return true;
	if (!is_canonical(&space->sregs, address))
		return false;
	walk_linear(space->gdb->machine.memory, &space->sregs, space->eptp, address, &walk);
	*gpa = walk.physical;
	return walk.mapped;
}

/** The host's view of what is at @address, and how much of it lies together; NULL: no RAM. */
static u8 *find(const struct space *space, u64 address, u64 *length, u64 *gpa)
{
	u64 rest = GUEST_PAGE_SIZE - (address & (GUEST_PAGE_SIZE - 1));

	if (*length > rest)
		*length = rest;
	if (!to_physical(space, address, gpa))
		return NULL;
	return guest_memory_at(space->gdb->machine.memory, *gpa, *length);
}

u64 memory_read(struct gdb *gdb, bool physical, u64 address, void *to, u64 length)
{
	struct space space;
	u64 done = 0, gpa;

	if (!open_space(&space, gdb, gdb->cpu, physical))
		return 0;
	while (done < length) {
		u64 piece = length - done;
		const u8 *host = find(&space, address + done, &piece, &gpa);
		if (!host)
			break;
		memcpy((u8 *)to + done, host, piece);
		breakpoints_hide(gdb, gpa, (u8 *)to + done, piece);
		done += piece;
	}
	return done;
}

int memory_write(struct gdb *gdb, bool physical, u64 address, const void *from, u64 length)
{
	const struct gdb_machine *m = &gdb->machine;
	struct space space;
	u64 piece, gpa;

	if (!open_space(&space, gdb, gdb->cpu, physical))
		return -EFAULT;
	for (u64 done = 0; done < length; done += piece) {
		piece = length - done;
		if (!find(&space, address + done, &piece, &gpa))
			return -EFAULT;
	}
	for (u64 done = 0; done < length; done += piece) {
		piece = length - done;
		u8 *host = find(&space, address + done, &piece, &gpa);
		if (!host) /* the first piece has changed the page tables of the second */
			return -EFAULT;
		memcpy(host, (const u8 *)from + done, piece);
		breakpoints_keep(gdb, gpa, host, piece);
		m->engine->vm_memory_written(m->engine_vm, gpa, piece);
	}
	return 0;
}

bool memory_find(struct gdb *gdb, u32 cpu, bool physical, u64 address, u64 *gpa)
{
	struct space space;
	u64 length = 1;

	return open_space(&space, gdb, cpu, physical) && find(&space, address, &length, gpa);
}
