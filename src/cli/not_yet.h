/* What the command line knows and this version cannot do yet. An option in the table is understood, its value checked,
 * and then refused: nothing is started that does less than was asked for. A line goes away with the part it waits for. */
#pragma once

#include <stdbool.h>

/* Why that option (without dashes) is refused, "CAUSE; WHAT TO DO"; NULL: it is not. */
const char *not_yet_option(const char *name);
