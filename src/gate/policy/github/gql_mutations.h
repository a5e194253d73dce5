/* The mutations that are known: who may use them, what each member of their input is, and what they answer (page on
 * GitHub, 2.8). What is not here is refused. */
#pragma once

#include <stdbool.h>

#include "gate/policy/github/gql_schema.h"

enum gql_class {
	GQL_CLASS_WRITE,
	GQL_CLASS_MERGE, /* write, and the switch for merging */
	GQL_CLASS_CI,	 /* write, and the switch for runs */
	GQL_CLASS_BRANCH, /* write, and every branch, for it writes one that it does not name */
	GQL_CLASS_ADMIN, /* the level admin */
	GQL_CLASS_NEVER,
};

enum gql_member_kind {
	GQL_M_PLAIN,	   /* a string, number, word, or a list of these; refers to nothing */
	GQL_M_DATA,	   /* any tree without references */
	GQL_M_OBJECT,	   /* id of an object of a listed repository that may be written; or a list of them */
	GQL_M_SOURCE,	   /* the same, read only */
	GQL_M_ACCOUNT,	   /* id of an account; or a list */
	GQL_M_ACTOR,	   /* id of an account or of a team of an owner; or a list */
	GQL_M_TEAM,	   /* id of a team of an owner; or a list */
	GQL_M_TEAM_SLUG,   /* "SLUG" or "ORGANISATION/SLUG"; or a list */
	GQL_M_NOTHING,	   /* empty or null: what it would name is not open */
	GQL_M_HEAD,	   /* "[OWNER:]BRANCH" */
	GQL_M_ISSUE_URL,   /* of a listed repository */
	GQL_M_REF,	   /* id of a ref that push-refs holds */
	GQL_M_REF_GONE,	   /* the same, to be deleted */
	GQL_M_REF_NAME,	   /* "refs/..." */
	GQL_M_BRANCH_NAME, /* without "refs/heads/" */
	GQL_M_NEW_BRANCH,  /* the same; without it GitHub makes a name up */
	GQL_M_REF_UPDATES, /* list of {name, afterOid, beforeOid, force} */
	GQL_M_BRANCH,	   /* {repositoryNameWithOwner, branchName} or {id} */
	GQL_M_FILES,	   /* {additions, deletions} with paths */
};

struct gql_member {
	const char *name;
	uint8_t kind;
	bool required;
};

struct gql_mutation {
	const char *name;
	enum gql_class class;
	const struct gql_member *members; /* up to one without a name */
	const struct gql_field *payload;  /* up to one without a name */
};

extern const struct gql_mutation gql_mutations[];
extern const size_t gql_mutations_n;

/* NULL when it is not known. */
const struct gql_mutation *gql_mutation_find(struct span name);
