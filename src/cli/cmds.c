#include "cli/cmd.h"

#include <string.h>

extern const struct cmd cmd_claude, cmd_codex, cmd_opencode, cmd_copilot, cmd_shell;
extern const struct cmd cmd_setup, cmd_pull, cmd_build, cmd_images, cmd_prune;
extern const struct cmd cmd_clipboard, cmd_exec, cmd_ps, cmd_stop, cmd_logs, cmd_why, cmd_doctor, cmd_version, cmd_help;

const struct cmd *const cmds[] = {
	&cmd_claude,
	&cmd_codex,
	&cmd_opencode,
	&cmd_copilot,
	&cmd_shell,
	&cmd_setup,
	&cmd_pull,
	&cmd_build,
	&cmd_exec,
	&cmd_ps,
	&cmd_stop,
	&cmd_logs,
	&cmd_why,
	&cmd_clipboard,
	&cmd_images,
	&cmd_prune,
	&cmd_doctor,
	&cmd_version,
	&cmd_help,
	NULL,
};

const struct cmd *cmd_find(const char *name)
{
	for (const struct cmd *const *c = cmds; *c; c++)
		if (strcmp((*c)->name, name) == 0 || ((*c)->alias && strcmp((*c)->alias, name) == 0))
			return *c;
	return NULL;
}
