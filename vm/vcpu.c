#include "vm/vcpu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "debug/trace.h"
#include "gdb/gdb.h"
#include "vm/machine.h"

static void set_state(struct vcpu *vcpu, enum vcpu_state state)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->state = state;
	pthread_cond_broadcast(&vcpu->changed);
	pthread_mutex_unlock(&vcpu->lock);
}

/** The seam: waits while a pause is asked for. Returns whether to run on (false: quit). */
static bool seam(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	while (vcpu->request == VCPU_PAUSE) {
		if (vcpu->state != VCPU_PAUSED) {
			vcpu->state = VCPU_PAUSED;
			pthread_cond_broadcast(&vcpu->changed);
			if (vcpu->vm->config.gdb)
				gdb_poke(vcpu->vm->config.gdb);
		}
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	}
	bool run = vcpu->request == VCPU_RUN;
	if (run)
		vcpu->state = VCPU_RUNNING;
	pthread_mutex_unlock(&vcpu->lock);
	return run;
}

/** The machine has ended: what comes next is for the thread that runs it to say. */
static void pause_self(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	if (vcpu->request == VCPU_RUN)
		vcpu->request = VCPU_PAUSE;
	pthread_mutex_unlock(&vcpu->lock);
}

/** A kick brought the vCPU out: forget it, then look for why it came. Returns whether to run on. */
static bool attend(struct vcpu *vcpu)
{
	/*
	 * Whoever kicks says what it wants first and sets the flag then; so what is asked before
	 * this store is seen after it, and what is asked later sets the flag anew.
	 */
	__atomic_store_n(&vcpu->cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	vm_watch_look(vcpu);
	return seam(vcpu);
}

static void run(struct vcpu *vcpu)
{
	const struct engine *engine = vcpu->vm->engine;

	while (seam(vcpu)) {
		bool go_on = true;
		while (go_on) {
			int ret = engine->vcpu_run(vcpu->cpu);
			if (ret == -EINTR || ret == -EAGAIN) {
				if (!attend(vcpu))
					return;
				continue;
			}
			/* A plain counter of this thread, read now and then by the watch. */
			unsigned exits = atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
			atomic_store_explicit(&vcpu->exits, exits + 1, memory_order_relaxed);
			if (ret < 0) {
				vm_end(vcpu->vm, VM_HOST_FAILED, vcpu,
				       "the %s engine cannot run vCPU %u any further: %s",
				       engine->name, vcpu->id, strerror(-ret));
				go_on = false;
			} else {
				go_on = vm_handle_exit(vcpu) && !atomic_load(&vcpu->vm->ended);
			}
		}
		pause_self(vcpu);
	}
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;
	const struct engine *engine = vcpu->vm->engine;

	int ret = engine->vcpu_create(vcpu->vm->engine_vm, vcpu->id, &vcpu->cpu, &vcpu->error);
	if (ret == 0) {
		ret = vm_setup_cpu(vcpu->vm, vcpu->cpu, &vcpu->error);
		if (ret == 0)
			run(vcpu);
		engine->vcpu_destroy(vcpu->cpu);
	}
	vcpu->cpu = NULL;
	vcpu->result = ret;
	set_state(vcpu, VCPU_STOPPED);
	return NULL;
}

int vcpu_start(struct vcpu *vcpu, struct vm *vm, u32 id, struct error *err)
{
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->state = VCPU_CREATED;
	vcpu->request = VCPU_PAUSE;
	pthread_mutex_init(&vcpu->lock, NULL);
	pthread_cond_init(&vcpu->changed, NULL);
	int ret = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
	if (ret) {
		pthread_cond_destroy(&vcpu->changed);
		pthread_mutex_destroy(&vcpu->lock);
		return error_errno(err, ret, "cannot start the thread of vCPU %u", id);
	}
	vcpu->started = true;

	char name[16];
	snprintf(name, sizeof(name), "vcpu%u", id);
	pthread_setname_np(vcpu->thread, name);
	return 0;
}

void vcpu_request(struct vcpu *vcpu, enum vcpu_request request)
{
	pthread_mutex_lock(&vcpu->lock);
	if (vcpu->state != VCPU_STOPPED && vcpu->request != VCPU_QUIT) {
		vcpu->request = request;
		pthread_cond_broadcast(&vcpu->changed);
		if (vcpu->state == VCPU_RUNNING)
			vcpu->vm->engine->vcpu_kick(vcpu->cpu);
	}
	pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_bring_to_seam(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	/* Once asked to quit it may be past its seam, with the engine's vCPU gone. */
	if (vcpu->state == VCPU_RUNNING && vcpu->request != VCPU_QUIT)
		vcpu->vm->engine->vcpu_kick(vcpu->cpu);
	pthread_mutex_unlock(&vcpu->lock);
}

bool vcpu_is_at_rest(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	bool rests = vcpu->state == VCPU_PAUSED || vcpu->state == VCPU_STOPPED;
	pthread_mutex_unlock(&vcpu->lock);
	return rests;
}

int vcpu_wait_paused(struct vcpu *vcpu, struct error *err)
{
	pthread_mutex_lock(&vcpu->lock);
	while (vcpu->state != VCPU_PAUSED && vcpu->state != VCPU_STOPPED)
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	int ret = vcpu->result;
	if (ret < 0 && err)
		*err = vcpu->error;
	pthread_mutex_unlock(&vcpu->lock);
	return ret;
}

void vcpu_stop(struct vcpu *vcpu)
{
	if (!vcpu->started)
		return;
	vcpu_request(vcpu, VCPU_QUIT);
	pthread_join(vcpu->thread, NULL);
	pthread_cond_destroy(&vcpu->changed);
	pthread_mutex_destroy(&vcpu->lock);
	vcpu->started = false;
}
