#include "boot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "boot/bulk.h"

int boot_file_open(struct boot_file *file, const char *path, const char *what, struct error *err)
{
	file->fd = -1;
	/* O_NONBLOCK: a FIFO without a writer must not hang us before it is refused. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_errno(err, errno, "%s %s cannot be opened", what, path);

	struct stat st;
	int ret = 0;
	if (fstat(fd, &st) < 0)
		ret = error_errno(err, errno, "%s %s cannot be read", what, path);
	else if (S_ISDIR(st.st_mode))
		ret = error_set(err, EISDIR, "%s %s is a directory", what, path);
	else if (!S_ISREG(st.st_mode))
		ret = error_set(err, EINVAL, "%s %s is not a regular file", what, path);
	else if (st.st_size == 0)
		ret = error_set(err, ENOEXEC, "%s %s is empty", what, path);
	if (ret) {
		close(fd);
		return ret;
	}
	*file = (struct boot_file){.fd = fd, .path = path, .size = (u64)st.st_size};
	return 0;
}

void boot_file_close(struct boot_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

bool boot_file_holds(const struct boot_file *file, u64 offset, u64 length)
{
	return offset <= file->size && length <= file->size - offset;
}

int boot_file_read(const struct boot_file *file, u64 offset, void *to, u64 length,
		   struct error *err)
{
	if (!boot_file_holds(file, offset, length))
		return error_set(
		    err, EBADMSG, "%s is truncated: %llu bytes at offset %llu are missing",
		    file->path, (unsigned long long)length, (unsigned long long)offset);
	u8 *next = to;
	bulk_prefault(to, length);
	while (length) {
		ssize_t got = pread(file->fd, next, length, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(err, errno, "%s cannot be read", file->path);
		if (got == 0)
			return error_set(err, EBADMSG, "%s shrank while it was read", file->path);
		next += got;
		offset += (u64)got;
		length -= (u64)got;
	}
	return 0;
}
