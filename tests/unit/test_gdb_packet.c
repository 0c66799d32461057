/* Framing of gdb's remote protocol, and the texts that replies are made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "gdb/packet.h"

static struct packet_input in;
static char data[PACKET_MAX + 1];
static u32 length;

static int setup(void **state)
{
	in.count = 0;
	return 0;
}

static void arrive(const void *bytes, size_t count)
{
	assert_true(in.count + count <= sizeof(in.bytes));
	memcpy(in.bytes + in.count, bytes, count);
	in.count += (u32)count;
}

static void arrive_text(const char *text)
{
	arrive(text, strlen(text));
}

static enum packet_event take(void)
{
	return packet_take(&in, true, data, &length);
}

static void test_events(void **state)
{
	arrive_text("+-\003$g#67x$OK#9a");
	assert_int_equal(take(), PACKET_ACK);
	assert_int_equal(take(), PACKET_NACK);
	assert_int_equal(take(), PACKET_INTERRUPT);
	assert_int_equal(take(), PACKET_COMMAND);
	assert_string_equal(data, "g");
	assert_int_equal(length, 1);
	assert_int_equal(take(), PACKET_COMMAND);
	assert_string_equal(data, "OK");
	assert_int_equal(take(), PACKET_NONE);
	assert_int_equal(in.count, 0);
}

/* However a packet is cut, nothing comes before its last byte. */
static void test_pieces(void **state)
{
	static const char text[] = "$m1000,4#8e";

	for (size_t n = 0; n + 1 < sizeof(text); n++) {
		assert_int_equal(take(), PACKET_NONE);
		arrive(text + n, 1);
	}
	assert_int_equal(take(), PACKET_COMMAND);
	assert_string_equal(data, "m1000,4");
}

static void test_checksum(void **state)
{
	arrive_text("$g#68$g#zz$g#67");
	assert_int_equal(take(), PACKET_BAD);
	assert_int_equal(take(), PACKET_BAD);
	assert_int_equal(take(), PACKET_COMMAND);
	arrive_text("$g#zz");
	assert_int_equal(packet_take(&in, false, data, &length), PACKET_COMMAND);
}

static void test_escapes(void **state)
{
	struct text body = {0}, packet = {0};
	u8 all[256];

	for (u32 n = 0; n < 256; n++)
		all[n] = (u8)n;
	text_escaped(&body, all, sizeof(all));
	text_packet(&packet, &body);
	arrive(packet.bytes, packet.used);
	assert_int_equal(take(), PACKET_COMMAND);
	assert_int_equal(length, 256);
	assert_memory_equal(data, all, 256);
	text_free(&body);
	text_free(&packet);
}

/* One that was broken off, and one that is longer than anything. */
static void test_resync(void **state)
{
	arrive_text("$m10$g#67");
	assert_int_equal(take(), PACKET_COMMAND);
	assert_string_equal(data, "g");

	arrive_text("$");
	while (in.count < sizeof(in.bytes))
		arrive_text("m");
	assert_int_equal(take(), PACKET_NONE);
	assert_int_equal(in.count, 0);

	arrive_text("$");
	for (u32 n = 0; n <= PACKET_MAX; n++)
		arrive_text("m");
	arrive_text("#00$g#67");
	assert_int_equal(take(), PACKET_BAD);
	assert_int_equal(take(), PACKET_COMMAND);
}

static void test_noise(void **state)
{
	srand(1);
	for (u32 n = 0; n < 200000; n++) {
		static const u8 likely_bytes[] = "$#}+-\003g67";
		u8 byte = rand() % 2 ? likely_bytes[rand() % 9] : (u8)rand();
		if (in.count < sizeof(in.bytes))
			arrive(&byte, 1);
		if (take() == PACKET_COMMAND)
			assert_true(length <= PACKET_MAX && data[length] == 0);
	}
}

static void test_numbers(void **state)
{
	const char *p = "1fF,";
	u64 value;
	u8 bytes[2];

	assert_true(hex_number(&p, &value));
	assert_int_equal(value, 0x1ff);
	assert_int_equal(*p, ',');
	assert_false(hex_number(&p, &value));
	p = "ffffffffffffffff";
	assert_true(hex_number(&p, &value));
	assert_int_equal(value, UINT64_MAX);
	p = "10000000000000000";
	assert_false(hex_number(&p, &value));
	assert_true(hex_bytes("a05F", bytes, 2));
	assert_int_equal(bytes[0] << 8 | bytes[1], 0xa05f);
	assert_false(hex_bytes("a05", bytes, 2));
	assert_false(hex_bytes("a0 5", bytes, 2));
}

static void test_texts(void **state)
{
	struct text t = {0};

	for (u32 n = 0; n < 1000; n++)
		text_add(&t, "%u,", n);
	text_hex(&t, "\x01\xab", 2);
	assert_int_equal(t.used, 10 * 2 + 90 * 3 + 900 * 4 + 4);
	assert_string_equal(t.bytes + t.used - 8, "999,01ab");
	text_free(&t);
	text_bytes(&t, NULL, 0);
	assert_int_equal(t.used, 0);
	text_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_events, setup),
	    cmocka_unit_test_setup(test_pieces, setup),
	    cmocka_unit_test_setup(test_checksum, setup),
	    cmocka_unit_test_setup(test_escapes, setup),
	    cmocka_unit_test_setup(test_resync, setup),
	    cmocka_unit_test_setup(test_noise, setup),
	    cmocka_unit_test_setup(test_numbers, setup),
	    cmocka_unit_test_setup(test_texts, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
