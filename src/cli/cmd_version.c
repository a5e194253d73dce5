#include <stdio.h>

#include "cli/cmd.h"

static int version_run(struct cli *cli, void *args, char **rest)
{
	puts("agent-vm " AGENT_VM_VERSION);
	return 0;
}

static const struct opt version_opts[] = { { 0 } };

const struct cmd cmd_version = {
	.name = "version",
	.summary = "print versions",
	.usage = "",
	.opts = version_opts,
	.words = CMD_WORDS_NONE,
	.run = version_run,
};
