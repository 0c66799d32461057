// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Where interrupt lines lead (KVM_SET_GSI_ROUTING, api.rst 4.52). The first 24 are wires to the
 * pins of the chips, as they are on a PC: line 0 to the first PIC's pin 0 and the IOAPIC's pin 2,
 * the others to pins of their own number. These wires are fixed; an owner that names them must mean
 * the same ones. Each line behind them may lead to a message.
 */
#include <linux/kernel.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "guise.h"
#include "engine/soft/irqchip/irqchip.h"

#define WIRES	  24
#define PIC_PINS  8
#define TIMER_PIN 2 /* of the IOAPIC: line 0's */

static bool is_wire(const struct kvm_irq_routing_entry *e)
{
	u32 pin = e->u.irqchip.pin, line = e->gsi;

	switch (e->u.irqchip.irqchip) {
	case KVM_IRQCHIP_PIC_MASTER:
		return pin < PIC_PINS && pin == line;
	case KVM_IRQCHIP_PIC_SLAVE:
		return pin < PIC_PINS && pin + PIC_PINS == line;
	case KVM_IRQCHIP_IOAPIC:
		return line == 0 ? pin == TIMER_PIN : pin == line && line < WIRES;
	default:
		return false;
	}
}

static int add_route(struct kvm_msi *messages, const struct kvm_irq_routing_entry *e)
{
	struct kvm_msi *message;

	if (e->flags)
		return -EINVAL;
	if (e->type == KVM_IRQ_ROUTING_IRQCHIP)
		return is_wire(e) ? 0 : -EINVAL;
	if (e->type != KVM_IRQ_ROUTING_MSI || e->gsi < WIRES || e->gsi >= GUISE_LINES)
		return -EINVAL;
	message = &messages[array_index_nospec(e->gsi - WIRES, GUISE_LINES - WIRES)];
	message->address_lo = e->u.msi.address_lo;
	message->address_hi = e->u.msi.address_hi;
	message->data = e->u.msi.data;
	return 0;
}

int routes_set(struct vm *vm, const struct kvm_irq_routing __user *user)
{
	struct kvm_msi *messages, *old;
	struct kvm_irq_routing head;
	int ret = 0;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.flags || head.nr > ROUTES_MAX)
		return -EINVAL;
	messages = kcalloc(GUISE_LINES - WIRES, sizeof(*messages), GFP_KERNEL_ACCOUNT);
	if (!messages)
		return -ENOMEM;
	for (u32 i = 0; i < head.nr && !ret; i++) {
		struct kvm_irq_routing_entry entry;

		if (copy_from_user(&entry, &user->entries[i], sizeof(entry)))
			ret = -EFAULT;
		else
			ret = add_route(messages, &entry);
	}
	if (ret) {
		kfree(messages);
		return ret;
	}
	mutex_lock(&vm->lock);
	old = vm->messages;
	vm->messages = messages;
	mutex_unlock(&vm->lock);
	kfree(old);
	return 0;
}

/* A message is sent when its line goes up; address 0 is no message. */
static int send(struct vm *vm, u32 line, int level)
{
	struct kvm_msi message = {.address_lo = 0};

	line = array_index_nospec(line - WIRES, GUISE_LINES - WIRES);
	mutex_lock(&vm->lock);
	if (vm->messages)
		message = vm->messages[line];
	mutex_unlock(&vm->lock);
	if (!message.address_lo)
		return -EINVAL;
	if (level)
		irqchip_msi(&vm->chips, &message);
	return 0;
}

int routes_line(struct vm *vm, u32 line, int level)
{
	if (line < WIRES)
		return irqchip_line(&vm->chips, line, level);
	if (!vm->chips.irqchip)
		return -ENXIO;
	return line < GUISE_LINES ? send(vm, line, level) : -EINVAL;
}
