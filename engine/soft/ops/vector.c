/*
 * Vector instructions that touch memory element by element: MASKMOV* and gathers.
 * The guest's vector registers are live in the host's: they are stored to v->vec, and loaded back
 * after changes, by inline assembly only.
 */
#include "engine/soft/ops/operand.h"

/* X(number) for each vector register. */
#define VECTOR_REGISTERS(X)                                                                        \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

#define STORE_YMM(n) "vmovdqa %%ymm" #n ", " #n "*64(%0)\n\t"
#define STORE_XMM(n) "movdqa %%xmm" #n ", " #n "*64(%0)\n\t"
#define STORE_MM(n)  "movq %%mm" #n ", " #n "*64(%0)\n\t"
#define LOAD_YMM(n)                                                                                \
	case n:                                                                                    \
		__asm__ volatile("vmovdqa %0, %%ymm" #n : : "m"(v->vec[n]));                       \
		break;

static void store_ymm(struct soft_vcpu *v)
{
	__asm__ volatile(VECTOR_REGISTERS(STORE_YMM) : : "r"(v->vec) : "memory");
}

/* Clears what a wider register has above, as every VEX instruction does with its destination; so
 * only those that the instruction writes may be loaded. */
static void load_ymm(struct soft_vcpu *v, u32 number)
{
	switch (number) {
		VECTOR_REGISTERS(LOAD_YMM)
	}
}

static void store_xmm(struct soft_vcpu *v)
{
	__asm__ volatile(VECTOR_REGISTERS(STORE_XMM) : : "r"(v->vec) : "memory");
}

static void store_mm(struct soft_vcpu *v)
{
	__asm__ volatile(STORE_MM(0) STORE_MM(1) STORE_MM(2) STORE_MM(3) STORE_MM(4) STORE_MM(5)
			     STORE_MM(6) STORE_MM(7)
			 :
			 : "r"(v->vec)
			 : "memory");
}

static u64 element_get(const u8 *reg, u32 k, u32 size)
{
	switch (size) {
	case 1:
		return reg[k];
	case 4:
		return ((const u32 *)reg)[k];
	default:
		return ((const u64 *)reg)[k];
	}
}

static void element_set(u8 *reg, u32 k, u32 size, u64 value)
{
	if (size == 4)
		((u32 *)reg)[k] = (u32)value;
	else
		((u64 *)reg)[k] = value;
}

/** The top bit of a mask's element selects. */
static bool element_selected(const u8 *mask, u32 k, u32 size)
{
	return mask[(k + 1) * size - 1] & 0x80;
}

/** Clears the bytes of a register from @bytes on. */
static void clear_above(u8 *reg, u32 bytes)
{
	for (u32 k = bytes; k < 32; k++)
		reg[k] = 0;
}

/* ---- masked moves ---- */

/** Stores the selected elements, after all of them have been checked. Others are never touched. */
static void masked_store(struct soft_vcpu *v, const struct insn *i, u64 offset, const u8 *data,
			 const u8 *mask, u32 size, u32 count)
{
	enum x86_seg seg = (enum x86_seg)i->seg;
	u64 wrap = size_mask(i->addrsize);

	for (u32 k = 0; k < count; k++)
		if (element_selected(mask, k, size)) {
			u64 linear =
			    seg_linear(v, seg, (offset + k * size) & wrap, size, ACCESS_WRITE);

			mem_probe_write(v, linear, size, v->mmu_index, seg == SEG_SS);
		}
	for (u32 k = 0; k < count; k++)
		if (element_selected(mask, k, size))
			mem_write(v, seg, (offset + k * size) & wrap, size,
				  element_get(data, k, size));
}

static void masked_load(struct soft_vcpu *v, const struct insn *i, const u8 *mask, u32 size,
			u32 count)
{
	u64 offset = insn_ea(v, i), value[8];
	u8 *dst = v->vec[i->reg & 15];

	for (u32 k = 0; k < count; k++)
		value[k] = element_selected(mask, k, size)
			       ? mem_read(v, (enum x86_seg)i->seg,
					  (offset + k * size) & size_mask(i->addrsize), size)
			       : 0;
	for (u32 k = 0; k < count; k++)
		element_set(dst, k, size, value[k]);
	clear_above(dst, i->opsize);
	load_ymm(v, i->reg & 15);
}

/** MASKMOVQ, MASKMOVDQU: bytes to DS:rDI. The MMX form has an operand size of 8. SDM 2B. */
static void byte_mask_store(struct soft_vcpu *v, const struct insn *i)
{
	bool mmx = i->opsize == 8;

	if (mmx)
		store_mm(v);
	else
		store_xmm(v);

	u32 registers = mmx ? 7 : 15;
	u64 offset = v->regs[RDI] & size_mask(i->addrsize);

	/* Segment checks are the whole operand's, whatever the mask; those of pages are not. */
	seg_linear(v, (enum x86_seg)i->seg, offset, i->opsize, ACCESS_WRITE);
	masked_store(v, i, offset, v->vec[i->reg & registers], v->vec[i->rm & registers], 1,
		     mmx ? 8 : 16);
}

/** VMASKMOVPS, VMASKMOVPD (0F38 2C to 2F), VPMASKMOVD/Q (0F38 8C, 8E): load and store forms. SDM
 * 2C. */
static void element_mask_move(struct soft_vcpu *v, const struct insn *i)
{
	bool integer = i->opcode >= 0x80;
	bool is_store = integer ? i->opcode == 0x8e : i->opcode >= 0x2e;
	bool wide = integer ? i->w : i->opcode & 1;
	u32 size = wide ? 8 : 4, count = i->opsize / size;

	store_ymm(v);

	const u8 *mask = v->vec[i->vvvv & 15];

	if (is_store)
		masked_store(v, i, insn_ea(v, i), v->vec[i->reg & 15], mask, size, count);
	else
		masked_load(v, i, mask, size, count);
}

void op_maskmov(struct soft_vcpu *v, const struct insn *i)
{
	if (i->map == 1)
		byte_mask_store(v, i);
	else
		element_mask_move(v, i);
}

/* ---- gathers ---- */

/* 0F38 90 to 93: bit 0 of the opcode gives the index size, VEX.W the data size. SDM 2C VGATHER*,
 * VPGATHER*. */
struct gather {
	u8 *dst, *mask;
	const u8 *index;
	u32 data_size, index_size, count;
	bool changed; /* an element is complete */
};

static u64 gather_offset(const struct soft_vcpu *v, const struct insn *i, const struct gather *g,
			 u32 k)
{
	u64 index = element_get(g->index, k, g->index_size);
	u64 base = i->base == REG_NONE ? 0 : v->regs[(u8)i->base & 15];

	if (g->index_size == 4)
		index = (u64)(s64)(s32)index;
	return (base + index * i->scale + (u64)i->disp) & size_mask(i->addrsize);
}

/** One element. Where it may fault or leave, the elements before it are completed in the registers
 * first. */
static u64 gather_element(struct soft_vcpu *v, const struct insn *i, const struct gather *g,
			  u64 offset)
{
	u32 size = g->data_size;
	enum x86_seg seg = (enum x86_seg)i->seg;

	if (likely(seg_check(v, seg, offset, size, ACCESS_READ))) {
		u64 linear = seg_linear(v, seg, offset, size, ACCESS_READ);
		const void *host = tlb_lookup(v, linear, size, false, v->mmu_index);

		if (likely(host))
			return size == 4 ? *(const u32 *)host : *(const u64 *)host;
	}
	/* But not what the I/O log answered: its reads come again, in their order, if this one
	 * leaves. */
	if (!v->io_cursor) {
		if (g->changed)
			load_ymm(v, i->reg & 15);
		load_ymm(v, i->vvvv & 15);
	}
	return mem_read(v, seg, offset, size);
}

void op_gather(struct soft_vcpu *v, const struct insn *i)
{
	u8 dst = i->reg & 15, mask = i->vvvv & 15, index = (u8)i->index & 15;
	struct gather g = {
	    .dst = v->vec[dst],
	    .mask = v->vec[mask],
	    .index = v->vec[index],
	    .data_size = i->w ? 8 : 4,
	    .index_size = i->opcode & 1 ? 8 : 4,
	};

	if (dst == mask || dst == index || mask == index)
		raise_ud(v);
	g.count = i->opsize / (g.data_size > g.index_size ? g.data_size : g.index_size);
	store_ymm(v);
	for (u32 k = 0; k < i->opsize / g.data_size; k++)
		element_set(g.mask, k, g.data_size,
			    element_selected(g.mask, k, g.data_size) ? ~0ull : 0);
	/* A gather that faults on its way has cleared the mask's upper half, and the destination's
	 * if it has completed an element, as processors do. */
	clear_above(g.mask, i->opsize);
	for (u32 k = 0; k < g.count; k++) {
		if (!element_selected(g.mask, k, g.data_size))
			continue;
		u64 offset = gather_offset(v, i, &g, k);

		element_set(g.dst, k, g.data_size, gather_element(v, i, &g, offset));
		g.changed = true;
		clear_above(g.dst, i->opsize); /* from the first element on */
		element_set(g.mask, k, g.data_size, 0);
		clear_above(g.dst, i->opsize);
	}
	clear_above(g.dst, g.count * g.data_size);
	clear_above(g.mask, 0);
	load_ymm(v, dst);
	load_ymm(v, mask);
}
