/* Random numbers that follow from a seed alone: xorshift64*. */
#ifndef GUISE_TESTS_DIFF_RANDOM_H
#define GUISE_TESTS_DIFF_RANDOM_H

#include "base/types.h"

struct random {
	u64 s; /* never zero */
};

static inline u64 random_next(struct random *r)
{
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1dull;
}

static inline u32 below(struct random *r, u32 n)
{
	return (u32)(random_next(r) >> 33) % n;
}

static inline bool one_in(struct random *r, u32 n)
{
	return below(r, n) == 0;
}

static inline void put_random(struct random *r, u8 *p, u32 n)
{
	for (u32 k = 0; k < n; k++)
		p[k] = (u8)random_next(r);
}

#endif
