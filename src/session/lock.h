/* flock(2) on files of the state root: the lock of a project's files, run/locks/HASH, and waiting for any lock. A death
 * frees a lock; no lock lies where a guest can write. */
#pragma once

#include <stdbool.h>

#include "session/root.h"

#define PROJECT_LOCK_QUIET_MS 10000 /* waits silently, then the holder is named */
#define PROJECT_LOCK_MAX_MS 60000   /* then the launch fails */
#define PROJECT_LOCK_HELD_MAX_MS 30000 /* a holder gives up its own step after this */

/**
 * lock_file_at() - Open or make @name in @dirfd and lock it exclusively
 * @timeout_ms:	0: only try
 *
 * Return: descriptor whose closing frees the lock; -EWOULDBLOCK when somebody else has it; a negative errno
 */
int lock_file_at(int dirfd, const char *name, int timeout_ms);

/**
 * project_lock_try() - Take the lock of a project's files if it is free
 * @holder:	Written into the file for those who wait, such as "agent-vm-7d73bf4fdeae-4711, pid 4711"
 *
 * For callers with an event loop; they try again every 50 ms or so.
 *
 * Return: descriptor whose closing frees the lock; -EWOULDBLOCK; a negative errno with @err set
 */
int project_lock_try(const struct state_root *root, const char *hash, const char *holder, struct err *err);

/* What the holder wrote, escaped; "another session" if it wrote nothing. Caller owns. */
char *project_lock_holder(const struct state_root *root, const char *hash);

/**
 * project_lock_wait() - Wait for the lock of a project's files
 * @quiet_ms, @max_ms:	PROJECT_LOCK_QUIET_MS, PROJECT_LOCK_MAX_MS
 * @say:	Called once with the holder after @quiet_ms; may be NULL
 * @stop:	Asked at each try; true ends the wait with -ECANCELED; may be NULL
 *
 * Return: descriptor whose closing frees the lock; -EWOULDBLOCK after @max_ms, -ECANCELED, or a negative errno, with
 * @err set
 */
int project_lock_wait(const struct state_root *root, const char *hash, const char *holder, int quiet_ms, int max_ms,
		      void (*say)(const char *holder, void *arg), bool (*stop)(void *arg), void *arg,
		      struct err *err);
