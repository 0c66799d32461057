/*
 * A stream of bytes into the machine, from standard input.
 *
 * On a terminal, Ctrl-A is the escape: Ctrl-A X leaves, Ctrl-A H helps, Ctrl-A Ctrl-A is a Ctrl-A
 * for the guest. Elsewhere (a pipe, a file) every byte is the guest's, and none is lost: reading
 * stops while the guest does not take them.
 */
#ifndef GUISE_HOST_INPUT_H
#define GUISE_HOST_INPUT_H

#include "base/types.h"

struct error;
struct input;
struct loop;

enum input_command {
	INPUT_QUIT, /* Ctrl-A X */
	INPUT_HELP, /* Ctrl-A H */
};

/**
 * Reads from @fd, which stays the caller's. Returns 0 and *out, or a negative errno with @err.
 */
int input_open(struct input **out, struct loop *loop, int fd, struct error *err);

/** NULL is fine. On the loop's thread, no vCPU running. */
void input_close(struct input *in);

/** Takes up to @room bytes into @to; returns how many. Any thread. */
u32 input_take(struct input *in, u8 *to, u32 room);

/** @ready: there are bytes to take. On the loop's thread; NULL: nobody listens. */
void input_on_ready(struct input *in, void (*ready)(void *opaque), void *opaque);

/** @command: the user typed an escape. On the loop's thread. */
void input_on_command(struct input *in, void (*command)(void *opaque, enum input_command which),
		      void *opaque);

#endif
