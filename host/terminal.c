#include "host/terminal.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

/* The one that is raw, for the handler of crashes; a process has one terminal. */
static struct terminal *_Atomic raw_terminal;

void terminal_make_raw(struct terminal *term, int fd)
{
	/* tcsetattr() from the background would stop the process (SIGTTOU). */
	if (!isatty(fd) || tcgetpgrp(fd) != getpgrp())
		return;
	if (!term->raw && tcgetattr(fd, &term->saved) < 0)
		return;
	term->fd = fd;

	struct termios raw = term->saved;
	cfmakeraw(&raw);
	/* Output processing stays as it was, so that the monitor's own lines come out straight. */
	raw.c_oflag = term->saved.c_oflag;
	if (tcsetattr(fd, TCSANOW, &raw) == 0) {
		term->raw = true;
		atomic_store(&raw_terminal, term);
	}
}

void terminal_restore(struct terminal *term)
{
	if (!term->raw)
		return;
	atomic_store(&raw_terminal, NULL);
	tcsetattr(term->fd, TCSANOW, &term->saved);
	term->raw = false;
}

/** Async-signal-safe throughout (POSIX.1-2017, 2.4.3): the process may be in any state. */
static void on_crash(int signal)
{
	const struct terminal *term = atomic_exchange(&raw_terminal, NULL);
	if (term && tcgetpgrp(term->fd) == getpgrp())
		tcsetattr(term->fd, TCSANOW, &term->saved);

	/* Now as if there had been no handler: status and core dump are the signal's own. */
	struct sigaction fallback = {.sa_handler = SIG_DFL};
	sigaction(signal, &fallback, NULL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signal);
	raise(signal);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void terminal_restore_on_crash(void)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};
	/* ONSTACK: where a thread has a stack for signals, its own may be what is broken. */
	struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
	for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
		sigaction(crashes[i], &action, NULL);
}
