#include "tests/unit/ept_fixture.h"

#include <string.h>

static u64 next_guest_table, next_ept_table;

/* The entry of @level for @address in tables whose addresses are @offset below their RAM. */
static u64 *table_entry(u64 table, u64 address, u32 level, u64 offset, u64 *next, u64 flags)
{
	for (u32 l = 4;; l--) {
		u64 *entry =
		    (u64 *)(fixture->ram + table + offset) + (address >> (12 + 9 * (l - 1)) & 511);

		if (l == level)
			return entry;
		if (!*entry) {
			*entry = *next | flags;
			*next += PAGE_SIZE;
		}
		table = *entry & 0xffffff000;
	}
}

u64 *guest_entry(u64 linear, u32 level)
{
	return table_entry(G1, linear, level, OFFSET, &next_guest_table, P | W | U);
}

u64 *ept_entry(u64 gpa, u32 level)
{
	return table_entry(EPT_TABLES, gpa, level, 0, &next_ept_table, RWX | EPT_EXEC_USER);
}

void ept_fixture_leave(void)
{
	struct soft_vcpu *v = fixture->v;

	mmu_leave(v);
	mmu_enter_root(v);
}

void ept_fixture_enter(u64 ad)
{
	struct nested_paging by = {.eptp = EPTP | ad, .vpid = 1};

	mmu_leave(fixture->v);
	mmu_enter_nonroot(fixture->v, &by);
}

void ept_fixture_reset(void)
{
	memset(fixture->ram + PHYS(G1), 0, 0x10000);
	memset(fixture->ram + EPT_TABLES, 0, 0x20000);
	next_guest_table = G2;
	next_ept_table = EPT_TABLES + PAGE_SIZE;
	for (u64 gpa = 0; gpa < 0x10000; gpa += PAGE_SIZE)
		*ept_entry(gpa, 1) = PHYS(gpa) | RWX | WB;
	*guest_entry(LINEAR, 1) = PAGE | P | W | U;
	*ept_entry(PAGE, 1) = PAGE_PHYS | RWX | WB;
	mmu_invept(fixture->v, true, 0);
	mmu_invvpid_all(fixture->v);
	ept_fixture_enter(0);
}

int ept_fixture_setup(void **state)
{
	fixture_setup(state);
	fixture->v->cr0 |= CR0_PG | CR0_WP;
	fixture->v->cr3 = G1;
	ept_fixture_reset();
	return 0;
}
