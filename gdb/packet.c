#include "gdb/packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTERRUPT 0x03
#define ESCAPE	  '}'
#define ESCAPE_BY 0x20

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ---- taking in ---- */

static void drop(struct packet_input *in, u32 count)
{
	in->count -= count;
	memmove(in->bytes, in->bytes + count, in->count);
}

/** Where the packet that begins at 0 has its '#'; *restart: where another one begins instead. */
static bool find_end(const struct packet_input *in, u32 *end, u32 *restart)
{
	*restart = 0;
	for (u32 n = 1; n < in->count; n++) {
		if (in->bytes[n] == '$')
			*restart = n;
		if (in->bytes[n] == '#') {
			*end = n;
			return true;
		}
	}
	return false;
}

/** Undoes escapes. Returns the length, or -1: too long. */
static s64 unescape(const u8 *bytes, u32 count, char *data)
{
	u32 used = 0;

	for (u32 n = 0; n < count; n++, used++) {
		if (used == PACKET_MAX)
			return -1;
		if (bytes[n] == ESCAPE && n + 1 < count)
			data[used] = (char)(bytes[++n] ^ ESCAPE_BY);
		else
			data[used] = (char)bytes[n];
	}
	data[used] = 0;
	return used;
}

static enum packet_event take_packet(struct packet_input *in, bool checked, char *data, u32 *length)
{
	u32 end, restart;

	bool complete = find_end(in, &end, &restart);
	if (restart) { /* one was broken off; its '$' never stands inside another */
		drop(in, restart);
		complete = find_end(in, &end, &restart);
	}
	if (!complete || end + 2 >= in->count) {
		if (in->count == sizeof(in->bytes))
			in->count = 0;
		return PACKET_NONE;
	}
	u8 sum = 0;
	for (u32 n = 1; n < end; n++)
		sum = (u8)(sum + in->bytes[n]);
	int high = digit((char)in->bytes[end + 1]), low = digit((char)in->bytes[end + 2]);
	s64 bytes = unescape(in->bytes + 1, end - 1, data);
	drop(in, end + 3);
	if (bytes < 0 || (checked && (high < 0 || low < 0 || sum != (high << 4 | low))))
		return PACKET_BAD;
	*length = (u32)bytes;
	return PACKET_COMMAND;
}

enum packet_event packet_take(struct packet_input *in, bool checked, char data[PACKET_MAX + 1],
			      u32 *length)
{
	u32 n;

	for (n = 0; n < in->count; n++) {
		enum packet_event event = PACKET_NONE;
		switch (in->bytes[n]) {
		case '$':
			drop(in, n);
			return take_packet(in, checked, data, length);
		case '+':
			event = PACKET_ACK;
			break;
		case '-':
			event = PACKET_NACK;
			break;
		case INTERRUPT:
			event = PACKET_INTERRUPT;
			break;
		}
		if (event != PACKET_NONE) {
			drop(in, n + 1);
			return event;
		}
	}
	drop(in, n);
	return PACKET_NONE;
}

/* ---- texts ---- */

void text_free(struct text *t)
{
	free(t->bytes);
	*t = (struct text){0};
}

static bool reserve(struct text *t, size_t count)
{
	if (t->failed)
		return false;
	if (t->room - t->used > count) /* and a zero behind */
		return true;
	size_t room = t->room ? t->room : 256;
	while (room - t->used <= count)
		room *= 2;
	char *bytes = realloc(t->bytes, room);
	t->failed = !bytes;
	if (!bytes)
		return false;
	t->bytes = bytes;
	t->room = room;
	return true;
}

void text_bytes(struct text *t, const void *bytes, size_t count)
{
	if (!count || !reserve(t, count))
		return;
	memcpy(t->bytes + t->used, bytes, count);
	t->used += count;
	t->bytes[t->used] = 0;
}

void text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int count = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (count < 0 || !reserve(t, (size_t)count))
		return;
	va_start(ap, fmt);
	vsnprintf(t->bytes + t->used, (size_t)count + 1, fmt, ap);
	va_end(ap);
	t->used += (size_t)count;
}

void text_hex(struct text *t, const void *bytes, size_t count)
{
	static const char digits[] = "0123456789abcdef";
	const u8 *p = bytes;

	if (!reserve(t, 2 * count))
		return;
	for (size_t n = 0; n < count; n++) {
		t->bytes[t->used++] = digits[p[n] >> 4];
		t->bytes[t->used++] = digits[p[n] & 15];
	}
	t->bytes[t->used] = 0;
}

void text_escaped(struct text *t, const void *bytes, size_t count)
{
	const char *p = bytes;

	if (!reserve(t, 2 * count))
		return;
	for (size_t n = 0; n < count; n++) {
		bool special = p[n] == '$' || p[n] == '#' || p[n] == ESCAPE || p[n] == '*';
		if (special)
			t->bytes[t->used++] = ESCAPE;
		t->bytes[t->used++] = special ? (char)(p[n] ^ ESCAPE_BY) : p[n];
	}
	t->bytes[t->used] = 0;
}

void text_packet(struct text *t, const struct text *data)
{
	u8 sum = 0;

	for (size_t n = 0; n < data->used; n++)
		sum = (u8)(sum + (u8)data->bytes[n]);
	text_bytes(t, "$", 1);
	text_bytes(t, data->bytes, data->used);
	text_add(t, "#%02x", sum);
}

/* ---- numbers ---- */

bool hex_number(const char **p, u64 *value)
{
	const char *begin = *p;

	*value = 0;
	for (int d; (d = digit(**p)) >= 0; (*p)++) {
		if (*value >> 60)
			return false;
		*value = *value << 4 | (u32)d;
	}
	return *p != begin;
}

bool hex_bytes(const char *p, void *bytes, size_t count)
{
	u8 *to = bytes;

	for (size_t n = 0; n < count; n++) {
		int high = digit(p[2 * n]), low = high < 0 ? -1 : digit(p[2 * n + 1]);
		if (low < 0)
			return false;
		to[n] = (u8)(high << 4 | low);
	}
	return true;
}
