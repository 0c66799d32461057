#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/types.h"
#include "cli/cli.h"
#include "engine/engine.h"
#include "vm/calibrate.h"

#define COLUMN "%-12s"

/** Processor flags that an engine uses or a guest is told of, as /proc/cpuinfo spells them. */
static const char *const features[] = {
    "vmx",    "svm",  "pcid", "invpcid", "smep",   "smap", "fsgsbase", "rdtscp",
    "sse4_2", "avx",  "avx2", "avx512f", "fma",	   "bmi1", "bmi2",     "aes",
    "sha_ni", "f16c", "erms", "xsave",	 "rdrand", "pku",  "umip",     "hypervisor",
};

static void check_mode(const struct engine *engine, enum calibrate_mode mode, const char *name,
		       bool emulated)
{
	struct error err;
	double mips;
	if (calibrate(engine, mode, CALIBRATE_BUDGET_CHECK_NS, &mips, &err) < 0)
		printf(COLUMN "  %-11s: %s\n", "", name, err.text);
	else
		printf(COLUMN "  %-11s: %.*f MIPS%s\n", "", name, mips < 10 ? 2 : 0, mips,
		       emulated && calibrate_is_slow(mips)
			   ? " (emulated: too slow for a stock kernel)"
			   : "");
}

static bool check_engine(const struct engine *engine)
{
	struct engine_probe probe = {.usable = false};
	engine->probe(NULL, &probe);
	char heading[32];
	snprintf(heading, sizeof(heading), "engine %s", engine->name);
	printf(COLUMN "%s: %s\n", heading, probe.usable ? "usable" : "not usable", probe.reason);
	if (probe.usable) {
		check_mode(engine, CALIBRATE_KERNEL, "kernel mode", probe.emulated);
		check_mode(engine, CALIBRATE_USER, "user mode", false);
	}
	return probe.usable;
}

static void check_auto(void)
{
	char why[512];
	struct error err;
	const struct engine *engine = calibrate_choose(why, sizeof(why), &err);
	if (engine)
		printf(COLUMN "%s (%s)\n", "auto picks", engine->name, why);
	else
		printf(COLUMN "nothing: %s\n", "auto picks", err.text);
}

/** The value of the line "NAME<blanks>: VALUE" in @line, or NULL. */
static char *value_of(char *line, const char *name)
{
	size_t length = strlen(name);
	if (strncmp(line, name, length))
		return NULL;
	char *at = line + length;
	while (isblank((unsigned char)*at))
		at++;
	if (*at++ != ':')
		return NULL;
	while (isblank((unsigned char)*at))
		at++;
	at[strcspn(at, "\n")] = '\0';
	return at;
}

static void print_features(const char *flags)
{
	printf(COLUMN, "features");
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		size_t length = strlen(features[i]);
		for (const char *at = flags; (at = strstr(at, features[i])); at += length) {
			bool whole = (at == flags || at[-1] == ' ') &&
				     (at[length] == ' ' || at[length] == '\0');
			if (whole) {
				printf("%s ", features[i]);
				break;
			}
		}
	}
	putchar('\n');
}

static void check_processor(void)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	if (!file)
		return;
	char line[8192];
	bool model_seen = false;
	while (fgets(line, sizeof(line), file)) {
		char *value = value_of(line, "model name");
		if (value && !model_seen) {
			printf(COLUMN "%s, %ld online\n", "processor", value,
			       sysconf(_SC_NPROCESSORS_ONLN));
			model_seen = true;
		}
		value = value_of(line, "flags");
		if (value) { /* every processor's are the same */
			print_features(value);
			break;
		}
	}
	fclose(file);
}

static void check_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	if (!file)
		return;
	char line[256];
	unsigned long long total = 0, available = 0, number;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemTotal: %llu", &number) == 1)
			total = number;
		else if (sscanf(line, "MemAvailable: %llu", &number) == 1)
			available = number;
	}
	fclose(file);
	printf(COLUMN "%llu MiB, %llu MiB available\n", "memory", total >> 10, available >> 10);
}

int cli_check(int argc, char **argv)
{
	if (argc > 1) {
		cli_complain("check takes no arguments, not '%s'", argv[1]);
		return CLI_HOST_FAILED;
	}
	bool any = false;
	for (const struct engine *const *e = engines; *e; e++)
		any |= check_engine(*e);
	check_auto();
	check_processor();
	check_memory();
	return any ? CLI_OK : CLI_HOST_FAILED;
}
