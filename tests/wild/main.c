/*
 * wild [--count N] [--seed S] [--threads T] [--only N] [--kind images|structures|state]
 * Runs N guests on each of T threads. 0: the process outlived all of them.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/wild/wild.h"

#define THREADS_MAX  8
#define WARM_GUESTS  200       /* after these, memory does not grow any more */
#define GROWTH_PAGES (32 << 8) /* 32 MiB */

typedef unsigned long long ull;

enum kind { KIND_ALL, KIND_IMAGES, KIND_STRUCTURES, KIND_STATE };

static struct options {
	u64 seed;
	u32 count, only;
	enum kind kind;
} options = {.seed = 1, .count = 400, .only = ~0u};

/* For the handler of signals that should not have come */
static __thread const struct wild *here;

static void on_signal(int number)
{
	char line[200];
	const struct wild *w = here;
	int n = snprintf(line, sizeof(line), "signal %d escaped in guest %u (%s)\n", number,
			 w ? w->number : 0, w ? w->name : "outside");
	if (write(STDOUT_FILENO, line, (size_t)n) < 0)
		_exit(1);
	signal(number, SIG_DFL);
	raise(number);
}

static void catch_signals(void)
{
	static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
	for (u32 n = 0; n < ARRAY_SIZE(caught); n++)
		sigaction(caught[n], &action, NULL);
}

static u64 resident_pages(void)
{
	ull size = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	if (!file)
		return 0;
	if (fscanf(file, "%llu %llu", &size, &resident) != 2)
		resident = 0;
	fclose(file);
	return resident;
}

static void image_guest(struct wild *w)
{
	code_random(w);
	if (one_in(&w->random, 2))
		w->regs.rip = random_below(&w->random, w->mode == MODE_REAL ? 0x10000 : CODE_SIZE);
	wild_start(w);
}

static void structure_guest(struct wild *w, u32 number)
{
	const struct scenario *s = &structure_scenarios[number % structure_scenario_count];
	w->name = s->name;
	s->setup(w);
	wild_start(w);
}

static void run_guest(struct wild *w, u32 number)
{
	struct random r = {options.seed + number};
	enum wild_mode mode = (enum wild_mode)random_below(&r, WILD_MODES);
	enum kind kind = options.kind;
	if (kind == KIND_ALL)
		kind = one_in(&r, 4) ? KIND_STATE : one_in(&r, 3) ? KIND_STRUCTURES : KIND_IMAGES;
	if (kind == KIND_STRUCTURES && mode == MODE_V86)
		mode = MODE_LONG;
	wild_create(w, options.seed, number, mode);
	if (kind == KIND_IMAGES)
		image_guest(w);
	else if (kind == KIND_STRUCTURES)
		structure_guest(w, (u32)random_next(&r));
	else
		state_guest(w);
	wild_end(w);
}

static void *run_guests(void *argument)
{
	struct wild *w = argument;
	u32 first = w->number; /* of this thread */
	u64 resident = 0;
	here = w;
	if (wild_init(w) < 0)
		wild_fail(w, "cannot map the guest's memory");
	if (options.only != ~0u) {
		run_guest(w, options.only);
	} else {
		for (u32 n = 0; n < options.count; n++) {
			if (n == WARM_GUESTS)
				resident = resident_pages();
			run_guest(w, first + n);
		}
	}
	u64 end = resident_pages();
	if (resident && end > resident + GROWTH_PAGES)
		wild_fail(w, "%llu pages of memory have become %llu", (ull)resident, (ull)end);
	wild_destroy(w);
	return NULL;
}

static u32 open_files(void)
{
	u32 count = 0;
	for (int fd = 0; fd < 1024; fd++)
		if (dup2(fd, fd) == fd)
			count++;
	return count;
}

static int parse(int argc, char **argv)
{
	static const char *const kinds[] = {"all", "images", "structures", "state"};
	static const struct option longs[] = {{"seed", 1, 0, 's'}, {"count", 1, 0, 'n'},
					      {"only", 1, 0, 'o'}, {"threads", 1, 0, 't'},
					      {"kind", 1, 0, 'k'}, {0}};
	int threads = 1;
	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		switch (c) {
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			options.count = (u32)strtoul(optarg, NULL, 0);
			break;
		case 'o':
			options.only = (u32)strtoul(optarg, NULL, 0);
			break;
		case 't':
			threads = atoi(optarg);
			break;
		case 'k':
			for (u32 n = 0; n < ARRAY_SIZE(kinds); n++)
				if (!strcmp(optarg, kinds[n]))
					options.kind = (enum kind)n;
			break;
		default:
			return -1;
		}
	}
	return threads < 1 || threads > THREADS_MAX ? -1 : threads;
}

int main(int argc, char **argv)
{
	int threads = parse(argc, argv);
	if (threads < 0)
		return 2;
	struct engine_probe probe;
	engine_by_name("soft")->probe(NULL, &probe);
	if (!probe.usable) {
		printf("skipped: %s\n", probe.reason);
		return 77;
	}
	catch_signals(); /* before the engine installs its own: what it does not take comes here */
	printf("seed %llu, %d threads of %u guests\n", (ull)options.seed, threads, options.count);
	fflush(stdout);
	u32 files = open_files();
	static struct wild wild[THREADS_MAX];
	pthread_t thread[THREADS_MAX];
	for (int n = 0; n < threads; n++) {
		wild[n].number = (u32)n * options.count;
		if (pthread_create(&thread[n], NULL, run_guests, &wild[n]))
			return 1;
	}
	u64 exits = 0, kicks = 0;
	for (int n = 0; n < threads; n++) {
		pthread_join(thread[n], NULL);
		exits += wild[n].exits;
		kicks += wild[n].kicks;
	}
	if (open_files() != files) {
		printf("%u open files have become %u\n", files, open_files());
		return 1;
	}
	printf("%llu exits, %llu guests kicked\n", (ull)exits, (ull)kicks);
	return 0;
}
