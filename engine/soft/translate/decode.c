#include "engine/soft/translate/form.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <string.h>

#include "engine/soft/translate/evex.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/translate/rules.h"

static s8 gpr_number(ZydisRegister reg, bool *high)
{
	*high = false;
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return (s8)(reg - ZYDIS_REGISTER_AL);
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
		*high = true;
		return (s8)(reg - ZYDIS_REGISTER_AH);
	}
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return (s8)(reg - ZYDIS_REGISTER_SPL + 4);
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return (s8)(reg - ZYDIS_REGISTER_AX);
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return (s8)(reg - ZYDIS_REGISTER_EAX);
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return (s8)(reg - ZYDIS_REGISTER_RAX);
	return REG_NONE;
}

static u8 segment_number(ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES:
		return SEG_ES;
	case ZYDIS_REGISTER_CS:
		return SEG_CS;
	case ZYDIS_REGISTER_SS:
		return SEG_SS;
	case ZYDIS_REGISTER_FS:
		return SEG_FS;
	case ZYDIS_REGISTER_GS:
		return SEG_GS;
	default:
		return SEG_DS;
	}
}

/* Register of a VSIB index or an address register. */
static s8 address_register(ZydisRegister reg)
{
	bool high;
	if (reg == ZYDIS_REGISTER_NONE)
		return REG_NONE;
	if (reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_XMM31)
		return (s8)(reg - ZYDIS_REGISTER_XMM0);
	if (reg >= ZYDIS_REGISTER_YMM0 && reg <= ZYDIS_REGISTER_YMM31)
		return (s8)(reg - ZYDIS_REGISTER_YMM0);
	if (reg >= ZYDIS_REGISTER_ZMM0 && reg <= ZYDIS_REGISTER_ZMM31)
		return (s8)(reg - ZYDIS_REGISTER_ZMM0);
	return gpr_number(reg, &high);
}

/* SIB with base 5 and no displacement byte: a 32-bit displacement instead, whatever REX.B (SDM 2A
 * table 2-3). Zydis 4.0 takes it for R13D with 32-bit addresses. */
static bool is_baseless(const ZydisDecodedInstruction *zi)
{
	return (zi->attributes & ZYDIS_ATTRIB_HAS_SIB) && zi->raw.modrm.mod == 0 &&
	       zi->raw.sib.base == 5;
}

static void take_memory(struct form *form, const ZydisDecodedInstruction *zi,
			const ZydisDecodedOperand *op)
{
	struct decoded *d = &form->d;
	struct insn *i = &d->insn;
	i->is_mem = true;
	i->seg = segment_number(op->mem.segment);
	i->scale = op->mem.scale ? op->mem.scale : 1;
	if (d->evex) /* scaled (SDM 2A 2.7.5), and such forms are not kept */
		i->disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	else
		form->disp = (struct field){zi->raw.disp.offset, zi->raw.disp.size / 8, true};
	i->base = REG_NONE;
	i->index = address_register(op->mem.index);
	if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
		i->rip_relative = true;
		form->eip_relative = op->mem.base == ZYDIS_REGISTER_EIP;
	} else if (!is_baseless(zi)) {
		i->base = address_register(op->mem.base);
	}
	if (i->base != REG_NONE)
		d->gpr_used |= (u16)(1u << i->base);
	if (i->index != REG_NONE)
		d->gpr_used |= (u16)(1u << i->index);
	d->mem = op->mem.type == ZYDIS_MEMOP_TYPE_MEM || op->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
	d->mem_size = (u16)(op->size / 8);
	d->mem_read = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
	d->mem_write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	if (d->evex)
		d->mem_mask = evex_masked_access(zi, op);
}

/* A zero source leaves the destination as it was (SDM 2A BSF, BSR: undefined, but so on all
 * processors). */
static bool keeps_destination(const ZydisDecodedInstruction *zi)
{
	return zi->mnemonic == ZYDIS_MNEMONIC_BSF || zi->mnemonic == ZYDIS_MNEMONIC_BSR;
}

static void take_operands(struct form *form, const ZydisDecodedInstruction *zi,
			  const ZydisDecodedOperand *ops)
{
	struct decoded *d = &form->d;
	for (int n = 0; n < zi->operand_count; n++) {
		const ZydisDecodedOperand *op = &ops[n];
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
			if (!d->insn.is_mem)
				take_memory(form, zi, op);
			continue;
		}
		/* Strings, XLAT, MASKMOV name no memory operand, but an override counts. */
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !d->insn.is_mem &&
		    op->mem.segment != ZYDIS_REGISTER_ES)
			d->insn.seg = segment_number(op->mem.segment);
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		bool high;
		s8 number = gpr_number(op->reg.value, &high);
		if (number == REG_NONE)
			continue;
		d->gpr_used |= (u16)(1u << number);
		if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			d->gpr_written |= (u16)(1u << number);
		u8 field;
		switch (op->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG:
			field = FIELD_REG;
			break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM:
			field = FIELD_RM;
			break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD:
			field = FIELD_VVVV;
			break;
		case ZYDIS_OPERAND_ENCODING_OPCODE:
			field = FIELD_OPCODE;
			break;
		default:
			continue;
		}
		if (d->gpr_count == ARRAY_SIZE(d->gpr))
			continue;
		d->gpr[d->gpr_count++] = (struct reg_operand){
		    .field = field,
		    .guest = (u8)number,
		    .high = high,
		    .read = op->actions != ZYDIS_OPERAND_ACTION_WRITE || keeps_destination(zi),
		    .write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
		    .size = (u8)(op->size / 8),
		};
	}
}

static void take_flags(struct decoded *d, const ZydisDecodedInstruction *zi)
{
	if (!zi->cpu_flags)
		return;
	u32 written = zi->cpu_flags->modified | zi->cpu_flags->set_0 | zi->cpu_flags->set_1 |
		      zi->cpu_flags->undefined;
	d->flags_read = (u16)(zi->cpu_flags->tested & RFLAGS_ARITH);
	d->flags_written = (u16)(written & RFLAGS_ARITH);
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		/* A masked count of zero leaves every flag as it was (SDM 2B SAL/SAR/SHL/SHR). */
		d->flags_kept = d->flags_written;
		d->flags_written = 0;
		break;
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
		break; /* AF undefined, in fact overwritten */
	default:
		/* Processors leave some undefined flags as they were: DIV, BT. */
		d->flags_kept = (u16)(zi->cpu_flags->undefined & RFLAGS_ARITH);
		d->flags_written &= (u16)~zi->cpu_flags->undefined;
		break;
	}
}

/* The instruction's bytes that must be told apart when it is encoded anew. */
static void take_encoding(struct form *form, const ZydisDecodedInstruction *zi, u32 mode)
{
	struct decoded *d = &form->d;
	d->vex = zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	d->has_modrm = zi->attributes & ZYDIS_ATTRIB_HAS_MODRM;
	d->need_lock = zi->attributes & ZYDIS_ATTRIB_HAS_LOCK;
	if (d->vex) {
		d->wide = zi->raw.vex.W;
		d->vex_l = zi->raw.vex.L;
		d->vex_pp = zi->raw.vex.pp;
		/* Only eight registers outside 64-bit mode (SDM 2A 2.3.5.6) */
		d->insn.vvvv = (u8)(~zi->raw.vex.vvvv & ((mode & 3) == MODE_CODE64 ? 15 : 7));
	} else if (d->evex) {
		d->vex_pp = zi->raw.evex.pp;
	} else {
		d->wide = (zi->attributes & ZYDIS_ATTRIB_HAS_REX) && zi->raw.rex.W;
	}
	for (int n = 0; n < zi->raw.prefix_count; n++) {
		u8 value = zi->raw.prefixes[n].value;
		bool mandatory = zi->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY;
		if (value == 0x66 && mandatory)
			d->need_66 = true;
		if ((value == 0xf2 || value == 0xf3) && mandatory)
			d->need_rep = value;
	}
	if (zi->mnemonic == ZYDIS_MNEMONIC_PAUSE)
		d->need_rep = 0xf3;

	d->tail_offset = zi->raw.imm[0].size ? zi->raw.imm[0].offset : zi->length;
	d->tail = (u8)(zi->length - d->tail_offset);
	form->fixed = zi->raw.disp.size ? zi->raw.disp.offset : d->tail_offset;
}

/* Outside 64-bit mode VEX.W makes no general register wider (SDM 2A 2.3.5.5), and bit 7 of an
 * immediate that names a register is ignored (SDM 2A 2.3.10). */
static void take_legacy_vex(struct form *form, const ZydisDecodedInstruction *zi,
			    const ZydisDecodedOperand *ops, u32 mode)
{
	struct decoded *d = &form->d;
	if (!d->vex || (mode & 3) == MODE_CODE64)
		return;
	d->insn.rm &= 7; /* VEX.B too is ignored */
	for (int n = 0; n < zi->operand_count; n++)
		form->masks_is4 |= ops[n].encoding == ZYDIS_OPERAND_ENCODING_IS4;
	u8 opcode = d->insn.opcode;
	bool compares =
	    d->insn.map == 3 && (opcode == 0x60 || opcode == 0x61); /* VPCMPESTRx: EAX, EDX */
	bool moves_general =
	    (d->insn.map == 1 && (opcode == 0x6e || opcode == 0x7e || opcode == 0x2a)) ||
	    (d->insn.map == 3 && (opcode == 0x16 || opcode == 0x22));
	if (d->gpr_count || moves_general ||
	    compares) /* (V)MOVD, VCVTSI2SS, VPEXTRD, VPINSRD and the like */
		d->wide = false;
}

static u8 opcode_map(ZydisOpcodeMap map)
{
	switch (map) {
	case ZYDIS_OPCODE_MAP_0F:
		return 1;
	case ZYDIS_OPCODE_MAP_0F38:
		return 2;
	case ZYDIS_OPCODE_MAP_0F3A:
		return 3;
	case ZYDIS_OPCODE_MAP_MAP5:
		return 5;
	case ZYDIS_OPCODE_MAP_MAP6:
		return 6;
	default:
		return 0;
	}
}

static struct field immediate(const ZydisDecodedInstruction *zi, int n)
{
	return (struct field){zi->raw.imm[n].offset, zi->raw.imm[n].size / 8,
			      zi->raw.imm[n].is_signed};
}

static void take_insn(struct form *form, const u8 *bytes, const ZydisDecodedInstruction *zi,
		      u32 mode)
{
	struct decoded *d = &form->d;
	struct insn *i = &d->insn;
	i->length = zi->length;
	i->opsize = (u8)(zi->operand_width / 8);
	i->addrsize = (u8)(zi->address_width / 8);
	i->stacksize = (mode & 3) == MODE_CODE64 ? 8 : (mode & MODE_STACK32) ? 4 : 2;
	i->map = opcode_map(zi->opcode_map);
	i->opcode = zi->opcode;
	i->vex = d->vex;
	i->lock = d->need_lock;
	i->rex = zi->attributes & ZYDIS_ATTRIB_HAS_REX;
	if (zi->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		i->rep = 0xf3;
	else if (zi->attributes & ZYDIS_ATTRIB_HAS_REPNE)
		i->rep = 0xf2;
	u8 rex_b = 0;
	i->w = d->wide;
	if (zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ)
		i->opsize = 8;
	else if (zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU)
		i->opsize = 16;
	if (d->vex) {
		i->reg = (u8)((zi->raw.vex.R ? 0 : 8));
		if ((mode & 3) == MODE_CODE64)
			rex_b = (u8)(zi->raw.vex.B ? 0 : 8);
		i->opsize = d->vex_l ? 32 : 16;
	} else if (i->rex) {
		i->reg = (u8)(zi->raw.rex.R << 3);
		rex_b = (u8)(zi->raw.rex.B << 3);
	}
	if (d->has_modrm) {
		i->modrm = bytes[zi->raw.modrm.offset];
		i->reg |= i->modrm >> 3 & 7;
		if (!i->is_mem)
			i->rm = (i->modrm & 7) | rex_b;
	} else {
		i->rm = (zi->opcode & 7) | rex_b;
	}
	if (d->evex)
		evex_take_prefix(d, zi, mode);
	form->imm = immediate(zi, 0);
	form->imm2 = immediate(zi, 1);
}

static void take_unit(struct decoded *d, const ZydisDecodedInstruction *zi,
		      const ZydisDecodedOperand *ops)
{
	d->is_wait = zi->mnemonic == ZYDIS_MNEMONIC_FWAIT;
	d->avx512 = d->evex || zi->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX;
	if (d->avx512)
		return;
	if (!d->vex && d->insn.map == 0 && (d->insn.opcode & 0xf8) == 0xd8) {
		d->fpu = true; /* FISTTP too, which Zydis counts as SSE3 */
		return;
	}
	switch (zi->meta.isa_ext) {
	case ZYDIS_ISA_EXT_X87: /* FWAIT */
		return;
	case ZYDIS_ISA_EXT_MMX:
		d->mmx = true;
		return;
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_CLFSH:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_XSAVE:
	case ZYDIS_ISA_EXT_XSAVEC:
	case ZYDIS_ISA_EXT_XSAVEOPT:
		return;
	default:
		break;
	}
	for (int n = 0; n < zi->operand_count; n++) {
		if (ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		ZydisRegisterClass class = ZydisRegisterGetClass(ops[n].reg.value);
		if (class == ZYDIS_REGCLASS_MMX)
			d->mmx = true;
		else if (class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM)
			d->sse = true;
	}
	if (d->vex && (d->sse || zi->meta.isa_ext == ZYDIS_ISA_EXT_AVX))
		d->avx = true; /* VZEROUPPER names no register */
	if (zi->mnemonic == ZYDIS_MNEMONIC_LDMXCSR || zi->mnemonic == ZYDIS_MNEMONIC_STMXCSR)
		d->sse = true;
	if (d->avx)
		d->sse = false;
}

/*
 * The operand-size prefix is given anew: 16-bit operands need it whatever the guest's default. For
 * SSE and the like 66 is part of the opcode, not a size.
 */
static void take_operand_size(struct decoded *d, const ZydisDecodedInstruction *zi)
{
	bool fence = d->insn.map == 1 && d->insn.opcode == 0xae;
	bool movnti = d->insn.map == 1 && d->insn.opcode == 0xc3;
	bool cmpxchg8b = zi->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B;
	bool serialize = zi->mnemonic == ZYDIS_MNEMONIC_SERIALIZE;
	bool movdiri = zi->mnemonic == ZYDIS_MNEMONIC_MOVDIRI;
	if (d->vex || d->evex || d->sse || d->mmx || fence || movnti || cmpxchg8b || serialize ||
	    movdiri)
		return;
	if (zi->operand_width == 16)
		d->need_66 = true;
}

/* Vector operands in memory that must be aligned (SDM 1 14.9, 2A 2.4): all of SSE but the unaligned
 * moves and the string comparisons; of AVX only the aligned moves. */
static bool must_be_aligned(const struct decoded *d, const ZydisDecodedInstruction *zi)
{
	if (!d->mem || d->mem_size < 16 || (!d->sse && !d->avx && !d->mmx && !d->avx512))
		return false;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVDQA32:
	case ZYDIS_MNEMONIC_VMOVDQA64:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return true;
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return false;
	default:
		return !d->vex && !d->evex;
	}
}

static u8 far_segment(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_LDS:
		return SEG_DS;
	case ZYDIS_MNEMONIC_LES:
		return SEG_ES;
	case ZYDIS_MNEMONIC_LSS:
		return SEG_SS;
	case ZYDIS_MNEMONIC_LFS:
		return SEG_FS;
	default:
		return SEG_GS;
	}
}

static void set_op(struct decoded *d, u16 op)
{
	d->class = CLASS_OP;
	d->insn.op = op;
}

static bool is_segment(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static void classify_mov(struct decoded *d, const ZydisDecodedOperand *ops)
{
	u8 map = d->insn.map, opcode = d->insn.opcode;
	if (map == 1 && (opcode == 0x20 || opcode == 0x21))
		set_op(d, opcode == 0x20 ? OP_ID_mov_from_cr : OP_ID_mov_from_dr);
	else if (map == 1 && (opcode == 0x22 || opcode == 0x23))
		set_op(d, opcode == 0x22 ? OP_ID_mov_to_cr : OP_ID_mov_to_dr);
	else if (map == 0 && opcode == 0x8c)
		set_op(d, OP_ID_mov_from_seg);
	else if (map == 0 && opcode == 0x8e)
		set_op(d,
		       ops[0].reg.value == ZYDIS_REGISTER_SS ? OP_ID_mov_to_ss : OP_ID_mov_to_seg);
}

static void classify_branch(struct decoded *d, const ZydisDecodedInstruction *zi)
{
	bool far = zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	bool relative = zi->raw.imm[0].is_relative;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		if (far)
			set_op(d, OP_ID_jmp_far);
		else
			d->class = relative ? CLASS_JMP : CLASS_JMP_IND;
		break;
	case ZYDIS_MNEMONIC_CALL:
		if (far)
			set_op(d, OP_ID_call_far);
		else
			d->class = relative ? CLASS_CALL : CLASS_CALL_IND;
		break;
	case ZYDIS_MNEMONIC_RET:
		if (far)
			set_op(d, OP_ID_ret_far);
		else
			d->class = CLASS_RET;
		break;
	default:
		if (zi->meta.category == ZYDIS_CATEGORY_COND_BR && d->class == CLASS_NATIVE) {
			d->class = CLASS_JCC;
			d->cond = zi->opcode & 15;
		}
	}
}

static void classify(struct decoded *d, const ZydisDecodedInstruction *zi,
		     const ZydisDecodedOperand *ops)
{
	const struct rule *rule = &decode_rules[zi->mnemonic];
	d->class = rule->class;
	d->insn.op = rule->op;
	if (d->evex && rule->op == OP_ID_gather)
		d->insn.op = OP_ID_gather_k;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		classify_mov(d, ops);
		break;
	case ZYDIS_MNEMONIC_PUSH:
		if (is_segment(&ops[0])) {
			set_op(d, OP_ID_push_seg);
			d->insn.reg = segment_number(ops[0].reg.value);
		}
		break;
	case ZYDIS_MNEMONIC_POP:
		if (is_segment(&ops[0])) {
			d->insn.reg = segment_number(ops[0].reg.value);
			set_op(d, d->insn.reg == SEG_SS ? OP_ID_pop_ss : OP_ID_pop_seg);
		}
		break;
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
		d->insn.vvvv = far_segment(zi->mnemonic);
		break;
	case ZYDIS_MNEMONIC_MOVSD: /* the string form and the SSE2 instruction share the name */
		if (zi->meta.category == ZYDIS_CATEGORY_STRINGOP)
			set_op(d, OP_ID_movs);
		break;
	case ZYDIS_MNEMONIC_CMPSD:
		if (zi->meta.category == ZYDIS_CATEGORY_STRINGOP)
			set_op(d, OP_ID_cmps);
		break;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		if (d->mem && zi->opcode != 0xba)
			set_op(d, OP_ID_bit_string);
		break;
	default:
		break;
	}
	classify_branch(d, zi);
}

static int undefined(struct decoded *out, enum op_id op)
{
	memset(out, 0, sizeof(*out));
	out->insn.base = out->insn.index = REG_NONE;
	out->class = CLASS_OP;
	out->insn.op = op;
	return -EINVAL;
}

int decode_form(const u8 *bytes, u32 available, u32 mode, struct form *form)
{
	static const ZydisMachineMode machine[] = {
	    [MODE_CODE16] = ZYDIS_MACHINE_MODE_LEGACY_16,
	    [MODE_CODE32] = ZYDIS_MACHINE_MODE_LEGACY_32,
	    [MODE_CODE64] = ZYDIS_MACHINE_MODE_LONG_64,
	};
	static const ZydisStackWidth width[] = {
	    [MODE_CODE16] = ZYDIS_STACK_WIDTH_16,
	    [MODE_CODE32] = ZYDIS_STACK_WIDTH_32,
	    [MODE_CODE64] = ZYDIS_STACK_WIDTH_64,
	};
	struct decoded *d = &form->d;
	ZydisDecoder decoder;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	memset(form, 0, sizeof(*form));
	d->insn.base = d->insn.index = REG_NONE;
	ZydisDecoderInit(&decoder, machine[mode & 3], width[mode & 3]);
	/* Intel ignores 66 before near branches in 64-bit mode (SDM 2A, Jcc, CALL, JMP). */
	ZyanStatus status = ZydisDecoderDecodeFull(&decoder, bytes, available, &zi, ops);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return -EFBIG;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return undefined(d, OP_ID_gp); /* SDM 3A 6.15, #GP: more than 15 bytes */
	if (!ZYAN_SUCCESS(status) || !decode_allowed[zi.meta.isa_ext] ||
	    (zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	     zi.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX &&
	     (zi.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || !evex_known(&zi)))) {
		/* INVPCID, ENDBR and the like are of extensions not allowed in general but have
		 * rules. */
		if (!ZYAN_SUCCESS(status) || (!decode_rules[zi.mnemonic].op &&
					      decode_rules[zi.mnemonic].class == CLASS_NATIVE))
			return undefined(d, OP_ID_ud);
	}
	d->evex = zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
	take_operands(form, &zi, ops);
	take_flags(d, &zi);
	take_encoding(form, &zi, mode);
	take_insn(form, bytes, &zi, mode);
	take_legacy_vex(form, &zi, ops, mode);
	take_unit(d, &zi, ops);
	take_operand_size(d, &zi);
	d->mem_aligned = must_be_aligned(d, &zi) || zi.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
	classify(d, &zi, ops);
	if (zi.raw.imm[0].is_relative) {
		form->branch_size = (u8)MODE_CODE_SIZE(mode);
		if (form->branch_size != 8 && d->class != CLASS_OP)
			form->branch_size = zi.operand_width / 8;
	}
	return 0;
}
