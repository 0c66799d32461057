#include "debug/walk.h"

#include "memory/memory.h"

#define CR0_PG	 BIT(31)
#define CR4_PSE	 BIT(4)
#define CR4_PAE	 BIT(5)
#define CR4_LA57 BIT(12)
#define EFER_LMA BIT(10)

#define ENTRY_PRESENT BIT(0)
#define ENTRY_LARGE   BIT(7)
#define ADDRESS_MASK  0x000ffffffffff000ull

/** One level: which bits of the address index its table, and whether an entry may map a page. */
struct level {
	const char *table;
	u32 shift;
	u32 bits;
	bool large;
};

/* SDM vol. 3A tables 5-3, 5-8 and 5-13, from the root down. */
static const struct level levels_long[] = {
    {"PML5", 48, 9, false}, {"PML4", 39, 9, false}, {"PDPT", 30, 9, true},
    {"PD", 21, 9, true},    {"PT", 12, 9, false},
};
static const struct level levels_pae[] = {
    {"PDPT", 30, 2, false},
    {"PD", 21, 9, true},
    {"PT", 12, 9, false},
};
static const struct level levels_32[] = {
    {"PD", 22, 10, true},
    {"PT", 12, 10, false},
};

struct format {
	const struct level *levels;
	u32 count;
	u32 entry_bytes;
	u64 root;
	u64 linear_mask;
};

static struct format format_of(const struct kvm_sregs *sregs)
{
	if (sregs->efer & EFER_LMA) {
		bool five = sregs->cr4 & CR4_LA57;
		return (struct format){
		    .levels = five ? levels_long : levels_long + 1,
		    .count = five ? 5 : 4,
		    .entry_bytes = 8,
		    .root = sregs->cr3 & ADDRESS_MASK,
		    .linear_mask = UINT64_MAX,
		};
	}
	if (sregs->cr4 & CR4_PAE)
		return (struct format){
		    .levels = levels_pae,
		    .count = 3,
		    .entry_bytes = 8,
		    .root = sregs->cr3 & 0xffffffe0,
		    .linear_mask = UINT32_MAX,
		};
	return (struct format){
	    .levels = levels_32,
	    .count = 2,
	    .entry_bytes = 4,
	    .root = sregs->cr3 & 0xfffff000,
	    .linear_mask = UINT32_MAX,
	};
}

static bool maps_large_page(const struct kvm_sregs *sregs, const struct format *f,
			    const struct level *level, u64 entry)
{
	if (!level->large || !(entry & ENTRY_LARGE))
		return false;
	return f->entry_bytes == 8 || (sregs->cr4 & CR4_PSE);
}

/** Physical address of the page that @entry maps, whose size is 1 << @shift. */
static u64 page_base(const struct format *f, u64 entry, u32 shift)
{
	if (f->entry_bytes == 4 &&
	    shift == 22) /* PSE-36: bits 20 to 13 are address bits 39 to 32 */
		return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
	return align_down(entry & ADDRESS_MASK, 1ull << shift);
}

/* ---- extended page tables: SDM vol. 3C 29.3.2, tables 29-1 to 29-6 ---- */

#define EPT_ALLOWS 7ull /* read, write, execute: none is "not present" */

void walk_ept(const struct guest_memory *memory, u64 eptp, u64 gpa, struct walk_ept *out)
{
	u64 table = eptp & ADDRESS_MASK;

	*out = (struct walk_ept){.gpa = gpa};
	for (u32 i = 0; i < EPT_LEVELS; i++) {
		const struct level *level = &levels_long[i + 1];
		struct walk_step *step = &out->steps[out->count++];
		step->table = level->table;
		step->entry_gpa = table + (gpa >> level->shift & (BIT(level->bits) - 1)) * 8;
		step->physical = step->entry_gpa;
		step->readable = guest_memory_read(memory, step->physical, &step->entry, 8) == 0;
		if (!step->readable || !(step->entry & EPT_ALLOWS))
			return;
		if (i == EPT_LEVELS - 1 || (level->large && (step->entry & ENTRY_LARGE))) {
			out->mapped = true;
			out->page_size = 1ull << level->shift;
			out->physical = align_down(step->entry & ADDRESS_MASK, out->page_size) |
					(gpa & (out->page_size - 1));
			return;
		}
		table = step->entry & ADDRESS_MASK;
	}
}

/* A guest-physical address to one of the machine; out->ept shows how. */
static bool to_machine(const struct guest_memory *memory, u64 eptp, u64 gpa, u64 *physical,
		       struct walk *out)
{
	*physical = gpa;
	if (!eptp)
		return true;
	walk_ept(memory, eptp, gpa, &out->ept);
	*physical = out->ept.physical;
	return out->ept.mapped;
}

static bool read_entry(const struct guest_memory *memory, u64 eptp, u32 bytes,
		       struct walk_step *step, struct walk *out)
{
	step->readable = to_machine(memory, eptp, step->entry_gpa, &step->physical, out) &&
			 guest_memory_read(memory, step->physical, &step->entry, bytes) == 0;
	return step->readable;
}

/* The guest's tables: true: out->gpa and .page_size are known. */
static bool translate(const struct guest_memory *memory, const struct kvm_sregs *sregs, u64 eptp,
		      u64 linear, struct walk *out)
{
	struct format f = format_of(sregs);
	u64 table = f.root;

	linear &= f.linear_mask;
	for (u32 i = 0; i < f.count; i++) {
		const struct level *level = &f.levels[i];
		u64 index = linear >> level->shift & (BIT(level->bits) - 1);
		struct walk_step *step = &out->steps[out->count++];
		step->table = level->table;
		step->entry_gpa = table + index * f.entry_bytes;
		if (!read_entry(memory, eptp, f.entry_bytes, step, out) ||
		    !(step->entry & ENTRY_PRESENT))
			return false;
		bool last = i == f.count - 1;
		if (last || maps_large_page(sregs, &f, level, step->entry)) {
			out->page_size = 1ull << level->shift;
			out->gpa = page_base(&f, step->entry, level->shift) |
				   (linear & (out->page_size - 1));
			return true;
		}
		table = step->entry & ADDRESS_MASK;
	}
	return false;
}

void walk_linear(const struct guest_memory *memory, const struct kvm_sregs *sregs, u64 eptp,
		 u64 linear, struct walk *out)
{
	*out = (struct walk){.paging = sregs->cr0 & CR0_PG};
	if (out->paging) {
		out->translated = translate(memory, sregs, eptp, linear, out);
	} else {
		out->translated = true;
		out->gpa = (u32)linear;
		out->page_size = GUEST_PAGE_SIZE;
	}
	out->mapped = out->translated && to_machine(memory, eptp, out->gpa, &out->physical, out);
}
