/* Node ids: what their form tells, what GitHub said of them, and the question to GitHub (page on GitHub, 2.7).
 *
 *	new	PREFIX "_" base64url of MessagePack [0, number...]; an object of a repository has the repository's
 *number first: PR_ [0, repository, pull request] old	base64 of "0" LENGTH ":" TYPE NUMBER; no repository
 *
 * Nobody promises that the two numbers belong together, so a form only ever says no. Yes comes from GitHub's answer
 * about the very same string. */
#pragma once

#include "base/buf.h"
#include "gate/policy/github/gql_schema.h"
#include "gate/policy/github/scope.h"

#define NODEID_MAX 512 /* bytes; a ref's id holds its name */

/* Letters of both forms of base64. What passes needs no escape anywhere. */
bool nodeid_is_id(struct span id);

/**
 * nodeid_repository() - The repository that the new form names
 *
 * Return: true with the number; false when the form names none, or is not known
 */
bool nodeid_repository(struct span id, uint64_t *ret);

enum node_kind {
	NODE_NONE,    /* nothing that is open: does not exist, no repository, of an unknown type */
	NODE_OBJECT,  /* of the repository with the number @repo, or it itself */
	NODE_ACCOUNT, /* @name: its login */
	NODE_TEAM,    /* @name: the login of its organisation */
	NODE_PUBLIC,  /* asked by name: a repository that everybody may read, and that the user may not write */
};

/* What GitHub said. The names lie where the facts came from. */
struct node_facts {
	enum node_kind kind;
	enum gql_type type;
	uint64_t repo;
	struct span prefix, name; /* of a ref: "refs/heads/" and the rest; empty when they are not known */
};

/* What must be known before a verdict: a node id, or "OWNER/NAME" of a repository that may be public. */
struct node_question {
	bool by_name;
	struct span key;
};

#define NODE_QUESTIONS_MAX 100
#define NODE_KEYS_MAX 8192 /* bytes of all their keys; at least one fits */

/* Copies the keys of questions into @mem, where they lie from now on: an answer comes later, when what they were read
 * from may hold another request. */
void node_question_keep(struct node_question *q, size_t n, uint8_t mem[NODE_KEYS_MAX]);

/**
 * node_question_body() - The look-up as the body of a POST to /graphql
 * @q:		@n of them, 1 to NODE_QUESTIONS_MAX; keys that passed nodeid_is_id() or are slugs
 *
 * Return: 0 or -ENOBUFS
 */
int node_question_body(const struct node_question *q, size_t n, struct buf *out);

/**
 * node_answer() - What GitHub's answer says about the questions
 * @text:	The whole body of the answer
 * @ret:	@n of them, in the order of the questions; names lie in @text
 *
 * What is missing, null or odd is NODE_NONE.
 *
 * Return: 0, or -EBADMSG when it is no answer at all: then nothing is known, and nothing is to be kept
 */
int node_answer(struct span text, const struct node_question *q, size_t n, struct node_facts *ret);

/* ---- what is known, for a session ---- */

#define NODE_CACHE_MAX 65536
#define NODE_TTL_MS (60 * 60 * 1000) /* an issue may be transferred, a repository be made private */
#define NODE_TTL_NONE_MS (60 * 1000)

struct node_cache;

struct node_cache *node_cache_new(void); /* NULL without memory */
void node_cache_free(struct node_cache *c);

/* False when nothing is known, or no longer. The names lie in the cache until the next node_cache_put(). */
bool node_cache_get(const struct node_cache *c, struct node_question q, uint64_t now_ms, struct node_facts *ret);

/* The oldest gives way to it. Without memory it is not kept. */
void node_cache_put(struct node_cache *c, struct node_question q, const struct node_facts *f, uint64_t now_ms);
