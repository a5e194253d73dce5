/* Watch over the git configs that the guest may write (--git-config rw; command line page, section 8.4).
 *
 * inotify tells that a file may have changed: the folder for what happens to the name, the file itself for what is written
 * into it, under whatever name (a hard link). Then it is read and compared with what it was at the start (session/confdiff.h).
 * What may stay becomes the last good content. Anything else, and a link, folder or special file in its place, or nothing, is
 * undone: the last good content in a new file, renamed over it. A new file, because the guest may have the old one open.
 * Who wrote is not known: a change by the host is undone as well.
 *
 * Files are opened by path each time, no link followed, so that what is looked at is what git on the host would read. A folder
 * in a config's place is moved aside as NAME.undone-XXXXXXXX unless it is empty: to empty it would take as long as the guest
 * likes.
 *
 * Between a write and its undoing lies the time until this process runs: docs/threat-model.md. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

#define CONFWATCH_UNDONE_MAX 10 /* then the session has to end */

struct confwatch;

/**
 * confwatch_open() - Record the files as they are, and watch them
 * @paths:	Host paths, canonical; borrowed. A file may be missing
 *
 * Return: 0, @ret is the caller's, confwatch_free(); a negative errno with @err set
 */
int confwatch_open(const struct strv *paths, struct confwatch **ret, struct err *err);
void confwatch_free(struct confwatch *w);

/* Readable when there is something for confwatch_turn(). */
int confwatch_fd(const struct confwatch *w);
/* Look at what may have changed, and undo what may not stay. Never waits for the guest. */
void confwatch_turn(struct confwatch *w);
/* Look at all files, whatever inotify said. */
void confwatch_look(struct confwatch *w);

/* What was undone so far, in order: "PATH: SETTING = VALUE (new)", escaped. Borrowed. */
const struct strv *confwatch_undone(const struct confwatch *w);
/* Why the session has to end, escaped: the tenth undoing, or one that failed. NULL: it has not. Borrowed. */
const char *confwatch_end(const struct confwatch *w);
/* After the last confwatch_look(): what could not be undone. */
const struct strv *confwatch_failed(const struct confwatch *w);
