/* The machine as the debugger's server moves it. On the loop's thread. */
#include "gdb/gdb.h"
#include "host/loop.h"
#include "vm/machine.h"

static void pause_all(void *opaque)
{
	struct vm *vm = opaque;

	for (u32 i = 0; i < vm->cpu_count; i++)
		vcpu_request(&vm->vcpus[i], VCPU_PAUSE);
}

static bool all_at_rest(void *opaque)
{
	struct vm *vm = opaque;
	bool rest = true;

	for (u32 i = 0; i < vm->cpu_count; i++)
		rest &= vcpu_is_at_rest(&vm->vcpus[i]);
	return rest;
}

static void resume(void *opaque, u64 cpus)
{
	struct vm *vm = opaque;

	for (u32 i = 0; i < vm->cpu_count; i++)
		if (cpus & BIT(i))
			vcpu_request(&vm->vcpus[i], VCPU_RUN);
}

static void kill_machine(void *opaque)
{
	vm_interrupt(opaque);
}

static const struct gdb_machine_ops ops = {
    .pause = pause_all,
    .at_rest = all_at_rest,
    .resume = resume,
    .kill = kill_machine,
};

/** What the image starts as; a kernel's first instructions in another mode do not last. */
static enum gdb_arch arch_of(const struct boot_image_request *boot)
{
	if (!boot->flat || boot->flat_mode == BOOT_FLAT_LONG)
		return GDB_ARCH_X86_64;
	return boot->flat_mode == BOOT_FLAT_REAL ? GDB_ARCH_I8086 : GDB_ARCH_I386;
}

int vm_debugger_attach(struct vm *vm, struct error *err)
{
	struct gdb_machine machine = {
	    .engine = vm->engine,
	    .engine_vm = vm->engine_vm,
	    .memory = &vm->memory,
	    .cpu_count = vm->cpu_count,
	    .arch = arch_of(&vm->config.boot),
	    .ops = &ops,
	    .opaque = vm,
	};

	_Static_assert(GDB_CPUS_MAX >= VM_CPUS_MAX, "every vCPU is a thread to the debugger");
	if (!vm->config.gdb)
		return 0;
	for (u32 i = 0; i < vm->cpu_count; i++)
		machine.cpus[i] = vm->vcpus[i].cpu;
	return gdb_attach(vm->config.gdb, &machine, err);
}

void vm_debugger_examine(struct vm *vm)
{
	u32 culprit = vm->culprit ? vm->culprit->id : 0;

	if (!vm->config.gdb || vm->result.end != VM_GUEST_FAILED ||
	    !gdb_failed(vm->config.gdb, culprit, vm->result.text))
		return;
	while (gdb_is_looking(vm->config.gdb) && !atomic_load(&vm->interrupted))
		loop_run(vm->config.loop);
}
