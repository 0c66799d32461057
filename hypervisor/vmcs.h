/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The instructions that work on VMCSs and on what the processor has cached of guests' memory.
 *
 * Each says by CF or ZF that it failed (SDM 3C 30.2). With arguments as they are here none ever
 * does, so a failure is a bug of this module, told once and survived.
 */
#ifndef GUISE_VMCS_H
#define GUISE_VMCS_H

#include <linux/bug.h>
#include <linux/types.h>
#include <asm/asm.h>
#include <asm/vmx.h>

/* Outside VMX operation all of them are #UD. That happens when the machine is rebooted under
 * running guests (cpu.c), and then they do nothing. */
#define VMX_INSTRUCTION(text) "1: " text "\n2:" _ASM_EXTABLE(1b, 2b)

/* Tells of it, once. @operand: a field or an address. */
void vmcs_failed(const char *instruction, u64 operand);

static inline u64 vmcs_read(unsigned long field)
{
	unsigned long value = 0;
	bool failed;

	asm volatile(VMX_INSTRUCTION("vmread %[field], %[value]")
		     : [value] "+rm"(value), "=@ccbe"(failed)
		     : [field] "r"(field)
		     : "cc");
	if (unlikely(failed))
		vmcs_failed("VMREAD", field);
	return value;
}

static inline void vmcs_write(unsigned long field, u64 value)
{
	bool failed;

	asm volatile(VMX_INSTRUCTION("vmwrite %[value], %[field]")
		     : "=@ccbe"(failed)
		     : [field] "r"(field), [value] "rm"((unsigned long)value)
		     : "cc");
	if (unlikely(failed))
		vmcs_failed("VMWRITE", field);
}

static inline void vmcs_set_bits(unsigned long field, u32 bits)
{
	vmcs_write(field, vmcs_read(field) | bits);
}

static inline void vmcs_clear_bits(unsigned long field, u32 bits)
{
	vmcs_write(field, vmcs_read(field) & ~(u64)bits);
}

static inline void vmcs_point_to(phys_addr_t pa)
{
	bool failed;

	asm volatile(VMX_INSTRUCTION("vmptrld %[pa]")
		     : "=@ccbe"(failed)
		     : [pa] "m"(pa)
		     : "cc", "memory");
	if (unlikely(failed))
		vmcs_failed("VMPTRLD", pa);
}

static inline void vmcs_clear(phys_addr_t pa)
{
	bool failed;

	asm volatile(VMX_INSTRUCTION("vmclear %[pa]")
		     : "=@ccbe"(failed)
		     : [pa] "m"(pa)
		     : "cc", "memory");
	if (unlikely(failed))
		vmcs_failed("VMCLEAR", pa);
}

static inline void invept(unsigned long type, u64 eptp)
{
	const u64 descriptor[2] = {eptp, 0};
	bool failed;

	asm volatile(VMX_INSTRUCTION("invept %[descriptor], %[type]")
		     : "=@ccbe"(failed)
		     : [descriptor] "m"(descriptor), [type] "r"(type)
		     : "cc", "memory");
	if (unlikely(failed))
		vmcs_failed("INVEPT", eptp);
}

/* SDM 3C 28.3.3.1: what was cached of one EPT (@eptp), or of one VPID, is dropped on this
 * processor. */
static inline void invept_context(u64 eptp)
{
	invept(VMX_EPT_EXTENT_CONTEXT, eptp);
}

/* All that is cached of every EPT, on this processor. */
static inline void invept_all(void)
{
	invept(VMX_EPT_EXTENT_GLOBAL, 0);
}

static inline void invvpid_context(u16 vpid)
{
	const u64 descriptor[2] = {vpid, 0};
	bool failed;

	asm volatile(
	    VMX_INSTRUCTION("invvpid %[descriptor], %[type]")
	    : "=@ccbe"(failed)
	    : [descriptor] "m"(descriptor), [type] "r"(
						(unsigned long)VMX_VPID_EXTENT_SINGLE_CONTEXT)
	    : "cc", "memory");
	if (unlikely(failed))
		vmcs_failed("INVVPID", vpid);
}

#endif
