/*
 * Translated blocks of one vCPU: storage, lookup, chaining, invalidation.
 *
 * The code cache is mapped twice, writable (rw) and executable (rx). It begins with the stubs
 * (stubs.c). Behind them lies a ring: each new block takes the place of the oldest ones, so it
 * never takes long to make room, and a host address finds its block by binary search. What belongs
 * to blocks but is no code (metadata) lies in a ring of its own, in the same order.
 *
 * So a block can vanish whenever another one is translated, and only then: when no translated code
 * is on the stack. Nothing may keep its address across that but what remove_block() knows of.
 */
#ifndef GUISE_SOFT_BLOCK_H
#define GUISE_SOFT_BLOCK_H

#include "engine/soft/translate/mode.h"
#include "engine/soft/vcpu.h"

struct block;
struct decode_cache;
struct error;
struct perf_map;
struct translator;

/* A direct jump out of a block; unlinked it leads to its stub, which asks the dispatcher. Within
 * one page a link is good as long as its blocks are. Those to other pages, of MODE_SHADOW only,
 * depend on the TLBs as entries of the jump cache do, and are cut with them: blocks_cut_far(). */
struct block_exit {
	u32 site; /* cache offset of the rel32 */
	u32 stub; /* cache offset of the stub */
	u64 target;
	struct block *linked;
	struct block_exit *next_incoming, **prev_incoming; /* of linked */
	struct block_exit *next_far, **prev_far; /* if linked to a block of another page */
	struct block *from;
	bool parked; /* flags are in v->arith here, not in the host's */
	bool plain;  /* leads to a MODE_PLAIN block */
	bool inner;  /* back to the block's own loop_body */
	u8 failures; /* plain: how often C could not help, see block_check_failed() */
	u32 cold;    /* plain: where the way to C begins, cache offset */
};

#define BLOCK_ALIGNMENT 16 /* of its metadata */

/* A way out of a block through the jump cache. Offsets are from block->code. */
struct cached_way {
	u16 branch; /* where it branches to the call if nothing was found; 0: always called */
	u16 back;   /* behind the call of the stub for what was not found */
	s32 undo;   /* what to add to RSP if the target turns out to be non-canonical */
};

/* From which host offset on which guest instruction runs; sorted by host. */
struct insn_map {
	u16 host;	      /* offset from block->code */
	u16 guest : 15;	      /* offset from block->linear, bytes */
	u16 flags_parked : 1; /* guest flags are in v->arith, not in the host's */
};

struct block {
	/* What a search looks at comes first, near together. */
	u64 linear;   /* key: linear address (CS base + RIP), */
	u64 gpa;      /*      guest-physical address, */
	u64 cs_base;  /*      CS base, */
	u32 cs_limit; /*      CS limit unless flat, */
	u32 mode;     /*      translation mode */
	struct block *hash_next;
	u64 gpa2; /* second page if the single instruction crosses into one, else ~0 */
	u32 code; /* cache offset */
	u32 code_size;
	u16 entry_host, entry_parked; /* from .code: where to enter with the guest's flags in the
				       * host's or in v->arith; the same if the block reads none */
	u16 length;		      /* guest bytes */
	u16 map_count;
	u8 exit_count;
	bool valid;
	u16 loop_body; /* from .code: behind what holds for all turns of a loop; 0: none */
	struct insn_map *map;
	struct block_exit *incoming;
	struct block *page_next[2], *page_prev[2]; /* chains of the pages of gpa and gpa2 */
	struct block_exit *exits;
	struct cached_way *ways;
	u8 way_count;
};

/* The stubs' looks at attention that are on the way to the guest's next instruction. */
enum attention_check {
	CHECK_OP,
	CHECK_MISS,
	CHECK_COMMIT,
	CHECK_SYSCALL, /* + enum mmu_set */
	CHECK_SYSRET = CHECK_SYSCALL + MMU_SETS,
	CHECK_GROUP = CHECK_SYSRET + MMU_SETS,
	CHECK_SECOND, /* and one for each MMU index of each set */
	CHECK_COUNT = CHECK_SECOND + MMU_SETS * MMU_COUNT
};

/* Code stubs at the start of the cache; host code addresses in rx. See stubs.c. */
struct stubs {
	const u8 *enter;	  /* void (*)(struct soft_vcpu *): runs until something leaves */
	const u8 *dispatch;	  /* guest state is in memory: ask the dispatcher where to go */
	const u8 *dispatch_ready; /* from here to dispatch_end: rewind to dispatch on a kick */
	const u8 *dispatch_end;
	const u8 *leave; /* back to the caller of enter */
	const u8 *exit;	 /* r15 = struct block_exit by its place in the arena, flags in host */
	const u8 *exit_parked;	/* the same, flags parked */
	const u8 *plain_parked; /* v->rip set, flags parked, nothing to chain */
	const u8 *plain_exit;	/* as exit, nothing to chain */
	const u8 *indirect;	/* called: r14 = target, flags parked */
	/* As indirect, when the address was not in its own slot of the jump cache of that index:
	 * looks at the others. */
	const u8 *second[MMU_SETS][MMU_COUNT];
	const u8 *op;		     /* r15 = struct insn *, v->rip set, flags parked */
	const u8 *op_end;	     /* the same, goes on in the dispatcher */
	const u8 *miss;		     /* r14 = address, r15 = access description: r14 = hva */
	const u8 *group;	     /* r14 = address, r15 = access description: r14 = hva or 0 */
	const u8 *commit;	     /* bounce buffer to guest memory; flags parked */
	const u8 *syscall[MMU_SETS]; /* as op_end, v->next_rip set: SYSCALL from 64-bit code */
	const u8 *sysret[MMU_SETS];  /* as op_end: SYSRET to 64-bit code at CPL 0 */
	/* called, otherwise as op_end: REP MOVS of 1 << n bytes */
	const u8 *movs[MMU_SETS][MMU_COUNT][4];
	const u8 *stos[MMU_SETS][MMU_COUNT][4];
	/* The same for MODE_SHADOW, of any length; where their string instructions stand, with r14
	 * added to RSI and r15 to RDI */
	const u8 *shadow_movs[4], *shadow_stos[4];
	const u8 *shadow_rep_movs[4], *shadow_rep_stos[4];
	const u8 *leaves_begin; /* those; the block that called them is at the top of the stack */
	const u8 *leaves_end;
	const u8 *check_begin[CHECK_COUNT]; /* attention checks that a kick rewinds to: [begin,
					       end) */
	const u8 *check_end[CHECK_COUNT];
};

#define PAGE_HASH_SIZE (1u << 13)

/* Blocks with bytes in any of the pages that share a place of the hash table. */
struct page_chain {
	struct block *first;
	u64 lines[4]; /* bit per 16 bytes of a page: no bit, no block depends on them */
	bool stale;   /* some bits may stand for blocks that are gone */
};

struct block_cache {
	u8 *rw, *rx;
	u64 size;      /* bytes */
	u64 stubs_end; /* where the ring of blocks starts */
	u64 used;      /* where the next block goes */
	u8 *arena;     /* metadata */
	u64 arena_size, arena_used, arena_limit;
	u64 populated, arena_populated; /* bytes of each that have had memory asked for */
	struct block *poked;		/* see block_poke() */
	struct block **by_age; /* a ring too: @count blocks, valid or not, from @oldest on */
	u32 age_mask, oldest, count;
	struct block_exit *far; /* all links to other pages */
	struct block **hash;	/* hash_mask + 1 */
	u32 hash_mask;
	struct page_chain *pages; /* PAGE_HASH_SIZE */
	struct stubs stubs;
	bool has_rorx;		       /* the host has BMI2 */
	struct translator *translator; /* working memory of translate() */
	struct decode_cache *decoded;
	struct perf_map *perf; /* told of all code; NULL: nobody asked */
};

/* ---- cache.c, outside ---- */
int cache_create(struct soft_vcpu *v, u64 code_size, struct error *err);
void cache_destroy(struct block_cache *cache);
/** Throws all blocks away. No translated code may be on the stack of callers. */
void cache_reset(struct soft_vcpu *v);
/** Throws away as many of the oldest blocks as it takes for one more with @code bytes of code and
 * @metadata bytes of metadata: those then follow cache->used and what cache_alloc() gave last. */
void cache_make_room(struct soft_vcpu *v, u64 code, u64 metadata);
/** @size bytes of metadata, 8-aligned and zeroed, of those that cache_make_room() was asked for; or
 * NULL. */
void *cache_alloc(struct block_cache *cache, u64 size);

/* ---- block.c, inside ---- */
struct block *block_find(struct soft_vcpu *v, u64 linear, u64 gpa, u32 mode);
/** Enters a finished block, the youngest, into hash, page chains and ring. */
void block_insert(struct soft_vcpu *v, struct block *b);
/** Throws away the oldest block; its memory is free then. There is one. */
void block_evict_oldest(struct soft_vcpu *v);
/** Throws all blocks away; their memory is free only when it is their turn. */
void blocks_invalidate_all(struct soft_vcpu *v);
/** Lets @exit jump straight to @target. */
void block_link(struct soft_vcpu *v, struct block_exit *exit, struct block *target);
/** Block whose code holds @pc (in rx), valid or not; NULL if none. */
struct block *block_of_host(struct soft_vcpu *v, const void *pc);
/** What to add to RSP to undo the near branch whose call of a stub returns to @pc. */
s64 block_branch_undo(struct soft_vcpu *v, const void *pc);
/** The instruction that @pc belongs to. */
const struct insn_map *block_insn(const struct soft_vcpu *v, const struct block *b, const void *pc);
/** Its bytes. */
u32 block_insn_length(const struct soft_vcpu *v, const struct block *b, const void *pc);
/** A check for several accesses has failed for good (soft_group()), called from @pc: after some
 * times the check leads to the MODE_PLAIN block at once. */
void block_check_failed(struct soft_vcpu *v, const void *pc);
/** Makes the block that runs at @pc come out at its end, until block_unpoke(): direct exits lead to
 * their stubs, and no look-up of the jump cache finds anything. Returns where the block has to go
 * on: @pc, or before it if that was between a look-up and its jump. Async-signal-safe on the vCPU's
 * own thread while it runs translated code. */
const void *block_poke(struct soft_vcpu *v, const void *pc);
/** Lets the block that was poked go its ways again. Every block that is poked comes to the
 * dispatcher before another one runs. */
void block_unpoke(struct soft_vcpu *v);

/** What to add to RIP for a linear address in @mode: in 64-bit mode CS has no base, whatever its
 * descriptor says (SDM 3A 3.2.4). */
static inline u64 code_base(const struct soft_vcpu *v, u32 mode)
{
	return (mode & 3) == MODE_CODE64 ? 0 : v->seg[SEG_CS].base;
}

static inline struct block *block_oldest(const struct block_cache *cache)
{
	return cache->by_age[cache->oldest & cache->age_mask];
}

/* Where to enter @b with flags parked. */
static inline const u8 *block_code(const struct block_cache *cache, const struct block *b)
{
	return cache->rx + b->code + b->entry_parked;
}

#endif
