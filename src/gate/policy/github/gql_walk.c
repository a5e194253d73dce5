/* Every field is looked at once for each (type, reach) in which it can be met. Nothing goes down the tree by recursion:
 * a set of selections in a state is a visit, visits stand in a queue, and a pair that was there before is not queued
 * again, so that fragments within fragments cost what they are, not what they grow to. */
#include "gate/policy/github/gql_walk.h"

#include <string.h>

#include "base/macros.h"

#define VISITS_MAX 40000

bool gql_refuse(struct gql_walk *w, enum refusal_code code, const char *why, const char *type, struct span name)
{
	return gql_fail(&w->j->fault, code, why, type, name);
}

bool gql_visit(struct gql_walk *w, struct gql_set *set, struct gql_state s)
{
	struct gql_visit *v;

	for (v = set->visits; v; v = v->other)
		if (memcmp(&v->state, &s, sizeof(s)) == 0)
			return true;
	v = ++w->visits > VISITS_MAX ? NULL : gql_alloc(w->arena, sizeof(*v));
	if (!v)
		return gql_refuse(w, REFUSAL_LIMIT, "the query is too large", NULL, SPAN(NULL, 0));
	v->state = s;
	v->set = set;
	v->other = set->visits;
	set->visits = v;
	v->next = w->todo;
	w->todo = v;
	return true;
}

static bool in(struct span name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (span_is(name, list[i]))
			return true;
	return false;
}

#define IN(name, list) in(name, list, ARRAY_SIZE(list))

static bool starts(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n >= n && memcmp(s.p, lit, n) == 0;
}

static bool ends(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n > n && memcmp(s.p + s.n - n, lit, n) == 0;
}

static const char *type_name(struct gql_state s)
{
	const char *name = s.type < GQL_TYPES_N ? gql_types[s.type].name : "";

	return *name ? name : NULL;
}

/* ---- plain values ---- */

/* What would be of use outside of this sandbox, or is about how people sign in. */
static bool is_secret(struct span name)
{
	static const char *const names[] = { "tempCloneToken", "ipAllowListEntries", "samlIdentityProvider",
					     "recoveryCodes" };

	return IN(name, names) || starts(name, "oauth");
}

static bool leaf_elsewhere(enum gql_type t, struct span name)
{
	static const char *const repository[] = { "id",
						  "databaseId",
						  "name",
						  "nameWithOwner",
						  "url",
						  "isPrivate",
						  "isFork",
						  "description",
						  "visibility",
						  "viewerPermission",
						  "hasIssuesEnabled",
						  "hasWikiEnabled" };
	static const char *const issue[] = { "id", "number", "url", "state" };

	switch (t) {
	case GQL_T_Repository:
		return IN(name, repository);
	case GQL_T_Issue:
	case GQL_T_PullRequest:
		return IN(name, issue);
	case GQL_T_Ref:
		return span_is(name, "name");
	default:
		return false;
	}
}

static bool leaf_ok(struct gql_state s, struct span name)
{
	static const char *const any[] = { "id", "url", "resourcePath" };
	static const char *const account[] = { "id",	    "login", "name",	     "slug",  "databaseId",
					       "avatarUrl", "url",   "resourcePath", "email", "isViewer" };
	static const char *const archives[] = { "tarballUrl", "zipballUrl", "archiveUrl" };
	static const char *const project[] = { "id", "title", "name", "optionId", "status" };
	static const char *const counts[] = { "totalCount", "cursor" };
	static const char *const which[] = { "id", "name", "nameWithOwner", "url" };

	if (is_secret(name) || (IN(name, archives) && (s.reach != GQL_LISTED || s.away)))
		return false;
	if (s.shape != GQL_ONE)
		return s.reach == GQL_LISTED || s.reach == GQL_PUBLIC || s.reach == GQL_ACCOUNT ||
		       s.reach == GQL_CONSTANT || IN(name, counts);
	if (s.type < GQL_TYPES_N && gql_types[s.type].open == GQL_OPEN_ANY)
		return IN(name, any) && (s.reach != GQL_NAME || span_is(name, "id"));
	switch ((enum gql_reach)s.reach) {
	case GQL_LISTED:
		return true;
	case GQL_PUBLIC:
		return !starts(name, "viewer") || span_is(name, "viewerPermission");
	case GQL_REACH_ELSEWHERE:
		return leaf_elsewhere((enum gql_type)s.type, name);
	case GQL_ACCOUNT:
	case GQL_REACH_OWNER:
		return IN(name, account);
	case GQL_NAME:
		return s.type == GQL_T_Repository ? IN(name, which)
						  : span_is(name, "id") || span_is(name, "login");
	case GQL_PROJECT:
		return IN(name, project);
	case GQL_CONSTANT:
	case GQL_SCHEMA:
		return true;
	}
	return false;
}

/* ---- objects ---- */

/* An argument that names another object by its id, as isRequired(pullRequestId:). */
static bool arguments_ok(struct gql_walk *w, const struct gql_sel *s)
{
	for (const struct gql_value *a = s->args ? s->args->first : NULL; a; a = a->next) {
		const struct gql_value *v = gql_resolve(w->j->doc.op, a);
		struct gql_id id;

		if (!v || v->kind == GQL_NULL || span_is(a->name, "databaseId") ||
		    !(ends(a->name, "Id") || ends(a->name, "Ids") || span_is(a->name, "id") || span_is(a->name, "ids")))
			continue;
		if (v->kind != GQL_STRING)
			return gql_refuse(w, REFUSAL_GQL_ID, "an id that is no string", NULL, a->name);
		id = gql_id(w, v->text);
		if (id.whose != GQL_PENDING && id.whose != GQL_OF_LISTED)
			return gql_refuse(w, REFUSAL_GQL_ID, "the id is not known to belong to a listed repository",
					  NULL, v->text);
	}
	return true;
}

/* The other side of a comparison: "[OWNER:]BRANCH". */
static bool compare_ok(struct gql_walk *w, const struct gql_sel *s)
{
	const struct gql_value *v = gql_member(w->j->doc.op, s->args, "headRef");

	if (!v || v->kind != GQL_STRING || !gh_scope_head(w->scope, v->text))
		return gql_refuse(w, REFUSAL_HEAD_SCOPE,
				  "a branch is compared with one of an owner who has no listed repository", "Ref",
				  SPAN("compare", 7));
	return true;
}

/* The state of what a field holds, by its row. */
static struct gql_state enter(struct gql_state s, const struct gql_field *f)
{
	struct gql_state to = s;

	to.type = f->type;
	to.shape = f->flags & GQL_CONNECTION ? GQL_CONN : f->flags & GQL_IN_EDGE ? GQL_EDGE : GQL_ONE;
	to.mutation = 0;
	switch (gql_types[f->type].open) {
	case GQL_OPEN_ACCOUNT:
		to.reach = f->flags & GQL_OWNER && s.reach == GQL_LISTED && !s.away ? GQL_REACH_OWNER : GQL_ACCOUNT;
		break;
	case GQL_OPEN_CONSTANT:
		to.reach = GQL_CONSTANT;
		break;
	case GQL_OPEN_PROJECT:
		to.reach = GQL_PROJECT;
		break;
	case GQL_OPEN_OBJECT:
	case GQL_OPEN_ANY:
		if (f->flags & GQL_ELSEWHERE || (f->flags & GQL_ITS_REPOSITORY && s.away))
			to.reach = GQL_REACH_ELSEWHERE;
		else if (f->flags & GQL_AWAY)
			to.away = 1;
		break;
	}
	/* What an object says of its repository holds for the object alone: it may have moved since its id was known. */
	if (to.reach != GQL_LISTED || f->flags & GQL_ITS_REPOSITORY)
		to.repo = GQL_NO_REPO;
	if (to.reach != GQL_LISTED && to.reach != GQL_PUBLIC)
		to.away = 0;
	return to;
}

static const struct gql_field *row(struct gql_state s, struct span name)
{
	static const struct gql_field node = { "node", 0, 0 }, edges = { "edges", 0, 0 },
				      page = { "pageInfo", GQL_T_PLAIN, 0 },
				      runs = { "checkRunCountsByState", GQL_T_PLAIN, 0 },
				      contexts = { "statusContextCountsByState", GQL_T_PLAIN, 0 };
	static const struct gql_field *const of_connection[] = { &page, &runs, &contexts };

	if (s.shape == GQL_EDGE)
		return span_is(name, "node") ? &node : NULL;
	if (s.shape == GQL_CONN) {
		if (span_is(name, "nodes"))
			return &node;
		if (span_is(name, "edges"))
			return &edges;
		for (size_t i = 0; i < ARRAY_SIZE(of_connection); i++)
			if (span_is(name, of_connection[i]->name))
				return of_connection[i];
		return NULL;
	}
	return s.type == GQL_T_PAYLOAD ? gql_payload_field(s.mutation, name)
				       : gql_field_find((enum gql_type)s.type, name);
}

/* The few objects behind one that is not of the repository. */
static bool enter_other(struct gql_state s, struct span name, struct gql_state *to)
{
	*to = (struct gql_state){ .reach = GQL_NAME, .repo = GQL_NO_REPO };
	switch ((enum gql_reach)s.reach) {
	case GQL_REACH_ELSEWHERE:
		if (s.type == GQL_T_Repository && span_is(name, "owner")) {
			to->type = GQL_T_RepositoryOwner;
			return true;
		}
		if (s.type == GQL_T_Repository && span_is(name, "defaultBranchRef")) {
			to->reach = GQL_REACH_ELSEWHERE;
			to->type = GQL_T_Ref;
			return true;
		}
		to->type = GQL_T_Repository;
		return (s.type == GQL_T_Issue || s.type == GQL_T_PullRequest || s.type == GQL_T_Ref) && span_is(name, "repository");
	case GQL_NAME:
		to->type = GQL_T_RepositoryOwner;
		return s.type == GQL_T_Repository && span_is(name, "owner");
	case GQL_REACH_OWNER:
	case GQL_ACCOUNT:
		to->type = GQL_T_Organization;
		if (s.type == GQL_T_Team && span_is(name, "organization"))
			return true;
		to->type = GQL_T_Team;
		to->reach = GQL_ACCOUNT;
		to->shape = span_is(name, "teams") ? GQL_CONN : GQL_ONE;
		return s.reach == GQL_REACH_OWNER && s.type == GQL_T_Organization &&
		       (span_is(name, "team") || span_is(name, "teams"));
	default:
		return false;
	}
}

static bool is_project(struct span name)
{
	return starts(name, "project") || span_is(name, "recentProjects");
}

static bool not_open(struct gql_walk *w, struct gql_state s, struct span name)
{
	if (is_project(name))
		w->j->form = GQL_FORM_PROJECTS;
	return gql_refuse(w, REFUSAL_GQL_FIELD,
			  s.reach == GQL_PUBLIC ? "the repository is not listed, and this field is not for everybody"
			  : s.reach == GQL_REACH_ELSEWHERE ? "the object may lie in a repository that is not listed"
			  : is_secret(name)		   ? "the field is a credential"
					    : "the field is not known to stay within the listed repositories",
			  type_name(s), name);
}

bool gql_child(struct gql_state s, struct span name, struct gql_state *to)
{
	const struct gql_field *r;

	*to = s;
	if (s.reach == GQL_SCHEMA)
		return true;
	if (s.shape == GQL_ONE && s.reach != GQL_LISTED && s.reach != GQL_PUBLIC && s.reach != GQL_PROJECT)
		return enter_other(s, name, to);
	r = row(s, name);
	if (!r || (s.reach == GQL_PUBLIC && r->flags & GQL_NOT_PUBLIC) || (s.away && r->flags & GQL_NOT_AWAY))
		return false;
	if (s.shape == GQL_ONE) {
		*to = enter(s, r);
	} else if (r->type == GQL_T_PLAIN) {
		*to = (struct gql_state){ .type = r->type, .reach = GQL_CONSTANT, .repo = GQL_NO_REPO };
	} else {
		to->shape = span_is(name, "edges") ? GQL_EDGE : GQL_ONE;
	}
	return true;
}

static bool composite(struct gql_walk *w, struct gql_sel *f, struct gql_state s)
{
	const struct gql_field *r = s.shape == GQL_ONE ? row(s, f->name) : NULL;
	struct gql_state to;

	if (is_secret(f->name) || !gql_child(s, f->name, &to))
		return not_open(w, s, f->name);
	if (r && r->flags & GQL_ITS_REPOSITORY && f->args)
		return gql_refuse(w, REFUSAL_GQL_FIELD, "the field takes no arguments", type_name(s), f->name);
	if (s.type == GQL_T_Ref && s.shape == GQL_ONE && span_is(f->name, "compare") && !compare_ok(w, f))
		return false;
	return gql_visit(w, &f->set, to);
}

static bool field(struct gql_walk *w, struct gql_sel *f, struct gql_state s)
{
	if (span_is(f->name, "__typename"))
		return !f->set.first && !f->args ? true : not_open(w, s, f->name);
	if (s.type == GQL_T_Query && s.reach != GQL_SCHEMA)
		return gql_root(w, f);
	if (!arguments_ok(w, f))
		return false;
	if (f->set.first)
		return composite(w, f, s);
	return leaf_ok(s, f->name) ? true : not_open(w, s, f->name);
}

/* ---- type conditions ---- */

bool gql_narrow(struct gql_state *s, struct span name)
{
	enum gql_type t = gql_type_find(name);
	enum gql_open open = t < GQL_TYPES_N ? gql_types[t].open : GQL_OPEN_OBJECT;

	if (s->reach == GQL_SCHEMA)
		return starts(name, "__");
	if (s->type == GQL_T_PAYLOAD)
		return ends(name, "Payload");
	if (s->shape != GQL_ONE)
		return ends(name, s->shape == GQL_CONN ? "Connection" : "Edge");
	if (t == GQL_TYPES_N || s->type == GQL_T_PLAIN || (s->type == GQL_T_Query) != (t == GQL_T_Query))
		return false;
	if (s->type == GQL_T_SearchResultItem && t != GQL_T_Issue && t != GQL_T_PullRequest && t != GQL_T_Discussion &&
	    t != GQL_T_Repository && t != GQL_T_SearchResultItem)
		return false;
	s->type = (uint8_t)t;
	if (open == GQL_OPEN_ANY)
		return true;
	switch ((enum gql_reach)s->reach) {
	case GQL_LISTED:
	case GQL_PUBLIC:
		if (open == GQL_OPEN_ACCOUNT || open == GQL_OPEN_CONSTANT) {
			s->reach = open == GQL_OPEN_ACCOUNT ? GQL_ACCOUNT : GQL_CONSTANT;
			s->repo = GQL_NO_REPO;
			s->away = 0;
		}
		return open != GQL_OPEN_PROJECT;
	case GQL_REACH_ELSEWHERE:
		if (open == GQL_OPEN_ACCOUNT)
			s->reach = GQL_ACCOUNT; /* the source of a ruleset */
		return open == GQL_OPEN_ACCOUNT || t == GQL_T_Repository || t == GQL_T_Issue ||
		       t == GQL_T_PullRequest || t == GQL_T_IssueOrPullRequest;
	case GQL_ACCOUNT:
	case GQL_REACH_OWNER:
	case GQL_NAME:
		return open == GQL_OPEN_ACCOUNT;
	case GQL_CONSTANT:
		return open == GQL_OPEN_CONSTANT;
	case GQL_PROJECT:
		return open == GQL_OPEN_PROJECT;
	case GQL_SCHEMA:
		break;
	}
	return false;
}

static bool fragment(struct gql_walk *w, struct gql_set *set, struct span type, struct gql_state s)
{
	struct gql_state to = s;

	if (type.n > 0 && !gql_narrow(&to, type))
		return gql_refuse(w, s.type == GQL_T_SearchResultItem ? REFUSAL_SEARCH_SCOPE : REFUSAL_GQL_FIELD,
				  "the type is not known to stay within the listed repositories", type_name(s), type);
	return gql_visit(w, set, to);
}

/* ---- the whole ---- */

static bool walk(struct gql_walk *w)
{
	while (w->todo) {
		struct gql_visit *v = w->todo;

		w->todo = v->next;
		for (struct gql_sel *s = v->set->first; s; s = s->next) {
			bool ok = s->kind == GQL_FIELD	  ? field(w, s, v->state)
				  : s->kind == GQL_SPREAD ? fragment(w, &s->fragment->set, s->fragment->on, v->state)
							  : fragment(w, &s->set, s->name, v->state);

			if (!ok)
				return false;
		}
	}
	return true;
}

static bool operation(struct gql_walk *w)
{
	struct gql_op *op = w->j->doc.op;

	switch (op->kind) {
	case GQL_QUERY:
		return gql_visit(w, &op->set, (struct gql_state){ .type = GQL_T_Query, .repo = GQL_NO_REPO }) &&
		       walk(w);
	case GQL_MUTATION:
		for (struct gql_sel *s = op->set.first; s; s = s->next)
			if (!gql_mutate(w, s))
				return false;
		return walk(w);
	case GQL_SUBSCRIPTION:
		break;
	}
	return gql_refuse(w, REFUSAL_GQL_ROOT, "subscriptions are not open", NULL, SPAN(NULL, 0));
}

/* Something must be left to be sent. */
static bool is_present(const struct gql_op *op)
{
	for (const struct gql_sel *s = op->set.first; s; s = s->next)
		if (!s->absent && s->set.first)
			return true;
	return false;
}

enum gql_verdict gql_judge(const struct gh_scope *scope, const struct gql_known *known, struct span body,
			   struct gql_arena *arena, struct gql_judged *ret)
{
	struct gql_walk w = { .scope = scope, .known = known, .arena = arena, .j = ret };

	arena->n = 0;
	*ret = (struct gql_judged){ 0 };
	if (!gql_body(body, arena, &ret->doc, &ret->fault))
		return GQL_REFUSE;
	if (!operation(&w))
		return GQL_REFUSE;
	if (ret->absent && !is_present(ret->doc.op)) {
		(void)gql_refuse(&w, REFUSAL_GQL_ROOT, "the repository is not listed", NULL, SPAN(NULL, 0));
		return GQL_REFUSE;
	}
	return ret->n_q > 0 ? GQL_ASK : GQL_SEND;
}
