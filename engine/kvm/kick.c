/*
 * Bringing a vCPU out of KVM_RUN from another thread.
 *
 * run->immediate_exit makes the next KVM_RUN return at once; a signal to the thread makes the one
 * in progress return. The flag is set before the thread is looked up, and the thread announces
 * itself before KVM_RUN reads the flag, so one of the two always takes effect. The handler does
 * nothing: that the signal is pending is what KVM looks for.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A signal's disposition belongs to the process, hence these two. Written once, before any vCPU
 * exists. */
static pthread_once_t setup_once = PTHREAD_ONCE_INIT;
static int kick_signal;
static int setup_result;

static void on_kick(int signal)
{
}

static void setup(void)
{
	/* no SA_RESTART: blocking calls of a vCPU thread outside KVM_RUN come back as well */
	struct sigaction action = {.sa_handler = on_kick};

	kick_signal = SIGRTMIN + 7;
	sigemptyset(&action.sa_mask);
	setup_result = sigaction(kick_signal, &action, NULL) ? -errno : 0;
}

int kvm_kick_setup(void)
{
	int ret = pthread_once(&setup_once, setup);
	return ret ? -ret : setup_result;
}

void kvm_kick_unblock(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, kick_signal);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void kvm_vcpu_kick(struct engine_vcpu *base)
{
	struct kvm_vcpu *vcpu = to_kvm_vcpu(base);

	int saved = errno;
	__atomic_store_n(&base->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	int thread = atomic_load(&vcpu->thread);
	if (thread)
		syscall(SYS_tgkill, getpid(), thread, kick_signal);
	errno = saved;
}
