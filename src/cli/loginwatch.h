/* Which login files of the host changed during a session (cli page 15.2): only names are told, and only changes that no
 * renewal of ours explains, of this session or another. Content is never read; a file is known by device, inode, size and time. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "base/file.h"
#include "base/str.h"

#define LOGINWATCH_MAX 8

struct loginwatch {
	struct loginwatch_file {
		char *path; /* as the agent would open it: a link is followed */
		struct file_mark was;
		bool renewing;
		const char *seen; /* what somebody else did before a renewal; NULL: nothing */
	} v[LOGINWATCH_MAX];
	size_t n;
	/* Whether what @path of file @i is now was written by another session's renewal; NULL: none is asked about. */
	bool (*ours)(void *arg, size_t i, const char *path);
	void *arg;
};

/* @paths: what is looked at, of logins that are not lent and of files that are not there yet, too. More than
 * LOGINWATCH_MAX are not. */
void loginwatch_begin(const struct strv *paths, struct loginwatch *ret); /* without ours() */
void loginwatch_done(struct loginwatch *w);

/* A renewal of file @i begins: until loginwatch_renewed() every change of it is ours. */
void loginwatch_renewing(struct loginwatch *w, size_t i);
void loginwatch_renewed(struct loginwatch *w, size_t i);

/* Each change since then, as "PATH (new)", "PATH (changed)" or "PATH (gone)", escaped. */
void loginwatch_compare(const struct loginwatch *w, struct strv *ret);
