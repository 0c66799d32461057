/* Short integer names and small helpers used everywhere. A leaf: includes nothing of the project.
 */
#ifndef GUISE_BASE_TYPES_H
#define GUISE_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define BIT(n)				(1ull << (n))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define likely(x)			__builtin_expect(!!(x), 1)
#define unlikely(x)			__builtin_expect(!!(x), 0)

/** Smallest multiple of @align (a power of two) that is not below @x. */
static inline u64 align_up(u64 x, u64 align)
{
	return (x + align - 1) & ~(align - 1);
}

/** Largest multiple of @align (a power of two) that is not above @x. */
static inline u64 align_down(u64 x, u64 align)
{
	return x & ~(align - 1);
}

#endif
