#include "boot/cpu_state.h"

#include <string.h>

/* Control register and EFER bits (SDM vol. 3A 2.5, 2.2.1). */
#define CR0_PE	 BIT(0)
#define CR0_ET	 BIT(4)
#define CR0_PG	 BIT(31)
#define CR4_PAE	 BIT(5)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)

/* Page table entries (SDM vol. 3A 4.5.4). Accessed and dirty are set, so walks write nothing. */
#define PTE_TABLE 0x023ull /* present, writable, accessed */
#define PTE_2MB	  0x0e3ull /* the same, dirty, 2 MiB page */

/* Descriptors (SDM vol. 3A 3.4.5), accessed, base 0, limit 4 GiB. */
#define GDT_CODE32 0x00cf9b000000ffffull
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_DATA   0x00cf93000000ffffull

#define RFLAGS_FIXED 0x2

void boot_write_gdt(void *at, bool long_mode)
{
	u64 gdt[BOOT_GDT_SIZE / 8] = {
	    [BOOT_CS / 8] = long_mode ? GDT_CODE64 : GDT_CODE32,
	    [BOOT_DS / 8] = GDT_DATA,
	};
	memcpy(at, gdt, sizeof(gdt));
}

void boot_write_paging(void *at, u64 gpa)
{
	u64 *pml4 = at, *pdpt = pml4 + 512, *directories = pdpt + 512;
	memset(at, 0, BOOT_PAGING_SIZE);
	pml4[0] = (gpa + 0x1000) | PTE_TABLE;
	for (u64 gib = 0; gib < 4; gib++)
		pdpt[gib] = (gpa + 0x2000 + gib * 0x1000) | PTE_TABLE;
	for (u64 page = 0; page < 4 * 512; page++)
		directories[page] = (page << 21) | PTE_2MB;
}

static void reset_regs(struct boot_state *state, u64 entry)
{
	state->regs = (struct kvm_regs){.rip = entry, .rflags = RFLAGS_FIXED};
}

static void set_data_segments(struct boot_state *state, struct kvm_segment data)
{
	struct kvm_sregs *sregs = &state->sregs;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
}

void boot_state_real(struct boot_state *state)
{
	/* Limits and rights of real mode (SDM vol. 3A 9.1.4, 20.1.1). */
	struct kvm_segment data = {.limit = 0xffff, .type = 0x3, .s = 1, .present = 1};
	struct kvm_segment code = data;
	code.type = 0xb;
	reset_regs(state, 0);
	state->sregs.cs = code;
	set_data_segments(state, data);
	state->sregs.cr0 = CR0_ET;
}

static void set_flat(struct boot_state *state, u64 gdt, bool long_mode)
{
	struct kvm_sregs *sregs = &state->sregs;
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = BOOT_DS,
				   .type = 0x3,
				   .s = 1,
				   .present = 1,
				   .db = 1,
				   .g = 1};
	struct kvm_segment code = data;
	code.selector = BOOT_CS;
	code.type = 0xb;
	code.db = !long_mode;
	code.l = long_mode;
	sregs->cs = code;
	set_data_segments(state, data);
	/* PVH wants a TSS of limit 0x67 at 0; VMX wants it busy (SDM vol. 3C 26.3.1.2). */
	sregs->tr = (struct kvm_segment){.limit = 0x67, .type = 0xb, .present = 1};
	sregs->gdt = (struct kvm_dtable){.base = gdt, .limit = BOOT_GDT_SIZE - 1};
	/* No interrupt table: an exception before the guest sets one is a shutdown, not a wild
	 * jump. */
	sregs->idt = (struct kvm_dtable){0};
}

void boot_state_protected(struct boot_state *state, u64 gdt, u32 entry)
{
	reset_regs(state, entry);
	set_flat(state, gdt, false);
	state->sregs.cr0 = CR0_PE | CR0_ET;
	state->sregs.cr3 = 0;
	state->sregs.cr4 = 0;
	state->sregs.efer = 0;
}

void boot_state_long(struct boot_state *state, u64 gdt, u64 cr3, u64 entry)
{
	reset_regs(state, entry);
	set_flat(state, gdt, true);
	state->sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
	state->sregs.cr3 = cr3;
	state->sregs.cr4 = CR4_PAE;
	state->sregs.efer = EFER_LME | EFER_LMA;
}
