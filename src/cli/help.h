/* Help and man page, made from the tables of commands and options. */
#pragma once

#include <stdio.h>

#include "cli/cmd.h"

/* Width of the terminal behind @fd, 80 if it is none. */
unsigned help_width(int fd);

/* -h: one line an option and four examples. @cmd NULL: of the whole program. */
void help_short(FILE *to, const struct cmd *cmd, unsigned width);
/* --help: everything. */
void help_full(FILE *to, const struct cmd *cmd, unsigned width);
/* agent-vm.1 in the man macros. */
void help_man(FILE *to);
