#include "debug/trace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

u8 trace_level[TRACE_COUNT];

static const char *const names[TRACE_COUNT] = {
#define X(name, what) [TRACE_##name] = #name,
    TRACE_SUBSYSTEMS(X)
#undef X
};

static void put_line(enum trace_subsystem sub, const char *fmt, va_list ap)
{
	char line[512];
	int n = snprintf(line, sizeof(line), "%s: ", names[sub]);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n] = '\n';
	fwrite(line, 1, (size_t)n + 1, stderr);
}

void trace_line(enum trace_subsystem sub, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	put_line(sub, fmt, ap);
	va_end(ap);
}

/* x87, SSE, AVX, AVX-512: what libc may touch; 2696 bytes in the standard format (SDM 1 13.4). */
#define VECTOR_STATE 0xe7u

struct vector_state {
	_Alignas(64) u8 area[2752];
};

#define GENERAL_REGISTERS_ONLY __attribute__((target("general-regs-only")))

GENERAL_REGISTERS_ONLY static inline void save(struct vector_state *state)
{
	void *header = state->area + 512;
	u64 header_bytes = 64;

	/* XRSTOR faults on a header that is not clean (SDM 1 13.8.1). */
	__asm__ volatile("rep stosb" : "+D"(header), "+c"(header_bytes) : "a"(0) : "memory");
	__asm__ volatile("xsave64 %0" : "+m"(state->area) : "a"(VECTOR_STATE), "d"(0) : "memory");
}

GENERAL_REGISTERS_ONLY static inline void restore(const struct vector_state *state)
{
	__asm__ volatile("xrstor64 %0" : : "m"(state->area), "a"(VECTOR_STATE), "d"(0) : "memory");
}

GENERAL_REGISTERS_ONLY void trace_line_gp(enum trace_subsystem sub, const char *fmt, ...)
{
	struct vector_state state;
	va_list ap;

	save(&state);
	va_start(ap, fmt);
	put_line(sub, fmt, ap);
	va_end(ap);
	restore(&state);
}

GENERAL_REGISTERS_ONLY void trace_call_gp(void (*write)(void *opaque), void *opaque)
{
	struct vector_state state;

	save(&state);
	write(opaque);
	restore(&state);
}

static int set_one(const char *word, size_t len, u8 level)
{
	int found = -1;
	for (int i = 0; i < TRACE_COUNT; i++) {
		bool all = len == 3 && !memcmp(word, "all", 3);
		if (all || (strlen(names[i]) == len && !memcmp(names[i], word, len))) {
			trace_level[i] = level;
			found = 0;
		}
	}
	return found;
}

static void list_names(char *out, size_t size)
{
	size_t used = 0;
	for (int i = 0; i < TRACE_COUNT && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s, ", names[i]);
	if (used < size)
		snprintf(out + used, size - used, "all");
}

int trace_configure(const char *spec, struct error *err)
{
	for (const char *p = spec; *p;) {
		size_t len = strcspn(p, ",");
		size_t name_len = strcspn(p, "=,");
		unsigned long level = 1;
		if (name_len < len) {
			char *end;
			level = strtoul(p + name_len + 1, &end, 10);
			if (end != p + len || level > 3)
				return error_set(err, EINVAL,
						 "trace level '%.*s' is not 0, 1, 2 or 3",
						 (int)(len - name_len - 1), p + name_len + 1);
		}
		if (set_one(p, name_len, (u8)level) < 0) {
			char known[256];
			list_names(known, sizeof(known));
			return error_set(err, EINVAL, "unknown trace subsystem '%.*s'; known: %s",
					 (int)name_len, p, known);
		}
		p += len;
		if (*p == ',')
			p++;
	}
	return 0;
}
