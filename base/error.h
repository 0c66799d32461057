/*
 * Errors that a person will read.
 *
 * A function that can fail for a reason the user should hear takes a struct error and returns a
 * negative errno. The text is one line: what, where, what to do; no trailing newline.
 */
#ifndef GUISE_BASE_ERROR_H
#define GUISE_BASE_ERROR_H

struct error {
	char text[512];
};

/**
 * Fills @err (which may be NULL) with a formatted line.
 * Returns -@errnum, so that `return error_set(err, EINVAL, ...)` reads well. Any thread.
 */
int error_set(struct error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** As error_set(), with ": " and the text of @errnum appended. */
int error_errno(struct error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
