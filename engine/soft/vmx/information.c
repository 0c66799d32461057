#include "engine/soft/vmx/information.h"

#include "engine/soft/system/priv.h"

#define INFORMATION_REGISTER BIT(10)
#define INFORMATION_NO_INDEX BIT(22)
#define INFORMATION_NO_BASE  BIT(27)

static u32 log2_of(u32 power)
{
	return (u32)__builtin_ctz(power);
}

/* 2, 4, 8 bytes: 0, 1, 2. */
static u32 size_code(u32 bytes)
{
	return log2_of(bytes) - 1;
}

u32 vmx_information_memory(const struct insn *i)
{
	u32 information = size_code(i->addrsize) << 7 | (u32)i->seg << 15;

	if (i->index == REG_NONE)
		information |= INFORMATION_NO_INDEX;
	else
		information |= log2_of(i->scale) | (u32)i->index << 18;
	if (i->base == REG_NONE)
		information |= INFORMATION_NO_BASE;
	else
		information |= (u32)i->base << 23;
	return information;
}

u32 vmx_information_operand(const struct insn *i)
{
	return i->is_mem ? vmx_information_memory(i) : INFORMATION_REGISTER | (u32)i->rm << 3;
}

u64 vmx_operand_displacement(const struct soft_vcpu *v, const struct insn *i)
{
	if (!i->is_mem)
		return 0;
	return in_64bit(v) ? (u64)i->disp : (u32)i->disp;
}

void vmx_exit_operand(struct soft_vcpu *v, const struct insn *i, u32 reason, u32 reg)
{
	vmx_exit(v, &(struct vmx_exit){
			.reason = reason,
			.length = i->length,
			.qualification = vmx_operand_displacement(v, i),
			.information = vmx_information_operand(i) | reg << 28,
		    });
}
