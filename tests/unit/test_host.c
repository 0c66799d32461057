/* Streams into and out of the machine: nothing lost, nothing stuck. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/error.h"
#include "host/input.h"
#include "host/loop.h"
#include "host/output.h"

#define QUEUE_BYTES (1u << 20)

struct rig {
	struct loop *loop;
	int pipe[2];
	struct output *out;
	int room_calls;
	int broken_errno;
};

static void room(void *opaque)
{
	struct rig *rig = opaque;
	rig->room_calls++;
}

static void broken(void *opaque, const char *name, int errnum)
{
	struct rig *rig = opaque;
	rig->broken_errno = errnum;
	loop_stop(rig->loop);
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(loop_create(&rig->loop, &err), 0);
	assert_int_equal(pipe(rig->pipe), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	output_close(rig->out);
	close(rig->pipe[0]);
	close(rig->pipe[1]);
	loop_destroy(rig->loop);
	free(rig);
	return 0;
}

static void open_output(struct rig *rig)
{
	struct error err;
	assert_int_equal(output_open_fd(&rig->out, rig->loop, rig->pipe[1], "the pipe", &err), 0);
	output_on_room(rig->out, room, rig);
	output_on_broken(rig->out, broken, rig);
}

static u8 pattern(u32 i)
{
	return (u8)(i * 7 + (i >> 8));
}

static void *slow_reader(void *opaque)
{
	int fd = *(int *)opaque;
	u32 count = 0;
	u8 bytes[4096];
	ssize_t got;
	while ((got = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < got; i++)
			if (bytes[i] != pattern(count++))
				return (void *)1;
	return (void *)(uintptr_t)count;
}

static void *writer(void *opaque)
{
	struct rig *rig = opaque;
	for (u32 i = 0; i < 3 * QUEUE_BYTES; i++)
		output_put(rig->out, pattern(i));
	loop_stop(rig->loop);
	return NULL;
}

/** Three queues full go through a pipe, so the writer has to wait; every byte arrives in order. */
static void loses_nothing(void **state)
{
	struct rig *rig = *state;
	open_output(rig);
	pthread_t reading, writing;
	pthread_create(&writing, NULL, writer, rig);
	while (output_has_room(rig->out)) /* until the queue is past its mark */
		usleep(100);
	pthread_create(&reading, NULL, slow_reader, &rig->pipe[0]);
	loop_run(rig->loop);
	assert_int_equal(output_flush(rig->out, -1), 0);
	pthread_join(writing, NULL);
	output_close(rig->out);
	rig->out = NULL;
	close(rig->pipe[1]);
	void *count;
	pthread_join(reading, &count);
	assert_int_equal((uintptr_t)count, 3 * QUEUE_BYTES);
	assert_true(rig->room_calls > 0);
	rig->pipe[1] = dup(rig->pipe[0]);
}

/** With nobody reading, a full queue says so, and whoever waits can be let go. */
static void lets_go(void **state)
{
	struct rig *rig = *state;
	open_output(rig);
	assert_true(output_has_room(rig->out));
	output_allow_waiting(rig->out, false);
	for (u32 i = 0; i < QUEUE_BYTES + 10; i++)
		output_put(rig->out, 'x');
	assert_false(output_has_room(rig->out));

	/* flushing gives up when told to */
	int cancel[2];
	assert_int_equal(pipe(cancel), 0);
	assert_int_equal(write(cancel[1], "x", 1), 1);
	assert_true(output_flush(rig->out, cancel[0]) > 0);
	close(cancel[0]);
	close(cancel[1]);
}

static void reader_gone(void **state)
{
	struct rig *rig = *state;
	open_output(rig);
	close(rig->pipe[0]);
	output_put(rig->out, 'x');
	loop_run(rig->loop);
	assert_int_equal(rig->broken_errno, EPIPE);
	output_put(rig->out, 'y');
	assert_int_equal(output_flush(rig->out, -1), 0);
	rig->pipe[0] = dup(rig->pipe[1]);
}

/** The caller's descriptor keeps its mode: it is shared with whoever started us. */
static void leaves_descriptor_blocking(void **state)
{
	struct rig *rig = *state;
	open_output(rig);
	assert_int_equal(fcntl(rig->pipe[1], F_GETFL) & O_NONBLOCK, 0);
}

static void stop_loop(void *opaque)
{
	loop_stop(opaque);
}

/** A pipe's bytes all come, Ctrl-A among them, however slowly they are taken. */
static void input_waits(void **state)
{
	struct rig *rig = *state;
	struct error err;
	struct input *in;
	assert_int_equal(input_open(&in, rig->loop, rig->pipe[0], &err), 0);
	input_on_ready(in, stop_loop, rig->loop);

	const u32 total = 20000;
	for (u32 i = 0; i < total; i++) {
		u8 byte = pattern(i);
		assert_int_equal(write(rig->pipe[1], &byte, 1), 1);
	}
	u32 count = 0;
	while (count < total) {
		u8 bytes[16];
		u32 got = input_take(in, bytes, sizeof(bytes));
		for (u32 i = 0; i < got; i++)
			assert_int_equal(bytes[i], pattern(count++));
		if (!got)
			loop_run(rig->loop);
	}
	input_close(in);
}

static void timers(void **state)
{
	struct rig *rig = *state;
	struct loop_timer *timer = loop_timer_create(rig->loop, stop_loop, rig->loop);
	assert_non_null(timer);
	u64 begin = loop_now();
	loop_timer_arm(timer, begin + 3000000);
	loop_run(rig->loop);
	assert_true(loop_now() - begin >= 3000000);
	loop_timer_destroy(timer);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(loses_nothing), T(lets_go), T(reader_gone), T(leaves_descriptor_blocking),
	    T(input_waits),   T(timers),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
