/*
 * The form of an instruction: all that its prefixes, opcode, ModRM and SIB bytes say, which is
 * nearly everything. What is left differs from place to place: its address, displacement and
 * immediates. Programs repeat few forms, so finding one again is most of decoding. Private to
 * decode.c and form.c.
 */
#ifndef GUISE_SOFT_FORM_H
#define GUISE_SOFT_FORM_H

#include "engine/soft/translate/decode.h"

/* Bytes of the instruction that are a number. */
struct field {
	u8 offset, size; /* size 0: absent */
	bool is_signed;
};

struct form {
	struct decoded d; /* without rip, next_rip, bytes, target, disp, imm, imm2 */
	struct field disp, imm, imm2;
	u8 fixed;	   /* bytes that make the form: those before displacement and immediates */
	u8 branch_size;	   /* imm is relative to the next instruction, in this many bytes of RIP */
	bool eip_relative; /* disp is, to EIP */
	bool masks_is4;	   /* bit 7 of the immediate is ignored */
};

/** As decode(), what @bytes share with others of their form. */
int decode_form(const u8 *bytes, u32 available, u32 mode, struct form *form);

#endif
