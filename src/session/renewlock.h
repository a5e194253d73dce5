/* Who renews a login: one process of the user at a time, whatever the project, and none within 30 seconds of the last
 * start (credentials page 6.2). Lock and stamp lie in $XDG_RUNTIME_DIR/agent-vm, or in run/locks of the state root
 * where there is no such folder; beside them what the last renewal left, so that no session takes another's renewal for a
 * change by somebody else. None of them holds a token. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define RENEWLOCK_NAME 64 /* "refresh-PROVIDER-ID" and its ending */

struct renewlock {
	int dirfd; /* borrowed */
	char name[RENEWLOCK_NAME];
};

/**
 * renewlock_folder() - The runtime folder's "agent-vm", made if it is missing
 *
 * Return: descriptor that the caller owns; -ENOENT: no runtime folder, take the state root's locks_fd; another negative
 * errno with @err set: one that is not ours, a link, or open to others
 */
int renewlock_folder(const char *runtime_dir, struct err *err);

/* @provider: a word of lower case; @source: the canonical path of its file, of which 16 hex digits of SHA-256 are the
 * name. */
void renewlock_init(struct renewlock *l, int dirfd, const char *provider, const char *source);

/* Try once: a descriptor whose closing frees it, -EWOULDBLOCK, or a negative errno (-ELOOP: a link lies there). */
int renewlock_try(const struct renewlock *l);

/* To be called with the lock held and before the program starts. 0 or a negative errno: then do not start it. */
int renewlock_stamp(const struct renewlock *l);

/* What tells one content of the file @source from another: text, "" when it is not there. */
#define RENEWLOCK_SEEN 128
void renewlock_look(const char *source, char ret[RENEWLOCK_SEEN]);

/* To be called with the lock held, when the program has ended: notes how it left the file, if it is another than @was before. */
void renewlock_leave(const struct renewlock *l, const char *source, const char *was);
/* Whether the file of @source is as the last renewal left it, or one is under way. */
bool renewlock_wrote(const struct renewlock *l, const char *source);

/* Milliseconds since the last stamp; -1: none, of another boot, from the future, or not readable. */
int64_t renewlock_age_ms(const struct renewlock *l);
