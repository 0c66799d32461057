/* The registers that name tables: GDTR, IDTR, LDTR, TR (SDM 2A, 2B; 3A 2.4, 7.2). */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

/* Which instruction, in VM-exit instruction information: SDM 3C tables 28-10, 28-11. */
enum { VMX_SGDT, VMX_SIDT, VMX_LGDT, VMX_LIDT };
enum { VMX_SLDT, VMX_STR, VMX_LLDT, VMX_LTR };

static void need_cpl0(struct soft_vcpu *v)
{
	if (v->cpl != 0)
		raise_gp(v, 0);
}

/* SDM 3A 2.5 CR4.UMIP: SGDT, SIDT, SLDT, SMSW, STR only at CPL 0. */
static void check_umip(struct soft_vcpu *v)
{
	if (v->cr4 & CR4_UMIP && v->cpl != 0)
		raise_gp(v, 0);
}

/* The memory image: 2 bytes of limit, then the base: 8 bytes in 64-bit mode, else 4. */
static void load_table(struct soft_vcpu *v, const struct insn *i, struct descriptor_table *table,
		       u32 identity)
{
	u8 image[10] = {0};
	u64 base = 0;

	if (!i->is_mem)
		raise_ud(v);
	need_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_table(v, i, identity);
	bool code64 = is_code64(v);
	mem_read_buf(v, i->seg, insn_ea(v, i), image, code64 ? 10 : 6);
	for (u32 n = 0; n < 8; n++)
		base |= (u64)image[2 + n] << 8 * n;
	/* SDM 2A LGDT: in 64-bit mode the base must be canonical; 16-bit forms load 24 bits. */
	if (code64 && !is_canonical(base))
		raise_gp(v, 0);
	if (!code64 && i->opsize == 2)
		base &= 0xffffff;
	table->limit = (u16)(image[0] | image[1] << 8);
	table->base = base;
}

/* SDM 2B SGDT. 16-bit forms store all 32 bits of the base, as processors since the 386 do. */
static void store_table(struct soft_vcpu *v, const struct insn *i,
			const struct descriptor_table *table, u32 identity)
{
	u8 image[10] = {(u8)table->limit, (u8)(table->limit >> 8)};

	if (!i->is_mem)
		raise_ud(v);
	check_umip(v);
	if (vmx_nonroot(v))
		vmx_on_table(v, i, identity);
	for (u32 n = 0; n < 8; n++)
		image[2 + n] = (u8)(table->base >> 8 * n);
	mem_write_buf(v, i->seg, insn_ea(v, i), image, is_code64(v) ? 10 : 6);
}

void op_lgdt(struct soft_vcpu *v, const struct insn *i)
{
	load_table(v, i, &v->gdt, VMX_LGDT);
}

void op_lidt(struct soft_vcpu *v, const struct insn *i)
{
	load_table(v, i, &v->idt, VMX_LIDT);
}

void op_sgdt(struct soft_vcpu *v, const struct insn *i)
{
	store_table(v, i, &v->gdt, VMX_SGDT);
}

void op_sidt(struct soft_vcpu *v, const struct insn *i)
{
	store_table(v, i, &v->idt, VMX_SIDT);
}

/* The upper half of a 16-byte system descriptor: base 63:32, and a type field of 0 (SDM 3A 7.2.3,
 * figure 7-4). */
static void check_system_high(struct soft_vcpu *v, u16 selector, const struct descriptor *d)
{
	if (is_long(v) && (d->high >> 40 & 0x1f || !is_canonical(desc_base(d))))
		raise_gp(v, SELECTOR_ERROR(selector));
}

void op_lldt(struct soft_vcpu *v, const struct insn *i)
{
	struct descriptor d;

	if (!has_descriptors(v))
		raise_ud(v);
	need_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_system_segment(v, i, VMX_LLDT);
	u16 selector = (u16)rm_read(v, i, 2);
	if (selector_is_null(selector)) {
		segment_fill_null(&v->ldtr, selector, 0);
		return;
	}
	/* SDM 2A LLDT: an LDT descriptor of the GDT. */
	u32 error = SELECTOR_ERROR(selector);
	if (selector & SELECTOR_TI || !desc_read_system(v, selector, &d) || desc_is_segment(&d) ||
	    desc_type(&d) != SYS_LDT)
		raise_gp(v, error);
	if (!desc_present(&d))
		raise_error(v, EXC_NP, error);
	check_system_high(v, selector, &d);
	segment_fill(&v->ldtr, selector, &d);
}

void op_ltr(struct soft_vcpu *v, const struct insn *i)
{
	struct descriptor d;

	if (!has_descriptors(v))
		raise_ud(v);
	need_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_system_segment(v, i, VMX_LTR);
	u16 selector = (u16)rm_read(v, i, 2);
	if (selector_is_null(selector))
		raise_gp(v, 0);
	/* SDM 2A LTR: an available TSS of the GDT; 16-bit ones do not exist in IA-32e mode. */
	u32 error = SELECTOR_ERROR(selector);
	u32 types = is_long(v) ? BIT(SYS_TSS) : BIT(SYS_TSS) | BIT(SYS_TSS16);
	if (selector & SELECTOR_TI || !desc_read_system(v, selector, &d) || desc_is_segment(&d) ||
	    !(types >> desc_type(&d) & 1))
		raise_gp(v, error);
	if (!desc_present(&d))
		raise_error(v, EXC_NP, error);
	check_system_high(v, selector, &d);

	d.raw |= (u64)SYS_TSS_BUSY_BIT << 40;
	sys_write(v, d.linear + 5, 1, d.raw >> 40 & 0xff);
	segment_fill(&v->tr, selector, &d);
}

static void store_selector(struct soft_vcpu *v, const struct insn *i, u16 selector, u32 identity)
{
	if (!has_descriptors(v))
		raise_ud(v);
	check_umip(v);
	if (vmx_nonroot(v))
		vmx_on_system_segment(v, i, identity);
	rm_write(v, i, i->is_mem ? 2 : i->opsize, selector);
}

void op_sldt(struct soft_vcpu *v, const struct insn *i)
{
	store_selector(v, i, v->ldtr.selector, VMX_SLDT);
}

void op_str(struct soft_vcpu *v, const struct insn *i)
{
	store_selector(v, i, v->tr.selector, VMX_STR);
}
