#include "gdb/vmx.h"

#include <string.h>

#include "engine/vmx_text.h"
#include "gdb/internal.h"

typedef unsigned long long ull; /* what %llx wants */

static bool get(struct gdb *gdb, u32 cpu, struct engine_vmx *vmx)
{
	return gdb->machine.engine->vcpu_get_vmx(gdb->machine.cpus[cpu], vmx) == 0;
}

u64 vmx_eptp(struct gdb *gdb, u32 cpu)
{
	struct engine_vmx vmx;

	return get(gdb, cpu, &vmx) ? vmx.eptp : 0;
}

bool vmx_in_guest(struct gdb *gdb, u32 cpu)
{
	struct engine_vmx vmx;

	return get(gdb, cpu, &vmx) && vmx.nonroot;
}

static void print_operation(FILE *out, const struct engine_vmx *vmx)
{
	if (vmx->nonroot)
		fprintf(out, "  VMX non-root operation: this is the hypervisor's guest\n");
	else
		fprintf(out, "  VMX root operation: this is the hypervisor\n");
}

void vmx_print_operation(struct gdb *gdb, FILE *out)
{
	struct engine_vmx vmx;

	if (get(gdb, gdb->cpu, &vmx) && vmx.on)
		print_operation(out, &vmx);
}

/* ---- groups ---- */

enum group { GUEST, HOST, EXECUTION, EXIT, ENTRY, INFORMATION, GROUPS };

/* As the manual calls them, SDM 3C 25.3. */
static const struct {
	const char *name, *heading;
} groups[GROUPS] = {
    [GUEST] = {"guest", "guest-state area"},
    [HOST] = {"host", "host-state area"},
    [EXECUTION] = {"execution", "VM-execution controls"},
    [EXIT] = {"exit", "VM-exit controls"},
    [ENTRY] = {"entry", "VM-entry controls"},
    [INFORMATION] = {"information", "VM-exit information"},
};

/* SDM 3D appendix B: bits 11:10 tell controls, information, guest and host state; which of the
 * controls are about exits and entries does not show in their numbers. */
static enum group group_of(u32 encoding)
{
	static const enum group by_type[] = {EXECUTION, INFORMATION, GUEST, HOST};

	switch (encoding) {
	case 0x2006: /* addresses of MSR areas */
	case 0x2008:
	case 0x400c: /* controls */
	case 0x400e: /* counts of MSR areas */
	case 0x4010:
		return EXIT;
	case 0x200a:
	case 0x4012 ... 0x401a: /* and the event to inject */
		return ENTRY;
	default:
		return by_type[encoding >> 10 & 3];
	}
}

static bool wanted(const char *group, enum group g)
{
	if (group && !strcmp(group, "controls"))
		return g == EXECUTION || g == EXIT || g == ENTRY;
	return !group || !strcmp(group, groups[g].name);
}

static void print_group(FILE *out, const struct engine_vmx *vmx, enum group g)
{
	static const int digits[] = {4, 16, 8, 16}; /* by width, SDM 3C 25.11.2 */
	char text[512];

	fprintf(out, "%s\n", groups[g].heading);
	for (u32 n = 0; n < vmx->field_count; n++) {
		const struct engine_vmcs_field *f = &vmx->fields[n];
		if (group_of(f->encoding) != g)
			continue;
		vmx_field_text(text, sizeof(text), f->encoding, f->value);
		fprintf(out, "  %04x %-24s %*s%0*llx%s%s\n", f->encoding, f->name,
			16 - digits[f->encoding >> 13 & 3], "", digits[f->encoding >> 13 & 3],
			(ull)f->value, *text ? "  " : "", text);
	}
}

static void print_head(FILE *out, const struct engine_vmx *vmx)
{
	print_operation(out, vmx);
	if (vmx->vmcs == ENGINE_VMCS_NONE)
		fprintf(out, "  there is no current VMCS\n");
	else
		fprintf(out, "  current VMCS at physical %llx, %s%s\n", (ull)vmx->vmcs,
			vmx->launched ? "launched" : "clear",
			vmx->nonroot ? "; its guest state is that of the last VM entry" : "");
	if (*vmx->failure)
		fprintf(out, "  a VM entry failed: %s (%llu succeeded since)\n", vmx->failure,
			(ull)vmx->entries_since);
}

bool vmx_print(struct gdb *gdb, FILE *out, const char *group)
{
	struct engine_vmx vmx;
	bool known = false;

	for (enum group g = 0; g < GROUPS; g++)
		known |= wanted(group, g);
	if (!known)
		return false;
	if (!get(gdb, gdb->cpu, &vmx)) {
		fprintf(out, "this machine shows no VMX: it takes -e soft --cpu host,+vmx\n");
		return true;
	}
	if (!vmx.on) {
		fprintf(out, "not in VMX operation\n");
		return true;
	}
	print_head(out, &vmx);
	for (enum group g = 0; g < GROUPS && vmx.field_count; g++)
		if (wanted(group, g))
			print_group(out, &vmx, g);
	return true;
}
