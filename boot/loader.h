/* What the loaders share: one function to recognise a kind of image, one to load it. */
#ifndef GUISE_BOOT_LOADER_H
#define GUISE_BOOT_LOADER_H

#include "boot/boot.h"
#include "boot/file.h"
#include "boot/layout.h"

/* So much of the file's beginning is read before its kind is known. */
#define BOOT_HEAD_SIZE 65536u

struct elf_image;

struct boot_context {
	const struct boot_image_request *request;
	const char *cmdline; /* never NULL */
	struct boot_layout layout;
	struct boot_file kernel;
	const u8 *head; /* the first head_size bytes of the kernel file */
	u32 head_size;	/* BOOT_HEAD_SIZE, or the file's size if that is less */
	u64 rsdp;	/* gpa of the ACPI root pointer */
	struct boot_state *state;
};

bool linux_recognise(const struct boot_context *boot);
int linux_load(struct boot_context *boot, struct error *err);

bool elf_recognise(const struct boot_context *boot);
int elf_load(struct boot_context *boot, struct error *err);

/** Reads the segments of a parsed image into place; -ENOMEM, -ENOEXEC as boot_claim() has them. */
int elf_load_segments(struct boot_context *boot, const struct elf_image *elf, struct error *err);

/** Only images that Multiboot can load: ELF32, or with addresses in the header. */
bool multiboot_recognise(const struct boot_context *boot);
int multiboot_load(struct boot_context *boot, struct error *err);

int flat_load(struct boot_context *boot, struct error *err);

/**
 * Reads the initrd, if one was asked for, to the lowest, or with @highest the highest, page-aligned
 * room in [@min, @max). *@size is 0 without one. Returns 0 or a negative errno with @err (-ENOMEM:
 * does not fit, and how much memory is needed).
 */
int boot_load_initrd(struct boot_context *boot, u64 min, u64 max, bool highest, u64 *gpa, u64 *size,
		     struct error *err);

/** Puts the kernel's path in front of @err's text. Returns @ret, so that `return` reads well. */
int boot_blame(const struct boot_context *boot, int ret, struct error *err);

/** Places @text with its terminating zero in low memory. */
int boot_place_string(struct boot_context *boot, const char *text, const char *what, u64 *gpa,
		      struct error *err);

/** Places the boot GDT in low memory and sets flat 32-bit protected mode at @entry. */
int boot_enter_protected(struct boot_context *boot, u32 entry, struct error *err);

/** Places GDT and page tables in low memory and sets 64-bit mode at @entry. */
int boot_enter_long(struct boot_context *boot, u64 entry, struct error *err);

#endif
