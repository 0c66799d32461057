/* Ports and MMIO: to the interrupt chips, or on their way to and from the monitor. */
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/io.h"
#include "engine/soft/system/debug.h"

/* KVM_EXIT_IO: the data lie in the page after struct kvm_run, as KVM has them. */
#define IO_DATA_OFFSET PAGE_SIZE

static void fill_run_io(struct kvm_run *run, u16 port, u32 size, bool write)
{
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	run->io.size = (u8)size;
	run->io.port = port;
	run->io.count = 1;
	run->io.data_offset = IO_DATA_OFFSET;
	*(u64 *)((u8 *)run + IO_DATA_OFFSET) = 0;
}

static void fill_run_mmio(struct kvm_run *run, u64 gpa, u32 size, bool write)
{
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = gpa;
	run->mmio.len = size;
	run->mmio.is_write = write;
	__builtin_memset(run->mmio.data, 0, sizeof(run->mmio.data));
}

/** The answer of an earlier exit to this read, if this instruction is being replayed. */
static bool log_lookup(struct soft_vcpu *v, bool port, u64 addr, void *buf, u32 size)
{
	if (v->io_cursor >= v->io_logged)
		return false;

	const struct io_access *a = &v->io_log[v->io_cursor];

	if (a->port != port || a->addr != addr || a->size != size) {
		/* Not the instruction that was begun (another processor rewrote it): what was
		 * read for the old one is lost, as if it had been discarded. */
		v->io_logged = v->io_cursor;
		return false;
	}
	gp_copy(buf, a->data, size);
	v->io_cursor++;
	return true;
}

static void monitor_read(struct soft_vcpu *v, bool port, u64 addr, void *buf, u32 size)
{
	if (log_lookup(v, port, addr, buf, size))
		return;
	if (v->io_cursor == IO_LOG_SIZE) {
		/* More reads in one instruction than any has that is meant for devices. */
		gp_fill(buf, 0xff, size);
		return;
	}
	/* Earlier writes reach their devices first; then the instruction starts again. */
	if (v->io_head != v->io_tail) {
		vcpu_attention(v, ATTENTION_QUEUE);
		vcpu_resume(v);
	}
	if (port)
		fill_run_io(v->base.run, (u16)addr, size, false);
	else
		fill_run_mmio(v->base.run, addr, size, false);
	v->leave = LEAVE_READ;
	vcpu_exit(v);
}

static u64 low_bytes(u64 value, u32 size)
{
	return value & ~0ull >> (64 - 8 * size);
}

static void monitor_write(struct soft_vcpu *v, bool port, u64 addr, u64 value, u32 size)
{
	u32 next = (v->io_tail + 1) % IO_QUEUE_SIZE;

	vcpu_attention(v, ATTENTION_QUEUE);
	/* The queue holds a page in pieces of 8 bytes and more: no instruction fills it. */
	if (unlikely(next == v->io_head))
		return;

	struct io_access *a = &v->io_queue[v->io_tail];

	value = low_bytes(value, size);
	a->addr = addr;
	a->size = (u8)size;
	a->port = port;
	a->write = true;
	__builtin_memcpy(a->data, &value, sizeof(value));
	v->io_tail = next;
}

bool io_queue_next(struct soft_vcpu *v)
{
	if (v->io_head == v->io_tail)
		return false;

	const struct io_access *a = &v->io_queue[v->io_head];
	struct kvm_run *run = v->base.run;

	if (a->port) {
		fill_run_io(run, (u16)a->addr, a->size, true);
		__builtin_memcpy((u8 *)run + IO_DATA_OFFSET, a->data, sizeof(a->data));
	} else {
		fill_run_mmio(run, a->addr, a->size, true);
		__builtin_memcpy(run->mmio.data, a->data, sizeof(a->data));
	}
	v->io_head = (v->io_head + 1) % IO_QUEUE_SIZE;
	if (v->io_head == v->io_tail)
		atomic_fetch_and(&v->attention, ~(u32)ATTENTION_QUEUE);
	return true;
}

void io_complete_read(struct soft_vcpu *v)
{
	const struct kvm_run *run = v->base.run;
	struct io_access a = {.write = false};

	if (v->io_logged >= IO_LOG_SIZE)
		return;
	if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN) {
		a.port = true;
		a.addr = run->io.port;
		a.size = run->io.size;
		gp_copy(a.data, (const u8 *)run + IO_DATA_OFFSET, sizeof(a.data));
	} else if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write) {
		a.addr = run->mmio.phys_addr;
		a.size = (u8)run->mmio.len;
		gp_copy(a.data, run->mmio.data, sizeof(a.data));
	} else {
		return;
	}
	/* base.run is the monitor's to write: its sizes are not to be trusted. */
	if (a.size <= sizeof(a.data))
		v->io_log[v->io_logged++] = a;
}

/** The largest naturally aligned piece of at most 8 bytes at the start of [gpa, gpa+size). */
static u32 piece_size(u64 gpa, u32 size)
{
	u32 piece = 8;

	while (piece > size || (gpa & (piece - 1)))
		piece /= 2;
	return piece;
}

static bool chip_mmio(struct soft_vcpu *v, u64 gpa, u32 size, u64 *value, bool write)
{
	bool handled = v->vm->irqchip && irqchip_mmio(v, gpa, size, value, write);
	v->stats.exits_light += handled;
	return handled;
}

static bool chip_port(struct soft_vcpu *v, u16 port, u32 size, u32 *value, bool write)
{
	bool handled = v->vm->irqchip && irqchip_port(v, port, size, value, write);
	v->stats.exits_light += handled;
	return handled;
}

void mmio_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size)
{
	for (u32 done = 0, piece; done < size; done += piece) {
		u64 value = 0;

		piece = piece_size(gpa + done, size - done);
		if (!chip_mmio(v, gpa + done, piece, &value, false))
			monitor_read(v, false, gpa + done, &value, piece);
		ram_copy((u8 *)buf + done, &value, piece);
	}
}

void mmio_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	for (u32 done = 0, piece; done < size; done += piece) {
		u64 value = 0;

		piece = piece_size(gpa + done, size - done);
		ram_copy(&value, (const u8 *)buf + done, piece);
		if (!chip_mmio(v, gpa + done, piece, &value, true))
			monitor_write(v, false, gpa + done, value, piece);
	}
}

u32 port_read(struct soft_vcpu *v, u16 port, u32 size)
{
	u32 value = 0;

	if (!chip_port(v, port, size, &value, false))
		monitor_read(v, true, port, &value, size);
	return value;
}

void port_write(struct soft_vcpu *v, u16 port, u32 size, u32 value)
{
	if (!chip_port(v, port, size, &value, true))
		monitor_write(v, true, port, value, size);
}

void port_write_last(struct soft_vcpu *v, u16 port, u32 size, u32 value)
{
	if (chip_port(v, port, size, &value, true))
		return;
	if (v->io_head != v->io_tail || v->running || debug_armed(v) || !v->vm->tune.exits) {
		monitor_write(v, true, port, value, size);
		return;
	}
	u64 data = low_bytes(value, size);
	v->rip = v->next_rip;
	fill_run_io(v->base.run, port, size, true);
	__builtin_memcpy((u8 *)v->base.run + IO_DATA_OFFSET, &data, sizeof(data));
	vcpu_exit(v);
}
