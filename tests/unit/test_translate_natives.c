/*
 * What the translator lets the host's processor execute for the guest, over all encodings: every
 * opcode of all maps with every prefix that matters, legacy, VEX and EVEX, in 16-, 32- and 64-bit
 * code. A native instruction
 *   - has at most one memory operand, named by its ModRM byte (or moffs): the one that is checked;
 *   - touches no register that the monitor keeps for itself, nothing privileged, no control flow;
 *   - is emitted as the same instruction with operands of the same sizes;
 *   - reaches no byte outside the memory operand that was checked, and of that one under an opmask
 *     those elements that masked.h says;
 *   - reads and writes no arithmetic flags but those that the liveness pass believes it does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <Zydis/Zydis.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/decode_text.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/masked.h"
#include "engine/soft/translate/translate.h"
#include "engine/soft/translate/decode_text.h"
#include "engine/soft/translate/translator.h"

#define RAM_BYTES 0x10000ul
#define CODE	  0x1000ul
#define MODE(code)                                                                                 \
	((code) | MODE_FLAT | MODE_PE | MODE_STACK32 | MODE_ONE | MMU_KERNEL_AC << MODE_MMU_SHIFT)

#define SHADOWED                                                                                   \
	(MODE_CODE64 | MODE_FLAT | MODE_PE | MODE_ONE | MODE_SHADOW | MMU_USER << MODE_MMU_SHIFT)

static const ZydisMachineMode machine[] = {
    ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
static const ZydisStackWidth width[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
					ZYDIS_STACK_WIDTH_64};

struct reading {
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static struct soft_vcpu *v;
static u8 *ram;
static u32 failures, natives;

static bool read_code(u32 code, const u8 *bytes, u32 size, struct reading *r)
{
	ZydisDecoder decoder;
	ZydisDecoderInit(&decoder, machine[code], width[code]);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, size, &r->zi, r->ops));
}

__attribute__((format(printf, 4, 5))) static void
complain(u32 code, const u8 bytes[15], const struct reading *r, const char *format, ...)
{
	static u16 told[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	char text[96];
	va_list args;
	failures++;
	if (told[r->zi.mnemonic] & BIT(code))
		return; /* one of a kind is enough */
	told[r->zi.mnemonic] |= (u16)BIT(code);
	decode_text(bytes, 15, 0, code, text, sizeof(text));
	fprintf(stderr, "%u-bit", 16 << code);
	for (int n = 0; n < r->zi.length; n++)
		fprintf(stderr, " %02x", bytes[n]);
	fprintf(stderr, "  %s: ", text);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
}

/* ---- what it touches ---- */

static bool is_mem(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN;
}

static bool is_renamed(const ZydisDecodedOperand *op)
{
	return op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
	       op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
	       op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD ||
	       op->encoding == ZYDIS_OPERAND_ENCODING_OPCODE;
}

static const char *register_problem(const ZydisDecodedOperand *op)
{
	ZydisRegister reg = op->reg.value;
	ZydisRegisterClass class = ZydisRegisterGetClass(reg);
	switch (class) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64: {
		ZydisRegister full =
		    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
		int guest = full - ZYDIS_REGISTER_RAX;
		bool moved = host_reg(guest) != guest;
		return moved && !is_renamed(op) ? "implies a register that lives elsewhere" : NULL;
	}
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM:
	case ZYDIS_REGCLASS_MASK:
	case ZYDIS_REGCLASS_FLAGS:
		return NULL;
	default:
		switch (reg) {
		case ZYDIS_REGISTER_MXCSR:
		case ZYDIS_REGISTER_X87CONTROL:
		case ZYDIS_REGISTER_X87STATUS:
		case ZYDIS_REGISTER_X87TAG:
			return NULL;
		default:
			return "names a register of the system";
		}
	}
}

static void check_operands(u32 code, const u8 bytes[15], const struct reading *r,
			   const struct decoded *d)
{
	int memory = 0;
	if (r->zi.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		complain(code, bytes, r, "privileged");
	if (r->zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		complain(code, bytes, r, "a branch");
	for (int n = 0; n < r->zi.operand_count; n++) {
		const ZydisDecodedOperand *op = &r->ops[n];
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && register_problem(op))
			complain(code, bytes, r, "%s: %s", register_problem(op),
				 ZydisRegisterGetString(op->reg.value));
		if (!is_mem(op))
			continue;
		memory++;
		if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			complain(code, bytes, r, "hidden memory operand");
		if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
			complain(code, bytes, r, "memory operand of another kind");
		if (op->size == 0 || op->size > 64 * 8 || op->size != d->mem_size * 8)
			complain(code, bytes, r, "memory operand of %u bits", op->size);
	}
	if (memory > 1 || (memory == 1) != d->mem)
		complain(code, bytes, r, "%d memory operands", memory);
}

/* ---- how it is emitted ---- */

static int visible(const struct reading *r, const ZydisDecodedOperand *out[])
{
	int count = 0;
	for (int n = 0; n < r->zi.operand_count; n++)
		if (r->ops[n].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			out[count++] = &r->ops[n];
	return count;
}

static bool same_register(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
	ZydisRegisterClass class = ZydisRegisterGetClass(a->reg.value);
	if (class != ZydisRegisterGetClass(b->reg.value))
		return false;
	/* General registers are renamed. */
	return (class >= ZYDIS_REGCLASS_GPR8 && class <= ZYDIS_REGCLASS_GPR64) ||
	       a->reg.value == b->reg.value;
}

/* @disp: from the page, which is in r14, where the address is a constant; else 0. */
static bool same_place(const ZydisDecodedOperand *host, s64 disp)
{
	return host->mem.index == ZYDIS_REGISTER_NONE && host->mem.disp.value == disp;
}

/* What the shadow table says is in r15, or in r14 with the address. */
static bool same_shadowed_place(const ZydisDecodedOperand *guest, const ZydisDecodedOperand *host)
{
	if (host->mem.index == ZYDIS_REGISTER_NONE && host->mem.base == ZYDIS_REGISTER_R15)
		return host->mem.disp.value == guest->mem.disp.value; /* a low constant */
	if (host->mem.index == ZYDIS_REGISTER_NONE)
		return host->mem.base == ZYDIS_REGISTER_R14 && host->mem.disp.value == 0;
	return host->mem.index == ZYDIS_REGISTER_R15 && host->mem.scale == 1 &&
	       host->mem.disp.value ==
		   (host->mem.base == ZYDIS_REGISTER_R14 ? 0 : guest->mem.disp.value);
}

static bool same_instruction(const struct reading *guest, const struct reading *host, s64 disp,
			     bool shadowed)
{
	const ZydisDecodedOperand *a[ZYDIS_MAX_OPERAND_COUNT], *b[ZYDIS_MAX_OPERAND_COUNT];
	int count = visible(guest, a);
	if (guest->zi.mnemonic != host->zi.mnemonic || visible(host, b) != count)
		return false;
	if ((guest->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK) !=
	    (host->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK))
		return false;
	if (guest->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
	    memcmp(&guest->zi.avx, &host->zi.avx, sizeof(guest->zi.avx)) != 0)
		return false;
	for (int n = 0; n < count; n++) {
		if (a[n]->type != b[n]->type || a[n]->size != b[n]->size)
			return false;
		if (a[n]->type == ZYDIS_OPERAND_TYPE_REGISTER && !same_register(a[n], b[n]))
			return false;
		if (a[n]->type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		    a[n]->imm.value.u != b[n]->imm.value.u)
			return false;
		if (a[n]->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    !(shadowed ? same_shadowed_place(a[n], b[n]) : same_place(b[n], disp)))
			return false;
	}
	return true;
}

static void check_emission(u32 code, u32 mode, const u8 bytes[15], const struct reading *r)
{
	const struct translator *t = v->cache->translator;
	struct code_source source = {.rip = CODE, .linear = CODE, .gpa = CODE, .page = ram + CODE};
	struct reading host;
	int error;

	blocks_invalidate(v, CODE, 15); /* or the hash chain gets long */
	memcpy(ram + CODE, bytes, 15);
	if (!translate(v, &source, mode, &error)) {
		assert_int_equal(error, -ENOSPC);
		cache_reset(v);
		assert_non_null(translate(v, &source, mode, &error));
	}
	bool shadowed = (mode & MODE_SHADOW) && !t->cold_count;
	s64 disp = t->cold_count ? (s64)(t->cold[0].constant & ~PAGE_MASK) : 0;
	const u8 *p = t->cold_count ? t->cold[0].back : v->cache->rw + t->block->code;
	const u8 *end = t->cold_count ? t->cold[0].after : t->e.p;
	for (; p < end; p += host.zi.length) {
		if (!read_code(MODE_CODE64, p, 15, &host)) {
			complain(code, bytes, r, "emits what is no instruction");
			return;
		}
		if (same_instruction(r, &host, disp, shadowed))
			return;
	}
	complain(code, bytes, r,
		 mode & MODE_SHADOW ? "not emitted as itself for a shadow space"
				    : "not emitted as itself");
}

/* ---- how far it reaches ---- */

static sigjmp_buf back;
static const u8 *guard; /* the page that follows the operand's */
static u8 *sandbox;	/* executable */
static volatile bool reached;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	const u8 *at = info->si_addr;
	reached = signal == SIGSEGV && at >= guard && at < guard + PAGE_SIZE;
	siglongjmp(back, 1);
}

/* Runs the instruction, 64-bit and with its operand at [rbx], at the very end of a page. */
static void check_reach(const u8 bytes[15], const struct reading *r, u32 size)
{
	static const u32 mxcsr = 0x1f80;
	u8 *p = sandbox, *operand = (u8 *)guard - size;
	u64 c = 0, d = 0;
	reached = false;
	memset((u8 *)guard - 256, 0, 256);
	memcpy(p, bytes, r->zi.length);
	p[r->zi.length] = 0xc3;
	if (!sigsetjmp(back, 1))
		__asm__ volatile("sub $128, %%rsp; push %%rbp; xor %%ebp, %%ebp; call *%0; pop "
				 "%%rbp; add $128, %%rsp"
				 : "+a"(p), "+b"(operand), "+c"(c), "+d"(d)
				 :
				 : "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
				   "r15", "memory", "cc");
	__asm__ volatile("fninit; ldmxcsr %0; vzeroupper" : : "m"(mxcsr));
	if (reached)
		complain(MODE_CODE64, bytes, r, "reaches beyond its %u bytes", size);
}

/* Whether the operand's bytes from @from on are touched if opmask is @mask: by the description of
 * the access. */
static bool touches(const struct decoded *d, u64 mask, u32 from)
{
	u32 element = ACCESS_ELEMENT(d->mem_mask), count = d->mem_size / element, packed = 0;
	if (!d->mem_mask || (d->mem_mask & ACCESS_FAULTS_WHOLE))
		return true;
	for (u32 bit = 0; bit < count << ACCESS_REPEAT(d->mem_mask); bit++) {
		if (!(mask & BIT(bit)))
			continue;
		u32 k = d->mem_mask & ACCESS_PACKED ? packed++ : bit % count;
		if ((k + 1) * element > from)
			return true;
	}
	return false;
}

/* Whether the instruction, with opmask k3 and its operand at [rbx], reaches into the guard page. */
static bool reaches(const u8 *operand, u64 mask)
{
	u8 *p = sandbox;
	u64 c = 0, d = 0;
	reached = false;
	if (!sigsetjmp(back, 1))
		__asm__ volatile(
		    "kmovq %[mask], %%k3; sub $128, %%rsp; push %%rbp; xor %%ebp, %%ebp; "
		    "call *%0; pop %%rbp; add $128, %%rsp"
		    : "+a"(p), "+b"(operand), "+c"(c), "+d"(d)
		    : [mask] "r"(mask)
		    : "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
		      "cc");
	return reached;
}

/* Memory fault suppression (SDM 2A 2.7.5), as the processor has it. */
static void check_masked(const u8 bytes[15], const struct reading *r, const struct decoded *d)
{
	static const u64 masks[] = {0, 1, 2, 0x80, 0x8000, 0x0001000100010100, ~0ull};
	static const u32 mxcsr = 0x1f80;
	u32 element = r->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? r->ops[0].element_size / 8 : 4;
	const u32 splits[] = {0, element, d->mem_size / 2u, d->mem_size - element};
	memset((u8 *)guard - 256, 0, 256);
	memcpy(sandbox, bytes, r->zi.length);
	sandbox[r->zi.length] = 0xc3;
	for (volatile u32 n = 0; n < ARRAY_SIZE(masks) * ARRAY_SIZE(splits); n++) {
		u64 mask = masks[n / ARRAY_SIZE(splits)];
		u32 from = splits[n % ARRAY_SIZE(splits)];
		if (from >= d->mem_size || (d->mem_aligned && from % d->mem_size))
			continue;
		if (reaches(guard - from, mask) != touches(d, mask, from)) {
			complain(MODE_CODE64, bytes, r, "with mask %#llx bytes from %u on: not so",
				 (unsigned long long)mask, from);
			break;
		}
	}
	__asm__ volatile("ldmxcsr %0; vzeroupper" : : "m"(mxcsr));
}

static void sandbox_setup(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	for (u32 n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n], &action, NULL);
	sandbox = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u8 *p =
	    mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(sandbox != MAP_FAILED && p != MAP_FAILED);
	guard = p + PAGE_SIZE;
	assert_int_equal(mprotect(p + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
}

/* ---- which flags it reads and writes ---- */

struct machine_state {
	u64 regs[16]; /* in encoding order; RSP is not used */
	u64 flags;
};

/* x87 and vectors before each run */
static _Alignas(64) u8 vectors[XSAVE_AREA_SIZE];
static struct xstate_layout layout;

static void vectors_setup(void)
{
	static const u16 fcw = 0x37f;
	static const u32 mxcsr = 0x1f80;
	u64 state = layout.offered;
	for (u32 n = 160; n < 160 + 8 * 16; n++) /* XMM0 to XMM7 (SDM 1 table 10-2) */
		vectors[n] = (u8)(n * 37);
	if (state & XCR0_OPMASK)
		for (u32 n = 0; n < 64; n++)
			vectors[xstate_section_offset(&layout, 0, 5) + n] = (u8)(n * 19);
	memcpy(vectors, &fcw, sizeof(fcw));
	memcpy(vectors + 24, &mxcsr, sizeof(mxcsr));
	memcpy(vectors + 512, &state, sizeof(state));
}

static void load_vectors(void)
{
	__asm__ volatile("xrstor %0" : : "m"(vectors), "a"((u32)layout.offered), "d"(0) : "memory");
}

/* Calls @code with state *in, arithmetic flags included; *out is what it leaves behind. */
void run_with_flags(const u8 *code, const struct machine_state *in, struct machine_state *out);
__asm__(".pushsection .text\n"
	".globl run_with_flags\n"
	"run_with_flags:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	push %rdx; push %rdi\n"
	"	mov %rsi, %r15\n"
	"	push 128(%r15); popf\n"
	"	mov (%r15), %rax; mov 8(%r15), %rcx; mov 16(%r15), %rdx; mov 24(%r15), %rbx\n"
	"	mov 40(%r15), %rbp; mov 48(%r15), %rsi; mov 56(%r15), %rdi\n"
	"	mov 64(%r15), %r8; mov 72(%r15), %r9; mov 80(%r15), %r10; mov 88(%r15), %r11\n"
	"	mov 96(%r15), %r12; mov 104(%r15), %r13; mov 112(%r15), %r14\n"
	"	call *(%rsp)\n"
	"	pushf\n"
	"	xchg %r15, 16(%rsp)\n"
	"	mov %rax, (%r15); mov %rcx, 8(%r15); mov %rdx, 16(%r15); mov %rbx, 24(%r15)\n"
	"	mov %rbp, 40(%r15); mov %rsi, 48(%r15); mov %rdi, 56(%r15)\n"
	"	mov %r8, 64(%r15); mov %r9, 72(%r15); mov %r10, 80(%r15); mov %r11, 88(%r15)\n"
	"	mov %r12, 96(%r15); mov %r13, 104(%r15); mov %r14, 112(%r15)\n"
	"	popq 128(%r15); pop %rdi; pop %rdx\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	cld\n"
	"	ret\n"
	".popsection\n");

static bool flags_problem(const struct machine_state *in, const struct machine_state *a,
			  const struct machine_state *b, u64 toggled, const struct decoded *d)
{
	u64 read = d->flags_read, written = d->flags_written,
	    differ = (a->flags ^ b->flags) & RFLAGS_ARITH;
	/* One that has to do with flags finds and leaves all of them in the host's, whichever they
	 * are. */
	if (!(read | written | d->flags_kept) && ((a->flags ^ in->flags) & RFLAGS_ARITH))
		return true;
	if (read & toggled)
		return false;
	/* Its own old value may stay, unless it is said to be overwritten. */
	return (differ & (written | ~toggled)) || memcmp(a->regs, b->regs, sizeof(a->regs)) != 0;
}

static void check_flags(const u8 bytes[15], const struct reading *r, const struct decoded *d)
{
	static const u64 values[][3] = {{0, 0, 0},
					{0x123456789abcdef0, 0x2101, 1},
					{~0ull, 0x8040ff, 33},
					{0x80, 0x7fffffff80000000, 0xffffff45}};
	static const u64 flags[] = {RFLAGS_CF, RFLAGS_PF, RFLAGS_AF,
				    RFLAGS_ZF, RFLAGS_SF, RFLAGS_OF};
	memcpy(sandbox, bytes, r->zi.length);
	sandbox[r->zi.length] = 0xc3;
	for (volatile u32 n = 0; n < ARRAY_SIZE(values) * 2; n++) {
		struct machine_state in = {.flags = n & 1 ? 0x8d7 : 0x002}, a = {.flags = 0};
		for (u32 reg = 0; reg < 15; reg++)
			in.regs[reg] = values[n / 2][reg % 3];
		if (sigsetjmp(back, 1))
			continue; /* division */
		load_vectors();
		run_with_flags(sandbox, &in, &a);
		for (u32 f = 0; f < ARRAY_SIZE(flags); f++) {
			struct machine_state other = in, b = {.flags = 0};
			other.flags ^= flags[f];
			load_vectors();
			run_with_flags(sandbox, &other, &b);
			if (flags_problem(&in, &a, &b, flags[f], d)) {
				complain(MODE_CODE64, bytes, r,
					 "flags read %#x written %#x: not so", d->flags_read,
					 d->flags_written);
				return;
			}
		}
	}
}

/* ---- all encodings ---- */

static void check(u32 code, const u8 bytes[15])
{
	struct decoded d;
	struct reading r;
	if (decode(NULL, bytes, 15, CODE, MODE(code), &d) || d.class != CLASS_NATIVE)
		return;
	natives++;
	if (!read_code(code, bytes, 15, &r)) {
		complain(code, bytes, &r, "native, but undefined");
		return;
	}
	/* Eight registers are cleared outside 64-bit mode: by other means (native.c). */
	bool clears =
	    r.zi.mnemonic == ZYDIS_MNEMONIC_VZEROALL || r.zi.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER;
	u32 before = failures;
	check_operands(code, bytes, &r, &d);
	if (!clears || code == MODE_CODE64)
		check_emission(code, MODE(code), bytes, &r);
	if (code == MODE_CODE64 && d.mem && v->cache->has_rorx)
		check_emission(code, SHADOWED, bytes, &r);
	/* [rbx] with nothing else */
	if (code == MODE_CODE64 && d.mem && failures == before && d.has_modrm &&
	    d.insn.base == RBX && !(d.gpr_used & BIT(RSP)))
		check_reach(bytes, &r, d.mem_size);
	if (code == MODE_CODE64 && d.mem && d.evex && (d.insn.mask == 3) && failures == before &&
	    d.insn.base == RBX && !(d.gpr_used & BIT(RSP)))
		check_masked(bytes, &r, &d);
	bool variant = d.evex && (d.evex_tail & 0x67); /* the same but for length and opmask */
	bool random =
	    r.zi.mnemonic == ZYDIS_MNEMONIC_RDRAND || r.zi.mnemonic == ZYDIS_MNEMONIC_RDSEED;
	if (code == MODE_CODE64 && !d.mem && !random && !variant &&
	    !(d.gpr_used & (BIT(RSP) | BIT(15))) && (!d.has_modrm || (d.insn.modrm & 7) < 3))
		check_flags(bytes, &r, &d);
}

static const u8 opcode_prefix[][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};

static void check_modrm(u32 code, u8 *bytes, u32 at, u32 registers)
{
	for (u32 reg = 0; reg < 8; reg++) {
		bytes[at] = (u8)(reg << 3 | RBX);
		check(code, bytes);
		for (u32 rm = 0; rm < registers; rm++) {
			bytes[at] = (u8)(0xc0 | reg << 3 | (rm + (registers < 8)));
			check(code, bytes);
		}
	}
}

static void legacy(u32 code)
{
	static const u8 prefixes[][3] = {
	    {0},	  {0x66},	{0xf2},	      {0xf3},	    {0x66, 0xf2}, {0x66, 0xf3},
	    {0x48},	  {0x66, 0x48}, {0xf2, 0x48}, {0xf3, 0x48}, {0x4d},	  {0x66, 0x4d},
	    {0xf2, 0x4d}, {0xf3, 0x4d}, {0x67},	      {0xf0},	    {0x64},	  {0x67, 0x66}};
	for (u32 p = 0; p < ARRAY_SIZE(prefixes); p++)
		for (u32 map = 0; map < 4; map++)
			for (u32 opcode = 0; opcode < 256; opcode++) {
				u8 bytes[15] = {0};
				u32 at = 0;
				for (int n = 0; n < 3 && prefixes[p][n]; n++)
					bytes[at++] = prefixes[p][n];
				for (int n = 0; n < 2 && opcode_prefix[map][n]; n++)
					bytes[at++] = opcode_prefix[map][n];
				bytes[at++] = (u8)opcode;
				memset(bytes + at, 0x91, 15 - at);
				check_modrm(code, bytes, at, 8);
			}
}

/* C4, with the bits that 64-bit mode alone heeds set to either value. */
static void vex(u32 code)
{
	static const u8 registers[] = {0x78, 0x70, 0x38, 0x28}; /* vvvv: 0, 1, 8, 10 */
	for (u32 variant = 0; variant < 2 * 2 * 2 * 4; variant++)
		for (u32 map = 1; map < 4; map++)
			for (u32 pp = 0; pp < 4; pp++)
				for (u32 opcode = 0; opcode < 256; opcode++) {
					u32 b = variant & 1, w = variant >> 1 & 1,
					    l = variant >> 2 & 1;
					u8 bytes[15] = {
					    0xc4, (u8)(0xc0 | !b << 5 | map),
					    (u8)(w << 7 | registers[variant >> 3] | l << 2 | pp),
					    (u8)opcode};
					memset(bytes + 5, 0x91, 10);
					check_modrm(code, bytes, 4, 1);
				}
}

/* Lengths, broadcast or rounding, opmask with and without zeroing; which registers are named
 * changes from one to the next. SDM 2A 2.7.1. */
static void evex(u32 code)
{
	static const u8 maps[] = {1, 2, 3, 5, 6};
	u32 turn = 0;
	for (u32 variant = 0; variant < 2 * 4 * 2 * 3; variant++)
		for (u32 map = 0; map < ARRAY_SIZE(maps); map++)
			for (u32 pp = 0; pp < 4; pp++)
				for (u32 opcode = 0; opcode < 512; opcode++) {
					u32 w = variant & 1, ll = variant >> 1 & 3,
					    b = variant >> 3 & 1, masking = variant >> 4;
					bool vvvv = opcode & 256;
					turn = turn * 1103515245 + 12345;
					u8 bytes[15] = {
					    0x62, (u8)(0xe0 | (turn >> 16 & 0x10) | maps[map]),
					    (u8)(w << 7 | (vvvv ? turn >> 17 & 0x78 : 0x78) | 4 |
						 pp),
					    (u8)((masking == 2) << 7 | ll << 5 | b << 4 |
						 (vvvv ? turn >> 21 & 8 : 8) | (masking ? 3 : 0)),
					    (u8)opcode};
					memset(bytes + 6, 0x91, 9);
					check_modrm(code, bytes, 5, 1);
					if (code != MODE_CODE64)
						continue;
					bytes[1] &= (u8) ~(turn >> 19 & 0x60); /* X, B */
					check_modrm(code, bytes, 5, 1);
				}
}

static void all_natives(void **state)
{
	const struct engine *engine = engine_by_name("soft");
	struct error err = {""};
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	struct engine_probe probe;

	engine->probe(NULL, &probe);
	if (!probe.usable)
		skip();
	ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(ram != MAP_FAILED);
	assert_int_equal(engine->vm_create(NULL, &vm, &err), 0);
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (u64)ram};
	assert_int_equal(engine->vm_set_memory(vm, &region), 0);
	assert_int_equal(engine->vcpu_create(vm, 0, &vcpu, &err), 0);
	v = container_of(vcpu, struct soft_vcpu, base);
	v->seg[SEG_CS].base = 0;
	xstate_probe(&layout, true);
	sandbox_setup();
	vectors_setup();
	for (u32 code = MODE_CODE16; code <= MODE_CODE64; code++) {
		legacy(code);
		vex(code);
		if (layout.offered & XCR0_AVX512)
			evex(code);
	}
	print_message("%u native encodings\n", natives);
	engine->vcpu_destroy(vcpu);
	engine->vm_destroy(vm);
	munmap(ram, RAM_BYTES);
	assert_true(natives > 100000);
	assert_int_equal(failures, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(all_natives)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
