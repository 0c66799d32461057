#include "memory/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/error.h"

#define MEMORY_FD_NAME "guise-guest"
#define HUGE_PAGE_SIZE (2ull << 20)

u64 guest_memory_host_bytes(void)
{
	struct sysinfo info;
	if (sysinfo(&info) < 0)
		return UINT64_MAX;
	return (u64)info.totalram * info.mem_unit;
}

static int check_size(u64 size, struct error *err)
{
	if (size < GUEST_MEMORY_MIN)
		return error_set(err, EINVAL,
				 "memory of %llu bytes is too little: a machine needs 1M at least",
				 (unsigned long long)size);
	if (size % GUEST_PAGE_SIZE)
		return error_set(err, EINVAL, "memory of %llu bytes is not a multiple of 4K",
				 (unsigned long long)size);
	if (size > guest_memory_host_bytes())
		return error_set(
		    err, EINVAL,
		    "memory of %llu MiB is more than this host has (%llu MiB); ask for less",
		    (unsigned long long)(size >> 20),
		    (unsigned long long)(guest_memory_host_bytes() >> 20));
	return 0;
}

static void add_range(struct guest_memory *mem, u64 gpa, u64 size, u64 offset)
{
	mem->ranges[mem->range_count++] = (struct guest_ram_range){
	    .gpa = gpa,
	    .size = size,
	    .host = mem->base + offset,
	};
}

int guest_memory_create(struct guest_memory *mem, u64 size, struct error *err)
{
	*mem = (struct guest_memory){.fd = -1};
	int ret = check_size(size, err);
	if (ret < 0)
		return ret;

	mem->fd = memfd_create(MEMORY_FD_NAME, MFD_CLOEXEC);
	if (mem->fd < 0)
		return error_errno(err, errno, "cannot create guest memory (memfd)");
	if (ftruncate(mem->fd, (off_t)size) < 0) {
		ret = error_errno(err, errno, "cannot size guest memory to %llu MiB",
				  (unsigned long long)(size >> 20));
		goto close_fd;
	}
	mem->base =
	    mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem->fd, 0);
	if (mem->base == MAP_FAILED) {
		ret = error_errno(err, errno, "cannot map guest memory of %llu MiB",
				  (unsigned long long)(size >> 20));
		goto close_fd;
	}
	mem->size = size;

	/* Both are wishes: a host that cannot grant them runs the guest all the same. */
	if (size >= HUGE_PAGE_SIZE)
		madvise(mem->base, size, MADV_HUGEPAGE);
	madvise(mem->base, size, MADV_DONTDUMP);

	u64 low = size < GUEST_MEMORY_HOLE_START ? size : GUEST_MEMORY_HOLE_START;
	add_range(mem, 0, low, 0);
	if (size > low)
		add_range(mem, GUEST_MEMORY_HOLE_END, size - low, low);
	return 0;

close_fd:
	close(mem->fd);
	*mem = (struct guest_memory){.fd = -1};
	return ret;
}

void guest_memory_destroy(struct guest_memory *mem)
{
	if (mem->size) {
		munmap(mem->base, mem->size);
		close(mem->fd);
	}
	*mem = (struct guest_memory){.fd = -1};
}

void *guest_memory_at(const struct guest_memory *mem, u64 gpa, u64 length)
{
	guest_memory_for_each(mem, range)
	{
		/* gpa - range->gpa wraps to something huge below the range, and is refused too */
		u64 offset = gpa - range->gpa;
		if (offset < range->size && length <= range->size - offset)
			return range->host + offset;
	}
	return NULL;
}

int guest_memory_read(const struct guest_memory *mem, u64 gpa, void *to, u64 length)
{
	const void *from = guest_memory_at(mem, gpa, length);
	if (!from)
		return -EFAULT;
	memcpy(to, from, length);
	return 0;
}

int guest_memory_write(const struct guest_memory *mem, u64 gpa, const void *from, u64 length)
{
	void *to = guest_memory_at(mem, gpa, length);
	if (!to)
		return -EFAULT;
	memcpy(to, from, length);
	return 0;
}
