#pragma once

#include "cli/cmd.h"

struct exec_args {
	const char *session; /* as typed, NULL: the one of the current project */
};

extern const struct cmd cmd_exec;

/* cmd_exec's run(); @rest goes through agent_shell_argv(). */
int exec_run(struct cli *cli, void *args, char **rest);
