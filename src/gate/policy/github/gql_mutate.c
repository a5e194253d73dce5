/* One field of a mutation: its class, each member of its input by the table, then its payload as a read. All that it
 * names lies in listed repositories with the level it needs, and something is named. */
#include "gate/policy/github/gql_walk.h"

#include <string.h>

#include "base/macros.h"
#include "gate/policy/github/gql_mutations.h"
#include "gate/policy/github/path.h"

struct mutation {
	struct gql_walk *w;
	const struct gql_mutation *row;
	enum gh_level level; /* that is needed */
	unsigned named;	     /* objects of listed repositories, or those that are asked for */
	uint16_t repo;	     /* the one that they lie in; GQL_NO_REPO for several */
};

static bool refuse(struct mutation *m, enum refusal_code code, const char *why, struct span name)
{
	return gql_refuse(m->w, code, why, m->row->name, name);
}

static struct span shown_id(struct span id)
{
	return nodeid_is_id(id) ? id : SPAN(NULL, 0);
}

/* ---- what a member may be ---- */

static bool repo_ok(struct mutation *m, const struct gh_repo *r, enum gh_level level)
{
	uint16_t at = (uint16_t)(r - m->w->scope->repo);

	if (r->level < level)
		return refuse(m, level == GH_ADMIN ? REFUSAL_CLASS_ADMIN : REFUSAL_OFFLIST_WRITE,
			      level == GH_ADMIN ? "this needs the repository to be listed with the level admin"
						: "the repository is listed for reading only",
			      span_str(r->name));
	m->repo = m->named == 0 || m->repo == at ? at : GQL_NO_REPO;
	m->named++;
	m->w->j->repo = r;
	return true;
}

static bool object(struct mutation *m, struct span text, enum gh_level level, struct gql_id *ret)
{
	*ret = gql_id(m->w, text);
	switch (ret->whose) {
	case GQL_PENDING:
		m->named++;
		return true;
	case GQL_OF_LISTED:
		return repo_ok(m, ret->repo, level);
	default:
		return refuse(m, REFUSAL_GQL_ID, "the id is not known to belong to a listed repository",
			      shown_id(text));
	}
}

static bool account(struct mutation *m, struct span text, bool person, bool team)
{
	enum gql_whose whose = gql_id(m->w, text).whose;

	if (whose == GQL_PENDING || (person && whose == GQL_OF_ACCOUNT) || (team && whose == GQL_OF_TEAM))
		return true;
	return refuse(m, REFUSAL_GQL_ID,
		      "the id is not known to be an account, or a team of a listed repository's owner", shown_id(text));
}

static bool ref_ok(struct mutation *m, struct span ref)
{
	return gh_scope_ref(m->w->scope, ref)
		       ? true
		       : refuse(m, REFUSAL_GQL_MUTATION,
				"the ref is none of those that may be written (--github push-refs=GLOBS)",
				SPAN(NULL, 0));
}

/* A ref by its name without "refs/heads/"; one that has it nevertheless must pass either way. */
static bool branch_ok(struct mutation *m, struct span name)
{
	static const char prefix[] = "refs/heads/";
	size_t n = strlen(prefix);
	uint8_t *full;

	if (gh_scope_any_ref(m->w->scope))
		return true;
	full = gql_alloc(m->w->arena, n + name.n);
	if (!full)
		return refuse(m, REFUSAL_LIMIT, "the request is too large", SPAN(NULL, 0));
	memcpy(full, prefix, n);
	memcpy(full + n, name.p, name.n);
	if (name.n >= 5 && memcmp(name.p, "refs/", 5) == 0 && !ref_ok(m, name))
		return false;
	return ref_ok(m, SPAN(full, n + name.n));
}

static bool may_delete(struct mutation *m)
{
	return gh_scope_has(m->w->scope, GH_PUSH_DELETE)
		       ? true
		       : refuse(m, REFUSAL_GQL_MUTATION, "refs may not be deleted", SPAN(NULL, 0));
}

/* A ref by its id: what it is called comes with the answer about the id. */
static bool ref(struct mutation *m, struct span text, bool gone)
{
	struct gql_id id;
	uint8_t *full;
	size_t n;

	if ((gone && !may_delete(m)) || !object(m, text, m->level, &id))
		return false;
	if (id.whose == GQL_PENDING || gh_scope_any_ref(m->w->scope))
		return true;
	n = id.facts.prefix.n + id.facts.name.n;
	full = id.facts.name.n > 0 ? gql_alloc(m->w->arena, n) : NULL;
	if (!full)
		return refuse(m, REFUSAL_GQL_MUTATION, "push-refs is set, and the name of the ref is not known",
			      shown_id(text));
	memcpy(full, id.facts.prefix.p, id.facts.prefix.n);
	memcpy(full + id.facts.prefix.n, id.facts.name.p, id.facts.name.n);
	return ref_ok(m, SPAN(full, n));
}

static bool team_slug(struct mutation *m, struct span text)
{
	const uint8_t *slash = text.n > 0 ? memchr(text.p, '/', text.n) : NULL;

	if (slash && !gh_scope_owns(m->w->scope, SPAN(text.p, (size_t)(slash - text.p))))
		return refuse(m, REFUSAL_GQL_MUTATION,
			      "the team belongs to an organisation without a listed repository", SPAN(NULL, 0));
	return true;
}

/* One string that refers to something. */
static bool reference(struct mutation *m, enum gql_member_kind kind, struct span text)
{
	const struct gh_repo *r;
	struct gql_id id;

	switch (kind) {
	case GQL_M_OBJECT:
		return object(m, text, m->level, &id);
	case GQL_M_SOURCE:
		return object(m, text, GH_READ, &id);
	case GQL_M_ACCOUNT:
		return account(m, text, true, false);
	case GQL_M_ACTOR:
		return account(m, text, true, true);
	case GQL_M_TEAM:
		return account(m, text, false, true);
	case GQL_M_TEAM_SLUG:
		return team_slug(m, text);
	case GQL_M_REF:
		return ref(m, text, false);
	case GQL_M_REF_GONE:
		return ref(m, text, true);
	case GQL_M_REF_NAME:
		return ref_ok(m, text);
	case GQL_M_BRANCH_NAME:
	case GQL_M_NEW_BRANCH:
		return branch_ok(m, text);
	case GQL_M_HEAD:
		return gh_scope_head(m->w->scope, text)
			       ? true
			       : refuse(m, REFUSAL_HEAD_SCOPE,
					"the head belongs to an owner who has no listed repository", SPAN(NULL, 0));
	case GQL_M_ISSUE_URL:
		r = gh_scope_issue_url(m->w->scope, text);
		return r ? repo_ok(m, r, m->level)
			 : refuse(m, REFUSAL_GQL_ID, "the URL is not one of an issue of a listed repository",
				  SPAN(NULL, 0));
	default:
		return refuse(m, REFUSAL_GQL_MUTATION, "the input is not known", SPAN(NULL, 0));
	}
}

/* The members that hold several are those with a name in the plural. */
static bool is_list(struct span name)
{
	return name.n > 0 && name.p[name.n - 1] == 's';
}

/* The elements of a list; of another value itself, which stands for a list of one. */
static const struct gql_value *first(const struct gql_value *v)
{
	return v->kind == GQL_LIST ? v->first : v;
}

static const struct gql_value *after(const struct gql_value *v, const struct gql_value *e)
{
	return v->kind == GQL_LIST ? e->next : NULL;
}

static bool references(struct mutation *m, enum gql_member_kind kind, const struct gql_value *v, struct span name)
{
	if (v->kind == GQL_LIST && !is_list(name))
		return refuse(m, REFUSAL_GQL_ID, "an input that must be a string is none", name);
	for (const struct gql_value *e = first(v); e; e = after(v, e)) {
		const struct gql_value *s = gql_resolve(m->w->j->doc.op, e);

		if (!s || s->kind != GQL_STRING)
			return refuse(m, REFUSAL_GQL_ID, "an input that must be a string is none", name);
		if (!reference(m, kind, s->text))
			return false;
	}
	return true;
}

/* A value that refers to nothing: no object is in it, so no name of a member can be. */
static bool plain(struct mutation *m, const struct gql_value *v, struct span name)
{
	for (const struct gql_value *e = first(v); e; e = after(v, e)) {
		const struct gql_value *s = gql_resolve(m->w->j->doc.op, e);

		if (s && (s->kind == GQL_LIST || s->kind == GQL_OBJECT))
			return refuse(m, REFUSAL_GQL_MUTATION, "an input is of another type than is known", name);
	}
	return true;
}

/* The object has these members and no others. */
static bool members_are(struct mutation *m, const struct gql_value *v, const char *const *names, size_t n)
{
	if (!v || v->kind != GQL_OBJECT)
		return refuse(m, REFUSAL_GQL_MUTATION, "an input that must be an object is none", SPAN(NULL, 0));
	for (const struct gql_value *e = v->first; e; e = e->next) {
		size_t i = 0;

		while (i < n && !span_is(e->name, names[i]))
			i++;
		if (i == n)
			return refuse(m, REFUSAL_GQL_MUTATION, "an input is not known", e->name);
	}
	return true;
}

static const struct gql_value *member(struct mutation *m, const struct gql_value *v, const char *name)
{
	return gql_member(m->w->j->doc.op, v, name);
}

static bool is_zero_oid(const struct gql_value *v)
{
	for (size_t i = 0; v && i < v->text.n; i++)
		if (v->text.p[i] != '0')
			return false;
	return true;
}

static bool ref_updates(struct mutation *m, const struct gql_value *v)
{
	static const char *const names[] = { "name", "afterOid", "beforeOid", "force" };

	for (const struct gql_value *e = first(v); e; e = after(v, e)) {
		const struct gql_value *update = gql_resolve(m->w->j->doc.op, e), *name;

		if (!members_are(m, update, names, ARRAY_SIZE(names)))
			return false;
		name = member(m, update, "name");
		if (!name || name->kind != GQL_STRING)
			return refuse(m, REFUSAL_GQL_MUTATION, "a ref without its name", SPAN(NULL, 0));
		if (!ref_ok(m, name->text) || (is_zero_oid(member(m, update, "afterOid")) && !may_delete(m)))
			return false;
	}
	return true;
}

/* Where a commit is made: by the id of the branch, or by the names of both, never both ways. */
static bool branch(struct mutation *m, const struct gql_value *v)
{
	static const char *const names[] = { "repositoryNameWithOwner", "branchName", "id" };
	const struct gql_value *id, *slug, *name;
	const struct gh_repo *r;
	struct gh_slug parsed;

	if (!members_are(m, v, names, ARRAY_SIZE(names)))
		return false;
	slug = member(m, v, names[0]);
	name = member(m, v, names[1]);
	id = member(m, v, names[2]);
	if (id && !slug && !name)
		return references(m, GQL_M_REF, id, span_str("id"));
	if (id || !slug || !name || slug->kind != GQL_STRING || name->kind != GQL_STRING)
		return refuse(m, REFUSAL_GQL_MUTATION,
			      "a branch is either an id, or repositoryNameWithOwner and branchName", SPAN(NULL, 0));
	r = gh_scope_find_slug(m->w->scope, slug->text);
	if (!r)
		return refuse(m, REFUSAL_OFFLIST_WRITE, "the repository is not listed",
			      gh_slug_parse(slug->text, &parsed) ? slug->text : SPAN(NULL, 0));
	return repo_ok(m, r, m->level) && branch_ok(m, name->text);
}

static bool files(struct mutation *m, const struct gql_value *v)
{
	static const char *const names[] = { "additions", "deletions" }, *const of_file[] = { "path", "contents" };

	if (!members_are(m, v, names, ARRAY_SIZE(names)))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct gql_value *list = member(m, v, names[i]);

		for (const struct gql_value *e = list && list->kind != GQL_NULL ? first(list) : NULL; e;
		     e = after(list, e)) {
			const struct gql_value *file = gql_resolve(m->w->j->doc.op, e), *path;

			if (!members_are(m, file, of_file, ARRAY_SIZE(of_file)))
				return false;
			path = member(m, file, "path");
			if (!path || path->kind != GQL_STRING)
				return refuse(m, REFUSAL_GQL_MUTATION, "a file without its path", SPAN(NULL, 0));
			if (gh_is_workflow(path->text) && !gh_scope_has(m->w->scope, GH_WORKFLOWS))
				return refuse(m, REFUSAL_GQL_MUTATION,
					      ".github/workflows stays as it is (--github protect-workflows=off)",
					      SPAN(NULL, 0));
		}
	}
	return true;
}

/* ---- the input ---- */

static bool check(struct mutation *m, const struct gql_member *row, const struct gql_value *v)
{
	struct span name = span_str(row->name);

	if (!v || v->kind == GQL_NULL) {
		if (row->required)
			return refuse(m, REFUSAL_GQL_MUTATION, "an input is missing", name);
		if (row->kind == GQL_M_NEW_BRANCH && !gh_scope_any_ref(m->w->scope))
			return refuse(m, REFUSAL_GQL_MUTATION,
				      "push-refs is set, so the branch needs a name that it holds", name);
		return true;
	}
	switch ((enum gql_member_kind)row->kind) {
	case GQL_M_PLAIN:
		return plain(m, v, name);
	case GQL_M_DATA:
		return true;
	case GQL_M_NOTHING:
		return v->kind == GQL_LIST && !v->first
			       ? true
			       : refuse(m, REFUSAL_GQL_MUTATION, "projects are not open", name);
	case GQL_M_REF_UPDATES:
		return ref_updates(m, v);
	case GQL_M_BRANCH:
		return branch(m, v);
	case GQL_M_FILES:
		return files(m, v);
	default:
		return references(m, (enum gql_member_kind)row->kind, v, name);
	}
}

static const struct gql_member *find_member(const struct gql_mutation *row, struct span name)
{
	for (const struct gql_member *r = row->members; r && r->name; r++)
		if (span_is(name, r->name))
			return r;
	return NULL;
}

static bool input(struct mutation *m, const struct gql_value *v)
{
	static const char client[] = "clientMutationId";

	for (const struct gql_value *e = v->first; e; e = e->next) {
		const struct gql_value *c = gql_resolve(m->w->j->doc.op, e);

		if (span_is(e->name, client) ? c && !plain(m, c, span_str(client)) : !find_member(m->row, e->name))
			return refuse(m, REFUSAL_GQL_MUTATION, "an input is not known",
				      gql_is_name(e->name) ? e->name : SPAN(NULL, 0));
	}
	for (const struct gql_member *r = m->row->members; r->name; r++)
		if (!check(m, r, member(m, v, r->name)))
			return false;
	return m->named > 0 ? true
			    : refuse(m, REFUSAL_GQL_ID, "nothing of a listed repository is named", SPAN(NULL, 0));
}

static bool class_ok(struct mutation *m)
{
	m->level = GH_WRITE;
	switch (m->row->class) {
	case GQL_CLASS_WRITE:
		return true;
	case GQL_CLASS_MERGE:
		return gh_scope_has(m->w->scope, GH_MERGE)
			       ? true
			       : refuse(m, REFUSAL_GQL_MUTATION, "merging is switched off (--github merge=on)",
					SPAN(NULL, 0));
	case GQL_CLASS_CI:
		return gh_scope_has(m->w->scope, GH_CI)
			       ? true
			       : refuse(m, REFUSAL_GQL_MUTATION,
					"runs and deployments are switched off (--github ci=on)", SPAN(NULL, 0));
	case GQL_CLASS_BRANCH:
		return gh_scope_any_branch(m->w->scope)
			       ? true
			       : refuse(m, REFUSAL_GQL_MUTATION,
					"push-refs is set, and this writes a branch that it does not name",
					SPAN(NULL, 0));
	case GQL_CLASS_ADMIN:
		m->level = GH_ADMIN;
		return true;
	case GQL_CLASS_NEVER:
		break;
	}
	return refuse(m, REFUSAL_CLASS_NEVER, "no option opens this", SPAN(NULL, 0));
}

bool gql_mutate(struct gql_walk *w, struct gql_sel *s)
{
	struct mutation m = { .w = w, .repo = GQL_NO_REPO };
	const struct gql_value *v;

	if (s->kind != GQL_FIELD)
		return gql_refuse(w, REFUSAL_GQL_MUTATION, "a mutation begins with its fields, not with fragments",
				  "Mutation", s->name);
	if (span_is(s->name, "__typename") && !s->set.first && !s->args)
		return true;
	m.row = gql_mutation_find(s->name);
	if (!m.row)
		return gql_refuse(w, REFUSAL_GQL_MUTATION, "the mutation is not known", "Mutation", s->name);
	if (!w->j->mutation)
		w->j->mutation = m.row->name;
	if (!class_ok(&m))
		return false;
	v = gql_member(w->j->doc.op, s->args, "input");
	if (!v || v->kind != GQL_OBJECT || s->args->first->next || !s->set.first)
		return refuse(&m, REFUSAL_GQL_MUTATION, "a mutation has one argument, input, which is an object",
			      SPAN(NULL, 0));
	if (!input(&m, v))
		return false;
	return gql_visit(w, &s->set,
			 (struct gql_state){ .type = GQL_T_PAYLOAD,
					     .reach = GQL_LISTED,
					     .repo = m.repo,
					     .mutation = (uint16_t)(m.row - gql_mutations) });
}

const struct gql_field *gql_payload_field(uint16_t mutation, struct span name)
{
	for (const struct gql_field *f = gql_mutations[mutation].payload; f && f->name; f++)
		if (span_is(name, f->name))
			return f;
	return NULL;
}
