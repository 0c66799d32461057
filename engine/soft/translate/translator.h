/*
 * The making of one block. Private to translate/.
 *
 * Guest flags are in the host's flags, or parked in v->arith (t->parked). Code that destroys host
 * flags (address checks, jump-cache look-ups) is emitted after flags_release(); an instruction that
 * needs them gets them back after its address checks (body_acquire). Which flags are live comes
 * from a backward pass over the block; all are live at its end.
 */
#ifndef GUISE_SOFT_TRANSLATOR_H
#define GUISE_SOFT_TRANSLATOR_H

#include "engine/soft/translate/block.h"
#include "engine/soft/translate/decode.h"
#include "engine/soft/translate/emit.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/translate/ops.h"

#define BLOCK_INSNS_MAX	   64
#define BLOCK_BRANCHES_MAX 8 /* conditional branches in a block */
#define BLOCK_EXITS_MAX	   (BLOCK_BRANCHES_MAX + GROUP_SLOTS + 3)

struct translator;
typedef void body_function(struct translator *t, const struct decoded *d);

/* A memory operand, the stack's included: [base + index * scale + disp]. */
struct place {
	s8 base, index; /* guest registers or REG_NONE */
	u8 scale, seg, addrsize;
	bool read, write;
	u16 size; /* bytes */
	s64 disp;
	s64 base_offset, index_offset; /* of these registers, since the block's start */
	u8 group;		       /* number in t->groups[], or GROUP_NONE */
	bool first;		       /* of its group: makes the check for all */
	s32 in_group;		       /* distance from the group's lowest byte */
};

#define GROUP_NONE	 0xff
#define PLACES_MAX	 2    /* of an instruction */
#define GROUP_LENGTH_MAX 1024 /* bytes that one check may cover */

/* Places that lie at constant distances from each other, checked together by the first: groups.c.
 */
struct group {
	s32 low, high; /* bytes covered, from the first place's address */
	u16 members;
	bool write;
	bool shadow; /* found through the shadow table: only the window counts */
	u8 slot;     /* of v->group[] */

	/* Checked at the head of a loop, see loops.c */
	bool hoisted;
	s8 varies;	    /* the register that moves it from turn to turn, or REG_NONE */
	u8 scale;	    /* of that register */
	s64 step;	    /* of that register, a turn */
	struct place where; /* lowest byte as the loop begins */
};

/* Out-of-line part of a memory access, emitted after the block. */
struct cold_access {
	u8 *site;	 /* jump that leads here */
	bool group;	 /* a group's check: all or nothing, see emit_cold_group() */
	u64 constant;	 /* the address, if only its page was looked up; r14 then holds that */
	u8 *back;	 /* where the instruction proper starts */
	u8 *after;	 /* where it ends */
	u32 description; /* for the miss stub */
	s32 tag;	 /* gs offset of the TLB tag to undo the XOR with; 0: address is intact */
	body_function *body;
	const struct decoded *d;
	u32 insn;	 /* index */
	u32 mode;	 /* where the access stands: STAC and CLAC change it */
	bool acquire;	 /* flags are wanted in the host before the body */
	bool host_after; /* flags are in the host after it */
};

/* A branch taken, or the way on behind the block. */
struct side_exit {
	u8 *site;	 /* rel32 of the jump */
	u64 target;	 /* CS-relative */
	u32 insn;	 /* index of the branch */
	u32 mode;	 /* there */
	bool parked;	 /* where the flags are */
	bool plain;	 /* the way on is a MODE_PLAIN block */
	bool inner;	 /* to the loop's body */
	u32 cold;	 /* plain: cache offset of the cold part that ends in this jump */
	bool cs_checked; /* the target has to be held against CS's limit */
};

/* A test of inline_ops.c that leads to the instruction's C function, emitted after the block. */
struct slow_op {
	u8 *site;	/* jump that leads here */
	const u8 *back; /* behind the instruction */
	u32 insn;	/* index */
};

struct translator {
	struct emitter e;
	struct soft_vcpu *v;
	struct block *block;
	u32 mode; /* and index: at the current instruction; the block's own until STAC or CLAC */
	enum mmu_index index;
	u64 page; /* linear page of the block */
	bool parked;
	u16 live;    /* flags live after the current instruction */
	u32 current; /* index of the current instruction */
	bool body_acquire, body_host_after;
	bool no_memory; /* metadata exhausted: the block has to be shorter */
	u32 insns_max;	/* instructions that the block may have */
	u32 count;
	u32 branches; /* conditional branches that the block goes on behind */
	struct decoded insns[BLOCK_INSNS_MAX];
	u16 live_after[BLOCK_INSNS_MAX];
	struct place places[BLOCK_INSNS_MAX][PLACES_MAX];
	u8 place_count[BLOCK_INSNS_MAX];
	struct group groups[GROUP_SLOTS];
	u32 group_count;
	u8 r14_group;  /* group whose lowest byte's hva is in r14, or GROUP_NONE */
	s32 disp;      /* from r14 to the operand, while a body is emitted, */
	int mem_index; /* with this host register, or REG_NONE, */
	int mem_scale; /* times this; natives only */
	int mem_base;  /* and this one: S0, S1 for a group that is kept there, or the guest's own */
	int spare;     /* scratch register that the body may use: S1, or S0 */
	u8 s1_group;   /* group whose entry of the shadow table is in r15, or GROUP_NONE */
	u8 kept[2];    /* groups whose v->group[] is in r14, r15 all through a loop */
	bool looping;  /* the block is a loop with groups checked at its head */
	struct cold_access cold[3 * BLOCK_INSNS_MAX];
	u32 cold_count;
	struct slow_op slow_op[2 * BLOCK_INSNS_MAX];
	u32 slow_count;
	struct side_exit
	    side[BLOCK_EXITS_MAX]; /* branches that leave, their way out emitted last */
	u32 side_count;
	struct {
		u8 *site;
		u32 insn;
		const u8 *stub;
		bool compared; /* behind the comparison with an entry: a kick makes all miss */
	} miss[2 * BLOCK_EXITS_MAX + 4]; /* jump-cache misses */
	u32 miss_count;
	struct insn_map map[7 * BLOCK_INSNS_MAX + 1];
	u32 map_count;
};

/* ---- flags (flags.c) ---- */
/** Fills live_after[] and returns what is live at the block's start. */
u16 find_live_flags(struct translator *t);
/** The block's two entries; t->parked is set to the state that it prefers. */
void emit_entries(struct translator *t, u16 live_at_start);
/** Before code that destroys host flags. */
void flags_release(struct translator *t, const struct decoded *d);
/** Puts the guest's flags into the host, whatever is live. */
void flags_to_host(struct translator *t, int tmp);
/** Parks them, whatever is live. */
void flags_to_memory(struct translator *t, int tmp);

/* ---- groups of accesses (groups.c) ---- */
/** The memory operand of @d, as an access of @size bytes. */
struct place operand_place(const struct decoded *d, u32 size, bool read, bool write);
/** @size bytes at guest register @base (RSP or RBP) + @disp, in the stack. */
struct place stack_place(const struct translator *t, int base, s32 disp, u32 size, bool write);
/** Fills places[] and forms groups. @may_loop: no flags are live at the block's start. */
void find_groups(struct translator *t, bool may_loop);
/** Whether instruction @n looks an address up, which destroys flags. */
bool looks_up(const struct translator *t, u32 n);
/** Whether @d finds its memory through the shadow table. */
bool is_shadowed(const struct translator *t, const struct decoded *d);

/* ---- memory (memory.c) ---- */
/** r14 = effective address + @extra, before segmentation outside 64-bit mode; FS/GS base added in
 * 64-bit mode. */
void emit_ea(struct translator *t, const struct place *where, s64 extra);
/** The access to place @k of the current instruction: its hva less t->disp to r14, then @body, with
 * everything that can go wrong. */
void emit_access(struct translator *t, const struct decoded *d, u32 k, body_function *body);
/** The access whose address is in r14 already; of @where size, kind and segment count. */
void emit_access_r14(struct translator *t, const struct decoded *d, const struct place *where,
		     body_function *body);
/** r14 = hva of group @g's lowest byte, which is @where; with the way out for all of the group. */
void emit_group_lookup(struct translator *t, const struct decoded *d, const struct group *g,
		       const struct place *where, s64 extra);
void emit_cold(struct translator *t);

/* ---- loops (loops.c) ---- */
/** The checks that hold for many turns; the loop's body follows. */
void emit_loop_head(struct translator *t);
/** Behind the loop's last instruction if its branch is taken: another turn. Destroys flags. */
void emit_loop_turn(struct translator *t);
/** The jump at @site leaves for @target; flags are where t->parked says. Its way is emitted last.
 */
struct side_exit *add_side_exit(struct translator *t, u8 *site, u64 target, u32 insn,
				bool cs_checked);
/** Appends to the map: from here on host code belongs to instruction @insn. */
void map_here(struct translator *t, u32 insn, bool parked);

/* ---- native instructions (native.c) ---- */
void emit_native(struct translator *t, const struct decoded *d);

/* ---- control flow and stack (flow.c) ---- */
void emit_flow(struct translator *t, const struct decoded *d);
/** Ends the block: go on at @target (CS-relative). */
void emit_goto(struct translator *t, u64 target);
void emit_exit_stubs(struct translator *t);
/** Operand size of near branch or stack instruction @d, bytes. */
u32 stack_size(const struct translator *t, const struct decoded *d);
bool ends_block(const struct decoded *d);
void emit_push(struct translator *t, const struct decoded *d);
void emit_pop(struct translator *t, const struct decoded *d);
void emit_leave(struct translator *t, const struct decoded *d);
void emit_lea(struct translator *t, const struct decoded *d);
/** A call of the instruction's C function. */
void emit_op(struct translator *t, const struct decoded *d);
/** The same through @stub, which is called if it @returns. */
void emit_op_by(struct translator *t, const struct decoded *d, const u8 *stub, bool returns);

/** Guest @g into host register @dst. */
static inline void e_get_guest(struct emitter *e, int w, int dst, int g)
{
	if (host_reg(g) == REG_NONE)
		e_load_gs(e, w, dst, GS_REG(g));
	else
		e_mov(e, w, dst, host_reg(g));
}

/** r14 is about to change. */
static inline void r14_changes(struct translator *t)
{
	t->r14_group = GROUP_NONE;
}

/** So is r15. */
static inline void s1_changes(struct translator *t)
{
	t->s1_group = GROUP_NONE;
}

/** The scratch register that a body may use is about to change. */
static inline void spare_changes(struct translator *t)
{
	if (t->spare == S0)
		r14_changes(t);
	else
		s1_changes(t);
}

/* Access description for the miss stub */
#define ACCESS_SIZE(d)	   ((d)&0xff)
#define ACCESS_READS	   BIT(8)
#define ACCESS_WRITES	   BIT(9)
#define ACCESS_STACK	   BIT(10)
#define ACCESS_SEGMENTED   BIT(11)
#define ACCESS_ALIGN	   BIT(14)
#define ACCESS_CALL	   BIT(15) /* return address of a near call: the jump follows */
#define ACCESS_INDEX(d)	   (((d) >> 12) & 3)
#define ACCESS_INDEX_SHIFT 12
#define ACCESS_ALIGNED	   BIT(19) /* a vector that must be aligned to its size */
#define ACCESS_SEG(d)	   (((d) >> 16) & 7)
#define ACCESS_SEG_SHIFT   16
/* bits 20 to 29: masked.h */

/* Description for the group stub */
#define GROUP_LENGTH(d)	  ((d)&0xffff)
#define GROUP_WRITES	  BIT(16)
#define GROUP_INDEX(d)	  ((d) >> 17)
#define GROUP_INDEX_SHIFT 17

#endif
