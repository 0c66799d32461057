#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "cli/cli.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} commands[] = {
    {"run", cli_run, "run a machine: 'guise run --help' lists the options"},
    {"check", cli_check, "tell what this host can do, and how fast"},
    {"bench", cli_bench, "measure: 'guise bench exits', what the ways out of a guest cost"},
    {"version", cli_version, "print the version"},
};

void cli_complain(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(stderr, "guise: %s\n", line);
}

static int help(void)
{
	printf("Usage: guise COMMAND [OPTIONS]\n\n"
	       "Runs virtual machines, on KVM or on a software processor.\n\n"
	       "Commands\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-9s %s\n", commands[i].name, commands[i].what);
	printf("\nSee guise(1).\n");
	return CLI_OK;
}

/** A descriptor 0, 1 or 2 that is missing would be handed out for something else. */
static void open_standard_files(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int main(int argc, char **argv)
{
	open_standard_files();
	if (argc < 2) {
		cli_complain("no command; 'guise --help' lists them");
		return CLI_HOST_FAILED;
	}
	const char *name = argv[1];
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return help();
	if (!strcmp(name, "--version"))
		name = "version";
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	cli_complain("unknown command '%s'; 'guise --help' lists them", name);
	return CLI_HOST_FAILED;
}
