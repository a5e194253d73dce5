/* The launch's GitHub list (command line page, section 12): the repositories that the user's login may be used for. Made
 * on the host before the boot, from files that the guest may have written, so it is shown. */
#pragma once

#include "base/buf.h"
#include "cli/launch_args.h"
#include "cli/specs.h"
#include "session/layout.h"

struct ghlist {
	struct ghlist_repo {
		struct repo repo;
		const char *from; /* ".gitmodules", "--repo", static; NULL: a remote */
	} v[GH_REPOS_MAX];
	size_t n;
	size_t left_out;       /* past the maximum */
	unsigned switches;     /* GH_SWITCH_BIT */
	const char *push_refs; /* of @args; NULL: branches and tags */
};

/* @args: checked by launch_check(), kept. @warnings: what could not be read, and what was left out. */
void ghlist_take(const struct launch_args *args, const struct layout *l, struct ghlist *ret, struct strv *warnings);

/* GTC_GITHUB. 0 or -ENOBUFS. */
int ghlist_put(const struct ghlist *l, struct buf *out);

/* "write acme/app, acme/lib; read acme/sub (.gitmodules)"; "" without any. Caller owns. */
char *ghlist_repos(const struct ghlist *l);

/* The row `github`; @lent: there is a login. Caller owns. */
char *ghlist_text(const struct ghlist *l, bool lent);
