/* What of two states must be the same. */
#include <stdio.h>
#include <string.h>

#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/ops.h"
#include "tests/diff/diff.h"

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
typedef unsigned long long ull;

static const char *const segment_names[6] = {"es", "cs", "ss", "ds", "fs", "gs"};

/* Components in their initial state may be left out of an XSAVE image (SDM 1 13.4.2). Pointers to
 * the last x87 instruction are host addresses on one side. */
static void normalize(u8 *x)
{
	u64 present = *(u64 *)(x + 512);
	if (!(present & 1)) {
		memset(x, 0, 24);
		memset(x + 32, 0, 128);
		*(u16 *)x = 0x37f;
	}
	if (!(present & 2))
		memset(x + 160, 0, 256);
	for (u32 n = 2; n < XSTATE_COUNT; n++)
		if (!(present & xstate.offered & BIT(n)) && xstate.offset[n])
			memset(x + xstate.offset[n], 0, xstate_section_size(n));
	memset(x + 6, 0, 18);
	memset(x + 28, 0, 4);
	memset(x + 416, 0, 160);
	for (u32 n = 0; n < 8; n++) /* reserved bytes of the x87 registers */
		memset(x + 32 + 16 * n + 10, 0, 6);
}

/* RF in a fault's image and TF, IF are not the instruction's. */
#define ARITHMETIC_FLAGS 0x8d5ull
#define COMPARED_FLAGS	 (ARITHMETIC_FLAGS | 0x244400ull) /* AC, ID, NT, DF */

static bool quiet;

static bool report(bool *same, const char *what, u64 native, u64 guest)
{
	if (native == guest)
		return false;
	*same = false;
	if (!quiet)
		printf("  %-8s native %016llx guest %016llx\n", what, (ull)native, (ull)guest);
	return true;
}

#define LIVE_INSNS_MAX 64

/* Which flags the instruction at @code, or one behind it before the next branch, may read before
 * they are overwritten; behind a branch all may be. */
static u64 live_flags(const u8 *code, u64 rip, u32 mode)
{
	u64 live = 0, open = ARITHMETIC_FLAGS;
	for (u32 n = 0; n < LIVE_INSNS_MAX && open; n++) {
		struct decoded d;
		if ((u64)code >= CODE_BASE + CODE_SIZE - 15 ||
		    decode(NULL, code, 15, rip, mode, &d))
			break;
		live |= d.flags_read & open;
		open &= ~(u64)d.flags_written;
		if (d.class == CLASS_OP || (d.class >= CLASS_JMP && d.class <= CLASS_RET))
			break;
		code += d.insn.length;
		rip = d.next_rip;
	}
	return live | open;
}

struct leeway leeway_at(const u8 *code, u64 rip, u32 mode)
{
	struct decoded d;
	struct leeway leeway = {.live = live_flags(code, rip, mode), .cr2 = ~0ull};
	if (decode(NULL, code, 15, rip, mode, &d))
		return leeway;
	if (d.mem_mask ||
	    (d.class == CLASS_OP && (d.insn.op == OP_ID_maskmov || d.insn.op == OP_ID_frstor)))
		leeway.cr2 = PAGE_MASK; /* which of the bytes is not defined */
	leeway.x87 = d.mmx;		/* a store that faults has set TOP to 0 already */
	leeway.mxcsr =
	    d.vex && d.insn.map == 3 && d.insn.opcode == 0x1d; /* VCVTPS2PH sets it, then faults */
	leeway.below_stack = d.class == CLASS_CALL || d.class == CLASS_CALL_IND;
	return leeway;
}

/* Whether the 8 bytes at @offset of the data touch the 8 below the stack pointer. Stack segments
 * begin at 0 or at the data (plan.c). */
static bool below_stack(const struct state *s, u32 offset)
{
	u64 sp = s->regs[RSP] < DATA_BASE ? DATA_BASE + s->regs[RSP] : s->regs[RSP];
	u64 at = DATA_BASE + offset;
	return at < sp && at + 8 > sp - 8;
}

bool compare(struct state *native, struct state *guest, struct leeway leeway, bool silently)
{
	quiet = silently;
	bool same = true;
	char what[32];
	report(&same, "vector", native->vector, guest->vector);
	/* Linux shows kernel addresses as present, whatever they are. */
	u64 present = native->vector == 14 && (s64)native->cr2 < 0 ? 1 : 0;
	report(&same, "error", native->error & ~present, guest->error & ~present);
	report(&same, "rip", native->rip, guest->rip);
	for (u32 n = 0; n < 16; n++)
		report(&same, names[n], native->regs[n], guest->regs[n]);
	for (u32 n = 0; n < 6; n++)
		if (n != SEG_FS)
			report(&same, segment_names[n], native->seg[n], guest->seg[n]);
	report(&same, "gs base", native->gs_base, guest->gs_base);
	/* A fault may find arithmetic flags that are about to be overwritten: docs/quirks.md. */
	u64 flags = native->vector == 3 ? COMPARED_FLAGS
					: (COMPARED_FLAGS & ~ARITHMETIC_FLAGS) | leeway.live;
	report(&same, "rflags", native->rflags & flags, guest->rflags & flags);
	report(&same, "cr2", native->cr2 & leeway.cr2, guest->cr2 & leeway.cr2);
	normalize(native->xsave);
	normalize(guest->xsave);
	u32 avx_end = XSAVE_AVX_OFFSET + XSAVE_AVX_SIZE;
	u32 end = xstate_area_size(&xstate, xstate.offered, false);
	for (u32 n = 0; n < end; n += 8) {
		if (n == avx_end) /* what lies between is not ours */
			n = xstate_section_offset(&xstate, 0, 5);
		if (leeway.x87 && n < 160 && n != 24) /* MXCSR */
			continue;
		if (leeway.mxcsr && n == 24)
			continue;
		snprintf(what, sizeof(what), "xsave+%u", n);
		report(&same, what, *(u64 *)(native->xsave + n), *(u64 *)(guest->xsave + n));
	}
	for (u32 n = 0; n < DATA_SIZE; n += 8) {
		if (leeway.below_stack && native->vector == 13 && below_stack(native, n))
			continue;
		snprintf(what, sizeof(what), "data+%x", n);
		report(&same, what, *(u64 *)(native->data + n), *(u64 *)(guest->data + n));
	}
	return same;
}
