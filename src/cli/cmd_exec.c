#include "cli/cmd_exec.h"

static const struct opt exec_opts[] = {
	{ "session", OPT_STRING, offsetof(struct exec_args, session), "SESSION", "which session", 0,
	  "A name as ps shows it, four or more characters from its front, or the path of a project. Default: the one "
	  "session of the current project.",
	  "7d73" },
	{ 0 },
};

const struct cmd cmd_exec = {
	.name = "exec",
	.summary = "run one more program in a running session",
	.usage = "[--session SESSION] [--] [COMMAND [WORDS] | -c LINE]",
	.about = "Words are taken as by agent-vm shell. The program gets the environment that the agent has and starts in "
		 "the project folder.",
	.examples = "agent-vm exec\ta second shell beside the agent\n"
		    "agent-vm exec git status\tone command\n"
		    "agent-vm exec -c 'make && make test'\ta shell line\n"
		    "agent-vm exec --session 7d73 top\tin a session of another project\n",
	.opts = exec_opts,
	.args_size = sizeof(struct exec_args),
	.words = CMD_WORDS_GUEST,
	.run = exec_run,
};
