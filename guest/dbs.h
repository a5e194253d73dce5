/* Databases of the agents (agents page 1.2). SQLite in WAL mode wants a mapping and locks that all its users share, which two
 * kernels on one shared folder do not have. So an agent's databases lie on the session's own disk, and the project's state
 * holds what was saved of them, whole sets under numbers that rise:
 *
 *    GC_DB_AT/NAME/			in this guest
 *    GC_STATE_AT/db/NAME.7/		the set that the next session begins with
 *    GC_STATE_AT/db/NAME.6/		the one before it
 *    GC_STATE_AT/db/NAME.7.SESSION/	of a session that ended when another one had saved NAME.7: kept beside it, the last one
 *
 * A set is written under another name and renamed, so it is whole or not there. */
#pragma once

#include "base/err.h"
#include "guest/config.h"

struct guest;

/* Where nothing was saved yet, databases that lie in GC_STATE_AT/FOLDER (of the older program) are the first set. With a link
 * FOLDER/LINK leads to the local file of that name, for a program whose database cannot be told another place. */
int dbs_load(struct guest *g, const struct config *c, struct err *err);

/* When nothing runs any more. What fails is a line in the log. */
void dbs_save(struct guest *g);
