/* GitHub's GraphQL, judged (page on GitHub, 2.5 to 2.8). There is one way in: a body is read, its variables get their
 * values, every field is walked with the type of the object and how far that object is open, and what was judged is
 * printed anew. What is sent is the print, so that no reader at GitHub finds in it what was not seen here. The head of
 *the request (POST, no query string, JSON in UTF-8 without a coding) is gh_decide()'s.
 *
 * Pure: bytes, the launch's list and what is known of node ids in, a verdict out. What is not known comes out as
 * questions; with their answers the same body is judged again. A verdict needs all questions answered; a fault needs
 *none.
 *
 *	gql_judge() -> GQL_ASK, questions -> node_question_body(), GitHub, node_answer(), node_cache_put() ->
 *gql_judge()
 *		    -> GQL_SEND -> gql_print_body() -> GitHub -> gql_reply()
 *		    -> GQL_REFUSE -> gql_denial()
 *
 * How far an object is open (the page's letters):
 *
 *	LISTED (S)	of a listed repository: what the table knows, and every plain value
 *	PUBLIC (V)	of a repository that everybody may read: the same without what its members see
 *	ELSEWHERE (X)	a repository, issue or pull request that may lie anywhere: which one it is, no more
 *	ACCOUNT (A)	a person, organisation, team: who it is
 *	OWNER (O)	the organisation that owns a listed repository: also its teams
 *	NAME		only what it is called
 *	PROJECT (P)	which project a listed issue is in, and its status there
 *	CONSTANT (N)	the same for everybody: plain values
 */
#pragma once

#include "gate/policy/github/decision.h"
#include "gate/policy/github/gql_doc.h"
#include "gate/policy/github/nodeid.h"
#include "gate/policy/github/scope.h"

#define GQL_ARENA (12 << 20)   /* enough for each request within the limits */
#define GQL_SENT_MAX (4 << 20) /* what GQL_BODY_MAX can become when it is printed */

struct gql_known {
	void *ctx;
	/* False: not known, to be asked. */
	bool (*get)(void *ctx, struct node_question q, struct node_facts *ret);
};

enum gql_verdict { GQL_SEND, GQL_ASK, GQL_REFUSE };

/* How a refusal is said: some clients go on when they hear it in the right words. */
enum gql_form {
	GQL_FORM_403,
	GQL_FORM_ORGANIZATION, /* 200 with an error: there is no such organisation */
	GQL_FORM_PROJECTS,     /* 200 with an error: the token may not read projects */
};

struct gql_judged {
	struct gql_doc doc;
	struct gql_fault fault; /* GQL_REFUSE */
	enum gql_form form;
	const char *mutation;	    /* the first one of those that are known; NULL for a query */
	const struct gh_repo *repo; /* a listed one that is named; NULL */
	bool absent; /* some repositories are left out, and answered with null: gql_reply() must read the reply */
	struct node_question q[NODE_QUESTIONS_MAX]; /* GQL_ASK */
	size_t n_q, n_keys;			    /* and the bytes of their keys, NODE_KEYS_MAX at most */
};

/**
 * gql_judge() - Decide over a body
 * @body:	Borrowed; @ret points into it and into @arena, the keys of its questions too: node_question_keep()
 * @arena:	Of GQL_ARENA bytes; what was in it is given up
 */
enum gql_verdict gql_judge(const struct gh_scope *scope, const struct gql_known *known, struct span body,
			   struct gql_arena *arena, struct gql_judged *ret);

/**
 * gql_copilot() - Is this {viewer{login copilotEndpoints{api}}} and no more?
 *
 * The document with which Copilot's program asks where its service is (credentials page 2.4): one query with these three
 * fields, in any order and layout, without arguments, aliases, directives, fragments or variables.
 */
bool gql_copilot(struct span body, struct gql_arena *arena, struct gql_doc *ret);

/**
 * gql_decide() - The same as a decision over a request
 * @d:		As gh_decide() left it, with GH_BODY_GRAPHQL; GQL_ASK leaves its verdict
 */
enum gql_verdict gql_decide(const struct gql_known *known, struct span body, struct gql_arena *arena,
			    struct gql_judged *j, struct gh_decision *d);

/* The questions of GQL_ASK have no answers: GitHub did not tell in time, or was asked too often. */
void gql_decide_unanswered(struct gh_decision *d);

/* gh_denial() for GH_BODY_GRAPHQL: some refusals are an answer with status 200, which gh takes as a fact of life. */
int gql_denial(const struct gh_decision *d, struct buf *out, const char **ret_type);

/**
 * gql_reply() - Read the reply to what was judged, and complete it
 * @j:		As gql_judge() made it for GQL_SEND, with its arena
 * @text:	The whole reply
 * @learn:	Told of each object of a listed repository whose id the reply has; NULL to learn nothing
 * @out:	Gets the reply for the guest: @text, with null and an error for each repository that was left out
 *
 * Return: 0; -EBADMSG: no answer to this, @text is to be passed on as it is; -ENOBUFS
 */
int gql_reply(const struct gh_scope *scope, const struct gql_judged *j, struct gql_arena *arena, struct span text,
	      void (*learn)(void *ctx, struct node_question q, const struct node_facts *f), void *ctx, struct buf *out);
