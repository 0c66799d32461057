#include "host/output.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "host/loop.h"

#define QUEUE_BYTES (1u << 20)
#define HIGH_MARK   (64u << 10)
#define LOW_MARK    (32u << 10)

/* What a writable tty or pipe surely takes without blocking, for descriptors in blocking mode. */
#define BLOCKING_CHUNK 256u

struct output {
	char name[256];
	int fd;
	bool owns_fd;
	bool may_block; /* fd is in blocking mode */
	struct loop_source *source;

	pthread_mutex_t lock;
	pthread_cond_t drained;
	bool waiting_allowed;
	bool broken;
	bool was_high;
	atomic_uint pending; /* bytes queued; written under lock */
	u32 head;	     /* where the next byte goes; head - pending is the oldest */
	u8 *queue;

	void (*room)(void *opaque);
	void *room_opaque;
	void (*on_broken)(void *opaque, const char *name, int errnum);
	void *broken_opaque;
};

static void mark_broken(struct output *out, int errnum)
{
	pthread_mutex_lock(&out->lock);
	out->broken = true;
	out->pending = 0;
	pthread_cond_broadcast(&out->drained);
	pthread_mutex_unlock(&out->lock);
	loop_source_set_events(out->source, 0);
	if (out->on_broken)
		out->on_broken(out->broken_opaque, out->name, errnum);
}

/** Takes @written bytes off the queue; returns whether that made room where there was none. */
static bool consume(struct output *out, u32 written)
{
	pthread_mutex_lock(&out->lock);
	out->pending -= written;
	bool room = out->was_high && out->pending < LOW_MARK;
	if (room)
		out->was_high = false;
	if (!out->pending)
		loop_source_set_events(out->source, 0);
	pthread_cond_broadcast(&out->drained);
	pthread_mutex_unlock(&out->lock);
	return room;
}

/** Writes the oldest stretch of the queue, as much as the descriptor takes without blocking. */
static void write_some(struct output *out)
{
	/* Only this thread takes bytes off, and others write elsewhere in the ring: no lock needed.
	 */
	pthread_mutex_lock(&out->lock);
	u32 bytes = out->pending;
	u32 tail = (out->head - bytes) % QUEUE_BYTES;
	pthread_mutex_unlock(&out->lock);

	if (bytes > QUEUE_BYTES - tail)
		bytes = QUEUE_BYTES - tail;
	if (out->may_block && bytes > BLOCKING_CHUNK)
		bytes = BLOCKING_CHUNK;
	if (!bytes)
		return;
	ssize_t written = write(out->fd, out->queue + tail, bytes);
	if (written < 0) {
		if (errno != EAGAIN && errno != EINTR)
			mark_broken(out, errno);
		return;
	}
	if (consume(out, (u32)written) && out->room)
		out->room(out->room_opaque);
}

static void writable(void *opaque, short revents)
{
	write_some(opaque);
}

static int open_fd(struct output **result, struct loop *loop, int fd, bool owns_fd, bool may_block,
		   const char *name, struct error *err)
{
	struct output *out = calloc(1, sizeof(*out));
	if (!out)
		goto no_memory;
	out->queue = malloc(QUEUE_BYTES);
	if (!out->queue)
		goto no_memory;
	snprintf(out->name, sizeof(out->name), "%s", name);
	out->fd = fd;
	out->owns_fd = owns_fd;
	out->may_block = may_block;
	out->waiting_allowed = true;
	out->source = loop_watch(loop, fd, 0, writable, out);
	if (!out->source)
		goto no_memory;
	pthread_mutex_init(&out->lock, NULL);
	pthread_cond_init(&out->drained, NULL);
	*result = out;
	return 0;

no_memory:
	if (out)
		free(out->queue);
	free(out);
	return error_set(err, ENOMEM, "no memory for the stream to %s", name);
}

int output_open_fd(struct output **out, struct loop *loop, int fd, const char *name,
		   struct error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot write to %s", name);

	/*
	 * A terminal or pipe must not block the loop, but O_NONBLOCK belongs to the open file,
	 * which the shell and others share. So open it once more; where that is not allowed, write
	 * little.
	 */
	int own = -1;
	if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) {
		char path[32];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	}
	int ret = own >= 0 ? open_fd(out, loop, own, true, false, name, err)
			   : open_fd(out, loop, fd, false, !S_ISREG(st.st_mode), name, err);
	if (ret < 0 && own >= 0)
		close(own);
	return ret;
}

int output_open_file(struct output **out, struct loop *loop, const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
	if (fd < 0)
		return error_errno(err, errno, "cannot open %s for the serial port", path);
	int ret = open_fd(out, loop, fd, true, false, path, err);
	if (ret < 0)
		close(fd);
	return ret;
}

void output_close(struct output *out)
{
	if (!out)
		return;
	loop_unwatch(out->source);
	if (out->owns_fd)
		close(out->fd);
	pthread_cond_destroy(&out->drained);
	pthread_mutex_destroy(&out->lock);
	free(out->queue);
	free(out);
}

void output_put(struct output *out, u8 byte)
{
	pthread_mutex_lock(&out->lock);
	while (out->pending == QUEUE_BYTES && out->waiting_allowed && !out->broken)
		pthread_cond_wait(&out->drained, &out->lock);
	if (out->pending < QUEUE_BYTES && !out->broken) {
		out->queue[out->head % QUEUE_BYTES] = byte;
		out->head++;
		if (++out->pending == 1)
			loop_source_set_events(out->source, POLLOUT);
		if (out->pending >= HIGH_MARK)
			out->was_high = true;
	}
	pthread_mutex_unlock(&out->lock);
}

bool output_has_room(const struct output *out)
{
	return atomic_load(&out->pending) < HIGH_MARK;
}

void output_allow_waiting(struct output *out, bool allow)
{
	pthread_mutex_lock(&out->lock);
	out->waiting_allowed = allow;
	pthread_cond_broadcast(&out->drained);
	pthread_mutex_unlock(&out->lock);
}

void output_on_room(struct output *out, void (*room)(void *opaque), void *opaque)
{
	out->room = room;
	out->room_opaque = opaque;
}

void output_on_broken(struct output *out,
		      void (*broken)(void *opaque, const char *name, int errnum), void *opaque)
{
	out->on_broken = broken;
	out->broken_opaque = opaque;
}

size_t output_flush(struct output *out, int cancel_fd)
{
	while (out->pending) {
		struct pollfd set[] = {
		    {.fd = out->fd, .events = POLLOUT},
		    {.fd = cancel_fd, .events = POLLIN},
		};
		if (poll(set, ARRAY_SIZE(set), -1) < 0 && errno != EINTR)
			break;
		if (set[1].revents)
			break;
		write_some(out);
	}
	return out->pending;
}
