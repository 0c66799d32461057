/*
 * Signals of the soft engine: kicks and timers, and host faults inside translated code.
 * Installed once per process; handlers of others are called for what is not ours.
 */
#ifndef GUISE_SOFT_SIGNALS_H
#define GUISE_SOFT_SIGNALS_H

#include "base/types.h"

struct error;

/* SIGRTMIN of glibc is a function; real-time signals 34 and up are free for programs. */
#define KICK_SIGNAL 40

/** Installs the handlers, once. Any thread. 0 or a negative errno. */
int signals_install(struct error *err);

/** Sends KICK_SIGNAL to the calling thread. Async-signal-safe. */
void signals_kick_again(void);

#endif
