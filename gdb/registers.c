/* Registers: which there are, and their values. Widths and order are those of gdb's features. */
#include "gdb/registers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MSR_KERNEL_GS_BASE 0xc0000102
#define CR0_PE		   BIT(0)
#define RFLAGS_VM	   BIT(17)

/* XSAVE's components and its image (SDM 1 13.4). */
enum { X87, SSE, AVX, OPMASK = 5, ZMM_HIGH, ZMM_UPPER, COMPONENTS };

#define FX_FCW	  0
#define FX_FSW	  2
#define FX_FTW	  4
#define FX_FOP	  6
#define FX_FIP	  8
#define FX_FCS	  12
#define FX_FDP	  16
#define FX_FDS	  20
#define FX_MXCSR  24
#define FX_ST	  32
#define FX_XMM	  160
#define XSTATE_BV 512

/* ---- the list ---- */

static struct reg *add(struct register_set *set, enum reg_feature feature, const char *name,
		       u32 bits, const char *type, const char *group)
{
	struct reg *reg = &set->regs[set->count++];

	*reg = (struct reg){
	    .type = type,
	    .group = group,
	    .bits = (u16)bits,
	    .bytes = (u16)(bits / 8),
	    .feature = (u8)feature,
	};
	snprintf(reg->name, sizeof(reg->name), "%s", name);
	return reg;
}

/* Registers NAMEn and so on, n from .first on, that lie in the XSAVE image at equal distances. */
struct row {
	enum reg_feature feature;
	const char *name, *suffix; /* before and behind the number */
	u32 first, count, bits;
	const char *type;
	u8 component;
	u32 offset, step;
};

static void add_row(struct register_set *set, const struct row *row)
{
	for (u32 n = 0; n < row->count; n++) {
		char name[16];
		snprintf(name, sizeof(name), "%s%u%s", row->name, row->first + n, row->suffix);
		struct reg *reg = add(set, row->feature, name, row->bits, row->type, NULL);
		reg->place = PLACE_XSAVE;
		reg->component = row->component;
		reg->offset = row->offset + n * row->step;
	}
}

#define REG(name)                                                                                  \
	{                                                                                          \
#name, offsetof(struct kvm_regs, name)                                             \
	}

static void add_general(struct register_set *set)
{
	static const struct {
		const char *name;
		u32 offset;
	} rows[] =
	    {
		REG(rax), REG(rbx), REG(rcx), REG(rdx), REG(rsi), REG(rdi),
		REG(rbp), REG(rsp), REG(r8),  REG(r9),	REG(r10), REG(r11),
		REG(r12), REG(r13), REG(r14), REG(r15), REG(rip),
	    },
	  rows32[] = {
	      {"eax", offsetof(struct kvm_regs, rax)}, {"ecx", offsetof(struct kvm_regs, rcx)},
	      {"edx", offsetof(struct kvm_regs, rdx)}, {"ebx", offsetof(struct kvm_regs, rbx)},
	      {"esp", offsetof(struct kvm_regs, rsp)}, {"ebp", offsetof(struct kvm_regs, rbp)},
	      {"esi", offsetof(struct kvm_regs, rsi)}, {"edi", offsetof(struct kvm_regs, rdi)},
	      {"eip", offsetof(struct kvm_regs, rip)},
	  };
	bool wide = set->arch == GDB_ARCH_X86_64;
	u32 count = wide ? ARRAY_SIZE(rows) : ARRAY_SIZE(rows32);

	for (u32 n = 0; n < count; n++) {
		const char *name = wide ? rows[n].name : rows32[n].name;
		const char *type = wide ? "int64" : "int32";
		if (!strcmp(name + 1, "ip"))
			type = "code_ptr";
		else if (!strcmp(name + 1, "sp") || !strcmp(name + 1, "bp"))
			type = "data_ptr";
		add(set, FEATURE_CORE, name, wide ? 64 : 32, type, NULL)->offset =
		    wide ? rows[n].offset : rows32[n].offset;
	}
	add(set, FEATURE_CORE, "eflags", 32, "i386_eflags", NULL)->offset =
	    offsetof(struct kvm_regs, rflags);
}

static void add_segments(struct register_set *set)
{
	static const struct {
		const char *name;
		u32 offset;
	} rows[] = {
	    {"cs", offsetof(struct kvm_sregs, cs)}, {"ss", offsetof(struct kvm_sregs, ss)},
	    {"ds", offsetof(struct kvm_sregs, ds)}, {"es", offsetof(struct kvm_sregs, es)},
	    {"fs", offsetof(struct kvm_sregs, fs)}, {"gs", offsetof(struct kvm_sregs, gs)},
	};

	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		struct reg *reg = add(set, FEATURE_CORE, rows[n].name, 32, "int32", NULL);
		reg->place = PLACE_SELECTOR;
		reg->bytes = 2;
		reg->offset = rows[n].offset;
	}
}

static void add_x87(struct register_set *set)
{
	static const struct {
		const char *name;
		u8 offset, bytes;
	} rows[] = {
	    {"fctrl", FX_FCW, 2}, {"fstat", FX_FSW, 2}, {"ftag", FX_FTW, 2},  {"fiseg", FX_FCS, 2},
	    {"fioff", FX_FIP, 4}, {"foseg", FX_FDS, 2}, {"fooff", FX_FDP, 4}, {"fop", FX_FOP, 2},
	};

	static const struct row st = {FEATURE_CORE, "st", "", 0, 8, 80, "i387_ext", X87, FX_ST, 16};

	add_row(set, &st);
	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		struct reg *reg = add(set, FEATURE_CORE, rows[n].name, 32, "int", "float");
		reg->place = rows[n].offset == FX_FTW ? PLACE_FTAG : PLACE_XSAVE;
		reg->component = X87;
		reg->offset = rows[n].offset;
		reg->bytes = rows[n].bytes;
	}
}

/* What the vCPUs have, from what they are told by CPUID. */
struct extensions {
	bool avx, avx512;
	u32 at[COMPONENTS]; /* where the components lie in the XSAVE image */
};

static void add_vectors(struct register_set *set, const struct extensions *has)
{
	bool wide = set->arch == GDB_ARCH_X86_64;
	u32 low = wide ? 16 : 8, upper = wide ? 16 : 0;
	u32 at_upper = has->at[ZMM_UPPER];
	const struct row sse = {FEATURE_SSE, "xmm", "", 0, low, 128, "vec128", SSE, FX_XMM, 16};
	const struct row avx = {FEATURE_AVX, "ymm", "h",	  0, low, 128,
				"uint128",   AVX,   has->at[AVX], 16};
	const struct row avx512[] = {
	    {FEATURE_AVX512, "xmm", "", 16, upper, 128, "vec128", ZMM_UPPER, at_upper, 64},
	    {FEATURE_AVX512, "ymm", "h", 16, upper, 128, "uint128", ZMM_UPPER, at_upper + 16, 64},
	    {FEATURE_AVX512, "k", "", 0, 8, 64, "uint64", OPMASK, has->at[OPMASK], 8},
	    {FEATURE_AVX512, "zmm", "h", 0, low, 256, "v2ui128", ZMM_HIGH, has->at[ZMM_HIGH], 32},
	    {FEATURE_AVX512, "zmm", "h", 16, upper, 256, "v2ui128", ZMM_UPPER, at_upper + 32, 64},
	};

	add_row(set, &sse);
	struct reg *mxcsr = add(set, FEATURE_SSE, "mxcsr", 32, "i386_mxcsr", "vector");
	mxcsr->place = PLACE_XSAVE;
	mxcsr->component = SSE;
	mxcsr->offset = FX_MXCSR;
	if (has->avx)
		add_row(set, &avx);
	for (u32 n = 0; has->avx512 && n < ARRAY_SIZE(avx512); n++)
		add_row(set, &avx512[n]);
}

static void add_system(struct register_set *set)
{
	static const struct {
		const char *name, *type;
		u32 offset;
	} rows[] = {
	    {"fs_base", "int64", offsetof(struct kvm_sregs, fs.base)},
	    {"gs_base", "int64", offsetof(struct kvm_sregs, gs.base)},
	    {"cr0", "x86_cr0", offsetof(struct kvm_sregs, cr0)},
	    {"cr2", "int64", offsetof(struct kvm_sregs, cr2)},
	    {"cr3", "int64", offsetof(struct kvm_sregs, cr3)},
	    {"cr4", "x86_cr4", offsetof(struct kvm_sregs, cr4)},
	    {"cr8", "int64", offsetof(struct kvm_sregs, cr8)},
	    {"efer", "x86_efer", offsetof(struct kvm_sregs, efer)},
	};

	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		/* gdb takes the segment feature for amd64 only. */
		bool segments = n < 2 && set->arch == GDB_ARCH_X86_64;
		enum reg_feature feature = segments ? FEATURE_SEGMENTS : FEATURE_SYSTEM;
		struct reg *reg = add(set, feature, rows[n].name, 64, rows[n].type, NULL);
		reg->place = PLACE_SREGS;
		reg->offset = rows[n].offset;
	}
	struct reg *base = add(set, FEATURE_SYSTEM, "k_gs_base", 64, "int64", NULL);
	base->place = PLACE_MSR;
}

static struct kvm_cpuid2 *supported_cpuid(const struct gdb_machine *m)
{
	u32 room = 256;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + room * sizeof(cpuid->entries[0]));

	if (!cpuid)
		return NULL;
	cpuid->nent = room;
	if (m->engine->vm_get_supported_cpuid(m->engine_vm, cpuid) < 0)
		cpuid->nent = 0;
	return cpuid;
}

static struct extensions find_extensions(const struct kvm_cpuid2 *cpuid)
{
	struct extensions has = {.avx = false};

	for (u32 n = 0; n < cpuid->nent; n++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[n];
		if (e->function == 1)
			has.avx = e->ecx & BIT(28);
		if (e->function == 7 && e->index == 0)
			has.avx512 = e->ebx & BIT(16);
		if (e->function == 0xd && e->index >= AVX && e->index < COMPONENTS)
			has.at[e->index] = e->ebx;
	}
	/* SDM 1 13.1: with an offset of 0 the processor does not have it, whatever it says. */
	has.avx &= has.at[AVX] != 0;
	has.avx512 &= has.avx && has.at[OPMASK] && has.at[ZMM_HIGH] && has.at[ZMM_UPPER];
	return has;
}

int registers_create(struct gdb *gdb)
{
	struct register_set *set = calloc(1, sizeof(*set));
	struct kvm_cpuid2 *cpuid = supported_cpuid(&gdb->machine);

	if (!set || !cpuid) {
		free(set);
		free(cpuid);
		return -ENOMEM;
	}
	struct extensions has = find_extensions(cpuid);
	free(cpuid);
	set->arch = gdb->arch;
	add_general(set);
	add_segments(set);
	add_x87(set);
	add_vectors(set, &has);
	add_system(set);
	/* No engine's image may be shorter than what the list reads of it. */
	for (u32 n = 0; n < set->count; n++) {
		if (set->regs[n].place == PLACE_XSAVE &&
		    set->regs[n].offset + set->regs[n].bytes > sizeof(struct kvm_xsave)) {
			free(set);
			return -EINVAL;
		}
	}
	registers_destroy(gdb);
	gdb->registers = set;
	description_write(set, &gdb->description);
	return gdb->description.failed ? -ENOMEM : 0;
}

void registers_destroy(struct gdb *gdb)
{
	free(gdb->registers);
	gdb->registers = NULL;
	text_free(&gdb->description);
}

/* ---- values ---- */

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

/* All that registers can be in. */
struct cpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave xsave;
	struct one_msr msr;
};

static struct one_msr kernel_gs_base(u64 value)
{
	return (struct one_msr){
	    .head.nmsrs = 1,
	    .entry = {.index = MSR_KERNEL_GS_BASE, .data = value},
	};
}

static int get_state(struct gdb *gdb, struct cpu_state *s)
{
	const struct engine *engine = gdb->machine.engine;
	struct engine_vcpu *cpu = gdb_cpu(gdb);

	s->msr = kernel_gs_base(0);
	int ret = engine->vcpu_get_regs(cpu, &s->regs);
	if (ret == 0)
		ret = engine->vcpu_get_sregs(cpu, &s->sregs);
	if (ret == 0)
		ret = engine->vcpu_get_xsave(cpu, &s->xsave);
	if (ret == 0)
		ret = engine->vcpu_get_msrs(cpu, &s->msr.head) == 1 ? 0 : -EIO;
	return ret;
}

/** Sets what of @new differs from @old. */
static int set_state(struct gdb *gdb, const struct cpu_state *old, const struct cpu_state *new)
{
	const struct engine *engine = gdb->machine.engine;
	struct engine_vcpu *cpu = gdb_cpu(gdb);
	int ret = 0;

	if (memcmp(&old->sregs, &new->sregs, sizeof(old->sregs)))
		ret = engine->vcpu_set_sregs(cpu, &new->sregs);
	if (ret == 0 && memcmp(&old->regs, &new->regs, sizeof(old->regs)))
		ret = engine->vcpu_set_regs(cpu, &new->regs);
	if (ret == 0 && memcmp(&old->xsave, &new->xsave, sizeof(old->xsave)))
		ret = engine->vcpu_set_xsave(cpu, &new->xsave);
	if (ret == 0 && memcmp(&old->msr, &new->msr, sizeof(old->msr)))
		ret = engine->vcpu_set_msrs(cpu, &new->msr.head) == 1 ? 0 : -EINVAL;
	return ret;
}

static u8 *at(struct cpu_state *s, const struct reg *reg)
{
	switch (reg->place) {
	case PLACE_REGS:
		return (u8 *)&s->regs + reg->offset;
	case PLACE_SREGS:
		return (u8 *)&s->sregs + reg->offset;
	case PLACE_SELECTOR:
		return (u8 *)&s->sregs + reg->offset + offsetof(struct kvm_segment, selector);
	case PLACE_MSR:
		return (u8 *)&s->msr.entry.data;
	default:
		return (u8 *)s->xsave.region + reg->offset;
	}
}

/*
 * The tag word: two bits a register, 3 empty, 0 valid, 1 zero, 2 special (SDM 1 8.1.7). XSAVE keeps
 * one bit, 1 not empty; the rest follows from the values. Tags go by physical register, the image's
 * ST by distance from TOP.
 */
static u16 full_tags(const u8 *fx)
{
	u32 top = fx[FX_FSW + 1] >> 3 & 7;
	u16 tags = 0;

	for (u32 n = 0; n < 8; n++) {
		u32 tag = 3;
		if (fx[FX_FTW] >> n & 1) {
			u64 significand;
			u16 exponent;
			const u8 *st = fx + FX_ST + 16 * ((n - top) & 7);
			memcpy(&significand, st, 8);
			memcpy(&exponent, st + 8, 2);
			exponent &= 0x7fff;
			if (!exponent && !significand)
				tag = 1;
			else
				tag = exponent == 0x7fff || !(significand >> 63) ? 2 : 0;
		}
		tags |= (u16)(tag << 2 * n);
	}
	return tags;
}

static void set_tags(u8 *fx, u16 tags)
{
	fx[FX_FTW] = 0;
	for (u32 n = 0; n < 8; n++)
		if ((tags >> 2 * n & 3) != 3)
			fx[FX_FTW] |= (u8)(1u << n);
}

static void get_value(struct cpu_state *s, const struct reg *reg, u8 value[64])
{
	memset(value, 0, 64);
	if (reg->place == PLACE_FTAG) {
		u16 tags = full_tags((const u8 *)s->xsave.region);
		memcpy(value, &tags, sizeof(tags));
	} else {
		memcpy(value, at(s, reg), reg->bytes);
	}
}

/* ---- loading segments ---- */

static bool is_real(const struct cpu_state *s)
{
	return !(s->sregs.cr0 & CR0_PE) || (s->regs.rflags & RFLAGS_VM);
}

/** The hidden part of @segment from the tables that the selector points to (SDM 3A 3.4.5). */
static int load_descriptor(struct gdb *gdb, const struct cpu_state *s, struct kvm_segment *segment)
{
	u16 selector = segment->selector;
	u64 base = selector & 4 ? s->sregs.ldt.base : s->sregs.gdt.base;
	u32 limit = selector & 4 ? s->sregs.ldt.limit : s->sregs.gdt.limit;
	u64 raw;

	if (!(selector & ~3u)) {
		*segment = (struct kvm_segment){.selector = selector, .unusable = 1};
		return 0;
	}
	if ((selector | 7u) > limit)
		return -EINVAL;
	u64 got = memory_read(gdb, false, base + (selector & ~7u), &raw, sizeof(raw));
	if (got != sizeof(raw) || !(raw & BIT(44)) || !(raw & BIT(47)))
		return -EINVAL;
	*segment = (struct kvm_segment){
	    .selector = selector,
	    .base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000),
	    .limit = (u32)((raw & 0xffff) | (raw >> 32 & 0xf0000)),
	    .type = (raw >> 40 & 0xf) | 1, /* accessed */
	    .s = 1,
	    .dpl = raw >> 45 & 3,
	    .present = 1,
	    .avl = raw >> 52 & 1,
	    .l = raw >> 53 & 1,
	    .db = raw >> 54 & 1,
	    .g = raw >> 55 & 1,
	};
	if (segment->g)
		segment->limit = segment->limit << 12 | 0xfff;
	return 0;
}

static int set_selector(struct gdb *gdb, struct cpu_state *s, const struct reg *reg, u16 selector)
{
	struct kvm_segment *segment = (struct kvm_segment *)((u8 *)&s->sregs + reg->offset);

	if (segment->selector == selector)
		return 0;
	segment->selector = selector;
	if (!is_real(s))
		return load_descriptor(gdb, s, segment);
	segment->base = (u32)selector << 4;
	return 0;
}

static int set_value(struct gdb *gdb, struct cpu_state *s, const struct reg *reg,
		     const u8 value[64])
{
	u8 old[64];
	u16 word;

	get_value(s, reg, old);
	if (!memcmp(old, value, reg->bits / 8))
		return 0;
	memcpy(&word, value, sizeof(word));
	if (reg->place == PLACE_SELECTOR)
		return set_selector(gdb, s, reg, word);
	if (reg->place == PLACE_XSAVE || reg->place == PLACE_FTAG) {
		u8 *image = (u8 *)s->xsave.region;
		u64 in_use;
		memcpy(&in_use, image + XSTATE_BV, sizeof(in_use));
		in_use |= BIT(reg->component);
		memcpy(image + XSTATE_BV, &in_use, sizeof(in_use));
	}
	if (reg->place == PLACE_FTAG) {
		set_tags((u8 *)s->xsave.region, word);
	} else {
		/* The upper halves of 64-bit registers go with the lower ones of 32 bits. */
		bool extend = reg->place == PLACE_REGS && reg->bytes == 4;
		memset(at(s, reg), 0, extend ? 8 : reg->bytes);
		memcpy(at(s, reg), value, reg->bytes);
	}
	return 0;
}

/* ---- packets ---- */

int registers_read_all(struct gdb *gdb, struct text *reply)
{
	struct cpu_state s;
	u8 value[64];

	int ret = get_state(gdb, &s);
	for (u32 n = 0; ret == 0 && n < gdb->registers->count; n++) {
		get_value(&s, &gdb->registers->regs[n], value);
		text_hex(reply, value, gdb->registers->regs[n].bits / 8);
	}
	return ret;
}

int registers_write_all(struct gdb *gdb, const char *hex, size_t digits)
{
	struct cpu_state old, new;

	int ret = get_state(gdb, &old);
	new = old;
	for (u32 n = 0; ret == 0 && n < gdb->registers->count; n++) {
		const struct reg *reg = &gdb->registers->regs[n];
		u8 value[64];
		size_t bytes = reg->bits / 8;
		if (digits < 2 * bytes) /* those at the end may be left out */
			break;
		if (!hex_bytes(hex, value, bytes))
			return -EINVAL;
		ret = set_value(gdb, &new, reg, value);
		hex += 2 * bytes;
		digits -= 2 * bytes;
	}
	return ret ? ret : set_state(gdb, &old, &new);
}

int register_read(struct gdb *gdb, u64 number, struct text *reply)
{
	struct cpu_state s;
	u8 value[64];

	if (number >= gdb->registers->count)
		return -ENOENT;
	int ret = get_state(gdb, &s);
	if (ret < 0)
		return ret;
	get_value(&s, &gdb->registers->regs[number], value);
	text_hex(reply, value, gdb->registers->regs[number].bits / 8);
	return 0;
}

int register_write(struct gdb *gdb, u64 number, const char *hex, size_t digits)
{
	struct cpu_state old, new;
	u8 value[64];

	if (number >= gdb->registers->count)
		return -ENOENT;
	const struct reg *reg = &gdb->registers->regs[number];
	if (digits != reg->bits / 4 || !hex_bytes(hex, value, reg->bits / 8))
		return -EINVAL;
	int ret = get_state(gdb, &old);
	if (ret < 0)
		return ret;
	new = old;
	ret = set_value(gdb, &new, reg, value);
	return ret ? ret : set_state(gdb, &old, &new);
}
