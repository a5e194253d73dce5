/* The databases in one folder: which of its files belong to one, whether they have changed, copies of all. */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>

#define DBSET_MAX ((uint64_t)4 << 30)	     /* bytes; what is larger is not worth its copies */
#define DBSET_MAX_RUNNING ((uint64_t)256 << 20) /* the same while the agent uses it */
#define DBSET_FILES_MAX 64

/* A folder's entries from the first one on; @dir stays the caller's. NULL: errno says why. */
DIR *dbset_open(int dir);

/* A database or the log beside it (-wal, -journal), by its name alone. */
bool dbset_is_file(const char *name);
bool dbset_is_log(const char *name);

/* What is looked at to see that something has changed: two looks that are alike in @sum are of the same content, if more than a
 * tick of the kernel's clock (10 ms) lies between the first one and what could have changed it. */
struct dbset_look {
	uint64_t sum, bytes;
};

struct dbset_look dbset_look(int dir);

/**
 * dbset_copy() - Copy all databases of a folder as they lie
 * @sync:	They and the folder's names are on the disk afterwards
 * @max:	Bytes of all
 *
 * Nobody must write them meanwhile. What is no regular file is left out.
 *
 * Return: how many files, or a negative errno (-EFBIG: more than @max or DBSET_FILES_MAX)
 */
int dbset_copy(int from, int to, bool sync, uint64_t max);

/* One of them. @left: becomes less by its size. Return: 1; 0: left out; a negative errno. */
int dbset_copy_one(int from, const char *name, int to, bool sync, uint64_t *left);

/* Is one of them shorter than it says itself, or are there zeros where it should begin? SQLite takes no such file. */
bool dbset_is_damaged(int dir);

/* Removes them. */
void dbset_empty(int dir);
