#include "boot/aml.h"

#include <string.h>

/* Encodings: ACPI 6.5, section 20.2 and table 20.1; resources: section 6.4.2. */
enum {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_NAME = 0x08,
	AML_BYTE = 0x0a,
	AML_WORD = 0x0b,
	AML_DWORD = 0x0c,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_EXTENDED = 0x5b,
	AML_DEVICE = 0x82, /* after AML_EXTENDED */
	RESOURCE_IRQ = 0x22,
	RESOURCE_IO = 0x47,
	RESOURCE_END = 0x79,
};

#define LENGTH_BYTES 2 /* of every PkgLength written here: blocks stay below 4 KiB */

static void put(struct aml *aml, u8 byte)
{
	if (aml->length < aml->room)
		aml->bytes[aml->length] = byte;
	aml->length++;
}

static void put_number(struct aml *aml, u32 value, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++)
		put(aml, (u8)(value >> (8 * i)));
}

/** A name segment: four characters, filled up with '_'. */
static void put_name(struct aml *aml, const char *name)
{
	if (*name == '\\')
		put(aml, (u8)*name++);
	size_t length = strlen(name);
	for (size_t i = 0; i < 4; i++)
		put(aml, i < length ? (u8)name[i] : '_');
}

static size_t open_block(struct aml *aml)
{
	size_t block = aml->length;
	put_number(aml, 0, LENGTH_BYTES);
	return block;
}

void aml_end(struct aml *aml, size_t block)
{
	/* Two-byte PkgLength: count of further bytes in bits 6-7, low nibble, then the rest. */
	size_t length = aml->length - block;
	if (aml->length > aml->room || length > 0xfff) {
		aml->length = aml->room + 1;
		return;
	}
	aml->bytes[block] = (u8)(1 << 6 | (length & 0xf));
	aml->bytes[block + 1] = (u8)(length >> 4);
}

size_t aml_scope(struct aml *aml, const char *path)
{
	put(aml, AML_SCOPE);
	size_t block = open_block(aml);
	put_name(aml, path);
	return block;
}

size_t aml_device(struct aml *aml, const char *name)
{
	put(aml, AML_EXTENDED);
	put(aml, AML_DEVICE);
	size_t block = open_block(aml);
	put_name(aml, name);
	return block;
}

size_t aml_package(struct aml *aml, u8 elements)
{
	put(aml, AML_PACKAGE);
	size_t block = open_block(aml);
	put(aml, elements);
	return block;
}

#define BUFFER_SIZE_AT (LENGTH_BYTES + 1) /* of the size's byte, from the block's beginning */

size_t aml_resources(struct aml *aml)
{
	put(aml, AML_BUFFER);
	size_t block = open_block(aml);
	put(aml, AML_BYTE);
	put(aml, 0);
	return block;
}

void aml_resources_end(struct aml *aml, size_t block)
{
	put(aml, RESOURCE_END);
	put(aml, 0); /* checksum 0: not checked */
	size_t size = aml->length - (block + BUFFER_SIZE_AT + 1);
	if (aml->length <= aml->room && size <= 0xff)
		aml->bytes[block + BUFFER_SIZE_AT] = (u8)size;
	else
		aml->length = aml->room + 1;
	aml_end(aml, block);
}

void aml_name(struct aml *aml, const char *name)
{
	put(aml, AML_NAME);
	put_name(aml, name);
}

void aml_integer(struct aml *aml, u32 value)
{
	if (value <= 1) {
		put(aml, value ? AML_ONE : AML_ZERO);
	} else if (value <= 0xff) {
		put(aml, AML_BYTE);
		put_number(aml, value, 1);
	} else if (value <= 0xffff) {
		put(aml, AML_WORD);
		put_number(aml, value, 2);
	} else {
		put(aml, AML_DWORD);
		put_number(aml, value, 4);
	}
}

static u32 hex_digit(char c)
{
	return c <= '9' ? (u32)(c - '0') : (u32)(c - 'A' + 10);
}

void aml_eisa_id(struct aml *aml, const char *id)
{
	/* Three letters of 5 bits, four hexadecimal digits, big-endian (ACPI 6.5, 19.3.4). */
	u32 value = 0;
	for (int i = 0; i < 3; i++)
		value = value << 5 | (u32)(id[i] - '@');
	for (int i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	aml_integer(aml, __builtin_bswap32(value));
}

void aml_io(struct aml *aml, u16 port, u8 length)
{
	put(aml, RESOURCE_IO);
	put(aml, 1); /* decodes 16 bits */
	put_number(aml, port, 2);
	put_number(aml, port, 2);
	put(aml, 1);
	put(aml, length);
}

void aml_irq(struct aml *aml, u8 irq)
{
	put(aml, RESOURCE_IRQ);
	put_number(aml, 1u << irq, 2);
}
