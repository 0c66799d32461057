/*
 * AVX-512's gathers and scatters: SDM 2C VGATHERxx, VPGATHERxx, VSCATTERxx, VPSCATTERxx with EVEX
 * prefix. Elements are done in order; those that are done are gone from the mask, so that a fault
 * on the way leaves a state from which the instruction goes on.
 */
#include "engine/soft/ops/operand.h"

#define STORE_ZMM(n)                                                                               \
	case n:                                                                                    \
		__asm__ volatile("vmovdqu64 %%zmm" #n ", (%0)" : : "r"(to) : "memory");            \
		break;
#define LOAD_ZMM(n)                                                                                \
	case n:                                                                                    \
		__asm__ volatile("vmovdqu64 (%0), %%zmm" #n : : "r"(from) : "memory");             \
		break;
#define STORE_OPMASK(n)                                                                            \
	case n:                                                                                    \
		__asm__ volatile("kmovq %%k" #n ", %0" : "=r"(value));                             \
		break;
#define LOAD_OPMASK(n)                                                                             \
	case n:                                                                                    \
		__asm__ volatile("kmovq %0, %%k" #n : : "r"(value));                               \
		break;

#define OPMASKS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
/* clang-format off */
#define ZMM_REGISTERS(X)                                                                 \
	X(0)  X(1)  X(2)  X(3)  X(4)  X(5)  X(6)  X(7)  X(8)  X(9)  X(10) X(11) X(12) X(13) \
	X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) \
	X(28) X(29) X(30) X(31)
/* clang-format on */

static void store_zmm(u32 number, u8 *to)
{
	switch (number) {
		ZMM_REGISTERS(STORE_ZMM)
	}
}

static void load_zmm(u32 number, const u8 *from)
{
	switch (number) {
		ZMM_REGISTERS(LOAD_ZMM)
	}
}

static u64 store_opmask(u32 number)
{
	u64 value = 0;
	switch (number) {
		OPMASKS(STORE_OPMASK)
	}
	return value;
}

static void load_opmask(u32 number, u64 value)
{
	switch (number) {
		OPMASKS(LOAD_OPMASK)
	}
}

/* Bit 0 of the opcode gives the index size, EVEX.W the data size. */
struct transfer {
	u8 *data;
	const u8 *index;
	u32 data_size, index_size, count;
	u64 mask; /* without the elements that are done; more bits than elements */
};

static struct transfer begin(struct soft_vcpu *v, const struct insn *i)
{
	struct transfer t = {
	    .data = v->vec[0],
	    .index = v->vec[2],
	    .data_size = i->w ? 8 : 4,
	    .index_size = i->opcode & 1 ? 8 : 4,
	};
	if (!i->mask)
		raise_ud(v);
	t.count = i->opsize / (t.data_size > t.index_size ? t.data_size : t.index_size);
	t.mask = store_opmask(i->mask);
	store_zmm(i->reg, v->vec[0]);
	store_zmm((u8)i->index, v->vec[2]);
	return t;
}

static u64 element_offset(const struct soft_vcpu *v, const struct insn *i, const struct transfer *t,
			  u32 k)
{
	u64 index =
	    t->index_size == 4 ? (u64)(s64)((const s32 *)t->index)[k] : ((const u64 *)t->index)[k];
	u64 base = i->base == REG_NONE ? 0 : v->regs[(u8)i->base & 15];

	return (base + index * i->scale + (u64)i->disp) & size_mask(i->addrsize);
}

static void clear_above(u8 *reg, u32 bytes)
{
	for (u32 k = bytes; k < 64; k++)
		reg[k] = 0;
}

/* Whether the element's access is one that can neither fault nor leave. */
static void *element_host(struct soft_vcpu *v, const struct insn *i, u64 offset, u32 size,
			  bool write)
{
	enum x86_seg seg = (enum x86_seg)i->seg;
	enum access access = write ? ACCESS_WRITE : ACCESS_READ;

	if (!seg_check(v, seg, offset, size, access))
		return NULL;
	return tlb_lookup(v, seg_linear(v, seg, offset, size, access), size, write, v->mmu_index);
}

void op_gather_k(struct soft_vcpu *v, const struct insn *i)
{
	if (i->reg == (u8)i->index)
		raise_ud(v);
	struct transfer t = begin(v, i);
	bool changed = false;

	for (u32 k = 0; k < t.count; k++) {
		if (!(t.mask & BIT(k)))
			continue;
		u64 offset = element_offset(v, i, &t, k);
		const void *host = element_host(v, i, offset, t.data_size, false);
		u64 value;
		/* Where this one may fault or leave, those before it are completed first; but not
		 * what the I/O log answered: its reads come again, in their order. */
		if (!host && changed && !v->io_cursor) {
			load_zmm(i->reg, t.data);
			load_opmask(i->mask, t.mask);
		}
		if (!host)
			value = mem_read(v, (enum x86_seg)i->seg, offset, t.data_size);
		else
			value = t.data_size == 4 ? *(const u32 *)host : *(const u64 *)host;
		if (t.data_size == 4)
			((u32 *)t.data)[k] = (u32)value;
		else
			((u64 *)t.data)[k] = value;
		clear_above(t.data, i->opsize);
		t.mask &= ~BIT(k);
		changed = true;
	}
	clear_above(t.data, t.count * t.data_size);
	load_zmm(i->reg, t.data);
	load_opmask(i->mask, 0);
}

void op_scatter(struct soft_vcpu *v, const struct insn *i)
{
	struct transfer t = begin(v, i);

	for (u32 k = 0; k < t.count; k++) {
		if (!(t.mask & BIT(k)))
			continue;
		u64 offset = element_offset(v, i, &t, k);
		u64 value = t.data_size == 4 ? ((const u32 *)t.data)[k] : ((const u64 *)t.data)[k];
		void *host = element_host(v, i, offset, t.data_size, true);
		if (!host) {
			load_opmask(i->mask, t.mask);
			mem_write(v, (enum x86_seg)i->seg, offset, t.data_size, value);
		} else if (t.data_size == 4) {
			*(u32 *)host = (u32)value;
		} else {
			*(u64 *)host = value;
		}
		t.mask &= ~BIT(k);
	}
	load_opmask(i->mask, 0);
}
