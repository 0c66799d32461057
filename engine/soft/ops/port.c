/* IN, OUT, INS, OUTS, and the right to use a port. SDM 1 19.5. */
#include "engine/soft/mmu/io.h"
#include "engine/soft/ops/operand.h"
#include "engine/soft/ops/string.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/vmx/vmx.h"

#define TSS_IO_MAP_BASE 102 /* offset in a 32- or 64-bit TSS, SDM 3A 7.2.1, 7.7 */
#define TSS_32_TYPE	9   /* bit 1: busy */
#define TSS_MIN_LIMIT	103

/** Whether the I/O bitmap of the current TSS allows all of @size ports from @port. SDM 1 19.5.2. */
static bool bitmap_allows(struct soft_vcpu *v, u16 port, u32 size)
{
	const struct segment *tr = &v->tr;

	if ((tr->access & SEG_UNUSABLE) || (SEG_TYPE(tr->access) & ~2u) != TSS_32_TYPE ||
	    tr->limit < TSS_MIN_LIMIT)
		return false;

	u32 map = (u32)sys_read(v, tr->base + TSS_IO_MAP_BASE, 2);
	u32 byte = map + port / 8u;

	/* Two bytes are always read, and both must lie inside the limit. */
	if (byte + 1 > tr->limit)
		return false;

	u32 bits = (u32)sys_read(v, tr->base + byte, 2) >> (port % 8);

	return !(bits & (BIT(size) - 1));
}

static void check_port(struct soft_vcpu *v, u16 port, u32 size)
{
	bool v86 = v->rflags_sys & RFLAGS_VM;

	if (!(v->cr0 & CR0_PE))
		return;
	/* Virtual-8086 mode asks the bitmap whatever IOPL is: SDM 1 19.5.2, 3A 20.2.8.1. */
	if (!v86 && v->cpl <= (v->rflags_sys & RFLAGS_IOPL) >> 12)
		return;
	if (!bitmap_allows(v, port, size))
		raise_gp(v, 0);
}

static void note_port(struct soft_vcpu *v, u16 port, u32 size)
{
	if (unlikely(debug_armed(v)))
		v->events.debug |= debug_port_hit(v, port, size);
}

/** Operand size of port instructions: REX.W means nothing to them. */
static u32 port_size(const struct insn *i)
{
	return i->opsize > 4 ? 4 : i->opsize;
}

/** E4 to E7 name the port, EC to EF take it from DX. */
static u16 port_number(const struct soft_vcpu *v, const struct insn *i)
{
	return i->opcode & 8 ? (u16)v->regs[RDX] : (u8)i->imm;
}

/* Linear address of the element of INS or OUTS at @offset, unchecked. */
static u64 element_linear(const struct soft_vcpu *v, u32 seg, u64 offset)
{
	if (mode_is_64bit(v))
		return seg >= SEG_FS ? v->seg[seg].base + offset : offset;
	return (u32)(v->seg[seg].base + offset);
}

void op_in(struct soft_vcpu *v, const struct insn *i)
{
	u16 port = port_number(v, i);
	u32 size = port_size(i);

	check_port(v, port, size);
	if (vmx_nonroot(v))
		vmx_on_port(v, i, port, size, true);
	reg_write(v, i, RAX, size, port_read(v, port, size));
	note_port(v, port, size);
}

void op_out(struct soft_vcpu *v, const struct insn *i)
{
	u16 port = port_number(v, i);
	u32 size = port_size(i);

	check_port(v, port, size);
	if (vmx_nonroot(v))
		vmx_on_port(v, i, port, size, false);
	port_write_last(v, port, size, (u32)reg_read(v, i, RAX, size));
	note_port(v, port, size);
}

void op_ins(struct soft_vcpu *v, const struct insn *i)
{
	u16 port = (u16)v->regs[RDX];
	u32 size = port_size(i);

	check_port(v, port, size);
	if (string_is_done(v, i)) {
		v->rip = v->next_rip;
		return;
	}
	if (vmx_nonroot(v))
		vmx_on_port_string(v, i, port, size, true,
				   element_linear(v, SEG_ES, string_offset(v, i, RDI)));

	u64 linear = seg_linear(v, SEG_ES, string_offset(v, i, RDI), size, ACCESS_WRITE);

	/* The device must not be read for an element that cannot be stored. */
	mem_probe_write(v, linear, size, v->mmu_index, false);
	u32 value = port_read(v, port, size);

	mem_write_linear(v, linear, &value, size, v->mmu_index, false);
	note_port(v, port, size);
	string_advance(v, i, 1, size, STRING_DESTINATION);
	string_next(v, i);
}

void op_outs(struct soft_vcpu *v, const struct insn *i)
{
	u16 port = (u16)v->regs[RDX];
	u32 size = port_size(i);

	check_port(v, port, size);
	if (string_is_done(v, i)) {
		v->rip = v->next_rip;
		return;
	}
	if (vmx_nonroot(v))
		vmx_on_port_string(v, i, port, size, false,
				   element_linear(v, i->seg, string_offset(v, i, RSI)));

	u64 linear =
	    seg_linear(v, (enum x86_seg)i->seg, string_offset(v, i, RSI), size, ACCESS_READ);
	u32 value = 0;

	mem_read_linear(v, linear, &value, size, v->mmu_index, i->seg == SEG_SS);
	port_write(v, port, size, value);
	note_port(v, port, size);
	string_advance(v, i, 1, size, STRING_SOURCE);
	string_next(v, i);
}
