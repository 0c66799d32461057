/* EVEX instructions: AVX-512. SDM 2A chapter 2.7. */
#include "engine/soft/translate/evex.h"

#include "engine/soft/translate/masked.h"
#include "engine/soft/translate/mode.h"

bool evex_known(const ZydisDecodedInstruction *zi)
{
	switch (zi->meta.isa_set) {
	/* Of the Xeon Phi, and of one generation alone. */
	case ZYDIS_ISA_SET_AVX512ER_512:
	case ZYDIS_ISA_SET_AVX512ER_SCALAR:
	case ZYDIS_ISA_SET_AVX512PF_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR:
	case ZYDIS_ISA_SET_AVX512_4VNNIW_512:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_256:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512:
		return false;
	default:
		return true;
	}
}

/*
 * Outside 64-bit mode EVEX.W makes no general register, and no memory operand that could be one,
 * wider (SDM 2A 2.7.11.1): VMOVD, VCVTSI2xx, VCVTUSI2xx, VPEXTRD, VPINSRD.
 */
static bool width_is_ignored(const struct decoded *d, u32 mode)
{
	u8 map = d->insn.map, opcode = d->insn.opcode;
	if ((mode & 3) == MODE_CODE64)
		return false;
	if (d->gpr_count)
		return true;
	switch (opcode) {
	case 0x6e:
	case 0x7e:
		return map == 1 && d->vex_pp == 1;
	case 0x2a:
	case 0x7b:
		return (map == 1 || map == 5) && d->vex_pp >= 2;
	case 0x16:
	case 0x22:
		return map == 3;
	default:
		return false;
	}
}

void evex_take_prefix(struct decoded *d, const ZydisDecodedInstruction *zi, u32 mode)
{
	struct insn *i = &d->insn;
	/* Only eight registers outside 64-bit mode: the bits that name others are ignored. */
	bool all = (mode & 3) == MODE_CODE64;

	d->wide = zi->raw.evex.W && !width_is_ignored(d, mode);
	d->evex_tail = (u8)(zi->raw.evex.z << 7 | zi->raw.evex.L2 << 6 | zi->raw.evex.L << 5 |
			    zi->raw.evex.b << 4 | zi->raw.evex.aaa);
	i->w = d->wide;
	i->mask = zi->raw.evex.aaa;
	i->opsize = (u8)(zi->avx.vector_length / 8);
	i->vvvv = (u8)(~zi->raw.evex.vvvv & (all ? 15 : 7));
	i->reg = zi->raw.modrm.reg;
	i->rm = zi->raw.modrm.rm;
	if (!all)
		return;
	i->vvvv |= (u8)(zi->raw.evex.V2 ? 0 : 16);
	i->reg |= (u8)((zi->raw.evex.R ? 0 : 8) | (zi->raw.evex.R2 ? 0 : 16));
	i->rm |= (u8)((zi->raw.evex.B ? 0 : 8) | (zi->raw.evex.X ? 0 : 16));
}

/* Of those that Zydis 4.0 counts among the ones with fault suppression, these read all of their
 * operand: an element of the result needs more than one of the source's. */
static bool reads_everything(ZydisMnemonic mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_VCVTNE2PS2BF16 || mnemonic == ZYDIS_MNEMONIC_VDBPSADBW ||
	       mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEQB ||
	       mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB;
}

static bool suppresses_faults(const ZydisDecodedInstruction *zi)
{
	switch (zi->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E2:
	case ZYDIS_EXCEPTION_CLASS_E3:
	case ZYDIS_EXCEPTION_CLASS_E4:
	case ZYDIS_EXCEPTION_CLASS_E5:
	case ZYDIS_EXCEPTION_CLASS_E6:
	case ZYDIS_EXCEPTION_CLASS_E10:
	case ZYDIS_EXCEPTION_CLASS_E11:
		return !reads_everything(zi->mnemonic);
	default:
		return false;
	}
}

/* Elements are packed from the first on, as many as the mask has bits. */
static bool is_packed(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_VCOMPRESSPS:
	case ZYDIS_MNEMONIC_VCOMPRESSPD:
	case ZYDIS_MNEMONIC_VPCOMPRESSB:
	case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VPCOMPRESSD:
	case ZYDIS_MNEMONIC_VPCOMPRESSQ:
	case ZYDIS_MNEMONIC_VEXPANDPS:
	case ZYDIS_MNEMONIC_VEXPANDPD:
	case ZYDIS_MNEMONIC_VPEXPANDB:
	case ZYDIS_MNEMONIC_VPEXPANDW:
	case ZYDIS_MNEMONIC_VPEXPANDD:
	case ZYDIS_MNEMONIC_VPEXPANDQ:
		return true;
	default:
		return false;
	}
}

/* How often the memory operand is repeated to fill the vector, as a power of two. */
static u32 repetition(ZydisBroadcastMode mode)
{
	static const u8 shift[] = {
	    [ZYDIS_BROADCAST_MODE_1_TO_2] = 1,	[ZYDIS_BROADCAST_MODE_1_TO_4] = 2,
	    [ZYDIS_BROADCAST_MODE_1_TO_8] = 3,	[ZYDIS_BROADCAST_MODE_1_TO_16] = 4,
	    [ZYDIS_BROADCAST_MODE_1_TO_32] = 5, [ZYDIS_BROADCAST_MODE_1_TO_64] = 6,
	    [ZYDIS_BROADCAST_MODE_2_TO_4] = 1,	[ZYDIS_BROADCAST_MODE_2_TO_8] = 2,
	    [ZYDIS_BROADCAST_MODE_2_TO_16] = 3, [ZYDIS_BROADCAST_MODE_4_TO_8] = 1,
	    [ZYDIS_BROADCAST_MODE_4_TO_16] = 2, [ZYDIS_BROADCAST_MODE_8_TO_16] = 1,
	};
	return shift[mode];
}

u32 evex_masked_access(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *memory)
{
	u32 mask = zi->raw.evex.aaa, bytes = memory->element_size / 8u;
	bool writes = memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	bool suppresses = suppresses_faults(zi);

	if (!mask || (!suppresses && !writes))
		return 0;
	return mask << ACCESS_MASK_SHIFT | (u32)__builtin_ctz(bytes) << ACCESS_ELEMENT_SHIFT |
	       repetition(zi->avx.broadcast.mode) << ACCESS_REPEAT_SHIFT |
	       (is_packed(zi->mnemonic) ? ACCESS_PACKED : 0) |
	       (suppresses ? 0 : ACCESS_FAULTS_WHOLE);
}
