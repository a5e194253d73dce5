/* The decision over a request to a GitHub host (page on GitHub, part 2): one function over the launch's list and the
 * request's head, and a second one where the body has a say. Total: what no rule names is refused, unless it only
 *reads, and then it goes out without the user's rights. Pure: what it does not know it does not ask, but refuses.
 *
 *	gh_decide() -> GH_ANONYMOUS | GH_CREDENTIAL | GH_REFUSE
 *	            -> GH_BODY: read the body as far as .body says -> gh_decide_body() -> one of the three
 *
 * The head has passed the checks for every host (framing, target, Host, credentials) before it comes here. */
#pragma once

#include "base/macros.h"
#include "gate/policy/github/decision.h"
#include "gate/policy/github/path.h"
#include "gate/request.h"

void gh_decide(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *ret);

/* Numbers of issues that answers for listed repositories told: a small memory, the oldest leave first. */
#define GH_ISSUES_MAX 2048
struct gh_issues {
	uint64_t id[GH_ISSUES_MAX];
	size_t n; /* ever added */
};
void gh_issues_add(struct gh_issues *k, uint64_t id);
bool gh_issues_have(const struct gh_issues *k, uint64_t id);

/**
 * gh_decide_body() - Go on with a decision that asked for the body
 * @d:		As gh_decide() left it; gets the verdict
 * @body:	The whole, or for GH_BODY_PUSH the front that gh_push_scan() found enough
 *
 * Not for GH_BODY_GRAPHQL.
 */
void gh_decide_body(const struct gh_scope *s, const struct gh_issues *known, const struct request *r, struct span body,
		    struct gh_decision *d);

/* The body did not end within its maximum. */
void gh_decide_too_long(struct gh_decision *d);

/* For rules in other files. */
void gh_refuse(struct gh_decision *d, enum refusal_code code, const char *how, const char *what, ...) PRINTF_LIKE(4, 5);
void gh_refuse_unlisted(struct gh_decision *d, const struct gh_place *p);
/* d->repo is not listed for writing. */
void gh_refuse_reader(struct gh_decision *d);
void gh_refuse_workflow(struct gh_decision *d);

/* A listed repository by its place, for a request that writes or not: fills repo, verdict and, on refusal, the text.
 * False when that is the end of it. */
bool gh_decide_repo(const struct gh_scope *s, const struct gh_place *p, bool writes, struct gh_decision *d);

/* The head says that the body is JSON in UTF-8 and not coded; or says nothing of its type and @may_lack. */
bool gh_is_json(const struct request *r, bool may_lack);

void gh_decide_rest(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d);
void gh_decide_git(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d);
void gh_decide_mcp(const struct gh_scope *s, struct span body, struct gh_decision *d);

/* The body of the answer to a refused request, in the form that its client shows (2.14), and its content-type; the
 * status is the decision's. 0 or -ENOBUFS. */
int gh_denial(const struct gh_decision *d, struct buf *out, const char **ret_type);

/**
 * gh_hint() - What is told in place of a failure, where the user's rights were left out
 * @status:	Of GitHub's answer
 *
 * Return: 1 and the answer; 0: the answer passes as it is; -ENOBUFS
 */
int gh_hint(const struct gh_decision *d, uint16_t status, struct buf *out, uint16_t *ret_status, const char **ret_type);
