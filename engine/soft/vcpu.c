/* The vCPU's own business: its translation mode, its attention word, ways out of the guest. Inside.
 */
#include "engine/soft/vcpu.h"

#include "base/gp.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/translate/block.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/signals.h"
#include "engine/soft/vmx/vmx.h"

__thread struct soft_vcpu *soft_current;
__thread u32 soft_timers_fired;

static bool is_flat(const struct segment *s, bool stack)
{
	u32 wanted = SEG_P | SEG_S;
	if (s->base || s->limit != 0xffffffff || (s->access & SEG_UNUSABLE))
		return false;
	if ((s->access & wanted) != wanted)
		return false;
	return !stack || (s->access & (SEG_TYPE_CODE | SEG_TYPE_WRITE | SEG_TYPE_EXPAND_DOWN)) ==
			     SEG_TYPE_WRITE;
}

static bool is_flat_code(const struct segment *s)
{
	/* CS: also used for reads with an override, so it has to be readable. */
	return is_flat(s, false) && (s->access & SEG_TYPE_WRITE);
}

static u32 fpu_mode(const struct soft_vcpu *v)
{
	u32 mode = 0;
	if (v->cr0 & (CR0_EM | CR0_TS))
		mode |= MODE_NO_FPU;
	if (v->cr0 & CR0_EM)
		mode |= MODE_EM;
	if ((v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR))
		mode |= MODE_NO_SSE;
	if (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & (XCR0_SSE | XCR0_AVX)) != (XCR0_SSE | XCR0_AVX) ||
	    !(v->cr0 & CR0_PE) || (v->rflags_sys & RFLAGS_VM))
		mode |= MODE_NO_AVX;
	if ((mode & MODE_NO_AVX) || (v->xcr0 & XCR0_AVX512) != XCR0_AVX512)
		mode |= MODE_NO_AVX512;
	if (v->cr0 & CR0_TS)
		mode |= MODE_TS;
	if (v->cr0 & CR0_MP)
		mode |= MODE_MP;
	return mode;
}

static u32 segment_mode(const struct soft_vcpu *v)
{
	const struct segment *cs = &v->seg[SEG_CS], *ss = &v->seg[SEG_SS];
	bool pe = (v->cr0 & CR0_PE) && !(v->rflags_sys & RFLAGS_VM);
	if ((v->msr.efer & EFER_LMA) && (cs->access & SEG_L))
		return MODE_CODE64 | MODE_FLAT | MODE_PE;
	u32 mode = pe && (cs->access & SEG_DB) ? MODE_CODE32 : MODE_CODE16;
	if (!pe && (cs->access & SEG_DB) && !(v->rflags_sys & RFLAGS_VM))
		mode = MODE_CODE32; /* real mode entered with a 32-bit CS still loaded */
	if (ss->access & SEG_DB)
		mode |= MODE_STACK32;
	if (pe)
		mode |= MODE_PE;
	if ((mode & 3) == MODE_CODE32 && (mode & MODE_STACK32) && pe && is_flat_code(cs) &&
	    is_flat(ss, true) && is_flat(&v->seg[SEG_DS], true) && is_flat(&v->seg[SEG_ES], true))
		mode |= MODE_FLAT;
	if (!is_flat(&v->seg[SEG_FS], true) || !is_flat(&v->seg[SEG_GS], true))
		mode |= MODE_FS_BASE;
	return mode;
}

static u32 mmu_mode(enum mmu_index index)
{
	return (u32)index << MODE_MMU_SHIFT;
}

void vcpu_update_mode(struct soft_vcpu *v)
{
	enum mmu_index index = MMU_KERNEL_AC;
	if (v->cpl == 3)
		index = MMU_USER;
	else if ((v->cr4 & CR4_SMAP) && !(v->rflags_sys & RFLAGS_AC))
		index = MMU_KERNEL;
	u32 common = fpu_mode(v), mode64 = MODE_CODE64 | MODE_FLAT | MODE_PE;
	if (v->mmu == &v->mmus[MMU_NONROOT])
		common |= MODE_NONROOT;
	mode64 |= common;
	v->mode_kernel64 =
	    mode64 | MODE_RING0 | mmu_mode(v->cr4 & CR4_SMAP ? MMU_KERNEL : MMU_KERNEL_AC);
	v->mode_user64 = mode64 | mmu_mode(MMU_USER) | (v->shadow_on ? MODE_SHADOW : 0);
	u32 mode = segment_mode(v) | common | mmu_mode(index);
	if ((v->rflags_sys & RFLAGS_TF) || (v->dr7 & 0xff) || v->debug.stepping ||
	    (vmx_nonroot(v) && vmx_cpu(v, CPU_MONITOR_TRAP)))
		mode |= MODE_STEP;
	if ((v->cr0 & CR0_AM) && (v->rflags_sys & RFLAGS_AC) && v->cpl == 3)
		mode |= MODE_ALIGN;
	if (v->cpl == 0)
		mode |= MODE_RING0;
	if (v->shadow_on && v->cpl == 3 && (mode & 3) == MODE_CODE64 &&
	    !(mode & (MODE_STEP | MODE_ALIGN)))
		mode |= MODE_SHADOW;
	v->mmu_index = index;
	v->mode = mode;
}

void vcpu_irq_window(struct soft_vcpu *v)
{
	if (v->window_wanted || events_pending(v))
		vcpu_attention(v, ATTENTION_IRQ);
}

void vcpu_poke(struct soft_vcpu *v, u32 attention_bits)
{
	vcpu_attention(v, attention_bits);
	if (soft_current == v)
		return;
	atomic_fetch_add(&v->wake, 1);
	int thread = atomic_load(&v->thread);
	if (atomic_load(&v->sleeping))
		gp_syscall(SYS_futex, (long)&v->wake, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	else if (thread)
		gp_syscall(SYS_tgkill, gp_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0), thread,
			   KICK_SIGNAL, 0, 0, 0);
}

/* A helper called in the middle of an instruction has not told where: find out now. The same places
 * fault again and again; their code moves only when the cache evicts or is reset. */
void vcpu_settle(struct soft_vcpu *v)
{
	u64 pc = v->fault_pc;
	if (!pc)
		return;
	struct fault_site *site = &v->fault_sites[(pc ^ pc >> 6) % FAULT_SITES];
	const struct block_cache *cache = v->cache;
	if (site->pc != pc || site->oldest != cache->oldest ||
	    site->resets != v->stats.cache_flushes) {
		const struct block *b = block_of_host(v, (const void *)pc);
		*site = (struct fault_site){
		    .pc = pc,
		    .rip = b->linear + block_insn(v, b, (const void *)pc)->guest - b->cs_base,
		    .oldest = cache->oldest,
		    .resets = v->stats.cache_flushes,
		};
	}
	v->rip = site->rip;
	v->fault_pc = 0;
}

u32 vcpu_instruction_length(struct soft_vcpu *v)
{
	const void *pc = (const void *)v->fault_pc;
	if (!pc)
		return (u32)(v->next_rip - v->rip) & 0xf;
	return block_insn_length(v, block_of_host(v, pc), pc);
}

static _Noreturn void jump(const u8 *stub)
{
	__asm__ volatile("jmp *%0" : : "r"(stub));
	__builtin_unreachable();
}

_Noreturn void vcpu_exit(struct soft_vcpu *v)
{
	vcpu_settle(v);
	if (v->leave == LEAVE_NONE)
		v->leave = LEAVE_EXIT;
	jump(v->cache->stubs.leave);
}

_Noreturn void vcpu_resume(struct soft_vcpu *v)
{
	vcpu_settle(v);
	jump(v->cache->stubs.dispatch);
}
