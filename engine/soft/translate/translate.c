/* Guest code to host code, a block at a time: decode, find live flags, emit. */
#include "engine/soft/translate/translate.h"

#include <errno.h>
#include <string.h>

#include "debug/trace.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/translate/inline_ops.h"
#include "engine/soft/translate/listing.h"
#include "engine/soft/translate/translator.h"
#include "engine/soft/translate/written.h"

/* Bytes that one block can take. Of code it is what nearly all do with, and a block of a single
 * instruction certainly. */
#define CODE_MAX (16u << 10)
#define METADATA_MAX                                                                               \
	(sizeof(struct block) + BLOCK_EXITS_MAX * sizeof(struct block_exit) +                      \
	 (BLOCK_INSNS_MAX + BLOCK_EXITS_MAX) * sizeof(struct insn) +                               \
	 sizeof(((struct translator *)0)->map) +                                                   \
	 ARRAY_SIZE(((struct translator *)0)->miss) * sizeof(struct cached_way) + 64)

/* ---- decoding ---- */

static u16 unit_fault(const struct decoded *d, u32 mode)
{
	/* SDM 3A 2.5 (CR0.EM, TS, MP), 13.1.3, and table 2-2: which unit faults how. */
	if (d->fpu && (mode & MODE_NO_FPU))
		return OP_ID_nm;
	if (d->mmx && (mode & MODE_EM))
		return OP_ID_ud;
	if (d->is_wait && (mode & MODE_TS) && (mode & MODE_MP))
		return OP_ID_nm;
	if ((d->sse && (mode & MODE_NO_SSE)) || (d->avx && (mode & MODE_NO_AVX)) ||
	    (d->avx512 && (mode & MODE_NO_AVX512)))
		return OP_ID_ud;
	if ((d->sse || d->avx || d->avx512 || d->mmx) && (mode & MODE_TS))
		return OP_ID_nm;
	return 0;
}

/* Outside flat segments the stack goes through C. */
static u16 segmented_op(const struct decoded *d)
{
	switch (d->class) {
	case CLASS_PUSH:
		return OP_ID_push;
	case CLASS_POP:
		return OP_ID_pop;
	case CLASS_LEAVE:
		return OP_ID_leave;
	case CLASS_CALL:
	case CLASS_CALL_IND:
		return OP_ID_call_near;
	case CLASS_RET:
		return OP_ID_ret_near;
	case CLASS_JMP_IND:
		return OP_ID_jmp_near;
	default:
		return 0;
	}
}

/* In VMX non-root operation what may leave goes through C (SDM 3C 26.1.3). */
static u16 nonroot_op(const struct decoded *d)
{
	const struct insn *i = &d->insn;

	if (d->class != CLASS_NATIVE || d->vex || d->evex)
		return 0;
	if (i->map == 0 && i->opcode == 0x90 && d->need_rep == 0xf3)
		return OP_ID_pause;
	if (i->map == 1 && i->opcode == 0xc7 && !i->is_mem) {
		u32 extension = i->modrm >> 3 & 7;
		return extension == 6 ? OP_ID_rdrand : extension == 7 ? OP_ID_rdseed : 0;
	}
	return 0;
}

/* Whether @d can neither fault nor leave: what is most often behind STI. */
static bool is_quiet(const struct decoded *d)
{
	u8 opcode = d->insn.opcode;

	switch (d->class) {
	case CLASS_NOP:
	case CLASS_LEA:
	case CLASS_JMP:
	case CLASS_JCC:
		return true;
	case CLASS_NATIVE:
		break;
	default:
		return false;
	}
	/* Arithmetic and moves between registers, and of constants */
	return !d->insn.is_mem && !d->vex && !d->evex && d->insn.map == 0 &&
	       (opcode < 0x40 || (opcode >= 0x80 && opcode <= 0x8b) ||
		(opcode >= 0xb0 && opcode <= 0xbf));
}

/* The last instruction is STI of non-root operation: VM exits tell of its shadow, so it stands at
 * the end of its block, unless one stands behind it that gives no occasion to. */
static void end_with_sti(struct translator *t)
{
	struct decoded *d = t->count ? &t->insns[t->count - 1] : NULL;

	if (d && (t->mode & MODE_NONROOT) && d->class == CLASS_OP && d->insn.op == OP_ID_sti)
		d->insn.op = OP_ID_sti_lone;
}

static void adapt_to_mode(struct decoded *d, u32 mode)
{
	u16 op = unit_fault(d, mode);
	if (!op && (mode & MODE_NONROOT))
		op = nonroot_op(d);
	if (!op && !(mode & MODE_FLAT))
		op = segmented_op(d);
	if (op) {
		d->class = CLASS_OP;
		d->insn.op = op;
	}
}

bool ends_block(const struct decoded *d)
{
	switch (d->class) {
	case CLASS_JMP:
	case CLASS_JCC:
	case CLASS_LOOP:
	case CLASS_CALL:
	case CLASS_JMP_IND:
	case CLASS_CALL_IND:
	case CLASS_RET:
		return true;
	case CLASS_OP:
		if (d->goes_on)
			return false;
		return (op_properties[d->insn.op] & OP_ENDS) || d->insn.op == OP_ID_ud ||
		       d->insn.op == OP_ID_gp || d->insn.op == OP_ID_nm;
	default:
		return false;
	}
}

/* Bytes of the instruction at @linear: in its page, or copied to @bytes if the next one, which has
 * been fetched, has some of them. */
static const u8 *gather_bytes(const struct code_source *source, u64 linear, u8 bytes[15],
			      u32 *available)
{
	const u8 *text = source->page + (linear & ~PAGE_MASK);
	u32 in_page = (u32)(PAGE_SIZE - (linear & ~PAGE_MASK));
	*available = in_page < 15 ? in_page : 15;
	if (likely(in_page >= 15) || !source->next_page)
		return text;
	memcpy(bytes, text, in_page);
	memcpy(bytes + in_page, source->next_page, 15 - in_page);
	*available = 15;
	return bytes;
}

/* How many of @available bytes at @rip lie within the limit of CS. */
static u32 within_cs_limit(const struct translator *t, u64 rip, u32 available)
{
	u64 limit = t->v->seg[SEG_CS].limit;
	if ((t->mode & 3) == MODE_CODE64 || (t->mode & MODE_FLAT))
		return available;
	if (rip > limit)
		return 0;
	return limit - rip + 1 < available ? (u32)(limit - rip + 1) : available;
}

/* Whether the block goes on behind branch @d: forward ones are more often not taken than taken. */
static bool goes_on_behind(struct translator *t, const struct decoded *d)
{
	if (!t->v->vm->tune.traces || (t->mode & MODE_PLAIN) || d->class != CLASS_JCC ||
	    d->target <= d->rip)
		return false;
	return ++t->branches < BLOCK_BRANCHES_MAX;
}

/* Decodes up to the end of the block. Returns 0, or -EFBIG: the first instruction needs the next
 * page. */
static int decode_block(struct translator *t, const struct code_source *source)
{
	u64 rip = source->rip, linear = source->linear;
	u32 limit = t->mode & (MODE_ONE | MODE_STEP) ? 1 : t->insns_max;
	bool stops = (t->v->debug.dr7 & 0xff) && !(t->mode & (MODE_ONE | MODE_STEP));
	bool shadow = false;

	while (t->count < limit) {
		struct decoded *d = &t->insns[t->count];
		u8 copied[15];
		u32 gathered;
		bool stop = unlikely(stops) && debug_monitor_hit(t->v, linear);
		if ((linear & PAGE_MASK) != t->page || (stop && t->count > 0))
			break;
		const u8 *bytes = gather_bytes(source, linear, copied, &gathered);
		u32 available = within_cs_limit(t, rip, gathered);
		int r = decode(t->v->cache->decoded, bytes, available, rip, t->mode, d);
		bool beyond_limit = r == -EFBIG && available < gathered;
		/* What is undefined may become defined by a change of any byte that was looked at.
		 */
		u32 span = d->insn.length ? d->insn.length : available ? available : 1;
		bool crosses = (linear & ~PAGE_MASK) + span > PAGE_SIZE;
		if (r == -EFBIG && !beyond_limit && t->count == 0)
			return -EFBIG;
		if ((r || crosses) && t->count > 0)
			break;
		if (beyond_limit) {
			d->class = CLASS_OP; /* SDM 3A 6.15, #GP: exceeding the CS limit */
			d->insn.op = OP_ID_gp;
		}
		adapt_to_mode(d, t->mode);
		if (stop) {
			d->class = CLASS_OP;
			d->insn.op = OP_ID_monitor_break;
			d->mmx = false;
		}
		if (shadow && (t->mode & MODE_NONROOT) && !is_quiet(d))
			break;
		if (!t->v->vm->tune.kept)
			d->flags_read |= d->flags_kept;
		d->goes_on = inline_op_goes_on(t, d);
		t->count++;
		t->block->length = (u16)(t->block->length + span);
		if (crosses) {
			t->block->gpa2 = source->next_gpa;
			break;
		}
		if (shadow || (ends_block(d) && !goes_on_behind(t, d)))
			break;
		if (d->class == CLASS_OP && (op_properties[d->insn.op] & OP_SHADOW))
			shadow = true;
		rip = d->next_rip;
		linear = rip + t->block->cs_base;
		if ((t->mode & 3) != MODE_CODE64)
			linear = (u32)linear;
	}
	end_with_sti(t);
	return 0;
}

/* ---- emission ---- */

void emit_op_by(struct translator *t, const struct decoded *d, const u8 *stub, bool returns)
{
	struct emitter *e = &t->e;
	struct insn *insn = cache_alloc(t->v->cache, sizeof(*insn));
	if (!insn) {
		t->no_memory = true;
		return;
	}
	*insn = d->insn;
	r14_changes(t);
	flags_to_memory(t, S0);
	if (d->mmx || insn->op == OP_ID_frstor) { /* #MF here (SDM 1 8.6), not in the C function */
		map_here(t, t->current, true);
		e8(e, 0x9b);
	}
	e_store_gs_imm(e, GS(rip), d->rip, S0);
	e_mov_imm(e, S1, (u64)insn);
	if (returns)
		e_call_to(e, stub - e->to_rx);
	else
		e_jmp_to(e, stub - e->to_rx);
}

void emit_op(struct translator *t, const struct decoded *d)
{
	const struct stubs *stubs = &t->v->cache->stubs;
	bool returns = !(op_properties[d->insn.op] & OP_ENDS);
	emit_op_by(t, d, returns ? stubs->op : stubs->op_end, returns);
}

static void emit_direction_flag(struct translator *t, const struct decoded *d)
{
	struct emitter *e = &t->e;
	bool set = d->insn.opcode == 0xfd;
	if (!t->parked && t->live)
		flags_to_memory(t, S0);
	e_gs(e, W32, 0x81, set ? ALU_OR : ALU_AND, GS(rflags_sys));
	e32(e, set ? (u32)RFLAGS_DF : ~(u32)RFLAGS_DF);
}

/* A native instruction with its flags where they must be before and after it. */
static void emit_native_with_flags(struct translator *t, const struct decoded *d)
{
	u16 changed = d->flags_written | d->flags_kept;
	bool passes_through = changed && (t->live & ~d->flags_written);
	bool needs_host = d->flags_read || passes_through;
	t->body_acquire = t->parked && needs_host;
	bool parked_after = t->parked && !needs_host && !d->flags_written;
	t->body_host_after = !parked_after;
	t->map[t->map_count - 1].flags_parked = t->parked && (d->mem || !needs_host);
	emit_native(t, d);
	t->parked = parked_after;
	t->body_acquire = false;
}

static void emit_insn(struct translator *t, const struct decoded *d)
{
	map_here(t, t->current, t->parked);
	if (looks_up(t, t->current))
		flags_release(t, d);
	t->body_acquire = false;
	t->body_host_after = !t->parked;
	t->map[t->map_count - 1].flags_parked = t->parked;
	switch (d->class) {
	case CLASS_NATIVE:
		emit_native_with_flags(t, d);
		break;
	case CLASS_OP:
		r14_changes(t);
		s1_changes(t);
		if (!emit_inline_op(t, d))
			emit_op(t, d);
		break;
	case CLASS_NOP:
		break;
	case CLASS_LEA:
		emit_lea(t, d);
		break;
	case CLASS_PUSH:
		emit_push(t, d);
		break;
	case CLASS_POP:
		emit_pop(t, d);
		break;
	case CLASS_LEAVE:
		emit_leave(t, d);
		break;
	case CLASS_DF:
		emit_direction_flag(t, d);
		break;
	default:
		emit_flow(t, d);
		break;
	}
}

/* The instruction after STI or MOV SS: its shadow ends with it. */
static void emit_clear_shadow(struct translator *t)
{
	struct emitter *e = &t->e;
	e8(e, 0x65);
	e8(e, 0xc6);
	e8(e, 0x04);
	e8(e, 0x25);
	e32(e, (u32)GS(int_shadow));
	e8(e, 0); /* mov byte gs:[int_shadow], 0 */
}

static bool casts_shadow(const struct decoded *d)
{
	return d->class == CLASS_OP && (op_properties[d->insn.op] & OP_SHADOW);
}

static void emit_block(struct translator *t, u16 live_at_start)
{
	emit_entries(t, live_at_start);
	if (t->looping)
		emit_loop_head(t);
	for (u32 n = 0; n < t->count; n++) {
		t->current = n;
		t->live = t->live_after[n];
		if (n > 0 && casts_shadow(&t->insns[n - 1]))
			emit_clear_shadow(t);
		emit_insn(t, &t->insns[n]);
	}
	const struct decoded *last = &t->insns[t->count - 1];
	if (!ends_block(last))
		emit_goto(t, last->next_rip);
	emit_cold(t);
	emit_slow_ops(t);
	emit_exit_stubs(t);
}

/* ---- blocks ---- */

static struct block *new_block(struct soft_vcpu *v, const struct code_source *source, u32 mode)
{
	struct block *b = cache_alloc(v->cache, sizeof(*b));
	if (!b)
		return NULL;
	b->linear = source->linear;
	b->gpa = source->gpa;
	b->gpa2 = ~0ull;
	b->cs_base = code_base(v, mode);
	b->cs_limit = v->seg[SEG_CS].limit;
	b->mode = mode;
	b->code = (u32)v->cache->used;
	return b;
}

/* 0, -EFBIG (needs the next page), or -ENOSPC (has to be shorter than @insns_max). */
static int make_block(struct soft_vcpu *v, const struct code_source *source, u32 mode,
		      u32 insns_max)
{
	struct block_cache *cache = v->cache;
	struct translator *t = cache->translator;
	memset(t, 0, offsetof(struct translator, insns));
	t->cold_count = 0;
	t->slow_count = 0;
	t->map_count = 0;
	t->side_count = 0;
	t->miss_count = 0;
	t->v = v;
	t->mode = mode;
	t->insns_max = insns_max;
	t->block = new_block(t->v, source, t->mode);
	if (!t->block)
		return -ENOSPC;
	t->index = (enum mmu_index)MODE_MMU(t->mode);
	t->page = source->linear & PAGE_MASK;
	t->r14_group = GROUP_NONE;
	t->s1_group = GROUP_NONE;
	t->spare = S1;
	t->group_count = 0;
	t->looping = false;
	t->mem_index = REG_NONE;
	t->mem_base = S0;
	t->mem_scale = 1;
	t->kept[0] = t->kept[1] = GROUP_NONE;
	t->e = (struct emitter){
	    .p = cache->rw + cache->used,
	    .limit = cache->rw + cache->used + CODE_MAX,
	    .to_rx = cache->rx - cache->rw,
	};
	int r = decode_block(t, source);
	if (r)
		return r;
	u16 live_at_start = find_live_flags(t);
	find_groups(t, !live_at_start);
	emit_block(t, live_at_start);

	struct block *b = t->block;
	b->map = cache_alloc(cache, t->map_count * sizeof(struct insn_map));
	if (t->no_memory || t->e.full || !b->map)
		return -ENOSPC;
	memcpy(b->map, t->map, t->map_count * sizeof(struct insn_map));
	b->map_count = (u16)t->map_count;
	b->code_size = (u32)(t->e.p - (cache->rw + b->code));
	cache->used = align_up(b->code + b->code_size, 16);
	return 0;
}

struct block *translate(struct soft_vcpu *v, const struct code_source *source, u32 mode, int *error)
{
	struct block_cache *cache = v->cache;
	struct translator *t = cache->translator;
	u32 insns_max = BLOCK_INSNS_MAX;
	/* Room first: it may be made by the page's last block, which takes its mark with it. */
	cache_make_room(v, CODE_MAX, METADATA_MAX);
	u64 metadata = cache->arena_used;
	code_mark_page(v, source->gpa);
	if (source->next_page)
		code_mark_page(v, source->next_gpa);
	do {
		cache->arena_used = metadata;
		*error = make_block(v, source, mode, insns_max);
		insns_max /= 2;
	} while (*error == -ENOSPC && insns_max);
	if (*error)
		return NULL;
	struct block *b = t->block;
	block_insert(v, b);
	v->stats.blocks_translated++;
	v->stats.insns_translated += t->count;
	v->stats.code_bytes += b->code_size;
	if (unlikely(v->cache->perf))
		listing_name_block(t);
	if (trace_on(translate, 1))
		listing_trace_block(t);
	return b;
}
