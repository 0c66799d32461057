/*
 * A stream of bytes out of the machine: to standard output, to a file.
 *
 * vCPUs put bytes into a queue, the event loop writes them out, so a slow reader does not hold up
 * the guest. No byte is lost: a device with flow control shows the guest "not ready" while the
 * queue is past its high mark (output_has_room()), and a put into a queue that is full waits for
 * the reader.
 */
#ifndef GUISE_HOST_OUTPUT_H
#define GUISE_HOST_OUTPUT_H

#include "base/types.h"

struct error;
struct loop;
struct output;

/**
 * A stream to @fd, which stays the caller's; @name is for messages ("standard output").
 * Returns 0 and *out, or a negative errno with @err.
 */
int output_open_fd(struct output **out, struct loop *loop, int fd, const char *name,
		   struct error *err);

/** A stream to the file @path, created or emptied first. As output_open_fd(). */
int output_open_file(struct output **out, struct loop *loop, const char *path, struct error *err);

/** Frees the stream with what is still queued. No vCPU runs any more. NULL is fine. */
void output_close(struct output *out);

/**
 * Queues one byte; waits while the queue is full, unless waiting is off or the stream is broken
 * (then the byte is dropped). Any thread but the loop's; no locks held.
 */
void output_put(struct output *out, u8 byte);

/** Whether the queue is below its high mark. Any thread, cheap. */
bool output_has_room(const struct output *out);

/** Off: lets go whoever waits in output_put(), so that vCPUs can be stopped. Any thread. */
void output_allow_waiting(struct output *out, bool allow);

/**
 * @room: the queue fell below its mark after having been past it. @broken: writing failed with
 * errnum; everything from here on is dropped. Both on the loop's thread; NULL: not wanted.
 */
void output_on_room(struct output *out, void (*room)(void *opaque), void *opaque);
void output_on_broken(struct output *out,
		      void (*broken)(void *opaque, const char *name, int errnum), void *opaque);

/**
 * Writes out what is queued; gives up when @cancel_fd becomes readable (-1: never) or writing
 * fails. On the loop's thread. Returns the number of bytes left.
 */
size_t output_flush(struct output *out, int cancel_fd);

#endif
