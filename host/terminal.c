#include "host/terminal.h"

#include <unistd.h>

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
	if (tcsetattr(fd, TCSANOW, &raw) == 0)
		term->raw = true;
}

void terminal_restore(struct terminal *term)
{
	if (!term->raw)
		return;
	tcsetattr(term->fd, TCSANOW, &term->saved);
	term->raw = false;
}
