#include "host/input.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "host/loop.h"

#define QUEUE_BYTES 4096u
#define READ_BYTES  1024u
#define ESCAPE_KEY  0x01 /* Ctrl-A */

struct input {
	int fd;
	bool is_terminal;
	bool ended;
	bool escape_seen; /* the last key was Ctrl-A */
	struct loop_source *source;

	pthread_mutex_t lock; /* guards the queue */
	u32 pending;
	u32 head; /* where the next byte goes; head - pending is the oldest */
	u8 queue[QUEUE_BYTES];

	void (*ready)(void *opaque);
	void *ready_opaque;
	void (*command)(void *opaque, enum input_command which);
	void *command_opaque;
};

static void append(struct input *in, u8 byte)
{
	/* Full only on a terminal that nobody reads: what is typed there goes nowhere. */
	if (in->pending == QUEUE_BYTES)
		return;
	in->queue[in->head++ % QUEUE_BYTES] = byte;
	in->pending++;
}

static void send_command(struct input *in, enum input_command which)
{
	if (in->command)
		in->command(in->command_opaque, which);
}

/** The key after Ctrl-A. Returns whether it is for the guest. */
static bool escaped_key(struct input *in, u8 key)
{
	switch (key) {
	case ESCAPE_KEY:
		return true;
	case 'x':
	case 'X':
		send_command(in, INPUT_QUIT);
		return false;
	default:
		send_command(in, INPUT_HELP);
		return false;
	}
}

/** Whether @key goes to the guest, on a terminal. */
static bool key_for_guest(struct input *in, u8 key)
{
	if (in->escape_seen) {
		in->escape_seen = false;
		return escaped_key(in, key);
	}
	in->escape_seen = key == ESCAPE_KEY;
	return !in->escape_seen;
}

static void update_events(struct input *in)
{
	bool wanted = !in->ended && (in->is_terminal || QUEUE_BYTES - in->pending >= READ_BYTES);
	loop_source_set_events(in->source, wanted ? POLLIN : 0);
}

static void readable(void *opaque, short revents)
{
	struct input *in = opaque;
	u8 bytes[READ_BYTES];

	ssize_t count = read(in->fd, bytes, sizeof(bytes));
	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return;

	u8 keep[READ_BYTES];
	u32 kept = 0;
	for (ssize_t i = 0; i < count; i++)
		if (!in->is_terminal || key_for_guest(in, bytes[i]))
			keep[kept++] = bytes[i];

	pthread_mutex_lock(&in->lock);
	if (count <= 0)
		in->ended = true;
	for (u32 i = 0; i < kept; i++)
		append(in, keep[i]);
	update_events(in);
	pthread_mutex_unlock(&in->lock);

	if (kept && in->ready)
		in->ready(in->ready_opaque);
}

int input_open(struct input **out, struct loop *loop, int fd, struct error *err)
{
	struct input *in = calloc(1, sizeof(*in));
	if (!in)
		return error_set(err, ENOMEM, "no memory for standard input");
	in->fd = fd;
	in->is_terminal = isatty(fd);
	pthread_mutex_init(&in->lock, NULL);
	in->source = loop_watch(loop, fd, POLLIN, readable, in);
	if (!in->source) {
		pthread_mutex_destroy(&in->lock);
		free(in);
		return error_set(err, ENOMEM, "no memory for standard input");
	}
	*out = in;
	return 0;
}

void input_close(struct input *in)
{
	if (!in)
		return;
	loop_unwatch(in->source);
	pthread_mutex_destroy(&in->lock);
	free(in);
}

u32 input_take(struct input *in, u8 *to, u32 room)
{
	pthread_mutex_lock(&in->lock);
	u32 count = 0;
	while (count < room && in->pending) {
		to[count++] = in->queue[(in->head - in->pending) % QUEUE_BYTES];
		in->pending--;
	}
	if (count)
		update_events(in);
	pthread_mutex_unlock(&in->lock);
	return count;
}

void input_on_ready(struct input *in, void (*ready)(void *opaque), void *opaque)
{
	in->ready = ready;
	in->ready_opaque = opaque;
}

void input_on_command(struct input *in, void (*command)(void *opaque, enum input_command which),
		      void *opaque)
{
	in->command = command;
	in->command_opaque = opaque;
}
