/* Extended page tables: what the two walks give together, what is refused and with which exit
 * qualification, accessed and dirty flags. SDM 3C 29.3, table 28-7. */
#include "tests/unit/ept_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RD ACCESS_READ
#define WR ACCESS_WRITE
#define EX ACCESS_EXEC

#define QUAL_FINAL (EPT_QUAL_LINEAR | EPT_QUAL_FINAL)
/* What 11:9 say of the fixture's page: user, writable, not NX */
#define QUAL_PAGE (EPT_QUAL_USER | EPT_QUAL_WRITABLE)

static struct soft_vcpu *vcpu(void)
{
	return fixture->v;
}

/* An access by C at LINEAR + 0x123; how it ended. */
static enum ending touch(enum access access)
{
	struct soft_vcpu *v = vcpu();
	u64 gpa;
	u8 byte = 0;

	memset(&v->ept_fault, 0, sizeof(v->ept_fault));
	if (access == EX)
		return RUN(mmu_fetch(v, LINEAR + 0x123, &gpa));
	if (access == WR)
		return RUN(mem_write_linear(v, LINEAR + 0x123, &byte, 1, v->mmu_index, false));
	return RUN(mem_read_linear(v, LINEAR + 0x123, &byte, 1, v->mmu_index, false));
}

static void expect_violation(enum access access, u64 gpa, u64 qualification)
{
	const struct ept_fault *f = &vcpu()->ept_fault;

	assert_int_equal(touch(access), EPT_FAULT);
	assert_int_equal(f->kind, EPT_VIOLATION);
	assert_int_equal(f->gpa, gpa);
	assert_int_equal(f->linear, LINEAR + 0x123);
	if (f->qualification != qualification)
		fail_msg("qualification %#lx, not %#lx", f->qualification, qualification);
}

static void expect_misconfiguration(enum access access, u64 gpa)
{
	const struct ept_fault *f = &vcpu()->ept_fault;

	assert_int_equal(touch(access), EPT_FAULT);
	assert_int_equal(f->kind, EPT_MISCONFIGURATION);
	assert_int_equal(f->gpa, gpa);
	assert_int_equal(f->qualification, 0);
}

/* Forgets translations, as a hypervisor does behind changes of its tables. */
static void forget(void)
{
	mmu_invept(vcpu(), true, 0);
}

/* ---- what comes out ---- */

static void test_plain(void **state)
{
	struct soft_vcpu *v = vcpu();
	struct walk w = {.linear = LINEAR + 0x123};

	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, true), 0);
	assert_int_equal(w.gpa, PAGE_PHYS + 0x123);
	assert_int_equal(w.page_size, PAGE_SIZE);
	/* Once more from what is remembered. */
	w.gpa = 0;
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, true), 0);
	assert_int_equal(w.gpa, PAGE_PHYS + 0x123);
	fixture->ram[PAGE_PHYS + 0x123] = 0x5a;
	u8 byte = 0;
	mem_read_linear(v, LINEAR + 0x123, &byte, 1, MMU_KERNEL_AC, false);
	assert_int_equal(byte, 0x5a);
	byte = 0xa5;
	mem_write_linear(v, LINEAR + 0x123, &byte, 1, MMU_KERNEL_AC, false);
	assert_int_equal(fixture->ram[PAGE_PHYS + 0x123], 0xa5);
	assert_ptr_equal(tlb_lookup(v, LINEAR, 8, true, MMU_KERNEL_AC), fixture->ram + PAGE_PHYS);
}

/* Pages of each size on both sides: the smaller one counts, INVLPG goes by the guest's. */
static void test_sizes(void **state)
{
	static const struct {
		u32 guest, ept; /* level of the leaf */
		u64 linear, base, physical, expected;
	} cases[] = {
	    {1, 1, LINEAR | 0x678, PAGE, PAGE_PHYS, PAGE_PHYS | 0x678},
	    {1, 2, LINEAR | 0x678, 0x655000, 0x800000, 0x855678},
	    {1, 3, LINEAR | 0x678, 0x40555000, 0, 0x555678},
	    {2, 1, (LINEAR & ~0x1fffffull) | 0x55678, 0x600000, PHYS(0x655000), PHYS(0x655678)},
	    {2, 2, (LINEAR & ~0x1fffffull) | 0x55678, 0x600000, 0x800000, 0x855678},
	    {2, 3, (LINEAR & ~0x1fffffull) | 0x55678, 0x40600000, 0, 0x655678},
	    {3, 1, (LINEAR & ~0x3fffffffull) | 0x655678, 0x40000000, 0x955000, 0x955678},
	    {3, 2, (LINEAR & ~0x3fffffffull) | 0x655678, 0x40000000, 0xc00000, 0xc55678},
	    {3, 3, (LINEAR & ~0x3fffffffull) | 0x655678, 0x40000000, 0, 0x655678},
	};

	for (u32 k = 0; k < ARRAY_SIZE(cases); k++)
		for (u32 tries = 0; tries < 2; tries++) {
			u32 guest = cases[k].guest;
			u64 in_page = cases[k].linear & (BIT(12 + 9 * (guest - 1)) - 1);
			u64 gpa = (cases[k].base & ~(BIT(12 + 9 * (guest - 1)) - 1)) | in_page;
			struct walk w = {.linear = cases[k].linear};

			ept_fixture_reset();
			*guest_entry(cases[k].linear, guest) =
			    cases[k].base | P | W | U | (guest > 1 ? PS : 0);
			*ept_entry(gpa, cases[k].ept) =
			    cases[k].physical | RWX | WB | (cases[k].ept > 1 ? EPT_LARGE : 0);
			for (u32 round = 0; round < 2; round++) {
				if (mmu_walk(vcpu(), &w, RD, MMU_USER, true))
					fail_msg("case %u fails", k);
				if (w.gpa != cases[k].expected)
					fail_msg("case %u: %#lx, not %#lx", k, w.gpa,
						 cases[k].expected);
				assert_int_equal(w.page_size, BIT(12 + 9 * (guest - 1)));
			}
		}
}

/* A page that 32 bits reach */
#define LOW 0x8000ull

static void test_no_paging(void **state)
{
	struct soft_vcpu *v = vcpu();
	u64 gpa, linear = LOW + 0x10;
	u32 value = 0;

	v->cr0 = CR0_PE;
	*(u32 *)(fixture->ram + PHYS(LOW) + 0x10) = 0x12345678;
	mem_read_linear(v, linear, &value, 4, MMU_KERNEL_AC, false);
	assert_int_equal(value, 0x12345678);
	assert_ptr_equal(mmu_fetch(v, linear, &gpa), fixture->ram + PHYS(LOW) + 0x10);
	assert_int_equal(gpa, PHYS(LOW) + 0x10);
	/* Without paging linear addresses are user-mode, writable and executable (table 28-7). */
	*ept_entry(LOW, 1) = 0;
	forget();
	assert_int_equal(RUN(mem_read_linear(v, linear, &value, 4, MMU_KERNEL_AC, false)),
			 EPT_FAULT);
	assert_int_equal(v->ept_fault.qualification, QUAL_FINAL | QUAL_PAGE | EPT_READ);
}

/* 32-bit and PAE paging go through EPT at every step, too. */
static void test_narrow(void **state)
{
	struct soft_vcpu *v = vcpu();
	struct walk w = {.linear = 0x00403123};

	v->msr.efer = 0;
	v->cr4 = 0;
	*(u32 *)(fixture->ram + PHYS(G1) + 4) = (u32)G2 | 7;
	*(u32 *)(fixture->ram + PHYS(G2) + 3 * 4) = (u32)LOW | 7;
	assert_int_equal(mmu_walk(v, &w, RD, MMU_USER, true), 0);
	assert_int_equal(w.gpa, PHYS(LOW) + 0x123);
	*ept_entry(G2, 1) &= ~EPT_READ & ~EPT_WRITE;
	forget();
	assert_int_equal(mmu_walk(v, &w, RD, MMU_USER, true), -EFAULT);
	assert_true(w.ept);
	assert_int_equal(v->ept_fault.gpa, G2 + 3 * 4);
	assert_int_equal(v->ept_fault.qualification, EPT_QUAL_LINEAR | EPT_READ | EPT_EXEC << 3);
}

static void test_pae(void **state)
{
	struct soft_vcpu *v = vcpu();
	struct walk w = {.linear = 0x00403123};
	u64 *pdpt = (u64 *)(fixture->ram + PHYS(G1) + 0x20);

	v->msr.efer = EFER_NXE;
	v->cr4 = CR4_PAE;
	pdpt[0] = G2 | P;
	*(u64 *)(fixture->ram + PHYS(G2) + 2 * 8) = G3 | 7;
	*(u64 *)(fixture->ram + PHYS(G3) + 3 * 8) = LOW | 7;
	/* Read-only tables do for loading PDPTEs, whatever EPTP says of dirty flags. */
	ept_fixture_enter(EPTP_AD);
	*ept_entry(G1, 1) = PHYS(G1) | EPT_READ | WB;
	assert_int_equal(mmu_load_pdptrs(v, G1 + 0x20), 0);
	assert_int_equal(v->pdptr[0], G2 | P);
	assert_int_equal(*ept_entry(G1, 1) & (EPT_ACCESSED | EPT_DIRTY), EPT_ACCESSED);
	assert_int_equal(mmu_walk(v, &w, RD, MMU_USER, true), 0);
	assert_int_equal(w.gpa, PHYS(LOW) + 0x123);
	pdpt[1] = BIT(5) | P;
	assert_int_equal(mmu_load_pdptrs(v, G1 + 0x20), -EINVAL);
	*ept_entry(G1, 1) = PHYS(G1) | EPT_EXEC | WB;
	forget();
	assert_int_equal(mmu_load_pdptrs(v, G1 + 0x20), -EFAULT);
	assert_int_equal(v->ept_fault.gpa, G1 + 0x20);
	assert_int_equal(v->ept_fault.qualification, EPT_READ | EPT_EXEC << 3);
	assert_int_equal(v->pdptr[0], G2 | P);
}

/* What EPT leads to may be a device, or read-only. */
static void test_mmio(void **state)
{
	struct soft_vcpu *v = vcpu();
	u32 value = 0x11223344;

	*ept_entry(PAGE, 1) = NO_RAM | RWX;
	assert_int_equal(RUN(mem_read_linear(v, LINEAR + 8, &value, 4, MMU_USER, false)), EXITED);
	assert_int_equal(v->base.run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(v->base.run->mmio.phys_addr, NO_RAM + 8);
	*ept_entry(PAGE, 1) = ROM_BASE | RWX | WB;
	forget();
	*(u32 *)(fixture->rom + 8) = 0x55667788;
	ASSERT_ENDS(mem_read_linear(v, LINEAR + 8, &value, 4, MMU_USER, false));
	assert_int_equal(value, 0x55667788);
	assert_null(tlb_lookup(v, LINEAR, 1, true, MMU_USER));
}

/* ---- what is refused ---- */

/* Rights at one level, all at the others, for each access; 0 stands for the entry not present. */
static void test_rights(void **state)
{
	static const u64 needed[] = {[RD] = EPT_READ, [WR] = EPT_WRITE, [EX] = EPT_EXEC};
	static const u64 rights[] = {
	    0, EPT_READ, EPT_EXEC, EPT_READ | EPT_WRITE, EPT_READ | EPT_EXEC, RWX};

	for (u32 level = 1; level <= 4; level++)
		for (u32 k = 0; k < ARRAY_SIZE(rights); k++)
			for (enum access access = RD; access <= EX; access++) {
				u64 *entry;

				ept_fixture_reset();
				*guest_entry(LINEAR, 1) |= A | D;
				entry = ept_entry(PAGE, level);
				*entry = (*entry & ~(u64)RWX) | rights[k];
				if (rights[k] & needed[access])
					assert_int_equal(touch(access), ENDED);
				else
					expect_violation(access, PAGE + 0x123,
							 QUAL_FINAL | QUAL_PAGE | needed[access] |
							     rights[k] << 3);
				if (!(rights[k] & EPT_WRITE))
					assert_null(
					    tlb_lookup(vcpu(), LINEAR, 1, true, MMU_KERNEL_AC));
			}
}

/* Of all levels what they have in common. */
static void test_rights_anded(void **state)
{
	*ept_entry(PAGE, 4) &= ~EPT_EXEC;
	*ept_entry(PAGE, 2) = (*ept_entry(PAGE, 2) & ~EPT_WRITE);
	assert_int_equal(touch(RD), ENDED);
	expect_violation(WR, PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_WRITE | EPT_READ << 3);
	expect_violation(EX, PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_EXEC | EPT_READ << 3);
}

/* 11:9 tell of the guest's tables. */
static void test_advanced_information(void **state)
{
	*ept_entry(PAGE, 1) = 0;
	*guest_entry(LINEAR, 1) = PAGE | P | NX;
	expect_violation(RD, PAGE + 0x123, QUAL_FINAL | EPT_READ | EPT_QUAL_NX);
	*guest_entry(LINEAR, 1) = PAGE | P | W;
	expect_violation(RD, PAGE + 0x123, QUAL_FINAL | EPT_READ | EPT_QUAL_WRITABLE);
	*guest_entry(LINEAR, 1) = PAGE | P | U;
	expect_violation(RD, PAGE + 0x123, QUAL_FINAL | EPT_READ | EPT_QUAL_USER);
}

static void test_execute_only(void **state)
{
	u64 gpa;

	*ept_entry(PAGE, 1) = PAGE_PHYS | EPT_EXEC | WB;
	assert_ptr_equal(mmu_fetch(vcpu(), LINEAR, &gpa), fixture->ram + PAGE_PHYS);
	expect_violation(RD, PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_READ | EPT_EXEC << 3);
	/* That did not make the page's code unknown for long. */
	assert_ptr_equal(mmu_fetch(vcpu(), LINEAR, &gpa), fixture->ram + PAGE_PHYS);
}

static void test_mode_based_execute(void **state)
{
	struct nested_paging by = {.eptp = EPTP, .vpid = 1, .mbec = true};

	ept_fixture_leave();
	mmu_leave(vcpu());
	mmu_enter_nonroot(vcpu(), &by);
	/* The page is user-mode: EPT_EXEC does not count, whoever fetches. */
	*ept_entry(PAGE, 1) = PAGE_PHYS | EPT_READ | EPT_EXEC | WB;
	expect_violation(EX, PAGE + 0x123,
			 QUAL_FINAL | QUAL_PAGE | EPT_EXEC | (EPT_READ | EPT_EXEC) << 3);
	*ept_entry(PAGE, 1) = PAGE_PHYS | EPT_EXEC_USER | WB; /* present by that alone */
	assert_int_equal(touch(EX), ENDED);
	expect_violation(RD, PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_READ | EPT_QUAL_EXEC_USER);
	/* Supervisor-mode */
	*guest_entry(LINEAR, 1) &= ~(u64)U;
	forget();
	expect_violation(EX, PAGE + 0x123,
			 QUAL_FINAL | EPT_QUAL_WRITABLE | EPT_EXEC | EPT_QUAL_EXEC_USER);
	*ept_entry(PAGE, 1) |= EPT_EXEC;
	assert_int_equal(touch(EX), ENDED);
}

/* 29.3.3.1, for each access: reads, writes and fetches do not differ. */
static void test_misconfigurations(void **state)
{
	struct {
		u32 level;
		bool large;
		u64 clear, set;
	} cases[128];
	u32 count = 0;

#define CASE(...)                                                                                  \
	cases[count++] = (typeof(cases[0]))                                                        \
	{                                                                                          \
		__VA_ARGS__                                                                        \
	}
	for (u32 level = 1; level <= 4; level++) {
		CASE(level, false, RWX, EPT_WRITE);
		CASE(level, false, RWX, EPT_WRITE | EPT_EXEC);
		for (u32 bit = 40; bit <= 51; bit++) /* MAXPHYADDR is 40 */
			CASE(level, false, 0, BIT(bit));
	}
	for (u32 level = 2; level <= 4; level++)
		for (u32 bit = 3; bit <= 6; bit++)
			CASE(level, false, 0, BIT(bit));
	CASE(4, false, 0, BIT(7));
	for (u32 bit = 12; bit <= 20; bit++)
		CASE(2, true, 0, BIT(bit));
	for (u32 bit = 12; bit <= 29; bit++)
		CASE(3, true, 0, BIT(bit));
	for (u32 level = 1; level <= 3; level++) {
		CASE(level, level > 1, 0x38, 2 << 3);
		CASE(level, level > 1, 0x38, 3 << 3);
		CASE(level, level > 1, 0x38, 7 << 3);
	}
#undef CASE
	assert_true(count <= ARRAY_SIZE(cases));

	for (u32 k = 0; k < count; k++)
		for (enum access access = RD; access <= EX; access++) {
			u32 level = cases[k].level;
			u64 *entry;

			ept_fixture_reset();
			entry = ept_entry(PAGE, level);
			if (cases[k].large)
				*entry = EPT_LARGE | RWX | WB;
			*entry = (*entry & ~cases[k].clear) | cases[k].set;
			expect_misconfiguration(access, PAGE + 0x123);
			/* Bits of an entry that is not present mean nothing. */
			*entry &= ~(u64)RWX;
			forget();
			assert_int_equal(touch(access), EPT_FAULT);
			assert_int_equal(vcpu()->ept_fault.kind, EPT_VIOLATION);
		}
}

/* Memory types 0, 1, 4, 5, 6; IPAT; what is ignored. */
static void test_no_misconfigurations(void **state)
{
	static const u64 ignored[] = {BIT(3),  BIT(4) | BIT(3), 5 << 3,	 6 << 3,  BIT(6),
				      BIT(7),  BIT(8),		BIT(9),	 BIT(10), BIT(11),
				      BIT(52), BIT(57),		BIT(60), BIT(63)};

	for (u32 k = 0; k < ARRAY_SIZE(ignored); k++) {
		if (ignored[k] == (BIT(4) | BIT(3))) /* type 3 */
			continue;
		ept_fixture_reset();
		*ept_entry(PAGE, 1) = PAGE_PHYS | RWX | ignored[k];
		for (enum access access = RD; access <= EX; access++)
			assert_int_equal(touch(access), ENDED);
		if (ignored[k] < BIT(8))
			continue;
		for (u32 level = 2; level <= 4; level++) {
			ept_fixture_reset();
			*ept_entry(PAGE, level) |= ignored[k];
			assert_int_equal(touch(RD), ENDED);
		}
	}
}

/* Four levels translate 48 bits. */
static void test_far_address(void **state)
{
	vcpu()->reserved_pa = 0;
	*guest_entry(LINEAR, 1) = PAGE | BIT(48) | P | W | U;
	expect_violation(RD, BIT(48) + PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_READ);
}

/* Tables in no memory read as all ones: bits that are reserved. */
static void test_tables_nowhere(void **state)
{
	*ept_entry(PAGE, 3) = NO_RAM | RWX;
	expect_misconfiguration(RD, PAGE + 0x123);
}

/* ---- the guest's tables ---- */

struct table_case {
	const char *name;
	u64 ad;	    /* EPTP_AD, or 0 */
	u64 rights; /* EPT's for the page of the guest's last table */
	u64 marks;  /* A and D of the guest's last entry */
	enum access access;
	u64 qualification; /* 0: allowed */
};

#define RW (EPT_READ | EPT_WRITE)

/* clang-format off */
/* One case a line. What EPT_READ allows is in bit 3. */
static const struct table_case table_cases[] = {
	{"not present, read", 0, 0, A | D, RD, EPT_READ},
	{"not present, write", 0, 0, A | D, WR, EPT_READ},
	{"not present, fetch", 0, 0, A | D, EX, EPT_READ},
	{"not present, A/D", EPTP_AD, 0, A | D, RD, RW},
	{"not present, A/D, fetch", EPTP_AD, 0, A | D, EX, RW},
	{"execute-only", 0, EPT_EXEC, A | D, RD, EPT_READ | EPT_EXEC << 3},
	{"read-only, A to set for a read", 0, EPT_READ, 0, RD, RW | EPT_READ << 3},
	{"read-only, A to set for a write", 0, EPT_READ, 0, WR, RW | EPT_READ << 3},
	{"read-only, A to set for a fetch", 0, EPT_READ, 0, EX, RW | EPT_READ << 3},
	{"read-only, A set, read", 0, EPT_READ, A, RD, 0},
	{"read-only, D to set", 0, EPT_READ, A, WR, RW | EPT_READ << 3},
	{"read-only, A set, fetch", 0, EPT_READ, A, EX, 0},
	{"read-only, A and D set", 0, EPT_READ, A | D, WR, 0},
	{"read-only, A/D: every access is a write", EPTP_AD, EPT_READ, A | D, RD, RW | EPT_READ << 3},
	{"read-only, A/D, fetch", EPTP_AD, EPT_READ, A | D, EX, RW | EPT_READ << 3},
	{"read-execute, A to set", 0, EPT_READ | EPT_EXEC, 0, RD, RW | (EPT_READ | EPT_EXEC) << 3},
	{"writable", 0, RW, 0, WR, 0},
	{"writable, A/D", EPTP_AD, RW, 0, WR, 0},
};
/* clang-format on */

static void test_guest_tables(void **state)
{
	for (u32 k = 0; k < ARRAY_SIZE(table_cases); k++)
		for (u32 remembered = 0; remembered < 2; remembered++) {
			const struct table_case *c = &table_cases[k];
			u64 *pte;

			ept_fixture_reset();
			ept_fixture_enter(c->ad);
			pte = guest_entry(LINEAR, 1);
			*pte |= c->marks;
			for (u32 level = 2; level <= 4; level++)
				*guest_entry(LINEAR, level) |= A;
			*ept_entry(G4, 1) = PHYS(G4) | c->rights | WB;
			if (remembered) /* other entries of the same table */
				mmu_walk(vcpu(), &(struct walk){.linear = LINEAR + PAGE_SIZE}, RD,
					 MMU_KERNEL_AC, true);
			if (!c->qualification) {
				if (touch(c->access) != ENDED || !(*pte & A))
					fail_msg("%s: refused", c->name);
				continue;
			}
			u64 gpa = (u64)((u8 *)pte - fixture->ram) - OFFSET;
			const struct ept_fault *f = &vcpu()->ept_fault;

			if (touch(c->access) != EPT_FAULT || f->gpa != gpa ||
			    f->linear != LINEAR + 0x123 ||
			    f->qualification != (EPT_QUAL_LINEAR | c->qualification))
				fail_msg("%s: qualification %#lx for %#lx", c->name,
					 f->qualification, f->gpa);
			assert_int_equal(*pte & (A | D), c->marks);
		}
}

/* 29.3.3.3: in the order of the walk. */
static void test_priorities(void **state)
{
	struct soft_vcpu *v = vcpu();
	u64 value;

	/* A page fault of the guest's own before EPT's refusal of the page */
	*ept_entry(PAGE, 1) = 0;
	*guest_entry(LINEAR, 1) = PAGE | P | U;
	ASSERT_RAISES(EXC_PF, PF_P | PF_W,
		      mem_write_linear(v, LINEAR, &value, 8, MMU_KERNEL_AC, false));
	/* EPT's refusal of a table before what its entries say */
	*guest_entry(LINEAR, 1) = 0;
	*ept_entry(G4, 1) = 0;
	forget();
	expect_violation(RD, G4 + (LINEAR >> 12 & 511) * 8, EPT_QUAL_LINEAR | EPT_READ);
	/* an entry higher up that is not present before that */
	*guest_entry(LINEAR, 2) = 0;
	ASSERT_RAISES(EXC_PF, 0, mem_read_linear(v, LINEAR, &value, 8, MMU_KERNEL_AC, false));
	/* a misconfiguration in the last entry before rights of the first */
	ept_fixture_reset();
	*ept_entry(PAGE, 4) &= ~EPT_READ & ~EPT_WRITE;
	*ept_entry(PAGE, 1) |= 2 << 3 | 1 << 3; /* WB is 6: type 7 */
	expect_misconfiguration(RD, PAGE + 0x123);
	/* but not before an entry that is not present */
	*ept_entry(PAGE, 4) &= ~(u64)RWX;
	expect_violation(RD, PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_READ);
}

/* ---- accessed and dirty flags ---- */

static u64 marks(u64 gpa, u32 level)
{
	return *ept_entry(gpa, level) & (EPT_ACCESSED | EPT_DIRTY);
}

static void test_accessed_dirty(void **state)
{
	struct soft_vcpu *v = vcpu();

	ept_fixture_enter(EPTP_AD);
	assert_int_equal(touch(RD), ENDED);
	for (u32 level = 1; level <= 4; level++)
		assert_int_equal(marks(PAGE, level), EPT_ACCESSED);
	/* The guest's tables were written, for all EPT knows. */
	assert_int_equal(marks(G1, 1), EPT_ACCESSED | EPT_DIRTY);
	assert_int_equal(marks(G4, 1), EPT_ACCESSED | EPT_DIRTY);
	/* Clean for EPT, though the guest has it dirty: no writing without a walk. */
	*guest_entry(LINEAR, 1) |= D;
	tlb_flush(v, false);
	assert_int_equal(touch(RD), ENDED);
	assert_non_null(tlb_lookup(v, LINEAR, 1, false, MMU_KERNEL_AC));
	assert_null(tlb_lookup(v, LINEAR, 1, true, MMU_KERNEL_AC));
	assert_int_equal(marks(PAGE, 1), EPT_ACCESSED);
	assert_int_equal(touch(WR), ENDED);
	assert_int_equal(marks(PAGE, 1), EPT_ACCESSED | EPT_DIRTY);
	assert_non_null(tlb_lookup(v, LINEAR, 1, true, MMU_KERNEL_AC));
	/* Dirty already: a read enters both. */
	tlb_flush(v, false);
	assert_int_equal(touch(RD), ENDED);
	assert_non_null(tlb_lookup(v, LINEAR, 1, true, MMU_KERNEL_AC));
	/* Cleared by the hypervisor, which tells: set again. */
	for (u32 level = 1; level <= 4; level++)
		*ept_entry(PAGE, level) &= ~(EPT_ACCESSED | EPT_DIRTY);
	forget();
	assert_null(tlb_lookup(v, LINEAR, 1, true, MMU_KERNEL_AC));
	assert_int_equal(touch(WR), ENDED);
	assert_int_equal(marks(PAGE, 1), EPT_ACCESSED | EPT_DIRTY);
	assert_int_equal(marks(PAGE, 4), EPT_ACCESSED);
}

/* A table that was read as data is known, and clean: using it as a table is a write all the same.
 */
static void test_table_as_data(void **state)
{
	u64 table = LINEAR + BIT(21), page = table + PAGE_SIZE; /* by another table */
	u8 value;

	ept_fixture_enter(EPTP_AD);
	*guest_entry(table, 1) = G4 | P | W | U;
	*guest_entry(page, 1) = PAGE | P | W | U;
	for (u64 missing = EPT_DIRTY;; missing = EPT_WRITE) {
		assert_int_equal(touch(RD), ENDED);
		*ept_entry(G4, 1) &= ~missing;
		forget();
		mem_read_linear(vcpu(), table, &value, 1, MMU_KERNEL_AC, false);
		mem_read_linear(vcpu(), page, &value, 1, MMU_KERNEL_AC, false);
		if (missing == EPT_WRITE)
			break;
		assert_int_equal(marks(G4, 1), EPT_ACCESSED);
		assert_int_equal(touch(RD), ENDED);
		assert_int_equal(marks(G4, 1), EPT_ACCESSED | EPT_DIRTY);
	}
	expect_violation(RD, G4 + (LINEAR >> 12 & 511) * 8,
			 EPT_QUAL_LINEAR | RW | (EPT_READ | EPT_EXEC) << 3);
}

static void test_accessed_dirty_off(void **state)
{
	assert_int_equal(touch(WR), ENDED);
	for (u32 level = 1; level <= 4; level++)
		assert_int_equal(marks(PAGE, level), 0);
	assert_int_equal(marks(G1, 1), 0);
	assert_non_null(tlb_lookup(vcpu(), LINEAR, 1, true, MMU_KERNEL_AC));
}

/* Setting them is a write to the hypervisor's memory: into the dirty log, and over code. */
static void test_marks_are_writes(void **state)
{
	u64 dirty[RAM_SIZE / PAGE_SIZE / 64] = {0};
	u64 page = (u64)((u8 *)ept_entry(PAGE, 1) - fixture->ram) / PAGE_SIZE;

	ept_fixture_enter(EPTP_AD);
	fixture->vm.slots[0].dirty = dirty;
	assert_int_equal(touch(RD), ENDED);
	assert_true(dirty[page / 64] & BIT(page % 64));
	fixture->vm.slots[0].dirty = NULL;
}

/* Walks for others than the guest change nothing, and say so instead of leaving. */
static void test_quiet_walks(void **state)
{
	struct soft_vcpu *v = vcpu();
	struct walk w = {.linear = LINEAR};
	u8 value;

	ept_fixture_enter(EPTP_AD);
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, false), 0);
	assert_int_equal(w.gpa, PAGE_PHYS);
	assert_int_equal(marks(PAGE, 4) | marks(PAGE, 1) | marks(G1, 1), 0);
	assert_int_equal(*guest_entry(LINEAR, 1) & (A | D), 0);
	/* What such a walk saw is not taken for marked, even if nothing else is left to mark. */
	*guest_entry(LINEAR + PAGE_SIZE, 1) = 0x8000 | P | W | U;
	mem_read_linear(v, LINEAR + PAGE_SIZE, &value, 1, MMU_KERNEL_AC, false);
	*guest_entry(LINEAR, 1) |= A;
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, false), 0);
	assert_int_equal(marks(PAGE, 1), 0);
	assert_int_equal(touch(RD), ENDED);
	assert_int_equal(marks(PAGE, 1), EPT_ACCESSED);
	*ept_entry(PAGE, 1) = 0;
	forget();
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, false), -EFAULT);
	assert_true(w.ept);
	assert_int_equal(RUN(assert_null(tlb_try(v, LINEAR, 8, false, MMU_KERNEL_AC))), ENDED);
	/* Nor does a page fault look like EPT's. */
	*guest_entry(LINEAR, 1) = 0;
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, true), -EFAULT);
	assert_false(w.ept);
}

/* ---- what is remembered ---- */

/* 29.4.3.1: a violation invalidates what led to it. */
static void test_violation_invalidates(void **state)
{
	*ept_entry(PAGE, 1) = PAGE_PHYS | EPT_READ | WB;
	assert_int_equal(touch(RD), ENDED);
	expect_violation(WR, PAGE + 0x123, QUAL_FINAL | QUAL_PAGE | EPT_WRITE | EPT_READ << 3);
	/* A copy elsewhere, as for copy on write, without INVEPT */
	*ept_entry(PAGE, 1) = (PAGE_PHYS + 0x1000) | RWX | WB;
	fixture->ram[PAGE_PHYS + 0x1000 + 0x123] = 0x77;
	u8 byte = 0;
	mem_read_linear(vcpu(), LINEAR + 0x123, &byte, 1, MMU_KERNEL_AC, false);
	assert_int_equal(byte, 0x77);
}

static void test_remembered(void **state)
{
	struct soft_vcpu *v = vcpu();
	struct walk w = {.linear = LINEAR};

	assert_int_equal(touch(RD), ENDED);
	*ept_entry(PAGE, 1) = (PAGE_PHYS + 0x1000) | RWX | WB;
	tlb_flush(v, false); /* the guest's own flushes leave guest-physical mappings alone */
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, true), 0);
	assert_int_equal(w.gpa, PAGE_PHYS);
	mmu_invept(v, false, EPTP ^ 0x1000); /* another's */
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, true), 0);
	assert_int_equal(w.gpa, PAGE_PHYS);
	mmu_invept(v, false, EPTP | EPTP_AD); /* bits below 12 do not count */
	assert_int_equal(mmu_walk(v, &w, RD, MMU_KERNEL_AC, true), 0);
	assert_int_equal(w.gpa, PAGE_PHYS + 0x1000);
}

#define T(f) cmocka_unit_test_setup_teardown(f, ept_fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_plain),
	    T(test_sizes),
	    T(test_no_paging),
	    T(test_narrow),
	    T(test_pae),
	    T(test_mmio),
	    T(test_rights),
	    T(test_rights_anded),
	    T(test_advanced_information),
	    T(test_execute_only),
	    T(test_mode_based_execute),
	    T(test_misconfigurations),
	    T(test_no_misconfigurations),
	    T(test_far_address),
	    T(test_tables_nowhere),
	    T(test_guest_tables),
	    T(test_priorities),
	    T(test_accessed_dirty),
	    T(test_table_as_data),
	    T(test_accessed_dirty_off),
	    T(test_marks_are_writes),
	    T(test_quiet_walks),
	    T(test_violation_invalidates),
	    T(test_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
