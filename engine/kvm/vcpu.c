/* A vCPU's life: creation, KVM_RUN, events. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

int kvm_vcpu_create(struct engine_vm *base, u32 id, struct engine_vcpu **out, struct error *err)
{
	struct kvm_vm *vm = to_kvm_vm(base);
	int ret;

	struct kvm_vcpu *vcpu = calloc(1, sizeof(*vcpu));
	if (!vcpu)
		return error_errno(err, ENOMEM, "KVM vCPU %u", id);
	vcpu->base.engine = &engine_kvm;
	vcpu->base.vm = base;
	vcpu->base.id = id;

	vcpu->fd = ret = kvm_ioctl_value(vm->fd, KVM_CREATE_VCPU, id);
	if (ret < 0) {
		error_errno(err, -ret, "KVM_CREATE_VCPU %u", id);
		goto fail_create;
	}
	vcpu->base.run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->base.run == MAP_FAILED) {
		ret = error_errno(err, errno, "mapping kvm_run of vCPU %u", id);
		goto fail_map;
	}
	*out = &vcpu->base;
	return 0;

fail_map:
	close(vcpu->fd);
fail_create:
	free(vcpu);
	return ret;
}

void kvm_vcpu_destroy(struct engine_vcpu *base)
{
	struct kvm_vcpu *vcpu = to_kvm_vcpu(base);

	munmap(base->run, to_kvm_vm(base->vm)->run_bytes);
	close(vcpu->fd);
	free(vcpu);
}

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void count_exit(struct kvm_vcpu *vcpu, int ret)
{
	struct engine_stats *stats = &vcpu->stats;

	stats->exits_full++;
	if (ret) {
		stats->exit_intr++;
		return;
	}
	switch (vcpu->base.run->exit_reason) {
	case KVM_EXIT_IO:
		stats->exit_io++;
		break;
	case KVM_EXIT_MMIO:
		stats->exit_mmio++;
		break;
	case KVM_EXIT_HLT:
		stats->exit_hlt++;
		break;
	default:
		stats->exit_other++;
		break;
	}
}

int kvm_vcpu_run(struct engine_vcpu *base)
{
	struct kvm_vcpu *vcpu = to_kvm_vcpu(base);
	static _Thread_local int self;

	if (!self)
		self = gettid();
	if (vcpu->unblocked != self) {
		kvm_kick_unblock();
		vcpu->unblocked = self;
	}

	u64 entered_ns = now_ns();
	if (vcpu->left_ns)
		vcpu->stats.ns_monitor += entered_ns - vcpu->left_ns;

	atomic_store(&vcpu->thread, self);
	int ret = kvm_ioctl_value(vcpu->fd, KVM_RUN, 0);
	atomic_store(&vcpu->thread, 0);

	vcpu->left_ns = now_ns();
	vcpu->stats.ns_guest += vcpu->left_ns - entered_ns;
	count_exit(vcpu, ret);
	return ret;
}

int kvm_vcpu_interrupt(struct engine_vcpu *vcpu, u32 vector)
{
	struct kvm_interrupt interrupt = {.irq = vector};

	return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_INTERRUPT, &interrupt);
}

int kvm_vcpu_nmi(struct engine_vcpu *vcpu)
{
	return kvm_ioctl_value(to_kvm_vcpu(vcpu)->fd, KVM_NMI, 0);
}

int kvm_vcpu_translate(struct engine_vcpu *vcpu, struct kvm_translation *tr)
{
	return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_TRANSLATE, tr);
}

/* KVM_GET_NESTED_STATE gives the current VMCS in a layout of KVM's own. */
int kvm_vcpu_get_vmx(struct engine_vcpu *vcpu, struct engine_vmx *vmx)
{
	return -EOPNOTSUPP;
}

void kvm_vcpu_stats(struct engine_vcpu *vcpu, struct engine_stats *stats)
{
	const struct engine_stats *own = &to_kvm_vcpu(vcpu)->stats;

#define X(name, what) stats->name += own->name;
	ENGINE_COUNTERS(X)
#undef X
}
