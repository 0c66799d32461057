// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Accesses to guest-physical addresses that no slot has: a device's memory, the owner's business
 * (KVM_EXIT_MMIO).
 *
 * An instruction is carried out in one go once everything that it reads is there. If a read has to
 * come from the owner, it is asked, and the instruction is decoded once more when the answer has
 * come. Registers and RIP change before a write is handed out, so that nothing is left to do behind
 * it.
 */
#include <linux/kernel.h>
#include <asm/processor-flags.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

#define ARITHMETIC_FLAGS                                                                           \
	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF |           \
	 X86_EFLAGS_OF)

enum alu_operation { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

static u64 mask_of(u32 bytes)
{
	return bytes == 8 ? ~0ull : (1ull << (bytes * 8)) - 1;
}

/* SDM 1 appendix A: the arithmetic flags of an operation on @bytes. */
static u64 alu(enum alu_operation operation, u64 a, u64 b, u32 bytes, u64 *flags)
{
	u64 mask = mask_of(bytes), sign = (mask >> 1) + 1, f = *flags & ~(u64)ARITHMETIC_FLAGS;
	bool carry = *flags & X86_EFLAGS_CF;
	u64 result = 0;

	a &= mask;
	b &= mask;
	switch (operation) {
	case ALU_OR:
		result = a | b;
		break;
	case ALU_AND:
		result = a & b;
		break;
	case ALU_XOR:
		result = a ^ b;
		break;
	case ALU_ADD:
		carry = false;
		fallthrough;
	case ALU_ADC:
		result = (a + b + carry) & mask;
		if (result < a || (carry && result == a))
			f |= X86_EFLAGS_CF;
		if (~(a ^ b) & (a ^ result) & sign)
			f |= X86_EFLAGS_OF;
		f |= (a ^ b ^ result) & X86_EFLAGS_AF;
		break;
	case ALU_SUB:
	case ALU_CMP:
		carry = false;
		fallthrough;
	case ALU_SBB:
		result = (a - b - carry) & mask;
		if (a < b || (carry && a == b))
			f |= X86_EFLAGS_CF;
		if ((a ^ b) & (a ^ result) & sign)
			f |= X86_EFLAGS_OF;
		f |= (a ^ b ^ result) & X86_EFLAGS_AF;
		break;
	}
	if (!result)
		f |= X86_EFLAGS_ZF;
	if (result & sign)
		f |= X86_EFLAGS_SF;
	if (!(hweight8(result) & 1))
		f |= X86_EFLAGS_PF;
	*flags = f;
	return result;
}

/* What one instruction does with its memory operand. */
struct operation {
	bool reads, writes;
	u32 bytes; /* of memory */
	u64 value; /* to be written */
	bool to_register;
	int reg; /* that gets the value read, extended */
	u32 reg_bytes;
	bool sign_extend;
	bool alu, alu_to_register;
	enum alu_operation alu_operation;
	u64 other; /* the other operand */
	bool exchange;
};

/* Register @number of @bytes; without REX, 4 to 7 of one byte are AH to BH (SDM 2A 3.1.1.1). */
static u64 get_register(struct vcpu *v, const struct instruction *in, int number, u32 bytes)
{
	if (bytes == 1 && !in->rex && number >= 4)
		return (v->registers.r[number - 4] >> 8) & 0xff;
	return vcpu_get_register(v, number) & mask_of(bytes);
}

static void put_register(struct vcpu *v, const struct instruction *in, int number, u32 bytes,
			 u64 value)
{
	unsigned long *r = v->registers.r;
	u64 mask = mask_of(bytes);

	if (bytes == 1 && !in->rex && number >= 4)
		r[number - 4] = (r[number - 4] & ~0xff00ul) | (value & 0xff) << 8;
	else if (bytes >= 4)
		vcpu_set_register(v, number, value & mask);
	else
		vcpu_set_register(v, number,
				  (vcpu_get_register(v, number) & ~mask) | (value & mask));
}

/* What is to be done; false: an opcode that is not known here. */
static bool plan(struct vcpu *v, const struct instruction *in, struct operation *op)
{
	int reg = ((in->modrm >> 3) & 7) | (in->rex & BIT(2) ? 8 : 0), group = reg & 7;
	u32 bytes = in->opcode & 1 ? in->operand_bytes : 1;

	memset(op, 0, sizeof(*op));
	op->bytes = op->reg_bytes = bytes;
	op->reg = reg;
	if (in->two_byte) {
		switch (in->opcode) {
		case 0xb6: /* MOVZX, MOVSX */
		case 0xb7:
		case 0xbe:
		case 0xbf:
			op->reads = op->to_register = true;
			op->bytes = in->opcode & 1 ? 2 : 1;
			op->reg_bytes = in->operand_bytes;
			op->sign_extend = in->opcode & 8;
			return true;
		case 0xc3: /* MOVNTI */
			op->writes = true;
			op->bytes = in->operand_bytes;
			op->value = get_register(v, in, reg, op->bytes);
			return true;
		}
		return false;
	}
	switch (in->opcode) {
	case 0x88: /* MOV */
	case 0x89:
		op->writes = true;
		op->value = get_register(v, in, reg, bytes);
		return true;
	case 0x8a:
	case 0x8b:
		op->reads = op->to_register = true;
		return true;
	case 0xa0:
	case 0xa1:
		op->reads = op->to_register = true;
		op->reg = RAX;
		return true;
	case 0xa2:
	case 0xa3:
		op->writes = true;
		op->value = get_register(v, in, RAX, bytes);
		return true;
	case 0xc6:
	case 0xc7:
		op->writes = true;
		op->value = in->immediate;
		return group == 0;
	case 0x63: /* MOVSXD */
		op->reads = op->to_register = op->sign_extend = true;
		op->bytes = 4;
		op->reg_bytes = in->operand_bytes;
		return in->operand_bytes == 8;
	case 0x86: /* XCHG */
	case 0x87:
		op->reads = op->writes = op->exchange = true;
		op->value = get_register(v, in, reg, bytes);
		return true;
	case 0x80 ... 0x83:
		op->reads = op->alu = true;
		op->alu_operation = group;
		op->writes = group != ALU_CMP;
		op->other = in->immediate;
		return true;
	case 0x84: /* TEST */
	case 0x85:
		op->reads = op->alu = true;
		op->alu_operation = ALU_AND;
		op->other = get_register(v, in, reg, bytes);
		return true;
	case 0xf6:
	case 0xf7:
		op->reads = op->alu = true;
		op->alu_operation = ALU_AND;
		op->other = in->immediate;
		return group < 2;
	case 0x00 ... 0x3f:
		if ((in->opcode & 7) > 3)
			return false;
		op->reads = op->alu = true;
		op->alu_operation = in->opcode >> 3;
		op->other = get_register(v, in, reg, bytes);
		op->alu_to_register = in->opcode & 2;
		op->writes = !op->alu_to_register && op->alu_operation != ALU_CMP;
		return true;
	}
	return false;
}

/* Asks the owner for the next piece, at most 8 bytes of it. */
static int ask(struct vcpu *v)
{
	struct io_request *io = &v->io;
	u32 piece = min_t(u32, io->length - io->done, sizeof(v->run->mmio.data));

	v->run->exit_reason = KVM_EXIT_MMIO;
	v->run->mmio.phys_addr = io->gpa + io->done;
	v->run->mmio.len = piece;
	v->run->mmio.is_write = io->kind == IO_MMIO_WRITE;
	if (io->kind == IO_MMIO_WRITE)
		memcpy(v->run->mmio.data, io->data + io->done, piece);
	return 0;
}

static int ask_read(struct vcpu *v, u64 gpa, u32 bytes)
{
	v->io = (struct io_request){.kind = IO_MMIO_READ, .gpa = gpa, .length = bytes};
	return ask(v);
}

static int ask_write(struct vcpu *v, u64 gpa, u64 value, u32 bytes)
{
	if (irqchip_mmio(&v->chip, gpa, bytes, &value, true))
		return 1;
	v->io = (struct io_request){.kind = IO_MMIO_WRITE, .gpa = gpa, .length = bytes};
	memcpy(v->io.data, &value, bytes);
	return ask(v);
}

static int carry_out(struct vcpu *v, const struct instruction *in, const struct operation *op,
		     u64 gpa, u64 memory)
{
	u64 flags = field_get(v, FIELD_RFLAGS), value = op->value;
	u64 sign = (mask_of(op->bytes) >> 1) + 1;

	if (op->alu) {
		u64 a = op->alu_to_register ? op->other : memory;
		u64 b = op->alu_to_register ? memory : op->other;

		value = alu(op->alu_operation, a, b, op->bytes, &flags);
		field_put(v, FIELD_RFLAGS, flags);
		if (op->alu_to_register && op->alu_operation != ALU_CMP)
			put_register(v, in, op->reg, op->bytes, value);
	}
	if (op->to_register) {
		if (op->sign_extend && (memory & sign))
			memory |= ~mask_of(op->bytes);
		put_register(v, in, op->reg, op->reg_bytes, memory);
	}
	if (op->exchange)
		put_register(v, in, op->reg, op->bytes, memory);
	vcpu_skip_bytes(v, in->length);
	return op->writes ? ask_write(v, gpa, value, op->bytes) : 1;
}

static u64 string_linear(struct vcpu *v, const struct instruction *in, enum segment segment,
			 int reg)
{
	u64 offset = v->registers.r[reg] & mask_of(in->address_bytes);
	bool flat = vcpu_64bit_code(v) && segment != SEGMENT_FS && segment != SEGMENT_GS;
	u64 linear = flat ? offset : state_segment_base(segment) + offset;

	return vcpu_64bit_code(v) ? linear : (u32)linear;
}

static void string_step(struct vcpu *v, const struct instruction *in, int reg, u32 bytes)
{
	u64 step = field_get(v, FIELD_RFLAGS) & X86_EFLAGS_DF ? -(u64)bytes : bytes;

	put_register(v, in, reg, in->address_bytes, v->registers.r[reg] + step);
}

/* One element of MOVS, STOS or LODS; REP comes back here for the next one. @memory: what a device's
 * memory has answered, if @answered. */
static int string_access(struct vcpu *v, const struct instruction *in, bool answered, u64 memory)
{
	u32 bytes = in->opcode & 1 ? in->operand_bytes : 1;
	u32 access = vcpu_cpl(v) == 3 ? ACCESS_USER : 0;
	bool loads = in->opcode != 0xaa && in->opcode != 0xab;
	bool stores = in->opcode < 0xac, to_memory = false;
	u64 value = v->registers.r[RAX], destination = 0, to = 0, from;
	struct walk_fault fault;
	int ret;

	if (stores) {
		destination = string_linear(v, in, SEGMENT_ES, RDI);
		ret = walk(v, destination, access | ACCESS_WRITE, &to, &fault);
		if (ret)
			goto failed;
		to_memory = memory_writable(v->vm, to);
	}
	if (loads) {
		u64 linear = string_linear(v, in, in->segment < 0 ? SEGMENT_DS : in->segment, RSI);

		ret = walk(v, linear, access, &from, &fault);
		if (ret)
			goto failed;
		if (answered)
			value = memory;
		else if (memory_find(v->vm, from))
			ret = linear_read(v, linear, &value, bytes, access, &fault);
		else if (!irqchip_mmio(&v->chip, from, bytes, &value, false))
			return ask_read(v, from, bytes);
		if (ret)
			goto failed;
	}
	if (to_memory) {
		ret = linear_write(v, destination, &value, bytes, access, &fault);
		if (ret)
			goto failed;
	}

	if (loads)
		string_step(v, in, RSI, bytes);
	if (stores)
		string_step(v, in, RDI, bytes);
	else
		put_register(v, in, RAX, bytes, value);
	if (in->rep || in->repne) {
		put_register(v, in, RCX, in->address_bytes, v->registers.r[RCX] - 1);
		if (!(v->registers.r[RCX] & mask_of(in->address_bytes)))
			vcpu_skip_bytes(v, in->length);
	} else {
		vcpu_skip_bytes(v, in->length);
	}
	return stores && !to_memory ? ask_write(v, to, value, bytes) : 1;

failed:
	if (ret == -EFAULT) {
		raise_page_fault(v, &fault);
		return 1;
	}
	return -EINVAL;
}

static bool is_string(const struct instruction *in)
{
	return !in->two_byte && !in->has_modrm && in->opcode > 0xa3;
}

/* memory_lock is held. */
static int access(struct vcpu *v, u64 gpa, bool answered, u64 memory)
{
	struct instruction in;
	struct operation op;
	int ret = decode_here(v, &in);

	if (ret == 1)
		return 1;
	if (!ret && is_string(&in)) {
		ret = string_access(v, &in, answered, memory);
		if (ret >= 0)
			return ret;
	} else if (!ret && plan(v, &in, &op) && offset_in_page(gpa) + op.bytes <= PAGE_SIZE) {
		/* Read-only memory may still be read. */
		if (op.reads && !answered && memory_read(v->vm, gpa, &memory, op.bytes) &&
		    !irqchip_mmio(&v->chip, gpa, op.bytes, &memory, false))
			return ask_read(v, gpa, op.bytes);
		return carry_out(v, &in, &op, gpa, memory);
	}

	/* The owner gets the bytes, and may know more (api.rst 5, KVM_EXIT_INTERNAL_ERROR). */
	exit_internal_error(v, KVM_INTERNAL_ERROR_EMULATION, 0);
	v->run->emulation_failure.ndata = 3; /* flags, and 16 bytes */
	v->run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	v->run->emulation_failure.insn_size = in.fetched;
	memcpy(v->run->emulation_failure.insn_bytes, in.bytes, sizeof(in.bytes));
	return 0;
}

int mmio_access(struct vcpu *v, u64 gpa)
{
	return access(v, gpa, false, 0);
}

int mmio_complete(struct vcpu *v)
{
	struct io_request *io = &v->io;
	u32 piece = min_t(u32, io->length - io->done, sizeof(v->run->mmio.data));
	u64 memory = 0;
	int ret;

	if (io->kind == IO_MMIO_READ)
		memcpy(io->data + io->done, v->run->mmio.data, piece);
	io->done += piece;
	if (io->done < io->length)
		return ask(v);
	if (io->kind == IO_MMIO_WRITE) {
		io->kind = IO_NONE;
		return 1;
	}
	io->kind = IO_NONE;
	memcpy(&memory, io->data, io->length);
	down_read(&v->vm->memory_lock);
	ret = access(v, io->gpa, true, memory);
	up_read(&v->vm->memory_lock);
	return ret;
}
