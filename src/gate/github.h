/* The seam between what judges every request and the rules for GitHub (gate/policy/github). */
#pragma once

#include "gate/policy/github/decide.h"

/**
 * github_judge() - Decide over a well-formed request to a GitHub host
 * @s:		The launch's list, kept; NULL: nothing is listed
 * @r:		Gets the fault of STAGE_POLICY for GH_REFUSE, whose text and form are @ret's
 */
void github_judge(const struct gh_scope *s, enum prov_host_id host, struct request *r, struct gh_decision *ret);

/* How far the body must be read before github_judge_body(). */
enum github_need {
	GITHUB_MORE,
	GITHUB_ENOUGH,
	GITHUB_TOO_LONG, /* @r got its fault */
};

/**
 * github_need() - Is what has come of the body enough?
 * @body:	From its first byte
 * @ended:	There is no more of it
 */
enum github_need github_need(struct request *r, struct gh_decision *d, struct span body, bool ended);

/* Go on with GH_BODY; @body is kept for the refusal. */
void github_judge_body(const struct gh_issues *known, struct request *r, struct span body, struct gh_decision *d);

/* The slot in which a host of GitHub's takes the user's token. */
enum prov_slot github_slot(enum prov_host_id host);
