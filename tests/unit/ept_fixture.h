/*
 * The fixture's vCPU in VMX non-root operation, VPID 1: guest-physical addresses are OFFSET below
 * the RAM that EPT gives them, from 0 to 64 KiB. One page is mapped besides, LINEAR to PAGE, by the
 * guest's tables in G1 (PML4) to G4.
 */
#ifndef GUISE_TESTS_EPT_FIXTURE_H
#define GUISE_TESTS_EPT_FIXTURE_H

#include "engine/soft/mmu/ept.h"
#include "tests/unit/soft_fixture.h"

#define OFFSET	  0x400000ull
#define PHYS(gpa) ((gpa) + OFFSET)
#define LINEAR	  0x123456789000ull
/* With a PML4 entry of EPT's for itself */
#define PAGE	   0x8000555000ull
#define PAGE_PHYS  0x955000ull
#define G1	   0x1000ull
#define G2	   0x2000ull
#define G3	   0x3000ull
#define G4	   0x4000ull
#define EPT_TABLES 0xa00000ull /* address of EPT's PML4 */
#define EPTP	   (EPT_TABLES | 3 << 3 | 6)
#define RWX	   (EPT_READ | EPT_WRITE | EPT_EXEC)
#define WB	   (6 << 3)

/** cmocka set-up; fixture_teardown() ends it. */
int ept_fixture_setup(void **state);
/** The tables as the set-up makes them; EPTP without accessed and dirty flags. */
void ept_fixture_reset(void);
/** To EPTP | @ad, from another EPTP or from root operation. */
void ept_fixture_enter(u64 ad);
/** To root operation. */
void ept_fixture_leave(void);

/** The guest's entry of @level (4: PML4) for @linear; the tables above are made if they are
 * missing. */
u64 *guest_entry(u64 linear, u32 level);
/** EPT's, for @gpa. */
u64 *ept_entry(u64 gpa, u32 level);

#endif
