#include <stdio.h>

#include "cli/cmd.h"
#include "cli/help.h"

struct help_args {
	bool man;
};

static int help_run(struct cli *cli, void *args, char **rest)
{
	const struct help_args *a = args;
	const struct cmd *cmd = NULL;

	if (a->man) {
		help_man(stdout);
		return 0;
	}
	if (rest[0]) {
		cmd = cmd_find(rest[0]);
		if (!cmd)
			return cmd_unknown(rest[0]);
	}
	help_full(stdout, cmd, help_width(STDOUT_FILENO));
	return 0;
}

static const struct opt help_opts[] = {
	{ "man", OPT_FLAG, offsetof(struct help_args, man), NULL, "print the man page", OPT_HIDDEN },
	{ 0 },
};

const struct cmd cmd_help = {
	.name = "help",
	.summary = "say what a command does",
	.usage = "[COMMAND]",
	.opts = help_opts,
	.args_size = sizeof(struct help_args),
	.words = CMD_WORDS_MIXED,
	.max_words = 1,
	.run = help_run,
};
