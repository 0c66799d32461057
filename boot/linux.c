/*
 * Linux bzImage (Documentation/arch/x86/boot.rst).
 *
 * The file is a real-mode part (boot sector and setup, which only tells us things) and a protected-
 * mode part, which holds the compressed kernel and the code to unpack it. We unpack on the host and
 * start the ELF image found inside at its physical address, as a guest on a software processor
 * takes seconds for what the host does in milliseconds. A payload in a format not known here is
 * left to the guest: the protected-mode part is started at its own 64-bit entry point.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "boot/bulk.h"
#include "boot/elf_image.h"
#include "boot/linux_crc.h"
#include "boot/linux_params.h"
#include "boot/unpack.h"
#include "debug/trace.h"

#define BOOT_FLAG      0xaa55u
#define HEADER_MAGIC   0x53726448u /* "HdrS" */
#define HEADER_AT      offsetof(struct boot_params, hdr)
#define OLDEST_VERSION 0x20c /* xloadflags; Linux 3.8 */
#define ENTRY_64       0x200 /* startup_64 in the protected-mode part */

struct bzimage {
	struct setup_header header;
	u64 code_offset, code_size; /* protected-mode part in the file */
	u8 *memory;		    /* where the kernel's memory is: init_size at pref_address */
};

static struct setup_header read_header(const struct boot_context *boot)
{
	struct setup_header header = {0};
	/* It ends where the jump at its beginning goes to, so its length is in the jump. */
	u32 end = 0x202 + boot->head[0x201];
	u32 size = end - HEADER_AT;
	memcpy(&header, boot->head + HEADER_AT, size < sizeof(header) ? size : sizeof(header));
	return header;
}

bool linux_recognise(const struct boot_context *boot)
{
	u32 magic;
	u16 flag;
	if (boot->head_size < HEADER_AT + sizeof(struct setup_header))
		return false;
	memcpy(&flag, boot->head + 0x1fe, sizeof(flag));
	memcpy(&magic, boot->head + 0x202, sizeof(magic));
	return flag == BOOT_FLAG && magic == HEADER_MAGIC;
}

static int check_header(struct boot_context *boot, struct bzimage *image, struct error *err)
{
	const struct setup_header *h = &image->header;
	const char *path = boot->kernel.path;
	if (h->version < OLDEST_VERSION)
		return error_set(
		    err, ENOEXEC,
		    "%s is a kernel of boot protocol %u.%02u; 2.12 (Linux 3.8) or later "
		    "is needed",
		    path, h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH) || !(h->xloadflags & XLF_KERNEL_64))
		return error_set(
		    err, ENOEXEC,
		    "%s is a kernel without a 64-bit entry point: use an x86-64 kernel", path);
	u64 setup_sectors = h->setup_sects ? h->setup_sects : 4;
	image->code_offset = (setup_sectors + 1) * 512;
	image->code_size = (u64)h->syssize * 16;
	/* syssize counts paragraphs of 16 bytes, of which the last need not be full. */
	if (!boot_file_holds(&boot->kernel, image->code_offset, image->code_size - 15) ||
	    image->code_size <= ENTRY_64)
		return error_set(err, EBADMSG, "%s is truncated: it has %llu bytes of %llu", path,
				 (unsigned long long)boot->kernel.size,
				 (unsigned long long)(image->code_offset + image->code_size));
	if (image->code_size > boot->kernel.size - image->code_offset)
		image->code_size = boot->kernel.size - image->code_offset;
	return 0;
}

/* The unpacked vmlinux on its way into guest memory. */
struct placing {
	struct bzimage *image;
	struct elf_image elf;
	u8 *head; /* the first bytes, kept until the headers are complete */
	size_t head_size;
	bool parsed;
	u64 position; /* bytes of the stream that were seen */
};

static int parse_stream(struct placing *p, struct error *err)
{
	const struct setup_header *h = &p->image->header;
	int ret = elf_parse(&p->elf, p->head, p->head_size, UINT64_MAX, err);
	if (ret)
		return ret;
	for (u32 i = 0; i < p->elf.segment_count; i++) {
		const struct elf_segment *s = &p->elf.segments[i];
		if (s->gpa < h->pref_address || s->gpa + s->size > h->pref_address + h->init_size)
			return error_set(
			    err, EBADMSG,
			    "a segment outside of the memory that the kernel asks for");
	}
	p->parsed = true;
	return 0;
}

/** Copies what segments want of the @size bytes at @position of the stream. */
static void place_bytes(struct placing *p, const u8 *data, u64 position, u64 size)
{
	for (u32 i = 0; i < p->elf.segment_count; i++) {
		const struct elf_segment *s = &p->elf.segments[i];
		u64 start = s->offset > position ? s->offset : position;
		u64 end = s->offset + s->file_size;
		if (end > position + size)
			end = position + size;
		if (start < end)
			bulk_copy(p->image->memory + (s->gpa - p->image->header.pref_address) +
				      (start - s->offset),
				  data + (start - position), end - start);
	}
}

static int place_piece(void *opaque, const u8 *data, size_t size, struct error *err)
{
	struct placing *p = opaque;
	if (!p->parsed) {
		size_t room = BOOT_HEAD_SIZE - p->head_size;
		size_t take = size < room ? size : room;
		memcpy(p->head + p->head_size, data, take);
		p->head_size += take;
		if (p->head_size < BOOT_HEAD_SIZE)
			return 0;
		int ret = parse_stream(p, err);
		if (ret)
			return ret;
		place_bytes(p, p->head, 0, p->head_size);
		p->position = p->head_size;
		data += take;
		size -= take;
	}
	place_bytes(p, data, p->position, size);
	p->position += size;
	return 0;
}

/** Unpacks @payload into place. *@entry is the kernel's own startup_64. */
static int load_unpacked(struct boot_context *boot, struct bzimage *image,
			 const struct unpack_format *format, const u8 *payload, size_t size,
			 u64 *entry, struct error *err)
{
	struct placing p = {.image = image, .head = malloc(BOOT_HEAD_SIZE)};
	if (!p.head)
		return error_set(err, ENOMEM, "out of memory");
	int ret = unpack(format, payload, size, place_piece, &p, err);
	free(p.head);
	if (ret)
		return ret;
	if (!p.parsed)
		return error_set(err, EBADMSG, "its payload is too short for a kernel");
	for (u32 i = 0; i < p.elf.segment_count; i++)
		if (p.elf.segments[i].offset + p.elf.segments[i].file_size > p.position)
			return error_set(err, EBADMSG, "its payload ends inside a segment");
	if (!elf_entry(&p.elf, entry))
		return error_set(err, EBADMSG, "its payload has no entry point");
	trace(boot, 1, "%s payload unpacked: %llu bytes to %llu", unpack_name(format),
	      (unsigned long long)size, (unsigned long long)p.position);
	return 0;
}

/** Finds the payload's format. *@format is NULL for one that is not known here. */
static int identify_payload(struct boot_context *boot, const struct bzimage *image,
			    const struct unpack_format **format, struct error *err)
{
	const struct setup_header *h = &image->header;
	u8 magic[8];
	*format = NULL;
	if (h->payload_offset > image->code_size ||
	    h->payload_length > image->code_size - h->payload_offset)
		return error_set(err, EBADMSG, "%s is damaged: its payload is not inside it",
				 boot->kernel.path);
	if (h->payload_length < sizeof(magic))
		return 0;
	int ret = boot_file_read(&boot->kernel, image->code_offset + h->payload_offset, magic,
				 sizeof(magic), err);
	if (!ret)
		*format = unpack_identify(magic, sizeof(magic));
	return ret;
}

/** Puts the kernel inside the whole image @bytes in place. */
static int load_packed(struct boot_context *boot, struct bzimage *image,
		       const struct unpack_format *format, u8 *bytes, u64 *entry, struct error *err)
{
	const u8 *payload = bytes + image->code_offset + image->header.payload_offset;
	int ret =
	    load_unpacked(boot, image, format, payload, image->header.payload_length, entry, err);
	if (!ret && !unpack_is_checked(format) &&
	    linux_crc_is_wrong(bytes, image->code_offset + image->code_size))
		ret = error_set(err, EBADMSG, "it is damaged (its checksum is wrong)");
	return ret ? boot_blame(boot, ret, err) : 0;
}

static int read_and_load_packed(struct boot_context *boot, struct bzimage *image,
				const struct unpack_format *format, u64 *entry, struct error *err)
{
	u64 size = image->code_offset + image->code_size;
	u8 *bytes = bulk_alloc(size);
	if (!bytes)
		return error_set(err, ENOMEM, "out of memory reading %s", boot->kernel.path);
	int ret = boot_file_read(&boot->kernel, 0, bytes, size, err);
	if (!ret)
		ret = load_packed(boot, image, format, bytes, entry, err);
	bulk_free(bytes, size);
	return ret;
}

/** Leaves the unpacking to the code that the image brings along. */
static int load_whole(struct boot_context *boot, struct bzimage *image, u64 *entry,
		      struct error *err)
{
	trace(boot, 1, "payload of a format not known here: the guest will unpack it");
	*entry = image->header.pref_address + ENTRY_64;
	return boot_file_read(&boot->kernel, image->code_offset, image->memory, image->code_size,
			      err);
}

int linux_load(struct boot_context *boot, struct error *err)
{
	struct bzimage image = {.header = read_header(boot)};
	const struct setup_header *h = &image.header;
	int ret = check_header(boot, &image, err);
	if (ret)
		return ret;

	/* Room for the kernel with its bss and, in the packed case, for the packed one too. */
	u64 room = h->init_size > image.code_size ? h->init_size : image.code_size;
	void *memory;
	ret = boot_claim(&boot->layout, h->pref_address, room, "the kernel", &memory, err);
	if (ret)
		return ret;
	image.memory = memory;

	const struct unpack_format *format;
	u64 entry;
	ret = identify_payload(boot, &image, &format, err);
	if (!ret)
		ret = format ? read_and_load_packed(boot, &image, format, &entry, err)
			     : load_whole(boot, &image, &entry, err);
	if (ret)
		return ret;
	return linux_start(boot, h, entry, err);
}
