/*
 * A vCPU: a host thread with named states around an engine's vCPU.
 *
 *     CREATED ──► PAUSED ◄──► RUNNING
 *                   └───────────┴──► STOPPED
 *
 * Others ask (vcpu_request()) and wait (vcpu_wait()); the thread complies at its seam, the one
 * place between two entries into the guest where its state is whole.
 */
#ifndef GUISE_VM_VCPU_H
#define GUISE_VM_VCPU_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"
#include "engine/engine.h"

struct vm;

enum vcpu_state {
	VCPU_CREATED, /* the thread sets the engine's vCPU up */
	VCPU_PAUSED,  /* at the seam, not running: its registers may be read and set by others */
	VCPU_RUNNING,
	VCPU_STOPPED, /* the thread has ended or is about to; result says whether it ever got up */
};

enum vcpu_request {
	VCPU_PAUSE,
	VCPU_RUN,
	VCPU_QUIT,
};

struct vcpu {
	struct vm *vm;
	u32 id;
	pthread_t thread;
	bool started; /* the thread exists */
	struct engine_vcpu *cpu;

	pthread_mutex_t lock; /* guards state, request and result */
	pthread_cond_t changed;
	enum vcpu_state state;
	enum vcpu_request request;
	int result; /* of setting up */
	struct error error;

	/* The watch for a machine that halted for good, see vm/watch.c. */
	atomic_uint watch_tick; /* tick at which to look, 0: none asked */
	atomic_uint dead_since; /* first tick of those, without gap, that found it dead; 0: alive */
	atomic_uint dead_at;	/* last tick that found it dead */
	atomic_uint exits;	/* full exits, counted by the thread */
	unsigned exits_at_watch; /* their number at the last tick; the loop's thread only */
};

/** Starts the thread, which sets the vCPU up and goes to PAUSED. 0, or a negative errno with @err.
 */
int vcpu_start(struct vcpu *vcpu, struct vm *vm, u32 id, struct error *err);

/** Asks for a state, from any other thread; does not wait. */
void vcpu_request(struct vcpu *vcpu, enum vcpu_request request);

/** Brings a running vCPU to its seam, where it attends to what was left there. From other threads.
 */
void vcpu_bring_to_seam(struct vcpu *vcpu);

/** Whether it is PAUSED (or STOPPED). */
bool vcpu_is_at_rest(struct vcpu *vcpu);

/** Waits for PAUSED (or STOPPED). Returns 0, or what setting up failed with and @err. */
int vcpu_wait_paused(struct vcpu *vcpu, struct error *err);

/** Asks to quit and waits for the thread's end. Harmless if it never started. */
void vcpu_stop(struct vcpu *vcpu);

#endif
