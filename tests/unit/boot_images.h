/*
 * Images for the tests of boot/: made in memory, handed to the loader as files, and a machine to
 * load them into.
 */
#ifndef GUISE_TESTS_BOOT_IMAGES_H
#define GUISE_TESTS_BOOT_IMAGES_H

#include "base/error.h"
#include "boot/boot.h"
#include "memory/memory.h"

#define MIB (1ull << 20)

/* Bytes that grow; freed by bytes_free(). */
struct bytes {
	u8 *at;
	size_t size;
};

void bytes_put(struct bytes *b, size_t offset, const void *data, size_t size); /* grows as needed */
void bytes_put32(struct bytes *b, size_t offset, u32 value);
void bytes_free(struct bytes *b);

/* A file without a name: path is good until file_close(). */
struct test_file {
	int fd;
	char path[32];
};

struct test_file file_of(const void *data, size_t size);
void file_close(struct test_file *file);

/** Numbers that look random and are the same in every run. */
u32 next_random(u64 *seed);

/* What a load left behind. */
struct loaded {
	struct guest_memory memory;
	struct boot_state state;
	struct error err;
	int ret;
};

/** Loads @image into a new machine. Fields of @request but kernel_path are used as they are. */
struct loaded load_image(const struct bytes *image, struct boot_image_request request,
			 u64 memory_size);
void unload(struct loaded *loaded);

/** Host address of guest memory, which the test fails without. */
void *guest(struct loaded *loaded, u64 gpa, u64 size);

/* The kernel that the makers below build: where it lies and what it says. */
#define KERNEL_AT    (16 * MIB)
#define KERNEL_TEXT  (200u << 10) /* bytes of its first segment */
#define KERNEL_DATA  (20u << 10)  /* of its second, in the next MiB, followed by as much bss */
#define KERNEL_ENTRY (KERNEL_AT + 0x40)

/** What byte @offset of the first segment is. */
u8 kernel_text(u64 offset);

/** An ELF64 Linux. With @pvh_entry not 0, it has a PVH note. */
struct bytes make_vmlinux(u64 pvh_entry);

/** An ELF32 of one segment at 1 MiB, with a Multiboot header in it. */
struct bytes make_multiboot_elf(u32 flags);

/** Multiboot by addresses in its header, loaded at 2 MiB with 4 KiB of bss behind. */
struct bytes make_multiboot_raw(void);

enum packing { PACK_GZIP, PACK_BZIP2, PACK_LZMA, PACK_XZ, PACK_LZ4, PACK_ZSTD, PACK_UNKNOWN };
#define PACKINGS PACK_UNKNOWN

/** A bzImage with @payload packed in it. */
struct bytes make_bzimage(enum packing packing, const struct bytes *payload);

/* Offsets in it. */
#define BZ_PAYLOAD_OFFSET 0x300u  /* from the protected-mode part */
#define BZ_CODE		  0x1400u /* protected-mode part in the file: 9 setup sectors */

#endif
