/* engine_usable NAME: exit status 0 if the engine works here, else 77 and the reason on stdout. */
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"

int main(int argc, char **argv)
{
	struct engine_probe probe;

	for (const struct engine *const *e = engines; argc == 2 && *e; e++) {
		if (strcmp((*e)->name, argv[1]))
			continue;
		(*e)->probe(&probe);
		if (probe.usable)
			return 0;
		printf("%s\n", probe.reason);
		return 77;
	}
	fprintf(stderr, "engine_usable: no engine of that name\n");
	return 1;
}
