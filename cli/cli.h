/* The commands of the program, and what they share. */
#ifndef GUISE_CLI_CLI_H
#define GUISE_CLI_CLI_H

/* Exit statuses, a promise to scripts (guise(1)). */
enum cli_status {
	CLI_OK = 0,
	CLI_HOST_FAILED = 1,
	CLI_GUEST_FAILED = 2,
	CLI_SIGNAL_BASE = 128, /* plus the signal that ended the run, as shells have it */
};

/** One line to stderr: "guise: ...". */
void cli_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The commands: argv[0] is the command's own name. They return the exit status. */
int cli_run(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_version(int argc, char **argv);

#endif
