#include "tests/unit/state_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/gp.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/vmx/vmx.h"

struct world world;

static jmp_buf fault;
static struct soft_vm vm;

struct soft_vcpu *vcpu_new(void)
{
	struct soft_vcpu *v = aligned_alloc(64, align_up(sizeof(*v), 64));
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));

	memset(v, 0, sizeof(*v));
	memset(&world, 0, sizeof(world));
	memset(&vm, 0, sizeof(vm));
	world.tsc = 1000000;
	world.pdptrs_valid = true;
	v->vm = &vm;
	v->tsc_khz = clock_tsc_khz();
	vm.vcpus[0] = v;
	atomic_store(&vm.vcpu_count, 1);
	cpuid->nent = CPUID_MAX;
	xstate_probe(&v->layout, true);
	assert_int_equal(cpuid_supported(cpuid, clock_tsc_khz(), &v->layout, false), 0);
	assert_int_equal(soft_set_cpuid(&v->base, cpuid), 0);
	free(cpuid);
	vcpu_reset(v, false);
	return v;
}

void vcpu_free(struct soft_vcpu *v)
{
	free(v);
}

void enter_long_mode(struct soft_vcpu *v)
{
	v->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE | CR4_OSXMMEXCPT;
	v->msr.efer = EFER_LME | EFER_LMA | EFER_SCE;
	v->seg[SEG_CS].access = 0xa09b;
	v->mode = MODE_CODE64 | MODE_PE;
	v->cpl = 0;
}

int run_op(struct soft_vcpu *v, op_function *op, struct insn i)
{
	int vector = setjmp(fault);

	v->next_rip = v->rip + 3;
	if (vector)
		return vector - 1;
	op(v, &i);
	return NO_FAULT;
}

int guest_wrmsr(struct soft_vcpu *v, u32 index, u64 value)
{
	v->regs[RCX] = index;
	v->regs[RAX] = (u32)value;
	v->regs[RDX] = value >> 32;
	return run_op(v, op_wrmsr, (struct insn){0});
}

int guest_rdmsr(struct soft_vcpu *v, u32 index, u64 *value)
{
	v->regs[RCX] = index;
	int vector = run_op(v, op_rdmsr, (struct insn){0});
	*value = v->regs[RDX] << 32 | (u32)v->regs[RAX];
	return vector;
}

/* ---- the rest of the engine ---- */

void raise(struct soft_vcpu *v, u8 vector)
{
	world.error = ~0u;
	longjmp(fault, vector + 1);
}

void raise_error(struct soft_vcpu *v, u8 vector, u32 error)
{
	world.error = error;
	longjmp(fault, vector + 1);
}

void vcpu_update_mode(struct soft_vcpu *v)
{
}

void vcpu_segment_changed(struct soft_vcpu *v)
{
	v->seg_base_fs = v->seg[SEG_FS].base;
	v->seg_base_gs = v->seg[SEG_GS].base;
}

void vcpu_irq_window(struct soft_vcpu *v)
{
}

void vmx_set_irq_word(struct soft_vcpu *v)
{
}

void vcpu_poke(struct soft_vcpu *v, u32 bits)
{
	vcpu_attention(v, bits);
}

void tlb_flush(struct soft_vcpu *v, bool keep_global)
{
	world.flushes++;
	if (!keep_global)
		world.flushes_all++;
}

void tlb_forget(struct soft_vcpu *v)
{
	tlb_flush(v, false);
}

void tlb_flush_context(struct soft_vcpu *v, bool same)
{
	world.flushes++;
}

void tlb_flush_wp(struct soft_vcpu *v)
{
	world.wp_flushes++;
}

void context_switch(struct soft_vcpu *v, u64 cr3, bool keep)
{
	world.switches++;
	world.switch_kept = keep;
}

void shadow_pause(struct soft_vcpu *v)
{
}

void shadow_resume(struct soft_vcpu *v)
{
}

void shadow_switch(struct soft_vcpu *v, u64 cr3, bool keep)
{
}

void context_flush(struct soft_vcpu *v, u64 pcid)
{
	world.pcid_flushes++;
	world.flushed_pcid = pcid;
}

void tlb_flush_page(struct soft_vcpu *v, u64 linear)
{
	world.page_flushes++;
	world.flushed_page = linear;
}

int mmu_load_pdptrs(struct soft_vcpu *v, u64 cr3)
{
	world.pdptr_loads++;
	if (world.pdptrs_refused)
		return -EFAULT;
	return world.pdptrs_valid ? 0 : -EINVAL;
}

void ept_raise(struct soft_vcpu *v)
{
	longjmp(fault, EPT_RAISED + 1);
}

int mmu_walk(struct soft_vcpu *v, struct walk *w, enum access access, enum mmu_index index,
	     bool set_ad)
{
	w->gpa = w->linear;
	w->writable = true;
	return w->linear < MEMORY_SIZE ? 0 : -EFAULT;
}

u64 seg_linear(struct soft_vcpu *v, enum x86_seg seg, u64 offset, u32 size, enum access access)
{
	return offset;
}

void mem_read_linear(struct soft_vcpu *v, u64 linear, void *buf, u32 size, enum mmu_index index,
		     bool stack)
{
	if (linear + size > MEMORY_SIZE)
		raise_error(v, EXC_PF, 0);
	gp_copy(buf, world.memory + linear, size);
}

void mem_write_linear(struct soft_vcpu *v, u64 linear, const void *buf, u32 size,
		      enum mmu_index index, bool stack)
{
	if (linear + size > MEMORY_SIZE)
		raise_error(v, EXC_PF, PF_W);
	gp_copy(world.memory + linear, buf, size);
}

void mem_read_buf(struct soft_vcpu *v, enum x86_seg seg, u64 offset, void *buf, u32 size)
{
	mem_read_linear(v, offset, buf, size, MMU_KERNEL, false);
}

u64 insn_ea(const struct soft_vcpu *v, const struct insn *i)
{
	return (u64)i->disp;
}

u64 reg_read(const struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size)
{
	return size == 8 ? v->regs[reg] : v->regs[reg] & (BIT(size * 8) - 1);
}

void reg_write(struct soft_vcpu *v, const struct insn *i, u8 reg, u32 size, u64 value)
{
	if (size >= 4)
		v->regs[reg] = size == 8 ? value : (u32)value;
	else
		v->regs[reg] = (v->regs[reg] & ~0xffffull) | (u16)value;
}

u64 rm_read(struct soft_vcpu *v, const struct insn *i, u32 size)
{
	return reg_read(v, i, i->rm, size);
}

void rm_write(struct soft_vcpu *v, const struct insn *i, u32 size, u64 value)
{
	reg_write(v, i, i->rm, size, value);
}

bool lapic_msr(struct soft_vcpu *v, u32 index, u64 *value, bool write)
{
	if (index != 0x808 && index != 0x6e0)
		return false;
	if (write)
		world.lapic_value = *value;
	else
		*value = world.lapic_value;
	return true;
}

bool lapic_set_base(struct soft_vcpu *v, u64 value)
{
	v->msr.apic_base = value;
	return true;
}

void lapic_restore_base(struct soft_vcpu *v, u64 value)
{
	v->msr.apic_base = value;
}

void lapic_reset(struct lapic *lapic, bool init)
{
}

u64 lapic_get_tpr(struct soft_vcpu *v)
{
	return world.tpr;
}

void lapic_set_tpr(struct soft_vcpu *v, u64 cr8)
{
	world.tpr = cr8;
}

u32 clock_tsc_khz(void)
{
	return 2500000;
}

u64 guest_tsc(const struct soft_vcpu *v)
{
	return world.tsc + (u64)v->tsc_offset;
}

void kvmclock_update(struct soft_vcpu *v)
{
	world.clock_updates++;
}

void kvmclock_update_wall(struct soft_vcpu *v)
{
	world.clock_updates++;
}

u64 guest_rip_of_host(struct soft_vcpu *v, u64 host)
{
	return host ? 0x1234567890 : 0;
}
