/* Guests whose structures lie where they should not, or point where they must not. */
#include <string.h>

#include "tests/wild/wild.h"

#define PUT(w, gpa, ...)                                                                           \
	do {                                                                                       \
		static const u8 bytes_[] = {__VA_ARGS__};                                          \
		memcpy((w)->ram + (gpa), bytes_, sizeof(bytes_));                                  \
	} while (0)

static u64 *ram64(struct wild *w, u64 gpa)
{
	return (u64 *)(w->ram + gpa);
}

static u64 pick(struct wild *w, const u64 *from, u32 count)
{
	return from[random_below(&w->random, count)];
}

/* Where a structure does harm: unmapped, at an end, over itself, in MMIO, not canonical. */
static u64 bad_place(struct wild *w)
{
	static const u64 places[] = {
	    RAM_SIZE,
	    RAM_SIZE - 1,
	    RAM_SIZE - 8,
	    RAM_SIZE - 16,
	    0xa0000,
	    0xfec00000,
	    0xfee00000,
	    0xfee00ff0,
	    0xfffffff8,
	    0xffffffff,
	    0x7fffffffff8,
	    0x7ffffffffff8,
	    0xffff800000000000,
	    0xfffffffffffffff8,
	    PML4_GPA,
	    PD_GPA,
	    PD32_GPA,
	    IDT_GPA,
	    GDT_GPA,
	    0,
	    0xb8000,
	    0x1000000,
	};
	u64 place = pick(w, places, ARRAY_SIZE(places));
	return w->mode == MODE_LONG ? place : (u32)place;
}

static void jump_to_unmapped(struct wild *w)
{
	static const u64 targets[] = {
	    0xa0000,	RAM_SIZE,	0xfee00000,	    0xfec00000,	  0x80000000, 0xffffffff,
	    0xfffffff0, 0x800000000000, 0xffff800000000000, RAM_SIZE - 1, ~0ull,      0xb0000};
	u64 target = pick(w, targets, ARRAY_SIZE(targets));
	PUT(w, 0, 0xff, 0xe0); /* jmp rax */
	w->regs.rax = target;
	if (one_in(&w->random, 2))
		w->regs.rip = w->mode == MODE_LONG || w->mode == MODE_REAL ? target : (u32)target;
}

/* Loads and stores all over, and a little time to hit them */
static void touch_everything(struct wild *w)
{
	/* again: mov [rdi], eax; mov ebx, [rdi]; add edi, esi; jmp again */
	PUT(w, 0, 0x89, 0x07, 0x8b, 0x1f, 0x01, 0xf7, 0xeb, 0xf8);
	w->regs.rsi = random_edge(&w->random);
}

static void tables_to_themselves(struct wild *w)
{
	touch_everything(w);
	u64 flags = 7 | (one_in(&w->random, 2) ? 0x60 : 0) | (one_in(&w->random, 4) ? 0x80 : 0);
	u32 table = w->mode == MODE_LONG ? PML4_GPA : w->mode == MODE_PAE ? PD_GPA : PD32_GPA;
	for (u32 n = 0; n < 512; n++)
		if (w->mode == MODE_PAGED)
			ram64(w, table)[n] = (table | flags) | (u64)(table | flags) << 32;
		else
			ram64(w, table)[n] = table | flags;
	if (w->mode == MODE_LONG && one_in(&w->random, 2)) /* keep a way for the code */
		ram64(w, table)[0] = PDPT_GPA | 7;
}

static void tables_of_ones(struct wild *w)
{
	touch_everything(w);
	u32 from = one_in(&w->random, 2) ? PML4_GPA : PD_GPA;
	memset(w->ram + from, 0xff, PT_GPA + 0x1000 - from);
	if (one_in(&w->random, 2))
		ram64(w, PD_GPA)[0] = 0x87;
}

static void tables_random(struct wild *w)
{
	touch_everything(w);
	random_fill(&w->random, w->ram + PML4_GPA, PT_GPA + 0x1000 - PML4_GPA);
	for (u32 at = PML4_GPA; at < PT_GPA + 0x1000; at += 8) {
		if (one_in(&w->random, 2))
			*ram64(w, at) &= 0x1fffff;
		*ram64(w, at) |= random_below(&w->random, 8);
	}
	if (one_in(&w->random, 2)) {
		ram64(w, PML4_GPA)[0] = PDPT_GPA | 7;
		ram64(w, PDPT_GPA)[0] = PD_GPA | 7;
		ram64(w, PD_GPA)[0] = 0x87;
	}
}

static void tables_nowhere(struct wild *w)
{
	static const u64 roots[] = {RAM_SIZE, 0xfee00000, 0xfec00000,
				    0xa0000,  0xfffff000, RAM_SIZE - 0x1000};
	w->sregs.cr3 = pick(w, roots, ARRAY_SIZE(roots));
	if (one_in(&w->random, 2)) { /* they are there at first */
		w->sregs.cr3 = w->mode == MODE_LONG  ? PML4_GPA
			       : w->mode == MODE_PAE ? PAE_GPA
						     : PD32_GPA;
		PUT(w, 0, 0x0f, 0x22, 0xd8, 0xeb, 0xfe); /* mov cr3, rax; jmp . */
		w->regs.rax = pick(w, roots, ARRAY_SIZE(roots));
	}
	/* A directory that maps itself out of RAM */
	ram64(w, PD_GPA)[1] = 0xffffffe00087;
	ram64(w, PDPT_GPA)[1] = 0xfee00007;
}

/* Something that needs GDT, IDT and TSS at once */
static void use_descriptors(struct wild *w)
{
	switch (random_below(&w->random, 5)) {
	case 0:
		PUT(w, 0, 0xcd, 0x80, 0xeb, 0xfc); /* int 0x80 for ever */
		break;
	case 1:
		PUT(w, 0, 0x0f, 0x0b); /* ud2 */
		break;
	case 2:
		PUT(w, 0, 0x66, 0xb8, SEL_TSS2, 0x00, 0x0f, 0x00, 0xd8, 0xb8, SEL_DATA, 0, 0, 0,
		    0x8e, 0xd8, 0xcc);
		break;
	case 3:
		PUT(w, 0, 0xb8, SEL_DATA, 0, 0, 0, 0x8e, 0xd0, 0x8e, 0xc0, 0x6a, SEL_CODE32, 0x6a,
		    0, 0xcb);
		break;
	default:
		code_fill(&w->random, w->ram, 0x1000, code_system);
	}
}

static void descriptors_elsewhere(struct wild *w)
{
	use_descriptors(w);
	if (one_in(&w->random, 2))
		w->sregs.gdt.base = bad_place(w);
	if (one_in(&w->random, 2))
		w->sregs.idt.base = bad_place(w);
	if (one_in(&w->random, 2))
		w->sregs.tr.base = bad_place(w);
	if (one_in(&w->random, 2))
		w->sregs.gdt.limit = (u16)random_next(&w->random);
	if (one_in(&w->random, 2))
		w->sregs.idt.limit = (u16)random_next(&w->random);
	/* The engine rightly refuses bases that are not canonical: those come by LGDT in random
	 * code. */
	struct kvm_sregs *s = &w->sregs;
	__u64 *bases[] = {&s->gdt.base, &s->idt.base, &s->tr.base};
	for (u32 n = 0; n < ARRAY_SIZE(bases); n++)
		*bases[n] = (u64)((s64)(*bases[n] << 16) >> 16);
}

static void descriptors_random(struct wild *w)
{
	use_descriptors(w);
	random_fill(&w->random, w->ram + GDT_GPA, 0x1000);
	random_fill(&w->random, w->ram + IDT_GPA, 0x1000);
	random_fill(&w->random, w->ram + TSS_GPA, 0x2000);
	/* Present, and selectors that lie in the table, more often than chance has it */
	for (u32 n = 0; n < 512; n++) {
		if (!one_in(&w->random, 4))
			ram64(w, IDT_GPA)[n] = (ram64(w, IDT_GPA)[n] & ~0xffff0000ull) | BIT(47) |
					       (u64)(random_below(&w->random, 17) * 8) << 16;
		if (!one_in(&w->random, 4))
			ram64(w, GDT_GPA)[n] |= BIT(47);
	}
	if (one_in(&w->random, 2)) {
		ram64(w, GDT_GPA)[1] = 0x00af9b000000ffff;
		ram64(w, GDT_GPA)[2] = 0x00cf9b000000ffff;
		ram64(w, GDT_GPA)[3] = 0x00cf93000000ffff;
	}
}

static void stack_at_the_end(struct wild *w)
{
	static const u64 tops[] = {0,
				   1,
				   2,
				   4,
				   8,
				   RAM_SIZE,
				   RAM_SIZE + 4,
				   RAM_SIZE - 4,
				   0x10000,
				   0x10002,
				   0xffff,
				   0xfffffffc,
				   0x100000000,
				   0x800000000000,
				   0xffff800000000000,
				   0xffff800000000004,
				   0xfee00020,
				   0xa0004};
	w->regs.rsp = pick(w, tops, ARRAY_SIZE(tops));
	if (w->mode != MODE_LONG)
		w->regs.rsp = (u32)w->regs.rsp;
	switch (random_below(&w->random, 4)) {
	case 0:
		PUT(w, 0, 0x50, 0xeb, 0xfd); /* push for ever */
		break;
	case 1:
		PUT(w, 0, 0x58, 0xeb, 0xfd); /* pop for ever */
		break;
	case 2:
		PUT(w, 0, 0xe8, 0xfb, 0xff, 0xff, 0xff); /* call self */
		break;
	default:
		PUT(w, 0, 0xc8, 0xff, 0xff, 0x1f, 0x60, 0x9c, 0xcd, 0x80, 0xc9, 0x61, 0x9d,
		    0xcf); /* enter, ... */
	}
	if (one_in(&w->random, 2) && w->mode != MODE_REAL && w->mode != MODE_V86) {
		w->sregs.ss.limit = (u32)random_edge(&w->random);
		w->sregs.ss.type = one_in(&w->random, 2) ? 7 : 3; /* expand down */
		w->sregs.ss.db = one_in(&w->random, 2);
	}
}

static void handlers_that_fault(struct wild *w)
{
	static const u8 faults[] = {0x0f, 0x0b, 0xcc, 0xcd, 0xff, 0xf4, 0xce};
	u8 *handler = w->ram + HANDLER_GPA;
	memcpy(handler, faults, sizeof(faults));
	PUT(w, 0, 0x0f, 0x0b);
	u32 wide = w->mode == MODE_LONG ? 16 : 8;
	for (u32 n = 0; n < 256; n++) {
		u64 *gate = ram64(w, IDT_GPA + n * wide);
		*gate = (*gate & 0x0000ffffffff0000) | HANDLER_GPA | (u64)(HANDLER_GPA >> 16) << 48;
	}
	if (one_in(&w->random,
		   2)) /* the handler's own page fault, #DF's handler absent or faulting */
		ram64(w, IDT_GPA + 8 * wide)[0] = random_next(&w->random);
	if (one_in(&w->random, 2))
		ram64(w, PT_GPA)[HANDLER_GPA >> 12] = 0;
	w->sregs.idt.limit = (u16)(one_in(&w->random, 3) ? 8 * wide + 7 : w->sregs.idt.limit);
}

static void tasks_to_themselves(struct wild *w)
{
	for (u32 n = 0; n < 256; n++)
		ram64(w, IDT_GPA)[n] =
		    (u64)(one_in(&w->random, 2) ? SEL_TSS : SEL_TSS2) << 16 | 0xe5ull << 40;
	if (one_in(&w->random, 2)) /* never busy */
		ram64(w, GDT_GPA)[SEL_TSS / 8] &= ~BIT(41);
	if (one_in(&w->random, 2))
		ram64(w, GDT_GPA)[SEL_TSS2 / 8] =
		    (ram64(w, GDT_GPA)[SEL_TSS2 / 8] & ~0xffffff0000ull) | (bad_place(w) & 0xffffff)
									       << 16;
	if (one_in(&w->random, 2)) /* 16-bit TSS */
		ram64(w, GDT_GPA)[SEL_TSS2 / 8] &= ~BIT(43);
	u32 *tss = (u32 *)(w->ram + TSS2_GPA);
	tss[8] = 0;
	tss[0] = SEL_TSS; /* link */
	if (one_in(&w->random, 2))
		tss[9] |= 0x4000; /* NT */
	if (one_in(&w->random, 4))
		random_fill(&w->random, tss, 104);
	switch (random_below(&w->random, 3)) {
	case 0:
		PUT(w, 0, 0x0f, 0x0b);
		break;
	case 1:
		PUT(w, 0, 0x9a, 0, 0, 0, 0, SEL_GATE, 0, 0xcf);
		break;
	default:
		PUT(w, 0, 0xea, 0, 0, 0, 0, SEL_TSS2, 0, 0xcf);
	}
}

/* The LAPIC's page is moved over the code, the tables, the end of memory, by WRMSR. */
static void lapic_over_ram(struct wild *w)
{
	static const u64 places[] = {0,
				     0x1000,
				     PML4_GPA,
				     PD32_GPA,
				     GDT_GPA,
				     IDT_GPA,
				     RAM_SIZE - 0x1000,
				     RAM_SIZE,
				     STACK_TOP - 0x1000,
				     0xfec00000,
				     0xffffffff000,
				     0xfffffffff000};
	/* mov ecx, 0x1b; wrmsr; mov [rdi], eax; mov eax, [rsi]; jmp to the stores */
	PUT(w, 0, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x30, 0x89, 0x07, 0x8b, 0x06, 0xeb, 0xfa);
	u64 place =
	    pick(w, places, ARRAY_SIZE(places)) | 0x900 | (one_in(&w->random, 4) ? 0x400 : 0);
	w->regs.rax = (u32)place;
	w->regs.rdx = place >> 32;
	w->regs.rdi = (place & ~0xfffull) + random_below(&w->random, 64) * 16;
	w->regs.rsi = (place & ~0xfffull) + random_below(&w->random, 4096);
	if (one_in(&w->random, 4))
		memcpy(w->ram + 0x1000, w->ram, 64);
}

static void rewriting_itself(struct wild *w)
{
	/* Stores of random bytes around the store itself: again: xor eax, edx; rol eax, 7; add edx,
	 * eax; mov edi, eax; and edi, 0x7f; mov [rdi], eax or stosb; jmp again */
	PUT(w, 0, 0x31, 0xd0, 0xc1, 0xc0, 0x07, 0x01, 0xc2, 0x89, 0xc7, 0x83, 0xe7, 0x7f, 0x89,
	    0x07, 0xeb, 0xf0);
	if (one_in(&w->random, 2))
		PUT(w, 12, 0x88, 0x07);
	if (one_in(&w->random, 2))
		PUT(w, 12, 0xf3, 0xaa);
	/* 16 to 128: what it wakes */
	code_fill(&w->random, w->ram + 16, 0xfff0, code_instruction);
	w->regs.rcx = random_below(&w->random, 64);
	if (one_in(&w->random, 2)) { /* across a page */
		memcpy(w->ram + 0xff8, w->ram, 0x100);
		w->regs.rip = 0xff8;
	}
}

static void random_msrs_and_crs(struct wild *w)
{
	u8 *p = w->ram;
	while (p < w->ram + 0x2000) {
		*p++ = 0xb8; /* mov eax, imm32 */
		u64 value = random_edge(&w->random);
		memcpy(p, &value, 4);
		p += 4;
		if (one_in(&w->random, 2)) {
			*p++ = 0x0f;
			*p++ = one_in(&w->random, 4) ? 0x20 : 0x22;
			*p++ = (u8)(0xc0 | random_below(&w->random, 64));
		} else {
			p += code_system(&w->random, p);
		}
	}
}

static void strings_everywhere(struct wild *w)
{
	static const u8 opcodes[] = {0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xae,
				     0xa6, 0xa7, 0x6c, 0x6e, 0xad, 0xaf};
	u8 *p = w->ram;
	for (u32 n = 0; n < 8; n++) {
		*p++ = one_in(&w->random, 4) ? 0xfd : 0xfc;
		*p++ = one_in(&w->random, 4) ? 0xf2 : 0xf3;
		if (w->mode == MODE_LONG && one_in(&w->random, 2))
			*p++ = 0x48;
		*p++ = opcodes[random_below(&w->random, ARRAY_SIZE(opcodes))];
	}
	*p++ = 0xeb;
	*p = (u8) - (int)(p + 1 - w->ram);
	w->regs.rcx = one_in(&w->random, 2) ? ~0ull : random_edge(&w->random);
	w->regs.rdi = bad_place(w);
	w->regs.rsi = one_in(&w->random, 2) ? random_edge(&w->random) : bad_place(w);
}

static void code_in_mmio(struct wild *w)
{
	static const u64 places[] = {0xfee00000,   0xfec00000, 0xb8000,	  RAM_SIZE - 1,
				     RAM_SIZE - 3, 0xfee00ffe, 0xfffffffe};
	w->regs.rip = pick(w, places, ARRAY_SIZE(places));
	PUT(w, RAM_SIZE - 4, 0x90, 0x48, 0xb8,
	    0x48); /* an instruction that goes on behind the end */
}

/* Direct, one page behind the other with nothing between: the last byte of memory, again and again
 */
static void at_the_very_end(struct wild *w)
{
	static const u8 tail[] = {0x0f, 0x58, 0x07, 0xeb, 0xf9}; /* addps xmm0, [rdi]; jmp */
	memcpy(w->ram + RAM_SIZE - sizeof(tail), tail, sizeof(tail));
	w->regs.rip = RAM_SIZE - sizeof(tail);
	w->regs.rdi = RAM_SIZE - 16 + random_below(&w->random, 32);
	code_fill(&w->random, w->ram + RAM_SIZE - 0x1000, 0x1000 - sizeof(tail), code_instruction);
	if (one_in(&w->random, 2))
		w->regs.rip = RAM_SIZE - 0x1000 + random_below(&w->random, 0xff0);
}

static void vector_at_edges(struct wild *w)
{
	/* vgatherdps, vmaskmovps, maskmovdqu, fxsave, xsave, fsave, lddqu, vpgatherqq, cmpxchg16b
	 * on [rdi] */
	PUT(w, 0, 0xc4, 0xe2, 0x75, 0x92, 0x04, 0x17, 0xc4, 0xe2, 0x75, 0x2c, 0x07, 0xc4, 0xe2,
	    0x75, 0x2e, 0x07, 0x66, 0x0f, 0xf7, 0xc1, 0x0f, 0xae, 0x07, 0x0f, 0xae, 0x27, 0x0f,
	    0xae, 0x2f, 0xdd, 0x37, 0xdd, 0x27, 0xd9, 0x27, 0x48, 0x0f, 0xc7, 0x0f, 0x0f, 0xae,
	    0x0f, 0x66, 0x0f, 0xc4, 0x07, 0x01, 0x0f, 0xbb, 0x07, 0x0f, 0xb1, 0x07, 0xeb, 0xc9);
	w->regs.rdi = one_in(&w->random, 2) ? bad_place(w) : random_edge(&w->random);
	w->regs.rdi -= random_below(&w->random, 64);
	w->regs.rip = random_below(&w->random, 48);
	memcpy(w->ram + HANDLER_GPA, "\x83\xc7\x08\x48\xcf", 5); /* add edi, 8; iretq */
}

const struct scenario structure_scenarios[] = {
    {"jump to unmapped memory", jump_to_unmapped},
    {"page tables that point to themselves", tables_to_themselves},
    {"page tables of ones", tables_of_ones},
    {"random page tables", tables_random},
    {"page tables outside memory", tables_nowhere},
    {"descriptor tables elsewhere", descriptors_elsewhere},
    {"random descriptor tables", descriptors_random},
    {"stack at the end", stack_at_the_end},
    {"handlers that fault", handlers_that_fault},
    {"task gates", tasks_to_themselves},
    {"LAPIC over RAM", lapic_over_ram},
    {"code that rewrites itself", rewriting_itself},
    {"random MSRs and control registers", random_msrs_and_crs},
    {"strings over everything", strings_everywhere},
    {"code in MMIO", code_in_mmio},
    {"the end of memory", at_the_very_end},
    {"vectors at edges", vector_at_edges},
};
const u32 structure_scenario_count = ARRAY_SIZE(structure_scenarios);
