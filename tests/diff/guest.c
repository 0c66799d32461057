/* The same code in a guest of the soft engine: long mode, CPL 3, identical linear addresses. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine.h"
#include "tests/diff/diff.h"

/* What is the kernel's lies where user code cannot reach it natively either. */
#define KERNEL_BASE 0xffff800000000000ull

/* Guest-physical layout */
#define TABLES_GPA 0x10000 /* PML4, PDPT, PD, page tables */
#define GDT_GPA	   0x1000
#define LDT_GPA	   0x1800
#define IDT_GPA	   0x2000
#define TSS_GPA	   0x3000
#define STUBS_GPA  0x4000 /* a HLT per vector */
#define KSTACK_GPA 0x6000 /* top */
#define DATA_GPA   0x100000
#define CODE_GPA   0x1000000
#define RAM_SIZE   (CODE_GPA + CODE_SIZE)

static u8 *ram;
static int ram_fd;
static struct engine_vm *vm;
static struct engine_vcpu *vcpu;
static const struct engine *engine;
static struct kvm_sregs start_sregs;
static u64 next_table = TABLES_GPA;

static u64 *table(u64 gpa)
{
	return (u64 *)(ram + gpa);
}

static void map_page(u64 linear, u64 gpa, u64 flags)
{
	u64 at = TABLES_GPA;
	for (int level = 3; level > 0; level--) {
		u64 *entry = &table(at)[(linear >> (12 + 9 * level)) & 511];
		if (!*entry) {
			next_table += 0x1000;
			*entry = next_table | 7;
		}
		at = *entry & ~0xfffull;
	}
	table(at)[(linear >> 12) & 511] = gpa | flags;
}

static void build_tables(void)
{
	next_table = TABLES_GPA;
	for (u64 gpa = 0; gpa < TABLES_GPA; gpa += 0x1000)
		map_page(KERNEL_BASE + gpa, gpa, 3);
	for (u64 offset = 0; offset < DATA_SIZE; offset += 0x1000)
		map_page(DATA_BASE + offset, DATA_GPA + offset, 7 | BIT(63)); /* NX */
	for (u64 offset = 0; offset < CODE_SIZE; offset += 0x1000)
		map_page(CODE_BASE + offset, CODE_GPA + offset, 7);
}

/* Selectors as Linux has them, with the same rights: LAR shows them. */
static void build_descriptors(void)
{
	u64 *gdt = table(GDT_GPA);
	gdt[2] = 0x00af9b000000ffff; /* kernel code */
	gdt[3] = 0x00cf93000000ffff; /* kernel data */
	gdt[USER_CS32 >> 3] = 0x00cffb000000ffff;
	gdt[USER_DS >> 3] = 0x00cff3000000ffff;
	gdt[USER_CS64 >> 3] = 0x00affb000000ffff;
	*(u64 *)(ram + TSS_GPA + 4) = KERNEL_BASE + KSTACK_GPA; /* RSP0 */
	*(u16 *)(ram + TSS_GPA + 0x66) = 0xffff;		/* no I/O bitmap */
	for (u64 vector = 0; vector < 32; vector++) {
		u64 handler = KERNEL_BASE + STUBS_GPA + vector * 16;
		ram[STUBS_GPA + vector * 16] = 0xf4; /* hlt */
		u64 *gate = table(IDT_GPA + vector * 16);
		u64 dpl = vector == 3 || vector == 4 ? 3 : 0; /* INT3 and INTO are user code's */
		gate[0] = (handler & 0xffff) | 0x10ull << 16 | 0x8e00ull << 32 | dpl << 45 |
			  (handler >> 16 & 0xffff) << 48;
		gate[1] = handler >> 32;
	}
}

/* Type and S, DPL 3: an accessed code or data segment (SDM 3A 3.4.5.1). */
static u8 segment_type(const struct ldt_entry *e)
{
	return (u8)(1 | (e->fixed ? 0 : 2) | (e->expand_down ? 4 : 0) | (e->code ? 8 : 0));
}

static u64 descriptor(const struct ldt_entry *e)
{
	u64 access = 0x70u | segment_type(e) | (e->absent ? 0 : 0x80);
	return e->defined ? (u64)(e->limit & 0xffff) | (u64)(e->base & 0xffffff) << 16 |
				access << 40 | (u64)(e->limit >> 16 & 15) << 48 |
				(u64)e->big << 54 | (u64)(e->base >> 24) << 56
			  : 0;
}

/* What a segment register holds that has been loaded with @selector. */
static struct kvm_segment segment(u16 selector, const struct ldt_entry *ldt)
{
	const struct ldt_entry *e = &ldt[selector >> 3];
	bool code = selector != USER_DS;
	if (!(selector & ~3u))
		return (struct kvm_segment){.selector = selector, .unusable = 1};
	if (selector & 4)
		return (struct kvm_segment){.base = e->base,
					    .limit = e->limit,
					    .selector = selector,
					    .s = 1,
					    .type = segment_type(e),
					    .present = 1,
					    .dpl = 3,
					    .db = e->big};
	return (struct kvm_segment){.limit = 0xffffffff,
				    .selector = selector,
				    .type = code ? 11 : 3,
				    .present = 1,
				    .dpl = 3,
				    .db = selector != USER_CS64,
				    .s = 1,
				    .l = selector == USER_CS64,
				    .g = 1};
}

static int make_vcpu(void)
{
	struct error err = {""};
	int r = engine->vcpu_create(vm, 0, &vcpu, &err);
	if (r < 0) {
		fprintf(stderr, "%s\n", err.text);
		return r;
	}
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[100];
	} cpuid = {.head.nent = 100};
	engine->vm_get_supported_cpuid(vm, &cpuid.head);
	engine->vcpu_set_cpuid(vcpu, &cpuid.head);
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = xstate.offered}}};
	struct kvm_sregs *s = &start_sregs;
	engine->vcpu_get_sregs(vcpu, s);
	s->cs = segment(USER_CS64, NULL);
	s->ss = segment(USER_DS, NULL);
	s->ds = s->es = s->fs = s->gs = segment(0, NULL);
	s->tr = (struct kvm_segment){.base = KERNEL_BASE + TSS_GPA,
				     .limit = 0x67,
				     .selector = 0x40,
				     .type = 11,
				     .present = 1};
	s->ldt = (struct kvm_segment){.base = KERNEL_BASE + LDT_GPA,
				      .limit = 8 * LDT_SIZE - 1,
				      .selector = 0x50,
				      .type = 2,
				      .present = 1};
	s->gdt = (struct kvm_dtable){.base = KERNEL_BASE + GDT_GPA, .limit = 0x7f};
	s->idt = (struct kvm_dtable){.base = KERNEL_BASE + IDT_GPA, .limit = 0x1ff};
	s->cr0 = 0x80010033; /* PG WP NE ET MP PE */
	s->cr3 = TABLES_GPA;
	s->cr4 = 0x50620; /* OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PAE */
	s->efer = 0xd00;  /* NXE LMA LME */
	r = engine->vcpu_set_sregs(vcpu, s);
	if (r == 0 && engine->vcpu_set_xcrs(vcpu, &xcrs) < 0) { /* --tune avx512=off */
		xstate.offered &= ~XCR0_AVX512;
		xcrs.xcrs[0].value = xstate.offered;
		r = engine->vcpu_set_xcrs(vcpu, &xcrs);
	}
	if (r < 0)
		fprintf(stderr, "cannot set the vCPU's state: %d\n", r);
	return r;
}

static int set_slot(u64 size)
{
	struct kvm_userspace_memory_region region = {
	    .slot = 0, .memory_size = size, .userspace_addr = (u64)ram};
	int r = engine->vm_set_memory(vm, &region);
	return r < 0 || !size ? r : engine->vm_memory_file(vm, 0, ram_fd, 0);
}

int guest_init(void)
{
	struct error err = {""};
	engine = engine_by_name("soft");
	/* As the monitor's, so that it can be seen through the host's MMU too (GUISE_TUNE). */
	ram_fd = memfd_create("diff", MFD_CLOEXEC);
	if (ram_fd < 0 || ftruncate(ram_fd, RAM_SIZE) < 0)
		return -errno;
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
	if (ram == MAP_FAILED)
		return -errno;
	int r = engine->vm_create(NULL, &vm, &err);
	if (r < 0) {
		fprintf(stderr, "%s\n", err.text);
		return r;
	}
	build_tables();
	build_descriptors();
	r = set_slot(RAM_SIZE);
	return r < 0 ? r : make_vcpu();
}

u8 *guest_code(void)
{
	return ram + CODE_GPA;
}

int guest_forget_code(void)
{
	int r = set_slot(0);
	return r < 0 ? r : set_slot(RAM_SIZE);
}

static void regs_in(const struct state *s, struct kvm_regs *k)
{
	*k = (struct kvm_regs){.rax = s->regs[0],
			       .rcx = s->regs[1],
			       .rdx = s->regs[2],
			       .rbx = s->regs[3],
			       .rsp = s->regs[4],
			       .rbp = s->regs[5],
			       .rsi = s->regs[6],
			       .rdi = s->regs[7],
			       .r8 = s->regs[8],
			       .r9 = s->regs[9],
			       .r10 = s->regs[10],
			       .r11 = s->regs[11],
			       .r12 = s->regs[12],
			       .r13 = s->regs[13],
			       .r14 = s->regs[14],
			       .r15 = s->regs[15],
			       .rip = s->rip,
			       .rflags = s->rflags};
}

static void regs_out(const struct kvm_regs *k, struct state *s)
{
	const u64 values[16] = {k->rax, k->rcx, k->rdx, k->rbx, k->rsp, k->rbp, k->rsi, k->rdi,
				k->r8,	k->r9,	k->r10, k->r11, k->r12, k->r13, k->r14, k->r15};
	memcpy(s->regs, values, sizeof(values));
}

static void load_segments(const struct state *in, const struct ldt_entry *ldt)
{
	struct kvm_sregs s = start_sregs;
	for (u32 n = 0; n < LDT_SIZE; n++)
		table(LDT_GPA)[n] = descriptor(&ldt[n]);
	s.es = segment(in->seg[SEG_ES], ldt);
	s.cs = segment(in->seg[SEG_CS], ldt);
	s.ss = segment(in->seg[SEG_SS], ldt);
	s.ds = segment(in->seg[SEG_DS], ldt);
	s.gs = segment(in->seg[SEG_GS], ldt);
	if (in->seg[SEG_CS] == USER_CS64)
		s.gs.base = in->gs_base;
	engine->vcpu_set_sregs(vcpu, &s);
}

static bool has_error_code(u64 vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; /* SDM 3A table 6-1 */
}

/* What the exception pushed. */
static void take_frame(u64 rsp, struct state *out)
{
	const u64 *frame = (const u64 *)(ram + (rsp - KERNEL_BASE));
	if (has_error_code(out->vector))
		out->error = *frame++;
	out->rip = frame[0];
	out->seg[SEG_CS] = (u16)frame[1];
	out->rflags = frame[2];
	out->regs[4] = frame[3];
	out->seg[SEG_SS] = (u16)frame[4];
}

static u64 *data_entry(u64 offset)
{
	u64 at = TABLES_GPA;
	for (int level = 3; level > 0; level--)
		at = table(at)[(DATA_BASE >> (12 + 9 * level)) & 511] & ~0xfffull;
	return &table(at)[((DATA_BASE + offset) >> 12) & 511];
}

/* Some data pages begin as clean, which changes their ways in the engine. */
static void clean_pages(u64 which)
{
	for (u64 offset = 0; offset < DATA_SIZE; offset += 0x1000, which >>= 1)
		if (which & 1)
			*data_entry(offset) &= ~0x60ull; /* A, D */
}

/* Whether all pages that differ from @data now are dirty. */
static bool marked_dirty(const u8 *data)
{
	for (u64 offset = 0; offset < DATA_SIZE; offset += 0x1000)
		if (!(*data_entry(offset) & 0x40) &&
		    memcmp(ram + DATA_GPA + offset, data + offset, 0x1000))
			return false;
	return true;
}

void guest_run(const struct state *in, const struct ldt_entry *ldt, struct state *out)
{
	struct kvm_regs regs;
	struct kvm_xsave xsave = {0};
	struct kvm_sregs sregs;

	memcpy(ram + DATA_GPA, in->data, DATA_SIZE);
	clean_pages(in->rip ^ in->rip >> 4);
	regs_in(in, &regs);
	memcpy(xsave.region, in->xsave, sizeof(in->xsave));
	load_segments(in, ldt);
	engine->vcpu_set_regs(vcpu, &regs);
	engine->vcpu_set_xsave(vcpu, &xsave);
	int r = engine->vcpu_run(vcpu);
	engine->vcpu_get_regs(vcpu, &regs);
	engine->vcpu_get_sregs(vcpu, &sregs);
	engine->vcpu_get_xsave(vcpu, &xsave);
	regs_out(&regs, out);
	out->vector = ~0ull;
	out->error = out->cr2 = 0;
	u64 stub = regs.rip - (KERNEL_BASE + STUBS_GPA);
	if (r == 0 && vcpu->run->exit_reason == KVM_EXIT_HLT && stub < 512) {
		out->vector = stub / 16;
		take_frame(regs.rsp, out);
		out->cr2 = out->vector == 14 ? sregs.cr2 : 0;
	} else {
		out->rip = regs.rip;
		out->rflags = vcpu->run->exit_reason;
	}
	out->seg[SEG_ES] = sregs.es.selector;
	out->seg[SEG_DS] = sregs.ds.selector;
	out->seg[SEG_GS] = sregs.gs.selector;
	out->gs_base = out->seg[SEG_CS] == USER_CS64 ? sregs.gs.base : 0;
	memcpy(out->xsave, xsave.region, sizeof(out->xsave));
	memcpy(out->data, ram + DATA_GPA, DATA_SIZE);
	if (!marked_dirty(in->data))
		out->error = ~0ull;
}
