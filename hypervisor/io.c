// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Port I/O, single and strings. Every port exits; the owner does the access.
 *
 * OUT is over for the guest when the owner is asked; IN is completed by the next KVM_RUN. A string
 * goes out up to the end of a page at a time, one exit each.
 *
 * Source: SDM 3C table 27-5 (exit qualification), SDM 3C 25.1.3.
 */
#include <linux/kernel.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

#define QUALIFICATION_IN     BIT(3)
#define QUALIFICATION_STRING BIT(4)
#define QUALIFICATION_REP    BIT(5)

/* The VM-exit instruction information for INS and OUTS (SDM 3C table 27-9). */
#define INFO_ADDRESS_BYTES(info) (2u << (((info) >> 7) & 3))

static u64 address_mask(u32 address_bytes)
{
	return address_bytes == 8 ? ~0ull : (1ull << (address_bytes * 8)) - 1;
}

static u64 register_part(u64 old, u64 value, u32 bytes)
{
	/* 32-bit results clear the upper half, 16-bit ones leave the rest alone. */
	if (bytes == 2)
		return (old & ~0xffffull) | (value & 0xffff);
	return value & address_mask(bytes);
}

static void ask(struct vcpu *v, const struct io_request *io, bool in)
{
	v->run->exit_reason = KVM_EXIT_IO;
	v->run->io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
	v->run->io.size = io->size;
	v->run->io.port = io->port;
	v->run->io.count = io->count;
	v->run->io.data_offset = PAGE_SIZE;
}

/* The access has been made, or is out of the guest's hands. */
static void finish(struct vcpu *v, const struct io_request *io)
{
	debug_port_used(v, io->port, io->size);
	vcpu_skip(v);
}

/* Moves the registers behind the elements of a string; the instruction is over if none is left. */
static void advance(struct vcpu *v, const struct io_request *io, bool rep, int index)
{
	u64 *r = (u64 *)v->registers.r;
	s64 step = field_get(v, FIELD_RFLAGS) & X86_EFLAGS_DF ? -(s64)io->size : io->size;

	r[index] = register_part(r[index], r[index] + step * io->count, io->address_bytes);
	if (rep) {
		r[RCX] = register_part(r[RCX], r[RCX] - io->count, io->address_bytes);
		if (r[RCX] & address_mask(io->address_bytes))
			return;
	}
	finish(v, io);
}

/* Elements up to the end of the page, in one exit; one at a time if they run downward or across. */
static u32 batch(struct vcpu *v, u64 linear, u64 left, u32 size)
{
	u32 room = (PAGE_SIZE - offset_in_page(linear)) / size;

	if ((field_get(v, FIELD_RFLAGS) & X86_EFLAGS_DF) || !room)
		return 1;
	return min_t(u64, left, room);
}

static int string_io(struct vcpu *v, u64 qualification, struct io_request *io)
{
	bool in = qualification & QUALIFICATION_IN, rep = qualification & QUALIFICATION_REP;
	u32 address_bytes = INFO_ADDRESS_BYTES(vmcs_read(VMX_INSTRUCTION_INFO));
	u32 access = vcpu_cpl(v) == 3 ? ACCESS_USER : 0;
	u64 linear = vmcs_read(GUEST_LINEAR_ADDRESS);
	u64 left = rep ? v->registers.r[RCX] & address_mask(address_bytes) : 1;
	struct walk_fault fault;
	u64 gpa;
	int ret;

	if (!left) {
		vcpu_skip(v);
		return 1;
	}
	io->count = batch(v, linear, left, io->size);
	io->linear = linear;
	io->string = true;
	io->address_bytes = address_bytes;
	if (in) {
		/* Faults come before the port is read. */
		ret = walk(v, linear, access | ACCESS_WRITE, &gpa, &fault);
		if (!ret)
			ret = walk(v, linear + io->count * io->size - 1, access | ACCESS_WRITE,
				   &gpa, &fault);
	} else {
		ret = linear_read(v, linear, v->port_data, io->count * io->size, access, &fault);
	}
	if (ret == -EFAULT) {
		raise_page_fault(v, &fault);
		return 1;
	}
	if (ret)
		return exit_internal_error(v, KVM_INTERNAL_ERROR_EMULATION, qualification);
	ask(v, io, in);
	if (in) {
		io->kind = IO_PORT_IN;
		v->io = *io;
	} else {
		advance(v, io, rep, RSI);
	}
	return 0;
}

static void put_rax(struct vcpu *v, u32 value, u32 size)
{
	if (size == 4)
		v->registers.r[RAX] = value;
	else
		memcpy(&v->registers.r[RAX], &value, size);
}

/* Whether the port is an interrupt chip's; then the access has been made. */
static bool chip_io(struct vcpu *v, const struct io_request *io, bool in)
{
	u32 value = v->registers.r[RAX];

	if (!irqchip_port(&v->chip, io->port, io->size, &value, !in))
		return false;
	if (in)
		put_rax(v, value, io->size);
	finish(v, io);
	return true;
}

int exit_io(struct vcpu *v)
{
	u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	struct io_request io = {
	    .size = (qualification & 7) + 1,
	    .port = qualification >> 16,
	    .count = 1,
	};

	if (qualification & QUALIFICATION_STRING) {
		int ret;

		down_read(&v->vm->memory_lock);
		ret = string_io(v, qualification, &io);
		up_read(&v->vm->memory_lock);
		return ret;
	}
	if (chip_io(v, &io, qualification & QUALIFICATION_IN))
		return 1;
	ask(v, &io, qualification & QUALIFICATION_IN);
	if (qualification & QUALIFICATION_IN) {
		io.kind = IO_PORT_IN;
		v->io = io;
	} else {
		memcpy(v->port_data, &v->registers.r[RAX], io.size);
		finish(v, &io);
	}
	return 0;
}

/* The owner has put what it read into the shared page. The instruction is where it was. */
int io_complete(struct vcpu *v)
{
	struct io_request io = v->io;
	u64 qualification;
	struct walk_fault fault;
	int ret;

	v->io.kind = IO_NONE;
	if (!io.string) {
		u32 value = 0;

		memcpy(&value, v->port_data, io.size);
		put_rax(v, value, io.size);
		finish(v, &io);
		return 1;
	}
	qualification = vmcs_read(EXIT_QUALIFICATION);
	down_read(&v->vm->memory_lock);
	ret = linear_write(v, io.linear, v->port_data, io.count * io.size,
			   vcpu_cpl(v) == 3 ? ACCESS_USER : 0, &fault);
	up_read(&v->vm->memory_lock);
	if (ret == -EFAULT) {
		raise_page_fault(v, &fault);
		return 1;
	}
	if (ret)
		return exit_internal_error(v, KVM_INTERNAL_ERROR_EMULATION, qualification);
	advance(v, &io, qualification & QUALIFICATION_REP, RDI);
	return 1;
}
