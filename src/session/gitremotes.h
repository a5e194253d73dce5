/* Which repositories of GitHub a git configuration names: the remotes of .git/config and the submodules of .gitmodules
 * (command line page, section 12). Both are files that the guest may have written, so they are read as text, never by
 * running git, and URLs count as they stand: url.*.insteadOf is not applied. Bytes in, names out. */
#pragma once

#include "proto/ghrepo.h"

/**
 * gitremotes_read() - The repositories of each remote.*.url and remote.*.pushurl, in order
 * @each:	The name is borrowed for the call; the same may come more than once
 * @ret_origin:	URL of the remote "origin", as relative submodules are resolved against it; NULL without one; caller
 * owns
 *
 * Return: 0; -EBADMSG when git itself would refuse the file, which may show after some calls; then *@ret_origin is not
 * set
 */
int gitremotes_read(const char *text, size_t n, void (*each)(struct gh_slug repo, void *arg), void *arg,
		    char **ret_origin);

/* The same for each submodule.*.url of .gitmodules. @origin: for URLs that begin with "./" or "../"; NULL: they name
 * nothing. */
int gitmodules_read(const char *text, size_t n, const char *origin, void (*each)(struct gh_slug repo, void *arg),
		    void *arg);
