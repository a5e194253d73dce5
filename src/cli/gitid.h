/* What git in the guest is told of the user: who commits, and harmless settings (cli page 12). Nothing here waits for the
 * network: `gh` is asked beside the session, for the next one. */
#pragma once

#include <stdbool.h>

#include "base/str.h"
#include "session/root.h"

#define GITID_CACHE "host-git-identity" /* three lines: name, e-mail, login; the last may be empty. Empty: gh had no answer */

struct gitid {
	char *name, *email;	/* both or none: without them git refuses to commit */
	char *login;		/* on GitHub; NULL: not known */
	struct strv settings;	/* "SECTION.KEY=VALUE" of the user's own file that are carried over */
	bool ask;		/* the cache is missing or old */
};

/**
 * gitid_read() - From the cache, else from the user's own git settings
 * @cache_fd:	Folder of the cache, or -1
 * @home:	NULL: none
 * @git_dir:	The project's, for includes with a condition; NULL: none
 * @now_s:	Seconds since 1970
 */
void gitid_read(int cache_fd, const char *home, const char *git_dir, int64_t now_s, struct gitid *ret);
void gitid_done(struct gitid *id);

/* Asks `gh api user` in a process of its own, for the login that gh keeps, and keeps the answer in the cache; that there is
 * none for an hour. Returns at once. */
void gitid_ask(int cache_fd, const char *home);

/* The cache's three lines from what `gh api user` has printed; NULL when there is no name in it. For tests. */
char *gitid_parse(const char *json, size_t n);

/**
 * gitid_config() - The guest's ~/.gitconfig
 * @ro:		.git/config is read-only there
 * @placeholder: of GitHub's token; NULL: there is none
 */
char *gitid_config(const struct gitid *id, bool ro, const char *placeholder);
/* gh's hosts.yml. */
char *gitid_hosts(const char *login, const char *placeholder);
