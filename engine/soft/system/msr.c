/*
 * Model-specific registers: a table with a row for each that exists; any other raises #GP(0).
 * SDM vol. 4 chapter 2; vol. 3B 15.3 (machine check), 3A 11.11 (MTRR), 11.12 (PAT);
 * Documentation/virt/kvm/x86/msr.rst. The AMD rows are what a kernel reads without asking CPUID
 * first.
 *
 * Departures: MISC_ENABLE's bits are kept but change nothing; memory types (PAT, MTRR) are kept but
 * all memory is write-back; a machine check never happens by itself; DEBUGCTL.LBR and BTF are kept,
 * no effect.
 */
#include <errno.h>

#include "base/gp.h"
#include "debug/trace.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/system/features.h"
#include "engine/soft/system/msr.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

/*
 * IA32_ARCH_CAPABILITIES, SDM 4 table 2-2. Guest code never runs as it stands: privilege, page
 * tables and predictors of the guest are software, and nothing the guest writes (page tables, VERW,
 * IBPB, fences around its own returns) reaches the processor below as the erratum's mitigation. A
 * measure taken inside the guest would cost time and mend nothing, so every bit that says "not
 * needed" is set. What the monitor's own process may leak by speculation is described in the
 * project's threat model, not here.
 */
#define ARCH_RDCL_NO	  BIT(0)
#define ARCH_IBRS_ALL	  BIT(1)
#define ARCH_SKIP_VMENTRY BIT(3)
#define ARCH_SSB_NO	  BIT(4)
#define ARCH_MDS_NO	  BIT(5)
#define ARCH_IF_PSCHANGE  BIT(6)
#define ARCH_TAA_NO	  BIT(8)
#define ARCH_SBDR_SSDP_NO BIT(13)
#define ARCH_FBSDP_NO	  BIT(14)
#define ARCH_PSDP_NO	  BIT(15)
#define ARCH_BHI_NO	  BIT(20)
#define ARCH_PBRSB_NO	  BIT(24)
#define ARCH_GDS_NO	  BIT(26)
#define ARCH_RFDS_NO	  BIT(27)
#define ARCH_ITS_NO	  BIT(62)
#define ARCH_CAPABILITIES                                                                          \
	(ARCH_RDCL_NO | ARCH_IBRS_ALL | ARCH_SKIP_VMENTRY | ARCH_SSB_NO | ARCH_MDS_NO |            \
	 ARCH_IF_PSCHANGE | ARCH_TAA_NO | ARCH_SBDR_SSDP_NO | ARCH_FBSDP_NO | ARCH_PSDP_NO |       \
	 ARCH_BHI_NO | ARCH_PBRSB_NO | ARCH_GDS_NO | ARCH_RFDS_NO | ARCH_ITS_NO)

#define SPEC_CTRL_IBRS	    BIT(0)
#define SPEC_CTRL_BHI_DIS_S BIT(10)

#define MSR_TSC		    0x10
#define FEATURE_CONTROL_VMX BIT(2) /* VMXON outside SMX operation */

#define MTRR_CAP (8u | BIT(8) | BIT(10)) /* 8 variable ranges, fixed ranges, write-combining */

/* Performance-monitoring bits of MISC_ENABLE that say "unavailable" and cannot be written. */
#define MISC_ENABLE_READ_ONLY (BIT(11) | BIT(12))

struct msr_row;
typedef bool msr_read_fn(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value);
typedef bool msr_write_fn(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			  bool host);

/* A function left out: #GP(0) for the guest. */
struct msr_row {
	const char *name;
	u32 index, last; /* last is 0: one register */
	msr_read_fn *read;
	msr_write_fn *write;
	u32 field;		/* offset in struct soft_msrs */
	u64 valid;		/* bits that may be written; value of a constant */
	enum cpu_feature needs; /* the guest must have been told of it; FPU: always there */
};

static u64 *field(struct soft_vcpu *v, const struct msr_row *row, u32 index)
{
	return (u64 *)((char *)&v->msr + row->field) + (index - row->index);
}

/* ---- kinds of rows ---- */

static bool read_field(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value)
{
	*value = *field(v, row, index);
	return true;
}

static bool write_field(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			bool host)
{
	if (value & ~row->valid)
		return false;
	*field(v, row, index) = value;
	return true;
}

/* SDM 2B WRMSR: non-canonical addresses raise #GP(0). */
static bool write_canonical(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			    bool host)
{
	if (!is_canonical(value))
		return false;
	*field(v, row, index) = value;
	return true;
}

static bool read_constant(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value)
{
	*value = row->valid;
	return true;
}

static bool write_ignored(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			  bool host)
{
	return true;
}

/* Nothing in it can be switched on. */
static bool write_zero(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
		       bool host)
{
	return !value;
}

static bool write_host_field(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			     bool host)
{
	if (!host)
		return false;
	*field(v, row, index) = value;
	return true;
}

/* A monitor that restores what it read, no other value. */
static bool write_host_same(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			    bool host)
{
	return host && value == row->valid;
}

/* ---- time ---- */

static bool read_tsc(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value)
{
	*value = guest_tsc(v);
	return true;
}

/* The TSC jumped by @delta: what was computed from it is stale. */
static void move_tsc(struct soft_vcpu *v, u64 delta)
{
	v->tsc_offset += (s64)delta;
	if (v->msr.kvm_system_time & 1)
		kvmclock_update(v);
	vcpu_poke(v, ATTENTION_TIMER);
}

/*
 * A monitor sets the TSC of one vCPU after another, some microseconds apart: those that are within
 * a second of vCPU 0's are meant to be in step with it, as KVM sees it too.
 */
static bool meant_in_step(const struct soft_vcpu *v, u64 value)
{
	const struct soft_vcpu *first = v->vm ? v->vm->vcpus[0] : NULL;
	u64 second = (u64)v->tsc_khz * 1000;

	return first && first != v && value - guest_tsc(first) + second <= 2 * second;
}

static bool write_tsc(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
		      bool host)
{
	u64 delta = value - guest_tsc(v);

	if (host && meant_in_step(v, value))
		delta = (u64)v->vm->vcpus[0]->tsc_offset - (u64)v->tsc_offset;
	/* SDM 3B 17.17.3: what WRMSR adds to the TSC is added to TSC_ADJUST. */
	if (!host)
		v->msr.tsc_adjust += delta;
	move_tsc(v, delta);
	return true;
}

static bool write_tsc_adjust(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			     bool host)
{
	u64 delta = value - v->msr.tsc_adjust;

	v->msr.tsc_adjust = value;
	if (!host)
		move_tsc(v, delta);
	return true;
}

/* ---- interrupt controller ---- */

static bool write_apic_base(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			    bool host)
{
	/* SDM 3A 10.4.4, 10.12.1: bits 7:0 and 9 reserved, EXTD needs x2APIC. */
	if (value & (0x2ff | v->reserved_pa | 0xfff0000000000000))
		return false;
	if ((value & BIT(10)) && !feature(v, FEATURE_X2APIC))
		return false;
	if (host || !v->lapic) {
		lapic_restore_base(v, value);
		return true;
	}
	return lapic_set_base(v, value);
}

static bool read_lapic(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value)
{
	return v->lapic && lapic_msr(v, index, value, false);
}

static bool write_lapic(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			bool host)
{
	return v->lapic && lapic_msr(v, index, &value, true);
}

/* ---- processor features ---- */

static bool write_efer(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
		       bool host)
{
	return set_efer(v, value);
}

static bool write_misc_enable(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			      bool host)
{
	v->msr.misc_enable = (value & ~MISC_ENABLE_READ_ONLY) | MISC_ENABLE_READ_ONLY;
	return true;
}

/* SDM 3A 8.8.1 / 3C 24.7: once the lock bit is set, writes raise #GP(0). */
static bool write_feature_control(struct soft_vcpu *v, const struct msr_row *row, u32 index,
				  u64 value, bool host)
{
	u64 valid = row->valid;

	if (feature(v, FEATURE_VMX))
		valid |= FEATURE_CONTROL_VMX;
	if (!host && ((v->msr.feature_control & 1) || (value & ~valid)))
		return false;
	v->msr.feature_control = value;
	return true;
}

/*
 * IBRS and BHI_DIS_S are kept and change nothing. A kernel that cannot set BHI_DIS_S clears its
 * branch history in software at every system call, whatever ARCH_CAPABILITIES says: a long loop for
 * nothing.
 */
static bool write_spec_ctrl(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			    bool host)
{
	u64 known = SPEC_CTRL_IBRS;

	if (host || feature(v, FEATURE_BHI_CTRL))
		known |= SPEC_CTRL_BHI_DIS_S;
	if (value & ~known)
		return false;
	v->msr.spec_ctrl = value;
	return true;
}

static bool write_pred_cmd(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			   bool host)
{
	if (!host && !feature(v, FEATURE_SPEC_CTRL) && !feature(v, FEATURE_IBPB_AMD))
		return false;
	return !(value & ~row->valid); /* IBPB: the guest owns no branch predictor to clear */
}

/* The VMX capabilities. */
static bool read_vmx(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value)
{
	return vmx_capability(v, index, value);
}

/* ---- memory types ---- */

/* UC, WC, WT, WP, WB; PAT also UC- (SDM 3A tables 11-8 and 11-10). */
static bool valid_mtrr_type(u64 type)
{
	return type < 7 && type != 2 && type != 3;
}

static bool valid_types(u64 value, bool pat)
{
	for (u32 n = 0; n < 8; n++, value >>= 8) {
		u64 type = value & 0xff;
		if (!valid_mtrr_type(type) && !(pat && type == 7))
			return false;
	}
	return true;
}

static bool write_pat(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
		      bool host)
{
	if (!valid_types(value, true))
		return false;
	v->msr.pat = value;
	return true;
}

static bool write_mtrr_fixed(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			     bool host)
{
	if (!valid_types(value, false))
		return false;
	*field(v, row, index) = value;
	return true;
}

/* PHYSBASEn: 7:0 type, 11:8 reserved. PHYSMASKn: 11 valid, 10:0 reserved (SDM 3A 11.11.2.3). */
static bool write_mtrr_variable(struct soft_vcpu *v, const struct msr_row *row, u32 index,
				u64 value, bool host)
{
	bool mask = (index - row->index) & 1;
	u64 reserved = v->reserved_pa | 0xfff0000000000000 | (mask ? 0x7ff : 0xf00);

	if (value & reserved)
		return false;
	if (!mask && !valid_mtrr_type(value & 0xff))
		return false;
	*field(v, row, index) = value;
	return true;
}

static bool write_mtrr_def_type(struct soft_vcpu *v, const struct msr_row *row, u32 index,
				u64 value, bool host)
{
	if ((value & ~row->valid) || !valid_mtrr_type(value & 0xff))
		return false;
	v->msr.mtrr_def_type = value;
	return true;
}

/* ---- machine check: CTL, STATUS, ADDR, MISC of each bank (SDM 3B 15.3.2) ---- */

static bool write_mcg_ctl(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			  bool host)
{
	if (value && value != ~0ull)
		return false;
	v->msr.mcg_ctl = value;
	return true;
}

static bool write_mc_bank(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			  bool host)
{
	u32 which = (index - row->index) & 3;

	/* CTL: all or nothing; bit 0 or 10 may be left out, as kernels do for the errata of old
	 * processors' banks 0 and 4. STATUS: only cleared. */
	if (!host && which == 0 && value && (value | 1 | BIT(10)) != ~0ull)
		return false;
	if (!host && which == 1 && value)
		return false;
	*field(v, row, index) = value;
	return true;
}

/* ---- segment bases ---- */

static bool read_segment_base(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 *value)
{
	*value = v->seg[row->field].base;
	return true;
}

static bool write_segment_base(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			       bool host)
{
	if (!is_canonical(value))
		return false;
	v->seg[row->field].base = value;
	vcpu_segment_changed(v);
	return true;
}

/* ---- KVM's clock ---- */

static bool write_wall_clock(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			     bool host)
{
	v->msr.kvm_wall_clock = value;
	/* Written once, when the guest asks; a monitor that restores the register asks for nothing.
	 */
	if (!host && value)
		kvmclock_update_wall(v);
	return true;
}

static bool write_system_time(struct soft_vcpu *v, const struct msr_row *row, u32 index, u64 value,
			      bool host)
{
	v->msr.kvm_system_time = value;
	if (value & 1)
		kvmclock_update(v);
	return true;
}

/* ---- the table, sorted by index ---- */

#define MEMBER(m) (u32) offsetof(struct soft_msrs, m)
#define CONSTANT  .read = read_constant, .write = write_host_same

/* clang-format off */
static const struct msr_row rows[] = {
	{ .name = "TIME_STAMP_COUNTER", .index = 0x10, .read = read_tsc, .write = write_tsc },
	{ .name = "PLATFORM_ID", .index = 0x17, CONSTANT },
	{ .name = "APIC_BASE", .index = 0x1b, .field = MEMBER(apic_base), .read = read_field,
	  .write = write_apic_base },
	{ .name = "FEATURE_CONTROL", .index = 0x3a, .field = MEMBER(feature_control),
	  .read = read_field, .write = write_feature_control, .valid = 1 },
	{ .name = "TSC_ADJUST", .index = 0x3b, .field = MEMBER(tsc_adjust), .read = read_field,
	  .write = write_tsc_adjust, .needs = FEATURE_TSC_ADJUST },
	{ .name = "SPEC_CTRL", .index = 0x48, .field = MEMBER(spec_ctrl), .read = read_field,
	  .write = write_spec_ctrl, .needs = FEATURE_SPEC_CTRL },
	{ .name = "PRED_CMD", .index = 0x49, .write = write_pred_cmd, .valid = 1 /* IBPB */ },
	{ .name = "BIOS_UPDT_TRIG", .index = 0x79, .write = write_ignored },
	{ .name = "BIOS_SIGN_ID", .index = 0x8b, .field = MEMBER(bios_sign_id), .read = read_field,
	  .write = write_ignored },
	{ .name = "PLATFORM_INFO", .index = 0xce, CONSTANT },
	{ .name = "MTRRCAP", .index = 0xfe, .valid = MTRR_CAP, CONSTANT, .needs = FEATURE_MTRR },
	{ .name = "ARCH_CAPABILITIES", .index = 0x10a, .valid = ARCH_CAPABILITIES,
	  .read = read_constant, .write = write_host_same, .needs = FEATURE_ARCH_CAPS },
	{ .name = "MISC_FEATURES_ENABLES", .index = 0x140, .read = read_constant,
	  .write = write_zero },
	{ .name = "SYSENTER_CS", .index = 0x174, .field = MEMBER(sysenter_cs), .read = read_field,
	  .write = write_field, .valid = 0xffffffff, .needs = FEATURE_SEP },
	{ .name = "SYSENTER_ESP", .index = 0x175, .field = MEMBER(sysenter_esp), .read = read_field,
	  .write = write_canonical, .needs = FEATURE_SEP },
	{ .name = "SYSENTER_EIP", .index = 0x176, .field = MEMBER(sysenter_eip), .read = read_field,
	  .write = write_canonical, .needs = FEATURE_SEP },
	{ .name = "MCG_CAP", .index = 0x179, .field = MEMBER(mcg_cap), .read = read_field,
	  .write = write_host_field, .needs = FEATURE_MCA },
	{ .name = "MCG_STATUS", .index = 0x17a, .field = MEMBER(mcg_status), .read = read_field,
	  .write = write_field, .valid = 7, .needs = FEATURE_MCA },
	{ .name = "MCG_CTL", .index = 0x17b, .field = MEMBER(mcg_ctl), .read = read_field,
	  .write = write_mcg_ctl, .needs = FEATURE_MCA },
	{ .name = "PERF_STATUS", .index = 0x198, CONSTANT },
	{ .name = "MISC_ENABLE", .index = 0x1a0, .field = MEMBER(misc_enable), .read = read_field,
	  .write = write_misc_enable },
	{ .name = "DEBUGCTL", .index = 0x1d9, .field = MEMBER(debugctl), .read = read_field,
	  .write = write_field, .valid = 3 /* LBR, BTF */ },
	{ .name = "MTRR_PHYS", .index = 0x200, .last = 0x20f, .field = MEMBER(mtrr_var),
	  .read = read_field, .write = write_mtrr_variable, .needs = FEATURE_MTRR },
	{ .name = "MTRR_FIX64K", .index = 0x250, .field = MEMBER(mtrr_fixed[0]),
	  .read = read_field, .write = write_mtrr_fixed, .needs = FEATURE_MTRR },
	{ .name = "MTRR_FIX16K", .index = 0x258, .last = 0x259, .field = MEMBER(mtrr_fixed[1]),
	  .read = read_field, .write = write_mtrr_fixed, .needs = FEATURE_MTRR },
	{ .name = "MTRR_FIX4K", .index = 0x268, .last = 0x26f, .field = MEMBER(mtrr_fixed[3]),
	  .read = read_field, .write = write_mtrr_fixed, .needs = FEATURE_MTRR },
	{ .name = "PAT", .index = 0x277, .field = MEMBER(pat), .read = read_field,
	  .write = write_pat, .needs = FEATURE_PAT },
	{ .name = "MTRR_DEF_TYPE", .index = 0x2ff, .field = MEMBER(mtrr_def_type),
	  .read = read_field, .write = write_mtrr_def_type, .valid = 0xcff, .needs = FEATURE_MTRR },
	{ .name = "MC_BANK", .index = 0x400, .last = 0x400 + 4 * MC_BANKS - 1,
	  .field = MEMBER(mc_bank), .read = read_field, .write = write_mc_bank,
	  .needs = FEATURE_MCA },
	{ .name = "VMX", .index = 0x480, .last = 0x491, .read = read_vmx, .needs = FEATURE_VMX },
	{ .name = "TSC_DEADLINE", .index = 0x6e0, .read = read_lapic, .write = write_lapic,
	  .needs = FEATURE_TSC_DEADLINE },
	{ .name = "X2APIC", .index = 0x800, .last = 0x8ff, .read = read_lapic,
	  .write = write_lapic, .needs = FEATURE_X2APIC },
	{ .name = "KVM_WALL_CLOCK_NEW", .index = 0x4b564d00, .field = MEMBER(kvm_wall_clock),
	  .read = read_field, .write = write_wall_clock, .needs = FEATURE_KVM_CLOCK2 },
	{ .name = "KVM_SYSTEM_TIME_NEW", .index = 0x4b564d01, .field = MEMBER(kvm_system_time),
	  .read = read_field, .write = write_system_time, .needs = FEATURE_KVM_CLOCK2 },
	{ .name = "EFER", .index = 0xc0000080, .field = MEMBER(efer), .read = read_field,
	  .write = write_efer },
	{ .name = "STAR", .index = 0xc0000081, .field = MEMBER(star), .read = read_field,
	  .write = write_field, .valid = ~0ull, .needs = FEATURE_SYSCALL },
	{ .name = "LSTAR", .index = 0xc0000082, .field = MEMBER(lstar), .read = read_field,
	  .write = write_canonical, .needs = FEATURE_LM },
	{ .name = "CSTAR", .index = 0xc0000083, .field = MEMBER(cstar), .read = read_field,
	  .write = write_canonical, .needs = FEATURE_LM },
	{ .name = "FMASK", .index = 0xc0000084, .field = MEMBER(sfmask), .read = read_field,
	  .write = write_field, .valid = 0xffffffff, .needs = FEATURE_SYSCALL },
	{ .name = "FS_BASE", .index = 0xc0000100, .field = SEG_FS, .read = read_segment_base,
	  .write = write_segment_base, .needs = FEATURE_LM },
	{ .name = "GS_BASE", .index = 0xc0000101, .field = SEG_GS, .read = read_segment_base,
	  .write = write_segment_base, .needs = FEATURE_LM },
	{ .name = "KERNEL_GS_BASE", .index = 0xc0000102, .field = MEMBER(kernel_gs_base),
	  .read = read_field, .write = write_canonical, .needs = FEATURE_LM },
	{ .name = "TSC_AUX", .index = 0xc0000103, .field = MEMBER(tsc_aux), .read = read_field,
	  .write = write_field, .valid = 0xffffffff, .needs = FEATURE_RDTSCP },
	/* AMD, BKDG and PPR: nothing to say, nothing to change. */
	{ .name = "AMD_SYSCFG", .index = 0xc0010010, .read = read_constant, .write = write_ignored },
	{ .name = "AMD_HWCR", .index = 0xc0010015, .read = read_constant, .write = write_ignored,
	  .valid = BIT(24) }, /* the TSC counts at the P0 frequency */
	{ .name = "AMD_TOP_MEM", .index = 0xc001001a, .read = read_constant,
	  .write = write_ignored },
	{ .name = "AMD_TOP_MEM2", .index = 0xc001001d, .read = read_constant,
	  .write = write_ignored },
	{ .name = "AMD_NB_CFG", .index = 0xc001001f, .read = read_constant, .write = write_ignored },
	{ .name = "AMD_PATCH_LOADER", .index = 0xc0010020, .write = write_ignored },
	{ .name = "AMD_INT_PENDING", .index = 0xc0010055, .read = read_constant,
	  .write = write_ignored },
	{ .name = "AMD_MMIO_CONF_BASE", .index = 0xc0010058, .read = read_constant,
	  .write = write_ignored },
	{ .name = "AMD_LS_CFG", .index = 0xc0011020, .read = read_constant, .write = write_ignored },
	{ .name = "AMD_DE_CFG", .index = 0xc0011029, .read = read_constant, .valid = 2,
	  .write = write_ignored }, /* bit 1: LFENCE is serializing */
	{ .name = "AMD_BU_CFG2", .index = 0xc001102a, .read = read_constant,
	  .write = write_ignored },
};
/* clang-format on */

static const struct msr_row *find_row(u32 index)
{
	u32 low = 0, high = ARRAY_SIZE(rows);

	while (low < high) {
		u32 middle = (low + high) / 2;
		const struct msr_row *row = &rows[middle];
		if (index < row->index)
			high = middle;
		else if (index > (row->last ? row->last : row->index))
			low = middle + 1;
		else
			return row;
	}
	return NULL;
}

/* Whether the guest may know of the register at all; a monitor may before it sets CPUID. */
static bool present(struct soft_vcpu *v, const struct msr_row *row, bool host)
{
	if (host || row->needs == FEATURE_FPU)
		return true;
	return feature(v, row->needs);
}

int msr_read(struct soft_vcpu *v, u32 index, u64 *value, bool host)
{
	const struct msr_row *row = find_row(index);

	if (!row || !row->read || !present(v, row, host) || !row->read(v, row, index, value))
		return -EINVAL;
	return 0;
}

int msr_write(struct soft_vcpu *v, u32 index, u64 value, bool host)
{
	const struct msr_row *row = find_row(index);

	if (!row || !row->write || !present(v, row, host) ||
	    !row->write(v, row, index, value, host))
		return -EINVAL;
	return 0;
}

const char *msr_name(u32 index)
{
	const struct msr_row *row = find_row(index);
	return row ? row->name : NULL;
}

bool msr_table_sorted(void)
{
	for (u32 n = 1; n < ARRAY_SIZE(rows); n++) {
		const struct msr_row *before = &rows[n - 1];
		if (rows[n].index <= (before->last ? before->last : before->index))
			return false;
	}
	return true;
}

void msr_reset(struct soft_vcpu *v)
{
	gp_fill(&v->msr, 0, sizeof(v->msr));
	v->msr.pat = 0x0007040600070406;
	v->msr.misc_enable = 1 /* fast strings */ | MISC_ENABLE_READ_ONLY;
	v->msr.mcg_cap = MC_BANKS | BIT(8); /* MCG_CTL is there */
	v->msr.mcg_ctl = ~0ull;
	for (u32 n = 0; n < MC_BANKS; n++)
		v->msr.mc_bank[n][0] = ~0ull;
	v->msr.bios_sign_id = 0x100000000; /* microcode revision 1, in the upper half */
}

/* ---- instructions ---- */

static void trace_access(struct soft_vcpu *v, const char *what, u32 index, u64 value, bool refused)
{
	const char *name = msr_name(index);

	trace_gp(msr, 1, "vcpu %u: %s %#x (%s) = %#llx at rip %#llx%s", v->base.id, what, index,
		 name ? name : "unknown", (unsigned long long)value, (unsigned long long)v->rip,
		 refused ? ": #GP(0)" : "");
}

/* In VMX non-root operation some MSRs are not the processor's. */
static bool read_msr(struct soft_vcpu *v, u32 index, u64 *value)
{
	if (vmx_nonroot(v) && vmx_virtualizes_msr(v, index, false)) {
		*value = vmx_read_apic_msr(v, index);
		return false;
	}
	bool refused = msr_read(v, index, value, false);
	if (vmx_nonroot(v) && index == MSR_TSC)
		*value = vmx_tsc(v); /* SDM 3C 26.3 */
	return refused;
}

static bool write_msr(struct soft_vcpu *v, u32 index, u64 value)
{
	if (vmx_nonroot(v) && vmx_virtualizes_msr(v, index, true))
		return vmx_write_apic_msr(v, index, value);
	return msr_write(v, index, value, false);
}

void op_rdmsr(struct soft_vcpu *v, const struct insn *i)
{
	u32 index = (u32)v->regs[RCX];
	u64 value = 0;

	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_msr(v, i, index, false);
	bool refused = read_msr(v, index, &value);
	if (trace_on(msr, refused ? 1 : 2))
		trace_access(v, "rdmsr", index, value, refused);
	if (refused)
		raise_gp(v, 0);
	set_edx_eax(v, value);
}

void op_wrmsr(struct soft_vcpu *v, const struct insn *i)
{
	u32 index = (u32)v->regs[RCX];

	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_msr(v, i, index, true);
	bool refused = write_msr(v, index, edx_eax(v));
	if (trace_on(msr, refused ? 1 : 2))
		trace_access(v, "wrmsr", index, edx_eax(v), refused);
	if (refused)
		raise_gp(v, 0);
	v->rip = v->next_rip;
}

void op_swapgs(struct soft_vcpu *v, const struct insn *i)
{
	/* SDM 2B SWAPGS: #UD outside 64-bit mode, then #GP(0) above CPL 0. */
	if (!in_64bit(v))
		raise_ud(v);
	require_cpl0(v);
	u64 base = v->seg[SEG_GS].base;
	v->seg[SEG_GS].base = v->seg_base_gs = v->msr.kernel_gs_base;
	v->msr.kernel_gs_base = base;
}

/* SDM 2B RDFSBASE, WRFSBASE: 64-bit mode and CR4.FSGSBASE (which needs the feature) or #UD. */
static void check_fsgsbase(struct soft_vcpu *v)
{
	if (!in_64bit(v) || !(v->cr4 & CR4_FSGSBASE))
		raise_ud(v);
}

static void write_base(struct soft_vcpu *v, const struct insn *i, enum x86_seg seg, u64 *copy)
{
	check_fsgsbase(v);
	u64 base = reg_read(v, i, i->rm, i->opsize);
	if (!is_canonical(base))
		raise_gp(v, 0);
	v->seg[seg].base = *copy = base;
}

void op_rdfsbase(struct soft_vcpu *v, const struct insn *i)
{
	check_fsgsbase(v);
	reg_write(v, i, i->rm, i->opsize, v->seg[SEG_FS].base);
}

void op_rdgsbase(struct soft_vcpu *v, const struct insn *i)
{
	check_fsgsbase(v);
	reg_write(v, i, i->rm, i->opsize, v->seg[SEG_GS].base);
}

void op_wrfsbase(struct soft_vcpu *v, const struct insn *i)
{
	write_base(v, i, SEG_FS, &v->seg_base_fs);
}

void op_wrgsbase(struct soft_vcpu *v, const struct insn *i)
{
	write_base(v, i, SEG_GS, &v->seg_base_gs);
}

/* SDM 2B RDTSC: CR4.TSD keeps it to CPL 0. */
static void check_tsd(struct soft_vcpu *v)
{
	if ((v->cr4 & CR4_TSD) && v->cpl > 0)
		raise_gp(v, 0);
}

void op_rdtsc(struct soft_vcpu *v, const struct insn *i)
{
	check_tsd(v);
	if (vmx_nonroot(v))
		vmx_on_rdtsc(v, i);
	set_edx_eax(v, vmx_nonroot(v) ? vmx_tsc(v) : guest_tsc(v));
}

void op_rdtscp(struct soft_vcpu *v, const struct insn *i)
{
	if (!feature(v, FEATURE_RDTSCP) || !vmx_allows_rdtscp(v))
		raise_ud(v);
	check_tsd(v);
	if (vmx_nonroot(v))
		vmx_on_rdtsc(v, i);
	set_edx_eax(v, vmx_nonroot(v) ? vmx_tsc(v) : guest_tsc(v));
	v->regs[RCX] = (u32)v->msr.tsc_aux;
}

void op_rdpid(struct soft_vcpu *v, const struct insn *i)
{
	if (!feature(v, FEATURE_RDPID) || !vmx_allows_rdtscp(v))
		raise_ud(v);
	v->regs[i->rm] = (u32)v->msr.tsc_aux;
}

void op_rdpmc(struct soft_vcpu *v, const struct insn *i)
{
	if (vmx_nonroot(v) && (v->cpl == 0 || (v->cr4 & CR4_PCE)))
		vmx_on_rdpmc(v, i);
	/* SDM 2B RDPMC: #GP(0) for a counter that does not exist, as for a lack of privilege; leaf
	 * 0AH says that there are none. */
	raise_gp(v, 0);
}
