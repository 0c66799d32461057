#include "tests/unit/flow_machine.h"

#include <stdlib.h>
#include <string.h>

#include "engine/soft/irqchip/irqchip.h"

struct machine *machine;

/* ---- what the rest of the engine does ---- */

void vcpu_resume(struct soft_vcpu *v)
{
	longjmp(machine->back, 1);
}

void vcpu_exit(struct soft_vcpu *v)
{
	abort(); /* INT3 leaves for the monitor's debugger only, and there is none */
}

void vcpu_update_mode(struct soft_vcpu *v)
{
	v->mmu_index = mmu_index_of(v, v->cpl);
}

void vcpu_irq_window(struct soft_vcpu *v)
{
	machine->irq_windows++;
}

void tlb_faulted(struct soft_vcpu *v, u64 linear)
{
}

bool set_cr3(struct soft_vcpu *v, u64 value)
{
	v->cr3 = value;
	return true;
}

bool irqchip_pending(const struct soft_vcpu *v)
{
	return machine->external >= 0;
}

int irqchip_acknowledge(struct soft_vcpu *v)
{
	int vector = machine->external;

	machine->external = -1;
	return vector;
}

static void *memory(u64 linear, u32 size, bool write, enum mmu_index index, bool stack)
{
	struct soft_vcpu *v = machine->v;

	if (!is_canonical(linear))
		raise_error(v, stack ? EXC_SS : EXC_GP, 0);
	for (u64 at = linear; at < linear + size; at++) {
		if ((at & PAGE_MASK) == machine->exit_page)
			longjmp(machine->back, 1);
		if (at >= RAM_SIZE || (at & PAGE_MASK) == machine->fault_page)
			raise_pf(v, at, (write ? PF_W : 0) | (index == MMU_USER ? PF_U : 0));
	}
	return machine->ram + linear;
}

void mem_read_linear(struct soft_vcpu *v, u64 linear, void *buf, u32 size, enum mmu_index index,
		     bool stack)
{
	memcpy(buf, memory(linear, size, false, index, stack), size);
}

void mem_write_linear(struct soft_vcpu *v, u64 linear, const void *buf, u32 size,
		      enum mmu_index index, bool stack)
{
	memcpy(memory(linear, size, true, index, stack), buf, size);
	machine->last_index = index;
}

void mem_probe_write(struct soft_vcpu *v, u64 linear, u32 size, enum mmu_index index, bool stack)
{
	memory(linear, size, true, index, stack);
}

u64 sys_read(struct soft_vcpu *v, u64 linear, u32 size)
{
	u64 value = 0;

	mem_read_linear(v, linear, &value, size, MMU_KERNEL, false);
	return value;
}

void sys_write(struct soft_vcpu *v, u64 linear, u32 size, u64 value)
{
	memcpy(memory(linear, size, true, MMU_KERNEL, false), &value, size);
}

static u64 linear_of(const struct soft_vcpu *v, enum x86_seg seg, u64 offset)
{
	return is_code64(v) ? offset : (u32)(v->seg[seg].base + offset);
}

void mem_read_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, void *buf, u32 size)
{
	mem_read_linear(v, linear_of(v, seg, offset), buf, size, v->mmu_index, seg == SEG_SS);
}

void mem_write_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, const void *buf, u32 size)
{
	mem_write_linear(v, linear_of(v, seg, offset), buf, size, v->mmu_index, seg == SEG_SS);
}

u64 mem_read(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size)
{
	u64 value = 0;

	mem_read_buf(v, seg, offset, &value, size);
	return value;
}

void mem_write(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size, u64 value)
{
	mem_write_buf(v, seg, offset, &value, size);
}

u64 insn_ea(const struct soft_vcpu *v, const struct insn *i)
{
	return (u64)i->disp;
}

void reg_write(struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size, u64 value)
{
	u64 mask = size == 2 ? 0xffff : ~0ull;

	v->regs[reg] = (v->regs[reg] & ~mask) | (size == 4 ? (u32)value : value & mask);
}

u64 rm_read(struct soft_vcpu *v, const struct insn *i, u32 size)
{
	if (i->is_mem)
		return mem_read(v, i->seg, insn_ea(v, i), size);
	return v->regs[i->rm] & (size == 8 ? ~0ull : BIT(size * 8) - 1);
}

void rm_write(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value)
{
	if (i->is_mem)
		mem_write_buf(v, i->seg, insn_ea(v, i), &value, size);
	else
		reg_write(v, i, i->rm, size, value);
}

static u64 stack_mask(const struct insn *i)
{
	return i->stacksize == 8 ? ~0ull : BIT(i->stacksize * 8) - 1;
}

void stack_adjust(struct soft_vcpu *v, const struct insn *i, s64 delta)
{
	u64 mask = stack_mask(i);

	v->regs[RSP] = (v->regs[RSP] & ~mask) | ((v->regs[RSP] + (u64)delta) & mask);
}

u64 stack_peek(struct soft_vcpu *v, const struct insn *i, u64 offset, u32 size)
{
	return mem_read(v, SEG_SS, (v->regs[RSP] + offset) & stack_mask(i), size);
}

void push(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value)
{
	u64 sp = (v->regs[RSP] - size) & stack_mask(i);

	mem_write_buf(v, SEG_SS, sp, &value, size);
	stack_adjust(v, i, -(s64)size);
}

/* ---- memory and tables ---- */

void poke(u64 linear, u32 size, u64 value)
{
	assert_true(linear + size <= RAM_SIZE);
	memcpy(machine->ram + linear, &value, size);
}

u64 peek(u64 linear, u32 size)
{
	u64 value = 0;

	assert_true(linear + size <= RAM_SIZE);
	memcpy(&value, machine->ram + linear, size);
	return value;
}

void set_descriptor(u16 selector, u64 base, u32 limit, u32 access)
{
	u64 at = GDT + (selector & 0xfff8);

	poke(at, 8,
	     (limit & 0xffff) | (base & 0xffffff) << 16 | (u64)(access & 0xff) << 40 |
		 (u64)(limit >> 16 & 0xf) << 48 | (u64)(access >> 12 & 0xf) << 52 |
		 (base >> 24 & 0xff) << 56);
}

void set_gate(u8 vector, u32 type, u32 dpl, u16 selector, u64 offset, u32 ist)
{
	u64 low = (offset & 0xffff) | (u64)selector << 16 | (u64)ist << 32 |
		  (u64)(type | dpl << 5 | SEG_P) << 40 | (offset >> 16 & 0xffff) << 48;

	if (is_long(machine->v)) {
		poke(IDT + vector * 16u, 8, low);
		poke(IDT + vector * 16u + 8, 8, offset >> 32);
	} else {
		poke(IDT + vector * 8u, 8, low);
	}
}

#define CODE_RX (SEG_P | SEG_S | 0xb | SEG_G)
#define DATA_RW (SEG_P | SEG_S | 0x3 | SEG_G | SEG_DB)
#define DPL3	(3u << 5)

static void build_gdt(void)
{
	set_descriptor(CODE0, 0, 0xfffff, CODE_RX | SEG_DB);
	set_descriptor(DATA0, 0, 0xfffff, DATA_RW);
	set_descriptor(CODE64, 0, 0xfffff, CODE_RX | SEG_L);
	set_descriptor(CODE3, 0, 0xfffff, CODE_RX | SEG_DB | DPL3);
	set_descriptor(DATA3, 0, 0xfffff, DATA_RW | DPL3);
	set_descriptor(CODE64U, 0, 0xfffff, CODE_RX | SEG_L | DPL3);
	set_descriptor(CONFORM, 0, 0xfffff, CODE_RX | 4 | SEG_DB);
	set_descriptor(ABSENT, 0, 0xfffff, (CODE_RX | SEG_DB) & ~SEG_P);
	set_descriptor(DATA_RO, 0, 0xfffff, (DATA_RW & ~2u) | DPL3);
	set_descriptor(DATA16, 0, 0xffff, (DATA_RW & ~(SEG_DB | SEG_G)));
	machine->v->gdt = (struct descriptor_table){GDT, 0x9f};
	machine->v->idt = (struct descriptor_table){IDT, 0xfff};
}

static void start(u32 cpl, u16 cs, u16 ss)
{
	struct soft_vcpu *v = machine->v;
	struct descriptor d;

	v->cpl = (u8)cpl;
	v->rip = CODE;
	v->regs[RSP] = STACK;
	vcpu_set_rflags(v, RFLAGS_IF | 2);
	for (int n = 0; n < 6; n++) {
		u16 selector = n == SEG_CS ? cs : ss;
		assert_true(desc_read(v, selector, &d));
		segment_fill(&v->seg[n], selector, &d);
	}
	vcpu_update_mode(v);
}

void machine_long(u32 cpl)
{
	struct soft_vcpu *v = machine->v;

	v->cr0 = CR0_PE | CR0_PG;
	v->msr.efer = EFER_LME | EFER_LMA | EFER_SCE;
	start(cpl, cpl ? CODE64U : CODE64, cpl ? DATA3 : DATA0);
	set_descriptor(SEL_TSS, TSS, 0x67, SEG_P | SYS_TSS_BUSY);
	poke(TSS + 4, 8, STACK0);
	poke(TSS + 36, 8, STACK_IST);
	v->tr = (struct segment){TSS, 0x67, SEG_P | SYS_TSS_BUSY, SEL_TSS};
}

void machine_protected(u32 cpl)
{
	struct soft_vcpu *v = machine->v;

	v->cr0 = CR0_PE;
	start(cpl, cpl ? CODE3 : CODE0, cpl ? DATA3 : DATA0);
	set_descriptor(SEL_TSS, TSS, 0x67, SEG_P | SYS_TSS_BUSY);
	poke(TSS + 4, 4, STACK0);
	poke(TSS + 8, 4, DATA0);
	v->tr = (struct segment){TSS, 0xff, SEG_P | SYS_TSS_BUSY, SEL_TSS};
}

void machine_real(void)
{
	struct soft_vcpu *v = machine->v;

	v->cr0 = 0;
	v->cpl = 0;
	v->idt = (struct descriptor_table){0, 0x3ff};
	for (int n = 0; n < 6; n++)
		v->seg[n] = (struct segment){0x10000, 0xffff, SEG_P | SEG_S | 3, 0x1000};
	v->rip = 0x100;
	v->regs[RSP] = 0x8000;
	vcpu_set_rflags(v, RFLAGS_IF | 2);
}

void machine_v86(u32 io_privilege)
{
	struct soft_vcpu *v = machine->v;

	machine_protected(3);
	vcpu_set_rflags(v, RFLAGS_IF | RFLAGS_VM | (u64)io_privilege << 12 | 2);
	for (int n = 0; n < 6; n++)
		load_segment_real(v, n, (u16)(0x7000 + n));
	v->rip = 0x100;
	v->regs[RSP] = 0x8000;
}

int machine_setup(void **state)
{
	machine = calloc(1, sizeof(*machine));
	machine->v = aligned_alloc(64, align_up(sizeof(*machine->v), 64));
	memset(machine->v, 0, sizeof(*machine->v));
	machine->v->vm = &machine->vm;
	machine->vm.irqchip = (struct irqchip *)machine; /* present; never looked into here */
	machine->fault_page = machine->exit_page = ~0ull;
	machine->external = -1;
	machine->v->tr.access = machine->v->ldtr.access = SEG_UNUSABLE;
	machine->v->dr6 = DR6_FIXED1;
	machine->v->dr7 = DR7_FIXED1;
	build_gdt();
	return 0;
}

int machine_teardown(void **state)
{
	free(machine->v);
	free(machine);
	machine = NULL;
	return 0;
}

bool run_op(op_function *op, struct insn *i)
{
	struct soft_vcpu *v = machine->v;

	if (!i->opsize)
		i->opsize = is_code64(v) ? 8 : v->seg[SEG_CS].access & SEG_DB ? 4 : 2;
	i->stacksize = is_code64(v) ? 8 : v->seg[SEG_SS].access & SEG_DB ? 4 : 2;
	i->addrsize = is_code64(v) ? 8 : 4;
	i->seg = SEG_DS;
	v->next_rip = v->rip + 2;
	if (setjmp(machine->back))
		return false;
	op(v, i);
	return true;
}

bool run_events(void)
{
	if (setjmp(machine->back))
		return false;
	events_deliver(machine->v);
	return true;
}

void settle(void)
{
	for (int n = 0; n < 8 && !machine->v->events.triple_fault; n++) {
		if (!events_pending(machine->v))
			return;
		run_events();
	}
}

void fault(u8 vector, u32 error)
{
	if (!setjmp(machine->back))
		raise_error(cpu(), vector, error);
}

void int_n(u8 vector)
{
	struct insn i = {.imm = vector};

	run_op(op_int_n, &i);
}

void expect_selectors(u16 cs, u16 ss)
{
	assert_int_equal(cpu()->seg[SEG_CS].selector, cs);
	assert_int_equal(cpu()->seg[SEG_SS].selector, ss);
}
