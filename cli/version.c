#include <stdio.h>

#include "cli/cli.h"

int cli_version(int argc, char **argv)
{
	if (argc > 1) {
		cli_complain("version takes no arguments, not '%s'", argv[1]);
		return CLI_HOST_FAILED;
	}
	printf("guise %s\n", GUISE_VERSION);
	return CLI_OK;
}
