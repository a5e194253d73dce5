/* A verdict over GraphQL as a decision over a request: what records say, and what the guest hears. */
#include "gate/policy/github/gql.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "gate/policy/github/decide.h"

#define SHOWN 100 /* bytes of a name of the guest's */

static const char *how_to_open(enum refusal_code code)
{
	switch (code) {
	case REFUSAL_GQL_ROOT:
	case REFUSAL_GQL_ID:
	case REFUSAL_OFFLIST_WRITE:
	case REFUSAL_HEAD_SCOPE:
	case REFUSAL_SEARCH_SCOPE:
		return "start with --repo OWNER/NAME for each repository that is needed";
	case REFUSAL_CLASS_ADMIN:
		return "start with --repo OWNER/NAME=admin";
	case REFUSAL_CLASS_NEVER:
		return "no option opens it";
	case REFUSAL_GQL_FIELD:
		return "leave the field out, or ask for what it holds in a listed repository";
	case REFUSAL_GQL_PARSE:
	case REFUSAL_LIMIT:
		return "send one GraphQL document as strict JSON: query, variables, operationName";
	default:
		return "";
	}
}

static void refuse(const struct gql_judged *j, struct gh_decision *d)
{
	const struct gql_fault *f = &j->fault;
	int n = (int)MIN(f->name.n, SHOWN);
	char how[GH_TEXT_MAX];
	struct gh_slug slug;
	const char *name = n > 0 ? (const char *)f->name.p : "", *type = f->type ? f->type : "";

	switch (j->form) {
	case GQL_FORM_ORGANIZATION:
		/* gh goes on when it hears this, and takes the owner for a person. */
		gh_refuse(d, f->code, how_to_open(f->code),
			  "Could not resolve to an Organization with the login of '%.*s'.", n, name);
		d->status = 200;
		return;
	case GQL_FORM_PROJECTS:
		/* And this it takes for a token without the right to read projects. */
		gh_refuse(
			d, f->code, how_to_open(f->code),
			"projects are not open: the %.*s field requires one of the following scopes: ['read:project']",
			n, name);
		d->status = 200;
		return;
	case GQL_FORM_403:
		break;
	}
	if ((f->code == REFUSAL_GQL_ROOT || f->code == REFUSAL_OFFLIST_WRITE) && gh_slug_parse(f->name, &slug)) {
		(void)snprintf(how, sizeof(how), "start with --repo %.*s", (int)f->name.n, (const char *)f->name.p);
		n = (int)f->name.n;
	} else {
		(void)snprintf(how, sizeof(how), "%s", how_to_open(f->code));
	}
	gh_refuse(d, f->code, how, "GraphQL %s%s%.*s%s%s", type, *type && n > 0 ? "." : "", n, name,
		  *type || n > 0 ? ": " : "", f->why);
	if (f->code == REFUSAL_LIMIT)
		d->status = 413;
}

enum gql_verdict gql_decide(const struct gql_known *known, struct span body, struct gql_arena *arena,
			    struct gql_judged *j, struct gh_decision *d)
{
	enum gql_verdict v = gql_judge(d->scope, known, body, arena, j);

	d->seen = body;
	d->repo = j->repo;
	d->completes = v == GQL_SEND && j->absent;
	if (j->mutation)
		d->rule = j->mutation;
	if (v == GQL_SEND)
		d->verdict = GH_CREDENTIAL;
	else if (v == GQL_REFUSE)
		refuse(j, d);
	return v;
}

/* A field as it stands, and nothing about it. */
static bool is_plain(const struct gql_sel *s, const char *name)
{
	return s && s->kind == GQL_FIELD && span_is(s->name, name) && s->alias.n == 0 && !s->args && !s->directives;
}

bool gql_copilot(struct span body, struct gql_arena *arena, struct gql_doc *ret)
{
	struct gql_fault fault = { 0 };
	const struct gql_sel *viewer, *login, *at;

	arena->n = 0;
	*ret = (struct gql_doc){ 0 };
	if (!gql_body(body, arena, ret, &fault) || ret->ops->next || ret->fragments || ret->op->variables ||
	    ret->op->kind != GQL_QUERY)
		return false;
	viewer = ret->op->set.first;
	if (!is_plain(viewer, "viewer") || viewer->next || !viewer->set.first || !viewer->set.first->next)
		return false;
	login = viewer->set.first;
	at = login->next;
	if (at->next)
		return false;
	if (!is_plain(login, "login")) {
		const struct gql_sel *other = login;

		login = at;
		at = other;
	}
	return is_plain(login, "login") && !login->set.first && is_plain(at, "copilotEndpoints") &&
	       is_plain(at->set.first, "api") && !at->set.first->next && !at->set.first->set.first;
}

void gql_decide_unanswered(struct gh_decision *d)
{
	gh_refuse(d, REFUSAL_GQL_ID, "try again in a moment",
		  "GitHub could not be asked which repository the ids of this request belong to");
	d->status = 403;
}

int gql_denial(const struct gh_decision *d, struct buf *out, const char **ret_type)
{
	char text[2 * GH_TEXT_MAX];
	bool root = d->code == REFUSAL_GQL_ROOT;
	int n;

	if (d->status != 200)
		return gh_denial(d, out, ret_type);
	n = snprintf(
		text, sizeof(text),
		"{\"data\":%s,\"errors\":[{\"type\":\"%s\",\"path\":[%s],\"message\":\"%s (sandbox policy %s)\"}]}",
		root ? "{\"organization\":null}" : "null", root ? "NOT_FOUND" : "INSUFFICIENT_SCOPES",
		root ? "\"organization\"" : "", d->what, refusal_code_str[d->code]);
	*ret_type = "application/json; charset=utf-8";
	return n < 0 || (size_t)n >= sizeof(text) ? -ENOBUFS : buf_put(out, text, (size_t)n);
}
