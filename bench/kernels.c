/*
 * Thirteen small programs that time themselves, to be run on a machine and in guests on that
 * machine.
 *
 * Usage: kernels [-t MS | -n UNITS] [NAME...]
 *   -t MS     the time that each takes, about, in milliseconds (200)
 *   -n UNITS  that many units of each instead
 *
 * Each kernel is a unit of work that begins from the same state every time and returns a checksum,
 * so that the checksum neither depends on how often the unit ran nor on where. Units are run in
 * batches. One line a kernel:
 *
 *   GUISE-KERNEL name median fastest units checksum
 *
 * with the nanoseconds of one operation (a unit holds a fixed number of them) in the median and the
 * fastest batch. Status 1: unknown name or option, a failed system call, or a unit whose checksum
 * was not that of the first.
 */
#include <errno.h>
#include <inttypes.h>
#include <nmmintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 9

/* Kernels are called through pointers and not looked into, so what they return is computed. */
#define KERNEL __attribute__((noipa)) static uint64_t

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* A multiplier and an increment of period 2^64 (Knuth's MMIX). */
static inline uint64_t lcg(uint64_t x)
{
	return x * 6364136223846793005u + 1442695040888963407u;
}

static inline uint32_t rotl(uint32_t x, int n)
{
	return x << n | x >> (32 - n);
}

#define INT_OPS 100000
KERNEL run_int(void)
{
	uint32_t a = 0x243f6a88, b = 0x85a308d3, c = 0x13198a2e, d = 0x03707344;
	for (int i = 0; i < INT_OPS; i++) {
		a += b;
		d = rotl(d ^ a, 16);
		c += d;
		b = rotl(b ^ c, 12);
		a += b;
		d = rotl(d ^ a, 8);
		c += d;
		b = rotl(b ^ c, 7);
	}
	return (uint64_t)(a ^ b) << 32 | (c ^ d);
}

#define BRANCH_OPS 100000
KERNEL run_branch(void)
{
	uint64_t x = 1, taken = 0;
	for (int i = 0; i < BRANCH_OPS; i++) {
		x = lcg(x);
		/* The empty statements keep the branches from becoming conditional moves. */
		if (x >> 63) {
			__asm__ volatile("");
			taken += x >> 40;
		} else {
			__asm__ volatile("");
			taken ^= x >> 20;
		}
	}
	return taken;
}

#define CHASE_BYTES (4 << 20)
#define CHASE_OPS   65536
struct line {
	struct line *next;
	uint64_t value;
	char rest[48];
};
static struct line *chase;

/* One cycle through all lines, in random order (Sattolo's shuffle). */
static void prepare_chase(void)
{
	size_t n = CHASE_BYTES / sizeof(*chase);
	uint32_t *order = malloc(n * sizeof(*order));
	chase = mmap(NULL, CHASE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (chase == MAP_FAILED || !order)
		die("chase");
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	uint64_t x = 7;
	for (size_t i = n - 1; i > 0; i--) {
		x = lcg(x);
		size_t j = (x >> 33) % i;
		uint32_t t = order[i];
		order[i] = order[j];
		order[j] = t;
	}
	for (size_t i = 0; i < n; i++) {
		chase[i].next = &chase[order[i]];
		chase[i].value = i;
	}
	free(order);
}

KERNEL run_chase(void)
{
	const struct line *line = chase;
	for (int i = 0; i < CHASE_OPS - 1; i++)
		line = line->next;
	return line->value;
}

#define COPY_BYTES (1 << 20)
static uint8_t *copy_from, *copy_to;

static void prepare_memcpy(void)
{
	copy_from =
	    mmap(NULL, 2 * COPY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy_from == MAP_FAILED)
		die("memcpy");
	copy_to = copy_from + COPY_BYTES;
	uint64_t x = 3;
	for (size_t i = 0; i < COPY_BYTES; i++) {
		x = lcg(x);
		copy_from[i] = (uint8_t)(x >> 56);
	}
}

KERNEL run_memcpy(void)
{
	memcpy(copy_to, copy_from, COPY_BYTES);
	uint64_t sum = 0;
	for (size_t i = 4000; i < COPY_BYTES; i += 65536)
		sum = lcg(sum + copy_to[i]);
	return sum;
}

#define FLOAT_OPS 20000
KERNEL run_float(void)
{
	double x = 1.5, sum = 0;
	for (int i = 0; i < FLOAT_OPS; i++) {
		x = x * 0.999 + 0.25;
		sum += __builtin_sqrt(x);
	}
	uint64_t bits;
	memcpy(&bits, &sum, sizeof(bits));
	return bits;
}

#define VEC_FLOATS 64
#define VEC_OPS	   10000
static float vec_x[VEC_FLOATS], vec_y[VEC_FLOATS];

__attribute__((noipa)) static void mul_add(float *restrict y, const float *restrict x, float a)
{
	for (int i = 0; i < VEC_FLOATS; i++)
		y[i] = y[i] * a + x[i];
}

KERNEL run_vec(void)
{
	for (int i = 0; i < VEC_FLOATS; i++) {
		vec_x[i] = (float)i / 8;
		vec_y[i] = (float)(VEC_FLOATS - i);
	}
	for (int i = 0; i < VEC_OPS; i++)
		mul_add(vec_y, vec_x, i & 1 ? 0.5f : 0.25f);
	uint64_t sum = 0;
	for (int i = 0; i < VEC_FLOATS; i++) {
		uint32_t bits;
		memcpy(&bits, &vec_y[i], sizeof(bits));
		sum = lcg(sum + bits);
	}
	return sum;
}

#define FIB_OPS 10
__attribute__((noinline, noclone)) static int fib(int n)
{
	if (n < 2)
		return n;
	int r = fib(n - 1) + fib(n - 2);
	/* Keeps the second call a call. */
	__asm__("" : "+r"(r));
	return r;
}

KERNEL run_fib(void)
{
	uint64_t sum = 0;
	for (int i = 0; i < FIB_OPS; i++) {
		int n = 20;
		__asm__("" : "+r"(n));
		sum += (uint64_t)fib(n);
	}
	return sum;
}

#define INDIRECT_OPS 100000
#define TARGET(name, expression)                                                                   \
	__attribute__((noipa)) static uint64_t name(uint64_t x)                                    \
	{                                                                                          \
		return expression;                                                                 \
	}
TARGET(target0, x + 0x9e37)
TARGET(target1, x ^ 0x79b9)
TARGET(target2, x * 5)
TARGET(target3, x - 0x7f4a)
TARGET(target4, x ^ x >> 7)
TARGET(target5, x + (x << 3))
TARGET(target6, ~x)
TARGET(target7, x * 9 + 1)

static uint64_t (*const volatile targets[])(uint64_t) = {target0, target1, target2, target3,
							 target4, target5, target6, target7};

KERNEL run_indirect(void)
{
	uint64_t x = 1;
	for (int i = 0; i < INDIRECT_OPS; i++)
		x = targets[i & 7](x);
	return x;
}

#define CRC_BYTES 32768
static uint64_t crc_data[CRC_BYTES / 8];

static void prepare_crc(void)
{
	uint64_t x = 5;
	for (size_t i = 0; i < CRC_BYTES / 8; i++)
		crc_data[i] = x = lcg(x);
}

__attribute__((target("sse4.2"))) KERNEL run_crc(void)
{
	uint64_t crc = 0xffffffff;
	for (size_t i = 0; i < CRC_BYTES / 8; i++)
		crc = _mm_crc32_u64(crc, crc_data[i]);
	return crc;
}

#define SYSCALL_OPS 1000
KERNEL run_syscall(void)
{
	long first = syscall(SYS_getppid);
	uint64_t same = 1;
	for (int i = 1; i < SYSCALL_OPS; i++)
		same += syscall(SYS_getppid) == first;
	return same;
}

#define PGFAULT_BYTES (1 << 20)
#define PAGE	      4096
KERNEL run_pgfault(void)
{
	volatile uint8_t *p =
	    mmap(NULL, PGFAULT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	uint64_t sum = 0;
	for (size_t i = 0; i < PGFAULT_BYTES; i += PAGE) {
		sum += p[i] + 1u;
		p[i] = 1;
	}
	if (munmap((void *)p, PGFAULT_BYTES))
		die("munmap");
	return sum;
}

KERNEL run_fork(void)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		_exit(42);
	int status;
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	return (uint64_t)WEXITSTATUS(status);
}

#define PIPE_OPS 50
static int pipe_there[2], pipe_back[2];
static pid_t pipe_child;

static void read_word(int fd, uint64_t *word)
{
	if (read(fd, word, sizeof(*word)) != sizeof(*word))
		die("read");
}

static void write_word(int fd, uint64_t word)
{
	if (write(fd, &word, sizeof(word)) != sizeof(word))
		die("write");
}

static void prepare_pipe(void)
{
	if (pipe(pipe_there) || pipe(pipe_back))
		die("pipe");
	pipe_child = fork();
	if (pipe_child < 0)
		die("fork");
	if (pipe_child > 0)
		return;
	close(pipe_there[1]);
	uint64_t word;
	while (read(pipe_there[0], &word, sizeof(word)) == sizeof(word))
		write_word(pipe_back[1], lcg(word));
	_exit(0);
}

KERNEL run_pipe(void)
{
	uint64_t word = 1;
	for (int i = 0; i < PIPE_OPS; i++) {
		write_word(pipe_there[1], word);
		read_word(pipe_back[0], &word);
	}
	return word;
}

static void finish_pipe(void)
{
	close(pipe_there[1]);
	waitpid(pipe_child, NULL, 0);
}

static const struct kernel {
	const char *name;
	uint64_t (*run)(void);
	unsigned ops; /* in a unit */
	void (*prepare)(void);
	void (*finish)(void);
} kernels[] = {
    {"int", run_int, INT_OPS, NULL, NULL},
    {"branch", run_branch, BRANCH_OPS, NULL, NULL},
    {"chase", run_chase, CHASE_OPS, prepare_chase, NULL},
    {"memcpy", run_memcpy, 1, prepare_memcpy, NULL},
    {"float", run_float, FLOAT_OPS, NULL, NULL},
    {"vec", run_vec, VEC_OPS, NULL, NULL},
    {"fib", run_fib, FIB_OPS, NULL, NULL},
    {"indirect", run_indirect, INDIRECT_OPS, NULL, NULL},
    {"crc", run_crc, 1, prepare_crc, NULL},
    {"syscall", run_syscall, SYSCALL_OPS, NULL, NULL},
    {"pgfault", run_pgfault, 1, NULL, NULL},
    {"fork", run_fork, 1, NULL, NULL},
    {"pipe", run_pipe, PIPE_OPS, prepare_pipe, finish_pipe},
};
#define KERNELS (sizeof(kernels) / sizeof(kernels[0]))

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Returns the nanoseconds that the units took; the checksum of each is compared with *checksum. */
static double batch(const struct kernel *kernel, uint64_t units, uint64_t checksum)
{
	uint64_t wrong = 0;
	double begin = now_ns();
	for (uint64_t i = 0; i < units; i++)
		wrong |= kernel->run() ^ checksum;
	double ns = now_ns() - begin;
	if (wrong) {
		fprintf(stderr, "%s: a unit's checksum was not that of the first\n", kernel->name);
		exit(1);
	}
	return ns;
}

/* A unit may be shorter than the clock's own time: as many as take a hundredth of the budget give
 * the estimate. */
static uint64_t calibrate(const struct kernel *kernel, double budget_ns, uint64_t checksum)
{
	uint64_t units = 1;
	double ns;
	while ((ns = batch(kernel, units, checksum)) < budget_ns / 100)
		units *= 2;
	double wanted = budget_ns / BATCHES * (double)units / ns;
	return wanted < 1 ? 1 : (uint64_t)wanted;
}

static void measure(const struct kernel *kernel, double budget_ns, uint64_t units)
{
	if (kernel->prepare)
		kernel->prepare();
	uint64_t checksum = kernel->run();
	int batches = BATCHES;
	if (units)
		batches = 1;
	else
		units = calibrate(kernel, budget_ns, checksum);
	double ns[BATCHES];
	for (int i = 0; i < batches; i++)
		ns[i] = batch(kernel, units, checksum) / (double)(units * kernel->ops);
	qsort(ns, (size_t)batches, sizeof(ns[0]), by_value);
	printf("GUISE-KERNEL %s %.4f %.4f %" PRIu64 " %016" PRIx64 "\n", kernel->name,
	       ns[batches / 2], ns[0], units * (uint64_t)batches, checksum);
	fflush(stdout);
	if (kernel->finish)
		kernel->finish();
}

static double number(const char *text)
{
	char *end;
	errno = 0;
	double value = strtod(text, &end);
	if (errno || end == text || *end || !(value > 0 && value < 1e12)) {
		fprintf(stderr, "error: not a positive number: %s\n", text);
		exit(1);
	}
	return value;
}

int main(int argc, char **argv)
{
	double budget_ms = 200;
	uint64_t units = 0;
	int option;
	while ((option = getopt(argc, argv, "t:n:")) != -1) {
		if (option == 't')
			budget_ms = number(optarg);
		else if (option == 'n')
			units = (uint64_t)number(optarg);
		else
			return 1;
	}
	for (int i = optind; i < argc; i++) {
		size_t k = 0;
		while (k < KERNELS && strcmp(kernels[k].name, argv[i]) != 0)
			k++;
		if (k == KERNELS) {
			fprintf(stderr, "error: no kernel %s\n", argv[i]);
			return 1;
		}
		measure(&kernels[k], budget_ms * 1e6, units);
	}
	for (size_t k = 0; optind == argc && k < KERNELS; k++)
		measure(&kernels[k], budget_ms * 1e6, units);
	return 0;
}
