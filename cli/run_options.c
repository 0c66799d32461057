#include "cli/run_options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/error.h"
#include "debug/trace.h"
#include "engine/engine.h"
#include "memory/memory.h"

#define DEFAULT_MEMORY	(1ull << 30)
#define MEMORY_UNIT	(1ull << 20)
#define DEFAULT_CMDLINE "console=ttyS0"
#define FETCHED_KERNEL	"guise/vmlinuz" /* in the user's cache directory */
#define FETCHED_IN_HOME ".cache/" FETCHED_KERNEL
#define WORD_MAX	64

enum {
	OPT_SERIAL = 0x100,
	OPT_FLAT,
	OPT_FLAT_MODE,
	OPT_STATS,
	OPT_TRACE,
	OPT_NO_REBOOT,
	OPT_TEST_DEVICE,
	OPT_TUNE,
	OPT_CODE_CACHE,
	OPT_PERF,
	OPT_GDB,
	OPT_KVM_DEVICE,
	OPT_CPU,
};

static const struct option long_options[] = {
    {"kernel", required_argument, NULL, 'k'},
    {"initrd", required_argument, NULL, 'i'},
    {"append", required_argument, NULL, 'a'},
    {"memory", required_argument, NULL, 'm'},
    {"cpus", required_argument, NULL, 'c'},
    {"engine", required_argument, NULL, 'e'},
    {"serial", required_argument, NULL, OPT_SERIAL},
    {"flat", required_argument, NULL, OPT_FLAT},
    {"flat-mode", required_argument, NULL, OPT_FLAT_MODE},
    {"stats", no_argument, NULL, OPT_STATS},
    {"trace", required_argument, NULL, OPT_TRACE},
    {"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
    {"test-device", no_argument, NULL, OPT_TEST_DEVICE},
    {"tune", required_argument, NULL, OPT_TUNE},
    {"code-cache", required_argument, NULL, OPT_CODE_CACHE},
    {"perf", required_argument, NULL, OPT_PERF},
    {"gdb", required_argument, NULL, OPT_GDB},
    {"kvm-device", required_argument, NULL, OPT_KVM_DEVICE},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char help_text[] =
    "Usage: guise run [OPTIONS] [KERNEL] [-- KERNEL COMMAND LINE]\n"
    "\n"
    "What to boot\n"
    "  KERNEL, -k, --kernel=FILE  bzImage, ELF vmlinux or multiboot ELF; default: the host's own\n"
    "                             kernel, or else the one that 'make run' has fetched\n"
    "  -i, --initrd=FILE          initial file system\n"
    "  -a, --append=TEXT          kernel command line; default: " DEFAULT_CMDLINE "\n"
    "  --flat=FILE                no kernel but a raw image, loaded and started at address 0\n"
    "  --flat-mode=real|protected|long\n"
    "                             the processor's mode at its start; default: real\n"
    "\n"
    "The machine\n"
    "  -m, --memory=SIZE          512M, 2G, ...; default: 1G, or half of the host's if that is "
    "less\n"
    "  -c, --cpus=N               default: 1\n"
    "  -e, --engine=auto|kvm|soft what runs the guest; auto: kvm where it is fast, else soft\n"
    "  --kvm-device=PATH          the kvm engine's device, like /dev/guise; default: /dev/kvm\n"
    "  --cpu=host|host,+vmx       the processor; +vmx: with Intel's VMX, for hypervisors in the\n"
    "                             guest (engine soft); default: host\n"
    "  --serial=stdio|file:PATH|none\n"
    "                             where the first serial port leads; default: stdio\n"
    "  --no-reboot                a guest's reset ends the run\n"
    "  --test-device              add what processor test suites want: latch, interrupt lines,\n"
    "                             memory behind a bus, firmware configuration\n"
    "  --code-cache=SIZE          memory for the soft engine's translated code; default: 64M\n"
    "\n"
    "Diagnosis\n"
    "  --gdb=tcp:[HOST:]PORT|unix:PATH[,nowait][,arch=x86-64|i386|i8086]\n"
    "                             let gdb debug the guest, which waits for it at its first\n"
    "                             instruction unless nowait is said\n"
    "  --stats                    print a table of counters at the end\n"
    "  --trace=SUBSYSTEM[=LEVEL],...\n"
    "                             write trace lines to standard error; levels 1 to 3\n"
    "  --perf=map|jitdump         name the soft engine's translated code for Linux's perf\n"
    "  --tune=NAME=on|off,...     switch single optimizations of the soft engine\n"
    "  -h, --help                 print this\n"
    "\n"
    "Keys on a terminal\n"
    "  Ctrl-A X                   end the machine at once\n"
    "  Ctrl-A H                   list these keys\n"
    "  Ctrl-A Ctrl-A              send Ctrl-A to the guest\n"
    "\n"
    "Exit status: 0 the guest ended well, 1 the host side failed, 2 the guest failed,\n"
    "128 and more: a signal ended the run.\n";

void run_options_help(void)
{
	fputs(help_text, stdout);
	printf("\nTrace subsystems\n");
#define X(name, what) printf("  %-26s %s\n", #name, what);
	TRACE_SUBSYSTEMS(X)
#undef X
	for (const struct engine *const *e = engines; *e; e++)
		if ((*e)->tune_help)
			printf("\nWhat --tune switches in the %s engine\n%s", (*e)->name,
			       (*e)->tune_help);
}

/** "512M" and the like; a plain number is bytes. */
static int parse_memory(const char *text, u64 *size, struct error *err)
{
	static const struct {
		char letter;
		u32 shift;
	} units[] = {{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}};

	char *end;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	bool is_number = isdigit((unsigned char)text[0]);
	u32 shift = 0;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (is_number && toupper((unsigned char)*end) == units[i].letter) {
			shift = units[i].shift;
			end++;
			break;
		}
	}
	if (!is_number || *end)
		return error_set(err, EINVAL, "memory size '%s' is not like 512M or 2G", text);
	if (number == 0)
		return error_set(err, EINVAL, "a memory size of 0 makes no machine; try 512M");
	if (errno == ERANGE || number > UINT64_MAX >> shift)
		return error_set(err, EINVAL, "memory size '%s' is more than any host has", text);
	*size = (u64)number << shift;
	return 0;
}

static int add_engine_option(struct run_options *options, const char *name, const char *value,
			     struct error *err)
{
	if (options->engine_option_count == ENGINE_OPTIONS_MAX)
		return error_set(err, EINVAL, "more than %u options for the engine",
				 ENGINE_OPTIONS_MAX);
	options->engine_options[options->engine_option_count++] =
	    (struct vm_engine_option){name, value};
	return 0;
}

static int parse_code_cache(const char *text, struct run_options *options, struct error *err)
{
	u64 bytes;
	int ret = parse_memory(text, &bytes, err);
	if (ret < 0)
		return ret;
	snprintf(options->code_cache, sizeof(options->code_cache), "%llu",
		 (unsigned long long)bytes);
	return add_engine_option(options, "code-cache", options->code_cache, err);
}

static int parse_cpus(const char *text, u32 *count, struct error *err)
{
	char *end;
	errno = 0;
	unsigned long number = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end)
		return error_set(err, EINVAL, "number of CPUs '%s' is not a number", text);
	if (number == 0)
		return error_set(err, EINVAL, "a machine needs 1 CPU at least, not 0");
	/* How many are too many is the engine's to say; only what does not fit is refused here. */
	*count = errno == ERANGE || number > UINT32_MAX ? UINT32_MAX : (u32)number;
	return 0;
}

static int parse_engine(const char *text, const char **engine, struct error *err)
{
	if (strcmp(text, "auto") && !engine_by_name(text)) {
		char known[64] = "auto";
		for (const struct engine *const *e = engines; *e; e++) {
			size_t used = strlen(known);
			snprintf(known + used, sizeof(known) - used, ", %s", (*e)->name);
		}
		return error_set(err, EINVAL, "unknown engine '%s'; known: %s", text, known);
	}
	*engine = text;
	return 0;
}

static int parse_serial(const char *text, struct run_options *options, struct error *err)
{
	options->serial_stdio = false;
	options->serial_path = NULL;
	if (!strcmp(text, "stdio"))
		options->serial_stdio = true;
	else if (!strncmp(text, "file:", 5) && text[5])
		options->serial_path = text + 5;
	else if (strcmp(text, "none"))
		return error_set(err, EINVAL, "serial port to '%s'? Known: stdio, file:PATH, none",
				 text);
	return 0;
}

static int parse_flat_mode(const char *text, enum boot_flat_mode *mode, struct error *err)
{
	static const struct {
		const char *name;
		enum boot_flat_mode mode;
	} modes[] = {
	    {"real", BOOT_FLAT_REAL},
	    {"protected", BOOT_FLAT_PROTECTED},
	    {"long", BOOT_FLAT_LONG},
	};
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (!strcmp(text, modes[i].name)) {
			*mode = modes[i].mode;
			return 0;
		}
	}
	return error_set(err, EINVAL,
			 "unknown mode '%s' for a flat image; known: real, protected, long", text);
}

static int set_kernel(struct run_options *options, const char *path, struct error *err)
{
	if (options->boot.kernel_path)
		return error_set(err, EINVAL, "two kernels: '%s' and '%s'; name one",
				 options->boot.kernel_path, path);
	options->boot.kernel_path = path;
	return 0;
}

/** Says what getopt_long() did not like; @what is what it returned. */
static int bad_option(int what, char **argv, struct error *err)
{
	const char *word = argv[optind - 1]; /* in a cluster like -xm5 the word before: see below */
	if (what == ':')
		return error_set(err, EINVAL, "option '%s' needs a value", word);
	if (optopt >= OPT_SERIAL || optopt == 'h')
		return error_set(err, EINVAL, "'%s': this option takes no value", word);
	if (optopt)
		return error_set(err, EINVAL,
				 "unknown option '-%c'; 'guise run --help' lists the options",
				 optopt);
	return error_set(err, EINVAL, "unknown option '%s'; 'guise run --help' lists the options",
			 word);
}

struct parse {
	struct run_options *options;
	const char *append;
	const char *flat;
	bool flat_mode_given;
};

static int take_option(struct parse *p, int option, char **argv, struct error *err)
{
	struct run_options *options = p->options;
	switch (option) {
	case 'k':
		return set_kernel(options, optarg, err);
	case 'i':
		options->boot.initrd_path = optarg;
		return 0;
	case 'a':
		p->append = optarg;
		return 0;
	case 'm':
		return parse_memory(optarg, &options->memory_size, err);
	case 'c':
		return parse_cpus(optarg, &options->boot.cpu_count, err);
	case 'e':
		return parse_engine(optarg, &options->engine, err);
	case OPT_SERIAL:
		return parse_serial(optarg, options, err);
	case OPT_FLAT:
		p->flat = optarg;
		return 0;
	case OPT_FLAT_MODE:
		p->flat_mode_given = true;
		return parse_flat_mode(optarg, &options->boot.flat_mode, err);
	case OPT_STATS:
		if (options->stats)
			return 0;
		options->stats = true;
		return add_engine_option(options, "stats", "on", err);
	case OPT_TRACE:
		return trace_configure(optarg, err);
	case OPT_NO_REBOOT:
		options->no_reboot = true;
		return 0;
	case OPT_TEST_DEVICE:
		options->test_device = true;
		return 0;
	case OPT_CPU:
		return add_engine_option(options, "cpu", optarg, err);
	case OPT_TUNE:
		return add_engine_option(options, "tune", optarg, err);
	case OPT_CODE_CACHE:
		return parse_code_cache(optarg, options, err);
	case OPT_PERF:
		return add_engine_option(options, "perf", optarg, err);
	case OPT_GDB:
		options->debugged = true;
		return gdb_config_parse(&options->gdb, optarg, err);
	case OPT_KVM_DEVICE:
		options->kvm_device = optarg;
		return 0;
	case 'h':
		options->help = true;
		return 0;
	default:
		return bad_option(option, argv, err);
	}
}

/** The command line: --append and the words after "--", or the default. */
static int set_cmdline(struct run_options *options, const char *append, int count, char **words,
		       struct error *err)
{
	if (!append && !count) {
		options->boot.cmdline = DEFAULT_CMDLINE;
		return 0;
	}
	size_t bytes = append ? strlen(append) + 1 : 0;
	for (int i = 0; i < count; i++)
		bytes += strlen(words[i]) + 1;
	char *line = calloc(1, bytes + 1);
	if (!line)
		return error_set(err, ENOMEM, "no memory for the kernel command line");
	char *at = stpcpy(line, append ? append : "");
	for (int i = 0; i < count; i++) {
		if (at != line)
			*at++ = ' ';
		at = stpcpy(at, words[i]);
	}
	options->own_cmdline = line;
	options->boot.cmdline = line;
	return 0;
}

/** Path of the kernel that `make run` keeps; NULL: no cache directory or no memory. */
static char *fetched_kernel(void)
{
	const char *cache = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");
	char *path = NULL;
	int ret = -1;
	if (cache && *cache)
		ret = asprintf(&path, "%s/" FETCHED_KERNEL, cache);
	else if (home && *home)
		ret = asprintf(&path, "%s/" FETCHED_IN_HOME, home);
	return ret < 0 ? NULL : path;
}

static int find_kernel(struct run_options *options, struct error *err)
{
	struct utsname host;
	uname(&host);
	if (asprintf(&options->own_kernel, "/boot/vmlinuz-%s", host.release) < 0) {
		options->own_kernel = NULL;
		return error_set(err, ENOMEM, "no memory for the kernel's path");
	}
	if (access(options->own_kernel, R_OK) == 0) {
		options->boot.kernel_path = options->own_kernel;
		return 0;
	}
	char *fetched = fetched_kernel();
	if (fetched && access(fetched, R_OK) == 0) {
		free(options->own_kernel);
		options->own_kernel = fetched;
		options->boot.kernel_path = fetched;
		return 0;
	}
	error_set(err, ENOENT,
		  "no kernel: name one (guise run KERNEL) or let 'make run' fetch one; there is "
		  "neither %s nor %s to read",
		  options->own_kernel, fetched ? fetched : "~/" FETCHED_IN_HOME);
	free(fetched);
	return -ENOENT;
}

/** A flat image is all that such a machine starts with. */
static int set_flat(struct run_options *options, const char *flat, bool cmdline_given,
		    struct error *err)
{
	if (options->boot.kernel_path)
		return error_set(err, EINVAL, "--flat and the kernel '%s' exclude each other",
				 options->boot.kernel_path);
	if (options->boot.initrd_path || cmdline_given)
		return error_set(err, EINVAL,
				 "a flat image takes no initrd and no kernel command line");
	options->boot.flat = true;
	options->boot.kernel_path = flat;
	return 0;
}

static u64 default_memory(void)
{
	u64 half = align_down(guest_memory_host_bytes() / 2, MEMORY_UNIT);
	return half < DEFAULT_MEMORY ? half : DEFAULT_MEMORY;
}

int run_options_parse(struct run_options *options, int argc, char **argv, struct error *err)
{
	*options = (struct run_options){
	    .boot.cpu_count = 1,
	    .boot.flat_mode = BOOT_FLAT_REAL,
	    .memory_size = default_memory(),
	    .engine = "auto",
	    .serial_stdio = true,
	};
	struct parse parse = {.options = options};

	/* getopt_long() would move the words after "--" among the others: cut them off first. */
	int own = 1;
	while (own < argc && strcmp(argv[own], "--"))
		own++;
	int word_count = own < argc ? argc - own - 1 : 0;
	char **words = argv + own + 1;
	argv[own] = NULL;

	int option, ret = 0;
	opterr = 0;
	while (ret == 0 &&
	       (option = getopt_long(own, argv, ":k:i:a:m:c:e:h", long_options, NULL)) != -1)
		ret = take_option(&parse, option, argv, err);
	if (ret < 0 || options->help)
		return ret;

	for (int i = optind; i < own && ret == 0; i++)
		ret = set_kernel(options, argv[i], err);
	if (ret < 0)
		return ret;
	if (parse.flat)
		return set_flat(options, parse.flat, parse.append || word_count, err);
	if (parse.flat_mode_given)
		return error_set(err, EINVAL, "--flat-mode is for --flat images only");
	if (!options->boot.kernel_path)
		ret = find_kernel(options, err);
	if (ret == 0)
		ret = set_cmdline(options, parse.append, word_count, words, err);
	return ret;
}

void run_options_free(struct run_options *options)
{
	free(options->own_kernel);
	free(options->own_cmdline);
}
