#include "engine/engine.h"

#include <string.h>

const struct engine *const engines[] = {&engine_kvm, &engine_soft, NULL};

const struct engine *engine_by_name(const char *name)
{
	for (const struct engine *const *e = engines; *e; e++)
		if (!strcmp((*e)->name, name))
			return *e;
	return NULL;
}
