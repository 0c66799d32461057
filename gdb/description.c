/*
 * The target description. Features, registers and types have the names that gdb looks for
 * (gdb's manual, G.5.17 "i386 Features"); what it does not know it shows as it is described.
 */
#include "gdb/registers.h"

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

struct field {
	const char *name;
	u8 start, end;
};

struct flags {
	u8 feature;
	u8 bytes;
	const char *id;
	struct field fields[24]; /* an empty name ends */
};

#define BITFIELD(name, bit)                                                                        \
	{                                                                                          \
		name, bit, bit                                                                     \
	}

/* SDM 3A 2.3, 2.5, 2.2.1; 1 10.2.3 */
static const struct flags flag_types[] = {
    {FEATURE_CORE,
     4,
     "i386_eflags",
     {BITFIELD("CF", 0),
      BITFIELD("", 1),
      BITFIELD("PF", 2),
      BITFIELD("AF", 4),
      BITFIELD("ZF", 6),
      BITFIELD("SF", 7),
      BITFIELD("TF", 8),
      BITFIELD("IF", 9),
      BITFIELD("DF", 10),
      BITFIELD("OF", 11),
      {"IOPL", 12, 13},
      BITFIELD("NT", 14),
      BITFIELD("RF", 16),
      BITFIELD("VM", 17),
      BITFIELD("AC", 18),
      BITFIELD("VIF", 19),
      BITFIELD("VIP", 20),
      BITFIELD("ID", 21)}},
    {FEATURE_SSE,
     4,
     "i386_mxcsr",
     {BITFIELD("IE", 0),
      BITFIELD("DE", 1),
      BITFIELD("ZE", 2),
      BITFIELD("OE", 3),
      BITFIELD("UE", 4),
      BITFIELD("PE", 5),
      BITFIELD("DAZ", 6),
      BITFIELD("IM", 7),
      BITFIELD("DM", 8),
      BITFIELD("ZM", 9),
      BITFIELD("OM", 10),
      BITFIELD("UM", 11),
      BITFIELD("PM", 12),
      {"RC", 13, 14},
      BITFIELD("FZ", 15)}},
    {FEATURE_SYSTEM,
     8,
     "x86_cr0",
     {BITFIELD("PE", 0), BITFIELD("MP", 1), BITFIELD("EM", 2), BITFIELD("TS", 3), BITFIELD("ET", 4),
      BITFIELD("NE", 5), BITFIELD("WP", 16), BITFIELD("AM", 18), BITFIELD("NW", 29),
      BITFIELD("CD", 30), BITFIELD("PG", 31)}},
    {FEATURE_SYSTEM,
     8,
     "x86_cr4",
     {BITFIELD("VME", 0),	BITFIELD("PVI", 1),	    BITFIELD("TSD", 2),
      BITFIELD("DE", 3),	BITFIELD("PSE", 4),	    BITFIELD("PAE", 5),
      BITFIELD("MCE", 6),	BITFIELD("PGE", 7),	    BITFIELD("PCE", 8),
      BITFIELD("OSFXSR", 9),	BITFIELD("OSXMMEXCPT", 10), BITFIELD("UMIP", 11),
      BITFIELD("LA57", 12),	BITFIELD("VMXE", 13),	    BITFIELD("SMXE", 14),
      BITFIELD("FSGSBASE", 16), BITFIELD("PCIDE", 17),	    BITFIELD("OSXSAVE", 18),
      BITFIELD("SMEP", 20),	BITFIELD("SMAP", 21),	    BITFIELD("PKE", 22),
      BITFIELD("CET", 23)}},
    {FEATURE_SYSTEM,
     8,
     "x86_efer",
     {BITFIELD("SCE", 0), BITFIELD("LME", 8), BITFIELD("LMA", 10), BITFIELD("NXE", 11),
      BITFIELD("SVME", 12)}},
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
	for (const struct field *f = type->fields; f->name; f++)
		text_add(out, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", f->name, f->start,
			 f->end);
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
