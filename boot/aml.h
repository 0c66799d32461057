/*
 * ACPI Machine Language, byte by byte (ACPI 6.5, chapter 20): just the terms that a DSDT of a small
 * machine is made of. A builder that runs out of room keeps counting and says so at the end.
 */
#ifndef GUISE_BOOT_AML_H
#define GUISE_BOOT_AML_H

#include "base/types.h"

struct aml {
	u8 *bytes;
	size_t room;
	size_t length; /* more than room: it did not fit, and nothing was written past room */
};

/** Opens a block; give what it returns to aml_end(). @path is one name segment ("\\" in front). */
size_t aml_scope(struct aml *aml, const char *path);
size_t aml_device(struct aml *aml, const char *name);
size_t aml_package(struct aml *aml, u8 elements);
size_t aml_resources(struct aml *aml);

/** Closes a block and writes its length at its beginning. */
void aml_end(struct aml *aml, size_t block);

/** Closes a resource template: end tag, buffer size, length. */
void aml_resources_end(struct aml *aml, size_t block);

/** Begins Name(@name, ...): the next term is its value. */
void aml_name(struct aml *aml, const char *name);

void aml_integer(struct aml *aml, u32 value);

/** EISAID("PNP0501"). */
void aml_eisa_id(struct aml *aml, const char *id);

/** IO(Decode16, @port, @port, 1, @length), IRQNoFlags(){@irq}; inside aml_resources(). */
void aml_io(struct aml *aml, u16 port, u8 length);
void aml_irq(struct aml *aml, u8 irq);

#endif
