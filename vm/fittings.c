/* What a machine is fitted with, and how it is wired. */
#include "base/error.h"
#include "devices/acpi_pm.h"
#include "devices/debug_ports.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/pci_host.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/system_control.h"
#include "devices/test_device.h"
#include "host/input.h"
#include "host/output.h"
#include "vm/machine.h"

static void set_irq(void *opaque, u32 gsi, int level)
{
	struct vm *vm = opaque;
	/* A machine without interrupt chips has nowhere for it to go. */
	if (!vm->config.boot.flat)
		vm->engine->vm_irq_line(vm->engine_vm, gsi, level);
}

static struct irq_wire irq_wire(struct vm *vm, u32 gsi)
{
	return (struct irq_wire){.set = set_irq, .opaque = vm, .line = gsi};
}

static void power_requested(void *opaque, enum power_event event, u32 code)
{
	struct vm *vm = opaque;
	switch (event) {
	case POWER_OFF:
		vm_end(vm, VM_POWERED_OFF, NULL, "the guest powered off");
		break;
	case POWER_RESET:
		vm_end(vm, VM_RESET, NULL, "the guest asked for a reset");
		break;
	case POWER_EXIT:
		if (code == 0)
			vm_end(vm, VM_EXITED, NULL, "the guest exited with success");
		else
			vm_end(vm, VM_EXITED_BADLY, NULL,
			       "the guest exited through the debug-exit port with code %u", code);
		break;
	}
}

static void put(void *opaque, u8 byte)
{
	output_put(opaque, byte);
}

static void line_put(void *opaque, u8 byte)
{
	struct vm *vm = opaque;
	output_put(vm->config.serial_out, byte);
}

static bool line_has_room(void *opaque)
{
	struct vm *vm = opaque;
	return output_has_room(vm->config.serial_out);
}

static u32 line_take(void *opaque, u8 *to, u32 room)
{
	struct vm *vm = opaque;
	return vm->config.serial_in ? input_take(vm->config.serial_in, to, room) : 0;
}

static void line_changed(void *opaque)
{
	serial_line_changed(opaque);
}

static int fit_serial(struct vm *vm, struct error *err)
{
	if (!vm->config.serial_out)
		return 0;
	struct serial_line line = {
	    .opaque = vm,
	    .put = line_put,
	    .has_room = line_has_room,
	    .take = line_take,
	};
	int ret = serial_create(&vm->serial, &vm->io, SERIAL_COM1_PORT,
				irq_wire(vm, SERIAL_COM1_IRQ), line, err);
	if (ret < 0)
		return ret;
	output_on_room(vm->config.serial_out, line_changed, vm->serial);
	if (vm->config.serial_in)
		input_on_ready(vm->config.serial_in, line_changed, vm->serial);
	return 0;
}

static void remove_serial(struct vm *vm)
{
	if (!vm->serial)
		return;
	output_on_room(vm->config.serial_out, NULL, NULL);
	if (vm->config.serial_in)
		input_on_ready(vm->config.serial_in, NULL, NULL);
	serial_destroy(vm->serial);
}

static int fit_test_device(struct vm *vm, struct error *err)
{
	if (!vm->config.test_device)
		return 0;
	struct test_device_config test = {.io = &vm->io, .mmio = &vm->mmio};
	for (u32 line = 0; line < TEST_DEVICE_LINES; line++)
		test.lines[line] = irq_wire(vm, line);
	struct fw_cfg_config fw_cfg = {
	    .io = &vm->io,
	    .memory_size = vm->config.memory_size,
	    .cpu_count = (u16)vm->cpu_count,
	};
	int ret = test_device_create(&vm->test_device, &test, err);
	if (ret == 0)
		ret = fw_cfg_create(&vm->fw_cfg, &fw_cfg, err);
	return ret;
}

int vm_fit_devices(struct vm *vm, struct error *err)
{
	struct power_wire power = {.request = power_requested, .opaque = vm};
	struct rtc_config rtc = {
	    .io = &vm->io,
	    .loop = vm->config.loop,
	    .irq = irq_wire(vm, RTC_IRQ),
	    .memory = &vm->memory,
	};

	int ret =
	    debug_ports_create(&vm->debug_ports, &vm->io, power, put, vm->config.console, err);
	if (ret == 0)
		ret = system_control_create(&vm->system_control, &vm->io, power, err);
	if (ret == 0)
		ret = pci_host_create(&vm->pci_host, &vm->io, vm->system_control, err);
	if (ret == 0)
		ret = i8042_create(&vm->i8042, &vm->io, irq_wire(vm, I8042_IRQ), power, err);
	if (ret == 0)
		ret = rtc_create(&vm->rtc, &rtc, err);
	if (ret == 0)
		ret = acpi_pm_create(&vm->acpi_pm, &vm->io, vm->config.loop,
				     irq_wire(vm, ACPI_SCI_IRQ), power, err);
	if (ret == 0)
		ret = fit_serial(vm, err);
	if (ret == 0)
		ret = fit_test_device(vm, err);
	if (ret < 0)
		vm_remove_devices(vm);
	return ret;
}

void vm_remove_devices(struct vm *vm)
{
	fw_cfg_destroy(vm->fw_cfg);
	test_device_destroy(vm->test_device);
	remove_serial(vm);
	acpi_pm_destroy(vm->acpi_pm);
	rtc_destroy(vm->rtc);
	i8042_destroy(vm->i8042);
	pci_host_destroy(vm->pci_host);
	system_control_destroy(vm->system_control);
	debug_ports_destroy(vm->debug_ports);
}
