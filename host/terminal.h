/*
 * The terminal on standard input, raw while a guest has it: every key goes to the guest.
 */
#ifndef GUISE_HOST_TERMINAL_H
#define GUISE_HOST_TERMINAL_H

#include <termios.h>

#include "base/types.h"

struct terminal {
	int fd;
	bool raw;
	struct termios saved;
};

/**
 * Makes the terminal @fd raw if it is one and this process is in its foreground; else does nothing.
 * Calling it again (after SIGCONT) is fine.
 */
void terminal_make_raw(struct terminal *term, int fd);

/** Puts back what terminal_make_raw() found. Harmless if it did nothing. */
void terminal_restore(struct terminal *term);

/**
 * From now on, a crash of this process (SIGSEGV, SIGABRT and the like) puts back the terminal that
 * is raw at that moment before it takes its course. Changes the process's signal actions: for
 * programs, before they create a machine, so that engines pass on what is not theirs.
 */
void terminal_restore_on_crash(void);

#endif
