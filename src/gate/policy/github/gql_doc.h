/* A GraphQL request as a tree: the executable document (GraphQL of October 2021, sections 2 and 3) and the values of
 * its variables. Everything lies in one arena of the caller, so that a request cannot take more memory than that, and
 * no function recurses over what a request nests: trees have links upwards. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "proto/refusal.h"

#define GQL_BODY_MAX (1 << 20)
#define GQL_TOKENS_MAX 20000
#define GQL_DEPTH_MAX 64       /* of selections, of values, of the types of a variable; fragments put in their places */
#define GQL_VALUES_MAX 20000   /* of all variables together */
#define GQL_EXPANDED_MAX 20000 /* selections, with every fragment put in its places */

struct gql_arena {
	uint8_t *p;
	size_t n, size;
};

/* Zeroed memory, or NULL when the arena is full. */
void *gql_alloc(struct gql_arena *a, size_t n);

/* Why a request is refused. What the guest's own words can be in it is a name, an id or a slug: no byte of them needs
 * an escape in JSON, and a refusal shows a bounded part. */
struct gql_fault {
	enum refusal_code code; /* REFUSAL_NONE: no fault */
	const char *why;	/* static text */
	const char *type;	/* static: the type whose field is meant, or NULL */
	struct span name;	/* the field, argument, id or slug; may be empty */
};

/* Notes the first fault and returns false, so that the caller can write return gql_fail(...). */
bool gql_fail(struct gql_fault *f, enum refusal_code code, const char *why, const char *type, struct span name);

enum gql_value_kind {
	GQL_NULL,
	GQL_BOOL,
	GQL_INT,
	GQL_FLOAT,
	GQL_STRING,
	GQL_ENUM,
	GQL_VARIABLE,
	GQL_LIST,
	GQL_OBJECT,
};

struct gql_value {
	enum gql_value_kind kind;
	struct span name; /* as a member of an object, or an argument */
	struct span text; /* a string after its escapes, digits as written, true or false, a name */
	struct gql_value *up, *first, *next;
};

struct gql_directive {
	bool skip; /* @skip; otherwise @include */
	struct gql_value *cond;
	struct gql_directive *next;
};

enum gql_sel_kind { GQL_FIELD, GQL_SPREAD, GQL_INLINE };

struct gql_fragment;
struct gql_visit;

/* What stands between two braces, and the states in which it was walked. */
struct gql_set {
	struct gql_sel *first;
	struct gql_visit *visits;
};

struct gql_sel {
	enum gql_sel_kind kind;
	bool absent;	   /* judged as not to be sent; its answer is null */
	struct span name;  /* of the field or the fragment; the type condition, empty without one */
	struct span alias; /* empty without one */
	struct gql_value *args;
	struct gql_directive *directives;
	struct gql_set set; /* empty for a leaf */
	struct gql_fragment *fragment;
	struct gql_sel *up, *next;
};

struct gql_fragment {
	struct span name, on;
	struct gql_set set;
	struct gql_fragment *next;
	bool reached;
	/* While the spreads are followed. */
	enum { GQL_NEW, GQL_OPEN, GQL_DONE } state;
	struct gql_fragment *opened_by;
	struct gql_sel *at;
	unsigned size, depth;
};

struct gql_variable {
	struct span name, type; /* the named type, without lists */
	unsigned lists;
	uint64_t non_null;	    /* bit 0: the whole, bit n: what the nth list holds */
	struct gql_value *fallback; /* the default, or NULL */
	struct gql_value *given;    /* from "variables", or NULL */
	struct gql_variable *next;
};

enum gql_op_kind { GQL_QUERY, GQL_MUTATION, GQL_SUBSCRIPTION };

struct gql_op {
	enum gql_op_kind kind;
	struct span name; /* empty without one */
	struct gql_variable *variables;
	struct gql_set set;
	struct gql_op *next;
};

struct gql_doc {
	struct gql_op *ops;
	struct gql_fragment *fragments;
	struct gql_op *op; /* the one that is run */
};

/* ---- gql_lex.c ---- */

enum gql_token {
	GQL_TOK_END,
	GQL_TOK_PUNCT, /* one byte; "..." is three */
	GQL_TOK_NAME,
	GQL_TOK_INT,
	GQL_TOK_FLOAT,
	GQL_TOK_STRING,
};

struct gql_lexer {
	struct span rest;
	struct gql_arena *arena;
	struct gql_fault *fault;
	unsigned n; /* tokens so far */
	enum gql_token token;
	struct span text; /* of a string: after its escapes */
};

/* Reads the next token; false with a fault. */
bool gql_next(struct gql_lexer *l);

bool gql_is_name(struct span s);

/* ---- gql_parse.c ---- */

/**
 * gql_parse() - Read a document and pick the operation
 * @operation:	"operationName", or empty: then the document has one operation only
 *
 * Names of operations, fragments, variables and arguments are unique, fragments that are spread exist and go in no
 * circle, directives are @include and @skip.
 */
bool gql_parse(struct span text, struct span operation, struct gql_arena *arena, struct gql_doc *ret,
	       struct gql_fault *fault);

/* The declared variable, or NULL. */
struct gql_variable *gql_variable(const struct gql_op *op, struct span name);

/* The next of a tree in the order of the text, from @v within @root; NULL at the end. */
struct gql_value *gql_value_after(struct gql_value *v, const struct gql_value *root);
struct gql_sel *gql_sel_after(struct gql_sel *s);

/* ---- gql_body.c ---- */

/**
 * gql_body() - Read "query", "variables" and "operationName", and give the variables their values
 * @body:	The body as received
 */
bool gql_body(struct span body, struct gql_arena *arena, struct gql_doc *ret, struct gql_fault *fault);

/**
 * gql_resolve() - What a value is once variables have theirs
 *
 * Return: never a GQL_VARIABLE; NULL for a variable without a value, which counts as if it was not written
 */
const struct gql_value *gql_resolve(const struct gql_op *op, const struct gql_value *v);

/* A member of an object or an argument, resolved; NULL when it is not there. */
const struct gql_value *gql_member(const struct gql_op *op, const struct gql_value *object, const char *name);

/* ---- gql_print.c ---- */

/* The operation and the fragments that it reaches, in one form only. */
bool gql_print(const struct gql_doc *d, struct buf *out);

/* The body to send: the printed document, and the variables that it declares. */
bool gql_print_body(const struct gql_doc *d, struct buf *out);
