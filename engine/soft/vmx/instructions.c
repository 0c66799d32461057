/*
 * The VMX instructions in root operation: SDM 3C chapter 31. In non-root operation they leave
 * (intercept.c), but for VMREAD and VMWRITE of a shadow VMCS and VMFUNC.
 */
#include "debug/trace.h"
#include "engine/soft/mmu/ept.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/check.h"
#include "engine/soft/vmx/information.h"
#include "engine/soft/vmx/region.h"

#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX  BIT(2) /* outside SMX operation */

/* ---- VMsucceed, VMfailInvalid, VMfailValid: SDM 3C 31.2 ---- */

static void succeed(struct soft_vcpu *v)
{
	vcpu_set_arith(v, 0);
}

static void fail_invalid(struct soft_vcpu *v)
{
	vcpu_set_arith(v, RFLAGS_CF);
}

static void fail(struct soft_vcpu *v, u32 error)
{
	if (v->vmx.current == VMCS_NONE) {
		fail_invalid(v);
		return;
	}
	vcpu_set_arith(v, RFLAGS_ZF);
	vmx_set(v, VMX_INSTRUCTION_ERROR, error);
	vmx_saw_error(v);
}

/* ---- what all of them check first ---- */

/* Real mode, virtual-8086 mode, compatibility mode. */
static bool wrong_mode(const struct soft_vcpu *v)
{
	return !(v->cr0 & CR0_PE) || (v->rflags_sys & RFLAGS_VM) ||
	       ((v->msr.efer & EFER_LMA) && !in_64bit(v));
}

static void require_vmx(struct soft_vcpu *v, const struct insn *i)
{
	if (!v->vmx.on || i->lock || wrong_mode(v))
		raise_ud(v);
}

/* An instruction that leaves with the displacement and the operand's description, and needs CPL 0
 * otherwise. */
static void require_root(struct soft_vcpu *v, const struct insn *i, u32 reason)
{
	require_vmx(v, i);
	if (v->vmx.nonroot)
		vmx_exit_operand(v, i, reason, 0);
	require_cpl0(v);
}

static u64 pointer_operand(struct soft_vcpu *v, const struct insn *i)
{
	return mem_read(v, (enum x86_seg)i->seg, insn_ea(v, i), 8);
}

static bool pointer_valid(const struct soft_vcpu *v, u64 pointer)
{
	return vmx_page_valid(v->reserved_pa, pointer);
}

/* ---- entering and leaving VMX operation ---- */

void op_vmxon(struct soft_vcpu *v, const struct insn *i)
{
	if (!i->is_mem || i->lock || !(v->cr4 & CR4_VMXE) || wrong_mode(v))
		raise_ud(v);
	if (v->vmx.nonroot)
		vmx_exit_operand(v, i, REASON_VMXON, 0);
	require_cpl0(v);
	if (v->vmx.on) {
		fail(v, ERROR_VMXON_IN_ROOT);
		return;
	}
	/* SDM 3C 24.7, 24.8 */
	u64 enabled = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
	vmx_learn(v);
	if (!vmx_cr0_allowed(v, v->cr0) || !vmx_cr4_allowed(v, v->cr4) ||
	    (v->msr.feature_control & enabled) != enabled)
		raise_gp(v, 0);
	u64 region = pointer_operand(v, i);
	if (!pointer_valid(v, region) || vmx_region_revision(v, region) != VMCS_REVISION) {
		fail_invalid(v);
		return;
	}
	v->vmx.vmxon = region;
	v->vmx.current = VMCS_NONE;
	v->vmx.on = true;
	succeed(v);
	trace_gp(vmx, 1, "vcpu %u: VMX operation on", v->base.id);
}

void op_vmxoff(struct soft_vcpu *v, const struct insn *i)
{
	require_vmx(v, i);
	if (v->vmx.nonroot)
		vmx_exit_insn(v, i, REASON_VMXOFF, 0);
	require_cpl0(v);
	vmx_region_switch(v, VMCS_NONE);
	v->vmx.on = false;
	v->rip = v->next_rip;
	succeed(v);
	vcpu_attention(v, ATTENTION_IRQ); /* an INIT may have waited */
	trace_gp(vmx, 1, "vcpu %u: VMX operation off", v->base.id);
}

/* ---- VMCS pointers ---- */

void op_vmclear(struct soft_vcpu *v, const struct insn *i)
{
	if (!i->is_mem)
		raise_ud(v);
	require_root(v, i, REASON_VMCLEAR);
	u64 pointer = pointer_operand(v, i);
	if (!pointer_valid(v, pointer)) {
		fail(v, ERROR_VMCLEAR_ADDRESS);
	} else if (pointer == v->vmx.vmxon) {
		fail(v, ERROR_VMCLEAR_VMXON);
	} else {
		vmx_region_clear(v, pointer);
		succeed(v);
	}
}

void op_vmptrld(struct soft_vcpu *v, const struct insn *i)
{
	if (!i->is_mem)
		raise_ud(v);
	require_root(v, i, REASON_VMPTRLD);
	u64 pointer = pointer_operand(v, i);
	if (!pointer_valid(v, pointer)) {
		fail(v, ERROR_VMPTRLD_ADDRESS);
	} else if (pointer == v->vmx.vmxon) {
		fail(v, ERROR_VMPTRLD_VMXON);
	} else if ((vmx_region_revision(v, pointer) & ~VMCS_SHADOW) != VMCS_REVISION) {
		fail(v, ERROR_VMPTRLD_REVISION);
	} else {
		vmx_region_switch(v, pointer);
		succeed(v);
	}
}

void op_vmptrst(struct soft_vcpu *v, const struct insn *i)
{
	if (!i->is_mem)
		raise_ud(v);
	require_root(v, i, REASON_VMPTRST);
	mem_write(v, (enum x86_seg)i->seg, insn_ea(v, i), 8, v->vmx.current);
	succeed(v);
}

/* ---- fields ---- */

/* SDM 3C 25.10: with shadowing, fields whose bit in the bitmap is 0 are those of the VMCS at the
 * link pointer. */
static bool field_is_shadowed(struct soft_vcpu *v, enum vmx_field bitmap, u64 encoding)
{
	u8 byte;

	if (!vmx_cpu2(v, CPU2_VMCS_SHADOWING) || encoding >> 15)
		return false;
	vmx_phys_read(v, vmx_get(v, bitmap) + encoding / 8, &byte, 1);
	return !(byte >> encoding % 8 & 1);
}

static u32 field_operand_size(const struct soft_vcpu *v)
{
	return in_64bit(v) ? 8 : 4;
}

static u64 field_encoding(const struct soft_vcpu *v, const struct insn *i)
{
	return reg_read(v, i, i->reg, field_operand_size(v));
}

/* Which VMCS VMREAD or VMWRITE is about: *@shadow is a shadow VMCS, or VMCS_NONE: the current one.
 * false: VMfailInvalid, there is none. Leaves if it is the hypervisor's to do. */
static bool field_vmcs(struct soft_vcpu *v, const struct insn *i, u32 reason, u64 *shadow)
{
	u64 encoding = field_encoding(v, i);
	enum vmx_field bitmap = reason == REASON_VMREAD ? VMX_VMREAD_BITMAP : VMX_VMWRITE_BITMAP;

	require_vmx(v, i);
	*shadow = VMCS_NONE;
	if (v->vmx.nonroot && !field_is_shadowed(v, bitmap, encoding))
		vmx_exit_operand(v, i, reason, i->reg);
	require_cpl0(v);
	if (v->vmx.nonroot)
		*shadow = vmx_get(v, VMX_VMCS_LINK_POINTER);
	if ((v->vmx.nonroot ? *shadow : v->vmx.current) != VMCS_NONE)
		return true;
	fail_invalid(v);
	return false;
}

void op_vmread(struct soft_vcpu *v, const struct insn *i)
{
	u64 shadow, encoding = field_encoding(v, i);

	if (!field_vmcs(v, i, REASON_VMREAD, &shadow))
		return;
	int n = vmx_field_find(encoding);
	if (n < 0) {
		fail(v, ERROR_NO_FIELD); /* told in the current VMCS, not in a shadow VMCS */
		return;
	}
	u64 value =
	    shadow == VMCS_NONE ? v->vmx.vmcs.value[n] : vmx_region_read_field(v, shadow, (u32)n);
	if (encoding & VMX_ENCODING_HIGH)
		value >>= 32;
	rm_write(v, i, field_operand_size(v), value);
	succeed(v);
}

void op_vmwrite(struct soft_vcpu *v, const struct insn *i)
{
	u64 shadow, encoding = field_encoding(v, i);

	if (!field_vmcs(v, i, REASON_VMWRITE, &shadow))
		return;
	u64 value = rm_read(v, i, field_operand_size(v));
	int n = vmx_field_find(encoding);
	if (n < 0) {
		fail(v, ERROR_NO_FIELD);
		return;
	}
	/* Read-only fields too may be written (IA32_VMX_MISC bit 29). */
	if (encoding & VMX_ENCODING_HIGH) {
		u64 old = shadow == VMCS_NONE ? v->vmx.vmcs.value[n]
					      : vmx_region_read_field(v, shadow, (u32)n);
		value = (u32)old | value << 32;
	}
	value &= vmx_field_mask((u32)n);
	if (shadow == VMCS_NONE)
		v->vmx.vmcs.value[n] = value;
	else
		vmx_region_write_field(v, shadow, (u32)n, value);
	succeed(v);
}

/* ---- VM entry, and calls ---- */

static void enter(struct soft_vcpu *v, const struct insn *i, bool launch)
{
	require_vmx(v, i);
	if (v->vmx.nonroot)
		vmx_exit_insn(v, i, launch ? REASON_VMLAUNCH : REASON_VMRESUME, 0);
	require_cpl0(v);
	if (v->vmx.current == VMCS_NONE || v->vmx.shadow)
		fail_invalid(v);
	else if (v->int_shadow == 2)
		fail(v, ERROR_ENTRY_MOV_SS);
	else if (launch && v->vmx.launched)
		fail(v, ERROR_VMLAUNCH_NOT_CLEAR);
	else if (!launch && !v->vmx.launched)
		fail(v, ERROR_VMRESUME_NOT_LAUNCHED);
	else
		fail(v, vmx_enter(v, launch));
	v->rip = v->next_rip;
}

void op_vmlaunch(struct soft_vcpu *v, const struct insn *i)
{
	enter(v, i, true);
}

void op_vmresume(struct soft_vcpu *v, const struct insn *i)
{
	enter(v, i, false);
}

/* VMCALL in VMX operation; outside, op_hypercall(). SDM 3C 31.3: the VM exit comes before the
 * checks of mode and privilege. */
void vmx_vmcall(struct soft_vcpu *v, const struct insn *i)
{
	if (v->vmx.nonroot)
		vmx_exit_insn(v, i, REASON_VMCALL, 0);
	require_vmx(v, i);
	require_cpl0(v);
	fail(v, ERROR_VMCALL_IN_ROOT);
	v->rip = v->next_rip;
}

/* ---- invalidation ---- */

enum { INVEPT_CONTEXT = 1, INVEPT_ALL = 2 };
enum { INVVPID_ADDRESS, INVVPID_CONTEXT, INVVPID_ALL, INVVPID_CONTEXT_BUT_GLOBAL };

static u64 invalidation_operands(struct soft_vcpu *v, const struct insn *i, u64 descriptor[2])
{
	mem_read_buf(v, (enum x86_seg)i->seg, insn_ea(v, i), descriptor, 16);
	return in_64bit(v) ? v->regs[i->reg] : (u32)v->regs[i->reg];
}

void op_invept(struct soft_vcpu *v, const struct insn *i)
{
	u64 descriptor[2];

	if (!i->is_mem || !(CPU2_MAY & CPU2_EPT))
		raise_ud(v);
	require_vmx(v, i);
	if (v->vmx.nonroot)
		vmx_exit_operand(v, i, REASON_INVEPT, i->reg);
	require_cpl0(v);
	u64 type = invalidation_operands(v, i, descriptor);
	v->rip = v->next_rip;
	if ((type != INVEPT_CONTEXT && type != INVEPT_ALL) ||
	    (type == INVEPT_CONTEXT && !vmx_eptp_valid(v->reserved_pa, descriptor[0]))) {
		fail(v, ERROR_INVALID_OPERAND);
		return;
	}
	mmu_invept(v, type == INVEPT_ALL, descriptor[0]);
	succeed(v);
}

void op_invvpid(struct soft_vcpu *v, const struct insn *i)
{
	u64 descriptor[2];

	if (!i->is_mem)
		raise_ud(v);
	require_vmx(v, i);
	if (v->vmx.nonroot)
		vmx_exit_operand(v, i, REASON_INVVPID, i->reg);
	require_cpl0(v);
	u64 type = invalidation_operands(v, i, descriptor);
	u64 vpid = descriptor[0];
	v->rip = v->next_rip;
	if (type > INVVPID_CONTEXT_BUT_GLOBAL || vpid >> 16 || (type != INVVPID_ALL && !vpid) ||
	    (type == INVVPID_ADDRESS && !is_canonical(descriptor[1]))) {
		fail(v, ERROR_INVALID_OPERAND);
		return;
	}
	switch (type) {
	case INVVPID_ADDRESS:
		mmu_invvpid_address(v, (u16)vpid, descriptor[1]);
		break;
	case INVVPID_CONTEXT:
	case INVVPID_CONTEXT_BUT_GLOBAL:
		mmu_invvpid(v, (u16)vpid, type == INVVPID_CONTEXT_BUT_GLOBAL);
		break;
	case INVVPID_ALL:
		mmu_invvpid_all(v);
		break;
	}
	succeed(v);
}

/* SDM 3C 26.5.5 */
void op_vmfunc(struct soft_vcpu *v, const struct insn *i)
{
	u32 function = (u32)v->regs[RAX], index = (u32)v->regs[RCX];
	u64 eptp;

	if (!v->vmx.nonroot || i->lock || !vmx_cpu2(v, CPU2_VM_FUNCTIONS) || function > 63)
		raise_ud(v);
	if (!(vmx_get(v, VMX_VM_FUNCTION_CONTROLS) >> function & 1) || index >= EPTP_LIST_ENTRIES)
		vmx_exit_insn(v, i, REASON_VMFUNC, 0);
	vmx_phys_read(v, vmx_get(v, VMX_EPTP_LIST_ADDRESS) + index * 8, &eptp, 8);
	if (!vmx_eptp_valid(v->reserved_pa, eptp))
		vmx_exit_insn(v, i, REASON_VMFUNC, 0);
	vmx_set(v, VMX_EPT_POINTER, eptp);
	mmu_switch_eptp(v, eptp);
	v->rip = v->next_rip;
}
