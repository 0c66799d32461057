/* The connection: bytes in and out, one debugger at a time. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "gdb/internal.h"
#include "host/loop.h"

#define OUT_MAX	       (1u << 20) /* unread replies, bytes: then commands wait */
#define FLUSH_MILLISEC 500

bool gdb_is_connected(const struct gdb *gdb)
{
	return gdb->fd >= 0;
}

bool gdb_is_debugged(const struct gdb *gdb)
{
	return gdb_is_connected(gdb) && !gdb->detached;
}

const char *gdb_address(const struct gdb *gdb)
{
	return gdb->address;
}

/* ---- the end of a connection ---- */

static void close_connection(struct gdb *gdb)
{
	loop_unwatch(gdb->connection);
	gdb->connection = NULL;
	close(gdb->fd);
	gdb->fd = -1;
	gdb->in.count = 0;
	text_free(&gdb->out);
	text_free(&gdb->last);
	gdb_forget_session(gdb);
}

/** The debugger is gone. The machine stays as it is, at rest or running, without breakpoints. */
static void lose_connection(struct gdb *gdb)
{
	close_connection(gdb);
	if (gdb->looking) {
		gdb->looking = false;
		loop_stop(gdb->loop);
	} else if (gdb->state == GDB_STOPPED) {
		gdb_forget_requests(gdb);
	} else if (gdb->state != GDB_NO_MACHINE) {
		gdb->leaving = true;
		gdb_interrupt(gdb);
	}
}

/* ---- out ---- */

static void watch(struct gdb *gdb)
{
	bool wants_more = gdb->out.used < OUT_MAX && gdb->in.count < sizeof(gdb->in.bytes);
	short events = wants_more ? POLLIN : 0;

	if (gdb->out.used)
		events |= POLLOUT;
	loop_source_set_events(gdb->connection, events);
}

/** Writes what can be written now. false: the connection is broken. */
static bool write_out(struct gdb *gdb)
{
	while (gdb->out.used) {
		ssize_t count = send(gdb->fd, gdb->out.bytes, gdb->out.used, MSG_NOSIGNAL);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return errno == EAGAIN;
		gdb->out.used -= (size_t)count;
		memmove(gdb->out.bytes, gdb->out.bytes + count, gdb->out.used);
	}
	return true;
}

static void send_bytes(struct gdb *gdb, const void *bytes, size_t count)
{
	/* A broken connection shows itself at the next read. */
	text_bytes(&gdb->out, bytes, count);
	write_out(gdb);
	watch(gdb);
}

void gdb_send(struct gdb *gdb, const struct text *reply)
{
	if (!gdb_is_connected(gdb))
		return;
	gdb->last.used = 0;
	text_packet(&gdb->last, reply);
	send_bytes(gdb, gdb->last.bytes, gdb->last.used);
}

/* ---- in ---- */

static void acknowledge(struct gdb *gdb, bool good)
{
	if (!gdb->no_ack)
		send_bytes(gdb, good ? "+" : "-", 1);
}

/** While the machine runs ^C is all that it listens to. */
static void take_while_running(struct gdb *gdb, enum packet_event event)
{
	if (event == PACKET_INTERRUPT)
		gdb_interrupt(gdb);
	else if (event == PACKET_COMMAND)
		acknowledge(gdb, true);
}

static void take(struct gdb *gdb, enum packet_event event, char *data, u32 length)
{
	switch (event) {
	case PACKET_COMMAND:
		acknowledge(gdb, true);
		gdb_command(gdb, data, length);
		break;
	case PACKET_BAD:
		acknowledge(gdb, false);
		break;
	case PACKET_NACK:
		if (!gdb->no_ack)
			send_bytes(gdb, gdb->last.bytes, gdb->last.used);
		break;
	default:
		break; /* ^C while it rests: it does already */
	}
}

void gdb_take_commands(struct gdb *gdb)
{
	char data[PACKET_MAX + 1];
	u32 length;

	/* What comes while it is about to stop waits: most of it is from a new connection. */
	while (gdb_is_connected(gdb) && gdb->state != GDB_STOPPING &&
	       gdb->state != GDB_NO_MACHINE && gdb->out.used < OUT_MAX) {
		enum packet_event event = packet_take(&gdb->in, !gdb->no_ack, data, &length);
		if (event == PACKET_NONE)
			break;
		if (gdb->state == GDB_RUNNING)
			take_while_running(gdb, event);
		else
			take(gdb, event, data, length);
	}
	if (gdb_is_connected(gdb))
		watch(gdb);
}

static void connection_ready(void *opaque, short revents)
{
	struct gdb *gdb = opaque;

	if ((revents & POLLOUT) && !write_out(gdb)) {
		lose_connection(gdb);
		return;
	}
	if (revents & (POLLIN | POLLHUP | POLLERR)) {
		struct packet_input *in = &gdb->in;
		size_t room = sizeof(in->bytes) - in->count;
		ssize_t count = room ? recv(gdb->fd, in->bytes + in->count, room, 0) : 0;
		if (count < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		if (count <= 0) {
			lose_connection(gdb);
			return;
		}
		in->count += (u32)count;
	}
	gdb_take_commands(gdb);
}

/** Whether the other end of the connection has been closed; what it said before is yet to be read.
 */
static bool has_hung_up(const struct gdb *gdb)
{
	struct pollfd set = {.fd = gdb->fd, .events = POLLRDHUP};

	return poll(&set, 1, 0) > 0 && (set.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void somebody_calls(void *opaque, short revents)
{
	struct gdb *gdb = opaque;

	/* The next debugger may be faster than the news that the last one is gone. */
	while (gdb_is_connected(gdb) && has_hung_up(gdb))
		connection_ready(gdb, POLLIN);
	int fd = accept4(gdb->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	struct loop_source *source =
	    gdb->fd < 0 ? loop_watch(gdb->loop, fd, POLLIN, connection_ready, gdb) : NULL;
	if (!source) { /* one debugger at a time */
		close(fd);
		return;
	}
	gdb->fd = fd;
	gdb->connection = source;
	gdb_forget_session(gdb);
	gdb_interrupt(gdb); /* a debugger expects a machine at rest */
}

/* ---- vCPU threads ---- */

void gdb_poke(struct gdb *gdb)
{
	/* Fails only when the counter is full, and then the loop is about to look anyway. */
	eventfd_write(gdb->wake_fd, 1);
}

static void poked(void *opaque, short revents)
{
	struct gdb *gdb = opaque;
	eventfd_t count;

	eventfd_read(gdb->wake_fd, &count);
	gdb_look(gdb);
}

/* ---- a server's life ---- */

int gdb_open(struct gdb **out, struct loop *loop, const struct gdb_config *config,
	     struct error *err)
{
	struct gdb *gdb = calloc(1, sizeof(*gdb));
	if (!gdb)
		return error_set(err, ENOMEM, "no memory for the debugger's server");
	gdb->config = *config;
	gdb->loop = loop;
	gdb->listen_fd = gdb->fd = -1;
	pthread_mutex_init(&gdb->lock, NULL);

	gdb->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int ret = gdb->wake_fd < 0 ? error_errno(err, errno, "gdb: eventfd") : gdb_listen(gdb, err);
	if (ret == 0) {
		gdb->waker = loop_watch(loop, gdb->wake_fd, POLLIN, poked, gdb);
		gdb->listener = loop_watch(loop, gdb->listen_fd, POLLIN, somebody_calls, gdb);
		if (!gdb->waker || !gdb->listener)
			ret = error_set(err, ENOMEM, "no memory for the debugger's server");
	}
	if (ret < 0) {
		gdb_close(gdb);
		return ret;
	}
	*out = gdb;
	return 0;
}

void gdb_end(struct gdb *gdb, int status)
{
	struct text reply = {0};

	if (!gdb_is_debugged(gdb))
		return;
	text_add(&reply, "W%02x", (u8)status);
	gdb_send(gdb, &reply);
	text_free(&reply);
	struct pollfd set = {.fd = gdb->fd, .events = POLLOUT};
	while (gdb->out.used && poll(&set, 1, FLUSH_MILLISEC) > 0 && write_out(gdb))
		;
}

void gdb_close(struct gdb *gdb)
{
	if (!gdb)
		return;
	if (gdb_is_connected(gdb))
		close_connection(gdb);
	loop_unwatch(gdb->listener);
	loop_unwatch(gdb->waker);
	if (gdb->listen_fd >= 0)
		close(gdb->listen_fd);
	if (gdb->wake_fd >= 0)
		close(gdb->wake_fd);
	if (gdb->unix_path)
		unlink(gdb->unix_path);
	free(gdb->unix_path);
	registers_destroy(gdb);
	pthread_mutex_destroy(&gdb->lock);
	free(gdb);
}
