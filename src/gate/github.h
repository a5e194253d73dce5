/* The seam between what judges every request and the rules for GitHub (gate/policy/github).
 *
 *	github_judge() -> verdict, or GH_BODY
 *	  github_need(), as the body comes -> github_judge_body() -> verdict, or an ask:
 *	    the ask's text as the body of POST /graphql with the user's login, GitHub's answer -> github_answered() ->
 *again answer of GitHub's -> github_reply()
 *
 * Pure but for the memory of what answers told, which is one a session. */
#pragma once

#include "gate/policy/github/decide.h"
#include "gate/policy/github/gql.h"

/* What a session knows of GitHub beyond its list. */
struct github {
	struct gh_issues issues;
	struct node_cache *nodes;
	struct gql_arena arena; /* of the judgement under way, and then of none */
	uint64_t now_ms;	/* set by the caller before each call */
};
int github_init(struct github *g); /* 0 or -ENOMEM */
void github_done(struct github *g);

/**
 * github_judge() - Decide over a well-formed request to a GitHub host
 * @s:		The launch's list, kept; NULL: nothing is listed
 * @r:		Gets the fault of STAGE_POLICY for GH_REFUSE, whose text and form are @ret's
 */
void github_judge(const struct gh_scope *s, enum prov_host_id host, struct request *r, struct gh_decision *ret);

/* A call of GitHub's MCP server at Copilot's hosts, which is closed: GH_BODY, and then a refusal in JSON-RPC. */
void github_judge_mcp(struct gh_decision *ret);

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

/* What GitHub must be asked before a verdict. */
struct github_ask {
	struct node_question q[NODE_QUESTIONS_MAX]; /* keys lie in @keys: do not copy */
	uint8_t keys[NODE_KEYS_MAX];
	size_t n;
	unsigned turns; /* so far; 0 at the beginning */
};
#define GITHUB_TURNS_MAX 4

/**
 * github_judge_body() - Go on with GH_BODY
 * @g:		NULL: nothing is known
 * @ask:	NULL: nobody can be asked
 * @body:	Kept until the refusal is written, or the ask answered
 * @out:	Gets the body to send in place of @body, if it is another one; or the text of the ask
 *
 * Return: true: decided; false: @ask is to be asked, and then this to be called again
 */
bool github_judge_body(struct github *g, struct request *r, struct span body, struct gh_decision *d,
		       struct github_ask *ask, struct buf *out);

/**
 * github_copilot_asks() - Is this the one document with which Copilot's own login goes out?
 * @d:		A body of GraphQL; decided when it is
 * @out:	Gets the body to send in place of @body
 */
bool github_copilot_asks(struct span body, struct gh_decision *d, struct buf *out);

/* GitHub's answer to an ask: what it says is known from now on. An answer that is none leaves the ask open. */
void github_answered(struct github *g, const struct github_ask *ask, struct span text);

/* As any refusal of gate's; @d with verdict GH_REFUSE, kept. */
struct refusal github_refusal(const struct gh_decision *d);

/**
 * github_reply() - Learn from an answer, and write what the guest gets of it
 * @body:	Of the request, as it was judged
 *
 * Return: 0; -EBADMSG: it is to be passed on as it is, or for GH_REPLY_USER and GH_REPLY_ISSUES refused; -ENOBUFS
 */
int github_reply(struct github *g, const struct gh_decision *d, struct span body, struct span text, struct buf *out);

/* gh_denial() in the form of this decision, GraphQL's own included. */
int github_denial(const struct gh_decision *d, struct buf *out, const char **ret_type);

/* The slot in which a host of GitHub's takes the user's token. */
enum prov_slot github_slot(enum prov_host_id host);
