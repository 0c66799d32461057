/* Where XSAVE puts what: SDM 1 13.4 and 13.5, CPUID leaf 0DH. */
#include <cpuid.h>

#include "engine/soft/system/xstate.h"

/* Bytes of each section, and of its registers that exist outside 64-bit mode. */
static const struct {
	u16 size, legacy_size;
} sections[XSTATE_COUNT] = {
    [2] = {XSAVE_AVX_SIZE, XSAVE_AVX_SIZE / 2},
    [5] = {64, 64},   /* opmask */
    [6] = {512, 256}, /* ZMM_Hi256 */
    [7] = {1024, 0},  /* Hi16_ZMM */
};

u32 xstate_section_size(u32 n)
{
	return sections[n].size;
}

u32 xstate_section_legacy_size(u32 n)
{
	return sections[n].legacy_size;
}

u32 xstate_section_offset(const struct xstate_layout *layout, u64 compacted, u32 n)
{
	u32 offset = XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE;

	if (!compacted)
		return layout->offset[n];
	/* All sizes are multiples of 64, so alignment (leaf 0DH, ECX[1]) makes no gaps. */
	for_each_section(k, compacted)
	{
		if (k < n)
			offset += sections[k].size;
	}
	return offset;
}

u32 xstate_area_size(const struct xstate_layout *layout, u64 mask, bool compacted)
{
	u32 size = XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE;

	for_each_section(n, mask)
	{
		u32 end = xstate_section_offset(layout, compacted ? mask : 0, n) + sections[n].size;
		if (end > size)
			size = end;
	}
	return size;
}

/* ---- the host ---- */

static u64 host_xcr0(void)
{
	u32 a, b, c, d, low, high;

	__cpuid(1, a, b, c, d);
	if (!(c & bit_OSXSAVE))
		return XCR0_X87 | XCR0_SSE;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (u64)high << 32 | low;
}

/* Fills in the section's place; whether it is as this file knows it. */
static bool section_probe(struct xstate_layout *out, u32 n)
{
	u32 size, offset, c, d;

	__cpuid_count(0xd, n, size, offset, c, d);
	out->offset[n] = (u16)offset;
	return size == sections[n].size && offset + size <= XSAVE_AREA_SIZE;
}

static bool has_avx512(void)
{
	const u32 needed = bit_AVX512F | bit_AVX512CD | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
	u32 a, b, c, d;

	__cpuid_count(7, 0, a, b, c, d);
	return (b & needed) == needed;
}

void xstate_probe(struct xstate_layout *out, bool avx512)
{
	u64 xcr0 = host_xcr0();
	u32 a, b, c, d;

	*out = (struct xstate_layout){.offered = XCR0_X87 | XCR0_SSE};
	if (!(xcr0 & XCR0_AVX) || !section_probe(out, 2))
		return;
	out->offered |= XCR0_AVX;
	__cpuid_count(0xd, 1, a, b, c, d);
	out->xsaveopt = a & 1;
	if (avx512 && (xcr0 & XCR0_AVX512) == XCR0_AVX512 && has_avx512() &&
	    section_probe(out, 5) && section_probe(out, 6) && section_probe(out, 7))
		out->offered |= XCR0_AVX512;
}
