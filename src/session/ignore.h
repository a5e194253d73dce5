/* .agentvmignore and --hide (command line page, section 8.5): patterns as in gitignore(5), and the walk that finds what
 * they hide.
 *
 * A pattern is compiled once to a list of tokens and matched by following the set of tokens that can be next, so a match
 * costs at most pattern length times path length, whatever the pattern. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

#define IGNORE_FILE ".agentvmignore"
#define IGNORE_FILE_MAX (256 * 1024)
#define IGNORE_LINE_MAX 4096	  /* PATH_MAX: a longer pattern can match nothing */
#define IGNORE_PATTERNS_MAX 4096
#define IGNORE_ENTRIES_MAX 200000 /* walked; section 8.5 */
#define IGNORE_HIDDEN_MAX 4096	  /* each is a mount in the cage */
#define IGNORE_DEPTH_MAX 256

struct ignore;

struct ignore *ignore_new(void);
void ignore_free(struct ignore *ig);

/**
 * ignore_add_file() - Add the lines of a file's content
 *
 * Pure. Return: 0; -EBADMSG when it holds a NUL; -E2BIG above the bounds
 */
int ignore_add_file(struct ignore *ig, const char *text, size_t n);

/* Add one pattern, as one line of the file. Return: 0, -EINVAL for one that can match nothing (empty, comment), -E2BIG */
int ignore_add(struct ignore *ig, const char *pattern);

bool ignore_is_empty(const struct ignore *ig);

/**
 * ignore_hides() - Is @path hidden, itself or by a folder above it?
 * @path:	Relative to the folder of the patterns, without "./"
 * @is_dir:	Is @path a folder? Those above it are
 */
bool ignore_hides(struct ignore *ig, const char *path, bool is_dir);

struct ignore_hit {
	char *path; /* relative; a hidden folder is one hit */
	bool is_dir;
};

struct ignore_hits {
	struct ignore_hit *v;
	size_t n;
	struct strv patterns; /* those that hid something, as written, in order */
};

/**
 * ignore_walk() - Find what the patterns hide now
 * @dirfd:	The folder that the patterns are about
 *
 * No walk when there is no pattern; when all are without wildcards and anchored, each is looked up. Folders named .git are
 * not entered (a pattern without wildcards reaches into them); other file systems are, because the share shows them too.
 * Links are not followed; a hidden link hides what it leads to within the folder, since a link itself cannot be covered.
 *
 * Return: 0; -E2BIG (entries, hits or depth), -ELOOP (a hidden link leads to a folder above itself) or another errno, with
 * @err set
 */
int ignore_walk(struct ignore *ig, int dirfd, struct ignore_hits *ret, struct err *err);
void ignore_hits_done(struct ignore_hits *h);
