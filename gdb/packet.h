/* Framing of the remote protocol (gdb's manual, E.1): $data#checksum, acknowledgements, ^C. */
#ifndef GUISE_GDB_PACKET_H
#define GUISE_GDB_PACKET_H

#include "base/types.h"

#define PACKET_MAX 16384u /* bytes of a packet's data, told to gdb as PacketSize */

/* What has come in and is not taken yet. */
struct packet_input {
	u32 count;
	u8 bytes[2 * PACKET_MAX + 16];
};

enum packet_event {
	PACKET_NONE,	  /* nothing complete yet */
	PACKET_COMMAND,	  /* a packet's data */
	PACKET_BAD,	  /* a packet with a wrong checksum */
	PACKET_ACK,	  /* + */
	PACKET_NACK,	  /* - */
	PACKET_INTERRUPT, /* ^C */
};

/**
 * Takes the next event out of @in; what belongs to none is passed over. For PACKET_COMMAND @data
 * gets the data, escapes undone, with a zero behind it, and *length its bytes. @checked: look at
 * the checksum. An input that is full holds at least one event, or is thrown away.
 */
enum packet_event packet_take(struct packet_input *in, bool checked, char data[PACKET_MAX + 1],
			      u32 *length);

/* A text that grows. After a failure to get memory it stays as it was, with .failed set. */
struct text {
	char *bytes;
	size_t used, room;
	bool failed;
};

void text_free(struct text *t);
void text_bytes(struct text *t, const void *bytes, size_t count);
void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Two hexadecimal digits a byte. */
void text_hex(struct text *t, const void *bytes, size_t count);
/** Bytes as they are, with those escaped that mean something in a packet. */
void text_escaped(struct text *t, const void *bytes, size_t count);
/** @data as a packet. */
void text_packet(struct text *t, const struct text *data);

/** Reads hexadecimal digits at *p, as many as there are; *p goes behind them. false: none, or more
 * than 64 bits. */
bool hex_number(const char **p, u64 *value);
/** Reads @count bytes of two digits each. false: not so many digits. */
bool hex_bytes(const char *p, void *bytes, size_t count);

#endif
