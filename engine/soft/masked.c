/* Memory operands under an opmask that miss the TLB: element by element. Inside. */
#include "engine/soft/translate/masked.h"

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/translator.h"

#define READ_OPMASK(n)                                                                             \
	case n:                                                                                    \
		__asm__ volatile("kmovq %%k" #n ", %0" : "=r"(value));                             \
		break;

static u64 opmask(u32 number)
{
	u64 value = 0;
	switch (number) {
		READ_OPMASK(1)
		READ_OPMASK(2)
		READ_OPMASK(3)
		READ_OPMASK(4)
		READ_OPMASK(5)
		READ_OPMASK(6)
		READ_OPMASK(7)
	}
	return value;
}

static u64 low_bits(u32 count)
{
	return count >= 64 ? ~0ull : (1ull << count) - 1;
}

/* A host with opmasks has POPCNT, which the compiler does not know. */
static u32 count_bits(u64 bits)
{
	u64 count;
	__asm__("popcnt %1, %0" : "=r"(count) : "r"(bits) : "cc");
	return (u32)count;
}

/* Which of the operand's elements the instruction touches, bit by bit. */
static u64 selected_elements(u32 description, u32 count)
{
	u32 mask_bits = count << ACCESS_REPEAT(description);
	u64 mask = opmask(ACCESS_MASK(description)) & low_bits(mask_bits);

	if (description & ACCESS_PACKED)
		return low_bits(count_bits(mask));
	while (mask_bits > count) { /* an element is wanted if any of its repetitions is */
		mask_bits /= 2;
		mask = (mask | mask >> mask_bits) & low_bits(mask_bits);
	}
	return mask;
}

/* A run of selected elements that follow one another; takes it out of *elements. */
struct run {
	u32 first, count;
};

static struct run next_run(u64 *elements)
{
	struct run run = {.first = (u32)__builtin_ctzll(*elements)};
	u64 rest = ~(*elements >> run.first);

	run.count = rest ? (u32)__builtin_ctzll(rest) : 64;
	*elements &= ~(low_bits(run.count) << run.first);
	return run;
}

static u64 operand_linear(struct soft_vcpu *v, u64 address, u32 description)
{
	if (!(description & ACCESS_SEGMENTED))
		return address;
	return v->seg[ACCESS_SEG(description)].base + address;
}

static u64 truncated(const struct soft_vcpu *v, u64 linear)
{
	return (v->mode & 3) == MODE_CODE64 ? linear : (u32)linear;
}

/* What segmentation has to say, of each selected element alone: offsets wrap between them. */
static void check_segment(struct soft_vcpu *v, u64 address, u32 description, u64 elements)
{
	u32 size = ACCESS_ELEMENT(description);
	enum access access = description & ACCESS_WRITES ? ACCESS_WRITE : ACCESS_READ;

	if (!(description & ACCESS_SEGMENTED))
		return;
	for (; elements; elements &= elements - 1) {
		u32 k = (u32)__builtin_ctzll(elements);
		seg_linear(v, (enum x86_seg)ACCESS_SEG(description),
			   truncated(v, address + k * size), size, access);
	}
}

void *masked_miss(struct soft_vcpu *v, u64 address, u32 description, u64 *return_address)
{
	u32 size = ACCESS_SIZE(description), element = ACCESS_ELEMENT(description);
	u64 elements = selected_elements(description, size / element);
	u64 checked = description & ACCESS_FAULTS_WHOLE ? low_bits(size / element) : elements;
	enum mmu_index index = (enum mmu_index)ACCESS_INDEX(description);
	bool stack = description & ACCESS_STACK, writes = description & ACCESS_WRITES;
	u64 linear = operand_linear(v, address, description);
	u8 *bounce = v->bounce + (linear & 63);

	v->fault_pc = *return_address;
	/* Order as in linear_of() (dispatch.c). */
	if (checked && (description & ACCESS_ALIGNED) && (linear & (size - 1)))
		raise_gp(v, 0);
	check_segment(v, address, description, checked);
	linear = truncated(v, linear);
	if (checked && (description & ACCESS_ALIGN) && size <= 8 && (linear & (size - 1)))
		raise_error(v, EXC_AC, 0);
	if (checked && (linear & ~PAGE_MASK) + size <= PAGE_SIZE) {
		u32 first = (u32)__builtin_ctzll(checked) * element;
		u8 *p = tlb_fill(v, linear + first, element, writes ? ACCESS_WRITE : ACCESS_READ,
				 index, stack);
		if (p) {
			v->fault_pc = 0;
			return p - first;
		}
	}
	for (u64 rest = checked; rest;) {
		struct run run = next_run(&rest);
		u64 at = truncated(v, linear + run.first * element);
		if (writes)
			mem_probe_write(v, at, run.count * element, index, stack);
		else
			mem_read_linear(v, at, bounce + run.first * element, run.count * element,
					index, stack);
	}
	if (writes) {
		v->commit_linear = linear;
		v->commit_description = description;
		v->commit_elements = elements;
		*return_address += 5; /* as in soft_miss() */
	}
	v->fault_pc = 0;
	return bounce;
}

void masked_commit(struct soft_vcpu *v)
{
	u32 description = v->commit_description, element = ACCESS_ELEMENT(description);
	const u8 *bounce = v->bounce + (v->commit_linear & 63);

	for (u64 rest = v->commit_elements; rest;) {
		struct run run = next_run(&rest);
		mem_write_linear(v, truncated(v, v->commit_linear + run.first * element),
				 bounce + run.first * element, run.count * element,
				 (enum mmu_index)ACCESS_INDEX(description),
				 description & ACCESS_STACK);
	}
}
