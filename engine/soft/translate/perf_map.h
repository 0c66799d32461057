/*
 * Names of translated code for Linux's perf, while it is made: --perf.
 *
 * A map is a line "start size name" for each piece of code in /tmp/perf-PID.map, where perf report
 * looks by itself. A dump has the code's bytes too, in /tmp/jit-PID.dump: after perf record -k 1,
 * perf inject --jit makes of it what perf annotate needs. Where code was thrown away and other code
 * took its place, a map's names are those of both, a dump's of the right one. Outside.
 */
#ifndef GUISE_SOFT_PERF_MAP_H
#define GUISE_SOFT_PERF_MAP_H

#include "base/types.h"

struct error;
struct perf_map;

enum perf_format { PERF_NONE, PERF_MAP, PERF_JITDUMP };

/** Opens the process's file, to append to it. Returns 0 and *out, or a negative errno with @err. */
int perf_map_open(struct perf_map **out, enum perf_format format, struct error *err);

/** @size bytes that run at @rx, and can be read at @rw, are called @name. */
void perf_map_add(struct perf_map *map, const u8 *rx, const u8 *rw, u32 size, const char *name);

/** Writes the rest; NULL is fine. */
void perf_map_close(struct perf_map *map);

#endif
