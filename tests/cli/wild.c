/*
 * Guests that run wild: random bytes as flat images, in every mode, on every usable engine.
 * Whatever they do, the monitor ends each in time, and none brings the process down.
 *
 * Usage: wild [IMAGES [SEED]]. A child runs the images, so that one that kills it is named; it can
 * be run again alone with IMAGES=1 and the seed printed.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "host/input.h"
#include "host/loop.h"
#include "host/output.h"
#include "vm/vm.h"

#define IMAGES	      10000u
#define IMAGE_MAX     4096u
#define MEMORY_BYTES  (1ull << 20)
#define GUEST_TIME_NS 500000ull /* most images end by themselves much sooner */
#define HANG_SECONDS  20	/* without progress */

/** What parent and child share. */
struct progress {
	volatile u32 image;
	volatile u32 ends[VM_HOST_FAILED + 1];
	volatile u32 not_created;
	char text[sizeof(struct error)];
};

struct rig {
	const struct engine *engine;
	struct loop *loop;
	struct loop_timer *timer;
	struct output *nowhere;
	struct vm *vm;
	int image_fd;
	char image_path[32];
};

static u64 next_random(u64 *state)
{
	/* splitmix64 */
	u64 z = *state += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void time_is_up(void *opaque)
{
	struct rig *rig = opaque;
	vm_interrupt(rig->vm);
}

static void make_image(struct rig *rig, u64 seed)
{
	u64 state = seed;
	u8 image[IMAGE_MAX];
	u32 bytes = 16 + (u32)(next_random(&state) % (IMAGE_MAX - 15));
	for (u32 i = 0; i < bytes; i++)
		image[i] = (u8)next_random(&state);
	if (ftruncate(rig->image_fd, bytes) < 0 ||
	    pwrite(rig->image_fd, image, bytes, 0) != (ssize_t)bytes)
		_exit(3);
}

/** One image from start to end. */
static void run_image(struct rig *rig, u64 seed, struct progress *progress)
{
	static const enum boot_flat_mode modes[] = {BOOT_FLAT_REAL, BOOT_FLAT_PROTECTED,
						    BOOT_FLAT_LONG};
	struct vm_config config = {
	    .engine = rig->engine,
	    .memory_size = MEMORY_BYTES,
	    .boot =
		{
		    .kernel_path = rig->image_path,
		    .flat = true,
		    .flat_mode = modes[seed % ARRAY_SIZE(modes)],
		    .cpu_count = 1,
		},
	    .loop = rig->loop,
	    .console = rig->nowhere,
	    .serial_out = rig->nowhere,
	};
	struct error err;
	make_image(rig, seed);
	if (vm_create(&rig->vm, &config, &err) < 0) {
		progress->not_created++;
		snprintf(progress->text, sizeof(progress->text), "%s", err.text);
		return;
	}
	loop_timer_arm(rig->timer, loop_now() + GUEST_TIME_NS);
	struct vm_result result;
	vm_run(rig->vm, &result);
	loop_timer_arm(rig->timer, 0);
	progress->ends[result.end]++;
	if (result.end == VM_HOST_FAILED)
		snprintf(progress->text, sizeof(progress->text), "%s", result.text);
	if (result.end == VM_GUEST_FAILED) { /* the dump reads what the guest left behind */
		FILE *out = fopen("/dev/null", "w");
		if (out) {
			vm_dump(rig->vm, out);
			fclose(out);
		}
	}
	vm_destroy(rig->vm);
}

static void run_child(const struct engine *engine, u32 first, u32 count, u64 seed,
		      struct progress *progress)
{
	struct rig rig = {.engine = engine};
	struct error err;
	int null = open("/dev/null", O_WRONLY);
	rig.image_fd = memfd_create("image", 0);
	snprintf(rig.image_path, sizeof(rig.image_path), "/proc/self/fd/%d", rig.image_fd);
	if (loop_create(&rig.loop, &err) < 0 ||
	    output_open_fd(&rig.nowhere, rig.loop, null, "nowhere", &err) < 0)
		_exit(3);
	rig.timer = loop_timer_create(rig.loop, time_is_up, &rig);
	if (!rig.timer)
		_exit(3);
	for (u32 i = first; i < count; i++) {
		progress->image = i;
		run_image(&rig, seed + i, progress);
	}
	_exit(0);
}

/** Waits for the child as long as it makes progress. Returns its wait status, or -1: it hung. */
static int wait_for(pid_t child, const struct progress *progress)
{
	u32 seen = progress->image;
	time_t since = time(NULL);
	for (;;) {
		int status;
		if (waitpid(child, &status, WNOHANG) == child)
			return status;
		if (progress->image != seen) {
			seen = progress->image;
			since = time(NULL);
		} else if (time(NULL) - since > HANG_SECONDS) {
			kill(child, SIGKILL);
			waitpid(child, &status, 0);
			return -1;
		}
		usleep(20000);
	}
}

static bool run_engine(const struct engine *engine, u32 count, u64 seed)
{
	struct progress *progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED)
		return false;
	u32 bad = 0;
	for (u32 first = 0; first < count && bad < 10; first = progress->image + 1) {
		pid_t child = fork();
		if (child == 0)
			run_child(engine, first, count, seed, progress);
		int status = wait_for(child, progress);
		if (status == 0)
			break;
		bad++;
		unsigned long long culprit = seed + progress->image;
		if (status == -1)
			printf("# %s: image with seed %llu hangs the monitor\n", engine->name,
			       culprit);
		else
			printf("# %s: image with seed %llu ends the monitor with status %#x\n",
			       engine->name, culprit, (unsigned)status);
	}
	u32 host_failed = progress->ends[VM_HOST_FAILED] + progress->not_created;
	printf("# %s: halted %u, reset %u, off %u, exited %u, guest failed %u, stopped %u, host "
	       "failed "
	       "%u %s\n",
	       engine->name, progress->ends[VM_HALTED], progress->ends[VM_RESET],
	       progress->ends[VM_POWERED_OFF],
	       progress->ends[VM_EXITED] + progress->ends[VM_EXITED_BADLY],
	       progress->ends[VM_GUEST_FAILED], progress->ends[VM_INTERRUPTED], host_failed,
	       progress->text);
	munmap(progress, sizeof(*progress));
	return !bad && !host_failed;
}

int main(int argc, char **argv)
{
	u32 count = IMAGES;
	u64 seed = (u64)time(NULL) << 20;
	if (argc > 1)
		count = (u32)strtoul(argv[1], NULL, 0);
	if (argc > 2)
		seed = strtoull(argv[2], NULL, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# seed %llu\n", (unsigned long long)seed);

	u32 tests = 0;
	bool good = true;
	for (const struct engine *const *e = engines; *e; e++) {
		struct engine_probe probe;
		(*e)->probe(NULL, &probe);
		tests++;
		if (!probe.usable) {
			printf("ok %u - %s # SKIP %s\n", tests, (*e)->name, probe.reason);
			continue;
		}
		bool ok = run_engine(*e, count, seed);
		good &= ok;
		printf("%s %u - %u wild images on %s\n", ok ? "ok" : "not ok", tests, count,
		       (*e)->name);
	}
	printf("1..%u\n", tests);
	return good ? 0 : 1;
}
