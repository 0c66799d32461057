#include "cli/stats.h"

#include <string.h>

#include "engine/engine.h"

#define NS_WORD	      "nanoseconds "
#define NS_PER_SECOND 1e9

static void print_row(FILE *out, const char *what, u64 value)
{
	if (!value)
		return;
	if (!strncmp(what, NS_WORD, strlen(NS_WORD)))
		fprintf(out, "%18.3f  seconds %s\n", (double)value / NS_PER_SECOND,
			what + strlen(NS_WORD));
	else
		fprintf(out, "%18llu  %s\n", (unsigned long long)value, what);
}

void stats_print(FILE *out, const char *engine, const struct engine_stats *stats,
		 unsigned long long wall_ns)
{
	fprintf(out, "engine %s, %.3f seconds in all\n", engine, (double)wall_ns / NS_PER_SECOND);
#define X(name, what) print_row(out, what, stats->name);
	ENGINE_COUNTERS(X)
#undef X
}
