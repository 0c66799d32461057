#include "cli/stats.h"

#include <string.h>

#include "engine/engine.h"

#define NS_WORD	      "nanoseconds "
#define NS_PER_SECOND 1e9

#define NUMBER_MAX 27 /* 2^64 - 1 with its commas */

/** @value with a comma after each thousand. @text has room for NUMBER_MAX. */
static const char *grouped(u64 value, char *text)
{
	char digits[NUMBER_MAX];
	int count = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	char *to = text;
	for (int i = 0; i < count; i++) {
		if (i && (count - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return text;
}

static void print_row(FILE *out, const char *what, u64 value)
{
	if (!what || !value)
		return;
	if (!strncmp(what, NS_WORD, strlen(NS_WORD)))
		fprintf(out, "%18.6f  seconds %s\n", (double)value / NS_PER_SECOND,
			what + strlen(NS_WORD));
	else
		fprintf(out, "%18s  %s\n", grouped(value, (char[NUMBER_MAX]){0}), what);
}

/* What the counters say together. As there, nothing is told by a zero. */
static void print_ratios(FILE *out, const struct engine_stats *s)
{
	double translating =
	    s->ns_guest ? 100.0 * (double)s->ns_translate / (double)s->ns_guest : 0;
	if (s->insns_translated)
		fprintf(out, "%18.1f  bytes of host code a guest instruction\n",
			(double)s->code_bytes / (double)s->insns_translated);
	print_row(out, "blocks in the code cache at the end",
		  s->blocks_translated - s->blocks_invalidated - s->blocks_evicted);
	if (translating >= 0.05)
		fprintf(out, "%18.1f  percent of the time running guest code spent translating\n",
			translating);
}

/* Exits of a hypervisor in the guest: how many, and what it did with each until it entered again.
 */
static void print_vmx(FILE *out, const struct engine_stats *s)
{
	const struct {
		const char *text;
		u64 count, ns;
	} rows[] = {
#define ROW(X, name, number, text) {text, s->vmx_##name, s->vmx_ns_##name},
	    VMX_REASONS(ROW, )
#undef ROW
	};

	if (!s->vmx_exits)
		return;
	fprintf(out, "%18s  %-36s %12s %12s\n", "VM exits", "by reason", "seconds in it",
		"ns for each");
	for (u32 n = 0; n < ARRAY_SIZE(rows); n++)
		if (rows[n].count)
			fprintf(out, "%18s  %-36s %12.6f %12.0f\n",
				grouped(rows[n].count, (char[NUMBER_MAX]){0}), rows[n].text,
				(double)rows[n].ns / NS_PER_SECOND,
				(double)rows[n].ns / (double)rows[n].count);
}

void stats_print(FILE *out, const char *engine, const struct engine_stats *stats,
		 unsigned long long wall_ns)
{
	fprintf(out, "engine %s, %.3f seconds in all\n", engine, (double)wall_ns / NS_PER_SECOND);
#define X(name, what) print_row(out, what, stats->name);
	ENGINE_COUNTERS(X)
#undef X
	print_ratios(out, stats);
	print_vmx(out, stats);
}
