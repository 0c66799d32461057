/*
 * The target description. Features, registers and types have the names that gdb looks for
 * (gdb's manual, G.5.17 "i386 Features"); what it does not know it shows as it is described.
 */
#include "gdb/registers.h"

#include <string.h>

static const char *const feature_names[FEATURE_COUNT] = {
    [FEATURE_CORE] = "org.gnu.gdb.i386.core",	      [FEATURE_SSE] = "org.gnu.gdb.i386.sse",
    [FEATURE_AVX] = "org.gnu.gdb.i386.avx",	      [FEATURE_AVX512] = "org.gnu.gdb.i386.avx512",
    [FEATURE_SEGMENTS] = "org.gnu.gdb.i386.segments", [FEATURE_SYSTEM] = "guise.x86.system",
};

static const char *const architectures[] = {
    [GDB_ARCH_X86_64] = "i386:x86-64",
    [GDB_ARCH_I386] = "i386",
    [GDB_ARCH_I8086] = "i8086",
};

/* A register of flags: names by bit, wider fields have theirs at each. */
struct flags {
	enum reg_feature feature;
	u8 bytes;
	const char *id;
	const char *bits[32];
};

/* SDM 1 3.4.3, 10.2.3; 3A 2.5, 2.2.1 */
static const struct flags flag_types[] = {
    {
	.feature = FEATURE_CORE,
	.bytes = 4,
	.id = "i386_eflags",
	.bits = {[0] = "CF",
		 [1] = "",
		 [2] = "PF",
		 [4] = "AF",
		 [6] = "ZF",
		 [7] = "SF",
		 [8] = "TF",
		 [9] = "IF",
		 [10] = "DF",
		 [11] = "OF",
		 [12] = "IOPL",
		 [13] = "IOPL",
		 [14] = "NT",
		 [16] = "RF",
		 [17] = "VM",
		 [18] = "AC",
		 [19] = "VIF",
		 [20] = "VIP",
		 [21] = "ID"},
    },
    {
	.feature = FEATURE_SSE,
	.bytes = 4,
	.id = "i386_mxcsr",
	.bits = {[0] = "IE",
		 [1] = "DE",
		 [2] = "ZE",
		 [3] = "OE",
		 [4] = "UE",
		 [5] = "PE",
		 [6] = "DAZ",
		 [7] = "IM",
		 [8] = "DM",
		 [9] = "ZM",
		 [10] = "OM",
		 [11] = "UM",
		 [12] = "PM",
		 [13] = "RC",
		 [14] = "RC",
		 [15] = "FZ"},
    },
    {
	.feature = FEATURE_SYSTEM,
	.bytes = 8,
	.id = "x86_cr0",
	.bits = {[0] = "PE",
		 [1] = "MP",
		 [2] = "EM",
		 [3] = "TS",
		 [4] = "ET",
		 [5] = "NE",
		 [16] = "WP",
		 [18] = "AM",
		 [29] = "NW",
		 [30] = "CD",
		 [31] = "PG"},
    },
    {
	.feature = FEATURE_SYSTEM,
	.bytes = 8,
	.id = "x86_cr4",
	.bits =
	    {[0] = "VME",	  [1] = "PVI",	  [2] = "TSD",	    [3] = "DE",	   [4] = "PSE",
	     [5] = "PAE",	  [6] = "MCE",	  [7] = "PGE",	    [8] = "PCE",   [9] = "OSFXSR",
	     [10] = "OSXMMEXCPT", [11] = "UMIP",  [12] = "LA57",    [13] = "VMXE", [14] = "SMXE",
	     [16] = "FSGSBASE",	  [17] = "PCIDE", [18] = "OSXSAVE", [20] = "SMEP", [21] = "SMAP",
	     [22] = "PKE",	  [23] = "CET"},
    },
    {
	.feature = FEATURE_SYSTEM,
	.bytes = 8,
	.id = "x86_efer",
	.bits = {[0] = "SCE", [8] = "LME", [10] = "LMA", [11] = "NXE", [12] = "SVME"},
    },
};

static const char vec128[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
			     "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
			     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
			     "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
			     "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
			     "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
			     "<union id=\"vec128\">"
			     "<field name=\"v4_float\" type=\"v4f\"/>"
			     "<field name=\"v2_double\" type=\"v2d\"/>"
			     "<field name=\"v16_int8\" type=\"v16i8\"/>"
			     "<field name=\"v8_int16\" type=\"v8i16\"/>"
			     "<field name=\"v4_int32\" type=\"v4i32\"/>"
			     "<field name=\"v2_int64\" type=\"v2i64\"/>"
			     "<field name=\"uint128\" type=\"uint128\"/>"
			     "</union>\n";

static void write_flags(const struct flags *type, struct text *out)
{
	text_add(out, "<flags id=\"%s\" size=\"%u\">", type->id, type->bytes);
	for (u32 n = 0, end; n < ARRAY_SIZE(type->bits); n = end) {
		const char *name = type->bits[n];
		end = n + 1;
		if (!name)
			continue;
		while (end < ARRAY_SIZE(type->bits) && type->bits[end] &&
		       !strcmp(type->bits[end], name))
			end++;
		text_add(out, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", name, n, end - 1);
	}
	text_add(out, "</flags>\n");
}

static void write_types(enum reg_feature feature, struct text *out)
{
	for (u32 n = 0; n < ARRAY_SIZE(flag_types); n++)
		if (flag_types[n].feature == feature)
			write_flags(&flag_types[n], out);
	if (feature == FEATURE_SSE || feature == FEATURE_AVX512)
		text_add(out, "%s", vec128);
	if (feature == FEATURE_AVX512)
		text_add(out, "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>\n");
}

static void write_register(const struct reg *reg, u32 number, struct text *out)
{
	text_add(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"", reg->name,
		 reg->bits, reg->type, number);
	if (reg->group)
		text_add(out, " group=\"%s\"", reg->group);
	text_add(out, "/>\n");
}

void description_write(const struct register_set *set, struct text *out)
{
	text_add(out,
		 "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
		 "<target version=\"1.0\">\n<architecture>%s</architecture>\n",
		 architectures[set->arch]);
	if (set->arch == GDB_ARCH_I8086) /* gdb has no 16-bit code for the others */
		text_add(out, "<osabi>none</osabi>\n");
	for (u32 n = 0; n < set->count; n++) {
		enum reg_feature feature = set->regs[n].feature;
		if (n == 0 || set->regs[n - 1].feature != feature) {
			text_add(out, "<feature name=\"%s\">\n", feature_names[feature]);
			write_types(feature, out);
		}
		write_register(&set->regs[n], n, out);
		if (n + 1 == set->count || set->regs[n + 1].feature != feature)
			text_add(out, "</feature>\n");
	}
	text_add(out, "</target>\n");
}
