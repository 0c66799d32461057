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

/* ---- CMPXCHG8B, CMPXCHG16B ---- */

static bool cmpxchg16(void *host, u64 *low, u64 *high, u64 new_low, u64 new_high)
{
	bool equal;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(equal), "+m"(*(unsigned __int128 *)host), "+a"(*low), "+d"(*high)
			 : "b"(new_low), "c"(new_high)
			 : "memory");
	return equal;
}

/** EDX:EAX with ECX:EBX, or by REX.W RDX:RAX with RCX:RBX. The destination is always written. SDM
 * 2A CMPXCHG8B. */
void op_cmpxchg16b(struct soft_vcpu *v, const struct insn *i)
{
	bool wide = i->w;
	u32 half = wide ? 8 : 4, size = 2 * half;
	enum x86_seg seg = (enum x86_seg)i->seg;
	u64 linear = seg_linear(v, seg, insn_ea(v, i), size, ACCESS_WRITE);
	u64 low = v->regs[RAX] & size_mask(half), high = v->regs[RDX] & size_mask(half);
	u64 new_low = v->regs[RBX] & size_mask(half), new_high = v->regs[RCX] & size_mask(half);
	u64 memory[2] = {0};
	bool equal;

	if (wide && (linear & 15))
		raise_gp(v, 0);

	void *host = rmw_host(v, linear, size, seg == SEG_SS);

	if (host && wide) {
		memory[0] = low;
		memory[1] = high;
		equal = cmpxchg16(host, &memory[0], &memory[1], new_low, new_high);
	} else if (host) {
		memory[0] = low | high << 32;
		equal =
		    __atomic_compare_exchange_n((u64 *)host, &memory[0], new_low | new_high << 32,
						false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		u64 changed[2] = {new_low, new_high}, narrow = new_low | new_high << 32;

		mem_read_linear(v, linear, memory, size, v->mmu_index, seg == SEG_SS);
		equal =
		    wide ? memory[0] == low && memory[1] == high : memory[0] == (low | high << 32);
		const void *source = wide ? changed : &narrow;
		mem_write_linear(v, linear, equal ? source : memory, size, v->mmu_index,
				 seg == SEG_SS);
	}
	if (!equal) {
		v->regs[RAX] = wide ? memory[0] : (u32)memory[0];
		v->regs[RDX] = wide ? memory[1] : memory[0] >> 32;
	}
	set_arith_flag(v, RFLAGS_ZF, equal);
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
