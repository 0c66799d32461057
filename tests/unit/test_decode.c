/*
 * Decoding by form says the same as decoding anew: of random instructions, and of others that begin
 * with the same bytes. What decoding itself says is the business of test_translate_natives and of
 * the differential test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/mode.h"

#define CASES 600000

static u64 random_state = 88172645463325252ull;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Bytes that are no instruction mostly; a few prefixes make rarer ones likelier. */
static void random_bytes(u8 bytes[16])
{
	static const u8 likely_first[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x48,
					  0x41, 0x0f, 0x0f, 0xc4, 0xc5, 0x44, 0x4c};
	u64 r[2] = {random_u64(), random_u64()};
	u32 count = random_u64() % 4;
	memcpy(bytes, r, 16);
	for (u32 n = 0; n < count; n++)
		bytes[n] = likely_first[random_u64() % sizeof(likely_first)];
}

static void compare(struct decode_cache *cache, const u8 *bytes, u32 available, u64 rip, u32 mode)
{
	struct decoded fresh, cached;
	memset(&fresh, 0, sizeof(fresh));
	memset(&cached, 0, sizeof(cached));
	int r = decode(NULL, bytes, available, rip, mode, &fresh);
	int c = decode(cache, bytes, available, rip, mode, &cached);
	if (r == c && !memcmp(&fresh, &cached, sizeof(fresh)))
		return;
	fprintf(stderr, "mode %#x, %u bytes:", mode, available);
	for (u32 n = 0; n < 15; n++)
		fprintf(stderr, " %02x", bytes[n]);
	fprintf(stderr, "\n");
	fail_msg("results %d and %d, or what was decoded, differ", r, c);
}

static void test_forms(void **state)
{
	struct decode_cache *cache = decode_cache_create();
	assert_non_null(cache);
	u8 bytes[16], other[16];
	u32 mode = 0;
	for (u32 n = 0; n < CASES; n++) {
		random_bytes(other);
		if (n % 4) { /* once more what came before, with another end */
			u32 kept = 1 + random_u64() % 8;
			memcpy(bytes + kept, other + kept, sizeof(bytes) - kept);
		} else {
			memcpy(bytes, other, sizeof(bytes));
			mode = random_u64() % 3 | (random_u64() & 1 ? MODE_STACK32 : 0);
		}
		u32 available = random_u64() % 4 ? 15 : 1 + random_u64() % 15;
		u64 rip = random_u64() >> (random_u64() & 1 ? 0 : 48);
		compare(cache, bytes, available, rip, mode);
		compare(cache, bytes, 15, rip + 1, mode);
	}
	decode_cache_destroy(cache);
}

/* What does not fit says so, also if its form is known. */
static void test_short(void **state)
{
	static const u8 mov[] = {0x48, 0xc7, 0xc0, 1,	 2,    3,    4,	  0x90,
				 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};
	struct decode_cache *cache = decode_cache_create();
	struct decoded d;
	assert_non_null(cache);
	for (u32 n = 0; n < 2; n++) {
		assert_int_equal(decode(cache, mov, 15, 0, MODE_CODE64, &d), 0);
		assert_int_equal(d.insn.imm, 0x04030201);
		for (u32 available = 1; available < 7; available++)
			assert_int_equal(decode(cache, mov, available, 0, MODE_CODE64, &d), -EFBIG);
		assert_int_equal(decode(cache, mov, 7, 0, MODE_CODE64, &d), 0);
	}
	decode_cache_destroy(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_forms),
	    cmocka_unit_test(test_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
