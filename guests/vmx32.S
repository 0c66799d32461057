/*
 * A hypervisor outside IA-32e mode (SDM vol. 3C 27.2.4, 27.3.1.6, 28.5.4): host address-space size 0, by 32-bit paging
 * and by PAE; guests with the other kind of paging; instruction information with 32-bit addresses.
 */
#include "lib.h"
#include "vmx.h"
GUEST(vmx32)

#define CR0_PG	0x80000000
#define CR0_NE	0x20
#define CR4_PSE 0x10
#define CR4_PAE 0x20
#define LARGE	(PTE_P | PTE_W | PTE_PS)

/* The 4 MiB from TEST_VA on are the first 4 MiB for 32-bit paging; for PAE they lead to @wide_page alone. */
#define AT_TEST_VA(label) [label + TEST_VA]

	.text
guest_main:
	need_vmx
	call	make_tables
	mov	eax, offset directory
	mov	cr3, eax
	mov	eax, cr4
	or	eax, CR4_PSE
	mov	cr4, eax
	mov	eax, cr0
	or	eax, CR0_PG | CR0_NE
	mov	cr0, eax
	call	vmx_begin

	/* ---- both by 32-bit paging ---- */
	mov	dword ptr [value], 0x1111
	runs(mov ecx, AT_TEST_VA(value); inc dword ptr [value])
	expect(ecx, 0x1111)
	expect([value], 0x1112)
	expect_exit(R_CPUID, 0, 2, 0, cpuid)
	expect_exit(R_INVD, 0, 2, 0, invd)
	controls(CPU_IO | CPU_HLT, 0)
	mov	edx, 0x1234
	expect_exit(R_IO, 0x1234000b, 1, 0, in eax, dx)
	expect_exit(R_IO, 0x12340009, 2, 0, in ax, dx)
	expect_exit(R_HLT, 0, 1, 0, hlt)
	controls(0, 0)
	/* 9:7 32-bit addresses, 17:15 segment, 21:18 index, 26:23 base; displacements have 32 bits */
	mov	ebx, offset value
	mov	ecx, 2
	expect_exit(R_VMCLEAR, 0xfffffff8, 5, 0x01c18080, vmclear [ebx - 8])
	expect_exit(R_VMPTRLD, 0, 4, 0x01858082, vmptrld [ebx + ecx * 4])
	expect_exit(R_VMREAD, 0, 3, 0x20000408 | 6 << 28, vmread ecx, esi)
	expect_exit(R_VMWRITE, offset value, 7, 0x68418080, vmwrite esi, [value])
	controls(CPU_CR3_STORE, 0)
	expect_exit(R_CR, 0x513, 3, 0, mov ebp, cr3)
	controls(0, 0)

	/* ---- operands of 32 bits: of a wide field the low half, by its name or the other's (25.11.2) ---- */
	mov	dword ptr [value + 4], 0x5555
	mov	eax, TSC_OFFSET + 1
	mov	dword ptr [value], 0x9999
	vmwrite	eax, [value]
	expect_field(TSC_OFFSET + 1, 0x9999)
	mov	eax, TSC_OFFSET
	vmwrite	eax, [value]			/* the high half becomes 0 */
	expect_field(TSC_OFFSET, 0x9999)
	expect_field(TSC_OFFSET + 1, 0)
	mov	eax, GUEST_CR3
	vmread	[value], eax
	expect([value], offset directory)
	expect([value + 4], 0x5555)

	/* ---- a guest with PAE; its PDPTEs come from memory ---- */
	mov	dword ptr [wide_page], 0x2222
	put	GUEST_CR3, "offset pdpt"
	mov	ecx, cr4
	or	ecx, CR4_PAE
	put_register GUEST_CR4, ecx
	runs(mov ecx, [TEST_VA]; mov edx, cr4)
	expect(ecx, 0x2222)
	and	edx, CR4_PAE
	expect(edx, CR4_PAE)
	mov	eax, cr4
	and	eax, CR4_PAE
	expect(eax, 0)
	mov	ecx, AT_TEST_VA(value)		/* the hypervisor's own tables again */
	expect(ecx, [value])
	or	dword ptr [pdpt + 16], 0x1e6	/* reserved bits, SDM vol. 3A table 4-8 */
	l2(nop)
	expect([x_reason], 0x80000000 | R_BAD_GUEST)
	expect([x_qualification], 2)
	and	dword ptr [pdpt + 16], ~0x1e6
	runs(nop)

	/* ---- a hypervisor with PAE, a guest without ---- */
	put	GUEST_CR3, "offset directory"
	mov	ecx, cr4
	put_register GUEST_CR4, ecx
	or	ecx, CR4_PAE
	put_register HOST_CR4, ecx
	put	HOST_CR3, "offset pdpt"
	l2(mov ecx, AT_TEST_VA(value); vmcall)
	expect([x_reason], R_VMCALL)
	expect(ecx, [value])
	mov	eax, cr4
	and	eax, CR4_PAE
	expect(eax, CR4_PAE)
	mov	ecx, [TEST_VA]
	expect(ecx, 0x2222)
	/* the PDPTE registers keep what the exit has loaded until the next one */
	mov	dword ptr [other_page], 0x3333
	mov	dword ptr [pdpt + 8], offset other_directory + PTE_P
	invlpg	[TEST_VA]
	mov	ecx, [TEST_VA]
	expect(ecx, 0x2222)
	runs(nop)
	mov	ecx, [TEST_VA]
	expect(ecx, 0x3333)

	/* ---- both with PAE, tables of their own ---- */
	put	GUEST_CR3, "offset other_pdpt"
	mov	ecx, cr4
	put_register GUEST_CR4, ecx
	runs(mov ecx, [TEST_VA])
	expect(ecx, 0x2222)
	mov	ecx, [TEST_VA]
	expect(ecx, 0x3333)

	/* ---- IA-32e mode is out of reach from here ---- */
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, EXIT_HOST_64
	l2(nop)
	expect([x_reason], 0x80000008)
	put_controls EXIT_CONTROLS, MSR_VMX_TRUE_EXIT, 0
	put_controls ENTRY_CONTROLS, MSR_VMX_TRUE_ENTRY, ENTRY_IA32E
	l2(nop)
	expect([x_reason], 0x80000008)
	put_controls ENTRY_CONTROLS, MSR_VMX_TRUE_ENTRY, 0
	runs(nop)
	vmxoff
	expect_flags(F_ARITH, 0)
	ret

/* 4 GiB as they are, but for TEST_VA: by a directory of 4 MiB pages, and by PAE with 2 MiB pages. Clobbers EAX, ECX, EDI. */
make_tables:
	mov	edi, offset directory
	mov	eax, LARGE
1:	mov	[edi], eax
	add	edi, 4
	add	eax, 0x400000
	jnc	1b
	mov	dword ptr [directory + (TEST_VA >> 22) * 4], LARGE
	mov	edi, offset wide_directories
	mov	eax, LARGE
1:	mov	[edi], eax
	add	edi, 8
	add	eax, 0x200000
	jnc	1b
	mov	edi, offset other_directory
	mov	eax, offset other_table + PTE_P + PTE_W
	mov	[edi], eax
	mov	dword ptr [wide_directories + 0x1000], offset wide_table + PTE_P + PTE_W
	mov	dword ptr [wide_table], offset wide_page + PTE_P + PTE_W
	mov	dword ptr [other_table], offset other_page + PTE_P + PTE_W
	mov	eax, offset wide_directories + PTE_P
	xor	ecx, ecx
1:	mov	[pdpt + ecx * 8], eax
	mov	[other_pdpt + ecx * 8], eax
	add	eax, 0x1000
	inc	ecx
	cmp	ecx, 4
	jne	1b
	ret
#include "vmx.inc"
	.bss
	.balign 4096
directory: .skip 4096
wide_directories: .skip 4 * 4096
other_directory: .skip 4096
wide_table: .skip 4096
other_table: .skip 4096
wide_page: .skip 4096
other_page: .skip 4096
pdpt:	.skip 32
other_pdpt: .skip 32
value:	.skip 8
