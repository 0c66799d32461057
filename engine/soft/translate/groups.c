/*
 * Several memory accesses, one address check.
 *
 * Most blocks touch the same object, or their stack frame, again and again. Registers are followed
 * through the block as "value + offset": accesses whose base and index hold the same values lie at
 * constant distances, whatever these values are. The first of them looks up the TLB once for all
 * the bytes from the lowest to the highest, keeps the hva in v->group[], and the others use it
 * unasked: inside a block nothing takes a page away from under them but C operations, behind which
 * groups begin anew. Where the whole does not lie in one page of plain RAM, or would fault
 * somewhere, the block is left for one without groups (MODE_PLAIN, emit_cold_group()), so that
 * every access faults by itself and in its turn.
 */
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/translate/translator.h"

/* What a register holds: value number @id, plus @offset. */
struct value {
	u16 id;
	s64 offset;
};

#define VALUE_ZERO 0 /* constants: the offset is all */

/* What places of one group have in common. */
struct key {
	u16 base, index; /* value numbers; VALUE_ZERO: none */
	u8 scale, seg;
	s64 page; /* of a constant address */
};

struct open_group {
	struct key key;
	s64 origin;    /* offset of the first place */
	s64 low, high; /* of all, relative to it */
	u32 members, branches;
	bool write;
	bool shadow;
	bool hoisted; /* and what then goes into struct group */
	s8 varies;
	u8 scale;
	s64 step;
	struct place where;
	struct place *places[2 * BLOCK_INSNS_MAX];
};

struct groups {
	struct translator *t;
	struct value reg[16];
	u16 next_id;
	u32 branches;	      /* conditional branches so far */
	enum mmu_index index; /* STAC and CLAC change it */
	u32 count;
	struct open_group open[GROUP_SLOTS];
};

/* ---- places ---- */

static u8 address_size(const struct translator *t)
{
	return (t->mode & 3) == MODE_CODE64 ? 8 : (t->mode & 3) == MODE_CODE32 ? 4 : 2;
}

struct place operand_place(const struct decoded *d, u32 size, bool read, bool write)
{
	const struct insn *i = &d->insn;
	return (struct place){.base = i->base,
			      .index = i->index,
			      .scale = i->scale,
			      .seg = i->seg,
			      .addrsize = i->addrsize,
			      .read = read,
			      .write = write,
			      .size = (u16)size,
			      .disp = i->disp,
			      .group = GROUP_NONE};
}

struct place stack_place(const struct translator *t, int base, s32 disp, u32 size, bool write)
{
	return (struct place){.base = (s8)base,
			      .index = REG_NONE,
			      .scale = 1,
			      .seg = SEG_SS,
			      .addrsize = address_size(t),
			      .read = !write,
			      .write = write,
			      .size = (u16)size,
			      .disp = disp,
			      .group = GROUP_NONE};
}

/* The places that @d accesses, in this order. */
static u32 list_places(const struct translator *t, const struct decoded *d, struct place *out)
{
	u32 size = stack_size(t, d), n = 0;
	switch (d->class) {
	case CLASS_NATIVE:
		if (d->mem)
			out[n++] = operand_place(d, d->mem_size, d->mem_read, d->mem_write);
		break;
	case CLASS_PUSH:
	case CLASS_CALL:
	case CLASS_CALL_IND:
		if (d->mem)
			out[n++] = operand_place(d, size, true, false);
		out[n++] = stack_place(t, RSP, -(s32)size, size, true);
		break;
	case CLASS_POP:
		out[n++] = stack_place(t, RSP, 0, size, false);
		if (d->mem) {
			out[n] = operand_place(d, size, false, true);
			/* RSP as base counts after the increment (SDM 2B POP). */
			if (d->insn.base == RSP)
				out[n].disp += (s32)size;
			n++;
		}
		break;
	case CLASS_LEAVE:
		out[n++] = stack_place(t, RBP, 0, size, false);
		break;
	case CLASS_RET:
		out[n++] = stack_place(t, RSP, 0, size, false);
		break;
	case CLASS_JMP_IND:
		if (d->mem)
			out[n++] = operand_place(d, size, true, false);
		break;
	default:
		break;
	}
	return n;
}

bool looks_up(const struct translator *t, u32 n)
{
	if (is_shadowed(t, &t->insns[n]))
		return false;
	for (u32 k = 0; k < t->place_count[n]; k++) {
		const struct place *p = &t->places[n][k];
		if (p->group == GROUP_NONE || p->first)
			return true;
	}
	return false;
}

/* ---- values ---- */

static void forget(struct groups *g, int reg)
{
	g->reg[reg] = (struct value){.id = g->next_id++};
}

static void forget_all(struct groups *g)
{
	for (int reg = 0; reg < 16; reg++)
		forget(g, reg);
}

/* A full-width register move, constant or sum: what the translation can follow. */
static bool follow(struct groups *g, const struct decoded *d)
{
	const struct insn *i = &d->insn;
	u8 wide = address_size(g->t);
	if (i->map || d->vex || d->mem || i->lock || i->opsize != wide)
		return false;
	switch (i->opcode) {
	case 0x89: /* MOV rm, reg */
		g->reg[i->rm] = g->reg[i->reg];
		return true;
	case 0x8b:
		g->reg[i->reg] = g->reg[i->rm];
		return true;
	case 0x81:
	case 0x83:
		if ((i->modrm >> 3 & 7) != 0 && (i->modrm >> 3 & 7) != 5)
			return false;
		g->reg[i->rm].offset += (i->modrm >> 3 & 7) == 0 ? (s64)i->imm : -(s64)i->imm;
		return true;
	case 0xff:
		if ((i->modrm >> 3 & 7) > 1)
			return false;
		g->reg[i->rm].offset += (i->modrm >> 3 & 7) == 0 ? 1 : -1;
		return true;
	default:
		return false;
	}
}

static bool follow_lea(struct groups *g, const struct insn *i)
{
	u8 wide = address_size(g->t);
	if (i->opsize != wide || i->addrsize != wide || i->index != REG_NONE)
		return false;
	struct value v = i->base == REG_NONE ? (struct value){.id = VALUE_ZERO} : g->reg[i->base];
	v.offset += i->disp;
	g->reg[i->reg] = v;
	return true;
}

/* The registers behind @d. */
static void step(struct groups *g, const struct decoded *d)
{
	s64 size = stack_size(g->t, d);
	switch (d->class) {
	case CLASS_OP:
		forget_all(g);
		if (d->goes_on && (d->insn.op == OP_ID_stac || d->insn.op == OP_ID_clac))
			g->index = d->insn.op == OP_ID_stac ? MMU_KERNEL_AC : MMU_KERNEL;
		return;
	case CLASS_PUSH:
	case CLASS_CALL:
	case CLASS_CALL_IND:
		g->reg[RSP].offset -= size;
		return;
	case CLASS_POP:
		g->reg[RSP].offset += size;
		if (!d->mem)
			forget(g, d->gpr[0].guest);
		return;
	case CLASS_LEAVE:
		g->reg[RSP] = g->reg[RBP];
		g->reg[RSP].offset += size;
		forget(g, RBP);
		return;
	case CLASS_JCC:
		g->branches++;
		return;
	case CLASS_LEA:
		if (!follow_lea(g, &d->insn))
			forget(g, d->insn.reg);
		return;
	case CLASS_NATIVE:
		if (follow(g, d))
			return;
		break;
	default:
		break;
	}
	for (int reg = 0; reg < 16; reg++)
		if (d->gpr_written & 1u << reg)
			forget(g, reg);
}

/* ---- groups ---- */

static bool same_key(const struct key *a, const struct key *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale &&
	       a->seg == b->seg && a->page == b->page;
}

/* Bytes that members of a group may be apart in MODE_SHADOW, where only their window counts. */
#define SHADOW_DISTANCE (SHADOW_REACH / 4)

/* Key and offset of @p's address. */
static struct key key_of(const struct groups *g, const struct place *p, s64 *offset)
{
	bool has_base = p->seg == SEG_FS || p->seg == SEG_GS;
	struct key key = {.seg = has_base ? p->seg : SEG_DS, .scale = 1};
	*offset = p->disp;
	if (p->base != REG_NONE) {
		key.base = g->reg[p->base].id;
		*offset += g->reg[p->base].offset;
	}
	if (p->index != REG_NONE) {
		key.index = g->reg[p->index].id;
		key.scale = key.index == VALUE_ZERO ? 1 : p->scale;
		*offset += g->reg[p->index].offset * p->scale;
	}
	if (key.base == VALUE_ZERO && key.index == VALUE_ZERO && !has_base)
		key.page = *offset & (g->t->mode & MODE_SHADOW ? -SHADOW_DISTANCE : (s64)PAGE_MASK);
	return key;
}

static bool may_group(const struct groups *g, const struct place *p)
{
	const struct translator *t = g->t;
	if (g->index != t->index) /* the way to MODE_PLAIN is within one mode */
		return false;
	if (!t->v->vm->tune.groups || !(t->mode & MODE_FLAT) ||
	    (t->mode & (MODE_PLAIN | MODE_ONE | MODE_STEP | MODE_ALIGN)))
		return false;
	return p->addrsize == address_size(t) &&
	       ((t->mode & 3) == MODE_CODE64 || (p->seg != SEG_CS && p->seg < SEG_FS));
}

static bool joins(const struct open_group *o, const struct key *key, s64 distance,
		  const struct place *p, u32 branches)
{
	s64 low = distance < o->low ? distance : o->low;
	s64 high = distance + p->size > o->high ? distance + p->size : o->high;
	if (!same_key(&o->key, key))
		return false;
	if (o->shadow)
		return high - low <= SHADOW_DISTANCE;
	if (high - low > GROUP_LENGTH_MAX)
		return false;
	/* The check's own address is the first place's, with another displacement. */
	const struct place *first = o->places[0];
	s64 disp = first->disp + low;
	if ((first->base != REG_NONE || first->index != REG_NONE) && disp != (s32)disp)
		return false;
	/* Behind a branch perhaps nobody writes: what may only be read must not fail for that. */
	return o->write || !p->write || o->branches == branches;
}

static void join(struct open_group *o, s64 distance, struct place *p)
{
	o->low = distance < o->low ? distance : o->low;
	o->high = distance + p->size > o->high ? distance + p->size : o->high;
	o->write |= p->write;
	o->places[o->members++] = p;
	p->in_group = (s32)distance;
}

/* Now that all members are known. */
static void close_group(struct translator *t, struct open_group *o)
{
	if (o->members < 2 && !o->hoisted)
		return;
	u8 number = (u8)t->group_count++;
	t->groups[number] = (struct group){.low = (s32)o->low,
					   .high = (s32)o->high,
					   .members = (u16)o->members,
					   .write = o->write,
					   .shadow = o->shadow,
					   .slot = number,
					   .hoisted = o->hoisted,
					   .varies = o->hoisted ? o->varies : REG_NONE,
					   .scale = o->scale,
					   .step = o->step,
					   .where = o->where};
	t->looping |= o->hoisted;
	for (u32 n = 0; n < o->members; n++) {
		struct place *p = o->places[n];
		p->group = number;
		p->first = n == 0 && !o->hoisted;
		p->in_group -= (s32)o->low;
		if (o->hoisted && o->varies != REG_NONE)
			p->in_group -= (s32)(p->base == o->varies ? p->base_offset
								  : p->index_offset * p->scale);
	}
}

/* ---- loops ---- */

/* The block is a loop that jumps back to its own beginning, and nothing in it is done by C. */
static bool is_loop(const struct translator *t)
{
	const struct decoded *last = &t->insns[t->count - 1];
	if (!t->v->vm->tune.loops || last->class != CLASS_JCC || last->target != t->insns[0].rip ||
	    (t->mode & 3) != MODE_CODE64 || t->block->gpa2 != ~0ull)
		return false;
	for (u32 n = 0; n < t->count; n++)
		if (t->insns[n].class == CLASS_OP)
			return false;
	return true;
}

/* What a turn of the loop adds to value @id, which *@reg held as it began; false: not known. */
static bool turn_adds(const struct groups *g, u16 id, s64 *step, s8 *reg)
{
	*step = 0;
	*reg = REG_NONE;
	if (id == VALUE_ZERO)
		return true;
	if (id > 16)
		return false;
	*reg = (s8)(id - 1); /* as forget_all() numbered them first */
	*step = g->reg[*reg].offset;
	return g->reg[*reg].id == id;
}

#define STEP_MAX (1 << 10) /* bytes a turn: a page should hold some turns */

/*
 * Whether a check at the loop's head can stand for many turns: the address stays, or moves by a
 * constant with one register. Not for what only comes behind a branch: it may not be meant to be
 * accessed.
 */
static void try_hoist(const struct groups *g, struct open_group *o)
{
	s64 base_step, index_step, disp = o->origin + o->low;
	s8 base, index;
	if (((g->t->mode & MODE_SHADOW) && !o->shadow) || o->branches || disp != (s32)disp ||
	    !turn_adds(g, o->key.base, &base_step, &base) ||
	    !turn_adds(g, o->key.index, &index_step, &index) || (base_step && index_step) ||
	    (base == index && base_step))
		return;
	s64 bytes = base_step + index_step * o->key.scale;
	if (bytes > STEP_MAX || bytes < -STEP_MAX)
		return;
	for (u32 n = 0; n < o->members; n++) {
		const struct place *p = o->places[n];
		/* Found in other registers than those that the loop began with */
		if (p->base != base || p->index != index)
			return;
		if (p->base_offset != (s16)p->base_offset ||
		    p->index_offset != (s16)p->index_offset)
			return;
	}
	o->hoisted = true;
	o->varies = base_step ? base : index_step ? index : REG_NONE;
	o->scale = base_step ? 1 : o->key.scale;
	o->step = base_step ? base_step : index_step;
	o->where = *o->places[0];
	o->where.disp = disp;
}

static void add_place(struct groups *g, struct place *p, bool may_be_first, bool shadow)
{
	s64 offset;
	if (!may_group(g, p))
		return;
	p->base_offset = p->base == REG_NONE ? 0 : g->reg[p->base].offset;
	p->index_offset = p->index == REG_NONE ? 0 : g->reg[p->index].offset;
	struct key key = key_of(g, p, &offset);
	for (u32 n = 0; n < g->count; n++) {
		struct open_group *o = &g->open[n];
		if (o->shadow == shadow && joins(o, &key, offset - o->origin, p, g->branches)) {
			join(o, offset - o->origin, p);
			return;
		}
	}
	if (!may_be_first || g->t->group_count + g->count >= GROUP_SLOTS)
		return;
	struct open_group *o = &g->open[g->count++];
	o->key = key;
	o->origin = offset;
	o->branches = g->branches;
	o->members = 0;
	o->low = 0;
	o->high = p->size;
	o->write = false;
	o->hoisted = false;
	o->shadow = shadow;
	join(o, 0, p);
}

static void close_all(struct groups *g)
{
	for (u32 n = 0; n < g->count; n++)
		close_group(g->t, &g->open[n]);
	g->count = 0;
}

void find_groups(struct translator *t, bool may_loop)
{
	struct groups g;
	g.t = t;
	g.next_id = VALUE_ZERO + 1;
	g.branches = 0;
	g.index = t->index;
	g.count = 0;
	forget_all(&g);
	for (u32 n = 0; n < t->count; n++) {
		const struct decoded *d = &t->insns[n];
		u32 count = list_places(t, d, t->places[n]);
		t->place_count[n] = (u8)count;
		/* The second access comes when the first is done: a check that failed then would
		 * do it twice. */
		for (u32 k = 0; k < count; k++)
			if (!d->mem_mask) /* what an opmask leaves out must not be checked */
				add_place(&g, &t->places[n][k], k == 0, is_shadowed(t, d));
		if (d->class == CLASS_OP)
			close_all(&g);
		step(&g, d);
	}
	if (may_loop && is_loop(t))
		for (u32 n = 0; n < g.count; n++)
			try_hoist(&g, &g.open[n]);
	close_all(&g);
}
