#pragma once

#include "cli/cmd.h"

struct doctor_args {
	bool json;
};

extern const struct cmd cmd_doctor;

/* cmd_doctor's run(). */
int doctor_run(struct cli *cli, void *args, char **rest);
