/*
 * Extended state: XSAVE and XRSTOR with their kin, FXSAVE, FNSAVE, XCR0.
 *
 * The guest's x87 and vector state is live in the host's registers while these run. They store it
 * into v->fpu (used only outside the guest) with the host's XSAVE, and copy what the guest's
 * instruction would have written from there; the other way for loads. The x87 pointers in the
 * host's state are host addresses: the data pointer is stored as 0 (FDP_EXCPTN and NO_FPU_CS_DS of
 * CPUID leaf 7 say that it may be), the instruction pointer as the guest's. SDM 1 chapter 13; 10.5
 * (FXSAVE); 8.1.10 (FNSAVE, FNSTENV formats).
 */
#include "base/gp.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

#define FSW_ES BIT(7)

/* Two images: of the guest's memory, and of the registers. */
static u8 *memory_image(struct soft_vcpu *v)
{
	return v->xstate[0];
}

static u8 *register_image(struct soft_vcpu *v)
{
	return v->xstate[1];
}

static u64 image_u64(const u8 *image, u32 offset)
{
	u64 value;
	__builtin_memcpy(&value, image + offset, sizeof(value));
	return value;
}

static u32 image_u32(const u8 *image, u32 offset)
{
	u32 value;
	__builtin_memcpy(&value, image + offset, sizeof(value));
	return value;
}

static void set_u64(u8 *image, u32 offset, u64 value)
{
	__builtin_memcpy(image + offset, &value, sizeof(value));
}

static void host_xrstor(const u8 *image, u64 mask)
{
	__asm__ volatile("xrstor64 %0"
			 :
			 : "m"(*(const u8(*)[XSAVE_AREA_SIZE])image), "a"((u32)mask),
			   "d"((u32)(mask >> 32)));
}

/*
 * Stores the live state for the components of @mask into the register image, pointers made fit for
 * the guest. Returns which of them are in use (XINUSE).
 */
static u64 capture(struct soft_vcpu *v, u64 mask, bool wide)
{
	u8 *image = register_image(v);

	__builtin_memset(image + XSAVE_BV, 0, XSAVE_HEADER_SIZE);
	__asm__ volatile("xsave64 %0"
			 : "+m"(*(u8(*)[XSAVE_AREA_SIZE])image)
			 : "a"((u32)mask), "d"((u32)(mask >> 32)));
	u64 used = image_u64(image, XSAVE_BV) & mask, fip = 0;
	if (used & XCR0_X87)
		fip = guest_rip_of_host(v, image_u64(image, FX_FIP));
	__builtin_memset(image + FX_FOP, 0, FX_MXCSR - FX_FOP);
	set_u64(image, FX_FIP, wide ? fip : (u32)fip);
	return used;
}

/* The host's MXCSR_MASK: bits of MXCSR that may be set (SDM 1 11.6.6); 0 stands for FFBFH. */
static u32 mxcsr_mask(struct soft_vcpu *v)
{
	u8 *image = register_image(v);

	if (!v->layout.mxcsr_mask) {
		__asm__ volatile("fxsave64 %0" : "=m"(*(u8(*)[XSAVE_LEGACY_SIZE])image));
		u32 mask = image_u32(image, FX_MXCSR_MASK);
		v->layout.mxcsr_mask = mask ? mask : 0xffbf;
	}
	return v->layout.mxcsr_mask;
}

/* Linear address of the memory operand of @size bytes, which must be aligned to @align (a power of
 * two). */
static u64 area_linear(struct soft_vcpu *v, const struct insn *i, u32 size, u32 align,
		       enum access access)
{
	u64 linear = seg_linear(v, i->seg, insn_ea(v, i), size, access);

	/* #GP(0) whatever the segment (SDM 2 FXSAVE, XSAVE). */
	if (linear & (align - 1))
		raise_gp(v, 0);
	return linear;
}

static void store(struct soft_vcpu *v, const struct insn *i, u64 linear, u32 offset, u32 size)
{
	mem_write_linear(v, linear + offset, register_image(v) + offset, size, v->mmu_index,
			 i->seg == SEG_SS);
}

static void load(struct soft_vcpu *v, const struct insn *i, u64 linear, u32 offset, u32 size)
{
	mem_read_linear(v, linear + offset, memory_image(v) + offset, size, v->mmu_index,
			i->seg == SEG_SS);
}

/* Outside 64-bit mode XMM8 and above are neither stored nor loaded (SDM 1 10.5.1, 13.5). */
static u32 xmm_bytes(const struct soft_vcpu *v)
{
	return in_64bit(v) ? 256 : 128;
}

/* Bytes of a section of the extended region that an instruction deals with, likewise. */
static u32 section_bytes(const struct soft_vcpu *v, u32 n)
{
	return in_64bit(v) ? xstate_section_size(n) : xstate_section_legacy_size(n);
}

/* ---- FXSAVE, FXRSTOR ---- */

static void check_fx(struct soft_vcpu *v, const struct insn *i)
{
	if (i->lock)
		raise_ud(v);
	if (v->cr0 & (CR0_EM | CR0_TS))
		raise(v, EXC_NM);
}

void op_fxsave(struct soft_vcpu *v, const struct insn *i)
{
	check_fx(v, i);
	u64 linear = area_linear(v, i, XSAVE_LEGACY_SIZE, 16, ACCESS_WRITE);
	capture(v, XCR0_X87 | XCR0_SSE, i->opsize == 8);
	store(v, i, linear, 0, FX_XMM + xmm_bytes(v));
}

/* XMM8 and above, which the memory image (of the standard form) has no say in, from the registers.
 */
static void keep_upper_registers(struct soft_vcpu *v, u64 mask)
{
	u8 *memory = memory_image(v), *live = register_image(v);

	capture(v, mask, true);
	gp_copy(memory + FX_XMM + 128, live + FX_XMM + 128, 128);
	for_each_section(n, mask)
	{
		u32 kept = xstate_section_legacy_size(n);
		u32 at = xstate_section_offset(&v->layout, 0, n) + kept;
		gp_copy(memory + at, live + at, xstate_section_size(n) - kept);
	}
}

void op_fxrstor(struct soft_vcpu *v, const struct insn *i)
{
	u8 *image = memory_image(v);

	check_fx(v, i);
	u64 linear = area_linear(v, i, XSAVE_LEGACY_SIZE, 16, ACCESS_READ);
	load(v, i, linear, 0, XSAVE_LEGACY_SIZE);
	if (image_u32(image, FX_MXCSR) & ~mxcsr_mask(v))
		raise_gp(v, 0);

	set_u64(image, FX_FIP,
		i->opsize == 8 ? image_u64(image, FX_FIP) : image_u32(image, FX_FIP));
	set_u64(image, FX_FDP, 0);
	if (!in_64bit(v))
		keep_upper_registers(v, XCR0_SSE);
	/* A pending x87 exception of the state that goes must not strike here. */
	__asm__ volatile("fnclex\n\tfxrstor64 %0" : : "m"(*(const u8(*)[XSAVE_LEGACY_SIZE])image));
}

/* ---- XSAVE, XRSTOR ---- */

static void check_xsave(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2D XSAVE: #UD without CR4.OSXSAVE (which needs the feature) or with LOCK; #NM with
	 * TS. */
	if (!(v->cr4 & CR4_OSXSAVE) || i->lock)
		raise_ud(v);
	if (v->cr0 & CR0_TS)
		raise(v, EXC_NM);
}

enum xsave_form { FORM_XSAVE, FORM_XSAVEOPT, FORM_XSAVEC };

/* 0F AE /4 XSAVE, /6 XSAVEOPT; 0F C7 /4 XSAVEC, /5 XSAVES (which no guest is told of). */
static enum xsave_form xsave_form(struct soft_vcpu *v, const struct insn *i)
{
	u32 extension = modrm_reg(i);

	if (i->opcode == 0xae && extension == 4)
		return FORM_XSAVE;
	if (i->opcode == 0xae && extension == 6 && feature(v, FEATURE_XSAVEOPT))
		return FORM_XSAVEOPT;
	if (i->opcode == 0xc7 && extension == 4 && feature(v, FEATURE_XSAVEC))
		return FORM_XSAVEC;
	raise_ud(v);
}

void op_xsave(struct soft_vcpu *v, const struct insn *i)
{
	enum xsave_form form = xsave_form(v, i);
	u8 *image = register_image(v);

	check_xsave(v, i);
	u64 mask = edx_eax(v) & v->xcr0; /* RFBM */
	bool compact = form == FORM_XSAVEC;
	u32 size = xstate_area_size(&v->layout, mask, compact);
	u64 linear = area_linear(v, i, size, 64, ACCESS_WRITE);
	u64 used = capture(v, mask, i->opsize == 8);

	if (!in_64bit(v)) /* SDM 1 13.6: there Hi16_ZMM is in its initial configuration */
		used &= ~XCR0_HI16_ZMM;

	/* SDM 1 13.10: XSAVEC counts SSE as used when MXCSR is not at its initial value. */
	if (compact && (mask & XCR0_SSE) && image_u32(image, FX_MXCSR) != 0x1f80)
		used |= XCR0_SSE;
	/* XSAVEOPT and XSAVEC leave the memory of unused components alone. */
	u64 written = form == FORM_XSAVE ? mask : used;

	if (written & XCR0_X87) {
		store(v, i, linear, 0, FX_MXCSR);
		store(v, i, linear, FX_ST, FX_XMM - FX_ST);
	}
	/* MXCSR belongs to SSE and AVX both (SDM 1 13.7); in the compacted form to SSE alone. */
	if (compact ? written & XCR0_SSE : mask & (XCR0_SSE | XCR0_AVX))
		store(v, i, linear, FX_MXCSR, FX_ST - FX_MXCSR);
	if (written & XCR0_SSE)
		store(v, i, linear, FX_XMM, xmm_bytes(v));
	for_each_section(n, written)
	{
		u32 to = xstate_section_offset(&v->layout, compact ? mask : 0, n);
		u32 from = xstate_section_offset(&v->layout, 0, n), bytes = section_bytes(v, n);
		if (bytes)
			mem_write_linear(v, linear + to, image + from, bytes, v->mmu_index,
					 i->seg == SEG_SS);
	}

	if (compact) {
		set_u64(image, XSAVE_BV, used);
		set_u64(image, XSAVE_COMP_BV, mask | BIT(63));
		store(v, i, linear, XSAVE_BV, 16);
	} else {
		load(v, i, linear, XSAVE_BV, 8);
		set_u64(image, XSAVE_BV, (image_u64(memory_image(v), XSAVE_BV) & ~mask) | used);
		store(v, i, linear, XSAVE_BV, 8);
	}
}

/* The header's rules (SDM 1 13.8); false: #GP(0). */
static bool valid_header(struct soft_vcpu *v, const u8 *image)
{
	u64 used = image_u64(image, XSAVE_BV);
	u64 layout = image_u64(image, XSAVE_COMP_BV);

	if (layout & BIT(63)) {
		/* Compacted: XSTATE_BV within XCOMP_BV within XCR0; bytes 63:16 zero. */
		if (!feature(v, FEATURE_XSAVEC))
			return false;
		layout &= ~BIT(63);
		if ((layout & ~v->xcr0) || (used & ~layout))
			return false;
		for (u32 n = 16; n < XSAVE_HEADER_SIZE; n += 8)
			if (image_u64(image, XSAVE_BV + n))
				return false;
		return true;
	}
	/* Standard: XSTATE_BV within XCR0; bytes 23:8 zero. */
	return !(used & ~v->xcr0) && !layout && !image_u64(image, XSAVE_BV + 16);
}

/*
 * Outside 64-bit mode: makes of the memory image one of the standard form that loads the same, with
 * XMM8 and above as they are.
 */
static void keep_upper_half(struct soft_vcpu *v, u64 mask)
{
	u8 *image = memory_image(v);
	u64 used = image_u64(image, XSAVE_BV);
	u64 compacted = image_u64(image, XSAVE_COMP_BV);
	u64 vectors = mask & ~XCR0_X87;
	u32 mxcsr = 0x1f80;

	if (!(used & XCR0_SSE))
		gp_fill(image + FX_XMM, 0, 128);
	for (u32 n = XSTATE_COUNT; n-- > 2;) { /* downward: sections move upward */
		u32 from = xstate_section_offset(&v->layout, compacted, n);
		u32 to = xstate_section_offset(&v->layout, 0, n);
		if (!(mask & BIT(n)))
			continue;
		if (!(used & BIT(n)))
			gp_fill(image + to, 0, xstate_section_legacy_size(n));
		else if (from != to)
			gp_copy(image + to, image + from, xstate_section_legacy_size(n));
	}
	keep_upper_registers(v, vectors);
	/* The compacted form leaves MXCSR alone unless it loads or initializes SSE (SDM 1 13.8.2).
	 */
	if (image_u64(image, XSAVE_COMP_BV) && !(mask & used & XCR0_SSE)) {
		if (!(mask & XCR0_SSE))
			mxcsr = image_u32(register_image(v), FX_MXCSR);
		gp_copy(image + FX_MXCSR, &mxcsr, 4);
	}
	set_u64(image, XSAVE_BV, used | vectors);
	set_u64(image, XSAVE_COMP_BV, 0);
}

void op_xrstor(struct soft_vcpu *v, const struct insn *i)
{
	u8 *image = memory_image(v);

	/* 0F AE /5 XRSTOR; 0F C7 /3 XRSTORS, which no guest is told of. */
	if (i->opcode != 0xae)
		raise_ud(v);
	check_xsave(v, i);
	u64 mask = edx_eax(v) & v->xcr0;
	/* At least this much, whichever the form. */
	u64 linear = area_linear(v, i, xstate_area_size(&v->layout, mask, true), 64, ACCESS_READ);

	load(v, i, linear, 0, XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE);
	if (!valid_header(v, image))
		raise_gp(v, 0);
	u64 used = image_u64(image, XSAVE_BV) & mask;
	u64 compact = image_u64(image, XSAVE_COMP_BV);
	/* In the compacted form components outside XCOMP_BV take their initial state. */
	for_each_section(n, used)
	{
		load(v, i, linear, xstate_section_offset(&v->layout, compact, n),
		     xstate_section_size(n));
	}
	bool loads_mxcsr = compact ? used & XCR0_SSE : mask & (XCR0_SSE | XCR0_AVX);
	if (loads_mxcsr && (image_u32(image, FX_MXCSR) & ~mxcsr_mask(v)))
		raise_gp(v, 0);

	set_u64(image, FX_FIP,
		i->opsize == 8 ? image_u64(image, FX_FIP) : image_u32(image, FX_FIP));
	set_u64(image, FX_FDP, 0);
	if (!in_64bit(v) && (mask & ~XCR0_X87))
		keep_upper_half(v, mask);
	host_xrstor(image, mask);
}

/* ---- FNSAVE, FNSTENV, FRSTOR, FLDENV ---- */

/* The environment in the 32-bit protected format (SDM 1 figure 8-9); 16-bit: the same with
 * half-words. */
#define ENV_WORDS   7
#define ENV_SIZE    28
#define ENV_SIZE_16 14
#define ENV_FIP	    12
#define ST_SIZE	    80
#define FNSAVE_SIZE (ENV_SIZE + ST_SIZE)

static void check_x87(struct soft_vcpu *v)
{
	if (v->cr0 & (CR0_EM | CR0_TS))
		raise(v, EXC_NM);
}

static u32 env_size(const struct insn *i)
{
	return i->opsize == 2 ? ENV_SIZE_16 : ENV_SIZE;
}

/* Narrows or widens the environment between the two operand sizes, in place. */
static void env_narrow(u8 *env)
{
	for (u32 n = 0; n < ENV_WORDS; n++)
		gp_copy(env + n * 2, env + n * 4, 2);
}

static void env_widen(u8 *env)
{
	for (u32 n = ENV_WORDS; n-- > 0;) {
		env[n * 4 + 1] = env[n * 2 + 1];
		env[n * 4] = env[n * 2];
		env[n * 4 + 2] = env[n * 4 + 3] = 0;
	}
}

/* D9 /6 FNSTENV, DD /6 FNSAVE. Both do not wait; FNSAVE then initializes, FNSTENV masks all
 * exceptions. */
void op_fsave(struct soft_vcpu *v, const struct insn *i)
{
	bool all = i->opcode == 0xdd;
	u8 *env = memory_image(v);
	u32 size = env_size(i);

	check_x87(v);
	u64 linear = seg_linear(v, i->seg, insn_ea(v, i), size + (all ? ST_SIZE : 0), ACCESS_WRITE);
	capture(v, XCR0_X87, false);
	u32 fip = image_u32(register_image(v), FX_FIP);
	/* FNSTENV changes the live control word: put it back until the store has passed its checks.
	 */
	__asm__ volatile("fnstenv %0\n\tfldcw %0" : "+m"(*(u8(*)[ENV_SIZE])env));
	gp_fill(env + ENV_FIP, 0, ENV_SIZE - ENV_FIP);
	/* The real-address and virtual-8086 formats scatter the pointers; they stay 0 there. */
	if (v->mode & MODE_PE)
		gp_copy(env + ENV_FIP, &fip, 4);
	if (size == ENV_SIZE_16)
		env_narrow(env);
	/* The stack registers stand in the FXSAVE image in ST order too, 16 bytes each. */
	for (u32 n = 0; all && n < 8; n++)
		gp_copy(env + size + n * 10, register_image(v) + FX_ST + n * 16, 10);
	mem_write_linear(v, linear, env, size + (all ? ST_SIZE : 0), v->mmu_index,
			 i->seg == SEG_SS);

	if (all)
		__asm__ volatile("fninit");
	else
		__asm__ volatile("fnstenv %0" : "=m"(*(u8(*)[ENV_SIZE])env));
}

/* D9 /4 FLDENV, DD /4 FRSTOR. */
void op_frstor(struct soft_vcpu *v, const struct insn *i)
{
	bool all = i->opcode == 0xdd;
	u8 *env = memory_image(v);
	u32 size = env_size(i);
	u16 fsw;

	check_x87(v);
	/* SDM 2A FLDENV, FRSTOR: a pending unmasked exception comes first. */
	__asm__ volatile("fnstsw %0" : "=m"(fsw));
	if (fsw & FSW_ES)
		raise(v, EXC_MF);
	u64 linear = seg_linear(v, i->seg, insn_ea(v, i), size + (all ? ST_SIZE : 0), ACCESS_READ);
	mem_read_linear(v, linear, env, size, v->mmu_index, i->seg == SEG_SS);
	if (all)
		mem_read_linear(v, linear + size, env + ENV_SIZE, ST_SIZE, v->mmu_index,
				i->seg == SEG_SS);
	if (size == ENV_SIZE_16)
		env_widen(env);
	gp_fill(env + ENV_FIP, 0, ENV_SIZE - ENV_FIP);
	if (all)
		__asm__ volatile("frstor %0" : : "m"(*(const u8(*)[FNSAVE_SIZE])env));
	else
		__asm__ volatile("fldenv %0" : : "m"(*(const u8(*)[ENV_SIZE])env));
}

/* ---- XCR0 ---- */

void op_xgetbv(struct soft_vcpu *v, const struct insn *i)
{
	u32 index = (u32)v->regs[RCX];
	u32 low, high;

	if (!(v->cr4 & CR4_OSXSAVE) || i->lock)
		raise_ud(v);
	if (index == 0) {
		set_edx_eax(v, v->xcr0);
		return;
	}
	/* ECX = 1: which components are in use (SDM 1 13.6). */
	if (index != 1 || !feature(v, FEATURE_XGETBV1))
		raise_gp(v, 0);
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
	if (!in_64bit(v))
		low &= ~(u32)XCR0_HI16_ZMM;
	set_edx_eax(v, low & v->xcr0);
}

void op_xsetbv(struct soft_vcpu *v, const struct insn *i)
{
	if (!(v->cr4 & CR4_OSXSAVE) || i->lock)
		raise_ud(v);
	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_xsetbv(v, i);
	if ((u32)v->regs[RCX] != 0 || !set_xcr0(v, edx_eax(v)))
		raise_gp(v, 0);
	v->rip = v->next_rip;
}
