#include <stdio.h>

#include "cli/cmd.h"
#include "image/store.h"

static int version_run(struct cli *cli, void *args, char **rest)
{
	puts("agent-vm " AGENT_VM_VERSION);
	(void)printf("image API version %d to %d\n", IMAGE_API_MIN, IMAGE_API_MAX);
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
