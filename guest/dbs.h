/* Databases of the agents (agents page 1.2). SQLite in WAL mode wants a mapping and locks that all its users share, which two
 * kernels on one shared folder do not have. So an agent's databases lie on the session's own disk, and the project's state
 * holds what was saved of them, whole sets under numbers that rise:
 *
 *    GC_DB_AT/NAME/			in this guest
 *    GC_STATE_AT/db/NAME.7/		the set that the next session begins with
 *    GC_STATE_AT/db/NAME.6/		the one before it
 *    GC_STATE_AT/db/NAME.8.SESSION/	of a session that began with NAME.7 and runs, or was killed: the next one that begins
 *					when it is dead makes it NAME.8. At its end in order it becomes NAME.8 itself
 *    GC_STATE_AT/db/NAME.7.SESSION/	of a session that runs, was killed or has ended when another one had saved NAME.7: kept
 *					beside it, the last one
 *
 *    GC_STATE_AT/db/NAME.anew.SESSION/	of a session that could not read NAME.7: no room, an error of the disk, a damaged file
 *
 * What a session could not read it has not gone on with, so it saves beside it, for good, and removes nothing that is older: the
 * next one tries NAME.7 again. While that fails it goes on with the youngest NAME.anew, as long as its session is dead, which is
 * its own from then on, and those before it go. When NAME.7 can be read again, NAME.anew stays where it is until a person has
 * taken it away; if there is no other set any more, it becomes NAME.1. One that could not be read either is NAME.anew-kept from
 * then on, if there is none yet.
 *
 * A set is written under another name and renamed, so it is whole or not there. That of a session that runs takes the place of
 * the same session's last one, which has the name NAME.8.SESSION.old in between and counts while the other is not there.
 *
 * Only the launcher can tell which sessions live, and it does so under the lock of the project's files (GC_LIVE), so nobody
 * takes the set of a session that goes on. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "guest/config.h"
#include "guest/dbset.h"

struct guest;

/* Where nothing was saved yet, databases that lie in GC_STATE_AT/FOLDER (of the older program) are the first set. With a link
 * FOLDER/LINK leads to the local file of that name, for a program whose database cannot be told another place. */
int dbs_load(struct guest *g, const struct config *c, struct err *err);

/* When nothing runs any more. What fails is a line in the log. */
void dbs_save(struct guest *g);

/* --- for guest/dbwatch.c, in its own process --- */

struct dbs_set {
	char name[65];
	unsigned number;	/* of the set that was begun with; 0: none */
	int unread;		/* 0; a negative errno: it could not be read, and another one was begun */
	char *unread_at;	/* below the state; NULL: none */
	struct dbset_look seen; /* what was begun with */
};

/* Those that were loaded. */
const struct dbs_set *dbs_sets(size_t *ret_n);

/* Saves what lies in @from, which nobody writes, as the set of this session, which goes on. Return: 0 or a negative errno */
int dbs_keep(const struct dbs_set *s, int from);

/* Is it there still? Sessions that begin and end meanwhile remove what is too old for them. */
bool dbs_is_kept(const struct dbs_set *s);

/* GC_DB_AT/NAME, made where it is missing, as a descriptor. @ret: its path, if wanted; caller owns. */
int dbs_local(const char *name, char **ret);

/* For tests: in place of GC_DB_AT, GC_STATE_AT (both kept) and the host name. */
void dbs_at(const char *local, const char *state, const char *session);
