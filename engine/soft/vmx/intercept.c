/* Instructions that leave VMX non-root operation: SDM 3C 26.1. Inside. */
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/information.h"
#include "engine/soft/vmx/region.h"

/* ---- without conditions, or on a control ---- */

static void leave_if(struct soft_vcpu *v, const struct insn *i, bool wanted, u32 reason)
{
	if (wanted)
		vmx_exit_insn(v, i, reason, 0);
}

void vmx_on_cpuid(struct soft_vcpu *v, const struct insn *i)
{
	vmx_exit_insn(v, i, REASON_CPUID, 0);
}

void vmx_on_xsetbv(struct soft_vcpu *v, const struct insn *i)
{
	vmx_exit_insn(v, i, REASON_XSETBV, 0);
}

void vmx_on_hlt(struct soft_vcpu *v, const struct insn *i)
{
	leave_if(v, i, vmx_cpu(v, CPU_HLT), REASON_HLT);
}

void vmx_on_rdpmc(struct soft_vcpu *v, const struct insn *i)
{
	leave_if(v, i, vmx_cpu(v, CPU_RDPMC), REASON_RDPMC);
}

void vmx_on_rdtsc(struct soft_vcpu *v, const struct insn *i)
{
	leave_if(v, i, vmx_cpu(v, CPU_RDTSC), i->op == OP_ID_rdtscp ? REASON_RDTSCP : REASON_RDTSC);
}

/* INVD (0F 08) always, WBINVD (0F 09) on a control. */
void vmx_on_wbinvd(struct soft_vcpu *v, const struct insn *i)
{
	if (i->opcode == 0x08)
		vmx_exit_insn(v, i, REASON_INVD, 0);
	leave_if(v, i, vmx_cpu2(v, CPU2_WBINVD), REASON_WBINVD);
}

void vmx_on_invlpg(struct soft_vcpu *v, const struct insn *i, u64 linear)
{
	if (vmx_cpu(v, CPU_INVLPG))
		vmx_exit_insn(v, i, REASON_INVLPG, linear);
}

void vmx_on_invpcid(struct soft_vcpu *v, const struct insn *i)
{
	if (vmx_cpu(v, CPU_INVLPG))
		vmx_exit_operand(v, i, REASON_INVPCID, i->reg);
}

/* Qualification, table 28-4: 2:0 register, 4 from it, 11:8 general register. */
void vmx_on_mov_dr(struct soft_vcpu *v, const struct insn *i, bool from)
{
	if (vmx_cpu(v, CPU_MOV_DR))
		vmx_exit_insn(v, i, REASON_MOV_DR, i->reg | (from ? BIT(4) : 0) | (u64)i->rm << 8);
}

/* ---- descriptor tables ---- */

void vmx_on_table(struct soft_vcpu *v, const struct insn *i, u32 identity)
{
	u32 information = vmx_information_memory(i) | identity << 28;

	if (!vmx_cpu2(v, CPU2_DESCRIPTOR_TABLES))
		return;
	if (!in_64bit(v) && i->opsize != 2)
		information |= BIT(11);
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_GDTR_IDTR,
			.length = i->length,
			.qualification = vmx_operand_displacement(v, i),
			.information = information,
		    });
}

void vmx_on_system_segment(struct soft_vcpu *v, const struct insn *i, u32 identity)
{
	if (!vmx_cpu2(v, CPU2_DESCRIPTOR_TABLES))
		return;
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_LDTR_TR,
			.length = i->length,
			.qualification = vmx_operand_displacement(v, i),
			.information = vmx_information_operand(i) | identity << 28,
		    });
}

/* ---- MSRs ---- */

/* 25.6.9: four bitmaps of 1 KiB: reads of low and of high MSRs, writes of both. */
#define MSR_LOW_LAST   0x1fffu
#define MSR_HIGH_FIRST 0xc0000000u
#define MSR_HIGH_LAST  0xc0001fffu

void vmx_on_msr(struct soft_vcpu *v, const struct insn *i, u32 index, bool write)
{
	bool high = index >= MSR_HIGH_FIRST && index <= MSR_HIGH_LAST;
	bool leaves = true;

	if (vmx_cpu(v, CPU_MSR_BITMAPS) && (high || index <= MSR_LOW_LAST)) {
		u32 offset = (write ? 2048 : 0) + (high ? 1024 : 0) + (index & 0x1fff) / 8;
		u8 byte;
		vmx_phys_read(v, vmx_get(v, VMX_MSR_BITMAP) + offset, &byte, 1);
		leaves = byte >> index % 8 & 1;
	}
	leave_if(v, i, leaves, write ? REASON_WRMSR : REASON_RDMSR);
}

/* (value * multiplier) >> 48 + offset, in 128 bits (25.6.5). */
u64 vmx_tsc(const struct soft_vcpu *v)
{
	u64 tsc = guest_tsc(v);

	if (!vmx_cpu(v, CPU_TSC_OFFSETTING))
		return tsc;
	if (vmx_cpu2(v, CPU2_TSC_SCALING))
		tsc = (u64)((unsigned __int128)tsc * vmx_get(v, VMX_TSC_MULTIPLIER) >> 48);
	return tsc + vmx_get(v, VMX_TSC_OFFSET);
}

/* ---- ports ---- */

#define PORTS 0x10000u

/* 25.6.4: a bit a port, of ports below 8000H in bitmap A. An access that wraps always leaves. */
static bool port_leaves(struct soft_vcpu *v, u16 port, u32 size)
{
	if (!vmx_cpu(v, CPU_IO_BITMAPS))
		return vmx_cpu(v, CPU_IO);
	if (port + size > PORTS)
		return true;
	for (u32 p = port; p < port + size; p++) {
		u8 byte;
		u64 map = vmx_get(v, p & 0x8000 ? VMX_IO_BITMAP_B : VMX_IO_BITMAP_A);
		vmx_phys_read(v, map + (p & 0x7fff) / 8, &byte, 1);
		if (byte >> p % 8 & 1)
			return true;
	}
	return false;
}

/* Table 28-5: 2:0 size - 1, 3 IN, 4 string, 5 REP, 6 immediate, 31:16 port. */
static u64 port_qualification(u16 port, u32 size, bool in)
{
	return (size - 1) | (in ? BIT(3) : 0) | (u64)port << 16;
}

void vmx_on_port(struct soft_vcpu *v, const struct insn *i, u16 port, u32 size, bool in)
{
	if (port_leaves(v, port, size))
		vmx_exit_insn(v, i, REASON_IO,
			      port_qualification(port, size, in) | (i->opcode & 8 ? 0 : BIT(6)));
}

void vmx_on_port_string(struct soft_vcpu *v, const struct insn *i, u16 port, u32 size, bool in,
			u64 linear)
{
	u32 information = (u32)(__builtin_ctz(i->addrsize) - 1) << 7;

	if (!port_leaves(v, port, size))
		return;
	if (!in)
		information |= (u32)i->seg << 15;
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_IO,
			.length = i->length,
			.qualification =
			    port_qualification(port, size, in) | BIT(4) | (i->rep ? BIT(5) : 0),
			.information = information,
			.linear = linear,
		    });
}

/* ---- task switches, 26.4.2 ---- */

void vmx_on_task_switch(struct soft_vcpu *v, u16 selector, u32 source)
{
	vmx_exit(v, &(struct vmx_exit){
			.reason = REASON_TASK_SWITCH,
			.length = (u32)(v->next_rip - v->rip) & 0xf,
			.qualification = selector | (u64)source << 30,
		    });
}

/* ---- instructions that are native elsewhere ---- */

/* 26.1.3: PAUSEs less than PLE_GAP apart are one loop; one that lasts longer than PLE_WINDOW
 * leaves. At CPL 0 only. */
static bool pause_loops(struct soft_vcpu *v)
{
	u64 now = guest_tsc(v), last = v->vmx.pause_last;

	if (v->cpl > 0 || !vmx_cpu2(v, CPU2_PAUSE_LOOP))
		return false;
	v->vmx.pause_last = now;
	if (!last || now - last > vmx_get(v, VMX_PLE_GAP)) {
		v->vmx.pause_first = now;
		return false;
	}
	return now - v->vmx.pause_first > vmx_get(v, VMX_PLE_WINDOW);
}

void op_pause(struct soft_vcpu *v, const struct insn *i)
{
	leave_if(v, i, vmx_cpu(v, CPU_PAUSE) || pause_loops(v), REASON_PAUSE);
	__builtin_ia32_pause();
}

/* Table 28-12: 6:3 register, 12:11 operand size. */
static void leave_random(struct soft_vcpu *v, const struct insn *i, u32 control, u32 reason)
{
	if (!vmx_cpu2(v, control))
		return;
	vmx_exit(v, &(struct vmx_exit){
			.reason = reason,
			.length = i->length,
			.information = (u32)i->rm << 3 | (u32)(__builtin_ctz(i->opsize) - 1) << 11,
		    });
}

static void random_result(struct soft_vcpu *v, const struct insn *i, u64 value, bool good)
{
	reg_write(v, i, i->rm, i->opsize, value);
	vcpu_set_arith(v, good ? RFLAGS_CF : 0);
}

void op_rdrand(struct soft_vcpu *v, const struct insn *i)
{
	u64 value;
	bool good;

	leave_random(v, i, CPU2_RDRAND, REASON_RDRAND);
	__asm__ volatile("rdrand %0" : "=r"(value), "=@ccc"(good));
	random_result(v, i, value, good);
}

void op_rdseed(struct soft_vcpu *v, const struct insn *i)
{
	u64 value;
	bool good;

	leave_random(v, i, CPU2_RDSEED, REASON_RDSEED);
	__asm__ volatile("rdseed %0" : "=r"(value), "=@ccc"(good));
	random_result(v, i, value, good);
}
