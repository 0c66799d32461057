/* What a processor's registers and tables look like at an image's first instruction. */
#ifndef GUISE_BOOT_CPU_STATE_H
#define GUISE_BOOT_CPU_STATE_H

#include "boot/boot.h"

/* Selectors of the boot GDT; Linux wants just these (Documentation/arch/x86/boot.rst). */
#define BOOT_CS 0x10
#define BOOT_DS 0x18

#define BOOT_GDT_SIZE	   64 /* bytes at the address given as gdt */
#define BOOT_PAGING_TABLES 6  /* pages: PML4, PDPT and a page directory for each GiB */
#define BOOT_PAGING_SIZE   (BOOT_PAGING_TABLES * 4096ull)

/** Writes a GDT with flat code (32-bit, or 64-bit with @long_mode) and data. */
void boot_write_gdt(void *at, bool long_mode);

/** Writes tables at @at, which is @gpa in the guest (page-aligned), mapping 4 GiB to itself. */
void boot_write_paging(void *at, u64 gpa);

/** Real mode at CS:IP 0:0 with every segment at 0. */
void boot_state_real(struct boot_state *state);

/** 32-bit protected mode, flat, paging and interrupts off, at @entry. */
void boot_state_protected(struct boot_state *state, u64 gdt, u32 entry);

/** 64-bit mode on the tables at @cr3, interrupts off, at @entry. */
void boot_state_long(struct boot_state *state, u64 gdt, u64 cr3, u64 entry);

#endif
