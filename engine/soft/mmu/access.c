/* Accesses to guest memory made by C: by linear address, and by segment and offset. */
#include "engine/soft/mmu/internal.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/vmx/vmx.h"

static bool in_64bit_mode(const struct soft_vcpu *v)
{
	return (v->mode & 3) == MODE_CODE64;
}

/* ---- by linear address ---- */

/* An access taken apart at a page boundary, every part translated. */
struct span {
	u8 *host; /* plain RAM of all of it, or NULL: parts */
	u64 gpa[2];
	u32 size[2];
	u32 parts;
};

/** Address of the byte @distance after @linear: 32-bit addresses wrap outside 64-bit mode. */
static u64 linear_add(const struct soft_vcpu *v, u64 linear, u64 distance)
{
	u64 sum = linear + distance;

	return !in_64bit_mode(v) && linear <= 0xffffffff ? (u32)sum : sum;
}

/** Translates all of an access before any of it is done. Raises what it would raise. */
static struct span span_translate(struct soft_vcpu *v, u64 linear, u32 size, enum access access,
				  enum mmu_index index, bool stack)
{
	u64 in_page = linear & (PAGE_SIZE - 1);
	struct span s;

	if (likely(in_page + size <= PAGE_SIZE)) {
		s.parts = 1;
		s.size[0] = size;
		s.host = tlb_fill_page(v, linear, size, access, index, stack, &s.gpa[0]);
		return s;
	}

	u64 second = linear_add(v, linear, PAGE_SIZE - in_page);

	check_canonical(v, linear, stack);
	check_canonical(v, second, stack);
	s.host = NULL;
	s.parts = 2;
	s.size[0] = (u32)(PAGE_SIZE - in_page);
	s.size[1] = size - s.size[0];
	tlb_fill_page(v, linear, size, access, index, stack, &s.gpa[0]);
	tlb_fill_page(v, second, size, access, index, stack, &s.gpa[1]);
	return s;
}

/* The two parts of an access across the end of a page, if the TLB has both: plain RAM. */
struct halves {
	u8 *host[2];
	u32 size[2];
};

static bool halves_lookup(const struct soft_vcpu *v, u64 linear, u32 size, bool write,
			  enum mmu_index index, struct halves *h)
{
	u32 rest = (u32)(PAGE_SIZE - (linear & (PAGE_SIZE - 1)));

	if (rest >= size || !v->vm->tune.halves)
		return false;
	h->size[0] = rest;
	h->size[1] = size - rest;
	h->host[0] = tlb_lookup(v, linear, rest, write, index);
	h->host[1] = tlb_lookup(v, linear_add(v, linear, rest), size - rest, write, index);
	return h->host[0] && h->host[1];
}

static void note_watchpoint(struct soft_vcpu *v, u64 linear, u32 size, bool write)
{
	if (unlikely(debug_armed(v)))
		debug_note_access(v, linear, size, write);
}

/* The first part: of an access in two, none lies in the APIC-access page, they have left. */
static void part_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size)
{
	if (unlikely(vmx_is_apic_page(v, gpa)))
		vmx_apic_page_read(v, gpa, buf, size);
	else
		phys_read(v, gpa, buf, size);
}

static void part_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size)
{
	if (unlikely(vmx_is_apic_page(v, gpa)))
		vmx_apic_page_write(v, gpa, buf, size);
	else
		phys_write(v, gpa, buf, size);
}

void mem_read_linear(struct soft_vcpu *v, u64 linear, void *buf, u32 size, enum mmu_index index,
		     bool stack)
{
	const void *host = tlb_lookup(v, linear, size, false, index);

	if (likely(host)) {
		ram_copy(buf, host, size);
		return;
	}

	struct halves h;

	if (halves_lookup(v, linear, size, false, index, &h)) {
		ram_copy(buf, h.host[0], h.size[0]);
		ram_copy((u8 *)buf + h.size[0], h.host[1], h.size[1]);
		return;
	}

	struct span s = span_translate(v, linear, size, ACCESS_READ, index, stack);

	if (s.host) {
		ram_copy(buf, s.host, size);
		return;
	}
	part_read(v, s.gpa[0], buf, s.size[0]);
	if (s.parts == 2)
		phys_read(v, s.gpa[1], (u8 *)buf + s.size[0], s.size[1]);
	note_watchpoint(v, linear, size, false);
}

void mem_write_linear(struct soft_vcpu *v, u64 linear, const void *buf, u32 size,
		      enum mmu_index index, bool stack)
{
	void *host = tlb_lookup(v, linear, size, true, index);

	if (likely(host)) {
		ram_copy(host, buf, size);
		return;
	}

	struct halves h;

	if (halves_lookup(v, linear, size, true, index, &h)) {
		ram_copy(h.host[0], buf, h.size[0]);
		ram_copy(h.host[1], (const u8 *)buf + h.size[0], h.size[1]);
		return;
	}

	struct span s = span_translate(v, linear, size, ACCESS_WRITE, index, stack);

	if (s.host) {
		ram_copy(s.host, buf, size);
		return;
	}
	part_write(v, s.gpa[0], buf, s.size[0]);
	if (s.parts == 2)
		phys_write(v, s.gpa[1], (const u8 *)buf + s.size[0], s.size[1]);
	note_watchpoint(v, linear, size, true);
}

bool mem_overwrites_code(struct soft_vcpu *v, u64 linear, u32 size, enum mmu_index index)
{
	u64 gpa;

	return tlb_fill_page(v, linear, size, ACCESS_WRITE, index, false, &gpa) ||
	       phys_drop_code(v, gpa, size);
}

void mem_probe_write(struct soft_vcpu *v, u64 linear, u32 size, enum mmu_index index, bool stack)
{
	struct halves h;

	if (!tlb_lookup(v, linear, size, true, index) &&
	    !halves_lookup(v, linear, size, true, index, &h))
		span_translate(v, linear, size, ACCESS_WRITE, index, stack);
}

/* ---- by segment and offset ---- */

/** Limit, SDM 3A 5.3: whether all bytes lie inside. */
static bool limit_allows(const struct segment *s, u64 offset, u32 size)
{
	u64 last = offset + size - 1;
	u32 expand_down = SEG_TYPE_EXPAND_DOWN | SEG_TYPE_CODE;

	if ((s->access & expand_down) == SEG_TYPE_EXPAND_DOWN)
		return offset > s->limit && last <= (s->access & SEG_DB ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

/** Type, SDM 3A 5.4: what the segment may be used for. */
static bool type_allows(const struct segment *s, enum access access)
{
	u32 type = SEG_TYPE(s->access);

	if (type & SEG_TYPE_CODE)
		return access == ACCESS_EXEC || (access == ACCESS_READ && (type & SEG_TYPE_WRITE));
	return access != ACCESS_WRITE || (type & SEG_TYPE_WRITE);
}

static u64 segment_linear(const struct soft_vcpu *v, enum x86_seg seg, u64 offset)
{
	if (in_64bit_mode(v))
		return seg >= SEG_FS ? v->seg[seg].base + offset : offset;
	return (u32)(v->seg[seg].base + offset);
}

bool seg_check(const struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size,
	       enum access access)
{
	const struct segment *s = &v->seg[seg];

	if (in_64bit_mode(v)) {
		u64 linear = segment_linear(v, seg, offset);

		return is_canonical(linear) && is_canonical(linear + size - 1);
	}
	/* At a limit of 4 GiB accesses that wrap may or may not fault (SDM 3A 5.3); here they do
	 * not. */
	if ((v->mode & MODE_FLAT) && seg != SEG_CS && seg < SEG_FS)
		return true;
	/* Real mode takes limits from the hidden part, but has no types. SDM 3A 20.1.1. */
	if (!(v->mode & MODE_PE))
		return limit_allows(s, offset, size);
	return !(s->access & SEG_UNUSABLE) && type_allows(s, access) &&
	       limit_allows(s, offset, size);
}

u64 seg_linear(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size, enum access access)
{
	if (unlikely(!seg_check(v, seg, offset, size, access)))
		raise_error(v, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
	return segment_linear(v, seg, offset);
}

/** Alignment, SDM 3A 6.15 interrupt 17. */
static void check_alignment(struct soft_vcpu *v, u64 linear, u32 size)
{
	if (unlikely((v->mode & MODE_ALIGN) && (linear & (size - 1))))
		raise_error(v, EXC_AC, 0);
}

u64 mem_read(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size)
{
	u64 linear = seg_linear(v, seg, offset, size, ACCESS_READ);
	u64 value = 0;

	check_alignment(v, linear, size);
	mem_read_linear(v, linear, &value, size, v->mmu_index, seg == SEG_SS);
	return value;
}

void mem_write(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size, u64 value)
{
	u64 linear = seg_linear(v, seg, offset, size, ACCESS_WRITE);

	check_alignment(v, linear, size);
	mem_write_linear(v, linear, &value, size, v->mmu_index, seg == SEG_SS);
}

void mem_read_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, void *buf, u32 size)
{
	u64 linear = seg_linear(v, seg, offset, size, ACCESS_READ);

	mem_read_linear(v, linear, buf, size, v->mmu_index, seg == SEG_SS);
}

void mem_write_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, const void *buf, u32 size)
{
	u64 linear = seg_linear(v, seg, offset, size, ACCESS_WRITE);

	mem_write_linear(v, linear, buf, size, v->mmu_index, seg == SEG_SS);
}

/* ---- implicit supervisor accesses, SDM 3A 4.6 ---- */

u64 sys_read(struct soft_vcpu *v, u64 linear, u32 size)
{
	u64 value = 0;

	mem_read_linear(v, linear, &value, size, MMU_KERNEL, false);
	return value;
}

void sys_write(struct soft_vcpu *v, u64 linear, u32 size, u64 value)
{
	mem_write_linear(v, linear, &value, size, MMU_KERNEL, false);
}
