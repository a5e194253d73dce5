#include "cli/cmd_doctor.h"

static const struct opt doctor_opts[] = {
	{ "json", OPT_FLAG, offsetof(struct doctor_args, json), NULL, "print the same as JSON" },
	{ 0 },
};

const struct cmd cmd_doctor = {
	.name = "doctor",
	.summary = "check what agent-vm needs on this host",
	.usage = "[--json]",
	.about = "One line for each thing that is needed: ok, warn or fail, what was found, and what to do about it. The exit "
		 "status is 1 if anything failed.",
	.opts = doctor_opts,
	.args_size = sizeof(struct doctor_args),
	.words = CMD_WORDS_NONE,
	.run = doctor_run,
};
