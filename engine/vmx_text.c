#include "engine/vmx_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/vmx_reasons.h"

typedef unsigned long long ull; /* what %llx wants */

/* A text that grows and is cut off where its room ends. */
struct text {
	char *to;
	size_t size, used;
};

static struct text begin(char *to, size_t size)
{
	if (size)
		*to = '\0';
	return (struct text){.to = to, .size = size};
}

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	if (t->used >= t->size)
		return;
	va_start(ap, fmt);
	int n = vsnprintf(t->to + t->used, t->size - t->used, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->used += (size_t)n;
}

/* ---- numbers and their names ---- */

static const char *const reasons[] = {
#define REASON(X, name, number, text) [number] = text,
    VMX_REASONS(REASON, )
#undef REASON
};

#define NAME_OF(table, n) ((n) < ARRAY_SIZE(table) && (table)[n] ? (table)[n] : "?")

static const char *const registers[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					  "r8",	 "r9",	"r10", "r11", "r12", "r13", "r14", "r15"};

static const char *const exceptions[32] = {
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", NULL,  "#TS",
    "#NP", "#SS", "#GP", "#PF", NULL,  "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
};

/* Types of events, SDM 3C table 25-17. */
enum { EXTERNAL, NMI = 2, HARDWARE, SOFTWARE_INTERRUPT, PRIVILEGED, SOFTWARE, OTHER };

#define INFO_VALID     BIT(31)
#define INFO_HAS_ERROR BIT(11)
#define INFO_UNBLOCKED BIT(12)

static void add_event(struct text *t, u32 info, u32 error)
{
	u32 vector = info & 0xff;

	if (!(info & INFO_VALID))
		return;
	switch (info >> 8 & 7) {
	case EXTERNAL:
		add(t, "external interrupt %#x", vector);
		break;
	case NMI:
		add(t, "NMI");
		break;
	case SOFTWARE_INTERRUPT:
		add(t, "int %#x", vector);
		break;
	case OTHER:
		add(t, "pending monitor trap flag");
		break;
	default:
		if (vector < ARRAY_SIZE(exceptions) && exceptions[vector])
			add(t, "%s", exceptions[vector]);
		else
			add(t, "exception %#x", vector);
	}
	if (info & INFO_HAS_ERROR)
		add(t, ", error %#x", error);
}

void vmx_event_text(char *text, size_t size, u32 info, u32 error)
{
	struct text t = begin(text, size);

	add_event(&t, info, error);
}

/* ---- what a qualification says, SDM 3C 28.2.1; each writes what follows "reason: " ---- */

/* In front of each part but the first. */
static void comma(struct text *t, bool *first)
{
	if (!*first)
		add(t, ", ");
	*first = false;
}

static void exception(struct text *t, const struct vmx_exit_facts *x)
{
	bool is_exception = (x->interruption >> 8 & 7) == HARDWARE;

	add_event(t, x->interruption, x->error);
	if (is_exception && (x->interruption & 0xff) == 14)
		add(t, ", address %#llx", (ull)x->qualification);
	else if (is_exception && (x->interruption & 0xff) == 1)
		add(t, ", dr6 bits %#llx", (ull)x->qualification);
}

static void task_switch(struct text *t, const struct vmx_exit_facts *x)
{
	static const char *const sources[] = {"call", "iret", "jmp", "task gate"};

	add(t, "%s, TSS selector %#llx", sources[x->qualification >> 30 & 3],
	    (ull)x->qualification & 0xffff);
}

static void cpuid(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "leaf %#x, subleaf %#x", (u32)x->rax, (u32)x->rcx);
}

static void address(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "%#llx", (ull)x->qualification);
}

static void vmcall(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "rax %#llx", (ull)x->rax);
}

/* Table 28-3 */
static void cr_access(struct text *t, const struct vmx_exit_facts *x)
{
	u32 cr = x->qualification & 15;
	const char *reg = registers[x->qualification >> 8 & 15];

	switch (x->qualification >> 4 & 3) {
	case 0:
		add(t, "mov cr%u, %s", cr, reg);
		break;
	case 1:
		add(t, "mov %s, cr%u", reg, cr);
		break;
	case 2:
		add(t, "clts");
		break;
	default:
		add(t, "lmsw %#llx", (ull)(x->qualification >> 16 & 0xffff));
	}
}

/* Table 28-4 */
static void mov_dr(struct text *t, const struct vmx_exit_facts *x)
{
	u32 dr = x->qualification & 7;
	const char *reg = registers[x->qualification >> 8 & 15];

	if (x->qualification & BIT(4))
		add(t, "mov %s, dr%u", reg, dr);
	else
		add(t, "mov dr%u, %s", dr, reg);
}

/* Table 28-5 */
static void io(struct text *t, const struct vmx_exit_facts *x)
{
	static const char *const parts[] = {[1] = "al", [2] = "ax", [4] = "eax"};
	u64 q = x->qualification;
	u32 size = (u32)(q & 7) + 1;
	bool in = q & BIT(3), string = q & BIT(4);

	add(t, "%s%s%s %#llx", q & BIT(5) ? "rep " : "", in ? "in" : "out", string ? "s" : "",
	    (ull)(q >> 16 & 0xffff));
	if (string)
		add(t, ", %u byte%s at %#llx", size, size > 1 ? "s" : "", (ull)x->linear);
	else if (in)
		add(t, ", %s", NAME_OF(parts, size));
	else
		add(t, ", %s %#llx", NAME_OF(parts, size),
		    (ull)(x->rax & (size < 8 ? BIT(size * 8) - 1 : ~0ull)));
}

static void rdmsr(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "%#x", (u32)x->rcx);
}

static void wrmsr(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "%#x = %#llx", (u32)x->rcx, (ull)((u64)(u32)x->rdx << 32 | (u32)x->rax));
}

/* 27.8 */
static void guest_state(struct text *t, const struct vmx_exit_facts *x)
{
	static const char *const what[] = {[2] = "PDPTEs", [3] = "NMI", [4] = "VMCS link pointer"};

	if (x->qualification < ARRAY_SIZE(what) && what[x->qualification])
		add(t, "%s", what[x->qualification]);
}

static void msr_loading(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "entry %llu of the area", (ull)x->qualification);
}

/* Table 28-6 */
static void apic_access(struct text *t, const struct vmx_exit_facts *x)
{
	static const char *const types[16] = {[0] = "read",
					      [1] = "write",
					      [2] = "fetch",
					      [3] = "event",
					      [10] = "event, by physical address",
					      [15] = "instruction, by physical address"};

	add(t, "%s at offset %#llx", NAME_OF(types, x->qualification >> 12 & 15),
	    (ull)(x->qualification & 0xfff));
}

static void vector(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "vector %#llx", (ull)(x->qualification & 0xff));
}

static void apic_write(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "offset %#llx", (ull)(x->qualification & 0xfff));
}

/* Table 28-7 */
static void ept_violation(struct text *t, const struct vmx_exit_facts *x)
{
	static const char *const accesses[] = {"read", "write", "fetch"};
	u64 q = x->qualification;
	bool first = true;

	for (u32 n = 0; n < ARRAY_SIZE(accesses); n++) {
		if (!(q & BIT(n)))
			continue;
		comma(t, &first);
		add(t, "%s", accesses[n]);
	}
	add(t, " of gpa %#llx", (ull)x->physical);
	if (q & BIT(7))
		add(t, "%s (linear %#llx)", q & BIT(8) ? "" : " by the page walk", (ull)x->linear);
	if (q & 0x38)
		add(t, ", which is %c%c%c", q & BIT(3) ? 'r' : '-', q & BIT(4) ? 'w' : '-',
		    q & BIT(5) ? 'x' : '-');
	else
		add(t, ", which is not present");
	if (q & INFO_UNBLOCKED)
		add(t, ", NMIs unblocked by iret");
}

static void ept_misconfiguration(struct text *t, const struct vmx_exit_facts *x)
{
	add(t, "gpa %#llx", (ull)x->physical);
}

typedef void detail(struct text *t, const struct vmx_exit_facts *x);

static detail *const details[] = {
    [0] = exception, /* exception or NMI */
    [1] = exception, /* external interrupt */
    [4] = vector,    /* SIPI */
    [9] = task_switch,	  [10] = cpuid,
    [14] = address, /* INVLPG */
    [18] = vmcall,	  [28] = cr_access,
    [29] = mov_dr,	  [30] = io,
    [31] = rdmsr,	  [32] = wrmsr,
    [33] = guest_state,	  [34] = msr_loading,
    [44] = apic_access,	  [45] = vector, /* virtualized EOI */
    [48] = ept_violation, [49] = ept_misconfiguration,
    [56] = apic_write,
};

static void add_reason(struct text *t, u32 reason)
{
	u32 basic = reason & 0xffff;

	if (basic < ARRAY_SIZE(reasons) && reasons[basic])
		add(t, "%s", reasons[basic]);
	else
		add(t, "reason %u", basic);
}

void vmx_exit_text(char *text, size_t size, const struct vmx_exit_facts *x)
{
	struct text t = begin(text, size);
	char what[160];
	struct text d = begin(what, sizeof(what));
	u32 basic = x->reason & 0xffff;

	add_reason(&t, x->reason);
	if (basic < ARRAY_SIZE(details) && details[basic])
		details[basic](&d, x);
	if (*what)
		add(&t, ": %s", what);
}

/* ---- errors of instructions ---- */

static const char *const errors[] = {
    [1] = "VMCALL in VMX root operation",
    [2] = "VMCLEAR with an invalid address",
    [3] = "VMCLEAR of the VMXON region",
    [4] = "VMLAUNCH of a VMCS that is not clear",
    [5] = "VMRESUME of a VMCS that is not launched",
    [6] = "VMRESUME behind VMXOFF",
    [7] = "VM entry with invalid controls",
    [8] = "VM entry with invalid host state",
    [9] = "VMPTRLD with an invalid address",
    [10] = "VMPTRLD of the VMXON region",
    [11] = "VMPTRLD of a region with another revision identifier",
    [12] = "VMREAD or VMWRITE of a field that does not exist",
    [13] = "VMWRITE of a read-only field",
    [15] = "VMXON in VMX root operation",
    [16] = "VM entry with an invalid executive-VMCS pointer",
    [17] = "VM entry with an executive VMCS that is not launched",
    [18] = "VM entry with an executive-VMCS pointer that is not the VMXON pointer",
    [19] = "VMCALL with a VMCS that is not clear",
    [20] = "VMCALL with invalid VM-exit controls",
    [22] = "VMCALL with an incorrect MSEG revision identifier",
    [23] = "VMXOFF under dual-monitor treatment",
    [24] = "VMCALL with invalid SMM-monitor features",
    [25] = "VM entry with invalid controls in the executive VMCS",
    [26] = "VM entry with events blocked by MOV SS",
    [28] = "invalid operand to INVEPT or INVVPID",
};

const char *vmx_error_text(u32 error)
{
	return error < ARRAY_SIZE(errors) ? errors[error] : NULL;
}

static const char *const aborts[] = {
    [1] = "an MSR of the guest cannot be stored",
    [2] = "the host's PDPTEs are invalid",
    [3] = "the current VMCS has been corrupted",
    [4] = "an MSR of the host cannot be loaded",
    [5] = "a machine check during the VM exit",
    [6] = "a host outside IA-32e mode, but the guest was in it",
};

const char *vmx_abort_text(u32 reason)
{
	return reason < ARRAY_SIZE(aborts) ? aborts[reason] : NULL;
}

/* ---- fields ---- */

/* Encodings, SDM 3D appendix B. */
enum {
	ENTRY_EVENT = 0x4016,
	INSTRUCTION_ERROR = 0x4400,
	EXIT_REASON = 0x4402,
	EXIT_EVENT = 0x4404,
	VECTORING_EVENT = 0x4408,
	EPT_POINTER = 0x201a,
	EXCEPTION_BITMAP = 0x4004,
	ACTIVITY = 0x4826,
	INTERRUPT_STATUS = 0x0810,
};

static const struct {
	u16 encoding;
	u8 bit;
	const char *name;
} bits[] = {
    /* pin-based, table 25-5 */
    {0x4000, 0, "external-interrupt exiting"},
    {0x4000, 3, "NMI exiting"},
    {0x4000, 5, "virtual NMIs"},
    {0x4000, 6, "preemption timer"},
    {0x4000, 7, "posted interrupts"},
    /* primary processor-based, table 25-6 */
    {0x4002, 2, "interrupt-window exiting"},
    {0x4002, 3, "TSC offsetting"},
    {0x4002, 7, "HLT exiting"},
    {0x4002, 9, "INVLPG exiting"},
    {0x4002, 10, "MWAIT exiting"},
    {0x4002, 11, "RDPMC exiting"},
    {0x4002, 12, "RDTSC exiting"},
    {0x4002, 15, "CR3-load exiting"},
    {0x4002, 16, "CR3-store exiting"},
    {0x4002, 17, "tertiary controls"},
    {0x4002, 19, "CR8-load exiting"},
    {0x4002, 20, "CR8-store exiting"},
    {0x4002, 21, "TPR shadow"},
    {0x4002, 22, "NMI-window exiting"},
    {0x4002, 23, "MOV-DR exiting"},
    {0x4002, 24, "unconditional I/O exiting"},
    {0x4002, 25, "I/O bitmaps"},
    {0x4002, 27, "monitor trap flag"},
    {0x4002, 28, "MSR bitmaps"},
    {0x4002, 29, "MONITOR exiting"},
    {0x4002, 30, "PAUSE exiting"},
    {0x4002, 31, "secondary controls"},
    /* secondary processor-based, table 25-7 */
    {0x401e, 0, "virtualize APIC accesses"},
    {0x401e, 1, "EPT"},
    {0x401e, 2, "descriptor-table exiting"},
    {0x401e, 3, "RDTSCP"},
    {0x401e, 4, "virtualize x2APIC mode"},
    {0x401e, 5, "VPID"},
    {0x401e, 6, "WBINVD exiting"},
    {0x401e, 7, "unrestricted guest"},
    {0x401e, 8, "APIC-register virtualization"},
    {0x401e, 9, "virtual-interrupt delivery"},
    {0x401e, 10, "PAUSE-loop exiting"},
    {0x401e, 11, "RDRAND exiting"},
    {0x401e, 12, "INVPCID"},
    {0x401e, 13, "VM functions"},
    {0x401e, 14, "VMCS shadowing"},
    {0x401e, 15, "ENCLS exiting"},
    {0x401e, 16, "RDSEED exiting"},
    {0x401e, 17, "page-modification logging"},
    {0x401e, 18, "EPT-violation #VE"},
    {0x401e, 19, "conceal VMX from PT"},
    {0x401e, 20, "XSAVES"},
    {0x401e, 22, "mode-based execute control"},
    {0x401e, 23, "sub-page write permissions"},
    {0x401e, 24, "PT with guest-physical addresses"},
    {0x401e, 25, "TSC scaling"},
    {0x401e, 26, "user wait and pause"},
    /* VM-exit controls, table 25-13 */
    {0x400c, 2, "save debug controls"},
    {0x400c, 9, "64-bit host"},
    {0x400c, 12, "load PERF_GLOBAL_CTRL"},
    {0x400c, 15, "acknowledge interrupt"},
    {0x400c, 18, "save PAT"},
    {0x400c, 19, "load PAT"},
    {0x400c, 20, "save EFER"},
    {0x400c, 21, "load EFER"},
    {0x400c, 22, "save preemption timer"},
    {0x400c, 23, "clear BNDCFGS"},
    /* VM-entry controls, table 25-15 */
    {0x4012, 2, "load debug controls"},
    {0x4012, 9, "IA-32e mode guest"},
    {0x4012, 10, "entry to SMM"},
    {0x4012, 13, "load PERF_GLOBAL_CTRL"},
    {0x4012, 14, "load PAT"},
    {0x4012, 15, "load EFER"},
    {0x4012, 16, "load BNDCFGS"},
    /* VM functions, table 25-10 */
    {0x2018, 0, "EPTP switching"},
    /* interruptibility state, table 25-3 */
    {0x4824, 0, "blocked by STI"},
    {0x4824, 1, "blocked by MOV SS"},
    {0x4824, 2, "blocked by SMI"},
    {0x4824, 3, "blocked by NMI"},
    /* pending debug exceptions, table 25-4 */
    {0x6822, 0, "B0"},
    {0x6822, 1, "B1"},
    {0x6822, 2, "B2"},
    {0x6822, 3, "B3"},
    {0x6822, 12, "enabled breakpoint"},
    {0x6822, 14, "BS"},
};

static void add_bits(struct text *t, u32 encoding, u64 value)
{
	bool first = true;

	for (u32 n = 0; n < ARRAY_SIZE(bits); n++) {
		if (bits[n].encoding != encoding || !(value & BIT(bits[n].bit)))
			continue;
		comma(t, &first);
		add(t, "%s", bits[n].name);
	}
}

static void add_exceptions(struct text *t, u32 bitmap)
{
	bool first = true;

	for (u32 n = 0; n < ARRAY_SIZE(exceptions); n++) {
		if (!(bitmap >> n & 1))
			continue;
		comma(t, &first);
		if (exceptions[n])
			add(t, "%s", exceptions[n]);
		else
			add(t, "%u", n);
	}
}

/* Table 25-9 */
static void add_eptp(struct text *t, u64 eptp)
{
	static const char *const types[8] = {[0] = "UC", [6] = "WB"};

	add(t, "tables at %#llx, %s, %llu levels%s", (ull)(eptp & 0x000ffffffffff000),
	    NAME_OF(types, eptp & 7), (ull)(eptp >> 3 & 7) + 1,
	    eptp & BIT(6) ? ", accessed and dirty flags" : "");
}

/* Access rights, table 25-2. */
static void add_rights(struct text *t, u32 rights)
{
	u32 type = rights & 15;

	if (rights & BIT(16)) {
		add(t, "unusable");
		return;
	}
	if (!(rights & BIT(4)))
		add(t, "system, type %u", type);
	else if (type & 8)
		add(t, "code%s, %s", type & 2 ? "" : ", execute-only",
		    rights & BIT(13)   ? "64-bit"
		    : rights & BIT(14) ? "32-bit"
				       : "16-bit");
	else
		add(t, "data%s%s", type & 2 ? "" : ", read-only", type & 4 ? ", expand-down" : "");
	add(t, ", DPL %u%s", rights >> 5 & 3, rights & BIT(7) ? "" : ", not present");
}

void vmx_field_text(char *text, size_t size, u32 encoding, u64 value)
{
	static const char *const activities[] = {"active", "HLT", "shutdown", "wait-for-SIPI"};
	struct text t = begin(text, size);

	switch (encoding) {
	case ENTRY_EVENT:
	case EXIT_EVENT:
	case VECTORING_EVENT:
		/* The error code is in a field of its own, and shown there. */
		add_event(&t, (u32)value & ~(u32)INFO_HAS_ERROR, 0);
		break;
	case INSTRUCTION_ERROR:
		if (value)
			add(&t, "%s", NAME_OF(errors, value));
		break;
	case EXIT_REASON:
		add_reason(&t, (u32)value);
		if (value & BIT(31))
			add(&t, ", no entry took place");
		break;
	case EXCEPTION_BITMAP:
		add_exceptions(&t, (u32)value);
		break;
	case EPT_POINTER:
		if (value)
			add_eptp(&t, value);
		break;
	case ACTIVITY:
		add(&t, "%s", NAME_OF(activities, value));
		break;
	case INTERRUPT_STATUS:
		add(&t, "RVI %#llx, SVI %#llx", (ull)(value & 0xff), (ull)(value >> 8 & 0xff));
		break;
	case 0x4814 ... 0x4822:
		add_rights(&t, (u32)value);
		break;
	default:
		add_bits(&t, encoding, value);
	}
}
