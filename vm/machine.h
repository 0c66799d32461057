/* The machine's inside, shared by the files of vm/ only. */
#ifndef GUISE_VM_MACHINE_H
#define GUISE_VM_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "devices/bus.h"
#include "devices/wires.h"
#include "memory/memory.h"
#include "vm/vcpu.h"
#include "vm/vm.h"

struct acpi_pm;
struct debug_ports;
struct fw_cfg;
struct i8042;
struct loop_timer;
struct pci_host;
struct rtc;
struct serial;
struct system_control;
struct test_device;

#define VM_CPUS_MAX 64

struct vm {
	struct vm_config config;
	const struct engine *engine;
	struct engine_vm *engine_vm;
	struct guest_memory memory;
	struct bus io;
	struct bus mmio;

	struct serial *serial;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct acpi_pm *acpi_pm;
	struct system_control *system_control;
	struct pci_host *pci_host;
	struct debug_ports *debug_ports;
	struct test_device *test_device; /* NULL: there is none */
	struct fw_cfg *fw_cfg;		 /* NULL: there is none */

	u32 cpu_count;
	struct vcpu *vcpus;

	struct loop_timer *watch_timer;
	u32 watch_tick;

	atomic_bool ended;
	atomic_bool interrupted;  /* vm_interrupt() was called */
	pthread_mutex_t end_lock; /* guards result and culprit */
	struct vm_result result;
	struct vcpu *culprit; /* the vCPU that ended the run, or NULL */
};

/** Ends the run; the first call counts. @culprit: the vCPU at fault, or NULL. Any thread. */
void vm_end(struct vm *vm, enum vm_end end, struct vcpu *culprit, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/** vm/fittings.c: creates the devices and puts them on the buses. 0 or a negative errno, @err. */
int vm_fit_devices(struct vm *vm, struct error *err);
void vm_remove_devices(struct vm *vm);

/** vm/cpu_setup.c: CPUID, LAPIC and MSRs of a new vCPU. 0 or a negative errno with @err. */
int vm_setup_cpu(struct vm *vm, struct engine_vcpu *cpu, struct error *err);

/**
 * vm/exits.c: acts on the exit that vcpu->cpu->run describes. Returns whether the vCPU may run on.
 * On the vCPU's thread.
 */
bool vm_handle_exit(struct vcpu *vcpu);

/** vm/debugger.c: shows the machine to the debugger, if there is one. 0 or a negative errno, @err.
 */
int vm_debugger_attach(struct vm *vm, struct error *err);
/** After the end: lets a debugger look at a guest that failed, for as long as it wants. */
void vm_debugger_examine(struct vm *vm);

/** vm/watch.c: the watch for guests that halted for good. */
int vm_watch_start(struct vm *vm, struct error *err);
void vm_watch_stop(struct vm *vm);
/** Looks at the vCPU if a tick asked for it. On its thread, at the seam. */
void vm_watch_look(struct vcpu *vcpu);

#endif
