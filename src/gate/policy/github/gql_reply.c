/* Replies: the ids of objects of listed repositories, which need not be asked for later, and null for what was not
 * sent.
 *
 * The reply is gone through beside the document. An object of it has the selections that asked for it, each in its
 * state; they are found from the states of the object around it, by the same function as in the walk. What an object is
 * told by more than one selection must be the same for all. Best effort: where memory ends, nothing more is learned. */
#include "gate/policy/github/gql_walk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jread.h"
#include "base/macros.h"

#define DEPTH_MAX (2 * GQL_DEPTH_MAX + 8) /* lists of objects, and what is around them */

/* A selection set with its state, as it holds for one object. */
struct use {
	const struct gql_set *set;
	struct gql_state state;
	struct use *next;
};

struct uses {
	struct use *first;
	size_t n;   /* from the field itself; then come those of fragments */
	bool whole; /* they are there */
};

struct item {
	struct span json; /* an object, or a list of objects with the same uses */
	struct uses *uses;
	struct item *next;
};

struct reply {
	const struct gh_scope *scope;
	const struct gql_judged *j;
	struct gql_arena *arena;
	void (*learn)(void *ctx, struct node_question q, const struct node_facts *f);
	void *ctx;
	struct item *todo;
};

static bool add_use(struct reply *r, struct use **list, const struct gql_set *set, struct gql_state s)
{
	struct use *u, **tail = list;

	for (; *tail; tail = &(*tail)->next)
		if ((*tail)->set == set && memcmp(&(*tail)->state, &s, sizeof(s)) == 0)
			return true;
	u = gql_alloc(r->arena, sizeof(*u));
	if (!u)
		return false;
	*u = (struct use){ .set = set, .state = s };
	*tail = u;
	return true;
}

static bool add_item(struct reply *r, struct span json, struct uses *uses)
{
	struct item *i = gql_alloc(r->arena, sizeof(*i));

	if (!i)
		return false;
	*i = (struct item){ .json = json, .uses = uses, .next = r->todo };
	r->todo = i;
	return true;
}

/* Fragments that may hold for the object. New ones come behind those at hand, and are looked through in turn. */
static bool add_fragments(struct reply *r, struct use **list)
{
	for (struct use *u = *list; u; u = u->next)
		for (const struct gql_sel *s = u->set->first; s; s = s->next) {
			const struct gql_set *set = s->kind == GQL_SPREAD ? &s->fragment->set : &s->set;
			struct span type = s->kind == GQL_SPREAD ? s->fragment->on : s->name;
			struct gql_state to = u->state;

			if (s->kind == GQL_FIELD || (type.n > 0 && !gql_narrow(&to, type)))
				continue;
			if (!add_use(r, list, set, to))
				return false;
		}
	return true;
}

/* The name of a member of a reply, which has no escapes. */
static bool is_key(struct span member, const struct gql_sel *s)
{
	struct span key = s->alias.n > 0 ? s->alias : s->name;

	return s->kind == GQL_FIELD && member.n == key.n + 2 && memcmp(member.p + 1, key.p, key.n) == 0;
}

/* What is asked of the value of a member. */
static bool add_children(struct reply *r, const struct use *parents, struct span member, struct use **ret)
{
	for (const struct use *u = parents; u; u = u->next)
		for (const struct gql_sel *s = u->set->first; s; s = s->next) {
			struct gql_state to;

			if (!s->set.first || !is_key(member, s))
				continue;
			if (u->state.type != GQL_T_Query) {
				if (gql_child(u->state, s->name, &to) && !add_use(r, ret, &s->set, to))
					return false;
				continue;
			}
			/* At the root the arguments decide, and the walk has kept what they did. */
			for (const struct gql_visit *v = s->set.visits; v; v = v->other)
				if (!add_use(r, ret, &s->set, v->state))
					return false;
		}
	return true;
}

/* Types whose objects are of another. */
static bool is_abstract(enum gql_type t)
{
	return t == GQL_T_IssueOrPullRequest || t == GQL_T_SearchResultItem || t == GQL_T_GitObject ||
	       t == GQL_T_GitSignature || t == GQL_T_StatusCheckRollupContext || t == GQL_T_RuleSource ||
	       (t >= GQL_T_Assignable && t <= GQL_T_UniformResourceLocatable) || t >= GQL_T_PLAIN;
}

/*
 * A plain field of the object, under the name that the query gave it. A name under which another field is asked for as well, in a
 * fragment for another type, says nothing: the value may be a text that the guest wrote (`...on Issue{x:id} ...on PullRequest{x:title}`).
 * Such a pair is valid if the types agree (GraphQL, October 2021, section 5.3.2), and whether GitHub checks that is not for us to know.
 */
static bool leaf(struct span object, const struct use *uses, const char *field, struct span *ret)
{
	struct span member, v;

	while (jread_next_member(&object, &member, &v)) {
		bool wanted = false, other = false;

		for (const struct use *u = uses; u; u = u->next)
			for (const struct gql_sel *s = u->set->first; s; s = s->next)
				if (is_key(member, s))
					*(span_is(s->name, field) ? &wanted : &other) = true;
		if (wanted && !other && jread_type(v) == JREAD_STRING && !memchr(v.p, '\\', v.n)) {
			*ret = SPAN(v.p + 1, v.n - 2);
			return true;
		}
	}
	return false;
}

/* Where the object lies is said by the uses that came from the field itself, whatever type it turns out to be. */
static void object(struct reply *r, struct span json, const struct uses *uses)
{
	const struct use *u = uses->first;
	const struct gql_state *s = &u->state;
	struct node_facts f = { .kind = NODE_OBJECT, .type = (enum gql_type)s->type };
	const struct gh_repo *repo;
	struct span id, type;

	for (size_t i = 0; i < uses->n; i++, u = u->next)
		if (u->state.reach != GQL_LISTED || u->state.shape != GQL_ONE || u->state.away ||
		    u->state.repo == GQL_NO_REPO || u->state.repo != s->repo || u->state.type != s->type)
			return;
	repo = &r->scope->repo[s->repo];
	if (!repo->known || repo->dropped || !leaf(json, uses->first, "id", &id) || !nodeid_is_id(id))
		return;
	if (leaf(json, uses->first, "__typename", &type))
		f.type = gql_type_find(type);
	/* The list has the ids of its repositories, and a ruleset may be its owner's. */
	if (f.type == GQL_T_Repository || f.type == GQL_T_RepositoryRuleset)
		return;
	if (f.type >= GQL_T_PLAIN || is_abstract(f.type) || gql_types[f.type].open != GQL_OPEN_OBJECT)
		return;
	f.repo = repo->facts.id;
	r->learn(r->ctx, (struct node_question){ .key = id }, &f);
}

static bool go(struct reply *r, struct item *i)
{
	struct span at = i->json, member, v;

	if (jread_type(i->json) == JREAD_ARRAY) {
		while (jread_next_element(&at, &v))
			if ((jread_type(v) == JREAD_OBJECT || jread_type(v) == JREAD_ARRAY) && !add_item(r, v, i->uses))
				return false;
		return true;
	}
	if (!i->uses->whole && !add_fragments(r, &i->uses->first))
		return false;
	i->uses->whole = true;
	object(r, i->json, i->uses);
	while (jread_next_member(&at, &member, &v)) {
		struct uses *children;

		if (jread_type(v) != JREAD_OBJECT && jread_type(v) != JREAD_ARRAY)
			continue;
		children = gql_alloc(r->arena, sizeof(*children));
		if (!children || !add_children(r, i->uses->first, member, &children->first))
			return false;
		for (const struct use *u = children->first; u; u = u->next)
			children->n++;
		if (children->n > 0 && !add_item(r, v, children))
			return false;
	}
	return true;
}

static void learn(struct reply *r, struct span data)
{
	struct use root = { .set = &r->j->doc.op->set, .state = { .type = GQL_T_Query, .repo = GQL_NO_REPO } };
	struct uses uses = { .first = &root, .n = 1 };

	if (!add_item(r, data, &uses))
		return;
	while (r->todo) {
		struct item *i = r->todo;

		r->todo = i->next;
		if (!go(r, i))
			return;
	}
}

/* ---- what was left out ---- */

struct out {
	struct buf *buf;
	int r;
};

static void put(struct out *o, struct span s)
{
	if (o->r == 0)
		o->r = buf_put(o->buf, s.p, s.n);
}

static void word(struct out *o, const char *s)
{
	put(o, span_str(s));
}

static void absent_data(struct out *o, const struct gql_op *op, struct span data)
{
	bool first = true;
	struct span member, v;

	word(o, "{");
	while (jread_next_member(&data, &member, &v)) {
		word(o, first ? "" : ",");
		put(o, member);
		word(o, ":");
		put(o, v);
		first = false;
	}
	for (const struct gql_sel *s = op->set.first; s; s = s->next) {
		if (!s->absent)
			continue;
		word(o, first ? "\"" : ",\"");
		put(o, s->alias);
		word(o, "\":null");
		first = false;
	}
	word(o, "}");
}

static void absent_errors(struct out *o, const struct gql_op *op, struct span errors)
{
	bool first = true;
	struct span v;

	word(o, "[");
	while (jread_next_element(&errors, &v)) {
		word(o, first ? "" : ",");
		put(o, v);
		first = false;
	}
	for (const struct gql_sel *s = op->set.first; s; s = s->next) {
		if (!s->absent)
			continue;
		word(o, first ? "" : ",");
		word(o, "{\"type\":\"NOT_FOUND\",\"path\":[\"");
		put(o, s->alias);
		word(o, "\"],\"message\":\"Could not resolve to a Repository with the name '");
		/* Both fit the grammar of names. */
		put(o, gql_member(op, s->args, "owner")->text);
		word(o, "/");
		put(o, gql_member(op, s->args, "name")->text);
		word(o, "'. (sandbox policy gql-root: it is not listed)\"}");
		first = false;
	}
	word(o, "]");
}

static void complete(struct out *o, const struct gql_op *op, struct span top)
{
	bool has_errors = false, first = true;
	struct span member, v;

	word(o, "{");
	while (jread_next_member(&top, &member, &v)) {
		bool errors = jread_string_is(member, "errors") && jread_type(v) == JREAD_ARRAY;

		word(o, first ? "" : ",");
		put(o, member);
		word(o, ":");
		if (errors)
			absent_errors(o, op, v);
		else if (jread_string_is(member, "data"))
			absent_data(o, op, v);
		else
			put(o, v);
		has_errors = has_errors || errors;
		first = false;
	}
	if (!has_errors) {
		word(o, ",\"errors\":");
		absent_errors(o, op, SPAN(NULL, 0));
	}
	word(o, "}");
}

int gql_reply(const struct gh_scope *scope, const struct gql_judged *j, struct gql_arena *arena, struct span text,
	      void (*learn_fn)(void *ctx, struct node_question q, const struct node_facts *f), void *ctx,
	      struct buf *out)
{
	struct reply r = { .scope = scope, .j = j, .arena = arena, .learn = learn_fn, .ctx = ctx };
	struct out o = { .buf = out };
	struct span top, data;

	if (jread_check(text, DEPTH_MAX, &top) < 0 || !jread_member(top, "data", &data) ||
	    jread_type(data) != JREAD_OBJECT)
		return -EBADMSG;
	if (learn_fn)
		learn(&r, data);
	if (j->absent)
		complete(&o, j->doc.op, top);
	else
		put(&o, text);
	return o.r;
}
