/* What a launch has opened of GitHub: the repositories on its list, with levels and what a look-up told of them, and
 * the switches (page on GitHub, 2.1). Made from the launch's configuration; look-ups add their facts later, beside the
 * boot. Until then a repository is known by its name alone, and what needs its number fails closed.
 *
 * Everything that decides takes it as const. */
#pragma once

#include <stdint.h>

#include "proto/ghrepo.h"

#define GH_NODE_MAX 96	/* bytes of a node id of a repository */

/* What GitHub said of a repository, to the user's own token. */
struct gh_facts {
	uint64_t id;					     /* databaseId */
	char node[2][GH_NODE_MAX + 1];			     /* new and old form; "" for one that is not known */
	char owner[GH_OWNER_MAX + 1], name[GH_NAME_MAX + 1]; /* as it is called now */
	bool is_org;					     /* the owner is an organisation */
	bool has_parent, parent_private;
	char parent_owner[GH_OWNER_MAX + 1], parent_name[GH_NAME_MAX + 1];
};

struct gh_repo {
	char owner[GH_OWNER_MAX + 1], name[GH_NAME_MAX + 1]; /* as listed */
	enum gh_level level;
	bool known;   /* facts holds an answer */
	bool dropped; /* another repository has the name now: counts as not listed */
	struct gh_facts facts;
};

struct gh_scope {
	struct gh_repo repo[GH_REPOS_MAX];
	size_t n;
	unsigned switches; /* GH_SWITCH_BIT */
	char push_refs[GH_GLOBS_MAX][GH_GLOB_MAX + 1];
	size_t n_push_refs;
};

/* Nothing is listed, the switches stand as by default, push-refs holds branches and tags. */
void gh_scope_init(struct gh_scope *s);

/* The list as the launcher tells it: the records of GTC_GITHUB (proto/gatecfg.h). 0 or -EBADMSG. */
int gh_scope_read(struct span records, struct gh_scope *ret);

/* List a repository. One that is listed already gets the new level: what is said last holds. 0, -EINVAL, -ENOSPC. */
int gh_scope_add(struct gh_scope *s, struct gh_slug slug, enum gh_level level);

/* Replace push-refs by a comma-separated list of globs, in which "*" stands for any bytes. 0 or -EINVAL. */
int gh_scope_push_refs(struct gh_scope *s, struct span list);

/**
 * gh_scope_facts() - Take in what a look-up by name told of a listed repository
 *
 * The name that the answer has is listed from now on, too; the one on the list stays. Another number than before under
 * the same name is another repository: the entry is dropped for the rest of the session.
 */
void gh_scope_facts(struct gh_scope *s, struct gh_slug slug, const struct gh_facts *facts);

/* The entry of a listed repository, or NULL. By name: names that do not fit the grammar match nothing. By number and by
 * node id only what a look-up told. */
const struct gh_repo *gh_scope_find(const struct gh_scope *s, struct span owner, struct span name);
const struct gh_repo *gh_scope_find_id(const struct gh_scope *s, uint64_t id);
const struct gh_repo *gh_scope_find_node(const struct gh_scope *s, struct span node);

/* "OWNER/NAME" of a listed repository. */
const struct gh_repo *gh_scope_find_slug(const struct gh_scope *s, struct span slug);

/* The account owns a listed repository; and it is known to be an organisation. */
bool gh_scope_owns(const struct gh_scope *s, struct span owner);
bool gh_scope_owns_org(const struct gh_scope *s, struct span owner);

bool gh_scope_has(const struct gh_scope *s, enum gh_switch sw);

/* A ref by its full name may be written; and any branch, or any branch and tag, so that nobody needs to ask for it. */
bool gh_scope_ref(const struct gh_scope *s, struct span ref);
bool gh_scope_any_branch(const struct gh_scope *s);
bool gh_scope_any_ref(const struct gh_scope *s);

/* "[OWNER:[NAME:]]BRANCH", the head of a pull request or a side of a comparison (2.4): a repository that is named is
 * listed, and an owner without one owns a listed repository. No branch has a ":". */
bool gh_scope_head(const struct gh_scope *s, struct span head);

/* "https://github.com/OWNER/NAME/issues/N" of a listed repository, and nothing behind the number. */
const struct gh_repo *gh_scope_issue_url(const struct gh_scope *s, struct span url);

/* "acme/app, acme/lib (read)": the list for a refusal; cut with "..." where @size ends. */
void gh_scope_print(const struct gh_scope *s, char *out, size_t size);
