/* Read-modify-write instructions whose memory needs care: BT* with a register offset,
 * CMPXCHG8B/16B; cache lines. */
#include "engine/soft/ops/operand.h"

/* ---- bit strings ---- */

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

/** 0F A3, AB, B3, BB: the operation is in opcode bits 4:3. */
static enum bit_op bit_operation(const struct insn *i)
{
	return (enum bit_op)((i->opcode >> 3) & 3);
}

static u64 bit_apply(enum bit_op op, u64 value, u64 bit)
{
	switch (op) {
	case BIT_SET:
		return value | bit;
	case BIT_RESET:
		return value & ~bit;
	case BIT_COMPLEMENT:
		return value ^ bit;
	default:
		return value;
	}
}

/* Locked, on plain RAM: one case an access size. */
#define LOCKED_CHANGE(type)                                                                        \
	({                                                                                         \
		type *p_ = host, seen_ = __atomic_load_n(p_, __ATOMIC_RELAXED);                    \
		while (!__atomic_compare_exchange_n(p_, &seen_, (type)bit_apply(op, seen_, bit),   \
						    false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))    \
			;                                                                          \
		(u64) seen_;                                                                       \
	})

static u64 locked_bit(void *host, u32 size, enum bit_op op, u64 bit)
{
	switch (size) {
	case 2:
		return LOCKED_CHANGE(u16);
	case 4:
		return LOCKED_CHANGE(u32);
	default:
		return LOCKED_CHANGE(u64);
	}
}

/** RAM of a read-modify-write at @linear, or NULL after all its checks when it is not plain. */
static void *rmw_host(struct soft_vcpu *v, u64 linear, u32 size, bool stack)
{
	void *host = tlb_lookup(v, linear, size, true, v->mmu_index);

	if (!host)
		host = tlb_fill(v, linear, size, ACCESS_WRITE, v->mmu_index, stack);
	if (!host)
		mem_probe_write(v, linear, size, v->mmu_index, stack);
	return host;
}

void op_bit_string(struct soft_vcpu *v, const struct insn *i)
{
	enum bit_op op = bit_operation(i);
	u32 size = i->opsize, bits = size * 8;
	enum x86_seg seg = (enum x86_seg)i->seg;
	bool stack = seg == SEG_SS;

	/* The register is a signed offset in bits; SDM 2A BT, "Bit(BitBase, BitOffset)" in 3.1.1.9.
	 */
	u64 raw = reg_read(v, i, i->reg, size);
	s64 offset = (s64)(raw << (64 - bits)) >> (64 - bits);
	u64 bit = BIT((u64)offset & (bits - 1));
	u64 ea = insn_ea(v, i) + (u64)((offset >> 3) & -(s64)size);
	u64 value = 0;

	ea &= size_mask(i->addrsize);
	if (op == BIT_TEST) {
		value = mem_read(v, seg, ea, size);
	} else {
		u64 linear = seg_linear(v, seg, ea, size, ACCESS_WRITE);
		void *host = rmw_host(v, linear, size, stack);

		if (host && i->lock) {
			value = locked_bit(host, size, op, bit);
		} else {
			mem_read_linear(v, linear, &value, size, v->mmu_index, stack);
			u64 changed = bit_apply(op, value, bit);
			mem_write_linear(v, linear, &changed, size, v->mmu_index, stack);
		}
	}
	set_arith_flag(v, RFLAGS_CF, value & bit);
}

/* ---- cache lines ---- */

/** CLFLUSH, CLFLUSHOPT, CLWB check their address like a read of one byte. Caches are the host's
 * matter. */
void op_cache_line(struct soft_vcpu *v, const struct insn *i)
{
	enum x86_seg seg = (enum x86_seg)i->seg;
	u64 linear = seg_linear(v, seg, insn_ea(v, i), 1, ACCESS_READ);

	if (!tlb_lookup(v, linear, 1, false, v->mmu_index))
		tlb_fill(v, linear, 1, ACCESS_READ, v->mmu_index, seg == SEG_SS);
}
