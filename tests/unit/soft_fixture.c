#include "tests/unit/soft_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/exception.h"

struct fixture *fixture;

#define TABLES 0x100000ull /* PML4; further tables follow */

static u64 next_table;

/* ---- the rest of the engine ---- */

static _Noreturn void go_back(enum ending ending)
{
	if (fixture->vectors)
		__asm__ volatile(YMM_ALL(YMM_STORE, "%0") : : "r"(fixture->vectors) : "memory");
	longjmp(fixture->back, ending);
}

static _Noreturn void raised(u8 vector, bool has_error, u32 error)
{
	fixture->vector = vector;
	fixture->has_error = has_error;
	fixture->error = error;
	go_back(RAISED);
}

_Noreturn void raise(struct soft_vcpu *v, u8 vector)
{
	raised(vector, false, 0);
}

_Noreturn void raise_error(struct soft_vcpu *v, u8 vector, u32 error)
{
	raised(vector, true, error);
}

_Noreturn void raise_pf(struct soft_vcpu *v, u64 linear, u32 error)
{
	fixture->cr2 = linear;
	raised(EXC_PF, true, error);
}

_Noreturn void vcpu_exit(struct soft_vcpu *v)
{
	go_back(EXITED);
}

_Noreturn void vcpu_resume(struct soft_vcpu *v)
{
	go_back(RESUMED);
}

bool vmx_log_full(const struct soft_vcpu *v)
{
	return false;
}

void vmx_log_page(struct soft_vcpu *v, u64 gpa)
{
}

_Noreturn void vmx_ept_fault(struct soft_vcpu *v)
{
	go_back(EPT_FAULT);
}

bool irqchip_mmio(struct soft_vcpu *v, u64 gpa, u32 size, u64 *value, bool write)
{
	return false;
}

bool irqchip_port(struct soft_vcpu *v, u16 port, u32 size, u32 *value, bool write)
{
	return false;
}

void blocks_invalidate(struct soft_vcpu *v, u64 gpa, u32 size)
{
	fixture->invalidations++;
	fixture->invalidated_gpa = gpa;
	fixture->invalidated_size = size;
}

/* One breakpoint of one byte, DR0, of the kind in R/W0. */
static u64 data_hit(const struct soft_vcpu *v, u64 linear, u32 size)
{
	bool data = v->dr7 & BIT(16);

	return data && linear <= v->dr[0] && v->dr[0] < linear + size ? 1 : 0;
}

void debug_note_access(struct soft_vcpu *v, u64 linear, u32 size, bool write)
{
	v->events.debug |= data_hit(v, linear, size);
}

u64 debug_port_hit(const struct soft_vcpu *v, u16 port, u32 size)
{
	return v->dr[0] == port ? 1 : 0;
}

bool debug_page_watched(const struct soft_vcpu *v, u64 linear)
{
	return data_hit(v, linear & PAGE_MASK, PAGE_SIZE);
}

/* ---- the machine ---- */

static u8 *pages(u64 size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture = f;
	f->v = (struct soft_vcpu *)pages(align_up(sizeof(*f->v), PAGE_SIZE));
	f->ram = pages(RAM_SIZE);
	f->rom = pages(PAGE_SIZE);
	f->vm.slots[0] = (struct memslot){.gpa = 0, .size = RAM_SIZE, .host = f->ram};
	f->vm.slots[0].page_flags = calloc(1, RAM_SIZE / PAGE_SIZE);
	f->vm.slots[0].writers = calloc(RAM_SIZE / PAGE_SIZE, sizeof(u16));
	f->vm.slots[1] = (struct memslot){
	    .gpa = ROM_BASE, .size = PAGE_SIZE, .host = f->rom, .flags = KVM_MEM_READONLY};
	f->vm.slot_count = 2;

	struct soft_vcpu *v = f->v;

	v->vm = &f->vm;
	v->base.run = (struct kvm_run *)pages(2 * PAGE_SIZE);
	v->reserved_pa = 0x000fff0000000000ull; /* MAXPHYADDR 40 */
	v->cr0 = CR0_PE;
	v->msr.efer = EFER_LME | EFER_LMA | EFER_NXE;
	v->cr4 = CR4_PAE;
	v->mode = MODE_CODE64 | MODE_FLAT | MODE_PE | MMU_KERNEL_AC << MODE_MMU_SHIFT;
	v->mmu_index = MMU_KERNEL_AC;
	v->rflags_sys = 2;
	vcpu_set_arith(v, 0);
	for (int k = 0; k < 6; k++)
		v->seg[k] = (struct segment){.limit = 0xffffffff,
					     .access = SEG_P | SEG_S | SEG_DB | SEG_G | 3};
	v->seg[SEG_CS].access = SEG_P | SEG_S | SEG_L | SEG_G | 0xb;
	v->tr = (struct segment){.access = SEG_UNUSABLE};
	memset(&f->vm.tune, true, sizeof(f->vm.tune));
	tlb_init(v);
	next_table = TABLES + PAGE_SIZE;
	return 0;
}

int fixture_teardown(void **state)
{
	struct fixture *f = fixture;

	free(f->vm.slots[0].page_flags);
	free(f->vm.slots[0].writers);
	munmap(f->v->base.run, 2 * PAGE_SIZE);
	munmap(f->v, align_up(sizeof(*f->v), PAGE_SIZE));
	munmap(f->ram, RAM_SIZE);
	munmap(f->rom, PAGE_SIZE);
	free(f);
	fixture = NULL;
	return 0;
}

void fixture_paging(void)
{
	fixture->v->cr0 |= CR0_PG | CR0_WP;
	fixture->v->cr3 = TABLES;
}

u64 *fixture_pte(u64 linear)
{
	u64 table = TABLES;

	for (int level = 4; level > 1; level--) {
		u64 *entry =
		    (u64 *)(fixture->ram + table) + ((linear >> (12 + 9 * (level - 1))) & 511);

		if (!*entry) {
			*entry = next_table | P | W | U;
			next_table += PAGE_SIZE;
		}
		table = *entry & 0xffffff000;
	}
	return (u64 *)(fixture->ram + table) + ((linear >> 12) & 511);
}

void fixture_map(u64 linear, u64 gpa, u64 flags)
{
	*fixture_pte(linear) = gpa | flags;
}

void fixture_protected(u32 code)
{
	struct soft_vcpu *v = fixture->v;

	v->msr.efer = 0;
	v->cr4 = 0;
	v->mode = code | MODE_PE | v->mmu_index << MODE_MMU_SHIFT;
	v->seg[SEG_CS].access = SEG_P | SEG_S | SEG_DB | SEG_G | 0xb;
}

u32 blocks_cut_far(struct soft_vcpu *v)
{
	return 0;
}

void vcpu_update_mode(struct soft_vcpu *v)
{
}
