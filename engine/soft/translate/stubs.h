/* The world switch: code between host C and translated code. */
#ifndef GUISE_SOFT_STUBS_H
#define GUISE_SOFT_STUBS_H

#include "engine/soft/translate/block.h"
#include "engine/soft/translate/insn.h"

/** Emits the stubs at the start of the cache and fills cache->stubs. Outside. */
void stubs_emit(struct soft_vcpu *v);

/** Those of SYSCALL and SYSRET; what they go on to is there. */
struct emitter;
void syscall_stubs_emit(struct emitter *e, struct stubs *s);
/** Those of REP MOVS and REP STOS. */
void string_stubs_emit(struct emitter *e, struct stubs *s);

/* Called by the stubs; dispatch.c and run.c. */
u64 soft_dispatch(struct soft_vcpu *v);
void soft_translate_pending(struct soft_vcpu *v);
void soft_op(struct soft_vcpu *v, const struct insn *i);
void *soft_miss(struct soft_vcpu *v, u64 address, u32 description, u64 *return_address);
void *soft_group(struct soft_vcpu *v, u64 address, u32 description, const u64 *return_address);
void soft_miss_attention(struct soft_vcpu *v, const void *pc);
void soft_commit(struct soft_vcpu *v);
bool soft_commit_leave(struct soft_vcpu *v, const void *pc);

/* Results of soft_dispatch() that are no code address */
#define DISPATCH_LEAVE	   0
#define DISPATCH_TRANSLATE 1

#endif
