/* Which registers the debugger sees: one list for the target description and for their values. */
#ifndef GUISE_GDB_REGISTERS_H
#define GUISE_GDB_REGISTERS_H

#include "gdb/internal.h"

/* Features of the target description, in the order of its registers' numbers. */
enum reg_feature {
	FEATURE_CORE,
	FEATURE_SSE,
	FEATURE_AVX,
	FEATURE_AVX512,
	FEATURE_SEGMENTS,
	FEATURE_SYSTEM, /* Guise's own */
	FEATURE_COUNT
};

/* Where a register's value lies. */
enum reg_place {
	PLACE_REGS,	/* struct kvm_regs, .offset in it */
	PLACE_SREGS,	/* struct kvm_sregs, .offset in it */
	PLACE_SELECTOR, /* a segment's selector, .offset of the segment in struct kvm_sregs */
	PLACE_XSAVE,	/* the XSAVE image, .offset in it; component .component */
	PLACE_FTAG,	/* x87's tag word, which XSAVE has in a short form */
	PLACE_MSR,	/* IA32_KERNEL_GS_BASE */
};

struct reg {
	char name[16];
	const char *type;  /* of the target description */
	const char *group; /* or NULL: as gdb thinks */
	u16 bits;	   /* as gdb sees it */
	u16 bytes;	   /* of the value where it lies */
	u8 feature, place, component;
	u32 offset;
};

#define REGS_MAX 192

struct register_set {
	enum gdb_arch arch;
	u32 count;
	struct reg regs[REGS_MAX];
};

/** The target description (gdb's manual, appendix G) of @set. */
void description_write(const struct register_set *set, struct text *out);

#endif
