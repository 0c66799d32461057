/* The small system instructions: TLB and cache maintenance, CLAC and STAC, hypercalls, plain
 * faults. */
#include <errno.h>
#include <linux/kvm_para.h>

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

/* SDM 2A INVLPG. The operand's address is not checked against its segment, and not accessed. */
void op_invlpg(struct soft_vcpu *v, const struct insn *i)
{
	if (!i->is_mem || i->lock)
		raise_ud(v);
	require_cpl0(v);
	u64 linear = insn_ea(v, i);
	if (!in_64bit(v))
		linear = (u32)(linear + v->seg[i->seg].base);
	else if (i->seg == SEG_FS || i->seg == SEG_GS)
		linear += v->seg[i->seg].base;
	if (vmx_nonroot(v))
		vmx_on_invlpg(v, i, linear);
	/* A non-canonical address: nothing happens. */
	if (is_canonical(linear))
		tlb_flush_page(v, linear);
	v->rip = v->next_rip;
}

enum { INVPCID_ADDRESS, INVPCID_PCID, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

/* SDM 2A INVPCID. Descriptor: 11:0 PCID, 63:12 zero, 127:64 linear address. */
void op_invpcid(struct soft_vcpu *v, const struct insn *i)
{
	u64 descriptor[2];

	if (!i->is_mem || i->lock || !feature(v, FEATURE_INVPCID) || !vmx_allows_invpcid(v))
		raise_ud(v);
	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_invpcid(v, i);
	u64 type = in_64bit(v) ? v->regs[i->reg] : (u32)v->regs[i->reg];
	mem_read_buf(v, i->seg, insn_ea(v, i), descriptor, sizeof(descriptor));
	if (type > INVPCID_ALL_BUT_GLOBAL || descriptor[0] >> 12)
		raise_gp(v, 0);
	u64 pcid = descriptor[0];
	if (type <= INVPCID_PCID && pcid && !(v->cr4 & CR4_PCIDE))
		raise_gp(v, 0);
	if (type == INVPCID_ADDRESS && !is_canonical(descriptor[1]))
		raise_gp(v, 0);

	u64 current = v->cr4 & CR4_PCIDE ? v->cr3 & CR3_PCID : 0;
	switch (type) {
	case INVPCID_ADDRESS:
		if (pcid == current)
			tlb_flush_page(v, descriptor[1]);
		else
			context_flush(v, pcid); /* more than is asked for */
		break;
	case INVPCID_PCID:
		context_flush(v, pcid);
		break;
	case INVPCID_ALL:
		tlb_flush(v, false);
		break;
	case INVPCID_ALL_BUT_GLOBAL:
		tlb_flush(v, true);
		break;
	}
	v->rip = v->next_rip;
}

/* WBINVD, WBNOINVD, INVD: guest memory is coherent host memory, there is nothing to write back. */
void op_wbinvd(struct soft_vcpu *v, const struct insn *i)
{
	if (i->lock)
		raise_ud(v);
	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_wbinvd(v, i);
}

/* SDM 2A CLAC, STAC: #UD above CPL 0, without SMAP in CPUID, with LOCK. CR4.SMAP tells without a
 * search. */
static void set_ac(struct soft_vcpu *v, const struct insn *i, u64 ac)
{
	if (i->lock || v->cpl > 0 || (!(v->cr4 & CR4_SMAP) && !feature(v, FEATURE_SMAP)))
		raise_ud(v);
	v->rflags_sys = (v->rflags_sys & ~RFLAGS_AC) | ac;
	vcpu_update_mode(v);
	v->rip = v->next_rip;
}

void op_clac(struct soft_vcpu *v, const struct insn *i)
{
	set_ac(v, i, 0);
}

void op_stac(struct soft_vcpu *v, const struct insn *i)
{
	set_ac(v, i, RFLAGS_AC);
}

/*
 * VMCALL and VMMCALL outside VMX operation: a call to the hypervisor that the guest runs under,
 * with the ABI of Documentation/virt/kvm/x86/hypercalls.rst (RAX the number and the result),
 * whichever of the two it chose: no vendor's own processor is beneath. No call is offered
 * (KVM_FEATURE_*), so each answers KVM_ENOSYS; above CPL 0 KVM_EPERM, as KVM does. With no KVM
 * signature in CPUID the instruction does not exist: #UD (SDM 3C 31.3).
 */
void op_hypercall(struct soft_vcpu *v, const struct insn *i)
{
	u32 leaf[4];

	if (v->vmx.on && i->opcode == 0x01 && i->modrm == 0xc1) {
		vmx_vmcall(v, i);
		return;
	}
	cpuid_query(v, 0x40000000, 0, leaf);
	if (v->vmx.on || i->lock || leaf[CPUID_EBX] != 0x4b4d564b) /* "KVMK" */
		raise_ud(v);
	s64 result = v->cpl > 0 ? -KVM_EPERM : -KVM_ENOSYS;
	v->regs[RAX] = in_64bit(v) ? (u64)result : (u32)result;
	v->rip = v->next_rip;
}

void op_ud(struct soft_vcpu *v, const struct insn *i)
{
	raise_ud(v);
}

void op_nm(struct soft_vcpu *v, const struct insn *i)
{
	raise(v, EXC_NM);
}

/* MOVDIR64B: 64 bytes from the memory operand to ES:reg, which must be aligned. SDM 2B. */
void op_movdir64b(struct soft_vcpu *v, const struct insn *i)
{
	u64 to = v->regs[i->reg] & (~0ull >> (64 - 8 * i->addrsize));
	u8 line[64];

	if (!i->is_mem || i->lock || !feature(v, FEATURE_MOVDIR64B))
		raise_ud(v);
	mem_read_buf(v, (enum x86_seg)i->seg, insn_ea(v, i), line, sizeof(line));
	u64 linear = seg_linear(v, SEG_ES, to, sizeof(line), ACCESS_WRITE);
	if (linear & (sizeof(line) - 1))
		raise_gp(v, 0);
	mem_write_linear(v, linear, line, sizeof(line), v->mmu_index, false);
}
