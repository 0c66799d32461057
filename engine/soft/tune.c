#include "engine/soft/tune.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

static const struct {
	const char *name;
	size_t offset;
} tunings[] = {
#define X(name, what) {#name, offsetof(struct soft_tuning, name)},
    SOFT_TUNINGS(X)
#undef X
};

const char tuning_help[] =
#define X(name, what) "  " #name ": " what "\n"
    SOFT_TUNINGS(X)
#undef X
    ;

void tuning_default(struct soft_tuning *tuning)
{
	memset(tuning, true, sizeof(*tuning));
}

static int unknown_name(const char *text, int length, struct error *err)
{
	char known[512] = "all";
	for (size_t n = 0; n < ARRAY_SIZE(tunings); n++) {
		size_t used = strlen(known);
		snprintf(known + used, sizeof(known) - used, ", %s", tunings[n].name);
	}
	return error_set(err, EINVAL, "nothing to tune is called '%.*s'; known: %s", length, text,
			 known);
}

/* One NAME=on|off of @length bytes. */
static int tuning_parse_one(struct soft_tuning *tuning, const char *text, int length,
			    struct error *err)
{
	const char *equals = memchr(text, '=', (size_t)length);
	int name_length = equals ? (int)(equals - text) : length;
	const char *value = equals ? equals + 1 : "";
	int value_length = equals ? length - name_length - 1 : 0;
	bool on = value_length == 2 && !strncmp(value, "on", 2);
	bool off = value_length == 3 && !strncmp(value, "off", 3);
	bool all = name_length == 3 && !strncmp(text, "all", 3);
	bool found = false;

	if (!on && !off)
		return error_set(err, EINVAL, "tuning '%.*s' is not like NAME=on or NAME=off",
				 length, text);
	for (size_t n = 0; n < ARRAY_SIZE(tunings); n++) {
		const char *name = tunings[n].name;
		if (!all && (strlen(name) != (size_t)name_length ||
			     strncmp(name, text, (size_t)name_length)))
			continue;
		*(bool *)((char *)tuning + tunings[n].offset) = on;
		found = true;
	}
	return found ? 0 : unknown_name(text, name_length, err);
}

int tuning_parse(struct soft_tuning *tuning, const char *text, struct error *err)
{
	for (;;) {
		int length = (int)strcspn(text, ",");
		int r = tuning_parse_one(tuning, text, length, err);
		if (r < 0 || !text[length])
			return r;
		text += length + 1;
	}
}
