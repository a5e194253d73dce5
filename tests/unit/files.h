/* A temporary folder, files in it, and git, for tests that look at real trees. */
#pragma once

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "test.h"

static inline char *files_tmp(const char *below)
{
	char *dir = xasprintf("%s/agent-vm-test-XXXXXX", below);
	char *real;

	assert_non_null(mkdtemp(dir));
	real = realpath(dir, NULL);
	free(dir);
	return real;
}

static inline int files_rm_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

static inline void files_rm(char *dir)
{
	(void)nftw(dir, files_rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

/* Runs a shell line in @dir with a git that knows no settings of the user; ends the test when it fails. */
static inline void files_sh(const char *dir, const char *line)
{
	char *all = xasprintf("cd '%s' && export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 HOME=/nonexistent "
			      "GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b && "
			      "{ %s ; } >/dev/null 2>&1",
			      dir, line);

	if (system(all) != 0)
		fail_msg("in %s: failed: %s", dir, line);
	free(all);
}

static inline char *files_at(const char *dir, const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

/* A program BIN/@name of @dir, whose lines /bin/sh runs, and BIN in front of PATH; the former PATH, caller frees and sets it. */
static inline char *files_program(const char *dir, const char *name, const char *lines)
{
	char *old = xstrdup(getenv("PATH")), *all = xasprintf("mkdir -p bin && printf '#!/bin/sh\\n%%s\\n' '%s' > bin/%s && chmod 755 bin/%s", lines, name, name);
	char *path = xasprintf("%s/bin:%s", dir, old);

	files_sh(dir, all);
	(void)setenv("PATH", path, 1);
	free(path);
	free(all);
	return old;
}

static inline void files_write(const char *dir, const char *name, const char *text)
{
	char *path = files_at(dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
	free(path);
}
