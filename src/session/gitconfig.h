/* Reader of git's configuration format, for files that the guest may have written: bytes in, keys out. Includes are not
 * followed. Everything that git itself would refuse is refused. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define GITCONFIG_MAX (1024 * 1024) /* bytes of a file that we read; real ones are a few KiB */

struct gitconfig_entry {
	const char *section; /* lower case */
	const char *sub;     /* NULL: none; case kept */
	const char *key;     /* lower case */
	const char *value;   /* NULL: key without '=', which means true */
};

/**
 * gitconfig_read() - Hand each entry to @each, in order
 * @each:	Strings are borrowed for the call; not 0 ends the reading with that value
 *
 * Source: git-config(1), "Syntax" and "Values", checked against git 2.39.
 *
 * Return: 0; -EBADMSG for what is no such file; what @each returned
 */
int gitconfig_read(const char *text, size_t n, int (*each)(const struct gitconfig_entry *e, void *arg), void *arg);

/**
 * gitconfig_get() - Last value of one key without a subsection
 * @ret:	Heap string, caller owns; "true" for a key without '='
 *
 * Return: 0, -ENOENT, -EBADMSG
 */
int gitconfig_get(const char *text, size_t n, const char *section, const char *key, char **ret);

/* "core.fsmonitor", "remote.origin.url": as git names it. Caller owns. */
char *gitconfig_name(const struct gitconfig_entry *e);

/* "NAME = VALUE" for people: escaped, a long value cut. @value may be NULL. Caller owns. */
char *gitconfig_shown(const char *name, const char *value);

/* git's idea of true: true, yes, on, any case, or a number that is not 0. */
bool gitconfig_true(const char *value);
