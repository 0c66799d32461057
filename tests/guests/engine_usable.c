/*
 * engine_usable NAME: says in its exit status what guests may expect of an engine here.
 * 0: works. 3: works, but the engine emulates kernel-mode code, and not all of it. 77: does not
 * work, the reason is on stdout.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "engine/engine.h"

enum { USABLE = 0, FAILED = 1, EMULATES = 3, UNUSABLE = 77 };

#define RAM_BYTES 4096

/* FLD1; HLT in real mode: KVM's instruction emulator, where it stands in for the processor, knows
 * no x87. */
static const u8 probe_code[] = {0xd9, 0xe8, 0xf4};

static int run_probe(const struct engine *engine, struct engine_vm *vm)
{
	struct engine_vcpu *vcpu;
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rflags = 2};
	struct error err;
	int ret = FAILED;

	u8 *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		return FAILED;
	memcpy(ram, probe_code, sizeof(probe_code));
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (uintptr_t)ram};
	if (engine->vm_set_memory(vm, &region) || engine->vcpu_create(vm, 0, &vcpu, &err))
		goto out_memory;
	if (engine->vcpu_get_sregs(vcpu, &sregs))
		goto out;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (engine->vcpu_set_sregs(vcpu, &sregs) || engine->vcpu_set_regs(vcpu, &regs) ||
	    engine->vcpu_run(vcpu))
		goto out;
	ret = vcpu->run->exit_reason == KVM_EXIT_HLT ? USABLE : EMULATES;
out:
	engine->vcpu_destroy(vcpu);
out_memory:
	region.memory_size = 0;
	engine->vm_set_memory(vm, &region);
	munmap(ram, RAM_BYTES);
	return ret;
}

int main(int argc, char **argv)
{
	const struct engine *engine = argc == 2 ? engine_by_name(argv[1]) : NULL;
	struct engine_probe probe;
	struct engine_vm *vm;
	struct error err;

	if (!engine) {
		fprintf(stderr, "usage: engine_usable ENGINE\n");
		return FAILED;
	}
	engine->probe(NULL, &probe);
	if (!probe.usable) {
		printf("%s\n", probe.reason);
		return UNUSABLE;
	}
	if (engine->vm_create(NULL, &vm, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return FAILED;
	}
	int ret = run_probe(engine, vm);
	engine->vm_destroy(vm);
	return ret;
}
