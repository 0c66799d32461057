#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/run_options.h"
#include "cli/stats.h"
#include "gdb/gdb.h"
#include "host/input.h"
#include "host/loop.h"
#include "host/output.h"
#include "host/terminal.h"
#include "vm/calibrate.h"
#include "vm/vm.h"

/* The host's side of one run: what outlives a guest's resets. */
struct run {
	struct run_options options;
	const struct engine *engine;
	struct loop *loop;
	int signal_fd;
	int signal; /* the signal that ended the run, or 0 */
	struct loop_source *signal_source;
	struct terminal terminal;
	struct output *console;	    /* standard output */
	struct output *serial_file; /* with --serial=file: */
	struct input *input;
	struct gdb *gdb; /* with --gdb */
	struct vm *vm;	 /* the machine that runs, or NULL */
	struct engine_stats stats;
};

static const char keys_text[] = "\r\n"
				"Ctrl-A X       end the machine at once\r\n"
				"Ctrl-A H       list these keys\r\n"
				"Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

static void handle_signal(struct run *run, int signal)
{
	if (signal == SIGCONT) { /* the shell has had the terminal meanwhile */
		if (run->terminal.raw)
			terminal_make_raw(&run->terminal, STDIN_FILENO);
		return;
	}
	run->signal = signal;
	if (run->vm)
		vm_interrupt(run->vm);
}

static void signal_arrived(void *opaque, short revents)
{
	struct run *run = opaque;
	struct signalfd_siginfo info;
	while (read(run->signal_fd, &info, sizeof(info)) == sizeof(info))
		handle_signal(run, (int)info.ssi_signo);
}

static void command_typed(void *opaque, enum input_command command)
{
	struct run *run = opaque;
	if (command == INPUT_QUIT) {
		fputs("\r\n", stderr); /* the guest's prompt is not the shell's */
		vm_interrupt(run->vm);
	} else {
		fputs(keys_text, stderr);
	}
}

static void output_broken(void *opaque, const char *name, int errnum)
{
	struct run *run = opaque;
	struct error err;
	error_errno(&err, errnum, "cannot write to %s", name);
	if (run->vm)
		vm_fail(run->vm, err.text);
	else
		cli_complain("%s", err.text);
}

/** Signals come through the loop; threads that start later inherit that they are blocked. */
static int take_signals(struct run *run, struct error *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGCONT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* A reader that goes away is an error of the write, which says whose it is. */
	signal(SIGPIPE, SIG_IGN);

	run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return error_errno(err, errno, "cannot wait for signals");
	run->signal_source = loop_watch(run->loop, run->signal_fd, POLLIN, signal_arrived, run);
	if (!run->signal_source)
		return error_set(err, ENOMEM, "no memory to wait for signals");
	return 0;
}

static int open_streams(struct run *run, struct error *err)
{
	int ret = output_open_fd(&run->console, run->loop, STDOUT_FILENO, "standard output", err);
	if (ret < 0)
		return ret;
	output_on_broken(run->console, output_broken, run);
	if (run->options.serial_path) {
		ret = output_open_file(&run->serial_file, run->loop, run->options.serial_path, err);
		if (ret < 0)
			return ret;
		output_on_broken(run->serial_file, output_broken, run);
	}
	if (run->options.debugged) {
		ret = gdb_open(&run->gdb, run->loop, &run->options.gdb, err);
		if (ret < 0)
			return ret;
		fprintf(stderr, "guise: %s gdb at %s\n",
			run->options.gdb.wait ? "waiting for" : "listening for",
			gdb_address(run->gdb));
	}
	if (!run->options.serial_stdio)
		return 0;
	ret = input_open(&run->input, run->loop, STDIN_FILENO, err);
	if (ret < 0)
		return ret;
	input_on_command(run->input, command_typed, run);
	return 0;
}

static void close_streams(struct run *run)
{
	gdb_close(run->gdb);
	input_close(run->input);
	output_close(run->serial_file);
	output_close(run->console);
	loop_unwatch(run->signal_source);
	if (run->signal_fd >= 0)
		close(run->signal_fd);
	loop_destroy(run->loop);
}

static int choose_engine(struct run *run, struct error *err)
{
	const char *name = run->options.engine, *device = run->options.kvm_device;
	/* Who names a device wants the engine that takes one. */
	if (device && !strcmp(name, "auto"))
		name = "kvm";
	if (device && strcmp(name, "kvm"))
		return error_set(err, EINVAL, "engine %s has no device; --kvm-device is for kvm",
				 name);
	if (!strcmp(name, "auto")) {
		char why[512];
		run->engine = calibrate_choose(why, sizeof(why), err);
		return run->engine ? 0 : -ENODEV;
	}

	run->engine = engine_by_name(name);
	struct engine_probe probe = {.usable = false};
	run->engine->probe(device, &probe);
	if (!probe.usable)
		return error_set(err, ENODEV, "engine %s: %s", name, probe.reason);

	/* An emulated engine is no way to run a kernel; a flat image's few instructions do not
	 * mind. */
	double mips;
	if (probe.emulated && !device && !run->options.boot.flat &&
	    calibrate(run->engine, CALIBRATE_KERNEL, CALIBRATE_BUDGET_QUICK_NS, &mips, NULL) == 0 &&
	    calibrate_is_slow(mips))
		cli_complain("warning: %s runs kernel code at only %.1f MIPS on this host; a stock "
			     "kernel may never come up ('guise check' compares the engines)",
			     name, mips);
	return 0;
}

/** The status of a run that ended as @result says; failures are told. */
static int conclude(struct run *run, const struct vm_result *result)
{
	switch (result->end) {
	case VM_POWERED_OFF:
	case VM_EXITED:
	case VM_HALTED:
	case VM_RESET:
		return CLI_OK;
	case VM_INTERRUPTED:
		return run->signal ? CLI_SIGNAL_BASE + run->signal : CLI_OK;
	case VM_EXITED_BADLY:
		cli_complain("%s", result->text);
		return CLI_GUEST_FAILED;
	case VM_GUEST_FAILED:
		cli_complain("the guest failed: %s", result->text);
		vm_dump(run->vm, stderr);
		return CLI_GUEST_FAILED;
	default:
		cli_complain("%s", result->text);
		return CLI_HOST_FAILED;
	}
}

/** One machine from power-on to its end. Returns the exit status; *reset: do it again. */
static int run_machine(struct run *run, bool *reset)
{
	struct vm_config config = {
	    .engine = run->engine,
	    .engine_device = run->options.kvm_device,
	    .memory_size = run->options.memory_size,
	    .boot = run->options.boot,
	    .loop = run->loop,
	    .console = run->console,
	    .serial_out = run->options.serial_stdio ? run->console : run->serial_file,
	    .serial_in = run->input,
	    .engine_options = run->options.engine_options,
	    .engine_option_count = run->options.engine_option_count,
	    .test_device = run->options.test_device,
	    .gdb = run->gdb,
	};
	struct error err;
	if (vm_create(&run->vm, &config, &err) < 0) {
		terminal_restore(&run->terminal);
		cli_complain("%s", err.text);
		return CLI_HOST_FAILED;
	}
	if (run->input && !run->terminal.raw)
		terminal_make_raw(&run->terminal, STDIN_FILENO);

	struct vm_result result;
	vm_run(run->vm, &result);
	vm_add_stats(run->vm, &run->stats);

	/* A guest that resets at once, again and again, must not keep signals waiting. */
	signal_arrived(run, 0);
	if (result.end == VM_RESET && run->signal)
		result.end = VM_INTERRUPTED;
	*reset = result.end == VM_RESET && !run->options.no_reboot;

	int status = CLI_OK;
	if (!*reset) {
		output_flush(run->console, run->signal_fd);
		if (run->serial_file)
			output_flush(run->serial_file, run->signal_fd);
		terminal_restore(&run->terminal);
		status = conclude(run, &result);
		if (run->gdb)
			gdb_end(run->gdb, status);
	}
	struct vm *vm = run->vm;
	run->vm = NULL;
	vm_destroy(vm);
	return status;
}

int cli_run(int argc, char **argv)
{
	struct run run = {.signal_fd = -1};
	struct error err;
	int status = CLI_HOST_FAILED;

	int ret = run_options_parse(&run.options, argc, argv, &err);
	if (ret == 0 && run.options.help) {
		run_options_help();
		status = CLI_OK;
		goto free_options;
	}
	terminal_restore_on_crash();
	if (ret == 0)
		ret = choose_engine(&run, &err);
	if (ret == 0)
		ret = loop_create(&run.loop, &err);
	if (ret == 0)
		ret = take_signals(&run, &err);
	if (ret == 0)
		ret = open_streams(&run, &err);
	if (ret < 0) {
		cli_complain("%s", err.text);
		goto close_streams;
	}

	u64 begin = loop_now();
	bool reset;
	do {
		reset = false;
		status = run_machine(&run, &reset);
	} while (reset);
	if (run.options.stats)
		stats_print(stderr, run.engine->name, &run.stats, loop_now() - begin);

close_streams:
	close_streams(&run);
free_options:
	run_options_free(&run.options);
	return status;
}
