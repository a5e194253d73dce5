/* Absolute paths as text: whole components, no file system asked. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Is @path @outer itself or below it? Both absolute and tidy; "/a" does not contain "/ab". */
bool path_within(const char *outer, const char *path);

/**
 * path_rest() - What of @path lies below @outer
 *
 * Return: pointer into @path, "" when they are the same; NULL when @path is not within @outer
 */
const char *path_rest(const char *outer, const char *path);

/**
 * path_tidy() - Make absolute against @base and take ".", ".." and double slashes out, links unresolved
 * @base:	Absolute; used only when @path is relative
 *
 * Return: heap string without a trailing slash ("/" itself aside), caller owns
 */
char *path_tidy(const char *base, const char *path);

/* @dir "/" @rest, without doubling the slash of "/"; @rest may be "". Caller owns. */
char *path_join(const char *dir, const char *rest);

/* The deepest folder that holds both. Caller owns. */
char *path_common(const char *a, const char *b);

/* Number of components: 0 for "/". */
size_t path_depth(const char *path);

/**
 * path_canonical() - All links of @path resolved, as far as it exists; the rest is appended as it is
 *
 * For places that may not be there yet, such as the state root.
 *
 * Return: heap string, caller owns; NULL when @path is not absolute
 */
char *path_canonical(const char *path);

/* str_escape() of a whole path. */
char *path_shown(const char *path);
