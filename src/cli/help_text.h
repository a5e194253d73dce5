/* What the help says beyond the tables of options and commands; used by help.c and man.c. */
#pragma once

#include "cli/cmd.h"

struct help_row {
	const char *name, *text;
};

struct help_direction {
	const char *from, *to, *text;
};

/* All end with an empty row. */
extern const struct help_direction help_directions[];
extern const struct help_row help_variables[];
extern const struct help_row help_exits[];

extern const char help_summary[], help_about[], help_examples[];
/* The command whose options stand for those of all launch verbs in the program's own help. */
extern const struct cmd *const help_launch;

/* "--memory SIZE", "--quiet"; caller owns. */
char *help_opt_left(const struct opt *o);
/* Whole sentences about an option; caller owns. */
char *help_opt_text(const struct opt *o);
