/* diff [--seed N] [--count INSTRUCTIONS] [--only SEQUENCE] */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/mode.h"
#include "tests/diff/diff.h"

#define SEQUENCE_ROOM 1024
#define MISMATCHES_MAX 10

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

typedef unsigned long long ull;

/* Components in their initial state may be left out of an XSAVE image (SDM 1 13.4.2). Pointers to the last x87
 * instruction are host addresses on one side. */
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
	if (!(present & 4))
		memset(x + 576, 0, 256);
	memset(x + 6, 0, 18);
	memset(x + 28, 0, 4);
	memset(x + 416, 0, 160);
	memset(x + 832, 0, 1088 - 832);
	for (u32 n = 0; n < 8; n++) /* reserved bytes of the x87 registers */
		memset(x + 32 + 16 * n + 10, 0, 6);
}

/* RF in a fault's image and TF, IF are not the instruction's. */
#define COMPARED_FLAGS 0xcd5ull

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

static bool compare(struct state *native, struct state *guest, bool silently)
{
	quiet = silently;
	bool same = true;
	char what[32];
	report(&same, "vector", native->vector, guest->vector);
	report(&same, "rip", native->rip, guest->rip);
	for (u32 n = 0; n < 16; n++)
		report(&same, names[n], native->regs[n], guest->regs[n]);
	/* A fault may find arithmetic flags that are about to be overwritten: docs/architecture.md. */
	if (native->vector == 3)
		report(&same, "rflags", native->rflags & COMPARED_FLAGS, guest->rflags & COMPARED_FLAGS);
	report(&same, "cr2", native->cr2, guest->cr2);
	normalize(native->xsave);
	normalize(guest->xsave);
	for (u32 n = 0; n < 832; n += 8) {
		snprintf(what, sizeof(what), "xsave+%u", n);
		report(&same, what, *(u64 *)(native->xsave + n), *(u64 *)(guest->xsave + n));
	}
	for (u32 n = 0; n < DATA_SIZE; n += 8) {
		snprintf(what, sizeof(what), "data+%x", n);
		report(&same, what, *(u64 *)(native->data + n), *(u64 *)(guest->data + n));
	}
	return same;
}

static void list(const u8 *code, u32 size, u64 rip)
{
	for (u32 n = 0; n < size;) {
		struct decoded d;
		char text[96] = "?";
		if (decode(code + n, 15, rip + n, MODE_CODE64 | MODE_FLAT, &d) || !d.insn.length)
			break;
		decode_text(code + n, d.insn.length, rip + n, MODE_CODE64, text, sizeof(text));
		printf("    %llx  ", (ull)(rip + n));
		for (u32 k = 0; k < d.insn.length; k++)
			printf("%02x", code[n + k]);
		printf("  %s\n", text);
		n += d.insn.length;
	}
}

static struct state start, native, guest;

static u32 run(u64 seed, u64 at, u32 length)
{
	struct random code_random = {seed}, state_random = {~seed};
	u8 *code = (u8 *)CODE_BASE + at;
	start.rip = CODE_BASE + at;
	u32 size = generate(&code_random, code, SEQUENCE_ROOM, length, start.rip);
	memcpy(guest_code() + at, code, size);
	generate_state(&state_random, &start);
	native_run(&start, &native);
	guest_run(&start, &guest);
	return size;
}

/* Runs a sequence; on a mismatch looks for the shortest beginning that shows it. */
static bool run_one(u64 seed, u64 at, u32 length)
{
	run(seed, at, length);
	if (compare(&native, &guest, true))
		return true;
	u32 shortest = 1, size;
	for (; shortest < length; shortest++) {
		guest_forget_code();
		run(seed, at, shortest);
		if (!compare(&native, &guest, true))
			break;
	}
	guest_forget_code();
	size = run(seed, at, shortest);
	printf("mismatch: --only %#llx --at %#llx --length %u\n", (ull)seed, (ull)at, shortest);
	compare(&native, &guest, false);
	for (u32 n = 0; n < 16; n++)
		printf("    %s=%llx%s", names[n], (ull)start.regs[n], n % 4 == 3 ? "\n" : "");
	list((u8 *)CODE_BASE + at, size, start.rip);
	return false;
}

int main(int argc, char **argv)
{
	u64 seed = 0x6775697365ull, count = 1000000, only = 0, at = 0, done = 0;
	u32 mismatches = 0, length = 24;
	static const struct option options[] = {{"seed", 1, 0, 's'}, {"count", 1, 0, 'n'}, {"only", 1, 0, 'o'},
						{"at", 1, 0, 'a'}, {"length", 1, 0, 'l'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		u64 value = optarg ? strtoull(optarg, NULL, 0) : 0;
		if (c == 's')
			seed = value ? value : 1;
		else if (c == 'n')
			count = value;
		else if (c == 'o')
			only = value;
		else if (c == 'a')
			at = value;
		else if (c == 'l')
			length = (u32)value;
		else
			return 2;
	}
	if (native_init() < 0 || guest_init() < 0) {
		printf("the soft engine or the fixed addresses are not to be had here\n");
		return 77;
	}
	printf("seed %#llx, %llu instructions\n", (ull)seed, (ull)count);
	fflush(stdout);
	struct random r = {seed};
	while (done < count && mismatches < MISMATCHES_MAX) {
		u64 sequence = only ? only : random_next(&r);
		if (at + SEQUENCE_ROOM > CODE_SIZE) {
			at = 0;
			guest_forget_code();
		}
		if (!run_one(sequence, at, length))
			mismatches++;
		at += 512 + (sequence & 0x1ff); /* any alignment, and across pages */
		done += length;
		if (only)
			break;
	}
	printf("%llu instructions, %u mismatches\n", (ull)done, mismatches);
	return mismatches != 0;
}
