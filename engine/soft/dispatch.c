/*
 * The dispatcher: what translated code calls when it does not know where to go on or needs C.
 * Inside.
 *
 * Guest state is in memory (v->regs, v->rip, v->arith, v->rflags_sys) whenever these functions run.
 * A kick may make soft_dispatch() run twice for the same state (stubs.c), so a call that returns a
 * code address must be repeatable.
 */
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/masked.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/translate/stubs.h"
#include "engine/soft/translate/translator.h"
#include "engine/soft/translate/written.h"
#include "engine/soft/timer.h"
#include "engine/soft/vmx/vmx.h"

/* ---- instructions done in C ---- */

/* A lone instruction (shadow, replay, step) has completed. */
static void finish_single(struct soft_vcpu *v)
{
	if (v->running & MODE_ONE) {
		v->int_shadow = 0;
		v->replay = 0;
		v->io_logged = 0;
		v->io_cursor = 0;
	}
	if (v->running & MODE_STEP)
		v->stepped = 1;
}

/* Going on behind an instruction never wraps at 64 KiB: EIP passes the limit of a 16-bit segment.
 */
static u64 truncate_to_mode(const struct soft_vcpu *v, u64 rip)
{
	return (v->mode & 3) == MODE_CODE64 ? rip : (u32)rip;
}

void soft_op(struct soft_vcpu *v, const struct insn *i)
{
	v->next_rip = truncate_to_mode(v, v->rip + i->length);
	if (op_properties[i->op] & OP_EXIT)
		v->stats.exits_light++;
	op_functions[i->op](v, i);
	if (unlikely(v->running))
		finish_single(v);
}

void op_gp(struct soft_vcpu *v, const struct insn *i)
{
	raise_gp(v, 0);
}

void op_monitor_break(struct soft_vcpu *v, const struct insn *i)
{
	v->debug.hit |= debug_monitor_hit(v, v->rip + code_base(v, v->mode));
	v->leave = LEAVE_DEBUG;
	vcpu_exit(v);
}

/* ---- memory that misses the TLB ---- */

static u64 linear_of(struct soft_vcpu *v, u64 address, u32 description)
{
	u32 size = ACCESS_SIZE(description);
	enum access access = description & ACCESS_WRITES ? ACCESS_WRITE : ACCESS_READ;
	enum x86_seg seg = (enum x86_seg)ACCESS_SEG(description);
	bool segmented = description & ACCESS_SEGMENTED;
	/* Alignment #GP comes before the page fault of the same access (SDM 3A table 6-8), and, as
	 * processors do it, before #SS for a limit. */
	u64 linear = segmented ? v->seg[seg].base + address : address;
	if ((description & ACCESS_ALIGNED) && (linear & (size - 1)))
		raise_gp(v, 0);
	if (segmented)
		linear = seg_linear(v, seg, address, size, access);
	/* SDM 3A 6.15, #AC: natural alignment of the operand, 16-byte vectors excepted */
	if ((description & ACCESS_ALIGN) && size <= 8 && (linear & (size - 1) & 7))
		raise_error(v, EXC_AC, 0);
	return linear;
}

void *soft_miss(struct soft_vcpu *v, u64 address, u32 description, u64 *return_address)
{
	u32 size = ACCESS_SIZE(description);
	enum mmu_index index = (enum mmu_index)ACCESS_INDEX(description);
	bool stack = description & ACCESS_STACK;
	enum access access = description & ACCESS_WRITES ? ACCESS_WRITE : ACCESS_READ;

	if (unlikely(ACCESS_MASK(description)))
		return masked_miss(v, address, description, return_address);
	v->fault_pc = *return_address;
	u64 linear = linear_of(v, address, description);
	void *p = tlb_fill(v, linear, size, access, index, stack);
	if (likely(p)) {
		v->fault_pc = 0;
		return p;
	}
	/* Not plain RAM: the instruction works on the bounce buffer, at the same alignment. */
	u8 *bounce = v->bounce + (linear & 63);
	if (description & ACCESS_WRITES)
		mem_probe_write(v, linear, size, index, stack);
	if (description & ACCESS_READS)
		mem_read_linear(v, linear, bounce, size, index, stack);
	if (description & ACCESS_WRITES) {
		v->commit_linear = linear;
		v->commit_description = description;
		*return_address += 5; /* skips the jump to the plain path, see emit_one_cold() */
	}
	v->fault_pc = 0;
	return bounce;
}

/* For several accesses at once, see groups.c. */
void *soft_group(struct soft_vcpu *v, u64 address, u32 description, const u64 *return_address)
{
	void *p = tlb_try(v, address, GROUP_LENGTH(description), description & GROUP_WRITES,
			  (enum mmu_index)GROUP_INDEX(description));
	if (!p)
		block_check_failed(v, (const void *)*return_address);
	return p;
}

void soft_miss_attention(struct soft_vcpu *v, const void *pc)
{
	block_poke(v, pc);
}

void soft_commit(struct soft_vcpu *v)
{
	u32 description = v->commit_description;
	if (unlikely(ACCESS_MASK(description))) {
		masked_commit(v);
		return;
	}
	mem_write_linear(v, v->commit_linear, v->bounce + (v->commit_linear & 63),
			 ACCESS_SIZE(description), (enum mmu_index)ACCESS_INDEX(description),
			 description & ACCESS_STACK);
}

bool soft_commit_leave(struct soft_vcpu *v, const void *pc)
{
	/* The store was the instruction's last act, unless it is a CALL: that one still has to
	 * jump. */
	if (v->commit_description & ACCESS_CALL) {
		block_poke(v, pc);
		return false;
	}
	const struct block *b = block_of_host(v, pc);
	u32 next = block_insn(v, b, pc)->guest + block_insn_length(v, b, pc);
	v->rip = truncate_to_mode(v, b->linear + next - b->cs_base);
	if (v->running)
		finish_single(v);
	return true;
}

/* ---- where to go on ---- */

static void take_timers(struct soft_vcpu *v)
{
	atomic_fetch_and(&v->attention, ~(u32)ATTENTION_TIMER);
	timer_arm_next(v);
}

/* INIT and SIPI, SDM 3A 8.4.4 and table 9-1. */
static void take_startup(struct soft_vcpu *v)
{
	if (!v->lapic || !vmx_takes_startup(v))
		return;
	if (lapic_take_init(v)) {
		vcpu_reset(v, true);
		v->mp_state = v->base.id == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	}
	if (v->mp_state != KVM_MP_STATE_INIT_RECEIVED)
		return;
	int vector = lapic_take_sipi(v);
	if (vector < 0)
		return;
	v->seg[SEG_CS].selector = (u16)(vector << 8);
	v->seg[SEG_CS].base = (u64)vector << 12;
	v->rip = 0;
	v->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_segment_changed(v);
}

static void finish_step(struct soft_vcpu *v)
{
	v->stepped = 0;
	if (!v->keep_rf)
		v->rflags_sys &= ~RFLAGS_RF;
	v->keep_rf = 0;
	/* SDM 3B 17.3.1.4; but MOV SS and POP SS give none, not even a belated one (3A 6.8.3). */
	if (v->step_tf && v->int_shadow != 2)
		v->events.debug |= DR6_BS;
	debug_step_done(v);
	if (vmx_nonroot(v))
		vmx_stepped(v);
}

static u64 leave(struct soft_vcpu *v, enum leave_reason reason)
{
	v->leave = (u8)reason;
	return DISPATCH_LEAVE;
}

/* Anything but "go on with the next block"? */
static bool is_special(const struct soft_vcpu *v)
{
	const struct pending_events *ev = &v->events;
	return atomic_load_explicit(&v->attention, memory_order_acquire) | v->stepped |
	       v->int_shadow | v->replay | ev->exception | ev->soft_interrupt | ev->triple_fault |
	       (ev->debug != 0) | (v->mp_state != KVM_MP_STATE_RUNNABLE) | (v->mode & MODE_STEP);
}

/* Looks at everything that can come between two instructions. true: leave, *result says how. */
static bool handle_special(struct soft_vcpu *v, u64 *result)
{
	struct pending_events *ev = &v->events;

	/* A call before, of which a signal threw the result away, may have wanted to leave. */
	v->leave = LEAVE_NONE;
	if (atomic_load(&v->attention) & ATTENTION_WRITTEN)
		code_take_written(v);
	if (v->stepped)
		finish_step(v);
	else
		v->keep_rf =
		    0; /* what set it was no stepped instruction: nothing clears RF behind it */
	if (v->io_head != v->io_tail) {
		*result = leave(v, LEAVE_QUEUE);
		return true;
	}
	/* Before a kick, whose reason may be that the debugger changes its mind. */
	if (unlikely(debug_stop_due(v)) && !v->replay && !ev->exception && !ev->soft_interrupt) {
		*result = leave(v, LEAVE_DEBUG);
		return true;
	}
	/* A fault ends a shadow and a replay: before the look at kicks, which wait for the replay's
	 * end and would else wait until the handler comes here by chance. */
	if (ev->exception || ev->soft_interrupt) {
		if (vmx_nonroot(v) && ev->exception)
			vmx_on_exception(v);
		v->int_shadow = 0;
		v->replay = 0;
		v->io_logged = 0;
		v->io_cursor = 0;
	}
	u32 attention = atomic_load(&v->attention);
	/* immediate_exit itself is asked: the bit may have been taken by a call whose result a
	 * signal threw away. */
	if (!v->replay) {
		atomic_fetch_and(&v->attention, ~(u32)ATTENTION_KICK);
		if (v->base.run->immediate_exit) {
			vcpu_attention(v,
				       ATTENTION_KICK); /* until we are out: this may run again */
			*result = leave(v, LEAVE_KICK);
			return true;
		}
	}
	if ((attention & (ATTENTION_TIMER | ATTENTION_IRQ)) && v->cpl == 3 &&
	    (v->mode & 3) == MODE_CODE64)
		shadow_tick(v);
	if (attention & ATTENTION_TIMER)
		take_timers(v);
	atomic_fetch_and(&v->attention, ~(u32)(ATTENTION_IRQ | ATTENTION_QUEUE));
	take_startup(v);

	/* Faults come before anything else. */
	if (ev->exception || ev->soft_interrupt)
		events_deliver(v);
	if (v->mp_state == KVM_MP_STATE_HALTED && events_held_back(v))
		v->mp_state = KVM_MP_STATE_RUNNABLE;
	while (!ev->triple_fault && !v->replay && !debug_stop_due(v) && events_pending(v)) {
		if (v->mp_state == KVM_MP_STATE_HALTED)
			v->mp_state = KVM_MP_STATE_RUNNABLE;
		if (v->mp_state != KVM_MP_STATE_RUNNABLE)
			break;
		/* Without end if a breakpoint watches what the delivery of its own #DB touches. */
		if (v->base.run->immediate_exit) {
			*result = leave(v, LEAVE_KICK);
			return true;
		}
		events_deliver(v);
	}
	if (ev->triple_fault) {
		if (vmx_nonroot(v))
			vmx_triple_fault(v);
		*result = leave(v, LEAVE_SHUTDOWN);
		return true;
	}
	if (unlikely(debug_stop_due(v)) && !v->replay) {
		*result = leave(v, LEAVE_DEBUG);
		return true;
	}
	if (v->window_wanted && !v->replay && vcpu_window_open(v)) {
		*result = leave(v, LEAVE_WINDOW);
		return true;
	}
	if (v->mp_state != KVM_MP_STATE_RUNNABLE) {
		*result = leave(v, LEAVE_HALT);
		return true;
	}
	if (v->int_shadow | v->replay) /* what they hold back is due right behind them */
		vcpu_attention(v, ATTENTION_IRQ);
	return false;
}

/* The next instruction's mode: alone, if something has to be looked at behind it. */
static u32 next_mode(struct soft_vcpu *v)
{
	u32 mode = v->mode;
	if (v->int_shadow || v->replay || v->alone)
		mode |= MODE_ONE;
	if (mode & MODE_ONE)
		mode &= ~(u32)MODE_SHADOW;
	if (mode & MODE_STEP) {
		v->step_tf = (v->rflags_sys & RFLAGS_TF) != 0;
	} else if (v->rflags_sys & RFLAGS_RF) {
		v->rflags_sys &= ~RFLAGS_RF; /* it would fall with the first instruction */
	}
	return mode;
}

/* A near branch to a non-canonical address faults itself, with nothing of it done (SDM 2A CALL, 2B
 * RET). */
static void check_branch_target(struct soft_vcpu *v)
{
	const void *pc = (const void *)v->branch_pc;
	v->branch_pc = 0;
	if (likely(is_canonical(v->rip)) || !pc)
		return;
	v->fault_pc = (u64)pc - 1;
	v->regs[RSP] += block_branch_undo(v, pc);
	raise_gp(v, 0);
}

static u64 next_linear(struct soft_vcpu *v, u32 mode)
{
	const struct segment *cs = &v->seg[SEG_CS];
	if ((mode & 3) == MODE_CODE64)
		return v->rip;
	if (!(mode & MODE_FLAT) && v->rip > cs->limit)
		raise_gp(v, 0); /* SDM 3A 5.3 */
	return (u32)(v->rip + cs->base);
}

static void check_exec_breakpoint(struct soft_vcpu *v, u64 linear)
{
	/* SDM 3A 6.8.3: behind MOV SS breakpoints are off, as if RF were set. */
	if ((v->dr7 & 0xff) == 0 || (v->rflags_sys & RFLAGS_RF) || v->int_shadow == 2)
		return;
	if (v->replay) /* begun already; the monitor may have set the breakpoint since */
		return;
	u64 hit = debug_breakpoints_hit(v, linear);
	if (!hit)
		return;
	/* Fault class: before the instruction (SDM 3B 17.3.1.1). */
	v->events.debug |= hit;
	v->events.debug_fault = true;
	vcpu_resume(v);
}

/* Blocks of other modes have op_monitor_break() there. */
static bool monitor_breaks(struct soft_vcpu *v, u64 linear)
{
	if ((v->debug.dr7 & 0xff) == 0 || v->replay)
		return false;
	v->debug.hit |= debug_monitor_hit(v, linear);
	return v->debug.hit;
}

/* Page of @linear for execution; leaves through vcpu_exit() if it is no RAM. */
static const u8 *fetch_page(struct soft_vcpu *v, u64 linear, u64 *gpa)
{
	const u8 *host = mmu_fetch(v, linear, gpa);
	if (!host) {
		v->leave = LEAVE_NO_CODE;
		vcpu_exit(v);
	}
	return host;
}

/* The page behind @linear's: outside 64-bit mode 0 follows 0xffffffff (SDM 3A 3.3.1). */
static u64 next_page(u64 linear, u32 mode)
{
	u64 next = (linear & PAGE_MASK) + PAGE_SIZE;
	return (mode & 3) == MODE_CODE64 ? next : (u32)next;
}

/* A block whose instruction goes on in a second page is good only while that page is the same. */
static bool second_page_matches(struct soft_vcpu *v, const struct block *b)
{
	u64 gpa;
	if (b->gpa2 == ~0ull)
		return true;
	fetch_page(v, next_page(b->linear, b->mode), &gpa);
	return gpa == b->gpa2;
}

static u64 request_translation(struct soft_vcpu *v, u64 linear, u64 gpa, const u8 *host, u32 mode)
{
	bool need_next = v->source.need_next && v->source.linear == linear &&
			 v->source.gpa == gpa && v->source.mode == mode;
	v->source.need_next = false;
	v->source.next_page = NULL;
	if (need_next) {
		v->source.next_page = fetch_page(v, next_page(linear, mode), &v->source.next_gpa);
	}
	v->source.rip = v->rip;
	v->source.linear = linear;
	v->source.gpa = gpa;
	v->source.page = (const u8 *)((u64)host & PAGE_MASK);
	v->source.mode = mode;
	return DISPATCH_TRANSLATE;
}

/*
 * A jump cache holds blocks of one mode, and the block that runs next is going to look there,
 * whether it can be entered itself or not. To be called before the fetch: that notes the page for
 * tlb_flush_page(), and clearing forgets it.
 */
static void use_jump_cache(struct soft_vcpu *v, u32 mode)
{
	enum mmu_index index = v->mmu_index;
	if (!(mode & MODE_FLAT) || v->mmu->jump_mode[index] == mode)
		return;
	jump_cache_clear(v, index);
	v->mmu->jump_mode[index] = mode;
}

/* Makes the way shorter for next time. */
static void remember(struct soft_vcpu *v, struct block *b)
{
	enum mmu_index index = v->mmu_index;
	bool crosses = b->gpa2 != ~0ull;
	if (!(b->mode & MODE_FLAT) || (crosses && !v->vm->tune.crossings))
		return;
	jump_cache_put(v, index, b->linear, block_code(v->cache, b));
	if (!mmu_fetch_global(v, b->linear) ||
	    (crosses && !mmu_fetch_global(v, next_page(b->linear, b->mode))))
		v->mmu->jump_nonglobal[index]++;
}

/* What translated code would have found by itself; it got here from an op or an event. 0: nothing.
 */
static u64 known_way(const struct soft_vcpu *v, u32 mode, u64 linear)
{
	const struct jump_entry *entry = jump_cache_find(v, v->mmu_index, linear);
	return entry && v->mmu->jump_mode[v->mmu_index] == mode ? entry->code : 0;
}

/* Linked blocks follow each other unasked, whatever the page tables say then: so they lie in one
 * physical page, which the first one was found by, or the link is cut in time. The guest may have
 * remapped it on the way here.
 */
static bool may_link(struct soft_vcpu *v, const struct block_exit *link, const struct block *b)
{
	if (b->gpa2 != ~0ull)
		return false;
	const struct block *from = link->from;
	bool far = (from->linear ^ b->linear) & PAGE_MASK;
	return from->valid && ((from->mode ^ b->mode) & ~MODE_PLAIN) == 0 &&
	       from->cs_base == b->cs_base &&
	       (far ? (from->mode & MODE_SHADOW) != 0 : ((from->gpa ^ b->gpa) & PAGE_MASK) == 0) &&
	       link->target + b->cs_base == b->linear;
}

u64 soft_dispatch(struct soft_vcpu *v)
{
	struct block_exit *link = (struct block_exit *)v->pending_link;
	u64 result;
	v->stats.dispatches++;
	v->stats.dispatches_direct += link != NULL;
	v->stats.dispatches_indirect += v->branch_pc != 0;
	v->pending_link = 0;
	v->running = 0;
	if (unlikely(v->cache->poked))
		block_unpoke(v);
	if (v->branch_pc)
		check_branch_target(v);
	v->heeded = ~0u;
	if (unlikely(is_special(v))) {
		link = NULL;
		if (handle_special(v, &result))
			return result;
		if (v->replay)
			v->heeded = ~(u32)(ATTENTION_KICK | ATTENTION_IRQ);
		else if (v->int_shadow)
			v->heeded = ~(u32)ATTENTION_IRQ;
	}
	if (unlikely(v->shadow_check) && v->cpl == 3)
		shadow_enter(v);
	u32 mode = next_mode(v);
	bool plain = link && link->plain;
	u64 linear = next_linear(v, mode);
	if (unlikely(mode & (MODE_STEP | MODE_ONE)) && monitor_breaks(v, linear))
		return leave(v, LEAVE_DEBUG);
	if (unlikely(mode & MODE_STEP))
		check_exec_breakpoint(v, linear);
	if (!link && (result = known_way(v, mode, linear)))
		return result;
	if (!(mode & (MODE_ONE | MODE_STEP)))
		use_jump_cache(v, mode);
	if (plain)
		mode |= MODE_PLAIN;
	u64 gpa;
	const u8 *host = fetch_page(v, linear, &gpa);
	struct block *b = block_find(v, linear, gpa, mode);
	if (unlikely(!b || !second_page_matches(v, b))) {
		v->pending_link = (u64)link;
		return request_translation(v, linear, gpa, host, mode);
	}
	v->alone = false;
	v->running = mode & (MODE_ONE | MODE_STEP);
	if (likely(!v->running)) {
		if (link && may_link(v, link, b))
			block_link(v, link, b);
		if (!plain)
			remember(v, b);
	}
	return (u64)block_code(v->cache, b);
}
