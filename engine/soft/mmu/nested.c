/*
 * Translations over VM entries and VM exits, and their invalidation by a hypervisor. SDM 3C 29.4.
 *
 * Root and non-root operation have a struct mmu each, so an exit and the entry behind it that find
 * the same control registers, VPID and EPTP leave all as it is. Entries of another VPID are put
 * away (context.c). A VPID has one EPTP here: what it had through another is dropped when that
 * changes, so that what flushes the current VPID "for all EP4TAs" (29.4.3.1) has all before it.
 */
#include "engine/soft/mmu/ept.h"
#include "engine/soft/mmu/internal.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/debug.h"

#define EP4TA(eptp) ((eptp)&0x000ffffffffff000ull)

/* What of the control registers the TLBs hold the effect of. */
#define CR0_SHAPES  (CR0_PG | CR0_WP)
#define CR4_SHAPES  (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)
#define EFER_SHAPES (EFER_NXE | EFER_LMA)

void mmu_leave(struct soft_vcpu *v)
{
	struct mmu_controls *c = &v->mmu->left;

	shadow_pause(v);
	c->cr0 = v->cr0;
	c->cr3 = v->cr3;
	c->cr4 = v->cr4;
	c->efer = v->msr.efer;
	c->dr7 = v->dr7;
	for (u32 k = 0; k < 4; k++) {
		c->dr[k] = v->dr[k];
		c->pdptr[k] = v->pdptr[k];
	}
}

/** Whether breakpoints keep other pages out of the TLB than they did. */
static bool watches_differ(const struct soft_vcpu *v, const struct mmu_controls *c)
{
	bool differ = c->dr7 != v->dr7;

	if (likely(!((c->dr7 | v->dr7) & 0xff)))
		return false;
	for (u32 k = 0; k < 4; k++)
		differ |= c->dr[k] != v->dr[k];
	return differ;
}

static bool shapes_differ(const struct soft_vcpu *v, const struct mmu_controls *c)
{
	return ((c->cr0 ^ v->cr0) & CR0_SHAPES) || ((c->cr4 ^ v->cr4) & CR4_SHAPES) ||
	       ((c->efer ^ v->msr.efer) & EFER_SHAPES) || watches_differ(v, c);
}

static bool pdptrs_differ(const struct soft_vcpu *v, const struct mmu_controls *c)
{
	bool differ = false;

	if (!(v->cr0 & CR0_PG) || !(v->cr4 & CR4_PAE) || (v->msr.efer & EFER_LMA))
		return false;
	for (u32 k = 0; k < 4; k++)
		differ |= c->pdptr[k] != v->pdptr[k];
	return differ;
}

/** The set in use is as it was left: drops what is no longer true. Loading control registers by VM
 * entry or exit flushes nothing where there are VPIDs (29.4.3.2), yet nothing may be found that the
 * new ones forbid. */
static void settle(struct soft_vcpu *v)
{
	const struct mmu_controls *c = &v->mmu->left;
	u64 cr3 = v->cr3;

	if (unlikely(shapes_differ(v, c))) {
		tlb_flush(v, false);
	} else if (pdptrs_differ(v, c) || (cr3 != c->cr3 && !(v->cr4 & CR4_PCIDE))) {
		tlb_flush_context(v, false);
	} else if (cr3 != c->cr3) {
		v->cr3 = c->cr3;
		context_switch(v, cr3, true);
		v->cr3 = cr3;
	}
}

/** 29.4.3.1: VM entries and exits without VPIDs drop what VPID 0 has, in root operation too. What
 * is known of EPT might stay; but processors go to its leaves for every new translation, and so see
 * flags that a hypervisor has cleared without INVEPT. */
static void flush_vpid_0(struct soft_vcpu *v)
{
	struct mmu *m = &v->mmus[MMU_NONROOT];

	WITH_SET(v, MMU_ROOT, tlb_flush(v, false));
	if (m->vpid)
		return;
	WITH_SET(v, MMU_NONROOT, tlb_flush(v, false));
	if (m->eptp & EPTP_AD)
		m->ept_epoch++;
}

static bool same_ept(const struct mmu *m, const struct nested_paging *by)
{
	return m->eptp == by->eptp && m->mbec == by->mbec;
}

/** Puts the current VPID's translations away and those of another, @by, into their place. The
 * control registers are the other's. */
static void change_vpid(struct soft_vcpu *v, const struct nested_paging *by)
{
	struct mmu *m = v->mmu;

	shadow_abandon_code(v);
	if (v->vm->tune.contexts && m->vpid)
		contexts_put_away(v);
	tlb_flush_live(v);
	if (!same_ept(m, by))
		m->ept_epoch++;
	m->eptp = by->eptp;
	m->mbec = by->mbec;
	m->vpid = by->vpid;
	if (contexts_take_back(v))
		settle(v);
}

void mmu_enter_nonroot(struct soft_vcpu *v, const struct nested_paging *by)
{
	struct mmu *m = &v->mmus[MMU_NONROOT];

	m->used = true;
	m->logs = by->logs;
	if (unlikely(!by->vpid))
		flush_vpid_0(v);
	v->mmu = m;
	if (unlikely(!v->vm->tune.operations))
		tlb_flush(v, false);
	if (unlikely(m->vpid != by->vpid || !same_ept(m, by)))
		change_vpid(v, by);
	else
		settle(v);
	shadow_resume(v);
}

void mmu_enter_root(struct soft_vcpu *v)
{
	if (unlikely(!v->mmu->vpid))
		flush_vpid_0(v);
	v->mmu = &v->mmus[MMU_ROOT];
	if (unlikely(!v->vm->tune.operations))
		tlb_flush(v, false);
	settle(v);
	shadow_resume(v);
}

void mmu_switch_eptp(struct soft_vcpu *v, u64 eptp)
{
	struct nested_paging by = {
	    .eptp = eptp, .vpid = v->mmu->vpid, .mbec = v->mmu->mbec, .logs = v->mmu->logs};

	if (eptp == v->mmu->eptp)
		return;
	shadow_pause(v); /* the space in use is that of the EPTP before */
	change_vpid(v, &by);
	shadow_resume(v);
	vcpu_update_mode(v);
}

void mmu_invept(struct soft_vcpu *v, bool all, u64 eptp)
{
	struct mmu *m = &v->mmus[MMU_NONROOT];

	for (struct mmu_context *c = m->contexts; c < m->contexts + m->context_count; c++)
		if (all || EP4TA(c->eptp) == EP4TA(eptp))
			c->left = 0;
	shadow_invalidate(v, 0, all ? 0 : EP4TA(eptp));
	if (!m->eptp || (!all && EP4TA(m->eptp) != EP4TA(eptp)))
		return;
	ept_flush(v);
	WITH_SET(v, MMU_NONROOT, tlb_flush(v, false));
}

void mmu_invvpid_address(struct soft_vcpu *v, u16 vpid, u64 linear)
{
	struct mmu *m = &v->mmus[MMU_NONROOT];

	contexts_drop(m, vpid);
	if (m->vpid == vpid)
		WITH_SET(v, MMU_NONROOT, tlb_flush_page(v, linear));
	else
		shadow_invalidate(v, vpid, 0);
}

void mmu_invvpid(struct soft_vcpu *v, u16 vpid, bool keep_global)
{
	struct mmu *m = &v->mmus[MMU_NONROOT];

	contexts_drop(m, vpid);
	shadow_invalidate(v, vpid, 0);
	if (m->vpid == vpid)
		WITH_SET(v, MMU_NONROOT, tlb_flush(v, keep_global));
}

void mmu_invvpid_all(struct soft_vcpu *v)
{
	struct mmu *m = &v->mmus[MMU_NONROOT];

	for (struct mmu_context *c = m->contexts; c < m->contexts + m->context_count; c++)
		if (c->vpid)
			c->left = 0;
	shadow_invalidate(v, 0, 0);
	if (m->vpid)
		WITH_SET(v, MMU_NONROOT, tlb_flush(v, false));
}
