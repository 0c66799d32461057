/* Operands, the stack, near transfers, bit strings, compare-exchange, and the right to use ports.
 */
#include "tests/unit/soft_fixture.h"

#include <string.h>

#define STACK 0x8000ull

/* A 64-bit instruction without memory operand. */
static struct insn insn64(u8 opcode, u8 opsize)
{
	return (struct insn){.opcode = opcode,
			     .opsize = opsize,
			     .addrsize = 8,
			     .stacksize = 8,
			     .seg = SEG_DS,
			     .base = REG_NONE,
			     .index = REG_NONE};
}

static struct insn insn32(u8 opcode, u8 opsize, u8 stacksize)
{
	struct insn i = insn64(opcode, opsize);

	i.addrsize = 4;
	i.stacksize = stacksize;
	return i;
}

static u64 ram64(u64 gpa)
{
	return *(u64 *)(fixture->ram + gpa);
}

/* ---- registers and addresses ---- */

static void test_registers(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn64(0, 1);

	v->regs[RAX] = v->regs[RSP] = 0x1122334455667788;
	assert_int_equal(reg_read(v, &i, 4, 1), 0x77); /* AH */
	reg_write(v, &i, 4, 1, 0xabcd);
	assert_int_equal(v->regs[RAX], 0x112233445566cd88);
	i.rex = true;
	assert_int_equal(reg_read(v, &i, 4, 1), 0x88); /* SPL */
	reg_write(v, &i, 4, 1, 0xef);
	assert_int_equal(v->regs[RSP], 0x11223344556677ef);
	i.rex = false;
	reg_write(v, &i, RAX, 1, 0x1ff);
	assert_int_equal(v->regs[RAX], 0x112233445566cdff);
	reg_write(v, &i, RAX, 2, 0x12345);
	assert_int_equal(v->regs[RAX], 0x1122334455662345);
	assert_int_equal(reg_read(v, &i, RAX, 4), 0x55662345);
	reg_write(v, &i, RAX, 4, 0xffffffff00000001);
	assert_int_equal(v->regs[RAX], 1);
	reg_write(v, &i, 4, 8, 7); /* not AH */
	assert_int_equal(v->regs[RSP], 7);
}

static void test_address(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn64(0, 4);

	v->regs[RBX] = 0x100000010;
	v->regs[R12] = 3;
	i.base = RBX;
	i.index = R12;
	i.scale = 8;
	i.disp = -4;
	assert_int_equal(insn_ea(v, &i), 0x100000024);
	i.addrsize = 4;
	assert_int_equal(insn_ea(v, &i), 0x24);
	i.addrsize = 2;
	i.disp = -0x30;
	assert_int_equal(insn_ea(v, &i), 0xfff8);
	i.addrsize = 8;
	i.rip_relative = true;
	i.disp = 0x7fff00001234;
	assert_int_equal(insn_ea(v, &i), 0x7fff00001234);
}

/* ---- push and pop ---- */

static void test_push(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn64(0x54, 8);

	v->regs[RSP] = STACK;
	i.rm = RSP; /* the old value is pushed */
	ASSERT_ENDS(op_push(v, &i));
	assert_int_equal(v->regs[RSP], STACK - 8);
	assert_int_equal(ram64(STACK - 8), STACK);
	i = insn64(0x6a, 2);
	i.imm = (u64)-2;
	ASSERT_ENDS(op_push(v, &i));
	assert_int_equal(v->regs[RSP], STACK - 10);
	assert_int_equal(*(u16 *)(fixture->ram + STACK - 10), 0xfffe);
	/* PUSH [RSP]: the address is the old one */
	i = insn64(0xff, 8);
	i.is_mem = true;
	i.base = RSP;
	v->regs[RSP] = STACK - 8;
	ASSERT_ENDS(op_push(v, &i));
	assert_int_equal(ram64(STACK - 16), STACK);
	/* A fault moves nothing. */
	v->regs[RSP] = BIT(47) + 8;
	ASSERT_RAISES(
	    EXC_SS, 0,
	    op_push(v, &(struct insn){.opcode = 0x50, .opsize = 8, .addrsize = 8, .stacksize = 8}));
	assert_int_equal(v->regs[RSP], BIT(47) + 8);
}

static void test_pop(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn64(0x5c, 8);

	*(u64 *)(fixture->ram + STACK) = 0x1234;
	v->regs[RSP] = STACK;
	i.rm = RSP; /* the popped value wins */
	ASSERT_ENDS(op_pop(v, &i));
	assert_int_equal(v->regs[RSP], 0x1234);
	/* POP [RSP]: the address is the incremented one */
	i = insn64(0x8f, 8);
	i.is_mem = true;
	i.base = RSP;
	v->regs[RSP] = STACK;
	ASSERT_ENDS(op_pop(v, &i));
	assert_int_equal(v->regs[RSP], STACK + 8);
	assert_int_equal(ram64(STACK + 8), 0x1234);
	/* A fault of the store leaves RSP. */
	i.base = RBX;
	v->regs[RBX] = BIT(47);
	v->regs[RSP] = STACK;
	ASSERT_RAISES(EXC_GP, 0, op_pop(v, &i));
	assert_int_equal(v->regs[RSP], STACK);
}

static void test_stack_sizes(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn32(0x50, 4, 2);

	fixture_protected(MODE_CODE32);
	v->seg[SEG_SS].limit = 0xffff;
	v->seg[SEG_SS].access &= ~SEG_DB;
	v->seg[SEG_SS].base = 0x10000;
	v->regs[RAX] = 0x11223344;
	v->regs[RSP] = 0xabcd0000; /* SP wraps within 64 KiB, the upper half stays */
	ASSERT_ENDS(op_push(v, &i));
	assert_int_equal(v->regs[RSP], 0xabcdfffc);
	assert_int_equal(*(u32 *)(fixture->ram + 0x1fffc), 0x11223344);
	ASSERT_ENDS(assert_int_equal(pop(v, &i, 4), 0x11223344));
	assert_int_equal(v->regs[RSP], 0xabcd0000);
	/* Across the end it is #SS. */
	v->regs[RSP] = 0xabcd0002;
	ASSERT_RAISES(EXC_SS, 0, op_push(v, &i));
}

static void test_pusha_popa(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn32(0x60, 4, 4);

	fixture_protected(MODE_CODE32);
	for (u32 k = 0; k < 8; k++)
		v->regs[k] = 0x1000 + k;
	v->regs[RSP] = STACK;
	ASSERT_ENDS(op_pusha(v, &i));
	assert_int_equal(v->regs[RSP], STACK - 32);
	for (u32 k = 0; k < 8; k++)
		assert_int_equal(*(u32 *)(fixture->ram + STACK - 4 * (k + 1)),
				 k == RSP ? STACK : 0x1000 + k);
	for (u32 k = 0; k < 8; k++)
		if (k != RSP)
			v->regs[k] = 0;
	*(u32 *)(fixture->ram + STACK - 4 * (RSP + 1)) = 0xdead; /* not loaded */
	ASSERT_ENDS(op_popa(v, &i));
	for (u32 k = 0; k < 8; k++)
		assert_int_equal(v->regs[k], k == RSP ? STACK : 0x1000 + k);
	/* A fault at the last push leaves what was pushed before it, as processors do. */
	memset(fixture->ram + STACK - 64, 0, 64);
	v->seg[SEG_SS].access |= SEG_TYPE_EXPAND_DOWN;
	v->seg[SEG_SS].limit = STACK - 30;
	ASSERT_RAISES(EXC_SS, 0, op_pusha(v, &i));
	assert_int_equal(ram64(STACK - 8), 0x0000100000001001);
	assert_int_equal(v->regs[RSP], STACK);
}

static void test_enter_leave(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn64(0xc8, 8);

	v->regs[RSP] = STACK;
	v->regs[RBP] = 0x9000;
	i.imm = 0x40;
	ASSERT_ENDS(op_enter(v, &i));
	assert_int_equal(ram64(STACK - 8), 0x9000);
	assert_int_equal(v->regs[RBP], STACK - 8);
	assert_int_equal(v->regs[RSP], STACK - 8 - 0x40);
	ASSERT_ENDS(op_leave(v, &(struct insn){.opsize = 8, .addrsize = 8, .stacksize = 8}));
	assert_int_equal(v->regs[RBP], 0x9000);
	assert_int_equal(v->regs[RSP], STACK);
	/* Level 3 copies two pointers of the display and adds the new frame's. */
	*(u64 *)(fixture->ram + 0x9000 - 8) = 0xaaaa;
	*(u64 *)(fixture->ram + 0x9000 - 16) = 0xbbbb;
	i.imm2 = 3 + 32; /* taken modulo 32 */
	ASSERT_ENDS(op_enter(v, &i));
	assert_int_equal(ram64(STACK - 8), 0x9000);
	assert_int_equal(ram64(STACK - 16), 0xaaaa);
	assert_int_equal(ram64(STACK - 24), 0xbbbb);
	assert_int_equal(ram64(STACK - 32), STACK - 8);
	assert_int_equal(v->regs[RBP], STACK - 8);
	assert_int_equal(v->regs[RSP], STACK - 32 - 0x40);
	/* The end of the frame must be writable too. */
	fixture_paging();
	tlb_flush(v, false);
	fixture_map(STACK - 0x1000, STACK - 0x1000, P | W);
	v->regs[RSP] = STACK;
	v->regs[RBP] = 0x9000;
	i.imm = 0x1000;
	i.imm2 = 0;
	ASSERT_RAISES(EXC_PF, PF_W, op_enter(v, &i));
	assert_int_equal(fixture->cr2, STACK - 0x1008);
	assert_int_equal(v->regs[RSP], STACK);
	assert_int_equal(v->regs[RBP], 0x9000);
}

/* ---- near transfers ---- */

static void test_call_ret(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn call = insn64(0xe8, 8), ret = insn64(0xc2, 8), jump = insn64(0xe9, 8);

	v->regs[RSP] = STACK;
	v->rip = 0x1000;
	v->next_rip = 0x1005;
	call.imm = (u64)-0x100;
	ASSERT_ENDS(op_call_near(v, &call));
	assert_int_equal(v->rip, 0xf05);
	assert_int_equal(ram64(STACK - 8), 0x1005);
	ret.imm = 0x10;
	ASSERT_ENDS(op_ret_near(v, &ret));
	assert_int_equal(v->rip, 0x1005);
	assert_int_equal(v->regs[RSP], STACK + 0x10);
	/* Targets that are not canonical: before anything is pushed or popped. */
	v->regs[RSP] = STACK;
	v->regs[RBX] = BIT(47);
	call.opcode = 0xff;
	call.rm = RBX;
	ASSERT_RAISES(EXC_GP, 0, op_call_near(v, &call));
	*(u64 *)(fixture->ram + STACK) = BIT(47);
	ASSERT_RAISES(EXC_GP, 0, op_ret_near(v, &ret));
	assert_int_equal(v->regs[RSP], STACK);
	assert_int_equal(v->rip, 0x1005);
	jump.imm = 0x20;
	ASSERT_ENDS(op_jmp_near(v, &jump));
	assert_int_equal(v->rip, 0x1025);
}

static void test_transfer_limits(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct insn jump = insn32(0xe9, 4, 4);

	fixture_protected(MODE_CODE32);
	v->seg[SEG_CS].limit = 0x1fff;
	v->next_rip = 0x1000;
	jump.imm = 0xfff;
	ASSERT_ENDS(op_jmp_near(v, &jump));
	assert_int_equal(v->rip, 0x1fff);
	jump.imm = 0x1000;
	ASSERT_RAISES(EXC_GP, 0, op_jmp_near(v, &jump));
	/* A 16-bit operand size cuts the target. */
	jump.opsize = 2;
	jump.imm = 0x10000;
	ASSERT_ENDS(op_jmp_near(v, &jump));
	assert_int_equal(v->rip, 0x1000);
}

/* ---- bit strings, compare-exchange ---- */

struct bit_case {
	u8 opcode, size;
	u64 offset; /* in the register */
	s64 byte;   /* of the bit, from the base */
	u8 bit, before, after;
};

/* clang-format off */
/* One case a line. */
static const struct bit_case bit_cases[] = {
	{0xa3, 4, 100, 12, 4, 0x10, 0x10},
	{0xab, 4, 100, 12, 4, 0x00, 0x10},
	{0xb3, 4, 100, 12, 4, 0x10, 0x00},
	{0xbb, 8, 130, 16, 2, 0x04, 0x00},
	{0xbb, 8, (u64)-1, -1, 7, 0x00, 0x80},
	{0xab, 2, 0xffff, -1, 7, 0x00, 0x80}, /* a 16-bit offset is signed */
	{0xab, 2, 0x18000, -4096, 0, 0x00, 0x01}, /* and only 16 bits count */
	{0xb3, 4, 0xffffffdf, -5, 7, 0xff, 0x7f},
};
/* clang-format on */

static void test_bit_strings(void **state)
{
	struct soft_vcpu *v = fixture->v;

	for (u32 k = 0; k < ARRAY_SIZE(bit_cases) * 3; k++) {
		const struct bit_case *c = &bit_cases[k / 3];
		struct insn i = insn64(c->opcode, c->size);
		u8 *byte = fixture->ram + 0x20000 + c->byte;

		i.map = 1;
		i.is_mem = true;
		i.base = RBX;
		i.reg = RCX;
		i.lock = k % 3 == 1 && c->opcode != 0xa3;
		/* and once in a page with code */
		fixture->vm.slots[0].page_flags[(0x20000 + c->byte) / 4096] =
		    k % 3 == 2 ? PAGE_HAS_CODE : 0;
		tlb_flush(v, false);
		v->regs[RBX] = 0x20000;
		v->regs[RCX] = c->offset;
		*byte = c->before;
		vcpu_set_arith(v, RFLAGS_ZF);
		op_bit_string(v, &i);
		assert_int_equal(*byte, c->after);
		assert_int_equal(vcpu_rflags(v) & RFLAGS_ARITH,
				 RFLAGS_ZF | (c->before >> c->bit & 1 ? RFLAGS_CF : 0));
		*byte = 0;
	}
}

static void test_cache_line(void **state)
{
	struct insn i = insn64(0xae, 1);

	fixture_paging();
	fixture_map(0x5000, 0x5000, P);
	i.is_mem = true;
	i.disp = 0x5010;
	ASSERT_ENDS(op_cache_line(fixture->v, &i));
	assert_true(*fixture_pte(0x5000) & A);
	i.disp = 0x6010;
	ASSERT_RAISES(EXC_PF, 0, op_cache_line(fixture->v, &i));
}

/* ---- ports ---- */

#define TSS 0x30000ull
#define MAP 0x68u

static enum ending try_out(u16 port, u8 size)
{
	struct soft_vcpu *v = fixture->v;
	struct insn i = insn64(0xef, size);

	v->regs[RDX] = port;
	fixture->vector = 0xff;
	int how = RUN(op_out(v, &i));
	return how == EXITED ? ENDED : how; /* done, and on its way to the monitor */
}

static void test_port_rights(void **state)
{
	struct soft_vcpu *v = fixture->v;

	v->cpl = 3;
	v->rflags_sys = 2;
	assert_int_equal(try_out(0x80, 1), RAISED); /* no TSS */
	assert_int_equal(fixture->vector, EXC_GP);
	v->rflags_sys = 2 | RFLAGS_IOPL;
	assert_int_equal(try_out(0x80, 1), ENDED);
	v->rflags_sys = 2;
	v->tr = (struct segment){.base = TSS, .limit = MAP + 8192, .access = SEG_P | 0xb};
	memset(fixture->ram + TSS, 0xff, MAP + 8193);
	*(u16 *)(fixture->ram + TSS + 102) = MAP;
	assert_int_equal(try_out(0x80, 1), RAISED);
	fixture->ram[TSS + MAP + 0x10] = 0x70; /* ports 80-83 and 87 */
	assert_int_equal(try_out(0x80, 4), ENDED);
	assert_int_equal(try_out(0x81, 4), RAISED);
	assert_int_equal(try_out(0x87, 1), ENDED);
	assert_int_equal(try_out(0x87, 2), RAISED); /* the second bit is in the next byte */
	fixture->ram[TSS + MAP + 0x11] = 0xfe;
	assert_int_equal(try_out(0x87, 2), ENDED);
	/* Both bytes must lie inside the limit. */
	v->tr.limit = MAP + 0x11;
	assert_int_equal(try_out(0x80, 1), ENDED);
	v->tr.limit = MAP + 0x10;
	assert_int_equal(try_out(0x80, 1), RAISED);
	v->tr.limit = MAP + 8192;
	/* A 16-bit TSS has no map. */
	v->tr.access = SEG_P | 3;
	assert_int_equal(try_out(0x80, 1), RAISED);
	v->tr.access = SEG_P | 0xb;
	/* Virtual-8086 mode does not look at IOPL. */
	v->rflags_sys = 2 | RFLAGS_IOPL | RFLAGS_VM;
	assert_int_equal(try_out(0x80, 1), ENDED);
	assert_int_equal(try_out(0x90, 1), RAISED);
	/* Real mode may always. */
	v->cr0 = 0;
	v->rflags_sys = 2;
	assert_int_equal(try_out(0x90, 1), ENDED);
}

static void test_in_out(void **state)
{
	struct soft_vcpu *v = fixture->v;
	struct kvm_run *run = v->base.run;
	struct insn in = insn64(0xe5, 4), out = insn64(0xe6, 1);

	in.imm = 0x60;
	v->regs[RAX] = ~0ull;
	assert_int_equal(RUN(op_in(v, &in)), EXITED);
	assert_int_equal(run->io.port, 0x60);
	*(u32 *)((u8 *)run + run->io.data_offset) = 0x12345678;
	io_complete_read(v);
	ASSERT_ENDS(op_in(v, &in));
	assert_int_equal(v->regs[RAX], 0x12345678); /* 4 bytes clear the rest */
	out.imm = 0x64;
	v->next_rip = 0x1234;
	assert_int_equal(RUN(op_out(v, &out)), EXITED);
	assert_int_equal(v->rip, 0x1234);
	assert_false(io_queue_next(v));
	assert_int_equal(run->io.direction, KVM_EXIT_IO_OUT);
	assert_int_equal(run->io.port, 0x64);
	assert_int_equal(*(u32 *)((u8 *)run + run->io.data_offset), 0x78);
	/* I/O breakpoints */
	v->dr7 = DR7_FIXED1 | 1 | 2 << 16;
	v->dr[0] = 0x64;
	ASSERT_ENDS(op_out(v, &out));
	assert_int_equal(v->events.debug, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_registers),	     T(test_address),	  T(test_push),	       T(test_pop),
	    T(test_stack_sizes),     T(test_pusha_popa),  T(test_enter_leave), T(test_call_ret),
	    T(test_transfer_limits), T(test_bit_strings), T(test_cache_line),  T(test_port_rights),
	    T(test_in_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
