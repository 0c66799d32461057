#include "debug/dump.h"

#include <string.h>

#include "debug/walk.h"
#include "memory/memory.h"

#define CODE_BEFORE  16
#define CODE_AFTER   32
#define STACK_WORDS  16
#define WORDS_A_LINE 4

#define CR0_PE	  BIT(0)
#define EFER_LMA  BIT(10)
#define RFLAGS_VM BIT(17)

typedef unsigned long long ull; /* what %llx wants */

const char *dump_exit_name(u32 reason)
{
	static const char *const names[] = {
	    [KVM_EXIT_UNKNOWN] = "UNKNOWN",
	    [KVM_EXIT_EXCEPTION] = "EXCEPTION",
	    [KVM_EXIT_IO] = "IO",
	    [KVM_EXIT_HYPERCALL] = "HYPERCALL",
	    [KVM_EXIT_DEBUG] = "DEBUG",
	    [KVM_EXIT_HLT] = "HLT",
	    [KVM_EXIT_MMIO] = "MMIO",
	    [KVM_EXIT_IRQ_WINDOW_OPEN] = "IRQ_WINDOW_OPEN",
	    [KVM_EXIT_SHUTDOWN] = "SHUTDOWN",
	    [KVM_EXIT_FAIL_ENTRY] = "FAIL_ENTRY",
	    [KVM_EXIT_INTR] = "INTR",
	    [KVM_EXIT_SET_TPR] = "SET_TPR",
	    [KVM_EXIT_TPR_ACCESS] = "TPR_ACCESS",
	    [KVM_EXIT_NMI] = "NMI",
	    [KVM_EXIT_INTERNAL_ERROR] = "INTERNAL_ERROR",
	    [KVM_EXIT_SYSTEM_EVENT] = "SYSTEM_EVENT",
	    [KVM_EXIT_IOAPIC_EOI] = "IOAPIC_EOI",
	    [KVM_EXIT_HYPERV] = "HYPERV",
	    [KVM_EXIT_X86_RDMSR] = "X86_RDMSR",
	    [KVM_EXIT_X86_WRMSR] = "X86_WRMSR",
	    [KVM_EXIT_X86_BUS_LOCK] = "X86_BUS_LOCK",
	};
	const char *name = reason < ARRAY_SIZE(names) ? names[reason] : NULL;
	return name ? name : "UNKNOWN";
}

static bool in_long_mode(const struct dump *d)
{
	return d->sregs.efer & EFER_LMA;
}

static const char *mode_name(const struct dump *d)
{
	if (!(d->sregs.cr0 & CR0_PE))
		return "real mode";
	if (in_long_mode(d))
		return d->sregs.cs.l ? "64-bit mode" : "compatibility mode";
	if (d->regs.rflags & RFLAGS_VM)
		return "virtual-8086 mode";
	return d->sregs.cs.db ? "32-bit protected mode" : "16-bit protected mode";
}

/** Linear address of @offset in @segment: 64-bit code knows no bases but those of FS and GS. */
static u64 linear_of(const struct dump *d, const struct kvm_segment *segment, u64 offset)
{
	if (in_long_mode(d) && d->sregs.cs.l)
		return offset;
	return (u32)(segment->base + offset);
}

/** Reads guest memory through its page tables, which are allowed to be nonsense. */
static bool read_linear(const struct dump *d, u64 linear, void *to, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++) {
		struct walk walk;
		walk_linear(d->memory, &d->sregs, d->eptp, linear + i, &walk);
		if (!walk.mapped ||
		    guest_memory_read(d->memory, walk.physical, (u8 *)to + i, 1) < 0)
			return false;
	}
	return true;
}

static void print_registers(FILE *out, const struct dump *d)
{
	const struct kvm_regs *r = &d->regs;
	const struct {
		const char *name;
		u64 value;
	} rows[] = {
	    {"rax", r->rax}, {"rbx", r->rbx}, {"rcx", r->rcx}, {"rdx", r->rdx},
	    {"rsi", r->rsi}, {"rdi", r->rdi}, {"rsp", r->rsp}, {"rbp", r->rbp},
	    {"r8 ", r->r8},  {"r9 ", r->r9},  {"r10", r->r10}, {"r11", r->r11},
	    {"r12", r->r12}, {"r13", r->r13}, {"r14", r->r14}, {"r15", r->r15},
	};
	fprintf(out, "  rip %016llx  rflags %08llx [", (ull)r->rip, (ull)r->rflags);
	static const struct {
		u32 bit;
		const char *name;
	} flags[] = {{0, "CF"},	 {2, "PF"},  {4, "AF"},	 {6, "ZF"},  {7, "SF"},
		     {8, "TF"},	 {9, "IF"},  {10, "DF"}, {11, "OF"}, {14, "NT"},
		     {16, "RF"}, {17, "VM"}, {18, "AC"}, {21, "ID"}};
	for (u32 i = 0; i < ARRAY_SIZE(flags); i++)
		if (r->rflags & BIT(flags[i].bit))
			fprintf(out, "%s ", flags[i].name);
	fprintf(out, "IOPL=%u]\n", (unsigned)(r->rflags >> 12 & 3));
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++)
		fprintf(out, "  %s %016llx%s", rows[i].name, (ull)rows[i].value,
			i % 4 == 3 ? "\n" : "");
}

static void print_segments(FILE *out, const struct dump *d)
{
	const struct kvm_sregs *s = &d->sregs;
	const struct {
		const char *name;
		const struct kvm_segment *segment;
	} rows[] = {
	    {"cs ", &s->cs}, {"ss ", &s->ss}, {"ds ", &s->ds}, {"es ", &s->es},
	    {"fs ", &s->fs}, {"gs ", &s->gs}, {"tr ", &s->tr}, {"ldt", &s->ldt},
	};
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct kvm_segment *g = rows[i].segment;
		fprintf(out,
			"  %s %04x  base %016llx  limit %08x  type %x  s %u dpl %u p %u db %u l %u "
			"g %u%s\n",
			rows[i].name, g->selector, (ull)g->base, g->limit, g->type, g->s, g->dpl,
			g->present, g->db, g->l, g->g, g->unusable ? "  unusable" : "");
	}
	fprintf(out, "  gdt base %016llx  limit %04x    idt base %016llx  limit %04x\n",
		(ull)s->gdt.base, s->gdt.limit, (ull)s->idt.base, s->idt.limit);
	fprintf(out, "  cr0 %08llx  cr2 %016llx  cr3 %016llx  cr4 %08llx  cr8 %llx\n", (ull)s->cr0,
		(ull)s->cr2, (ull)s->cr3, (ull)s->cr4, (ull)s->cr8);
	fprintf(out, "  efer %llx  apic base %llx\n", (ull)s->efer, (ull)s->apic_base);
}

void dump_registers(FILE *out, const struct dump *dump)
{
	print_registers(out, dump);
	print_segments(out, dump);
}

static void print_code(FILE *out, const struct dump *d)
{
	u64 rip = linear_of(d, &d->sregs.cs, d->regs.rip);
	fprintf(out, "  code at %llx:", (ull)rip);
	for (s64 i = -CODE_BEFORE; i < CODE_AFTER; i++) {
		u8 byte;
		const char *form = i == 0 ? " <%02x>" : " %02x";
		if (read_linear(d, rip + (u64)i, &byte, 1))
			fprintf(out, form, byte);
		else
			fprintf(out, i == 0 ? " <-->" : " --");
	}
	fputc('\n', out);
}

static void print_stack(FILE *out, const struct dump *d)
{
	u32 bytes = in_long_mode(d) && d->sregs.cs.l ? 8 : d->sregs.ss.db ? 4 : 2;
	u64 offset = d->regs.rsp;
	if (bytes == 4)
		offset = (u32)offset;
	else if (bytes == 2)
		offset = (u16)offset;
	u64 linear = linear_of(d, &d->sregs.ss, offset);

	fprintf(out, "  stack at %llx:\n", (ull)linear);
	for (u32 i = 0; i < STACK_WORDS; i++) {
		u64 word = 0;
		bool readable = read_linear(d, linear + i * bytes, &word, bytes);
		fprintf(out, i % WORDS_A_LINE ? " " : "    ");
		if (readable)
			fprintf(out, "%0*llx", (int)bytes * 2, (ull)word);
		else
			fprintf(out, "%.*s", (int)bytes * 2, "????????????????");
		if (i % WORDS_A_LINE == WORDS_A_LINE - 1)
			fputc('\n', out);
	}
}

struct bit_name {
	u32 bit;
	const char *name;
};

static void print_entry(FILE *out, const struct walk_step *step, const struct bit_name *bits,
			u32 bit_count, u64 present)
{
	fprintf(out, "    %-4s [%012llx", step->table, (ull)step->entry_gpa);
	if (step->readable && step->physical != step->entry_gpa)
		fprintf(out, " at %012llx", (ull)step->physical);
	fprintf(out, "] ");
	if (!step->readable) {
		fprintf(out, "not in RAM\n");
		return;
	}
	fprintf(out, "%016llx ", (ull)step->entry);
	for (u32 i = 0; i < bit_count; i++)
		if (step->entry & BIT(bits[i].bit))
			fprintf(out, " %s", bits[i].name);
	fprintf(out, step->entry & present ? "\n" : "  not present\n");
}

static const struct bit_name page_bits[] = {{0, "P"}, {1, "W"}, {2, "U"},  {3, "PWT"}, {4, "PCD"},
					    {5, "A"}, {6, "D"}, {7, "PS"}, {8, "G"},   {63, "NX"}};
static const struct bit_name ept_bits[] = {{0, "R"},  {1, "W"}, {2, "X"}, {6, "IPAT"},
					   {7, "PS"}, {8, "A"}, {9, "D"}};

static const char *not_ram(const struct dump *d, u64 physical)
{
	return guest_memory_at(d->memory, physical, 1) ? "" : ", which is not RAM";
}

static void print_ept(FILE *out, const struct dump *d, const struct walk_ept *w)
{
	fprintf(out, "  EPT walk of guest-physical %llx:\n", (ull)w->gpa);
	for (u32 i = 0; i < w->count; i++)
		print_entry(out, &w->steps[i], ept_bits, ARRAY_SIZE(ept_bits), 7);
	if (w->mapped)
		fprintf(out, "    physical %llx%s\n", (ull)w->physical, not_ram(d, w->physical));
	else
		fprintf(out, "    not mapped\n");
}

void dump_walk(FILE *out, const struct dump *d, u64 linear)
{
	struct walk walk;

	walk_linear(d->memory, &d->sregs, d->eptp, linear, &walk);
	if (walk.paging)
		fprintf(out, "  page walk of %llx:\n", (ull)linear);
	for (u32 i = 0; i < walk.count; i++)
		print_entry(out, &walk.steps[i], page_bits, ARRAY_SIZE(page_bits), 1);
	if (!walk.paging)
		fprintf(out, "  paging is off; %llx is at %s %llx%s\n", (ull)linear,
			d->eptp ? "guest-physical" : "physical", (ull)walk.gpa,
			d->eptp ? "" : not_ram(d, walk.gpa));
	else if (!walk.translated)
		fprintf(out, "    not mapped\n");
	else if (d->eptp)
		fprintf(out, "    guest-physical %llx\n", (ull)walk.gpa);
	else
		fprintf(out, "    physical %llx%s\n", (ull)walk.gpa, not_ram(d, walk.gpa));
	/* Of the address itself, or of the table that EPT does not lead to. */
	if (d->eptp && (walk.translated || !walk.ept.mapped))
		print_ept(out, d, &walk.ept);
}

void dump_print(FILE *out, const struct dump *dump)
{
	fprintf(out, "vCPU %u, exit %s, %s: %s\n", dump->vcpu, dump_exit_name(dump->exit_reason),
		mode_name(dump), dump->what);
	if (dump->vmx)
		fputs(dump->vmx, out);
	dump_registers(out, dump);
	print_code(out, dump);
	print_stack(out, dump);
	dump_walk(out, dump, linear_of(dump, &dump->sregs.cs, dump->regs.rip));
}
