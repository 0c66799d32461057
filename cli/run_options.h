/* The options of `guise run`. */
#ifndef GUISE_CLI_RUN_OPTIONS_H
#define GUISE_CLI_RUN_OPTIONS_H

#include "boot/boot.h"
#include "gdb/gdb.h"
#include "vm/vm.h"

struct error;

#define ENGINE_OPTIONS_MAX 32

struct run_options {
	struct boot_image_request boot; /* its strings are the command line's or owned below */
	u64 memory_size;
	const char *engine;	/* "auto" or an engine's name */
	const char *kvm_device; /* NULL: /dev/kvm */
	bool serial_stdio;
	const char *serial_path; /* with neither: no serial port */
	bool stats;
	bool no_reboot;
	bool test_device;
	bool debugged; /* by gdb, as .gdb says */
	struct gdb_config gdb;
	bool help;
	struct vm_engine_option engine_options[ENGINE_OPTIONS_MAX];
	u32 engine_option_count;
	char code_cache[24]; /* bytes, in decimal */

	char *own_kernel; /* the default kernel's path */
	char *own_cmdline;
};

/**
 * Reads @argv (argv[0] is "run") and fills in what was not said. With --help only help is set.
 * Returns 0 or a negative errno with @err; run_options_free() is for both.
 */
int run_options_parse(struct run_options *options, int argc, char **argv, struct error *err);

void run_options_free(struct run_options *options);

/** Prints what `guise run --help` does. */
void run_options_help(void);

#endif
