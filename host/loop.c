#include "host/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

#define SOURCES_MAX 16

struct loop_source {
	struct loop *loop;
	int fd;
	short events;
	loop_handler *handler;
	void *opaque;
};

struct loop_timer {
	int fd;
	struct loop_source *source;
	loop_timer_handler *handler;
	void *opaque;
};

struct loop {
	int wake_fd; /* eventfd: something changed */
	atomic_bool stop;
	pthread_mutex_t lock; /* guards sources and their events */
	struct loop_source *sources[SOURCES_MAX];
};

#define NS_PER_SECOND 1000000000ull

u64 loop_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * NS_PER_SECOND + (u64)ts.tv_nsec;
}

static void wake(struct loop *loop)
{
	/* Fails only when the counter is full, and then the loop is awake anyway. */
	eventfd_write(loop->wake_fd, 1);
}

int loop_create(struct loop **out, struct error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop)
		return error_set(err, ENOMEM, "no memory for the event loop");
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		int ret = error_errno(err, errno, "cannot create the event loop (eventfd)");
		free(loop);
		return ret;
	}
	pthread_mutex_init(&loop->lock, NULL);
	*out = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	for (u32 i = 0; i < SOURCES_MAX; i++)
		free(loop->sources[i]);
	pthread_mutex_destroy(&loop->lock);
	close(loop->wake_fd);
	free(loop);
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	wake(loop);
}

/** Fills the poll set: slot 0 is the wake-up, slot i + 1 is source i (-1: poll passes it over). */
static void collect(struct loop *loop, struct pollfd *set)
{
	set[0] = (struct pollfd){.fd = loop->wake_fd, .events = POLLIN};
	pthread_mutex_lock(&loop->lock);
	for (u32 i = 0; i < SOURCES_MAX; i++) {
		const struct loop_source *s = loop->sources[i];
		bool wanted = s && s->events;
		set[i + 1] = (struct pollfd){
		    .fd = wanted ? s->fd : -1,
		    .events = wanted ? s->events : 0,
		};
	}
	pthread_mutex_unlock(&loop->lock);
}

/** The source in slot @i, unless an earlier handler took it away or lost interest in it. */
static struct loop_source *still_wanted(struct loop *loop, u32 i, int fd)
{
	pthread_mutex_lock(&loop->lock);
	struct loop_source *s = loop->sources[i];
	if (s && (s->fd != fd || !s->events))
		s = NULL;
	pthread_mutex_unlock(&loop->lock);
	return s;
}

void loop_run(struct loop *loop)
{
	struct pollfd set[SOURCES_MAX + 1];

	while (!atomic_exchange(&loop->stop, false)) {
		collect(loop, set);
		if (poll(set, ARRAY_SIZE(set), -1) < 0)
			continue; /* EINTR: nothing is marked ready */
		if (set[0].revents) {
			eventfd_t count;
			eventfd_read(loop->wake_fd, &count);
		}
		for (u32 i = 0; i < SOURCES_MAX; i++) {
			if (!set[i + 1].revents)
				continue;
			struct loop_source *s = still_wanted(loop, i, set[i + 1].fd);
			if (s)
				s->handler(s->opaque, set[i + 1].revents);
		}
	}
}

struct loop_source *loop_watch(struct loop *loop, int fd, short events, loop_handler *handler,
			       void *opaque)
{
	struct loop_source *source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	*source = (struct loop_source){
	    .loop = loop,
	    .fd = fd,
	    .events = events,
	    .handler = handler,
	    .opaque = opaque,
	};
	bool placed = false;
	pthread_mutex_lock(&loop->lock);
	for (u32 i = 0; i < SOURCES_MAX && !placed; i++) {
		if (!loop->sources[i]) {
			loop->sources[i] = source;
			placed = true;
		}
	}
	pthread_mutex_unlock(&loop->lock);
	if (!placed) {
		free(source);
		return NULL;
	}
	wake(loop);
	return source;
}

void loop_source_set_events(struct loop_source *source, short events)
{
	struct loop *loop = source->loop;
	pthread_mutex_lock(&loop->lock);
	bool changed = source->events != events;
	source->events = events;
	pthread_mutex_unlock(&loop->lock);
	if (changed)
		wake(loop);
}

void loop_unwatch(struct loop_source *source)
{
	if (!source)
		return;
	struct loop *loop = source->loop;
	pthread_mutex_lock(&loop->lock);
	for (u32 i = 0; i < SOURCES_MAX; i++)
		if (loop->sources[i] == source)
			loop->sources[i] = NULL;
	pthread_mutex_unlock(&loop->lock);
	free(source);
}

static void timer_expired(void *opaque, short revents)
{
	struct loop_timer *timer = opaque;
	u64 count;
	if (read(timer->fd, &count, sizeof(count)) == sizeof(count))
		timer->handler(timer->opaque);
}

struct loop_timer *loop_timer_create(struct loop *loop, loop_timer_handler *handler, void *opaque)
{
	struct loop_timer *timer = calloc(1, sizeof(*timer));
	if (!timer)
		return NULL;
	timer->handler = handler;
	timer->opaque = opaque;
	timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (timer->fd < 0)
		goto free_timer;
	timer->source = loop_watch(loop, timer->fd, POLLIN, timer_expired, timer);
	if (!timer->source)
		goto close_fd;
	return timer;

close_fd:
	close(timer->fd);
free_timer:
	free(timer);
	return NULL;
}

void loop_timer_arm(struct loop_timer *timer, u64 when)
{
	struct itimerspec spec = {
	    .it_value.tv_sec = (time_t)(when / NS_PER_SECOND),
	    .it_value.tv_nsec = (long)(when % NS_PER_SECOND),
	};
	timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void loop_timer_destroy(struct loop_timer *timer)
{
	if (!timer)
		return;
	loop_unwatch(timer->source);
	close(timer->fd);
	free(timer);
}
