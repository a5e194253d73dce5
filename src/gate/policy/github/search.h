/* Strings of GitHub's search, by REST's "q" and GraphQL's "query" (page on GitHub, 2.6): whether nothing but listed
 * repositories is searched, however the two engines of GitHub read the string. The older one takes repeated "repo:" as
 * any of them and knows no parentheses, the newer one takes them as all of them; the rules hold for both. */
#pragma once

#include "gate/policy/github/scope.h"

#define SEARCH_MAX 8192 /* bytes; GitHub itself takes 256 characters */

enum search_verdict {
	SEARCH_LISTED,	 /* within listed repositories only */
	SEARCH_UNSCOPED, /* names no listed repository at all: may go out without a credential, where that exists */
	SEARCH_REFUSED,	 /* names one, but not only in the ways that hold */
};

/**
 * search_judge() - Decide over a search string
 * @q:		Decoded
 * @ret_repo:	With SEARCH_LISTED: the repository if it is one only, else NULL
 * @ret_why:	Otherwise: static text that names the rule
 */
enum search_verdict search_judge(const struct gh_scope *scope, struct span q, const struct gh_repo **ret_repo,
				 const char **ret_why);
