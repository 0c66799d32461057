/* Stores to code that are not the vCPU's own. Inside, but for code_memory_written(). */
#ifndef GUISE_SOFT_WRITTEN_H
#define GUISE_SOFT_WRITTEN_H

#include "engine/soft/vcpu.h"

/** The guest's bytes [@gpa, @gpa + @size) have been written: no vCPU enters a translation of the
 * old ones any more once it has noticed, which is soon. Any thread. */
void code_memory_written(struct soft_vm *vm, u64 gpa, u64 size);

/** Throws away what was made of bytes that code_memory_written() has told of: the dispatcher's. */
void code_take_written(struct soft_vcpu *v);

/** Stores to the page of @gpa are noticed from now on, through any slot. To be called before its
 * bytes are read for translation. */
void code_mark_page(struct soft_vcpu *v, u64 gpa);

#endif
