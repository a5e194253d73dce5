/* What the command line knows and this version cannot do yet. An option in the table is understood, its value checked,
 * and then refused: nothing is started that does less than was asked for. A line goes away with the part it waits for. */
#pragma once

#include <stdbool.h>

/* Why that option (without dashes) is refused, "CAUSE; WHAT TO DO"; NULL: it is not. */
const char *not_yet_option(const char *name);
/* That an option only forbids what this version does not do anyway; it is taken, so that scripts go on. NULL: it does more. */
const char *not_yet_held(const char *name);
/* The same for a command that does not exist yet; NULL: nothing is known about it. */
const char *not_yet_command(const char *name);
