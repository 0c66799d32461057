/*
 * The event loop: what happens on the host's side while vCPUs run on threads of their own.
 *
 * One thread calls loop_run(); handlers run on it, one at a time. A handler may add, change and
 * remove sources.
 */
#ifndef GUISE_HOST_LOOP_H
#define GUISE_HOST_LOOP_H

#include <poll.h>

#include "base/types.h"

struct error;
struct loop;
struct loop_source;
struct loop_timer;

/** @revents as poll() gave them. On the loop's thread. */
typedef void loop_handler(void *opaque, short revents);
typedef void loop_timer_handler(void *opaque);

/** Returns 0 and *out, or a negative errno with @err. */
int loop_create(struct loop **out, struct error *err);

/** Frees the loop; sources still in it go with it, their descriptors stay open. NULL is fine. */
void loop_destroy(struct loop *loop);

/** Handles events until loop_stop(). */
void loop_run(struct loop *loop);

/** Makes loop_run(), the current or else the next one, return. Any thread. */
void loop_stop(struct loop *loop);

/**
 * Watches @fd for @events (POLLIN, POLLOUT; 0: nothing for now). The descriptor stays the caller's.
 * Returns the source, or NULL if memory is short. Any thread.
 */
struct loop_source *loop_watch(struct loop *loop, int fd, short events, loop_handler *handler,
			       void *opaque);

/** Changes what is watched for. Any thread. */
void loop_source_set_events(struct loop_source *source, short events);

/** Ends watching. On the loop's thread, or while the loop does not run. NULL is fine. */
void loop_unwatch(struct loop_source *source);

/** A timer, disarmed. NULL if the host refuses one. */
struct loop_timer *loop_timer_create(struct loop *loop, loop_timer_handler *handler, void *opaque);

/** Calls the handler once at @when nanoseconds of CLOCK_MONOTONIC; 0 disarms. Any thread. */
void loop_timer_arm(struct loop_timer *timer, u64 when);

/** As loop_unwatch(). NULL is fine. */
void loop_timer_destroy(struct loop_timer *timer);

/** Nanoseconds of CLOCK_MONOTONIC. */
u64 loop_now(void);

#endif
