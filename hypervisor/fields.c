// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The guest's fields that exits look at most: read from the VMCS once an exit and only if somebody
 * asks, written back once before the entry and only if they changed. A VMREAD or VMWRITE costs more
 * than all the rest of a short exit's handling. What is known stays true while another processor
 * has the VMCS.
 */
#include <linux/bitops.h>

#include "guise.h"
#include "vmcs.h"

static const unsigned long encodings[FIELD_COUNT] = {
    [FIELD_RIP] = GUEST_RIP,
    [FIELD_RSP] = GUEST_RSP,
    [FIELD_RFLAGS] = GUEST_RFLAGS,
    [FIELD_BLOCKING] = GUEST_INTERRUPTIBILITY_INFO,
    [FIELD_PENDING_DEBUG] = GUEST_PENDING_DBG_EXCEPTIONS,
    [FIELD_EFER] = GUEST_IA32_EFER,
    [FIELD_CR0] = GUEST_CR0,
    [FIELD_CR4] = GUEST_CR4,
};

u64 field_get(struct vcpu *v, enum field field)
{
	struct fields *f = &v->fields;

	if (!(f->known & BIT(field))) {
		f->value[field] = vmcs_read(encodings[field]);
		f->known |= BIT(field);
	}
	return f->value[field];
}

void field_put(struct vcpu *v, enum field field, u64 value)
{
	struct fields *f = &v->fields;

	if ((f->known & BIT(field)) && f->value[field] == value)
		return;
	f->value[field] = value;
	f->known |= BIT(field);
	f->changed |= BIT(field);
}

void fields_write_back(struct vcpu *v)
{
	struct fields *f = &v->fields;
	unsigned long changed = f->changed;
	int field;

	for_each_set_bit (field, &changed, FIELD_COUNT)
		vmcs_write(encodings[field], f->value[field]);
	f->changed = 0;
}

void fields_forget(struct vcpu *v)
{
	v->fields.known = 0;
}
