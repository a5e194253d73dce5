/* The decision over a request to a GitHub host (page on GitHub, part 2): one function over the launch's list and the
 *request's head, and a second one where the body has a say. Total: what no rule names is refused, unless it only reads,
 *and then it goes out without the user's rights. Pure: what it does not know it does not ask, but refuses.
 *
 *	gh_decide() -> GH_ANONYMOUS | GH_CREDENTIAL | GH_REFUSE
 *	            -> GH_BODY: read the body as far as .body says -> gh_decide_body() -> one of the three
 *
 * The head has passed the checks for every host (framing, target, Host, credentials) before it comes here. */
#pragma once

#include "base/macros.h"
#include "gate/policy/github/path.h"
#include "gate/request.h"
#include "proto/refusal.h"

enum gh_verdict {
	GH_REFUSE, /* first, so that what was not decided is refused */
	GH_ANONYMOUS,
	GH_CREDENTIAL,
	GH_BODY,
};

/* What a body is read for. */
enum gh_body {
	GH_BODY_NONE,
	GH_BODY_GRAPHQL, /* whole: the rules for GraphQL */
	GH_BODY_PULL,	 /* whole: a new pull request */
	GH_BODY_ISSUES,	 /* whole: links between issues, by numbers */
	GH_BODY_REF,	 /* whole: which ref a write is for */
	GH_BODY_LFS,	 /* whole: download or upload */
	GH_BODY_PUSH,	 /* to the end of the commands: gh_push_scan() says when */
	GH_BODY_MCP,	 /* whole: a call of a tool */
};
#define GH_JSON_MAX (1 << 20)	/* of a body that is read whole */
#define GH_PUSH_MAX (128 << 10) /* of the commands of a push: a thousand refs */

/* How a refusal reaches the person: each client shows another part of an answer (2.14). */
enum gh_form {
	GH_FORM_REST,
	GH_FORM_TEXT, /* git's first request, and web pages */
	GH_FORM_PUSH, /* inside the protocol of git push */
	GH_FORM_FETCH,
	GH_FORM_LFS,
	GH_FORM_MCP,
};

/* How an answer is treated (2.9). */
enum gh_reply {
	GH_REPLY_STREAM, /* as it comes */
	GH_REPLY_JSON,	 /* credentials of GitHub's own are taken out, if it is JSON of at most GH_REPLY_MAX */
	GH_REPLY_USER,	 /* only what tells who the user is is kept */
	GH_REPLY_HINT,	 /* without credential: a failure gets a hint */
};

#define GH_TEXT_MAX 400

struct gh_decision {
	enum gh_verdict verdict;
	enum gh_body body; /* for GH_BODY */
	enum gh_form form;
	enum gh_reply reply;
	const struct gh_repo *repo; /* listed; NULL */
	size_t bad_ref;		    /* of a refused push: which of its commands; all if there is none such */
	bool learns;		    /* the numbers of the answer's own issues belong to repo */
	const char *rule;	    /* which rule decided, for records: "write pulls/N/merge" */
	/* Of a refusal. Texts are ASCII without quotes, backslashes and control bytes. */
	enum refusal_code code;
	uint16_t status;
	char what[GH_TEXT_MAX]; /* what was refused and why */
	char how[GH_TEXT_MAX];	/* what would open it; may be empty */
};

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

/* A listed repository by its place, for a request that writes or not: fills repo, verdict and, on refusal, the text.
 * False when that is the end of it. */
bool gh_decide_repo(const struct gh_scope *s, const struct gh_place *p, bool writes, struct gh_decision *d);

/* The head says that the body is JSON in UTF-8 and not coded; or says nothing of its type and @may_lack. */
bool gh_is_json(const struct request *r, bool may_lack);

void gh_decide_rest(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d);
void gh_decide_git(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d);
void gh_decide_mcp(const struct gh_scope *s, struct span body, struct gh_decision *d);

/* The answer to a refused request, in the form that its client shows (2.14). @body: what was read of the request's, for
 * the forms that answer inside a protocol. */
struct gh_answer {
	uint16_t status;
	const char *type; /* of its content */
};
int gh_denial(const struct gh_scope *s, const struct gh_decision *d, struct span body, struct gh_answer *ret,
	      struct buf *out);

/**
 * gh_hint() - What is told in place of a failure, where the user's rights were left out
 * @status:	Of GitHub's answer
 *
 * Return: 1 and the answer; 0: the answer passes as it is; -ENOBUFS
 */
int gh_hint(const struct gh_decision *d, enum prov_host_id host, const struct request *r, uint16_t status,
	    struct gh_answer *ret, struct buf *out);
