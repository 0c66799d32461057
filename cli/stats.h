/* The table that --stats prints. */
#ifndef GUISE_CLI_STATS_H
#define GUISE_CLI_STATS_H

#include <stdio.h>

struct engine_stats;

/**
 * Prints a line for every counter that is not zero, in the order of ENGINE_COUNTERS; nanoseconds as
 * seconds. @engine is the engine's name, for the heading; @wall_ns: how long the run took.
 */
void stats_print(FILE *out, const char *engine, const struct engine_stats *stats,
		 unsigned long long wall_ns);

#endif
