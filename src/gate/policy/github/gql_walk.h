/* The walk over a judged document, shared by its parts. */
#pragma once

#include "gate/policy/github/gql.h"

enum gql_reach {
	GQL_LISTED,
	GQL_PUBLIC,
	GQL_REACH_ELSEWHERE,
	GQL_ACCOUNT,
	GQL_REACH_OWNER,
	GQL_NAME,
	GQL_PROJECT,
	GQL_CONSTANT,
	GQL_SCHEMA, /* introspection: all of it is the same for everybody */
};

enum gql_shape { GQL_ONE, GQL_CONN, GQL_EDGE };

#define GQL_NO_REPO UINT16_MAX

/* What is known of the object that a set of selections is about. No padding: compared as bytes. */
struct gql_state {
	uint8_t type, reach, shape;
	uint8_t away;	   /* may lie in a fork: its repository is elsewhere */
	uint16_t repo;	   /* place in the list, for what is learned; GQL_NO_REPO */
	uint16_t mutation; /* with GQL_T_PAYLOAD: whose */
};

/* A set of selections in a state. Each pair once. */
struct gql_visit {
	struct gql_state state;
	const struct gql_set *set;
	struct gql_visit *other; /* of the same set */
	struct gql_visit *next;	 /* to be walked */
};

struct gql_walk {
	const struct gh_scope *scope;
	const struct gql_known *known;
	struct gql_arena *arena;
	struct gql_judged *j;
	struct gql_visit *todo;
	unsigned visits;
};

bool gql_refuse(struct gql_walk *w, enum refusal_code code, const char *why, const char *type, struct span name);

/* Queue a set; false when there is no more room. */
bool gql_visit(struct gql_walk *w, struct gql_set *set, struct gql_state s);

/* The state of the object that a field holds; false when it is not open. Not for fields of queries and mutations. */
bool gql_child(struct gql_state s, struct span name, struct gql_state *to);

/* The state of an object that turns out to be of the type; false when that is not known to be open. */
bool gql_narrow(struct gql_state *s, struct span type);

/* ---- ids ---- */

enum gql_whose { GQL_PENDING, GQL_OF_LISTED, GQL_OF_ACCOUNT, GQL_OF_TEAM, GQL_OF_NOBODY };

struct gql_id {
	enum gql_whose whose;
	const struct gh_repo *repo; /* GQL_OF_LISTED */
	struct node_facts facts;
};

/* What an id stands for; notes a question when it is not known. GQL_OF_TEAM: of an organisation that owns a listed
 * repository. */
struct gql_id gql_id(struct gql_walk *w, struct span id);

/* The same of a repository by name, when it is not listed: whether everybody may read it. 1, 0, or -EAGAIN: asked. */
int gql_is_public(struct gql_walk *w, struct span slug);

/* Fields of a mutation, with their payload queued. */
bool gql_mutate(struct gql_walk *w, struct gql_sel *s);

/* The field of a payload, or NULL. */
const struct gql_field *gql_payload_field(uint16_t mutation, struct span name);

/* Fields of a query. */
bool gql_root(struct gql_walk *w, struct gql_sel *s);
