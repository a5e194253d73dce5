/* Where a query begins, and what ids stand for. */
#include "gate/policy/github/gql_walk.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "gate/policy/github/search.h"

/* ---- ids ---- */

/* 1 with the facts, 0 when they are not known; then it is asked. Questions past the maximum wait for the next turn. */
static bool known(struct gql_walk *w, struct node_question q, struct node_facts *ret)
{
	if (w->known->get(w->known->ctx, q, ret))
		return true;
	for (size_t i = 0; i < w->j->n_q; i++) {
		const struct node_question *o = &w->j->q[i];

		if (o->by_name == q.by_name && o->key.n == q.key.n && memcmp(o->key.p, q.key.p, q.key.n) == 0)
			return false;
	}
	if (w->j->n_q < NODE_QUESTIONS_MAX && q.key.n <= NODE_KEYS_MAX - w->j->n_keys) {
		w->j->q[w->j->n_q++] = q;
		w->j->n_keys += q.key.n;
	}
	return false;
}

/* Whether all listed repositories have their numbers, so that another number is none of them. */
static bool numbers_are_known(const struct gh_scope *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (!s->repo[i].known)
			return false;
	return true;
}

struct gql_id gql_id(struct gql_walk *w, struct span id)
{
	struct gql_id nobody = { .whose = GQL_OF_NOBODY }, r = nobody;
	uint64_t number;

	if (!nodeid_is_id(id))
		return nobody;
	r.repo = gh_scope_find_node(w->scope, id);
	if (r.repo) {
		r.whose = GQL_OF_LISTED;
		r.facts = (struct node_facts){ .kind = NODE_OBJECT, .type = GQL_T_Repository };
		return r;
	}
	if (nodeid_repository(id, &number) && numbers_are_known(w->scope) && !gh_scope_find_id(w->scope, number))
		return nobody;
	if (!known(w, (struct node_question){ .key = id }, &r.facts)) {
		r.whose = GQL_PENDING;
		return r;
	}
	switch (r.facts.kind) {
	case NODE_OBJECT:
		r.repo = gh_scope_find_id(w->scope, r.facts.repo);
		if (!r.repo)
			return nobody;
		r.whose = GQL_OF_LISTED;
		return r;
	case NODE_ACCOUNT:
		r.whose = GQL_OF_ACCOUNT;
		return r;
	case NODE_TEAM:
		if (!gh_scope_owns_org(w->scope, r.facts.name))
			return nobody;
		r.whose = GQL_OF_TEAM;
		return r;
	case NODE_NONE:
	case NODE_PUBLIC:
		break;
	}
	return nobody;
}

int gql_is_public(struct gql_walk *w, struct span slug)
{
	struct node_facts f;

	if (!known(w, (struct node_question){ true, slug }, &f))
		return -EAGAIN;
	return f.kind == NODE_PUBLIC;
}

/* ---- roots ---- */

static bool no_root(struct gql_walk *w, const char *why, struct span name)
{
	return gql_refuse(w, REFUSAL_GQL_ROOT, why, "Query", name);
}

/* The field has no arguments but these. */
static bool only(struct gql_walk *w, const struct gql_sel *f, const char *const *names, size_t n)
{
	for (const struct gql_value *a = f->args ? f->args->first : NULL; a; a = a->next) {
		size_t i = 0;

		while (i < n && !span_is(a->name, names[i]))
			i++;
		if (i == n)
			return no_root(w, "an argument that is not known", a->name);
	}
	return true;
}

#define ONLY(w, f, ...)                                             \
	({                                                          \
		static const char *const only_[] = { __VA_ARGS__ }; \
		only(w, f, only_, ARRAY_SIZE(only_));               \
	})

/* A string that must be there. */
static bool text(struct gql_walk *w, const struct gql_sel *f, const char *name, struct span *ret)
{
	const struct gql_value *v = gql_member(w->j->doc.op, f->args, name);

	if (!v || v->kind != GQL_STRING)
		return no_root(w, "an argument that must be a string is none", span_str(name));
	*ret = v->text;
	return true;
}

/* gh asks for several repositories at once, and takes those that it may not see for absent (2.14). */
static bool may_be_absent(const struct gql_walk *w, const struct gql_sel *f)
{
	static const char prefix[] = "repo_";
	const struct gql_sel *root = w->j->doc.op->set.first;
	size_t n = strlen(prefix);

	while (root && root != f)
		root = root->next;
	if (!root || !span_is(w->j->doc.op->name, "RepositoryNetwork") || f->directives || f->alias.n != n + 3 ||
	    memcmp(f->alias.p, prefix, n) != 0)
		return false;
	for (size_t i = n; i < f->alias.n; i++)
		if (f->alias.p[i] < '0' || f->alias.p[i] > '9')
			return false;
	return true;
}

/* "OWNER/NAME" of two strings that fit the grammar of names. */
static bool slug_of(struct gql_walk *w, struct gh_slug s, struct span *ret)
{
	uint8_t *p = gql_alloc(w->arena, s.owner.n + 1 + s.name.n);

	if (!p)
		return gql_refuse(w, REFUSAL_LIMIT, "the request is too large", NULL, SPAN(NULL, 0));
	memcpy(p, s.owner.p, s.owner.n);
	p[s.owner.n] = '/';
	memcpy(p + s.owner.n + 1, s.name.p, s.name.n);
	*ret = SPAN(p, s.owner.n + 1 + s.name.n);
	return true;
}

static bool repository(struct gql_walk *w, struct gql_sel *f)
{
	struct gql_state s = { .type = GQL_T_Repository, .reach = GQL_LISTED, .repo = GQL_NO_REPO };
	const struct gh_repo *r;
	struct gh_slug slug;
	struct span text_slug;
	int public = 0;

	if (!ONLY(w, f, "owner", "name", "followRenames") || !text(w, f, "owner", &slug.owner) ||
	    !text(w, f, "name", &slug.name))
		return false;
	if (!gh_is_owner(slug.owner) || !gh_is_name(slug.name))
		return no_root(w, "this is no name of a repository", SPAN(NULL, 0));
	r = gh_scope_find(w->scope, slug.owner, slug.name);
	if (r) {
		w->j->repo = r;
		s.repo = (uint16_t)(r - w->scope->repo);
		return gql_visit(w, &f->set, s);
	}
	if (!slug_of(w, slug, &text_slug))
		return false;
	if (gh_scope_has(w->scope, GH_PUBLIC_GRAPHQL))
	public = gql_is_public(w, text_slug);
	if (public < 0)
		return true;
	if (public) {
		s.reach = GQL_PUBLIC;
		return gql_visit(w, &f->set, s);
	}
	if (may_be_absent(w, f)) {
		f->absent = w->j->absent = true;
		return true;
	}
	return gql_refuse(w, REFUSAL_GQL_ROOT, "the repository is not listed", NULL, text_slug);
}

static bool organization(struct gql_walk *w, struct gql_sel *f)
{
	struct gql_state s = { .type = GQL_T_Organization, .reach = GQL_REACH_OWNER, .repo = GQL_NO_REPO };
	struct span login;

	if (!ONLY(w, f, "login") || !text(w, f, "login", &login))
		return false;
	if (gh_scope_owns_org(w->scope, login))
		return gql_visit(w, &f->set, s);
	w->j->form = GQL_FORM_ORGANIZATION;
	return no_root(w, "the organisation owns no listed repository", gh_is_owner(login) ? login : SPAN(NULL, 0));
}

static bool node(struct gql_walk *w, struct gql_sel *f, const struct gql_value *v)
{
	struct gql_state s = { .repo = GQL_NO_REPO };
	struct gql_id id;

	if (!v || v->kind != GQL_STRING)
		return gql_refuse(w, REFUSAL_GQL_ID, "an id that is no string", "Query", f->name);
	id = gql_id(w, v->text);
	s.type = (uint8_t)id.facts.type;
	switch (id.whose) {
	case GQL_PENDING:
		return true;
	case GQL_OF_LISTED:
		w->j->repo = id.repo;
		s.reach = GQL_LISTED;
		s.repo = (uint16_t)(id.repo - w->scope->repo);
		return gql_visit(w, &f->set, s);
	case GQL_OF_ACCOUNT:
	case GQL_OF_TEAM:
		s.reach = GQL_ACCOUNT;
		return gql_visit(w, &f->set, s);
	case GQL_OF_NOBODY:
		break;
	}
	return gql_refuse(w, REFUSAL_GQL_ID, "the id is not known to belong to a listed repository", "Query",
			  nodeid_is_id(v->text) ? v->text : SPAN(NULL, 0));
}

static bool nodes(struct gql_walk *w, struct gql_sel *f)
{
	const struct gql_value *v = gql_member(w->j->doc.op, f->args, "ids");

	if (!ONLY(w, f, "ids"))
		return false;
	if (!v || v->kind != GQL_LIST)
		return node(w, f, v);
	for (const struct gql_value *e = v->first; e; e = e->next)
		if (!node(w, f, gql_resolve(w->j->doc.op, e)))
			return false;
	/* Nothing to find, but the selection must still be one that is known. */
	return v->first ? true : no_root(w, "a list of ids is empty", f->name);
}

static bool search(struct gql_walk *w, struct gql_sel *f)
{
	static const char *const types[] = { "ISSUE", "ISSUE_ADVANCED", "DISCUSSION", "REPOSITORY" };
	struct gql_state s = {
		.type = GQL_T_SearchResultItem, .reach = GQL_LISTED, .shape = GQL_CONN, .repo = GQL_NO_REPO
	};
	const struct gql_value *type = gql_member(w->j->doc.op, f->args, "type");
	const struct gh_repo *r;
	const char *why;
	struct span q;
	size_t i = 0;

	if (!ONLY(w, f, "query", "type", "first", "last", "after", "before") || !text(w, f, "query", &q))
		return false;
	while (i < ARRAY_SIZE(types) &&
	       !(type && (type->kind == GQL_ENUM || type->kind == GQL_STRING) && span_is(type->text, types[i])))
		i++;
	if (i == ARRAY_SIZE(types))
		return gql_refuse(w, REFUSAL_SEARCH_SCOPE,
				  "only issues, pull requests, discussions and repositories can be searched", "Query",
				  f->name);
	if (search_judge(w->scope, q, &r, &why) != SEARCH_LISTED)
		return gql_refuse(w, REFUSAL_SEARCH_SCOPE, why, "Query", f->name);
	if (r)
		s.repo = (uint16_t)(r - w->scope->repo);
	return gql_visit(w, &f->set, s);
}

static bool constant(struct gql_walk *w, struct gql_sel *f, enum gql_type t, enum gql_reach reach)
{
	return gql_visit(w, &f->set,
			 (struct gql_state){ .type = (uint8_t)t, .reach = (uint8_t)reach, .repo = GQL_NO_REPO });
}

bool gql_root(struct gql_walk *w, struct gql_sel *f)
{
	static const struct {
		const char *name;
		enum gql_type type;
		enum gql_reach reach;
	} plain[] = {
		{ "viewer", GQL_T_User, GQL_ACCOUNT },
		{ "user", GQL_T_User, GQL_ACCOUNT },
		{ "rateLimit", GQL_T_RateLimit, GQL_CONSTANT },
		{ "meta", GQL_T_GitHubMetadata, GQL_CONSTANT },
		{ "license", GQL_T_License, GQL_CONSTANT },
		{ "licenses", GQL_T_License, GQL_CONSTANT },
		{ "codeOfConduct", GQL_T_CodeOfConduct, GQL_CONSTANT },
		{ "codesOfConduct", GQL_T_CodeOfConduct, GQL_CONSTANT },
		{ "__schema", GQL_T_SCHEMA, GQL_SCHEMA },
		{ "__type", GQL_T_SCHEMA, GQL_SCHEMA },
	};

	if (!f->set.first)
		return no_root(w, "the field is not open", f->name);
	if (span_is(f->name, "repository"))
		return repository(w, f);
	if (span_is(f->name, "organization"))
		return organization(w, f);
	if (span_is(f->name, "node"))
		return ONLY(w, f, "id") && node(w, f, gql_member(w->j->doc.op, f->args, "id"));
	if (span_is(f->name, "nodes"))
		return nodes(w, f);
	if (span_is(f->name, "search"))
		return search(w, f);
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (span_is(f->name, plain[i].name))
			return constant(w, f, plain[i].type, plain[i].reach);
	return no_root(w, "the field is not open", f->name);
}
