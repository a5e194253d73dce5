/* How a repository of GitHub is named: "OWNER/NAME" and the forms of a remote's URL (page on GitHub, 2.1). Launcher,
 * gate and vault read them by the same grammar. ASCII only: nothing folds into a listed name but the other case of its
 * own letters. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

#define GH_OWNER_MAX 39
#define GH_NAME_MAX 100
#define GH_SLUG_MAX (GH_OWNER_MAX + 1 + GH_NAME_MAX)

struct gh_slug {
	struct span owner, name;
};

/* What may be done with a listed repository; each holds those before it. */
enum gh_level { GH_READ, GH_WRITE, GH_ADMIN, GH_LEVELS };
extern const char *const gh_level_str[GH_LEVELS];
/* GH_LEVELS if it is none. */
enum gh_level gh_level_find(struct span s);

#define GH_REPOS_MAX 128 /* of a launch */
#define GH_GLOBS_MAX 16	 /* of push-refs */
#define GH_GLOB_MAX 255

/* What a launch may open and close besides: --github KEY=VALUE. */
enum gh_switch {
	GH_MERGE,	   /* merging pull requests */
	GH_CI,		   /* starting, stopping and deleting runs, deployments */
	GH_WIKI,	   /* the wiki of a listed repository */
	GH_PUSH_DELETE,	   /* deleting refs that push-refs holds */
	GH_WORKFLOWS,	   /* writing .github/workflows; off is protect-workflows */
	GH_PUBLIC_GRAPHQL, /* GraphQL reads of public repositories that are not listed */
	GH_MCP,		   /* the tools of Copilot's host */
	GH_FOREIGN_ANON,   /* a credential that is not ours is taken off, and does not refuse the request */
	GH_SWITCHES,
};
#define GH_SWITCH_BIT(s) (1u << (s))
#define GH_SWITCHES_DEFAULT \
	((GH_SWITCH_BIT(GH_SWITCHES) - 1) & ~GH_SWITCH_BIT(GH_MCP) & ~GH_SWITCH_BIT(GH_FOREIGN_ANON))

bool gh_is_owner(struct span s);
/* Not "." or "..", and without the suffixes ".git" and ".wiki", which never belong to the name itself. */
bool gh_is_name(struct span s);

/* Equal but for the case of ASCII letters. */
bool gh_same(struct span a, struct span b);

/* "OWNER/NAME" and nothing else. Spans lie in @text. */
bool gh_slug_parse(struct span text, struct gh_slug *ret);

/**
 * gh_remote_parse() - The repository that a remote's URL names, if it lies at github.com
 *
 * https, http, ssh, git, and the short form of ssh (USER@HOST:PATH) with the user "git" or that of an enterprise
 * account. The URL is read as written: url.*.insteadOf is configuration of whoever runs git.
 */
bool gh_remote_parse(struct span url, struct gh_slug *ret);
