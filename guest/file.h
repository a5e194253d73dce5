/* PUT and GET: bodies of children of spawn(). */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* Both return the exit status of the child, after a NOTE_FAIL on @status if it is not 0. */

/* Writes what comes on @in to a new file beside @path, syncs it and renames it there. SIGHUP and SIGTERM leave nothing. */
int file_put(const char *path, mode_t mode, int in, int status);

/* Says NOTE_FILE, then copies the regular file @path, of at most @max bytes, to @out. */
int file_get(const char *path, uint64_t max, int out, int status);
