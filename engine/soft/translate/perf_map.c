/* Formats: tools/perf/Documentation/jit-interface.txt and jitdump-specification.txt of Linux. */
#include "engine/soft/translate/perf_map.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

struct perf_map {
	enum perf_format format;
	FILE *file;
	void *marker; /* executable mapping of a dump's first page: by it perf knows of the dump */
	u64 count;
};

#define JITDUMP_MAGIC	  0x4a695444 /* "JiTD" */
#define JITDUMP_CODE_LOAD 0
#define MARKER_SIZE	  4096

struct jitdump_header {
	u32 magic, version, size, machine, pad, pid;
	u64 timestamp, flags;
};

struct jitdump_load {
	u32 id, size;
	u64 timestamp;
	u32 pid, tid;
	u64 vma, address, code_size, index;
	/* name with its 0, code */
};

/* perf record -k 1 takes its times by the same clock. */
static u64 timestamp(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

static int begin_dump(struct perf_map *map, const char *path, struct error *err)
{
	struct jitdump_header header = {
	    .magic = JITDUMP_MAGIC,
	    .version = 1,
	    .size = sizeof(header),
	    .machine = EM_X86_64,
	    .pid = (u32)getpid(),
	    .timestamp = timestamp(),
	};
	if (ftello(map->file) == 0)
		fwrite(&header, sizeof(header), 1, map->file);
	fflush(map->file);
	map->marker =
	    mmap(NULL, MARKER_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(map->file), 0);
	if (map->marker != MAP_FAILED)
		return 0;
	return error_errno(err, errno, "cannot map '%s' executable, as perf wants it", path);
}

int perf_map_open(struct perf_map **out, enum perf_format format, struct error *err)
{
	struct perf_map *map = calloc(1, sizeof(*map));
	char path[64];
	bool dump = format == PERF_JITDUMP;
	if (!map)
		return error_set(err, ENOMEM, "no memory for names of translated code");
	map->format = format;
	map->marker = MAP_FAILED;
	snprintf(path, sizeof(path), dump ? "/tmp/jit-%d.dump" : "/tmp/perf-%d.map", getpid());
	/* The name can be guessed and the directory is everybody's. */
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	map->file = fd < 0 ? NULL : fdopen(fd, "a+");
	int r = map->file ? 0 : error_errno(err, errno, "cannot open '%s'", path);
	if (!map->file && fd >= 0)
		close(fd);
	if (!r)
		fseeko(map->file, 0, SEEK_END);
	if (!r && dump)
		r = begin_dump(map, path, err);
	if (r < 0) {
		perf_map_close(map);
		return r;
	}
	*out = map;
	return 0;
}

static void dump_add(struct perf_map *map, const u8 *rx, const u8 *rw, u32 size, const char *name)
{
	size_t name_size = strlen(name) + 1;
	struct jitdump_load load = {
	    .id = JITDUMP_CODE_LOAD,
	    .size = (u32)(sizeof(load) + name_size + size),
	    .timestamp = timestamp(),
	    .pid = (u32)getpid(),
	    .tid = (u32)syscall(SYS_gettid),
	    .vma = (u64)rx,
	    .address = (u64)rx,
	    .code_size = size,
	    .index = map->count++,
	};
	fwrite(&load, sizeof(load), 1, map->file);
	fwrite(name, name_size, 1, map->file);
	fwrite(rw, size, 1, map->file);
}

void perf_map_add(struct perf_map *map, const u8 *rx, const u8 *rw, u32 size, const char *name)
{
	if (map->format == PERF_JITDUMP)
		dump_add(map, rx, rw, size, name);
	else
		fprintf(map->file, "%llx %x %s\n", (unsigned long long)rx, size, name);
}

void perf_map_close(struct perf_map *map)
{
	if (!map)
		return;
	if (map->marker != MAP_FAILED)
		munmap(map->marker, MARKER_SIZE);
	if (map->file)
		fclose(map->file);
	free(map);
}
