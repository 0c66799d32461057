/* String instructions against a model that goes element by element, and their rules for leaving in
 * the middle. */
#include "tests/unit/soft_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINEAR 0x7f0000123000ull
#define PAGES  8
#define START  0x1000 /* rip of the instruction */
#define NEXT   0x1002

/* Where the pages of the window lie; two share one, one is absent, one is read-only. */
static const u64 page_gpa[PAGES] = {0x300000, 0x205000, 0x301000, 0x300000,
				    0x400000, 0,	0x2ff000, 0x500000};
#define ABSENT	  5
#define READ_ONLY 6

static struct insn string_insn(u8 opsize, u8 rep)
{
	return (struct insn){.opsize = opsize,
			     .addrsize = 8,
			     .stacksize = 8,
			     .seg = SEG_DS,
			     .rep = rep,
			     .base = REG_NONE,
			     .index = REG_NONE};
}

static void map_window(void)
{
	fixture_paging();
	for (u64 k = 0; k < PAGES; k++)
		if (k != ABSENT)
			fixture_map(LINEAR + k * PAGE_SIZE, page_gpa[k],
				    P | U | (k == READ_ONLY ? 0 : W));
	fixture->v->mmu_index = MMU_USER;
}

/* ---- the model ---- */

struct model {
	u8 *ram; /* a copy of the guest's */
	u64 regs[16];
	u64 flags;
	bool faulted, fault_write;
};

static u8 *model_byte(struct model *m, u64 linear, bool write)
{
	u64 page = (linear - LINEAR) / PAGE_SIZE;

	if (page >= PAGES || page == ABSENT || (write && page == READ_ONLY)) {
		m->faulted = true;
		m->fault_write = write;
		return NULL;
	}
	return m->ram + page_gpa[page] + linear % PAGE_SIZE;
}

static u64 model_load(struct model *m, u64 linear, u32 size)
{
	u64 value = 0;

	for (u32 k = 0; k < size && !m->faulted; k++) {
		u8 *p = model_byte(m, linear + k, false);
		if (p)
			value |= (u64)*p << (8 * k);
	}
	return value;
}

static void model_store(struct model *m, u64 linear, u64 value, u32 size)
{
	for (u32 k = 0; k < size && !m->faulted; k++)
		model_byte(m, linear + k, true);
	for (u32 k = 0; k < size && !m->faulted; k++)
		*model_byte(m, linear + k, true) = (u8)(value >> (8 * k));
}

/* Flags of a - b, from their definitions. */
static u64 model_compare(u64 a, u64 b, u32 size)
{
	u64 top = BIT(8 * size - 1), r = (a - b) & (top | (top - 1)), flags = 0;

	if (a < b)
		flags |= RFLAGS_CF;
	if (!(__builtin_popcount(r & 0xff) & 1))
		flags |= RFLAGS_PF;
	if ((a & 15) < (b & 15))
		flags |= RFLAGS_AF;
	if (!r)
		flags |= RFLAGS_ZF;
	if (r & top)
		flags |= RFLAGS_SF;
	if ((a ^ b) & (a ^ r) & top)
		flags |= RFLAGS_OF;
	return flags;
}

enum kind { MOVS, STOS, LODS, CMPS, SCAS, KINDS };

static op_function *const functions[KINDS] = {op_movs, op_stos, op_lods, op_cmps, op_scas};

static void model_run(struct model *m, enum kind kind, const struct insn *i, bool back)
{
	u32 size = i->opsize;
	u64 delta = back ? 0 - (u64)size : size, mask = ~0ull >> (64 - 8 * size), flags = m->flags;
	u64 *rsi = &m->regs[RSI], *rdi = &m->regs[RDI], *rcx = &m->regs[RCX], *rax = &m->regs[RAX];

	while (!i->rep || *rcx) {
		u64 a = 0, b = 0;

		if (kind == MOVS || kind == LODS || kind == CMPS)
			a = model_load(m, *rsi, size);
		if (kind == CMPS || kind == SCAS)
			b = model_load(m, *rdi, size);
		if (kind == SCAS)
			a = *rax & mask;
		if (kind == MOVS || kind == STOS)
			model_store(m, *rdi, kind == STOS ? *rax : a, size);
		if (m->faulted)
			return;
		if (kind == LODS)
			*rax = size >= 4 ? a : (*rax & ~mask) | a;
		if (kind == CMPS || kind == SCAS)
			flags = model_compare(a, b, size);
		if (kind == MOVS || kind == LODS || kind == CMPS)
			*rsi += delta;
		if (kind != LODS)
			*rdi += delta;
		if (!i->rep)
			break;
		--*rcx;
		if ((kind == CMPS || kind == SCAS) && (a == b) != (i->rep == 0xf3))
			break;
	}
	m->flags = flags;
}

/* ---- the comparison ---- */

static u64 random_state;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static u64 random_linear(void)
{
	/* Near page boundaries more often than not. */
	u64 page = random_u64() % PAGES, near = random_u64() % 64;

	return LINEAR + page * PAGE_SIZE +
	       (random_u64() & 1 ? near : (PAGE_SIZE - 32 + near) % PAGE_SIZE);
}

static void run_to_the_end(op_function *f, const struct insn *i)
{
	struct soft_vcpu *v = fixture->v;

	v->rip = START;
	v->next_rip = NEXT;
	while (v->rip != NEXT) {
		assert_int_equal(v->rip, START);
		f(v, i);
	}
}

static void compare_once(struct model *m, u64 round)
{
	struct soft_vcpu *v = fixture->v;
	static const u8 reps[] = {0, 0xf3, 0xf3, 0xf2};
	enum kind kind = random_u64() % KINDS;
	struct insn insn = string_insn((u8)(1 << random_u64() % 4), reps[random_u64() % 4]);
	bool back = random_u64() & 1;

	v->regs[RSI] = random_linear();
	v->regs[RDI] = random_u64() % 3 ? random_linear() : v->regs[RSI] + random_u64() % 33 - 16;
	v->regs[RCX] = random_u64() % (random_u64() & 1 ? 20 : 3000);
	v->regs[RAX] = random_u64() & 1 ? random_u64() : 0;
	v->rflags_sys = 2 | (back ? RFLAGS_DF : 0);
	vcpu_set_arith(v, random_u64());
	memcpy(m->regs, v->regs, sizeof(m->regs));
	m->flags = vcpu_rflags(v) & RFLAGS_ARITH;
	m->faulted = false;
	if (random_u64() % 4 == 0)
		tlb_flush(v, false);

	model_run(m, kind, &insn, back);
	enum ending ending = RUN(run_to_the_end(functions[kind], &insn));

	if ((ending == RAISED) != m->faulted)
		fail_msg("round %lu: kind %d ended with %d", round, kind, ending);
	if (ending == RAISED) {
		u32 error = (u32)(fixture->error & ~PF_P);

		assert_int_equal(fixture->vector, EXC_PF);
		assert_int_equal(error, m->fault_write ? PF_U | PF_W : PF_U);
		assert_int_equal(v->rip, START);
	}
	for (u32 k = 0; k < 16; k++)
		if (v->regs[k] != m->regs[k])
			fail_msg("round %lu: kind %d size %d rep %#x back %d: register %u is %#lx, "
				 "not %#lx",
				 round, kind, insn.opsize, insn.rep, back, k, v->regs[k],
				 m->regs[k]);
	if ((vcpu_rflags(v) & RFLAGS_ARITH) != m->flags)
		fail_msg("round %lu: kind %d: flags %#lx, not %#lx", round, kind,
			 vcpu_rflags(v) & RFLAGS_ARITH, m->flags);
}

static void test_against_model(void **state)
{
	struct model m = {.ram = malloc(RAM_SIZE)};
	const char *seed = getenv("GUISE_SEED");

	random_state = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15;
	printf("seed %#lx (GUISE_SEED)\n", random_state);
	map_window();
	for (u64 k = 0; k < PAGES; k++)
		for (u64 b = 0; k != ABSENT && b < PAGE_SIZE; b++)
			fixture->ram[page_gpa[k] + b] = random_u64() % 8 ? 0 : (u8)random_u64();
	/* One page is written the slow way. */
	fixture->vm.slots[0].page_flags[0x400000 / PAGE_SIZE] = PAGE_HAS_CODE;
	memcpy(m.ram, fixture->ram, RAM_SIZE);
	for (u64 round = 0; round < 30000; round++) {
		compare_once(&m, round);
		for (u64 k = 0; k < PAGES; k++)
			if (k != ABSENT &&
			    memcmp(m.ram + page_gpa[k], fixture->ram + page_gpa[k], PAGE_SIZE))
				fail_msg("round %lu: page %lu differs", round, k);
	}
	free(m.ram);
}

/* ---- single rules ---- */

static void begin(u64 rsi, u64 rdi, u64 rcx)
{
	struct soft_vcpu *v = fixture->v;

	v->regs[RSI] = rsi;
	v->regs[RDI] = rdi;
	v->regs[RCX] = rcx;
	v->rip = START;
	v->next_rip = NEXT;
}

static void test_attention(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(1, 0xf3);

	map_window();
	begin(LINEAR, LINEAR + PAGE_SIZE, 3 * PAGE_SIZE);
	v->attention = ATTENTION_IRQ;
	ASSERT_ENDS(op_movs(v, &i));
	assert_int_equal(v->rip, START);
	assert_int_equal(v->regs[RCX], 2 * PAGE_SIZE);
	assert_int_equal(v->regs[RSI], LINEAR + PAGE_SIZE);
	assert_int_equal(v->regs[RDI], LINEAR + 2 * PAGE_SIZE);
	v->attention = 0;
	ASSERT_ENDS(op_movs(v, &i));
	assert_int_equal(v->rip, NEXT);
	assert_int_equal(v->regs[RCX], 0);
}

static void test_single_step(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(4, 0xf3);

	map_window();
	v->mode |= MODE_STEP;
	begin(0, LINEAR, 2);
	ASSERT_ENDS(op_stos(v, &i));
	assert_int_equal(v->rip, START);
	assert_int_equal(v->regs[RCX], 1);
	ASSERT_ENDS(op_stos(v, &i));
	assert_int_equal(v->rip, NEXT);
	assert_int_equal(v->regs[RDI], LINEAR + 8);
}

static void test_nothing_to_do(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(4, 0xf3);

	map_window();
	for (u32 k = 0; k < KINDS; k++) {
		begin(0, 0, 0);
		vcpu_set_arith(v, RFLAGS_CF);
		ASSERT_ENDS(functions[k](v, &i));
		assert_int_equal(v->rip, NEXT);
		assert_int_equal(v->regs[RSI] | v->regs[RDI], 0);
		assert_int_equal(vcpu_rflags(v) & RFLAGS_ARITH, RFLAGS_CF);
	}
}

/* Elements before the limit are done, then the fault stands at the one beyond. */
static void test_limit(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(2, 0xf3);

	fixture_protected(MODE_CODE32);
	i.addrsize = 4;
	v->seg[SEG_ES].limit = 0x1fff;
	v->seg[SEG_ES].base = 0x100000;
	v->regs[RAX] = 0x5a5a;
	begin(0, 0x1ff0, 100);
	ASSERT_RAISES(EXC_GP, 0, op_stos(v, &i));
	assert_int_equal(v->rip, START);
	assert_int_equal(v->regs[RDI], 0x2000);
	assert_int_equal(v->regs[RCX], 92);
	assert_memory_equal(fixture->ram + 0x101fee, "\0\0ZZZZZZZZZZZZZZZZ\0", 19);
}

/* The address size makes pointers wrap and decides what of a register changes. */
static void test_address_size(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(1, 0xf3);

	fixture_protected(MODE_CODE16);
	i.addrsize = 2;
	memcpy(fixture->ram + 0xfffe, "AB", 2);
	memcpy(fixture->ram, "CDE", 3);
	begin(0x1234fffe, 0x56780100, 0xabcd0005);
	ASSERT_ENDS(run_to_the_end(op_movs, &i));
	assert_memory_equal(fixture->ram + 0x100, "ABCDE", 5);
	assert_int_equal(v->regs[RSI], 0x12340003);
	assert_int_equal(v->regs[RDI], 0x56780105);
	assert_int_equal(v->regs[RCX], 0xabcd0000);
	/* 32-bit addresses in 64-bit mode clear the upper halves. */
	v->mode = MODE_CODE64 | MODE_FLAT | MODE_PE;
	i.addrsize = 4;
	begin(0xffffffff00000000, 0xffffffff00000200, 0xffffffff00000003);
	ASSERT_ENDS(run_to_the_end(op_movs, &i));
	assert_memory_equal(fixture->ram + 0x200, "CDE", 3);
	assert_int_equal(v->regs[RSI], 3);
	assert_int_equal(v->regs[RDI], 0x203);
	assert_int_equal(v->regs[RCX], 0);
}

static void test_segment_override(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(4, 0);

	v->seg[SEG_FS].base = 0x1000;
	i.seg = SEG_FS;
	*(u32 *)(fixture->ram + 0x1010) = 0x11223344;
	begin(0x10, 0x20, 7);
	ASSERT_ENDS(op_movs(v, &i));
	assert_int_equal(*(u32 *)(fixture->ram + 0x20), 0x11223344);
	assert_int_equal(v->regs[RCX], 7);
	assert_int_equal(v->rip, NEXT);
}

/* ---- devices ---- */

/* What the run loop does around one instruction: answers reads with a running count, collects
 * writes. */
struct device {
	u8 next;
	u64 written[64];
	u32 writes, exits;
};

static void drain_writes(struct device *d)
{
	struct soft_vcpu *v = fixture->v;
	struct kvm_run *run = v->base.run;

	v->attention &= ~(u32)ATTENTION_QUEUE;
	while (io_queue_next(v)) {
		assert_in_range(d->writes, 0, 63);
		d->written[d->writes++] = run->exit_reason == KVM_EXIT_IO
					      ? *(u32 *)((u8 *)run + run->io.data_offset)
					      : *(u64 *)run->mmio.data;
	}
}

static void run_with_device(struct device *d, op_function *f, const struct insn *i)
{
	struct soft_vcpu *v = fixture->v;
	struct kvm_run *run = v->base.run;

	v->rip = START;
	v->next_rip = NEXT;
	while (v->rip != NEXT) {
		enum ending ending = RUN(f(v, i));

		if (ending == EXITED) {
			u8 *data = run->exit_reason == KVM_EXIT_IO ? (u8 *)run + run->io.data_offset
								   : run->mmio.data;
			memset(data, 0, 8);
			data[0] = d->next++;
			d->exits++;
			io_complete_read(v);
			v->io_cursor = 0;
			continue;
		}
		assert_int_equal(ending, ENDED);
		v->io_logged = v->io_cursor = 0;
		drain_writes(d);
	}
}

/* A FIFO at one address: each element reads it once, in order. */
static void test_mmio_source(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(1, 0xf3);
	struct device d = {.next = 'a'};

	begin(NO_RAM, 0x2000, 5);
	run_with_device(&d, op_movs, &i);
	assert_memory_equal(fixture->ram + 0x2000, "abcde", 6);
	assert_int_equal(d.exits, 5);
	assert_int_equal(v->regs[RSI], NO_RAM + 5);
	/* device to device */
	d = (struct device){.next = 1};
	begin(NO_RAM, NO_RAM + 0x100, 3);
	run_with_device(&d, op_movs, &i);
	assert_int_equal(d.exits, 3);
	assert_int_equal(d.writes, 3);
	assert_int_equal(d.written[0] | d.written[1] << 8 | d.written[2] << 16, 0x030201);
	/* REPNE SCASB until the device gives 7 */
	i.rep = 0xf2;
	d = (struct device){.next = 1};
	v->regs[RAX] = 7;
	begin(0, NO_RAM, 100);
	run_with_device(&d, op_scas, &i);
	assert_int_equal(d.exits, 7);
	assert_int_equal(v->regs[RCX], 93);
	assert_true(vcpu_rflags(v) & RFLAGS_ZF);
}

static void test_mmio_destination(void **state)
{
	struct insn i = string_insn(4, 0xf3);
	struct device d = {0};

	memcpy(fixture->ram + 0x1000, "\1\0\0\0\2\0\0\0\3\0\0\0", 12);
	begin(0x1000, NO_RAM, 3);
	run_with_device(&d, op_movs, &i);
	assert_int_equal(d.exits, 0);
	assert_int_equal(d.writes, 3);
	assert_int_equal(d.written[0] + 10 * d.written[1] + 100 * d.written[2], 321);
}

static void test_ins(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(2, 0xf3);
	struct device d = {.next = 1};

	begin(0, 0x3000, 3);
	v->regs[RDX] = 0x1f0;
	run_with_device(&d, op_ins, &i);
	assert_int_equal(d.exits, 3);
	assert_memory_equal(fixture->ram + 0x3000, "\1\0\2\0\3\0", 6);
	assert_int_equal(v->regs[RDI], 0x3006);
	assert_int_equal(v->regs[RCX], 0);
	/* A destination that cannot be written is found before the device is asked. */
	map_window();
	begin(0, LINEAR + READ_ONLY * PAGE_SIZE, 3);
	ASSERT_RAISES(EXC_PF, PF_P | PF_W | PF_U, op_ins(v, &i));
	assert_int_equal(v->regs[RCX], 3);
}

static void test_outs(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = string_insn(1, 0xf3);
	struct device d = {0};

	memcpy(fixture->ram + 0x3000, "xyz", 3);
	begin(0x3002, 0, 3);
	v->rflags_sys |= RFLAGS_DF;
	v->regs[RDX] = 0x3f8;
	run_with_device(&d, op_outs, &i);
	assert_int_equal(d.writes, 3);
	assert_int_equal(d.written[0], 'z');
	assert_int_equal(d.written[2], 'x');
	assert_int_equal(v->regs[RSI], 0x2fff);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_against_model),
	    T(test_attention),
	    T(test_single_step),
	    T(test_nothing_to_do),
	    T(test_limit),
	    T(test_address_size),
	    T(test_segment_override),
	    T(test_mmio_source),
	    T(test_mmio_destination),
	    T(test_ins),
	    T(test_outs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
