/*
 * diff [--seed N|random] [--count PARTS] [--kinds MASK] [--strides 1]
 *	random sequences; MASK: 1 64-bit, 2 32-bit, 4 32-bit with segments, 8 16-bit
 * diff --only SEQUENCE --at OFFSET --length N [--kinds MASK] [--strides 1]
 *	one again, as a mismatch is reported
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/decode_text.h"
#include "engine/soft/translate/mode.h"
#include "tests/diff/generate.h"

#define MISMATCHES_MAX 10

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

typedef unsigned long long ull;

static struct state start, native, guest;
static struct plan plan;
static u32 kinds, trapped[32];
static bool strides;

static void list(const u8 *code, u32 size, u64 rip)
{
	for (u32 n = 0; n < size;) {
		struct decoded d;
		char text[96] = "?";
		if (decode(NULL, code + n, 15, rip + n, plan.mode, &d) || !d.insn.length) {
			printf("    %llx  %02x\n", (ull)(rip + n), code[n]);
			n++;
			continue;
		}
		decode_text(code + n, d.insn.length, rip + n, plan.mode, text, sizeof(text));
		printf("    %llx  ", (ull)(rip + n));
		for (u32 k = 0; k < d.insn.length; k++)
			printf("%02x", code[n + k]);
		printf("  %s\n", text);
		n += d.insn.length;
	}
}

static struct leeway leeway(void)
{
	u64 linear = native.rip + (plan.at - plan.rip);
	if (linear < CODE_BASE || linear >= CODE_BASE + CODE_SIZE - 256)
		return (struct leeway){.cr2 = ~0ull};
	return leeway_at((const u8 *)linear, native.rip, plan.mode);
}

#define FSW_ES 0x80

static u16 fsw(const struct state *s)
{
	u16 value;
	memcpy(&value, s->xsave + 2, sizeof(value));
	return value;
}

/*
 * An x87 store that raises an unmasked exception stores nothing, and the processor does not look at
 * its memory. Here the address is checked before the store is tried: docs/quirks.md.
 */
static bool store_not_made(void)
{
	u64 linear = guest.rip + (plan.at - plan.rip);
	struct decoded d;
	if (guest.vector < 12 || guest.vector > 14 || !(fsw(&native) & FSW_ES) ||
	    (fsw(&guest) & FSW_ES))
		return false;
	if (linear < CODE_BASE || linear >= CODE_BASE + CODE_SIZE - 15)
		return false;
	return !decode(NULL, (const u8 *)linear, 15, guest.rip, plan.mode, &d) && d.fpu &&
	       d.mem_write;
}

/* How long an undefined instruction is, the engine does not know: docs/quirks.md. */
static bool undefined_at_limit(void)
{
	const struct ldt_entry *cs = &plan.ldt[plan.seg[SEG_CS] >> 3];
	return (plan.seg[SEG_CS] & 4) && guest.vector == 6 && native.vector == 13 &&
	       guest.rip == native.rip && native.rip + 14 > cs->limit;
}

static bool same(u64 at, u32 size, bool silently)
{
	if (store_not_made() || undefined_at_limit())
		return true;
	const u8 *ours = (const u8 *)CODE_BASE + at, *theirs = guest_code() + at;
	bool code = !memcmp(ours, theirs, size);
	for (u32 n = 0; !silently && n < size; n++)
		if (ours[n] != theirs[n])
			printf("  code+%x   native %02x guest %02x\n", n, ours[n], theirs[n]);
	return compare(&native, &guest, leeway(), silently) && code;
}

static u32 run(u64 seed, u64 at, u32 length)
{
	struct random code_random = {seed}, state_random = {~seed};
	u8 *code = (u8 *)CODE_BASE + at;
	plan_make(&plan, seed, CODE_BASE + at, kinds, strides);
	u32 size = generate(&code_random, &plan, code, SEQUENCE_ROOM, length);
	memcpy(guest_code() + at, code, size);
	generate_state(&state_random, &plan, &start);
	native_run(&start, plan.ldt, &native);
	guest_run(&start, plan.ldt, &guest);
	return size;
}

static void print_start(void)
{
	for (u32 n = 0; n < 16; n++)
		printf("    %s=%llx%s", names[n], (ull)start.regs[n], n % 4 == 3 ? "\n" : "");
	printf("    rflags=%llx gs base=%llx\n", (ull)start.rflags, (ull)start.gs_base);
	for (u32 n = 0; n < LDT_SIZE; n++) {
		const struct ldt_entry *e = &plan.ldt[n];
		if (e->defined)
			printf("    ldt %#x base %x limit %x%s%s%s%s%s\n", LDT_SELECTOR(n), e->base,
			       e->limit, e->code ? " code" : "", e->big ? " big" : "",
			       e->expand_down ? " down" : "", e->fixed ? " fixed" : "",
			       e->absent ? " absent" : "");
	}
}

/* About how many of a sequence's parts came before the exception that ended it. */
static u32 how_many_ran(u32 size, u32 length)
{
	u64 offset = native.rip - plan.rip;
	return offset < size ? 1 + (u32)(offset * (length - 1) / size) : length;
}

/* Runs a sequence; on a mismatch looks for the shortest beginning that shows it. */
static bool run_one(u64 seed, u64 at, u32 length, u32 *ran)
{
	u32 size = run(seed, at, length);
	*ran = how_many_ran(size, length);
	if (native.vector < ARRAY_SIZE(trapped))
		trapped[native.vector]++;
	if (same(at, size, true))
		return true;
	printf("found:\n"); /* perhaps it takes what ran before: nothing shorter will show it */
	same(at, size, false);
	u32 shortest = 1;
	for (; shortest < length; shortest++) {
		guest_forget_code();
		size = run(seed, at, shortest);
		if (!same(at, size, true))
			break;
	}
	guest_forget_code();
	size = run(seed, at, shortest);
	printf("mismatch: --only %#llx --at %#llx --length %u --kinds %u --strides %u (kind %u)\n",
	       (ull)seed, (ull)at, shortest, kinds, strides, plan.kind);
	same(at, size, false);
	printf("    native vector %llu error %llx rip %llx cr2 %llx\n", (ull)native.vector,
	       (ull)native.error, (ull)native.rip, (ull)native.cr2);
	print_start();
	list((u8 *)CODE_BASE + at, size, start.rip);
	return false;
}

static u64 random_seed(void)
{
	u64 seed = 1;
	return getrandom(&seed, sizeof(seed), 0) == sizeof(seed) ? seed | 1 : 1;
}

struct options {
	u64 seed, count, only, at;
	u32 length, kinds;
};

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
	    {"seed", 1, 0, 's'},   {"count", 1, 0, 'n'}, {"only", 1, 0, 'o'},	 {"at", 1, 0, 'a'},
	    {"length", 1, 0, 'l'}, {"kinds", 1, 0, 'k'}, {"strides", 1, 0, 'm'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		u64 value = optarg ? strtoull(optarg, NULL, 0) : 0;
		if (c == 's')
			o->seed = value ? value : random_seed();
		else if (c == 'n')
			o->count = value;
		else if (c == 'o')
			o->only = value;
		else if (c == 'a')
			o->at = value;
		else if (c == 'l')
			o->length = (u32)value;
		else if (c == 'k')
			o->kinds = (u32)value;
		else if (c == 'm')
			strides = value;
		else
			return false;
	}
	return true;
}

static void print_summary(u64 done, u32 mismatches)
{
	printf("%llu instructions, %u mismatches; ended by", (ull)done, mismatches);
	for (u32 n = 0; n < ARRAY_SIZE(trapped); n++)
		if (trapped[n])
			printf(" %u: %u", n, trapped[n]);
	printf("\n");
}

int main(int argc, char **argv)
{
	struct options o = {.seed = 0x6775697365ull, .count = 1000000, .length = 24, .kinds = ~0u};
	u32 mismatches = 0;
	u64 done = 0;
	if (!parse(argc, argv, &o))
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (native_init(&kinds) < 0 || guest_init() < 0) {
		printf("the soft engine, FSGSBASE or the fixed addresses are not to be had here\n");
		return 77;
	}
	kinds &= o.kinds;
	if (!kinds) {
		printf("none of the kinds of code that were asked for runs here\n");
		return 77;
	}
	printf("seed %#llx, %llu instructions\n", (ull)o.seed, (ull)o.count);
	struct random r = {o.seed};
	u64 at = o.at;
	while (done < o.count && mismatches < MISMATCHES_MAX) {
		u64 sequence = o.only ? o.only : random_next(&r);
		if (at + SEQUENCE_ROOM > CODE_SIZE) {
			at = 0;
			guest_forget_code();
		}
		u32 ran;
		if (!run_one(sequence, at, o.length, &ran))
			mismatches++;
		at += SEQUENCE_ROOM + (sequence & 0x1ff); /* any alignment, and across pages */
		done += ran;
		if (o.only)
			break;
	}
	print_summary(done, mismatches);
	return mismatches != 0;
}
