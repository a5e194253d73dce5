/* What a session left that runs on the host (command line page, section 15.1): a record before the guest can write, another
 * one when it is gone, and the difference.
 *
 * A record is a list of marks: an id, which is a path below one of the trees ("\0" KEY for a setting of a git config), and
 * the hash of what is there. The trees are hostile: the walk is bounded (session/treewalk.h), breadth first, and follows no
 * link. Where git itself would follow one (hooks, a config, what a config includes, a place that is a link) it is resolved
 * within the tree alone. What lies outside no guest can write.
 *
 * Left out on purpose: scripts that a setting names and that were there before. The setting did not change, and which of
 * its words are files only a shell knows. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/str.h"

struct sinks;

/**
 * sinks_take() - Record the places of some trees
 * @trees:	Host paths, canonical folders; borrowed. One that lies in another is part of that
 * @home:	The user's, whose git settings may name a hooks folder for all work trees; NULL: none
 *
 * Takes at most about 2 s a tree. Return: caller owns, sinks_free(); never NULL
 */
struct sinks *sinks_take(const struct strv *trees, const char *home);
void sinks_free(struct sinks *s);

struct sinks_left {
	char *tree;
	struct strv itself; /* "PATH (new)", "PATH KEY = VALUE (changed)", escaped */
	struct strv build;  /* "PATH, PATH (new)", escaped */
	bool cut;	    /* not all was looked at, before or after */
};

/* What @after has that @before has not, one a tree. @ret: caller owns, sinks_left_free(). */
void sinks_compare(const struct sinks *before, const struct sinks *after, struct sinks_left **ret, size_t *ret_n);
void sinks_left_free(struct sinks_left *v, size_t n);

/* In the form of the page; nothing for a tree where nothing was left. @quiet: only what runs by itself. */
void sinks_print(FILE *to, const struct sinks_left *v, size_t n, bool quiet);
