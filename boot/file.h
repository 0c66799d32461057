/* Image files: regular files of known size, read by offset. */
#ifndef GUISE_BOOT_FILE_H
#define GUISE_BOOT_FILE_H

#include "base/types.h"

struct error;

struct boot_file {
	int fd;
	const char *path; /* the caller's string, for messages */
	u64 size;	  /* when it was opened */
};

/**
 * Opens @path, called @what ("kernel", "initrd") in messages. Refuses what is not a regular file
 * or is empty. Returns 0 or a negative errno with @err.
 */
int boot_file_open(struct boot_file *file, const char *path, const char *what, struct error *err);

/** Closes; harmless on a file that was not opened if fd is -1. */
void boot_file_close(struct boot_file *file);

/** Whether [@offset, @offset + @length) is inside the file. Any values. */
bool boot_file_holds(const struct boot_file *file, u64 offset, u64 length);

/**
 * Reads exactly @length bytes at @offset into @to. Returns 0, -EBADMSG with @err if the file does
 * not reach that far, or the error of reading.
 */
int boot_file_read(const struct boot_file *file, u64 offset, void *to, u64 length,
		   struct error *err);

#endif
