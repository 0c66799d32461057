/*
 * "monitor" commands: what gdb has no notion of. A row of the table each; a group that some engines
 * or vCPUs do not have says so in its output.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/dump.h"
#include "gdb/chips.h"
#include "gdb/internal.h"
#include "gdb/vmx.h"

#define WORDS_A_LINE 2
#define WORDS_MAX    512u

typedef unsigned long long ull; /* what %llx wants */

/** A number as C writes it; addresses are mostly in hexadecimal, so that may go without 0x. */
static bool read_number(const char *word, int base, u64 *value)
{
	char *end;

	if (!word)
		return false;
	errno = 0;
	*value = strtoull(word, &end, base);
	return end != word && !*end && !errno;
}

static bool get_dump(struct gdb *gdb, struct dump *dump, FILE *out)
{
	const struct engine *engine = gdb->machine.engine;

	*dump = (struct dump){
	    .vcpu = gdb->cpu, .memory = gdb->machine.memory, .eptp = vmx_eptp(gdb, gdb->cpu)};
	if (engine->vcpu_get_regs(gdb_cpu(gdb), &dump->regs) == 0 &&
	    engine->vcpu_get_sregs(gdb_cpu(gdb), &dump->sregs) == 0)
		return true;
	fprintf(out, "vCPU %u: its registers cannot be read\n", gdb->cpu);
	return false;
}

/* ---- registers ---- */

static const struct {
	u32 index;
	const char *name;
} msrs[] = {
    {0x10, "tsc"},
    {0x1b, "apic_base"},
    {0x174, "sysenter_cs"},
    {0x175, "sysenter_esp"},
    {0x176, "sysenter_eip"},
    {0x1d9, "debugctl"},
    {0x277, "pat"},
    {0xc0000080, "efer"},
    {0xc0000081, "star"},
    {0xc0000082, "lstar"},
    {0xc0000083, "cstar"},
    {0xc0000084, "sfmask"},
    {0xc0000102, "kernel_gs_base"},
    {0xc0000103, "tsc_aux"},
};

static bool print_msr(struct gdb *gdb, FILE *out, u32 index, const char *name)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = {.head.nmsrs = 1, .entry.index = index};

	if (gdb->machine.engine->vcpu_get_msrs(gdb_cpu(gdb), &one.head) != 1)
		return false;
	fprintf(out, "  msr %08x  %016llx  %s\n", index, (ull)one.entry.data, name);
	return true;
}

static bool show_registers(struct gdb *gdb, char **rest, FILE *out)
{
	const struct engine *engine = gdb->machine.engine;
	struct kvm_debugregs dr;
	struct kvm_xcrs xcrs;
	struct dump dump;

	if (!get_dump(gdb, &dump, out))
		return true;
	vmx_print_operation(gdb, out);
	dump_registers(out, &dump);
	if (engine->vcpu_get_debugregs(gdb_cpu(gdb), &dr) == 0)
		fprintf(out, "  dr0 %llx  dr1 %llx  dr2 %llx  dr3 %llx  dr6 %llx  dr7 %llx\n",
			(ull)dr.db[0], (ull)dr.db[1], (ull)dr.db[2], (ull)dr.db[3], (ull)dr.dr6,
			(ull)dr.dr7);
	if (engine->vcpu_get_xcrs(gdb_cpu(gdb), &xcrs) == 0 && xcrs.nr_xcrs)
		fprintf(out, "  xcr0 %llx\n", (ull)xcrs.xcrs[0].value);
	for (u32 n = 0; n < ARRAY_SIZE(msrs); n++)
		print_msr(gdb, out, msrs[n].index, msrs[n].name);
	return true;
}

static bool show_msr(struct gdb *gdb, char **rest, FILE *out)
{
	u64 index;

	if (!read_number(strtok_r(NULL, " ", rest), 16, &index) || index > UINT32_MAX)
		return false;
	if (!print_msr(gdb, out, (u32)index, ""))
		fprintf(out, "there is no MSR %llx\n", (ull)index);
	return true;
}

/* ---- memory ---- */

static bool show_walk(struct gdb *gdb, char **rest, FILE *out)
{
	struct dump dump;
	u64 linear;

	if (!read_number(strtok_r(NULL, " ", rest), 16, &linear))
		return false;
	if (get_dump(gdb, &dump, out))
		dump_walk(out, &dump, linear);
	return true;
}

static bool show_physical(struct gdb *gdb, char **rest, FILE *out)
{
	const char *count_word;
	u64 gpa, count = 1;

	if (!read_number(strtok_r(NULL, " ", rest), 16, &gpa))
		return false;
	count_word = strtok_r(NULL, " ", rest);
	if (count_word && (!read_number(count_word, 0, &count) || count > WORDS_MAX))
		return false;
	for (u64 n = 0; n < count; n++) {
		u64 word;
		if (n % WORDS_A_LINE == 0)
			fprintf(out, "%s%012llx:", n ? "\n" : "", (ull)(gpa + 8 * n));
		if (memory_read(gdb, true, gpa + 8 * n, &word, 8) == 8)
			fprintf(out, " %016llx", (ull)word);
		else
			fprintf(out, " not in RAM      ");
	}
	fputc('\n', out);
	return true;
}

static bool set_physical(struct gdb *gdb, char **rest, FILE *out)
{
	const char *word = strtok_r(NULL, " ", rest);

	if (word && !strcmp(word, "on"))
		gdb->physical = true;
	else if (word && !strcmp(word, "off"))
		gdb->physical = false;
	else if (word)
		return false;
	fprintf(out, "addresses of memory are %s\n",
		gdb->physical ? "guest-physical" : "those of the vCPU");
	return true;
}

/* ---- interrupt chips ---- */

static bool show_lapic(struct gdb *gdb, char **rest, FILE *out)
{
	struct kvm_lapic_state lapic;

	if (gdb->machine.engine->vcpu_get_lapic(gdb_cpu(gdb), &lapic) < 0)
		fprintf(out, "this machine has no interrupt chips\n");
	else
		chip_print_lapic(out, &lapic);
	return true;
}

static bool show_chip(struct gdb *gdb, FILE *out, u32 id,
		      void (*print)(FILE *out, const struct kvm_irqchip *chip))
{
	struct kvm_irqchip chip = {.chip_id = id};

	if (gdb->machine.engine->vm_get_irqchip(gdb->machine.engine_vm, &chip) < 0)
		fprintf(out, "this machine has no interrupt chips\n");
	else
		print(out, &chip);
	return true;
}

static bool show_ioapic(struct gdb *gdb, char **rest, FILE *out)
{
	return show_chip(gdb, out, KVM_IRQCHIP_IOAPIC, chip_print_ioapic);
}

static bool show_pic(struct gdb *gdb, char **rest, FILE *out)
{
	return show_chip(gdb, out, KVM_IRQCHIP_PIC_MASTER, chip_print_pic) &&
	       show_chip(gdb, out, KVM_IRQCHIP_PIC_SLAVE, chip_print_pic);
}

static bool show_pit(struct gdb *gdb, char **rest, FILE *out)
{
	struct kvm_pit_state2 pit;

	if (gdb->machine.engine->vm_get_pit(gdb->machine.engine_vm, &pit) < 0)
		fprintf(out, "this machine has no interrupt chips\n");
	else
		chip_print_pit(out, &pit);
	return true;
}

static bool show_vmcs(struct gdb *gdb, char **rest, FILE *out)
{
	return vmx_print(gdb, out, strtok_r(NULL, " ", rest));
}

/* ---- the table ---- */

static bool show_help(struct gdb *gdb, char **rest, FILE *out);

static const struct {
	const char *name, *arguments, *what;
	bool (*run)(struct gdb *gdb, char **rest, FILE *out); /* false: wrong arguments */
} commands[] = {
    {"help", "", "lists these commands", show_help},
    {"registers", "", "all registers of the current thread's vCPU, hidden parts and MSRs too",
     show_registers},
    {"msr", "INDEX", "one MSR", show_msr},
    {"walk", "ADDRESS", "how the page tables, and EPT, lead to an address", show_walk},
    {"xp", "ADDRESS [COUNT]", "words of 8 bytes of guest-physical memory", show_physical},
    {"physical", "[on|off]", "gdb's own memory commands take guest-physical addresses",
     set_physical},
    {"lapic", "", "the current thread's local APIC", show_lapic},
    {"ioapic", "", "the I/O APIC and where its pins lead", show_ioapic},
    {"pic", "", "the two 8259 interrupt controllers", show_pic},
    {"pit", "", "the 8254 timer", show_pit},
    {"vmcs", "[GROUP]",
     "the current VMCS of a hypervisor: guest, host, execution, exit, entry, information",
     show_vmcs},
};

static bool show_help(struct gdb *gdb, char **rest, FILE *out)
{
	for (u32 n = 0; n < ARRAY_SIZE(commands); n++) {
		char usage[40];
		snprintf(usage, sizeof(usage), "%s %s", commands[n].name, commands[n].arguments);
		fprintf(out, "monitor %-20s %s\n", usage, commands[n].what);
	}
	fprintf(out, "Numbers are hexadecimal, COUNT is as in C.\n");
	return true;
}

static void run_line(struct gdb *gdb, char *line, FILE *out)
{
	char *rest;
	const char *name = strtok_r(line, " ", &rest);

	for (u32 n = 0; name && n < ARRAY_SIZE(commands); n++) {
		if (strcmp(name, commands[n].name))
			continue;
		if (!commands[n].run(gdb, &rest, out))
			fprintf(out, "usage: monitor %s %s\n", name, commands[n].arguments);
		return;
	}
	fprintf(out, "unknown command; \"monitor help\" lists them\n");
}

void monitor_command(struct gdb *gdb, char *line, struct text *text)
{
	char *bytes = NULL;
	size_t count = 0;

	FILE *out = open_memstream(&bytes, &count);
	if (!out)
		return;
	run_line(gdb, line, out);
	if (fclose(out) == 0)
		text_bytes(text, bytes, count);
	free(bytes);
}
