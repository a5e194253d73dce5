/* The banner and the table of what is open (spec/cli.md section 9.3). Nothing is open that it does not show; the same
 * rows stand in session.json. */
#pragma once

#include <stdbool.h>

#include "cli/preflight.h"
#include "session/session.h"

/* "==> NAME: VERB in PATH" */
void table_banner(const struct plan *p, const struct session *s);

/* Make the rows, keep them in the session, and print them unless @quiet. */
void table_rows(const struct plan *p, struct session *s, bool quiet);
