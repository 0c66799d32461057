/* Reading ELF files: headers, segments and notes, with every offset checked. */
#ifndef GUISE_BOOT_ELF_IMAGE_H
#define GUISE_BOOT_ELF_IMAGE_H

#include "base/types.h"

struct error;

#define ELF_SEGMENTS_MAX 64

struct elf_segment {
	u64 offset, file_size; /* in the file; offset + file_size does not overflow */
	u64 gpa, size;	       /* in memory: physical address; size >= file_size, no overflow */
	u64 virt;
	u64 align;
};

struct elf_image {
	bool is64;
	u64 entry; /* as the header has it */
	u32 segment_count, note_count;
	struct elf_segment segments[ELF_SEGMENTS_MAX]; /* to be loaded, none of size 0 */
	struct elf_segment notes[4];
};

/** Whether @head begins like any ELF file. */
bool elf_is(const u8 *head, size_t size);

/**
 * Reads the headers of an x86 ELF executable from its first @head_size bytes. @file_size: all of
 * it; segments reach no further. Returns 0, or with @err -ENOEXEC (not for this machine, not
 * executable, too many segments) or -EBADMSG (offsets that cannot be).
 */
int elf_parse(struct elf_image *elf, const u8 *head, size_t head_size, u64 file_size,
	      struct error *err);

/**
 * The physical address of the entry: the header's value is that already (Linux), or a virtual
 * address of a segment. Returns false if it is in no segment.
 */
bool elf_entry(const struct elf_image *elf, u64 *gpa);

/** Whether @gpa is in the part of a segment that comes from the file. */
bool elf_holds(const struct elf_image *elf, u64 gpa);

/**
 * Looks in the note segment bytes @data for the note @name, @type and copies its 4- or 8-byte
 * number to *@value. @align: of the segment, 4 or 8. Returns false if there is none.
 */
bool elf_note(const u8 *data, size_t size, u64 align, const char *name, u32 type, u64 *value);

#endif
